"""What the search predicts of networks that were not trained: all that an answer says beyond what was trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.budget.controls import finite
from dashboards.data.beliefs import interval_of, possible, predicted_text
from dashboards.formats import digits_ms, one_line
from search.store.rows import Believed


@dataclass(frozen=True)
class Predicted:
    """A network that was not trained, with its predicted score and latencies."""

    score: float
    latencies_ms: tuple[float, ...]  # predicted medians, on the devices of the table; infinite where there is none
    words: str  # "87.2 % [85.1, 89.3] at about 0.312 ms"
    code: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; an infinite latency is null."""
        return {**vars(self), "latencies_ms": [finite(ms) for ms in self.latencies_ms]}


def predicted_of(believed: Sequence[Believed], targets: Sequence[str]) -> tuple[Predicted, ...]:
    """Return the candidates of which a score is predicted, the best first."""
    found = [_predicted(one, targets) for one in believed if interval_of(one.proposal) is not None]
    return tuple(sorted(dict.fromkeys(found), key=lambda one: -one.score))


def _predicted(one: Believed, targets: Sequence[str]) -> Predicted:
    latencies_ms = tuple(one.latencies_ms.get(target, math.inf) for target in targets)
    known = [(target, ms) for target, ms in zip(targets, latencies_ms, strict=True) if math.isfinite(ms)]
    at = [f"{digits_ms(ms)} ms" + (f" on {target}" if len(targets) > 1 else "") for target, ms in known]
    reached = predicted_text(one.proposal).removesuffix(" predicted")
    words = f"{reached} at about {' and '.join(at)}" if at else reached
    return Predicted(possible(one.proposal.score), latencies_ms, words, one_line(one.text, 120))
