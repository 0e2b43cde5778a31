"""Scripts of ``benchmarks/`` run to their end, and the figure of the front page can be drawn."""

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch as th

from sb3_mirl import MIRL
from sb3_mirl.bench.jobs import Job
from sb3_mirl.cli.main import main
from sb3_mirl.common.files import write_whole
from sb3_mirl.envs.gridworld import FourRooms, FourRoomsGoals

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_measurements_for_a_gpu_run_on_a_processor():
    command = [ROOT / "benchmarks" / "gpu.sh", "--device", "cpu", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHON": sys.executable})
    assert done.returncode == 0, done.stdout + done.stderr
    tests, solo, joint = done.stdout.split("## ")[1:]
    assert "skipped" in tests or "passed" in tests
    assert "| cartpole | steps/s |" in solo and "MIRL, compiled" in solo
    for name in ("SB3's DQN", "MIRL, compiled", "1 MIRL jointly", "2 MIRL jointly, compiled"):
        assert f"| minatar | {name} |" in joint


@pytest.mark.slow
def test_strength_of_the_regularisation_runs(tmp_path, run_script):
    script, options = ROOT / "benchmarks" / "regularisation_strength.py", ("--results", tmp_path / "results.json")
    done = run_script(script, "run", "--steps", "300", "--envs", "CartPole-v1", *options)
    assert done.returncode == 0 and "CartPole-v1: done" in done.stdout, done.stderr
    done = run_script(script, "report", *options, "--images", tmp_path)
    assert done.returncode == 0 and "| without useless actions | draws from π |" in done.stdout, done.stderr
    assert (tmp_path / "strength.png").exists()


@pytest.mark.slow
def test_returns_while_learning_run(tmp_path, run_script):
    script, options = ROOT / "benchmarks" / "while_learning.py", ("--results", tmp_path / "results.json")
    done = run_script(script, "run", "--steps", "300", "--envs", "Useless15/CartPole-v1", *options)
    assert done.returncode == 0 and "Useless15/CartPole-v1: done" in done.stdout, done.stderr
    assert len(json.loads((tmp_path / "results.json").read_text())) == 40
    done = run_script(script, "report", *options, "--figure", tmp_path / "figure.png")
    assert done.returncode == 0 and "| H11, MIRL | " in done.stdout, done.stderr
    assert (tmp_path / "figure.png").exists()


@pytest.mark.slow
def test_control_without_useless_actions_runs(tmp_path, run_script):
    script, options = ROOT / "benchmarks" / "while_learning.py", ("--plan", "without", "--results", tmp_path / "results.json")
    done = run_script(script, "run", "--steps", "300", "--envs", "CartPole-v1", *options)
    assert done.returncode == 0 and "CartPole-v1: done" in done.stdout, done.stderr
    assert len(json.loads((tmp_path / "results.json").read_text())) == 96
    done = run_script(script, "report", *options, "--figure", tmp_path / "figure.png")
    # The published runs with useless actions, of CartPole alone
    assert done.returncode == 0, done.stderr
    assert "| H19 | MIRL, α_ρ = 1e-3 > SQL, after training, draws from π | 0.73 [" in done.stdout


@pytest.mark.slow
def test_sql_with_the_settings_of_mirl_runs(tmp_path, run_script):
    script, options = ROOT / "benchmarks" / "sql_with_mirl_settings.py", ("--results", tmp_path / "results.json")
    done = run_script(script, "run", "--steps", "300", "--envs", "Useless15/CartPole-v1", *options)
    assert done.returncode == 0 and "Useless15/CartPole-v1: done" in done.stdout, done.stderr
    assert [result["seed"] for result in json.loads((tmp_path / "results.json").read_text())] == [*range(10)]
    done = run_script(script, "report", *options)
    assert done.returncode == 0 and "| 15 | MIRL > SQL | " in done.stdout, done.stderr


@pytest.mark.slow
def test_models_of_minatar_act_by_draws(tmp_path, run_script):
    bench, file, script = tmp_path / "bench", tmp_path / "results.json", ROOT / "benchmarks" / "acting_in_minatar.py"
    command = ["bench", "run", "minatar-actions", "--envs", "Useless12/MinAtar-Breakout-v1", "--out", str(bench)]
    assert main([*command, "--steps", "100", "--seeds", "1", "--joint", "6"]) == 0
    done = run_script(script, "run", bench, "--results", file)
    assert done.returncode == 0, done.stderr
    results = json.loads(file.read_text())
    # The others have no ρ
    assert [result["algorithm"] for result in results] == ["sql", "sql_decoupled", "sql_m", "mirl"]
    for result in results:
        # A uniform prior changes no choice, and only MIRL's moves before the first update
        assert result["algorithm"] == "mirl" or result["prior_influence"] == result["prior_range"] == 0.0
        assert result["draws"] >= 0.0 and result["penalty"] >= 0.0
        # Episodes of Breakout end by a missed ball
        assert 0.0 <= result["reward_per_step"] <= result["draws"]
    done = run_script(script, "run", bench, "--results", file)
    assert done.returncode == 0 and done.stdout == "", done.stderr
    done = run_script(script, "report", "--results", file, "--suite-results", bench)
    assert done.returncode == 0 and "| H17 | MIRL > SQL_decoupled, draws from π | " in done.stdout, done.stderr
    script, options = ROOT / "benchmarks" / "dead_units.py", ("--results", tmp_path / "units.json")
    done = run_script(script, "run", bench, *options)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "units.json").read_text())
    # At their beginning networks are alive, and 128 units have a share of 1/128 each
    assert len(results) == 6 and all(0.0 <= result["dead"] < 0.9 and not result["constant"] for result in results)
    assert all((result["dead"] * 128).is_integer() for result in results)
    done = run_script(script, "report", *options)
    assert done.returncode == 0 and done.stdout.count("| Useless12/Breakout-v1 | ") == 1, done.stderr


@pytest.mark.slow
def test_runs_with_the_scores_of_a_constant_action_are_named(tmp_path, run_script):
    script, file = ROOT / "benchmarks" / "constant_actions.py", tmp_path / "results.json"
    done = run_script(script, "run", "--seeds", "1", "--episodes", "1", "--results", file)
    assert done.returncode == 0 and "SpaceInvaders: done" in done.stdout, done.stderr
    results = json.loads(file.read_text())
    assert len(results) == 21 and all(len(result["scores"]) == 1 for result in results)
    job = Job("sql", "Useless12/MinAtar-Freeway-v1", 0)
    result = job.result(ROOT / "results" / "minatar-actions")
    (up,) = (result["scores"] for result in results if (result["game"], result["action"]) == ("Freeway", "UP"))
    write_whole(job.result_file(tmp_path / "bench"), json.dumps(result | {"scores": up}).encode())
    done = run_script(script, "report", "--results", file, "--suite-results", tmp_path / "bench")
    assert done.returncode == 0, done.stderr
    assert re.search(r"(?m)^\| Freeway \| UP \| .* \| SQL \(12 useless\), seed 0 \|$", done.stdout)


@pytest.mark.slow
def test_settings_for_rare_rewards_are_trained(tmp_path, run_script):
    script, options = ROOT / "benchmarks" / "rare_rewards.py", ("--results", tmp_path / "results.json")
    done = run_script(script, "run", "--steps", "400", *options)
    assert done.returncode == 0 and done.stdout.count(": done") == 3, done.stderr
    done = run_script(script, "report", *options)
    assert done.returncode == 0 and done.stdout.count(" | 3 | ") == 3, done.stderr


@pytest.mark.slow
def test_exact_costs_of_the_penalty_are_those_of_the_page(tmp_path, run_script):
    done = run_script(ROOT / "benchmarks" / "regularisation_strength.py", "exact", "--images", tmp_path)
    assert done.returncode == 0 and (tmp_path / "strength_exact.png").exists(), done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| corridor | 15", "| square | 15"))]
    page = (ROOT / "docs" / "results.md").read_text("utf-8")
    assert len(rows) == 12 and all(row in page for row in rows)


def test_figure_of_the_front_page_shows_the_exact_optimum(tmp_path):
    spec = importlib.util.spec_from_file_location("prior_figure", ROOT / "benchmarks" / "prior_figure.py")
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    figure.BETAS = figure.BETAS[::14]
    steps, priors, greedy = figure.learned_priors(15_000, n_seeds=1, n_points=3)
    values = figure.exact_values()
    learned, best = figure.by_name(priors[-1, 0]), figure.by_name(values["prior"])
    assert learned["useless"] < 1e-3 and max(abs(learned[name] - best[name]) for name in best) < 0.05
    assert (values["uniform"] < values["best"]).all() and (values["best"] < values["no penalty"]).all()
    figure.draw(steps, priors, greedy, values, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def four_rooms_deep():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    yield importlib.import_module("four_rooms_deep")
    sys.path.remove(str(ROOT / "benchmarks"))


def test_expected_returns_of_a_random_walk_are_those_of_its_markov_chain(four_rooms_deep):
    goals = [(2, 4), (10, 10)]
    uniform = np.full((2, 104, 5, 4), 0.25)
    expected = []
    for world in map(FourRooms, goals):
        values = np.zeros(104)
        for _ in range(30):
            values = (world.reward + world.transition @ values).mean(axis=1)
        expected.append(world.initial_state_distrib @ values)
    assert expected[0] != expected[1]
    found = four_rooms_deep.expected_return(FourRoomsGoals(goals), uniform, max_steps=30)
    assert found == pytest.approx(np.mean(expected), abs=1e-12)


def test_expected_returns_of_choices_are_those_of_played_episodes(four_rooms_deep):
    family = FourRoomsGoals([(2, 4), (10, 10)])
    # The choice depends on all that is observed
    chosen = np.random.default_rng(0).integers(4, size=(2, 104, 5))
    returns = np.zeros((2, 104))
    for goal, start in np.argwhere(np.stack([world.initial_state_distrib for world in family.worlds])):
        family.reset()
        family.world, position, action, done = family.worlds[goal], start, 4, False
        family.world.state = position
        for _ in range(12):
            action = chosen[goal, position, action]
            observation, reward, done, _, _ = family.step(action)
            position = observation["position"]
            returns[goal, start] += reward
            if done:
                break
    expected = returns.sum() / (2 * 103)
    assert expected > -12.0
    assert four_rooms_deep.expected_return(family, np.eye(4)[chosen], max_steps=12) == pytest.approx(expected, abs=1e-12)


def test_priors_on_new_goals_with_networks(four_rooms_deep, monkeypatch, tmp_path, capsys):
    # In this process
    monkeypatch.setattr(four_rooms_deep, "in_processes", lambda function, tasks, processes: map(function, tasks))
    monkeypatch.setattr(four_rooms_deep, "N_ENVS", 4)
    monkeypatch.setitem(four_rooms_deep.SETTINGS, "learning_starts", 120)
    file, settings = tmp_path / "deep.json", {"training_steps": 160, "steps": 160, "eval_every": 80}
    four_rooms_deep.run(file, settings, [3], jobs=1)
    assert capsys.readouterr().out.count("seed 3:") == 6
    written = file.read_bytes()
    four_rooms_deep.run(file, settings, [3], jobs=1)
    assert capsys.readouterr().out == ""
    assert file.read_bytes() == written
    with pytest.raises(ValueError, match="choose another file"):
        four_rooms_deep.run(file, {**settings, "steps": 900}, [3], jobs=1)

    results = json.loads(written)
    four_rooms_deep.report(results)
    table, by_step, _ = capsys.readouterr().out.split("\n\n")
    rows = [line.split(" | ") for line in table.splitlines()[2:]]
    assert len(rows) == 12
    assert len(by_step.splitlines()) == 2 + 3
    mirl = np.array(results["runs"]["MIRL, ρ(a)"]["3"]["MIRL, ρ(a)"])
    dqn = np.array(results["runs"]["DQN"]["3"]["DQN"])
    assert rows[-1][0] == "| DQN"
    assert rows[-1][1].split()[0] == f"{dqn.mean():.1f}"
    assert rows[-1][2].split()[0] == f"{(dqn - mirl).mean():.1f}"


def test_frozen_skills_move_the_choice_of_the_skill_only(four_rooms_deep):
    kind, _ = four_rooms_deep.PRIORS["skills"]
    arguments = {**kind, "prior_lr": 0.1, "callbacks": [four_rooms_deep.FixedSkills()]}
    before, _ = four_rooms_deep.train(MIRL, arguments, [(2, 4)], 0, 1, 1000)
    after, _ = four_rooms_deep.train(MIRL, arguments, [(2, 4)], 0, 700, 1000)
    first, last = (model.policy.state_prior for model in (before, after))
    assert th.equal(first.low, last.low)
    assert not th.equal(first.high, last.high)


def test_what_the_speed_benchmark_leaves_out_exists(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = importlib.import_module("training_speed")
    assert all(hasattr(module, name) for parts in script.TECHNIQUES.values() for module, name, _ in parts)


def test_evaluations_of_defaults_are_seeded_and_have_the_environments_own_rewards(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = importlib.import_module("defaults")
    job = {"env": "CartPole-v1", "scale": 100.0, "seed": 1}
    model = MIRL("MlpPolicy", "CartPole-v1", buffer_size=10, seed=0)
    first, second = (script.evaluate(job, model, 1)["return"] for _ in range(2))
    assert first == second and 8 <= first <= 50
