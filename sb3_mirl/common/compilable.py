"""Which networks can be compiled, and what a compiled function depends on."""

import shutil

import torch as th


def describe_network(
    network: th.nn.Module, wanted_by: str = "compile_update=True"
) -> tuple[tuple, list[str], list[th.nn.Parameter]]:
    """
    Check a network, and describe it. This is done before each call of a compiled function, therefore in one pass.

    :param network: the network to be compiled
    :param wanted_by: what asks for the compilation, for errors
    :return: a hashable value that changes with the kinds and the modes of its modules, and the names and the parameters of
        ``named_parameters()``
    :raises ValueError: if it cannot be compiled; the message says why
    """
    kinds: list[tuple[type, bool]] = []
    names: list[str] = []
    parameters: list[th.nn.Parameter] = []
    found: set[int] = set()
    pending = [("", network)]
    while pending:
        prefix, module = pending.pop()
        if id(module) in found:
            continue
        found.add(id(module))
        kinds.append((type(module), module.training))
        if isinstance(module, th.jit.ScriptModule):
            _refuse(wanted_by, "TorchScript", module)
        state = module.__dict__
        if state["_buffers"]:
            _refuse(wanted_by, "buffers, such as those of batch norm", module)
        if isinstance(module, th.nn.modules.dropout._DropoutNd) and module.p > 0:
            _refuse(wanted_by, "random numbers, such as those of dropout", module)
        if state["_forward_hooks"] or state["_forward_pre_hooks"] or state["_backward_hooks"] or state["_backward_pre_hooks"]:
            _refuse(wanted_by, "hooks", module)
        for name, parameter in state["_parameters"].items():
            if parameter is None or id(parameter) in found:
                continue
            found.add(id(parameter))
            if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
                _refuse(wanted_by, "hooks", f"parameter {prefix}{name}")
            names.append(f"{prefix}{name}")
            parameters.append(parameter)
        # Reversed, because pop() takes the last one: the order is that of named_parameters()
        pending += [(f"{prefix}{name}.", child) for name, child in reversed(state["_modules"].items()) if child is not None]
    return tuple(kinds), names, parameters


def check_compiler(device: th.device) -> None:
    """
    :param device: on which a compiled function is to run
    :raises ValueError: if Inductor lacks what it needs there
    """
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        raise ValueError(
            "compile_update=True needs a C++ compiler on the PATH (g++ or clang++), and there is none. To use a trained model "
            "without a compiler: load(..., compile_update=False)"
        )


def _refuse(wanted_by: str, what: str, where: object) -> None:
    raise ValueError(f"{wanted_by} needs a network without {what}, got {where}; train without it")
