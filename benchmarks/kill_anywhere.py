"""Kill every process of real searches at every phase, start it again, and judge what is left: nothing lost or repeated.

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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.killing.forms import Cell, Form, as_json
from benchmarks.killing.judge import judge, table_lines
from benchmarks.killing.processes import postgres_server
from benchmarks.killing.run import Run
from benchmarks.record import save

FORMS = (
    Form("SQLite"),
    Form("PostgreSQL", devices=True, stand_by=True),
    Form("SQLite", devices=True),
    Form("PostgreSQL", stand_by=True),
    Form("PostgreSQL", engine="ray"),
)
TRAININGS = 4  # of each study at least; it goes on until its kills were made
COMPARED = 4  # trainings of each study that are trained anew, undisturbed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all, at least")
    parser.add_argument("--per-run", type=int, default=20, help="kills of one study, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-ray", action="store_true", help="without the studies on Ray")
    parser.add_argument("--folder", type=Path, help="keep the studies there instead of in a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started
    forms = [form for form in FORMS if form.engine == "local" or not options.no_ray]
    cells = list(dict.fromkeys(cell for form in forms for cell in form.cells))
    table: Counter[Cell] = Counter()
    runs: list[dict[str, Any]] = []
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="killed-") as temporary, postgres_server() as postgres:
        for turn in itertools.count():
            made, missing = sum(table.values()), shortfalls(options.kills, table, cells)
            if turn >= len(forms) and not missing:
                break
            if turn >= len(forms) + 2 * options.kills / options.per_run:
                print(f"given up: {'; '.join(missing)}")
                break
            form = forms[turn % len(forms)]
            folder = (options.folder or Path(temporary)) / f"run-{turn:03d}"
            folder.mkdir(parents=True)
            print(
                f"run {turn}: {form.name}; {made} kills so far, {(time.monotonic() - begin) / 60:.0f} min", flush=True
            )
            run = Run(form, folder, TRAININGS, options.seed + turn, postgres)
            try:
                run.finish(options.per_run, table, lambda text: print(text, flush=True))
                found = judge(run, COMPARED)
            except Exception:
                traceback.print_exc()
                found = {"form": form.name, "kills": len(run.kills), "violations": [traceback.format_exc()]}
            runs.append(found | {"hits": [as_json(kill) for kill in run.kills]})
            print(f"  {found}", flush=True)
            violations = [f"run {turn}: {text}" for turn, run in enumerate(runs) for text in run["violations"]]
            result = {  # saved after each study: whoever ends this early keeps what was made
                "kills": sum(table.values()),
                "minutes": round((time.monotonic() - begin) / 60, 1),
                "table": {f"{role}, {phase}": table[(role, phase)] for role, phase in cells},
                "violations": violations,
                "runs": runs,
            }
            save("kill_anywhere", result)
    for line in table_lines(table, cells):
        print(line)
    print(f"{sum(table.values())} kills in {len(runs)} studies, {len(violations)} violations")
    print("\n".join(violations))
    sys.exit(bool(shortfalls(options.kills, table, cells)) or bool(violations))


def shortfalls(kills: int, table: Counter[Cell], cells: Sequence[Cell]) -> list[str]:
    """What was to be done and wasn't: kills that were not made, cells that were not hit."""
    made, empty = sum(table.values()), [cell for cell in cells if not table[cell]]
    return [f"{made} kills of {kills}"] * (made < kills) + [f"never hit: {role}, {phase}" for role, phase in empty]


if __name__ == "__main__":
    main()
