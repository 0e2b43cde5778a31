"""Which models can be trained together: what must agree between them, and what a subclass must leave as it is."""

import inspect
import random
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.type_aliases import TrainFrequencyUnit
from torch.nn.utils.parametrize import is_parametrized

from sb3_mirl.common.compilable import describe_network
from sb3_mirl.common.dqn import BaseDQN
from sb3_mirl.common.munchausen import MDQN
from sb3_mirl.common.policies import DQNPolicy
from sb3_mirl.mirl.callbacks import BetaUpdateCallback, PriorUpdateCallback
from sb3_mirl.mirl.mirl import MIRL
from sb3_mirl.mirl.policies import MIRLPolicy

#: Methods and properties that joint training does not call, or calls less often: subclasses must not override them
REPLACED = (
    *("learn", "collect_rollouts", "train", "predict", "_sample_action", "_on_step", "_compute_gradient", "_log_training"),
    *("_update_current_progress_remaining", "_after_gradient_step", "_update_info_buffer", "record_training"),
    *("_get_compiled_gradient", "_network_precision", "prior_step_size", "beta_step_size", "loss_coefficients"),
)
REPLACED_OF_POLICIES = (
    *("_predict", "predict", "forward", "explore", "sample_prior", "compute_acting", "reference_prior", "to_env_actions"),
    *("action_probabilities", "set_training_mode"),
)
#: Optimisers that treat each number by itself, so that one can hold the parameters of all runs
OPTIMIZERS = (th.optim.Adam, th.optim.AdamW, th.optim.RMSprop, th.optim.SGD)

#: What must agree, by the name in the error
_AGREEING: dict[str, Callable[[BaseDQN], Any]] = {
    "observation_space": lambda model: model.observation_space,
    "action_space": lambda model: model.action_space,
    "n_envs": lambda model: model.n_envs,
    "device": lambda model: model.device,
    "policy's network": lambda model: str(model.q_net),
    "attributes of the policy's network": lambda model: [_attributes(module) for module in model.q_net.modules()],
    "policy's parameters": lambda model: [
        (name, tuple(value.shape), value.dtype, value.requires_grad) for name, value in model.q_net.named_parameters()
    ],
    "optimizer": lambda model: type(model.policy.optimizer).__name__,
    "optimizer_kwargs": lambda model: {
        name: value for name, value in model.policy.optimizer.param_groups[0].items() if name not in ("params", "lr")
    },
    "optimizer's parameters": lambda model: _optimized(model),
    "loss": lambda model: model.loss,
    "batch_size": lambda model: model.batch_size,
    "train_freq": lambda model: model.train_freq,
    "gradient_steps": lambda model: model.gradient_steps,
    "learning_starts": lambda model: model.learning_starts,
    "tau": lambda model: model.tau,
    "target_update_interval": lambda model: model.target_update_interval,
    "n_steps": lambda model: model.n_steps,
    "replay_buffer_class": lambda model: type(model.replay_buffer).__name__,
    "buffer_size": lambda model: model.replay_buffer.buffer_size,  # type: ignore[union-attr]
    "handle_timeout_termination": lambda model: getattr(model.replay_buffer, "handle_timeout_termination", None),
    "optimize_memory_usage": lambda model: model.optimize_memory_usage,
    "compile_update": lambda model: model.compile_update,
    "mixed_precision": lambda model: model.mixed_precision,
}


#: Attributes that every module has, and lists of parameters that recurrent ones have
_OF_MODULES = frozenset((*vars(th.nn.Module()), "_flat_weights", "_flat_weight_refs"))


def _attributes(module: th.nn.Module) -> tuple[type, dict[str, Any]]:
    """Class and attributes of a module, which must agree because the first model's modules compute for all runs."""
    # torch makes a class of its own for each parametrised module
    kind = type(module).__bases__[0] if is_parametrized(module) else type(module)
    values = {name: value for name, value in vars(module).items() if name not in _OF_MODULES}
    arrays = {name: value.tolist() for name, value in values.items() if isinstance(value, (np.ndarray, th.Tensor))}
    return kind, values | arrays


def _optimized(model: BaseDQN) -> list[str]:
    own = set(map(id, model.policy.optimizer.param_groups[0]["params"]))
    return [name for name, parameter in model.q_net.named_parameters() if id(parameter) in own]


def check_models(models: Sequence[BaseDQN]) -> None:
    """
    :param models: to be trained together
    :raises ValueError: if they cannot; the message names what disagrees, and both values
    :raises TypeError: if one is not a model of this package
    """
    if not models:
        raise ValueError("models must hold at least one model, got none")
    for index, model in enumerate(models):
        _check_model(index, model)
    for name, value_of in _AGREEING.items():
        first = value_of(models[0])
        for index, model in enumerate(models):
            if (value := value_of(model)) != first:
                raise ValueError(
                    f"models must agree in {name} to be trained jointly, got {first!r} in model 0 and {value!r} in model "
                    f"{index}"
                )
    if len(set(map(id, models))) < len(models):
        raise ValueError("models must be different objects, got one twice")
    for name, parts_of in (("environments", _environments), ("replay buffers", lambda model: [model.replay_buffer])):
        parts = [id(part) for model in models for part in {id(part): part for part in parts_of(model)}.values()]
        if len(set(parts)) < len(parts):
            raise ValueError(f"models must have {name} of their own, got one in two models")


def _environments(model: BaseDQN) -> list[Any]:
    """The innermost environments."""
    vector = model.env.unwrapped  # type: ignore[union-attr]
    return [vector, *(env.unwrapped for env in getattr(vector, "envs", ()))]


def _check_model(index: int, model: Any) -> None:
    if not isinstance(model, BaseDQN):
        raise TypeError(
            "models must be of sb3_mirl (MIRL, its variants, MDQN, DQNMSE or BaseDQN), got "
            f"{type(model).__name__} in model {index}"
        )
    where = f"model {index}, {type(model).__name__},"
    if model.env is None:
        raise ValueError(f"models must have environments, but {where} has none: set_env() gives it one")
    if model.train_freq.unit is not TrainFrequencyUnit.STEP:  # type: ignore[union-attr]
        raise ValueError(f"train_freq must count steps in joint training, got {model.train_freq} in model {index}")
    if model.uses_action_masks:
        raise ValueError(f"Joint training does not support action masks, which {where} uses: train it with learn()")
    known = next(kind for kind in (MIRL, MDQN, BaseDQN) if isinstance(model, kind))
    known_policy = MIRLPolicy if isinstance(model, MIRL) else DQNPolicy
    for thing, base, names in ((model, known, REPLACED), (model.policy, known_policy, REPLACED_OF_POLICIES)):
        kind = type(thing)
        for name in names:
            inherited = inspect.getattr_static(kind, name, None) is inspect.getattr_static(base, name, None)
            if not inherited or name in vars(thing):
                raise ValueError(
                    f"Joint training acts and learns for all models at once and does not use {name}, but {where} has "
                    f"{kind.__name__}.{name} of its own: train it with learn()"
                )
    if isinstance(model, MIRL) and model.prior_type != "marginal":
        raise ValueError(
            f"prior_type must be 'marginal' in joint training, got {model.prior_type!r} in model {index}: train it with "
            "learn()"
        )
    if isinstance(model, MIRL) and model.default_callbacks != (PriorUpdateCallback, BetaUpdateCallback):
        raise ValueError(
            f"Joint training needs MIRL's default_callbacks, but {where} has others: pass them to train_jointly(callback=...)"
        )
    model.policy.check_acts_greedily("Joint training")
    _check_optimizer(index, model.policy.optimizer)
    describe_network(model.q_net, "Joint training")
    if {*map(id, model.q_net.parameters())} & {*map(id, model.q_net_target.parameters())}:
        raise ValueError(f"Joint training needs a target network with parameters of its own, but {where} shares some")


def _check_optimizer(index: int, optimizer: th.optim.Optimizer) -> None:
    if type(optimizer) not in OPTIMIZERS or len(optimizer.param_groups) != 1:
        accepted = ", ".join(kind.__name__ for kind in OPTIMIZERS)
        raise ValueError(
            f"Joint training needs one of torch's optimisers {accepted}, with one group of parameters, got "
            f"{type(optimizer).__name__} with {len(optimizer.param_groups)} in model {index}"
        )
    if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        raise ValueError(f"Joint training needs optimisers without hooks, got some in model {index}")


def give_seeds(models: Sequence[BaseDQN]) -> None:
    """
    Give each model without a seed a random one, and print it: a run has random numbers of its own. Models whose environments
    share an object as their action space get copies of it, because DQN explores with its generator.
    """
    states: set[bytes] = set()
    spaces: set[int] = set()
    for index, model in enumerate(models):
        state = model.random_state["state"]["key"].tobytes()
        if model.seed is None and (model.num_timesteps == 0 or state in states):
            model.seed = int(np.random.SeedSequence().generate_state(1)[0]) % 2**31
            with th.random.fork_rng():
                python_state = random.getstate()
                model.set_random_seed(model.seed)
                random.setstate(python_state)
            model.random_state = np.random.get_state(legacy=False)
            print(f"Joint training gave model {index}, {type(model).__name__}, the seed {model.seed}")
        states.add(model.random_state["state"]["key"].tobytes())
        if sum(other.action_space is model.action_space for other in models) > 1 or id(model.action_space) in spaces:
            spaces.add(id(model.action_space))
            model.action_space = deepcopy(model.action_space)
            model.action_space.seed(model.seed)
