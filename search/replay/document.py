"""A study file's content that replays a table: what it leaves out comes from the table, what it says must agree.

Data, training and devices are the table's, since its trainings were done with no others. The space may be a part of the
table's. Budget, search and engine are the study's own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from search.replay.table import ReplayTable, read_table
from space.domains import Choice, Domain, FloatRange, Value
from space.errors import InvalidSettings
from space.search_space import SearchSpace
from workers.settings import DataSettings, TrainingSettings

TRAININGS, WORKERS = 200, 8
MOST_STAGES = 20  # more than any images have room for
SHARE_INSIDE = 0.75  # of a table's networks, under the latency limit of a study without a file


def document_of(name: str) -> dict[str, Any]:
    """Return a study file's content for a whole search on a table: 200 trainings under a limit that a quarter exceed.

    They are never more than half of the networks inside the limit: a search that trains them all shows nothing.

    Raises:
        TableUnreadable: see `read_table`.
    """
    table = read_table(name)
    name = "condensebench" if table.name.startswith("condensebench") else "replay"
    trainings = max(1, min(TRAININGS, round(SHARE_INSIDE * len(table.seeds)) // 2))
    return {
        "format": 1,
        "study": {"name": name, "trainings": trainings},
        "budget": {"max_latency_ms": latency_limit_ms(table, table.fastest_runtime)},
        "engine": {"workers": WORKERS},
    }


def latency_limit_ms(table: ReplayTable, runtime: str) -> float:
    """Return a limit that the upper ends of `SHARE_INSIDE` of the networks keep, to three digits."""
    known = [table.latency_of(config, runtime) for config in table.seeds]
    highs = [latency.high_ms for latency in known if latency is not None]
    return float(f"{float(np.quantile(highs, SHARE_INSIDE)):.3g}")


def completed(document: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return a study file's content with everything that its [replay] table decides.

    Raises:
        TableUnreadable: see `read_table`.
        InvalidSettings: it asks for what the table's trainings can't answer.
    """
    content = copy.deepcopy(dict(document))
    replay = _part(content, "replay")
    table = read_table(str(replay.get("table")))
    if replay.get("sha256", table.sha256) != table.sha256:
        raise InvalidSettings(f"{origin}: replay.sha256 is not that of the table {table.name}; leave it out.")
    content["replay"] = {**replay, "table": table.name, "sha256": table.sha256}
    data = {name: getattr(table.data, name) for name in DataSettings.model_fields}  # None where a dump leaves one out
    content["data"] = _same("data", _part(content, "data"), data, table, origin)
    training = {name: getattr(table.training, name) for name in TrainingSettings.model_fields}
    content["training"] = _same("training", _part(content, "training"), training, table, origin)
    content["space"] = _inside(_part(content, "space"), table, origin)
    content["latency"] = _latency(_part(content, "latency"), table, origin)
    if _part(content, "engine").get("kind", "local") == "ray":
        raise InvalidSettings(
            f"{origin}: engine.kind = 'ray', but a replay trains nothing, on no cluster either; leave it out."
        )
    return content


def _part(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = content.get(name, {})
    return dict(part) if isinstance(part, Mapping) else {}


def _same(
    part: str, written: Mapping[str, Any], recorded: Mapping[str, Any], table: ReplayTable, origin: str
) -> dict[str, Any]:
    """Return the recorded settings, with which those that are written must agree; where images are is no matter."""
    for key, value in written.items():
        known = _comparable(recorded.get(key))
        if key in recorded and key not in ("folder", "download") and _comparable(value) != known:
            had = "none" if known is None else repr(known)
            raise InvalidSettings(
                f"{origin}: {part}.{key} = {value!r}, but the trainings of {table.name} had {had}; leave it out."
            )
    return {**recorded, **{key: value for key, value in written.items() if key not in recorded}}


def _comparable(value: Any) -> Any:
    """Return a value that stands alone in a list without the list: both are written, and mean the same."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _latency(written: Mapping[str, Any], table: ReplayTable, origin: str) -> dict[str, Any]:
    """Return [latency] on the table's device, with the fastest runtime unless one is named."""
    known = table.latency
    devices = written.get("devices", [known.device])
    if list(devices) != [known.device]:
        raise InvalidSettings(
            f"{origin}: latency.devices must be {[known.device]!r}, since {table.name} knows no other device's "
            f"latencies, but is {devices!r}; leave it out."
        )
    if written.get("threads", known.threads) != known.threads:
        raise InvalidSettings(f"{origin}: latency.threads must be {known.threads}, as in {table.name}; leave it out.")
    runtime = written.get("runtime", "auto")
    if isinstance(runtime, Mapping):
        runtime = runtime.get(known.device, "auto")
    if runtime == "auto":
        runtime = table.fastest_runtime
    if runtime not in known.runtimes:
        there = ", ".join(known.runtimes)
        raise InvalidSettings(f"{origin}: latency.runtime must be one of {table.name}'s ({there}), but is {runtime!r}.")
    return {**written, "devices": [known.device], "threads": known.threads, "runtime": runtime, "predict": False}


def _inside(written: Mapping[str, Any], table: ReplayTable, origin: str) -> dict[str, Any]:
    """Return the space that is written, filled up from the table's, in which it must lie."""
    recorded = table.space.to_settings()
    space = SearchSpace.from_settings({**recorded, **written})
    if (space.input_shape, space.num_classes) != (table.space.input_shape, table.space.num_classes):
        raise InvalidSettings(f"{origin}: space.input_shape and num_classes must be those of {table.name}.")
    theirs = table.space.domains
    for name, domain in _values(space, table.space.growth_rule).items():
        outside = _outside(domain, theirs.get(name))
        if outside is not None:
            raise InvalidSettings(
                f"{origin}: space.{name} holds {outside!r}, for which {table.name} has no trainings; take it out, or "
                "leave [space] out to search the table's."
            )
    return space.to_settings()


def _values(space: SearchSpace, recorded_rule: str) -> dict[str, Domain]:
    """Return the domains that must lie within a table's; those of stages that no network has are left out."""
    stages = max(cast(tuple[int, ...], space.num_stages.enumerate()))
    unused = {f"{what}_{number}" for what in ("layers", "growth") for number in range(stages + 1, MOST_STAGES)}
    domains = {name: domain for name, domain in space.domains.items() if name not in unused}
    if space.growth_rule == "doubling" and recorded_rule == "free":
        first = cast(tuple[int, ...], space.growth[0].enumerate() or space.growth[0].extremes())
        for stage in range(1, stages):
            domains[f"growth_{stage + 1}"] = Choice(tuple(growth << stage for growth in first))
    return domains


def _outside(domain: Domain, recorded: Domain | None) -> Value | str | None:
    """Return a value of a domain that is not among the recorded ones; None if there is none."""
    if recorded is None:
        return "a stage"
    if isinstance(domain, FloatRange) and not isinstance(recorded, FloatRange):
        return domain.low
    return next((value for value in domain.enumerate() or domain.extremes() if not recorded.contains(value)), None)
