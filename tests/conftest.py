"""Fixtures that several test files share; the repository root is put on the import path.

Programs run in this process (`run`), for most of a test's time would otherwise go into importing
torch; where a process of its own is the point (signals, several processes, a limit on memory), a
test takes `run_process`. Each test computes on one thread, its children too: sums over two threads
differ in the last digit.
"""
import argparse
import contextlib
import importlib
import io
import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported, here and in every child
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # where there is a GPU, programs would choose it and bf16
# What the shell of a reader, or a cluster, may have set.
for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
    os.environ.pop(name, None)
for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
    os.environ.pop(name, None)
for name in ("PYTHONWARNINGS", "COLUMNS"):
    os.environ.pop(name, None)
for name in list(os.environ):
    if name.startswith(("MKL_", "TQDM_")):
        del os.environ[name]

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
PATIENCE = 600  # seconds until a hanging child is ended: far more than any of them needs


def pytest_collection_modifyitems(items):
    """What is not marked slow is quick: `python -m pytest -m quick` takes half of the time."""
    for item in items:
        if item.get_closest_marker("slow") is None:
            item.add_marker(pytest.mark.quick)


@pytest.fixture(autouse=True)
def no_runs_here(tmp_path, monkeypatch):
    """What the reader has trained in runs/ is nothing to a test, nor another test's --quiet."""
    from plumbing.progress import Quiet

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Quiet, "asked", False)


class Terminal(io.StringIO):
    """Standard error as a person sees it."""

    def isatty(self):
        return True


def run_here(*args, cwd=ROOT, input=None, terminal=False):
    """A program in this process: run_here("train.py", ...), run_here("-m", "tools.delta", ...).

    terminal: standard error is one. Returns what subprocess.run() would: returncode, stdout and
    stderr."""
    from plumbing.files import run as handled

    words = [str(arg) for arg in args]
    if words[0] == "-m":
        words = words[1:]
    else:
        words[0] = Path(words[0]).stem  # train.py, or with its whole path
    module = importlib.import_module(words[0])
    out, code = io.StringIO(), 0
    err = Terminal() if terminal else io.StringIO()
    before, stdin = os.getcwd(), sys.stdin
    os.chdir(cwd)
    if input is not None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(input.encode("utf-8")), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            handled(lambda: module.main(words[1:]))
    except SystemExit as ended:
        code = ended.code or 0
        if isinstance(code, str):
            print(code, file=err)
            code = 1
    except Exception:
        traceback.print_exc(file=err)
        code = 1
    finally:
        os.chdir(before)
        sys.stdin = stdin
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def run_there(*args, cwd=ROOT, **options):
    """The same in a process of its own."""
    command = [sys.executable, *map(str, args)]
    return subprocess.run(
        command, cwd=cwd, text=True, capture_output=True, timeout=PATIENCE, **options
    )


class Parsed(Exception):
    """A command line was read to its end without a complaint."""


def check_command(words, monkeypatch):
    """Reads a command as the program would, and goes no further."""
    read = argparse.ArgumentParser.parse_args

    def read_and_stop(parser, args=None, namespace=None):
        read(parser, args, namespace)
        raise Parsed

    program = words[1] if words[0] == "-m" else words[0].removesuffix(".py")
    options = words[2:] if words[0] == "-m" else words[1:]
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", read_and_stop)
        with pytest.raises(Parsed):
            importlib.import_module(program).main(options)


@pytest.fixture
def run():
    """run("train.py", "--stage", ...) -> the finished program, its output as text."""
    return run_here


@pytest.fixture
def run_process():
    return run_there


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with a very small random mBART and the base's tokenizer: seconds, not minutes."""
    import torch

    from model import Config, MBart
    from tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("small")
    tokenizer = Tokenizer.from_pretrained(ROOT / "base")
    torch.manual_seed(0)
    config = Config(
        vocab_size=tokenizer.vocab_size,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=256,
    )
    MBart(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub, to which this process turns, with an empty cache."""
    from hub_server import Hub
    from huggingface_hub import constants

    server = Hub()
    monkeypatch.setattr(constants, "ENDPOINT", server.address)
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))  # the reader's own
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between two tries of one file
    for name in ("NO_PROXY", "no_proxy"):  # a proxy does not know this machine's own addresses
        monkeypatch.setenv(name, "127.0.0.1")
    yield server
    server.close()
