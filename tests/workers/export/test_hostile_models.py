"""Models made to hurt, through the project's kernel built with checks of every address: each is refused or runs."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.workers.export.quantizing import quantized
from tests.workers.export.test_export import BASE, trained_like, varied
from workers.export import native, native_int8
from workers.latency.agent import runtimes
from workers.latency.agent.runtimes.kernels import compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs a C compiler")

Words = npt.NDArray[np.int32]
HEADER = 46  # words
SOURCES = {"fp32": native.KERNEL_FILE, "int8": native_int8.KERNEL_FILE}
PARTS = Path(runtimes.__file__).with_name("condensenet_parts.c")
WRITERS = {"fp32": native.to_native, "int8": lambda network: native_int8.to_native_int8(quantized(network))}
CHECKS = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize=alignment", "-static-libasan"]
# Reads models, each behind its number of words, until the end; prints how many were refused and how many ran.
MAIN = """
#include KERNEL
#include <stdio.h>
#include <stdlib.h>
static void go_on(void *place) { (void)place; }
int main(void) {
  int32_t words; long refused = 0, ran = 0;
  while (fread(&words, 4, 1, stdin) == 1) {
    int32_t *model = malloc(words * 4 + 1);  // exactly as many bytes: a read behind them is found
    model = realloc(model, words ? words * 4 : 1);
    if (fread(model, 4, words, stdin) != (size_t)words) return 2;
    int parts = words % 4;  // 0: as one thread runs it, else part by part
    size_t floats = parts ? condensenet_parts_workspace(model, words, parts) : condensenet_workspace(model, words);
    if (!floats || floats > 50000000) { refused++; free(model); continue; }
    size_t pixels = (size_t)model[2] * model[3] * model[4];
    float *image = calloc(pixels, 4), *logits = malloc(4 * (size_t)model[11]), *space = malloc(4 * floats);
    if (image && logits && space) {
      if (!parts) condensenet_run(model, image, logits, space);
      for (int p = 0; p < parts; p++) condensenet_part(model, image, logits, space, p, parts, go_on, NULL);
      ran++;
    }
    free(model); free(image); free(logits); free(space);
  }
  printf("%ld %ld\\n", refused, ran);
  return 0;
}
"""


@pytest.fixture(scope="module", params=["fp32", "int8"])
def precision(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, precision: str) -> Path:
    folder, source = tmp_path_factory.mktemp("checked"), SOURCES[precision]
    included = PARTS.name if precision == "fp32" else source.name
    (folder / "main.c").write_text(MAIN.replace("KERNEL", f'"{included}"'))
    for file in (source, PARTS):
        shutil.copy(file, folder)
    command = [compiler() or "cc", *CHECKS, "-o", "main", "main.c"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        pytest.skip(f"no sanitizers here: {built.stderr[-200:]}")
    return folder / "main"


def words_of(model: bytes) -> Words:
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        return np.frombuffer(archive.read("weights.bin"), "<i4").copy()


def hostile(good: Words, rng: np.random.Generator) -> Words:
    """A model changed in up to three ways: numbers of the header, words anywhere, its length."""
    words = good.copy()
    for _ in range(int(rng.integers(1, 4))):
        way = rng.integers(5)
        if way == 0:
            words[rng.integers(min(HEADER, len(words)))] = rng.choice([0, 1, -1, 2**31 - 1, -(2**31), 4096, 65536])
        elif way == 1:
            words[rng.integers(min(HEADER, len(words)))] = rng.integers(0, 40)
        elif way == 2:  # an index, or a weight
            words[rng.integers(len(words))] = rng.integers(-(2**31), 2**31)
        elif way == 3:
            words = words[: rng.integers(1, len(words) + 1)]
        else:
            words = np.append(words, rng.integers(-100, 100, int(rng.integers(1, 50)))).astype(np.int32)
    return words


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, pytest.param(75, marks=pytest.mark.soak)])
def test_every_hostile_model_is_refused_or_runs_within_its_memory(program: Path, precision: str, batches: int):
    """A thousand models a batch."""
    small = varied(stages=(1, 1), growth=(8, 8), input_shape=(1, 6, 7))
    good = [words_of(WRITERS[precision](trained_like(config))) for config in (BASE, small)]
    for batch in range(batches):
        rng = np.random.default_rng(batch)
        models = [*good, *(hostile(good[int(rng.integers(2))], rng) for _ in range(1000))]
        content = b"".join(len(words).to_bytes(4, "little") + words.astype("<i4").tobytes() for words in models)
        done = subprocess.run([program], input=content, capture_output=True, check=False)
        assert (done.returncode, done.stderr[-3000:]) == (0, b""), batch
        refused, ran = map(int, done.stdout.split())
        assert refused + ran == len(models)
        assert refused > 500
        assert ran > 50  # most of the weights may be anything
