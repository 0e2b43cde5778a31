"""Experiments: run, summarised with intervals, drawn. Needs the extra ``bench``."""
