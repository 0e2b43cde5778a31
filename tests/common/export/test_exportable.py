"""Exports as methods of a model."""

import numpy as np
import pytest
import torch as th

from sb3_mirl import MIRL, BaseDQN, CheckpointCallback


def test_base_dqn_is_saved_exported_and_resumed(tmp_path):
    model = BaseDQN("MlpPolicy", "CartPole-v1", learning_starts=20, buffer_size=500, seed=0)
    model.learn(200, callback=CheckpointCallback(100, tmp_path))
    obs = model.get_env().reset()
    model.save(tmp_path / "model.zip")
    copies = [BaseDQN.load(tmp_path / "model.zip"), BaseDQN.load_exported(model.export(tmp_path / "model"))]
    copies.append(BaseDQN.resume(tmp_path, "CartPole-v1"))
    for loaded in copies:
        np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
        assert all(th.equal(loaded.policy.state_dict()[name], value) for name, value in model.policy.state_dict().items())
    with pytest.raises(ValueError, match="holds the algorithm 'BaseDQN', and MIRL"):
        MIRL.load_exported(tmp_path / "model")
