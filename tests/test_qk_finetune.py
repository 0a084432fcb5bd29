"""qk_finetune.py: exactly the named tensors move."""
import json
import math
import re

import pytest
import torch
from test_train import QUICK, same_weights

from model import Config, MBart
from plumbing.files import UserError
from qk_finetune import (
    RECIPES,
    LoRALinear,
    add_lora,
    apply_recipe,
    check_fresh,
    count_parameters,
    describe,
    merged_state,
    moves_encoder,
    needed_by,
    sides_of,
    trained_share,
)
from tools.folders import write_like
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


def prepared(model, recipe, layers=None):
    """The model that a recipe needs: with LoRA's additions, or a new language's embeddings."""
    if recipe == "lora":
        add_lora(model, layers=layers)
    for side in sides_of(recipe):
        model = new_language(model, side, 300)
    return model


def moved_in_real_steps(model, recipe, layers=None):
    """The names of the parameters that differ after three steps; checks that they are those that
    apply_recipe() names."""
    torch.manual_seed(0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    names = apply_recipe(model, recipe, layers)
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
    assert moved == set(names)
    return moved


@pytest.mark.parametrize("recipe", RECIPES)
def test_exactly_the_recipes_tensors_move_in_real_steps(small, recipe):
    model = prepared(MBart.from_pretrained(small), recipe)
    wanted = {name for name, _ in model.named_parameters() if expected(recipe, name)}
    assert moved_in_real_steps(model, recipe) == wanted


def test_exactly_what_an_expression_is_found_in_moves_in_real_steps(small):
    moved = moved_in_real_steps(
        MBart.from_pretrained(small), r"decoder.*encoder_attn\.[qk]_proj\.weight"
    )
    cross = "model.decoder.layers.{}.encoder_attn.{}_proj.weight"
    assert moved == {cross.format(layer, kind) for layer in (0, 1) for kind in "qk"}
    moved = moved_in_real_steps(MBart.from_pretrained(small), "embed_positions")
    assert moved == {f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")}


@pytest.mark.parametrize("recipe, layers, numbers", [
    ("qk", "1", (0,)), ("qk", "2-2", (1,)), ("full", "1-2", (0, 1)), ("lora", "2", (1,)),
    ("full+embeddings", "1", (0,)), ("src+body", "2", (1,)), (r"_proj\.bias", "2", (1,)),
])
def test_only_what_stands_in_the_layers_moves_in_real_steps(small, recipe, layers, numbers):
    model = prepared(MBart.from_pretrained(small), recipe, layers)
    wanted = set()
    for name, _ in model.named_parameters():
        found = name.endswith("_proj.bias") if recipe not in RECIPES else expected(recipe, name)
        if found and any(f".layers.{number}." in name for number in numbers):
            wanted.add(name)
    assert wanted and moved_in_real_steps(model, recipe, layers) == wanted
    assert {name.split(".")[1] for name in wanted} == {"encoder", "decoder"}


def test_lora_in_some_layers_adds_nothing_elsewhere_and_is_saved_as_plain_mbart(small):
    model = MBart.from_pretrained(small)
    plain = model.state_dict()
    add_lora(model, layers="2")
    adapted = {name for name, module in model.named_modules() if isinstance(module, LoRALinear)}
    assert len(adapted) == 6 + 10 and all(".layers.1." in name for name in adapted)
    moved_in_real_steps(model, "lora", "2")
    state = merged_state(model)
    changed = {name for name in plain if not torch.equal(state[name], plain[name])}
    assert state.keys() == plain.keys()
    assert changed == {f"{name}.weight" for name in adapted}


def test_the_recipes_are_nested_as_the_paper_orders_them(small):
    model = MBart.from_pretrained(small)
    trained = {}
    for recipe in RECIPES:
        if recipe != "lora" and not sides_of(recipe):
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


def test_the_table_counts_what_an_expression_trains_in_some_layers(run, small):
    done = run("qk_finetune.py", small, "encoder.*self_attn", "--layers", 2)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    counts = dict(re.findall(r"^(encoder self-attention \w+) +(\d+ of \d+)", done.stdout, re.M))
    assert set(counts.values()) == {"2 of 4"} and len(counts) == 4
    # q, k, v and out (32 x 32 + 32), and the layer norm before them (2 x 32)
    whole = sum(p.numel() for p in MBart.from_pretrained(small).parameters())
    trained = 4 * (32 * 32 + 32) + 2 * 32
    assert f" {trained:,} " in rows[-1] and rows[-1].endswith(f" {trained / whole:.1%}")
    norms = next(row for row in rows if row.startswith("encoder layer norms"))
    assert norms.endswith(" <0.1%")
    assert all(row.endswith("frozen") for row in rows if row.startswith(("decoder", "cross")))


def test_every_recipe_is_counted_without_making_a_model(small):
    model = MBart.from_pretrained(small)
    counts = {recipe: count_parameters(model.config, recipe) for recipe in RECIPES}
    names = apply_recipe(model, "vqk")
    assert counts["vqk"].parameters == sum(p.numel() for p in model.parameters())
    child = new_language(model, "src", model.config.vocab_size)
    child_names = apply_recipe(child, "src+xattn")
    adapted = MBart.from_pretrained(small)
    add_lora(adapted)
    for recipe, trained, its_names in (
        ("vqk", model, names),
        ("src+xattn", child, child_names),
        ("lora", adapted, apply_recipe(adapted, "lora")),
    ):
        expected = sum(trained.get_parameter(name).numel() for name in its_names)
        assert counts[recipe].training_parameters == expected, recipe


def test_the_share_that_trains_is_that_of_the_parameters_and_allocates_nothing(small):
    model = MBart.from_pretrained(small)
    names = apply_recipe(model, "encoder_attn", "2")
    trained = sum(model.get_parameter(name).numel() for name in names)
    whole = sum(p.numel() for p in model.parameters())
    config = model.config
    assert trained_share(config, "encoder_attn", "2") == trained / whole
    layers = trained_share(config, "qk", "1") + trained_share(config, "qk", "2")
    assert layers == pytest.approx(trained_share(config, "qk"))
    assert trained_share(config, "full+embeddings") == 1
    # Rank 8: of each of 4 layers q, k, v and out, twice where there is cross-attention; fc1, fc2.
    added = 8 * (6 * 4 * (32 + 32) + 4 * 2 * (32 + 64))
    assert trained_share(config, "lora") == pytest.approx(added / (whole + added))
    huge = Config(vocab_size=10**9)  # its table has 4 TB
    assert 0 < trained_share(huge, "qk", "12") < 1e-5


@pytest.mark.parametrize("recipe, layers, said", [
    ("qkk", None, r"unknown recipe 'qkk', did you mean qk\? .*frozen_decoder, .* in no "
                  r"parameter's name; three of them: model\.shared\.weight(, model\.\S+){2}$"),
    ("adv", None, r"unknown recipe 'adv' \("),
    ("src+xatn", None, r"did you mean src\+xattn\?"),
    ("encoder_atn", "1", "found in no parameter's name"),
    ("qk(", None, r"'qk\(' is no regular expression \(missing \)"),
    ("a{99999999999999999999}", None, "no regular expression"),
    ("", None, "is empty"),
    ("lora", None, "--recipe lora trains nothing"),  # without add_lora()
    ("qk", "3", "--recipe-layers 3: the model has layers 1 to 2"),
    ("qk", "1-12", "the model has layers 1 to 2"),
    ("emb", "1-2", "--recipe emb in layers 1-2 trains nothing"),
    ("qk", "0", "'0': write one number or FIRST-LAST"),
    ("qk", "2-1", "'2-1': write"),
    ("qk", "1,2", "'1,2': write"),
    ("qk", "", "'': write"),
])
def test_a_recipe_that_trains_nothing_is_an_error_that_says_why(small, recipe, layers, said):
    model = MBart.from_pretrained(small)
    with pytest.raises(UserError, match=said):
        apply_recipe(model, recipe, layers)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("words, said", [
    (("--recipe", "qk("), "no regular expression"),
    (("--recipe", "qk", "--recipe-layers", "2-1"), "write one number or FIRST-LAST"),
    (("--recipe", "qkk"), "did you mean qk?"),
    (("--recipe", "qk", "--recipe-layers", "3"), "layers 1 to 2"),
])
def test_both_programs_say_in_one_line_what_is_wrong_with_a_recipe(
    run, small, tmp_path, words, said
):
    trained = run("train.py", *QUICK, "--init", small, *words, "--out", tmp_path / "run")
    shown = run("qk_finetune.py", small, *words[1:])
    for done in (trained, shown):
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run" / "config.json").exists()


def test_help_names_the_recipes_and_an_expression(run):
    for program in ("train.py", "qk_finetune.py"):
        text = " ".join(run(program, "--help").stdout.split())
        assert all(re.search(rf"[ (]{re.escape(recipe)}[,)]", text) for recipe in RECIPES)
        assert r"'decoder.*encoder_attn\.[qk]_proj'" in text


@pytest.mark.parametrize("recipe, layers, count", [
    (r"decoder.*encoder_attn\.[qk]_proj", "2", 4), ("lora", "1", 16),
])
def test_a_run_with_an_expression_and_layers_resumes_bit_exactly_and_is_stored_as_what_trained(
    run, small, tmp_path, recipe, layers, count
):
    options = (
        *QUICK, "--init", small, "--steps", 4, "--eval-every", 2, "--lr", 1e-2, "--dropout", 0.1,
        "--recipe", recipe, "--recipe-layers", layers,
    )
    done = run("train.py", *options, "--out", tmp_path / "whole")
    assert done.returncode == 0 and f"recipe {recipe} in layer {layers}, on" in done.stdout
    cut = tmp_path / "cut"
    assert run("train.py", *options, "--out", cut, "--stop-at", 1).returncode == 0
    settings = json.loads((cut / "args.json").read_text())
    assert (settings["recipe"], settings["recipe_layers"]) == (recipe, layers)
    done = run("train.py", "--resume", cut, "--recipe-layers", "1-2")
    assert done.returncode == 2 and "leave out --recipe-layers" in done.stderr
    done = run("train.py", "--resume", cut, "--recipe", recipe, "--recipe-layers", layers)
    assert done.returncode == 0, done.stderr
    assert same_weights(cut, tmp_path / "whole") and not same_weights(cut, small)
    done = run("-m", "tools.delta", "save", cut, small, tmp_path / "delta")
    assert done.returncode == 0 and f": {count} tensors, " in done.stdout, done.stderr


@pytest.mark.parametrize("rank", [2, 5])
def test_lora_adds_twice_its_product_whatever_the_rank(small, rank):
    """alpha is twice the rank, so alpha / rank is 2."""
    model = MBart.from_pretrained(small)
    add_lora(model, rank=rank)
    layer = model.model.encoder.layers[0].fc1
    with torch.no_grad():
        layer.lora_b.normal_()
        expected = layer.weight + 2 * layer.lora_b @ layer.lora_a
    merged = merged_state(model)["model.encoder.layers.0.fc1.weight"]
    torch.testing.assert_close(merged, expected)


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


def test_loras_first_matrix_is_uniform_within_one_over_the_root_of_its_inputs():
    torch.manual_seed(0)
    adapted = LoRALinear(torch.nn.Linear(64, 5), rank=200, alpha=400, dropout=0.0)
    bound = 1 / math.sqrt(64)
    assert 0.99 * bound < adapted.lora_a.abs().max() <= bound
    assert adapted.lora_a.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert not adapted.lora_b.any()


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
    check_fresh("embed|shared", ["tgt", "src"])
    with pytest.raises(UserError, match=r"fresh src embeddings frozen; use both, both\+xattn, "):
        check_fresh("tgt+body", ["src", "tgt"])
    with pytest.raises(UserError, match="src in layer 1 .* use src, .* leave out --recipe-layers"):
        check_fresh("src", "src", "1")
    with pytest.raises(UserError, match="fresh tgt"):
        check_fresh("_proj", "tgt")


def test_training_refuses_what_leaves_a_fresh_side_frozen(run, small, tmp_path):
    parent = MBart.from_pretrained(small)
    start = tmp_path / "start"
    write_like(small, start, parent.state_dict(), settings={"fresh": ["src", "tgt"]})
    options = (*QUICK, "--init", start, "--out", tmp_path / "run")
    for words in (("src+body",), ("both", "--recipe-layers", "1"), ("encoder",)):
        done = run("train.py", *options, "--recipe", *words)
        assert done.returncode == 2 and "embeddings frozen; use both, " in done.stderr, done.stderr


def test_a_new_sources_recipe_needs_the_new_source(small):
    with pytest.raises(UserError, match="tools.new_language"):
        apply_recipe(MBart.from_pretrained(small), "src+xattn")


def test_embeddings_of_both_sides_are_not_those_that_a_model_shares(small):
    model = new_language(MBart.from_pretrained(small), "src", 50)
    for recipe in ("emb", "emb+xattn"):
        with pytest.raises(UserError, match="this model has some for each side: name a recipe of"):
            apply_recipe(model, recipe)
        assert apply_recipe(MBart.from_pretrained(small), recipe)
