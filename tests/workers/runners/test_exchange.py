"""Checkpoints and results pass through an exchange whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.tiny import job
from workers.files import file_hash
from workers.runners.exchange import ExchangeFailed, TrialExchange, clear


@pytest.fixture(params=["memory://{}", "file://{}", "{}"])
def exchange(request: pytest.FixtureRequest, tmp_path: Path) -> TrialExchange:
    return TrialExchange(request.param.format(tmp_path / "exchange"), job(tmp_path, tmp_path, number=7))


def checkpoint(folder: Path, step: int) -> None:
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    for suffix in ("safetensors", "json"):
        (folder / "checkpoints" / f"checkpoint-{step:09d}.{suffix}").write_text(f"{suffix} {step}")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*"))


def test_the_newest_checkpoint_passes_and_older_ones_go(exchange: TrialExchange, tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    checkpoint(here, 1)
    exchange.push_checkpoint(here)
    for path in (here / "checkpoints").glob("*"):
        path.unlink()
    checkpoint(here, 2)
    exchange.push_checkpoint(here)
    exchange.fetch_checkpoints(there)
    assert names(there) == ["checkpoint-000000002.json", "checkpoint-000000002.safetensors"]


def test_a_worker_killed_while_it_pushes_leaves_what_was_there_before(
    exchange: TrialExchange, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "log.txt").write_text("attempt 1")
    exchange.push(here, ("log.txt",))
    put = exchange._files.put_file

    def half(source: str, target: str) -> None:
        if "file" in exchange._files.protocol:
            Path(target).write_text("att")
        raise KeyboardInterrupt

    monkeypatch.setattr(exchange._files, "put_file", half)
    with pytest.raises(KeyboardInterrupt):
        exchange.push(here, ("log.txt",))
    monkeypatch.setattr(exchange._files, "put_file", put)
    exchange.fetch_checkpoints(there)
    assert (there / "log.txt").read_text() == "attempt 1"


def test_what_a_training_starts_from_passes_and_goes_with_the_trial(exchange: TrialExchange, tmp_path: Path):
    (tmp_path / "start-of-a-study").write_text("network")
    exchange.push_start(tmp_path / "start-of-a-study")
    assert exchange.fetch_start(tmp_path / "there").read_text() == "network"
    clear(exchange.url, "tiny", 7)
    with pytest.raises(ExchangeFailed):
        exchange.fetch_start(tmp_path / "there")


def test_tensors_without_their_json_do_not_count(exchange: TrialExchange, tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    checkpoint(here, 1)
    exchange.push(here, ("checkpoints/checkpoint-000000001.safetensors",))
    exchange.fetch_checkpoints(there)
    assert names(there) == []


def test_a_result_with_another_hash_is_refused_and_leaves_nothing(exchange: TrialExchange, tmp_path: Path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    (here / "model.onnx").write_text("network")
    exchange.push(here, ("model.onnx",))
    with pytest.raises(ExchangeFailed, match="its SHA-256 differs"):
        exchange.fetch_results(there, {"model.onnx": "0" * 64})
    assert list(there.glob("*")) == []
    exchange.fetch_results(there, {"model.onnx": file_hash(here / "model.onnx")})
    assert (there / "model.onnx").read_text() == "network"
    clear(exchange.url, "tiny", 7)
    with pytest.raises(ExchangeFailed):
        exchange.fetch_results(there, {"model.onnx": file_hash(here / "model.onnx")})
