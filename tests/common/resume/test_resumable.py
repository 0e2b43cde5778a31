"""learn(), resume() and copies of models: what belongs to one call and to one run."""

import copy
from contextlib import nullcontext

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from models import FAST
from probes import ConstantReward, TwoArms
from resuming import SETTINGS, Interrupt, interrupt_at
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_mirl import DQNMSE, MIRL, CheckpointCallback


@pytest.fixture
def folder(tmp_path):
    env = VecNormalize(make_vec_env("CartPole-v1", 2, seed=5))
    MIRL("MlpPolicy", env, **SETTINGS).learn(96, CheckpointCallback(20, tmp_path))
    return tmp_path


def test_resuming_a_finished_run_changes_nothing(folder):
    model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
    before = model.policy.state_dict()["q_net.q_net.0.weight"].clone()
    model.learn(96, CheckpointCallback(20, folder))
    assert model.num_timesteps == 96
    assert th.equal(before, model.policy.state_dict()["q_net.q_net.0.weight"])


def test_an_id_makes_the_environment_of_the_constructor(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, CheckpointCallback(10, tmp_path))
    resumed = MIRL.resume(tmp_path, "CartPole-v1")
    assert model.env.render_mode == resumed.env.render_mode == "rgb_array"


@pytest.mark.parametrize(("total", "reset", "end"), [(152, True, 152), (152, False, 248)])
def test_resumed_run_can_be_extended(folder, total, reset, end):
    model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
    model.learn(total, reset_num_timesteps=reset)
    assert model.num_timesteps == end


def test_second_learn_is_a_new_training(folder):
    model = MIRL.resume(folder, VecNormalize(make_vec_env("CartPole-v1", 2)))
    model.learn(120)
    model.learn(30)
    assert model.num_timesteps == 32


def test_exploration_of_a_loaded_model_is_resumed(tmp_path):
    """``load()`` gives it an action space of its own, and DQN explores with the generator of that one."""
    settings = {"learning_starts": 0, "exploration_initial_eps": 1.0, "exploration_final_eps": 1.0, "seed": 1}
    DQNMSE("MlpPolicy", "CartPole-v1", buffer_size=100, **settings).save(tmp_path / "first")
    actions = []
    for interrupted_at in (None, 35):
        model = DQNMSE.load(tmp_path / "first", env="CartPole-v1")
        assert model.action_space is not model.env.action_space
        checkpoints = tmp_path / str(interrupted_at)
        with nullcontext() if interrupted_at is None else pytest.raises(Interrupt):
            model.learn(60, callback=[CheckpointCallback(20, checkpoints), interrupt_at(interrupted_at)])
        if interrupted_at is not None:
            model = DQNMSE.resume(checkpoints, "CartPole-v1").learn(60, callback=CheckpointCallback(20, checkpoints))
        actions.append(model.replay_buffer.actions[:60].ravel().tolist())
    assert actions[0] == actions[1] and set(actions[0]) == {0, 1}


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


def test_learning_goes_on_where_it_stopped():
    model = MIRL("MlpPolicy", "CartPole-v1", prior_lr=1e-3, beta_lr=1e-2, **FAST).learn(100)
    prior, beta = model.prior, model.beta
    model.learn(0, reset_num_timesteps=False)
    np.testing.assert_array_equal(model.prior, prior)
    assert model.beta == beta
    model.learn(100, reset_num_timesteps=False)
    assert model.num_timesteps == 200 and (model.prior != prior).all() and model.beta != beta


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


class CountsRollouts(BaseCallback):
    def __init__(self):
        super().__init__()
        self.count = 0

    def _on_rollout_start(self):
        self.count += 1

    def _on_step(self):
        return True


@pytest.mark.parametrize("before", [True, False])
def test_callbacks_hear_of_each_rollout_once(tmp_path, before):
    def callbacks(*more):
        counter, checkpoints = CountsRollouts(), CheckpointCallback(20, tmp_path)
        return counter, [counter, checkpoints, *more] if before else [checkpoints, counter, *more]

    with pytest.raises(Interrupt):
        MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(80, callbacks(interrupt_at(50))[1])
    counter, again = callbacks(interrupt_at(None))
    MIRL.resume(tmp_path, "CartPole-v1").learn(80, again)
    assert counter.count == 80 // 4


class Curriculum(BaseCallback):
    """Begins with the first level, whatever has been reached."""

    def _on_training_start(self):
        self.training_env.env_method("set_level", 0)
        self.model.policy.beta.fill_(7.0)
        self.model.policy.optimizer.param_groups[0]["weight_decay"] = 0.5
        self.training_env.action_space.seed(0)

    def _on_step(self):
        if self.n_calls == 30:
            self.training_env.env_method("set_level", 1)
            self.model.policy.optimizer.param_groups[0]["weight_decay"] = 0.25
        return True


class Levels(gym.Wrapper):
    level = None

    def set_level(self, level):
        self.level = level


def test_what_callbacks_set_when_training_starts_is_not_set_again(tmp_path):
    def env():
        return make_vec_env("CartPole-v1", 1, seed=5, wrapper_class=Levels)

    found = []
    for interrupted_at in (None, 70):
        folder, model = tmp_path / str(interrupted_at), MIRL("MlpPolicy", env(), **SETTINGS)
        with nullcontext() if interrupted_at is None else pytest.raises(Interrupt):
            model.learn(120, [Curriculum(), CheckpointCallback(20, folder), interrupt_at(interrupted_at)])
        if interrupted_at is not None:
            model = MIRL.resume(folder, env())
            model.learn(120, [Curriculum(), CheckpointCallback(20, folder), interrupt_at(None)])
        decay = model.policy.optimizer.param_groups[0]["weight_decay"]
        found.append(
            (model.env.env_method("get_wrapper_attr", "level"), model.beta, decay, *model.replay_buffer.actions.ravel())
        )
    assert found[0] == found[1]
    assert found[0][0] == [1] and found[0][2] == 0.25


def shaped(reward):
    return 2.0 * reward


class Shaping(gym.RewardWrapper):
    shape = None

    def set_shape(self, shape):
        self.shape = shape

    def reward(self, reward):
        return self.shape(reward)


def half_rate(progress):
    return 1e-3 * progress


class Supplies(BaseCallback):
    """What a checkpoint cannot hold, a callback supplies when training starts."""

    def _on_training_start(self):
        self.training_env.env_method("set_shape", shaped)
        self.model.lr_schedule = half_rate

    def _on_step(self):
        return True


@pytest.mark.filterwarnings("ignore:The environment's state is not in", "ignore:The policy is not restored as a whole")
def test_what_a_checkpoint_lacks_callbacks_supply(tmp_path):
    def env():
        return Shaping(gym.make("CartPole-v1"))

    with pytest.raises(Interrupt):
        MIRL("MlpPolicy", env(), **SETTINGS).learn(80, [Supplies(), CheckpointCallback(20, tmp_path), interrupt_at(50)])
    model = MIRL.resume(tmp_path, env())
    model.learn(80, [Supplies(), interrupt_at(None)])
    assert model.env.envs[0].get_wrapper_attr("shape") is shaped and model.lr_schedule is half_rate
    assert model.policy.optimizer.param_groups[0]["lr"] == half_rate(model._current_progress_remaining)


class Swapped(gym.Wrapper):
    def swap(self):
        self.env = gym.wrappers.TransformReward(gym.make("CartPole-v1"), shaped)
        self.env.reset()


class Swaps(BaseCallback):
    def _on_training_start(self):
        self.training_env.env_method("swap")

    def _on_step(self):
        return True


def test_environment_whose_wrappers_a_callback_changes_is_named(tmp_path):
    def env():
        return Swapped(gym.make("CartPole-v1"))

    MIRL("MlpPolicy", env(), **SETTINGS).learn(40, CheckpointCallback(20, tmp_path))
    model = MIRL.resume(tmp_path, env())
    with pytest.warns(UserWarning, match=r"they remain changed: the environment \(at "):
        model.learn(60, Swaps())
    assert model.num_timesteps == 60


def test_changes_between_resume_and_learn_remain(tmp_path):
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(40, CheckpointCallback(20, tmp_path))
    model = MIRL.resume(tmp_path, "CartPole-v1", beta_lr=0.0)
    model.policy.beta.fill_(7.0)
    other = make_vec_env("CartPole-v1", 1, wrapper_class=Levels)
    model.set_env(other)
    model.env.env_method("set_level", 3)
    model.learn(60)
    assert model.beta == 7.0 and model.env is other and other.env_method("get_wrapper_attr", "level") == [3]


@pytest.mark.parametrize("reset", [True, False])
def test_interrupted_learn_that_counts_on_is_continued(tmp_path, reset):
    model = MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(60)
    with pytest.raises(Interrupt):
        model.learn(60, [CheckpointCallback(20, tmp_path), interrupt_at(90)], reset_num_timesteps=False)
    with pytest.raises(Interrupt):
        MIRL.resume(tmp_path, "CartPole-v1").learn(
            60, [CheckpointCallback(10, tmp_path), interrupt_at(110)], reset_num_timesteps=reset
        )
    model = MIRL.resume(tmp_path, "CartPole-v1")
    assert model.num_timesteps == 100
    model.learn(60, [CheckpointCallback(20, tmp_path), interrupt_at(None)], reset_num_timesteps=False)
    assert model.num_timesteps == 120
    # That call is complete: another one trains so many steps more
    again = MIRL.resume(tmp_path, "CartPole-v1")
    again.learn(40, interrupt_at(None), reset_num_timesteps=False)
    assert again.num_timesteps == 160
