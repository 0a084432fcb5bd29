"""What was found, for a reader in a hurry: sentences whose numbers come from the scores, each with
the picture that shows it."""
import textwrap

import numpy as np

from papers.scores import (
    BUILT_IN,
    EMBEDDINGS_LOWER,
    HELP,
    MIDDLE,
    SEEN_TARGET,
    TRANSLATED,
    floors_of,
    mean_of_watched,
    off_target_at,
    rates,
    results,
    retrieval_of,
    scores_of,
    values,
    watched,
)
from papers.tables import NOTHING


def findings():
    """[(text, name of a picture)], in the order of RESULTS.md, of what was measured."""
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


def mean_of(name, pairs, metric):
    """The mean of a row's metric over language pairs, seeds and examples; None where a pair was not
    measured."""
    found = [values(name, pair, metric) for pair in pairs]
    if any(scores is None for scores in found):
        return None
    return float(np.mean([scores.mean() for scores in found]))


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
**Learning English, on the {corpus.title}.** More than a tenth of the outputs in unseen languages is
off-target under `full` {drift(corpus, 'full')}, under `qk` {drift(corpus, 'qk')}. English
validation loss picks {grids['full'].best} for `full` and {grids['qk'].best} for `qk`. At these
rates `full` has {mean(full, unseen, 'off-target')}% off-target and ROUGE-1
{mean(full, unseen, 'R1', 1)} (in English {mean(full, seen, 'R1', 1)}), `qk`
{mean(qk, unseen, 'off-target')}% and {mean(qk, unseen, 'R1', 1)} ({mean(qk, seen, 'R1', 1)}); a
document's first sentence has {mean_baseline(corpus, unseen, 'lead', 1)}, another text's
{corpus.summary} {mean_baseline(corpus, unseen, 'random', 1)}. {warning(corpus)}
{below_the_best(corpus)} {with_embeddings(corpus)} {of_other_recipes(corpus)} {after_more(corpus)}
{TAKE_AWAY[corpus.title]}"""


# What a reader should do with it.
TAKE_AWAY = {
    "built-in corpus": "So `full` wants a rate that is chosen with care; `qk` forgives a bad one, "
    "and learns less of English (by its loss, 0.58 against 0.40; ROUGE-1 does not show it).",
    "real text": "So whoever chooses the rate by English (by a mix, nine tenths of which are "
    "descriptions) loses 9% of the Spanish headings under `full` and writes worse Russian ones, "
    "of which five seeds do not decide whether the language is lost; Turkish is not told from "
    "`qk`. `qk` keeps the languages at every rate that was tried, and learns less of English (by "
    "its loss, 2.82 against 2.20; headings do not decide it).",
}


def drift(corpus, recipe):
    """From which rate on a recipe loses the other languages."""
    rate = first_that_drifts(corpus, recipe)
    return "at no rate that was tried" if rate is None else f"from a learning rate of {rate} on"


def first_that_drifts(corpus, recipe):
    """The lowest learning rate at which more than a tenth of the zero-shot outputs is off-target;
    None if there is none."""
    for rate in sorted(rates(corpus.prefix)[recipe].losses, key=float):
        share = off_target_at(corpus, recipe, rate)
        if share is not None and share > 10:
            return rate
    return None


def warning(corpus):
    """What the seen language tells of the rates at which `full` loses the others: the first of
    them, and `qk`'s best."""
    grid = rates(corpus.prefix)["full"]
    first = first_that_drifts(corpus, "full")
    of_qk = rates(corpus.prefix)["qk"].best
    told = []
    for rate in dict.fromkeys((first, of_qk)):
        if rate is None or rate == grid.best or rate not in grid.losses:
            continue
        share = off_target_at(corpus, "full", rate)
        if share is None:
            continue
        rows = [f"{corpus.prefix}rate-full-{each}" for each in (rate, grid.best)]
        (loss, best), shared_seeds = mean_losses(*rows)
        told.append(
            f"{share:.0f}% at {rate}, with an English loss of {loss:.2f} (the same "
            f"{in_words(shared_seeds)} at {grid.best}: {best:.2f})"
        )
    if not told:
        return ""
    return f"`full` loses {', and '.join(told)}{of_one_run(corpus, grid.best)}."


def of_one_run(corpus, rate):
    """How far the validation losses of `full` at one rate differ from seed to seed."""
    found = results(f"{corpus.prefix}rate-full-{rate}")
    losses = [of_seed["validation loss"] for of_seed in found.values()]
    if len(losses) == 1:
        return ""
    texts = ", each with validation texts of its own," if corpus is BUILT_IN else ""
    return (
        f"; at {rate} the losses of the seeds{texts} lie between {min(losses):.2f} and "
        f"{max(losses):.2f}"
    )


def in_words(seeds):
    return "seed" if seeds == 1 else f"{seeds} seeds"


def below_the_best(corpus):
    """What `full` does at the next lower learning rate, where it loses less."""
    grid = rates(corpus.prefix)["full"]
    lower = [rate for rate in sorted(grid.losses, key=float) if float(rate) < float(grid.best)]
    if not lower:
        return ""
    rate = lower[-1]
    name = f"{corpus.prefix}rate-full-{rate}"
    unseen = corpus.zero_shot
    if mean_of(name, unseen, "off-target") is None:
        return ""
    loss = np.mean([of_seed["validation loss"] for of_seed in results(name).values()])
    return f"""\
At {rate}, the next below `full`'s best (seeds: {len(results(name))}),
{mean(name, unseen, 'off-target')}% are off-target{of_validation_texts(name, unseen)}, ROUGE-1 is
{mean(name, unseen, 'R1', 1)} (in English {mean(name, corpus.within[:1], 'R1', 1)}), and the loss is
{loss:.2f}: the loss alone tells no safe rate from a bad one."""


def of_validation_texts(name, pairs):
    """The same share of the last greedy outputs for validation texts, of the seed that was watched;
    "" where none was."""
    lines = watched(name)
    if not lines:
        return ""
    last = max(int(line["step"]) for line in lines)
    return f" (of validation texts {mean_of_watched(lines, last, pairs, 'off-target'):.0f}%)"


def mean_losses(*names):
    """The mean validation loss of each of some rows, over the seeds that all of them have; and how
    many these are."""
    found = [results(name) for name in names]
    seeds = set.intersection(*map(set, found))
    means = []
    for of_row in found:
        means.append(np.mean([of_row[seed]["validation loss"] for seed in seeds]))
    return means, len(seeds)


def with_embeddings(corpus):
    """What becomes of the other languages where everything trains, at its best rate; "" where that
    was not looked for."""
    grids = rates(corpus.prefix, "try")
    name = corpus.row("full+embeddings")
    unseen = corpus.zero_shot
    if "full+embeddings" not in grids or mean_of(name, unseen, "off-target") is None:
        return ""
    at_lower = ""
    lower = EMBEDDINGS_LOWER.name
    if mean_of(lower, unseen, "off-target") is not None:
        (loss, best), seeds = mean_losses(lower, name)
        at_lower = f""" At 1e-3, whose English loss is higher by {loss - best:.3f} (seeds: {seeds}),
{mean(lower, unseen, 'off-target')}% are."""
    return f"""\
With the embeddings trained too, as transformers does unless told otherwise, at
{grids['full+embeddings'].best}, the best rate by 1,000 updates (seeds: {len(results(name))}),
{mean(name, unseen, 'off-target')}% are off-target, and ROUGE-1 is {mean(name, unseen, 'R1', 1)} (in
English {mean(name, corpus.within[:1], 'R1', 1)}).{at_lower}"""


def of_other_recipes(corpus):
    """What becomes of the other languages where less trains than under `full`, each at its best
    rate; "" where that was not looked for, or not in all of them."""
    shares = []
    seeds = []
    for recipe in ("frozen_decoder", "attn_ln", "vqk", "q"):
        name = corpus.row(recipe)
        share = mean_of(name, corpus.zero_shot, "off-target")
        if recipe not in rates(corpus.prefix, "try") or share is None:
            return ""
        shares.append(share)
        seeds.append(len(results(name)))
    return f"""\
Under `frozen_decoder`, `attn_ln`, `vqk` and `q`, each at its best rate of 1,000 updates,
{max(shares):.0f}% at most are off-target (seeds: {min(seeds)} each)."""


def after_more(corpus):
    """What more updates do; "" where no row has them."""
    longer = rates(corpus.prefix, "long")
    full = corpus.row("long-full")
    qk = corpus.row("long-qk")
    seen = corpus.within[:1]
    unseen = corpus.zero_shot
    if mean_of(full, unseen, "R1") is None or mean_of(qk, unseen, "R1") is None:
        return ""
    return f"""\
After 8,000 updates in place of 3,000, at the best of the rates that were tried,
{longer['full'].best} and {longer['qk'].best} (seeds: {len(results(full))} and
{len(results(qk))}), {mean(full, unseen, 'off-target')}% are off-target under `full` and
{mean(qk, unseen, 'off-target')}% under `qk`, and ROUGE-1 is {mean(full, unseen, 'R1', 1)} and
{mean(qk, unseen, 'R1', 1)} (in English {mean(full, seen, 'R1', 1)} and
{mean(qk, seen, 'R1', 1)})."""


def of_crossing():
    """Does the skill cross, or is the language kept alone?"""
    qk = BUILT_IN.row("qk")
    full = BUILT_IN.row("full")
    seen = BUILT_IN.within[:1]
    unseen = BUILT_IN.zero_shot
    return f"""\
**`qk` learns little, and most of that crosses; `full` learns more, and next to none does.** ROUGE-1
does not tell a summary from a copy: on the built-in corpus `qk` has {mean(qk, unseen, 'R1')} in
unseen languages, a copied first sentence {mean_baseline(BUILT_IN, unseen, 'lead')}, and a model
that saw summaries in all of them {mean('supervised', unseen, 'R1')}. Words that a reference has and
its document has not do. Of these `qk` finds {mean(qk, seen, 'novel')}% in English and
{mean(qk, unseen, 'novel')}% in the unseen languages, `full` at its best rate
{mean(full, seen, 'novel')}% and {mean(full, unseen, 'novel')}%, the model that saw all (one seed)
{mean('supervised', seen, 'novel')}% and {mean('supervised', unseen, 'novel')}%. Of the facts, most
of which a copy has too, `full` recovers more there, {mean(full, unseen, 'facts')}% against
{mean(qk, unseen, 'facts')}%{of_lower_qk(unseen)}."""


def of_lower_qk(pairs):
    """What `qk` does at half its best rate, from which validation hardly tells that one
    (words.ABOUT_TABLES)."""
    found = mean("rate-qk-2e-3", pairs, "facts")
    return "" if found == NOTHING else f" ({found}% at 2e-3)"


def of_languages(corpus):
    """Trained within three languages, asked across them and in a fourth (A, section 4.3)."""
    full = corpus.row("joint-full")
    balanced = corpus.row("joint-balanced")
    qk = corpus.row("joint-qk")
    two_step = corpus.row("two-step-qk")
    two_step_full = corpus.row("two-step-full")
    return f"""\
**Asked across languages, on the {corpus.title}.** After training within English, Spanish and
Russian, {mean(full, SEEN_TARGET, 'off-target', 1)}% of the outputs of `full` (at 2e-3) into these
and {mean(qk, SEEN_TARGET, 'off-target', 1)}% of those of `qk` are off-target. The balanced
adversary leaves {mean(balanced, SEEN_TARGET, 'off-target')}% (ROUGE-1
{mean(balanced, SEEN_TARGET, 'R1')}), translation first
{mean(two_step, SEEN_TARGET, 'off-target')}% with `qk` after it
({mean(two_step, SEEN_TARGET, 'R1')}) and {mean(two_step_full, SEEN_TARGET, 'off-target')}% with
`full` ({mean(two_step_full, SEEN_TARGET, 'R1')}{of_best_rate(corpus)}); another text's
{corpus.summary} has {mean_baseline(corpus, SEEN_TARGET, 'random')}.{of_one_sentence(corpus)}
{of_pipeline(corpus)} {of_unseen(corpus)}{of_mixing(corpus)}"""


def of_best_rate(corpus):
    """Two steps with `full` at its best rate on English; the built-in corpus alone has twice that
    rate in its other rows."""
    off_target = mean("two-step-full-best", SEEN_TARGET, "off-target")
    if corpus is not BUILT_IN or off_target == NOTHING:
        return ""
    return f"; {off_target}% at its best rate on English"


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


def of_pipeline(corpus):
    """Translation, a summary within a language, translation; on the built-in corpus alone."""
    found = mean("joint-pipeline", SEEN_TARGET, "R1")
    if corpus is not BUILT_IN or found == NOTHING:
        return ""
    return f" A pipeline of translations around `qk` (one seed) has ROUGE-1 {found}."


def of_unseen(corpus):
    """What becomes of a target language that the training within three languages never saw."""
    found = []
    for name in ("joint-full", "joint-qk", "joint-balanced", "two-step-qk"):
        found.append(mean(corpus.row(name), ["tr_TR-tr_TR"], "off-target"))
    return f"""\
In Turkish, which had no summaries, {found[0]}% of the summaries within the language are off-target
under `full`{of_full_at_best(corpus)}, {found[1]}% under `qk`, {found[2]}% under the balanced
adversary and {found[3]}% after two steps with `qk`.{of_english_into_turkish(corpus)}"""


def of_full_at_best(corpus):
    """The same under `full` at its best rate on English, where other rows have twice that."""
    found = mean("joint-full-best", ["tr_TR-tr_TR"], "off-target")
    if corpus is not BUILT_IN or found == NOTHING:
        return ""
    return f" ({found}% at its best rate on English)"


def of_english_into_turkish(corpus):
    """The second step asked for a language that it never saw, from one that it did."""
    found = []
    for name in ("two-step-full", "two-step-qk"):
        found.append(mean(corpus.row(name), ["en_XX-tr_TR"], "off-target"))
    text = f" From English into Turkish, after two steps, {found[1]}% are off-target with `qk`"
    text += f" and {found[0]}% with `full`"
    at_best = mean("two-step-full-best", ["en_XX-tr_TR"], "off-target")
    if corpus is BUILT_IN and at_best != NOTHING:
        text += f" ({at_best}% at its best rate on English)"
    return f"{text}."


def of_mixing(corpus):
    """What keeps that language under the balanced adversary; on the built-in corpus alone."""
    alone = mean("joint-balanced-again", ["tr_TR-tr_TR"], "off-target")
    mixed = mean("joint-balanced-mix-tr", ["tr_TR-tr_TR"], "off-target")
    if corpus is not BUILT_IN or mixed == NOTHING:
        return ""
    return (
        f" Translations of Turkish, mixed in, keep it under that adversary ({mixed}% off-target, "
        f"without them {alone}% on the same machine), but not the content: ROUGE-1 "
        f"{mean('joint-balanced-mix-tr', ['en_XX-tr_TR'], 'R1')} from English, where another "
        f"text's headline has {mean_baseline(corpus, ['en_XX-tr_TR'], 'random')}."
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
a good part of what the body gains, and forgets less. From 300 sentences alone the three read German
with BLEU {bleu('low-src@300')}, {bleu('low-src+xattn@300')} and {bleu('low-src+body@300')}, from
10,000 with {bleu('low-src@10000')}, {bleu('low-src+xattn@10000')} and
{bleu('low-src+body@10000')}."""


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
{retrieved[2]}%, for languages that it never saw from {retrieved[1]} to {retrieved[3]}%. Off-target
outputs across languages with summaries fall from {mean('joint-full', SEEN_TARGET, 'off-target')} to
{mean('joint-align', SEEN_TARGET, 'off-target')}%; what is then written has
{mean('joint-align', SEEN_TARGET, 'facts')}% of the facts (after two steps with `qk`
{mean('two-step-qk', SEEN_TARGET, 'facts')}%). Turkish had neither summaries nor alignment: from
English into it {mean('joint-align', ['en_XX-tr_TR'], 'off-target')}% stay off-target, and within it
they rise from {mean('joint-full', ['tr_TR-tr_TR'], 'off-target')} to
{mean('joint-align', ['tr_TR-tr_TR'], 'off-target')}% (repeated on a GPU from 14 to 26%, which is
not decided)."""
