"""Rough weather: a run killed at any moment, a full disk, flipped bits, a loss that is no number, two runs at once."""
import json
import os
import random
import resource
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file
from test_train import losses, same_weights

from model import MBart
from plumbing.files import UserError
from plumbing.runs import read_state

OPTIONS = ("--stage", "translate", "--langs", "en_XX", "es_XX", "--tokens", "200", "--valid-examples", "2", "--no-eval",
           "--device", "cpu", "--recipe", "full+embeddings", "--lr", "1e-2", "--dropout", "0.1")

# Kills a training process again and again, after a random time each; forked, so that no import is repeated.
KILLER = """
import os, random, signal, sys, time
sys.path.insert(0, {root!r})
import torch
torch.set_num_threads(1)
import train
from options import parse_args
options, out, kills = {options!r}, {out!r}, 0
rng = random.Random(5)
while True:
    child = os.fork()
    if child == 0:
        begun = os.path.exists(out + "/state.pt")
        sys.argv = ["train.py"] + (["--resume", out] if begun else [*options, "--out", out, "--overwrite"])
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1); os.dup2(devnull, 2)
        train.main()
        os._exit(0)
    if kills < 35:
        time.sleep(rng.uniform(0.05, 0.45))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    else:
        print(kills, os.waitstatus_to_exitcode(status))
        break
"""


def test_a_run_killed_at_over_30_random_moments_ends_as_if_it_never_was(run_process, small, tmp_path):
    options = [*OPTIONS, "--init", str(small), "--steps", "900", "--eval-every", "10"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}  # sums over two threads differ from sums over one in the last digit
    assert run_process("train.py", *options, "--out", tmp_path / "whole", env=env).returncode == 0
    code = KILLER.format(root=str(ROOT), options=options, out=str(tmp_path / "cut"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)
    kills, status = map(int, done.stdout.split())
    assert status == 0 and kills >= 30, done.stdout + done.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


def test_a_full_disk_leaves_the_last_good_files_and_says_so(small, tmp_path):
    """A limit on the size of files stands for the disk: the model fits, the optimizer's state does not."""
    size = (small / "model.safetensors").stat().st_size
    done = subprocess.run([sys.executable, "train.py", *OPTIONS, "--init", str(small), "--steps", "4", "--eval-every",
                           "2", "--out", str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size * 2, size * 2)))
    assert done.returncode == 2 and "state.pt: could not be written" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not list((tmp_path / "run").glob("*.tmp"))
    MBart.from_pretrained(tmp_path / "run")


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    subprocess.run([sys.executable, "train.py", *OPTIONS, "--init", str(small), "--steps", "2", "--eval-every", "1",
                    "--out", str(out)], cwd=ROOT, check=True, capture_output=True)
    return out


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
            MBart.from_pretrained(tmp_path) if name.startswith("model") else read_state(tmp_path / name, "cpu")
    (tmp_path / name).write_bytes(data)
    MBart.from_pretrained(tmp_path) if name.startswith("model") else read_state(tmp_path / name, "cpu")


def damaged(small, folder, change):
    """A copy of a folder whose tensors went through change(name, tensor)."""
    folder.mkdir()
    for path in small.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = {name: change(name, tensor) for name, tensor in load_file(small / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_loss_that_is_no_number_stops_with_its_batch_saved(run, small, tmp_path):
    broken = damaged(small, tmp_path / "broken", lambda name, x: x * torch.nan if "layers.1.fc1.bias" in name else x)
    done = run("train.py", *OPTIONS, "--init", broken, "--steps", 4, "--out", tmp_path / "run")
    assert done.returncode == 2 and "the loss is nan at update 1" in done.stderr and "Traceback" not in done.stderr
    batch = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert batch[0]["source"] and batch[0]["labels"] and batch[0]["source language"] in ("en_XX", "es_XX")


def test_a_run_that_breaks_before_its_first_checkpoint_does_not_bring_back_the_one_it_overwrites(run, small, tmp_path):
    done = run("train.py", *OPTIONS, "--init", small, "--steps", 2, "--out", tmp_path / "run")
    assert done.returncode == 0 and (tmp_path / "run" / "state.pt").exists(), done.stderr
    broken = damaged(small, tmp_path / "broken", lambda name, x: x * torch.nan if "layers.1.fc1.bias" in name else x)
    done = run("train.py", *OPTIONS, "--init", broken, "--steps", 4, "--out", tmp_path / "run", "--overwrite")
    assert done.returncode == 2 and not (tmp_path / "run" / "state.pt").exists()


def test_fp16_overflow_is_skipped_and_counted(run, small, tmp_path):
    large = damaged(small, tmp_path / "large", lambda name, x: x * 3000 if "decoder.layer_norm.w" in name else x)
    done = run("train.py", *OPTIONS, "--init", large, "--steps", 6, "--eval-every", 6, "--out", tmp_path / "run",
               "--precision", "fp16")
    assert done.returncode == 0, done.stderr
    count = read_state(tmp_path / "run" / "state.pt", "cpu")["progress"]["overflows"]
    assert count > 0 and f"{count} updates skipped by overflow" in done.stdout + done.stderr


def test_two_runs_into_one_folder_are_refused_and_a_dead_ones_lock_does_not_bind(run, small, tmp_path):
    command = [sys.executable, "train.py", *OPTIONS, "--init", str(small), "--steps", "100000", "--out",
               str(tmp_path / "run")]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not (tmp_path / "run" / "args.json").exists():
            time.sleep(0.02)
        done = run("train.py", *OPTIONS, "--init", small, "--steps", 2, "--out", tmp_path / "run", "--overwrite")
        assert done.returncode == 2 and "another run is training" in done.stderr
    finally:
        first.kill()
        first.wait()
    done = run("train.py", *OPTIONS, "--init", small, "--steps", 2, "--out", tmp_path / "run", "--overwrite")
    assert done.returncode == 0, done.stderr


def test_a_mistake_leaves_no_folder_behind(run, tmp_path):
    done = run("train.py", "--stage", "translate", "--langs", "xx_XX", "--out", tmp_path / "run")
    assert done.returncode == 2 and not (tmp_path / "run").exists()
