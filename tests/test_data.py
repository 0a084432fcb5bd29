"""data.py: readers, noise and batches."""
import json
import random
from collections import Counter

import pytest
import torch
from conftest import ROOT

from corpora.builtin import Builtin
from corpora.sets import open_data
from data import Batches, Examples, held_out, infill
from plumbing.files import UserError
from tokenizer import PAD, Tokenizer

PAIRS = [("en_XX", "es_XX"), ("ru_RU", "tr_TR"), ("gu_IN", "gu_IN")]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_pretrained(ROOT / "base")


@pytest.fixture
def jsonl(tmp_path):
    """A jsonl folder in which en-es has 300 examples and ru-en 30."""
    rows = [{"source": f"map {i}", "target": f"mapa {i}", "source_lang": "en_XX", "target_lang": "es_XX"}
            for i in range(300)]
    rows += [{"source": f"карта {i}", "target": f"map {i}", "source_lang": "ru_RU", "target_lang": "en_XX"}
             for i in range(30)]
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    return tmp_path


def stream(tokenizer, seed=0, stage="translate", tokens=400, data=None, **kwargs):
    return Batches(Examples(data or Builtin(stage, "train", PAIRS), tokenizer, stage, seed=seed), tokens, seed, pool=8,
                   **kwargs)


def rows_of(batch):
    return [tuple(row[row != PAD].tolist()) for row in batch.source]


@pytest.mark.parametrize("stage", ["pretrain", "translate", "summarize"])
def test_batches_keep_the_token_budget_and_their_sentences_are_of_like_length(tokenizer, stage):
    pairs = [(a, a) for a, _ in PAIRS] if stage == "pretrain" else PAIRS
    batches = Batches(Examples(Builtin(stage, "train", pairs), tokenizer, stage), 800, pool=32)
    filled = total = 0
    for _ in range(60):
        batch = next(batches)
        rows, longest = len(batch.source), max(batch.source.size(1), batch.labels.size(1))
        assert rows * longest <= 800
        filled += (batch.source != PAD).sum().item() + (batch.labels != PAD).sum().item()
        total += rows * (batch.source.size(1) + batch.labels.size(1))
        for tensor in (batch.source, batch.decoder_input, batch.labels):  # padding on the right alone
            assert all((row == PAD).int().diff().min() >= 0 for row in tensor)
        lengths = (batch.labels != PAD).sum(1)
        for row, shifted, n in zip(batch.labels, batch.decoder_input, lengths):
            assert torch.equal(shifted[1:n], row[:n - 1]) and shifted[0] == row[n - 1]
    assert filled / total > 0.75


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(tokenizer):
    a, b, c = stream(tokenizer), stream(tokenizer), stream(tokenizer, seed=1)
    first, second, third = ([rows_of(next(s)) for _ in range(30)] for s in (a, b, c))
    assert first == second != third


@pytest.mark.parametrize("stop", [1, 7, 23])
def test_a_stream_restored_from_its_state_goes_on_with_the_same_batches(tokenizer, stop, jsonl):
    for data in (None, open_data(f"jsonl:{jsonl}", "translate", "train", [("en_XX", "es_XX"), ("ru_RU", "en_XX")],
                                 tokenizer.languages)):
        whole = stream(tokenizer, data=data)
        for _ in range(stop):
            next(whole)
        state = json.loads(json.dumps(whole.state_dict()))
        rest = [rows_of(next(whole)) for _ in range(40)]
        restored = stream(tokenizer, data=data)
        restored.load_state_dict(state)
        assert [rows_of(next(restored)) for _ in range(40)] == rest


def test_every_example_of_a_file_is_seen_once_in_an_epoch_in_another_order_each_time(tokenizer, jsonl):
    data = open_data(f"jsonl:{jsonl}", "translate", "train", [("ru_RU", "en_XX")], tokenizer.languages)
    batches = stream(tokenizer, data=data)
    orders = [[batches.index(("ru_RU", "en_XX"), 30 * epoch + i) for i in range(30)] for epoch in range(3)]
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.parametrize("temperature, share", [(1, 10 / 11), (1.5, 0.823), (100, 0.505)])
def test_languages_are_drawn_with_temperature(tokenizer, jsonl, temperature, share):
    data = open_data(f"jsonl:{jsonl}", "translate", "train", [("en_XX", "es_XX"), ("ru_RU", "en_XX")],
                     tokenizer.languages)
    batches = stream(tokenizer, data=data, temperature=temperature)
    assert batches.weights[0] == pytest.approx(share, abs=0.01)
    seen = Counter(lang for _ in range(150) for lang in next(batches).source_langs)
    assert seen["en_XX"] / sum(seen.values()) == pytest.approx(share, abs=0.06)


def test_held_out_batches_are_the_same_at_every_call_and_cover_every_pair(tokenizer):
    examples = Examples(Builtin("translate", "valid", PAIRS), tokenizer, "translate")
    a, b = (held_out(examples, 8, 500) for _ in range(2))
    assert [rows_of(x) for x in a] == [rows_of(x) for x in b] and sum(len(x.source) for x in a) == 24


def test_training_documents_differ_between_languages_and_test_documents_do_not():
    train, test = (Builtin("summarize", split, [("en_XX", "en_XX"), ("es_XX", "es_XX")]) for split in ("train", "test"))
    assert train.document(("en_XX", "en_XX"), 3) != train.document(("es_XX", "es_XX"), 3)
    assert test.document(("en_XX", "en_XX"), 3) == test.document(("es_XX", "es_XX"), 3)


def test_infilling_masks_about_the_asked_share_of_whole_words_with_one_mask_a_span():
    rng, kept, spans, words = random.Random(0), 0, 0, 0
    for _ in range(300):
        ids = list(range(100, 160))
        starts = [i % 2 == 0 for i in range(60)]  # words of two pieces
        noised = infill(ids, starts, 7, rng, 0.3)
        left = [i for i in noised if i != 7]
        assert left == [i for i in ids if i in set(left)], "what is kept keeps its order"
        assert all(left.count(i) == left.count(i ^ 1) for i in left), "whole words"
        assert not any(a == b == 7 for a, b in zip(noised, noised[1:]))
        kept, words, spans = kept + len(left) // 2, words + 30, spans + noised.count(7)
    assert 1 - kept / words == pytest.approx(0.3, abs=0.02)
    assert 2.0 < (words - kept) / spans < 4.0  # Poisson(3.5), cut where the budget ends


def test_infilling_of_very_short_texts_loses_nothing_but_its_words():
    assert infill([], [], 7, random.Random(0)) == []
    assert infill([5], [True], 7, random.Random(0)) in ([5], [7])


def test_sentences_end_in_eos_are_shuffled_on_a_share_of_documents_and_keep_their_ends(tokenizer):
    pair = ("en_XX", "en_XX")
    examples = Examples(Builtin("pretrain", "train", [pair]), tokenizer, "pretrain", permuted=1.0)
    shuffled = 0
    for i in range(60):
        example = examples(pair, i)
        source, labels = example.source, example.labels
        assert source.count(2) == labels.count(2) and example.decoder_input == [labels[-1], *labels[:-1]]
        first = [piece for piece in source[:source.index(2)] if piece != tokenizer.mask_id]
        shuffled += labels.count(2) > 1 and not set(first) <= set(labels[:labels.index(2)])
    assert shuffled > 10


def test_pretraining_pairs_noised_text_with_the_text_itself(tokenizer):
    examples = Examples(Builtin("pretrain", "train", [("en_XX", "en_XX")]), tokenizer, "pretrain", permuted=0.0)
    masked = 0
    for i in range(50):
        example = examples(("en_XX", "en_XX"), i)
        source, labels = example.source, example.labels
        assert source[-2:] == labels[-2:] == [2, tokenizer.lang_id("en_XX")]
        masked += tokenizer.mask_id in source
        assert tokenizer.mask_id not in labels and set(source) - {tokenizer.mask_id} <= set(labels)
    assert masked == 50


def test_long_texts_are_cut_to_the_models_length(tokenizer):
    assert len(tokenizer.encode("map " * 500, "en_XX", 64)) == 64
    decoder_input, labels = tokenizer.target("map " * 500, "en_XX", 64)
    assert len(labels) == len(decoder_input) == 64 and labels[-2] == 2


@pytest.mark.parametrize("line, message", [
    ("{broken", "not JSON"), ('["list"]', "expected a JSON object, found list"),
    ('{"source": "a", "target": "b", "source_lang": "en_XX"}', "'target_lang' must be text, found nothing"),
    ('{"source": 5, "target": "b", "source_lang": "en_XX", "target_lang": "en_XX"}', "found int"),
    ('{"source": " ", "target": "b", "source_lang": "en_XX", "target_lang": "en_XX"}', "'source' is empty"),
    ('{"source": "a", "target": "b", "source_lang": "en", "target_lang": "en_XX"}', "did you mean en_XX"),
    (b"\xff\xfe", "not UTF-8")])
def test_a_bad_line_is_reported_as_file_and_line(jsonl, line, message):
    path = jsonl / "train.jsonl"
    with open(path, "ab") as file:
        file.write(line if isinstance(line, bytes) else line.encode())
    with pytest.raises(UserError, match="train.jsonl:331: .*" + message.replace("(", r"\(")):
        open_data(f"jsonl:{jsonl}", "translate", "train", [("en_XX", "es_XX")], ["en_XX", "es_XX", "ru_RU"])


def test_parallel_files_are_read_by_line_and_unequal_ones_refused(tmp_path, tokenizer):
    for lang in ("en_XX", "es_XX"):
        (tmp_path / f"train.{lang}").write_text("".join(f"{lang} línea {i}\n" for i in range(5)), encoding="utf-8")
    pairs = [("en_XX", "es_XX"), ("es_XX", "en_XX")]
    data = open_data(f"parallel:{tmp_path}", "translate", "train", pairs, tokenizer.languages)
    assert data.sizes == dict.fromkeys(pairs, 5)
    assert data.text(("es_XX", "en_XX"), 3) == ("es_XX línea 3", "en_XX línea 3")
    with open(tmp_path / "train.es_XX", "a") as file:
        file.write("una más\n")
    with pytest.raises(UserError, match="train.en_XX has 5 lines and train.es_XX has 6"):
        open_data(f"parallel:{tmp_path}", "translate", "train", pairs, tokenizer.languages)
    (tmp_path / "train.es_XX").write_text("a\nb\n\nd\ne\n")
    with pytest.raises(UserError, match="train.es_XX:3: an empty line"):
        open_data(f"parallel:{tmp_path}", "translate", "train", pairs, tokenizer.languages)


@pytest.mark.parametrize("spec, message", [
    ("xml:here", "expected builtin"), ("jsonl:/nowhere", "no folder"), ("jsonl:", "expected builtin")])
def test_a_wrong_data_spec_is_an_error_that_says_what_is_expected(tokenizer, spec, message):
    with pytest.raises(UserError, match=message):
        open_data(spec, "translate", "train", PAIRS, tokenizer.languages)


def test_empty_and_missing_files_are_errors(tmp_path, tokenizer):
    with pytest.raises(UserError, match="train.jsonl: not found"):
        open_data(f"jsonl:{tmp_path}", "translate", "train", PAIRS, tokenizer.languages)
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(UserError, match="train.jsonl: the file is empty"):
        open_data(f"jsonl:{tmp_path}", "translate", "train", PAIRS, tokenizer.languages)


def row(**changes):
    fields = {"source": "one two three", "target": "four five", "source_lang": "en_XX", "target_lang": "es_XX"}
    return json.dumps(fields | changes, ensure_ascii=False) + "\n"


def test_bad_lines_are_skipped_and_counted_when_asked(tmp_path, tokenizer, capsys):
    lines = row() + "{broken\n" + row(target=7) + row(source_lang="xx") + row(source="b")
    (tmp_path / "train.jsonl").write_bytes(lines.encode() + b"\xff\n")
    pairs = [("en_XX", "es_XX")]
    with pytest.raises(UserError, match=r"train.jsonl:2: .*--skip-bad-lines"):
        open_data(f"jsonl:{tmp_path}", "translate", "train", pairs, tokenizer.languages)
    data = open_data(f"jsonl:{tmp_path}", "translate", "train", pairs, tokenizer.languages, skip=True, minimum=(2, 1))
    assert (data.skipped, data.short, data.sizes) == (4, 1, {pairs[0]: 1})
    assert "4 bad lines and 1 examples" in capsys.readouterr().err
    assert data.text(pairs[0], 0) == ("one two three", "four five")
    for lang, lines in (("en_XX", "a b\n\nc d\n"), ("es_XX", "e f\ng\nh\n")):
        (tmp_path / f"train.{lang}").write_text(lines)
    data = open_data(f"parallel:{tmp_path}", "translate", "train", pairs, tokenizer.languages, skip=True,
                     minimum=(2, 2))
    assert (data.skipped, data.short, data.sizes) == (1, 1, {pairs[0]: 1}) and data.text(pairs[0], 0) == ("a b", "e f")


def test_xlsum_is_read_as_published(tmp_path, tokenizer):
    for name, word in (("english", "news"), ("turkish", "haber")):
        for split in ("train", "val", "test"):
            line = {"id": "1", "url": "u", "title": "t", "summary": f"{word} summary", "text": f"{word} {split} text"}
            (tmp_path / f"{name}_{split}.jsonl").write_text(json.dumps(line) + "\n")
    pairs = [("en_XX", "en_XX"), ("tr_TR", "tr_TR")]
    for split, published in (("train", "train"), ("valid", "val"), ("test", "test")):
        data = open_data(f"xlsum:{tmp_path}", "summarize", split, pairs, tokenizer.languages)
        assert data.text(("tr_TR", "tr_TR"), 0) == (f"haber {published} text", "haber summary")
        assert data.text(("en_XX", "en_XX"), 0) == (f"news {published} text", "news summary")
    with pytest.raises(UserError, match="own language only"):
        open_data(f"xlsum:{tmp_path}", "summarize", "test", [("en_XX", "tr_TR")], tokenizer.languages)
    with pytest.raises(UserError, match="spanish_test.jsonl: not found"):
        open_data(f"xlsum:{tmp_path}", "summarize", "test", [("es_XX", "es_XX")], tokenizer.languages)
    with pytest.raises(UserError, match="has no de_DE"):
        open_data(f"xlsum:{tmp_path}", "summarize", "test", [("de_DE", "de_DE")], tokenizer.languages)


@pytest.mark.parametrize("valid", ["validation", "sampled_validation"])
def test_wikilingua_is_read_as_gem_exports_it(tmp_path, tokenizer, valid):
    for name in ("train", valid, "test"):
        line = {"gem_id": "x", "source": f"{name} document", "target": "short", "source_language": "es",
                "target_language": "en"}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    data = open_data(f"wikilingua:{tmp_path}", "summarize", "valid", [("es_XX", "en_XX")], tokenizer.languages)
    assert data.text(("es_XX", "en_XX"), 0) == (f"{valid} document", "short")
    with pytest.raises(UserError, match="no example in the languages asked for"):
        open_data(f"wikilingua:{tmp_path}", "summarize", "valid", [("en_XX", "es_XX")], tokenizer.languages)
