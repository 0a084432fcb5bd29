"""The scores that reproduce.sh leaves, as arrays with intervals; the tables' rows.

A score file is what `eval.py --json` writes and papers.keep keeps, one for each row and seed:
papers/scores/NAME-sSEED.json. What the layers know is in files of their own, written by
`tools.layers --json`: NAME+probe-sSEED.json and NAME+retrieval-sSEED.json. Each says from which
base its model was finetuned ("origin", plumbing/runs.py): of models of another base than base/ and
base-help/ nothing is read.

A figure is a mean over seeds and test examples with a 95% interval from a two-level bootstrap
(seeds, then examples within them); a difference is taken example by example.
"""
import math
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import numpy as np

import qk_finetune
from model import Config
from plumbing.files import UserError, read_json, size_and_checksum
from plumbing.runs import origin_of

SCORES = Path("papers/scores")
BASE = Path(__file__).resolve().parent.parent / "base"
BASE_HELP = BASE.with_name("base-help")

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
HELP_WITHIN = WITHIN[:4]  # base-help/ has no Gujarati
NO_ALIGNMENT_DATA = ("tr_TR", "gu_IN")  # languages of the base that alignment never reads


@dataclass(frozen=True)
class Interval:
    """A mean and the 95% interval around it; seeds: how many runs it rests on."""

    mean: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Rates:
    """A grid of learning rates: the validation loss of each (as it was typed), and the best."""

    losses: dict
    best: str


@dataclass(frozen=True)
class Corpus:
    """What a half of the tables is about.

    title: its name in the tables; prefix: of its score files' names; within: its pairs of one
    language, the seen one first; content: the measure of what an output tells; summary: what its
    summaries are called."""

    title: str
    prefix: str
    within: list
    content: str
    summary: str

    @property
    def zero_shot(self):
        return self.within[1:]

    def row(self, name):
        """The name of a row's score files. What was tried at several learning rates ("full", "qk",
        "lora"), or for 8,000 updates ("long-full"), is meant at its best rate; "full at qk's rate"
        is `full` at the best rate of `qk`; any other name gets the prefix alone."""
        grids = rates(self.prefix)
        longer = rates(self.prefix, "long")
        recipe = name.removeprefix("long-")
        if recipe != name and recipe in longer:
            return f"{self.prefix}{name}-{longer[recipe].best}"
        if name == "full at qk's rate" and "qk" in grids:
            return f"{self.prefix}rate-full-{grids['qk'].best}"
        if name in grids:
            return f"{self.prefix}rate-{name}-{grids[name].best}"
        return self.prefix + name


BUILT_IN = Corpus("built-in corpus", "", WITHIN, "facts", "headline")
HELP = Corpus("real text", "help-", HELP_WITHIN, "R1", "heading")


@dataclass(frozen=True)
class Row:
    """A row of a table: its label, the name of its score files, the published figures {pair:
    "ROUGE-1 / off-target"}, and what train.py's --recipe and --recipe-layers were ("" where no
    table asks how much trains)."""

    label: str
    name: str
    published: dict = field(default_factory=dict)
    recipe: str = ""
    layers: str | None = None


# ---------------------------------------------------------------------------------- the rows


def published(pairs, *figures):
    """{pair: figure}, without the pairs that the paper leaves out ("", or at the end)."""
    return {pair: figure for pair, figure in zip(pairs, figures) if figure}


XLSUM = ["en_XX-en_XX", "es_XX-es_XX", "ru_RU-ru_RU", "gu_IN-gu_IN"]  # the paper's columns
FULL_FIGURES = published(XLSUM, "40.4", "7.9 / 99.8%", "1.2 / 97.7%", "1.6 / 86.6%")
QK_FIGURES = published(XLSUM, "38.1", "30.0 / 0.1%", "30.8 / 0.0%", "19.6 / 0.0%")

ENCODER_ATTENTION = r"encoder\.layers\.\d+\.self_attn\."  # as reproduce.sh types them
CROSS_ATTENTION = r"encoder_attn\."

OTHER_RECIPES = [  # on the built-in corpus at qk's rate, on real text each at its best
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
        "full+embeddings",
    ),
    Row(
        "`frozen_decoder`",
        "frozen_decoder",
        published(XLSUM, "40.1", "26.2 / 14.8%", "30.1 / 0.0%", "17.2 / 0.0%"),
        "frozen_decoder",
    ),
    Row(
        "`attn_ln`",
        "attn_ln",
        published(XLSUM, "39.5", "29.7 / 0.5%", "28.8 / 0.0%", "12.4 / 0.2%"),
        "attn_ln",
    ),
    Row(
        "`vqk`",
        "vqk",
        published(XLSUM, "39.3", "30.3", "30.6", "18.8"),
        "vqk",
    ),
    Row(
        "`q`",
        "q",
        published(XLSUM, "37.1", "29.9", "30.3", "19.0"),
        "q",
    ),
    Row(
        "pipeline: to English and back",
        "qk-pipeline",
        published(XLSUM, "", "29.2", "26.7", "15.7"),
    ),
]

# On real text: whether the lower of the two rates that 1,000 updates hardly tell apart would spare
# the other languages.
EMBEDDINGS_LOWER = Row("`full+embeddings` at 1e-3", "help-embeddings-1e-3")
BUILT_IN_ALONE = ("supervised", "qk-pipeline")  # rows that no part runs on real text

FINER = [  # parts of qk's and of the two attentions that read the source, at qk's rate
    Row("`qk` in the encoder alone", "enc_qk", {}, ENCODER_ATTENTION + r"[qk]_proj\."),
    Row("`qk` in the cross-attention alone", "dec_qk", {}, CROSS_ATTENTION + r"[qk]_proj\."),
    Row("`qk` in layer 1 of each alone", "qk-layer-1", {}, "qk", "1"),
    Row("`qk` in layer 2 of each alone", "qk-layer-2", {}, "qk", "2"),
    Row("`qk` in layer 3 of each alone", "qk-layer-3", {}, "qk", "3"),
    Row("`qk` in layer 4 of the encoder alone", "qk-layer-4", {}, "qk", "4"),
    Row("`qk` in layer 5 of the encoder alone", "qk-layer-5", {}, "qk", "5"),
    Row("`qk` in layer 6 of the encoder alone", "qk-layer-6", {}, "qk", "6"),
    Row("encoder self-attention, whole", "encoder-attention", {}, ENCODER_ATTENTION),
    Row("cross-attention, whole", "cross-attention", {}, CROSS_ATTENTION),
]

FEW_SHOT = [
    Row("`full`, then 10 Spanish examples", "few-full-10", {"es_XX-es_XX": "29.8"}),
    Row("`full`, then 100 Spanish examples", "few-full-100", {"es_XX-es_XX": "30.4"}),
    Row("`full`, then 1000 Spanish examples", "few-full-1000", {"es_XX-es_XX": "31.9"}),
    Row("`full`, then 10000 Spanish examples", "few-full-10000", {"es_XX-es_XX": "33.4"}),
    Row("`qk`, then 10 Spanish examples", "few-qk-10", {"es_XX-es_XX": "28.4"}),
    Row("`qk`, then 100 Spanish examples", "few-qk-100", {"es_XX-es_XX": "31.0"}),
    Row("`qk`, then 1000 Spanish examples", "few-qk-1000", {"es_XX-es_XX": "31.7"}),
    Row("`qk`, then 10000 Spanish examples", "few-qk-10000", {"es_XX-es_XX": "32.8"}),
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
    Row("control: `full`, tagged, at its best rate on English", "joint-full-best"),
    Row("control: `full`, tagless, no adversary", "joint-tagless"),
    Row(
        "adversary `standard`",
        "joint-standard",
        published(
            ACROSS,
            "31.0 / 7.6%, again 33.4 / 1.5%",
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
            "33.1 / 1.7%, again 33.7 / 0.6%",
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
    Row(
        "residual drop alone, tagged",
        "joint-drop",
        published(ACROSS, "2.3 / 100%", "", "20.5 / 33%"),
    ),
    Row("control: residual drop, tagless, no adversary", "joint-tagless-drop"),
    Row(
        "`standard`, then `adv_tuned`",
        "joint-standard-tuned",
        published(ACROSS, "21.5 / 38.6%"),
    ),
    Row(
        "`balanced`, then `adv_tuned`",
        "joint-adv-tuned",
        published(ACROSS, "33.6 / 1.3%", "31.9 / 0.3%", "31.2 / 0.7%", "16.2 / 4.6%"),
    ),
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
    Row(
        "two steps: translation, then the cross-attention's q and k",
        "two-step-dec-qk",
        published(ACROSS, "34.6 / 0.4%", "", "", "", "18.2 / 0.1%"),
    ),
    Row("control: two steps with `full`", "two-step-full"),
    Row("control: the same at `full`'s best rate on English", "two-step-full-best"),
    Row(
        "pipeline: to English and back",
        "joint-pipeline",
        published(ACROSS, "37.9", "34.6", "40.9", "16.7", "20.9", "20.7"),
    ),
]

QK_AND_ADVERSARY = [  # all without the source tag
    Row("`full`", "joint-tagless"),
    Row("`full`, adversary `balanced`", "joint-balanced"),
    Row("`qk`", "joint-qk-tagless"),
    Row("`qk`, adversary `balanced`", "joint-qk-balanced", published(ACROSS, "2.3 / 99.9%")),
]

UNSEEN_TARGET = [
    Row("adversary `balanced`", "joint-balanced-again"),
    Row("`frozen_decoder`", "joint-balanced-frozen-decoder"),
    Row("from the translation model", "joint-balanced-from-translation"),
    Row("with alignment", "joint-balanced-aligned"),
    Row("with translations of en, es, ru", "joint-balanced-mix"),
    Row("with translations of en, es, ru, tr", "joint-balanced-mix-tr"),
]

JOINT_ALIGNED = [
    Row("`full`", "joint-full"),
    Row("`full`, aligned beside the task", "joint-align"),
    Row("LoRA on the task", "lora-task"),
    Row("LoRA on both at once", "lora-joint"),
    Row("LoRA trained apart, merged 0.5 and 0.5", "lora-merged-0.5"),
    Row("LoRA trained apart, merged 1 and 1", "lora-merged-1.0"),
]

MIDDLE = 3  # of 6 encoder layers: the one that reproduce.sh aligns
EN_ES = "en_XX es_XX"  # as tools.layers names pairs of languages
EN_RU = "en_XX ru_RU"
ES_RU = "es_XX ru_RU"


@dataclass(frozen=True)
class Aligned:
    """A run with alignment: the encoder layer that is aligned and the pairs of languages, as
    tools.layers names them. The run without: the layer and pairs that it is compared in."""

    label: str
    name: str
    layer: int
    pairs: tuple


UNALIGNED = Aligned("`full`, not aligned", "joint-full", MIDDLE, (EN_ES, EN_RU))
ALIGNED_LAYERS = [
    Aligned("layer 1, en-es and en-ru", "joint-align-1", 1, (EN_ES, EN_RU)),
    Aligned("layer 3, en-es and en-ru", "joint-align", MIDDLE, (EN_ES, EN_RU)),
    Aligned("layer 6, en-es and en-ru", "joint-align-6", 6, (EN_ES, EN_RU)),
]
ALIGNED_LANGUAGES = [
    Aligned("layer 3, en-es alone", "joint-align-es", MIDDLE, (EN_ES,)),
    Aligned("layer 3, en-ru alone", "joint-align-ru", MIDDLE, (EN_RU,)),
    Aligned("layer 3, es-ru alone", "joint-align-es-ru", MIDDLE, (ES_RU,)),
]

PROBED = [  # published: the mean probability of the true language in the last encoder layer
    Row("untuned base", "base"),
    Row("`full`, tagged", "joint-full", {"": "0.989"}),
    Row("`qk`, tagged", "joint-qk"),
    Row("`full`, tagless", "joint-tagless"),
    Row("`standard`", "joint-standard", {"": "0.958"}),
    Row("`balanced`", "joint-balanced", {"": "0.707"}),
    Row("`balanced` + residual drop", "joint-balanced-drop", {"": "0.543"}),
    Row("two steps, `qk`", "two-step-qk"),
]

TAUGHT = "en_XX-es_XX"
TRANSLATED = [  # pairs in which a model that is taught TAUGHT is asked
    TAUGHT,
    "es_XX-en_XX",
    "ru_RU-en_XX",
    "en_XX-ru_RU",
    "en_XX-tr_TR",
    "ru_RU-es_XX",
]
TRANSLATORS = [
    Row("base, then `full`", "translation-full"),
    Row("base, then `qk`", "translation-qk"),
    Row("translation model", "translator"),
    Row("translation model, then `full`", "translator-full"),
    Row("translation model, then `full` at 5e-4", "translator-full-slow"),
    Row("translation model, then `qk`", "translator-qk"),
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

HELP_RETRIEVED = [
    Row("untuned base", "base"),
    Row("`full`", "joint-full"),
    Row("`qk`", "joint-qk"),
    Row("two steps, `qk`", "two-step-qk"),
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

BOTH_SIDES = [
    Row("de→es, stitched of two children", "stitched"),
    Row("de→es `both`", "child-both"),
    Row("de→es `both+xattn`", "child-both+xattn"),
    Row("de→es `both+body`", "child-both+body"),
]

SENTENCES = (100, 300, 1000, 3000, 10000)  # of the low-resource curve
LOW_RESOURCE = ("src", "src+xattn", "src+body")  # its recipes


def low_resource(recipe, sentences):
    """The name of the score files of a child that saw so many sentences."""
    return f"low-{recipe}@{sentences}"


def english_only(corpus=BUILT_IN):
    """The rows of the XL-Sum table: full and qk at their best rates, then the other recipes.

    [] until both were tried."""
    if not {"full", "qk"} <= set(rates(corpus.prefix)):
        return []
    best_full = rates(corpus.prefix)["full"].best
    best_qk = rates(corpus.prefix)["qk"].best
    full_at_qk = corpus.row("full at qk's rate")
    rows = []
    whose = "the best of both"
    if best_full != best_qk:
        whose = "`qk`'s best"
        # Without a recipe: one_rate() has what was trained at qk's rate.
        rows.append(Row(f"`full` at {best_full}, its best", corpus.row("full")))
    rows.append(Row(f"`full` at {best_qk}, {whose}", full_at_qk, FULL_FIGURES, "full"))
    rows.append(Row(f"`qk` at {best_qk}, its best", corpus.row("qk"), QK_FIGURES, "qk"))
    for row in OTHER_RECIPES:
        if corpus is BUILT_IN or row.name not in BUILT_IN_ALONE:
            rows.append(of_corpus(row, corpus))
    if corpus is BUILT_IN:
        rows += own_best_rows()
    else:
        rows.append(EMBEDDINGS_LOWER)
    return rows + longer_rows(corpus)


def own_best_rows():
    """The other recipes on the built-in corpus at their own best rates, where these are not qk's,
    at which all stand already."""
    rows = []
    for recipe, grid in rates(kind="own").items():
        name = own_best(recipe)
        if name:
            rows.append(Row(f"`{recipe}` at {grid.best}, its best", name))
    return rows


def own_best(recipe):
    """The name of the score files of another recipe on the built-in corpus at its own best rate;
    "" where that is qk's, or one of the two was not looked for."""
    tried = rates(kind="own")
    if recipe not in tried or "qk" not in rates():
        return ""
    best = tried[recipe].best
    if best == rates()["qk"].best:
        return ""
    return f"own-{recipe}-{best}"


def longer_rows(corpus):
    """What took 8,000 updates, at every rate that was tried; [] on the built-in corpus."""
    rows = []
    for recipe, grid in rates(corpus.prefix, "long").items():
        for rate in sorted(grid.losses, key=float):
            label = f"`{recipe}` at {rate}, 8,000 updates"
            if rate == grid.best and len(grid.losses) > 1:
                label += ", its best of these"
            rows.append(Row(label, f"{corpus.prefix}long-{recipe}-{rate}"))
    return rows


def of_corpus(row, corpus):
    """The row with the score files of a corpus; its label says the rate, where several were
    tried."""
    grids = rates(corpus.prefix, "try") | rates(corpus.prefix)
    label = row.label
    name = corpus.row(row.name)
    if row.name in grids:
        best = grids[row.name].best
        label += f" at {best}"
        check_rate(name, best)
    return replace(row, name=name, label=label)


def check_rate(name, best):
    """UserError for a score file of a row at another learning rate than the best: its run was made
    before the best was tried."""
    for seed, content in results(name).items():
        rate = content.get("learning rate")  # files that were kept before 2026-11-28 have none
        if rate is not None and rate != float(best):
            path = SCORES / f"{name}-s{seed}.json"
            raise UserError(
                f"{path}: its run had a learning rate of {rate:g}, and {best} is the best now; "
                "remove this file and the one of its name in results/, and run papers/reproduce.sh "
                "again"
            )


def same_size():
    """qk and LoRA of its size, each at its best rate; [] until LoRA's rates were tried."""
    if not {"lora", "qk"} <= set(rates()):
        return []
    best_qk = rates()["qk"].best
    best_lora = rates()["lora"].best
    return [
        Row(f"`qk` at {best_qk}", f"rate-qk-{best_qk}", {}, "qk"),
        Row(f"LoRA of rank 12 at {best_lora}", f"rate-lora-{best_lora}"),
    ]


def one_rate():
    """All recipes that were trained on English at qk's rate; [] until it was chosen."""
    if "qk" not in rates():
        return []
    return [row for row in english_only() if row.recipe] + FINER


def trained_percent(row):
    """How much of base/'s parameters the recipe of a row trains, in percent."""
    config = Config.read(BASE / "config.json")
    return 100 * qk_finetune.trained_share(config, row.recipe, row.layers)


# ---------------------------------------------------------------------------------- the files


@cache
def results(name):
    """The score files of a row: {seed: what the file holds}."""
    found = {}
    for path in sorted(SCORES.glob("*.json")):
        row_name, seed = row_and_seed(path)
        if row_name != name or seed is None:
            continue
        content = read_json(path)
        if is_left_out(path, content):
            continue
        if not all("off-target-p" in row["each"] for row in content.get("rows", ())):
            raise UserError(
                f"{path}: not what eval.py writes today; remove it and run papers/reproduce.sh "
                "again"
            )
        found[seed] = content
    return found


def row_and_seed(path):
    """ROW-sSEED.json -> "ROW", "SEED"; a file without a seed: its name, None."""
    row, _, seed = path.stem.rpartition("-s")
    if seed.isdecimal():
        return row, seed
    return path.stem, None


@cache
def own_origins():
    return [origin_of(base) for base in (BASE, BASE_HELP)]


def is_of_another_base(content):
    """Is a score file of another base than base/ and base-help/? One that does not say, as of an
    earlier version, is taken as theirs."""
    origin = content.get("origin")
    return origin is not None and origin not in own_origins()


def is_left_out(path, content):
    """Does a score file count for nothing here: of another base, or of other data?

    Other data are asked of kept files alone: to choose a rate from results/ not all are read."""
    if is_of_another_base(content):
        return True
    return path.parent == SCORES and path in of_other_data()


@cache
def of_other_data():
    """The score files that are left out because their runs read another version of the data than is
    here now: set of paths. Empty where all read one version, or none of them this one: then it is
    an error if they disagree (check_test_sets)."""
    versions = {}  # {training file: {(bytes, CRC-32): score files}}
    for path in sorted(SCORES.glob("*.json")):
        for name, version in fingerprint_of(path).items():
            versions.setdefault(name, {}).setdefault(tuple(version), []).append(path)
    others = set()
    for name, of_name in versions.items():
        if len(of_name) == 1 or not Path(name).is_file():
            continue
        now = tuple(size_and_checksum(name))
        if now not in of_name:
            continue
        for version, paths in of_name.items():
            if version != now:
                others.update(paths)
    return others


def fingerprint_of(path):
    """{training file: [bytes, CRC-32]} of a score file's run. What was measured of a run's model
    later, ROW+probe-sSEED.json, is of the run ROW; {} where that says nothing."""
    content = read_json(path) or {}
    if "data fingerprint" in content:
        return content["data fingerprint"]
    row, seed = row_and_seed(path)
    run, plus, _ = row.rpartition("+")
    if not plus:
        return {}
    of_run = path.with_name(f"{run}-s{seed}.json")
    return (read_json(of_run) or {}).get("data fingerprint", {})


def doubtful_files():
    """Lines on the score files that are left out or do not say of which base they are."""
    others = []
    unmarked = []
    for path in sorted(SCORES.glob("*.json")):
        content = read_json(path)
        if is_of_another_base(content):
            others.append(path.name)
        elif content.get("origin") is None:
            unmarked.append(path.name)
    lines = []
    if others:
        lines.append(
            f"{in_short(others)} in {SCORES}/ left out, of another base than today's: remove "
            "them, and papers/reproduce.sh makes them anew"
        )
    if of_other_data():
        names = [path.name for path in sorted(of_other_data())]
        lines.append(
            f"{in_short(names)} in {SCORES}/ left out, of runs on another version of the data than "
            "is here now"
        )
    if unmarked:
        lines.append(
            f"{in_short(unmarked)} in {SCORES}/ taken as of today's bases: they do not say"
        )
    return lines


def check_test_sets(paths):
    """An error if two score files disagree on the test set of a pair: of how many examples it is,
    and what their first sentences score; or on a file that their runs were trained on. So they do
    when the data was prepared anew between them, and neither table nor learning rate can be had of
    both. Where one of the two versions is here, the other's files are left out before."""
    first = {}
    trained_on = {}
    for path in sorted(map(Path, paths)):
        _, seed = row_and_seed(path)
        content = read_json(path) or {}
        if seed is None or is_left_out(path, content):  # without a seed: in no table of scores
            continue
        check_training_data(path, content, trained_on)
        for row in content.get("rows", ()):
            pair = arrow(f"{row['source']}-{row['target']}")
            lead, _, _ = row["floors"].get("lead", {}).get("R1", (0, 0, 0))
            test_set = (content.get("data"), content["stage"], pair)
            other, count, other_lead = first.setdefault(test_set, (path, row["n"], lead))
            if row["n"] != count or abs(lead - other_lead) > 0.02:  # kept files have two decimals
                raise UserError(
                    f"{path} has {row['n']} test examples {pair}, whose first sentences have "
                    f"ROUGE-1 {lead:.2f}; {other} has {count}, {other_lead:.2f}: they were scored "
                    "on two versions of the data. Remove the files of the older one and run "
                    "papers/reproduce.sh again"
                )


def check_training_data(path, content, known):
    """An error if a score file's run read another version of a training file than one before it.
    Runs that read different files may stand beside each other: their settings differ. known: {file:
    (the first score file, what that file was)}, which this adds to."""
    for name, now in content.get("data fingerprint", {}).items():
        other, before = known.setdefault(name, (path, now))
        if now != before:
            raise UserError(
                f"{path} is of a run on {name} of {now[0]:,} bytes, {other} on one of "
                f"{before[0]:,} bytes or other content: they were trained on two versions of the "
                "data. Remove the files of the older one and run papers/reproduce.sh again"
            )


def in_short(names):
    """The first of some names and how many more there are."""
    if len(names) == 1:
        return names[0]
    return f"{names[0]} and {len(names) - 1} more"


def rows_of(name, pair):
    """{seed: the row of a pair of languages} of the score files that have one."""
    found = {}
    for seed, result in results(name).items():
        for row in result.get("rows", ()):
            if f"{row['source']}-{row['target']}" == pair:
                found[seed] = row
    return found


def floors_of(corpus, pair):
    """The scores of a pair that need no model: {"lead": {metric: ...}, "random": ..., "references":
    ...}, of the sources' first sentences, of other texts' summaries and of the references
    themselves. Every score file has them, so the first row that was run tells; {} before that."""
    names = [row.name for row in english_only(corpus)]
    names += [corpus.row(row.name) for row in JOINT]
    for name in names:
        row = next(iter(rows_of(name, pair).values()), None)
        if row:
            return row["floors"] | {"references": row["references"]}
    return {}


def values(name, pair, metric):
    """(seeds, examples) of a row's metric; None where there is no such score."""
    rows = rows_of(name, pair).values()
    found = [row["each"].get(metric) for row in rows]
    if not found or None in found:
        return None
    return np.array(found, float)


def mean_of(name, pairs, metric):
    """The mean of a row's metric over language pairs, seeds and examples; None where a pair was not
    measured."""
    found = [values(name, pair, metric) for pair in pairs]
    if any(scores is None for scores in found):
        return None
    return float(np.mean([scores.mean() for scores in found]))


def off_target_at(corpus, recipe, rate, kind="rate"):
    """The mean share of off-target outputs in the unseen languages at a learning rate, in percent;
    None where one of them was not scored. kind: as rates() has it."""
    return mean_of(f"{corpus.prefix}{kind}-{recipe}-{rate}", corpus.zero_shot, "off-target")


def watched(name):
    """The lines of watch.csv that a row's first seed kept; [] where there are none."""
    for result in results(name).values():
        if "watched" in result:
            return result["watched"]
    return []


def mean_of_watched(lines, step, pairs, column):
    """The mean over language pairs of a column at one moment."""
    found = []
    for line in lines:
        if int(line["step"]) == step and f"{line['source']}-{line['target']}" in pairs:
            found.append(float(line[column]))
    return np.mean(found)


def scores_of(name, metric, pair=None):
    """{seed: the corpus score (BLEU, chrF) of a row's pair (default: its first)}."""
    found = {}
    for seed, result in results(name).items():
        for row in result.get("rows", ()):
            if pair in (None, f"{row['source']}-{row['target']}"):
                value, _, _ = row["scores"][metric]
                found[seed] = value
                break
    return found


def dictionary_of(name):
    """{seed: dictionary induction accuracy in percent}."""
    found = {}
    for seed, result in results(f"{name}+dictionary").items():
        found[seed] = 100 * result["dictionary"]["accuracy"]
    return found


def layers_of(name, side):
    """What `tools.layers` measured: for each seed a list, {measure: value} of every layer."""
    found = []
    for seed, result in results(name).items():
        layers = result.get("layers", {}).get(side)
        if not layers or not up_to_date(layers[0]):
            raise UserError(
                f"{SCORES}/{name}-s{seed}.json: not what tools.layers writes today; remove it and "
                "run papers/reproduce.sh again"
            )
        found.append(layers)
    return found


def up_to_date(layer):
    """Has a layer of a probe's file all that the tables show? Earlier files lack some."""
    if "probe" in layer and "probability" not in layer["probe"]:
        return False
    return "svcca" not in layer or "svcca floor" in layer


def probe_of(name, side="encoder", key="probability"):
    """(seeds, layers) of the probe's mean probability of the true language (key "accuracy": its
    accuracy; "rescaled": the same on rescaled states); None where a row was not probed."""
    reports = layers_of(f"{name}+probe", side)
    if not reports:
        return None
    return np.array([[layer["probe"][key] for layer in report] for report in reports])


def svcca_of(name, side="encoder", key="svcca"):
    """(seeds, layers) of the mean SVCCA over pairs of languages (key "svcca floor": of shuffled
    documents); None where nothing was probed."""
    reports = layers_of(f"{name}+probe", side)
    if not reports:
        return None
    found = []
    for report in reports:
        found.append([np.mean(list(layer[key].values())) for layer in report])
    return np.array(found)


def retrieval_of(name, unseen=None, side="encoder", only=(), except_for=()):
    """(seeds, layers) of retrieval accuracy in percent, the mean over pairs of languages; None
    where nothing was retrieved.

    unseen: of the pairs with (True) or without (False) a language that had no alignment data; None:
    of all pairs. only, except_for: of these pairs alone, without these; "en_XX es_XX"."""
    reports = layers_of(f"{name}+retrieval", side)
    if not reports:
        return None
    found = []
    for report in reports:
        of_layers = []
        for layer in report:
            of_layers.append(mean_retrieval(layer["retrieval"], unseen, only, except_for))
        found.append(of_layers)
    return np.array(found)


def retrieval_by_pair(name):
    """(seeds, layers, pairs of languages) of retrieval accuracy in percent in the encoder; None
    where nothing was retrieved."""
    reports = layers_of(f"{name}+retrieval", "encoder")
    if not reports:
        return None
    found = []
    for report in reports:
        found.append([list(layer["retrieval"].values()) for layer in report])
    return 100 * np.array(found)


def mean_retrieval(accuracies, unseen, only, except_for):
    """{"en_XX es_XX": accuracy} -> the mean in percent over the pairs that are asked for."""
    chosen = []
    for pair, accuracy in accuracies.items():
        has_unseen = any(lang in pair for lang in NO_ALIGNMENT_DATA)
        if pair in except_for or (only and pair not in only):
            continue
        if unseen is None or unseen == has_unseen:
            chosen.append(accuracy)
    return 100 * np.mean(chosen)


# ---------------------------------------------------------------------------------- statistics


# Student's t, 97.5%, of so many seeds; more of them are treated as five, which is too cautious.
STUDENT_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}


RESAMPLES = 1000


def interval(sample):
    """(seeds, examples) -> mean and 95% interval by a bootstrap that draws seeds and examples.

    Of a single seed: of its examples alone."""
    rng = np.random.default_rng(0)
    seeds, examples = sample.shape
    of_seeds = sample.mean(1, keepdims=True)  # (seeds, 1)
    distances = of_seeds - of_seeds.mean()
    widened = sample + (widening(seeds) - 1) * distances  # widening() times as far apart
    # How often each seed and each example is drawn, as a share: (RESAMPLES, seeds or examples).
    drawn_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    drawn_examples = rng.multinomial(examples, np.full(examples, 1 / examples), RESAMPLES)
    drawn_examples = drawn_examples / examples
    of_examples = drawn_seeds @ widened  # (RESAMPLES, examples): means over the seeds drawn
    means = (of_examples * drawn_examples).sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(widened.mean(), low, high, seeds)


def widening(seeds):
    """By what the seeds' distances from their mean grow before they are drawn.

    A bootstrap of n seeds finds (n - 1) / n of their variance, and of that variance itself three
    seeds say little: without this the 95% of three that differ are 85% (tests/test_papers.py)."""
    if seeds == 1:
        return 1.0
    return math.sqrt(seeds / (seeds - 1)) * STUDENT_T[min(seeds, 5)] / 1.96


def score_interval(sample):
    """interval() of scores, which lie between 0 and 100."""
    found = interval(sample)
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 100.0))


def difference(a, b, pair, metric):
    """Row a minus row b, the same seed and example on both sides; None if they share no seed."""
    found = differences(a, b, pair, metric)
    return None if found is None else interval(found)


def differences(a, b, pair, metric):
    """(seeds, examples) of row a minus row b, for the seeds that both have; None if there is no
    such seed."""
    of_a = each_by_seed(a, pair, metric)
    of_b = each_by_seed(b, pair, metric)
    common = [seed for seed in of_a if seed in of_b]
    if not common:
        return None
    scores_of_a = np.array([of_a[seed] for seed in common], float)
    scores_of_b = np.array([of_b[seed] for seed in common], float)
    return scores_of_a - scores_of_b


def each_by_seed(name, pair, metric):
    """{seed: every example's score} of a row's seeds that have this metric."""
    found = {}
    for seed, row in rows_of(name, pair).items():
        scores = row["each"].get(metric)
        if scores is not None:
            found[seed] = scores
    return found


def mean_difference(a, b, pairs, metric):
    """As difference(), of every example's mean over some pairs; None where a row lacks one."""
    found = []
    for pair in pairs:
        of_pair = differences(a, b, pair, metric)
        if of_pair is None:
            return None
        found.append(of_pair)
    return interval(np.mean(found, 0))


def best_rate(paths):
    """Rates of the score files …-RATE-sSEED.json: the lowest validation loss of each learning rate,
    mean over the seeds that every rate has, and the best rate. No test example takes part."""
    check_test_sets(paths)
    by_rate = validation_losses(paths)
    if not by_rate:
        raise UserError("no score file of base/ or base-help/ among " + " ".join(map(str, paths)))

    return best_of(by_rate, paths)


def best_of(by_rate, paths):
    """The Rates of validation_losses(); paths: of the score files, for the error that no seed was
    run at every rate."""
    common = set.intersection(*(set(losses) for losses in by_rate.values()))
    if not common:
        raise UserError("no seed was run at every learning rate: " + " ".join(map(str, paths)))
    means = {}
    for rate, losses in by_rate.items():
        means[rate] = float(np.mean([losses[seed] for seed in sorted(common)]))
    return Rates(means, min(means, key=means.get))


def validation_losses(paths):
    """{rate: {seed: loss}} of the score files …-RATE-sSEED.json of today's bases."""
    found = {}
    for path in map(Path, paths):
        named = re.search(r"-(\d+e-\d+)-s(\d+)$", path.stem)
        content = read_json(path) or {}
        if not named or not content or is_left_out(path, content):
            continue
        loss = content.get("validation loss")
        if loss is None:
            raise UserError(f"{path}: no validation loss: these are not the scores of a run")
        rate, seed = named.groups()
        found.setdefault(rate, {})[seed] = loss
    return found


@cache
def rates(prefix="", kind="rate"):
    """{recipe: Rates} of all that was tried at several learning rates; prefix: of a Corpus.
    Recipes with scores of another base alone are left out.

    kind: "rate" for runs of full length, of which the best is the recipe's row; "try" for short
    ones, whose rate the row takes; "long" for those of 8,000 updates; "own" for full ones of
    recipes whose row is at qk's rate."""
    paths = {}
    for path in sorted(SCORES.glob(f"{prefix}{kind}-*.json")):
        named = re.fullmatch(rf"{prefix}{kind}-(.+)-\d+e-\d+-s\d+", path.stem)
        if named:
            paths.setdefault(named[1], []).append(path)
    found = {}
    for recipe, of_recipe in paths.items():
        by_rate = validation_losses(of_recipe)
        if by_rate:
            found[recipe] = best_of(by_rate, of_recipe)
    return found


def arrow(pair):
    """es_XX-en_XX -> es→en"""
    source, target = pair.split("-")
    return f"{source[:2]}→{target[:2]}"
