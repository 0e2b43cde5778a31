"""MIRL's own arguments: the paper's names and values, and what is refused."""

from pathlib import Path

import pytest
import yaml
from probes import TwoArms
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.torch_layers import FlattenExtractor

from sb3_mirl import MIRL, SQL, SQLDecoupled, SQLm
from sb3_mirl.mirl.arguments import PAPER_ATARI


def test_variants_differ_in_prior_lr_and_regularization():
    env = TwoArms()
    assert (MIRL("MlpPolicy", env).prior_lr, MIRL("MlpPolicy", env).regularization) == ("auto", "mutual_information")
    assert (SQL("MlpPolicy", env).prior_lr, SQL("MlpPolicy", env).regularization) == (0.0, "entropy")
    assert (SQLm("MlpPolicy", env).prior_lr, SQLm("MlpPolicy", env).regularization) == ("auto", "entropy")


def test_the_papers_atari_values_are_a_constant_and_the_zoos():
    model = MIRL("MlpPolicy", TwoArms(), **{**PAPER_ATARI, "buffer_size": 100})
    assert (model.prior_step_size, model.beta_step_size, model.beta_schedule) == (2e-6, 3.3e-6, "adaptive")
    zoo = yaml.safe_load((Path(__file__).parents[2] / "hyperparams" / "mirl.yml").read_text())["atari"]
    assert {name: zoo[name] for name in PAPER_ATARI} == PAPER_ATARI


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"prior_lr": -1}, r"prior_lr must be 'auto' or a number in \[0, 1\], got -1"),
        ({"prior_lr": 1.5}, r"prior_lr .*got 1.5"),
        ({"prior_lr": float("nan")}, r"prior_lr .*got nan"),
        ({"prior_lr": "2e-6"}, r"prior_lr must be 'auto' or a number .*got '2e-6'"),
        ({"prior_init": [1.0]}, r"prior_init must be 4 non-negative numbers that sum to 1, got \[1.0\] \(shape \(1,\)"),
        ({"prior_init": [0.5, 0.5, 0.5, 0.5]}, r"prior_init .*sum 2"),
        ({"prior_init": [1.5, -0.5, 0.0, 0.0]}, r"prior_init .*non-negative"),
        ({"prior_init": [float("nan")] * 4}, r"prior_init .*sum nan"),
        ({"prior_init": "uniform"}, r"prior_init must be 4 non-negative numbers that sum to 1, got 'uniform'"),
        (
            {"beta_schedule": "cosine"},
            r"beta_schedule must be one of \('normalized', 'adaptive', 'linear', 'constant'\), got 'cosine'",
        ),
        ({"beta_init": -0.1}, r"beta_init .*got -0.1"),
        ({"beta_init": float("inf")}, r"beta_init must be a finite number >= 0, got inf"),
        ({"beta_init": float("inf"), "beta_max": float("inf")}, r"beta_init .*got inf"),
        ({"beta_init": 5.0, "beta_max": 1.0}, r"beta_init must be at most beta_max, got 5.0 and beta_max=1.0"),
        ({"beta_lr": 2.0}, r"beta_lr must be 'auto' or a number in \[0, 1\], got 2.0"),
        ({"beta_lr": -1.0, "beta_schedule": "linear"}, r"beta_lr .*got -1.0"),
        ({"beta_schedule": "linear"}, r"beta_lr must be a number >= 0 with beta_schedule='linear', got 'auto'"),
        ({"beta_scale": 0.0}, r"beta_scale must be a finite number > 0, got 0.0"),
        ({"reference_n_actions": 1}, r"reference_n_actions must be an integer >= 2, got 1"),
        ({"beta_max": -1.0}, r"beta_max .*got -1.0"),
        ({"loss": "l1"}, r"loss must be one of \('mse', 'huber'\), got 'l1'"),
        ({"regularization": "none"}, r"regularization must be one of .*got 'none'"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MIRL("MlpPolicy", TwoArms(n_actions=4), **arguments)


@pytest.mark.parametrize("algorithm", [SQL, SQLDecoupled])
def test_sql_has_no_priors_that_see_something(algorithm):
    with pytest.raises(ValueError, match=f"prior_type must be 'marginal' for {algorithm.__name__}, got 'conditional': use "):
        algorithm("MlpPolicy", TwoArms(), prior_type="conditional", prior_observation=[0])


@pytest.mark.parametrize("policy_kwargs", [{}, {"features_extractor_class": FlattenExtractor}])
def test_policy_for_dict_observations(policy_kwargs):
    if policy_kwargs:
        MIRL("MultiInputPolicy", TwoArms(), policy_kwargs=policy_kwargs)
        return
    with pytest.raises(ValueError, match=r"policy must be 'MlpPolicy' or 'CnnPolicy' unless .*got 'MultiInputPolicy' with "):
        MIRL("MultiInputPolicy", TwoArms())


def test_wrong_arguments_are_named_when_loading(tmp_path):
    MIRL("MlpPolicy", TwoArms()).save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"prior_lr .*got 3"):
        MIRL.load(tmp_path / "model.zip", prior_lr=3)


@pytest.mark.parametrize("raised", [AssertionError, ValueError])  # SB3 raises the first
def test_continuous_action_space_is_refused(raised):
    with pytest.raises(raised, match=r"action_space must be Discrete, got Box"):
        MIRL("MlpPolicy", "Pendulum-v1")


def test_policies_and_files_of_other_algorithms_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"policy must be one of \['CnnPolicy', 'MlpPolicy', 'MultiInputPolicy'\] or"):
        MIRL(DQN.policy_aliases["MlpPolicy"], TwoArms())
    for other in (DQN("MlpPolicy", TwoArms(), buffer_size=10), PPO("MlpPolicy", TwoArms())):
        other.save(tmp_path / "other.zip")
        with pytest.raises(ValueError, match="the file was saved by another algorithm than MIRL"):
            MIRL.load(tmp_path / "other.zip")
    SQL("MlpPolicy", TwoArms()).save(tmp_path / "sql.zip")
    with pytest.raises(ValueError, match=r"saved by SQL: load it with SQL\.load"):
        MIRL.load(tmp_path / "sql.zip")


def test_load_refuses_another_number_of_actions(tmp_path):
    MIRL("MlpPolicy", TwoArms(n_actions=4)).save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"Action spaces do not match: Discrete\(4\) != Discrete\(3\)"):
        MIRL.load(tmp_path / "model.zip", env=TwoArms(n_actions=3))
    with pytest.raises(RuntimeError, match="size mismatch for prior"):
        MIRL("MlpPolicy", TwoArms(n_actions=3)).set_parameters(str(tmp_path / "model.zip"))
