"""Instructions that a deployed CondenseNet takes on ARM, by runtime: the project's exports beside torch's.

    python -m benchmarks.arm_variants [--network NAME] [--runs N] [--rounds N]

Every variant starts from the same deployed network and is first checked to equal it to 1e-5 of its largest output:

    torch.onnx, onnxruntime    torch.onnx.export (dynamo=False) of the deployed module: the peer
    onnx, onnxruntime          the project's ONNX file
    ncnn                       the project's ncnn file; its gather runs in numpy
    litert                     the project's LiteRT file, under LiteRT with XNNPACK
    native                     the project's kernel (needs a C compiler for aarch64: apt install gcc-aarch64-linux-gnu)

Goal: the best needs at least 1.4 times fewer instructions than the peer, better 2 times. aarch64 instructions are
counted on the ARM device in software, milliseconds are estimated from them for a Raspberry Pi 5, and host times are
measured here in turn.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.record import in_turn, save
from space.deployed import DeployedCondenseNet, deploy
from space.network import CondenseNet
from space.presets import PUBLISHED
from workers.export.common import TOLERANCE, difference
from workers.export.litert import save_litert
from workers.export.native import save_native
from workers.export.ncnn import save_ncnn
from workers.export.onnx import exported_network, save_onnx
from workers.latency.agent.runtimes import LiteRt, Native, Ncnn
from workers.latency.emulated.virtual_arm import Counts, VirtualArm, build, default_folder
from workers.latency.measurement import FailedMeasurement
from workers.latency.profiles import load_profile

PEER = "torch.onnx, onnxruntime"
PROFILE = "raspberry-pi-5"
Run = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


@dataclass
class Variant:
    path: Path
    write: Callable[[Path], object]
    open: Callable[[Path], Run]
    count: Callable[[Path], Counts | FailedMeasurement]


def trained_like(name: str) -> DeployedCondenseNet:
    """Return a deployed network with uneven batch norms, as training leaves them."""
    torch.manual_seed(0)
    model = CondenseNet(PUBLISHED[name].config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.3)
            torch.nn.init.normal_(module.running_mean, std=0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    model.condense(1.0)
    return deploy(model)


def with_torch(network: DeployedCondenseNet, path: Path) -> None:
    image = torch.randn(1, *network.config.input_shape)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (image,), str(path), dynamo=False, input_names=["images"], output_names=["logits"])


def in_onnxruntime(path: Path) -> Run:
    run = exported_network(path)
    return lambda image: run(image[None])[0]


def variants(network: DeployedCondenseNet, folder: Path, arm: VirtualArm, runs: int) -> dict[str, Variant]:
    def counted(runtime: str) -> Callable[[Path], Counts | FailedMeasurement]:
        return lambda path: arm.count([path], runs, runtime)[0]

    return {
        PEER: Variant(
            folder / "torch.onnx", lambda path: with_torch(network, path), in_onnxruntime, counted("onnxruntime")
        ),
        "onnx, onnxruntime": Variant(
            folder / "ours.onnx", lambda path: save_onnx(network, path), in_onnxruntime, counted("onnxruntime")
        ),
        "ncnn": Variant(
            folder / "model.ncnn.zip",
            lambda path: save_ncnn(network, path),
            lambda path: Ncnn().open(path.read_bytes(), threads=1),
            counted("ncnn"),
        ),
        "litert": Variant(
            folder / "model.tflite",
            lambda path: save_litert(network, path),
            lambda path: LiteRt().open(path.read_bytes(), threads=1),
            counted("litert"),
        ),
        "native": Variant(
            folder / "model.native.zip",
            lambda path: save_native(network, path),
            lambda path: Native().open(path.read_bytes(), threads=1),
            counted("native"),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="condensenet-86", choices=[n for n in PUBLISHED if "imagenet" not in n])
    parser.add_argument("--runs", type=int, default=5, help="counted runs of each variant")
    parser.add_argument("--rounds", type=int, default=50, help="timed runs on this machine; 0 = none, it is busy")
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = trained_like(options.network)
    arm = build(default_folder(), progress=lambda text: print(f"  {text}", file=sys.stderr))
    profile, rows = load_profile(PROFILE), {}
    with tempfile.TemporaryDirectory() as folder:
        built = variants(network, Path(folder), arm, options.runs)
        image = torch.randn(network.config.input_shape).numpy()
        runs = {}
        for name, variant in built.items():
            variant.write(variant.path)
            runs[name] = variant.open(variant.path)
            off = difference(network, runs[name])
            if not off <= TOLERANCE:
                raise SystemExit(f"{name} is off by {off:.1e}")
            counts = variant.count(variant.path)
            if isinstance(counts, FailedMeasurement):
                raise SystemExit(f"{name}: {counts.reason}")
            estimate = profile.estimate(counts.median)
            rows[name] = {
                "difference": off,
                "bytes": variant.path.stat().st_size,
                "runtime_version": counts.runtime_version,
                "millions": {key: value / 1e6 for key, value in counts.median.items()},
                "estimated_ms": estimate.latency_ms,
                "interval_ms": [estimate.interval_low_ms, estimate.interval_high_ms],
                "extrapolates": estimate.reason,
            }
        timed = {name: lambda run=run: run(image) for name, run in runs.items()}
        host = in_turn(timed, options.rounds) if options.rounds else {}
    for name, seconds in host.items():
        rows[name]["host_ms"] = {"median": statistics.median(seconds) * 1e3, "min": min(seconds) * 1e3}
    report(options.network, rows)
    document = {"network": options.network, "peer": PEER, "profile": PROFILE, "device": arm.facts, "variants": rows}
    save("arm_variants", document)


def report(network: str, rows: dict[str, dict[str, Any]]) -> None:
    print(f"{network}: millions of aarch64 instructions; ms estimated for {PROFILE}; median ms on this machine")
    print(f"  {'':25}{'all':>7}{'vfma':>7}{'int':>7}{'branch':>7}{'fewer':>8}{'est. ms':>9}{'interval':>14}{'host':>7}")
    for name, row in rows.items():
        counts, (low, high) = row["millions"], row["interval_ms"]
        fewer = rows[PEER]["millions"]["all"] / counts["all"]
        columns = "".join(f"{counts[key]:7.2f}" for key in ("all", "vfma", "int", "branch"))
        estimate = f"{row['estimated_ms']:9.2f}{f'{low:.2f}-{high:.2f}':>14}"
        host = f"{row['host_ms']['median']:7.2f}" if "host_ms" in row else f"{'-':>7}"
        print(f"  {name:25}{columns}{fewer:7.2f}x{estimate}{host}")
    best = min(rows, key=lambda name: rows[name]["millions"]["all"])
    fewer = rows[PEER]["millions"]["all"] / rows[best]["millions"]["all"]
    print(f"  best: {best}, {fewer:.2f} times fewer than {PEER} (goal 1.4, better 2)")


if __name__ == "__main__":
    main()
