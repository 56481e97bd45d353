"""What the journals come to, as figures and as a table to read."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.condensebench.journal import Row, read_rows
from benchmarks.headline.curves import Reach, Scale, Times, Trained, mean_top1, median_of, reach, times_less
from benchmarks.headline.form import GATED, OURS, PLAIN, TITLES
from benchmarks.headline.peer import REFUSED, TRAINED, journal_of
from space.errors import InvalidSettings
from workers.wording import counted

NAMES = (PLAIN, GATED, OURS)
SHARES = (0.9, 0.95, 0.98)  # the last is the goal


def trained(rows: Sequence[Row]) -> list[Trained]:
    """Return a journal's trainings; one that failed has taken its time and adds nothing."""
    return [
        Trained(
            row["seconds"],
            row["network"],
            (row.get("latency_ms", 1.0), row["macs"]),
            row.get("top1", 0.0),
            row["state"] == TRAINED and row["inside"],
        )
        for row in rows
        if row["state"] != REFUSED
    ]


def figures(work: Path, seeds: int, most: Mapping[str, int | None]) -> dict[str, Any]:
    """Return the figures of every search of these seeds, and of the networks that both loops trained.

    A seed counts once each of its searches has finished a training, and one of those is within the limit.

    Args:
        work: the folder of the journals.
        seeds: how many are looked for.
        most: the first so many trainings of a search count, by its name; None: all.

    Raises:
        InvalidSettings: there is none yet.
    """
    runs = [
        {name: trained(read_rows(journal_of(work, seed, name)))[: most[name]] for name in NAMES}
        for seed in range(seeds)
    ]
    runs = [of_seed for of_seed in runs if all(of_seed.values()) and _some_inside(of_seed)]
    if not runs:
        raise InvalidSettings(f"{work} holds no training of each search yet; run the command without --report.")
    scale = Scale.of(one for of_seed in runs for some in of_seed.values() for one in some)
    reaches: dict[float, list[dict[str, Reach]]] = {share: [] for share in SHARES}
    to_ends: dict[str, list[dict[str, Reach]]] = {PLAIN: [], GATED: []}
    found = []
    for of_seed in runs:
        together = [one for some in of_seed.values() for one in some]
        top1 = mean_top1(together)
        whole = scale.volume(together, top1)
        curves = {name: scale.curve(some, top1) for name, some in of_seed.items()}
        for share in SHARES:
            reaches[share].append({name: reach(of_seed[name], curves[name], share * whole) for name in NAMES})
        for peer, some in to_ends.items():
            goal = float(curves[peer][-1])
            some.append({name: reach(of_seed[name], curves[name], goal) for name in (peer, OURS)})
        found.append({name: _of_run(of_seed[name], curves[name] / whole) for name in NAMES})
    return {
        "share": SHARES[-1],
        "by_share": {f"{share:.0%}": _at(reaches[share]) for share in SHARES},
        "to_a_peers_end": {peer: _times(some, peer) for peer, some in to_ends.items()},
        "seeds": found,
        "same_networks": _same(read_rows(work / "same.jsonl")),
    }


def counts(found: Mapping[str, Any]) -> dict[str, int]:
    """Return the numbers of the form that these figures are of: what every seed has, not what was asked for."""
    seeds, same = found["seeds"], found["same_networks"]
    return {
        "seeds": len(seeds),
        "trainings": min(seed[OURS]["trainings"] for seed in seeds),
        "peer_trainings": min(seed[peer]["trainings"] for seed in seeds for peer in (PLAIN, GATED)),
        "same": same["networks"] if same else 0,
    }


def _some_inside(of_seed: Mapping[str, Sequence[Trained]]) -> bool:
    return any(one.inside for some in of_seed.values() for one in some)


def _of_run(trainings: Sequence[Trained], shares: Sequence[float]) -> dict[str, Any]:
    return {
        "trainings": len(trainings),
        "within_the_limit": sum(one.inside for one in trainings),
        "seconds": round(trainings[-1].seconds, 1),
        "share_at_the_end": round(float(shares[-1]), 4),
        "each": [  # processor seconds until then, ms, macs, top-1, share of the reference's hypervolume
            f"{one.seconds:.1f} {one.costs[0]:.5g} {one.costs[1]} {one.top1:.4f} {share:.4f}"
            for one, share in zip(trainings, shares, strict=True)
        ],
    }


def _at(reaches: Sequence[Mapping[str, Reach]]) -> dict[str, Any]:
    """Return what every search needed for one share of the hypervolume, and how many times less that was for ours."""
    answer: dict[str, Any] = {
        name: [
            {"seconds": round(one[name].seconds, 1), "trainings": one[name].trainings, "reached": one[name].reached}
            for one in reaches
        ]
        for name in NAMES
    }
    return answer | {f"than_{peer}": _times(reaches, peer) for peer in (PLAIN, GATED)}


def _times(reaches: Sequence[Mapping[str, Reach]], peer: str) -> dict[str, Any]:
    """Return how many times as much as ours a peer needed, in seconds and trainings: by seed, and the median."""
    answer = {}
    for of in ("seconds", "trainings"):
        times = [times_less(one[OURS], one[peer], of) for one in reaches]
        answer[of] = {"by_seed": [_plain(one) for one in times], "median": _plain(median_of(times))}
    return answer


def _plain(times: Times | None) -> dict[str, Any] | None:
    return None if times is None else {"times": round(times.times, 2), "at_least": times.at_least}


def _same(rows: Sequence[Row]) -> dict[str, Any] | None:
    if not rows:
        return None
    ratios = sorted(row["plain_s"] / row["ours_s"] for row in rows)
    return {
        "networks": len(rows),
        "plain_s": round(statistics.fmean(row["plain_s"] for row in rows), 2),
        "ours_s": round(statistics.fmean(row["ours_s"] for row in rows), 2),
        "times_faster": {"min": ratios[0], "median": statistics.median(ratios), "max": ratios[-1]},
        "top1_differences": [round(row["ours_top1"] - row["plain_top1"], 4) for row in rows if row["plain_top1"]],
    }


def as_table(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    lines = ["| search | share of the front | processor seconds, by seed | trainings, by seed |", "|---|---|---|---|"]
    for share, at in result["by_share"].items():
        for name in NAMES:
            seconds = ", ".join(_needed(one, "seconds") for one in at[name])
            trainings = ", ".join(_needed(one, "trainings") for one in at[name])
            lines.append(f"| {TITLES[name]} | {share} | {seconds} | {trainings} |")
    lines.append("")
    for peer in (PLAIN, GATED):
        for share, at in result["by_share"].items():
            lines.append(f"to {share}, {TITLES[peer]}: {_in_words(at[f'than_{peer}'])}")
        lines.append(f"to what it ends with, {TITLES[peer]}: {_in_words(result['to_a_peers_end'][peer])}")
    lines.append("")
    for name in NAMES:
        ends = (
            f"{seed[name]['share_at_the_end']:.1%} after {counted(seed[name]['trainings'], 'training')} and "
            f"{seed[name]['seconds']:.0f} s"
            for seed in result["seeds"]
        )
        lines.append(f"at the end, {TITLES[name]}: {'; '.join(ends)}")
    same = result["same_networks"]
    if same:
        least, median, most = (f"{same['times_faster'][which]:.1f}" for which in ("min", "median", "max"))
        lines.append(
            f"one training, {same['networks']} networks by both loops: {same['plain_s']:.1f} s plain, "
            f"{same['ours_s']:.1f} s ours, {median} times as fast ({least} to {most})"
        )
    return "\n".join(lines)


def _in_words(times: Mapping[str, Any]) -> str:
    if all(one is None for one in times["seconds"]["by_seed"]):
        return "ours has not come so far"
    parts = []
    for of, what in (("seconds", "processor seconds"), ("trainings", "trainings")):
        by_seed = ", ".join(map(times_text, times[of]["by_seed"]))
        parts.append(f"{times_text(times[of]['median'])} times the {what} (by seed {by_seed})")
    return "; ".join(parts)


def times_text(times: Mapping[str, Any] | None) -> str:
    """Return how many times, as a person reads it; None: ours never came so far."""
    return "not reached by ours" if times is None else str(Times(times["times"], times["at_least"]))


def _needed(one: Mapping[str, Any], of: str) -> str:
    return f"{'' if one['reached'] else '> '}{one[of]:.0f}"
