"""ncnn's model is the deployed network, in one file of fixed form."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet
from space.errors import ExportMismatch
from tests.workers.export.test_export import BASE, trained_like, varied
from workers.export.ncnn import check_ncnn, save_ncnn, to_ncnn
from workers.latency.agent.runtimes import Ncnn

pytest.importorskip("ncnn")

CONFIGS = [
    BASE,
    varied(groups=2, condense_factor=8),
    varied(groups=8, condense_factor=2),
    varied(groups=1, condense_factor=4),
    varied(condense_factor=1),
    varied(classifier_keep=0.5),
    varied(groups_3x3=1),
    varied(groups_3x3=8),
    varied(growth=(4, 4), bottleneck=1, groups_3x3=4),  # groups of one channel: ncnn's depthwise convolution
    varied(input_shape=(3, 97, 101)),  # stride 2, odd sizes
    varied(input_shape=(1, 7, 13), stages=(1, 1, 1), growth=(8, 8, 8)),
]


def files_of(model: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def kinds(model: bytes) -> Counter[str]:
    """How many layers of each kind the .param text has."""
    return Counter(line.split()[0] for line in files_of(model)["model.param"].decode().splitlines()[2:])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_every_export_equals_the_network(tmp_path: Path, config: CondenseNetConfig):
    network = trained_like(config)
    save_ncnn(network, tmp_path / "model.zip")
    assert 0.0 <= check_ncnn(tmp_path / "model.zip", network) <= 1e-5


def test_a_layer_has_one_gather_and_ncnns_own_shuffle():
    config = varied(stages=(3, 2))
    found = kinds(to_ncnn(trained_like(config)))
    layers = 5
    assert found["ChannelGather"] == found["ShuffleChannel"] == found["Split"] == found["Concat"] == layers
    assert found["BatchNorm"] == found["ReLU"] == layers + 1  # the other norms and activations are in the convolutions
    assert found["ConvolutionDepthWise"] == 2 * layers
    assert (found["Convolution"], found["InnerProduct"], found["Pooling"]) == (1, 1, 2)


def test_half_a_classifier_gathers_its_features_before_the_last_norm():
    lines = files_of(to_ncnn(trained_like(varied(classifier_keep=0.5))))["model.param"].decode().splitlines()
    assert [line.split()[0] for line in lines[-5:]] == ["ChannelGather", "BatchNorm", "ReLU", "Pooling", "InnerProduct"]


def test_a_network_that_gathers_nothing_needs_no_layer_of_its_own():
    network = trained_like(varied(groups=1, condense_factor=1))
    assert kinds(to_ncnn(network)).keys() & {"ChannelGather", "ShuffleChannel"} == set()
    assert json.loads(files_of(to_ncnn(network))["model.json"])["layers"] == []


def test_the_text_counts_its_layers_and_blobs_and_every_input_was_made_before():
    text = files_of(to_ncnn(trained_like(BASE)))["model.param"].decode()
    magic, counts, *lines = text.splitlines()
    made: list[str] = []
    for line in lines:
        _, _, inputs, outputs, *rest = line.split()
        assert set(rest[: int(inputs)]) <= set(made)
        made += rest[int(inputs) : int(inputs) + int(outputs)]
    assert magic == "7767517"
    assert counts.split() == [str(len(lines)), str(len(made))]
    assert len(set(made)) == len(made)


def test_equal_networks_give_equal_files(tmp_path: Path):
    first = save_ncnn(trained_like(BASE), tmp_path / "a.zip")
    assert save_ncnn(trained_like(BASE), tmp_path / "b.zip") == first
    assert save_ncnn(trained_like(BASE, seed=1), tmp_path / "c.zip") != first


def test_the_file_is_an_uncompressed_zip_that_says_which_config_it_is():
    model = to_ncnn(trained_like(BASE))
    with zipfile.ZipFile(io.BytesIO(model)) as archive:
        assert [entry.filename for entry in archive.infolist()] == ["model.param", "model.bin", "model.json"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
    facts = json.loads(files_of(model)["model.json"])
    assert CondenseNetConfig.from_dict(facts["config"]) == BASE
    assert (facts["input"], facts["output"]) == ("images", "logits")
    assert (facts["shape"], facts["layers"]) == ([3, 16, 16], ["ChannelGather"])


def test_a_network_priced_before_training_has_the_layers_of_the_trained_one():
    random, trained = (to_ncnn(network) for network in (DeployedCondenseNet.random(BASE), trained_like(BASE)))
    assert files_of(random)["model.param"] == files_of(trained)["model.param"]
    assert len(random) == len(trained)


def test_many_models_can_be_loaded_in_one_process_and_several_at_once():
    models = [to_ncnn(trained_like(BASE, seed)) for seed in range(2)]
    image = np.ones((3, 16, 16), np.float32)
    runtime = Ncnn()
    both = [runtime.open(model, threads=1) for model in models]
    expected = [run(image) for run in both]
    for _ in range(12):  # ncnn's binding takes ten registrations of a layer
        np.testing.assert_array_equal(Ncnn().open(models[1], threads=1)(image), expected[1])
    np.testing.assert_array_equal(both[0](image), expected[0])
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def with_few_weights(path: Path) -> None:
    rewrite(path, "model.bin", lambda content: content[: len(content) // 2])


def with_no_weights(path: Path) -> None:
    rewrite(path, "model.bin", lambda content: b"")


def with_an_index_out_of_range(path: Path) -> None:
    def changed(content: bytes) -> bytes:
        words = np.frombuffer(content, "<i4").copy()
        words[1 + 27 * 16] = 1_000_000  # the first index, behind the stem's flag and weights
        return words.tobytes()

    rewrite(path, "model.bin", changed)


def without_a_layer(path: Path) -> None:
    rewrite(path, "model.param", lambda content: b"\n".join(content.split(b"\n")[:-3]) + b"\n")


def rewrite(path: Path, name: str, change) -> None:
    files = files_of(path.read_bytes())
    with zipfile.ZipFile(path, "w") as archive:
        for other, content in files.items():
            archive.writestr(other, change(content) if other == name else content)


DAMAGES = [with_few_weights, with_no_weights, with_an_index_out_of_range, without_a_layer]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_mismatch_that_names_it_in_one_line(tmp_path: Path, damage):
    network = trained_like(BASE)
    path = tmp_path / "model.zip"
    save_ncnn(network, path)
    damage(path)
    with pytest.raises(ExportMismatch, match=r"model\.zip") as caught:
        check_ncnn(path, network)
    assert "\n" not in str(caught.value)
