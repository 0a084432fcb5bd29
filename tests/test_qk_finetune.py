"""qk_finetune.py: exactly the named tensors move."""
import re

import pytest
import torch

from model import MBart, UserError
from qk_finetune import RECIPES, apply_recipe, describe

EMBEDDINGS = ("shared", "embed_positions", "layernorm_embedding")


def expected(recipe, name):
    """METHODS A2 said a second time, in other words than the recipes' regular expressions."""
    embedding = any(part in name for part in EMBEDDINGS)
    attention = (".encoder.layers" in name and "self_attn." in name) or "encoder_attn." in name
    projection = name.split(".")[-2]
    return {
        "full": not embedding, "full+embeddings": True,
        "frozen_decoder": name.startswith("model.encoder.") and not embedding,
        "attn_ln": attention or ("norm" in name and not embedding),
        "vqk": attention and projection in ("v_proj", "q_proj", "k_proj"),
        "qk": attention and projection in ("q_proj", "k_proj"),
        "q": attention and projection == "q_proj",
        "adv_tuned": name.startswith("model.decoder.") and not embedding,
    }[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_exactly_the_recipes_tensors_move_in_real_steps(small, recipe):
    torch.manual_seed(0)
    model = MBart.from_pretrained(small)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = apply_recipe(model, recipe)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2, weight_decay=0.01)
    vocab = model.config.vocab_size
    for _ in range(3):
        # positions reach the table's end and the tokens its whole vocabulary, so that every tensor gets a gradient
        source, target = torch.randint(4, vocab, (4, 20)), torch.randint(4, vocab, (4, 12))
        model.loss(source, target, target.roll(-1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(names) == {name for name in before if expected(recipe, name)}


def test_the_recipes_are_nested_as_the_paper_orders_them(small):
    model = MBart.from_pretrained(small)
    trained = {recipe: set(apply_recipe(model, recipe)) for recipe in RECIPES}
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
