"""The papers' claims, each with its verdict and the differences that it rests on.

A claim is "supported" if the intervals of all its differences lie on the claimed side of zero,
"contradicted" if all lie on the other side, "open" if all hold zero. Where some hold zero and all
others lie on one side it leans to that side; else it is "mixed". One seed gives no verdict: how far
runs differ is not known of it. Where a score has no interval of its own (BLEU, retrieval, the
probe), the claim must hold in every seed.
"""
import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from papers.scores import (
    ACROSS,
    ALIGNED_LANGUAGES,
    BUILT_IN,
    HELP,
    MIDDLE,
    PROBED,
    QK_AND_ADVERSARY,
    SEEN_TARGET,
    TRANSLATED,
    UNSEEN_TARGET,
    ZERO_SHOT,
    Interval,
    arrow,
    dictionary_of,
    difference,
    interval,
    mean_difference,
    own_best,
    probe_of,
    results,
    retrieval_by_pair,
    retrieval_of,
    rows_of,
    scores_of,
    values,
)
from papers.words import CONCLUSIONS

NOT_MEASURED = "not measured"
OWN_RATE = "each at its own best rate"
CORRELATES = (
    "the lower that probability, the higher zero-shot cross-lingual ROUGE-1, over the settings of "
    "one step and over those with an adversary alone"
)
ADVERSARIES_OF_FULL = ("joint-standard", "joint-balanced", "joint-balanced-drop")
RETRIEVAL_PEAK = (
    f"translation retrieval peaks in the middle of the encoder (layer {MIDDLE} above both ends)"
)


@dataclass(frozen=True)
class Claim:
    """letter: the claim's group, as RESULTS.md names them; evidence: what the verdict rests on;
    conclusion: what a reader should take from it, where the verdict does not say all."""

    letter: str
    text: str
    verdict: str
    evidence: str = ""
    conclusion: str = ""


@dataclass(frozen=True)
class Difference:
    """What is claimed to lie above zero; interval: None where it was not measured."""

    what: str
    interval: Interval | None


@dataclass(frozen=True)
class Comparison:
    """Numbers, {seed: number}, that are claimed to lie above others; an empty one was not
    measured."""

    what: str
    above: dict
    below: dict


def claims():
    """All claims in the order of CLAIMS.md: {corpus's title: [Claim]}."""
    groups = (english_claims, recipe_claims, joint_claims, adversary_claims, probing_claims)
    found = {}
    for corpus in (BUILT_IN, HELP):
        found[corpus.title] = []
        for group in groups:
            found[corpus.title] += group(corpus)
    found[BUILT_IN.title] += [*new_language_claims(), *alignment_claims(), *open_claims()]
    for title, claims_of in found.items():
        found[title] = [replace(claim, conclusion=concluded(title, claim)) for claim in claims_of]
    return found


def concluded(title, claim):
    """What papers/words.py says of a verdict; nothing where the verdict is another by now."""
    if claim.verdict == NOT_MEASURED:
        return "Nothing: not all of it was run."
    if (title, claim.text) not in CONCLUSIONS:
        return ""
    expected, sentence = CONCLUSIONS[title, claim.text]
    if not claim.verdict.startswith(expected):
        return ""
    return sentence.format_map(told_numbers())


@cache
def told_numbers():
    """The numbers that conclusions on real text leave open, {field: text}: what becomes of `full`
    by seed, after 3,000 and after 8,000 updates; what `qk` pays in descriptions."""
    found = Fields()
    full = HELP.row("full")
    longer = HELP.row("long-full")
    spanish, russian, _ = HELP.zero_shot
    described = [HELP.row(recipe) + "+descriptions" for recipe in ("full", "qk")]
    price = difference(*described, HELP.within[0], "R1")
    if price is not None:
        found["paid"] = f"{price.mean:.1f} [{price.low:.1f}, {price.high:.1f}]"
    for when, name in (("3000", full), ("8000", longer)):
        losses = [content["validation loss"] for content in results(name).values()]
        if losses:
            found[f"loss_{when}"] = f"{np.mean(losses):.2f}"
        for lang, pair in (("es", spanish), ("ru", russian)):
            shares = values(name, pair, "off-target")
            if shares is not None:
                by_seed = shares.mean(1)
                found[f"{lang}_{when}"] = f"{by_seed.min():.0f} to {by_seed.max():.0f}"
    more = difference(longer, full, spanish, "off-target")
    if more is not None:
        found["more_es"] = f"{more.mean:.0f} points more [{more.low:.0f}, {more.high:.0f}]"
    return found


class Fields(dict):
    """For str.format_map: a field without a value stays in the text."""

    def __missing__(self, field):
        return "{" + field + "}"


# ---------------------------------------------------------------------------------- verdicts


def by_intervals(letter, text, differences):
    """A claim that every difference lies above zero, decided by their intervals."""
    intervals = [compared.interval for compared in differences]
    if not intervals or None in intervals:
        return Claim(letter, text, NOT_MEASURED)
    above = sum(found.low > 0 for found in intervals)
    below = sum(found.high < 0 for found in intervals)
    fewest = min(found.seeds for found in intervals)
    most = max(found.seeds for found in intervals)
    verdict = verdict_of(above, below, len(intervals), fewest)
    seeds = f"{fewest} to {most}" if fewest < most else f"{most}"
    parts = [f"seeds: {seeds}"]
    for compared in differences:
        found = compared.interval
        parts.append(f"{compared.what} {found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]")
    return Claim(letter, text, verdict, "; ".join(parts))


def verdict_of(above, below, count, seeds):
    """The word for a claim of `count` comparisons, of which `above` are for it and `below` against
    it; seeds: the fewest that one of them rests on."""
    counted = f"{above} of {count} for it, {below} against"
    if seeds == 1:
        return f"one seed: {counted}"
    if above == count:
        return "supported"
    if below == count:
        return "contradicted"
    if above == below == 0:
        return "open"
    if not below:
        return f"leans for: {above} of {count}"
    if not above:
        return f"leans against: {below} of {count}"
    return f"mixed: {counted}"


def every_seed(letter, text, comparisons):
    """A claim that numbers lie above others in every seed that both have."""
    above = 0
    below = 0
    fewest = math.inf
    parts = []
    for compared in comparisons:
        seeds = [seed for seed in compared.above if seed in compared.below]
        if not seeds:
            return Claim(letter, text, NOT_MEASURED)
        fewest = min(fewest, len(seeds))
        above += all(compared.above[seed] > compared.below[seed] for seed in seeds)
        below += all(compared.above[seed] < compared.below[seed] for seed in seeds)
        higher = " ".join(f"{compared.above[seed]:.1f}" for seed in seeds)
        lower = " ".join(f"{compared.below[seed]:.1f}" for seed in seeds)
        parts.append(f"{compared.what}: {higher} against {lower}")
    verdict = verdict_of(above, below, len(comparisons), fewest)
    if verdict in ("supported", "contradicted"):
        verdict += f" ({fewest} of {fewest} seeds)"
    return Claim(letter, text, verdict, "; ".join(parts))


def compare(a, b, pairs, metric):
    """Row a minus row b on every pair."""
    return [Difference(f"{metric} {arrow(pair)}", difference(a, b, pair, metric)) for pair in pairs]


def within_two(a, b, pairs):
    """How far row a, with two points more, lies above row b in ROUGE-1: a comes within 2 of b."""
    found = []
    for pair in pairs:
        known = difference(a, b, pair, "R1")
        if known is not None:
            known = replace(
                known, mean=known.mean + 2, low=known.low + 2, high=known.high + 2
            )
        found.append(Difference(f"R1 + 2 {arrow(pair)}", known))
    return found


def above_floor(name, pairs, metric, kind):
    """A row's scores minus the mean score of a floor, taken as a constant: "random", another
    document's headline, or "lead", the source's first sentence."""
    found = []
    for pair in pairs:
        scores = values(name, pair, metric)
        known = None
        if scores is not None:
            row = next(iter(rows_of(name, pair).values()))
            floor, _, _ = row["floors"][kind][metric]
            known = interval(scores - floor)
        found.append(Difference(f"{metric} above floor {arrow(pair)}", known))
    return found


def above_half(name, pairs):
    """How far the share of outputs in another language lies above one half."""
    found = []
    for pair in pairs:
        share = values(name, pair, "off-target")
        known = None if share is None else interval(share - 50)
        found.append(Difference(f"off-target − 50 {arrow(pair)}", known))
    return found


# ---------------------------------------------------------------------------------- the claims


def english_claims(corpus):
    """Trained on English alone, asked in other languages (Solovyev et al. 2024, section 4.2)."""
    qk = corpus.row("qk")
    full = corpus.row("full at qk's rate")
    best_full = corpus.row("full")
    return [
        by_intervals(
            "a",
            "full finetuning on English loses the other languages, at `qk`'s rate: more off-target "
            "outputs than `qk`",
            compare(full, qk, corpus.zero_shot, "off-target"),
        ),
        by_intervals(
            "a",
            "and the lower zero-shot ROUGE-1",
            compare(qk, full, corpus.zero_shot, "R1"),
        ),
        *forgetting_claims(OWN_RATE, best_full, qk, corpus),
        *lower_rate_claims(corpus),
        *longer_claims(corpus),
        by_intervals(
            "a",
            "`qk` carries the skill over: higher zero-shot ROUGE-1 than the source's first "
            "sentence",
            above_floor(qk, corpus.zero_shot, "R1", "lead"),
        ),
        by_intervals(
            "a",
            "`qk` carries the skill over: it finds more words that the reference has and the "
            "source has not than `full` at its best rate (ours)",
            compare(qk, best_full, corpus.zero_shot, "novel"),
        ),
        by_intervals(
            "b",
            "`qk` pays on the seen language, each at its best rate",
            compare(best_full, qk, corpus.within[:1], "R1"),
        ),
    ]


def lower_rate_claims(corpus):
    """The same where both have the rate that 1,000 validation documents would choose for `qk`, on
    the built-in corpus alone (words.ABOUT_TABLES)."""
    if corpus is not BUILT_IN:
        return []
    return forgetting_claims("both at 2e-3", "rate-full-2e-3", "rate-qk-2e-3", corpus)


def longer_claims(corpus):
    """The same where English is learned for longer, on real text alone."""
    if corpus is not HELP:
        return []
    own_best = (corpus.row("long-full"), corpus.row("long-qk"))
    at_2e_3 = (corpus.row("long-full-2e-3"), corpus.row("long-qk-2e-3"))
    found = forgetting_claims("after 8,000 updates, each at its own best rate", *own_best, corpus)
    if at_2e_3 != own_best:
        found += forgetting_claims("after 8,000 updates, both at 2e-3", *at_2e_3, corpus)
    return found


def forgetting_claims(when, full, qk, corpus):
    """That the row `full` loses more of the other languages than the row `qk`."""
    return [
        by_intervals(
            "a",
            f"{when}: `full` has more off-target outputs than `qk`",
            compare(full, qk, corpus.zero_shot, "off-target"),
        ),
        by_intervals(
            "a",
            f"{when}: `full` has the lower zero-shot ROUGE-1",
            compare(qk, full, corpus.zero_shot, "R1"),
        ),
    ]


def recipe_claims(corpus):
    """The order of the recipes (the same table): on the built-in corpus all at qk's rate, as the
    paper has one for all, and `full` at its own best rate too; on real text each at its best, which
    is `qk`'s for `attn_ln`, and `full` at that rate too."""
    qk = corpus.row("qk")
    pairs = corpus.zero_shot
    frozen_decoder = corpus.row("frozen_decoder")
    attn_ln = corpus.row("attn_ln")
    at_qk = ("at `qk`'s rate", corpus.row("full at qk's rate"))
    at_best = ("at its own best rate", corpus.row("full"))
    compared = []
    if corpus is BUILT_IN:
        compared.append(("frozen_decoder", frozen_decoder, at_qk))
    compared += [
        ("frozen_decoder", frozen_decoder, at_best),
        ("attn_ln", attn_ln, at_qk),
        ("attn_ln", attn_ln, at_best),
    ]
    found = []
    for recipe, row, (rate, full) in compared:
        text = f"`{recipe}` lies above `full` {rate} zero-shot"
        found.append(by_intervals("c", text, compare(row, full, pairs, "R1")))
    return [
        by_intervals(
            "c",
            "with the embeddings trained too (`full+embeddings`): more off-target outputs than "
            "`qk`",
            compare(corpus.row("full+embeddings"), qk, pairs, "off-target"),
        ),
        *found,
        by_intervals(
            "c",
            "`qk` lies above `frozen_decoder` zero-shot",
            compare(qk, frozen_decoder, pairs, "R1"),
        ),
        by_intervals(
            "c",
            "`qk` lies above `attn_ln` zero-shot",
            compare(qk, attn_ln, pairs, "R1"),
        ),
        by_intervals(
            "c",
            "`qk` lies above `vqk` zero-shot (published: es −0.3, ru +0.2, gu +0.8)",
            compare(qk, corpus.row("vqk"), pairs, "R1"),
        ),
        by_intervals(
            "c",
            "`qk` lies above `q` zero-shot (published: es +0.1, ru +0.5, gu +0.6)",
            compare(qk, corpus.row("q"), pairs, "R1"),
        ),
        *own_rate_claims(corpus),
    ]


def own_rate_claims(corpus):
    """The same on the built-in corpus with each recipe at its own best rate, where that is not
    `qk`'s; on real text the claims above are of these."""
    found = []
    if corpus is not BUILT_IN:
        return found
    qk = corpus.row("qk")
    pairs = corpus.zero_shot
    embeddings = own_best("full+embeddings")
    if embeddings:
        text = f"{OWN_RATE}: `full+embeddings` has more off-target outputs than `qk`"
        found.append(by_intervals("c", text, compare(embeddings, qk, pairs, "off-target")))
    for recipe in ("frozen_decoder", "attn_ln", "vqk", "q"):
        row = own_best(recipe)
        if row:
            text = f"{OWN_RATE}: `qk` lies above `{recipe}` zero-shot"
            found.append(by_intervals("c", text, compare(qk, row, pairs, "R1")))
    return found


def joint_claims(corpus):
    """Trained within three languages, asked across them: what fails, and what mends it."""
    joint_full = corpus.row("joint-full")
    balanced = corpus.row("joint-balanced")
    two_step_qk = corpus.row("two-step-qk")
    found = [
        by_intervals(
            "d",
            "after joint intralingual finetuning most outputs across languages are not in the "
            "target language (`full`)",
            above_half(joint_full, SEEN_TARGET),
        ),
        by_intervals(
            "d",
            "after joint intralingual finetuning most outputs across languages are not in the "
            "target language (`qk`)",
            above_half(corpus.row("joint-qk"), SEEN_TARGET),
        ),
        by_intervals(
            "d",
            "two steps mend the language: fewer off-target outputs than `full`",
            compare(joint_full, two_step_qk, ACROSS[:5], "off-target"),
        ),
        by_intervals(
            "d",
            "two steps mend the content: more of it than another document's headline",
            above_floor(two_step_qk, ACROSS, corpus.content, "random"),
        ),
        by_intervals(
            "d",
            "two steps with `qk` beat two steps with `full`",
            compare(two_step_qk, corpus.row("two-step-full"), ACROSS, "R1"),
        ),
        by_intervals(
            "d",
            "the balanced adversary mends the language: fewer off-target outputs than `full`",
            compare(joint_full, balanced, SEEN_TARGET, "off-target"),
        ),
        by_intervals(
            "d",
            "the balanced adversary mends the content: more of it than another document's headline",
            above_floor(balanced, SEEN_TARGET, corpus.content, "random"),
        ),
        by_intervals(
            "d",
            "it is the adversary, not the missing tag: fewer off-target outputs than the tagless "
            "control",
            compare(corpus.row("joint-tagless"), balanced, SEEN_TARGET, "off-target"),
        ),
    ]
    if corpus is BUILT_IN:
        found += more_joint_claims()
    return found


def more_joint_claims():
    """Those whose rows the built-in corpus alone has."""
    return [
        by_intervals(
            "d",
            "after joint intralingual finetuning most outputs across languages are not in the "
            "target language (`full` at its best rate on English)",
            above_half("joint-full-best", SEEN_TARGET),
        ),
        by_intervals(
            "d",
            "two steps with `qk` beat two steps with `full` at its best rate on English",
            compare("two-step-qk", "two-step-full-best", ACROSS, "R1"),
        ),
        by_intervals(
            "d",
            "in the second step the cross-attention's q and k alone come within 2 ROUGE-1 of "
            "`qk` (published: es→en +0.2, en→tr −2.2)",
            within_two("two-step-dec-qk", "two-step-qk", ["es_XX-en_XX", "en_XX-tr_TR"]),
        ),
    ]


def adversary_claims(corpus):
    """The two ways to fool the classifier, beside each other."""
    standard = corpus.row("joint-standard")
    balanced = corpus.row("joint-balanced")
    found = [
        by_intervals(
            "e",
            "balanced beats standard: higher ROUGE-1",
            compare(balanced, standard, SEEN_TARGET, "R1"),
        ),
        by_intervals(
            "e",
            "balanced beats standard: fewer off-target outputs",
            compare(standard, balanced, SEEN_TARGET, "off-target"),
        ),
        by_intervals(
            "e",
            "the balanced adversary hurts an unseen target language: more off-target outputs there "
            "than `full`",
            compare(balanced, corpus.row("joint-full"), ["tr_TR-tr_TR"], "off-target"),
        ),
    ]
    if corpus is BUILT_IN:
        found += more_adversary_claims()
    return found


def more_adversary_claims():
    """Those whose rows the built-in corpus alone has."""
    standard_tuned = "joint-standard-tuned"
    balanced_tuned = "joint-adv-tuned"
    return [
        by_intervals(
            "e",
            "after `adv_tuned`, balanced beats standard: higher ROUGE-1",
            compare(balanced_tuned, standard_tuned, SEEN_TARGET, "R1"),
        ),
        by_intervals(
            "e",
            "after `adv_tuned`, balanced beats standard: fewer off-target outputs",
            compare(standard_tuned, balanced_tuned, SEEN_TARGET, "off-target"),
        ),
        by_intervals(
            "e",
            "an adversary under `qk` fails: most outputs across languages are not in the target "
            "language all the same",
            above_half("joint-qk-balanced", SEEN_TARGET),
        ),
    ]


def probing_claims(corpus):
    """What the probe reads from the encoder's last layer."""
    names = ["joint-full", "joint-standard", "joint-balanced"]
    if corpus is BUILT_IN:
        names.append("joint-balanced-drop")
    falls = []
    for higher, lower in zip(names, names[1:]):
        what = f"{higher} > {lower}, %"
        falls.append(Comparison(what, probed(corpus.row(higher)), probed(corpus.row(lower))))
    return [
        every_seed(
            "f",
            "the probe's mean probability of the true language falls from `full` to `standard` to "
            "`balanced` (and with residual drop again)",
            falls,
        ),
        probing_correlation(corpus),
    ]


def probed(name):
    """{seed: the probe's mean probability of the true language in the encoder's last layer, in
    percent}."""
    found = probe_of(name)
    if found is None:
        return {}
    return dict(zip(results(f"{name}+probe"), (100 * found[:, -1]).tolist()))


def probing_correlation(corpus):
    """Over the settings that were trained in one step; each counts once, with its seeds' mean. Runs
    with an adversary lie far from those without, and two clusters make a correlation by themselves,
    so it has to hold among those with one too."""
    names = [row.name for row in PROBED[1:] if not row.name.startswith("two-step")]
    if corpus is BUILT_IN:
        names += [row.name for row in QK_AND_ADVERSARY if row.name not in names]
    points = {}
    seeds = 0  # of the setting that has most: settings are compared here, not seeds
    for name in names:
        by_seed = probed_and_scored(corpus.row(name))
        if by_seed:
            points[name] = np.mean(by_seed, 0)
            seeds = max(seeds, len(by_seed))
    with_adversary = [p for name, p in points.items() if "standard" in name or "balanced" in name]
    above = 0
    below = 0
    count = 0
    parts = []
    for what, chosen in (("", list(points.values())), ("with an adversary", with_adversary)):
        if len(chosen) <= 3:  # Fisher's interval has no end
            continue
        r, low, high = correlation(np.transpose(chosen))
        count += 1
        above += high < 0
        below += low > 0
        settings = f"{len(chosen)} settings {what}".strip()
        parts.append(f"Pearson r = {r:+.2f} [{low:+.2f}, {high:+.2f}] over {settings}")
    if count < 2:
        return Claim("f", CORRELATES, NOT_MEASURED, "; ".join(parts))
    of_full = [points[name] for name in ADVERSARIES_OF_FULL if name in points]
    if corpus is BUILT_IN and len(of_full) == len(ADVERSARIES_OF_FULL):
        r = np.corrcoef(np.transpose(of_full))[0, 1]
        parts.append(f"{r:+.2f} over the {len(of_full)} of these under `full`, without an interval")
    return Claim("f", CORRELATES, verdict_of(above, below, count, seeds), "; ".join(parts))


def probed_and_scored(name):
    """[(probability, ROUGE-1)] of a row's seeds that were both probed and scored."""
    found = []
    for seed, probability in probed(name).items():
        scores = [rows_of(name, pair).get(seed) for pair in SEEN_TARGET]
        if None not in scores:
            rouge = np.mean([row["each"]["R1"] for row in scores])
            found.append((probability, rouge))
    return found


def correlation(both):
    """(2, N), N > 3 -> Pearson's r and its 95% interval by Fisher's transformation."""
    r = np.corrcoef(both)[0, 1]
    distance = 1.96 / np.sqrt(both.shape[1] - 3)
    centre = np.arctanh(np.clip(r, -0.999999, 0.999999))
    return r, np.tanh(centre - distance), np.tanh(centre + distance)


def bleu(name):
    return scores_of(name, "BLEU")


def new_language_claims():
    """A new language for a trained translation model (Gheini, Ren and May 2021)."""
    order = []
    near = []
    for name, pair in (("child-src", "de→en"), ("child-tgt", "fr→de")):
        scratch = bleu(f"{name}-scratch")
        embeddings = bleu(name)
        random = bleu(f"{name}+randxattn")
        cross = bleu(f"{name}+xattn")
        order += [
            Comparison(f"{pair} embeddings alone > scratch", embeddings, scratch),
            Comparison(f"{pair} random cross-attention > embeddings alone", random, embeddings),
            Comparison(f"{pair} cross-attention > random cross-attention", cross, random),
        ]
        body_less_two = {seed: score - 2 for seed, score in bleu(f"{name}+body").items()}
        near.append(Comparison(f"{pair} cross-attention > body − 2", cross, body_less_two))

    aligned = Comparison(
        "words right", dictionary_of("child-src+xattn"), dictionary_of("child-src+body")
    )
    kept = Comparison("fr→en", bleu("child-src+xattn+parent"), bleu("child-src+body+parent"))
    half_trained = {seed: score / 2 for seed, score in bleu("child-spanish").items()}
    mbart = [
        Comparison(
            "with cross-attention > embeddings alone", bleu("mbart-emb+xattn"), bleu("mbart-emb")
        ),
        Comparison(
            "its pretrained values > random ones",
            bleu("mbart-emb+xattn"),
            bleu("mbart-emb+randxattn"),
        ),
    ]
    return [
        every_seed(
            "g",
            "BLEU: scratch < embeddings alone < random cross-attention < cross-attention",
            order,
        ),
        every_seed(
            "g", "training the cross-attention comes within 2 BLEU of training the body", near
        ),
        every_seed(
            "g",
            "cross-attention leaves the new embeddings more aligned than body: dictionary "
            "induction, %",
            [aligned],
        ),
        every_seed(
            "g", "and forgets less: BLEU of the parent's pair with its embeddings back", [kept]
        ),
        every_seed(
            "g",
            "stitching works: de→es without de-es data reaches half the BLEU of the trained fr→es",
            [Comparison("BLEU", bleu("stitched"), half_trained)],
        ),
        every_seed(
            "g",
            "mBART: cross-attention beats embeddings alone, its random twin falls below it",
            mbart,
        ),
    ]


def retrieved(name, unseen=False):
    """{seed: retrieval accuracy in the layer that alignment trains}."""
    found = retrieval_of(name, unseen)
    if found is None:
        return {}
    return dict(zip(results(f"{name}+retrieval"), found[:, MIDDLE].tolist()))


def alignment_claims():
    """Middle-layer alignment (Liu and Niehues 2025)."""
    tuned = retrieved("joint-full")
    untuned = retrieved("base").get("0")  # one model, beside every seed
    untuned_and_two = {}
    if untuned is not None:
        untuned_and_two = {seed: untuned + 2 for seed in tuned}
    return [
        retrieval_peak(),
        every_seed(
            "h",
            "task finetuning alone does not raise it (layer 3, languages of the run; at most 2 "
            "points)",
            [Comparison("untuned + 2 > tuned", untuned_and_two, tuned)],
        ),
        every_seed(
            "h",
            "alignment does",
            [Comparison("joint with alignment > joint", retrieved("joint-align"), tuned)],
        ),
        every_seed(
            "h",
            "for languages without alignment data too (tr, gu)",
            [
                Comparison(
                    "with alignment > without",
                    retrieved("joint-align", unseen=True),
                    retrieved("joint-full", unseen=True),
                )
            ],
        ),
        by_intervals(
            "h",
            "it lifts cross-lingual transfer: fewer off-target outputs",
            compare("joint-full", "joint-align", SEEN_TARGET, "off-target"),
        ),
        by_intervals(
            "h",
            "the same for LoRA",
            compare("lora-task", "lora-joint", SEEN_TARGET, "off-target"),
        ),
        by_intervals(
            "h",
            "adapters trained apart and merged (0.5 each): fewer off-target outputs than the "
            "task's alone",
            compare("lora-task", "lora-merged-0.5", SEEN_TARGET, "off-target"),
        ),
        by_intervals(
            "h",
            "aligned: more facts recovered",
            compare("joint-align", "joint-full", SEEN_TARGET, "facts"),
        ),
    ]


def retrieval_peak():
    """Do translations lie nearest in the middle of the untuned encoder? The middle layer is the one
    that alignment trains, for the highest of several would lie above the ends by chance. There is
    one base, so pairs of languages are drawn in place of test examples, and there is no verdict."""
    by_pair = retrieval_by_pair("base")
    if by_pair is None:
        return Claim("h", RETRIEVAL_PEAK, NOT_MEASURED)
    found = []
    for what, end in (("embedding", 0), ("last layer", -1)):
        above_end = by_pair[:, MIDDLE] - by_pair[:, end]  # (seeds, pairs)
        found.append(Difference(f"% of layer {MIDDLE} above {what}", interval(above_end)))
    claim = by_intervals("h", RETRIEVAL_PEAK, found)
    of_layers = " ".join(f"{percent:.1f}" for percent in by_pair[0].mean(1))
    return replace(claim, evidence=f"{claim.evidence}; embedding to last layer: {of_layers}")


# ---------------------------------------------------------------------------------- what is open


def open_claims():
    """What the papers leave open, as one would expect it from what they found."""
    return [
        *size_claims(),
        taught_pair_claim("translator-full", "2e-3"),
        taught_pair_claim("translator-full-slow", "5e-4"),
        *unseen_target_claims(),
        *robustness_claims(),
        both_sides_claim(),
    ]


def size_claims():
    """Is it which parameters train, or how many?"""
    qk = BUILT_IN.row("qk")
    lora = BUILT_IN.row("lora")
    return [
        by_intervals(
            "i",
            "on English alone the cross-attention's q and k come within 2 ROUGE-1 of `qk` "
            "zero-shot",
            within_two("dec_qk", qk, ZERO_SHOT),
        ),
        by_intervals(
            "i",
            "`qk` lies above LoRA of the same size zero-shot, each at its best rate",
            compare(qk, lora, ZERO_SHOT, "R1"),
        ),
    ]


def taught_pair_claim(full, rate):
    """Translation as the task: what becomes of the pairs that are not taught? full: the row of
    `full` at this learning rate."""
    comparisons = []
    for pair in TRANSLATED[1:]:
        after_qk = scores_of("translator-qk", "BLEU", pair)
        after_full = scores_of(full, "BLEU", pair)
        comparisons.append(Comparison(f"BLEU {arrow(pair)}", after_qk, after_full))
    return every_seed(
        "i",
        "a model that translates all pairs, taught one of them again, keeps the others better "
        f"under `qk` at 4e-3 than under `full` at {rate}",
        comparisons,
    )


def unseen_target_claims():
    """What keeps a language that the balanced adversary never saw, one claim for each attempt."""
    alone, *attempts = UNSEEN_TARGET
    found = []
    for row in attempts:
        found.append(
            by_intervals(
                "i",
                f"the balanced adversary keeps Turkish better, {row.label}: fewer off-target "
                "outputs",
                compare(alone.name, row.name, ["tr_TR-tr_TR"], "off-target"),
            )
        )
    return found


def robustness_claims():
    """Alignment of one pair of languages: what becomes of the others?"""
    higher = []
    fewer = []
    for run_with in ALIGNED_LANGUAGES:
        what = run_with.label
        higher.append(
            Comparison(
                what, retrieved(run_with.name, unseen=True), retrieved("joint-full", unseen=True)
            )
        )
        of_mean = mean_difference("joint-full", run_with.name, SEEN_TARGET, "off-target")
        fewer.append(Difference(f"off-target, mean of {len(SEEN_TARGET)} pairs, {what}", of_mean))
    return [
        every_seed(
            "i",
            "whichever pair is aligned, retrieval rises for languages without alignment data too "
            "(tr, gu; layer 3)",
            higher,
        ),
        by_intervals(
            "i", "whichever pair is aligned, off-target outputs across languages fall", fewer
        ),
    ]


def both_sides_claim():
    return every_seed(
        "i",
        "with both sides new, training the cross-attention beats the embeddings alone",
        [Comparison("BLEU de→es", bleu("child-both+xattn"), bleu("child-both"))],
    )
