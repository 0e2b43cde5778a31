"""Exports as methods of a model."""

import io

import numpy as np
import pytest
import torch as th

from sb3_mirl import MDQN, MIRL, BaseDQN, CheckpointCallback


@pytest.mark.parametrize(
    "algorithm, arguments", [(BaseDQN, {}), (MDQN, {"munchausen_alpha": 0.7, "entropy_temperature": 0.1})]
)
def test_models_are_saved_exported_and_resumed(algorithm, arguments, tmp_path):
    model = algorithm("MlpPolicy", "CartPole-v1", learning_starts=20, buffer_size=500, seed=0, **arguments)
    model.learn(200, callback=CheckpointCallback(100, tmp_path))
    obs = model.get_env().reset()
    model.save(tmp_path / "model.zip")
    copies = [algorithm.load(tmp_path / "model.zip"), algorithm.load_exported(model.export(tmp_path / "model"))]
    copies.append(algorithm.resume(tmp_path, "CartPole-v1"))
    for loaded in copies:
        np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
        assert all(th.equal(loaded.policy.state_dict()[name], value) for name, value in model.policy.state_dict().items())
        assert {name: getattr(loaded, name) for name in arguments} == arguments
    with pytest.raises(ValueError, match=f"holds the algorithm '{algorithm.__name__}', and MIRL"):
        MIRL.load_exported(tmp_path / "model")


def test_misspelt_arguments_of_load_are_refused(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", buffer_size=10)
    model.save(tmp_path / "model")
    with pytest.raises(TypeError, match=r"MIRL\(\) got an unexpected keyword argument 'gama', did you mean 'gamma'\?"):
        MIRL.load(tmp_path / "model", gama=0.5)
    with pytest.raises(ValueError, match="device must be 'auto' or a device of torch such as 'cpu', got 'gpu'"):
        MIRL.load(tmp_path / "model", device="gpu")
    # Arguments, attributes that are saved, and one that is not
    changed = {"gamma": 0.5, "num_timesteps": 7, "replay_buffer": None}
    loaded = MIRL.load(tmp_path / "model", **changed)
    assert {name: getattr(loaded, name) for name in ("gamma", "num_timesteps")} == {"gamma": 0.5, "num_timesteps": 7}


def test_a_file_object_is_loaded():
    file = io.BytesIO()
    MIRL("MlpPolicy", "CartPole-v1", buffer_size=10).save(file)
    file.seek(0)
    assert MIRL.load(file, num_timesteps=7).num_timesteps == 7
