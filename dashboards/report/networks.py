"""The networks of the front as the report carries them: each drawn, with its parts and its exact settings."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import sqlalchemy as sa

from dashboards.data.columns import StudyColumns, View
from dashboards.formats import one_line, percent
from dashboards.panels.titles import heading_of
from dashboards.report.charts import Drawn
from space.config import CondenseNetConfig
from space.errors import DeviceNotFound, InvalidConfig

MOST_NETWORKS = 24  # drawing one takes 50 ms


def networks_json(engine: sa.Engine, columns: StudyColumns) -> bytes:
    """Return the most accurate networks of the front for the page's script: `[{"number", "title", ...}]`."""
    return f"[{', '.join(_networks(engine, columns))}]".encode()


def _networks(engine: sa.Engine, columns: StudyColumns) -> Iterator[str]:
    from dashboards.panels.trial.network import network_figure, network_info
    from search.pricing.layer_shares import DeviceShares, LayerShares
    from search.store.reader import find_trial

    view = View(columns.default_group)
    shares = DeviceShares(engine)
    for place in front_places(columns):
        try:
            config = CondenseNetConfig.from_json(columns.config_json[place])
        except InvalidConfig:  # a damaged row can't be drawn
            continue
        number = int(columns.number[place])
        latency = find_trial(engine, columns.study, number).latency
        share: LayerShares | str | None = None
        if latency is not None:
            try:
                share = shares.of(config, latency)
            except DeviceNotFound as error:
                share = str(error)
        title = (
            f"trial {number}: {percent(float(columns.score[place]))} {columns.score_name}, {one_line(str(config), 120)}"
        )
        info = network_info(config, share, title)
        training = json.dumps(dict(columns.training[place]), indent=1)
        words = {
            "number": number,
            "title": title,
            "sentence": info.sentence(),
            "note": info.share_note,
            "settings": f"architecture = {json.dumps(config.to_dict(), indent=1)}\ntraining = {training}",
        }
        drawn = Drawn.of(info, network_figure, heading_of(columns, view, title))
        yield f'{json.dumps(words)[:-1]}, "chart": {drawn.to_json()}}}'


def front_places(columns: StudyColumns) -> list[int]:
    """Return the places of the front's most accurate trials in the columns, best first."""
    front = np.flatnonzero(columns.front(columns.default_group))
    order = np.argsort(-columns.score[front], kind="stable")[:MOST_NETWORKS]
    return [int(place) for place in front[order]]
