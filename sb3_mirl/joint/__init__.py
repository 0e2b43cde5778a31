"""
Joint training: many ordinary models trained in lock-step, as one tensor program.

:func:`~sb3_mirl.joint.training.train_jointly` is the entry. Read `training.py` first: its loop is SB3's ``learn()`` for all
runs at once. The other modules are the parts of that loop, in the order of one step:

- `compatibility.py`: which models can be trained together;
- `random_numbers.py`: NumPy's global generator of each run;
- `networks.py`: the stacked networks, priors and temperatures, and the functions that act and that compute gradients;
- `acting.py`: actions and exploration;
- `environments.py`: one step of every environment;
- `replay.py`: replay buffers;
- `optimizer.py`: one optimiser for all runs;
- `resume.py`: going on from checkpoints that each run has written.
"""
