"""Data sets in files with one example a line: JSON objects, or line-aligned plain text.

A file is read once to check every line; after that only the place of each line is in memory. What
a .gz file holds is first written to a temporary file, for places in it cannot be gone to. A data
set has `sizes`, {(source language, target language): number of examples}, and `text(pair, index)`,
the (source, target) of one.
"""
import gzip
import json
import os
import re
import tempfile
import unicodedata
import zlib
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from plumbing.files import SURROGATE, UserError, quoted, refuse_pointer, unreadable
from plumbing.layout import MBART50, close_language
from plumbing.progress import bytes_bar

MARK = b"\xef\xbb\xbf"  # a byte order mark, which some editors put before a file's text
SPACELESS_BLOCKS = (  # scripts that put no space between words
    (0x0E00, 0x0EFF),    # Thai, Lao
    (0x1000, 0x109F),    # Burmese
    (0x1780, 0x17FF),    # Khmer
    (0x3005, 0x3007),    # Japanese marks of repetition
    (0x3040, 0x30FF),    # Hiragana, Katakana
    (0x3400, 0x9FFF),    # Han
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def spaceless_words():
    """The pattern of a word of these scripts: one letter with the marks that belong to it."""
    letters = ""
    marks = ""
    for first, last in SPACELESS_BLOCKS:
        if last - first > 1000:  # Han: letters throughout
            letters += f"{chr(first)}-{chr(last)}"
            continue
        for character in map(chr, range(first, last + 1)):
            kind = unicodedata.category(character)[0]
            if kind == "L":
                letters += character
            elif kind == "M":
                marks += character
    return re.compile(f"[{letters}][{marks}]*")


SPACELESS = spaceless_words()
UNSEEN = "".join(map(chr, range(33))) + "\x7f"  # ASCII's spaces and control characters


@dataclass
class Line:
    """A line of a file as it was read."""
    number: int     # from 1
    offset: int     # of its first byte in the file
    content: bytes


def open_lines(path):
    """A file of lines, open to be read as bytes; for a .gz file what it holds. UserError if it is
    missing or damaged, or may not be read."""
    path = Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path}: {why_no_file(path)}")
        refuse_pointer(path)
        if path.suffix == ".gz":
            return unpack(path)
        return open(path, "rb")
    except OSError as error:
        raise unreadable(path, error) from None


def why_no_file(path):
    """In words, why there is no file of lines at `path`, and what to do where something like it is
    there."""
    packed = Path(f"{path}.gz")
    if path.is_dir():
        return "is a folder; join what it holds into one file of this name"
    if packed.is_file():
        return f"not found, only {packed.name}: unpack it (gunzip {quoted(packed)})"
    return "not found"


def unpack(path):
    """What a .gz file holds, as an open file without a name: it is gone when it is closed, however
    this process ends. UserError if it is damaged, or if there is no room for what it holds."""
    file = None
    try:
        file = nameless(path.parent)
        with open(path, "rb") as packed, gzip.open(packed) as content:
            with bytes_bar(os.path.getsize(path), f"unpacking {path.name}") as bar:
                while part := content.read(2**20):
                    file.write(part)
                    bar.update(packed.tell() - bar.n)
        file.flush()  # or a full disk would first be noticed when the file is read
    except (OSError, EOFError, zlib.error) as error:
        if file is not None:
            with suppress(OSError):  # closing writes what the full disk did not take once more
                file.close()
        raise UserError(
            f"{path}: cannot be unpacked ({error}); copy it again, or make room for what it holds"
        ) from None
    return file


def nameless(folder):
    """A file without a name in a folder, or among the temporary files where that cannot be."""
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:
        return tempfile.TemporaryFile()


def read_lines(path, file):
    """Yields the Lines of a file; UserError if it is empty. file: what open_lines() gave for it."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        raise UserError(f"{path}: the file is empty; it needs at least one example")
    file.seek(0)
    offset = 0
    with bytes_bar(size, f"reading {path.name}") as bar:
        for number, content in enumerate(file, 1):
            # Behind the first line too: files that were put together bring theirs along.
            text = content.removeprefix(MARK)
            yield Line(number, offset + len(content) - len(text), text)
            offset += len(content)
            bar.update(len(content))


# A thread reads ahead (data.Batches): should two streams share a data set, neither may seek between
# the other's seek and its reading.
READING = Lock()


def read_line(file, offset):
    with READING:
        file.seek(offset)
        return file.readline()


def state_of(file):
    """What tells at no cost whether an open file has changed: its bytes, and when it was written
    to last, in nanoseconds."""
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns


def changed(path, reason):
    return UserError(f"{path}: changed after it was opened ({reason}); start again")


def is_blank(text):
    """Has a text nothing but spaces and characters without a shape, such as U+200B? A vocabulary
    has no piece for these."""
    if text.isascii():
        return not text.strip(UNSEEN)
    return all(unicodedata.category(character)[0] in "CZ" for character in text)


def decoded(content):
    """The text of a line's bytes; UserError if they are not UTF-8."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        where = f"{error.reason}, byte {error.start} of the line"
        raise UserError(f"not UTF-8 ({where}); save the file as UTF-8") from None
    if "\0" in text:  # every second byte of English in UTF-16
        raise UserError("has NUL characters: save a file in UTF-16 as UTF-8, or remove them")
    return text


def count_words(text):
    """How many words a text has; a character of a script without spaces counts as one."""
    if text.isascii():
        return len(text.split())
    rest, letters = SPACELESS.subn(" ", text)
    words = rest.split()
    if letters:  # marks of punctuation stood between the letters
        words = [word for word in words if any(map(str.isalnum, word))]
    return letters + len(words)


class LineFiles:
    """What both kinds of data set have: how bad and short examples are treated, and their counts.
    `fingerprint` tells whether a file has changed: {path: [bytes, CRC-32 of its lines]}.

    skip: bad lines are left out and counted in `skipped`, where they otherwise end the run with
    their file and line. minimum: (words of the source, words of the target) that an example must
    have; fewer are counted in `short`."""

    def __init__(self, skip=False, minimum=(0, 0)):
        self.skip = skip
        self.least_source, self.least_target = minimum
        self.skipped = 0
        self.short = 0
        self.paths = []
        self.fingerprint = {}
        self.states = {}    # {path: its state_of() when its lines were checked}
        self.unpacked = {}  # {path of a .gz: what it holds, as an open file}

    def lines(self, path):
        """read_lines(), which also takes the file's fingerprint: of a .gz that of what it holds.
        That stays open, for line_at()."""
        file = open_lines(path)
        if path.suffix == ".gz":
            self.unpacked[path] = file
            yield from self.measured(path, file)
            return
        with file:
            self.states[path] = state_of(file)
            yield from self.measured(path, file)

    def measured(self, path, file):
        size = 0
        checksum = 0
        for line in read_lines(path, file):
            size += len(line.content)
            checksum = zlib.crc32(line.content, checksum)
            yield line
        self.fingerprint[str(path)] = [size, checksum]

    def line_at(self, path, offset):
        """The text of the line that begins at this byte of a checked file. UserError if that has
        changed since: another line would stand there, or half of one."""
        if path in self.unpacked:
            return read_line(self.unpacked[path], offset).decode("utf-8")
        content, state = self.line_and_state(path, offset)
        while state != self.states[path]:
            self.check_again(path, state)
            content, state = self.line_and_state(path, offset)
        return content.decode("utf-8")

    def line_and_state(self, path, offset):
        try:
            with open(path, "rb") as file:
                content = read_line(file, offset)
                return content, state_of(file)  # behind the reading: or it could change during it
        except OSError as error:
            raise changed(path, error.strerror) from None

    def check_again(self, path, state):
        """A file has another state. UserError unless only its time is another: it may have been
        touched, or copied over itself."""
        size, _ = state
        if size != self.states[path][0]:
            raise changed(path, "it has another size")
        today = LineFiles()
        for _ in today.lines(path):
            pass
        if today.fingerprint[str(path)] != self.fingerprint[str(path)]:
            raise changed(path, "its lines are others")
        self.states[path] = today.states[path]

    def is_short(self, source_words, target_words):
        return source_words < self.least_source or target_words < self.least_target


# ------------------------------------------------------------------------ JSON objects, one a line

@dataclass(frozen=True)
class Fields:
    """The names of an object's fields. A language is None where the whole file is of it."""
    source: str
    target: str
    source_lang: str | None
    target_lang: str | None

    def names(self):
        names = [self.source, self.target, self.source_lang, self.target_lang]
        return [name for name in names if name is not None]


OUR_FIELDS = Fields("source", "target", "source_lang", "target_lang")
LANGUAGE_FIELDS = (  # the names that the fields for the two languages may have
    ("source_lang", "target_lang"),
    ("source_language", "target_language"),
    ("src_lang", "tgt_lang"),
)
SIDES = {}  # {each of these names: 0, the source's, or 1, the target's}
for names in LANGUAGE_FIELDS:
    SIDES |= {names[0]: 0, names[1]: 1}
ONE_LANGUAGE = ("lang", "language")  # a field of these may say both, or name either


@dataclass
class Row:
    """An example as its line holds it."""
    source: str
    target: str
    pair: tuple  # of language codes


@dataclass
class Places:
    """Where the examples of a language pair stand: the i-th in paths[files[i]] at offsets[i]."""
    files: array
    offsets: array


class MixedFile(UserError):
    """A file that is read as of one pair of languages has more: no line of it is good."""


class JsonLines(LineFiles):
    """JSON objects, one a line."""

    def __init__(self, paths, pairs, languages, fields=OUR_FIELDS, names=None, **options):
        """paths: {path: the (source, target) languages of all its lines, or None where every line
        says them}; languages: the model's codes, beside which those of mBART-50 may stand in a
        line; names: {published name of a language: code}, where they are not codes; options:
        LineFiles' own."""
        super().__init__(**options)
        self.languages = languages
        self.fields = fields
        self.names = names or {}
        self.places = {}  # {pair: Places}
        for path, langs in paths.items():
            self.add(path, langs, set(pairs))

    @property
    def sizes(self):
        return {pair: len(places.offsets) for pair, places in self.places.items()}

    def text(self, pair, index):
        places = self.places[pair]
        path = self.paths[places.files[index]]
        row = json.loads(self.line_at(path, places.offsets[index]))
        return row[self.fields.source], row[self.fields.target]

    def add(self, path, langs, pairs):
        """Checks every line of a file, and keeps where those of `pairs` are."""
        self.first_words = {}  # {field for one language: its first word that is no code}
        file_number = len(self.paths)
        self.paths.append(path)
        for line in self.lines(path):
            try:
                row = self.parse(decoded(line.content), langs)
            except MixedFile as error:
                raise UserError(f"{path}:{line.number}: {error}") from None
            except UserError as error:
                if self.skip:
                    self.skipped += 1
                    continue
                raise UserError(
                    f"{path}:{line.number}: {error}; mend or remove the line, or use "
                    "--skip-bad-lines"
                ) from None
            if row.pair not in pairs:
                continue
            if self.is_short(count_words(row.source), count_words(row.target)):
                self.short += 1
                continue
            if row.pair not in self.places:
                self.places[row.pair] = Places(array("h"), array("q"))
            places = self.places[row.pair]
            places.files.append(file_number)
            places.offsets.append(line.offset)

    def parse(self, text, langs=None):
        """A line -> Row; langs: (source, target) of the whole file. UserError for a bad line."""
        found = json_object(text, self.fields.names())
        if langs:
            self.check_languages(found, langs)
        return Row(
            source=found[self.fields.source],
            target=found[self.fields.target],
            pair=langs or (
                self.code(found[self.fields.source_lang]),
                self.code(found[self.fields.target_lang]),
            ),
        )

    def check_languages(self, found, langs):
        """UserError for an object that says other languages than those of the whole file, which
        are taken from its first lines or from the user."""
        for name, said in found.items():
            if not isinstance(said, str):
                continue
            side = SIDES.get(name.lower())
            if side is not None and self.code(said) != langs[side]:
                raise UserError(
                    f"field {name!r} says {said}, but the file is taken for {langs[side]}"
                )
            if name.lower() in ONE_LANGUAGE:
                self.check_word(name, said, langs)

    def check_word(self, name, said, langs):
        """UserError where a field that says one language says another than `langs`. A code or a
        name in English can be compared with them (es, es-ES, spa, Spanish). Other words, such as
        castellano, can be compared with those of earlier lines: a MixedFile where they differ."""
        pair = "-".join(langs)
        meant = close_language(said, MBART50)
        if meant is not None and meant not in langs:
            raise UserError(f"field {name!r} says {said}, but the file is taken for {pair}")
        word = said.strip()[:40]
        if meant is None and word:
            first = self.first_words.setdefault(name, word)
            if word.casefold() != first.casefold():
                raise MixedFile(
                    f"field {name!r} says {word}, earlier lines say {first}, but the file is taken "
                    f"for {pair}: say its languages in source_lang and target_lang, or give the "
                    "field another name"
                )

    def code(self, said):
        """A language's code, from the code or the data set's own name. The model may lack it: a
        file may have more languages than are asked for."""
        if said in self.languages or said in MBART50:
            return said
        if said in self.names:
            return self.names[said]
        hint = ""
        close = close_language(said, self.names or MBART50)
        if close:
            hint = f"; did you mean {close}?"
        raise UserError(f"unknown language {said[:40]!r}{hint}")


def json_object(text, names):
    """The JSON object that a line holds; UserError if it is none, or has no text in a field of one
    of these names."""
    if not text.strip():
        raise UserError("an empty line; each line must be one JSON object")
    try:
        found = json.loads(text, object_pairs_hook=object_of)
    except UserError:
        raise  # which is a ValueError
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON ({error}); each line must be one JSON object") from None
    if not isinstance(found, dict):
        raise UserError(f"expected a JSON object, found {type(found).__name__}")
    for name in names:
        check_field(found, name)
    return found


def object_of(pairs):
    """A JSON object of its (name, value) pairs; UserError where a name stands twice, for which of
    the values is meant nobody can know."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"field {twice!r} stands there twice")
    return found


def check_field(found, name):
    """Is there text in this field of a JSON object?"""
    if name not in found:
        raise UserError(f"field {name!r} must be text, found nothing")
    value = found[name]
    if not isinstance(value, str):
        raise UserError(f"field {name!r} must be text, found {type(value).__name__}")
    if is_blank(value):
        raise UserError(f"field {name!r} is empty")
    if "\0" in value:
        raise UserError(f"field {name!r} has NUL characters (\\u0000); remove them")
    if SURROGATE.search(value):
        raise UserError(f"field {name!r} has half a character (a lone surrogate such as \\ud83d)")


# ------------------------------------------------------------------------- line-aligned plain text

@dataclass
class TextFile:
    """One language's file, checked."""
    path: Path
    offsets: array  # of each line, in bytes
    words: array    # of each line; 0 where it is bad
    bad: set        # numbers of bad lines, from 0


@dataclass
class Column:
    """One language's side of the examples of a pair."""
    path: Path
    offsets: array


@dataclass
class Columns:
    """The examples of a language pair."""
    source: Column
    target: Column


class ParallelText(LineFiles):
    """FOLDER/SPLIT.LANG, plain text: line i of one file translates line i of every other."""

    def __init__(self, folder, split, pairs, **options):
        """options: LineFiles' own."""
        super().__init__(**options)
        files = {}
        bad = set()  # a line that is bad in one language is bad in all
        for code in sorted(set().union(*pairs)):
            files[code] = self.read(Path(folder) / f"{split}.{code}")
            bad |= files[code].bad
        self.skipped = len(bad)
        self.columns = {}  # {pair: Columns}
        for pair in pairs:
            source = files[pair[0]]
            target = files[pair[1]]
            check_aligned(folder, source, target)
            self.columns[pair] = self.side_by_side(source, target, bad)

    @property
    def sizes(self):
        sizes = {}
        for pair, columns in self.columns.items():
            if columns.source.offsets:
                sizes[pair] = len(columns.source.offsets)
        return sizes

    def text(self, pair, index):
        columns = self.columns[pair]
        return self.line_of(columns.source, index), self.line_of(columns.target, index)

    def line_of(self, column, index):
        return self.line_at(column.path, column.offsets[index]).strip()

    def read(self, path):
        """A file -> TextFile; a bad line is a UserError that names it, or is remembered (skip)."""
        self.paths.append(path)
        file = TextFile(path, array("q"), array("i"), set())
        for line in self.lines(path):
            file.offsets.append(line.offset)
            try:
                file.words.append(checked_word_count(decoded(line.content)))
            except UserError as error:
                if not self.skip:
                    raise UserError(
                        f"{path}:{line.number}: {error}, or use --skip-bad-lines"
                    ) from None
                file.words.append(0)
                file.bad.add(line.number - 1)
        if len(file.offsets) == 1 and b"\r" in line.content.rstrip():
            raise UserError(
                f"{path}: its lines end with a carriage return alone, and so are one; save it with "
                "the line ends of Unix or Windows"
            )
        return file

    def side_by_side(self, source, target, bad):
        """The Columns of the lines that are good and long enough in both languages; counts those
        that are too short."""
        columns = Columns(Column(source.path, array("q")), Column(target.path, array("q")))
        for number in range(len(source.offsets)):
            if number in bad:
                continue
            if self.is_short(source.words[number], target.words[number]):
                self.short += 1
                continue
            columns.source.offsets.append(source.offsets[number])
            columns.target.offsets.append(target.offsets[number])
        return columns


def checked_word_count(text):
    """How many words a line has; UserError if it has nothing."""
    if is_blank(text):
        raise UserError("an empty line; remove it from all the files")
    return count_words(text)


def check_aligned(folder, source, target):
    """Have the two files the same number of lines?"""
    if len(source.offsets) != len(target.offsets):
        raise UserError(
            f"{folder}/{source.path.name} has {len(source.offsets)} lines and {target.path.name} "
            f"has {len(target.offsets)}; parallel files must have the same number"
        )
