"""
Files of hyper-parameters in rl-zoo3's format, checked before anything is trained: an unknown key, or a value that is not
accepted, is reported with its file and line. It belongs to :mod:`sb3_mirl.zoo`.

What a constructor argument may be is not said here, but in :data:`sb3_mirl.checks.RULES`.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rl_zoo3.exp_manager
import yaml
from rl_zoo3.utils import get_class_by_name

from sb3_mirl.checks import RULES, check_argument, check_integer, is_class
from sb3_mirl.mirl import MIRL
from sb3_mirl.policies import MIRLPolicy

Places = dict[str, str]

# Constructor arguments that rl-zoo3 passes by itself
COMMAND_LINE = {
    "env": "--env",
    "tensorboard_log": "--tensorboard-log",
    "seed": "--seed",
    "verbose": "--verbose",
    "device": "--device",
}
# What rl-zoo3 evaluates as Python if it is a string
EVALUATED = ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "normalize", "monitor_kwargs")
REQUIRED = ("n_timesteps", "policy")


class HyperparametersError(ValueError):
    """What is wrong with the hyper-parameters, one line for each mistake."""


def read_places(file: str, env: str, is_atari: bool) -> tuple[Places, str]:
    """
    Where the hyper-parameters of an environment stand.

    :param file: a YAML file
    :param env: the environment's id
    :param is_atari: whether the section ``atari`` is for it
    :return: for each key of the section that rl-zoo3 chooses, ``file:line``; and the same of the section itself
    :raises HyperparametersError: if the file cannot be read, has no such section, or names a key twice
    """
    try:
        loader = yaml.SafeLoader(Path(file).read_text())
        root = loader.get_single_node()
    except (OSError, UnicodeDecodeError) as error:
        raise HyperparametersError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else file
        raise HyperparametersError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(root, yaml.MappingNode):
        raise HyperparametersError(f"{file}: must map names of environments to hyper-parameters")
    sections = _entries(root, file)
    name = env if env in sections else "atari" if is_atari else "default"
    if name not in sections:
        raise HyperparametersError(
            f"{file}: has no hyper-parameters for {env}, and no section {name!r}. It has: {', '.join(sections) or 'nothing'}"
        )
    key, section = sections[name]
    place = f"{file}:{_line(key)}"
    if not isinstance(section, yaml.MappingNode):
        raise HyperparametersError(f"{place}: {name} must map names of hyper-parameters to values")
    _entries(section, file)
    loader.flatten_mapping(section)  # `<<: *other`, whose keys come first
    return {key.value: f"{file}:{_line(key)}" for key, _ in section.value}, place


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _entries(node: yaml.MappingNode, file: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The entries of a mapping, by key. PyYAML takes the last of two with the same key."""
    entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if str(key.value) in entries:
            first = _line(entries[key.value][0])
            raise HyperparametersError(f"{file}:{_line(key)}: {key.value} is given a second time, after line {first}")
        entries[str(key.value)] = (key, value)
    return entries


def check_hyperparameters(
    algorithm: type[MIRL], env: str, hyperparams: Mapping[str, Any], places: Mapping[str, str], section: str
) -> None:
    """
    :param algorithm: MIRL, SQL or SQLm
    :param env: the environment's id, for the error
    :param hyperparams: as rl-zoo3 has read them
    :param places: where each of them stands, for the error
    :param section: where the others would stand
    :raises HyperparametersError: if rl-zoo3 or the algorithm would not accept them, with all that is wrong
    """
    defaults = _defaults(algorithm)
    mistakes = {key: f"{key} is missing" for key in REQUIRED if key not in hyperparams}
    arguments = {**defaults, "n_envs": 1}
    for key, value in hyperparams.items():
        try:
            arguments[key] = _as_the_zoo_passes_it(key, value)
            _check_key(key, arguments[key], defaults)
        except ValueError as error:
            mistakes[key] = str(error)
            arguments[key] = defaults.get(key)
    for key in defaults.keys() & RULES.keys() - mistakes.keys():
        try:
            check_argument(key, arguments)
        except ValueError as error:
            mistakes[key] = str(error) + _yaml_note(hyperparams.get(key))
    if mistakes:
        lines = [f"{places.get(key, section)}: {mistake} ({env})" for key, mistake in mistakes.items()]
        raise HyperparametersError("\n".join(sorted(lines, key=_by_line)))


def _by_line(text: str) -> tuple[int, str]:
    line = re.search(r":(\d+): ", text)
    return (int(line[1]) if line else 0, text)


def _defaults(algorithm: type[MIRL]) -> dict[str, Any]:
    """The arguments of the constructor with their defaults, less what rl-zoo3 passes by itself. SQL and SQLm change some."""
    classes = [one for one in reversed(algorithm.__mro__) if issubclass(one, MIRL)]
    parameters = {name: p for one in classes for name, p in inspect.signature(one.__init__).parameters.items()}
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty and name not in COMMAND_LINE}


def _yaml_note(value: Any) -> str:
    try:
        float(value if isinstance(value, str) else "")
    except ValueError:
        return ""
    return f" (YAML reads {value} as text: write !!float {value})"


def _as_the_zoo_passes_it(key: str, value: Any) -> Any:
    """What rl-zoo3 makes of a value before it passes it on."""
    if key == "learning_rate" and isinstance(value, str):
        schedule, _, number = value.partition("_")
        try:
            if schedule == "lin":
                return float(number)
        except ValueError:
            pass
        raise ValueError(f"{key} must be a number or lin_ and a number (lin_1e-3), got {value!r}{_yaml_note(value)}")
    if key == "train_freq" and isinstance(value, list):
        return tuple(value)
    if key in EVALUATED and isinstance(value, str):
        try:
            return eval(value, dict(vars(rl_zoo3.exp_manager)))
        except Exception as error:
            raise ValueError(f"{key} must be a Python expression, got {value!r} ({type(error).__name__}: {error})") from error
    return value


def _check_key(key: str, value: Any, defaults: Mapping[str, Any]) -> None:
    if key in COMMAND_LINE:
        raise ValueError(f"{key} is not for this file: it is {COMMAND_LINE[key]} on the command line")
    if key in ZOO_RULES:
        ZOO_RULES[key](key, value)
    elif key not in defaults or key.startswith("_"):
        known = [*ZOO_RULES, *(name for name in defaults if not name.startswith("_"))]
        close = difflib.get_close_matches(str(key), known, n=1)
        suggestion = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(sorted(known))}"
        raise ValueError(f"{key} is not a hyper-parameter: {suggestion}")


# ---- keys of rl-zoo3 ------------------------------------------------------------------------------------------------


def _zoo_integer(key: str, value: Any) -> None:
    check_integer(key, value, 1)
    if not isinstance(value, int):
        raise ValueError(f"{key} must be an integer >= 1 written without a point, got {value!r}")


def _n_timesteps(key: str, value: Any) -> None:
    try:
        check_integer(key, value, 1)
    except ValueError as error:
        raise ValueError(f"{error}{_yaml_note(value)}") from None


def _policy(key: str, value: Any) -> None:
    policy = _imported(key, value) if isinstance(value, str) and "." in value else MIRL.policy_aliases.get(str(value), value)
    if not is_class(policy, MIRLPolicy):
        raise ValueError(
            f"{key} must be one of {sorted(MIRL.policy_aliases)} or the dotted name of a subclass of MIRLPolicy, got {value!r}"
        )


def _imported(key: str, name: str) -> Any:
    try:
        return get_class_by_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key} must be the dotted name of a class, got {name!r} ({error})") from error


def _classes(key: str, value: Any) -> None:
    for one in value if isinstance(value, list) else [] if value is None else [value]:
        name = next(iter(one)) if isinstance(one, dict) and len(one) == 1 else one
        if isinstance(name, str):
            _imported(key, name)
        elif isinstance(name, dict):
            raise ValueError(f"{key} must be names of classes, each with at most its arguments below it, got {one!r}")
        # rl-zoo3 takes classes and objects too, from files in Python
        elif name is None or isinstance(name, (bool, int, float, list)):
            raise ValueError(f"{key} must be names of classes, got {one!r}")


def _bool_or_dict(key: str, value: Any) -> None:
    if not isinstance(value, (bool, dict)):
        raise ValueError(f"{key} must be true, false or a dict, got {value!r}")


def _dict(key: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{key} must be a dict, got {value!r}")


def _no_noise(key: str, value: Any) -> None:
    # Whatever it is: rl-zoo3 would pass None on to the constructor
    raise ValueError(f"{key} must be left out, since actions are discrete, got {value!r}")


ZOO_RULES: dict[str, Callable[[str, Any], None]] = {
    "policy": _policy,
    "n_timesteps": _n_timesteps,
    "n_envs": _zoo_integer,
    "frame_stack": _zoo_integer,
    "normalize": _bool_or_dict,
    "env_kwargs": _dict,
    "monitor_kwargs": _dict,
    "env_wrapper": _classes,
    "vec_env_wrapper": _classes,
    "callback": _classes,
    "noise_type": _no_noise,
    "noise_std": _no_noise,
}
