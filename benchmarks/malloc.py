"""glibc's memory settings for training on a CPU: seconds a step, page faults, peak memory; fresh processes in turn.

    python -m benchmarks.malloc [--rounds N]

Large tensors that are freed and mapped again at every step cost page faults. docs/experiments.md says what was decided.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

from benchmarks.record import save

VARIANTS: dict[str, dict[str, str]] = {
    "default": {},
    "no_trim": {"MALLOC_TRIM_THRESHOLD_": "4294967296"},
    "no_mmap": {"MALLOC_MMAP_MAX_": "0"},
    "no_mmap_no_trim": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "4294967296"},
}

STEPS = """
import json, resource, sys, torch
torch.set_num_threads(1)
from search.time_estimate import time_step
from search.study_file import settings_from
from space.config import CondenseNetConfig
from space.presets import SPACE_PRESETS
config = CondenseNetConfig(**json.loads(sys.argv[1]))
settings = settings_from({"format": 1, "study": {"name": "x"}, "space": SPACE_PRESETS["digits"]}, "x")
seconds = time_step(config, 64, settings, budget_s=8.0)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"step_s": seconds, "faults": used.ru_minflt, "peak_mb": used.ru_maxrss / 1024}))
"""

CONFIGS = {
    "digits 3-3-3": {"stages": [3, 3, 3], "growth": [8, 8, 8], "input_shape": [1, 8, 8]},
    "CIFAR 8-8-8 (CondenseNet-50)": {"stages": [8, 8, 8], "growth": [8, 16, 32]},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    result: dict[str, dict[str, dict[str, float]]] = {}
    for label, config in CONFIGS.items():
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
        for _ in range(rounds):
            for name, environment in VARIANTS.items():
                done = subprocess.run(
                    [sys.executable, "-W", "ignore", "-c", STEPS, json.dumps(config)],
                    env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                    check=True,
                    capture_output=True,
                    text=True,
                )
                runs[name].append(json.loads(done.stdout))
        print(label)
        result[label] = {}
        for name, values in runs.items():
            row = {key: statistics.median(v[key] for v in values) for key in values[0]}
            result[label][name] = row
            base = result[label]["default"]["step_s"]
            print(
                f"  {name:16} {row['step_s'] * 1e3:8.1f} ms a step ({base / row['step_s']:.2f} x default), "
                f"{row['faults']:9.0f} page faults, peak {row['peak_mb']:.0f} MB"
            )
    save("malloc", result)


if __name__ == "__main__":
    main()
