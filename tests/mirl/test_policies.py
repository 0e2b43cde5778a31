"""Policies of MIRL: ρ and β as buffers, acting, exploration."""

import numpy as np
import pytest
import torch as th
from models import FAST
from probes import ConstantReward, Mixed, TwoArms
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import MIRL, SQL, SQLm
from sb3_mirl.mirl.policies import MIRLPolicy

ALGORITHMS = [MIRL, SQL, SQLm]


def test_prior_and_beta_of_a_fresh_model():
    model = MIRL("MlpPolicy", TwoArms(n_actions=4), beta_init=0.5)
    assert model.prior.dtype == np.float64 and isinstance(model.beta, float)
    np.testing.assert_array_equal(model.prior, np.full(4, 0.25))
    assert model.beta == 0.5
    model.prior[:] = 0
    np.testing.assert_array_equal(model.prior, np.full(4, 0.25))


def test_action_probabilities_take_arrays_and_tensors():
    model = MIRL("MlpPolicy", "CartPole-v1", beta_schedule="constant", beta_init=2.0, prior_init=[0.3, 0.7])
    obs = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    probabilities = model.policy.action_probabilities(obs)
    assert probabilities.shape == (5, 2) and not probabilities.requires_grad
    weights = np.array([0.3, 0.7]) * np.exp(2.0 * model.q_net(th.as_tensor(obs)).detach().numpy())
    np.testing.assert_allclose(probabilities, weights / weights.sum(1, keepdims=True), rtol=1e-5)
    assert th.equal(model.policy.action_probabilities(th.as_tensor(obs)), probabilities)
    assert model.policy.action_probabilities(obs[0]).shape == (1, 2)
    mixed = MIRL("MultiInputPolicy", Mixed(), buffer_size=10)
    assert mixed.policy.action_probabilities(mixed.get_env().reset()).shape == (1, 2)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_deterministic_is_the_mode_of_the_policy(algorithm):
    model = algorithm("MlpPolicy", "CartPole-v1", beta_schedule="constant", beta_init=0.5, prior_init=[0.05, 0.95], seed=0)
    obs = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    actions, _ = model.predict(obs, deterministic=True)
    np.testing.assert_array_equal(actions, model.policy.action_probabilities(obs).argmax(1))
    greedy = model.q_net(th.as_tensor(obs)).argmax(1).numpy()
    # ρ weighs in the policy of MIRL alone
    assert (actions == greedy).all() == (algorithm is not MIRL)


def test_one_observation_gives_one_action():
    model = MIRL("MlpPolicy", "CartPole-v1")
    model.exploration_rate = 1.0
    for deterministic in (True, False):
        action, _ = model.predict(np.zeros(4, np.float32), deterministic=deterministic)
        assert action.shape == () and model.action_space.contains(int(action))


def test_sample_policy_draws_from_the_policy():
    model = MIRL("MlpPolicy", TwoArms(), beta_init=3.0, prior_init=[0.0, 0.2, 0.5, 0.3], seed=0)
    obs = np.ones((20_000, 1), np.float32)
    actions = model.policy.sample_policy(obs)
    frequencies = np.bincount(actions, minlength=4) / len(actions)
    assert frequencies[0] == 0
    expected = model.policy.action_probabilities(obs[:1])[0].numpy()
    np.testing.assert_allclose(frequencies, expected, atol=5 * np.sqrt(0.25 / len(actions)))


def test_epsilon_is_one_coin_per_environment():
    n_envs, epsilon, repetitions = 4, 0.3, 3000
    model = MIRL("MlpPolicy", make_vec_env(TwoArms, n_envs), prior_init=[0.0, 0.0, 0.25, 0.75], seed=0)
    model.exploration_rate = epsilon
    obs = np.ones((n_envs, 1), np.float32)
    # With ρ(0) = ρ(1) = 0 the policy never picks 0 or 1; with its mode fixed, the other action means an exploring draw
    greedy = int(model.predict(obs, deterministic=True)[0][0])
    other = 5 - greedy
    drawn = np.array([model.predict(obs)[0] == other for _ in range(repetitions)])
    rate = epsilon * model.prior[other]
    counts = drawn.sum(axis=1)
    assert set(np.unique(counts)) > {0, 1}
    # the mean, and a variance of n p (1 - p): one coin for all would give up to n² p (1 - p)
    assert counts.mean() == pytest.approx(n_envs * rate, abs=5 * np.sqrt(n_envs * rate / repetitions))
    assert counts.var() == pytest.approx(n_envs * rate * (1 - rate), rel=0.15)


def test_exploration_draws_from_the_prior():
    prior = np.array([0.1, 0.0, 0.6, 0.3])
    model = MIRL("MlpPolicy", make_vec_env(TwoArms, 1), prior_init=prior, seed=0)
    model.exploration_rate = 1.0
    actions, _ = model.predict(np.ones((20_000, 1), np.float32))
    frequencies = np.bincount(actions, minlength=4) / len(actions)
    assert frequencies[1] == 0
    np.testing.assert_allclose(frequencies, prior, atol=5 * np.sqrt(0.25 / len(actions)))


def test_prior_and_beta_are_buffers_not_parameters():
    policy = MIRL("MlpPolicy", TwoArms()).policy
    optimised = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert not {id(policy.prior), id(policy.beta)} & optimised
    assert {"prior", "beta"} <= set(policy.state_dict()) - {name for name, _ in policy.named_parameters()}
    assert policy.prior.dtype == policy.beta.dtype == th.float64


def test_unnormalised_prior_from_set_parameters_is_accepted():
    model = MIRL("MlpPolicy", TwoArms(), **FAST)
    parameters = model.get_parameters()
    parameters["policy"]["prior"] = th.tensor([0.1, 0.2, 0.3, 0.5], dtype=th.float32)
    model.set_parameters(parameters)
    model.learn(60)
    model.exploration_rate = 1.0
    assert set(np.unique(model.predict(np.ones((500, 1), np.float32))[0])) == {0, 1, 2, 3}


def test_casting_the_policy_leaves_prior_and_beta_exact():
    model = MIRL("MlpPolicy", TwoArms(), prior_init=[0.1, 0.2, 0.3, 0.4], beta_init=0.3)
    model.policy.float()
    model.policy.to(th.float32)
    assert model.policy.prior.dtype == model.policy.beta.dtype == th.float64
    np.testing.assert_array_equal(model.prior, np.array([0.1, 0.2, 0.3, 0.4]))
    assert model.beta == 0.3


def test_a_policy_file_keeps_its_regularization(tmp_path):
    SQL("MlpPolicy", "CartPole-v1", prior_init=[0.1, 0.9]).policy.save(str(tmp_path / "policy.pth"))
    assert MIRLPolicy.load(str(tmp_path / "policy.pth")).regularization == "entropy"


@pytest.mark.parametrize("n_actions", [1, 2, 7, 300])
def test_draws_from_the_prior_are_those_of_numpy(n_actions):
    policy = MIRL("MlpPolicy", ConstantReward(n_actions=n_actions), seed=0, policy_kwargs={"net_arch": [4]}).policy
    random, expected = np.random.RandomState(1), np.random.RandomState(1)
    for number in range(20):
        prior = np.random.default_rng(number).dirichlet(np.full(n_actions, 0.3)) * (1 + number)
        prior[: n_actions // 3] = 0
        policy.prior.copy_(th.as_tensor(prior))
        drawn = policy.sample_prior((5, 3), random)
        np.testing.assert_array_equal(drawn, expected.choice(n_actions, (5, 3), p=prior / prior.sum()))
        assert drawn.dtype == np.int64
    assert random.get_state()[2] == expected.get_state()[2]


@pytest.mark.parametrize("prior", [[0.0, 0.0], [-0.5, 1.5], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_draws_from_what_is_no_distribution(prior):
    policy = MIRL("MlpPolicy", ConstantReward(), seed=0, policy_kwargs={"net_arch": [4]}).policy
    policy.prior.copy_(th.tensor(prior))
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="The prior must be non-negative numbers"):
        policy.sample_prior((2,))


def test_masks_restrict_acting_and_exploration_to_the_valid_actions():
    model = MIRL("MlpPolicy", "Acrobot-v1", prior_init=[0.7, 0.3, 0.0], learning_starts=0, buffer_size=10)
    observations = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    masks = np.tile([[True, True, False], [False, True, False], [False, False, True]], (17, 1))[:50]
    prior = model.policy.prior_probabilities(observations, masks)
    assert prior[:3].tolist() == [[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert model.policy.prior_probabilities(observations).tolist() == [[0.7, 0.3, 0.0]] * 50
    assert (model.policy.action_probabilities(observations, masks).numpy()[~masks] == 0).all()
    for epsilon in (0.0, 1.0):
        model.exploration_rate = epsilon
        actions, _ = model.predict(observations, action_masks=masks)
        assert masks[np.arange(50), actions].all()
    assert masks[np.arange(50), model.policy.sample_policy(observations, masks)].all()
    assert len(set(actions[::3].tolist())) == 2 and model.policy.action_masks is None
