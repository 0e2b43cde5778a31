"""Variants of a suite's runs: their settings, callbacks and scores."""

import json
import os
import time
from dataclasses import replace

import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_mirl import MIRL
from sb3_mirl.bench.jobs import Job
from sb3_mirl.bench.suites import SUITES
from sb3_mirl.bench.training import EVALUATION_SEED
from sb3_mirl.bench.variants import Variant, in_processes, run_environments, train_variants

ENV = "Useless15/CartPole-v1"
SUITE = replace(
    SUITES["classic-actions"],
    steps={ENV: 200},
    hyperparams={**SUITES["classic-actions"].hyperparams, "learning_starts": 50, "policy_kwargs": "dict(net_arch=[4])"},
)


class Count(BaseCallback):
    def _on_step(self):
        self.steps = self.num_timesteps
        return True


def variant(algorithm, seed, **own):
    return Variant(replace(SUITE, own_hyperparams={algorithm: {"loss": "mse", **own}}), Job(algorithm, ENV, seed))


@pytest.fixture(scope="module")
def trained():
    callbacks = [Count(), Count()]
    fixed = {"beta_schedule": "linear", "beta_init": 3.0, "beta_lr": 0.0}
    runs = train_variants([variant("mirl", 5, **fixed), variant("sql", 6, beta_scale=2.0)], callbacks)
    assert [callback.steps for callback in callbacks] == [200, 200]
    assert [callback.model for callback in callbacks] == [run.model for run in runs]
    return runs


def test_runs_have_the_settings_of_their_variants(trained):
    mirl, sql = (run.model for run in trained)
    assert type(mirl) is MIRL and (mirl.seed, mirl.beta, mirl.loss) == (5, 3.0, "mse")
    assert (sql.seed, sql.beta_scale, sql.num_timesteps) == (6, 2.0, 200)
    assert [run.error for run in trained] == [None, None]


def test_scores_are_those_of_episodes_without_exploration(trained):
    run = trained[0]
    env = run.manager.create_envs(1, eval_env=True)
    env.seed(EVALUATION_SEED + 5)
    returns, _ = evaluate_policy(run.model, env, 3, deterministic=True, return_episode_rewards=True)
    assert run.scores(3) == returns


def test_something_else_can_act(trained):
    class FirstAction:
        def __init__(self, model):
            self.action_space, self.get_vec_normalize_env = model.action_space, model.get_vec_normalize_env

        def predict(self, observation, **_):
            return [0] * len(observation), None

    # A pole that is pushed to the left all the time falls at once
    assert all(8 <= score <= 11 for score in trained[0].scores(4, FirstAction(trained[0].model)))


def test_variants_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="batch_size"):
        train_variants([variant("sql", 0), variant("sql", 1, batch_size=7)])


def test_environments_with_results_are_skipped(tmp_path, monkeypatch, capsys):
    # In this process
    monkeypatch.setattr("sb3_mirl.bench.variants.in_processes", lambda function, tasks, processes: map(function, tasks))
    calls, file = [], tmp_path / "results.json"

    def train(task):
        calls.append(task)
        return [{"environment": task[0], "steps": task[1], "seed": seed} for seed in (1, 0)]

    run_environments(file, ["b"], 7, train, 1)
    assert json.loads(file.read_text()) == [{"environment": "b", "steps": 7, "seed": seed} for seed in (1, 0)]
    with pytest.raises(ValueError, match=r"has runs of 7 steps, not 8: choose another --results"):
        run_environments(file, ["a", "b"], 8, train, 1)
    run_environments(file, ["a", "b"], 7, train, 1, order=lambda result: (result["environment"], result["seed"]))
    assert calls == [("b", 7), ("a", 7)] and capsys.readouterr().out == "b: done\na: done\n"
    assert [(one["environment"], one["seed"]) for one in json.loads(file.read_text())] == [
        ("a", 0),
        ("a", 1),
        ("b", 0),
        ("b", 1),
    ]


def test_a_killed_process_is_an_error_and_the_others_finish():
    results = in_processes(eval, ["1", "__import__('os')._exit(3)", "2"], 1)
    assert {next(results), next(results)} == {1, 2}
    with pytest.raises(RuntimeError, match="A process was killed, perhaps for lack of memory"):
        next(results)


def test_an_error_in_a_process_is_raised_after_the_results():
    own = f"__import__('os').getpid() != {os.getpid()}"
    results = in_processes(eval, [own, "1 / 0", own], 1)
    assert next(results) and next(results)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_error_of_the_caller_ends_the_processes():
    begun = time.monotonic()
    for _ in in_processes(time.sleep, [0.0, 600.0, 600.0], 2):
        break
    assert time.monotonic() - begun < 300
