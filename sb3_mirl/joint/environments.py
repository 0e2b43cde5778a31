"""One step of every environment."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.joint.random_numbers import RunGenerator

#: Observations of all runs by key, [R, n_envs, ...]; the key of an observation that is no dictionary is ""
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
    #: By row, observations and rewards as the vector environment gave them
    given: list[tuple[Any, np.ndarray]]


class Environments:
    """
    The environments of all models. Those of exact ``DummyVecEnv`` objects are stepped one by one: the vector environment
    copies observations, rewards and infos at each step, which takes longer than a step of CartPole.

    :param models: by row, after ``_setup_learn()``
    :param generators: by row
    """

    def __init__(self, models: Sequence[BaseDQN], generators: Sequence[RunGenerator]) -> None:
        self._models, self._generators = [*models], [*generators]
        self._inner: list[list[Any] | None] = [
            model.env.envs if type(model.env) is DummyVecEnv else None  # type: ignore[union-attr]
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
        n_runs, n_envs = len(self._models), self._n_envs
        observations = {key: np.empty_like(array) for key, array in self.observations.items()}
        rewards = np.zeros((n_runs, n_envs), np.float32)
        dones, timeouts = np.zeros((n_runs, n_envs), bool), np.zeros((n_runs, n_envs), bool)
        infos: list[list[dict[str, Any]]] = [[] for _ in range(n_runs)]
        given: list[tuple[Any, np.ndarray]] = [(None, rewards)] * n_runs
        for row in rows:
            envs = self._inner[row]
            with self._generators[row]:
                if envs is None:
                    new = self._models[row].env.step(actions[row])  # type: ignore[union-attr]
                    for key, array in as_arrays(new[0]).items():
                        observations[key][row] = array
                    rewards[row], dones[row], infos[row] = new[1], new[2], new[3]
                    timeouts[row] = [info.get("TimeLimit.truncated", False) for info in new[3]]
                    given[row] = new[0], new[1]
                    continue
                for number, env in enumerate(envs):
                    observation, rewards[row, number], terminated, truncated, info = env.step(actions[row, number])
                    timeouts[row, number] = info["TimeLimit.truncated"] = truncated and not terminated
                    if terminated or truncated:
                        dones[row, number] = True
                        info["terminal_observation"] = observation
                        observation, self._models[row].env.reset_infos[number] = env.reset()  # type: ignore[union-attr]
                    if self.keys == [""]:
                        observations[""][row, number] = observation
                    else:
                        for key in self.keys:
                            observations[key][row, number] = observation[key]
                    infos[row].append(info)
                given[row] = own_observations(observations, row), rewards[row]
        return Transitions(observations, rewards, dones, timeouts, infos, given)


def as_arrays(observations: Any) -> Arrays:
    """Observations of one vector environment, by key."""
    return observations if isinstance(observations, dict) else {"": observations}


def own_observations(observations: Arrays, row: int) -> Any:
    """The observations of one run, as its vector environment gives them."""
    own = {key: array[row] for key, array in observations.items()}
    return own[""] if [*own] == [""] else own
