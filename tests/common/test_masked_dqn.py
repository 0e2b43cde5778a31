"""Models with action masks: acting, exploration, target, environments, files."""

import numpy as np
import pytest
import torch as th
from masked import MaskedProbe, MaskInInfo
from models import FAST
from probes import ConstantReward
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.maskable.evaluation import evaluate_policy
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.her import HerReplayBuffer

from sb3_mirl import DQNMSE, MDQN, MIRL, SQL, ActionMaskInfo, BaseDQN, FrameReplayBuffer, PriorInfluenceCallback, SQLm
from sb3_mirl.common.masked_buffers import MASKED_BUFFERS, MaskedReplayBuffer
from sb3_mirl.mirl.policies import MIRLPolicy

ALGORITHMS = [MIRL, SQL, SQLm, BaseDQN, DQNMSE]


def visited(model):
    """The pairs of state and action in a full replay buffer of one-hot observations."""
    buffer = model.replay_buffer
    return set(zip(buffer.observations.argmax(axis=-1).ravel().tolist(), buffer.actions.ravel().tolist(), strict=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("phase", [{"learning_starts": 400}, {"exploration_final_eps": 1.0}], ids=["warm-up", "exploration"])
def test_exactly_the_valid_actions_are_tried(algorithm, phase):
    # An invalid action is an error of the environment. State 0 ends the episode
    model = algorithm("MlpPolicy", MaskedProbe(start=2), **{**FAST, "buffer_size": 400, **phase}).learn(400)
    valid = {(state, action) for state, action in np.argwhere(MaskedProbe().masks).tolist() if state > 0}
    assert visited(model) == valid


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_best_action_is_the_best_valid_one(algorithm):
    kwargs = {**FAST, "exploration_fraction": 0.01, "exploration_final_eps": 0.0}
    model = algorithm("MlpPolicy", MaskedProbe(), **kwargs).learn(60)
    obs, masks = np.eye(5, dtype=np.float32), MaskedProbe().masks
    with th.no_grad():
        q_values = model.q_net(th.as_tensor(obs)).numpy()
    for deterministic in (True, False):
        actions, _ = model.predict(obs, deterministic=deterministic, action_masks=masks)
        assert masks[np.arange(5), actions].all()
        if not isinstance(model, MIRL) or model.regularization == "entropy":
            np.testing.assert_array_equal(actions, np.where(masks, q_values, -np.inf).argmax(axis=1))
        # As MaskablePPO, also a single observation with its mask
        single = [
            model.predict(one, deterministic=deterministic, action_masks=mask)[0] for one, mask in zip(obs, masks, strict=True)
        ]
        assert [action.shape for action in single] == [()] * 5
        np.testing.assert_array_equal(single, actions)


def test_exploration_is_uniform_among_valid_actions():
    model = DQNMSE("MlpPolicy", MaskedProbe(), **FAST)
    model.exploration_rate = 1.0
    masks = np.tile([True, False, True, True], (6000, 1))
    actions, _ = model.predict(np.zeros((6000, 5), np.float32), action_masks=masks)
    counts = np.bincount(actions, minlength=4)
    assert counts[1] == 0 and abs(counts[[0, 2, 3]] - 2000).max() < 5 * np.sqrt(6000 * 2 / 9)


def expected_targets(model, samples, beta=None, prior=None):
    """r + γ max Q(s',·), or γ β⁻¹ log Σ ρ exp(βQ), over the valid actions of the table, in NumPy."""
    with th.no_grad():
        q_values = model.q_net_target(samples.next_observations).double().numpy()
    masks = MaskedProbe().masks[samples.next_observations.argmax(dim=1).numpy()]
    if beta is None:
        values = np.where(masks, q_values, -np.inf).max(axis=1)
    else:
        weights = np.where(masks, prior, 0.0)
        weights = np.where(weights.sum(axis=1, keepdims=True) == 0, masks, weights)
        weights = weights / weights.sum(axis=1, keepdims=True)
        values = np.log((weights * np.exp(beta * q_values)).sum(axis=1)) / beta
    discounts = model.gamma if samples.discounts is None else samples.discounts.double().numpy()[:, 0]
    rewards, dones = samples.rewards.double().numpy()[:, 0], samples.dones.double().numpy()[:, 0]
    return rewards + (1 - dones) * discounts * values


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("algorithm", [DQNMSE, MIRL, SQL])
def test_target_uses_the_valid_actions_of_the_next_state(algorithm, n_steps):
    ours = {"beta_schedule": "constant", "beta_init": 3.0, "loss": "mse"} if issubclass(algorithm, MIRL) else {}
    if algorithm is MIRL:
        ours["prior_init"] = [0.0, 0.2, 0.3, 0.5]  # no mass on the only valid action of some states
    settings = {**FAST, "learning_starts": 200, "gamma": 0.9, "n_steps": n_steps, "learning_rate": 0.0, **ours}
    # Some rows of the table have a single valid action, 0; episodes are truncated
    env = MaskedProbe(length=4)
    model = algorithm("MlpPolicy", env, **settings).learn(200)
    np.random.seed(5)
    samples = model.replay_buffer.sample(64)
    np.random.seed(5)
    model.train(1, batch_size=64)
    targets = expected_targets(model, samples, getattr(model, "beta", None), getattr(model, "prior", None))
    with th.no_grad():
        q_values = model.q_net(samples.observations).gather(1, samples.actions.long()).double().numpy()[:, 0]
    assert model.logger.name_to_value["train/loss"] == pytest.approx(((q_values - targets) ** 2).mean(), rel=1e-5)
    buffer = model.replay_buffer
    assert buffer.timeouts[: buffer.pos].any() and (buffer.dones > buffer.timeouts)[: buffer.pos].any()


@pytest.mark.parametrize("algorithm", [DQNMSE, MIRL])
def test_compiled_gradient_step_uses_masks(algorithm):
    models, losses = [], []
    for compiled in (False, True):
        models.append(algorithm("MlpPolicy", MaskedProbe(), **FAST, loss="mse", compile_update=compiled).learn(40))
        losses.append(models[-1].logger.name_to_value["train/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for plain, compiled in zip(models[0].policy.parameters(), models[1].policy.parameters(), strict=True):
        th.testing.assert_close(plain, compiled, rtol=1e-3, atol=1e-5)


def test_kl_is_that_of_the_latest_acting():
    env = make_vec_env(MaskedProbe, 3, seed=0, wrapper_class=ActionMaskInfo)
    acted_on = []
    model = MIRL("MlpPolicy", env, **FAST, train_freq=1, beta_schedule="constant", beta_init=2.0, prior_lr=0.0)
    model.learn(
        60, callback=lambda local, _: acted_on.append(local["self"]._last_obs.argmax(axis=1)) or True, log_interval=999
    )
    masks = MaskedProbe().masks[acted_on[-1]]
    prior = masks / masks.sum(axis=1, keepdims=True)
    policy = model.rollout_action_probabilities.numpy()
    assert (policy[~masks] == 0).all() and (masks.sum(axis=1) > 1).any()
    kl = np.where(masks, policy * np.log(np.where(masks, policy / np.where(masks, prior, 1), 1)), 0).sum(axis=1).mean()
    assert model.logger.name_to_value["train/kl"] == pytest.approx(kl, rel=1e-6) and kl > 0


def test_several_environments_and_dict_observations():
    env = make_vec_env(lambda: MaskedProbe(observation="dict"), 3, seed=0, wrapper_class=ActionMaskInfo)
    model = MIRL("MultiInputPolicy", env, **FAST).learn(150)
    masks = model.get_action_masks()
    assert masks.dtype == bool and masks.shape == (3, 4)
    np.testing.assert_array_equal(masks, MaskedProbe().masks[model._last_obs["state"].ravel()])


def test_masks_from_the_info():
    model = MIRL("MlpPolicy", ActionMaskInfo(MaskInInfo(MaskedProbe()), info_key="action_mask"), **FAST).learn(200)
    assert isinstance(model.replay_buffer, MaskedReplayBuffer)


def test_without_masks_nothing_is_stored():
    model = DQNMSE("MlpPolicy", ConstantReward(), **FAST)
    assert type(model.replay_buffer) is ReplayBuffer and model.get_action_masks() is None


@pytest.mark.parametrize("algorithm", [MIRL, DQNMSE])
def test_masks_that_are_missing_or_wrong(algorithm):
    model = algorithm("MlpPolicy", MaskedProbe(), **FAST)
    obs = np.eye(5, dtype=np.float32)[:2]
    with pytest.raises(ValueError, match=r"action_masks must say which actions are valid, bool \[batch, 4\].*got None"):
        model.predict(obs)
    with pytest.raises(ValueError, match=r"of shape \(2, 4\), got shape \(3, 4\)"):
        model.predict(obs, action_masks=np.ones((3, 4), bool))
    with pytest.raises(ValueError, match=r"of shape \(1, 4\), got shape \(1, 3\)"):
        model.predict(obs[0], action_masks=np.ones(3, bool))
    with pytest.raises(ValueError, match="at least one valid action"):
        model.predict(obs, deterministic=True, action_masks=np.zeros((2, 4), bool))


def test_model_without_masks_may_be_given_some():
    model = DQNMSE("MlpPolicy", ConstantReward(n_actions=3), **FAST)
    actions, _ = model.predict(
        np.zeros((4, 3), np.float32), deterministic=True, action_masks=np.eye(3, dtype=bool)[[2, 0, 1, 2]]
    )
    assert actions.tolist() == [2, 0, 1, 2]


def test_environment_of_another_kind_is_refused(tmp_path):
    model = MIRL("MlpPolicy", MaskedProbe(), **FAST)
    bare = MaskInInfo(MaskedProbe())
    with pytest.raises(ValueError, match=r"env must be with action masks .*got .* without them"):
        model.set_env(bare)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match="env must be with action masks"):
        MIRL.load(tmp_path / "model", bare)
    assert MIRL.load(tmp_path / "model").uses_action_masks
    model.set_env(MaskedProbe())
    model.learn(60)
    with pytest.raises(ValueError, match=r"env must be without action masks .*got .* with them"):
        MIRL("MlpPolicy", bare, **FAST).set_env(MaskedProbe())
    with pytest.raises(ValueError, match=r"wrapper_class=sb3_mirl.ActionMaskInfo"):
        MIRL("MlpPolicy", DummyVecEnv([MaskedProbe]), **FAST)


def test_buffers_that_store_no_masks_are_refused():
    class Own(ReplayBuffer):
        pass

    for settings in ({"replay_buffer_class": Own}, {"replay_buffer_class": HerReplayBuffer}):
        name = settings["replay_buffer_class"].__name__
        with pytest.raises(ValueError, match=f"replay_buffer_class must be None, one of .*'FrameReplayBuffer'.*got {name}"):
            MIRL("MlpPolicy", MaskedProbe(), **FAST, **settings)
    settings = {"optimize_memory_usage": True, "replay_buffer_kwargs": {"handle_timeout_termination": False}}
    with pytest.raises(ValueError, match=r"optimize_memory_usage must be False .*masks, got True"):
        MIRL("MlpPolicy", MaskedProbe(), **FAST, **settings)
    model = DQNMSE("MlpPolicy", MaskedProbe(), **FAST).learn(40)
    model.replay_buffer = DQNMSE("MlpPolicy", MaskInInfo(MaskedProbe()), **FAST).replay_buffer
    model.replay_buffer.pos = 10
    with pytest.raises(ValueError, match=r"replay_buffer must be one of .*'MaskedReplayBuffer'.*got ReplayBuffer"):
        model.train(1)


def test_a_buffer_of_the_users_may_store_masks_itself():
    class Own(MaskedReplayBuffer):
        pass

    for kind in (Own, MaskedReplayBuffer):
        model = DQNMSE("MlpPolicy", MaskedProbe(), **FAST, replay_buffer_class=kind).learn(40)
        assert type(model.replay_buffer) is kind and model.replay_buffer.next_action_masks[:40].any()


def test_chosen_buffer_gets_masks():
    image = {"features_extractor_kwargs": {"features_dim": 8}}
    settings = {**FAST, "policy_kwargs": image, "replay_buffer_class": FrameReplayBuffer}
    model = DQNMSE("CnnPolicy", MaskedProbe(observation="image"), **settings).learn(30)
    assert type(model.replay_buffer) is MASKED_BUFFERS[FrameReplayBuffer] and model.replay_buffer_class is FrameReplayBuffer


def test_replay_buffer_file(tmp_path):
    model = DQNMSE("MlpPolicy", MaskedProbe(), **FAST).learn(50)
    model.save_replay_buffer(tmp_path / "buffer")
    other = DQNMSE("MlpPolicy", MaskedProbe(), **FAST)
    other.load_replay_buffer(tmp_path / "buffer")
    np.testing.assert_array_equal(other.replay_buffer.next_action_masks, model.replay_buffer.next_action_masks)
    without = DQNMSE("MlpPolicy", MaskInInfo(MaskedProbe()), **FAST)
    before = without.replay_buffer
    with pytest.raises(ValueError, match="replay buffer without action masks, got a MaskedReplayBuffer"):
        without.load_replay_buffer(tmp_path / "buffer")
    assert without.replay_buffer is before


def test_what_has_no_masks_says_so():
    with pytest.raises(ValueError, match="MDQN"):
        MDQN("MlpPolicy", MaskedProbe(), **FAST)
    with pytest.raises(ValueError, match=r"PriorInfluenceCallback .*without action masks"):
        MIRL("MlpPolicy", MaskedProbe(), **FAST).learn(10, PriorInfluenceCallback())


@pytest.mark.parametrize("algorithm", [MIRL, DQNMSE])
def test_evaluation_of_sb3_contrib(algorithm, tmp_path):
    model = algorithm("MlpPolicy", MaskedProbe(), **FAST)
    env = make_vec_env(MaskedProbe, 2, seed=0)
    callback = MaskableEvalCallback(env, eval_freq=50, n_eval_episodes=4, log_path=str(tmp_path), verbose=0)
    model.learn(100, callback)
    assert np.load(tmp_path / "evaluations.npz")["results"].shape == (2, 4)
    for deterministic in (True, False):
        returns, lengths = evaluate_policy(model, env, 6, deterministic=deterministic, return_episode_rewards=True)
        assert len(returns) == 6 and max(lengths) <= 7
    # Without masks it is an error, not a guess
    with pytest.raises(ValueError, match="evaluate_policy and MaskableEvalCallback in sb3_contrib"):
        model.learn(60, EvalCallback(env, eval_freq=10, verbose=0))


@pytest.mark.parametrize("algorithm", [MIRL, DQNMSE])
def test_files_keep_that_there_are_masks(algorithm, tmp_path):
    model = algorithm("MlpPolicy", MaskedProbe(), **FAST).learn(60)
    model.save(tmp_path / "model")
    model.export(tmp_path / "model.safetensors")
    obs, masks = np.eye(5, dtype=np.float32), MaskedProbe().masks
    for loaded in (
        algorithm.load(tmp_path / "model"),
        algorithm.load_exported(tmp_path / "model.safetensors"),
        algorithm.load(tmp_path / "model", MaskedProbe()),
        algorithm.load_exported(tmp_path / "model.safetensors", MaskedProbe()),
    ):
        with pytest.raises(ValueError, match="got None"):
            loaded.predict(obs)
        expected, _ = model.predict(obs, deterministic=True, action_masks=masks)
        np.testing.assert_array_equal(loaded.predict(obs, deterministic=True, action_masks=masks)[0], expected)
        if loaded.env is not None:
            loaded.learn(30)
    with pytest.raises(ValueError, match="env must be with action masks"):
        algorithm.load_exported(tmp_path / "model.safetensors", MaskInInfo(MaskedProbe()))


def test_an_observation_with_its_info_is_refused():
    model = DQNMSE("MlpPolicy", MaskedProbe(), **FAST)
    with pytest.raises(ValueError, match=r"observation must be an array or a dict of arrays, got a tuple"):
        model.predict(MaskedProbe().reset(), action_masks=MaskedProbe().action_masks())


def test_predict_with_the_masks_of_an_environment():
    env = ActionMaskInfo(MaskedProbe())
    model = MIRL("MlpPolicy", env, **FAST).learn(40)
    obs, _ = env.reset(seed=1)
    action, _ = model.predict(obs, deterministic=True, action_masks=get_action_masks(env))
    env.step(action)


@pytest.mark.parametrize("algorithm", [MIRL, DQNMSE])
def test_public_methods_of_the_policy_need_masks(algorithm, tmp_path):
    model = algorithm("MlpPolicy", MaskedProbe(), buffer_size=50)
    model.policy.save(tmp_path / "policy.pth")
    policy = type(model.policy).load(tmp_path / "policy.pth")
    obs = np.eye(5, dtype=np.float32)
    calls = [lambda: policy.predict(obs), lambda: model.predict(obs)]
    if algorithm is MIRL:
        calls += [
            lambda: policy.sample_policy(obs),
            lambda: policy.action_probabilities(obs),
            lambda: policy.sample_prior((5,)),
        ]
    for call in calls:
        with pytest.raises(ValueError, match="action_masks must say which actions are valid"):
            call()


def test_a_policy_that_ignores_masks_is_named():
    class First(MIRLPolicy):
        def _predict(self, obs, deterministic=True):
            return th.zeros(len(obs), dtype=th.int64)

    env = MaskedProbe()
    env.masks[:, 0] = False
    env.masks[:, 1] = True
    model = MIRL(First, env, learning_starts=0, buffer_size=50, exploration_fraction=0.1)
    with pytest.raises(ValueError, match=r"First\._predict must choose valid actions"):
        model.learn(50)


def test_a_subclass_keeps_its_prior_among_the_valid_actions():
    class Own(MIRL):
        def loss_coefficients(self):
            return th.tensor([0.7, 0.1, 0.1, 0.1], dtype=th.float64), self.policy.beta

    model = Own("MlpPolicy", MaskedProbe(), learning_starts=20, buffer_size=50).learn(40)
    seen, gradient = [], model._compute_gradient
    model._compute_gradient = lambda data, discounts, prior, *more: (
        seen.append((data, prior)) or gradient(data, discounts, prior, *more)
    )
    model.train(1)
    ((data, prior),) = seen
    weights = data.next_action_masks.numpy() * np.array([0.7, 0.1, 0.1, 0.1])
    assert prior.numpy() == pytest.approx(weights / weights.sum(axis=1, keepdims=True))


def test_policies_that_know_nothing_of_masks_explore_as_before():
    class Own(MIRLPolicy):
        def sample_prior(self, shape, random=np.random):
            return super().sample_prior(shape, random)

        def explore(self, actions, epsilon):
            return super().explore(actions, epsilon)

    model = MIRL(Own, ConstantReward(), learning_starts=10, buffer_size=50, seed=0).learn(40)
    other = MIRL("MlpPolicy", ConstantReward(), learning_starts=10, buffer_size=50, seed=0).learn(40)
    for ours, theirs in zip(model.policy.parameters(), other.policy.parameters(), strict=True):
        assert th.equal(ours, theirs)
