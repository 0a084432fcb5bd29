"""Files with one example a line."""
import difflib
import json
from array import array
from pathlib import Path

from tqdm import tqdm

from plumbing.files import UserError


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
