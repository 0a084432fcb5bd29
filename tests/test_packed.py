"""Packed weights and the shared table's memory: the same numbers as the plain way."""
import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import plumbing.packed as packed_file
from generate import generate, log_sum_exp, top_words
from model import Config, MBart
from plumbing.memory import Memory
from plumbing.packed import PackedWeights
from qk_finetune import add_lora

SMALL = dict(vocab_size=600, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
             decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64,
             dropout=0.0, attention_dropout=0.0)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MBart(Config(**SMALL))


def ragged(rows, longest, seed=0):
    torch.manual_seed(seed)
    ids = torch.randint(4, 500, (rows, longest))
    return ids.masked_fill(torch.arange(longest) >= torch.randint(1, longest + 1, (rows, 1)), 1)


@pytest.mark.parametrize("blocked_from", [1, 10**9])
@pytest.mark.parametrize("rows", [1, 5, 41])
def test_packed_layers_side_by_side_are_the_layers(monkeypatch, blocked_from, rows):
    monkeypatch.setattr(packed_file, "BLOCKED", blocked_from)
    layers, packed, x = [nn.Linear(48, 96), nn.Linear(48, 32)], PackedWeights(), torch.randn(rows, 48)
    with torch.no_grad():
        expected = torch.cat([layer(x) for layer in layers], 1)
        assert torch.allclose(packed(x, *layers), expected, atol=1e-5)
        layers[1].weight.mul_(2)  # a copy never outlives the weights that it was made from
        assert torch.allclose(packed(x, *layers)[:, 96:], layers[1](x), atol=1e-5)
        layers[0].weight = nn.Parameter(torch.randn(96, 48))
        assert torch.allclose(packed(x, *layers)[:, :96], layers[0](x), atol=1e-5)
        double = copy.deepcopy(layers[0]).double()
        assert torch.equal(packed(x.double(), double), double(x.double()))
    assert len(copy.deepcopy(packed)) == 0


def test_decoding_sees_what_training_changed(model):
    source = ragged(3, 12)
    first = generate(model, source, 590, beam=3, max_new_tokens=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.5)
    second = generate(model, source, 590, beam=3, max_new_tokens=8)
    fresh = MBart(Config(**SMALL))
    fresh.load_state_dict(model.state_dict())
    assert second == generate(fresh, source, 590, beam=3, max_new_tokens=8) != first
    add_lora(model, dropout=0.0)  # a layer that adds to its weights is not packed
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_b" in name:
                parameter.normal_(0, 0.5)
    with torch.no_grad():
        step = model.eval().step(torch.full((3,), 590), model.start(source, 1, 4), 0)
        assert torch.allclose(step, model(source, torch.full((3, 1), 590))[:, 0], atol=1e-4)


@pytest.mark.parametrize("trained", ["all", "attention"])
def test_a_loss_is_a_sum_or_a_share_of_it_and_its_states_are_those_of_the_tokens(model, trained):
    model, source, labels = model.double(), ragged(7, 20), ragged(7, 9, 1)
    decoder_input = torch.cat([torch.full((7, 1), 590), labels[:, :-1]], 1).masked_fill(labels == 1, 1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained == "all" or "q_proj" in name)
    found = {}
    for reduction in ("mean", "sum", 17):
        model.zero_grad()
        loss, states = model.loss(source, decoder_input, labels, 0.1, reduction, with_states=True)
        loss.backward()
        assert states.shape == ((source != 1).sum(), 32)
        found[reduction] = [loss, *(p.grad.clone() for p in model.parameters() if p.requires_grad)]
    for reduction, share in ((17, 17), ("mean", (labels != 1).sum())):
        for whole, part in zip(found["sum"], found[reduction], strict=True):
            assert torch.allclose(whole, share * part, rtol=1e-9, atol=1e-11)


def test_the_tables_gradient_memory_is_used_again_and_holds_nothing_of_the_step_before(model):
    batches = [(ragged(4, 15, seed), *[ragged(4, 6, seed + 9)] * 2) for seed in range(3)]
    table = model.model.shared.weight
    expected = []
    for batch in batches:
        fresh = copy.deepcopy(model)
        fresh.loss(*batch).backward()
        expected.append(fresh.model.shared.weight.grad)
    places = []
    for batch, wanted in zip(batches, expected):
        model.loss(*batch).backward()
        assert torch.allclose(table.grad, wanted, atol=1e-7)
        places.append(table.grad.data_ptr())
        model.zero_grad()
        assert table.grad is None
    assert len(set(places)) == 1
    for batch in batches:  # and adds up where an update has several batches
        model.loss(*batch).backward()
    assert torch.allclose(table.grad, sum(expected), atol=1e-6)
    model.zero_grad()
    two = [model.loss(*batch) for batch in batches[:2]]  # two forward passes before the first backward pass
    for loss in two:
        loss.backward()
    assert torch.allclose(table.grad, sum(expected[:2]), atol=1e-6)


@pytest.mark.parametrize("vocab", [50, 2560, 2561, 5000])
def test_top_words_are_the_top_of_all_and_the_log_sum_is_torchs(vocab):
    torch.manual_seed(vocab)
    logits = torch.randn(6, vocab) * 30
    logits[0, ::2] = -torch.inf
    values, places = top_words(logits, 10)
    expected = logits.topk(10)
    assert torch.equal(values, expected.values) and torch.equal(logits.gather(1, places), values)
    assert torch.allclose(log_sum_exp(logits, {}), logits.logsumexp(1, keepdim=True))
    assert F.softmax(logits, 1).sum() > 0


def test_kept_memory_serves_every_size_up_to_its_own():
    memory, like = Memory(), torch.zeros(1)
    memory["logits"] = first = memory.take("logits", (6, 10), like)
    for rows in (2, 6, 3):
        memory["logits"] = again = memory.take("logits", (rows, 10), like)
        assert again.shape == (rows, 10) and again.data_ptr() == first.data_ptr()
    larger = memory.take("logits", (7, 10), like)
    larger.fill_(1)
    assert larger.shape == (7, 10) and larger.data_ptr() != first.data_ptr()


@pytest.mark.parametrize("rows", [1, 40])
def test_int8_products_are_off_by_a_percent_and_small_layers_are_left_alone(rows):
    torch.manual_seed(rows)
    packed, large, small = PackedWeights(), nn.Linear(512, 700), nn.Linear(64, 64)
    packed.int8 = True
    with torch.no_grad():
        large.weight[3] *= 100  # one scale for each output: a large row costs the others nothing
        for x in (torch.randn(rows, 512), torch.rand(rows, 512) + 5, torch.zeros(rows, 512)):
            size = x.norm(dim=1)[:, None] * large.weight.norm(dim=1) + 1e-6  # of the vectors multiplied
            error = (packed(x, large) - large(x)).abs() / size
            assert error.max() < 0.02 and error.square().mean().sqrt() < 0.003
        x = torch.randn(rows, 64)
        assert torch.allclose(packed(x, small), small(x), atol=1e-6)
        packed.int8 = False
        assert torch.allclose(packed(torch.ones(rows, 512), large), large(torch.ones(rows, 512)), atol=1e-2)
