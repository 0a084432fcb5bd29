"""align.py: the alignment loss, what it runs and what it brings about."""
import math
import sys

import pytest
import torch

import train
from align import alignment_loss, contrastive_loss, mean_pool
from corpora.builtin import Builtin
from data import Batches, Examples, ParallelBatch, pad
from model import MBart
from tokenizer import Tokenizer
from tools.layers import retrieval
from train import parse_args, streams_of


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


def test_the_same_text_or_translation_twice_in_a_batch_is_no_negative_of_itself(small):
    """Rows 0 and 1 have the same text, rows 1 and 2 the same translation: by hand, row 0 is
    compared with 2 and 3, row 1 with 3 alone, row 2 with 0 and 3, row 3 with all."""
    model, tokenizer = MBart.from_pretrained(small).eval(), Tokenizer.from_pretrained(small)
    texts = [[20, 21], [20, 21], [30, 31, 32], [40, 41]]
    translations = [[50], [60, 61], [60, 61], [70]]
    rows = []
    for ids, lang in ((texts, "es_XX"), (translations, "en_XX")):
        rows.append(pad([tokenizer.with_specials(row, lang) for row in ids]))
    batch = ParallelBatch(*rows, number=0, stream="alignment")
    compared = [{0, 2, 3}, {1, 3}, {0, 2, 3}, {0, 1, 2, 3}]
    pooled = []
    for ids in rows:
        pooled.append(mean_pool(model.encode(ids, upto=2), ids, tokenizer))
    expected = 0.0
    for i, columns in enumerate(compared):
        s = {}
        for j in columns:
            s[j] = torch.cosine_similarity(pooled[0][i], pooled[1][j], 0).item() / 0.1
        expected -= (s[i] - math.log(sum(map(math.exp, s.values())))) / 4
    loss = alignment_loss(model, batch, 2, tokenizer)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert contrastive_loss(*pooled).item() != pytest.approx(expected, rel=1e-2)
    loss.backward()
    assert model.model.encoder.layers[1].fc1.weight.grad.isfinite().all()


def test_the_anchor_looks_for_its_translation_and_not_the_other_way_round():
    """Two anchors near one translation: each is told apart among the translations, by row."""
    anchors = torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    translations = torch.tensor([[1.0, 0.05], [-1.0, 0.0]])
    expected = 0.0
    for own in range(2):
        s = [torch.cosine_similarity(anchors[own], other, 0).item() / 0.1 for other in translations]
        expected -= (s[own] - math.log(sum(map(math.exp, s)))) / 2
    assert contrastive_loss(anchors, translations).item() == pytest.approx(expected, rel=1e-4)
    other_way = contrastive_loss(translations, anchors).item()
    assert other_way != pytest.approx(expected, rel=1e-2)


def test_a_batch_of_one_sentence_alone_has_nothing_to_tell_apart():
    a = torch.randn(3, 4)
    excluded = ~torch.eye(3, dtype=torch.bool)
    assert contrastive_loss(a, a.roll(1, 0), excluded).item() == 0


def test_pooling_leaves_out_padding_tags_and_ends(small):
    """A text without a piece has none of its own: zeros, no NaN."""
    tokenizer = Tokenizer.from_pretrained(small)
    tag = tokenizer.tag["en_XX"]
    ids = torch.tensor([[10, 11, 2, tag, 1], [2, tag, 1, 1, 1]])
    states = torch.arange(20.0).view(2, 5, 2)
    assert mean_pool(states, ids, tokenizer).tolist() == [[1.0, 2.0], [0.0, 0.0]]


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
            lines[5:] = ["one"] * 15  # too short a source
        (tmp_path / f"train.{lang}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    s = parse_args([
        "--stage", "summarize", "--langs", "en_XX", "es_XX", "ru_RU", "--align-layer", "1",
        "--pairs", "en_XX-es_XX", "--data", f"parallel:{tmp_path}", "--train-examples", "15",
        "--min-words", "2", "1", "--temperature", "1",
    ])
    stream = streams_of(s, Tokenizer.from_pretrained(small), 256)["alignment"]
    assert stream.examples.sizes == {("es_XX", "en_XX"): 15, ("ru_RU", "en_XX"): 5}
    assert stream.weights.tolist() == [0.75, 0.25]


def test_an_aligned_update_is_one_step_by_the_sum_of_both_gradients(
    run, small, tmp_path, monkeypatch
):
    found = []
    step = train.update

    def stepped(model, *rest):
        gradients = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                gradients[name] = parameter.grad.clone()
        found.append(gradients)
        return step(model, *rest)

    monkeypatch.setattr(train, "update", stepped)
    words = (
        "--stage", "summarize", "--langs", "en_XX", "es_XX", "--init", small, "--recipe", "full",
        "--tokens", 300, "--steps", 2, "--accumulate", 2, "--valid-examples", 2, "--no-eval",
        "--device", "cpu", "--align-layer", 1, "--out", tmp_path / "run",
    )
    s = parse_args([str(word) for word in words])
    assert run("train.py", *words).returncode == 0
    assert len(found) == 2  # a step for each update

    tokenizer = Tokenizer.from_pretrained(small)
    streams = streams_of(s, tokenizer, 256)
    model = MBart.from_pretrained(small).train()
    model.config.dropout = model.config.attention_dropout = 0.0
    batches = [next(streams["task"]) for _ in range(2)]
    tokens = sum(batch.target_tokens for batch in batches)
    loss = 0.0
    for batch in batches:
        loss = loss + model.loss(batch.source, batch.decoder_input, batch.labels, reduction=tokens)
    parts = [loss, 0.0]
    for batch in [next(streams["alignment"]) for _ in range(2)]:
        parts[1] = parts[1] + alignment_loss(model, batch, 1, tokenizer) / 2
    name = "model.encoder.layers.0.fc1.weight"
    weight = model.get_parameter(name)
    task, alignment = (torch.autograd.grad(part, weight)[0] for part in parts)
    assert alignment.norm() > 0.01 * task.norm()
    torch.testing.assert_close(found[0][name], task + alignment, rtol=1e-4, atol=1e-6)


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


@pytest.mark.parametrize("words, said", [
    (("--stage", "align", "--tokens", 8), "raise --tokens"),
    (("--stage", "summarize", "--recipe", "full", "--tokens", 8), "raise --tokens"),
    (("--stage", "align", "--valid-examples", 1), "raise --valid-examples"),
    (("--stage", "align", "--data"), "or give more data"),  # one sentence again and again
])
def test_alignment_without_anything_to_tell_apart_is_refused(run, small, tmp_path, words, said):
    if words[-1] == "--data":
        for split in ("train", "valid"):
            for lang in ("en_XX", "es_XX"):
                (tmp_path / f"{split}.{lang}").write_text("one two\n" * 20)
        words = (*words, f"parallel:{tmp_path}")
    done = run(
        "train.py", "--preset", "small", "--align-layer", 1, "--langs", "en_XX", "es_XX", "--init",
        small, "--steps", 1, "--no-eval", "--device", "cpu", "--out", tmp_path / "run", *words,
    )
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert "before training" not in done.stdout and not (tmp_path / "run").exists()


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
    assert f"next: {sys.orig_argv[0]} train.py --stage summarize --init" in done.stdout
    done = run(
        "eval.py", "--model", out, "--lang", "es_XX", "--source-lang", "en_XX", "--examples", 2,
        "--max-new-tokens", 3,
    )
    assert done.returncode == 0 and "en_XX -> es_XX" in done.stdout, done.stderr
