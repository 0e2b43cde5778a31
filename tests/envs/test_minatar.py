"""MinAtar's games: names of actions, and the network of the paper."""

import gymnasium as gym

from sb3_mirl import MIRL
from sb3_mirl.bench.suites import MINATAR_IDS
from sb3_mirl.envs.minatar import MinAtarCNN, MinAtarWrapper


def test_minatar_names_its_actions():
    names = {env: MinAtarWrapper(gym.make(env)).get_action_meanings() for env in MINATAR_IDS}
    assert names["MinAtar/Breakout-v1"] == ["NOOP", "LEFT", "RIGHT"]
    assert names["MinAtar/Freeway-v1"] == ["NOOP", "UP", "DOWN"]
    assert names["MinAtar/Seaquest-v1"] == ["NOOP", "LEFT", "UP", "RIGHT", "DOWN", "FIRE"]


def test_minatars_network_has_the_papers_size():
    extractor = {"features_extractor_class": MinAtarCNN, "net_arch": [128]}
    model = MIRL("MlpPolicy", gym.make("MinAtar/Breakout-v1"), policy_kwargs=extractor, buffer_size=10)
    sizes = [tuple(parameter.shape) for parameter in model.q_net.parameters()]
    assert sizes == [(16, 4, 3, 3), (16,), (128, 1024), (128,), (3, 128), (3,)]
