"""Callbacks and environments with attributes of every kind are restored, or warnings name what is lost."""

import dataclasses
import itertools
import pickle

import pytest
import torch as th
from held_values import CANNOT_BE_READ, VALUES_OF_OTHERS
from probes import ConstantReward
from resuming import IGNORED_WARNINGS, SETTINGS
from stable_baselines3.common.callbacks import (
    BaseCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.vec_env import SubprocVecEnv
from stable_baselines3.her import HerReplayBuffer

from sb3_mirl import MIRL, CheckpointCallback
from sb3_mirl.common.resume.run_state import pair_with_saved

pytestmark = IGNORED_WARNINGS


def test_missing_callbacks_are_named_in_a_warning(tmp_path):
    env = make_vec_env("CartPole-v1", 1)
    stop = StopTrainingOnMaxEpisodes(1000)
    MIRL("MlpPolicy", env, **SETTINGS).learn(100, [CheckpointCallback(20, tmp_path), stop])
    with pytest.warns(UserWarning, match="StopTrainingOnMaxEpisodes, which the resumed run does not have"):
        MIRL.resume(tmp_path, env).learn(120)


@dataclasses.dataclass
class Record:
    step: int


class Keeps(BaseCallback):
    """Makes its objects during training."""

    def __init__(self) -> None:
        super().__init__()
        self.best: Record | None = None

    def _on_step(self) -> bool:
        self.best = Record(self.n_calls)
        return True


def test_objects_made_by_a_callback_are_restored(tmp_path):
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(80, [CheckpointCallback(20, tmp_path), Keeps()])
    callback = Keeps()
    MIRL.resume(tmp_path, "CartPole-v1").learn(80, callback)
    assert callback.best == Record(80)


def test_unreadable_attributes_of_callbacks_are_named(tmp_path):
    def counts():
        callback = Keeps()
        callback.numbers = itertools.count()
        return callback

    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(80, [CheckpointCallback(20, tmp_path), counts()])
    with pytest.warns(UserWarning, match=r"state of the .*test_run_state\.Keeps is not restored.*itertools\.count"):
        MIRL.resume(tmp_path, "CartPole-v1").learn(80, counts())


class Grows(ConstantReward):
    """Holds objects that are made during an episode."""

    made = Record

    def reset(self, **kwargs):
        self.things = []
        return super().reset(**kwargs)

    def step(self, action):
        self.things.append(self.made(self.steps))
        return super().step(action)


class OfItsOwn(Grows):
    @staticmethod
    def made(step):
        @dataclasses.dataclass
        class Local:
            step: int

        return Local(step)


def test_objects_of_an_unknown_class_cost_only_the_episodes(tmp_path):
    env = Grows()
    MIRL("MlpPolicy", env, **SETTINGS).learn(84, CheckpointCallback(1000, tmp_path / "a"))
    resumed = MIRL.resume(tmp_path / "a", Grows())
    assert resumed.env.envs[0].unwrapped.things == env.things == [Record(step) for step in range(4)]
    MIRL("MlpPolicy", OfItsOwn(), **SETTINGS).learn(84, CheckpointCallback(1000, tmp_path / "b"))
    with pytest.warns(UserWarning, match=r"environment's state.*Local, of which no object can be made"):
        resumed = MIRL.resume(tmp_path / "b", OfItsOwn())
    assert resumed.env.envs[0].unwrapped.things == []
    assert resumed.num_timesteps == 84


class AgainstAnother(ConstantReward):
    """Draws its observations from the policy of an opponent that it plays against, and remembers those before."""

    def __init__(self, model=None):
        super().__init__()
        self.own, self.pool, self.opponent = model, [], MIRL("MlpPolicy", "CartPole-v1", **SETTINGS)

    def step(self, action):
        if self.own is not None and self.steps == 3:
            self.pool.append(copy_of(self.own.policy))
            self.opponent.policy.load_state_dict(
                {name: value + 0.1 for name, value in self.opponent.policy.state_dict().items()}
            )
        return super().step(action)


def copy_of(policy):
    return pickle.loads(pickle.dumps(policy))


class Odd(ConstantReward):
    """Holds what no checkpoint can hold, and more."""

    def __init__(self, seed=0):
        super().__init__()
        self.held = {name: make() for name, make in CANNOT_BE_READ.items()} if seed else {}
        for name, make in CANNOT_BE_READ.items():
            setattr(self, name, make() if seed else None)
        for name, value in VALUES_OF_OTHERS.items():
            setattr(self, f"value {name}", value if seed else None)


class OddCallback(Keeps):
    def __init__(self, seed=0):
        super().__init__()
        self.odd = Odd(seed)
        self.odd_values = list(self.odd.held.values())
        self.generator = iter([1])


@pytest.mark.parametrize("workers", [False, True])
def test_odd_attributes_are_restored_or_named(tmp_path, workers):
    def env(seed):
        options = {"vec_env_cls": SubprocVecEnv, "vec_env_kwargs": {"start_method": "fork"}} if workers else {}
        return make_vec_env(lambda: Odd(seed), 1, **options)

    first = env(1)
    MIRL("MlpPolicy", first, **SETTINGS).learn(20, [CheckpointCallback(10, tmp_path), OddCallback(1)])
    with pytest.warns(UserWarning, match=r"environment's state is not in the checkpoint.*held\['.*queue"):
        resumed = MIRL.resume(tmp_path, env(0))
    assert resumed.env.get_attr("value tuple")[0] == (1, [2])
    callback = OddCallback()
    with pytest.warns(UserWarning, match=r"state of the .*test_run_state\.OddCallback is not restored.*odd_values\[0\]"):
        resumed.learn(24, callback)
    assert callback.best == Record(24) and callback.odd_values == []
    first.close()
    resumed.env.close()


class OddInfo(BitFlippingEnv):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, {**info, "sparse": th.ones(2).to_sparse()}


class Records(BaseCallback):
    def _on_step(self):
        self.logger.record("view", memoryview(b"a"), exclude=("stdout", "csv", "log", "json", "tensorboard"))
        return True


def test_unreadable_values_of_replay_buffer_and_logger_are_named(tmp_path):
    her = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"copy_info_dict": True}}
    model = MIRL("MultiInputPolicy", OddInfo(n_bits=4, max_steps=7), **{**SETTINGS, **her})
    model.learn(20, [CheckpointCallback(1000, tmp_path), Records()], log_interval=None)
    with pytest.warns(UserWarning, match=r"The replay buffer is not restored as a whole: infos\[.*torch.Tensor"):
        resumed = MIRL.resume(tmp_path, OddInfo(n_bits=4, max_steps=7))
    with pytest.warns(UserWarning, match=r"What the logger has recorded is not restored as a whole: name_to_value"):
        resumed.learn(24, Records(), log_interval=None)


class KeepsModels(BaseCallback):
    def __init__(self):
        super().__init__()
        self.best, self.same = None, None

    def _on_step(self):
        if self.n_calls == 60:
            self.best, self.same = copy_of(self.model.policy), self.model.policy
        return True


def test_opponents_are_restored(tmp_path):
    env, callback = AgainstAnother(), KeepsModels()
    model = MIRL("MlpPolicy", env, **SETTINGS)
    env.own = model
    model.learn(84, [CheckpointCallback(1000, tmp_path), callback])
    again, other = AgainstAnother(), KeepsModels()
    resumed = MIRL.resume(tmp_path, again)
    resumed.learn(84, other)
    assert len(again.pool) == len(env.pool) > 1 and again.own is resumed and other.same is resumed.policy
    pairs = [
        *zip(env.pool, again.pool, strict=True),
        (env.opponent.policy, again.opponent.policy),
        (callback.best, other.best),
    ]
    for one, two in pairs:
        assert th.equal(th.nn.utils.parameters_to_vector(one.parameters()), th.nn.utils.parameters_to_vector(two.parameters()))


def test_unrestorable_opponent_is_named(tmp_path):
    env = AgainstAnother()
    env.pool.append(MIRL("MlpPolicy", "CartPole-v1", **SETTINGS))
    MIRL("MlpPolicy", env, **SETTINGS).learn(20, CheckpointCallback(1000, tmp_path))
    with pytest.warns(UserWarning, match=r"cannot be read: at envs\[0\].env.pool\[0\] there was a .*MIRL"):
        MIRL.resume(tmp_path, AgainstAnother())


@pytest.mark.parametrize("module", ["sb3_mirl.callbacks", "sb3_mirl.mirl.callbacks", "sb3_mirl.common.resume.callback"])
def test_callbacks_saved_under_a_former_module_are_matched(tmp_path, module):
    checkpoint, other = CheckpointCallback(10, tmp_path), Keeps()
    saved = [[f"{module}.CheckpointCallback", "state"], [f"{Keeps.__module__}.Keeps", "another"]]
    assert pair_with_saved(saved, [other, checkpoint]) == ([("state", checkpoint), ("another", other)], [])
    assert pair_with_saved(saved, [other]) == ([("another", other)], [])
    assert pair_with_saved(saved, [checkpoint]) == ([("state", checkpoint)], [f"{Keeps.__module__}.Keeps"])


class Walks(Keeps):
    def __init__(self):
        super().__init__()
        self.dir, self.search_path, self.log_path, self.best_dir = 1, [0], "here", None

    def _on_step(self):
        self.dir = -self.n_calls
        self.search_path.append(self.n_calls)
        return True


def test_only_paths_of_callbacks_are_left_out(tmp_path):
    first = Walks()
    MIRL("MlpPolicy", "CartPole-v1", **SETTINGS).learn(20, [CheckpointCallback(10, tmp_path), first])
    resumed = Walks()
    resumed.log_path = "there"
    MIRL.resume(tmp_path, "CartPole-v1").learn(20, resumed)
    assert (resumed.dir, resumed.search_path) == (first.dir, first.search_path) == (-20, [*range(21)])
    assert resumed.log_path == "there"
