"""The card of a run folder, README.md, and the picture of its training."""
import io
import re
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from conftest import ROOT, run_here

from eval import validation_loss_of
from model import MBart
from plumbing import card
from plumbing.card import head_of
from plumbing.files import UserError, read_json, write_json
from plumbing.runs import SIGN, read_settings, shareable, write_settings
from tokenizer import MODEL_FILE, Tokenizer
from tools.start import SMALL, random_model

TEXT = "The doctor sent a doll in the mountains.\n\nNobody  was hurt.\n"
QUICK = (
    "train.py", "--stage", "translate", "--pairs", "en_XX-es_XX", "--steps", 30, "--tokens", 400,
    "--eval-every", 15, "--valid-examples", 4, "--device", "cpu",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run of train.py from base/, scored at its end."""
    out = tmp_path_factory.mktemp("somewhere") / "mine"
    done = run_here(*QUICK, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of that run, to be changed."""
    shutil.copytree(trained[0], tmp_path / "mine")
    return tmp_path / "mine"


def card_of(folder):
    return (folder / "README.md").read_text(encoding="utf-8")


def head_lists(text):
    """The YAML head, as far as it goes: {key: value, or list of values}."""
    found = {}
    key = None
    for line in text.split("---\n")[1].splitlines():
        if line.startswith("- "):
            found[key].append(line[2:])
            continue
        key, _, value = line.partition(":")
        found[key] = value.strip() or []
    return found


def what_the_lines_say(folder, monkeypatch):
    """What the Python lines of a card print, run as they stand."""
    lines = re.search(r"```python\n(.*?)```", card_of(folder), re.DOTALL)[1]
    (folder / "article.txt").write_text(TEXT, encoding="utf-8")
    monkeypatch.chdir(folder)
    out = io.StringIO()
    with redirect_stdout(out):
        exec(compile(lines, "README.md", "exec"), {})
    return out.getvalue()


def what_eval_says(folder, *words):
    source = re.search(r'src_lang="(\w+)"', card_of(folder))[1]
    target = re.search(r'to_ids\("(\w+)"\)', card_of(folder))[1]
    done = run_here(
        "eval.py", "--model", folder, "--source-lang", source, "--lang", target, "--file",
        folder / "article.txt", "--device", "cpu", *words,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------ the card

def test_a_finished_run_has_a_card_with_a_head_for_the_hub(trained):
    out, _ = trained
    head = head_lists(card_of(out))
    assert head == {
        "language": ["en", "es"], "license": "mit", "library_name": "transformers",
        "pipeline_tag": "translation", "tags": ["mbart", "qkbart"],
    }
    text = card_of(out)
    assert "| base model | `base` |" in text and "| licence of the base | mit |" in text
    assert "en_XX-es_XX" in text and "| recipe | `full` |" in text


def test_the_head_is_one_that_the_hubs_own_library_reads(trained):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(trained[0] / "README.md").data
    assert (data.license, data.pipeline_tag, data.language) == ("mit", "translation", ["en", "es"])


def test_the_table_is_the_one_that_was_printed(trained):
    out, printed = trained
    line = next(line for line in printed.splitlines() if "en_XX -> es_XX" in line)
    row = next(line for line in card_of(out).splitlines() if line.startswith("| en_XX | es_XX |"))
    numbers = re.findall(r"\d+\.\d", line.split("references")[0])
    assert len(numbers) == 12 and numbers == re.findall(r"\d+\.\d", row)[:12]
    assert next(line for line in printed.splitlines() if line.startswith("chrF:")) in card_of(out)


def test_nothing_that_is_handed_on_names_this_machine(trained):
    out, _ = trained
    assert read_settings(out)["out"] == str(out)
    for path in out.iterdir():
        if path.name.startswith("state."):
            continue
        content = path.read_bytes()
        for private in (str(ROOT), str(out.parent), "somewhere"):
            assert private.encode() not in content, path.name
    assert "--out mine" in card_of(out)
    command = re.search(r"hf upload OWNER/NAME \. (.*?)`", card_of(out))[1]
    assert command == (
        '--exclude "state.*" --exclude .lock --exclude bad_batch.json --exclude "*.tmp"'
    )
    hidden = {path.name for path in out.glob("state.*")} | {".lock"}
    assert hidden == {"state.pt", "state.json", ".lock"}


@pytest.mark.parametrize("word, expected", [
    ("runs/translate", "runs/translate"),
    ("/home/anna/mbart", "mbart"),
    ("jsonl:/data/of/anna/news", "jsonl:news"),
    ("jsonl:news", "jsonl:news"),
    ("--init=/home/anna/mbart", "--init=mbart"),
    ("../anna/mbart", "mbart"),
    ("runs/anna/mbart", "mbart"),
    ("/home/anna", "FOLDER"),
    ("xlsum:/", "xlsum:FOLDER"),
    ("facebook/mbart-large-cc25", "facebook/mbart-large-cc25"),
    ("help:", "help:"),
])
def test_of_paths_the_last_part_is_shown_and_no_user(monkeypatch, word, expected):
    monkeypatch.setenv("USER", "anna")
    assert shareable(word) == expected
    assert shareable([word, "--steps"]) == [expected, "--steps"]


@pytest.mark.slow
@pytest.mark.parametrize("words", [
    (),
    ("--beam", 1),
    ("--no-repeat-ngram", 2, "--min-new-tokens", 9, "--max-new-tokens", 12),
    ("--beam", 3, "--length-penalty", 0.5),
])
def test_the_lines_of_the_card_run_and_say_what_eval_says(copied, tmp_path, monkeypatch, words):
    pytest.importorskip("transformers")
    done = run_here("eval.py", "--model", copied, "--pairs", "en_XX-es_XX", "--examples", 2,
                    "--device", "cpu", "--json", tmp_path / "scores.json", *words)
    assert done.returncode == 0, done.stderr
    done = run_here("-m", "tools.card", copied, "--scores", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    said = what_the_lines_say(copied, monkeypatch)
    assert said == what_eval_says(copied, *words) and len(said.split()) > 2


@pytest.mark.slow
@pytest.mark.parametrize("stage, words", [("translate", ("--tagless",)), ("summarize", ())])
def test_they_do_so_without_a_source_tag_and_for_summaries_not_yet_scored(
    tmp_path, monkeypatch, stage, words
):
    pytest.importorskip("transformers")
    out = tmp_path / "run"
    done = run_here("train.py", "--stage", stage, "--langs", "en_XX", "es_XX", *QUICK[5:], *words,
                    "--no-eval", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Not measured." in card_of(out)
    said = what_the_lines_say(out, monkeypatch)
    assert said == what_eval_says(out) and len(said.split()) > 2


@pytest.mark.slow
def test_they_do_so_in_the_layout_of_mbart_50(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    tokenizer = Tokenizer(ROOT / "base" / MODEL_FILE, "mbart50")
    tokenizer.save_pretrained(tmp_path / "start")
    base = MBart.from_pretrained(ROOT / "base")
    layers = {name: getattr(base.config, name) for name in ("encoder_layers", "decoder_layers")}
    model = random_model(tokenizer, shape=SMALL | layers)
    tensors = model.state_dict()
    for name, tensor in base.state_dict().items():
        if tensor.shape == tensors[name].shape:
            tensors[name].copy_(tensor)
        elif name == "model.shared.weight":  # the same pieces and 25 tags in front, less <mask>
            tensors[name][: len(tensor) - 1] = tensor[:-1]
    model.save_pretrained(tmp_path / "start")
    out = tmp_path / "run"
    done = run_here(*QUICK, "--init", tmp_path / "start", "--no-eval", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "forced_bos_token_id=tag" in card_of(out)
    said = what_the_lines_say(out, monkeypatch)
    assert said == what_eval_says(out) and said.strip()


def test_what_is_no_mbart_says_so_and_shows_this_project(tmp_path):
    out = tmp_path / "run"
    done = run_here(*QUICK, "--residual-drop", 2, "--no-eval", "--out", out)
    assert done.returncode == 0, done.stderr
    text = card_of(out)
    assert head_lists(text)["library_name"] == "qkbart"
    assert "no plain mBART" in text and "AutoModel" not in text
    command = re.search(r"```bash\npython (eval.py .*?)\n", text)[1].split()
    (tmp_path / "article.txt").write_text(TEXT, encoding="utf-8")
    done = run_here(*command, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


# --------------------------------------------------------------- runs that go on, other folders

def test_a_model_that_changes_loses_its_card_until_it_is_finished(copied):
    (copied / "card.json").write_text("{}")  # of the model that was there before
    stop = ("--overwrite", "--stop-at", 16, "--out", copied)
    assert run_here(*QUICK, *stop).returncode == 0
    for name in ("README.md", "log.svg", "card.json"):
        assert not (copied / name).exists(), name
    done = run_here("train.py", "--resume", copied)
    assert done.returncode == 0, done.stderr
    assert "30 updates of" in card_of(copied) and "| en_XX | es_XX |" in card_of(copied)
    assert not list(copied.glob("*.tmp"))


def test_a_card_that_somebody_edited_stays(copied):
    edited = card_of(copied).replace(SIGN, "") + "\nMore.\n"
    (copied / "README.md").write_text(edited, encoding="utf-8")
    done = run_here(*QUICK, "--overwrite", "--no-eval", "--out", copied)
    assert done.returncode == 0 and card_of(copied) == edited, done.stderr
    done = run_here("-m", "tools.card", copied)
    assert done.returncode == 2 and "--overwrite replaces it" in done.stderr
    assert card_of(copied) == edited
    assert run_here("-m", "tools.card", copied, "--overwrite").returncode == 0
    assert SIGN in card_of(copied)


@pytest.mark.slow
def test_a_model_that_a_tool_makes_has_no_card_of_another(copied, tmp_path):
    out = tmp_path / "out"
    trim = ("-m", "tools.trim", copied, out, "--langs", "en_XX", "es_XX")
    assert run_here(*trim).returncode == 0
    assert not (out / "README.md").exists() and not (out / "card.json").exists()
    assert run_here("-m", "tools.card", out).returncode == 0
    assert "no log.csv of its own" in card_of(out) and "log.svg" not in card_of(out)
    assert run_here(*trim, "--overwrite").returncode == 0
    assert not (out / "README.md").exists()


def test_what_only_a_person_knows_is_kept_and_passed_on(copied, tmp_path):
    words = ("--licence", "apache-2.0", "--base-model", "facebook/mbart-large-cc25")
    assert run_here("-m", "tools.card", copied, *words).returncode == 0
    assert run_here("-m", "tools.card", copied).returncode == 0  # said once is enough
    head = head_of(copied / "README.md")
    assert (head["license"], head["base_model"]) == words[1::2]
    out = tmp_path / "next"
    done = run_here(*QUICK, "--init", copied, "--no-eval", "--out", out)
    assert done.returncode == 0, done.stderr
    head = head_of(out / "README.md")
    assert (head["license"], head["base_model"]) == words[1::2]
    assert "`mine`, which was made from `facebook/mbart-large-cc25`" in card_of(out)


def test_an_older_run_with_paths_in_its_settings_can_be_handed_on(copied):
    write_json(copied / "args.json", read_settings(copied) | {"data": "xlsum:/home/anna/xlsum"})
    (copied / "state.json").unlink()
    assert run_here("-m", "tools.card", copied).returncode == 0
    assert read_json(copied / "args.json")["data"] == "xlsum:xlsum"
    assert read_settings(copied)["data"] == "xlsum:/home/anna/xlsum"
    text = card_of(copied)
    assert head_lists(text)["datasets"] == ["csebuetnlp/xlsum"] and "CC BY-NC-SA 4.0" in text
    assert "anna" not in text


def test_a_full_disk_does_not_cost_the_paths_of_a_run(small, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(small, folder)
    write_json(folder / "args.json", {"stage": "summarize", "data": "jsonl:news"})
    write_json(folder / "state.json", {"data": "jsonl:/home/anna/news"})
    before = read_settings(folder)

    def full(path, value):
        raise UserError(f"{path}: could not be written")

    monkeypatch.setattr("plumbing.runs.write_json", full)
    done = run_here("-m", "tools.card", folder)
    assert done.returncode == 2 and "could not be written" in done.stderr
    assert read_settings(folder) == before


def test_paths_that_are_no_longer_any_are_removed(tmp_path):
    write_settings(tmp_path, {"data": "jsonl:/home/anna/news"})
    write_settings(tmp_path, {"data": "builtin"})
    assert read_settings(tmp_path) == {"data": "builtin"}
    assert not (tmp_path / "state.json").exists()


def test_a_base_of_the_hub_is_named_and_of_an_unknown_one_nothing_is_said(copied):
    for init, base in (("facebook/mbart-large-cc25@" + "0a" * 20, "facebook/mbart-large-cc25"),
                       ("facebook/mbart-large-cc25", None)):
        (copied / "README.md").unlink()
        write_json(copied / "args.json", read_settings(copied) | {"init": init})
        (copied / "state.json").unlink(missing_ok=True)
        assert run_here("-m", "tools.card", copied).returncode == 0
        head = head_of(copied / "README.md")
        assert head.get("base_model") == base and head["license"] == "unknown"
        assert "| licence of the base | unknown: see the base model |" in card_of(copied)


def test_what_an_earlier_run_learned_is_not_called_zero_shot():
    rows = []
    for lang in ("en_XX", "tr_TR", "ru_RU"):
        scores = {"R1": [10.0, 9.0, 11.0]}
        row = {"source": lang, "target": lang, "n": 9, "floors": {}, "references": {}}
        rows.append(row | {"scores": scores})
    scores = {"stage": "summarize", "data": "builtin", "options": {}, "signatures": []}
    scores["rows"] = rows
    settings = {"stage": "summarize", "pairs": ["tr_TR-tr_TR"]}
    for learned, unseen in (
        ({}, ["en_XX", "ru_RU"]),
        ({"learned": ["summarize en_XX-en_XX", "summarize tr_TR-tr_TR"]}, ["ru_RU"]),
    ):
        lines = card.results(settings | learned, scores).splitlines()
        marked = [line.split()[1] for line in lines if "zero-shot" in line]
        assert marked == unseen


def test_bad_scores_and_bad_words_are_named(copied, tmp_path):
    path = tmp_path / "scores.json"
    row = {"source": "en_XX", "target": "es_XX", "n": 1, "scores": {}, "floors": {}}
    for report, words in (
        ([], "no scores of a test set"),
        ({"model": str(copied), "data": None, "rows": [row]}, "no scores of a test set"),
        (
            {  # as eval.py writes it of one's own text
                "model": str(copied),
                "stage": "translate",
                "data": None,
                "options": {},
                "signatures": [],
                "rows": [row | {"references": {}}],
            },
            "no scores of a test set",
        ),
        ({"model": "base", "data": "builtin", "rows": [row]}, "is of base, not of"),
        (
            {"model": str(copied), "data": "builtin", "rows": [row], "validation loss": 1e9},
            "of a model that was in",
        ),
        (  # as eval.py writes it before a run's first validation
            {"model": str(copied), "data": "builtin", "rows": [row], "validation loss": None},
            "of a model that was in",
        ),
        (
            {
                "model": str(copied),
                "data": "builtin",
                "rows": [row],
                "validation loss": validation_loss_of(copied),
            },
            "no scores of a test set",
        ),
        (  # as papers.pipeline writes it: two models' work
            {
                "model": str(copied),
                "translator": "runs/translate",
                "stage": "translate",
                "data": "builtin",
                "options": {},
                "signatures": [],
                "rows": [row | {"references": {}}],
                "validation loss": validation_loss_of(copied),
            },
            "no scores of a test set",
        ),
    ):
        write_json(path, report)
        done = run_here("-m", "tools.card", copied, "--scores", path)
        assert done.returncode == 2 and words in done.stderr, (report, done.stderr)
        assert len(done.stderr.splitlines()) == 1
    for words in (("--licence", "a: b"), ("--base-model", "mbart")):
        done = run_here("-m", "tools.card", copied, *words)
        assert done.returncode == 2 and words[0] in done.stderr
    done = run_here("-m", "tools.card", tmp_path)
    assert done.returncode == 2 and "name a model folder" in done.stderr
    (copied / "log.csv").write_text("step,loss\nx,y\n")
    done = run_here("-m", "tools.card", copied)
    assert done.returncode == 2 and "not the log of a run" in done.stderr


def changed_settings(folder, **settings):
    write_json(folder / "args.json", read_settings(folder) | settings)
    (folder / "state.json").unlink(missing_ok=True)


def test_a_recipe_with_a_bar_stays_in_its_cell_and_backticks_end_no_block(copied):
    command = ["--recipe", "encoder|decoder", "--out", "a```b"]
    changed_settings(copied, recipe="encoder|decoder", command=command)
    assert run_here("-m", "tools.card", copied).returncode == 0
    text = card_of(copied)
    assert "| recipe | `encoder\\|decoder` |" in text
    block = text[text.index("````bash\n"):]
    assert block.split("````")[1].count("```") == 1 and "\n````\n" in block


@pytest.mark.parametrize("settings", [
    {"stage": ["translate"]}, {"init": 5}, {"data": {}}, {"steps": "many"},
    {"pairs": "en_XX-es_XX"}, {"pairs": [1]}, {"pairs": ["en_XX"]}, {"command": [1]},
    {"world_size": "2"}, {"recipe": []},
])  # fmt: skip
def test_settings_of_an_odd_kind_are_named(copied, settings):
    changed_settings(copied, **settings)
    done = run_here("-m", "tools.card", copied)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    name = next(iter(settings))
    assert f"args.json: {name} is " in done.stderr and "mend or remove it" in done.stderr


@pytest.mark.parametrize("name, text, at", [
    ("log.csv", "", 1),
    ("log.csv", "a,b\n1,2\n", 1),
    ("log.csv", "step,loss,validation loss,tokens/s,learning rate\n,1,1,1,1\n", 2),
    ("log.csv", "step,loss,validation loss,tokens/s,learning rate\n\n1,1,1,1,1,5\n", 3),
    ("watch.csv", "step,source\n1,en_XX\n", 1),
    ("watch.csv", "step,source,target,column,score,off-target\n1,en_XX\n", 2),
])
def test_a_damaged_line_of_a_log_is_named(copied, name, text, at):
    (copied / name).write_text(text)
    done = run_here("-m", "tools.card", copied)
    assert done.returncode == 2 and f"{name}:{at}: not the log of a run" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("text, found", [
    ("\ufefflicense: mit", {"license": "mit"}),
    ("license: mit  # as the base", {"license": "mit"}),
    ("license:\n- mit\nbase_model:\n  - a/b", {"license": "mit", "base_model": "a/b"}),
    ("license: [mit]\nbase_model: ['a/b']", {"license": "mit", "base_model": "a/b"}),
    ("license: [mit, other]\nbase_model: /home/anna/model", {}),
    ("base_model: model", {}),
    ("license: mit\ndate: 2024-02-30", {}),  # a day that there is not
])
def test_the_head_of_a_card_is_read_as_others_write_it(tmp_path, text, found):
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = f"{mark}---\n{text.removeprefix(mark)}\n---\n# a model\n"
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert head_of(tmp_path / "README.md") == found


def test_a_user_without_a_home_has_nothing_to_hide(monkeypatch):
    """As in a container that runs under a number: HOME is not set, and no user has that number."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError("uid not found")))
    assert shareable("runs/x") == "runs/x" and shareable("/home/anna/model") == "model"


# --------------------------------------------------------------------------------- the picture

def test_the_picture_is_drawn_of_the_log(trained):
    pytest.importorskip("matplotlib")
    out, _ = trained
    picture = (out / "log.svg").read_text(encoding="utf-8")
    assert picture.startswith("<?xml") and "![" in card_of(out) and "(log.svg)" in card_of(out)


def test_each_curve_of_the_picture_is_a_column_of_the_logs(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    (tmp_path / "log.csv").write_text(
        "step,loss,validation loss,tokens/s,learning rate\n5,3.0,2.5,9,1e-3\n"
    )
    (tmp_path / "watch.csv").write_text(
        "step,source,target,column,score,off-target\n0,es_XX,en_XX,chrF,11,90\n"
        "5,es_XX,en_XX,chrF,22,4\n0,en_XX,es_XX,chrF,33,\n"
    )
    drawn = []

    def recorded(axis, rows, name, label):
        drawn.append((name, label, [(row["step"], row[name]) for row in rows]))
        axis.plot([], label=label)

    monkeypatch.setattr(card, "curve", recorded)
    assert card.draw_log(tmp_path)
    assert drawn == [
        ("loss", "training", [(5, 3.0)]),
        ("validation loss", "validation", [(5, 2.5)]),
        ("learning rate", "learning rate", [(5, 1e-3)]),
        ("score", "es_XX-en_XX", [(0, 11), (5, 22)]),
        ("off-target", "es_XX-en_XX", [(0, 90), (5, 4)]),
        ("score", "en_XX-es_XX", [(0, 33)]),
        ("off-target", "en_XX-es_XX", [(0, None)]),
    ]


def same_tensors(one, other):
    """Have two folders the same weights? Their files may order the metadata differently."""
    first = MBart.from_pretrained(one).state_dict()
    second = MBart.from_pretrained(other).state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_watched_pairs_are_scored_at_every_validation_and_a_resumed_run_goes_on(tmp_path):
    watch = ("--watch", "es_XX-en_XX", "en_XX-es_XX", "--no-eval")
    whole = tmp_path / "whole"
    done = run_here(*QUICK, *watch, "--out", whole)
    assert done.returncode == 0, done.stderr
    rows = (whole / "watch.csv").read_text().splitlines()
    assert rows[0] == "step,source,target,column,score,off-target"
    starts = [",".join(row.split(",")[:4]) for row in rows[1:]]
    assert starts == [f"{step},{pair},chrF" for step in (0, 15, 30)
                      for pair in ("es_XX,en_XX", "en_XX,es_XX")]
    assert "  es_XX -> en_XX: chrF " in done.stdout
    halves = tmp_path / "halves"
    assert run_here(*QUICK, *watch, "--stop-at", 20, "--out", halves).returncode == 0
    assert run_here("train.py", "--resume", halves).returncode == 0
    assert (halves / "watch.csv").read_bytes() == (whole / "watch.csv").read_bytes()
    assert same_tensors(halves, whole)
    unwatched = tmp_path / "unwatched"
    assert run_here(*QUICK, "--no-eval", "--out", unwatched).returncode == 0
    assert same_tensors(unwatched, whole)
    pytest.importorskip("matplotlib")
    assert len((whole / "log.svg").read_bytes()) > 1.2 * len((unwatched / "log.svg").read_bytes())
    assert run_here(*QUICK, "--no-eval", "--overwrite", "--out", whole).returncode == 0
    assert not (whole / "watch.csv").exists()


@pytest.mark.parametrize("words, said", [
    (("--stage", "align", "--align-layer", 1, "--watch", "es_XX-en_XX"), "--stage align has none"),
    (("--stage", "translate", "--watch", "es_XX"), "--watch es_XX: write pairs as"),
    (("--stage", "translate", "--watch", "es_XX-xx_XX"), "unknown language 'xx_XX'"),
])
def test_what_cannot_be_watched_is_said_before_the_run(tmp_path, words, said):
    done = run_here("train.py", *words, "--steps", 1, "--device", "cpu", "--out", tmp_path / "run")
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "run").exists()


def test_without_matplotlib_there_is_no_picture_and_no_complaint(copied, monkeypatch):
    (copied / "log.svg").unlink()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run_here("-m", "tools.card", copied)
    assert done.returncode == 0 and not done.stderr
    assert not Path(copied / "log.svg").exists() and "log.svg" not in card_of(copied)
