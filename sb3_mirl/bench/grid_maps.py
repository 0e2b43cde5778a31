"""Arrows on the map of a grid world."""

from typing import Any

import numpy as np

from sb3_mirl.common.colors import ORANGE
from sb3_mirl.envs.gridworld import MOVES, GridWorld

#: Length in cells of the arrow of probability 1; arrows of smaller probabilities than the second are left out
ARROW_LENGTH, MIN_PROBABILITY = 0.45, 0.03


def draw_arrows(axis: Any, env: GridWorld, probabilities: np.ndarray, shown: np.ndarray) -> None:
    """
    Draw the probabilities of the four moves as arrows from the middle of each cell, and each goal as a star.

    :param axis: of matplotlib, with the map as an image
    :param env: the grid world
    :param probabilities: of the actions in each cell, [n_states, n_actions]; the moves are the first four
    :param shown: of which cells, bool [n_states]
    """
    for action, (down, right) in enumerate(MOVES.values()):
        lengths = ARROW_LENGTH * probabilities[:, action]
        cells = shown & (probabilities[:, action] >= MIN_PROBABILITY)
        row, column = env.positions[cells].T
        axis.quiver(
            *(column, row, right * lengths[cells], down * lengths[cells]),
            angles="xy",
            scale_units="xy",
            scale=1.0,
            units="xy",
            width=0.07,
            # Its edge makes it visible on light and on dark cells
            color="white",
            edgecolor="black",
            linewidth=0.3,
        )
    goal_row, goal_column = env.positions[env.is_goal].T
    axis.plot(goal_column, goal_row, "*", color=ORANGE, markeredgecolor="black", markersize=12)
    axis.set_xticks([])
    axis.set_yticks([])
