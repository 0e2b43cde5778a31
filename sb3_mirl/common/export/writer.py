"""Writing a model to a file that holds data only."""

import json
import platform
from pathlib import Path
from typing import Any

import safetensors.torch
import torch as th
from stable_baselines3.common.type_aliases import TrainFreq

from sb3_mirl.common.export.document import FORMAT, MAX_HEADER_BYTES, SUFFIX, VERSION, check_document, parse_json
from sb3_mirl.common.export.model import TRAINING, ExportableModel, argument_names, attribute_name, uncompiled_policy
from sb3_mirl.common.export.optimizer import copied, split_state
from sb3_mirl.common.export.spaces import encode_space
from sb3_mirl.common.export.values import encode
from sb3_mirl.common.files import package_versions, write_whole


def export_model(model: ExportableModel, path: str | Path, replaced: dict[str, Any]) -> Path:
    """
    See ``export`` of the model.

    :param path: of the file, written atomically; ``.safetensors`` is added if it has no suffix
    :param replaced: constructor arguments to be written instead of the model's
    :return: the path of the file
    :raises ValueError: if something cannot be written as data; the message names it
    """
    path = Path(path)
    path = path if path.suffix else path.with_name(path.name + SUFFIX)
    policy = uncompiled_policy(model)
    names, variables = model._get_torch_save_params()
    if others := [name for name in [*names, *variables] if name not in ("policy", "policy.optimizer")]:
        raise ValueError(
            f"A model must have no networks besides its policy to be exported, got {others} in {type(model).__name__}. save() "
            "writes all of them"
        )
    # What reading refuses must not be written
    policy.check_loaded_state()
    state_dict = policy.state_dict()
    if other := [name for name, value in state_dict.items() if not th.is_tensor(value)]:
        raise ValueError(f"{other[0]} of the policy must be a tensor to be exported, got {state_dict[other[0]]!r}")
    tensors, optimizer = split_state(model.policy.optimizer)
    tensors |= {f"policy.{name}": copied(value) for name, value in state_dict.items()}
    arguments = {name: model.exported_argument(name, value) for name, value in _arguments(model, replaced).items()}
    document = {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": model.algorithm,
        "arguments": {name: encode(value, name) for name, value in arguments.items()},
        "observation_space": encode_space(model.observation_space, "observation_space"),
        "action_space": encode_space(model.action_space, "action_space"),
        "action_names": model.action_names,
        "training": _training(model),
        "optimizer": optimizer,
        "versions": {
            **package_versions("sb3_mirl", "stable_baselines3", "torch", "gymnasium", "numpy"),
            "python": platform.python_version(),
        },
        "frozen": [name for name, parameter in policy.named_parameters() if not parameter.requires_grad],
        "learning_curve": model.learning_curve,
        "uses_action_masks": model.uses_action_masks,
    }
    text = json.dumps(document, allow_nan=False)
    # What reading refuses must not be written
    check_document(parse_json(text), path)
    content = safetensors.torch.save(tensors, {FORMAT: text})
    if (n_bytes := int.from_bytes(content[:8], "little")) > MAX_HEADER_BYTES:
        raise ValueError(
            f"{path}: the arguments, the bounds of the spaces and the names of the tensors must fit into {MAX_HEADER_BYTES} "
            f"bytes, and take {n_bytes}"
        )
    write_whole(path, content)
    return path


def _arguments(model: ExportableModel, replaced: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the constructor, some of them replaced."""
    names = argument_names(type(model))
    if unknown := [name for name in replaced if name not in names]:
        raise ValueError(f"export has no argument {unknown[0]!r}; constructor arguments that it takes are {sorted(names)}")
    missing = [name for name in names if name not in replaced and not hasattr(model, attribute_name(name))]
    if missing:
        raise ValueError(f"{type(model).__name__} has the constructor arguments {missing}, but no attributes of these names")
    arguments = {name: replaced[name] if name in replaced else getattr(model, attribute_name(name)) for name in names}
    if isinstance(train_freq := arguments["train_freq"], TrainFreq):
        arguments["train_freq"] = (train_freq.frequency, train_freq.unit.value)
    return arguments


def _training(model: ExportableModel) -> dict[str, Any]:
    own = {name: getattr(model, name, None) for name in model.exported_attributes}
    return {
        **{name: kind(getattr(model, attribute)) for name, (attribute, kind) in TRAINING.items()},
        **{name: None if value is None else float(value) for name, value in own.items()},
    }
