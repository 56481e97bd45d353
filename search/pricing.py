"""Pricing a candidate before it is trained: its deployed network with random indices, exported and measured.

The same operators run as in the trained network, so the latency is the same; only the indices and weights differ.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from space.config import CondenseNetConfig
from space.deployed import DeployedCondenseNet
from workers.export import save_onnx
from workers.files import disk_errors
from workers.latency.policy import MeasurementPolicy
from workers.latency.probes import FailedMeasurement, HostProbe, LatencyProbe, Measurement

# Runs of this fixed network before and after each batch show whether the machine kept still. Never change it: its
# figures are compared over years.
ANCHOR = CondenseNetConfig(stages=(2, 2, 2), growth=(8, 16, 32), input_shape=(3, 32, 32))

Price = Measurement | FailedMeasurement


def host_probe(policy: MeasurementPolicy, core: int | None, files: Path) -> HostProbe:
    """Return a probe of this host, its anchor network written under `files`."""
    anchor = files / ".anchor.onnx"
    save_onnx(DeployedCondenseNet.random(ANCHOR), anchor)
    return HostProbe(policy, anchor, core)


def price(configs: Sequence[CondenseNetConfig], probe: LatencyProbe, files: Path) -> list[Price]:
    """Measure the configs in one batch, in the order given; equal configs are measured once."""
    distinct = list(dict.fromkeys(configs))
    with disk_errors(files):
        files.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix="pricing-", dir=files)
    with folder as name:
        paths = []
        for config in distinct:
            path = Path(name) / f"{config.digest[:16]}.onnx"
            save_onnx(DeployedCondenseNet.random(config), path)
            paths.append(path)
        prices = dict(zip(distinct, probe.measure(paths), strict=True))
    return [prices[config] for config in configs]
