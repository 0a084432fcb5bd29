"""What RESULTS.md and CLAIMS.md say in words: what the tables show, what the open questions'
answers mean, and where our runs differ from the papers'. Numbers within these sentences are of the
scores that they were written for; {fields} are filled in from the scores (papers/claims.py,
papers/report.py)."""

INTRODUCTION = """\
Three papers in small, from this repository's own bases: Solovyev, Liu and Niehues 2024 (A), Gheini,
Ren and May 2021 (B), Liu and Niehues 2025 (C). Two corpora: the built-in grammar of news-like
sentences (6 + 3 layers), and real text, sections of LibreOffice's help and their headings (3 + 3
layers). *What was found* takes five minutes to read, the summary of the verdicts two; the tables
follow. What has not been run yet on these bases says so: "not measured", or – in a table.

The words that come again and again:

- `full` and `qk` are what trains: every tensor but the embeddings, or the query and key projections
  of the encoder's self-attention and of the cross-attention alone.
- ROUGE-1 is the overlap of an output's words with the reference's, 0 to 100; BLEU that of a
  translation's runs of words. Off-target is the share of outputs that are not in the language that
  was asked for; zero-shot: in languages that finetuning did not see.
- A probe is a classifier that learns to read the source language from a layer's states. An
  adversary is one that learns beside the model, which learns to fool it; `standard` and `balanced`
  are two losses for that.
- Alignment is a second loss that brings a text and its translation together in one layer of the
  encoder, layer 3 of 6 where no other is named. Retrieval is how often the text that lies nearest
  in another language is the translation.
- Two steps: translation is learned first, summaries after it."""

ABOUT_VERDICTS = """\
How many claims of each group are supported, open and so on, and what to take away. Every claim with
its verdict, what that rests on, and what to conclude from it: [CLAIMS.md](CLAIMS.md)."""

ABOUT_CLAIM_BY_CLAIM = """\
The counts are of language pairs (g: of comparisons). Below, for each corpus: what a verdict rests
on, and what to conclude from it."""

# The groups of claims: {letter: (what is asked, of which paper; what to take away)}.
GROUPS = {
    "a": (
        "what finetuning on English does to the other languages (A)",
        "`full` loses them at a rate that is too high; at its best one that is not shown on the "
        "built-in corpus, and on real text, where validation picks a higher one, it loses a part "
        "of the Spanish",
    ),
    "b": (
        "its price on English (A)",
        "`qk` learns the English task less well: by validation loss, on the built-in corpus by "
        "words of its own, on real text by 5 ROUGE-1 where most was learned (descriptions, on "
        "which it has no more than a copied first sentence); in headings ROUGE-1 does not show it",
    ),
    "c": (
        "which tensors may train (A)",
        "on real text no score speaks for queries and keys alone: `q`, `vqk`, `attn_ln` and "
        "`frozen_decoder` keep the languages too, and all but `q` learn more of English. At a rate "
        "at which `full` loses them, tried on the built-in corpus alone, `qk` and `q` keep them, "
        "and three seeds do not tell the others from `qk` (`vqk` loses 24% of Turkish). With the "
        "embeddings trained too most is lost, but at the best rate on the built-in corpus a "
        "seventh",
    ),
    "d": (
        "trained within three languages, asked across them (A)",
        "what is written is in the wrong language, under `qk` too; translation first mends that, "
        "on the built-in corpus under either, on real text under `qk` and in part under `full`, "
        "and so does an adversary; the content comes with it on the built-in corpus alone, less "
        "of it under the adversary",
    ),
    "e": (
        "the two adversaries (A)",
        "not told apart where source and target were seen; from an unseen source `balanced` "
        "leaves fewer outputs off-target on real text; an unseen target gets lost under both, most "
        "under `balanced`",
    ),
    "f": (
        "what a probe reads (A)",
        "an adversary makes the language harder to read; whether how hard tells how good the "
        "summaries are is open among adversaries",
    ),
    "g": (
        "new languages (B)",
        "training the cross-attention forgets less than training the body, and learns less",
    ),
    "h": (
        "alignment (C)",
        "it brings languages together, those without translations too, and mends the language of "
        "what is written across languages with summaries, with half of the content that two steps "
        "bring; where a language had neither it costs some on one machine, on another that is "
        "open. This base shares next to no meaning before it, in any layer, so nothing follows for "
        "middle layers",
    ),
    "i": (
        "what the papers leave open",
        "a low rate, tried after the result, lets `full` keep as much of translation as `qk` or "
        "more; LoRA is not told from `qk` by ROUGE-1; what keeps a language under an adversary is "
        "to translate it beside the summaries",
    ),
}

ABOUT_TABLES = """\
Written by `papers/reproduce.sh` (`papers.report`), never by hand; the scores of every example are
in `papers/scores/`. A cell: ROUGE-1 [95% interval]; below it the share of outputs in another
language (in brackets the mean posterior of the other languages) · the share of facts (who, did
what, where) recovered, on the built-in corpus. Where a figure was published for real data with
mBART-large, the small print has our ROUGE-1 of stemmed words ("ours unstemmed": the language has no
stemmer) beside the published ROUGE-1, which is of stemmed words, and the published off-target
share, which is the mean posterior in our brackets; the two can be compared in sign and order only.
"again": the authors' second run. Beam 5; 100 test documents a pair of the built-in corpus, the
whole test set of real text (across languages: the sections that all six have). Learning rates that
are no row's best, nor `qk`'s, were run with one seed (`full` and `qk` at 2e-3 with five, on both
corpora). On the built-in corpus they were chosen by 32 validation documents of one seed. On 1,000
documents of that seed `full`'s best stays 1e-3, by 0.03, and `qk`'s would be 2e-3, 0.007 below 4e-3
(LOG.md, "which validation texts choose a rate"); on the 32 of each of five seeds 4e-3 is better by
0.012. So `qk`'s best is not decided, and CLAIMS.md has the two claims about it at both rates:
supported at 4e-3, leaning at 2e-3 (3 of 4 languages), where `full` has lost 19% of the outputs in
place of 72."""

ABOUT_CLAIMS = """\
Written by `papers.report`. A claim is supported if the 95% intervals of all its differences lie on
the claimed side of zero, contradicted if all lie on the other side, open if all hold zero: not told
apart, which is not equal. Where some hold zero and all others lie on one side it leans to that side
("2 of 4"); else it is mixed. One seed gives no verdict. Where a score has no interval of its own
(BLEU, retrieval, the probe), the claim must hold in every seed, "(3 of 3 seeds)": weaker, for
chance alone puts three seeds on the claimed side once in eight times. Of the one untuned base pairs
of languages are drawn in place of examples. A correlation is of the means of settings, for seeds of
one setting are no runs of their own; its interval is Fisher's, and it needs four settings.
"off-target − 50" is by how many points more than half of the outputs are off-target; "R1 + 2" is a
difference to which the two points that the claim allows are added; "above floor": above the
baseline that the claim names.

The bootstrap draws seeds and examples; a difference is taken example by example, and a baseline
counts as a constant, its mean. Three seeds say little of how far seeds differ: their distances from
their mean are widened by Student's t before they are drawn (by 2.7 for three, 1.6 for five), or
what is called 95% would be 85% where they do differ.

Group c compares recipes at one learning rate on the built-in corpus, `qk`'s, as the paper has one
for all, two of them with `full` at its own best rate, and then all with `qk`, each at its own best
rate of one seed; on real text `full` and `qk` are at their best rates by 3,000 updates, the others
at the best of three or four by 1,000 updates of one seed (`attn_ln`'s is `qk`'s, so that it stands
beside `full` at that rate too). In groups d to f no rate was chosen for what is trained within
three languages: on the built-in corpus `full` trains at 2e-3, with an adversary or without, twice
its best rate on English, for an adversary has to move the encoder (two claims have it at that best
rate, 1e-3), and `qk` at its best on English. On real text both have their best rates on English,
2e-3 and 4e-3."""

ABOUT_HELP = """\
A section of LibreOffice's help -> its heading, and in English a package's description -> its title
(55,598 examples, of which the sections are 4,347); of LibreOffice 7.4.7, for another release has
other sections. 3,000 updates. `full` and `qk` stand at the rate with the lowest validation loss on
English, of all 1,570 validation examples (LOG.md tells why of so many), the other recipes at the
best rate after 1,000 updates of one seed (8e-3 was tried where 4e-3 was the best of three: for `q`
it is better by 0.008, but after 3,000 updates worse by 0.011; no higher one was tried).
`full`'s best is 2e-3 beyond doubt, for the others lie 0.016 and more above it and its seeds within
0.010; `qk`'s is 4e-3, by 0.012 on the mean of five seeds, which lie within 0.005. That loss still
falls at the end, `full`'s by 0.06 in the last 500 updates at 2e-3, with a learning rate that goes
to zero: hence the rows of 8,000 updates, at the best rate of 3,000 and at the one below it. Of
these 2e-3 is the best of both, of `qk` by 0.003.

On the way `full` loses more than it has lost in the end: at 2e-3 53% of the greedy outputs for
validation texts in unseen languages are off-target after 2,000 of the 8,000 updates, and 15% after
all of them, when the learning rate has fallen to zero (at 1e-3 12 and 6%; `qk` never has more than
3%). The picture has the curves. Greedy search loses more than the beams of the table: of the
Spanish, after 3,000 updates at 2e-3, 21% of the validation texts and, of the same seed, 11% of the
test.

Validation loss by learning rate (of seed 0), in brackets the share of zero-shot outputs in another
language (of all seeds):"""

ABOUT_NOVEL = """\
ROUGE-1 does not tell a summary from a copied sentence. Of the words of a reference that its source
has not (on the built-in corpus: a category for a thing, an area for a place, another verb), the
share that the output has, in percent, mean [95% interval]; nothing that was copied counts. A
measure of ours, added when the runs were there."""

ABOUT_DESCRIPTIONS = """\
All 3,001 English test descriptions -> titles: nine tenths of what was learned. `full` learned more
than a copied first sentence has; `qk` has no more than one. Of the words of a title that its
description has not, `full` finds 5.0%, `qk` 0.4% and the untuned base 0.1%."""

ABOUT_SLIPS = """\
Of each language and seed the first output, of `full` and of `full+embeddings` at their best rates,
that the identifier of languages takes for another language than the one asked for. It errs: the one
with "veya" is Turkish, with names of programs in it. Of the references themselves it takes for
another: {of_references}. So much of every share may be its error."""

ABOUT_HELP_JOINT = """\
Trained on sections alone, within each of the three languages, 1,000 updates at the rates above; the
first of the two steps translates paragraphs in every pair of en, es, ru and tr, 3,000 updates.
Asked across languages, the 124 test sections that all languages have; within Turkish all 186."""

ABOUT_HELP_RETRIEVAL = """\
Retrieval of translations, % right among 200 paragraphs, the mean over pairs of en, es, ru, tr:"""

ABOUT_FEW_SHOT = """\
All layers train, on top of either zero-shot model, for 12, 6, 4 and 2 epochs of 10, 100, 1000 and
10000 examples (12, 24, 154 and 769 updates); the last model counts. `full` here is that of `qk`'s
rate, which has lost Spanish (ROUGE-1 5, 95% off-target, of this seed; for the rows of 10 and 100
examples, of another machine, 16 and 75%); at its best rate `full` has 47 without an example, and
`qk` 48."""

ABOUT_PROBES = """\
A probe, a fresh classifier over en, es, ru, tr (chance 0.25), reads documents without their
language tag: the mean probability of the true language over tokens, which is what was published,
and its accuracy; "rescaled": accuracy on states of variance 1 in every dimension. SVCCA: mean
similarity of language pairs, in brackets its floor, with one language's documents shuffled."""

ABOUT_CHILDREN = """\
A parent translates French into English; its children read German after 60 updates or write it after
200 (mBART variants: 200). Mean over seeds [lowest, highest]; 100 test texts. Dictionary: share of
German words whose nearest parent embedding is a translation."""

ABOUT_ALIGNMENT = """\
Trained within en, es and ru, asked across; alignment of encoder layer 3 on Spanish and on Russian
sentences with their English translations."""

ABOUT_TRANSLATION = """\
400 updates on English to Spanish alone, of the base and of the model that translates all pairs of
en, es, ru and tr; the rates are those of this page's other tables, 4e-3 for `qk` and 2e-3 for
`full`, which is also tried at a quarter of that, 5e-4. A cell: BLEU, mean over seeds [lowest,
highest], and the share of outputs in another language; 100 test sentences."""

ABOUT_FREEZING = """\
On English alone, at `qk`'s learning rate: what of the model's parameters trains, in percent, and
what that does to the other languages. (A pattern of names picks no single head: the heads of a
layer are one matrix.)"""

ABOUT_QK_AND_ADVERSARY = """\
Trained within en, es and ru, all four without the source tag; the probability is the probe's, in
the encoder's last layer. `full`'s rows are those above, run on CPU cores, `qk`'s ran on a GPU."""

ABOUT_UNSEEN_TARGET = """\
The balanced adversary, trained within en, es and ru as above, and five attempts to keep it from
losing Turkish: the decoder frozen; from the translation model; with alignment in layer 3; with a
batch of translations (and copies) among en, es and ru in every update, which weighs as much as the
batch of summaries; and the same with tr. All six ran on one machine, the adversary alone once more:
the same seed loses another share of Turkish on another machine."""

ABOUT_LORA = """\
On English alone, each at its best rate by English validation loss: LoRA of rank 12 on all
projections trains 285,696 parameters, `qk` 297,216 (4% more)."""

ABOUT_ROBUSTNESS = """\
The alignment of layer 3 on en-es and en-ru beside other layers and other languages; otherwise the
same runs. Retrieval of translations, %, in the aligned layer (layer 3 for the run without). The
first row and layer 3 on both pairs are those above, run on CPU cores, the others ran on a GPU.
Repeated there, these two have 92 and 16% off-target outputs (mean of the four pairs)."""

ABOUT_BOTH_SIDES = """\
The parent fr→en with a new German source and a new Spanish target, 200 updates on de→es: `both`
trains the new embeddings of both sides alone, the others the cross-attention or every layer too.
Beside them two children that were stitched together without any de-es data."""

ABOUT_FEW_SENTENCES = """\
A new German source for the parent fr→en from so many sentences: BLEU of de→en, mean over seeds
[lowest, highest], the best of 200 updates by validation loss. These read 10,000 to 11,500 sentences
in all. The German vocabulary is the same everywhere, learned from 20,000 sentences."""

# What a reader should conclude where the verdict does not say all: {(corpus, claim): (the
# verdict's first words that it was written for, sentence)}.
CONCLUSIONS = {
    (
        "built-in corpus",
        "full finetuning on English loses the other languages, at `qk`'s rate: more off-target "
        "outputs than `qk`",
    ): (
        "supported",
        "Not because it has learned more by then: after 200 of the 400 updates `full` has an "
        "English loss of 0.58 and 74% off-target, `qk` after 300 one of 0.57 and 1% (one seed).",
    ),
    (
        "built-in corpus",
        "each at its own best rate: `full` has more off-target outputs than `qk`",
    ): (
        "open",
        "On this corpus forgetting is a matter of the rate: at the one that English validation "
        "chooses `full` is not told from `qk`. What `qk` gains here is that no rate had to be "
        "chosen well.",
    ),
    (
        "built-in corpus",
        "each at its own best rate: `full` has the lower zero-shot ROUGE-1",
    ): (
        "open",
        "In ROUGE-1 the two are not told apart, which copying alone would give; by facts, which "
        "reward copying, `full` is 7 points ahead on the mean of the four languages [1, 12]; of "
        "`qk` at 2e-3, which validation hardly tells from 4e-3 and which has 5 points more of the "
        "facts [2, 9], by 1 point, which is open [-4, 7] (five seeds each).",
    ),
    ("built-in corpus", "both at 2e-3: `full` has more off-target outputs than `qk`"): (
        "leans for: 3 of 4",
        "At the rate that 1,000 validation documents would choose for `qk`, twice `full`'s best, "
        "`full` loses 42% of the Turkish and a tenth to a seventh of the Spanish and Russian "
        "outputs, `qk` none. In Gujarati one seed of five loses a fifth, one a tenth, three next "
        "to none.",
    ),
    ("built-in corpus", "both at 2e-3: `full` has the lower zero-shot ROUGE-1"): (
        "leans for: 3 of 4",
        "`full` falls below a copied first sentence in all four languages, and in three of them "
        "measurably below `qk`.",
    ),
    (
        "built-in corpus",
        "`qk` carries the skill over: higher zero-shot ROUGE-1 than the source's first sentence",
    ): (
        "open",
        "ROUGE-1 does not tell: a copied first sentence scores as much. The next claim asks more "
        "sharply.",
    ),
    (
        "built-in corpus",
        "`qk` carries the skill over: it finds more words that the reference has and the source "
        "has not than `full` at its best rate (ours)",
    ): (
        "leans for: 2 of 4",
        "In two languages of four, Spanish and Russian, more of what is learned of English crosses "
        "under `qk`: under `full`, which learned more of it, next to none does. In Turkish and "
        "Gujarati the two cannot be told apart.",
    ),
    ("built-in corpus", "`frozen_decoder` lies above `full` at `qk`'s rate zero-shot"): (
        "supported",
        "At that rate `full` has collapsed: see the claim at its own best one.",
    ),
    ("built-in corpus", "`attn_ln` lies above `full` at `qk`'s rate zero-shot"): (
        "supported",
        "For the same reason: see the claim at `full`'s own best rate.",
    ),
    ("built-in corpus", "`frozen_decoder` lies above `full` at its own best rate zero-shot"): (
        "open",
        "With its rate chosen well `full` cannot be told from it: on the mean `full` is ahead in "
        "three languages of four.",
    ),
    ("built-in corpus", "`attn_ln` lies above `full` at its own best rate zero-shot"): (
        "open",
        "No reason to prefer it to `full` with its rate chosen well.",
    ),
    (
        "built-in corpus",
        "the balanced adversary mends the content: more of it than another document's headline",
    ): (
        "supported",
        "Some of it: about half of the facts that two steps bring (14 and 27%; a model that writes "
        "the same whatever it reads has 4%).",
    ),
    (
        "built-in corpus",
        "the probe's mean probability of the true language falls from `full` to `standard` to "
        "`balanced` (and with residual drop again)",
    ): (
        "supported",
        "But the last one, with residual drop, writes the same whatever it reads: a language that "
        "cannot be told is no aim by itself.",
    ),
    (
        "built-in corpus",
        "the lower that probability, the higher zero-shot cross-lingual ROUGE-1, over the settings "
        "of one step and over those with an adversary alone",
    ): (
        "leans for: 1 of 2",
        "It tells runs with an adversary from runs without, and these two clusters make a "
        "correlation by themselves. Among those with an adversary nothing is decided: "
        "the one under `qk` has both more probability and less ROUGE-1, and the three under `full` "
        "have the opposite sign.",
    ),
    ("built-in corpus", "`qk` pays on the seen language, each at its best rate"): (
        "open",
        "ROUGE-1 shows no price on English (published: 2.3). The validation loss does, 0.58 "
        "against 0.40 on the mean of five seeds and higher in each, and of words that only the "
        "reference has `full` finds 11 points more [3, 19].",
    ),
    ("built-in corpus", "`qk` lies above `frozen_decoder` zero-shot"): (
        "open",
        "Choose either: not told apart, with a whole encoder training beside the queries and keys.",
    ),
    ("built-in corpus", "`qk` lies above `attn_ln` zero-shot"): (
        "open",
        "Choose either: training the layer norms and all of attention beside queries and keys "
        "neither gains nor costs what 100 texts and three seeds can tell.",
    ),
    (
        "built-in corpus",
        "`qk` lies above `vqk` zero-shot (published: es −0.3, ru +0.2, gu +0.8)",
    ): (
        "open",
        "`vqk` loses ground in Russian and Turkish on the mean, but its seeds differ too much to "
        "say so; recipes that train the values and more, `attn_ln` and `frozen_decoder`, forget "
        "less.",
    ),
    ("built-in corpus", "`qk` lies above `q` zero-shot (published: es +0.1, ru +0.5, gu +0.6)"): (
        "leans against: 1 of 4",
        "At `qk`'s rate queries alone are ahead in Russian and not told apart elsewhere; by facts "
        "they are ahead by 10 points on the mean of the four languages [4, 17]. With keys English "
        "is learned better, in every seed (validation loss), and outside English `qk` finds 3 "
        "points more words of its own [0, 6]. `qk` at 2e-3 (three seeds) is in no language told "
        "from queries alone at 4e-3, in facts or ROUGE-1.",
    ),
    (
        "built-in corpus",
        "after joint intralingual finetuning most outputs across languages are not in the target "
        "language (`full`)",
    ): (
        "leans for: 3 of 4",
        "Between languages that were seen nearly all are not; from Turkish, which was not seen, "
        "two thirds, and these mix the two languages.",
    ),
    (
        "built-in corpus",
        "after joint intralingual finetuning most outputs across languages are not in the target "
        "language (`full` at its best rate on English)",
    ): (
        "leans for: 3 of 4",
        "The same at the lower rate, so it is not the rate. From Turkish most outputs are in "
        "another language in each of the three seeds, but these differ too much for a verdict.",
    ),
    ("built-in corpus", "it lifts cross-lingual transfer: fewer off-target outputs"): (
        "leans for: 3 of 4",
        "Between languages that were seen by far. From Turkish the share falls in every seed, from "
        "45 to 79% to 11 to 21%, but three seeds that differ so much do not decide it.",
    ),
    ("built-in corpus", "two steps with `qk` beat two steps with `full`"): (
        "leans for: 2 of 6",
        "By far from English into a language whose summaries the second step never saw (30 points "
        "into Turkish), by a little from Spanish into English; nowhere are they worse on the mean. "
        "At `full`'s best rate on English less is left: see below.",
    ),
    (
        "built-in corpus",
        "in the second step the cross-attention's q and k alone come within 2 ROUGE-1 of `qk` "
        "(published: es→en +0.2, en→tr −2.2)",
    ): (
        "leans for: 1 of 2",
        "Not told from `qk`: +2.8 [-0.3, +6.1] from Spanish, -0.6 [-6.3, +5.5] into Turkish.",
    ),
    ("built-in corpus", "balanced beats standard: higher ROUGE-1"): (
        "open",
        "Where the target was seen the two cannot be told apart here.",
    ),
    ("built-in corpus", "balanced beats standard: fewer off-target outputs"): (
        "open",
        "Where the target was seen hardly an output of either is in another language. Within "
        "Turkish, where it was not, `standard` does less harm: 39% are in another language, under "
        "`balanced` 96% (79% on another machine); from English into Turkish 92 and 95%.",
    ),
    ("built-in corpus", "after `adv_tuned`, balanced beats standard: higher ROUGE-1"): (
        "open",
        "The published difference (33.6 against 21.5 from Spanish) does not appear: retraining the "
        "decoder undoes neither adversary here.",
    ),
    ("built-in corpus", "after `adv_tuned`, balanced beats standard: fewer off-target outputs"): (
        "open",
        "Nor does the published one (1.3% against 38.6%) appear.",
    ),
    (
        "built-in corpus",
        "BLEU: scratch < embeddings alone < random cross-attention < cross-attention",
    ): (
        "mixed: 5 of 6 for it, 1 against",
        "As published, but for a random cross-attention where German is read: after 60 updates the "
        "embeddings alone do better.",
    ),
    (
        "built-in corpus",
        "training the cross-attention comes within 2 BLEU of training the body",
    ): (
        "contradicted",
        "The body does better, by far where German is written (200 updates), and by 6 BLEU where "
        "it is read (60 updates). From 10,000 sentences, read for 200 updates, it is 1 to 5 ahead, "
        "by seed, close to the most that can be had.",
    ),
    (
        "built-in corpus",
        "cross-attention leaves the new embeddings more aligned than body: dictionary induction, %",
    ): (
        "contradicted",
        "The child that trained its body has more words right, after 60 updates. What both need is "
        "the parent's cross-attention: with a random one it is 1%.",
    ),
    (
        "built-in corpus",
        "stitching works: de→es without de-es data reaches half the BLEU of the trained fr→es",
    ): (
        "contradicted",
        "It translates, but with an eighth of the trained child's BLEU: two children that never "
        "met agree on little.",
    ),
    (
        "built-in corpus",
        "two steps with `qk` beat two steps with `full` at its best rate on English",
    ): (
        "leans for: 1 of 6",
        "Where the target's summaries were seen the two are not told apart. From English into "
        "Turkish, where they were not, `qk` is 11 points ahead: a fifth of `full`'s outputs are "
        "off-target, none of `qk`'s, which three seeds do not decide. Within Turkish `full` "
        "recovers more facts (52 against 40%).",
    ),
    (
        "built-in corpus",
        "translation retrieval peaks in the middle of the encoder (layer 3 above both ends)",
    ): (
        "one seed: 0 of 2 for it, 1 against",
        "Nothing yet: hardly anything is found in any layer of this base (4 to 8%), and there is "
        "one such base.",
    ),
    (
        "built-in corpus",
        "adapters trained apart and merged (0.5 each): fewer off-target outputs than the task's "
        "alone",
    ): (
        "open",
        "Not at half strength; at full strength, 1 and 1, they bring it down to some 60% of the "
        "outputs.",
    ),
    (
        "built-in corpus",
        "on English alone the cross-attention's q and k come within 2 ROUGE-1 of `qk` zero-shot",
    ): (
        "open",
        "Two points are less than these runs can tell.",
    ),
    (
        "built-in corpus",
        "`qk` lies above LoRA of the same size zero-shot, each at its best rate",
    ): (
        "open",
        "Not told apart by ROUGE-1. By words of its own LoRA has 5 points fewer in Spanish [0, 11] "
        "and 7 in Russian [0, 16].",
    ),
    (
        "built-in corpus",
        "a model that translates all pairs, taught one of them again, keeps the others better "
        "under `qk` at 4e-3 than under `full` at 2e-3",
    ): (
        "supported",
        "At these rates: see the next claim.",
    ),
    (
        "built-in corpus",
        "a model that translates all pairs, taught one of them again, keeps the others better "
        "under `qk` at 4e-3 than under `full` at 5e-4",
    ): (
        "leans against: 3 of 5",
        "At that rate `full` keeps them as well or better. It was tried after the result at 2e-3; "
        "validation on the taught pair cannot tell the two rates apart (0.0009 and 0.0010 on the "
        "mean of three seeds; the other way round in the first): who chooses by what is taught "
        "gets either. What `qk` brings is that it keeps them at eight times `full`'s low rate.",
    ),
    (
        "built-in corpus",
        "an adversary under `qk` fails: most outputs across languages are not in the target "
        "language all the same",
    ): (
        "leans for: 3 of 4",
        "As published, but from Russian: there a third comes out in English on the mean.",
    ),
    (
        "built-in corpus",
        "the balanced adversary keeps Turkish better, `frozen_decoder`: fewer off-target "
        "outputs",
    ): (
        "open",
        "On the mean less of Turkish is lost, in one seed half as much, but the seeds differ too "
        "much to say so; and the languages that were seen get lost across each other.",
    ),
    (
        "built-in corpus",
        "the balanced adversary keeps Turkish better, from the translation model: fewer off-target "
        "outputs",
    ): (
        "open",
        "That model writes Turkish; the adversary undoes it. Across languages it is the better "
        "start.",
    ),
    (
        "built-in corpus",
        "the balanced adversary keeps Turkish better, with alignment: fewer off-target "
        "outputs",
    ): (
        "open",
        "In two seeds half as much is lost, in one nearly all.",
    ),
    (
        "built-in corpus",
        "the balanced adversary keeps Turkish better, with translations of en, es, ru: fewer "
        "off-target outputs",
    ): (
        "open",
        "On the mean half as much is lost: in every seed less than without, by 9 to 60 points.",
    ),
    (
        "real text",
        "full finetuning on English loses the other languages, at `qk`'s rate: more off-target "
        "outputs than `qk`",
    ): (
        "supported",
        "At 4e-3 the loss of `full` on English is 0.02 above that at its best rate and its English "
        "ROUGE-1 the same, 20.2: the loss warns by a little, ROUGE-1 not at all.",
    ),
    (
        "built-in corpus",
        "with the embeddings trained too (`full+embeddings`): more off-target outputs than `qk`",
    ): (
        "supported",
        "At `qk`'s rate; at its own best one less is lost, see below.",
    ),
    (
        "built-in corpus",
        "each at its own best rate: `full+embeddings` has more off-target outputs than `qk`",
    ): (
        "leans for: 1 of 4",
        "At 1e-3, the best rate of `full` too, which loses 1 to 3% there, 20% of the Spanish, 14% "
        "of the Russian and 22% of the Turkish outputs are lost; seeds differ so much (of the "
        "Spanish 4, 7 and 48%) that it is shown in Turkish alone.",
    ),
    (
        "built-in corpus",
        "each at its own best rate: `qk` lies above `frozen_decoder` zero-shot",
    ): (
        "leans for: 1 of 4",
        "By one seed its best rate is the highest that was tried, 8e-3, at which a tenth of the "
        "Turkish outputs is lost (by seed 3, 20 and 6%). At 4e-3 it is 4%, and by three seeds the "
        "English loss is the same, 0.43 (`qk` 0.56).",
    ),
    ("built-in corpus", "each at its own best rate: `qk` lies above `attn_ln` zero-shot"): (
        "open",
        "Choose `attn_ln` if you want more of English: at 2e-3 its loss is 0.43 where `qk` has "
        "0.56. Two seeds of three lose 7 and 5% of the Russian outputs, one 7% of the Turkish, and "
        "of words of its own outside English it finds 4 points fewer than `qk` [0, 7].",
    ),
    ("built-in corpus", "each at its own best rate: `qk` lies above `vqk` zero-shot"): (
        "open",
        "Not told apart. 9% of the Russian outputs are lost on the mean (13, 11 and 3%). That 1e-3 "
        "is its best rate is of one seed (0.468; 4e-3 0.470, and 0.466 on another machine); of "
        "three seeds 4e-3 is the lower, 0.48 against 0.50.",
    ),
    ("built-in corpus", "each at its own best rate: `qk` lies above `q` zero-shot"): (
        "open",
        "Not told apart, at twice the rate and nearly the same English loss (0.58 and 0.56): "
        "queries alone do.",
    ),
    (
        "real text",
        "with the embeddings trained too (`full+embeddings`): more off-target outputs than `qk`",
    ): (
        "supported",
        "The published failure: nearly all of the Russian, 68 to 85% of the Spanish and 45 to 78% "
        "of the Turkish headings are lost, by seed, at 2e-3. 1e-3 does not spare them, as it does "
        "under `full`: 29, 48 and 27% are lost in one seed, at an English loss of 2.025 against "
        "2.007. Frozen embeddings (`full`) keep most of them.",
    ),
    ("real text", "`frozen_decoder` lies above `full` at its own best rate zero-shot"): (
        "leans for: 1 of 3",
        "In Spanish, of which `full` loses a tenth; it keeps the languages as `qk` does (0 to 2% "
        "off-target in three seeds), at an English loss of 2.77 where `full` has 2.20 and `qk` "
        "2.82.",
    ),
    ("real text", "`attn_ln` lies above `full` at its own best rate zero-shot"): (
        "leans for: 1 of 3",
        "In Spanish, of which `full` loses a tenth; it keeps the languages (0 to 2% off-target in "
        "three seeds) at an English loss of 2.51, nearer to `full`'s 2.20 than `qk`'s 2.82.",
    ),
    ("real text", "`attn_ln` lies above `full` at `qk`'s rate zero-shot"): (
        "leans for: 2 of 3",
        "At that rate, which is `attn_ln`'s best too, `full` has lost 30% of the outputs, in "
        "Turkish least. See the claim at `full`'s own best one.",
    ),
    ("real text", "`qk` lies above `frozen_decoder` zero-shot"): (
        "open",
        "Choose either: not told apart in three seeds, at nearly the same English loss (2.77 "
        "against 2.82).",
    ),
    ("real text", "`qk` lies above `attn_ln` zero-shot"): (
        "open",
        "Choose `attn_ln` if you want more of English: no language tells the two apart in three "
        "seeds, and its English loss is 2.51 against 2.82. (In Russian its seeds differ, from 7 to "
        "9 points.)",
    ),
    ("real text", "`qk` lies above `vqk` zero-shot (published: es −0.3, ru +0.2, gu +0.8)"): (
        "open",
        "As published, the values may train too: no language is lost, none tells the two apart, "
        "and the English loss is lower, 2.60 against 2.82.",
    ),
    ("real text", "`qk` lies above `q` zero-shot (published: es +0.1, ru +0.5, gu +0.6)"): (
        "open",
        "Not told apart in three seeds: queries alone are half the weights, at an English loss of "
        "2.92 against 2.82.",
    ),
    ("real text", "each at its own best rate: `full` has more off-target outputs than `qk`"): (
        "leans for: 1 of 3",
        "Of the Spanish outputs {es_3000}% are lost, by seed; in Russian two seeds of five lose a "
        "tenth, in Turkish none does.",
    ),
    ("real text", "each at its own best rate: `full` has the lower zero-shot ROUGE-1"): (
        "leans for: 2 of 3",
        "`full` is 4 to 5 points below in Spanish and in Russian, most of it in outputs that are "
        "still in the language. In Turkish the two are not told apart. What it gains for that in "
        "English is a lower loss, 2.20 against 2.82: see b.",
    ),
    (
        "real text",
        "after 8,000 updates, each at its own best rate: `full` has more off-target outputs than "
        "`qk`",
    ): (
        "leans for: 1 of 3",
        "Longer training loses more: of the Spanish outputs {es_8000}% by seed, {more_es} than "
        "after 3,000, while the English loss of `full` falls from {loss_3000} to "
        "{loss_8000}. Of the Russian ones {ru_8000}% are lost, of the Turkish next to none.",
    ),
    (
        "real text",
        "after 8,000 updates, each at its own best rate: `full` has the lower zero-shot ROUGE-1",
    ): (
        "leans for: 2 of 3",
        "5 points in Russian, 7 to 8 in Spanish. Beside these seeds' 3,000 updates no ROUGE-1 of "
        "`full` or of `qk`, both at 2e-3, is told apart.",
    ),
    (
        "real text",
        "`qk` carries the skill over: higher zero-shot ROUGE-1 than the source's first sentence",
    ): (
        "leans against: 1 of 3",
        "Not by ROUGE-1: the language is kept, but the headings are no better than a first "
        "sentence, in English neither.",
    ),
    (
        "real text",
        "`qk` carries the skill over: it finds more words that the reference has and the source "
        "has not than `full` at its best rate (ours)",
    ): (
        "open",
        "On headings this tells nothing: `qk` finds 1% of such words in English, less elsewhere "
        "(0.2 to 0.4%, the untuned base 0.7 to 1.2%), and of such words in titles of packages "
        "0.4%, `full` 5%. What `qk` has hardly learned cannot be seen to cross: this corpus does "
        "not test it.",
    ),
    (
        "real text",
        "after joint intralingual finetuning most outputs across languages are not in the target "
        "language (`full`)",
    ): (
        "supported",
        "The published failure whole: 93 to 100% of the outputs, under `qk` and without the source "
        "tag as well.",
    ),
    ("real text", "two steps mend the content: more of it than another document's headline"): (
        "leans against: 3 of 6",
        "From Russian and Turkish into English and from Spanish into Russian what is written has "
        "less of the reference than another section's heading; the other two pairs across are "
        "open. The step before it translates poorly: BLEU 7 to 18 on four pairs.",
    ),
    ("real text", "two steps with `qk` beat two steps with `full`"): (
        "leans for: 2 of 6",
        "In ROUGE-1 by 3 points from Spanish into English and from English into Turkish. In "
        "language most clearly into Turkish: from English 15% are off-target, 93% under `full`.",
    ),
    (
        "real text",
        "the balanced adversary mends the content: more of it than another document's headline",
    ): (
        "contradicted",
        "It mends the language and brings no content: ROUGE-1 is 1 to 2 as without it, a fifth of "
        "another section's heading (8); published 17 to 33, of stemmed words (ours 1 to 3).",
    ),
    (
        "real text",
        "the probe's mean probability of the true language falls from `full` to `standard` to "
        "`balanced` (and with residual drop again)",
    ): (
        "leans for: 1 of 2",
        "Either adversary halves it; which of the two more is not told.",
    ),
    ("real text", "balanced beats standard: higher ROUGE-1"): (
        "open",
        "Nothing to choose between: under either adversary ROUGE-1 is 1 to 3, where another "
        "section's heading has 8.",
    ),
    ("real text", "balanced beats standard: fewer off-target outputs"): (
        "leans for: 1 of 4",
        "From Turkish, whose summaries nobody saw, 2% are off-target under `balanced` and 27% "
        "under `standard`; between the languages that were seen the two are not told apart.",
    ),
    ("real text", "`qk` pays on the seen language, each at its best rate"): (
        "open",
        "On sections the direction is the published one, but these seeds do not decide it. On "
        "descriptions, nine tenths of what was learned, they do: {paid} in ROUGE-1 (3,001 texts, "
        "three seeds); and so does the validation loss, 2.82 under `qk` and 2.20 under `full`.",
    ),
}

# The answer to each open question of RESULTS.md: {papers/report.py's name of it: text}.
INTERPRETATIONS = {
    "freezing": """\
Little has to train: the cross-attention's queries and keys alone, a third of `qk`'s, are 0.8
ROUGE-1 below `qk` outside English on the mean of the seeds that both have, and 2.7 in English;
these seeds decide neither. And the least is not the safest: of single layers 1 to 3, which the
decoder has too, learn most of the task (English ROUGE-1 54 to 57), 4 to 6 hardly any (47 to 49; the
untuned base has 46), and all but the fourth send 5 to 17% of the Russian outputs into another
language, all layers together 1%. How much trains does not decide alone: `frozen_decoder` trains
half of the model and keeps the languages, `vqk` a fifth and loses more on the mean, which is
open.""",
    "lora": """\
Which, as far as the skill goes. By ROUGE-1 LoRA of the same size cannot be told from `qk` in any
language, but of the words that only the reference has (the table of these is further up) it finds
10 points more in English and, of seeds 0 to 2, 5 [0, 11] and 7 [0, 16] fewer in Spanish and
Russian: it learns more of English and carries less of it over, as `full` does. In Russian 6 and in
Turkish 9% of its outputs are in another language, 1% of `qk`'s.""",
    "translation": """\
One pair makes no translator of the base: of the other pairs no BLEU exceeds 7, for it writes
Spanish, copies, or mixes both, and `qk` learns that one pair to a third only. But a model that
translates all pairs, taught one of them again, forgets the others under `full` at 2e-3 within 400
updates (BLEU 97 to 99 before, 1 to 8 after; only ru→es, which shares the target, keeps 71), and
keeps them under `qk` at 4e-3 (85 to 96). At 5e-4, an eighth of `qk`'s rate, `full` keeps them as
well. But that rate was tried because the other had forgotten: validation on the taught pair, which
both learn whole (BLEU 100), does not tell the two apart (0.0009 and 0.0010 on the mean, the other
way round in the first seed), and so warns of nothing.""",
    "qk and adversary": """\
They do not go together. An adversary needs an encoder that moves, and under `qk` too little of it
does: the probe still gives the true language 0.76 (0.56 under `full`), and most outputs across
languages stay in another one. What `qk` is for is lost on the way: of Turkish, which `qk` alone
keeps whole, a third is in another language.""",
    "unseen target": """\
Why is it lost? These runs do not tell on which side. With the decoder frozen Turkish is lost too
(68% off-target against 79%, in seeds that differ), but that run fails everywhere: across the
languages that were seen 71 to 98% are off-target, and its validation loss is 1.2 where the others
have 0.7 to 0.9. What helps is Turkish translations beside the summaries: they leave no output in
another language and half of the facts, though not a good summary (ROUGE-1 23, another text's
headline 21; after two steps 39, a first sentence 43), and from English into Turkish less than
another text's headline has (13 and 21). Nothing else is decided within Turkish; on the mean,
translations among the other three languages help most (42%), then alignment (58%). A start from
the translation model, which had learned to write Turkish, is the best for the languages that were
seen; the adversary undoes it within Turkish (76%).""",
    "robustness": """\
That the layer is the middle one matters little: 1, 3 and 6 all help, and which most the seeds do
not tell. The languages matter: of runs with one pair, off-target outputs fall to 2 to 19% between
the two that were aligned, elsewhere among the three they stay at 42 to 99%. With two pairs, both
with English, Spanish to Russian is mended as well (1 to 23%): they meet in English. From Turkish,
which was never aligned, into English it is 11 to 44% on the mean in place of 68, which three seeds
do not decide. The run without alignment and layer 3 on both pairs ran on CPU cores, the rest on a
GPU; repeated there these two had 92 and 16% in place of 91 and 15, and within Turkish 14 and 26%,
which three seeds do not decide, in place of 9 and 29.""",
    "both sides": """\
Yes: 200 updates with new embeddings on both sides alone reach BLEU 73, with the cross-attention 80,
with the whole body 94, where two children that never met, stitched together, reach 10.""",
    "few sentences": """\
No: where sentences are few all parameters may train. From 300 sentences on the body leads, by most
where they are few (9 points over the cross-attention at 300, 3 at 10,000). The cross-attention
leads the embeddings alone by 3 to 6 points from 1,000 sentences on, and by next to nothing before;
100 sentences are too few for any of the three.""",
}

DIFFERENCES = """\
Everywhere:

- What the base has seen: `base/` read, in pretraining, headlines before their documents in all five
  languages (30% of the documents; 20% are a headline alone) and documents in which half of the
  words are of other languages (70%); mBART-25 read neither. So the skill is there in part before
  finetuning. How documents are mixed decides much: of a base of its own for which half of them
  were mixed in the source alone (the dial; one seed: LOG.md, 2026-11-28) `full` loses the other
  languages at higher rates only, and asked across languages it writes 98% in the right one, without
  adversary or translation. `base-help/` began with the layers of an older `base/`.
- Of `base/`, the number of layers was chosen by copying and retrieval on test documents (LOG.md,
  2026-11-27), headlines and mixing in its pretraining by test scores of finetuned models (LOG.md,
  2026-11-20). `full` at 5e-4 as a translator was tried after its test score was known. All else was
  chosen on validation documents.
- Size and data: 6 + 3 layers of width 128 on a generated corpus, 5 to 1,250 updates, and 3 + 3
  layers on LibreOffice's help, 1,000 to 8,000 updates; the papers
  tune mBART (12 + 12 layers of width 1,024; C: 8B decoder-only models) on real texts for up to
  120,000. Hence higher rates (5e-4 to 16e-3; A: 2e-5), falling to 0 (A: 5e-9), and warm-ups of 1 to
  100 updates (A: none; B: 2,500, embeddings alone 4,000).
- No dropout, in LoRA neither (A, B, C: 0.1; B's mBART variants: 0.3), and no label smoothing (B:
  0.1, mBART variants 0.2): the built-in corpus is endless, so nothing is learned by heart. The
  classifiers of the adversary and of the probe alone have dropout, 0.1, as A's has.
- Arithmetic in float32, on CPU cores, parts 11 to 13 of `reproduce.sh` on a GPU (A: fp16).
- Test sets of the built-in corpus are the first 100 texts of a pair (the papers: all), since two
  cores must do. No text is left out
  (A: of XL-Sum, those of up to 20 words, summaries of up to 10): these headlines are short.
- Gradients are clipped at norm 1 (A: 0.1): updates here are larger for their rates.
- Layout: no `<s>` before source and target (A: before both), which is how transformers reads the
  published weights.
- Scores: our stemmer is the target language's own everywhere; A's is Porter's for WikiLingua.
  Off-target shares are among the corpus's languages, A's among five.
- Decoding: the search ends at `</s>`, which a minimum length would forbid (none is used here); A's
  ends at the language tag behind it and forbids that alone. Length penalty 1 for translations too
  (B: 1.2) and for summaries within languages (A: 0.6 for XL-Sum): one setting for all tables.

A, zero-shot summarization:

- `full` and `qk` take the best rate of a grid by English validation (A: one rate for all), so that
  neither loses by its rate alone.
- The model is chosen by the task's validation loss, every 100 updates, and never stops early (A:
  stops after one validation without improvement): 400 updates are few.
- An update reads one batch of 1,600 tokens (A: three of 2,800), for the texts are short.
- Adversary: ten classifier updates, on one batch of their own, for each of the model's (A: one, on
  one batch), for the classifier has but 400 updates to learn in. Its loss is divided by source
  tokens, the mean over what it reads (A: target tokens), and its gradient is not clipped (A: 0.1),
  for the scale of its loss matters little to Adam.
- Adversarial runs start from the base and not from the joint model, so that all rows of a table
  have one start and one length; `--init` of a joint run is A's way. The learning rate falls to zero
  as in all other rows, the classifier's stays (A: the model's stays, the classifier's falls to
  about half); the last model counts, as published. All rows that train whole layers have one rate,
  2e-3, but for the two controls at `full`'s best rate on English.
- `adv_tuned`: 400 updates at 1e-3, the best by validation loss (A: 30,000): as long as the run that
  it follows, at half its rate, for the encoder no longer moves.
- Residual drop takes one of six encoder layers here, one of twelve there: the control shows what
  that costs.
- Sampling temperature 1.5 (A: 10 for joint WikiLingua): the corpus is a stream without end in every
  language, and these are drawn alike at any temperature.
- Supervised rows: one model on all pairs of the table (as published for WikiLingua), `full` at its
  rate of that table.
- Few-shot: 1e-3, which suits 12 to 769 updates here (A: 2e-5).
- Rows of one seed (supervised, few-shot, pipelines, the control of a residual drop without tag and
  adversary, all rates but the best, `qk`'s best and, of `full` and `qk`, 2e-3, curves over
  updates): for want of time. Of the translation model and of B's parent there is one each, from
  which the seeds beneath start. A has one run a row, of two rows a second.
- First of the two steps: it translates and copies sentences (A: summaries, 3,052 a direction or
  all), for the corpus has sentences without end and a model of sentences serves parts 6, 10 and 11.
- Pipeline: translation by that same model, sentence by sentence (A: NLLB-600M), for nothing is
  downloaded here; summaries by `qk` (A: `full`), so that the row differs from `qk`'s by the
  translation alone.
- Probes and SVCCA read documents of the built-in corpus (A: real texts).

The same on real text, where it is otherwise than on the built-in corpus:

- 3,000 updates within English alone (four rows of 8,000), 1,000 within three languages, 3,000 of
  translation, of 1,600 tokens each; the model is chosen every 500 updates (every 250).
- An update reads 11 or 12 texts: of the 55,598 English examples 34,000 in 3,000 updates, all of the
  sections of three languages nearly once in 1,000. So there is no dropout here either.
- Whole test sets (A too): 312 sections in English, 291 in Spanish, 160 in Russian, 186 in Turkish.
- Learning rates are the best of three (`qk`'s of four) by 3,000 updates, the other recipes' of
  three or four by 1,000 updates of one seed; rows within three languages that train whole layers
  take `full`'s. Languages are drawn by size^(1/1.5).
- The adversary has 1,000 updates and the same ten of its classifier for each. Probes read sections,
  retrieval paragraphs; there is no SVCCA, which needs several times as many documents as
  dimensions, and 124 test sections are there in all languages. Probes leave out `qk` and the two
  steps, retrieval leaves out the adversaries, and `full` and `full+embeddings` at 1e-3, `qk` at
  1e-3 and 8e-3, of the rows of 8,000 updates those that are not at 2e-3, and the curves over
  updates are of one seed: for want of time.
- What takes part on the built-in corpus alone: a model supervised in all languages, the pipeline,
  few-shot, residual drop, `adv_tuned`, the cross-attention's q and k in a second step.

B, new languages:

- The parent is the base with a new French source, trained for 400 updates (B: trained from
  nothing). Token embeddings are scaled, as mBART's are (B: not); a new side's positions are drawn
  as large as the scaled tokens, for B draws both alike.
- mBART variants keep the base's whole vocabulary (B: trimmed to the pieces that the data use), for
  it is small.
- AdamW with betas 0.9 and 0.999, eps 1e-8 and weight decay 0.01 (B: 0.98, 1e-6 and none) and one
  rate, 4e-3, linear, for all recipes (B: 3e-4, inverse square root, for embeddings alone, 3e-5,
  polynomial, for the others): one setting keeps the recipes the only difference.
- 60 or 200 updates of one batch of 1,600 tokens (B: 8 x 2,048; mBART variants 8 x 512, whole ones
  16 x 256), for this corpus's language is small; a recipe that learns faster gains by it.
- Vocabularies of up to 2,000 pieces of a unigram model (B: 8,000, BPE): the corpus has fewer words.
- Dictionary induction tries the lexicon's words alone, and any of their translations is right (B:
  all whole-word pieces compete, one word is right): the lexicon is the only dictionary of this
  corpus.

C, alignment:

- The task is to summarize, measured by ROUGE and language (C: slot filling, translation).
- Batches of 1,600 tokens, 5 to 145 pairs (C: 32 pairs), as all batches here are cut by tokens;
  pairs whose text is an anchor's equal are no negatives (C: all are), for the corpus repeats
  sentences.
- Pooling over text tokens only, on purpose (C: all attended tokens): a tag would tell the language.
- The model is chosen by the task's loss alone (C: task and alignment loss), so that rows with and
  without alignment are chosen alike.
- LoRA runs at rank 8 on an encoder-decoder, aligned in the encoder (C: in a decoder-only model's
  middle layer), for that is the model of this project; retrieval reads documents of the corpus
  (C: real parallel texts)."""
