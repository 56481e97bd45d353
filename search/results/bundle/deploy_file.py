"""deploy.toml: what a program on the device must know, in tables of plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from search.budget import Budget
from search.results.bundle.facts import WEIGHTS, BundleFacts, inputs_of, preprocessing_of, shipped_file
from search.results.class_figures import accuracy_table
from workers.bundled.reading import VERSION
from workers.file_names import INPUT, NETWORK_FILE, OUTPUT, Precision, file_for, precision_of, stem_for
from workers.latency.record import LatencyRecord
from workers.preprocessing import COMMENTS

RESOURCES = ("peak_memory_mb", "energy_mj")  # of a latency, where they are known


def deploy_toml(facts: BundleFacts) -> str:
    """Return deploy.toml: everything a program needs to run the model, in tables of plain values."""
    study, row, latency = facts.study, facts.trial, facts.latency
    info = study.data_info or {}
    top1 = {"validation_top1": row.top1 if facts.retrains is None else None, "test_top1": row.test_top1}
    accuracy = {
        "dataset": info.get("dataset", ""),
        "objective": row.objective,
        **top1,
        **accuracy_table(facts.splits),
    }
    model = {"file": facts.model, "sha256": facts.model_sha256[facts.model], "input": INPUT, "output": OUTPUT}
    tables: dict[str, dict[str, Any]] = {
        "bundle": {"version": VERSION},
        "model": {**model, "precision": precision_of(Path(facts.model))},
        "preprocessing": preprocessing_of(facts).table(),
        "model_files": _model_files(facts),
        "model_files_sha256": {_toml(file): sha256 for file, sha256 in facts.model_sha256.items()},
        "classes": {"names": list(map(str, info.get("class_names", ())))},
        "accuracy": {name: value for name, value in accuracy.items() if value is not None},
        "checks": {
            "verified": facts.verified,
            "verified_by": facts.verified_by,
            "tested": facts.tested,
            "not_done": facts.not_done,
        },
        **{f"{precision_of(Path(file))}.{_toml(file)}": dict(worth) for file, worth in facts.rounded.items()},
        **({} if latency is None else {"latency": _latency_table(latency, facts.shipped)}),
        **{
            f"latency_on.{_toml(name)}": _latency_table(other, facts.shipped) for name, other in facts.elsewhere.items()
        },
        "cost": {"macs": row.macs, "params": row.params, "paper_flops": row.paper_flops},
        "budget": _budget_table(facts.budget),
        "config": {k: v for k, v in row.config.to_dict().items() if v is not None},
        WEIGHTS: {"file": NETWORK_FILE, "sha256": facts.network_sha256},
        "origin": {
            **{"study": study.name, "trial": row.number, "settings_sha256": study.settings_hash},
            **({} if facts.retrains is None else {"retrains": facts.retrains}),
        },
    }
    lines = [f"# How to run {facts.model}, and what to expect of it."]
    if facts.not_done:
        lines.append(f"# Not a picked bundle: {facts.not_done}.")
    for name, values in tables.items():
        comments = COMMENTS if name == "preprocessing" else {}
        lines += ["", f"[{name}]"]
        lines += [
            f"{key} = {_toml(value)}" + f"  # {comments.get(key)}" * (key in comments) for key, value in values.items()
        ]
    return "\n".join(lines) + "\n"


def _model_files(facts: BundleFacts) -> dict[str, str]:
    """Return the input of each model file that is shipped: its type and its shape."""
    inputs = inputs_of(preprocessing_of(facts)).items()
    by_file = {file_for(runtime, stem): text for stem in map(stem_for, get_args(Precision)) for runtime, text in inputs}
    return {_toml(file): text for file, text in by_file.items() if file in facts.shipped}


def _latency_table(latency: LatencyRecord, shipped: Collection[str]) -> dict[str, Any]:
    """Return a latency's table in deploy.toml; the model's file is named where the bundle ships it."""
    file = shipped_file(latency, shipped)
    return {
        "target": latency.target,
        "kind": latency.kind,
        "policy": latency.policy,
        "device": latency.device,
        "runtime": f"{latency.runtime} {latency.runtime_version}",
        **({"file": file} if file else {}),
        "threads": latency.threads,
        "median_ms": latency.median_ms,
        **({} if latency.p90_ms is None else {"p90_ms": latency.p90_ms}),
        "interval_95_ms": [latency.interval_low_ms, latency.interval_high_ms],
        **{name: value for name in RESOURCES if (value := getattr(latency, name)) is not None},
        "steady": latency.steady,
        "extrapolates": latency.extrapolates,
        "verified": latency.verified,
    }


def _budget_table(budget: Budget) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "max_macs": budget.max_macs,
        "max_params": budget.max_params,
        "max_latency_ms": budget.max_latency_ms,
    }
    of = {} if budget.latency_statistic == "upper" else {"latency_statistic": budget.latency_statistic}
    counts |= {"max_file_mb": budget.max_file_mb, "max_ram_mb": budget.max_ram_mb}
    elsewhere = {f"max_latency_ms_on.{_toml(name)}": limit for name, limit in budget.elsewhere_ms.items()}
    return {name: limit for name, limit in {**counts, **of, **elsewhere}.items() if limit is not None}


def _toml(value: Any) -> str:
    """Write a string, number or list as TOML; JSON's forms are valid TOML for all of them, but for DEL and NaN."""
    if isinstance(value, list) and any(isinstance(one, float) for one in value):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
