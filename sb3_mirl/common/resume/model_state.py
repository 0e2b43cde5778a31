"""
The state of a model's policy, optimiser and learning rate that is in no ``state_dict``: settings such as ``requires_grad``,
counters and random generators in Python attributes, and buffers that are not persistent.
"""

import copy
from typing import Any

import torch as th

from sb3_mirl.common.resume.classes import attributes, is_in_modules, is_instance, is_python_object, set_attribute
from sb3_mirl.common.resume.run_state import ResumableModel, own_environments, own_objects
from sb3_mirl.common.resume.state import capture, restore
from sb3_mirl.common.resume.walk import State, StateMismatch

#: Modules of classes whose objects consist of code, or compile it anew
_COMPILED = ("torch._dynamo", "torch.jit", "torch.fx", "sb3_mirl.common.gradient")
#: Attributes of the model; the arguments of ``resume()`` may replace them
_LEARNING_RATE = ("learning_rate", "lr_schedule")


def capture_model(model: ResumableModel) -> State:
    """
    The state that is not in the model's file.

    :param model: the model
    :return: its state, with the name of each attribute that cannot be captured
    """
    return capture(_values(model), _own(model))


def restore_model(model: ResumableModel, state: State, replaced: set[str] | None = None) -> None:
    """
    The counterpart of :func:`capture_model`. What cannot be restored is added to ``state.missing``.

    :param model: whose policy and optimiser have their tensors already
    :param state: of :func:`capture_model`
    :param replaced: attributes of the model that the user has replaced
    """
    holders = _holders(model)
    entries = dict(state.tree["entries"])
    if replaced and not replaced.isdisjoint(_LEARNING_RATE):
        entries = {key: node for key, node in entries.items() if not key.startswith("model.")}
    chosen = State({**state.tree, "entries": entries}, state.arrays, state.missing)
    for key, value in restore(_values(model), chosen, _own(model)).items():
        if key == "requires_grad":
            for name, parameter in model.policy.named_parameters():
                parameter.requires_grad_(value.get(name, parameter.requires_grad))
            continue
        name, _, attribute = key.rpartition(".")
        holder = holders.get(name)
        if is_instance(holder, th.nn.Module) and attribute in vars(holder)["_buffers"]:
            vars(holder)["_buffers"][attribute] = value
        elif holder is not None and not (holder is model and key not in entries):
            set_attribute(holder, attribute, value)


class ModelSnapshot:
    """
    The policy, the optimiser, the learning rate and the environment of a model at one moment, in memory.

    :param model: the model
    :param with_rest: whether to include what the tensors of policy and optimiser do not hold
    :param with_env: whether to include the environment
    """

    def __init__(self, model: ResumableModel, with_rest: bool = True, with_env: bool = True) -> None:
        self._policy, self._optimizer = (copy.deepcopy(part.state_dict()) for part in (model.policy, model.policy.optimizer))
        self._rest = capture_model(model) if with_rest else None
        self._env = capture(model.env, own_objects(model)) if with_env else None

    def put_back(self, model: ResumableModel) -> list[str]:
        """
        Restore the parts of the snapshot.

        :param model: the same model
        :return: descriptions of what cannot be restored
        """
        model.policy.load_state_dict(self._policy)
        model.policy.optimizer.load_state_dict(self._optimizer)
        missing = []
        if self._rest is not None:
            n_missing = len(self._rest.missing)
            restore_model(model, self._rest)
            missing += self._rest.missing[n_missing:]
        # An environment is restored completely or not at all: its parts must be consistent
        if self._env is not None and not self._env.missing:
            try:
                restore(model.env, self._env, own_objects(model))
            except StateMismatch as error:  # callbacks have changed its wrappers
                missing.append(f"the environment ({error})")
        return missing


def _holders(model: ResumableModel) -> dict[str, Any]:
    """The objects whose attributes are captured, by name."""
    modules = {f"policy.{name}".rstrip("."): module for name, module in model.policy.named_modules()}
    networks = {
        name: module
        for name, module in modules.items()
        if is_python_object(module) and not is_in_modules(type(module), _COMPILED)
    }
    return {**networks, "optimizer": model.policy.optimizer, "model": model}


def _values(model: ResumableModel) -> dict[str, Any]:
    parameters = model.policy.named_parameters()
    values: dict[str, Any] = {"requires_grad": {name: parameter.requires_grad for name, parameter in parameters}}
    for name, holder in _holders(model).items():
        found = {key: vars(model)[key] for key in _LEARNING_RATE} if holder is model else dict(attributes(holder))
        if is_instance(holder, th.nn.Module):
            found = {key: value for key, value in found.items() if key not in ("_parameters", "_buffers", "_modules")}
            found |= {key: holder._buffers[key] for key in holder._non_persistent_buffers_set}
        values |= {f"{name}.{key}": value for key, value in found.items() if not is_in_modules(type(value), _COMPILED)}
    return values


def _own(model: ResumableModel) -> dict[str, Any]:
    """Objects that the attributes may refer to, and that the model's file or another state of the checkpoint holds."""
    tensors = model.policy.state_dict(keep_vars=True).items()
    return {
        **own_objects(model),
        **own_environments(model),
        **{f"tensor {name} of the policy": value for name, value in tensors if is_instance(value, th.Tensor)},
        # The policy may have other objects than the model, which is the one that draws from its action space
        "observation space of the policy": model.policy.observation_space,
        "action space of the policy": model.policy.action_space,
        "observation space": model.observation_space,
        "action space": model.action_space,
    }
