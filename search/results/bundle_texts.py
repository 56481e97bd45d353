"""The texts of a bundle: deploy.toml, for a program on the device, and MODEL_CARD.md, for people.

They state what is recorded and nothing else; checks that are still to be done (a second measurement, the test) are
named as plainly as those that were done. Names come from users and devices: each becomes one harmless line or one
quoted string.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from search.budget import Budget
from search.results.class_figures import accuracy_table, classes_part, figure_rows
from search.results.latency_labels import doubts_text
from search.results.plain_text import one_line
from search.results.remarks import NOTHING_SEEN, Seen
from search.store.rows import StudyRow, TrialRow
from workers.file_names import INPUT, NETWORK_FILE, ONNX_FILE, OUTPUT, SPLITS_FILE, SUFFIXES, Runtime, file_for
from workers.latency.record import LatencyKind, LatencyRecord
from workers.preprocessing import COMMENTS, Preprocessing
from workers.wording import counted

DEPLOY_FILE, CARD_FILE, INFER_FILE, MODEL = "deploy.toml", "MODEL_CARD.md", "infer.py", "model"
WEIGHTS = "weights"  # the table of deploy.toml on the network as torch reads it
BUNDLE_FILES = {ONNX_FILE, NETWORK_FILE, DEPLOY_FILE, CARD_FILE, INFER_FILE, SPLITS_FILE} | {
    MODEL + suffix for suffix in SUFFIXES.values()
}


@dataclass(frozen=True)
class BundleFacts:
    """The facts in the texts, which also name what is unknown (None) or was not done."""

    study: StudyRow
    trial: TrialRow
    budget: Budget
    model_sha256: Mapping[str, str]  # of each model file in the bundle, by its name
    network_sha256: str  # of network.safetensors
    shipped: frozenset[str]  # names of the files in the bundle
    rank: str  # how the network compares to others: the end of the card's first sentence
    latency: LatencyRecord | None  # on the study's first device
    elsewhere: Mapping[str, LatencyRecord] = field(default_factory=dict)  # on its further devices, by name
    seen: Seen = NOTHING_SEEN  # what the network said of the images
    as_good: tuple[str, ...] = ()  # cheaper networks that are as good within noise
    test_evaluations: int = 0  # networks of this study ever evaluated on the test split, this one included
    export_difference: float | None = None
    passed_over: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    in_model: bool = False  # whether the model files scale pixels themselves
    database: tuple[str, ...] = ()  # the words that name it in a command

    @property
    def verified(self) -> bool:
        """Whether the trained file was measured or estimated on every device, and held to the budget there."""
        latencies = (self.latency, *self.elsewhere.values())
        return not self.undecided and all(latency is not None and latency.verified for latency in latencies)

    @property
    def verified_by(self) -> str:
        """What the trained file was verified by: "measured on host:amd-epyc"; "" where it wasn't."""
        latencies = [latency for latency in (self.latency, *self.elsewhere.values()) if latency is not None]
        return "; ".join(f"{latency.kind} on {one_line(latency.device)}" for latency in latencies) * self.verified

    @property
    def tested(self) -> bool:
        """Whether the network was evaluated on the test split."""
        return self.trial.test_top1 is not None

    @property
    def not_done(self) -> str:
        """The checks that were not done yet and the command that does them, in one line; "" when all are done."""
        missing = ["not verified on the device after training"] * (not self.verified)
        missing += ["not tested"] * (not self.tested)
        command = pick_command(self.study.name, self.budget, self.database)
        command = command if command.isprintable() else one_line(command)  # a name's double spaces must stay
        return f"{', '.join(missing)}: run `{command}`" if missing else ""


def pick_command(study: str, budget: Budget, database: Sequence[str] = ()) -> str:
    """Return the command that verifies, tests and bundles the best network inside a budget.

    `database`: the words that name the database in it.
    """
    limits = [] if budget.max_latency_ms is None else [f"--max-latency-ms {budget.max_latency_ms:g}"]
    limits += [f"--max-latency-ms {shlex.quote(f'{name}={limit:g}')}" for name, limit in budget.elsewhere_ms.items()]
    counts = (("--max-macs", budget.max_macs), ("--max-params", budget.max_params))
    limits += [f"{option} {limit:.0f}" for option, limit in counts if limit is not None]
    return " ".join(("condensery pick", shlex.quote(study), *map(shlex.quote, database), *limits, "--out bundle"))


def infer_program() -> str:
    """Return infer.py: the program that runs a bundle's network on image files, without the project."""
    return (files("workers.bundled") / INFER_FILE).read_text(encoding="utf-8")


def deploy_toml(facts: BundleFacts) -> str:
    """Return deploy.toml: everything a program needs to run the model, in tables of plain values."""
    study, row, latency = facts.study, facts.trial, facts.latency
    info = study.data_info or {}
    top1 = {"validation_top1": row.top1, "test_top1": row.test_top1}
    accuracy = {
        "dataset": info.get("dataset", ""),
        "objective": row.objective,
        **top1,
        **accuracy_table(facts.seen.splits),
    }
    model = {"file": ONNX_FILE, "sha256": facts.model_sha256[ONNX_FILE], "input": INPUT, "output": OUTPUT}
    tables: dict[str, dict[str, Any]] = {
        "model": {**model, "precision": "fp32" if latency is None else latency.precision},
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
        **({} if latency is None else {"latency": _latency_table(latency, facts.shipped)}),
        **{
            f"latency_on.{_toml(name)}": _latency_table(other, facts.shipped) for name, other in facts.elsewhere.items()
        },
        "cost": {"macs": row.macs, "params": row.params, "paper_flops": row.paper_flops},
        "budget": _budget_table(facts.budget),
        "config": {k: v for k, v in row.config.to_dict().items() if v is not None},
        WEIGHTS: {"file": NETWORK_FILE, "sha256": facts.network_sha256},
        "origin": {"study": study.name, "trial": row.number, "settings_sha256": study.settings_hash},
    }
    lines = ["# How to run model.onnx, and what to expect of it."]
    if facts.not_done:
        lines.append(f"# Not a picked bundle: {facts.not_done}.")
    for name, values in tables.items():
        comments = COMMENTS if name == "preprocessing" else {}
        lines += ["", f"[{name}]"]
        lines += [
            f"{key} = {_toml(value)}" + f"  # {comments.get(key)}" * (key in comments) for key, value in values.items()
        ]
    return "\n".join(lines) + "\n"


def preprocessing_of(facts: BundleFacts) -> Preprocessing:
    """Return how an image becomes the input of the bundle's model files."""
    return Preprocessing.of(facts.trial.config.input_shape, facts.study.data_info or {}, facts.in_model)


def _model_files(facts: BundleFacts) -> dict[str, str]:
    """Return the input of each model file that is shipped: its type and its shape."""
    by_file = {file_for(runtime, MODEL): text for runtime, text in inputs_of(preprocessing_of(facts)).items()}
    return {_toml(file): text for file, text in by_file.items() if file in facts.shipped}


def inputs_of(preprocessing: Preprocessing) -> dict[Runtime, str]:
    """Return the input of a network's file for each runtime: its type and its shape."""
    rules, (channels, height, width) = preprocessing.table(), preprocessing.shape
    planes, last = f"({channels}, {height}, {width})", f"(1, {height}, {width}, {channels})"
    return {
        "onnxruntime": f"{rules['dtype']} (batch, {planes[1:]}",
        "ncnn": f"float32 {planes}",  # it has no other type; the values are those of the pixels
        "litert": f"{rules['dtype']} {last}",
        "native": f"{rules['dtype']} {planes}",
    }


def _latency_table(latency: LatencyRecord, shipped: Iterable[str]) -> dict[str, Any]:
    """Return a latency's table in deploy.toml; the model's file is named where the bundle ships it."""
    file = file_for(latency.runtime, MODEL) if latency.runtime in SUFFIXES else ""
    return {
        "kind": latency.kind,
        "policy": latency.policy,
        "device": latency.device,
        "runtime": f"{latency.runtime} {latency.runtime_version}",
        **({"file": file} if file in shipped else {}),
        "threads": latency.threads,
        "median_ms": latency.median_ms,
        **({} if latency.p90_ms is None else {"p90_ms": latency.p90_ms}),
        "interval_95_ms": [latency.interval_low_ms, latency.interval_high_ms],
        "steady": latency.steady,
        "extrapolates": latency.extrapolates,
        "verified": latency.verified,
    }


def _budget_table(budget: Budget) -> dict[str, Any]:
    counts = {"max_macs": budget.max_macs, "max_params": budget.max_params, "max_latency_ms": budget.max_latency_ms}
    elsewhere = {f"max_latency_ms_on.{_toml(name)}": limit for name, limit in budget.elsewhere_ms.items()}
    return {name: limit for name, limit in {**counts, **elsewhere}.items() if limit is not None}


def _toml(value: Any) -> str:
    """Write a string, number or list as TOML; JSON's forms are valid TOML for all of them, but for DEL and NaN."""
    if isinstance(value, list) and any(isinstance(one, float) for one in value):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float) and math.isnan(value):
        return "nan"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def model_card(facts: BundleFacts) -> str:
    """Return MODEL_CARD.md."""
    row, study = facts.trial, one_line(facts.study.name)
    warning = f"\n> **Not a picked bundle**: {facts.not_done}.\n" if facts.not_done else ""
    versions = "\n".join(f"| {one_line(k)} | {one_line(v)} |" for k, v in sorted(facts.study.versions.items()))
    return f"""# {row.config}

A CondenseNet for image classification, trial {row.number} of the study `{study}`: {facts.rank}.
{warning}
| | |
|---|---|
{_figures(facts)}

{_remarks(facts)}
{classes_part(facts.seen.splits, facts.study.data_info)}
## Run it

    python3 infer.py photo.jpg

It needs Python 3.11, numpy, Pillow and onnxruntime, and prints the class and its probability; `--model FILE` runs
another model file of this folder. `Classifier(folder).classify(file)` does it in a program. How an image becomes the
network's input is `[preprocessing]` of `deploy.toml`, which `infer.py` follows step by step; a program of your own must
do the same, to the channel order.{_in_model_text(facts)}

## Made with

| | |
|---|---|
{versions}
"""


def _in_model_text(facts: BundleFacts) -> str:
    if not facts.in_model:
        return ""
    return (
        "\n\nThe model files scale pixels themselves: they take them as they are after resizing. The latencies are of "
        "the network\nwithout that step."
    )


def _figures(facts: BundleFacts) -> str:
    """Return the rows of the card's first table."""
    row, latency, info = facts.trial, facts.latency, facts.study.data_info or {}
    images = f"{one_line(info.get('test_images', '?'))} images of {one_line(info.get('dataset', '?'))}"
    tested = "not tested" if row.test_top1 is None else f"{row.test_top1:.2%} ({images})"
    validation = "unknown" if row.top1 is None else f"{row.top1:.2%}"
    lines = [f"| test top-1 | {tested} |", f"| validation top-1 | {validation} |", *figure_rows(facts.seen.splits)]
    if latency is None:
        lines.append("| latency | unknown |")
    else:
        lines.append(f"| latency, {_kind(latency)} | {_milliseconds(latency)} |")
        lines.append(f"| on | {_place(latency)}, {counted(latency.threads, 'thread')}, {latency.precision} |")
    for other in facts.elsewhere.values():
        lines.append(f"| latency, {_kind(other)}, on {_place(other)} | {_milliseconds(other)} |")
    lines.append(f"| macs | {row.macs:,} (1 multiply-add = 1, convolutions and linear) |")
    lines.append(f"| params | {row.params:,} |")
    return "\n".join(lines)


def _place(latency: LatencyRecord) -> str:
    return f"{one_line(latency.device)}, {one_line(latency.runtime)} {one_line(latency.runtime_version)}"


def _milliseconds(latency: LatencyRecord) -> str:
    """Return "0.312 ms (95 % interval 0.309 to 0.315, p90 0.32)"."""
    p90 = "" if latency.p90_ms is None else f", p90 {latency.p90_ms:.4g}"
    interval = f"95 % interval {latency.interval_low_ms:.4g} to {latency.interval_high_ms:.4g}"
    return f"{latency.median_ms:.4g} ms ({interval}{p90})"


def _kind(latency: LatencyRecord) -> str:
    """Return a latency's kind and what speaks against it: "measured before training, quick, not steady"."""
    when = "" if latency.verified else " before training"
    return f"{latency.kind}{when}{doubts_text(latency)}"


def _remarks(facts: BundleFacts) -> str:
    """Return what to know about the figures, point by point."""
    lines = [one_line(text) for text in facts.seen.remarks]
    lines += [f"{one_line(text[:1].upper() + text[1:])}." for text in (facts.study.data_info or {}).get("notes", ())]
    if SPLITS_FILE in facts.shipped:
        lines.append(f"`{SPLITS_FILE}` says which image was in which split.")
    lines.append(_accuracy_remark(facts))
    lines += [f"{one_line(text[:1].upper() + text[1:])}." for text in facts.as_good]
    if facts.latency is not None:
        lines.append(_latency_remark("The latency", facts.latency))
    lines += [_latency_remark(f"The latency on {one_line(on)}", other) for on, other in facts.elsewhere.items()]
    if facts.export_difference is None:
        lines.append("The exported file was compared with the trained network when it was written, and not since.")
    else:
        lines.append(
            f"The exported file equals the trained network to {facts.export_difference:.1e} of its largest output."
        )
    latencies = [latency for latency in (facts.latency, *facts.elsewhere.values()) if latency is not None]
    missing = dict.fromkeys(
        one_line(latency.runtime) for latency in latencies if "file" not in _latency_table(latency, facts.shipped)
    )
    lines += [f"The file for {runtime}, of which a latency is given, is not in this bundle." for runtime in missing]
    lines += [f"Not verified inside the budget: {one_line(text)}; measure it again." for text in facts.undecided]
    lines += [f"Passed over: {one_line(text)}." for text in facts.passed_over]
    return "\n".join(f"- {line}" for line in lines)


def _accuracy_remark(facts: BundleFacts) -> str:
    if not facts.tested:
        return (
            "The accuracy is the exported network's, on the validation split that choices are made on; the test split "
            "was not used for\n  this network."
        )
    tested = (
        "it is the only network of this study that was"
        if facts.test_evaluations == 1
        else f"{facts.test_evaluations} networks of this study have been, so treat it as slightly optimistic"
    )
    return (
        "Both accuracies are the exported network's. The choice was made on the validation split; the test split was "
        f"used once\n  for this network, and {tested}."
    )


def _latency_remark(subject: str, latency: LatencyRecord) -> str:
    """Return a sentence on where a latency comes from and what speaks against it."""
    quick = " with the quick policy: fewer runs than a standard measurement" if latency.policy == "quick" else ""
    unsteady = "" if latency.steady else "; the machine did not keep still during it"
    return f"{_origin_of(subject, latency)}{quick}{unsteady}."


def _origin_of(subject: str, latency: LatencyRecord) -> str:
    """Return where a latency comes from: an estimate must never read like a measurement."""
    file = "the exported file after training" if latency.verified else "a network of the same shape before training"
    if latency.kind == LatencyKind.MEASURED:
        return f"{subject} was measured on {file}"
    outside = "; this network lies outside the range it was calibrated on" if latency.extrapolates else ""
    if latency.kind == LatencyKind.PREDICTED:
        return f"{subject} is predicted from measurements of other networks, not measured{outside}"
    return f"{subject} is {latency.kind} from instructions counted in {file}, not measured{outside}"
