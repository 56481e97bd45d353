"""How many trainings each sampler needs, replayed from any table of trainings that are known already.

    python -m benchmarks.sample_efficiency --table table.csv.gz --params depth,width,categorical:block \
        --accuracy top1 --costs latency_ms,macs [--features proxy_snip] [--where seed=0] [--budget latency_ms=12] \
        --seeds 10 --out result.json
    … --params nasbench201:arch_str … --same iso_rep_idx --budget raspi4_tflite_ms=5% --seeds 10 gp=3

A sampler proposes, the table answers; only trainings of networks that are new count. The measure is the share of the
whole table's hypervolume: logarithms of the costs and accuracy, each scaled to 0..1 over the table (after --where),
with the reference at costs 1.05 and accuracy 0.3. With a budget it is the best accuracy within it, and each peer runs
twice: trained on all that it proposes, and behind the gate, where a network over the budget is never trained.
Leave out networks that are the same as others by `--same COL`, not by `--where`: left out, they fail for the peers, and
samplers that see no failures propose them forever (on NAS-Bench-201 that alone makes TPE a random search).
The control cost-spread spreads its trainings over the known costs and learns nothing: what it reaches is owed to
knowing the costs, and only what lies above it to a model.
`--budget COL=5%` is the cost that 5 % of the table's networks don't exceed. What exactly counts, and what a peer is
told: replay.py and peers.py; what a column becomes: table.py.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.arguments import names, not_negative, pair
from benchmarks.long_work import ends_clearly
from benchmarks.sample_efficiency import peers
from benchmarks.sample_efficiency.replay import Peer, PeerEnded, Rules, Run, play, within
from benchmarks.sample_efficiency.report import GATED, Measure, figures, table_lines, title
from benchmarks.sample_efficiency.table import Columns, Table, read_table
from benchmarks.sample_efficiency.table_file import UnusableTable
from workers.wording import agreeing, counted


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    out = options.out or record.RESULTS / f"sample_efficiency_{options.table.name.split('.')[0]}.json"
    kept = f"what is finished is in {_part(out)}; the same command begins again"
    with ends_clearly(kept):
        _compare(options, out)


def _compare(options: argparse.Namespace, out: Path) -> None:
    columns = Columns(options.params, options.accuracy, options.costs, options.features, options.where, options.same)
    if not 1 <= len(columns.costs) <= 2:
        raise UnusableTable(f"--costs takes one or two columns, but got {len(columns.costs)}.")
    table = read_table(options.table, columns)
    limits = _limits(table, columns, options.budget)
    measure = Measure(table, limits)
    facts = _facts(options, table, limits)
    print("\n".join(_introduction(options, table, limits)), flush=True)
    runs: dict[str, list[Run]] = {}
    not_run: dict[str, str] = {}
    versions: dict[str, str] = {}
    for label in _labels(options.peers, measure.has_budget):
        name = label.removesuffix(GATED)
        rules = Rules(
            trainings=min(_of(options.trainings, name, measure.marks[-1]), measure.marks[-1]),
            retries=peers.SLOW_RETRIES.get(name, options.retries),
            limits=limits,
            gate=label != name or name in peers.PRICED,
        )
        try:
            if name in not_run:
                continue
            runs[label] = _runs(label, peers.Task(table, limits, rules.trainings), rules, options, versions)
        except (PeerEnded, ImportError) as reason:
            not_run[name] = str(reason)
            print(f"{title(name)} did not run: {reason}", flush=True)
            continue
        result = facts | figures(measure, runs) | {"not_run": not_run, "peer_versions": versions}
        record.write("sample_efficiency", result, _part(out))
    if not runs:
        raise UnusableTable("no peer ran.")
    result = facts | figures(measure, runs) | {"not_run": not_run, "peer_versions": versions}
    print("\n" + "\n".join(table_lines(result)))
    record.write("sample_efficiency", result, out)
    _part(out).unlink(missing_ok=True)
    print(f"saved {out}")


def _runs(
    label: str, task: peers.Task, rules: Rules, options: argparse.Namespace, versions: dict[str, str]
) -> list[Run]:
    """Let a peer search once for each seed.

    Raises:
        PeerEnded: it can't be run here.
    """
    name = label.removesuffix(GATED)
    runs = []
    for seed in range(_of(options.seeds, name, 10)):
        begin = time.perf_counter()
        peer: Peer = peers.make_peer(name, task, seed, options.peer_python)
        try:
            run = play(peer, task.table, rules, seed)
        finally:
            peer.close()
        if hasattr(peer, "version"):
            versions[name] = peer.version
        if not run.rows:
            raise PeerEnded(run.ended)
        runs.append(run)
        spent = time.perf_counter() - begin
        ended = f"; {run.ended}" if run.ended else ""
        print(
            f"{title(label)}, seed {seed}: {counted(len(run.rows), 'training')}, {counted(run.asks, 'ask')}, "
            f"{spent:.1f} s{ended}",
            flush=True,
        )
    return runs


def _labels(names: Sequence[str], has_budget: bool) -> list[str]:
    labels = []
    for name in names:
        labels.append(name)
        if has_budget and name not in peers.PRICED:  # those propose nothing over a budget
            labels.append(name + GATED)
    return labels


def _limits(table: Table, columns: Columns, budget: Mapping[str, str]) -> peers.Limits:
    """Return the limit of each cost.

    Raises:
        UnusableTable: a budget is of no cost, is no number, or nothing fits it.
    """
    for name, text in budget.items():
        if name not in columns.costs:
            raise UnusableTable(f"--budget must name one of --costs ({', '.join(columns.costs)}), but got {name!r}.")
        if not _is_positive(text.removesuffix("%")):
            raise UnusableTable(f"--budget must be COL=NUMBER or COL=PERCENT%, above 0, but got {name}={text}.")
    limits = tuple(
        _limit(budget[name], cost) if name in budget else None
        for name, cost in zip(columns.costs, table.costs.T, strict=True)
    )
    if not within(table, limits).any():
        least = ", ".join(f"{name} is at least {table.costs[:, columns.costs.index(name)].min():g}" for name in budget)
        raise UnusableTable(f"a network must fit the budget, but none does: {least}.")
    return limits


def _limit(text: str, cost: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    if text.endswith("%"):
        return float(np.quantile(cost, min(float(text[:-1]), 100.0) / 100, method="lower"))
    return float(text)


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False


def _facts(options: argparse.Namespace, table: Table, limits: peers.Limits) -> dict[str, Any]:
    return {
        "table": options.table.name,
        "params": options.params,
        "accuracy": options.accuracy,
        "costs": options.costs,
        "features": options.features,
        "where": [f"{name}={value}" for name, value in options.where],
        "same": options.same,
        "networks": len(table.configs),
        "share_of_all_combinations": round(table.coverage, 4),
        "left_out": table.left_out,
        "limits": limits,
        "networks_within_budget": int(within(table, limits).sum()),
    }


def _introduction(options: argparse.Namespace, table: Table, limits: peers.Limits) -> list[str]:
    lines = [
        f"{options.table.name}: {counted(len(table.configs), 'network')}, "
        f"{counted(len(table.parameters), 'parameter')}, "
        f"{100 * table.coverage:.3g} % of all combinations; the others fail without being counted"
    ]
    for name, limit in zip(options.costs, limits, strict=True):
        if limit is not None:
            keep = int(within(table, limits).sum())
            lines.append(
                f"budget: {name} <= {limit:g}, which {counted(keep, 'network')} {agreeing(keep, 'keeps', 'keep')}"
            )
    return lines + list(table.left_out)


def _part(out: Path) -> Path:
    return out.with_name(f"{out.stem}_part.json")


def _of(counts: Mapping[str, int], name: str, default: int) -> int:
    return counts.get(name, counts.get("", default))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.peers == ["all"]:
        options.peers = list(peers.NAMES)
    unknown = [name for name in options.peers if name not in peers.NAMES]
    if unknown:
        parser.error(f"--peers knows {', '.join(peers.NAMES)}, but got {unknown[0]!r}")
    if options.out and options.out.is_dir():
        parser.error(f"--out must be a file, but {options.out} is a folder")
    if options.out and not os.access(options.out.parent, os.W_OK):
        parser.error(f"--out must be in a folder that is there and can be written, but {options.out.parent} isn't")
    options.budget, options.seeds, options.trainings = map(dict, (options.budget, options.seeds, options.trainings))
    options.peer_python = {name: Path(path) for name, path in options.peer_python}
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sample_efficiency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--table", type=Path, required=True, metavar="PATH", help="a CSV, plain or gzipped")
    add("--params", type=names, required=True, metavar="COL,...", help="also categorical:COL and nasbench201:COL")
    add("--accuracy", required=True, metavar="COL", help="what only a training tells; larger is better")
    add("--costs", type=names, required=True, metavar="COL[,COL]", help="known before a training; smaller is better")
    add("--features", type=names, default=[], metavar="COL,...", help="cheap facts for the price-aware sampler")
    add("--budget", type=pair, action="append", default=[], metavar="COL=X", help="an upper limit of a cost, or =P%%")
    add("--where", type=pair, action="append", default=[], metavar="COL=VALUE", help="only these rows; may be repeated")
    add("--same", default="", metavar="COL", help="rows with the same value of it are one network, as isomorphic ones")
    add("--peers", type=names, default=["all"], metavar="NAME,...", help=f"all, or of: {', '.join(peers.NAMES)}")
    add("--seeds", type=_count, nargs="+", default=[], metavar="[NAME=]N", help="10; NAME=N for one peer")
    add("--trainings", type=_count, nargs="+", default=[], metavar="[NAME=]N", help="200, with a budget 60, at most")
    add(
        "--retries",
        type=not_negative,
        default=3,
        metavar="N",
        help="repeats in a row before a network is drawn at random",
    )
    add("--peer-python", type=pair, action="append", default=[], metavar="NAME=PATH", help="a peer's own Python")
    add("--out", type=Path, metavar="FILE", help="default: results/sample_efficiency_TABLE.json")
    return parser


def _count(text: str) -> tuple[str, int]:
    """Return a peer's name, empty for all, and a number of at least 1."""
    name, _, number = text.rpartition("=")
    if (name and name not in peers.NAMES) or not number.isdigit() or int(number) < 1:
        raise argparse.ArgumentTypeError(f"N or NAME=N must hold, with N >= 1 and a peer's name, but got {text!r}")
    return name, int(number)


if __name__ == "__main__":
    main()
