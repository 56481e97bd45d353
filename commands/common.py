"""What the commands share: options, output, and opening the study that the user named.

Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from search.store.connection.printed_commands import STORAGE
from space.errors import DeviceNotFound, InvalidSettings, StudyNotFound
from workers.latency.record import LatencyStatistic

if TYPE_CHECKING:
    import sqlalchemy as sa
    from rich.console import Console

    from dashboards.data.columns import StudyColumns
    from search.settings import StudySettings
    from search.store.rows import StudyRow, TrialRow
    from search.store.store import StudyStore

INTERRUPTED = 130

StudyFile = Annotated[Path, typer.Argument(help="The study file, like study.toml.", show_default=False)]
StudyName = Annotated[
    str | None,
    typer.Argument(help="The study's name or study file; not needed if it is the only study.", metavar="[STUDY]"),
]
TrialNumber = Annotated[int, typer.Argument(help="The trial's number.", min=0)]
Storage = Annotated[
    str | None,
    typer.Option(
        help="URL of the study database.",
        envvar=STORAGE,
        show_default="the study file's, or sqlite:///condensery.db",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, like training.epochs=5; may be repeated."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="CONDITION",
        help="Only trials of which this is true, like 'latency_ms<5', 'top1>=97%' or state=done; may be repeated.",
    ),
]
Sort = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Sort by a column, the best first: accuracies from the highest, all else from the lowest; "
        "a - before it turns the order round.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, help="Show so many at most.")]
Csv = Annotated[Path | None, typer.Option(help="Write them as CSV; - is standard output.", metavar="FILE")]
Wide = Annotated[bool, typer.Option("--wide", help="Show all columns, each trial on one line however long.")]
LatencyLimits = Annotated[
    list[str] | None,
    typer.Option(
        "--max-latency-ms",
        metavar="MS|DEVICE=MS",
        help="Highest latency allowed, in ms; may be repeated for other devices.",
    ),
]


Statistic = Annotated[
    LatencyStatistic | None,
    typer.Option(
        "--latency-statistic",
        help="What of a latency must keep its limit: the upper end of its 95 % interval, the median, or p90.",
        show_default="the study's",
    ),
]


def console(stderr: bool = False, width: int | None = None) -> Console:
    """Return the console for data, or for messages: text is printed as it is, whatever brackets and colons it has.

    It has the terminal's columns, or `width`.
    """
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=width)


def show_text(renderable: Any, width: int | None = None) -> None:
    """Print a line, or what rich can render, on stdout, in the terminal's columns or in `width` columns."""
    console(width=width).print(renderable, crop=False)  # a path longer than the line stays whole


def show_written(path: Path) -> None:
    """Print that a file was written: on stdout, or on stderr where what was written may be on stdout.

    What was written to standard output itself is there to see.
    """
    from workers.files import is_replaceable

    if is_replaceable(path):
        show_text(f"wrote {path}")
    elif str(path) != "-":
        say(f"wrote {path}")


def print_json(document: Any) -> None:
    """Print a document as JSON on stdout."""
    holds_all = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=not holds_all) + "\n")


def output(as_json: bool, document: Callable[..., Any], text: Callable[..., Any], *values: Any) -> None:
    """Print values on stdout: as the JSON document or as the text that these functions make of them."""
    if as_json:
        print_json(document(*values))
    else:
        show_text(text(*values))


def say(text: str) -> None:
    """Print a message on stderr."""
    sys.stderr.write(f"{text}\n")


def database_url(storage: str | None) -> str:
    """Return the URL of the database that `--storage` names, or of the default one."""
    from search.store.connection.database import DEFAULT_STORAGE

    return storage or DEFAULT_STORAGE


def name_and_url(study: str | None, storage: str | None) -> tuple[str | None, str]:
    """Return the study's name (None: the only one) and the URL of its database."""
    if study is not None and study.endswith(".toml"):
        from search.study_file import load_settings

        settings = load_settings(Path(study))
        return settings.study.name, storage or settings.storage
    return study, database_url(storage)


def limits_by_device(
    given: Sequence[str], devices: Sequence[str], option: str = "--max-latency-ms"
) -> dict[str, float]:
    """Return the limits that an option gives by device name; a bare number is for the first device.

    Raises:
        InvalidSettings: a limit isn't a number above 0, or names a device that the study doesn't have.
    """
    limits: dict[str, float] = {}
    for text in given:
        device, _, number = text.rpartition("=")
        try:
            limit_ms = float(number)
        except ValueError:
            limit_ms = math.nan
        if not 0 < limit_ms < math.inf:
            raise InvalidSettings(f"{option} must be a number > 0 or DEVICE=number, but got {text!r}.")
        if device and device not in devices:
            raise InvalidSettings(f"{option} {text}: the study's devices are {', '.join(devices)}.")
        limits[device or devices[0]] = limit_ms
    return limits


def open_named(study: str | None, storage: str | None, write: bool = False) -> tuple[sa.Engine, StudyRow, str]:
    """Return the database, the study that the user named (or the only one), and the database's URL.

    Raises:
        StudyNotFound: there is no such study, or no name was given and there isn't exactly one study.
    """
    from search.store import reader
    from search.store.connection.database import open_for_reading, open_for_writing

    name, url = name_and_url(study, storage)
    engine = open_for_reading(url)
    if name is None:
        studies = [row for row in reader.list_studies(engine) if not row.settings["study"].get("retrains")]
        if len(studies) != 1:
            names = ", ".join(repr(row.name) for row in studies[:10])
            raise StudyNotFound(f"name a study: {names}." if names else "the database holds no study yet; launch one.")
        name = studies[0].name
    row = reader.find_study(engine, name)
    return (open_for_writing(url) if write else engine), row, url


def columns_named(names: Sequence[str], storage: str | None) -> list[StudyColumns]:
    """Return several studies as columns, in the order named; each is named once, and at most four are.

    Raises:
        InvalidSettings: there are too many, or one is named twice. StudyNotFound: there is none of a name.
    """
    from dashboards.data.column_reader import read_columns
    from dashboards.studies.common_ground import MOST_STUDIES

    if len(names) > MOST_STUDIES:
        raise InvalidSettings(f"at most {MOST_STUDIES} studies can be compared, but got {len(names)}.")
    opened = [open_named(name, storage) for name in names]
    found = [(row.name, url) for _, row, url in opened]
    twice = next((name for place, (name, url) in enumerate(found) if (name, url) in found[:place]), None)
    if twice is not None:
        raise InvalidSettings(f"each study can be named once, but {twice!r} is named twice.")
    return [read_columns(engine, row.name) for engine, row, _ in opened]


def comparison_limit(studies: Sequence[StudyColumns], given: Sequence[str]) -> tuple[str | None, float | None]:
    """Return the device and the limit in ms that `--max-latency-ms` gives for several studies; None, None: not given.

    Raises:
        InvalidSettings: see `limits_by_device`; or there are several limits.
    """
    from dashboards.data.study_settings import devices_of

    limits_ms = limits_by_device(given, devices_of(studies[0].study.settings))
    if len(limits_ms) > 1:
        raise InvalidSettings("several studies can be given one --max-latency-ms, on one device.")
    return next(iter(limits_ms.items()), (None, None))


def store_named(study: str | None, storage: str | None) -> tuple[StudyStore, StudyRow, str]:
    """Return the study that the user named, opened for writing, its row, and the database's URL."""
    from search.store.store import StudyStore

    engine, row, url = open_named(study, storage, write=True)
    return StudyStore(engine, row.id), row, url


def settings_for_device(study: StudyRow, rows: Sequence[TrialRow], device: str | None) -> StudySettings:
    """Return a study's settings; for a device that it was repriced on, as if that one were its only device.

    Raises:
        DeviceNotFound: it wasn't repriced there.
    """
    settings = stored_settings(study)
    if device is None or device == settings.latency.devices[0]:
        return settings
    from search.pricing.repricing import settings_on

    measured = {name for row in rows for name in row.latencies}
    if device not in measured:
        raise DeviceNotFound(
            f"no network of study {study.name!r} was measured on {device!r} (there are: "
            f"{', '.join(sorted(measured)) or 'none'}); measure them: condensery reprice {study.name} --device {device}"
        )
    if device in settings.latency.devices:
        raise InvalidSettings(
            f"{device!r} is a further device of the study itself; give its limit by --max-latency-ms {device}=MS."
        )
    runtime = next(row.latencies[device].runtime for row in rows if device in row.latencies)
    return settings_on(settings, device, runtime)


def stored_settings(study: StudyRow) -> StudySettings:
    """Return the settings that a study is stored with."""
    from search.study_file import settings_from

    return settings_from(study.settings, "the stored settings")
