"""load_prior: the ρ of a model file starts another run."""

import json
import pickle
import zipfile
from base64 import b64encode
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from exports import Bomb
from prior_files import NAMES, RHO, SMALL, Named, model_with, zip_of
from probes import ConstantReward, Matching, TwoArms
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl import MIRL, load_prior
from sb3_mirl.cli.main import main
from sb3_mirl.cli.prior import diagnose


@pytest.fixture(params=["zip", "export"])
def file(request, tmp_path):
    model = model_with(RHO)
    return zip_of(model, tmp_path / "a.zip") if request.param == "zip" else model.export(tmp_path / "a")


def test_a_prior_starts_another_run(file):
    np.testing.assert_array_equal(load_prior(file), RHO)
    model = MIRL("MlpPolicy", ConstantReward(n_actions=4), prior_init=load_prior(file), **SMALL)
    np.testing.assert_array_equal(model.prior, RHO)


def test_a_prior_on_the_zoos_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model_with([0.3, 0.7], names=None).export("model")
    value = "__import__('sb3_mirl').load_prior('model').tolist()"
    settings = ["--eval-freq", "-1", "--num-threads", "1", "--verbose", "0", "-params", "learning_starts:1000"]
    command = ["train", "--algo", "mirl", "--env", "CartPole-v1", "-n", "300", "-f", "logs", *settings]
    assert main([*command, f"prior_init:{value}"]) == 0
    (trained,) = Path("logs").glob("mirl/CartPole-v1_1/CartPole-v1.zip")
    np.testing.assert_allclose(load_prior(trained), [0.3, 0.7])


def test_actions_are_matched_by_name(file):
    order = ["FIRE", "NOOP", "DOWN", "UP"]
    np.testing.assert_allclose(load_prior(file, Named(order)), [1 / 4, 1 / 8, 1 / 8, 1 / 2])
    fewer = make_vec_env(lambda: Named(["UP", "FIRE"]), 2)
    np.testing.assert_allclose(load_prior(file, fewer), [2 / 3, 1 / 3])
    more = Named([*NAMES, "LEFT"])
    np.testing.assert_allclose(load_prior(file, more, uniform_share=0.1), 0.9 * np.array([*RHO, 0.0]) + 0.1 / 5)
    np.testing.assert_allclose(load_prior(file, more, uniform_share=1.0), np.full(5, 0.2))


def test_an_environment_can_be_given_by_its_id(file):
    np.testing.assert_array_equal(load_prior(file, "FrozenLake-v1"), RHO)


def test_six_actions_of_pong_among_all_18(tmp_path):
    names = gym.make("ALE/Pong-v5").unwrapped.get_action_meanings()
    path = model_with([0.3, 0.1, 0.2, 0.1, 0.2, 0.1], names=names).export(tmp_path / "pong")
    env = gym.make("ALE/Pong-v5", full_action_space=True)
    prior = load_prior(path, env, uniform_share=0.1)
    by_name = dict(zip(env.unwrapped.get_action_meanings(), prior, strict=True))
    assert len(by_name) == 18 and prior.sum() == pytest.approx(1.0)
    assert (by_name["NOOP"], by_name["RIGHT"]) == pytest.approx((0.27 + 0.1 / 18, 0.18 + 0.1 / 18))
    assert by_name["UP"] == pytest.approx(0.1 / 18)


def test_without_names_actions_are_matched_by_order(tmp_path, file):
    np.testing.assert_array_equal(load_prior(file, TwoArms(n_actions=4)), RHO)
    nameless = model_with(RHO, names=None).export(tmp_path / "nameless")
    np.testing.assert_array_equal(load_prior(nameless, Named(["A", "B", "C", "D"])), RHO)
    with pytest.raises(ValueError, match=r"env must have as many actions as .*, 4, got 2: .* the file has none"):
        load_prior(nameless, Named(["A", "B"]))


@pytest.mark.parametrize(
    ("env", "share", "message"),
    [
        (TwoArms(n_actions=3), 0.1, "env must have as many actions as .*, 4, got 3: .* env has none"),
        (Named([*NAMES, "LEFT"]), 0.0, r"env has actions that .* does not know, \['LEFT'\].*uniform_share must be above 0"),
        (Named(["LEFT", "RIGHT"]), 0.1, "env must share actions with .*, got"),
        (None, 1.5, r"uniform_share must be a number in \[0, 1\], got 1.5"),
        (None, "0.1", r"uniform_share must be a number in \[0, 1\], got '0.1'"),
        ("CartPole-v1", 0.0, "env must have as many actions as .*, 4, got 2"),
        (7, 0.0, "env must be an environment, its id or None, got 7"),
        (None, float("nan"), r"uniform_share must be a number in \[0, 1\], got nan"),
        (gym.make("Pendulum-v1"), 0.1, "env must have a Discrete action space"),
    ],
)
def test_environments_that_do_not_fit_are_refused(file, env, share, message):
    with pytest.raises(ValueError, match=message):
        load_prior(file, env, share)


def test_no_code_of_a_zip_is_run(tmp_path):
    path = zip_of(model_with(RHO), tmp_path / "model.zip")
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    marker = tmp_path / "marker"
    pickled = {":type:": "<class 'str'>", ":serialized:": b64encode(pickle.dumps(Bomb(marker))).decode()}
    content["data"] = json.dumps({**json.loads(content["data"]), "observation_space": pickled}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    np.testing.assert_array_equal(load_prior(path), RHO)
    diagnose(path)
    assert not marker.exists()


class NamedMatching(Matching):
    """With names of the actions, in any order."""

    def __init__(self, names=("LEFT", "RIGHT"), discrete=True):
        super().__init__(discrete)
        self.names = list(names)

    def get_action_meanings(self):
        return self.names


TABLE = {"prior_type": "conditional", "prior_observation": "all"}
SKILLS = {"prior_type": "skills", "prior_observation": {"high": "all", "low": None}, "n_skills": 3}
NETWORK = {"prior_type": "conditional", "prior_observation": [1], "prior_kwargs": {"net_arch": [4]}}


def written(tmp_path, kind, as_zip=False, **settings):
    model = MIRL("MlpPolicy", NamedMatching(discrete=kind is not NETWORK), seed=0, **SMALL, **kind, **settings)
    model.action_names = ["LEFT", "RIGHT"]
    return model, zip_of(model, tmp_path / "a.zip") if as_zip else model.export(tmp_path / "a")


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_table_starts_another_run(as_zip, tmp_path):
    rows = [[0.25, 0.75], [1.0, 0.0]]
    _, path = written(tmp_path, TABLE, as_zip, prior_init=rows)
    loaded = load_prior(path)
    assert loaded["prior_observation"] == "all" and loaded["table"].tolist() == rows
    swapped = load_prior(path, NamedMatching(["RIGHT", "LEFT"]), uniform_share=0.5)
    np.testing.assert_allclose(swapped["table"], [[0.625, 0.375], [0.25, 0.75]])
    assert MIRL("MlpPolicy", Matching(), **SMALL, **TABLE, prior_init=loaded).prior.tolist() == rows


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_level_of_skills_starts_another_run(as_zip, tmp_path):
    model, path = written(tmp_path, SKILLS, as_zip)
    low = load_prior(path, level="low")
    assert low.keys() == {"low", "prior_observation"} and low["prior_observation"] == {"low": None}
    np.testing.assert_allclose(low["low"], model.policy.state_prior.low, rtol=1e-15)
    # Another view of the high level, which is learned anew
    other = {**SKILLS, "prior_observation": {"high": None, "low": None}}
    started = MIRL("MlpPolicy", Matching(), **SMALL, **other, prior_init=low, seed=3).policy.state_prior
    np.testing.assert_allclose(started.low, model.policy.state_prior.low, rtol=1e-15)
    with pytest.raises(ValueError, match=r"prior_init must be of the view prior_observation=.*got a prior of {'high': 'all'"):
        MIRL("MlpPolicy", Matching(), **SMALL, **other, prior_init=load_prior(path))


@pytest.mark.parametrize("as_zip", [False, True])
def test_a_network_starts_another_run(as_zip, tmp_path):
    model, path = written(tmp_path, NETWORK, as_zip)
    started = MIRL("MlpPolicy", Matching(False), **SMALL, **NETWORK, prior_init=load_prior(path), seed=3).policy.state_prior
    np.testing.assert_array_equal(started.network[0].weight.detach(), model.policy.state_prior.network[0].weight.detach())
    with pytest.raises(ValueError, match=r"env must be None and uniform_share 0 .*, which is a network"):
        load_prior(path, uniform_share=0.1)


def test_priors_of_another_kind_or_view_are_refused(tmp_path, file):
    _, path = written(tmp_path, TABLE)
    with pytest.raises(ValueError, match=r"prior_init must be a list of numbers .*, got a dict of .*'table'"):
        MIRL("MlpPolicy", Matching(), **SMALL, prior_init=load_prior(path))
    with pytest.raises(ValueError, match=r"prior_init must hold high and low for the Skills .*, got table"):
        MIRL("MlpPolicy", Matching(), **SMALL, **SKILLS, prior_init=load_prior(path))
    with pytest.raises(ValueError, match=r"level must be None for a prior without skills, got 'low'"):
        load_prior(path, level="low")
    with pytest.raises(ValueError, match=r"level must be one of \('high', 'low'\) or None, got 'middle'"):
        load_prior(file, level="middle")
    settings = {**TABLE, "prior_observation": lambda obs: obs, "prior_kwargs": {"n_values": 2}}
    with pytest.raises(ValueError, match=r"prior_init must be of the view .*{'function': .*got a prior of 'all'"):
        MIRL("MlpPolicy", Matching(), **SMALL, **settings, prior_init=load_prior(path))
