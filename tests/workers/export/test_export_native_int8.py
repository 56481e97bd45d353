"""The int8 kernel computes the quantized network, with the same bits on every processor and with any threads."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from space.deployed import DeployedCondenseNet
from space.errors import ExportMismatch
from tests.workers.export.quantizing import quantized, random_images
from tests.workers.export.test_export import BASE, trained_like, varied
from tests.workers.export.test_export_native import changed, files_of, words_changed
from tests.workers.export.test_pixel_input import EIGHT_BITS
from workers.bundled.infer import open_model, scaled
from workers.export.native import to_native
from workers.export.native_int8 import KERNEL_FILE, SCHEME, save_native_int8, to_native_int8
from workers.export.pixels import PixelInput
from workers.latency.agent import runtimes
from workers.latency.agent.runtimes import Native, kernels
from workers.latency.agent.runtimes.kernels import FLAGS, THREADS, compiler
from workers.latency.agent.runtimes.native import FP32, INT8
from workers.latency.agent.timing import measure_models
from workers.quantization.network import QuantizedNetwork
from workers.quantization.rounded import RoundedForm

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")

ODD = varied(input_shape=(1, 7, 13), growth=(12, 8), groups=2, groups_3x3=4, bottleneck=1)
WIDE = varied(input_shape=(3, 97, 101), growth=(4, 4), num_classes=12)
CROSS = shutil.which("aarch64-linux-gnu-gcc")
QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")


@pytest.fixture(scope="module")
def base() -> QuantizedNetwork:
    return quantized(trained_like(BASE))


@pytest.fixture(scope="module")
def model(base: QuantizedNetwork) -> bytes:
    return to_native_int8(base)


@torch.no_grad()
def assert_as_rounded(network: QuantizedNetwork) -> None:
    """Compare the kernel with the same network rounded by torch: levels may differ by one where both round a half."""
    images = random_images(network.network, 12)
    run = Native().open(to_native_int8(network), threads=1)
    logits = np.stack([run(image.numpy()) for image in images])
    expected = RoundedForm(network)(images).numpy()
    size = np.std(expected - expected.mean(axis=0))  # of what differs from image to image
    assert np.std(logits - expected) < 0.03 * size
    assert np.std(network.network(images).numpy() - expected) < 0.2 * size


@torch.no_grad()
@pytest.mark.parametrize(
    "config",
    [
        BASE,
        ODD,
        WIDE,
        varied(groups=2, condense_factor=8),
        varied(input_shape=(1, 5, 700), growth=(4, 8)),  # a row is longer than what is done at a time
        varied(groups_3x3=1),
        varied(input_shape=(1, 4, 4), growth=(4, 4), bottleneck=1),
        varied(classifier_keep=0.29, growth=(16, 32)),
    ],
    ids=str,
)
def test_the_kernel_gives_what_the_rounded_network_does(config):
    network = quantized(trained_like(config), images=32)
    assert_as_rounded(network)


@torch.no_grad()
@pytest.mark.parametrize("scale", [0.0, 1e-30, -1e-9, -1.0, 30.0])
def test_norms_of_every_scale_are_read(scale: float):
    network = trained_like(BASE)
    for layer in network.layers:
        layer.conv_1x1.norm.weight[::3] = scale
    assert_as_rounded(quantized(network))


def test_the_file_says_that_it_is_int8_and_brings_its_kernel(model: bytes):
    files = files_of(model)
    assert list(files) == ["model.json", "weights.bin", "condensenet_int8.c"]
    assert json.loads(files["model.json"])["precision"] == "int8"
    assert files["condensenet_int8.c"] == KERNEL_FILE.read_bytes()
    assert hashlib.sha256(KERNEL_FILE.read_bytes()).hexdigest() == INT8.sha256
    assert "precision" not in json.loads(files_of(to_native(trained_like(BASE)))["model.json"])


def test_weights_take_a_quarter_of_the_floats(base: QuantizedNetwork):
    network = DeployedCondenseNet.random(varied(stages=(6, 6), growth=(16, 32)))
    of_int8, of_fp32 = (
        len(files_of(file)["weights.bin"]) for file in (to_native_int8(quantized(network)), to_native(network))
    )
    assert of_int8 < 0.35 * of_fp32


def test_a_network_calibrated_for_another_scheme_is_refused(base: QuantizedNetwork):
    other = QuantizedNetwork(base.network, base.ranges, type(SCHEME)(features=False))
    with pytest.raises(ExportMismatch, match=r"signed 8 bits; calibrate with native_int8\.SCHEME"):
        to_native_int8(other)


def test_a_file_that_takes_pixels_scales_them_as_outside(base: QuantizedNetwork, model: bytes, tmp_path: Path):
    pixels, path = PixelInput.of(EIGHT_BITS), tmp_path / "model.native.zip"
    save_native_int8(base, path, pixels)
    images = pixels.random(2)
    run, plain = open_model(path), Native().open(model, threads=1)
    for image, scaled_image in zip(images, scaled(images, pixels.rules), strict=True):
        np.testing.assert_array_equal(run(image), plain(scaled_image))


@pytest.mark.parametrize(
    ("machine", "features", "flags", "name"),
    [
        ("aarch64", "Features: fp asimd asimddp", ["-march=armv8.2-a+dotprod"], "aarch64-dotprod.so"),
        ("aarch64", "Features: fp asimd", [], "aarch64.so"),
        ("x86_64", "flags: sse2 avx2 fma", ["-mavx2", "-mfma"], "x86_64-mavx2-mfma.so"),
        ("riscv64", "isa: rv64imafdc", [], "riscv64.so"),
    ],
)
def test_a_kernel_is_compiled_for_what_the_processor_has_and_its_name_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, features: str, flags: list[str], name: str
):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor: 0\n{features}\n")
    monkeypatch.setattr(kernels, "ROOT", tmp_path)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert INT8.flags == [*FLAGS, *flags]
    assert INT8.file_name() == f"{INT8.sha256[:12]}-{name}"
    assert INT8.with_threads().file_name() != INT8.file_name()
    if machine == "aarch64":
        assert FP32.flags == list(FLAGS)


# ---- the same bits everywhere ------------------------------------------------------------------------------

# Prints the logits' bits of one model and one image, in so many threads.
MAIN = """
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
size_t condensenet_parts_workspace(const int32_t *, size_t, int);
void *condensenet_team(int);
void condensenet_team_run(void *, const int32_t *, const float *, float *, float *);
void condensenet_team_end(void *);
int main(int n, char **arguments) {
  FILE *file = fopen(arguments[1], "rb"); fseek(file, 0, SEEK_END);
  size_t words = ftell(file) / 4; rewind(file);
  int32_t *model = malloc(words * 4); if (fread(model, 4, words, file) != words) return 2;
  size_t pixels = (size_t)model[2] * model[3] * model[4];
  float *image = malloc(4 * pixels), *logits = malloc(4 * model[11]);
  if (fread(image, 4, pixels, fopen(arguments[2], "rb")) != pixels) return 3;
  for (int threads = 1; threads <= 3; threads++) {
    size_t floats = condensenet_parts_workspace(model, words, threads); if (!floats) return 4;
    float *space = malloc(4 * floats);
    void *team = condensenet_team(threads);
    for (int run = 0; run < 2; run++) condensenet_team_run(team, model, image, logits, space);
    condensenet_team_end(team);
    for (int i = 0; i < model[11]; i++) printf("%08x ", ((uint32_t *)logits)[i]);
    printf("\\n"); free(space);
  }
  return n != 3; }
"""
BUILDS = {
    "plain C": (compiler(), ["-DCONDENSENET_PLAIN"], []),
    "SSE2": (compiler(), [], []),
    "NEON": (CROSS, ["-static"], [QEMU]),
    "dot products": (CROSS, ["-static", "-march=armv8.2-a+dotprod"], [QEMU, "-cpu", "cortex-a76"]),
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The kernel compiled for other processors than this machine's, as commands that take a model and an image."""
    if CROSS is None or QEMU is None or platform.machine() != "x86_64":
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64")
    folder = tmp_path_factory.mktemp("programs")
    (folder / "main.c").write_text(MAIN)
    sources = [folder / "main.c", KERNEL_FILE, Path(runtimes.__file__).with_name(THREADS)]
    commands = []
    for number, (command, flags, emulator) in enumerate(BUILDS.values()):
        subprocess.run([command, "-O1", "-pthread", *flags, "-o", folder / f"{number}", *sources], check=True)
        commands.append([*emulator, str(folder / f"{number}")])
    return commands


@pytest.mark.slow
@pytest.mark.parametrize("config", [BASE, ODD], ids=["base", "odd"])
def test_every_processor_and_every_number_of_threads_gives_the_same_bits(programs, tmp_path: Path, config):
    network = quantized(trained_like(config))
    image = random_images(network.network, 1)[0].numpy()
    (tmp_path / "image").write_bytes(image.tobytes())
    file = to_native_int8(network)
    (tmp_path / "weights.bin").write_bytes(files_of(file)["weights.bin"])
    printed = set()
    for command in programs:
        given = [*command, tmp_path / "weights.bin", tmp_path / "image"]
        printed |= set(subprocess.run(given, capture_output=True, text=True, check=True).stdout.splitlines())
    assert len(printed) == 1
    bits = Native().open(file, threads=1)(image).view(np.uint32)
    assert printed.pop().split() == [f"{value:08x}" for value in bits]


def threads_here() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("config", [BASE, ODD, WIDE], ids=["base", "odd", "wide"])
def test_threads_change_no_bit_and_end_with_the_model(config, precision: str):
    network = trained_like(config)
    file = to_native(network) if precision == "fp32" else to_native_int8(quantized(network))
    image = random_images(network, 1)[0].numpy()
    expected = Native().open(file, threads=1)(image)
    before = threads_here()
    for threads in (2, 3, 4):
        run = Native().open(file, threads)
        for _ in range(5):
            np.testing.assert_array_equal(run(image), expected)
        assert threads_here() == before + threads - 1
        del run
        assert threads_here() == before


# ---- what is no valid model --------------------------------------------------------------------------------

INPUT = 46  # words of the header
STEM_BIAS = INPUT + 6
STEM_WEIGHT = STEM_BIAS + 16  # eight biases, eight fractions
FIRST_LAYER = STEM_BIAS + 2 * (16 + 72)
DAMAGES = {
    "another magic": words_changed(0, 7),
    "the fp32 kernel's magic": words_changed(0, 0x4E444E43),
    "cut short": lambda content: content[:-4],
    "too long": lambda content: content + bytes(4),
    "a zero of the input beyond 8 bits": words_changed(INPUT + 1, 128),
    "a bias that overflows": words_changed(STEM_BIAS, (1 << 30) + 1),
    "a negative fraction": words_changed(STEM_BIAS + 8, -1),
    "a weight of -128": words_changed(STEM_WEIGHT, 0x00800000),
    "more quads with one limit than there are": words_changed(FIRST_LAYER, 2),
    "index out of range": words_changed(FIRST_LAYER + 1, 16),
    "negative index": words_changed(FIRST_LAYER + 1, -1),
    "weights of the classifier that overflow": lambda content: content[:-4] + b"\xff\x7f\xff\x7f",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_int8_weights_that_are_not_one_whole_network_are_refused(model: bytes, damage: str):
    if damage == "weights of the classifier that overflow":
        wide = quantized(DeployedCondenseNet.random(varied(num_classes=8)))
        model = changed(
            to_native_int8(wide), "weights.bin", lambda content: content[: -8 * 2 * 40] + b"\xff\x7f" * (8 * 40)
        )
    else:
        model = changed(model, "weights.bin", DAMAGES[damage])
    with pytest.raises(ValueError, match=r"weights\.bin must be"):
        Native().open(model, threads=1)
    with pytest.raises(ValueError, match=r"weights\.bin must be"):
        Native().open(model, threads=2)


def test_a_precision_that_the_agent_does_not_know_is_refused(model: bytes):
    other = changed(model, "model.json", lambda content: content.replace(b'"int8"', b'"int4"'))
    with pytest.raises(ValueError, match=r"computes in \['fp32', 'int8'\], not 'int4'; update the agent"):
        Native().open(other, threads=1)


def test_the_agent_times_an_int8_model_in_two_threads(base: QuantizedNetwork, tmp_path: Path):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    save_native_int8(base, tmp_path / "model.zip")
    policy = {"warmup_runs": 1, "warmup_s": 0.0, "runs": 3, "run_s": 0.0, "threads": 2, "samples_kept": 10}
    report = measure_models([tmp_path / "model.zip"], {**policy, "runtime": "native"})
    assert len(report["models"][0]["samples_ms"]) == 3
