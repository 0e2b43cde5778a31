"""Experiments: run, summarised with intervals, drawn. Needs the extra ``bench``, and for ``sb3-mirl bench`` also ``zoo``."""
