"""The ablation's command: nothing finished is ever lost; what is said of lines; plot and page show the saved JSON."""

import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from benchmarks import record
from benchmarks.condensebench.journal import read_rows
from examples.ablation.__main__ import main
from examples.ablation.plan import COMPARISONS, LINES, PLANS, Training
from examples.ablation.plot import LOOKS, figure_of, panels_of, write_plot
from examples.ablation.results import Spread, difference, differences_of, lines_of, signed, spread_of, summary, verdict
from examples.ablation.training import TRAININGS, Work, run_all, trained
from space.config import CondenseNetConfig
from space.cost import cost_of
from tests.waiting import until
from workers.images.batches import load
from workers.images.cache import prepare

ROOT = Path(__file__).parents[2]
DIGITS = PLANS["digits"]
SAVED = json.loads((record.RESULTS / "ablation.json").read_text())["result"]
PAGE = (ROOT / "docs" / "ablation.md").read_text()


# --- trainings --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Work:
    work = Work(DIGITS, 2, tmp_path_factory.mktemp("ablation"))
    run_all(work, "cpu")
    return work


def without_times(rows: dict) -> dict:
    return {
        identity: {name: value for name, value in row.items() if not name.endswith("seconds")}
        for identity, row in rows.items()
    }


def command(work: Path, seeds: int) -> list[str]:
    options = ["--plan", "digits", "--seeds", str(seeds), "--work", str(work)]
    return [sys.executable, "-m", "examples.ablation", *options]


@pytest.mark.slow(seconds=8)
def test_killed_at_any_moment_the_same_command_goes_on_to_the_same_rows(finished, tmp_path):
    path = tmp_path / TRAININGS
    with (tmp_path / "output").open("w") as output:
        killed = subprocess.Popen(command(tmp_path, seeds=50), cwd=ROOT, stdout=output, stderr=output)
        until(lambda: read_rows(path))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        before = read_rows(path)
    again = replace(finished, folder=tmp_path)
    run_all(again, "cpu")
    after = read_rows(path)
    assert 0 < len(before) < 150
    assert after[: len(before)] == before
    assert len({row["identity"] for row in after}) == len(after) >= 6
    assert without_times(again.rows()) == without_times(finished.rows())


def test_what_is_done_is_not_done_again_and_a_further_seed_is_added(finished, tmp_path, capsys):
    (tmp_path / TRAININGS).write_bytes((finished.folder / TRAININGS).read_bytes())
    run_all(replace(finished, folder=tmp_path), "cpu")
    assert capsys.readouterr().out == "6 of 6 trainings are done\n"
    run_all(replace(finished, folder=tmp_path, seeds=3), "cpu")
    first, estimate, *lines = capsys.readouterr().out.splitlines()
    assert first == "6 of 9 trainings are done"
    assert re.fullmatch(r"the others will take about \d+ (s|min) on this machine, on one core", estimate)
    assert [line.split()[0] for line in lines] == ["7/9", "8/9", "9/9"]
    assert lines[-1].endswith("0 s left")
    assert not list((tmp_path / "checkpoints").iterdir())


def test_a_row_has_the_macs_of_its_variation_and_the_deployed_networks_accuracy(finished):
    images = len(load(DIGITS.data, finished.folder / "images").test())
    for training in DIGITS.trainings(2):
        row = finished.rows()[DIGITS.identity(training)]
        assert row["macs"] == training.cost.macs
        right = row["test_top1"] * images
        assert right == pytest.approx(round(right), abs=1e-6)


def test_a_training_that_diverges_is_a_row_that_says_so_and_is_left_out_of_the_result(tmp_path):
    wild = replace(
        DIGITS, training=DIGITS.training.model_copy(update={"learning_rate": 100.0, "weight_decay": 1.0, "epochs": 6})
    )
    work = Work(wild, 1, tmp_path)
    prepare(wild.data, tmp_path / "images")
    training = wild.trainings(1)[0]
    row = trained(work, training, load(wild.data, tmp_path / "images"), "cpu")
    assert "smaller learning rate" in row["failed"]
    result = summary(wild, {row["identity"]: row}, 1)
    assert result["lines"]["condensenet"] == []
    assert result["failed"] == [f"condensenet [1, 1, 1]: {row['failed']}"]


# --- what is said of lines --------------------------------------------------------------------------------------


def points(*macs_and_errors: tuple[float, list[float]]) -> list[dict]:
    return [{"macs": macs, "errors": errors} for macs, errors in macs_and_errors]


def result_of(seeds: int = 3, **lines: list[dict]) -> dict:
    return {"seeds": seeds, "lines": lines}


def test_lines_are_compared_where_both_have_macs_by_the_logarithm():
    reference = points((1e6, [10.0, 11.0]), (4e6, [6.0, 7.0]))
    shifted = points((2e6, [9.0, 10.5]), (8e6, [5.0, 6.5]))  # 1.0 and 1.5 above: the reference is at 8.0 and 9.0 there
    by_seed, macs = difference(shifted, reference)
    assert by_seed == pytest.approx([1.0, 1.5])
    assert macs == pytest.approx([2e6, 4e6])


def test_the_interval_rests_on_the_seeds_of_all_networks_and_not_on_a_lines_own():
    quiet, wild = [10.0, 10.0, 10.0], [8.0, 9.0, 10.0]  # variances 0 and 1
    result = result_of(condensenet=points((1e6, quiet), (2e6, wild)), constant=points((1e6, [11.0, 11.0, 11.0])))
    spread = spread_of(result)
    assert spread == Spread(math.sqrt(1 / 3), networks=3, seeds=3)
    assert spread.freedom == 6
    assert spread.half_width() == pytest.approx(2.4469 * math.sqrt(1 / 3) * math.sqrt(2 / 3), rel=1e-4)  # t, 6 degrees
    assert spread.half_width(8) == pytest.approx(stats.t.ppf(1 - 0.05 / 16, 6) * math.sqrt(2 / 9), rel=1e-9)
    (found,) = differences_of(result)
    assert signed(found, spread) == f"+1.00 ± {spread.half_width():.2f}"


def test_lines_differ_where_the_interval_leaves_out_0():
    spread = Spread(0.3, networks=28, seeds=3)
    one, eight = spread.half_width(), spread.half_width(8)
    for above, said in (
        (0.99 * one, "no difference told"),
        (-0.99 * one, "no difference told"),
        (1.01 * one, "more errors, by its own interval only"),
        (-0.99 * eight, "fewer errors, by its own interval only"),
        (1.01 * eight, "more errors, also by the wider interval"),
        (-1.01 * eight, "fewer errors, also by the wider interval"),
    ):
        line = points((1e6, [10 + above] * 3))
        (found,) = differences_of(result_of(condensenet=points((1e6, [10.0] * 3)), constant=line))
        assert verdict(found, spread, 8) == said


def test_of_one_seed_no_interval_is_given():
    result = result_of(1, condensenet=points((1e6, [10.0])), constant=points((1e6, [11.0])))
    assert spread_of(result) is None
    (found,) = differences_of(result)
    assert (signed(found, None), verdict(found, None, 1)) == ("+1.00", "one seed")


def test_networks_of_the_same_macs_are_compared_as_they_are_and_lines_apart_are_not(finished):
    one, other = points((1e6, [10.0, 11.0])), points((1e6, [12.0, 14.0]))
    assert difference(other, one)[0] == pytest.approx([2.0, 3.0])
    rows = finished.rows()
    differences = {found.line: found for found in differences_of(summary(DIGITS, rows, 2))}
    assert "permuted" in differences
    assert not {"dense", "C2"} & differences.keys()
    assert differences["permuted"].by_seed == pytest.approx(
        [
            100 * (rows[DIGITS.identity(learned)]["test_top1"] - rows[DIGITS.identity(plain)]["test_top1"])
            for learned, plain in zip(of_line("condensenet"), of_line("permuted"), strict=True)
        ]
    )
    apart = result_of(condensenet=points((1e6, [1.0] * 3)), constant=points((2e6, [1.0] * 3)))
    assert differences_of(apart) == []


def of_line(line: str) -> list[Training]:
    return [training for training in DIGITS.trainings(2) if training.line == line]


def test_a_network_counts_once_all_of_its_seeds_are_done(finished):
    rows = finished.rows()
    whole = summary(DIGITS, rows, 2)
    assert [len(points) for points in whole["lines"].values()] == [1, 1, 1]
    rows.pop(DIGITS.identity(DIGITS.trainings(2)[-1]))
    assert [len(points) for points in summary(DIGITS, rows, 2)["lines"].values()] == [1, 1, 0]


# --- the plot and the page --------------------------------------------------------------------------------------


def test_the_plot_draws_what_was_saved(tmp_path):
    panels = panels_of(SAVED)
    assert [panel.title for panel in panels] == [comparison.title for comparison in COMPARISONS.values()]
    figure = figure_of(panels)
    traces = iter(figure.data)
    for panel, comparison in zip(panels, COMPARISONS.values(), strict=True):
        assert [line.line for line in panel.lines] == list(comparison.lines)
        for line in panel.lines:
            points, trace = SAVED["lines"][line.line], next(traces)
            assert trace.name == line.label == comparison.lines[line.line]
            assert list(trace.x) == [point["macs"] / 1e6 for point in points]
            assert list(trace.y) == [statistics.fmean(point["errors"]) for point in points]
            assert list(trace.error_y.array) == [statistics.stdev(point["errors"]) for point in points]
    assert next(traces, None) is None
    write_plot(SAVED, tmp_path / "plot.html")
    assert COMPARISONS["factor"].title in (tmp_path / "plot.html").read_text()


def test_lines_can_be_told_apart_without_colours():
    assert len({(symbol, dash) for _, symbol, dash in LOOKS.values()}) == len(LINES)


def test_the_pages_tables_are_those_of_the_saved_result():
    for line in lines_of(SAVED):
        assert line in PAGE, line


def test_two_lines_that_two_panels_show_are_one_comparison():
    pairs = [{found.line, found.reference} for found in differences_of(SAVED)]
    assert len(pairs) == 8
    assert pairs.count({"dense", "condensenet"}) == 1
    assert sum("condensenet" in pair for pair in pairs) == 6  # the page says so
    spread = spread_of(SAVED)
    assert (spread.networks, spread.freedom) == (28, 56)


def test_the_saved_result_is_of_the_plan_as_it_is():
    plan = PLANS["fashion-mnist"]
    assert SAVED["data"] == plan.data.model_dump(mode="json")
    assert SAVED["training"] == plan.training.model_dump(mode="json")
    for line, points in SAVED["lines"].items():
        assert [point["config"] for point in points] == [config.to_dict() for config in plan.configs(line)]
        assert all(len(point["errors"]) == SAVED["seeds"] == 3 for point in points)


def test_the_page_says_what_condensing_saves_and_how_long_it_took():
    for stages, shape in (((2, 2, 2), (1, 14, 14)), ((14, 14, 14), (3, 32, 32))):
        macs = [
            cost_of(
                CondenseNetConfig(stages=stages, growth=(8, 16, 32), condense_factor=factor, input_shape=shape)
            ).macs
            for factor in (4, 1)
        ]
        assert re.search(rf"\b{100 * (1 - macs[0] / macs[1]):.0f} %\s+less", PAGE)
    assert f"took {SAVED['train_minutes']:.0f} minutes of one core" in PAGE


def test_what_is_said_of_differences_is_in_the_saved_result():
    experiments = (ROOT / "docs" / "experiments.md").read_text().replace("\n", " ")
    differences, spread = {found.line: found for found in differences_of(SAVED)}, spread_of(SAVED)

    def said(line: str, places: int) -> str:
        return signed(differences[line], spread, places).lstrip("+-")

    for line, places in (("dense", 2), ("permuted", 2), ("light", 1)):
        assert said(line, places) in experiments
    for line in ("light", "constant", "within", "C8"):
        assert f"{said(line, 1)} points more errors" in PAGE
    for line in ("permuted", "ordered", "dense", "C2"):
        assert signed(differences[line], spread) in PAGE
    told = {line: verdict(found, spread, len(differences)) for line, found in differences.items()}
    assert [line for line, words in told.items() if words == "no difference told"] == [
        "dense", "permuted", "ordered", "C2",
    ]  # half of them, as the page says  # fmt: skip
    assert [line for line, words in told.items() if words.endswith("own interval only")] == ["within", "C8"]


def test_the_page_says_what_interpolation_adds_between_distant_networks():
    log, error = zip(
        *((math.log(point["macs"]), statistics.fmean(point["errors"])) for point in SAVED["lines"]["condensenet"][1:]),
        strict=True,
    )
    straight = error[0] + (error[2] - error[0]) * (log[1] - log[0]) / (log[2] - log[0])
    assert f"{straight - error[1]:.2f} points above where it is" in PAGE


# --- the command ------------------------------------------------------------------------------------------------


def run_main(monkeypatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation", *arguments])
    main()


def test_the_command_writes_what_is_done_and_draws_it(finished, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    with pytest.raises(SystemExit) as nothing_yet:
        run_main(monkeypatch, "--plot", "--plan", "digits")
    assert nothing_yet.value.code == 10
    assert "train and --write first" in capsys.readouterr().err
    with pytest.raises(SystemExit) as nothing_done:
        run_main(monkeypatch, "--work", str(finished.folder), "--write")
    assert nothing_done.value.code == 10
    assert "nothing of fashion-mnist is finished in" in capsys.readouterr().err
    run_main(monkeypatch, "--plan", "digits", "--seeds", "2", "--work", str(finished.folder), "--write")
    printed = capsys.readouterr().out
    saved = json.loads((tmp_path / "ablation_digits.json").read_text())
    assert saved["result"] == summary(DIGITS, finished.rows(), 2)
    assert {"torch", "python"} <= saved["versions"].keys()
    assert "\n".join(lines_of(saved["result"])) in printed
    run_main(monkeypatch, "--plan", "digits", "--tables")
    assert capsys.readouterr().out == "\n".join(lines_of(saved["result"])) + "\n"


def test_the_command_asks_for_a_folder_or_a_plot(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--plan", "digits")
    assert "--work FOLDER says where to train; --tables and --plot show" in capsys.readouterr().err
