"""Exact solvers and tabular learners for small Markov decision processes."""
