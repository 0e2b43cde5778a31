"""MIRL in rl-zoo3: registration, commands, hyper-parameter files and run folders."""
