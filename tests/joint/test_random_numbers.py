"""A generator of each run in the place of NumPy's global one."""

import numpy as np

from sb3_mirl.joint.random_numbers import RunGenerator, global_generator_kept


def seeded(seed):
    return np.random.RandomState(seed).get_state(legacy=False)


def test_draws_continue_the_given_state():
    expected = np.random.RandomState(3)
    generator = RunGenerator(seeded(3))
    np.testing.assert_array_equal(generator.random.random_sample(4), expected.random_sample(4))
    with global_generator_kept(), generator:
        np.testing.assert_array_equal(np.random.randint(0, 9, 700), expected.randint(0, 9, 700))
    np.testing.assert_array_equal(generator.random.random_sample(4), expected.random_sample(4))


def test_normally_distributed_numbers_are_not_lost_in_pairs():
    expected, generator, other = np.random.RandomState(3), RunGenerator(seeded(3)), RunGenerator(seeded(4))
    with global_generator_kept():
        for _ in range(5):
            with generator:
                assert np.random.randn() == expected.randn()
            with other:
                np.random.randn(2)
            assert generator.random.random_sample() == expected.random_sample()
    state = generator.state
    assert state["has_gauss"] == expected.get_state(legacy=False)["has_gauss"] == 1
    assert RunGenerator(state).state["gauss"] == state["gauss"]


def test_as_many_draws_as_the_generator_has_words():
    expected, generator = np.random.RandomState(3), RunGenerator(seeded(3))
    with global_generator_kept():
        for _ in range(2):
            with generator:
                # 624 words: the position is the same again
                assert np.random.random_sample(310).tolist() == expected.random_sample(310).tolist()
                assert np.random.randn() == expected.randn()
        assert generator.state["has_gauss"] == expected.get_state(legacy=False)["has_gauss"]


def test_state_set_inside_counts():
    generator = RunGenerator(seeded(3))
    with global_generator_kept(), generator:
        np.random.seed(8)
    assert generator.random.random_sample() == np.random.RandomState(8).random_sample()


def test_seed_set_inside_forgets_a_pending_number():
    generator, expected = RunGenerator(seeded(3)), np.random.RandomState(8)
    with global_generator_kept():
        with generator:
            np.random.randn()
        with generator:
            np.random.seed(8)
        with generator:
            assert np.random.randn() == expected.randn()


def test_generators_are_apart_and_the_global_one_is_put_back():
    np.random.seed(5)
    expected = np.random.RandomState(5).random_sample(3)
    with global_generator_kept(), RunGenerator(seeded(1)):
        np.random.random_sample(10)
    np.testing.assert_array_equal(np.random.random_sample(3), expected)
