"""Data sets, denoising noise and batches.

DATA SETS (`--data SPEC`): `builtin`, `jsonl:DIR`, `parallel:DIR`. Each is an object with `sizes` ({(source language,
target language): number of examples, or None for a stream without end}) and `text(pair, index)`.

BATCHES hold up to a budget of tokens, of sentences of like length, from languages drawn with temperature:
p_l ~ n_l^(1/T). They are a pure function of (seed, position), so that a resumed run sees the same ones.
"""
import difflib
import json
import random
import re
from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from corpus import BASE_LANGUAGES, Corpus
from corpus import LANGUAGES as CORPUS_LANGUAGES
from model import UserError
from tokenizer import EOS, PAD, UNK, Tokenizer  # noqa: F401  (the tokenizer is part of this file's front door)

SENTENCE_END = re.compile(r"\n+|(?<=[.!?।])\s+")

# ---------------------------------------------------------------------------------------------- data sets

class Builtin:
    """The built-in corpus as the data set of a stage; documents of different pairs are different in training and
    the same in validation and test, where languages are compared."""

    def __init__(self, stage, split, pairs, seed=0):
        self.stage, self.split, self.seed, self.pairs = stage, split, seed, list(pairs)
        for code in {code for pair in pairs for code in pair}:
            if code not in CORPUS_LANGUAGES:
                raise UserError(f"the built-in corpus has no {code!r}; it has {' '.join(CORPUS_LANGUAGES)}")
        self.sizes = {pair: None for pair in pairs}

    @cached_property
    def corpus(self):
        langs = {code for pair in self.pairs for code in pair}
        return Corpus([c for c in CORPUS_LANGUAGES if c in langs or (self.stage == "pretrain" and c in BASE_LANGUAGES)])

    def document(self, pair, index):
        if self.split == "train":
            index = index * len(self.pairs) + self.pairs.index(pair)
        return self.corpus.document(index, self.split, self.seed)

    def text(self, pair, index):
        """pretrain: the document twice (every second one code-mixed); translate: a headline or one to three
        sentences, in both languages; summarize: the document and its headline."""
        source, target = pair
        document = self.document(pair, index)
        if self.stage == "summarize":
            return self.corpus.text(document, source), self.corpus.headline(document, target)
        rng = random.Random(f"{self.seed} {self.split} {index} {source} {target}")
        if self.stage == "pretrain":
            rate = MIXING_RATE if rng.random() < MIXED_SHARE else 0.0
            headline, *sentences = self.corpus.mixed(document, source, rng, rate)
            kind = rng.random()  # as in news text: a headline alone, a headline and its text, or the text alone
            if kind < HEADLINE_ALONE:
                sentences = [headline]
            elif kind < HEADLINE_ALONE + HEADLINE_FIRST:
                sentences = [headline, *sentences]
            return "\n".join(sentences), "\n".join(sentences)
        length = rng.choice((0, 1, 1, 2, 3))  # of sentences; 0 is the headline
        if not length:
            return self.corpus.headline(document, source), self.corpus.headline(document, target)
        start = rng.randrange(max(1, len(document.sentences) - length + 1))
        span = slice(start, start + length)
        return (" ".join(self.corpus.languages[source].say(s) for s in document.sentences[span]),
                " ".join(self.corpus.languages[target].say(s) for s in document.sentences[span]))


MIXED_SHARE, MIXING_RATE = 0.7, 0.5  # of the pretraining documents; of the slots in such a document
HEADLINE_ALONE, HEADLINE_FIRST = 0.2, 0.3  # of the pretraining documents


class Lines:
    """Examples in files, one a line; only the byte offset of each line is kept in memory."""

    def __init__(self):
        self.offsets, self.files = {}, {}  # {pair: array of offsets}, {pair: (path, ...)}

    @property
    def sizes(self):
        return {pair: len(offsets[0]) for pair, offsets in self.offsets.items()}

    def read(self, path, offset):
        with open(path, "rb") as file:
            file.seek(offset)
            return file.readline().decode("utf-8")


class Jsonl(Lines):
    """DIR/{train,valid,test}.jsonl, a JSON object a line: source, target, source_lang, target_lang (all text)."""

    FIELDS = ("source", "target", "source_lang", "target_lang")

    def __init__(self, folder, split, languages):
        super().__init__()
        self.path = Path(folder) / f"{split}.jsonl"
        for number, offset, line in lines(self.path):
            pair = tuple(self.parse(line, number)[2:])
            for code in pair:
                if code not in languages:
                    close = difflib.get_close_matches(code, languages, 1, 0.4)
                    raise UserError(f"{self.path}:{number}: unknown language {code!r}"
                                    + (f"; did you mean {close[0]}?" if close else ""))
            self.offsets.setdefault(pair, (array("q"),))[0].append(offset)

    def parse(self, line, number):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{self.path}:{number}: not JSON ({error}); each line must be one JSON object") from None
        if not isinstance(row, dict):
            raise UserError(f"{self.path}:{number}: expected a JSON object, found {type(row).__name__}")
        for name in self.FIELDS:
            if not isinstance(row.get(name), str):
                found = type(row[name]).__name__ if name in row else "nothing"
                raise UserError(f"{self.path}:{number}: field {name!r} must be text, found {found}")
            if not row[name].strip():
                raise UserError(f"{self.path}:{number}: field {name!r} is empty; remove the line")
        return [row[name] for name in self.FIELDS]

    def text(self, pair, index):
        row = json.loads(self.read(self.path, self.offsets[pair][0][index]))
        return row["source"], row["target"]


class Parallel(Lines):
    """DIR/{train,valid,test}.LANG, plain text, line i of one file translates line i of every other."""

    def __init__(self, folder, split, pairs):
        super().__init__()
        self.paths, starts, empty = {}, {}, {}
        for code in sorted({code for pair in pairs for code in pair}):
            self.paths[code] = Path(folder) / f"{split}.{code}"
            starts[code] = array("q")
            for number, offset, line in lines(self.paths[code]):
                starts[code].append(offset)
                if not line.strip():
                    empty[code] = number
        for source, target in pairs:
            if len(starts[source]) != len(starts[target]):
                raise UserError(f"{self.paths[source]} has {len(starts[source])} lines and {self.paths[target]} has "
                                f"{len(starts[target])}; parallel files must have the same number")
            for code in {source, target} & set(empty):
                raise UserError(f"{self.paths[code]}:{empty[code]}: an empty line; remove it from all the files")
            self.offsets[source, target] = (starts[source], starts[target])

    def text(self, pair, index):
        return tuple(self.read(self.paths[code], offsets[index]).strip()
                     for code, offsets in zip(pair, self.offsets[pair]))


def lines(path):
    """Yields (line number, byte offset, text) of a UTF-8 file; UserError if it is missing, empty or not UTF-8."""
    if not Path(path).is_file():
        raise UserError(f"{path}: not found")
    offset = number = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, offset, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise UserError(f"{path}:{number}: not UTF-8 ({error.reason}, byte {error.start} of the line); "
                                "save the file as UTF-8") from None
            offset += len(line)
    if not number:
        raise UserError(f"{path}: the file is empty; it needs at least one example")


def open_data(spec, stage, split, pairs, languages, seed=0):
    """`--data SPEC` -> a data set of the (source, target) language pairs. UserError for what cannot be read."""
    kind, _, folder = spec.partition(":")
    if spec == "builtin":
        return Builtin(stage, split, pairs, seed)
    if kind not in ("jsonl", "parallel") or not folder:
        raise UserError(f"--data {spec!r}: expected builtin, jsonl:DIR or parallel:DIR")
    if not Path(folder).is_dir():
        raise UserError(f"--data {spec}: there is no folder {folder}")
    if kind == "parallel":
        return Parallel(folder, split, pairs)
    data = Jsonl(folder, split, languages)
    data.offsets = {pair: offsets for pair, offsets in data.offsets.items() if pair in set(pairs)}
    if not data.offsets:
        wanted = " ".join("-".join(pair) for pair in list(pairs)[:6])
        raise UserError(f"{data.path}: no example in the languages asked for ({wanted} ...)")
    return data


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
    """Examples as ids: what a stage makes of a data set's text. tagged=False leaves out the source tag."""

    def __init__(self, data, tokenizer, stage, tagged=True, max_length=1024, permuted=0.2, seed=0):
        self.data, self.tokenizer, self.stage, self.tagged = data, tokenizer, stage, tagged
        self.max_length, self.permuted, self.seed = max_length, permuted, seed
        pieces = tokenizer.pieces
        self.starts = [pieces.id_to_piece(i).startswith("▁") for i in range(pieces.get_piece_size())]

    def __call__(self, pair, index):
        source, target = self.data.text(pair, index)
        lang = pair[0] if self.tagged else None
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
        sizes = examples.data.sizes
        self.pairs = sorted(sizes)
        weights = np.array([1.0 if sizes[pair] is None else sizes[pair] ** (1 / temperature) for pair in self.pairs])
        self.weights = weights / weights.sum()
        self.orders = {}
        self.state = {"pool": 0, "batch": 0, "number": 0, "cursors": {}}
        self.batches = None

    def index(self, pair, cursor):
        """The cursor-th example of a pair: every example once in each epoch, in an order of the epoch's own."""
        size = self.examples.data.sizes[pair]
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
    rows = [(examples(pair, i), pair[0]) for pair, size in sorted(examples.data.sizes.items())
            for i in range(count if size is None else min(count, size))]
    rows.sort(key=lambda row: max(len(row[0][0]), len(row[0][2])))
    batches = [[]]
    for row in rows:
        if batches[-1] and max(len(row[0][0]), len(row[0][2])) * (len(batches[-1]) + 1) > tokens:
            batches.append([])
        batches[-1].append(row)
    return [collate(rows) for rows in batches]
