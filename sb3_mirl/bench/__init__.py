"""Benchmarks: suites, jobs, training, statistics and reports."""
