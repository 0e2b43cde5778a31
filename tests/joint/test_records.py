"""What joint training logs of gradient steps is what ``train()`` logs."""

import pytest
import torch as th
from joint_runs import DIFFERENT, make_models

from sb3_mirl.joint.networks import Gradients, StackedNetworks
from sb3_mirl.joint.records import TrainingRecords
from sb3_mirl.mirl.operators import kl_divergence, soft_policy


def make():
    models = make_models([DIFFERENT[0], DIFFERENT[1], DIFFERENT[2]], lambda: "CartPole-v1", "MlpPolicy")
    for model in models:
        model._setup_learn(100)
        model._n_updates = 2
    models[0].policy.prior.copy_(th.tensor([0.2, 0.8]))
    return models, StackedNetworks(models)


def results(losses):
    return Gradients(th.tensor(losses), th.zeros(3), th.arange(12.0).view(3, 2, 2), {})


def test_losses_beta_and_penalty():
    models, networks = make()
    records = TrainingRecords(models, networks)
    records.write(0)  # nothing yet
    assert "train/loss" not in models[0].logger.name_to_value
    for losses in ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]):
        records.add(results(losses))
    records.close()
    prior, beta = models[0].policy.prior.clone(), models[0].policy.beta.clone()
    networks.prior.fill_(0.5)  # ρ moves on before somebody reads
    assert list(records.check([0, 1, 2])) == []
    for row in range(3):
        records.write(row)
    expected = kl_divergence(soft_policy(results([0.0] * 3).q_values[0], prior, beta), prior).mean()
    logged = models[0].logger.name_to_value
    assert logged["train/loss"] == 2.0 and logged["train/n_updates"] == 2
    assert logged["train/kl"] == pytest.approx(expected.item()) and logged["train/beta"] == beta.item()
    assert models[2].logger.name_to_value.keys() == {"train/loss", "train/n_updates"}


def test_runs_whose_loss_was_not_finite():
    models, networks = make()
    records = TrainingRecords(models, networks)
    records.add(results([1.0, float("inf"), 1.0]))
    records.close()
    ((row, error),) = records.check([0, 1, 2])
    assert row == 1 and "The mse loss was inf at gradient step 2" in str(error) and "beta = 0.01" in str(error)
    assert list(records.check([0, 2])) == []
