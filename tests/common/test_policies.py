"""Policies of DQN: fused Adam, training and evaluation mode."""

from functools import partial

import numpy as np
import pytest
import torch as th
from masked import MaskedProbe
from models import FAST
from probes import ConstantReward
from stable_baselines3 import DQN
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn import policies
from stable_baselines3.dqn.policies import QNetwork
from torch import nn

from sb3_mirl import MIRL, BaseDQN, train_jointly
from sb3_mirl.common.policies import DQNPolicy


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


@pytest.mark.parametrize(
    ("optimizer", "fused"),
    [
        (lambda parameters, lr: th.optim.Adam(parameters, lr=lr), None),
        (partial(th.optim.Adam, fused=False), False),
        (partial(th.optim.Adam, foreach=True), None),
    ],
)
def test_a_function_that_makes_an_optimiser_decides_whether_it_is_fused(optimizer, fused):
    model = BaseDQN("MlpPolicy", ConstantReward(), **{**FAST, "policy_kwargs": {"optimizer_class": optimizer}}).learn(60)
    assert model._n_updates and model.policy.optimizer.param_groups[0]["fused"] is fused


class Worst(QNetwork):
    """A network that lets the agent do the worst."""

    def _predict(self, observation, deterministic=True):
        return self(observation).argmin(dim=1)


class OfWorst(DQNPolicy):
    def make_q_net(self):
        return Worst(**self._update_features_extractor(self.net_args, features_extractor=None)).to(self.device)


def test_a_network_may_choose_the_actions_as_with_sb3(tmp_path):
    class OfSB3(policies.DQNPolicy):
        make_q_net = OfWorst.make_q_net

    ours, theirs = BaseDQN(OfWorst, ConstantReward(), **FAST), DQN(OfSB3, ConstantReward(), **FAST)
    observations = np.stack([ours.observation_space.sample() for _ in range(50)])
    actions, expected = (model.predict(observations, deterministic=True)[0] for model in (ours, theirs))
    assert (actions == expected).all()
    with th.no_grad():
        q_values = ours.q_net(th.as_tensor(observations))
    assert (q_values.argmin(dim=1).numpy() == actions).all() and (q_values.argmax(dim=1).numpy() != actions).any()
    refused = "Worst has a _predict of its own"
    with pytest.raises(ValueError, match=f"Joint training takes .*{refused}"):
        train_jointly([ours], 100)
    with pytest.raises(ValueError, match=f"ONNX export .*{refused}"):
        ours.policy.onnx_module()
    with pytest.raises(ValueError, match=f"compile_update=True .*{refused}"):
        ours.policy.compile_acting()
    masked = BaseDQN(OfWorst, MaskedProbe(), **FAST)
    with pytest.raises(ValueError, match=f"Acting with action masks .*{refused}"):
        masked.predict(MaskedProbe().reset()[0], action_masks=MaskedProbe().action_masks())
