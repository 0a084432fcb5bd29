"""Data sets of (source, target) texts: the built-in corpus, JSON lines and line-aligned plain text.

`--data SPEC` names one: `builtin`, `jsonl:DIR`, `parallel:DIR`. Each is an object with `sizes` ({(source language,
target language): number of examples, or None for a stream without end}) and `text(pair, index)`. Files are read once
to check every line; after that only the place of each line is in memory.
"""
import difflib
import json
import random
from array import array
from functools import cached_property
from pathlib import Path

from corpus import BASE_LANGUAGES, Corpus
from corpus import LANGUAGES as CORPUS_LANGUAGES
from model import UserError

MIXED_SHARE, MIXING_RATE = 0.7, 0.5  # of the pretraining documents; of the slots in such a document
HEADLINE_ALONE, HEADLINE_FIRST = 0.2, 0.3  # of the pretraining documents


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
