"""The pictures of RESULTS.md, as SVG files in pictures/. One function draws one picture."""
import re
from functools import partial
from pathlib import Path

import numpy as np

from papers.scores import (
    ACROSS,
    ALIGNED_LAYERS,
    BUILT_IN,
    HELP,
    LOW_RESOURCE,
    PROBED,
    SCORES,
    SEEN_TARGET,
    SENTENCES,
    TRANSLATED,
    TRANSLATORS,
    UNALIGNED,
    WITHIN,
    ZERO_SHOT,
    Row,
    arrow,
    english_only,
    low_resource,
    mean_of,
    mean_of_watched,
    one_rate,
    probe_of,
    rates,
    retrieval_of,
    rows_of,
    score_interval,
    scores_of,
    trained_percent,
    values,
    watched,
)
from plumbing.plots import plotter, save_figure

PICTURES = Path("papers/pictures")
COLORS = {"full": "tab:red", "qk": "tab:blue", "lora": "tab:green"}
RING = {"marker": "o", "markersize": 11, "fillstyle": "none"}  # around the rate that was chosen
METRICS = ("R1", "off-target")
AXIS_LABELS = ("ROUGE-1", "off-target, %")

# Trained within English, Spanish and Russian; and what such models are asked for, mean of pairs.
SETTINGS = [
    Row("full", "joint-full"),
    Row("qk", "joint-qk"),
    Row("full, balanced adversary", "joint-balanced"),
    Row("two steps, full", "two-step-full"),
    Row("two steps, qk", "two-step-qk"),
]
ASKED = {
    "into English and Russian,\nwhich had summaries": SEEN_TARGET,
    "en→tr": ACROSS[4:5],
    "within Turkish,\nwhich had none": ACROSS[5:],
}

ALIGNED = [
    Row("untuned base", "base"),
    Row("full", "joint-full"),
    Row("full, aligned in layer 3", "joint-align"),
    Row("LoRA, aligned in layer 3", "lora-joint"),
]


def pictures():
    """Draws every picture whose scores are there; returns {name: the markdown that shows it}."""
    plt = plotter()
    PICTURES.mkdir(parents=True, exist_ok=True)
    shown = {}
    for name, draw in DRAWN.items():
        figure = draw(plt)
        if figure is None:
            continue
        figure.tight_layout()
        save_figure(figure, PICTURES / f"{name}.svg")
        plt.close(figure)
        shown[name] = markdown_of(name)
    return shown


def markdown_of(name):
    """What shows a picture in RESULTS.md."""
    return f"![{CAPTIONS[name]}](pictures/{name}.svg)"


def has_all_pairs(name, pairs=WITHIN):
    return all(rows_of(name, pair) for pair in pairs)


def zero_shot(plt):
    """Bars: every recipe in every language, ROUGE-1 above, off-target share below."""
    left_out = ("base", "supervised", "qk-pipeline")
    rows = [row for row in english_only() if row.name not in left_out and has_all_pairs(row.name)]
    groups = {pair[:2]: [pair] for pair in WITHIN[1:]}
    return bars(plt, rows, {"en (seen)": WITHIN[:1]} | groups, columns=4)


def novel_words(plt):
    """Bars: of the words that a reference has and its document has not, the share that is found, in
    English and in the languages that were not seen."""
    rows = [
        Row("base, untuned", "base"),
        Row("qk at its best rate", BUILT_IN.row("qk")),
        Row("full at its best rate", BUILT_IN.row("full")),
        Row("full, trained in all five languages", "supervised"),
    ]
    rows = [row for row in rows if has_novel(row.name)]
    if not rows:
        return None
    groups = {"English (seen by all but the base)": WITHIN[:1], "es, ru, tr, gu": ZERO_SHOT}
    figure, axis = plt.subplots(figsize=(8, 3))
    for number, row in enumerate(rows):
        lows = []
        means = []
        highs = []
        for pairs in groups.values():
            found = [score_interval(values(row.name, pair, "novel")) for pair in pairs]
            lows.append(np.mean([interval.low for interval in found]))
            means.append(np.mean([interval.mean for interval in found]))
            highs.append(np.mean([interval.high for interval in found]))
        add_bars(axis, (number, len(rows)), row.label, lows, means, highs)
    axis.set_ylabel("own words found, %")
    axis.set_xticks(range(len(groups)), groups)
    axis.legend(frameon=False)
    return figure


def has_novel(name):
    """Have all pairs of a row their share of own words? It is taken when texts are there (keep)."""
    return all(values(name, pair, "novel") is not None for pair in WITHIN)


def asked_across(corpus, plt):
    """Bars: what was trained within three languages, asked across them and in a fourth one."""
    rows = [Row(row.label, corpus.row(row.name)) for row in SETTINGS]
    rows = [row for row in rows if has_all_pairs(row.name, ACROSS)]
    return bars(plt, rows, ASKED, columns=3)


def bars(plt, rows, groups, columns):
    """Bars with their 95% intervals, ROUGE-1 above and off-target share below, of Rows in groups
    {name: language pairs, of which the mean is shown}. columns: of the legend. None without
    rows."""
    if not rows:
        return None
    figure, axes = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
    for number, row in enumerate(rows):
        for axis, metric in zip(axes, METRICS):
            found = [mean_over_pairs(row.name, pairs, metric) for pairs in groups.values()]
            lows = [interval.low for interval in found]
            means = [interval.mean for interval in found]
            highs = [interval.high for interval in found]
            add_bars(axis, (number, len(rows)), row.label, lows, means, highs)
    top, bottom = axes
    for axis, label in zip(axes, AXIS_LABELS):
        axis.set_ylabel(label)
    bottom.set_xticks(range(len(groups)), groups)
    top.legend(ncol=columns, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.4))
    return figure


def add_bars(axis, place, label, lows, means, highs):
    """One bar in each group, from 0 to a mean, with a line from a low to a high.

    place: (number, count), which of so many bars of its group it is."""
    number, count = place
    width = 0.8 / count
    axis.bar(
        np.arange(len(means)) + (number - (count - 1) / 2) * width,
        means,
        0.9 * width,
        yerr=[np.subtract(means, lows), np.subtract(highs, means)],
        label=label.replace("`", ""),
        error_kw={"lw": 0.7},
    )


def mean_over_pairs(name, pairs, metric):
    """The Interval of a row's metric, the mean over language pairs."""
    return score_interval(np.mean([values(name, pair, metric) for pair in pairs], 0))


def learning_rates(plt):
    """Lines over the learning rate of full, qk and LoRA of qk's size: English and the mean of the
    other languages."""
    if not any(recipe in rates() for recipe in COLORS):
        return None
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    ticks = []
    for recipe, color in COLORS.items():
        if recipe not in rates():
            continue
        grid = finished_rates(recipe)
        at = [float(rate) for rate in grid]
        ticks.extend(at)
        for pairs, style, words in (
            (ZERO_SHOT, "o-", "zero-shot"),
            (WITHIN[:1], "o:", "English"),
        ):
            for axis, metric in zip(axes, METRICS):
                points = []
                for rate in grid:
                    points.append(mean_over_pairs(f"rate-{recipe}-{rate}", pairs, metric))
                lows = [point.low for point in points]
                means = [point.mean for point in points]
                highs = [point.high for point in points]
                label = f"{recipe}, {words}"
                add_line(axis, at, lows, means, highs, style, color=color, label=label)
                if rates()[recipe].best in grid:
                    chosen = grid.index(rates()[recipe].best)
                    axis.plot(at[chosen], points[chosen].mean, **RING, color=color)
    ticks = sorted(set(ticks))
    for axis, label in zip(axes, AXIS_LABELS):
        axis.set(xscale="log", xlabel="learning rate", ylabel=label)
        axis.set_xticks(ticks, [f"{rate:g}" for rate in ticks])
        axis.minorticks_off()
    axes[0].legend(frameon=False)
    return figure


def add_line(axis, at, lows, means, highs, style, **look):
    """A line through means, in a band from lows to highs; at: their places on the x-axis."""
    (line,) = axis.plot(at, means, style, **look)
    axis.fill_between(at, lows, highs, color=line.get_color(), alpha=0.15, lw=0)


def finished_rates(recipe):
    """The learning rates of the grid, as typed, that were scored in every language; ascending."""
    tried = sorted(rates()[recipe].losses, key=float)
    return [rate for rate in tried if has_all_pairs(f"rate-{recipe}-{rate}")]


def over_updates(plt):
    """Lines over the updates of one run: zero-shot scores while English is learned."""
    curves = {recipe: moments(recipe) for recipe in ("full", "qk")}
    if not all(curves.values()):
        return None
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for recipe, steps in curves.items():
        color = COLORS[recipe]
        names = [f"curve-{recipe}@{step}" for step in steps]
        for axis, metric in zip(axes, METRICS):
            means = [mean_of(name, ZERO_SHOT, metric) for name in names]
            axis.plot(steps, means, "o-", color=color, label=f"{recipe}, zero-shot")
        english = [mean_of(name, WITHIN[:1], "R1") for name in names]
        axes[0].plot(steps, english, "o:", color=color, label=f"{recipe}, English")
    for axis, label in zip(axes, AXIS_LABELS):
        axis.set(xlabel="updates", ylabel=label)
    axes[0].legend(frameon=False)
    return figure


def moments(recipe):
    """The updates at which a curve was scored, of a run from today's base."""
    found = set()
    for path in SCORES.glob(f"curve-{recipe}@*.json"):
        step = int(re.search(r"@(\d+)", path.stem)[1])
        if has_all_pairs(f"curve-{recipe}@{step}"):
            found.add(step)
    return sorted(found)


RATE_STYLES = {"5e-4": (0, (1, 3)), "1e-3": ":", "2e-3": "--", "4e-3": "-", "8e-3": "-."}


def help_over_updates(plt):
    """Lines over the updates of runs on real text, by learning rate, above those of 3,000 updates,
    below those of 8,000: greedy summaries of validation texts, in English and, the mean, in the
    languages that were not seen."""
    figure, axes = plt.subplots(2, 3, figsize=(11, 6))
    if not add_watched_runs(axes[0], "rate"):
        return None
    add_watched_runs(axes[1], "long")
    titles = ("English (seen): ROUGE-1", "es, ru, tr: ROUGE-1", "es, ru, tr: off-target, %")
    for axis, title in zip(axes[0], titles):
        axis.set(title=title)
    for axis in axes[1]:
        axis.set(xlabel="updates")
    return figure


def add_watched_runs(axes, kind):
    """Lines of the runs of full and qk that were watched, in the three panels of a row; returns
    how many runs these are. kind: as rates() has it."""
    drawn = 0
    for recipe in ("full", "qk"):
        grid = rates(HELP.prefix, kind).get(recipe)
        if grid is None:
            continue
        for rate in sorted(grid.losses, key=float):
            lines = watched(f"{HELP.prefix}{kind}-{recipe}-{rate}")
            if not lines:
                continue
            drawn += 1
            steps = sorted({int(line["step"]) for line in lines})
            label = f"{recipe}, {rate}"
            if rate == grid.best:
                label += " (its best)"
            for axis, pairs, column in zip(
                axes,
                (HELP.within[:1], HELP.zero_shot, HELP.zero_shot),
                ("score", "score", "off-target"),
            ):
                means = [mean_of_watched(lines, step, pairs, column) for step in steps]
                axis.plot(steps, means, RATE_STYLES[rate], color=COLORS[recipe], label=label)
    if drawn:
        axes[2].legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    return drawn


def probing(plt):
    """A map of numbers: the probability that a probe gives the source language, from
    each layer's states."""
    rows = [row for row in PROBED if probe_of(row.name) is not None]
    if not rows:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(8, 0.5 * len(rows) + 1.2), sharey=True)
    for axis, side in zip(axes, ("encoder", "decoder")):
        heat = np.array([probe_of(row.name, side).mean(0) for row in rows])
        axis.imshow(heat, vmin=0.25, vmax=1, cmap="viridis", aspect="auto")
        for (place, layer), value in np.ndenumerate(heat):
            color = "white" if value < 0.75 else "black"
            axis.text(layer, place, f"{value:.2f}", ha="center", va="center", color=color)
        axis.set_xticks(range(heat.shape[1]))
        axis.set(xlabel=f"{side} layer", title=f"source language read from the {side}")
    axes[0].set_yticks(range(len(rows)), [row.label.replace("`", "") for row in rows])
    return figure


def retrieval(plt):
    """Lines over the encoder's layers: how often a text's nearest neighbour is its translation."""
    rows = [row for row in ALIGNED if retrieval_of(row.name) is not None]
    if not rows:
        return None
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
    titles = ("pairs of en, es, ru", "pairs with tr or gu (no alignment data)")
    for axis, unseen, title in zip(axes, (False, True), titles):
        for row in rows:
            axis.plot(retrieval_of(row.name, unseen).mean(0), "o-", label=row.label)
        axis.set(xlabel="encoder layer (0: embedding)", title=title)
    axes[0].set_ylabel("translations retrieved, %")
    axes[1].legend(frameon=False)
    return figure


def parameters(plt):
    """Points over the share of parameters that trains: zero-shot scores of every recipe."""
    rows = [row for row in one_rate() if has_all_pairs(row.name)]
    if not rows:
        return None
    rows.sort(key=trained_percent)
    figure, axes = plt.subplots(1, 2, figsize=(10, 4))
    for axis, metric, label in zip(axes, METRICS, AXIS_LABELS):
        for number, row in enumerate(rows, 1):
            mean = mean_of(row.name, ZERO_SHOT, metric)
            words = f"{number}: {row.label.replace('`', '')}"
            axis.plot(trained_percent(row), mean, "o", label=words)
            axis.annotate(
                str(number),
                (trained_percent(row), mean),
                textcoords="offset points",
                xytext=(3, 4 + 8 * (number % 2)),
                fontsize=7,
            )
        axis.set(xscale="log", xlabel="parameters that train, %", ylabel=f"zero-shot {label}")
    axes[1].legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def alignment(plt):
    """By the layer that is aligned: retrieval in every encoder layer, and off-target outputs."""
    runs = [UNALIGNED, *ALIGNED_LAYERS]
    runs = [found for found in runs if retrieval_of(found.name) is not None]
    if not runs:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(9, 3))
    for found in runs:
        place = found.layer
        label = f"layer {place} aligned"
        if found is UNALIGNED:
            place = 0
            label = "not aligned"
        for axis, unseen in zip(axes, (False, True)):
            axis.plot(retrieval_of(found.name, unseen).mean(0), "o-", label=label)
        means = off_target_of(found.name)
        if means is None:
            continue
        below = means.mean() - means.min()
        above = means.max() - means.mean()
        axes[2].errorbar(place, means.mean(), [[below], [above]], fmt="o")
    axes[0].set(xlabel="encoder layer", ylabel="retrieved, %", title="pairs of en, es, ru")
    axes[1].set(xlabel="encoder layer", title="pairs with tr or gu")
    axes[2].set(xlabel="aligned layer (0: none)", ylabel="off-target, %", title="across languages")
    axes[0].legend(frameon=False, fontsize=7)
    return figure


def off_target_of(name):
    """(seeds,): the mean share of off-target outputs into languages that were seen; None where a
    pair was not scored."""
    shares = []
    for pair in SEEN_TARGET:
        found = values(name, pair, "off-target")
        if found is None:
            return None
        shares.append(found.mean(1))
    return np.mean(shares, 0)


def taught_pair(plt):
    """Bars: BLEU of the pairs that a translation model knew, after one of them was taught again."""
    rows = []
    for row in TRANSLATORS:
        if row.name.startswith("translator") and has_all_pairs(row.name, TRANSLATED):
            rows.append(row)
    if not rows:
        return None
    figure, axis = plt.subplots(figsize=(8, 3))
    for number, row in enumerate(rows):
        found = [list(scores_of(row.name, "BLEU", pair).values()) for pair in TRANSLATED]
        lows = [min(bleu) for bleu in found]
        means = [np.mean(bleu) for bleu in found]
        highs = [max(bleu) for bleu in found]
        add_bars(axis, (number, len(rows)), row.label, lows, means, highs)
    names = [arrow(pair) for pair in TRANSLATED]
    names[0] += " (taught)"
    axis.set_xticks(range(len(names)), names)
    axis.set_ylabel("BLEU")
    axis.legend(ncol=2, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.35))
    return figure


def few_sentences(plt):
    """Lines over the number of sentences: BLEU of a new source language, by recipe."""
    figure, axis = plt.subplots(figsize=(5, 3))
    for recipe in LOW_RESOURCE:
        points = {}
        for sentences in SENTENCES:
            found = list(scores_of(low_resource(recipe, sentences), "BLEU").values())
            if found:
                points[sentences] = found
        if not points:
            return None
        lowest = [min(found) for found in points.values()]
        highest = [max(found) for found in points.values()]
        means = [np.mean(found) for found in points.values()]
        add_line(axis, list(points), lowest, means, highest, "o-", label=recipe)
    axis.set(xscale="log", xlabel="German sentences", ylabel="BLEU, de→en")
    axis.legend(frameon=False)
    return figure


DRAWN = {
    "zero_shot": zero_shot,
    "novel": novel_words,
    "rates": learning_rates,
    "steps": over_updates,
    "help_steps": help_over_updates,
    "across": partial(asked_across, BUILT_IN),
    "help_across": partial(asked_across, HELP),
    "taught_pair": taught_pair,
    "probing": probing,
    "retrieval": retrieval,
    "parameters": parameters,
    "alignment": alignment,
    "few_sentences": few_sentences,
}
CAPTIONS = {
    "zero_shot": "Trained on English: ROUGE-1 and off-target share in five languages, by recipe",
    "novel": "Of the words that a reference has and its document has not, how many are found, in "
    "English and in the languages that were not seen (there bar and line are means of the "
    "languages' means and intervals)",
    "rates": "Full and qk finetuning and LoRA on English over the learning rate: ROUGE-1 and "
    "off-target share; a ring around the rate that English validation chooses",
    "steps": "Zero-shot ROUGE-1 and off-target share over updates, full and qk",
    "help_steps": "Real text: ROUGE-1 and off-target share over updates, full and qk by learning "
    "rate, above for 3,000 updates, below for 8,000; greedy summaries of validation texts (125 "
    "Spanish, 76 Russian, 83 Turkish; in English 200 where a line begins at 12.6, all 1,570 where "
    "it begins at 20.2), the first seed",
    "across": "Trained within en, es and ru on the built-in corpus: ROUGE-1 and off-target share "
    "across languages and in Turkish",
    "help_across": "Real text, trained within en, es and ru: ROUGE-1 and off-target share across "
    "languages and in Turkish",
    "taught_pair": "BLEU by language pair after English to Spanish was taught again; the lines go "
    "from the lowest seed to the highest",
    "probing": "Mean probability of the source language under a probe, by layer",
    "retrieval": "Translation retrieval by encoder layer, before and after alignment",
    "parameters": "Zero-shot ROUGE-1 and off-target share over the share of parameters that train",
    "alignment": "Retrieval and off-target share by the layer that is aligned",
    "few_sentences": "BLEU over the number of German sentences, by recipe",
}
