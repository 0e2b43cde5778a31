"""Scripts of ``benchmarks/`` run to their end."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

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


def test_priors_on_new_goals_with_networks(tmp_path):
    results, figure = tmp_path / "deep.json", tmp_path / "deep.png"
    script = [sys.executable, ROOT / "benchmarks" / "four_rooms_deep.py"]
    options = ["--training-steps", "700", "--steps", "700", "--eval-every", "300", "--seeds", "3", "--results", results]
    first = subprocess.run([*script, "run", *options], capture_output=True, text=True)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("seed 3:") == 6
    written = results.read_bytes()
    # What is in the file is skipped, and other settings are refused
    again = subprocess.run([*script, "run", *options], capture_output=True, text=True)
    assert (again.returncode, again.stdout, results.read_bytes()) == (0, "", written)
    other = subprocess.run([*script, "run", *options, "--steps", "900"], capture_output=True, text=True)
    assert other.returncode != 0
    assert "choose another file" in other.stderr
    done = subprocess.run(
        [*script, "report", "--results", results, "--figure", figure], capture_output=True, text=True, check=True
    )
    table = done.stdout.split("\n\n")[0].splitlines()
    assert len(table) == 2 + 12
    assert re.search(r"\| MIRL, ρ\(a\) \| -\d.* \| 0.0 \[nan, nan\] \|", done.stdout)
    assert figure.stat().st_size > 0
