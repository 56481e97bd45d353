"""Figures in one line, and as files: PNG, SVG and PDF by Chromium, HTML without."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import condensery
from dashboards import panels
from dashboards.panels.image_files import Paper, browser_path, write_figure
from dashboards.panels.notebook import PLOTS, PlotOptions, StudyFigures
from space.errors import InvalidSettings, PlotUnavailable, ReadOnlyFolder, StudyNotFound
from tests.command_line import run_here
from tests.dashboards.browser import PICTURES, in_browser
from tests.dashboards.panels.panel_studies import is_sound
from tests.dashboards.studies import Study, lively


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return lively(tmp_path_factory.mktemp("lively"))


def url(made: Study) -> str:
    return f"sqlite:///{made.folder / 'study.db'}"


def test_a_notebook_gets_each_figure_in_one_line(made: Study) -> None:
    shown = panels.study_figures("digits-small", storage=url(made))
    assert repr(shown).startswith("StudyFigures('digits-small')")
    for figure in (
        shown.front(budget_ms=0.3),
        shown.front(axis="macs"),
        shown.macs_latency(),
        shown.parallel(),
        shown.importance(),
        shown.curves(),
        shown.progress(),
    ):
        is_sound(figure)
        assert len(figure.data) > 0


def test_the_chosen_budget_takes_the_place_of_the_studys_own(made: Study) -> None:
    shown = panels.study_figures(storage=url(made))
    assert shown.front().layout.shapes[0].x0 == 0.4
    figure = shown.front(budget_ms=0.15)
    assert figure.layout.shapes[0].x0 == 0.15
    columns = shown.columns
    fits = columns.trained & (columns.of_group(0).high_ms <= 0.15)
    best = columns.top1[fits].max()
    assert figure.data[-1].meta == "recommended"
    assert figure.data[-1].y[0] == pytest.approx(100 * best)
    assert shown.recommended(1e-6) is None


def test_curves_of_chosen_trials(made: Study) -> None:
    done = [row.number for row in made.rows() if row.state == "done"][:2]
    figure = panels.study_figures(storage=url(made)).curves(*done)
    assert {f"trial {number}" for number in done} <= {trace.name for trace in figure.data}


def test_a_study_that_is_not_there_is_said_so(made: Study) -> None:
    with pytest.raises(StudyNotFound, match="digits-small"):
        panels.study_figures("digits-smal", storage=url(made)).front()


def test_the_package_hands_on_what_it_promises() -> None:
    assert panels.__all__ == dir(panels) == sorted(panels.__all__)
    assert all(getattr(panels, name) is not None for name in panels.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        panels.nothing  # noqa: B018


def test_the_package_loads_no_plotly_before_a_figure_is_drawn() -> None:
    code = "import sys, dashboards.panels.study.front, dashboards.panels.notebook\nprint('plotly' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def run(*arguments: str) -> object:
    return CliRunner().invoke(condensery.app, list(arguments))


@pytest.mark.parametrize("name", PLOTS)
def test_every_plot_is_written_as_html_without_a_browser(
    made: Study, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    path = tmp_path / f"{name}.html"
    result = run("plot", name, "--storage", url(made), "--out", str(path), "--budget", "0.3")
    assert result.exit_code == 0, result.output  # type: ignore[attr-defined]
    text = path.read_text()
    assert "Plotly.newPlot" in text
    assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=.https?:", text)


def test_an_image_without_chromium_is_one_clear_line_and_its_own_code(
    made: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROWSER_PATH", "/nowhere/chromium")
    assert browser_path() is None
    result = run("plot", "front", "--storage", url(made), "--out", str(tmp_path / "front.png"))
    error = result.exception  # type: ignore[attr-defined]
    assert isinstance(error, PlotUnavailable)
    assert error.exit_code == 79
    assert "\n" not in str(error)
    assert "Chromium" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_an_image_without_kaleido_says_what_to_install(
    made: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kaleido", None)  # as where it isn't installed
    done = run_here("plot", "front", "--storage", url(made), "--out", "f.svg", cwd=tmp_path)
    assert done.returncode == 79
    assert done.stderr.startswith("error: writing an image needs kaleido; pip install 'condensery[plots]'")
    assert done.stderr.count("\n") == 1


def test_a_format_that_is_none_and_a_folder_that_is_a_file_are_refused(made: Study, tmp_path: Path) -> None:
    figure = StudyFigures(made.engine, made.name).progress()
    with pytest.raises(InvalidSettings, match=r"\.png, \.svg, \.pdf, \.html"):
        write_figure(figure, tmp_path / "front.bmp")
    (tmp_path / "file").write_text("")
    with pytest.raises(ReadOnlyFolder):
        write_figure(figure, tmp_path / "file" / "front.html")


@pytest.mark.browser
@pytest.mark.slow
@in_browser
@pytest.mark.parametrize("name", ["front", "parallel", pytest.param("curves", marks=pytest.mark.long)])
def test_chromium_draws_plots_as_png(made: Study, name: str) -> None:
    pytest.importorskip("kaleido")
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"plot-{name}.png"
    figure = StudyFigures(made.engine, made.name).plot(name, PlotOptions(budget_ms=0.3))
    write_figure(figure, path, Paper(width_px=900, dark=name == "front"))
    with Image.open(path) as image:
        assert image.width == 1800
        assert image.getpixel((3, 3))[:3] == ((24, 28, 34) if name == "front" else (255, 255, 255))
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50  # something is drawn


@pytest.mark.browser
@pytest.mark.slow
@in_browser
@pytest.mark.parametrize(
    "name", ["importance", *(pytest.param(name, marks=pytest.mark.long) for name in ("macs-latency", "progress"))]
)
def test_chromium_draws_plots_as_svg(made: Study, name: str) -> None:
    pytest.importorskip("kaleido")
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"plot-{name}.svg"
    figure = StudyFigures(made.engine, made.name).plot(name, PlotOptions(budget_ms=0.3))
    write_figure(figure, path, Paper(width_px=900))
    text = path.read_text()
    assert text.startswith("<svg")
    titles = [axis.title.text for axis in figure.select_xaxes() if axis.title.text]
    assert titles
    assert all(title.split(",")[0] in text for title in titles)
    assert not [link for link in re.findall(r"https?://[^\"' )]+", text) if "w3.org" not in link]


@pytest.mark.browser
@pytest.mark.slow
@in_browser
def test_chromium_writes_a_pdf_through_the_command(made: Study, tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    path = tmp_path / "front.pdf"
    result = run("plot", "front", "--storage", url(made), "--out", str(path), "--axis", "macs", "--dark")
    assert result.exit_code == 0, result.output  # type: ignore[attr-defined]
    assert path.read_bytes().startswith(b"%PDF")
