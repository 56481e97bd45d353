"""Studies of every awkward kind for the panels' tests, and ways to read a figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dashboards.data.column_reader import read_columns
from dashboards.data.columns import StudyColumns, View
from dashboards.data.curves import LastEpoch, read_last_epochs
from search.store.rows import StudyRow
from search.store.vocabulary import STATES
from space.config import CondenseNetConfig
from space.errors import ChartUnavailable
from tests.dashboards.studies import SETTINGS, SMALL, Study

LARGE = CondenseNetConfig(stages=(4, 4), growth=(16, 16), input_shape=(1, 8, 8))
HOSTILE = "<script>alert(1)</script>%{x}&" + "x" * 10_000
KINDS = ("empty", "one trial", "all failed", "not a number", "ties", "infeasible only", "hostile", "unpriced")


def columns_of(made: Study) -> StudyColumns:
    return read_columns(made.engine, made.name)


def last_of(made: Study) -> dict[int, LastEpoch]:
    return read_last_epochs(made.engine, made.id)


def awkward(folder: Path, kind: str) -> Study:
    """A study of one of `KINDS`."""
    made = Study(folder)
    if kind == "one trial":
        made.done(0.2, 0.97)
    elif kind == "all failed":
        for reason in ("out of memory", "out of memory", "the loss became nan by step 41"):
            made.failed(reason)
    elif kind == "not a number":
        number = made.priced(0.2)
        made.store.set_running(number, 1)
        made.store.finish(number, "done", top1=float("nan"))
        made.done(0.3, 0.95)
    elif kind == "ties":
        for _ in range(4):
            made.done(0.2, 0.97)
    elif kind == "infeasible only":
        made.infeasible(0.9)
        made.infeasible(9.0, LARGE)
    elif kind == "hostile":
        made.done(0.2, 0.97, device=HOSTILE[:190])
        number = made.running(0.21)
        made.store.finish(number, "failed", reason=HOSTILE)
    elif kind == "unpriced":
        made.asked(SMALL)
        made.store.finish(made.asked(), "infeasible", reason="200,000 macs > 100,000")
    return made


def default_view(columns: StudyColumns) -> View:
    return View(columns.default_group)


def named(figure: Any) -> dict[str, Any]:
    """The figure's traces by name."""
    return {trace.name: trace for trace in figure.data}


def drawn_or_refused(draw: Callable[[Any], Any], info: Any) -> Any:
    """The sound figure of an info; None where it can't be shown, as drawing it is an error with its own exit code."""
    if info.reason is None:
        figure = draw(info)
        is_sound(figure)
        return figure
    with pytest.raises(ChartUnavailable) as caught:
        draw(info)
    assert str(caught.value) == info.reason
    assert caught.value.exit_code == 81
    return None


def is_sound(figure: Any) -> None:
    """What every figure must hold to."""
    document = json.loads(figure.to_json())
    layout = document["layout"]
    assert layout["uirevision"] == "constant"
    assert layout["paper_bgcolor"] == layout["plot_bgcolor"] == "rgba(0,0,0,0)"
    assert "color" not in layout["font"]
    assert not any(
        "color" in (note.get("font") or {}) for note in layout.get("annotations") or []
    )  # the reader's colour
    kinds = {trace["type"] for trace in document["data"]}
    assert not kinds & {"scatter"} or not kinds & {"scattergl"}, "SVG and WebGL in one chart"
    shown = json.dumps([layout.get("annotations"), [[t.get("name"), t.get("text")] for t in document["data"]]])
    assert "<script" not in shown.replace("\\u003c", "<")
    assert "x" * 1000 not in json.dumps(document)


def many(trials: int, seed: int = 0) -> StudyColumns:
    """Columns of so many made-up trials, without a database: trained, refused and failed ones."""
    from dashboards.data.columns import Latencies, LatencyGroup

    rng = np.random.default_rng(seed)
    stages = rng.integers(1, 5, (trials, 3)).astype(float)
    growth = 4.0 * rng.integers(1, 5, (trials, 3))
    groups, factor = (2 ** rng.integers(0, 3, trials) for _ in range(2))
    bottleneck = 2 ** rng.integers(0, 3, trials)
    macs = (2e4 * (stages * growth).sum(axis=1) * bottleneck / factor).astype(np.int64)
    latency = 0.02 + macs / 4e6 * rng.uniform(0.7, 1.4, trials) + 0.01 * stages.sum(axis=1)
    codes = {name: STATES.index(name) for name in ("cancelled", "done", "infeasible", "failed")}
    state = rng.choice([*codes.values()], trials, p=[0.02, 0.7, 0.25, 0.03]).astype(np.int8)
    done = state == codes["done"]
    top1 = np.where(done, np.clip(0.85 + 0.04 * np.log10(macs / 2e4) + rng.normal(0, 0.01, trials), 0, 0.99), np.nan)
    blank = np.full(trials, np.nan)
    row = StudyRow(1, "made-up", 1, 0.0, SETTINGS, "a", "b", {}, None, False, None, None)
    group = LatencyGroup("host", "measured", "host:some-cpu", "onnxruntime 1", 1)
    no = np.zeros(trials, dtype=bool)
    known = Latencies(
        "host", np.zeros(trials, dtype=np.int16), latency, latency * 0.97, latency * 1.03, no, ~no, no,
        latency * 1.1, no, latency, {"upper": latency * 1.03, "median": latency, "p90": latency * 1.1},
        no, blank,
    )  # fmt: skip
    start = np.where(state != codes["infeasible"], np.arange(trials) * 30.0, np.nan)
    return StudyColumns(
        study=row,
        revision="0",
        number=np.arange(trials, dtype=np.int64),
        state=state,
        top1=top1,
        val_loss=blank,
        test_top1=blank,
        macs=macs,
        params=macs // 4,
        attempt=np.ones(trials, dtype=np.int64),
        train_seconds=np.where(done, 20.0, np.nan),
        asked_at=np.arange(trials) * 30.0,
        started_at=start,
        finished_at=np.arange(trials) * 30.0 + 25,
        duplicate_of=blank,
        continues=blank,
        reason=tuple("out of memory" if code == codes["failed"] else None for code in state),
        config_text=tuple(f"made-up {n}" for n in range(trials)),
        config_json=("{}",) * trials,
        groups_1x1=groups,
        condense_factor=factor,
        bottleneck=bottleneck,
        groups_3x3=groups,
        layers=stages.sum(axis=1).astype(np.int64),
        stages=stages,
        growth=growth,
        training=({"epochs": 12},) * trials,
        latencies={"host": known},
        latency_groups=(group,),
    )


def with_settings(columns: StudyColumns, **parts: Any) -> StudyColumns:
    """The columns of a study with other settings."""
    return replace(columns, study=replace(columns.study, settings={**columns.study.settings, **parts}), _fronts={})
