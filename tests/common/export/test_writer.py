"""Writing exported files: what is refused, and that files are written atomically."""

import os

import pytest

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
