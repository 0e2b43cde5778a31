"""Tables and networks ρ(·|x)."""

import copy

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_mirl.mirl.operators import kl_divergence, update_prior
from sb3_mirl.mirl.state_priors import MAX_ELEMENTS, Conditional, ConditionalNetwork
from sb3_mirl.mirl.views import View

ROOMS = spaces.Discrete(3)
VECTOR = spaces.Box(-1, 1, (2,), np.float32)


def policies(*shape):
    return th.as_tensor(np.random.default_rng(0).dirichlet(np.ones(shape[-1]), shape[:-1]))


def table(n_actions=4, n_x=3):
    return Conditional(View("x", "all", spaces.Discrete(n_x)), n_actions)


def test_a_table_makes_the_step_of_algorithm_1_for_each_x():
    prior, policy = table(), policies(5, 4)
    x = th.tensor([2, 0, 2, 2, 0])
    prior.move(x, policy, 0.1)
    uniform = np.full(4, 0.25)
    expected = [
        0.9**2 * uniform + (1 - 0.9**2) * policy[[1, 4]].numpy().mean(axis=0),
        uniform,
        0.9**3 * uniform + (1 - 0.9**3) * policy[[0, 2, 3]].numpy().mean(axis=0),
    ]
    np.testing.assert_allclose(prior.table, expected, rtol=1e-14)
    np.testing.assert_array_equal(prior(x), prior.table[x])


def test_a_table_with_one_row_is_the_marginal():
    prior, policy = table(n_x=1), policies(20, 2, 4)
    expected = th.full((4,), 0.25, dtype=th.float64)
    for step in policy:
        prior.move(th.zeros(2, dtype=th.int64), step, 0.03)
        expected = update_prior(expected, step, 0.03)
    assert th.equal(prior.table[0], expected)


def test_a_network_begins_at_the_uniform_distribution_and_approaches_the_policy():
    prior = ConditionalNetwork(View("x", "all", VECTOR), 3, seed=0, net_arch=[16], learning_rate=1e-2)
    obs = th.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    policy = policies(3, 3)
    assert (prior(obs) == 1 / 3).all() and prior(obs).dtype == th.float64
    before = kl_divergence(policy, prior(obs)).mean()
    for _ in range(300):
        prior.fit(obs, policy)
    assert before > 0.05 and kl_divergence(policy, prior(obs)).mean() < 1e-3
    assert all(parameter.grad is None for parameter in prior.parameters())


def test_a_step_of_the_network_is_that_of_torchs_adam():
    prior = ConditionalNetwork(View("x", "all", VECTOR), 3, seed=0, net_arch=[8])
    network = copy.deepcopy(prior.network)
    optimizer = th.optim.Adam(network.parameters(), 1e-3)
    for _ in range(5):
        obs, policy = th.rand(6, 2), policies(6, 3)
        prior.fit(obs, policy)
        optimizer.zero_grad()
        kl_divergence(policy, network(obs).double().softmax(dim=1)).mean().backward()
        optimizer.step()
    for ours, theirs in zip(prior.network.parameters(), network.parameters(), strict=True):
        th.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_the_first_weights_follow_the_seed_and_draw_nothing_else():
    view = View("x", "all", VECTOR)
    th.manual_seed(5)
    one, other = ConditionalNetwork(view, 3, seed=1), ConditionalNetwork(view, 3, seed=2)
    assert not th.equal(one.network[0].weight, other.network[0].weight)
    assert th.equal(one.network[0].weight, ConditionalNetwork(view, 3, seed=1).network[0].weight)
    drawn = th.rand(1)
    th.manual_seed(5)
    assert th.equal(drawn, th.rand(1))


def test_tables_stay_float64():
    assert table().float().table.dtype == table().to(th.float32).table.dtype == th.float64


def test_first_distributions():
    prior = table(n_actions=2)
    prior.start_from({"table": [0.25, 0.75]})
    assert prior.table.tolist() == [[0.25, 0.75]] * 3
    prior.start_from({"table": [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]})
    assert prior.table.tolist() == [[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]]
    view = View("x", "all", VECTOR)
    source, target = ConditionalNetwork(view, 3, seed=1, net_arch=[4]), ConditionalNetwork(view, 3, seed=2, net_arch=[4])
    source.fit(th.rand(6, 2), policies(6, 3))
    target.start_from({"network": {name: value.numpy() for name, value in source.network.state_dict().items()}})
    assert th.equal(target(th.ones(1, 2)), source(th.ones(1, 2)))


@pytest.mark.parametrize("given", [[0.5, 0.6], [[0.5, 0.5]] * 2, [1.5, -0.5], [np.nan, 1.0], [0.5, 0.25, 0.25]])
def test_what_is_no_table_of_distributions_is_refused(given):
    with pytest.raises(ValueError, match=r"prior_init: table must have shape \(3, 2\), non-negative .*rows sum to 1, got"):
        table(n_actions=2).start_from({"table": given})


def test_weights_of_another_network_are_refused():
    view = View("x", "all", VECTOR)
    other = ConditionalNetwork(view, 3, net_arch=[5]).network.state_dict()
    prior = ConditionalNetwork(view, 3, net_arch=[4])
    for given in ({name: value.numpy() for name, value in other.items()}, None, [1.0]):
        with pytest.raises(ValueError, match="prior_init: network must hold arrays of the shapes"):
            prior.start_from({"network": given})
    own = {name: np.full(value.shape, np.nan) for name, value in prior.network.state_dict().items()}
    with pytest.raises(ValueError, match="network must hold finite numbers"):
        prior.start_from({"network": own})


def test_a_table_of_a_file_is_checked():
    prior = table()
    prior.table[1] = 0.5
    with pytest.raises(ValueError, match=r"policy.state_prior.table must be non-negative numbers whose rows sum to 1"):
        prior.check_loaded_state()


def test_a_table_that_would_be_too_large_is_refused():
    with pytest.raises(ValueError, match=rf"x must give a table of at most {MAX_ELEMENTS} probabilities, got the shape"):
        table(n_x=MAX_ELEMENTS)
