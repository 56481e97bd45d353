"""The whole claim on real trainings: processor seconds until a search has 98 % of the reference front's hypervolume.

    python -m benchmarks.headline --work FOLDER [--seeds 3] [--trainings 60] [--peer-trainings 60]
    python -m benchmarks.headline --work FOLDER --small      (digits: a few minutes, saves nothing)

Three searches for each seed, one after another, of one study file (`benchmarks.headline.form`: Fashion-MNIST at 14x14,
space and limit of the digits preset; accuracy, macs and the latency of a Raspberry Pi 5 in software, which is what one
has without a device: `condensery devices virtual` builds it):

    plain     what one would write: Optuna's multivariate TPE, the plainest correct PyTorch loop, all that it proposes
    gated     the same behind our gate: a network over the limit is neither priced nor trained
    ours      `condensery launch`, the real command, with the defaults of its sampler, its trainings and its stopping

Counted are the processor seconds of all of a search's processes: starting, proposing, pricing, training, evaluating.
Decoding the images, and compiling the kernel, which a machine does once, are not. Who doesn't reach the goal counts as
"more than" what it spent. What the reference is: `benchmarks.headline.curves`. As the reference grows with the number
of trainings, it is also said how many times less ours needed for what each peer ends with.

The peers' searches are done in three parts; that they start again isn't counted. Every finished training is a line in
FOLDER; stopped or killed, the same command goes on, and what was spent since the last finished training isn't counted.
More trainings or seeds may be asked for later: what is there stays. The report counts all that is there, or, of what is
given, the first so many; the form that is saved says how much that was.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.arguments import at_least_one
from benchmarks.headline import searches
from benchmarks.headline.folder import MAY_GROW, check_folder, open_folder, seeds_in
from benchmarks.headline.form import GATED, OURS, PLAIN, SMALL, WHOLE, Form, file_of, prepared_settings
from benchmarks.long_work import ends_clearly
from benchmarks.record import save
from space.errors import CondenseryError

PARTS = 3  # of each peer's search, in turn over the seeds: a machine that drifts drifts for all


def main(arguments: Sequence[str] | None = None) -> None:
    options = parsed(arguments)
    form = SMALL if options.small else WHOLE
    asked = {name: getattr(options, name) for name in MAY_GROW if getattr(options, name) is not None}
    with ends_clearly():
        work = options.work.absolute()
        if options.report:
            check_folder(form, work)
        else:
            run(replace(form, **asked), work)
        report(form, asked, work, saved=not options.small)


def run(form: Form, work: Path) -> None:
    """Do what isn't done yet. Raises CondenseryError, also where the folder holds something else."""
    open_folder(form, work)
    for part in range(1, PARTS + 1):
        trainings = math.ceil(form.peer_trainings * part / PARTS)
        for seed in range(form.seeds):
            file_of(work, seed).write_text(form.study_file(seed))
            prepared_settings(work, seed)  # decodes the images
            _in_own_process(searches.as_peer, work, seed, PLAIN, trainings)
            if part == 1:
                _in_own_process(searches.by_launch, work, seed)
            _in_own_process(searches.as_peer, work, seed, GATED, trainings)
    _in_own_process(searches.same_by_both, work, form.same)


def report(form: Form, asked: Mapping[str, int], work: Path, saved: bool) -> None:
    """Print what the journals come to, and save it; of what was asked for, no more than that is counted.

    Raises:
        InvalidSettings: there is nothing to count yet.
    """
    from benchmarks.headline.report import as_table, counts, figures

    most = {PLAIN: asked.get("peer_trainings"), GATED: asked.get("peer_trainings"), OURS: asked.get("trainings")}
    found = figures(work, asked.get("seeds", seeds_in(work)), most)
    print("\n" + as_table(found))
    if saved:
        save("headline", {"form": asdict(replace(form, **counts(found)))} | found)


def _in_own_process(action: Callable[..., None], *arguments: Any) -> None:
    """Run an action in a fresh process, whose processor seconds are its own.

    Raises:
        CondenseryError: it ended with an error, which it has printed.
    """
    process = multiprocessing.get_context("spawn").Process(target=action, args=arguments)
    process.start()
    try:
        process.join()
    finally:
        if process.is_alive():
            process.terminate()
            process.join()
    if process.exitcode:
        raise CondenseryError(f"a search ended with exit code {process.exitcode}; the same command goes on.")


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.headline", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="the folder of everything that is finished")
    parser.add_argument("--small", action="store_true", help="one seed on the digits; saves nothing")
    parser.add_argument("--report", action="store_true", help="train nothing: print and save what is there")
    parser.add_argument("--seeds", type=at_least_one, help=f"{WHOLE.seeds} unless given")
    parser.add_argument("--trainings", type=at_least_one, help=f"of each launch; {WHOLE.trainings} unless given")
    parser.add_argument(
        "--peer-trainings", type=at_least_one, help=f"of each peer; {WHOLE.peer_trainings} unless given"
    )
    parser.add_argument("--same", type=at_least_one, help=f"networks that both loops train; {WHOLE.same} unless given")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
