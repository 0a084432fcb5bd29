"""The pictures of RESULTS.md, as SVG files in pictures/."""
import re
from pathlib import Path

import numpy as np

from papers.scores import (
    PROBED,
    RESULTS,
    WITHIN,
    ZERO_SHOT,
    english_only,
    interval,
    probe_of,
    rates,
    results,
    retrieval_of,
    rows_of,
    values,
)
from plumbing.files import UserError

PICTURES = Path("papers/pictures")


def pictures():
    """SVG files in pictures/; returns the markdown that shows them."""
    try:
        import matplotlib
    except ImportError:
        raise UserError("the pictures need matplotlib: install requirements-dev.txt") from None
    matplotlib.use("svg")
    import matplotlib.pyplot as plt
    plt.rcParams |= {"svg.hashsalt": "qkbart", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    PICTURES.mkdir(exist_ok=True)
    shown = []

    def save(figure, name, words):
        figure.tight_layout()
        figure.savefig(PICTURES / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
        shown.append(f"![{words}](pictures/{name}.svg)")

    recipes = [row for row in english_only() if row.name not in ("base", "supervised", "qk-pipeline")
               and results(row.name)]
    if recipes:
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
        for i, row in enumerate(recipes):
            at = np.arange(len(WITHIN)) + (i - len(recipes) / 2) * 0.11
            for axis, metric in ((top, "R1"), (bottom, "off-target")):
                bars = [interval(values(row.name, pair, metric)) for pair in WITHIN]
                means = [b.mean for b in bars]
                errors = [[b.mean - b.low for b in bars], [b.high - b.mean for b in bars]]
                axis.bar(at, means, 0.1, yerr=errors, label=row.label.replace("`", ""), error_kw={"lw": 0.7})
        top.set_ylabel("ROUGE-1")
        bottom.set_ylabel("off-target, %")
        bottom.set_xticks(range(len(WITHIN)), [f"{pair[:2]}{' (seen)' if i == 0 else ''}"
                                               for i, pair in enumerate(WITHIN)])
        top.legend(ncol=4, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.4))
        save(figure, "zero_shot", "Trained on English: ROUGE-1 and off-target share in five languages, by recipe")

    grid = {recipe: [(float(rate), f"rate-{recipe}-{rate}") for rate in sorted(found, key=float)
                     if all(rows_of(f"rate-{recipe}-{rate}", pair) for pair in WITHIN)]
            for recipe, (found, _) in rates().items()}
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    for recipe, color in (("full", "tab:red"), ("qk", "tab:blue")):
        for pairs, style, words in ((ZERO_SHOT, "o-", "zero-shot"), (WITHIN[:1], "o:", "English")):
            for axis, metric in zip(axes, ("R1", "off-target")):
                points = [interval(np.mean([values(name, pair, metric) for pair in pairs], 0))
                          for _, name in grid[recipe]]
                axis.plot([rate for rate, _ in grid[recipe]], [p.mean for p in points], style, color=color,
                          label=f"{recipe}, {words}")
                axis.fill_between([rate for rate, _ in grid[recipe]], [p.low for p in points], [p.high for p in points],
                                  color=color, alpha=0.15, lw=0)
    for axis, words in zip(axes, ("ROUGE-1", "off-target, %")):
        axis.set(xscale="log", xlabel="learning rate", ylabel=words)
        axis.set_xticks([rate for rate, _ in grid["qk"]], [f"{rate:g}" for rate, _ in grid["qk"]])
        axis.minorticks_off()
    axes[0].legend(frameon=False)
    save(figure, "rates", "Full and qk finetuning on English over the learning rate: ROUGE-1 and off-target share")

    curves = {recipe: sorted((int(re.search(r"@(\d+)", p.stem)[1]), p.stem.rsplit("-s", 1)[0])
                             for p in RESULTS.glob(f"curve-{recipe}@*.json")) for recipe in ("full", "qk")}
    if all(curves.values()):
        figure, axes = plt.subplots(1, 2, figsize=(8, 3))
        for recipe, color in (("full", "tab:red"), ("qk", "tab:blue")):
            steps = [step for step, _ in curves[recipe]]
            for axis, metric in zip(axes, ("R1", "off-target")):
                axis.plot(steps, [np.mean([values(name, pair, metric).mean() for pair in ZERO_SHOT])
                                  for _, name in curves[recipe]], "o-", color=color, label=f"{recipe}, zero-shot")
            axes[0].plot(steps, [values(name, WITHIN[0], "R1").mean() for _, name in curves[recipe]], "o:",
                         color=color, label=f"{recipe}, English")
        for axis, words in zip(axes, ("ROUGE-1", "off-target, %")):
            axis.set(xlabel="updates", ylabel=words)
        axes[0].legend(frameon=False)
        save(figure, "steps", "Zero-shot ROUGE-1 and off-target share over updates, full and qk")

    probed = [row for row in PROBED if probe_of(row.name)[0] is not None]
    if probed:
        figure, axes = plt.subplots(1, 2, figsize=(8, 0.5 * len(probed) + 1.2), sharey=True)
        for axis, side in zip(axes, ("encoder", "decoder")):
            heat = np.array([probe_of(row.name, side)[0].mean(0) for row in probed])
            axis.imshow(heat, vmin=0.25, vmax=1, cmap="viridis", aspect="auto")
            for (i, j), value in np.ndenumerate(heat):
                axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.75 else "black")
            axis.set_xticks(range(heat.shape[1]))
            axis.set(xlabel=f"{side} layer", title=f"source language read from the {side}")
        axes[0].set_yticks(range(len(probed)), [row.label.replace("`", "") for row in probed])
        save(figure, "probing", "Accuracy of a fresh classifier of the source language, by layer")
    aligned = [(label, name) for label, name in (("untuned base", "base"), ("full", "joint-full"),
               ("full, aligned in layer 2", "joint-align"), ("LoRA, aligned in layer 2", "lora-joint"))
               if retrieval_of(name)]
    if aligned:
        figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharey=True)
        for axis, unseen in zip(axes, (False, True)):
            for label, name in aligned:
                axis.plot(np.mean(retrieval_of(name, unseen), 0), "o-", label=label)
            axis.set(xlabel="encoder layer (0: embedding)", title="pairs with tr or gu (no alignment data)" if unseen
                     else "pairs of en, es, ru")
        axes[0].set_ylabel("translations retrieved, %")
        axes[1].legend(frameon=False)
        save(figure, "retrieval", "Translation retrieval by encoder layer, before and after alignment")
    return shown
