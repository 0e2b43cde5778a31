"""MIRL and its variants used as people use SB3's DQN."""

import copy
import inspect

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from models import FAST, check_save_load
from probes import ConstantReward, Image, Mixed, NamedActions, TwoArms
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import KVWriter, Logger, configure

from sb3_mirl import MIRL, SQL, PriorUpdateCallback, SQLDecoupled, SQLm

ALGORITHMS = [MIRL, SQL, SQLDecoupled, SQLm]


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


def test_what_is_shared_with_dqn_has_the_default_of_dqn():
    ours, theirs = inspect.signature(MIRL).parameters, inspect.signature(DQN).parameters
    shared = [name for name in theirs if name not in ("policy", "env")]
    assert {name: ours[name].default for name in shared} == {name: theirs[name].default for name in shared}


def stop_after_30_steps(locals_, globals_):
    """A callback: learning rates are resolved for the whole training when it begins."""
    return locals_["self"].num_timesteps < 30


def test_auto_is_resolved_once_and_stays_in_the_argument(tmp_path):
    model = MIRL("MlpPolicy", TwoArms(), **FAST)
    assert (model.prior_lr, model.beta_lr, model.prior_step_size, model.beta_step_size) == ("auto", "auto", None, None)
    model.learn(4000, callback=stop_after_30_steps)
    assert model.num_timesteps == 30
    resolved = model.prior_step_size, model.beta_step_size
    assert resolved == (20 / 4000, pytest.approx(8.25 / (4000 - 20) * 4))
    model.learn(100).save(tmp_path / "model")
    loaded = MIRL.load(tmp_path / "model", env=TwoArms())
    loaded.learn(100, reset_num_timesteps=False)
    exported = MIRL.load_exported(model.export(tmp_path / "model.safetensors"))
    for one in (model, loaded, exported):
        assert (one.prior_lr, one.beta_lr) == ("auto", "auto")
        assert (one.prior_step_size, one.beta_step_size) == resolved


def test_auto_is_not_resolved_by_failed_or_empty_learn():
    model = MIRL("MlpPolicy", TwoArms(), **FAST).learn(0)
    with pytest.raises(ValueError, match="at most one"):
        model.learn(20, callback=[PriorUpdateCallback(), PriorUpdateCallback()])
    assert (model.resolved_prior_lr, model.resolved_beta_lr) == (None, None)
    assert model.learn(4000, callback=stop_after_30_steps).resolved_prior_lr == 20 / 4000


def test_load_with_auto_resolves_again(tmp_path):
    MIRL("MlpPolicy", TwoArms(), **FAST).learn(100).save(tmp_path / "model")
    loaded = MIRL.load(tmp_path / "model", env=TwoArms(), prior_lr="auto")
    assert loaded.resolved_prior_lr is None and loaded.resolved_beta_lr is not None
    assert loaded.learn(4000, callback=stop_after_30_steps).prior_step_size == 20 / 4000


def test_numeric_step_sizes_are_not_scaled():
    model = MIRL("MlpPolicy", TwoArms(), prior_lr=0.25, beta_lr=0.5, **FAST).learn(100)
    assert (model.prior_step_size, model.beta_step_size) == (0.25, 0.5)
    assert (model.resolved_prior_lr, model.resolved_beta_lr) == (None, None)


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


def test_a_compiled_policy_learns():
    model = MIRL("MlpPolicy", ConstantReward(), prior_lr=0.1, **FAST)
    model.policy = th.compile(model.policy, backend="eager")
    model.learn(60)
    assert model._n_updates > 0


def test_logged_keys(tmp_path):
    model = MIRL("MlpPolicy", NamedActions(), tensorboard_log=str(tmp_path / "tb"), **FAST)
    model.set_logger(configure(str(tmp_path), ["csv", "json"]))
    model.learn(100, log_interval=1)
    columns = (tmp_path / "progress.csv").read_text().splitlines()[0].split(",")
    train = {f"train/{key}" for key in ("loss", "beta", "kl", "n_updates", "learning_rate")}
    assert train | {"rollout/exploration_rate", "rollout/prior_entropy", "prior/NOOP", "prior/FIRE"} <= set(columns)


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


def test_logged_kl_beta_and_entropy_by_hand():
    model = MIRL("MlpPolicy", ConstantReward(), prior_init=[0.25, 0.75], beta_schedule="constant", beta_init=0.0, **FAST)
    logged = learn_and_record(model, 50, log_interval=5)[-1]
    # β = 0: π = ρ, so that nothing is paid
    assert logged["train/kl"] == pytest.approx(0.0, abs=1e-7) and logged["train/beta"] == 0.0
    assert logged["rollout/prior_entropy"] == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75))
    # The step that ends the last episode is learned from after the dump
    assert logged["train/n_updates"] == model._n_updates - 1


def test_action_names_of_another_length_are_ignored():
    class Fewer(gym.ActionWrapper):
        def __init__(self, env):
            super().__init__(env)
            self.action_space = gym.spaces.Discrete(1)

        def action(self, action):
            return action

    assert "prior/action_0" in learn_and_record(MIRL("MlpPolicy", Fewer(NamedActions()), **FAST), 30, log_interval=1)[-1]


@pytest.mark.parametrize(
    "meanings",
    [None, ["A"], ["A", "A"], "AB", ("LEFT", "RIGHT"), [1, 2], NotImplementedError(), ["x" * 30, "x" * 31], ["A", "B", "B"]],
)
def test_invalid_action_names_are_ignored(meanings):
    class Odd(ConstantReward):
        def get_action_meanings(self):
            if isinstance(meanings, Exception):
                raise meanings
            return meanings

    logged = learn_and_record(MIRL("MlpPolicy", Odd(), verbose=1, **FAST), 30, log_interval=1)[-1]
    good = meanings in (("LEFT", "RIGHT"), [1, 2])
    keys = [f"prior/{name}" for name in meanings] if good else ["prior/action_0", "prior/action_1"]
    assert set(keys) <= set(logged)


def assert_sound(model):
    assert np.isfinite(model.beta) or model.beta_init == np.inf
    assert (model.prior >= 0).all() and abs(model.prior.sum() - 1) < 1e-9
    assert np.isfinite(model.policy.parameters_to_vector()).all()


@pytest.mark.parametrize("reward", [0.0, 1.0, -1.0, 1e6])
@pytest.mark.parametrize("prior_lr", [0.0, 1e-3, 1.0])
@pytest.mark.parametrize(
    "beta", [{"beta_init": 0.0}, {"beta_schedule": "constant", "beta_init": np.inf}, {"beta_lr": 1.0, "beta_max": np.inf}]
)
def test_extreme_rewards_and_step_sizes_keep_prior_and_beta_valid(reward, prior_lr, beta):
    settings = {**FAST, "train_freq": 1, "learning_rate": 1e-3, "target_update_interval": 20}
    assert_sound(MIRL("MlpPolicy", ConstantReward(reward), prior_lr=prior_lr, **beta, **settings).learn(120))


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


@pytest.mark.parametrize("steps", [2_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_beta_stays_below_beta_max_when_td_error_vanishes(steps):
    """L → 0 because everything is predictable: episodes of one step in one state."""
    env = ConstantReward(1.0, length=1, observation_space=gym.spaces.Box(1, 1, (1,)))
    settings = {**FAST, "learning_rate": 1e-3, "target_update_interval": 100, "beta_lr": 1e-3, "train_freq": 8}
    model = MIRL("MlpPolicy", env, prior_lr=1e-3, **settings)
    model.learn(steps, log_interval=None)
    assert_sound(model)
    assert 100 < model.beta <= model.beta_max


def test_nan_weights_leave_prior_and_beta_unchanged():
    model = MIRL("MlpPolicy", ConstantReward(), prior_lr=0.5, **{**FAST, "learning_starts": 0})
    with th.no_grad():
        next(model.q_net.parameters()).fill_(float("nan"))
    with pytest.raises(ValueError, match="loss was nan at gradient step 1"):
        model.learn(100)
    np.testing.assert_array_equal(model.prior, [0.5, 0.5])
    assert model.beta == 0.01


def test_infinite_beta_gradient_steps_equal_dqn():
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


def test_q_values_and_prior_converge_on_bandit():
    """One state: Q converges to the rewards, π and ρ to the action that pays."""
    model = MIRL(
        "MlpPolicy", TwoArms(), learning_rate=1e-2, learning_starts=100, buffer_size=2000, train_freq=1, gamma=0.9,
        beta_schedule="linear", beta_init=0.0, beta_lr=0.02, prior_lr=0.01, exploration_final_eps=0.1, seed=0,
    ).learn(1500)  # fmt: skip
    q = model.q_net(th.ones(1, 1)).detach().numpy()[0]
    np.testing.assert_allclose(q, [0, 1, 0, 0], atol=0.05)
    assert model.prior[1] > 0.95
    assert model.predict(np.ones(1, np.float32), deterministic=True)[0] == 1
