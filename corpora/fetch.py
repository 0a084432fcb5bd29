"""Published data sets by name: fetched from the Hugging Face hub, written as `--data` reads them.

    python -m corpora.fetch xlsum english spanish russian gujarati     --data xlsum:data/xlsum
    python -m corpora.fetch wikilingua en es ru tr                     --data wikilingua:...
    python -m corpora.fetch wikilingua en es ru es-en ru-en tr-en      and summaries in English

The authors' loading scripts run no longer, but the hub keeps what they gave as Parquet files, on
the branch refs/convert/parquet: CONFIGURATION/SPLIT/0000.parquet or, as of 2023,
CONFIGURATION/NAME-SPLIT.parquet, in parts NAME-SPLIT-00000-of-00002.parquet. A configuration is a
language, in WikiLingua also a pair, es_en, which holds both languages and both directions: of it
only the direction that was named is written. pyarrow reads them (`pip install pyarrow`; `datasets`
brings it along).
"""
import difflib
import json
import re
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from corpora.published import WIKILINGUA_CODES, XLSUM_NAMES, XLSUM_SPLITS
from plumbing.files import (
    UserError,
    beside_python,
    flush_to_disk,
    make_folder,
    parser_of,
    quoted,
    run,
    saving,
    write_text,
)
from plumbing.hub import OutOfReach, Repository
from plumbing.progress import progress_line

BRANCH = "refs/convert/parquet"
SPLITS = ("train", "validation", "test")
ROWS = 256  # of a Parquet file in memory at a time
LICENCE_FILE = "LICENCE.txt"


@dataclass(frozen=True)
class Published:
    """A data set that the hub has."""
    repository: str
    title: str
    licence: str
    page: str  # of the licence


SETS = {
    "xlsum": Published(
        repository="csebuetnlp/xlsum",
        title="XL-Sum (Hasan et al. 2021), articles of the BBC and their summaries",
        licence="CC BY-NC-SA 4.0",
        page="https://creativecommons.org/licenses/by-nc-sa/4.0/",
    ),
    "wikilingua": Published(
        repository="GEM/wiki_lingua",
        title="WikiLingua (Ladhak et al. 2020), how-to articles of WikiHow and their summaries",
        licence="CC BY-NC-SA 3.0",
        page="https://creativecommons.org/licenses/by-nc-sa/3.0/",
    ),
}


@dataclass
class Source:
    """A data set on the hub, at one commit, and the names of its files."""
    repository: Repository
    files: list

    def parts(self, configuration, split):
        """The Parquet files of a configuration's split, in their order; UserError if there are
        none."""
        folders = []  # CONFIGURATION/SPLIT/0000.parquet
        plain = []    # CONFIGURATION/NAME-SPLIT.parquet
        for file in sorted(self.files):
            folder, _, name = file.rpartition("/")
            if not name.endswith(".parquet"):
                continue
            if folder == f"{configuration}/{split}":
                folders.append(file)
            if folder == configuration and split_of(name) == split:
                plain.append(file)
        if folders or plain:
            return folders or plain
        raise UserError(
            f"{self.repository.name} has no Parquet files of {configuration}, {split}, on "
            f"{BRANCH}; {self.repository.page} shows what it has"
        )

    def has(self, configuration):
        return any(file.startswith(f"{configuration}/") for file in self.files)

    def rows(self, configuration, split):
        """Yields the examples of a split as {column: value}."""
        for part in self.parts(configuration, split):
            yield from rows_of(self.repository.fetch(part))


def split_of(name):
    """The split that a file's name tells: wiki_lingua-sampled_test.parquet, sampled_test."""
    name = re.sub(r"(-\d+-of-\d+)?\.parquet$", "", name)
    return name.rpartition("-")[2]


def reader():
    """pyarrow's reader of Parquet files; UserError where it is not installed."""
    try:
        import pyarrow.parquet  # late: it is installed for this program alone
    except ImportError:
        raise UserError(
            f"reading the hub's Parquet files needs pyarrow: `{beside_python('pip')} install "
            "pyarrow` (or `datasets`, which brings it along)"
        ) from None
    return pyarrow.parquet


def rows_of(path):
    parquet = reader()
    from pyarrow import ArrowException  # some of which are neither ValueErrors nor OSErrors

    try:
        for batch in parquet.ParquetFile(path).iter_batches(ROWS):
            yield from batch.to_pylist()
    except (ArrowException, ValueError, OSError) as error:
        # What a link in the hub's cache leads to: were the link alone removed, its library would
        # link to that again.
        file = Path(path).resolve()
        raise UserError(
            f"{path}: damaged ({error}); remove {file}, and it is fetched again"
        ) from None


# -------------------------------------------------------------------------------- the two data sets

def fetch_xlsum(source, out, languages, overwrite, licence):
    """Writes a file for each language and split, and with it the licence; those that are there
    already stay."""
    for language in languages:
        for split, name in zip(SPLITS, XLSUM_SPLITS.values()):
            path = out / f"{language}_{name}.jsonl"
            if path.exists() and not overwrite:
                print(f"{path} is there already; --overwrite replaces it")
                continue
            with saving(path) as temporary:
                told = write_rows(path, temporary, source.rows(language, split))
                add_licence(out, licence)
            # Not before: a pipe that nobody reads any more would cost what was fetched.
            print(told, flush=True)


def fetch_wikilingua(source, out, pairs, overwrite, licence):
    """Writes a file for each split, of all pairs of languages together, and the licence.

    Splits of different languages would not belong together: until all are fetched the old ones
    stay, and an end between the renamings leaves some of the new ones and none of the old."""
    paths = {split: out / f"{split}.jsonl" for split in SPLITS}
    for path in paths.values():
        if path.exists() and not overwrite:
            raise UserError(
                f"{path} is there already; it holds all languages, so name all that you want at "
                "once, with --overwrite, or another folder with --out"
            )
    for pair in pairs:
        for split in SPLITS:
            source.parts(configuration_of(source, pair), split)  # or the error, before any fetching
    told = []
    with ExitStack() as all_or_none:
        for split, path in paths.items():
            temporary = all_or_none.enter_context(saving(path))
            told.append(write_rows(path, temporary, rows_of_pairs(source, pairs, split)))
            flush_to_disk(temporary)  # here, so that the renamings follow one another at once
        add_licence(out, licence)
        for path in paths.values():  # an end between the renamings must not leave old beside new
            path.unlink(missing_ok=True)
    write_text(out / LICENCE_FILE, licence)  # nothing of another commit is left
    for line in told:
        print(line, flush=True)


def check_licence(out, published):
    """UserError for a folder whose licence file is of other data."""
    path = out / LICENCE_FILE
    if path.is_file() and published.title not in licence_in(path):
        raise UserError(
            f"{path} is not of {published.title}, and a folder holds one data set; name another "
            "folder with --out"
        )


def add_licence(out, licence):
    """Puts a licence into its file, beside those of files from earlier commits."""
    path = out / LICENCE_FILE
    before = licence_in(path) if path.is_file() else ""
    if licence not in before:
        write_text(path, before + licence)


def licence_in(path):
    return path.read_text(encoding="utf-8", errors="replace")


def rows_of_pairs(source, pairs, split):
    """Yields the examples of each pair of languages; UserError for a pair without any."""
    for pair in pairs:
        found = 0
        for row in source.rows(configuration_of(source, pair), split):
            if (row.get("source_language"), row.get("target_language")) == pair:
                found += 1
                yield row
        if not found:
            raise UserError(
                f"{source.repository.name} has no example of {'-'.join(pair)} in {split}; leave "
                "that pair out"
            )


def configuration_of(source, pair):
    """The configuration that holds a pair of languages: es, or es_en, else en_es."""
    if pair[0] == pair[1]:
        return pair[0]
    both = "_".join(pair)
    if source.has(both):
        return both
    return "_".join(reversed(pair))


def xlsum_name(word):
    """english or en_XX -> english."""
    return known_word(word, XLSUM_NAMES)


def pair_of(word):
    """es or es-en -> (source, target), in WikiLingua's own names."""
    parts = word.split("-")
    if len(parts) > 2:
        raise UserError(f"{word}: name a language, es, or a pair, es-en")
    own = {code: name for name, code in WIKILINGUA_CODES.items()}
    languages = [known_word(part, own) for part in parts]
    return languages[0], languages[-1]


def known_word(word, names):
    """A data set's own name of a language, from that name, from our code or from the language in
    it: english, en_XX or en, however they are capitalized; names: {code: name}."""
    for code, name in names.items():
        if word.lower() in (name, code.lower(), code.split("_")[0]):
            return name
    close = difflib.get_close_matches(word.lower(), names.values(), 1)
    hint = f"; did you mean {close[0]}?" if close else "."
    raise UserError(f"unknown language {word!r}{hint} It has {' '.join(names.values())}")


def write_rows(path, temporary, rows):
    """Writes {column: value} as JSON, one a line, under a file's temporary name; returns the line
    that says how many of which languages."""
    counts = Counter()
    with open(temporary, "w", encoding="utf-8") as file:
        for row in progress_line(rows, f"writing {path.name}", unit=" examples"):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            counts[languages_in(row)] += 1
    each = ", ".join(f"{name}: {count:,}" for name, count in counts.items() if name)
    told = f"{path}: {counts.total():,} examples"
    if each:
        told += f" ({each})"
    return told


def languages_in(row):
    source = row.get("source_language")
    target = row.get("target_language")
    if source == target:
        return source
    return f"{source}-{target}"


# ------------------------------------------------------------------------------------- the program

def parse_args(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("name", choices=SETS, help="the data set")
    add(
        "languages",
        nargs="+",
        metavar="LANGUAGE",
        help="by name (xlsum: english) or code (en, en_XX); of wikilingua pairs too (es-en)",
    )
    add("--out", metavar="FOLDER", help="where to write (default: data/xlsum, data/wikilingua)")
    add("--overwrite", action="store_true", help="replace files that are there already")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    published = SETS[args.name]
    read_name = pair_of
    if args.name == "xlsum":
        read_name = xlsum_name
    wanted = list(dict.fromkeys(read_name(word) for word in args.languages))
    reader()
    out = Path(args.out or f"data/{args.name}")
    try:
        fetch(published, args.name, wanted, out, args.overwrite)
    except OutOfReach as error:
        raise UserError(
            f"{error}; start again with a network and without HF_HUB_OFFLINE, or copy {out} from a "
            "machine that has it"
        ) from None
    print(f"use it with --data {quoted(f'{args.name}:{out}')}")


def fetch(published, name, wanted, out, overwrite):
    """Writes what is wanted of a published data set into the folder `out`, with its licence."""
    check_licence(out, published)
    branch = Repository(published.repository, BRANCH, "dataset")
    commit, files = branch.ask()
    source = Source(replace(branch, revision=commit), files)
    make_folder(out)
    licence = (
        f"{published.title}\nfrom {branch.page}, {BRANCH} at {commit}\n"
        f"licence: {published.licence}, {published.page}\n"
    )
    print(licence, end="", flush=True)
    # It is written after a data file's content and before its renaming: no data file ever stands
    # without it, and it names no commit of which nothing was fetched.
    if name == "xlsum":
        fetch_xlsum(source, out, wanted, overwrite, licence)
    else:
        fetch_wikilingua(source, out, wanted, overwrite, licence)


if __name__ == "__main__":
    run(main)
