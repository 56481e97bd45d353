"""Memory and energy of a run, read from made-up systems and from this one."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from workers.latency.agent.resources import (
    begin_peak_memory,
    energy_counter,
    energy_mj,
    peak_memory_mb,
    power_sensor,
    supplied_w,
)

ADC = """ 3V7_WL_SW_A current(0)=0.10000000A
   VDD_CORE_A current(7)=2.00000000A
 3V7_WL_SW_V volt(8)=3.70000000V
   VDD_CORE_V volt(15)=0.80000000V
       EXT5V_V volt(24)=5.10000000V
"""


def write(root: Path, name: str, value: object) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(f"{value}\n")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count no peak that can begin anew")
def test_the_peak_is_of_what_ran_since_it_began():
    large = np.ones(4_000_000)  # 32 MB
    assert begin_peak_memory()
    before = peak_memory_mb()
    del large
    assert begin_peak_memory()
    after = peak_memory_mb()
    assert before is not None
    assert after is not None
    assert before - after > 30


def test_where_the_system_says_nothing_nothing_is_made_up(tmp_path: Path):
    assert not begin_peak_memory(tmp_path)
    assert peak_memory_mb(tmp_path) is None
    assert energy_mj(lambda: None, 0.01, tmp_path) is None


def test_packages_are_added_and_counters_may_turn_over(tmp_path: Path):
    zones = "sys/class/powercap/intel-rapl:"
    for zone, energy in (("0", 900), ("1", 10), ("0:0", 5000)):
        write(tmp_path, f"{zones}{zone}/energy_uj", energy)
        write(tmp_path, f"{zones}{zone}/max_energy_range_uj", 1000)
    read = energy_counter(tmp_path)
    assert read is not None
    assert read() == 910
    write(tmp_path, f"{zones}0/energy_uj", 50)
    assert read() == 1060
    write(tmp_path, f"{zones}1/energy_uj", 20)
    assert read() == 1070


def test_energy_is_the_counters_difference_for_one_run(tmp_path: Path):
    counter = "sys/class/powercap/intel-rapl:0/energy_uj"
    write(tmp_path, counter, 0)
    used = []

    def run() -> None:
        used.append(2000)
        write(tmp_path, counter, sum(used))

    assert energy_mj(run, 0.01, tmp_path) == pytest.approx(2.0)


def test_a_power_sensor_gives_energy_by_how_long_a_run_takes(tmp_path: Path):
    write(tmp_path, "sys/class/hwmon/hwmon0/power1_input", 3_000_000)
    read, runs = power_sensor(tmp_path), []
    assert read is not None
    assert read() == pytest.approx(3.0)
    found = energy_mj(lambda: runs.append(1), 0.01, tmp_path)
    assert found is not None
    assert 3000 * 0.1 / len(runs) <= found < 3000 * 10 / len(runs)


def test_the_supplies_of_a_board_are_summed():
    assert supplied_w(ADC) == pytest.approx(0.37 + 1.6)
    assert supplied_w("error=2") is None
