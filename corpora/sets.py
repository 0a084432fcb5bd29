"""Data sets of (source, target) texts by their names: what `--data SPEC` opens.

    builtin           the built-in corpus
    builtin:SHARE     the same; in pretraining so large a share (0 to 1) of the code-mixed documents
                      has a target in one language (corpora.builtin.SOURCE_ALONE: as `builtin`)
    jsonl:DIR         DIR/{train,valid,test}.jsonl or .jsonl.gz, a JSON object a line: source,
                      target, source_lang, target_lang, or other names (corpora/columns.py)
    parallel:DIR      DIR/{train,valid,test}.LANG, line i of one file translates line i of another
    xlsum:DIR         XL-Sum as published (Hasan et al. 2021): english_train.jsonl, ...
    wikilingua:DIR    WikiLingua (Ladhak et al. 2020) as GEM exports it: train.jsonl, ...
    help:DIR          LibreOffice's help as `python -m corpora.help DIR` prepares it; help: alone
                      reads data/help

A data set has `sizes` ({(source language, target language): number of examples, or None for a
stream without end}) and `text(pair, index)`, the (source, target) of one example.
"""
import math
from pathlib import Path

from corpora.builtin import SOURCE_ALONE, Builtin
from corpora.columns import columns_of, first_columns, language_columns
from corpora.help import FOLDER, check_prepared, open_help
from corpora.lines import JsonLines, ParallelText
from corpora.published import open_wikilingua, open_xlsum
from plumbing.files import (
    UserError,
    beside_python,
    check_searchable,
    note,
    note_once,
    quoted,
)
from plumbing.progress import progress_line

KINDS = ("jsonl", "parallel", "xlsum", "wikilingua", "help")


def open_data(
    spec,
    stage,
    split,
    pairs,
    languages,
    seed=0,
    skip=False,
    minimum=(0, 0),
    name_missing=True,
):
    """`--data SPEC` -> a data set of the (source, target) language pairs. UserError for what cannot
    be read.

    languages: all codes that the tokenizer knows; skip, minimum: see corpora.lines.LineFiles (the
    built-in corpus has no use for them); name_missing: say which of the pairs have no example."""
    if is_builtin(spec):
        return Builtin(stage, split, pairs, seed, share_of(spec))
    data = open_files(spec, stage, split, pairs, languages, skip=skip, minimum=minimum)
    if data.skipped or data.short:
        note(
            f"{spec}, {split}: left out {data.skipped:,} bad lines and {data.short:,} examples "
            "that are too short"
        )
    if not data.sizes:
        wanted = " ".join("-".join(pair) for pair in list(pairs)[:6])
        more = " ..." if len(pairs) > 6 else ""
        left_out = ""
        if data.skipped or data.short:
            left_out = f", or mend the {data.skipped + data.short:,} that were left out"
        raise UserError(
            f"{data.paths[0]}: no example in the languages asked for ({wanted}{more}); name those "
            f"that it has{left_out}"
        )
    if name_missing:
        note_missing(data, f"{spec}, {split}", pairs)
    return data


def kind_of(spec):
    """Of `--data KIND:FOLDER`, or KIND alone, the kind."""
    return spec.partition(":")[0]


def is_builtin(spec):
    """Does `--data SPEC` mean the built-in corpus, whatever share it asks for?"""
    return kind_of(spec) == "builtin"


def data_option(spec, skip_bad_lines=False):
    """The options for these data behind a command, " --data SPEC --skip-bad-lines"; "" for the
    built-in corpus, which is its default."""
    if spec == "builtin":
        return ""
    options = f" --data {quoted(spec)}"
    if skip_bad_lines:
        options += " --skip-bad-lines"
    return options


def is_help(spec):
    """Does `--data SPEC` mean LibreOffice's help, in whatever folder?"""
    return kind_of(spec) == "help"


def has_small_base(spec):
    """Has the data set of `--data SPEC` a small base of its own? The small preset is its then."""
    return is_builtin(spec) or is_help(spec)


def preset_option(spec, is_small):
    """The option of a suggested run of train.py on these data without which a small model would
    get the large preset, for which all files are; "" where none is needed. is_small: is it one?"""
    if is_small and not has_small_base(spec):
        return " --preset small"
    return ""


def folder_of(spec):
    """The folder that `--data SPEC` names, or help: means; None for the built-in corpus."""
    if is_builtin(spec):
        return None
    _, _, name = spec.partition(":")
    return Path(name or FOLDER)


def can_copy(spec):
    """Is a translation within one language in the data set of `--data SPEC` the text itself? In
    other data sets it may be a summary."""
    return kind_of(spec) in ("builtin", "parallel", "help")


def has_translations(spec):
    """May the data set of `--data SPEC` have translations? XL-Sum and WikiLingua are of summaries.
    """
    return kind_of(spec) not in ("xlsum", "wikilingua")


def share_of(spec):
    """The share that `builtin:SHARE` asks for; UserError if it is no number from 0 to 1."""
    _, colon, typed = spec.partition(":")
    if not colon:
        return SOURCE_ALONE
    try:
        share = float(typed)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UserError(f"--data {spec}: expected a share from 0 to 1, as builtin:0.2")
    return share


def note_missing(data, where, pairs):
    """Names the languages, and else the pairs, that were asked for and have no example."""
    there = {lang for pair in data.sizes for lang in pair}
    asked = dict.fromkeys(lang for pair in pairs for lang in pair)
    for lang in asked:
        if lang not in there:
            note(f"{where}: {lang}: no example")
    missing = ["-".join(pair) for pair in pairs if pair not in data.sizes and there >= set(pair)]
    if missing:
        more = f" and {len(missing) - 6} pairs more" if len(missing) > 6 else ""
        note(f"{where}: no example of {' '.join(missing[:6])}{more}")


def check_spec(spec, skip=False):
    """UserError for `--data SPEC` of no known kind, or with a folder that is not there: said before
    a model is fetched or loaded. skip: --skip-bad-lines, of which a note says where it has no
    effect."""
    if is_builtin(spec):
        share_of(spec)
        if skip:
            note("--skip-bad-lines has no effect with the built-in corpus")
        return
    kind, colon, name = spec.partition(":")
    if kind == "help" and colon:
        check_prepared(name or FOLDER)
        return
    if kind not in KINDS or not name:
        raise UserError(
            f"--data {spec!r}: expected builtin, builtin:SHARE, jsonl:DIR, parallel:DIR, "
            "xlsum:DIR, wikilingua:DIR, help: or help:DIR"
        )
    folder = Path(name)
    if not folder.is_dir():
        hint = ""
        if kind in ("xlsum", "wikilingua"):
            hint = f"; `{beside_python()} -m corpora.fetch --help` says how it is fetched"
        raise UserError(f"--data {spec}: there is no folder {folder}{hint}")
    check_searchable(folder)


def open_files(spec, stage, split, pairs, languages, **options):
    """The data set in a folder, KIND:FOLDER."""
    check_spec(spec)
    kind = kind_of(spec)
    folder = folder_of(spec)
    if kind == "help":
        return open_help(folder, stage, split, pairs, languages, **options)
    if kind == "parallel":
        return ParallelText(folder, split, pairs, **options)
    if kind == "jsonl":
        return open_jsonl(folder, split, pairs, languages, **options)
    if kind == "xlsum":
        return open_xlsum(folder, split, pairs, languages, **options)
    return open_wikilingua(folder, split, pairs, languages, **options)


def open_jsonl(folder, split, pairs, languages, **options):
    """SPLIT.jsonl, or SPLIT.jsonl.gz where that alone is there; says how its columns are taken."""
    path = jsonl_file(folder, split)
    taken = columns_of(path, pairs)
    if taken.note:
        note_once(f"jsonl:{folder}: {taken.note}")
    return JsonLines({path: taken.langs}, pairs, languages, taken.fields, **options)


def jsonl_file(folder, split):
    path = folder / f"{split}.jsonl"
    packed = folder / f"{split}.jsonl.gz"
    if packed.exists() and not path.exists():
        return packed
    return path


def says_no_languages(spec, split):
    """Is this a jsonl:DIR whose lines have no columns for their languages? All are of one pair."""
    if kind_of(spec) != "jsonl":
        return False
    columns = first_columns(jsonl_file(folder_of(spec), split))  # none, where there is no file
    return bool(columns) and language_columns(columns)[0] is None


def pairs_within(spec, langs):
    """Every (source, target) pair of these languages that the data set of `--data SPEC` can have.
    """
    if kind_of(spec) == "xlsum":  # summaries in the document's own language only
        return [(lang, lang) for lang in langs]
    return [(source, target) for source in langs for target in langs]


def texts_of(spec, stage, pairs, languages, stream=20_000, skip=False):
    """Yields every text of a data set's three splits; of an endless one the first `stream` training
    examples of each pair, and a tenth as many of validation and test."""
    for split in ("train", "valid", "test"):
        data = open_data(spec, stage, split, pairs, languages, skip=skip)
        of_stream = stream if split == "train" else stream // 10
        counts = {}
        for pair, size in data.sizes.items():
            counts[pair] = of_stream if size is None else size
        total = sum(counts.values())
        with progress_line(title=f"reading {split}", total=total, unit="text") as bar:
            for pair, count in counts.items():
                for index in range(count):
                    yield from data.text(pair, index)
                    bar.update()
