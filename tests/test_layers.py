"""tools/layers.py: what each layer knows of languages, by probe, SVCCA and retrieval."""
import json

import pytest
import torch
from conftest import ROOT

from corpora.builtin import Builtin
from data import Examples, held_out
from model import MBart
from tokenizer import EOS, Tokenizer
from tools.layers import (
    confusion_matrix,
    correlation,
    directions,
    fitted_probe,
    means_by_language,
    measure_layers,
    pooled_states,
    probe,
    probed_tokens,
    retrieval,
    shuffled_correlation,
    token_states,
)

LAYERS = ("-m", "tools.layers")


def svcca(a, b, keep=0.99):
    return correlation(directions(a, keep), directions(b, keep))


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
        probabilities = probe(states[:2000], true[:2000], states[2000:], 3)
        confusion = confusion_matrix(probabilities, true[2000:])
        assert confusion.sum(1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
        assert low <= confusion.diagonal().mean() <= high


def test_a_rescaled_probe_finds_what_was_only_made_small():
    generator = torch.Generator().manual_seed(0)
    true = torch.randint(0, 2, (3000,), generator=generator)
    states = torch.randn(3000, 8, generator=generator)
    states[:, 0] = 1e-3 * (2 * true - 1)
    known = (states[:2000], true[:2000], states[2000:], 2)
    for rescaled, low, high in ((False, 0, 0.7), (True, 0.95, 1)):
        probabilities = probe(*known, rescaled=rescaled, steps=60)
        assert low <= confusion_matrix(probabilities, true[2000:]).diagonal().mean() <= high


def test_a_doubtful_probe_has_a_lower_probability_than_accuracy():
    """A state shows the true one of two languages three times in four. To guess what it shows is
    right in 3/4; the probability of the truth is 3/4 then, and else 1/4: 9/16 + 1/16 in all."""
    true = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]).repeat(250)
    shown = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0]).repeat(250)
    states = 2.0 * torch.nn.functional.one_hot(shown, 4)
    probabilities = probe(states, true, states, 2, steps=80)
    accuracy = confusion_matrix(probabilities, true).diagonal().mean()
    probability = means_by_language(probabilities, true).diagonal().mean()
    assert accuracy == pytest.approx(3 / 4) and probability == pytest.approx(5 / 8, abs=0.03)


def test_every_language_counts_alike_whatever_its_number_of_tokens():
    probabilities = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    true = torch.tensor([0, 0, 0, 1])
    means = means_by_language(probabilities, true)
    assert means.tolist() == [pytest.approx([0.6, 0.4]), pytest.approx([0.8, 0.2])]
    assert confusion_matrix(probabilities, true).tolist() == [pytest.approx([2 / 3, 1 / 3]), [1, 0]]


def test_svcca_is_one_for_a_linear_map_low_for_unrelated_states_and_between_for_shared_ones():
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(600, 24, generator=generator) for _ in range(2))
    mapped = x @ torch.randn(24, 24, generator=generator) + 3
    assert svcca(x, mapped, keep=1 - 1e-12) == pytest.approx(1, abs=1e-6)
    assert svcca(x, other) < 0.25
    shared = torch.cat([x[:, :12], other[:, 12:]], 1)
    assert svcca(x, shared) == pytest.approx(0.55, abs=0.1)


def test_the_floor_of_svcca_is_what_unrelated_states_of_the_same_shape_reach():
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(600, 150, generator=generator) for _ in range(2))
    keep = 1 - 1e-12
    a = directions(x, keep)
    b = directions(x @ torch.randn(150, 150, generator=generator), keep)
    assert correlation(a, b) == pytest.approx(1, abs=1e-6)
    floor = shuffled_correlation(a, b)
    assert floor == pytest.approx(svcca(x, other, keep), abs=0.01) and floor > 0.3
    assert floor == shuffled_correlation(a, b)


def test_directions_hold_99_percent_of_the_variance():
    """Of 20 orthogonal directions, whose variances are known, the fewest that reach 0.99."""
    generator = torch.Generator().manual_seed(0)
    centred = torch.randn(600, 20, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(centred - centred.mean(0))
    for last, number in ((0.0095, 2), (0.0105, 3)):  # the share of the variance in the third
        shares = torch.zeros(20, dtype=torch.float64)
        shares[:3] = torch.tensor([0.7, 0.3 - last, last])
        assert directions(basis * shares.sqrt()).size(1) == number


def test_a_fitted_probe_answers_without_dropout():
    states = torch.randn(40, 6)
    assert not fitted_probe(states, torch.arange(40) % 2, 2, steps=2).training


def test_the_decoders_probe_reads_what_the_decoder_reads(small):
    tokenizer = Tokenizer.from_pretrained(small)
    languages = ["en_XX", "tr_TR"]
    pairs = [("en_XX", "tr_TR"), ("tr_TR", "en_XX")]
    data = Builtin("summarize", "test", pairs)
    batches = held_out(Examples(data, tokenizer, "summarize", max_length=256), 5, 600)
    masks, ids = probed_tokens(tokenizer, batches, languages, "decoder")
    expected = []
    for batch, mask in zip(batches, masks, strict=True):
        read = tokenizer.is_text(batch.decoder_input) | (batch.decoder_input == EOS)
        assert torch.equal(mask, read) and not mask[:, 0].any()  # the tag of what is written
        for lang, row in zip(batch.source_langs, mask):
            expected += [languages.index(lang)] * int(row.sum())
    assert ids.tolist() == expected


def test_retrieval_counts_right_neighbours_in_both_directions():
    a = torch.eye(4)
    assert retrieval(a, a) == 1 and retrieval(a, a.roll(1, 0)) == 0
    b = a.clone()
    # Row 3 is taken for a translation of row 0, and 0 still finds its own.
    b[3] = torch.tensor([0.9, 0, 0, 0.1])
    assert retrieval(a, b) == (4 + 3) / 8


def test_probing_reads_pieces_and_ends_alone_and_does_not_move_the_model(small):
    model, tokenizer = MBart.from_pretrained(small).eval(), Tokenizer.from_pretrained(small)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    data = Builtin("summarize", "test", [("en_XX", "en_XX"), ("tr_TR", "tr_TR")])
    batches = held_out(Examples(data, tokenizer, "summarize", max_length=256), 5, 600)
    states, true = token_states(model, tokenizer, batches, ["en_XX", "tr_TR"], "encoder")
    pieces = sum(tokenizer.is_text(batch.source).sum().item() for batch in batches)
    assert [len(x) for x in states] == [pieces + 10] * 3 and len(true) == pieces + 10
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
    config = json.loads((ROOT / "base" / "config.json").read_text())
    for side in ("encoder", "decoder"):
        layers = config[f"{side}_layers"]
        assert len(report["layers"][side]) == layers + 1 and f"{side} {layers}" in done.stdout
        for layer in report["layers"][side]:
            assert set(layer) == {"probe", "svcca", "svcca floor", "retrieval"}
            assert set(layer["probe"]) == {"accuracy", "probability", "rescaled", "confusion"}
    assert "chance is 0.500" in done.stdout
    last = report["layers"]["encoder"][-1]
    probed = last["probe"]
    assert probed["accuracy"] > 0.9  # English against Russian: the words tell
    assert 0.8 < probed["probability"] < probed["accuracy"]  # 30 steps leave doubts
    similarity, floor = last["svcca"]["en_XX ru_RU"], last["svcca floor"]["en_XX ru_RU"]
    assert 0 < floor < similarity <= 1
    top = f"encoder {config['encoder_layers']}"
    row = next(line for line in done.stdout.splitlines() if line.startswith(top))
    assert f" {probed['probability']:.3f} " in row and f"{similarity:.3f} ({floor:.2f})" in row
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


def test_the_probe_reads_no_tag_and_the_others_read_it_if_training_did(
    run, small, few, tmp_path, monkeypatch
):
    """Moves a source language's tag in the embeddings: what reads no tag finds the same."""
    monkeypatch.setattr("tools.layers.STEPS", 5)
    tokenizer = Tokenizer.from_pretrained(small)
    found = []
    for moved in (0.0, 5.0):
        folder = tmp_path / f"moved by {moved}"
        model = MBart.from_pretrained(small)
        with torch.no_grad():
            model.model.shared.weight[tokenizer.tag["ru_RU"], ::2] += moved
            for layer in model.model.encoder.layers:  # attends to some tokens more than to others
                layer.self_attn.q_proj.weight *= 50
                layer.self_attn.v_proj.weight *= 50
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        options = ("--measures", "probe", "svcca", "--json", tmp_path / "found.json")
        done = run(*LAYERS, "--model", folder, "--source-lang", "en_XX", "ru_RU", *options)
        assert done.returncode == 0, done.stderr
        report = json.loads((tmp_path / "found.json").read_text())["layers"]
        found.append(report["encoder"][-1])
    assert found[0]["probe"] == found[1]["probe"]
    similarities = [layer["svcca"]["en_XX ru_RU"] for layer in found]
    assert abs(similarities[0] - similarities[1]) > 1e-3


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
    assert done.returncode == 0 and "need the same texts" in done.stderr, done.stderr
    report = json.loads((tmp_path / "layers.json").read_text())["layers"]
    assert set(report["encoder"][0]) == {"probe"}
    # The language of what the decoder reads would be the source's.
    assert report["decoder"] == [] and "\ndecoder" not in done.stdout
    assert "decoder is not probed" in done.stderr and "en_XX-ru_RU ru_RU-en_XX" in done.stderr
    done = run(*LAYERS, *options, "--measures", "retrieval")
    assert done.returncode == 2 and "need the same texts" in done.stderr


def test_xlsum_is_probed_on_the_side_that_it_has(run, small, few, tmp_path):
    row = {"text": "The teacher found a map.", "summary": "A map."}
    for language in ("english", "spanish"):
        for split in ("train", "test"):
            file = tmp_path / f"{language}_{split}.jsonl"
            file.write_text((json.dumps(row) + "\n") * 4, encoding="utf-8")
    options = ("--model", small, "--data", f"xlsum:{tmp_path}", "--stage", "summarize")
    langs = ("--source-lang", "en_XX", "es_XX", "--measures", "probe")
    done = run(*LAYERS, *options, *langs, "--json", tmp_path / "layers.json")
    assert done.returncode == 0 and "decoder is not probed" in done.stderr, done.stderr
    report = json.loads((tmp_path / "layers.json").read_text())["layers"]
    layers = json.loads((small / "config.json").read_text())["encoder_layers"]
    assert len(report["encoder"]) == layers + 1 and report["decoder"] == []


def test_the_help_is_parallel_where_its_paragraphs_are_read(run, small, few, tmp_path):
    folder = tmp_path / "help"
    (folder / "paragraphs").mkdir(parents=True)
    (folder / "README.md").touch()  # the folder is finished
    for split in ("train", "test"):
        for lang, word in (("en_XX", "map"), ("es_XX", "mapa")):
            text = "".join(f"{word} {number}\n" for number in range(6))
            (folder / "paragraphs" / f"{split}.{lang}").write_text(text, encoding="utf-8")
    options = ("--model", small, "--data", f"help:{folder}", "--source-lang", "en_XX", "es_XX")
    done = run(*LAYERS, *options, "--stage", "translate", "--json", tmp_path / "layers.json")
    assert done.returncode == 0, done.stderr
    for layers in json.loads((tmp_path / "layers.json").read_text())["layers"].values():
        assert set(layers[0]) == {"probe", "svcca", "svcca floor", "retrieval"}
    done = run(*LAYERS, *options, "--stage", "summarize", "--measures", "svcca")
    assert done.returncode == 2 and "use --stage translate" in done.stderr
    options += ("--stage", "translate", "--measures", "retrieval")
    done = run(*LAYERS, *options, "--source-lang", "en_XX", "es_XX", "gu_IN")
    assert done.returncode == 2 and "has nothing from gu_IN to gu_IN" in done.stderr


def test_a_repeated_text_is_no_document_to_be_found(run, small, few, tmp_path):
    lines = {"en_XX": ["A map.", "A cat.", "A map.", "A dog."], "es_XX": ["Un mapa."] * 2}
    lines["es_XX"] += ["Un gato.", "Un perro."]
    options = ("--model", small, "--data", f"parallel:{tmp_path}", "--source-lang", *lines)
    options += ("--stage", "translate", "--measures", "retrieval", "svcca")
    for lang, texts in lines.items():
        (tmp_path / f"test.{lang}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    done = run(*LAYERS, *options)
    assert done.returncode == 0 and "2 of 4 test documents" in done.stderr, done.stderr
    for lang in lines:
        (tmp_path / f"test.{lang}").write_text("one line\n", encoding="utf-8")
    done = run(*LAYERS, *options)
    assert done.returncode == 2 and "has 1 documents, of which 1 repeats" in done.stderr


def test_of_a_language_with_many_tokens_the_same_few_are_read(small, monkeypatch):
    model, tokenizer = MBart.from_pretrained(small).eval(), Tokenizer.from_pretrained(small)
    langs = ["en_XX", "tr_TR"]
    data = Builtin("summarize", "test", [(lang, lang) for lang in langs])
    batches = held_out(Examples(data, tokenizer, "summarize", max_length=256), 5, 600)
    whole, classes = token_states(model, tokenizer, batches, langs, "encoder")
    monkeypatch.setattr("tools.layers.MOST", 20)
    few, few_classes = token_states(model, tokenizer, batches, langs, "encoder")
    assert few_classes.bincount().tolist() == [20, 20] < classes.bincount().tolist()
    rows = [(row == whole[-1]).all(1).nonzero()[0].item() for row in few[-1]]
    assert rows == sorted(rows) and classes[rows].tolist() == few_classes.tolist()
    assert rows[-1] > len(classes) / 2  # from all over the documents
    again, _ = token_states(model, tokenizer, batches, langs, "encoder")
    assert all(torch.equal(x, y) for x, y in zip(few, again))


def test_what_is_typed_twice_counts_once(run, small, few, tmp_path):
    options = ("--model", small, "--json", tmp_path / "layers.json", "--data", "builtin")
    langs = ("--source-lang", "en_XX", "en_XX", "es_XX")
    done = run(*LAYERS, *options, *langs, "--measures", "retrieval", "retrieval")
    assert done.returncode == 0 and done.stdout.count("retrieval %") == 1, done.stderr
    report = json.loads((tmp_path / "layers.json").read_text())
    assert report["languages"] == ["en_XX", "es_XX"]
    assert set(report["layers"]["encoder"][0]["retrieval"]) == {"en_XX es_XX"}
    done = run(*LAYERS, *options, "--source-lang", "en_XX", "en_XX")
    assert done.returncode == 2 and "at least two" in done.stderr


@pytest.fixture
def untagged(small, tmp_path):
    """A model that reads a text alike in whatever language it is said to be."""
    folder = tmp_path / "untagged"
    MBart.from_pretrained(small).save_pretrained(folder)
    Tokenizer.from_pretrained(small).save_pretrained(folder)
    settings = {"stage": "summarize", "tagless": True}
    (folder / "args.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_a_line_that_is_bad_in_one_language_is_left_out_of_all(run, untagged, few, tmp_path):
    """The files say the same, so that every text finds itself: unless the lines have moved."""
    lines = ["the map", "a teacher", "the red park", "no vase", "in the city", "a doctor"]
    for lang, bad in (("en_XX", 1), ("es_XX", 3), ("fr_XX", 0)):
        own = ["" if number == bad else line for number, line in enumerate(lines)]
        (tmp_path / f"test.{lang}").write_text("\n".join(own) + "\n", encoding="utf-8")
    options = ("--model", untagged, "--data", f"parallel:{tmp_path}", "--measures", "retrieval")
    options += ("--source-lang", "en_XX", "es_XX", "fr_XX", "--json", tmp_path / "layers.json")
    done = run(*LAYERS, *options, "--skip-bad-lines")
    assert done.returncode == 0 and "left out 3 bad lines" in done.stderr, done.stderr
    for layer in json.loads((tmp_path / "layers.json").read_text())["layers"]["encoder"]:
        assert layer["retrieval"] == {"en_XX es_XX": 1, "en_XX fr_XX": 1, "es_XX fr_XX": 1}


def test_files_of_different_lengths_are_no_translations(run, untagged, few, tmp_path):
    for lang, count in (("en_XX", 3), ("es_XX", 4), ("fr_XX", 4)):
        (tmp_path / f"test.{lang}").write_text("the map\n" * count, encoding="utf-8")
    options = ("--model", untagged, "--data", f"parallel:{tmp_path}", "--measures", "svcca")
    done = run(*LAYERS, *options, "--source-lang", "es_XX", "fr_XX", "en_XX")
    assert done.returncode == 2, done.stderr
    assert "test.es_XX has 4 lines and test.en_XX has 3" in done.stderr


def test_the_built_in_documents_compared_are_the_same_in_every_task(run, small, few, tmp_path):
    """What it has to translate is another text for each pair of languages."""
    found = []
    for stage in ("translate", "summarize"):
        options = ("--stage", stage, "--measures", "retrieval", "--json", tmp_path / "layers.json")
        done = run(*LAYERS, "--model", small, *options, "--source-lang", "en_XX", "es_XX")
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / "layers.json").read_text())["layers"])
    assert found[0] == found[1]


def test_a_language_without_documents_is_refused_by_the_probe(run, small, few, tmp_path):
    """Its row of the confusion would be 0, and the mean over languages too low."""
    row = {"source": "the map", "target": "map", "source_lang": "en_XX", "target_lang": "en_XX"}
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    options = ("--model", small, "--data", f"jsonl:{tmp_path}", "--measures", "probe")
    done = run(*LAYERS, *options, "--source-lang", "en_XX", "ru_RU")
    assert done.returncode == 2 and "has nothing from ru_RU to ru_RU" in done.stderr, done.stderr


def test_a_probe_is_told_by_documents_that_it_did_not_learn_from(
    run, small, few, tmp_path, monkeypatch
):
    """In the test documents every word is the other language's: what was learned is wrong there."""
    monkeypatch.setattr("tools.layers.STEPS", 60)
    texts = ("the teacher found a map", "учитель нашёл карту")
    for split, langs in (("train", ("en_XX", "ru_RU")), ("test", ("ru_RU", "en_XX"))):
        lines = []
        for text, lang in zip(texts, langs):
            row = {"source": text, "target": text, "source_lang": lang, "target_lang": lang}
            lines.append(json.dumps(row) + "\n")
        (tmp_path / f"{split}.jsonl").write_text("".join(lines * 4), encoding="utf-8")
    done = run(
        *LAYERS, "--model", small, "--data", f"jsonl:{tmp_path}", "--stage", "summarize",
        "--source-lang", "en_XX", "ru_RU", "--measures", "probe",
        "--json", tmp_path / "layers.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "layers.json").read_text())
    assert report["layers"]["encoder"][0]["probe"]["accuracy"] < 0.5


def test_retrieval_finds_the_same_whatever_else_is_measured(run, small, few, tmp_path):
    """A repeated text is left out before so many are taken as are searched."""
    for lang, letters in (("en_XX", "abcdefghij"), ("es_XX", "klmnopqrst")):
        texts = [f"{first}{second}." for first in letters for second in letters][:60]
        texts[3] = texts[2]
        (tmp_path / f"test.{lang}").write_text("\n".join(texts) + "\n", encoding="utf-8")
    found = []
    for measures in (["retrieval"], ["retrieval", "svcca"]):
        file = tmp_path / f"{len(measures)}.json"
        done = run(
            *LAYERS, "--model", small, "--data", f"parallel:{tmp_path}", "--stage", "translate",
            "--source-lang", "en_XX", "es_XX", "--measures", *measures, "--json", file,
        )  # fmt: skip
        assert done.returncode == 0 and "1 of 60 test documents" in done.stderr, done.stderr
        layers = json.loads(file.read_text())["layers"]["encoder"]
        found.append([layer["retrieval"] for layer in layers])
    assert found[0] == found[1]
