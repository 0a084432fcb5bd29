"""analysis.py, and the measures it draws on: probing and SVCCA."""
import pytest
import torch

from adversarial import probe, token_states, words_only
from align import pooled_states, svcca
from corpora.builtin import Builtin
from data import Examples, held_out
from model import MBart
from tokenizer import Tokenizer


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
