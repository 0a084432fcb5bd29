"""A model's name in place of its folder, against a small hub on the loopback address."""
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import PATIENCE, ROOT
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

import tools.inside
import tools.start
from bench.process import free_port
from model import MBart
from plumbing.files import UserError
from plumbing.hub import Repository
from plumbing.models import model_folder, parts_of, pinned, same_model

NAME = "someone/small-mbart"
TRAIN = [
    "train.py", "--stage", "summarize", "--langs", "en_XX", "--steps", 2, "--tokens", 300,
    "--eval-every", 1, "--valid-examples", 2, "--no-eval", "--device", "cpu", "--preset", "small",
]  # fmt: skip


@pytest.fixture
def published(small, tmp_path):
    """The small model as transformers writes it, its card, and a file that nobody here reads."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "published"
    shutil.copytree(small, folder)
    (folder / "model.safetensors").unlink()
    transformers.MBartForConditionalGeneration.from_pretrained(small).save_pretrained(folder)
    (folder / "tf_model.h5").write_bytes(b"0" * 100)
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# a model\n")
    return folder


def as_pickle(folder):
    """The weights as older repositories have them."""
    path = folder / "model.safetensors"
    torch.save(MBart.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    path.unlink()


def as_shards(folder):
    import transformers

    model = transformers.MBartForConditionalGeneration.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="150KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1


def refused(name, **options):
    with pytest.raises(UserError) as caught:
        model_folder(name, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


# ---------------------------------------------------------------------------------- it is there

@pytest.mark.parametrize("change", [lambda folder: None, as_pickle, as_shards])
def test_a_name_loads_what_its_folder_holds_and_only_the_files_that_are_read(
    hub, published, change
):
    change(published)
    hub.add(NAME, published)
    loaded = MBart.from_pretrained(model_folder(NAME)).state_dict()
    expected = MBart.from_pretrained(published).state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    read = {path.name for path in published.iterdir()} - {"tf_model.h5"}
    assert sorted(hub.fetched()) == sorted(read)
    assert hub.fetched()[0] == "config.json"
    before = len(hub.fetched())
    model_folder(NAME)
    assert len(hub.fetched()) == before  # it is in the cache


def test_safetensors_are_preferred(hub, published):
    torch.save({}, published / "pytorch_model.bin")
    hub.add(NAME, published)
    model_folder(NAME)
    assert "model.safetensors" in hub.fetched() and "pytorch_model.bin" not in hub.fetched()


def test_what_needs_no_weights_fetches_none(run, hub, published):
    hub.add(NAME, published)
    done = run("tokenizer.py", NAME, "en_XX", "The teacher found a map.")
    assert done.returncode == 0, done.stderr
    assert done.stdout == run("tokenizer.py", published, "en_XX", "The teacher found a map.").stdout
    assert "model.safetensors" not in hub.fetched()


def test_every_program_takes_a_name(run, hub, published, tmp_path, monkeypatch):
    monkeypatch.setattr(tools.start, "DOCUMENTS", 50)
    monkeypatch.setattr(tools.inside, "COUNTED", 20)
    commit = hub.add(NAME, published).revisions["main"]
    child = tmp_path / "child"  # as train.py leaves a run that began with that name
    shutil.copytree(published, child)
    settings = {"stage": "summarize", "init": f"{NAME}@{commit}"}
    (child / "args.json").write_text(json.dumps(settings))
    hub.add("someone/child", child)
    look = ["--text", "A map.", "--lang", "en_XX", "--langs", "en_XX", "--out"]
    fresh = ["--source", "de_DE", "--pairs", "de_DE-en_XX", "--pieces", 300]
    commands = [
        ["model.py", NAME],
        ["qk_finetune.py", NAME, "qk"],
        ["generate.py", NAME, "en_XX", "es_XX", "The teacher found a map."],
        ["eval.py", "--model", NAME, "--stage", "translate", "--lang", "es_XX", "--source-lang",
         "en_XX", "--text", "A map.", "--max-new-tokens", 2, "--json", tmp_path / "eval.json"],
        ["-m", "tools.delta", "sizes", NAME],
        ["-m", "tools.trim", NAME, tmp_path / "trim", "--langs", "en_XX", "--data",
         f"parallel:{tmp_path}"],
        ["-m", "tools.new_language", "random-cross-attention", NAME, tmp_path / "cross"],
        ["-m", "tools.layers", "--model", NAME, "--source-lang", "en_XX", "--data", "builtin"],
        ["-m", "bench.memory", NAME],
        ["-m", "tools.look", child, *look, tmp_path / "page.html"],
        ["-m", "tools.look", "someone/child", "--base", NAME, *look, tmp_path / "other.html"],
        ["-m", "tools.start", tmp_path / "start", "--body", NAME, "--langs", "en_XX", "--pieces",
         300],
        ["-m", "tools.new_language", "fresh", NAME, tmp_path / "fresh", *fresh],
        ["-m", "tools.new_language", "graft", NAME, tmp_path / "fresh", "src", tmp_path / "graft"],
    ]  # fmt: skip
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.en_XX").write_text("The teacher found a map.\n")
    for command in commands:
        done = run(*command)
        if "tools.layers" in command:  # it got as far as to the languages
            assert "this compares languages" in done.stderr
            continue
        assert done.returncode == 0, (command, done.stderr)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f'"name":"{NAME}@{commit}"' in page  # no folder of the cache
    report = json.loads((tmp_path / "eval.json").read_text())
    assert report["model"] == f"{NAME}@{commit}"


def test_a_folder_of_that_name_wins(hub, published, tmp_path, monkeypatch):
    hub.add(NAME, published)
    shutil.copytree(published, tmp_path / NAME)
    monkeypatch.chdir(tmp_path)
    assert str(model_folder(NAME)) == NAME and pinned(NAME) == NAME
    assert hub.asked == []


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, published):
    repository = hub.add(NAME, published)
    old = repository.revisions["main"]
    (published / "args.json").write_text("{}")
    new = repository.put(published, "v2/tuned")
    assert model_folder(f"{NAME}@v2/tuned").name == new
    assert model_folder(NAME).name == model_folder(f"{NAME}@{old}").name == old
    assert pinned(f"{NAME}@v2/tuned") == f"{NAME}@{new}"
    message = refused(f"{NAME}@v3")
    assert f"{NAME} has no revision v3 on the Hugging Face hub; https://" in message


# ---------------------------------------------------------------------------- training from it

def test_a_run_keeps_to_the_commit_that_it_began_with(run, hub, published, tmp_path):
    repository = hub.add(NAME, published)
    commit = repository.revisions["main"]
    lora = [*TRAIN, "--recipe", "lora", "--init", NAME, "--out", tmp_path / "run"]
    done = run(*lora, "--stop-at", 1)
    assert done.returncode == 0, done.stderr
    saved = json.loads((tmp_path / "run" / "args.json").read_text())
    assert saved["init"] == f"{NAME}@{commit}"

    model = MBart.from_pretrained(published)
    model.model.shared.weight.data += 1
    model.save_pretrained(published)
    repository.put(published)  # main is another model now
    del hub.asked[:]
    done = run("train.py", "--resume", tmp_path / "run", "--init", NAME)
    assert done.returncode == 0, done.stderr
    assert hub.asked == []
    done = run("train.py", "--resume", tmp_path / "run", "--init", "someone/else")
    assert "these differ: leave out --init" in done.stderr
    whole = run(*TRAIN, "--recipe", "lora", "--init", f"{NAME}@{commit}", "--out", tmp_path / "b")
    assert whole.returncode == 0, whole.stderr
    one = MBart.from_pretrained(tmp_path / "run").state_dict()
    other = MBart.from_pretrained(tmp_path / "b").state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "license: cc-by-4.0\nbase_model: someone/small-mbart\n" in card


def test_names_of_the_same_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    commit = "0123456789" * 4
    assert same_model("a", "./a") and not same_model("a", "b")
    assert same_model(NAME, f"{NAME}@{commit}")
    assert same_model(f"{NAME}@0123456", f"{NAME}@{commit}")
    assert not same_model(f"{NAME}@9999999", f"{NAME}@{commit}")
    assert not same_model("other/small-mbart", f"{NAME}@{commit}")


# --------------------------------------------------------------------------- what goes wrong

def test_a_mistyped_folder_is_said_to_be_missing_first(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "translate").mkdir(parents=True)
    message = refused("runs/translat")
    assert message.startswith("there is no folder runs/translat (did you mean runs/translate?), ")
    assert "shows no model runs/translat; mend the name" in message
    del hub.asked[:]
    for name in ("./runs/translat", f"{tmp_path}/runs/translat", "runs/a/b", "translate", "../x/y"):
        message = refused(name)
        assert message.startswith(f"there is no folder {name}"), message
    assert "(did you mean" in refused("./runs/translat")
    (tmp_path / "runs" / "file").write_text("")
    assert "runs/file is a file and no model folder" in refused("runs/file")
    assert hub.asked == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_says_where_to_agree(hub, published, status):
    hub.add(NAME, published, refusal=(status, "GatedRepo"))
    message = refused(NAME)
    assert f"{NAME} is gated" in message
    assert f"https://huggingface.co/{NAME}" in message and "hf auth login" in message


def test_a_token_that_is_refused_and_a_hub_that_is_down_are_told_apart(hub, published):
    hub.add(NAME, published, refusal=(403, "Forbidden"))
    assert "refuses someone/small-mbart to the token that it was sent" in refused(NAME)
    hub.add(NAME, published, refusal=(503, "Unavailable"))
    assert "the Hugging Face hub cannot be reached (Server error '503" in refused(NAME)


@pytest.mark.parametrize("kind", ["t5", "marian", "m2m_100", None])
def test_what_is_no_mbart_costs_no_weights(hub, published, kind):
    config = json.loads((published / "config.json").read_text())
    config["model_type"] = kind
    (published / "config.json").write_text(json.dumps(config))
    hub.add(NAME, published)
    message = refused(NAME)
    assert f"{NAME} is no mBART (its model_type is {kind})" in message
    assert "facebook/mbart-large-cc25" in message
    assert hub.fetched() == ["config.json"]


def test_a_repository_without_what_is_needed_says_what_it_lacks(hub, published):
    (published / "model.safetensors").unlink()
    hub.add(NAME, published)
    assert "neither model.safetensors nor pytorch_model.bin" in refused(NAME)
    (published / "config.json").unlink()
    (published / "adapter_config.json").write_text("{}")
    hub.add("someone/adapter", published)
    assert "a PEFT adapter, not a whole model" in refused("someone/adapter")
    (published / "adapter_config.json").unlink()
    hub.add("someone/empty", published)
    assert "someone/empty has no config.json at revision main" in refused("someone/empty")


def test_a_repository_without_a_vocabulary_costs_no_weights(hub, published):
    (published / "sentencepiece.bpe.model").unlink()
    hub.add(NAME, published)
    message = refused(NAME)
    assert f"{NAME} has no sentencepiece.bpe.model" in message
    assert f"hf download {NAME} --local-dir FOLDER" in message
    assert hub.fetched() == ["config.json"]


def test_what_another_program_left_in_the_cache_is_made_whole(
    hub, published, monkeypatch, capsys
):
    (published / "args.json").write_text("{}")
    commit = hub.add(NAME, published).revisions["main"]
    exact = f"{NAME}@{commit}"
    for file in ("config.json", "model.safetensors", "sentencepiece.bpe.model"):
        Repository(NAME, commit).fetch(file)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (model_folder(exact) / "model.safetensors").is_file()  # better than nothing, and told
    assert "args.json" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert (model_folder(exact) / "args.json").is_file()
    del hub.asked[:]
    model_folder(exact)
    assert hub.asked == []  # what the repository lacks is known to be absent


def test_an_old_commit_is_never_taken_silently_for_a_new_one(hub, published, capsys):
    repository = hub.add(NAME, published)
    old = model_folder(NAME)
    (published / "args.json").write_text("{}")
    new = repository.put(published)
    hub.deaf.add("config.json")
    assert model_folder(NAME) == old
    said = capsys.readouterr().err
    assert f"note: the Hugging Face hub names commit {new}" in said and old.name in said


def test_the_processes_of_one_run_begin_with_one_model(small, tmp_path):
    shutil.copytree(small, tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    weights["model.shared.weight"][7, 0] += 1e-3
    save_file(weights, tmp_path / "other" / "model.safetensors", {"format": "pt"})
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = []
    for rank, init in enumerate((small, tmp_path / "other")):
        words = [sys.executable, *TRAIN, "--init", init, "--out", tmp_path / "run"]
        settings = os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        started.append(subprocess.Popen(
            [str(word) for word in words], cwd=ROOT, env=settings, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))  # fmt: skip
    try:
        for process in started:
            error = process.communicate(timeout=PATIENCE)[1]
            assert process.returncode == 2, error
            assert f"different models: {small}, {tmp_path}/other; name" in error
    finally:
        for process in started:
            process.kill()  # one that has ended is left as it is


def test_a_shard_may_lie_in_a_folder_below_and_nowhere_else(hub, published, tmp_path):
    as_shards(published)
    index = published / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    (published / "sub").mkdir()
    for shard in set(names.values()):
        (published / shard).rename(published / "sub" / shard)
    below = {name: f"sub/{shard}" for name, shard in names.items()}
    index.write_text(json.dumps({"weight_map": below}))
    hub.add(NAME, published)
    assert len(MBart.from_pretrained(model_folder(NAME)).state_dict()) == len(
        MBart.from_pretrained(published).state_dict()
    )
    for place in (str(tmp_path / "else.safetensors"), "../else.safetensors", "sub/../../else"):
        index.write_text(json.dumps({"weight_map": {"model.shared.weight": place}}))
        with pytest.raises(UserError, match="names a shard outside its folder"):
            parts_of(index)
        hub.add("someone/hostile", published)
        assert "names a shard outside its folder" in refused("someone/hostile")


def test_a_name_too_long_for_the_system_is_no_folder(hub):
    for name in ("a" * 5000, "a/" + "b" * 300):
        message = refused(name)
        assert message.startswith("there is no folder " + name)
        assert not same_model(name, "base")
    with pytest.raises(UserError):
        pinned("a" * 5000)


def test_a_damaged_file_in_the_cache_names_its_repository_and_is_fetched_again(hub, published):
    commit = hub.add(NAME, published).revisions["main"]
    config = model_folder(NAME) / "config.json"
    whole = config.read_bytes()
    damaged = config.resolve()
    damaged.write_bytes(whole[:20])
    for name in (NAME, f"{NAME}@{commit}"):
        message = refused(name)
        assert message.startswith(f"{NAME}: its config.json is not valid JSON; remove {damaged}")
    damaged.unlink()
    model_folder(f"{NAME}@{commit}")
    assert config.read_bytes() == whole


def test_a_download_that_breaks_off_goes_on_where_it_was(hub, published, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.add(NAME, published)
    hub.cuts["model.safetensors"] = 1
    assert MBart.from_pretrained(model_folder(NAME))
    assert len(hub.ranges) == 1 and not hub.ranges[0].startswith("bytes=0-")


def test_a_download_that_fails_leaves_nothing_half_and_the_next_one_completes(
    run, hub, published
):
    hub.add(NAME, published)
    hub.cuts["model.safetensors"] = -1
    done = run("model.py", NAME)
    assert done.returncode == 2
    assert "error: the Hugging Face hub cannot be reached" in done.stderr
    assert "was downloaded in part only; start again" in done.stderr
    hub.cuts.clear()
    assert run("model.py", NAME).stdout == run("model.py", published).stdout
    assert hub.fetched().count("config.json") == 1


def test_without_a_network_what_was_downloaded_is_used(hub, published, monkeypatch, capsys):
    commit = hub.add(NAME, published).revisions["main"]
    message = "HF_HUB_OFFLINE is set"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert message in refused(NAME)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = model_folder(NAME)
    capsys.readouterr()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert model_folder(NAME) == folder
    assert commit in capsys.readouterr().err
    assert model_folder(f"{NAME}@{commit}") == folder
    assert capsys.readouterr().err == ""  # it is what was asked for
    message = refused("someone/other")
    assert message.startswith("there is no folder someone/other") and "OFFLINE" in message


def test_no_network_is_told_in_one_line(run, hub, published):
    hub.add(NAME, published)
    hub.close()
    done = run(*TRAIN, "--init", NAME)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"there is no folder {NAME}, the Hugging Face hub cannot be reached" in done.stderr


def test_the_variables_of_the_environment_are_heeded(run_process, hub, published, tmp_path):
    hub.add(NAME, published)
    code = f"from plumbing.models import model_folder; print(model_folder('{NAME}'))"
    settings = {
        "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = run_process("-c", code, env=clean | settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "home")) and done.stderr == ""
    asked = len(hub.asked)
    settings["HF_HUB_OFFLINE"] = "1"
    again = run_process("-c", code, env=clean | settings)
    assert again.stdout == done.stdout and len(hub.asked) == asked
    assert "as it was downloaded before" in again.stderr


def test_nothing_of_the_hub_is_imported_for_a_folder(run_process):
    code = (
        "import sys; from plumbing.models import model_folder; model_folder('base'); "
        "assert 'huggingface_hub' not in sys.modules and 'torch' not in sys.modules"
    )
    assert run_process("-c", code).returncode == 0


@pytest.mark.parametrize("name", ["a/b--c", "facebook/mbart-large-cc25.git"])
def test_a_name_that_the_hub_forbids_is_no_traceback(hub, name):
    for revision in ("", "@main", "@" + "0" * 40):
        with pytest.raises(UserError, match="the Hugging Face hub shows no model"):
            model_folder(name + revision)
