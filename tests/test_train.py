"""train.py: the loop, resuming, several processes and the errors a user meets, through the command line."""
import csv
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pytest
import torch
from conftest import ROOT

import train
from model import MBart
from options import language_pairs, parse_args
from plumbing.files import UserError
from plumbing.runs import read_state

QUICK = ("--stage", "translate", "--langs", "en_XX", "es_XX", "--tokens", "300", "--valid-examples", "4", "--no-eval",
         "--device", "cpu", "--seed", "3")


def losses(folder):
    with open(folder / "log.csv") as file:
        return [(row["step"], row["loss"], row["validation loss"]) for row in csv.DictReader(file)]


def same_weights(a, b):
    a, b = (MBart.from_pretrained(folder).state_dict() for folder in (a, b))
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_learns_logs_and_leaves_a_model_in_the_hugging_face_layout(run, small, tmp_path):
    out = tmp_path / "run"
    done = run("train.py", *QUICK, "--init", small, "--out", out, "--steps", 40, "--eval-every", 20, "--lr", 1e-2,
               "--recipe", "full+embeddings")
    assert done.returncode == 0, done.stderr
    rows = losses(out)
    assert [row[0] for row in rows] == ["20", "40"] and float(rows[1][2]) < float(rows[0][2]) - 0.5
    assert {p.name for p in out.iterdir()} >= {"config.json", "model.safetensors", "sentencepiece.bpe.model",
                                               "tokenizer.json", "args.json", "log.csv", "state.pt"}
    assert not list(out.glob("*.tmp")) and "tensors that train" in done.stdout


def test_the_folder_keeps_the_best_model_or_the_last(run, small, tmp_path):
    for keep in ("best", "last"):
        done = run("train.py", *QUICK, "--init", small, "--steps", 6, "--eval-every", 1, "--lr", 1, "--warmup", 0,
                   "--recipe", "full+embeddings", "--keep", keep, "--out", tmp_path / keep)
        assert done.returncode == 0, done.stderr
        found = [float(row[2]) for row in losses(tmp_path / keep)]
        assert min(found) != found[-1], "the run must get worse, or the two are the same"
        last = read_state(tmp_path / keep / "state.pt", "cpu")["weights"]
        kept = MBart.from_pretrained(tmp_path / keep).state_dict()
        assert all(torch.equal(last[name], kept[name]) for name in last) == (keep == "last")


def test_a_run_stopped_by_a_signal_resumes_bit_exactly(run, small, tmp_path):
    """Dropout, data order, optimizer and the model are the uninterrupted run's, to the last digit."""
    options = (*QUICK, "--init", small, "--steps", 60, "--eval-every", 20, "--dropout", 0.2, "--recipe",
               "full+embeddings", "--lr", 1e-2, "--accumulate", 2)
    assert run("train.py", *options, "--out", tmp_path / "whole").returncode == 0
    command = [sys.executable, "train.py", *map(str, options), "--out", str(tmp_path / "cut")]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.time() + 120
    while not (tmp_path / "cut" / "log.csv").exists() and time.time() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 128 + signal.SIGTERM and "--resume" in output, output
    assert len(losses(tmp_path / "cut")) < 3, "the run was stopped before its end"
    done = run("train.py", "--resume", tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


def test_the_dropout_asked_for_is_the_dropout_used(small):
    """The folder's config says 0.1; --dropout 0 must leave no randomness, in the attention's weights neither."""
    model = MBart.from_pretrained(small).train()
    ids = torch.randint(4, 200, (2, 9))
    assert not torch.equal(model(ids, ids), model(ids, ids))
    model.config.dropout = model.config.attention_dropout = 0.0
    assert torch.equal(model(ids, ids), model(ids, ids))
    model.config.attention_dropout = 0.5
    assert not torch.equal(model(ids, ids), model(ids, ids))


def test_ctrl_c_saves_and_exits_without_a_traceback(small, tmp_path):
    command = [sys.executable, "train.py", *QUICK, "--init", str(small), "--steps", "100000", "--eval-every", "5",
               "--out", str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while not (tmp_path / "run" / "log.csv").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and "Traceback" not in output
    assert (tmp_path / "run" / "state.pt").exists()


@pytest.mark.parametrize("dropout, recipe", [(0.0, "full"), (0.3, "full"), (0.0, "full+embeddings")])
def test_two_processes_follow_one_process_on_the_same_global_batch(small, tmp_path, dropout, recipe):
    options = [*QUICK, "--init", str(small), "--steps", "12", "--eval-every", "3", "--accumulate", "2",
               "--dropout", str(dropout), "--recipe", recipe, "--lr", "1e-2"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    one = subprocess.run([sys.executable, "train.py", *options, "--out", str(tmp_path / "one")], cwd=ROOT, env=env,
                         capture_output=True, text=True)
    two = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
                          str(29500 + os.getpid() % 500), "train.py", *options, "--out", str(tmp_path / "two")],
                         cwd=ROOT, env=env, capture_output=True, text=True)
    assert one.returncode == 0 and two.returncode == 0, one.stderr + two.stderr
    for a, b in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert [float(x) for x in a] == pytest.approx([float(x) for x in b], rel=2e-6)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_learns_what_full_precision_learns(run, small, tmp_path, precision):
    for name, options in (("full", ()), (precision, ("--precision", precision))):
        done = run("train.py", *QUICK, "--init", small, "--out", tmp_path / name, "--steps", 30, "--eval-every", 30,
                   "--lr", 1e-2, "--recipe", "full+embeddings", *options)
        assert done.returncode == 0, done.stderr
    full, half = (float(losses(tmp_path / name)[-1][2]) for name in ("full", precision))
    assert half == pytest.approx(full, rel=0.05)


def test_the_compiled_model_follows_the_plain_one(run, small, tmp_path):
    for name, options in (("plain", ()), ("compiled", ("--compile",))):
        done = run("train.py", *QUICK, "--init", small, "--out", tmp_path / name, "--steps", 6, "--eval-every", 3,
                   "--lr", 1e-2, *options)
        assert done.returncode == 0, done.stderr
    for a, b in zip(losses(tmp_path / "plain"), losses(tmp_path / "compiled"), strict=True):
        assert [float(x) for x in a] == pytest.approx([float(x) for x in b], rel=1e-4)


def test_a_run_stops_after_as_many_bad_validations_as_patience_allows_and_keeps_the_best_model(run, small, tmp_path):
    done = run("train.py", *QUICK, "--init", small, "--out", tmp_path / "run", "--steps", 400, "--eval-every", 4,
               "--lr", 30, "--warmup", 0, "--clip", 0, "--patience", 2, "--recipe", "full+embeddings")
    assert done.returncode == 0, done.stderr
    held = [float(row[2]) for row in losses(tmp_path / "run")]
    assert len(held) < 100 and min(held) < min(held[-2:])
    assert f"{min(held):.4f}" in done.stdout.splitlines()[-1]


def test_the_learning_rate_warms_up_and_falls_linearly_to_its_end():
    args = Namespace(lr=1.0, warmup=10, final_lr=0.1, steps=110)
    assert train.learning_rate(0, args) == pytest.approx(0.1) and train.learning_rate(9, args) == 1.0
    assert train.learning_rate(10, args) == 1.0 and train.learning_rate(60, args) == pytest.approx(0.55)
    assert train.learning_rate(110, args) == pytest.approx(0.1)


def test_the_large_preset_is_the_papers():
    args = parse_args(train.__doc__, ["--stage", "summarize", "--preset", "large"])
    assert (args.lr, args.final_lr, args.steps, args.clip, args.dropout) == (2e-5, 5e-9, 120_000, 0.1, 0.1)
    assert (args.tokens, args.accumulate, args.eval_every, args.patience) == (2800, 3, 5000, 1)
    assert args.recipe == "qk" and args.weight_decay == 0.01 and args.label_smoothing == 0


def test_translate_trains_all_pairs_and_copying_and_summarize_stays_within_a_language():
    assert len(language_pairs(parse_args(train.__doc__, ["--stage", "translate"]))) == 25
    args = parse_args(train.__doc__, ["--stage", "summarize", "--langs", "en_XX", "es_XX"])
    assert language_pairs(args) == [("en_XX", "en_XX"), ("es_XX", "es_XX")]
    with pytest.raises(UserError, match="en_XX-es_XX"):
        language_pairs(parse_args(train.__doc__, ["--stage", "translate", "--pairs", "en_XX"]))


@pytest.mark.parametrize("args, words", [
    (("--stage", "translte"), "invalid choice"), ((), "--stage is required"),
    (("--stage", "translate", "--langs", "en_XX", "tr"), "did you mean tr_TR"),
    (("--stage", "translate", "--langs", "en_XX", "fi_FI"), "the built-in corpus has no 'fi_FI'"),
    (("--stage", "translate", "--init", "/nowhere"), "/nowhere"),
    (("--stage", "translate", "--data", "jsonl:/nowhere"), "/nowhere"),
    (("--stage", "translate", "--steps", "0"), "--steps: must be at least 1"),
    (("--stage", "summarize", "--recipe", "kq"), "invalid choice"), (("--resume", "/nowhere"), "no args.json"),
    (("--stage", "translate", "--out", "base"), "has a model already")])
def test_a_users_mistake_is_one_clear_line_and_exit_code_2(run, args, words, tmp_path):
    out = () if {"--out", "--resume"} & set(args) else ("--out", tmp_path / "run")
    done = run("train.py", *args, *out)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_a_damaged_checkpoint_is_named(run, small, tmp_path):
    out = tmp_path / "run"
    options = (*QUICK, "--init", small, "--out", out, "--steps", 4, "--eval-every", 2)
    assert run("train.py", *options).returncode == 0
    state = (out / "state.pt").read_bytes()
    (out / "state.pt").write_bytes(state[:len(state) // 2])
    done = run("train.py", "--resume", out)
    assert done.returncode == 2 and "state.pt: damaged" in done.stderr and "Traceback" not in done.stderr
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").write_bytes(weights[:len(weights) // 2])
    done = run("train.py", "--resume", out)
    assert done.returncode == 2 and "model.safetensors" in done.stderr and "Traceback" not in done.stderr


def test_two_processes_resume_and_a_rank_that_dies_ends_the_run_with_its_error(small, tmp_path):
    def torchrun(*args, code=None):
        port = str(29100 + os.getpid() % 300)
        script = ["train.py"] if code is None else [str(code)]
        return subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
                               port, *script, *map(str, args)], cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
                              capture_output=True, text=True, timeout=200)

    options = (*QUICK, "--init", small, "--steps", 8, "--eval-every", 2, "--accumulate", 2, "--recipe", "full")
    assert torchrun(*options, "--out", tmp_path / "whole").returncode == 0
    assert torchrun(*options, "--out", tmp_path / "cut", "--stop-at", 3).returncode == 0
    done = torchrun("--resume", tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    for a, b in zip(losses(tmp_path / "whole"), losses(tmp_path / "cut"), strict=True):
        assert [float(x) for x in a] == pytest.approx([float(x) for x in b], rel=1e-6)
    dying = tmp_path / "dying.py"
    dying.write_text(f"import os, sys\nsys.path.insert(0, {str(ROOT)!r})\nimport data, train\n"
                     "step = data.Batches.__next__\ndef fail(self):\n"
                     "    if os.environ['RANK'] == '1' and self.position.number == 6:\n"
                     "        raise RuntimeError('this rank dies')\n    return step(self)\n"
                     "data.Batches.__next__ = fail\ntrain.main()\n")
    done = torchrun(*options, "--out", tmp_path / "dead", code=dying)
    assert done.returncode != 0 and "this rank dies" in done.stderr
