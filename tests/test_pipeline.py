"""papers/pipeline.py: a translation model around one that summarizes in the pivot language."""
import json

import eval as evaluation
from eval import Decoder, evaluate
from papers.pipeline import Pipeline
from tokenizer import MBART25


def test_the_pipeline_translates_each_sentence_to_the_pivot_summarizes_there_and_translates_back(
    small, monkeypatch
):
    """With a translator that only re-labels its text and a summarizer that keeps it, the way that
    each text takes is seen."""
    summarizer = Decoder(small)
    translator = Decoder(small)
    seen = []

    def fake(model, tokenizer, sources, lang, **options):
        seen.append((model is translator.model, lang, len(sources)))
        return [tokenizer.decode(ids) for ids in sources]

    monkeypatch.setattr(evaluation, "decode", fake)
    pipeline = Pipeline(summarizer, translator, pivot="en_XX")
    pairs = [("es_XX", "tr_TR"), ("en_XX", "en_XX")]
    rows, _ = evaluate(pipeline, "summarize", "builtin", pairs, 3, MBART25)
    assert [lang for _, lang, _ in seen] == ["en_XX", "en_XX", "tr_TR", "en_XX"]
    assert [translated for translated, _, _ in seen] == [True, False, True, False]
    assert seen[0][2] > 3 and seen[1][2] == 3  # sentences, then documents
    assert rows[0].examples[0]["output"] == rows[0].examples[0]["source"]


def test_the_program_prints_and_writes_what_eval_does(run, small, tmp_path):
    done = run(
        "-m", "papers.pipeline",
        small,
        small,
        "--pairs", "es_XX-en_XX",
        "--examples", 1,
        "--json", tmp_path / "scores.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "es_XX -> en_XX" in done.stdout and "R1" in done.stdout
    report = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert {"model", "stage", "data", "options", "signatures", "rows", "origin"} <= set(report)
    assert report["translator"]
    assert report["stage"] == "summarize" and report["rows"][0]["n"] == 1
    assert " -> en_XX   " in done.stdout and report["rows"][0]["references"]
    done = run("-m", "papers.pipeline", small, small, "--pairs", "es_XX-en")
    assert done.returncode == 2 and "did you mean en_XX" in done.stderr
