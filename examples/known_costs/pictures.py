"""The pictures of docs/how-it-searches.md: two of a search on digits, one of the benchmark of sample efficiency.

    python -m examples.known_costs.pictures [--trainings 14] [--out docs/images]

An info first (plain data), then a figure of it, as every chart of the project. Writing them needs `condensery[plots]`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from dashboards.panels.style import COLOURS, DASHES, FRONT, GREY, STAR, empty_figure, slim
from examples.known_costs.arguments import whole_number
from examples.known_costs.digits import SPACE, accuracy_of, study_with, weights_of
from search.samplers.price_aware.pool import Pool

Array = NDArray[np.float64]
RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TABLES = {  # those without a limit, with all peers in one run, and what the pictures call them
    "condensebench": "CondenseBench: accuracy, macs",
    "nasbench201_arm": "NAS-Bench-201: accuracy, latency",
}
NAMES = {  # how the picture calls the samplers of a result, in its order
    "price-aware": "price-aware (ours)",
    "cost-spread": "spread over the costs alone",
    "tpe-multivariate": "Optuna's TPE, multivariate",
    "tpe": "Optuna's TPE",
    "gp": "Optuna's GPSampler",
    "nsga2": "Optuna's NSGA-II",
    "random": "random",
}
START, SHOWN = 6, 300  # trainings that begin a study; candidates that are drawn


@dataclass(frozen=True, eq=False)
class SearchInfo:
    """One search after some trainings; costs are numbers of weights, accuracies in %."""

    costs: Array  # of random candidates, known without training
    at_random: Array  # of the first six that are drawn at random
    spread: Array  # of the first six that were trained
    trained: tuple[Array, Array]  # costs and accuracies of all that were trained
    front: tuple[Array, Array, Array]  # of candidates: costs, predicted accuracies, their deviations
    candidates: tuple[Array, Array]  # costs, and how much each is expected to add, % of the front
    chosen: tuple[float, float, float]  # cost, predicted accuracy and gain of the next training


def search_info(trainings: int, accuracy: Any = accuracy_of) -> SearchInfo:
    """Search digits; return what is known, trained and believed then."""
    study, sampler = study_with()
    for _ in range(trainings):
        trial = study.ask(SPACE)
        study.tell(trial, (accuracy(trial.params), float(weights_of(trial.params))))
    belief = sampler.outlook(study, trainings)
    assert belief is not None
    assert sampler.view is not None
    view, values = sampler.view, np.array([trial.values for trial in study.trials])
    gains = 100 * view.judged.scores / view.model.front.volume
    best = int(np.argmax(gains))
    front = sorted((weights_of(one.params), 100 * (one.mean or 0), 100 * (one.deviation or 0)) for one in belief.front)
    drawn = Pool(SPACE).random(SHOWN, np.random.default_rng(1))
    known = np.array([float(weights_of(params)) for params in drawn])
    return SearchInfo(
        costs=known,
        at_random=known[:START],
        spread=values[:START, 1],
        trained=(values[:, 1], 100 * values[:, 0]),
        front=tuple(np.array(column, dtype=float) for column in zip(*front, strict=True)),  # type: ignore[arg-type]
        candidates=(view.priced.costs[:, 0], gains),
        chosen=(float(view.priced.costs[best, 0]), 100 * float(view.judged.believed.median[best]), float(gains[best])),
    )


def start_figure(info: SearchInfo) -> Any:
    """Return how a search begins: known costs, and which of them are trained first."""
    import plotly.graph_objects as go

    figure = empty_figure(250)
    rows = (
        (f"{SHOWN} candidates, nothing trained", info.costs, {"symbol": "line-ns-open", "size": 12, "color": GREY}),
        ("the first six at random", info.at_random, {"symbol": "circle-open", "size": 11, "color": GREY}),
        ("the first six of this sampler", info.spread, {"symbol": "diamond", "size": 12, "color": FRONT}),
    )
    for name, costs, marker in rows:
        figure.add_trace(go.Scatter(x=slim(costs), y=[name] * len(costs), mode="markers", marker=marker, name=name))
    figure.update_xaxes(type="log", dtick="D2", tickformat="~s", title={"text": "weights, known before training"})
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(showlegend=False, margin={"l": 220, "t": 16})
    return figure


def choice_figure(info: SearchInfo) -> Any:
    """Return how a candidate is chosen: the predicted front above, what each candidate is expected to add below."""
    import plotly.graph_objects as go

    figure = empty_figure(560)
    cost, mean, deviation = info.front
    trained, accuracy = _steps(*info.trained)
    line: dict[str, Any] = {"mode": "lines", "xaxis": "x", "yaxis": "y"}
    low, high, mean = (np.clip(mean + off * deviation, 0.0, 100.0) for off in (-1.96, 1.96, 0.0))
    figure.add_trace(go.Scatter(x=slim(cost), y=slim(low), line={"width": 0}, showlegend=False, **line))
    band = {"fill": "tonexty", "fillcolor": "rgba(217,102,10,0.16)", "line": {"width": 0}}
    figure.add_trace(go.Scatter(x=slim(cost), y=slim(high), name="predicted, 95 % interval", **band, **line))
    dashed = {"color": STAR, "dash": "dash", "width": 2}
    figure.add_trace(go.Scatter(x=slim(cost), y=slim(mean), name="predicted front", line=dashed, **line))
    stepped = {"color": FRONT, "shape": "hv", "width": 2}
    figure.add_trace(go.Scatter(x=slim(trained), y=slim(accuracy), name="trained front", line=stepped, **line))
    dots = {"mode": "markers", "marker": {"color": FRONT, "size": 6}, "name": "trained"}
    figure.add_trace(go.Scatter(x=slim(info.trained[0]), y=slim(info.trained[1]), **dots))
    gains = {"mode": "markers", "marker": {"color": GREY, "size": 3}, "name": "expected gain of a candidate"}
    costs, shares = info.candidates
    some = np.argsort(shares)[-SHOWN:]
    figure.add_trace(go.Scatter(x=slim(costs[some]), y=slim(shares[some]), yaxis="y2", **gains))
    star = {"symbol": "star", "size": 16, "color": STAR}
    for place, axis in ((info.chosen[1], "y"), (info.chosen[2], "y2")):
        shown = {"name": "trained next", "showlegend": axis == "y", "mode": "markers", "marker": star}
        figure.add_trace(go.Scatter(x=[info.chosen[0]], y=[place], yaxis=axis, **shown))
    lowest = float(np.floor(min(accuracy.min(), np.median(low)) / 5) * 5)
    title = {"text": "weights, known before training"}
    figure.update_xaxes(type="log", dtick="D2", tickformat="~s", title=title, anchor="y2")
    second = {**figure.layout.yaxis.to_plotly_json(), "domain": [0.0, 0.27], "title": {"text": "gain, % of front"}}
    figure.update_layout(
        yaxis={"domain": [0.36, 1.0], "title": {"text": "accuracy, %"}, "range": [lowest, 101]},
        yaxis2={**second, "anchor": "x", "rangemode": "tozero"},
        legend={"y": -0.16},
    )
    return figure


def _steps(cost: Array, accuracy: Array) -> tuple[Array, Array]:
    """Return those that are more accurate than every cheaper one, cheapest first."""
    order = np.lexsort((-accuracy, cost))
    rises = accuracy[order] > np.maximum.accumulate(np.concatenate([[-np.inf], accuracy[order][:-1]]))
    return cost[order][rises], accuracy[order][rises]


def efficiency_figure(results: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return the share of the hypervolume by trainings, a panel for each result of the benchmark, under its title."""
    import plotly.graph_objects as go

    figure = empty_figure(430)
    width, gap = 1.0 / len(results), 0.08 / len(results)
    looks = dict(zip(NAMES, zip((STAR, GREY, FRONT, *COLOURS[2:]), (*DASHES, "solid"), strict=False), strict=True))
    axis = figure.layout.xaxis.to_plotly_json()
    for panel, (title, result) in enumerate(results.items()):
        end = "" if panel == 0 else str(panel + 1)
        for name in (name for name in NAMES if name in result["peers"]):
            median, (colour, dash) = result["peers"][name]["median"], looks[name]
            line = {"color": colour, "dash": dash, "width": 3 if name == "price-aware" else 2}
            drawn = {"name": NAMES[name], "line": line, "mode": "lines+markers", "marker": {"size": 5}}
            places = {"xaxis": f"x{end}", "yaxis": f"y{end}", "legendgroup": name, "showlegend": panel == 0}
            figure.add_trace(go.Scatter(x=list(map(int, median)), y=list(median.values()), **drawn, **places))
        domain = [panel * width + (gap if panel else 0), (panel + 1) * width - gap]
        ticked = [int(at) for at in result["peers"]["random"]["median"]]
        ticks = {"type": "log", "tickvals": ticked, "title": {"text": f"trainings ({title})", "standoff": 14}}
        figure.update_layout({f"xaxis{end}": {**axis, **ticks, "domain": domain, "anchor": f"y{end}"}})
        side = {"title": {"text": "share of the hypervolume"}} if panel == 0 else {}
        figure.update_layout({f"yaxis{end}": {**axis, **side, "range": [0.6, 1.01], "anchor": f"x{end}"}})
    figure.update_layout(legend={"y": -0.22})
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=whole_number(START), default=14)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    from dashboards.panels.image_files import Paper, write_figure

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    info = search_info(options.trainings)
    results = {
        title: json.loads((RESULTS / f"sample_efficiency_{table}.json").read_text())["result"]
        for table, title in TABLES.items()
    }
    figures = {"start": start_figure(info), "choice": choice_figure(info), "efficiency": efficiency_figure(results)}
    for name, figure in figures.items():
        path = options.out / f"search-{name}.svg"
        write_figure(figure, path, Paper(width_px=900))
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
