"""Constructors show the arguments that they pass on, and name misspelt ones."""

import inspect

import pytest
from probes import ConstantReward

from sb3_mirl import MDQN, MIRL, SQL, BaseDQN


class WithOwnArgument(MIRL):
    """A user's."""

    def __init__(self, *args, patience=3, **kwargs):
        self.patience = kwargs.pop("impatience", patience)
        super().__init__(*args, **kwargs)


@pytest.mark.parametrize("cls", [BaseDQN, MIRL, SQL, MDQN, WithOwnArgument])
def test_misspelt_arguments_get_the_nearest_name(cls):
    def refused(**arguments):
        with pytest.raises(TypeError) as error:
            cls("MlpPolicy", "CartPole-v1", **arguments)
        return str(error.value)

    named = f"{cls.__name__}() got an unexpected keyword argument"
    assert refused(lerning_rate=1e-3) == f"{named} 'lerning_rate', did you mean 'learning_rate'?"
    assert refused(zzzz=1) == f"{named} 'zzzz': help({cls.__name__}) shows those that it has"
    if issubclass(cls, MIRL):
        assert refused(beta_shedule="linear") == f"{named} 'beta_shedule', did you mean 'beta_schedule'?"
    if cls is WithOwnArgument:
        assert cls("MlpPolicy", "CartPole-v1", impatience=5, buffer_size=10).patience == 5
    assert "unknown" not in inspect.signature(cls).parameters


def test_signatures_show_the_arguments_that_are_passed_on():
    class Mine(SQL):
        def __init__(self, *args, patience=3, **kwargs):
            super().__init__(*args, **kwargs)

    parameters = inspect.signature(Mine).parameters
    assert [*parameters][:3] == ["policy", "env", "learning_rate"] and parameters["patience"].default == 3
    assert (parameters["prior_lr"].default, parameters["beta_scale"].default) == (0.0, 30.0)
    assert not {"args", "kwargs", "self"} & parameters.keys()


def test_signatures_of_subclasses_with_own_positional_arguments():
    class Required(MIRL):
        def __init__(self, policy, env, bonus, **kwargs):
            super().__init__(policy, env, **kwargs)

    class Reordered(MIRL):
        def __init__(self, env, policy="MlpPolicy", **kwargs):
            super().__init__(policy, env, **kwargs)

    class Complete(BaseDQN):
        def __init__(self, env):
            super().__init__("MlpPolicy", env)

    required, reordered = (inspect.signature(cls).parameters for cls in (Required, Reordered))
    assert [*required][:3] == ["policy", "env", "bonus"] and [*reordered][:2] == ["env", "policy"]
    assert required["learning_rate"].kind is reordered["gamma"].kind is inspect.Parameter.KEYWORD_ONLY
    assert [*inspect.signature(Complete).parameters] == ["env"]
    Required("MlpPolicy", ConstantReward(), 1.0, buffer_size=10)


def test_signatures_of_subclasses_with_own_defaults():
    class Chosen(MIRL):
        def __init__(self, policy="MlpPolicy", *args, **kwargs):
            super().__init__(policy, *args, **kwargs)

    parameters = inspect.signature(Chosen).parameters
    assert parameters["policy"].default == "MlpPolicy" and parameters["env"].kind is inspect.Parameter.KEYWORD_ONLY
    assert Chosen(env=ConstantReward(), buffer_size=10).policy_class.__name__ == "MIRLPolicy"
