"""Settings of small models, and what must hold of a saved one."""

import numpy as np
import torch as th

FAST = {"learning_starts": 20, "buffer_size": 500, "policy_kwargs": {"net_arch": [16]}, "seed": 0}


def check_save_load(model, path, obs):
    """A model and its reloaded copy are the same in everything that matters."""
    model.save(path)
    loaded = type(model).load(path)
    for name, parameters in model.get_parameters()["policy"].items():
        assert th.equal(loaded.get_parameters()["policy"][name], parameters), name
    np.testing.assert_array_equal(loaded.prior, model.prior)
    assert loaded.beta == model.beta and loaded.exploration_rate == model.exploration_rate
    np.testing.assert_array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    settings = ["prior_lr", "beta_schedule", "beta_init", "beta_lr", "beta_max", "loss", "regularization", "algorithm"]
    assert {s: getattr(loaded, s) for s in settings} == {s: getattr(model, s) for s in settings}
    assert loaded.policy.regularization == model.policy.regularization
    assert all(group["fused"] for group in loaded.policy.optimizer.param_groups)
    return loaded
