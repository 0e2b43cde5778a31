"""When ρ and β move: the default callbacks, replacements of the user, step sizes."""

import numpy as np
import pytest
import torch as th
from models import FAST
from probes import ConstantReward, TwoArms
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import (
    MIRL,
    SQL,
    BetaUpdateCallback,
    MIRLCallback,
    PriorInfluenceCallback,
    PriorUpdateCallback,
    SQLDecoupled,
    SQLm,
)
from sb3_mirl.mirl.callbacks import auto_beta_lr, auto_prior_lr, decoupling_factor, prior_influence
from sb3_mirl.mirl.operators import update_beta_normalized
from sb3_mirl.mirl.policies import MIRLPolicy

ALGORITHMS = [MIRL, SQL, SQLm]


@pytest.mark.parametrize("steps, step_size", [(50_000, 4e-4), (10**9, 2e-6), (100, 1e-2), (0, 1e-2), (10**7, 2e-6)])
def test_auto_prior_lr_is_the_papers_scaled_to_the_length_of_the_run(steps, step_size):
    assert auto_prior_lr(steps) == pytest.approx(step_size)


@pytest.mark.parametrize("steps, step_size", [(12_475, 8.25 / 12_475), (10**9, 3e-5), (10, 1e-2), (0, 1e-2)])
def test_auto_beta_lr_is_the_papers_scaled_to_the_length_of_the_run(steps, step_size):
    assert auto_beta_lr(steps) == pytest.approx(step_size)


def test_normalized_beta_does_not_depend_on_the_unit_of_rewards():
    # Adam's steps do not scale with the rewards, so with the weights as they are: beta alone, along one run
    errors = [4.0, 0.25, 1.0, 0.01]
    for unit in (0.01, 1.0, 100.0):
        beta = th.tensor(0.0, dtype=th.float64)
        for error in errors:
            beta = update_beta_normalized(beta, th.tensor(error * unit**2), 0.5, beta_max=np.inf, scale=3.0)
        # Halved at each step: 3 (0.5 / 0.1 + 0.25 / 1 + 0.125 / 0.5 + 0.0625 / 2)
        assert beta.item() * unit == pytest.approx(3 * (5 + 0.25 + 0.25 + 0.03125))


def test_the_normalized_schedule_follows_the_error_of_each_gradient_step():
    class Spy(MIRLCallback):
        def _on_gradient_step(self, squared_td_error):
            expected.append(0.9 * expected[-1] + 0.1 * 2.0 / float(squared_td_error) ** 0.5)
            assert self.model.beta == pytest.approx(expected[-1], rel=1e-6)

    expected = [0.01]
    MIRL("MlpPolicy", TwoArms(), beta_lr=0.1, beta_scale=2.0, **FAST).learn(100, callback=Spy())
    assert len(expected) > 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_only_the_callbacks_write_prior_and_beta(algorithm):
    class Frozen(MIRLCallback):
        """Takes the place of no default and does nothing."""

    class FrozenPrior(PriorUpdateCallback):
        def _on_step(self):
            return True

    class FrozenBeta(BetaUpdateCallback):
        def _on_step(self):
            return True

        def _on_gradient_step(self, squared_td_error):
            pass

    model = algorithm("MlpPolicy", "CartPole-v1", beta_lr=0.1, **{**FAST, "learning_starts": 10})
    model.prior_lr = 0.1
    versions = model.policy.prior._version, model.policy.beta._version
    model.learn(200, callback=[FrozenPrior(), FrozenBeta(), Frozen()])
    model.predict(np.zeros((7, 4), np.float32))
    assert model._n_updates > 0
    assert (model.policy.prior._version, model.policy.beta._version) == versions
    model.learn(200)
    assert model.policy.prior._version > versions[0] and model.policy.beta._version > versions[1]


@pytest.mark.parametrize("n_envs, train_freq, gradient_steps", [(1, 1, 1), (1, 4, 2), (3, 2, -1), (1, (1, "episode"), 3)])
def test_beta_moves_once_per_gradient_step(n_envs, train_freq, gradient_steps):
    calls = []

    class Count(BetaUpdateCallback):
        def _on_gradient_step(self, squared_td_error):
            calls.append(squared_td_error)
            super()._on_gradient_step(squared_td_error)

    env = make_vec_env(ConstantReward, n_envs)
    model = MIRL("MlpPolicy", env, train_freq=train_freq, gradient_steps=gradient_steps, **FAST)
    model.learn(120, callback=Count())
    assert len(calls) == model._n_updates > 0
    assert all(call.shape == () and not call.requires_grad for call in calls)


def test_linear_beta_counts_transitions_over_all_calls_of_learn():
    model = MIRL("MlpPolicy", make_vec_env(ConstantReward, 4), beta_schedule="linear", beta_init=0.5, beta_lr=1e-2, **FAST)
    first = model.learn(100).num_timesteps
    assert model.beta == pytest.approx(0.5 + 1e-2 * first)
    second = model.learn(100).num_timesteps
    assert model.beta == pytest.approx(0.5 + 1e-2 * (first + second))
    capped = MIRL("MlpPolicy", ConstantReward(), beta_schedule="linear", beta_lr=1.0, beta_max=7.0, **FAST)
    capped.learn(50)
    assert capped.beta == 7.0


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "normalized", "beta_lr": 0.1, "beta_max": 1.0, "beta_scale": 2.0},
        {"beta_schedule": "adaptive", "beta_lr": 0.1, "beta_max": 1.0},
        {"beta_schedule": "linear", "beta_lr": 0.01, "beta_max": 0.3},
        {"beta_schedule": "constant"},
    ],
)
def test_beta_is_multiplied_by_the_ratio_of_logarithms_of_numbers_of_actions(settings):
    class Fixed(BetaUpdateCallback):
        """The same errors for all models."""

        def _on_gradient_step(self, squared_td_error):
            super()._on_gradient_step(th.tensor(1.0 + self.n_calls % 7))

    def betas(**kwargs):
        class Read(BaseCallback):
            def _on_step(self):
                values.append(self.model.beta)
                return True

        values = []
        model = SQL("MlpPolicy", TwoArms(), beta_init=0.02, **settings, **kwargs, **FAST)
        model.learn(100, callback=[Fixed(), Read()])
        return np.array(values)

    plain = betas()
    # Four actions
    np.testing.assert_allclose(betas(reference_n_actions=16), plain / 2, rtol=1e-12)
    np.testing.assert_allclose(betas(reference_n_actions=4), plain, rtol=1e-12)
    assert len(set(plain)) > 1 or settings["beta_schedule"] == "constant"


def test_decoupling_factor():
    assert decoupling_factor(66, 2) == pytest.approx(6.044394, abs=1e-6)
    assert decoupling_factor(3, 9) == pytest.approx(0.5)
    assert decoupling_factor(66, None) == decoupling_factor(1, 4) == 1.0
    model = SQLDecoupled("MlpPolicy", "Acrobot-v1", beta_schedule="constant", beta_init=2.0, **FAST)
    assert model.beta == pytest.approx(2.0 * np.log2(3)) and model.beta_factor == pytest.approx(np.log2(3))
    # The penalty of a uniform prior against a deterministic policy
    assert np.log(3) / model.beta == pytest.approx(np.log(2) / 2.0)


def test_a_subclass_takes_the_place_of_the_default_wherever_it_stands(tmp_path):
    class Doubling(BetaUpdateCallback):
        def _on_gradient_step(self, squared_td_error):
            self.beta.mul_(2)

    for wrap in (lambda c: c, lambda c: [c], lambda c: CallbackList([CallbackList([c])]), lambda c: EveryNTimesteps(10, c)):
        model = MIRL("MlpPolicy", ConstantReward(), beta_init=1.0, train_freq=50, gradient_steps=3, **FAST)
        model.learn(50, callback=wrap(Doubling()))
        assert model.beta == 8.0


def test_evaluation_during_training_does_not_move_the_prior():
    def train(callback):
        model = MIRL("MlpPolicy", "CartPole-v1", prior_lr=0.1, **FAST)
        return model.learn(100, callback=callback).prior

    class Peek(BaseCallback):
        def _on_step(self):
            self.model.predict(np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32), deterministic=True)
            return True

    np.testing.assert_array_equal(train([Peek(), PriorUpdateCallback()]), train(None))


def test_the_prior_follows_the_policy_of_a_subclass_that_acts_in_its_own_way():
    class Wild(MIRL):
        """Explores as DQN does: without asking the policy."""

        def predict(self, observation, state=None, episode_start=None, deterministic=False):
            if not deterministic and np.random.rand() < 0.5:
                return np.array([self.action_space.sample() for _ in range(len(observation))]), state
            return self.policy.predict(observation, state, episode_start, deterministic)

    class OwnPredict(MIRLPolicy):
        def _predict(self, obs, deterministic=True):
            return self.q_net._predict(obs, deterministic)

    class Compare(BaseCallback):
        def _on_step(self):
            model = self.model
            if model.rollout_action_probabilities is not None:
                expected = model.policy.action_probabilities(model._last_obs).double()
                th.testing.assert_close(model.rollout_action_probabilities, expected, rtol=1e-4, atol=1e-6)
                compared.append(1)
            return True

    for algorithm, policy in ((Wild, "MlpPolicy"), (MIRL, OwnPredict)):
        compared: list[int] = []
        # With a prior that stays, since it moves before other callbacks are called
        algorithm(policy, "CartPole-v1", prior_lr=0.0, **FAST).learn(100, callback=Compare())
        assert len(compared) == 100 - FAST["learning_starts"]
        assert (algorithm(policy, "CartPole-v1", **FAST).learn(100).prior != 0.5).any()


def test_a_callback_can_serve_two_models():
    callback = PriorUpdateCallback()
    for n_actions in (3, 40, 5):
        MIRL("MlpPolicy", ConstantReward(n_actions=n_actions), prior_lr=0.1, **FAST).learn(40, callback=callback)


def test_two_callbacks_for_one_state_are_refused():
    model = MIRL("MlpPolicy", ConstantReward(), **FAST)
    with pytest.raises(ValueError, match="at most one PriorUpdateCallback, got 2"):
        model.learn(10, callback=[PriorUpdateCallback(), PriorUpdateCallback()])


def test_callbacks_refuse_other_algorithms():
    with pytest.raises(TypeError, match="BetaUpdateCallback works with MIRL and its variants, not with DQN"):
        DQN("MlpPolicy", ConstantReward(), buffer_size=10).learn(10, callback=BetaUpdateCallback())


def test_prior_influence_counts_the_states_in_which_the_prior_changes_the_choice():
    q_values = th.tensor([[0.0, 1.0, -9.0], [0.0, 3.0, -9.0], [5.0, 1.0, 90.0]])
    prior = th.tensor([0.8, 0.2, 0.0], dtype=th.float64)
    # log 0.8 - log 0.2 = 1.39: outweighed by a gap of 3, not by one of 1; the last action is never taken
    share, gap, prior_range = prior_influence(q_values, prior, th.tensor(1.0, dtype=th.float64))
    assert share.item() == pytest.approx(1 / 3) and prior_range.item() == pytest.approx(np.log(4.0))
    assert gap.item() == pytest.approx((1 + 3 + 4) / 3)
    share, gap, _ = prior_influence(q_values, prior, th.tensor(np.inf, dtype=th.float64))
    assert share.item() == 0.0 and gap.item() == np.inf
    alone = prior_influence(q_values, th.tensor([1.0, 0.0, 0.0], dtype=th.float64), th.tensor(1.0, dtype=th.float64))
    assert [value.item() for value in alone] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("n_envs", [1, 3])
def test_the_influence_is_that_on_the_states_that_were_visited(n_envs):
    class Spy(BaseCallback):
        def _on_step(self):
            visited.append(self.model.q_net(th.tensor(self.model._last_obs)).detach())
            if self.n_calls % 40 == 0:
                expected = prior_influence(th.cat(visited[-40:][3::4]), self.model.policy.prior, self.model.policy.beta)
                logged.append([self.logger.name_to_value[f"train/{name}"] for name in NAMES])
                assert logged[-1] == pytest.approx([value.item() for value in expected], rel=1e-6)
            return True

    NAMES, visited, logged = ("prior_influence", "value_gap", "prior_range"), [], []
    arguments = {**FAST, "prior_lr": 0.05, "beta_init": 1.0, "beta_schedule": "constant", "learning_starts": 10, "seed": 1}
    env = make_vec_env("CartPole-v1", n_envs, seed=1)
    model = MIRL("MlpPolicy", env, **arguments)
    influence = PriorInfluenceCallback(log_freq=40, n_states=10)
    model.learn(200 * n_envs, callback=[influence, Spy()])
    assert len(logged) == 5 and min(values[2] for values in logged[1:]) > 0
    other = MIRL("MlpPolicy", make_vec_env("CartPole-v1", n_envs, seed=1), **arguments).learn(200 * n_envs)
    for ours, theirs in zip(model.policy.state_dict().values(), other.policy.state_dict().values(), strict=True):
        assert th.equal(ours, theirs)


def test_the_influence_is_not_measured_without_states():
    # Every fifth call is taken, and the second training begins after the twentieth
    model, influence = MIRL("MlpPolicy", "CartPole-v1", **FAST), PriorInfluenceCallback(log_freq=23, n_states=4)
    model.learn(20, callback=influence)
    model.learn(4, callback=influence, reset_num_timesteps=False)
    assert influence.n_calls == 24 and "train/prior_influence" not in model.logger.name_to_value


@pytest.mark.parametrize("arguments", [{"log_freq": 0}, {"n_states": -1}, {"log_freq": 1.5}])
def test_the_influence_needs_positive_numbers(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be a positive integer, got"):
        PriorInfluenceCallback(**arguments)


def test_the_influence_belongs_to_mirl():
    with pytest.raises(TypeError, match="PriorInfluenceCallback works with MIRL"):
        DQN("MlpPolicy", TwoArms(), learning_starts=10).learn(20, callback=PriorInfluenceCallback())


@pytest.mark.parametrize(
    "callback", [PriorUpdateCallback, BetaUpdateCallback, lambda: [BetaUpdateCallback(), PriorUpdateCallback()]]
)
def test_rho_moves_before_beta_whichever_callback_is_passed(callback):
    def train(callback):
        # ρ's network is fitted to π, and π depends on β
        settings = {"prior_type": "conditional", "prior_observation": [0, 1], "beta_lr": 0.1}
        model = MIRL("MlpPolicy", "CartPole-v1", **settings, **FAST).learn(100, callback=callback)
        return [parameter.detach() for parameter in model.policy.parameters()]

    assert all(map(th.equal, train(callback()), train(None)))
