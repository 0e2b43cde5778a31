"""Grid worlds: the maps, the environment, and the arrays that describe it."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import DQN
from stable_baselines3.common.logger import configure

from sb3_mirl import MIRL
from sb3_mirl.envs.gridworld import (
    CORRIDOR,
    FOUR_ROOMS_GOALS,
    GRID_WORLDS,
    MOVES,
    SQUARE,
    WIDE_CORRIDOR,
    FourRooms,
    FourRoomsGoals,
    GridWorld,
    toy_text_arrays,
)

UP, RIGHT, DOWN, LEFT = range(4)
ROOM = "SG\nS#"  # states: 0 start, 1 goal, 2 start


def best_values(env, sweeps=500):
    """Undiscounted optimal values by value iteration, written out."""
    values = np.zeros(len(env.reward))
    for _ in range(sweeps):
        values = (env.reward + env.transition @ values).max(axis=1)
    return values


@pytest.mark.parametrize("env_id", [*GRID_WORLDS, "MIRLFourRooms-v0", "MIRLFourRoomsGoals-v0"])
@pytest.mark.parametrize("render_mode", [None, "ansi", "rgb_array"])
@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_the_registered_worlds(env_id, render_mode):
    env = gym.make(env_id, render_mode=render_mode)
    check_env(env.unwrapped, skip_render_check=render_mode is None)
    assert env.spec.max_episode_steps == 100


@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_a_slippery_world_with_useless_actions():
    check_env(GridWorld(SQUARE, extra_actions=3, slip_probability=0.3), skip_render_check=True)


@pytest.mark.parametrize(("grid_map", "expected"), [(CORRIDOR, 1.0), (SQUARE, 3.8333333333333335)])
def test_mean_optimal_return_of_the_papers_maps(grid_map, expected):
    env = GridWorld(grid_map)
    assert env.initial_state_distrib @ best_values(env) == pytest.approx(expected, abs=1e-12)


def test_sizes_of_the_papers_maps():
    assert [len(GridWorld(grid_map).positions) for grid_map in (CORRIDOR, WIDE_CORRIDOR, SQUARE)] == [18, 60, 31]


def test_four_rooms_have_one_numbering_for_all_goals():
    here, there = FourRooms(), gym.make("MIRLFourRooms-v0", goal=(1, 11), extra_actions=2).unwrapped
    assert len(here.positions) == 104
    np.testing.assert_array_equal(here.positions, there.positions)
    assert here.positions[here.is_goal].tolist() == [[8, 9]]
    assert there.positions[there.is_goal].tolist() == [[1, 11]]
    assert there.reward.shape == (104, 6)
    # From one corner to the opposite one: 10 rows and 10 columns; the passages are on the way
    corner = (there.positions == [11, 1]).all(axis=1)
    assert best_values(there)[corner].tolist() == [9 - 19]


def test_a_family_of_goals_steps_as_the_world_of_the_drawn_goal():
    family, drawn = FourRoomsGoals(extra_actions=1), set()
    random = np.random.default_rng(0)
    for seed in range(100):
        observation, _ = family.reset(seed=seed)
        goal = tuple(family.world.positions[observation["goal"]].tolist())
        alone = FourRooms(goal, extra_actions=1)
        alone.reset(seed=0)
        alone.state = observation["position"]
        drawn.add(goal)
        assert observation["last_action"] == 5
        for action in random.integers(5, size=20).tolist():
            observation, *result = family.step(action)
            position, *expected = alone.step(action)
            assert observation == {"goal": int(np.argmax(alone.is_goal)), "last_action": action, "position": position}
            assert result == expected
    assert drawn == set(FOUR_ROOMS_GOALS)


def test_families_have_the_same_observations_and_draw_with_their_seed():
    one, other = FourRoomsGoals([(1, 1)]), FourRoomsGoals([(2, 4), (10, 10)])
    assert one.observation_space == other.observation_space

    def starts(seed):
        return [other.reset(seed=seed)[0]] + [other.reset()[0] for _ in range(20)]

    assert starts(1) == starts(1) != starts(2)
    # The same stream for the goals and the starts of all worlds
    assert len({tuple(start.values()) for start in starts(1)}) > 10


def test_a_family_renders_the_world_of_the_drawn_goal():
    family = FourRoomsGoals([(2, 4), (10, 10)], render_mode="ansi")
    for seed in range(5):
        observation, _ = family.reset(seed=seed)
        row, column = family.world.positions[observation["goal"]]
        assert family.render().split("\n")[row][column] == "G"
    assert family.get_action_meanings() == [*MOVES]


def test_a_family_without_goals_is_refused():
    with pytest.raises(ValueError, match=r"goals must hold at least one goal, got \[\]"):
        FourRoomsGoals([])


@pytest.mark.parametrize("goal", [(0, 0), (6, 6), (20, 1), (-2, 1), (1, 2, 3)])
def test_a_goal_in_a_wall_is_refused(goal):
    with pytest.raises(ValueError, match="goal must be the row and column of a free cell of FOUR_ROOMS, got"):
        FourRooms(goal)


def test_the_goal_of_the_square_is_entered_from_one_cell_by_left_only():
    env = GridWorld(SQUARE)
    entering = np.argwhere((env.reward == 9.0).T)
    assert len(entering) == 1
    action, state = entering[0]
    assert action == LEFT
    assert env.positions[state].tolist() == [3, 6]
    assert env.positions[env.is_goal].tolist() == [[3, 5]]


def test_arrays_of_a_room_by_hand():
    env = GridWorld(ROOM, extra_actions=1)
    stay, to_goal = [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]  # mass that goes to the goal is gone
    assert env.transition[0].tolist() == [stay, to_goal, [0.0, 0.0, 1.0], stay, stay]
    assert env.reward.tolist() == [[-1, 9, -1, -1, -1], [0] * 5, [-1] * 5]
    assert env.initial_state_distrib.tolist() == [0.5, 0.0, 0.5]
    assert env.get_action_meanings() == ["UP", "RIGHT", "DOWN", "LEFT", "USELESS_0"]


def test_slip_is_a_uniform_move_for_every_action():
    env = GridWorld(ROOM, extra_actions=1, slip_probability=0.4)
    # From state 0: up and left stay, right ends, down leads to 2; each has a tenth of the probability by slipping
    for action, intended in enumerate([0, None, 2, 0, 0]):
        expected = np.array([0.2, 0.0, 0.1])
        if intended is not None:
            expected[intended] += 0.6
        np.testing.assert_allclose(env.transition[0, action], expected, atol=1e-15)
    np.testing.assert_allclose(env.reward[0], [0.0, 6.0, 0.0, 0.0, 0.0], atol=1e-15)


def test_steps_have_the_frequencies_of_the_arrays():
    env = GridWorld(ROOM, slip_probability=0.4)
    env.reset(seed=0)
    n, arrived, rewards = 4000, np.zeros(3), 0.0
    for _ in range(n):
        env.state = 0
        state, reward, terminated, truncated, _ = env.step(DOWN)
        assert not truncated
        assert terminated == (state == 1)
        arrived[state] += not terminated
        rewards += reward
    np.testing.assert_allclose(arrived / n, env.transition[0, DOWN], atol=5 * 0.5 / np.sqrt(n))
    assert rewards / n == pytest.approx(env.reward[0, DOWN], abs=5 * 5 / np.sqrt(n))


def test_episodes_start_uniformly_in_start_cells():
    env = GridWorld("S.G\nS##")
    starts = [env.reset(seed=seed)[0] for seed in range(1000)]
    counts = np.bincount(starts, minlength=4)
    assert counts[1] == counts[2] == 0
    assert abs(counts[0] - 500) < 5 * np.sqrt(250)


def test_the_same_seed_gives_the_same_episode():
    def episode(seed):
        env = GridWorld(SQUARE, slip_probability=0.5)
        states = [env.reset(seed=seed)[0]]
        return states + [env.step(k % 4)[0] for k in range(50)]

    assert episode(1) == episode(1) != episode(2)


def test_arrays_of_a_toy_text_environment():
    env = gym.make("FrozenLake-v1").unwrapped
    transition, reward = toy_text_arrays(env.P)
    assert transition.shape == (16, 4, 16)
    # Right of state 14 the goal: a third each for right (goal), up and down (stays)
    np.testing.assert_allclose(transition[14, 2, [10, 14, 15]], [1 / 3, 1 / 3, 0.0])
    assert reward[14, 2] == pytest.approx(1 / 3)


def test_text_and_image_show_the_agent():
    env = GridWorld("S.G", render_mode="ansi")
    env.reset()
    assert env.render() == "A.G\n"
    image_env = GridWorld("S.G", render_mode="rgb_array")
    image_env.reset()
    image = image_env.render()
    assert image.shape == (24, 72, 3)
    assert image.dtype == np.uint8
    assert (image[12, 12] != image[0, 0]).any()  # the agent differs from its cell
    image_env.step(RIGHT)
    assert (image_env.render()[:, :24] == image[0, 0]).all()  # and has left it


@pytest.mark.parametrize("algorithm", [MIRL, DQN])
@pytest.mark.parametrize("env_id", GRID_WORLDS)
def test_deep_algorithms_run_on_grid_worlds(algorithm, env_id):
    model = algorithm("MlpPolicy", env_id, learning_starts=20, buffer_size=100).learn(60)
    assert model.predict(model.get_env().reset())[0].shape == (1,)


def test_the_prior_is_logged_by_the_names_of_the_moves(tmp_path):
    model = MIRL("MlpPolicy", "MIRLSquare-v0", buffer_size=10)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(110, log_interval=1)  # an episode has at most 100 steps
    assert {f"prior/{name}" for name in MOVES} <= set((tmp_path / "progress.csv").read_text().splitlines()[0].split(","))


def test_unreachable_cells_are_not_states():
    assert GridWorld("SG#.").positions.tolist() == [[0, 0], [0, 1]]
    assert len(GridWorld("S.#G\n.G#.").positions) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid_map": "S..\n..."}, "at least one goal"),
        ({"grid_map": "G..\n..."}, "at least one start cell"),
        ({"grid_map": "SG\nS"}, "rows of one length, got 2 in row 0 and 1 in row 1"),
        ({"grid_map": "SGx"}, "unknown character 'x' in row 0, column 2"),
        ({"grid_map": ""}, "empty"),
        ({"grid_map": []}, "empty"),
        ({"grid_map": "SG\n##\n#S"}, "no goal can be reached from the start cell in row 2, column 1"),
        ({"extra_actions": -1}, "extra_actions must be a whole number from 0 on, got -1"),
        ({"extra_actions": 1.5}, "extra_actions must be a whole number"),
        ({"extra_actions": float("nan")}, "extra_actions must be a whole number"),
        ({"slip_probability": 1.1}, r"slip_probability must lie in \[0, 1\], got 1.1"),
        ({"slip_probability": float("nan")}, "slip_probability"),
        ({"goal_reward": float("inf")}, "goal_reward and step_reward must be finite"),
        ({"render_mode": "human"}, "render_mode must be None or one of"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        GridWorld(**arguments)


def test_invalid_use_is_refused():
    env = GridWorld()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(0)
    env.reset()
    with pytest.raises(ValueError, match="action must be a whole number from 0 to 3, got 4"):
        env.step(4)
