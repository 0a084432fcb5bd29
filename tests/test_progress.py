"""Long work shows how far it is and what time is left: to a person alone, and not with --quiet."""
import gzip
import json
import re
from contextlib import redirect_stderr

import pytest
from conftest import ROOT, Terminal

from corpora.sets import open_data
from model import MBart
from plumbing import progress
from plumbing.files import size_and_checksum

LEFT = r"\d+/\d+ \[\d\d:\d\d<(\d\d:\d\d|\?)"  # so many of so many [this long < so long to go

DATA = ("--data", "builtin", "--device", "cpu")
PROGRAMS = {  # what it does -> its words; SMALL: a folder with a model
    "summarize": ("train.py", "--stage", "summarize", "--steps", 2, "--tokens", 200,
                  "--valid-examples", 2, "--no-eval", "--langs", "en_XX", "--init", "SMALL",
                  "--out", "RUN", *DATA),
    "en_XX -> es_XX": ("eval.py", "--model", "SMALL", "--stage", "translate", "--pairs",
                       "en_XX-es_XX", "--examples", 2, "--max-new-tokens", 3, *DATA),
    "probing": ("-m", "tools.layers", "--model", "SMALL", "--stage", "summarize", "--measures",
                "probe", "--source-lang", "en_XX", "es_XX", *DATA),
}


@pytest.fixture
def words(small, tmp_path, monkeypatch):
    """words(program): what to type for it."""
    monkeypatch.setattr("tools.layers.PROBED", {"encoder": 8, "decoder": 8})
    monkeypatch.setattr("tools.layers.STEPS", 3)
    places = {"SMALL": small, "RUN": tmp_path / "run"}
    return lambda name: [places.get(word, word) for word in PROGRAMS[name]]


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_terminal_shows_how_far_it_is_and_the_time_that_is_left(run, words, name):
    done = run(*words(name), terminal=True)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"{name}.*{LEFT}", done.stderr)
    shown = re.sub(r"note: .*\n", "", done.stderr)
    assert shown.endswith("\r")  # the line is gone when the work is done


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_log_file_and_quiet_show_none_and_the_results_are_the_same(run, words, name, tmp_path):
    piped = run(*words(name))
    if name == "summarize":
        (tmp_path / "run").rename(tmp_path / "first")
    quiet = run(*words(name), "--quiet", terminal=True)
    for done in (piped, quiet):
        assert done.returncode == 0, done.stderr
        assert "\r" not in done.stderr and "%|" not in done.stderr
    told = [line for line in piped.stdout.splitlines() if not line.startswith("update ")]
    assert quiet.stdout.splitlines() == told
    assert (name == "summarize") == ("update 2:" in piped.stdout)


def test_every_program_has_quiet(run):
    for path in sorted(ROOT.glob("*/*.py")) + sorted(ROOT.glob("*.py")):
        if path.parent.name == "tests" or "\ndef main(" not in path.read_text(encoding="utf-8"):
            continue
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        assert "--quiet" in run("-m", module, "--help").stdout, module


def test_quiet_may_stand_behind_a_command(run):
    done = run("-m", "tools.delta", "sizes", ROOT / "base", "--quiet")
    assert done.returncode == 0, done.stderr
    assert progress.Quiet.asked


def test_only_the_first_of_several_processes_shows_progress(monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert progress.is_shown()
    monkeypatch.setenv("RANK", "1")
    assert not progress.is_shown()
    monkeypatch.delenv("WORLD_SIZE")  # a cluster's starter left RANK behind: this process is alone
    assert progress.is_shown()


# ------------------------------------------------------------------------------- large files

def shown(work):
    """What a terminal shows while work() is done."""
    terminal = Terminal()
    with redirect_stderr(terminal):
        work()
    return terminal.getvalue()


def test_unpacking_reading_and_checking_a_large_file_is_shown_in_bytes(tmp_path, monkeypatch):
    rows = ""
    for number in range(300):
        row = {"source": f"text {number}", "target": "title"}
        rows += json.dumps(row | {"source_lang": "en_XX", "target_lang": "en_XX"}) + "\n"
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.write(rows)

    def read():
        open_data(f"jsonl:{tmp_path}", "summarize", "train", [("en_XX", "en_XX")], ["en_XX"])
        size_and_checksum(tmp_path / "train.jsonl.gz")

    assert shown(read) == ""  # such a file is read in a moment
    monkeypatch.setattr(progress, "LARGE", 1)
    text = shown(read)
    for title in ("unpacking", "reading", "checking"):
        assert re.search(rf"{title} train.jsonl[^\r]*<[^\r]*B/s\]", text), title


def test_the_checksum_of_a_large_model_is_shown(small, monkeypatch):
    monkeypatch.setattr(progress, "LARGE", 1)
    text = shown(lambda: MBart.from_pretrained(small))
    assert re.search(r"checking weights: [^\r]*<[^\r]*B/s\]", text)
