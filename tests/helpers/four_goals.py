"""Four tasks on one small map with four rooms, for tests of skills."""

import numpy as np

from sb3_mirl.envs.gridworld import GridWorld

ROOMS = ("#######", "#SS#SS#", "#SSSSS#", "##S#S##", "#SSSSS#", "#SS#SS#", "#######")
CORNERS = ((1, 1), (1, 5), (5, 1), (5, 5))


class FourGoals:
    """The goal of an episode is a corner of the map, drawn uniformly; it is a part of the state."""

    def __init__(self):
        worlds = []
        for row, column in CORNERS:
            line = ROOMS[row][:column] + "G" + ROOMS[row][column + 1 :]
            worlds.append(GridWorld([*ROOMS[:row], line, *ROOMS[row + 1 :]]))
        n = len(worlds[0].positions)
        self.transition = np.zeros((4 * n, 4, 4 * n))
        self.P = {}
        for k, world in enumerate(worlds):
            self.transition[k * n : (k + 1) * n, :, k * n : (k + 1) * n] = world.transition
            for state, actions in world.P.items():
                self.P[k * n + state] = {
                    a: [(p, k * n + t, r, done) for p, t, r, done in outcomes] for a, outcomes in actions.items()
                }
        self.reward = np.concatenate([world.reward for world in worlds])
        self.initial_state_distrib = np.concatenate([world.initial_state_distrib for world in worlds]) / 4
        self.goal, self.position = np.repeat(np.arange(4), n), np.tile(np.arange(n), 4)
        self.unwrapped = self
