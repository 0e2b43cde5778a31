"""What cannot be trained together is refused, by name."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from joint_runs import SETTINGS
from masked import MaskedProbe
from probes import ConstantReward
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

from sb3_mirl import DQNMSE, MIRL, GradientStepCallback, train_jointly
from sb3_mirl.joint.compatibility import check_models, give_seeds
from sb3_mirl.mirl.policies import MIRLPolicy


def make(algorithm=MIRL, env="CartPole-v1", policy="MlpPolicy", **settings):
    return algorithm(policy, env, **{**SETTINGS, "seed": 0, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"env": "Acrobot-v1"}, "observation_space"),
        ({"env": ConstantReward(observation_space=gym.make("CartPole-v1").observation_space, n_actions=3)}, "action_space"),
        ({"env": make_vec_env("CartPole-v1", 2)}, "n_envs .*1 in model 0 and 2 in model 1"),
        ({"policy_kwargs": {"net_arch": [31]}}, "network"),
        ({"policy_kwargs": {"net_arch": [32], "activation_fn": th.nn.Tanh}}, "network"),
        ({"policy_kwargs": {"net_arch": [32], "optimizer_class": th.optim.SGD}}, "optimizer .*'Adam' in model 0 and 'SGD'"),
        ({"policy_kwargs": {"net_arch": [32], "optimizer_kwargs": {"eps": 1e-3}}}, "optimizer_kwargs"),
        ({"loss": "huber"}, "loss .*'mse' in model 0 and 'huber' in model 1"),
        ({"batch_size": 8}, "batch_size .*16 in model 0 and 8 in model 1"),
        ({"train_freq": 4}, "train_freq"),
        ({"gradient_steps": 2}, "gradient_steps"),
        ({"learning_starts": 51}, "learning_starts"),
        ({"tau": 0.5}, "tau"),
        ({"target_update_interval": 61}, "target_update_interval"),
        ({"n_steps": 2}, "n_steps"),
        ({"buffer_size": 301}, "buffer_size"),
        ({"compile_update": True}, "compile_update .*False in model 0 and True"),
        ({"mixed_precision": True}, "mixed_precision"),
        ({"policy_kwargs": {"net_arch": [32], "normalize_images": False}}, "attributes of the policy's network"),
        ({"replay_buffer_kwargs": {"handle_timeout_termination": False}}, "handle_timeout_termination"),
    ],
)
def test_disagreement_names_both_values(settings, message):
    with pytest.raises(ValueError, match=f"models must agree in .*{message}"):
        train_jointly([make(), make(**settings)], 100)


class Scaled(BaseFeaturesExtractor):
    def __init__(self, observation_space, gain):
        super().__init__(observation_space, 4)
        self._gain = gain

    def forward(self, observations):
        return self._gain * observations


def scaled_by(gain):
    class Scaling(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 4)

        def forward(self, observations):
            return gain * observations

    return {"features_extractor_class": Scaling}


def test_networks_that_compute_something_else_are_refused():
    gains = [{"features_extractor_class": Scaled, "features_extractor_kwargs": {"gain": gain}} for gain in (1.0, 2.0)]
    check_models([make(policy_kwargs=gains[0]), make(policy_kwargs=gains[0])])
    for kinds in (gains, [scaled_by(1.0), scaled_by(2.0)]):
        with pytest.raises(ValueError, match="models must agree in attributes of the policy's network"):
            check_models([make(policy_kwargs=kwargs) for kwargs in kinds])


class WeightNorm(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 8)
        self.layer = th.nn.utils.parametrizations.weight_norm(th.nn.Linear(4, 8))

    def forward(self, observations):
        return self.layer(observations)


def test_parametrised_layers_agree():
    policy_kwargs = {"net_arch": [8], "features_extractor_class": WeightNorm}
    assert train_jointly([make(policy_kwargs=policy_kwargs) for _ in range(2)], 60) == [None, None]


class Recurrent(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, 8)
        self.layer = th.nn.GRU(4, 8)

    def forward(self, observations):
        return self.layer(observations.unsqueeze(0))[0].squeeze(0)


def test_recurrent_layers_are_compared():
    policy_kwargs = {"net_arch": [8], "features_extractor_class": Recurrent}
    check_models([make(policy_kwargs=policy_kwargs, seed=seed) for seed in range(2)])


def test_action_masks_are_refused():
    with pytest.raises(ValueError, match=r"does not support action masks, which model 0, MIRL, uses: train it with learn\(\)"):
        train_jointly([make(env=MaskedProbe()), make(env=MaskedProbe())], 100)


@pytest.mark.parametrize(
    "settings",
    [
        {"prior_type": "conditional", "prior_observation": [0]},
        {"prior_type": "skills", "prior_observation": {"high": None, "low": None}, "n_skills": 2},
    ],
)
def test_priors_that_see_something_are_refused(settings):
    with pytest.raises(ValueError, match=f"prior_type must be 'marginal' in joint training, got {settings['prior_type']!r}"):
        check_models([make(), make(**settings)])


def test_what_may_differ():
    check_models(
        [
            make(),
            make(DQNMSE, seed=1, gamma=0.5, learning_rate=1e-2, exploration_fraction=0.7, exploration_initial_eps=0.9),
            make(prior_lr=0.1, beta_schedule="constant", beta_init=3.0, regularization="entropy", prior_init=[0.2, 0.8]),
            make(max_grad_norm=1, beta_scale=4.0, beta_max=5.0, verbose=1, stats_window_size=7),
        ]
    )


def test_one_environment_or_model_in_two_places():
    model = make()
    with pytest.raises(ValueError, match="different objects, got one twice"):
        train_jointly([model, model], 100)
    other = make()
    other.set_env(model.env)
    with pytest.raises(ValueError, match="environments of their own, got one in two models"):
        train_jointly([model, other], 100)
    env = gym.make("CartPole-v1")
    with pytest.raises(ValueError, match="environments of their own, got one in two models"):
        train_jointly([make(env=env), make(env=env)], 100)
    other = make()
    other.replay_buffer = model.replay_buffer
    with pytest.raises(ValueError, match="replay buffers of their own"):
        train_jointly([model, other], 100)


def test_no_models_and_foreign_models():
    with pytest.raises(ValueError, match="at least one model"):
        train_jointly([], 100)
    with pytest.raises(TypeError, match="models must be a list of models, got the MIRL"):
        train_jointly(make(), 100)
    with pytest.raises(TypeError, match=r"of sb3_mirl \(.*\), got DQN in model 1"):
        train_jointly([make(), DQN("MlpPolicy", "CartPole-v1")], 100)


def test_model_without_environment(tmp_path):
    make().save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"model 0, MIRL, has none: set_env\(\)"):
        train_jointly([MIRL.load(tmp_path / "model")], 100)


def test_rollouts_of_episodes():
    with pytest.raises(ValueError, match="train_freq must count steps in joint training"):
        train_jointly([make(train_freq=(1, "episode"))], 100)


class OwnActing(MIRL):
    def predict(self, *args, **kwargs):
        return super().predict(*args, **kwargs)


class OwnTraining(DQNMSE):
    def train(self, gradient_steps, batch_size=100):
        super().train(gradient_steps, batch_size)


class OwnPolicy(MIRLPolicy):
    def explore(self, actions, epsilon):
        return actions


class OwnPrior(MIRLPolicy):
    @property
    def reference_prior(self):
        return self.prior


class OwnRate(MIRL):
    @property
    def prior_step_size(self):
        return 0.1


class OwnCoefficients(MIRL):
    def loss_coefficients(self):
        prior, beta = super().loss_coefficients()
        return prior, 2 * beta


def with_attribute():
    model = make()
    model.train = lambda *arguments: None
    return model


def with_hook():
    model = make()
    model.policy.optimizer.register_step_post_hook(lambda *arguments: None)
    return model


def with_one_layer():
    model = make()
    model.q_net_target.q_net[0] = model.q_net.q_net[0]
    return model


class OwnCallbacks(MIRL):
    default_callbacks = (GradientStepCallback,)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: make(OwnActing), "does not use predict, but model 0, OwnActing, has OwnActing.predict of its own"),
        (lambda: make(OwnTraining), r"has OwnTraining.train of its own: train it with learn\(\)"),
        (lambda: make(policy=OwnPolicy), "has OwnPolicy.explore of its own"),
        (lambda: make(policy=OwnPrior), "does not use reference_prior, but model 0, MIRL, has OwnPrior.reference_prior"),
        (lambda: make(OwnRate), "does not use prior_step_size"),
        (lambda: make(OwnCoefficients), "does not use loss_coefficients, but model 0, OwnCoefficients, has"),
        (with_attribute, "does not use train, but model 0, MIRL, has MIRL.train of its own"),
        (with_hook, "optimisers without hooks, got some in model 0"),
        (with_one_layer, "a target network with parameters of its own"),
        (lambda: make(OwnCallbacks), "model 0, OwnCallbacks, has others"),
    ],
)
def test_subclasses_that_act_or_learn_in_their_own_way(model, message):
    with pytest.raises(ValueError, match=message):
        train_jointly([model()], 100)


class OwnLoss(DQNMSE):
    """A subclass may have a loss of its own, which is a pure function."""

    @staticmethod
    def batch_loss(q_values, next_q_values, actions, rewards, dones, discounts, loss="mse"):
        chosen = th.gather(q_values, 1, actions.long())
        error = (chosen - rewards).square().mean()
        return error, error


def test_subclasses_with_a_loss_of_their_own():
    alone = make(OwnLoss).learn(150)
    joint = [make(OwnLoss), make(DQNMSE)]
    train_jointly(joint, 150)
    for one, other in zip(alone.q_net.parameters(), joint[0].q_net.parameters(), strict=True):
        th.testing.assert_close(one, other)
    assert not th.equal(next(joint[0].q_net.parameters()), next(joint[1].q_net.parameters()))


@pytest.mark.parametrize(
    ("layer", "message"),
    [(th.nn.Dropout(0.5), "Joint training needs a network without random numbers"), (th.nn.BatchNorm1d(4), "buffers")],
)
def test_networks_with_random_numbers_or_statistics(layer, message):
    model = make()
    model.q_net.q_net.insert(0, layer)
    with pytest.raises(ValueError, match=message):
        train_jointly([model], 100)


def test_other_optimisers():
    with pytest.raises(ValueError, match=r"torch's optimisers Adam, AdamW, RMSprop, SGD, .* got Adagrad"):
        train_jointly([make(policy_kwargs={"net_arch": [8], "optimizer_class": th.optim.Adagrad})], 100)


def test_seeds_are_given_to_those_without(capsys):
    models = [make(seed=None), make(seed=7)]
    give_seeds(models)
    assert f"model 0, MIRL, the seed {models[0].seed}" in capsys.readouterr().out and models[1].seed == 7
    state = np.random.RandomState(models[0].seed).get_state(legacy=False)
    np.testing.assert_array_equal(models[0].random_state["state"]["key"], state["state"]["key"])
