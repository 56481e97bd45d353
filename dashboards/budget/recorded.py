"""What an answer says of networks beside the columns: predictions, sizes of files, memory, the sampler's belief."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa

from search.results.predictions import read_believed
from search.results.trained_files import file_sizes
from search.store.reader import read_class_predictions, read_prices
from search.store.rows import Believed, StudyRow
from workers.latency.record import LatencyRecord
from workers.metrics import Predictions


@dataclass(frozen=True)
class Recorded:
    """What is recorded of some networks, by the number of the trial."""

    predictions: Mapping[int, Predictions] = field(default_factory=dict)  # of the validation images
    prices: Mapping[int, Mapping[str, LatencyRecord]] = field(default_factory=dict)  # by device
    file_bytes: Mapping[int, int] = field(default_factory=dict)  # of the ONNX file
    believed: Sequence[Believed] = ()  # candidates that were not trained, with what is predicted of them


NOTHING_RECORDED = Recorded()


def read_recorded(engine: sa.Engine, study: StudyRow, numbers: Sequence[int]) -> Recorded:
    """Return what is recorded of some trials of a study.

    Raises:
        StudyDamaged: predictions can't be read.
    """
    belief = read_believed(engine, study.id)
    return Recorded(
        predictions=read_class_predictions(engine, study.id, numbers),
        prices=read_prices(engine, study.id, numbers),
        file_bytes=file_sizes(engine, study, numbers),
        believed=() if belief is None else (*belief.front, *belief.ahead),
    )
