"""How long `condensery --help` and the pure parts take.

    python -m benchmarks.startup

Goals: `condensery --help` answers in under half a second (peer: `optuna --help`, of the same environment);
at least 2,000 valid samples of a search space a second; `cost_of` under 1 ms for ImageNet-74 (peer: fvcore's count of
the same network).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.record import in_turn, ratios, save
from space.cost import cost_of
from space.deployed import DeployedCondenseNet
from space.operator_count import fvcore_cost
from space.presets import PUBLISHED
from space.search_space import SearchSpace


def main() -> None:
    bin_folder = Path(sys.executable).parent
    commands = {"condensery": [bin_folder / "condensery", "--help"], "optuna": [bin_folder / "optuna", "--help"]}
    actions = {
        name: (lambda command=command: subprocess.run(command, check=True, capture_output=True))
        for name, command in commands.items()
    }
    seconds = in_turn(actions, rounds=7)
    help_s = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"condensery --help: {help_s['condensery']:.3f} s (goal 0.5); optuna --help: {help_s['optuna']:.3f} s")
    rates = {}
    for preset in ("digits", "cifar", "imagenet-mobile"):
        space, rng = SearchSpace.preset(preset), np.random.default_rng(0)
        begin = time.perf_counter()
        for _ in range(3000):
            space.sample(rng)
        rates[preset] = 3000 / (time.perf_counter() - begin)
        print(f"samples of {preset}: {rates[preset]:,.0f} a second (goal 2,000)")
    config = PUBLISHED["imagenet-74-g4"].config
    network = DeployedCondenseNet.random(config)

    def closed_form() -> None:
        for _ in range(100):
            cost_of(config)

    costs = in_turn({"cost_of_x100": closed_form, "fvcore": lambda: fvcore_cost(network, config.input_shape)}, rounds=5)
    cost_ms = statistics.median(costs["cost_of_x100"]) / 100 * 1e3
    fvcore_ms = statistics.median(costs["fvcore"]) * 1e3
    print(f"cost_of(ImageNet-74): {cost_ms:.3f} ms (goal 1); fvcore counting the module: {fvcore_ms:.0f} ms")
    result = {"help_s": help_s, "help_ratio": ratios(seconds, "condensery", "optuna"), "samples_per_s": rates}
    save("startup", result | {"cost_of_ms": cost_ms, "fvcore_ms": fvcore_ms})


if __name__ == "__main__":
    main()
