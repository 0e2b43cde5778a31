"""Callbacks of each run get their events with their run's generator in place."""

import numpy as np
import torch as th
from joint_runs import SAME, make_models
from stable_baselines3.common.callbacks import BaseCallback

from sb3_mirl import BetaUpdateCallback, GradientStepCallback, PriorUpdateCallback
from sb3_mirl.joint.callbacks import JointCallbacks
from sb3_mirl.joint.random_numbers import RunGenerator, global_generator_kept


class Drawing(GradientStepCallback):
    """Draws a random number at each event."""

    def __init__(self):
        super().__init__()
        self.drawn = []

    def draw(self):
        self.drawn.append(np.random.random_sample())

    def _on_step(self):
        self.draw()
        return self.locals["rewards"] > 0

    _on_training_start = _on_rollout_start = _on_rollout_end = _on_training_end = draw

    def _on_gradient_step(self, squared_td_error):
        self.draw()


def test_events_and_generators():
    given: list[BaseCallback | None] = [Drawing(), None, Drawing()]
    models = make_models(SAME, lambda: "CartPole-v1", "MlpPolicy")
    started = [model._setup_learn(100, callback)[1] for model, callback in zip(models, given, strict=True)]
    generators = [RunGenerator(np.random.RandomState(seed).get_state(legacy=False)) for seed in range(3)]
    callbacks = JointCallbacks(models, generators, started)
    with global_generator_kept():
        for row in range(3):
            callbacks.on_training_start(row)
            callbacks.on_rollout_start(row)
        assert callbacks.on_step(0, {"rewards": 1}) and not callbacks.on_step(2, {"rewards": 0})
        for row in (0, 2):
            assert models[row].has_gradient_step_callbacks
            callbacks.on_gradient_step(row, th.tensor(1.0))
        assert not models[1].has_gradient_step_callbacks
        for row in range(3):
            callbacks.on_rollout_end(row)
            callbacks.on_training_end(row)
    assert callbacks.rows_with_callbacks == {0, 2}
    for row in (0, 2):
        assert given[row].drawn == np.random.RandomState(row).random_sample(6).tolist()
    for row in range(3):
        assert [type(callback) for callback in callbacks.taken[row]] == [PriorUpdateCallback, BetaUpdateCallback]
    assert callbacks.taken[0][0].n_calls == 1 and callbacks.taken[1][0].n_calls == 0
