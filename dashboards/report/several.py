"""Several studies as one HTML file: their fronts beside each other, as the page of all studies shows them.

Everything is in the page as text too, for the limit that it opens with, so that it can be read where scripts can't run.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from dashboards.data.columns import StudyColumns
from dashboards.data.study_settings import study_subtitle
from dashboards.formats import NOTHING, moment, one_line, percent
from dashboards.panels import PLOT_CONFIG, DataTable
from dashboards.panels.studies.fronts_drawing import caption_of, drawn
from dashboards.report.markup import SHARED_SCRIPTS, document, esc, html_table, packed, section
from dashboards.studies.documents import BEST_HEADERS, POINT_HEADERS, best_rows, point_rows
from dashboards.studies.fronts import Comparison, token_of
from workers.files import write_atomically

STYLES = ("assets/condensery.css", "assets/studies.css", "report/assets/report.css")
SCRIPTS = (
    *SHARED_SCRIPTS,
    "assets/studies_compared.js",
    "report/assets/unpacking.js",
    "report/assets/several.js",
)


def write_studies_report(studies: Sequence[StudyColumns], comparisons: Sequence[Comparison], path: Path) -> None:
    """Write a report of several studies to `path`, replacing what is there in one step.

    Args:
        studies: in their order; the first is what the others are compared with.
        comparisons: of them, one for each view to choose from; the first to open with.
        path: the HTML file; its folder is made when it isn't there.

    Raises:
        ReadOnlyFolder, DiskFull: the file can't be written.
    """
    html = studies_html(comparisons, studies)
    write_atomically(path, html.encode("utf-8"), retry="write the report again")


def studies_html(comparisons: Sequence[Comparison], studies: Sequence[StudyColumns]) -> str:
    """Return the report of several studies; `comparisons` are its views."""
    names = [one_line(columns.study.name, 100) for columns in studies]
    tokens = [{"token": token_of(one.view), "text": one.view.name} for one in comparisons]
    data = {"views": {token_of(one.view): drawn(one) | {"views": tokens} for one in comparisons}, "config": PLOT_CONFIG}
    first = comparisons[0]
    title = ", ".join(names)
    body = "\n".join(
        (
            '<a class="skip" href="#compared">Skip to the comparison</a>',
            f'<header><h1>{esc(title)}</h1><p class="muted">{len(names)} studies beside each other</p></header>',
            "<main>",
            section("compared", "Studies beside each other", "", f'<div id="compared-body">{_text(first)}</div>'),
            section("basis", "The studies", "", f'<div class="scroll">{html_table(_studies_table(studies))}</div>'),
            "</main>",
            f"<footer><p>Written by Condensery on {esc(moment(time.time()))} UTC.</p></footer>",
        )
    )
    return document(f"{title} - Condensery", body, [packed("several", json.dumps(data).encode())], STYLES, SCRIPTS)


def _text(comparison: Comparison) -> str:
    """Return a comparison as text: what the script puts its chart and its controls in the place of."""
    words = "".join(f"<p>{esc(text)}</p>" for text in comparison.sentences(comparison.limit))
    bests = DataTable(BEST_HEADERS, tuple(best_rows(comparison, comparison.limit)))
    points = DataTable(POINT_HEADERS, tuple(point_rows(comparison.studies)))
    tables = "".join(f'<div class="scroll">{html_table(table)}</div>' for table in (bests, points) if table.rows)
    view = f'<p class="muted">Accuracy against {esc(comparison.view.name)}.</p>'
    caption = "" if comparison.reason else f'<p class="caption">{esc(caption_of(comparison))}</p>'
    return f'<div class="sentence">{words}</div>{view}{tables}{caption}'


def _studies_table(studies: Sequence[StudyColumns]) -> DataTable:
    rows = []
    for columns in studies:
        best = columns.score[columns.trained].max() if columns.trained.any() else None
        score = NOTHING if best is None else f"{percent(float(best))} {columns.score_name}"
        name = one_line(columns.study.name, 100)
        rows.append(
            (name, study_subtitle(columns.study), f"{len(columns):,}", f"{int(columns.trained.sum()):,}", score)
        )
    return DataTable(("study", "what it is", "trials", "trained", "best at any cost"), tuple(rows))
