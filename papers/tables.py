"""The tables of RESULTS.md, in Markdown, from the scores of papers/scores.py."""
import re
from operator import itemgetter

import numpy as np

from papers.scores import (
    ACROSS,
    ALIGNED_LANGUAGES,
    ALIGNED_LAYERS,
    BOTH_SIDES,
    BUILT_IN,
    CHILDREN,
    HELP,
    HELP_RETRIEVED,
    LOW_RESOURCE,
    PROBED,
    QK_AND_ADVERSARY,
    RETRIEVED,
    SCORES,
    SEEN_TARGET,
    SENTENCES,
    TRANSLATED,
    TRANSLATORS,
    UNALIGNED,
    WITHIN,
    Row,
    arrow,
    dictionary_of,
    english_only,
    floors_of,
    low_resource,
    off_target_at,
    one_rate,
    probe_of,
    rates,
    results,
    retrieval_of,
    rows_of,
    same_size,
    score_interval,
    scores_of,
    svcca_of,
    trained_percent,
    values,
)
from papers.words import GROUPS

NOTHING = "–"  # a cell that was not measured


def markdown(heads, rows):
    """A table: heads and every row are lists of texts."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def score_table(rows, pairs, corpus=None, extra=None):
    """Rows by language pairs; of one that was not run yet every cell is –.

    corpus: the Corpus whose floors stand above them. extra: (head, {name of a row: its cell}), a
    column more, beside the number of seeds."""
    head, cells_of = extra or (None, {})
    lines = floors(pairs, corpus) if corpus else []
    for row in rows:
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
        text = f"{interval_cell(rouge)}<br>"
        text += languages_and_facts(
            values(row.name, pair, "off-target").mean(),
            values(row.name, pair, "off-target-p").mean(),
            mean_or_none(values(row.name, pair, "facts")),
        )
    if pair in row.published:
        text += f"<br><sub>{ours_stemmed(row, pair)}published {row.published[pair]}</sub>"
    return text


def mean_or_none(scores):
    return None if scores is None else scores.mean()


def languages_and_facts(off_target, posterior, facts):
    """In percent: outputs in another language (and the others' mean posterior), facts told (None:
    the corpus does not say which there are)."""
    text = f"{off_target:.0f}% ({posterior:.1f}%)"
    if facts is not None:
        text += f" · {facts:.0f}%"
    return text


def ours_stemmed(row, pair):
    """Our figure that is of the same kind as the published one; nothing where we have none."""
    if values(row.name, pair, "R1") is None:
        return ""
    stemmed = values(row.name, pair, "R1-stem")
    if stemmed is None:
        return "ours unstemmed; "
    return f"stemmed {stemmed.mean():.1f}; "


FLOORS = {
    "random": "baseline: another text's {summary}",
    "lead": "baseline: the source's first sentence",
    "references": "the references themselves",
}


def floors(pairs, corpus):
    """The rows of outputs that need no model, as every score file has them; last the references,
    which show how often the identifier of languages errs."""
    lines = []
    for kind, label in FLOORS.items():
        cells = [floor_cell(kind, pair, corpus) for pair in pairs]
        lines.append([label.format(summary=corpus.summary), NOTHING, *cells])
    return lines


def floor_cell(kind, pair, corpus):
    found = floors_of(corpus, pair).get(kind)
    if not found:
        return NOTHING
    means = []
    for metric in ("R1", "off-target", "off-target-p", "facts"):
        mean, _, _ = found.get(metric) or (None, None, None)  # real text has no facts
        means.append(mean)
    rouge, *below = means
    above = NOTHING if rouge is None else f"{rouge:.1f}"  # of references there is none
    return f"{above}<br>{languages_and_facts(*below)}"


def probe_table(corpus=BUILT_IN):
    """What the probe reads of the source language; SVCCA too where the corpus says the
    same in every language."""
    rows = []
    for row in PROBED:
        name = corpus.row(row.name)
        probability = probe_of(name)
        if probability is None:
            continue
        accuracy = probe_of(name, key="accuracy")
        rescaled = probe_of(name, key="rescaled")
        cells = [
            row.label,
            with_spread(probability[:, -1]),
            row.published.get("", NOTHING),
            f"{accuracy[:, -1].mean():.3f}",
            f"{rescaled[:, -1].mean():.3f}",
            by_layer(probability, 2),
            by_layer(probe_of(name, "decoder"), 2),
        ]
        if corpus is BUILT_IN:
            cells += [with_floor(name, "encoder"), with_floor(name, "decoder")]
        rows.append(cells)
    heads = [
        "model",
        "probability, encoder's last layer",
        "published",
        "accuracy",
        "rescaled",
        "probability, encoder layers, embedding first",
        "decoder layers",
    ]
    if corpus is BUILT_IN:
        heads += ["SVCCA, encoder (floor)", "SVCCA, decoder (floor)"]
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


def children_table():
    rows = []
    for row in CHILDREN:
        if not results(row.name):
            continue
        rows.append(
            [
                row.label,
                str(len(results(row.name))),
                over_seeds(scores_of(row.name, "BLEU").values()),
                over_seeds(scores_of(row.name, "chrF").values()),
                over_seeds(dictionary_of(row.name).values()),
                over_seeds(scores_of(f"{row.name}+parent", "BLEU").values()),
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


def both_sides_table():
    """Children of which both sides are new: no dictionary, and no pair of the parent's to go back
    to."""
    rows = []
    for row in BOTH_SIDES:
        if results(row.name):
            bleu = over_seeds(scores_of(row.name, "BLEU").values())
            chrf = over_seeds(scores_of(row.name, "chrF").values())
            rows.append([row.label, str(len(results(row.name))), bleu, chrf])
    return markdown(["trained", "seeds", "BLEU", "chrF"], rows)


def over_seeds(numbers):
    """Mean over seeds [lowest, highest]."""
    numbers = list(numbers)
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


def help_retrieval_table():
    """The same on real text, of paragraphs that are translations of each other."""
    rows = []
    for row in HELP_RETRIEVED:
        found = retrieval_of(HELP.row(row.name))
        if found is None:
            continue
        decoder = retrieval_of(HELP.row(row.name), side="decoder")
        rows.append([row.label, by_layer(found, 1), by_layer(decoder, 1)])
    return markdown(["model", "encoder layers, embedding first", "decoder layers"], rows)


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
    bleu = over_seeds(scores_of(name, "BLEU", pair).values())
    return f"{bleu}<br>{off_target.mean():.0f}%"


def freezing_table():
    """The recipes on English by the share of parameters that trains, the smallest first."""
    rows = sorted(one_rate(), key=trained_percent)
    shares = {row.name: f"{trained_percent(row):.1f}" for row in rows}
    return score_table(rows, WITHIN, extra=("% trained", shares))


def adversary_table():
    shares = {}
    for row in QK_AND_ADVERSARY:
        probability = probe_of(row.name)
        if probability is not None:
            shares[row.name] = with_spread(probability[:, -1])
    return score_table(QK_AND_ADVERSARY, ACROSS, extra=("probability", shares))


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
            found = scores_of(low_resource(recipe, sentences), "BLEU")
            cells.append(over_seeds(found.values()))
        rows.append([f"`{recipe}`", *cells])
    return markdown(["trained", *(f"{sentences:,}" for sentences in SENTENCES)], rows)


def summary_table(found):
    """A line for each group of claims: how many have which verdict on each corpus, and what to take
    away. found: {corpus's title: [Claim]}."""
    rows = []
    for letter, (asked, take_away) in GROUPS.items():
        verdicts_of = {}
        for corpus, claims in found.items():
            verdicts_of[corpus] = [claim.verdict for claim in claims if claim.letter == letter]
        if any(verdicts_of.values()):
            rows.append([letter, asked, *map(counted, verdicts_of.values()), take_away])
    return markdown(["", "what is asked", *found, "what to take away"], rows)


def counted(verdicts):
    """["open", "leans for: 1 of 3", "open"] -> "1 leans for, 2 open"; in which way a verdict was
    reached, "supported (3 of 3 seeds)", does not count."""
    kinds = [re.split(r":| \(", verdict)[0] for verdict in verdicts]
    order = (
        "supported",
        "leans for",
        "mixed",
        "open",
        "leans against",
        "contradicted",
        "one seed",
        "not measured",
    )
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in order if kind in kinds) or NOTHING


def verdict_table(found):
    """Every claim with its verdict on each corpus. found: {corpus's title: [Claim]}."""
    corpora = list(found)
    verdicts = {}
    for corpus in corpora:
        for claim in found[corpus]:
            verdicts.setdefault((claim.letter, claim.text), {})[corpus] = claim.verdict
    rows = []
    for letter, text in sorted(verdicts, key=itemgetter(0)):  # of one letter: as claims() has them
        words = [verdicts[letter, text].get(corpus, NOTHING) for corpus in corpora]
        rows.append([letter, text, *words])
    return markdown(["", "claim", *corpora], rows)


def evidence_table(claims):
    rows = []
    for claim in claims:
        verdict = f"**{claim.verdict}**"
        rows.append([claim.letter, claim.text, verdict, claim.conclusion, claim.evidence])
    heads = ["", "claim", "verdict", "what to conclude", "differences, mean [95% interval]"]
    return markdown(heads, rows)


def rate_lines(corpus=BUILT_IN):
    """The validation losses of the grid, a line for each recipe; in brackets what no choice looks
    at, the share of zero-shot outputs in another language."""
    lines = []
    notes = {"rate": "", "own": "", "try": " (1,000 updates)", "long": " (8,000 updates)"}
    for kind, note in notes.items():
        for recipe, grid in rates(corpus.prefix, kind).items():
            losses = []
            for rate in sorted(grid.losses, key=float):
                share = off_target_at(corpus, recipe, rate, kind)
                beside = "" if share is None or kind == "try" else f" ({share:.0f}%)"
                losses.append(f"{rate}: {grid.losses[rate]:.4f}{beside}")
            lines.append(f"- `{recipe}`{note}: {', '.join(losses)}; best: {grid.best}")
    return "\n".join(lines)


def novel_table(corpus):
    """Of the words of the references that their sources have not, how many the outputs have."""
    shown = english_only(corpus)
    if corpus is BUILT_IN:
        shown += same_size()[1:]  # LoRA; qk is there
    rows = []
    for row in shown:
        found = [values(row.name, pair, "novel") for pair in corpus.within]
        if any(scores is not None for scores in found):
            rows.append([row.label, *(interval_cell(scores) for scores in found)])
    return markdown(["trained", *map(arrow, corpus.within)], rows)


def interval_cell(scores):
    if scores is None:
        return NOTHING
    found = score_interval(scores)
    return f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"


def description_table():
    """English package descriptions, most of what was learned, and none of the test sections."""
    english = HELP.within[0]
    rows = []
    for row in english_only(HELP):
        name = f"{row.name}+descriptions"
        rouge = values(name, english, "R1")
        if rouge is None:
            continue
        if not rows:  # what needs no model is the same beside every row
            scored = next(iter(rows_of(name, english).values()))
            for kind in ("random", "lead"):
                mean, low, high = scored["floors"][kind]["R1"]
                label = FLOORS[kind].format(summary="title")
                rows.append([label, f"{mean:.1f} [{low:.1f}, {high:.1f}]"])
        rows.append([row.label, interval_cell(rouge)])
    return markdown(["trained", "ROUGE-1"], rows)


def slip_table(names):
    """What some rows wrote in another language than the one that was asked for: of each pair and
    seed the first. names: {what is shown of a row: its name}."""
    rows = []
    for label, name in names.items():
        for pair in HELP.zero_shot:
            for seed, of_seed in rows_of(name, pair).items():
                for slip in of_seed["examples"][:1]:
                    cells = (slip["reference"], slip["output"])
                    rows.append([label, arrow(pair), seed, *(one_line(cell) for cell in cells)])
    return markdown(["trained", "", "seed", "reference", "output"], rows)


def off_target_references(corpus):
    """How many of a corpus's references the identifier takes for another language."""
    told = []
    for pair in corpus.within:
        share = floors_of(corpus, pair).get("references", {}).get("off-target")
        percent = NOTHING
        if share is not None:
            percent = f"{share[0]:.1f}%"
        told.append(f"{pair[:2]} {percent}")
    return ", ".join(told)


def one_line(text):
    """A text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def recipe_sizes():
    """What `tools.delta sizes` printed."""
    path = SCORES / "sizes.txt"
    if not path.exists():
        return "not measured"
    return path.read_text(encoding="utf-8").rstrip()
