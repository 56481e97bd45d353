"""Epochs until a search has 99 % of its final hypervolume, with and without early stopping, on recorded curves.

    python -m benchmarks.early_stopping [--seeds 4] [--fresh 8] [--launches 8] [--trainings 100] [--searches NAME ...]

Two tables of networks that were trained to their end: CondenseBench (Fashion-MNIST, 8 epochs; macs and the latency of
the project's own kernel) and a small space on the digits (12 epochs; macs). Each is trained whole in random order;
CondenseBench is also searched by `launch` with its default sampler. Hypervolume: of logarithms of costs and accuracy,
as in `benchmarks.sample_efficiency.hypervolume`. "Final" is what the same seed ends with when nothing is stopped.
Wrongly stopped are those that would be on the front of all networks of that search, had each been trained to its end.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.early_stopping.digits import digits_curves
from benchmarks.early_stopping.play import Array, Play, by_launch, by_oracle, costs_of, in_random_order
from benchmarks.record import RESULTS, save
from benchmarks.sample_efficiency.hypervolume import hypervolume, scaled, trajectory
from search.replay.columns import RecordedTraining
from search.replay.table import read_table
from search.results.pareto import non_dominated

SHARE = 0.99  # of the final hypervolume
LOOKED_AT = 12  # random orders of each table, by which the rules' parameters were chosen
RULES = ("none", "rungs", "conservative", "aggressive")
ORACLES = {"who knows each final accuracy": False, "who knows the final front": True}  # see `by_oracle`


class Scale:
    """Costs and accuracies of one table, scaled by the whole of it."""

    def __init__(self, trainings: Sequence[RecordedTraining]) -> None:
        self._logs = np.log([costs_of(training) for training in trainings])
        self._top1 = np.array([training.top1 for training in trainings])

    def of(self, play: Play) -> tuple[Array, Array]:
        """Return a search's costs (n, k) and accuracies (n,), scaled."""
        count = len(play.top1)
        costs = scaled(np.vstack([np.log(play.costs), self._logs]))[:count]
        return costs, scaled(np.concatenate([play.top1, self._top1]))[:count]


def figures(play: Play, full: Play, scale: Scale) -> dict[str, Any]:
    """Return what one search cost and missed, beside the same seed's search that stopped nothing."""
    costs, top1 = scale.of(play)
    goal = hypervolume(*scale.of(full))
    reached = trajectory(costs, np.where(play.stopped, -1.0, top1))
    enough = np.flatnonzero(reached >= SHARE * goal - 1e-12)
    front = non_dominated(np.column_stack([play.costs, -play.top1]))
    return {
        "epochs": float(play.epochs.sum()),
        "epochs_to_goal": float(play.epochs[: enough[0] + 1].sum()) if enough.size else None,
        "share_of_hypervolume": float(reached[-1] / goal),
        "stopped": float(play.stopped.mean()),
        "taken_up": play.taken_up,
        "front": int(front.sum()),
        "wrongly_stopped": int((front & play.stopped).sum()),
    }


def compared(search: Callable[[str, int], Play], scale: Scale, seeds: Sequence[int]) -> dict[str, Any]:
    """Return the figures of every rule over some seeds."""
    runs: dict[str, list[dict[str, Any]]] = {rule: [] for rule in (*RULES, *ORACLES)}
    for seed in seeds:
        full = search("none", seed)
        plays = {"none": full} | {rule: by_oracle(full, ahead=ahead) for rule, ahead in ORACLES.items()}
        for rule, of_rule in runs.items():
            of_rule.append(figures(plays[rule] if rule in plays else search(rule, seed), full, scale))
            print(f"  seed {seed} {rule}: {of_rule[-1]}", flush=True)
    return {rule: summary(of, runs["none"]) for rule, of in runs.items()}


def summary(runs: list[dict[str, Any]], full: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over the seeds; a search that never reached the goal counts as endless."""

    def fewer(run: dict[str, Any], without: dict[str, Any]) -> float:
        return 0.0 if run["epochs_to_goal"] is None else without["epochs_to_goal"] / run["epochs_to_goal"]

    members = sum(run["front"] for run in runs)
    reached = statistics.median(run["epochs_to_goal"] or math.inf for run in runs)
    return {
        "epochs_to_goal": None if math.isinf(reached) else reached,
        "times_fewer_epochs": statistics.median(map(fewer, runs, full)),
        "seeds_that_reach_it": sum(run["epochs_to_goal"] is not None for run in runs),
        "times_fewer_in_all": statistics.median(a["epochs"] / b["epochs"] for a, b in zip(full, runs, strict=True)),
        "stopped": statistics.fmean(run["stopped"] for run in runs),
        "taken_up": sum(run["taken_up"] for run in runs),
        "wrongly_stopped": sum(run["wrongly_stopped"] for run in runs),
        "front_members": members,
        "wrongly_stopped_share": sum(run["wrongly_stopped"] for run in runs) / members,
        "share_of_hypervolume": statistics.median(run["share_of_hypervolume"] for run in runs),
        "runs": runs,
    }


def as_table(found: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| search | rule | epochs to 99 % | times fewer | in all | stopped | wrongly stopped |", "|" + "---|" * 7]
    for name, rules in found.items():
        for rule, of in rules.items():
            epochs = "not reached" if of["epochs_to_goal"] is None else f"{of['epochs_to_goal']:,.0f}"
            share = f"{of['wrongly_stopped']} of {of['front_members']} ({100 * of['wrongly_stopped_share']:.1f} %)"
            fewer = f"{of['times_fewer_epochs']:.2f} | {of['times_fewer_in_all']:.2f} | {100 * of['stopped']:.0f} %"
            lines.append(f"| {name} | {rule} | {epochs} | {fewer} | {share} |")
    return "\n".join(lines)


def at_random(trainings: Sequence[RecordedTraining], orders: Sequence[int]) -> dict[str, Any]:
    return compared(lambda rule, seed: in_random_order(trainings, rule, seed), Scale(trainings), orders)


def fashion_by_launch(options: argparse.Namespace) -> dict[str, Any]:
    known = dict(read_table("condensebench").trainings)
    return compared(
        lambda rule, seed: by_launch(known, rule, seed, options.trainings), Scale(fashion()), range(options.launches)
    )


def fresh(options: argparse.Namespace) -> range:
    """Return the orders that no parameter of the rules was chosen on."""
    return range(LOOKED_AT, LOOKED_AT + options.fresh)


def fashion() -> list[RecordedTraining]:
    """Return CondenseBench's trainings with its first seed."""
    return [training for (_, seed), training in read_table("condensebench").trainings.items() if seed == 0]


def saved() -> dict[str, Any]:
    """Return the results that are there."""
    path = RESULTS / "early_stopping.json"
    return dict(json.loads(path.read_text())["result"]) if path.is_file() else {}


SEARCHES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "CondenseBench in random order": lambda options: at_random(fashion(), range(options.seeds)),
    "CondenseBench in fresh orders": lambda options: at_random(fashion(), fresh(options)),
    "digits in random order": lambda options: at_random(digits_curves(), range(options.seeds)),
    "digits in fresh orders": lambda options: at_random(digits_curves(), fresh(options)),
    "CondenseBench by launch": fashion_by_launch,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="random orders of each table, of those looked at")
    parser.add_argument("--fresh", type=int, default=8, help="random orders that no parameter was chosen on")
    parser.add_argument("--launches", type=int, default=8, help="searches by launch")
    parser.add_argument("--searches", nargs="+", choices=SEARCHES, default=list(SEARCHES), help="the others stay saved")
    parser.add_argument("--trainings", type=int, default=100, help="of each search by launch")
    options = parser.parse_args(arguments)
    found = saved()
    for search in options.searches:
        found[search] = SEARCHES[search](options)
    found = {search: found[search] for search in SEARCHES if search in found}
    print(as_table(found))
    save("early_stopping", found)


if __name__ == "__main__":
    main()
