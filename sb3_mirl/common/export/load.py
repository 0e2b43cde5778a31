"""Building a model from an exported file. Whatever the file holds, no code of it is run."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.utils import check_for_correct_spaces

from sb3_mirl.common import learning_curve
from sb3_mirl.common.export.document import check_fields, opened
from sb3_mirl.common.export.model import TRAINING, ExportableModel, argument_names, attribute_name, uncompiled_policy
from sb3_mirl.common.export.optimizer import merge_state, split_state
from sb3_mirl.common.export.spaces import decode_space
from sb3_mirl.common.export.values import CLASSES, decode
from sb3_mirl.common.inputs import check_argument, check_arguments, check_observation_space, is_class, valid_action_names
from sb3_mirl.common.text import printable, shortened

Model = TypeVar("Model", bound=ExportableModel)


def load_model(
    cls: type[Model],
    path: str | Path,
    env: GymEnv | None,
    device: th.device | str,
    custom_objects: dict[str, type] | None,
    replaced: dict[str, Any],
) -> Model:
    """
    See ``load_exported`` of the model.

    :param custom_objects: classes of the user, by the names that the file has for them
    :param replaced: constructor arguments to be used instead of the file's
    :raises ValueError: if the file is refused; the message says what in it and why
    """
    with opened(path) as (document, file):
        if document["algorithm"] != cls.algorithm:
            raise ValueError(
                f"The file holds the algorithm {shortened(document['algorithm'])}, and {cls.__name__}.load_exported loads "
                f"{cls.algorithm}: load it with the class that exported it"
            )
        arguments = _arguments(cls, document["arguments"], custom_objects or {}, replaced)
        attributes = _attributes(cls, document, replaced)
        if env is not None:
            env = cls._wrap_env(env, check_argument("verbose", arguments, cls.argument_rules))
            check_for_correct_spaces(env, attributes["observation_space"], attributes["action_space"])
            attributes["n_envs"] = env.num_envs
        model = _build(cls, arguments, attributes, env, device, file, has_custom_classes=bool(custom_objects))
        _load_tensors(model, file, document["optimizer"])
    uncompiled_policy(model).check_loaded_state()
    _freeze(model, document.get("frozen"))
    return model


def _arguments(
    cls: type[ExportableModel], given: dict[str, Any], custom_objects: dict[str, type], replaced: dict[str, Any]
) -> dict[str, Any]:
    """The constructor's arguments: those of the file, some of them replaced."""
    names = argument_names(cls)
    if unknown := [name for name in replaced if name not in [*names, "tensorboard_log"]]:
        raise ValueError(
            f"load_exported has no argument {unknown[0]!r}; constructor arguments that it takes are {sorted(names)}"
        )
    # Of a user's subclass, which inherits `algorithm`, a file of the parent has the parent's arguments only
    parent = next(base for base in cls.__mro__ if "algorithm" in vars(base))
    needed = [name for name in argument_names(parent) if name not in cls.newer_arguments]
    check_fields("arguments", given, needed, names)
    own = {f"{policy.__module__}.{policy.__qualname__}": policy for policy in (cls.base_policy, *cls.policy_aliases.values())}
    classes = {**CLASSES, **own, **custom_objects}
    policy = replaced.get("policy", decode(given["policy"], "policy", classes))
    policy = cls.policy_aliases.get(policy, policy) if isinstance(policy, str) else policy
    if not is_class(policy, cls.base_policy):
        raise ValueError(f"policy: must be a subclass of {cls.base_policy.__name__}, got {shortened(policy)}")
    arguments = {name: decode(value, name, classes) for name, value in given.items()}
    if "policy_kwargs" in replaced and replaced["policy_kwargs"] != arguments["policy_kwargs"]:
        raise ValueError(f"policy_kwargs must be the file's, {arguments['policy_kwargs']}, got {replaced['policy_kwargs']}")
    return {**arguments, **replaced, "policy": policy}


def _attributes(cls: type[ExportableModel], document: dict[str, Any], replaced: dict[str, Any]) -> dict[str, Any]:
    """The attributes of the model that are not constructor arguments."""
    space, action_space = (decode_space(document[name], name) for name in ("observation_space", "action_space"))
    if not isinstance(action_space, spaces.Discrete):
        raise ValueError(f"action_space: must be Discrete, the file has {action_space}")
    check_observation_space(space)
    names = document["action_names"]
    if names is not None and valid_action_names(names, int(action_space.n)) is None:
        raise ValueError(f"action_names must be {action_space.n} different names, the file has {shortened(names)}")
    training = document["training"]
    check_fields("training", training, TRAINING, cls.exported_attributes)
    own = {name: training.get(name) for name in cls.exported_attributes}
    check_arguments(own, cls.exported_attributes)
    return {
        **{attribute: training[name] for name, (attribute, _) in TRAINING.items()},
        # A number that was resolved from an argument becomes invalid with it
        **{name: None if name.removeprefix("resolved_") in replaced else value for name, value in own.items()},
        "observation_space": space,
        "action_space": action_space,
        "action_names": names,
        "learning_curve": document.get("learning_curve", learning_curve.new_curve()),
        "uses_action_masks": document.get("uses_action_masks", False),
    }


def _build(
    cls: type[Model],
    arguments: dict[str, Any],
    attributes: dict[str, Any],
    env: GymEnv | None,
    device: th.device | str,
    file: Any,
    has_custom_classes: bool,
) -> Model:
    """The model, with random weights of its own."""
    try:
        model = cls(policy=arguments["policy"], env=env, device=device, _init_setup_model=False)  # type: ignore[arg-type]
        model.__dict__.update({attribute_name(name): value for name, value in arguments.items() if name != "policy"})
        model.__dict__.update(attributes)
        known = {"n_envs": attributes["n_envs"], "n_actions": int(attributes["action_space"].n)}
        check_arguments({**arguments, **known}, cls.argument_rules)
        _check_network(model, file, has_custom_classes)
        model._setup_model()
    except (ValueError, safetensors.SafetensorError):
        raise
    except Exception as error:  # constructors raise anything if they get arguments that they do not expect
        reason = shortened(printable(f"{type(error).__name__}: {error}"))
        raise ValueError(f"No model can be built from the file's arguments: {reason}") from error
    return model


def _check_network(model: ExportableModel, file: Any, has_custom_classes: bool) -> None:
    """
    Check that the file has the weights of the network that its arguments describe: otherwise a small file could describe a
    network that does not fit into memory. On torch's device ``meta`` the network takes no memory.
    """
    kwargs = {**copy.deepcopy(model.policy_kwargs), "optimizer_class": th.optim.SGD, "optimizer_kwargs": {}}
    meta_class: Any = type("MetaPolicy", (model.policy_class,), {"device": th.device("meta")})
    try:
        with th.device("meta"):
            policy = meta_class(copy.deepcopy(model.observation_space), model.action_space, lambda _: 1.0, **kwargs)
            model.extend_policy(policy)
    except Exception:
        if has_custom_classes:
            return  # classes of the user may not support this device
        raise
    _check_tensors(file, {f"policy.{name}": value for name, value in policy.state_dict().items()}, "policy.")


def _check_tensors(file: Any, expected: Mapping[str, th.Tensor], prefix: str = "") -> None:
    """Check that among the tensors whose names begin with ``prefix`` the file has exactly those expected."""
    names = {name for name in file.keys() if name.startswith(prefix)}
    unknown, missing = sorted(names - expected.keys()), sorted(expected.keys() - names)
    if unknown or missing:
        raise ValueError(
            f"Tensors that the model does not have: {shortened(unknown)}; "
            f"tensors that the file does not have: {shortened(missing)}"
        )
    for name, value in expected.items():
        given = file.get_tensor(name)
        if (given.shape, given.dtype) != (value.shape, value.dtype):
            raise ValueError(
                f"{name} must be {value.dtype} of shape {tuple(value.shape)}, "
                f"the file has {given.dtype} of shape {tuple(given.shape)}"
            )


def _load_tensors(model: ExportableModel, file: Any, optimizer: dict[str, Any]) -> None:
    policy = model.policy
    # A step with gradients of zero creates the optimiser's state with its shapes; its values are overwritten below
    for parameter in (parameter for group in policy.optimizer.param_groups for parameter in group["params"]):
        parameter.grad = th.zeros_like(parameter)
    try:
        policy.optimizer.step()
    except Exception as error:  # optimisers raise anything if they get settings that they do not expect
        reason = shortened(printable(error))
        raise ValueError(f"The file's optimizer_kwargs do not make an optimiser that works: {reason}") from error
    policy.optimizer.zero_grad()
    built_tensors, built = split_state(policy.optimizer)
    check_fields("optimizer", optimizer, built)
    # Parameters that were frozen or unused have no state
    check_fields("optimizer: state", optimizer["state"], (), built["state"])
    expected = {name: value for name, value in built_tensors.items() if name.split(".")[1] in optimizer["state"]}
    expected |= {f"policy.{name}": value for name, value in policy.state_dict().items()}
    _check_tensors(file, expected)
    # Copies, because the file may change
    tensors = {name: file.get_tensor(name).clone() for name in expected}
    policy.load_state_dict({name.removeprefix("policy."): v for name, v in tensors.items() if name.startswith("policy.")})
    optimizer_tensors = {name: tensor for name, tensor in tensors.items() if name in built_tensors}
    policy.optimizer.load_state_dict(merge_state(optimizer, built, optimizer_tensors))


def _freeze(model: ExportableModel, frozen: list[str] | None) -> None:
    """Freeze these parameters and no others; older files do not say which, then the policy's constructor decides."""
    if frozen is None:
        return
    parameters = dict(uncompiled_policy(model).named_parameters())
    check_fields("frozen", dict.fromkeys(frozen), (), parameters)
    for name, parameter in parameters.items():
        parameter.requires_grad_(name not in frozen)
