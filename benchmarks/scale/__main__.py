"""Trials a second through ask → price → dispatch → report → tell, beside plain Optuna RDB workers.

    python -m benchmarks.scale [--workers 1 8 64] [--trials 10000] [--seconds 10] [--quick]

Real: the controller and its database, worker processes fed over pipes by the local engine, every row that a trial of
one epoch leaves (trial, price with 120 samples, attempt, curve, artifacts, Optuna's tables). Made up: a worker answers
at once instead of training, and a price is known without exporting or measuring; one more round exports every
candidate as `launch` does. The peer asks and tells the same space, sampler and values in N processes on one RDBStorage
and does nothing else. A learning rate between two reals keeps TPE from repeating itself. Every round runs in a process
of its own on a new database (or a copy of one filled with `--trials` finished trials), ours and the peer's in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.record import save

ROOT = Path(__file__).parents[2]
SAMPLERS = ("random", "tpe")
PEER_CONNECTIONS = 400  # 64 of the peer's workers take more than a server's default of 100
Database = Callable[[bool], AbstractContextManager[str]]  # filled? -> the URL of a database for one round


def in_process(module: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Run a round of `round` or `peer` of this folder in a process of its own; return its figures."""
    code = f"from benchmarks.scale.{module} import main; main()"
    ask = {"input": json.dumps(facts), "stdout": subprocess.PIPE, "text": True, "check": True}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, **ask)
    return json.loads(done.stdout.splitlines()[-1])


def fill_in_process(url: str, trials: int) -> None:
    code = "import sys, warnings; warnings.simplefilter('ignore')\nfrom benchmarks.scale.fill import fill\n"
    command = [sys.executable, "-c", f"{code}fill(sys.argv[1], int(sys.argv[2]))", url, str(trials)]
    subprocess.run(command, cwd=ROOT, check=True)


def command_s(command: str, url: str, rounds: int) -> float:
    """Return the seconds that a reading command takes, start and all: the median."""
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        line = [sys.executable, str(ROOT / "condensery.py"), command, "scale", "--storage", url]
        subprocess.run(line, stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


@contextmanager
def sqlite_databases(folder: Path, trials: int) -> Iterator[Database]:
    filled = folder / "filled.db"
    fill_in_process(f"sqlite:///{filled}", trials)

    @contextmanager
    def database(full: bool) -> Iterator[str]:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            if full:
                shutil.copy(filled, Path(name) / "round.db")
            yield f"sqlite:///{name}/round.db"

    yield database


@contextmanager
def postgres_databases(trials: int) -> Iterator[Database]:
    from tests.postgres import database_of, postgres_server

    with tempfile.TemporaryDirectory(prefix="postgres-") as folder, ExitStack() as stack:
        server = stack.enter_context(postgres_server(Path(folder) / "data", PEER_CONNECTIONS))
        filled = stack.enter_context(database_of(server))
        fill_in_process(filled, trials)
        template = filled.rpartition("/")[2].partition("?")[0]

        def database(full: bool) -> AbstractContextManager[str]:
            return database_of(server, template if full else "template1")

        yield database


class Bench:
    """Runs rounds and collects their figures."""

    def __init__(self, seconds: float, warm_up_s: float) -> None:
        self.seconds, self.warm_up_s = seconds, warm_up_s
        self.rounds: list[dict[str, Any]] = []

    def ours(self, kind: str, database: Database, workers: int, sampler: str, **more: Any) -> dict[str, Any]:
        with database(more.get("resume", False)) as url:
            facts = {"url": url, "workers": workers, "sampler": sampler, "seconds": self.seconds, **more}
            figures = in_process("round", facts | {"warm_up_s": self.warm_up_s})
        return self._add({"side": "ours", "database": kind, **{k: v for k, v in figures.items() if k != "url"}})

    def peer(self, kind: str, database: Database, workers: int, sampler: str, tuned: bool) -> dict[str, Any]:
        with database(False) as url:
            facts = {"url": url, "workers": workers, "sampler": sampler, "seconds": self.seconds, "tuned": tuned}
            figures = in_process("peer", facts)
        name = {"side": "optuna", "database": f"{kind} tuned" if tuned else kind, "workers": workers}
        return self._add({**name, "sampler": sampler, **figures})

    def _add(self, row: dict[str, Any]) -> dict[str, Any]:
        self.rounds.append(row)
        special = " exporting" if row.get("export") else " from a full database" if row.get("resume") else ""
        head = f"  {row['side']:6} {row['database']:13} {row['sampler']:6} {row['workers']:3} workers{special}"
        print(f"{head}: {row['rate']:.1f} trials a second", flush=True)
        return row


def measure(bench: Bench, kind: str, database: Database, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one kind of database; return rates, ratios and what 10,000 trials change."""
    workers: list[int] = sorted(options.workers)
    table: dict[str, Any] = {sampler: {} for sampler in options.samplers}
    peers = [False, True] if kind == "sqlite" else [False]
    for sampler in options.samplers:
        counts = workers if sampler == "random" else [workers[len(workers) // 2]]
        for count in counts:
            ours = bench.ours(kind, database, count, sampler)
            row = {"rate": ours["rate"], "steps_ms": ours["steps_ms"]}
            for tuned in peers:
                name = "optuna_tuned" if tuned else "optuna"
                rate = bench.peer(kind, database, count, sampler, tuned)["rate"]
                row |= {name: rate, f"ratio_to_{name}": ours["rate"] / rate if rate else None}
            table[sampler][count] = row
        full = bench.ours(kind, database, counts[len(counts) // 2], sampler, resume=True)
        early = table[sampler][counts[len(counts) // 2]]["rate"]
        kept = {name: full[name] for name in ("rate", "first_trial", "memory_mb", "resume_s", "steps_ms")}
        table[sampler]["full"] = kept | {"share_of_early_rate": full["rate"] / early if early else None}
    with database(True) as url:
        table["commands_s"] = {
            command: command_s(command, url, 1 if options.quick else 3) for command in ("status", "pareto")
        }
    return table


def show(kind: str, table: dict[str, Any]) -> None:
    print(f"\n{kind}")
    for sampler in (sampler for sampler in SAMPLERS if sampler in table):
        for count, row in table[sampler].items():
            if count == "full":
                continue
            peers = ", ".join(
                f"{name.replace('_', ' ')} {row[name]:.1f} (ours {row[f'ratio_to_{name}'] or 0:.1f} times)"
                for name in ("optuna", "optuna_tuned")
                if name in row
            )
            print(f"  {sampler:6} {count:3} workers {row['rate']:7.1f} trials a second; {peers}")
            print(f"         ms a trial: {steps_text(row['steps_ms'])}")
        full = table[sampler]["full"]
        print(
            f"  {sampler:6} from trial {full['first_trial']}: {full['rate']:.1f} a second "
            f"({full['share_of_early_rate'] or 0:.0%} of the first trials' rate), memory {full['memory_mb']:.0f} MB, "
            f"resumed in {full['resume_s']:.1f} s"
        )
    print("  " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in table["commands_s"].items()))


def steps_text(steps_ms: dict[str, float]) -> str:
    largest = sorted(steps_ms.items(), key=lambda item: -item[1])
    return ", ".join(f"{step} {ms:.2f}" for step, ms in largest if ms >= 0.01)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--trials", type=int, default=10_000, help="of the full database")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    parser.add_argument("--quick", action="store_true", help="rounds of a second, 200 trials; saves nothing")
    options = parser.parse_args(arguments)
    if options.quick:
        options.trials, options.seconds = min(options.trials, 200), min(options.seconds, 1.0)
    bench = Bench(options.seconds, 0.2 if options.quick else 2.0)
    result: dict[str, Any] = {"trials": options.trials, "seconds": options.seconds}
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.databases:
            opened = sqlite_databases(Path(folder), options.trials) if kind == "sqlite" else None
            with opened or postgres_databases(options.trials) as database:
                result[kind] = measure(bench, kind, database, options)
                if kind == "sqlite":
                    middle = sorted(options.workers)[len(options.workers) // 2]
                    result["exporting"] = bench.ours(kind, database, middle, "random", export=True)
                    with database(True) as url:
                        result["database_mb"] = Path(url.removeprefix("sqlite:///")).stat().st_size / 1e6
    for kind in options.databases:
        show(kind, result[kind])
    if "exporting" in result:
        print(f"\nwith the export of every candidate: {result['exporting']['rate']:.1f} trials a second (SQLite)")
    if not options.quick:
        save("scale", result)
    return result


if __name__ == "__main__":
    main()
