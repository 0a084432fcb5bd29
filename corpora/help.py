"""Real text in six languages: LibreOffice's help, and what packages say of themselves.

    python -m corpora.help                      fetches, prepares and writes data/help
    python train.py --stage summarize --data help: --init FOLDER --langs en_XX --out runs/help

The help (Mozilla Public License 2.0) is the same 2,560 pages in English, Spanish, Russian, Turkish,
French and German, from the packages libreoffice-help-LANG of Debian or Ubuntu; the descriptions of
all packages come in English from the same place. Both are fetched with apt-get, 35 MB, into a
temporary folder, which takes up to 400 MB. Nothing is installed. Where there is no apt, --packages
reads what you put there. If a list of packages does not come, if Debian's main (Ubuntu's main and
universe) is not among them or a language is not whole, nothing is written.

What OUT then holds:
    sections/{train,valid,test}.jsonl      a section's text -> its heading, within each language
    cross/{train,valid,test}.jsonl         the same sections: text in one language, heading in
                                           another, where all six have the section
    descriptions/{train,valid,test}.jsonl  a package's description -> its title, in English
    text/{train,valid,test}.jsonl          plain text for pretraining: windows of a page as it is
                                           read, cut so that most make fewer than 250 tokens
    paragraphs/{train,valid,test}.LANG     line i of one file translates line i of every other
    README.md                              versions, licences, counts; written last

Pages are split by a hash of their path, packages by a hash of their name: 85%, 5% and 10%. What was
left in English by the translators goes, and so does what repeats: pages share paragraphs, and
validation and test keep none of 8 words or more that an earlier split has (text/ and paragraphs/
keep none at all). Of a sentence of more than 700 characters text/ has the beginning. The
same packages give the same bytes.
"""
import hashlib
import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from corpora.lines import JsonLines, ParallelText, count_words
from corpora.packages import (
    by_hand,
    description_files,
    fetch,
    read_descriptions,
    unpacked,
    version_of,
)
from corpora.pages import read_page, sections_of, shortened, windows
from plumbing.files import (
    UserError,
    beside_python,
    check_place,
    check_searchable,
    parser_of,
    quoted,
    run,
    saving,
    size_and_checksum,
    temporary_folder,
)
from plumbing.progress import progress_line

LANGUAGES = {  # as a package's name ends: our code
    "en-us": "en_XX",
    "es": "es_XX",
    "ru": "ru_RU",
    "tr": "tr_TR",
    "fr": "fr_XX",
    "de": "de_DE",
}
ENGLISH = "en_XX"
PACKAGES = [f"libreoffice-help-{name}" for name in LANGUAGES]
SPLITS = ("train", "test", "valid")  # in this order: a later one keeps nothing of an earlier one
JSONL_FOLDERS = ("sections", "cross", "descriptions", "text")
FOLDERS = (*JSONL_FOLDERS, "paragraphs")
README = "README.md"

FEWEST_DESCRIPTIONS = 20_000  # Debian's main has 64,000, its security updates 3,500

LONG = 8  # words from which on a paragraph that repeats is no chance
SHORTEST_WINDOW = 20  # words, as those below
SHORTEST_PARAGRAPH = 3  # in English
LONGEST_PARAGRAPH = 60
SHORTEST_DESCRIPTION = 10
FOLDER = Path("data/help")


def split_of(name):
    """The split of a page's path or a package's name."""
    number = int(hashlib.md5(name.encode("utf-8")).hexdigest(), 16) % 20
    if number < 2:
        return "test"
    if number == 2:
        return "valid"
    return "train"


def file_names():
    """The files of a prepared folder, but for README."""
    names = []
    for folder in JSONL_FOLDERS:
        names += [f"{folder}/{split}.jsonl" for split in SPLITS]
    for split in SPLITS:
        names += [f"paragraphs/{split}.{code}" for code in LANGUAGES.values()]
    return names


def is_long(text):
    return count_words(text) >= LONG


# ------------------------------------------------------------------------------ pages, aligned

def read_pages(files):
    """{path of a page: {code: its Blocks}} of the unpacked packages {code: folder}."""
    paths = []
    for code, folder in files.items():
        base = folder / "usr" / "share" / "libreoffice" / "help"
        found = sorted(base.glob("*/text/**/*.html"))
        if not found:
            raise UserError(f"{folder}: no page in usr/share/libreoffice/help/LANG/text; unpack "
                            "the package's .deb there")
        for path in found:
            # Below LANG/text/ a page has the same name in every language.
            name = path.relative_to(base).as_posix().partition("/text/")[2]
            paths.append((code, name, path))
    check_whole(files, Counter(code for code, _, _ in paths))
    pages = {}
    for code, name, path in progress_line(paths, "reading pages", unit="page"):
        pages.setdefault(name, {})[code] = read_page(path)
    mark_untranslated(pages)
    return pages


def check_whole(files, numbers):
    """UserError if a language has less than half as many pages as another: its package was not
    unpacked to the end, and what needs all six languages would lack the rest of them."""
    most = max(numbers.values())
    for code, folder in files.items():
        if numbers[code] < most / 2:
            raise UserError(
                f"{folder} has {numbers[code]:,} of the {most:,} pages of another language: it is "
                "not whole; unpack the package's .deb there again"
            )


def mark_untranslated(pages):
    """Marks the Blocks that another language has word for word as English has them: here, or if
    they are long anywhere."""
    everywhere = set()
    for page in pages.values():
        everywhere.update(block.text for block in page.get(ENGLISH, []) if is_long(block.text))
    for page in pages.values():
        english = {block.id: block.text for block in page.get(ENGLISH, [])}
        for code, blocks in page.items():
            if code == ENGLISH:
                continue
            for place, block in enumerate(blocks):
                if block.text == english.get(block.id) or block.text in everywhere:
                    blocks[place] = replace(block, translated=False)


# ------------------------------------------------------------------------------------- the maker

class Maker:
    """Prepares the data: `lines`, {file's name: its lines}, and `counts`."""

    def __init__(self):
        self.lines = {name: [] for name in file_names()}
        self.counts = Counter()  # {(what, code, split): number}
        self.earlier = {}  # {code: paragraphs of the splits before this one}
        self.seen = {}     # {code: those of this split too, as far as it was read}
        self.documents = set()  # (code, a section's text), each written once
        self.rows = set()  # English paragraphs, each written once
        for code in LANGUAGES.values():
            self.earlier[code] = set()
            self.seen[code] = set()

    def take_pages(self, pages):
        """Takes in all pages, split by split."""
        bar = progress_line(title="preparing", total=len(pages), unit="page")
        for split in SPLITS:
            for name in sorted(pages):
                if split_of(name) == split:
                    self.take_page(name, pages[name], split)
                    bar.update()
            for code in self.earlier:
                self.earlier[code] |= self.seen[code]
        bar.close()

    def take_page(self, name, page, split):
        self.take_paragraphs(page, split)
        self.take_sections(name, page, split)
        for code, blocks in page.items():
            self.take_text(name, blocks, code, split)

    def count(self, what, code, split):
        self.counts[what, code, split] += 1

    def write(self, folder, split, name, source, target, pair):
        row = {
            "id": name,
            "source": source,
            "target": target,
            "source_lang": pair[0],
            "target_lang": pair[1],
        }
        self.lines[f"{folder}/{split}.jsonl"].append(json.dumps(row, ensure_ascii=False))

    # -------------------------------------------------------------------------- paragraphs

    def take_paragraphs(self, page, split):
        """The paragraphs and headings that every language has."""
        texts = {}
        for code in LANGUAGES.values():
            texts[code] = {
                block.id: block.text for block in page.get(code, []) if block.translated
            }
        for name, english in texts[ENGLISH].items():
            row = {code: there.get(name) for code, there in texts.items()}
            if None in row.values():
                continue
            if not SHORTEST_PARAGRAPH <= count_words(english) <= LONGEST_PARAGRAPH:
                continue
            if english in self.rows:
                self.count("repeated paragraph", "all", split)
                continue
            self.rows.add(english)
            if any(text in self.earlier[code] for code, text in row.items()):
                self.count("paragraph of an earlier split", "all", split)
                continue
            for code, text in row.items():
                self.lines[f"paragraphs/{split}.{code}"].append(text)
            self.count("paragraphs", "all", split)

    # ---------------------------------------------------------------------------- sections

    def take_sections(self, name, page, split):
        # One word is a command's name, or "Example" and "Parameters" on a hundred pages. English
        # decides for all, so that the task is the same one in every language.
        headings = set()
        for block in page.get(ENGLISH, []):
            if block.level is not None and count_words(block.text) > 1:
                headings.add(block.id)
        found = {}  # {id of a heading: {code: Section}}
        for code, blocks in page.items():
            for section in sections_of(blocks, headings):
                if self.is_new(section, code, split):
                    found.setdefault(section.id, {})[code] = section
        for place, row in found.items():
            for code, section in row.items():
                self.count("sections", code, split)
                self.write(
                    "sections", split, f"{name}#{place}", section.text, section.heading,
                    (code, code),
                )
            if len(row) == len(LANGUAGES):
                self.write_across(f"{name}#{place}", row, split)

    def is_new(self, section, code, split):
        """Was this text not met before, and of its paragraphs no long one in an earlier split, nor
        all of them?"""
        if (code, section.text) in self.documents:
            self.count("repeated section", code, split)
            return False
        self.documents.add((code, section.text))
        old = [text for text in section.paragraphs if text in self.earlier[code]]
        if any(map(is_long, old)) or len(old) == len(section.paragraphs):
            self.count("section of an earlier split", code, split)
            return False
        return True

    def write_across(self, name, row, split):
        """A section that every language has: its text in each, its heading in each other one."""
        self.count("cross", "all", split)
        for code, section in row.items():
            for other, translation in row.items():
                if code != other:
                    self.write(
                        "cross", split, name, section.text, translation.heading, (code, other)
                    )

    # -------------------------------------------------------------------------------- text

    def take_text(self, name, blocks, code, split):
        """A page as it is read, without what stood in it already, the long paragraphs of other
        pages, and anything of an earlier split."""
        kept = []
        here = set()  # captions of icons stand twice
        for block in blocks:
            if not block.translated:
                self.count("untranslated", code, split)
                continue
            known = block.text in self.seen[code] and is_long(block.text)
            if known or block.text in here or block.text in self.earlier[code]:
                self.count("repeated in the text", code, split)
                continue
            self.seen[code].add(block.text)
            here.add(block.text)
            kept.append(block)
        for number, window in enumerate(windows(kept)):
            if count_words(window) < SHORTEST_WINDOW:
                continue
            self.count("text", code, split)
            self.write("text", split, f"{name}#{number}", window, window, (code, code))

    # ------------------------------------------------------------------------ descriptions

    def take_descriptions(self, found):
        """English descriptions of packages, {package: Description} -> their titles."""
        earlier = set()
        seen = set()
        for split in SPLITS:
            for package in sorted(found):
                if split_of(package) == split:
                    self.take_description(found[package], split, earlier, seen)
            earlier |= seen

    def take_description(self, description, split, earlier, seen):
        """earlier: paragraphs of the splits before this one; seen: of this one too."""
        text = " ".join(description.paragraphs)
        if count_words(text) < SHORTEST_DESCRIPTION:
            return
        if (ENGLISH, text) in self.documents:
            self.count("repeated description", ENGLISH, split)
            return
        self.documents.add((ENGLISH, text))
        if any(is_long(part) and part in earlier for part in description.paragraphs):
            self.count("description of an earlier split", ENGLISH, split)
            return
        seen.update(description.paragraphs)
        self.count("descriptions", ENGLISH, split)
        self.write(
            "descriptions", split, description.package, shortened(text), description.title,
            (ENGLISH, ENGLISH),
        )


# ------------------------------------------------------------------------------- all descriptions

def all_descriptions(paths):
    """{package: its first Description in files of apt's}; UserError if they are so few that they
    would make another English task, or almost none."""
    found = {}
    for path in progress_line(paths, "reading descriptions", unit="file"):
        for description in read_descriptions(path):
            found.setdefault(description.package, description)
    if len(found) < FEWEST_DESCRIPTIONS:
        names = ", ".join(path.name for path in paths)
        raise UserError(
            f"packages described in {names}: {len(found):,}, where {FEWEST_DESCRIPTIONS:,} are the "
            "fewest that will do; Debian's main, or Ubuntu's main and universe, is missing or not "
            f"whole: add it to apt's sources, or {by_hand(PACKAGES)}"
        )
    return found


# ---------------------------------------------------------------------------- opening what it wrote

def check_prepared(folder):
    """UserError if there is no such folder, or if it was not finished."""
    folder = Path(folder)
    command = f"{beside_python()} -m corpora.help"
    if folder != FOLDER:
        command += f" {quoted(folder)}"
    if not folder.is_dir():
        raise UserError(f"--data help: there is no folder {folder}; `{command}` makes it")
    check_searchable(folder)
    if not (folder / README).is_file():
        raise UserError(
            f"--data help: {folder} has no {README}, which is written last: it was not finished; "
            f"`{command} --overwrite` makes it anew"
        )


def open_help(folder, stage, split, pairs, languages, **options):
    """What a stage reads of a prepared folder: pretrain text/, translate and align paragraphs/;
    summarize sections/, cross/ for pairs of two languages and, but for the test split,
    descriptions/ for English. options: of JsonLines and ParallelText. UserError if there is
    nothing in the languages asked for."""
    own = set(LANGUAGES.values())
    pairs = [pair for pair in pairs if own >= set(pair)]
    if not pairs:
        raise UserError(f"--data help: the help is in {' '.join(LANGUAGES.values())} alone")
    if stage in ("translate", "align"):
        return ParallelText(folder / "paragraphs", split, pairs, **options)
    if stage == "pretrain":
        return JsonLines({folder / "text" / f"{split}.jsonl": None}, pairs, languages, **options)
    paths = {}
    if any(source == target for source, target in pairs):
        paths[folder / "sections" / f"{split}.jsonl"] = None
    if any(source != target for source, target in pairs):
        paths[folder / "cross" / f"{split}.jsonl"] = None
    if (ENGLISH, ENGLISH) in pairs and split != "test":
        paths[folder / "descriptions" / f"{split}.jsonl"] = None
    return JsonLines(paths, pairs, languages, **options)


# --------------------------------------------------------------------------------- command line

def check_out(out, overwrite):
    """UserError unless the folder `out` can be written, holds nothing that this command does not
    write, and nothing that it does unless `overwrite` says so."""
    names = [README, *file_names()]
    for name in names:
        check_place(out / name)
    if out.is_dir():
        own = {README, f"{README}.tmp", *FOLDERS}  # .tmp: of a command that was killed
        others = {path.name for path in out.iterdir()} - own
        if others:
            raise UserError(f"{out} has other files in it ({min(others)}); name another folder")
    if not overwrite and any((out / name).exists() for name in names):
        raise UserError(f"{out} exists; --overwrite replaces it, or name another folder")


def prepare(folder, work):
    """The Maker of the packages in a folder, and a line for each source that names its version;
    work: a folder to unpack in. UserError for what is not there."""
    files = {}
    sources = []
    for name, code in LANGUAGES.items():
        package = f"libreoffice-help-{name}"
        files[code] = unpacked(package, folder, work)
        sources.append(f"{package} {version_of(package, files[code], folder)}")
    paths = description_files(folder)
    if not paths:
        raise UserError(f"{folder}: there is no Translation-en; {by_hand(PACKAGES)}")
    descriptions = all_descriptions(paths)
    for path in paths:
        size, checksum = size_and_checksum(path)
        sources.append(f"{path.name}, {size:,} bytes, CRC-32 {checksum:08x}")
    maker = Maker()
    maker.take_pages(read_pages(files))
    maker.take_descriptions(descriptions)
    return maker, sources


def write(out, maker, sources):
    """Writes all files or none, for those of different packages would not belong together."""
    with ExitStack() as all_or_none:
        # README is entered first and so renamed last: it stands only where all other files do.
        temporary = all_or_none.enter_context(saving(out / README))
        Path(temporary).write_text(readme(maker, sources), encoding="utf-8")
        for name, lines in progress_line(maker.lines.items(), "writing", unit="file"):
            temporary = all_or_none.enter_context(saving(out / name))
            with open(temporary, "w", encoding="utf-8") as file:
                for line in lines:
                    file.write(line + "\n")
        (out / README).unlink(missing_ok=True)


def readme(maker, sources):
    listed = "\n".join(f"- {source}" for source in sources)
    return f"""# LibreOffice's help and package descriptions, prepared

Written by `python -m corpora.help`, whose `--help` says what the files are, from these packages
and lists of Debian or Ubuntu:

{listed}

The help's text (`sections/`, `cross/`, `text/`, `paragraphs/`) is LibreOffice's,
https://www.libreoffice.org, under the Mozilla Public License 2.0,
https://www.mozilla.org/MPL/2.0/. The descriptions of packages (`descriptions/`, from
Translation-en) are under each package's own terms.

```
{table(maker)}
```
"""


def table(maker):
    """The counts, a line for each kind and language, a column for each split."""
    kinds = sorted({(what, code) for what, code, _ in maker.counts})
    lines = [f"{'':<40} {'train':>8} {'valid':>8} {'test':>8}", "written"]
    lines += [counts_of(maker, *kind) for kind in kinds if kind[0] in FOLDERS]
    lines.append("left out")
    lines += [counts_of(maker, *kind) for kind in kinds if kind[0] not in FOLDERS]
    return "\n".join(lines)


def counts_of(maker, what, code):
    """A line of the table."""
    line = f"  {what + ' ' + code:<38}"
    for split in ("train", "valid", "test"):
        line += f" {maker.counts[what, code, split]:>8,}"
    return line


def make_parser():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add(
        "out",
        nargs="?",
        default=FOLDER,
        type=Path,
        metavar="OUT",
        help="the folder to write (default: data/help, which `--data help:` reads)",
    )
    add(
        "--packages",
        metavar="FOLDER",
        help="read the packages from here instead of fetching them: "
        "libreoffice-help-{en-us,es,ru,tr,fr,de}, each as a .deb or unpacked in a folder of its "
        "name, and Translation-en (plain or .gz, .bz2, .xz)",
    )
    add("--overwrite", action="store_true", help="replace what OUT has of an earlier time")
    return parser


def main(argv=None):
    args = make_parser().parse_args(argv)
    check_out(args.out, args.overwrite)
    if args.packages and not Path(args.packages).is_dir():
        raise UserError(f"--packages {args.packages}: there is no such folder")
    with temporary_folder() as work:
        folder = args.packages
        if not folder:
            folder = f"{work}/fetched"
            fetch(PACKAGES, folder)
        maker, sources = prepare(folder, f"{work}/unpacked")
    write(args.out, maker, sources)
    for source in sources:
        print(source)
    print(table(maker))
    spec = "help:"
    if args.out != FOLDER:
        spec += str(args.out)
    print(f"{args.out}: written; `--data {quoted(spec)}` reads it")


if __name__ == "__main__":
    run(main)
