"""Munchausen DQN: the target against a computation in NumPy, DQN as a limit, and the kinds of training against each other."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from joint_runs import check_equal, make_models, train_alone
from probes import ConstantReward

from sb3_mirl import DQNMSE, MDQN, MIRL, BaseDQN, train_jointly
from sb3_mirl.common.gradient import td_loss
from sb3_mirl.common.munchausen import munchausen_loss, munchausen_target, soft_maximum
from sb3_mirl.joint.networks import StackedNetworks

FAST = {"learning_rate": 1e-3, "learning_starts": 50, "train_freq": 4, "gradient_steps": 4, "target_update_interval": 40}
FAST |= {"buffer_size": 500, "seed": 1, "device": "cpu", "policy_kwargs": {"net_arch": [32]}}


def draw_batch(scale=1.0, n_steps=False, n_actions=5, batch=16):
    """Q_target(s', ·), Q_target(s, ·), a, r, done and discounts, in float64."""
    random = np.random.default_rng(0)
    q_values = [scale * random.standard_normal((batch, n_actions)) for _ in range(2)]
    q_values[0][0], q_values[1][1] = scale, -scale  # equally good actions
    actions, dones = random.integers(n_actions, size=(batch, 1)), random.integers(2, size=(batch, 1)).astype(float)
    discounts = 0.9 ** random.integers(1, 4, size=(batch, 1)) if n_steps else 0.9
    return *q_values, actions, random.standard_normal((batch, 1)), dones, discounts


def log_policy(q_values, temperature):
    """log softmax(Q / τ) of one state."""
    shifted = (q_values - q_values.max()) / temperature
    return shifted - np.log(np.exp(shifted).sum())


def targets_of(next_q_values, current_q_values, actions, rewards, dones, discounts, alpha, temperature, clip):
    """The paper's target, transition by transition and action by action."""
    targets = np.empty(rewards.shape)
    for i in range(len(rewards)):
        bonus = temperature * log_policy(current_q_values[i], temperature)[actions[i, 0]]
        next_log_policy = log_policy(next_q_values[i], temperature)
        value = 0.0
        for q_value, log_probability in zip(next_q_values[i], next_log_policy, strict=True):
            value += np.exp(log_probability) * (q_value - temperature * log_probability)
        discount = discounts if isinstance(discounts, float) else discounts[i, 0]
        targets[i] = rewards[i] + alpha * min(max(bonus, clip), 0.0) + (1 - dones[i]) * discount * value
    return targets


def tensors(values, dtype=th.float64):
    return [value if isinstance(value, float) else th.as_tensor(value, dtype=dtype) for value in values]


@pytest.mark.parametrize("n_steps", [False, True])
@pytest.mark.parametrize("constants", [(0.9, 0.03, -1.0), (0.5, 2.0, -0.1), (1.0, 0.5, -1e6)])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_target_is_that_of_an_independent_computation(scale, constants, n_steps):
    batch = draw_batch(scale, n_steps)
    expected = targets_of(*batch, *constants)
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(munchausen_target(*tensors(batch), *constants), expected, rtol=1e-12, atol=1e-10)
    in_float32 = munchausen_target(*tensors(batch, th.float32), *constants)
    assert in_float32.dtype == th.float32
    np.testing.assert_allclose(in_float32, expected, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize(("scale", "temperature"), [(3e4, 0.03), (1.0, 1e-6), (1e30, 1e-6), (1e-30, 1e-30), (1.0, 1e6)])
def test_target_is_finite_where_exponentials_would_overflow(scale, temperature):
    batch, constants = draw_batch(scale), (0.9, temperature, -1.0)
    expected = targets_of(*batch, *constants)
    assert np.isfinite(expected).all()
    found = munchausen_target(*tensors(batch, th.float32), *constants)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * scale)


def test_target_of_a_hand_calculation():
    # π(·|s) and π(·|s') are (1/2, 1/2); then Q(s, a) lies 8 below the maximum and is clipped
    next_q_values, current = th.tensor([[3.0, 3.0], [2.0, -40.0]]), th.tensor([[1.0, 1.0], [0.0, 8.0]])
    actions, rewards, dones = th.tensor([[1], [0]]), th.tensor([[1.0], [0.5]]), th.tensor([[0.0], [0.0]])
    target = munchausen_target(next_q_values, current, actions, rewards, dones, 0.5, 0.9, 0.5, -2.0)
    first = 1 - 0.9 * 0.5 * np.log(2) + 0.5 * (3 + 0.5 * np.log(2))
    np.testing.assert_allclose(target, [[first], [0.5 - 0.9 * 2 + 0.5 * 2]], rtol=1e-6)


def test_soft_maximum_lies_between_the_maximum_and_the_maximum_plus_the_entropy_of_the_uniform_policy():
    q_values = th.randn(100, 4, dtype=th.float64, generator=th.Generator().manual_seed(0))
    above = soft_maximum(q_values, 0.7) - q_values.amax(dim=1, keepdim=True)
    assert (above > 0).all() and (above < 0.7 * np.log(4)).all()


@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_loss_without_bonus_and_temperature_is_that_of_dqn(loss):
    next_q_values, current, actions, *rest = tensors(draw_batch())
    q_values = current + 1
    found = munchausen_loss(q_values, next_q_values, current, actions, *rest, 0.0, 1e-20, -1.0, loss=loss)
    # A row of five equal Q-values among them
    th.testing.assert_close(found, td_loss(q_values, next_q_values, actions, *rest, loss=loss), rtol=1e-12, atol=0)


def test_training_without_bonus_and_temperature_is_that_of_dqn():
    dqn = BaseDQN("MlpPolicy", "CartPole-v1", **FAST).learn(200)
    limit = MDQN("MlpPolicy", "CartPole-v1", munchausen_alpha=0.0, entropy_temperature=1e-20, **FAST).learn(200)
    usual = MDQN("MlpPolicy", "CartPole-v1", **FAST).learn(200)
    np.testing.assert_array_equal(limit.replay_buffer.actions, dqn.replay_buffer.actions)
    for name, value in dqn.policy.state_dict().items():
        th.testing.assert_close(limit.policy.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert not th.allclose(next(usual.q_net.parameters()), next(dqn.q_net.parameters()), atol=1e-3)


def expected_loss(model, batch, discounts, network_at_s):
    """Huber's loss of one batch, with the log-policy of the given network."""
    with th.no_grad():
        values = model.q_net_target(batch.next_observations), network_at_s(batch.observations)
        q_values = model.q_net(batch.observations).gather(1, batch.actions).numpy()
    constants = model.munchausen_alpha, model.entropy_temperature, model.munchausen_clip
    numbers = [tensor.double().numpy() for tensor in (*values, batch.rewards, batch.dones)]
    targets = targets_of(*numbers[:2], batch.actions.numpy(), *numbers[2:], discounts, *constants)
    errors = np.abs(q_values - targets)
    return np.where(errors < 1, 0.5 * errors**2, errors - 0.5).mean()


def with_other_target(algorithm=MDQN, **settings):
    """A model whose target network differs from its network."""
    model = algorithm("MlpPolicy", ConstantReward(n_actions=3), **FAST, **settings)
    generator = th.Generator().manual_seed(0)
    with th.no_grad():
        for parameter in model.q_net_target.parameters():
            parameter.add_(0.3 * th.randn(parameter.shape, generator=generator))
    return model


def random_batch(model, seed=1, size=16):
    generator = th.Generator().manual_seed(seed)
    observations, next_observations = th.randn(2, size, *model.observation_space.shape, generator=generator)
    actions = th.randint(0, int(model.action_space.n), (size, 1), generator=generator)
    rewards, dones = th.randn(size, 1, generator=generator), (th.rand(size, 1, generator=generator) < 0.3).float()
    names = ("observations", "next_observations", "actions", "rewards", "dones")
    return SimpleNamespace(**dict(zip(names, (observations, next_observations, actions, rewards, dones), strict=True)))


def test_log_policy_is_that_of_the_target_network():
    model = with_other_target(entropy_temperature=0.5)
    batch = random_batch(model)
    loss, _, _ = model._compute_gradient(batch, 0.9, *model.loss_coefficients())
    assert loss.item() == pytest.approx(expected_loss(model, batch, 0.9, model.q_net_target), rel=1e-5)
    assert loss.item() != pytest.approx(expected_loss(model, batch, 0.9, model.q_net), rel=1e-2)


@pytest.mark.slow
def test_compiled_weights_stay_close_for_300_steps_of_changing_settings():
    plain, compiled = (MDQN("MlpPolicy", "CartPole-v1", compile_update=c, **FAST).learn(48) for c in (False, True))
    compiled.replay_buffer = plain.replay_buffer
    vectors = lambda: [th.nn.utils.parameters_to_vector(m.q_net.parameters()).detach() for m in (plain, compiled)]  # noqa: E731
    first, second = vectors()
    assert th.equal(first, second)
    for temperature, alpha, clip in ((0.03, 0.9, -1.0), (1.0, 0.1, -0.5)):
        for model in (plain, compiled):
            model.entropy_temperature, model.munchausen_alpha, model.munchausen_clip = temperature, alpha, clip
            # The same batches: acting would carry a rounding on into other episodes
            np.random.seed(0)
            model.train(150, 32)
    with_plain, with_compiled = vectors()
    assert (with_plain - first).abs().max() > 0.05
    assert (with_plain - with_compiled).norm() < 0.01 * (with_plain - first).norm()
    losses = [model.logger.name_to_value["train/loss"] for model in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    # Without compiling again
    assert len(compiled._compiled_gradient[1]._compiled._compiled) == 1


RUNS = [
    (MIRL, {"seed": 0, "prior_lr": 1e-2, "beta_lr": 1e-2}),
    (MDQN, {"seed": 1}),
    (DQNMSE, {"seed": 2}),
    (MDQN, {"seed": 3, "munchausen_alpha": 0.3, "entropy_temperature": 0.5, "munchausen_clip": -0.2, "gamma": 0.9}),
]


def test_joint_gradients_are_those_of_each_model():
    runs = [(MDQN, {}), (MDQN, {"munchausen_alpha": 0.5, "entropy_temperature": 0.5}), (BaseDQN, {})]
    models, expected = ([with_other_target(algorithm, **own) for algorithm, own in runs] for _ in range(2))
    batches = [random_batch(model, seed) for seed, model in enumerate(models)]
    observations, next_observations, *transitions = (
        th.stack([getattr(batch, name) for batch in batches])
        for name in ("observations", "next_observations", "actions", "rewards", "dones")
    )
    networks = StackedNetworks(models)
    results = networks.compute_gradients({"": observations}, {"": next_observations}, *transitions, discounts=None)
    for row, (model, batch) in enumerate(zip(expected, batches, strict=True)):
        loss, error, _ = model._compute_gradient(batch, model.gamma, *model.loss_coefficients())
        th.nn.utils.clip_grad_norm_(model.policy.parameters(), model.max_grad_norm)
        th.testing.assert_close((results.losses[row], results.squared_td_errors[row]), (loss, error))
        for name, parameter in model.q_net.named_parameters():
            th.testing.assert_close(results.gradients[name][row], parameter.grad)


@pytest.mark.parametrize("settings", [{"loss": "huber"}, {"n_steps": 3}])
def test_joint_training_equals_solo_training(settings):
    alone = train_alone(RUNS, lambda: "CartPole-v1", "MlpPolicy", 200, **settings)
    joint = make_models(RUNS, lambda: "CartPole-v1", "MlpPolicy", **settings)
    assert train_jointly(joint, 200) == [None] * len(joint)
    for one, other in zip(alone, joint, strict=True):
        check_equal(one, other)


@pytest.mark.parametrize(
    ("argument", "value", "accepted"),
    [
        ("munchausen_alpha", 1.5, r"a number in \[0, 1\]"),
        ("munchausen_alpha", float("nan"), r"a number in \[0, 1\]"),
        ("entropy_temperature", 0.0, "a finite number of at least 1e-30"),
        ("entropy_temperature", float("inf"), "a finite number of at least 1e-30"),
        ("munchausen_clip", 0.1, "a finite number <= 0"),
        ("munchausen_clip", "none", "a finite number <= 0"),
    ],
)
def test_wrong_arguments(argument, value, accepted):
    with pytest.raises(ValueError, match=f"{argument} must be {accepted}, got {value!r}"):
        MDQN("MlpPolicy", ConstantReward(), buffer_size=10, **{argument: value})


def test_defaults_are_those_of_dqn_and_of_the_paper():
    ours, dqns = inspect.signature(MDQN).parameters, inspect.signature(BaseDQN).parameters
    assert {name: ours[name].default for name in dqns} == {name: dqns[name].default for name in dqns}
    own = {name: ours[name].default for name in ours.keys() - dqns.keys()}
    assert own == {"munchausen_alpha": 0.9, "entropy_temperature": 0.03, "munchausen_clip": -1.0}
