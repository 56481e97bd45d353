"""A front as an SVG image of its own: for a model card, which is read where there is no browser to draw a figure.

It shows what `front_figure` shows of trained networks: those on the front, the others, the budget, the one to deploy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

import numpy as np

from dashboards.data.columns import Floats
from dashboards.panels.study.front_contents import FrontInfo
from dashboards.panels.study.points import Points
from dashboards.panels.style import MARKS

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 460, 64, 62, 20, 56  # px; the last four are margins
INK = "#333a44"
FRONT, TRAINED, STAR = (MARKS[name].colour for name in ("front", "trained", "recommended"))
TICKS = 5
STAR_SHAPE = "0,-11 2.6,-3.5 10.5,-3.4 4.2,1.4 6.5,8.9 0,4.4 -6.5,8.9 -4.2,1.4 -10.5,-3.4 -2.6,-3.5"
LEGEND = 46  # px from above
ROOM = 0.06  # of an axis, left free at both ends


@dataclass(frozen=True)
class _Axis:
    """A scale from values to pixels."""

    low: float
    high: float
    start_px: float
    end_px: float

    @classmethod
    def over(cls, values: Floats, start_px: float, end_px: float) -> _Axis:
        finite = values[np.isfinite(values)]
        low, high = (0.0, 1.0) if not finite.size else (float(finite.min()), float(finite.max()))
        free = ROOM * (high - low) or abs(high) * ROOM or 1.0
        return cls(low - free, high + free, start_px, end_px)

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.start_px + share * (self.end_px - self.start_px)

    def ticks(self) -> list[float]:
        """Return a few round values inside the axis."""
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** np.floor(np.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        first = int(np.ceil(self.low / step))
        return [place * step for place in range(first, int(np.floor(self.high / step)) + 1)]


def front_svg(info: FrontInfo, title: str) -> str:
    """Return the front as an SVG document with white ground and a title; a sentence where there is nothing to draw."""
    if info.reason is not None:
        return _document(title, [_text(WIDTH / 2, HEIGHT / 2, info.reason, "middle")])
    shown = (info.trained, info.front)
    costs = np.concatenate([points.along(info.axis) for points in shown])
    scores = np.concatenate([points.score_pct for points in shown])
    across = _Axis.over(costs if info.budget is None else np.append(costs, info.budget), LEFT, WIDTH - RIGHT)
    up = _Axis.over(scores, HEIGHT - BOTTOM, TOP)
    parts = [*_grid(across, up, info), *_budget(across, info)]
    parts += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{TRAINED}"/>'
        for x, y in _places(info.trained, info, across, up)
    ]
    parts += _steps(info, across, up)
    fills = (FRONT if on_line else "#ffffff" for on_line in info.on_line)
    parts += [
        f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" transform="rotate(45 {x:.1f} {y:.1f})" '
        f'fill="{fill}" stroke="{FRONT}" stroke-width="1.5"/>'
        for (x, y), fill in zip(_places(info.front, info, across, up), fills, strict=True)
    ]
    heading = f'<text x="{LEFT}" y="22" font-size="15" font-weight="600">{escape(title)}</text>'
    return _document(title, [heading, *parts, *_star(info, across, up), *_legend(info)])


def _places(points: Points, info: FrontInfo, across: _Axis, up: _Axis) -> Iterator[tuple[float, float]]:
    for cost, score in zip(points.along(info.axis).tolist(), points.score_pct.tolist(), strict=True):
        if np.isfinite(cost) and np.isfinite(score):
            yield across.at(cost), up.at(score)


def _grid(across: _Axis, up: _Axis, info: FrontInfo) -> Iterator[str]:
    for value in across.ticks():
        x = across.at(value)
        yield _line(x, TOP, x, HEIGHT - BOTTOM, TRAINED, 0.5, "2 3")
        yield _text(x, HEIGHT - BOTTOM + 18, f"{value:.4g}", "middle")
    for value in up.ticks():
        y = up.at(value)
        yield _line(LEFT, y, WIDTH - RIGHT, y, TRAINED, 0.5, "2 3")
        yield _text(LEFT - 8, y + 4, f"{value:.4g}", "end")
    yield _line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, INK, 1)
    yield _line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, INK, 1)
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, info.title, "middle")
    middle = (TOP + HEIGHT - BOTTOM) / 2
    place = f'transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle"'
    yield f"<text {place}>{escape(info.front.score_name)}, %</text>"


def _budget(across: _Axis, info: FrontInfo) -> Iterator[str]:
    if info.budget is not None:
        x = across.at(info.budget)
        yield _line(x, TOP, x, HEIGHT - BOTTOM, INK, 1.5, "6 4")
        yield _text(x - 5, TOP + 12, f"budget {info.budget:g} {info.x.unit}", "end")


def _steps(info: FrontInfo, across: _Axis, up: _Axis) -> Iterator[str]:
    costs, scores = (values.tolist() for values in info.line)
    if len(costs) > 1:
        corners = [f"M{across.at(costs[0]):.1f} {up.at(scores[0]):.1f}"]
        corners += [f"H{across.at(cost):.1f}V{up.at(score):.1f}" for cost, score in zip(costs, scores, strict=True)]
        yield f'<path d="{"".join(corners)}" fill="none" stroke="{FRONT}" stroke-width="2"/>'


def _star(info: FrontInfo, across: _Axis, up: _Axis) -> Iterator[str]:
    for points in (info.front, info.trained):
        for number, (x, y) in zip(points.number.tolist(), _places(points, info, across, up), strict=False):
            if number == info.recommended:
                yield f'<polygon points="{STAR_SHAPE}" transform="translate({x:.1f} {y:.1f})" fill="{STAR}"/>'


def _legend(info: FrontInfo) -> Iterator[str]:
    turned = f'transform="rotate(45 {LEFT + 4.5} {LEGEND - 4.5})"'
    yield f'<rect x="{LEFT}" y="{LEGEND - 9}" width="9" height="9" {turned} fill="{FRONT}"/>'
    yield _text(LEFT + 16, LEGEND, "on the front", "start")
    yield f'<circle cx="{LEFT + 130}" cy="{LEGEND - 4.5}" r="3.5" fill="{TRAINED}"/>'
    yield _text(LEFT + 140, LEGEND, "other trained", "start")
    if info.recommended is not None:
        yield f'<polygon points="{STAR_SHAPE}" transform="translate({LEFT + 260} {LEGEND - 4})" fill="{STAR}"/>'
        yield _text(LEFT + 276, LEGEND, f"trial {info.recommended}, in this bundle", "start")


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"{dashed}/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _document(title: str, parts: list[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
    style = f'role="img" font-family="system-ui, sans-serif" font-size="13" fill="{INK}">'
    ground = f'<title>{escape(title)}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    return "\n".join((head + style, ground, *parts, "</svg>\n"))
