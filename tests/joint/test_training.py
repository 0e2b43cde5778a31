"""Joint training equals solo training of each model, whatever the models are."""

import functools
import warnings
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from joint_runs import DIFFERENT, SAME, check_equal, make_models, train_alone
from probes import ConstantReward, Image, Mixed
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_mirl import (
    DQNMSE,
    MDQN,
    MIRL,
    BetaUpdateCallback,
    CheckpointCallback,
    DeviceReplayBuffer,
    FrameReplayBuffer,
    GradientStepCallback,
    PriorUpdateCallback,
    train_jointly,
)

NO_TIMEOUTS = {"handle_timeout_termination": False}
RMSPROP = {"net_arch": [16], "optimizer_class": th.optim.RMSprop, "optimizer_kwargs": {"weight_decay": 0.1}}


def cartpole():
    return "CartPole-v1"


def check_jointly(specifications, make_env, policy="MlpPolicy", steps=160, tolerance=1e-4, **settings):
    alone = train_alone(specifications, make_env, policy, steps, **settings)
    joint = make_models(specifications, make_env, policy, **settings)
    assert train_jointly(joint, steps) == [None] * len(joint)
    for one, other in zip(alone, joint, strict=True):
        assert one._n_updates >= 15
        check_equal(one, other, tolerance)
    return alone, joint


def test_one_run_equals_solo_training():
    check_jointly(DIFFERENT[:1], cartpole, steps=300)


@pytest.mark.parametrize("loss", [pytest.param("mse", marks=pytest.mark.slow), "huber"])
def test_different_runs_equal_solo_training(loss):
    check_jointly(DIFFERENT, cartpole, steps=300, loss=loss)


class InFloat64(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 4)

    def forward(self, observations):
        return observations.double()


def in_float64(models):
    for model in models:
        model.policy.double()
        model.policy.optimizer = th.optim.Adam(model.q_net.parameters(), lr=model.lr_schedule(1.0))
    return models


def test_float64_leaves_differences_of_rounding_only():
    settings = {"policy_kwargs": {"net_arch": [32], "features_extractor_class": InFloat64}}
    alone = []
    for specification in DIFFERENT:
        (model,) = in_float64(make_models([specification], cartpole, "MlpPolicy", **settings))
        alone.append(model.learn(300))
    joint = in_float64(make_models(DIFFERENT, cartpole, "MlpPolicy", **settings))
    train_jointly(joint, 300)
    for one, other in zip(alone, joint, strict=True):
        assert next(other.q_net.parameters()).dtype == th.float64
        check_equal(one, other, tolerance=1e-9)


def test_a_run_does_not_change_the_others():
    few = make_models(DIFFERENT[:2], cartpole, "MlpPolicy")
    train_jointly(few, 200)
    many = make_models([DIFFERENT[4], *DIFFERENT[:2], DIFFERENT[2]], cartpole, "MlpPolicy")
    train_jointly(many, 200)
    for one, other in zip(few, many[1:3], strict=True):
        check_equal(one, other, tolerance=1e-6)


@pytest.mark.parametrize(
    ("make_env", "policy", "settings"),
    [
        pytest.param(lambda: make_vec_env("CartPole-v1", 3, seed=0), "MlpPolicy", {}, id="three environments"),
        pytest.param(cartpole, "MlpPolicy", {"n_steps": 3}, id="n steps"),
        pytest.param(cartpole, "MlpPolicy", {"gradient_steps": 3, "tau": 0.5, "train_freq": 4}, id="several gradient steps"),
        pytest.param(
            cartpole, "MlpPolicy", {"gradient_steps": -1, "train_freq": 3}, id="as many gradient steps", marks=pytest.mark.slow
        ),
        pytest.param(
            cartpole,
            "MlpPolicy",
            {"optimize_memory_usage": True, "replay_buffer_kwargs": NO_TIMEOUTS},
            id="memory",
            marks=pytest.mark.slow,
        ),
        pytest.param(lambda: VecNormalize(make_vec_env("CartPole-v1", 2, seed=0)), "MlpPolicy", {}, id="normalised"),
        pytest.param(lambda: gym.make("FrozenLake-v1"), "MlpPolicy", {}, id="categories"),
        pytest.param(Mixed, "MultiInputPolicy", {"buffer_size": 100, "policy_kwargs": {"net_arch": [8]}}, id="dictionary"),
        pytest.param(Image, "CnnPolicy", {"buffer_size": 100, "policy_kwargs": {}, "batch_size": 4}, id="image"),
        pytest.param(
            lambda: VecFrameStack(make_vec_env(Image, 1, seed=0), 3),
            "CnnPolicy",
            {"buffer_size": 100, "policy_kwargs": {}, "batch_size": 4, "replay_buffer_class": FrameReplayBuffer},
            id="frames",
        ),
        pytest.param(
            lambda: BitFlippingEnv(4, max_steps=8),
            "MultiInputPolicy",
            {"replay_buffer_class": HerReplayBuffer, "policy_kwargs": {"net_arch": [16]}},
            id="hindsight",
        ),
        pytest.param(
            cartpole,
            "MlpPolicy",
            {
                "policy_kwargs": {
                    "net_arch": [16],
                    "optimizer_class": th.optim.RMSprop,
                    "optimizer_kwargs": {"weight_decay": 0.1},
                }
            },
            id="RMSprop",
            marks=pytest.mark.slow,
        ),
        pytest.param(cartpole, "MlpPolicy", {"mixed_precision": True}, id="bfloat16"),
        pytest.param(
            cartpole,
            "MlpPolicy",
            {"compile_update": True, "policy_kwargs": {"net_arch": [16]}},
            id="compiled",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_kinds_of_training(make_env, policy, settings):
    specifications = [*SAME[:2], (DQNMSE, {"seed": 5})]
    steps = 110 if policy != "MlpPolicy" else 160
    # A number of bfloat16 has 8 bits
    tolerance = 2e-2 if "mixed_precision" in settings else 1e-4
    check_jointly(specifications, make_env, policy, steps, tolerance, **settings)


def test_action_space_may_start_at_another_number():
    class Shifted(ConstantReward):
        def __init__(self):
            super().__init__()
            self.action_space = spaces.Discrete(2, start=3)

    check_jointly([*SAME[:2], (DQNMSE, {"seed": 5})], Shifted)


class Drawing(ConstantReward):
    """Draws observations from NumPy's global generator, an odd number of normally distributed ones."""

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return np.random.randn(3).astype(np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.random.randn(3).astype(np.float32), float(action), self.steps >= self.length, False, {}


def test_environments_may_draw_from_the_global_generator():
    check_jointly(SAME, Drawing)


def test_the_global_generator_is_put_back():
    np.random.seed(1)
    np.random.randn()  # the second of the pair is pending
    expected = np.random.get_state(legacy=False)
    models = make_models(SAME, Drawing, "MlpPolicy")
    np.random.set_state(expected)
    train_jointly(models, 100)
    state = np.random.get_state(legacy=False)
    assert state["has_gauss"] == 1 and state["gauss"] == expected["gauss"]
    np.testing.assert_array_equal(state["state"]["key"], expected["state"]["key"])


def test_model_can_be_used_afterwards_as_if_trained_alone(tmp_path):
    alone, joint = check_jointly(SAME, cartpole)
    observation = np.zeros(4, np.float32)
    for number, (one, other) in enumerate(zip(alone, joint, strict=True)):
        assert other.predict(observation, deterministic=True)[0] == one.predict(observation, deterministic=True)[0]
        other.save(tmp_path / str(number))
        loaded = MIRL.load(tmp_path / str(number))
        np.testing.assert_array_equal(loaded.prior, other.prior)
        other.export(tmp_path / f"{number}.safetensors")
        # The models share nothing
        before = [parameter.clone() for parameter in joint[number - 1].q_net.parameters()]
        other.learn(100, reset_num_timesteps=False)
        assert other.num_timesteps == 260
        for old, new in zip(before, joint[number - 1].q_net.parameters(), strict=True):
            assert th.equal(old, new)
        arrays = [other.replay_buffer.observations, *other.policy.optimizer.state.values()]
        assert arrays[0].base is None


def test_trained_models_can_be_trained_jointly():
    alone = train_alone(DIFFERENT, cartpole, "MlpPolicy", 200)
    joint = make_models(DIFFERENT, cartpole, "MlpPolicy")
    train_jointly(joint, 200)
    for model in alone:
        np.random.set_state(model.random_state)
        model.learn(150)
    train_jointly(joint, 150)
    for one, other in zip(alone, joint, strict=True):
        check_equal(one, other, 1e-3)


def test_new_and_loaded_models_train_together(tmp_path):
    def load():
        return MIRL.load(tmp_path / "model", gym.make("CartPole-v1"))

    make_models(SAME[:1], cartpole, "MlpPolicy")[0].learn(120).save(tmp_path / "model")
    alone = load()
    alone.learn(150)
    (new,) = train_alone(SAME[1:2], cartpole, "MlpPolicy", 150)
    joint = [load(), *make_models(SAME[1:2], cartpole, "MlpPolicy")]
    train_jointly(joint, 150)
    check_equal(alone, joint[0])
    check_equal(new, joint[1])


class Counting(BaseCallback):
    """Counts its events, and ends the training at a step."""

    def __init__(self, end=None):
        super().__init__()
        self.end, self.events, self.rewards = end, [], []

    def _on_training_start(self):
        self.events.append("start")

    def _on_rollout_start(self):
        self.events.append("rollout")

    def _on_step(self):
        self.events.append(self.num_timesteps)
        self.rewards.append((float(self.locals["rewards"][0]), bool(self.locals["dones"][0]), len(self.locals["infos"])))
        assert self.locals["self"] is self.model and self.training_env is self.model.env
        assert self.locals["new_obs"].shape == (1, 4)
        return self.end is None or self.num_timesteps < self.end

    def _on_rollout_end(self):
        self.events.append("rollout end")

    def _on_training_end(self):
        self.events.append("end")


def test_events_of_callbacks_are_those_of_solo_training():
    callbacks = [Counting(), Counting(end=77), Counting(end=120)]
    alone = []
    for specification, end in zip(SAME, (None, 77, 120), strict=True):
        (model,) = make_models([specification], cartpole, "MlpPolicy")
        alone.append((model, Counting(end)))
        model.learn(150, callback=alone[-1][1])
    joint = make_models(SAME, cartpole, "MlpPolicy")
    assert train_jointly(joint, 150, callback=callbacks) == [None] * 3
    for (model, expected), other, callback in zip(alone, joint, callbacks, strict=True):
        assert callback.events == expected.events and callback.rewards == expected.rewards
        check_equal(model, other)
    assert [model.num_timesteps for model in joint] == [150, 77, 120]


@pytest.mark.parametrize("at", [30, 75, 76])
def test_all_runs_may_end_at_once(at):
    models = make_models(SAME, cartpole, "MlpPolicy")
    assert train_jointly(models, 10**9, callback=[Counting(end=at) for _ in models]) == [None] * 3
    assert [model.num_timesteps for model in models] == [at] * 3


@pytest.mark.filterwarnings("ignore:Joint training goes on")
def test_all_runs_may_fail_at_once():
    models = make_models(SAME, lambda: Invalid("reward"), "MlpPolicy")
    assert ["reward" in str(error) for error in train_jointly(models, 150)] == [True] * 3


def test_callbacks_from_a_function():
    made = []

    def make(model):
        made.append((model, Counting()))
        return made[-1][1]

    models = make_models(SAME, cartpole, "MlpPolicy")
    train_jointly(models, 60, callback=make)
    assert [model for model, _ in made] == models
    assert all(callback.model is model and callback.num_timesteps == 60 for model, callback in made)


def test_evaluations_of_each_run(tmp_path):
    def evaluation(folder):
        return EvalCallback(
            Monitor(gym.make("CartPole-v1")), eval_freq=50, log_path=str(folder), best_model_save_path=str(folder), verbose=0
        )

    results = {}
    for how in ("alone", "jointly"):
        models = [] if how == "alone" else make_models(SAME, cartpole, "MlpPolicy")
        callbacks = []
        for number, specification in enumerate(SAME):
            callbacks.append(evaluation(tmp_path / how / str(number)))
            callbacks[-1].eval_env.seed(number)
            if how == "alone":
                make_models([specification], cartpole, "MlpPolicy")[0].learn(200, callback=callbacks[-1])
        if models:
            train_jointly(models, 200, callback=callbacks)
        results[how] = [np.load(tmp_path / how / str(number) / "evaluations.npz")["results"] for number in range(3)]
        assert all((tmp_path / how / str(number) / "best_model.zip").exists() for number in range(3))
    np.testing.assert_array_equal(results["alone"], results["jointly"])


class HalfWay(PriorUpdateCallback):
    """A rule of a user's: ρ moves twice as slowly."""

    def _on_step(self):
        before = self.prior.clone()
        super()._on_step()
        self.prior.copy_((before + self.prior) / 2)
        return True


class Errors(GradientStepCallback):
    def __init__(self):
        super().__init__()
        self.errors = []

    def _on_gradient_step(self, squared_td_error):
        self.errors.append(squared_td_error.item())


def test_gradient_step_callbacks_and_own_rules_of_users():
    def callbacks():
        return [CallbackList([HalfWay(), Errors()]), Errors(), BetaUpdateCallback()]

    alone, expected = [], callbacks()
    for specification, callback in zip(SAME, expected, strict=True):
        (model,) = make_models([specification], cartpole, "MlpPolicy")
        alone.append(model.learn(200, callback=callback))
    joint, given = make_models(SAME, cartpole, "MlpPolicy"), callbacks()
    train_jointly(joint, 200, callback=given)
    for one, other in zip(alone, joint, strict=True):
        check_equal(one, other)
    np.testing.assert_allclose(given[1].errors, expected[1].errors, rtol=1e-3)
    np.testing.assert_allclose(given[0].callbacks[1].errors, expected[0].callbacks[1].errors, rtol=1e-3)
    assert len(given[1].errors) == joint[1]._n_updates > 50


class Invalid(ConstantReward):
    """Gives a value that is not finite at a step."""

    def __init__(self, what, at=70):
        super().__init__()
        self.what, self.at, self.total = what, at, 0

    def step(self, action):
        self.total += 1
        observation, reward, *rest = super().step(action)
        if self.total >= self.at and self.what == "reward":
            reward = np.nan
        if self.total >= self.at and self.what == "observation":
            observation = observation * np.inf
        return observation, reward, *rest


@pytest.mark.parametrize("what", ["reward", "observation", "loss"])
def test_a_run_that_fails_is_reported_and_the_others_go_on(what):
    def environments(kind):
        waiting = iter([ConstantReward(), Invalid(kind), ConstantReward()])
        return lambda: next(waiting)

    alone = train_alone([SAME[0], SAME[2]], ConstantReward, "MlpPolicy", 150)
    joint = make_models(SAME, environments(what), "MlpPolicy")
    callbacks = [None, Breaking() if what == "loss" else None, None]
    with pytest.warns(UserWarning, match=r"goes on without the MIRL with seed 1 \(learning_rate=0.0001"):
        errors = train_jointly(joint, 150, callback=callbacks)
    assert errors[0] is None and errors[2] is None
    assert {"reward": "reward", "observation": "observation", "loss": "loss was nan"}[what] in str(errors[1])
    assert joint[1].num_timesteps < 150
    check_equal(alone[0], joint[0])
    check_equal(alone[1], joint[2])


def test_a_model_that_failed_is_whole_when_it_is_reported():
    def optimizer_steps(model):
        return next(iter(model.policy.optimizer.state.values()))["step"].item()

    waiting = iter([Invalid("reward", at=100), ConstantReward()])
    models, reported = make_models(SAME[:2], lambda: next(waiting), "MlpPolicy"), []
    train_jointly(models, 150, on_error=lambda model, error: reported.append((model, optimizer_steps(model))))
    assert reported == [(models[0], models[0]._n_updates)] and models[0]._n_updates > 20


class Breaking(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == 80:
            with th.no_grad():
                next(iter(self.model.q_net.parameters())).fill_(th.nan)
        return True


class Interrupting(BaseCallback):
    def _on_step(self):
        if self.num_timesteps == 90:
            raise KeyboardInterrupt
        return True


def test_an_exception_leaves_models_that_can_be_saved(tmp_path):
    joint = make_models(SAME, cartpole, "MlpPolicy")
    with pytest.raises(KeyboardInterrupt):
        train_jointly(joint, 150, callback=[None, Interrupting(), None])
    before = [parameter.clone() for parameter in joint[0].q_net.parameters()]
    for model in joint:
        model.save(tmp_path / "model")
        assert model.active_callbacks == [] and model.replay_buffer.observations.base is None
    joint[1].learn(100)
    assert all(th.equal(old, new) for old, new in zip(before, joint[0].q_net.parameters(), strict=True))


def test_models_without_a_seed_get_one(capsys):
    models = make_models([(MIRL, {}), (MIRL, {}), (MIRL, {"seed": 3})], cartpole, "MlpPolicy")
    train_jointly(models, 80)
    printed = capsys.readouterr().out
    for number in (0, 1):
        assert f"gave model {number}, MIRL, the seed {models[number].seed}" in printed
    assert models[0].seed != models[1].seed and "model 2" not in printed
    assert (models[0].replay_buffer.actions != models[1].replay_buffer.actions).any()


def test_progress_bar_and_no_steps(capsys):
    models = make_models(SAME, cartpole, "MlpPolicy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train_jointly(models, 60, progress_bar=True)
    assert "60/60" in "".join(capsys.readouterr())
    before = [parameter.clone() for parameter in models[0].q_net.parameters()]
    train_jointly(models, 0)
    assert all(th.equal(old, new) for old, new in zip(before, models[0].q_net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Counting(), "one Counting: each run needs its own"),
        ([None], "one callback for each of the 3 models, got 1"),
        ([Counting(), "x", None], "callbacks of SB3 or None, got 'x'"),
        ([None, None, 3], "callbacks of SB3 or None, got 3"),
    ],
)
def test_wrong_callbacks(callback, message):
    models = make_models(SAME, cartpole, "MlpPolicy")
    with pytest.raises(ValueError, match=message):
        train_jointly(models, 60, callback=callback)


def test_one_callback_for_two_models_is_refused():
    callback = Counting()
    with pytest.raises(ValueError, match="an object of its own for each model"):
        train_jointly(make_models(SAME, cartpole, "MlpPolicy"), 60, callback=[callback, callback, None])


def test_wrong_total_timesteps():
    with pytest.raises(ValueError, match="total_timesteps must be"):
        train_jointly(make_models(SAME[:1], cartpole, "MlpPolicy"), -5)


def test_checkpoint_of_one_run_goes_on_alone(tmp_path):
    models = make_models(SAME, cartpole, "MlpPolicy")
    callbacks = [CheckpointCallback(40, tmp_path / str(number)) for number in range(3)]
    train_jointly(models, 100, callback=callbacks)
    resumed = MIRL.resume(tmp_path / "1", gym.make("CartPole-v1"))
    resumed.learn(50, callback=CheckpointCallback(40, tmp_path / "1"), reset_num_timesteps=False)
    assert resumed.num_timesteps == 150


@pytest.mark.gpu
@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU and `-m gpu`")
@pytest.mark.parametrize("settings", [{}, {"compile_update": True}, {"replay_buffer_class": DeviceReplayBuffer}])
def test_on_a_gpu(settings):
    check_jointly([*SAME[:2], (DQNMSE, {"seed": 5})], cartpole, tolerance=1e-2, device="cuda", **settings)


class Truncated(ConstantReward):
    """Episodes end by a time limit; a space for all objects, infos that are one dict for all objects."""

    action_space = spaces.Discrete(2)
    INFO: ClassVar[dict] = {}

    def __init__(self):
        space = self.action_space
        super().__init__()
        self.action_space = space

    def step(self, action):
        self.INFO.clear()
        self.INFO["steps"] = self.steps
        observation, reward, done, _, _ = super().step(action)
        return observation, reward, False, done, self.INFO


def test_objects_that_environments_share():
    check_jointly([*SAME[:2], (DQNMSE, {"seed": 5}), (DQNMSE, {"seed": 6})], Truncated)


def test_timeouts_that_are_not_handled():
    check_jointly(SAME[:2], Truncated, replay_buffer_kwargs=NO_TIMEOUTS)


@pytest.mark.parametrize("at", [30, 100])
def test_a_run_that_ends_early_keeps_its_optimiser(at):
    specifications = [(MIRL, {"seed": seed, "learning_rate": lambda progress: 1e-3 * progress}) for seed in range(3)]
    alone = []
    for number, specification in enumerate(specifications):
        (model,) = make_models([specification], cartpole, "MlpPolicy")
        alone.append(model.learn(200, callback=Counting(end=at) if number == 1 else None))
    joint = make_models(specifications, cartpole, "MlpPolicy")
    train_jointly(joint, 200, callback=[None, Counting(end=at), None])
    for one, other in zip(alone, joint, strict=True):
        check_equal(one, other)


def test_a_run_that_ended_early_does_not_count_steps_for_others():
    def halved(progress):
        return 1e-3 if progress > 0.5 else 5e-4

    specifications = [(MIRL, {"seed": seed, "learning_rate": rate}) for seed, rate in enumerate((1e-3, 1e-3, halved))]
    (alone,) = train_alone(specifications[1:2], cartpole, "MlpPolicy", 300)
    joint = make_models(specifications, cartpole, "MlpPolicy")
    # The rate of the third run makes optimisers anew after the end of the first one
    train_jointly(joint, 300, callback=[Counting(end=80), None, None])
    check_equal(alone, joint[1])


@pytest.mark.parametrize("n_runs", [1, 2])
def test_network_in_which_parameters_share_a_gradient(n_runs):
    class Summed(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 16)
            self.first, self.second = (th.nn.Parameter(th.randn(16, 4)) for _ in range(2))

        def forward(self, observations):
            return th.nn.functional.linear(observations, self.first + self.second).relu()

    # Gradients are clipped in place
    policy_kwargs = {"net_arch": [], "features_extractor_class": Summed, "optimizer_class": th.optim.SGD}
    check_jointly(SAME[:n_runs], cartpole, policy_kwargs=policy_kwargs, max_grad_norm=0.05, learning_rate=0.1)


@pytest.mark.parametrize("n_steps", [(1, 3), (3, 1)])
def test_buffers_with_discounts_of_their_own(n_steps):
    kwargs = [{"replay_buffer_kwargs": {"n_steps": number, "gamma": 0.5}} for number in n_steps]
    specifications = [(MIRL, {"seed": seed, **own}) for seed, own in enumerate(kwargs)]
    make_env = lambda: VecFrameStack(make_vec_env(Image, 1, seed=0), 3)  # noqa: E731
    settings = {"buffer_size": 100, "policy_kwargs": {}, "batch_size": 4, "replay_buffer_class": FrameReplayBuffer}
    check_jointly(specifications, make_env, "CnnPolicy", 110, **settings)


@pytest.mark.parametrize("name", ["_store_transition", "add", "sample", "_get_samples"])
def test_methods_of_storing_and_sampling_that_are_replaced_on_an_object(name):
    (model,) = make_models(SAME[:1], cartpole, "MlpPolicy")
    owner = model if name == "_store_transition" else model.replay_buffer
    method, calls = getattr(owner, name), []

    def call(*args, **kwargs):
        calls.append(name)
        return method(*args, **kwargs)

    setattr(owner, name, call)
    train_jointly([model], 60)
    assert len(calls) == (model._n_updates if "sample" in name else 60) > 0


class Embedding(BaseFeaturesExtractor):
    """Fails for numbers that are no observations, and changes its input in place."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 12)
        self.embedding = th.nn.Embedding(12, 4)

    def forward(self, observations):
        return self.embedding(observations.mul_(10).long()).flatten(1)


class Tenths(ConstantReward):
    def __init__(self):
        super().__init__(observation_space=spaces.Box(0, 1, (3,), np.float32))


def test_networks_that_change_their_input_or_refuse_wrong_ones():
    settings = {"policy_kwargs": {"net_arch": [8], "features_extractor_class": Embedding}}
    models = make_models(SAME, Tenths, "MlpPolicy", **settings)

    class Ending(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 80

    alone = train_alone(SAME[:1], Tenths, "MlpPolicy", 150, **settings)
    train_jointly(models, 150, callback=[None, Ending(), None])
    check_equal(alone[0], models[0])
    np.testing.assert_array_equal(models[0].replay_buffer.observations, alone[0].replay_buffer.observations)


def test_files_hold_one_run(tmp_path):
    class Saving(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 60:
                self.model.save(tmp_path / "model")
            return True

    models = make_models([(MIRL, {"seed": seed}) for seed in range(8)], cartpole, "MlpPolicy")
    train_jointly(models, 70, callback=[Saving(), *[None] * 7])
    models[0].save(tmp_path / "afterwards")
    sizes = [(tmp_path / f"{name}.zip").stat().st_size for name in ("model", "afterwards")]
    assert sizes[0] < 1.1 * sizes[1]
    assert MIRL.load(tmp_path / "model").num_timesteps == 60


def test_unseeded_copies_of_one_file_draw_different_numbers(tmp_path, capsys):
    make_models([(MIRL, {"seed": None})], cartpole, "MlpPolicy")[0].learn(60).save(tmp_path / "model")
    models = [MIRL.load(tmp_path / "model", gym.make("CartPole-v1")) for _ in range(2)]
    models[1].random_state = models[0].random_state
    torch_state = th.get_rng_state()
    train_jointly(models, 40)
    assert "gave model 1, MIRL, the seed" in capsys.readouterr().out
    assert (models[0].replay_buffer.actions[:40] != models[1].replay_buffer.actions[:40]).any()
    assert th.equal(torch_state, th.get_rng_state())


class OwnStoring(MIRL):
    """Stores halved rewards."""

    def _store_transition(self, replay_buffer, buffer_action, new_obs, reward, dones, infos):
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward / 2, dones, infos)


def test_subclasses_may_store_and_count_in_their_own_way():
    class Counted(DQNMSE):
        default_callbacks = (Errors,)

    alone, joint = check_jointly([(OwnStoring, {"seed": 0}), (Counted, {"seed": 1})], cartpole)
    assert joint[0].replay_buffer.rewards.max() == 0.5 and len(alone) == 2


class Changing(BaseCallback):
    """Changes something of the model at a step."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def _on_step(self):
        if self.num_timesteps == 80:
            self.change(self.model)
        return True


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: setattr(model, "gamma", 0.5), "leave gamma as it was"),
        (lambda model: setattr(model, "tau", 0.5), "leave tau as it was"),
        (lambda model: setattr(model, "prior_lr", 0.5), "leave prior_step_size as it was"),
        (lambda model: setattr(model, "replay_buffer", None), "leave replay_buffer as it was"),
        (lambda model: setattr(model.policy, "prior", model.policy.prior / 1), "leave the memory of prior"),
        (lambda model: model.set_parameters(model.get_parameters()), "leave the optimizer's state"),
        (lambda model: next(model.q_net.parameters()).requires_grad_(False), "leave the memory of parameter q_net"),
        (lambda model: model.policy.optimizer.param_groups[0].update(weight_decay=1.0), "leave the optimizer's weight_decay"),
        (lambda model: model.train(1, 8), r"must not call learn\(\) or train\(\)"),
        (lambda model: model.learn(4, reset_num_timesteps=False), r"must not call learn\(\) or train\(\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:Joint training goes on")
def test_changes_that_cannot_be_followed_end_their_run_only(change, message):
    models = make_models(SAME, cartpole, "MlpPolicy")
    errors = train_jointly(models, 120, callback=[None, Changing(change), None])
    assert message.replace("\\", "") in str(errors[1]) and errors[0] is errors[2] is None
    for one, other in zip(undisturbed(), (models[0], models[2]), strict=True):
        check_equal(one, other)


@pytest.mark.filterwarnings("ignore:Joint training goes on")
def test_coefficients_of_a_loss_are_not_changed_during_the_training():
    models = make_models([(MDQN, {"seed": 0}), (MDQN, {"seed": 1})], cartpole, "MlpPolicy")
    change = Changing(lambda model: setattr(model, "entropy_temperature", 0.5))
    errors = train_jointly(models, 120, callback=[None, change])
    assert errors[0] is None and "leave loss_coefficients() as it was" in str(errors[1])


@functools.cache
def undisturbed():
    return train_alone([SAME[0], SAME[2]], cartpole, "MlpPolicy", 120)


def test_changes_that_solo_training_follows():
    def change(model):
        model.lr_schedule = lambda progress: 1e-2
        model.exploration_schedule = lambda progress: 0.9
        with th.no_grad():
            next(model.q_net.parameters()).mul_(0.5)
        model.policy.prior.copy_(th.tensor([0.9, 0.1]))

    (alone,) = make_models(SAME[:1], cartpole, "MlpPolicy")
    alone.learn(150, callback=Changing(change))
    joint = make_models(SAME[:2], cartpole, "MlpPolicy")
    train_jointly(joint, 150, callback=[Changing(change), None])
    check_equal(alone, joint[0], 1e-3)


class Looking(GradientStepCallback):
    """Reads what callbacks of solo training can read."""

    def __init__(self):
        super().__init__()
        self.seen, self.norms, self.infos = [], [], []

    def _on_step(self):
        names = ("self", "env", "callback", "replay_buffer", "train_freq", "learning_starts", "action_noise", "log_interval")
        assert all(name in self.locals for name in names)
        self.infos.append(self.locals["infos"][0])
        policy = self.model.policy
        probabilities = self.model.rollout_action_probabilities
        self.seen.append((policy.training, None if probabilities is None else probabilities.tolist()))
        return True

    def _on_gradient_step(self, squared_td_error):
        assert self.model.policy.training
        self.norms.append([parameter.grad.norm().item() for parameter in self.model.q_net.parameters()])


def test_what_callbacks_can_read():
    (alone,), expected = make_models(SAME[:1], Truncated, "MlpPolicy"), Looking()
    alone.learn(150, callback=expected)
    joint, given = make_models(SAME[:2], Truncated, "MlpPolicy"), Looking()
    train_jointly(joint, 150, callback=[given, None])
    np.testing.assert_allclose(given.norms, expected.norms, rtol=1e-3, atol=1e-6)
    assert [seen[0] for seen in given.seen] == [seen[0] for seen in expected.seen]
    for (_, one), (_, other) in zip(given.seen, expected.seen, strict=True):
        assert (one is None) == (other is None) and (one is None or np.allclose(one, other))
    assert [info["steps"] for info in given.infos] == [info["steps"] for info in expected.infos]


def test_networks_that_cannot_be_traced_are_refused_before_the_warm_up():
    class Choosing(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 4)

        def forward(self, observations):
            return observations if observations.sum() > 0 else -observations

    models = make_models(SAME, cartpole, "MlpPolicy", policy_kwargs={"features_extractor_class": Choosing})
    with pytest.raises(ValueError, match="Joint training cannot compile"):
        train_jointly(models, 200)
    assert [model.num_timesteps for model in models] == [0] * 3
    models[0].learn(60)  # They share nothing


class Checked(ConstantReward):
    def step(self, action):
        if self.steps == 5 and self.total > 60:
            raise ValueError("the environment is broken")
        self.total += 1
        return super().step(action)

    total = 0


@pytest.mark.filterwarnings("ignore:Joint training goes on")
def test_value_errors_of_an_environment_end_its_run():
    waiting = iter([ConstantReward(), Checked()])
    models = make_models(SAME[:2], lambda: next(waiting), "MlpPolicy")
    errors = train_jointly(models, 100)
    assert errors[0] is None and "the environment is broken" in str(errors[1])
    assert models[0].num_timesteps == 100 and 60 < models[1].num_timesteps < 100
