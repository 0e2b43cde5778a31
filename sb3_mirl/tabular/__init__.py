"""Exact solvers and learners for small Markov decision processes."""
