"""RESULTS.md out of the scores that reproduce.sh leaves in results/:

    python -m papers.report
    python -m papers.report --best-rate runs/paper/rate-qk-*    the best learning rate
"""
import sys
from pathlib import Path

import numpy as np

from papers.claims import claims
from papers.pictures import pictures
from papers.scores import (
    ACROSS,
    ALIGNED_LANGUAGES,
    ALIGNED_LAYERS,
    BOTH_SIDES,
    CHILDREN,
    FEW_SHOT,
    JOINT,
    JOINT_ALIGNED,
    LOW_RESOURCE,
    PROBED,
    QK_AND_ADVERSARY,
    RESULTS,
    RETRIEVED,
    SEEN_TARGET,
    SENTENCES,
    TRANSLATED,
    TRANSLATORS,
    UNALIGNED,
    UNSEEN_TARGET,
    WITHIN,
    Row,
    arrow,
    best_rate,
    dictionary_of,
    doubtful_files,
    english_only,
    interval,
    low_resource,
    one_rate,
    probe_of,
    rates,
    results,
    retrieval_of,
    rows_of,
    same_size,
    scores_of,
    svcca_of,
    trained_percent,
    values,
)
from papers.words import (
    ABOUT_ALIGNMENT,
    ABOUT_BOTH_SIDES,
    ABOUT_CHILDREN,
    ABOUT_FEW_SENTENCES,
    ABOUT_FEW_SHOT,
    ABOUT_FREEZING,
    ABOUT_LORA,
    ABOUT_PROBES,
    ABOUT_QK_AND_ADVERSARY,
    ABOUT_ROBUSTNESS,
    ABOUT_TRANSLATION,
    ABOUT_UNSEEN_TARGET,
    DIFFERENCES,
    INTERPRETATIONS,
    INTRODUCTION,
)
from plumbing.files import UserError, parser_of, run, write_text

NOTHING = "–"  # a cell that was not measured

# ---------------------------------------------------------------------------------- tables


def markdown(heads, rows):
    """A table: heads and every row are lists of texts."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def score_table(rows, pairs, with_floors=True, extra=None):
    """Rows by language pairs; one that has neither scores nor published figures is left out.

    extra: (head, {name of a row: its cell}), a column more, beside the number of seeds."""
    head, cells_of = extra or (None, {})
    lines = floors(pairs) if with_floors else []
    for row in rows:
        if not (results(row.name) or row.published):
            continue
        line = [row.label, str(len(results(row.name)))]
        if extra:
            line.append(cells_of.get(row.name, NOTHING))
        line.extend(score_cell(row, pair) for pair in pairs)
        lines.append(line)
    heads = ["trained", "seeds", *map(arrow, pairs)]
    if extra:
        heads.insert(2, head)
    return markdown(heads, lines)


def score_cell(row, pair):
    text = NOTHING
    rouge = values(row.name, pair, "R1")
    if rouge is not None:
        r1 = interval(rouge)
        text = f"{r1.mean:.1f} [{r1.low:.1f}, {r1.high:.1f}]<br>"
        text += languages_and_facts(
            values(row.name, pair, "off-target").mean(),
            values(row.name, pair, "off-target-p").mean(),
            values(row.name, pair, "facts").mean(),
        )
    if pair in row.published:
        text += f"<br><sub>{ours_stemmed(row, pair)}published {row.published[pair]}</sub>"
    return text


def languages_and_facts(off_target, posterior, facts):
    """In percent: outputs in another language (and the others' mean posterior), facts told."""
    return f"{off_target:.0f}% ({posterior:.1f}%) · {facts:.0f}%"


def ours_stemmed(row, pair):
    """Our figure that is of the same kind as the published one; nothing where we have none."""
    if values(row.name, pair, "R1") is None:
        return ""
    stemmed = values(row.name, pair, "R1-stem")
    if stemmed is None:
        return "ours unstemmed; "
    return f"stemmed {stemmed.mean():.1f}; "


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
    means = [floor[metric][0] for metric in ("off-target", "off-target-p", "facts")]
    return f"{floor['R1'][0]:.1f}<br>{languages_and_facts(*means)}"


def probe_table():
    rows = []
    for row in PROBED:
        probability = probe_of(row.name)
        if probability is None:
            continue
        accuracy = probe_of(row.name, key="accuracy")
        rescaled = probe_of(row.name, key="rescaled")
        rows.append(
            [
                row.label,
                with_spread(probability[:, -1]),
                row.published.get("", NOTHING),
                f"{accuracy[:, -1].mean():.3f}",
                f"{rescaled[:, -1].mean():.3f}",
                by_layer(probability, 2),
                by_layer(probe_of(row.name, "decoder"), 2),
                with_floor(row.name, "encoder"),
                with_floor(row.name, "decoder"),
            ]
        )
    heads = [
        "model",
        "probability, encoder's last layer",
        "published",
        "accuracy",
        "rescaled",
        "probability, encoder layers, embedding first",
        "decoder layers",
        "SVCCA, encoder (floor)",
        "SVCCA, decoder (floor)",
    ]
    return markdown(heads, rows)


def with_spread(numbers):
    """(seeds,) -> their mean (lowest to highest)."""
    text = f"{numbers.mean():.3f}"
    if len(numbers) > 1:
        text += f" ({numbers.min():.3f} to {numbers.max():.3f})"
    return text


def with_floor(name, side):
    """SVCCA of every layer, each with its floor in brackets."""
    means = svcca_of(name, side).mean(0)
    lowest = svcca_of(name, side, "svcca floor").mean(0)
    return " ".join(f"{mean:.2f} ({floor:.2f})" for mean, floor in zip(means, lowest))


def by_layer(sample, digits):
    """(seeds, layers) -> the mean of every layer, one after the other."""
    return " ".join(f"{mean:.{digits}f}" for mean in sample.mean(0))


def children_table(children=CHILDREN):
    rows = []
    for row in children:
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


def translation_table():
    """Models that were taught one pair, asked in others: BLEU and the off-target share."""
    rows = []
    for row in TRANSLATORS:
        if not results(row.name):
            continue
        cells = [translation_cell(row.name, pair) for pair in TRANSLATED]
        rows.append([row.label, str(len(results(row.name))), *cells])
    heads = ["trained", "seeds", *map(arrow, TRANSLATED)]
    heads[2] += " (taught)"
    return markdown(heads, rows)


def translation_cell(name, pair):
    off_target = values(name, pair, "off-target")
    if off_target is None:
        return NOTHING
    return f"{over_seeds(scores_of(name, 'BLEU', pair))}<br>{off_target.mean():.0f}%"


def freezing_table():
    """The recipes on English by the share of parameters that trains, the smallest first."""
    rows = sorted(one_rate(), key=trained_percent)
    shares = {row.name: f"{trained_percent(row):.1f}" for row in rows}
    return score_table(rows, WITHIN, with_floors=False, extra=("% trained", shares))


def adversary_table():
    shares = {}
    for row in QK_AND_ADVERSARY:
        probability = probe_of(row.name)
        if probability is not None:
            shares[row.name] = with_spread(probability[:, -1])
    return score_table(QK_AND_ADVERSARY, ACROSS, False, ("probability", shares))


def robustness_table():
    """Alignment by layer and languages: retrieval and what it does to the task."""
    rows = []
    for run_with in [UNALIGNED, *ALIGNED_LAYERS, *ALIGNED_LANGUAGES]:
        name = run_with.name
        if not results(name) or retrieval_of(name) is None:
            continue
        layer = run_with.layer
        others = retrieval_of(name, unseen=False, except_for=run_with.pairs)
        rows.append(
            [
                run_with.label,
                str(len(results(name))),
                over_seeds(retrieval_of(name, only=run_with.pairs)[:, layer].tolist()),
                over_seeds(others[:, layer].tolist()),
                over_seeds(retrieval_of(name, unseen=True)[:, layer].tolist()),
                *(score_cell(Row(run_with.label, name), pair) for pair in SEEN_TARGET),
            ]
        )
    heads = [
        "aligned",
        "seeds",
        "retrieval, its own pairs",
        "others of en, es, ru",
        "with tr or gu",
        *map(arrow, SEEN_TARGET),
    ]
    return markdown(heads, rows)


def few_sentences_table():
    rows = []
    for recipe in LOW_RESOURCE:
        cells = []
        for sentences in SENTENCES:
            cells.append(over_seeds(scores_of(low_resource(recipe, sentences), "BLEU")))
        rows.append([f"`{recipe}`", *cells])
    return markdown(["trained", *(f"{sentences:,}" for sentences in SENTENCES)], rows)


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
    for line in doubtful_files():
        print(f"note: {line}", file=sys.stderr)
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
        ABOUT_FEW_SHOT,
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
        *open_questions(these),
        "## Where these runs differ from the papers'",
        DIFFERENCES,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def open_questions(these):
    """The parts of RESULTS.md that no paper has: a question, its table and what it means."""
    meaning = INTERPRETATIONS
    return [
        "## Open questions",
        "### How little may train?",
        ABOUT_FREEZING,
        freezing_table(),
        these("parameters"),
        meaning["freezing"],
        "### Is it which parameters train, or how many?",
        ABOUT_LORA,
        score_table(same_size(), WITHIN, with_floors=False),
        meaning["lora"],
        "### Translation as the task",
        ABOUT_TRANSLATION,
        translation_table(),
        meaning["translation"],
        "### `qk` and the adversary, two by two",
        ABOUT_QK_AND_ADVERSARY,
        adversary_table(),
        meaning["qk and adversary"],
        "### What keeps an unseen target language?",
        ABOUT_UNSEEN_TARGET,
        score_table(UNSEEN_TARGET, ACROSS, with_floors=False),
        meaning["unseen target"],
        "### Which layer and which languages to align?",
        ABOUT_ROBUSTNESS,
        robustness_table(),
        these("alignment"),
        meaning["robustness"],
        "### Both sides new at once",
        ABOUT_BOTH_SIDES,
        children_table(BOTH_SIDES),
        meaning["both sides"],
        "### How few sentences does a new language need?",
        ABOUT_FEW_SENTENCES,
        few_sentences_table(),
        these("few_sentences"),
        meaning["few sentences"],
    ]


def main(argv=None):
    parser = parser_of(__doc__)
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
