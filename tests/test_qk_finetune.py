"""qk_finetune.py: exactly the named tensors move."""
import re

import pytest
import torch

from model import MBart
from plumbing.files import UserError
from qk_finetune import RECIPES, SIDES, add_lora, apply_recipe, describe, merged_state, new_language

EMBEDDINGS = ("shared", "embed_positions", "layernorm_embedding")


def expected(recipe, name):
    """METHODS A2 said a second time, in other words than the recipes' regular expressions."""
    embedding = any(part in name for part in EMBEDDINGS)
    attention = (".encoder.layers" in name and "self_attn." in name) or "encoder_attn." in name
    projection = name.split(".")[-2]
    said = {
        "full": not embedding, "full+embeddings": True,
        "frozen_decoder": name.startswith("model.encoder.") and not embedding,
        "attn_ln": attention or ("norm" in name and not embedding),
        "vqk": attention and projection in ("v_proj", "q_proj", "k_proj"),
        "qk": attention and projection in ("q_proj", "k_proj"),
        "q": attention and projection == "q_proj",
        "adv_tuned": name.startswith("model.decoder.") and not embedding,
        "lora": name.endswith(("lora_a", "lora_b")), "scratch": True,
        "emb": embedding, "emb+xattn": embedding or "encoder_attn" in name,
        "emb+randxattn": embedding or "encoder_attn" in name,
    } | {
        side + rest: bool(ours(name) or more)
        for side, ours in (("src", lambda n: "encoder.embed" in n or "encoder.layernorm_embedding" in n),
                           ("tgt", lambda n: "shared" in n or "decoder.embed" in n or "decoder.layernorm_emb" in n))
        for rest, more in (("", False), ("+xattn", "encoder_attn" in name), ("+randxattn", "encoder_attn" in name),
                           ("+body", not embedding and "embed_tokens" not in name))
    }
    return said[recipe]


def prepared(model, recipe):
    """The model as train.py prepares it for a recipe: LoRA's additions, or a new language's embeddings."""
    if recipe == "lora":
        add_lora(model)
    side = recipe.split("+")[0]
    return new_language(model, side, 300, recipe) if side in SIDES else model


@pytest.mark.parametrize("recipe", RECIPES)
def test_exactly_the_recipes_tensors_move_in_real_steps(small, recipe):
    torch.manual_seed(0)
    model = prepared(MBart.from_pretrained(small), recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = apply_recipe(model, recipe)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2, weight_decay=0.01)
    sources = model.source_table().size(0)
    for _ in range(3):
        # positions reach the table's end and the tokens its whole vocabulary, so that every tensor gets a gradient
        source, target = torch.randint(4, sources, (4, 20)), torch.randint(4, model.config.vocab_size, (4, 12))
        model.loss(source, target, target.roll(-1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(names) == {name for name in before if expected(recipe, name)}


def test_the_recipes_are_nested_as_the_paper_orders_them(small):
    model = MBart.from_pretrained(small)
    trained = {recipe: set(apply_recipe(model, recipe)) for recipe in RECIPES if recipe[:3] not in ("src", "tgt")}
    assert trained["q"] < trained["qk"] < trained["vqk"] < trained["attn_ln"] < trained["full"]
    assert trained["frozen_decoder"] < trained["full"] < trained["full+embeddings"]


def test_the_table_counts_what_trains(small):
    model = MBart.from_pretrained(small)
    apply_recipe(model, "qk")
    last = describe(model).splitlines()[-1]
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f"{count:,}" in last and re.search(r"\b16 of \d+", last)  # 2+2 layers x (q, k) x (weight, bias)


def test_an_unknown_recipe_is_an_error_that_lists_them(small):
    with pytest.raises(UserError, match="frozen_decoder"):
        apply_recipe(MBart.from_pretrained(small), "kq")


def test_lora_starts_as_the_model_it_adapts_and_saves_as_plain_mbart(small, tmp_path):
    model = MBart.from_pretrained(small).eval()
    source, target = torch.randint(4, 300, (3, 12)), torch.randint(4, 300, (3, 7))
    plain = model(source, target)
    add_lora(model, rank=4, alpha=8)
    assert torch.equal(model(source, target), plain)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(0, 0.1)
    adapted = model(source, target)
    assert (adapted - plain).abs().max() > 1e-2
    model.save_pretrained(tmp_path, merged_state(model))
    again = MBart.from_pretrained(tmp_path).eval()
    assert set(again.state_dict()) == set(MBart.from_pretrained(small).state_dict())
    assert torch.allclose(again(source, target), adapted, atol=1e-5)


def test_lora_adapts_the_named_projections_alone(small):
    model = MBart.from_pretrained(small)
    add_lora(model, projections=["q_proj", "fc1"])
    assert {n.split(".")[-2] for n, _ in model.named_parameters() if "lora" in n} == {"q_proj", "fc1"}
    with pytest.raises(UserError, match="out_proj"):
        add_lora(model, projections=["query"])


@pytest.mark.parametrize("side", ["src", "tgt"])
def test_a_new_language_changes_its_own_side_alone(small, side):
    parent = MBart.from_pretrained(small).eval()
    old = parent.state_dict()
    child = new_language(parent, side, 123, f"{side}+xattn").eval()
    state = child.state_dict()
    sizes = child.source_table().size(0), child.model.shared.weight.size(0), child.final_logits_bias.size(1)
    vocab = parent.config.vocab_size
    assert sizes == ((123, vocab, vocab) if side == "src" else (vocab, 123, 123))
    same = {name for name in old if name in state and old[name].shape == state[name].shape
            and torch.equal(old[name], state[name])}
    layers = {name for name in old if ".layers." in name or ".layer_norm." in name}
    assert layers <= same
    stack = "encoder" if side == "src" else "decoder"
    assert f"model.{stack}.embed_positions.weight" not in {n for n in same if parent.config.init_std == 0}
    if side == "src":  # the decoder is the parent's: given the same states, it says the same
        ids, states = torch.randint(4, 300, (2, 6)), torch.randn(2, 5, 32)
        source = torch.full((2, 5), 7)
        assert torch.equal(parent.decode(ids, states, source), child.decode(ids, states, source))
    else:
        source = torch.randint(4, 300, (2, 6))
        assert torch.equal(parent.encode(source), child.encode(source))


def test_the_random_cross_attention_control_draws_it_anew(small):
    parent = MBart.from_pretrained(small)
    child = new_language(parent, "src", 50, "src+randxattn").state_dict()
    for name, tensor in parent.state_dict().items():
        if "encoder_attn.q_proj.weight" in name:
            assert not torch.equal(tensor, child[name])
        elif ".layers." in name and "encoder_attn" not in name:
            assert torch.equal(tensor, child[name])


def test_a_new_sources_recipe_needs_the_new_source(small):
    with pytest.raises(UserError, match="--new-source"):
        apply_recipe(MBart.from_pretrained(small), "src+xattn")
