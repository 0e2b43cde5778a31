"""sb3-mirl prior --map."""

import gymnasium as gym
import numpy as np
import pytest

from sb3_mirl import MIRL
from sb3_mirl.cli.main import main
from sb3_mirl.cli.prior_map import panels, read_world
from sb3_mirl.envs.gridworld import FourRooms, GridWorld

SMALL = {"buffer_size": 10, "policy_kwargs": {"net_arch": [4]}, "seed": 0}
CELLS = {"prior_type": "conditional", "prior_observation": "all"}
SKILLS = {"prior_type": "skills", "n_skills": 2, "prior_observation": {"high": None, "low": "all"}}


def file_of(tmp_path, env="MIRLSquare-v0", **settings):
    policy = "MultiInputPolicy" if "Goals" in env else "MlpPolicy"
    return str(MIRL(policy, env, **SMALL, **settings).export(tmp_path / "model"))


@pytest.mark.parametrize("settings", [CELLS, SKILLS])
def test_a_map_is_drawn(settings, tmp_path, capsys):
    out = tmp_path / "figures" / "map.png"
    assert main(["prior", file_of(tmp_path, **settings), "--map", "MIRLSquare-v0", "--out", str(out)]) == 0
    assert f"Wrote {out}" in capsys.readouterr().out and out.stat().st_size > 5000


def test_a_map_may_be_a_file(tmp_path):
    file = tmp_path / "map.txt"
    file.write_text("SSG\n")
    assert len(read_world(str(file)).positions) == 3
    file.write_text("S?G\n")
    with pytest.raises(ValueError, match=r"argument --map: .*map.txt' has no map of a grid world: .*unknown character '\?'"):
        read_world(str(file))


def test_panels_are_the_table_or_the_skills():
    world = GridWorld("SSG")
    table, low = np.full((3, 4), 0.25), np.full((2, 3, 4), 0.25)
    assert list(panels({"table": table}, None, world, "w")) == ["ρ(a|x)"]
    found = panels({"high": np.full((1, 2), 0.5), "low": low}, world.action_meanings, world, "w")
    assert list(found) == ["ρ(a|z=0, x)", "ρ(a|z=1, x)"] and all(one.shape == (3, 4) for one in found.values())


@pytest.mark.parametrize(
    "env, settings, arguments, message",
    [
        ("MIRLSquare-v0", CELLS, ["--map", "MIRLCorridor-v0"], "x must be the cell of 'MIRLCorridor-v0', which has "),
        ("MIRLSquare-v0", CELLS, ["--map", "MIRLSquar-v0"], "got 'MIRLSquar-v0', did you mean 'MIRLSquare-v0'?"),
        ("MIRLSquare-v0", CELLS, ["--map", "CartPole-v1"], "'CartPole-v1' is no grid world, choose one of MIRLCorridor-v0, "),
        ("MIRLSquare-v0", CELLS, ["--map", "MIRLFourRoomsGoals-v0"], "choose one of MIRLCorridor-v0, MIRLWideCorridor-v0, "),
        (
            "MIRLFourRoomsGoals-v0",
            {"prior_type": "conditional", "prior_observation": "goal"},
            ["--map", "MIRLFourRooms-v0"],
            "x must be the cell, the entry 'position' of an observation, and x is 'goal'",
        ),
        ("MIRLSquare-v0", {}, ["--map", "MIRLSquare-v0"], "needs a prior that depends on x, the cell"),
        (
            "CartPole-v1",
            {"prior_type": "conditional", "prior_observation": [0]},
            ["--map", "MIRLSquare-v0"],
            "needs a table ρ(a|x), and the prior of this file is a network",
        ),
    ],
)
def test_other_priors_and_worlds_are_refused(env, settings, arguments, message, tmp_path, capsys):
    out = tmp_path / "map.png"
    assert main(["prior", file_of(tmp_path, env, **settings), *arguments, "--out", str(out)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("sb3-mirl prior: argument --map: ") and message in printed and not out.exists()


def test_worlds_that_cannot_be_made_are_refused(tmp_path, capsys, monkeypatch):
    def make():
        raise gym.error.DependencyNotInstalled("no simulator")

    monkeypatch.setitem(gym.registry, "Other-v0", gym.envs.registration.EnvSpec("Other-v0", make))
    assert main(["prior", file_of(tmp_path, **CELLS), "--map", "Other-v0", "--out", str(tmp_path / "map.png")]) == 2
    assert capsys.readouterr().err == "sb3-mirl prior: argument --map: 'Other-v0' cannot be made: no simulator\n"


def test_a_map_is_that_of_one_model(tmp_path, capsys):
    file = file_of(tmp_path, **CELLS)
    assert main(["prior", file, file, "--map", "MIRLSquare-v0", "--out", str(tmp_path / "map.png")]) == 2
    assert capsys.readouterr().err == "sb3-mirl prior: argument --map: takes one MODEL, got 2\n"


def test_a_map_needs_a_figure(tmp_path, capsys):
    assert main(["prior", file_of(tmp_path, **CELLS), "--map", "MIRLSquare-v0"]) == 2
    assert capsys.readouterr().err == "sb3-mirl prior: argument --map: needs --out FIGURE\n"


def test_actions_that_are_not_the_moves_are_refused():
    world = FourRooms()
    table = np.full((len(world.positions), 4), 0.25)
    with pytest.raises(ValueError, match="the first actions must be UP, RIGHT, DOWN, LEFT, got A, B, C, D"):
        panels({"table": table}, list("ABCD"), world, "MIRLFourRooms-v0")
    with pytest.raises(ValueError, match="the first actions must be UP, RIGHT, DOWN, LEFT, got 2 actions"):
        panels({"table": table[:, :2]}, None, world, "MIRLFourRooms-v0")


def test_useless_actions_have_no_arrows_but_may_be_there():
    world = gym.make("MIRLSquare-v0", extra_actions=3).unwrapped
    table = np.full((len(world.positions), 7), 1 / 7)
    assert panels({"table": table}, world.action_meanings, world, "w")["ρ(a|x)"] is table
