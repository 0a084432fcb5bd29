"""RESULTS.md out of the scores that reproduce.sh leaves in results/:  python -m papers.report

    python -m papers.report --best-rate runs/paper/rate-qk-*      the learning rate with the lowest validation loss
"""
import argparse
from pathlib import Path

import numpy as np

from papers.claims import claims
from papers.pictures import pictures
from papers.scores import (
    ACROSS,
    FEW_SHOT,
    JOINT,
    JOINT_ALIGNED,
    PROBED,
    RESULTS,
    WITHIN,
    arrow,
    best_rate,
    dictionary_of,
    english_only,
    interval,
    probe_of,
    rates,
    results,
    retrieval_of,
    rows_of,
    scores_of,
    values,
)
from plumbing.files import UserError, run, write_text


def cell(name, pair, note=""):
    score = values(name, pair, "R1")
    if score is None:
        return f"–<br><sub>{note}</sub>" if note else "–"
    r1 = interval(score)
    off, facts = (values(name, pair, metric).mean() for metric in ("off-target", "facts"))
    text = f"{r1.mean:.1f} [{r1.low:.1f}, {r1.high:.1f}]<br>{off:.0f}% · {facts:.0f}%"
    return f"{text}<br><sub>{note}</sub>" if note else text


def floors(pairs):
    """The rows of outputs that need no model, as every score file has them."""
    found = {pair: rows_of("base", pair)[0]["floors"] for pair in pairs if rows_of("base", pair)}
    lines = []
    for kind, label in (("random", "floor: another text's headline"), ("lead", "floor: the source's first sentence")):
        cells = [f"{found[p][kind]['R1'][0]:.1f}<br>{found[p][kind]['off-target'][0]:.0f}% · "
                 f"{found[p][kind]['facts'][0]:.0f}%" if p in found else "–" for p in pairs]
        lines.append(f"| {label} | – | " + " | ".join(cells) + " |")
    return lines


def table(rows, pairs, with_floors=True):
    lines = ["| trained | seeds | " + " | ".join(map(arrow, pairs)) + " |", "| --- | --- |" + " --- |" * len(pairs)]
    lines += floors(pairs) if with_floors else []
    for row in rows:
        if results(row.name) or row.published:
            cells = [cell(row.name, pair, row.published.get(pair) and f"published {row.published[pair]}")
                     for pair in pairs]
            lines.append(f"| {row.label} | {len(results(row.name))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def probe_table():
    lines = ["| model | encoder, last layer | rescaled | encoder layers, embedding first | decoder layers | "
             "published | SVCCA, encoder | SVCCA, decoder |", "| --- |" + " --- |" * 7]
    for row in PROBED:
        accuracy, alike = probe_of(row.name)
        if accuracy is None:
            continue
        decoder, decoder_alike = probe_of(row.name, "decoder")
        spread = f" ({accuracy[:, -1].min():.3f} to {accuracy[:, -1].max():.3f})" if len(accuracy) > 1 else ""
        rescaled = probe_of(row.name, key="rescaled")[0][:, -1].mean()
        lines.append(f"| {row.label} | {accuracy[:, -1].mean():.3f}{spread} | {rescaled:.3f} | " + " | ".join(
            " ".join(f"{x:.2f}" for x in sample.mean(0)) if sample is not None else row.published.get("", "–")
            for sample in (accuracy, decoder, None, alike, decoder_alike)) + " |")
    return "\n".join(lines)


def spread(numbers, digits=1):
    """Mean over seeds [lowest, highest]."""
    if not numbers:
        return "–"
    mean = f"{np.mean(numbers):.{digits}f}"
    return mean if len(numbers) == 1 else f"{mean} [{min(numbers):.{digits}f}, {max(numbers):.{digits}f}]"


CHILDREN = [("parent fr→en: new source, body", "parent"),
            *((f"{pair} `{side}{what}`", f"child-{side}{what}") for side, pair in (("src", "de→en"), ("tgt", "fr→de"))
              for what in ("-scratch", "", "+randxattn", "+xattn", "+body")),
            *((f"mBART variant, de→en `{what}`", f"mbart-{what}")
              for what in ("emb", "emb+randxattn", "emb+xattn", "full+embeddings")),
            ("fr→es `tgt+xattn`", "child-spanish"), ("de→es, stitched of two children", "stitched")]


def children_table():
    lines = ["| trained | seeds | BLEU | chrF | dictionary, % | BLEU of fr→en with the parent's embeddings back |",
             "| --- |" + " --- |" * 5]
    for label, name in CHILDREN:
        if results(name):
            cells = [label.replace("src-scratch", "scratch").replace("tgt-scratch", "scratch"), str(len(results(name))),
                     spread(scores_of(name, "BLEU")), spread(scores_of(name, "chrF")), spread(dictionary_of(name)),
                     spread(scores_of(f"{name}+parent", "BLEU"))]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def retrieval_table():
    lines = ["| model | en, es, ru (seen by alignment): encoder layers, embedding first | with tr or gu (not seen): "
             "encoder layers | decoder layers, all |", "| --- | --- | --- | --- |"]

    def layers(name, *which):
        return " ".join(f"{x:.1f}" for x in np.mean(retrieval_of(name, *which), 0))

    for label, name in (("untuned base", "base"), ("`full`", "joint-full"), ("`full`, aligned", "joint-align"),
                        ("LoRA on the task", "lora-task"), ("LoRA on alignment alone", "lora-align"),
                        ("LoRA on both at once", "lora-joint"), ("the two merged, 0.5 each", "lora-merged-0.5")):
        if retrieval_of(name):
            cells = layers(name, False), layers(name, True), layers(name, None, "decoder")
            lines.append("| " + " | ".join((label, *cells)) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- the file

DIFFERENCES = """\
- Size and data: 3 + 3 layers of width 128 on a generated corpus, 60 to 1,250 updates; the papers tune mBART (12 + 12
  layers of width 1,024; C: 8B decoder-only models) on real texts for up to 120,000.
- Everywhere: AdamW with betas 0.9 and 0.999 (B: 0.98), warm-ups of 10 to 100 updates (B: 2,500), no label smoothing
  (B: 0.1), no dropout, in LoRA neither (C: 0.1). `full` and `qk` take the best rate of a grid by English validation.
- Adversary: ten classifier updates for each of the model's (A: one), at one rate for all whole-layer rows; the model
  is the last one.
- Residual drop takes one of three encoder layers here, one of twelve there: the control shows what that costs.
- Few-shot: 100 updates, the best of five moments by 32 more Spanish examples; the paper's 10,000 are left out.
- Probes and retrieval read documents of the built-in corpus; the papers read real parallel texts."""


def write(path):
    if not list(RESULTS.glob("*.json")):
        raise UserError(f"{RESULTS}/ has no scores yet; run papers/reproduce.sh first")
    shown = pictures()
    rate_lines = [f"- `{recipe}`: " + ", ".join(f"{rate}: {losses[rate]:.4f}" for rate in sorted(losses, key=float))
                  + f"; best: {best}" for recipe, (losses, best) in rates().items()]
    sizes = (RESULTS / "sizes.txt").read_text() if (RESULTS / "sizes.txt").exists() else "not measured"
    claim_lines = [f"| {letter} | {claim} | **{word}** | {evidence} |" for letter, claim, word, evidence in claims()]
    write_text(path, "\n".join([
        "# Results", "",
        "Written by `papers/reproduce.sh` (`papers.report`), never by hand; the corpus, the base model and every run are this",
        "repository's own. A cell: ROUGE-1 [95% interval], below it the share of outputs in another language · the",
        "share of facts (who, did, what, where) recovered; then the published ROUGE-1 / off-target share on real data",
        "with mBART-large, which can be compared in sign and order only. 100 test documents a pair, beam 5.", "",
        "## Claims", "", "| | claim | verdict | differences, mean [95% interval] |", "| --- | --- | --- | --- |",
        *claim_lines, "",
        "## Trained on English alone, asked within each language", "",
        "400 updates. Validation loss on English by learning rate:", "", *rate_lines, "",
        table(english_only(), WITHIN), "", *shown[:3], "",
        "### A few Spanish examples on top", "", table(FEW_SHOT, WITHIN[1:2], with_floors=False), "",
        "## Trained within English, Spanish and Russian, asked across languages (Turkish is unseen)", "",
        table(JOINT, ACROSS), "",
        "## What the layers know of the source language", "",
        "Accuracy of a fresh classifier over en, es, ru, tr (chance 0.25); SVCCA: mean similarity of language pairs.",
        "",
        probe_table(), "", *shown[3:4], "",
        "## New languages: cross-attention transfer", "",
        "A parent translates French into English; its children read German after 60 updates or write it",
        "after 200 (mBART variants: 200). Mean over seeds [lowest, highest]; 100 test texts. Dictionary: share of",
        "German words whose nearest parent embedding is a translation.", "", children_table(), "",
        "### What a recipe stores (bytes, float32)", "", "```", sizes.rstrip(), "```", "",
        "## Middle-layer alignment", "",
        "Trained within en, es and ru, asked across; alignment of encoder layer 2 on en-es and en-ru sentences.", "",
        table(JOINT_ALIGNED, ACROSS, with_floors=False), "",
        "Translation retrieval, % right among 200 documents:", "", retrieval_table(), "", *shown[4:], "",
        "## Where these runs differ from the papers'", "", DIFFERENCES, ""]))
    print(f"{path} is written: {sum('supported' in line and 'not supported' not in line for line in claim_lines)} of "
          f"{len(claim_lines)} claims supported")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--best-rate", nargs="+", metavar="RUN", help="print the best learning rate of these runs")
    parser.add_argument("--out", default="papers/RESULTS.md", type=Path)
    args = parser.parse_args(argv)
    if args.best_rate:
        print(best_rate(args.best_rate)[1])
    else:
        write(args.out)


if __name__ == "__main__":
    run(main)
