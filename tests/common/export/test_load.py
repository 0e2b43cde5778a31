"""Exported models come back exactly, and files of any other content are refused."""

import json
import os
import resource
import subprocess
import sys
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from exports import FAST, check_equal, rewrite, set_at
from probes import ConstantReward, Image, Mixed, NamedActions
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from sb3_mirl import MIRL, SQL, SQLm
from sb3_mirl.common.buffers import FrameReplayBuffer
from sb3_mirl.mirl.priors import inspect_file


@pytest.mark.parametrize("algorithm", [MIRL, SQL, SQLm])
@pytest.mark.parametrize("policy, env", [("MlpPolicy", ConstantReward), ("CnnPolicy", Image), ("MultiInputPolicy", Mixed)])
def test_export_and_load_restore_every_policy_exactly(algorithm, policy, env, tmp_path):
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


def test_training_continues_as_after_save_and_load(tmp_path):
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


def test_files_of_older_versions_are_read(exported, trained):
    def older(document):
        for name in ("frozen", "learning_curve"):
            del document[name]
        for name in ("resolved_prior_lr", "resolved_beta_lr"):
            del document["training"][name]
        for name in MIRL.newer_arguments:
            del document["arguments"][name]

    loaded = MIRL.load_exported(rewrite(exported, older))
    check_equal(loaded, trained)
    assert loaded.learning_curve == {"episodes_per_point": 1, "points": [], "sum": 0.0, "count": 0}
    assert (loaded.prior_type, loaded.prior_kwargs, loaded.reference_n_actions) == ("marginal", None, None)
    assert inspect_file(exported)["learning_curve"] is None


def test_resolved_step_sizes_are_restored(tmp_path):
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


def test_an_untrained_model_with_infinite_beta_is_restored(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", beta_schedule="constant", beta_init=np.inf, prior_init=np.array([0.25, 0.75]))
    loaded = MIRL.load_exported(model.export(tmp_path / "model"))
    assert loaded.beta == np.inf and loaded.beta_init == np.inf
    np.testing.assert_array_equal(loaded.prior_init, [0.25, 0.75])
    check_equal(loaded, model)


@pytest.mark.filterwarnings("error")
def test_loading_a_model_with_n_step_returns_does_not_warn(tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), n_steps=3, gamma=0.9, **FAST)
    model.save(tmp_path / "model.zip")
    for loaded in (MIRL.load_exported(model.export(tmp_path / "model")), MIRL.load(tmp_path / "model.zip")):
        assert type(loaded.replay_buffer) is NStepReplayBuffer
        assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (3, 0.9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("given", [{"gamma": 0.5}, {"n_steps": 1}, {"n_steps": 5}])
@pytest.mark.parametrize("n_steps", [1, 3])
def test_replay_buffers_have_the_returns_of_new_arguments(n_steps, given, tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), n_steps=n_steps, gamma=0.9, **FAST)
    model.save(tmp_path / "model.zip")
    path = model.export(tmp_path / "model")
    for loaded in (MIRL.load(tmp_path / "model.zip", **given), MIRL.load_exported(path, **given)):
        wanted = {"n_steps": n_steps, "gamma": 0.9, **given}
        assert (loaded.n_steps, loaded.gamma) == (wanted["n_steps"], wanted["gamma"])
        if wanted["n_steps"] == 1:
            assert type(loaded.replay_buffer) is ReplayBuffer
        else:
            assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (wanted["n_steps"], wanted["gamma"])


def test_replay_buffer_classes_are_restored_by_name(tmp_path):
    model = MIRL("CnnPolicy", Image(), buffer_size=50, replay_buffer_class=FrameReplayBuffer)
    assert type(MIRL.load_exported(model.export(tmp_path / "model")).replay_buffer) is FrameReplayBuffer
    env = BitFlippingEnv(n_bits=3)
    kwargs = {"n_sampled_goal": 2, "goal_selection_strategy": "final"}
    her = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": kwargs, "learning_starts": 20, "buffer_size": 200}
    path = MIRL("MultiInputPolicy", env, **her).export(tmp_path / "her")
    assert MIRL.load_exported(path, env=env).replay_buffer.n_sampled_goal == 2
    assert MIRL.load_exported(path, replay_buffer_class=None, replay_buffer_kwargs={}).replay_buffer is not None


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


def test_classes_of_the_user_need_custom_objects(tmp_path):
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


def test_saved_and_exported_models_keep_the_action_names(trained, exported, tmp_path):
    assert MIRL("MlpPolicy", NamedActions()).action_names is None
    assert trained.action_names == ["NOOP", "FIRE"]
    trained.save(tmp_path / "model.zip")
    assert json.loads(zipfile.ZipFile(tmp_path / "model.zip").read("data"))["action_names"] == ["NOOP", "FIRE"]
    assert MIRL.load(tmp_path / "model.zip").action_names == ["NOOP", "FIRE"]
    assert MIRL.load_exported(exported).action_names == ["NOOP", "FIRE"]


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
        (set_at("training", "num_timesteps", value=-1), r"num_timesteps must be int in \[0, \d+\], got -1"),
        (set_at("training", "n_envs", value=0), "n_envs must be at least 1"),
        (set_at("training", "exploration_rate", value="1"), "exploration_rate must be float"),
        (set_at("action_names", value=[1]), "action_names must hold text"),
        (set_at("arguments", "gamma", value={"run": "x"}), "gamma: the file has {'run': 'x'}; an object must have one key"),
        (set_at("arguments", "beta_lr", value=7.0), "beta_lr must be .*a number in"),
        (
            set_at("training", "resolved_prior_lr", value=1.5),
            r"resolved_prior_lr must be .* or null, got 1.5",
        ),
        (
            set_at("arguments", "policy_kwargs", value={"dict": {"net_arch": [{"dict": {}}]}}),
            r"'net_arch'\] must be a list of",
        ),
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
def test_invalid_documents_are_refused(change, message, exported):
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
def test_invalid_tensors_are_refused(name, value, message, exported):
    def change(tensors):
        tensors.pop(name, None)
        tensors.update({} if value is None else {name: value})

    with pytest.raises(ValueError, match=message):
        MIRL.load_exported(rewrite(exported, tensors=change))


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
    "many environments": ({"n_envs": 10**9}, r"n_envs must be int in \[0, 65536\]"),
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
        "sb3_mirl.common.export.writer.Path",
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
