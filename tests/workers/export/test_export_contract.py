"""What every runtime's file promises: it is the network, equal networks give equal files, and no other file passes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import torch

from space.errors import ExportMismatch
from tests.workers.export.test_export import BASE, trained_like
from workers.export.model_files import check_for, save_for
from workers.file_names import Runtime, file_for
from workers.latency.agent.runtimes.kernels import compiler

MISSING = {
    "onnxruntime": False,
    "ncnn": find_spec("ncnn") is None,
    "litert": find_spec("ai_edge_litert") is None,
    "native": compiler() is None,
}


@pytest.fixture(params=get_args(Runtime))
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if MISSING[request.param]:
        pytest.skip(f"needs what {request.param} runs with")
    return request.param


@pytest.fixture
def path(runtime: Runtime, tmp_path: Path) -> Path:
    return tmp_path / file_for(runtime, "model")


def test_equal_networks_give_equal_files(runtime: Runtime, path: Path):
    first = save_for(runtime, trained_like(BASE), path)
    content = path.read_bytes()
    assert save_for(runtime, trained_like(BASE), path) == first
    assert path.read_bytes() == content
    assert save_for(runtime, trained_like(BASE, seed=1), path) != first


def test_the_check_returns_the_difference(runtime: Runtime, path: Path):
    network = trained_like(BASE)
    save_for(runtime, network, path)
    assert 0.0 <= check_for(runtime, path, network) <= 1e-5


def test_a_file_with_one_changed_weight_is_a_mismatch_that_gives_the_size(runtime: Runtime, path: Path):
    network, other = trained_like(BASE), trained_like(BASE)
    with torch.no_grad():
        other.stem.weight[0, 0, 0, 0] += 0.05
    save_for(runtime, other, path)
    with pytest.raises(ExportMismatch, match=r"off by \d\.\d\de-0\d"):
        check_for(runtime, path, network)


def test_a_network_that_answers_nan_never_passes(runtime: Runtime, path: Path):
    network = trained_like(BASE)
    with torch.no_grad():
        network.classifier.bias[0] = float("nan")
    save_for(runtime, network, path)
    with pytest.raises(ExportMismatch, match="off by nan"):
        check_for(runtime, path, network)


@pytest.mark.parametrize("content", [b"", b"this is not a network", None], ids=["empty", "garbage", "removed"])
def test_what_is_no_model_is_a_mismatch_that_names_it_in_one_line(runtime: Runtime, path: Path, content: bytes | None):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportMismatch, match=path.name.replace(".", r"\.")) as caught:
        check_for(runtime, path, trained_like(BASE))
    assert "\n" not in str(caught.value)
