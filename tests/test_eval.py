"""eval.py: tables, samples, one's own text, and the errors a user meets, through the command line."""
import json
import os

import pytest
from conftest import ROOT

import scoring as evaluation
from model import MBart
from tokenizer import Tokenizer


def test_a_row_for_every_source_language_with_intervals_signatures_and_samples(run, small, tmp_path):
    done = run("eval.py", "--model", small, "--lang", "tr_TR", "--stage", "translate", "--examples", 6, "--beam", 2,
               "--max-new-tokens", 8, "--json", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    for source in ("en_XX", "es_XX", "ru_RU", "gu_IN"):
        assert f"{source} -> tr_TR" in done.stdout
    for words in ("BLEU", "chrF", "off-target", "version:", "reference", "output"):
        assert words in done.stdout
    report = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert len(report["rows"]) == 4 and len(report["rows"][0]["examples"]) == 6
    for row in report["rows"]:
        for value, low, high in row["scores"].values():
            assert low - 1e-9 <= value <= high + 1e-9


def test_summaries_are_scored_by_rouge_and_by_facts(run, small):
    done = run("eval.py", "--model", small, "--lang", "gu_IN", "--source-lang", "es_XX", "--stage", "summarize",
               "--examples", 4, "--max-new-tokens", 6)
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in ("R1", "R2", "RL", "facts", "off-target", "es_XX -> gu_IN"))


def test_decoding_keeps_the_order_of_its_inputs_whatever_the_batching(small):
    model, tokenizer = MBart.from_pretrained(small), Tokenizer.from_pretrained(small)
    sources = [tokenizer.encode("map " * n, "en_XX") for n in (9, 1, 5, 3, 7, 2)]
    together = evaluation.decode(model, tokenizer, sources, "es_XX", beam=2, max_new_tokens=6)
    alone = [evaluation.decode(model, tokenizer, [s], "es_XX", beam=2, max_new_tokens=6)[0] for s in sources]
    assert together == alone == evaluation.decode(model, tokenizer, sources, "es_XX", tokens=10, beam=2,
                                                  max_new_tokens=6)


def test_a_batch_has_no_more_rows_than_its_cache_has_room_for(small, monkeypatch):
    model, tokenizer, rows = MBart.from_pretrained(small), Tokenizer.from_pretrained(small), []

    def counted(model, source, *args, **options):
        rows.append(len(source))
        return [[5]] * len(source)
    monkeypatch.setattr(evaluation, "generate", counted)
    evaluation.decode(model, tokenizer, [[5, 6, 7]] * 10, "es_XX", beam=2, max_new_tokens=20, slots=120)
    assert rows == [3, 3, 3, 1]


def test_perfect_outputs_score_100_and_copied_sources_are_off_target(small, monkeypatch):
    model, tokenizer = MBart.from_pretrained(small), Tokenizer.from_pretrained(small)
    pairs = [("en_XX", "ru_RU"), ("en_XX", "tr_TR")]
    data = evaluation.open_data("builtin", "summarize", "test", pairs, tokenizer.languages)
    for copied in (False, True):
        monkeypatch.setattr(evaluation, "decode", lambda m, t, sources, lang, progress=None, copied=copied, **o: [
            data.text(("en_XX", lang), i)[0 if copied else 1] for i in range(len(sources))])
        rows, _ = evaluation.evaluate(model, tokenizer, "summarize", "builtin", pairs, 40, show_progress=False)
        for row in rows:
            scores = {name: score[0] for name, score in row["scores"].items()}
            assert scores["off-target"] == (100 if copied else 0)
            assert scores["facts"] == pytest.approx(0 if copied else 100, abs=2)
            assert copied or scores["R1"] == scores["RL"] == pytest.approx(100)


def test_ones_own_text_is_translated_and_nothing_else_printed(run, small):
    done = run("eval.py", "--model", small, "--stage", "translate", "--lang", "es_XX", "--source-lang", "en_XX",
               "--text", "The teacher found a map.", "--max-new-tokens", 5)
    assert done.returncode == 0 and len(done.stdout.splitlines()) <= 1, done.stderr


def test_a_text_longer_than_the_model_reads_is_cut_with_a_note(run, small):
    done = run("eval.py", "--model", small, "--stage", "translate", "--lang", "es_XX", "--source-lang", "en_XX",
               "--text", "map " * 400, "--max-new-tokens", 3, "--beam", 1)
    assert done.returncode == 0 and "the model reads 256" in done.stderr
    assert "% of it was used" in done.stderr


def test_a_model_that_was_only_pretrained_is_said_to_copy(run, small):
    done = run("eval.py", "--model", small, "--lang", "es_XX", "--source-lang", "en_XX", "--examples", 2,
               "--max-new-tokens", 3)
    assert done.returncode == 0 and "copies its input" in done.stdout


def test_without_a_run_it_says_what_to_run_first(run, tmp_path):
    done = run(ROOT / "eval.py", "--lang", "tr_TR", cwd=tmp_path)
    assert done.returncode == 2 and "train.py --stage translate" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("args, words", [
    (("--lang", "tr"), "did you mean tr_TR"), (("--lang", "es_XX", "--text", "hello"), "--source-lang"),
    (("--lang", "es_XX", "--source-lang", "en_XX", "--text", " "), "empty"),
    (("--lang", "it_IT",), "no 'it_IT'"), ((), "--lang"),
    (("--lang", "es_XX", "--data", "jsonl:/nowhere"), "/nowhere"),
    (("--lang", "es_XX", "--source-lang", "es_XX"), "other than the target")])
def test_a_users_mistake_is_one_clear_line_and_exit_code_2(run, small, args, words):
    done = run("eval.py", "--model", small, "--stage", "translate", *args)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_missing_model_folder_is_named(run):
    done = run("eval.py", "--lang", "tr_TR", "--model", "/nowhere")
    assert done.returncode == 2 and "/nowhere" in done.stderr


def test_the_pipeline_translates_each_sentence_to_the_pivot_summarizes_there_and_translates_back(small, monkeypatch):
    """With a translator that only re-labels its text and a summarizer that keeps the first sentence, the way that each
    text takes is seen."""
    model, tokenizer = MBart.from_pretrained(small), Tokenizer.from_pretrained(small)
    pipeline = evaluation.Pipeline(small, "cpu", pivot="en_XX")
    seen = []

    def fake(m, t, sources, lang, progress=None, **options):
        seen.append((m is pipeline.model, lang, len(sources)))
        return [t.decode(ids) for ids in sources]

    monkeypatch.setattr(evaluation, "decode", fake)
    rows, _ = evaluation.evaluate(model, tokenizer, "summarize", "builtin", [("es_XX", "tr_TR"), ("en_XX", "en_XX")], 3,
                                  show_progress=False, pipeline=pipeline)
    assert [lang for _, lang, _ in seen] == ["en_XX", "en_XX", "tr_TR", "en_XX"]
    assert [ours for ours, _, _ in seen] == [True, False, True, False]
    assert seen[0][2] > 3 and seen[1][2] == 3  # sentences, then documents
    assert rows[0]["examples"][0]["output"] == rows[0]["examples"][0]["source"]


def test_summaries_come_with_their_floors(small):
    model, tokenizer = MBart.from_pretrained(small), Tokenizer.from_pretrained(small)
    rows, _ = evaluation.evaluate(model, tokenizer, "summarize", "builtin", [("en_XX", "en_XX"), ("es_XX", "en_XX")],
                                  30, show_progress=False, beam=1, max_new_tokens=2)
    within, across = (row["floors"] for row in rows)
    assert 20 < within["random"]["R1"][0] < within["lead"]["R1"][0] < 70  # articles match by themselves
    assert across["lead"]["off-target"][0] == 100 and across["random"]["off-target"][0] == 0
    assert across["random"]["facts"][0] < 10


def test_a_file_and_standard_input_are_read_like_a_text(run, small, tmp_path):
    (tmp_path / "article.txt").write_text("The teacher found a map.\nIt was cold.\n")
    options = ("eval.py", "--model", small, "--lang", "en_XX", "--stage", "summarize", "--max-new-tokens", 5)
    outputs = [run(*options, "--file", tmp_path / "article.txt"),
               run(*options, "--file", "-", input="The teacher found a map.\nIt was cold.\n"),
               run(*options, "--text", "The teacher found a map. It was cold.")]
    assert all(done.returncode == 0 for done in outputs), outputs
    assert len({done.stdout for done in outputs}) == 1
    done = run(*options, "--file", tmp_path / "none.txt")
    assert done.returncode == 2 and "none.txt" in done.stderr and "Traceback" not in done.stderr


def test_two_processes_decode_what_one_decodes(run, run_process, small, tmp_path):
    options = ("eval.py", "--model", small, "--lang", "tr_TR", "--stage", "summarize", "--source-lang", "en_XX",
               "es_XX", "--examples", 9, "--beam", 2, "--max-new-tokens", 8, "--json")
    one = run(*options, tmp_path / "one.json")
    port = str(29900 + os.getpid() % 90)
    two = run_process("-m", "torch.distributed.run", "--nproc-per-node", 2, "--master-port", port, *options,
              tmp_path / "two.json")
    assert one.returncode == 0 and two.returncode == 0, one.stderr + two.stderr
    assert one.stdout.replace("one.json", "") == two.stdout.replace("two.json", "")
    assert (tmp_path / "one.json").read_text() == (tmp_path / "two.json").read_text()
