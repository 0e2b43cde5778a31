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
from probes import Image, Mixed
from stable_baselines3.common.logger import configure
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import DictReplayBufferSamples
from stable_baselines3.dqn.policies import QNetwork

import sb3_mirl.mirl
from sb3_mirl import MIRL, SQLm
from sb3_mirl.updates import adam_step, clear_tiny_averages, clip_gradient_norm, flushed_denormals, split_samples

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
def test_the_update_beside_a_plain_one(policy, env, n_steps, learning_rate):
    env = env if isinstance(env, str) else env()
    settings = {**FAST, "beta_schedule": "constant", "beta_init": 2.0, "max_grad_norm": 0.5}
    settings["learning_rate"] = learning_rate
    model = MIRL(policy, env, **settings).learn(300)
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


def test_adam_step_is_that_of_torch():
    nets = [th.nn.Linear(5, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [th.optim.Adam(net.parameters(), lr=1e-2, fused=True, weight_decay=0.01) for net in nets]
    for seed in range(20):
        for net in nets:
            net.zero_grad()
            net(th.randn(4, 5, generator=th.Generator().manual_seed(seed))).square().sum().backward()
        adam_step(optimizers[0])
        optimizers[1].step()
    for ours, theirs in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert th.equal(ours, theirs)
    assert optimizers[0].state_dict()["state"][0]["step"] == 20


@pytest.mark.parametrize("make", [th.optim.RMSprop, th.optim.AdamW, lambda ps: th.optim.Adam(ps, amsgrad=True, fused=True)])
def test_other_optimisers_step_by_themselves(make):
    nets = [th.nn.Linear(5, 3) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers = [make(net.parameters()) for net in nets]
    calls = []
    optimizers[0].register_step_post_hook(lambda *args: calls.append(args))
    for step, optimizer in ((adam_step, optimizers[0]), (lambda optimizer: optimizer.step(), optimizers[1])) * 3:
        optimizer.zero_grad()
        nets[optimizers.index(optimizer)](th.ones(1, 5)).sum().backward()
        step(optimizer)
    assert len(calls) == 3
    assert th.equal(nets[0].weight, nets[1].weight)


def test_clipping_is_that_of_torch():
    for scale in (0.01, 1.0, 100.0):
        ours, theirs = (th.nn.Linear(4, 4) for _ in range(2))
        for net in (ours, theirs):
            generator = th.Generator().manual_seed(0)
            for parameter in net.parameters():
                parameter.grad = scale * th.randn(parameter.shape, generator=generator)
        clip_gradient_norm(list(ours.parameters()), 0.5)
        th.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        th.testing.assert_close(ours.weight.grad, theirs.weight.grad)


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


@pytest.mark.parametrize("without_flushing", [False, True])
def test_no_denormal_numbers_in_the_averages(without_flushing, monkeypatch):
    if without_flushing:  # as in the other threads
        monkeypatch.setattr(sb3_mirl.mirl, "flushed_denormals", contextlib.nullcontext)
    model = MIRL("MlpPolicy", "CartPole-v1", **FAST).learn(1200)
    for state in model.policy.optimizer.state.values():
        small = state["exp_avg"].abs()
        assert ((small == 0) | (small > 2e-38)).all()
        assert (small > 0).any()


def test_clearing_tiny_averages_spares_the_others():
    parameter = th.nn.Parameter(th.zeros(3))
    optimizer = th.optim.Adam([parameter])
    optimizer.state[parameter] = {"exp_avg": th.tensor([1e-31, -1e-29, 1.0]), "exp_avg_sq": th.tensor([1e-37, 1e-35, 1.0])}
    clear_tiny_averages(optimizer)
    assert th.equal(optimizer.state[parameter]["exp_avg"], th.tensor([0.0, -1e-29, 1.0]))
    assert th.equal(optimizer.state[parameter]["exp_avg_sq"], th.tensor([0.0, 1e-35, 1.0]))
    clear_tiny_averages(th.optim.RMSprop([parameter]))


@pytest.mark.parametrize("compile_update", [False, True])
@pytest.mark.parametrize(("policy", "env"), [("MlpPolicy", "CartPole-v1"), ("CnnPolicy", Image)])
def test_mixed_precision(policy, env, compile_update):
    env = env if isinstance(env, str) else env()
    exact = MIRL(policy, env, **FAST).learn(300)
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


class Stubborn(th.nn.Dropout):
    def train(self, mode=True):
        self.asked = mode
        return super().train(False)


def test_training_mode_is_that_of_torch():
    policy = MIRL("MlpPolicy", "CartPole-v1", policy_kwargs={"activation_fn": Stubborn}).policy
    for mode in (True, False):
        policy.set_training_mode(mode)
        for name, module in policy.q_net.named_modules():
            assert module.training == (mode and not isinstance(module, Stubborn)), name
            assert getattr(module, "asked", mode) == mode
        assert not any(module.training for module in policy.q_net_target.modules())


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


@pytest.mark.parametrize("settings", [{}, {"loss": "huber", "n_steps": 3, "max_grad_norm": 0.1}], ids=["mse", "huber"])
def test_weights_after_hundreds_of_steps(settings):
    models = pair(MIRL, "MlpPolicy", lambda: "CartPole-v1", **settings)
    plain, compiled = models
    first = weights(plain).clone()
    train(models, 300)
    assert (weights(plain) - first).abs().max() > 0.05
    assert (weights(plain) - weights(compiled)).norm() < 0.01 * (weights(plain) - first).norm()
    logged = [model.logger.name_to_value for model in models]
    for key in ("train/loss", "train/kl", "train/beta"):
        assert logged[1][key] == pytest.approx(logged[0][key], rel=1e-2, abs=1e-6)


def test_images_and_dictionaries():
    for policy, env in (("CnnPolicy", Image), ("MultiInputPolicy", Mixed)):
        # Small steps: where a rounding turns one of many thousand ReLUs on, large ones soon make it a difference
        models = pair(SQLm, policy, env, learning_rate=1e-4)
        first = weights(models[0]).clone()
        train(models, 20)
        moved = (weights(models[0]) - first).norm()
        assert moved > 0.05
        assert (weights(models[0]) - weights(models[1])).norm() < 0.02 * moved


def test_learning_with_it_moves_beta():
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


def test_split_samples():
    observations = {"a": th.arange(6.0).reshape(6, 1)}
    sample = DictReplayBufferSamples(observations, th.arange(6), {"a": -observations["a"]}, th.zeros(6), th.ones(6), None)
    first, second = split_samples(sample, 2)
    assert first.actions.tolist() == [0, 1, 2] and second.actions.tolist() == [3, 4, 5]
    assert second.next_observations["a"].flatten().tolist() == [-3, -4, -5]
    assert second.discounts is None
    assert split_samples(sample, 1) == [sample]


def test_batches_sampled_at_once_are_those_of_one_after_the_other():
    model = MIRL("MlpPolicy", "CartPole-v1", **FAST).learn(200)
    np.random.seed(3)
    at_once = list(model._sample_batches(40, 32))  # more than one sample takes
    np.random.seed(3)
    for batch in at_once:
        assert th.equal(batch.observations, model.replay_buffer.sample(32).observations)
    assert len(at_once) == 40


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
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


def test_saved_with_one_it_goes_on_with_the_other(tmp_path):
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
    assert copied.compile_update and copied._compiled_update is None
    assert th.equal(weights(copied), weights(compiled))


class Normalised(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.norm = th.nn.BatchNorm1d(4)

    def forward(self, observations):
        return self.norm(observations)


@pytest.mark.parametrize(
    ("policy_kwargs", "message"),
    [
        ({"optimizer_class": th.optim.RMSprop}, "compile_update=True needs Adam with one group of parameters, got RMSprop"),
        (
            {"optimizer_kwargs": {"weight_decay": 0.1}},
            "needs Adam without weight_decay, got optimizer_kwargs weight_decay=0.1",
        ),
        ({"features_extractor_class": Normalised}, "needs a network without buffers"),
    ],
)
def test_what_it_cannot_compile_is_said_at_once(policy_kwargs, message):
    with pytest.raises(ValueError, match=message):
        MIRL("MlpPolicy", "CartPole-v1", compile_update=True, policy_kwargs=policy_kwargs)


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler"):
        MIRL("MlpPolicy", "CartPole-v1", compile_update=True)


def test_it_says_that_it_compiles(capsys):
    model = MIRL("MlpPolicy", "CartPole-v1", compile_update=True, verbose=1, **FAST)
    model._compiled()
    assert "the first one may take a minute" in capsys.readouterr().out
    assert model._compiled() is model._compiled()
