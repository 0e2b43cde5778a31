"""Acting as functions of Q(s, ·)."""

import numpy as np
import pytest
import torch as th
from masked import MaskedProbe

from sb3_mirl import MIRL, SQLm
from sb3_mirl.mirl.acting import SoftActing, draw, soft_actions

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
