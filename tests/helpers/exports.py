"""Exported files for tests: a small model, and files that were changed or crafted."""

import json
import os
import zipfile

import safetensors
import safetensors.torch
import torch as th

FAST = {"learning_starts": 20, "buffer_size": 500, "batch_size": 8, "policy_kwargs": {"net_arch": [16]}, "seed": 0}


def check_equal(loaded, model):
    """Weights, ρ, β and the optimiser's state, bit for bit; settings and counters."""
    state, other = model.policy.state_dict(), loaded.policy.state_dict()
    assert state.keys() == other.keys()
    for name, value in state.items():
        assert th.equal(other[name], value) and other[name].dtype == value.dtype, name
    optimizer, other = model.policy.optimizer.state_dict(), loaded.policy.optimizer.state_dict()
    assert optimizer["param_groups"] == other["param_groups"]
    for index, entries in optimizer["state"].items():
        assert entries.keys() == other["state"].get(index, {}).keys()
        for key, value in entries.items():
            assert th.equal(other["state"][index][key], value), key
    assert loaded.observation_space == model.observation_space and loaded.action_space == model.action_space
    for name in ["num_timesteps", "_n_updates", "_episode_num", "_n_calls", "exploration_rate", "action_names", "train_freq"]:
        assert getattr(loaded, name) == getattr(model, name), name
    for name in ["gamma", "beta_schedule", "beta_init", "beta_max", "prior_lr", "loss", "regularization", "policy_kwargs"]:
        assert getattr(loaded, name) == getattr(model, name), name


def rewrite(path, change=lambda document: None, tensors=lambda tensors: None):
    """The file with its document, or its tensors, changed in place."""
    with safetensors.safe_open(path, "pt") as file:
        metadata, values = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    document = json.loads(metadata["sb3_mirl"])
    change(document)
    tensors(values)
    safetensors.torch.save_file(values, path, {"sb3_mirl": json.dumps(document)})
    return path


def set_at(*keys, value):
    def change(document):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def with_header(whole, change):
    """An export's bytes with its header changed, as text or as JSON."""
    length = int.from_bytes(whole[:8], "little")
    header = change(whole[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + whole[8 + length :]


def with_document(whole, change):
    def change_header(header):
        header = json.loads(header)
        header["__metadata__"]["sb3_mirl"] = change(header["__metadata__"]["sb3_mirl"])
        return json.dumps(header).encode()

    return with_header(whole, change_header)


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def zip_with(source, target, entries):
    """A copy of SB3's zip with other entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, entries.get(name, old.read(name)))
    return target
