"""plumbing/options.py: what a run has saved is what its command line gives."""
import argparse
import json
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

from plumbing import files
from plumbing.files import UserError
from plumbing.options import (
    SEED,
    SHARE,
    check_saved,
    default_precision,
    number,
    option,
    read_options,
)
from plumbing.runs import longest_input
from tokenizer import train_sentencepiece


@dataclass(kw_only=True)
class Settings:
    shares: tuple = option("", (0.1, 0.2), type=SHARE, nargs="+")
    words: tuple = option("", (0, 0), type=number(int, 0), nargs=2)
    names: tuple = option("", ("a",), nargs="*", choices=("a", "b", "1"))


@pytest.mark.parametrize("text", ["2147483648", "9" * 30])
def test_a_whole_number_that_no_library_takes_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="must be less than 2147483648"):
        number(int, 0)(text)
    assert number(int, 0)("2147483647") == 2147483647 and number(float, 0.0)("3e9") == 3e9
    assert SEED("4294967295") == 2**32 - 1


@pytest.mark.parametrize("words", [
    ("--shares", "0.1", "0.25", "0"),
    ("--words", "3", "1"),
    ("--names", "b", "1"),
    ("--names",),
])
def test_a_list_that_was_typed_is_read_back(words):
    typed = read_options(Settings, words)
    check_saved(Settings, json.loads(json.dumps(typed)), "args.json")


@pytest.mark.parametrize("saved", [
    {"shares": [0.1, 1.5]}, {"shares": ["0.1"]}, {"shares": [True]}, {"shares": 0.1},
    {"words": [1]}, {"words": [1, 2.5]}, {"words": [1, -2]}, {"words": [1, "2"]},
    {"names": [1]}, {"names": ["c"]}, {"names": [["a"]]}, {"names": [None]},
])
def test_a_list_that_could_not_be_typed_is_refused(saved):
    with pytest.raises(UserError, match="args.json: .* does not offer"):
        check_saved(Settings, saved, "args.json")


@pytest.mark.parametrize("words", [
    ("train.py", "--stage", "translate", "--steps", 1, "--no-eval", "--out", "out"),
    ("-m", "tools.start", "out"),
    ("-m", "tools.new_language", "random-cross-attention", ROOT / "base", "out"),
    ("-m", "tools.new_language", "fresh", ROOT / "base", "out", "--source", "de_DE", "--pairs",
     "de_DE-en_XX"),
])
def test_a_seed_that_no_generator_takes_is_refused(run, tmp_path, words):
    for seed in (-1, 2**32, 2**64, "a"):
        done = run(*words, "--seed", seed, cwd=tmp_path)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "--seed" in done.stderr and not (tmp_path / "out").exists()


def test_the_largest_seed_is_taken_by_all_generators(tmp_path):
    seed = SEED(str(2**32 - 1))
    torch.manual_seed(seed)
    train_sentencepiece(["a map", "the park"], tmp_path / "model", 20, seed=seed)


@pytest.mark.parametrize("device, precision", [
    ("cpu", "fp32"), ("cuda", "bf16"), ("cuda:0", "bf16"), ("cuda:1", "fp16"),
])
def test_half_precision_is_the_one_that_a_gpu_computes_in(monkeypatch, device, precision):
    """Of the GPU that is named, whichever is the current one."""
    def properties(of):
        return SimpleNamespace(major=7 if of.index == 1 else 9)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    assert default_precision(device) == precision


@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
    RuntimeError("CUDA error: out of memory\nmore"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
])
def test_full_memory_is_told_in_one_line(capsys, monkeypatch, error):
    monkeypatch.setattr("sys.argv", ["train.py"])

    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        files.run(main)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "fewer --tokens" in said and len(said.splitlines()) == 1


def test_an_error_of_another_kind_is_not_taken_for_full_memory(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises(RuntimeError, match="another"):
        files.run(lambda: (_ for _ in ()).throw(RuntimeError("another")))


def test_a_model_reads_no_longer_texts_than_it_was_trained_on():
    assert longest_input({"max_length": 512}, 1024) == 512
    assert longest_input({"max_length": 2048}, 1024) == 1024
    assert longest_input({}, 1024) == longest_input({"max_length": None}, 1024) == 1024
