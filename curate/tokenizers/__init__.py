"""Tokenizers: media to integer ids and back, each with a codec card that says everything about its ids.

`zoo` knows them by name, folder or class; `codecs/` has one file a family of networks, `quantisers/` the id formulas
(law 8), `measures/` the figures of a card.
"""

from curate.tokenizers.base import Tokenizer
from curate.tokenizers.custom_card import custom_card

__all__ = ["Tokenizer", "custom_card"]
