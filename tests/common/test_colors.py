"""Colours that are used together differ for people with colour vision deficiencies."""

import itertools

import numpy as np
import pytest

from sb3_mirl.bench.gridworld_figures import ACTION_COLORS, COLORS
from sb3_mirl.bench.report.figures import STYLES

#: Linear RGB as a person without one kind of cones sees it: Machado, Oliveira and Fernandes, *A physiologically-based model
#: for simulation of color vision deficiency*, IEEE TVCG 15, 2009, severity 1.0
SEEN_WITHOUT = {
    "none": np.eye(3),
    "long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "medium": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}
#: CIE XYZ of linear sRGB
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
PALETTES = {
    "gridworld": list(COLORS.values()),
    "actions": list(ACTION_COLORS),
    "report": [color for color, _ in STYLES.values()],
}


def lab(color, without):
    """CIELAB, in which equal distances look about equally different."""
    rgb = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(XYZ @ np.clip(SEEN_WITHOUT[without] @ linear, 0, 1) / XYZ.sum(axis=1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def smallest_distance(palette, without):
    return min(np.linalg.norm(lab(a, without) - lab(b, without)) for a, b in itertools.combinations(palette, 2))


@pytest.mark.parametrize("without", SEEN_WITHOUT)
@pytest.mark.parametrize("name", PALETTES)
def test_colours_of_a_figure_differ(name, without):
    assert smallest_distance(PALETTES[name], without) > 15


def test_the_measure_sees_that_red_and_green_look_alike():
    red_and_green = ["#d62728", "#2ca02c"]  # of matplotlib
    assert smallest_distance(red_and_green, "medium") < 12 < 60 < smallest_distance(red_and_green, "none")
