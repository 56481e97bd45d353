"""The training kernel is compiled once, for this processor, and its absence is told, not an error."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from space.config import CondenseNetConfig
from space.errors import InvalidSettings
from space.network import CondenseNet
from workers.compiled import library
from workers.training.forward import ForwardSettings, forward_of

NET = CondenseNetConfig(stages=(1,), growth=(8,), input_shape=(1, 8, 8))


SMALL_KERNEL = "void training_open(void) {} void training_forward(void) {} void training_backward(void) {}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for kernels, a process that has loaded none, and a source that is compiled in no time."""
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "kernels"))
    (tmp_path / "small.c").write_text(SMALL_KERNEL + "void training_close(void) {}\n")
    monkeypatch.setattr(library, "SOURCE", tmp_path / "small.c")
    library.load_library.cache_clear()
    yield tmp_path / "kernels"
    library.load_library.cache_clear()


def test_it_is_compiled_once_and_found_again(folder: Path):
    first = library.compiled()
    written = first.stat().st_mtime_ns
    assert library.compiled() == first
    assert first.stat().st_mtime_ns == written
    assert [path.name for path in folder.iterdir()] == [first.name]


def test_processes_that_start_together_find_the_same_file(folder: Path):
    with ThreadPoolExecutor(2) as pool:
        files = set(pool.map(lambda _: library.compiled(), range(2)))
    assert len(files) == 1
    assert len(list(folder.iterdir())) == 1


def test_another_processor_gets_a_file_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch):
    mine = library.compiled().name
    monkeypatch.setattr(library, "_processor", lambda: "model name: another")
    assert library.compiled().name != mine


def test_without_a_compiler_training_runs_in_torch_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    forward = forward_of(CondenseNet(NET), ForwardSettings())
    assert "there is no C compiler; install one: apt install gcc libc6-dev" in forward.name
    with pytest.raises(InvalidSettings, match="can't be used: there is no C compiler"):
        forward_of(CondenseNet(NET), ForwardSettings(kernel="compiled"))


def test_a_compiler_that_fails_is_quoted(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho 'cc: out of paper' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    with pytest.raises(library.NotCompiled, match="out of paper"):
        library.compiled()
    assert not list(folder.iterdir())


def test_a_folder_that_cannot_be_written_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "file" / "kernels"))
    with pytest.raises(library.NotCompiled, match=r"can't be kept in .*/file/kernels"):
        library.compiled()


def test_the_forms_are_chosen_by_what_they_can_do():
    config = CondenseNetConfig(**{**NET.to_dict(), "dropout": 0.1})
    assert "it knows no dropout" in forward_of(CondenseNet(config), ForwardSettings()).name
    assert forward_of(CondenseNet(NET), ForwardSettings()).name == "compiled kernel"
    assert forward_of(CondenseNet(NET), ForwardSettings(kernel="torch")).name == "torch"
