"""Latencies estimated from counted instructions, beside estimates from MACs and from another machine's wall time.

    python -m benchmarks.estimate [--data FILE.csv] [--draws N] [--write-profile]

The data are 36 networks of NAS-Bench-201 whose aarch64 instructions were counted in an emulator and whose latency was
measured on a real Raspberry Pi 5 (HW-NAS-Bench-360; the Raspberry Pi 4 column serves as another device). Goals: median
error <= 1 % and largest <= 5 %, leaving one network out in turn. Then the same from 8 networks drawn at random, how
often the 95 % intervals hold, and how far estimates go wrong outside the range that they were calibrated on.
`--write-profile` writes the shipped profile again from the shipped file.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmarks.record import save
from workers.latency import profiles
from workers.latency.calibration import Calibration, fit_profile, rank_correlation, read_networks
from workers.latency.profiles import CLASSES, Estimate, Profile, save_profile

Networks = list[tuple[dict[str, float], float]]
Array = NDArray[np.float64]

SHIPPED = Path(profiles.__file__).with_name("profiles") / "raspberry-pi-5"
ABOUT = Calibration(
    title="Raspberry Pi 5, one Cortex-A76 core",
    origin="36 networks of NAS-Bench-201; latencies: HW-NAS-Bench-360, onnxruntime on one pinned core of a real "
    "Raspberry Pi 5; instructions: counted for this profile under QEMU's user-mode emulation of aarch64",
    counted_with=(("onnxruntime", "1.31.1"),),
)
# Instructions of networks unlike the calibrated ones: medians of five runs (VGG-16: one) under onnxruntime 1.32.0.
UNLIKE = {
    "CondenseNet-50": (5598020, 931465, 403438, 3947283, 2589956, 7017542, 1186352, 12855788),
    "CondenseNet-86": (10510652, 1700096, 703760, 8340858, 5259897, 16208012, 2521759, 24048098),
    "CondenseNet-122": (16087988, 2546992, 1009342, 13994677, 8569956, 28842191, 4269021, 36677473),
    "CondenseNet-182": (40825098, 5725269, 2070363, 48879471, 23376058, 127674846, 12373549, 91520943),
    "VGG-16, 224x224": (129990059, 7960331, 3173069, 787377167, 48933241, 3902587297, 43767282, 218971769),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=SHIPPED.with_suffix(".csv"))
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--write-profile", action="store_true")
    options = parser.parse_args()
    networks = read_networks(options.data, "pi5_ms")
    whole = fit_profile("raspberry-pi-5", networks, ABOUT)
    if options.write_profile:
        save_profile(whole, SHIPPED.with_suffix(".json"))
    rng = np.random.default_rng(0)
    result = {
        "networks": len(networks),
        "leave_one_out": leave_one_out(options.data, networks, whole),
        "coverage": coverage(networks),
    }
    pi4 = read_networks(options.data, "pi4_ms")
    for text, rows, like in (
        ("Raspberry Pi 5", networks, None),
        ("Raspberry Pi 4", pi4, None),
        ("Raspberry Pi 4, like raspberry-pi-5", pi4, whole),
    ):
        print(f"{text}: calibrated on 8 networks drawn at random, {options.draws} times")
        result[f"eight networks, {text}"] = eight(rows, options.draws, rng, like)
    result |= {"outside_the_range": outside(networks), "unlike_networks": unlike(whole)}
    save("estimate", result)


def leave_one_out(path: Path, networks: Networks, whole: Profile) -> dict[str, Any]:
    ours = {
        "eight classes": whole.classes.leave_one_out,
        "vfma + all": whole.two.leave_one_out,
        "estimate (their mean)": whole.estimate_leave_one_out,
    }
    table = {
        name: {"median": fit.median_error, "max": fit.max_error, "rank_correlation": fit.rank_correlation}
        for name, fit in ours.items()
    }
    measured = np.array([latency for _, latency in networks])
    for name, column in (("MACs + constant", "macs_million"), ("x86 wall time + constant", "x86_ms")):
        with path.open(newline="") as file:
            values = np.array([float(row[column]) for row in csv.DictReader(file)])
        estimated = peer(np.column_stack([values, np.ones(len(values))]), measured)
        error = np.abs(estimated / measured - 1)
        correlation = rank_correlation(estimated, measured)
        table[name] = {"median": np.median(error), "max": error.max(), "rank_correlation": correlation}
    print(f"Raspberry Pi 5, {len(networks)} networks, leaving one out (goals: median 1 %, max 5 %)")
    for name, row in table.items():
        correlation = row["rank_correlation"]
        print(f"  {name:25} median {row['median']:6.2%}  max {row['max']:6.2%}  Spearman {correlation:.4f}")
    return table


def peer(features: Array, measured: Array) -> Array:
    """Fit as the profiles are fitted, but to other features; return each network's left-out estimate."""
    kept = ~np.eye(len(measured), dtype=bool)
    return np.array(
        [
            row @ nnls(features[keep] / measured[keep, None], np.ones(keep.sum()))[0]
            for row, keep in zip(features, kept, strict=True)
        ]
    )


def coverage(networks: Networks) -> dict[str, Any]:
    """Leave each network out of the whole calibration, margins and choices included."""
    estimates = [
        fit_profile("left-out", networks[:i] + networks[i + 1 :]).estimate(counts)
        for i, (counts, _) in enumerate(networks)
    ]
    held = [holds(estimate, latency) for estimate, (_, latency) in zip(estimates, networks, strict=True)]
    width = float(np.median([half_width(estimate) for estimate in estimates]))
    marked = sum(estimate.extrapolates for estimate in estimates)
    print(
        f"95 % intervals, leaving one out: {sum(held)} of {len(held)} hold; median half width {width:.1%}; "
        f"{marked} marked as extrapolated"
    )
    return {"held": sum(held), "of": len(held), "median_half_width": width, "extrapolated": marked}


def eight(networks: Networks, draws: int, rng: np.random.Generator, like: Profile | None = None) -> dict[str, Any]:
    """Calibrate on 8 networks drawn at random, estimate the others; repeat."""
    figures: dict[str, list[float]] = {"median_error": [], "max_error": [], "max_error_not_marked": []}
    held, marked = [], []
    for _ in range(draws):
        order = rng.permutation(len(networks))
        profile = fit_profile("drawn", [networks[i] for i in order[:8]], like=like)
        others = [(profile.estimate(networks[i][0]), networks[i][1]) for i in order[8:]]
        error = np.array([abs(estimate.latency_ms / latency - 1) for estimate, latency in others])
        outside = np.array([estimate.extrapolates for estimate, _ in others])
        figures["median_error"].append(float(np.median(error)))
        figures["max_error"].append(float(error.max()))
        figures["max_error_not_marked"].append(float(error[~outside].max(initial=0.0)))
        held += [holds(*other) for other in others]
        marked += outside.tolist()
    result: dict[str, Any] = {"draws": draws}
    for name, values in figures.items():
        median, p95, worst = np.quantile(values, [0.5, 0.95, 1.0]).tolist()
        print(f"  {name:20} median {median:6.2%}  p95 {p95:6.2%}  worst {worst:6.2%}")
        result[name] = {"median": median, "p95": p95, "worst": worst}
    result |= {"coverage": float(np.mean(held)), "extrapolated": float(np.mean(marked))}
    print(f"  95 % intervals hold for {result['coverage']:.1%}; {result['extrapolated']:.1%} marked as extrapolated")
    return result


def outside(networks: Networks) -> dict[str, Any]:
    """Calibrate on the lower or upper half by size or by the share of a class, estimate the other half."""
    total = np.array([sum(counts.values()) for counts, _ in networks])
    keys = {"size": total} | {name: np.array([counts[name] for counts, _ in networks]) / total for name in CLASSES}
    marked, held, held_plain, errors = [], [], [], []
    for key in keys.values():
        order = np.argsort(key)
        for half in (order[: len(order) // 2], order[len(order) // 2 :]):
            profile = fit_profile("half", [networks[i] for i in half])
            for i in np.setdiff1d(order, half):
                counts, latency = networks[i]
                estimate = profile.estimate(counts)
                errors.append(abs(estimate.latency_ms / latency - 1))
                marked.append(estimate.extrapolates)
                held.append(holds(estimate, latency))
                held_plain.append(holds(unstretched(profile, estimate), latency))
    where = np.array(marked)
    result = {
        "estimates": len(where),
        "marked": int(where.sum()),
        "median_error_marked": float(np.median(np.array(errors)[where])),
        "max_error_marked": float(np.array(errors)[where].max()),
        "held_marked": float(np.array(held)[where].mean()),
        "held_marked_without_stretch": float(np.array(held_plain)[where].mean()),
        "held_not_marked": float(np.array(held)[~where].mean()),
    }
    print("Calibrated on one half by size or by the share of a class, estimating the other half")
    for name, value in result.items():
        print(f"  {name:28} {value:.3g}")
    return result


def unlike(profile: Profile) -> dict[str, Any]:
    result: dict[str, Any] = {}
    print("Networks unlike the calibrated ones, shipped profile")
    for name, counts in UNLIKE.items():
        estimate = profile.estimate(dict(zip(CLASSES, counts, strict=True)))
        fits = ", ".join(f"{fit} {latency:.4g}" for fit, latency in estimate.by_fit.items())
        interval = f"{estimate.interval_low_ms:.4g} to {estimate.interval_high_ms:.4g}"
        print(f"  {name:16} {estimate.latency_ms:.4g} ms ({interval}; {fits})")
        print(f"  {'':16} {estimate.reason or 'inside'}")
        result[name] = asdict(estimate)
    return result


def holds(estimate: Estimate, latency: float) -> bool:
    return estimate.interval_low_ms <= latency <= estimate.interval_high_ms


def unstretched(profile: Profile, estimate: Estimate) -> Estimate:
    """Return the estimate with the interval it would have inside the calibrated range."""
    margins = {"classes": profile.classes.leave_one_out.margin, "two": profile.two.leave_one_out.margin}
    low = min(latency / (1 + margins[name]) for name, latency in estimate.by_fit.items())
    high = max(latency * (1 + margins[name]) for name, latency in estimate.by_fit.items())
    return replace(estimate, interval_low_ms=low, interval_high_ms=high)


def half_width(estimate: Estimate) -> float:
    return (estimate.interval_high_ms - estimate.interval_low_ms) / 2 / estimate.latency_ms


if __name__ == "__main__":
    main()
