"""Constructor arguments as JSON: classes and schedules."""

import json
import types

import numpy as np
import pytest
import torch as th
from probes import ConstantReward
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule
from torch import nn

from sb3_mirl import MIRL
from sb3_mirl.common.export.values import CLASSES, decode, encode, subclasses_in
from sb3_mirl.common.inputs import is_class


class LooksLikeAClass:
    """As list[int] on Python 3.10."""

    __class__ = type


def test_generic_aliases_are_no_classes():
    alias = LooksLikeAClass()
    assert isinstance(alias, type) and not is_class(alias) and not is_class(list[int]) and not is_class(list[int], list)
    assert is_class(int) and is_class(bool, int) and is_class(nn.ReLU, nn.Module) and not is_class(int, nn.Module)
    module = types.SimpleNamespace(alias=alias, ReLU=nn.ReLU, number=3)
    assert subclasses_in(module, "torch.nn", nn.Module) == {"torch.nn.ReLU": nn.ReLU}
    for name in ("replay_buffer_class", "policy"):
        with pytest.raises(ValueError, match=name):
            MIRL(**{"policy": "MlpPolicy", "env": ConstantReward(), name: alias})
    with pytest.raises(ValueError, match=r"policy_kwargs.* cannot be written as data"):
        encode(alias, "policy_kwargs['x']")


@pytest.mark.parametrize(
    "schedule",
    [0.5, ConstantSchedule(0.5), LinearSchedule(0.5, 0.1, 0.3), FloatSchedule(LinearSchedule(0.5, 0.0, 1.0)), "zoo"],
)
def test_schedules_are_exported_as_data(schedule, tmp_path):
    if schedule == "zoo":
        schedule = pytest.importorskip("rl_zoo3.utils").SimpleLinearSchedule(0.3)
    model = MIRL("MlpPolicy", "CartPole-v1", learning_rate=schedule)
    loaded = MIRL.load_exported(model.export(tmp_path / "model"))
    loaded = MIRL.load_exported(loaded.export(tmp_path / "model"))
    progress = np.random.default_rng(0).random(50)
    assert [loaded.lr_schedule(p) for p in progress] == [model.lr_schedule(p) for p in progress]


@pytest.mark.parametrize(
    "value",
    [
        {"a": (1, 2.5, [None, True, "text"]), "b": (float("inf"), -0.0)},
        (nn.ReLU, th.optim.Adam, NStepReplayBuffer),
    ],
)
def test_plain_values_and_classes_are_restored_exactly(value):
    text = json.dumps(encode(value, "x"), allow_nan=False)
    assert repr(decode(json.loads(text), "x", CLASSES)) == repr(value)


@pytest.mark.parametrize(
    "array",
    [
        np.array([2**63 - 1, -(2**63)]),
        np.array([0.0, -0.0], np.float32),
        np.array([[np.nan, -np.inf], [1 / 3, 1e-320]]),
        np.full((2, 3), np.nan),
        np.zeros((0, 2), np.uint8),
        np.array(True),
    ],
)
def test_arrays_are_restored_exactly(array):
    back = decode(json.loads(json.dumps(encode(array, "x"), allow_nan=False)), "x", {})
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())
