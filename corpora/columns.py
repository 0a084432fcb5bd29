"""Which columns of a JSON lines file are the source and the target, where they have other names.

Data sets call them text and summary, document and summary, src and tgt, and so on. The first lines
of a file show which it has; where that leaves a choice, the choice is the user's.
"""
import gzip
import json
import zlib
from dataclasses import dataclass
from itertools import islice

from corpora.lines import LANGUAGE_FIELDS, MARK, OUR_FIELDS, Fields
from plumbing.files import UserError

SOURCES = ("source", "src", "text", "document", "article", "dialogue")
TARGETS = ("target", "tgt", "summary", "highlights")
LOOK = 100  # lines that show which columns a file has


@dataclass
class Taken:
    """What of a file's columns is taken for what."""
    fields: Fields
    langs: tuple | None  # (source, target) of every line, where no column says it
    note: str            # that in words; "" where the names are our own


def columns_of(path, pairs):
    """A file -> Taken. pairs: the (source, target) languages that are asked for; a single one is
    that of a file without columns for its languages. UserError where the columns leave a choice."""
    columns = first_columns(path)
    if not columns:  # who reads the file says what is wrong with it
        return Taken(OUR_FIELDS, None, "")
    source, target = text_columns(path, columns)
    source_lang, target_lang = language_columns(columns)
    langs = None
    if source_lang is None:
        langs = only_pair(path, pairs)
    fields = Fields(source, target, source_lang, target_lang)
    return Taken(fields, langs, in_words(fields, langs))


def first_columns(path):
    """The names of the columns of each JSON object among a file's first lines."""
    opened = gzip.open if path.suffix == ".gz" else open
    columns = []
    try:
        with opened(path, "rb") as file:
            for line in islice(file, LOOK):
                found = as_object(line)
                if found:
                    columns.append(list(found))
    except (OSError, EOFError, zlib.error):  # said by who reads it
        return []
    return columns


def as_object(content):
    """The JSON object in a line's bytes; None if it is none."""
    try:
        found = json.loads(content.removeprefix(MARK).decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def text_columns(path, columns):
    """The columns of source and target: of the first object that has both, for a single line may be
    bad. UserError, about the first of them, if none has."""
    first = None
    for names in columns:
        try:
            if "source" in names and "target" in names:
                return "source", "target"
            source = only_one(path, names, "source", SOURCES)
            return source, only_one(path, names, "target", TARGETS)
        except UserError as error:
            first = first or error
    raise first


def only_one(path, names, side, known):
    """The only column among `names` that is known as the source or the target. Ours counts no more
    than another: without its partner, `source` may say where an article was published."""
    found = [name for name in known if name in names]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(names)
    if found:
        raise UserError(
            f"{path}: {' and '.join(found)} could both be the {side} (its columns: {listed}); "
            f"rename the right one to {side!r}, and let no other be known as one"
        )
    raise UserError(
        f"{path}: none of its columns is known as the {side} ({listed}); rename the right one to "
        f"{side!r}"
    )


def language_columns(columns):
    """The columns for the languages of source and target; (None, None) where no object has them."""
    for pair in LANGUAGE_FIELDS:
        for names in columns:
            if pair[0] in names or pair[1] in names:
                return pair
    return None, None


def only_pair(path, pairs):
    pairs = list(pairs)
    if len(pairs) == 1:
        return pairs[0]
    raise UserError(
        f"{path}: no column says the languages; add source_lang and target_lang to every line, or "
        "name the one pair of languages that the file has, if this program has an option for that "
        "(--langs with one language, or --pairs en_XX-es_XX)"
    )


def in_words(fields, langs):
    said = []
    if (fields.source, fields.target) != (OUR_FIELDS.source, OUR_FIELDS.target):
        said.append(f"{fields.source!r} is taken for the source, {fields.target!r} for the target")
    if langs is not None:
        said.append(f"every line for {'-'.join(langs)}")
    elif fields.source_lang != OUR_FIELDS.source_lang:
        said.append(f"{fields.source_lang!r} and {fields.target_lang!r} for their languages")
    return ", ".join(said)
