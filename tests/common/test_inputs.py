"""Input that cannot surprise: training works, or stops with an error that names the cause, before anything is lost."""

import math
import re
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from probes import ConstantReward, TwoArms
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnvWrapper, VecNormalize

from sb3_mirl import MIRL, SQL, SQLm
from sb3_mirl.common import dqn as dqn_module
from sb3_mirl.common.inputs import LARGEST_FLOAT32, LARGEST_SQUARABLE

FAST = {"learning_starts": 8, "buffer_size": 200, "batch_size": 4, "policy_kwargs": {"net_arch": [8]}, "seed": 0}
QUICK = settings(max_examples=40, deadline=None, derandomize=True)
NAN, INF = float("nan"), float("inf")


def learn(env, policy="MlpPolicy", algorithm=MIRL, steps=40, **arguments):
    model = algorithm(policy, env, **{**FAST, **arguments})
    model.learn(steps)
    check(model)
    return model


def check(model):
    """What holds after every successful or refused step."""
    assert all(parameter.isfinite().all() for parameter in model.policy.parameters())
    assert np.isfinite(model.prior).all() and (model.prior >= 0).all() and abs(model.prior.sum() - 1) < 1e-9
    assert not math.isnan(model.beta) and model.beta >= 0


# ---- constructor arguments ------------------------------------------------------------------------------------------

unit = st.floats(0, 1)
positive = st.one_of(st.integers(1, 50), st.integers(1, 50).map(float), st.integers(1, 50).map(np.int64))
VALID = {
    "learning_rate": st.one_of(
        st.floats(0, 0.1), st.floats(0, 0.1).map(np.float32), st.floats(0, 0.1).map(lambda v: lambda p: v * p)
    ),
    "buffer_size": positive,
    "learning_starts": st.one_of(st.integers(0, 30), st.just(1e1), st.just(np.int32(5))),
    "batch_size": positive,
    "tau": unit,
    "gamma": unit,
    "train_freq": st.one_of(positive, st.tuples(positive, st.sampled_from(["step", "episode"]))),
    "gradient_steps": st.one_of(st.integers(-1, 5), st.just(2.0), st.just(np.int8(2))),
    "n_steps": st.integers(1, 60),
    "target_update_interval": positive,
    "exploration_fraction": unit,
    "exploration_initial_eps": unit,
    "exploration_final_eps": unit,
    "max_grad_norm": st.one_of(st.floats(0, exclude_min=True), st.just(INF)),
    "stats_window_size": positive,
    "tensorboard_log": st.none(),
    "policy_kwargs": st.sampled_from([{"net_arch": [4]}, {"net_arch": []}]),
    "seed": st.one_of(st.none(), st.integers(0, 2**32 - 1), st.integers(0, 99).map(np.int64)),
    "prior_lr": unit,
    "beta_init": st.floats(0, 1e4),
    "beta_lr": unit,
    "beta_max": st.floats(0.01, exclude_min=False),
    "beta_scale": st.floats(0, 1e3, exclude_min=True),
    "reference_n_actions": st.one_of(st.none(), st.integers(2, 100)),
    "loss": st.sampled_from(["mse", "huber"]),
    "regularization": st.sampled_from(["mutual_information", "entropy"]),
    "optimize_memory_usage": st.just(False),
    "verbose": st.just(0),
}


@settings(QUICK, max_examples=60)
@given(st.data())
def test_valid_arguments_train(data):
    names = data.draw(st.sets(st.sampled_from(sorted(VALID)), min_size=1, max_size=6))
    arguments = {name: data.draw(VALID[name], label=name) for name in sorted(names)}
    if arguments.get("beta_init", 0) > arguments.get("beta_max", 1e4):
        del arguments["beta_init"]
    learn(ConstantReward(length=7), algorithm=data.draw(st.sampled_from([MIRL, SQL, SQLm])), **arguments)


not_a_number = st.sampled_from(["fast", "1e-3", None, [], {}, True, False, NAN, 1j, np.array([1.0]), np.bool_(True)])
not_in_unit = st.one_of(not_a_number, st.floats(max_value=0, exclude_max=True), st.floats(min_value=1, exclude_min=True))


def integers_below(low):
    fractions = st.floats(allow_nan=False, allow_infinity=False).filter(lambda v: v != int(v))
    return st.one_of(not_a_number, st.integers(max_value=low - 1), fractions, st.just(INF))


INVALID = {
    **dict.fromkeys(["tau", "gamma", "prior_lr", "beta_lr"], not_in_unit),
    **dict.fromkeys(["exploration_fraction", "exploration_initial_eps", "exploration_final_eps"], not_in_unit),
    **dict.fromkeys(["batch_size", "n_steps", "target_update_interval", "stats_window_size"], integers_below(1)),
    "buffer_size": st.one_of(integers_below(1), st.integers(min_value=10**12 + 1)),
    "learning_starts": integers_below(0),
    "verbose": integers_below(0),
    "gradient_steps": integers_below(-1),
    "learning_rate": st.one_of(
        not_a_number,
        st.floats(max_value=0, exclude_max=True),
        st.just(INF),
        st.sampled_from([NAN, -1.0, "x", None]).map(lambda value: lambda progress: value),
    ),
    "train_freq": st.one_of(
        integers_below(1),
        st.sampled_from([(4, "steps"), (4,), (4, "step", 1), ("4", "step"), (0, "episode"), [4, "step"], ()]),
    ),
    "max_grad_norm": st.one_of(not_a_number, st.floats(max_value=0)),
    "seed": st.one_of(st.sampled_from(["0", True, NAN, 0.5, []]), st.integers(max_value=-1), st.integers(min_value=2**32)),
    "beta_init": st.one_of(not_a_number, st.floats(max_value=0, exclude_max=True), st.just(INF)),
    "beta_max": st.one_of(not_a_number, st.floats(max_value=0, exclude_max=True)),
    "beta_scale": st.one_of(not_a_number, st.floats(max_value=0), st.just(INF)),
    "reference_n_actions": st.one_of(st.sampled_from(["2", True, NAN, 2.5, []]), st.integers(max_value=1)),
    "beta_schedule": st.sampled_from(["Adaptive", "", None, 1, [], {}]),
    "loss": st.sampled_from(["l1", None, 1, ["mse"]]),
    "regularization": st.sampled_from(["none", None, 0]),
    "prior_type": st.sampled_from(["Marginal", "", None, 1, [], {}]),
    # Of the marginal, which has none of them
    "prior_observation": st.sampled_from(["all", 0, [0], [], {}, {"high": None, "low": None}]),
    "n_skills": st.sampled_from([1, 4, "2", 2.5, []]),
    "prior_kwargs": st.sampled_from([1, "dict()", [64], {"net_arch": [64]}, {"n_values": 2}, True]),
    **dict.fromkeys(
        ["compile_update", "mixed_precision", "optimize_memory_usage"], st.sampled_from([0, 1, "yes", None, 0.0, "False", []])
    ),
    "policy_kwargs": st.sampled_from([1, "dict()", [64], {1: 2}, True]),
    "replay_buffer_kwargs": st.sampled_from([1, "dict()", [64], {1: 2}, True]),
    "replay_buffer_class": st.sampled_from([1, "ReplayBuffer", dict, True]),
    "tensorboard_log": st.sampled_from([1, True, []]),
    "device": st.sampled_from(["gpu", "cpu:x", None, 1.5, []]),
    "prior_init": st.one_of(
        st.sampled_from(["uniform", 1, [], [1.0], [NAN] * 4, [[0.25] * 4], [INF, 0, 0, 0], [-1, 1, 1, 0]]),
        st.lists(st.floats(0, 10), min_size=4, max_size=4).filter(lambda v: abs(sum(v) - 1) > 1e-5),
    ),
}


def test_every_argument_with_a_rule_is_tried():
    assert set(INVALID) == set(MIRL.argument_rules)


@pytest.mark.parametrize("name", sorted(INVALID))
@settings(QUICK, max_examples=20)
@given(data=st.data())
def test_invalid_arguments_are_named(name, data):
    value = data.draw(INVALID[name])
    if name == "learning_rate" and callable(value):
        value, shown = value, repr(value(1.0))
    else:
        shown = repr(value)
    with pytest.raises(ValueError) as error:
        MIRL("MlpPolicy", TwoArms(), **{**FAST, name: value})
    assert name in str(error.value) and shown in str(error.value)


@pytest.mark.parametrize(
    "policy_kwargs, message",
    [
        ({"net_arch": "64"}, r"policy_kwargs\['net_arch'\] must be a list of integers >= 1, got '64'"),
        ({"net_arch": ["64"]}, r"policy_kwargs\['net_arch'\] must be a list of integers >= 1 .*, got \['64'\]"),
        ({"net_arch": {"pi": [64], "vf": [64]}}, r"must be a list of integers >= 1 with DQN's network, got \{'pi'"),
        ({"net_arch": 64}, r"policy_kwargs\['net_arch'\] must be a list of integers >= 1, got 64"),
        ({"net_arch": [8, -3]}, "policy_kwargs: net_arch must be an integer >= 1, got -3"),
        ({"net_arch": [8.5]}, r"policy_kwargs: net_arch must be an integer >= 1, got 8\.5"),
        ({"activation_fn": "relu"}, r"policy_kwargs\['activation_fn'\] must be a class, got 'relu'"),
        ({"optimizer_class": "adam"}, r"policy_kwargs\['optimizer_class'\] must be a class, got 'adam'"),
        ({"features_extractor_class": "cnn"}, r"policy_kwargs\['features_extractor_class'\] must be a class, got 'cnn'"),
    ],
)
def test_invalid_settings_of_the_policy_are_named(policy_kwargs, message):
    with pytest.raises(ValueError, match=message):
        MIRL("MlpPolicy", TwoArms(), policy_kwargs=policy_kwargs)


@pytest.mark.parametrize(
    "arguments, n_envs, message",
    [
        ({"train_freq": (1, "episode")}, 2, "train_freq must count steps .* with 2 of them"),
        ({"optimize_memory_usage": True, "buffer_size": 3}, 2, "optimize_memory_usage needs buffer_size >= 2 .* 3 for 2"),
        ({"policy": "MlpPolici"}, 1, "policy must be one of .*'MlpPolicy'.*got 'MlpPolici'"),
        ({"policy": 3}, 1, "policy must be one of .*got 3"),
        ({"policy": dict}, 1, "policy must be one of .*got dict"),
        ({"policy": "CnnPolicy"}, 1, "observation_space=Box"),
        ({"n_steps": 3, "optimize_memory_usage": True}, 1, "optimize_memory_usage"),
    ],
)
def test_incompatible_arguments_are_refused(arguments, n_envs, message):
    with pytest.raises(ValueError, match=message):
        MIRL(env=make_vec_env(TwoArms, n_envs), **{"policy": "MlpPolicy", **FAST, **arguments})


def test_missing_env_is_refused():
    with pytest.raises(ValueError, match="env must be an environment or its id, got None"):
        MIRL("MlpPolicy", None)


@pytest.mark.parametrize("n_envs, buffer_size", [(3, 2), (3, 1), (1, 1)])
def test_buffers_smaller_than_a_batch_or_the_environments_work(n_envs, buffer_size):
    assert learn(make_vec_env(TwoArms, n_envs), buffer_size=buffer_size)._n_updates > 0


def test_arguments_survive_saving(tmp_path):
    learn(TwoArms(), buffer_size=1e2, train_freq=(np.int64(2), "step"), gradient_steps=2.0).save(tmp_path / "model.zip")
    model = MIRL.load(tmp_path / "model.zip", TwoArms())
    assert (model.buffer_size, model.train_freq.frequency, model.gradient_steps) == (100, 2, 2)
    assert MIRL.load(tmp_path / "model.zip", buffer_size=1).replay_buffer.buffer_size == 1
    with pytest.raises(ValueError, match=r"gamma must be a number in \[0, 1\], got 7"):
        MIRL.load(tmp_path / "model.zip", gamma=7)


@pytest.mark.parametrize("total", [-1, NAN, INF, 10.5, "10", None, True])
def test_invalid_total_timesteps_is_refused(total):
    with pytest.raises(ValueError, match=rf"total_timesteps must be an integer >= 0, got {re.escape(repr(total))}"):
        MIRL("MlpPolicy", TwoArms(), **FAST).learn(total)
    assert MIRL("MlpPolicy", TwoArms(), **FAST).learn(1.2e1).num_timesteps == 12


def test_negative_scheduled_learning_rate_is_refused():
    model = MIRL("MlpPolicy", TwoArms(), learning_rate=lambda progress: progress - 0.5, train_freq=1, **FAST)
    with pytest.raises(
        ValueError, match=r"learning_rate must give a finite number >= 0, got -0.0\d+ at the remaining progress"
    ):
        model.learn(40)
    check(model)


def test_a_linear_schedule_ends_at_zero_though_the_last_rollout_is_longer():
    model = learn(ConstantReward(), learning_rate=lambda progress: 0.1 * progress, train_freq=32)
    assert model.num_timesteps == 64 and model.policy.optimizer.param_groups[0]["lr"] == 0


# ---- spaces ---------------------------------------------------------------------------------------------------------

FLOATS, INTEGERS = (
    ["float16", "float32", "float64"],
    ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"],
)


@pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, "bool"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (1,)])
def test_box_of_every_dtype_trains(dtype, shape):
    learn(ConstantReward(observation_space=spaces.Box(0, 1, shape, dtype)))


@pytest.mark.parametrize("shape", [(36, 40, 3), (3, 36, 40), (1, 36, 36), (64, 36, 1)])
def test_image_observations_train(shape):
    env = ConstantReward(observation_space=spaces.Box(0, 255, shape, np.uint8))
    learn(env, "CnnPolicy", steps=14, policy_kwargs={"features_extractor_kwargs": {"features_dim": 8}, "net_arch": [8]})


@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_too_small_images_are_refused(policy):
    image = spaces.Box(0, 255, (8, 8, 3), np.uint8)
    space = image if policy == "CnnPolicy" else spaces.Dict({"image": image})
    with pytest.raises(ValueError, match=r"observation_space=.*Box.*8"):
        learn(ConstantReward(observation_space=space), policy)


def box(n, dtype):
    return spaces.Box(0 if dtype[0] == "u" else -1, 1, (n,), dtype)


leaf_spaces = st.one_of(
    st.builds(box, st.integers(1, 4), st.sampled_from(FLOATS + INTEGERS)),
    st.builds(spaces.Discrete, st.integers(1, 5)),
    st.builds(lambda n: spaces.MultiDiscrete(n), st.lists(st.integers(1, 4), min_size=1, max_size=3)),
    st.builds(spaces.MultiBinary, st.integers(1, 4)),
    st.just(spaces.MultiBinary([2, 2])),
)  # fmt: skip


@settings(QUICK, max_examples=60)
@given(leaf_spaces, st.integers(1, 3))
def test_any_observation_space_trains(space, n_envs):
    learn(make_vec_env(ConstantReward, n_envs, env_kwargs={"observation_space": space}), batch_size=3)


@settings(QUICK, max_examples=30)
@given(st.dictionaries(st.sampled_from("abc"), leaf_spaces, min_size=1), st.integers(1, 2))
def test_any_dict_space_trains(entries, n_envs):
    learn(make_vec_env(ConstantReward, n_envs, env_kwargs={"observation_space": spaces.Dict(entries)}), "MultiInputPolicy")


@pytest.mark.parametrize(
    "space, policy",
    [
        (spaces.Discrete(3, start=1), "MlpPolicy"),
        (spaces.Discrete(3, start=-1), "MlpPolicy"),
        (spaces.MultiDiscrete([2, 3], start=[0, 1]), "MlpPolicy"),
        (spaces.MultiDiscrete([[2, 3], [2, 2]]), "MlpPolicy"),
        (spaces.Dict({"kind": spaces.Discrete(3, start=2)}), "MultiInputPolicy"),
        (spaces.Tuple([spaces.Discrete(3)]), "MlpPolicy"),
        (spaces.Text(3), "MlpPolicy"),
        (spaces.Dict({"vector": spaces.Box(0, 1, (2,))}), "MlpPolicy"),
        (spaces.Dict({"text": spaces.Text(3)}), "MultiInputPolicy"),
        (spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}), "MultiInputPolicy"),
    ],
)
def test_unsupported_observation_spaces_are_refused(space, policy):
    with pytest.raises(ValueError, match=r"observation|MultiInputPolicy"):
        learn(ConstantReward(observation_space=space), policy)


class ArmsFrom(TwoArms):
    """:class:`TwoArms` whose first action has another number than 0."""

    def __init__(self, start):
        super().__init__()
        self.action_space = spaces.Discrete(4, start=start)

    def step(self, action):
        assert self.action_space.contains(action), action
        return super().step(action - self.action_space.start)


@pytest.mark.parametrize(("start", "n_envs"), [(1, 1), (-2, 3)])
def test_actions_that_do_not_start_at_zero_are_the_environments_own(start, n_envs, tmp_path):
    def train(first_action):
        env = make_vec_env(lambda: ArmsFrom(first_action), n_envs)
        settings = {"learning_rate": 1e-2, "train_freq": 1, "target_update_interval": 10, "beta_init": 3.0}
        return MIRL("MlpPolicy", env, **{**FAST, **settings}).learn(160)

    model, from_zero = train(start), train(0)
    # Inside nothing differs
    np.testing.assert_array_equal(model.replay_buffer.actions, from_zero.replay_buffer.actions)
    np.testing.assert_array_equal(model.prior, from_zero.prior)
    obs = np.ones((50, 1), np.float32)
    assert (model.predict(obs, deterministic=True)[0] == start + 1).all()
    assert set(model.predict(obs)[0].tolist()) <= set(range(start, start + 4))
    single, _ = model.predict(obs[0], deterministic=True)
    assert type(single) is np.ndarray and single.shape == () and single == start + 1
    assert set(model.policy.sample_prior((100,)).tolist()) == set(range(start, start + 4))
    model.policy.beta.fill_(0.0)  # π is ρ
    assert set(model.policy.sample_policy(np.ones((200, 1), np.float32)).tolist()) == set(range(start, start + 4))
    model.policy.beta.fill_(3.0)
    # An environment that no model has wrapped
    assert evaluate_policy(model, Monitor(ArmsFrom(start)), 3, deterministic=True) == (1.0, 0.0)
    model.save(tmp_path / "model.zip")
    model.export(tmp_path / "model.safetensors")
    for loaded in (
        MIRL.load(tmp_path / "model.zip", model.env),
        MIRL.load_exported(tmp_path / "model.safetensors", model.env),
    ):
        assert (loaded.predict(obs, deterministic=True)[0] == start + 1).all()
        loaded.learn(20)


OTHER_ACTIONS = {
    "MultiDiscrete": (spaces.MultiDiscrete([3, 2], start=[1, 0]), 6),
    "MultiDiscrete from 0": (spaces.MultiDiscrete([3, 2]), 6),
    "MultiBinary": (spaces.MultiBinary(3), 8),
    "Box": (spaces.Box(-1, 1, (2,)), 5),
}


@pytest.mark.parametrize("name", OTHER_ACTIONS)
def test_error_for_action_space_shows_a_discrete_wrapper(name):
    space, n_actions = OTHER_ACTIONS[name]

    class Other(ConstantReward):
        def __init__(self):
            super().__init__()
            self.action_space = space
            self.actions = []

        def step(self, action):
            self.actions.append(np.asarray(action).tolist())
            return super().step(action)

    with pytest.raises(ValueError, match=rf"action_space must be Discrete, got .*{type(space).__name__}") as refusal:
        MIRL("MlpPolicy", Other())
    message = str(refusal.value)
    assert "SB3's" in message  # another algorithm
    env = Other()
    names = {"env": env, "numpy": np, "gymnasium": gym}
    for line in re.findall(r"(?:actions|env) = \S+\(.*?\)(?=, and|\. Or|$)", message):
        exec(line, names)
    assert names["env"].action_space == spaces.Discrete(n_actions)
    model = learn(names["env"], steps=104, learning_starts=100)
    assert len({str(action) for action in env.actions}) == n_actions
    # SB3's own exceptions
    for wrong in (Other(), make_vec_env(Other, 2)):
        with pytest.raises(AssertionError, match="must be Discrete"):
            MIRL("MlpPolicy", wrong)
    with pytest.raises(ValueError, match="do not match"):
        model.set_env(DummyVecEnv([Other]))


@pytest.mark.parametrize(
    ("policy", "space", "arguments"),
    [
        ("CnnPolicy", spaces.Box(-1, 1, (36, 36, 1)), {}),
        ("MultiInputPolicy", spaces.Dict({"a": spaces.Discrete(2)}), {"n_steps": 3}),
        ("MultiInputPolicy", spaces.Dict({"a": spaces.Discrete(2)}), {"optimize_memory_usage": True}),
        (
            "MlpPolicy",
            spaces.Box(-1, 1, (3,)),
            {"n_steps": 3, "optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
        ),
        ("MultiInputPolicy", spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}), {}),
        ("MlpPolicy", spaces.Tuple([spaces.Discrete(3)]), {}),
        ("CnnPolicy", spaces.Box(0, 255, (8, 8, 3), np.uint8), {}),
    ],
)
def test_unsupported_input_raises_sb3s_exception_type(policy, space, arguments):
    arguments = {**FAST, "policy_kwargs": {}, **arguments}
    with pytest.raises((AssertionError, RuntimeError)) as theirs:  # NotImplementedError is a RuntimeError
        DQN(policy, ConstantReward(observation_space=space), **arguments)
    for expected in (theirs.type, ValueError):
        with pytest.raises(expected):
            MIRL(policy, ConstantReward(observation_space=space), **arguments)


@pytest.mark.parametrize("n_actions", [1, 2, 50])
def test_numbers_of_actions(n_actions):
    learn(ConstantReward(n_actions=n_actions))


# ---- what comes from the environment --------------------------------------------------------------------------------


class Scripted(gym.Env):
    """Zeros and reward 1, but for one value at one step (0: the first observation)."""

    def __init__(self, at=20, reward=1.0, value=0.0, length=7, dtype="float32", dictionary=False):
        box = spaces.Box(-INF, INF, (3,), dtype)
        self.observation_space = spaces.Dict({"a": box, "b": spaces.Discrete(2)}) if dictionary else box
        self.action_space = spaces.Discrete(2)
        self.at, self.reward, self.value, self.length, self.dictionary = at, reward, value, length, dictionary
        self.steps = self.episode_steps = 0

    def observation(self):
        values = np.zeros(3, np.float64)
        values[1] = self.value if self.steps == self.at else 0.5
        with np.errstate(over="ignore"):
            values = values.astype(self.observation_space["a"].dtype if self.dictionary else self.observation_space.dtype)
        return {"a": values, "b": 1} if self.dictionary else values

    def reset(self, *, seed=None, options=None):
        self.episode_steps = 0
        return self.observation(), {}

    def step(self, action):
        self.steps, self.episode_steps = self.steps + 1, self.episode_steps + 1
        reward = self.reward if self.steps == self.at else 1.0
        return self.observation(), reward, self.episode_steps >= self.length, False, {}


any_float = st.one_of(st.floats(), st.sampled_from([NAN, INF, -INF, 1e300, -1e300, 1e38, 3.5e38, 1e19, 1.9e19, 1e-320]))


@pytest.mark.filterwarnings("ignore:overflow")
@settings(QUICK, max_examples=120)
@given(reward=any_float, at=st.integers(1, 19), length=st.integers(1, 9), loss=st.sampled_from(["mse", "huber"]))
def test_any_reward_trains_or_is_named(reward, at, length, loss):
    env = Scripted(at, reward=reward, length=length)
    model = MIRL("MlpPolicy", env, loss=loss, train_freq=1, **FAST)
    limit = LARGEST_SQUARABLE if loss == "mse" else LARGEST_FLOAT32
    if abs(reward) <= limit * (1 - 1e-6):
        try:
            model.learn(20)
        except ValueError as error:  # it overflows together with others, at the end of the range
            assert "loss was" in str(error) and "largest |reward|" in str(error) and abs(reward) > limit * 1e-3
            return
    elif not abs(reward) <= limit * (1 + 1e-6):
        with pytest.raises(ValueError, match=rf"reward of environment 0 is .* at environment step {at}: it must be finite"):
            model.learn(20)
        assert model.num_timesteps == at and model.replay_buffer.size() == at - 1
        assert np.isfinite(model.replay_buffer.rewards).all()
    check(model)


@pytest.mark.filterwarnings("ignore:overflow")
@settings(QUICK, max_examples=120)
@given(
    value=st.one_of(st.floats(-1e3, 1e3), st.sampled_from([NAN, INF, -INF, 1e300, -1e39])),
    at=st.integers(0, 19),
    dtype=st.sampled_from(FLOATS),
    length=st.integers(1, 50),
    dictionary=st.booleans(),
)
def test_any_observation_trains_or_is_named(value, at, dtype, length, dictionary):
    env = Scripted(at, value=value, dtype=dtype, length=length, dictionary=dictionary)
    model = MIRL("MultiInputPolicy" if dictionary else "MlpPolicy", env, train_freq=1, **FAST)
    if abs(value) <= 1e3:
        model.learn(20)
    else:
        key = r"\['a'\]" if dictionary else ""
        message = (
            rf"observation{key} of environment 0, entry 1, is (nan|-?inf|-?1e\+\d+|-?\d.*) at environment step {at}: it must"
        )
        with pytest.raises(ValueError, match=message):
            model.learn(20)
        assert model.replay_buffer.size() == max(at - 1, 0)
    check(model)


# Forked: new processes would import torch first
forked = partial(SubprocVecEnv, start_method="fork")


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("vec_env", [DummyVecEnv, forked])
def test_error_names_the_index_of_the_environment(vec_env):
    envs = [lambda at=at: Scripted(at, reward=1e300) for at in (1000, 9)]
    env = vec_env(envs)
    model = MIRL("MlpPolicy", env, **FAST)
    with pytest.raises(ValueError, match=r"reward of environment 1 is (inf|1e\+300) at environment step 18"):
        model.learn(100)
    env.close()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("what, quantity", [("reward", "reward"), ("value", "observation")])
@pytest.mark.parametrize("value", [NAN, INF])
def test_values_are_checked_before_vec_normalize(what, quantity, value):
    env = VecNormalize(DummyVecEnv([lambda: Scripted(20, **{what: value})]))
    model = MIRL("MlpPolicy", env, **FAST)
    with pytest.raises(ValueError, match=rf"{quantity} of environment 0.* is {value} at environment step 20"):
        model.learn(60)
    check(model)


def test_huge_rewards_can_be_normalised():
    env = VecNormalize(DummyVecEnv([lambda: ConstantReward(reward=1e25)]))
    learn(env)


@pytest.mark.parametrize("value", [-1, 3, 100])
@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.MultiDiscrete([3, 3]), spaces.Dict({"a": spaces.Discrete(3)})])
def test_discrete_observation_out_of_range_is_refused(space, value):
    class Outside(ConstantReward):
        def step(self, action):
            obs, *rest = super().step(action)
            if self.steps == 4:
                obs = {"a": value} if isinstance(space, spaces.Dict) else np.full(space.shape, value)
            return obs, *rest

    with pytest.raises(
        ValueError, match=rf"observation.* of environment 0.* is {value} at environment step 4: .*in .*Discrete"
    ):
        learn(Outside(observation_space=space), "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy")


def test_observations_out_of_bounds_or_of_another_type_work():
    class Other(ConstantReward):
        def step(self, action):
            obs, *rest = super().step(action)
            return (obs * 50).astype(np.float64), *rest

    learn(Other())
    env = forked([Other] * 2)
    learn(env)
    env.close()


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("train_freq", [1, 4, (1, "episode")])
def test_episodes_of_one_step(terminated, n_envs, train_freq):
    class OneStep(ConstantReward):
        def step(self, action):
            obs, reward, *_ = super().step(action)
            return obs, reward, terminated, not terminated, {}

    if n_envs == 1 or train_freq != (1, "episode"):
        assert learn(make_vec_env(OneStep, n_envs), train_freq=train_freq)._n_updates > 0


@pytest.mark.parametrize("n_steps", [1, 3])
def test_episodes_that_never_end(n_steps, monkeypatch):
    assert learn(ConstantReward(length=10**9), n_steps=n_steps)._n_updates > 0
    monkeypatch.setattr(dqn_module, "LONGEST_LAST_EPISODE_STEPS", 50)
    with pytest.raises(ValueError, match=r"train_freq counts episodes.* no episode ended in the last 50 steps.* = 40"):
        learn(ConstantReward(length=10**9), n_steps=n_steps, train_freq=(1, "episode"))


def test_a_last_rollout_of_several_long_episodes(monkeypatch):
    monkeypatch.setattr(dqn_module, "LONGEST_LAST_EPISODE_STEPS", 50)
    assert learn(ConstantReward(length=45), train_freq=(4, "episode")).num_timesteps == 180


def test_infinite_loss_error_names_largest_reward():
    model = MIRL("MlpPolicy", ConstantReward(), train_freq=1, loss="mse", **FAST)

    def spoil(locals_, globals_):
        model.replay_buffer.rewards[:] = 1e30
        return True

    with pytest.raises(ValueError, match=r"The mse loss was inf at .* largest \|reward\| in the replay buffer = 1e\+30"):
        model.learn(40, callback=spoil)
    assert th.isfinite(model.policy.prior).all()


def test_learning_rates_may_be_tensors_without_axes():
    model = MIRL("MlpPolicy", "CartPole-v1", learning_rate=lambda progress: th.tensor(1e-3) * progress, learning_starts=10)
    assert model.learn(30)._n_updates > 0


def test_vector_environments_may_return_lists_of_dones():
    class Lists(VecEnvWrapper):
        def reset(self):
            return self.venv.reset()

        def step_wait(self):
            obs, rewards, dones, infos = self.venv.step_wait()
            return obs, rewards, list(dones), infos

    env = Lists(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    assert MIRL("MlpPolicy", env, learning_starts=10).learn(60)._n_updates > 0


def test_last_observations_with_an_extra_axis_are_stored_as_in_sb3():
    class OneMore(gym.ObservationWrapper):
        def observation(self, observation):
            return observation[None]

    assert MIRL("MlpPolicy", OneMore(gym.make("CartPole-v1")), learning_starts=10).learn(60)._n_updates > 0
