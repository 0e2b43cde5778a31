"""Equal tuning: the trials, their files, and the choice."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sb3_mirl import DQNMSE, train_jointly
from sb3_mirl.bench import command
from sb3_mirl.bench.suites import SETTINGS, SUITES, TUNINGS, Tuning, constructor_arguments
from sb3_mirl.bench.tuning import RANGES, choose, chosen_settings, file_of, run_trials, sample_trials, tune

QUICK = {"learning_starts": 50, "buffer_size": 300, "policy_kwargs": "dict(net_arch=[4])", "batch_size": 4}
SUITE = replace(
    SUITES["classic-actions"],
    steps={"CartPole-v1": 400, "Useless15/Acrobot-v1": 400},
    hyperparams={**SUITES["classic-actions"].hyperparams, **QUICK},
)
PLAN = Tuning(("CartPole-v1", "Useless15/Acrobot-v1"), share=0.5, trials=2, episodes=1)


@pytest.fixture(autouse=True, scope="module")
def not_compiled():
    """Compiling takes most of the time of such short trainings."""

    def plain(*settings):
        return {name: value for name, value in constructor_arguments(*settings).items() if name != "compile_update"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sb3_mirl.bench.tuning.constructor_arguments", plain)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Finished trials of two algorithms. Tests must not change it."""
    path = tmp_path_factory.mktemp("tuning")
    for algorithm in ("dqn", "mirl"):
        for env in PLAN.envs:
            assert run_trials(SUITE, PLAN, algorithm, env, file_of(path, algorithm, env)).exists()
    return path


def test_trials_of_all_algorithms_share_their_settings():
    trials = {algorithm: sample_trials(algorithm, 6) for algorithm in SETTINGS}
    for index, settings in enumerate(trials["mirl"]):
        beta = "beta_scale" if index % 2 else "beta_end"
        assert set(settings) == {"learning_rate", beta, "prior_steps"}
        for others in trials.values():
            shared = others[index].keys() & settings.keys()
            assert {name: others[index][name] for name in shared} == {name: settings[name] for name in shared}
        assert all(RANGES[name][0] <= value <= RANGES[name][1] for name, value in settings.items())
    assert set(trials["mdqn"][0]) == {"learning_rate", "entropy_temperature"} and set(trials["dqn"][0]) == {"learning_rate"}
    # A Latin hypercube: one learning rate in each sixth of the range
    low, high = np.log(RANGES["learning_rate"])
    places = [(np.log(settings["learning_rate"]) - low) / (high - low) for settings in trials["dqn"]]
    assert sorted(int(6 * place) for place in places) == [0, 1, 2, 3, 4, 5]
    assert trials["sql"] == [{k: v for k, v in settings.items() if k != "prior_steps"} for settings in trials["mirl"]]


def test_settings_are_relative_to_the_length_of_the_training():
    settings = {"learning_rate": 1e-3, "beta_end": 20.0, "prior_steps": 10.0}
    assert constructor_arguments("mirl", settings, steps=1000) == {
        "learning_rate": 1e-3,
        "loss": "mse",
        "compile_update": True,
        "prior_lr": 0.01,
        "beta_schedule": "linear",
        "beta_init": 0.0,
        "beta_lr": 0.04,
        "beta_max": 20.0,
    }
    assert constructor_arguments("dqn", {"learning_rate": 1e-3}, steps=10) == {"learning_rate": 1e-3}
    normalized = constructor_arguments("sql", {"learning_rate": 1e-3, "beta_scale": 7.0}, steps=10)
    assert (normalized["beta_schedule"], normalized["beta_scale"], normalized["beta_lr"]) == ("normalized", 7.0, "auto")


@pytest.mark.parametrize("name", TUNINGS)
def test_plans_use_environments_of_the_suite_and_other_seeds(name):
    suite, plan = SUITES[name], TUNINGS[name]
    assert set(plan.envs) <= set(suite.steps) and plan.trials >= 12
    assert not set(plan.seeds) & set(range(suite.seeds))
    assert set(suite.algorithms) <= set(SETTINGS)


def test_choice_is_the_best_mean_rank():
    # Means 0, 10, 8, 7 and -100, -300, -200, -150: ranks 1, 4, 3, 2 and 4, 1, 2, 3
    first = {"scores": [[0, 0], [10, 10], [6, 10], [7, 7]]}
    second = {"scores": [[-100, -100], [-300, -300], [-150, -250], [-150, -150]]}
    assert choose([first, second]) == (0, [2.5, 2.5, 2.5, 2.5])
    assert choose([first, first, second]) == (1, pytest.approx([2, 3, 8 / 3, 7 / 3]))
    # A run that failed makes a trial the worst; equal scores share a rank
    assert choose([{"scores": [[1, 1], [None, 9], [3, 3]]}, {"scores": [[5, 5]] * 3}]) == (2, [2, 1.5, 2.5])


def test_file_has_every_trial(folder):
    result = json.loads(file_of(folder, "mirl", "Useless15/Acrobot-v1").read_text())
    assert result["settings"] == sample_trials("mirl", 2) and result["steps"] == 200
    assert result["seeds"] == [1000, 1001, 1002] and result["shared"]["train_freq"] == 4
    assert np.shape(result["scores"]) == (2, 3) and set(np.ravel(result["scores"])) == {-500.0}


def test_scores_are_those_of_the_trials_and_seeds(monkeypatch, tmp_path):
    """The file has the score of each model in the place of its settings and its seed."""
    monkeypatch.setattr("sb3_mirl.bench.variants.evaluate", lambda model, *_: [model.lr_schedule(1.0) * model.seed])
    result = json.loads(run_trials(SUITE, PLAN, "sql", "CartPole-v1", tmp_path / "file.json").read_text())
    rates = [settings["learning_rate"] for settings in sample_trials("sql", 2)]
    assert result["scores"] == [pytest.approx([rate * seed for seed in (1000, 1001, 1002)]) for rate in rates]


def test_trials_of_dqn_have_hubers_loss(monkeypatch, tmp_path):
    losses = []

    def spy(models, steps, callback):
        losses.extend((type(model), model.loss, model.seed, model.lr_schedule(1.0)) for model in models)
        return train_jointly(models, steps, callback)

    monkeypatch.setattr("sb3_mirl.bench.variants.train_jointly", spy)
    run_trials(SUITE, PLAN, "dqn", "CartPole-v1", tmp_path / "file.json")
    rates = [settings["learning_rate"] for settings in sample_trials("dqn", 2)]
    assert losses == [(DQNMSE, "huber", seed, rate) for rate in rates for seed in (1000, 1001, 1002)]


def test_finished_trials_are_skipped_and_others_refused(folder):
    assert [*tune(SUITE, PLAN, ["dqn", "mirl"], folder, 1)] == [
        file_of(folder, algorithm, env) for env in PLAN.envs for algorithm in ("dqn", "mirl")
    ]
    with pytest.raises(ValueError, match=r"dqn_CartPole-v1.json' has another episodes: 1 instead of 2. Choose another"):
        [*tune(SUITE, replace(PLAN, episodes=2), ["dqn"], folder, 1)]


@pytest.mark.slow
def test_command_runs_what_is_missing_and_prints_the_choice(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(command.SUITES, "classic-actions", SUITE)
    monkeypatch.setitem(command.TUNINGS, "classic-actions", PLAN)
    for env in PLAN.envs:
        file_of(tmp_path, "mirl", env).write_text(file_of(folder, "mirl", env).read_text())
    file_of(tmp_path, "dqn", PLAN.envs[0]).write_text(file_of(folder, "dqn", PLAN.envs[0]).read_text())
    assert command.main(["tune", "classic-actions", "--algos", "dqn", "mirl", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    # In a process of its own
    missing = file_of(tmp_path, "dqn", PLAN.envs[1])
    assert json.loads(missing.read_text()) == json.loads(file_of(folder, "dqn", PLAN.envs[1]).read_text())
    for algorithm in ("dqn", "mirl"):
        assert f"{algorithm} Useless15/Acrobot-v1: 2 trials" in printed
        assert f"{chosen_settings(tmp_path, PLAN, algorithm)}, mean rank" in printed
    with pytest.raises(SystemExit):
        command.parse(["tune", "classic"])
    assert "invalid choice: 'classic'" in capsys.readouterr().err
