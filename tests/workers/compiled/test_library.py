"""The training kernel is compiled once, for this processor; whatever goes wrong is told and no reason to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from space.config import CondenseNetConfig
from space.errors import InvalidSettings
from space.network import CondenseNet
from workers.compiled import library
from workers.training.forward import ForwardSettings, forward_of

NET = CondenseNetConfig(stages=(1,), growth=(8,), input_shape=(1, 8, 8))
SMALL_KERNEL = "".join(
    f"void training_{name}(void) {{}}\n" for name in ("open", "forward", "backward", "abandon", "close")
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder for kernels, a process that has loaded none, and a source that is compiled in no time."""
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "kernels"))
    (tmp_path / "small.c").write_text(SMALL_KERNEL)
    monkeypatch.setattr(library, "SOURCE", tmp_path / "small.c")
    library._loaded.cache_clear()
    yield tmp_path / "kernels" / "training"
    library._loaded.cache_clear()


def compiler_that(says: str, tmp_path: Path) -> Path:
    """A compiler in a folder with a space in its name."""
    program = tmp_path / "my tools" / "cc"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    return program


def falls_back_because() -> str:
    """Why a training of this machine runs in torch."""
    name = forward_of(CondenseNet(NET), ForwardSettings()).name
    assert name.startswith("torch (the compiled kernel can't be used: ")
    return name


def test_it_is_compiled_once_and_found_again(folder: Path):
    first = library.compiled()
    written = first.stat().st_mtime_ns
    assert library.compiled() == first
    assert first.stat().st_mtime_ns == written
    assert sorted(path.suffix for path in folder.iterdir()) == [".sha256", ".so"]
    assert folder.stat().st_mode & 0o077 == 0


def test_processes_that_start_together_find_the_same_file(folder: Path, tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from workers.compiled import library; "
        f"library.SOURCE = Path({str(tmp_path / 'small.c')!r}); print(library.compiled())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    files = {process.communicate()[0] for process in running}
    assert len(files) == 1
    assert sorted(path.suffix for path in folder.iterdir()) == [".sha256", ".so"]


@pytest.mark.parametrize("content", [b"", b"not a library", None])
def test_a_file_that_is_not_what_was_compiled_is_made_again(folder: Path, content: bytes | None):
    file = library.compiled()
    whole = file.read_bytes()
    file.write_bytes(whole[:100] if content is None else content)
    assert library.compiled() == file
    assert file.read_bytes() == whole


def test_a_folder_that_others_could_write_to_is_closed(folder: Path):
    library.compiled()
    folder.chmod(0o777)
    library.compiled()
    assert folder.stat().st_mode & 0o022 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_another_users_folder_is_not_trusted(folder: Path):
    folder.mkdir(parents=True)
    os.chown(folder, 54321, 54321)
    assert "another user's; name a folder of your own in CONDENSERY_KERNELS" in falls_back_because()


def test_what_a_killed_compilation_left_is_removed(folder: Path):
    left = folder / "making-abc"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    library.compiled()
    assert not left.exists()


X86 = "processor\t: 0\nmodel name\t: A\nflags\t\t: avx2 fma\nbogomips\t: 1\n"
NEOVERSE_V1 = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
NEOVERSE_N1 = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


def test_every_processor_gets_a_file_of_its_own(folder: Path, tmp_path: Path):
    said = []
    for name, text in (("a", X86), ("b", NEOVERSE_V1), ("c", NEOVERSE_N1)):
        (tmp_path / name).write_text(text)
        said.append(library._processor(tmp_path / name))
    assert len(set(said)) == 3
    assert "sve" in said[1]
    assert "bogomips" not in said[0]  # it differs from boot to boot
    assert library._processor(tmp_path / "missing")


def test_without_a_compiler_training_runs_in_torch_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    assert "there is no C compiler; install one: apt install gcc libc6-dev" in falls_back_because()
    with pytest.raises(InvalidSettings, match="can't be used: there is no C compiler"):
        forward_of(CondenseNet(NET), ForwardSettings(kernel="compiled"))


def test_a_compiler_that_fails_is_quoted_and_not_asked_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = tmp_path / "asked"
    says = f"echo asked >> {asked}; echo 'cc: out of paper' >&2; exit 1"
    monkeypatch.setenv("CC", str(compiler_that(says, tmp_path)))
    assert "out of paper" in falls_back_because()
    times = len(asked.read_text().splitlines())
    assert "out of paper" in falls_back_because()
    assert len(asked.read_text().splitlines()) == times


def test_a_compiler_that_hangs_is_given_up(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(library, "COMPILE_LIMIT_S", 0.2)
    monkeypatch.setenv("CC", str(compiler_that("exec sleep 60", tmp_path)))
    assert "doesn't end within" in falls_back_because()


def test_cc_may_be_a_command_with_arguments(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", "env LC_ALL=C gcc")
    assert library.compiled().exists()


@pytest.mark.parametrize("wanted", ["no-such-compiler", "/nowhere/cc -O3"])
def test_a_cc_that_is_not_there_is_named(wanted: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CC", wanted)
    assert f"CC names {wanted!r}, which isn't there" in falls_back_because()


def test_a_cc_that_cannot_be_run_is_a_reason_too(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program = compiler_that("", tmp_path)
    program.write_bytes(b"\x00\x01 no program")
    monkeypatch.setenv("CC", str(program))
    assert "can't be made or kept" in falls_back_because()


def test_a_folder_that_cannot_be_written_is_named(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "file" / "kernels"))
    assert str(tmp_path / "file" / "kernels") in falls_back_because()


def test_the_forms_are_chosen_by_what_they_can_do():
    config = CondenseNetConfig(**{**NET.to_dict(), "dropout": 0.1})
    assert "it knows no dropout" in forward_of(CondenseNet(config), ForwardSettings()).name
    assert forward_of(CondenseNet(NET), ForwardSettings()).name == "compiled kernel"
    assert forward_of(CondenseNet(NET), ForwardSettings(kernel="torch")).name == "torch"
    in_vain = forward_of(CondenseNet(NET), ForwardSettings(kernel="torch", recompute=True))
    assert in_vain.name == "torch; engine.recompute has no effect"
