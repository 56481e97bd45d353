"""What `check` answers, for people and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dashboards.formats import count, duration, one_line
from dashboards.terminal.documents import plain
from dashboards.terminal.tables import facts_table
from search.budget import Budget
from search.results.remarks import remarks_on_images
from search.store.replayed import replayed_from, replayed_words
from space.config import code_legend
from workers.metrics import NAMES
from workers.wording import counted

if TYPE_CHECKING:
    from search.time_estimate import StudyOutline, TimeEstimate
    from workers.images.data_info import DataInfo
    from workers.images.reading import DecodingRecord


def outline_panel(outline: StudyOutline) -> RenderableType:
    """Return what `check` shows first: the images, the space, some sampled networks."""
    study, data, table = outline.settings.study, outline.data, replayed_from(outline.settings.model_dump())
    size = "more architectures than can be counted"
    if outline.size is not None:
        size = counted(outline.size, "architecture")
    varied = f" x training settings ({', '.join(outline.training_varied)})" if outline.training_varied else ""
    shape = "x".join(map(str, data.input_shape))
    balance = balance_text(data)
    facts = (
        ("study", f"{one_line(study.name)}: {counted(study.trainings, 'training')}, valid"),
        ("images", f"{one_line(data.dataset)}, {shape}, {counted(data.num_classes, 'class', 'classes')}"),
        ("", f"{data.train_images} training, {data.validation_images} validation, {data.test_images} test"),
        *([] if balance is None else [("balance", balance)]),
        *(("found", text) for text in data.notes),
        *(("note", text) for text in remarks_on_images(data.validation_counts, data.class_names)),
        ("space", size + varied),
        *start_lines(outline),
        *([("", f"{replayed_words(table)}: nothing is trained or measured")] if table is not None else []),
        *(("" if place else "search", line) for place, line in enumerate(search_lines(outline))),
        ("budget", f"{outline.share_inside:.0%} of sampled architectures are inside the macs and params limits"),
    )
    samples = Table("sampled architecture", "macs", "params", box=None, padding=(0, 2, 0, 0))
    for config, cost in outline.samples:
        samples.add_row(Text(str(config)), count(cost.macs), count(cost.params))
    legend = Text(f"architecture: {code_legend(str(config) for config, _ in outline.samples)}", style="dim")
    return Group(facts_table(facts), Text(""), samples, legend)


def start_lines(outline: StudyOutline) -> tuple[tuple[str, str], ...]:
    """Return what trainings start from, and how much of it the sampled network takes that fits it best."""
    lines = []
    for start, fit in outline.starts:
        lines.append(("start", f"{one_line(start.name, 100)}: {start.network.config}"))
        lines.append(("", f"the sampled architecture that fits it best begins with {fit}"))
    return tuple(lines)


STOPPING = {
    "none": "every training runs to its end",
    "rungs": "trainings end early at 60 % or 80 % of their schedule, behind the median of networks that cost no more",
    "conservative": "trainings end early if their chance of the front is below 10 % of what is left of their schedule",
    "aggressive": "trainings end early if their chance of the front is below 40 % of what is left of their schedule",
}


def search_lines(outline: StudyOutline) -> tuple[str, ...]:
    """Return how the study will be searched and when its trainings end, in a few sentences."""
    stopping = outline.settings.search.stopping
    later = "; all but the hopeless go on in the end" if outline.settings.search.pauses else ""
    return (*_sampler_lines(outline), STOPPING[stopping] + later)


def _sampler_lines(outline: StudyOutline) -> tuple[str, ...]:
    settings = outline.settings
    sampler, startup = settings.search.sampler, counted(settings.search.startup, "training")
    if sampler == "random":
        return ("random: every architecture is drawn at random",)
    if sampler != "price-aware":
        begins = "" if sampler == "nsga2" else f"; the first {startup} are random"
        return (
            f"{sampler} (Optuna's): all objectives are modelled from the trainings{begins}",
            "what a network costs is known only once it is proposed and priced",
        )
    devices = ", ".join(one_line(device, 40) for device in settings.latency.devices)
    objective = settings.study.objective
    modelled = "accuracy" if objective == "top1" else NAMES[objective]
    looked = "a sample of candidates and their neighbours"
    if outline.looks_at_whole:
        looked = "every candidate"
    elif outline.whole_until:
        looked = f"every candidate until there are {outline.whole_until:.0f} trainings, then at {looked}"
    limits = (
        "every fourth proposal is for the most accurate network inside the limits; every second, with half as many "
        "spread at first, where under a tenth of the candidates are inside",
    )
    return (
        f"price-aware: {startup} spread over the costs, then whatever is expected to add the most to the front",
        *(limits if settings.search_budget() != Budget() else ()),
        f"known before training: macs, params; latency on {devices}, from what was priced so far; modelled: {modelled}",
        f"each proposal looks at {looked}",
    )


def balance_text(data: DataInfo) -> str | None:
    """Return how much larger the largest class is than the smallest; None where they are about equal."""
    if missing := data.class_counts.count(0):
        return f"no image of {counted(missing, 'class', 'classes')} is used"
    times = f"{data.imbalance:.1f}"
    return None if times == "1.0" else f"the largest class is {times} times the smallest"


def time_line(outline: StudyOutline, timed: TimeEstimate) -> RenderableType:
    """Return the time that `check` estimates."""
    workers = counted(outline.settings.engine.workers, "worker")
    return Text(
        f"about {duration(timed.seconds_per_training)} a training ({timed.device}, a few steps timed on this machine), "
        f"{duration(timed.seconds_in_all)} in all with {workers}"
    )


def read_lines(read: DecodingRecord) -> RenderableType:
    """Return what reading every image brought to light: all files that can't be read, a line each."""
    bad = [Text(f"can't be read: {unreadable}") for unreadable in read.unreadable]
    whole = f"read: {read.total - len(bad):,} of {counted(read.total, 'image')}"
    noted = [Text(f"note: {note}") for note in read.noted]
    return Group(*bad, *noted, Text("; ".join((whole, *read.size_notes()))))


def outline_document(
    outline: StudyOutline, timed: TimeEstimate | None, read: DecodingRecord | None = None
) -> dict[str, Any]:
    """Return `check` as plain JSON values; `read` where every image was read."""
    samples = [
        {"config": plain(config.to_dict()), "config_text": str(config), "macs": cost.macs, "params": cost.params}
        for config, cost in outline.samples
    ]
    settings = outline.settings
    return {
        "name": settings.study.name,
        "replayed_from": replayed_from(outline.settings.model_dump()),
        "trainings": outline.settings.study.trainings,
        "data": plain(outline.data.to_dict()),
        "objective": settings.study.objective,
        "remarks": remarks_on_images(outline.data.validation_counts, outline.data.class_names),
        "space_size": outline.size,
        "training_varied": list(outline.training_varied),
        "share_inside_macs_and_params": outline.share_inside,
        "sampler": settings.search.sampler,
        "startup": settings.search.startup,
        "stopping": settings.search.stopping,
        "looks_at_whole_space": outline.looks_at_whole if settings.search.sampler == "price-aware" else None,
        "samples": samples,
        "starts": [
            {"start": start.setting, "config": plain(start.network.config.to_dict()), "best_fit": plain(asdict(fit))}
            for start, fit in outline.starts
        ],
        "estimated_seconds_per_training": None if timed is None else plain(timed.seconds_per_training),
        "estimated_seconds_in_all": None if timed is None else plain(timed.seconds_in_all),
        "device": None if timed is None else timed.device,
        "images_read": None if read is None else read.total - len(read.unreadable),
        "images_notes": None if read is None else list(read.noted),
        "unreadable": None if read is None else [plain(bad._asdict()) for bad in read.unreadable],
    }
