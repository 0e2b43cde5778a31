"""
Algorithm 1 of the paper, replayed in plain NumPy from its equations alone.

A short run is recorded: what the networks put out, which batches were drawn, the state of NumPy's generator before each
action. From that and the arguments, the replay computes by itself ρ, β, ε, the targets and the actions.
"""

import numpy as np
import pytest

import sb3_mirl.common.gradient
from sb3_mirl import MIRL, SQL, MIRLCallback, SQLm

GAMMA, PRIOR_LR, BETA_LR, BETA_INIT = 0.9, 0.05, 0.02, 0.3
LEARNING_STARTS, TOTAL = 8, 60


class Recorder(MIRLCallback):
    """Everything that the replay may not compute, and everything that it has to."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.events, self.outputs, self.targets = [], [], []
        mse_loss = sb3_mirl.common.gradient.F.mse_loss

        def spy_on_loss(prediction, target):
            self.targets.append(target.detach().numpy().copy())
            return mse_loss(prediction, target)

        monkeypatch.setattr(sb3_mirl.common.gradient.F, "mse_loss", spy_on_loss)

    def _init_callback(self):
        super()._init_callback()
        model = self.model
        for network in (model.q_net, model.q_net_target):
            network.register_forward_hook(lambda _, __, output: self.outputs.append(output.detach().double().numpy()))
        act, sample = model._sample_action, model.replay_buffer.sample

        def spy_on_act(*args, **kwargs):
            self.outputs.clear()
            generator = np.random.get_state()
            epsilon = model.exploration_rate
            actions, _ = act(*args, **kwargs)
            self.events.append({"q": list(self.outputs), "generator": generator, "epsilon": epsilon, "actions": actions})
            self.outputs.clear()
            return actions, actions

        def spy_on_sample(*args, **kwargs):
            self.outputs.clear()
            self.batch = sample(*args, **kwargs)
            return self.batch

        model._sample_action, model.replay_buffer.sample = spy_on_act, spy_on_sample

    def _on_step(self):
        self.events[-1]["prior"] = self.model.prior
        self.events[-1]["beta"] = self.model.beta
        return True

    def _on_gradient_step(self, squared_td_error):
        # Two forward passes per gradient step: target network at s', online network at s
        next_q, q = self.outputs
        batch = {name: getattr(self.batch, name) for name in ("actions", "rewards", "dones", "discounts")}
        batch = {name: None if value is None else value.double().numpy() for name, value in batch.items()}
        self.events.append({"batch": batch, "next_q": next_q, "q": q, "target": self.targets.pop(), "beta": self.model.beta})


def policy_of(q, prior, beta):
    weights = prior * np.exp(beta * (q - q.max()))
    return weights / weights.sum()


def value_of(q, prior, beta):
    peak = q.max(axis=1, keepdims=True)
    return peak + np.log((prior * np.exp(beta * (q - peak))).sum(axis=1, keepdims=True)) / beta


def replay(recorder, regularization, prior_lr, schedule):
    """Walk through the recorded run with nothing but NumPy; yields how much was compared."""
    n_actions, step, gradient_step, beta, epsilon = 2, 0, 0, BETA_INIT, None
    prior = np.full(n_actions, 1 / n_actions)
    for event in recorder.events:
        reference = prior if regularization == "mutual_information" else np.full(n_actions, 1 / n_actions)
        if "actions" in event:
            generator = np.random.RandomState()
            generator.set_state(event["generator"])
            if step < LEARNING_STARTS:
                assert event["q"] == [], "no forward pass in the warm-up"
                action = generator.choice(n_actions, size=1, p=prior)[0]
            else:
                (q,) = event["q"]  # one forward pass
                assert event["epsilon"] == pytest.approx(epsilon)
                policy = policy_of(q[0], reference, beta)
                action = policy.argmax()
                if generator.random_sample(1)[0] < epsilon:
                    action = generator.choice(n_actions, size=1, p=prior)[0]
                prior = (1 - prior_lr) * prior + prior_lr * policy
            assert event["actions"].tolist() == [action]
            step += 1
            if schedule == "linear":
                beta = BETA_INIT + BETA_LR * step
            # ε falls from 1 to 0.2 in the first half
            epsilon = max(0.2, 1.0 - 0.8 * (step / TOTAL) / 0.5)
            np.testing.assert_allclose(event["prior"], prior, atol=1e-7)
        else:
            batch = event["batch"]
            discounts = GAMMA if batch["discounts"] is None else batch["discounts"]
            values = value_of(event["next_q"], reference, beta)
            target = batch["rewards"] + (1 - batch["dones"]) * discounts * values
            np.testing.assert_allclose(event["target"], target, rtol=1e-5, atol=1e-5)
            chosen = np.take_along_axis(event["q"], batch["actions"].astype(int), axis=1)
            if schedule == "adaptive":
                beta = (1 - BETA_LR) * beta + BETA_LR / np.mean((chosen - target) ** 2)
            gradient_step += 1
        assert event["beta"] == pytest.approx(beta, rel=1e-5)
    return step, gradient_step


@pytest.mark.parametrize(
    "algorithm, regularization, prior_lr",
    [(MIRL, "mutual_information", PRIOR_LR), (SQLm, "entropy", PRIOR_LR), (SQL, "entropy", 0.0)],
)
@pytest.mark.parametrize("schedule", ["adaptive", "linear", "constant"])
@pytest.mark.parametrize("train_freq, gradient_steps", [(1, 1), (1, 2), (4, 3), (5, -1)])
def test_run_equals_algorithm_1(algorithm, regularization, prior_lr, schedule, train_freq, gradient_steps, monkeypatch):
    run_and_replay(algorithm, regularization, prior_lr, schedule, train_freq, gradient_steps, monkeypatch)


@pytest.mark.parametrize("extra", [{"loss": "huber"}, {"n_steps": 3}, {"tau": 0.5, "target_update_interval": 1}])
def test_run_equals_algorithm_1_with_huber_n_step_or_tau(extra, monkeypatch):
    run_and_replay(MIRL, "mutual_information", PRIOR_LR, "adaptive", 2, 2, monkeypatch, **extra)


def run_and_replay(algorithm, regularization, prior_lr, schedule, train_freq, gradient_steps, monkeypatch, **extra):
    settings = {"prior_lr": prior_lr} if algorithm is not SQL else {}
    model = algorithm(
        "MlpPolicy",
        "CartPole-v1",
        seed=3,
        gamma=GAMMA,
        learning_rate=1e-2,
        learning_starts=LEARNING_STARTS,
        train_freq=train_freq,
        gradient_steps=gradient_steps,
        batch_size=16,
        buffer_size=1000,
        exploration_fraction=0.5,
        exploration_final_eps=0.2,
        beta_schedule=schedule,
        beta_init=BETA_INIT,
        beta_lr=BETA_LR,
        policy_kwargs={"net_arch": [16]},
        **{"target_update_interval": 10, **settings, **extra},
    )
    recorder = Recorder(monkeypatch)
    model.learn(TOTAL, callback=recorder)
    steps, gradient_steps_seen = replay(recorder, regularization, prior_lr, schedule)
    assert steps == model.num_timesteps == TOTAL
    assert gradient_steps_seen == model._n_updates > 0
