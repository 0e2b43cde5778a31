"""Actions that do nothing: what they do in each environment, their names, and resumed runs."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from resuming import SETTINGS, content, run
from stable_baselines3.common.env_util import make_vec_env

from sb3_mirl.common.inputs import find_action_names
from sb3_mirl.envs.minatar import MinAtarWrapper
from sb3_mirl.envs.useless_actions import IDLE_ACTIONS, MINATAR_GAMES, UselessActions, UselessCartPoleActions

# Box2D's
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
MINATAR_IDS = [f"MinAtar-{name}-v1" for name in MINATAR_GAMES]


class FiveActions(gym.Env):
    """Actions -2 to 2, of which 0 does nothing. The observation is the action."""

    action_space = spaces.Discrete(5, start=-2)
    observation_space = spaces.Box(-2, 2, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        return np.full(1, action, np.float32), float(action), False, False, {}


class FallingCartPole(gym.Wrapper):
    """A wrapper whose step fails."""

    def step(self, action):
        raise RuntimeError("broken")


def play(env, actions, seed=3):
    """Observations, rewards and ends of steps with the actions."""
    observation, _ = env.reset(seed=seed)
    steps = [(observation.tolist(), 0.0, False, False)]
    for action in actions:
        observation, *rest, _ = env.step(action)
        steps.append((observation.tolist(), *rest))
        if steps[-1][2] or steps[-1][3]:
            break
    return steps


def test_added_actions_follow_those_of_the_environment():
    env = UselessActions(FiveActions(), 3, idle_action=0)
    assert env.action_space == spaces.Discrete(8, start=-2)
    assert [step[0] for step in play(env, range(-2, 6))[1:]] == [[-2], [-1], [0], [1], [2], [0], [0], [0]]
    with pytest.raises(ValueError, match="action must be a whole number from -2 to 5, got 6"):
        env.step(6)


@pytest.mark.parametrize("env_id", IDLE_ACTIONS)
@pytest.mark.parametrize("n_useless", [15, 63])
def test_useless_actions_are_the_idle_action(env_id, n_useless):
    plain, useless = gym.make(env_id), gym.make(f"Useless{n_useless}/{env_id}")
    n = int(plain.action_space.n)
    assert useless.action_space == spaces.Discrete(n + n_useless)
    actions = np.random.default_rng(0).integers(0, n + n_useless, 60)
    idle = IDLE_ACTIONS[env_id]
    assert play(useless, actions) == play(plain, [action if action < n else idle for action in actions])


def test_idle_actions_apply_no_torque_push_or_engine():
    assert gym.make("Acrobot-v1").unwrapped.AVAIL_TORQUE[IDLE_ACTIONS["Acrobot-v1"]] == 0.0
    car = gym.make("MountainCar-v0").unwrapped
    car.reset(seed=0)
    position, _ = car.state
    _, velocity = car.step(IDLE_ACTIONS["MountainCar-v0"])[0]
    assert velocity == pytest.approx(-np.cos(3 * position) * car.gravity, rel=1e-6)
    lander = gym.make("LunarLander-v3", render_mode="rgb_array").unwrapped  # draws the exhaust
    lander.reset(seed=0)
    particles = {}
    for action in range(4):
        before = len(lander.particles)
        lander.step(action)
        particles[action] = len(lander.particles) - before
    assert [action for action in range(4) if particles[action] == 0] == [IDLE_ACTIONS["LunarLander-v3"]]


def test_useless_actions_of_cartpole_apply_no_force():
    env = gym.make("Useless15/CartPole-v1")
    env.reset(seed=0)
    generator = np.random.default_rng(0)
    terminated = False
    while not terminated:
        x, v, angle, omega = env.unwrapped.state
        action = int(generator.choice([0, 1, 2, 9, 16]))
        observation, reward, terminated, _, _ = env.step(action)
        # Barto, Sutton and Anderson 1983, solved for both accelerations; a pole of 2 · 0.5 m, 0.1 kg on a cart of 1 kg
        force, m, total, half = {0: -10.0, 1: 10.0}.get(action, 0.0), 0.1, 1.1, 0.5
        matrix = [[total, m * half * np.cos(angle)], [np.cos(angle), half * 4 / 3]]
        acceleration, angular = np.linalg.solve(matrix, [force + m * half * omega**2 * np.sin(angle), 9.8 * np.sin(angle)])
        step = np.array([v, acceleration, omega, angular]) * 0.02
        np.testing.assert_allclose(observation, np.array([x, v, angle, omega]) + step, rtol=1e-5, atol=1e-7)
        assert reward == 1.0 and env.unwrapped.force_mag == 10.0


def test_force_is_restored_if_the_step_fails():
    env = UselessCartPoleActions(FallingCartPole(gym.make("CartPole-v1")), 1)
    with pytest.raises(RuntimeError, match="broken"):
        env.step(2)
    assert env.unwrapped.force_mag == 10.0


@pytest.mark.parametrize("env_id", ["CartPole-v1", *IDLE_ACTIONS])
def test_registered_environments_keep_their_limits(env_id):
    original = gym.spec(env_id)
    for n_useless in (15, 63):
        spec = gym.make(f"Useless{n_useless}/{env_id}").spec
        assert (spec.max_episode_steps, spec.reward_threshold) == (original.max_episode_steps, original.reward_threshold)
        assert spec.make().action_space.n == gym.make(env_id).action_space.n + n_useless


@pytest.mark.parametrize("name", MINATAR_IDS)
def test_useless_actions_of_minatar_are_noop(name):
    plain = MinAtarWrapper(gym.make(name.replace("MinAtar-", "MinAtar/")))
    useless = gym.make(f"Useless12/{name}")
    n = int(plain.action_space.n)
    names = plain.get_action_meanings()
    assert useless.get_wrapper_attr("get_action_meanings")() == [*names, *(f"USELESS_{k}" for k in range(12))]
    assert useless.spec.max_episode_steps == 10_000
    actions = np.random.default_rng(1).integers(0, n + 12, 40)
    assert play(useless, actions) == play(plain, [action if action < n else names.index("NOOP") for action in actions])


def test_actions_keep_their_names_in_the_wrapper_of_the_hyperparameter_files():
    env = make_vec_env("Useless12/MinAtar-Freeway-v1", wrapper_class=MinAtarWrapper)
    assert find_action_names(env, 15) == ["NOOP", "UP", "DOWN", *(f"USELESS_{k}" for k in range(12))]


def test_environment_without_names_has_none():
    assert find_action_names(make_vec_env("Useless15/CartPole-v1"), 17) is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UselessActions(gym.make("Pendulum-v1"), 1, 0), "env must have an action space of class Discrete, got Box"),
        (lambda: UselessActions(FiveActions(), 0, 0), "n_useless must be a whole number of at least 1, got 0"),
        (lambda: UselessActions(FiveActions(), 1.5, 0), "n_useless must be a whole number of at least 1, got 1.5"),
        (lambda: UselessActions(FiveActions(), 1, 3), "idle_action must be an action of .*, from -2 to 2, got 3"),
        (lambda: UselessCartPoleActions(FiveActions(), 1), "env must be a CartPoleEnv of Gymnasium, got <FiveActions"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_wrappers_can_be_pickled():
    env = UselessCartPoleActions(gym.make("CartPole-v1").unwrapped, 4)
    env.reset(seed=0)
    again = pickle.loads(pickle.dumps(env))
    again.reset(seed=0)
    assert again.step(5)[0].tolist() == env.step(5)[0].tolist()


@pytest.mark.parametrize("env_id", ["Useless15/CartPole-v1", "Useless12/MinAtar-Freeway-v1"])
def test_resumed_run_equals_an_uninterrupted_one(env_id, tmp_path):
    def contents(folder, interruptions):
        def make_env():
            return make_vec_env(env_id, seed=5, monitor_dir=str(folder))

        for interrupted_at in interruptions:
            model = run(folder, make_env, 160, 40, SETTINGS, interrupted_at=interrupted_at)
        return content(model, folder)

    assert contents(tmp_path / "resumed", [90, None]) == contents(tmp_path / "whole", [None])
