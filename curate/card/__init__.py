"""The dataset card: what was kept, dropped and failed, and why, as one HTML page and a README.

`write` makes the card of a build, `explain` tells what became of one input.
"""

__all__ = ["explain", "write"]
