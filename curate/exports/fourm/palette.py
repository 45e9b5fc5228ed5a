"""The stream `color_palette`: the main colours of the whole image, `v1=<n>` and then `v0=r v0=g v0=b` for each.

A word says how many come, so that a palette cut short is seen. Exact: values are 0 to 255. ml-4m draws n from 1 to 7
anew each time; here the caller gives the palette. Seven colours are 22 words, and with `[EOS]` fill 4M's budget of 23
(its comment forgets the count's word).
"""

from __future__ import annotations

from collections.abc import Sequence

from curate.exports.fourm.values import Reader, bin_word

Colour = tuple[int, int, int]
MAX_COLOURS = 7


def write(colours: Sequence[Colour]) -> list[str]:
    """Words of 1 to 7 colours, each of three values 0 to 255.

    Raises:
        ValueError: too few or too many colours, or a value out of range.
    """
    _count(len(colours))
    words = [bin_word(1, len(colours))]
    for colour in colours:
        if len(colour) != 3 or not all(0 <= value <= 255 for value in colour):
            raise ValueError(f"a colour is three values 0 to 255, not {colour}")
        words += [bin_word(0, value) for value in colour]
    return words


def parse(words: Sequence[str]) -> list[Colour]:
    """The colours of which `write` made the words; ValueError for words that it cannot have made."""
    read = Reader(words)
    count = read.bin(1)
    _count(count)
    colours = [(read.bin(0), read.bin(0), read.bin(0)) for _ in range(count)]
    if not read.done or any(max(colour) > 255 for colour in colours):
        raise ValueError(f"these are not the words of {count} colours")
    return colours


def _count(count: int) -> None:
    if not 1 <= count <= MAX_COLOURS:
        raise ValueError(f"a palette has 1 to {MAX_COLOURS} colours, not {count}")
