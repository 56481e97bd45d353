"""What this machine can't do, and what no network of a space can reach, is refused by `check` and at launch."""

from __future__ import annotations

from pathlib import Path

import pytest
from optuna.study import StudyDirection
from typer.testing import CliRunner

import condensery
from search.machine_fit import activations_mb, check_machine, check_memory
from search.study import optuna_storage
from space.config import CondenseNetConfig
from space.errors import BudgetUnreachable, InvalidSettings, StudyExists
from tests.search.test_data_fit import refused_everywhere, study
from tests.search.tiny_studies import sqlite_url
from workers.processes import memory_mb
from workers.training import tried

NATIVE = {"latency__runtime": "native"}


def test_a_runtime_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The native one isn't where there is no compiler."""
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setenv("PATH", str(tmp_path))
    refused_everywhere(study(**NATIVE), tmp_path, InvalidSettings, "latency.runtime = 'native' must be there on this")


def test_a_runtime_that_does_not_work_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It is there, and a tiny network shows that it doesn't work: a compiler that only fails."""
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "kernels"))
    monkeypatch.setenv("CC", "false")
    refused_everywhere(study(**NATIVE), tmp_path, InvalidSettings, "'native' can't be used here: a tiny network failed")


def test_a_runtime_that_works_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CONDENSERY_KERNELS", str(tmp_path / "kernels"))
    check_machine(study(**NATIVE))
    assert list((tmp_path / "kernels").iterdir())


@pytest.mark.parametrize("limit", ["max_macs", "max_params"])
def test_a_space_of_which_nothing_fits_the_limits_is_refused(tmp_path: Path, limit: str):
    settings = study(**{f"budget__{limit}": 10})
    refused_everywhere(settings, tmp_path, BudgetUnreachable, f"{limit} = 10 is below anything in this space")


@pytest.mark.slow
def test_check_measures_whether_a_latency_can_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(condensery.app, ["init", "study.toml"]).exit_code == 0
    words = ["check", "study.toml", "--set", "budget.max_latency_ms=0.0001"]
    assert CliRunner().invoke(condensery.app, [*words, "--no-timing"]).exit_code == 0
    result = CliRunner().invoke(condensery.app, words)
    assert isinstance(result.exception, BudgetUnreachable), result.output


def test_check_refuses_another_programs_optuna_study_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(condensery.app, ["init", "study.toml", "--name", "theirs"]).exit_code == 0
    storage = optuna_storage(sqlite_url(tmp_path))
    storage.create_new_study([StudyDirection.MAXIMIZE], "theirs")
    storage.engine.dispose()
    words = ["check", "study.toml", "--no-timing"]
    result = CliRunner().invoke(condensery.app, [*words, "--storage", sqlite_url(tmp_path)])
    assert isinstance(result.exception, StudyExists), result.output
    assert CliRunner().invoke(condensery.app, words).exit_code == 0


# -- memory --


@pytest.mark.slow
def test_more_workers_than_memory_are_refused_with_how_many_fit(tmp_path: Path):
    refused_everywhere(
        study(engine__workers=4096), tmp_path, InvalidSettings, r"4096 need [\d,.]+ GB .* tried here.* at most \d+ fit"
    )


def test_what_surely_fits_is_not_tried(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tried, "LIMIT_S", -1.0)  # a try would fail
    check_memory(study(engine__workers=2), limit_mb=4000.0)
    check_memory(study(engine__workers=4096, engine__kind="ray"), limit_mb=10.0)
    check_memory(study(engine__workers=4096, engine__device="cuda"), limit_mb=10.0)


def test_a_networks_feature_maps_are_those_that_its_layers_write():
    """Two stages of one layer, at 8x8 and 4x4: normalised inputs, both halves of the bottleneck, the growth."""
    config = CondenseNetConfig(stages=(1, 1), growth=(4, 4), groups=1, condense_factor=1, bottleneck=2)
    config = CondenseNetConfig(**{**config.to_dict(), "input_shape": (1, 8, 8)})
    expected = 64 * (8 + 5 * 4) + 16 * (12 + 5 * 4)
    assert activations_mb(config, 3) == pytest.approx(3 * expected * 4 / 1e6)


@pytest.mark.parametrize(
    ("file", "content", "limit"),
    [
        ("sys/fs/cgroup/memory.max", "50000000\n", 50.0),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "60000000\n", 60.0),
        ("sys/fs/cgroup/memory.max", "max\n", None),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", f"{2**63 - 4096}\n", None),
    ],
)
def test_a_containers_memory_is_that_of_its_control_group(tmp_path: Path, file: str, content: str, limit: float | None):
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(content)
    assert memory_mb(tmp_path) == (memory_mb(tmp_path / "nowhere") if limit is None else limit)
