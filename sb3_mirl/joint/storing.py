"""Stores the transitions of all runs, as SB3's ``_store_transition()`` does."""

from collections.abc import Sequence

import numpy as np

from sb3_mirl.common import inputs
from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.joint.environments import Environments, Transitions, own_observations
from sb3_mirl.joint.random_numbers import RunGenerator
from sb3_mirl.joint.replay import OwnBuffers, StackedBuffers


def store_transitions(
    models: Sequence[BaseDQN],
    rows: Sequence[int],
    environments: Environments,
    replay: OwnBuffers | StackedBuffers,
    actions: np.ndarray,
    transitions: Transitions,
) -> list[tuple[int, ValueError]]:
    """
    Check and store one transition of each environment, and set ``_last_obs`` of the models.

    :param models: the models, by row
    :param rows: rows of the runs that go on
    :param environments: the environments, which still hold the observations s
    :param replay: the replay buffers
    :param actions: actions of the networks, [R, n_envs]
    :param transitions: the transitions of the environments
    :return: the rows whose rewards or observations were not valid, with the errors
    """
    if isinstance(replay, OwnBuffers):
        return _store_one_by_one(models, rows, replay.generators, actions, transitions)
    failed = [] if _all_valid(models[rows[0]], rows, transitions) else _find_invalid(models, rows, transitions)
    wrong = [row for row, _ in failed]
    next_observations = _next_observations(transitions)
    (key,) = environments.keys
    stored = [row for row in rows if row not in wrong]
    if stored:
        replay.add(
            stored,
            environments.observations[key],
            next_observations,
            actions,
            transitions.rewards,
            transitions.dones,
            transitions.timeouts,
        )
    for row in stored:
        model = models[row]
        model._last_original_obs = model._last_obs
        model._last_obs = transitions.observations[key][row]
        model.n_stored += 1
    return failed


def _store_one_by_one(
    models: Sequence[BaseDQN],
    rows: Sequence[int],
    generators: Sequence[RunGenerator],
    actions: np.ndarray,
    transitions: Transitions,
) -> list[tuple[int, ValueError]]:
    failed = []
    for row in rows:
        model, (observations, rewards) = models[row], transitions.of_row(row)
        dones, infos = transitions.dones[row], transitions.infos[row]
        with generators[row]:
            try:
                model._store_transition(model.replay_buffer, actions[row], observations, rewards, dones, infos)  # type: ignore[arg-type]
            except ValueError as error:
                failed.append((row, error))
    return failed


def _next_observations(transitions: Transitions) -> np.ndarray:
    """s' of all runs, [R, n_envs, ...]: the last observations of the episodes that have ended."""
    (observations,) = transitions.observations.values()
    if not transitions.ended:
        return observations
    next_observations = observations.copy()
    for row, env in transitions.ended:
        if (last := transitions.infos[row][env].get("terminal_observation")) is not None:
            next_observations[row, env] = last
    return next_observations


def _all_valid(model: BaseDQN, rows: Sequence[int], transitions: Transitions) -> bool:
    """Whether all that is to be stored is valid: one check for all runs, which share their space."""
    (observations,) = transitions.observations.values()
    used = slice(None) if len(rows) == len(observations) else [*rows]
    try:
        inputs.check_rewards(transitions.rewards[used].reshape(-1), _reward_limit(model), 0)
        inputs.check_observations(model.observation_space, observations[used].reshape(-1, *observations.shape[2:]), 0)
        _check_last_observations(model, transitions.ended, transitions)
    except ValueError:
        return False
    return True


def _find_invalid(models: Sequence[BaseDQN], rows: Sequence[int], transitions: Transitions) -> list[tuple[int, ValueError]]:
    failed = []
    for row in rows:
        model = models[row]
        space, step = model.observation_space, model.num_timesteps
        try:
            inputs.check_rewards(transitions.rewards[row], _reward_limit(model), step)
            inputs.check_observations(space, own_observations(transitions.observations, row), step)
            _check_last_observations(model, [ended for ended in transitions.ended if ended[0] == row], transitions)
        except ValueError as error:
            failed.append((row, error))
    return failed


def _check_last_observations(model: BaseDQN, ended: list[tuple[int, int]], transitions: Transitions) -> None:
    for row, env in ended:
        if (last := transitions.infos[row][env].get("terminal_observation")) is not None:
            inputs.check_terminal_observation(model.observation_space, last, env, model.num_timesteps)


def _reward_limit(model: BaseDQN) -> float:
    return inputs.LARGEST_SQUARABLE if model.loss == "mse" else inputs.LARGEST_FLOAT32
