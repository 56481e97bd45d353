"""What a compiled object is for, by its ELF header, compared with the program that would load it."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import NamedTuple

MACHINES = {
    3: "x86 (32 bits)",
    8: "MIPS",
    21: "PowerPC",
    22: "IBM Z",
    40: "ARM (32 bits)",
    62: "x86-64",
    183: "AArch64",
    243: "RISC-V",
    258: "LoongArch",
}
# The bits of a header's flags that say how functions are called; of other machines they say nothing of it.
ABI_FLAGS = {8: 0x0000F020, 40: 0xFF000600, 243: 0x0000000E, 258: 0x00000007}
SHARED_OBJECT = 3


class Header(NamedTuple):
    """What two objects must have in common to be used together."""

    bits: int  # 32 or 64
    order: int  # 1: the least significant byte first, 2: the most
    abi_version: int
    machine: int
    abi: int  # how functions are called there

    def __str__(self) -> str:
        name = MACHINES.get(self.machine, f"machine {self.machine}")
        return f"{name}, {self.bits} bits, byte order {self.order}, ABI {self.abi_version}.{self.abi:x}"


def read_header(path: str | Path) -> Header | None:
    """Return the header of an ELF file; None for any other file, or one that can't be read."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123  (a path may be text)
            head = file.read(64)
    except OSError:
        return None
    if len(head) < 52 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    order = "<" if head[5] == 1 else ">"
    machine: int = struct.unpack_from(order + "H", head, 18)[0]
    flags: int = struct.unpack_from(order + "I", head, 36 if head[4] == 1 else 48)[0]
    return Header(32 * head[4], head[5], head[8], machine, flags & ABI_FLAGS.get(machine, 0))


def why_foreign(path: str | Path, program: str | Path | None = None) -> str | None:
    """Return why an object can't be loaded by a program (None: this one, Python); None if nothing speaks against it.

    Where the program is no ELF file, as on macOS, nothing is known.
    """
    ours = read_header(program or sys.executable)
    if ours is None:
        return None
    theirs = read_header(path)
    if theirs is None:
        return "it is no whole ELF object"
    return None if theirs == ours else f"it is for {theirs}, and this program for {ours}"
