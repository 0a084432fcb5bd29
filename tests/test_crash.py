"""Rough weather: a run killed at any moment, a full disk, flipped bits, a loss that is no number,
two runs at once."""
import errno
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import time

import pytest
import torch
from conftest import PATIENCE, ROOT, run_here
from safetensors.torch import load_file, save_file
from test_train import losses, same_weights

import train
from model import MBart
from plumbing import files
from plumbing.files import UserError
from plumbing.runs import is_training, read_log, read_settings, read_state
from tokenizer import Tokenizer

OPTIONS = (
    "--stage", "translate", "--langs", "en_XX", "es_XX", "--tokens", 200, "--valid-examples", 2,
    "--no-eval", "--device", "cpu", "--recipe", "full+embeddings", "--lr", 1e-2, "--dropout", 0.1,
)
KILLS = 35
STEPS = 160

# Kills a training process again and again; forked, so that no import is repeated. Each lives until
# it has written its checkpoint so many times, and then for a random part of the time that passes
# until the next: a slow machine kills no sooner and a fast one no later.
KILLER = """
import os, random, signal, sys, time
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
torch.optim.AdamW([torch.zeros(1)])  # imports 800 files when it is first called
import train

options, out = {options!r}, {out!r}
state = out + "/state.pt"
rng = random.Random(5)

def written():
    try:
        return os.stat(state).st_mtime_ns
    except FileNotFoundError:
        return None

def live():
    begun = written() is not None
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    train.main(["--resume", out] if begun else [*options, "--out", out, "--overwrite"])
    os._exit(0)

def ended(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

def moments_of(child, times):
    moments = [time.monotonic()]
    before = written()
    while len(moments) <= times and not ended(child):
        time.sleep(0.002)
        now = written()
        if now != before:
            before = now
            moments.append(time.monotonic())
    return moments

kills = 0
first, interval = 0.5, 0.1  # seconds from birth to checkpoint, and from one to the next
while True:
    child = os.fork()
    if child == 0:
        live()
    if kills < {kills}:
        moments = moments_of(child, rng.choice([0, 1, 1, 2]))
        if len(moments) > 1:
            first = moments[1] - moments[0]
        if len(moments) > 2:
            interval = moments[2] - moments[1]
        time.sleep(rng.random() * (first if len(moments) == 1 else interval))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        break
    kills += 1
print(kills, os.waitstatus_to_exitcode(status))
"""


@pytest.mark.slow
def test_a_run_killed_at_over_30_random_moments_ends_as_if_it_never_was(
    run, run_process, small, tmp_path
):
    options = [*OPTIONS, "--init", small, "--steps", STEPS, "--eval-every", 2]
    done = run("train.py", *options, "--out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    words = [str(word) for word in options]
    cut = tmp_path / "cut"
    code = KILLER.format(root=str(ROOT), options=words, out=str(cut), kills=KILLS)
    done = run_process("-c", code)
    kills, status = map(int, done.stdout.split())
    assert status == 0 and kills >= 30, done.stdout + done.stderr
    assert losses(cut) == losses(tmp_path / "whole")
    assert same_weights(cut, tmp_path / "whole")


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_files_and_says_so(run_process, small, tmp_path):
    """A limit on the size of files stands for the disk: the model fits, the optimizer does not."""
    limit = (small / "model.safetensors").stat().st_size * 2
    done = run_process(
        "train.py", *OPTIONS, "--init", small, "--steps", 4, "--eval-every", 2,
        "--out", tmp_path / "run",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2 and "state.pt: could not be written" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not list((tmp_path / "run").glob("*.tmp"))
    MBart.from_pretrained(tmp_path / "run")


@pytest.mark.parametrize("error, said", [
    (UserError("model.safetensors: could not be written"), "could not be written"),
    (MemoryError("no room"), "the memory is full (no room)"),
])
@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_log_ends_with_the_model_that_is_there(
    small, tmp_path, monkeypatch, keep, error, said
):
    """Another validation whose model the disk did not take would be told as the model's own."""
    save = MBart.save_pretrained
    calls = []

    def save_twice(*arguments):
        calls.append(arguments)
        if len(calls) > 2:  # the start, and the first validation
            raise error
        save(*arguments)

    monkeypatch.setattr(MBart, "save_pretrained", save_twice)
    done = run_here(
        "train.py", *OPTIONS, "--init", small, "--steps", 4, "--eval-every", 1, "--keep", keep,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 2 and said in done.stderr
    steps = [row["step"] for row in read_log(tmp_path / "run" / "log.csv")]
    assert 1 in steps and len(calls) == 3
    if keep == "last":
        assert steps == [1]


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    done = run_here(
        "train.py", *OPTIONS, "--init", small, "--steps", 2, "--eval-every", 1, "--out", out
    )
    assert done.returncode == 0, done.stderr
    return out


def read(path):
    """Reads a run's file, whichever it is."""
    if path.name == "state.pt":
        return read_state(path)
    return MBart.from_pretrained(path.parent)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt"])
def test_a_flipped_bit_anywhere_is_found_and_the_file_named(finished, tmp_path, name):
    data = (finished / name).read_bytes()
    (tmp_path / "config.json").write_bytes((finished / "config.json").read_bytes())
    rng = random.Random(0)
    for _ in range(12):
        at = rng.randrange(len(data) // 50, len(data) * 49 // 50)
        flipped = bytearray(data)
        flipped[at] ^= 1 << rng.randrange(8)
        (tmp_path / name).write_bytes(flipped)
        with pytest.raises(UserError, match=name):
            read(tmp_path / name)
    (tmp_path / name).write_bytes(data)
    read(tmp_path / name)


def damaged(small, folder, part, factor):
    """A copy of a folder in which the tensors whose name has `part` are multiplied by `factor`."""
    shutil.copytree(small, folder)
    tensors = load_file(small / "model.safetensors")
    for name, tensor in tensors.items():
        if part in name:
            tensors[name] = tensor * factor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture
def broken(small, tmp_path):
    """Its weights are numbers, but the states of layer 1 grow beyond what float32 holds."""
    return damaged(small, tmp_path / "broken", "layers.1.fc", 1e38)


def test_a_loss_that_is_no_number_stops_with_its_batch_saved(run, broken, tmp_path):
    done = run("train.py", *OPTIONS, "--init", broken, "--steps", 4, "--out", tmp_path / "run")
    assert done.returncode == 2 and "the loss is nan at update 1" in done.stderr
    assert "Traceback" not in done.stderr
    batch = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert batch[0]["source"] and batch[0]["labels"]
    assert batch[0]["source language"] in ("en_XX", "es_XX")


def test_weights_that_are_no_numbers_do_not_replace_a_checkpoint(
    run, small, tmp_path, monkeypatch
):
    """As of a gradient that overflows: the loss that it came from was still a number."""
    update = train.update

    def overflowing(model, weights, *rest):
        is_skipped = update(model, weights, *rest)
        if len(updates) == 2:
            weights[0].data[0] = float("nan")
        updates.append(1)
        return is_skipped

    for stop, last in ((3, "the last good checkpoint is in"), (None, "the loss is nan at update")):
        updates = []
        monkeypatch.setattr(train, "update", overflowing)
        out = tmp_path / f"stop {stop}"
        words = ["--init", small, "--steps", 10, "--eval-every", 2, "--out", out]
        if stop:
            words += ["--stop-at", stop]
        done = run("train.py", *OPTIONS, *words)
        assert done.returncode == 2 and last in done.stderr, done.stderr
        assert ("stopped at update 3, and not saved" in done.stderr) == (stop is not None)
        assert read_state(out / "state.pt")["progress"]["step"] == 2
        monkeypatch.undo()
        done = run("train.py", "--resume", out, "--stop-at", 4)
        assert done.returncode == 0 and "going on at update 2 of 10" in done.stdout, done.stderr


def test_a_stop_after_a_validation_that_is_no_number_promises_no_checkpoint(
    run, small, tmp_path, monkeypatch
):
    losses_in_turn = iter((9.0, math.nan))
    monkeypatch.setattr(train, "validation_loss", lambda *_: next(losses_in_turn))
    words = ("--steps", 10, "--eval-every", 2, "--stop-at", 2, "--out", tmp_path / "run")
    done = run("train.py", *OPTIONS, "--init", small, *words)
    assert done.returncode == 2 and "go on with" not in done.stdout
    assert "not saved" in done.stderr and "nothing was saved before that" in done.stderr


def test_a_bad_batch_of_translations_is_saved_as_such(run, broken, tmp_path):
    done = run(
        "train.py", "--stage", "align", "--align-layer", 2, "--langs", "es_XX", "--tokens", 200,
        "--device", "cpu", "--init", broken, "--out", tmp_path / "run",
    )
    assert done.returncode == 2 and "the loss is nan at update 1" in done.stderr, done.stderr
    batch = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert batch[0]["source"] and batch[0]["translation"]


def test_a_run_that_breaks_before_its_first_checkpoint_does_not_bring_back_the_one_it_overwrites(
    run, small, broken, tmp_path
):
    out = tmp_path / "run"
    done = run("train.py", *OPTIONS, "--init", small, "--steps", 2, "--out", out)
    assert done.returncode == 0 and (out / "state.pt").exists(), done.stderr
    done = run("train.py", *OPTIONS, "--init", broken, "--steps", 4, "--out", out, "--overwrite")
    assert done.returncode == 2 and not (out / "state.pt").exists()


def test_a_run_that_overwrites_another_takes_nothing_of_it_for_its_own(run, small, tmp_path):
    out = tmp_path / "run"  # a model whose encoder has a vocabulary of its own
    done = run("-m", "tools.new_language", "graft", small, small, "src", out)
    assert done.returncode == 0, done.stderr
    header = "step,loss,validation loss,tokens/s,learning rate"
    (out / "log.csv").write_text(f"{header}\n1,2.0,0.001,9.0,0.1\n")
    (out / "bad_batch.json").write_text("[]")
    words = (*OPTIONS, "--init", small, "--steps", 4, "--eval-every", 4, "--out", out)
    done = run("train.py", *words, "--overwrite", "--stop-at", 2)  # before its first validation
    assert done.returncode == 0, done.stderr
    assert not (out / "bad_batch.json").exists() and losses(out) == []
    tokenizer = Tokenizer.from_pretrained(out)
    assert tokenizer.source is tokenizer
    done = run("train.py", "--resume", out)
    assert done.returncode == 0 and [row[0] for row in losses(out)] == ["4"], done.stderr


def test_a_run_breaks_without_another_ones_settings(run, small, tmp_path, monkeypatch):
    out = tmp_path / "run"
    shutil.copytree(small, out)
    (out / "args.json").write_text('{"stage": "translate", "tagless": true}')

    def full(self, folder):
        raise UserError("no space left")

    monkeypatch.setattr(Tokenizer, "save_pretrained", full)
    words = (*OPTIONS, "--init", small, "--steps", 1, "--out", out, "--overwrite")
    done = run("train.py", *words)
    assert done.returncode == 2 and "no space left" in done.stderr
    assert read_settings(out)["tagless"] is False and not (out / "config.json").exists()


def test_fp16_overflow_is_skipped_and_counted(run, small, tmp_path):
    large = damaged(small, tmp_path / "large", "decoder.layer_norm.w", 3000)
    done = run(
        "train.py", *OPTIONS, "--init", large, "--steps", 6, "--eval-every", 6,
        "--out", tmp_path / "run", "--precision", "fp16",
    )
    assert done.returncode == 0, done.stderr
    count = read_state(tmp_path / "run" / "state.pt")["progress"]["overflows"]
    assert count > 0 and f"{count} updates skipped by overflow" in done.stdout + done.stderr


@pytest.mark.slow
def test_two_runs_into_one_folder_are_refused_and_a_dead_ones_lock_does_not_bind(
    run, small, tmp_path
):
    out = tmp_path / "run"
    words = ("train.py", *OPTIONS, "--init", small, "--out", out)
    command = [sys.executable, *map(str, words), "--steps", "100000"]
    first = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        limit = time.monotonic() + PATIENCE
        while not (out / "args.json").exists() and first.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.02)
        done = run(*words, "--steps", 2, "--overwrite")
        assert done.returncode == 2 and "another run is training" in done.stderr
        done = run("-m", "tools.trim", small, out, "--langs", "en_XX", "--overwrite")
        assert done.returncode == 2 and "is a training run" in done.stderr
    finally:
        first.kill()
        first.wait()
    done = run(*words, "--steps", 2, "--overwrite")
    assert done.returncode == 0, done.stderr


def test_a_system_without_file_locks_trains_too(run_process, small, tmp_path):
    """Windows has no fcntl."""
    code = (
        f"import sys; sys.modules['fcntl'] = None; sys.path.insert(0, {str(ROOT)!r}); import train;"
        "train.main(sys.argv[1:])"
    )
    words = (*OPTIONS, "--init", small, "--steps", 1, "--out", tmp_path / "run")
    done = run_process("-c", code, *words)
    assert done.returncode == 0 and len(losses(tmp_path / "run")) == 1, done.stderr


def test_a_disk_that_holds_no_locks_is_told_and_trained_on(run, small, tmp_path, monkeypatch):
    """As Lustre is often mounted."""

    def refuse(*rest):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("plumbing.runs.fcntl.flock", refuse)
    out = tmp_path / "run"
    done = run("train.py", *OPTIONS, "--init", small, "--steps", 1, "--out", out)
    assert done.returncode == 0 and "its disk holds no locks" in done.stderr, done.stderr
    assert not is_training(out)


def test_a_crash_between_validations_costs_what_was_done_since_the_last_checkpoint(
    run, small, tmp_path, monkeypatch
):
    whole, out = tmp_path / "whole", tmp_path / "run"
    words = ("train.py", *OPTIONS, "--init", small, "--steps", 4)
    assert run(*words, "--out", whole).returncode == 0
    monkeypatch.setattr("train.SAVE_EVERY", 0)  # after each update
    update = train.update
    calls = []

    def crash(*rest):
        calls.append(rest)
        if len(calls) == 3:
            raise AssertionError("a crash")
        return update(*rest)

    monkeypatch.setattr("train.update", crash)
    done = run(*words, "--out", out)
    assert done.returncode == 1 and "a crash" in done.stderr
    assert read_state(out / "state.pt")["progress"]["step"] == 2
    monkeypatch.setattr("train.update", update)
    assert run("train.py", "--resume", out).returncode == 0
    assert same_weights(whole, out)


def test_a_mistake_leaves_no_folder_behind(run, tmp_path):
    out = tmp_path / "run"
    done = run("train.py", "--stage", "translate", "--langs", "xx_XX", "--out", out)
    assert done.returncode == 2 and not out.exists()


def test_a_mistake_leaves_a_folder_of_ones_own_and_is_the_error_that_is_told(run, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    link = tmp_path / "link"
    link.symlink_to(own)
    for out in (own, link):
        done = run("train.py", "--stage", "translate", "--langs", "xx_XX", "--out", out)
        assert done.returncode == 2 and "xx_XX" in done.stderr, done.stderr
        assert out.is_dir() and not list(out.iterdir())


def test_full_memory_is_no_fault_of_the_file_that_was_read(run, small, tmp_path, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 GB")

    copy = tmp_path / "model"
    shutil.copytree(small, copy)
    torch.save(MBart.from_pretrained(small).state_dict(), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    monkeypatch.setattr(torch, "load", full)
    done = run("eval.py", "--model", copy, "--stage", "translate", "--lang", "es_XX")
    assert done.returncode == 2 and "not enough memory to read it" in done.stderr, done.stderr
    assert "copy it again" not in done.stderr


def test_a_file_that_another_program_has_open_is_replaced_when_it_lets_go(tmp_path, monkeypatch):
    """As on Windows, where a virus scanner has every new file open for a moment."""
    replace = os.replace
    refusals = [PermissionError(), PermissionError()]

    def refuses_at_first(*names):
        if refusals:
            raise refusals.pop()
        replace(*names)

    monkeypatch.setattr(os, "replace", refuses_at_first)
    monkeypatch.setattr(files, "WAITS", (0, 0))
    files.write_text(tmp_path / "log.csv", "all of it")
    assert (tmp_path / "log.csv").read_text() == "all of it"
