"""A checkpoint counts wholly or not at all."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from space.config import CondenseNetConfig
from space.errors import DiskFull, ReadOnlyFolder
from space.network import CondenseNet
from tests.workers.tiny import NET
from workers import files
from workers.training.checkpoint import Progress, load_checkpoint, model_tensors, remove_checkpoints, save_checkpoint


def network(seed: int = 0) -> tuple[CondenseNet, torch.optim.SGD]:
    torch.manual_seed(seed)
    model = CondenseNet(NET)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)


def take_step(model: CondenseNet, optimizer: torch.optim.SGD) -> None:
    torch.manual_seed(3)
    model.train()
    torch.autograd.backward(model(torch.randn(8, *NET.input_shape), progress=0.2).square().sum())
    optimizer.step()


def progress(step: int, identity: str = "mine") -> Progress:
    return Progress(step=step, loss_sum=0.1 + 0.2, loss_count=7, seconds=12.5, identity=identity)


def save(folder: Path, *steps: int, identity: str = "mine") -> None:
    for step in steps:
        model, optimizer = network(step)
        take_step(model, optimizer)
        save_checkpoint(folder, model, optimizer, progress(step, identity))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_restores_tensors_momentum_and_progress_exactly(tmp_path: Path):
    model, optimizer = network()
    take_step(model, optimizer)
    committed = save_checkpoint(tmp_path, model, optimizer, progress(41))
    other, other_optimizer = network(seed=9)
    assert load_checkpoint(tmp_path, other, other_optimizer, "mine") == progress(41)
    assert committed.name == "checkpoint-000000041.json"
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    assert other.condensing_stage == 1
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(optimizer.state[mine]["momentum_buffer"], other_optimizer.state[theirs]["momentum_buffer"])


def test_a_checkpoint_from_before_the_first_step_has_no_momentum(tmp_path: Path):
    save_checkpoint(tmp_path, *network(), progress(0))
    other, other_optimizer = network(seed=9)
    assert load_checkpoint(tmp_path, other, other_optimizer, "mine") == progress(0)
    assert not other_optimizer.state


def test_an_empty_or_missing_folder_holds_no_checkpoint(tmp_path: Path):
    assert load_checkpoint(tmp_path, *network(), "mine") is None
    assert load_checkpoint(tmp_path / "missing", *network(), "mine") is None


def test_the_two_newest_are_kept_and_no_temporary_file_is_left(tmp_path: Path):
    save(tmp_path, 8, 9, 10, 11)
    assert names(tmp_path) == [
        "checkpoint-000000010.json",
        "checkpoint-000000010.safetensors",
        "checkpoint-000000011.json",
        "checkpoint-000000011.safetensors",
    ]


def damage_tensors(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def lose_tensors(folder: Path, stem: str) -> None:
    (folder / f"{stem}.safetensors").unlink()


def damage_document(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.json"
    path.write_text(path.read_text()[:-20])


def empty_document(folder: Path, stem: str) -> None:
    (folder / f"{stem}.json").write_text("[]")


def other_format(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def other_identity(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": "another"}))


def missing_fact(folder: Path, stem: str) -> None:
    path = folder / f"{stem}.json"
    facts = json.loads(path.read_text())
    del facts["loss_count"]
    path.write_text(json.dumps(facts))


DAMAGES = [missing_fact, damage_tensors, flip_a_bit, lose_tensors, damage_document, empty_document, other_format]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage):
    save(tmp_path, 10, 20)
    damage(tmp_path, "checkpoint-000000020")
    expected, _ = network(10)
    take_step(expected, _)
    model, optimizer = network(seed=9)
    assert load_checkpoint(tmp_path, model, optimizer, "mine") == progress(10)
    assert torch.equal(model.stem.weight, expected.stem.weight)


def test_when_every_checkpoint_is_damaged_there_is_none_and_the_network_is_untouched(tmp_path: Path):
    save(tmp_path, 10, 20)
    for stem in ("checkpoint-000000010", "checkpoint-000000020"):
        damage_tensors(tmp_path, stem)
    model, optimizer = network(seed=9)
    before = model_tensors(model)
    assert load_checkpoint(tmp_path, model, optimizer, "mine") is None
    assert all(torch.equal(value, before[name]) for name, value in model_tensors(model).items())


OTHERS = {
    "wider": (NET.to_dict() | {"growth": [8, 8]}, r"is of shape \[.*\], this network's of \["),
    "deeper": (NET.to_dict() | {"stages": [2, 1]}, r"it holds|is of shape"),
    "shallower": (NET.to_dict() | {"stages": [1], "growth": [4]}, r"it lacks|is of shape"),
    "colour": (NET.to_dict() | {"input_shape": [3, 8, 8]}, r"its model\.stem.*is of shape"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_checkpoint_of_another_layout_is_passed_over_with_a_note_and_changes_nothing(tmp_path: Path, other: str):
    """Its identity is the same: a version of the project laid its network out otherwise."""
    values, reason = OTHERS[other]
    elsewhere = CondenseNet(CondenseNetConfig.from_dict(values))
    save_checkpoint(tmp_path, elsewhere, torch.optim.SGD(elsewhere.parameters(), lr=0.1), progress(20))
    model, optimizer = network(seed=9)
    before, notes = model_tensors(model), []
    files_before = names(tmp_path)
    assert load_checkpoint(tmp_path, model, optimizer, "mine", notes.append) is None
    assert all(torch.equal(value, before[name]) for name, value in model_tensors(model).items())
    assert not optimizer.state
    assert re.fullmatch(f"checkpoint-000000020 is not used: .*({reason}).*", *notes)
    assert names(tmp_path) == files_before  # nothing is removed before there is a checkpoint of its own


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_tensors, "its tensors are damaged"),
        (lose_tensors, r"it is damaged or incomplete \(FileNotFoundError\)"),
        (damage_document, r"it is damaged or incomplete \(JSONDecodeError\)"),
        (other_format, r"it is of format 99, and this version reads format \d+"),
        (other_identity, "it is of a training with another config, other settings, images or seed"),
    ],
)
def test_the_log_says_why_a_checkpoint_is_passed_over(tmp_path: Path, damage, reason: str):
    save(tmp_path, 10, 20)
    damage(tmp_path, "checkpoint-000000020")
    notes: list[str] = []
    assert load_checkpoint(tmp_path, *network(), "mine", notes.append) == progress(10)
    assert re.fullmatch(f"checkpoint-000000020 is not used: {reason}", *notes)


def test_a_checkpoint_of_another_trial_is_never_used(tmp_path: Path):
    save(tmp_path, 10, identity="mine")
    save(tmp_path, 20, identity="another")
    assert load_checkpoint(tmp_path, *network(), "mine") == progress(10)
    assert load_checkpoint(tmp_path, *network(), "a third") is None


def test_another_trials_later_checkpoints_do_not_push_out_this_ones(tmp_path: Path):
    """A study deleted and launched again under its name finds the old files in its trials' folders."""
    save(tmp_path, 300, 400, identity="another")
    save(tmp_path, 10, identity="mine")
    assert load_checkpoint(tmp_path, *network(), "mine") == progress(10)
    assert names(tmp_path) == ["checkpoint-000000010.json", "checkpoint-000000010.safetensors"]


def test_an_attempt_that_was_frozen_leaves_the_files_of_a_later_one_alone(tmp_path: Path):
    model, optimizer = network()
    for step, attempt in ((10, 1), (20, 1), (21, 2)):
        save_checkpoint(tmp_path, model, optimizer, progress(step), attempt)
    half = tmp_path / ".checkpoint-000000022.00002.safetensors.4711"  # the later attempt writes it just now
    half.write_bytes(b"half")
    later = {"checkpoint-000000021.00002.json", "checkpoint-000000021.00002.safetensors", half.name}
    save_checkpoint(tmp_path, model, optimizer, progress(30), 1)  # the earlier one is thawed
    assert later < set(names(tmp_path))
    save_checkpoint(tmp_path, model, optimizer, progress(22), 2)
    assert {name.partition(".")[0] for name in names(tmp_path)} == {"checkpoint-000000021", "checkpoint-000000022"}


def test_what_a_killed_writer_left_is_swept_up_by_the_next_checkpoint(tmp_path: Path):
    (tmp_path / ".checkpoint-000000005.safetensors.4711").write_bytes(b"half")
    (tmp_path / "checkpoint-000000005.safetensors").write_bytes(b"tensors whose JSON never came")
    save(tmp_path, 10)
    assert names(tmp_path) == ["checkpoint-000000010.json", "checkpoint-000000010.safetensors"]


def test_a_write_that_fails_leaves_the_earlier_checkpoints_and_no_temporary_file(tmp_path: Path, monkeypatch):
    save(tmp_path, 10)
    before = names(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFull, match="no space is left"):
        save(tmp_path, 20)
    assert names(tmp_path) == before
    assert load_checkpoint(tmp_path, *network(), "mine") == progress(10)


def test_a_folder_that_is_a_file_is_named_as_one_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ReadOnlyFolder, match="taken"):
        save(tmp_path / "taken", 1)


def test_removing_takes_everything_and_may_be_repeated(tmp_path: Path):
    save(tmp_path / "checkpoints", 1, 2)
    remove_checkpoints(tmp_path / "checkpoints")
    remove_checkpoints(tmp_path / "checkpoints")
    assert names(tmp_path) == []
