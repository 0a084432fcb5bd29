"""JSON lines as people have them: packed, with columns of other names, without languages."""
import gzip
import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from corpora.sets import open_data
from plumbing.files import UserError
from plumbing.runs import read_settings
from tokenizer import MBART25

ENGLISH = ("en_XX", "en_XX")
PAIR = ("en_XX", "es_XX")
OURS = {"source": "one two", "target": "three", "source_lang": "en_XX", "target_lang": "es_XX"}


def write(path, rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        file.write(text)


def opened(folder, pairs=(ENGLISH,), split="train", **options):
    return open_data(f"jsonl:{folder}", "summarize", split, pairs, MBART25, **options)


@pytest.mark.parametrize("source, target", [
    ("text", "summary"),
    ("document", "summary"),
    ("src", "tgt"),
    ("article", "highlights"),
    ("dialogue", "summary"),
    ("source", "summary"),
])
def test_columns_of_known_names_are_taken_and_told_in_one_line(tmp_path, capsys, source, target):
    rows = [{"id": i, source: f"text {i}", target: f"short {i}"} for i in range(3)]
    write(tmp_path / "train.jsonl", rows)
    write(tmp_path / "valid.jsonl", rows)
    data = opened(tmp_path)
    assert data.text(ENGLISH, 2) == ("text 2", "short 2")
    opened(tmp_path, split="valid")
    told = capsys.readouterr().err.splitlines()
    assert told == [
        f"note: jsonl:{tmp_path}: {source!r} is taken for the source, {target!r} for the target, "
        "every line for en_XX-en_XX"
    ]


def test_our_own_names_win_and_need_no_remark(tmp_path, capsys):
    write(tmp_path / "train.jsonl", [OURS | {"text": "else", "summary": "else"}])
    assert opened(tmp_path, [PAIR]).text(PAIR, 0) == ("one two", "three")
    assert capsys.readouterr().err == ""


def test_columns_for_languages_may_have_other_names_too(tmp_path, capsys):
    row = {"src": "one", "tgt": "two", "src_lang": "en_XX", "tgt_lang": "es_XX"}
    write(tmp_path / "train.jsonl", [row])
    data = opened(tmp_path, [PAIR, ENGLISH], name_missing=False)
    assert data.sizes == {PAIR: 1}
    assert "'src_lang' and 'tgt_lang' for their languages" in capsys.readouterr().err


@pytest.mark.parametrize("row, pairs, message", [
    (
        {"text": "a", "document": "b", "summary": "c"}, [ENGLISH],
        r"text and document could both be the source \(its columns: text, document, summary\); "
        "rename the right one to 'source'",
    ),
    (
        {"text": "a", "summary": "c", "source": "bbc.co.uk"}, [ENGLISH],
        r"source and text could both be the source \(its columns: text, summary, source\)",
    ),
    (
        {"text": "a", "summary": "c", "target": "adults"}, [ENGLISH],
        "target and summary could both be the target",
    ),
    (
        {"title": "a", "summary": "c"}, [ENGLISH],
        r"none of its columns is known as the source \(title, summary\); rename",
    ),
    (
        {"text": "a", "summary": "c"}, [ENGLISH, PAIR],
        "no column says the languages; add source_lang and target_lang to every line, or name the "
        "one pair of languages .*, if this program has an option for that .*--pairs en_XX-es_XX",
    ),
    (
        {"text": "a", "summary": "c", "source_lang": "en_XX"}, [ENGLISH],
        "field 'target_lang' must be text, found nothing",
    ),
])
def test_columns_that_leave_a_choice_are_an_error_that_lists_them(tmp_path, row, pairs, message):
    write(tmp_path / "train.jsonl", [row])
    with pytest.raises(UserError, match="train.jsonl.*" + message):
        opened(tmp_path, pairs)


@pytest.mark.parametrize("other", [
    {"source_lang": "es_XX"}, {"src_lang": "xx"}, {"target_language": "es_XX"}, {"lang": "es"},
    {"language": "es_XX"}, {"lang": "es-ES"}, {"lang": "ES"}, {"language": "es_ES"},
    {"lang": "pt"},  # mBART-50 alone has it
    {"language": "Spanish"}, {"lang": " spanish"}, {"lang": "spa"}, {"language": "spa_Latn"},
    {"Language": "es"}, {"Source_Lang": "es_XX"},
])  # fmt: skip
def test_a_later_line_in_another_language_than_the_files_is_a_bad_one(tmp_path, other):
    row = {"text": "a", "summary": "b"}
    agreeing = row | {"source_lang": "en_XX", "lang": "en-GB", "language": "English"}
    write(tmp_path / "train.jsonl", [row] * 100 + [agreeing, row | other])
    with pytest.raises(UserError, match=r"train.jsonl:102: .*(is taken for en_XX|unknown lang)"):
        opened(tmp_path)
    assert opened(tmp_path, skip=True).sizes == {ENGLISH: 101}


@pytest.mark.parametrize("name", ["lang", "language"])
def test_a_file_whose_word_for_the_language_changes_is_not_read_as_of_one(tmp_path, name):
    """No code and no English name: what it means is not known, but that the file has two is."""
    words = ["", "anglais", " Anglais", "", "espagnol"]
    rows = [{"text": "a", "summary": "b", name: word} for word in words]
    write(tmp_path / "train.jsonl", rows[:4])
    assert opened(tmp_path).sizes == {ENGLISH: 4}
    write(tmp_path / "train.jsonl", rows)
    told = "train.jsonl:5: .* says espagnol, earlier lines say anglais"
    for skip in (False, True):
        with pytest.raises(UserError, match=told):
            opened(tmp_path, skip=skip)


@pytest.mark.parametrize("said", ["Spanish", "spa", "SPANISH", "es"])
def test_a_file_that_says_another_language_throughout_is_not_read_as_the_one_asked_for(
    tmp_path, said
):
    row = {"text": "el mapa", "summary": "mapa", "Language": said}
    write(tmp_path / "train.jsonl", [row] * 3)
    with pytest.raises(UserError, match=f"train.jsonl:1: field 'Language' says {said}"):
        opened(tmp_path)
    spanish = ("es_XX", "es_XX")
    assert opened(tmp_path, [spanish]).sizes == {spanish: 3}


@pytest.mark.parametrize("line, said", [
    ('{"text": "a \\u0000b", "summary": "c"}', "field 'text' has NUL characters"),
    ("", "an empty line"),
    ("   ", "an empty line"),
])
def test_what_is_wrong_with_a_line_is_said(tmp_path, line, said):
    good = '{"text": "a", "summary": "b"}\n'
    (tmp_path / "train.jsonl").write_text(f"{good}{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=f"train.jsonl:2: {said}"):
        opened(tmp_path)
    assert opened(tmp_path, skip=True).sizes == {ENGLISH: 1}


def test_bad_first_lines_are_passed_over_in_looking_for_names(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{broken\n\xff\n["list"]\n\xef\xbb\xbf{"text": "a", "summary": "b"}\n')
    assert opened(tmp_path, skip=True).text(ENGLISH, 0) == ("a", "b")
    with pytest.raises(UserError, match="train.jsonl:1: not JSON"):
        opened(tmp_path)


# ------------------------------------------------------------------------------------- gzip

def test_a_packed_file_reads_as_the_plain_one_does(tmp_path):
    rows = [OURS | {"source": f"карта {i}"} for i in range(2000)]
    for name in ("plain", "packed"):
        (tmp_path / name).mkdir()
    write(tmp_path / "plain" / "train.jsonl", rows)
    write(tmp_path / "packed" / "train.jsonl.gz", rows)
    plain = opened(tmp_path / "plain", [PAIR])
    packed = opened(tmp_path / "packed", [PAIR])
    for index in (1999, 0, 777):
        assert packed.text(PAIR, index) == plain.text(PAIR, index) == (f"карта {index}", "three")
    assert list(packed.fingerprint.values()) == list(plain.fingerprint.values())
    assert os.listdir(tmp_path / "packed") == ["train.jsonl.gz"]  # nothing lies beside it


def test_the_plain_file_is_read_where_both_are_there(tmp_path):
    write(tmp_path / "train.jsonl", [OURS])
    write(tmp_path / "train.jsonl.gz", [OURS, OURS])
    assert opened(tmp_path, [PAIR]).sizes == {PAIR: 1}


def test_a_bad_line_of_a_packed_file_is_named_and_a_damaged_file_too(tmp_path):
    path = tmp_path / "train.jsonl.gz"
    write(path, [OURS, OURS | {"target": 5}])
    with pytest.raises(UserError, match=r"train.jsonl.gz:2: .*'target' must be text, found int"):
        opened(tmp_path, [PAIR])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="train.jsonl.gz: cannot be unpacked .*copy it again"):
        opened(tmp_path, [PAIR])
    path.write_bytes(b"plain text")
    with pytest.raises(UserError, match="train.jsonl.gz: cannot be unpacked"):
        opened(tmp_path, [PAIR])
    path.unlink()
    write(path, [])
    with pytest.raises(UserError, match="train.jsonl.gz: the file is empty"):
        opened(tmp_path, [PAIR])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_told_of_a_small_packed_file_too(tmp_path, monkeypatch):
    write(tmp_path / "train.jsonl.gz", [OURS])
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **words: open("/dev/full", "w+b"))
    with pytest.raises(UserError, match="train.jsonl.gz: cannot be unpacked .*No space left"):
        opened(tmp_path, [PAIR])


def test_a_packed_file_is_never_whole_in_memory(tmp_path):
    """70 MB of text in a process that may take 60 MB more than Python and its imports."""
    write(tmp_path / "train.jsonl.gz", [OURS | {"source": "word " * 7000}] * 2000)
    code = (
        "import resource, sys; from corpora.sets import open_data; "
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000,) * 2); "
        f"data = open_data('jsonl:{tmp_path}', 'summarize', 'train', [{PAIR}], {MBART25}); "
        f"print(data.sizes, len(data.text({PAIR}, 1999)[0]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, timeout=300
    )
    assert done.stdout == f"{{{PAIR}: 2000}} 35000\n", done.stderr


def test_a_run_trains_on_a_packed_file_and_goes_on_with_it_wherever_it_moved(run, small, tmp_path):
    rows = [{"text": f"The teacher found map {i}.", "summary": "A map."} for i in range(40)]
    for split in ("train", "valid"):
        write(tmp_path / f"{split}.jsonl.gz", rows)
    words = [
        "train.py", "--stage", "summarize", "--langs", "en_XX", "--data", f"jsonl:{tmp_path}",
        "--init", small, "--preset", "small", "--steps", 2, "--tokens", 200, "--eval-every", 1,
        "--valid-examples", 4, "--no-eval", "--device", "cpu", "--out", tmp_path / "run",
    ]  # fmt: skip
    done = run(*words, "--stop-at", 1)
    assert done.returncode == 0, done.stderr
    assert "'text' is taken for the source, 'summary' for the target" in done.stderr
    resume = ["train.py", "--resume", tmp_path / "run", "--no-eval"]
    write(tmp_path / "train.jsonl.gz", rows[1:])
    assert "train.jsonl.gz: not what it was when this run began" in run(*resume).stderr
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "train.jsonl.gz").unlink()
    write(moved / "train.jsonl.gz", rows)  # packed anew, of the same lines
    (tmp_path / "valid.jsonl.gz").rename(moved / "valid.jsonl.gz")
    done = run(*resume, "--data", f"parallel:{moved}")
    assert done.returncode == 2 and "leave out --data" in done.stderr
    done = run(*resume, "--data", f"jsonl:{moved}")
    assert done.returncode == 0 and "going on at update 1" in done.stdout, done.stderr
    assert read_settings(tmp_path / "run")["data"] == f"jsonl:{moved}"
