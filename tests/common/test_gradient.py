"""
What makes gradient steps faster leaves the weights as a plain implementation would have them, but for rounding; so does
``compile_update=True``.
"""

import contextlib
import copy
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from probes import ConstantReward, Image, Mixed
from stable_baselines3 import DQN, HerReplayBuffer
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.dqn.policies import QNetwork
from torch.nn.utils import parametrizations

import sb3_mirl.common.gradient
from sb3_mirl import MIRL, MIRLCallback, SQLm
from sb3_mirl.common.gradient import clear_tiny_averages, distinct, flushed_denormals
from sb3_mirl.mirl.loss import soft_td_loss
from sb3_mirl.mirl.policies import MIRLPolicy

FAST = {"learning_rate": 1e-3, "learning_starts": 50, "train_freq": 4, "gradient_steps": 4, "target_update_interval": 40}
FAST |= {"buffer_size": 500, "seed": 1, "device": "cpu", "beta_lr": 1e-2, "prior_lr": 1e-3}


def plain_update(model, replay_data):
    """A gradient step as DQN's ``train`` does it, with MIRL's target written out."""
    with th.no_grad():
        next_q_values = model.q_net_target(replay_data.next_observations).double()
        prior, beta = model.policy.reference_prior, model.policy.beta
        next_values = th.logsumexp(prior.log() + beta * next_q_values, dim=1, keepdim=True).float() / beta.float()
        targets = replay_data.rewards + (1 - replay_data.dones) * model.gamma * next_values
    features = QNetwork.extract_features(model.q_net, replay_data.observations, model.q_net.features_extractor)
    q_values = th.gather(model.q_net.q_net(features), dim=1, index=replay_data.actions.long())
    loss = th.nn.functional.mse_loss(q_values, targets)
    model.policy.optimizer.zero_grad()
    loss.backward()
    th.nn.utils.clip_grad_norm_(model.policy.parameters(), model.max_grad_norm)
    model.policy.optimizer.step()


# Small steps with images: where a rounding turns one of many thousand ReLUs on, large ones soon make it a difference
@pytest.mark.parametrize(
    ("policy", "env", "n_steps", "learning_rate"), [("MlpPolicy", "CartPole-v1", 400, 1e-3), ("CnnPolicy", Image, 60, 3e-5)]
)
def test_gradient_steps_equal_reference_implementation(policy, env, n_steps, learning_rate):
    env = env if isinstance(env, str) else env()
    settings = {**FAST, "beta_schedule": "constant", "beta_init": 2.0, "max_grad_norm": 0.5, "loss": "mse"}
    settings["learning_rate"] = learning_rate
    model = MIRL(policy, env, **settings).learn(100)
    unfused = {"policy_kwargs": {"optimizer_kwargs": {"fused": False, "foreach": False}}}
    plain = MIRL(policy, env, **settings, **unfused)
    plain.policy.load_state_dict(model.policy.state_dict())
    first = weights(model).clone()
    model.policy.optimizer.state.clear()
    for seed in range(n_steps):
        np.random.seed(seed)
        model.train(1, 32)
        np.random.seed(seed)
        plain_update(plain, model.replay_buffer.sample(32))
    assert (weights(model) - weights(plain)).norm() < 0.01 * (weights(model) - first).norm()


@pytest.mark.parametrize("before", [False, True])
def test_denormal_numbers_are_flushed_only_inside(before):
    tiny = th.tensor(1e-40)
    try:
        th.set_flush_denormal(before)
        with flushed_denormals():
            assert (tiny * 0.5).item() == 0.0
        with pytest.raises(RuntimeError), flushed_denormals():
            raise RuntimeError
        assert ((tiny * 0.5).view(th.int32).item() == 0) == before
    finally:
        th.set_flush_denormal(False)


@pytest.mark.parametrize("without_flushing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_no_denormal_numbers_in_the_averages(without_flushing, monkeypatch):
    if without_flushing:  # as in the other threads
        monkeypatch.setattr(sb3_mirl.common.gradient, "flushed_denormals", contextlib.nullcontext)
    model = MIRL("MlpPolicy", "CartPole-v1", **FAST).learn(1200)
    for state in model.policy.optimizer.state.values():
        small = state["exp_avg"].abs()
        assert ((small == 0) | (small > 2e-38)).all()
        assert (small > 0).any()


def test_clear_tiny_averages_keeps_larger_values():
    parameter = th.nn.Parameter(th.zeros(3))
    optimizer = th.optim.Adam([parameter])
    optimizer.state[parameter] = {"exp_avg": th.tensor([1e-31, -1e-29, 1.0]), "exp_avg_sq": th.tensor([1e-37, 1e-35, 1.0])}
    clear_tiny_averages(optimizer)
    assert th.equal(optimizer.state[parameter]["exp_avg"], th.tensor([0.0, -1e-29, 1.0]))
    assert th.equal(optimizer.state[parameter]["exp_avg_sq"], th.tensor([0.0, 1e-35, 1.0]))


def test_tiny_averages_of_other_optimisers_are_left_alone():
    class MyAdam(th.optim.Adam):
        pass

    parameter = th.nn.Parameter(th.zeros(1))
    optimizer = MyAdam([parameter])
    optimizer.state[parameter] = {"exp_avg": th.tensor([1e-31])}
    clear_tiny_averages(optimizer)
    assert optimizer.state[parameter]["exp_avg"].item() == pytest.approx(1e-31)


@pytest.mark.parametrize(
    ("policy", "env", "compile_update"),
    [
        ("MlpPolicy", "CartPole-v1", False),
        ("MlpPolicy", "CartPole-v1", True),
        ("CnnPolicy", Image, False),
        pytest.param("CnnPolicy", Image, True, marks=pytest.mark.slow),
    ],
)
def test_mixed_precision_changes_weights_by_rounding_only(policy, env, compile_update):
    env = env if isinstance(env, str) else env()
    exact = MIRL(policy, env, **FAST).learn(60)
    mixed = MIRL(policy, env, mixed_precision=True, compile_update=compile_update, **FAST)
    mixed.policy.load_state_dict(exact.policy.state_dict())
    mixed.replay_buffer, mixed._logger = exact.replay_buffer, exact._logger
    exact.policy.optimizer.state.clear()
    first = weights(exact).clone()
    train([exact, mixed], 5)
    difference = (weights(mixed) - weights(exact)).norm() / (weights(exact) - first).norm()
    assert 1e-5 < difference < 0.3
    assert all(parameter.dtype == th.float32 for parameter in mixed.q_net.parameters())
    assert mixed.policy.action_probabilities(mixed.observation_space.sample()[None]).dtype == th.float32


def weights(model):
    return th.nn.utils.parameters_to_vector(model.q_net.parameters()).detach()


def pair(algorithm, policy, env, **settings):
    """The same model twice after the warm-up, the second one with the compiled update."""
    settings = {**FAST, **settings}
    steps = settings["learning_starts"] - 2
    plain, compiled = (algorithm(policy, env(), compile_update=c, **settings).learn(steps) for c in (False, True))
    compiled.replay_buffer = plain.replay_buffer
    assert th.equal(weights(plain), weights(compiled))
    return [plain, compiled]


def train(models, n_steps):
    """On the same batches: acting would carry a rounding on into other episodes."""
    for model in models:
        np.random.seed(0)
        model.train(n_steps, 32)


@pytest.mark.parametrize("settings", [{"loss": "mse"}, {"n_steps": 3, "max_grad_norm": 0.1}], ids=["mse", "huber"])
def test_compiled_weights_stay_close_for_300_steps(settings):
    models = pair(MIRL, "MlpPolicy", lambda: "CartPole-v1", **settings)
    plain, compiled = models
    first = weights(plain).clone()
    train(models, 300)
    assert (weights(plain) - first).abs().max() > 0.05
    assert (weights(plain) - weights(compiled)).norm() < 0.01 * (weights(plain) - first).norm()
    logged = [model.logger.name_to_value for model in models]
    for key in ("train/loss", "train/kl", "train/beta"):
        assert logged[1][key] == pytest.approx(logged[0][key], rel=1e-2, abs=1e-6)


def test_compiled_steps_with_image_and_dict_observations():
    for policy, env in (("CnnPolicy", Image), ("MultiInputPolicy", Mixed)):
        # Small steps: where a rounding turns one of many thousand ReLUs on, large ones soon make it a difference
        models = pair(SQLm, policy, env, learning_rate=1e-4)
        first = weights(models[0]).clone()
        train(models, 20)
        moved = (weights(models[0]) - first).norm()
        assert moved > 0.05
        assert (weights(models[0]) - weights(models[1])).norm() < 0.02 * moved


def test_beta_moves_with_compile_update():
    model = MIRL("MlpPolicy", "CartPole-v1", compile_update=True, **FAST).learn(100)
    assert model._n_updates > 0 and model.beta != 0.01


@pytest.mark.parametrize(
    ("policy", "env"), [("MlpPolicy", lambda: gym.make("CartPole-v1")), ("CnnPolicy", Image), ("MultiInputPolicy", Mixed)]
)
def test_compiled_acting(policy, env):
    plain, compiled = (MIRL(policy, env(), seed=0, compile_update=c, beta_init=3.0, device="cpu") for c in (False, True))
    for n in (1, 5):
        samples = [plain.observation_space.sample() for _ in range(n)]
        obs = {key: np.stack([one[key] for one in samples]) for key in samples[0]} if policy == "MultiInputPolicy" else samples
        obs = obs if isinstance(obs, dict) else np.stack(obs)
        results = [model.predict(obs, deterministic=True)[0] for model in (plain, compiled)]
        np.testing.assert_array_equal(*results)
        probabilities = [model.policy.last_action_probabilities for model in (plain, compiled)]
        assert probabilities[1].shape == (n, plain.action_space.n) and probabilities[1].dtype == th.float64
        th.testing.assert_close(*probabilities, rtol=1e-4, atol=1e-6)


def test_compiled_acting_with_transposed_images():
    """Atari's images have their channels last in memory. From smaller images the last convolution makes a single column."""
    env = ConstantReward(observation_space=spaces.Box(0, 255, (84, 84, 4), np.uint8))
    settings = {"seed": 0, "beta_init": 3.0, "device": "cpu", "buffer_size": 100}
    plain, compiled = (MIRL("CnnPolicy", env, compile_update=c, **settings) for c in (False, True))
    obs = plain.env.reset()
    assert obs.shape == (1, 4, 84, 84) and not obs.flags.c_contiguous
    for model in (plain, compiled):
        model.predict(obs)
    th.testing.assert_close(
        compiled.policy.last_action_probabilities, plain.policy.last_action_probabilities, rtol=1e-4, atol=1e-6
    )


def test_compiled_acting_follows_weights_prior_and_beta():
    model = MIRL("MlpPolicy", "CartPole-v1", seed=0, compile_update=True, beta_init=3.0, device="cpu")
    obs = np.ones((2, 4), dtype=np.float32)
    model.predict(obs)
    copied = copy.deepcopy(model)
    with th.no_grad():
        copied.q_net.q_net[-1].weight.mul_(5.0)
        copied.policy.prior.copy_(th.tensor([0.9, 0.1]))
        copied.policy.beta.fill_(0.5)
    for one in (copied, model):
        one.predict(obs)
        expected = one.policy.action_probabilities(obs).double()
        th.testing.assert_close(one.policy.last_action_probabilities, expected, rtol=1e-4, atol=1e-6)
    assert not th.allclose(copied.policy.last_action_probabilities, model.policy.last_action_probabilities, atol=0.05)


@pytest.mark.gpu
@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU and `-m gpu`")
def test_cuda_graph():
    settings = {**FAST, "device": "cuda", "learning_rate": 1e-4}
    plain, compiled = (MIRL("CnnPolicy", Image(), compile_update=c, **settings).learn(48) for c in (False, True))
    compiled.replay_buffer = plain.replay_buffer
    first = weights(plain).clone()
    train([plain, compiled], 20)
    assert (weights(plain) - weights(compiled)).norm() < 0.02 * (weights(plain) - first).norm()
    # Other tensors in the optimiser's state
    for model in (plain, compiled):
        model.policy.optimizer.load_state_dict(copy.deepcopy(model.policy.optimizer.state_dict()))
    train([plain, compiled], 20)
    assert (weights(plain) - weights(compiled)).norm() < 0.02 * (weights(plain) - first).norm()


def test_compile_update_can_change_between_save_and_load(tmp_path):
    plain, compiled = pair(MIRL, "MlpPolicy", lambda: "CartPole-v1")
    train([plain, compiled], 30)
    for model in (plain, compiled):
        model.save(tmp_path / str(model.compile_update))
        model.save_replay_buffer(tmp_path / f"{model.compile_update}_buffer")
    ends = {}
    for saved in (False, True):
        for goes_on in (False, True):
            model = MIRL.load(tmp_path / str(saved), env=gym.make("CartPole-v1"), compile_update=goes_on)
            model.load_replay_buffer(tmp_path / f"{saved}_buffer")
            model.set_logger(configure())
            train([model], 50)
            ends[saved, goes_on] = weights(model)
    for end in ends.values():
        th.testing.assert_close(end, ends[False, False], rtol=0, atol=2e-4)
    copied = copy.deepcopy(compiled)
    assert copied.compile_update and copied._compiled_gradient is None
    assert th.equal(weights(copied), weights(compiled))


class Extractor(BaseFeaturesExtractor):
    """One layer, made by ``layer(n_inputs, n_outputs)``."""

    def __init__(self, observation_space, layer=th.nn.Linear):
        super().__init__(observation_space, 8)
        self.layer = layer(int(np.prod(observation_space.shape)), 8)

    def forward(self, observations):
        return self.layer(observations.flatten(1)).tanh()


class Tied(th.nn.Module):
    """Two layers that share their weights."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__()
        self.first, self.second, self.third = (th.nn.Linear(n, n_outputs) for n in (n_inputs, n_outputs, n_outputs))
        self.third.weight = self.second.weight

    def forward(self, inputs):
        return self.third(self.second(self.first(inputs)).tanh())


class Summed(th.nn.Linear):
    """Two parameters with the same gradient."""

    def __init__(self, n_inputs, n_outputs):
        super().__init__(n_inputs, n_outputs)
        self.second = th.nn.Parameter(th.randn(n_outputs, n_inputs))

    def forward(self, inputs):
        return th.nn.functional.linear(inputs, self.weight + self.second, self.bias)


class WithUnusedLayer(th.nn.Linear):
    def __init__(self, n_inputs, n_outputs):
        super().__init__(n_inputs, n_outputs)
        self.unused = th.nn.Linear(2, 2)


def orthogonal(n_inputs, n_outputs):
    return parametrizations.weight_norm(th.nn.Linear(n_inputs, n_outputs))


class DuelingQNetwork(QNetwork):
    """A head of one's own: forward() adds a value to the advantages."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.value = th.nn.Linear(self.features_dim, 1)

    def forward(self, obs):
        features = self.extract_features(obs, self.features_extractor)
        advantages = self.q_net(features)
        return self.value(features) + advantages - advantages.mean(dim=1, keepdim=True)


class DuelingPolicy(MIRLPolicy):
    def make_q_net(self):
        return DuelingQNetwork(**self._update_features_extractor(self.net_args, features_extractor=None)).to(self.device)


def freeze_all_but_the_head(model):
    model.q_net.features_extractor.requires_grad_(False)
    model.q_net.q_net[0].requires_grad_(False)


def freeze_one_bias(model):
    model.q_net.q_net[0].bias.requires_grad_(False)


def leave_the_first_layer_out_of_the_optimiser(model):
    group = model.policy.optimizer.param_groups[0]
    group["params"] = [*model.q_net.q_net[-1].parameters()]
    model.policy.optimizer.state.clear()


def extractor(layer):
    return {"features_extractor_class": Extractor, "features_extractor_kwargs": {"layer": layer}}


NETWORKS = {
    "plain": ("MlpPolicy", {}, None),
    "frozen features": ("MlpPolicy", extractor(th.nn.Linear), freeze_all_but_the_head),
    "one frozen bias": ("MlpPolicy", {}, freeze_one_bias),
    "a part outside the optimiser": ("MlpPolicy", {}, leave_the_first_layer_out_of_the_optimiser),
    "tied weights": ("MlpPolicy", extractor(Tied), None),
    "an unused layer": ("MlpPolicy", extractor(WithUnusedLayer), None),
    "a parametrised layer": ("MlpPolicy", extractor(orthogonal), None),
    "a dueling head": (DuelingPolicy, {}, None),
}
OPTIMISERS = {
    "Adam": {},
    "weight decay": {"optimizer_kwargs": {"weight_decay": 0.1}},
    "decoupled weight decay": {"optimizer_kwargs": {"weight_decay": 0.1, "decoupled_weight_decay": True}},
    "RMSprop": {"optimizer_class": th.optim.RMSprop},
}


@pytest.fixture(scope="module")
def filled_buffer():
    return MIRL("MlpPolicy", "CartPole-v1", **FAST).learn(48).replay_buffer


def own_pair(filled_buffer, policy, policy_kwargs, change=None, **settings):
    """The same model twice, plain and compiled, with equal weights and one replay buffer."""
    models = []
    for compile_update in (False, True):
        model = MIRL(policy, "CartPole-v1", compile_update=compile_update, policy_kwargs=policy_kwargs, **{**FAST, **settings})
        model.set_logger(configure(None, []))
        model.replay_buffer = filled_buffer
        if models:
            model.policy.load_state_dict(models[0].policy.state_dict())
        if change is not None:
            change(model)
        models.append(model)
    return models


#: Compiling takes seconds each time; others come near these
SLOW_NETWORKS = {"one frozen bias", "a parametrised layer", "an unused layer"}


@pytest.mark.parametrize(
    "network", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW_NETWORKS)) for name in NETWORKS]
)
def test_compiled_gradient_steps_equal_plain_ones_whatever_the_network(network, filled_buffer):
    policy, policy_kwargs, change = NETWORKS[network]
    plain, compiled = own_pair(filled_buffer, policy, {"net_arch": [8], **policy_kwargs}, change)
    first = weights(plain).clone()
    train([plain, compiled], 8)
    th.testing.assert_close(weights(compiled), weights(plain), rtol=1e-5, atol=1e-5)
    assert (weights(plain) - first).abs().max() > 1e-3
    compiled.get_parameters()  # what save() writes: fails where the optimiser has a state for somebody else's parameters
    obs = np.ones((3, 4), np.float32)
    compiled.predict(obs, deterministic=True)
    expected = plain.policy.action_probabilities(obs).double()
    th.testing.assert_close(compiled.policy.last_action_probabilities, expected, rtol=1e-4, atol=1e-6)


def test_a_gradient_of_two_parameters_is_clipped_once(filled_buffer):
    # Adam would hide it: it divides by the size of gradients
    policy_kwargs = {"net_arch": [8], "optimizer_class": th.optim.SGD, **extractor(Summed)}
    plain, compiled = own_pair(filled_buffer, "MlpPolicy", policy_kwargs, max_grad_norm=0.01, learning_rate=1.0)
    first = weights(plain).clone()
    train([plain, compiled], 8)
    th.testing.assert_close(weights(compiled), weights(plain), rtol=1e-5, atol=1e-5)
    assert (weights(plain) - first).abs().max() > 1e-3


def test_gradients_that_share_memory_are_copied():
    whole, other = th.arange(12.0).view(4, 3), th.ones(2)
    given = [whole, other, whole[1:], whole]
    found = distinct(given)
    assert all(map(th.equal, found, given))
    assert found[0] is whole and found[1] is other
    assert len({gradient.untyped_storage().data_ptr() for gradient in found}) == 4


def test_frozen_weights_do_not_change(filled_buffer):
    _, compiled = own_pair(filled_buffer, "MlpPolicy", extractor(th.nn.Linear), freeze_all_but_the_head)
    frozen = [parameter.clone() for parameter in compiled.q_net.parameters() if not parameter.requires_grad]
    train([compiled], 8)
    assert len(frozen) == 4
    for before, after in zip(frozen, [p for p in compiled.q_net.parameters() if not p.requires_grad], strict=True):
        assert th.equal(before, after)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_compiled_gradient_steps_equal_plain_ones_whatever_the_optimiser(optimiser, filled_buffer):
    plain, compiled = own_pair(filled_buffer, "MlpPolicy", {"net_arch": [8], **OPTIMISERS[optimiser]})
    train([plain, compiled], 8)
    th.testing.assert_close(weights(compiled), weights(plain), rtol=1e-5, atol=1e-5)


def test_decoupled_weight_decay_is_that_of_dqn(filled_buffer):
    kwargs = {"net_arch": [8], **OPTIMISERS["decoupled weight decay"]}
    settings = {"beta_schedule": "constant", "beta_init": np.inf}
    mirl, compiled = own_pair(filled_buffer, "MlpPolicy", kwargs, **settings)
    shared = {name: value for name, value in FAST.items() if name not in ("beta_lr", "prior_lr")}
    dqn = DQN("MlpPolicy", "CartPole-v1", policy_kwargs=kwargs, **shared)
    dqn.set_logger(configure(None, []))
    dqn.replay_buffer = filled_buffer
    weights_only = {k: v for k, v in mirl.policy.state_dict().items() if k in dqn.policy.state_dict()}
    dqn.policy.load_state_dict(weights_only)
    train([mirl, compiled, dqn], 20)
    th.testing.assert_close(weights(mirl), weights(dqn), rtol=1e-4, atol=1e-5)
    th.testing.assert_close(weights(compiled), weights(dqn), rtol=1e-4, atol=1e-5)


def test_layers_that_the_loss_does_not_depend_on_do_not_decay(filled_buffer):
    kwargs = {"net_arch": [8], **extractor(WithUnusedLayer), **OPTIMISERS["weight decay"]}
    plain, compiled = own_pair(filled_buffer, "MlpPolicy", kwargs)
    first = weights(plain).clone()
    train([plain, compiled], 4)
    th.testing.assert_close(weights(compiled), weights(plain), rtol=1e-5, atol=1e-5)
    unused = compiled.q_net.features_extractor.layer.unused.weight
    assert unused.grad is None and (weights(plain) - first).abs().max() > 1e-3


def test_another_network_in_the_policy_is_used_for_acting():
    model = MIRL("MlpPolicy", "CartPole-v1", compile_update=True, **FAST)
    obs = np.ones((2, 4), np.float32)
    model.predict(obs)
    model.policy.q_net = copy.deepcopy(model.policy.q_net)
    with th.no_grad():
        model.policy.q_net.q_net[-1].bias.copy_(th.tensor([5.0, -5.0]))
    model.policy.beta.fill_(1.0)
    model.predict(obs)
    expected = model.policy.action_probabilities(obs).double()
    th.testing.assert_close(model.policy.last_action_probabilities, expected, rtol=1e-4, atol=1e-6)


CHANGES = {
    "max_grad_norm": lambda model: setattr(model, "max_grad_norm", 0.01),
    "loss": lambda model: setattr(model, "loss", "mse"),
    "betas": lambda model: model.policy.optimizer.param_groups[0].update(betas=(0.5, 0.5)),
    "freezing": freeze_one_bias,
    "thawing": lambda model: model.q_net.requires_grad_(True),
    "another network": lambda model: model.q_net.q_net.append(th.nn.Softsign()),
    "another layer": lambda model: model.q_net.q_net.__setitem__(1, th.nn.Tanh()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_settings_changed_after_the_first_step_take_effect(change, filled_buffer):
    before = freeze_one_bias if change == "thawing" else None
    models = own_pair(filled_buffer, "MlpPolicy", {"net_arch": [8]}, before)
    unchanged = copy.deepcopy(models[0])
    unchanged.set_logger(configure(None, []))
    train([unchanged, *models], 4)
    for model in models:
        CHANGES[change](model)
    train([unchanged, *models], 4)
    plain, compiled = models
    th.testing.assert_close(weights(compiled), weights(plain), rtol=1e-5, atol=1e-5)
    assert not th.allclose(weights(plain), weights(unchanged), rtol=0, atol=1e-4)


def test_hooks_of_the_optimiser_are_called(filled_buffer):
    _, compiled = own_pair(filled_buffer, "MlpPolicy", {"net_arch": [8]})
    calls = []
    compiled.policy.optimizer.register_step_pre_hook(lambda *args: calls.append("before"))
    compiled.policy.optimizer.register_step_post_hook(lambda *args: calls.append("after"))
    train([compiled], 2)
    assert calls == ["before", "after"] * 2


def test_keys_of_a_dict_observation_may_come_in_any_order():
    plain, compiled = pair(MIRL, "MultiInputPolicy", Mixed)
    samples = [plain.observation_space.sample() for _ in range(4)]
    obs = {key: np.stack([sample[key] for sample in samples]) for key in ("vector", "kind", "image")}
    for order in (("vector", "kind", "image"), ("kind", "image", "vector")):
        compiled.predict({key: obs[key] for key in order}, deterministic=True)
        expected = plain.policy.action_probabilities(obs).double()
        th.testing.assert_close(compiled.policy.last_action_probabilities, expected, rtol=1e-4, atol=1e-6)


class Normalised(Extractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, lambda n_inputs, n_outputs: th.nn.BatchNorm1d(n_inputs))


class Dropping(Extractor):
    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.dropout = th.nn.Dropout(0.5)


class Scripted(Extractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, lambda n, m: th.jit.script(th.nn.Linear(n, m)))


class Hooked(Extractor):
    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.layer.register_forward_hook(lambda module, inputs, output: output)


class HookedWeight(Extractor):
    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.layer.weight.register_hook(lambda gradient: gradient)


@pytest.mark.parametrize(
    ("extractor_class", "message"),
    [
        (Normalised, "needs a network without buffers"),
        (Dropping, "needs a network without random numbers"),
        (Scripted, "needs a network without TorchScript"),
        (Hooked, "needs a network without hooks"),
        (HookedWeight, r"needs a network without hooks, got parameter features_extractor.layer.weight"),
    ],
)
def test_uncompilable_network_is_refused_by_constructor(extractor_class, message):
    with pytest.raises(ValueError, match=message):
        MIRL(
            "MlpPolicy",
            "CartPole-v1",
            compile_update=True,
            policy_kwargs={"features_extractor_class": extractor_class},
            **FAST,
        )


class Drawing(Extractor):
    def forward(self, observations):
        return super().forward(th.nn.functional.dropout(observations, 0.5))


class Choosing(Extractor):
    def forward(self, observations):
        return super().forward(-observations if observations.sum() > 0 else observations)


@pytest.mark.parametrize(
    ("extractor_class", "message"),
    [(Drawing, "needs a network without random numbers"), (Choosing, "cannot compile the choice of actions")],
)
def test_untraceable_forward_is_refused_at_first_use(extractor_class, message):
    kwargs = {"features_extractor_class": extractor_class}
    model = MIRL("MlpPolicy", "CartPole-v1", compile_update=True, policy_kwargs=kwargs, **FAST)
    with pytest.raises(ValueError, match=message):
        model.predict(np.ones((2, 4), np.float32), deterministic=True)


def test_hooks_added_later_are_refused(filled_buffer):
    _, compiled = own_pair(filled_buffer, "MlpPolicy", {"net_arch": [8]})
    train([compiled], 1)
    compiled.q_net.q_net[0].register_forward_hook(lambda module, inputs, output: output * 2)
    with pytest.raises(ValueError, match="needs a network without hooks"):
        train([compiled], 1)


def test_missing_compiler_is_reported(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler"):
        MIRL("MlpPolicy", "CartPole-v1", compile_update=True)


def test_compilation_message_is_printed_once(filled_buffer, capsys):
    _, compiled = own_pair(filled_buffer, "MlpPolicy", {"net_arch": [8]}, verbose=1)
    train([compiled], 1)
    train([compiled], 1)
    assert capsys.readouterr().out.count("the first one may take a minute") == 1


# ---- what a user's buffer, network or callback sees of training ------------------------------------------------------


class CountingBuffer(ReplayBuffer):
    """A buffer of a user's that keeps count, as a prioritised one would."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.calls = []

    def sample(self, batch_size, env=None):
        self.calls.append(batch_size)
        return super().sample(batch_size, env=env)


def test_one_sample_call_per_gradient_step():
    model = MIRL("MlpPolicy", "CartPole-v1", replay_buffer_class=CountingBuffer, **{**FAST, "gradient_steps": 8}).learn(60)
    assert model._n_updates > 0
    assert model.replay_buffer.calls == [model.batch_size] * model._n_updates


def test_each_gradient_step_with_her_has_its_share_of_real_goals(monkeypatch):
    env = BitFlippingEnv(n_bits=4, continuous=False, max_steps=4)
    model = MIRL(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4},
        **{**FAST, "gradient_steps": 8},
    )
    shares = []
    sample = HerReplayBuffer.sample

    def spy(self, batch_size, env=None):
        data = sample(self, batch_size, env)
        # The environment's own goal is all ones
        shares.append(data.observations["desired_goal"].eq(1).all(dim=1).float().mean().item())
        return data

    monkeypatch.setattr(HerReplayBuffer, "sample", spy)
    model.learn(120)
    assert len(shares) == model._n_updates and len(shares) % 8 == 0
    by_position = np.reshape(shares, (-1, 8)).mean(axis=0)
    # One of five goals is real, and relabelled ones may happen to be all ones
    assert ((by_position > 0.1) & (by_position < 0.6)).all()


class ActingCallback(MIRLCallback):
    """Acts after each gradient step, which puts the policy into evaluation mode."""

    def _on_gradient_step(self, squared_td_error):
        self.model.predict(np.ones((2, 4), np.float32))


def test_every_gradient_step_is_in_training_mode(monkeypatch):
    model = MIRL("MlpPolicy", "CartPole-v1", **{**FAST, "gradient_steps": 5})
    modes = []

    def spy(*args, **kwargs):
        modes.append(model.q_net.training)
        return soft_td_loss(*args, **kwargs)

    monkeypatch.setattr(MIRL, "batch_loss", staticmethod(spy))
    model.learn(60, callback=ActingCallback())
    assert len(modes) == model._n_updates > 0 and all(modes)


@pytest.mark.parametrize("before", [True, False])
def test_action_probabilities_keeps_training_mode(before):
    policy = MIRL("MlpPolicy", "CartPole-v1", **FAST).policy
    policy.set_training_mode(before)
    policy.action_probabilities(np.ones((2, 4), np.float32))
    assert policy.training == policy.q_net.training == before


def test_acting_turns_dropout_off_in_torchscript_too():
    class ScriptedDropout(Extractor):
        def __init__(self, observation_space):
            super().__init__(
                observation_space, lambda n, m: th.jit.script(th.nn.Sequential(th.nn.Dropout(0.5), th.nn.Linear(n, m)))
            )

    model = MIRL("MlpPolicy", "CartPole-v1", policy_kwargs={"features_extractor_class": ScriptedDropout}, **FAST)
    model.policy.set_training_mode(True)
    obs = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    first, second = (model.policy.action_probabilities(obs) for _ in range(2))
    assert th.equal(first, second)
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
