"""From texts to batches: denoising noise, examples as ids, batches.

BATCHES hold up to a budget of tokens, of sentences of like length, from languages drawn with temperature:
p_l ~ n_l^(1/T). They are a pure function of (seed, position), so that a resumed run sees the same ones.
"""
import json
import random
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from corpora.readers import open_data  # noqa: F401  (part of this file's front door, as is the tokenizer)
from tokenizer import EOS, PAD, UNK, Tokenizer  # noqa: F401

SENTENCE_END = re.compile(r"\n+|(?<=[.!?।])\s+")

# ---------------------------------------------------------------------------------------------- noise

def infill(ids, is_start, mask_id, rng, share=0.3, mean_span=3.5):
    """Text infilling (Lewis 2019, section 2.2; Liu 2020, section 2.1): spans of whole words, lengths ~ Poisson(3.5),
    are each replaced by ONE <mask>, until `share` of the words is gone.

    ids: pieces, with </s> between sentences, which stay; is_start[i]: does a word begin at piece i. Returns the noised
    ids."""
    words = [i for i, start in enumerate(is_start) if start or i == 0] + [len(ids)]
    number = len(words) - 1
    masked, budget = [False] * number, round(share * number)
    for _ in range(10 * number):
        if budget <= 0:
            break
        span = min(max(1, poisson(mean_span, rng)), budget)
        start = rng.randrange(number - span + 1)
        if any(masked[max(0, start - 1):start + span + 1]):  # spans must not touch: two masks in a row tell a length
            continue
        if any(ids[words[word]] == EOS for word in range(start, start + span)):
            continue
        masked[start:start + span] = [True] * span
        budget -= span
    noised = []
    for word in range(number):
        if not masked[word]:
            noised += ids[words[word]:words[word + 1]]
        elif word == 0 or not masked[word - 1]:
            noised.append(mask_id)
    return noised


def poisson(mean, rng):
    """Knuth's method: how many uniform factors until the product falls below exp(-mean)."""
    limit, product, count = np.exp(-mean), rng.random(), 0
    while product > limit:
        product *= rng.random()
        count += 1
    return count


# ---------------------------------------------------------------------------------------------- batches

@dataclass
class Batch:
    source: torch.Tensor         # (B, S) int64, padded right
    decoder_input: torch.Tensor  # (B, T)
    labels: torch.Tensor         # (B, T)
    source_langs: list           # B codes
    number: int                  # position in the stream of batches

    def to(self, device):
        return Batch(*(getattr(self, name).to(device, non_blocking=True)
                       for name in ("source", "decoder_input", "labels")), self.source_langs, self.number)


def pad(rows):
    """Lists of ids -> (B, longest) int64, <pad> on the right."""
    out = torch.full((len(rows), max(map(len, rows))), PAD, dtype=torch.int64)
    for i, row in enumerate(rows):
        out[i, :len(row)] = torch.tensor(row)
    return out


class Examples:
    """Examples as ids: what a stage makes of a data set's text. tagged=False leaves out the source tag; limit keeps
    the first so many of every pair (few-shot)."""

    def __init__(self, data, tokenizer, stage, tagged=True, max_length=1024, permuted=0.2, seed=0,
                 limit=None):
        self.data, self.tokenizer, self.stage, self.tagged = data, tokenizer, stage, tagged
        self.sizes = {pair: size if limit is None else limit if size is None else min(size, limit)
                      for pair, size in data.sizes.items()}
        self.max_length, self.permuted, self.seed = max_length, permuted, seed

    @cached_property
    def starts(self):
        """Which pieces begin a word; denoising alone asks."""
        pieces = self.tokenizer.pieces
        return [pieces.id_to_piece(i).startswith("▁") for i in range(pieces.get_piece_size())]

    def __call__(self, pair, index):
        source, target = self.data.text(pair, index)
        lang = pair[0] if self.tagged else None
        if self.stage == "align":  # both are inputs of the encoder
            other = self.tokenizer.encode(target, pair[1] if self.tagged else None, self.max_length)
            return self.tokenizer.encode(source, lang, self.max_length), other, other
        if self.stage != "pretrain":
            return (self.tokenizer.encode(source, lang, self.max_length),
                    *self.tokenizer.target(target, pair[1], self.max_length))
        # Denoising (Liu 2020, section 2.1): sentences end in </s>, the order of some documents' sentences is shuffled,
        # spans are masked; the target is the document as it was.
        sentences = [self.tokenizer.piece_ids(sentence) for sentence in SENTENCE_END.split(source) if sentence.strip()]
        labels = self.tokenizer.tagged(self.joined(sentences), pair[1])
        rng = random.Random(f"{self.seed} noise {pair} {index}")
        if rng.random() < self.permuted:
            rng.shuffle(sentences)
        ids = self.joined(sentences)
        ids = infill(ids, [i <= UNK or self.starts[i - 1] for i in ids], self.tokenizer.mask_id, rng)
        return self.tokenizer.tagged(ids, lang), [labels[-1], *labels[:-1]], labels

    def joined(self, sentences):
        """Sentences as one list of ids with </s> between them, cut to the model's length."""
        return [i for sentence in sentences for i in (*sentence, EOS)][:-1][:self.max_length - 2]


class Batches:
    """An endless, resumable stream of training batches.

    Examples are drawn into a pool of `pool` batches' worth, sorted by length, cut into batches of at most `tokens`
    padded tokens (rows x the longest source or target) and shuffled. state_dict() is a position: three small
    numbers and dictionaries; load_state_dict() goes on from there with the very same batches.
    """

    def __init__(self, examples, tokens, seed=0, temperature=1.5, pool=32):
        self.examples, self.tokens, self.seed, self.pool_size = examples, tokens, seed, pool
        sizes = examples.sizes
        self.pairs = sorted(sizes)
        weights = np.array([1.0 if sizes[pair] is None else sizes[pair] ** (1 / temperature) for pair in self.pairs])
        self.weights = weights / weights.sum()
        self.orders = {}
        self.state = {"pool": 0, "batch": 0, "number": 0, "cursors": {}}
        self.batches = None

    def index(self, pair, cursor):
        """The cursor-th example of a pair: every example once in each epoch, in an order of the epoch's own."""
        size = self.examples.sizes[pair]
        if size is None:
            return cursor
        epoch, position = divmod(cursor, size)
        if self.orders.get(pair, (None,))[0] != epoch:
            order = np.random.default_rng([self.seed, epoch, self.pairs.index(pair)]).permutation(size)
            self.orders[pair] = epoch, order
        return int(self.orders[pair][1][position])

    def fill(self):
        rng = np.random.default_rng([self.seed, self.state["pool"]])
        self.next_cursors, rows, total = dict(self.state["cursors"]), [], 0
        while total < self.tokens * self.pool_size:
            pair = self.pairs[rng.choice(len(self.pairs), p=self.weights)]
            name = "-".join(pair)
            cursor = self.next_cursors.get(name, 0)
            self.next_cursors[name] = cursor + 1
            row = self.examples(pair, self.index(pair, cursor))
            rows.append((row, pair[0]))
            total += max(len(row[0]), len(row[2]))
        order = sorted(range(len(rows)), key=lambda i: (max(len(rows[i][0][0]), len(rows[i][0][2])), i))
        batches, longest = [[]], 0
        for i in order:
            longest = max(len(rows[i][0][0]), len(rows[i][0][2]))
            if batches[-1] and longest * (len(batches[-1]) + 1) > self.tokens:
                batches.append([])
            batches[-1].append(rows[i])
        self.batches = [batches[i] for i in rng.permutation(len(batches))]

    def __next__(self):
        if self.batches is None:
            self.fill()
        rows = self.batches[self.state["batch"]]
        batch = collate(rows, self.state["number"])
        self.state["batch"] += 1
        self.state["number"] += 1
        if self.state["batch"] == len(self.batches):
            self.state |= {"pool": self.state["pool"] + 1, "batch": 0, "cursors": self.next_cursors}
            self.batches = None
        return batch

    def __iter__(self):
        return self

    def state_dict(self):
        return json.loads(json.dumps(self.state))

    def load_state_dict(self, state):
        self.state, self.batches = json.loads(json.dumps(state)), None


def collate(rows, number=0):
    """[((source, decoder input, labels), source language)] -> Batch."""
    sources, inputs, labels = zip(*(row for row, _ in rows))
    return Batch(pad(sources), pad(inputs), pad(labels), [lang for _, lang in rows], number)


def held_out(examples, count, tokens):
    """The first `count` examples of every pair as a list of batches, the same at every call."""
    rows = [(examples(pair, i), pair[0]) for pair, size in sorted(examples.sizes.items())
            for i in range(count if size is None else min(count, size))]
    rows.sort(key=lambda row: max(len(row[0][0]), len(row[0][2])))
    batches = [[]]
    for row in rows:
        if batches[-1] and max(len(row[0][0]), len(row[0][2])) * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(row)
    return [collate(rows) for rows in batches]
