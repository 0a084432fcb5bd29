"""tools/inside.py and tools/look.py: the numbers, the page that shows them, and what is refused.

The page is opened in a Chromium without a window, where there is one; where BROWSER_TESTS is
"required", as in .ci/run, its absence fails.
"""
import base64
import json
import os
import re
import shutil
import subprocess
import zlib

import pytest
import torch
from conftest import PATIENCE, ROOT

import tools.inside
import tools.look
from model import Config, MBart
from plumbing.files import UserError
from tokenizer import EOS, UNK, Tokenizer
from tools.inside import (
    Pieces,
    Task,
    count_pieces,
    layers_of,
    movement,
    piece_of,
    recorded_attention,
    rounded_levels,
    token_numbers,
    whose,
)
from tools.look import LADDER, filled, languages_of, packed_models, page

LOOK = ("-m", "tools.look")
TEXT = "El médico envió una muñeca </script><b>ante</b> 60.000 personas. Nada más."
LANGUAGES = ["es_XX", "en_XX", "ru_RU", "tr_TR", "gu_IN"]


def changed(folder, out, names, recipe):
    """A copy of a model folder, as if a run of this recipe had changed tensors with these names, so
    much that no attention is even."""
    model = MBart.from_pretrained(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if any(part in name for part in names):
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.2)
    model.save_pretrained(out)
    Tokenizer.from_pretrained(folder).save_pretrained(out)
    settings = {"stage": "summarize", "data": "builtin", "recipe": recipe, "init": str(folder)}
    (out / "args.json").write_text(json.dumps(settings), encoding="utf-8")
    return out


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory):
    """(a run that moved queries and keys, one that moved every layer), both from `small`."""
    folder = tmp_path_factory.mktemp("looked at")
    attended = ("encoder.layers", "encoder_attn")
    queries = [f"{part}.{name}" for part in ("self_attn", "encoder_attn") for name in ("q_", "k_")]
    qk = changed(small, folder / "qk", queries, "qk")
    model = MBart.from_pretrained(qk)
    kept = MBart.from_pretrained(small).state_dict()
    for name, tensor in model.state_dict().items():
        if ".decoder." in name and attended[1] not in name:
            tensor.copy_(kept[name])  # under qk the decoder's self-attention stays
    model.save_pretrained(qk)
    full = changed(small, folder / "full", (".layers.",), "full")
    return qk, full


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(tools.inside, "COUNTED", 20)
    monkeypatch.setattr(tools.inside, "PROBED", 4)


def numbers_in(path):
    html = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', html, re.S)
    return json.loads(found[1])


def unpacked(block):
    """(layers, planes, rows, columns) of numbers from 0 to 255."""
    content = zlib.decompress(base64.b64decode(block["data"]))
    shape = len(block["layers"]), block["planes"], block["rows"], block["columns"]
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape)


# ------------------------------------------------------------------------------------ the numbers

def test_movement_is_the_relative_norm_exactly_0_where_nothing_moved():
    base = {"frozen": torch.randn(3, 4), "scaled": torch.randn(3, 4), "zeros": torch.zeros(2)}
    base["still"] = torch.zeros(2)
    moved = base | {"scaled": base["scaled"] * 1.25, "zeros": torch.ones(2)}
    found = movement(base, moved)
    assert found["frozen"] == 0 and found["still"] == 0 and found["zeros"] is None
    assert found["scaled"] == pytest.approx(0.25)


@pytest.mark.slow
def test_attention_weights_are_transformers_for_every_head_and_the_model_stays_as_it_was(small):
    transformers = pytest.importorskip("transformers")
    ours = MBart.from_pretrained(small).eval()
    with torch.no_grad():  # sharper than a new model's, which looks everywhere alike
        for name, tensor in ours.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                tensor.mul_(12)
    folder = small.parent / "sharp"
    ours.save_pretrained(folder)
    theirs = transformers.MBartForConditionalGeneration.from_pretrained(
        folder, attn_implementation="eager"
    ).eval()
    source = torch.randint(5, 2000, (2, 11))
    source[1, 7:] = ours.config.pad_token_id
    decoder_input = torch.randint(5, 2000, (2, 6))
    with torch.no_grad():
        without = ours(source, decoder_input)
        with recorded_attention(ours) as weights:
            logits = ours(source, decoder_input)
        expected = theirs(
            input_ids=source,
            attention_mask=(source != ours.config.pad_token_id).long(),
            decoder_input_ids=decoder_input,
            output_attentions=True,
        )
        recorded = len(weights)
        assert torch.equal(logits, without) and torch.equal(ours(source, decoder_input), without)
    assert recorded == len(weights) == 6
    kinds = {
        ("encoder", "self_attn"): expected.encoder_attentions,
        ("decoder", "self_attn"): expected.decoder_attentions,
        ("decoder", "encoder_attn"): expected.cross_attentions,
    }
    for (stack, part), layers in kinds.items():
        assert len(layers) == 2
        for number, layer in enumerate(layers):
            mine = weights[f"model.{stack}.layers.{number}.{part}"]
            assert mine.shape == layer.shape
            assert (mine - layer).abs().max() < 1e-5
            assert layer.amax() > 0.5  # not all alike, which anything would equal
    stacked = layers_of(weights, "decoder", "encoder_attn")
    assert stacked.shape == (2, 2, 6, 11)
    levels = rounded_levels(stacked)
    assert levels.shape == (2, 3, 6, 11)
    assert (levels[:, 0] / 255 - stacked.mean(1)).abs().max() < 1 / 255
    assert (levels[:, 1:] / 255 - stacked).abs().max() < 1 / 255


def test_the_pieces_of_each_languages_texts_are_counted(small):
    tokenizer = Tokenizer.from_pretrained(small)
    texts = [("en_XX", "The man the man 60."), ("es_XX", "El hombre man 60."), ("ru_RU", "Да")]
    counts, read = count_pieces(texts, tokenizer, ["en_XX", "es_XX"])  # Russian is not asked for
    assert read == {"en_XX": 1, "es_XX": 1}
    by_hand = torch.zeros_like(counts)
    for lang, text in ((0, texts[0][1]), (1, texts[1][1])):
        for number in tokenizer.piece_ids(text):
            by_hand[lang, number] += 1
    assert torch.equal(counts, by_hand) and counts.max() > 1


def test_a_piece_is_a_languages_if_it_is_twice_as_common_there_as_in_any_other(small):
    tokenizer = Tokenizer.from_pretrained(small)
    words = []
    marks = []
    for number in range(UNK + 1, tokenizer.tag["ar_AR"]):
        piece = piece_of(tokenizer, number)
        kind = words if piece.strip("▁").isalpha() else marks
        kind.append(number)
    more, twice, other, never = words[:4]
    counts = torch.zeros(3, tokenizer.vocab_size)
    #         English, Spanish, Turkish; of 100, 200 and 10 pieces
    counts[:, more] = torch.tensor([30.0, 40.0, 0.0])     # .3 .2 .0: shared
    counts[:, twice] = torch.tensor([40.0, 40.0, 2.0])    # .4 .2 .2: English
    counts[:, other] = torch.tensor([0.0, 100.0, 2.0])    # .0 .5 .2: Spanish
    counts[:, marks[0]] = torch.tensor([30.0, 0.0, 0.0])  # English alone, but no letter: shared
    counts[:, UNK] = torch.tensor([0.0, 20.0, 6.0])
    category = whose(counts, tokenizer)
    english, spanish, shared, end, unseen = 0, 1, 3, 4, 5
    assert category[more] == shared and category[marks[0]] == shared
    assert category[twice] == english and category[other] == spanish
    assert category[never] == category[UNK] == category[tokenizer.tag["en_XX"]] == unseen
    assert category[EOS] == end


def test_a_language_that_nothing_compares_with_owns_its_pieces_and_marks_are_letters(small):
    tokenizer = Tokenizer.from_pretrained(small)
    counts, _ = count_pieces([("gu_IN", "ગુજરાતી")], tokenizer, ["gu_IN"])
    category = whose(counts, tokenizer)
    owners = [category[number].item() for number in tokenizer.piece_ids("ગુજરાતી")]
    assert owners.count(0) >= 1 and set(owners) <= {0, 1}  # the space alone is shared
    assert tools.inside.has_letter("ા") and not tools.inside.has_letter("▁60,")


def test_the_read_counts_no_more_texts_than_it_says(small, few):
    tokenizer = Tokenizer.from_pretrained(small)
    _, read = count_pieces([("en_XX", "a")] * 50, tokenizer, ["en_XX"])
    assert read == {"en_XX": 20}


def test_a_tokens_candidates_are_the_softmax_and_its_shares_sum_to_1(small):
    tokenizer = Tokenizer.from_pretrained(small)
    torch.manual_seed(0)
    logits = 4 * torch.randn(2, tokenizer.vocab_size)
    category = torch.randint(0, 5, (tokenizer.vocab_size,))
    pieces = Pieces(["en_XX", "es_XX"], {}, category)
    second = logits[0].topk(2).indices[1].item()
    found = token_numbers([second, EOS], logits.log_softmax(1), tokenizer, pieces)
    probs = logits.softmax(1)
    assert found[0]["rank"] == 2 and found[0]["piece"] == piece_of(tokenizer, second)
    assert found[1]["p"] == pytest.approx(probs[1, EOS].item(), rel=1e-3)
    for place, token in enumerate(found):
        values, ids = probs[place].topk(5)
        assert [each["piece"] for each in token["best"]] == [piece_of(tokenizer, i) for i in ids]
        assert [each["p"] for each in token["best"]] == pytest.approx(values.tolist(), rel=1e-3)
        assert sum(token["shares"]) == pytest.approx(1, abs=1e-3)
        for number, share in enumerate(token["shares"]):
            assert share == pytest.approx(probs[place][category == number].sum().item(), rel=1e-3)


# --------------------------------------------------------------------------------------- the file

@pytest.fixture(scope="module")
def made(small, runs, tmp_path_factory):
    """(the page of three models with probes, what the program said)."""
    from conftest import run_here

    qk, full = runs
    out = tmp_path_factory.mktemp("page") / "page.html"
    patch = pytest.MonkeyPatch()
    patch.setattr(tools.inside, "COUNTED", 20)
    patch.setattr(tools.inside, "PROBED", 4)
    patch.setattr(tools.inside, "STEPS", 20)
    done = run_here(
        *LOOK, qk, "--beside", full, "--text", TEXT, "--source-lang", "es_XX", "--lang", "es_XX",
        "--probe", "--device", "cpu", "--out", out,
    )  # fmt: skip
    patch.undo()
    assert done.returncode == 0, done.stderr
    return out, done.stdout


@pytest.mark.slow
def test_the_page_is_one_file_that_fetches_nothing_and_says_the_text_as_it_is(made):
    path, said = made
    html = path.read_text(encoding="utf-8")
    assert "page.html: " in said and "KB" in said
    assert len(html.encode()) < 2_000_000
    assert html.count("</script>") == 2  # the numbers' and the script's: the text's is escaped
    assert not re.search(r"(src|href)=\"(?!data:)|@import|url\(|fetch\(|XMLHttp", html)
    assert "/* look." not in html and "/* numbers */" not in html
    assert numbers_in(path)["text"] == TEXT


@pytest.mark.slow
def test_under_qk_only_queries_and_keys_of_the_two_attentions_moved(made, small, runs):
    models = numbers_in(made[0])["models"]
    assert [model["recipe"] for model in models] == [None, "full", "qk"]
    assert models[0]["moved"] is None
    base = MBart.from_pretrained(small).state_dict()
    run = MBart.from_pretrained(runs[0]).state_dict()
    moved = models[2]["moved"]
    assert set(moved) == set(base)
    for name, value in moved.items():
        is_qk = re.search(r"(encoder\..*self_attn|encoder_attn)\.[qk]_proj", name)
        if not is_qk:
            assert value == 0, name
        elif base[name].norm() == 0:
            assert value is None
        else:
            expected = (run[name] - base[name]).norm() / base[name].norm()
            assert value == pytest.approx(expected.item(), rel=1e-3) and value > 0
    assert models[1]["moved"]["model.decoder.layers.1.fc2.weight"] > 0
    assert models[1]["moved"]["model.shared.weight"] == 0


@pytest.mark.slow
def test_the_pages_numbers_are_those_of_the_model_that_eval_py_runs(made, run, runs):
    numbers = numbers_in(made[0])
    assert numbers["languages"] == LANGUAGES and numbers["texts"]["gu_IN"] == 20
    found = numbers["models"][2]
    told = run("eval.py", "--model", runs[0], "--lang", "es_XX", "--text", TEXT, "--device", "cpu")
    assert told.stdout.strip() == found["output"].strip()

    model = MBart.from_pretrained(runs[0]).eval()
    tokenizer = Tokenizer.from_pretrained(runs[0])
    source = tokenizer.encode(TEXT, "es_XX")
    assert [token["piece"] for token in found["source"]] == [piece_of(tokenizer, i) for i in source]
    assert [token["text"] for token in found["source"]][-3:] == [True, False, False]
    ids = {piece_of(tokenizer, i): i for i in range(tokenizer.vocab_size)}
    output = [ids[token["piece"]] for token in found["tokens"]]
    decoder_input = [tokenizer.lang_id("es_XX"), *output[:-1]]
    with torch.no_grad(), recorded_attention(model) as weights:
        probs = model(torch.tensor([source]), torch.tensor([decoder_input]))[0].softmax(1)
    for place, token in enumerate(found["tokens"]):
        assert token["p"] == pytest.approx(probs[place, output[place]].item(), rel=2e-3)
        assert sum(token["shares"]) == pytest.approx(1, abs=2e-3)
        values = probs[place].topk(5).values.tolist()
        assert [each["p"] for each in token["best"]] == pytest.approx(values, rel=2e-3)
    for key, stack, part in (("cross", "decoder", "encoder_attn"), ("own", "encoder", "self_attn")):
        mine = unpacked(found[key]) / 255
        expected = layers_of(weights, stack, part)
        assert (mine[:, 1:] - expected).abs().max() < 1 / 255
        assert (mine[:, 0] - expected.mean(1)).abs().max() < 1 / 255
    probe = found["probe"]
    assert probe["languages"] == LANGUAGES and 0 <= probe["accuracy"] <= 1
    assert len(probe["verdicts"]) == len(source)
    for row in probe["verdicts"]:
        assert sum(row) == pytest.approx(1, abs=2e-3)


def test_mbart_50_is_read_from_its_own_start(small, tmp_path, run, few):
    """Its decoder starts with </s> and the tag: the first token shown is the text's."""
    from corpora.sets import open_data
    from tokenizer import train_sentencepiece

    data = open_data("builtin", "summarize", "train", [("es_XX", "es_XX")], LANGUAGES)
    texts = [" ".join(data.text(("es_XX", "es_XX"), i)) for i in range(60)]
    pieces = tmp_path / "pieces" / "sentencepiece.bpe.model"
    pieces.parent.mkdir()
    train_sentencepiece(texts, pieces, 120)
    tokenizer = Tokenizer(pieces, "mbart50")
    tokenizer.save_pretrained(tmp_path / "fifty")
    torch.manual_seed(0)
    config = Config(
        vocab_size=tokenizer.vocab_size,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        decoder_start_token_id=EOS,
    )
    MBart(config).save_pretrained(tmp_path / "fifty")
    other = changed(tmp_path / "fifty", tmp_path / "run", (".layers.",), "full")
    options = ("--lang", "es_XX", "--langs", "es_XX", "--out", tmp_path / "page.html")
    done = run(*LOOK, other, "--text", texts[0], *options)
    assert done.returncode == 0, done.stderr
    for model in numbers_in(tmp_path / "page.html")["models"]:
        assert model["source"][0] == {"piece": "es_XX", "text": False}
        said = [token["piece"] for token in model["tokens"]]
        assert "es_XX" not in said[:1] and len(said) == model["cross"]["rows"]


def test_a_page_that_would_be_too_large_leaves_heads_out_and_then_layers_and_says_so(monkeypatch):
    torch.manual_seed(0)
    model = {"name": "long", "cross": torch.randint(0, 9, (4, 5, 8, 60), dtype=torch.uint8)}
    model["own"] = torch.randint(0, 9, (4, 5, 60, 60), dtype=torch.uint8)
    report = {"models": [model, model], "text": "…"}
    sizes = []
    for kept in LADDER:
        models = packed_models(report["models"], kept)
        sizes.append(len(filled(report | {"left_out": kept.left_out(), "models": models})))
    seen = []
    for limit in sorted(sizes, reverse=True):
        monkeypatch.setattr(tools.look, "LARGEST", limit)
        content = page(report)
        assert len(content) <= limit
        found = json.loads(re.search(rb'id="numbers">(.*?)</script>', content, re.S)[1])
        assert len(found["models"]) == 2
        first = found["models"][0]
        own = first["own"]
        seen.append((first["cross"]["planes"], own and (own["planes"], own["layers"])))
        assert bool(found["left_out"]) == (len(seen) > 1)
    monkeypatch.setattr(tools.look, "LARGEST", min(sizes) - 1)
    with pytest.raises(UserError, match="shorter text, or fewer models with --beside"):
        page(report)
    assert seen[0] == (5, (5, [1, 2, 3, 4])) and seen[1] == (5, (1, [1, 2, 3, 4]))
    assert seen[-1] == (1, None)
    order = list(dict.fromkeys(str(each) for each in seen))
    assert len(order) >= 4  # each rung holds less than the one before
    assert len(LADDER) == len(order) + 1  # 6 layers are all of the 4


# ---------------------------------------------------------------------------------------- refused

def test_mistakes_are_told_in_one_line(run, small, runs, tmp_path):
    qk, full = runs
    out = tmp_path / "page.html"

    def refused(*words, model=qk, text=("--text", "Nada."), lang=("--lang", "es_XX")):
        done = run(*LOOK, model, *text, *lang, "--out", out, *words)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert not out.exists()
        lines = done.stderr.strip().splitlines()
        assert lines[-1].startswith("error: ")
        return lines[-1]

    assert "--text is empty" in refused(text=("--text", "  "))
    assert "nothing that the models' vocabulary" in refused(text=("--text", "\u200b"))
    assert "unknown language 'es'; did you mean es_XX" in refused(lang=("--lang", "es"))
    assert "unknown language 'xx'" in refused("--source-lang", "xx")
    assert "unknown language 'yy'" in refused("--langs", "yy")
    assert "there is no folder" in refused("--beside", tmp_path / "nowhere")
    assert "name it with --base" in refused(model=small)
    assert "named twice" in refused("--beside", full, full)
    assert "named twice" in refused("--beside", small)
    assert "two with --langs" in refused("--probe", "--langs", "es_XX")
    config = (qk / "config.json").read_bytes()
    lost = run(
        *LOOK, qk, "--text", "Nada.", "--lang", "es_XX", "--out", qk / "config.json"
    )  # fmt: skip
    assert lost.returncode == 2 and "would be lost" in lost.stderr
    assert (qk / "config.json").read_bytes() == config
    test = tmp_path / "test.jsonl"
    test.write_text("kept")
    lost = run(
        *LOOK, qk, "--text", "Nada.", "--lang", "es_XX", "--data", f"jsonl:{tmp_path}",
        "--out", test,
    )  # fmt: skip
    assert lost.returncode == 2 and "would be lost" in lost.stderr and test.read_text() == "kept"
    test.write_text("<!doctype html>")  # a page of an earlier call may be replaced, wherever it is
    done = run(
        *LOOK, qk, "--text", "Nada.", "--lang", "es_XX", "--data", f"jsonl:{tmp_path}",
        "--out", test,
    )  # fmt: skip
    assert "would be lost" not in done.stderr
    test.unlink()
    out.mkdir()
    done = run(*LOOK, qk, "--text", "Nada.", "--lang", "es_XX", "--out", out)
    assert done.returncode == 2 and "is a folder" in done.stderr


def test_a_first_step_that_was_trained_anew_is_no_base_of_the_second(run, small, tmp_path):
    """Both have the same origin; the matrices would seem to have moved from where they never were.
    """
    train = ("train.py", "--stage", "translate", "--langs", "en_XX", "es_XX", "--steps", 1,
             "--tokens", 200, "--valid-examples", 2, "--no-eval", "--device", "cpu")
    first, second = tmp_path / "first", tmp_path / "second"
    assert run(*train, "--init", small, "--out", first).returncode == 0
    assert run(*train, "--init", first, "--out", second).returncode == 0
    words = (*LOOK, second, "--text", "Nada.", "--source-lang", "es_XX", "--lang", "en_XX")
    done = run(*words, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    again = (*train, "--init", small, "--seed", 1, "--out", first, "--overwrite")
    assert run(*again).returncode == 0
    done = run(*words, "--out", tmp_path / "other.html")
    assert done.returncode == 2 and "is not the model any more that" in done.stderr, done.stderr


def test_models_that_cannot_be_compared_are_refused(run, small, runs, tmp_path):
    shape = MBart.from_pretrained(small).config
    shape.encoder_layers = 1
    other = tmp_path / "shallow"
    MBart(shape).save_pretrained(other)
    Tokenizer.from_pretrained(small).save_pretrained(other)
    options = ("--text", "Nada.", "--lang", "es_XX", "--out", tmp_path / "page.html")
    done = run(*LOOK, runs[0], "--beside", other, *options)
    assert done.returncode == 2 and "different shapes (model.encoder.layers.1" in done.stderr

    trimmed = tmp_path / "trimmed"
    data = tmp_path / "data"
    data.mkdir()
    row = {"source": "Nada.", "target": "Nada", "source_lang": "es_XX", "target_lang": "es_XX"}
    for split in ("train", "valid", "test"):
        (data / f"{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    done = run("-m", "tools.trim", small, trimmed, "--data", f"jsonl:{data}", "--langs", "es_XX")
    assert done.returncode == 0, done.stderr
    done = run(*LOOK, runs[0], "--beside", trimmed, *options)
    assert done.returncode == 2 and "another vocabulary" in done.stderr

    of_data = (*options, "--data", f"jsonl:{data}", "--langs", "en_XX")
    done = run(*LOOK, runs[0], *of_data, "--probe")
    assert done.returncode == 2 and "has nothing from en_XX to en_XX; leave" in done.stderr
    done = run(*LOOK, runs[0], *of_data)
    assert done.returncode == 0 and "no training text in en_XX" in done.stderr
    (tmp_path / "page.html").unlink()

    lost = tmp_path / "lost"
    shutil.copytree(runs[0], lost)
    settings = json.loads((lost / "args.json").read_text())
    settings["init"] = str(tmp_path / "gone")
    (lost / "args.json").write_text(json.dumps(settings))
    done = run(*LOOK, lost, *options)
    assert done.returncode == 2 and "--base FOLDER names another" in done.stderr
    settings |= {"init": str(small), "origin": [[1, "another base's"]]}  # made anew since the run
    (lost / "args.json").write_text(json.dumps(settings))
    done = run(*LOOK, lost, *options)
    assert done.returncode == 2 and "name the right one with --base" in done.stderr
    assert not (tmp_path / "page.html").exists()


def test_data_without_columns_for_languages_are_of_the_runs_one_pair(run, runs, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    row = {"text": "Nada más.", "summary": "Nada"}
    (data / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    child = tmp_path / "child"
    shutil.copytree(runs[0], child)
    settings = json.loads((child / "args.json").read_text())
    settings |= {"data": f"jsonl:{data}", "langs": ["es_XX"]}
    (child / "args.json").write_text(json.dumps(settings))
    page = tmp_path / "page.html"
    look = (*LOOK, child, "--text", "Nada.", "--source-lang", "en_XX", "--lang", "es_XX", "--out")
    done = run(*look, page)
    assert done.returncode == 0, done.stderr
    assert numbers_in(page)["texts"] == {"es_XX": 2, "en_XX": 0}
    refused = run(*look, page, "--probe")
    assert refused.returncode == 2 and "no column says the languages" in refused.stderr
    settings["langs"] = ["es_XX", "en_XX"]
    (child / "args.json").write_text(json.dumps(settings))
    refused = run(*look, page)
    assert refused.returncode == 2 and "not one pair alone" in refused.stderr
    assert "--pairs" not in refused.stderr


# ------------------------------------------------------------------------------------ the browser

def browser_and_driver():
    """Paths of Chromium and of what steers it; skips the test where one is missing."""
    names = ("chromium", "chromium-browser", "google-chrome")
    programs = [path for path in map(shutil.which, names) if path]
    found = [next(iter(programs), None), shutil.which("chromedriver")]
    try:
        import selenium  # noqa: F401
    except ImportError:
        found.append(None)
    if None in found:
        reason = "needs chromium (or google-chrome), chromedriver and selenium"
        if os.environ.get("BROWSER_TESTS") == "required":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def commands(folder, *names):
    """Puts commands that do nothing but leave a line in folder/said, and those of the shell."""
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> "{folder}/said"\n')
        (folder / name).chmod(0o755)
    for name in ("bash", "dirname", "grep", "rm", "id"):
        if name not in names:
            (folder / name).symlink_to(shutil.which(name))


@pytest.mark.parametrize("name", ["chromium", "chromium-browser", "google-chrome"])
def test_a_browser_has_one_of_three_names(tmp_path, monkeypatch, name):
    pytest.importorskip("selenium")
    commands(tmp_path / "bin", name, "chromedriver")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert browser_and_driver()[0] == str(tmp_path / "bin" / name)


def test_ci_deletes_nothing_where_there_is_no_browser_and_none_can_be_installed(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / ".venv").mkdir()
    commands(tmp_path / "bin")  # no apt-get
    done = subprocess.run(
        [tmp_path / ".ci" / "run"], env={"PATH": str(tmp_path / "bin")}, capture_output=True,
        text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "install chromium and chromedriver" in done.stderr
    assert (tmp_path / ".venv").is_dir()


@pytest.fixture(scope="module")
def browser():
    program, driver = browser_and_driver()
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    with webdriver.Chrome(options=options, service=service) as opened:
        yield opened


def opened(browser, path, width=1200, dark=False):
    """Opens the page anew at a width in pixels, light or dark, and waits until it is drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(path.as_uri())
    ready = "return document.body.dataset.ready === 'yes'"
    WebDriverWait(browser, 60).until(lambda it: it.execute_script(ready))
    return numbers_in(path)


def all_of(browser, selector):
    from selenium.webdriver.common.by import By

    return browser.find_elements(By.CSS_SELECTOR, selector)


def point_at(browser, element):
    from selenium.webdriver.common.action_chains import ActionChains

    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    ActionChains(browser).move_to_element(element).perform()


def press(browser, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def text_of(browser, selector):
    return browser.execute_script(f"return document.querySelector('{selector}').textContent")


def sums_on_screen(browser, selector):
    script = f"return [...document.querySelectorAll('{selector} .unit')].map(u => u.dataset.sum)"
    return [float(value) for value in browser.execute_script(script)]


def summed_by_words(weights, source):
    """weights (S,) of tokens, summed over words as the page shows them."""
    sums = []
    for place, token in enumerate(source):
        before = source[place - 1]["piece"] if place else ""
        joins = token["text"] and place > 0 and source[place - 1]["text"]
        joins = joins and not token["piece"].startswith("▁") and re.search(r"\w", token["piece"])
        joins = joins and (before == "▁" or re.search(r"\w", before))
        if joins:
            sums[-1] += weights[place]
        else:
            sums.append(weights[place])
    return sums


def percent(share):
    """As look.js writes it."""
    if share == 0:
        return "0%"
    if share < 0.001:
        return "<0.1%"
    if share < 0.0995:
        return f"{100 * share:.1f}%"
    return f"{100 * share:.0f}%"


def not_in_the_map(moved):
    """What look.js says of the tensors that are in no square."""
    kinds = {"layer norms": [], "embeddings": [], "biases": []}
    for name, value in moved.items():
        if "norm" in name:
            kinds["layer norms"].append(value)
        elif "shared" in name or "embed" in name:
            kinds["embeddings"].append(value)
        elif name.endswith("bias"):
            kinds["biases"].append(value)
    told = []
    for kind, values in kinds.items():
        largest = max(value or 0 for value in values)
        if largest:
            words = f"by up to {percent(largest)}"
            if None in values:
                words += " (some from all zeros)"
        elif None in values:
            words = "moved from all zeros"
        else:
            words = "not moved"
        told.append(f"{kind} {words}")
    return f"Not in the map: {', '.join(told)}."


@pytest.mark.slow
def test_the_page_opens_without_an_error_and_shows_the_numbers_that_are_in_it(made, browser):
    numbers = opened(browser, made[0])
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    cells = {}
    for cell in all_of(browser, ".map td"):
        name = cell.get_attribute("data-name")
        cells.setdefault(name, []).append(cell.get_attribute("aria-label"))
    assert len(cells) == 2 * 6 + 2 * 10  # two layers of each stack
    for name, labels in cells.items():
        for label, model in zip(labels, numbers["models"][1:], strict=True):
            value = model["moved"][f"{name}.weight"]
            expected = "not moved" if value == 0 else f"moved by {percent(value)}"
            assert label.startswith(model["name"]) and label.endswith(expected)
    elsewhere = [drawn.text for drawn in all_of(browser, "#maps .hint")]
    for said, model in zip(elsewhere, numbers["models"][1:], strict=True):
        assert said == not_in_the_map(model["moved"])
    assert "biases moved from all zeros" in elsewhere[1]
    outputs = all_of(browser, "#outputs .tokens")
    for drawn, model in zip(outputs, numbers["models"], strict=True):
        label = drawn.get_attribute("aria-label")
        assert label == f"{model['name']}: {model['output']}"
    assert len(all_of(browser, "#outputs .token")) == sum(
        len(model["tokens"]) for model in numbers["models"]
    )


@pytest.mark.slow
def test_pointing_at_a_square_and_moving_with_arrows_says_its_number(made, browser):
    from selenium.webdriver.common.keys import Keys

    numbers = opened(browser, made[0])
    before = text_of(browser, "#moved-says")
    cell = all_of(browser, "[data-name='model.encoder.layers.1.self_attn.q_proj']")[1]
    point_at(browser, cell)
    said = text_of(browser, "#moved-says")
    assert said != before and said.startswith("encoder layer 2, self-attention q")
    for model in numbers["models"][1:]:
        value = model["moved"]["model.encoder.layers.1.self_attn.q_proj.weight"]
        assert f"{model['name']} moved by {percent(value)}" in said
    assert len(all_of(browser, ".map td.pointed")) == 2  # in both maps

    browser.execute_script("arguments[0].focus()", cell)
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert text_of(browser, "#moved-says").startswith("encoder layer 2, self-attention v")
    assert "not moved" in text_of(browser, "#moved-says")
    press(browser, Keys.ARROW_UP)
    assert text_of(browser, "#moved-says").startswith("encoder layer 1, self-attention v")


def check_token(browser, numbers, number, place, layer=-1, plane=0):
    """What the page says is what the JSON has of one token."""
    model = numbers["models"][number]
    token = model["tokens"][place]
    title = text_of(browser, "#token-title")
    assert title.startswith(f"{model['name']}, token {place + 1} of {len(model['tokens'])}")
    assert percent(token["p"]) in title
    shown = "return [...document.querySelectorAll('{} li')].map(l => [l.dataset.p, l.innerText])"
    for selector, expected in (
        ("#best", [each["p"] for each in token["best"]]),
        ("#shares", token["shares"]),
    ):
        rows = browser.execute_script(shown.format(selector))
        assert [float(p) for p, _ in rows] == expected
        for (_, text), value in zip(rows, expected):
            assert text.split()[-1] == percent(value)
    weights = unpacked(model["cross"])[layer, plane, place] / 255
    expected = summed_by_words(weights.tolist(), model["source"])
    assert sums_on_screen(browser, "#cross") == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_pointing_at_a_token_and_moving_with_arrows_shows_what_stands_behind_it(made, browser):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    numbers = opened(browser, made[0])
    tokens = all_of(browser, "#outputs .token[data-model='1']")
    point_at(browser, tokens[0])
    check_token(browser, numbers, 1, 0)
    first = sums_on_screen(browser, "#cross")
    point_at(browser, tokens[2])
    check_token(browser, numbers, 1, 2)
    assert sums_on_screen(browser, "#cross") != first

    browser.execute_script("arguments[0].focus()", tokens[2])
    press(browser, Keys.ARROW_RIGHT)
    check_token(browser, numbers, 1, 3)
    press(browser, Keys.ARROW_DOWN)
    check_token(browser, numbers, 2, 3)
    press(browser, Keys.HOME)
    check_token(browser, numbers, 2, 0)
    assert len(all_of(browser, "#outputs .token.chosen")) == 1

    tokens[1].click()  # holds it: what the mouse passes over next changes nothing
    point_at(browser, tokens[2])
    check_token(browser, numbers, 1, 1)
    tokens[1].click()
    point_at(browser, tokens[2])
    check_token(browser, numbers, 1, 2)

    point_at(browser, all_of(browser, "#outputs .token[data-model='2']")[0])
    layer, head = all_of(browser, "#cross-controls select")
    Select(layer).select_by_visible_text("1")
    check_token(browser, numbers, 2, 0, layer=0)
    Select(head).select_by_visible_text("2")
    check_token(browser, numbers, 2, 0, layer=0, plane=2)
    all_of(browser, "#cross-controls input")[0].click()
    weights = unpacked(numbers["models"][2]["cross"])[0, 2, 0] / 255
    assert sums_on_screen(browser, "#cross") == pytest.approx(weights.tolist(), abs=1e-4)
    assert browser.get_log("browser") == []


@pytest.mark.slow
def test_a_source_words_own_attention_and_the_probes_verdict_are_shown(made, browser):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    numbers = opened(browser, made[0])
    model, layer, _ = all_of(browser, "#own-controls select")
    Select(model).select_by_index(1)
    Select(layer).select_by_visible_text("2")
    all_of(browser, "#own-controls input")[0].click()  # pieces
    own = unpacked(numbers["models"][1]["own"])[1, 0] / 255
    point_at(browser, all_of(browser, "#own button")[4])
    assert sums_on_screen(browser, "#own") == pytest.approx(own[4].tolist(), abs=1e-4)
    browser.execute_script("arguments[0].focus()", all_of(browser, "#own button")[4])
    press(browser, Keys.ARROW_RIGHT)
    assert sums_on_screen(browser, "#own") == pytest.approx(own[5].tolist(), abs=1e-4)
    probe = numbers["models"][1]["probe"]
    best = max(range(5), key=lambda i: probe["verdicts"][5][i])
    said = text_of(browser, "#own-says")
    assert f"the probe says {LANGUAGES[best]}, {percent(probe['verdicts'][5][best])}" in said


@pytest.mark.slow
def test_the_page_fits_400_pixels_and_is_dark_where_the_system_is(made, browser):
    opened(browser, made[0], width=400)
    widths = "return [document.documentElement.scrollWidth, window.innerWidth]"
    inner, outer = browser.execute_script(widths)
    assert inner <= 400 and outer == 400
    wider = "[...document.querySelectorAll('.tokens')].filter(t => t.scrollWidth > t.clientWidth)"
    assert browser.execute_script(f"return {wider}.length") == 0  # nothing hidden at its side
    colors = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"

    def brightness(color):
        return sum(int(part) for part in re.findall(r"\d+", color)[:3]) / 3

    ground, ink = browser.execute_script(colors)
    assert brightness(ground) > 230 and brightness(ink) < 60
    opened(browser, made[0], width=400, dark=True)
    ground, ink = browser.execute_script(colors)
    assert brightness(ground) < 40 and brightness(ink) > 200
    assert browser.get_log("browser") == []


def test_the_browser_is_not_skipped_where_it_is_required(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("BROWSER_TESTS", raising=False)
    with pytest.raises(pytest.skip.Exception):
        browser_and_driver()
    monkeypatch.setenv("BROWSER_TESTS", "required")
    with pytest.raises(pytest.fail.Exception):
        browser_and_driver()


@pytest.mark.parametrize("data", ["builtin", "builtin:0.2"])
def test_the_built_in_corpus_at_any_share_has_its_five_languages(data):
    options = {"text": "", "stage": "summarize", "options": {}, "probe": False}
    task = Task(source_lang="es_XX", lang="es_XX", data=data, **options)
    assert set(languages_of(task, None, {"pairs": ["en_XX-en_XX"]})) == set(LANGUAGES)
