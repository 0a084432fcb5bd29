"""The scores that reproduce.sh leaves in results/, as arrays with intervals; the tables' rows.

A score file is what `eval.py --json` writes, one for each row and seed: results/NAME-sSEED.json.
What the layers know is in files of their own, written by `tools.layers --json`:
results/NAME+probe-sSEED.json and results/NAME+retrieval-sSEED.json.

A figure is a mean over seeds and test examples with a 95% interval from a two-level bootstrap
(seeds, then examples within them); a difference is taken example by example.
"""
import csv
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from plumbing.files import UserError

RESULTS = Path("results")
RUNS = Path("runs/paper")

WITHIN = ["en_XX-en_XX", "es_XX-es_XX", "ru_RU-ru_RU", "tr_TR-tr_TR", "gu_IN-gu_IN"]
ZERO_SHOT = WITHIN[1:]
ACROSS = [
    "es_XX-en_XX",
    "ru_RU-en_XX",
    "tr_TR-en_XX",
    "es_XX-ru_RU",
    "en_XX-tr_TR",
    "tr_TR-tr_TR",
]
SEEN_TARGET = ACROSS[:4]
NO_ALIGNMENT_DATA = ("tr_TR", "gu_IN")  # languages of the base that alignment never reads


@dataclass(frozen=True)
class Interval:
    """A mean and the 95% interval around it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Rates:
    """A grid of learning rates: the validation loss of each (as it was typed), and the best."""

    losses: dict
    best: str


@dataclass(frozen=True)
class Row:
    """A row of a table: its label, the name of its score files, and the published figures
    {pair: "ROUGE-1 / off-target"}."""

    label: str
    name: str
    published: dict = field(default_factory=dict)


# ---------------------------------------------------------------------------------- the rows


def published(pairs, *figures):
    """{pair: figure}, without the pairs that the paper leaves out ("")."""
    return {pair: figure for pair, figure in zip(pairs, figures) if figure}


XLSUM = ["en_XX-en_XX", "es_XX-es_XX", "ru_RU-ru_RU", "gu_IN-gu_IN"]  # the paper's columns
FULL_FIGURES = published(XLSUM, "40.4", "7.9 / 99.8%", "1.2 / 97.7%", "1.6 / 86.6%")
QK_FIGURES = published(XLSUM, "38.1", "30.0 / 0.1%", "30.8 / 0.0%", "19.6 / 0.0%")

OTHER_RECIPES = [  # at qk's rate
    Row("untuned base", "base"),
    Row(
        "supervised: `full` on all five",
        "supervised",
        published(XLSUM, "40.0", "34.2", "35.3", "22.3"),
    ),
    Row(
        "`full+embeddings`",
        "full+embeddings",
        published(XLSUM, "40.3", "7.8 / 99.7%", "8.9 / 22.1%", "3.1 / 71.5%"),
    ),
    Row(
        "`frozen_decoder`",
        "frozen_decoder",
        published(XLSUM, "40.1", "26.2 / 14.8%", "30.1 / 0.0%", "17.2 / 0.0%"),
    ),
    Row(
        "`attn_ln`",
        "attn_ln",
        published(XLSUM, "39.5", "29.7 / 0.5%", "28.8 / 0.0%", "12.4 / 0.2%"),
    ),
    Row("`vqk`", "vqk"),
    Row("`q`", "q"),
    Row(
        "pipeline: to English and back",
        "qk-pipeline",
        published(XLSUM, "", "29.2", "26.7", "15.7"),
    ),
]

FEW_SHOT = [
    Row("`full`, then 10 Spanish examples", "few-full-10", {"es_XX-es_XX": "29.8"}),
    Row("`full`, then 100 Spanish examples", "few-full-100", {"es_XX-es_XX": "30.4"}),
    Row("`full`, then 1000 Spanish examples", "few-full-1000", {"es_XX-es_XX": "31.9"}),
    Row("`qk`, then 10 Spanish examples", "few-qk-10"),
    Row("`qk`, then 100 Spanish examples", "few-qk-100"),
    Row("`qk`, then 1000 Spanish examples", "few-qk-1000"),
]

JOINT = [
    Row("untuned base", "base"),
    Row(
        "supervised: `full` on these pairs",
        "joint-supervised",
        published(ACROSS, "38.4", "36.0", "41.4", "21.1", "23.7", "30.3"),
    ),
    Row(
        "`full`, tagged",
        "joint-full",
        published(
            ACROSS,
            "2.4 / 100%",
            "0.7 / 100%",
            "5.0 / 98%",
            "0.6 / 100%",
            "2.7 / 100%",
            "20.8 / 4%",
        ),
    ),
    Row(
        "`qk`, tagged",
        "joint-qk",
        published(
            ACROSS,
            "2.4 / 100%",
            "0.7 / 100%",
            "2.5 / 100%",
            "0.6 / 100%",
            "2.8 / 100%",
            "22.8 / 0%",
        ),
    ),
    Row("control: `full`, tagless, no adversary", "joint-tagless"),
    Row(
        "adversary `standard`",
        "joint-standard",
        published(
            ACROSS,
            "31.0 / 7.6%",
            "30.6 / 3.2%",
            "29.7 / 1.4%",
            "14.9 / 10.5%",
            "2.8 / 100%",
            "6.0 / 90%",
        ),
    ),
    Row(
        "adversary `balanced`",
        "joint-balanced",
        published(
            ACROSS,
            "33.1 / 1.7%",
            "31.4 / 1.3%",
            "31.3 / 0.9%",
            "17.2 / 0.3%",
            "2.8 / 100%",
            "3.0 / 100%",
        ),
    ),
    Row(
        "`balanced` + residual drop",
        "joint-balanced-drop",
        published(
            ACROSS,
            "33.8 / 0.5%",
            "32.1 / 0.2%",
            "29.9 / 0.3%",
            "17.6 / 0.0%",
            "2.7 / 100%",
            "2.3 / 100%",
        ),
    ),
    Row("control: residual drop, tagless, no adversary", "joint-tagless-drop"),
    Row("`balanced`, then `adv_tuned`", "joint-adv-tuned"),
    Row(
        "two steps: translation, then `qk`",
        "two-step-qk",
        published(
            ACROSS,
            "34.4 / 1.6%",
            "32.8 / 0.4%",
            "38.6 / 0.3%",
            "17.6 / 1.6%",
            "20.4 / 1.3%",
            "23.1 / 0.0%",
        ),
    ),
    Row("control: two steps with `full`", "two-step-full"),
    Row(
        "pipeline: to English and back",
        "joint-pipeline",
        published(ACROSS, "37.9", "34.6", "40.9", "16.7", "20.9", "20.7"),
    ),
]

JOINT_ALIGNED = [
    Row("`full`", "joint-full"),
    Row("`full`, aligned between its updates", "joint-align"),
    Row("LoRA on the task", "lora-task"),
    Row("LoRA on both at once", "lora-joint"),
    Row("LoRA trained apart, merged 0.5 and 0.5", "lora-merged-0.5"),
    Row("LoRA trained apart, merged 1 and 1", "lora-merged-1.0"),
]

PROBED = [  # published: the last encoder layer's accuracy
    Row("untuned base", "base"),
    Row("`full`, tagged", "joint-full", {"": "0.989"}),
    Row("`qk`, tagged", "joint-qk"),
    Row("`full`, tagless", "joint-tagless"),
    Row("`standard`", "joint-standard", {"": "0.958"}),
    Row("`balanced`", "joint-balanced", {"": "0.707"}),
    Row("`balanced` + residual drop", "joint-balanced-drop", {"": "0.543"}),
    Row("two steps, `qk`", "two-step-qk"),
]

RETRIEVED = [
    Row("untuned base", "base"),
    Row("`full`", "joint-full"),
    Row("`full`, aligned", "joint-align"),
    Row("LoRA on the task", "lora-task"),
    Row("LoRA on alignment alone", "lora-align"),
    Row("LoRA on both at once", "lora-joint"),
    Row("the two merged, 0.5 each", "lora-merged-0.5"),
]

CHILDREN = [
    Row("parent fr→en: new source, body", "parent"),
    Row("de→en `scratch`", "child-src-scratch"),
    Row("de→en `src`", "child-src"),
    Row("de→en `src+randxattn`", "child-src+randxattn"),
    Row("de→en `src+xattn`", "child-src+xattn"),
    Row("de→en `src+body`", "child-src+body"),
    Row("fr→de `scratch`", "child-tgt-scratch"),
    Row("fr→de `tgt`", "child-tgt"),
    Row("fr→de `tgt+randxattn`", "child-tgt+randxattn"),
    Row("fr→de `tgt+xattn`", "child-tgt+xattn"),
    Row("fr→de `tgt+body`", "child-tgt+body"),
    Row("mBART variant, de→en `emb`", "mbart-emb"),
    Row("mBART variant, de→en `emb+randxattn`", "mbart-emb+randxattn"),
    Row("mBART variant, de→en `emb+xattn`", "mbart-emb+xattn"),
    Row("mBART variant, de→en `full+embeddings`", "mbart-full+embeddings"),
    Row("fr→es `tgt+xattn`", "child-spanish"),
    Row("de→es, stitched of two children", "stitched"),
]


def english_only():
    """The rows of the XL-Sum table: full and qk at their best rates, then the other recipes."""
    best_full = rates()["full"].best
    best_qk = rates()["qk"].best
    rows = []
    if best_full != best_qk:
        rows.append(Row(f"`full` at {best_full}, its best", f"rate-full-{best_full}"))
    rows.append(Row(f"`full` at {best_qk}, `qk`'s best", f"rate-full-{best_qk}", FULL_FIGURES))
    rows.append(Row(f"`qk` at {best_qk}, its best", f"rate-qk-{best_qk}", QK_FIGURES))
    return rows + OTHER_RECIPES


# ---------------------------------------------------------------------------------- the files


@cache
def results(name):
    """The score files of a row: {seed: what the file holds}."""
    found = {}
    for path in sorted(RESULTS.glob("*.json")):
        stem, _, seed = path.stem.rpartition("-s")
        if stem == name and seed.isdecimal():
            found[seed] = json.loads(path.read_text(encoding="utf-8"))
    return found


def rows_of(name, pair):
    """{seed: the row of a pair of languages} of the score files that have one."""
    found = {}
    for seed, result in results(name).items():
        for row in result.get("rows", ()):
            if f"{row['source']}-{row['target']}" == pair:
                found[seed] = row
    return found


def values(name, pair, metric):
    """(seeds, examples) of a row's metric; None where there is no such score."""
    rows = rows_of(name, pair).values()
    if not rows:
        return None
    return np.array([row["each"][metric] for row in rows], float)


def scores_of(name, metric):
    """The corpus score (BLEU, chrF) of a row's first pair, one number a seed."""
    found = []
    for result in results(name).values():
        if result.get("rows"):
            value, _, _ = result["rows"][0]["scores"][metric]
            found.append(value)
    return found


def dictionary_of(name):
    """Dictionary induction accuracy in percent, one number a seed."""
    found = results(f"{name}+dictionary").values()
    return [100 * result["dictionary"]["accuracy"] for result in found]


def layers_of(name, side):
    """What `tools.layers` measured: for each seed a list, {measure: value} of every layer."""
    found = []
    for result in results(name).values():
        if "layers" not in result:
            raise UserError(
                f"{RESULTS}/{name}-s*.json: not a file of tools.layers; remove it and run "
                "papers/reproduce.sh again"
            )
        found.append(result["layers"][side])
    return found


def probe_of(name, side="encoder", key="accuracy"):
    """(seeds, layers) of probing accuracy (key "rescaled": on rescaled states); None where a row
    was not probed."""
    reports = layers_of(f"{name}+probe", side)
    if not reports:
        return None
    return np.array([[layer["probe"][key] for layer in report] for report in reports])


def svcca_of(name, side="encoder"):
    """(seeds, layers) of the mean SVCCA over pairs of languages; None where nothing was probed."""
    reports = layers_of(f"{name}+probe", side)
    if not reports:
        return None
    found = []
    for report in reports:
        found.append([np.mean(list(layer["svcca"].values())) for layer in report])
    return np.array(found)


def retrieval_of(name, unseen=None, side="encoder"):
    """(seeds, layers) of retrieval accuracy in percent, the mean over pairs of languages; None
    where nothing was retrieved.

    unseen: of the pairs with (True) or without (False) a language that had no alignment data; None:
    of all pairs."""
    reports = layers_of(f"{name}+retrieval", side)
    if not reports:
        return None
    found = []
    for report in reports:
        found.append([mean_retrieval(layer["retrieval"], unseen) for layer in report])
    return np.array(found)


def mean_retrieval(accuracies, unseen):
    """{"en_XX es_XX": accuracy} -> the mean in percent over the pairs that `unseen` asks for."""
    chosen = []
    for pair, accuracy in accuracies.items():
        has_unseen = any(lang in pair for lang in NO_ALIGNMENT_DATA)
        if unseen is None or unseen == has_unseen:
            chosen.append(accuracy)
    return 100 * np.mean(chosen)


# ---------------------------------------------------------------------------------- statistics


def interval(sample, resamples=1000):
    """(seeds, examples) -> mean and 95% interval: seeds are drawn anew, then examples."""
    rng = np.random.default_rng(0)
    seeds, examples = sample.shape
    means = []
    for _ in range(resamples):
        some_seeds = rng.integers(0, seeds, seeds)
        some_examples = rng.integers(0, examples, examples)
        means.append(sample[np.ix_(some_seeds, some_examples)].mean())
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(sample.mean(), low, high)


def difference(a, b, pair, metric):
    """Row a minus row b, the same seed and example on both sides; None if they share no seed."""
    rows_a = rows_of(a, pair)
    rows_b = rows_of(b, pair)
    common = [seed for seed in rows_a if seed in rows_b]
    if not common:
        return None
    of_a = np.array([rows_a[seed]["each"][metric] for seed in common], float)
    of_b = np.array([rows_b[seed]["each"][metric] for seed in common], float)
    return interval(of_a - of_b)


def best_rate(folders):
    """Rates of runs named …-RATE-sSEED: the lowest validation loss of each learning rate, mean over
    the seeds that every rate has, and the best rate. No test example takes part."""
    by_rate = {}
    for folder in map(Path, folders):
        named = re.search(r"-(\d+e-\d+)-s(\d+)$", folder.name)
        if named and (folder / "log.csv").is_file():
            rate, seed = named.groups()
            by_rate.setdefault(rate, {})[seed] = lowest_validation_loss(folder / "log.csv")
    if not by_rate:
        raise UserError("no finished run among " + " ".join(map(str, folders)))

    common = set.intersection(*(set(losses) for losses in by_rate.values()))
    if not common:
        raise UserError("no seed was run at every learning rate: " + " ".join(map(str, folders)))
    means = {}
    for rate, losses in by_rate.items():
        means[rate] = float(np.mean([losses[seed] for seed in sorted(common)]))
    return Rates(means, min(means, key=means.get))


def lowest_validation_loss(log):
    with open(log, encoding="utf-8", newline="") as file:
        return min(float(row["validation loss"]) for row in csv.DictReader(file))


@cache
def rates():
    """{recipe: Rates} of the grid."""
    found = {}
    for recipe in ("full", "qk"):
        folders = [path for path in sorted(RUNS.glob(f"rate-{recipe}-*")) if path.is_dir()]
        found[recipe] = best_rate(folders)
    return found


def arrow(pair):
    """es_XX-en_XX -> es→en"""
    source, target = pair.split("-")
    return f"{source[:2]}→{target[:2]}"
