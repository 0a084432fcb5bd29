"""generate.py: the ids of transformers' generate on random models, and searches checked by hand."""

import copy
import itertools
import json
import shutil

import pytest
import torch
from conftest import ROOT
from transformers import MBartConfig, MBartForConditionalGeneration

import generate as generate_file
from generate import Cache, encode_in_chunks, forbid_repeats, generate
from model import Config, MBart
from plumbing.files import UserError
from tokenizer import Tokenizer

VOCAB, LANG = 40, 35


@pytest.fixture(scope="module", params=["mbart25", "mbart50"])
def models(request, tmp_path_factory):
    """(transformers' model, ours), random, float64, so sharp that lengths differ."""
    found = []
    for seed in range(3):
        torch.manual_seed(seed)
        start = {"decoder_start_token_id": 2} if request.param == "mbart50" else {}
        other = (
            MBartForConditionalGeneration(
                MBartConfig(
                    vocab_size=VOCAB,
                    d_model=24,
                    encoder_layers=1 + seed,
                    decoder_layers=2,
                    encoder_attention_heads=2,
                    decoder_attention_heads=3,
                    encoder_ffn_dim=32,
                    decoder_ffn_dim=32,
                    max_position_embeddings=40,
                    scale_embedding=True,
                    init_std=0.5,
                    forced_eos_token_id=None,
                    **start,
                )
            )
            .double()
            .eval()
        )
        with torch.no_grad():
            for stack in (other.model.encoder, other.model.decoder):
                stack.embed_positions.weight.normal_(
                    0, 2.5
                )  # what comes next depends on where: no endless loops
            other.final_logits_bias.normal_()
            other.final_logits_bias[0, 2] += (
                4  # </s> is likely, so that searches end, at many lengths
            )
        folder = tmp_path_factory.mktemp(f"{request.param}{seed}")
        other.save_pretrained(folder)
        found.append((other, MBart.from_pretrained(folder, dtype=torch.float64)))
    return request.param, found


def sources(seed, rows=5):
    torch.manual_seed(seed)
    source = torch.randint(4, VOCAB, (rows, 9))
    for row in range(1, rows):
        source[row, 9 - row :] = 1
    return source


def their_generate(
    layout, model, source, lang, beam=5, no_repeat_ngram=0, early_stopping=False, **options
):
    start = (
        {"forced_bos_token_id": lang} if layout == "mbart50" else {"decoder_start_token_id": lang}
    )
    rows = model.generate(
        input_ids=source,
        attention_mask=(source != 1).long(),
        num_beams=beam,
        do_sample=False,
        early_stopping=early_stopping,
        forced_eos_token_id=None,
        no_repeat_ngram_size=no_repeat_ngram,
        **start,
        **options,
    ).tolist()
    stripped = []
    for row in rows:
        row = row[2 if layout == "mbart50" else 1 :]
        while row and row[-1] == 1:
            row.pop()
        stripped.append(row[:-1] if row and row[-1] == 2 else row)
    return stripped


GRID = list(
    itertools.product((1, 2, 5), (0.6, 1.0, 2.0), (0, 2, 3), ((0, 12), (4, 12), (0, 3), (0, 25)))
)


@pytest.mark.parametrize("beam, length_penalty, no_repeat_ngram, limits", GRID)
def test_ids_equal_transformers(models, beam, length_penalty, no_repeat_ngram, limits):
    """108 settings x 2 layouts (x 3 models in turn, 5 sentences each)."""
    layout, found = models
    case = GRID.index((beam, length_penalty, no_repeat_ngram, limits))
    other, ours = found[case % 3]
    options = {
        "beam": beam,
        "length_penalty": length_penalty,
        "no_repeat_ngram": no_repeat_ngram,
        "min_new_tokens": limits[0],
        "max_new_tokens": limits[1],
    }
    source = sources(case)
    assert generate(ours, source, LANG, **options) == their_generate(
        layout, other, source, LANG, **options
    )


def test_the_grid_meets_outputs_of_many_lengths(models):
    _, found = models
    lengths = [
        len(row)
        for _, ours in found
        for seed in range(6)
        for row in generate(ours, sources(seed), LANG, max_new_tokens=25)
    ]
    assert len(set(lengths)) > 10 and max(lengths) >= 20 and min(lengths) < 6


@pytest.mark.parametrize("length_penalty", (-1.0, 9.9))
def test_the_outermost_length_penalties_equal_transformers(models, length_penalty):
    layout, found = models
    options = {"beam": 3, "length_penalty": length_penalty, "max_new_tokens": 39}
    for other, ours in found:
        source = sources(3)
        assert generate(ours, source, LANG, **options) == their_generate(
            layout, other, source, LANG, **options
        )


@pytest.mark.parametrize("length_penalty", (0.6, 1.0, 2.0))
@pytest.mark.parametrize("beam", (2, 5))
def test_early_stopping_equals_transformers(models, beam, length_penalty):
    layout, found = models
    options = {"beam": beam, "length_penalty": length_penalty, "max_new_tokens": 25}
    for seed, (other, ours) in enumerate(found):
        source = sources(seed)
        assert generate(ours, source, LANG, early_stopping=True, **options) == their_generate(
            layout, other, source, LANG, early_stopping=True, **options
        )


@pytest.mark.parametrize("beam", [1, 3])
def test_one_new_token_equals_transformers_and_is_the_tag_in_mbart50(models, beam):
    layout, found = models
    other, ours = found[0]
    options = {"beam": beam, "max_new_tokens": 1}
    outputs = generate(ours, sources(0), LANG, **options)
    assert outputs == their_generate(layout, other, sources(0), LANG, **options)
    assert layout == "mbart25" or outputs == [[]] * 5


def test_outputs_keep_the_order_of_sources_of_any_lengths(models):
    _, ((_, ours), *_) = models
    torch.manual_seed(0)
    lengths = [3, 39, 12, 40, 5, 12, 38, 4]
    rows = [torch.randint(4, VOCAB, (length,)) for length in lengths]
    source = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    alone = [generate(ours, row[None], LANG, max_new_tokens=15)[0] for row in rows]
    assert generate(ours, source, LANG, max_new_tokens=15) == alone
    assert len(set(map(tuple, alone))) > 4


def test_a_language_per_row_equals_each_row_by_itself(models):
    _, ((_, ours), *_) = models
    source, langs = sources(1), [31, 35, 36, 37, 31]
    together = generate(ours, source, langs, max_new_tokens=15)
    alone = [
        generate(ours, source[i : i + 1], lang, max_new_tokens=15)[0]
        for i, lang in enumerate(langs)
    ]
    assert together == alone == generate(ours, source, torch.tensor(langs), max_new_tokens=15)
    assert together != generate(ours, source, 31, max_new_tokens=15)


def test_a_language_follows_its_row_when_the_longest_comes_first(models):
    _, ((_, ours), *_) = models
    lengths, langs = [3, 7, 15, 28, 38], [31, 35, 36, 37, 35]  # the shortest first
    torch.manual_seed(0)
    rows = [torch.randint(4, VOCAB, (length,)) for length in lengths]
    source = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=1)
    alone = [
        generate(ours, row[None], lang, max_new_tokens=15)[0] for row, lang in zip(rows, langs)
    ]
    assert generate(ours, source, langs, max_new_tokens=15) == alone
    assert generate(ours, source, langs[::-1], max_new_tokens=15) != alone


def test_a_batch_equals_its_sentences_one_by_one_although_the_finished_leave_it(models):
    _, found = models
    for _, ours in found:
        source = sources(7)
        whole = generate(ours, source, LANG, max_new_tokens=25, no_repeat_ngram=2)
        alone = [
            generate(ours, row[row != 1][None], LANG, max_new_tokens=25, no_repeat_ngram=2)[0]
            for row in source
        ]
        assert whole == alone


class Script(Cache):
    """A cache whose next words are written down, {words so far: {word: probability}}.

    A slot's key is the word that stands there."""

    table = {}

    def step(self, tokens):
        beams = len(tokens) // len(self.ancestors)  # one at first
        self.add_slots(beams)
        words = self.keys[0][:, 0, :, 0]  # (N, slots)
        words[:, self.filled - beams : self.filled] = tokens.view(-1, beams)
        seen = self.ancestors[:, :beams] == 0  # (N, K, slots)
        grown = [
            row[sees].int().tolist() for row, beams_see in zip(words, seen) for sees in beams_see
        ]
        self.position += 1
        assert {len(row) for row in grown} == {
            self.position
        }  # sweeping loses none and keeps their order
        logits = torch.full((len(tokens), 10), -50.0)
        for row, written in enumerate(grown):
            for word, p in self.table.get(tuple(written[1:]), {END: 1.0}).items():
                logits[row, word] = torch.tensor(p).log()
        return logits


@pytest.fixture
def search(monkeypatch):
    """search(table, options of generate()) -> the words found; the model itself has no say."""
    model = MBart(
        Config(
            vocab_size=10,
            d_model=4,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=1,
            decoder_attention_heads=1,
            encoder_ffn_dim=4,
            decoder_ffn_dim=4,
            max_position_embeddings=200,
        )
    )

    def run(table, **options):
        monkeypatch.setattr(Script, "table", table)
        monkeypatch.setattr(generate_file, "Cache", Script)
        return generate(model, torch.tensor([[4]]), 9, **options)

    return run


A, B, C, END = 5, 6, 7, 2
GARDEN_PATH = {(): {A: 0.6, B: 0.4}, (A,): {A: 0.4, B: 0.3, C: 0.3}, (B,): {C: 0.9, A: 0.1}}


def test_by_hand_two_beams_find_what_greedy_search_misses(search):
    # greedy: A A = 0.6 x 0.4 = 0.24; two beams: B C = 0.4 x 0.9 = 0.36; then </s> is certain
    assert search(GARDEN_PATH, beam=1) == [[A, A]]
    assert search(GARDEN_PATH, beam=2) == [[B, C]]


def test_by_hand_early_stopping_may_miss_what_another_beam_would_become(search):
    # </s> and A </s> are the two first hypotheses, by words log 0.4 / 1 and log 0.3 / 2; A B B </s>
    # is as likely as the second and longer: log 0.3 / 4.
    table = {
        (): {A: 0.6, END: 0.4},
        (A,): {END: 0.5, B: 0.5},
        (A, B): {B: 1.0},
        (A, B, B): {END: 1.0},
    }
    assert search(table, beam=2) == [[A, B, B]]
    assert search(table, beam=2, early_stopping=True) == [[A]]


def test_by_hand_the_length_penalty_decides_between_a_short_and_a_long_hypothesis(search):
    table = {
        (): {END: 0.5, A: 0.5},
        (A,): {A: 0.8, END: 0.2},
        (A, A): {A: 0.8, END: 0.2},
        (A, A, A): {END: 1.0},
    }
    # </s>: log 0.5 = -0.69 over 1 token; A A A </s>: log(0.5 x 0.8 x 0.8) = -1.14 over 4 tokens
    assert search(table, beam=2, length_penalty=0.0) == [[]]
    assert search(table, beam=2, length_penalty=1.0) == [[A, A, A]]


def test_by_hand_minimum_and_maximum_length_and_repeated_bigrams(search):
    loop = {(): {A: 0.9, B: 0.1}} | {(A,) * n: {A: 0.6, B: 0.3, END: 0.1} for n in range(1, 9)}
    assert search(loop, beam=1, max_new_tokens=4) == [[A, A, A, A]]
    assert search(loop, beam=1, no_repeat_ngram=2)[0][:3] == [A, A, B]
    assert search({}, beam=1) == [[]]
    assert len(search({}, beam=1, min_new_tokens=3)[0]) == 3


def test_dropout_is_off_while_decoding_and_the_models_mode_is_restored():
    torch.manual_seed(0)
    model = MBart(
        Config(
            vocab_size=50,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            dropout=0.5,
            attention_dropout=0.5,
        )
    ).train()
    source = torch.randint(4, 50, (2, 6))
    assert generate(model, source, 40, max_new_tokens=9) == generate(
        model, source, 40, max_new_tokens=9
    )
    assert model.training
    with pytest.raises(UserError, match="cut it"):
        generate(model, torch.full((1, 1 + model.config.max_position_embeddings), 5), 40)
    assert model.training


@pytest.mark.parametrize("layout", ["mbart25", "mbart50"])
def test_one_row_a_sentence_before_the_first_choice_is_as_good_as_k_alike(models, layout):
    """Of the beams that all begin alike every one reads the slots of the prompt."""
    _, ((_, ours), *_) = models
    source = sources(4)
    prompt = [LANG] if layout == "mbart25" else [2, LANG]
    alone = Cache(ours.eval(), source, 3, 9)
    alike = Cache(ours, source, 3, 9)
    with torch.no_grad():
        for token in prompt:
            first = alone.step(torch.full((5,), token))
            all_three = alike.step(torch.full((15,), token))
        assert torch.allclose(first.repeat_interleave(3, 0), all_three, atol=1e-12)
        assert (alone.filled, alike.filled) == (len(prompt), 3 * len(prompt))
        words = torch.arange(4, 19)
        assert torch.allclose(alone.step(words), alike.step(words), atol=1e-12)


@pytest.mark.parametrize("first_slots", [0, 3, 16, 500])
def test_a_cache_that_grows_writes_what_a_large_one_does(models, first_slots, monkeypatch):
    _, found = models
    expected = [generate(ours, sources(5), LANG, max_new_tokens=30) for _, ours in found]
    monkeypatch.setattr(generate_file, "FIRST_SLOTS", first_slots)
    assert [generate(ours, sources(5), LANG, max_new_tokens=30) for _, ours in found] == expected


def test_a_cache_never_has_room_for_more_than_the_longest_output(models):
    _, ((_, ours), *_) = models
    cache = Cache(ours.eval(), sources(0), 5, 20)
    with torch.no_grad():
        for _ in range(20):
            cache.step(torch.full((25,), LANG))
    assert cache.filled == 100
    assert {slots.size(2) for slots in cache.keys + cache.values + [cache.ancestors]} == {112}


@pytest.mark.parametrize("tokens", [1, 9, 20, 45])
def test_encoding_in_chunks_gives_the_states_and_the_outputs_of_all_at_once(
    models, tokens, monkeypatch
):
    _, ((_, ours), *_) = models
    source = sources(6)
    with torch.no_grad():
        states = ours.eval().encode(source)
    expected = generate(ours, source, LANG, max_new_tokens=15)
    monkeypatch.setattr(generate_file, "ENCODED_TOKENS", tokens)
    with torch.no_grad():
        assert torch.allclose(encode_in_chunks(ours, source), states, atol=1e-12)
    assert generate(ours, source, LANG, max_new_tokens=15) == expected


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_repeats_are_forbidden_and_nothing_else_changes(n, dtype):
    torch.manual_seed(n)
    logits = torch.randn(4, 3, 11).to(dtype)
    tokens = torch.randint(0, 6, (4, 3, 14))
    expected = logits.clone()
    for row, beams in enumerate(tokens.tolist()):
        for beam, ids in enumerate(beams):
            for start in range(len(ids) - n + 1):
                if ids[start : start + n - 1] == ids[len(ids) - n + 1 :]:
                    expected[row, beam, ids[start + n - 1]] = -torch.inf
    forbid_repeats(logits, tokens, n)
    assert torch.equal(logits, expected) and torch.isinf(logits).any()
    short = logits.clone()
    forbid_repeats(logits, tokens[..., : n - 1], n)
    assert torch.equal(logits, short)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"lang": 40}, "language ids"),
        ({"lang": -1}, "language ids"),
        ({"lang": "es_XX"}, r"'es_XX' is a code; give its id, tokenizer.lang_id\('es_XX'\)"),
        ({"lang": [LANG, LANG]}, r"language ids of shape \(2,\) for 5 sources"),
        ({"lang": [[LANG]] * 5}, r"language ids of shape \(5, 1\) for 5 sources"),
        ({"beam": 0}, "at least 1"),
        ({"max_new_tokens": 0}, "at least 1"),
        ({"max_new_tokens": 40}, "positions"),
        ({"beam": 30}, "too wide"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens 9 is more than"),
        ({"length_penalty": float("nan")}, "length_penalty nan must be at least -1"),
        ({"length_penalty": 1000}, "length_penalty 1000 must be at least -1 and less than 10"),
        ({"length_penalty": -200}, "length_penalty -200 must be at least -1 and less than 10"),
        ({"no_repeat_ngram": -1}, "no_repeat_ngram -1 at least 0"),
        ({"source": torch.tensor([[1, 5, 6]])}, "padded on the right"),
        ({"source": torch.full((1, 41), 5)}, "positions"),
    ],
)
def test_arguments_that_cannot_be_met_are_refused(models, options, words):
    _, ((_, ours), *_) = models
    with pytest.raises(UserError, match=words):
        generate(ours, **{"source": sources(0), "lang": LANG, "max_new_tokens": 5} | options)


def test_the_command_gives_a_tagless_runs_model_no_tag_of_the_source(
    run, small, tmp_path, monkeypatch
):
    shutil.copytree(small, tmp_path / "run")
    seen = []

    def watched(model, source, lang, **options):
        seen.append(source.tolist())
        return [[]]

    monkeypatch.setattr(generate_file, "generate", watched)
    words = ("generate.py", tmp_path / "run", "en_XX", "es_XX", "The map.")
    run(*words)
    (tmp_path / "run" / "args.json").write_text('{"tagless": true}', encoding="utf-8")
    run(*words)
    tokenizer = Tokenizer.from_pretrained(small)
    tagged = tokenizer.encode("The map.", "en_XX")
    assert seen == [[tagged], [tokenizer.encode("The map.", None)]]
    assert seen[1] == [tagged[:-1]]


def test_a_model_in_half_precision_decodes_as_on_a_gpu(models, monkeypatch):
    """And searches among float32 numbers: in half precision close tokens would tie."""
    search = generate_file.top_values
    types = set()

    def searched(sums, k):
        types.add(sums.dtype)
        return search(sums, k)

    monkeypatch.setattr(generate_file, "top_values", searched)
    half = copy.deepcopy(models[1][0][1]).bfloat16()
    outputs = generate(half, sources(3), LANG, beam=3, max_new_tokens=10, no_repeat_ngram=2)
    assert types == {torch.float32}
    assert len(outputs) == 5 and all(0 <= i < VOCAB for row in outputs for i in row)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """folder_of(layout, start): a small model and its vocabulary; config.json has the value `start`
    of decoder_start_token_id, or none where it is "absent"."""

    def make(layout, start):
        folder = tmp_path_factory.mktemp(layout)
        model_file = ROOT / "base" / "sentencepiece.bpe.model"
        tokenizer = Tokenizer(model_file, layout)
        torch.manual_seed(5)
        config = Config(
            vocab_size=tokenizer.vocab_size,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            max_position_embeddings=40,
            init_std=0.5,
        )
        MBart(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        written = json.loads((folder / "config.json").read_text())
        del written["decoder_start_token_id"]
        if start != "absent":
            written["decoder_start_token_id"] = start
        (folder / "config.json").write_text(json.dumps(written))
        return folder

    return make


def begin(folder):
    """What the decoder is started with for Spanish, and what follows from it."""
    model = MBart.from_pretrained(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    lang = tokenizer.lang_id("es_XX")
    source = torch.tensor([tokenizer.encode("The map.", "en_XX")])
    prompt = generate_file.first_tokens(model.config, torch.tensor([lang])).tolist()
    return prompt, generate(model, source, lang, max_new_tokens=9), tokenizer


@pytest.mark.parametrize("start", [None, "absent", 2, 7, "tag"])
@pytest.mark.parametrize("layout", ["mbart25", "mbart50"])
def test_decoding_starts_as_the_vocabularys_layout_has_it(folder_of, layout, start):
    wanted = {"mbart25": None, "mbart50": 2}[layout]
    expected, outputs, tokenizer = begin(folder_of(layout, wanted))
    decoder_input = tokenizer.target("x", "es_XX")[0]  # what training shows the decoder
    if start == "tag":
        start = tokenizer.lang_id("ro_RO")
    assert expected == [decoder_input[:len(expected[0])]]
    assert len(expected[0]) == {"mbart25": 1, "mbart50": 2}[layout]
    folder = folder_of(layout, start)
    assert begin(folder)[:2] == (expected, outputs)
    MBart.from_pretrained(folder).save_pretrained(folder)  # and says so when it is written
    written = json.loads((folder / "config.json").read_text())["decoder_start_token_id"]
    assert layout == "mbart25" or written == 2
    assert begin(folder)[:2] == (expected, outputs)


def test_the_command_says_what_it_leaves_out_and_refuses_a_text_without_pieces(run, folder_of):
    folder = folder_of("mbart25", None)  # 40 positions
    tokenizer = Tokenizer.from_pretrained(folder)
    text = "The teacher found a red map in the park. " * 9
    count = len(tokenizer.piece_ids(text))
    done = run("generate.py", folder, "en_XX", "es_XX", text)
    share = f"{(count - 38) / count:.0%}"
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"note: the text has {count} pieces, the model reads the first 38; " \
        f"{share} is left out\n"
    assert run("generate.py", folder, "en_XX", "es_XX", "The map.").stderr == ""
    done = run("generate.py", folder, "en_XX", "es_XX", " \u200b ")
    assert done.returncode == 2 and "nothing that the vocabulary can read" in done.stderr


def test_half_a_character_on_the_command_line_is_one_line(run, folder_of):
    done = run("generate.py", folder_of("mbart25", None), "en_XX", "es_XX", "ab\udce9")
    assert done.returncode == 2 and done.stderr.startswith("error: character 3 of a text is half")


def test_a_mistyped_language_is_said_before_the_weights_are_read(run, folder_of):
    folder = folder_of("mbart25", None)
    (folder / "model.safetensors").unlink()  # reading them would be another error
    for codes in (("en_US", "es_XX"), ("en_XX", "es")):
        done = run("generate.py", folder, *codes, "The map.")
        assert done.returncode == 2 and "did you mean" in done.stderr


def test_a_source_of_padding_alone_disturbs_no_other(models):
    _, ((_, ours), *_) = models
    source = sources(2)
    expected = generate(ours, source, LANG, max_new_tokens=10)
    padded = torch.cat([source[:2], torch.ones_like(source[:1]), source[2:]])
    found = generate(ours, padded, LANG, max_new_tokens=10)
    assert found[:2] + found[3:] == expected


def test_no_sources_give_no_outputs(models):
    _, ((_, ours), *_) = models
    assert generate(ours, torch.empty(0, 5, dtype=torch.long), LANG, max_new_tokens=10) == []
