"""Chooses the actions of all runs: random actions during the warm-up, then the best actions and exploration."""

from collections.abc import Sequence

import numpy as np
import torch as th

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.joint.environments import Arrays
from sb3_mirl.joint.networks import StackedNetworks
from sb3_mirl.joint.random_numbers import RunGenerator
from sb3_mirl.mirl.mirl import MIRL


class Acting:
    """
    Chooses the actions of all runs, with the random numbers that each would draw alone.

    :param networks: of all runs
    :param generators: by row
    """

    def __init__(self, networks: StackedNetworks, generators: Sequence[RunGenerator]) -> None:
        self._networks, self._generators = networks, [*generators]
        self._models = networks.models
        self._n_envs = self._models[0].n_envs
        self._starts = np.array([[model.action_space.start] for model in self._models])  # type: ignore[attr-defined]
        #: ρ after the latest step, float64 [n_soft, n_actions]; None during the warm-up
        self.moved_prior: th.Tensor | None = None
        #: π(·|s) behind the latest actions, float64 [n_soft, n_envs, n_actions]; None during the warm-up
        self.probabilities: th.Tensor | None = None

    def choose(self, rows: Sequence[int], observations: Arrays) -> tuple[np.ndarray, np.ndarray]:
        """
        :param rows: of the runs that go on
        :param observations: at the present step
        :return: actions of the environments and of the networks, which count from 0, both [R, n_envs]
        """
        actions = np.zeros((len(self._models), self._n_envs), np.int64)
        if self._models[rows[0]].num_timesteps < self._models[rows[0]].learning_starts:
            self.moved_prior = self.probabilities = None
            for row in rows:
                actions[row] = self._draw(row)
            return actions, actions - self._starts
        # Copies: a network may change its input in place
        tensors = {key: th.tensor(array, device=self._networks.device) for key, array in observations.items()}
        best, self.probabilities, self.moved_prior = self._networks.act(tensors)
        actions[:] = best.cpu().numpy() + self._starts
        self._explore(rows, actions)
        return actions, actions - self._starts

    def _explore(self, rows: Sequence[int], actions: np.ndarray) -> None:
        """Replace some actions: MIRL tosses a coin for each environment, DQN one for all."""
        soft = [row for row in rows if isinstance(self._models[row], MIRL)]
        # A single number is drawn faster than an array of one number, and has the same value
        size = None if self._n_envs == 1 else self._n_envs
        coins = np.array([self._generators[row].random.random_sample(size) for row in soft]).reshape(-1, self._n_envs)
        rates = np.array([[self._models[row].exploration_rate] for row in soft])
        exploring = coins < rates
        for index in np.flatnonzero(exploring.any(axis=1)) if soft else ():
            row = soft[index]
            actions[row] = np.where(exploring[index], self._draw(row), actions[row])
        for row in rows[len(soft) :]:
            if self._generators[row].random.rand() < self._models[row].exploration_rate:
                actions[row] = self._draw(row)

    def _draw(self, row: int) -> np.ndarray:
        """Random actions of the environments, from ρ or, for DQN, uniform ones."""
        model: BaseDQN = self._models[row]
        if isinstance(model, MIRL):
            return model.policy.sample_prior((self._n_envs,), self._generators[row].random)
        return np.array([model.action_space.sample() for _ in range(self._n_envs)])
