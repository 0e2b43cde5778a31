"""
Atari environments stepped by ale-py's native code instead of Gymnasium's wrappers: :class:`AtariVecEnv`, and
:func:`native_atari`, which puts it into rl-zoo3's hyper-parameter files. Needs the extra ``atari``.

The learner gets the same as from SB3's ``make_atari_env``, except for the differences that :class:`AtariVecEnv` lists.
"""

import os
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.monitor import Monitor, ResultsWriter
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

try:
    import ale_py
    from ale_py.vector_env import AtariVectorEnv
except ImportError as error:
    raise ImportError(f"sb3_mirl.envs.atari needs ale-py 0.11 or newer ({error}): pip install 'sb3-mirl[atari]'") from error

gym.register_envs(ale_py)

_Result = TypeVar("_Result")
# Some actions of one game, as a generator that yields while the emulator works and returns a result at its end
_Actions = Generator[None, None, _Result]
# Frame [1, 1, height, width], reward, whether an episode has ended, SB3's info
_Step = tuple[np.ndarray, float, bool, dict[str, Any]]

NOOP, FIRE, SECOND = np.array([[0], [1], [2]])
# Arguments of a Gymnasium environment that AtariVectorEnv supports
_GAME_ARGUMENTS = ("full_action_space", "repeat_action_probability", "max_num_frames_per_episode")
# What gymnasium.make, SB3 and rl-zoo3 put around a game; AtariVecEnv does their work
_REPLACED_WRAPPERS = ("Monitor", "TimeLimit", "PatchedTimeLimit", "OrderEnforcing", "PassiveEnvChecker")
_PACKAGES_OF_WRAPPERS = ("gymnasium", "stable_baselines3", "rl_zoo3")
_IGNORED_ARGUMENTS = ("game", "obs_type", "frameskip", "render_mode")


class _Game:
    """
    One game, with the steps of SB3's ``AtariWrapper`` and the statistics of SB3's ``Monitor``.

    :param env_id: a Gymnasium id
    :param native: arguments of ale-py's ``AtariVectorEnv``
    :param terminal_on_life_loss: whether a lost life ends the learning episode
    :param writer: the file for the statistics of finished games
    """

    def __init__(self, env_id: str, native: dict[str, Any], terminal_on_life_loss: bool, writer: ResultsWriter | None) -> None:
        self.env_id, self.terminal_on_life_loss, self.writer = env_id, terminal_on_life_loss, writer
        self.env = AtariVectorEnv(
            num_envs=1,
            num_threads=1,
            stack_num=1,
            autoreset_mode=AutoresetMode.NEXT_STEP,  # other modes do not report the lives in a game's last step
            episodic_life=False,
            reward_clipping=False,  # the statistics need the rewards as they are
            use_fire_reset=False,  # does less than SB3's FireResetEnv
            **native,
        )
        self.fires = "FIRE" in self.get_action_meanings()
        self.lives = 0
        self.score = 0.0
        self.first_frame = 0
        self.t_start = time.time()

    def get_action_meanings(self) -> list[str]:
        return [action.name for action in self.env.ale.get_action_set()]

    def begin(self, seed: int | None) -> np.ndarray:
        """Begin a new game; :meth:`open_episode` must follow. Returns the first frame, [1, 1, height, width]."""
        # SB3 draws seeds of 32 bits, the emulator accepts 31
        frame, info = self.env.reset(seed=None if seed is None else seed % 2**31)
        self.lives = int(info["lives"][0])
        self.score, self.first_frame = 0.0, _frames_before(info)
        return frame

    def open_episode(self, frame: np.ndarray) -> _Actions[np.ndarray]:
        """Start games that wait for FIRE, as SB3's FireResetEnv does. Returns the next frame."""
        if self.fires:
            for action in (FIRE, SECOND):
                frame = yield from self._hidden_step(action)
        return frame

    def step(self, action: np.ndarray) -> _Actions[_Step]:
        """A step of the learner with ``action`` [1] and, at the end of an episode, the hidden steps before the next one."""
        frame, reward, ended, info = yield from self._act(action)
        if ended:
            info["terminal_observation"] = info.pop("final_frame")
            # As SB3's EpisodicLifeEnv, which makes a step without action after a lost life
            frame = yield from self.open_episode(frame if "episode" in info else (yield from self._hidden_step(NOOP)))
        return frame, reward, ended, info

    def _hidden_step(self, action: np.ndarray) -> _Actions[np.ndarray]:
        """A step that the learner does not see. Returns the next frame."""
        frame, _, ended, info = yield from self._act(action)
        if ended and "episode" not in info and action is not NOOP:
            frame = yield from self._hidden_step(NOOP)
        return frame

    def _act(self, action: np.ndarray) -> _Actions[_Step]:
        """Send an action to the emulator, which works in its own thread until the generator is resumed."""
        self.env.send(action)
        yield
        frame, rewards, terminations, truncations, native_info = self.env.recv()
        reward, terminated, truncated = float(rewards[0]), bool(terminations[0]), bool(truncations[0])
        self.score += reward
        lives, self.lives = self.lives, int(native_info["lives"][0])
        # Some games have no lives left for a few frames before the game is over
        life_lost = self.terminal_on_life_loss and 0 < self.lives < lives
        info: dict[str, Any] = {
            "lives": self.lives,
            "TimeLimit.truncated": truncated and not (terminated or life_lost),
        }
        if life_lost or terminated or truncated:
            info["final_frame"] = frame[0].copy()
        if terminated or truncated:
            info["episode"] = self._statistics(int(native_info["frame_number"][0]))
            self.env.send(NOOP)  # any action begins the next game
            yield
            frame, _, _, _, native_info = self.env.recv()
            self.lives = int(native_info["lives"][0])
        return frame, reward, "final_frame" in info, info

    def _statistics(self, end: int) -> dict[str, float]:
        """
        The statistics of SB3's Monitor: raw score, length in emulator frames, seconds.

        :param end: number of frames of the emulator so far
        """
        episode = {"r": round(self.score, 6), "l": end - self.first_frame, "t": round(time.time() - self.t_start, 6)}
        self.score, self.first_frame = 0.0, end
        if self.writer is not None:
            self.writer.write_row(episode)
        return episode


def _frames_before(info: dict[str, np.ndarray]) -> int:
    """Number of frames of the emulator before the game to which ``info`` belongs."""
    return int(info["frame_number"][0]) - int(info["episode_frame_number"][0])


def _side_by_side(courses: Sequence[_Actions[_Result]]) -> list[_Result]:
    """Run the courses of several games alternately, so that all emulators work at the same time. Returns their results."""
    results: dict[int, _Result] = {}
    while len(results) < len(courses):
        for index, course in enumerate(courses):
            if index not in results:
                try:
                    next(course)
                except StopIteration as end:
                    results[index] = end.value
    return [results[index] for index in range(len(courses))]


class AtariVecEnv(VecEnv):
    """
    Atari games as an SB3 ``VecEnv``, stepped by ale-py's native code: each game has a thread, which emulates, converts to grey
    and scales its frames without Python.

    It replaces ``make_atari_env(...)``, and also needs a ``VecFrameStack(env, 4)`` around it. A lost life ends the learning
    episode but not the game; games that wait for FIRE are started by FIRE and the action after it; rewards are clipped to
    their sign; ``info["episode"]`` has the raw score of the whole game and its length in emulator frames. With the same
    actions and ``noop_max=0``, rewards, lives and ends of episodes are those of ``make_atari_env``. Differences that remain:

    - Observations are [1, height, width], not [height, width, 1].
    - Grey is Stella's luminance instead of OpenCV's, and is computed before the maximum of two frames: pixels differ by a few
      levels.
    - The number of actions without effect at the beginning of a game is 0 to ``noop_max - 1`` instead of 1 to ``noop_max``. It
      is drawn by another generator, so the same seed gives a different game. The frame limit does not count these actions.
    - ``reset`` begins a new game even if the last one is not over; SB3's continues the game after a lost life.
    - No rendering: ale-py's vector environment has no colours.

    :param env_id: Gymnasium id of a game without frame skip, such as ``"PongNoFrameskip-v4"``
    :param n_envs: number of games
    :param seed: seed of the first game; game i has ``seed + i``
    :param noop_max: bound on the number of actions without effect at the beginning of a game
    :param frame_skip: frames for which an action is repeated
    :param screen_size: height and width of a frame
    :param terminal_on_life_loss: whether a lost life ends the learning episode
    :param clip_reward: whether rewards are replaced by their sign
    :param env_kwargs: ``full_action_space``, ``repeat_action_probability`` and ``max_num_frames_per_episode``
    :param monitor_dir: folder for SB3's monitor files, one for each game
    :raises ValueError: if the environment is of another kind, or if the native code does not support ``env_kwargs``
    """

    def __init__(
        self,
        env_id: str,
        n_envs: int = 1,
        seed: int | None = None,
        noop_max: int = 30,
        frame_skip: int = 4,
        screen_size: int = 84,
        terminal_on_life_loss: bool = True,
        clip_reward: bool = True,
        env_kwargs: dict[str, Any] | None = None,
        monitor_dir: str | None = None,
    ) -> None:
        native = {
            **_game_arguments(env_id, env_kwargs or {}),
            "noop_max": noop_max,
            "frameskip": frame_skip,
            "img_height": screen_size,
            "img_width": screen_size,
        }
        for name, value in (("n_envs", n_envs), ("frame_skip", frame_skip), ("screen_size", screen_size)):
            if not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        self.clip_reward = clip_reward
        self.games = []
        for rank in range(n_envs):
            header: dict[str, float | str] = {"t_start": time.time(), "env_id": env_id}
            writer = ResultsWriter(os.path.join(monitor_dir, str(rank)), header) if monitor_dir else None
            self.games.append(_Game(env_id, native, terminal_on_life_loss, writer))
        n_actions = len(self.games[0].get_action_meanings())
        super().__init__(n_envs, self.games[0].env.single_observation_space, spaces.Discrete(n_actions))
        if seed is not None:
            self.seed(seed)

    def reset(self) -> VecEnvObs:
        """Begin new games. Returns the first frames, [n_envs, 1, height, width]."""
        with ThreadPoolExecutor(len(self.games)) as pool:  # in parallel, because a reset with a new seed is slow
            beginnings = pool.map(_Game.begin, self.games, self._seeds)
        courses = [game.open_episode(frame) for game, frame in zip(self.games, beginnings, strict=True)]
        frames = np.concatenate(_side_by_side(courses))
        self.reset_infos = [{"lives": game.lives} for game in self.games]
        self._reset_seeds()
        self._reset_options()
        return frames

    def step_async(self, actions: np.ndarray) -> None:
        """Send actions [n_envs] to the emulators; raises ValueError if one is not an action of the game."""
        given, n_actions = np.asarray(actions), int(self.action_space.n)  # type: ignore[attr-defined]
        # The emulator would never answer to an invalid action
        if given.size != self.num_envs or given.dtype.kind not in "iu" or not ((given >= 0) & (given < n_actions)).all():
            raise ValueError(f"actions must be {self.num_envs} whole numbers from 0 to {n_actions - 1}, got {actions!r}")
        each_action = given.astype(np.int64).reshape(-1, 1)
        self._courses = [game.step(action) for game, action in zip(self.games, each_action, strict=True)]
        for course in self._courses:
            next(course)

    def step_wait(self) -> VecEnvStepReturn:
        """Wait for the emulators. Returns frames, rewards, whether episodes ended, and infos."""
        frames, rewards, dones, infos = zip(*_side_by_side(self._courses), strict=True)
        all_rewards = np.array(rewards, dtype=np.float32)
        return np.concatenate(frames), np.sign(all_rewards) if self.clip_reward else all_rewards, np.array(dones), list(infos)

    def close(self) -> None:
        """Close the monitor files."""
        for game in self.games:
            if game.writer is not None:
                game.writer.close()

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """An attribute of each game; ``render_mode`` is None."""
        if attr_name == "render_mode":
            return [None] * len(self.games)
        return [getattr(game, attr_name) for game in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set an attribute of each game."""
        for game in self._chosen(indices):
            setattr(game, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Call a method of each game."""
        return [getattr(game, method_name)(*method_args, **method_kwargs) for game in self._chosen(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """True for SB3's ``Monitor`` and ``AtariWrapper``, whose work the games do themselves."""
        # SB3 asks for these to find out whether info["episode"] exists, with the score of the game
        return [wrapper_class in (Monitor, AtariWrapper) for _ in self._chosen(indices)]

    def _chosen(self, indices: VecEnvIndices) -> Sequence[_Game]:
        return [self.games[index] for index in self._get_indices(indices)]


def _game_arguments(env_id: str, env_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``AtariVectorEnv`` for a Gymnasium id and the arguments of ``gymnasium.make``."""
    arguments = {**gym.spec(env_id).kwargs, **env_kwargs}
    if "game" not in arguments or arguments.get("frameskip") != 1:
        raise ValueError(
            f"env_id must be an Atari game without frame skip, such as PongNoFrameskip-v4, got {env_id!r} with "
            f"game={arguments.get('game')!r}, frameskip={arguments.get('frameskip')!r}"
        )
    unknown = sorted(arguments.keys() - {*_GAME_ARGUMENTS, *_IGNORED_ARGUMENTS})
    if unknown:
        raise ValueError(f"env_kwargs must be among {_GAME_ARGUMENTS}, got {unknown}")
    if arguments.get("obs_type", "rgb") != "rgb":
        raise ValueError(f"env_kwargs must leave obs_type at 'rgb', got {arguments['obs_type']!r}")
    limit = arguments.get("max_num_frames_per_episode") or gym.spec(env_id).max_episode_steps or 108_000
    chosen = {name: arguments[name] for name in _GAME_ARGUMENTS if name in arguments}
    return {"game": arguments["game"], **chosen, "max_num_frames_per_episode": limit}


def native_atari(venv: VecEnv, **kwargs: Any) -> VecEnv:
    """
    Replace the environments of a vector environment by an :class:`AtariVecEnv`. For rl-zoo3's YAML files:
    ``vec_env_wrapper: sb3_mirl.envs.atari.native_atari`` instead of
    ``env_wrapper: stable_baselines3.common.atari_wrappers.AtariWrapper``.

    If the environments have a ``render_mode``, to be shown or recorded, they are wrapped in ``AtariWrapper`` instead.

    :param venv: a ``DummyVecEnv`` of one Atari game; its id, seeds, arguments, time limit and monitor files are used
    :param kwargs: arguments of SB3's ``AtariWrapper`` (without ``action_repeat_probability``)
    :raises ValueError: if ``venv`` is another kind of vector environment, if its games differ, or if they have wrappers, which
        would be lost
    """
    if not isinstance(venv, DummyVecEnv):
        raise ValueError(f"native_atari needs a DummyVecEnv (its games are parallel anyway), got {type(venv).__name__}")
    spec = venv.envs[0].spec
    if venv.render_mode is not None:
        wrapped = DummyVecEnv([lambda env=env: AtariWrapper(env, **kwargs) for env in venv.envs])  # type: ignore[misc]
        wrapped._seeds = venv._seeds
        return wrapped
    native = AtariVecEnv(spec.id, venv.num_envs, env_kwargs=_replaceable(venv.envs), **kwargs)  # type: ignore[union-attr]
    native._seeds = venv._seeds
    for game, env in zip(native.games, venv.envs, strict=True):
        game.writer = getattr(env, "results_writer", None)  # of a Monitor
        env.unwrapped.close()  # not the Monitor, whose file is used on
    return native


def _replaceable(envs: Sequence[gym.Env]) -> dict[str, Any]:
    """The ``env_kwargs`` of native games that equal these; raises ValueError if native code cannot replace these."""
    games = []
    for env in envs:
        layer = env
        while isinstance(layer, gym.Wrapper):
            kind = type(layer)
            if kind.__name__ not in _REPLACED_WRAPPERS or kind.__module__.partition(".")[0] not in _PACKAGES_OF_WRAPPERS:
                raise ValueError(
                    f"native_atari needs games without wrappers, which would be lost, got {kind.__name__} in {env}: "
                    "use AtariWrapper instead"
                )
            layer = layer.env
        spec = env.spec
        assert spec is not None
        limits = (spec.max_episode_steps, spec.kwargs.get("max_num_frames_per_episode"))
        limit = min((limit for limit in limits if limit), default=None)
        games.append((spec.id, {**spec.kwargs, "max_num_frames_per_episode": limit}))
    if any(game != games[0] for game in games):
        raise ValueError(f"native_atari needs environments of one game with the same arguments, got {games}")
    return games[0][1]
