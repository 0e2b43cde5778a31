"""The returns of a run in a few numbers."""

import json

import numpy as np
import pytest
from probes import ConstantReward
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import MIRL
from sb3_mirl.common.learning_curve import FEWEST_POINTS, MOST_POINTS, add_return, first_and_last, is_curve, new_curve


def curve_of(returns):
    curve = new_curve()
    for value in returns:
        add_return(curve, value)
    return curve


@pytest.mark.parametrize("n_episodes", [0, 1, 63, 64, 65, 127, 128, 1000, 4097])
def test_points_are_means_of_consecutive_episodes(n_episodes):
    returns = np.random.default_rng(0).normal(size=n_episodes)
    curve = curve_of(returns)
    size, points = curve["episodes_per_point"], curve["points"]
    assert len(points) < MOST_POINTS and is_curve(json.loads(json.dumps(curve)))
    whole = size * len(points)
    np.testing.assert_allclose(points, returns[:whole].reshape(-1, size).mean(axis=1))
    assert curve["count"] == n_episodes - whole < size and curve["sum"] == pytest.approx(returns[whole:].sum())


def test_first_and_last_quarter():
    assert first_and_last(curve_of(range(FEWEST_POINTS - 1))) is None
    assert first_and_last(curve_of(range(40))) == {"first": 4.5, "last": 34.5, "episodes": 10, "improved": True}


@pytest.mark.parametrize("returns", [[1.0] * 200, [*range(200, 0, -1)], [0.0, 1.0] * 100, [1.0] + [0.0] * 199])
def test_flat_or_falling_returns_are_not_improved(returns):
    assert not first_and_last(curve_of(returns))["improved"]


def test_returns_that_are_not_finite_are_left_out():
    assert curve_of([1.0, np.nan, np.inf, -1e200])["points"] == [1.0]


def test_a_model_keeps_the_returns_since_its_counters_began(tmp_path):
    env = make_vec_env(lambda: ConstantReward(reward=2.0, length=5), 2)
    model = MIRL("MlpPolicy", env, learning_starts=1000, buffer_size=100)
    model.learn(40)
    assert model.learning_curve["points"] == [10.0] * 8
    model.learn(20, reset_num_timesteps=False)
    assert model.learning_curve["points"] == [10.0] * 12
    model.save(tmp_path / "model.zip")
    assert MIRL.load(tmp_path / "model.zip").learning_curve == model.learning_curve
    assert MIRL.load_exported(model.export(tmp_path / "model")).learning_curve == model.learning_curve
    assert model.learn(10).learning_curve["points"] == [10.0] * 2
