"""What a policy, its optimiser and the learning rate remember beside their tensors is restored."""

import itertools

import numpy as np
import pytest
import torch as th
from resuming import SETTINGS
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_mirl import MIRL, CheckpointCallback
from sb3_mirl.common.resume.model_state import capture_model, restore_model


class Remembers(BaseFeaturesExtractor):
    """A running mean that is no part of its ``state_dict``, a counter, and noise from a generator."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.layer = th.nn.Linear(4, 4)
        self.register_buffer("mean", th.zeros(4), persistent=False)
        self.count, self.generator = 0, np.random.default_rng(0)

    def forward(self, observations):
        if self.training:
            self.count += 1
            self.mean = 0.9 * self.mean + 0.1 * observations.mean(0)
        return self.layer(observations - self.mean) + float(self.generator.normal())


class Skips(th.optim.Adam):
    """Leaves out each third step."""

    def __init__(self, parameters, **kwargs):
        super().__init__(parameters, **kwargs)
        self.count = 0

    def step(self, closure=None):
        self.count += 1
        return super().step(closure) if self.count % 3 else None


class Falls:
    """A learning rate that counts its calls."""

    def __init__(self):
        self.count = 0

    def __call__(self, progress):
        self.count += 1
        return 1e-3 / self.count


def learned(policy_kwargs, learning_rate, folder):
    settings = {**SETTINGS, "learning_rate": learning_rate, "policy_kwargs": {"net_arch": [8], **policy_kwargs}}
    model = MIRL("MlpPolicy", "CartPole-v1", **settings)
    for parameter in model.q_net.q_net[0].parameters():
        parameter.requires_grad_(False)
    return model.learn(80, CheckpointCallback(40, folder))


def test_policy_optimiser_and_learning_rate_remember_the_same(tmp_path):
    policy_kwargs = {"features_extractor_class": Remembers, "optimizer_class": Skips}
    model = learned(policy_kwargs, Falls(), tmp_path)
    resumed = MIRL.resume(tmp_path, "CartPole-v1")
    for network in ("q_net", "q_net_target"):
        one, two = (getattr(run, network).features_extractor for run in (model, resumed))
        assert one.count == two.count and th.equal(one.mean, two.mean)
        assert one.generator.random() == two.generator.random()
    assert "mean" in vars(resumed.q_net.features_extractor)["_buffers"]
    assert resumed.policy.optimizer.count == model.policy.optimizer.count > 0
    assert resumed.learning_rate.count == model.learning_rate.count > 0
    for (name, one), (_, two) in zip(model.policy.named_parameters(), resumed.policy.named_parameters(), strict=True):
        assert one.requires_grad == two.requires_grad == (not name.startswith("q_net.q_net.0.")), name


def test_learning_rate_that_is_given_to_resume_counts(tmp_path):
    learned({}, 1e-3, tmp_path)
    resumed = MIRL.resume(tmp_path, "CartPole-v1", learning_rate=0.5)
    assert resumed.learning_rate == 0.5 and resumed.lr_schedule(1.0) == 0.5


class Numbered(Remembers):
    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.numbers = itertools.count()


def test_what_a_policy_remembers_and_cannot_be_read_is_named(tmp_path):
    learned({"features_extractor_class": Numbered}, 1e-3, tmp_path)
    with pytest.warns(UserWarning, match=r"The policy is not restored as a whole: .*extractor\.numbers \(itertools\.count\)"):
        resumed = MIRL.resume(tmp_path, "CartPole-v1")
    assert resumed.q_net.features_extractor.count > 0


def test_compiled_functions_are_made_anew():
    def model():
        return MIRL("MlpPolicy", "CartPole-v1", compile_update=True, **{**SETTINGS, "learning_starts": 20})

    state = capture_model(model().learn(30))
    restore_model(model(), state)
    assert state.missing == []
