"""Training speed and memory: the plainest correct implementation beside ours, over whole schedules, in one run.

    python -m benchmarks.training [--rounds 3] [--quick] [--compile] [--worker-trials 50] [--seeds 6]

Each form trains the same network on the same batches, from the same weights, through all of its condensing stages, in a
fresh process: on one thread, and on two. Rounds go through the forms in turn. Seconds are the process's own, so that a
busy machine adds little; with two threads they are the wall clock's.

    plain            what one would write after reading the paper: `benchmarks.training.plain`
    channels-last    the same, tensors channels-last
    autocast         the same in bfloat16 where torch can
    torch.compile    the same compiled by torch, without the time that this takes (with --compile)
    unskipped        our kernel, but dropped columns are computed (for its speed alone: nothing keeps them at zero)
    unfused          our kernel, the optimizer's step not fused
    ours             what `launch` does on a CPU
    recompute        the same with engine.recompute
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.record import save
from benchmarks.training.accuracy import accuracies
from benchmarks.training.steps import FORMS, NETWORKS, Schedule, Steps, run, share_of_equal_bits
from benchmarks.training.worker import worker_memory

STEPS = {"CondenseNet-86": 12, "digits-sized": 300}
SAME_STEPS = 50  # that losses are compared over


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of short schedules; saves nothing")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well: minutes of compiling")
    parser.add_argument("--worker-trials", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    forms = [form for form in FORMS if options.compile or form != "torch.compile"]
    result: dict[str, Any] = {}
    for name in NETWORKS:
        steps = 6 if options.quick else STEPS[name]
        for threads in (1, 2):
            chosen = forms if threads == 1 else ["plain", "channels-last", "ours"]
            schedules = [Schedule(name, form, steps, threads=threads) for form in chosen]
            result[f"{name}, {threads} thread{'s'[: threads - 1]}"] = compare(
                schedules, 1 if options.quick else options.rounds
            )
        result[f"{name}, {SAME_STEPS} steps"] = same_results(name, 6 if options.quick else SAME_STEPS)
    result["accuracy"] = accuracies(1 if options.quick else options.seeds)
    result["worker"] = worker_memory(options.worker_trials)
    if not options.quick:
        save("training", result)


def compare(schedules: Sequence[Schedule], rounds: int) -> dict[str, dict[str, float]]:
    """Time all schedules in turn; print and return medians, and ratios to the first, round by round."""
    runs: list[list[Steps]] = [[run(schedule) for schedule in schedules] for _ in range(rounds)]
    first = schedules[0]
    print(f"\n{first.network}, batch {first.batch}, {first.steps} steps, {first.threads} thread(s):", flush=True)
    rows: dict[str, dict[str, float]] = {}
    for column, schedule in enumerate(schedules):
        images = schedule.steps * schedule.batch
        pairs = [(turn[0].seconds / turn[column].seconds) for turn in runs]
        row = {
            "images_s": images / statistics.median(turn[column].seconds for turn in runs),
            "times_plain": statistics.median(pairs),
            "times_plain_least": min(pairs),
            "peak_mb": statistics.median(turn[column].peak_mb for turn in runs),
            "prepare_s": statistics.median(turn[column].prepare_s for turn in runs),
        }
        row["share_of_plains_memory"] = row["peak_mb"] / statistics.median(turn[0].peak_mb for turn in runs)
        rows[schedule.form] = row
        print(
            f"  {schedule.form:14} {row['images_s']:8.0f} images/s  {row['times_plain']:5.2f} x plain (least "
            f"{row['times_plain_least']:.2f})  peak {row['peak_mb']:6.0f} MB ({row['share_of_plains_memory']:.0%})",
            flush=True,
        )
    return rows


def same_results(network: str, steps: int) -> dict[str, Any]:
    """Train the same steps plainly, channels-last and by our kernel; print how far losses and masks differ."""
    plain = Schedule(network, "plain", steps, batch=32, rate=0.02)
    reference = run(plain)
    rows: dict[str, Any] = {}
    for form in ("channels-last", "ours"):
        other = run(replace(plain, form=form))
        furthest = max(abs(a - b) for a, b in zip(reference.losses, other.losses, strict=True))
        shares = [share_of_equal_bits(a, b) for a, b in zip(reference.masks, other.masks, strict=True)]
        rows[form] = {"largest_difference_of_a_loss": furthest, "equal_columns_by_stage": shares}
        print(
            f"  {network}, {steps} steps of 32 images, {form} against plain: losses differ by at most {furthest:.1e}, "
            f"masks agree on {', '.join(f'{share:.2%}' for share in shares)} of the columns, stage by stage",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main()
