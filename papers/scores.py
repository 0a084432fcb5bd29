"""The scores that reproduce.sh leaves in results/, as arrays with intervals; the rows of the papers' tables.

A score file is what `eval.py --json` writes, one for each row and seed: results/NAME-sSEED.json. A figure is a mean
over seeds and test examples with a 95% interval from a two-level bootstrap (seeds, then examples within them); a
difference is taken example by example.
"""
import json
import re
from collections import namedtuple
from functools import cache
from pathlib import Path

import numpy as np

from plumbing.files import UserError

RESULTS, RUNS = Path("results"), Path("runs/paper")
Interval = namedtuple("Interval", "mean low high")
Row = namedtuple("Row", "label name published")  # published: {pair: "ROUGE-1 / off-target"}

WITHIN = [f"{lang}-{lang}" for lang in ("en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN")]
ZERO_SHOT = WITHIN[1:]
ACROSS = ["es_XX-en_XX", "ru_RU-en_XX", "tr_TR-en_XX", "es_XX-ru_RU", "en_XX-tr_TR", "tr_TR-tr_TR"]
SEEN_TARGET = ACROSS[:4]


def published(pairs, *figures):
    return {pair: figure for pair, figure in zip(pairs, figures) if figure}


XLSUM = [f"{lang}-{lang}" for lang in ("en_XX", "es_XX", "ru_RU", "gu_IN")]  # the paper's columns
FULL_FIGURES = published(XLSUM, "40.4", "7.9 / 99.8%", "1.2 / 97.7%", "1.6 / 86.6%")
QK_FIGURES = published(XLSUM, "38.1", "30.0 / 0.1%", "30.8 / 0.0%", "19.6 / 0.0%")
OTHER_RECIPES = [  # at qk's rate
    Row("untuned base", "base", {}),
    Row("supervised: `full` on all five", "supervised", published(XLSUM, "40.0", "34.2", "35.3", "22.3")),
    Row("`full+embeddings`", "full+embeddings", published(XLSUM, "40.3", "7.8 / 99.7%", "8.9 / 22.1%", "3.1 / 71.5%")),
    Row("`frozen_decoder`", "frozen_decoder", published(XLSUM, "40.1", "26.2 / 14.8%", "30.1 / 0.0%", "17.2 / 0.0%")),
    Row("`attn_ln`", "attn_ln", published(XLSUM, "39.5", "29.7 / 0.5%", "28.8 / 0.0%", "12.4 / 0.2%")),
    Row("`vqk`", "vqk", {}),
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
    Row("control: residual drop, tagless, no adversary", "joint-tagless-drop", {}),
    Row("`balanced`, then `adv_tuned`", "joint-adv-tuned", {}),
    Row("two steps: translation, then `qk`", "two-step-qk",
        published(ACROSS, "34.4 / 1.6%", "32.8 / 0.4%", "38.6 / 0.3%", "17.6 / 1.6%", "20.4 / 1.3%", "23.1 / 0.0%")),
    Row("control: two steps with `full`", "two-step-full", {}),
    Row("pipeline: to English and back", "joint-pipeline",
        published(ACROSS, "37.9", "34.6", "40.9", "16.7", "20.9", "20.7")),
]
JOINT_ALIGNED = [Row("`full`", "joint-full", {}), Row("`full`, aligned between its updates", "joint-align", {}),
                 Row("LoRA on the task", "lora-task", {}), Row("LoRA on both at once", "lora-joint", {}),
                 Row("LoRA trained apart, merged 0.5 and 0.5", "lora-merged-0.5", {}),
                 Row("LoRA trained apart, merged 1 and 1", "lora-merged-1.0", {})]
PROBED = [Row("untuned base", "base", {}), Row("`full`, tagged", "joint-full", {"": "0.989"}),
          Row("`qk`, tagged", "joint-qk", {}), Row("`full`, tagless", "joint-tagless", {}),
          Row("`standard`", "joint-standard", {"": "0.958"}), Row("`balanced`", "joint-balanced", {"": "0.707"}),
          Row("`balanced` + residual drop", "joint-balanced-drop", {"": "0.543"}),
          Row("two steps, `qk`", "two-step-qk", {})]


def files_of(name):
    return [path for path in sorted(RESULTS.glob("*.json")) if re.fullmatch(re.escape(name) + r"-s\d+", path.stem)]


@cache
def results(name):
    """The score files of a row, one a seed."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in files_of(name)]


@cache
def seeds_of(name):
    return [path.stem.rpartition("-s")[2] for path in files_of(name)]


def rows_of(name, pair):
    """The row of a pair of languages in each seed's score file."""
    return [row for result in results(name) for row in result.get("rows", ())
            if f"{row['source']}-{row['target']}" == pair]


def values(name, pair, metric):
    """(seeds, examples) of a row's metric; None where there is no such score."""
    rows = [row["each"][metric] for row in rows_of(name, pair)]
    return np.array(rows, float) if rows else None


def interval(sample, resamples=1000):
    """(seeds, examples) -> mean and 95% interval: seeds are drawn with replacement, then examples."""
    rng = np.random.default_rng(0)
    seeds, n = sample.shape
    means = [sample[np.ix_(rng.integers(0, seeds, seeds), rng.integers(0, n, n))].mean() for _ in range(resamples)]
    return Interval(sample.mean(), *np.percentile(means, (2.5, 97.5)))


def difference(a, b, pair, metric):
    """Row a minus row b, the same seed and example on both sides; None if they have no seed in common."""
    x, y = values(a, pair, metric), values(b, pair, metric)
    common = [(i, seeds_of(b).index(seed)) for i, seed in enumerate(seeds_of(a)) if seed in seeds_of(b)]
    if x is None or y is None or not common:
        return None
    return interval(np.array([x[i] - y[j] for i, j in common]))


def best_rate(folders):
    """{learning rate as written: lowest validation loss, mean over the seeds that every rate has} of runs …-RATE-sSEED,
    and the best rate. No test example takes part."""
    found = {}
    for folder in map(Path, folders):
        if not (folder / "log.csv").is_file():
            continue
        rows = (folder / "log.csv").read_text(encoding="utf-8").splitlines()[1:]
        rate, seed = re.search(r"-(\d+e-\d+)-s(\d+)$", folder.name).groups()
        found.setdefault(rate, {})[seed] = min(float(row.split(",")[2]) for row in rows)
    if not found:
        raise UserError("no finished run among " + " ".join(map(str, folders)))
    common = set.intersection(*(set(losses) for losses in found.values()))
    found = {rate: float(np.mean([losses[seed] for seed in common])) for rate, losses in found.items()}
    return found, min(found, key=found.get)


@cache
def rates():
    """{recipe: (losses by rate, best rate)} of the grid."""
    return {recipe: best_rate([p for p in sorted(RUNS.glob(f"rate-{recipe}-*")) if p.is_dir()])
            for recipe in ("full", "qk")}


def english_only():
    """The rows of the XL-Sum table: full and qk by rate, then the other recipes."""
    best = {recipe: rate for recipe, (_, rate) in rates().items()}
    first = [Row(f"`{recipe}` at {rate}{note}", f"rate-{recipe}-{rate}", figures)
             for recipe, rate, note, figures in (
                 ("full", best["full"], ", its best", FULL_FIGURES if best["full"] == best["qk"] else {}),
                 ("full", best["qk"], ", `qk`'s best", FULL_FIGURES), ("qk", best["qk"], ", its best", QK_FIGURES))]
    return list(dict((row.name, row) for row in first).values()) + OTHER_RECIPES


def probe_of(name, side="encoder", key="accuracy"):
    """(seeds, layers) of probing accuracy (key "rescaled": on rescaled states) and of mean SVCCA; None where a row was
    not probed."""
    reports = [result["probe"][side] for result in results(f"{name}+probe")]
    if not reports:
        return None, None
    return (np.array([[layer[key] for layer in report] for report in reports]),
            np.array([[np.mean(list(layer["svcca"].values())) for layer in report] for report in reports]))


def arrow(pair):
    source, target = (code[:2] for code in pair.split("-"))
    return f"{source}→{target}"


def scores_of(name, metric):
    """The corpus score (BLEU, chrF) of a row's first pair, one number a seed."""
    return [result["rows"][0]["scores"][metric][0] for result in results(name) if result.get("rows")]


def dictionary_of(name):
    """Dictionary induction accuracy in percent, one number a seed."""
    return [100 * result["dictionary"]["accuracy"] for result in results(f"{name}+dictionary")]


def retrieval_of(name, unseen=None, side="encoder"):
    """Retrieval accuracy in percent, mean over pairs of languages: a list of layers for each seed. unseen: of the pairs
    with (True) or without (False) a language that had no alignment data; None: of all."""
    return [[100 * np.mean([value for pair, value in layer.items()
                            if unseen is None or ("tr_TR" in pair or "gu_IN" in pair) == unseen]) for layer in layers]
            for layers in (result["retrieval"][side] for result in results(f"{name}+retrieval"))]
