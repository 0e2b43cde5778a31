"""
Joint training: many ordinary models trained in lock-step, as one tensor program.

:func:`~sb3_mirl.joint.training.train_jointly` is the entry point. Read `training.py` first: its loop is SB3's ``learn()`` for
all runs at once. "Row" is the index of a run. The other modules are the parts of that loop, in the order of one step:

- `compatibility.py`: which models can be trained together;
- `random_numbers.py`: NumPy's global generator of each run;
- `networks.py`, `layers.py`: the stacked networks, ρ and β, and the functions that act and that compute gradients;
- `acting.py`: actions and exploration;
- `environments.py`, `callbacks.py`: one step of every environment, and the callbacks of each run;
- `storing.py`, `replay.py`: storing transitions, and replay buffers;
- `optimizer.py`, `regularization.py`, `records.py`: one optimiser for all runs, updates of ρ and β, and logged values;
- `resume.py`: continuing from checkpoints that each run has written.
"""
