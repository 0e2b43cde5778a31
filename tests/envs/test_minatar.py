"""MinAtar's games: names of actions, and the network of the paper."""

import gymnasium as gym
import numpy as np

from sb3_mirl import MIRL
from sb3_mirl.bench.suites import MINATAR_IDS
from sb3_mirl.envs.minatar import MinAtarCNN, MinAtarWrapper


def test_minatar_names_its_actions():
    names = {env: MinAtarWrapper(gym.make(env)).get_action_meanings() for env in MINATAR_IDS}
    assert names["MinAtar/Breakout-v1"] == ["NOOP", "LEFT", "RIGHT"]
    assert names["MinAtar/Freeway-v1"] == ["NOOP", "UP", "DOWN"]
    assert names["MinAtar/Seaquest-v1"] == ["NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE"]


def test_an_episode_depends_on_its_seed_only():
    """With sticky actions a game repeats its last action: in the first step that of the episode before."""

    def episode(env, seed, steps=15):
        rng = np.random.default_rng(seed)
        first, _ = env.reset(seed=seed)
        observations = [first]
        for _ in range(steps):
            observation, _, terminated, _, _ = env.step(int(rng.integers(env.action_space.n)))
            observations.append(observation)
            if terminated:
                break
        return np.stack(observations)

    used = MinAtarWrapper(gym.make("MinAtar/Breakout-v1"))
    for seed in range(40):
        np.testing.assert_array_equal(episode(used, seed), episode(MinAtarWrapper(gym.make("MinAtar/Breakout-v1")), seed))
        used.reset()
        for _ in range(3):
            used.step(2)


def test_minatars_network_has_the_papers_size():
    extractor = {"features_extractor_class": MinAtarCNN, "net_arch": [128]}
    model = MIRL("MlpPolicy", gym.make("MinAtar/Breakout-v1"), policy_kwargs=extractor, buffer_size=10)
    sizes = [tuple(parameter.shape) for parameter in model.q_net.parameters()]
    assert sizes == [(16, 4, 3, 3), (16,), (128, 1024), (128,), (3, 128), (3,)]
