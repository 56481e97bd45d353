"""Kill every process of real searches at every phase, start it again, and judge: nothing lost, nothing repeated.

    python -m benchmarks.kill_anywhere --kills 200

Runs studies of short real trainings (SQLite and PostgreSQL, local workers and Ray Tune, latencies of this host and of a
device behind a hub, with and without a second launch that stands by) until so many kills were made and every cell of
role × phase was hit. Prints the table and every violation; saves benchmarks/results/kill_anywhere.json. Ends with exit
code 1 on any violation, an empty cell, or fewer kills than asked for. `--no-ray` leaves the studies on Ray out.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from benchmarks.kill_anywhere.forms import Cell, Form, as_json
from benchmarks.kill_anywhere.judge import judge
from benchmarks.kill_anywhere.processes import Postgres, postgres_server
from benchmarks.kill_anywhere.run import Run
from benchmarks.kill_anywhere.table import shortfalls, table_lines
from benchmarks.record import save

FORMS = (
    Form("SQLite"),
    Form("PostgreSQL", devices=True, stand_by=True),
    Form("SQLite", devices=True),
    Form("PostgreSQL", stand_by=True),
    Form("PostgreSQL", engine="ray"),
)
TRAININGS = 4  # of each study at least; it goes on until its kills were made
COMPARED = 4  # trainings of each study that are repeated, undisturbed


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started
    campaign = Campaign(options)
    with tempfile.TemporaryDirectory(prefix="killed-") as temporary, postgres_server() as postgres:
        for turn in itertools.count():
            if campaign.is_over(turn):
                break
            campaign.run(turn, options.folder or Path(temporary), postgres)
            save("kill_anywhere", campaign.result)  # after each study: ended early, it keeps what was made
    for line in table_lines(campaign.table, campaign.cells):
        print(line)
    print(f"{campaign.made} kills in {len(campaign.runs)} studies, {len(campaign.violations)} violations")
    print("\n".join(campaign.violations))
    sys.exit(bool(campaign.missing) or bool(campaign.violations))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kill_anywhere",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=200, help="in all, at least")
    parser.add_argument("--per-run", type=int, default=20, help="kills of one study, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-ray", action="store_true", help="without the studies on Ray")
    parser.add_argument("--folder", type=Path, help="keep the studies there instead of in a temporary folder")
    return parser.parse_args()


class Campaign:
    """The studies run so far, their kills by role and phase, and what the judge says of each."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.begun = options, time.monotonic()
        self.forms = [form for form in FORMS if form.engine == "local" or not options.no_ray]
        self.cells = list(dict.fromkeys(cell for form in self.forms for cell in form.cells))
        self.table: Counter[Cell] = Counter()
        self.runs: list[dict[str, Any]] = []

    @property
    def made(self) -> int:
        return sum(self.table.values())

    @property
    def missing(self) -> list[str]:
        return shortfalls(self.options.kills, self.table, self.cells)

    @property
    def violations(self) -> list[str]:
        return [f"run {turn}: {text}" for turn, run in enumerate(self.runs) for text in run["violations"]]

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self.begun) / 60

    @property
    def result(self) -> dict[str, Any]:
        """What is saved."""
        return {
            "kills": self.made,
            "minutes": round(self.minutes, 1),
            "table": {f"{role}, {phase}": self.table[(role, phase)] for role, phase in self.cells},
            "violations": self.violations,
            "runs": self.runs,
        }

    def is_over(self, turn: int) -> bool:
        """Whether every form had its turn and nothing is missing, or too many turns did not bring it."""
        missing = self.missing
        if turn < len(self.forms):
            return False
        if missing and turn >= len(self.forms) + 2 * self.options.kills / self.options.per_run:
            print(f"given up: {'; '.join(missing)}")
            return True
        return not missing

    def run(self, turn: int, root: Path, postgres: Postgres) -> None:
        """Run one study with its kills in a folder of its own, and judge it."""
        form, folder = self.forms[turn % len(self.forms)], root / f"run-{turn:03d}"
        folder.mkdir(parents=True)
        print(f"run {turn}: {form.name}; {self.made} kills so far, {self.minutes:.0f} min", flush=True)
        run = Run(form, folder, TRAININGS, self.options.seed + turn, postgres)
        try:
            run.finish(self.options.per_run, self.table, lambda text: print(text, flush=True))
            verdict = judge(run, COMPARED)
        except Exception:
            traceback.print_exc()
            verdict = {"form": form.name, "kills": len(run.kills), "violations": [traceback.format_exc()]}
        self.runs.append(verdict | {"hits": [as_json(kill) for kill in run.kills]})
        print(f"  {verdict}", flush=True)


if __name__ == "__main__":
    main()
