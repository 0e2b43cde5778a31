"""MIRL's own constructor arguments: what each accepts, and the paper's values for Atari."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sb3_mirl.common.inputs import INF, LARGEST, Rule, choice, integer, is_number, number, optional
from sb3_mirl.mirl.policies import REGULARIZATIONS

AUTO = "auto"
BETA_SCHEDULES = ("normalized", "adaptive", "linear", "constant")

#: The paper's values for Atari as far as they are known, see the README: ``MIRL("CnnPolicy", env, **PAPER_ATARI)``
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
    a_number = number(0.0, high, f"'auto' or a number in [0, {high:g}]")
    return lambda name, value, arguments: (
        value if isinstance(value, str) and value == AUTO else a_number(name, value, arguments)
    )


def _beta_lr(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    if arguments["beta_schedule"] == "linear":
        # An increase per transition, for which the paper has no value to be scaled
        return number(0.0, LARGEST, "a number >= 0 with beta_schedule='linear'")(name, value, arguments)
    return _auto_or_number(LARGEST if arguments["beta_schedule"] == "constant" else 1.0)(name, value, arguments)


def _distribution(name: str, value: Any, arguments: Mapping[str, Any]) -> Any:
    size = arguments.get("n_actions", "as many as actions")
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be {size} numbers, got {value!r}") from error
    shape = (arguments.get("n_actions", array.size),)
    if array.shape != shape or not np.all(array >= 0) or not abs(array.sum() - 1) <= 1e-6:
        raise ValueError(
            f"{name} must be {size} non-negative numbers that sum to 1, got {value!r} "
            f"(shape {array.shape}, sum {array.sum():g})"
        )
    # A list: in a saved model SB3 writes numbers for it, and a pickle for an array
    return array.tolist()


#: By argument; those of DQN are in :data:`sb3_mirl.common.inputs.ARGUMENT_RULES`
ARGUMENT_RULES: dict[str, Rule] = {
    "prior_lr": _auto_or_number(1.0),
    "prior_init": optional(_distribution),
    "beta_schedule": choice(BETA_SCHEDULES),
    "beta_max": number(0.0, INF),
    "beta_init": _beta_init,
    "beta_lr": _beta_lr,
    "beta_scale": number(np.nextafter(0, 1), accepted="a finite number > 0"),
    "reference_n_actions": optional(integer(2)),
    "regularization": choice(REGULARIZATIONS),
}

#: Numbers that ``"auto"`` became, in exported files
RESOLVED_RULES: dict[str, Rule] = {
    "resolved_prior_lr": optional(number(0.0, 1.0, "a number in [0, 1] or null")),
    "resolved_beta_lr": optional(number(0.0, 1.0, "a number in [0, 1] or null")),
}
