"""Find what crashes, full disks and hand-edited files left wrong with a study, and repair what can be repaired.

Notable choices:
- Looking changes nothing. Each `Finding` brings its own repair, or says what only the user can do.
- Nothing recorded is ever removed: folders that no row knows are moved into `.orphans`, and only files that are
  temporary by their name are deleted. Figures, files or states that disagree between two places are reported.
- Repairs are made as the study's controller, so that no search begins meanwhile; each leaves an event `repaired`.
"""

from search.doctor.examination import examine, refuse_while_running, repair
from search.doctor.findings import Finding, StudyUnderCheck

__all__ = ["Finding", "StudyUnderCheck", "examine", "refuse_while_running", "repair"]
