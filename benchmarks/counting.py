"""How long counting a network's ARM instructions takes, alone and several networks in one process.

    python -m benchmarks.counting [--networks 4] [--runs 5]

CondenseNet-86 first by itself, starting the emulated Python included; then that network and others sampled from the
cifar space, all in one process. Goal: at most 15 s a network. The counts are held to those of the first round: the
process that a network is counted in makes no difference beyond 0.2 %.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import save, timed
from space.config import CondenseNetConfig
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from space.presets import PUBLISHED
from space.search_space import SearchSpace
from workers.export.onnx import save_onnx
from workers.latency.emulated.virtual_arm import Counts, VirtualArm, build, default_folder

GOAL_S = 15.0


def networks(count: int) -> list[CondenseNetConfig]:
    """Return CondenseNet-86 and, up to `count`, networks of the cifar space."""
    space, rng = SearchSpace.preset("cifar"), np.random.default_rng(0)
    return [PUBLISHED["condensenet-86"].config, *(space.sample(rng) for _ in range(count - 1))]


def counted(arm: VirtualArm, paths: list[Path], runs: int) -> dict[str, Any]:
    """Count the networks in one process; return seconds in all and a network, and millions of instructions of each."""
    results: list[Any] = []
    before = cpu_s()
    seconds = timed(lambda: results.extend(arm.count(paths, runs)))
    spent = cpu_s() - before
    failed = [counts.reason for counts in results if not isinstance(counts, Counts)]
    if failed:
        raise SystemExit(failed[0])
    millions = [counts.median["all"] / 1e6 for counts in results]
    times = {"seconds": seconds, "a_network_s": seconds / len(paths), "a_network_cpu_s": spent / len(paths)}
    return {"networks": len(paths), **times, "millions": millions}


def cpu_s() -> float:
    """Return the processor's seconds that this process's ended children took: what a busy machine doesn't lengthen."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=4)
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each network")
    options = parser.parse_args()
    arm = build(default_folder(), progress=lambda text: print(f"  {text}", file=sys.stderr))
    configs = networks(options.networks)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.onnx" for number in range(len(configs))]
        for config, path in zip(configs, paths, strict=True):
            save_onnx(DeployedCondenseNet.random(config), path)
        alone, together = counted(arm, paths[:1], options.runs), counted(arm, paths, options.runs)
    print(f"counting with {options.runs} runs each (goal: {GOAL_S:.0f} s a network)")
    for name, row in (("CondenseNet-86 alone", alone), (f"{len(paths)} networks in one process", together)):
        each = f"{row['a_network_s']:7.1f} s a network ({row['a_network_cpu_s']:.1f} s of the processor)"
        print(f"  {name:30}{row['seconds']:7.1f} s in all{each}")
    for config, millions in zip(configs, together["millions"], strict=True):
        print(f"    {cost_of(config).macs / 1e6:8.1f} M macs{millions:9.2f} M instructions  {config}")
    apart = abs(together["millions"][0] / alone["millions"][0] - 1)
    print(f"  CondenseNet-86's counts of the two processes are {apart:.2%} apart")
    facts = {"runs": options.runs, "goal_s": GOAL_S, "device": arm.facts, "apart": apart}
    save("counting", {**facts, "alone": alone, "together": together})


if __name__ == "__main__":
    main()
