"""Arrows on the map of a grid world."""

import numpy as np
import pytest

from sb3_mirl.bench.grid_maps import ARROW_LENGTH, draw_arrows
from sb3_mirl.envs.gridworld import GridWorld

figure = pytest.importorskip("matplotlib.figure")


def test_arrows_begin_in_the_cells_and_are_as_long_as_the_probabilities():
    env = GridWorld("SSG")
    # up, right, down, left
    probabilities = np.array([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.25, 0.75], [0.25, 0.25, 0.25, 0.25]])
    axis = figure.Figure().subplots()
    draw_arrows(axis, env, probabilities, ~env.is_goal)
    found = {
        (x, y, u, v)
        for arrows in axis.collections
        for (x, y), u, v in zip(arrows.XY.tolist(), arrows.U.tolist(), arrows.V.tolist(), strict=True)
    }
    # The y axis of an image points down
    one = ARROW_LENGTH
    assert found == {(0, 0, 0, -0.5 * one), (0, 0, 0.5 * one, 0), (1, 0, 0, 0.25 * one), (1, 0, -0.75 * one, 0)}
    (goal,) = axis.lines
    assert goal.get_xydata().tolist() == [[2, 0]]
