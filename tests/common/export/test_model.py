"""What is exported of a model."""

import inspect

from stable_baselines3 import DQN

from sb3_mirl import MIRL
from sb3_mirl.common.export.model import TRAINING, argument_names, attribute_name


class Patient(MIRL):
    def __init__(self, *args, patience=3, **kwargs):
        super().__init__(*args, **kwargs)
        self.patience = patience


def test_all_constructor_arguments_are_exported_except_those_of_the_machine():
    dqn_arguments = inspect.signature(DQN.__init__).parameters.keys() - {
        "self",
        "env",
        "device",
        "tensorboard_log",
        "_init_setup_model",
    }
    assert set(argument_names(DQN)) == dqn_arguments
    assert {"prior_lr", "beta_schedule", *dqn_arguments} < set(argument_names(MIRL))
    assert sorted(argument_names(Patient)) == sorted(["patience", *argument_names(MIRL)])


def test_every_argument_and_counter_is_an_attribute(trained):
    assert all(hasattr(trained, attribute_name(name)) for name in argument_names(MIRL))
    assert all(isinstance(getattr(trained, attribute), kind) for attribute, kind in TRAINING.values())
