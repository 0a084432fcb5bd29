"""tools/new_language.py: folders from which a new language is learned."""
import json

import pytest
import torch

from model import MBart
from plumbing.files import UserError
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
    stack = "encoder" if side == "src" else "decoder"
    assert f"model.{stack}.embed_positions.weight" not in same
    if side == "src":  # the decoder is the parent's: given the same states, it says the same
        ids, states = torch.randint(4, 300, (2, 6)), torch.randn(2, 5, 32)
        source = torch.full((2, 5), 7)
        assert torch.equal(parent.decode(ids, states, source), child.decode(ids, states, source))
    else:
        source = torch.randint(4, 300, (2, 6))
        assert torch.equal(parent.encode(source), child.encode(source))


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


@pytest.mark.parametrize("scratch", [False, True])
def test_new_positions_are_drawn_and_not_the_sinusoids_that_a_base_begins_with(small, scratch):
    parent = MBart.from_pretrained(small)
    begun = MBart(parent.config).model.encoder.embed_positions.weight  # sinusoids
    child = new_language(parent, "src", 50, scratch=scratch)
    fresh = child.model.encoder.embed_positions.weight
    cosine = torch.nn.functional.cosine_similarity(fresh, begun)
    assert cosine.abs().max() < 0.8  # 32 dimensions: 0.18 is what chance leaves
    assert abs(cosine.mean().item()) < 0.1
    assert fresh.std().item() == pytest.approx(parent.config.d_model ** -0.5, rel=0.05)
    again = new_language(parent, "src", 50, scratch=scratch)
    assert torch.equal(fresh, again.model.encoder.embed_positions.weight)
    other = new_language(parent, "src", 50, scratch=scratch, seed=1)
    assert not torch.equal(fresh, other.model.encoder.embed_positions.weight)
    decoders = child.model.decoder.embed_positions.weight
    parents = parent.model.decoder.embed_positions.weight
    assert torch.equal(decoders, parents) != scratch


def test_both_sides_can_be_new_and_each_keeps_its_own_vocabulary(run, small, tmp_path):
    first = tmp_path / "first"
    both = tmp_path / "both"
    done = run(*FRESH, small, first, "--source", "de_DE", "--pairs", "de_DE-es_XX",
               "--pieces", "300")
    assert done.returncode == 0 and "--recipe src+xattn" in done.stdout, done.stderr
    done = run(*FRESH, first, both, "--target", "es_XX", "--pairs", "de_DE-es_XX",
               "--pieces", "300", "--seed", "1")
    assert done.returncode == 0 and "--recipe both+xattn" in done.stdout, done.stderr
    assert json.loads((both / "args.json").read_text())["fresh"] == ["src", "tgt"]
    one = MBart.from_pretrained(first).state_dict()
    two = MBart.from_pretrained(both).state_dict()
    encoders = [name for name in one if name.startswith("model.encoder.")]
    assert all(torch.equal(one[name], two[name]) for name in encoders)
    text = "Der Lehrer las ein Buch"
    german = Tokenizer.from_pretrained(first).source.encode(text, "de_DE")
    assert Tokenizer.from_pretrained(both).source.encode(text, "de_DE") == german
    spanish = Tokenizer.from_pretrained(both)
    assert spanish.decode(spanish.piece_ids("El pintor")) == "El pintor"

    again = tmp_path / "again"  # the parent's target back: the source alone is fresh
    assert run(*GRAFT, both, small, "tgt", again).returncode == 0
    assert json.loads((again / "args.json").read_text())["fresh"] == "src"


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

    pairs = ("--pairs", "de_DE-en_XX", "--init", out, "--out", tmp_path / "run")
    done = run("train.py", *TRAIN, *pairs, "--recipe", "qk")
    assert done.returncode == 2 and "fresh src embeddings frozen" in done.stderr
    done = run("train.py", *TRAIN, *pairs, "--recipe", "src")
    assert done.returncode == 0, done.stderr
    trained = MBart.from_pretrained(tmp_path / "run").state_dict()
    moved = {n for n, x in child.state_dict().items() if not torch.equal(x, trained[n])}
    assert moved == set(apply_recipe(child, "src"))
    assert json.loads((tmp_path / "run" / "args.json").read_text())["tagless"] is True


def test_a_new_target_keeps_the_encoders_vocabulary(run, small, tmp_path):
    options = ("--target", "fr_XX", "--pairs", "en_XX-fr_XX", "--pieces", 300, "--scratch")
    done = run(*FRESH, small, tmp_path / "start", *options)
    assert done.returncode == 0, done.stderr
    new, old = Tokenizer.from_pretrained(tmp_path / "start"), Tokenizer.from_pretrained(small)
    assert new.source.encode("a map", "en_XX") == old.encode("a map", "en_XX")
    config = MBart.from_pretrained(tmp_path / "start").config
    assert config.vocab_size == new.vocab_size < old.vocab_size == config.source_vocab_size


def test_the_commands_that_keep_the_vocabulary_write_folders_too(run, small, tmp_path):
    done = run(*OTHER, small, tmp_path / "start", "--seed", 5)
    assert done.returncode == 0, done.stderr
    wanted = MBart.from_pretrained(small)
    random_cross_attention(wanted, seed=5)
    found = MBart.from_pretrained(tmp_path / "start").state_dict()
    assert all(torch.equal(found[name], x) for name, x in wanted.state_dict().items())
    done = run(*GRAFT, small, tmp_path / "start", "tgt", tmp_path / "graft")
    assert done.returncode == 0, done.stderr
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


@pytest.mark.parametrize("options, complaint", [
    (("--source", "de_DE", "--pairs", "fr_XX-en_XX"), "no training pair has de_DE as its source"),
    (("--source", "de", "--pairs", "de-en_XX"), "did you mean de_DE"),
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
    for body, donor, wanted in ((fresh, small, None), (small, fresh, "src")):
        out = tmp_path / f"graft-{wanted}"
        done = run(*GRAFT, body, donor, "src", out)
        assert done.returncode == 0, done.stderr
        settings = {}
        if (out / "args.json").exists():
            settings = json.loads((out / "args.json").read_text(encoding="utf-8"))
        assert settings.get("fresh") == wanted


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
