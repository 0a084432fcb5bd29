"""analysis.py, and the measures it draws on: probing and SVCCA."""
import json

import pytest
import torch
from conftest import ROOT

from adversarial import probe, token_states, words_only
from align import pooled_states, svcca
from corpora.builtin import Builtin
from data import Examples, held_out
from model import MBart
from tokenizer import Tokenizer
from tools.layers import dictionary_induction, lexicon_words


def test_the_probe_finds_what_is_there_and_nothing_where_nothing_is():
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(0, 3, (3000,), generator=generator)
    noise = torch.randn(3000, 16, generator=generator)
    told = noise + 4 * torch.nn.functional.one_hot(true, 16)
    for states, low, high in ((told, 0.95, 1.0), (noise, 0.25, 0.42)):
        confusion = probe(states[:2000], true[:2000], states[2000:], true[2000:], 3)
        assert confusion.sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
        assert low <= confusion.diagonal().mean() <= high


def test_svcca_is_one_for_a_linear_map_low_for_unrelated_states_and_between_for_shared_directions():
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(600, 24, generator=generator) for _ in range(2))
    assert svcca(x, x @ torch.randn(24, 24, generator=generator) + 3, keep=1 - 1e-12) == pytest.approx(1, abs=1e-6)
    assert svcca(x, other) < 0.25
    assert svcca(x, torch.cat([x[:, :12], other[:, 12:]], 1)) == pytest.approx(0.55, abs=0.1)


def test_probing_reads_text_tokens_alone_and_does_not_move_the_model(small):
    model, tokenizer = MBart.from_pretrained(small).eval(), Tokenizer.from_pretrained(small)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = Builtin("summarize", "test", [("en_XX", "en_XX"), ("tr_TR", "tr_TR")])
    batches = held_out(Examples(data, tokenizer, "summarize", max_length=256), 5, 600)
    states, true = token_states(model, tokenizer, batches, ["en_XX", "tr_TR"], "encoder")
    pieces = sum(words_only(batch.source, tokenizer).sum().item() for batch in batches)
    assert [len(x) for x in states] == [pieces] * 3 and len(true) == pieces and set(true.tolist()) == {0, 1}
    tags = torch.tensor([[tokenizer.tag["en_XX"], 2, 1, 3, 200, tokenizer.tag["gu_IN"], tokenizer.mask_id]])
    assert words_only(tags, tokenizer).tolist() == [[False] * 4 + [True] + [False] * 2]
    assert [x.shape for x in pooled_states(model, tokenizer, batches, "decoder")] == [(10, 32)] * 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_eval_probe_prints_a_row_for_every_layer_and_writes_the_confusion_matrices(run, tmp_path):
    file = tmp_path / "probe.json"
    done = run("eval.py", "--probe", "--model", "base", "--source-lang", "en_XX", "ru_RU", "--json", file)
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())["probe"]
    layers = json.loads((ROOT / "base" / "config.json").read_text())["encoder_layers"]
    assert len(report["encoder"]) == layers + 1 and "chance is 0.500" in done.stdout
    assert report["encoder"][-1]["accuracy"] > 0.9  # English against Russian: the words tell
    assert 0 < report["encoder"][-1]["svcca"]["en_XX ru_RU"] <= 1


def test_retrieval_is_printed_for_every_layer_and_pair(run, tmp_path):
    done = run("eval.py", "--retrieval", "--model", "base", "--source-lang", "en_XX", "es_XX", "fr_XX", "--json",
               tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())["retrieval"]
    layers = json.loads((ROOT / "base" / "config.json").read_text())["encoder_layers"]
    assert len(report["encoder"]) == layers + 1 and set(report["encoder"][0]) == {
        "en_XX es_XX", "en_XX fr_XX", "es_XX fr_XX"}
    assert "encoder 1" in done.stdout and "decoder 1" in done.stdout
    done = run("eval.py", "--retrieval", "--model", "base", "--source-lang", "en_XX")
    assert done.returncode == 2 and "at least two" in done.stderr


def test_dictionary_induction_finds_a_dictionary_that_was_put_there():
    """Child vectors that are the parent's of their translation give 100%; random ones no more than chance."""
    base = Tokenizer.from_pretrained(ROOT / "base")
    words = {lang: lexicon_words(lang) for lang in ("en_XX", "es_XX")}
    generator = torch.Generator().manual_seed(0)
    parent = torch.nn.functional.normalize(torch.randn(base.vocab_size, 64, generator=generator), dim=1)
    child = torch.randn(base.vocab_size, 64, generator=generator)
    random = dictionary_induction(child, base.pieces, "es_XX", parent, base.pieces, "en_XX")
    for entry, row in words["es_XX"].items():
        english = [base.pieces.piece_to_id(f"▁{w}") + 1 for w in sorted(words["en_XX"].get(entry, ()))
                   if base.pieces.piece_to_id(f"▁{w}") != base.pieces.unk_id()]
        for word in row if english else ():
            child[base.pieces.piece_to_id(f"▁{word}") + 1] = parent[english[0]]
    exact = dictionary_induction(child, base.pieces, "es_XX", parent, base.pieces, "en_XX")
    assert exact[0] > 0.97 and exact[1] > 100 and random[0] < 0.05 and random[2] < 0.02
