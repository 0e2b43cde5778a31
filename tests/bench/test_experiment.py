"""Jobs as experiments of rl-zoo3: hyper-parameters, and what is refused."""

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import pytest
import rl_zoo3
from bench_runs import CARTPOLE, TINY

from sb3_mirl.bench.experiment import check, check_pair, experiment_manager, prepared_manager, register_suite
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.suites import SUITES, Suite
from sb3_mirl.zoo.register import register

# Box2D's
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")


@pytest.mark.parametrize("suite", SUITES.values(), ids=list(SUITES))
def test_every_suite_can_be_set_up(suite):
    # Atari's games have one section
    envs = list(suite.steps)[-1:] if suite.extra == "atari" else list(suite.steps)[-2:]
    register()
    algorithms = [algorithm for algorithm in suite.algorithms if algorithm in rl_zoo3.ALGOS]
    check(suite, [Job(algorithm, env, 0) for algorithm in (*algorithms, "qrdqn") for env in envs])


def test_suite_hyperparameters_apply_to_dqn_variants_only():
    suite = replace(SUITES["atari19-100k"], steps={"BoxingNoFrameskip-v4": 100})
    settings = {
        algorithm: check_pair(suite, algorithm, "BoxingNoFrameskip-v4") for algorithm in ("ppo", "qrdqn", "sql", "mirl")
    }
    assert "buffer_size" not in settings["ppo"] and settings["ppo"]["n_steps"] == 128
    assert {settings[name]["buffer_size"] for name in ("qrdqn", "sql", "mirl")} == {100_000}
    assert "prior_lr" not in settings["sql"] and settings["mirl"]["prior_lr"] == 2e-4


def test_arguments_of_environments_apply_to_every_algorithm_in_training_and_evaluation():
    arguments = {"full_action_space": True, "repeat_action_probability": 0.25}
    suite = replace(SUITES["atari-full"], env_kwargs=arguments)
    register_suite(suite)
    manager = experiment_manager(suite, Job("ppo", "AssaultNoFrameskip-v4", 0), Path(), "cpu")
    hyperparams, saved = manager.read_hyperparameters()
    assert saved["env_kwargs"] == arguments
    _, manager.env_wrapper, _, manager.vec_env_wrapper = manager._preprocess_hyperparams(hyperparams)
    for eval_env in (False, True):
        env = manager.create_envs(1, eval_env=eval_env, no_log=True)
        assert env.action_space.n == 18
        assert env.get_attr("ale")[0].getFloat("repeat_action_probability") == 0.25


@pytest.mark.parametrize("env_id", ["MinAtar/Breakout-v1", "Useless12/MinAtar-Breakout-v1"])
@pytest.mark.parametrize("eval_env", [False, True])
def test_episodes_that_a_time_limit_ends_are_counted(env_id, eval_env):
    suite = SUITES["minatar-actions"]
    register_suite(suite)
    env = prepared_manager(suite, Job("mirl", env_id, 0), Path()).create_envs(1, eval_env=eval_env, no_log=True)
    wrappers = [env.envs[0]]
    while isinstance(wrappers[-1], gym.Wrapper):
        wrappers.append(wrappers[-1].env)
    limits = [wrapper for wrapper in wrappers if isinstance(wrapper, gym.wrappers.TimeLimit)]
    assert {limit._max_episode_steps for limit in limits} == {10_000}
    for limit in limits:
        limit._max_episode_steps = 3
    env.reset()
    # In three steps a ball does not reach the bottom
    infos = [env.step([0])[3][0] for _ in range(3)]
    assert infos[-1]["TimeLimit.truncated"] and infos[-1]["episode"]["l"] == 3


def test_unknown_environment_is_refused():
    suite = Suite("mine", {"Nowhere-v0": 10}, epsilon=0.0)
    with pytest.raises(ValueError, match=r"Nowhere-v0 cannot be made: .*doesn't exist"):
        check(suite, [Job("dqn", "Nowhere-v0", 0)])


def test_misspelt_hyperparameter_is_refused():
    suite = replace(TINY, own_hyperparams={"mirl": {"prior_lrr": 1.0}})
    with pytest.raises(ValueError, match="did you mean 'prior_lr'"):
        check(suite, [CARTPOLE])
