"""MODEL_CARD.md: what a person wants to know of a network before deploying it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from search.results.bundle.facts import PICTURE_FILE, BundleFacts, shipped_file
from search.results.class_figures import MOST_IN_CARD, class_names, classes_part, figure_rows, names_in
from search.results.latency_labels import doubts_text
from search.results.plain_text import one_line
from space.config import code_legend
from workers.bundled.reading import SAMPLES
from workers.file_names import SPLITS_FILE, Runtime, precision_of, runtime_of
from workers.latency.record import LatencyKind, LatencyRecord
from workers.metrics import wilson_interval
from workers.settings import TrainingSettings
from workers.wording import counted

_NEEDS: dict[Runtime, str] = {  # what infer.py runs a model file with
    "onnxruntime": "onnxruntime",
    "ncnn": "ncnn",
    "litert": "ai-edge-litert",
    "native": "a C compiler",
}


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
{_picture(facts)}{classes_part(facts.splits, facts.study.data_info)}
## Run it

    python3 infer.py photo.jpg{_samples_text(facts)}

It needs Python 3.11, numpy, Pillow and {_needs(facts)}, and prints the class and its probability; `--model FILE` runs
another model file of this folder. `Classifier(folder).classify(file)` does it in a program. How an image becomes the
network's input is `[preprocessing]` of `deploy.toml`, which `infer.py` follows step by step; a program of your own must
do the same, to the channel order.{_in_model_text(facts)}

## Trained on

{_data_table(facts)}

## Trained with

{_training_table(facts)}

## Made with

| | |
|---|---|
{versions}
"""


def _needs(facts: BundleFacts) -> str:
    return _NEEDS[runtime_of(Path(facts.model))]


def _picture(facts: BundleFacts) -> str:
    if PICTURE_FILE not in facts.shipped:
        return ""
    return f"\n![The study's networks by score and latency, this one marked by a star]({PICTURE_FILE})\n"


def _samples_text(facts: BundleFacts) -> str:
    return (
        f"\n    python3 infer.py --check  # {SAMPLES}/, with the outputs to expect" if SAMPLES in facts.shipped else ""
    )


def _data_table(facts: BundleFacts) -> str:
    """Return what the network was trained on, as a table."""
    info = facts.study.data_info or {}
    rows = {"data set": info.get("dataset"), "size": " × ".join(map(str, facts.trial.config.input_shape))}
    rows |= {f"{split} images": info.get(f"{split}_images") for split in ("train", "validation", "test")}
    counts, validation = info.get("class_counts", ()), info.get("validation_counts", ())
    names = class_names(len(counts), names_in(info))
    of_class = [(name, counts[place], *validation[place : place + 1]) for place, name in enumerate(names)]
    listed = "; ".join(
        f"{one_line(name)} {' / '.join(map(str, numbers))}" for name, *numbers in of_class[:MOST_IN_CARD]
    )
    if of_class:
        rows["classes"] = len(of_class)
        rows["images of each (training and validation / validation alone)" if validation else "images of each"] = (
            listed + (f"; {len(of_class) - MOST_IN_CARD} more" if len(of_class) > MOST_IN_CARD else "")
        )
    return _table(rows)


def _training_table(facts: BundleFacts) -> str:
    """Return the training settings of the network, as a table."""
    training = TrainingSettings.model_validate(facts.trial.training)
    settings = {name: getattr(training, name) for name in TrainingSettings.model_fields}
    seconds = facts.trial.train_seconds
    rows = {**settings, "seed": facts.trial.seed, "seconds": None if seconds is None else round(seconds, 1)}
    return _table(rows)


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {one_line(name)} | {one_line(value)} |" for name, value in rows.items() if value not in (None, "")]
    return "\n".join(("| | |", "|---|---|", *lines))


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
    tested = "not tested"
    if row.test_top1 is not None:
        tested = f"{row.test_top1:.2%}{_interval(row.test_top1, info.get('test_images'))} ({images})"
    validation = "unknown" if facts.retrains is None else "none: it has learned from these images too"
    if facts.retrains is None and row.top1 is not None:
        validation = f"{row.top1:.2%}{_interval(row.top1, info.get('validation_images'))}"
    lines = [f"| test top-1 | {tested} |", f"| validation top-1 | {validation} |", *figure_rows(facts.splits)]
    if latency is None:
        lines.append("| latency | unknown |")
    else:
        lines.append(f"| latency, {_kind(latency)} | {_milliseconds(latency)} |")
        lines.append(f"| on | {_place(latency)}, {counted(latency.threads, 'thread')}, {latency.precision} |")
        lines += _resources(latency)
    for other in facts.elsewhere.values():
        lines.append(f"| latency, {_kind(other)}, on {_place(other)} | {_milliseconds(other)} |")
        lines += _resources(other)
    lines.append(f"| macs | {row.macs:,} (1 multiply-add = 1, convolutions and linear) |")
    lines.append(f"| params | {row.params:,} |")
    lines.append(f"| `{row.config}` | {code_legend([str(row.config)])} |")
    return "\n".join(lines)


def _resources(latency: LatencyRecord) -> Iterator[str]:
    if latency.peak_memory_mb is not None:
        yield f"| memory at most, with runtime and Python | {latency.peak_memory_mb:.1f} MB |"
    if latency.energy_mj is not None:
        yield f"| energy of the whole machine for one run | {latency.energy_mj:.3g} mJ |"


def _interval(share: float, images: int | None) -> str:
    """Return ", 95 % interval 91.2 % to 93.4 %" of a share of so many images; "" where it isn't known how many."""
    if not images:
        return ""
    low, high = wilson_interval(share, images)
    return f", 95 % interval {low:.2%} to {high:.2%}"


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


def _rounded_remark(file: str, worth: Mapping[str, Any]) -> str:
    tested = f", {worth['test_top1']:.2%} on the test images" if "test_top1" in worth else ""
    tuned = ", after a short fine-tune" if worth["fine_tuned"] else ""
    left, precision = worth["left_in_float"], precision_of(Path(file))
    bits = {"fp16": 16, "int8": 8}[precision]
    if "points_lost" not in worth:
        return f"`{file}` is in {bits} bits{tested.replace(', ', ': ', 1)}{tuned}. {left.capitalize()}."
    return (
        f"`{file}` is in {bits} bits: its top-1 is {worth['validation_top1']:.2%} on the validation images{tested}, "
        f"{worth['points_lost']:+.2f} points lost of fp32's{tuned}. {left.capitalize()}."
    )


def _remarks(facts: BundleFacts) -> str:
    """Return what to know about the figures, point by point."""
    lines = [one_line(text) for text in facts.seen.remarks]
    lines += [f"{one_line(text[:1].upper() + text[1:])}." for text in (facts.study.data_info or {}).get("notes", ())]
    if SPLITS_FILE in facts.shipped:
        lines.append(f"`{SPLITS_FILE}` says which image was in which split.")
    lines += [f"Why this network: {one_line('; '.join(facts.reasons))}."] * bool(facts.reasons)
    lines.append(_accuracy_remark(facts))
    lines += [f"{one_line(text[:1].upper() + text[1:])}." for text in facts.as_good]
    lines += [_rounded_remark(file, worth) for file, worth in facts.rounded.items()]
    if facts.latency is not None:
        lines.append(_latency_remark("The latency", facts.latency))
    lines += [_latency_remark(f"The latency on {one_line(on)}", other) for on, other in facts.elsewhere.items()]
    if facts.export_difference is None:
        lines.append("The exported file was compared with the trained network when it was written, and not since.")
    elif precision_of(Path(facts.model)) == "fp16":
        lines.append(
            f"`{facts.model}` differs from the trained network by {facts.export_difference:.1e} of its largest output, "
            "as weights have 16 bits."
        )
    elif facts.rounded:
        lines.append(
            f"`{facts.model}` differs from its rounded numbers by {facts.export_difference:.1e} of the logits, as "
            "runtimes sum in other orders."
        )
    else:
        lines.append(
            f"The exported file equals the trained network to {facts.export_difference:.1e} of its largest output."
        )
    latencies = [latency for latency in (facts.latency, *facts.elsewhere.values()) if latency is not None]
    missing = dict.fromkeys(
        one_line(latency.runtime) for latency in latencies if not shipped_file(latency, facts.shipped)
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
    if facts.retrains is not None:
        return (
            "The accuracy is the exported network's, on the test split, which was used once for this network. It was "
            f"chosen as `{one_line(facts.retrains)}`\n  on the validation split, and trained again on all but the "
            "test images."
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
