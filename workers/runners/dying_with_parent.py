"""Importing this ties a process to the one that started it, and takes it out of a terminal's reach.

The server of workers imports it first (`workers.runners.worker_server`). Python's own server ends when nobody can ask
it for a process any more, but its workers could: one that is stopped for a measurement would keep it, and itself, alive
after the controller was killed.
"""

from __future__ import annotations

import os

from workers.processes import die_with_parent

os.setpgid(0, 0)  # a terminal's Ctrl-C and hang-up are for the controller alone
die_with_parent()
