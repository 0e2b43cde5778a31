"""Models as files that run no code: export, load_exported, inspect, ONNX."""

import base64
import json
import os
import pickle
import resource
import subprocess
import sys
import types
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch as th
from gymnasium import spaces
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probes import ConstantReward, Image, Mixed, NamedActions
from stable_baselines3 import DQN, HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import nn

from sb3_mirl import MIRL, SQL, SQLm, load_prior
from sb3_mirl.cli.inspect import inspect_file
from sb3_mirl.cli.main import main
from sb3_mirl.cli.prior import diagnose
from sb3_mirl.common.buffers import FrameReplayBuffer
from sb3_mirl.common.export.document import _decode_space, _encode, _encode_space, _subclasses_in, export_onnx
from sb3_mirl.common.inputs import is_class
from sb3_mirl.common.text import printable

FAST = {"learning_starts": 20, "buffer_size": 500, "batch_size": 8, "policy_kwargs": {"net_arch": [16]}, "seed": 0}


@pytest.fixture(scope="module")
def trained():
    return MIRL("MlpPolicy", NamedActions(), prior_lr=0.1, **FAST).learn(60)


@pytest.fixture
def exported(trained, tmp_path):
    return trained.export(tmp_path / "model")


def check_equal(loaded, model):
    """Weights, ρ, β and the optimiser's state, bit for bit; settings and counters."""
    state, other = model.policy.state_dict(), loaded.policy.state_dict()
    assert state.keys() == other.keys()
    for name, value in state.items():
        assert th.equal(other[name], value) and other[name].dtype == value.dtype, name
    optimizer, other = model.policy.optimizer.state_dict(), loaded.policy.optimizer.state_dict()
    assert optimizer["param_groups"] == other["param_groups"]
    for index, entries in optimizer["state"].items():
        assert entries.keys() == other["state"].get(index, {}).keys()
        for key, value in entries.items():
            assert th.equal(other["state"][index][key], value), key
    assert loaded.observation_space == model.observation_space and loaded.action_space == model.action_space
    for name in ["num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate", "action_names", "train_freq"]:
        assert getattr(loaded, name) == getattr(model, name), name
    for name in ["gamma", "beta_schedule", "beta_init", "beta_max", "prior_lr", "loss", "regularization", "policy_kwargs"]:
        assert getattr(loaded, name) == getattr(model, name), name


def rewrite(path, change=lambda document: None, tensors=lambda tensors: None):
    """The file with its document, or its tensors, changed in place."""
    with safetensors.safe_open(path, "pt") as file:
        metadata, values = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    document = json.loads(metadata["sb3_mirl"])
    change(document)
    tensors(values)
    safetensors.torch.save_file(values, path, {"sb3_mirl": json.dumps(document)})
    return path


# ---- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [MIRL, SQL, SQLm])
@pytest.mark.parametrize("policy, env", [("MlpPolicy", ConstantReward), ("CnnPolicy", Image), ("MultiInputPolicy", Mixed)])
def test_every_policy_comes_back(algorithm, policy, env, tmp_path):
    model = algorithm(policy, env(), learning_starts=20, buffer_size=100, batch_size=8, seed=0).learn(40)
    path = model.export(tmp_path / "model")
    assert path.name == "model.safetensors" and [*tmp_path.iterdir()] == [path]
    loaded = algorithm.load_exported(tmp_path / "model")
    assert type(loaded) is algorithm
    check_equal(loaded, model)
    obs = model.get_env().reset()
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert th.equal(loaded.policy.action_probabilities(obs), model.policy.action_probabilities(obs))
    check_equal(algorithm.load_exported(loaded.export(tmp_path / "again")), model)


def test_training_goes_on_as_after_save_and_load(tmp_path):
    env = make_vec_env(lambda: ConstantReward(n_actions=3), 2)
    settings = {**FAST, "learning_rate": LinearSchedule(1e-2, 1e-3, 0.7), "beta_schedule": "linear", "beta_lr": 1e-2}
    model = MIRL("MlpPolicy", env, target_update_interval=7, **settings).learn(200)
    model.save(tmp_path / "model.zip")
    model.export(tmp_path / "model")
    results = []
    for load in (lambda env: MIRL.load(tmp_path / "model.zip", env), lambda env: MIRL.load_exported(tmp_path / "model", env)):
        env = make_vec_env(lambda: ConstantReward(n_actions=3), 2, seed=3)
        results.append(load(env).learn(100, reset_num_timesteps=False))
    check_equal(*results)
    assert not np.array_equal(results[0].policy.state_dict()["q_net.q_net.0.weight"], model.q_net.q_net[0].weight.detach())


@pytest.mark.parametrize("when", ["before training", "in the middle", "after training"])
def test_frozen_parameters_stay_frozen(when, tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **{**FAST, "policy_kwargs": {"net_arch": [8, 8]}})
    first = [*model.q_net.parameters()][:2]
    for name, steps in {"before training": 0, "in the middle": 40, "after training": 60}.items():
        model.learn(steps, reset_num_timesteps=False)
        if name == when:
            for parameter in first:
                parameter.requires_grad_(False)
    loaded = MIRL.load_exported(model.export(tmp_path / "model"), env=ConstantReward())
    check_equal(loaded, model)
    before = [parameter.detach().clone() for parameter in loaded.q_net.parameters()]
    loaded.learn(40, reset_num_timesteps=False)
    after = [*loaded.q_net.parameters()]
    assert [parameter.requires_grad for parameter in after] == [False, False, True, True, True, True]
    assert [th.equal(*pair) for pair in zip(before, after, strict=True)] == [True, True, False, False, False, False]


class Unused(BaseFeaturesExtractor):
    """Has a layer that gets no gradient."""

    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=3)
        self.layer = nn.Linear(3, 3)

    def forward(self, observations):
        return observations


def test_parameters_that_are_not_used_have_no_state(tmp_path):
    kwargs = {"net_arch": [8], "features_extractor_class": Unused}
    model = MIRL("MlpPolicy", ConstantReward(), **{**FAST, "policy_kwargs": kwargs}).learn(40)
    path = model.export(tmp_path / "model")
    check_equal(MIRL.load_exported(path, custom_objects={f"{Unused.__module__}.Unused": Unused}), model)


def test_files_of_older_versions_are_read(exported, trained):
    def older(document):
        for name in ("frozen", "learning_curve"):
            del document[name]
        for name in ("resolved_prior_lr", "resolved_beta_lr"):
            del document["training"][name]

    loaded = MIRL.load_exported(rewrite(exported, older))
    check_equal(loaded, trained)
    assert loaded.learning_curve == {"episodes_per_point": 1, "points": [], "sum": 0.0, "count": 0}
    assert inspect_file(exported)["learning_curve"] is None


def test_numbers_that_learn_resolved_come_back(tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **FAST)
    assert model.prior_lr == model.beta_lr == "auto"
    path = model.export(tmp_path / "untrained")
    loaded = MIRL.load_exported(path)
    assert loaded.resolved_prior_lr is loaded.resolved_beta_lr is None
    path = model.learn(4000, callback=lambda locals, globals: locals["self"].num_timesteps < 30).export(tmp_path / "model")
    numbers = model.resolved_prior_lr, model.resolved_beta_lr
    assert None not in numbers
    loaded = MIRL.load_exported(path, env=ConstantReward())
    assert loaded.prior_lr == loaded.beta_lr == "auto" and (loaded.resolved_prior_lr, loaded.resolved_beta_lr) == numbers
    loaded.learn(10, reset_num_timesteps=False)
    assert (loaded.resolved_prior_lr, loaded.resolved_beta_lr) == numbers
    # Another argument needs another number
    loaded = MIRL.load_exported(path, prior_lr=0.5)
    assert (loaded.prior_lr, loaded.resolved_prior_lr, loaded.resolved_beta_lr) == (0.5, None, numbers[1])


class LooksLikeAClass:
    """As list[int] on Python 3.10."""

    __class__ = type


def test_what_only_looks_like_a_class_is_none():
    alias = LooksLikeAClass()
    assert isinstance(alias, type) and not is_class(alias) and not is_class(list[int]) and not is_class(list[int], list)
    assert is_class(int) and is_class(bool, int) and is_class(nn.ReLU, nn.Module) and not is_class(int, nn.Module)
    module = types.SimpleNamespace(alias=alias, ReLU=nn.ReLU, number=3)
    assert _subclasses_in(module, "torch.nn", nn.Module) == {"torch.nn.ReLU": nn.ReLU}
    for name in ("replay_buffer_class", "policy"):
        with pytest.raises(ValueError, match=name):
            MIRL(**{"policy": "MlpPolicy", "env": ConstantReward(), name: alias})
    with pytest.raises(ValueError, match=r"policy_kwargs.* cannot be written as data"):
        _encode(alias, "policy_kwargs['x']")


def test_an_untrained_model_and_infinite_beta(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", beta_schedule="constant", beta_init=np.inf, prior_init=np.array([0.25, 0.75]))
    loaded = MIRL.load_exported(model.export(tmp_path / "model"))
    assert loaded.beta == np.inf and loaded.beta_init == np.inf
    np.testing.assert_array_equal(loaded.prior_init, [0.25, 0.75])
    check_equal(loaded, model)


@pytest.mark.parametrize(
    "settings",
    [
        {
            "policy_kwargs": {
                "optimizer_class": th.optim.RMSprop,
                "optimizer_kwargs": {"momentum": 0.5},
                "activation_fn": nn.SiLU,
            }
        },
        {"policy_kwargs": {"optimizer_class": th.optim.SGD}},
        {"policy_kwargs": {"optimizer_kwargs": {"amsgrad": True, "betas": (0.8, 0.9)}}},
        {"train_freq": (1, "episode"), "gradient_steps": -1, "n_steps": 3},
        {"compile_update": True, "batch_size": 4},
    ],
)
def test_settings(settings, tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **{**FAST, **settings})
    model.learn(20 if settings.get("compile_update") else 60)
    check_equal(MIRL.load_exported(model.export(tmp_path / "model")), model)


@pytest.mark.filterwarnings("error")
def test_loading_a_model_with_n_step_returns_does_not_warn(tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), n_steps=3, gamma=0.9, **FAST)
    model.save(tmp_path / "model.zip")
    for loaded in (MIRL.load_exported(model.export(tmp_path / "model")), MIRL.load(tmp_path / "model.zip")):
        assert type(loaded.replay_buffer) is NStepReplayBuffer
        assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (3, 0.9)


def test_buffers_come_back_by_name(tmp_path):
    model = MIRL("CnnPolicy", Image(), buffer_size=50, replay_buffer_class=FrameReplayBuffer)
    assert type(MIRL.load_exported(model.export(tmp_path / "model")).replay_buffer) is FrameReplayBuffer
    env = BitFlippingEnv(n_bits=3)
    kwargs = {"n_sampled_goal": 2, "goal_selection_strategy": "final"}
    her = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": kwargs, "learning_starts": 20, "buffer_size": 200}
    path = MIRL("MultiInputPolicy", env, **her).export(tmp_path / "her")
    assert MIRL.load_exported(path, env=env).replay_buffer.n_sampled_goal == 2
    assert MIRL.load_exported(path, replay_buffer_class=None, replay_buffer_kwargs={}).replay_buffer is not None


@pytest.mark.parametrize(
    "schedule",
    [0.5, ConstantSchedule(0.5), LinearSchedule(0.5, 0.1, 0.3), FloatSchedule(LinearSchedule(0.5, 0.0, 1.0)), "zoo"],
)
def test_schedules_are_data(schedule, tmp_path):
    if schedule == "zoo":
        schedule = pytest.importorskip("rl_zoo3.utils").SimpleLinearSchedule(0.3)
    model = MIRL("MlpPolicy", "CartPole-v1", learning_rate=schedule)
    loaded = MIRL.load_exported(model.export(tmp_path / "model"))
    loaded = MIRL.load_exported(loaded.export(tmp_path / "model"))
    progress = np.random.default_rng(0).random(50)
    assert [loaded.lr_schedule(p) for p in progress] == [model.lr_schedule(p) for p in progress]


def test_a_function_is_no_data_but_can_be_replaced(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", learning_rate=lambda progress: 0.1 * progress)
    with pytest.raises(ValueError, match=r"learning_rate is .*lambda.*export\(path, learning_rate=\.\.\.\)"):
        model.export(tmp_path / "model")
    assert not [*tmp_path.iterdir()]
    assert MIRL.load_exported(model.export(tmp_path / "model", learning_rate=0.2)).lr_schedule(0.5) == 0.2
    with pytest.raises(ValueError, match="no argument 'lr'"):
        model.export(tmp_path / "model", lr=0.2)


def test_arguments_can_be_changed_when_loading(exported):
    loaded = MIRL.load_exported(exported, buffer_size=7, learning_rate=0.25, tensorboard_log="logs")
    assert (loaded.buffer_size, loaded.lr_schedule(1), loaded.tensorboard_log) == (7, 0.25, "logs")
    with pytest.raises(ValueError, match="no argument 'bufer_size'"):
        MIRL.load_exported(exported, bufer_size=7)
    with pytest.raises(ValueError, match="prior_lr must be"):
        MIRL.load_exported(exported, prior_lr=2.0)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        MIRL.load_exported(exported, env=gym.make("CartPole-v1"))


class Halves(BaseFeaturesExtractor):
    """A class that no file may name by itself."""

    def __init__(self, observation_space, factor):
        super().__init__(observation_space, features_dim=int(np.prod(observation_space.shape)))
        self.factor = factor

    def forward(self, observations):
        return observations.flatten(1) * self.factor


class Mine(MIRL):
    def __init__(self, *args, patience=3, **kwargs):
        super().__init__(*args, **kwargs)
        self.patience = patience


def test_classes_of_the_users(tmp_path):
    kwargs = {"features_extractor_class": Halves, "features_extractor_kwargs": {"factor": 0.5}}
    model = Mine("MlpPolicy", ConstantReward(), patience=5, policy_kwargs=kwargs)
    path, name = model.export(tmp_path / "model"), f"{Halves.__module__}.Halves"
    with pytest.raises(ValueError, match=r"which is not among the classes .* custom_objects"):
        Mine.load_exported(path)
    with pytest.raises(ValueError, match="must be a subclass of BaseFeaturesExtractor"):
        Mine.load_exported(path, custom_objects={name: nn.ReLU})
    loaded = Mine.load_exported(path, custom_objects={name: Halves})
    check_equal(loaded, model)
    assert type(loaded) is Mine and loaded.patience == 5
    with pytest.raises(ValueError, match=r"unknown fields \['patience'\]"):
        MIRL.load_exported(path, custom_objects={name: Halves})
    # A subclass loads what its parent exported, as with load()
    assert Mine.load_exported(MIRL("MlpPolicy", ConstantReward()).export(tmp_path / "parent")).patience == 3


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint32]
)
def test_bounds_of_every_dtype_are_exact(dtype):
    info = np.finfo(dtype) if np.issubdtype(dtype, np.floating) else np.iinfo(dtype)
    low = np.array([info.min, 0, 1], dtype)
    high = np.array([1, info.max, 3], dtype)
    check_space(spaces.Box(low, high, dtype=dtype))
    if np.issubdtype(dtype, np.floating):
        check_space(spaces.Box(np.array([-np.inf, dtype(0.1)], dtype), np.array([dtype(1) / 3, np.inf], dtype), dtype=dtype))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (3, 2)),
        spaces.Box(0, 255, (84, 84, 4), np.uint8),
        spaces.Box(0, 1, (0,)),
        spaces.Box(0, 1, ()),
        spaces.Discrete(5),
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete([2, 3], start=[1, 0]),
        spaces.MultiDiscrete([[2, 3], [4, 5]], dtype=np.int32),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
        spaces.Dict([("z", spaces.Discrete(2)), ("a", spaces.Box(0, 1, (2,)))]),
    ],
)
def test_spaces_are_exact(space):
    check_space(space)


def check_space(space):
    back = _decode_space(json.loads(json.dumps(_encode_space(space, "space"), allow_nan=False)), "space")
    assert back == space and back.dtype == space.dtype and repr(back) == repr(space)
    if isinstance(space, spaces.Dict):
        assert [*back.spaces] == [*space.spaces]
    if isinstance(space, spaces.Box):
        assert back.low.tobytes() == space.low.tobytes() and back.high.tobytes() == space.high.tobytes()
        assert (back.bounded_below == space.bounded_below).all() and (back.bounded_above == space.bounded_above).all()


def test_a_large_image_space_stays_small(tmp_path):
    assert len(json.dumps(_encode_space(spaces.Box(0, 255, (84, 84, 4), np.uint8), "space"))) < 200


def test_an_interrupted_export_leaves_the_old_file(trained, exported, monkeypatch):
    before = exported.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        trained.export(exported)
    assert exported.read_bytes() == before and [*exported.parent.iterdir()] == [exported]


# ---- names of actions ----------------------------------------------------------------------------------------------


def test_models_remember_what_actions_are_called(trained, exported, tmp_path):
    assert MIRL("MlpPolicy", NamedActions()).action_names is None
    assert trained.action_names == ["NOOP", "FIRE"]
    trained.save(tmp_path / "model.zip")
    assert json.loads(zipfile.ZipFile(tmp_path / "model.zip").read("data"))["action_names"] == ["NOOP", "FIRE"]
    assert MIRL.load(tmp_path / "model.zip").action_names == ["NOOP", "FIRE"]
    assert MIRL.load_exported(exported).action_names == ["NOOP", "FIRE"]


# ---- files that are refused ----------------------------------------------------------------------------------------


def set_at(*keys, value):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change, message",
    [
        (set_at("version", value=2), "format version 1, got 2"),
        (set_at("format", value="other"), "format must be 'sb3_mirl'"),
        (set_at("algorithm", value="SQL"), "the algorithm 'SQL', and MIRL.load_exported loads MIRL"),
        (set_at("surprise", value=1), r"unknown fields \['surprise'\]"),
        (set_at("arguments", "surprise", value=1), r"arguments: unknown fields \['surprise'\]"),
        (set_at("arguments", "tensorboard_log", value="x"), r"arguments: unknown fields \['tensorboard_log'\]"),
        (set_at("training", "surprise", value=1), r"training: unknown fields \['surprise'\]"),
        (set_at("optimizer", "surprise", value=1), r"optimizer: unknown fields \['surprise'\]"),
        (lambda document: document.pop("action_names"), r"missing fields \['action_names'\]"),
        (set_at("training", "num_timesteps", value=-1), "num_timesteps must be int and in range, got -1"),
        (set_at("training", "n_envs", value=0), "n_envs must be at least 1"),
        (set_at("training", "exploration_rate", value="1"), "exploration_rate must be float"),
        (set_at("action_names", value=[1]), "action_names must hold text"),
        (set_at("arguments", "gamma", value={"run": "x"}), "gamma: the file has {'run': 'x'}; an object must have one key"),
        (set_at("arguments", "beta_lr", value=7.0), "beta_lr must be .*a number in"),
        (
            set_at("training", "resolved_prior_lr", value=1.5),
            r"resolved_prior_lr must be .* or null, got 1.5",
        ),
        (set_at("arguments", "policy_kwargs", value={"dict": {"net_arch": "x"}}), "No model can be built"),
        (
            set_at("arguments", "policy_kwargs", value={"dict": {"net_arch": [17]}}),
            r"must be torch.float32 of shape \(17, 3\)",
        ),
        (
            set_at("arguments", "learning_rate", value={"schedule": {"kind": "eval"}}),
            "learning_rate: the file has the schedule",
        ),
        (
            set_at(
                "arguments", "learning_rate", value={"schedule": {"kind": "linear", "start": 1, "end": 0, "end_fraction": 0}}
            ),
            "No model",
        ),
        (set_at("observation_space", value={"Tuple": []}), "observation_space: the file has no space"),
        (set_at("observation_space", "Box", "low", value=[0.0]), "observation_space.low: the file has no array"),
        (set_at("observation_space", "Box", "dtype", value="O"), r"observation_space.*\(dtype must be one of"),
        (set_at("action_space", value={"MultiBinary": {"n": 2}}), "action_space: must be Discrete"),
        (set_at("optimizer", "param_groups", 0, "surprise", value=1), "a group has the settings"),
        (set_at("optimizer", "param_groups", 0, "amsgrad", value=True), "amsgrad must be False"),
        (set_at("optimizer", "param_groups", 0, "lr", value="x"), "lr must be a number"),
    ],
)
def test_documents_that_are_refused(change, message, exported):
    with pytest.raises(ValueError, match=message):
        MIRL.load_exported(rewrite(exported, change))


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("policy.surprise", th.zeros(1), r"does not have: \['policy.surprise'\]"),
        ("policy.beta", None, r"file does not have: \['policy.beta'\]"),
        ("policy.prior", th.full((3,), 1 / 3, dtype=th.float64), r"policy.prior must be torch.float64 of shape \(2,\)"),
        ("policy.prior", th.full((2,), 0.5), "the file has torch.float32"),
        ("policy.prior", th.tensor([-0.5, 1.5], dtype=th.float64), "non-negative numbers that sum to 1"),
        ("policy.beta", th.tensor(th.nan, dtype=th.float64), "policy.beta must be at least 0"),
        ("optimizer.0.exp_avg", th.zeros(1), "optimizer.0.exp_avg must be"),
        ("optimizer.9.exp_avg", th.zeros(1), r"does not have: \['optimizer.9.exp_avg'\]"),
        ("optimizer.0.exp_avg", None, r"file does not have: \['optimizer.0.exp_avg'\]"),
    ],
)
def test_tensors_that_are_refused(name, value, message, exported):
    def change(tensors):
        tensors.pop(name, None)
        tensors.update({} if value is None else {name: value})

    with pytest.raises(ValueError, match=message):
        MIRL.load_exported(rewrite(exported, tensors=change))


def test_damaged_files_are_refused(exported, tmp_path, capsys):
    whole = exported.read_bytes()
    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"a": th.zeros(1)}, other)
    with pytest.raises(ValueError, match="was not written by sb3_mirl's export"):
        MIRL.load_exported(other)
    for content in (b"", b"x" * 1000, whole[:100], whole[:-1], whole + b"x", b"PK\x03\x04" + whole):
        exported.write_bytes(content)
        with pytest.raises(ValueError, match="is not a safetensors file, or damaged"):
            MIRL.load_exported(exported)
        assert main(["inspect", str(exported)]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(FileNotFoundError):
        MIRL.load_exported(tmp_path / "none")


# ---- files of any content ---------------------------------------------------------------------------------------------


def places(value, place=()):
    """Where in JSON there is a value: keys and positions, from the outermost in."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, child in inner for found in places(child, (*place, key)))]


def with_header(whole, change):
    """An export's bytes with its header changed, as text or as JSON."""
    length = int.from_bytes(whole[:8], "little")
    header = change(whole[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + whole[8 + length :]


def with_document(whole, change):
    def change_header(header):
        header = json.loads(header)
        header["__metadata__"]["sb3_mirl"] = change(header["__metadata__"]["sb3_mirl"])
        return json.dumps(header).encode()

    return with_header(whole, change_header)


def check_refused_or_whole(path, content):
    """Whatever a file holds: it is loaded, or refused with ValueError and a message that fits on a screen."""
    path.write_bytes(content)
    for function in (lambda path: MIRL.load_exported(path, device="cpu"), inspect_file, diagnose):
        try:
            function(path)
        except ValueError as error:
            assert str(error) and len(str(error)) < 2000 and printable(error) == str(error)


@pytest.fixture(scope="module")
def bytes_of_export(trained, tmp_path_factory):
    return trained.export(tmp_path_factory.mktemp("fuzz") / "model").read_bytes()


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.sampled_from(
        [2**31, 2**62, 2**63, 2**64 - 1, 2**64, -(2**63), 10**400, 1e-320, 1e308, "inf", "nan", "f4,(", "\x1b[2J"]
    ),
    st.floats(),
    st.text(max_size=5),
)
KINDS_OF_OBJECTS = ["tuple", "dict", "number", "array", "class", "schedule", "Box", "Dict", "Discrete", "MultiBinary", "shape"]
NAMES = ["torch.nn.Transformer", "torch.nn.ReLU", "torch.optim.LBFGS", "sb3_mirl.mirl.policies.CnnPolicy"]
ARRAY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["float32", "float64", "int8", "O", "f4,(", "V10"]),
        "shape": st.lists(st.sampled_from([0, 1, 3, 2**20, 2**40, -1]), max_size=3),
        "values": SCALARS | st.lists(SCALARS, max_size=3),
    }
)
VALUES = st.recursive(
    SCALARS | st.sampled_from(NAMES) | ARRAY,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KINDS_OF_OBJECTS) | st.text(max_size=3), inner, max_size=2)
        | st.sampled_from(NAMES).map(lambda name: {"class": name})
    ),
    max_leaves=8,
)
FUZZED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZED
@given(data=st.data())
def test_any_value_anywhere_in_the_document_is_refused_or_read(data, bytes_of_export, tmp_path):
    def change(text):
        document = json.loads(text)
        for _ in range(data.draw(st.integers(1, 2))):
            *outer, last = data.draw(st.sampled_from(places(document)[1:]))
            part = document
            for key in outer:
                part = part[key]
            part[last] = data.draw(VALUES)
        return json.dumps(document)

    check_refused_or_whole(tmp_path / "model.safetensors", with_document(bytes_of_export, change))


@FUZZED
@given(data=st.data())
def test_any_value_in_the_header_is_refused_or_read(data, bytes_of_export, tmp_path):
    def change(header):
        header = json.loads(header)
        tensor = data.draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))
        other = data.draw(st.sampled_from(sorted(header)))
        field = data.draw(st.sampled_from(["dtype", "shape", "data_offsets", "whole", "name"]))
        if field == "whole":
            header[tensor] = header[other]
        elif field == "name":
            header[data.draw(st.text(max_size=5))] = header.pop(tensor)
        else:
            dtypes = st.sampled_from(["F32", "F64", "I8", "F4", "F8_E4M3", "BF16", "x"])
            numbers = st.lists(st.sampled_from([0, 1, 8, 2**20, 2**62, 2**64, -1, 1.5]), max_size=3)
            header[tensor][field] = data.draw(dtypes if field == "dtype" else numbers)
        return json.dumps(header).encode()

    check_refused_or_whole(tmp_path / "model.safetensors", with_header(bytes_of_export, change))


@FUZZED
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), length=st.none() | st.integers(0, 2**64 - 1))
def test_a_flipped_bit_or_a_wrong_length_is_refused_or_read(position, bit, length, bytes_of_export, tmp_path):
    content = bytearray(bytes_of_export)
    # Of the header: in the weights it makes another weight
    content[int(position * (8 + int.from_bytes(content[:8], "little")))] ^= 1 << bit
    if length is not None:
        content[:8] = length.to_bytes(8, "little")
    check_refused_or_whole(tmp_path / "model.safetensors", bytes(content))


SMALL_FILES_THAT_ASK_FOR_MUCH = {
    "a large network": (
        {"policy_kwargs": {"dict": {"net_arch": [60_000, 60_000]}}},
        "does not have: .'policy.q_net.q_net.4.bias",
    ),
    "a deep network": ({"policy_kwargs": {"dict": {"net_arch": [1] * 20_000}}}, "arguments.* must have at most 1000 values"),
    "a large array": (
        {"prior_init": {"array": {"dtype": "float64", "shape": [10**9], "values": 0.5}}},
        "a shape must have .* at most 8388608 elements",
    ),
    "many arrays": (
        {"prior_init": [{"array": {"dtype": "int8", "shape": [2**22], "values": 0}}] * 3},
        "arrays and spaces must have at most 8388608 elements together",
    ),
    "many environments": ({"n_envs": 10**9}, "n_envs must be int and in range"),
    "a large space": ({"Box": {"dtype": "float32", "shape": [2**31], "low": 0.0, "high": 1.0}}, "a shape must have"),
    "many actions": ({"Discrete": {"dtype": "int64", "n": 10**12, "start": 0}}, r"must be|must have"),
    "deep spaces": ("Dict", "nested at most 32 deep"),
}


@pytest.mark.parametrize("what", SMALL_FILES_THAT_ASK_FOR_MUCH)
def test_a_small_file_cannot_take_much_memory(what, exported):
    given, message = SMALL_FILES_THAT_ASK_FOR_MUCH[what]

    def change(document):
        if what == "deep spaces":
            document["observation_space"] = {"Discrete": {"dtype": "int64", "n": 2, "start": 0}}
            for _ in range(200):
                document["observation_space"] = {"Dict": [["a", document["observation_space"]]]}
        elif "n_envs" in given:
            document["training"] |= given
        elif "Discrete" in given:
            document["action_space"] = given
        elif "Box" in given:
            document["observation_space"] = given
        else:
            document["arguments"] |= given

    rewrite(exported, change)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message):
        MIRL.load_exported(exported)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "1" * 5000, str(2**64)])
def test_numbers_that_are_no_json_or_too_large_are_refused(number, bytes_of_export, tmp_path):
    def change(text):
        return text.replace('"gamma": 0.99', f'"gamma": {number}')

    (tmp_path / "a.safetensors").write_bytes(with_document(bytes_of_export, change))
    with pytest.raises(ValueError, match=r"is not JSON: (integers|numbers) must"):
        MIRL.load_exported(tmp_path / "a.safetensors")


def test_a_key_that_is_there_twice_is_refused(bytes_of_export, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(with_document(bytes_of_export, lambda text: text[:-1] + ', "format": "sb3_mirl"}'))
    with pytest.raises(ValueError, match="a key is there twice"):
        MIRL.load_exported(path)
    path.write_bytes(with_header(bytes_of_export, lambda header: header.replace(b"{", b'{"__metadata__":{},', 1)))
    with pytest.raises(ValueError, match="a key is there twice"):
        MIRL.load_exported(path)


@pytest.mark.parametrize("function", [MIRL.load_exported, inspect_file, load_prior])
def test_what_is_no_file_is_refused_at_once(function, exported, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("pipe", "link"):
        with pytest.raises(ValueError, match="must be a file, and is a pipe, socket or device"):
            function(tmp_path / name)
    with pytest.raises(ValueError, match="must be a file, and is a folder"):
        function(tmp_path)
    for name in ("loop", "none"):
        with pytest.raises((ValueError, FileNotFoundError), match=r"[Tt]here is no file"):
            function(tmp_path / name)
    (tmp_path / "good").symlink_to(exported)
    function(tmp_path / "good")


def test_what_loading_refuses_is_not_exported(trained, tmp_path):
    with pytest.raises(ValueError, match=r"'arguments' must have at most 1000 values"):
        trained.export(tmp_path / "a", policy_kwargs={"net_arch": [1] * 2000})
    with pytest.raises(ValueError, match="integers must have at most 64 bits"):
        trained.export(tmp_path / "a", policy_kwargs={"x": 2**64})
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize(
    "crafted, message",
    [
        ({"prior": th.zeros(1, dtype=th.float64).expand(10**9)}, "prior must have at most 1048576 elements"),
        ({"beta": th.zeros(1, dtype=th.float64).expand(10**9)}, "beta a number"),
        ({"other": bytearray(1)}, "policy.pth has a bytearray"),
    ],
)
def test_a_zip_with_tensors_that_say_they_are_large_is_refused(crafted, message, saved, trained, tmp_path):
    th.save({**trained.policy.state_dict(), **crafted}, tmp_path / "policy.pth")
    path = zip_with(saved, tmp_path / "crafted.zip", {"policy.pth": (tmp_path / "policy.pth").read_bytes()})
    assert path.stat().st_size < 100_000
    for function in (inspect_file, load_prior):
        with pytest.raises(ValueError, match=message):
            function(path)


def test_a_zip_with_entries_that_expand_or_nest_is_refused(saved, tmp_path):
    zip_with(saved, tmp_path / "deep.zip", {"data": "[" * 500 + "]" * 500})
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", " " * (2**26 + 1))
        archive.writestr("policy.pth", b"")
    for name, message in {"deep": "nested at most", "bomb": "is compressed, and must have at most"}.items():
        with pytest.raises(ValueError, match=message):
            inspect_file(tmp_path / f"{name}.zip")


# ---- files that would run code -------------------------------------------------------------------------------------


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def zip_with(source, target, entries):
    """A copy of SB3's zip with other entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, entries.get(name, old.read(name)))
    return target


@pytest.fixture
def saved(trained, tmp_path):
    trained.save(tmp_path / "saved.zip")
    return tmp_path / "saved.zip"


def test_a_pickle_inside_the_data_of_a_zip_is_not_decoded(saved, tmp_path, capsys):
    marker = tmp_path / "marker"
    data = json.loads(zipfile.ZipFile(saved).read("data"))
    data["observation_space"][":serialized:"] = base64.b64encode(pickle.dumps(Bomb(marker))).decode()
    crafted = zip_with(saved, tmp_path / "crafted.zip", {"data": json.dumps(data)})
    assert main(["inspect", str(crafted)]) == 0 and "gymnasium.spaces.box.Box" in capsys.readouterr().out
    with pytest.raises(ValueError, match="it looks like a zip of SB3's save"):
        MIRL.load_exported(crafted)
    assert not marker.exists()
    with pytest.raises(Exception):  # noqa: B017 (None is no observation space)
        MIRL.load(crafted)
    assert marker.exists()


def test_a_pickle_in_place_of_the_weights_of_a_zip_is_refused(saved, tmp_path, capsys):
    marker = tmp_path / "marker"
    th.save({"prior": Bomb(marker)}, tmp_path / "policy.pth")
    crafted = zip_with(saved, tmp_path / "crafted.zip", {"policy.pth": (tmp_path / "policy.pth").read_bytes()})
    assert main(["inspect", str(crafted)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "policy.pth is refused by torch's restricted reader" in error and "mkdir" in error
    assert not marker.exists()
    th.load(tmp_path / "policy.pth", weights_only=False)
    assert marker.exists()


def test_a_pickle_in_place_of_an_export_is_refused(tmp_path, capsys):
    marker = tmp_path / "marker"
    crafted = tmp_path / "model.safetensors"
    crafted.write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(ValueError, match="it looks like a pickle, which would run code"):
        MIRL.load_exported(crafted)
    assert main(["inspect", str(crafted)]) == 2 and "looks like a pickle" in capsys.readouterr().err
    assert not marker.exists()
    pickle.loads(crafted.read_bytes())
    assert marker.exists()


@pytest.mark.parametrize(
    "name",
    [
        "subprocess.Popen",
        "os.system",
        "builtins.exec",
        "torch.load",
        "torch.hub.load",
        "torch.nn.modules.module.Module.__init__",
        "torch.nn.modules.module.warnings.sys.modules",
        "stable_baselines3.DQN.load",
        "sb3_mirl.mirl.policies.MIRLPolicy.load",
        "sb3_mirl.common.export.document.Path",
        "a_module_that_is_not_there.Net",
    ],
)
@pytest.mark.parametrize("where", ["features_extractor_class", "activation_fn", "optimizer_class"])
def test_dangerous_names_are_only_looked_up(name, where, exported, monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **kwargs: pytest.fail("called"))
    monkeypatch.setattr(os, "system", lambda *args, **kwargs: pytest.fail("called"))
    before = set(sys.modules)
    rewrite(exported, set_at("arguments", "policy_kwargs", "dict", where, value={"class": name}))
    with pytest.raises(ValueError, match=f"{where}.*names '{name}', which is not among .* nothing was imported"):
        MIRL.load_exported(exported)
    assert set(sys.modules) == before


def test_classes_of_the_wrong_kind_and_schedules_that_are_classes_are_refused(exported):
    values = {
        "activation_fn": "torch.optim.Adam",
        "optimizer_class": "torch.nn.ReLU",
        "features_extractor_class": "torch.nn.GRU",
    }
    for where, name in values.items():
        rewrite(exported, set_at("arguments", "policy_kwargs", value={"dict": {where: {"class": name}}}))
        with pytest.raises(ValueError, match=rf"{where}.*must be a subclass of .*names '{name}'"):
            MIRL.load_exported(exported)
    for schedule in ({"class": "os.system"}, {"schedule": {"kind": "os.system", "command": "true"}}):
        rewrite(exported, set_at("arguments", "learning_rate", value=schedule))
        with pytest.raises(ValueError, match=r"learning_rate: the file .*os\.system"):
            MIRL.load_exported(exported)
    with pytest.raises(ValueError, match="policy: must be a subclass of MIRLPolicy"):
        MIRL.load_exported(rewrite(exported, set_at("arguments", "policy", value={"class": "torch.nn.ReLU"})))


def test_deep_nesting_is_refused(exported):
    value = 1
    for _ in range(500):
        value = [value]
    rewrite(exported, set_at("arguments", "policy_kwargs", value=value))
    with pytest.raises(ValueError):
        MIRL.load_exported(exported)


# ---- inspect -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["exported", "saved"])
def test_inspect_says_what_the_model_is(kind, trained, request, capsys):
    path = str(request.getfixturevalue(kind))
    assert main(["inspect", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["algorithm"], found["beta"], found["prior"]) == ("MIRL", trained.beta, trained.prior.tolist())
    assert found["action_names"] == ["NOOP", "FIRE"] and found["training"]["num_timesteps"] == 60
    assert found["arguments"]["prior_lr"] == 0.1 and found["versions"]
    assert main(["inspect", path]) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    shown = [line for line in lines if line[0] in ("NOOP", "FIRE")]
    order = sorted(zip(trained.prior, ["NOOP", "FIRE"], strict=True), reverse=True)
    assert [line[:2] for line in shown] == [[name, f"{value:.6f}"] for value, name in order]
    assert len(shown[0][2]) == 30 and "beta" in text and "float32" in text


def test_inspect_of_other_files(tmp_path, capsys, saved):
    DQN("MlpPolicy", "CartPole-v1", buffer_size=10).save(tmp_path / "dqn.zip")
    assert inspect_file(tmp_path / "dqn.zip")["algorithm"] is None
    assert main(["inspect", str(tmp_path / "dqn.zip")]) == 0 and "not one of sb3_mirl" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("data", "{}")
    content = saved.read_bytes()
    files = {
        "other.zip": None,
        "missing": None,
        ".": None,
        "cut.zip": content[:-200],
        "holed.zip": content[:2000] + content[3000:],
    }
    files["data.zip"] = zip_with(saved, tmp_path / "data.zip", {"data": "[1, 2"}).read_bytes()
    files["list.zip"] = zip_with(saved, tmp_path / "list.zip", {"data": "[1, 2]"}).read_bytes()
    files["weights.zip"] = zip_with(saved, tmp_path / "weights.zip", {"policy.pth": b"nothing"}).read_bytes()
    for name, data in files.items():
        if data is not None:
            (tmp_path / name).write_bytes(data)
        assert main(["inspect", str(tmp_path / name)]) == 2, name
        out, err = capsys.readouterr()
        assert not out and err.startswith("sb3-mirl inspect: ") and err.count("\n") == 1, name


def test_a_file_does_not_write_to_the_terminal(exported, capsys):
    rewrite(exported, set_at("action_names", value=["\x1b[2J", "a\nb"]))
    for command in ("inspect", "prior"):
        assert main([command, str(exported)]) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\\x1b[2J" in out and "a\\nb" in out
    with safetensors.safe_open(exported, "pt") as file:
        metadata, values = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    safetensors.torch.save_file({**values, "policy.\x1b[2J\n": th.zeros(1)}, exported, metadata)
    assert main(["export-onnx", str(exported), "x.onnx"]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and "\\x1b[2J" in err and err.count("\n") == 1


def test_inspect_needs_no_rl_zoo3(exported):
    code = "import sys; sys.modules['rl_zoo3'] = None; from sb3_mirl.cli.main import main; sys.exit(main(sys.argv[1:]))"
    assert subprocess.run([sys.executable, "-c", code, "inspect", str(exported)], capture_output=True).returncode == 0


# ---- ONNX ----------------------------------------------------------------------------------------------------------


def onnx_session(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def several(space, count):
    """Observations as a vectorised environment gives them."""
    space.seed(0)
    samples = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    return np.stack(samples)


EVERYTHING = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
        "vector": spaces.Box(-1, 1, (2,)),
        "kind": spaces.Discrete(3),
        "kinds": spaces.MultiDiscrete([2, 4]),
        "flags": spaces.MultiBinary(4),
    }
)


def observing(space):
    return lambda: ConstantReward(observation_space=space, n_actions=3)


@pytest.mark.parametrize(
    "algorithm, policy, env, beta",
    [
        (MIRL, "MlpPolicy", observing(spaces.Box(-1, 1, (2,), np.float64)), 0.0),
        (MIRL, "MlpPolicy", observing(spaces.Discrete(5)), np.inf),
        (MIRL, "CnnPolicy", Image, 5.0),
        (SQLm, "MultiInputPolicy", observing(EVERYTHING), 2.0),
    ],
)
def test_onnx_acts_as_the_policy(algorithm, policy, env, beta, tmp_path):
    model = algorithm(policy, env(), buffer_size=10, beta_schedule="constant", beta_init=beta, seed=0)
    n_actions = model.action_space.n
    # One action that is never taken, and unequal others
    weights = np.arange(n_actions)[::-1].astype(float)
    model.policy.prior.copy_(th.as_tensor(weights / weights.sum()))
    export_onnx(model, tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnx_session(tmp_path / "model.onnx")
    for count in (1, 5):
        obs = several(model.observation_space, count)
        feed = obs if isinstance(obs, dict) else {"observation": obs}
        action, probabilities, q_values = session.run(["action", "probabilities", "q_values"], feed)
        with th.no_grad():
            q_expected = model.q_net(model.policy.obs_to_tensor(obs)[0])
        # The network is float32, and another library adds in another order; ρ, β and π are float64 in both
        np.testing.assert_allclose(q_values, q_expected, rtol=1e-4, atol=1e-5)
        assert probabilities.dtype == np.float64 and probabilities.shape == (count, n_actions)
        np.testing.assert_allclose(probabilities, model.policy.action_probabilities(obs), atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
        if algorithm is MIRL:
            assert (probabilities[:, -1] == 0).all()
        np.testing.assert_array_equal(action, model.predict(obs, deterministic=True)[0])


def test_onnx_at_the_command_line(trained, exported, saved, tmp_path, capsys):
    outputs = []
    obs = several(trained.observation_space, 4)
    for source in (exported, saved):
        assert main(["export-onnx", str(source), str(tmp_path / "model.onnx")]) == 0
        session = onnx_session(tmp_path / "model.onnx")
        outputs.append(session.run(["probabilities"], {"observation": obs})[0])
        assert json.loads(session.get_modelmeta().custom_metadata_map["sb3_mirl.action_names"]) == ["NOOP", "FIRE"]
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_allclose(outputs[0], trained.policy.action_probabilities(obs), atol=1e-6)
    capsys.readouterr()
    (tmp_path / "garbage").write_bytes(b"garbage")
    assert main(["export-onnx", str(tmp_path / "garbage"), str(tmp_path / "x.onnx")]) == 2
    assert "sb3-mirl export-onnx: " in capsys.readouterr().err and not (tmp_path / "x.onnx").exists()


def test_onnx_without_its_packages_names_the_extra(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"sb3-mirl\[onnx\]"):
        export_onnx(trained, tmp_path / "model.onnx")


def test_onnx_keys_that_are_outputs_are_refused(tmp_path):
    env = ConstantReward(observation_space=spaces.Dict({"action": spaces.Discrete(2)}))
    with pytest.raises(ValueError, match=r"must not have the names of outputs.*\['action'\]"):
        export_onnx(MIRL("MultiInputPolicy", env, buffer_size=10), tmp_path / "model.onnx")
