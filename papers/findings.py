"""What was found, for a reader in a hurry: sentences whose numbers come from the scores, each with
the picture that shows it."""
import textwrap

import numpy as np

from papers.scores import (
    BUILT_IN,
    HELP,
    MIDDLE,
    SEEN_TARGET,
    TRANSLATED,
    probe_of,
    rates,
    retrieval_of,
    rows_of,
    scores_of,
    values,
)
from papers.tables import NOTHING


def findings():
    """[(text, name of a picture, or "")], in the order of RESULTS.md, of what was measured."""
    found = [
        (of_forgetting(BUILT_IN), "rates"),
        (of_forgetting(HELP), "help_steps"),
        (of_crossing(), "zero_shot"),
        (of_languages(BUILT_IN), "probing"),
        (of_languages(HELP), ""),
        (of_taught_pair(), ""),
        (of_new_languages(), "few_sentences"),
        (of_alignment(), "retrieval"),
    ]
    return [(wrapped(text), picture) for text, picture in found if NOTHING not in text]


def wrapped(text):
    return textwrap.fill(" ".join(text.split()), 100, break_on_hyphens=False)


def mean(name, pairs, metric):
    """The mean of a row's metric over language pairs, seeds and examples, as a text."""
    found = [values(name, pair, metric) for pair in pairs]
    if any(scores is None for scores in found):
        return NOTHING
    return f"{np.mean([scores.mean() for scores in found]):.0f}"


def mean_baseline(corpus, pairs, kind):
    """The mean ROUGE-1 of "lead", the sources' first sentences, or "random", other texts'
    summaries."""
    found = []
    for pair in pairs:
        for row in rows_of(corpus.row("base"), pair).values():
            found.append(row["floors"][kind]["R1"][0])
    return f"{np.mean(found):.0f}" if found else NOTHING


def bleu(name):
    found = list(scores_of(name, "BLEU").values())
    return f"{np.mean(found):.0f}" if found else NOTHING


def of_forgetting(corpus):
    """Full and qk finetuning on English (A, section 4.2)."""
    grids = rates(corpus.prefix)
    if "full" not in grids or "qk" not in grids:
        return NOTHING
    full = corpus.row("full")
    qk = corpus.row("qk")
    unseen = corpus.zero_shot
    seen = corpus.within[:1]
    return f"""\
**Learning English, on the {corpus.title}.** More than a tenth of the outputs in unseen languages is
off-target under `full` {drift(corpus, 'full')}, under `qk`
{drift(corpus, 'qk')}. English validation loss, which hardly tells, picks
{grids['full'].best} for `full` and {grids['qk'].best} for `qk`: there
{mean(full, unseen, 'off-target')} and {mean(qk, unseen, 'off-target')}% are off-target in the
unseen languages, ROUGE-1 is {mean(full, unseen, 'R1')} and {mean(qk, unseen, 'R1')}, in English
{mean(full, seen, 'R1')} and {mean(qk, seen, 'R1')}. {over_rates(corpus, 'full')}
{over_rates(corpus, 'qk')} {after_more(corpus)}"""


def drift(corpus, recipe):
    """The lowest learning rate at which more than a tenth of the zero-shot outputs is off-target;
    the shares at all rates are told beside it."""
    for rate in sorted(rates(corpus.prefix)[recipe].losses, key=float):
        if off_target_at(corpus, recipe, rate) > 10:
            return f"from a learning rate of {rate} on"
    return "at no rate that was tried"


def off_target_at(corpus, recipe, rate):
    """The mean share of off-target outputs in the unseen languages, in percent."""
    name = f"{corpus.prefix}rate-{recipe}-{rate}"
    shares = [values(name, pair, "off-target") for pair in corpus.zero_shot]
    if any(found is None for found in shares):
        return np.nan
    return np.mean([found.mean() for found in shares])


def over_rates(corpus, recipe):
    """What the seen language tells of a learning rate, and what becomes of the others."""
    losses = rates(corpus.prefix)[recipe].losses
    tried = sorted(losses, key=float)
    shares = []
    for rate in tried:
        share = off_target_at(corpus, recipe, rate)
        shares.append(NOTHING if np.isnan(share) else f"{share:.0f}")
    return (
        f"`{recipe}` at {', '.join(tried)}: English loss "
        f"{', '.join(f'{losses[rate]:.2f}' for rate in tried)}, off-target "
        f"{', '.join(shares)}%."
    )


def after_more(corpus):
    """What more updates at the same rates do; "" where no row has them."""
    full = corpus.row("long-full")
    qk = corpus.row("long-qk")
    seen = corpus.within[:1]
    unseen = corpus.zero_shot
    gained = f"{mean(full, seen, 'R1')} and {mean(qk, seen, 'R1')}"
    lost = f"{mean(full, unseen, 'off-target')} and {mean(qk, unseen, 'off-target')}"
    if NOTHING in gained + lost:
        return ""
    return f"""\
After 8,000 updates in place of 3,000 ROUGE-1 in English is {gained}, and in the unseen
languages {lost}% are off-target."""


def of_crossing():
    """Does the skill cross, or is the language kept alone?"""
    qk = BUILT_IN.row("qk")
    full = BUILT_IN.row("full")
    seen = BUILT_IN.within[:1]
    unseen = BUILT_IN.zero_shot
    return f"""\
**Keeping the language is one thing, carrying the skill another.** Under `qk` the summaries in
unseen languages have ROUGE-1 {mean(qk, unseen, 'R1')}, the documents' first sentences
{mean_baseline(BUILT_IN, unseen, 'lead')}, the untuned base, which copies,
{mean('base', unseen, 'R1')}, and a
model that saw summaries in all of them {mean('supervised', unseen, 'R1')}. But of the words that a
reference has and its document has not, `qk` finds {mean(qk, seen, 'novel')}% in English and
{mean(qk, unseen, 'novel')}% in the unseen languages, `full` at its best rate
{mean(full, seen, 'novel')} and {mean(full, unseen, 'novel')}%, the base
{mean('base', seen, 'novel')} and {mean('base', unseen, 'novel')}%, the model that saw all
{mean('supervised', seen, 'novel')} and {mean('supervised', unseen, 'novel')}%."""


def of_languages(corpus):
    """Trained within three languages, asked across them (A, section 4.3)."""
    full = corpus.row("joint-full")
    balanced = corpus.row("joint-balanced")
    two_step = corpus.row("two-step-qk")
    probabilities = []
    for name in (full, balanced):
        found = probe_of(name)
        if found is None:
            return NOTHING
        probabilities.append(f"{found[:, -1].mean():.2f}")
    return f"""\
**Asked across languages, on the {corpus.title}.** After training within three,
{mean(full, SEEN_TARGET, 'off-target')}% of the outputs of `full` are off-target. The balanced
adversary leaves {mean(balanced, SEEN_TARGET, 'off-target')}% (a
probe gives the true language a probability of {probabilities[1]} from its encoder's last layer,
{probabilities[0]} without it), translation first and `qk` after it
{mean(two_step, SEEN_TARGET, 'off-target')}%; ROUGE-1 is {mean(full, SEEN_TARGET, 'R1')},
{mean(balanced, SEEN_TARGET, 'R1')} and {mean(two_step, SEEN_TARGET, 'R1')}, of another text's
headline {mean_baseline(corpus, SEEN_TARGET, 'random')}.{of_pipeline(corpus)}{of_unseen(corpus)}"""


def of_pipeline(corpus):
    """Translation, a summary within a language, translation; on the built-in corpus alone."""
    found = mean("joint-pipeline", SEEN_TARGET, "R1")
    if corpus is not BUILT_IN or found == NOTHING:
        return ""
    return f" A pipeline of translations around `qk` has {found}."


def of_unseen(corpus):
    """What becomes of a target language that the training within three languages never saw."""
    found = []
    for name in ("joint-full", "joint-standard", "joint-balanced", "two-step-qk"):
        found.append(mean(corpus.row(name), ["tr_TR-tr_TR"], "off-target"))
    return (
        f" Of Turkish, in which no summaries were seen, {found[0]}% are off-target under `full`, "
        f"{found[1]}% and {found[2]}% under the adversaries `standard` and `balanced`, {found[3]}% "
        f"after two steps, of which the first translates Turkish too.{of_mixing(corpus)}"
    )


def of_mixing(corpus):
    """What keeps that language under the balanced adversary; on the built-in corpus alone."""
    alone = mean("joint-balanced-again", ["tr_TR-tr_TR"], "off-target")
    mixed = mean("joint-balanced-mix-tr", ["tr_TR-tr_TR"], "off-target")
    if corpus is not BUILT_IN or mixed == NOTHING:
        return ""
    return (
        f" What keeps it under the balanced adversary is Turkish itself: with translations of it "
        f"mixed in {mixed}% are off-target, without them {alone}% on the same machine."
    )


def of_taught_pair():
    """A model that translates all pairs is taught one of them again."""
    kept = []
    for name in ("translator", "translator-full", "translator-full-slow", "translator-qk"):
        by_pair = [list(scores_of(name, "BLEU", pair).values()) for pair in TRANSLATED[1:]]
        if not all(by_pair):
            return NOTHING
        kept.append(f"{np.mean([np.mean(found) for found in by_pair]):.0f}")
    return f"""\
**Translation tells the same.** A model that translates all pairs of four languages is taught
English to Spanish again: of the other pairs, BLEU {kept[0]} on the mean, `full` at 2e-3 leaves
{kept[1]} and at 5e-4 {kept[2]}, `qk` at 4e-3 leaves {kept[3]}."""


def of_new_languages():
    """A new language for a trained translation model (B)."""
    recipes = ("src", "src+xattn", "src+body")
    few = ", ".join(bleu(f"low-{recipe}@300") for recipe in recipes)
    many = ", ".join(bleu(f"low-{recipe}@10000") for recipe in recipes)
    return f"""\
**A new language.** German for a model that translates French into English: BLEU
{bleu('child-src')} with new embeddings alone, {bleu('child-src+xattn')} with the cross-attention,
{bleu('child-src+body')} with the whole body; as a target language {bleu('child-tgt')},
{bleu('child-tgt+xattn')} and {bleu('child-tgt+body')}. With the parent's own embeddings back, the
child that trained its cross-attention still translates French with BLEU
{bleu('child-src+xattn+parent')}, the one that trained its body {bleu('child-src+body+parent')}. In
200 updates on 300 sentences these three reach {few}, on 10,000 {many}."""


def of_alignment():
    """Translations meet in a middle layer (C)."""
    retrieved = []
    for name in ("joint-full", "joint-align"):
        for unseen in (False, True):
            found = retrieval_of(name, unseen)
            if found is None:
                return NOTHING
            retrieved.append(f"{found[:, MIDDLE].mean():.0f}")
    return f"""\
**Alignment of layer {MIDDLE}** lifts retrieval of translations there from {retrieved[0]} to
{retrieved[2]}%, and for languages that it never saw from {retrieved[1]} to {retrieved[3]}%;
off-target outputs across languages fall from {mean('joint-full', SEEN_TARGET, 'off-target')} to
{mean('joint-align', SEEN_TARGET, 'off-target')}%."""
