"""tools/delta.py: a run as only what trained, on its own base and no other."""
import json
import shutil

import pytest
import torch

from model import MBart
from plumbing.files import UserError, read_json, write_json
from plumbing.runs import origin_of, read_settings
from qk_finetune import RECIPES, add_lora, apply_recipe, merged_state, sides_of
from tokenizer import Tokenizer
from tools import delta
from tools.folders import write_like
from tools.new_language import new_language

DELTA = ("-m", "tools.delta")


def trained(folder, recipe, seed=0):
    """A state as if `recipe` had trained from `folder`."""
    model = MBart.from_pretrained(folder)
    if recipe == "lora":
        add_lora(model)
    names = apply_recipe(model, recipe)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return merged_state(model), set(names)


def test_a_delta_holds_what_trained_and_gives_the_model_back_bit_for_bit(small, tmp_path):
    base = MBart.from_pretrained(small).state_dict()
    state, names = trained(small, "qk")
    changed = delta.save_delta(state, base, tmp_path / "qk.delta")
    assert set(changed) == names
    again = base | delta.read_delta(tmp_path / "qk.delta", delta.fingerprint(base)).tensors
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_another_base_a_damaged_file_and_a_file_that_is_no_delta_are_refused(small, tmp_path):
    base = MBart.from_pretrained(small).state_dict()
    path = tmp_path / "qk.delta"
    delta.save_delta(trained(small, "qk")[0], base, path)
    own = delta.fingerprint(base)
    other = delta.fingerprint({name: tensor + 1 for name, tensor in base.items()})
    with pytest.raises(UserError, match="another base"):
        delta.read_delta(path, other)
    with pytest.raises(UserError, match="no delta"):
        delta.read_delta(small / "model.safetensors", own)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="qk.delta"):
        delta.read_delta(path, own)
    with pytest.raises(UserError, match="is the base"):
        delta.save_delta(base, base, tmp_path / "none.delta")


def test_merging_adds_the_weighted_changes(small, tmp_path):
    base = MBart.from_pretrained(small).state_dict()
    a, b = (trained(small, recipe, seed)[0] for recipe, seed in (("qk", 1), ("vqk", 2)))
    for name, state in (("a", a), ("b", b)):
        delta.save_delta(state, base, tmp_path / name)
    made_from = delta.fingerprint(base)
    deltas = [delta.read_delta(tmp_path / name, made_from).tensors for name in "ab"]
    merged = delta.merge_deltas(base, deltas, [0.25, 0.5])
    for name, tensor in base.items():
        expected = tensor + 0.25 * (a[name] - tensor) + 0.5 * (b[name] - tensor)
        assert torch.allclose(merged[name], expected, atol=1e-6)


def test_the_commands_save_apply_merge_and_weigh(run, small, tmp_path):
    tuned, file, again, half, wrong = (tmp_path / name for name in "tfahw")
    state, _ = trained(small, "qk")
    write_like(small, tuned, state)
    assert run(*DELTA, "save", tuned, small, file).returncode == 0
    assert run(*DELTA, "apply", small, file, again).returncode == 0
    assert run(*DELTA, "merge", small, half, f"{file}=0.5").returncode == 0
    base, applied, merged = (
        MBart.from_pretrained(folder).state_dict() for folder in (small, again, half)
    )
    assert all(torch.equal(applied[name], state[name]) for name in state)
    assert all(torch.allclose(merged[n], (base[n] + state[n]) / 2, atol=1e-6) for n in base)
    assert (again / "sentencepiece.bpe.model").exists()
    done = run(*DELTA, "sizes", "base")
    # 12 x 2 x 2 x (1024 x 1024 + 1024) x 4 bytes
    assert done.returncode == 0 and "201,523,200" in done.stdout
    done = run(*DELTA, "apply", "base", file, wrong)
    assert done.returncode == 2 and "another base" in done.stderr and not wrong.exists()
    done = run(*DELTA, "apply", small, file, small, "--overwrite")
    assert done.returncode == 2 and "is made from" in done.stderr


def test_the_sizes_are_what_a_delta_of_each_recipe_really_holds(run, small, tmp_path):
    both = tmp_path / "both"  # an encoder with a vocabulary of its own, of the same size
    done = run("-m", "tools.new_language", "graft", small, small, "src", both)
    assert done.returncode == 0, done.stderr
    done = run(*DELTA, "sizes", small)
    assert done.returncode == 0, done.stderr
    printed = {}
    for line in done.stdout.splitlines()[1:]:
        recipe, here, large = line.split()
        printed[recipe] = int(here.replace(",", ""))
    assert printed.keys() == RECIPES.keys()
    for recipe in RECIPES:
        folder = both if sides_of(recipe) else small
        base = MBart.from_pretrained(folder).state_dict()
        state, _ = trained(folder, recipe)
        changed = delta.save_delta(state, base, tmp_path / "d")
        assert printed[recipe] == sum(tensor.nbytes for tensor in changed.values()), recipe


def test_merging_reads_the_base_once_whatever_the_number_of_deltas(
    run, small, tmp_path, deltas, monkeypatch
):
    files = [deltas("a", {}), deltas("b!", {})]
    calls = []
    own = delta.fingerprint

    def counting(tensors):
        calls.append(len(tensors))
        return own(tensors)

    monkeypatch.setattr(delta, "fingerprint", counting)
    done = run(*DELTA, "merge", small, tmp_path / "m", *[f"{file}=0.5" for file in files])
    assert done.returncode == 0 and len(calls) == 1, done.stderr


@pytest.mark.parametrize("content", [
    b'\xef\xbb\xbf{"stage": "summarize"}',
    '{"stage": "summarize", "data": "jsonl:\u043d\u043e\u0432\u043e\u0441\u0442\u0438"}'.encode(),
    b"{}",
])
def test_settings_that_can_be_read_come_back_from_a_delta(run, small, tmp_path, content):
    state, _ = trained(small, "qk")
    write_like(small, tmp_path / "run", state)
    (tmp_path / "run" / "args.json").write_bytes(content)
    for words in (("save", tmp_path / "run", small, tmp_path / "d"),
                  ("apply", small, tmp_path / "d", tmp_path / "again")):
        done = run(*DELTA, *words)
        assert done.returncode == 0, done.stderr
    wanted = read_settings(tmp_path / "run")
    if wanted:
        wanted["origin"] = origin_of(small)
    assert read_settings(tmp_path / "again") == wanted


@pytest.mark.parametrize("content", [b"{", b'{"stage": "\xff"}', b"[]", b"[" * 100_000])
def test_settings_that_cannot_be_read_are_refused_before_a_delta_is_written(
    run, small, tmp_path, content
):
    state, _ = trained(small, "qk")
    write_like(small, tmp_path / "run", state)
    file = tmp_path / "run" / "args.json"
    file.write_bytes(content)
    done = run(*DELTA, "save", tmp_path / "run", small, tmp_path / "d")
    assert done.returncode == 2 and f"{file}: not" in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "d").exists()


def test_a_tag_that_the_config_names_has_another_id_in_a_deltas_vocabulary(run, small, tmp_path):
    """As in a checkpoint for one direction that was trimmed; with the base's vocabulary it may not.
    """
    base, trimmed, again = (tmp_path / name for name in ("base", "trimmed", "again"))
    shutil.copytree(small, base)
    config = read_json(base / "config.json")
    tags = Tokenizer.from_pretrained(small).tag
    write_json(base / "config.json", config | {"decoder_start_token_id": tags["ro_RO"]})
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.en_XX").write_text("The doctor sent a map.\n")
    words = ("--langs", "en_XX", "--data", f"parallel:{tmp_path}")
    done = run("-m", "tools.trim", base, trimmed, *words)
    assert done.returncode == 0, done.stderr
    for words in (("save", trimmed, base, tmp_path / "d"), ("apply", base, tmp_path / "d", again)):
        done = run(*DELTA, *words)
        assert done.returncode == 0, done.stderr
    written = read_json(again / "config.json")
    assert written == read_json(trimmed / "config.json")
    assert written["decoder_start_token_id"] == Tokenizer.from_pretrained(again).tag["ro_RO"]

    state, _ = trained(base, "qk")
    write_like(base, tmp_path / "run", state)
    write_json(tmp_path / "run/config.json", config | {"decoder_start_token_id": tags["en_XX"]})
    done = run(*DELTA, "save", tmp_path / "run", base, tmp_path / "other")
    assert done.returncode == 2 and "did not start from" in done.stderr


def test_a_new_languages_delta_brings_its_vocabulary_with_it(small, tmp_path):
    parent = MBart.from_pretrained(small)
    child = new_language(parent, "tgt", 77)
    base = parent.state_dict()
    delta.save_delta(child.state_dict(), base, tmp_path / "d")
    changed = delta.read_delta(tmp_path / "d", delta.fingerprint(base)).tensors
    write_like(small, tmp_path / "again", base | changed)
    again = MBart.from_pretrained(tmp_path / "again")
    assert again.config.vocab_size == 77
    assert again.config.source_vocab_size == parent.config.vocab_size
    both = zip(again.state_dict().values(), child.state_dict().values())
    assert all(torch.equal(x, y) for x, y in both)


def test_a_childs_delta_is_all_that_its_base_needs_to_become_the_child(
    run, small, tmp_path, monkeypatch
):
    start, child, file, again = (tmp_path / name for name in ("start", "child", "delta", "again"))
    monkeypatch.setattr("tools.new_language.EXAMPLES", 500)
    done = run("-m", "tools.new_language", "fresh", small, start, "--source", "de_DE", "--pairs",
               "de_DE-en_XX", "--pieces", 300)
    assert done.returncode == 0, done.stderr
    done = run("train.py", "--stage", "translate", "--recipe", "src", "--pairs", "de_DE-en_XX",
               "--init", start, "--steps", 2, "--tokens", 300, "--valid-examples", 2, "--no-eval",
               "--device", "cpu", "--out", child)
    assert done.returncode == 0, done.stderr
    for command in (("save", child, small, file), ("apply", small, file, again)):
        done = run(*DELTA, *command)
        assert done.returncode == 0, done.stderr
    wanted, found = (MBart.from_pretrained(folder).state_dict() for folder in (child, again))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)
    text = "Der Lehrer fand eine Karte im Park."
    tokenizers = [Tokenizer.from_pretrained(folder) for folder in (child, again, small)]
    ids = [tokenizer.source.encode(text, "de_DE") for tokenizer in tokenizers]
    assert ids[0] == ids[1] != ids[2]
    done = run(*DELTA, "merge", small, tmp_path / "m", f"{file}=1")
    assert done.returncode == 2 and "vocabular" in done.stderr


def test_a_delta_brings_the_dropped_residual_and_how_it_was_trained(run, small, tmp_path):
    model = MBart.from_pretrained(small).eval()
    model.drop_residual(1)
    with torch.no_grad():
        model.model.encoder.layers[0].fc1.bias += 1
    model.save_pretrained(tmp_path / "run")
    settings = '{"stage": "summarize", "tagless": true}'
    (tmp_path / "run" / "args.json").write_text(settings, encoding="utf-8")
    file, again = tmp_path / "d", tmp_path / "again"
    for command in (("save", tmp_path / "run", small, file), ("apply", small, file, again)):
        done = run(*DELTA, *command)
        assert done.returncode == 0, done.stderr
    source = torch.randint(4, 300, (2, 7))
    assert torch.equal(MBart.from_pretrained(again).eval().encode(source), model.encode(source))
    assert '"tagless": true' in (again / "args.json").read_text(encoding="utf-8")


def test_merging_keeps_a_dropped_residual_and_refuses_two_that_differ(run, small, tmp_path):
    files = []
    for layer, name in ((0, "a"), (1, "b"), (1, "c")):
        model = MBart.from_pretrained(small)
        if layer:
            model.drop_residual(layer)
        with torch.no_grad():
            model.model.encoder.layers[0].fc1.bias += len(files) + 1
        model.save_pretrained(tmp_path / name)
        files.append(tmp_path / f"{name}.delta")
        assert run(*DELTA, "save", tmp_path / name, small, files[-1]).returncode == 0
    a, b, c = files
    done = run(*DELTA, "merge", small, tmp_path / "m", f"{b}=0.5", f"{c}=0.5")
    assert done.returncode == 0, done.stderr
    assert MBart.from_pretrained(tmp_path / "m").config.residual_drop_layer == 1
    done = run(*DELTA, "merge", small, tmp_path / "n", f"{a}=0.5", f"{b}=0.5")
    assert done.returncode == 2 and "different residuals" in done.stderr


def test_a_delta_without_its_weight_is_explained_and_every_command_has_help(run, small, tmp_path):
    done = run(*DELTA, "merge", small, tmp_path / "m", "a.delta")
    assert done.returncode == 2 and "a.delta=0.5" in done.stderr
    words = {"save": "MODEL", "apply": "OUT", "merge": "FILE=WEIGHT", "sizes": "BASE"}
    for command, word in words.items():
        done = run(*DELTA, command, "--help")
        assert done.returncode == 0 and word in done.stdout


@pytest.fixture
def deltas(run, small, tmp_path):
    """deltas(name, settings) -> the delta of a run with this args.json (None: without one)."""
    def make(name, settings):
        folder = tmp_path / name
        state, _ = trained(small, "qk", seed=len(name))
        write_like(small, folder, state, settings=settings)
        file = tmp_path / f"{name}.delta"
        done = run(*DELTA, "save", folder, small, file)
        assert done.returncode == 0, done.stderr
        return file

    return make


def test_a_merged_folder_is_read_as_its_runs_were(run, small, tmp_path, deltas):
    task = deltas("task", {"stage": "summarize", "tagless": True, "lr": 1.0, "langs": ["en_XX"]})
    other = deltas("other!", {"stage": "summarize", "tagless": True, "lr": 2.0})
    align = deltas("align", {"stage": "align", "tagless": True, "lr": 1.0})
    tagged = deltas("tagged", {"stage": "summarize", "tagless": False})
    merged = tmp_path / "m"
    done = run(*DELTA, "merge", small, merged, f"{align}=0.5", f"{task}=0.5")
    assert done.returncode == 0, done.stderr
    settings = json.loads((merged / "args.json").read_text(encoding="utf-8"))
    assert settings["tagless"] is True and settings["stage"] == "summarize"
    assert settings["langs"] == ["en_XX"]
    done = run(*DELTA, "merge", small, merged, f"{other}=0.5", f"{task}=0.5", "--overwrite")
    assert done.returncode == 0, done.stderr
    settings = json.loads((merged / "args.json").read_text(encoding="utf-8"))
    both = {"stage": "summarize", "tagless": True, "origin": origin_of(small)}
    assert settings == both  # what both say
    german = {"stage": "translate", "tagless": True, "pairs": ["en_XX-de_DE"]}
    french = german | {"pairs": ["en_XX-fr_XX", "en_XX-de_DE"]}
    parts = [f"{deltas(str(number), which)}=0.5" for number, which in enumerate((german, french))]
    done = run(*DELTA, "merge", small, merged, *parts, "--overwrite")
    assert done.returncode == 0, done.stderr
    settings = json.loads((merged / "args.json").read_text(encoding="utf-8"))
    assert settings["pairs"] == ["en_XX-de_DE", "en_XX-fr_XX"]  # or the stage's 25 would count
    for file in (tagged, deltas("bare", {})):
        done = run(*DELTA, "merge", small, tmp_path / "n", f"{task}=0.5", f"{file}=0.5")
        assert done.returncode == 2 and "no one model reads both" in done.stderr
        assert not (tmp_path / "n").exists()


def test_a_run_without_settings_does_not_take_its_bases(run, small, tmp_path, deltas):
    file = deltas("bare", {})
    base = tmp_path / "base"
    write_like(small, base, MBart.from_pretrained(small).state_dict(), settings={"tagless": True})
    done = run(*DELTA, "apply", base, file, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "again" / "args.json").exists()


@pytest.mark.parametrize("weight", ["nan", "inf", "-inf", "", "half"])
def test_a_weight_that_is_no_finite_number_is_refused(run, small, tmp_path, weight):
    done = run(*DELTA, "merge", small, tmp_path / "m", f"a.delta={weight}")
    assert done.returncode == 2 and "as a.delta=0.5" in done.stderr
    assert not (tmp_path / "m").exists()


def test_values_that_are_no_finite_numbers_are_refused_by_name(run, small, tmp_path, deltas):
    base = MBart.from_pretrained(small).state_dict()
    state = {name: tensor.clone() for name, tensor in base.items()}
    state["model.encoder.layers.0.fc1.bias"][0] = float("nan")
    delta.save_delta(state, base, tmp_path / "bad")
    for command in (("apply", small, tmp_path / "bad"), ("merge", small)):
        more = [f"{tmp_path / 'bad'}=0"] if command[0] == "merge" else []
        done = run(*DELTA, *command, tmp_path / "m", *more)
        assert done.returncode == 2 and "encoder.layers.0.fc1.bias" in done.stderr
        assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "m").exists()
    done = run(*DELTA, "merge", small, tmp_path / "m", f"{deltas('a', {})}=1e39")
    assert done.returncode == 2 and "infinite numbers" in done.stderr  # float32 ends at 3e38
    assert not (tmp_path / "m").exists()


def test_nothing_that_stands_is_lost_without_being_asked_for(run, small, tmp_path, deltas):
    file = deltas("a", {"stage": "summarize"})
    before = (small / "model.safetensors").read_bytes()
    for _ in range(2):
        done = run(*DELTA, "apply", small, file, tmp_path / "m", "--overwrite")
        assert done.returncode == 0, done.stderr
    for command in (("apply", small, file, tmp_path / "m"),
                    ("merge", small, tmp_path / "m", f"{file}=1"),
                    ("save", tmp_path / "a", small, file)):
        done = run(*DELTA, *command)
        assert done.returncode == 2 and "--overwrite replaces" in done.stderr
    done = run(*DELTA, "merge", small, small, f"{file}=1", "--overwrite")
    assert done.returncode == 2 and "is made from" in done.stderr
    done = run(*DELTA, "save", tmp_path / "a", small, small / "model.safetensors", "--overwrite")
    assert done.returncode == 2 and "is no delta" in done.stderr
    assert (small / "model.safetensors").read_bytes() == before
    assert run(*DELTA, "save", tmp_path / "a", small, file, "--overwrite").returncode == 0
    file.write_bytes(file.read_bytes()[:-1])
    done = run(*DELTA, "save", tmp_path / "a", small, file, "--overwrite")
    assert done.returncode == 2 and "may have been something else than a delta" in done.stderr


def test_a_delta_of_a_model_that_differs_in_more_than_weights_is_refused(run, small, tmp_path):
    model = MBart.from_pretrained(small)
    model.config.encoder_attention_heads = 4
    model.save_pretrained(tmp_path / "run")
    done = run(*DELTA, "save", tmp_path / "run", small, tmp_path / "d")
    assert done.returncode == 2 and "encoder_attention_heads is 4" in done.stderr
    assert not (tmp_path / "d").exists()


def test_a_folder_whose_vocabulary_was_not_written_is_no_model_folder(
    run, small, tmp_path, monkeypatch
):
    """It would be opened with the words of one language and the tensors of another."""
    monkeypatch.setattr("tools.new_language.EXAMPLES", 500)
    done = run("-m", "tools.new_language", "fresh", small, tmp_path / "child", "--source", "de_DE",
               "--pairs", "de_DE-en_XX", "--pieces", 300)
    assert done.returncode == 0, done.stderr
    done = run(*DELTA, "save", tmp_path / "child", small, tmp_path / "d")
    assert done.returncode == 0, done.stderr

    def full_disk(*_):
        raise UserError("no space left")

    monkeypatch.setattr("tools.folders.Tokenizer.save_pretrained", full_disk)
    done = run(*DELTA, "apply", small, tmp_path / "d", tmp_path / "again")
    assert done.returncode == 2 and "no space left" in done.stderr
    assert not (tmp_path / "again" / "config.json").exists()
