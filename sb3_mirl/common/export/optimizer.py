"""The optimiser's state: its tensors by name, and the rest as JSON."""

import math
from typing import Any

import torch as th

from sb3_mirl.common.export.document import check_fields
from sb3_mirl.common.export.values import decode, encode
from sb3_mirl.common.text import shortened

#: Settings that follow a schedule or depend on the device. Others are those of ``optimizer_kwargs``
VARIABLE_SETTINGS = ("lr", "initial_lr", "fused", "foreach")


def split_state(optimizer: th.optim.Optimizer) -> tuple[dict[str, th.Tensor], dict[str, Any]]:
    """
    :param optimizer: the optimiser
    :return: the tensors of its ``state_dict`` by name in the file; the rest as JSON
    """
    state_dict = optimizer.state_dict()
    tensors: dict[str, th.Tensor] = {}
    state: dict[str, dict[str, Any]] = {}
    for index, entries in state_dict["state"].items():
        if not entries:
            continue  # reading the state of a parameter creates an empty entry
        tensors |= {f"optimizer.{index}.{key}": copied(entry) for key, entry in entries.items() if th.is_tensor(entry)}
        state[str(index)] = {key: _encode(key, entry) for key, entry in entries.items() if not th.is_tensor(entry)}
    groups = [{key: _encode(key, value) for key, value in group.items()} for group in state_dict["param_groups"]]
    return tensors, {"state": state, "param_groups": groups}


def copied(tensor: th.Tensor) -> th.Tensor:
    """A copy on the CPU: safetensors refuses tensors that share memory."""
    return tensor.detach().cpu().clone(memory_format=th.contiguous_format)


def _encode(key: str, value: Any) -> Any:
    return encode(value, f"the optimiser's {key}")


def merge_state(given: dict[str, Any], built: dict[str, Any], tensors: dict[str, th.Tensor]) -> dict[str, Any]:
    """
    The inverse of :func:`split_state`.

    :param given: JSON of the file
    :param built: the same of the optimiser that was built from the file's arguments
    :param tensors: of the file, as many as ``given`` describes
    :return: the ``state_dict``
    :raises ValueError: if ``given`` contradicts ``built``
    """
    groups = given["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(built["param_groups"]):
        raise ValueError(f"optimizer: must have {len(built['param_groups'])} param_groups, the file has {shortened(groups)}")
    state: dict[int, dict[str, Any]] = {}
    for index, entries in given["state"].items():
        expected = built["state"][index]
        check_fields(f"optimizer: state[{index}]", entries, expected)
        state[int(index)] = {key: _decode(key, entries[key], expected[key]) for key in expected}
    for name, tensor in tensors.items():
        _, index, key = name.split(".", 2)
        state[int(index)][key] = tensor
    return {"state": state, "param_groups": [*map(_merge_group, groups, built["param_groups"])]}


def _merge_group(group: Any, expected: dict[str, Any]) -> dict[str, Any]:
    # Settings that an older torch did not have keep their defaults. A scheduler adds initial_lr
    if not isinstance(group, dict) or not {"lr", "params"} <= group.keys() <= {*expected, "initial_lr"}:
        raise ValueError(f"optimizer: a group has the settings {sorted(expected)}, the file has {shortened(group)}")
    expected = {**expected, **({"initial_lr": expected["lr"]} if "initial_lr" in group else {})}
    for key, value in group.items():
        if key not in VARIABLE_SETTINGS and value != expected[key] and not _is_changed_number(value, expected[key]):
            own = shortened(expected[key])
            raise ValueError(
                f"optimizer: {key} must be {own} as in optimizer_kwargs, or another number if {own} is one, the file has "
                f"{shortened(value)}"
            )
    for key in ("lr", "initial_lr"):
        if key in group and (type(group[key]) not in (int, float) or not group[key] >= 0):
            raise ValueError(f"optimizer: {key} must be a number >= 0, the file has {shortened(group[key])}")
    device_settings = {key: expected[key] for key in ("fused", "foreach") if key in expected}
    return {key: _decode(key, value, expected[key]) for key, value in {**expected, **group, **device_settings}.items()}


def _is_changed_number(value: Any, own: Any) -> bool:
    """Whether both are numbers: training may change a setting such as ``weight_decay``."""
    return {type(value), type(own)} <= {int, float} and math.isfinite(value)


def _decode(key: str, given: Any, expected: Any) -> Any:
    """Decode a value of the file, which must have the type of the built optimiser's value."""
    value, own = (decode(item, f"optimizer: {key}", {}) for item in (given, expected))
    are_numbers = {type(value), type(own)} <= {int, float}
    if type(value) is not type(own) and not are_numbers:
        raise ValueError(f"optimizer: {key} must be of the type of {shortened(own)}, the file has {shortened(value)}")
    return value
