"""``compile_update=True`` learns the same weights as the plain update, but for rounding."""

import copy
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from probes import Image, Mixed
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_mirl import MIRL, SQLm

FAST = {"learning_rate": 1e-3, "learning_starts": 50, "train_freq": 4, "gradient_steps": 4, "target_update_interval": 40}
FAST |= {"buffer_size": 500, "seed": 1, "device": "cpu", "beta_lr": 1e-2, "prior_lr": 1e-3}


def weights(model):
    return th.nn.utils.parameters_to_vector(model.q_net.parameters()).detach()


def pair(algorithm, policy, env, **settings):
    """The same model twice after the warm-up, the second one with the compiled update."""
    settings = {**FAST, **settings}
    steps = settings["learning_starts"] - 2
    plain, compiled = (algorithm(policy, env(), compile_update=c, **settings).learn(steps) for c in (False, True))
    compiled.replay_buffer = plain.replay_buffer
    assert th.equal(weights(plain), weights(compiled))
    return [plain, compiled]


def train(models, n_steps):
    """On the same batches: acting would carry a rounding on into other episodes."""
    for model in models:
        np.random.seed(0)
        model.train(n_steps, 32)


@pytest.mark.parametrize("settings", [{}, {"loss": "huber", "n_steps": 3, "max_grad_norm": 0.1}], ids=["mse", "huber"])
def test_weights_after_hundreds_of_steps(settings):
    models = pair(MIRL, "MlpPolicy", lambda: "CartPole-v1", **settings)
    plain, compiled = models
    first = weights(plain).clone()
    train(models, 300)
    assert (weights(plain) - first).abs().max() > 0.05
    assert (weights(plain) - weights(compiled)).norm() < 0.01 * (weights(plain) - first).norm()
    logged = [model.logger.name_to_value for model in models]
    for key in ("train/loss", "train/kl", "train/beta"):
        assert logged[1][key] == pytest.approx(logged[0][key], rel=1e-2, abs=1e-6)


def test_images_and_dictionaries():
    for policy, env in (("CnnPolicy", Image), ("MultiInputPolicy", Mixed)):
        models = pair(SQLm, policy, env)
        first = weights(models[0]).clone()
        train(models, 20)
        moved = (weights(models[0]) - first).norm()
        assert moved > 0.5
        assert (weights(models[0]) - weights(models[1])).norm() < 0.01 * moved


def test_learning_with_it_moves_beta():
    model = MIRL("MlpPolicy", "CartPole-v1", compile_update=True, **FAST).learn(100)
    assert model._n_updates > 0 and model.beta != 0.01


def test_saved_with_one_it_goes_on_with_the_other(tmp_path):
    plain, compiled = pair(MIRL, "MlpPolicy", lambda: "CartPole-v1")
    train([plain, compiled], 30)
    for model in (plain, compiled):
        model.save(tmp_path / str(model.compile_update))
        model.save_replay_buffer(tmp_path / f"{model.compile_update}_buffer")
    ends = {}
    for saved in (False, True):
        for goes_on in (False, True):
            model = MIRL.load(tmp_path / str(saved), env=gym.make("CartPole-v1"), compile_update=goes_on)
            model.load_replay_buffer(tmp_path / f"{saved}_buffer")
            model.set_logger(configure())
            train([model], 50)
            ends[saved, goes_on] = weights(model)
    for end in ends.values():
        th.testing.assert_close(end, ends[False, False], rtol=0, atol=2e-4)
    copied = copy.deepcopy(compiled)
    assert copied.compile_update and copied._compiled_update is None
    assert th.equal(weights(copied), weights(compiled))


class Normalised(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.norm = th.nn.BatchNorm1d(4)

    def forward(self, observations):
        return self.norm(observations)


@pytest.mark.parametrize(
    ("policy_kwargs", "message"),
    [
        ({"optimizer_class": th.optim.RMSprop}, "compile_update=True needs Adam with one group of parameters, got RMSprop"),
        (
            {"optimizer_kwargs": {"weight_decay": 0.1}},
            "needs Adam without weight_decay, got optimizer_kwargs weight_decay=0.1",
        ),
        ({"features_extractor_class": Normalised}, "needs a network without buffers"),
    ],
)
def test_what_it_cannot_compile_is_said_at_once(policy_kwargs, message):
    with pytest.raises(ValueError, match=message):
        MIRL("MlpPolicy", "CartPole-v1", compile_update=True, policy_kwargs=policy_kwargs)


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler"):
        MIRL("MlpPolicy", "CartPole-v1", compile_update=True)


def test_it_says_that_it_compiles(capsys):
    model = MIRL("MlpPolicy", "CartPole-v1", compile_update=True, verbose=1, **FAST)
    model._compiled()
    assert "the first one may take a minute" in capsys.readouterr().out
    assert model._compiled() is model._compiled()
