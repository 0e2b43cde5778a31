"""Stacked networks act and compute gradients as each model's own network does."""

import pytest
import torch as th
from joint_runs import DIFFERENT, SAME, make_models

from sb3_mirl.joint.networks import StackedNetworks

ROWS = [DIFFERENT[0], DIFFERENT[1], DIFFERENT[3], DIFFERENT[2]]  # MIRL's first


def make(specifications=ROWS, **settings):
    models = make_models(specifications, lambda: "CartPole-v1", "MlpPolicy", **settings)
    for model in models[: len(specifications) - 1]:
        model.policy.prior.copy_(th.tensor([0.3, 0.7]))
        model.policy.beta.fill_(2.0)
    return models


def batch(n_runs):
    generator = th.Generator().manual_seed(0)
    draw = lambda *shape: th.randn(n_runs, 16, *shape, generator=generator)  # noqa: E731
    actions = th.randint(0, 2, (n_runs, 16, 1), generator=generator)
    return draw(4), draw(4), actions, draw(1), (draw(1) > 0).float()


@pytest.mark.parametrize("n_step", [False, True])
def test_gradients_are_those_of_each_model(n_step):
    models, expected = make(max_grad_norm=0.5), make(max_grad_norm=0.5)
    observations, next_observations, *transitions = batch(4)
    discounts = th.rand(4, 16, 1) if n_step else None
    networks = StackedNetworks(models)
    results = networks.compute_gradients({"": observations}, {"": next_observations}, *transitions, discounts=discounts)
    for row, model in enumerate(expected):
        actions, rewards, dones = (tensor[row] for tensor in transitions)
        discount = model.gamma if discounts is None else discounts[row]
        coefficients = (model.policy.reference_prior, model.policy.beta) if row < 3 else ()
        q_values = model.q_net(observations[row])
        loss, error = model.batch_loss(
            q_values, model.q_net_target(next_observations[row]), actions, rewards, dones, discount, *coefficients, loss="mse"
        )
        loss.backward()
        th.nn.utils.clip_grad_norm_(model.policy.parameters(), model.max_grad_norm)
        th.testing.assert_close(results.losses[row], loss)
        th.testing.assert_close(results.squared_td_errors[row], error)
        th.testing.assert_close(results.q_values[row], q_values)
        for name, parameter in model.q_net.named_parameters():
            th.testing.assert_close(results.gradients[name][row], parameter.grad)


def test_actions_policies_and_priors_are_those_of_each_model():
    models, expected = make(), make()
    networks = StackedNetworks(models)
    networks.prior_step_sizes.copy_(th.tensor([0.1, 0.0, 0.2]))
    observations = th.randn(4, 3, 4)
    actions, probabilities, priors = networks.act({"": observations})
    for row, model in enumerate(expected):
        own, _ = model.policy.predict(observations[row].numpy(), deterministic=True)
        assert actions[row].tolist() == own.tolist()
        if row < 3:
            th.testing.assert_close(probabilities[row], model.policy.action_probabilities(observations[row]).double())
    step = 1 - (1 - 0.1) ** 3
    th.testing.assert_close(priors[0], (1 - step) * models[0].policy.prior + step * probabilities[0].mean(0))
    assert th.equal(priors[1], models[1].policy.prior)


def test_models_are_views_of_the_stacks_until_they_are_released():
    models = make()
    before = [model.policy.state_dict() for model in models]
    before = [{name: value.clone() for name, value in state.items()} for state in before]
    networks = StackedNetworks(models)
    for stack in (*networks.parameters.values(), networks.prior, networks.beta):
        stack.add_(1.0)
    networks.release(1)
    for stack in (*networks.parameters.values(), networks.prior, networks.beta):
        stack.add_(1.0)
    for row, model in enumerate(models):
        for name, value in model.policy.state_dict().items():
            added = 0 if "target" in name else (1.0 if row == 1 else 2.0)
            if row == 3 and name in ("prior", "beta"):
                continue
            th.testing.assert_close(value, before[row][name] + added)


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_target_networks(tau):
    models, expected = make(SAME), make(SAME)
    networks = StackedNetworks(models)
    for stack in networks.parameters.values():
        stack.add_(1.0)
    networks.update_targets([0, 2], tau)
    for row, (model, other) in enumerate(zip(models, expected, strict=True)):
        for target, old in zip(model.q_net_target.parameters(), other.q_net_target.parameters(), strict=True):
            th.testing.assert_close(target, old + (tau if row in (0, 2) else 0.0))
    networks.update_targets([0, 1, 2], 1.0)
    for model in models:
        for target, parameter in zip(model.q_net_target.parameters(), model.q_net.parameters(), strict=True):
            assert th.equal(target, parameter)


def test_frozen_and_unused_parameters_get_no_gradient():
    models = make(SAME)
    for model in models:
        next(iter(model.q_net.parameters())).requires_grad_(False)
        model.q_net.register_parameter("unused", th.nn.Parameter(th.zeros(2)))
        model.q_net_target.register_parameter("unused", th.nn.Parameter(th.zeros(2)))
    observations, next_observations, *transitions = batch(3)
    results = StackedNetworks(models).compute_gradients(
        {"": observations}, {"": next_observations}, *transitions, discounts=None
    )
    assert set(results.gradients) == {"q_net.0.bias", "q_net.2.weight", "q_net.2.bias"}
