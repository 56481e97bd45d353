"""The bundle of a picked network, from a study whose one training is made up."""

from __future__ import annotations

import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path

from search import bundle, trained_files
from search.pricing import Target
from search.store import reader
from tests.search.tiny_studies import CountingProbe, tiny_settings
from tests.search.trained_study import trained_study
from workers.file_names import NETWORK_FILE, ONNX_FILE
from workers.files import file_hash
from workers.latency import LatencySummary
from workers.latency.measurement import never


def picked_and_bundled(folder: Path, probe: CountingProbe) -> tuple[bundle.Picked, Path]:
    store = trained_study(folder, probe)
    study = reader.find_study(store.engine, "tiny")
    picked = bundle.pick(store, study, tiny_settings().search_budget(), (Target("host", probe),), folder / "images")
    written = bundle.write_bundle(store, study, picked, folder / "bundle")
    store.engine.dispose()
    return picked, written


def test_a_picked_networks_files_are_hashed_once_and_the_bundle_says_the_hash(tmp_path: Path, monkeypatch):
    hashed: Counter[str] = Counter()

    def counting(path: Path) -> str:
        hashed[path.name] += 1
        return file_hash(path)

    monkeypatch.setattr(trained_files, "file_hash", counting)
    picked, folder = picked_and_bundled(tmp_path, CountingProbe())
    assert hashed == {ONNX_FILE: 1, NETWORK_FILE: 1}
    deploy = tomllib.loads((folder / "deploy.toml").read_text())
    assert deploy["model"]["sha256"] == file_hash(folder / ONNX_FILE)
    assert picked.verified.summary.p90_ms is not None
    assert deploy["latency"]["p90_ms"] == picked.verified.summary.p90_ms


def test_a_bundle_whose_latency_is_estimated_has_no_p90(tmp_path: Path):
    summary = LatencySummary.without_samples(2.0, 1.5, 3.0)

    class Estimating(CountingProbe):
        def measure(self, models, stop=never):
            found = super().measure(models, stop)
            return [replace(one, kind="estimated", summary=summary, samples_ms=()) for one in found]

    _, folder = picked_and_bundled(tmp_path, Estimating())
    deploy = tomllib.loads((folder / "deploy.toml").read_text())
    assert (deploy["latency"]["kind"], deploy["latency"]["median_ms"]) == ("estimated", 2.0)
    assert "p90_ms" not in deploy["latency"]
    assert "p90" not in (folder / "MODEL_CARD.md").read_text()
