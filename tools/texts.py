"""Texts from which a vocabulary is learned: some of every language, from all over a data set.

A data set may be sorted, and one of its languages may have a thousand times the texts of another.
The number of texts taken from language l is p_l ~ n_l^(1/T), as training draws its batches
(data.py), with a larger T: a small language needs its letters all the same.
"""
import numpy as np

LONGEST = 1000  # letters in a line: SentencePiece passes over lines of more than 4192 bytes


def shares(sizes, total, temperature):
    """{name: how many of its `size` examples to take}, about `total` in all, p ~ size^(1/T).

    Where a language has fewer than its share, the others get the rest."""
    taken = {}
    left = {name: size for name, size in sizes.items() if size}
    while left:
        weights = {name: size ** (1 / temperature) for name, size in left.items()}
        unit = (total - sum(taken.values())) / sum(weights.values())
        small = [name for name in left if left[name] <= unit * weights[name]]
        for name in small:
            taken[name] = left.pop(name)
        if not small:
            for name in left:
                taken[name] = max(1, round(unit * weights[name]))
            break
    return taken


def some_of(size, number, seed):
    """`number` of the indices below `size`, in order, drawn alike from all of them."""
    if number >= size:
        return range(size)
    drawn = np.random.default_rng(seed).choice(size, number, replace=False)
    return sorted(int(index) for index in drawn)


def lines(text):
    """Yields a text in lines that SentencePiece reads, cut at spaces where there are any."""
    while len(text) > LONGEST:
        end = text.rfind(" ", 1, LONGEST)
        if end < 0:
            end = LONGEST
        yield text[:end]
        text = text[end:].lstrip(" ")
    yield text
