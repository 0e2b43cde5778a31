"""
Input validation: constructor arguments of DQN, one by one and together, and what comes from an environment.

Every error names the quantity, its value and what is accepted.
"""

import math
import os
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any, TypeGuard

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import VecEnv

LOSSES = ("mse", "huber")
INF = float("inf")
LARGEST = float(np.finfo(np.float64).max)
#: The replay buffer and the network hold no larger number
LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
#: The largest reward whose square, as in a squared TD error, fits into float32
LARGEST_SQUARABLE = float(np.sqrt(LARGEST_FLOAT32))
UNITS = tuple(unit.value for unit in TrainFrequencyUnit)

# (name of an argument, its value, all arguments) → the value to be used; raises ValueError if the value is not accepted
Rule = Callable[[str, Any, Mapping[str, Any]], Any]


# ---- constructor arguments ------------------------------------------------------------------------------------------


def check_arguments(arguments: Mapping[str, Any], rules: Mapping[str, Rule]) -> dict[str, Any]:
    """
    Check constructor arguments.

    :param arguments: by name, all that are known, since some limit each other; also ``n_actions`` and ``n_envs``, if known
    :param rules: of an algorithm, such as :data:`ARGUMENT_RULES`
    :return: the values of those that have a rule. NumPy's numbers are converted to Python's, and a whole float (1e5) to an
        int where one is needed
    :raises ValueError: if a value is not accepted
    """
    return {name: check_argument(name, arguments, rules) for name in arguments if name in rules}


def check_argument(name: str, arguments: Mapping[str, Any], rules: Mapping[str, Rule]) -> Any:
    """:func:`check_arguments` for the one called ``name``, which must have a rule."""
    return rules[name](name, arguments[name], arguments)


def is_class(value: Any, kind: type = object) -> TypeGuard[Any]:
    """
    Whether ``value`` is ``kind`` or a class derived from it.

    On Python 3.10 ``isinstance(list[int], type)`` is True, and ``issubclass(list[int], ...)`` raises TypeError.
    """
    return issubclass(type(value), type) and issubclass(value, kind)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a real number of Python or NumPy. Booleans are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _python_number(value: Any) -> float:
    return value if type(value) in (int, float) else int(value) if isinstance(value, Integral) else float(value)


def described_range(low: float, high: float) -> str:
    """Such as ``number in [0, 1]``, for an error."""
    if high < LARGEST:
        return f"number in [{low:g}, {high:g}]"
    return f"{'finite ' if high == LARGEST else ''}number >= {low:g}"


def number(low: float, high: float = LARGEST, accepted: str = "") -> Rule:
    """The rule for a number in [``low``, ``high``]; ``accepted`` describes it in the error."""
    description = accepted or f"a {described_range(low, high)}"

    def rule(name: str, value: Any, arguments: Mapping[str, Any]) -> float:
        # NaN fails the comparison. NumPy would convert the bounds to the type of its number (to float16, for example)
        if not is_number(value) or not low <= _python_number(value) <= high:
            raise ValueError(f"{name} must be {description}, got {value!r}")
        return _python_number(value)

    return rule


def integer(low: int, high: int = 2**63 - 1, note: str = "") -> Rule:
    """The rule for an integer in [``low``, ``high``]; ``note`` is appended to its description in the error."""
    accepted = f"an integer >= {low}" if high >= 2**63 - 1 else f"an integer in [{low}, {high}]"

    def rule(name: str, value: Any, arguments: Mapping[str, Any]) -> int:
        if not is_number(value) or not low <= _python_number(value) <= high or value != int(value):
            raise ValueError(f"{name} must be {accepted}{note}, got {value!r}")
        return int(value)

    return rule


def choice(choices: tuple[str, ...]) -> Rule:
    """The rule for one of several strings."""

    def rule(name: str, value: Any, arguments: Mapping[str, Any]) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError(f"{name} must be one of {choices}, got {value!r}")
        return value

    return rule


def optional(rule: Rule) -> Rule:
    """The rule for None or what ``rule`` accepts."""
    return lambda name, value, arguments: None if value is None else rule(name, value, arguments)


def _bool(name: str, value: Any, arguments: Mapping[str, Any]) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def _dict(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    # SB3 puts {} where None was given
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise ValueError(f"{name} must be None or a dict of keyword arguments, got {value!r}")
    return value


def _policy_kwargs(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    kwargs = _dict(name, value, arguments) or {}
    for key in ("activation_fn", "optimizer_class", "features_extractor_class"):
        if not callable(kwargs.get(key, len)):
            raise ValueError(f"{name}[{key!r}] must be a class, got {kwargs[key]!r}")
    layers = kwargs.get("net_arch")
    # A user's policy may take something else than a list
    if isinstance(layers, str) or is_number(layers):
        raise ValueError(f"{name}['net_arch'] must be a list of integers >= 1, got {layers!r}")
    for layer in layers if isinstance(layers, (list, tuple)) else ():
        if is_number(layer):
            integer(1)(f"{name}: net_arch", layer, arguments)
    return value


def _path(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    if not isinstance(value, (str, os.PathLike)):
        raise ValueError(f"{name} must be None or a folder, got {value!r}")
    return value


def _device(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    try:
        th.device("cpu" if value == "auto" else value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name} must be 'auto' or a device of torch such as 'cpu', got {value!r} ({error})") from error
    return value


def _learning_rate(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    if not callable(value):
        accepted = "a finite number >= 0 or a function of the remaining progress"
        return number(0.0, accepted=accepted)(name, value, arguments)
    check_learning_rate(value(1.0), 1.0)
    return value


def check_integer(name: str, value: Any, low: int) -> int:
    """
    :param name: for the error
    :param value: a whole number
    :param low: the least
    :return: the value as an int
    :raises ValueError: if the value is not an integer >= ``low``
    """
    return integer(low)(name, value, {})


def check_learning_rate(value: Any, progress_remaining: float) -> None:
    """
    :param value: what a schedule gives
    :param progress_remaining: from 1 to 0
    :raises ValueError: if the value is not a finite number >= 0
    """
    # SB3 also accepts a tensor or an array with one element
    rate = value.item() if isinstance(value, (th.Tensor, np.ndarray)) and math.prod(value.shape) == 1 else value
    if not is_number(rate) or not 0.0 <= rate <= LARGEST:
        raise ValueError(
            f"learning_rate must give a finite number >= 0, got {value!r} at the remaining progress {progress_remaining:g}"
        )


def _train_freq(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    message = f"{name} must be an integer >= 1 or a tuple (integer >= 1, one of {UNITS}), got {value!r}"
    # In a saved model the value is a TrainFreq, to which SB3 has converted the argument
    frequency, unit = value if isinstance(value, tuple) and len(value) == 2 else (value, "step")
    unit = unit.value if isinstance(unit, TrainFrequencyUnit) else unit
    if not isinstance(unit, str) or unit not in UNITS:
        raise ValueError(message)
    if not is_number(frequency) or not 1 <= frequency < INF or frequency != int(frequency):
        raise ValueError(message)
    # A model whose file counts episodes may be loaded to play in several environments; SB3's learn() refuses them
    if unit == "episode" and arguments.get("n_envs", 1) > 1 and not isinstance(value, TrainFreq):
        raise ValueError(
            f"{name} must count steps with several environments, got {value!r} with {arguments['n_envs']} of them"
        )
    if isinstance(value, TrainFreq):
        return value
    return (int(frequency), unit) if isinstance(value, tuple) else int(frequency)


def _buffer_class(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    if not is_class(value, ReplayBuffer):
        raise ValueError(f"{name} must be None or a subclass of ReplayBuffer, got {value!r}")
    return value


def _optimize_memory_usage(name: str, value: Any, arguments: Mapping[str, Any]) -> bool:
    value = _bool(name, value, arguments)
    size, n_envs = arguments.get("buffer_size", 2), arguments.get("n_envs", 1)
    # One of the transitions in the buffer is never valid
    if value and is_number(size) and size // n_envs < 2:
        raise ValueError(f"{name} needs buffer_size >= 2 for each environment, got {size!r} for {n_envs} environments")
    return value


UNIT_INTERVAL = number(0.0, 1.0)

#: The rules for the constructor arguments of BaseDQN, except ``policy`` and ``env``, which it checks itself
ARGUMENT_RULES: dict[str, Rule] = {
    "verbose": integer(0),
    "device": _device,
    "learning_rate": _learning_rate,
    "buffer_size": integer(1, 10**12),
    "learning_starts": integer(0),
    "batch_size": integer(1),
    "tau": UNIT_INTERVAL,
    "gamma": UNIT_INTERVAL,
    "train_freq": _train_freq,
    "gradient_steps": integer(-1, note=" (-1: as many as environment steps)"),
    "replay_buffer_class": optional(_buffer_class),
    "replay_buffer_kwargs": _dict,
    "optimize_memory_usage": _optimize_memory_usage,
    "n_steps": integer(1),
    "target_update_interval": integer(1),
    "exploration_fraction": UNIT_INTERVAL,
    "exploration_initial_eps": UNIT_INTERVAL,
    "exploration_final_eps": UNIT_INTERVAL,
    "max_grad_norm": number(np.nextafter(0, 1), INF, "a number > 0 (inf: no clipping)"),
    "stats_window_size": integer(1),
    "tensorboard_log": optional(_path),
    "policy_kwargs": _policy_kwargs,
    "seed": optional(integer(0, 2**32 - 1)),
    "loss": choice(LOSSES),
    "compile_update": _bool,
    "mixed_precision": _bool,
}


# ---- spaces and what comes from an environment ----------------------------------------------------------------------


SPACES = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class UnsupportedError(ValueError, AssertionError, NotImplementedError):
    """
    An environment, a space, or a combination of arguments that is not supported. SB3 raises an AssertionError, a
    NotImplementedError or a ValueError there: code that catches one of them catches this.
    """


def check_action_space(space: spaces.Space) -> None:
    """
    :param space: the action space
    :raises UnsupportedError: if it is not Discrete; the message says how to make it Discrete
    """
    if isinstance(space, spaces.Discrete):
        return
    wrapper = "env = gymnasium.wrappers.TransformAction(env, {}, gymnasium.spaces.Discrete({}))".format
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        start = f" + {space.start.tolist()}" if space.start.any() else ""
        combinations = wrapper(
            f"lambda a: numpy.array(numpy.unravel_index(a, {space.nvec.tolist()})){start}", math.prod(space.nvec.tolist())
        )
        remedy = f"Make each combination one action: {combinations}. Or use an algorithm for MultiDiscrete, such as SB3's PPO"
    elif isinstance(space, spaces.MultiBinary) and isinstance(space.n, int):
        combinations = wrapper(f"lambda a: (a >> numpy.arange({space.n}) & 1).astype(numpy.int8)", 2**space.n)
        remedy = f"Make each combination one action: {combinations}. Or use an algorithm for MultiBinary, such as SB3's PPO"
    elif isinstance(space, spaces.Box):
        chosen = wrapper("lambda a: actions[a]", "len(actions)")
        remedy = (
            "Use an algorithm for continuous actions, such as SB3's SAC, TD3 or PPO. Or choose some actions of the Box, such "
            f"as actions = numpy.linspace(env.action_space.low, env.action_space.high, 5), and {chosen}"
        )
    else:
        remedy = f"Make each action a number: {wrapper('lambda a: actions[a]', 'len(actions)')}"
    raise UnsupportedError(f"action_space must be Discrete, got {space}. {remedy}")


def check_observation_space(space: spaces.Space, name: str = "observation_space") -> None:
    """
    :param space: the observation space
    :param name: for the error
    :raises UnsupportedError: if SB3 would fail with it at the first observation, or at some later one
    """
    if isinstance(space, spaces.Dict):
        for key, entry in space.spaces.items():
            if isinstance(entry, spaces.Dict):
                raise UnsupportedError(f"{name}[{key!r}] must not be a Dict inside of a Dict, got {entry}")
            check_observation_space(entry, f"{name}[{key!r}]")
    elif not isinstance(space, SPACES):
        raise UnsupportedError(f"{name} must be one of Dict, {', '.join(kind.__name__ for kind in SPACES)}, got {space}")
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim != 1:
        raise UnsupportedError(f"{name} must be a MultiDiscrete with one axis, got {space}")
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)) and np.any(space.start):
        raise UnsupportedError(f"{name} must start at 0, got {space}")


def check_observations(
    space: spaces.Space, observations: Any, step: int, name: str = "observation", first_env: int = 0
) -> None:
    """
    Check that observations are finite, have the right shape, and are valid categories. The bounds of a Box are not checked.

    :param space: of one observation
    :param observations: of all environments, [n_envs, ...], or a dict of such
    :param step: environment step, for the error
    :param name: of the quantity, for the error
    :param first_env: index of the environment of the first observation, for the error
    :raises ValueError: if one is not valid; the message names it and its environment
    """
    if isinstance(space, spaces.Dict):
        for key, entry in space.spaces.items():
            check_observations(entry, observations[key], step, f"{name}[{key!r}]", first_env)
    elif isinstance(space, spaces.Box):
        if observations.shape[1:] != space.shape:
            raise ValueError(f"{name} at environment step {step} must have shape {space.shape}, got {observations.shape[1:]}")
        # Twice as fast as isfinite().all(). If the sum of squares is below 1e38, every entry fits into float32
        if observations.dtype.kind == "f" and not float(np.vdot(observations, observations)) < 1e38:
            _raise_unless(
                np.abs(observations.astype(np.float64)) <= LARGEST_FLOAT32, observations, name, first_env, step, _FINITE
            )
    elif isinstance(space, spaces.Discrete):
        if observations.min() < 0 or observations.max() >= space.n:
            _raise_unless((observations >= 0) & (observations < space.n), observations, name, first_env, step, f"in {space}")
    elif isinstance(space, spaces.MultiDiscrete):
        _raise_unless((observations >= 0) & (observations < space.nvec), observations, name, first_env, step, f"in {space}")


def check_terminal_observation(space: spaces.Space, observation: Any, env: int, step: int) -> None:
    """:func:`check_observations` for the last observation of an episode, which one environment alone gives."""
    if isinstance(space, spaces.Dict):
        batch: Any = {key: _as_stored(entry, observation[key])[None] for key, entry in space.spaces.items()}
    else:
        batch = _as_stored(space, observation)[None]
    check_observations(space, batch, step, "last observation", env)


def _as_stored(space: spaces.Space, observation: Any) -> np.ndarray:
    """The observation in the shape of its space, as NumPy's assignment gives it ([1, 4] to [4]); unchanged if that fails."""
    given = np.asarray(observation)
    stored = np.empty(space.shape or (), given.dtype)
    try:
        stored[...] = given
    except ValueError:
        return given
    return stored


def find_action_names(env: VecEnv | None, n_actions: int) -> list[str] | None:
    """
    :param env: the environment
    :param n_actions: how many actions it has
    :return: their names by its ``get_action_meanings()``; None if it has none or another number of them
    """
    try:
        if env is None or not env.has_attr("get_action_meanings"):
            return None
        names = env.env_method("get_action_meanings", indices=[0])[0]
    except Exception:
        # The environment's method of this name means something else. Names are for logs only: go on without them
        return None
    # A wrapper may have fewer actions than the wrapped environment has names
    return valid_action_names([str(name) for name in names], n_actions) if isinstance(names, (list, tuple)) else None


def valid_action_names(names: Any, n_actions: int) -> list[str] | None:
    """
    :param names: names of actions, of any type and origin
    :param n_actions: number of actions
    :return: the names, if there is one string per action and their first 25 characters (all that SB3 logs) differ; else None
    """
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return names if len(names) == len({name[:25] for name in names}) == n_actions else None


def check_rewards(rewards: np.ndarray, limit: float, step: int) -> None:
    """
    :param rewards: of all environments, [n_envs]
    :param limit: the largest absolute value
    :param step: environment step, for the error
    :raises ValueError: if one is not finite or beyond the limit
    """
    if not float(np.vdot(rewards, rewards)) < 1e38:
        accepted = _FINITE
        if limit < LARGEST_FLOAT32:
            accepted = f"finite and at most {limit:.2g} in absolute value, beyond which its square overflows float32"
        _raise_unless(np.abs(rewards.astype(np.float64)) <= limit, rewards, "reward", 0, step, accepted)


_FINITE = f"finite in float32, in which it is stored (at most {LARGEST_FLOAT32:.2g} in absolute value)"


def _raise_unless(fine: np.ndarray, values: np.ndarray, name: str, first_env: int, step: int, accepted: str) -> None:
    if fine.all():
        return
    env, *entry = np.argwhere(~fine)[0].tolist()
    where = f", entry {entry[0] if len(entry) == 1 else entry}," if entry else ""
    value = values[tuple([env, *entry])]
    raise ValueError(
        f"{name} of environment {first_env + env}{where} is {value} at environment step {step}: it must be {accepted}. "
        "Training stopped before this value was stored."
    )
