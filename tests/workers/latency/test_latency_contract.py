"""The contract every latency probe keeps, and the small models to hold it to (imported by the probes' tests)."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from workers.latency import FailedMeasurement, LatencyProbe, Measurement, MeasurementPolicy, MeasurementStopped

TINY = MeasurementPolicy(
    label="quick",
    warmup_runs=1,
    warmup_s=0.0,
    runs=5,
    run_s=0.0,
    processes=2,
    attempts=1,
    cooldown_s=0.0,
    anchor_tolerance=10.0,  # five runs on a shared machine prove nothing about the anchor
    timeout_s=60.0,
)


def write_network(path: Path, channels: int = 4, batch: int | str = 1, kind: int = TensorProto.FLOAT) -> Path:
    """Write a 3x3 convolution with ReLU on (batch, 3, 8, 8) as an ONNX file; equal arguments give equal bytes."""
    weight = np.random.default_rng(channels).standard_normal((channels, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "weight"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["features"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", kind, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, channels, 8, 8])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def write_corrupt(path: Path) -> Path:
    """Write a file that no runtime takes for a model."""
    path.write_bytes(b"this is not a network")
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def children() -> set[str]:
    """Return the numbers of the processes this one has started and not yet seen the end of."""
    return {pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()}


class LatencyProbeContract:
    """Every probe passes these; a subclass supplies the `probe` fixture (it refuses what `write_corrupt` writes)."""

    @pytest.fixture
    def networks(self, tmp_path: Path) -> list[Path]:
        return [write_network(tmp_path / f"{channels}.onnx", channels) for channels in (8, 4, 6)]

    def test_results_come_in_the_order_of_the_models_with_their_hashes(self, probe: LatencyProbe, networks: list[Path]):
        results = probe.measure(networks)
        assert [result.model_hash for result in results] == [sha256(path) for path in networks]
        assert all(isinstance(result, Measurement) for result in results)

    def test_a_measurement_names_its_key_and_summarises_its_own_samples(
        self, probe: LatencyProbe, networks: list[Path]
    ):
        (result,) = probe.measure(networks[:1])
        assert isinstance(result, Measurement)
        assert result.device == probe.device
        assert (result.kind, result.precision, result.policy) == ("measured", "fp32", "quick")
        assert result.runtime
        assert result.runtime_version
        assert result.cpu_model
        assert result.threads == 1
        assert len(result.samples_ms) > 1
        medians = [np.median(samples) for samples in result.samples_ms]
        assert result.median_ms == pytest.approx(np.exp(np.mean(np.log(medians))))
        assert result.interval_low_ms <= result.median_ms <= result.interval_high_ms
        assert json.loads(json.dumps(result.conditions, allow_nan=False)) == result.conditions

    def test_a_refused_model_is_reported_and_the_rest_is_measured(
        self, probe: LatencyProbe, networks: list[Path], tmp_path: Path
    ):
        corrupt = write_corrupt(tmp_path / "corrupt.onnx")
        first, refused, last = probe.measure([networks[0], corrupt, networks[1]])
        assert isinstance(refused, FailedMeasurement)
        assert refused.model_hash == sha256(corrupt)
        assert refused.reason
        assert "\n" not in refused.reason
        assert isinstance(first, Measurement)
        assert isinstance(last, Measurement)
        assert (first.model_hash, last.model_hash) == (sha256(networks[0]), sha256(networks[1]))

    def test_a_missing_file_is_reported_without_a_hash(self, probe: LatencyProbe, networks, tmp_path: Path):
        missing, measured = probe.measure([tmp_path / "missing.onnx", networks[0]])
        assert isinstance(missing, FailedMeasurement)
        assert missing.model_hash == ""
        assert "missing.onnx" in missing.reason
        assert isinstance(measured, Measurement)

    def test_the_same_model_twice_in_a_batch_gives_two_results(self, probe: LatencyProbe, networks: list[Path]):
        results = probe.measure([networks[0], networks[1], networks[0]])
        assert [result.model_hash for result in results] == [sha256(networks[i]) for i in (0, 1, 0)]
        assert all(isinstance(result, Measurement) for result in results)

    @pytest.mark.parametrize("after", [0, 1])
    def test_a_stopped_probe_raises_and_leaves_no_process_behind(
        self, probe: LatencyProbe, networks: list[Path], after: int
    ):
        before = children()
        asked = itertools.count()
        with pytest.raises(MeasurementStopped):
            probe.measure(networks, stop=lambda: next(asked) >= after)
        assert children() <= before

    def test_an_empty_batch_gives_no_results(self, probe: LatencyProbe):
        assert probe.measure([]) == []


def test_the_small_network_is_a_valid_onnx_model(tmp_path: Path):
    onnx.checker.check_model(onnx.load(write_network(tmp_path / "network.onnx")))
