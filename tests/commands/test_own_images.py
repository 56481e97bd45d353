"""A folder of one's own, from `check` to the bundle: what is said of it, and which image was in which split."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from space import errors
from tests.command_line import run_command

CHANGES = (
    "data.dataset=imagefolder:photos",
    "data.image_size=8",
    "data.channels=1",
    "study.trainings=1",
    "training.epochs=1",
    "space.num_stages=1",
    "space.layers=1",
    "engine.workers=1",
)
SET = [word for change in CHANGES for word in ("--set", change)]


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run_command(*words, cwd=cwd, timeout_s=600.0, environment={"COLUMNS": "200", "NO_COLOR": "1"})


def save_photos(folder: Path) -> None:
    digits = load_digits()
    for number in range(200):
        file = folder / f"digit {digits.target[number] % 2}" / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[number] * 15).astype(np.uint8)).save(file)


def test_a_folder_with_a_bad_file_is_checked_launched_and_picked(tmp_path: Path) -> None:
    save_photos(tmp_path / "photos")
    (tmp_path / "photos" / "digit 0" / "cut off.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "photos" / "Thumbs.db").write_bytes(b"")
    assert run("init", "study.toml", cwd=tmp_path).returncode == 0

    checked = run("check", "study.toml", "--no-timing", "--images", *SET, cwd=tmp_path)
    assert checked.returncode == errors.UnreadableImage.exit_code
    assert "left out: 1 file that is no image by its suffix (Thumbs.db)" in checked.stdout
    assert "can't be read: digit 0/cut off.png" in checked.stdout
    assert "read: 200 of 201 images; the images are 8x8 pixels in their files" in checked.stdout
    answer = run("check", "study.toml", "--no-timing", "--images", "--json", *SET, cwd=tmp_path).stdout
    assert [bad["name"] for bad in json.loads(answer)["unreadable"]] == ["digit 0/cut off.png"]

    refused = run("launch", "study.toml", *SET, cwd=tmp_path)
    assert refused.returncode == errors.UnreadableImage.exit_code
    assert not (tmp_path / "condensery.db").exists()

    launched = run("launch", "study.toml", *SET, "--set", 'data.unreadable="skip"', cwd=tmp_path)
    assert launched.returncode == 0, launched.stderr
    assert "left out: 1 file that can't be read (digit 0/cut off.png)" in launched.stderr
    unfolded = run("crossvalidate", "0", cwd=tmp_path)
    assert unfolded.returncode == errors.InvalidSettings.exit_code
    assert "study 'digits' has no folds; launch one with data.folds = 5" in unfolded.stderr
    assert run("pick", "--out", "bundle", cwd=tmp_path).returncode == 0
    written = tmp_path / "condensery-files" / "digits" / "splits.csv"
    assert (tmp_path / "bundle" / "splits.csv").read_bytes() == written.read_bytes()
    rows = list(csv.DictReader(written.read_text().splitlines()))
    assert len({row["file"] for row in rows}) == len(rows) == 200
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    samples = sorted((tmp_path / "bundle" / "samples").glob("*.png"))
    originals = {file.read_bytes() for file in (tmp_path / "photos").rglob("*.png")}
    assert [file.read_bytes() in originals for file in samples] == [True] * 6
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "Left out: 1 file that can't be read (digit 0/cut off.png)." in card
    assert "`splits.csv` says which image was in which split." in card

    shutil.rmtree(tmp_path / "photos")  # the second bundle replaces the first, and is as whole
    assert run("pick", "--out", "bundle", "--force", cwd=tmp_path).returncode == 0
    assert (tmp_path / "bundle" / "splits.csv").is_file()
    assert len(list((tmp_path / "bundle" / "samples").glob("*.png"))) == 6


def test_a_network_is_trained_on_the_folds_that_it_was_not_chosen_on(tmp_path: Path) -> None:
    save_photos(tmp_path / "photos")
    assert run("init", "study.toml", cwd=tmp_path).returncode == 0
    launched = run("launch", "study.toml", *SET, "--set", "data.folds=3", "--set", "data.fold=1", cwd=tmp_path)
    assert launched.returncode == 0, launched.stderr
    done = run("crossvalidate", "0", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("training trial 0's network with fold") == 2
    answer = json.loads(done.stdout)
    own = json.loads(run("show", "0", "--json", cwd=tmp_path).stdout)
    assert [(fold["fold"], fold["chosen_on"]) for fold in answer["folds"]] == [(0, False), (1, True), (2, False)]
    assert answer["folds"][1]["top1"] == own["top1"]
    assert sum(fold["images"] for fold in answer["folds"]) == 160
    scores = [answer["folds"][0]["top1"], answer["folds"][2]["top1"]]
    assert abs(answer["top1_mean"] - np.mean(scores)) < 1e-9
    assert abs(answer["top1_deviation"] - np.std(scores, ddof=1)) < 1e-9

    again = run("crossvalidate", "0", cwd=tmp_path)
    assert "training" not in again.stderr
    assert "over the 2 folds that it wasn't chosen on" in again.stdout
