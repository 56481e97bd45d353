"""What an object is compiled for is read from its header, and compared with the program that would load it."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from workers.latency.agent.elf import MACHINES, Header, read_header, why_foreign

X86, ARM64, ARM32 = (64, 62, 0), (64, 183, 0), (32, 40, 0x05000400)


def elf(path: Path, bits: int, machine: int, flags: int, abi_version: int = 0) -> Path:
    """Write the header of a little-endian ELF object."""
    head = b"\x7fELF" + bytes([bits // 32, 1, 1, 0, abi_version]) + bytes(7)
    head += struct.pack("<HHI", 3, machine, 1) + bytes(12 if bits == 32 else 24) + struct.pack("<I", flags)
    path.write_bytes(head + bytes(64))
    return path


def test_this_python_and_its_libraries_are_for_each_other():
    header = read_header(sys.executable)
    assert header is not None
    assert header.bits == 8 * struct.calcsize("P")
    assert header.machine in MACHINES
    for library in (sys.modules["numpy._core._multiarray_umath"].__file__, np.linalg._umath_linalg.__file__):
        assert why_foreign(str(library)) is None


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        (ARM64, None),
        (X86, "it is for x86-64, 64 bits, byte order 1, ABI 0.0, and this program for AArch64, 64 bits"),
        (ARM32, "it is for ARM"),
        ((64, 183, 0, 1), "ABI 1.0, and"),
        ((32, 183, 0), "AArch64, 32 bits"),
        ((64, 12345, 0), "machine 12345"),
    ],
)
def test_another_machine_class_or_abi_is_foreign(tmp_path: Path, theirs: tuple[int, ...], reason: str | None):
    ours, object_file = elf(tmp_path / "python", *ARM64), elf(tmp_path / "kernel.so", *theirs)
    found = why_foreign(object_file, ours)
    assert (found is None) if reason is None else reason in str(found)


@pytest.mark.parametrize(("flags", "fits"), [(0x05000400, True), (0x05000402, True), (0x05000200, False)])
def test_of_32_bit_arm_the_calling_convention_counts(tmp_path: Path, flags: int, fits: bool):
    ours, object_file = elf(tmp_path / "python", *ARM32), elf(tmp_path / "kernel.so", 32, 40, flags)
    assert (why_foreign(object_file, ours) is None) is fits


@pytest.mark.parametrize("content", [b"", b"\x7fELF", b"\x7fELF\x07\x01" + bytes(60), b"MZ" + bytes(100)])
def test_what_is_no_object_is_foreign_and_a_program_that_is_none_says_nothing(tmp_path: Path, content: bytes):
    (tmp_path / "file").write_bytes(content)
    assert read_header(tmp_path / "file") is None
    assert why_foreign(tmp_path / "file") == "it is no whole ELF object"
    assert why_foreign(elf(tmp_path / "kernel.so", *X86), tmp_path / "file") is None
    assert read_header(tmp_path / "missing") is None


def test_a_header_says_in_words_what_it_is_for():
    assert str(Header(64, 1, 0, 183, 0)) == "AArch64, 64 bits, byte order 1, ABI 0.0"
