"""What is exported of a model: the arguments of its constructor, the counters of training and what its class adds."""

from typing import Any, ClassVar

from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.dqn.dqn import DQN

from sb3_mirl.common.inputs import Rule
from sb3_mirl.common.signatures import constructor_signature

#: The state of training: name in the file → the model's attribute and its type
TRAINING: dict[str, tuple[str, type]] = {
    "num_timesteps": ("num_timesteps", int),
    "total_timesteps": ("_total_timesteps", int),
    "n_updates": ("_n_updates", int),
    "n_episodes": ("_episode_num", int),
    "n_calls": ("_n_calls", int),
    "n_envs": ("n_envs", int),
    "progress_remaining": ("_current_progress_remaining", float),
    "exploration_rate": ("exploration_rate", float),
}

# Arguments that depend on the machine. A file from elsewhere must not choose where learn() writes its logs
NOT_EXPORTED = ("env", "device", "tensorboard_log", "_init_setup_model")


class ExportableModel(DQN):
    """What export needs of a model. Its methods are in :class:`~sb3_mirl.common.export.exportable.ExportableDQN`."""

    #: Name of the algorithm; the nearest class that defines it decides which arguments a file must have
    algorithm: str
    #: Attributes that a file holds besides :data:`TRAINING`, with their rules. Their values are finite numbers or None.
    #: An attribute ``resolved_x`` depends on argument x, and becomes None if x is replaced
    exported_attributes: ClassVar[dict[str, Rule]] = {}
    argument_rules: ClassVar[dict[str, Rule]]
    #: Arguments that files of earlier versions lack; they then have the constructor's defaults
    newer_arguments: ClassVar[tuple[str, ...]] = ()
    base_policy: ClassVar[type[BasePolicy]]
    policy: Any
    policy_class: Any
    action_names: list[str] | None
    learning_curve: dict[str, Any]
    uses_action_masks: bool

    def extend_policy(self, policy: Any) -> None:
        """
        Add to a policy what other arguments of the model describe. Each policy that is built for the model is passed here.

        :param policy: of the model's ``policy_class``
        """

    def exported_argument(self, name: str, value: Any) -> Any:
        """
        :param name: of a constructor argument
        :param value: its value
        :return: the value as an export holds it, which must be data
        """
        return value


def argument_names(cls: type) -> list[str]:
    """The constructor arguments that a file holds."""
    return [name for name in constructor_signature(cls).parameters if name not in NOT_EXPORTED]


def attribute_name(argument: str) -> str:
    """The attribute in which SB3 keeps a constructor argument."""
    return {"policy": "policy_class", "stats_window_size": "_stats_window_size"}.get(argument, argument)


def uncompiled_policy(model: ExportableModel) -> Any:
    """The policy without the wrapper of ``th.compile``, which renames the entries of ``state_dict``."""
    return getattr(model.policy, "_orig_mod", model.policy)
