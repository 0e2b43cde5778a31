"""Models with a prior that sees a view of the observation: learning, logs, files."""

import csv

import numpy as np
import pytest
import torch as th
from masked import MaskedProbe
from models import FAST
from probes import ConstantReward, Matching, Mixed
from resuming import Interrupt, interrupt_at
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure

from sb3_mirl import MIRL, CheckpointCallback, PriorInfluenceCallback, SQLm, load_prior
from sb3_mirl.mirl.policies import MIRLPolicy

LEARNING = {**FAST, "prior_lr": 0.1, "beta_schedule": "constant", "beta_init": 2.0, "train_freq": 2}


def nothing(obs):
    return th.zeros(len(obs), dtype=th.int64, device=obs.device)


def first(obs):
    return obs[:, :1]


KINDS = {
    "table": {"prior_type": "conditional", "prior_observation": "all"},
    "network": {"prior_type": "conditional", "prior_observation": [1], "prior_kwargs": {"net_arch": [8]}},
    "function": {"prior_type": "conditional", "prior_observation": first},
    "skills": {"prior_type": "skills", "prior_observation": {"high": None, "low": "all"}, "n_skills": 3},
}


def model_of(kind, algorithm=MIRL, n_envs=1, **settings):
    env = make_vec_env(Matching, n_envs, seed=0, env_kwargs={"discrete": kind in ("table", "skills")})
    return algorithm("MlpPolicy", env, **{**LEARNING, **KINDS[kind], **settings})


def observations(model):
    random = np.random.default_rng(0)
    return random.integers(2, size=6) if model.observation_space.shape == () else random.random((6, 2), np.float32)


def check_same(ours, theirs):
    """The same tensors, and the same probabilities."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert th.equal(value, theirs[name]) and value.dtype == theirs[name].dtype, name


class Steps(BaseCallback):
    """Keeps ρ after each step."""

    def __init__(self):
        super().__init__()
        self.priors = []

    def _on_step(self):
        self.priors.append(self.model.prior.reshape(-1))
        return True


@pytest.mark.parametrize("algorithm", [MIRL, SQLm])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_where_x_is_constant_a_run_is_that_of_the_marginal_step_by_step(algorithm, n_envs):
    def run(**kind):
        model = algorithm("MlpPolicy", make_vec_env("CartPole-v1", n_envs, seed=0), **LEARNING, **kind)
        steps = Steps()
        return model.learn(90, callback=steps), np.array(steps.priors)

    conditional = {"prior_type": "conditional", "prior_observation": nothing, "prior_kwargs": {"n_values": 1}}
    (marginal, expected), (model, priors) = run(), run(**conditional)
    np.testing.assert_array_equal(priors, expected)
    assert not np.allclose(expected[-1], 0.5)
    check_same(model.q_net.state_dict(), marginal.q_net.state_dict())


@pytest.mark.parametrize("kind, kl", [("table", 0.0), ("network", 0.0), ("marginal", 0.5)])
def test_a_prior_that_sees_the_state_leaves_no_penalty(kind, kl):
    settings = {"prior_observation": "all", "prior_kwargs": None}
    if kind == "marginal":
        settings |= {"prior_type": "marginal", "prior_observation": None}
    settings |= {"learning_rate": 1e-2, "target_update_interval": 50, "beta_init": 5.0, "prior_lr": 0.05}
    model = model_of("network" if kind == "network" else "table", **settings).learn(700)
    # Both observations are equally likely, each with its action: without a view the information is log 2 but for errors
    assert model.logger.name_to_value["train/kl"] == pytest.approx(kl, abs=0.02 if kl == 0.0 else 0.2)
    if kind != "marginal":
        obs = np.array([0, 1]) if kind == "table" else np.eye(2, dtype=np.float32)
        assert (model.policy.prior_probabilities(obs).diagonal() > 0.9).all()


def test_the_penalty_is_logged_at_the_state_itself(monkeypatch):
    seen = []
    model = model_of("table", prior_init=[[0.9, 0.1], [0.2, 0.8]], prior_lr=0.0)
    monkeypatch.setattr("sb3_mirl.mirl.mirl.kl_divergence", lambda policy, prior: seen.append(prior) or prior.sum(dim=1))
    sample = model.replay_buffer.sample
    monkeypatch.setattr(
        model.replay_buffer, "sample", lambda *args, **kwargs: seen.append(sample(*args, **kwargs)) or seen[-1]
    )
    model.learn(40)
    batch, prior = seen[-2:]
    np.testing.assert_array_equal(prior, model.prior[batch.observations[:, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_prior_belongs_to_no_optimizer_and_moves_by_the_callback_only(kind):
    model = model_of(kind).learn(40)
    own = {id(parameter) for parameter in model.policy.state_prior.parameters()}
    assert not own & {id(p) for group in model.policy.optimizer.param_groups for p in group["params"]}
    assert all(parameter.grad is None for parameter in model.policy.state_prior.parameters())
    before = {name: value.clone() for name, value in model.policy.state_prior.state_dict().items()}
    model.train(3, 8)
    check_same(model.policy.state_prior.state_dict(), before)
    model.learn(20, reset_num_timesteps=False)
    assert any(not th.equal(before[name], value) for name, value in model.policy.state_prior.state_dict().items())
    assert model.gradient_batch is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_size_of_zero_keeps_the_prior(kind):
    model = model_of(kind, SQLm, prior_lr=0.0)
    before = {name: value.clone() for name, value in model.policy.state_prior.state_dict().items()}
    check_same(model.learn(60).policy.state_prior.state_dict(), before)


def test_with_entropy_the_prior_serves_for_exploration_only():
    model = model_of("table", SQLm, prior_init=[[1.0, 0.0], [0.0, 1.0]], prior_lr=0.0)
    obs = np.array([0, 1])
    assert (model.policy.action_probabilities(obs) > 0).all()
    model.exploration_rate = 1.0
    assert all(model.predict(obs)[0].tolist() == [0, 1] for _ in range(20))


@pytest.mark.parametrize("kind", KINDS)
def test_files_hold_the_prior(kind, tmp_path):
    model = model_of(kind).learn(40)
    model.save(tmp_path / "model")
    given = {"prior_observation": first} if kind == "function" else {}
    exported = MIRL.load_exported(model.export(tmp_path / "exported"), **given)
    model.policy.save(tmp_path / "policy.pth")
    policies = [MIRL.load(tmp_path / "model").policy, exported.policy, MIRLPolicy.load(tmp_path / "policy.pth")]
    obs = observations(model)
    for policy in policies:
        check_same(policy.state_dict(), model.policy.state_dict())
        assert th.equal(policy.prior_probabilities(obs), model.policy.prior_probabilities(obs))
    assert exported.prior_observation == model.prior_observation and exported.n_skills == model.n_skills


def test_an_export_does_not_hold_functions(tmp_path):
    path = model_of("function").export(tmp_path / "model")
    with pytest.raises(ValueError, match=r"prior_observation was the function '.*first', .*load_exported\(path, prior_obs"):
        MIRL.load_exported(path)


@pytest.mark.parametrize("kind", ["table", "network", "skills"])
def test_an_interrupted_run_is_resumed_exactly(kind, tmp_path):
    whole = model_of(kind).learn(60)
    with pytest.raises(Interrupt):
        model_of(kind).learn(60, callback=[CheckpointCallback(30, tmp_path), interrupt_at(40)])
    env = make_vec_env(Matching, 1, seed=0, env_kwargs={"discrete": kind != "network"})
    resumed = MIRL.resume(tmp_path, env).learn(60)
    check_same(resumed.policy.state_dict(), whole.policy.state_dict())


def test_what_is_shown_and_logged(tmp_path):
    table = model_of("table").learn(60, log_interval=1)
    assert table.prior.shape == (2, 2) and table.prior.sum(axis=1) == pytest.approx([1, 1])
    logged = {}
    table.logger.record, dump = logged.__setitem__, table.logger.dump
    table.logger.record = lambda name, value, exclude=None: logged.__setitem__(name, value)
    table.logger.dump = lambda step=0: None
    table.dump_logs()
    entropies = -(table.prior * np.log(table.prior)).sum(axis=1)
    assert logged["rollout/prior_entropy"] == pytest.approx(entropies.mean())
    assert not [name for name in logged if name.startswith("prior/")] and dump is not None
    for kind, name in (("network", "ConditionalNetwork"), ("skills", "Skills")):
        with pytest.raises(ValueError, match=rf"the model has a {name}: policy.prior_probabilities\(obs\)"):
            _ = model_of(kind).prior


def test_names_of_actions_do_not_shift_the_columns_of_a_file(tmp_path):
    class Pairs(ConstantReward):
        def get_action_meanings(self):
            return ["(0, 0)", "(0, 1)"]

    model = MIRL("MlpPolicy", Pairs(), **FAST)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(60, log_interval=1)
    (*_, row) = csv.DictReader(open(tmp_path / "progress.csv"))
    logged = [float(row[f"prior/({first}; {second})"]) for first, second in ((0, 0), (0, 1))]
    assert sum(logged) == pytest.approx(1.0) and int(row["time/total_timesteps"]) <= 60


def test_slices_become_lists():
    model = model_of("network", prior_observation=slice(0, 1))
    assert model.prior_observation == [0] and model.policy.state_prior.view.n_features == 1


def test_keys_of_a_dict():
    settings = {**LEARNING, "buffer_size": 50, "policy_kwargs": None}
    table = MIRL("MultiInputPolicy", Mixed(), **settings, prior_type="conditional", prior_observation="kind")
    network = MIRL("MultiInputPolicy", Mixed(), **settings, prior_type="conditional", prior_observation=["kind", "vector"])
    assert table.learn(30).prior.shape == (3, 2) and network.learn(30).policy.state_prior.view.n_features == 5


def test_functions_as_views_of_skills(tmp_path):
    views = {"high": nothing, "low": lambda obs: (obs[:, 0] > 0.5).long()}
    settings = {"prior_type": "skills", "prior_observation": views, "n_skills": 2}
    sizes = {"n_values": {"high": 1, "low": 2}, "concentration": 1.0}
    model = model_of("network", **settings, prior_kwargs=sizes).learn(30)
    assert (model.policy.state_prior.high.shape, model.policy.state_prior.low.shape) == ((1, 2), (2, 2, 2))
    exported = MIRL.load_exported(model.export(tmp_path / "model"), prior_observation=views)
    check_same(exported.policy.state_dict(), model.policy.state_dict())


def test_first_distributions_by_kind(tmp_path):
    assert model_of("table", prior_init=[0.25, 0.75]).prior.tolist() == [[0.25, 0.75]] * 2
    source = model_of("skills", seed=5).learn(60)
    low = load_prior(source.export(tmp_path / "skills"), level="low")
    target = model_of("skills", prior_init=low)
    assert th.equal(target.policy.state_prior.low, source.policy.state_prior.low)
    assert (target.policy.state_prior.high == 1 / 3).all()
    # Also after the way through a file
    target.export(tmp_path / "target")
    check_same(MIRL.load_exported(tmp_path / "target").policy.state_dict(), target.policy.state_dict())


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"prior_type": "mixture"}, r"prior_type must be one of \('marginal', 'conditional', 'skills'\), got 'mixture'"),
        ({"prior_observation": [0]}, r"prior_observation must be None with prior_type='marginal', got \[0\]"),
        ({"prior_type": "conditional"}, "prior_observation must be keys, indices, 'all' or a function .*got None"),
        ({"prior_type": "conditional", "prior_observation": [7]}, r"a list of indices from 0 to 3, .*got \[7\]"),
        ({"prior_type": "conditional", "prior_observation": {"high": [0], "low": [0]}}, "prior_observation must be keys"),
        ({"prior_type": "skills", "prior_observation": [0], "n_skills": 2}, "a dict with the views 'high' and 'low'"),
        ({"prior_type": "skills", "prior_observation": {"high": None}, "n_skills": 2}, "a dict with the views"),
        (
            {"prior_type": "skills", "prior_observation": {"high": None, "low": [9]}, "n_skills": 2},
            r"prior_observation\['low'\] must be 'all', a slice or a list of indices from 0 to 3.*got \[9\]",
        ),
        (
            {"prior_type": "skills", "prior_observation": {"high": None, "low": [0]}, "n_skills": 2},
            r"prior_observation\['low'\] must be discrete with prior_type='skills'",
        ),
        (
            {"prior_type": "skills", "prior_observation": {"high": None, "low": None}, "n_skills": 0},
            "n_skills must be an integer >= 1 with prior_type='skills', got 0",
        ),
        ({"n_skills": 2}, "n_skills must be None with prior_type='marginal', got 2"),
        ({"prior_kwargs": {"net_arch": [4]}}, r"prior_kwargs must be a dict with some of \(\) with prior_type='marginal'"),
        (
            {"prior_type": "conditional", "prior_observation": [0], "prior_kwargs": {"net_arch": 64}},
            r"prior_kwargs: net_arch must be a list of integers >= 1, got 64",
        ),
        (
            {"prior_type": "conditional", "prior_observation": [0], "prior_kwargs": {"net_arch": [0]}},
            "prior_kwargs: net_arch must be an integer >= 1, got 0",
        ),
        (
            {"prior_type": "conditional", "prior_observation": [0], "prior_kwargs": {"learning_rate": -1}},
            "prior_kwargs: learning_rate must be a finite number > 0, got -1",
        ),
        (
            {"prior_type": "conditional", "prior_observation": [0], "prior_kwargs": {"n_values": {"high": 2}}},
            "prior_kwargs: n_values must be an integer with prior_type='conditional'",
        ),
        (
            {
                "prior_type": "conditional",
                "prior_observation": nothing,
                "prior_kwargs": {"n_values": 1, "learning_rate": 0.1},
            },
            r"prior_kwargs: \['learning_rate'\] are for a continuous view, and prior_observation is a discrete one",
        ),
        ({"prior_init": {"table": [[0.5, 0.5]]}}, r"prior_init must be a list of numbers with prior_type='marginal'"),
        (
            {"prior_type": "conditional", "prior_observation": [0], "prior_init": [0.5, 0.5]},
            "prior_init must hold network for the ConditionalNetwork of prior_type='conditional', got table",
        ),
        (
            {
                "prior_type": "conditional",
                "prior_observation": nothing,
                "prior_kwargs": {"n_values": 1},
                "prior_init": {"table": [0.5, 0.5], "prior_observation": [1]},
            },
            r"prior_init must be of the view prior_observation=\{'function': '.*nothing'\}, got a prior of \[1\]",
        ),
        (
            {
                "prior_type": "skills",
                "prior_observation": {"high": None, "low": None},
                "n_skills": 2,
                "prior_init": {"table": [0.5, 0.5]},
            },
            "prior_init must hold high and low for the Skills .*got table",
        ),
        (
            {
                "prior_type": "conditional",
                "prior_observation": nothing,
                "prior_kwargs": {"n_values": 1},
                "prior_init": [0.2, 0.2, 0.6],
            },
            r"prior_init must be an array \[2\] or \[n_x, 2\] with prior_type='conditional', got shape \(3,\)",
        ),
        (
            {"prior_type": "conditional", "prior_observation": [0], "prior_init": {"tables": 1}},
            r"prior_init must hold some of .*got \['tables'\]",
        ),
    ],
)
def test_wrong_arguments_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        MIRL("MlpPolicy", "CartPole-v1", buffer_size=10, **settings)


def test_the_influence_of_the_prior_is_that_of_a_marginal():
    with pytest.raises(ValueError, match=r"PriorInfluenceCallback needs prior_type='marginal', .*'conditional'"):
        model_of("table").learn(10, callback=PriorInfluenceCallback())


@pytest.mark.parametrize("kind", ["table", "network"])
def test_compiled_gradient_steps(kind):
    settings = {"n_envs": 1, "learning_starts": 10}
    compiled, plain = (model_of(kind, compile_update=on, **settings).learn(40) for on in (True, False))
    for name, value in plain.policy.state_dict().items():
        th.testing.assert_close(compiled.policy.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_seed_decides_the_first_skills():
    env = ConstantReward()
    settings = {"prior_type": "skills", "prior_observation": {"high": None, "low": None}, "n_skills": 4, "buffer_size": 10}
    one, same, other = (MIRL("MlpPolicy", env, seed=seed, **settings).policy.state_prior.low for seed in (1, 1, 2))
    assert th.equal(one, same) and not th.equal(one, other)


@pytest.mark.parametrize(
    "kind",
    [
        {"prior_type": "conditional", "prior_observation": "all"},
        {"prior_type": "skills", "prior_observation": {"high": "all", "low": None}, "n_skills": 2},
    ],
)
def test_tables_and_action_masks_work_together(kind):
    env = MaskedProbe(observation="number")
    model = MIRL("MlpPolicy", env, learning_starts=20, prior_lr=0.05, seed=0, buffer_size=500, **kind)
    model.learn(200)
    states = np.arange(env.n_states)
    prior = model.policy.prior_probabilities(states, env.masks).numpy()
    assert (prior[~env.masks] == 0).all() and prior.sum(axis=1) == pytest.approx(np.ones(env.n_states))
    # The learned tables know the masks of the states that were visited
    assert model.policy.prior_probabilities(states).numpy()[env.masks].mean() > 1 / 4
    assert env.masks[states, model.predict(states, action_masks=env.masks)[0]].all()


def test_networks_and_action_masks_are_refused():
    with pytest.raises(ValueError, match="prior_observation must be a discrete view where the environment has action masks"):
        MIRL("MlpPolicy", MaskedProbe(), prior_type="conditional", prior_observation=[0])
