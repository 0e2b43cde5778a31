"""One step of every environment."""

from collections.abc import Collection, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.joint.random_numbers import RunGenerator

#: If one of these methods was replaced in a DummyVecEnv object, the vector environment is stepped as a whole
_STEPS = {"step", "step_async", "step_wait", "reset"}
#: Observations of all runs by key, [R, n_envs, ...]. The key is "" if observations are not dictionaries
Arrays = dict[str, np.ndarray]


class Transitions(NamedTuple):
    """What one step of all environments gave. Rows of runs that have ended are not set."""

    #: The first ones of a new episode where one has ended
    observations: Arrays
    #: float32 [R, n_envs]
    rewards: np.ndarray
    #: bool [R, n_envs]
    dones: np.ndarray
    #: Whether an episode ended by a time limit, bool [R, n_envs]
    timeouts: np.ndarray
    #: By row, as SB3's vector environments give them
    infos: list[list[dict[str, Any]]]
    #: Observations and rewards, by row, of the vector environments that were stepped as a whole
    given: dict[int, tuple[Any, np.ndarray]]
    #: Rows and environments whose episode has ended
    ended: list[tuple[int, int]]
    #: Rows whose step has failed, with the reason
    errors: list[tuple[int, ValueError]]
    #: Rows whose infos must be shown to SB3's statistics
    eventful: list[int]

    def of_row(self, row: int) -> tuple[Any, np.ndarray]:
        """Observations and rewards of one run, as its vector environment gives them."""
        return self.given[row] if row in self.given else (own_observations(self.observations, row), self.rewards[row])


class Environments:
    """
    The environments of all models. Environments in exact ``DummyVecEnv`` objects are stepped one by one, without the copies of
    observations, rewards and infos that the vector environment makes at each step.

    :param models: by row, after ``_setup_learn()``
    :param generators: by row
    :param copied: rows whose infos are copied at each step, as in ``DummyVecEnv``, because callbacks or buffers may keep them
    """

    def __init__(self, models: Sequence[BaseDQN], generators: Sequence[RunGenerator], copied: Collection[int] = ()) -> None:
        self._copied = copied
        self._models, self._generators = [*models], [*generators]
        self._inner: list[list[Any] | None] = [
            model.env.envs if type(model.env) is DummyVecEnv and not vars(model.env).keys() & _STEPS else None
            for model in models
        ]
        self._n_envs = models[0].n_envs
        first = [as_arrays(model._last_obs) for model in models]
        self.keys = [*first[0]]
        #: Observations at the present step
        self.observations: Arrays = {key: np.stack([own[key] for own in first]) for key in self.keys}

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Transitions:
        """
        :param rows: of the runs that go on
        :param actions: of the environments, [R, n_envs]
        :return: what happened; :attr:`observations` stays as it is
        """
        shape = (len(self._models), self._n_envs)
        transitions = Transitions(
            # Runs that have ended keep their last observations: the networks compute on them
            observations={
                key: array.copy() if len(rows) < len(array) else np.empty_like(array)
                for key, array in self.observations.items()
            },
            rewards=np.zeros(shape, np.float32),
            dones=np.zeros(shape, bool),
            timeouts=np.zeros(shape, bool),
            infos=[[] for _ in self._models],
            given={},
            ended=[],
            errors=[],
            eventful=[],
        )
        for row in rows:
            step = self._step_vector_environment if self._inner[row] is None else self._step_environments
            try:
                with self._generators[row]:
                    step(row, actions[row], transitions)
            except ValueError as error:  # of VecCheckNan, for example
                transitions.errors.append((row, error))
        return transitions

    def release(self, row: int) -> None:
        """Give one model observations of its own."""
        own = own_observations(self.observations, row)
        copied = {key: array.copy() for key, array in own.items()} if isinstance(own, dict) else own.copy()
        self._models[row]._last_obs = copied

    def _step_vector_environment(self, row: int, actions: np.ndarray, transitions: Transitions) -> None:
        new = self._models[row].env.step(actions)  # type: ignore[union-attr]
        observations, transitions.rewards[row], transitions.dones[row], transitions.infos[row] = new
        for key, array in as_arrays(observations).items():
            transitions.observations[key][row] = array
        transitions.timeouts[row] = [info.get("TimeLimit.truncated", False) for info in new[3]]
        transitions.ended.extend((row, int(number)) for number in np.flatnonzero(new[2]))
        transitions.given[row] = new[0], new[1]
        transitions.eventful.append(row)

    def _step_environments(self, row: int, actions: np.ndarray, transitions: Transitions) -> None:
        infos = transitions.infos[row]
        eventful = False
        for number, env in enumerate(self._inner[row]):  # type: ignore[arg-type]
            observation, transitions.rewards[row, number], terminated, truncated, info = env.step(actions[number])
            info = {**info, "TimeLimit.truncated": truncated and not terminated}
            if terminated or truncated:
                transitions.dones[row, number] = True
                transitions.timeouts[row, number] = info["TimeLimit.truncated"]
                transitions.ended.append((row, number))
                info["terminal_observation"] = observation
                observation, self._models[row].env.reset_infos[number] = env.reset()  # type: ignore[union-attr]
                eventful = True
            elif "episode" in info:
                eventful = True
            for key, array in transitions.observations.items():
                array[row, number] = observation[key] if key else observation
            infos.append(info)
        if eventful:
            transitions.eventful.append(row)
        if eventful or row in self._copied:
            transitions.infos[row] = deepcopy(infos)


def as_arrays(observations: Any) -> Arrays:
    """Observations of one vector environment, by key."""
    return observations if isinstance(observations, dict) else {"": observations}


def own_observations(observations: Arrays, row: int) -> Any:
    """The observations of one run, as its vector environment gives them."""
    own = {key: array[row] for key, array in observations.items()}
    return own[""] if [*own] == [""] else own
