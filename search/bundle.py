"""From a ranked list to files to deploy: verify on the device, evaluate on the test split once, write the bundle.

A bundle is a folder: `model.onnx`, `network.safetensors`, `deploy.toml` (what a program on the device must know) and
`MODEL_CARD.md` (what a person wants to know). Every figure in it belongs to the exported network.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.gate import Budget
from search.pick import best
from search.pricing import Target
from search.settings import settings_from
from search.store import reader
from search.store.reader import StudyRow, TrialRow
from search.store.store import StudyStore
from space.deployed import DeployedCondenseNet
from space.errors import (
    CheckpointCorrupt,
    DataNotFound,
    MeasurementFailed,
    NothingFeasible,
    ReadOnlyFolder,
    TrialNotReady,
)
from workers import data
from workers.export import INPUT, OUTPUT, check_onnx, exported_network, save_onnx
from workers.files import disk_errors, file_hash
from workers.latency.measurement import FailedMeasurement, Measurement
from workers.model_files import SUFFIXES, check_for, file_for, save_for
from workers.trial import NETWORK_FILE, ONNX_FILE, load_network

DEPLOY_FILE, CARD_FILE, MODEL = "deploy.toml", "MODEL_CARD.md", "model"
BUNDLE_FILES = {ONNX_FILE, NETWORK_FILE, DEPLOY_FILE, CARD_FILE} | {MODEL + suffix for suffix in SUFFIXES.values()}


@dataclass(frozen=True)
class Picked:
    """The network to deploy, with what was seen of it."""

    trial: TrialRow
    budget: Budget
    verified: Measurement  # on the study's first device
    elsewhere: dict[str, Measurement]  # on its further devices, by name
    test_top1: float
    test_evaluations: int  # networks of this study ever evaluated on the test split, this one included
    candidates: int  # trained networks inside the budget
    passed_over: tuple[str, ...]  # better ones that failed the verification, and why
    export_difference: float
    files: tuple[Path, Path]  # ONNX and safetensors, checked against their recorded hashes


def pick(store: StudyStore, study: StudyRow, budget: Budget, targets: Sequence[Target], cache: Path) -> Picked:
    """Take the best network inside the budget, measure its exported file again, evaluate it on the test split.

    One whose second measurement lies over the budget is passed over for the next.

    Raises:
        NothingFeasible: none fits, or none survives the verification.
        CheckpointCorrupt: the files of the one chosen are gone or damaged.
    """
    ranked = best(store.trials(), budget)
    passed_over: list[str] = []
    for row in ranked:
        files = reader.read_artifacts(store.engine, row.id)
        if any(entry["removed"] for entry in files.values()):
            passed_over.append(f"trial {row.number}'s network was removed by the retention rule")
            continue
        model, weights = trained_files(store, row)
        network = load_network(weights.parent, row.config)
        verified = _verify(store, row, (model, network), targets)
        if why := _over(budget, verified, targets):
            passed_over.append(f"trial {row.number} {why} when measured again")
            continue
        difference = check_onnx(model, network)
        if row.test_top1 is None:  # a second look would not be a test any more
            store.set_test_top1(row.number, _test_accuracy(study, model, cache))
        tested = store.trial(row.number)
        assert tested.test_top1 is not None
        return Picked(
            trial=tested,
            budget=budget,
            verified=verified.pop(targets[0].name),
            elsewhere=verified,
            test_top1=tested.test_top1,
            test_evaluations=reader.count_test_evaluations(store.engine, store.study_id),
            candidates=len(ranked),
            passed_over=tuple(passed_over),
            export_difference=difference,
            files=(model, weights),
        )
    raise NothingFeasible(
        f"none of {len(ranked)} networks stayed inside {budget} when measured again ({'; '.join(passed_over[:3])}); "
        "raise the budget a little."
    )


def _verify(
    store: StudyStore, row: TrialRow, trained: tuple[Path, DeployedCondenseNet], targets: Sequence[Target]
) -> dict[str, Measurement]:
    """Measure the trained (ONNX file, network) on every device of the study; record and return what was seen."""
    verified: dict[str, Measurement] = {}
    model, network = trained
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        for target in targets:
            path = model
            if target.probe.runtime != "onnxruntime":
                path = Path(folder) / file_for(target.probe.runtime, MODEL)
                save_for(target.probe.runtime, network, path)
            (seen,) = target.probe.measure([path])
            if isinstance(seen, FailedMeasurement):
                place = f"trial {row.number} could not be measured on {target.name}"
                raise MeasurementFailed(f"{place}: {seen.reason}")
            store.add_latency(row.number, seen, "verify", target.name)
            verified[target.name] = seen
    return verified


def _over(budget: Budget, verified: Mapping[str, Measurement], targets: Sequence[Target]) -> str | None:
    """Return how a verification exceeds the budget, or None."""
    limits = budget.limits_ms(targets[0].name)
    for name, seen in verified.items():
        limit_ms, high_ms = limits.get(name), seen.summary.interval_high_ms
        if limit_ms is not None and high_ms > limit_ms:
            return f"took up to {high_ms:.4g} ms" + ("" if name == targets[0].name else f" on {name}")
    return None


def trained_files(store: StudyStore, row: TrialRow) -> tuple[Path, Path]:
    """Return a finished trial's (ONNX, safetensors) files, both checked against their recorded hashes.

    Raises:
        TrialNotReady: it has not finished. CheckpointCorrupt: a file is gone or is another.
    """
    if row.state != "done":
        why = f" ({row.reason})" if row.reason else ""
        raise TrialNotReady(f"trial {row.number} is {row.state}{why}; only a done trial has a network.")
    files = reader.read_artifacts(store.engine, row.id)
    paths = []
    for name in (ONNX_FILE, NETWORK_FILE):
        found = files.get(name)
        path = Path(found["path"]) if found else Path(name)
        if found is None or found["removed"] or not path.exists():
            raise CheckpointCorrupt(f"{path} of trial {row.number} is gone (moved, or removed by a retention rule).")
        if file_hash(path) != found["sha256"]:
            raise CheckpointCorrupt(f"{path} is not the file that was recorded (its SHA-256 differs).")
        paths.append(path)
    return paths[0], paths[1]


def _test_accuracy(study: StudyRow, model: Path, cache: Path) -> float:
    """Run the exported file over the test split in onnxruntime; return its top-1."""
    settings = settings_from(study.settings, "the stored settings")
    info = data.prepare(settings.data, cache)
    if info.fingerprint != (study.data_info or {}).get("fingerprint", info.fingerprint):
        raise DataNotFound(
            f"the images of {info.dataset} have changed since study {study.name!r} began, so its test split is not "
            "what it was; put them back."
        )
    images = data.load(settings.data, cache)
    logits_of = exported_network(model)
    right = total = 0
    for x, y in data.evaluation_batches(images.test(), info, 256):
        right += int((np.argmax(logits_of(x.numpy()), axis=1) == y.numpy()).sum())
        total += len(y)
    return right / total


def export_trial(store: StudyStore, row: TrialRow, out: Path) -> Path:
    """Write a finished trial's ONNX to `out` (a file, or a folder that gets model.onnx); return the path."""
    _, weights = trained_files(store, row)
    target = out / ONNX_FILE if out.is_dir() or not out.suffix else out
    network = load_network(weights.parent, row.config)
    save_onnx(network, target)
    check_onnx(target, network)
    return target


def write_bundle(store: StudyStore, study: StudyRow, picked: Picked, out: Path) -> Path:
    """Write the bundle folder, whole or not at all; an earlier bundle there is replaced.

    Raises:
        ReadOnlyFolder: `out` can't be written, or holds something that is no bundle.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or {path.name for path in out.iterdir()} - BUNDLE_FILES):
        raise ReadOnlyFolder(f"{out} exists and holds other things than a bundle; choose an empty or a new folder.")
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
            new = Path(temporary) / "bundle"
            new.mkdir()
            for path in picked.files:
                shutil.copyfile(path, new / path.name)
            runtime = picked.verified.runtime
            if runtime != "onnxruntime":
                network, path = load_network(new, picked.trial.config), new / file_for(runtime, MODEL)
                save_for(runtime, network, path)
                check_for(runtime, path, network)
            recorded = reader.read_artifacts(store.engine, picked.trial.id)[ONNX_FILE]["sha256"]
            (new / DEPLOY_FILE).write_text(_deploy_toml(study, picked, recorded), encoding="utf-8")
            (new / CARD_FILE).write_text(_model_card(study, picked), encoding="utf-8")
            old = Path(temporary) / "old"
            if out.exists():
                out.rename(old)
            try:
                new.rename(out)
            except OSError:
                if old.exists():
                    old.rename(out)
                raise
    return out


def _deploy_toml(study: StudyRow, picked: Picked, sha256: str) -> str:
    """Return deploy.toml: everything a program needs to run the model, in tables of plain values."""
    info, row, seen = study.data_info or {}, picked.trial, picked.verified
    tables: dict[str, dict[str, Any]] = {
        "model": {"file": ONNX_FILE, "sha256": sha256, "input": INPUT, "output": OUTPUT, "precision": seen.precision},
        "input": {
            "shape": ["batch", *row.config.input_shape],
            "layout": "NCHW",
            "scale": "x = (pixel / 255 - mean) / std, per channel",
            "mean": list(info.get("mean", ())),
            "std": list(info.get("std", ())),
        },
        "classes": {"names": list(map(str, info.get("class_names", ())))},
        "accuracy": {"dataset": info.get("dataset", ""), "validation_top1": row.top1, "test_top1": picked.test_top1},
        "latency": _latency_table(seen),
        **{f'latency_on."{name}"': _latency_table(other) for name, other in picked.elsewhere.items()},
        "cost": {"macs": row.macs, "params": row.params, "paper_flops": row.paper_flops},
        "budget": _budget_table(picked.budget),
        "config": {k: v for k, v in row.config.to_dict().items() if v is not None},
        "origin": {"study": study.name, "trial": row.number, "settings_sha256": study.settings_hash},
    }
    lines = ["# How to run model.onnx, and what to expect of it."]
    for name, values in tables.items():
        lines += ["", f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _latency_table(seen: Measurement) -> dict[str, Any]:
    return {
        "kind": seen.kind,
        "policy": seen.policy,
        "device": seen.device,
        "runtime": f"{seen.runtime} {seen.runtime_version}",
        "file": file_for(seen.runtime, MODEL),
        "threads": seen.threads,
        "median_ms": seen.summary.median_ms,
        **({} if seen.summary.p90_ms is None else {"p90_ms": seen.summary.p90_ms}),
        "interval_95_ms": [seen.summary.interval_low_ms, seen.summary.interval_high_ms],
        "extrapolates": seen.extrapolates,
    }


def _budget_table(budget: Budget) -> dict[str, Any]:
    counts = {"max_macs": budget.max_macs, "max_params": budget.max_params, "max_latency_ms": budget.max_latency_ms}
    elsewhere = {f'max_latency_ms_on."{name}"': limit for name, limit in budget.elsewhere_ms.items()}
    return {name: limit for name, limit in {**counts, **elsewhere}.items() if limit is not None}


def _toml(value: Any) -> str:
    """Write a string, number or list as TOML; JSON's forms are valid TOML for all of them, but for DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _model_card(study: StudyRow, picked: Picked) -> str:
    row, seen, info = picked.trial, picked.verified, study.data_info or {}
    summary = seen.summary
    quick = " with the quick policy: fewer runs than a standard measurement" if seen.policy == "quick" else ""
    tested = (
        "it is the only network of this study that was"
        if picked.test_evaluations == 1
        else f"{picked.test_evaluations} networks of this study have been, so treat it as slightly optimistic"
    )
    p90 = "" if summary.p90_ms is None else f", p90 {summary.p90_ms:.4g}"
    passed = "".join(f"- Passed over: {text}.\n" for text in picked.passed_over)
    elsewhere = "".join(
        f"| latency, {other.kind}, on {other.device} | {other.summary.median_ms:.4g} ms (95 % interval "
        f"{other.summary.interval_low_ms:.4g} to {other.summary.interval_high_ms:.4g}) |\n"
        for other in picked.elsewhere.values()
    )
    versions = "\n".join(f"| {name} | {version} |" for name, version in sorted(study.versions.items()))
    return f"""# {row.config}

A CondenseNet for image classification, trial {row.number} of the study `{_one_line(study.name)}`: the most accurate of
{picked.candidates} trained networks inside the budget ({picked.budget}).

| | |
|---|---|
| test top-1 | {picked.test_top1:.2%} ({info.get("test_images", "?")} images of {_one_line(info.get("dataset", "?"))}) |
| validation top-1 | {row.top1 or 0.0:.2%} |
| latency, {seen.kind} | {summary.median_ms:.4g} ms (95 % interval {summary.interval_low_ms:.4g} to \
{summary.interval_high_ms:.4g}{p90}) |
| on | {seen.device}, {seen.runtime} {seen.runtime_version}, {seen.threads} thread(s), {seen.precision} |
{elsewhere}| macs | {row.macs:,} (1 multiply-add = 1, convolutions and linear) |
| params | {row.params:,} |

- Both accuracies are the exported network's. The choice was made on the validation split; the test split was used once
  for this network, and {tested}.
- {_origin_of(seen)}{quick}.
- The exported file equals the trained network to {picked.export_difference:.1e} of its largest output.
{passed}
## Run it

`deploy.toml` has the input's name, shape, mean and standard deviation, and the classes in order.

```python
import onnxruntime, tomllib
deploy = tomllib.load(open("deploy.toml", "rb"))
session = onnxruntime.InferenceSession(deploy["model"]["file"])
logits, = session.run(None, {{deploy["model"]["input"]: images}})
```

`images` is float32 of shape (batch, {", ".join(map(str, row.config.input_shape))}).

## Made with

| | |
|---|---|
{versions}
"""


def _origin_of(seen: Measurement) -> str:
    """Say where the latency comes from: an estimate must never read like a measurement."""
    if seen.kind == "measured":
        return "The latency was measured on the exported file after training"
    outside = "; this network lies outside the range it was calibrated on" if seen.extrapolates else ""
    how = f"The latency is {seen.kind} from instructions counted in the exported file after training, not measured"
    return how + outside


def _one_line(text: Any) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("`", "'")
