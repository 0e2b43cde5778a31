"""
Actions that do nothing, added to the actions of an environment: :class:`UselessActions`.

``import sb3_mirl`` registers ``Useless15/CartPole-v1``, ``Useless63/CartPole-v1``, the same for Acrobot, MountainCar and
LunarLander, and ``Useless12/MinAtar-Asterix-v1`` with the other games of MinAtar. An environment's own packages (Box2D,
MinAtar) are needed when it is made. The registered environments have the limits of time of those that they extend; MinAtar's
games, which have none, end after 10,000 steps.
"""

from collections.abc import Iterable
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.utils import RecordConstructorArgs

#: Observation, reward, terminated, truncated, info
Step = tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]


class UselessActions(gym.Wrapper, RecordConstructorArgs):
    """
    An environment with more actions, which do nothing. They follow the environment's own actions.

    In an environment that has no action without effect, override :meth:`idle_step`.

    :param env: with actions in a ``Discrete`` space
    :param n_useless: number of actions to be added, at least 1
    :param idle_action: the environment's own action that does nothing; each added action is passed on as this one
    :raises ValueError: if an argument is not accepted; the message names it, its value and what is accepted
    """

    def __init__(self, env: gym.Env, n_useless: int, idle_action: int) -> None:
        space = env.action_space
        if not isinstance(space, spaces.Discrete):
            raise ValueError(f"env must have an action space of class Discrete, got {space} of {env}")
        if not isinstance(n_useless, (int, np.integer)) or isinstance(n_useless, bool) or n_useless < 1:
            raise ValueError(f"n_useless must be a whole number of at least 1, got {n_useless!r}")
        first, end = int(space.start), int(space.start + space.n)
        if not space.contains(idle_action):
            raise ValueError(f"idle_action must be an action of {env}, from {first} to {end - 1}, got {idle_action!r}")
        RecordConstructorArgs.__init__(self, n_useless=n_useless, idle_action=idle_action)
        gym.Wrapper.__init__(self, env)
        self.n_useless, self.idle_action = int(n_useless), idle_action
        self.action_space = spaces.Discrete(int(space.n) + self.n_useless, start=first)

    def get_action_meanings(self) -> list[str]:
        """
        Names of the actions, as Atari environments give them; those that do nothing are ``USELESS_0``, ``USELESS_1``, ...

        :raises AttributeError: if the environment has no names for its actions
        """
        names = self.env.get_wrapper_attr("get_action_meanings")()
        return [*names, *(f"USELESS_{k}" for k in range(self.n_useless))]

    def step(self, action: Any) -> Step:
        """
        Gymnasium's ``step``.

        :raises ValueError: if there is no such action
        """
        if self.env.action_space.contains(action):
            return self.env.step(action)
        if not self.action_space.contains(action):
            space: Any = self.action_space
            last = space.start + space.n - 1
            raise ValueError(f"action must be a whole number from {space.start} to {last}, got {action!r}")
        return self.idle_step()

    def idle_step(self) -> Step:
        """A step in which the agent does nothing."""
        return self.env.step(self.idle_action)


class UselessCartPoleActions(UselessActions):
    """
    :class:`UselessActions` for Gymnasium's CartPole, whose own actions both push the cart: an added action applies no force.

    :param env: CartPole
    :param n_useless: number of actions to be added, at least 1
    :raises ValueError: if an argument is not accepted; the message names it, its value and what is accepted
    """

    def __init__(self, env: gym.Env, n_useless: int) -> None:
        if not isinstance(env.unwrapped, CartPoleEnv):
            raise ValueError(f"env must be a CartPoleEnv of Gymnasium, got {env}")
        RecordConstructorArgs.__init__(self, n_useless=n_useless)
        # Any direction will do, because the force is 0
        super().__init__(env, n_useless, idle_action=0)

    def idle_step(self) -> Step:
        """A step without a force on the cart."""
        cart: Any = self.unwrapped
        force, cart.force_mag = cart.force_mag, 0.0
        try:
            return super().idle_step()
        finally:
            cart.force_mag = force


# ---- registration -----------------------------------------------------------------------------------------------------

#: Numbers of useless actions in the registered environments of Gymnasium and of MinAtar
N_USELESS_CLASSIC, N_USELESS_MINATAR = (15, 63), 12
#: The action of each environment that does nothing: no torque, no push, no engine
IDLE_ACTIONS = {"Acrobot-v1": 1, "MountainCar-v0": 1, "LunarLander-v3": 0}
#: MinAtar's name of each game, by the name in its id
MINATAR_GAMES = {
    "Asterix": "asterix",
    "Breakout": "breakout",
    "Freeway": "freeway",
    "Seaquest": "seaquest",
    "SpaceInvaders": "space_invaders",
}
#: MinAtar's games have no time limit, and a good player of Breakout may never lose
MINATAR_MAX_EPISODE_STEPS = 10_000


def _register(env_id: str, original: EnvSpec, wrappers: Iterable[WrapperSpec]) -> None:
    gym.register(
        id=env_id,
        entry_point=original.entry_point,
        kwargs=dict(original.kwargs),
        max_episode_steps=original.max_episode_steps,
        reward_threshold=original.reward_threshold,
        additional_wrappers=tuple(wrappers),
    )


for n_useless in N_USELESS_CLASSIC:
    _register(
        f"Useless{n_useless}/CartPole-v1",
        gym.spec("CartPole-v1"),
        [UselessCartPoleActions.wrapper_spec(n_useless=n_useless)],
    )
    for env_id, idle_action in IDLE_ACTIONS.items():
        wrapper = UselessActions.wrapper_spec(n_useless=n_useless, idle_action=idle_action)
        _register(f"Useless{n_useless}/{env_id}", gym.spec(env_id), [wrapper])

for name, game in MINATAR_GAMES.items():
    _register(
        f"Useless{N_USELESS_MINATAR}/MinAtar-{name}-v1",
        EnvSpec(
            f"MinAtar/{name}-v1",
            entry_point="sb3_mirl.envs.minatar:BaseEnv",
            kwargs={"game": game, "use_minimal_action_set": True},
            max_episode_steps=MINATAR_MAX_EPISODE_STEPS,
        ),
        [
            WrapperSpec("MinAtarWrapper", "sb3_mirl.envs.minatar:MinAtarWrapper", {}),
            UselessActions.wrapper_spec(n_useless=N_USELESS_MINATAR, idle_action=0),
        ],
    )
