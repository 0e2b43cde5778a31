"""Acting as functions of Q(s, ·)."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from masked import MaskedProbe
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_mirl import MDQN, MIRL, SQLm
from sb3_mirl.mirl.acting import DrawsFromPolicy, SoftActing, draw, soft_actions

Q_VALUES = th.tensor([[0.0, 2.0, 5.0], [1.0, 0.0, 9.0]])
PRIOR = th.tensor([0.9, 0.1, 0.0], dtype=th.float64)


def test_the_best_action_is_that_of_the_policy():
    probabilities, best = soft_actions(Q_VALUES, PRIOR, th.tensor(1.0, dtype=th.float64))
    weights = PRIOR.numpy() * np.exp(Q_VALUES.double().numpy())
    assert probabilities.numpy() == pytest.approx(weights / weights.sum(axis=1, keepdims=True))
    assert probabilities.dtype == th.float64 and best.tolist() == [0, 0]


def test_draws_have_the_frequencies_of_the_rows():
    rows = th.tensor([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]], dtype=th.float64).repeat_interleave(2000, dim=0)
    drawn = draw(rows, np.random.RandomState(0))
    assert np.bincount(drawn[:2000], minlength=3) / 2000 == pytest.approx([0.25, 0.75, 0.0], abs=0.04)
    assert (drawn[2000:] == 2).all()


@pytest.mark.parametrize("algorithm", [MIRL, SQLm])
@pytest.mark.parametrize("kind", [{}, {"prior_type": "conditional", "prior_observation": "all"}], ids=["marginal", "table"])
def test_the_module_of_onnx_files_acts_as_the_policy(algorithm, kind):
    env = MaskedProbe(observation="number", start=3)
    model = algorithm("MlpPolicy", env, prior_lr=0.1, learning_starts=10, buffer_size=200, seed=0, **kind).learn(100)
    model.policy.set_training_mode(False)
    states = np.arange(env.n_states)
    with th.no_grad():
        module = SoftActing(model.policy)
        actions, probabilities, q_values = module(th.as_tensor(states), th.as_tensor(env.masks))
    assert actions.tolist() == model.predict(states, deterministic=True, action_masks=env.masks)[0].tolist()
    th.testing.assert_close(probabilities.float(), model.policy.action_probabilities(states, env.masks))
    th.testing.assert_close(q_values, model.policy.q_values(states))


@pytest.fixture(scope="module")
def cartpole():
    return MIRL("MlpPolicy", "CartPole-v1", beta_init=1.0, buffer_size=10, prior_init=[0.2, 0.8], seed=0)


def test_a_model_acts_by_draws_from_its_policy(cartpole):
    drawing, observations = DrawsFromPolicy(cartpole), np.zeros((2000, 4), dtype=np.float32)
    np.random.seed(0)
    actions, state = drawing.predict(observations, state=(), deterministic=True)
    # A network without training has Q near 0, and one action by argmax
    expected = cartpole.policy.action_probabilities(observations[:1])[0, 1].item()
    assert state == () and actions.mean() == pytest.approx(expected, abs=0.04) and 0.5 < expected < 0.95
    single, _ = drawing.predict(observations[0])
    assert single.shape == () and drawing.env.action_space.contains(int(single))
    assert drawing.num_timesteps == cartpole.num_timesteps


def test_draws_are_evaluated_by_sb3(cartpole, monkeypatch):
    class EvalByDraws(EvalCallback):
        def _on_step(self):
            model, self.model = self.model, DrawsFromPolicy(self.model)
            try:
                return super()._on_step()
            finally:
                self.model = model

    drawn = []
    sample = cartpole.policy.sample_policy
    monkeypatch.setattr(cartpole.policy, "sample_policy", lambda *args: drawn.append(len(args[0])) or sample(*args))
    returns = []
    for _ in range(2):
        np.random.seed(1)
        env = Monitor(gym.make("CartPole-v1"))
        env.reset(seed=2)
        returns.append(evaluate_policy(DrawsFromPolicy(cartpole), env, n_eval_episodes=3, return_episode_rewards=True)[0])
    assert returns[0] == returns[1] and len(drawn) == 2 * sum(returns[0])
    drawn.clear()
    evaluation = EvalByDraws(Monitor(gym.make("CartPole-v1")), eval_freq=50, n_eval_episodes=2, verbose=0)
    cartpole.learn(100, callback=evaluation)
    assert evaluation.n_calls == 100 and evaluation.best_mean_reward > 0 and cartpole.num_timesteps == 100
    assert len(drawn) > 10 and evaluation.model is cartpole


def test_draws_are_among_the_valid_actions():
    env = MaskedProbe(observation="number", start=3)
    drawing = DrawsFromPolicy(MIRL("MlpPolicy", env, buffer_size=20, seed=0))
    states = np.arange(env.n_states).repeat(20)
    actions, _ = drawing.predict(states, action_masks=env.masks[states])
    assert env.masks[states, actions - 3].all()
    single, _ = drawing.predict(0, action_masks=env.masks[0])
    assert single.shape == () and env.masks[0, int(single) - 3]


def test_observations_and_masks_that_do_not_fit_are_refused(cartpole):
    with pytest.raises(ValueError, match="observation must be the first of what Gymnasium's reset"):
        DrawsFromPolicy(cartpole).predict(gym.make("CartPole-v1").reset())
    with pytest.raises(ValueError, match=r"action_masks must be True or 1 .* of shape \(1, 2\), got shape \(1, 3\)"):
        DrawsFromPolicy(cartpole).predict(np.zeros(4), action_masks=[True, True, False])


def test_a_model_without_a_policy_of_that_kind_is_refused():
    with pytest.raises(ValueError, match="model must be MIRL, SQL, SQLDecoupled, SQLm or a subclass, got MDQN"):
        DrawsFromPolicy(MDQN("MlpPolicy", "CartPole-v1", buffer_size=10))


def test_a_drawing_model_is_pickled(cartpole):
    drawing = pickle.loads(pickle.dumps(DrawsFromPolicy(Held())))
    assert drawing.policy.name == "policy"
    with pytest.raises(AttributeError, match="nothing"):
        drawing.nothing  # noqa: B018


class Held:
    """Stands for a model, which is not pickled."""

    class policy:
        name = "policy"

        @staticmethod
        def sample_policy():
            return None
