"""RESULTS.md out of the scores that reproduce.sh leaves in results/:

    python -m papers.report
    python -m papers.report --best-rate runs/paper/rate-qk-*    the best learning rate
"""
import argparse
from pathlib import Path

import numpy as np

from papers.claims import claims
from papers.pictures import pictures
from papers.scores import (
    ACROSS,
    CHILDREN,
    FEW_SHOT,
    JOINT,
    JOINT_ALIGNED,
    PROBED,
    RESULTS,
    RETRIEVED,
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
    svcca_of,
    values,
)
from plumbing.files import UserError, run, write_text

NOTHING = "–"  # a cell that was not measured

INTRODUCTION = """\
Written by `papers/reproduce.sh` (`papers.report`), never by hand; the corpus, the base model and
every run are this repository's own. A cell: ROUGE-1 [95% interval], below it the share of outputs
in another language · the share of facts (who, did, what, where) recovered; then the published
ROUGE-1 / off-target share on real data with mBART-large, which can be compared in sign and order
only. 100 test documents a pair, beam 5."""

ABOUT_PROBES = """\
Accuracy of a fresh classifier over en, es, ru, tr (chance 0.25); SVCCA: mean similarity of language
pairs."""

ABOUT_CHILDREN = """\
A parent translates French into English; its children read German after 60 updates or write it after
200 (mBART variants: 200). Mean over seeds [lowest, highest]; 100 test texts. Dictionary: share of
German words whose nearest parent embedding is a translation."""

ABOUT_ALIGNMENT = """\
Trained within en, es and ru, asked across; alignment of encoder layer 2 on en-es and en-ru
sentences."""

DIFFERENCES = """\
- Size and data: 3 + 3 layers of width 128 on a generated corpus, 60 to 1,250 updates; the papers
  tune mBART (12 + 12 layers of width 1,024; C: 8B decoder-only models) on real texts for up to
  120,000.
- Everywhere: AdamW with betas 0.9 and 0.999 (B: 0.98), warm-ups of 10 to 100 updates (B: 2,500), no
  label smoothing (B: 0.1), no dropout, in LoRA neither (C: 0.1). `full` and `qk` take the best rate
  of a grid by English validation.
- Adversary: ten classifier updates for each of the model's (A: one), at one rate for all
  whole-layer rows; the model is the last one.
- Residual drop takes one of three encoder layers here, one of twelve there: the control shows what
  that costs.
- Few-shot: 100 updates, the best of five moments by 32 more Spanish examples; the paper's 10,000
  are left out.
- Probes and retrieval read documents of the built-in corpus; the papers read real parallel
  texts."""


# ---------------------------------------------------------------------------------- tables


def markdown(heads, rows):
    """A table: heads and every row are lists of texts."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def score_table(rows, pairs, with_floors=True):
    """Rows by language pairs; one that has neither scores nor published figures is left out."""
    lines = floors(pairs) if with_floors else []
    for row in rows:
        if not (results(row.name) or row.published):
            continue
        cells = [score_cell(row, pair) for pair in pairs]
        lines.append([row.label, str(len(results(row.name))), *cells])
    return markdown(["trained", "seeds", *map(arrow, pairs)], lines)


def score_cell(row, pair):
    text = NOTHING
    rouge = values(row.name, pair, "R1")
    if rouge is not None:
        r1 = interval(rouge)
        off_target = values(row.name, pair, "off-target").mean()
        facts = values(row.name, pair, "facts").mean()
        text = f"{r1.mean:.1f} [{r1.low:.1f}, {r1.high:.1f}]<br>{off_target:.0f}% · {facts:.0f}%"
    if pair in row.published:
        text += f"<br><sub>published {row.published[pair]}</sub>"
    return text


def floors(pairs):
    """The rows of outputs that need no model, as every score file has them."""
    lines = []
    for kind, label in (
        ("random", "floor: another text's headline"),
        ("lead", "floor: the source's first sentence"),
    ):
        cells = [floor_cell(kind, pair) for pair in pairs]
        lines.append([label, NOTHING, *cells])
    return lines


def floor_cell(kind, pair):
    rows = rows_of("base", pair)
    if not rows:
        return NOTHING
    floor = next(iter(rows.values()))["floors"][kind]
    r1, off_target, facts = (floor[metric][0] for metric in ("R1", "off-target", "facts"))
    return f"{r1:.1f}<br>{off_target:.0f}% · {facts:.0f}%"


def probe_table():
    rows = []
    for row in PROBED:
        accuracy = probe_of(row.name)
        if accuracy is None:
            continue
        last = accuracy[:, -1]
        spread = f"{last.mean():.3f}"
        if len(last) > 1:
            spread += f" ({last.min():.3f} to {last.max():.3f})"
        rescaled = probe_of(row.name, key="rescaled")[:, -1].mean()
        rows.append(
            [
                row.label,
                spread,
                f"{rescaled:.3f}",
                by_layer(accuracy, 2),
                by_layer(probe_of(row.name, "decoder"), 2),
                row.published.get("", NOTHING),
                by_layer(svcca_of(row.name), 2),
                by_layer(svcca_of(row.name, "decoder"), 2),
            ]
        )
    heads = [
        "model",
        "encoder, last layer",
        "rescaled",
        "encoder layers, embedding first",
        "decoder layers",
        "published",
        "SVCCA, encoder",
        "SVCCA, decoder",
    ]
    return markdown(heads, rows)


def by_layer(sample, digits):
    """(seeds, layers) -> the mean of every layer, one after the other."""
    return " ".join(f"{mean:.{digits}f}" for mean in sample.mean(0))


def children_table():
    rows = []
    for row in CHILDREN:
        if not results(row.name):
            continue
        rows.append(
            [
                row.label,
                str(len(results(row.name))),
                over_seeds(scores_of(row.name, "BLEU")),
                over_seeds(scores_of(row.name, "chrF")),
                over_seeds(dictionary_of(row.name)),
                over_seeds(scores_of(f"{row.name}+parent", "BLEU")),
            ]
        )
    heads = [
        "trained",
        "seeds",
        "BLEU",
        "chrF",
        "dictionary, %",
        "BLEU of fr→en with the parent's embeddings back",
    ]
    return markdown(heads, rows)


def over_seeds(numbers):
    """Mean over seeds [lowest, highest]."""
    if not numbers:
        return NOTHING
    if len(numbers) == 1:
        return f"{numbers[0]:.1f}"
    return f"{np.mean(numbers):.1f} [{min(numbers):.1f}, {max(numbers):.1f}]"


def retrieval_table():
    rows = []
    for row in RETRIEVED:
        if retrieval_of(row.name) is None:
            continue
        rows.append(
            [
                row.label,
                by_layer(retrieval_of(row.name, unseen=False), 1),
                by_layer(retrieval_of(row.name, unseen=True), 1),
                by_layer(retrieval_of(row.name, side="decoder"), 1),
            ]
        )
    heads = [
        "model",
        "en, es, ru (seen by alignment): encoder layers, embedding first",
        "with tr or gu (not seen): encoder layers",
        "decoder layers, all",
    ]
    return markdown(heads, rows)


def claim_table(found):
    rows = [[claim.letter, claim.text, f"**{claim.word}**", claim.evidence] for claim in found]
    return markdown(["", "claim", "verdict", "differences, mean [95% interval]"], rows)


def rate_lines():
    """The validation losses of the grid, a line for each recipe."""
    lines = []
    for recipe, grid in rates().items():
        losses = [f"{rate}: {grid.losses[rate]:.4f}" for rate in sorted(grid.losses, key=float)]
        lines.append(f"- `{recipe}`: {', '.join(losses)}; best: {grid.best}")
    return "\n".join(lines)


def recipe_sizes():
    """What `tools.delta sizes` printed."""
    path = RESULTS / "sizes.txt"
    if not path.exists():
        return "not measured"
    return path.read_text(encoding="utf-8").rstrip()


# ---------------------------------------------------------------------------------- the file


def write(path):
    """Draws the pictures and writes the page from all that results/ holds."""
    if not list(RESULTS.glob("*.json")):
        raise UserError(f"{RESULTS}/ has no scores yet; run papers/reproduce.sh first")
    found = claims()
    write_text(path, page(found, pictures()))
    supported = sum(claim.word == "supported" for claim in found)
    print(f"{path} is written: {supported} of {len(found)} claims supported")


def page(found, shown):
    """RESULTS.md as a text, from the claims found and the pictures shown ({name: markdown})."""

    def these(*names):
        return "\n".join(shown[name] for name in names if name in shown)

    parts = [
        "# Results",
        INTRODUCTION,
        "## Claims",
        claim_table(found),
        "## Trained on English alone, asked within each language",
        "400 updates. Validation loss on English by learning rate:",
        rate_lines(),
        score_table(english_only(), WITHIN),
        these("zero_shot", "rates", "steps"),
        "### A few Spanish examples on top",
        score_table(FEW_SHOT, WITHIN[1:2], with_floors=False),
        "## Trained within English, Spanish and Russian, asked across languages "
        "(Turkish is unseen)",
        score_table(JOINT, ACROSS),
        "## What the layers know of the source language",
        ABOUT_PROBES,
        probe_table(),
        these("probing"),
        "## New languages: cross-attention transfer",
        ABOUT_CHILDREN,
        children_table(),
        "### What a recipe stores (bytes, float32)",
        f"```\n{recipe_sizes()}\n```",
        "## Middle-layer alignment",
        ABOUT_ALIGNMENT,
        score_table(JOINT_ALIGNED, ACROSS, with_floors=False),
        "Translation retrieval, % right among 200 documents:",
        retrieval_table(),
        these("retrieval"),
        "## Where these runs differ from the papers'",
        DIFFERENCES,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--best-rate",
        nargs="+",
        metavar="RUN",
        help="print the best learning rate of these runs, and write nothing",
    )
    parser.add_argument("--out", default="papers/RESULTS.md", type=Path)
    args = parser.parse_args(argv)
    if args.best_rate:
        print(best_rate(args.best_rate).best)
    else:
        write(args.out)


if __name__ == "__main__":
    run(main)
