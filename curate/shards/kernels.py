"""Loops over tokens, compiled (numba): what a view does to a whole batch at once.

Chance is SplitMix64 (Steele, Lea and Flood 2014), started for each sample by its own key (`Draw.keys`): so what a view
draws for a sample depends on nothing beside it. Compiled at the first call, which takes some 10 s of a CPU, then kept
on disk by numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Chance = NDArray[np.uint64]
"""`(1,)`: the state of a generator."""
Tokens: TypeAlias = "NDArray[np.int32]"
Side: TypeAlias = "tuple[Tokens, Tokens, Tokens, NDArray[np.bool_]]"
"""Ids, positions, streams and mask, `(rows, most)` each."""

F = TypeVar("F", bound=Callable[..., Any])


def _compiled(loop: F) -> F:
    made: Any = njit(cache=True, nogil=True, error_model="numpy")(loop)
    return cast(F, made)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@_compiled
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@_compiled
def _mix32(x: np.uint32) -> np.uint32:
    """The finaliser of MurmurHash3 (Appleby 2011)."""
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B))
    x = np.uint32((x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35))
    return x ^ (x >> np.uint32(16))


@_compiled
def _next(chance: Chance) -> np.uint64:
    chance[0] += _GOLDEN
    return _mix(chance[0])


@_compiled
def uniform(chance: Chance) -> float:
    """A number in [0, 1)."""
    return float(_next(chance) >> np.uint64(11)) * 2.0**-53


@_compiled
def below(chance: Chance, n: int) -> int:
    """A number in [0, n), n <= 2^32 (by multiplication, Lemire 2019, without its rejection: off by n/2^32 at most)."""
    return int(((_next(chance) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))


@_compiled
def _log_gamma(chance: Chance, alpha: float) -> float:
    """The logarithm of a gamma variate (Marsaglia and Tsang 2000); of small alphas the variate itself would be 0."""
    if alpha == 1.0:
        return math.log(-math.log(1.0 - uniform(chance)))
    boost = 0.0
    if alpha < 1.0:
        boost = math.log(1.0 - uniform(chance)) / alpha
        alpha += 1.0
    d = alpha - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        u, angle = 1.0 - uniform(chance), 2.0 * math.pi * uniform(chance)
        x = math.sqrt(-2.0 * math.log(u)) * math.cos(angle)  # Box and Muller 1958
        v = (1.0 + c * x) ** 3
        u = 1.0 - uniform(chance)
        if v > 0.0 and (u < 1.0 - 0.0331 * x**4 or math.log(u) < 0.5 * x * x + d - d * v + d * math.log(v)):
            return math.log(d * v) + boost


@_compiled
def share_out(
    chance: Chance, total: int, alphas: NDArray[np.float64], room: Ints, out: Ints, drawn: NDArray[np.float64]
) -> None:
    """Share `total` tokens out by a Dirichlet draw; what rounding leaves over goes to the largest of a fresh draw each,
    and what a stream has no room for is not given to another (as in 4M).

    Args:
        alphas: a concentration a stream; 0 for no share.
        room: most tokens of each stream.
        out: where the counts go, 0 <= count <= room.
        drawn: as long, to work in.
    """
    live, even, most, whole = 0, 0.0, -math.inf, 0.0
    for i in range(len(alphas)):
        out[i] = 0
        if alphas[i] > 0.0:
            even = alphas[i] if live == 0 or alphas[i] == even else -1.0
            live += 1
    if live == 0:
        return
    for i in range(len(alphas)):
        if alphas[i] > 0.0:
            # a gamma variate of concentration 1 is an exponential one, which needs no logarithm's logarithm
            drawn[i] = math.log(1.0 - uniform(chance)) if even == 1.0 else _log_gamma(chance, alphas[i])
            most = max(most, drawn[i])
    for i in range(len(alphas)):
        if alphas[i] > 0.0:
            drawn[i] = -drawn[i] if even == 1.0 else math.exp(drawn[i] - most)
            whole += drawn[i]
    left = total
    for i in range(len(alphas)):
        if alphas[i] > 0.0:
            out[i] = int(drawn[i] / whole * total)
            left -= out[i]
    for _ in range(left):
        out[_largest(chance, alphas, live, even > 0.0)] += 1
    for i in range(len(alphas)):
        out[i] = min(out[i], room[i])


@_compiled
def _largest(chance: Chance, alphas: NDArray[np.float64], live: int, even: bool) -> int:
    """The stream with the largest share of a fresh Dirichlet draw; of equal concentrations each is it as often."""
    best, most, pick = 0, -math.inf, below(chance, live) if even else 0
    for i in range(len(alphas)):
        if alphas[i] > 0.0:
            if even:
                if pick == 0:
                    return i
                pick -= 1
            else:
                share = _log_gamma(chance, alphas[i])
                if share > most:
                    best, most = i, share
    return best


@_compiled
def mask_text(
    chance: Chance,
    ids: NDArray[Any],
    end: int,
    sentinels: Ints,
    n_in: int,
    n_out: int,
    one: Tokens,
    other: Tokens,
    noise: NDArray[np.float64],
    whole: Tokens,
) -> tuple[int, int]:
    """Span-masked text: input with a sentinel for each masked span, target with each sentinel and its span.

    The kept share is drawn evenly from [0, 1] and lowered until the input fits (as in 4M); without an input budget all
    is masked and the input is empty. A target that is too long starts at a sentinel drawn evenly, or at the first one
    from which the rest fits, and is cut to the budget. A target ends with one more sentinel (T5).

    Args:
        ids: `(n - 1,)`, the text without its end.
        end: the id at its end.
        sentinels: ids of [S_0], [S_1], ...; at least 2.
        one, other: `(n_in,)` and `(n_out,)` at least: where input and target go.
        noise, whole: `(n,)` and `(2 n + 1,)` at least, to work in.

    Returns:
        Tokens of the input, and of the target.
    """
    n = len(ids) + 1
    share = uniform(chance) if n_in > 0 else 0.0
    for i in range(n):
        noise[i] = uniform(chance)
    while True:
        kept = spans = 0
        for i in range(n):
            if noise[i] < share:
                kept += 1
            elif i == 0 or noise[i - 1] < share:
                spans += 1
        if kept == 0 or (kept + spans <= n_in and spans < len(sentinels)):
            break
        share *= 0.9
    a = b = span = 0
    for i in range(n):
        token = ids[i] if i < n - 1 else end
        if noise[i] < share:
            if n_in > 0:
                one[a] = token
                a += 1
            continue
        if i == 0 or noise[i - 1] < share:
            if n_in > 0:
                one[a] = sentinels[span]
                a += 1
            whole[b] = sentinels[span]
            b += 1
            span += 1
        whole[b] = token
        b += 1
    whole[b] = sentinels[span]
    b += 1
    first = 0
    if b > n_out:
        first = _head(whole, b, sentinels, below(chance, max(1, span)))
        if b - first < n_out:  # the first sentinel from which the rest fits
            for number in range(span + 1):
                first = _head(whole, b, sentinels, number)
                if b - first <= n_out:
                    break
    count = min(n_out, b - first)
    for i in range(count):
        other[i] = whole[first + i]
    return a, count


@_compiled
def _head(whole: Tokens, length: int, sentinels: Ints, number: int) -> int:
    """Where a target has a sentinel."""
    for i in range(length):
        if whole[i] == sentinels[number]:
            return i
    return length - 1


@_compiled
def mask_grid(chance: Chance, n: int, n_in: int, n_out: int, one: Tokens, other: Tokens, drawn: Tokens) -> None:
    """Disjoint, even draws of positions in [0, n), in order: one pass of Knuth's selection sampling (TAOCP 2, 3.4.2 S).

    Args:
        n_in, n_out: how many, n_in + n_out <= n.
        one, other: `(n_in + 1,)` and `(n_out + 1,)` at least: where they go; the item behind the last is spoilt.
        drawn: `(n,)` at least, to work in.
    """
    key = np.uint32(_next(chance))
    for i in range(n):  # numbers of their own, so that the loop is vectorised
        mixed = _mix32(np.uint32(key + np.uint32(i) * np.uint32(0x9E3779B9)))
        drawn[i] = np.int32((np.uint64(mixed) * np.uint64(n - i)) >> np.uint64(32))
    # Counted down and without signs or branches, so that a turn waits for nothing but a comparison of the one before.
    some_in, some = np.uint64(n_in), np.uint64(n_in + n_out)
    left_in, left = some_in, some
    some_out = np.uint64(n_out)
    for i in range(n):
        number = np.uint64(drawn[i])
        one[some_in - left_in] = i
        other[some_out + left_in - left] = i
        left_in -= np.uint64(number < left_in)
        left -= np.uint64(number < left)


@_compiled
def _put_text(side: Side, row: int, at: int, picked: Tokens, count: int, place: int) -> None:
    """A text's tokens."""
    ids, positions, streams = side[0][row, at:], side[1][row, at:], side[2][row, at:]
    for i in range(count):
        ids[i] = picked[i]
    for i in range(count):
        positions[i] = i
    for i in range(count):
        streams[i] = place


@_compiled
def _put_grid(side: Side, row: int, at: int, source: NDArray[Any], picked: Tokens, count: int, place: int) -> None:
    """A grid's tokens at the positions picked."""
    ids, positions, streams = side[0][row, at:], side[1][row, at:], side[2][row, at:]
    for i in range(count):
        ids[i] = source[picked[i]]
    for i in range(count):
        positions[i] = picked[i]
    for i in range(count):
        streams[i] = place


@_compiled
def _close(side: Side, row: int, count: int) -> None:
    """The mask of a row, and zeros where it is False."""
    mask = side[3][row]
    for i in range(count):
        mask[i] = True
    ids, positions, streams, mask = side[0][row, count:], side[1][row, count:], side[2][row, count:], mask[count:]
    for i in range(len(ids)):
        ids[i] = 0
    for i in range(len(positions)):
        positions[i] = 0
    for i in range(len(streams)):
        streams[i] = 0
    for i in range(len(mask)):
        mask[i] = False


@_compiled
def keys_of_letters(letters: NDArray[np.uint32], salts: NDArray[np.uint64], which: Ints) -> NDArray[np.uint64]:
    """Each row of letters, `(n, k)`, ASCII, and a salt, `salts[which[i]]`, as 64 bits: SplitMix64's finaliser over
    eight letters at a time."""
    out = np.empty(len(letters), np.uint64)
    for r in range(len(letters)):
        key, word = salts[which[r]], np.uint64(0)
        for i in range(letters.shape[1]):
            word = (word << np.uint64(8)) | np.uint64(letters[r, i])
            if i % 8 == 7:
                key, word = _mix(key ^ word), np.uint64(0)
        out[r] = _mix(key ^ word)
    return out


@_compiled
def _pick(sums: NDArray[np.float64], u: float) -> int:
    """Which share of several laid side by side a number falls into; `sums` is where each ends."""
    for i in range(len(sums) - 1):
        if u < sums[i]:
            return i
    return len(sums) - 1


@_compiled
def _longest(steps: Ints, units: Ints) -> int:
    most = 0
    for s in range(len(units)):
        for r in range(steps.shape[1]):
            most = max(most, steps[s, r] * units[s])
    return most


class Masking(NamedTuple):
    """What a view of S streams says, with a mixture of M concentrations.

    Attributes:
        units: `(S,)`, ids a step.
        caps: `(S,)`, most steps shown; 0 for all.
        places: `(S,)`, what `*_streams` calls each.
        ends: `(S,)`, the id at the end of a text; -1 for a grid.
        sentinels, sentinel_at: of all texts, and `(S + 1,)` where each one's begin.
        mixture: `(M,)`, sums of the weights of the concentrations; the last is 1.
        alphas: `(M, 2, S)`, of inputs and of targets.
        limits: `(2, S)`, most tokens of a stream, in inputs and in targets.
        budgets: least and most of inputs, least and most of targets.
    """

    units: Ints
    caps: Ints
    places: Ints
    ends: Ints
    sentinels: Ints
    sentinel_at: Ints
    mixture: NDArray[np.float64]
    alphas: NDArray[np.float64]
    limits: Ints
    budgets: Ints


@_compiled
def mask_rows(
    ids: NDArray[Any],
    first: Ints,
    steps: Ints,
    masking: Masking,
    keys: NDArray[np.uint64],
    inputs: Side,
    targets: Side,
) -> None:
    """4M's masking of a batch of R rows; see `MaskedView`.

    Args:
        ids, first, steps: of `flat_ids`.
        keys: `(R,)`, what chance begins with.
        inputs, targets: where the result goes.
    """
    units, caps, places, ends = masking.units, masking.caps, masking.places, masking.ends
    alphas, limits, budgets = masking.alphas, masking.limits, masking.budgets
    streams, rows = first.shape
    chance = np.empty(1, np.uint64)
    length, begin = np.empty(streams, np.int64), np.empty(streams, np.int64)
    room, k_in, k_out = np.empty(streams, np.int64), np.empty(streams, np.int64), np.empty(streams, np.int64)
    live_in, live_out, shares = np.empty(streams), np.empty(streams), np.empty(streams)
    one, other = np.empty(budgets[1] + 1, np.int32), np.empty(budgets[3] + 1, np.int32)
    longest = _longest(steps, units) + 1
    drawn, whole, noise = np.empty(longest, np.int32), np.empty(2 * longest + 1, np.int32), np.empty(longest)
    for r in range(rows):
        chance[0] = keys[r]
        at = uniform(chance)
        n_in = budgets[0] + below(chance, budgets[1] - budgets[0] + 1)
        n_out = budgets[2] + below(chance, budgets[3] - budgets[2] + 1)
        m = _pick(masking.mixture, uniform(chance)) if len(masking.mixture) > 1 else 0
        for s in range(streams):
            count, start = steps[s, r], 0
            if caps[s] > 0 and count > caps[s]:
                start = int(at * (count - caps[s] + 1))
                count = caps[s]
            begin[s] = first[s, r] + start * units[s]
            length[s] = count * units[s] + (ends[s] >= 0) if count >= 0 else 0
            live_in[s] = alphas[m, 0, s] if length[s] > 0 else 0.0
            live_out[s] = alphas[m, 1, s] if length[s] > 0 else 0.0
            # a grid's input leaves a position for the target; a text's target has at least its last sentinel anyway
            room[s] = min(length[s] - (ends[s] < 0 and live_out[s] > 0.0), limits[0, s])
        share_out(chance, n_in, live_in, room, k_in, shares)
        for s in range(streams):
            room[s] = min(n_out if ends[s] >= 0 else length[s] - k_in[s], limits[1, s])
        share_out(chance, n_out, live_out, room, k_out, shares)
        a = b = 0
        for s in range(streams):
            if length[s] == 0 or k_in[s] + k_out[s] == 0:
                continue
            if ends[s] >= 0:
                text = ids[begin[s] : begin[s] + length[s] - 1]
                marks = masking.sentinels[masking.sentinel_at[s] : masking.sentinel_at[s + 1]]
                got_in, got_out = mask_text(chance, text, ends[s], marks, k_in[s], k_out[s], one, other, noise, whole)
                _put_text(inputs, r, a, one, got_in, places[s])
                _put_text(targets, r, b, other, got_out, places[s])
            else:
                got_in, got_out = k_in[s], k_out[s]
                mask_grid(chance, length[s], got_in, got_out, one, other, drawn)
                _put_grid(inputs, r, a, ids[begin[s] :], one, got_in, places[s])
                _put_grid(targets, r, b, ids[begin[s] :], other, got_out, places[s])
            a += got_in
            b += got_out
        _close(inputs, r, a)
        _close(targets, r, b)


@_compiled
def plan_sequences(
    steps: Ints,
    units: Ints,
    caps: Ints,
    tasks: Ints,
    inputs: Ints,
    weights: NDArray[np.float64],
    marked: int,
    keys: NDArray[np.uint64],
) -> tuple[Ints, NDArray[np.float64], Ints]:
    """Which task each sample has, where its window begins, and how long its sequence is; see `SequenceView`.

    Args:
        steps, units, caps: as `mask_rows`.
        tasks: `(M, L)`, the streams of each task in order, inputs first; -1 behind the last.
        inputs: `(M,)`, how many of these are inputs; negative where a sample needs none of its outputs.
        weights: `(M,)`, how often each is drawn, of those that a sample fits.
        marked: 1 where a token says which task it is.
        keys: `(R,)`, what chance begins with.

    Returns:
        Task `(R,)`, -1 where a sample fits none; the number in [0, 1) that windows begin by `(R,)`; tokens `(R,)`.
    """
    rows, count = len(keys), len(tasks)
    chance = np.empty(1, np.uint64)
    task, at, length = np.empty(rows, np.int64), np.empty(rows), np.empty(rows, np.int64)
    fits = np.empty(count)
    for r in range(rows):
        chance[0] = keys[r]
        at[r] = uniform(chance)
        total = 0.0
        for m in range(count):
            total += weights[m] if _fits(steps[:, r], tasks[m], inputs[m]) else 0.0
            fits[m] = total
        task[r] = -1
        if total > 0.0:
            task[r] = _pick(fits, uniform(chance) * total) if count > 1 else 0
        length[r] = 2
        if task[r] >= 0:
            length[r] += marked
            for s in tasks[task[r]]:
                if s >= 0 and steps[s, r] >= 0:
                    shown = min(steps[s, r], caps[s]) if caps[s] > 0 else steps[s, r]
                    length[r] += shown * units[s] + 2
    return task, at, length


@_compiled
def _fits(steps: Ints, streams: Ints, inputs: int) -> bool:
    """True if a sample has all outputs of a task, and one of its inputs where it has any."""
    if inputs < 0:
        return True
    some = inputs == 0
    for i in range(len(streams)):
        if streams[i] >= 0:
            if i < inputs:
                some = some or steps[streams[i]] >= 0
            elif steps[streams[i]] < 0:
                return False
    return some


@_compiled
def write_sequences(
    ids: NDArray[Any],
    first: Ints,
    steps: Ints,
    units: Ints,
    caps: Ints,
    tasks: Ints,
    outputs: NDArray[np.bool_],
    words: Ints,
    marks: tuple[int, int, int],
    task: Ints,
    at: NDArray[np.float64],
    offsets: Ints,
    tokens: Ints,
    loss: NDArray[np.bool_],
) -> None:
    """The sequences that `plan_sequences` planned, one after the other.

    Args:
        ids, first, steps, units, caps: as `mask_rows`.
        tasks: as `plan_sequences`.
        outputs: `(M, S)`, which streams count.
        words: `(S, 5)`: begin and end marker, first id, levels, ids a level.
        marks: the token that begins a sequence, the one that ends it, and that of task 0; -1 for no task tokens.
        task, at: of `plan_sequences`.
        offsets: `(R + 1,)`, where each sequence begins.
        tokens, loss: where they go.
    """
    for r in range(len(task)):
        i = offsets[r]
        tokens[i], loss[i] = marks[0], False
        i += 1
        any_output = False
        if task[r] >= 0:
            if marks[2] >= 0:
                tokens[i], loss[i] = marks[2] + task[r], False
                i += 1
            for s in tasks[task[r]]:
                if s < 0 or steps[s, r] < 0:
                    continue
                count, start = steps[s, r], 0
                if caps[s] > 0 and count > caps[s]:
                    start = int(at[r] * (count - caps[s] + 1))
                    count = caps[s]
                counts = outputs[task[r], s]
                any_output = any_output or counts
                tokens[i], loss[i] = words[s, 0], False
                i += 1
                begin, levels = first[s, r] + start * units[s], words[s, 3]
                for j in range(count * units[s]):
                    tokens[i] = np.int64(ids[begin + j]) + words[s, 2] + (j % levels) * words[s, 4]
                    loss[i] = counts
                    i += 1
                tokens[i], loss[i] = words[s, 1], counts
                i += 1
        tokens[i], loss[i] = marks[1], any_output


@_compiled
def best_fit(lengths: Ints, room: int) -> tuple[Ints, int]:
    """Pack lengths into bins: the longest first, each where the least room is left (best fit decreasing; Johnson 1973).

    Args:
        lengths: `(n,)`, each at most `room`.

    Returns:
        The bin of each, `(n,)`, numbered as they were opened, and how many there are.
    """
    order = np.argsort(-lengths, kind="mergesort")
    into, left = np.empty(len(lengths), np.int64), np.empty(len(lengths), np.int64)
    count = first = 0
    for i in order:
        best = -1
        for b in range(first, count):
            if left[b] >= lengths[i] and (best < 0 or left[b] < left[best]):
                best = b
                if left[b] == lengths[i]:
                    break
        if best < 0:
            best = count
            left[best] = room
            count += 1
        left[best] -= lengths[i]
        into[i] = best
        while first < count and left[first] < 3:  # no sequence is shorter than three tokens but one without content
            first += 1
    return into, count


@_compiled
def cut_documents(document: Ints, inner: Ints, room: int) -> Ints:
    """The piece of its document that each sample is in: `(n,)`, numbered in order. A piece holds samples that are
    neighbours and fit into a row together, with a token before and one behind them.

    Args:
        document: `(n,)`, the document of each.
        inner: `(n,)`, tokens of each without these two.
        room: of a row.
    """
    piece, number, used = np.empty(len(document), np.int64), -1, 0
    for i in range(len(document)):
        if i == 0 or document[i] != document[i - 1] or used + inner[i] > room - 2:
            number, used = number + 1, 0
        used += inner[i]
        piece[i] = number
    return piece


@_compiled
def lay_out(
    offsets: Ints,
    tokens: Ints,
    loss: NDArray[np.bool_],
    row: Ints,
    begin: Ints,
    number: Ints,
    out: tuple[Ints, NDArray[np.bool_], Tokens, Tokens],
) -> None:
    """Put sequences into rows.

    Args:
        offsets, tokens, loss: sequences, one after the other.
        row, begin, number: `(n,)`: the row of each, where in it it begins, and its number there.
        out: tokens, loss, positions and documents, `(rows, room)` each, filled with what padding has.
    """
    for i in range(len(row)):
        for j in range(offsets[i + 1] - offsets[i]):
            at = begin[i] + j
            out[0][row[i], at] = tokens[offsets[i] + j]
            out[1][row[i], at] = loss[offsets[i] + j]
            out[2][row[i], at] = j
            out[3][row[i], at] = number[i]
