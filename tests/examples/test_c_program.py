"""The C program of docs/deploying-in-c.md says of images what infer.py says, those that it must resize included."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from search.results.bundle.export import export_trial, pixel_input
from search.store import reader
from tests.search.tiny_studies import CountingProbe, tiny_settings
from tests.search.trained_study import trained_study
from workers.bundled.infer import open_model, read_pixels
from workers.images.cache import prepare

PROGRAM = Path(__file__).parents[2] / "examples" / "c" / "classify.c"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs a C compiler")
def test_the_c_program_prints_the_logits_that_infer_gives(tmp_path: Path) -> None:
    store = trained_study(tmp_path, CountingProbe())
    store.set_data_info(prepare(tiny_settings().data, tmp_path / "images").to_dict())
    study = reader.find_study(store.engine, "tiny")
    pixels = pixel_input(study, store.trial(0))
    model = export_trial(store, store.trial(0), tmp_path / "model.native.zip", "native", pixels)
    with zipfile.ZipFile(model) as archive:
        archive.extractall(tmp_path)
    sources = [PROGRAM, tmp_path / "condensenet.c", tmp_path / "condensenet_pixels.c"]
    compiled = tmp_path / "classify"
    subprocess.run(["gcc", "-O1", "-Wall", "-Werror", *sources, "-lm", "-o", compiled], check=True)

    rng, files = np.random.default_rng(0), []
    for number, (height, width) in enumerate(((8, 8), (41, 30), (30, 57), (5, 6))):
        files.append(tmp_path / f"{number}.pgm")
        Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)).save(files[-1])
    command = [compiled, tmp_path / "weights.bin", tmp_path / "scaling.bin", *files, PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, f"{PROGRAM}: not a binary PGM of 8 bits\n")
    run = open_model(model)
    for file, line in zip(files, done.stdout.splitlines(), strict=True):
        logits = np.array(line.partition("logits ")[2].split(), float)
        expected = run(read_pixels(file, pixels.rules))
        # A pixel may be one level off, see docs/deploying.md.
        assert np.abs(logits - expected).max() < 0.02 * np.abs(expected).max()
    store.engine.dispose()
