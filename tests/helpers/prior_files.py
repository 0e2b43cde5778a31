"""Model files with a known ρ."""

import torch as th
from probes import ConstantReward

from sb3_mirl import MIRL

SMALL = {"buffer_size": 100, "policy_kwargs": {"net_arch": [8]}}


NAMES = ["NOOP", "UP", "DOWN", "FIRE"]


RHO = [1 / 8, 1 / 2, 1 / 8, 1 / 4]


class Named(ConstantReward):
    def __init__(self, names):
        super().__init__(n_actions=len(names))
        self.names = names

    def get_action_meanings(self):
        return self.names


def model_with(prior, names=NAMES, steps=1000, cls=MIRL, prior_lr=0.01, **arguments):
    """A model as if it had learned ``prior`` in so many steps after 100 of warm-up."""
    model = cls(
        "MlpPolicy", ConstantReward(n_actions=len(prior)), learning_starts=100, prior_lr=prior_lr, **SMALL, **arguments
    )
    model.policy.prior.copy_(th.tensor(prior, dtype=th.float64))
    model.action_names, model.num_timesteps = names, 100 + steps
    return model


def zip_of(model, path):
    model.save(path)
    return path
