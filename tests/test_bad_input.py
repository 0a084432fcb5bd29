"""Bad input, generated: every case ends in one clear message and exit code 2, without a traceback
or half a file."""
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from conftest import PATIENCE, ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import eval as evaluation
import train
from plumbing.files import UserError, run, write_json
from plumbing.runs import read_settings

FEW = settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def refused(main, argv, out=None):
    """Runs a program in this process; returns its message after checking how it ended."""
    said, before = io.StringIO(), sys.argv
    sys.argv = [main.__module__ + ".py", *map(str, argv)]
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            with pytest.raises(SystemExit) as ended:
                run(main)
    finally:
        sys.argv = before
    message = said.getvalue().strip()
    assert ended.value.code == 2, message
    assert "Traceback" not in message and "error: " in message
    assert len(message.splitlines()[-1]) > 20 or len(message) > 40, message
    assert out is None or not out.exists(), "something was written"
    return message


GOOD = {"source": "a map", "target": "una carta", "source_lang": "en_XX", "target_lang": "es_XX"}


def with_field(field, value):
    return json.dumps({**GOOD, field: value}).encode()


def without(field):
    return json.dumps({name: value for name, value in GOOD.items() if name != field}).encode()


VALUES = st.sampled_from([None, 3, 2.5, True, [], {}, ["a"], "", "  ", "\t"])
CODES = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=6)
BAD_LINES = st.one_of(
    st.integers(1, len(json.dumps(GOOD)) - 1).map(lambda n: json.dumps(GOOD)[:n].encode()),
    st.builds(with_field, st.sampled_from(list(GOOD)), VALUES),
    st.builds(without, st.sampled_from(list(GOOD))),
    st.builds(with_field, st.sampled_from(["source_lang", "target_lang"]), CODES),
    st.binary(min_size=1, max_size=20).filter(lambda b: b"\n" not in b).map(lambda b: b"\xff" + b),
    st.sampled_from([
        b"[]", b"3", b"null", b'"text"', b"{" * 5000, b"x" * 1_000_000, b"", b"\x00"
    ]),
)


@FEW
@given(line=BAD_LINES, at=st.integers(0, 5))
@pytest.mark.slow
def test_a_bad_line_of_a_data_file_is_named(small, tmp_path, line, at):
    rows = [json.dumps(GOOD).encode()] * 5
    (tmp_path / "train.jsonl").write_bytes(b"\n".join([*rows[:at], line, *rows[at:]]) + b"\n")
    (tmp_path / "valid.jsonl").write_bytes(rows[0])
    words = [
        "--stage", "translate", "--data", f"jsonl:{tmp_path}", "--init", small, "--pairs",
        "en_XX-es_XX", "--device", "cpu", "--out", tmp_path / "run",
    ]
    message = refused(train.main, words, tmp_path / "run")
    assert f"train.jsonl:{at + 1}: " in message and "--skip-bad-lines" in message


WAS_HACKED = Path(tempfile.gettempdir()) / f"qkbart was hacked {os.getpid()}"


class Hostile:
    def __reduce__(self):
        return os.system, (f"touch '{WAS_HACKED}'",)


def truncate(name):
    """A file cut at a random place, as (its name, what to do to it)."""
    def cut(share):
        return name, lambda path: path.write_bytes(
            path.read_bytes()[:int(path.stat().st_size * share)]
        )

    return st.floats(0, 0.99).map(cut)


def overwrite(name, content):
    return name, lambda path: path.write_bytes(b"\x01" + content)


def config(**changes):
    """config.json with other values."""
    def change(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return "config.json", change


def hostile(path):
    path.unlink()
    path.with_name("pytorch_model.bin").write_bytes(pickle.dumps(Hostile()))


def other_shapes(path):
    path.unlink()
    tensors = {"model.shared.weight": torch.zeros(3, 3)}
    torch.save(tensors, path.with_name("pytorch_model.bin"))


FILES = ("model.safetensors", "config.json", "sentencepiece.bpe.model")
DAMAGE = st.one_of(
    *[truncate(name) for name in FILES],
    st.sampled_from(FILES).map(lambda name: (name, Path.unlink)),
    st.builds(overwrite, st.sampled_from(FILES), st.binary(max_size=200)),
    st.sampled_from([
        config(d_model=48), config(encoder_layers=3), config(decoder_ffn_dim=65),
        config(vocab_size=99), config(d_model="32"), config(encoder_attention_heads=5),
        config(model_type="bart"), config(dropout=[]), config(activation_function="swish"),
        config(encoder_layers=-1), config(max_position_embeddings=8), config(decoder_layers=None),
        ("model.safetensors", hostile), ("model.safetensors", other_shapes),
    ]),
)


@FEW
@given(damage=DAMAGE)
def test_a_damaged_model_folder_is_named(small, tmp_path, damage):
    name, change = damage
    folder = tmp_path / "model"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(small, folder)
    change(folder / name)
    words = [
        "--lang", "es_XX", "--source-lang", "en_XX", "--model", folder, "--stage", "translate",
        "--text", "a map", "--device", "cpu",
    ]
    assert str(folder) in refused(evaluation.main, words)
    assert not WAS_HACKED.exists()


def one_of(*names):
    return st.sampled_from(names)


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=8)
NO_COUNTS = st.one_of(st.integers(-10, 0).map(str), WORDS.filter(lambda w: not w.isdigit()))
NO_NUMBERS = WORDS.filter(lambda w: not w.isnumeric())
TOO_DEEP = st.integers(3, 99).map(str)
OPTIONS = st.one_of(
    st.tuples(
        one_of("--steps", "--tokens", "--accumulate", "--eval-every", "--valid-examples"), NO_COUNTS
    ),
    st.tuples(one_of("--langs", "--pairs"), WORDS),
    st.tuples(one_of("--recipe", "--preset", "--adversarial", "--precision", "--stage"), WORDS),
    st.tuples(one_of("--lr", "--dropout", "--clip"), NO_NUMBERS),
    st.tuples(one_of("--align-layer", "--residual-drop"), TOO_DEEP),
    st.tuples(st.just("--data"), st.one_of(WORDS, WORDS.map(lambda w: f"jsonl:/nowhere/{w}"))),
    st.tuples(st.just("--init"), WORDS.map(lambda w: f"/nowhere/{w}")),
    st.tuples(st.just("--device"), WORDS),
    st.tuples(WORDS.map(lambda w: f"--x{w}"), WORDS),
    one_of(
        ("--langs", "en_XX", "--adversarial", "balanced"),
        ("--stage", "align", "--align-layer", "1", "--adversarial", "balanced"),
        ("--stage", "align"),
        ("--lora-rank", "0", "--recipe", "lora"),
        ("--lora-projections", "query", "--recipe", "lora"),
        ("--recipe", "src+xattn"),
        ("--recipe", "tgt+xattn"),
        ("--recipe", "adv_tuned", "--align-layer", "2"),
        ("--dropout", "1.5"),
        ("--lr", "nan"),
        ("--lr", "-1"),
        ("--temperature", "0"),
        ("--max-length", "0"),
        ("--stop-at", "-3"),
        ("--warmup", "-1"),
    ),
)


@FEW
@given(options=OPTIONS)
def test_a_wrong_command_line_is_explained(small, tmp_path, options):
    words = [
        "--stage", "summarize", "--init", small, "--out", tmp_path / "run", "--steps", "1",
        "--device", "cpu",
    ]
    message = refused(train.main, [*words, *options], tmp_path / "run")
    named = [*options, *[option.lstrip("-") for option in options]]
    assert any(word in message for word in named), message


# --------------------------------------------------------------------------- words and terminals

def test_a_word_that_is_not_utf8_is_named(small, tmp_path):
    for word in ("caf\udce9", "\ud83d"):
        words = ["--stage", "summarize", "--init", small, "--out", tmp_path / word]
        message = refused(train.main, words)
        assert "not UTF-8" in message and ascii(word)[1:-1] in message


@pytest.mark.parametrize("words", [
    ["eval.py", "--lang", "en_XX", "--model", ""],
    ["eval.py", "--lang", "en_XX", "--model="],
    ["eval.py", "--lang", "en_XX", "--model", "base", "--data", ""],
    ["eval.py", "--lang", "en_XX", "--model", "base", "--json", ""],
    ["eval.py", "--lang", "en_XX", "--model", "base", "--text", ""],
    ["generate.py", "", "en_XX", "es_XX", "A map."],
    ["-m", "tools.layers", "--model", ""],
    ["-m", "tools.look", "base", "--lang", "en_XX", "--text", "A map.", "--data", ""],
    ["-m", "tools.delta", "sizes", ""],
    ["-m", "papers.pipeline", "base", "base", "--pairs", "en_XX-en_XX", "--json", ""],
])
def test_an_empty_word_is_refused_and_nothing_chosen_in_its_place(run, small, tmp_path, words):
    shutil.copytree(small, tmp_path / "runs" / "latest")
    write_json(tmp_path / "runs" / "latest" / "args.json", {"stage": "summarize"})
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert len(done.stderr.splitlines()) == 1
    assert "is empty; give" in done.stderr, done.stderr


PRINTING = "import sys; sys.path.insert(0, {root!r}); from plumbing.files import run; run({main})"


def test_a_terminal_that_is_not_utf8_ends_nothing(run_process):
    code = PRINTING.format(root=str(ROOT), main="lambda: print('abc \\u043a\\u0430 \\ud83d')")
    done = run_process("-c", code, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "abc \\u043a\\u0430 \\ud83d\n"


def test_a_reader_that_leaves_ends_a_program_quietly():
    code = PRINTING.format(root=str(ROOT), main="lambda: print('x' * 1_000_000)")
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    child.stdout.close()
    assert child.stderr.read() == b"" and child.wait(PATIENCE) == 128 + signal.SIGPIPE
    child.stderr.close()


@pytest.mark.parametrize("content, words", [
    ("[]", "not the settings of a run"),
    ('["a"]', "not the settings of a run"),
    ("null", "not the settings of a run"),
    ("[" * 100_000, "not valid JSON"),
    ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ('{"init": 5}', "init is 5, which no run writes"),
    ('{"data": ["builtin"]}', "data is ['builtin'], which no run writes"),
    ('{"tagless": "false"}', "tagless is 'false', which no run writes"),
    ('{"max_length": "64"}', "max_length is '64', which no run writes"),
    ('{"max_length": true}', "max_length is True, which no run writes"),
    ('{"stage": "summarize", "mix": 1, "mix_pairs": ["x"]}', "mix_pairs is ['x'], which no run"),
    ('{"stage": "align", "align_pairs": ["a_b"]}', "align_pairs is ['a_b'], which no run"),
    ('{"fresh": 5}', "fresh is 5, which no run writes"),
    ('{"pairs": "en_XX-en_XX"}', "pairs is 'en_XX-en_XX', which no run writes"),
    ('{"langs": [5]}', "langs is [5], which no run writes"),
    ('{"pairs": ["en_XX"]}', "pairs is ['en_XX'], which no run writes"),
])
def test_an_args_json_of_another_kind_is_named(small, tmp_path, content, words):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    (folder / "args.json").write_text(content)
    begin = ["--stage", "summarize", "--init", folder, "--out", tmp_path / "run"]
    for argv in (begin, ["--resume", folder]):
        message = refused(train.main, argv, tmp_path / "run")
        assert str(folder / "args.json") in message and words in message


def test_an_args_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "args.json").write_bytes(b'\xef\xbb\xbf{"tagless": true}')
    assert read_settings(tmp_path) == {"tagless": True}


def test_a_run_folder_that_cannot_be_is_one_line(small, tmp_path):
    (tmp_path / "file").write_text("kept")
    names = ("file", "file/below", "n" * 300, "file/below/deep")
    for name in names:
        words = ["--stage", "summarize", "--init", small, "--out", tmp_path / name]
        message = refused(train.main, words)
        assert len(message.splitlines()) == 1 and "no folder can be made there" in message, message
    assert (tmp_path / "file").read_text() == "kept"
    words = ["--stage", "summarize", "--init", small, "--out", small, "--overwrite"]
    assert "--out names another folder" in refused(train.main, words)
    assert "--out" in refused(train.main, [*words[:4], "--out", ""])


LONG = "n" * 300  # longer than a name in any file system


@pytest.mark.parametrize("main, words", [
    (train.main, ["--resume", LONG]),
    (train.main, ["--stage", "summarize", "--data", f"jsonl:{LONG}"]),
    (train.main, ["--stage", "summarize", "--data", f"help:{LONG}"]),
    (evaluation.main, ["--model", "SMALL", "--lang", "es_XX", "--data", f"parallel:{LONG}"]),
    (evaluation.main, ["--model", "SMALL", "--lang", "es_XX", "--json", f"{LONG}.json"]),
])
def test_a_path_that_the_system_refuses_is_one_line(small, main, words):
    message = refused(main, [small if word == "SMALL" else word for word in words])
    last = message.splitlines()[-1]  # a note may stand before it
    assert last.startswith("error: ") and LONG in last, message


def test_so_is_one_in_a_folder_that_may_not_be_entered(tmp_path):
    """Wherever a program asks for it: run() tells."""
    closed = tmp_path / "closed"

    def main():
        raise PermissionError(13, "Permission denied", str(closed))

    main.__module__ = "train"
    assert f"{closed}: Permission denied; mend" in refused(main, [])


@pytest.mark.parametrize("main, words", [
    (train.main, ["--stage", "summarize", "--langs", "en-US"]),
    (train.main, ["--stage", "translate", "--langs", "en_XX", "pt-BR"]),
    (train.main, ["--stage", "align", "--align-layer", "2", "--langs", "es-ES"]),
])
def test_a_language_with_a_hyphen_is_named(main, words):
    message = refused(main, words)
    assert f"--langs {words[-1]}: a language has no hyphen" in message


@pytest.mark.parametrize("main, words", [
    (train.main, ["--stage", "summarize", "--langs", "en_XX", "--langs", "xx"]),
    (train.main, ["--stage", "summarize", "--pairs", "en_XX-en_XX", "--pairs=xx-xx"]),
    (
        evaluation.main,
        [
            *("--model", train.BASE, "--lang", "es_XX"),
            *("--source-lang", "en_XX", "--source-lang", "xx"),
        ],
    ),
])
def test_of_a_list_that_is_typed_twice_the_last_counts_and_a_note_says_so(main, words):
    option = words[-2] if words[-1][0] != "-" else "--pairs"
    message = refused(main, words)  # of the last list, for that has no such language
    assert f"note: {option} stands there 2 times, and the last one counts" in message
    assert "xx" in message.splitlines()[-1]


@pytest.mark.parametrize("words", [
    ["train.py", "--stage", "summarise"],
    ["eval.py", "--lang", "tr_TR", "article.txt"],
    ["tokenizer.py", "base"],
    ["-m", "tools.delta", "sizes"],
    ["-m", "corpora.fetch", "xlsm", "english"],
])
def test_a_mistyped_option_is_one_line_with_a_command_that_explains_it(run_process, words):
    done = run_process(*words)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    program = 2 if words[0] == "-m" else 1
    called = " ".join([sys.executable, *words[:program]])
    assert f"`{called} " in done.stderr and "--help`" in done.stderr


def test_a_file_in_a_folder_that_is_not_there_yet_is_written_with_it(tmp_path):
    write_json(tmp_path / "new" / "scores.json", {})
    assert (tmp_path / "new" / "scores.json").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="no folder can be made there"):
        write_json(tmp_path / "file" / "scores.json", {})


SIZES = [sys.executable, "qk_finetune.py", "base", "qk"]


@pytest.mark.skipif(os.name == "nt", reason="its shell closes no stream")
def test_a_program_runs_where_its_standard_streams_are_closed():
    for closed in (">&-", "2>&-", "<&-", "<&- >&- 2>&-"):
        done = subprocess.run(
            ["bash", "-c", f'"$@" {closed}', "bash", *SIZES], cwd=ROOT, capture_output=True,
            text=True, timeout=600,
        )
        assert done.returncode == 0 and not done.stderr, (closed, done.stderr)
        assert (">&-" in closed.replace("2>&-", "")) == (done.stdout == ""), closed


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk to write to")
def test_output_to_a_full_disk_ends_in_one_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            SIZES, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=600
        )
    assert done.returncode == 2 and "the output: No space left on device" in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.skipif(os.name == "nt", reason="links want a right there")
def test_links_in_a_circle_are_named(small, tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for words in (
        ("-m", "tools.trim", small, loop, "--langs", "en_XX"),
        ("train.py", "--stage", "summarize", "--init", small, "--out", loop),
    ):
        done = subprocess.run(
            [sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True,
            timeout=600,
        )
        assert done.returncode == 2 and str(loop) in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name, content", [
    ("config.json", "[1]"),
    ("config.json", '"x"'),
    ("model.safetensors.index.json", "[" * 100_000),
])
def test_json_of_another_kind_is_no_traceback(small, tmp_path, name, content):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    if name != "config.json":
        (folder / "model.safetensors").unlink()
    (folder / name).write_text(content)
    (tmp_path / "data").mkdir()
    words = ["--stage", "summarize", "--init", folder, "--data", f"jsonl:{tmp_path / 'data'}"]
    assert name in refused(train.main, [*words, "--out", tmp_path / "run"], tmp_path / "run")
