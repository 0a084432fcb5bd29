"""align.py: the alignment loss, what it runs and what it brings about."""
import math

import pytest
import torch

from align import alignment_loss, contrastive_loss, mean_pool
from corpora.builtin import Builtin
from data import Batches, Examples
from model import MBart
from tokenizer import Tokenizer
from tools.layers import retrieval
from train import open_alignment, parse_args


def test_the_contrastive_loss_is_the_equations():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    b = torch.tensor([[3.0, 0.0], [1.0, 1.0]])
    cos = [[1.0, math.sqrt(0.5)], [0.0, math.sqrt(0.5)]]
    expected = sum(-math.log(math.exp(row[i] / 0.1) / sum(math.exp(x / 0.1) for x in row))
                   for i, row in enumerate(cos)) / 2
    assert contrastive_loss(a, b).item() == pytest.approx(expected, rel=1e-5)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=generator)
    assert contrastive_loss(x, x) < contrastive_loss(x, x.roll(1, 0))


def test_pooling_leaves_out_padding_tags_and_ends(small):
    tokenizer = Tokenizer.from_pretrained(small)
    ids = torch.tensor([[10, 11, 2, tokenizer.tag["en_XX"], 1]])
    states = torch.arange(10.0).view(1, 5, 2)
    assert mean_pool(states, ids, tokenizer).tolist() == [[1.0, 2.0]]


@pytest.fixture
def setting(small):
    model, tokenizer = MBart.from_pretrained(small).train(), Tokenizer.from_pretrained(small)
    model.config.dropout = model.config.attention_dropout = 0.0
    data = Builtin("align", "train", [("en_XX", "es_XX"), ("en_XX", "ru_RU")])
    return model, tokenizer, Batches(Examples(data, tokenizer, "align", max_length=256), 500)


def test_an_alignment_update_runs_no_layer_beyond_its_own_and_moves_none(setting):
    model, tokenizer, batches = setting
    calls = []
    for side in ("encoder", "decoder"):
        for number, layer in enumerate(getattr(model.model, side).layers, 1):
            layer.register_forward_hook(lambda *_, what=(side, number): calls.append(what))
    alignment_loss(model, next(batches), 1, tokenizer).backward()
    assert calls == [("encoder", 1)] * 2
    assert model.model.encoder.layers[0].fc1.weight.grad is not None
    assert all(p.grad is None for p in model.model.encoder.layers[1].parameters())
    assert all(p.grad is None for p in model.model.decoder.layers.parameters())


def test_alignment_updates_bring_translations_together(setting):
    model, tokenizer, batches = setting
    held = [next(batches) for _ in range(4)]

    @torch.no_grad()
    def accuracy():
        shares = []
        for batch in held:
            pooled = []
            for ids in (batch.source, batch.translation):
                pooled.append(mean_pool(model.encode(ids, upto=1), ids, tokenizer))
            shares.append(retrieval(*pooled))
        return sum(shares) / len(shares)

    before = accuracy()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        alignment_loss(model, next(batches), 1, tokenizer).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert accuracy() > before + 0.2


def test_the_loss_is_computed_in_full_precision_where_autocast_is_on():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(8, 16, generator=generator)
    b = a + 0.3 * torch.randn(8, 16, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        found = contrastive_loss(a, b)
    assert found.item() == contrastive_loss(a, b).item()


def test_the_translations_beside_a_task_are_drawn_as_its_options_say(small, tmp_path):
    for lang, count in (("en_XX", 20), ("es_XX", 20), ("ru_RU", 20)):
        lines = [f"one two {i}" for i in range(count)]
        if lang == "ru_RU":
            lines[5:] = ["one"] * 15  # too short
        (tmp_path / f"train.{lang}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    s = parse_args([
        "--stage", "summarize", "--langs", "en_XX", "es_XX", "ru_RU", "--align-layer", "1",
        "--data", f"parallel:{tmp_path}", "--train-examples", "15", "--min-words", "1", "2",
        "--temperature", "1",
    ])
    stream = open_alignment(s, Tokenizer.from_pretrained(small), 256)
    assert stream.examples.sizes == {("en_XX", "es_XX"): 15, ("en_XX", "ru_RU"): 5}
    assert stream.weights.tolist() == [0.75, 0.25]


def test_an_aligned_run_is_resumed_bit_exactly(run, small, tmp_path):
    options = (
        "--stage", "summarize", "--langs", "en_XX", "es_XX", "--init", small, "--recipe", "full",
        "--tokens", 300, "--steps", 6, "--eval-every", 2, "--valid-examples", 2, "--no-eval",
        "--device", "cpu",
    )
    aligned = (*options, "--align-layer", 1)
    assert run("train.py", *aligned, "--out", tmp_path / "whole").returncode == 0
    assert run("train.py", *options, "--out", tmp_path / "plain").returncode == 0
    assert run("train.py", *aligned, "--out", tmp_path / "cut", "--stop-at", 3).returncode == 0
    done = run("train.py", "--resume", tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    names = ("whole", "cut", "plain")
    whole, cut, plain = (MBart.from_pretrained(tmp_path / name).state_dict() for name in names)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    name = "model.encoder.layers.0.fc1.weight"
    assert not torch.equal(whole[name], plain[name])
    done = run("train.py", *options, "--out", tmp_path / "x", "--align-layer", 9)
    assert done.returncode == 2 and "layers 1 to 2" in done.stderr


def test_a_run_of_alignment_alone_ends_with_what_to_run_next_and_can_be_evaluated(
    run, small, tmp_path
):
    out = tmp_path / "run"
    done = run(
        "train.py", "--stage", "align", "--align-layer", 1, "--langs", "en_XX", "es_XX", "--init",
        small, "--steps", 2, "--valid-examples", 2, "--tokens", 300, "--device", "cpu",
        "--out", out,
    )
    assert done.returncode == 0, done.stderr
    assert "next: python train.py --stage summarize --init" in done.stdout
    done = run(
        "eval.py", "--model", out, "--lang", "es_XX", "--source-lang", "en_XX", "--examples", 2,
        "--max-new-tokens", 3,
    )
    assert done.returncode == 0 and "en_XX -> es_XX" in done.stdout, done.stderr
