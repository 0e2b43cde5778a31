"""Policies of DQN: fused Adam, training and evaluation mode."""

import numpy as np
import torch as th
from models import FAST
from probes import ConstantReward
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_mirl import MIRL, BaseDQN


def test_fused_adam_is_the_default_and_survives_files(tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **FAST).learn(50)
    assert isinstance(model.policy.optimizer, th.optim.Adam)
    # A file written by an unfused optimiser
    for group in model.policy.optimizer.param_groups:
        group["fused"] = None
    model.save(tmp_path / "model.zip")
    loaded = MIRL.load(tmp_path / "model.zip", env=ConstantReward())
    assert all(group["fused"] for group in loaded.policy.optimizer.param_groups)
    loaded.learn(50)
    chosen = MIRL("MlpPolicy", ConstantReward(), policy_kwargs={"optimizer_kwargs": {"fused": False}}, buffer_size=10)
    assert chosen.policy.optimizer.param_groups[0]["fused"] is False


def test_parameters_that_fused_adam_does_not_take_are_trained():
    class Complex(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 4)
            self.weight = nn.Parameter(th.ones(4, dtype=th.complex64))

        def forward(self, observations):
            return (observations * self.weight).abs()

    kwargs = {"policy_kwargs": {"features_extractor_class": Complex, "net_arch": [8]}}
    model = MIRL("MlpPolicy", "CartPole-v1", **{**FAST, **kwargs}).learn(60)
    assert not th.equal(model.q_net.features_extractor.weight.detach(), th.ones(4, dtype=th.complex64))


def test_fused_adam_equals_plain_adam():
    plain = {**FAST["policy_kwargs"], "optimizer_kwargs": {"fused": False}}
    weights = []
    for policy_kwargs in (FAST["policy_kwargs"], plain):
        model = MIRL("MlpPolicy", "CartPole-v1", **{**FAST, "policy_kwargs": policy_kwargs}).learn(300)
        weights.append(model.policy.parameters_to_vector())
    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-6)


class FrozenPart(nn.Linear):
    """A layer that stays in evaluation mode, and remembers the modes that it was asked for."""

    def __init__(self, size):
        super().__init__(size, size)
        self.asked = []

    def train(self, mode=True):
        self.asked.append(mode)
        return super().train(False)


class WithFrozenPart(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.frozen, self.free = FrozenPart(4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    def forward(self, observations):
        return self.free(self.frozen(observations))


def test_modes_are_set_as_by_sb3_however_parts_of_the_network_were_changed():
    kwargs = {**FAST, "policy_kwargs": {"features_extractor_class": WithFrozenPart, "net_arch": [8]}}
    ours, theirs = BaseDQN("MlpPolicy", "CartPole-v1", **kwargs), DQN("MlpPolicy", "CartPole-v1", **kwargs)
    changes = [lambda part: None, lambda part: part.free[1].train(), lambda part: part.free.eval(), lambda part: part.train()]
    for change in changes:
        for mode in (True, False, False, True, True):
            modes = []
            for model in (ours, theirs):
                change(model.q_net.features_extractor)
                model.policy.set_training_mode(mode)
                modes.append({name: module.training for name, module in model.policy.named_modules()})
            assert modes[0] == modes[1]
    ours.predict(ours.observation_space.sample())
    asked = ours.q_net.features_extractor.frozen.asked
    before = len(asked)
    assert before
    # In evaluation mode already
    ours.predict(ours.observation_space.sample())
    assert len(asked) == before
