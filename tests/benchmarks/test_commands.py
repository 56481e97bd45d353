"""The benchmarks' commands: what README and docs say to run is there, and starts the project's own programs."""

from __future__ import annotations

import importlib
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
NAMED = sorted({name for text in TEXTS for name in re.findall(r"python -m (benchmarks\.\w+)", text.read_text())})


@pytest.mark.parametrize("name", NAMED)
def test_a_benchmark_that_the_docs_name_can_be_run(name: str) -> None:
    spec = find_spec(name)
    assert spec is not None
    runs = find_spec(f"{name}.__main__") if spec.submodule_search_locations else spec
    assert runs is not None
    assert runs.origin is not None
    assert 'if __name__ == "__main__":' in Path(runs.origin).read_text()


@pytest.mark.parametrize("name", ["benchmarks.scale.__main__", "benchmarks.kill_anywhere.run"])
def test_a_benchmark_starts_programs_from_the_projects_folder(name: str) -> None:
    assert importlib.import_module(name).ROOT == ROOT


@pytest.mark.parametrize("name", ["round", "peer"])
def test_a_round_of_scale_has_a_main_to_run_in_a_process_of_its_own(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.scale.{name}").main)
