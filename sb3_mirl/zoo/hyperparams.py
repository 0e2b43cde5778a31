"""
Checks of hyper-parameter files in rl-zoo3's format, before anything is trained: an unknown key or a value that is not accepted
is reported with its file and line.

The rules for constructor arguments are the algorithm's ``argument_rules``.
"""

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import rl_zoo3.exp_manager
import yaml
from rl_zoo3.utils import get_class_by_name

from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.inputs import check_argument, check_integer, is_class
from sb3_mirl.common.text import did_you_mean, printable

#: ``file:line`` of each hyper-parameter
Places = dict[str, str]

#: Constructor arguments that rl-zoo3 sets from the command line
COMMAND_LINE = {
    "env": "--env",
    "tensorboard_log": "--tensorboard-log",
    "seed": "--seed",
    "verbose": "--verbose",
    "device": "--device",
}
#: Strings that rl-zoo3 evaluates as Python
EVALUATED = ("policy_kwargs", "replay_buffer_class", "replay_buffer_kwargs", "normalize", "monitor_kwargs")
REQUIRED = ("n_timesteps", "policy")
#: Limits of a YAML file, with all aliases expanded
MAX_DEPTH_LEVELS, MAX_VALUES = 50, 20_000
#: Tags of SafeLoader; "!" marks a string
SAFE_TAGS = {"!", *filter(None, yaml.SafeLoader.yaml_constructors)}


class HyperparametersError(ValueError):
    """Mistakes in the hyper-parameters, one line for each."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(map(printable, mistakes)))


# ---- YAML files -----------------------------------------------------------------------------------------------------


def read_document(file: str) -> yaml.MappingNode:
    """
    Read a YAML file without creating objects of other classes, and within limits of nesting and size.

    :param file: its path
    :return: its content as nodes, which know their lines
    :raises HyperparametersError: if it is not such a file, or not a mapping
    """
    try:
        text = Path(file).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise HyperparametersError(f"{file}: cannot be read: {error}") from error
    try:
        check_size(file, text, SAFE_TAGS)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        raise HyperparametersError(_yaml_mistake(file, error)) from error
    if not isinstance(root, yaml.MappingNode):
        raise HyperparametersError(f"{file}: must map names of environments to hyper-parameters")
    sections = [section.value for _, section in root.value if isinstance(section, yaml.MappingNode)]
    # First each value, so that an error has its line; then the whole file
    for node in [*(value for section in sections for _, value in section), root]:
        try:
            loader.construct_object(node, deep=True)
        except yaml.YAMLError as error:
            raise HyperparametersError(_yaml_mistake(file, error)) from error
        except Exception as error:  # of int(), float() and others, which have no line
            raise HyperparametersError(f"{file}:{_line(node)}: not YAML: {type(error).__name__}: {error}") from error
    # Again, because constructing mappings has expanded merge keys (`<<`) in the nodes
    return yaml.compose(text, Loader=yaml.SafeLoader)  # type: ignore[return-value]


def check_size(file: str, text: str, tags: Collection[str] | None = None) -> None:
    """
    Check limits of a YAML file without creating any of its values.

    :param file: its path, for errors
    :param text: its content
    :param tags: the accepted tags; None: any
    :raises HyperparametersError: if it is deeper than :data:`MAX_DEPTH_LEVELS`, has more than :data:`MAX_VALUES` values, or
        another tag
    :raises YAMLError: if it is not YAML
    """
    sizes: dict[str, int] = {}  # of values with an anchor
    # Collections that have begun: anchor, and number of values so far
    open_collections: list[tuple[str | None, int]] = [(None, 0)]
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place, tag = f"{file}:{event.start_mark.line + 1}", getattr(event, "tag", None)  # type: ignore[union-attr]
        if tags is not None and tag is not None and tag not in tags:
            raise HyperparametersError(f"{place}: the tag {tag} is refused: values have none, or one such as !!float")
        anchor, size = getattr(event, "anchor", None), 1
        if isinstance(event, yaml.CollectionStartEvent):
            if len(open_collections) > MAX_DEPTH_LEVELS:
                raise HyperparametersError(f"{place}: must not be nested deeper than {MAX_DEPTH_LEVELS} levels")
            open_collections.append((anchor, 1))
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_collections.pop()
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == name for name, _ in open_collections):
                raise HyperparametersError(f"{place}: *{anchor} must not stand inside the value that it names")
            anchor, size = None, sizes.get(str(anchor), 1)
        elif not isinstance(event, yaml.ScalarEvent):
            continue
        if anchor is not None:
            sizes[anchor] = size
        parent, count = open_collections[-1]
        open_collections[-1] = (parent, count + size)
        if count + size > MAX_VALUES:
            raise HyperparametersError(f"{place}: must not have more than {MAX_VALUES} values, with aliases expanded")


def _yaml_mistake(file: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"{file}:{mark.line + 1}" if mark else file
    return f"{place}: not YAML: {getattr(error, 'problem', None) or error}"


def read_places(file: str, root: yaml.MappingNode, env: str, is_atari: bool) -> tuple[Places, str]:
    """
    Find the lines of an environment's hyper-parameters.

    :param file: a YAML file
    :param root: its content
    :param env: the environment's id
    :param is_atari: whether the section ``atari`` applies to it
    :return: ``file:line`` for each key of the section that rl-zoo3 chooses, and for the section itself
    :raises HyperparametersError: if there is no such section, or if a key occurs twice
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
    yaml.SafeLoader("").flatten_mapping(section)  # expands `<<: *other`; the merged keys come first
    for key, _ in section.value:
        if key.tag != "tag:yaml.org,2002:str":
            raise HyperparametersError(f"{file}:{_line(key)}: names of hyper-parameters must be text, got {key.value}")
    return {key.value: f"{file}:{_line(key)}" for key, _ in section.value}, place


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _entries(node: yaml.MappingNode, file: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """The entries of a mapping by key. PyYAML itself accepts a key that occurs twice."""
    entries: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if str(key.value) in entries:
            first = _line(entries[str(key.value)][0])
            raise HyperparametersError(f"{file}:{_line(key)}: {key.value} is given a second time, after line {first}")
        entries[str(key.value)] = (key, value)
    return entries


# ---- values ---------------------------------------------------------------------------------------------------------


def check_hyperparameters(
    algorithm: type[BaseDQN], env: str, hyperparams: Mapping[str, Any], places: Mapping[str, str], section: str
) -> dict[str, Any]:
    """
    Check hyper-parameters by the rules of rl-zoo3 and of the algorithm.

    :param algorithm: one of our algorithms
    :param env: the environment's id, for errors
    :param hyperparams: the values as rl-zoo3 has read them
    :param places: the place of each of them, for errors
    :param section: the place of the section, for errors
    :return: the values of those that are Python expressions, so that no code is evaluated twice
    :raises HyperparametersError: if rl-zoo3 or the algorithm would not accept them; the error lists all mistakes
    """
    defaults = _defaults(algorithm)
    mistakes = {key: f"{key} is missing" for key in REQUIRED if key not in hyperparams}
    arguments = {**defaults, "n_envs": 1}
    for key, value in hyperparams.items():
        try:
            arguments[key] = _as_passed_by_the_zoo(key, value)
            _check_key(algorithm, key, arguments[key], defaults)
        except ValueError as error:
            mistakes[key] = str(error)
            arguments[key] = defaults.get(key)
    for key in defaults.keys() & algorithm.argument_rules.keys() - mistakes.keys():
        try:
            check_argument(key, arguments, algorithm.argument_rules)
        except ValueError as error:
            mistakes[key] = str(error) + _yaml_note(hyperparams.get(key))
    if mistakes:
        lines = [f"{places.get(key, section)}: {mistake} ({env})" for key, mistake in mistakes.items()]
        raise HyperparametersError(*sorted(lines, key=_line_and_text))
    return {key: arguments[key] for key in EVALUATED if isinstance(hyperparams.get(key), str)}


def _line_and_text(mistake: str) -> tuple[int, str]:
    line = re.search(r":(\d+): ", mistake)
    return (int(line[1]) if line else 0, mistake)


def _defaults(algorithm: type[BaseDQN]) -> dict[str, Any]:
    """Defaults of the constructor's arguments, without :data:`COMMAND_LINE`."""
    parameters = inspect.signature(algorithm).parameters
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty and name not in COMMAND_LINE}


def _yaml_note(value: Any) -> str:
    try:
        float(value if isinstance(value, str) else "")
    except ValueError:
        return ""
    return f" (YAML reads {value} as text: write !!float {value})"


def _as_passed_by_the_zoo(key: str, value: Any) -> Any:
    """The value that rl-zoo3 passes to the constructor."""
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


def _check_key(algorithm: type[BaseDQN], key: str, value: Any, defaults: Mapping[str, Any]) -> None:
    if key in COMMAND_LINE:
        raise ValueError(f"{key} is not for this file: it is {COMMAND_LINE[key]} on the command line")
    if key == "policy":
        _check_policy(algorithm, value)
    elif key in ZOO_RULES:
        ZOO_RULES[key](key, value)
    elif key not in defaults or key.startswith("_"):
        known = ["policy", *ZOO_RULES, *(name for name in defaults if not name.startswith("_"))]
        suggestion = did_you_mean(key, known) or f": choose one of {', '.join(sorted(known))}"
        raise ValueError(f"{key} is not a hyper-parameter{suggestion}")


def _check_policy(algorithm: type[BaseDQN], value: Any) -> None:
    aliases = algorithm.policy_aliases
    policy = _imported("policy", value) if isinstance(value, str) and "." in value else aliases.get(str(value), value)
    if not is_class(policy, algorithm.base_policy):
        accepted = f"one of {sorted(aliases)} or the dotted name of a subclass of {algorithm.base_policy.__name__}"
        raise ValueError(f"policy must be {accepted}, got {value!r}")


def _imported(key: str, name: str) -> Any:
    try:
        return get_class_by_name(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{key} must be the dotted name of a class, got {name!r} ({error})") from error


def _integer(key: str, value: Any) -> None:
    check_integer(key, value, 1)
    if not isinstance(value, int):
        raise ValueError(f"{key} must be an integer >= 1 written without a point, got {value!r}")


def _n_timesteps(key: str, value: Any) -> None:
    try:
        check_integer(key, value, 1)
    except ValueError as error:
        raise ValueError(f"{error}{_yaml_note(value)}") from None


def _classes(key: str, value: Any) -> None:
    for entry in value if isinstance(value, list) else [] if value is None else [value]:
        name = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else entry
        if isinstance(name, str):
            _imported(key, name)
        # rl-zoo3 also accepts classes and objects, from files in Python
        elif name is None or isinstance(name, (bool, int, float, list, dict)):
            raise ValueError(f"{key} must be names of classes, got {entry!r} (arguments of a class go below its name)")


def _instance_of(accepted: str, *types: type) -> Callable[[str, Any], None]:
    def rule(key: str, value: Any) -> None:
        if not isinstance(value, types):
            raise ValueError(f"{key} must be {accepted}, got {value!r}")

    return rule


# No type is accepted, not even None: rl-zoo3 would pass it to the constructor
_no_noise = _instance_of("left out, since actions are discrete")

#: Keys that rl-zoo3 uses itself; ``policy`` depends on the algorithm
ZOO_RULES: dict[str, Callable[[str, Any], None]] = {
    "n_timesteps": _n_timesteps,
    "n_envs": _integer,
    "frame_stack": _integer,
    "normalize": _instance_of("true, false or a dict", bool, dict),
    "env_kwargs": _instance_of("a dict", dict),
    "monitor_kwargs": _instance_of("a dict", dict),
    "env_wrapper": _classes,
    "vec_env_wrapper": _classes,
    "callback": _classes,
    "noise_type": _no_noise,
    "noise_std": _no_noise,
}
