"""MIRL, SQL and SQLm used as people use SB3's DQN."""

import copy
import inspect
import io
from pathlib import Path

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from probes import ConstantReward, Image, Mixed, NamedActions, TwoArms
from stable_baselines3 import DQN, PPO, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.logger import KVWriter, Logger, configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from torch import nn

from sb3_mirl import MIRL, SQL, BetaUpdateCallback, MIRLCallback, PriorUpdateCallback, SQLm
from sb3_mirl.mirl.arguments import PAPER_ATARI
from sb3_mirl.mirl.callbacks import auto_beta_lr, auto_prior_lr
from sb3_mirl.mirl.operators import update_beta_normalized
from sb3_mirl.mirl.policies import MIRLPolicy

ALGORITHMS = [MIRL, SQL, SQLm]
FAST = {"learning_starts": 20, "buffer_size": 500, "policy_kwargs": {"net_arch": [16]}, "seed": 0}


def check_save_load(model, path, obs):
    """A model and its reloaded copy are the same in everything that matters."""
    model.save(path)
    loaded = type(model).load(path)
    for name, parameters in model.get_parameters()["policy"].items():
        assert th.equal(loaded.get_parameters()["policy"][name], parameters), name
    np.testing.assert_array_equal(loaded.prior, model.prior)
    assert loaded.beta == model.beta and loaded.exploration_rate == model.exploration_rate
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    settings = ["prior_lr", "beta_schedule", "beta_init", "beta_lr", "beta_max", "loss", "regularization", "algorithm"]
    assert {s: getattr(loaded, s) for s in settings} == {s: getattr(model, s) for s in settings}
    assert loaded.policy.regularization == model.policy.regularization
    assert all(group["fused"] for group in loaded.policy.optimizer.param_groups)
    return loaded


# ---- the interface ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("policy, env", [("MlpPolicy", ConstantReward), ("CnnPolicy", Image), ("MultiInputPolicy", Mixed)])
def test_every_policy_learns_saves_and_loads(algorithm, policy, env, tmp_path):
    model = algorithm(policy, env(), learning_starts=20, buffer_size=200, batch_size=8, seed=0)
    model.learn(60)
    assert model._n_updates > 0
    obs = model.get_env().reset()
    loaded = check_save_load(model, tmp_path / "model.zip", obs)
    loaded.set_env(env())
    loaded.learn(40, reset_num_timesteps=False)
    assert loaded.num_timesteps == 100


def test_names_of_the_paper_are_settings():
    env = TwoArms()
    assert (MIRL("MlpPolicy", env).prior_lr, MIRL("MlpPolicy", env).regularization) == ("auto", "mutual_information")
    assert (SQL("MlpPolicy", env).prior_lr, SQL("MlpPolicy", env).regularization) == (0.0, "entropy")
    assert (SQLm("MlpPolicy", env).prior_lr, SQLm("MlpPolicy", env).regularization) == ("auto", "entropy")


def test_what_is_shared_with_dqn_has_the_default_of_dqn():
    ours, theirs = inspect.signature(MIRL).parameters, inspect.signature(DQN).parameters
    shared = [name for name in theirs if name not in ("policy", "env")]
    assert {name: ours[name].default for name in shared} == {name: theirs[name].default for name in shared}


def test_the_papers_atari_values_are_a_constant_and_the_zoos():
    model = MIRL("MlpPolicy", TwoArms(), **{**PAPER_ATARI, "buffer_size": 100})
    assert (model.prior_step_size, model.beta_step_size, model.beta_schedule) == (2e-6, 3.3e-6, "adaptive")
    zoo = yaml.safe_load((Path(__file__).parents[2] / "hyperparams" / "mirl.yml").read_text())["atari"]
    assert {name: zoo[name] for name in PAPER_ATARI} == PAPER_ATARI


# ---- "auto" -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps, step_size", [(50_000, 4e-4), (10**9, 2e-6), (100, 1e-2), (0, 1e-2), (10**7, 2e-6)])
def test_auto_prior_lr_is_the_papers_scaled_to_the_length_of_the_run(steps, step_size):
    assert auto_prior_lr(steps) == pytest.approx(step_size)


@pytest.mark.parametrize("steps, step_size", [(12_475, 8.25 / 12_475), (10**9, 3e-5), (10, 1e-2), (0, 1e-2)])
def test_auto_beta_lr_is_the_papers_scaled_to_the_length_of_the_run(steps, step_size):
    assert auto_beta_lr(steps) == pytest.approx(step_size)


@pytest.mark.parametrize(
    "n_envs, settings, steps",
    [
        (1, {}, 300),
        (1, {"learning_starts": 0}, 301),
        (1, {"learning_starts": 17, "train_freq": 1}, 40),
        (3, {"train_freq": 4, "gradient_steps": 2}, 200),
        (3, {"train_freq": 2, "gradient_steps": -1, "learning_starts": 30}, 100),
        (2, {"learning_starts": 500}, 100),
    ],
)
def test_gradient_steps_are_counted_in_advance(n_envs, settings, steps):
    model = MIRL("MlpPolicy", make_vec_env(TwoArms, n_envs), **{**FAST, **settings})
    expected = model.count_gradient_steps(steps)
    assert model.learn(steps)._n_updates == expected
    assert model.resolved_beta_lr == auto_beta_lr(expected)


def test_gradient_steps_are_the_environment_steps_where_training_follows_episodes():
    model = MIRL("MlpPolicy", TwoArms(), train_freq=(1, "episode"), **FAST).learn(300)
    assert model.resolved_beta_lr == auto_beta_lr(300)


def test_auto_is_resolved_once_and_stays_in_the_argument(tmp_path):
    model = MIRL("MlpPolicy", TwoArms(), **FAST)
    assert (model.prior_lr, model.beta_lr, model.prior_step_size, model.beta_step_size) == ("auto", "auto", None, None)
    model.learn(4000)
    resolved = model.prior_step_size, model.beta_step_size
    assert resolved == (20 / 4000, pytest.approx(8.25 / (4000 - 20) * 4))
    model.learn(100).save(tmp_path / "model")
    loaded = MIRL.load(tmp_path / "model", env=TwoArms())
    loaded.learn(100, reset_num_timesteps=False)
    exported = MIRL.load_exported(model.export(tmp_path / "model.safetensors"))
    for one in (model, loaded, exported):
        assert (one.prior_lr, one.beta_lr) == ("auto", "auto")
        assert (one.prior_step_size, one.beta_step_size) == resolved


def test_auto_waits_for_a_training_that_begins_and_is_longer_than_nothing():
    model = MIRL("MlpPolicy", TwoArms(), **FAST).learn(0)
    with pytest.raises(ValueError, match="at most one"):
        model.learn(20, callback=[PriorUpdateCallback(), PriorUpdateCallback()])
    assert (model.resolved_prior_lr, model.resolved_beta_lr) == (None, None)
    assert model.learn(4000).resolved_prior_lr == 20 / 4000


def test_auto_given_anew_to_load_is_resolved_anew(tmp_path):
    MIRL("MlpPolicy", TwoArms(), **FAST).learn(100).save(tmp_path / "model")
    loaded = MIRL.load(tmp_path / "model", env=TwoArms(), prior_lr="auto")
    assert loaded.resolved_prior_lr is None and loaded.resolved_beta_lr is not None
    assert loaded.learn(4000).prior_step_size == 20 / 4000


def test_a_number_is_not_scaled():
    model = MIRL("MlpPolicy", TwoArms(), prior_lr=0.25, beta_lr=0.5, **FAST).learn(100)
    assert (model.prior_step_size, model.beta_step_size) == (0.25, 0.5)
    assert (model.resolved_prior_lr, model.resolved_beta_lr) == (None, None)


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


# ---- state and acting ---------------------------------------------------------------------------------------------


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
    model = algorithm("MlpPolicy", "CartPole-v1", beta_schedule="constant", beta_init=0.5, prior_init=[0.05, 0.95])
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


def test_warm_up_draws_from_the_prior_and_does_not_move_it():
    model = MIRL("MlpPolicy", TwoArms(), prior_init=[0.0, 0.5, 0.5, 0.0], prior_lr=0.5, learning_starts=200, buffer_size=200)
    model.learn(200)
    assert set(np.unique(model.replay_buffer.actions)) == {1, 2}
    np.testing.assert_array_equal(model.prior, [0.0, 0.5, 0.5, 0.0])


def test_one_forward_pass_per_environment_step():
    model = MIRL("MlpPolicy", make_vec_env("CartPole-v1", 3), learning_starts=30, gradient_steps=0, buffer_size=500)
    passes = []
    model.q_net.register_forward_hook(lambda *_: passes.append(1))
    model.learn(300)
    assert len(passes) == (300 - 30) / 3


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


def test_no_optimiser_sees_prior_and_beta():
    policy = MIRL("MlpPolicy", TwoArms()).policy
    optimised = {id(p) for group in policy.optimizer.param_groups for p in group["params"]}
    assert not {id(policy.prior), id(policy.beta)} & optimised
    assert {"prior", "beta"} <= set(policy.state_dict()) - {name for name, _ in policy.named_parameters()}
    assert policy.prior.dtype == policy.beta.dtype == th.float64


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


# ---- callbacks of the user ----------------------------------------------------------------------------------------


def test_a_subclass_takes_the_place_of_the_default_wherever_it_stands(tmp_path):
    class Doubling(BetaUpdateCallback):
        def _on_gradient_step(self, squared_td_error):
            self.beta.mul_(2)

    for wrap in (lambda c: c, lambda c: [c], lambda c: CallbackList([CallbackList([c])]), lambda c: EveryNTimesteps(10, c)):
        model = MIRL("MlpPolicy", ConstantReward(), beta_init=1.0, train_freq=50, gradient_steps=3, **FAST)
        model.learn(50, callback=wrap(Doubling()))
        assert model.beta == 8.0


def test_plain_callbacks_functions_and_progress_bars_work(tmp_path):
    calls = []
    model = MIRL("MlpPolicy", ConstantReward(), **FAST)
    model.learn(40, callback=lambda locals_, globals_: calls.append(1) or True, progress_bar=True)
    evaluation = EvalCallback(gym.wrappers.TimeLimit(ConstantReward(), 5), eval_freq=10, verbose=0, log_path=str(tmp_path))
    model.learn(40, callback=[evaluation])
    assert len(calls) == 40 and evaluation.n_calls == 40


def test_evaluation_during_training_does_not_move_the_prior():
    def train(callback):
        model = MIRL("MlpPolicy", "CartPole-v1", prior_lr=0.1, **FAST)
        return model.learn(100, callback=callback).prior

    class Peek(BaseCallback):
        def _on_step(self):
            self.model.predict(np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32), deterministic=True)
            return True

    np.testing.assert_array_equal(train([Peek(), PriorUpdateCallback()]), train(None))


def test_a_callback_can_stop_training():
    model = MIRL("MlpPolicy", ConstantReward(), **FAST)
    model.learn(100, callback=lambda locals_, _: locals_["self"].num_timesteps < 30)
    assert model.num_timesteps == 30


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


def test_learning_inside_learning_leaves_the_counters_of_the_outer_run():
    class Inner(BaseCallback):
        def _on_step(self):
            if self.n_calls == 50:
                before = model._num_timesteps_at_start, model._total_timesteps, list(model.active_callbacks)
                model.learn(8, reset_num_timesteps=False)
                assert (model._num_timesteps_at_start, model._total_timesteps, model.active_callbacks) == before
            return True

    model = MIRL("MlpPolicy", TwoArms(), **FAST)
    model.learn(100, callback=Inner())
    assert model._gradient_step_callbacks == []


def test_learning_inside_learning_leaves_the_callbacks_of_the_outer_run():
    class Nested(BaseCallback):
        def _on_step(self):
            if self.n_calls == 20:
                self.model.learn(0, reset_num_timesteps=False)
            return True

    model = MIRL("MlpPolicy", ConstantReward(), beta_lr=0.1, train_freq=1, **FAST)
    seen = []
    model.learn(60, callback=[Nested(), lambda_callback(lambda: seen.append(model.beta))])
    assert len(set(seen[30:])) == len(seen[30:])


def lambda_callback(function):
    class Call(BaseCallback):
        def _on_step(self):
            function()
            return True

    return Call()


def test_a_callback_may_copy_the_model_and_call_for_new_bests():
    model = MIRL("MlpPolicy", ConstantReward(), beta_init=1.0, train_freq=50, gradient_steps=3, **FAST)
    copies = []

    class Doubling(BetaUpdateCallback):
        def _on_gradient_step(self, squared_td_error):
            self.beta.mul_(2)

    env = gym.wrappers.TimeLimit(ConstantReward(), 5)
    evaluation = EvalCallback(env, callback_on_new_best=Doubling(), eval_freq=10, verbose=0, warn=False)
    model.learn(50, callback=[lambda_callback(lambda: copies.append(copy.deepcopy(model))), evaluation])
    assert model.beta == 8.0 and len(copies) == 50


def test_a_compiled_policy_learns():
    model = MIRL("MlpPolicy", ConstantReward(), prior_lr=0.1, **FAST)
    model.policy = th.compile(model.policy, backend="eager")
    model.learn(60)
    assert model._n_updates > 0


def test_no_gradient_steps_are_no_error():
    model = MIRL("MlpPolicy", ConstantReward(), **FAST).learn(30)
    before = model._n_updates
    model.train(gradient_steps=0)
    assert model._n_updates == before


def test_a_callback_can_serve_two_models():
    callback = PriorUpdateCallback()
    for n_actions in (3, 40, 5):
        MIRL("MlpPolicy", ConstantReward(n_actions=n_actions), prior_lr=0.1, **FAST).learn(40, callback=callback)


def test_two_callbacks_for_one_state_are_refused():
    model = MIRL("MlpPolicy", ConstantReward(), **FAST)
    with pytest.raises(ValueError, match="at most one PriorUpdateCallback, got 2"):
        model.learn(10, callback=[PriorUpdateCallback(), PriorUpdateCallback()])


def test_callbacks_refuse_other_algorithms():
    with pytest.raises(TypeError, match="BetaUpdateCallback works with MIRL, SQL and SQLm, not with DQN"):
        DQN("MlpPolicy", ConstantReward(), buffer_size=10).learn(10, callback=BetaUpdateCallback())


# ---- what DQN supports --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vec_env", [DummyVecEnv, SubprocVecEnv])
def test_several_environments(vec_env, tmp_path):
    env = make_vec_env(NamedActions, 3, vec_env_cls=vec_env)
    model = MIRL("MlpPolicy", env, prior_lr=0.01, **FAST).learn(120)
    check_save_load(model, tmp_path / "model.zip", np.zeros((3, 3), np.float32))
    env.close()


@pytest.mark.parametrize(
    "settings",
    [
        {"n_steps": 3},
        {"gradient_steps": -1, "train_freq": 7},
        {"train_freq": (2, "episode"), "gradient_steps": -1},
        {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}},
        {"tau": 0.01, "target_update_interval": 1},
        {"learning_rate": lambda progress: 1e-3 * progress},
        {"policy_kwargs": {"optimizer_class": th.optim.RMSprop}},
        {"policy_kwargs": {"optimizer_kwargs": {"eps": 1e-4}}},
        {"policy_kwargs": {"optimizer_kwargs": {"foreach": True}}},
        {"loss": "huber"},
        {"replay_buffer_class": ReplayBuffer},
        {"max_grad_norm": 0.1},
    ],
)
def test_settings_of_dqn(settings, tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **{**FAST, **settings}).learn(100)
    assert model._n_updates > 0
    model.save(tmp_path / "model.zip")
    loaded = MIRL.load(tmp_path / "model.zip", env=ConstantReward())
    loaded.learn(50)
    assert loaded._n_updates > model._n_updates


def test_vec_normalize(tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2))
    model = MIRL("MlpPolicy", env, **FAST).learn(200)
    env.save(tmp_path / "normalize.pkl")
    check_save_load(model, tmp_path / "model.zip", env.reset())


def test_her():
    env = BitFlippingEnv(n_bits=4, continuous=False, max_steps=4)
    model = MIRL("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, prior_lr=1e-3, **FAST).learn(200)
    assert model._n_updates > 0


class BatchNormed(BaseFeaturesExtractor):
    def __init__(self, observation_space, features_dim=8):
        super().__init__(observation_space, features_dim)
        self.layers = nn.Sequential(nn.Linear(observation_space.shape[0], features_dim), nn.BatchNorm1d(features_dim))

    def forward(self, observations):
        return self.layers(observations)


def test_batch_norm_statistics_reach_the_target_and_acting_leaves_them(tmp_path):
    settings = {**FAST, "policy_kwargs": {"features_extractor_class": BatchNormed}}
    model = MIRL("MlpPolicy", ConstantReward(), target_update_interval=50, **settings).learn(100)
    model.gradient_steps = 0
    model.learn(50, reset_num_timesteps=False)  # up to one more update of the target
    statistics = model.q_net.features_extractor.layers[1].running_mean.clone()
    assert (statistics != 0).any()
    np.testing.assert_array_equal(statistics, model.q_net_target.features_extractor.layers[1].running_mean)
    model.predict(np.ones((5, 3), np.float32))
    model.policy.action_probabilities(np.ones((5, 3), np.float32))
    assert th.equal(model.q_net.features_extractor.layers[1].running_mean, statistics)
    check_save_load(model, tmp_path / "model.zip", np.ones((5, 3), np.float32))


def test_learning_goes_on_where_it_stopped():
    model = MIRL("MlpPolicy", "CartPole-v1", prior_lr=1e-3, beta_lr=1e-2, **FAST).learn(100)
    prior, beta = model.prior, model.beta
    model.learn(0, reset_num_timesteps=False)
    np.testing.assert_array_equal(model.prior, prior)
    assert model.beta == beta
    model.learn(100, reset_num_timesteps=False)
    assert model.num_timesteps == 200 and (model.prior != prior).all() and model.beta != beta


def test_set_parameters_replay_buffer_and_policy_files(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", prior_lr=1e-2, beta_lr=1e-2, **FAST).learn(100)
    other = MIRL("MlpPolicy", "CartPole-v1", **FAST)
    other.set_parameters(model.get_parameters())
    np.testing.assert_array_equal(other.prior, model.prior)
    assert other.beta == model.beta
    model.save(tmp_path / "model.zip")
    other.set_parameters(str(tmp_path / "model.zip"))
    model.save_replay_buffer(tmp_path / "replay.pkl")
    other.load_replay_buffer(tmp_path / "replay.pkl")
    assert other.replay_buffer.size() == model.replay_buffer.size()
    model.policy.save(str(tmp_path / "policy.pth"))
    policy = MIRLPolicy.load(str(tmp_path / "policy.pth"))
    assert th.equal(policy.prior, model.policy.prior) and th.equal(policy.beta, model.policy.beta)


def test_a_prior_from_outside_that_is_not_quite_normalised_serves():
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


def test_save_to_a_stream_and_load_with_changed_arguments():
    stream = io.BytesIO()
    MIRL("MlpPolicy", "CartPole-v1", **FAST).learn(50).save(stream)
    stream.seek(0)
    loaded = MIRL.load(stream, env=gym.make("CartPole-v1"), prior_lr=0.25, loss="huber")
    assert (loaded.prior_lr, loaded.loss) == (0.25, "huber")


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: cloudpickle.loads(cloudpickle.dumps(model))])
@pytest.mark.parametrize("trained", [False, True])
def test_copies_are_independent_and_go_on_learning(copier, trained):
    model = MIRL("MlpPolicy", "CartPole-v1", prior_lr=0.1, **FAST)
    if trained:
        model.learn(100)
    twin = copier(model)
    obs = np.ones((3, 4), np.float32)
    np.testing.assert_array_equal(twin.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    prior = model.prior
    twin.learn(100)
    np.testing.assert_array_equal(model.prior, prior)
    assert (twin.prior != prior).all()


def test_fused_adam_is_the_default_and_survives_files(tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **FAST).learn(50)
    assert isinstance(model.policy.optimizer, th.optim.Adam)
    # A file written by an unfused optimiser
    for group in model.policy.optimizer.param_groups:
        group["fused"] = None
    model.save(tmp_path / "model.zip")
    loaded = MIRL.load(tmp_path / "model.zip", env=ConstantReward())
    assert all(group["fused"] for group in loaded.policy.optimizer.param_groups)
    loaded.learn(50)
    chosen = MIRL("MlpPolicy", ConstantReward(), policy_kwargs={"optimizer_kwargs": {"fused": False}}, buffer_size=10)
    assert chosen.policy.optimizer.param_groups[0]["fused"] is False


def test_parameters_that_fused_adam_does_not_take_are_trained():
    class Complex(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 4)
            self.weight = nn.Parameter(th.ones(4, dtype=th.complex64))

        def forward(self, observations):
            return (observations * self.weight).abs()

    kwargs = {"policy_kwargs": {"features_extractor_class": Complex, "net_arch": [8]}}
    model = MIRL("MlpPolicy", "CartPole-v1", **{**FAST, **kwargs}).learn(60)
    assert not th.equal(model.q_net.features_extractor.weight.detach(), th.ones(4, dtype=th.complex64))


def test_fused_adam_equals_plain_adam():
    plain = {**FAST["policy_kwargs"], "optimizer_kwargs": {"fused": False}}
    weights = []
    for policy_kwargs in (FAST["policy_kwargs"], plain):
        model = MIRL("MlpPolicy", "CartPole-v1", **{**FAST, "policy_kwargs": policy_kwargs}).learn(300)
        weights.append(model.policy.parameters_to_vector())
    np.testing.assert_allclose(*weights, rtol=1e-4, atol=1e-6)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
def test_cuda(tmp_path):
    model = MIRL("CnnPolicy", Image(), device="cuda", learning_starts=20, buffer_size=200, prior_lr=0.1).learn(100)
    assert model.policy.prior.is_cuda and model.policy.beta.is_cuda
    model.save(tmp_path / "model.zip")
    on_cpu = MIRL.load(tmp_path / "model.zip", device="cpu")
    np.testing.assert_array_equal(on_cpu.prior, model.prior)


# ---- logs ---------------------------------------------------------------------------------------------------------


def test_everything_of_interest_is_logged(tmp_path):
    model = MIRL("MlpPolicy", NamedActions(), tensorboard_log=str(tmp_path / "tb"), **FAST)
    model.set_logger(configure(str(tmp_path), ["csv", "json"]))
    model.learn(100, log_interval=1)
    columns = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    train = {f"train/{key}" for key in ("loss", "beta", "kl", "n_updates", "learning_rate")}
    assert train | {"rollout/exploration_rate", "rollout/prior_entropy", "prior/NOOP", "prior/FIRE"} <= set(columns)


def test_tensorboard_folders_carry_the_name_of_the_algorithm(tmp_path):
    for algorithm in ALGORITHMS:
        algorithm("MlpPolicy", ConstantReward(), tensorboard_log=str(tmp_path), **FAST).learn(30)
    assert {folder.name for folder in tmp_path.iterdir()} == {"MIRL_1", "SQL_1", "SQLm_1"}


class Recorder(KVWriter):
    """Keeps what is logged, one dictionary for each dump."""

    def __init__(self):
        self.dumps = []

    def write(self, key_values, key_excluded, step=0):
        self.dumps.append(dict(key_values))

    def close(self):
        pass


def learn_and_record(model, steps, **arguments):
    recorder = Recorder()
    model.set_logger(Logger(None, [recorder]))
    model.learn(steps, **arguments)
    return recorder.dumps


def test_prior_is_logged_with_the_log_interval_of_learn():
    model = MIRL("MlpPolicy", ConstantReward(), prior_lr=0.1, **FAST)
    dumps = learn_and_record(model, 100, log_interval=2)
    assert len(dumps) == 5  # ten episodes
    assert dumps[-1]["prior/action_0"] == pytest.approx(model.prior[0])
    assert dumps[-1]["prior/action_0"] != dumps[-2]["prior/action_0"]


def test_logged_values_are_the_right_ones():
    model = MIRL("MlpPolicy", ConstantReward(), prior_init=[0.25, 0.75], beta_schedule="constant", beta_init=0.0, **FAST)
    logged = learn_and_record(model, 50, log_interval=5)[-1]
    # β = 0: π = ρ, so that nothing is paid
    assert logged["train/kl"] == pytest.approx(0.0, abs=1e-7) and logged["train/beta"] == 0.0
    assert logged["rollout/prior_entropy"] == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75))
    # The step that ends the last episode is learned from after the dump
    assert logged["train/n_updates"] == model._n_updates - 1


def test_an_error_in_the_names_of_actions_does_not_stop_training():
    class Broken(ConstantReward):
        def get_action_meanings(self):
            raise RuntimeError("not for this game")

    assert MIRL("MlpPolicy", Broken(), **FAST).learn(30).action_names is None


def test_names_of_actions_that_a_wrapper_took_away_are_not_used():
    class Fewer(gym.ActionWrapper):
        def __init__(self, env):
            super().__init__(env)
            self.action_space = gym.spaces.Discrete(1)

        def action(self, action):
            return action

    assert "prior/action_0" in learn_and_record(MIRL("MlpPolicy", Fewer(NamedActions()), **FAST), 30, log_interval=1)[-1]


@pytest.mark.parametrize(
    "meanings", [None, ["A"], ["A", "A"], "AB", ("LEFT", "RIGHT"), [1, 2], NotImplementedError(), ["x" * 30, "x" * 31]]
)
def test_odd_names_of_actions_do_no_harm(meanings):
    class Odd(ConstantReward):
        def get_action_meanings(self):
            if isinstance(meanings, Exception):
                raise meanings
            return meanings

    logged = learn_and_record(MIRL("MlpPolicy", Odd(), verbose=1, **FAST), 30, log_interval=1)[-1]
    good = meanings in (("LEFT", "RIGHT"), [1, 2])
    keys = [f"prior/{name}" for name in meanings] if good else ["prior/action_0", "prior/action_1"]
    assert set(keys) <= set(logged)


# ---- what it must withstand ---------------------------------------------------------------------------------------


def assert_sound(model):
    assert np.isfinite(model.beta) or model.beta_init == np.inf
    assert (model.prior >= 0).all() and abs(model.prior.sum() - 1) < 1e-9
    assert np.isfinite(model.policy.parameters_to_vector()).all()


@pytest.mark.parametrize("reward", [0.0, 1.0, -1.0, 1e6])
@pytest.mark.parametrize("prior_lr", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize(
    "beta", [{"beta_init": 0.0}, {"beta_schedule": "constant", "beta_init": np.inf}, {"beta_lr": 1.0, "beta_max": np.inf}]
)
def test_extremes(reward, prior_lr, beta):
    settings = {**FAST, "train_freq": 1, "learning_rate": 1e-3, "target_update_interval": 20}
    assert_sound(MIRL("MlpPolicy", ConstantReward(reward), prior_lr=prior_lr, **beta, **settings).learn(300))


@pytest.mark.parametrize("n_actions", [1, 18])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_numbers_of_actions(n_actions, algorithm):
    model = algorithm("MlpPolicy", ConstantReward(n_actions=n_actions), **FAST)
    model.prior_lr = 0.1
    assert_sound(model.learn(200))


def test_a_zero_in_the_prior_is_absorbing():
    model = MIRL("MlpPolicy", TwoArms(), prior_init=[0.5, 0.0, 0.5, 0.0], prior_lr=0.1, **FAST).learn(500)
    assert_sound(model)
    assert model.prior[1] == model.prior[3] == 0
    assert set(np.unique(model.replay_buffer.actions[: model.replay_buffer.size()])) == {0, 2}


@pytest.mark.parametrize("steps", [5_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_constant_reward_for_long(steps):
    """L → 0 because everything is predictable: episodes of one step in one state."""
    env = ConstantReward(1.0, length=1, observation_space=gym.spaces.Box(1, 1, (1,)))
    settings = {**FAST, "learning_rate": 1e-3, "target_update_interval": 100, "beta_lr": 1e-3, "train_freq": 8}
    model = MIRL("MlpPolicy", env, prior_lr=1e-3, **settings)
    model.learn(steps, log_interval=None)
    assert_sound(model)
    assert 100 < model.beta <= model.beta_max


def spoil_rewards(locals_, globals_):
    """A callback: after a while, rewards in the replay buffer are not numbers."""
    if locals_["self"].num_timesteps > 60:
        locals_["self"].replay_buffer.rewards[:] = np.nan
    return True


@pytest.mark.parametrize("gradient_steps", [1, 5])
def test_a_loss_that_is_not_finite_stops_training(gradient_steps):
    model = MIRL("MlpPolicy", ConstantReward(), prior_lr=0.1, train_freq=1, gradient_steps=gradient_steps, **FAST)
    with pytest.raises(ValueError, match=r"huber loss was nan at gradient step \d+ .*beta = .*largest \|Q\| = ") as error:
        model.learn(5000, callback=spoil_rewards)
    assert np.isfinite(model.prior).all() and abs(model.prior.sum() - 1) < 1e-9 and np.isfinite(model.beta)
    step = int(str(error.value).split("gradient step ")[1].split()[0])
    assert model._n_updates - gradient_steps < step <= model._n_updates


def test_weights_that_are_not_numbers_do_not_reach_the_prior():
    model = MIRL("MlpPolicy", ConstantReward(), prior_lr=0.5, **{**FAST, "learning_starts": 0})
    with th.no_grad():
        next(model.q_net.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="loss was nan at gradient step 1"):
        model.learn(100)
    np.testing.assert_array_equal(model.prior, [0.5, 0.5])
    assert model.beta == 0.01


# ---- wrong arguments ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"prior_lr": -1}, r"prior_lr must be 'auto' or a number in \[0, 1\], got -1"),
        ({"prior_lr": 1.5}, r"prior_lr .*got 1.5"),
        ({"prior_lr": float("nan")}, r"prior_lr .*got nan"),
        ({"prior_lr": "2e-6"}, r"prior_lr must be 'auto' or a number .*got '2e-6'"),
        ({"prior_init": [1.0]}, r"prior_init must be 4 non-negative numbers that sum to 1, got \[1.0\] \(shape \(1,\)"),
        ({"prior_init": [0.5, 0.5, 0.5, 0.5]}, r"prior_init .*sum 2"),
        ({"prior_init": [1.5, -0.5, 0.0, 0.0]}, r"prior_init .*non-negative"),
        ({"prior_init": [float("nan")] * 4}, r"prior_init .*sum nan"),
        ({"prior_init": "uniform"}, r"prior_init must be 4 numbers, got 'uniform'"),
        (
            {"beta_schedule": "cosine"},
            r"beta_schedule must be one of \('normalized', 'adaptive', 'linear', 'constant'\), got 'cosine'",
        ),
        ({"beta_init": -0.1}, r"beta_init .*got -0.1"),
        ({"beta_init": float("inf")}, r"beta_init must be a number in \[0, .*\], got inf"),
        ({"beta_init": float("inf"), "beta_max": float("inf")}, r"beta_init .*got inf"),
        ({"beta_init": 5.0, "beta_max": 1.0}, r"beta_init must be at most beta_max, got 5.0 and beta_max=1.0"),
        ({"beta_lr": 2.0}, r"beta_lr must be 'auto' or a number in \[0, 1\], got 2.0"),
        ({"beta_lr": -1.0, "beta_schedule": "linear"}, r"beta_lr .*got -1.0"),
        ({"beta_schedule": "linear"}, r"beta_lr must be a number >= 0 with beta_schedule='linear', got 'auto'"),
        ({"beta_scale": 0.0}, r"beta_scale must be a finite number > 0, got 0.0"),
        ({"beta_max": -1.0}, r"beta_max .*got -1.0"),
        ({"loss": "l1"}, r"loss must be one of \('mse', 'huber'\), got 'l1'"),
        ({"regularization": "none"}, r"regularization must be one of .*got 'none'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MIRL("MlpPolicy", TwoArms(n_actions=4), **arguments)


def test_wrong_arguments_are_named_when_loading(tmp_path):
    MIRL("MlpPolicy", TwoArms()).save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"prior_lr .*got 3"):
        MIRL.load(tmp_path / "model.zip", prior_lr=3)


@pytest.mark.parametrize("raised", [AssertionError, ValueError])  # SB3 raises the first
def test_wrong_action_spaces(raised):
    with pytest.raises(raised, match=r"action_space must be Discrete, got Box"):
        MIRL("MlpPolicy", "Pendulum-v1")


def test_policies_and_files_of_other_algorithms(tmp_path):
    with pytest.raises(ValueError, match=r"policy must be one of \['CnnPolicy', 'MlpPolicy', 'MultiInputPolicy'\] or"):
        MIRL(DQN.policy_aliases["MlpPolicy"], TwoArms())
    for other in (DQN("MlpPolicy", TwoArms(), buffer_size=10), PPO("MlpPolicy", TwoArms())):
        other.save(tmp_path / "other.zip")
        with pytest.raises(ValueError, match="the file was saved by another algorithm than MIRL"):
            MIRL.load(tmp_path / "other.zip")
    SQL("MlpPolicy", TwoArms()).save(tmp_path / "sql.zip")
    with pytest.raises(ValueError, match=r"saved by SQL: load it with SQL\.load"):
        MIRL.load(tmp_path / "sql.zip")


def test_another_number_of_actions(tmp_path):
    MIRL("MlpPolicy", TwoArms(n_actions=4)).save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"Action spaces do not match: Discrete\(4\) != Discrete\(3\)"):
        MIRL.load(tmp_path / "model.zip", env=TwoArms(n_actions=3))
    with pytest.raises(RuntimeError, match="size mismatch for prior"):
        MIRL("MlpPolicy", TwoArms(n_actions=3)).set_parameters(str(tmp_path / "model.zip"))


# ---- limits that must agree with SB3 ------------------------------------------------------------------------------


def test_the_greedy_limit_is_dqn():
    """Uniform fixed ρ, β = ∞ and Huber's loss: from the same weights and batches, the same gradients and weights as DQN."""
    settings = {"learning_starts": 50, "buffer_size": 1000, "target_update_interval": 40, "seed": 1, "learning_rate": 1e-3}
    settings |= {"policy_kwargs": {"net_arch": [32], "optimizer_kwargs": {"fused": False}}}
    dqn = DQN("MlpPolicy", "CartPole-v1", **settings).learn(300)
    limit = {"prior_lr": 0, "beta_schedule": "constant", "beta_init": np.inf, "loss": "huber"}
    mirl = MIRL("MlpPolicy", "CartPole-v1", **limit, **settings)
    mirl.policy.load_state_dict({**mirl.policy.state_dict(), **dqn.policy.state_dict()})
    mirl.policy.optimizer.load_state_dict(copy.deepcopy(dqn.policy.optimizer.state_dict()))
    mirl.replay_buffer = dqn.replay_buffer
    mirl.set_logger(dqn.logger)
    mirl._current_progress_remaining = dqn._current_progress_remaining
    for seed in range(20):
        for model in (dqn, mirl):
            np.random.seed(seed)
            model.train(gradient_steps=1, batch_size=64)
        for ours, theirs in zip(mirl.q_net.parameters(), dqn.q_net.parameters(), strict=True):
            np.testing.assert_allclose(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(mirl.q_net.parameters(), dqn.q_net.parameters(), strict=True):
        np.testing.assert_allclose(ours.detach(), theirs.detach(), rtol=1e-5, atol=1e-6)


def test_the_greedy_limit_acts_as_dqn():
    mirl = MIRL("MlpPolicy", "CartPole-v1", prior_lr=0, beta_schedule="constant", beta_init=np.inf)
    obs = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    greedy = mirl.q_net(th.as_tensor(obs)).argmax(1).numpy()
    np.testing.assert_array_equal(mirl.predict(obs, deterministic=True)[0], greedy)


def test_it_learns_what_pays():
    """One state: Q converges to the rewards, π and ρ to the action that pays."""
    model = MIRL(
        "MlpPolicy", TwoArms(), learning_rate=1e-2, learning_starts=100, buffer_size=2000, train_freq=1, gamma=0.9,
        beta_schedule="linear", beta_init=0.0, beta_lr=0.02, prior_lr=0.01, exploration_final_eps=0.1, seed=0,
    ).learn(1500)  # fmt: skip
    q = model.q_net(th.ones(1, 1)).detach().numpy()[0]
    np.testing.assert_allclose(q, [0, 1, 0, 0], atol=0.05)
    assert model.prior[1] > 0.95
    assert model.predict(np.ones(1, np.float32), deterministic=True)[0] == 1
