"""Signals: typed columns computed for samples, with units and ranges. A signal never drops anything (law 3).

A file of this folder with a class that derives from `Signal` is one, called by its `name` in a recipe's `annotate:`;
`registry` makes them of a recipe. `caption` is the one that always runs, last; `captions` makes those of captioners,
and `captioner` is the seam for one of your own.
"""

from curate.signals.base import AUDIBLE, VISUAL, Batch, Float, Options, Result, Sample, Signal, Text, Vector

__all__ = ["AUDIBLE", "VISUAL", "Batch", "Float", "Options", "Result", "Sample", "Signal", "Text", "Vector"]
