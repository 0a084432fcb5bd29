"""qk_finetune.py: exactly the named tensors move."""
import re

import pytest
import torch

from model import MBart
from plumbing.files import UserError
from qk_finetune import (
    RECIPES,
    LoRALinear,
    add_lora,
    apply_recipe,
    check_fresh,
    describe,
    merged_state,
    moves_encoder,
    needed_by,
    parameters_by_recipe,
    sides_of,
)
from tools.new_language import new_language

EMBEDDINGS = ("shared", "embed_positions", "layernorm_embedding")


def expected(recipe, name):
    """The paper's tables said a second time, in other words than the recipes' expressions."""
    embedding = any(part in name for part in EMBEDDINGS)
    reads_source = (".encoder.layers" in name and "self_attn." in name) or "encoder_attn." in name
    cross = "encoder_attn" in name
    layer = not embedding and "embed_tokens" not in name
    projection = name.split(".")[-2]
    source = "encoder.embed" in name or "encoder.layernorm_embedding" in name
    target = "shared" in name or "decoder.embed" in name or "decoder.layernorm_emb" in name
    said = {
        "full": not embedding,
        "full+embeddings": True,
        "frozen_decoder": name.startswith("model.encoder.") and not embedding,
        "attn_ln": reads_source or ("norm" in name and not embedding),
        "vqk": reads_source and projection in ("v_proj", "q_proj", "k_proj"),
        "qk": reads_source and projection in ("q_proj", "k_proj"),
        "q": reads_source and projection == "q_proj",
        "adv_tuned": name.startswith("model.decoder.") and not embedding,
        "lora": name.endswith(("lora_a", "lora_b")),
        "src": source,
        "src+xattn": source or cross,
        "src+body": source or layer,
        "tgt": target,
        "tgt+xattn": target or cross,
        "tgt+body": target or layer,
        "both": source or target,
        "both+xattn": source or target or cross,
        "both+body": True,
        "emb": embedding,
        "emb+xattn": embedding or cross,
    }
    return said[recipe]


def prepared(model, recipe):
    """The model that a recipe needs: with LoRA's additions, or a new language's embeddings."""
    if recipe == "lora":
        add_lora(model)
    for side in sides_of(recipe):
        model = new_language(model, side, 300)
    return model


@pytest.mark.parametrize("recipe", RECIPES)
def test_exactly_the_recipes_tensors_move_in_real_steps(small, recipe):
    torch.manual_seed(0)
    model = prepared(MBart.from_pretrained(small), recipe)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = apply_recipe(model, recipe)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-2, weight_decay=0.01)
    sources = model.source_table().size(0)
    for _ in range(3):
        # Positions reach the table's end and the tokens its whole vocabulary, so that every tensor
        # gets a gradient.
        source = torch.randint(4, sources, (4, 20))
        target = torch.randint(4, model.config.vocab_size, (4, 12))
        model.loss(source, target, target.roll(-1, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == set(names) == {name for name in before if expected(recipe, name)}


def test_the_recipes_are_nested_as_the_paper_orders_them(small):
    model = MBart.from_pretrained(small)
    trained = {}
    for recipe in RECIPES:
        if not sides_of(recipe):
            trained[recipe] = set(apply_recipe(model, recipe))
    assert trained["q"] < trained["qk"] < trained["vqk"] < trained["attn_ln"] < trained["full"]
    assert trained["frozen_decoder"] < trained["full"] < trained["full+embeddings"]


def test_the_table_counts_what_trains(run, small):
    model = MBart.from_pretrained(small)
    apply_recipe(model, "qk")
    table = describe(model)
    last = table.splitlines()[-1]
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    # 2+2 layers x (q, k) x (weight, bias)
    assert f"{count:,}" in last and re.search(r"\b16 of \d+", last)
    done = run("qk_finetune.py", small, "qk")
    assert done.returncode == 0 and done.stdout.strip() == table, done.stderr


def test_every_recipe_is_counted_without_making_a_model(small):
    model = MBart.from_pretrained(small)
    counts = parameters_by_recipe(model.config, rank=4)
    assert list(counts) == list(RECIPES)
    apply_recipe(model, "vqk")
    whole = sum(p.numel() for p in model.parameters())
    assert counts["vqk"] == (whole, sum(p.numel() for p in model.parameters() if p.requires_grad))
    child = new_language(model, "src", model.config.vocab_size)
    names = apply_recipe(child, "src+xattn")
    assert counts["src+xattn"][1] == sum(child.get_parameter(name).numel() for name in names)
    add_lora(model, rank=4)
    names = apply_recipe(model, "lora")
    assert counts["lora"][1] == sum(model.get_parameter(name).numel() for name in names)


def test_an_unknown_recipe_is_an_error_that_lists_them(small):
    with pytest.raises(UserError, match="frozen_decoder"):
        apply_recipe(MBart.from_pretrained(small), "kq")


def test_lora_starts_as_the_model_it_adapts_and_saves_as_plain_mbart(small, tmp_path):
    model = MBart.from_pretrained(small).eval()
    names = [name for name, _ in model.named_parameters()]
    source, target = torch.randint(4, 300, (3, 12)), torch.randint(4, 300, (3, 7))
    plain = model(source, target)
    add_lora(model, rank=4)
    assert torch.equal(model(source, target), plain)
    assert [name for name, _ in model.named_parameters() if "lora" not in name] == names
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


def test_lora_adds_its_scaled_product_and_drops_only_its_own_input():
    torch.manual_seed(0)
    plain = torch.nn.Linear(6, 5).eval()
    adapted = LoRALinear(plain, rank=2, alpha=8, dropout=0.5)
    torch.nn.init.normal_(adapted.lora_b)
    assert adapted.weight is plain.weight and adapted.bias is plain.bias
    x = torch.randn(3, 6)
    wanted = plain(x) + 4 * x @ adapted.lora_a.T @ adapted.lora_b.T
    assert torch.allclose(adapted(x), wanted, atol=1e-5)
    adapted.train()
    assert not torch.allclose(adapted(x), wanted, atol=1e-2)
    assert torch.allclose(adapted(0 * x), plain.bias.expand(3, 5))


def test_lora_adapts_the_named_projections_alone(small):
    model = MBart.from_pretrained(small)
    add_lora(model, projections=["q_proj", "fc1"])
    adapted = {n.split(".")[-2] for n, _ in model.named_parameters() if "lora" in n}
    assert adapted == {"q_proj", "fc1"}
    with pytest.raises(UserError, match="out_proj"):
        add_lora(model, projections=["query"])


def test_an_encoder_with_its_own_table_does_not_need_the_shared_one(small):
    model = new_language(MBart.from_pretrained(small), "src", 300)
    needed = {name for name, _ in model.named_parameters() if needed_by(name, 1, untied=True)}
    model.encode(torch.randint(4, 300, (2, 9)), upto=1).sum().backward()
    assert needed == {name for name, p in model.named_parameters() if p.grad is not None}
    assert needed_by("model.shared.weight", 1)


@pytest.mark.parametrize("untied", [False, True])
@pytest.mark.parametrize("layer", [1, 2, None])
def test_the_encoder_moves_by_the_parameters_that_get_a_gradient(small, untied, layer):
    model = MBart.from_pretrained(small)
    if untied:
        model = new_language(model, "src", 300)
    model.encode(torch.randint(4, 300, (2, 9)), upto=layer).sum().backward()
    for name, parameter in model.named_parameters():
        moves = moves_encoder([name], model.config, layer)
        assert moves == (parameter.grad is not None), name
    assert not moves_encoder(apply_recipe(model, "adv_tuned"), model.config, layer)
    assert moves_encoder(apply_recipe(model, "qk"), model.config, layer)
    assert moves_encoder(["model.encoder.layer_norm.bias"], model.config, layer) == (layer is None)


def accepted_where_fresh(fresh):
    accepted = set()
    for recipe in RECIPES:
        try:
            check_fresh(recipe, fresh)
        except UserError:
            continue
        accepted.add(recipe)
    return accepted


def test_a_recipe_that_trains_the_fresh_table_is_accepted_and_no_other():
    both = {"both", "both+xattn", "both+body", "full+embeddings"}
    source = {"src", "src+xattn", "src+body"}
    target = {"tgt", "tgt+xattn", "tgt+body", "emb", "emb+xattn"}
    assert accepted_where_fresh("src") == accepted_where_fresh(["src"]) == source | both
    assert accepted_where_fresh("tgt") == target | both
    assert accepted_where_fresh(["src", "tgt"]) == both
    with pytest.raises(UserError, match=r"fresh src embeddings frozen; use both, both\+xattn, "):
        check_fresh("tgt+body", ["src", "tgt"])


def test_a_new_sources_recipe_needs_the_new_source(small):
    with pytest.raises(UserError, match="tools.new_language"):
        apply_recipe(MBart.from_pretrained(small), "src+xattn")
