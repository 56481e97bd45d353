"""The front panel: which trials stand where, the step line, the budget's marks and the reference networks."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards import panels
from dashboards.data.columns import LatencyGroup, View
from dashboards.data.quantities import CountUnit, Further
from dashboards.panels.study.baselines import all_baselines, comparable, dataset_of
from dashboards.panels.study.front import best_line
from dashboards.panels.study.front_svg import front_svg
from space.cost import cost_of
from space.errors import InvalidSettings
from space.presets import PUBLISHED
from tests.dashboards.panels.panel_studies import (
    KINDS,
    LARGE,
    awkward,
    columns_of,
    default_view,
    drawn_or_refused,
    is_sound,
    last_of,
    many,
    named,
    with_settings,
)
from tests.dashboards.studies import SETTINGS, SMALL, Study, lively

ROOT = Path(__file__).parents[4]
ARM_TABLE = ROOT / "benchmarks" / "results" / "paper_arm_table.json"


def front_of(made: Study, **options: object) -> panels.FrontInfo:
    columns = columns_of(made)
    chosen = panels.FrontOptions(last_epochs=last_of(made), **options)  # type: ignore[arg-type]
    return panels.front_info(columns, default_view(columns), chosen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_front_of_a_model_card_is_an_image_with_every_trained_network_and_one_star(tmp_path: Path, kind: str):
    info = front_of(awkward(tmp_path, kind), recommended=0, budget=0.3)
    drawing = ElementTree.fromstring(front_svg(info, "<a & b>"))
    of_kind = Counter(element.tag.rpartition("}")[2] for element in drawing.iter())
    if info.reason is None:
        assert of_kind["circle"] == len(info.trained) + 1  # and one in the legend
        assert of_kind["rect"] == len(info.front) + 2  # and the ground
        assert of_kind["polygon"] == 1 + (0 in {*info.front.number, *info.trained.number})
    else:
        assert info.reason in [text.text for text in drawing.iter()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", ["latency", "macs", "params"])
def test_every_kind_of_study_is_shown_or_says_why_not(tmp_path: Path, kind: str, axis: str) -> None:
    made = awkward(tmp_path, kind)
    columns = columns_of(made)
    view = View(columns.default_group, axis)  # type: ignore[arg-type]
    info = panels.front_info(columns, view, panels.FrontOptions(0.3, 0, last_of(made)))
    figure = drawn_or_refused(panels.front_figure, info)
    assert figure is None or len(figure.data) > 0
    assert all(len(row) == len(info.table().headers) for row in info.table().rows)


def test_each_trial_stands_in_its_role(tmp_path: Path) -> None:
    made = Study(tmp_path)
    fast, best = made.done(0.1, 0.90), made.done(0.3, 0.98)
    beaten = made.done(0.35, 0.97, LARGE)
    refused = made.infeasible(0.9)
    cancelled = made.running(0.2)
    made.store.finish(cancelled, "cancelled", reason="cancelled by request")
    running = made.running(0.25)
    made.failed("out of memory")  # never priced, so nowhere
    info = front_of(made)
    roles = {name: points.number.tolist() for name, points in info.roles.items()}
    assert roles == {
        "on the front": [fast, best],
        "trained": [beaten],
        "over a budget": [refused],
        "stopped": [cancelled],
        "training": [running],
    }
    assert info.stopped.score_pct == pytest.approx([100 * last_of(made)[cancelled].score])
    figure = panels.front_figure(info)
    assert named(figure)["over a budget"].yaxis == "y2"
    assert [row[0] for row in info.table().rows] == [name for name, numbers in roles.items() for _ in numbers]


def test_a_trial_that_isnt_done_says_that_its_accuracy_is_not_a_deployed_networks(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.1, 0.90)
    stopped, running = made.running(0.2, epochs=3), made.running(0.25)
    made.store.finish(stopped, "cancelled", reason="cancelled by request")
    info = front_of(made)
    figure = panels.front_figure(info)
    for name, number, epoch in (("stopped", stopped, 3), ("training now", running, 5)):
        trace = named(figure)[name]
        place = re.search(r"top-1 at epoch %\{customdata\[(\d)\]:d\}, not the deployed network", trace.hovertemplate)
        assert place is not None
        assert (trace.customdata[0][0], trace.customdata[0][int(place[1])]) == (number, epoch)
    assert "deployed" not in named(figure)["on the front"].hovertemplate
    cells = {row[1]: row[2] for row in info.table().rows}
    assert cells[str(stopped)].endswith("% at epoch 3, not the deployed network")
    assert cells["0"] == "90.00 %"
    assert figure.layout.yaxis.title.text == "top-1, %"
    assert "A stopped or running trial is shown at the top-1 of its last epoch" in " ".join(info.notes)


def test_one_candidate_is_said_in_the_singular(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.1, 0.90)
    made.infeasible(0.9)
    assert "1 candidate over a budget" in " ".join(front_of(made).notes)


def test_the_front_has_its_intervals_and_its_own_shape_and_colour(tmp_path: Path) -> None:
    made = lively(tmp_path)
    info = front_of(made)
    traces = named(panels.front_figure(info))
    front, others = traces["on the front"], traces["other trained"]
    assert front.marker.symbol != others.marker.symbol
    assert front.marker.color != others.marker.color
    shown = info.front.only(info.on_line)
    assert np.allclose(front.error_x.array, shown.high_ms - shown.latency_ms, rtol=1e-3)
    assert np.allclose(front.error_x.arrayminus, shown.latency_ms - shown.low_ms, rtol=1e-3)


def test_members_beside_the_line_are_drawn_open_and_the_caption_says_what_they_are_on_the_front_for(
    tmp_path: Path,
) -> None:
    made = Study(tmp_path)
    fast, lean = made.done(0.1, 0.95, LARGE), made.done(0.2, 0.93, SMALL)  # slower and worse, but with fewer macs
    info = front_of(made)
    assert info.front.number.tolist() == [fast, lean]
    assert info.on_line.tolist() == [True, False]
    aside = named(panels.front_figure(info))["on the front for fewer macs"]
    assert aside.marker.symbol == "diamond-open"
    assert aside.customdata[0][0] == lean
    assert "The open diamond is a network on the front for fewer macs." in panels.Caption.of(info.notes).short


@given(
    st.lists(
        st.tuples(st.integers(1, 6).map(float), st.integers(0, 6).map(float)), max_size=12
    )  # few values, so many ties
)
def test_the_step_line_is_what_is_more_accurate_than_everything_as_cheap(points: list[tuple[float, float]]) -> None:
    cost, top1 = (np.array([point[i] for point in points]) for i in (0, 1))
    corners = list(zip(*(values.tolist() for values in best_line(cost, top1, (False, True))), strict=True))
    beaten = {p for p in points for q in points if (q[0] <= p[0] and q[1] >= p[1] and q != p)}
    assert corners == sorted(set(points) - beaten)


def test_a_budget_is_a_named_line_and_the_recommended_trial_the_last_trace(tmp_path: Path) -> None:
    made = lively(tmp_path)
    trained = columns_of(made).number[columns_of(made).trained]
    for limit, number in ((0.3, int(trained[0])), (None, None)):
        figure = panels.front_figure(front_of(made, budget=limit, recommended=number))
        (line,) = [shape for shape in figure.layout.shapes if shape.name == "budget"]
        (words,) = [text for text in figure.layout.annotations if text.name == "budget"]
        assert line.visible == words.visible == (limit is not None)
        star = figure.data[-1]
        assert star.meta == "recommended"
        assert len(star.x) == (number is not None)
        if limit is not None:
            assert line.x0 == line.x1 == limit
            assert words.text == "budget 0.3 ms"
            assert star.marker.symbol == "star"


def test_a_logarithmic_axis_has_its_annotation_where_plotly_wants_it(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.1, 0.9)
    made.done(2.0, 0.95, LARGE)
    figure = panels.front_figure(front_of(made, budget=1.0))
    assert figure.layout.xaxis.type == "log"
    assert figure.layout.shapes[0].x0 == 1.0
    assert figure.layout.annotations[0].x == 0.0


def test_latencies_of_another_kind_stay_away(tmp_path: Path) -> None:
    made = Study(tmp_path)
    measured, estimated = made.done(0.1, 0.9), made.done(5.0, 0.95, kind="estimated")
    columns = columns_of(made)
    seen = [panels.front_info(columns, View(group)).front.number.tolist() for group in range(2)]
    assert sorted(seen) == [[measured], [estimated]]
    titles = {panels.front_info(columns, View(group)).title for group in range(2)}
    assert titles == {"measured latency on host, ms", "estimated latency on host, ms"}


def test_a_few_poor_trials_do_not_flatten_the_chart(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for index in range(40):
        made.done(0.1 + index / 100, 0.95 + index / 1000)
    poor = made.done(0.7, 0.1)
    info = front_of(made)
    assert info.bottom_pct is not None
    assert info.bottom_pct > 90
    assert any("1 trial below" in words for words in info.notes)
    assert str(poor) in {row[1] for row in info.table().rows}


def test_many_points_are_drawn_by_webgl_and_fit_a_page() -> None:
    columns = many(3000)
    figure = panels.front_figure(panels.front_info(columns, View(0)))
    assert {trace.type for trace in figure.data} == {"scattergl"}
    is_sound(figure)
    assert len(figure.to_json()) < 60 * 3000
    few = panels.front_figure(panels.front_info(many(300), View(0)))
    assert {trace.type for trace in few.data} == {"scatter"}


def test_the_table_says_how_many_it_leaves_out() -> None:
    info = panels.front_info(many(3000), View(0))
    found = info.table()
    assert len(found.rows) == 200
    assert found.left_out == sum(map(len, info.roles.values())) - 200
    assert found.rest == f"{found.left_out:,} more are not listed here."


# ---- any two axes, and what is seen of them at first ---------------------------------------------------------


def test_the_chart_opens_near_the_budget_and_says_how_much_lies_beyond(tmp_path: Path) -> None:
    made = Study(tmp_path)
    for latency_ms in (0.1, 0.2, 0.3):
        made.done(latency_ms, 0.9 + latency_ms / 10)
    for latency_ms in (0.5, 3.0, 12.0):
        made.infeasible(latency_ms)
    figure = panels.front_figure(front_of(made, budget=0.4))
    assert figure.layout.xaxis.range[1] == pytest.approx(0.6)
    assert figure.layout.xaxis.type != "log"
    (beyond,) = [text.text for text in figure.layout.annotations if text.name == "beyond"]
    assert beyond == "2 more →"
    assert figure.layout.meta["extent"] == pytest.approx([0.1, 12.0], rel=0.01)
    assert panels.front_figure(front_of(made)).layout.xaxis.range is None  # without a budget all is seen
    assert front_of(made, budget=0.05).right is None  # nor where nothing would be left


def test_why_a_candidate_was_refused_is_under_the_pointer(tmp_path: Path) -> None:
    made = Study(tmp_path)
    made.done(0.1, 0.9)
    made.infeasible(0.9)
    trace = named(panels.front_figure(front_of(made)))["over a budget"]
    assert "refused: latency 0.9 ms &gt; 0.4 ms, measured" in trace.text[0]
    assert "%{text}" in trace.hovertemplate


@pytest.mark.parametrize(
    ("x", "y", "corner"), [("macs", "latency", "hv"), ("time", "score", "hv"), ("score", "params", "vh")]
)
def test_any_two_quantities_can_be_set_against_each_other(tmp_path: Path, x: str, y: str, corner: str) -> None:
    made = lively(tmp_path)
    info = front_of(made, x=x, y=y, log=(True, None))
    figure = panels.front_figure(info)
    is_sound(figure)
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == (info.x.title, info.y.title)
    line = named(figure)["best in both"] if len(info.line[0]) > 1 else None
    assert line is None or line.line.shape == corner
    drawn = {number for points in (info.front, info.trained) for number in points.number.tolist()}
    columns = columns_of(made)
    assert drawn == set(columns.number[columns.trained & np.isfinite(info.x.values) & np.isfinite(info.y.values)])
    assert figure.layout.xaxis.type == "log"
    assert (figure.layout.meta["x"], figure.layout.meta["y"]) == (x, y)
    assert all(len(row) == len(info.table().headers) for row in info.table().rows)


def test_a_quantity_that_no_trial_has_says_what_to_do(tmp_path: Path) -> None:
    made = lively(tmp_path)
    info = front_of(made, x="file")
    assert (info.reason or "").endswith("the trained files aren't on this machine. Choose another axis.")
    sizes = {int(number): 100_000 + 1000 * int(number) for number in columns_of(made).number}
    assert front_of(made, x="file", further=Further(sizes)).reason is None
    with pytest.raises(InvalidSettings, match=r"an axis shows one of score, .*macs.* but got 'weight'"):
        front_of(made, x="weight")


def test_another_devices_latency_has_an_axis_and_a_budget_of_its_own(tmp_path: Path) -> None:
    settings = {**SETTINGS, "latency": {**SETTINGS["latency"], "devices": ["host", "pi"]}}
    made = Study(tmp_path, settings=settings)
    for latency_ms in (0.1, 0.2):
        number = made.done(latency_ms, 0.9 + latency_ms)
        made.store.add_latency(number, made.measurement(number, 10 * latency_ms, target="pi"), judged=False)
    info = front_of(made, y="latency@pi", budget=0.15, budget_y=1.5)
    figure = panels.front_figure(info)
    assert figure.layout.yaxis.title.text == "measured latency on pi, ms"
    budgets = [shape for shape in figure.layout.shapes if shape.name == "budget"]
    assert [(line.x0, line.y0) for line in budgets] == [(0.15, 0), (0, 1.5)]
    assert figure.layout.meta["targets"] == {"x": "host", "y": "pi"}


def test_latencies_of_int8_are_never_drawn_like_those_of_fp32(tmp_path: Path) -> None:
    made = Study(tmp_path)
    full, half = made.done(0.1, 0.90), made.done(0.2, 0.97, LARGE, precision="int8")
    info = front_of(made)
    traces = named(panels.front_figure(info))
    assert [row[0] for row in traces["on the front"].customdata] == [full]
    assert [row[0] for row in traces["on the front, int8"].customdata] == [half]
    assert "(int8)" in traces["on the front, int8"].hovertemplate
    assert traces["on the front, int8"].marker.symbol == "square-open"
    assert any(
        "Open squares: 1 trial judged by the faster file, which is in 8 bits (int8)" in note for note in info.notes
    )
    columns = columns_of(made)
    macs = panels.macs_latency_figure(panels.macs_latency_info(columns, View(0)))
    assert [row[0] for row in named(macs)["on the front, int8"].customdata] == [half]
    parallel = panels.parallel_info(columns, View(0))
    (bits,) = [one for one in parallel.dimensions if one.key == "bits"]
    assert dict(zip(parallel.number.tolist(), bits.values.tolist(), strict=True)) == {full: 32.0, half: 8.0}
    assert panels.front_info(columns, View(0, "macs")).roles["on the front"].int8.sum() == 1
    assert "on the front, int8" not in named(panels.front_figure(panels.front_info(columns, View(0, "macs"))))


@pytest.mark.parametrize(
    ("counts", "prefix", "text"),
    [([1090, 50_000], "k", "1.09"), ([80, 4000], "", "80"), ([120_000, 4e6], "M", "0.12"), ([1.09e9], "G", "1.09")],
)
def test_a_column_of_counts_has_one_unit_in_which_its_smallest_can_be_read(
    counts: list[float], prefix: str, text: str
) -> None:
    unit = CountUnit.of(np.array(counts))
    assert (unit.prefix, unit.text(counts[0])) == (prefix, text)
    assert unit.words("macs") == f"{prefix} macs".strip()


# ---- reference marks ------------------------------------------------------------------------------------


def cifar(dataset: str = "cifar10", classes: int = 10) -> dict[str, object]:
    return {"dataset": "CIFAR", "input_shape": [3, 32, 32], "num_classes": classes}


def on_cifar(dataset: str = "cifar10", classes: int = 10):
    columns = with_settings(many(50), data={"dataset": dataset})
    columns = replace(columns, study=replace(columns.study, data_info=cifar(dataset, classes)), _fronts={})
    return replace(columns, macs=columns.macs * 100, top1=columns.top1, _fronts={})


def test_published_condensenets_stand_beside_a_search_on_cifar() -> None:
    columns = on_cifar()
    info = panels.front_info(columns, View(0, "macs"))
    names = {one.name for one in (*info.baselines, *info.far_baselines)}
    assert names == {f"CondenseNet-{layers}" for layers in (50, 74, 86, 98, 110, 122, 182)}
    assert any("Published networks" in words for words in info.notes)
    figure = panels.front_figure(info)
    assert len(named(figure)["published (layers)"].x) == len(info.baselines) > 0
    assert {one.name for one in comparable(on_cifar("cifar100", 100), View(0, "macs"))} == {
        "CondenseNet-86",
        "CondenseNet-182",
    }


def test_other_data_has_no_reference_marks() -> None:
    assert dataset_of(many(5)) is None
    assert dataset_of(with_settings(on_cifar(), data={"dataset": "imagefolder:cifar10_jpeg"})) is None
    resized = on_cifar()
    larger = {**cifar(), "input_shape": [3, 64, 64]}
    assert dataset_of(replace(resized, study=replace(resized.study, data_info=larger), _fronts={})) is None


def test_a_reference_latency_needs_the_same_kind_device_and_runtime() -> None:
    columns = with_settings(many(50), data={"dataset": "imagefolder:imagenet"})
    info = {"dataset": "ImageNet", "input_shape": [3, 224, 224], "num_classes": 1000}
    columns = replace(columns, study=replace(columns.study, data_info=info), _fronts={})
    assert comparable(columns, View(0)) == []  # of some host: nothing is known there
    assert comparable(columns, View(None)) == []
    virtual = LatencyGroup("virtual:raspberry-pi-5", "estimated", "virtual:raspberry-pi-5", "onnxruntime 1.31.1", 1)
    found = comparable(replace(columns, latency_groups=(virtual,), _fronts={}), View(0))
    assert {one.name for one in found} >= {"VGG-16", "ResNet-18", "MobileNet v1", "CondenseNet-74 G=C=8"}
    assert all(one.latency is not None and one.cost("latency") > 1 for one in found)
    other = replace(virtual, runtime="onnxruntime 1.20.0")
    assert comparable(replace(columns, latency_groups=(other,), _fronts={}), View(0)) == []


def test_the_reference_numbers_are_those_they_come_from() -> None:
    table = {row["network"]: row for row in json.loads(ARM_TABLE.read_text())["result"]["rows"]}
    titles = {"mobilenet-v1": "MobileNet v1", "resnet-18": "ResNet-18", "vgg-16": "VGG-16"}
    by_name = {(one.name, one.dataset): one for one in all_baselines()}
    for network, title in titles.items():
        one, row = by_name[title, "imagenet"], table[network]
        assert (one.macs, one.params) == (row["macs"], row["params"])
        assert one.top1_pct == pytest.approx(100 - row["paper"]["top1_error_pct"])
        assert one.latencies[0].median_ms == pytest.approx(row["estimated"]["latency_ms"], rel=1e-4)
        assert one.latencies[0].extrapolates == row["estimated"]["extrapolates"]
    for network in PUBLISHED.values():
        known = [one for one in by_name.values() if one.params == cost_of(network.config).params]
        assert len(known) == 1
        assert known[0].top1_pct == pytest.approx(100 - (network.top1_error_pct or 0))
    origin = json.loads((ROOT / "dashboards" / "panels" / "study" / "baselines.json").read_text())["origin"]
    assert set(origin) == {"accuracy", "cost", "latencies_ms"}
