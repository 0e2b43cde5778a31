"""ρ and β of all runs move as MIRL's callbacks move them."""

import pytest
import torch as th
from joint_runs import make_models

from sb3_mirl import MIRL, BetaUpdateCallback, PriorUpdateCallback
from sb3_mirl.joint.networks import StackedNetworks
from sb3_mirl.joint.regularization import Regularization

SCHEDULES = [
    {"beta_schedule": "normalized", "beta_lr": 0.3, "beta_scale": 7.0},
    {"beta_schedule": "normalized", "beta_lr": 0.3, "beta_max": 0.05},
    {"beta_schedule": "adaptive", "beta_lr": 0.1},
    {"beta_schedule": "linear", "beta_lr": 0.2, "beta_max": 0.5},
    {"beta_schedule": "constant", "beta_init": 3.0},
]
#: β of two actions is multiplied by log 2 / log 5
DECOUPLED = [{**schedule, "reference_n_actions": 5} for schedule in SCHEDULES]


def make(schedules=SCHEDULES):
    runs = [(MIRL, {"seed": seed, "prior_lr": 0.1, **schedule}) for seed, schedule in enumerate(schedules)]
    return make_models(runs, lambda: "CartPole-v1", "MlpPolicy")


@pytest.mark.parametrize("schedules", [SCHEDULES, SCHEDULES[:1] * 2, SCHEDULES[3:], DECOUPLED])
def test_beta_follows_each_schedule(schedules):
    models, others = make(schedules), make(schedules)
    networks = StackedNetworks(models)
    regularization = Regularization(networks, [[PriorUpdateCallback(), BetaUpdateCallback()] for _ in models])
    callbacks = [BetaUpdateCallback() for _ in others]
    for callback, other in zip(callbacks, others, strict=True):
        callback.init_callback(other)
    for number in range(1, 5):
        errors = th.arange(1.0, 1 + len(models)) / number
        regularization.after_step(None)
        regularization.after_gradient_step(errors)
        for row, callback in enumerate(callbacks):
            callback.on_step()
            callback.on_gradient_step(errors[row])
            assert models[row].beta == pytest.approx(others[row].beta, rel=1e-14)
    changed = [
        model.beta != model.beta_factor * schedule.get("beta_init", 0.01)
        for model, schedule in zip(models, schedules, strict=True)
    ]
    assert changed == [schedule["beta_schedule"] != "constant" for schedule in schedules]


def test_runs_without_default_callbacks_are_left_alone():
    models = make()
    networks = StackedNetworks(models)
    regularization = Regularization(networks, [[PriorUpdateCallback()], [BetaUpdateCallback()], [], [], []])
    assert networks.prior_step_sizes.tolist() == [0.1, 0.0, 0.0, 0.0, 0.0]
    regularization.after_step(th.full_like(networks.prior, 0.5))
    regularization.after_gradient_step(th.ones(5))
    assert [model.beta for model in models][2:] == [0.01, 0.01, 3.0] and models[0].beta == 0.01 != models[1].beta


def test_what_callbacks_see_of_the_policy():
    models = make()
    regularization = Regularization(StackedNetworks(models), [[] for _ in models])
    regularization.show_probabilities(th.rand(5, 1, 2), {1, 3})
    assert models[0].rollout_action_probabilities is None and models[3].rollout_action_probabilities.shape == (1, 2)
    regularization.show_probabilities(None, {1, 3})
    assert models[3].rollout_action_probabilities is None
