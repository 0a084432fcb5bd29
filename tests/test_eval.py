"""eval.py: tables, samples, one's own text, and the errors that a user meets."""
import csv
import json
import os
import shutil

import pytest
import torch
from conftest import ROOT

import eval as evaluation
import metrics
from corpora.sets import open_data
from eval import Decoder, Row, decode, evaluate
from model import MBart
from plumbing.files import UserError, read_json, size_and_checksum, write_json
from plumbing.options import decoding_of
from plumbing.runs import latest_run
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
    names = ["model", "validation loss", "stage", "data", "options", "signatures", "rows", "origin"]
    assert list(report) == names
    assert report["validation loss"] is None  # of no run
    assert len(report["rows"]) == 4 and len(report["rows"][0]["examples"]) == 6
    for row in report["rows"]:
        names = ["source", "target", "n", "scores", "each", "floors", "examples", "references"]
        assert list(row) == names
        for value, low, high in row["scores"].values():
            assert low - 1e-9 <= value <= high + 1e-9


def test_no_more_of_a_text_is_read_than_the_model_was_trained_on(run, small, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    settings = {"stage": "summarize", "max_length": 6, "pairs": ["en_XX-en_XX"]}
    (folder / "args.json").write_text(json.dumps(settings), encoding="utf-8")
    text = "The teacher found a map in the park."
    data = write_rows(tmp_path, [(text, "A map", "en_XX", "en_XX")])
    words = ("--pairs", "en_XX-en_XX", "--data", data, "--max-new-tokens", 4)
    done = run("eval.py", "--model", folder, *words)
    assert done.returncode == 0 and "the model reads 6: the first 50%" in done.stderr
    done = run("generate.py", folder, "en_XX", "en_XX", text)  # of 6 two are </s> and the tag
    assert done.returncode == 0 and "the model reads the first 4;" in done.stderr


def test_references_in_another_language_than_the_targets_are_told(run, small, tmp_path):
    """As where a language that has no tag borrows one."""
    rows = [("A text.", "The teacher found a map in the park yesterday.", "tr_TR", "tr_TR")] * 3
    data = write_rows(tmp_path, rows)
    words = ("--pairs", "tr_TR-tr_TR", "--data", data, "--max-new-tokens", 4)
    done = run("eval.py", "--model", small, "--stage", "summarize", *words)
    assert done.returncode == 0, done.stderr
    assert "100% of the references are not in tr_TR" in done.stderr
    rows = [("Bir metin.", "Öğretmen dün parkta bir harita buldu.", "tr_TR", "tr_TR")] * 3
    write_rows(tmp_path, rows)
    done = run("eval.py", "--model", small, "--stage", "summarize", *words)
    assert done.returncode == 0 and "of the references" not in done.stderr, done.stderr


def test_a_score_file_says_of_which_base_its_model_is_and_how_low_its_loss_was(
    run, small, tmp_path
):
    """However many runs and tools lie between; pretraining makes a new base."""

    def origin(folder):
        return scored(folder)["origin"]

    def scored(folder):
        file = tmp_path / "scores.json"
        done = run(
            "eval.py", "--model", folder, "--pairs", "en_XX-es_XX", "--stage", "translate",
            "--examples", 2, "--beam", 1, "--max-new-tokens", 3, "--json", file,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(file.read_text(encoding="utf-8"))

    def train(stage, init, out):
        done = run(
            "train.py", "--stage", stage, "--recipe", "full", "--langs", "en_XX", "--init", init,
            "--tokens", 300, "--steps", 1, "--valid-examples", 2, "--no-eval", "--device", "cpu",
            "--out", out,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return out

    first = train("summarize", small, tmp_path / "first")
    second = train("translate", first, tmp_path / "second")
    made = tmp_path / "made"
    done = run("-m", "tools.new_language", "random-cross-attention", second, made)
    assert done.returncode == 0, done.stderr
    other = train("pretrain", small, tmp_path / "other")
    assert origin(small) == [size_and_checksum(small / "model.safetensors")]
    assert origin(first) == origin(second) == origin(made) == origin(small)
    assert origin(other) != origin(small)
    with open(first / "log.csv", newline="") as file:
        losses = [float(line["validation loss"]) for line in csv.DictReader(file)]
    assert scored(first)["validation loss"] == min(losses)
    third = train("summarize", other, tmp_path / "third")
    assert origin(third) == origin(other)

    settings = json.loads((third / "args.json").read_text(encoding="utf-8"))
    del settings["origin"]  # as runs were before
    (third / "args.json").write_text(json.dumps(settings), encoding="utf-8")
    assert origin(third) is None


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
    for explained in ("off-target: % of", "facts: % of", "R1 floors: ROUGE-1 without a model"):
        assert explained in done.stdout
    assert all(words in done.stdout for words in columns)


def test_decoding_keeps_the_order_of_its_inputs_whatever_the_batching(small, monkeypatch):
    model = MBart.from_pretrained(small)
    tokenizer = Tokenizer.from_pretrained(small)
    sources = [tokenizer.encode("map " * n, "en_XX") for n in (9, 1, 5, 3, 7, 2)]
    options = {"beam": 2, "max_new_tokens": 6}
    together = decode(model, tokenizer, sources, "es_XX", **options)
    alone = [decode(model, tokenizer, [s], "es_XX", **options)[0] for s in sources]
    monkeypatch.setattr(evaluation, "CPU_TOKENS", 10)
    in_batches = decode(model, tokenizer, sources, "es_XX", **options)
    assert together == alone == in_batches


def test_a_batch_has_no_more_rows_than_there_is_room_for(small, monkeypatch):
    model = MBart.from_pretrained(small)
    tokenizer = Tokenizer.from_pretrained(small)
    rows = []

    def counted(model, source, *args, **options):
        rows.append(len(source))
        return [[5]] * len(source)

    monkeypatch.setattr(evaluation, "generate", counted)
    sources = [[5, 6, 7]] * 10
    decode(model, tokenizer, sources * 50, "es_XX", beam=5, max_new_tokens=100)
    assert rows == [100] * 5
    rows.clear()
    monkeypatch.setattr(evaluation, "CPU_BEAM_TOKENS", 2 * 20 * 3)
    decode(model, tokenizer, sources, "es_XX", beam=2, max_new_tokens=20)
    assert rows == [3, 3, 3, 1]


@pytest.mark.parametrize("has_vnni", [True, False])
def test_int8_says_where_it_may_not_pay(run, small, monkeypatch, has_vnni):
    monkeypatch.setattr("eval.HAS_VNNI", has_vnni)
    options = ("--model", small, "--stage", "summarize", "--max-new-tokens", 2, "--lang", "en_XX")
    done = run("eval.py", *options, "--int8", "--text", "The teacher found a map.")
    assert done.returncode == 0, done.stderr
    assert ("VNNI" in done.stderr) == (not has_vnni)


def test_int8_is_asked_of_every_decoding(small):
    decoder = Decoder(small, int8=True, beam=1, max_new_tokens=3)
    decoder(["The teacher found a map."], "en_XX", "es_XX")
    assert decoder.model.head.int8


def test_perfect_outputs_score_100_and_copied_sources_are_off_target():
    pairs = [("en_XX", "ru_RU"), ("en_XX", "tr_TR")]
    data = open_data("builtin", "summarize", "test", pairs, MBART25)
    for copied in (False, True):

        def write(texts, source, target, copied=copied):
            if copied:
                return texts
            return [data.text((source, target), i)[1] for i in range(len(texts))]

        # A share is pretraining's alone: the texts are the same, and there are facts.
        spec = "builtin:0.2" if copied else "builtin"
        rows, _ = evaluate(write, "summarize", spec, pairs, 40, MBART25)
        for row in rows:
            scores = {name: score[0] for name, score in row.scores.items()}
            assert scores["off-target"] == (100 if copied else 0)
            assert scores["facts"] == pytest.approx(0 if copied else 100, abs=2)
            assert copied or scores["R1"] == scores["RL"] == pytest.approx(100)


def test_an_empty_output_is_off_target():
    """Whatever the target: English is the likeliest of nothing, or no language is."""
    identify = metrics.LanguageIdentifier(["tr_TR"])
    for target in ("tr_TR", "en_XX"):
        found = evaluation.off_target([""], target, identify)
        assert found == {"off-target": [100.0], "off-target-p": [100.0]}, target


def test_an_output_may_be_in_every_language_of_the_built_in_corpus():
    pair = ("en_XX", "tr_TR")
    for data in ("builtin", "builtin:0.2"):
        found = evaluation.languages_in_question(data, [pair], [])
        assert set(found) == {"en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN", "fr_XX", "de_DE"}
    assert set(evaluation.languages_in_question("jsonl:DIR", [pair], [("fr_XX", "fr_XX")])) == {
        "en_XX", "tr_TR", "fr_XX"
    }


def test_a_row_has_every_outputs_own_rouge_and_their_mean():
    pair = ("en_XX", "en_XX")
    data = open_data("builtin", "summarize", "test", [pair], MBART25)
    references = [data.text(pair, i)[1] for i in range(6)]
    outputs = [" ".join(reference.split()[i % 3:]) for i, reference in enumerate(references)]
    (row,), _ = evaluate(lambda *texts: outputs, "summarize", "builtin", [pair], 6, MBART25)
    expected = metrics.rouge(outputs, references, "en_XX")
    for column in ("R1", "R2", "RL"):
        assert row.each[column] == pytest.approx(expected[column], abs=0.0051)
        assert row.scores[column].value == pytest.approx(sum(expected[column]) / 6)
    assert len(set(row.each["R1"])) > 2


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
    assert rows[0].scores["off-target-p"].value == pytest.approx(
        rows[0].scores["off-target"].value, abs=10
    )
    assert rows[0].floors["random"]["off-target"].value == 0
    assert rows[0].references["off-target"].value == 0
    assert 0 <= rows[0].references["off-target-p"].value < 5


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
    assert rows[0]["references"] == {"off-target": None, "off-target-p": None}
    assert "references off-target" in turkish and "references" not in burmese
    assert "[" not in turkish and "[" not in burmese  # of one example there is no interval


def test_what_says_one_language_alone_cannot_say_that_a_text_is_in_another(run, small, tmp_path):
    """Published weights on English data: Spanish was 0% off-target, for only English counted."""
    spec = write_rows(tmp_path, [("La maestra duerme aquí.", "Un mapa rojo", "en_XX", "en_XX")] * 3)
    words = ("--model", small, "--stage", "summarize", "--data", spec, "--max-new-tokens", 3)
    done = run("eval.py", *words, "--pairs", "en_XX-en_XX", "--json", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    assert "off-target: not told: py3langid knows English alone" in done.stdout
    (row,) = read_json(tmp_path / "scores.json")["rows"]
    assert row["scores"]["off-target"] is None and row["references"]["off-target"] is None


def test_with_one_beam_what_compares_hypotheses_has_no_effect_and_is_told(run, small):
    words = ("--model", small, "--stage", "translate", "--pairs", "en_XX-es_XX", "--examples", 1)
    more = ("--max-new-tokens", 3, "--length-penalty", 3, "--early-stopping", "--skip-bad-lines")
    done = run("eval.py", *words, *more, "--beam", 1)
    assert done.returncode == 0, done.stderr
    for name in ("--length-penalty", "--early-stopping"):
        assert f"{name} has no effect with --beam 1" in done.stderr
    assert "--skip-bad-lines has no effect with the built-in corpus" in done.stderr
    assert "no effect with --beam" not in run("eval.py", *words, *more, "--beam", 2).stderr


def test_a_text_with_nul_characters_is_bad_input(run, small, tmp_path):
    (tmp_path / "text.txt").write_bytes("the map".encode("utf-16-le"))
    words = ("--model", small, "--lang", "es_XX", "--source-lang", "en_XX", "--stage", "translate")
    done = run("eval.py", *words, "--file", tmp_path / "text.txt")
    assert done.returncode == 2 and "save UTF-16 as UTF-8" in done.stderr


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
    write_json(tmp_path / "args.json", {"stage": "translate", "pairs": ["en_XX-en_XX"]})
    words = ["--lang", "en_XX", "--source-lang", "en_XX", "--examples", 2, "--max-new-tokens", 3]
    done = run("eval.py", "--model", tmp_path, "--stage", "summarize", *words)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()  # it has never summarized
    assert [line.endswith("zero-shot") for line in lines if " -> en_XX" in line] == [True]


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
        (("--lang", "es_XX", "--examples", "0"), "the built-in corpus has no end"),
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
    decoder = Decoder(small, beam=1, max_new_tokens=2)
    rows, _ = evaluate(decoder, "summarize", "builtin", pairs, 30, MBART25)
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


def test_a_cpu_with_a_number_computes_as_a_cpu(run, small, tmp_path):
    file = tmp_path / "scores.json"
    done = run(
        "eval.py", "--model", small, "--stage", "translate", "--pairs", "en_XX-es_XX", "--examples",
        1, "--beam", 1, "--max-new-tokens", 2, "--device", "cpu:0", "--json", file,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "precision" not in json.loads(file.read_text(encoding="utf-8"))["options"]


def test_an_output_is_at_most_as_long_as_the_model_can_write(small):
    decoder = Decoder(small, beam=1, max_new_tokens=10_000, min_new_tokens=255)
    assert decoder.options["max_new_tokens"] == 255  # and the start token
    assert len(decoder(["The teacher found a map."], "en_XX", "es_XX")) == 1


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


def test_references_that_the_identifier_takes_for_another_language_are_its_own_error(tmp_path):
    spec = write_rows(
        tmp_path,
        [
            ("Bugün hava çok güzel.", "Hava çok güzel", "tr_TR", "tr_TR"),
            ("Dün yağmur yağdı.", "The weather is beautiful", "tr_TR", "tr_TR"),
        ],
    )

    def write(texts, source, target):
        return ["Hava çok güzel"] * len(texts)

    rows, _ = evaluate(write, "summarize", spec, [("tr_TR", "tr_TR")], 9, MBART25)
    assert rows[0].scores["off-target"].value == 0
    assert rows[0].references["off-target"].value == 50
    assert rows[0].references["off-target-p"].value == pytest.approx(50, abs=5)
    assert "references off-target 50.0, -p " in evaluation.table(rows)


def test_each_target_language_has_its_own_bleu_and_signature(tmp_path):
    spec = write_rows(
        tmp_path,
        [
            ("The weather is fine.", "今天天气很好。", "en_XX", "zh_CN"),
            ("The weather is fine today.", "Bugün hava çok güzel.", "en_XX", "tr_TR"),
        ],
    )
    pairs = [("en_XX", "zh_CN"), ("en_XX", "tr_TR")]

    def write(texts, source, target):
        return [{"zh_CN": "今天天气很好。", "tr_TR": "Bugün hava çok güzel."}[target]]

    rows, signatures = evaluate(write, "translate", spec, pairs, 9, MBART25)
    assert [row.scores["BLEU"].value for row in rows] == pytest.approx([100, 100])
    bleu = [line for line in signatures if line.startswith("BLEU")]
    assert "tok:zh" in bleu[0] and bleu[0].endswith("(for zh_CN)")
    assert "tok:13a" in bleu[1] and bleu[1].endswith("(for tr_TR)")
    assert len([line for line in signatures if line.startswith("chrF")]) == 1
    assert signatures[-1].startswith("off-target: py3langid ")
    assert signatures[-1].endswith("which chooses among en_XX tr_TR zh_CN")


def test_stemmed_rouge_stands_beside_unstemmed_where_there_is_a_stemmer(run, small, tmp_path):
    spec = write_rows(
        tmp_path,
        [
            ("Вышли новые книги.", "Новые книги", "ru_RU", "ru_RU"),
            ("શિક્ષકે સાયકલ ખરીદી.", "સાયકલ ખરીદી", "gu_IN", "gu_IN"),
        ],
    )
    pairs = [("ru_RU", "ru_RU"), ("gu_IN", "gu_IN")]

    def write(texts, source, target):
        return ["новую книгу"]

    rows, signatures = evaluate(write, "summarize", spec, pairs, 9, MBART25, stem=True)
    assert rows[0].scores["R1"].value == 0
    assert rows[0].scores["R1-stem"].value == pytest.approx(100)
    assert rows[0].floors["lead"]["RL-stem"].value > 50
    assert rows[1].scores["R1-stem"] is None  # Gujarati has no stemmer
    assert any("russian" in line and line.endswith("(for ru_RU)") for line in signatures)
    options = ("eval.py", "--model", small, "--max-new-tokens", 3, "--data", spec, "--stem")
    done = run(*options, "--stage", "summarize", "--pairs", "ru_RU-ru_RU")
    assert done.returncode == 0 and "R2-stem" in done.stdout and "Snowball" in done.stdout
    done = run(*options, "--stage", "translate", "--pairs", "ru_RU-ru_RU")
    assert done.returncode == 2 and "--stem" in done.stderr


def test_cut_sources_and_references_beyond_the_longest_output_are_told(run, small, tmp_path):
    spec = write_rows(
        tmp_path,
        [
            ("map " * 400, "map " * 9, "en_XX", "es_XX"),
            ("The teacher found a map.", "map", "en_XX", "es_XX"),
        ],
    )
    options = ("eval.py", "--model", small, "--pairs", "en_XX-es_XX", "--data", spec)
    done = run(*options, "--max-new-tokens", 3, "--stage", "translate", "--beam", 1)
    assert done.returncode == 0, done.stderr
    assert "1 of 2 en_XX sources have more than the 256 tokens" in done.stderr
    assert "1 of 2 es_XX references have more than the 3 tokens" in done.stderr
    decoder = Decoder(small)
    long = len(decoder.encode("map " * 400, "en_XX"))
    short = len(decoder.encode("The teacher found a map.", "en_XX"))
    assert f"{(long - 256) / (long + short):.1%} of all" in done.stderr


def test_a_tag_that_the_decoder_writes_counts_as_one_of_the_new_tokens(small, tmp_path, capsys):
    """In mBART-50: a reference of two pieces needs four of them, in mBART-25 three."""
    for layout, told in (("mbart25", False), ("mbart50", True)):
        decoder = Decoder(small, max_new_tokens=3)
        decoder.tokenizer.layout = layout
        text = decoder.tokenizer.decode(decoder.tokenizer.piece_ids("The map.")[:2])
        assert len(decoder.tokenizer.piece_ids(text)) == 2
        decoder.tell_references([text, text], "en_XX")
        assert ("2 of 2 en_XX references" in capsys.readouterr().err) == told


def test_no_texts_are_no_outputs(small):
    assert Decoder(small)([], "en_XX", "es_XX") == []


def test_a_language_alone_means_the_pairs_that_the_data_can_have(run, small, tmp_path):
    """XL-Sum has summaries in the document's own language."""
    row = {"text": "The teacher found a map.", "summary": "A map"}
    path = tmp_path / "turkish_test.jsonl"
    path.write_text(f"{json.dumps(row)}\n" * 2, encoding="utf-8")
    options = ("eval.py", "--model", small, "--stage", "summarize", "--max-new-tokens", 3)
    options += ("--data", f"xlsum:{tmp_path}", "--lang", "tr_TR")
    done = run(*options)
    assert done.returncode == 0, done.stderr
    assert "tr_TR -> tr_TR" in done.stdout and "en_XX -> tr_TR" not in done.stdout
    done = run(*options, "--source-lang", "en_XX")
    assert done.returncode == 2 and "own language only, not en_XX-tr_TR" in done.stderr


def test_texts_that_the_vocabulary_cannot_read_are_told_with_their_share(run, small, tmp_path):
    spec = write_rows(tmp_path, [("猫は静か map a", "猫は静か", "ja_XX", "ja_XX")] * 2)
    options = ("eval.py", "--model", small, "--stage", "summarize", "--max-new-tokens", 3)
    done = run(*options, "--pairs", "ja_XX-ja_XX", "--data", spec)
    assert done.returncode == 0, done.stderr
    assert "no pieces for 50% of the characters of the ja_XX sources" in done.stderr
    assert "no pieces for 100% of the characters of the ja_XX references" in done.stderr
    done = run(*options, "--lang", "ja_XX", "--text", "猫は静か")
    assert done.returncode == 0 and "100% of the characters" in done.stderr
    done = run(*options, "--lang", "ja_XX", "--text", "\u200b")
    assert done.returncode == 2 and "takes for text" in done.stderr


def test_no_number_of_examples_is_the_whole_test_set(run, small, tmp_path):
    rows = [("a map.", f"one map {i}", "en_XX", "en_XX") for i in range(203)]
    data = write_rows(tmp_path, rows)
    counts = []
    for words in ((), ("--examples", 0), ("--examples", 2)):
        done = run(
            "eval.py", "--model", small, "--stage", "summarize", "--pairs", "en_XX-en_XX", "--data",
            data, "--beam", 1, "--max-new-tokens", 2, "--samples", 0, "--json", tmp_path / "out",
            *words,
        )
        assert done.returncode == 0, done.stderr
        counts.append(read_json(tmp_path / "out")["rows"][0]["n"])
    assert counts == [200, 203, 2]


def test_pairs_asked_for_that_the_data_do_not_have_are_named(run, small, tmp_path):
    spec = write_rows(tmp_path, [("Hava güzel.", "Hava", "tr_TR", "tr_TR")])
    options = ("eval.py", "--model", small, "--stage", "summarize", "--max-new-tokens", 3)
    asked = ("--lang", "tr_TR", "--source-lang", "tr_TR", "fr_XX")
    for words in (("--pairs", "tr_TR-tr_TR", "fr_XX-tr_TR"), asked):
        done = run(*options, *words, "--data", spec)
        assert done.returncode == 0 and "fr_XX-tr_TR: no example" in done.stderr
        assert "tr_TR-tr_TR: no example" not in done.stderr
    done = run(*options, "--lang", "tr_TR", "--data", spec)  # every source that there is
    assert done.returncode == 0 and "no example" not in done.stderr


def test_a_language_typed_twice_has_one_row(run, small, tmp_path):
    spec = write_rows(tmp_path, [("Hava güzel.", "Hava", "tr_TR", "tr_TR")])
    options = ("--model", small, "--stage", "summarize", "--max-new-tokens", 3, "--data", spec)
    done = run("eval.py", *options, "--lang", "tr_TR", "--source-lang", "tr_TR", "tr_TR")
    assert done.returncode == 0 and done.stdout.count("tr_TR -> tr_TR") == 1, done.stderr


def test_typed_pairs_without_test_files_are_named_and_the_others_scored(run, small, tmp_path):
    for lang, text in (("en_XX", "Fine weather."), ("tr_TR", "Hava güzel.")):
        (tmp_path / f"test.{lang}").write_text(text + "\n", encoding="utf-8")
    options = ("eval.py", "--model", small, "--stage", "translate", "--max-new-tokens", 3)
    options += ("--data", f"parallel:{tmp_path}")
    asked = ("--lang", "tr_TR", "--source-lang", "en_XX", "fr_XX")
    for words in (("--pairs", "en_XX-tr_TR", "fr_XX-tr_TR"), asked):
        done = run(*options, *words)
        assert done.returncode == 0, done.stderr
        assert "note: fr_XX-tr_TR: no example" in done.stderr
        assert "en_XX -> tr_TR" in done.stdout
    done = run(*options, "--lang", "tr_TR")
    assert done.returncode == 0 and "no example" not in done.stderr


def test_no_copy_is_scored_as_a_summary_and_no_summary_as_a_translation(run, small, tmp_path):
    """What train.py refuses to train."""
    for lang, text in (("en_XX", "Fine weather."), ("tr_TR", "Hava güzel.")):
        (tmp_path / f"test.{lang}").write_text(text + "\n", encoding="utf-8")
    words = ("eval.py", "--model", small, "--max-new-tokens", 3)
    summaries = (*words, "--stage", "summarize", "--data", f"parallel:{tmp_path}")
    for typed in (
        ("--pairs", "tr_TR-tr_TR", "en_XX-tr_TR"), ("--lang", "tr_TR", "--source-lang", "tr_TR")
    ):
        done = run(*summaries, *typed)
        assert done.returncode == 2 and "from tr_TR to tr_TR a copy" in done.stderr, done.stderr
    done = run(*summaries, "--lang", "tr_TR")
    assert done.returncode == 0 and "tr_TR -> tr_TR" not in done.stdout, done.stderr
    assert "en_XX -> tr_TR" in done.stdout
    for data in (f"xlsum:{tmp_path}", f"wikilingua:{tmp_path}"):
        done = run(*words, "--stage", "translate", "--lang", "tr_TR", "--data", data)
        assert done.returncode == 2 and "has summaries and no translations" in done.stderr


def test_languages_that_nobody_asked_for_are_not_in_question(tmp_path):
    """--lang alone means the source languages that the data have, not the model's 25."""
    spec = write_rows(tmp_path, [("Hava güzel.", "Hava", "tr_TR", "tr_TR")])
    pairs = [(lang, "tr_TR") for lang in MBART25]

    def write(texts, source, target):
        return ["Hava"]

    names = []
    real = metrics.LanguageIdentifier

    def seen(languages):
        names.extend(languages)
        return real(languages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "LanguageIdentifier", seen)
        evaluate(write, "summarize", spec, pairs, 9, MBART25, [("ru_RU", "ru_RU")])
    assert set(names) == {"tr_TR", "ru_RU"}


def test_ones_own_text_may_be_written_as_json_too(run, small, tmp_path):
    done = run(
        "eval.py",
        "--model", small,
        "--stage", "translate",
        "--lang", "es_XX",
        "--source-lang", "en_XX",
        "--text", "The teacher found a map.",
        "--max-new-tokens", 5,
        "--json", tmp_path / "own.json",
    )  # fmt: skip
    assert done.returncode == 0 and "own.json" in done.stderr
    report = json.loads((tmp_path / "own.json").read_text(encoding="utf-8"))
    example = report["rows"][0]["examples"][0]
    assert example["source"] == "The teacher found a map." and example["reference"] is None
    assert done.stdout == example["output"] + "\n"


@pytest.mark.parametrize(
    "words, named",
    [
        (("--pairs", "en_XX-es_XX"), "--pairs"),
        (("--lang", "es_XX", "--data", "builtin"), "--data"),
        (("--lang", "es_XX", "--examples", 7), "--examples"),
        (("--lang", "es_XX", "--skip-bad-lines"), "--skip-bad-lines"),
        (("--lang", "es_XX", "--stem"), "--stem"),
    ],
)
def test_an_option_that_ones_own_text_would_ignore_is_refused(run, small, words, named):
    done = run("eval.py", "--model", small, "--text", "A map.", *words)
    assert done.returncode == 2 and not done.stdout
    assert f"{named} is for a test set" in done.stderr


def test_a_text_and_a_file_at_once_are_refused(run, small):
    words = ("--lang", "es_XX", "--text", "A map.", "--file", "x.txt")
    done = run("eval.py", "--model", small, *words)
    assert done.returncode == 2 and "--text and --file: give one text at a time" in done.stderr


def test_what_is_typed_of_decoding_is_what_decodes(run, small, tmp_path, monkeypatch):
    asked = []

    def decoded(model, source, lang, **options):
        asked.append(options | {"dtype": model.model.shared.weight.dtype})
        return [[] for _ in source]

    monkeypatch.setattr(evaluation, "generate", decoded)
    done = run(
        "eval.py", "--model", small, "--pairs", "en_XX-es_XX", "--stage", "summarize",
        "--examples", 2, "--beam", 3, "--max-new-tokens", 7, "--min-new-tokens", 2,
        "--length-penalty", 0.6, "--no-repeat-ngram", 4, "--early-stopping", "--precision", "bf16",
        "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    typed = {
        "beam": 3, "max_new_tokens": 7, "min_new_tokens": 2, "length_penalty": 0.6,
        "no_repeat_ngram": 4, "early_stopping": True,
    }  # fmt: skip
    assert asked == [typed | {"dtype": torch.bfloat16}]
    options = json.loads((tmp_path / "scores.json").read_text())["options"]
    assert typed.items() <= options.items() and options["precision"] == "bf16"


def test_the_latest_run_is_the_newest_of_a_task_that_has_a_model(tmp_path):
    for time, (name, stage, has_model) in enumerate((
        ("older", "translate", True),
        ("newest of a task", "summarize", True),
        ("a base", "pretrain", True),
        ("without a model", "summarize", False),
    )):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        write_json(folder / "args.json", {"stage": stage})
        files = [folder / "args.json"]
        if has_model:
            for file in ("config.json", "model.safetensors"):
                (folder / file).write_text("{}")
                files.append(folder / file)
        for path in (*files, folder):
            os.utime(path, (time + 1, time + 1))
    assert str(latest_run(("translate", "summarize"))) == "runs/newest of a task"
    (tmp_path / "runs/older/args.json").write_text('{"stage": "translate"}')  # as tools.card does
    assert str(latest_run(("translate", "summarize"))) == "runs/newest of a task"
    (tmp_path / "runs/older/state.pt").touch()  # as --resume does
    assert str(latest_run(("translate", "summarize"))) == "runs/older"
    drawn = {"stage": "translate", "fresh": ["src"]}  # as tools.new_language leaves it
    (tmp_path / "runs/older/args.json").write_text(json.dumps(drawn))
    assert str(latest_run(("translate", "summarize"))) == "runs/newest of a task"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes that have names")
def test_what_is_no_ordinary_file_is_not_replaced_by_a_report(run, small, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    words = ("--model", small, "--stage", "translate", "--lang", "en_XX")
    done = run("eval.py", *words, "--json", tmp_path / "pipe")
    assert done.returncode == 2 and "is no ordinary file" in done.stderr
    assert (tmp_path / "pipe").is_fifo()


def test_a_source_language_beside_pairs_is_refused(run, small):
    done = run(
        "eval.py", "--model", small, "--pairs", "en_XX-es_XX", "--source-lang", "ru_RU"
    )
    assert done.returncode == 2 and "--source-lang goes with --lang" in done.stderr


def test_a_byte_order_mark_is_no_text_and_a_lone_surrogate_is_bad_input(run, small, tmp_path):
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfThe teacher found a map.")
    args = evaluation.parse_args(["--lang", "es_XX", "--file", str(tmp_path / "bom.txt")])
    assert evaluation.own_text(args) == "The teacher found a map."
    done = run(
        "eval.py", "--model", small, "--stage", "summarize", "--lang", "es_XX",
        "--text", "a \udcff map",
    )  # fmt: skip
    assert done.returncode == 2 and "a lone surrogate" in done.stderr
    assert "Traceback" not in done.stderr


def test_data_without_columns_for_languages_are_of_the_runs_one_pair(run, small, tmp_path):
    rows = [{"text": "The teacher found a map.", "summary": "A map."}] * 2
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    child = tmp_path / "child"
    shutil.copytree(small, child)
    settings = {"stage": "summarize", "langs": ["en_XX"], "data": f"jsonl:{tmp_path}"}
    (child / "args.json").write_text(json.dumps(settings))
    words = ("eval.py", "--model", child, "--max-new-tokens", 2, "--samples", 0, "--device", "cpu")
    done = run(*words, "--lang", "en_XX")
    assert done.returncode == 0, done.stderr
    assert "en_XX -> en_XX" in done.stdout
    for asked in (["--lang", "es_XX"], ["--lang", "en_XX", "--source-lang", "es_XX", "ru_RU"]):
        refused = run(*words, *asked)
        assert refused.returncode == 2 and "--pairs en_XX-es_XX" in refused.stderr
        assert "--langs" not in refused.stderr
    # Nor does it matter what an encoder with a vocabulary of its own was once trained to read.
    settings = {"stage": "summarize", "pairs": ["es_XX-en_XX"], "data": f"jsonl:{tmp_path}"}
    settings |= {"new_source": True, "learned": ["summarize es_XX-en_XX", "translate ru_RU-en_XX"]}
    (child / "args.json").write_text(json.dumps(settings))
    done = run(*words, "--lang", "en_XX")
    assert done.returncode == 0, done.stderr
    assert "es_XX -> en_XX" in done.stdout and "ru_RU ->" not in done.stdout
    assert "ru_RU" not in done.stderr


def test_the_longest_output_is_reported_as_the_model_can_have_it(run, small, tmp_path):
    done = run(
        "eval.py", "--model", small, "--stage", "summarize", "--lang", "tr_TR", "--text", "Hava.",
        "--beam", 1, "--max-new-tokens", 5000, "--json", tmp_path / "report.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "outputs have at most 255" in done.stderr
    assert read_json(tmp_path / "report.json")["options"]["max_new_tokens"] == 255


def test_a_report_replaces_nothing_that_is_read(run, small, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    spec = write_rows(tmp_path, [("Hava güzel.", "Hava", "tr_TR", "tr_TR")])
    text = tmp_path / "text.txt"
    text.write_text("Hava güzel.", encoding="utf-8")
    of_the_help = tmp_path / "data/help/sections/test.jsonl"  # which help: means without a folder
    of_the_help.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "test.jsonl", of_the_help)
    words = ["eval.py", "--model", folder, "--stage", "summarize", "--lang", "tr_TR"]
    words += ["--max-new-tokens", 2]
    for file, source in (
        (text, ["--file", text]),
        (folder / "config.json", ["--file", text]),
        (tmp_path / "test.jsonl", ["--data", spec]),
        (of_the_help, ["--data", "help:"]),
    ):
        before = file.read_bytes()
        done = run(*words, *source, "--json", file, cwd=tmp_path)
        assert done.returncode == 2 and "is what is read here" in done.stderr, done.stderr
        assert file.read_bytes() == before
    other = tmp_path / "other.txt"  # the same file by another name, as on a disk that ignores case
    os.link(text, other)
    done = run(*words, "--file", text, "--json", other)
    assert done.returncode == 2 and "is what is read here" in done.stderr, done.stderr
    for _ in range(2):  # its own report may stand beside the model, and be replaced
        done = run(*words, "--file", text, "--json", folder / "scores.json")
        assert done.returncode == 0, done.stderr


def test_a_closed_standard_input_is_one_line(run, small, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    words = ["--model", small, "--stage", "summarize", "--lang", "tr_TR", "--file", "-"]
    done = run("eval.py", *words)
    assert done.returncode == 2 and "standard input is closed" in done.stderr, done.stderr


@pytest.mark.parametrize(
    "settings, stage, seen",
    [
        ({}, "summarize", None),
        ({"stage": "translate", "pairs": ["en_XX-es_XX"]}, "translate", [("en_XX", "es_XX")]),
        ({"stage": "translate", "pairs": ["en_XX-es_XX"]}, "summarize", []),
        ({"stage": "pretrain", "langs": ["en_XX"]}, "translate", []),
        ({"stage": "summarize", "pairs": ["en_XX-en_XX"]}, "translate", None),
        (
            {
                "stage": "summarize",
                "pairs": ["tr_TR-tr_TR"],
                "learned": [
                    "translate en_XX-ru_RU",
                    "summarize en_XX-en_XX",
                    "summarize tr_TR-tr_TR",
                ],
            },
            "summarize",
            [("en_XX", "en_XX"), ("tr_TR", "tr_TR")],
        ),
    ],
)
def test_only_pairs_seen_in_the_stage_that_is_scored_are_seen(settings, stage, seen):
    assert evaluation.seen_pairs(settings, stage) == seen


TURKISH = "Doktor dağlarda 60 kişinin önünde bir kukla gönderdi. Soruşturma devam ediyor."


def test_what_was_mistyped_is_said_before_the_weights_are_read(run, small, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(small, folder)
    (folder / "model.safetensors").unlink()  # reading them would be another error
    (tmp_path / "empty.txt").write_text(" \n")
    words = ["eval.py", "--model", folder, "--stage", "summarize"]
    for mistake, said in (
        (["--lang", "tr"], "did you mean tr_TR?"),
        (["--lang", "tr_TR", "--data", "xlsum:nowhere"], "there is no folder nowhere"),
        (["--lang", "tr_TR", "--data", "xslum:x"], "expected builtin"),
        (["--lang", "tr_TR", "--file", tmp_path / "none.txt"], "name a text file, or - for"),
        (["--lang", "tr_TR", "--file", tmp_path], "Is a directory; name a text file"),
        (["--lang", "tr_TR", "--file", tmp_path / "empty.txt"], "give a text of at least a word"),
        (["--file", tmp_path / "none.txt"], "name the language of the output: --lang tr_TR"),
        (["--lang", "tr_TR", "--text", "a", "--source-lang", "en_XX", "es_XX"], "in one language"),
        (["--lang", "tr_TR", "--json", ROOT / "eval.py" / "x.json"], "is no folder"),
        (["--lang", "tr_TR", "--length-penalty", "1000"], "at least -1 and less than 10"),
        (["--lang", "tr_TR", "--length-penalty", "-200"], "at least -1 and less than 10"),
        (["--lang", "tr_TR", "--min-new-tokens", 300], "300 is more than max_new_tokens 100"),
        (["--lang", "tr_TR", "--int8", "--precision", "bf16"], "--int8 is for fp32 on a CPU"),
        (["--lang", "tr_TR", "--examples", 0], "the built-in corpus has no end"),
        (["--lang", "tr_TR", "--length-penalty", "nan"], "at least -1 and less than 10"),
    ):
        done = run(*words, *mistake)
        assert done.returncode == 2 and said in done.stderr, (mistake, done.stderr)
        assert len(done.stderr.splitlines()) == 1
    done = run("eval.py", "--model", folder, "--lang", "tr_TR", "--text", "Harita.")
    assert "the text's language too" in done.stderr and "--stage summarize" in done.stderr
    (folder / "log.csv").write_text("step,loss\n1,2\n")  # somebody's, for this is no run
    assert "log.csv" not in run(*words, "--lang", "tr_TR").stderr
    (folder / "args.json").write_text('{"stage": "summarize"}')
    done = run(*words, "--lang", "tr_TR")
    assert done.returncode == 2 and "log.csv" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_text_that_seems_to_be_in_another_language_is_doubted(run, small):
    words = ["eval.py", "--model", small, "--stage", "summarize", "--max-new-tokens", 2]
    done = run(*words, "--lang", "en_XX", "--text", TURKISH)
    assert "seems to be in tr_TR, but is read as en_XX: --source-lang tr_TR?" in done.stderr
    for own in (["--lang", "tr_TR"], ["--lang", "en_XX", "--source-lang", "tr_TR"]):
        assert run(*words, *own, "--text", TURKISH).stderr == ""
    assert run(*words, "--lang", "en_XX", "--text", "Harita.").stderr == ""  # too short to tell


def test_a_base_is_said_to_copy_a_text_whatever_stage_is_typed(run):
    words = ["--stage", "summarize", "--lang", "tr_TR", "--text", TURKISH]
    done = run("eval.py", "--model", "base", *words)  # its args.json: it was pretrained
    assert "nothing says that base was finetuned; a model that was only" in done.stderr


@pytest.mark.parametrize("was_finetuned", [True, False])
def test_public_weights_that_copy_a_text_are_said_to(small, monkeypatch, capsys, was_finetuned):
    decoder = Decoder(small)
    monkeypatch.setattr(evaluation, "decode", lambda *_, **__: [TURKISH[:54]])
    evaluation.write_own_text(TURKISH, "tr_TR", "tr_TR", decoder, was_finetuned)
    said = capsys.readouterr().err
    assert was_finetuned == ("word for word; a model that was only pretrained" not in said)


def test_who_writes_of_a_text_is_said_where_nobody_named_it(run, small, tmp_path):
    shutil.copytree(small, tmp_path / "runs" / "two")
    (tmp_path / "runs" / "two" / "args.json").write_text('{"stage": "summarize"}')
    words = ["--lang", "tr_TR", "--text", TURKISH, "--max-new-tokens", 2]
    done = run("eval.py", *words, cwd=tmp_path)
    assert done.returncode == 0 and "by the latest run, runs/two" in done.stderr


def test_scores_are_not_given_the_loss_of_a_model_that_was_written_meanwhile(
    small, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    shutil.copytree(small, folder)
    (folder / "args.json").write_text('{"stage": "summarize"}')
    heading = "step,loss,validation loss,tokens/s,learning rate\n"
    (folder / "log.csv").write_text(heading + "1,2,3.5,9,0.1\n")
    decoder = evaluation.Decoder(folder)
    (folder / "log.csv").write_text(heading + "1,2,3.5,9,0.1\n2,2,3.25,9,0.1\n")
    report = evaluation.report_of(folder, decoder, "summarize", None, {}, [], [])
    assert report["validation loss"] == 3.5

    read = MBart.from_pretrained

    def with_a_new_line():
        (folder / "log.csv").write_text(heading + "3,2,3.0,9,0.1\n")

    def with_new_weights():
        shutil.copy(small / "model.safetensors", folder / "new")
        os.replace(folder / "new", folder / "model.safetensors")

    for save in (with_a_new_line, with_new_weights):

        def reads_as_a_run_saves(path, save=save):
            save()
            return read(path)

        monkeypatch.setattr(evaluation.MBart, "from_pretrained", reads_as_a_run_saves)
        with pytest.raises(UserError, match="wrote another model while this one was read"):
            evaluation.Decoder(folder)


@pytest.mark.parametrize("pair", [("en_XX", "en_XX"), ("gu_IN", "gu_IN"), ("es_XX", "ru_RU")])
def test_the_kept_scores_are_of_todays_corpus_and_measures(pair):
    """What needs no model is computed anew: another test split or measure would show."""
    kept = read_json(ROOT / "papers" / "scores" / "base-s0.json")
    assert kept["options"] == decoding_of("summarize")
    (before,) = [row for row in kept["rows"] if (row["source"], row["target"]) == pair]

    def copied(texts, source, target):
        return texts

    (row,), _ = evaluate(copied, "summarize", "builtin", [pair], before["n"], MBART25)
    for name in ("random", "lead"):
        for column in ("R1", "R2", "RL", "facts"):
            expected = before["floors"][name][column]
            found = row.floors[name][column]
            assert found == pytest.approx(expected, abs=0.006), (name, column)


@pytest.mark.parametrize("tagless", [False, True])
def test_a_runs_sources_are_scored_with_the_tag_that_it_was_trained_with(
    small, tmp_path, monkeypatch, tagless
):
    folder = tmp_path / "run"
    shutil.copytree(small, folder)
    write_json(folder / "args.json", {"stage": "summarize", "tagless": tagless})
    seen = []

    def decoded(model, tokenizer, sources, *rest, **options):
        seen.extend(sources)
        return [""] * len(sources)

    monkeypatch.setattr(evaluation, "decode", decoded)
    Decoder(folder)(["The map."], "en_XX", "es_XX")
    tag = None if tagless else "en_XX"
    assert seen == [Tokenizer.from_pretrained(small).encode("The map.", tag)]


@pytest.mark.parametrize("stage, ngram", [("summarize", 3), ("translate", 0)])
def test_where_nothing_is_typed_it_decodes_as_published(run, small, monkeypatch, stage, ngram):
    asked = []

    def decoded(model, source, lang, **options):
        asked.append(options)
        return [[] for _ in source]

    monkeypatch.setattr(evaluation, "generate", decoded)
    words = ("--pairs", "en_XX-es_XX", "--stage", stage, "--examples", 1)
    done = run("eval.py", "--model", small, *words)
    assert done.returncode == 0, done.stderr
    published = {"beam": 5, "max_new_tokens": 100, "min_new_tokens": 0, "length_penalty": 1.0}
    assert asked == [published | {"early_stopping": False, "no_repeat_ngram": ngram}]
