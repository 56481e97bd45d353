"""The paper's ARM table: what is built, how it is counted, and what the table says of figures it is given."""

from __future__ import annotations

import json
from importlib.metadata import version

import onnx
import pytest
import torch
from torch import nn

from benchmarks.paper_arm_table.mobilenet_v1 import MobileNetV1
from benchmarks.paper_arm_table.networks import NETWORKS, PAPER, PaperRow, check_model, macs_of, save_model, settled
from benchmarks.paper_arm_table.table import (
    REFERENCE,
    Counted,
    Devices,
    Row,
    Timed,
    known_counts,
    rank_correlations,
    ratios,
    result_of,
    row_of,
    table,
)
from space.deployed import DeployedCondenseNet
from space.errors import ExportMismatch
from space.operator_count import fvcore_cost
from space.presets import PUBLISHED
from workers.latency.measurement import FailedMeasurement
from workers.latency.profiles import CLASSES, Estimate, Profile, load_profile

SMALL = (3, 32, 32)


def on_meta(name: str) -> nn.Module:
    """A network of the table without weights: shapes are enough to count."""
    with torch.device("meta"):
        return NETWORKS[name].build()


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [
        ("vgg-16", 15_470_264_320, 138_357_544),
        ("resnet-18", 1_814_073_344, 11_689_512),
        ("mobilenet-v1", 568_740_352, 4_231_976),
        ("mobilenet-v2", 300_774_272, 3_504_872),
        ("mobilenet-v3-large", 216_589_760, 5_483_032),
        ("mobilenet-v3-small", 56_510_400, 2_542_856),
    ],
)
def test_the_networks_are_those_that_were_published(name, macs, params):
    network = on_meta(name)
    assert macs_of(network) == macs
    assert sum(parameter.numel() for parameter in network.parameters()) == params


@pytest.mark.parametrize("groups", [4, 8])
def test_a_condensenet_is_counted_as_fvcore_counts_it(groups):
    network = NETWORKS[f"condensenet-74-g{groups}"].build()
    config = PUBLISHED[f"imagenet-74-g{groups}"].config
    assert macs_of(network) == fvcore_cost(network, config.input_shape).macs


def test_the_papers_figures_agree_with_the_networks_built_here():
    for name in ("vgg-16", "resnet-18", "mobilenet-v1"):
        assert macs_of(on_meta(name)) / 1e6 == pytest.approx(PAPER[name].macs_millions, rel=0.012)
    for groups in (4, 8):
        published, printed = PUBLISHED[f"imagenet-74-g{groups}"], PAPER[f"condensenet-74-g{groups}"]
        assert (f"{printed.macs_millions}M", printed.top1_error_pct) == (published.flops, published.top1_error_pct)


def test_mobilenet_v1_halves_the_image_five_times_and_ends_with_1024_features():
    network = settled(MobileNetV1, (3, 64, 64))
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 27  # the stem, and two in each of 13 blocks
    assert sum(conv.groups == conv.in_channels for conv in convolutions) == 13
    features = network.features[:-2](torch.zeros(1, 3, 64, 64))
    assert features.shape == (1, 1024, 2, 2)


@pytest.mark.parametrize("name", ["mobilenet-v1", "mobilenet-v3-small"])
def test_an_exported_network_has_no_batch_norm_left_and_equals_the_network(tmp_path, name):
    network, path = settled(NETWORKS[name].build, SMALL), tmp_path / "model.onnx"
    save_model(network, path, SMALL)
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
    assert check_model(network, path, SMALL) <= 1e-4


def test_the_same_network_is_the_same_file_each_time(tmp_path):
    for name in ("one", "two"):
        save_model(settled(MobileNetV1, SMALL), tmp_path / name, SMALL)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_export_of_another_network_is_refused(tmp_path):
    network, path = settled(MobileNetV1, SMALL), tmp_path / "model.onnx"
    save_model(network, path, SMALL)
    with torch.no_grad():
        network.classifier.weight[0] *= 2
    with pytest.raises(ExportMismatch, match="is off by"):
        check_model(network, path, SMALL)


def test_a_network_whose_signal_died_is_refused_because_nothing_is_compared(tmp_path):
    path = tmp_path / "model.onnx"
    network = MobileNetV1().eval()  # initial statistics: the logits are the classifier's bias
    save_model(network, path, SMALL)
    with pytest.raises(ExportMismatch, match="must depend on the image"):
        check_model(network, path, SMALL)


def test_settling_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    settled(MobileNetV1, SMALL)
    assert torch.equal(torch.get_rng_state(), before)


def a_row(name: str, macs: int, estimated_ms: float | None, seconds: float | None, extrapolates: bool = False) -> Row:
    counted = None if estimated_ms is None else Counted({"all": 2.0 * macs}, 3, "onnxruntime", "1.2.3")
    why = "it is large" if extrapolates else ""
    low_high = (0.0, 0.0) if estimated_ms is None else (estimated_ms / 2, estimated_ms * 2)
    estimated = None if estimated_ms is None else Estimate(estimated_ms, *low_high, extrapolates, why, {})
    paper = None if seconds is None else PaperRow(macs // 10**6, 20.0, seconds)
    missing = {} if estimated_ms is not None else {"counted": "the process died", "estimated": "no counts"}
    return Row(name, NETWORKS[name].title, macs, 10**6, "ab" * 32, 4.0, 1e-6, paper, counted, estimated, None, missing)


ROWS = [
    a_row(REFERENCE, 100_000_000, 20.0, 1.0),
    a_row("mobilenet-v1", 200_000_000, 30.0, 2.0),
    a_row("resnet-18", 400_000_000, 25.0, 8.0),
    a_row("mobilenet-v2", 300_000_000, 50.0, None, extrapolates=True),
    a_row("vgg-16", 900_000_000, None, 99.0),
]


def test_ratios_are_to_the_small_condensenet_and_only_where_both_are_known():
    found = ratios(ROWS)
    assert found[REFERENCE] == {"macs": 1.0, "instructions": 1.0, "estimated": 1.0, "paper": 1.0}
    assert found["mobilenet-v1"] == {"macs": 2.0, "instructions": 2.0, "estimated": 1.5, "paper": 2.0}
    assert found["mobilenet-v2"] == {"macs": 3.0, "instructions": 3.0, "estimated": 2.5}
    assert found["vgg-16"] == {"macs": 9.0, "paper": 99.0}
    assert ratios(ROWS[1:]) == {}


def test_rank_correlations_are_over_the_papers_networks_that_have_the_figure():
    assert rank_correlations(ROWS) == pytest.approx({"macs": 1.0, "instructions": 1.0, "estimated": 0.5})
    assert rank_correlations(ROWS[:2]) == {}


def test_the_table_marks_an_extrapolated_estimate_and_says_why_a_figure_is_missing():
    lines = table(ROWS)
    by_title = {line.split("  ")[0]: line for line in lines}
    assert "50.0 [25.0–100.0]*" in by_title["MobileNet v2"]
    assert "30.0 [15.0–60.0] " in by_title["MobileNet v1"]
    assert "200 (3)" not in by_title["VGG-16"]
    assert "  MobileNet v2: it is large" in lines
    assert "  VGG-16, no counted: the process died" in lines
    assert len({len(line) for line in lines[: len(ROWS) + 1]}) == 1


def test_a_host_that_did_not_keep_still_is_marked():
    row = Row(REFERENCE, "one", 10**8, 10**6, "", 1.0, 0.0, None, host=Timed(7.0, 6.0, 9.0, "standard", steady=False))
    assert "7.0 [6.0–9.0]?" in table([row])[1]


def test_counts_are_known_from_a_saved_result_by_file_and_runtime_version(tmp_path):
    path = tmp_path / "result.json"
    assert known_counts(path) == {}
    path.write_text(json.dumps({"result": result_of(ROWS[:1] + ROWS[-1:])}))  # one with counts and one without
    assert known_counts(path) == {("ab" * 32, "1.2.3"): ROWS[0].counted}


class FixedCounter:
    """Knows the counts of every model, and how often it was asked."""

    def __init__(self, result: FailedMeasurement) -> None:
        self.result, self.asked = result, []

    def count(self, models, runs=5):
        self.asked.append((models, runs))
        return [self.result]


def profile() -> Profile:
    return load_profile("raspberry-pi-5")


def test_a_model_counted_before_is_not_counted_again_and_no_file_is_left(tmp_path):
    counter = FixedCounter(FailedMeasurement("", "the emulator died"))
    first = row_of("mobilenet-v3-small", tmp_path, Devices(lambda: counter, profile(), None, 4, {}))
    assert first.counted is None
    assert first.missing["counted"] == "the emulator died"
    known = Counted(dict.fromkeys(CLASSES, 1e7) | {"all": 8e7}, 4, "onnxruntime", version("onnxruntime"))
    devices = Devices(lambda: counter, profile(), None, 4, {(first.model_sha256, known.runtime_version): known})
    row = row_of("mobilenet-v3-small", tmp_path, devices)
    assert (row.counted, row.estimated) == (known, profile().estimate(known.instructions))
    assert [runs for _, runs in counter.asked] == [4]
    assert list(tmp_path.iterdir()) == []


def test_the_last_layer_of_a_condensenet_reads_half_of_the_features_as_in_the_papers_table():
    network = NETWORKS["condensenet-74-g8"].build()
    assert isinstance(network, DeployedCondenseNet)
    assert len(network.classifier_index) == network.config.num_features // 2
