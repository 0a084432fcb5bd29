"""eval.py: tables, samples, one's own text, and the errors that a user meets."""
import json

import pytest
from conftest import ROOT

import eval as evaluation
import metrics
from corpora.sets import open_data
from eval import Row, Writer, decode, evaluate
from model import MBart
from plumbing.files import write_json
from tokenizer import MBART25, Tokenizer


def write_rows(folder, rows):
    """A jsonl data set of test rows (source, target, source language, target language)."""
    keys = ("source", "target", "source_lang", "target_lang")
    lines = [json.dumps(dict(zip(keys, row)), ensure_ascii=False) for row in rows]
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"jsonl:{folder}"


def test_a_row_for_every_source_language_with_intervals_signatures_and_samples(
    run, small, tmp_path
):
    done = run(
        "eval.py",
        "--model", small,
        "--lang", "tr_TR",
        "--stage", "translate",
        "--examples", 6,
        "--beam", 2,
        "--max-new-tokens", 8,
        "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for source in ("en_XX", "es_XX", "ru_RU", "gu_IN"):
        assert f"{source} -> tr_TR" in done.stdout
    for words in ("BLEU", "chrF", "off-target", "version:", "reference", "output"):
        assert words in done.stdout
    report = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert list(report) == ["model", "stage", "data", "options", "signatures", "rows"]
    assert len(report["rows"]) == 4 and len(report["rows"][0]["examples"]) == 6
    for row in report["rows"]:
        assert list(row) == ["source", "target", "n", "scores", "each", "floors", "examples"]
        for value, low, high in row["scores"].values():
            assert low - 1e-9 <= value <= high + 1e-9


def test_summaries_are_scored_by_rouge_and_by_facts(run, small):
    done = run(
        "eval.py",
        "--model", small,
        "--lang", "gu_IN",
        "--source-lang", "es_XX",
        "--stage", "summarize",
        "--examples", 4,
        "--max-new-tokens", 6,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    columns = ("R1", "R2", "RL", "facts", "off-target", "es_XX -> gu_IN")
    assert all(words in done.stdout for words in columns)


def test_decoding_keeps_the_order_of_its_inputs_whatever_the_batching(small):
    model = MBart.from_pretrained(small)
    tokenizer = Tokenizer.from_pretrained(small)
    sources = [tokenizer.encode("map " * n, "en_XX") for n in (9, 1, 5, 3, 7, 2)]
    options = {"beam": 2, "max_new_tokens": 6}
    together = decode(model, tokenizer, sources, "es_XX", **options)
    alone = [decode(model, tokenizer, [s], "es_XX", **options)[0] for s in sources]
    in_batches = decode(model, tokenizer, sources, "es_XX", tokens=10, **options)
    assert together == alone == in_batches


def test_a_batch_has_no_more_rows_than_its_cache_has_room_for(small, monkeypatch):
    model = MBart.from_pretrained(small)
    tokenizer = Tokenizer.from_pretrained(small)
    rows = []

    def counted(model, source, *args, **options):
        rows.append(len(source))
        return [[5]] * len(source)

    monkeypatch.setattr(evaluation, "generate", counted)
    sources = [[5, 6, 7]] * 10
    decode(model, tokenizer, sources, "es_XX", beam=2, max_new_tokens=20, slots=120)
    assert rows == [3, 3, 3, 1]


def test_int8_is_asked_of_every_decoding(small):
    write = Writer(small, int8=True, beam=1, max_new_tokens=3)
    write(["The teacher found a map."], "en_XX", "es_XX")
    assert write.model.head.int8


def test_perfect_outputs_score_100_and_copied_sources_are_off_target():
    pairs = [("en_XX", "ru_RU"), ("en_XX", "tr_TR")]
    data = open_data("builtin", "summarize", "test", pairs, MBART25)
    for copied in (False, True):

        def write(texts, source, target, copied=copied):
            if copied:
                return texts
            return [data.text((source, target), i)[1] for i in range(len(texts))]

        rows, _ = evaluate(write, "summarize", "builtin", pairs, 40, MBART25)
        for row in rows:
            scores = {name: score[0] for name, score in row.scores.items()}
            assert scores["off-target"] == (100 if copied else 0)
            assert scores["facts"] == pytest.approx(0 if copied else 100, abs=2)
            assert copied or scores["R1"] == scores["RL"] == pytest.approx(100)


def test_english_outputs_are_off_target_in_a_data_set_that_has_no_english(tmp_path):
    """What a model says that has forgotten Turkish: its languages are not learned from the data."""
    corpus = open_data("builtin", "summarize", "test", [("tr_TR", "tr_TR")], MBART25)
    texts = [corpus.text(("tr_TR", "tr_TR"), i) for i in range(40)]
    spec = write_rows(tmp_path, [(*text, "tr_TR", "tr_TR") for text in texts])
    english = open_data("builtin", "summarize", "test", [("en_XX", "en_XX")], MBART25)

    def write(texts, source, target):
        return [english.text(("en_XX", "en_XX"), i)[1] for i in range(len(texts))]

    rows, _ = evaluate(write, "summarize", spec, [("tr_TR", "tr_TR")], 40, MBART25)
    assert 85 <= rows[0].scores["off-target"].value <= 100
    assert rows[0].floors["random"]["off-target"].value == 0


def test_the_off_target_column_is_empty_for_a_language_that_the_identifier_does_not_know(
    run, small, tmp_path, monkeypatch
):
    """As Burmese was before the library's version 0.4."""
    monkeypatch.setattr(metrics, "known_languages", lambda: {"en", "tr"})
    spec = write_rows(
        tmp_path,
        [
            ("သူမသည် စာအုပ်ဖတ်နေသည်။", "စာအုပ်", "my_MM", "my_MM"),
            ("Bugün hava çok güzel.", "Hava güzel", "tr_TR", "tr_TR"),
        ],
    )
    done = run(
        "eval.py",
        "--model", small,
        "--pairs", "my_MM-my_MM", "tr_TR-tr_TR",
        "--stage", "summarize",
        "--data", spec,
        "--max-new-tokens", 4,
        "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    burmese = next(line for line in lines if "my_MM -> my_MM" in line)
    turkish = next(line for line in lines if "tr_TR -> tr_TR" in line)
    assert "–" in burmese and "–" not in turkish
    rows = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))["rows"]
    assert rows[0]["scores"]["off-target"] is None and rows[0]["each"]["off-target"] is None
    assert rows[0]["floors"]["lead"]["off-target"] is None
    assert rows[1]["scores"]["off-target"] is not None


def test_samples_are_so_many_per_target_from_different_sources_where_there_are_enough():
    def row(source, target):
        examples = [
            {"source": f"{source} {i}", "reference": f"{target} {i}", "output": f"said {i}"}
            for i in range(2)
        ]
        return Row(source, target, 2, {}, {}, {}, examples)

    rows = [row("en_XX", "tr_TR"), row("es_XX", "tr_TR"), row("ru_RU", "es_XX")]
    shown = [line for line in evaluation.samples(rows, 3).splitlines() if " source     " in line]
    assert shown == [
        "ru_RU source     ru_RU 0",
        "ru_RU source     ru_RU 1",
        "en_XX source     en_XX 0",
        "es_XX source     es_XX 0",
        "en_XX source     en_XX 1",
    ]


@pytest.mark.parametrize(
    "settings, trained",
    [
        ({}, []),
        ({"stage": "summarize", "langs": ["es_XX"], "pairs": ["es_XX-en_XX"]}, ["es_XX-en_XX"]),
        ({"stage": "summarize", "langs": None, "pairs": None}, ["en_XX-en_XX"]),
        ({"stage": "summarize", "langs": ["es_XX"], "pairs": None}, ["es_XX-es_XX"]),
        (
            {"stage": "translate", "langs": ["es_XX", "en_XX"], "pairs": None},
            ["es_XX-es_XX", "es_XX-en_XX", "en_XX-es_XX", "en_XX-en_XX"],
        ),
        (
            {"stage": "align", "langs": None, "pairs": None, "align_pairs": ["en_XX-ru_RU"]},
            ["en_XX-ru_RU"],
        ),
    ],
)
def test_the_pairs_of_a_run_are_read_from_its_settings_however_old(settings, trained):
    assert ["-".join(pair) for pair in evaluation.trained_pairs(settings)] == trained


def test_pairs_that_a_run_was_not_trained_on_are_marked_zero_shot(run, small, tmp_path):
    tokenizer = Tokenizer.from_pretrained(small)
    MBart.from_pretrained(small).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_json(tmp_path / "args.json", {"stage": "summarize", "pairs": ["en_XX-en_XX"]})
    done = run(
        "eval.py",
        "--model", tmp_path,
        "--lang", "en_XX",
        "--source-lang", "en_XX", "es_XX",
        "--examples", 2,
        "--max-new-tokens", 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.endswith("zero-shot") for line in lines if " -> en_XX" in line] == [False, True]


def test_ones_own_text_is_translated_and_nothing_else_printed(run, small):
    done = run(
        "eval.py",
        "--model", small,
        "--stage", "translate",
        "--lang", "es_XX",
        "--source-lang", "en_XX",
        "--text", "The teacher found a map.",
        "--max-new-tokens", 5,
    )  # fmt: skip
    assert done.returncode == 0 and len(done.stdout.splitlines()) <= 1, done.stderr
    assert not done.stderr


def test_a_text_longer_than_the_model_reads_is_cut_with_a_note(run, small):
    done = run(
        "eval.py",
        "--model", small,
        "--stage", "translate",
        "--lang", "es_XX",
        "--source-lang", "en_XX",
        "--text", "map " * 400,
        "--max-new-tokens", 3,
        "--beam", 1,
    )  # fmt: skip
    assert done.returncode == 0 and "the model reads 256" in done.stderr
    assert "% of it was used" in done.stderr


def test_a_model_that_was_only_pretrained_is_said_to_copy(run, small):
    done = run(
        "eval.py",
        "--model", small,
        "--lang", "es_XX",
        "--source-lang", "en_XX",
        "--examples", 2,
        "--max-new-tokens", 3,
    )  # fmt: skip
    assert done.returncode == 0 and "copies its input" in done.stderr
    assert "copies its input" not in done.stdout  # which has one's own text's output alone


def test_without_a_run_it_says_what_to_run_first(run, tmp_path):
    done = run(ROOT / "eval.py", "--lang", "tr_TR", cwd=tmp_path)
    assert done.returncode == 2 and "train.py --stage translate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "args, words",
    [
        (("--lang", "tr"), "did you mean tr_TR"),
        (("--pairs", "en_XX-tr"), "did you mean tr_TR"),
        (("--lang", "es_XX", "--text", "hello"), "--source-lang"),
        (("--lang", "es_XX", "--source-lang", "en_XX", "--text", " "), "empty"),
        (("--lang", "it_IT",), "no 'it_IT'"),
        ((), "--lang"),
        (("--lang", "es_XX", "--data", "jsonl:/nowhere"), "/nowhere"),
        (("--lang", "es_XX", "--source-lang", "es_XX"), "other than the target"),
    ],
)
def test_a_users_mistake_is_one_clear_line_and_exit_code_2(run, small, args, words):
    done = run("eval.py", "--model", small, "--stage", "translate", *args)
    assert done.returncode == 2 and words in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_folder_is_named(run):
    done = run("eval.py", "--lang", "tr_TR", "--model", "/nowhere")
    assert done.returncode == 2 and "/nowhere" in done.stderr


def test_summaries_come_with_their_floors(small):
    pairs = [("en_XX", "en_XX"), ("es_XX", "en_XX")]
    write = Writer(small, beam=1, max_new_tokens=2)
    rows, _ = evaluate(write, "summarize", "builtin", pairs, 30, MBART25)
    within, across = (row.floors for row in rows)
    # articles match by themselves
    assert 20 < within["random"]["R1"][0] < within["lead"]["R1"][0] < 70
    assert across["lead"]["off-target"][0] == 100 and across["random"]["off-target"][0] == 0
    assert across["random"]["facts"][0] < 10


def test_a_single_example_has_no_floor_of_another_examples_headline():
    pairs = [("en_XX", "en_XX")]

    def write(texts, source, target):
        return texts

    rows, _ = evaluate(write, "summarize", "builtin", pairs, 1, MBART25)
    assert list(rows[0].floors) == ["lead"] and "R1 floors: lead " in evaluation.table(rows)
    rows, _ = evaluate(write, "summarize", "builtin", pairs, 2, MBART25)
    assert list(rows[0].floors) == ["random", "lead"]
    assert "R1 floors: random " in evaluation.table(rows)


def test_an_output_is_at_most_as_long_as_the_model_can_write(small):
    write = Writer(small, beam=1, max_new_tokens=10_000, min_new_tokens=255)
    assert write.options["max_new_tokens"] == 255  # and the start token
    assert len(write(["The teacher found a map."], "en_XX", "es_XX")) == 1


def test_a_file_and_standard_input_are_read_like_a_text(run, small, tmp_path):
    article = "The teacher found a map.\nIt was cold.\n"
    (tmp_path / "article.txt").write_text(article)
    options = (
        "eval.py",
        "--model", small,
        "--lang", "en_XX",
        "--stage", "summarize",
        "--max-new-tokens", 5,
    )  # fmt: skip
    outputs = [
        run(*options, "--file", tmp_path / "article.txt"),
        run(*options, "--file", "-", input=article),
        run(*options, "--text", "The teacher found a map. It was cold."),
    ]
    assert all(done.returncode == 0 for done in outputs), outputs
    assert len({done.stdout for done in outputs}) == 1
    done = run(*options, "--file", tmp_path / "none.txt")
    assert done.returncode == 2 and "none.txt" in done.stderr and "Traceback" not in done.stderr
