"""MIRL and its variants with action masks: they converge to exact soft value iteration with the same masks."""

import numpy as np
import pytest
import torch as th
from masked import MaskedProbe
from random_mdp import kl, log_mean_exp

from sb3_mirl import DQNMSE, MIRL, SQL

GAMMA, BETA = 0.8, 2.0
PRIOR = np.array([0.0, 0.1, 0.3, 0.6])


def reference_prior(algorithm, masks):
    """ρ(a|s) ∝ ρ(a) · mask(s), uniform over the valid actions where ρ has no mass there; [n_states, n_actions]."""
    weights = masks * (PRIOR if algorithm is MIRL else np.full(4, 0.25))
    weights = np.where(weights.sum(axis=1, keepdims=True) > 0, weights, masks)
    return weights / weights.sum(axis=1, keepdims=True)


def exact_q_values(algorithm, env):
    """By value iteration in NumPy; state 0 ends an episode, and its row is not used."""
    states, actions = np.indices(env.masks.shape)
    following = env.next_state(states, actions)
    prior, q_values = reference_prior(algorithm, env.masks), np.zeros(env.masks.shape)
    for _ in range(300):
        valid = np.where(env.masks, q_values, -np.inf)
        values = valid.max(axis=1) if algorithm is DQNMSE else log_mean_exp(np.where(prior > 0, q_values, -1e9), prior, BETA)
        q_values = env.rewards + GAMMA * np.where(following == 0, 0.0, values[following])
    return q_values


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm", [MIRL, SQL, DQNMSE])
def test_one_hot_linear_network_converges_to_exact_soft_value_iteration(algorithm, seed):
    env = MaskedProbe(seed=seed)
    ours = {} if algorithm is DQNMSE else {"beta_schedule": "constant", "beta_init": BETA, "loss": "mse"}
    if algorithm is MIRL:
        ours |= {"prior_init": PRIOR, "prior_lr": 0.0}
    linear = {"net_arch": [], "optimizer_class": th.optim.SGD}
    model = algorithm(
        "MlpPolicy", env, learning_rate=1.0, policy_kwargs=linear, gamma=GAMMA, learning_starts=150, train_freq=1,
        gradient_steps=1, batch_size=64, target_update_interval=20, exploration_initial_eps=1.0, exploration_final_eps=1.0,
        max_grad_norm=np.inf, seed=seed, **ours,
    )  # fmt: skip
    model.learn(950)
    with th.no_grad():
        found = model.q_net(th.eye(5)).numpy()
    # An action without mass is tried only where it is the only valid one
    tried = reference_prior(algorithm, env.masks) > 0
    tried[0] = False
    np.testing.assert_allclose(found[tried], exact_q_values(algorithm, env)[tried], atol=2e-3)
    if algorithm is DQNMSE:
        return
    obs = np.eye(5, dtype=np.float32)
    policy = model.policy.action_probabilities(obs, env.masks).numpy()
    assert (policy[~env.masks] == 0).all()
    reference = reference_prior(algorithm, env.masks)
    np.testing.assert_allclose(model.policy.prior_probabilities(obs, env.masks), reference, rtol=1e-12)
    exact = reference * np.exp(BETA * exact_q_values(algorithm, env))
    exact /= exact.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(policy[1:], exact[1:], atol=5e-3)
    assert kl(policy, np.where(reference > 0, reference, 1.0))[1:].max() > 0.05


def test_prior_follows_the_masked_policy():
    visited, masks = [], MaskedProbe().masks

    def record(local, _):
        model = local["self"]
        if model.rollout_action_probabilities is not None:
            visited.append((model.rollout_action_probabilities.numpy()[0], int(model._last_obs.argmax())))
        return True

    model = MIRL("MlpPolicy", MaskedProbe(), prior_lr=0.05, learning_starts=20, buffer_size=200, seed=0)
    model.learn(150, callback=record)
    assert len(visited) == model.num_timesteps - 20
    prior = np.full(4, 0.25)
    for policy, state in visited:
        assert (policy[~masks[state]] == 0).all()
        prior = 0.95 * prior + 0.05 * policy
    np.testing.assert_allclose(model.prior, prior, rtol=1e-9)


def test_drawing_from_the_policy_takes_valid_actions_only():
    model = MIRL("MlpPolicy", MaskedProbe(), buffer_size=10, seed=0)
    masks = np.tile(MaskedProbe().masks, (200, 1))
    actions = model.policy.sample_policy(np.tile(np.eye(5, dtype=np.float32), (200, 1)), masks)
    assert masks[np.arange(1000), actions].all()
    for state, mask in enumerate(MaskedProbe().masks):
        assert set(actions[state::5]) == set(np.flatnonzero(mask))


@pytest.mark.parametrize("method", ["prior_probabilities", "action_probabilities", "sample_policy"])
def test_bad_masks_are_refused(method):
    policy = MIRL("MlpPolicy", MaskedProbe(), buffer_size=10).policy
    obs = np.eye(5, dtype=np.float32)
    with pytest.raises(ValueError, match=r"action_masks .*of shape \(5, 4\), got shape \(5, 3\)"):
        getattr(policy, method)(obs, np.ones((5, 3), bool))
    with pytest.raises(ValueError, match="at least one valid action"):
        getattr(policy, method)(obs, np.zeros((5, 4), bool))


def test_subclass_that_acts_in_its_own_way_still_has_its_distributions():
    class Own(MIRL):
        def predict(self, observation, state=None, episode_start=None, deterministic=False, action_masks=None):
            return np.asarray(action_masks).argmax(axis=1), state

    model = Own("MlpPolicy", MaskedProbe(), learning_starts=20, buffer_size=200, train_freq=1, seed=0)
    model.learn(60, log_interval=999)
    assert model.rollout_action_probabilities.shape == model.rollout_prior.shape == (1, 4)
    assert "train/kl" in model.logger.name_to_value
