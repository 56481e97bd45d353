"""What a machine says about itself: its processor and usable cores, and the sensors that explain a latency.

A sensor that isn't there reads as None. `root` is the file system's root, another one in tests.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path("/")
_CPU_SENSORS = ("cpu", "x86_pkg_temp", "soc", "coretemp", "k10temp", "zenpower")
_PI_THROTTLED_NOW = 0xE  # frequency capped, throttled, soft temperature limit; bit 0 is under-voltage alone
_PI_THROTTLED_EVER = 0xE0000  # the same since boot
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd44": "Cortex-X1",
    "0xd49": "Neoverse-N2",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd48": "Cortex-X2",
    "0xd4d": "Cortex-A715",
    "0xd4e": "Cortex-X3",
    "0xd4f": "Neoverse-V2",
    "0xd80": "Cortex-A520",
    "0xd81": "Cortex-A720",
}


def read_text(path: Path) -> str | None:
    """Return what a file of the system says, without the NUL that some end with; None when it says nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().strip("\0") or None
    except OSError:
        return None


def read_integer(path: Path, base: int = 10) -> int | None:
    """Return the number that a file of the system holds; None when it holds none."""
    try:
        return int(read_text(path) or "", base)
    except ValueError:
        return None


def cpuinfo(core: int, root: Path) -> dict[str, str]:
    """Return the fields of the core's paragraph of /proc/cpuinfo, or of the first paragraph if the core has none."""
    paragraphs = []
    for paragraph in (read_text(root / "proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        paragraphs.append({key.strip(): value.strip() for key, _, value in pairs})
    return next((fields for fields in paragraphs if fields.get("processor") == str(core)), paragraphs[0])


def cpu_model(core: int, root: Path = ROOT) -> str:
    """Return the name of one core's processor: an x86 brand string, or an ARM board with its core type."""
    fields = cpuinfo(core, root)
    name = fields.get("model name", "")
    if name and not name.startswith("ARMv"):  # which is what every ARM core of a kernel for 32-bit programs is called
        return name
    part = fields.get("CPU part", "").lower()
    board, core_type = read_text(root / "proc/device-tree/model"), _ARM_CORES.get(part, part)
    if board and core_type:
        return f"{board} ({core_type})"
    if board or name or core_type:
        return board or name or core_type
    if sys.platform == "darwin":
        query = ["sysctl", "-n", "machdep.cpu.brand_string"]
        brand = subprocess.run(query, capture_output=True, text=True, check=False).stdout.strip()
        if brand:
            return brand
    return platform.processor() or platform.machine() or "unknown"


def identity(core: int, root: Path = ROOT) -> dict[str, Any]:
    """Return what tells devices apart on which a network takes different times; None for what the machine doesn't say.

    `board` is the model of board or machine, `part` the core's implementer and part (ARM) or vendor, family and model,
    `mhz` the lowest and the highest frequency that the core may have, `memory_mb` what the system has.
    """
    try:
        fields = cpuinfo(core, root)
    except IndexError:
        fields = {}
    of_arm = [fields.get(name) for name in ("CPU implementer", "CPU part")]
    of_x86 = [fields.get(name) for name in ("vendor_id", "cpu family", "model")]
    part = next((":".join(map(str, parts)) for parts in (of_arm, of_x86) if all(parts)), None)
    boards = ("proc/device-tree/model", "sys/class/dmi/id/product_name", "sys/class/dmi/id/board_name")
    frequency = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
    khz = [read_integer(frequency / f"cpuinfo_{end}_freq") for end in ("min", "max")]
    memory = re.search(r"^MemTotal:\s*(\d+) kB", read_text(root / "proc/meminfo") or "", re.MULTILINE)
    return {
        "board": next(filter(None, (read_text(root / board) for board in boards)), None),
        "part": part,
        "mhz": None if None in khz else [round(one / 1000) for one in khz if one is not None],
        "memory_mb": None if memory is None else round(int(memory[1]) * 1.024e-3),
    }


def temperature_c(root: Path = ROOT) -> float | None:
    """Return the processor's temperature in °C from a thermal zone or hwmon chip named after it, else None."""
    sensors = [(zone / "type", zone / "temp") for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*"))]
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        sensors.append((chip / "name", chip / "temp1_input"))
    for name, value in sensors:
        reading = read_integer(value)  # in millidegrees
        is_cpu = any(word in (read_text(name) or "").lower() for word in _CPU_SENSORS)
        if is_cpu and reading is not None and -40_000 < reading < 150_000:
            return reading / 1000
    return None


def conditions(core: int, root: Path = ROOT) -> dict[str, Any]:
    """Return what the sensors say that explain a latency; None for each that the machine doesn't have.

    `cpu_mhz` is that of the core, `throttle_flags` are those of a Raspberry Pi's firmware, `throttle_count` is what an
    x86 core counts, and `load_average` covers 1, 5 and 15 minutes.
    """
    cpu = root / f"sys/devices/system/cpu/cpu{core}"
    khz = read_integer(cpu / "cpufreq/scaling_cur_freq")
    try:
        mhz: float | None = khz / 1000 if khz is not None else float(cpuinfo(core, root)["cpu MHz"])
    except (KeyError, ValueError):
        mhz = None
    try:
        load: list[float] | None = list(os.getloadavg())
    except (OSError, AttributeError):
        load = None
    firmware = sorted((root / "sys/devices/platform").glob("soc*/*firmware/get_throttled"))
    return {
        "temperature_c": temperature_c(root),
        "cpu_mhz": mhz,
        "throttle_flags": read_integer(firmware[0], base=16) if firmware else None,
        "throttle_count": read_integer(cpu / "thermal_throttle/core_throttle_count"),
        "load_average": load,
    }


def throttled(before: dict[str, Any], after: dict[str, Any]) -> bool | None:
    """Return whether the processor was slowed down between two readings of `conditions`; None without a sensor."""
    flags = (before["throttle_flags"], after["throttle_flags"])
    counts = (before["throttle_count"], after["throttle_count"])
    if None not in flags:
        newly = flags[1] & ~flags[0] & _PI_THROTTLED_EVER
        return bool((flags[0] | flags[1]) & _PI_THROTTLED_NOW or newly)
    if None not in counts:
        return bool(counts[1] > counts[0])
    return None


def usable_cores() -> list[int]:
    """Return the numbers of the cores this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores_for(core: int, threads: int) -> list[int]:
    """Return one core per thread: `core` and the usable ones below it, then from the highest one downwards.

    Raises:
        ValueError: the core is not usable, or there are fewer cores than threads.
    """
    usable = usable_cores()
    if core not in usable:
        raise ValueError(f"the core must be one of {usable}, but got {core}; pick one of those")
    if threads > len(usable):
        raise ValueError(f"threads must be at most the {len(usable)} usable cores, but got {threads}; use fewer")
    place = usable.index(core)
    return [usable[place - step] for step in range(threads)]


def siblings(core: int, cpus: Path = ROOT / "sys/devices/system/cpu") -> set[int]:
    """Return the cores that share this core's execution units, itself included; {core} where the system doesn't say."""
    return _listed(cpus / f"cpu{core}/topology/thread_siblings_list") | {core}


def caches_with(core: int, root: Path = ROOT) -> set[int]:
    """Return the cores that share the last cache of this core, itself included.

    Where the system doesn't say, as on many boards, these are all cores: so few share one memory.
    """
    cpus = root / "sys/devices/system/cpu"
    levels = {read_integer(index / "level") or 0: index for index in (cpus / f"cpu{core}/cache").glob("index*")}
    sharing = _listed(levels[max(levels)] / "shared_cpu_list") if levels else _listed(cpus / "online")
    return sharing | {core}


def _listed(path: Path) -> set[int]:
    """Return the numbers of a list such as `0-3,8`; none if it isn't there or is something else."""
    try:
        ranges = [[int(end) for end in part.split("-")] for part in (read_text(path) or "").split(",")]
    except ValueError:
        return set()
    return {number for ends in ranges for number in range(ends[0], ends[-1] + 1)}
