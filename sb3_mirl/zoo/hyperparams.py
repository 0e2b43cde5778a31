"""
Files of hyper-parameters in rl-zoo3's format, checked before anything is trained: an unknown key, or a value that is not
accepted, is reported with its file and line. It belongs to :mod:`sb3_mirl.zoo.command`.

What a constructor argument may be is not said here, but in :data:`sb3_mirl.common.inputs.RULES`.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import rl_zoo3.exp_manager
import yaml
from rl_zoo3.utils import get_class_by_name

from sb3_mirl.common.inputs import RULES, check_argument, check_integer, is_class
from sb3_mirl.common.text import printable
from sb3_mirl.mirl.mirl import MIRL
from sb3_mirl.mirl.policies import MIRLPolicy

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


#: What no file of hyper-parameters needs: so many levels, and so many values with all aliases written out
MAX_DEPTH, MAX_VALUES = 50, 20_000
# What SafeLoader makes; "!" is a text that looks like something else
TAGS = {"!", *filter(None, yaml.SafeLoader.yaml_constructors)}


class HyperparametersError(ValueError):
    """What is wrong with the hyper-parameters, one line for each mistake."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(map(printable, mistakes)))


def read_document(file: str) -> yaml.MappingNode:
    """
    A YAML file that PyYAML can read: no object of a class, no nesting or aliases that would take for ever.

    :param file: its path
    :return: its content, as nodes with their lines
    :raises HyperparametersError: if it is none, or does not map names to anything
    """
    try:
        text = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise HyperparametersError(f"{file}: cannot be read: {error}") from error
    try:
        check_size(file, text, TAGS)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise HyperparametersError(_not_yaml(file, error)) from error
    if not isinstance(root, yaml.MappingNode):
        raise HyperparametersError(f"{file}: must map names of environments to hyper-parameters")
    sections = [section.value for _, section in root.value if isinstance(section, yaml.MappingNode)]
    # One by one for their lines, then all for what only the whole can have wrong
    for node in [*(value for section in sections for _, value in section), root]:
        try:
            loader.construct_object(node, deep=True)
        except yaml.YAMLError as error:
            raise HyperparametersError(_not_yaml(file, error)) from error
        except Exception as error:  # of int(), float() and others, which name no line
            raise HyperparametersError(f"{file}:{_line(node)}: not YAML: {type(error).__name__}: {error}") from error
    # Once more, because making mappings has put merged keys (`<<`) into the nodes
    return yaml.compose(text, Loader=yaml.SafeLoader)  # type: ignore[return-value]


def check_size(file: str, text: str, tags: Collection[str] | None = None) -> None:
    """
    :param file: the path, for the error
    :param text: of a YAML file, of which nothing is made here
    :param tags: those that it may have; None: any
    :raises HyperparametersError: if it is deeper than :data:`MAX_DEPTH`, has more than :data:`MAX_VALUES`, or another tag
    :raises YAMLError: if it is no YAML
    """
    sizes: dict[str, int] = {}
    # Of the collections that have begun: their anchors, and how many values they have so far
    open_ones: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place, tag = f"{file}:{event.start_mark.line + 1}", getattr(event, "tag", None)  # type: ignore[union-attr]
        if tags is not None and tag is not None and tag not in tags:
            raise HyperparametersError(f"{place}: the tag {tag} is refused: values have none, or one such as !!float")
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if len(open_ones) > MAX_DEPTH:
                raise HyperparametersError(f"{place}: must not be nested deeper than {MAX_DEPTH} levels")
            open_ones.append((anchor, 1))
            continue
        if isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            anchor, size = open_ones.pop()
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == name for name, _ in open_ones):
                raise HyperparametersError(f"{place}: *{anchor} must not stand inside of what it names")
            anchor, size = None, sizes.get(str(anchor), 1)
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        if anchor is not None:
            sizes[anchor] = size
        parent, count = open_ones[-1]
        open_ones[-1] = (parent, count + size)
        if count + size > MAX_VALUES:
            raise HyperparametersError(f"{place}: must not have more than {MAX_VALUES} values, aliases written out")


def _not_yaml(file: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{file}:{mark.line + 1}" if mark else file
    return f"{where}: not YAML: {getattr(error, 'problem', None) or error}"


def read_places(file: str, root: yaml.MappingNode, env: str, is_atari: bool) -> tuple[Places, str]:
    """
    Where the hyper-parameters of an environment stand.

    :param file: a YAML file
    :param root: its content
    :param env: the environment's id
    :param is_atari: whether the section ``atari`` is for it
    :return: for each key of the section that rl-zoo3 chooses, ``file:line``; and the same of the section itself
    :raises HyperparametersError: if it has no such section, or names a key twice
    """
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
    yaml.SafeLoader("").flatten_mapping(section)  # `<<: *other`, whose keys come first
    for key, _ in section.value:
        if key.tag != "tag:yaml.org,2002:str":
            raise HyperparametersError(f"{file}:{_line(key)}: names of hyper-parameters must be text, got {key.value}")
    return {key.value: f"{file}:{_line(key)}" for key, _ in section.value}, place


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _entries(node: yaml.MappingNode, file: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The entries of a mapping, by key. PyYAML takes the last of two with the same key."""
    entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if str(key.value) in entries:
            first = _line(entries[str(key.value)][0])
            raise HyperparametersError(f"{file}:{_line(key)}: {key.value} is given a second time, after line {first}")
        entries[str(key.value)] = (key, value)
    return entries


def check_hyperparameters(
    algorithm: type[MIRL], env: str, hyperparams: Mapping[str, Any], places: Mapping[str, str], section: str
) -> dict[str, Any]:
    """
    :param algorithm: MIRL, SQL or SQLm
    :param env: the environment's id, for the error
    :param hyperparams: as rl-zoo3 has read them
    :param places: where each of them stands, for the error
    :param section: where the others would stand
    :return: the values of those that are texts in Python, which need not be evaluated again
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
            check_argument(key, arguments, RULES)
        except ValueError as error:
            mistakes[key] = str(error) + _yaml_note(hyperparams.get(key))
    if mistakes:
        lines = [f"{places.get(key, section)}: {mistake} ({env})" for key, mistake in mistakes.items()]
        raise HyperparametersError(*sorted(lines, key=_by_line))
    return {key: arguments[key] for key in EVALUATED if isinstance(hyperparams.get(key), str)}


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
