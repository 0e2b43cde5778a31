"""The optimiser's state in exported files."""

import pytest
import torch as th
from exports import FAST, check_equal
from probes import ConstantReward
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_mirl import MIRL


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
def test_the_state_of_every_optimiser_is_restored(settings, tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **{**FAST, **settings})
    model.learn(20 if settings.get("compile_update") else 60)
    check_equal(MIRL.load_exported(model.export(tmp_path / "model")), model)
