"""What cross-validation found, for people and as JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from dashboards.formats import percent
from dashboards.terminal.documents import plain
from dashboards.terminal.tables import plain_table
from search.crossvalidation import FoldScore, mean_and_deviation
from workers.wording import counted


def folds_table(scores: Sequence[FoldScore]) -> RenderableType:
    """Return a row for each fold, and the mean of those that the network wasn't chosen on."""
    table = plain_table(">fold", ">top-1", ">balanced accuracy", ">macro-F1", ">images", "")
    for score in scores:
        accuracies = (percent(score.top1), percent(score.balanced_accuracy), percent(score.macro_f1))
        chosen = "the search judged by it" if score.chosen_on else ""
        table.add_row(str(score.fold), *accuracies, str(score.images), chosen)
    mean, deviation = mean_and_deviation(scores)
    spread = "" if math.isnan(deviation) else f" ± {100 * deviation:.2f} points (standard deviation)"
    folds = counted(sum(not score.chosen_on for score in scores), "fold")
    return Group(table, Text(""), Text(f"top-1 {percent(mean)}{spread} over the {folds} that it wasn't chosen on"))


def folds_document(scores: Sequence[FoldScore]) -> dict[str, Any]:
    """Return the folds as plain JSON values."""
    mean, deviation = mean_and_deviation(scores)
    return {
        "folds": [plain(asdict(score)) for score in scores],
        "top1_mean": plain(mean),
        "top1_deviation": None if math.isnan(deviation) else plain(deviation),
    }
