"""train.py: settings, the loop, resuming, several processes and the errors a user meets."""
import csv
import errno
import itertools
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import weakref
from argparse import Namespace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from conftest import PATIENCE, ROOT

import eval as evaluation
import train
from corpora import builtin
from corpora.facts import BASE_LANGUAGES
from data import language_pairs, split_pairs
from model import Config, MBart
from plumbing.files import UserError, beside_python
from plumbing.runs import RUN_FORMAT, Progress, only_run_in, read_settings, read_state
from tokenizer import Tokenizer
from train import evaluation_arguments, parse_args

HELP_BASE = str(ROOT / "base-help")

QUICK = (
    "--stage", "translate", "--langs", "en_XX", "es_XX", "--tokens", 300, "--valid-examples", 4,
    "--no-eval", "--device", "cpu", "--seed", 3,
)


def losses(folder):
    with open(folder / "log.csv") as file:
        rows = list(csv.DictReader(file))
    return [(row["step"], row["loss"], row["validation loss"]) for row in rows]


def assert_near(one, two, rel):
    """The lines of two runs' logs are the same, but for rounding."""
    for a, b in zip(losses(one), losses(two), strict=True):
        assert [float(x) for x in a] == pytest.approx([float(x) for x in b], rel=rel)


def same_weights(one, two):
    one = MBart.from_pretrained(one).state_dict()
    two = MBart.from_pretrained(two).state_dict()
    return all(torch.equal(one[name], two[name]) for name in one)


# ---------------------------------------------------------------------------------- settings

def test_what_is_typed_comes_before_the_preset_and_the_preset_before_what_is_decided():
    s = parse_args(["--stage", "translate"])
    assert (s.steps, s.recipe, s.out, s.keep) == (1250, "full", "runs/translate", "best")
    assert s.init.endswith("base") and not s.tagless and s.langs[0] == "en_XX"
    s = parse_args(["--stage", "translate", "--steps", "7", "--adversarial", "balanced"])
    assert (s.steps, s.keep, s.tagless) == (7, "last", True)
    assert parse_args(["--stage", "summarize", "--data", "jsonl:DIR"]).steps == 120_000
    assert parse_args(["--stage", "summarize", "--data", "help:"]).steps == 400


def test_a_model_as_wide_as_mbart_large_has_the_large_preset_whatever_the_data(tmp_path):
    for width, preset in ((256, "small"), (1024, "large")):
        folder = tmp_path / str(width)
        folder.mkdir()
        Config(d_model=width).write(folder / "config.json")
        for data in ("builtin", "help:"):
            s = parse_args(["--stage", "summarize", "--data", data, "--init", str(folder)])
            assert s.preset == preset
    words = ["--stage", "summarize", "--preset", "small", "--init", str(folder)]
    assert parse_args(words).preset == "small"


def test_the_built_in_corpus_with_a_share_is_the_built_in_corpus(capsys):
    words = ["--stage", "summarize", "--data", "builtin:0.2", "--min-words", "3", "2"]
    s = parse_args(words)
    assert s.preset == "small" and s.data == "builtin:0.2"
    assert "--min-words has no effect with the built-in corpus" in capsys.readouterr().err
    assert "gu_IN-gu_IN" in evaluation_arguments(s)


def test_a_run_is_scored_on_what_it_was_trained_on_and_on_what_it_was_not():
    pairs = ["es_XX-en_XX", "fr_XX-fr_XX", "en_XX-en_XX"]
    found = evaluation_arguments(parse_args(["--stage", "summarize", "--pairs", *pairs]))
    assert set(pairs) < set(found) and "gu_IN-gu_IN" in found
    assert found.count("en_XX-en_XX") == 1


def test_a_model_with_two_vocabularies_is_scored_on_what_it_was_trained_on_alone(tmp_path):
    """Its encoder reads one language: of the others' texts a score would mean nothing."""
    words = ["--stage", "summarize", "--pairs", "de_DE-en_XX", "--out", str(tmp_path)]
    words.append("--overwrite")
    for config, is_alone in (({}, False), ({"source_vocab_size": 300}, True)):
        (tmp_path / "config.json").write_text(json.dumps(config))
        found = evaluation_arguments(parse_args(words))
        assert "de_DE-en_XX" in found and ("gu_IN-gu_IN" in found) != is_alone
        assert train.zero_shot_language(parse_args(words)) == ("en_XX" if is_alone else "tr_TR")


def test_the_large_preset_is_the_papers():
    s = parse_args(["--stage", "summarize", "--preset", "large", "--device", "cpu"])
    assert (s.lr, s.final_lr, s.steps, s.clip, s.dropout) == (2e-5, 5e-9, 120_000, 0.1, 0.1)
    assert (s.tokens, s.accumulate, s.eval_every, s.patience) == (2800, 3, 5000, 1)
    assert s.recipe == "qk" and s.weight_decay == 0.01 and s.label_smoothing == 0


def test_the_small_preset_is_what_the_bases_and_the_readmes_tables_were_made_with():
    same = dict(
        tokens=1600, warmup=100, final_lr=0, clip=1, weight_decay=0.01, label_smoothing=0,
        dropout=0, valid_examples=32, patience=0, classifier_lr=2e-3, classifier_updates=10,
        lora_rank=8, lora_dropout=0.1, temperature=1.5, accumulate=1,
    )
    of_stages = {
        "translate": dict(recipe="full", lr=2e-3, steps=1250, eval_every=250),
        "summarize": dict(recipe="qk", lr=4e-3, steps=400, eval_every=100),
        "align": dict(recipe="lora", lr=1e-3, steps=300, eval_every=100),
    }
    for stage, own in of_stages.items():
        words = ["--align-layer", "1"] if stage == "align" else []
        found = vars(parse_args(["--stage", stage, "--init", str(train.BASE), *words]))
        for name, value in (same | own).items():
            assert found[name] == value, (stage, name)
    command = json.loads((train.BASE / "args.json").read_text())
    found = vars(parse_args(["--stage", "pretrain", "--init", str(train.BASE), "--out", "new"]))
    for name in (*same, "recipe", "lr", "steps", "eval_every"):
        assert found[name] == command[name], name


def test_translate_trains_all_pairs_and_copying_and_summarize_stays_within_a_language():
    assert len(parse_args(["--stage", "translate"]).pairs) == 25
    s = parse_args(["--stage", "summarize", "--langs", "en_XX", "es_XX"])
    assert split_pairs(s.pairs) == [("en_XX", "en_XX"), ("es_XX", "es_XX")]
    assert language_pairs("summarize", s.langs) == split_pairs(s.pairs)
    with pytest.raises(UserError, match="en_XX-es_XX"):
        parse_args(["--stage", "translate", "--pairs", "en_XX"])


@pytest.mark.parametrize("data, copies", [
    ("builtin", True), ("builtin:0.5", True), ("parallel:DIR", True), ("help:", True),
    ("jsonl:DIR", False),
])
def test_translation_copies_where_the_data_can(data, copies):
    words = ["--stage", "translate", "--data", data, "--langs", "en_XX", "es_XX"]
    across = ["en_XX-es_XX", "es_XX-en_XX"]
    pairs = parse_args(words).pairs
    assert [pair for pair in pairs if pair in across] == across
    assert ("en_XX-en_XX" in pairs) == ("es_XX-es_XX" in pairs) == copies
    typed = ["--stage", "translate", "--data", data, "--pairs", "en_XX-en_XX"]
    assert parse_args(typed).pairs == ["en_XX-en_XX"]


@pytest.mark.parametrize("words, said", [
    (("translate", "xlsum:DIR", "--langs", "en_XX"), "has summaries and no translations"),
    (("translate", "xlsum:DIR", "--pairs", "en_XX-en_XX"), "has summaries and no translations"),
    (("translate", "wikilingua:DIR"), "has summaries and no translations"),
    (("align", "wikilingua:DIR", "--langs", "en_XX", "es_XX", "--align-layer", "2"),
     "has summaries and no translations"),
    (("summarize", "wikilingua:DIR", "--align-layer", "2"), "has summaries and no translations"),
    (("translate", "jsonl:DIR", "--langs", "en_XX"), "needs two languages"),
    (("summarize", "parallel:DIR"), "en_XX-en_XX would learn to copy"),
    (("summarize", "parallel:DIR", "--pairs", "en_XX-es_XX", "es_XX-es_XX"),
     "es_XX-es_XX would learn to copy"),
])
def test_data_that_a_stage_cannot_learn_from_are_refused(words, said):
    stage, data, *rest = words
    with pytest.raises(UserError, match=said):
        parse_args(["--stage", stage, "--data", data, *rest])


@pytest.mark.parametrize("words", [
    ("--watch", "tr_TR-tr_TR"),
    ("--align-layer", "1"),
    ("--mix", "1", "--mix-pairs", "en_XX-es_XX"),
])
def test_lines_that_say_no_languages_are_not_read_as_two_pairs_in_one_run(tmp_path, words):
    row = {"text": "The doctor sent a map.", "summary": "a map"}
    for split in ("train", "valid"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    options = ["--stage", "summarize", "--data", f"jsonl:{tmp_path}", "--langs", "es_XX"]
    train.check_one_pair(parse_args(options))
    told = "no column says the languages.* es_XX-es_XX"
    with pytest.raises(UserError, match=told):
        train.main([*options, *words])
    row |= {"source_lang": "es_XX", "target_lang": "es_XX"}  # then the validation texts alone
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=told):
        train.main([*options, *words])


def test_own_data_on_the_base_of_the_built_in_corpus_are_doubted(capsys):
    for words, doubted in (
        (["--data", "jsonl:DIR"], True),
        (["--data", "jsonl:DIR", "--init", str(ROOT / "base")], True),
        (["--data", "jsonl:DIR", "--init", HELP_BASE], False),
        ([], False),
    ):
        parse_args(["--stage", "summarize", *words])
        said = "knows the words of the built-in corpus alone" in capsys.readouterr().err
        assert said == doubted, words


@pytest.mark.parametrize("settings, words, learned", [
    ({}, (), ["summarize tr_TR-tr_TR"]),
    ({"learned": ["summarize"]}, (), ["summarize tr_TR-tr_TR"]),
    (
        {"stage": "summarize", "pairs": ["en_XX-en_XX"]}, (),  # an earlier version's
        ["summarize en_XX-en_XX", "summarize tr_TR-tr_TR"],
    ),
    (
        {
            "stage": "summarize",
            "pairs": ["en_XX-en_XX"],
            "learned": ["translate en_XX-es_XX", "summarize en_XX-en_XX"],
        },
        ("--mix", "1", "--mix-pairs", "tr_TR-en_XX"),
        [
            "translate en_XX-es_XX",
            "translate tr_TR-en_XX",
            "summarize en_XX-en_XX",
            "summarize tr_TR-tr_TR",
        ],
    ),
    (  # what these data have between languages are summaries
        {}, ("--mix", "1", "--mix-pairs", "tr_TR-en_XX", "--data", "wikilingua:DIR"),
        ["summarize tr_TR-tr_TR", "summarize tr_TR-en_XX"],
    ),
])
def test_a_model_has_learned_what_the_runs_before_it_learned(
    small, tmp_path, settings, words, learned
):
    init = tmp_path / "init"
    shutil.copytree(small, init)
    (init / "args.json").write_text(json.dumps(settings), encoding="utf-8")
    s = parse_args(["--stage", "summarize", "--init", str(init), "--langs", "tr_TR", *words])
    there = {*s.pairs, *(s.mix_pairs or [])}
    assert train.learned(s, there) == learned
    assert train.learned(s, there - {"tr_TR-tr_TR"}) == [
        task for task in learned if task != "summarize tr_TR-tr_TR"
    ]


def test_the_base_has_learned_the_same_whether_it_is_named_or_not(monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["--stage", "translate", "--langs", "en_XX", "es_XX"]
    found = []
    for init in ((), ("--init", "base"), ("--init", str(ROOT / "base"))):
        s = parse_args([*words, *init])
        found.append(train.learned(s, set(s.pairs)))
    assert found[0] == found[1] == found[2] and "pretrain en_XX-en_XX" in found[0]


def test_summaries_across_languages_may_stand_line_by_line():
    words = ["--stage", "summarize", "--data", "parallel:DIR", "--pairs", "en_XX-es_XX"]
    assert parse_args(words).pairs == ["en_XX-es_XX"]


def test_alignment_pairs_are_each_language_of_the_run_with_english_or_as_typed():
    words = ["--stage", "summarize", "--align-layer", "1", "--langs", "es_XX", "en_XX", "ru_RU"]
    s = parse_args(words)
    assert s.align_pairs == ["es_XX-en_XX", "ru_RU-en_XX"]
    assert s.pairs == ["es_XX-es_XX", "en_XX-en_XX", "ru_RU-ru_RU"]
    typed = ["en_XX-es_XX", "ru_RU-es_XX"]
    assert parse_args([*words, "--align-pairs", *typed]).align_pairs == typed


def test_alignment_alone_takes_its_pairs_from_one_option():
    words = ["--stage", "align", "--align-layer", "1"]
    for option in ("--pairs", "--align-pairs"):
        assert parse_args([*words, option, "es_XX-en_XX"]).pairs == ["es_XX-en_XX"]
    with pytest.raises(UserError, match="leave one of the two out"):
        parse_args([*words, "--pairs", "es_XX-en_XX", "--align-pairs", "ru_RU-en_XX"])


def test_mixed_translations_are_all_pairs_of_the_run_or_as_typed_and_its_pairs_stay_the_tasks():
    words = ["--stage", "summarize", "--langs", "en_XX", "es_XX"]
    s = parse_args([*words, "--mix", "2"])
    assert s.mix_pairs == ["en_XX-en_XX", "en_XX-es_XX", "es_XX-en_XX", "es_XX-es_XX"]
    assert (s.pairs, s.langs) == (["en_XX-en_XX", "es_XX-es_XX"], ["en_XX", "es_XX"])
    s = parse_args([*words, "--mix", "2", "--mix-pairs", "ru_RU-en_XX"])
    assert (s.mix_pairs, s.langs) == (["ru_RU-en_XX"], ["en_XX", "es_XX"])
    assert parse_args(words).mix_pairs is None
    assert len(parse_args(["--stage", "summarize", "--mix", "1"]).mix_pairs) == 25
    with pytest.raises(UserError, match="--mix-pairs en_XX: write pairs as"):
        parse_args([*words, "--mix", "2", "--mix-pairs", "en_XX"])


@pytest.mark.parametrize("stage", ["translate", "pretrain", "align"])
def test_translations_are_mixed_into_summaries_alone(small, stage):
    words = ["--stage", stage, "--init", str(small), "--align-layer", "1", "--mix", "1"]
    with pytest.raises(UserError, match=f"--mix puts .* --stage {stage} has none"):
        parse_args(words)
    assert parse_args([*words[:-1], "0"]).mix == 0


def test_the_large_preset_with_an_adversary_is_the_papers_and_typed_values_win():
    words = ["--stage", "summarize", "--preset", "large", "--langs", "en_XX", "es_XX"]
    words += ["--device", "cpu"]
    fooling = [*words, "--adversarial", "balanced"]
    s = parse_args(fooling)
    assert (s.patience, s.keep, s.temperature, s.steps) == (0, "last", 10.0, 50_000)
    assert (s.lr, s.classifier_lr, s.classifier_updates, s.recipe) == (2e-5, 2e-5, 1, "full")
    assert train.learning_rate(0, s) == train.learning_rate(49_999, s) == 2e-5
    assert (s.tokens, s.accumulate, s.clip, s.dropout) == (2800, 3, 0.1, 0.1)
    s = parse_args([
        *fooling, "--patience", "3", "--keep", "best", "--temperature", "1.5", "--steps", "9",
        "--final-lr", "0", "--recipe", "frozen_decoder", "--classifier-updates", "4",
    ])
    assert (s.patience, s.keep, s.temperature, s.steps) == (3, "best", 1.5, 9)
    assert (s.final_lr, s.recipe, s.classifier_updates) == (0.0, "frozen_decoder", 4)
    s = parse_args([*fooling, "--lr", "1e-4"])  # constant at any rate
    assert train.learning_rate(0, s) == train.learning_rate(49_999, s) == 1e-4
    s = parse_args(words)
    assert (s.patience, s.temperature, s.steps, s.recipe) == (1, 1.5, 120_000, "qk")


def test_what_is_mixed_in_from_files_is_not_the_summaries_themselves():
    words = ["--stage", "summarize", "--mix", "1", "--langs", "en_XX"]
    assert parse_args([*words, "es_XX"]).mix_pairs[0] == "en_XX-en_XX"  # copying a sentence
    files = ["--data", "jsonl:somewhere"]
    assert parse_args([*words, "es_XX", *files]).mix_pairs == ["en_XX-es_XX", "es_XX-en_XX"]
    with pytest.raises(UserError, match="--mix needs translations"):
        parse_args([*words, *files])


@pytest.mark.parametrize(
    "free, world, words, batches",
    [
        (19, 1, [], (8400, 1)),
        (11, 1, [], (8400, 1)),  # as much as qk needs
        (9, 1, [], (2800, 3)),
        (16, 1, ["--recipe", "full"], (8400, 1)),
        (14, 1, ["--recipe", "full"], (2800, 3)),
        (19, 1, ["--recipe", "full+embeddings"], (8400, 1)),
        (17, 1, ["--recipe", "full+embeddings"], (2800, 3)),
        (17, 1, ["--recipe", "frozen_decoder"], (2800, 3)),
        (22, 1, ["--stage", "translate"], (8400, 1)),
        (20, 1, ["--stage", "translate"], (2800, 3)),
        (26, 1, ["--stage", "translate", "--recipe", "full+embeddings"], (8400, 1)),
        (24, 1, ["--stage", "translate", "--recipe", "full+embeddings"], (2800, 3)),
        (19, 2, [], (2800, 3)),
        (19, 1, ["--tokens", "1400"], (1400, 3)),
        (19, 1, ["--accumulate", "2"], (2800, 2)),
        (19, 1, ["--preset", "small"], (1600, 1)),
        (19, 1, ["--precision", "fp32"], (2800, 3)),
        (19, 1, ["--langs", "en_XX", "es_XX", "--mix", "3"], (2800, 3)),
        (19, 1, ["--langs", "en_XX", "es_XX", "--align-layer", "1"], (2800, 3)),
        (19, 1, ["--langs", "en_XX", "es_XX", "--adversarial", "balanced"], (2800, 3)),
    ],
)
def test_a_gpu_with_room_does_the_large_presets_update_in_one_batch(
    monkeypatch, capsys, free, world, words, batches
):
    monkeypatch.setattr(train, "device_of", lambda s: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free * 2**30, 80 * 2**30))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=9)
    )
    monkeypatch.setenv("WORLD_SIZE", str(world))
    s = parse_args(["--stage", "summarize", "--preset", "large", *words])
    assert (s.tokens, s.accumulate) == batches
    told = "--tokens 8400 --accumulate 1" in capsys.readouterr().err
    assert told == (batches == (8400, 1))


def test_the_small_preset_with_an_adversary_trains_all_layers_at_half_the_rate():
    words = ["--stage", "summarize", "--langs", "en_XX", "es_XX"]
    plain = vars(parse_args(words))
    fooling = vars(parse_args([*words, "--adversarial", "standard"]))
    different = {name for name in plain if plain[name] != fooling[name]}
    assert different == {"recipe", "lr", "adversarial", "keep", "tagless"}
    assert (plain["lr"], fooling["lr"]) == (4e-3, 2e-3)  # as in papers/RESULTS.md
    assert fooling["recipe"] == "full"
    assert parse_args([*words, "--adversarial", "none"]).recipe == "qk"


@pytest.mark.parametrize("recipe", ["qk", "lora"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_frozen_matrices_in_half_change_no_number_and_are_saved_as_they_were(
    run, small, tmp_path, monkeypatch, recipe, precision
):
    words = [*QUICK, "--recipe", recipe, "--precision", precision, "--steps", 3, "--init", small]
    words += ["--eval-every", 2, "--keep", "last", "--watch", "en_XX-en_XX"]
    halves = []
    make = train.FrozenInHalf

    def noted(model, dtype):
        halves.append(make(model, dtype))
        return halves[-1]

    monkeypatch.setattr(train, "FrozenInHalf", noted)
    assert run("train.py", *words, "--out", tmp_path / "halved").returncode == 0
    assert len(halves[0].kept) > 20
    monkeypatch.setattr(train, "FrozenInHalf", lambda model, dtype: make(model, None))
    assert run("train.py", *words, "--out", tmp_path / "plain").returncode == 0
    assert losses(tmp_path / "halved") == losses(tmp_path / "plain")

    ours = MBart.from_pretrained(tmp_path / "halved").state_dict()
    base = MBart.from_pretrained(small).state_dict()
    moved = {name for name in ours if not torch.equal(ours[name], base[name])}
    assert moved and all(re.search("[qkvo](ut)?_proj|fc", name) for name in moved)
    if recipe == "qk":
        assert all(re.search("[qk]_proj", name) for name in moved)
    plain = MBart.from_pretrained(tmp_path / "plain").state_dict()
    assert all(torch.equal(ours[name], plain[name]) for name in ours)


@pytest.mark.parametrize("data", ["builtin", "builtin:1", "jsonl:DIR", "parallel:DIR"])
def test_pretraining_takes_pairs_within_a_language_alone(small, data):
    words = ["--stage", "pretrain", "--init", str(small), "--data", data, "--pairs", "es_XX-es_XX"]
    assert parse_args(words).pairs == ["es_XX-es_XX"]
    with pytest.raises(UserError, match="--stage pretrain .* en_XX-es_XX has two"):
        parse_args([*words, "en_XX-es_XX"])


@pytest.mark.parametrize("preset", ["small", "large"])
@pytest.mark.parametrize("stage", ["pretrain", "align"])
def test_an_adversary_belongs_to_a_task(stage, preset):
    words = ["--stage", stage, "--preset", preset, "--align-layer", "1", "--init", str(train.BASE)]
    with pytest.raises(UserError, match=f"translate or summarize; --stage {stage} has none"):
        parse_args([*words, "--adversarial", "balanced"])


def test_the_learning_rate_warms_up_and_falls_linearly_to_its_end():
    s = Namespace(lr=1.0, warmup=10, final_lr=0.1, steps=110)
    assert train.learning_rate(0, s) == pytest.approx(0.1) and train.learning_rate(9, s) == 1.0
    assert train.learning_rate(10, s) == 1.0
    assert train.learning_rate(60, s) == pytest.approx(0.55)
    assert train.learning_rate(110, s) == pytest.approx(0.1)


@pytest.mark.parametrize("args, words", [
    (("--stage", "translte"), "invalid choice"),
    ((), "--stage is required"),
    (("--stage", "translate", "--langs", "en_XX", "tr"), "did you mean tr_TR"),
    (("--stage", "translate", "--langs", "en_XX", "fi_FI"), "the built-in corpus has no 'fi_FI'"),
    (("--stage", "translate", "--init", "/nowhere"), "/nowhere"),
    (("--stage", "translate", "--data", "jsonl:/nowhere"), "/nowhere"),
    (("--stage", "translate", "--steps", "0"), "--steps: must be at least 1"),
    (("--stage", "summarize", "--recipe", "qkk"), "did you mean qk?"),
    (("--resume", "/nowhere"), "no args.json"),
    (("--stage", "pretrain"), f"{beside_python()} -m tools.start"),
    (("--stage", "align"), "--align-layer"),
    (("--stage", "translate", "--out", "base"), "has a model already"),
    (("--stage", "translate", "--lr", "1e-4", "--final-lr", "1"), "--final-lr 1 is above --lr"),
    (("--stage", "translate", "--recipe", "lora", "--lora-rank", "129"), "the model's width 128"),
    (("--stage", "translate", "--steps", "9" * 20), "--steps: must be less than 2147483648"),
])
def test_a_users_mistake_is_one_clear_line_and_exit_code_2(run, args, words, tmp_path):
    out = () if {"--out", "--resume"} & set(args) else ("--out", tmp_path / "run")
    done = run("train.py", *args, *out)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("name", [
    "args.json", "log.csv", "state.pt", "model.safetensors", "tokenizer.json",
])  # fmt: skip
def test_no_file_of_a_folder_that_is_no_run_is_removed(run, tmp_path, name):
    out = tmp_path / "run"
    out.mkdir()
    (out / name).write_text("{}")
    done = run("train.py", "--stage", "summarize", "--out", out)
    assert done.returncode == 2 and f"has a file {name}" in done.stderr, done.stderr
    assert (out / name).read_text() == "{}" and len(list(out.iterdir())) == 1


def test_what_the_model_does_not_take_is_said_before_its_weights_are_read(run, small, tmp_path):
    init = tmp_path / "init"
    shutil.copytree(small, init)
    (init / "model.safetensors").unlink()  # reading them would be another error
    words = ["train.py", "--stage", "summarize", "--init", init, "--out", tmp_path / "run"]
    for mistake, said in (
        (["--data", "xlsum:nowhere"], "there is no folder nowhere"),
        (["--data", "help:nowhere"], "there is no folder nowhere"),
        (["--data", "builtin:2"], "expected a share from 0 to 1"),
        (["--data", "data/xlsum"], "expected builtin"),
        (["--langs", "en_US"], "did you mean en_XX?"),
        (["--watch", "tr-tr_TR"], "did you mean tr_TR?"),
        (["--mix-pairs", "en_XX"], "--mix-pairs en_XX: write pairs as en_XX-es_XX"),
        (["--align-pairs", "es_XX"], "--align-pairs es_XX: write pairs as en_XX-es_XX"),
        (["--watch", "zh_CN-en_XX"], "the built-in corpus has no 'zh_CN'"),
        (["--adversarial", "balanced"], "needs at least two source languages"),
        (["--recipe", "lora", "--lora-projections", "foo"], "LoRA cannot adapt 'foo'"),
        (["--recipe-layers", "99"], "the model has layers 1 to 2"),
        (["--align-layer", "9"], "--align-layer 9: the encoder has layers 1 to 2"),
        (["--residual-drop", "99"], "--residual-drop 99: the encoder has layers 1 to 2"),
        (["--recipe", "src"], "which this model lacks"),
    ):
        done = run(*words, *mistake)
        assert done.returncode == 2 and said in done.stderr, (mistake, done.stderr)


def test_a_missing_base_names_the_commands_that_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(train, "BASE", tmp_path / "base")
    made = re.escape(f"{beside_python()} -m tools.start")
    with pytest.raises(UserError, match=f"{made} .* --stage pretrain --init"):
        parse_args(["--stage", "summarize"])


# ---------------------------------------------------------------------------------- the loop

def test_a_run_learns_logs_and_leaves_a_model_in_the_hugging_face_layout(run, small, tmp_path):
    out = tmp_path / "run"
    done = run(
        "train.py", *QUICK, "--init", small, "--out", out, "--steps", 40, "--eval-every", 20,
        "--lr", 1e-2, "--recipe", "full+embeddings",
    )
    assert done.returncode == 0, done.stderr
    rows = losses(out)
    assert [row[0] for row in rows] == ["20", "40"]
    assert float(rows[1][2]) < float(rows[0][2]) - 0.5
    assert {path.name for path in out.iterdir()} >= {
        "config.json", "model.safetensors", "sentencepiece.bpe.model", "tokenizer.json",
        "args.json", "log.csv", "state.pt",
    }
    assert not list(out.glob("*.tmp")) and "tensors that train" in done.stdout
    before = done.stdout.split("before training: validation loss ")[1].split()[0]
    assert float(before) > float(rows[0][2])
    settings = read_settings(out)
    assert settings["pairs"] == [f"{a}-{b}" for a in ("en_XX", "es_XX") for b in ("en_XX", "es_XX")]
    assert settings["run_format"] == RUN_FORMAT
    assert settings["world_size"] == 1 and settings["torch"]


def test_the_folder_keeps_the_best_model_or_the_last(run, small, tmp_path, monkeypatch):
    for keep in ("best", "last"):
        told = Mock(side_effect=(9.0, 8.0, 2.0, 3.0, 5.0, 4.0, 6.0))  # the first before training
        monkeypatch.setattr(train, "validation_loss", told)
        done = run(
            "train.py", *QUICK, "--init", small, "--steps", 6, "--eval-every", 1, "--lr", 1,
            "--warmup", 0, "--recipe", "full+embeddings", "--keep", keep, "--out", tmp_path / keep,
        )
        assert done.returncode == 0, done.stderr
        found = [float(row[2]) for row in losses(tmp_path / keep)]
        assert found == [8.0, 2.0, 3.0, 5.0, 4.0, 6.0]
        last = read_state(tmp_path / keep / "state.pt")["weights"]
        kept = MBart.from_pretrained(tmp_path / keep).state_dict()
        assert all(torch.equal(last[name], kept[name]) for name in last) == (keep == "last")
        told = "but the model is that of the last validation"
        assert (told in done.stdout) == (keep == "last")
        assert evaluation.validation_loss_of(tmp_path / keep) == {"best": 2.0, "last": 6.0}[keep]


def test_a_stop_between_validations_says_which_model_the_folder_has(run, small, tmp_path):
    words = ("train.py", *QUICK, "--init", small, "--eval-every", 2, "--steps", 5)
    cases = {
        ("last", 1): "is still the one that the run began with",
        ("last", 3): "is still that of the last validation",
        ("last", 4): None,
        ("last", 5): None,  # validated because it is the last update
        ("best", 3): None,
    }
    for (keep, stop), told in cases.items():
        out = tmp_path / f"{keep} {stop}"
        done = run(*words, "--keep", keep, "--stop-at", stop, "--out", out)
        assert done.returncode == 0, done.stderr
        said = [line for line in done.stdout.splitlines() if "the folder's model" in line]
        assert said == ([] if told is None else [f"the folder's model {told}"])


def test_a_model_that_training_made_worse_is_told(run, small, tmp_path):
    words = ("train.py", *QUICK, "--init", small, "--eval-every", 2)
    worse = ("--lr", 30, "--warmup", 0, "--clip", 0, "--recipe", "full+embeddings", "--steps", 4)
    out = tmp_path / "worse"
    assert run(*words, *worse, "--stop-at", 3, "--out", out).returncode == 0
    done = run("train.py", "--resume", out)
    assert done.returncode == 0, done.stderr
    assert "note: the model that is kept is worse than before training" in done.stderr
    done = run(*words, *worse, "--keep", "last", "--out", tmp_path / "last")
    assert done.returncode == 0 and "worse" not in done.stderr, done.stderr
    better = ("--lr", 1e-3, "--warmup", 0, "--recipe", "full+embeddings", "--steps", 2)
    done = run(*words, *better, "--out", tmp_path / "better")
    assert done.returncode == 0 and "worse" not in done.stderr, done.stderr


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_dropout_asked_for_is_the_dropout_used(run, small, tmp_path, dropout):
    """The folder's config has 0.1, and of attention 0."""
    out = tmp_path / "run"
    words = ("--steps", 1, "--dropout", dropout, "--out", out)
    done = run("train.py", *QUICK, "--init", small, *words)
    assert done.returncode == 0, done.stderr
    model = MBart.from_pretrained(out).train()
    assert model.config.dropout == model.config.attention_dropout == dropout
    ids = torch.randint(4, 200, (2, 9))
    assert torch.equal(model(ids, ids), model(ids, ids)) == (dropout == 0)
    model.config.dropout = 0.0  # attention's alone
    assert torch.equal(model(ids, ids), model(ids, ids)) == (dropout == 0)


@pytest.mark.slow
def test_mixed_precision_learns_what_full_precision_learns(run, small, tmp_path):
    found = {}
    for precision in ("fp32", "bf16", "fp16"):
        done = run(
            "train.py", *QUICK, "--init", small, "--out", tmp_path / precision, "--steps", 30,
            "--eval-every", 30, "--lr", 1e-2, "--recipe", "full+embeddings",
            "--precision", precision,
        )
        assert done.returncode == 0, done.stderr
        found[precision] = float(losses(tmp_path / precision)[-1][2])
    for half in ("bf16", "fp16"):
        assert found[half] == pytest.approx(found["fp32"], rel=0.05)
        assert found[half] != found["fp32"]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="torch.compile wants a C++ compiler")
def test_the_compiled_model_follows_the_plain_one(run, small, tmp_path):
    compiled = torch._dynamo.utils.counters["frames"]
    compiled.clear()
    for name, options in (("plain", ()), ("compiled", ("--compile",))):
        assert not compiled["ok"]
        done = run(
            "train.py", *QUICK, "--init", small, "--out", tmp_path / name, "--steps", 6,
            "--eval-every", 3, "--lr", 1e-2, *options,
        )
        assert done.returncode == 0, done.stderr
    assert compiled["ok"]
    assert_near(tmp_path / "plain", tmp_path / "compiled", rel=1e-4)


def test_a_run_stops_after_as_many_bad_validations_as_patience_allows_and_keeps_the_best_model(
    run, small, tmp_path
):
    done = run(
        "train.py", *QUICK, "--init", small, "--out", tmp_path / "run", "--steps", 400,
        "--eval-every", 4, "--lr", 30, "--warmup", 0, "--clip", 0, "--patience", 2,
        "--recipe", "full+embeddings",
    )
    assert done.returncode == 0, done.stderr
    held = [float(row[2]) for row in losses(tmp_path / "run")]
    assert len(held) < 100 and min(held) < min(held[-2:])
    assert f"{min(held):.4f}" in done.stdout.splitlines()[-1]


def test_patience_counts_validations_in_a_row_that_are_no_better(
    run, small, tmp_path, monkeypatch
):
    """The first is before training. A better one starts the count anew."""
    known = iter([9.0, 5.0, 6.0, 4.0, 4.5, 4.0, 3.0])
    monkeypatch.setattr(train, "validation_loss", lambda *args: next(known))
    done = run(
        "train.py", *QUICK, "--init", small, "--out", tmp_path / "run", "--steps", 400,
        "--eval-every", 1, "--patience", 2,
    )
    assert done.returncode == 0, done.stderr
    assert [float(row[2]) for row in losses(tmp_path / "run")] == [5.0, 6.0, 4.0, 4.5, 4.0]


def test_the_logged_loss_is_the_mean_over_all_label_tokens_since_the_last_line(
    run, small, tmp_path, monkeypatch
):
    known = iter([1.0, 2.0, 6.0])
    tokens = []
    draw = train.RunData.draw_update

    def counted(data, s):
        batches = draw(data, s)
        tokens.append(sum(batch.target_tokens for batch in batches))
        return batches

    def told(*args, **words):
        loss = next(known)
        return loss, loss

    monkeypatch.setattr(train.RunData, "draw_update", counted)
    monkeypatch.setattr(train, "add_gradients", told)
    words = ("--init", small, "--out", tmp_path / "run", "--steps", 3, "--eval-every", 3)
    assert run("train.py", *QUICK, *words).returncode == 0
    expected = sum(loss * count for loss, count in zip((1.0, 2.0, 6.0), tokens)) / sum(tokens)
    ((_, loss, *_),) = losses(tmp_path / "run")
    assert float(loss) == pytest.approx(expected, abs=1e-3) and len(set(tokens)) > 1


def test_a_line_of_the_log_forgets_what_the_line_before_it_told():
    progress = Progress()
    progress.updated(2.0, 10, is_skipped=False)
    progress.updated(4.0, 30, is_skipped=False)
    assert progress.take_mean_loss() == 3.5
    progress.updated(1.0, 5, is_skipped=True)
    assert progress.take_mean_loss() == 1.0
    assert (progress.step, progress.overflows) == (3, 1)


def test_pairs_are_watched_without_tags_where_the_run_has_none(run, small, tmp_path, monkeypatch):
    tokenizer = Tokenizer.from_pretrained(small)
    tags = set(tokenizer.tag.values())
    tagged = []
    decode = evaluation.decode

    def seen(model, tokenizer, sources, *rest, **options):
        tagged.extend(bool(tags & set(ids)) for ids in sources)
        return decode(model, tokenizer, sources, *rest, **options)

    monkeypatch.setattr(evaluation, "decode", seen)
    for more, expected in (((), True), (("--tagless",), False)):
        tagged.clear()
        words = ("--watch", "en_XX-es_XX", "--steps", 1, "--out", tmp_path / f"run {expected}")
        assert run("train.py", *QUICK, "--init", small, *words, *more).returncode == 0
        assert tagged and set(tagged) == {expected}


def test_what_is_watched_are_the_texts_of_the_runs_own_seed(run, small, tmp_path, monkeypatch):
    opened = []
    open_data = evaluation.open_data

    def watching(*args, seed=0, **options):
        opened.append((args[2], seed))
        return open_data(*args, seed=seed, **options)

    monkeypatch.setattr(evaluation, "open_data", watching)
    words = ("--watch", "en_XX-es_XX", "--seed", 3, "--steps", 1, "--out", tmp_path / "run")
    done = run("train.py", *QUICK, "--init", small, *words)
    assert done.returncode == 0 and set(opened) == {("valid", 3)}, (done.stderr, opened)


def test_a_watched_score_is_rouge_1_of_greedy_outputs_of_the_first_validation_texts(
    run, small, tmp_path, monkeypatch
):
    pair = ("es_XX", "es_XX")
    data = builtin.Builtin("summarize", "valid", [pair], seed=3)
    titles = [data.text(pair, i)[1] for i in range(4)]
    asked = []

    def decoded(model, tokenizer, sources, lang, **options):
        asked.append((len(sources), lang, options["beam"], options["no_repeat_ngram"]))
        return [" ".join(reversed(title.split())) for title in titles]  # ROUGE-2 is not 100

    monkeypatch.setattr(evaluation, "decode", decoded)
    out = tmp_path / "run"
    words = ("--stage", "summarize", "--steps", 1, "--watch", "es_XX-es_XX", "--out", out)
    done = run("train.py", *QUICK, "--init", small, *words)
    assert done.returncode == 0, done.stderr
    assert asked == [(4, "es_XX", 1, 3)] * 2  # before the first update and after it
    with open(out / "watch.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["column"] for row in rows] == ["R1", "R1"]
    assert [float(row["score"]) for row in rows] == pytest.approx([100, 100])


def test_a_line_of_the_log_has_the_updates_own_rate_and_tokens_a_second(
    run, small, tmp_path, monkeypatch
):
    tokens = []
    draw = train.RunData.draw_update

    def counted(data, s):
        batches = draw(data, s)
        tokens.append(sum(batch.source_tokens + batch.target_tokens for batch in batches))
        return batches

    seconds = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(seconds)))  # one from call to call
    monkeypatch.setattr(train.RunData, "draw_update", counted)
    monkeypatch.setattr(train, "time", clock)
    out = tmp_path / "run"
    words = ("--steps", 2, "--eval-every", 1, "--lr", 2e-3, "--warmup", 100, "--out", out)
    done = run("train.py", *QUICK, "--init", small, *words)
    assert done.returncode == 0, done.stderr
    with open(out / "log.csv") as file:
        rows = list(csv.DictReader(file))
    # Between the two validations the clock is read once more: is it time to save?
    assert [float(row["tokens/s"]) for row in rows] == [tokens[0], tokens[1] / 2]
    rates = [float(row["learning rate"]) for row in rows]
    assert rates == pytest.approx([2e-3 / 100, 2e-3 * 2 / 100])
    assert "done: 2 updates in 3 s" in done.stdout


def test_summaries_that_are_aligned_as_translations_are_remarked_on(capsys):
    words = ["--stage", "summarize", "--data", "jsonl:DIR", "--langs", "es_XX"]
    words += ["--align-layer", "2"]
    across = ["--pairs", "es_XX-es_XX", "es_XX-en_XX"]
    parse_args([*words, "--recipe", "full"])
    assert "es_XX-en_XX" not in capsys.readouterr().err
    parse_args([*words, *across, "--recipe", "full"])
    assert "--align-pairs has es_XX-en_XX, which is summarized too" in capsys.readouterr().err


@pytest.mark.parametrize("stage, data, langs, told", [
    ("pretrain", "builtin", BASE_LANGUAGES, "translate --init OUT"),
    ("pretrain", "jsonl:D", ["de_DE", "nl_XX"],
     "translate --init OUT --data parallel:DIR --langs de_DE nl_XX"),
    ("pretrain", "parallel:D", ["de_DE"],
     "translate --init OUT --data parallel:D --langs de_DE ..."),
    ("align", "parallel:D", ["en_XX", "es_XX"], "summarize --init OUT --data jsonl:DIR"),
    ("align", "builtin:0.5", ["es_XX", "ru_RU"],
     "summarize --init OUT --data builtin:0.5 --langs es_XX ru_RU"),
])  # fmt: skip
def test_the_next_command_has_the_data_and_the_languages_of_the_run(
    capsys, tmp_path, stage, data, langs, told
):
    pairs = [f"{lang}-{lang}" for lang in langs]
    run_of = {"stage": stage, "data": data, "langs": langs, "pairs": pairs, "out": tmp_path}
    train.show_result(Namespace(**run_of, preset="large", skip_bad_lines=False))
    line = capsys.readouterr().out.strip()
    assert line.endswith(f"train.py --stage {told.replace('OUT', str(tmp_path))}")


def test_the_next_command_has_a_small_preset_and_left_out_lines_as_the_run_had(tmp_path):
    words = ["--stage", "pretrain", "--init", str(ROOT / "base"), "--data", "parallel:D"]
    words += ["--langs", "en_XX", "de_DE", "--skip-bad-lines", "--out", str(tmp_path)]
    for preset, told in (("small", " --preset small"), ("large", "")):
        s = parse_args([*words, "--preset", preset])
        expected = f"--data parallel:D --skip-bad-lines{told} --langs en_XX de_DE"
        assert train.next_command(s).endswith(expected)
        again = parse_args(shlex.split(train.next_command(s))[1:])
        assert again.preset == preset and again.skip_bad_lines


def test_help_has_the_values_of_the_presets(run):
    told = " ".join(run("train.py", "--help").stdout.split())
    assert "small, summarize: --recipe qk, --lr 0.004, --steps 400, --eval-every 100" in told
    assert "large, every stage: --tokens 2800, --accumulate 3, " in told


def test_bad_lines_are_left_out_of_the_scores_too():
    words = ["--stage", "summarize", "--data", "jsonl:DIR"]
    assert "--skip-bad-lines" in evaluation_arguments(parse_args([*words, "--skip-bad-lines"]))
    assert "--skip-bad-lines" not in evaluation_arguments(parse_args(words))


def test_a_run_ends_with_evals_table_and_what_to_run_next(run, small, tmp_path, monkeypatch):
    asked = []
    row = {"source": "en_XX", "target": "es_XX", "n": 1, "scores": {}, "floors": {}}
    report = {"stage": "", "data": "builtin", "options": {}, "signatures": []}
    report["rows"] = [row | {"references": {}}]

    def scored(words):
        asked.append(words)
        return report

    monkeypatch.setattr(evaluation, "main", scored)
    quick = [word for word in QUICK if word not in ("--no-eval", "--stage", "translate")]
    nexts = {}
    for stage in ("summarize", "translate", "pretrain"):
        done = run(
            "train.py", *quick, "--stage", stage, "--init", small, "--out", tmp_path / stage,
            "--steps", 1,
        )
        assert done.returncode == 0, done.stderr
        nexts[stage] = done.stdout.splitlines()[-1]
        assert nexts[stage].startswith(f"next: {sys.orig_argv[0]} ")
    assert " --lang tr_TR " in nexts["summarize"]
    summarize, translate = asked  # pretraining has nothing to score yet
    for words, count in ((summarize, "100"), (translate, "50")):
        assert words[words.index("--examples") + 1] == count
    pairs = summarize[summarize.index("--pairs") + 1:summarize.index("--device")]
    assert pairs == [f"{lang}-{lang}" for lang in ("en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN")]
    assert translate[:2] == ["--model", str(tmp_path / "translate")]
    pairs = translate[translate.index("--pairs") + 1:translate.index("--device")]
    assert pairs == ["en_XX-es_XX", "es_XX-en_XX"]
    for words in asked:
        evaluation.parse_args(words)  # options that it has


@pytest.mark.parametrize("module, name, options, key", [
    (train.Adversary, "loss", ("--adversarial", "balanced"), "labels"),
    (train, "alignment_loss", ("--align-layer", 1), "translation"),
])
def test_a_second_loss_that_is_no_number_ends_the_run_before_it_moves_the_model(
    run, small, tmp_path, monkeypatch, module, name, options, key
):
    compute = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: compute(*args) * torch.nan)
    done = run(
        "train.py", "--stage", "summarize", "--langs", "en_XX", "es_XX", "--init", small,
        "--tokens", 300, "--valid-examples", 2, "--device", "cpu", "--steps", 2, "--recipe",
        "full", *options, "--out", tmp_path / "run",
    )
    assert done.returncode == 2 and "the loss is nan at update 1" in done.stderr, done.stderr
    rows = json.loads((tmp_path / "run" / "bad_batch.json").read_text())
    assert any(key in row for row in rows)
    # All that the update read: the classifier's and the task's batch, or the task's and the
    # alignment's.
    batches = {(row["stream"], row["batch"]) for row in rows}
    second = ("task", 1) if key == "labels" else ("alignment", 0)
    assert batches == {("task", 0), second}
    assert same_weights(tmp_path / "run", small), "the update was made"


# --------------------------------------------------------------- translations among summaries

MIXED = (
    "--stage", "summarize", "--langs", "en_XX", "es_XX", "--tokens", 300, "--valid-examples", 4,
    "--no-eval", "--device", "cpu", "--recipe", "full", "--mix", 2, "--eval-every", 2,
)


def test_an_update_with_a_mix_weighs_each_stream_by_its_batches(
    run, small, tmp_path, monkeypatch
):
    """By hand: each stream's mean over its label tokens, however short headlines are; one batch is
    of summaries, two are of translations. And validation is the summaries' alone."""
    name = "model.decoder.layers.1.fc1.weight"
    read = []
    gradients = []
    compute = train.task_loss
    step = train.update

    def seen(model, batch, divisor, *rest, **options):
        if model.training:
            read.append(batch)
        return compute(model, batch, divisor, *rest, **options)

    def stepped(model, *rest):
        gradients.append(model.get_parameter(name).grad.clone())
        return step(model, *rest)

    monkeypatch.setattr(train, "task_loss", seen)
    monkeypatch.setattr(train, "update", stepped)
    out = tmp_path / "run"
    done = run("train.py", *MIXED, "--init", small, "--steps", 1, "--clip", 0, "--out", out)
    assert done.returncode == 0, done.stderr
    assert [(batch.stream, batch.number) for batch in read] == [
        ("task", 0), ("mix", 0), ("mix", 1)
    ]
    model = MBart.from_pretrained(small).eval()
    means = []
    for batches in ([read[0]], read[1:]):
        total = 0.0
        for batch in batches:
            logits = model(batch.source, batch.decoder_input)
            total = total + torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), batch.labels.flatten(), ignore_index=1, reduction="sum"
            )
        means.append(total / sum(int((batch.labels != 1).sum()) for batch in batches))
    loss = means[0] / 3 + means[1] * 2 / 3
    loss.backward()
    expected = model.get_parameter(name).grad
    torch.testing.assert_close(gradients[0], expected, rtol=1e-4, atol=1e-7)
    assert float(losses(out)[0][1]) == pytest.approx(loss.item(), rel=1e-5)

    said = "before training: validation loss"
    alone = run(
        "train.py", *MIXED, "--init", small, "--steps", 1, "--mix", 0, "--out", tmp_path / "alone"
    )
    before = [each.stdout.split(said)[1].split()[0] for each in (done, alone)]
    assert before[0] == before[1]


def test_a_mixed_run_is_resumed_bit_exactly_and_keeps_its_pairs(run, small, tmp_path):
    options = (*MIXED, "--init", small, "--steps", 6, "--dropout", 0.2)
    assert run("train.py", *options, "--out", tmp_path / "whole").returncode == 0
    assert run("train.py", *options, "--out", tmp_path / "cut", "--stop-at", 3).returncode == 0
    assert read_state(tmp_path / "cut" / "state.pt")["mix"]["number"] == 6
    done = run("train.py", "--resume", tmp_path / "cut", "--mix", 1)
    assert done.returncode == 2 and "leave out --mix\n" in done.stderr
    done = run("train.py", "--resume", tmp_path / "cut", "--mix", 2)
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "cut", tmp_path / "whole")
    settings = read_settings(tmp_path / "cut")
    assert settings["langs"] == ["en_XX", "es_XX"] and len(settings["mix_pairs"]) == 4
    assert evaluation.trained_pairs(settings) == [("en_XX", "en_XX"), ("es_XX", "es_XX")]
    plain = (*options, "--mix", 0, "--out", tmp_path / "plain")
    assert run("train.py", *plain).returncode == 0
    assert not same_weights(tmp_path / "plain", tmp_path / "whole")


def test_what_is_mixed_in_are_translations_and_not_the_stages_own_texts(small):
    tokenizer = Tokenizer.from_pretrained(small)
    s = parse_args([str(word) for word in (*MIXED, "--init", small)])
    streams = train.streams_of(s, tokenizer, 256)
    pair = ("en_XX", "es_XX")
    data = builtin.Builtin("translate", "train", split_pairs(s.mix_pairs), seed=s.seed)
    example = streams["mix"].examples(pair, 0)
    text, translation = data.text(pair, 0)
    assert example.source == tokenizer.encode(text, "en_XX")
    decoder_input, labels = tokenizer.target(translation, "es_XX")
    assert (example.decoder_input, example.labels) == (decoder_input, labels)


@pytest.mark.parametrize("more, tagged", [
    ((), True), (("--tagless",), False), (("--adversarial", "balanced"), False),
])
def test_a_tagless_runs_sources_have_no_tag_and_its_labels_have_one(small, more, tagged):
    tokenizer = Tokenizer.from_pretrained(small)
    s = parse_args([str(word) for word in (*QUICK, "--init", small, *more)])
    pair = ("en_XX", "es_XX")
    for split in ("train", "valid"):
        examples = train.open_split(s, s.stage, s.pairs, split, tokenizer, 256)
        text, translation = examples.data.text(pair, 0)
        example = examples(pair, 0)
        assert example.source == tokenizer.encode(text, "en_XX" if tagged else None)
        assert example.labels == tokenizer.target(translation, "es_XX")[1]


def test_the_seed_orders_what_files_have(two_languages, small):
    tokenizer = Tokenizer.from_pretrained(small)
    drawn = []
    for seed in (0, 0, 1):
        words = on_files(two_languages, small, "--seed", seed)[1:]
        s = parse_args([str(word) for word in words])
        s.pairs = ["en_XX-en_XX", "tr_TR-tr_TR"]
        stream = train.streams_of(s, tokenizer, 256)["task"]
        drawn.append([next(stream).source.tolist() for _ in range(5)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_seed_draws_the_classifier(small):
    drawn = []
    for seed in (0, 0, 1):
        s = parse_args([
            "--stage", "summarize", "--init", str(small), "--adversarial", "balanced", "--langs",
            "en_XX", "es_XX", "--seed", str(seed),
        ])
        adversary = train.make_adversary(s, 32, ["en_XX", "es_XX"], "cpu")
        drawn.append([weight.tolist() for weight in adversary.classifier.parameters()])
    assert drawn[0] == drawn[1] != drawn[2]


def test_streams_batches_and_runs_draw_dropout_unlike_each_other():
    seeds = set()
    for stream in ("task", "mix", "alignment"):
        train.seed_dropout(5, Namespace(number=7, stream=stream))
        seeds.add(torch.initial_seed())
    for stream in ("task", "mix"):
        train.seed_dropout(5, Namespace(number=7, stream=stream), for_classifier=True)
        seeds.add(torch.initial_seed())
    train.seed_dropout(5, Namespace(number=8, stream="task"))
    seeds.add(torch.initial_seed())
    train.seed_dropout(6, Namespace(number=7, stream="task"))
    seeds.add(torch.initial_seed())
    for step in (1, 2):
        batch = Namespace(number=7, stream="task")
        train.seed_dropout(5, batch, for_classifier=True, classifier_step=step)
        seeds.add(torch.initial_seed())
    assert len(seeds) == 9


def test_the_files_of_a_mix_are_part_of_the_fingerprint(run, small, tmp_path):
    for lang in ("en_XX", "es_XX", "ru_RU"):
        for split in ("train", "valid"):
            lines = [f"{lang} one two {i}" for i in range(20)]
            (tmp_path / f"{split}.{lang}").write_text("\n".join(lines) + "\n")
    out = tmp_path / "run"
    done = run(
        "train.py", *MIXED, "--init", small, "--data", f"parallel:{tmp_path}", "--preset", "small",
        "--pairs", "en_XX-es_XX", "--mix-pairs", "ru_RU-en_XX", "--steps", 2, "--stop-at", 1,
        "--out", out,
    )
    assert done.returncode == 0, done.stderr
    path = tmp_path / "train.ru_RU"
    path.write_text(path.read_text().replace("two 7", "two 8"))
    done = run("train.py", "--resume", out)
    assert done.returncode == 2 and f"{path}: not what it was when this run" in done.stderr


def test_a_language_of_a_mix_that_the_model_does_not_know_is_named(run, small, tmp_path):
    for options in (("--mix-pairs", "en_XX-tr"), ("--align-layer", 1, "--align-pairs", "en_XX-tr")):
        done = run("train.py", *MIXED, "--init", small, *options, "--out", tmp_path / "run")
        assert done.returncode == 2 and "did you mean tr_TR" in done.stderr, done.stderr


# -------------------------------------------------------------------------- on top of another run

def test_a_few_examples_and_steps_keep_the_last_model_and_a_long_warm_up_is_told(
    run, small, tmp_path
):
    out = tmp_path / "run"
    done = run(
        "train.py", "--stage", "summarize", "--init", small, "--recipe", "full", "--langs", "es_XX",
        "--train-examples", 2, "--keep", "last", "--steps", 5, "--eval-every", 50, "--tokens", 300,
        "--valid-examples", 2, "--no-eval", "--device", "cpu", "--out", out,
    )
    assert done.returncode == 0, done.stderr
    assert "note: --warmup 100 is not over within --steps 5: the learning rate ends at 5%" in (
        done.stderr
    )
    last = read_state(out / "state.pt")["weights"]
    kept = MBart.from_pretrained(out).state_dict()
    assert all(torch.equal(last[name], kept[name]) for name in last)
    assert not same_weights(out, small)


def test_a_run_of_few_examples_is_validated_on_as_many_as_any_other(run, small, tmp_path):
    told = []
    for few in ((), ("--train-examples", 1)):
        out = tmp_path / f"run {len(few)}"
        done = run("train.py", *QUICK, "--init", small, "--steps", 1, *few, "--out", out)
        assert done.returncode == 0, done.stderr
        told.append(re.search(r"before training: validation loss (\S+)", done.stdout)[1])
    assert told[0] == told[1]


def test_a_dropped_residual_stays_and_another_layers_is_refused(run, small, tmp_path):
    options = (*QUICK, "--steps", 1, "--recipe", "full")
    first = tmp_path / "first"
    done = run("train.py", *options, "--init", small, "--residual-drop", 2, "--out", first)
    assert done.returncode == 0, done.stderr
    for number, words in enumerate(((), ("--residual-drop", 2))):
        out = tmp_path / f"next{number}"
        done = run("train.py", *options, "--init", first, *words, "--out", out)
        assert done.returncode == 0, done.stderr
        assert MBart.from_pretrained(out).config.residual_drop_layer == 2
    done = run(
        "train.py", *options, "--init", first, "--residual-drop", 1, "--out", tmp_path / "other"
    )
    assert done.returncode == 2 and "without the residual of layer 2" in done.stderr
    assert "--residual-drop 1" in done.stderr and not (tmp_path / "other").exists()


# ------------------------------------------------------------------------ stopping and going on

# Sends itself SIGTERM when it draws its batch of that number.
STOPPED = """
import os, signal, sys
sys.path.insert(0, {root!r})
import data, train
from plumbing.files import run
draw = data.Batches.__next__
def stop(self):
    if self.position.number == {number}:
        os.kill(os.getpid(), signal.SIGTERM)
    return draw(self)
data.Batches.__next__ = stop
run(lambda: train.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_stopped_by_a_signal_resumes_bit_exactly(run, run_process, small, tmp_path):
    """Dropout, data order, optimizer and model are the uninterrupted run's, to the last digit."""
    options = (
        *QUICK, "--init", small, "--steps", 30, "--eval-every", 10, "--dropout", 0.2, "--recipe",
        "full+embeddings", "--lr", 1e-2, "--accumulate", 2,
    )
    assert run("train.py", *options, "--out", tmp_path / "whole").returncode == 0
    code = STOPPED.format(root=str(ROOT), number=33)
    done = run_process("-c", code, *options, "--out", tmp_path / "cut")
    assert done.returncode == 128 + signal.SIGTERM and "--resume" in done.stdout, done.stderr
    assert len(losses(tmp_path / "cut")) == 1, "the run was stopped before its end"
    done = run("train.py", "--resume", tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert same_weights(tmp_path / "cut", tmp_path / "whole")


@pytest.mark.slow
def test_a_run_that_goes_on_holds_no_second_copy_of_its_weights(run, small, tmp_path, monkeypatch):
    out = tmp_path / "run"
    options = (*QUICK, "--init", small, "--recipe", "full+embeddings", "--steps", 3, "--out", out)
    assert run("train.py", *options, "--stop-at", 2).returncode == 0
    read = []
    alive = []

    def watched(path):
        state = read_state(path)
        read.extend(weakref.ref(tensor) for tensor in state["weights"].values())
        return state

    def counted(*args):
        alive.append(sum(reference() is not None for reference in read))
        return update(*args)

    update = train.update
    monkeypatch.setattr("plumbing.runs.read_state", watched)
    monkeypatch.setattr(train, "update", counted)
    assert run("train.py", "--resume", out).returncode == 0
    assert len(read) > 50 and alive == [0]


def test_ctrl_c_saves_and_exits_without_a_traceback(small, tmp_path):
    command = [
        sys.executable, "train.py", *QUICK, "--init", small, "--steps", 100000, "--eval-every", 5,
        "--out", tmp_path / "run",
    ]
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        ends = time.monotonic() + PATIENCE
        while not (tmp_path / "run" / "state.pt").exists() and process.poll() is None:
            assert time.monotonic() < ends
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=PATIENCE)[0]
    finally:
        process.kill()  # one that has ended is left as it is
    assert process.returncode == 130 and "Traceback" not in output
    assert (tmp_path / "run" / "state.pt").exists()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
@pytest.mark.parametrize("ignored", [False, True])
def test_the_end_of_the_terminal_saves_and_stops_a_run_unless_it_is_ignored(
    run, small, tmp_path, monkeypatch, ignored
):
    draw = train.Batches.__next__

    def hang_up(self):
        if self.position.number == 1:
            os.kill(os.getpid(), signal.SIGHUP)
        return draw(self)

    monkeypatch.setattr(train.Batches, "__next__", hang_up)
    # Where the run does not take the signal, it is not to end the tests.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else lambda *_: None)
    done = run("train.py", *QUICK, "--init", small, "--steps", 4, "--out", tmp_path / "run")
    signal.signal(signal.SIGHUP, before)
    assert done.returncode == (0 if ignored else 128 + signal.SIGHUP), done.stderr
    step = read_state(tmp_path / "run" / "state.pt")["progress"]["step"]
    assert step == (4 if ignored else 2)


def test_a_screen_that_takes_no_line_costs_no_validated_update(run, small, tmp_path, monkeypatch):
    options = (*QUICK, "--init", small, "--steps", 4, "--eval-every", 2)
    assert run("train.py", *options, "--out", tmp_path / "whole").returncode == 0

    def write(text):
        if "update 2" in text:
            raise OSError(errno.EIO, "the terminal is gone")

    out = tmp_path / "cut"
    with monkeypatch.context() as here:
        here.setattr("plumbing.progress.tqdm.write", write)
        assert run("train.py", *options, "--out", out).returncode == 1
    assert read_state(out / "state.pt")["progress"]["step"] == 2
    assert run("train.py", "--resume", out).returncode == 0
    assert losses(out) == losses(tmp_path / "whole")
    assert same_weights(out, tmp_path / "whole")


def test_training_leaves_the_programs_signals_as_they_were(run, small, tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    done = run("train.py", *QUICK, "--init", small, "--steps", 2, "--stop-at", 1, "--out",
               tmp_path / "run")
    assert done.returncode == 0 and "stopped at update 1" in done.stdout, done.stderr
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_goes_on_with_its_own_options_and_not_with_the_first_houses_files(
    run, small, tmp_path
):
    out = tmp_path / "run"
    options = (*QUICK, "--init", small, "--out", out, "--steps", 4, "--stop-at", 2)
    assert run("train.py", *options).returncode == 0
    done = run("train.py", "--resume", out, *QUICK, "--steps", 9, "--lr", 7)
    assert done.returncode == 2 and "leave out --steps, --lr\n" in done.stderr, done.stderr
    repeated = (*options[:-2], "--stop-at", 3, "--resume", out)  # the line that was typed
    assert run("train.py", *repeated).returncode == 0
    assert run("train.py", "--resume", out).returncode == 0
    assert [row[0] for row in losses(out)] == ["4"]
    settings = read_settings(out)
    del settings["run_format"]
    (out / "args.json").write_text(json.dumps(settings))
    done = run("train.py", "--resume", out)
    assert done.returncode == 2 and f"--init {out}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    other = tmp_path / "other"
    assert run("train.py", *QUICK, "--init", out, "--steps", 1, "--out", other).returncode == 0


def test_a_run_that_goes_on_stops_at_a_later_update_alone_and_counts_all_its_seconds(
    run, small, tmp_path
):
    out = tmp_path / "run"
    options = (*QUICK, "--init", small, "--out", out, "--steps", 4, "--stop-at", 2)
    assert run("train.py", *options).returncode == 0
    assert read_state(out / "state.pt")["progress"]["seconds"] > 0  # before the first validation
    for update in (1, 2):
        done = run("train.py", "--resume", out, "--stop-at", update)
        assert done.returncode == 2 and f"--stop-at {update}: " in done.stderr, done.stderr
        assert "is at update 2 already" in done.stderr and len(done.stderr.splitlines()) == 1
    assert read_state(out / "state.pt")["progress"]["step"] == 2
    assert run("train.py", "--resume", out, "--stop-at", 3).returncode == 0
    assert read_state(out / "state.pt")["progress"]["step"] == 3


def test_an_edited_log_is_read_or_its_line_is_named(run, small, tmp_path):
    out = tmp_path / "run"
    log = out / "log.csv"
    options = (*QUICK, "--init", small, "--out", out, "--steps", 3, "--eval-every", 1)
    assert run("train.py", *options, "--stop-at", 2).returncode == 0
    text = log.read_text()
    scores = ("--lang", "es_XX", "--source-lang", "en_XX", "--examples", 2, "--beam", 1, "--json",
              tmp_path / "scores.json")
    first, second, third = text.splitlines()
    for edited, at in ((text.replace(",", ";"), 1), (f"{first}\n{second}\n\n{third}x\n", 4)):
        log.write_text(edited)
        for words in (("train.py", "--resume", out), ("eval.py", "--model", out, *scores)):
            done = run(*words)
            assert done.returncode == 2 and f"log.csv:{at}: not the log" in done.stderr, done.stderr
            assert "score [95%" not in done.stdout  # nothing was decoded yet
    log.write_text(f"\ufeff{first}\n\n{second}\n{third}\n", encoding="utf-8")
    assert run("eval.py", "--model", out, *scores).returncode == 0
    assert run("train.py", "--resume", out).returncode == 0
    assert log.read_text().splitlines()[:3] == [first, second, third]
    assert [row[0] for row in losses(out)] == ["1", "2", "3"]


def settings_only(folder, *words):
    """A run folder that has no more than the settings of this command line."""
    begun = parse_args(["--stage", "summarize", "--out", str(folder), *words])
    settings = vars(begun) | {"run_format": RUN_FORMAT, "world_size": 1}
    (folder / "args.json").write_text(json.dumps(settings))
    return begun


@pytest.mark.parametrize("beside", [("--align-layer", "1"), ("--mix", "1")])
def test_languages_that_are_no_pairs_may_be_typed_again_at_resume(tmp_path, beside):
    langs = ("--langs", "en_XX", "es_XX")
    begun = settings_only(tmp_path, *langs, "--pairs", "en_XX-en_XX", *beside)
    resumed = parse_args(["--resume", str(tmp_path), *langs])
    assert (resumed.pairs, resumed.langs) == (begun.pairs, begun.langs)
    with pytest.raises(UserError, match="leave out --langs$"):
        parse_args(["--resume", str(tmp_path), "--langs", "en_XX", "ru_RU"])


@pytest.mark.parametrize("first, differing", [
    (("--langs", "en_XX", "es_XX", "--pairs", "en_XX-en_XX", "--align-layer", "1"), None),
    (("--langs", "en_XX", "--align-layer", "1", "--align-pairs", "en_XX-ru_RU"), None),
    (("--langs", "es_XX", "en_XX", "--accumulate", "3", "--min-words", "0", "1"), None),
    (("--pairs", "en_XX-en_XX", "en_XX-en_XX"), ("--pairs", "es_XX-es_XX")),
    (("--langs", "es_XX", "en_XX"), ("--langs", "es_XX", "ru_RU")),
    (("--accumulate", "3"), ("--accumulate", "5")),
    (("--langs", "es_XX", "en_XX", "--mix", "1"), ("--mix", "3")),
    (("--mix", "2", "--mix-pairs", "ru_RU-en_XX"), ("--mix-pairs", "en_XX-ru_RU")),
    ((), ("--overwrite",)),
])
def test_what_is_typed_beside_resume_may_be_what_the_run_has(tmp_path, first, differing):
    line = ["--stage", "summarize", "--out", str(tmp_path), *first]
    begun = parse_args(line)
    train.share_batches(begun, 2, print)
    machine = {"run_format": RUN_FORMAT, "world_size": 2}
    (tmp_path / "args.json").write_text(json.dumps(vars(begun) | machine))
    resume = ["--resume", str(tmp_path)]
    expected = parse_args(resume)
    assert parse_args(line + resume) == expected
    assert (expected.langs, expected.accumulate) == (begun.langs, begun.accumulate)
    assert (expected.mix, expected.mix_pairs) == (begun.mix, begun.mix_pairs)
    if differing:
        with pytest.raises(UserError, match=f"leave out {differing[0]}$"):
            parse_args(["--stage", "summarize", *differing, *resume])


@pytest.fixture
def stopped(run, small, tmp_path):
    """A run that was stopped after two of four updates."""
    out = tmp_path / "stopped"
    words = ("--init", small, "--steps", 4, "--recipe", "qk", "--eval-every", 2)
    done = run("train.py", *QUICK, *words, "--stop-at", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_what_does_not_train_is_the_same_when_a_run_goes_on(run, small, stopped):
    model = MBart.from_pretrained(stopped)
    with torch.no_grad():
        model.get_parameter("model.decoder.layers.1.fc1.weight")[3, 4] += 1e-3
    model.save_pretrained(stopped)
    done = run("train.py", "--resume", stopped)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = f"{stopped / 'model.safetensors'}: weights that this run does not train are others"
    assert said in done.stderr


@pytest.mark.parametrize("name, value", [
    ("recipe", "full"), ("lr", 1.0), ("steps", 100), ("seed", 7), ("stage", "summarize"),
    ("pairs", ["en_XX-es_XX"]), ("tagless", True), ("weight_decay", 0.5), ("data", "builtin:0.5"),
    ("adversarial", "balanced"),
])
def test_settings_are_those_of_the_checkpoint_when_a_run_goes_on(run, small, stopped, name, value):
    settings = json.loads((stopped / "args.json").read_text())
    before = settings[name]
    assert before != value
    (stopped / "args.json").write_text(json.dumps(settings | {name: value}))
    done = run("train.py", "--resume", stopped)
    assert done.returncode == 2, done.stderr
    said = f"{stopped / 'args.json'}: {name} is {value}, but state.pt was saved with {before}"
    assert said in done.stderr
    (stopped / "args.json").write_text(json.dumps(settings))
    assert run("train.py", "--resume", stopped).returncode == 0


def test_another_runs_checkpoint_is_refused(run, small, stopped, tmp_path):
    other = tmp_path / "other"
    words = ("--init", small, "--steps", 4, "--recipe", "full", "--eval-every", 2)
    done = run("train.py", *QUICK, *words, "--stop-at", 2, "--out", other)
    assert done.returncode == 0, done.stderr
    shutil.copy(other / "state.pt", stopped / "state.pt")
    done = run("train.py", "--resume", stopped)
    assert done.returncode == 2 and "recipe is qk, but state.pt was saved with full" in done.stderr


def test_a_checkpoint_without_one_of_its_parts_is_named(run, stopped):
    state = read_state(stopped / "state.pt")
    for name in ("optimizer", "progress", "task"):
        torch.save({key: state[key] for key in state if key != name}, stopped / "state.pt")
        done = run("train.py", "--resume", stopped)
        assert done.returncode == 2, done.stderr
        assert f"{stopped / 'state.pt'}: damaged (it lacks '{name}')" in done.stderr


def test_a_damaged_checkpoint_is_named(run, small, tmp_path):
    out = tmp_path / "run"
    options = (*QUICK, "--init", small, "--out", out, "--steps", 4, "--eval-every", 2)
    assert run("train.py", *options).returncode == 0
    for name, words in (("state.pt", "state.pt: damaged"), ("model.safetensors", "model.safet")):
        content = (out / name).read_bytes()
        (out / name).write_bytes(content[:len(content) // 2])
        done = run("train.py", "--resume", out)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


# -------------------------------------------------------------------------- several processes

# Runs train.py in two processes, with each of several command lines in turn. They are forked, so
# that no import is repeated, and each tells how many held-out batches it computed.
TWO = """
import json, os, sys, traceback
sys.path.insert(0, {root!r})
from bench.process import free_port
import torch
torch.set_num_threads(1)
torch.optim.AdamW([torch.zeros(1)])  # imports 800 files when it is first called
import train
from model import MBart
from plumbing.files import run

validated = 0
loss = MBart.loss
def counted(self, *args, **options):
    global validated
    validated += not self.training
    return loss(self, *args, **options)
MBart.loss = counted

def work(rank, argv, file):
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
    code = 0
    try:
        run(lambda: train.main(argv))
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    with open(file, "w") as opened:
        json.dump(validated, opened)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

for number, argv in enumerate(json.loads(sys.argv[1])):
    os.environ["MASTER_PORT"] = str(free_port())
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ["WORLD_SIZE"] = "2"
    children = []
    for rank in (0, 1):
        child = os.fork()
        if child == 0:
            work(rank, argv, f"{folder}/{{number}}-{{rank}}")
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(f"{{argv}} ended with {{codes}}")
"""


def two_processes(run_process, folder, *commands):
    """Runs train.py's command lines one after the other, each in two processes.

    Returns for each the number of held-out batches that either process computed."""
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = run_process("-c", TWO.format(root=str(ROOT), folder=folder), words)
    assert done.returncode == 0, done.stderr
    counts = []
    for number in range(len(commands)):
        counts.append([int((folder / f"{number}-{rank}").read_text()) for rank in (0, 1)])
    return counts


@pytest.mark.slow
def test_two_processes_follow_one_process_on_the_same_global_batch(
    run, run_process, small, tmp_path, monkeypatch
):
    options = {}
    for dropout, recipe in ((0.0, "full"), (0.3, "full"), (0.0, "full+embeddings")):
        options[f"{recipe}-{dropout}"] = (
            *QUICK, "--init", small, "--steps", 12, "--eval-every", 3, "--accumulate", 2,
            "--dropout", dropout, "--recipe", recipe, "--lr", 1e-2,
        )
    fooled = ("--adversarial", "balanced", "--classifier-updates", 2)
    for name, words in (
        ("mixed", ("--mix", 2)), ("aligned", ("--align-layer", 1)), ("fooled", fooled)
    ):
        options[name] = (
            *QUICK, "--stage", "summarize", "--init", small, "--steps", 12, "--eval-every", 3,
            "--accumulate", 2, "--recipe", "full", "--lr", 1e-2, "--dropout", 0.3,
            "--valid-examples", 12, *words,
        )
    commands = [(*words, "--out", tmp_path / f"{name}-two") for name, words in options.items()]
    counts = two_processes(run_process, tmp_path, *commands)
    batches = 0
    validate = train.validation_loss

    def counted(model, held, *rest):
        nonlocal batches
        batches += len(held)
        return validate(model, held, *rest)

    monkeypatch.setattr(train, "validation_loss", counted)
    for (name, words), shares in zip(options.items(), counts, strict=True):
        batches = 0
        done = run("train.py", *words, "--out", tmp_path / f"{name}-one")
        assert done.returncode == 0, done.stderr
        assert_near(tmp_path / f"{name}-one", tmp_path / f"{name}-two", rel=2e-6)
        assert sum(shares) == batches and min(shares) > 0  # validation is shared


# Each process writes down its classifier of the source language after every update.
TOLD_CLASSIFIER = '''
update = train.Adversary.update
def told(self, *args):
    update(self, *args)
    numbers = [parameter.tolist() for parameter in self.classifier.parameters()]
    with open(f"{folder}/classifier-" + os.environ["RANK"], "a") as file:
        file.write(json.dumps(numbers) + "\\n")
train.Adversary.update = told

def work('''


@pytest.mark.slow
def test_the_classifier_of_two_processes_is_one(run_process, small, tmp_path):
    words = (
        *QUICK, "--stage", "summarize", "--init", small, "--steps", 3, "--accumulate", 2,
        "--adversarial", "balanced", "--recipe", "full", "--classifier-updates", 2,
        "--out", tmp_path / "run",
    )
    program = TWO.format(root=str(ROOT), folder=tmp_path)
    told = TOLD_CLASSIFIER.replace("{folder}", str(tmp_path))
    program = program.replace("\ndef work(", told)
    done = run_process("-c", program, json.dumps([[str(word) for word in words]]))
    assert done.returncode == 0, done.stderr
    one, other = ((tmp_path / f"classifier-{rank}").read_text().splitlines() for rank in (0, 1))
    assert one == other and len(set(one)) == 3


# Process 1 is told to end when it draws its batch of that number.
TOLD_TO_END = """
import signal
from data import Batches
draw = Batches.__next__
def told(self):
    if os.environ["RANK"] == "1" and self.position.number == 6:
        os.kill(os.getpid(), signal.SIGTERM)
    return draw(self)
Batches.__next__ = told

def work("""


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_saves_and_stops_both_at_one_update(
    run_process, small, tmp_path
):
    options = (
        *QUICK, "--init", small, "--steps", 8, "--eval-every", 2, "--accumulate", 2, "--recipe",
        "full",
    )
    program = TWO.format(root=str(ROOT), folder=tmp_path).replace("\ndef work(", TOLD_TO_END)
    words = [str(word) for word in (*options, "--out", tmp_path / "cut")]
    done = run_process("-c", program, json.dumps([words]))
    assert "ended with [143, 143]" in done.stderr, done.stderr
    stopped = read_state(tmp_path / "cut" / "state.pt")["progress"]["step"]
    assert 2 <= stopped <= 4 and f"stopped at update {stopped};" in done.stdout
    assert f"torchrun --nproc-per-node 2 train.py --resume {tmp_path / 'cut'}\n" in done.stdout
    two_processes(
        run_process,
        tmp_path,
        ("--resume", tmp_path / "cut"),
        (*options, "--out", tmp_path / "whole"),
    )
    assert_near(tmp_path / "whole", tmp_path / "cut", rel=1e-6)


@pytest.mark.parametrize("change", [
    {"steps": "x"}, {"steps": 0}, {"pairs": "en_XX-en_XX"}, {"langs": 3}, {"langs": [3]},
    {"world_size": 0}, {"world_size": "2"}, {"data": None}, {"data": 3}, {"recipe": 3},
    {"stage": 5}, {"stage": []}, {"min_words": [1]}, {"lr": None}, {"lr": True}, {"tagless": 1},
    {"recipe_layers": 2}, {"pairs": None}, {"pairs": []}, {"stage": None}, {"init": None},
    {"mix": 1, "mix_pairs": None}, {"align_layer": 1, "align_pairs": None},
])
def test_settings_that_no_command_line_gives_are_named_at_resume(tmp_path, change):
    begun = vars(parse_args(["--stage", "translate", "--out", str(tmp_path)]))
    (tmp_path / "args.json").write_text(json.dumps(begun | {"run_format": RUN_FORMAT}))
    parse_args(["--resume", str(tmp_path)])
    (tmp_path / "args.json").write_text(json.dumps(begun | {"run_format": RUN_FORMAT} | change))
    with pytest.raises(UserError, match=rf"args.json: {list(change)[-1]} is "):
        parse_args(["--resume", str(tmp_path)])


def test_a_device_that_this_machine_lacks_is_named_at_resume(tmp_path):
    begun = vars(parse_args(["--stage", "translate", "--out", str(tmp_path)]))
    settings = begun | {"run_format": RUN_FORMAT, "device": "cuda:99"}
    (tmp_path / "args.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"args.json: device is cuda:99 .* with --device$"):
        parse_args(["--resume", str(tmp_path)])
    assert parse_args(["--resume", str(tmp_path), "--device", "cpu"]).device == "cpu"


@pytest.mark.parametrize("words, said", [
    (("--lora-rank", "4"), ["--lora-rank has no effect without --recipe lora"]),
    (("--lora-rank", "4", "--recipe", "lora"), []),
    (("--classifier-lr", "1"), ["--classifier-lr has no effect without --adversarial"]),
    (("--align-pairs", "en_XX-es_XX"), ["--align-pairs has no effect without --align-layer"]),
    (("--stage", "align", "--align-layer", "1", "--align-pairs", "en_XX-es_XX", "--langs", "ru_RU"),
     ["--langs has no effect beside --align-pairs"]),
    (("--mix-pairs", "en_XX-es_XX"), ["--mix-pairs has no effect without --mix"]),
    (("--langs", "en_XX", "--pairs", "es_XX-ru_RU"), ["--langs has no effect beside --pairs"]),
    (("--langs", "en_XX", "es_XX", "--pairs", "en_XX-en_XX", "--align-layer", "1"), []),
    (("--langs", "en_XX", "es_XX", "--pairs", "en_XX-en_XX", "--stage", "summarize", "--mix", "1"),
     []),
    (("--langs", "en_XX", "--pairs", "en_XX-en_XX", "--stage", "summarize", "--mix", "1",
      "--mix-pairs", "es_XX-en_XX"), ["--langs has no effect beside --pairs"]),
    (("--min-words", "3", "1"), ["--min-words has no effect with the built-in corpus"]),
    (("--min-words", "3", "1", "--data", "jsonl:DIR", "--init", HELP_BASE), []),
    (("--temperature", "5"), ["--temperature has no effect with the built-in corpus"]),
    (("--temperature", "5", "--data", "jsonl:DIR", "--init", HELP_BASE), []),
    (("--temperature", "5", "--data", "jsonl:DIR", "--init", HELP_BASE, "--stage", "summarize",
      "--pairs", "en_XX-en_XX"), ["--temperature has no effect with one language pair"]),
    (("--temperature", "5", "--data", "jsonl:DIR", "--init", HELP_BASE, "--stage", "summarize",
      "--pairs", "en_XX-en_XX", "es_XX-es_XX"), []),
    (("--temperature", "5", "--data", "jsonl:DIR", "--init", HELP_BASE, "--stage", "summarize",
      "--pairs", "en_XX-en_XX", "--mix", "1", "--mix-pairs", "en_XX-es_XX", "es_XX-en_XX"), []),
    (("--patience", "2", "--steps", "9", "--eval-every", "3", "--warmup", "0"),
     ["--patience 2 has no effect: --steps 9 have 3 validations, one every 3 updates "
      "(--eval-every)"]),
    (("--patience", "1", "--steps", "9", "--eval-every", "3", "--warmup", "0"), []),
    (("--patience", "0", "--steps", "9", "--eval-every", "30", "--warmup", "0"), []),
    (("--data", "builtin:0.5"), ["the share of --data builtin:0.5 has no effect but in stage "
                                  "pretrain"]),
    (("--data", "builtin:0.5", "--stage", "pretrain", "--init", str(train.BASE)), []),
    (("--steps", "200", "--stop-at", "201"),
     ["--stop-at 201 has no effect: the run is over after --steps 200"]),
    (("--steps", "200", "--stop-at", "200"),
     ["--stop-at 200 has no effect: the run is over after --steps 200"]),
    (("--steps", "200", "--stop-at", "199"), []),
    (("--langs", "es_XX"), ["--langs names es_XX alone, which trains nothing but copying; name "
                            "more languages for translations"]),
    (("--langs", "es_XX", "--stage", "summarize"), []),
    (("--stage", "align", "--align-layer", "1", "--label-smoothing", "0.1"),
     ["--label-smoothing has no effect in stage align"]),
])
def test_an_option_without_effect_is_named(capsys, tmp_path, words, said):
    parse_args(["--stage", "translate", "--out", str(tmp_path), *words])
    assert capsys.readouterr().err.splitlines() == [f"note: {line}" for line in said]


def test_a_length_beyond_the_models_positions_is_told(run, small, tmp_path):
    words = ("--init", small, "--steps", 1, "--max-length")
    for length, told in ((257, True), (256, False)):
        done = run("train.py", *QUICK, *words, length, "--out", tmp_path / str(length))
        assert done.returncode == 0, done.stderr
        assert ("the model has positions for 256 alone" in done.stdout) == told


def test_what_is_typed_twice_counts_once(tmp_path):
    words = ["--stage", "translate", "--out", str(tmp_path)]
    s = parse_args([*words, "--langs", "en_XX", "es_XX", "en_XX"])
    assert len(s.pairs) == 4
    assert parse_args([*words, "--pairs", "en_XX-es_XX", "en_XX-es_XX"]).pairs == ["en_XX-es_XX"]


@pytest.fixture
def two_languages(tmp_path):
    """A data set of summaries, for English and Turkish; French has none."""
    folder = tmp_path / "data"
    folder.mkdir()
    for split in ("train", "valid"):
        rows = []
        for i in range(40):
            for lang in ("en_XX", "tr_TR"):
                rows.append(json.dumps({
                    "source": f"the teacher found map {split} {i}", "target": f"a map {i}",
                    "source_lang": lang, "target_lang": lang,
                }))
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def on_files(folder, small, *words):
    """The command line of a short run on a folder's JSON lines."""
    return (
        "train.py", "--stage", "summarize", "--preset", "small", "--data", f"jsonl:{folder}",
        "--langs", "en_XX", "tr_TR", "fr_XX", "--init", small, "--steps", 4, "--tokens", 200,
        "--valid-examples", 2, "--no-eval", "--device", "cpu", *words,
    )


@pytest.mark.parametrize("name, change", [
    ("train.jsonl", lambda text: text.replace("map 39", "map 93")),  # as long as before
    ("train.jsonl", lambda text: text + text.splitlines()[0] + "\n"),
    ("valid.jsonl", lambda text: "\n".join(reversed(text.splitlines())) + "\n"),
])
def test_data_that_changed_since_the_run_began_are_named_at_resume(
    run, small, tmp_path, two_languages, name, change
):
    out = tmp_path / "run"
    done = run(*on_files(two_languages, small, "--stop-at", 2, "--out", out))
    assert done.returncode == 0, done.stderr
    path = two_languages / name
    before = path.read_text()
    path.write_text(change(before))
    done = run("train.py", "--resume", out)
    assert done.returncode == 2 and f"{path}: not what it was when this run" in done.stderr
    path.write_text(before)
    assert run("train.py", "--resume", out).returncode == 0


def test_a_changed_lexicon_and_a_changed_base_of_lora_are_other_data(
    run, small, tmp_path, monkeypatch
):
    base = tmp_path / "base"
    shutil.copytree(small, base)
    out = tmp_path / "run"
    options = (*QUICK, "--init", base, "--recipe", "lora", "--steps", 4, "--stop-at", 2)
    assert run("train.py", *options, "--out", out).returncode == 0
    model = MBart.from_pretrained(base)
    model.model.shared.weight.data.mul_(2)
    model.save_pretrained(base)
    done = run("train.py", "--resume", out)
    assert done.returncode == 2 and f"{base / 'model.safetensors'}: not what it was" in done.stderr
    shutil.copytree(small, base, dirs_exist_ok=True)
    lexicon = tmp_path / "lexicon"
    shutil.copytree(builtin.LEXICON, lexicon)
    (lexicon / "partners.txt").write_text((lexicon / "partners.txt").read_text() + "\n")
    monkeypatch.setattr(builtin, "LEXICON", lexicon)
    done = run("train.py", "--resume", out)
    assert done.returncode == 2 and "lexicon/partners.txt: not what it was" in done.stderr


def test_a_run_goes_on_from_a_base_that_has_moved_and_from_no_other_one(run, small, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(small, base)
    out = tmp_path / "run"
    options = (*QUICK, "--init", base, "--recipe", "lora", "--steps", 3, "--stop-at", 1)
    assert run("train.py", *options, "--out", out).returncode == 0
    base.rename(tmp_path / "moved")
    done = run("train.py", "--resume", out)
    assert done.returncode == 2 and "say with --init where it is" in done.stderr, done.stderr
    done = run("train.py", "--resume", out, "--init", ROOT / "base")
    assert done.returncode == 2 and "leave out --init" in done.stderr, done.stderr
    done = run("train.py", "--resume", out, "--init", tmp_path / "moved", "--stop-at", 2)
    assert done.returncode == 0, done.stderr
    assert run("train.py", "--resume", out).returncode == 0, "where it is now was not kept"


def test_a_run_of_two_steps_goes_on_from_its_own_first_step_alone(run, small, tmp_path):
    """Another run from the same base has the same origin, and other weights."""
    first, other, second = (tmp_path / name for name in ("first", "other", "second"))
    assert run("train.py", *QUICK, "--init", small, "--steps", 1, "--out", first).returncode == 0
    words = (*QUICK, "--init", small, "--steps", 1, "--seed", 1, "--out", other)
    assert run("train.py", *words).returncode == 0
    words = (*QUICK, "--init", first, "--steps", 3, "--stop-at", 1, "--out", second)
    assert run("train.py", *words).returncode == 0
    first.rename(tmp_path / "moved")
    done = run("train.py", "--resume", second, "--init", other)
    assert done.returncode == 2 and "leave out --init" in done.stderr, done.stderr
    done = run("train.py", "--resume", second, "--init", tmp_path / "moved")
    assert done.returncode == 0, done.stderr


def test_a_run_that_was_stopped_before_its_first_validation_says_so(run, small, tmp_path):
    out = tmp_path / "run"
    options = (*QUICK, "--init", small, "--steps", 4, "--eval-every", 2, "--out", out)
    assert run("train.py", *options, "--stop-at", 1).returncode == 0
    said = "ended before its first validation"
    words = ("--pairs", "en_XX-es_XX", "--examples", 2, "--max-new-tokens", 4)
    assert said in run("eval.py", "--model", out, *words).stderr
    child = ("train.py", *QUICK, "--init", out, "--steps", 1, "--out", tmp_path / "child")
    assert said in run(*child).stderr
    with only_run_in(out):
        told = run("eval.py", "--model", out, *words).stderr
        assert "is training, and its model is still the one" in told and "--resume" not in told
    assert run("-m", "tools.card", out).returncode == 0
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "none that was validated" in card and "updates of" not in card
    foreign = tmp_path / "foreign"  # no run, though its files are called as a run's
    shutil.copytree(out, foreign)
    (foreign / "args.json").unlink()
    (foreign / "log.csv").write_text("step,loss\n1,2\n")
    child = ("train.py", *QUICK, "--init", foreign, "--steps", 1, "--out", tmp_path / "other")
    done = run(*child)
    assert done.returncode == 0 and said not in done.stderr, done.stderr
    killed = tmp_path / "killed"  # before anything was saved
    shutil.copytree(out, killed)
    (killed / "state.pt").unlink()
    told = run("eval.py", "--model", killed, *words).stderr
    assert said in told and "start it anew" in told
    log = (out / "log.csv").read_text()
    (killed / "log.csv").write_text(log + "2,1.0,nan,9,0.1\n")
    assert said in run("eval.py", "--model", killed, *words).stderr
    (killed / "log.csv").write_text(log + "2,1.0,3.5,9,0.1\n")
    assert said not in run("eval.py", "--model", killed, *words).stderr
    assert run("train.py", "--resume", out).returncode == 0
    assert said not in run("eval.py", "--model", out, *words).stderr


def test_a_checkpoint_whose_validation_is_no_number_does_not_replace_the_last_good_one(
    run, small, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    options = (*QUICK, "--init", small, "--steps", 3, "--eval-every", 1, "--out", out)
    validate = train.validation_loss
    calls = []

    def breaks_at_last(*args):
        calls.append(args)
        return validate(*args) if len(calls) <= 3 else math.nan

    monkeypatch.setattr(train, "validation_loss", breaks_at_last)
    assert run("train.py", *options).returncode == 0
    assert read_state(out / "state.pt")["progress"]["step"] == 2


def test_languages_without_data_are_named_and_the_adversary_does_not_count_them(
    run, small, tmp_path, two_languages
):
    out = tmp_path / "run"
    words = ("--adversarial", "balanced", "--recipe", "full", "--out", out)
    done = run(*on_files(two_languages, small, *words))
    assert done.returncode == 0, done.stderr
    for split in ("train", "valid"):
        assert f"{split}: fr_XX: no example" in done.stderr
    classifier = read_state(out / "state.pt")["adversary"]["classifier"]
    assert classifier["layers.3.bias"].shape == (2,)
    learned = ["summarize en_XX-en_XX", "summarize tr_TR-tr_TR"]  # so French stays zero-shot
    assert read_settings(out)["learned"] == learned
    assert run("-m", "tools.card", out).returncode == 0
    assert "| trained on | en_XX-en_XX tr_TR-tr_TR |" in (out / "README.md").read_text()


def test_what_the_scores_will_lack_is_said_before_the_training(
    run, small, tmp_path, two_languages, monkeypatch
):
    words = [word for word in on_files(two_languages, small) if word != "--no-eval"]
    words += ["--out", tmp_path / "run"]
    path = two_languages / "test.jsonl"
    row = {"source": "a map", "target": "a map", "source_lang": "ru_RU", "target_lang": "ru_RU"}

    def refused(*more):
        done = run(*words, *more)
        assert done.returncode == 2 and "before training" not in done.stdout, done.stderr
        assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()
        return done.stderr

    said = refused()
    assert f"{path}: not found" in said and "--no-eval" in said
    path.write_text(json.dumps(row) + "\n")
    said = refused()
    assert f"{path}: no example in the languages" in said and "--no-eval" in said
    assert "valid.jsonl: no example" in refused("--no-eval", "--watch", "es_XX-es_XX")

    for name in ("eval", "metrics"):
        monkeypatch.delitem(sys.modules, name)  # or they are not imported again
    monkeypatch.setitem(sys.modules, "py3langid", None)
    for more in ((), ("--no-eval", "--watch", "en_XX-en_XX")):
        said = refused(*more)
        assert "py3langid" in said and "pip install -r " in said and "--no-eval" in said
    assert run(*words, "--no-eval").returncode == 0


def test_a_pair_to_watch_that_the_data_lack_is_named(run, small, tmp_path, two_languages):
    words = ("--watch", "en_XX-en_XX", "es_XX-en_XX", "--steps", 1, "--out", tmp_path / "run")
    done = run(*on_files(two_languages, small, *words))
    assert done.returncode == 0, done.stderr
    assert "valid: es_XX: no example" in done.stderr
    assert {row[:11] for row in (tmp_path / "run" / "watch.csv").read_text().split()[1:]} == {
        "0,en_XX,en_", "1,en_XX,en_"
    }


def test_cut_and_unreadable_texts_are_told_once_when_a_run_begins(
    run, small, tmp_path, two_languages
):
    path = two_languages / "train.jsonl"
    letters = "\u2d5c\u2d49\u2d3c\u2d49\u2d4f\u2d30\u2d56"  # letters that the base has not
    text = path.read_text(encoding="utf-8").replace("the teacher found", letters, 20)
    path.write_text(text, encoding="utf-8")
    out = tmp_path / "run"
    words = ("--max-length", 8, "--stop-at", 2, "--out", out)
    done = run(*on_files(two_languages, small, *words))
    assert done.returncode == 0, done.stderr
    assert re.search(r"train: \d+ of the first \d+ sources are too long and cut: \d", done.stdout)
    assert re.search(r"en_XX: the vocabulary has no piece for \d+% of the", done.stdout)
    assert "valid: en_XX: the vocabulary" not in done.stdout
    done = run("train.py", "--resume", out)
    assert done.returncode == 0 and "too long and cut" not in done.stdout


def test_an_update_that_processes_cannot_share_is_told_and_not_taken_up_by_others(small, tmp_path):
    said = []
    s = parse_args(["--stage", "summarize", "--accumulate", "3", "--init", str(small),
                    "--out", str(tmp_path / "run")])
    train.share_batches(s, 3, said.append)
    assert (s.accumulate, said) == (3, [])
    train.share_batches(s, 2, said.append)
    assert s.accumulate == 4 and "--accumulate 3 becomes 4: 2 processes" in said[0]
    s.resume = "run"
    train.share_batches(s, 4, said.append)
    with pytest.raises(UserError, match="of 4 batches, which 3 processes cannot share"):
        train.share_batches(s, 3, said.append)
    assert len(said) == 1
    s.resume = None
    s.mix = 1
    train.share_batches(s, 2, said.append)
    assert (s.accumulate, s.mix) == (4, 2) and "--mix 1 becomes 2: 2 processes" in said[1]


def test_short_examples_are_left_out_of_training_alone(run, small, tmp_path, two_languages):
    """A source of two_languages has six words, those that come here two."""
    for split in ("train", "valid"):
        row = {"source": "a map", "target": "a map", "source_lang": "fr_XX", "target_lang": "fr_XX"}
        with open(two_languages / f"{split}.jsonl", "a") as file:
            file.write((json.dumps(row) + "\n") * 5)
    done = run(*on_files(two_languages, small, "--min-words", 6, 0, "--out", tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "train: left out 0 bad lines and 5 examples that are too short" in done.stderr
    assert "train: fr_XX: no example" in done.stderr
    assert "valid: left out" not in done.stderr and "valid: fr_XX" not in done.stderr


# Process 1 dies when it draws its batch of that number.
DYING = """
import os, sys
sys.path.insert(0, {root!r})
import data, train
draw = data.Batches.__next__
def fail(self):
    if os.environ["RANK"] == "1" and self.position.number == 6:
        raise RuntimeError("this rank dies")
    return draw(self)
data.Batches.__next__ = fail
train.main()
"""


@pytest.mark.slow
def test_a_rank_that_dies_ends_the_run_with_its_error(run_process, small, tmp_path):
    script = tmp_path / "dying.py"
    script.write_text(DYING.format(root=str(ROOT)))
    done = run_process(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, script, *QUICK,
        "--init", small, "--steps", 8, "--accumulate", 2, "--out", tmp_path / "dead",
    )
    assert done.returncode != 0 and "this rank dies" in done.stderr
