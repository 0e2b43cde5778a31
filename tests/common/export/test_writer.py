"""Writing exported files: what is refused, and that files are written atomically."""

import os

import pytest
import torch as th

from sb3_mirl import MIRL


def test_a_function_is_refused_but_can_be_replaced(tmp_path):
    model = MIRL("MlpPolicy", "CartPole-v1", learning_rate=lambda progress: 0.1 * progress)
    with pytest.raises(ValueError, match=r"learning_rate is .*lambda.*export\(path, learning_rate=\.\.\.\)"):
        model.export(tmp_path / "model")
    assert not [*tmp_path.iterdir()]
    assert MIRL.load_exported(model.export(tmp_path / "model", learning_rate=0.2)).lr_schedule(0.5) == 0.2
    with pytest.raises(ValueError, match="no argument 'lr'"):
        model.export(tmp_path / "model", lr=0.2)


def test_an_interrupted_export_leaves_the_old_file(trained, exported, monkeypatch):
    before = exported.read_bytes()

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        trained.export(exported)
    assert exported.read_bytes() == before and [*exported.parent.iterdir()] == [exported]


def test_export_refuses_what_load_refuses(trained, tmp_path):
    with pytest.raises(ValueError, match=r"'arguments' must have at most 1000 values"):
        trained.export(tmp_path / "a", policy_kwargs={"net_arch": [1] * 2000})
    with pytest.raises(ValueError, match="integers must have at most 64 bits"):
        trained.export(tmp_path / "a", policy_kwargs={"x": 2**64})
    assert not (tmp_path / "a.safetensors").exists()


class Curious(MIRL):
    """Has a network beside its policy."""

    def _setup_model(self):
        super()._setup_model()
        self.novelty = th.nn.Linear(4, 1)

    def _get_torch_save_params(self):
        names, variables = super()._get_torch_save_params()
        return [*names, "novelty"], variables


def test_networks_beside_the_policy_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no networks besides its policy.*got \['novelty'\] in Curious"):
        Curious("MlpPolicy", "CartPole-v1").export(tmp_path / "a")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(("name", "value"), [("prior", 2.0), ("beta", float("nan"))])
def test_values_that_load_refuses_are_not_written(tmp_path, name, value):
    model = MIRL("MlpPolicy", "CartPole-v1")
    getattr(model.policy, name).fill_(value)
    with pytest.raises(ValueError, match=f"policy.{name} must be"):
        model.export(tmp_path / "a")
    assert not [*tmp_path.iterdir()]
