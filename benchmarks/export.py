"""Exporting a CondenseNet-86 to ONNX: Condensery's writer beside torch's two exporters, in one run.

    python -m benchmarks.export [--rounds N]

Goals: at least 20 times faster than `torch.onnx.export(dynamo=True)` and 3 times faster than `dynamo=False`. All three
start from the same deployed network and end with a file. torch's dynamo exporter needs the `onnxscript` package; its
row says so when it is not there. Also printed: the largest difference to torch, and the nodes that each graph has.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import warnings
from pathlib import Path

import onnx
import torch

from benchmarks.record import in_turn, ratios, save
from space.deployed import DeployedCondenseNet
from space.presets import PUBLISHED
from workers.export.onnx import check_onnx, save_onnx


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    network = DeployedCondenseNet.random(PUBLISHED["condensenet-86"].config)
    image = torch.randn(1, *network.config.input_shape)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("condensery", "torch_script", "torch_dynamo")}

        def with_torch(name: str, dynamo: bool) -> None:
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                torch.onnx.export(network, (image,), str(files[name]), dynamo=dynamo)

        actions = {
            "condensery": lambda: save_onnx(network, files["condensery"]),
            "torch_script": lambda: with_torch("torch_script", False),
            "torch_dynamo": lambda: with_torch("torch_dynamo", True),
        }
        seconds = in_turn(actions, rounds)
        nodes = {name: len(onnx.load(path).graph.node) for name, path in files.items()}
        difference = check_onnx(files["condensery"], network)
    print(f"CondenseNet-86, {rounds} rounds in turn")
    for name, values in seconds.items():
        print(f"  {name:13} median {statistics.median(values) * 1e3:9.1f} ms   {nodes[name]} nodes")
    faster = {peer: ratios(seconds, "condensery", peer) for peer in ("torch_dynamo", "torch_script")}
    for peer, goal in (("torch_dynamo", 20), ("torch_script", 3)):
        ratio = faster[peer]
        spread = f"{ratio['min']:.1f} to {ratio['max']:.1f}"
        print(f"  {peer} / condensery: median {ratio['median']:.1f} ({spread}), goal {goal}")
    print(f"  largest difference to torch: {difference:.1e} of the largest output")
    save("export", {"seconds": seconds, "ratios": faster, "nodes": nodes, "difference": difference})


if __name__ == "__main__":
    main()
