"""The answers of `check` and `pick`, for people and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dashboards.formats import count, duration, latency_label, one_line, threads_text
from dashboards.terminal.documents import latency_document, plain, trial_document

if TYPE_CHECKING:
    from search.results.bundle import Picked
    from search.time_estimate import Estimate, TimeEstimate
    from workers.latency.record import LatencyRecord


def estimate_panel(found: Estimate) -> RenderableType:
    """Return what `check` shows at once: images, space, sampled networks."""
    study, data = found.settings.study, found.data
    size = "more architectures than can be counted" if found.size is None else f"{found.size:,} architectures"
    varied = f" x training settings ({', '.join(found.training_varied)})" if found.training_varied else ""
    shape = "x".join(map(str, data.input_shape))
    facts = Table.grid(padding=(0, 2))
    for name, text in (
        ("study", f"{one_line(study.name)}: {study.trainings} trainings, valid"),
        ("images", f"{one_line(data.dataset)}, {shape}, {data.num_classes} classes"),
        ("", f"{data.train_images} training, {data.validation_images} validation, {data.test_images} test"),
        ("balance", f"the largest class is {data.imbalance:.1f} times the smallest"),
        ("space", size + varied),
        ("budget", f"{found.share_inside:.0%} of sampled architectures are inside the macs and params limits"),
    ):
        facts.add_row(Text(name, style="dim"), Text(text))
    samples = Table("sampled architecture", "macs", "params", box=None, padding=(0, 2, 0, 0))
    for config, cost in found.samples:
        samples.add_row(Text(str(config)), count(cost.macs), count(cost.params))
    return Group(facts, Text(""), samples)


def time_line(found: Estimate, timed: TimeEstimate) -> RenderableType:
    """Return the time that `check` reckons."""
    workers = found.settings.engine.workers
    return Text(
        f"about {duration(timed.seconds_per_training)} a training ({timed.device}, a few steps timed on this machine), "
        f"{duration(timed.seconds_in_all)} in all with {workers} worker{'s' if workers > 1 else ''}"
    )


def estimate_document(found: Estimate, timed: TimeEstimate | None) -> dict[str, Any]:
    """Return `check` as plain JSON values."""
    samples = [
        {"config": plain(config.to_dict()), "config_text": str(config), "macs": cost.macs, "params": cost.params}
        for config, cost in found.samples
    ]
    return {
        "name": found.settings.study.name,
        "trainings": found.settings.study.trainings,
        "data": plain(found.data.to_dict()),
        "space_size": found.size,
        "training_varied": list(found.training_varied),
        "share_inside_macs_and_params": found.share_inside,
        "samples": samples,
        "estimated_seconds_per_training": None if timed is None else plain(timed.seconds_per_training),
        "estimated_seconds_in_all": None if timed is None else plain(timed.seconds_in_all),
        "device": None if timed is None else timed.device,
    }


def picked_panel(picked: Picked, folder: Path | None) -> RenderableType:
    """Return what `pick` shows: the network, its accuracy, its latency, and where the bundle is."""
    row, seen = picked.trial, picked.verified
    facts = Table.grid(padding=(0, 2))
    lines = [
        ("pick", f"trial {row.number}: {row.config}"),
        ("test top-1", f"{picked.test_top1:.2%} (validation {row.top1 or 0.0:.2%})"),
        ("latency", _latency_line(seen)),
        ("on", f"{one_line(seen.device)}, {seen.runtime} {seen.runtime_version}, {threads_text(seen.threads)}"),
        *(("and", f"{_latency_line(other)} on {one_line(other.device)}") for other in picked.elsewhere.values()),
        ("cost", f"{row.macs:,} macs, {row.params:,} params"),
        ("budget", f"{picked.budget}; the best of {picked.candidates} trained networks inside it"),
    ]
    lines += [("passed over", text) for text in picked.passed_over]
    if folder is not None:
        lines.append(("bundle", str(folder)))
    for name, text in lines:
        facts.add_row(Text(name, style="dim"), Text(text))
    return facts


def _latency_line(seen: LatencyRecord) -> str:
    return f"{seen.median_ms:.4g} ms, up to {seen.interval_high_ms:.4g} ({latency_label(seen)})"


def picked_document(picked: Picked, folder: Path | None) -> dict[str, Any]:
    """Return `pick` as plain JSON values; the latency is the verification's."""
    return {
        "trial": trial_document(picked.trial),
        "test_top1": plain(picked.test_top1),
        "test_evaluations_of_study": picked.test_evaluations,
        "budget": plain(vars(picked.budget)),
        "candidates": picked.candidates,
        "passed_over": list(picked.passed_over),
        "verified_latency": latency_document(picked.verified.record),
        "verified_elsewhere": {name: latency_document(seen.record) for name, seen in picked.elsewhere.items()},
        "export_difference": plain(picked.export_difference),
        "bundle": None if folder is None else str(folder),
    }
