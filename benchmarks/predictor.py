"""Latency predicted from a network's structure, learned from 30 measured networks, beside simpler and other models.

    python -m benchmarks.predictor [--networks 60] [--preset cifar] [--policy standard] [--seed 0] [--core N]
    python -m benchmarks.predictor --policy quick --networks 36 --seed 2 --passes 5
    python -m benchmarks.predictor --from benchmarks/results/predictor_cifar.json
    python -m benchmarks.predictor --counted cifar

The first measures networks sampled from a preset space on this machine until `--networks` of them were measured
steadily (at most five times as many are tried), and saves the raw data beside the result in
results/predictor_PRESET_POLICY_SEED.json; batch by batch, in a file of its own that ends in `_part`, while it goes on.
`--passes N` measures every network N times, pass after pass, and takes the median of its passes, steady or not: for a
machine that never keeps still. `--from` takes a file's data instead of measuring, also of a run that was cut short.
`--counted` takes the networks whose instructions were counted on the virtual ARM device, with the latency that the
Raspberry Pi 5 profile estimates. Repeated random splits: fit on 30, predict the rest. Measurements that were not steady
are left out, as `devices fit` leaves them out. Goals: median error <= 3 %, about 95 % inside the 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.predictor_peers import SEED, Array, Peer, peers
from benchmarks.record import RESULTS, save
from space.config import CondenseNetConfig
from space.search_space import SearchSpace
from workers.latency.host_probe import default_core
from workers.latency.predictor import Prediction, Predictor
from workers.latency.profiles import CLASSES, load_profile
from workers.latency.validation import cross_validate, macs_rank_correlation, validation_of

BATCH = 3  # networks measured between two anchors
TRIED_PER_WANTED = 5  # networks measured at most, where the machine rarely keeps still
PART = "_part"  # ends the name of what is saved while networks are measured
FIT_ON = 30


def sampled(preset: str, count: int, seed: int = SEED) -> list[CondenseNetConfig]:
    """Return `count` different networks of a preset space; other ones for every seed."""
    space, rng = SearchSpace.preset(preset), np.random.default_rng(seed)
    configs: dict[str, CondenseNetConfig] = {}
    while len(configs) < count:
        config = space.sample(rng)
        configs.setdefault(config.digest, config)
    return list(configs.values())


def measured(
    configs: list[CondenseNetConfig], wanted: int | None, policy: str, core: int, batch: int
) -> Iterator[list[dict[str, Any]]]:
    """Measure networks on this machine, in batches with one anchor, until the wanted number is steady or all are done.

    Yields all rows so far after each batch. `wanted` None measures all.
    """
    from space.deployed import DeployedCondenseNet
    from workers.export.onnx import save_onnx
    from workers.latency.host_probe import HostProbe
    from workers.latency.measurement import FailedMeasurement
    from workers.latency.policy import policy_named

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        anchor = Path(name) / "anchor.onnx"
        save_onnx(DeployedCondenseNet.random(configs[0]), anchor)
        probe = HostProbe(policy_named(policy), anchor, core)
        for start in range(0, len(configs), batch):
            together = configs[start : start + batch]
            paths = [Path(name) / f"{config.digest}.onnx" for config in together]
            for path, config in zip(paths, together, strict=True):
                if not path.exists():  # a later pass measures the same file
                    save_onnx(DeployedCondenseNet.random(config), path)
            for config, measurement in zip(together, probe.measure(paths), strict=True):
                if isinstance(measurement, FailedMeasurement):
                    print(f"  {config}: {measurement.reason}")
                    continue
                by_process = [float(np.median(samples)) for samples in measurement.samples_ms]
                rows.append(
                    {"config": config.to_dict(), "median_ms": measurement.median_ms, "by_process_ms": by_process}
                    | {"interval_ms": [measurement.interval_low_ms, measurement.interval_high_ms]}
                    | {"anchor_drift": measurement.anchor_drift, "steady": measurement.steady}
                    | {"anchor_ms": [process["anchor_ms"] for process in measurement.conditions["processes"]]}
                )
            steady = sum(row["steady"] for row in rows)
            print(f"  measured {len(rows)} of at most {len(configs)}, {steady} of them steady", flush=True)
            yield rows
            if wanted is not None and steady >= wanted:
                return


def merged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a network, with the median of its passes; steady or not, for they are spread over the run."""
    passes: dict[str, list[float]] = {}
    for row in rows:
        passes.setdefault(json.dumps(row["config"]), []).extend(row.get("passes_ms", [row["median_ms"]]))
    return [
        {"config": json.loads(config), "median_ms": statistics.median(latencies), "passes_ms": latencies}
        for config, latencies in passes.items()
    ]


def provenance_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return when, where and how a result's rows were measured, however often they were fitted since."""
    here = {key: document[key] for key in ("date", "machine")}
    return here | document["result"].get("measured", {})


def counted(preset: str) -> list[dict[str, Any]]:
    """Return the counted networks of a preset with the latency that the profile estimates today."""
    document = json.loads((RESULTS / f"predictor_counts_{preset}.json").read_text())
    profile = load_profile(document["profile"])
    rows = []
    for row in document["rows"]:
        counts = dict(zip(document["classes"], row["counts"], strict=True))
        latency_ms = profile.estimate({name: counts[name] for name in CLASSES}).latency_ms
        rows.append({"config": row["config"], "median_ms": latency_ms})
    return rows


# ---- splits ----------------------------------------------------------------------------------------------


def splits(count: int, repeats: int) -> Iterator[tuple[list[int], list[int]]]:
    """Yield (fitted on, held out) numbers of networks, drawn at random."""
    rng = np.random.default_rng(SEED)
    for _ in range(repeats):
        order = rng.permutation(count).tolist()
        yield order[:FIT_ON], order[FIT_ON:]


def ours_held_out(configs: list[CondenseNetConfig], latencies: Array, repeats: int) -> dict[str, Any]:
    predictions: list[Prediction] = []
    truth: list[float] = []
    for known, held in splits(len(configs), repeats):
        predictor = Predictor.fit([configs[i] for i in known], latencies[known].tolist(), SEED)
        predictions += predictor.predict([configs[i] for i in held])
        truth += latencies[held].tolist()
    extrapolated = float(np.mean([prediction.extrapolates for prediction in predictions]))
    return asdict(validation_of(predictions, truth)) | {"extrapolated": extrapolated}


def peer_held_out(peer: Peer, configs: list[CondenseNetConfig], latencies: Array, repeats: int) -> dict[str, Any]:
    errors = []
    for known, held in splits(len(configs), repeats):
        predicted = peer([configs[i] for i in known], latencies[known], [configs[i] for i in held])
        errors.append(np.abs(predicted / latencies[held] - 1))
    error = np.concatenate(errors)
    ends = {"p90_error": float(np.quantile(error, 0.9)), "max_error": float(error.max())}
    return {"median_error": float(np.median(error))} | ends


def speed(configs: list[CondenseNetConfig], latencies: Array) -> dict[str, float]:
    """Seconds to fit on 30 networks and to predict 1000."""
    many = (configs * (1000 // len(configs) + 1))[:1000]
    begin = time.perf_counter()
    predictor = Predictor.fit(configs[:FIT_ON], latencies[:FIT_ON].tolist(), SEED)
    fitted = time.perf_counter()
    predictor.predict(many)
    return {"fit_30_s": fitted - begin, "predict_1000_s": time.perf_counter() - fitted}


def print_row(name: str, row: dict[str, Any]) -> None:
    errors = "".join(f"{row[key]:8.2%}" for key in ("median_error", "p90_error", "max_error"))
    inside = f"{row['coverage_95']:9.1%}{row['median_width']:8.1%}" if "coverage_95" in row else ""
    print(f"  {name:38}{errors}{inside}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=60, help="measured steadily; with --passes, steadily or not")
    parser.add_argument("--preset", default="cifar")
    parser.add_argument("--policy", choices=("standard", "quick"), default="standard")
    parser.add_argument("--core", type=int)
    parser.add_argument("--seed", type=int, default=SEED, help="of the networks sampled")
    parser.add_argument("--passes", type=int, default=1, help="over all networks; the median of each counts")
    parser.add_argument("--batch", type=int, default=BATCH, help="networks measured between two anchors")
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--from", dest="data", type=Path)
    parser.add_argument("--counted", choices=("cifar", "digits"))
    return parser.parse_args()


@dataclass
class DataSet:
    """Networks with their latencies: the result's name, its rows, and how they were measured."""

    name: str
    rows: list[dict[str, Any]]
    measured_on: dict[str, Any] = field(default_factory=dict)
    partial: Path | None = None  # the file of what was measured so far


def data_set(options: argparse.Namespace) -> DataSet:
    """Return the counted networks, those of an earlier result, or newly measured ones."""
    if options.counted:
        return DataSet(f"predictor_counted_{options.counted}", counted(options.counted))
    if options.data:
        document = json.loads(options.data.read_text())
        name = options.data.stem.removesuffix(PART)
        return DataSet(name, document["result"]["rows"], provenance_of(document))
    return measured_now(options)


def measured_now(options: argparse.Namespace) -> DataSet:
    """Measure networks on this machine; what is measured is saved after each batch."""
    core = default_core() if options.core is None else options.core
    data = DataSet(f"predictor_{options.preset}_{options.policy}_{options.seed}", [])
    data.measured_on = {"policy": options.policy, "core": core, "seed": options.seed, "batch": options.batch}
    wanted, tried = options.networks, TRIED_PER_WANTED * options.networks
    if options.passes > 1:
        data.name += f"_{options.passes}_passes"
        data.measured_on["passes"] = options.passes
        wanted, tried = None, options.networks
    configs = sampled(options.preset, tried, options.seed) * options.passes
    for data.rows in measured(configs, wanted, options.policy, core, options.batch):
        data.partial = save(data.name + PART, {"measured": data.measured_on, "rows": data.rows})
    return data


def compared(data: DataSet, repeats: int) -> dict[str, Any]:
    """Fit and predict over random splits, the predictor and its peers; return errors, speed and counts."""
    networks = merged(data.rows) if data.measured_on.get("passes", 1) > 1 else data.rows
    steady = [row for row in networks if row.get("steady", True)]
    if len(steady) <= FIT_ON:
        rule = f"more than {FIT_ON} steady networks are needed"
        raise SystemExit(f"{rule}, but there are {len(steady)} of {len(networks)}; raise --networks")
    configs = [CondenseNetConfig.from_dict(row["config"]) for row in steady]
    latencies = np.array([row["median_ms"] for row in steady])
    return {
        "networks": len(steady),
        "not_steady": len(networks) - len(steady),
        "fitted_on": FIT_ON,
        "held_out": ours_held_out(configs, latencies, repeats),
        "peers": {key: peer_held_out(peer, configs, latencies, min(repeats, 10)) for key, peer in peers().items()},
        "leave_one_out_on_30": asdict(cross_validate(configs[:FIT_ON], latencies[:FIT_ON].tolist())),
        "macs_spearman": macs_rank_correlation(configs, latencies.tolist()),
        "speed": speed(configs, latencies),
    }


def report(name: str, result: dict[str, Any], repeats: int) -> None:
    print(
        f"{name}: {result['networks']} networks ({result['not_steady']} more not steady), {repeats} random splits, "
        f"fitted on {FIT_ON}; relative errors held out"
    )
    print(f"  {'':38}{'median':>8}{'p90':>8}{'max':>8}{'in 95 %':>9}{'width':>8}")
    print_row("ours (goals: median 3 %, 95 % inside)", result["held_out"])
    for key, row in result["peers"].items():
        print_row(key, row)
    print_row("ours, leave one out on 30", result["leave_one_out_on_30"])
    held_out, quick = result["held_out"], result["speed"]
    print(f"  rank correlation: {held_out['spearman']:.3f} ours, {result['macs_spearman']:.3f} macs alone")
    print(f"  fit on 30: {quick['fit_30_s'] * 1e3:.0f} ms; predict 1000: {quick['predict_1000_s'] * 1e3:.0f} ms")


def main() -> None:
    options = parsed()
    data = data_set(options)
    warnings.simplefilter("ignore")  # scikit-learn's, about a kernel parameter at its bound
    result = compared(data, options.repeats)
    report(data.name, result, options.repeats)
    if not options.counted:
        result |= {"measured": data.measured_on, "rows": data.rows}  # the counted data set has a file of its own
    save(data.name, result)
    if data.partial is not None:
        data.partial.unlink()


if __name__ == "__main__":
    main()
