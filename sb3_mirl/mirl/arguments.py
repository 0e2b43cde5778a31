"""MIRL's own constructor arguments: what each accepts, and the paper's values for Atari."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_mirl.common.inputs import INF, LARGEST, Rule, choice, described_range, integer, is_number, number, optional
from sb3_mirl.common.text import shortened
from sb3_mirl.mirl.policies import REGULARIZATIONS

AUTO = "auto"
PRIOR_TYPES = ("marginal", "conditional", "skills")
#: What ``prior_kwargs`` may hold
PRIOR_SETTINGS = {
    "marginal": (),
    "conditional": ("n_values", "net_arch", "learning_rate"),
    "skills": ("n_values", "concentration"),
}
LEVELS = ("high", "low")
#: What ``prior_init`` may hold as a dict
PRIOR_PARTS = ("table", "network", *LEVELS, "prior_observation")
BETA_SCHEDULES = ("normalized", "adaptive", "linear", "constant")

#: The paper's values for Atari as far as they are known, else its reproducers' (docs/deviations.md):
#: ``MIRL("CnnPolicy", env, **PAPER_ATARI)``
PAPER_ATARI: dict[str, Any] = {
    "learning_rate": 2e-5,
    "buffer_size": 1_000_000,
    "learning_starts": 10_000,
    "batch_size": 32,
    "gamma": 0.99,
    "train_freq": 4,
    "gradient_steps": 1,
    "target_update_interval": 10_000,
    "exploration_fraction": 0.1,
    "exploration_final_eps": 0.01,
    "max_grad_norm": 10,
    "prior_lr": 2e-6,
    "beta_schedule": "adaptive",
    "beta_init": 0.01,
    "beta_lr": 3.3e-6,
    "loss": "mse",
}


def _beta_init(name: str, value: Any, arguments: Mapping[str, Any]) -> float:
    constant = arguments["beta_schedule"] == "constant"
    value = number(0.0, INF if constant else LARGEST)(name, value, arguments)
    beta_max = arguments["beta_max"]
    if not constant and is_number(beta_max) and value > beta_max:
        raise ValueError(f"{name} must be at most beta_max, got {value!r} and beta_max={beta_max!r}")
    return value


def _auto_or_number(high: float) -> Rule:
    a_number = number(0.0, high, f"'auto' or a {described_range(0.0, high)}")
    return lambda name, value, arguments: (
        value if isinstance(value, str) and value == AUTO else a_number(name, value, arguments)
    )


def _beta_lr(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    if arguments["beta_schedule"] == "linear":
        # No "auto": it scales a value of the paper, and the paper has none for this increase per transition
        return number(0.0, LARGEST, "a number >= 0 with beta_schedule='linear'")(name, value, arguments)
    return _auto_or_number(LARGEST if arguments["beta_schedule"] == "constant" else 1.0)(name, value, arguments)


def _distribution(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    known = "n_actions" in arguments
    accepted = f"{arguments['n_actions']} non-negative numbers" if known else "non-negative numbers, one for each action,"
    accepted += " that sum to 1"
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be {accepted}, got {value!r}") from error
    shape = (arguments.get("n_actions", array.size),)
    if array.shape != shape or not np.all(array >= 0) or not abs(array.sum() - 1) <= 1e-6:
        raise ValueError(f"{name} must be {accepted}, got {value!r} (shape {array.shape}, sum {array.sum():g})")
    # A list, because SB3 saves lists as readable numbers, but arrays as pickles
    return array.tolist()


def _prior_init(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    prior_type = arguments.get("prior_type", "marginal")
    if prior_type == "marginal":
        if isinstance(value, Mapping):
            raise ValueError(
                f"{name} must be a list of numbers with prior_type='marginal', got a dict of {shortened([*value])}, "
                "which other prior types take"
            )
        return _distribution(name, value, arguments)
    if isinstance(value, Mapping):
        if not value or value.keys() - set(PRIOR_PARTS):
            raise ValueError(f"{name} must hold some of {PRIOR_PARTS}, got {sorted(value)}")
        numbers = {part: _numbers(f"{name}[{part!r}]", value[part]) for part in ("table", *LEVELS) if part in value}
        return {**value, **numbers}
    array = _numbers(name, value)
    n_actions = arguments.get("n_actions", array.shape[-1] if array.ndim else 1)
    if prior_type == "skills" or array.ndim not in (1, 2) or array.shape[-1] != n_actions:
        accepted = "a dict of high and low" if prior_type == "skills" else f"an array [{n_actions}] or [n_x, {n_actions}]"
        raise ValueError(f"{name} must be {accepted} with prior_type={prior_type!r}, got shape {array.shape}")
    return array


def _numbers(name: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers, got {value!r}") from error


def _prior_observation(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    prior_type = arguments.get("prior_type", "marginal")
    views = list(value.values()) if isinstance(value, Mapping) else [value]
    for view in [value, *views]:
        if isinstance(view, Mapping) and view.keys() == {"function"}:
            raise ValueError(
                f"{name} was the function {view['function']!r}, whose code an export does not hold: "
                f"load_exported(path, {name}=...) with that function"
            )
    accepted = {
        "marginal": value is None,
        "conditional": value is not None and not isinstance(value, Mapping),
        "skills": isinstance(value, Mapping) and value.keys() == {*LEVELS},
    }
    described = {
        "marginal": "None",
        "conditional": "keys, indices, 'all' or a function",
        "skills": "a dict with the views 'high' and 'low'",
    }
    # An invalid prior_type is reported by its own rule
    if not accepted.get(prior_type, True):
        raise ValueError(f"{name} must be {described[prior_type]} with prior_type={prior_type!r}, got {value!r}")
    return value


def _n_skills(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    prior_type = arguments.get("prior_type", "marginal")
    if prior_type == "skills":
        return integer(1, note=" with prior_type='skills'")(name, value, arguments)
    if value is not None:
        raise ValueError(f"{name} must be None with prior_type={prior_type!r}, got {value!r}")
    return None


def _prior_kwargs(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    prior_type = arguments.get("prior_type", "marginal")
    known = PRIOR_SETTINGS.get(prior_type, ())
    if not isinstance(value, Mapping) or value.keys() - set(known):
        raise ValueError(f"{name} must be a dict with some of {known} with prior_type={prior_type!r}, got {value!r}")
    sizes = value.get("n_values")
    for level, size in sizes.items() if isinstance(sizes, Mapping) else [("", sizes)]:
        if size is not None and (isinstance(sizes, Mapping) != (prior_type == "skills") or level not in ("", *LEVELS)):
            levels = "a dict of integers by level, 'high' and 'low'," if prior_type == "skills" else "an integer"
            raise ValueError(f"{name}: n_values must be {levels} with prior_type={prior_type!r}, got {sizes!r}")
        optional(integer(1))(f"{name}: n_values", size, arguments)
    layers = value.get("net_arch", [])
    if not isinstance(layers, (list, tuple)):
        raise ValueError(f"{name}: net_arch must be a list of integers >= 1, got {layers!r}")
    for layer in layers:
        integer(1)(f"{name}: net_arch", layer, arguments)
    for setting in ("learning_rate", "concentration"):
        if setting in value:
            number(np.nextafter(0, 1), accepted="a finite number > 0")(f"{name}: {setting}", value[setting], arguments)
    return dict(value)


#: By argument; those of DQN are in :data:`sb3_mirl.common.inputs.ARGUMENT_RULES`
ARGUMENT_RULES: dict[str, Rule] = {
    "prior_type": choice(PRIOR_TYPES),
    "prior_observation": _prior_observation,
    "n_skills": _n_skills,
    "prior_kwargs": optional(_prior_kwargs),
    "prior_lr": _auto_or_number(1.0),
    "prior_init": optional(_prior_init),
    "beta_schedule": choice(BETA_SCHEDULES),
    "beta_max": number(0.0, INF),
    "beta_init": _beta_init,
    "beta_lr": _beta_lr,
    "beta_scale": number(np.nextafter(0, 1), accepted="a finite number > 0"),
    "reference_n_actions": optional(integer(2)),
    "regularization": choice(REGULARIZATIONS),
}

#: Rules for the step sizes that ``"auto"`` stood for, in exported files
RESOLVED_RULES: dict[str, Rule] = {
    "resolved_prior_lr": optional(number(0.0, 1.0, "a number in [0, 1] or null")),
    "resolved_beta_lr": optional(number(0.0, 1.0, "a number in [0, 1] or null")),
}
