"""sb3-mirl prior: which actions an agent chose seldom."""

import json
import math
import pickle
import re
import sys
import zipfile
from base64 import b64encode

import numpy as np
import pytest
from prior_files import NAMES, RHO, SMALL, model_with, zip_of
from probes import TwoArms
from stable_baselines3 import DQN

from sb3_mirl import MIRL, SQL, SQLm
from sb3_mirl.cli.main import main
from sb3_mirl.cli.prior import diagnose
from sb3_mirl.common.learning_curve import add_return


@pytest.fixture(params=["zip", "export"])
def file(request, tmp_path):
    model = model_with(RHO)
    return zip_of(model, tmp_path / "a.zip") if request.param == "zip" else model.export(tmp_path / "a")


def resolved(prior_lr, **settings):
    """A model whose ``prior_lr`` is "auto", as ``learn`` leaves it."""
    model = model_with(RHO, **settings)
    model.prior_lr, model.resolved_prior_lr, model.resolved_beta_lr = "auto", prior_lr, 0.002
    return model


def test_diagnosis_by_hand(file):
    found = diagnose(file)
    assert found["actions"] == NAMES and found["prior"] == RHO and found["steps"] == 1000
    expected = {
        "entropy": 1.75 * math.log(2),
        "log_n": 2 * math.log(2),
        "effective_actions": 2**1.75,
        "kl_from_uniform": 0.25 * math.log(2),
        "initial_weight": math.exp(1000 * math.log(0.99)),
        "limit": 0.1 / 4,
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert found["rare"] == [] and found["inconclusive"] is None


def test_report_sorts_actions_by_probability(file, capsys):
    assert main(["prior", str(file), "--threshold", "0.6"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith("  ")]
    assert rows == [
        ["UP", "0.500000", "#" * 30],
        ["FIRE", "0.250000", "#" * 15],
        ["NOOP", "0.125000", "#" * 8],
        ["DOWN", "0.125000", "#" * 8],
    ]
    assert "(1 - prior_lr)^steps = 4.32e-05" in out
    assert out.endswith(
        "The policy seldom chose NOOP, DOWN (rho(a) < 0.15, 0.6 of the uniform 1/n): together 25 % of its choices in about "
        "the last 100 of 1000 steps.\nThe file has too few returns of episodes to say whether the agent got better: the task "
        "may need these actions.\n"
    )


def test_rare_actions_on_a_problem_with_a_known_answer(tmp_path, capsys):
    settings = {"learning_rate": 1e-2, "beta_schedule": "constant", "beta_init": 20.0, "learning_starts": 100, "seed": 0}
    model = MIRL("MlpPolicy", TwoArms(n_actions=4), prior_lr=0.02, **settings, **SMALL).learn(1000)
    for path in (zip_of(model, tmp_path / "arms.zip"), model.export(tmp_path / "arms")):
        found = diagnose(path)
        assert found["rare"] == ["action_0", "action_2", "action_3"]
        # One step an episode; random at first, and nearly always right at last
        assert found["returns"]["first"] < 0.8 and found["returns"]["last"] > 0.9 and found["returns"]["improved"]
        assert main(["prior", str(path)]) == 0
        assert re.search(r"mean return rose from 0\.\d+ in the first \d+ episodes to (1|0\.9)", capsys.readouterr().out)


def test_without_improvement_the_text_says_that_the_task_may_need_the_actions(tmp_path, capsys):
    # As on a task of which it never found the reward: the same return in all episodes
    model = model_with([0.997, 0.001, 0.001, 0.001])
    for _ in range(500):
        add_return(model.learning_curve, -200.0)
    for path in (zip_of(model, tmp_path / "a.zip"), model.export(tmp_path / "a")):
        found = diagnose(path)
        assert found["rare"] == NAMES[1:] and not found["returns"]["improved"]
        assert main(["prior", str(path)]) == 0
        out = capsys.readouterr().out
        assert "learned" not in out and "went from -200 in the first 120 episodes to -200 in the last" in out
        assert "no significant improvement: the task may need these actions." in out


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (lambda: model_with(RHO, cls=SQL, prior_lr=0.0), "prior_lr is 0"),
        (lambda: model_with(RHO, prior_lr=0.0), "prior_lr is 0"),
        (lambda: resolved(None, steps=-100), "prior_lr is 0"),
        (lambda: model_with(RHO, prior_lr=1e-310), "inf steps since learning_starts, the agent made 1000"),
        (lambda: model_with(RHO, steps=-50), "no step since learning_starts"),
        # 0.99^k < 0.1 from k = 230 on
        (lambda: model_with(RHO, steps=229), r"a weight of 0.1, which must fall below 0.1: that takes 230 .* made 229"),
    ],
)
def test_nothing_is_concluded_from_a_prior_that_has_hardly_moved(model, why, tmp_path, capsys):
    path = zip_of(model(), tmp_path / "model.zip")
    found = diagnose(path)
    assert found["rare"] is None and re.search(why, found["inconclusive"])
    assert main(["prior", str(path)]) == 0 and "Nothing can be concluded: " in capsys.readouterr().out


def test_rare_actions_are_named_after_enough_steps(tmp_path):
    prior = [0.997, 0.001, 0.001, 0.001]
    assert diagnose(zip_of(model_with(prior, steps=230), tmp_path / "a.zip"))["rare"] == NAMES[1:]
    assert diagnose(model_with(prior, cls=SQLm).export(tmp_path / "b"))["rare"] == NAMES[1:]


def test_the_resolved_prior_lr_is_used(tmp_path, capsys):
    model = resolved(0.01)
    for path in (zip_of(model, tmp_path / "a.zip"), model.export(tmp_path / "a")):
        assert diagnose(path)["prior_lr"] == 0.01
        assert main(["inspect", str(path)]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert ["prior_lr", "auto", "(0.01)"] in lines and ["resolved_beta_lr", "0.002"] in lines


def test_a_uniform_prior_after_many_steps_is_reported(tmp_path, capsys):
    path = model_with([0.25, 0.25, 0.26, 0.24], beta_schedule="constant", beta_init=math.inf).export(tmp_path / "a")
    assert main(["prior", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "rho is nearly uniform: over all states together the agent takes its actions about equally often" in printed
    assert "or beta, inf, is too small" in printed
    assert main(["prior", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)[0]["beta"] == "inf"


def test_actions_that_were_rare_from_the_beginning_are_not_reported(tmp_path):
    model = model_with([0.98, 0.0, 0.01, 0.01], prior_init=np.array([0.5, 0.0, 0.49, 0.01]))
    for path in (zip_of(model, tmp_path / "a.zip"), model.export(tmp_path / "b")):
        assert diagnose(path)["rare"] == ["DOWN"]
    # As zips had it when arrays were pickled
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(content["data"])
    data["prior_init"] = {":type:": "<class 'numpy.ndarray'>", ":serialized:": b64encode(pickle.dumps(RHO)).decode()}
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        for name, value in {**content, "data": json.dumps(data)}.items():
            archive.writestr(name, value)
    assert "prior_init is a pickle" in diagnose(tmp_path / "old.zip")["inconclusive"]


def test_several_models_side_by_side(tmp_path, capsys):
    first = model_with(RHO).export(tmp_path / "first")
    second = zip_of(model_with([0.99, 0.01], names=["UP", "LEFT"]), tmp_path / "second.zip")
    assert main(["prior", str(first), str(second), "--out", str(tmp_path / "figures" / "both.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("  ")]
    assert rows[0] == ["UP", "0.500000", "0.990000"] and ["LEFT", "-", "0.010000"] in rows and len(rows) == 5
    assert lines[-3].startswith("[2] The policy seldom chose LEFT")
    assert (tmp_path / "figures" / "both.png").stat().st_size > 1000
    assert main(["prior", str(first), str(second), "--json"]) == 0
    assert [len(found["prior"]) for found in json.loads(capsys.readouterr().out)] == [4, 2]


def test_errors_are_one_line_with_exit_status_2(tmp_path, capsys, monkeypatch):
    good = str(model_with(RHO).export(tmp_path / "good"))
    DQN("MlpPolicy", "CartPole-v1", buffer_size=10).save(tmp_path / "dqn.zip")
    (tmp_path / "junk.zip").write_bytes(b"PK\x03\x04 nothing")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for arguments, error in {
        ("missing",): "there is no file",
        (good, str(tmp_path / "dqn.zip")): "no model of MIRL or its variants",
        (str(tmp_path / "junk.zip"),): "junk.zip",
        (good, "--threshold", "0"): "threshold must be a number in (0, 1], got 0.0",
        (good, "--threshold", "nan"): "threshold must be a number in (0, 1], got nan",
        (good, "--out", str(tmp_path / "a.png")): "pip install 'sb3-mirl[bench]'",
    }.items():
        assert main(["prior", *arguments]) == 2
        out, err = capsys.readouterr()
        assert not out and err.startswith("sb3-mirl prior: ") and err.count("\n") == 1 and error in err


def test_a_figure_that_cannot_be_written_is_a_mistake(tmp_path, capsys):
    good = str(model_with(RHO).export(tmp_path / "good"))
    for out in (tmp_path / "figure.doc", tmp_path):
        assert main(["prior", good, "--out", str(out)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.endswith(f"argument --out: must be a file with the suffix .png, .pdf or .svg, got {str(out)!r}")


def test_names_that_look_like_formulas_are_drawn(tmp_path):
    names = [r"$\frac{$", "$$", r"\$", "\x1b[31m"]
    for path in (model_with(RHO, names).export(tmp_path / "$\\frac{$"), zip_of(model_with(RHO, names), tmp_path / "a.zip")):
        assert main(["prior", str(path), "--out", str(tmp_path / "a.svg")]) == 0
