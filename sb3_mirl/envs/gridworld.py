"""
Grid worlds drawn as text: Gymnasium environments, and the same worlds as exact arrays.

``P`` and ``initial_state_distrib`` follow Gymnasium's toy-text environments, so that the learners and solvers of ``tabular/``
also work on FrozenLake, CliffWalking or Taxi.

Source of the maps: Grau-Moya, Leibfried and Vrancx, ICLR 2019, as its reproducers describe them.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: What can follow an action in a state: (probability, next state, reward, whether the episode ends there)
Outcome = tuple[float, int, float, bool]
#: P[s][a], as in Gymnasium's toy-text environments
Outcomes = Mapping[int, Mapping[int, Sequence[Outcome]]]

WALL, GOAL, START, FREE = "#GS."
#: The four moves, as (rows, columns), in the order of the actions
MOVES = {"UP": (-1, 0), "RIGHT": (0, 1), "DOWN": (1, 0), "LEFT": (0, -1)}

#: The corridor of the paper, "3 × 20" counted with its outer walls
CORRIDOR = """
####################
#SSSSSSSSSSSSSSSSSG#
####################
"""

#: The corridor of the paper, if "3 × 20" did not count the outer walls
WIDE_CORRIDOR = """
######################
#SSSSSSSSSSSSSSSSSSSS#
#SSSSSSSSSSSSSSSSSSSG#
#SSSSSSSSSSSSSSSSSSSS#
######################
"""

#: The 8 × 8 square of the paper: the goal is entered from one cell only, by the action that is needed least elsewhere
SQUARE = """
########
#SSSSSS#
#SSS##S#
#SSS#GS#
#SSS##S#
#SSSSSS#
#SSSSSS#
########
"""

#: Four rooms with narrow passages (Sutton, Precup and Singh, *Artificial Intelligence* 112, 1999), without a goal
FOUR_ROOMS = """
#############
#SSSSS#SSSSS#
#SSSSS#SSSSS#
#SSSSSSSSSSS#
#SSSSS#SSSSS#
#SSSSS#SSSSS#
##S####SSSSS#
#SSSSS###S###
#SSSSS#SSSSS#
#SSSSS#SSSSS#
#SSSSSSSSSSS#
#SSSSS#SSSSS#
#############
"""

#: Rows and columns of two goals in each of the four rooms
FOUR_ROOMS_GOALS = ((1, 1), (5, 3), (1, 11), (6, 7), (11, 1), (8, 4), (11, 11), (9, 8))

PIXELS_PER_CELL = 24
COLORS = {WALL: (60, 60, 66), GOAL: (94, 170, 103), START: (245, 245, 240), FREE: (226, 226, 220)}
AGENT_COLOR = (58, 96, 170)


def toy_text_arrays(outcomes: Outcomes) -> tuple[np.ndarray, np.ndarray]:
    """
    A toy-text environment's ``P`` as the arrays that the exact solvers take.

    :param outcomes: P[s][a], a list of (probability, next state, reward, terminated)
    :return: ``transition`` [S, A, S], whose missing mass is termination, and the expected ``reward`` [S, A]; both float64
    """
    n_states, n_actions = len(outcomes), len(outcomes[0])
    transition = np.zeros((n_states, n_actions, n_states))
    reward = np.zeros((n_states, n_actions))
    for state in range(n_states):
        for action in range(n_actions):
            for probability, next_state, step_reward, terminated in outcomes[state][action]:
                reward[state, action] += probability * step_reward
                if not terminated:
                    transition[state, action, next_state] += probability
    return transition, reward


def _parse_map(grid_map: str | Sequence[str]) -> np.ndarray:
    """The characters of a map, [rows, columns]; ValueError if it is not a map."""
    rows = grid_map.strip("\n").split("\n") if isinstance(grid_map, str) else list(grid_map)
    if not rows or not rows[0]:
        raise ValueError(f"grid_map must not be empty, got {grid_map!r}")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"grid_map needs rows of one length, got {len(rows[0])} in row 0 and {len(row)} in row {number}")
        if unknown := sorted(set(row) - {WALL, GOAL, START, FREE}):
            raise ValueError(
                f"grid_map: unknown character {unknown[0]!r} in row {number}, column {row.index(unknown[0])}; known are "
                f"{WALL!r} wall, {GOAL!r} goal, {START!r} cell where episodes start, {FREE!r} any other cell"
            )
    cells = np.array([list(row) for row in rows])
    for character, meaning in {GOAL: "goal", START: "start cell"}.items():
        if not (cells == character).any():
            raise ValueError(f"grid_map needs at least one {meaning}, {character!r}, got {rows}")
    return cells


def _connected_to_a_start(cells: np.ndarray) -> np.ndarray:
    """Cells that can be reached from a start, [rows, columns]."""
    connected = np.pad(cells == START, 1)
    is_open = np.pad(cells != WALL, 1)
    while True:
        neighbours = [np.roll(connected, move, axis=(0, 1)) for move in MOVES.values()]
        grown = is_open & np.logical_or.reduce([connected, *neighbours])
        if (grown == connected).all():
            return connected[1:-1, 1:-1]
        connected = grown


class GridWorld(gym.Env[Any, Any]):
    """
    A grid world drawn as text.

    Actions 0 to 3 go up, right, down and left; a move into a wall or out of the map leaves the agent where it is. Further
    actions do nothing. Each step has the reward ``step_reward``; a step onto a goal has ``goal_reward`` and ends the episode.
    Episodes have no time limit here; the registered ids have one of 100 steps.

    The observation is the number of the agent's cell, counted along rows over all cells that can be reached from a start.

    :param grid_map: one line, or one string, per row: ``#`` wall, ``G`` goal, ``S`` cell where episodes start (drawn
        uniformly), ``.`` any other cell
    :param extra_actions: number of useless actions: they take a step and leave the agent where it is
    :param slip_probability: the probability that a uniformly drawn move replaces the chosen action
    :param goal_reward: reward of the step onto a goal
    :param step_reward: reward of every other step
    :param render_mode: ``"ansi"``, ``"rgb_array"`` or None
    :raises ValueError: if the map is not rectangular, has an unknown character, no goal, no start, or a start from which no
        goal can be reached; if another argument is out of its range
    """

    metadata = {"render_modes": ["ansi", "rgb_array"], "render_fps": 8}  # noqa: RUF012 (Gymnasium's way to declare them)

    def __init__(
        self,
        grid_map: str | Sequence[str] = CORRIDOR,
        extra_actions: int = 0,
        slip_probability: float = 0.0,
        goal_reward: float = 9.0,
        step_reward: float = -1.0,
        render_mode: str | None = None,
    ) -> None:
        if not (isinstance(extra_actions, (int, np.integer)) and extra_actions >= 0):
            raise ValueError(f"extra_actions must be a whole number from 0 on, got {extra_actions!r}")
        if not 0.0 <= slip_probability <= 1.0:
            raise ValueError(f"slip_probability must lie in [0, 1], got {slip_probability!r}")
        if not (np.isfinite(goal_reward) and np.isfinite(step_reward)):
            raise ValueError(f"goal_reward and step_reward must be finite, got {goal_reward!r} and {step_reward!r}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or one of {self.metadata['render_modes']}, got {render_mode!r}")
        #: Characters of the map, [rows, columns]
        self.cells = _parse_map(grid_map)
        #: Row and column of every state, [S, 2]
        self.positions = np.argwhere(_connected_to_a_start(self.cells))
        self.is_goal = self.cells[tuple(self.positions.T)] == GOAL
        self.action_meanings = [*MOVES, *(f"USELESS_{k}" for k in range(int(extra_actions)))]
        self.action_space = spaces.Discrete(len(self.action_meanings))
        self.observation_space = spaces.Discrete(len(self.positions))
        self.render_mode = render_mode

        self._destinations = self._find_destinations()
        starts = self.cells[tuple(self.positions.T)] == START
        self._check_reachable(starts)
        #: Probability that an episode starts in a state, [S]
        self.initial_state_distrib = starts / starts.sum()
        #: P[s][a]: list of (probability, next state, reward, terminated); in a goal, every action ends the episode, reward 0
        self.P = {
            state: {
                action: self._outcomes(state, action, slip_probability, goal_reward, step_reward)
                for action in range(len(self.action_meanings))
            }
            for state in range(len(self.positions))
        }
        self.state: int | None = None

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return toy_text_arrays(self.P)

    @property
    def transition(self) -> np.ndarray:
        """P(s'|s,a), [S, A, S]; the missing mass of a row is the probability that the episode ends."""
        return self._arrays[0]

    @property
    def reward(self) -> np.ndarray:
        """Expected reward, [S, A]."""
        return self._arrays[1]

    def get_action_meanings(self) -> list[str]:
        """Names of the actions, as Atari environments give them."""
        return self.action_meanings

    def _find_destinations(self) -> np.ndarray:
        """The state that each of the four moves leads to, [S, 4]."""
        number = {tuple(position): state for state, position in enumerate(self.positions.tolist())}
        return np.array(
            [
                [number.get((row + down, column + right), state) for down, right in MOVES.values()]
                for state, (row, column) in enumerate(self.positions.tolist())
            ]
        )

    def _check_reachable(self, starts: np.ndarray) -> None:
        """Check that every start has a way to a goal. The search goes backwards from the goals: moves can be undone."""
        reached = self.is_goal.copy()
        while (grown := reached | reached[self._destinations].any(axis=1)).sum() > reached.sum():
            reached = grown
        if (starts & ~reached).any():
            row, column = self.positions[np.argmax(starts & ~reached)]
            raise ValueError(f"grid_map: no goal can be reached from the start cell in row {row}, column {column}")

    def _outcomes(self, state: int, action: int, slip: float, goal_reward: float, step_reward: float) -> list[Outcome]:
        if self.is_goal[state]:
            return [(1.0, state, 0.0, True)]
        intended = int(self._destinations[state, action]) if action < len(MOVES) else state
        probability = {intended: 1.0 - slip}
        for destination in self._destinations[state].tolist():
            probability[destination] = probability.get(destination, 0.0) + slip / len(MOVES)
        return [
            (p, destination, goal_reward if self.is_goal[destination] else step_reward, bool(self.is_goal[destination]))
            for destination, p in probability.items()
            if p > 0.0
        ]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Gymnasium's ``reset``: the start cell is drawn uniformly."""
        super().reset(seed=seed)
        self.state = int(self.np_random.choice(len(self.initial_state_distrib), p=self.initial_state_distrib))
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Gymnasium's ``step``; episodes are never truncated."""
        if not self.action_space.contains(action):
            raise ValueError(f"action must be a whole number from 0 to {len(self.action_meanings) - 1}, got {action!r}")
        if self.state is None:
            raise gym.error.ResetNeeded("GridWorld: call reset() before step()")
        outcomes = self.P[self.state][int(action)]
        k = int(self.np_random.choice(len(outcomes), p=[outcome[0] for outcome in outcomes])) if len(outcomes) > 1 else 0
        _, self.state, reward, terminated = outcomes[k]
        return self.state, reward, terminated, False, {}

    def render(self) -> Any:
        """The map with the agent in it: text with ``A`` for the agent, or an image [rows · 24, columns · 24, 3] of uint8."""
        if self.render_mode is None:
            gym.logger.warn('GridWorld.render() without a render_mode: pass render_mode="ansi" or "rgb_array"')
            return None
        agent = None if self.state is None else tuple(self.positions[self.state])
        if self.render_mode == "ansi":
            drawn = self.cells.copy()
            if agent is not None:
                drawn[agent] = "A"
            return "\n".join("".join(row) for row in drawn) + "\n"
        colors = np.array([[COLORS[str(cell)] for cell in row] for row in self.cells], dtype=np.uint8)
        image = colors.repeat(PIXELS_PER_CELL, axis=0).repeat(PIXELS_PER_CELL, axis=1)
        if agent is not None:
            top, left = agent[0] * PIXELS_PER_CELL, agent[1] * PIXELS_PER_CELL
            inset = PIXELS_PER_CELL // 5
            image[top + inset : top + PIXELS_PER_CELL - inset, left + inset : left + PIXELS_PER_CELL - inset] = AGENT_COLOR
        return image


class FourRooms(GridWorld):
    """
    :data:`FOUR_ROOMS` with a goal to choose: a family of tasks on one map. Cells have the same numbers for each goal.

    :param goal: row and column of the goal, counted from 0 with the outer walls
    :param options: of :class:`GridWorld`
    :raises ValueError: if ``goal`` is not a free cell of the map; see :class:`GridWorld`
    """

    def __init__(self, goal: tuple[int, int] = (8, 9), **options: Any) -> None:
        rows = [list(row) for row in FOUR_ROOMS.strip("\n").split("\n")]
        free = {(row, column) for row, cells in enumerate(rows) for column, cell in enumerate(cells) if cell == START}
        # The map's own integers, because a goal of 8.0 equals 8 but is no index
        cell = next((cell for cell in free if np.array_equal(goal, cell)), None)
        if cell is None:
            raise ValueError(f"goal must be the row and column of a free cell of FOUR_ROOMS, got {goal!r}")
        rows[cell[0]][cell[1]] = GOAL
        super().__init__(["".join(row) for row in rows], **options)


class FourRoomsGoals(gym.Env[Any, Any]):
    """
    A family of tasks as one environment: :class:`FourRooms` whose goal is drawn uniformly in each episode.

    The observation is a Dict of ``goal`` and ``position``, which are numbers of cells, and ``last_action``, which is n_actions
    at the start of an episode. The space does not depend on the goals, so that a model also fits other families.

    :param goals: rows and columns as in :class:`FourRooms`; by default two of each room
    :param options: of :class:`GridWorld`
    :raises ValueError: if there is no goal, or one is not a free cell of the map; see :class:`GridWorld`
    """

    metadata = GridWorld.metadata

    def __init__(self, goals: Sequence[tuple[int, int]] = FOUR_ROOMS_GOALS, **options: Any) -> None:
        #: One for each goal
        self.worlds = [FourRooms(goal, **options) for goal in goals]
        if not self.worlds:
            raise ValueError(f"goals must hold at least one goal, got {goals!r}")
        self.world = self.worlds[0]
        self.render_mode = self.world.render_mode
        n_cells, self._n_actions = len(self.world.positions), len(self.world.action_meanings)
        self.action_space = self.world.action_space
        self.observation_space = spaces.Dict(
            {
                "goal": spaces.Discrete(n_cells),
                "last_action": spaces.Discrete(self._n_actions + 1),
                "position": spaces.Discrete(n_cells),
            }
        )

    def get_action_meanings(self) -> list[str]:
        """Names of the actions, as Atari environments give them."""
        return self.world.get_action_meanings()

    def _observation(self, last_action: int, position: int) -> dict[str, int]:
        return {"goal": int(np.argmax(self.world.is_goal)), "last_action": last_action, "position": position}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, int], dict[str, Any]]:
        """Gymnasium's ``reset``: goal and start cell are drawn uniformly."""
        super().reset(seed=seed)
        self.world = self.worlds[int(self.np_random.integers(len(self.worlds)))]
        self.world.np_random = self.np_random
        position, info = self.world.reset()
        return self._observation(self._n_actions, position), info

    def step(self, action: int) -> tuple[dict[str, int], float, bool, bool, dict[str, Any]]:
        """Gymnasium's ``step``, that of the goal's world."""
        position, reward, terminated, truncated, info = self.world.step(action)
        return self._observation(int(action), position), reward, terminated, truncated, info

    def render(self) -> Any:
        """The goal's world, see :meth:`GridWorld.render`."""
        return self.world.render()


#: Maps by the id under which `import sb3_mirl` registers them with Gymnasium, with a limit of 100 steps
GRID_WORLDS = {
    "MIRLCorridor-v0": CORRIDOR,
    "MIRLWideCorridor-v0": WIDE_CORRIDOR,
    "MIRLSquare-v0": SQUARE,
}

for env_id, world in GRID_WORLDS.items():
    gym.register(
        id=env_id,
        entry_point="sb3_mirl.envs.gridworld:GridWorld",
        kwargs={"grid_map": world},
        max_episode_steps=100,
    )

gym.register(id="MIRLFourRooms-v0", entry_point="sb3_mirl.envs.gridworld:FourRooms", max_episode_steps=100)
gym.register(id="MIRLFourRoomsGoals-v0", entry_point="sb3_mirl.envs.gridworld:FourRoomsGoals", max_episode_steps=100)
