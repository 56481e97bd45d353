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

from benchmarks import record
from benchmarks.condensebench.journal import read_rows
from examples.ablation.__main__ import main
from examples.ablation.plan import COMPARISONS, LINES, PLANS, Training
from examples.ablation.plot import LOOKS, figure_of, panels_of, write_plot
from examples.ablation.results import difference, half_width, lines_of, summary
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


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_goes_on_to_the_same_rows(finished, tmp_path):
    path = tmp_path / TRAININGS
    with (tmp_path / "output").open("w") as output:
        killed = subprocess.Popen(command(tmp_path, seeds=50), cwd=ROOT, stdout=output, stderr=output)
        until(lambda: read_rows(path))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        before = read_rows(path)
        subprocess.run(command(tmp_path, seeds=2), cwd=ROOT, check=True, stdout=output, stderr=output)
    after = read_rows(path)
    assert 0 < len(before) < 150
    assert after[: len(before)] == before
    assert len({row["identity"] for row in after}) == len(after) >= 6
    assert without_times(replace(finished, folder=tmp_path).rows()) == without_times(finished.rows())


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


def test_lines_are_compared_where_both_have_macs_by_the_logarithm():
    reference = points((1e6, [10.0, 11.0]), (4e6, [6.0, 7.0]))
    shifted = points((2e6, [9.0, 10.5]), (8e6, [5.0, 6.5]))  # 1.0 and 1.5 above: the reference is at 8.0 and 9.0 there
    found = difference(shifted, reference)
    assert found["by_seed"] == pytest.approx([1.0, 1.5])
    assert found["mean"] == pytest.approx(1.25)
    assert found["macs"] == pytest.approx([2e6, 4e6])
    assert found["half_width_95"] == pytest.approx(12.706 * 0.25, rel=1e-3)  # t of one degree of freedom, error of mean
    assert found["differs"] is False


def test_lines_differ_where_the_interval_leaves_out_0():
    reference = points((1e6, [10.0, 10.0, 10.0]), (2e6, [8.0, 8.0, 8.0]))
    for above, differs in (([1.0, 1.1, 1.2], True), ([-1.0, -1.1, -1.2], True), ([0.0, 1.0, 2.0], False)):
        line = points((1e6, [10 + x for x in above]), (2e6, [8 + x for x in above]))
        assert difference(line, reference)["differs"] is differs


def test_networks_of_the_same_macs_are_compared_as_they_are_and_lines_apart_are_not(finished):
    one, other = points((1e6, [10.0, 11.0])), points((1e6, [12.0, 14.0]))
    assert difference(other, one)["by_seed"] == pytest.approx([2.0, 3.0])
    rows = finished.rows()
    differences = summary(DIGITS, rows, 2)["differences"]
    assert list(differences["convolution"]) == ["permuted"]
    assert differences["convolution"]["permuted"]["by_seed"] == pytest.approx(
        [
            100 * (rows[DIGITS.identity(learned)]["test_top1"] - rows[DIGITS.identity(plain)]["test_top1"])
            for learned, plain in zip(of_line("condensenet"), of_line("permuted"), strict=True)
        ]
    )
    assert differences["factor"] == {}


def of_line(line: str) -> list[Training]:
    return [training for training in DIGITS.trainings(2) if training.line == line]


def test_the_interval_is_students():
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)
    assert half_width([1.0]) is None


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
    experiments = (ROOT / "docs" / "experiments.md").read_text()
    differences = {line: found for group in SAVED["differences"].values() for line, found in group.items()}

    def said(line: str, places: int) -> str:
        found = differences[line]
        return f"{abs(found['mean']):.{places}f} ± {found['half_width_95']:.{places}f}"

    for line, places, text in (("dense", 2, experiments), ("permuted", 2, experiments), ("light", 1, experiments)):
        assert said(line, places) in text
    assert f"CondenseNet-light makes {said('light', 1)} points more" in PAGE
    assert [line for line, found in differences.items() if found["differs"]] == ["light"]
    for line in ("constant", "within", "C8"):  # each seed says the same, and the interval holds 0 all the same
        by_seed = differences[line]["by_seed"]
        assert min(by_seed) > 0
        assert f"{min(by_seed):.1f} to {max(by_seed):.1f} points" in PAGE


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
    saved = json.loads((tmp_path / "ablation_digits.json").read_text())
    assert saved["result"] == summary(DIGITS, finished.rows(), 2)
    assert {"torch", "python"} <= saved["versions"].keys()
    assert lines_of(saved["result"])[2] in capsys.readouterr().out


def test_the_command_asks_for_a_folder_or_a_plot(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--plan", "digits")
    assert "--work FOLDER says where to train" in capsys.readouterr().err
