"""The optimiser's state in exported files."""

import pytest
import torch as th
from exports import FAST, check_equal, rewrite, set_at
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


def test_settings_that_changed_in_training_are_restored(tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **FAST)
    schedule = th.optim.lr_scheduler.StepLR(model.policy.optimizer, 1, gamma=0.5)  # adds initial_lr
    model.policy.optimizer.param_groups[0]["weight_decay"] = 0.01
    model.learn(40)
    schedule.step()
    check_equal(MIRL.load_exported(model.export(tmp_path / "model")), model)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("weight_decay", True),
        ("weight_decay", "0.1"),
        ("weight_decay", {"number": "nan"}),
        ("initial_lr", -1.0),
        ("amsgrad", True),
    ],
)
def test_settings_of_another_type_are_refused(tmp_path, setting, value):
    path = MIRL("MlpPolicy", ConstantReward(), **FAST).export(tmp_path / "model")
    rewrite(path, set_at("optimizer", "param_groups", 0, setting, value=value))
    with pytest.raises(ValueError, match=f"optimizer: {setting} must be"):
        MIRL.load_exported(path)
