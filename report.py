"""RESULTS.md and its pictures, out of the scores that reproduce.sh leaves in results/:  python report.py

A score file is what `eval.py --json` writes, one for each row of a table and seed: results/NAME-sSEED.json. A figure is
a mean over seeds and test examples with a 95% interval from a two-level bootstrap (seeds, then examples within them); a
difference is taken example by example. A claim is "supported" if the intervals of all its differences lie on the
claimed side of zero, "contradicted" if all lie on the other side, else "mixed", with the count.

    python report.py --best-rate runs/paper/rate-qk-*      the learning rate of the run with the lowest validation loss
"""
import argparse
import json
import re
import sys
from collections import namedtuple
from functools import cache
from pathlib import Path

import numpy as np

from model import UserError
from tokenizer import read_json

RESULTS, PICTURES = Path("results"), Path("pictures")
Interval = namedtuple("Interval", "mean low high")
Row = namedtuple("Row", "label name published")  # published: {pair: "ROUGE-1 / off-target"}

WITHIN = [f"{lang}-{lang}" for lang in ("en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN")]
ZERO_SHOT = WITHIN[1:]
ACROSS = ["es_XX-en_XX", "ru_RU-en_XX", "tr_TR-en_XX", "es_XX-ru_RU", "en_XX-tr_TR", "tr_TR-tr_TR"]
SEEN_TARGET, UNSEEN_TARGET = ACROSS[:4], ACROSS[4:]


def published(pairs, *figures):
    return {pair: figure for pair, figure in zip(pairs, figures) if figure}


XLSUM = [f"{lang}-{lang}" for lang in ("en_XX", "es_XX", "ru_RU", "gu_IN")]  # the paper's columns
ENGLISH_ONLY = [
    Row("untuned base", "base", {}),
    Row("supervised: `full` on all five", "supervised", published(XLSUM, "40.0", "34.2", "35.3", "22.3")),
    Row("`full`", "full", published(XLSUM, "40.4", "7.9 / 99.8%", "1.2 / 97.7%", "1.6 / 86.6%")),
    Row("`full+embeddings`", "full+embeddings", published(XLSUM, "40.3", "7.8 / 99.7%", "8.9 / 22.1%", "3.1 / 71.5%")),
    Row("`frozen_decoder`", "frozen_decoder", published(XLSUM, "40.1", "26.2 / 14.8%", "30.1 / 0.0%", "17.2 / 0.0%")),
    Row("`attn_ln`", "attn_ln", published(XLSUM, "39.5", "29.7 / 0.5%", "28.8 / 0.0%", "12.4 / 0.2%")),
    Row("`vqk`", "vqk", {}),
    Row("`qk`", "qk", published(XLSUM, "38.1", "30.0 / 0.1%", "30.8 / 0.0%", "19.6 / 0.0%")),
    Row("`q`", "q", {}),
    Row("pipeline: to English and back", "qk-pipeline", published(XLSUM, "", "29.2", "26.7", "15.7")),
]
FEW_SHOT = [Row(f"`{recipe}`, then {count} Spanish examples", f"few-{recipe}-{count}",
                {"es_XX-es_XX": figure} if recipe == "full" else {})
            for recipe in ("full", "qk")
            for count, figure in ((10, "29.8"), (100, "30.4"), (1000, "31.9"))]
JOINT = [
    Row("untuned base", "base", {}),
    Row("supervised: `full` on these pairs", "joint-supervised",
        published(ACROSS, "38.4", "36.0", "41.4", "21.1", "23.7", "30.3")),
    Row("`full`, tagged", "joint-full",
        published(ACROSS, "2.4 / 100%", "0.7 / 100%", "5.0 / 98%", "0.6 / 100%", "2.7 / 100%", "20.8 / 4%")),
    Row("`qk`, tagged", "joint-qk",
        published(ACROSS, "2.4 / 100%", "0.7 / 100%", "2.5 / 100%", "0.6 / 100%", "2.8 / 100%", "22.8 / 0%")),
    Row("control: `full`, tagless, no adversary", "joint-tagless", {}),
    Row("adversary `standard`", "joint-standard",
        published(ACROSS, "31.0 / 7.6%", "30.6 / 3.2%", "29.7 / 1.4%", "14.9 / 10.5%", "2.8 / 100%", "6.0 / 90%")),
    Row("adversary `balanced`", "joint-balanced",
        published(ACROSS, "33.1 / 1.7%", "31.4 / 1.3%", "31.3 / 0.9%", "17.2 / 0.3%", "2.8 / 100%", "3.0 / 100%")),
    Row("`balanced` + residual drop", "joint-balanced-drop",
        published(ACROSS, "33.8 / 0.5%", "32.1 / 0.2%", "29.9 / 0.3%", "17.6 / 0.0%", "2.7 / 100%", "2.3 / 100%")),
    Row("`balanced`, then `adv_tuned`", "joint-adv-tuned", {}),
    Row("two steps: translation, then `qk`", "two-step-qk",
        published(ACROSS, "34.4 / 1.6%", "32.8 / 0.4%", "38.6 / 0.3%", "17.6 / 1.6%", "20.4 / 1.3%", "23.1 / 0.0%")),
    Row("control: two steps with `full`", "two-step-full", {}),
    Row("pipeline: to English and back", "joint-pipeline",
        published(ACROSS, "37.9", "34.6", "40.9", "16.7", "20.9", "20.7")),
]
PROBED = [Row("untuned base", "base", {}), Row("`full`, tagged", "joint-full", {"": "0.989"}),
          Row("`qk`, tagged", "joint-qk", {}), Row("`full`, tagless", "joint-tagless", {}),
          Row("`standard`", "joint-standard", {"": "0.958"}), Row("`balanced`", "joint-balanced", {"": "0.707"}),
          Row("`balanced` + residual drop", "joint-balanced-drop", {"": "0.543"}),
          Row("two steps, `qk`", "two-step-qk", {})]


# ---------------------------------------------------------------------------------------------- figures

@cache
def results(name):
    """The score files of a row, one a seed."""
    return [json.loads(path.read_text(encoding="utf-8"))
            for path in sorted(RESULTS.glob("*.json")) if re.fullmatch(re.escape(name) + r"-s\d+", path.stem)]


def values(name, pair, metric):
    """(seeds, examples) of a row's metric; None where there is no such score."""
    rows = [row["each"][metric] for result in results(name) for row in result.get("rows", ())
            if f"{row['source']}-{row['target']}" == pair]
    return np.array(rows, float) if rows else None


def interval(sample, resamples=1000):
    """(seeds, examples) -> mean and 95% interval: seeds are drawn with replacement, then examples."""
    rng = np.random.default_rng(0)
    seeds, n = sample.shape
    means = [sample[np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, n, n))].mean() for _ in range(resamples)]
    return Interval(sample.mean(), *np.percentile(means, (2.5, 97.5)))


def difference(a, b, pair, metric):
    """Row a minus row b, the same seed and example on both sides; None if one is missing."""
    x, y = values(a, pair, metric), values(b, pair, metric)
    if x is None or y is None:
        return None
    seeds = min(len(x), len(y))
    return interval(x[:seeds] - y[:seeds])


def best_rate(folders):
    """{learning rate: lowest validation loss} of runs, and the best of the rates. No test example takes part."""
    found = {}
    for folder in map(Path, folders):
        if not (folder / "log.csv").is_file():
            raise UserError(f"{folder / 'log.csv'}: not found; the run did not come to its first validation")
        rows = (folder / "log.csv").read_text(encoding="utf-8").splitlines()[1:]
        found[read_json(folder / "args.json")["lr"]] = min(float(row.split(",")[2]) for row in rows)
    return found, min(found, key=found.get)


# ---------------------------------------------------------------------------------------------- tables

def cell(name, pair, note=""):
    score = values(name, pair, "R1")
    if score is None:
        return f"–<br><sub>{note}</sub>" if note else "–"
    r1 = interval(score)
    off, facts = (values(name, pair, metric).mean() for metric in ("off-target", "facts"))
    text = f"{r1.mean:.1f} [{r1.low:.1f}, {r1.high:.1f}]<br>{off:.0f}% · {facts:.0f}%"
    return f"{text}<br><sub>{note}</sub>" if note else text


def floors(pairs):
    """The rows of outputs that need no model."""
    found = {f"{row['source']}-{row['target']}": row["floors"] for path in sorted(RESULTS.glob("*.json"))
             for row in json.loads(path.read_text(encoding="utf-8")).get("rows", ()) if row.get("floors")}
    lines = []
    for kind, label in (("random", "floor: another text's headline"), ("lead", "floor: the source's first sentence")):
        cells = [f"{found[p][kind]['R1'][0]:.1f}<br>{found[p][kind]['off-target'][0]:.0f}% · "
                 f"{found[p][kind]['facts'][0]:.0f}%" if p in found else "–" for p in pairs]
        lines.append(f"| {label} | – | " + " | ".join(cells) + " |")
    return lines


def arrow(pair):
    source, target = (code[:2] for code in pair.split("-"))
    return f"{source}→{target}"


def table(rows, pairs, with_floors=True):
    lines = ["| trained | seeds | " + " | ".join(map(arrow, pairs)) + " |", "| --- | --- |" + " --- |" * len(pairs)]
    lines += floors(pairs) if with_floors else []
    for row in rows:
        if results(row.name) or row.published:
            cells = [cell(row.name, pair, row.published.get(pair) and f"published {row.published[pair]}")
                     for pair in pairs]
            lines.append(f"| {row.label} | {len(results(row.name))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def probe_of(name, side="encoder"):
    """(seeds, layers) of probing accuracy and of mean SVCCA; None where a row was not probed."""
    reports = [result["probe"][side] for result in results(f"{name}+probe")]
    if not reports:
        return None, None
    return (np.array([[layer["accuracy"] for layer in report] for report in reports]),
            np.array([[np.mean(list(layer["svcca"].values())) for layer in report] for report in reports]))


def probe_table():
    lines = ["| model | encoder, last layer | encoder layers, embedding first | decoder layers | published | "
             "SVCCA, encoder | SVCCA, decoder |", "| --- |" + " --- |" * 6]
    for row in PROBED:
        accuracy, alike = probe_of(row.name)
        if accuracy is None:
            continue
        decoder, decoder_alike = probe_of(row.name, "decoder")
        spread = f" ({accuracy[:, -1].min():.3f} to {accuracy[:, -1].max():.3f})" if len(accuracy) > 1 else ""
        lines.append(f"| {row.label} | {accuracy[:, -1].mean():.3f}{spread} | " + " | ".join(
            " ".join(f"{x:.2f}" for x in sample.mean(0)) if sample is not None else row.published.get("", "–")
            for sample in (accuracy, decoder, None, alike, decoder_alike)) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- claims

def verdict(differences):
    """[(what, Interval or None)] -> "supported", "contradicted", "mixed" or "not measured", with the evidence."""
    known = [(what, d) for what, d in differences if d is not None]
    if not known:
        return "not measured", ""
    above, below = sum(d.low > 0 for _, d in known), sum(d.high < 0 for _, d in known)
    word = ("supported" if above == len(known) else "contradicted" if below == len(known) else
            f"mixed: {above} of {len(known)} differences on the claimed side, {below} on the other, the rest open")
    return word, "; ".join(f"{what} {d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]" for what, d in known)


def compare(a, b, pairs, metric, label=None):
    """a minus b on every pair, as verdict() wants it."""
    return [(f"{label or metric} {arrow(pair)}", difference(a, b, pair, metric)) for pair in pairs]


def against_floor(name, pairs):
    """Facts of a row minus those of another document's headline."""
    out = []
    for pair in pairs:
        facts = values(name, pair, "facts")
        floor = [row["floors"]["random"]["facts"][0] for result in results(name) for row in result["rows"]
                 if f"{row['source']}-{row['target']}" == pair]
        out.append((f"facts above floor {arrow(pair)}", None if facts is None else interval(facts - floor[0])))
    return out


def copies(name, pairs):
    """How far the share of outputs in another language lies above one half."""
    return [(f"off-target − 50 {arrow(pair)}", None if values(name, pair, "off-target") is None
             else interval(values(name, pair, "off-target") - 50)) for pair in pairs]


def claims():
    """[(letter, claim, verdict, evidence)]"""
    cross = SEEN_TARGET
    said = [
        ("a", "full finetuning on English loses the other languages: more off-target outputs than `qk`",
         compare("full", "qk", ZERO_SHOT, "off-target")),
        ("a", "`qk` keeps them: higher zero-shot ROUGE-1 than `full`", compare("qk", "full", ZERO_SHOT, "R1")),
        ("b", "`qk` pays on the seen language: `full` has the higher English ROUGE-1",
         compare("full", "qk", WITHIN[:1], "R1")),
        ("c", "`frozen_decoder` lies above `full` zero-shot", compare("frozen_decoder", "full", ZERO_SHOT, "R1")),
        ("c", "`attn_ln` lies above `full` zero-shot", compare("attn_ln", "full", ZERO_SHOT, "R1")),
        ("c", "`qk` lies above `frozen_decoder` zero-shot", compare("qk", "frozen_decoder", ZERO_SHOT, "R1")),
        ("c", "`qk` lies above `attn_ln` zero-shot", compare("qk", "attn_ln", ZERO_SHOT, "R1")),
        ("c", "`qk` lies above `vqk` zero-shot (no published figure)", compare("qk", "vqk", ZERO_SHOT, "R1")),
        ("c", "`qk` lies above `q` zero-shot (no published figure)", compare("qk", "q", ZERO_SHOT, "R1")),
        ("d", "joint intralingual finetuning copies the source across languages (`full`)", copies("joint-full", cross)),
        ("d", "and so does `qk`", copies("joint-qk", cross)),
        ("d", "two steps mend the language: fewer off-target outputs than `full`",
         compare("joint-full", "two-step-qk", ACROSS[:5], "off-target")),
        ("d", "and the content: more facts than another document's headline", against_floor("two-step-qk", ACROSS)),
        ("d", "two steps with `qk` beat two steps with `full`", compare("two-step-qk", "two-step-full", ACROSS, "R1")),
        ("d", "the balanced adversary mends the language: fewer off-target outputs than `full`",
         compare("joint-full", "joint-balanced", cross, "off-target")),
        ("d", "and the content: more facts than another document's headline", against_floor("joint-balanced", cross)),
        ("d", "it is the adversary, not the missing tag: fewer off-target outputs than the tagless control",
         compare("joint-tagless", "joint-balanced", cross, "off-target")),
        ("e", "balanced beats standard: higher ROUGE-1", compare("joint-balanced", "joint-standard", cross, "R1")),
        ("e", "balanced beats standard: fewer off-target outputs",
         compare("joint-standard", "joint-balanced", cross, "off-target")),
        ("e", "the balanced adversary hurts an unseen target language: more off-target outputs there than `full`",
         compare("joint-balanced", "joint-full", ["tr_TR-tr_TR"], "off-target")),
    ]
    rows = [(letter, claim, *verdict(differences)) for letter, claim, differences in said]
    return rows + probing_claims()


def probing_claims():
    names = ["joint-full", "joint-standard", "joint-balanced", "joint-balanced-drop"]
    accuracies = [probe_of(name)[0] for name in names]
    if any(a is None for a in accuracies):
        return [("f", "probing accuracy falls full > standard > balanced > + residual drop", "not measured", "")]
    last = [a[:, -1] for a in accuracies]
    ordered = [x.min() > y.max() for x, y in zip(last, last[1:])]
    word = "supported" if all(ordered) else ("mixed: in order and apart in every seed for "
                                             f"{sum(ordered)} of {len(ordered)} neighbours")
    evidence = "; ".join(f"{name} {x.mean():.3f} ({x.min():.3f} to {x.max():.3f})" for name, x in zip(names, last))
    points = []
    for row in PROBED[1:]:
        accuracy, _ = probe_of(row.name)
        scores = [values(row.name, pair, "R1") for pair in SEEN_TARGET]
        if accuracy is not None and all(s is not None for s in scores) and "two-step" not in row.name:
            points += [(accuracy[i, -1], np.mean([s[i].mean() for s in scores]))
                       for i in range(min(len(accuracy), len(scores[0])))]
    r = np.corrcoef(np.array(points).T)[0, 1] if len(points) > 2 else float("nan")
    return [("f", "probing accuracy falls full > standard > balanced > + residual drop", word, evidence),
            ("f", "and correlates with zero-shot cross-lingual ROUGE-1 (negatively; one-step runs)",
             "supported" if r < -0.5 else "not supported", f"Pearson r = {r:.2f} over {len(points)} runs")]


# ---------------------------------------------------------------------------------------------- pictures

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

    recipes = [row for row in ENGLISH_ONLY if row.name in ("full", "frozen_decoder", "attn_ln", "vqk", "qk", "q")
               and results(row.name)]
    if recipes:
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(8, 5), sharex=True)
        for i, row in enumerate(recipes):
            at = np.arange(len(WITHIN)) + (i - len(recipes) / 2) * 0.13
            for axis, metric in ((top, "R1"), (bottom, "off-target")):
                bars = [interval(values(row.name, pair, metric)) for pair in WITHIN]
                means = [b.mean for b in bars]
                errors = [[b.mean - b.low for b in bars], [b.high - b.mean for b in bars]]
                axis.bar(at, means, 0.12, yerr=errors, label=row.name, error_kw={"lw": 0.7})
        top.set_ylabel("ROUGE-1")
        bottom.set_ylabel("off-target, %")
        bottom.set_xticks(range(len(WITHIN)), [f"{pair[:2]}{' (seen)' if i == 0 else ''}"
                                               for i, pair in enumerate(WITHIN)])
        top.legend(ncol=6, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.25))
        save(figure, "zero_shot", "Trained on English: ROUGE-1 and off-target share in five languages, by recipe")

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
    return shown


# ---------------------------------------------------------------------------------------------- the file

def write(path):
    if not list(RESULTS.glob("*.json")):
        raise UserError(f"{RESULTS}/ has no scores yet; run ./reproduce.sh first")
    shown = pictures()
    rates = {recipe: best_rate(sorted(Path("runs/paper").glob(f"rate-{recipe}-*-s0"))) for recipe in ("full", "qk")
             if list(Path("runs/paper").glob(f"rate-{recipe}-*-s0"))}
    rate_lines = [f"- `{recipe}`: " + ", ".join(f"{rate:g}: {loss:.4f}" for rate, loss in sorted(found.items()))
                  + f"; taken: {best:g}" for recipe, (found, best) in rates.items()]
    claim_lines = [f"| {letter} | {claim} | **{word}** | {evidence} |" for letter, claim, word, evidence in claims()]
    path.write_text("\n".join([
        "# Results", "",
        "Written by `./reproduce.sh` (`report.py`), never by hand; the corpus, the base model and every run are this",
        "repository's own. A cell: ROUGE-1 [95% interval], below it the share of outputs in another language · the",
        "share of facts (who, did, what, where) recovered; then the published ROUGE-1 / off-target share on real data",
        "with mBART-large, which can be compared in sign and order only. 100 test documents a pair, beam 5.", "",
        "## Claims", "", "| | claim | verdict | differences, mean [95% interval] |", "| --- | --- | --- | --- |",
        *claim_lines, "",
        "## Trained on English alone, asked within each language", "",
        "Learning rates by the validation loss on English (lowest is taken):", "", *rate_lines, "",
        table(ENGLISH_ONLY, WITHIN), "", *shown[:2], "",
        "### A few Spanish examples on top", "", table(FEW_SHOT, WITHIN[1:2], with_floors=False), "",
        "## Trained within English, Spanish and Russian, asked across languages (Turkish is unseen)", "",
        table(JOINT, ACROSS), "",
        "## What the layers know of the source language", "",
        "Accuracy of a fresh classifier over en, es, ru, tr (chance 0.25); SVCCA: mean similarity of language pairs.",
        "",
        probe_table(), "", *shown[2:], ""]), encoding="utf-8")
    print(f"{path} is written: {sum('supported' in line and 'not supported' not in line for line in claim_lines)} of "
          f"{len(claim_lines)} claims supported")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--best-rate", nargs="+", metavar="RUN", help="print the best learning rate of these runs")
    parser.add_argument("--out", default="RESULTS.md", type=Path)
    args = parser.parse_args()
    try:
        if args.best_rate:
            print(f"{best_rate(args.best_rate)[1]:g}")
        else:
            write(args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
