"""Views of the observation: what x is, and what is refused."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_mirl.mirl.views import View, describe_view, resolve_view

PLACE = spaces.Dict(
    {
        "room": spaces.Discrete(4),
        "cell": spaces.MultiDiscrete([3, 5]),
        "speed": spaces.Box(-1, 1, (2,), np.float32),
        "image": spaces.Box(0, 255, (2, 2, 1), np.uint8),
    }
)
VECTOR = spaces.Box(-1, 1, (4,), np.float32)
PLACES = {
    "room": th.tensor([[3], [0]]),
    "cell": th.tensor([[2, 4], [1, 0]]),
    "speed": th.tensor([[0.5, -0.5], [0.25, 1.0]]),
    "image": th.full((2, 2, 2, 1), 255, dtype=th.uint8),
}


def view(given, space, n_values=None):
    return View("prior_observation", resolve_view("prior_observation", given, space), space, n_values)


@pytest.mark.parametrize(
    "given, n_values, x",
    [
        ("room", 4, [3, 0]),
        (["cell"], 15, [2 * 5 + 4, 1 * 5 + 0]),
        (["room", "cell"], 60, [3 * 15 + 14, 5]),
        (None, 1, [0, 0]),
    ],
)
def test_entries_with_categories_are_one_discrete_view(given, n_values, x):
    discrete = view(given, PLACE)
    assert (discrete.n_values, discrete.n_features) == (n_values, None)
    assert discrete(PLACES).tolist() == x and discrete(PLACES).dtype == th.int64


def test_other_entries_are_preprocessed_as_for_a_network():
    continuous = view(["speed", "room", "image"], PLACE)
    assert (continuous.n_values, continuous.n_features) == (None, 2 + 4 + 4)
    one_hot, image = [[0, 0, 0, 1], [1, 0, 0, 0]], [[1.0] * 4] * 2
    assert continuous(PLACES).tolist() == np.hstack([PLACES["speed"], one_hot, image]).tolist()


@pytest.mark.parametrize("given", [slice(1, 3), [1, 2], np.array([1, 2]), (1, 2)])
def test_parts_of_a_vector(given):
    assert resolve_view("x", given, VECTOR) == [1, 2]
    assert view(given, VECTOR)(th.tensor([[0.0, 0.25, 0.5, 1.0]])).tolist() == [[0.25, 0.5]]


def test_the_whole_observation():
    assert view("all", spaces.Discrete(7))(th.tensor([6, 2])).tolist() == [6, 2]
    assert view("all", VECTOR).n_features == 4
    digits = spaces.MultiDiscrete([2, 3, 4])
    assert view("all", digits).n_values == 24 and view([2, 0], digits)(th.tensor([[1, 2, 3]])).tolist() == [3 * 2 + 1]


def test_functions():
    signs = view(lambda obs: (obs > 0).long()[:, 0], VECTOR, n_values=2)
    assert signs.n_values == 2 and signs(th.tensor([[0.5, 0, 0, 0], [-0.5, 0, 0, 0]])).tolist() == [1, 0]
    squares = view(lambda obs: obs[:, :2].square().unsqueeze(2), VECTOR)
    assert squares.n_features == 2 and squares(th.full((1, 4), 0.5)).tolist() == [[0.25, 0.25]]
    assert view(th.nn.Linear(4, 3), VECTOR).n_features == 3
    # SB3's replay buffer gives Discrete observations an axis
    assert view(lambda obs: obs // 2, spaces.Discrete(4), n_values=2)(th.tensor([[3], [1]])).tolist() == [1, 0]
    assert view(lambda obs: obs["room"], PLACE, n_values=4)(PLACES).tolist() == [3, 0]


def test_trying_a_function_draws_no_random_numbers():
    space = spaces.Box(-1, 1, (4,), np.float32, seed=3)
    expected = spaces.Box(-1, 1, (4,), np.float32, seed=3).sample()
    view(lambda obs: obs, space)
    np.testing.assert_array_equal(space.sample(), expected)


@pytest.mark.parametrize(
    "given, space, message",
    [
        ("hall", PLACE, r"prior_observation must be one or several of the keys \['cell', .*got 'hall'"),
        ([], PLACE, r"one or several of the keys .*got \[\]"),
        (0, PLACE, "one or several of the keys .*got 0"),
        ([0, 4], VECTOR, r"a slice or a list of indices from 0 to 3, or a function.*got \[0, 4\]"),
        ([-1], VECTOR, r"indices from 0 to 3, .*got \[-1\]"),
        ([0.5], VECTOR, r"indices from 0 to 3, .*got \[0.5\]"),
        ([True], VECTOR, r"indices from 0 to 3, .*got \[True\]"),
        (slice(4, None), VECTOR, "indices from 0 to 3, .*got slice"),
        (slice("a", None), VECTOR, "must be a slice of integers"),
        ("room", VECTOR, "must be 'all', .*got 'room'"),
        (2, VECTOR, "must be 'all', .*got 2"),
        ([0], spaces.Discrete(3), r"must be 'all' or a function of the observations with observation_space=Discrete\(3\)"),
        ([0], spaces.Box(0, 1, (2, 2)), "must be 'all' or a function"),
    ],
)
def test_parts_that_the_space_does_not_have_are_refused(given, space, message):
    with pytest.raises(ValueError, match=message):
        resolve_view("prior_observation", given, space)


@pytest.mark.parametrize(
    "function, n_values, message",
    [
        (lambda obs: obs[:2], None, r"must return a tensor \[batch, ...\] with batch 4, the function returned shape \(2, 4\)"),
        (lambda obs: 1.0, None, "must return a tensor .* returned 1.0"),
        (
            lambda obs: obs.astype(int),
            3,
            r"must be a function of torch tensors; with observations of shape \(4, 4\) it raised AttributeError: .*astype",
        ),
        (lambda obs: obs / 0, None, "must return finite numbers, the function returned (nan|-?inf)"),
        (lambda obs: obs[:, 0].long(), None, "must return floats, or integers .*; the function returned torch.int64"),
        (lambda obs: obs[:, 0], 3, "must return floats, .* returned torch.float32 with n_values=3"),
        (lambda obs: th.full((len(obs),), 3), 3, "must return integers from 0 to 2, .* returned 3"),
        (lambda obs: th.full((len(obs),), -1), 3, "must return integers from 0 to 2, .* returned -1"),
        (lambda obs: (obs > 0).long(), 2, r"must return integers \[batch\], the function returned shape \(4, 4\)"),
    ],
)
def test_functions_that_do_not_work_are_refused(function, n_values, message):
    with pytest.raises(ValueError, match=f"prior_observation {message}"):
        view(function, VECTOR, n_values)


def test_integers_are_checked_when_the_view_is_used():
    known = view(lambda obs: obs, spaces.Discrete(3), n_values=3)
    with pytest.raises(ValueError, match=r"integers from 0 to 2, .*returned 7"):
        known(th.tensor([1, 7]))


def test_n_values_belongs_to_functions():
    with pytest.raises(ValueError, match="n_values must be None unless prior_observation is a function, got 2 with 'room'"):
        view("room", PLACE, n_values=2)


def test_views_as_data():
    assert describe_view({"high": test_functions, "low": [0, 1]}) == {
        "high": {"function": f"{__name__}.test_functions"},
        "low": [0, 1],
    }
    assert describe_view(th.nn.Linear(1, 1)) == {"function": "torch.nn.modules.linear.Linear"}
