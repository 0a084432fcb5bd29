"""delta.py: a run as only what trained, on its own base and no other."""
import pytest
import torch
from conftest import ROOT

from model import MBart
from plumbing.files import UserError
from qk_finetune import apply_recipe, new_language
from tokenizer import Tokenizer
from tools import delta


def trained(folder, recipe, seed=0):
    """A state as if `recipe` had trained from `folder`."""
    model = MBart.from_pretrained(folder)
    names = apply_recipe(model, recipe)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.state_dict(), set(names)


def test_a_delta_holds_what_trained_and_gives_the_model_back_bit_for_bit(small, tmp_path):
    base = MBart.from_pretrained(small).state_dict()
    state, names = trained(small, "qk")
    changed = delta.save_delta(state, base, tmp_path / "qk.delta")
    assert set(changed) == names
    again = base | delta.load_delta(tmp_path / "qk.delta", base)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_another_base_a_damaged_file_and_a_file_that_is_no_delta_are_refused(small, tmp_path):
    base = MBart.from_pretrained(small).state_dict()
    path = tmp_path / "qk.delta"
    delta.save_delta(trained(small, "qk")[0], base, path)
    other = {name: tensor + 1 for name, tensor in base.items()}
    with pytest.raises(UserError, match="another base"):
        delta.load_delta(path, other)
    with pytest.raises(UserError, match="no delta"):
        delta.load_delta(small / "model.safetensors", base)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="qk.delta"):
        delta.load_delta(path, base)
    with pytest.raises(UserError, match="is the base"):
        delta.save_delta(base, base, tmp_path / "none.delta")


def test_merging_adds_the_weighted_changes(small, tmp_path):
    base = MBart.from_pretrained(small).state_dict()
    a, b = (trained(small, recipe, seed)[0] for recipe, seed in (("qk", 1), ("vqk", 2)))
    for name, state in (("a", a), ("b", b)):
        delta.save_delta(state, base, tmp_path / name)
    merged = delta.merge_deltas(base, [delta.load_delta(tmp_path / n, base) for n in "ab"], [0.25, 0.5])
    for name, tensor in base.items():
        expected = tensor + 0.25 * (a[name] - tensor) + 0.5 * (b[name] - tensor)
        assert torch.allclose(merged[name], expected, atol=1e-6)


def test_the_commands_save_apply_merge_and_weigh(run, small, tmp_path):
    state, _ = trained(small, "qk")
    delta.write_model(small, state, tmp_path / "run")
    assert run("-m", "tools.delta", "save", tmp_path / "run", small, tmp_path / "d").returncode == 0
    assert run("-m", "tools.delta", "apply", small, tmp_path / "d", tmp_path / "again").returncode == 0
    assert run("-m", "tools.delta", "merge", small, tmp_path / "half", f"{tmp_path / 'd'}=0.5").returncode == 0
    again, half = (MBart.from_pretrained(tmp_path / name).state_dict() for name in ("again", "half"))
    base = MBart.from_pretrained(small).state_dict()
    assert all(torch.equal(again[name], state[name]) for name in state)
    assert all(torch.allclose(half[n], (base[n] + state[n]) / 2, atol=1e-6) for n in base)
    assert (tmp_path / "again" / "sentencepiece.bpe.model").exists()
    done = run("-m", "tools.delta", "sizes", "base")
    assert done.returncode == 0 and "201,523,200" in done.stdout  # 12 x 2 x 2 x (1024 x 1024 + 1024) x 4 bytes
    done = run("-m", "tools.delta", "apply", "base", tmp_path / "d", tmp_path / "wrong")
    assert done.returncode == 2 and "another base" in done.stderr and not (tmp_path / "wrong").exists()
    assert (ROOT / "base").exists()


def test_a_new_languages_delta_brings_its_vocabulary_with_it(small, tmp_path):
    parent = MBart.from_pretrained(small)
    child = new_language(parent, "tgt", 77, "tgt+xattn")
    base = parent.state_dict()
    delta.save_delta(child.state_dict(), base, tmp_path / "d")
    delta.write_model(small, base | delta.load_delta(tmp_path / "d", base), tmp_path / "again")
    again = MBart.from_pretrained(tmp_path / "again")
    assert again.config.vocab_size == 77 and again.config.source_vocab_size == parent.config.vocab_size
    assert all(torch.equal(x, y) for x, y in zip(again.state_dict().values(), child.state_dict().values()))


def test_a_childs_delta_is_all_that_its_base_needs_to_become_the_child(run, small, tmp_path):
    child, again, file = tmp_path / "child", tmp_path / "again", tmp_path / "child.delta"
    done = run("train.py", "--stage", "translate", "--new-source", "de_DE", "--recipe", "src", "--pairs", "de_DE-en_XX",
               "--init", small, "--steps", 2, "--tokens", 300, "--valid-examples", 2, "--no-eval", "--device", "cpu",
               "--out", child)
    assert done.returncode == 0, done.stderr
    for command in (("save", child, small, file), ("apply", small, file, again)):
        done = run("-m", "tools.delta", *command)
        assert done.returncode == 0, done.stderr
    wanted, found = MBart.from_pretrained(child).state_dict(), MBart.from_pretrained(again).state_dict()
    assert wanted.keys() == found.keys() and all(torch.equal(wanted[name], found[name]) for name in wanted)
    text = "Der Lehrer fand eine Karte im Park."
    ids = [Tokenizer.from_pretrained(folder).source.encode(text, "de_DE") for folder in (child, again, small)]
    assert ids[0] == ids[1] != ids[2]
    done = run("-m", "tools.delta", "merge", small, tmp_path / "m", f"{file}=1")
    assert done.returncode == 2 and "vocabular" in done.stderr


def test_a_delta_brings_the_dropped_residual_and_how_it_was_trained(run, small, tmp_path):
    model = MBart.from_pretrained(small).eval()
    model.drop_residual(1)
    with torch.no_grad():
        model.model.encoder.layers[0].fc1.bias += 1
    model.save_pretrained(tmp_path / "run")
    (tmp_path / "run" / "args.json").write_text('{"stage": "summarize", "tagless": true}', encoding="utf-8")
    file, again = tmp_path / "d", tmp_path / "again"
    for command in (("save", tmp_path / "run", small, file), ("apply", small, file, again)):
        done = run("-m", "tools.delta", *command)
        assert done.returncode == 0, done.stderr
    source = torch.randint(4, 300, (2, 7))
    assert torch.equal(MBart.from_pretrained(again).eval().encode(source), model.encode(source))
    assert '"tagless": true' in (again / "args.json").read_text(encoding="utf-8")


def test_a_graft_is_the_body_with_the_donors_embeddings_on_one_side(small):
    parent = MBart.from_pretrained(small).eval()
    child = new_language(parent, "src", 60, "src+xattn", seed=3).eval()
    with torch.no_grad():
        child.model.decoder.layers[0].encoder_attn.q_proj.weight.add_(0.1)
    back = delta.graft(child, parent, "src").eval()
    source, target = torch.randint(4, 300, (2, 7)), torch.randint(4, 300, (2, 5))
    assert torch.equal(back.encode(source), parent.encode(source))  # the encoder's layers never moved
    assert not torch.equal(back(source, target), parent(source, target))  # the cross-attention did
    other = new_language(parent, "tgt", 50, "tgt", seed=4).eval()
    stitched = delta.graft(other, child, "src").eval()
    ids = torch.randint(4, 60, (2, 7))
    assert torch.equal(stitched.encode(ids), child.encode(ids)) and stitched.config.vocab_size == 50
    assert stitched(ids, torch.randint(4, 50, (2, 5))).shape == (2, 5, 50)
