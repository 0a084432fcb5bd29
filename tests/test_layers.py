"""tools/layers.py: what each layer knows of languages, by probe, SVCCA and retrieval."""
import json

import pytest
import torch
from conftest import ROOT

from corpora.builtin import Builtin
from data import Examples, held_out
from model import MBart
from tokenizer import Tokenizer
from tools.layers import (
    Texts,
    confusion_matrix,
    correlation,
    directions,
    fitted_probe,
    measure_layers,
    pooled_states,
    probabilities,
    probe,
    retrieval,
    svcca,
    svcca_floor,
    token_states,
)

LAYERS = ("-m", "tools.layers")


@pytest.fixture
def few(monkeypatch):
    """What it takes to tell languages apart that are very different."""
    monkeypatch.setattr("tools.layers.STEPS", 30)
    monkeypatch.setattr("tools.layers.PROBED", {"encoder": 20, "decoder": 6})
    monkeypatch.setattr("tools.layers.COMPARED", 60)
    monkeypatch.setattr("tools.layers.RETRIEVED", 30)


@pytest.mark.slow
def test_the_probe_finds_what_is_there_and_nothing_where_nothing_is():
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(0, 3, (3000,), generator=generator)
    noise = torch.randn(3000, 16, generator=generator)
    told = noise + 4 * torch.nn.functional.one_hot(true, 16)
    for states, low, high in ((told, 0.95, 1.0), (noise, 0.25, 0.42)):
        classifier = fitted_probe(states[:2000], true[:2000], 3)
        for measure in (confusion_matrix, probabilities):
            found = measure(classifier, states[2000:], true[2000:], 3)
            assert found.sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
            assert low <= found.diagonal().mean() <= high


def test_a_classifier_that_hardly_leans_is_right_and_gives_little_probability():
    def leaning(states):
        return torch.cat([states, -states], 1)  # logits of two languages

    states = torch.tensor([[0.1], [0.2], [-0.1], [0.3]])
    true = torch.tensor([0, 0, 1, 1])
    assert confusion_matrix(leaning, states, true, 2).tolist() == [[1.0, 0.0], [0.5, 0.5]]
    found = probabilities(leaning, states, true, 2)
    of_first = torch.sigmoid(2 * states[:, 0])
    assert found[0, 0].item() == pytest.approx(of_first[:2].mean().item())
    assert found[1, 1].item() == pytest.approx(1 - of_first[2:].mean().item())


def test_a_rescaled_probe_finds_what_was_only_made_small(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(0, 2, (3000,), generator=generator)
    states = torch.randn(3000, 8, generator=generator)
    states[:, 0] = 1e-3 * (2 * true - 1)
    monkeypatch.setattr("tools.layers.STEPS", 60)
    found = probe(states[:2000], true[:2000], states[2000:], true[2000:], ["en_XX", "es_XX"])
    assert found["accuracy"] < 0.7 and found["probability"] < 0.6
    assert found["rescaled"] > 0.95
    assert len(found["confusion"]) == 2


def test_svcca_is_one_for_a_linear_map_low_for_unrelated_states_and_between_for_shared_ones():
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(600, 24, generator=generator) for _ in range(2))
    mapped = x @ torch.randn(24, 24, generator=generator) + 3
    assert svcca(x, mapped, keep=1 - 1e-12) == pytest.approx(1, abs=1e-6)
    assert svcca(x, other) < 0.25
    shared = torch.cat([x[:, :12], other[:, 12:]], 1)
    assert svcca(x, shared) == pytest.approx(0.55, abs=0.1)


def test_the_floor_of_svcca_is_what_shuffled_rows_have_in_common():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 24, generator=generator)
    unrelated = torch.randn(200, 24, generator=generator)
    floor = svcca_floor(directions(x), directions(x))
    assert correlation(directions(x), directions(x)) == pytest.approx(1, abs=1e-6)
    assert floor == pytest.approx(svcca(x, unrelated), abs=0.05)
    assert floor > svcca_floor(directions(x[:, :4]), directions(x[:, :4]))  # fewer dimensions


def test_retrieval_counts_right_neighbours_in_both_directions():
    a = torch.eye(4)
    assert retrieval(a, a) == 1 and retrieval(a, a.roll(1, 0)) == 0
    b = a.clone()
    # Row 3 is taken for a translation of row 0, and 0 still finds its own.
    b[3] = torch.tensor([0.9, 0, 0, 0.1])
    assert retrieval(a, b) == (4 + 3) / 8


def test_probing_reads_text_and_ends_alone_and_does_not_move_the_model(small):
    model, tokenizer = MBart.from_pretrained(small).eval(), Tokenizer.from_pretrained(small)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = Builtin("summarize", "test", [("en_XX", "en_XX"), ("tr_TR", "tr_TR")])
    batches = held_out(Examples(data, tokenizer, "summarize", max_length=256), 5, 600)
    states, true = token_states(model, tokenizer, batches, ["en_XX", "tr_TR"], "encoder")
    pieces = sum(tokenizer.is_text(batch.source).sum().item() for batch in batches)
    read = pieces + sum(len(batch.source) for batch in batches)  # and one </s> a document
    assert [len(x) for x in states] == [read] * 3 and len(true) == read
    decoders, _ = token_states(model, tokenizer, batches, ["en_XX", "tr_TR"], "decoder")
    written = sum((batch.decoder_input > 3).sum().item() for batch in batches)  # and a tag each
    assert len(decoders[0]) == written
    assert set(true.tolist()) == {0, 1}
    tags = [tokenizer.tag["en_XX"], 2, 1, 3, 200, tokenizer.tag["gu_IN"], tokenizer.mask_id]
    is_text = tokenizer.is_text(torch.tensor([tags]))
    assert is_text.tolist() == [[False] * 4 + [True] + [False] * 2]
    pooled = pooled_states(model, tokenizer, batches, "decoder")
    assert [x.shape for x in pooled] == [(10, 32)] * 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_the_table_has_a_row_for_every_layer_and_the_file_every_number(run, few, tmp_path):
    file = tmp_path / "layers.json"
    done = run(*LAYERS, "--model", "base", "--source-lang", "en_XX", "ru_RU", "--json", file)
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert report["languages"] == ["en_XX", "ru_RU"] and report["model"] == "base"
    layers = json.loads((ROOT / "base" / "config.json").read_text())["encoder_layers"]
    for side in ("encoder", "decoder"):
        assert len(report["layers"][side]) == layers + 1 and f"{side} {layers}" in done.stdout
        for layer in report["layers"][side]:
            assert set(layer) == {"probe", "svcca", "svcca floor", "retrieval"}
            assert set(layer["probe"]) == {"accuracy", "probability", "rescaled", "confusion"}
    assert "chance is 0.500" in done.stdout
    last = report["layers"]["encoder"][-1]
    assert last["probe"]["accuracy"] > 0.9  # English against Russian: the words tell
    assert 0.5 < last["probe"]["probability"] < last["probe"]["accuracy"]
    assert 0 < last["svcca floor"]["en_XX ru_RU"] < last["svcca"]["en_XX ru_RU"] <= 1
    similarity = last["svcca"]["en_XX ru_RU"]
    assert f"{similarity:.3f} ({last['svcca floor']['en_XX ru_RU']:.2f})" in done.stdout
    assert 0 <= last["retrieval"]["en_XX ru_RU"] <= 1


def test_retrieval_is_printed_for_every_layer_and_measured_for_every_pair(
    run, small, few, tmp_path
):
    options = ("--model", small, "--measures", "retrieval", "--json", tmp_path / "r.json")
    done = run(*LAYERS, *options, "--source-lang", "en_XX", "es_XX", "fr_XX")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())["layers"]
    layers = json.loads((small / "config.json").read_text())["encoder_layers"]
    assert len(report["encoder"]) == layers + 1
    assert set(report["encoder"][0]) == {"retrieval"}
    assert set(report["encoder"][0]["retrieval"]) == {
        "en_XX es_XX", "en_XX fr_XX", "es_XX fr_XX"}
    assert "encoder 1" in done.stdout and "decoder 1" in done.stdout
    done = run(*LAYERS, "--model", small, "--source-lang", "en_XX")
    assert done.returncode == 2 and "at least two" in done.stderr


def test_a_model_without_tags_is_measured_without_them(run, small, few, tmp_path, monkeypatch):
    seen = []

    def spy(model, texts, measures):
        seen.append((texts.tagged, texts.stage, texts.spec))
        return measure_layers(model, texts, measures)

    monkeypatch.setattr("tools.layers.measure_layers", spy)
    folder = tmp_path / "runs" / "adversarial"
    MBart.from_pretrained(small).save_pretrained(folder)
    Tokenizer.from_pretrained(small).save_pretrained(folder)
    settings = {"stage": "summarize", "tagless": True, "data": "builtin"}
    (folder / "args.json").write_text(json.dumps(settings), encoding="utf-8")
    langs = ("--source-lang", "en_XX", "es_XX")
    done = run(*LAYERS, "--measures", "svcca", *langs, cwd=tmp_path)  # the latest run
    assert done.returncode == 0 and "adversarial, summarize" in done.stdout, done.stderr
    assert seen == [(False, "summarize", "builtin")]


@pytest.mark.parametrize("tagged", [True, False])
def test_every_model_is_probed_without_a_source_tag(small, few, monkeypatch, tagged):
    read = []

    def spy(model, tokenizer, batches, languages, side):
        if side == "encoder":
            read.extend(batches)
        return token_states(model, tokenizer, batches, languages, side)

    monkeypatch.setattr("tools.layers.token_states", spy)
    tokenizer = Tokenizer.from_pretrained(small)
    texts = Texts("builtin", "summarize", ["en_XX", "es_XX"], tokenizer, tagged, 256)
    measure_layers(MBart.from_pretrained(small), texts, ["probe"])
    tags = torch.tensor(list(tokenizer.tag.values()))
    assert read and not any(torch.isin(batch.source, tags).any() for batch in read)


def test_what_needs_parallel_texts_is_left_out_or_refused_without_them(run, small, few, tmp_path):
    rows = []
    texts = {"en_XX": "The teacher found a map in the park.", "ru_RU": "Учитель нашёл карту."}
    for lang, text in texts.items():
        row = {"source": text, "target": text, "source_lang": lang, "target_lang": lang}
        rows.append(json.dumps(row, ensure_ascii=False) + "\n")
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(rows * 4), encoding="utf-8")
    options = ("--model", small, "--data", f"jsonl:{tmp_path}", "--source-lang", *texts)
    done = run(*LAYERS, *options, "--json", tmp_path / "layers.json")
    assert done.returncode == 0 and "need the same texts" in done.stdout, done.stderr
    report = json.loads((tmp_path / "layers.json").read_text())["layers"]
    assert set(report["encoder"][0]) == {"probe"}
    done = run(*LAYERS, *options, "--measures", "retrieval")
    assert done.returncode == 2 and "need the same texts" in done.stderr
