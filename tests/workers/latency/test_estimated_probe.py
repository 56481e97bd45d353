"""The probe that estimates: counts priced by a profile, and what it says about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from space.errors import MeasurementFailed
from tests.workers.arm_device import arm_device, write_condensenet
from tests.workers.latency.test_latency_contract import sha256, write_corrupt
from workers.latency import FailedMeasurement, Measurement, MeasurementStopped
from workers.latency.agent.files import sha256_of
from workers.latency.emulated.virtual_arm import Counts, VirtualArm
from workers.latency.estimated_probe import EstimatedProbe, estimate, estimated_measurement
from workers.latency.profiles import Profile, load_profile

HEADER = {
    "format": 2,
    "mode": "counts",
    "runtime": "onnxruntime",
    "runtime_version": "1.31.1",
    "machine": "aarch64",
    "python_version": "3.11.2",
    "threads": 1,
}
# One of the networks the profile was fitted on: NAS-Bench-201's 6622 in workers/latency/profiles/raspberry-pi-5.csv.
RUN = {
    "branch": 2_400_509,
    "load": 391_003,
    "store": 186_657,
    "vload": 3_779_246,
    "vstore": 1_048_273,
    "vfma": 14_863_001,
    "simd_fp": 728_503,
    "int": 5_158_791,
}
COUNTED = {"all": sum(RUN.values()), **RUN}
MEASURED_MS = 5.43503


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_profile("raspberry-pi-5")


def entry(**changes: Any) -> dict[str, Any]:
    return {"path": "a.onnx", "sha256": "ab" * 32, "counts": [COUNTED] * 3, **changes}


# ---- from a report to an estimate ------------------------------------------------------------------------


def test_an_estimate_carries_the_profile_s_numbers_and_no_samples(profile):
    result = estimated_measurement(HEADER, entry(), profile, "pi")
    assert isinstance(result, Measurement)
    expected = profile.estimate(COUNTED)
    assert (result.kind, result.policy, result.device, result.threads) == ("estimated", "counts", "pi", 1)
    assert (result.model_hash, result.runtime, result.runtime_version) == ("ab" * 32, "onnxruntime", "1.31.1")
    assert result.cpu_model == profile.title
    assert result.samples_ms == ()
    assert result.median_ms == expected.latency_ms == pytest.approx(MEASURED_MS, rel=0.03)
    assert result.interval_low_ms == expected.interval_low_ms < expected.latency_ms
    assert result.interval_high_ms == expected.interval_high_ms > expected.latency_ms
    assert result.p90_ms is None
    assert result.steady
    assert result.anchor_drift == 0.0


def test_the_conditions_say_what_the_estimate_comes_from_and_are_json(profile):
    result = estimated_measurement(HEADER, entry(), profile, "pi")
    assert isinstance(result, Measurement)
    assert result.conditions["counts"] == COUNTED
    assert result.conditions["profile"] == "raspberry-pi-5"
    assert set(result.conditions["by_fit"]) == {"classes", "two"}
    assert result.conditions["machine"] == "aarch64"
    assert json.loads(json.dumps(result.conditions, allow_nan=False)) == result.conditions


def test_a_network_unlike_the_calibrated_ones_is_marked_and_says_why(profile):
    inside = estimated_measurement(HEADER, entry(), profile, "pi")
    branches = {**COUNTED, "branch": COUNTED["all"] * 9, "all": COUNTED["all"] * 10 - COUNTED["branch"]}
    outside = estimated_measurement(HEADER, entry(counts=[branches]), profile, "pi")
    assert isinstance(inside, Measurement)
    assert isinstance(outside, Measurement)
    assert (inside.extrapolates, inside.conditions["why"]) == (False, "")
    assert outside.extrapolates
    assert "branch" in outside.conditions["why"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"error": "no counts: start it under the counting emulator"}, "no counts"),
        ({"counts": []}, "whole counts"),
        ({"counts": [{**COUNTED, "all": 1}]}, "add up"),
    ],
)
def test_what_can_not_be_priced_is_a_failure_in_one_line(profile, changes, words):
    result = estimated_measurement(HEADER, entry(**changes), profile, "pi")
    assert isinstance(result, FailedMeasurement)
    assert result.model_hash == "ab" * 32
    assert words in result.reason
    assert "\n" not in result.reason


# ---- the probe -------------------------------------------------------------------------------------------


class CountingArm(VirtualArm):
    """Gives every file the same counts and writes down what it was asked for (no emulator: that one is run below)."""

    facts = {"qemu": "7.2.22"}  # noqa: RUF012 - read only

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def count(self, models, runs=5, runtime="onnxruntime", stop=None):
        self.asked.append([path.name for path in models])
        return [self._one(path, runtime) for path in models]

    def _one(self, path: Path, runtime: str) -> Counts | FailedMeasurement:
        if path.name == "refused.onnx":
            return FailedMeasurement(sha256(path), "refused")
        return Counts(sha256(path), runtime, "1.0", {name: float(n) for name, n in COUNTED.items()}, (COUNTED,))


class BrokenArm(CountingArm):
    def count(self, models, runs=5, runtime="onnxruntime", stop=None):
        raise MeasurementFailed("the emulator doesn't start.")


def write(folder: Path, *names: str) -> list[Path]:
    paths = [folder / f"{name}.onnx" for name in names]
    for path in paths:
        path.write_text(path.stem)
    return paths


def test_a_network_is_counted_once_however_often_it_is_asked_for(profile, tmp_path):
    arm = CountingArm()
    probe = EstimatedProbe(profile, arm)
    one, other = write(tmp_path, "one", "other")
    first = probe.measure([one, one, other])
    again = probe.measure([other, one])
    assert arm.asked == [["one.onnx", "other.onnx"]]
    assert [result.model_hash for result in first] == [sha256(one), sha256(one), sha256(other)]
    assert again == [first[2], first[0]]


def test_a_failure_is_not_remembered(profile, tmp_path):
    arm = CountingArm()
    probe = EstimatedProbe(profile, arm)
    (refused,) = write(tmp_path, "refused")
    for _ in range(2):
        (result,) = probe.measure([refused])
        assert result == FailedMeasurement(sha256(refused), "refused")
    assert len(arm.asked) == 2


def test_an_emulator_that_does_not_start_fails_every_model_and_raises_nothing(profile, tmp_path):
    models = write(tmp_path, "one", "other")
    results = EstimatedProbe(profile, BrokenArm()).measure(models)
    assert [result.model_hash for result in results] == [sha256(path) for path in models]
    assert all(isinstance(result, FailedMeasurement) for result in results)


def test_a_missing_file_is_named_and_never_counted(profile, tmp_path):
    arm = CountingArm()
    (result,) = EstimatedProbe(profile, arm).measure([tmp_path / "missing.onnx"])
    assert isinstance(result, FailedMeasurement)
    assert result.model_hash == ""
    assert "missing.onnx" in result.reason
    assert arm.asked == []


def test_the_label_is_the_profile_s_unless_another_is_given(profile):
    assert EstimatedProbe(profile, CountingArm()).device == "virtual:raspberry-pi-5"
    assert EstimatedProbe(profile, CountingArm(), device="pi").device == "pi"


def test_counts_of_another_runtime_are_priced_with_a_wider_interval_and_marked(profile, tmp_path):
    models = write(tmp_path, "one")
    (known,) = EstimatedProbe(profile, CountingArm()).measure(models)
    probe = EstimatedProbe(profile, CountingArm(), runtime="ncnn")
    (other,) = probe.measure(models)
    assert isinstance(known, Measurement)
    assert isinstance(other, Measurement)
    assert (probe.runtime, other.runtime, other.median_ms) == ("ncnn", "ncnn", known.median_ms)
    assert other.interval_low_ms < known.interval_low_ms
    assert other.interval_high_ms > known.interval_high_ms
    assert (known.extrapolates, other.extrapolates) == (False, True)
    assert "calibrated on onnxruntime, this is ncnn" in other.conditions["why"]


def test_a_stop_that_is_true_already_starts_nothing(profile, tmp_path):
    arm = CountingArm()
    with pytest.raises(MeasurementStopped):
        EstimatedProbe(profile, arm).measure(write(tmp_path, "one"), stop=lambda: True)
    assert arm.asked == []


def test_a_failure_to_count_stays_one(profile):
    failure = FailedMeasurement("ab", "no")
    assert estimate(failure, profile, "pi") is failure


@pytest.mark.slow
def test_networks_are_estimated_on_the_arm_device_in_software(profile, tmp_path):
    arm = arm_device()
    models = [
        write_condensenet(tmp_path / "small.onnx", layers=1),
        write_corrupt(tmp_path / "corrupt.onnx"),
        tmp_path / "missing.onnx",
        write_condensenet(tmp_path / "deep.onnx", layers=3),
    ]
    small, corrupt, missing, deep = EstimatedProbe(profile, arm).measure(models)
    assert isinstance(corrupt, FailedMeasurement)
    assert (corrupt.model_hash, missing.model_hash) == (sha256(models[1]), "")
    assert isinstance(small, Measurement)
    assert isinstance(deep, Measurement)
    assert 0 < small.median_ms < deep.median_ms
    assert deep.conditions["qemu"] == arm.facts["qemu"]
    assert deep.conditions["counted_runs"] == 3
    assert deep.runtime_version == arm.facts["onnxruntime"]
    assert deep.model_hash == sha256_of(models[3])
