"""data.py: language pairs, noise, examples and batches."""
import io
import json
import random
import threading
from collections import Counter

import pytest
import sentencepiece
import torch
from conftest import ROOT

from corpora.builtin import Builtin
from corpora.facts import BASE_LANGUAGES
from corpora.sets import open_data
from data import (
    Batch,
    Batches,
    Example,
    Examples,
    ParallelBatch,
    alignment_pairs,
    batches_of_like_length,
    collate,
    first_sentences,
    held_out,
    infill,
    joined,
    language_pairs,
    split_pairs,
    spread,
)
from plumbing.files import UserError
from tokenizer import EOS, PAD, Tokenizer

PAIRS = [("en_XX", "es_XX"), ("ru_RU", "tr_TR"), ("gu_IN", "gu_IN")]
EN_ES = ("en_XX", "es_XX")
RU_EN = ("ru_RU", "en_XX")
EN_EN = ("en_XX", "en_XX")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_pretrained(ROOT / "base")


@pytest.fixture(scope="module")
def jsonl(tmp_path_factory):
    """A jsonl folder in which en-es has 300 examples and ru-en 30."""
    folder = tmp_path_factory.mktemp("jsonl")
    rows = []
    for i in range(300):
        rows.append({"source": f"map {i}", "target": f"mapa {i}",
                     "source_lang": "en_XX", "target_lang": "es_XX"})
    for i in range(30):
        rows.append({"source": f"карта {i}", "target": f"map {i}",
                     "source_lang": "ru_RU", "target_lang": "en_XX"})
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def from_file(jsonl, tokenizer, pairs=(EN_ES, RU_EN)):
    return open_data(f"jsonl:{jsonl}", "translate", "train", pairs, tokenizer.languages)


def stream(tokenizer, seed=0, stage="translate", tokens=400, data=None, **options):
    data = data or Builtin(stage, "train", PAIRS)
    examples = Examples(data, tokenizer, stage, seed=seed)
    return Batches(examples, tokens, seed, pool_size=8, **options)


def rows_of(batch):
    return [tuple(row[row != PAD].tolist()) for row in batch.source]


# language pairs

def test_a_stage_has_its_pairs_and_typed_ones_replace_them():
    assert language_pairs("summarize") == [EN_EN]
    assert language_pairs("pretrain") == [(lang, lang) for lang in BASE_LANGUAGES]
    assert len(language_pairs("translate")) == 25
    two = ["en_XX", "es_XX"]
    assert language_pairs("translate", two) == [EN_EN, EN_ES, ("es_XX", "en_XX"), ("es_XX",) * 2]
    assert language_pairs("summarize", two) == [EN_EN, ("es_XX", "es_XX")]
    assert language_pairs("translate", two, ["ru_RU-en_XX"]) == [RU_EN]
    assert language_pairs("align", two) == [("es_XX", "en_XX")]
    assert language_pairs("align", two, align_pairs=["ru_RU-en_XX"]) == [RU_EN]


def test_pairs_that_are_none_are_refused():
    with pytest.raises(UserError, match="--pairs en_XX: write pairs as en_XX-es_XX"):
        split_pairs(["en_XX-es_XX", "en_XX"])
    with pytest.raises(UserError, match="--align-pairs"):
        alignment_pairs(["en_XX"])
    with pytest.raises(UserError, match="--align-pairs en_XX: write pairs as en_XX-es_XX"):
        alignment_pairs(align_pairs=["en_XX"])


def test_a_batch_knows_its_stream(tokenizer):
    assert next(stream(tokenizer)).stream == "task"
    assert next(stream(tokenizer, name="mix")).stream == "mix"
    aligned = stream(tokenizer, stage="align", name="alignment")
    batches = [next(aligned) for _ in range(2)]
    assert [(batch.stream, batch.number) for batch in batches] == [
        ("alignment", 0), ("alignment", 1)
    ]


# batches

@pytest.mark.parametrize("stage", ["pretrain", "translate", "summarize"])
def test_batches_keep_the_token_budget_and_their_sentences_are_of_like_length(tokenizer, stage):
    pairs = [(a, a) for a, _ in PAIRS] if stage == "pretrain" else PAIRS
    batches = Batches(Examples(Builtin(stage, "train", pairs), tokenizer, stage), 800, pool_size=32)
    filled = 0
    total = 0
    for _ in range(60):
        batch = next(batches)
        rows = len(batch.source)
        longest = max(batch.source.size(1), batch.labels.size(1))
        assert rows * longest <= 800
        assert batch.source_tokens == (batch.source != PAD).sum().item()
        assert batch.target_tokens == (batch.labels != PAD).sum().item()
        filled += batch.source_tokens + batch.target_tokens
        total += rows * (batch.source.size(1) + batch.labels.size(1))
        for tensor in (batch.source, batch.decoder_input, batch.labels):  # padded right alone
            assert all((row == PAD).int().diff().min() >= 0 for row in tensor)
        lengths = (batch.labels != PAD).sum(1)
        for row, shifted, n in zip(batch.labels, batch.decoder_input, lengths):
            assert torch.equal(shifted[1:n], row[:n - 1]) and shifted[0] == row[n - 1]
    assert filled / total > 0.75


def test_batches_are_of_like_length_and_an_example_beyond_the_budget_stands_alone():
    lengths = [5, 1, 30, 4, 2, 5]
    rows = [Example([7] * n, [7], [7], "en_XX") for n in lengths]
    batches = batches_of_like_length(rows, 15)
    assert [[row.length for row in batch] for batch in batches] == [[1, 2, 4], [5, 5], [30]]
    assert batches[1][0] is rows[0] and batches[1][1] is rows[5], "like lengths keep their order"
    assert batches_of_like_length([], 15) == []


def test_a_batch_of_stage_align_holds_texts_and_their_translations(tokenizer):
    data = Builtin("align", "train", [EN_ES])
    batch = next(stream(tokenizer, stage="align", data=data)).to("cpu")
    assert isinstance(batch, ParallelBatch) and batch.number == 0
    assert len(batch.source) == len(batch.translation)
    assert batch.source_tokens == (batch.source != PAD).sum().item()
    assert batch.target_tokens == (batch.translation != PAD).sum().item()
    example = Examples(data, tokenizer, "align")(EN_ES, 3)
    source, translation = data.text(EN_ES, 3)
    assert example.source == tokenizer.encode(source, "en_XX")
    assert example.translation == tokenizer.encode(translation, "es_XX")


def test_a_batch_moves_its_tensors_and_keeps_the_rest():
    batch = collate([Example([5, 6], [2, 7], [7, 2], "en_XX"), Example([5], [2], [2], "ru_RU")], 3)
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, Batch)
    assert (moved.source_langs, moved.number) == (["en_XX", "ru_RU"], 3)
    assert moved.source.is_meta and moved.decoder_input.is_meta and moved.labels.is_meta
    assert (batch.source_tokens, batch.target_tokens) == (3, 3)


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(tokenizer):
    streams = [stream(tokenizer), stream(tokenizer), stream(tokenizer, seed=1)]
    first, second, third = [[rows_of(next(batches)) for _ in range(30)] for batches in streams]
    assert first == second != third


@pytest.mark.parametrize("stop", [1, 7, 23])
def test_a_stream_restored_from_its_state_goes_on_with_the_same_batches(tokenizer, stop, jsonl):
    for data in (None, from_file(jsonl, tokenizer)):
        whole = stream(tokenizer, data=data)
        for _ in range(stop):
            next(whole)
        state = json.loads(json.dumps(whole.state_dict()))
        rest = [rows_of(next(whole)) for _ in range(24)]
        restored = stream(tokenizer, data=data)
        restored.load_state_dict(state)
        assert [rows_of(next(restored)) for _ in range(24)] == rest


class Watched:
    """Examples of one pair, which note the thread that asks for them; from number `bad` on none."""

    sizes = {("en_XX", "es_XX"): None}

    def __init__(self, bad=10**9):
        self.threads = []
        self.bad = bad

    def __call__(self, pair, index):
        self.threads.append(threading.current_thread())
        if index >= self.bad:
            raise UserError(f"example {index} cannot be read")
        ids = [5 + index % 50] * (1 + index % 7)
        return Example(ids, ids, ids, "en_XX")


def test_the_next_pool_is_drawn_beside_training_and_nothing_else_differs():
    examples = Watched()
    batches = Batches(examples, 40, pool_size=4)
    found = [rows_of(next(batches)) for _ in range(20)]
    assert batches.position.pool > 2
    others = [thread for thread in examples.threads if thread is not threading.main_thread()]
    assert 0 < len(others) < len(examples.threads)

    alone = Batches(Watched(), 40, pool_size=4)
    expected = []
    for _ in range(20):
        alone.load_state_dict(alone.state_dict())  # forgets what was begun
        expected.append(rows_of(next(alone)))
    assert found == expected


def test_what_cannot_be_read_ends_a_run_where_it_is_needed_not_before():
    batches = Batches(Watched(bad=60), 40, pool_size=4)
    seen = 0
    with pytest.raises(UserError, match="example 60 cannot be read"):
        while True:
            seen += len(next(batches).labels)
    assert 30 < seen <= 60


def test_every_example_of_a_file_is_seen_once_in_an_epoch_in_another_order_each_time(
        tokenizer, jsonl):
    batches = stream(tokenizer, data=from_file(jsonl, tokenizer, [RU_EN]))
    orders = []
    for epoch in range(3):
        orders.append([batches.index(RU_EN, 30 * epoch + i) for i in range(30)])
    assert all(sorted(order) == list(range(30)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_a_pool_of_a_small_data_set_is_one_pass_over_it(tokenizer, jsonl):
    """32 batches' worth of 30 examples would be copies, those of an example side by side."""
    examples = Examples(from_file(jsonl, tokenizer, [RU_EN]), tokenizer, "translate")
    batches = Batches(examples, 20_000)
    for epoch in range(3):
        batches.fill()
        sources = [tuple(row.source) for batch in batches.batches for row in batch]
        assert len(set(sources)) == len(sources) == 30
        for _ in batches.batches.copy():
            next(batches)
        assert batches.position.cursors == {"ru_RU-en_XX": 30 * (epoch + 1)}


@pytest.mark.parametrize("temperature, share", [(1, 10 / 11), (1.5, 0.823), (100, 0.505)])
def test_languages_are_drawn_with_temperature(tokenizer, jsonl, temperature, share):
    batches = stream(tokenizer, data=from_file(jsonl, tokenizer), temperature=temperature)
    assert batches.weights[0] == pytest.approx(share, abs=0.01)
    seen = Counter(lang for _ in range(60) for lang in next(batches).source_langs)
    assert seen["en_XX"] / sum(seen.values()) == pytest.approx(share, abs=0.06)


def test_the_smallest_temperatures_draw_the_largest_pairs():
    class Sized:
        sizes = {EN_ES: 20_000, RU_EN: 100, EN_EN: 20_000}

    for temperature in (0.01, 1e-15):
        assert Batches(Sized(), 40, temperature=temperature).weights == pytest.approx([0.5, 0.5, 0])


def test_held_out_batches_are_the_same_at_every_call_and_cover_every_pair(tokenizer):
    examples = Examples(Builtin("translate", "valid", PAIRS), tokenizer, "translate")
    first = held_out(examples, 8, 500)
    second = held_out(examples, 8, 500)
    assert [rows_of(batch) for batch in first] == [rows_of(batch) for batch in second]
    assert sum(len(batch.source) for batch in first) == 24


def test_held_out_examples_are_spread_over_a_file_that_is_in_some_order(tokenizer, jsonl):
    """Of the first of two files alone a validation loss would say nothing of the second."""
    examples = Examples(from_file(jsonl, tokenizer), tokenizer, "translate")
    assert examples.sizes[EN_ES] > 10
    asked = []

    class Spied:
        sizes = {EN_ES: examples.sizes[EN_ES]}

        def __call__(self, pair, index):
            asked.append(index)
            return examples(pair, index)

    held_out(Spied(), 4, 500)
    size = examples.sizes[EN_ES]
    assert asked == [size // 8, 3 * size // 8, 5 * size // 8, 7 * size // 8]


def test_spread_takes_all_where_all_are_asked_for_and_none_twice():
    assert spread(10, 10) == spread(99, 10) == list(range(10))
    assert spread(3, None) == [0, 1, 2]
    for size in range(1, 30):
        for count in range(1, size + 1):
            found = spread(count, size)
            assert len(set(found)) == count and found == sorted(found) and found[-1] < size


def test_a_limit_keeps_the_first_examples_of_every_pair(tokenizer, jsonl):
    examples = Examples(from_file(jsonl, tokenizer), tokenizer, "translate", limit=50)
    assert examples.sizes == {EN_ES: 50, RU_EN: 30}
    endless = Examples(Builtin("translate", "train", [EN_ES]), tokenizer, "translate", limit=50)
    assert endless.sizes == {EN_ES: 50}


def test_no_training_document_of_the_built_in_corpus_is_anothers_in_any_pair_or_seed():
    spanish = ("es_XX", "es_XX")
    texts = set()
    for seed in (0, 1):
        data = Builtin("summarize", "train", [EN_EN, spanish], seed=seed)
        for pair in data.pairs:
            for index in range(20):
                texts.add(data.corpus.text(data.document(pair, index), "en_XX"))
    assert len(texts) == 2 * 2 * 20


def test_training_documents_differ_between_languages_and_test_documents_do_not():
    spanish = ("es_XX", "es_XX")
    train, test = [Builtin("summarize", split, [EN_EN, spanish]) for split in ("train", "test")]
    assert train.document(EN_EN, 3) != train.document(spanish, 3)
    assert test.document(EN_EN, 3) == test.document(spanish, 3)


# noise

def test_infilling_masks_about_the_asked_share_of_whole_words_with_one_mask_a_span():
    rng = random.Random(0)
    kept = 0
    spans = 0
    words = 0
    for _ in range(300):
        ids = list(range(100, 160))
        starts = [i % 2 == 0 for i in range(60)]  # words of two pieces
        noised = infill(ids, starts, 7, rng, 0.3)
        left = [i for i in noised if i != 7]
        assert left == [i for i in ids if i in set(left)], "what is kept keeps its order"
        assert all(left.count(i) == left.count(i ^ 1) for i in left), "whole words"
        assert not any(a == b == 7 for a, b in zip(noised, noised[1:]))
        kept += len(left) // 2
        words += 30
        spans += noised.count(7)
    assert 1 - kept / words == pytest.approx(0.3, abs=0.02)
    assert 2.0 < (words - kept) / spans < 4.0  # Poisson(3.5), cut where the budget ends


def test_masked_spans_have_the_published_mean_length():
    words = list(range(10, 200_010))
    noised = infill(words, [True] * len(words), 7, random.Random(0), share=0.02)
    mean = 0.02 * len(words) / noised.count(7)
    assert mean == pytest.approx(3.53, abs=0.2)  # of max(1, Poisson(3.5))


def test_a_script_without_spaces_is_masked_piece_by_piece(tmp_path):
    """Its words begin with no mark of a space: a whole sentence would be one word."""
    model = io.BytesIO()
    texts = ["医生给老师寄了一张地图", "猫在公园里", "the doctor sent a map", "a map in the park"]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 20),
        model_writer=model,
        vocab_size=60,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    tokenizer = Tokenizer(tmp_path / "sentencepiece.bpe.model", "mbart25")
    data = open_data("builtin", "summarize", "train", [("en_XX", "en_XX")], tokenizer.languages)
    begins = Examples(data, tokenizer, "pretrain").begins_word
    for text, words in (("医生给老师寄了一张地图", 8), ("the doctor sent a map", 5)):
        ids = tokenizer.piece_ids(text)
        starts = sum(begins[i] for i in ids)
        if text.isascii():
            assert starts == words < len(ids)
        else:
            assert starts == len(ids) > words


def test_infilling_of_very_short_texts_loses_nothing_but_its_words():
    assert infill([], [], 7, random.Random(0)) == []
    assert infill([5], [True], 7, random.Random(0)) in ([5], [7])


def test_sentences_end_in_eos_are_shuffled_on_a_share_of_documents_and_keep_their_ends(tokenizer):
    data = Builtin("pretrain", "train", [EN_EN])
    examples = Examples(data, tokenizer, "pretrain", permuted=1.0)
    shuffled = 0
    for i in range(60):
        example = examples(EN_EN, i)
        source = example.source
        labels = example.labels
        assert source.count(EOS) == labels.count(EOS)
        assert example.decoder_input == [labels[-1], *labels[:-1]]
        first = [piece for piece in source[:source.index(EOS)] if piece != tokenizer.mask_id]
        several = labels.count(EOS) > 1
        shuffled += several and not set(first) <= set(labels[:labels.index(EOS)])
    assert shuffled > 10


def test_three_tenths_of_the_words_are_masked_and_a_fifth_of_the_documents_shuffled(
    tokenizer, monkeypatch
):
    """What pretraining takes where nobody says otherwise."""
    words = list(range(10, 1010))
    left = infill(words, [True] * 1000, 7, random.Random(0))
    assert len(left) - left.count(7) == 700
    monkeypatch.setattr("data.infill", lambda ids, *rest: ids)
    examples = Examples(Builtin("pretrain", "train", [EN_EN]), tokenizer, "pretrain")
    shuffled = 0
    several = 0
    for i in range(1000):
        example = examples(EN_EN, i)
        if example.labels.count(EOS) > 2:  # of two sentences half of the shuffles change nothing
            several += 1
            shuffled += example.source != example.labels
    assert several > 200 and 0.12 < shuffled / several < 0.24


def test_pretraining_pairs_noised_text_with_the_text_itself(tokenizer):
    data = Builtin("pretrain", "train", [EN_EN])
    examples = Examples(data, tokenizer, "pretrain", permuted=0.0)
    mask = tokenizer.mask_id
    masked = 0
    for i in range(50):
        example = examples(EN_EN, i)
        end = [EOS, tokenizer.lang_id("en_XX")]
        assert example.source[-2:] == example.labels[-2:] == end
        masked += mask in example.source
        assert mask not in example.labels
        assert set(example.source) - {mask} <= set(example.labels)
    assert masked == 50


ES_ES = ("es_XX", "es_XX")


def test_the_dial_sets_how_many_code_mixed_documents_have_a_target_in_one_language():
    plain = Builtin("pretrain", "train", [ES_ES])
    dialled = Builtin("pretrain", "train", [ES_ES], source_alone=0.2)
    every = Builtin("pretrain", "train", [ES_ES], source_alone=1.0)
    mixed = 0
    translated = 0
    for i in range(1000):
        text, target = plain.text(ES_ES, i)
        assert text == target, "without the dial a document is rebuilt as it is"
        assert dialled.text(ES_ES, i)[0] == every.text(ES_ES, i)[0] == text, "the same sources"
        own = every.text(ES_ES, i)[1]
        assert own.count("\n") == text.count("\n")
        for sentence in own.split("\n"):
            assert sentence in spanish(plain, i)
        mixed += own != text
        told = dialled.text(ES_ES, i)[1]
        assert told in (text, own)
        translated += told != text
    assert 0.64 < mixed / 1000 < 0.72  # 0.7, but for those where chance mixed nothing
    assert 0.15 < translated / mixed < 0.25


def test_of_pretraining_documents_some_are_a_headline_and_some_begin_with_one():
    data = Builtin("pretrain", "train", [ES_ES])
    alone = 0
    first = 0
    unmixed = 0
    for i in range(2000):
        lines = data.text(ES_ES, i)[0].split("\n")
        if len(lines) == 1:
            alone += 1
            unmixed += lines[0] == spanish(data, i)[-1]
        elif not lines[0].endswith("."):  # as headlines have it
            first += 1
    assert alone / 2000 == pytest.approx(0.2, abs=0.03)
    assert first / 2000 == pytest.approx(0.3, abs=0.03)
    # Three of ten are not mixed at all; in the others each of three or four slots stays with 50%.
    assert unmixed / alone == pytest.approx(0.37, abs=0.06)


def spanish(data, index):
    """What a document and its headline say in Spanish."""
    document = data.document(ES_ES, index)
    sentences = data.corpus.sentences(document, "es_XX")
    return [*sentences, data.corpus.headline(document, "es_XX")]


def test_a_dialled_documents_labels_are_its_target_and_its_source_the_mixture(tokenizer):
    data = Builtin("pretrain", "train", [ES_ES], source_alone=1.0)
    examples = Examples(data, tokenizer, "pretrain", permuted=0.0)
    same = Examples(Builtin("pretrain", "train", [ES_ES]), tokenizer, "pretrain", permuted=0.0)
    end = [EOS, tokenizer.lang_id("es_XX")]
    translated = 0
    for i in range(100):
        text, target = data.text(ES_ES, i)
        example = examples(ES_ES, i)
        before = same(ES_ES, i)
        assert example.source == before.source
        wanted = joined([tokenizer.piece_ids(line) for line in target.split("\n")])
        assert example.labels == [*wanted, *end]
        assert example.decoder_input == [end[-1], *example.labels[:-1]]
        if text == target:
            assert example == before
        else:
            translated += 1
            assert example.labels != before.labels
            assert example.source.count(EOS) == example.labels.count(EOS)
    assert translated > 50


def test_a_dialled_document_that_is_too_long_is_cut_to_the_same_sentences(tokenizer):
    data = Builtin("pretrain", "train", [ES_ES], source_alone=1.0)
    examples = Examples(data, tokenizer, "pretrain", max_length=40, permuted=1.0)
    for i in range(100):
        example = examples(ES_ES, i)
        assert len(example.source) <= 40 and len(example.labels) <= 40
        assert example.source.count(EOS) == example.labels.count(EOS)
    assert "too long and cut" in examples.unread.warnings()[0]


def test_of_pairs_of_texts_in_files_pretraining_reads_the_source_alone(jsonl, tokenizer):
    data = open_data(f"jsonl:{jsonl}", "pretrain", "train", [EN_ES], tokenizer.languages)
    assert data.text(EN_ES, 3) == ("map 3", "mapa 3")
    example = Examples(data, tokenizer, "pretrain")(EN_ES, 3)
    assert example.labels[:-2] == tokenizer.piece_ids("map 3")


class Document:
    """A data set of one document in numbered sentences."""

    sizes = {EN_EN: 1}

    def text(self, pair, index):
        text = " ".join(f"The teacher found {number} maps." for number in range(40))
        return text, text


def test_a_long_document_is_cut_before_its_sentences_are_shuffled(tokenizer, monkeypatch):
    monkeypatch.setattr("data.infill", lambda ids, is_start, mask_id, rng: ids)
    orders = set()
    for seed in range(5):
        examples = Examples(
            Document(), tokenizer, "pretrain", max_length=50, permuted=1.0, seed=seed
        )
        example = examples(EN_EN, 0)
        assert len(example.source) == len(example.labels) == 50
        assert example.labels[:48] == whole_document(tokenizer)[:48]
        assert Counter(example.source) == Counter(example.labels)
        orders.add(tuple(example.source))
    assert len(orders) > 1


def whole_document(tokenizer):
    text, _ = Document().text(EN_EN, 0)
    ids = []
    for sentence in text.split(". "):
        ids += [*tokenizer.piece_ids(sentence.removesuffix(".") + "."), EOS]
    return ids


@pytest.mark.parametrize("room, wanted", [
    (9, [[5, 6], [7], [8, 9, 10]]),
    (8, [[5, 6], [7], [8, 9, 10]]),
    (7, [[5, 6], [7], [8, 9]]),
    (5, [[5, 6], [7]]),
    (1, [[5]]),
])
def test_first_sentences_and_their_ends_fill_the_room(room, wanted):
    first = first_sentences([[5, 6], [7], [8, 9, 10]], room)
    assert first == wanted and len(joined(first)) <= room


def test_pretraining_where_the_encoder_has_its_own_vocabulary_is_refused(tokenizer):
    own = Tokenizer(tokenizer.model_file, tokenizer.layout)
    untied = Tokenizer(tokenizer.model_file, tokenizer.layout, source=own)
    data = Builtin("pretrain", "train", [EN_EN])
    with pytest.raises(UserError, match="another vocabulary than its decoder"):
        Examples(data, untied, "pretrain")
    Examples(data, untied, "translate")


def test_long_texts_are_cut_to_the_models_length(tokenizer):
    assert len(tokenizer.encode("map " * 500, "en_XX", 64)) == 64
    decoder_input, labels = tokenizer.target("map " * 500, "en_XX", 64)
    assert len(labels) == len(decoder_input) == 64 and labels[-2] == EOS


class Texts:
    """A data set of a few texts in one language."""

    def __init__(self, *pairs):
        self.pairs = pairs
        self.sizes = {EN_EN: len(pairs)}

    def text(self, pair, index):
        return self.pairs[index]


def test_what_is_cut_is_counted(tokenizer):
    long = "the teacher found a map " * 20
    examples = Examples(Texts((long, "a map"), ("a map", long)), tokenizer, "summarize",
                        max_length=12)
    for index in range(2):
        example = examples(EN_EN, index)
        assert max(len(example.source), len(example.labels)) == 12
    whole = len(tokenizer.piece_ids(long))
    side = examples.unread.sides["sources"]
    short = len(tokenizer.piece_ids("a map"))
    assert (side.texts, side.cut, side.tokens) == (2, 1, whole + short)
    assert side.left_out == whole - 10
    share = f"{(whole - 10) / (whole + short):.1%}"
    assert examples.unread.warnings() == [
        f"1 of the first 2 {name} are too long and cut: {share} of all tokens are left out"
        for name in ("sources", "targets")
    ]


@pytest.mark.parametrize("stage", ["pretrain", "align"])
def test_what_is_cut_is_counted_in_other_stages(tokenizer, stage):
    long = "The teacher found a map. " * 20
    examples = Examples(Texts((long, "a map")), tokenizer, stage, max_length=12)
    examples(EN_EN, 0)
    (line,) = examples.unread.warnings()
    assert line.startswith("1 of the first ") and "are too long and cut" in line


def test_text_that_the_vocabulary_cannot_read_is_told_with_its_share(tokenizer):
    letters = "\u2d5c\u2d49\u2d3c\u2d49\u2d4f\u2d30\u2d56"  # seven, of a script that it lacks
    examples = Examples(Texts((letters, "map"), ("\u200b", "a")), tokenizer, "summarize")
    examples(EN_EN, 0)
    assert examples.unread.warnings() == [
        "en_XX: the vocabulary has no piece for 70% of the characters in the first 2 texts; the "
        "model sees <unk> in their place"
    ]
    examples(EN_EN, 1)
    assert examples.unread.warnings()[1].startswith("en_XX: 1 of the first 4 texts have no piece")
    readable = Examples(Texts(("the map", "map")), tokenizer, "summarize")
    readable(EN_EN, 0)
    assert readable.unread.warnings() == []


def test_sentences_end_in_every_script():
    from data import SENTENCE_END

    for text in (
        "It was cold. Nobody came!",
        "ठंड थी। कोई नहीं आया।",
        "سردی تھی۔ کوئی نہیں آیا۔",
        "很冷。没有人来！",
        "အေးသည်။ ဘယ်သူမှမလာ။",
        "ត្រជាក់។គ្មាននរណាមកទេ។",
    ):
        parts = [part for part in SENTENCE_END.split(text) if part.strip()]
        assert len(parts) == 2, text
    assert len(SENTENCE_END.split("3.5 percent")) == 1


def test_a_sentence_keeps_all_its_marks_and_its_closing_quote():
    from data import SENTENCE_END

    assert SENTENCE_END.split("真的吗？！我不知道。")[:2] == ["真的吗？！", "我不知道。"]
    assert SENTENCE_END.split("“很冷。”他说")[0] == "“很冷。”他说"
    assert SENTENCE_END.split("“很冷。” 他说")[0] == "“很冷。” 他说"
