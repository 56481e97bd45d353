"""What running a model takes beside time: the most memory that its process held, and energy where there is a meter.

A meter that isn't there, or can't be read by this user, is None. `root` is the file system's root, another in tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from workers.latency.agent.sensors import ROOT, read_integer, read_text

POWER_S = 0.1  # between two readings of a power sensor
PI_POWER = ["vcgencmd", "pmic_read_adc"]  # currents and voltages of a Raspberry Pi 5's supplies


def begin_peak_memory(root: Path = ROOT) -> bool:
    """Give unused memory back and begin to count this process's peak anew; return whether the system can do that."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # where the system has no glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (root / "proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_memory_mb(root: Path = ROOT) -> float | None:
    """Return the most memory that this process has held since its peak began, in MB (10^6 bytes); None: unknown."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", read_text(root / "proc/self/status") or "", re.MULTILINE)
    return None if found is None else int(found[1]) * 1.024e-3


def energy_counter(root: Path = ROOT) -> Callable[[], int] | None:
    """Return the function that reads how much energy this machine has used, in µJ; None without such a counter.

    It is of all processor packages together (RAPL), or of the first counter that a monitoring chip has.
    """
    packages = [zone for zone in sorted((root / "sys/class/powercap").glob("*:*")) if zone.name.count(":") == 1]
    counters = [zone / "energy_uj" for zone in packages if read_integer(zone / "energy_uj") is not None]
    if not counters:
        chips = sorted((root / "sys/class/hwmon").glob("hwmon*/energy*_input"))
        counters = [chip for chip in chips if read_integer(chip) is not None][:1]
    if not counters:
        return None
    ranges = [read_integer(counter.parent / "max_energy_range_uj") or 0 for counter in counters]
    before = [read_integer(counter) or 0 for counter in counters]
    turns = [0] * len(counters)

    def read() -> int:
        for place, counter in enumerate(counters):
            now = read_integer(counter) or 0
            turns[place] += now < before[place]  # the counter has begun again
            before[place] = now
        return sum(now + turn * most for now, turn, most in zip(before, turns, ranges))  # noqa: B905  Python 3.9

    return read


def power_sensor(root: Path = ROOT) -> Callable[[], float | None] | None:
    """Return the function that reads what this machine draws now, in W; None without such a sensor."""
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*/power*_input")):
        if read_integer(chip) is not None:
            return lambda: None if (found := read_integer(chip)) is None else found * 1e-6
    return pi_power_w if pi_power_w() is not None else None


def pi_power_w() -> float | None:
    """Return what the supplies of a Raspberry Pi 5 give now, in W; None on other machines."""
    try:
        done = subprocess.run(PI_POWER, capture_output=True, text=True, timeout=2, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return supplied_w(done.stdout)


def supplied_w(text: str) -> float | None:
    """Return the power in W that `vcgencmd pmic_read_adc` printed: the sum over supplies of current times voltage."""
    amperes = {name: float(value) for name, value in re.findall(r"(\w+)_A current\(\d+\)=([\d.]+)A", text)}
    volts = {name: float(value) for name, value in re.findall(r"(\w+)_V volt\(\d+\)=([\d.]+)V", text)}
    both = amperes.keys() & volts.keys()
    return sum(amperes[name] * volts[name] for name in both) if both else None


def energy_mj(run: Callable[[], object], seconds: float, root: Path = ROOT) -> float | None:
    """Return the energy in mJ that the machine uses for one run of a model; None without a meter.

    It is all that the meter sees, idle parts included, while the model runs again and again.
    """
    read = energy_counter(root)
    if read is not None:
        runs, began, before = 0, time.perf_counter(), read()
        while time.perf_counter() - began < seconds:
            run()
            runs += 1
        return (read() - before) / runs * 1e-3
    power = power_sensor(root)
    return None if power is None else _from_power(run, power, seconds)


def _from_power(run: Callable[[], object], power: Callable[[], float | None], seconds: float) -> float | None:
    runs, running_s, watts = 0, 0.0, []
    while running_s < seconds:
        began = time.perf_counter()
        while time.perf_counter() - began < POWER_S:
            run()
            runs += 1
        running_s += time.perf_counter() - began
        watts.append(power())
    known = [one for one in watts if one is not None]
    return sum(known) / len(known) * running_s / runs * 1e3 if known else None
