"""Events of callbacks."""

import copy

import gymnasium as gym
import torch as th
from models import FAST
from probes import ConstantReward
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps

from sb3_mirl import MIRL, BaseDQN, BetaUpdateCallback, GradientStepCallback
from sb3_mirl.common.events import RolloutEvents, callbacks_inside_events, flatten_callbacks


def test_plain_callbacks_functions_and_progress_bars_work(tmp_path):
    calls = []
    model = MIRL("MlpPolicy", ConstantReward(), **FAST)
    model.learn(40, callback=lambda locals_, globals_: calls.append(1) or True, progress_bar=True)
    evaluation = EvalCallback(gym.wrappers.TimeLimit(ConstantReward(), 5), eval_freq=10, verbose=0, log_path=str(tmp_path))
    model.learn(40, callback=[evaluation])
    assert len(calls) == 40 and evaluation.n_calls == 40


def test_a_callback_can_stop_training():
    model = MIRL("MlpPolicy", ConstantReward(), **FAST)
    model.learn(100, callback=lambda locals_, _: locals_["self"].num_timesteps < 30)
    assert model.num_timesteps == 30


def lambda_callback(function):
    class Call(BaseCallback):
        def _on_step(self):
            function()
            return True

    return Call()


def test_callbacks_can_deepcopy_model_and_nest_in_eval_callback():
    model = MIRL("MlpPolicy", ConstantReward(), beta_init=1.0, train_freq=50, gradient_steps=3, **FAST)
    copies = []

    class Doubling(BetaUpdateCallback):
        def _on_gradient_step(self, squared_td_error):
            self.beta.mul_(2)

    env = gym.wrappers.TimeLimit(ConstantReward(), 5)
    evaluation = EvalCallback(env, callback_on_new_best=Doubling(), eval_freq=10, verbose=0, warn=False)
    model.learn(50, callback=[lambda_callback(lambda: copies.append(copy.deepcopy(model))), evaluation])
    assert model.beta == 8.0 and len(copies) == 50


class Recording(GradientStepCallback):
    """Counts its events."""

    def __init__(self):
        super().__init__()
        self.events = []

    def _on_gradient_step(self, squared_td_error):
        self.events.append(("gradient step", squared_td_error.shape, float(squared_td_error) >= 0))

    def _on_rollout_end(self):
        self.events.append("rollout end")


def test_every_gradient_step_of_base_dqn_is_an_event():
    callback = Recording()
    settings = {"learning_starts": 20, "train_freq": 4, "gradient_steps": 3, "buffer_size": 100}
    model = BaseDQN("MlpPolicy", ConstantReward(), **settings).learn(40, callback=callback)
    steps = [event for event in callback.events if event != "rollout end"]
    assert steps == [("gradient step", th.Size([]), True)] * model._n_updates and model._n_updates > 0


def test_containers_are_flattened_and_rollouts_reach_callbacks_inside_of_events():
    inner, other = Recording(), Recording()
    container = CallbackList([EveryNTimesteps(5, CallbackList([inner, inner])), other])
    assert [type(item) for item in flatten_callbacks(container)].count(Recording) == 3
    assert callbacks_inside_events(container, Recording) == [inner]
    RolloutEvents([inner]).on_rollout_end()
    assert inner.events == ["rollout end"] and other.events == []
