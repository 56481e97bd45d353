"""Whether a measurement knows when it was disturbed: other work on its core, on another core, and quotas.

    python -m benchmarks.disturbed [--batches 100] [--policy quick] [--only "cpu, same core"] [--small]

Measures CondenseNet-86 and a small network, batch after batch: first while nothing else of ours runs, then beside each
kind of other work, one process of it. Goals: no disturbed batch is called steady (0 of 100), of the quiet ones at least
95 % are, and what is called steady is within 2 % of the quiet median. Run it on a machine that does nothing else;
`--small` is a try-out of a few batches that saves nothing.

A machine that does nothing else of ours need not be quiet: a virtual machine's core may be a thread of a core whose
other thread is another tenant's, which neither CPU time nor steal shows. So a plain loop of additions on the measuring
core is timed before and after each batch, and batches are also counted where it held its fastest speed.

- `cpu` counts, `memory` copies arrays larger than any cache, `training` trains a small network in torch;
- `same core` is the measuring one, `another core` is one that shares a cache with it;
- `quota` lets the measurement have half of a processor (as root, where control groups of version 1 or 2 can be made);
- `two launches` measures in two processes at once on one core: each must wait for the other, so both are right;
- `emulated` counts instructions on the ARM device in software, where it is built, with and without other work.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.record import save
from search.pricing.pricer import ANCHOR, host_probe, write_models
from space.errors import EmulatorMissing
from space.presets import PUBLISHED
from workers.latency.agent.sensors import caches_with, usable_cores
from workers.latency.emulated.virtual_arm import Counts, VirtualArm, default_folder
from workers.latency.host_probe import HostProbe, default_core
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.latency.policy import policy_named

NETWORKS = {"CondenseNet-86": PUBLISHED["condensenet-86"].config, "small": ANCHOR}
HOGS = {
    "cpu": "while True: pass",
    "memory": "import numpy\na, b = numpy.ones((2, 32 << 20))\nwhile True: numpy.copyto(a, b)",
    "training": """
import torch
torch.set_num_threads(1)
network = torch.nn.Sequential(
    torch.nn.Conv2d(3, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.AdaptiveAvgPool2d(1),
    torch.nn.Flatten(), torch.nn.Linear(32, 10))
optimizer = torch.optim.SGD(network.parameters(), 0.01)
while True:
    optimizer.zero_grad()
    network(torch.randn(32, 3, 32, 32)).logsumexp(1).sum().backward()
    optimizer.step()
""",
}
PLACES = ("same core", "another core")
QUOTA_US, PERIOD_US = 50_000, 100_000
HOG_STARTS_S = 3.0  # imports, and the first steps
LOOPS, ADDITIONS = 25, 200_000  # of a few milliseconds each
STILL_WITHIN = 0.03  # how far from its fastest the loop may be, relative

Batch = list[Measurement | FailedMeasurement]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--policy", choices=("quick", "standard"), default="quick")
    parser.add_argument("--only", action="append", help="one of the kinds; may be given several times")
    parser.add_argument("--small", action="store_true", help="two batches of each kind; nothing is saved")
    options = parser.parse_args()
    batches = 2 if options.small else options.batches
    result: dict[str, Any] = {"policy": options.policy, "batches": batches}
    with tempfile.TemporaryDirectory(prefix="disturbed-") as folder:
        models = write_models(list(NETWORKS.values()), "onnxruntime", Path(folder))
        probe = host_probe(policy_named(options.policy), None, Path(folder))
        quiet: dict[str, float] = {}
        for name, around in kinds(probe).items():
            if options.only and name not in options.only:
                continue
            with around() as measure:
                if measure is None:
                    print(f"{name}: can't be tried here")
                    continue
                row = tried(measure, models, batches, quiet)
            if name == "quiet":
                quiet = {network: figures["median_ms"] for network, figures in row["networks"].items()}
            result[name] = row
            show(name, row)
        if not options.only or "emulated" in options.only:
            result["emulated"] = emulated(models)
    if not options.small:
        save("disturbed", result)


def kinds(probe: HostProbe) -> dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]:
    """Return each kind of other work as a context that gives the function to measure with, or None."""
    core = default_core()
    others = [one for one in sorted(caches_with(core)) if one != core and one in usable_cores()]
    around: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {
        "quiet": lambda: contextlib.nullcontext(probe.measure)
    }
    for place, cores in zip(PLACES, ([core], others[:1]), strict=True):
        for name, code in HOGS.items():
            around[f"{name}, {place}"] = lambda code=code, cores=cores: beside(probe, code, cores)  # type: ignore[misc]
    around["quota"] = lambda: under_quota(probe)
    around["two launches"] = lambda: contextlib.nullcontext(two_launches(probe))
    return around


@contextlib.contextmanager
def beside(probe: HostProbe, code: str, cores: Sequence[int]) -> Iterator[Any]:
    """Run other work on a core meanwhile; None where there is no such core."""
    if not cores:
        yield None
        return
    with hog(code, cores[0]):
        yield probe.measure


@contextlib.contextmanager
def hog(code: str, core: int) -> Iterator[None]:
    """Run a program on one core until the end of the context."""
    pinned = f"import os; os.sched_setaffinity(0, [{core}])\n{code}"
    with subprocess.Popen([sys.executable, "-c", pinned], env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        try:
            time.sleep(HOG_STARTS_S)
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def under_quota(probe: HostProbe) -> Iterator[Any]:
    """Let the measuring processes have half of a processor; None where no control group can be made."""
    name, mine = f"condensery-{os.getpid()}", str(os.getpid())
    for top in ("cpu", "cpu,cpuacct", "."):
        group = Path("/sys/fs/cgroup", top, name)
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(QUOTA_US))
            else:
                (group / "cpu.max").write_text(f"{QUOTA_US} {PERIOD_US}")
            before = group.parent / "cgroup.procs"
            (group / "cgroup.procs").write_text(mine)
        except OSError:
            group.rmdir()
            continue
        try:
            yield probe.measure
        finally:
            before.write_text(mine)
            group.rmdir()
        return
    yield None


def two_launches(probe: HostProbe) -> Callable[[Sequence[Path]], Batch]:
    """Return a function that measures twice at the same time; it returns what the first one got."""

    def measure(models: Sequence[Path]) -> Batch:
        with ThreadPoolExecutor(2) as threads:
            first, second = (threads.submit(probe.measure, models) for _ in range(2))
            second.result()
            return first.result()

    return measure


def tried(
    measure: Callable[[Sequence[Path]], Batch], models: Sequence[Path], batches: int, quiet: dict[str, float]
) -> dict[str, Any]:
    """Measure so many batches; return how many were called steady, their errors, and how long a batch took."""
    measured, loops_ms, seconds = [], [loop_ms()], 0.0
    for _ in range(batches):
        began = time.perf_counter()
        measured.append([one for one in measure(models) if isinstance(one, Measurement)])
        seconds += (time.perf_counter() - began) / batches
        loops_ms.append(loop_ms())
    fastest = min(loops_ms)
    still = [max(loops_ms[at : at + 2]) <= fastest * (1 + STILL_WITHIN) for at in range(batches)]
    networks = {}
    for place, name in enumerate(NETWORKS):
        latencies = [batch[place] for batch in measured if len(batch) == len(NETWORKS)]
        networks[name] = of_network(latencies, quiet.get(name))
        networks[name]["steady_where_still"] = sum(
            batch[place].steady for batch, is_still in zip(measured, still, strict=True) if is_still and batch
        )
    steady = sum(any(one.steady for one in batch) for batch in measured)
    return {
        "batches": batches,
        "batches_with_a_steady_one": steady,
        "batches_still": sum(still),
        "loop_slowest_to_fastest": max(loops_ms) / fastest,
        "seconds_a_batch": seconds,
        "networks": networks,
    }


def loop_ms() -> float:
    """Return the median time of a loop of additions on the measuring core; what shares its units makes it slower."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [default_core()])
    try:
        times_ms = []
        for _ in range(LOOPS):
            began, total = time.thread_time(), 0
            for number in range(ADDITIONS):
                total += number
            times_ms.append((time.thread_time() - began) * 1000)
        return statistics.median(times_ms)
    finally:
        os.sched_setaffinity(0, before)


def of_network(latencies: Sequence[Measurement], quiet_ms: float | None) -> dict[str, Any]:
    steady = [one for one in latencies if one.steady]
    shown = steady or latencies
    figures: dict[str, Any] = {
        "median_ms": statistics.median(one.median_ms for one in shown),
        "steady": len(steady),
        "of": len(latencies),
        "processes": statistics.fmean(one.conditions["measured"] for one in latencies),
        "half_width": statistics.median((one.interval_high_ms / one.interval_low_ms) ** 0.5 - 1 for one in shown),
        "disturbed_by": sorted(
            {str(process["disturbed"]) for one in latencies for process in one.conditions["processes"]}
        )[:5],
    }
    if quiet_ms is None:  # the quiet ones themselves: how often an interval holds the median of all of them
        middle = figures["median_ms"]
        figures["interval_holds"] = sum(one.interval_low_ms <= middle <= one.interval_high_ms for one in shown)
    else:
        errors = [abs(one.median_ms / quiet_ms - 1) for one in latencies]
        figures["largest_error"] = max(errors)
        figures["largest_error_of_steady"] = max((abs(one.median_ms / quiet_ms - 1) for one in steady), default=None)
    return figures


def show(name: str, row: dict[str, Any]) -> None:
    counted = f"{row['batches_with_a_steady_one']} of {row['batches']} batches called steady"
    still = (
        f"a plain loop kept its speed around {row['batches_still']} (else up to {row['loop_slowest_to_fastest']:.2f}x)"
    )
    print(f"{name}: {counted}, {row['seconds_a_batch']:.1f} s a batch; {still}", flush=True)
    for network, figures in row["networks"].items():
        error, of_steady = figures.get("largest_error"), figures.get("largest_error_of_steady")
        off = "" if error is None else f", off by {error:.1%} at most"
        off += "" if of_steady is None else f" ({of_steady:.1%} where steady)"
        holds = f", interval holds {figures['interval_holds']}" if "interval_holds" in figures else ""
        print(
            f"  {network:15} {figures['median_ms']:8.4g} ms ± {figures['half_width']:.1%}, "
            f"steady {figures['steady']} of {figures['of']} ({figures['steady_where_still']} where still), "
            f"{figures['processes']:.1f} processes{off}{holds}",
            flush=True,
        )


def emulated(models: Sequence[Path]) -> dict[str, Any] | None:
    """Return how far counted instructions differ beside other work on every core; None without the device."""
    try:
        arm = VirtualArm(default_folder())
    except EmulatorMissing as missing:
        print(f"emulated: {missing}")
        return None
    alone = arm.count(models, runs=3)
    with contextlib.ExitStack() as stack:
        for core in usable_cores():
            stack.enter_context(hog(HOGS["memory"], core))
        beside_work = arm.count(models, runs=3)
    differences = [
        abs(there.median["all"] / here.median["all"] - 1)
        for here, there in zip(alone, beside_work, strict=True)
        if isinstance(here, Counts) and isinstance(there, Counts)
    ]
    print(f"emulated: counts beside other work differ by {max(differences):.3%} at most (repeated alone: about 0.05 %)")
    return {"largest_difference": max(differences), "networks": len(differences)}


if __name__ == "__main__":
    main()
