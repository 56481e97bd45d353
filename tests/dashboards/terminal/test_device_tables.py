"""What `devices list` shows of what agents say."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from dashboards.terminal.device_tables import devices_table
from search.devices.registry import DeviceRow


def shown(celsius: Any) -> list[str]:
    row = DeviceRow("pi", "pi", None, "online", {}, {"temperature_c": celsius}, None, None, None, 0, 0, 0, 0)
    file = io.StringIO()
    Console(file=file, width=100).print(devices_table([row]))
    return file.getvalue().splitlines()[-1].split()


@pytest.mark.parametrize("celsius", [1e308, -1e308, 150.0, -40.0, float("nan"), True, None, "warm", [48.5]])
def test_a_temperature_that_no_processor_has_is_shown_as_none(celsius: Any):
    assert shown(celsius) == ["pi", "online", "-", "-", "-", "0", "+", "0", "0"]


@pytest.mark.parametrize(("celsius", "text"), [(48.5, "48"), (-39.0, "-39"), (149, "149"), (0, "0")])
def test_a_temperature_is_shown_in_whole_degrees(celsius: float, text: str):
    assert shown(celsius)[4] == text
