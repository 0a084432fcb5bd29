"""From texts to batches: denoising noise, examples as ids, batches.

What a stage makes of a data set's texts (a source text, a target text):
    pretrain     source: the document, some with shuffled sentences, spans masked
                 (Examples.denoising); target: the document itself (with `builtin:SHARE`, that
                 share of the code-mixed documents has a target in one language alone)
    translate    source: a text; target: its translation
    summarize    source: a document; target: its headline
    align        two inputs of the encoder: a text and its translation

Batches hold examples of like length, up to a budget of tokens. Language pairs are drawn with
temperature T (Liu 2020, section 2.1, with T = 1/alpha):
    p_l ∝ n_l^(1/T)      n_l: examples of pair l; T = 1 draws by size, a large T all pairs alike
A stream without end counts as n_l = 1: data sets have one kind or the other.
The stream of batches is a pure function of (seed, position): a resumed run sees the same ones.
"""
import math
import random
import re
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch

from corpora.builtin import Builtin
from corpora.facts import BASE_LANGUAGES
from corpora.lines import SPACELESS
from plumbing.files import UserError
from tokenizer import EOS, PAD, SPECIAL_PIECES, UNK, shifted, shortened

MEAN_SPAN = 3.5  # words of a masked span, about
UNREADABLE = 0.05  # we warn if at least this share of a language's characters has no piece
# Where sentences end, in Devanagari, Urdu, Khmer and Burmese too; Thai marks no end. Where no space
# follows a mark, another mark or a closing quote still belongs to its sentence.
SENTENCE_END = re.compile(r"\n+|(?<=[.!?।۔؟。！？។။])\s+|(?<=[。！？។။])(?![。！？។။”’」』）])")


# ------------------------------------------------------------------------------ language pairs

def split_pairs(texts, option="--pairs"):
    """["en_XX-es_XX", ...] -> [("en_XX", "es_XX"), ...].

    UserError for a text of another form; it names the option that the texts were given to."""
    pairs = []
    for text in texts:
        pair = tuple(text.split("-"))
        if len(pair) != 2:
            raise UserError(f"{option} {text}: write pairs as en_XX-es_XX")
        pairs.append(pair)
    return list(dict.fromkeys(pairs))  # one that was typed twice counts once


def languages_of(pairs):
    """The languages of some pairs, each once."""
    languages = []
    for pair in pairs:
        languages.extend(pair)
    return list(dict.fromkeys(languages))


def language_pairs(stage, langs=None, pairs=None, align_pairs=None, copying=True):
    """The (source, target) language pairs that a run trains on.

    langs, pairs, align_pairs: what was typed, codes and "en_XX-es_XX"; None: the stage's own.
    copying: are pairs within a language among those of stage translate? [] where none is left."""
    if pairs:
        return split_pairs(pairs)
    if stage == "align":
        return alignment_pairs(langs, align_pairs)
    if not langs:
        langs = ["en_XX"] if stage == "summarize" else BASE_LANGUAGES
    langs = list(dict.fromkeys(langs))
    if stage == "translate":
        both = list(product(langs, repeat=2))
        if copying:
            return both
        return [(source, target) for source, target in both if source != target]
    return [(lang, lang) for lang in langs]


def alignment_pairs(langs=None, align_pairs=None):
    """The translation pairs whose states are to meet: as typed, or each language with English.

    The first language of a pair is the anchor's (align.py)."""
    if align_pairs:
        return split_pairs(align_pairs, "--align-pairs")
    langs = dict.fromkeys(langs or BASE_LANGUAGES)
    pairs = [(lang, "en_XX") for lang in langs if lang != "en_XX"]
    if not pairs:
        raise UserError(
            "alignment needs translation pairs; name them with --align-pairs es_XX-en_XX ..."
        )
    return pairs


def mixing_pairs(langs=None, mix_pairs=None, copying=True):
    """The pairs of translations beside summaries: as typed, or all that stage translate takes.

    copying: are pairs within a language among them? train.py takes them of the built-in corpus
    alone: what files have within a language may be summaries."""
    if mix_pairs:
        return split_pairs(mix_pairs, "--mix-pairs")
    pairs = language_pairs("translate", langs, copying=copying)
    if not pairs:
        raise UserError("--mix needs translations; name their pairs with --mix-pairs en_XX-es_XX")
    return pairs


# --------------------------------------------------------------------------------------- noise

def infill(ids, is_start, mask_id, rng, share=0.3):
    """Text infilling (Lewis et al. 2019, section 2.2; Liu et al. 2020, section 2.2, where
    `share` is 0.35).

    Draws spans of whole words, of lengths ~ Poisson(MEAN_SPAN) but at least 1, and replaces each
    by ONE <mask>, until `share` of the words is masked, or after 10 tries for each word of the
    text. A span is never longer than what is left to mask; each </s> counts as a word here.

    ids: pieces, with </s> between sentences, which stays; is_start[i]: does a word begin at piece
    i. Returns the noised ids."""
    words = []
    for piece, start in zip(ids, is_start):
        if start or not words:
            words.append([])
        words[-1].append(piece)
    masked = mask_words(words, rng, share)
    noised = []
    for number, word in enumerate(words):
        if not masked[number]:
            noised += word
        elif number == 0 or not masked[number - 1]:
            noised.append(mask_id)
    return noised


def mask_words(words, rng, share):
    """Which words are masked: a list of bool. words: lists of pieces."""
    masked = [False] * len(words)
    budget = round(share * len(words))
    for _ in range(10 * len(words)):
        if budget <= 0:
            break
        span = max(1, poisson(MEAN_SPAN, rng))
        span = min(span, budget)
        start = rng.randrange(len(words) - span + 1)
        end = start + span
        if any(masked[max(0, start - 1):end + 1]):
            continue  # two masks in a row would show where one span ends
        if any(word[0] == EOS for word in words[start:end]):
            continue  # the ends of sentences stay
        masked[start:end] = [True] * span
        budget -= span
    return masked


def poisson(mean, rng):
    """Knuth's method: how many uniform factors until the product falls below exp(-mean)."""
    limit = math.exp(-mean)
    left = rng.random()
    count = 0
    while left > limit:
        left *= rng.random()
        count += 1
    return count


# ------------------------------------------------------------------------------------ examples

@dataclass
class Example:
    """One text as ids, and what the decoder reads and is to predict."""
    source: list
    decoder_input: list  # the labels moved right by one, the last in front
    labels: list
    source_lang: str

    @property
    def length(self):
        return max(len(self.source), len(self.labels))


@dataclass
class ParallelExample:
    """A text and its translation as ids; both are inputs of the encoder."""
    source: list
    translation: list

    @property
    def length(self):
        return max(len(self.source), len(self.translation))


class Examples:
    """Examples as ids: what a stage makes of a data set's text. `examples(pair, index)` is one.

    tagged: whether the source has its language's tag. max_length: most ids of a side; the rest is
    cut off. permuted: share of the documents whose sentences pretraining shuffles. limit: only the
    first `limit` examples of every pair (few-shot). `unread` counts how much of the texts so far
    the model does not see. UserError for pretraining where the encoder has a vocabulary of its
    own."""

    def __init__(self, data, tokenizer, stage, tagged=True, max_length=1024, permuted=0.2, seed=0,
                 limit=None):
        check_vocabulary(stage, tokenizer)
        self.data = data
        self.tokenizer = tokenizer
        self.stage = stage
        self.tagged = tagged
        self.max_length = max_length
        self.permuted = permuted
        self.seed = seed
        self.unread = Unread()
        self.sizes = dict(data.sizes)  # {pair: examples, or None for a stream without end}
        if limit is not None:
            for pair, size in data.sizes.items():
                self.sizes[pair] = at_most(limit, size)

    def __call__(self, pair, index):
        if self.stage == "pretrain":
            return self.denoising(pair, index)
        if self.stage == "align":
            return self.parallel(pair, index)
        return self.supervised(pair, index)

    def supervised(self, pair, index):
        """translate, summarize: a text and what is to be written of it."""
        text, target = self.data.text(pair, index)
        source_lang, target_lang = pair
        source = self.encoder_input(text, source_lang)
        labels = self.ids_of(
            target, target_lang, tag=target_lang, side="targets", tokenizer=self.tokenizer
        )
        return Example(source, shifted(labels), labels, source_lang)

    def parallel(self, pair, index):
        """align: a text and its translation, as the encoder reads each."""
        text, translation = self.data.text(pair, index)
        return ParallelExample(
            self.encoder_input(text, pair[0]), self.encoder_input(translation, pair[1])
        )

    def denoising(self, pair, index):
        """pretrain (Liu et al. 2020, section 2.2): sentences end in </s>, their order is shuffled
        in the share `permuted` of the documents (in the paper in all), spans are masked; the
        target is the document as it was.

        The built-in corpus alone has documents whose target says the same sentences in other
        words; of other data sets' pairs of texts the source alone is read."""
        text, target = self.data.text(pair, index)
        if not isinstance(self.data, Builtin):
            target = text
        target_sentences = self.sentences(target)
        source_sentences = target_sentences
        if text != target:
            source_sentences = self.sentences(text)

        # Both are cut before the source is shuffled, so that they keep the same sentences.
        room = self.max_length - 2  # for </s> and the tag
        kept_source = first_sentences(source_sentences, room)
        kept_target = first_sentences(target_sentences, room)
        count = min(len(kept_source), len(kept_target))
        kept_source = kept_source[:count]
        kept_ids = joined(kept_target[:count])
        self.unread.count(
            target,
            joined(target_sentences),
            kept=len(kept_ids),
            lang=pair[1],
            side="documents",
            tokenizer=self.tokenizer,
        )
        labels = self.tokenizer.with_specials(kept_ids, pair[1])

        # The same noise in every epoch: an example is a function of its index.
        rng = random.Random(f"{self.seed} noise {pair} {index}")
        if rng.random() < self.permuted:
            rng.shuffle(kept_source)
        ids = joined(kept_source)
        is_start = [self.begins_word[i] for i in ids]
        noised = infill(ids, is_start, self.tokenizer.mask_id, rng)
        source = self.tokenizer.with_specials(noised, self.source_tag(pair[0]))
        return Example(source, shifted(labels), labels, pair[0])

    def sentences(self, text):
        """A document's sentences as lists of ids."""
        found = []
        for sentence in SENTENCE_END.split(text):
            if sentence.strip():
                found.append(self.tokenizer.piece_ids(sentence))
        return found

    def encoder_input(self, text, lang):
        """A text's ids as the encoder reads them."""
        return self.ids_of(
            text,
            lang,
            tag=self.source_tag(lang),
            side="sources",
            tokenizer=self.tokenizer.source,
        )

    def ids_of(self, text, lang, *, tag, side, tokenizer):
        """The ids of a text in `lang` with </s> and the tag (None: without one), cut to max_length;
        what is lost is counted."""
        ids = tokenizer.piece_ids(text)
        kept = shortened(ids, self.max_length, tag)
        self.unread.count(text, ids, len(kept), lang, side, tokenizer)
        return tokenizer.with_specials(kept, tag)

    def source_tag(self, lang):
        if self.tagged:
            return lang
        return None

    @cached_property
    def begins_word(self):
        """By id: does a word begin with this piece? Denoising alone asks."""
        pieces = self.tokenizer.pieces
        begins = [True] * (UNK + 1)
        for number in range(SPECIAL_PIECES, pieces.get_piece_size()):  # its id is number + 1
            piece = pieces.id_to_piece(number)
            # Chinese, Japanese, Thai and the like have no spaces: there each piece is a word.
            begins.append(piece.startswith("▁") or SPACELESS.match(piece) is not None)
        return begins


@dataclass
class Side:
    """What was counted of the sources or the targets."""
    texts: int = 0
    cut: int = 0        # texts longer than the model takes
    tokens: int = 0
    left_out: int = 0   # tokens of these that were cut off


@dataclass
class LanguageCount:
    """What was counted of the texts of a language."""
    texts: int = 0
    empty: int = 0       # without any piece
    characters: int = 0  # all but white space
    unknown: int = 0     # characters that are in no piece

    def add(self, text, ids, tokenizer):
        """Counts a text; ids: all of its pieces'."""
        self.texts += 1
        if not ids:
            self.empty += 1
        self.characters += len("".join(text.split()))
        if UNK in ids:
            self.unknown += unknown_characters(text, tokenizer)

    @property
    def unknown_share(self):
        return min(1.0, self.unknown / max(1, self.characters))


class Unread:
    """How much of the texts a model does not see: cut off, or in no piece of its vocabulary."""

    def __init__(self):
        self.sides = {}      # {"sources": Side}
        self.languages = {}  # {code: LanguageCount}

    def count(self, text, ids, kept, lang, side, tokenizer):
        """Takes in a text with all its ids, of which the first `kept` stay."""
        counted = self.sides.setdefault(side, Side())
        counted.texts += 1
        if kept < len(ids):
            counted.cut += 1
        counted.tokens += len(ids)
        counted.left_out += len(ids) - kept
        self.languages.setdefault(lang, LanguageCount()).add(text, ids, tokenizer)

    def warnings(self):
        """A line for everything that the model does not see and a user should know of."""
        lines = []
        for side, counted in self.sides.items():
            if counted.cut:
                lines.append(
                    f"{counted.cut:,} of the first {counted.texts:,} {side} are too long and cut: "
                    f"{counted.left_out / counted.tokens:.1%} of all tokens are left out"
                )
        for lang, counted in sorted(self.languages.items()):
            if counted.unknown_share >= UNREADABLE:
                lines.append(
                    f"{lang}: the vocabulary has no piece for {counted.unknown_share:.0%} of the "
                    f"characters in the first {counted.texts:,} texts; the model sees <unk> in "
                    "their place"
                )
            if counted.empty:
                lines.append(
                    f"{lang}: {counted.empty:,} of the first {counted.texts:,} texts have no piece "
                    "in the vocabulary; the model sees nothing of them"
                )
        return lines


def unknown_characters(text, tokenizer):
    """How many characters of a text are in no piece of a vocabulary: a run of them is ONE <unk>."""
    unknown = 0
    for piece in tokenizer.pieces.encode(text, out_type=str):
        if tokenizer.pieces.piece_to_id(piece) == tokenizer.pieces.unk_id():
            unknown += len(piece.replace("▁", ""))
    return unknown


class Fingerprint:
    """The files of a run's data as they were when it began. Part of a run's state: loading a
    state that had others is a UserError."""

    def __init__(self):
        self.files = {}  # {name: [bytes, CRC-32]}

    def state_dict(self):
        return {"files": self.files}

    def load_state_dict(self, state):
        for name, before in state["files"].items():
            if before not in self.named_alike(name):
                raise UserError(
                    f"{name}: not what it was when this run began; put it back as it was, or start "
                    "another run from the model of this one with --init"
                )

    def named_alike(self, name):
        """What is known of the files with this file's name, in whatever folder: it may have moved.
        """
        return [found for path, found in self.files.items() if Path(path).name == Path(name).name]


def check_vocabulary(stage, tokenizer):
    if stage == "pretrain" and tokenizer.own_source:
        raise UserError(
            "--stage pretrain rebuilds a text from its own pieces, but this model's encoder has "
            "another vocabulary than its decoder; name a model with one vocabulary with --init"
        )


def first_sentences(sentences, room):
    """The first of some sentences (lists of ids) that make at most `room` ids when joined; the last
    of them may be cut."""
    first = []
    for sentence in sentences:
        if room <= 0:
            break
        first.append(sentence[:room])
        room -= len(sentence) + 1  # and the </s> after it
    return first


def joined(sentences):
    """Sentences as one list of ids with </s> between them."""
    ids = []
    for sentence in sentences:
        ids += [*sentence, EOS]
    return ids[:-1]


def at_most(count, size):
    """How many examples to use: `count`, or `size` if there are fewer (None: without end)."""
    if size is None:
        return count
    return min(count, size)


# ------------------------------------------------------------------------------------- batches

@dataclass
class Batch:
    """Examples as tensors, padded on the right."""
    source: torch.Tensor         # (B, S) int64
    decoder_input: torch.Tensor  # (B, T)
    labels: torch.Tensor         # (B, T)
    source_langs: list           # B codes
    number: int                  # position in the stream of batches
    stream: str                  # the name of that stream

    @property
    def source_tokens(self):
        return count_tokens(self.source)

    @property
    def target_tokens(self):
        return count_tokens(self.labels)

    def to(self, device):
        return replace(
            self,
            source=self.source.to(device, non_blocking=True),
            decoder_input=self.decoder_input.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


@dataclass
class ParallelBatch:
    """Texts and their translations, row by row: a batch of stage align."""
    source: torch.Tensor       # (B, S) int64
    translation: torch.Tensor  # (B, T)
    number: int                # position in the stream of batches
    stream: str                # the name of that stream

    @property
    def source_tokens(self):
        return count_tokens(self.source)

    @property
    def target_tokens(self):
        return count_tokens(self.translation)

    def to(self, device):
        return replace(
            self,
            source=self.source.to(device, non_blocking=True),
            translation=self.translation.to(device, non_blocking=True),
        )


def count_tokens(ids):
    """How many ids are not padding."""
    return (ids != PAD).sum().item()


def pad(rows):
    """Lists of ids -> (B, longest) int64, <pad> on the right."""
    padded = torch.full((len(rows), max(map(len, rows))), PAD, dtype=torch.int64)
    for number, row in enumerate(rows):
        padded[number, :len(row)] = torch.tensor(row)
    return padded


def collate(rows, number=0, stream="task"):
    """Examples -> the number-th Batch of a stream, ParallelExamples -> ParallelBatch."""
    source = pad([row.source for row in rows])
    if isinstance(rows[0], ParallelExample):
        return ParallelBatch(source, pad([row.translation for row in rows]), number, stream)
    return Batch(
        source=source,
        decoder_input=pad([row.decoder_input for row in rows]),
        labels=pad([row.labels for row in rows]),
        source_langs=[row.source_lang for row in rows],
        number=number,
        stream=stream,
    )


def batches_of_like_length(rows, max_tokens, max_rows=math.inf, length=attrgetter("length")):
    """Rows -> lists of rows of like length, the shortest first.

    A list has at most max_rows rows and, padded, at most max_tokens tokens: its rows x the longest
    length. A row that is longer than that stands alone. length: of a row; an Example's own is that
    of its longer side."""
    batches = []
    for row in sorted(rows, key=length):
        has_room = False
        if batches:
            count = len(batches[-1]) + 1  # with this row, the longest so far
            has_room = count <= max_rows and count * length(row) <= max_tokens
        if not has_room:
            batches.append([])
        batches[-1].append(row)
    return batches


def held_out(examples, count, tokens):
    """`count` examples of every pair as a list of batches, the same at every call."""
    rows = []
    for pair, size in sorted(examples.sizes.items()):
        rows += [examples(pair, index) for index in spread(count, size)]
    return [collate(batch) for batch in batches_of_like_length(rows, tokens)]


def spread(count, size):
    """`count` of the numbers below `size`, evenly spread, because the first examples of a file are
    often of one kind. Of a stream without end (None): the first `count`."""
    if size is None:
        return list(range(count))
    count = at_most(count, size)
    # The middle of each of `count` equal parts.
    return [(2 * i + 1) * size // (2 * count) for i in range(count)]


@dataclass
class Position:
    """Where a stream of batches stands."""
    pool: int = 0    # the number of this pool
    batch: int = 0   # in this pool
    number: int = 0  # in the whole stream
    cursors: dict = field(default_factory=dict)  # {"en_XX-es_XX": examples drawn before this pool}


# Draws a stream's next pool while this one is trained on: a GPU would otherwise stand idle.
BESIDE_TRAINING = ThreadPoolExecutor(1)


class Batches:
    """An endless, resumable stream of training batches.

    Examples are drawn into a pool of `pool_size` batches' worth, or of as many examples as there
    are where that is less, sorted by length, cut into batches of at most `tokens` padded tokens,
    and the batches are shuffled. state_dict() is a position, a few numbers; load_state_dict() goes
    on from there with the very same batches."""

    def __init__(self, examples, tokens, seed=0, temperature=1.5, pool_size=32, name="task"):
        self.name = name
        self.examples = examples
        self.tokens = tokens
        self.seed = seed
        self.pool_size = pool_size
        self.pairs = sorted(examples.sizes)
        self.weights = self.probabilities(temperature)
        self.pass_size = math.inf  # examples in one pass over the data; of a stream without end
        if None not in examples.sizes.values():
            self.pass_size = sum(examples.sizes.values())
        self.epochs = {}  # {pair: the epoch whose order is in `orders`}
        self.orders = {}  # {pair: its examples' numbers in that epoch's order}
        self.position = Position()
        self.batches = None  # of the current pool; None: not drawn yet
        self.next_cursors = {}  # the cursors after this pool
        self.next_pool = None  # a Future of the next pool's draw()

    def probabilities(self, temperature):
        """How often each of self.pairs is drawn: p_l ∝ n_l^(1/T), streams without end alike."""
        sizes = []
        for pair in self.pairs:
            size = self.examples.sizes[pair]
            if size is None:
                size = 1
            sizes.append(size)
        # In logarithms, for n^(1/T) overflows with a small T: n^100 with T = 0.01.
        logs = np.log(sizes) / temperature
        weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    def index(self, pair, cursor):
        """The index of a pair's example number `cursor`, counted over all epochs. Each epoch has
        every example once, in an order of its own."""
        size = self.examples.sizes[pair]
        if size is None:
            return cursor
        epoch, place = divmod(cursor, size)
        if self.epochs.get(pair) != epoch:
            rng = np.random.default_rng([self.seed, epoch, self.pairs.index(pair)])
            self.orders[pair] = rng.permutation(size)
            self.epochs[pair] = epoch
        return int(self.orders[pair][place])

    def fill(self):
        """Makes the pool at this position the current one: the one drawn in the background, or else
        one drawn now."""
        if self.next_pool is None:
            self.batches, self.next_cursors = self.draw(self.position.pool, self.position.cursors)
        else:
            self.batches, self.next_cursors = self.next_pool.result()
            self.next_pool = None

    def draw(self, pool, cursors):
        """The pool of this number, cut into batches, and the cursors after it."""
        rng = np.random.default_rng([self.seed, pool])
        cursors = dict(cursors)
        rows = []
        drawn = 0
        # No more rows than there are examples: else copies of one, which are of like length, would
        # fill the batches of a small data set.
        while drawn < self.tokens * self.pool_size and len(rows) < self.pass_size:
            pair = self.pairs[rng.choice(len(self.pairs), p=self.weights)]
            name = "-".join(pair)
            cursor = cursors.get(name, 0)
            cursors[name] = cursor + 1
            row = self.examples(pair, self.index(pair, cursor))
            rows.append(row)
            drawn += row.length
        batches = batches_of_like_length(rows, self.tokens)
        order = rng.permutation(len(batches))
        shuffled = [batches[i] for i in order]
        return shuffled, cursors

    def __iter__(self):
        return self

    def __next__(self):
        if self.batches is None:
            self.fill()
        if self.next_pool is None:
            next_number = self.position.pool + 1
            self.next_pool = BESIDE_TRAINING.submit(self.draw, next_number, self.next_cursors)
        rows = self.batches[self.position.batch]
        batch = collate(rows, self.position.number, self.name)
        self.position.batch += 1
        self.position.number += 1
        if self.position.batch == len(self.batches):
            self.position.pool += 1
            self.position.batch = 0
            self.position.cursors = self.next_cursors
            self.batches = None
        return batch

    def state_dict(self):
        return asdict(self.position)

    def load_state_dict(self, state):
        if self.next_pool is not None:  # of another position
            wait([self.next_pool])
            self.next_pool = None
        self.position = Position(**state)
        self.batches = None
