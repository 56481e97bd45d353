"""Figures as files: PNG, SVG and PDF by kaleido and Chromium, HTML by Plotly alone. No network is needed."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dashboards.panels.style import PLOT_CONFIG
from space.errors import InvalidSettings, PlotUnavailable

IMAGES = (".png", ".svg", ".pdf")
FORMATS = (*IMAGES, ".html")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
TIMEOUT_S = 90
NO_NETWORK = "127.0.0.1:9"
SOCKET_BYTES = 60  # of the path of Chromium's socket, below the folder of temporary files
LIGHT = {"ground": "#ffffff", "ink": "#1b1f24", "muted": "#59616b", "line": "#d9dde2"}
DARK = {"ground": "#181c22", "ink": "#e8eaed", "muted": "#a3abb6", "line": "#333a44"}


@dataclass(frozen=True)
class Paper:
    """How a figure is printed; a height of None is the figure's own."""

    width_px: int = 1000
    height_px: int | None = None
    scale: float = 2.0  # pixels of a PNG for each pixel of width and height
    dark: bool = False


def write_figure(figure: Any, path: Path, paper: Paper | None = None) -> None:
    """Write a figure to a file, whose suffix says the format (`-`: a PNG on stdout), replacing what is there at once.

    Raises:
        InvalidSettings: no format has this suffix.
        PlotUnavailable: an image needs kaleido and Chromium, and one of them is missing or failed.
        ReadOnlyFolder, DiskFull: the file can't be written.
    """
    from workers.files import STDOUT, write_atomically

    kind = ".png" if path == STDOUT else path.suffix.lower()
    if kind not in FORMATS:
        raise InvalidSettings(f"a plot is written as {', '.join(FORMATS)}, but {path.name!r} ends otherwise.")
    paper = paper or Paper()
    printed = on_paper(figure, paper)
    if kind == ".html":
        content = printed.to_html(include_plotlyjs=True, config=PLOT_CONFIG).encode("utf-8")
    else:
        content = _image(printed, kind.removeprefix("."), paper)
    write_atomically(path, content, retry="draw it again")


def on_paper(figure: Any, paper: Paper) -> Any:
    """Return a copy of a figure in the colours and the size of its paper."""
    import plotly.graph_objects as go

    colours = DARK if paper.dark else LIGHT
    printed = go.Figure(figure)
    height = paper.height_px or figure.layout.height or 450
    printed.update_layout(
        width=max(paper.width_px, (figure.layout.meta or {}).get("min_width_px", 0)),
        height=height,
        paper_bgcolor=colours["ground"],
        plot_bgcolor=colours["ground"],
        font={"color": colours["ink"]},
    )
    axis = {"gridcolor": colours["line"], "linecolor": colours["line"], "tickfont": {"color": colours["muted"]}}
    printed.update_xaxes(**axis)
    printed.update_yaxes(**axis)
    return printed


def browser_path() -> str | None:
    """Return the path of Chromium or Chrome: BROWSER_PATH, else the first on PATH; None where there is none."""
    named = os.environ.get("BROWSER_PATH")
    if named:
        return named if Path(named).is_file() else None
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def _image(figure: Any, kind: str, paper: Paper) -> bytes:
    # Without a home kaleido's libraries can't be imported: they ask for the user's folder of data.
    if "XDG_DATA_HOME" not in os.environ and os.path.expanduser("~") == "~":  # noqa: PTH111  pathlib raises
        os.environ["XDG_DATA_HOME"] = tempfile.gettempdir()
    try:
        import kaleido
    except ImportError:
        raise PlotUnavailable(
            "writing an image needs kaleido; pip install 'condensery[plots]', or write a .html file."
        ) from None
    from workers.files import short_temporary_files

    browser = browser_path()
    if browser is None:
        raise PlotUnavailable(
            "writing an image needs Chromium or Chrome; install it, name it in BROWSER_PATH, or write a .html file."
        )
    size = {"width": figure.layout.width, "height": figure.layout.height, "scale": paper.scale if kind == "png" else 1}
    try:
        # Without mathjax=False kaleido's page would fetch MathJax from a server. Chromium asks its maker's servers for
        # things of its own; the proxy is a port where nothing listens.
        with short_temporary_files(SOCKET_BYTES):
            image: bytes = kaleido.calc_fig_sync(
                figure.to_dict(),
                opts={"format": kind, **size},
                kopts={"path": browser, "mathjax": False, "timeout": TIMEOUT_S, "proxy_server": NO_NETWORK},
            )
    except Exception as error:  # a browser can fail in any way
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise PlotUnavailable(
            f"{browser} could not draw the image ({cause}); try again, or write a .html file."
        ) from error
    return image
