"""ρ(a|x) as arrows on the map of a grid world, where x is the cell: ``sb3-mirl prior --map``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_mirl.bench.grid_maps import draw_arrows
from sb3_mirl.cli.output import new_figure
from sb3_mirl.common.text import did_you_mean, plain_label
from sb3_mirl.envs.gridworld import GRID_WORLDS, MOVES, GridWorld

#: Ids of our grid worlds whose observation is the cell
WORLD_IDS = (*GRID_WORLDS, "MIRLFourRooms-v0")


def read_world(name: str) -> GridWorld:
    """
    :param name: id of a grid world that is registered with Gymnasium, such as ``MIRLFourRooms-v0``; or a file with a map
    :return: the grid world
    :raises ValueError: if it is neither
    """
    if Path(name).is_file():
        try:
            return GridWorld(Path(name).read_text())
        except ValueError as error:
            raise ValueError(f"argument --map: {name!r} has no map of a grid world: {error}") from error
    if name not in gym.registry:
        hint = did_you_mean(name, WORLD_IDS) or f", choose one of {', '.join(WORLD_IDS)}"
        raise ValueError(f"argument --map: must be the id of a grid world or a file with a map, got {name!r}{hint}")
    try:
        world = gym.make(name).unwrapped
    except gym.error.Error as error:
        raise ValueError(f"argument --map: {name!r} cannot be made: {error}") from error
    if not isinstance(world, GridWorld):
        raise ValueError(f"argument --map: {name!r} is no grid world, choose one of {', '.join(WORLD_IDS)}")
    return world


def panels(
    tables: dict[str, np.ndarray], names: Any, world: GridWorld, map_name: str, view: Any = None
) -> dict[str, np.ndarray]:
    """
    :param tables: of a model file, by name: ``table`` [n_x, n_actions], or ``low`` [n_skills, n_x, n_actions]
    :param names: of the actions in the file, if any
    :param world: whose cells are the values of x
    :param map_name: of the world, for messages
    :param view: ``prior_observation`` of the model, which says what x is; of skills by level
    :return: ρ(·|x) by the titles of panels, each [n_cells, n_actions]
    :raises ValueError: if x is not the cell of this world, or if the actions are not its moves
    """
    found = {"ρ(a|x)": tables["table"]} if "table" in tables else {}
    found |= {f"ρ(a|z={skill}, x)": table for skill, table in enumerate(tables.get("low", ()))}
    if not found:
        raise ValueError("argument --map: needs a table ρ(a|x), and the prior of this file is a network")
    if isinstance(view, Mapping):
        view = view.get("low")
    keys = [view] if isinstance(view, str) else view if isinstance(view, list) else []
    # A grid world's own observation is the cell
    if any(isinstance(key, str) and key not in ("position", "all") for key in keys):
        raise ValueError(f"argument --map: x must be the cell, the entry 'position' of an observation, and x is {view!r}")
    n_x, n_actions = next(iter(found.values())).shape
    if n_x != len(world.positions):
        raise ValueError(
            f"argument --map: x must be the cell of {map_name!r}, which has {len(world.positions)} of them, and x has {n_x} "
            "values"
        )
    if n_actions < len(MOVES) or (names and [str(name) for name in names][: len(MOVES)] != list(MOVES)):
        actions = ", ".join(map(str, names)) if names else f"{n_actions} actions"
        raise ValueError(f"argument --map: the first actions must be {', '.join(MOVES)}, got {actions}")
    return found


def draw_map(found: dict[str, np.ndarray], world: GridWorld, title: str, file: Path) -> None:
    """
    Draw a map for each panel: arrows as long as ρ(a|x) of a move, on cells whose colour is the entropy of ρ(·|x).

    :param found: of :func:`panels`
    :param world: the grid world
    :param title: of the figure
    :param file: to be written
    :raises ImportError: without the packages of the extra ``bench``
    """
    rows, columns = world.cells.shape
    cell = max(0.28, min(0.5, 5.0 / columns))
    size = (len(found) * (cell * columns + 0.4) + 1.2, cell * rows + 1.1)
    figure = new_figure(figsize=size)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    for axis, (name, table) in zip(axes, found.items(), strict=True):
        logarithms = np.log(table, out=np.zeros_like(table), where=table > 0)
        picture = np.full(world.cells.shape, np.nan)
        picture[tuple(world.positions.T)] = np.maximum(0.0, -(table * logarithms).sum(axis=1))
        image = axis.imshow(picture, cmap="viridis", vmin=0.0, vmax=np.log(table.shape[1]))
        axis.set_facecolor("0.25")  # the colour of walls, which are NaN
        draw_arrows(axis, world, table, ~world.is_goal)
        axis.set_title(name, fontsize=10)
    figure.colorbar(image, ax=list(axes), label="entropy of ρ(·|x) (nats)", shrink=0.8)
    figure.suptitle(f"{plain_label(title)}: action prior by cell, as lengths of arrows", fontsize=10)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
