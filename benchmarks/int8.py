"""A CondenseNet in int8: instructions on ARM by runtime, accuracy lost on real data, and what threads bring.

    python -m benchmarks.int8 [--network NAME] [--runs N] [--epochs N] [--rounds N]

Three parts, in one run:

    counted    one image of CondenseNet-86 on the ARM device in software, in fp32 and int8, by each runtime that has
               int8; the project's kernel also as compiled for processors without dot products
    accuracy   a network trained here on Fashion-MNIST at 14x14; the files of both precisions give the classes of the
               same 4,000 validation images
    threads    the project's kernel in 1, 2 and 4 threads: the most instructions that one of them has, counted, and
               milliseconds on this machine, in turn

Goal: the project's kernel in int8 needs at least 1.8 times fewer instructions than in fp32, better 3 times, and loses
at most 0.5 points. The counted network is calibrated on random images: counts don't depend on them. In onnxruntime's
int8 file only weights are in 8 bits.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.arguments import at_least_one
from benchmarks.arm_variants import trained_like
from benchmarks.long_work import CurveKeeper, ends_clearly
from benchmarks.record import in_turn, save
from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet
from space.presets import PUBLISHED
from workers.export.int8_files import save_int8_for, scheme_for
from workers.export.model_files import open_file, save_for
from workers.export.native import KERNEL_FILE
from workers.export.native_int8 import KERNEL_FILE as INT8_KERNEL_FILE
from workers.file_names import file_for
from workers.images.batches import ImageData, Normaliser, load
from workers.images.cache import prepare
from workers.latency.agent import runtimes
from workers.latency.agent.runtimes import Native
from workers.latency.agent.runtimes.model_zip import unzip_model
from workers.latency.emulated.arm_root import COUNTER, CPU, CROSS_COMPILER
from workers.latency.emulated.arm_tools import qemu_command
from workers.latency.emulated.virtual_arm import VirtualArm, build, default_folder
from workers.latency.measurement import FailedMeasurement
from workers.quantization.calibration import calibrate
from workers.quantization.calibration_images import calibration_images
from workers.settings import DataSettings, TrainingSettings
from workers.training.loop import TrainingRun, train

RUNTIMES = ("native", "litert", "ncnn", "onnxruntime")  # those that the project writes int8 files for
DATA = DataSettings(dataset="fashion-mnist", folder="/usr/share/datasets", image_size=14, images=20_000)
TRAINED = CondenseNetConfig(stages=(6, 6, 6), growth=(8, 16, 32), num_classes=10, input_shape=(1, 14, 14))
THREADS = (1, 2, 4)
# Runs every part of a run alone, between the two calls that the emulator's counter looks for.
PART_BY_PART = """
#include SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
size_t condensenet_parts_workspace(const int32_t *, size_t, int);
static void go_on(void *place) { (void)place; }
int main(int n, char **arguments) {
  FILE *file = fopen(arguments[1], "rb"); fseek(file, 0, SEEK_END);
  size_t words = ftell(file) / 4; rewind(file);
  int32_t *model = malloc(4 * words); if (fread(model, 4, words, file) != words) return 2;
  float *image = calloc((size_t)model[2] * model[3] * model[4], 4), *logits = malloc(4 * model[11]);
  int parts = atoi(arguments[2]);
  float *space = calloc(condensenet_parts_workspace(model, words, parts), 4);
  for (int part = 0; part < parts; part++) {
    getsid(0x5EED01); condensenet_part(model, image, logits, space, part, parts, go_on, 0); getsid(0x5EED02);
  }
  return n != 3;
}
"""


# ---- counted ---------------------------------------------------------------------------------------------


def write_both(
    network: DeployedCondenseNet, images: torch.Tensor, labels: torch.Tensor, folder: Path
) -> dict[str, Path]:
    """Write a network in fp32 and int8 for every runtime; return the files by "runtime precision"."""
    paths = {}
    for runtime in RUNTIMES:
        for precision in ("fp32", "int8"):
            path = paths[f"{runtime} {precision}"] = folder / file_for(runtime, precision)
            if precision == "fp32":
                save_for(runtime, network, path)
            else:
                quantized = calibrate(network, images, labels, scheme_for(runtime, network.config))
                save_int8_for(runtime, quantized, path)
    return paths


def count(arm: VirtualArm, path: Path, runtime: str, runs: int) -> dict[str, Any]:
    """Return the millions of instructions of one image, by class, and the size of the file."""
    counts = arm.count([path], runs, runtime)[0]
    if isinstance(counts, FailedMeasurement):
        return {"failed": counts.reason}
    millions = {name: value / 1e6 for name, value in counts.median.items()}
    return {"runtime_version": counts.runtime_version, "bytes": path.stat().st_size, "millions": millions}


def without_dot_products(arm: VirtualArm, folder: Path) -> VirtualArm:
    """Return a copy of the device, without its bytes, whose processor says that it has no dot products."""
    shutil.copytree(arm.folder, folder, symlinks=True, copy_function=os.link)
    cpuinfo = folder / "root/proc/cpuinfo"
    text = cpuinfo.read_text(encoding="ascii")
    cpuinfo.unlink()  # the original is the same file
    cpuinfo.write_text(text.replace(" asimddp", ""), encoding="ascii")
    return VirtualArm(folder)


def count_all(name: str, runs: int, folder: Path) -> tuple[dict[str, Any], dict[str, Path], VirtualArm]:
    """Count one published network in each runtime and precision."""
    arm = build(default_folder(), progress=lambda text: print(f"  {text}", file=sys.stderr))
    network = trained_like(name)
    images = torch.randn(8, *network.config.input_shape, generator=torch.Generator().manual_seed(0))
    paths = write_both(network, images, torch.arange(8) % 2, folder)
    rows = {key: count(arm, path, key.split()[0], runs) for key, path in paths.items()}
    old = without_dot_products(arm, folder / "old")
    rows["native int8, no dot products"] = count(old, paths["native int8"], "native", runs)
    return rows, paths, arm


# ---- accuracy --------------------------------------------------------------------------------------------


def train_one(epochs: int, folder: Path) -> tuple[DeployedCondenseNet, ImageData]:
    """Train the network that accuracy is looked at with."""
    prepare(DATA, folder / "images")
    images = load(DATA, folder / "images")
    run = TrainingRun(TRAINED, TrainingSettings(epochs=epochs), DATA, 0, folder / "checkpoints", "", device="cpu")
    return train(run, images, CurveKeeper())[0], images


def accuracies(network: DeployedCondenseNet, images: ImageData, folder: Path) -> dict[str, dict[str, float]]:
    """Return the top-1 of each file on the validation images, and how many answers differ from fp32's."""
    split = images.validation
    everything = np.arange(len(split))
    pixels = Normaliser(images.info)(torch.from_numpy(split.pixels(everything))).numpy()
    rows, answers = {}, {}
    for name, path in write_both(network, *calibration_images(images, network.config), folder).items():
        run = open_file(name.split()[0], path)
        answers[name] = np.array([run(image).argmax() for image in pixels])
        changed = answers[name] != answers[f"{name.split()[0]} fp32"]
        rows[name] = {
            "top1": float((answers[name] == split.labels).mean()),
            "answers_changed": int(changed.sum()),
            "images": len(split),
        }
    for runtime in RUNTIMES:
        rows[f"{runtime} int8"]["points_lost"] = 100 * (
            rows[f"{runtime} fp32"]["top1"] - rows[f"{runtime} int8"]["top1"]
        )
    return rows


# ---- threads ---------------------------------------------------------------------------------------------


def parts_counted(arm: VirtualArm, file: Path, precision: str, folder: Path) -> dict[str, list[float]]:
    """Return the millions of instructions of each thread's part of a run, by the number of threads."""
    own = Path(runtimes.__file__).parent
    source = own / "condensenet_parts.c" if precision == "fp32" else INT8_KERNEL_FILE
    (folder / "parts.c").write_text(PART_BY_PART)
    _, files = unzip_model(file.read_bytes(), "native", ("weights.bin",))
    (folder / "weights.bin").write_bytes(files["weights.bin"])
    program, counts = folder / "parts", folder / "counts"
    flags = ["-march=armv8.2-a+dotprod"] if precision == "int8" else []
    include = [f"-I{KERNEL_FILE.parent}", f'-DSOURCE="{source}"']
    compile_it = [CROSS_COMPILER, "-O3", "-static", *flags, *include, "-o", str(program), str(folder / "parts.c")]
    subprocess.run(compile_it, check=True)
    found = {}
    for threads in THREADS:
        counts.unlink(missing_ok=True)
        emulator = [qemu_command() or "qemu-aarch64", "-cpu", CPU, "-plugin", f"{arm.folder / COUNTER},out={counts}"]
        subprocess.run([*emulator, str(program), str(folder / "weights.bin"), str(threads)], check=True)
        lines = counts.read_text(encoding="ascii").splitlines()
        found[str(threads)] = [json.loads(line)["all"] / 1e6 for line in lines]
    return found


def threads(arm: VirtualArm, paths: dict[str, Path], rounds: int, folder: Path) -> dict[str, Any]:
    """Return counts by part, and times on this machine, of the project's kernel in both precisions."""
    rows: dict[str, Any] = {"usable_cores": len(os.sched_getaffinity(0))}
    for precision in ("fp32", "int8"):
        file = paths[f"native {precision}"]
        rows[precision] = {"parts": parts_counted(arm, file, precision, folder)}
        actions: dict[str, Callable[[], object]] = {str(n): Native().load(file.read_bytes(), n) for n in THREADS}
        times = in_turn(actions, rounds) if rounds else {}
        rows[precision]["host_ms"] = {
            name: {"median": statistics.median(seconds) * 1e3, "min": min(seconds) * 1e3}
            for name, seconds in times.items()
        }
    return rows


# ---- the report ------------------------------------------------------------------------------------------


def report(result: dict[str, Any]) -> None:
    """Print what was found, and the goals."""
    counted = result["counted"]
    print(f"{result['network']}: millions of aarch64 instructions of one image")
    for name, row in counted.items():
        if "failed" in row:
            print(f"  {name:31} {row['failed']}")
            continue
        fp32 = counted[f"{name.split()[0]} fp32"]["millions"]["all"]
        print(
            f"  {name:31}{row['millions']['all']:8.2f}{fp32 / row['millions']['all']:7.2f}x{row['bytes'] / 1e6:8.2f} MB"
        )
    fewer = counted["native fp32"]["millions"]["all"] / counted["native int8"]["millions"]["all"]
    print(f"  the project's kernel in int8: {fewer:.2f} times fewer than in fp32 (goal 1.8, better 3)")
    print(f"{result['trained']['config']} on {result['trained']['data']}")
    for name, row in result["accuracy"].items():
        lost = f", {row['points_lost']:+.2f} points lost" if "points_lost" in row else ""
        print(f"  {name:20} top-1 {row['top1']:.4f}, {row['answers_changed']} of {row['images']} answers changed{lost}")
    print(f"threads: most instructions of one, and ms here ({result['threads']['usable_cores']} usable cores)")
    for precision in ("fp32", "int8"):
        row = result["threads"][precision]
        for number, parts in row["parts"].items():
            ms = row["host_ms"].get(number)
            times = f", median {ms['median']:.2f} ms, fastest {ms['min']:.2f} ms" if ms else ""
            share = sum(row["parts"]["1"]) / max(parts)
            print(f"  {precision}, {number} threads: {max(parts):6.2f} M, {share:.2f} times fewer than one{times}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, train, compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="condensenet-86", choices=[n for n in PUBLISHED if "imagenet" not in n])
    parser.add_argument("--runs", type=at_least_one, default=3, help="counted runs of each file")
    parser.add_argument("--epochs", type=at_least_one, default=8)
    parser.add_argument("--rounds", type=int, default=200, help="timed runs on this machine; 0 = none, it is busy")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with ends_clearly("the same command begins again"), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("counted", "trained"):
            (folder / part).mkdir()
        counted, paths, arm = count_all(options.network, options.runs, folder / "counted")
        network, images = train_one(options.epochs, folder)
        result = {
            "network": options.network,
            "device": arm.facts,
            "counted": counted,
            "trained": {"config": str(TRAINED), "data": images.info.dataset, "epochs": options.epochs},
            "accuracy": accuracies(network, images, folder / "trained"),
            "threads": threads(arm, paths, options.rounds, folder),
        }
    report(result)
    save("int8", result)


if __name__ == "__main__":
    main()
