"""Trials that differ between Optuna's tables and ours; the search uses ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState as OptunaState

from search.doctor.findings import Finding, StudyUnderCheck
from search.loop.mirror import OptunaMirror
from search.samplers.proposer import Proposer
from search.store.rows import TrialRow
from search.store.vocabulary import FINAL_STATES
from search.study import OpenStudy
from workers.wording import agreeing

_OPTUNA = models.TrialModel.__table__
_OPTUNA_VALUES = models.TrialValueModel.__table__
_OURS = "the search uses our tables, but Optuna's mislead their readers: find out what wrote there"


def unequal_trials(study: StudyUnderCheck, rows: Sequence[TrialRow], idle: bool) -> Iterator[Finding]:
    """Find trials that differ between Optuna's tables and ours."""
    theirs, values = _optuna_trials(study)
    proposer, mirror = Proposer(study.opened.settings), OptunaMirror.of(study.opened)
    left_open = [number for number, row in theirs.items() if not row.state.is_finished()]
    if left_open and idle:
        text = f"Optuna's tables hold {_trials(left_open)} as open; ours hold none as open"
        yield Finding("Optuna, open", text, "dropped there", repair=mirror.drop_open_trials)
    final = {row.number: row for row in rows if row.state in FINAL_STATES}
    numbers = {row.number for row in rows}
    finished = {number: row for number, row in theirs.items() if row.state.is_finished()}
    missing = [row for number, row in final.items() if number not in finished or not row.mirrored]
    if missing and idle:
        text = f"Optuna's tables don't hold {_trials([row.number for row in missing])}, or ours don't know that they do"
        yield Finding("Optuna, missing", text, "written there", repair=partial(_mirror, study.opened, missing))
    for number, row in finished.items():
        if number not in final:
            never_recorded = row.state == OptunaState.FAIL and number not in numbers
            if idle and not never_recorded:
                text = f"Optuna's tables hold trial {number} as {row.state.name}, ours as no trial that has ended"
                yield Finding("Optuna, differs", text, _OURS, number)
            continue
        expected, state = proposer.outcome_for_optuna(final[number])
        if (row.state, values.get(number)) != (state, expected):
            text = (
                f"trial {number} is {state.name} {expected or ''} by our tables, but {row.state.name} "
                f"{values.get(number) or ''} in Optuna's"
            )
            yield Finding("Optuna, differs", " ".join(text.split()), _OURS, number)


def _optuna_trials(study: StudyUnderCheck) -> tuple[dict[int, Any], dict[int, list[float]]]:
    """Return the study's rows in Optuna's table of trials, and their values, by number."""
    mine = _OPTUNA.c.study_id == study.opened.optuna_study_id
    with study.engine.connect() as connection:
        theirs = {row.number: row for row in connection.execute(sa.select(_OPTUNA).where(mine))}
        joined = sa.select(_OPTUNA.c.number, _OPTUNA_VALUES).join(_OPTUNA_VALUES).where(mine)
        values: dict[int, list[float]] = {}
        for row in connection.execute(joined.order_by(_OPTUNA_VALUES.c.objective)):
            value = models.TrialValueModel.stored_repr_to_value(row.value, row.value_type)
            values.setdefault(row.number, []).append(value)
    return theirs, values


def _mirror(study: OpenStudy, missing: Sequence[TrialRow]) -> None:
    mirror = OptunaMirror.of(study)
    for row in missing:
        mirror.add(row)
    mirror.write()


def _trials(numbers: Sequence[int]) -> str:
    listed = ", ".join(map(str, sorted(numbers)[:10])) + (", …" if len(numbers) > 10 else "")
    return f"{agreeing(len(numbers), 'trial', 'trials')} {listed}"
