"""corpora.help: small pages through the command, and `--data help:` in each stage."""
import gzip
import hashlib
import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest

from corpora.help import Maker
from corpora.pages import read_page
from corpora.sets import open_data, texts_of
from plumbing.files import UserError
from tokenizer import MBART25

HELP = ("-m", "corpora.help")
CODES = {
    "en-us": "en_XX",
    "es": "es_XX",
    "ru": "ru_RU",
    "tr": "tr_TR",
    "fr": "fr_XX",
    "de": "de_DE",
}
SHARED = "This long paragraph is embedded in many pages of the help"  # 11 words
PAGE = """<html><head><title>Not this</title></head><body>
<p id="above">Neither this</p><div id="DisplayArea">{}</div>
<div id="SearchFrame"></div><p id="bm_module">Nor this</p></body></html>"""


def in_split(split, name):
    """The first of names ("page{}.html": page0.html, ...) whose hash puts it into a split: of 20
    parts, test has two and validation one."""
    parts = {"test": (0, 1), "valid": (2,), "train": range(3, 20)}
    for number in range(1000):
        numbered = name.format(number)
        if int(hashlib.md5(numbered.encode()).hexdigest(), 16) % 20 in parts[split]:
            return numbered
    raise AssertionError(split)


SPLITS = ("train", "valid", "test")
PAGES = {split: in_split(split, "swriter/guide/page{}.html") for split in SPLITS}


def said(code, text, count=12):
    """`count` words that no other text has, in no language but this."""
    return " ".join(f"{text}{number}{code[:2]}" for number in range(count))


def blocks_of(split, code):
    """The page of a split in a language: [(tag, attributes, HTML)]."""
    blocks = [
        ("h1", 'id="h1"', f"Heading {split} {code}"),
        ("p", 'id="p1"', said(code, f"first{split}")),
        ("p", 'id="same"', "An English paragraph that nobody translated yet"),
        ("p", 'id="icon"', f"Heading {split} {code}"),
        ("p", 'id="code" class="codeintable"', f"Print {split} {code} lines of a program"),
        ("h2", 'id="h2"', f"Under {split} {code}"),
        ("p", 'id="p2"', said(code, f"second{split}") + "<br>end"),
        ("p", 'id="p3"', said(code, f"third{split}", 40)),
        ("h1", 'id="h3"', f"Embedded {split} {code}"),
        ("p", 'id="shared"', f"{SHARED} {code}"),
        ("h2", 'id="h4"', "Example" if code == "en_XX" else f"Ein Beispiel {code} {split}"),
        ("p", 'id="p4"', said(code, f"fourth{split}", 25)),
    ]
    if code == "es_XX":  # ids say what belongs together, not the order
        blocks.insert(1, ("p", 'id="more"', f"Un párrafo {split} que solo tiene el español"))
    return blocks


def html_of(blocks):
    return "\n".join(f"<{tag} {given}>{text}</{tag}>" for tag, given, text in blocks)


DESCRIPTIONS = """Package: {train}
Description-md5: 0
Description-en: map finder
 A program that finds maps in a park
 and shows the way home.
 .
 It has a second paragraph of more than eight words.

Package: {twin}
Description-md5: 0
Description-en: map finder, once more
 A program that finds maps in a park
 and shows the way home.
 .
 It has a second paragraph of more than eight words.

Package: {test}
Description-md5: 1
Description-en: tea maker
 Makes tea for ten people and a teacher of theirs.

Package: {leaky}
Description-md5: 2
Description-en: leaf maker
 Makes leaves.
 .
 It has a second paragraph of more than eight words.

Package: {valid}
Description-md5: 3
Description-en: key holder
 Holds the keys of ten doors, and one more for the cellar.

Package: {train}-short
Description-md5: 4
Description-en: too short
 Nothing here.
"""
NAMES = {
    "train": in_split("train", "map{}"),
    "test": in_split("test", "tea{}"),
    "twin": in_split("test", "twin{}"),
    "leaky": in_split("test", "leaf{}"),
    "valid": in_split("valid", "key{}"),
}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The six packages unpacked, and a file of descriptions."""
    folder = tmp_path_factory.mktemp("packages")
    for name, code in CODES.items():
        package = f"libreoffice-help-{name}"
        files = folder / package / "usr" / "share"
        for split, path in PAGES.items():
            page = files / "libreoffice" / "help" / name / "text" / path
            page.parent.mkdir(parents=True, exist_ok=True)
            page.write_text(PAGE.format(html_of(blocks_of(split, code))), encoding="utf-8")
        (files / "doc" / package).mkdir(parents=True)
        with gzip.open(files / "doc" / package / "changelog.Debian.gz", "wt") as file:
            file.write("libreoffice (4:7.4.7-1) bookworm; urgency=medium\n")
    with gzip.open(folder / "debian_Translation-en.gz", "wt", encoding="utf-8") as file:
        file.write(DESCRIPTIONS.format(**NAMES))
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Those descriptions, and any room for them, are enough here."""
    monkeypatch.setattr("corpora.help.FEWEST_DESCRIPTIONS", len(NAMES))
    monkeypatch.setattr("corpora.packages.ROOM", 0)


@pytest.fixture
def made(run, packages, tmp_path):
    """(what the command wrote, what it printed)"""
    done = run(*HELP, "out", "--packages", packages, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out", done.stdout


def rows(folder, name):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def count(printed, what):
    """The numbers of train, valid and test in the line of this name."""
    (found,) = re.findall(rf"^  {what} +([\d,]+) +([\d,]+) +([\d,]+)$", printed, re.M)
    return [int(number.replace(",", "")) for number in found]


def of(found, code):
    return [row for row in found if (row["source_lang"], row["target_lang"]) == (code, code)]


def test_a_section_is_given_its_heading_in_the_split_of_its_page(made):
    out, _ = made
    for split in PAGES:
        for code in CODES.values():
            found = of(rows(out, f"sections/{split}.jsonl"), code)
            first = said(code, f"first{split}")
            if code == "en_XX":
                first += " An English paragraph that nobody translated yet"
            if code == "es_XX":
                first = f"Un párrafo {split} que solo tiene el español {first}"
            second = f"{said(code, f'second{split}')} end"
            third = said(code, f"third{split}", 40)
            headings = {"h1": f"Heading {split} {code}", "h2": f"Under {split} {code}"}
            if split == "train":  # and none of one word in English, h4
                headings["h3"] = f"Embedded {split} {code}"
            assert [row["target"] for row in found] == list(headings.values())
            assert [row["id"] for row in found] == [f"{PAGES[split]}#{name}" for name in headings]
            # The page's own heading has what stands below its second one too, cut between words.
            for row, whole in zip(found, (f"{first} {second} {third}", f"{second} {third}")):
                assert whole.startswith(row["source"]) and 680 < len(row["source"]) <= 700
                assert whole[len(row["source"])] == " "


def test_what_a_later_split_shares_with_an_earlier_one_goes(made):
    out, printed = made
    train = of(rows(out, "sections/train.jsonl"), "tr_TR")
    assert train[2]["source"] == f"{SHARED} tr_TR {said('tr_TR', 'fourthtrain', 25)}"
    for split in ("valid", "test"):
        assert len(of(rows(out, f"sections/{split}.jsonl"), "tr_TR")) == 2
        text = "".join(row["source"] for row in rows(out, f"text/{split}.jsonl"))
        assert SHARED not in text and f"fourth{split}" in text
        assert SHARED not in (out / f"paragraphs/{split}.tr_TR").read_text("utf-8")
    assert count(printed, "section of an earlier split tr_TR") == [0, 1, 1]
    assert count(printed, "repeated in the text tr_TR") == [1, 2, 2]  # the icon's caption too
    assert count(printed, "repeated paragraph all") == [1, 2, 2]


@pytest.mark.parametrize("own, is_new", [
    ((10, 2), True),   # numbers of words: none was met before
    (("short", 2), True),
    (("short", 10), True),
    (("short",), False),  # nothing of its own
    (("long", 10), False),
])
def test_a_section_is_new_if_no_long_paragraph_and_not_all_of_it_was_met(own, is_new):
    known = {"short": "an old caption", "long": "an old paragraph of quite enough words to be long"}
    maker = Maker()
    maker.earlier["tr_TR"] = set(known.values())
    paragraphs = []
    for number, each in enumerate(own):
        paragraphs.append(known[each] if each in known else f"word{number} " * each)
    section = SimpleNamespace(text=" ".join(paragraphs), paragraphs=paragraphs)
    assert maker.is_new(section, "tr_TR", "valid") == is_new
    assert not maker.is_new(section, "tr_TR", "valid")  # a second time it is none


def test_sections_across_languages_have_the_heading_of_the_same_id(made):
    out, printed = made
    found = rows(out, "cross/test.jsonl")
    assert len(found) == 2 * 6 * 5
    sections = {}
    for row in rows(out, "sections/test.jsonl"):
        sections[row["id"], row["source_lang"]] = row
    for row in found:
        assert row["source_lang"] != row["target_lang"]
        assert row["source"] == sections[row["id"], row["source_lang"]]["source"]
        assert row["target"] == sections[row["id"], row["target_lang"]]["target"]
    assert count(printed, "cross all") == [3, 2, 2]


def test_text_is_what_the_page_says_in_its_order(made):
    out, printed = made
    found = of(rows(out, "text/test.jsonl"), "ru_RU")
    assert all(row["source"] == row["target"] and len(row["source"]) <= 700 for row in found)
    assert "\n".join(row["source"] for row in found) == "\n".join([
        "Heading test ru_RU",
        said("ru_RU", "firsttest"),
        "Under test ru_RU",
        f"{said('ru_RU', 'secondtest')} end",
        said("ru_RU", "thirdtest", 40),
        "Embedded test ru_RU",
        "Ein Beispiel ru_RU test",
        said("ru_RU", "fourthtest", 25),
    ])
    assert found[1]["source"].startswith("thirdtest0")
    assert "nobody translated" in "".join(
        row["source"] for row in of(rows(out, "text/train.jsonl"), "en_XX")
    )
    assert count(printed, "untranslated ru_RU") == [1, 1, 1]
    assert count(printed, "text ru_RU") == [
        len(of(rows(out, f"text/{split}.jsonl"), "ru_RU")) for split in SPLITS
    ]


def test_paragraphs_are_aligned_by_their_ids(made):
    out, printed = made
    for split in PAGES:
        for code in CODES.values():
            lines = (out / f"paragraphs/{split}.{code}").read_text("utf-8").splitlines()
            expected = [
                f"Heading {split} {code}",
                said(code, f"first{split}"),
                f"Under {split} {code}",
                f"{said(code, f'second{split}')} end",
                said(code, f"third{split}", 40),
                f"Embedded {split} {code}",
                f"{SHARED} {code}",
                said(code, f"fourth{split}", 25),
            ]
            if split != "train":
                expected.remove(f"{SHARED} {code}")
            assert lines == expected
    assert count(printed, "paragraphs all") == [8, 7, 7]


def test_a_description_is_given_its_title_once(made):
    out, printed = made
    expected = {
        "train": (NAMES["train"], "map finder", "A program that finds maps in a park and shows the "
                  "way home. It has a second paragraph of more than eight words."),
        "valid": (NAMES["valid"], "key holder",
                  "Holds the keys of ten doors, and one more for the cellar."),
        "test": (NAMES["test"], "tea maker", "Makes tea for ten people and a teacher of theirs."),
    }
    for split, (package, title, text) in expected.items():
        assert rows(out, f"descriptions/{split}.jsonl") == [{
            "id": package,
            "source": text,
            "target": title,
            "source_lang": "en_XX",
            "target_lang": "en_XX",
        }]
    assert count(printed, "descriptions en_XX") == [1, 1, 1]
    assert count(printed, "repeated description en_XX") == [0, 0, 1]
    assert count(printed, "description of an earlier split en_XX") == [0, 0, 1]


def test_the_readme_names_versions_and_licence_and_the_same_packages_give_the_same_bytes(
    run, made, packages, tmp_path
):
    out, _ = made
    text = (out / "README.md").read_text("utf-8")
    assert "libreoffice-help-es 4:7.4.7-1\n" in text and "Mozilla Public License 2.0" in text
    assert re.search(r"debian_Translation-en.gz, [\d,]+ bytes, CRC-32 [0-9a-f]{8}\n", text)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert len(before) == 4 * 3 + 6 * 3 + 1
    words = (*HELP, "out", "--packages", packages)
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2 and "out exists; --overwrite replaces it, or name" in done.stderr
    (out / "text/train.jsonl").write_text("old")
    done = run(*words, "--overwrite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (out / "mine.txt").write_text("x")
    done = run(*words, "--overwrite", cwd=tmp_path)
    assert done.returncode == 2 and "other files in it (mine.txt)" in done.stderr


@pytest.mark.parametrize("error, code, words", [
    (KeyboardInterrupt, 130, "interrupted"),
    (OSError("disk full"), 2, "could not be written (disk full)"),
])
def test_what_is_there_is_replaced_as_a_whole_or_not_at_all(
    run, made, packages, tmp_path, monkeypatch, error, code, words
):
    out, _ = made
    files = [path for path in out.rglob("*") if path.is_file()]
    for path in files:
        path.write_text("old")

    def ended(lines, title, unit):
        for number, line in enumerate(lines):
            if title == "writing" and number == 10:
                raise error
            yield line

    monkeypatch.setattr("corpora.help.progress_line", ended)
    monkeypatch.setattr("corpora.help.Maker.take_pages", lambda maker, pages: None)
    done = run(*HELP, "out", "--packages", packages, "--overwrite", cwd=tmp_path)
    assert done.returncode == code and words in done.stderr, done.stderr
    assert all(path.read_text() == "old" for path in files)
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(files)


def test_a_folder_that_was_not_finished_is_not_read(run, made, packages, tmp_path):
    out, _ = made
    (out / "README.md").rename(out / "README.md.tmp")  # as a power cut leaves it
    command = f"-m corpora.help {out} --overwrite`"
    with pytest.raises(UserError, match=f"{out} has no README.md.* not finished; .*{command}"):
        open_data(f"help:{out}", "pretrain", "train", [("en_XX", "en_XX")], MBART25)
    done = run(*HELP, "out", "--packages", packages, "--overwrite", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (out / "README.md").is_file() and not (out / "README.md.tmp").exists()


def test_a_place_that_cannot_be_written_is_told_before_anything_is_fetched(
    run, tmp_path, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no apt-get
    (tmp_path / "file").write_text("x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "text").write_text("x")
    for out, named in (("file", "file"), ("file/out", "file"), ("out", "out/text")):
        done = run(*HELP, out, cwd=tmp_path)
        assert done.returncode == 2
        assert f"cannot be written, for {tmp_path}/{named} is no folder" in done.stderr


SPANS = (
    ('Choose <span class="switchinline"><span hidden="true" class="MAC">Preferences</span>'
     '<span hidden="true"><span class="emph">Tools - Options</span></span></span> now',
     "Choose Tools - Options now"),
    ('the <span class="switchinline"><span hidden="true" class="MAC">Mac</span>'
     '<span hidden="true" class="WRITER">text</span>'
     '<span hidden="true" class="CALC">sheet</span></span> here', "the text here"),
    ("a &amp; b<br>c", "a & b c"),
)


@pytest.mark.parametrize("html, text", SPANS)
def test_of_several_systems_and_programs_one_is_read(tmp_path, html, text):
    page = tmp_path / "page.html"
    page.write_text(PAGE.format(f'<p id="a">{html}</p><p>no id</p><p id="a">again</p>'))
    assert [(block.id, block.text) for block in read_page(page)] == [("a", text), ("a#2", "again")]


# ---------------------------------------------------------------------------- fetching, unpacking

# As apt does it: a list that does not come is a warning, and apt content, unless Error-Mode, which
# an old apt does not know, says otherwise. Two repositories: debian, and a shop with one package.
APT = """#!{python}
import os, sys
words = sys.argv[1:]
given = dict(word.split("=", 1) for word in words if "=" in word)
assert given["Acquire::Languages"] == "en" and os.environ["LC_ALL"] == "C"
assert sys.stdin.read() == ""
state = os.environ.get("APT_STATE", "").split()
kind = "W"
if given.get("APT::Update::Error-Mode") == "any" and "old" not in state:
    kind = "E"

def ended(*lines, code=100):
    print(*lines, sep="\\n", file=sys.stderr)
    sys.exit(code)

def content(name):
    with open("{packages}/descriptions") as file:
        if name == "debian":
            return file.read()
        return file.read().partition("\\n\\n")[0]

if "update" in words:
    missing = [name for name in ("debian", "shop") if name + "-away" in state]
    for name in ("debian", "shop"):
        if name not in missing and name + "-none" not in state:
            with open(given["Dir::State::Lists"] + "/" + name + "_Translation-en", "w") as file:
                file.write(content(name))
    lines = [kind + ": Failed to fetch http://" + name + "  No route" for name in missing]
    if missing:
        lines.append(kind + ": Some index files failed to download. They have been ignored")
        ended("W: legacy keyring", *lines, code=100 if kind == "E" else 0)
    ended("W: legacy keyring", code=0)
if "killed" in state:
    os.kill(os.getpid(), 9)
if "debian-away" in state:
    ended("E: Unable to locate package " + words[-1])
if "full" in state:
    ended("W: unsandboxed", "E: Write error - write (28: No space left on device)")
print("W: unsandboxed", file=sys.stderr)
open(words[-1] + "_4%3a7.4.7-1_all.deb", "w").close()
"""
DPKG = """#!{python}
import os, shutil, sys
package = os.path.basename(sys.argv[2]).split("_")[0]
shutil.copytree("{packages}/" + package, sys.argv[3], dirs_exist_ok=True)
"""


def program(folder, name, text, packages):
    path = folder / name
    path.write_text(text.format(python=sys.executable, packages=packages))
    path.chmod(0o755)


def test_packages_are_fetched_with_apt_and_unpacked_with_dpkg(
    run, packages, made, tmp_path, monkeypatch
):
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    done = run(*HELP, cwd=tmp_path)
    assert done.returncode == 2 and "there is no apt-get here: fetch" in done.stderr
    assert "libreoffice-help-ru" in done.stderr and "--packages FOLDER" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "data").exists()

    (packages / "descriptions").write_text(DESCRIPTIONS.format(**NAMES))
    program(programs, "apt-get", APT, packages)
    done = run(*HELP, cwd=tmp_path)
    assert done.returncode == 2 and "there is no dpkg here" in done.stderr

    program(programs, "dpkg", DPKG, packages)
    done = run(*HELP, cwd=tmp_path)
    assert done.returncode == 0 and "unsandboxed" not in done.stderr, done.stderr
    assert "`--data help:` reads it" in done.stdout
    out, _ = made
    for name in ("sections/test.jsonl", "paragraphs/train.ru_RU", "descriptions/test.jsonl"):
        assert (tmp_path / "data/help" / name).read_bytes() == (out / name).read_bytes()


NOT_ALL = "{0}: Failed to fetch http://debian  No route; {0}: Failed to fetch http://shop  No route"


@pytest.mark.parametrize("state, said", [
    ("debian-away shop-away", f"the lists of packages ({NOT_ALL.format('E')}; E: Some index"),
    ("debian-away shop-away old", f"the lists of packages ({NOT_ALL.format('W')}; W: Some index"),
    ("debian-away", "the lists of packages (E: Failed to fetch http://debian  No route; E: Some"),
    ("shop-away old", "the lists of packages (W: Failed to fetch http://shop  No route; W: Some"),
    ("debian-none", "packages described in shop_Translation-en: 1, where 5 are the fewest that"),
    ("full", "libreoffice-help-en-us (E: Write error - write (28: No space left on device));"),
    ("killed", "libreoffice-help-en-us (it ended with -9 and said nothing); mend that"),
])
def test_what_apt_did_not_fetch_is_told_in_its_own_words_and_nothing_is_written(
    run, packages, tmp_path, monkeypatch, state, said
):
    programs = tmp_path / "bin"
    programs.mkdir()
    program(programs, "apt-get", APT, packages)
    program(programs, "dpkg", DPKG, packages)
    (packages / "descriptions").write_text(DESCRIPTIONS.format(**NAMES))
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("LC_ALL", "es_ES.UTF-8")  # in which apt's words would be others
    monkeypatch.setenv("APT_STATE", state)
    done = run(*HELP, cwd=tmp_path)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "--packages FOLDER" in done.stderr and "legacy" not in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "data").exists()


def test_without_room_for_temporary_files_it_says_so(run, packages, tmp_path, monkeypatch):
    program(tmp_path, "apt-get", "#!{python}\nraise AssertionError", packages)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("corpora.packages.ROOM", 10**18)
    done = run(*HELP, cwd=tmp_path)
    assert done.returncode == 2 and "fetching takes 1,000,000,000,000; make room" in done.stderr
    assert "TMPDIR" in done.stderr

    def full():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", full)
    done = run(*HELP, cwd=tmp_path)
    assert done.returncode == 2 and "No usable temporary directory found); make" in done.stderr
    assert "TMPDIR" in done.stderr


def test_a_package_that_dpkg_cannot_unpack_is_told_in_its_words(
    run, packages, tmp_path, monkeypatch
):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "libreoffice-help-en-us_1_all.deb").write_text("no deb")
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    for words, said in (("'dpkg-deb: error: no archive'", "dpkg-deb: error: no archive"),
                        ("2", "it ended with 2 and said nothing")):
        program(programs, "dpkg", f"#!{{python}}\nimport sys\nsys.exit({words})", packages)
        done = run(*HELP, "out", "--packages", mine, cwd=tmp_path)
        assert done.returncode == 2 and f"{said}); fetch it again, or make room in" in done.stderr
        assert not (tmp_path / "out").exists()


def test_too_few_descriptions_and_half_a_language_are_refused(run, packages, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(packages, mine)
    (mine / "debian_Translation-en.gz").unlink()
    text = DESCRIPTIONS.format(**NAMES)
    (mine / "half_Translation-en").write_text(text[:len(text) // 2])
    done = run(*HELP, "out", "--packages", mine, cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert "packages described in half_Translation-en: 2, where 5 are" in done.stderr
    assert "add it to apt's sources, or fetch the newest" in done.stderr

    (mine / "half_Translation-en").write_text(text)
    for split in ("train", "valid"):
        (mine / "libreoffice-help-tr/usr/share/libreoffice/help/tr/text" / PAGES[split]).unlink()
    done = run(*HELP, "out", "--packages", mine, cwd=tmp_path)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert f"{mine}/libreoffice-help-tr has 1 of the 3 pages of another language" in done.stderr


def test_a_folder_without_the_packages_says_which(run, packages, tmp_path):
    def ended(folder):
        done = run(*HELP, "out", "--packages", folder, cwd=tmp_path)
        assert done.returncode == 2 and not (tmp_path / "out").exists()
        return done.stderr

    assert "there is no such folder" in ended("nowhere")
    mine = tmp_path / "mine"
    shutil.copytree(packages, mine)
    (mine / "debian_Translation-en.gz").write_bytes(b"no gzip")
    assert "debian_Translation-en.gz: cannot be read" in ended(mine)
    (mine / "debian_Translation-en.gz").unlink()
    assert "there is no Translation-en; fetch" in ended(mine)
    page = next(mine.glob("libreoffice-help-es/**/*.html"))
    text = page.read_bytes()
    page.write_bytes(text + b"\xff")
    shutil.copy(packages / "debian_Translation-en.gz", mine)
    assert f"{page}: not UTF-8 (invalid start byte at byte {len(text)}); unpack" in ended(mine)
    page.write_bytes(text)
    changelog = next(mine.glob("libreoffice-help-es/**/changelog.Debian.gz"))
    whole = changelog.read_bytes()
    head = b"\x1f\x8b\x08" + bytes(7)
    for broken in (b"no gzip", head, head + b"\xff" * 20):
        changelog.write_bytes(broken)
        assert f"{changelog}: cannot be read" in ended(mine)
        changelog.write_bytes(whole)
        descriptions = mine / "debian_Translation-en.gz"
        descriptions.write_bytes(broken)
        assert f"{descriptions}: cannot be read" in ended(mine)
        shutil.copy(packages / "debian_Translation-en.gz", mine)
    shutil.rmtree(mine / "libreoffice-help-tr")
    assert "neither libreoffice-help-tr_*.deb nor a folder" in ended(mine)
    for version in (1, 2):
        (mine / f"libreoffice-help-tr_{version}_all.deb").write_text("no deb")
    assert "2 versions of libreoffice-help-tr" in ended(mine)


# ---------------------------------------------------------------------------------- --data help:

def test_each_stage_opens_its_own_files(made):
    out, _ = made
    english = ("en_XX", "en_XX")
    russian = ("ru_RU", "ru_RU")
    across = ("ru_RU", "en_XX")

    def opened(stage, split, *pairs):
        return open_data(f"help:{out}", stage, split, pairs, MBART25)

    text = opened("pretrain", "train", english, russian)
    assert text.sizes == {english: 3, russian: 3}
    assert text.text(russian, 0)[0].startswith("Heading train ru_RU\nfirst")
    for stage in ("translate", "align"):
        data = opened(stage, "train", across)
        assert data.sizes == {across: 8}
        assert data.text(across, 0) == ("Heading train ru_RU", "Heading train en_XX")
    for split, sections, descriptions in (("train", 3, 1), ("valid", 2, 1), ("test", 2, 0)):
        data = opened("summarize", split, english, russian, across)
        assert data.sizes == {
            english: sections + descriptions, russian: sections, across: sections
        }
        assert data.text(across, 1)[1] == f"Under {split} en_XX"
    assert opened("summarize", "train", english).text(english, 3)[1] == "map finder"
    texts = list(texts_of(f"help:{out}", "pretrain", [russian], MBART25))
    assert f"{said('ru_RU', 'fourthtest', 25)}" in texts[-1]


def test_what_is_not_there_is_told_with_the_command(made, capsys):
    out, _ = made
    for spec, command in (("help:", "-m corpora.help`"),
                          ("help:nowhere", "-m corpora.help nowhere`")):
        with pytest.raises(UserError, match=f"there is no folder .*{command} makes it"):
            open_data(spec, "pretrain", "train", [("en_XX", "en_XX")], MBART25)
    for stage in ("pretrain", "translate", "summarize"):
        with pytest.raises(UserError, match="the help is in en_XX es_XX .* alone"):
            open_data(f"help:{out}", stage, "train", [("gu_IN", "gu_IN")], MBART25)
    pairs = [("en_XX", "es_XX"), ("gu_IN", "es_XX")]
    data = open_data(f"help:{out}", "translate", "train", pairs, MBART25)
    assert list(data.sizes) == [("en_XX", "es_XX")]
    assert "gu_IN: no example" in capsys.readouterr().err


@pytest.mark.slow
def test_a_vocabulary_and_each_stage_run_on_it(run, made, small, tmp_path):
    out, _ = made
    data = ("--data", f"help:{out}", "--langs", "en_XX", "ru_RU")
    done = run("-m", "tools.start", tmp_path / "start", *data, "--pieces", 200)
    assert done.returncode == 0 and "ru_RU: 3 of 3 texts" in done.stdout, done.stderr
    for stage in ("pretrain", "translate", "summarize"):
        done = run("train.py", "--stage", stage, "--init", small, *data, "--steps", 2, "--tokens",
                   500, "--no-eval", "--preset", "small", "--device", "cpu", "--out",
                   tmp_path / stage)
        assert done.returncode == 0, done.stderr
    done = run("eval.py", "--model", tmp_path / "summarize", "--lang", "ru_RU", "--examples", 1)
    assert done.returncode == 0 and "ru_RU" in done.stdout, done.stderr
