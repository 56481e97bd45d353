"""The paper's accuracy: trained in pieces with the same bits as in one, from an archive or a folder, and bad input."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import paper_accuracy, record
from benchmarks.paper_accuracy import MORE_TO_DO, Options, find_images, name_of, run
from space.errors import DataNotFound, DiskFull, UnreadableImage
from space.presets import PUBLISHED, PublishedNetwork

ROOT = Path(__file__).parents[2]
CLASSES = ("cat", "dog")
STEPS_PER_EPOCH, EPOCHS = 2, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of noise as JPEG files, one brighter than the other."""
    root, generator = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for split, count in (("train", 66), ("test", 4)):
        for brightness, name in zip((0, 100), CLASSES, strict=True):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(brightness, brightness + 150, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number:03}.jpg", quality=75)
    return root


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The paper's network with one layer a stage: everything else is as it is."""
    whole = PUBLISHED["condensenet-50"]
    config = replace(whole.config, stages=(1, 1, 1))
    row = PublishedNetwork(whole.name, config, whole.flops, whole.params, whole.top1_error_pct)
    monkeypatch.setitem(PUBLISHED, "condensenet-50", row)


def options(images: Path, work: Path, **values) -> Options:
    return Options(images, "50", work, epochs=EPOCHS, image_size=8, device="cpu", **values)


def ticking() -> Callable[[], float]:
    """A clock on which each look at it takes a second."""
    return itertools.count().__next__


def without_times(result: dict) -> dict:
    timeless = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_s")} for row in result["curve"]]
    return result | {"curve": timeless, "seconds": None}


def test_in_pieces_it_ends_with_the_bits_of_one_run(folder, tmp_path, capsys):
    whole = run(options(folder, tmp_path / "whole"))
    assert whole is not None
    pieces, result = 0, None
    while result is None:
        result = run(options(folder, tmp_path / "pieces", minutes=0.2), clock=ticking())
        pieces += 1
    assert pieces > 2
    assert without_times(result) == without_times(whole)
    networks = [(tmp_path / name / "network.safetensors").read_bytes() for name in ("whole", "pieces")]
    assert networks[0] == networks[1]
    assert [row["epoch"] for row in result["curve"]] == [1, 2, 3]
    assert result["curve"][-1]["form"] == "deployed"
    assert "the same command goes on" in capsys.readouterr().out


def test_a_piece_without_time_does_one_step_all_the_same(folder, tmp_path):
    for _ in range(STEPS_PER_EPOCH * EPOCHS - 1):
        assert run(options(folder, tmp_path, minutes=1e-9)) is None
    assert run(options(folder, tmp_path, minutes=1e-9)) is not None


def test_a_checkpoint_goes_on_beside_the_same_images_elsewhere(folder, tmp_path):
    assert run(options(folder, tmp_path / "here", minutes=1e-9)) is None
    archive = archive_of(folder, tmp_path / "images.tar.gz", inside="cifar")
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "training").rename(tmp_path / "there" / "training")
    for _ in range(STEPS_PER_EPOCH * EPOCHS - 2):
        assert run(options(archive, tmp_path / "there", minutes=1e-9)) is None
    assert run(options(archive, tmp_path / "there", minutes=1e-9)) is not None


def forbid_training(monkeypatch) -> None:
    """Let whatever trains or meets the test images fail."""
    monkeypatch.setattr(paper_accuracy.loop, "evaluate", None)
    monkeypatch.setattr(paper_accuracy.loop, "train", None)


def test_the_test_images_are_met_once(folder, tmp_path, monkeypatch):
    result = run(options(folder, tmp_path))
    assert result is not None
    assert result["test_evaluations"] == 1
    forbid_training(monkeypatch)
    assert run(options(folder, tmp_path)) == result
    (next(tmp_path.glob("test-*.jsonl"))).unlink()  # as an earlier version left it: no journal
    assert run(options(folder, tmp_path)) == result


def test_a_test_error_is_kept_though_nothing_could_be_written_after_it(folder, tmp_path, monkeypatch):
    write = paper_accuracy.write_atomically

    def full(path: Path, content: bytes) -> str:
        if path.name.startswith("result-"):
            raise DiskFull("no space is left")
        return write(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(paper_accuracy, "write_atomically", full)
        with pytest.raises(DiskFull):
            run(options(folder, tmp_path))
    assert not list(tmp_path.glob("result-*"))
    forbid_training(monkeypatch)
    result = run(options(folder, tmp_path))
    assert result is not None
    assert result["test_images"] == 8
    assert [json.loads(path.read_text()) for path in tmp_path.glob("result-*.json")] == [result]


def test_a_test_that_was_cut_off_is_done_again_and_the_result_says_so(folder, tmp_path, monkeypatch, capsys):
    evaluate = paper_accuracy.loop.evaluate

    def killed(model, split, info, device, forward=None):
        if len(split) == 8:
            raise KeyboardInterrupt
        return evaluate(model, split, info, device, forward)

    with monkeypatch.context() as patched:
        patched.setattr(paper_accuracy.loop, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            run(options(folder, tmp_path))
    arguments = ["paper_accuracy", "--images", str(folder), "--network", "50", "--work", str(tmp_path)]
    arguments += ["--epochs", str(EPOCHS), "--image-size", "8", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", arguments)
    paper_accuracy.main()
    assert "the test images were met 2 times" in capsys.readouterr().out


def test_a_device_is_named_where_torch_knows_no_model_of_it():
    assert [name_of(torch.device(name)) for name in ("cpu", "mps")] == ["cpu", "mps"]


def test_of_how_many_images_an_error_is_stands_beside_it(folder, tmp_path, monkeypatch, capsys):
    arguments = ["paper_accuracy", "--images", str(folder), "--network", "50", "--work", str(tmp_path), "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--image-size", "8", "--device", "cpu"])
    paper_accuracy.main()
    printed = capsys.readouterr().out
    assert re.search(r"epoch 1: top-1 \d\.\d{4} on only 2 held-out images \(standard error \d+\.\d points\)", printed)
    assert "% of 8 images; the paper's 6.22 %" in printed


def test_the_result_has_the_papers_figure_beside_it_and_says_what_differs(folder, tmp_path):
    result = run(options(folder, tmp_path, train_images=130))
    assert result is not None
    assert (result["network"], result["paper_test_error_pct"]) == ("condensenet-50", 6.22)
    assert result["images"] == "CIFAR-10 (JPEG q75)"
    assert (result["train_images"], result["held_out_images"], result["test_images"]) == (128, 2, 8)
    assert 0 <= result["test_error_pct"] <= 100
    assert f"{EPOCHS} epochs instead of 300" in result["differs_from_the_paper"]
    assert "images of 8 pixels instead of 32" in result["differs_from_the_paper"]


def test_the_recipe_is_the_papers(tmp_path):
    paper = Options(tmp_path, "86", tmp_path)
    training, data = paper.training, paper.data(tmp_path)
    assert (training.epochs, training.batch_size, training.learning_rate) == (300, 64, 0.1)
    assert (training.momentum, training.weight_decay, training.group_lasso) == (0.9, 1e-4, 0.0)
    assert (data.crop_padding, data.flip, data.image_size, data.images) == (4, True, 32, None)
    assert paper.config(10) == PUBLISHED["condensenet-86"].config


def archive_of(folder: Path, path: Path, inside: str = ".") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, inside)
    return path


def test_an_archive_is_unpacked_once(folder, tmp_path):
    archive = archive_of(folder, tmp_path / "images.tar.gz")
    found = find_images(archive, tmp_path / "unpacked")
    assert sorted(path.name for path in found.iterdir()) == ["test", "train"]
    archive.write_bytes(b"")
    assert find_images(archive, tmp_path / "unpacked") == found


def test_images_that_are_not_there_or_not_laid_out_so_are_refused(folder, tmp_path):
    with pytest.raises(DataNotFound, match=r"must be a folder or a \.tar\.gz, but .*doesn't exist"):
        find_images(tmp_path / "nowhere", tmp_path / "unpacked")
    with pytest.raises(DataNotFound, match=r"must hold train/CLASS/IMAGE.*holds cat, dog"):
        find_images(folder / "train", tmp_path / "unpacked")
    with pytest.raises(DataNotFound, match="holds nothing"):
        find_images(tmp_path, tmp_path / "unpacked")
    (tmp_path / "cut.tar.gz").write_bytes(archive_of(folder, tmp_path / "whole.tar.gz").read_bytes()[:2000])
    with pytest.raises(UnreadableImage, match="fetch it again"):
        find_images(tmp_path / "cut.tar.gz", tmp_path / "unpacked")
    assert not (tmp_path / "unpacked").exists()


def test_the_command_says_by_its_exit_code_whether_there_is_more_to_do(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path / "results")
    arguments = ["paper_accuracy", "--images", str(folder), "--network", "50", "--work", str(tmp_path / "work")]
    arguments += ["--epochs", "1", "--image-size", "8", "--device", "cpu", "--record", "tiny"]
    monkeypatch.setattr(sys, "argv", [*arguments, "--minutes", "1e-9"])
    with pytest.raises(SystemExit) as ended:
        paper_accuracy.main()
    assert ended.value.code == MORE_TO_DO
    assert json.loads((tmp_path / "work" / "curve.json").read_text()) == []
    monkeypatch.setattr(sys, "argv", arguments)
    paper_accuracy.main()
    assert "the paper's 6.22 %" in capsys.readouterr().out
    assert json.loads((tmp_path / "results" / "tiny.json").read_text())["result"]["epochs"] == 1


def test_a_wrong_path_is_one_line_and_an_exit_code(tmp_path, monkeypatch, capsys):
    arguments = ["paper_accuracy", "--images", str(tmp_path / "no"), "--network", "86", "--work", str(tmp_path / "w")]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as ended:
        paper_accuracy.main()
    assert ended.value.code == DataNotFound.exit_code
    assert capsys.readouterr().err.count("\n") == 1


def test_it_needs_few_libraries_because_a_machine_with_a_gpu_may_have_no_others():
    missing = ("sqlalchemy", "optuna", "fvcore", "sklearn", "scipy", "onnx", "onnxruntime", "plotly", "fastapi")
    code = f"""
import sys
sys.modules |= dict.fromkeys({missing})
import benchmarks.paper_accuracy
from benchmarks import record
print(*record.versions())
"""
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert printed.stderr == ""
    assert "torch" in printed.stdout.split()


def test_the_docs_have_the_reduced_result():
    saved = json.loads((record.RESULTS / "paper_accuracy_reduced.json").read_text())["result"]
    document = (ROOT / "docs" / "experiments.md").read_text()
    assert f"test error **{saved['test_error_pct']:.1f} %** of {saved['test_images']:,} images" in document
    held_out = ", ".join(f"{100 * (1 - row['val_top1']):.0f}" for row in saved["curve"])
    assert f"on only {saved['held_out_images']} held-out images" in document
    assert f"{held_out} %" in document
