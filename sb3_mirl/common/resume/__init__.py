"""
Exact resumption of interrupted runs.

A folder of checkpoints holds, for each checkpoint,

- ``rl_model_5000_steps.zip``: the model, as ``model.save()`` writes it. If an earlier ``learn()`` has left a checkpoint of
  that name, a number is added: ``rl_model_7_5000_steps.zip``;
- ``rl_model_5000_steps.safetensors``: the arrays of the run's state (environments, random generators, callbacks, logs);
- ``rl_model_5000_steps.json``: the manifest, with the rest of that state, and the sizes and SHA-256 sums of all files of the
  checkpoint. It is written last: without a manifest there is no checkpoint;

and, shared by all checkpoints, ``replay/``: the replay buffer as a sequence of files. Each checkpoint adds what was stored
since the one before. No file there is ever changed.

Modules: ``callback`` (when a checkpoint is written), ``writer`` and ``reader`` (one checkpoint), ``manifest``, ``replay_log``,
``logs``, ``run_state`` (their parts), ``state`` (environments
and callbacks as data, with ``walk``, ``classes`` and the kinds of objects).
"""
