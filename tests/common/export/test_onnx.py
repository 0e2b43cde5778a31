"""ONNX files compute what the policy computes."""

import json
import sys

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from masked import MaskedProbe
from probes import ConstantReward, Image

from sb3_mirl import DQNMSE, MDQN, MIRL, SQLm
from sb3_mirl.cli.main import main


def onnx_session(path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def several(space, count):
    """Observations as a vectorised environment gives them."""
    space.seed(0)
    samples = [space.sample() for _ in range(count)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([sample[key] for sample in samples]) for key in space.spaces}
    return np.stack(samples)


EVERYTHING = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (36, 36, 1), np.uint8),
        "vector": spaces.Box(-1, 1, (2,)),
        "kind": spaces.Discrete(3),
        "kinds": spaces.MultiDiscrete([2, 4]),
        "flags": spaces.MultiBinary(4),
    }
)


def observing(space):
    return lambda: ConstantReward(observation_space=space, n_actions=3)


@pytest.mark.parametrize(
    "algorithm, policy, env, beta",
    [
        (MIRL, "MlpPolicy", observing(spaces.Box(-1, 1, (2,), np.float64)), 0.0),
        (MIRL, "MlpPolicy", observing(spaces.Discrete(5)), np.inf),
        (MIRL, "CnnPolicy", Image, 5.0),
        (SQLm, "MultiInputPolicy", observing(EVERYTHING), 2.0),
    ],
)
def test_onnx_acts_as_the_policy(algorithm, policy, env, beta, tmp_path):
    model = algorithm(policy, env(), buffer_size=10, beta_schedule="constant", beta_init=beta, seed=0)
    n_actions = model.action_space.n
    # One action that is never taken, and unequal others
    weights = np.arange(n_actions)[::-1].astype(float)
    model.policy.prior.copy_(th.as_tensor(weights / weights.sum()))
    model.export_onnx(tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    session = onnx_session(tmp_path / "model.onnx")
    for count in (1, 5):
        obs = several(model.observation_space, count)
        feed = obs if isinstance(obs, dict) else {"observation": obs}
        action, probabilities, q_values = session.run(["action", "probabilities", "q_values"], feed)
        with th.no_grad():
            q_expected = model.q_net(model.policy.obs_to_tensor(obs)[0])
        # The network is float32, and another library adds in another order; ρ, β and π are float64 in both
        np.testing.assert_allclose(q_values, q_expected, rtol=1e-4, atol=1e-5)
        assert probabilities.dtype == np.float64 and probabilities.shape == (count, n_actions)
        np.testing.assert_allclose(probabilities, model.policy.action_probabilities(obs), atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-12)
        if algorithm is MIRL:
            assert (probabilities[:, -1] == 0).all()
        np.testing.assert_array_equal(action, model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize(
    "policy, space, kind",
    [
        ("MlpPolicy", spaces.Discrete(5), {"prior_type": "conditional", "prior_observation": "all"}),
        ("MlpPolicy", spaces.Box(-1, 1, (2,)), {"prior_type": "conditional", "prior_observation": [1]}),
        (
            "MultiInputPolicy",
            EVERYTHING,
            {"prior_type": "skills", "prior_observation": {"high": ["kind", "kinds"], "low": None}, "n_skills": 3},
        ),
    ],
)
def test_onnx_holds_a_prior_that_sees_something(policy, space, kind, tmp_path):
    arguments = {"buffer_size": 10, "beta_schedule": "constant", "beta_init": 2.0, "seed": 0}
    model = MIRL(policy, observing(space)(), **arguments, **kind)
    state_prior, random = model.policy.state_prior, np.random.default_rng(0)
    for name in state_prior.parts:
        if name == "network":
            th.nn.init.normal_(state_prior.network[-1].weight)
        else:
            table = getattr(state_prior, name)
            table.copy_(th.as_tensor(random.dirichlet(np.ones(table.shape[-1]), table.shape[:-1])))
    model.export_onnx(tmp_path / "model.onnx")
    session = onnx_session(tmp_path / "model.onnx")
    for count in (1, 5):
        obs = several(model.observation_space, count)
        feed = obs if isinstance(obs, dict) else {"observation": obs}
        action, probabilities = session.run(["action", "probabilities"], feed)
        np.testing.assert_allclose(probabilities, model.policy.action_probabilities(obs), atol=1e-4)
        np.testing.assert_array_equal(action, model.predict(obs, deterministic=True)[0])


def test_onnx_of_an_algorithm_without_probabilities(tmp_path, capsys):
    model = MDQN("MlpPolicy", ConstantReward(n_actions=3), buffer_size=10, seed=0)
    assert main(["export-onnx", str(model.export(tmp_path / "model")), str(tmp_path / "model.onnx")]) == 0
    session = onnx_session(tmp_path / "model.onnx")
    obs = several(model.observation_space, 5)
    action, q_values = session.run(["action", "q_values"], {"observation": obs})
    with th.no_grad():
        np.testing.assert_allclose(q_values, model.q_net(th.as_tensor(obs)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(action, model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("algorithm", [MIRL, DQNMSE])
def test_masks_are_an_input(algorithm, tmp_path, capsys):
    model = algorithm("MlpPolicy", MaskedProbe(), buffer_size=10, seed=0)
    obs, masks = np.eye(5, dtype=np.float32), MaskedProbe().masks
    if algorithm is MIRL:
        model.policy.beta.fill_(3.0)
        # No mass on the only valid action of state 1
        model.policy.prior.copy_(th.tensor([0.0, 0.2, 0.3, 0.5], dtype=th.float64))
    assert main(["export-onnx", str(model.export(tmp_path / "model")), str(tmp_path / "model.onnx")]) == 0
    session = onnx_session(tmp_path / "model.onnx")
    assert [one.name for one in session.get_inputs()] == ["observation", "action_masks"]
    for rows in ([2], [0, 1, 2, 3, 4]):
        outputs = session.run(None, {"observation": obs[rows], "action_masks": masks[rows]})
        outputs = dict(zip(model.policy.onnx_outputs, outputs, strict=True))
        expected, _ = model.predict(obs[rows], deterministic=True, action_masks=masks[rows])
        np.testing.assert_array_equal(outputs["action"], expected)
        if algorithm is MIRL:
            expected = model.policy.action_probabilities(obs[rows], masks[rows])
            np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-6)
            assert (outputs["probabilities"][~masks[rows]] == 0).all()


def test_key_with_the_name_of_the_masks_is_refused(tmp_path):
    class Clash(MaskedProbe):
        def __init__(self):
            super().__init__()
            self.observation_space = spaces.Dict({"action_masks": self.observation_space})

    model = DQNMSE("MultiInputPolicy", Clash(), buffer_size=10)
    with pytest.raises(
        ValueError, match=r"names of outputs, \['action', 'q_values', 'action_masks'\]: got \['action_masks'\]"
    ):
        model.export_onnx(tmp_path / "model.onnx")


def test_onnx_at_the_command_line(trained, exported, saved, tmp_path, capsys):
    outputs = []
    obs = several(trained.observation_space, 4)
    for source in (exported, saved):
        assert main(["export-onnx", str(source), str(tmp_path / "model.onnx")]) == 0
        session = onnx_session(tmp_path / "model.onnx")
        outputs.append(session.run(["probabilities"], {"observation": obs})[0])
        assert json.loads(session.get_modelmeta().custom_metadata_map["sb3_mirl.action_names"]) == ["NOOP", "FIRE"]
    np.testing.assert_array_equal(*outputs)
    np.testing.assert_allclose(outputs[0], trained.policy.action_probabilities(obs), atol=1e-6)
    capsys.readouterr()
    (tmp_path / "garbage").write_bytes(b"garbage")
    assert main(["export-onnx", str(tmp_path / "garbage"), str(tmp_path / "x.onnx")]) == 2
    assert "sb3-mirl export-onnx: " in capsys.readouterr().err and not (tmp_path / "x.onnx").exists()


def test_onnx_without_its_packages_names_the_extra(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"sb3-mirl\[onnx\]"):
        trained.export_onnx(tmp_path / "model.onnx")


def test_onnx_keys_that_are_outputs_are_refused(tmp_path):
    env = ConstantReward(observation_space=spaces.Dict({"action": spaces.Discrete(2)}))
    with pytest.raises(ValueError, match=r"must not have the names of outputs.*\['action'\]"):
        MIRL("MultiInputPolicy", env, buffer_size=10).export_onnx(tmp_path / "model.onnx")
