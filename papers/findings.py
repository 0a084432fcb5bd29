"""What was found, for a reader in a hurry: sentences, each with the picture that shows it.

Their numbers come from the scores; those of HEADLINE and PRICE are typed, and were true of the
scores that are kept.
"""
import textwrap

import numpy as np

from papers.scores import (
    BUILT_IN,
    HELP,
    MIDDLE,
    SEEN_TARGET,
    TRANSLATED,
    floors_of,
    mean_of,
    off_target_at,
    rates,
    results,
    retrieval_of,
    scores_of,
)
from papers.tables import NOTHING


def findings():
    """[(text, name of a picture)], in the order of RESULTS.md.

    NOTHING stands where a number was not measured, and the text is left out then."""
    found = [
        (of_forgetting(BUILT_IN), "rates"),
        (of_forgetting(HELP), "help_steps"),
        (of_crossing(), "novel"),
        (of_languages(BUILT_IN), "across"),
        (of_languages(HELP), "help_across"),
        (of_taught_pair(), "taught_pair"),
        (of_new_languages(), "few_sentences"),
        (of_alignment(), "retrieval"),
    ]
    return [(wrapped(text), picture) for text, picture in found if NOTHING not in text]


def wrapped(text):
    return textwrap.fill(" ".join(text.split()), 100, break_on_hyphens=False)


def mean(name, pairs, metric, digits=0):
    """mean_of() as a text."""
    return as_text(mean_of(name, pairs, metric), digits)


def as_text(number, digits=0):
    return NOTHING if number is None else f"{number:.{digits}f}"


def baseline_of(corpus, pairs, kind):
    """The mean ROUGE-1 of "lead", the sources' first sentences, or "random", other texts'
    summaries, over language pairs; None where no row of a pair was run."""
    found = [floors_of(corpus, pair) for pair in pairs]
    if not all(found):
        return None
    return float(np.mean([floors[kind]["R1"][0] for floors in found]))


def mean_baseline(corpus, pairs, kind, digits=0):
    """baseline_of() as a text."""
    return as_text(baseline_of(corpus, pairs, kind), digits)


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
**English alone, on the {corpus.title}: {HEADLINE[corpus.title]}.** English validation loss picks
the learning rate {grids['full'].best} for `full` and {grids['qk'].best} for `qk`. At these `full`
has {mean(full, unseen, 'off-target')}% of the outputs in unseen languages off-target and ROUGE-1
{mean(full, unseen, 'R1', 1)} (in English {mean(full, seen, 'R1', 1)}), `qk`
{mean(qk, unseen, 'off-target')}% and {mean(qk, unseen, 'R1', 1)} ({mean(qk, seen, 'R1', 1)}); a
document's first sentence has {mean_baseline(corpus, unseen, 'lead', 1)}, another text's
{corpus.summary} {mean_baseline(corpus, unseen, 'random', 1)}. {of_rates(corpus)}
{after_more(corpus)} {with_embeddings(corpus)} {of_other_recipes(corpus)} {PRICE[corpus.title]}"""


HEADLINE = {
    "built-in corpus": "`full` wants a rate that is chosen with care",
    "real text": "at its best rate `full` loses 9% of the Spanish",
}

# What `qk` costs.
PRICE = {
    "built-in corpus": "`qk` learns less of English: its loss is 0.58. ROUGE-1 does not show it.",
    "real text": "`qk` learns less of English: its loss is 2.82, and on descriptions of packages, "
    "most of what was learned, it has ROUGE-1 32.1, no more than a copied first sentence (`full`: "
    "36.9). Headings do not decide it.",
}


def of_rates(corpus):
    """What each rate does to the unseen languages, of all its seeds, and how little of that the
    loss in English tells: of rates that were run with several seeds, over those that all have."""
    shares = lost_by_rate(corpus, "full")
    of_qk = lost_by_rate(corpus, "qk")
    if not shares or not of_qk:
        return ""
    most = max(of_qk.values())
    repeated = [rate for rate in shares if len(results(rate_row(corpus, rate))) > 1]
    lost = []
    for rate, share in shares.items():
        seeds = "" if rate in repeated else " (one seed)"
        lost.append(f"{share:.0f}% at {rate}{seeds}")
    text = f"`full` loses {enumerated(lost)}, `qk` {most:.0f}% at most ({len(of_qk)} rates)."
    if len(repeated) < 2:
        return text
    losses = mean_losses([rate_row(corpus, rate) for rate in repeated])
    told = enumerated([f"{loss:.2f}" for loss in losses])
    best = rates(corpus.prefix)["full"].best
    return (
        f"{text} English gives no clear warning: at {enumerated(repeated)} `full` has a loss of "
        f"{told}; the seeds at {best} have {spread_of(rate_row(corpus, best))}."
    )


def lost_by_rate(corpus, recipe):
    """{learning rate: mean share off-target in the unseen languages, in percent} of the rates that
    were scored there, ascending."""
    shares = {}
    for rate in sorted(rates(corpus.prefix)[recipe].losses, key=float):
        share = off_target_at(corpus, recipe, rate)
        if share is not None:
            shares[rate] = share
    return shares


def rate_row(corpus, rate):
    """The name of the row of `full` at a learning rate."""
    return f"{corpus.prefix}rate-full-{rate}"


def enumerated(words):
    """["a", "b", "c"] -> "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def spread_of(name):
    """The lowest and the highest validation loss of a row's seeds."""
    losses = [of_seed["validation loss"] for of_seed in results(name).values()]
    return f"{min(losses):.2f} to {max(losses):.2f}"


def mean_losses(names):
    """The mean validation loss of each of some rows, over the seeds that all of them have."""
    found = [results(name) for name in names]
    seeds = set.intersection(*map(set, found))
    return [np.mean([of_row[seed]["validation loss"] for seed in seeds]) for of_row in found]


def after_more(corpus):
    """What more updates do; "" where no row has them."""
    full = corpus.row("long-full")
    qk = corpus.row("long-qk")
    unseen = corpus.zero_shot
    if mean_of(full, unseen, "R1") is None or mean_of(qk, unseen, "R1") is None:
        return ""
    return f"""\
At the end of these 3,000 updates the loss was still falling. After 8,000, each at the best of two
rates, {mean(full, unseen, 'off-target')}% are off-target under `full` and
{mean(qk, unseen, 'off-target')}% under `qk`, and ROUGE-1 is {mean(full, unseen, 'R1', 1)} and
{mean(qk, unseen, 'R1', 1)}."""


def with_embeddings(corpus):
    """What becomes of the other languages where everything trains, at its best rate; "" where that
    was not looked for."""
    name = corpus.row("full+embeddings")
    found = mean_of(name, corpus.zero_shot, "off-target")
    if "full+embeddings" not in rates(corpus.prefix, "try") or found is None:
        return ""
    return f"""\
With the embeddings trained too, as transformers does unless told otherwise, {found:.0f}% are
off-target after 3,000."""


def of_other_recipes(corpus):
    """What becomes of the other languages where less trains than under `full`, each at its best
    rate; "" where that was not looked for, or not in all of them."""
    shares = []
    for recipe in ("frozen_decoder", "attn_ln", "vqk", "q"):
        share = mean_of(corpus.row(recipe), corpus.zero_shot, "off-target")
        if recipe not in rates(corpus.prefix, "try") or share is None:
            return ""
        shares.append(share)
    return f"""\
Under `frozen_decoder`, `attn_ln`, `vqk` and `q` {max(shares):.0f}% at most are: it need not be
queries and keys."""


def of_crossing():
    """Does the skill cross, or is the language kept alone?"""
    qk = BUILT_IN.row("qk")
    full = BUILT_IN.row("full")
    seen = BUILT_IN.within[:1]
    unseen = BUILT_IN.zero_shot
    return f"""\
**On the built-in corpus `qk` learns little, and most of that crosses; `full` learns more, and next
to none does.** ROUGE-1 does not tell a summary from a copy: `qk` has {mean(qk, unseen, 'R1')} in
unseen languages, a copied first sentence {mean_baseline(BUILT_IN, unseen, 'lead')}, and a model
that saw summaries in all of them {mean('supervised', unseen, 'R1')}. What tells them apart is how
many of the words are found that a reference has and its document has not: by `qk`
{mean(qk, seen, 'novel')}% in English and {mean(qk, unseen, 'novel')}% in the unseen languages, by
`full` at its best rate {mean(full, seen, 'novel')}% and {mean(full, unseen, 'novel')}% (of four
languages that is decided in Spanish and Russian), by the model that saw all (one seed)
{mean('supervised', seen, 'novel')}% and {mean('supervised', unseen, 'novel')}%. Of the facts, most
of which a copy has too, `full` recovers more there, {mean(full, unseen, 'facts')}% against
{mean(qk, unseen, 'facts')}%. On real text `qk` finds too few such words to tell whether they
cross."""


def of_languages(corpus):
    """Trained within three languages, asked across them and in a fourth (A, section 4.3)."""
    full = corpus.row("joint-full")
    balanced = corpus.row("joint-balanced")
    qk = corpus.row("joint-qk")
    two_step = corpus.row("two-step-qk")
    two_step_full = corpus.row("two-step-full")
    turkish = ["tr_TR-tr_TR"]
    into_turkish = ["en_XX-tr_TR"]
    return f"""\
**Asked across languages, on the {corpus.title}.** Trained on summaries within English, Spanish and
Russian, and asked for one of these under a text in another language, `full` (at 2e-3) writes
{mean(full, SEEN_TARGET, 'off-target', 1)}% of the outputs in the wrong one, `qk`
{mean(qk, SEEN_TARGET, 'off-target', 1)}%. The balanced adversary leaves
{mean(balanced, SEEN_TARGET, 'off-target')}% (ROUGE-1 {mean(balanced, SEEN_TARGET, 'R1')}),
translation first {mean(two_step, SEEN_TARGET, 'off-target')}% with `qk` after it
({mean(two_step, SEEN_TARGET, 'R1')}) and {mean(two_step_full, SEEN_TARGET, 'off-target')}% with
`full` ({mean(two_step_full, SEEN_TARGET, 'R1')}); another text's {corpus.summary} has
{mean_baseline(corpus, SEEN_TARGET, 'random')}.{of_one_sentence(corpus)} Turkish had no summaries:
within it {mean(full, turkish, 'off-target')}% are off-target under `full`,
{mean(qk, turkish, 'off-target')}% under `qk`, {mean(balanced, turkish, 'off-target')}% under the
adversary, {mean(two_step, turkish, 'off-target')}% after two steps with `qk`; from English into it,
after two steps, {mean(two_step, into_turkish, 'off-target')}% with `qk` and
{mean(two_step_full, into_turkish, 'off-target')}% with `full`{of_best_rate(corpus)}."""


def of_best_rate(corpus):
    """The same with `full` at its best rate on English; the built-in corpus alone has twice that
    rate in its other rows."""
    found = mean("two-step-full-best", ["en_XX-tr_TR"], "off-target")
    if corpus is not BUILT_IN or found == NOTHING:
        return ""
    return f" ({found}% at its best rate on English)"


def of_one_sentence(corpus):
    """What a model that writes one sentence whatever it reads scores, beside the adversary."""
    constant = "joint-balanced-drop"
    if corpus is not BUILT_IN or mean(constant, SEEN_TARGET, "R1") == NOTHING:
        return ""
    return (
        f" Of the facts the adversary has {mean('joint-balanced', SEEN_TARGET, 'facts')}%, two "
        f"steps with `qk` have {mean('two-step-qk', SEEN_TARGET, 'facts')}%, and a model that "
        "writes the same whatever it reads (`balanced` with residual drop) has "
        f"{mean(constant, SEEN_TARGET, 'facts')}%."
    )


def of_taught_pair():
    """A model that translates all pairs is taught one of them again."""
    kept = []
    for name in ("translator", "translator-full", "translator-full-slow", "translator-qk"):
        by_pair = [list(scores_of(name, "BLEU", pair).values()) for pair in TRANSLATED[1:]]
        if not all(by_pair):
            return NOTHING
        kept.append(f"{np.mean([np.mean(found) for found in by_pair]):.0f}")
    known, full, full_slow, qk = kept
    return f"""\
**With translation as the task a low rate saves `full` too.** A model that translates all pairs of
four languages is taught English to Spanish again. The other pairs had BLEU {known} on the mean.
`full` at 2e-3 leaves {full} of it (most of that from Russian into Spanish). `qk` at 4e-3 leaves
{qk}, and `full` at 5e-4, tried afterwards, {full_slow}: validation on the taught pair, which all
learn whole, cannot tell these two rates of `full` apart."""


def of_new_languages():
    """A new language for a trained translation model (B)."""
    return f"""\
**A new language.** A model that translates French into English learns to read German, in 60
updates. With new embeddings alone it reaches BLEU {bleu('child-src')}, with the cross-attention
beside them {bleu('child-src+xattn')}, with the whole body {bleu('child-src+body')}; to write it, in
200, {bleu('child-tgt')}, {bleu('child-tgt+xattn')} and {bleu('child-tgt+body')}. With the parent's
own embeddings back, French then has {bleu('child-src+parent')},
{bleu('child-src+xattn+parent')} and {bleu('child-src+body+parent')}. So the cross-attention gains
half of what the body gains or more, and forgets less. From 300 sentences only the body gains (BLEU
{bleu('low-src@300')}, {bleu('low-src+xattn@300')} and {bleu('low-src+body@300')})."""


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
{retrieved[2]}%, for languages that it never saw from {retrieved[1]} to {retrieved[3]}%. Across the
languages that had summaries it lowers off-target outputs from
{mean('joint-full', SEEN_TARGET, 'off-target')} to
{mean('joint-align', SEEN_TARGET, 'off-target')}%; what is then written has
{mean('joint-align', SEEN_TARGET, 'facts')}% of the facts (after two steps with `qk`
{mean('two-step-qk', SEEN_TARGET, 'facts')}%). Turkish had neither summaries nor alignment: from
English into it {mean('joint-align', ['en_XX-tr_TR'], 'off-target')}% stay
off-target."""
