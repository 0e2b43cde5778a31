"""What users do on a GPU: `pytest -m gpu` where there is one. Results are those of a processor, up to rounding."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch as th
from masked import MaskedProbe
from probes import ConstantReward, Image, Mixed
from resuming import cartpole, manifest_names
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_mirl import (
    DQNMSE,
    MDQN,
    MIRL,
    SQL,
    BaseDQN,
    CheckpointCallback,
    DeviceReplayBuffer,
    PriorInfluenceCallback,
    SQLm,
    train_jointly,
)
from sb3_mirl.cli.main import main

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU and `-m gpu`")]

SETTINGS = {"learning_starts": 20, "buffer_size": 200, "batch_size": 16, "seed": 0, "target_update_interval": 30}
MARGINAL = {"prior_lr": 0.01, "beta_schedule": "adaptive", "beta_lr": 1e-2}
VIEW = {"prior_type": "conditional", "prior_observation": [0]}
#: Algorithm, policy, environment, settings
KINDS = {
    "MIRL": (MIRL, "MlpPolicy", ConstantReward, MARGINAL),
    "MIRL, images": (MIRL, "CnnPolicy", Image, MARGINAL),
    "MIRL, images, compiled": (MIRL, "CnnPolicy", Image, {**MARGINAL, "compile_update": True}),
    "MIRL, images, bf16": (MIRL, "CnnPolicy", Image, {**MARGINAL, "mixed_precision": True}),
    "MIRL, images, replay on the device": (MIRL, "CnnPolicy", Image, {**MARGINAL, "replay_buffer_class": DeviceReplayBuffer}),
    "MIRL, dictionary": (MIRL, "MultiInputPolicy", Mixed, MARGINAL),
    "MIRL, three steps": (MIRL, "MlpPolicy", ConstantReward, {**MARGINAL, "n_steps": 3}),
    "MIRL, masks": (MIRL, "MlpPolicy", MaskedProbe, {**MARGINAL, "learning_starts": 40}),
    "MIRL, masks, compiled": (MIRL, "MlpPolicy", MaskedProbe, {**MARGINAL, "learning_starts": 40, "compile_update": True}),
    "prior of a network": (MIRL, "MlpPolicy", ConstantReward, VIEW),
    "prior of a table": (
        MIRL,
        "MlpPolicy",
        lambda: MaskedProbe(observation="number"),
        {**VIEW, "prior_observation": "all", "learning_starts": 40},
    ),
    "skills": (
        MIRL,
        "MlpPolicy",
        lambda: MaskedProbe(observation="number"),
        {
            "prior_type": "skills",
            "prior_observation": {"high": None, "low": "all"},
            "n_skills": 3,
            "learning_starts": 40,
        },
    ),
    "SQL": (SQL, "MlpPolicy", ConstantReward, {"beta_lr": 1e-2}),
    "SQL_m": (SQLm, "MlpPolicy", ConstantReward, {"beta_lr": 1e-2}),
    "M-DQN": (MDQN, "MlpPolicy", ConstantReward, {}),
    "DQN_mse": (DQNMSE, "CnnPolicy", Image, {}),
    "DQN": (BaseDQN, "MlpPolicy", ConstantReward, {}),
}


@pytest.fixture(params=KINDS, scope="module")
def model(request):
    algorithm, policy, make_env, settings = KINDS[request.param]
    return algorithm(policy, make_env(), device="cuda", **{**SETTINGS, **settings}).learn(150)


def on_the_processor(model, path):
    model.save(path / "model.zip")
    model.save_replay_buffer(path / "buffer")
    loaded = type(model).load(path / "model.zip", env=model.get_env(), device="cpu", compile_update=False)
    loaded.load_replay_buffer(path / "buffer")
    return loaded


def test_training_stays_on_the_gpu(model):
    for state in (model.policy.state_dict(), model.q_net_target.state_dict()):
        assert {value.device.type for value in state.values()} == {"cuda"}
        assert all(th.isfinite(value).all() for value in state.values())


def test_acting_is_that_of_the_processor(model, tmp_path):
    loaded = on_the_processor(model, tmp_path)
    batch = model.replay_buffer.sample(16).observations
    same = {key: value.cpu() for key, value in batch.items()} if isinstance(batch, dict) else batch.cpu()
    with th.no_grad():
        expected, found = loaded.q_net(same), model.q_net(batch).cpu()
    th.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())
    obs = model.get_env().reset()
    masked = isinstance(model.get_env().envs[0].unwrapped, MaskedProbe)
    masks = {"action_masks": np.stack(model.get_env().env_method("action_masks"))} if masked else {}
    for deterministic in (True, False):
        actions, _ = model.predict(obs, deterministic=deterministic, **masks)
        assert isinstance(actions, np.ndarray) and model.action_space.contains(actions[0])


def weights(model):
    return th.cat([parameter.detach().flatten().cpu() for parameter in model.q_net.parameters()])


def test_a_gradient_step_is_that_of_the_processor(model, tmp_path):
    loaded, losses, changes = on_the_processor(model, tmp_path), [], []
    for one in (model, loaded):
        one.set_logger(configure(None, []))
        before = weights(one)
        np.random.seed(0)
        one.train(1, 64)
        changes.append(weights(one) - before)
        losses.append(one.logger.name_to_value["train/loss"])
    np.testing.assert_allclose(*losses, rtol=5e-2 if model.mixed_precision else 1e-3, atol=1e-5)
    # Of the loss the gradient, which a unit near 0 may miss
    assert (changes[0] - changes[1]).norm() < 0.2 * changes[1].norm()
    state = loaded.policy.state_dict()
    for name, value in model.policy.state_dict().items():
        if not name.startswith("q_net"):  # ρ and β
            th.testing.assert_close(value.cpu(), state[name], rtol=1e-3, atol=1e-3, msg=name)


def test_exports(model, tmp_path):
    loaded = type(model).load_exported(model.export(tmp_path / "model"), device="cpu")
    for name, value in model.policy.state_dict().items():
        assert th.equal(loaded.policy.state_dict()[name], value.cpu()), name
    model.export_onnx(tmp_path / "model.onnx")
    assert {value.device.type for value in model.policy.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize("settings", [{}, {"compile_update": True}, {"replay_buffer_class": DeviceReplayBuffer}])
def test_a_checkpoint_goes_on(settings, tmp_path):
    def begin():
        return MIRL("MlpPolicy", cartpole(tmp_path), device="cuda", **SETTINGS, **settings)

    begin().learn(100, callback=CheckpointCallback(50, tmp_path / "checkpoints"))
    assert manifest_names(tmp_path)
    resumed = MIRL.resume(tmp_path / "checkpoints", cartpole(tmp_path), device="cuda")
    resumed.learn(200)
    assert resumed.num_timesteps == 200 and resumed.device.type == "cuda"
    assert {value.device.type for value in resumed.policy.state_dict().values()} == {"cuda"}


def test_influence_of_the_prior_is_logged(tmp_path):
    model = MIRL("MlpPolicy", ConstantReward(), device="cuda", **SETTINGS)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(100, callback=PriorInfluenceCallback(log_freq=10), log_interval=1)
    logged = pd.read_csv(tmp_path / "progress.csv")["train/prior_influence"].dropna()
    assert len(logged) and logged.between(0, 1).all()


class InPlace(BaseFeaturesExtractor):
    """Fails for numbers that are no observations, and changes its input."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 12)
        self.embedding = th.nn.Embedding(3, 4)

    def forward(self, observations):
        return self.embedding(observations.abs_().mul_(2).long()).flatten(1)


@pytest.mark.parametrize("jointly", [False, True])
def test_a_network_that_changes_its_input_is_recorded(jointly):
    kwargs = {"features_extractor_class": InPlace, "net_arch": [8]}
    settings = {**SETTINGS, "compile_update": True, "device": "cuda", "policy_kwargs": kwargs}
    models = [MIRL("MlpPolicy", ConstantReward(), **{**settings, "seed": seed}) for seed in range(2)]
    if jointly:
        assert train_jointly(models, 100) == [None, None]
    else:
        models[0].learn(100)
    assert th.isfinite(models[0].q_net(th.zeros(1, 3, device="cuda"))).all()


def test_the_zoo_trains_and_plays(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    common = ["--algo", "mirl", "--env", "CartPole-v1", "-f", "logs", "--device", "cuda"]
    settings = ["-n", "300", "--eval-freq", "-1", "--verbose", "0", "-params", "learning_starts:100"]
    assert main(["train", *common, *settings]) == 0
    assert main(["enjoy", *common, "-n", "20", "--no-render"]) == 0
    assert main(["prior", str(next(Path("logs").glob("mirl/*/CartPole-v1.zip")))]) == 0


@pytest.mark.parametrize("joint", [[], ["--joint", "2"]])
def test_a_suite_runs(joint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    limits = ["--algos", "dqn_mse", "mirl", "--envs", "CartPole-v1", "--seeds", "2", "--steps", "1200"]
    assert main(["bench", "run", "classic", *limits, *joint, "--device", "cuda", "--out", "runs"]) == 0
    assert len(list(Path("runs").glob("results/*.json"))) == 4
