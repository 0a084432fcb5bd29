"""Debian's and Ubuntu's packages: fetching them with apt, unpacking them, reading descriptions."""
import bz2
import gzip
import lzma
import os
import re
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

from plumbing.files import UserError, first_line, make_folder
from plumbing.progress import progress_line

DESCRIPTIONS = "Translation-en"  # apt's file of descriptions, and how the names of its copies end
OPENERS = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
DAMAGED = (OSError, EOFError, UnicodeDecodeError, zlib.error, lzma.LZMAError)  # what they raise
ROOM = 400_000_000  # bytes; Debian 12 takes 290 MB: lists, packages, and what is in them
NOT_FETCHED = re.compile("^W: (Failed to fetch|Some index files failed)", re.MULTILINE)
AN_ERROR = re.compile(f"E: |{NOT_FETCHED.pattern}")
BY_HAND = (
    "fetch the newest {packages} (each one's _all.deb) from "
    "http://deb.debian.org/debian/pool/main/libr/libreoffice/ and "
    "http://deb.debian.org/debian/dists/stable/main/i18n/Translation-en.xz, put all of them into "
    "one folder and name it with --packages FOLDER"
)


@dataclass
class Description:
    """What apt says of a package."""
    package: str
    title: str
    paragraphs: list


def by_hand(packages):
    return BY_HAND.format(packages=", ".join(packages))


def damaged(path, error):
    return UserError(f"{path}: cannot be read ({first_line(error)}); fetch or unpack it again")


# ------------------------------------------------------------------------------------- fetching

def finished(*command, folder=None):
    """A command of the system's packages, run to its end. It speaks English, for its lines are
    read, and may ask nothing, for nobody would see the question."""
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )


def complaint(done):
    """What a command that failed says of it, three lines at most: its errors, if it marks any, for
    apt begins with warnings that have nothing to do with them."""
    lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    errors = [line for line in lines if AN_ERROR.match(line)]
    said = errors or lines or [f"it ended with {done.returncode} and said nothing"]
    return "; ".join(line[:200] for line in said[:3])


def check_room(folder):
    """UserError if a folder has no room for what is fetched: apt-get, which finds a full disk,
    waits and says nothing."""
    free = shutil.disk_usage(folder).free
    if free < ROOM:
        raise UserError(
            f"{folder}: {free / 1e6:,.0f} MB are free there, and fetching takes {ROOM / 1e6:,.0f}; "
            "make room, or name another place in the variable TMPDIR"
        )


def fetch(packages, folder):
    """Downloads packages and the English descriptions of all packages into a folder, with lists
    of its own: what apt keeps for the system stays as it is. UserError where there is no apt, or
    if it did not fetch all of them."""
    if not shutil.which("apt-get"):
        raise UserError(f"there is no apt-get here: {by_hand(packages)}")
    folder = Path(folder)
    lists = folder / "lists"
    make_folder(lists / "partial")
    check_room(folder)
    options = [
        "-o", f"Dir::State::Lists={lists}",
        "-o", f"Dir::Cache={folder}",
        "-o", "Acquire::Languages=en",
        "-o", "Acquire::GzipIndexes=false",  # or apt may keep lists as .lz4
        "-o", "APT::Sandbox::User=root",     # its own user may not write into our folder
        # Else it is content with the lists that came, or with none where there is no network.
        "-o", "APT::Update::Error-Mode=any",
    ]
    commands = {"the lists of packages": ["update"]}
    for package in packages:
        commands[package] = ["download", package]
    bar = progress_line(commands.items(), "fetching", unit="file")
    for what, words in bar:
        bar.set_postfix_str(what)
        done = finished("apt-get", "-qq", *options, *words, folder=folder)
        # Before 2.1.16 (Debian 10, Ubuntu 20.04) apt does not know Error-Mode: it only warns.
        if done.returncode or NOT_FETCHED.search(done.stderr):
            raise UserError(
                f"apt-get could not fetch {what} ({complaint(done)}); mend that, or "
                f"{by_hand(packages)}"
            )
    for path in lists.glob(f"*{DESCRIPTIONS}"):
        path.rename(folder / path.name)


# ------------------------------------------------------------------------------------ unpacking

def unpacked(package, folder, work):
    """The folder of a package's files: FOLDER/PACKAGE, or else FOLDER/PACKAGE_*.deb unpacked in
    `work`. UserError if neither is there."""
    there = Path(folder) / package
    if there.is_dir():
        return there
    debs = sorted(Path(folder).glob(f"{package}_*.deb"))
    if not debs:
        raise UserError(
            f"{folder}: there is neither {package}_*.deb nor a folder {package}; "
            f"{by_hand([package])}"
        )
    if len(debs) > 1:
        raise UserError(f"{folder}: {len(debs)} versions of {package}; leave one of them there")
    if not shutil.which("dpkg"):
        raise UserError(
            f"{debs[0]}: there is no dpkg here to unpack it; a .deb is an ar archive: `ar x` it, "
            f"and unpack its data.tar with tar into {there}"
        )
    target = Path(work) / package
    make_folder(target)
    done = finished("dpkg", "-x", str(debs[0]), str(target))
    if done.returncode:
        raise UserError(
            f"{debs[0]}: dpkg could not unpack it ({complaint(done)}); fetch it again, or make "
            f"room in {target}"
        )
    return target


def version_of(package, files, folder):
    """A package's version, from the first line of its changelog or else its .deb's name. UserError
    for a damaged changelog."""
    changelog = files / "usr" / "share" / "doc" / package / "changelog.Debian.gz"
    if changelog.is_file():
        try:
            with gzip.open(changelog, "rt", encoding="utf-8") as file:
                found = re.search(r"\((.+?)\)", file.readline())
        except DAMAGED as error:
            raise damaged(changelog, error) from None
        if found:
            return found.group(1)
    packages = sorted(Path(folder).glob(f"{package}_*.deb"))
    if packages:
        return unquote(packages[0].name.split("_")[1])
    return "of unknown version"


# --------------------------------------------------------------------------------- descriptions

def description_files(folder):
    """The files of descriptions in a folder: names that end in Translation-en, packed or not."""
    found = []
    for suffix in OPENERS:
        found += Path(folder).glob(f"*{DESCRIPTIONS}{suffix}")
    return sorted(found)


def read_descriptions(path):
    """Yields the Descriptions in a file of apt's; UserError if it cannot be read."""
    opener = OPENERS[path.name.rpartition(DESCRIPTIONS)[2]]
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            entry = []
            for line in chain(file, [""]):  # an empty line ends an entry, the last one too
                if line.strip():
                    entry.append(line)
                    continue
                description = parsed(entry)
                entry = []
                if description:
                    yield description
    except DAMAGED as error:
        raise damaged(path, error) from None


def parsed(entry):
    """The Description in an entry's lines; None if there is none in English.

    Its fields are Package, Description-md5 and Description-en: the title, and behind it lines that
    begin with a space; " ." stands between paragraphs."""
    fields = {}
    paragraphs = [[]]
    for line in entry:
        name, _, value = line.partition(":")
        if not line.startswith(" "):
            fields[name] = value.strip()
        elif line.strip() == ".":
            paragraphs.append([])
        else:
            paragraphs[-1].append(line.strip())
    package = fields.get("Package")
    title = fields.get("Description-en")
    if not package or not title:
        return None
    return Description(package, title, [" ".join(lines) for lines in paragraphs if lines])
