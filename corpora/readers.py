"""Data sets of (source, target) texts: the built-in corpus, JSON lines, line-aligned text, XL-Sum and WikiLingua.

`--data SPEC` names one:
    builtin           the built-in corpus
    jsonl:DIR         DIR/{train,valid,test}.jsonl, a JSON object a line: source, target, source_lang, target_lang
    parallel:DIR      DIR/{train,valid,test}.LANG, line i of one file translates line i of the others
    xlsum:DIR         XL-Sum as published (Hasan et al. 2021): english_train.jsonl, english_val.jsonl, ...
    wikilingua:DIR    WikiLingua (Ladhak et al. 2020) as GEM exports it: train.jsonl, validation.jsonl, test.jsonl
Each is an object with `sizes` ({(source language,
target language): number of examples, or None for a stream without end}) and `text(pair, index)`. Files are read once
to check every line; after that only the place of each line is in memory.
"""
import difflib
import json
import random
import sys
from array import array
from functools import cached_property
from pathlib import Path

from tqdm import tqdm

from corpora.facts import BASE_LANGUAGES, Corpus
from corpora.facts import LANGUAGES as CORPUS_LANGUAGES
from plumbing.files import UserError

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
    """Examples in files, one a line; only the place of each line is kept in memory.

    skip: bad lines are left out and counted in `skipped`, where they otherwise end the run with their file and line.
    minimum: (words of the source, words of the target) that an example must have; fewer are counted in `short`."""

    def __init__(self, skip=False, minimum=(0, 0)):
        self.places, self.paths = {}, []  # {pair: (array of file numbers, array of byte offsets)}
        self.skip, self.minimum, self.skipped, self.short = skip, minimum, 0, 0

    @property
    def sizes(self):
        return {pair: len(offsets) for pair, (_, offsets) in self.places.items()}

    def add(self, path, parse, pairs):
        """Checks every line with parse(text) -> (source, target, pair), and keeps where those of `pairs` are."""
        self.paths.append(path)
        for number, offset, line in lines(path):
            try:
                source, target, pair = parse(decoded(line))
            except UserError as error:
                if self.skip:
                    self.skipped += 1
                    continue
                raise UserError(f"{path}:{number}: {error}; mend or remove the line, or use --skip-bad-lines") from None
            if pair not in pairs:
                continue
            if len(source.split()) < self.minimum[0] or len(target.split()) < self.minimum[1]:
                self.short += 1
                continue
            files, offsets = self.places.setdefault(pair, (array("h"), array("q")))
            files.append(len(self.paths) - 1)
            offsets.append(offset)

    def line(self, pair, index):
        files, offsets = self.places[pair]
        with open(self.paths[files[index]], "rb") as file:
            file.seek(offsets[index])
            return file.readline().decode("utf-8")


class Rows(Lines):
    """JSON objects, one a line; `fields` names (source, target, source language, target language). A published data
    set that says its language in the file's name has None there."""

    def __init__(self, paths, pairs, fields, languages, names=None, **options):
        """paths: {path: language or None}; names: {published name of a language: code}, where they are not codes."""
        super().__init__(**options)
        self.fields, self.languages, self.names = fields, languages, names
        for path, lang in paths.items():
            self.add(path, lambda text, lang=lang: self.parse(text, lang), set(pairs))

    def parse(self, text, lang=None):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"not JSON ({error}); each line must be one JSON object") from None
        if not isinstance(row, dict):
            raise UserError(f"expected a JSON object, found {type(row).__name__}")
        for name in filter(None, self.fields):
            if not isinstance(row.get(name), str):
                raise UserError(f"field {name!r} must be text, found "
                                + (type(row[name]).__name__ if name in row else "nothing"))
            if not row[name].strip():
                raise UserError(f"field {name!r} is empty")
        source, target, *langs = (row[name] if name else lang for name in self.fields)
        return source, target, tuple(lang if lang in self.languages else self.code(lang) for lang in langs)

    def code(self, name):
        if self.names and name in self.names:
            return self.names[name]
        close = difflib.get_close_matches(name, self.names or self.languages, 1, 0.4)
        raise UserError(f"unknown language {name[:40]!r}" + (f"; did you mean {close[0]}?" if close else ""))

    def text(self, pair, index):
        row = json.loads(self.line(pair, index))
        return row[self.fields[0]], row[self.fields[1]]


class Parallel(Lines):
    """DIR/{train,valid,test}.LANG, plain text, line i of one file translates line i of every other."""

    def __init__(self, folder, split, pairs, **options):
        super().__init__(**options)
        files, bad = {}, set()
        for code in sorted({code for pair in pairs for code in pair}):
            path = Path(folder) / f"{split}.{code}"
            starts, words = array("q"), array("i")
            for number, offset, line in lines(path):
                starts.append(offset)
                try:
                    text = decoded(line)
                    if not text.strip():
                        raise UserError("an empty line; remove it from all the files")
                    words.append(len(text.split()))
                except UserError as error:
                    if not self.skip:
                        raise UserError(f"{path}:{number}: {error}, or use --skip-bad-lines") from None
                    words.append(0)
                    bad.add(number - 1)
            self.paths.append(path)
            files[code] = (len(self.paths) - 1, starts, words)
        self.skipped = len(bad)
        for pair in pairs:
            (_, a, words), (_, b, others) = files[pair[0]], files[pair[1]]
            if len(a) != len(b):
                raise UserError(f"{folder}/{split}.{pair[0]} has {len(a)} lines and {split}.{pair[1]} has {len(b)}; "
                                "parallel files must have the same number")
            good = [i for i in range(len(a)) if i not in bad]
            kept = [i for i in good if words[i] >= self.minimum[0] and others[i] >= self.minimum[1]]
            self.short += len(good) - len(kept)
            self.places[pair] = [(files[code][0], array("q", (files[code][1][i] for i in kept))) for code in pair]

    @property
    def sizes(self):
        return {pair: len(sides[0][1]) for pair, sides in self.places.items() if len(sides[0][1])}

    def text(self, pair, index):
        texts = []
        for number, offsets in self.places[pair]:
            with open(self.paths[number], "rb") as file:
                file.seek(offsets[index])
                texts.append(file.readline().decode("utf-8").strip())
        return tuple(texts)


def decoded(line):
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 ({error.reason}, byte {error.start} of the line); save the file as UTF-8") from None


def lines(path):
    """Yields (line number, byte offset, bytes) of a file; UserError if it is missing or empty."""
    if not Path(path).is_file():
        raise UserError(f"{path}: not found")
    offset = number = 0
    size = Path(path).stat().st_size
    with open(path, "rb") as file, tqdm(total=size, unit="B", unit_scale=True, desc=f"reading {Path(path).name}",
                                        leave=False, disable=size < 50_000_000) as bar:
        for number, line in enumerate(file, 1):
            yield number, offset, line
            offset += len(line)
            bar.update(len(line))
    if not number:
        raise UserError(f"{path}: the file is empty; it needs at least one example")


OUR_FIELDS = ("source", "target", "source_lang", "target_lang")
GEM_FIELDS = ("source", "target", "source_language", "target_language")
SPLITS = {"xlsum": {"train": ("train",), "valid": ("val",), "test": ("test",)},  # as published
          "wikilingua": {"train": ("train",), "valid": ("validation", "sampled_validation"),
                         "test": ("test", "sampled_test")}}
# How XL-Sum (file names) and WikiLingua (fields) call mBART's languages.
XLSUM = {"english": "en_XX", "spanish": "es_XX", "russian": "ru_RU", "turkish": "tr_TR", "gujarati": "gu_IN",
         "french": "fr_XX", "arabic": "ar_AR", "azerbaijani": "az_AZ", "bengali": "bn_IN", "burmese": "my_MM",
         "chinese_simplified": "zh_CN", "hindi": "hi_IN", "indonesian": "id_ID", "japanese": "ja_XX", "korean": "ko_KR",
         "marathi": "mr_IN", "nepali": "ne_NP", "pashto": "ps_AF", "persian": "fa_IR", "portuguese": "pt_XX",
         "sinhala": "si_LK", "swahili": "sw_KE", "tamil": "ta_IN", "telugu": "te_IN", "thai": "th_TH",
         "ukrainian": "uk_UA", "urdu": "ur_PK", "vietnamese": "vi_VN"}
WIKILINGUA = {"en": "en_XX", "es": "es_XX", "ru": "ru_RU", "tr": "tr_TR", "fr": "fr_XX", "de": "de_DE", "ar": "ar_AR",
              "cs": "cs_CZ", "hi": "hi_IN", "id": "id_ID", "it": "it_IT", "ja": "ja_XX", "ko": "ko_KR", "nl": "nl_XX",
              "pt": "pt_XX", "th": "th_TH", "vi": "vi_VN", "zh": "zh_CN"}


def open_data(spec, stage, split, pairs, languages, seed=0, skip=False, minimum=(0, 0)):
    """`--data SPEC` -> a data set of the (source, target) language pairs. UserError for what cannot be read.

    skip, minimum: see Lines; the built-in corpus has no use for them."""
    kind, _, folder = spec.partition(":")
    if spec == "builtin":
        return Builtin(stage, split, pairs, seed)
    if kind not in ("jsonl", "parallel", "xlsum", "wikilingua") or not folder:
        raise UserError(f"--data {spec!r}: expected builtin, jsonl:DIR, parallel:DIR, xlsum:DIR or wikilingua:DIR")
    folder, options = Path(folder), {"skip": skip, "minimum": minimum}
    if not folder.is_dir():
        raise UserError(f"--data {spec}: there is no folder {folder}")
    if kind == "parallel":
        data = Parallel(folder, split, pairs, **options)
    elif kind == "jsonl":
        data = Rows({folder / f"{split}.jsonl": None}, pairs, OUR_FIELDS, languages, **options)
    elif kind == "wikilingua":
        names = [folder / f"{name}.jsonl" for name in SPLITS[kind][split]]
        found = [path for path in names if path.is_file()]
        if not found:
            raise UserError(f"--data {spec}: none of {', '.join(path.name for path in names)} is there")
        data = Rows({found[0]: None}, pairs, GEM_FIELDS, languages, WIKILINGUA, **options)
    else:
        name_of = {code: name for name, code in XLSUM.items()}
        if across := [pair for pair in pairs if pair[0] != pair[1]]:
            raise UserError(f"--data {spec}: XL-Sum has summaries in the document's own language only, not "
                            f"{'-'.join(across[0])}")
        if unknown := [code for code, _ in pairs if code not in name_of]:
            raise UserError(f"--data {spec}: XL-Sum has no {unknown[0]}; it has {' '.join(sorted(name_of))}")
        paths = {folder / f"{name_of[code]}_{SPLITS[kind][split][0]}.jsonl": code for code, _ in pairs}
        data = Rows(paths, pairs, ("text", "summary", None, None), languages, **options)
    if data.skipped or data.short:
        print(f"{spec}, {split}: left out {data.skipped:,} bad lines and {data.short:,} examples that are too short",
              file=sys.stderr)
    if not data.sizes:
        wanted = " ".join("-".join(pair) for pair in list(pairs)[:6])
        raise UserError(f"{data.paths[0]}: no example in the languages asked for ({wanted} ...)")
    return data
