"""One mark and one colour for each thing, told apart on both backgrounds and by colour-blind readers."""

from __future__ import annotations

import itertools
import re
from importlib import resources

import numpy as np
import pytest
from numpy.typing import NDArray

from dashboards.panels import Caption
from dashboards.panels.captions import LONGEST_CAPTION
from dashboards.panels.style import COLOURS, MARKS
from tests.dashboards.browser import contrast

GROUNDS = ("#ffffff", "#171b21")  # --surface of the page, light and dark
LEAST_CONTRAST = 3.0  # WCAG 2.1, 1.4.11: graphical objects
# What dichromats see, on linear RGB: G. M. Machado, M. M. Oliveira, L. A. F. Fernandes, "A physiologically-based model
# for simulation of color vision deficiency", IEEE TVCG 15 (2009), table 1, severity 1.0.
SEEN_BY = {
    "all": np.eye(3),
    "protanopes": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopes": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopes": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
# sRGB to CIE XYZ (IEC 61966-2-1), and XYZ to CIELAB; a difference (Euclidean) of 2 is just seen, of 10 at a glance.
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
LEAST_DIFFERENCE = 15.0


def lab(colour: str, seen: NDArray[np.float64]) -> NDArray[np.float64]:
    """A colour #rrggbb as CIELAB, as it looks to some readers."""
    srgb = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    ratio = XYZ @ np.clip(seen @ linear, 0, 1) / XYZ.sum(axis=1)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_every_colour_is_seen_on_both_backgrounds() -> None:
    low = [
        (colour, ground) for colour in COLOURS for ground in GROUNDS if contrast(colour, ground) < LEAST_CONTRAST
    ]  # fmt: skip
    assert low == []


@pytest.mark.parametrize("readers", SEEN_BY)
def test_colours_stay_apart_for_colour_blind_readers(readers: str) -> None:
    distances = {
        pair: float(np.linalg.norm(lab(pair[0], SEEN_BY[readers]) - lab(pair[1], SEEN_BY[readers])))
        for pair in itertools.combinations(COLOURS, 2)
    }
    assert min(distances.values()) >= LEAST_DIFFERENCE, sorted(distances.items(), key=lambda item: item[1])[:3]


def test_no_two_things_have_one_mark_and_tables_have_the_charts_colours() -> None:
    looks = [(mark.symbol, mark.colour) for mark in MARKS.values()]
    assert len(set(looks)) == len(looks)
    style = resources.files("dashboards").joinpath("assets/charts.css").read_text()
    colours = dict(re.findall(r"--mark-([\w-]+): (#[0-9a-f]{6});", style))
    assert colours == {name: mark.colour.lower() for name, mark in MARKS.items()}
    table = resources.files("dashboards").joinpath("assets/table.css").read_text()
    assert not re.search(r"#[0-9a-fA-F]{6}", table)
    assert set(re.findall(r"var\(--mark-([\w-]+)\)", table)) <= set(MARKS)


def test_a_caption_has_two_lines_at_most_and_loses_no_sentence() -> None:
    notes = ("One sentence.", "Another one, " + "which is long, " * 6 + "indeed.", "x" * 80, "The last.")
    caption = Caption.of(notes)
    assert len(caption.short) <= LONGEST_CAPTION
    assert (caption.short, *caption.rest) == (" ".join(notes[:2]), *notes[2:])
    assert Caption.of(()) == Caption("", ())
