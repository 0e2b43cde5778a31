"""BaseDQN: what DQN supports works, and limits that must agree with SB3."""

import inspect
import io
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from models import FAST, check_save_load
from probes import ConstantReward, Image, Mixed, NamedActions, TwoArms
from stable_baselines3 import DQN, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize
from torch import nn

from sb3_mirl import DQNMSE, MIRL, SQL, BaseDQN, SQLm
from sb3_mirl.common.gradient import td_loss
from sb3_mirl.mirl.callbacks import auto_beta_lr
from sb3_mirl.mirl.policies import MIRLPolicy

ALGORITHMS = [MIRL, SQL, SQLm]


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


def test_gradient_step_estimate_with_episode_train_freq():
    model = MIRL("MlpPolicy", TwoArms(), train_freq=(1, "episode"), **FAST).learn(300)
    assert model.resolved_beta_lr == auto_beta_lr(300)


def test_train_with_zero_gradient_steps():
    model = MIRL("MlpPolicy", ConstantReward(), **FAST).learn(30)
    before = model._n_updates
    model.train(gradient_steps=0)
    assert model._n_updates == before


# Forked: new processes would import torch first
@pytest.mark.parametrize("vec_env", [DummyVecEnv, partial(SubprocVecEnv, start_method="fork")])
def test_training_with_vector_environments(vec_env, tmp_path):
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
def test_dqn_arguments_train_save_and_load(settings, tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), **{**FAST, **settings}).learn(100)
    assert model._n_updates > 0
    model.save(tmp_path / "model.zip")
    loaded = MIRL.load(tmp_path / "model.zip", env=ConstantReward())
    loaded.learn(50)
    assert loaded._n_updates > model._n_updates


def test_training_with_vec_normalize(tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2))
    model = MIRL("MlpPolicy", env, **FAST).learn(200)
    env.save(tmp_path / "normalize.pkl")
    check_save_load(model, tmp_path / "model.zip", env.reset())


def test_training_with_her():
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


def test_save_to_a_stream_and_load_with_changed_arguments():
    stream = io.BytesIO()
    MIRL("MlpPolicy", "CartPole-v1", **FAST).learn(50).save(stream)
    stream.seek(0)
    loaded = MIRL.load(stream, env=gym.make("CartPole-v1"), prior_lr=0.25, loss="huber")
    assert (loaded.prior_lr, loaded.loss) == (0.25, "huber")


@pytest.mark.gpu
@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU and `-m gpu`")
def test_training_on_cuda(tmp_path):
    model = MIRL("CnnPolicy", Image(), device="cuda", learning_starts=20, buffer_size=200, prior_lr=0.1).learn(100)
    assert model.policy.prior.is_cuda and model.policy.beta.is_cuda
    model.save(tmp_path / "model.zip")
    on_cpu = MIRL.load(tmp_path / "model.zip", device="cpu")
    np.testing.assert_array_equal(on_cpu.prior, model.prior)


def test_tensorboard_folders_carry_the_name_of_the_algorithm(tmp_path):
    for algorithm in ALGORITHMS:
        algorithm("MlpPolicy", ConstantReward(), tensorboard_log=str(tmp_path), **FAST).learn(30)
    assert {folder.name for folder in tmp_path.iterdir()} == {"MIRL_1", "SQL_1", "SQLm_1"}


def test_an_error_in_the_names_of_actions_does_not_stop_training():
    class Broken(ConstantReward):
        def get_action_meanings(self):
            raise RuntimeError("not for this game")

    assert MIRL("MlpPolicy", Broken(), **FAST).learn(30).action_names is None


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


# ---- limits that must agree ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy, env", [("MlpPolicy", "CartPole-v1"), ("CnnPolicy", Image), ("MultiInputPolicy", Mixed)])
def test_base_dqn_equals_dqn(policy, env):
    settings = {"learning_starts": 30, "buffer_size": 500, "batch_size": 16, "learning_rate": 1e-3, "seed": 0}
    settings["target_update_interval"] = 50
    ours, theirs = (
        algorithm(policy, env if isinstance(env, str) else env(), **settings).learn(300) for algorithm in (BaseDQN, DQN)
    )
    assert ours._n_updates == theirs._n_updates > 60
    for name, value in theirs.policy.state_dict().items():
        th.testing.assert_close(ours.policy.state_dict()[name], value, rtol=0, atol=1e-4, msg=name)
    np.testing.assert_array_equal(ours.replay_buffer.actions[:300], theirs.replay_buffer.actions[:300])


@pytest.mark.parametrize("compile_update", [False, True])
def test_the_greedy_limit_of_mirl_is_dqn_with_the_mean_squared_error(compile_update):
    settings = {
        "learning_starts": 64,
        "buffer_size": 200,
        "policy_kwargs": {"net_arch": [16]},
        "seed": 0,
        "learning_rate": 1e-3,
    }
    dqn = BaseDQN("MlpPolicy", "CartPole-v1", loss="mse", **settings).learn(64)
    limit = {"prior_lr": 0.0, "beta_schedule": "constant", "beta_init": np.inf, "compile_update": compile_update}
    mirl = MIRL("MlpPolicy", "CartPole-v1", loss="mse", **limit, **settings).learn(64)
    mirl.policy.load_state_dict(dqn.policy.state_dict(), strict=False)
    mirl.replay_buffer = dqn.replay_buffer
    before = {name: value.clone() for name, value in dqn.policy.state_dict().items()}
    for model in (dqn, mirl):
        np.random.seed(1)
        model.train(20, batch_size=32)
    for name, value in dqn.policy.state_dict().items():
        th.testing.assert_close(mirl.policy.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)
        assert "target" in name or not th.equal(value, before[name])


def test_dqn_mse_is_base_dqn_with_another_loss():
    env = ConstantReward()
    assert (BaseDQN("MlpPolicy", env).loss, DQNMSE("MlpPolicy", env).loss) == ("huber", "mse")
    ours, theirs = inspect.signature(BaseDQN).parameters, inspect.signature(DQN).parameters
    assert {name: ours[name].default for name in theirs} == {name: theirs[name].default for name in theirs}


def test_the_loss_is_that_of_a_hand_calculation():
    q_values, next_q_values = th.tensor([[1.0, 2.0], [0.0, 5.0]]), th.tensor([[3.0, 1.0], [4.0, 8.0]])
    actions, rewards, dones = th.tensor([[1], [0]]), th.tensor([[1.0], [0.5]]), th.tensor([[0.0], [1.0]])
    # Targets are 1 + 0.5 · 3 = 2.5 and 0.5; errors 0.5 and 0.5
    loss, squared = td_loss(q_values, next_q_values, actions, rewards, dones, 0.5, loss="huber")
    assert (loss.item(), squared.item()) == pytest.approx((0.125, 0.25))
    assert td_loss(q_values, next_q_values, actions, rewards, dones, 0.5, loss="mse")[0].item() == pytest.approx(0.25)


# ---- BaseDQN by itself --------------------------------------------------------------------------------------------


def test_a_loss_of_a_subclass_is_used_by_the_plain_and_the_compiled_step():
    def scaled_loss(*args, loss):
        value, squared = td_loss(*args, loss=loss)
        return 3 * value, squared

    class Scaled(BaseDQN):
        batch_loss = staticmethod(scaled_loss)

    losses = []
    for cls, compiled in ((BaseDQN, False), (Scaled, False), (Scaled, True)):
        model = cls("MlpPolicy", "CartPole-v1", learning_starts=40, buffer_size=100, compile_update=compiled, seed=0)
        model.learn(40)
        np.random.seed(0)
        model.train(1, 32)
        losses.append(model.logger.name_to_value["train/loss"])
    assert losses[1] == pytest.approx(3 * losses[0]) and losses[2] == pytest.approx(losses[1], rel=1e-5)


def test_the_error_for_a_file_of_another_algorithm_names_both(tmp_path):
    BaseDQN("MlpPolicy", ConstantReward(), buffer_size=10).save(tmp_path / "base.zip")
    with pytest.raises(ValueError, match=r"saved by BaseDQN: load it with BaseDQN\.load"):
        MIRL.load(tmp_path / "base.zip")
    DQN("MlpPolicy", ConstantReward(), buffer_size=10).save(tmp_path / "dqn.zip")
    with pytest.raises(ValueError, match=r"subclass of sb3_mirl\.\S+DQNPolicy, got stable_baselines3\.\S+DQNPolicy"):
        BaseDQN.load(tmp_path / "dqn.zip")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(("mixed_precision", True), marks=pytest.mark.slow),
        ("loss", "mse"),
        ("batch_loss", lambda *a, **k: td_loss(*a, **k)),
    ],
)
def test_the_gradient_step_is_compiled_anew_when_a_setting_changes(change):
    model = BaseDQN("MlpPolicy", "CartPole-v1", learning_starts=40, buffer_size=100, compile_update=True, seed=0).learn(44)
    before = model._compiled_gradient[1]
    model.train(1, 8)
    assert model._compiled_gradient[1] is before
    setattr(model, *change)
    model.train(1, 8)
    assert model._compiled_gradient[1] is not before


@pytest.mark.parametrize("start", [0, -3, 5])
def test_base_dqn_takes_actions_that_start_anywhere(start):
    class ArmsFrom(TwoArms):
        def __init__(self):
            super().__init__()
            self.action_space = gym.spaces.Discrete(2, start=start)

        def step(self, action):
            assert self.action_space.contains(int(action))
            return super().step(int(action) - start)

    model = BaseDQN("MlpPolicy", ArmsFrom(), learning_starts=20, buffer_size=500, learning_rate=1e-2, seed=0).learn(400)
    assert set(np.unique(model.replay_buffer.actions[:400])) == {0, 1}
    assert model.predict(model.get_env().reset(), deterministic=True)[0][0] == start + 1


class CountingWarmUp:
    """A user's schedule that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, progress_remaining):
        self.calls += 1
        return 1e-5 * self.calls


def test_schedules_are_called_as_often_as_by_sb3():
    schedules = CountingWarmUp(), CountingWarmUp()
    for cls, schedule in zip((BaseDQN, DQN), schedules, strict=True):
        model = cls("MlpPolicy", ConstantReward(), **{**FAST, "learning_rate": schedule}).learn(0)
        before = schedule.calls
        model.learn(100)
        schedule.calls -= before
    assert schedules[0].calls == schedules[1].calls > 20


def test_a_model_trained_by_episodes_plays_in_several_environments(tmp_path):
    settings = {**FAST, "train_freq": (1, "episode"), "gradient_steps": -1}
    BaseDQN("MlpPolicy", ConstantReward(), **settings).learn(60).save(tmp_path / "model.zip")
    loaded = BaseDQN.load(tmp_path / "model.zip", env=make_vec_env(ConstantReward, 3))
    assert loaded.predict(loaded.get_env().reset())[0].shape == (3,)
    with pytest.raises(AssertionError, match="only one env when doing episodic training"):
        loaded.learn(60)
    with pytest.raises(ValueError, match="train_freq must count steps with several environments"):
        BaseDQN("MlpPolicy", make_vec_env(ConstantReward, 3), **settings)


class Broken(BaseFeaturesExtractor):
    """Its layer does not fit its output."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 8)
        self.layer = th.nn.Linear(4, 8)
        with th.no_grad():
            self.layer(th.zeros(1, 3))


def test_errors_of_a_users_network_are_its_own():
    image = ConstantReward(observation_space=spaces.Box(0, 255, (10, 10, 3), np.uint8))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as error:
        BaseDQN("MlpPolicy", image, **{**FAST, "policy_kwargs": {"features_extractor_class": Broken}})
    assert "NatureCNN" not in str(error.value)
