"""tools/new_language.py: folders from which a new language is learned."""
import json
import math
import shutil

import pytest
import torch
import torch.nn.functional as F

from model import MBart, sinusoids
from plumbing.files import UserError
from plumbing.runs import has_new_source, latest_run, read_settings, write_settings
from qk_finetune import apply_recipe
from tokenizer import Tokenizer
from tools.new_language import graft, new_language, random_cross_attention

FRESH = ("-m", "tools.new_language", "fresh")
OTHER = ("-m", "tools.new_language", "random-cross-attention")
GRAFT = ("-m", "tools.new_language", "graft")
TRAIN = ("--stage", "translate", "--steps", 2, "--tokens", 300, "--valid-examples", 2, "--no-eval",
         "--device", "cpu")


@pytest.fixture(autouse=True)
def few_texts(monkeypatch):
    """A vocabulary of 300 pieces needs no more."""
    monkeypatch.setattr("tools.new_language.EXAMPLES", 500)


@pytest.mark.parametrize("side", ["src", "tgt"])
def test_a_new_language_changes_its_own_side_alone(small, side):
    parent = MBart.from_pretrained(small).eval()
    old = parent.state_dict()
    child = new_language(parent, side, 123).eval()
    state = child.state_dict()
    sizes = (child.source_table().size(0), child.model.shared.weight.size(0),
             child.final_logits_bias.size(1))
    vocab = parent.config.vocab_size
    assert sizes == ((123, vocab, vocab) if side == "src" else (vocab, 123, 123))
    same = {
        name for name in old
        if name in state and old[name].shape == state[name].shape
        and torch.equal(old[name], state[name])
    }
    layers = {name for name in old if ".layers." in name or ".layer_norm." in name}
    assert layers <= same
    positions = {name for name in same if "embed_positions" in name}
    kept = "decoder" if side == "src" else "encoder"
    assert positions == {f"model.{kept}.embed_positions.weight"}
    if side == "src":  # the decoder is the parent's: given the same states, it says the same
        ids, states = torch.randint(4, 300, (2, 6)), torch.randn(2, 5, 32)
        source = torch.full((2, 5), 7)
        assert torch.equal(parent.decode(ids, states, source), child.decode(ids, states, source))
    else:
        source = torch.randint(4, 300, (2, 6))
        assert torch.equal(parent.encode(source), child.encode(source))


def likeness(a, b):
    """The mean cosine of two tables' positions, whose first two rows are never read."""
    return F.cosine_similarity(a[2:], b[2:], dim=1).mean().item()


def test_waves_are_sines_then_cosines_whose_lengths_grow_to_10000():
    waves = sinusoids(9, 8)
    for row in range(9):
        for column in range(4):
            angle = row / 10_000 ** (2 * column / 8)
            assert waves[row, column].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert waves[row, 4 + column].item() == pytest.approx(math.cos(angle), abs=1e-6)


def test_new_positions_are_drawn_and_are_neither_the_parents_nor_waves(small):
    parent = MBart.from_pretrained(small)
    old = parent.model.encoder.embed_positions.weight
    waves = sinusoids(*old.shape)
    assert likeness(old, waves) > 0.99  # as a model begins that was not made here
    one = new_language(parent, "src", 50, seed=1).model
    again = new_language(parent, "src", 50, seed=1).model
    other = new_language(parent, "src", 50, seed=2).model
    writer = new_language(parent, "tgt", 50, seed=1).model
    scratch = new_language(parent, "src", 50, seed=1, scratch=True).model
    new = one.encoder.embed_positions.weight
    assert torch.equal(new, again.encoder.embed_positions.weight)
    drawn = [
        new,
        other.encoder.embed_positions.weight,
        writer.decoder.embed_positions.weight,
        scratch.decoder.embed_positions.weight,
    ]
    tokens = one.encoder.embed_tokens.weight * 32 ** 0.5  # as the encoder adds them to positions
    for number, positions in enumerate(drawn):
        assert positions[2:].std().item() == pytest.approx(tokens.std().item(), rel=0.05)
        for stranger in (old, waves, *drawn[:number]):
            assert abs(likeness(positions, stranger)) < 0.05
    assert torch.equal(scratch.encoder.embed_positions.weight, new)


def test_two_sides_that_are_drawn_with_one_seed_begin_apart(small):
    parent = new_language(MBart.from_pretrained(small), "tgt", 40)
    reader = new_language(parent, "src", 60, seed=3)
    writer = new_language(reader, "tgt", 100, seed=3)
    assert torch.equal(writer.source_table(), reader.source_table())
    own = F.normalize(writer.source_table(), dim=1)
    assert (own @ F.normalize(writer.model.shared.weight, dim=1).T).max() < 0.9


def test_the_random_cross_attention_control_draws_it_anew(small):
    parent = MBart.from_pretrained(small)
    other = MBart.from_pretrained(small)
    random_cross_attention(other, seed=1)
    fresh = new_language(parent, "src", 50, cross_attention="random")
    for child in (fresh.state_dict(), other.state_dict()):
        for name, tensor in parent.state_dict().items():
            if "encoder_attn.q_proj.weight" in name:
                assert not torch.equal(tensor, child[name])
            elif ".layers." in name and "encoder_attn" not in name:
                assert torch.equal(tensor, child[name])


def test_a_model_from_scratch_has_nothing_of_its_parent(small):
    parent = MBart.from_pretrained(small)
    child = new_language(parent, "tgt", 50, scratch=True)
    for name, parameter in parent.named_parameters():
        if ".layers." in name and parameter.dim() == 2:
            assert not torch.equal(parameter, child.get_parameter(name))
    assert child.config.vocab_size == 50


def test_a_graft_is_the_body_with_the_donors_embeddings_on_one_side(small):
    parent = MBart.from_pretrained(small).eval()
    child = new_language(parent, "src", 60, seed=3).eval()
    with torch.no_grad():
        child.model.decoder.layers[0].encoder_attn.q_proj.weight.add_(0.1)
    back = graft(child, parent, "src").eval()
    source, target = torch.randint(4, 300, (2, 7)), torch.randint(4, 300, (2, 5))
    assert torch.equal(back.encode(source), parent.encode(source))  # the encoder never moved
    assert not torch.equal(back(source, target), parent(source, target))  # cross-attention did
    other = new_language(parent, "tgt", 50, seed=4).eval()
    stitched = graft(other, child, "src").eval()
    ids = torch.randint(4, 60, (2, 7))
    assert torch.equal(stitched.encode(ids), child.encode(ids)) and stitched.config.vocab_size == 50
    assert stitched(ids, torch.randint(4, 50, (2, 5))).shape == (2, 5, 50)
    wider = MBart.from_pretrained(small)
    wider.config.d_model = 64
    with pytest.raises(UserError, match="width, 32 and 64"):
        graft(parent, wider, "src")


def test_a_fresh_folder_trains_with_a_recipe_that_reaches_its_new_side_and_no_other(
    run, small, tmp_path
):
    out = tmp_path / "start"
    (tmp_path / "parent").mkdir()
    parent = MBart.from_pretrained(small)
    parent.drop_residual(1)
    parent.save_pretrained(tmp_path / "parent")
    Tokenizer.from_pretrained(small).save_pretrained(tmp_path / "parent")
    settings = tmp_path / "parent" / "args.json"
    settings.write_text('{"stage": "translate", "tagless": true}', encoding="utf-8")
    options = ("--source", "de_DE", "--pairs", "de_DE-en_XX", "--pieces", 300)
    done = run(*FRESH, tmp_path / "parent", out, *options)
    assert done.returncode == 0 and "next:" in done.stdout, done.stderr
    child, tokenizer = MBart.from_pretrained(out), Tokenizer.from_pretrained(out)
    assert child.config.source_vocab_size == tokenizer.source.vocab_size <= 300 + 27
    assert child.config.residual_drop_layer == 1
    assert json.loads((out / "args.json").read_text())["tagless"] is True
    assert tokenizer.piece_ids("map") == Tokenizer.from_pretrained(small).piece_ids("map")

    done = run("train.py", *TRAIN, "--init", out, "--out", tmp_path / "run", "--recipe", "src")
    assert done.returncode == 2 and "name them with --pairs" in done.stderr
    pairs = ("--pairs", "de_DE-en_XX", "--init", out, "--out", tmp_path / "run")
    done = run("train.py", *TRAIN, *pairs, "--recipe", "qk")
    assert done.returncode == 2 and "fresh src embeddings frozen" in done.stderr
    done = run("train.py", *TRAIN, *pairs, "--recipe", "src")
    assert done.returncode == 0, done.stderr
    trained = MBart.from_pretrained(tmp_path / "run").state_dict()
    moved = {n for n, x in child.state_dict().items() if not torch.equal(x, trained[n])}
    assert moved == set(apply_recipe(child, "src"))
    settings = json.loads((tmp_path / "run" / "args.json").read_text())
    assert settings["tagless"] is True and settings["learned"] == ["translate de_DE-en_XX"]

    options = ("--lang", "en_XX", "--examples", 1, "--max-new-tokens", 3, "--device", "cpu")
    done = run("eval.py", "--model", tmp_path / "run", *options)  # German is all that it reads
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines() if " -> en_XX" in line]
    assert rows == ["de_DE"]

    done = run("eval.py", "--model", out, *options)
    assert "embeddings as they were drawn" in done.stderr
    # So does whoever trains it on, whatever the recipe is called.
    more = ("--init", tmp_path / "run", "--recipe", "qk", "--out", tmp_path / "more")
    done = run("train.py", *TRAIN, "--pairs", "de_DE-en_XX", *more)
    assert done.returncode == 0, done.stderr
    done = run("eval.py", "--model", tmp_path / "more", *options)
    rows = [line.split()[0] for line in done.stdout.splitlines() if " -> en_XX" in line]
    assert rows == ["de_DE"]


def test_a_new_target_keeps_the_encoders_vocabulary(run, small, tmp_path):
    options = ("--target", "fr_XX", "--pairs", "en_XX-fr_XX", "--pieces", 300, "--scratch")
    done = run(*FRESH, small, tmp_path / "start", *options)
    assert done.returncode == 0, done.stderr
    new, old = Tokenizer.from_pretrained(tmp_path / "start"), Tokenizer.from_pretrained(small)
    assert new.source.encode("a map", "en_XX") == old.encode("a map", "en_XX")
    config = MBart.from_pretrained(tmp_path / "start").config
    assert config.vocab_size == new.vocab_size < old.vocab_size == config.source_vocab_size


def test_after_a_new_target_every_source_of_the_parent_is_scored(run, small, tmp_path):
    """Whatever the recipe of the last run is called."""
    pairs = ("--pairs", "en_XX-fr_XX")
    done = run(*FRESH, small, tmp_path / "start", "--target", "fr_XX", *pairs, "--pieces", 300)
    assert done.returncode == 0, done.stderr
    model = tmp_path / "start"
    for recipe in ("tgt+xattn", "qk"):
        out = tmp_path / recipe
        done = run("train.py", *TRAIN, *pairs, "--init", model, "--recipe", recipe, "--out", out)
        assert done.returncode == 0, done.stderr
        options = ("--lang", "fr_XX", "--examples", 1, "--max-new-tokens", 3, "--device", "cpu")
        done = run("eval.py", "--model", out, *options)
        rows = [line.split()[0] for line in done.stdout.splitlines() if " -> fr_XX" in line]
        assert rows == ["en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN"]
        model = out


def test_a_graft_reads_what_the_folder_with_its_source_reads(run, small, tmp_path):
    """Runs of earlier versions say what that is by their recipe alone."""
    pairs = ("--pairs", "de_DE-en_XX")
    child = tmp_path / "child"
    done = run(*FRESH, small, child, "--source", "de_DE", *pairs, "--pieces", 300)
    assert done.returncode == 0, done.stderr
    for folder, recipe in ((small, "qk"), (child, "src+xattn")):
        old = tmp_path / recipe
        shutil.copytree(folder, old)
        (old / "args.json").write_text(json.dumps({"stage": "translate", "recipe": recipe}))
    cases = [
        ("src+xattn", "qk", "src", False),  # the parent's source back in its child
        ("qk", "src+xattn", "src", True),
        ("src+xattn", "qk", "tgt", True),
    ]
    for number, (body, donor, side, is_new) in enumerate(cases):
        out = tmp_path / str(number)
        done = run(*GRAFT, tmp_path / body, tmp_path / donor, side, out)
        assert done.returncode == 0, done.stderr
        assert has_new_source(read_settings(out)) == is_new, (body, donor, side)


def test_a_graft_is_asked_about_the_languages_of_its_donors_source(run, small, tmp_path):
    """The body's were read through another vocabulary. Nor are the default languages trained."""
    folders = {}
    for source in ("de_DE", "fr_XX"):
        pair = f"{source}-en_XX"
        start = tmp_path / f"start {source}"
        done = run(*FRESH, small, start, "--source", source, "--pairs", pair, "--pieces", 300)
        assert done.returncode == 0, done.stderr
        folders[source] = tmp_path / source
        done = run(
            "train.py", "--stage", "translate", "--init", start, "--pairs", pair, "--recipe",
            "src", "--steps", 1, "--tokens", 300, "--valid-examples", 2, "--no-eval",
            "--out", folders[source],
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    stitched = tmp_path / "stitched"
    done = run(*GRAFT, folders["fr_XX"], folders["de_DE"], "src", stitched)
    assert done.returncode == 0, done.stderr
    words = ("--lang", "en_XX", "--examples", 2, "--max-new-tokens", 2, "--samples", 0)
    done = run("eval.py", "--model", stitched, *words)
    assert done.returncode == 0 and "de_DE -> en_XX" in done.stdout, done.stderr
    assert "fr_XX ->" not in done.stdout and "zero-shot" in done.stdout
    child = tmp_path / "child"
    train = ("train.py", "--stage", "translate", "--init", stitched, "--steps", 1, "--out", child)
    refused = run(*train)
    assert refused.returncode == 2 and "name them with --pairs" in refused.stderr
    done = run(*train, "--pairs", "de_DE-en_XX", "--valid-examples", 2, "--no-eval")
    assert done.returncode == 0, done.stderr
    assert read_settings(child)["sources"] == ["de_DE"]
    words = ("--source", "fr_XX", "--pairs", "fr_XX-en_XX", "--pieces", 300)
    done = run(*FRESH, child, tmp_path / "another source", *words)
    assert done.returncode == 0, done.stderr
    assert "--recipe src+xattn --pairs fr_XX-en_XX" in done.stdout
    assert "sources" not in read_settings(tmp_path / "another source"), "of another vocabulary"


def test_the_commands_that_keep_the_vocabulary_write_folders_too(run, small, tmp_path):
    done = run(*OTHER, small, tmp_path / "start", "--seed", 5)
    assert done.returncode == 0, done.stderr
    wanted = MBart.from_pretrained(small)
    random_cross_attention(wanted, seed=5)
    found = MBart.from_pretrained(tmp_path / "start").state_dict()
    assert all(torch.equal(found[name], x) for name, x in wanted.state_dict().items())
    done = run(*GRAFT, small, tmp_path / "start", "tgt", tmp_path / "graft")
    assert done.returncode == 0, done.stderr
    shutil.copytree(small, tmp_path / "run")
    learned = {"stage": "translate", "learned": ["translate en_XX-es_XX"], "tagless": True}
    write_settings(tmp_path / "run", learned)
    done = run(*OTHER, tmp_path / "run", tmp_path / "runs" / "drawn")
    assert done.returncode == 0, done.stderr
    settings = read_settings(tmp_path / "runs" / "drawn")
    assert settings["tagless"] and not settings["learned"] and "stage" not in settings
    with pytest.raises(UserError, match="there is no run in runs/ yet"):
        latest_run(("translate", "summarize"))
    model, tokenizer = (kind.from_pretrained(tmp_path / "graft") for kind in (MBart, Tokenizer))
    assert model.config.source_vocab_size == tokenizer.source.vocab_size


def test_what_was_made_is_made_again_but_no_run_and_no_parent_is_lost(run, small, tmp_path):
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "args.json").write_text('{"tagless": true}', encoding="utf-8")
    done = run(*GRAFT, small, small, "src", tmp_path / "start")
    assert done.returncode == 2 and "--overwrite" in done.stderr
    again = ("--overwrite",)
    assert run(*GRAFT, small, small, "src", tmp_path / "start", *again).returncode == 0
    assert Tokenizer.from_pretrained(tmp_path / "start").source.vocab_size
    done = run(*OTHER, small, tmp_path / "start")
    assert done.returncode == 2 and "has a model already; --overwrite" in done.stderr
    assert run(*OTHER, small, tmp_path / "start", *again).returncode == 0
    tokenizer = Tokenizer.from_pretrained(tmp_path / "start")
    assert tokenizer.source is tokenizer and not (tmp_path / "start" / "args.json").exists()
    before = (small / "model.safetensors").read_bytes()
    done = run(*OTHER, small, small, *again)
    assert done.returncode == 2 and "made from" in done.stderr
    assert (small / "model.safetensors").read_bytes() == before
    (tmp_path / "start" / "log.csv").touch()
    done = run(*GRAFT, small, small, "src", tmp_path / "start", *again)
    assert done.returncode == 2 and "is a training run" in done.stderr


def test_a_vocabulary_that_cannot_be_learned_costs_nothing_that_stood_there(run, small, tmp_path):
    out = tmp_path / "start"
    assert run(*OTHER, small, out).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    text = "".join(chr(0x4E00 + number) for number in range(900))
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.zh_CN").write_text(f"{text}\n", encoding="utf-8")
        (tmp_path / f"{split}.en_XX").write_text("A map.\n", encoding="utf-8")
    done = run(*FRESH, small, out, "--source", "zh_CN", "--pairs", "zh_CN-en_XX", "--pieces", 200,
               "--data", f"parallel:{tmp_path}", "--overwrite")
    assert done.returncode == 2 and "200 pieces are too few" in done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_what_is_asked_of_a_fresh_folder_is_what_is_made(run, small, tmp_path, monkeypatch):
    from tools import new_language as program

    opened = []
    made = []
    open_data, make = program.open_data, program.new_language

    def opening(*args, **options):
        opened.append(args[:6])
        return open_data(*args, **options)

    def making(model, side, size, *options):
        made.append((side, *options))
        return make(model, side, size, *options)

    monkeypatch.setattr(program, "open_data", opening)
    monkeypatch.setattr(program, "new_language", making)
    done = run(*FRESH, small, tmp_path / "start", "--source", "de_DE", "--pairs", "de_DE-en_XX",
               "--pieces", 300, "--cross-attention", "random", "--scratch", "--seed", 5)
    assert done.returncode == 0, done.stderr
    assert made == [("src", "random", True, 5)]
    (data, stage, split, pairs, _, seed), = opened
    assert (data, stage, split, pairs, seed) == (
        "builtin", "translate", "train", [("de_DE", "en_XX")], 5
    )


def test_on_files_the_next_command_keeps_the_small_preset_and_leaves_out_the_same_lines(
    run, small, tmp_path
):
    for split in ("train", "valid", "test"):
        for lang, text in (("de_DE", "die lehrerin fand im park "), ("en_XX", "a map of ")):
            lines = [f"{text}{number}\n" for number in range(30)]
            (tmp_path / f"{split}.{lang}").write_text("".join(lines), encoding="utf-8")
    done = run(*FRESH, small, tmp_path / "start", "--source", "de_DE", "--pairs", "de_DE-en_XX",
               "--pieces", 100, "--data", f"parallel:{tmp_path}", "--skip-bad-lines")
    assert done.returncode == 0, done.stderr
    told = f" --data parallel:{tmp_path} --skip-bad-lines --preset small"
    assert done.stdout.splitlines()[-1].endswith(told)


@pytest.mark.parametrize("options, complaint", [
    (("--source", "de_DE", "--pairs", "fr_XX-en_XX"), "no training pair has de_DE as its source"),
    (("--source", "de", "--pairs", "de-en_XX"), "did you mean de_DE"),
    (("--source", "sk_SK", "--pairs", "sk_SK-en_XX"), "may borrow the tag of one that you do not"),
    (("--target", "de_DE", "--pairs", "de_DE"), "write pairs as"),
    (("--target", "fr_XX", "--source", "de_DE", "--pairs", "de_DE-fr_XX"), "not allowed with"),
])
def test_what_cannot_be_made_is_explained(run, small, tmp_path, options, complaint):
    done = run(*FRESH, small, tmp_path / "start", *options)
    assert done.returncode == 2 and complaint in done.stderr
    assert not (tmp_path / "start").exists()


def test_a_graft_is_fresh_where_the_embeddings_that_it_took_are(run, small, tmp_path):
    fresh = tmp_path / "fresh"
    done = run(*FRESH, small, fresh, "--source", "de_DE", "--pairs", "de_DE-en_XX", "--pieces", 300)
    assert done.returncode == 0, done.stderr
    older = tmp_path / "older"  # a folder from when one name stood there
    shutil.copytree(fresh, older)
    (older / "args.json").write_text('{"fresh": "src"}', encoding="utf-8")
    both = tmp_path / "both"
    options = ("--target", "fr_XX", "--pairs", "de_DE-fr_XX", "--pieces", 300)
    done = run(*FRESH, older, both, *options)
    assert done.returncode == 0, done.stderr
    cases = [
        (fresh, small, "src", None),
        (older, small, "src", None),
        (small, fresh, "src", ["src"]),
        (small, older, "src", ["src"]),
        (small, older, "tgt", None),
        (both, small, "src", ["tgt"]),
        (both, small, "tgt", ["src"]),
        (fresh, both, "tgt", ["src", "tgt"]),
    ]
    for number, (body, donor, side, wanted) in enumerate(cases):
        out = tmp_path / f"graft {number}"
        done = run(*GRAFT, body, donor, side, out)
        assert done.returncode == 0, done.stderr
        assert fresh_of(out) == wanted


def fresh_of(folder):
    """What a folder's args.json says of its fresh sides; None if it says nothing."""
    file = folder / "args.json"
    if not file.exists():
        return None
    return json.loads(file.read_text(encoding="utf-8")).get("fresh")


SIDES_OF = {"source": ("--source", "de_DE"), "target": ("--target", "fr_XX")}


@pytest.mark.parametrize("order", [("source", "target"), ("target", "source")])
def test_both_sides_can_be_new_at_once(run, small, tmp_path, order):
    one, both = tmp_path / "one", tmp_path / "both"
    options = ("--pairs", "de_DE-fr_XX", "--pieces", 300)
    for parent, out, side in ((small, one, order[0]), (one, both, order[1])):
        done = run(*FRESH, parent, out, *SIDES_OF[side], *options)
        assert done.returncode == 0, done.stderr
    assert "--recipe both+xattn" in done.stdout and fresh_of(both) == ["src", "tgt"]

    # What the first step made is kept in the second, tokens and embeddings.
    old, first, second = (Tokenizer.from_pretrained(folder) for folder in (small, one, both))
    german, french = "Der Lehrer fand eine Karte.", "Le professeur a trouvé une carte."
    before, model = MBart.from_pretrained(one), MBart.from_pretrained(both)
    if order[0] == "source":
        assert first.encode(german, "de_DE") == second.encode(german, "de_DE")
        assert torch.equal(before.source_table(), model.source_table())
    else:
        assert first.target(french, "fr_XX") == second.target(french, "fr_XX")
        assert torch.equal(before.model.shared.weight, model.model.shared.weight)
    assert second.encode(german, "de_DE") != old.encode(german, "de_DE")
    assert second.target(french, "fr_XX") != old.target(french, "fr_XX")
    assert second.decode(second.piece_ids(french)) == french
    assert model.config.source_vocab_size == second.source.vocab_size < old.vocab_size
    assert model.config.vocab_size == second.vocab_size < old.vocab_size

    layers = {n: x for n, x in MBart.from_pretrained(small).state_dict().items() if ".layers." in n}
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in layers.items())


def test_a_folder_that_is_new_on_both_sides_trains_on_both_and_translates(run, small, tmp_path):
    one, both = tmp_path / "one", tmp_path / "both"
    options = ("--pairs", "de_DE-fr_XX", "--pieces", 300)
    assert run(*FRESH, small, one, *SIDES_OF["source"], *options).returncode == 0
    assert run(*FRESH, one, both, *SIDES_OF["target"], *options).returncode == 0
    pairs = ("--pairs", "de_DE-fr_XX", "--init", both, "--out", tmp_path / "run")
    for recipe, frozen in (("src+body", "tgt"), ("tgt+body", "src"), ("full", "src")):
        done = run("train.py", *TRAIN, *pairs, "--recipe", recipe)
        assert done.returncode == 2 and f"fresh {frozen} embeddings frozen" in done.stderr
    done = run("train.py", *TRAIN, *pairs, "--recipe", "both")
    assert done.returncode == 0, done.stderr
    start, trained = MBart.from_pretrained(both), MBart.from_pretrained(tmp_path / "run")
    moved = {
        name for name, x in start.state_dict().items()
        if not torch.equal(x, trained.state_dict()[name])
    }
    assert moved == set(apply_recipe(start, "both"))
    assert {"model.shared.weight", "model.encoder.embed_tokens.weight"} <= moved
    assert fresh_of(tmp_path / "run") is None
    done = run("eval.py", "--model", tmp_path / "run", "--pairs", "de_DE-fr_XX", "--examples", 2,
               "--max-new-tokens", 4, "--device", "cpu")
    assert done.returncode == 0 and "fr_XX output" in done.stdout, done.stderr

    # A child of the trained model is new on its own side alone, from scratch on both.
    child = ("--target", "es_XX", "--pairs", "de_DE-es_XX", "--pieces", 300)
    for options, wanted in (((), ["tgt"]), (("--scratch",), ["src", "tgt"])):
        done = run(*FRESH, tmp_path / "run", tmp_path / "child", *child, *options, "--overwrite")
        assert done.returncode == 0, done.stderr
        assert fresh_of(tmp_path / "child") == wanted


def test_a_vocabulary_is_learned_from_all_over_the_data(monkeypatch):
    from types import SimpleNamespace

    from tools import new_language

    monkeypatch.setattr(new_language, "EXAMPLES", 50)
    pair = ("de_DE", "en_XX")
    data = SimpleNamespace(sizes={pair: 1000}, text=lambda pair, index: (str(index), ""))
    numbers = [int(text) for text in new_language.texts_of_side(data, "src")]
    assert len(set(numbers)) == 50 and numbers[0] < 200 and numbers[-1] > 800
    data.sizes[pair] = None  # a stream is read from its beginning
    assert [int(text) for text in new_language.texts_of_side(data, "src")] == list(range(50))
