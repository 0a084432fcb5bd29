"""What each layer of a trained model knows of languages: one table, from documents of the test set.

    python -m tools.layers                                the latest run, the base's five languages
    python -m tools.layers --model base --source-lang en_XX tr_TR --measures probe

PROBE (Solovyev et al. 2024, section 5.3): a fresh classifier p learns the source language from one
layer's frozen states. On tokens of held-out documents, n_l of them in language l, it is told as

    probability    1/L sum_l 1/n_l sum_i p_l(state i)                 what was published
    accuracy       1/L sum_l 1/n_l sum_i [argmax p(state i) = l]

The published figures (0.989 full, 0.958 standard, 0.707 balanced, 0.543 balanced with a dropped
residual) are PROBABILITIES, as the authors' code measures them: a doubtful classifier that is right
has an accuracy of 1, but no such probability. Their tokens are a document's pieces and its </s>,
and EVERY model reads its documents without the source tag here, one that was trained with it too: a
tag would tell the language of all the tokens that attend to it, and models with and without one
could not be compared. The states are read as they are, as the adversary's own classifier did.
Beside them stands an accuracy on states RESCALED to variance 1 in every dimension: an encoder can
fool a classifier by making what tells the language small. The decoder reads the reference in every
target language, so that its own language says nothing of the source's: data without summaries or
translations across all of the languages leave it without a probe. Of its input, too, the pieces and
</s> are read and no tag (in mBART-50's layout </s> stands in front).

SVCCA (Raghu et al. 2017): each language's states, one row a document, are reduced to the singular
directions that hold 99% of the variance; canonical correlation analysis then finds the pairs of
directions, one of each language, that correlate most:

    states of a, of b  (N, D)  =  U S V^T, U_a and U_b the directions that are kept
    similarity                 =  mean of the singular values of U_a^T U_b

It is 1 if one language's states are a linear map of the other's. (The similarity that Solovyev et
al. 2024, section 7, leave open.) Chance alone correlates directions that are many beside the
documents: FLOOR is the similarity with the second language's rows shuffled, the mean of 5
shuffles, which are the same in every call.

RETRIEVAL (Liu and Niehues 2025, section 2): how often is the nearest neighbour of a document's mean
state, among those of another language, its own translation?

SVCCA and retrieval read the same documents in every language, with the source tag if the model was
trained with it: the data set must be parallel.
Nothing here moves the model.
"""
from dataclasses import dataclass, replace
from itertools import combinations

import torch
import torch.nn.functional as F

from adversarial import Classifier, source_classes
from align import mean_pool
from corpora.facts import BASE_LANGUAGES
from corpora.sets import (
    check_spec,
    folder_of,
    is_builtin,
    is_help,
    kind_of,
    open_data,
    pairs_within,
)
from data import Examples, at_most, collate, held_out
from eval import sources_of
from model import MBart
from plumbing.files import UserError, check_file_out, note, parser_of, run, write_json
from plumbing.models import MODEL_HELP, model_folder, pinned
from plumbing.options import TASKS, default_device, device_name, stage_of
from plumbing.progress import progress_line
from plumbing.runs import (
    has_new_source,
    latest_run,
    longest_input,
    origin_of,
    read_settings,
    tell_untrained,
)
from tokenizer import EOS, Tokenizer

MEASURES = ("probe", "svcca", "retrieval")
SIDES = ("encoder", "decoder")
# Documents of each pair that is read (of a language the encoder reads one pair) that the classifier
# trains on; it is tested on half as many.
PROBED = {"encoder": 160, "decoder": 60}
MOST = 20_000    # tokens a language of them; of mBART-large 13 layers of these have 1 GiB
STEPS = 250      # of the classifier
COMPARED = 600   # parallel documents: SVCCA wants several times as many as a state has dimensions
SHUFFLES = 5     # whose mean is the floor of SVCCA
RETRIEVED = 200  # among which a translation is looked for
TOKENS = 4000    # padded tokens in a batch
ROWS = 50        # documents in a batch of parallel ones


@dataclass
class Texts:
    """The texts that are measured, as a model reads them."""
    spec: str        # of --data
    stage: str
    languages: list  # the source languages that are told apart
    tokenizer: Tokenizer
    tagged: bool     # does a source have its language tag? (probe_batches() leaves it out)
    max_length: int
    skip_bad_lines: bool = False

    def examples(self, split, pairs):
        known = self.tokenizer.languages
        data = open_data(
            self.spec,
            self.stage,
            split,
            pairs,
            known,
            skip=self.skip_bad_lines,
            name_missing=False,  # who asks says what that means
        )
        return Examples(data, self.tokenizer, self.stage, self.tagged, self.max_length)

    def probed(self, split, pairs, count):
        """`count` documents of every pair, chosen and batched by data.held_out(). UserError for a
        language that no pair has as its source: the mean over languages would count it as never
        told."""
        examples = self.examples(split, pairs)
        there = {source for source, _ in examples.sizes}
        for lang in self.languages:
            if lang not in there:
                raise self.lacks(split, lang)
        return held_out(examples, count, TOKENS)

    def lacks(self, split, lang):
        """The UserError for a language that the data do not have."""
        return UserError(
            f"the {split} split of {self.spec} has nothing from {lang} to {lang}; leave the "
            "language out, or name data that have it with --data"
        )


# -------------------------------------------------------------------------------------- states

@torch.no_grad()
def layer_states(model, batch, side):
    """Every layer's states of one side for a batch: L + 1 tensors (B, T, D), the embedding's
    first."""
    if side == "encoder":
        return model.encode(batch.source, all_states=True)
    encoder_states = model.encode(batch.source)
    return model.decode(batch.decoder_input, encoder_states, batch.source, all_states=True)


def ids_of(batch, tokenizer, side):
    """What one side reads (B, T), and the tokenizer whose ids these are."""
    if side == "encoder":
        return batch.source, tokenizer.source
    return batch.decoder_input, tokenizer


def token_states(model, tokenizer, batches, languages, side):
    """Every layer's states of the batches' pieces and </s>, and each token's SOURCE language.

    Returns L + 1 tensors (N, D), and the languages as places in `languages` (N,). A tag is left
    out: it would give the language away. Of a language at most MOST tokens are read."""
    device = next(model.parameters()).device
    masks, classes = probed_tokens(tokenizer, batches, languages, side)
    states = []  # a list of L + 1 tensors for every batch
    for batch, mask in zip(progress_line(batches, f"reading, {side}", unit="batch"), masks):
        mask = mask.to(device)
        states.append([x[mask].cpu() for x in layer_states(model, batch.to(device), side)])
    return [torch.cat(layer) for layer in zip(*states)], classes


def probed_tokens(tokenizer, batches, languages, side):
    """Which tokens token_states() reads: a mask (B, T) for every batch, and the languages (N,).

    Where a language has more than MOST they are drawn from all of its tokens, the same ones for
    every model with this vocabulary."""
    masks = []
    classes = []
    for batch in batches:
        ids, vocabulary = ids_of(batch, tokenizer, side)
        mask = vocabulary.is_text(ids) | (ids == EOS)  # (B, T)
        masks.append(mask)
        classes.append(source_classes(batch, mask, languages))
    classes = torch.cat(classes)
    kept = torch.ones(len(classes), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for number in range(len(languages)):
        own = (classes == number).nonzero().flatten()
        order = torch.randperm(len(own), generator=generator)
        kept[own[order[MOST:]]] = False
    parts = kept.split([int(mask.sum()) for mask in masks])
    kept_masks = []
    for mask, part in zip(masks, parts):
        kept_mask = torch.zeros_like(mask)
        kept_mask[mask] = part  # which of these tokens are kept
        kept_masks.append(kept_mask)
    return kept_masks, classes[kept]


def pooled_states(model, tokenizer, batches, side):
    """Every layer's mean over each text's tokens: L + 1 tensors (N, D), in the batches' order."""
    states = []  # a list of L + 1 tensors for every batch
    for batch in progress_line(batches, f"reading, {side}", unit="batch"):
        batch = batch.to(next(model.parameters()).device)
        ids, vocabulary = ids_of(batch, tokenizer, side)
        layers = layer_states(model, batch, side)
        states.append([mean_pool(x, ids, vocabulary).cpu() for x in layers])
    return [torch.cat(layer) for layer in zip(*states)]


# --------------------------------------------------------------------------------------- probe

def probe(states, classes, held_states, language_count, rescaled=False, steps=STEPS):
    """Trains a fresh classifier of L = language_count languages on states (N, D), whose languages
    are `classes` (N,), numbers below L.

    Returns what it says of the held-out states (M, D): probabilities (M, L)."""
    if rescaled:
        mean = states.mean(0)
        scale = states.std(0) + 1e-6
        states = (states - mean) / scale
        held_states = (held_states - mean) / scale
    classifier = fitted_probe(states, classes, language_count, steps)
    with torch.no_grad():
        return classifier(held_states).softmax(1)


def fitted_probe(states, classes, language_count, steps=STEPS):
    """The classifier that probe() trains, in eval mode."""
    torch.manual_seed(0)
    classifier = Classifier(states.size(1), language_count)
    optimizer = torch.optim.Adam(classifier.parameters(), 1e-3)
    for _ in range(steps):
        rows = torch.randint(len(states), (1024,))
        F.cross_entropy(classifier(states[rows]), classes[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return classifier.eval()


def means_by_language(probabilities, classes):
    """(M, L), true classes (M,) -> (L, L): row = the mean over a true language's tokens."""
    sums = torch.zeros(probabilities.size(1), probabilities.size(1))
    sums.index_add_(0, classes, probabilities)
    tokens = classes.bincount(minlength=len(sums)).clamp(min=1)
    return sums / tokens[:, None]


def confusion_matrix(probabilities, classes):
    """(M, L), true classes (M,) -> (L, L): row = true language, column = the likeliest; each row
    sums to 1."""
    guesses = F.one_hot(probabilities.argmax(1), probabilities.size(1))
    return means_by_language(guesses.float(), classes)


def probe_batches(texts):
    """{side: (batches to train on, batches to be tested on)} of the sides that can be probed: the
    encoder, and the decoder where there are pairs across all languages; a note says if not.

    UserError for a language without documents."""
    texts = replace(texts, tagged=False)
    within = [(lang, lang) for lang in texts.languages]
    found = {"encoder": []}
    for split, count in splits_of("encoder"):
        found["encoder"].append(texts.probed(split, within, count))
    decoder = decoder_batches(texts)
    if decoder:
        found["decoder"] = decoder
    return found


def decoder_batches(texts):
    """What probe_batches() has of the decoder; None where a pair is missing: what the decoder reads
    would tell the source's language."""
    every = [(source, target) for source in texts.languages for target in texts.languages]
    found = []
    for split, count in splits_of("decoder"):
        examples = texts.examples(split, pairs_within(texts.spec, texts.languages))
        missing = ["-".join(pair) for pair in every if pair not in examples.sizes]
        if missing:
            note(
                f"the decoder is not probed, for the {split} split of {texts.spec} has no example "
                f"of {' '.join(missing[:6])}: its references' language would tell the source's"
            )
            return None
        found.append(held_out(examples, count, TOKENS))
    return found


def splits_of(side):
    """Each split that is read for a side's probe, and how many documents of each pair."""
    return (("train", PROBED[side]), ("test", PROBED[side] // 2))


def probe_layers(model, texts, batches, side):
    """Of every layer: {"accuracy", "probability", "rescaled": accuracy, "confusion": rows}.

    batches: of the side, as probe_batches() has them."""
    train, test = batches
    states, classes = token_states(model, texts.tokenizer, train, texts.languages, side)
    held, held_classes = token_states(model, texts.tokenizer, test, texts.languages, side)
    found = []
    for layer in progress_line(range(len(states)), f"probing, {side}", unit="layer"):
        known = (states[layer], classes, held[layer], len(texts.languages))
        probabilities = probe(*known, steps=STEPS)
        rescaled = probe(*known, rescaled=True, steps=STEPS)
        confusion = confusion_matrix(probabilities, held_classes)
        found.append({
            "accuracy": diagonal_mean(confusion),
            "probability": diagonal_mean(means_by_language(probabilities, held_classes)),
            "rescaled": diagonal_mean(confusion_matrix(rescaled, held_classes)),
            "confusion": confusion.tolist(),
        })
    return found


def diagonal_mean(matrix):
    return matrix.diagonal().mean().item()


# ------------------------------------------------------------------------- SVCCA and retrieval

def directions(states, keep=0.99):
    """states (N, D) -> (N, K), orthonormal: whitened already. They hold the `keep` largest share of
    the variance. N should be several times D, or chance alone correlates."""
    centred = (states - states.mean(0)).double()
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)  # (N, D), (D,)
    share = (s**2).cumsum(0) / (s**2).sum()
    number = int((share < keep).sum()) + 1
    return u[:, :number]


def correlation(a, b):
    """Mean canonical correlation between the directions a (N, K) and b (N, L)."""
    return torch.linalg.svdvals(a.T @ b).clamp(max=1).mean().item()


def shuffled_correlation(a, b):
    """What correlation() finds where nothing corresponds: the mean over SHUFFLES of b's rows."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for _ in range(SHUFFLES):
        rows = torch.randperm(len(b), generator=generator)
        found.append(correlation(a, b[rows]))
    return sum(found) / SHUFFLES


def retrieval(a, b):
    """Share of rows of a (N, D) whose nearest row of b by cosine is their own translation, and
    back, averaged."""
    similarity = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T  # (N, N)
    own = torch.arange(len(a))
    a_to_b = (similarity.argmax(1) == own).float().mean().item()
    b_to_a = (similarity.argmax(0) == own).float().mean().item()
    return (a_to_b + b_to_a) / 2


def parallel_batches(texts, count):
    """{language: the first `count` test documents in it, in batches}: row i of one language
    translates row i of every other. COMPARED documents are read, and those that repeat an earlier
    one are left out, before `count` of them are taken. UserError for files that do not correspond
    line by line."""
    if is_builtin(texts.spec):
        # What it has to translate is drawn for each pair of languages; its documents are the same.
        texts = replace(texts, stage="summarize")
    within = [(lang, lang) for lang in texts.languages]
    # Between languages too, and all at once: so the files of a data set are compared, and a line
    # that is bad in one of them is left out of all.
    between = [(texts.languages[0], lang) for lang in texts.languages[1:]]
    examples = texts.examples("test", within + between)
    for pair in within:
        if pair not in examples.sizes:
            raise texts.lacks("test", pair[0])
    number = at_most(COMPARED, examples.sizes[within[0]])  # the same in every language
    documents = {}
    for pair in within:
        documents[pair[0]] = [examples(pair, index) for index in range(number)]
    kept = first_of_each(documents)
    if number > len(kept):
        note(
            f"{number - len(kept)} of {number} test documents of {texts.spec} are left out: in one "
            "of the languages they repeat another, so that two would be the right translation"
        )
    if len(kept) < 2:
        raise UserError(
            f"the test split of {texts.spec} has {number} documents, of which {len(kept)} repeats "
            "no other; SVCCA and retrieval compare at least 2, and tell little of fewer than a "
            "hundred"
        )
    kept = kept[:count]
    batches = {}
    starts = range(0, len(kept), ROWS)
    for lang, of_language in documents.items():
        rows = [of_language[index] for index in kept]
        batches[lang] = [collate(rows[start:start + ROWS]) for start in starts]
    return batches


def first_of_each(documents):
    """{language: Examples, row by row translations} -> the numbers of the rows that repeat no
    earlier row's text in any language."""
    seen = set()  # of (language, text)
    kept = []
    for index, row in enumerate(zip(*documents.values(), strict=True)):
        texts = {(lang, tuple(example.source)) for lang, example in zip(documents, row)}
        if seen.isdisjoint(texts):
            kept.append(index)
        seen |= texts
    return kept


def svcca_layers(states, languages):
    """Two lists, of every layer: {"a b": similarity} of two languages, and {"a b": its floor}.

    states: {language: pooled_states()}."""
    found = []
    floors = []
    layers = len(states[languages[0]])
    for layer in progress_line(range(layers), "correlating", unit="layer"):
        kept = {lang: directions(states[lang][layer]) for lang in languages}
        found.append(by_pair(languages, correlation, kept))
        floors.append(by_pair(languages, shuffled_correlation, kept))
    return found, floors


def retrieval_layers(states, languages):
    """Of every layer: {"a b": accuracy} of two languages. states: {language: pooled_states()}."""
    found = []
    for layer in range(len(states[languages[0]])):
        searched = {lang: states[lang][layer][:RETRIEVED] for lang in languages}
        found.append(by_pair(languages, retrieval, searched))
    return found


def by_pair(languages, compare, of_language):
    """{"a b": compare(a's, b's)} of every two languages."""
    pairs = combinations(languages, 2)
    return {f"{a} {b}": compare(of_language[a], of_language[b]) for a, b in pairs}


# ----------------------------------------------------------------------------------- the table

def measure_layers(model, texts, measures=MEASURES):
    """{"encoder": [{measure: what it found} of every layer, the embedding first], "decoder": ...}.

    measures: some of MEASURES, which the data set must allow; "svcca floor" comes with "svcca". A
    side that could not be probed has no "probe", and no layer if nothing else was measured."""
    model.eval()
    report = {}
    parallel = {}
    if "svcca" in measures or "retrieval" in measures:
        count = COMPARED if "svcca" in measures else RETRIEVED
        parallel = parallel_batches(texts, count)
    probed = {}
    if "probe" in measures:
        probed = probe_batches(texts)
    for side in SIDES:
        columns = {}
        if side in probed:
            columns["probe"] = probe_layers(model, texts, probed[side], side)
        states = {}
        for lang, batches in parallel.items():
            states[lang] = pooled_states(model, texts.tokenizer, batches, side)
        if "svcca" in measures:
            columns["svcca"], columns["svcca floor"] = svcca_layers(states, texts.languages)
        if "retrieval" in measures:
            columns["retrieval"] = retrieval_layers(states, texts.languages)
        rows = zip(*columns.values())
        report[side] = [dict(zip(columns, row)) for row in rows]
    return report


def table(report, languages, measures):
    """The report as text: a row for every layer, a column for every measure."""
    titles = {
        "probe": f"{'accuracy':>11}{'probability':>13}{'rescaled':>10}",
        "svcca": f"{'SVCCA (floor)':>16}",
        "retrieval": f"{'retrieval %':>14}",
    }
    lines = ["layer     " + "".join(titles[measure] for measure in measures)]
    for side, layers in report.items():
        for number, layer in enumerate(layers):
            cells = "".join(cell(measure, layer) for measure in measures)
            lines.append(f"{side} {number:<2}{cells}")
    lines.append("\nlayer 0 is the embedding's output")
    lines += [meaning(measure, languages) for measure in measures]
    if "probe" in measures:
        lines.append("\nthe encoder's last layer: row = source language, column = what the "
                     "classifier says, %")
        lines.append(" " * 8 + "".join(f"{lang:>8}" for lang in languages))
        for lang, shares in zip(languages, report["encoder"][-1]["probe"]["confusion"]):
            lines.append(f"{lang:>8}" + "".join(f"{100 * share:>8.1f}" for share in shares))
    return "\n".join(lines)


def cell(measure, layer):
    """What was found of a layer, as wide as the column's title."""
    found = layer[measure]
    if measure == "probe":
        numbers = f"{found['accuracy']:>11.3f}{found['probability']:>13.3f}"
        return f"{numbers}{found['rescaled']:>10.3f}"
    if measure == "svcca":
        both = f"{mean_of(found):.3f} ({mean_of(layer['svcca floor']):.2f})"
        return f"{both:>16}"
    return f"{100 * mean_of(found):>14.1f}"


def mean_of(found):
    """{"a b": number} -> the mean over pairs."""
    return sum(found.values()) / len(found)


def meaning(measure, languages):
    """What a column of the table shows."""
    if measure == "probe":
        return ("accuracy: of a fresh classifier of the source language, chance is "
                f"{1 / len(languages):.3f}; probability: what it gives the true language (the "
                "published figures are this)\nrescaled: accuracy on states of variance 1 in every "
                "dimension; all three without a source tag")
    if measure == "svcca":
        return ("SVCCA: likeness of two languages' states, 1 if one is a linear map of the other "
                "(floor: of shuffled documents); mean over pairs")
    return ("retrieval: documents whose nearest one in another language is their translation; mean "
            "over pairs and directions")


# -------------------------------------------------------------------------------- command line

def main(argv=None):
    args = parse_args(argv)
    if args.data:
        check_spec(args.data)
    name = pinned(args.model) if args.model else latest_run(TASKS)
    folder = model_folder(name, weights=False)
    trained = read_settings(folder)
    tell_untrained(name, folder)
    if has_new_source(trained):
        note(
            f"the vocabulary of {name}'s encoder was made for {' '.join(sources_of(trained))}; "
            "what is measured of other languages means nothing (--source-lang names languages)"
        )
    stage = stage_of(trained, args.stage)
    data = args.data or trained.get("data") or "builtin"
    check_spec(data, args.skip_bad_lines)
    if args.json:
        check_file_out(args.json, read=[folder, folder_of(data)])
    measures = possible(args.measures, data, stage)
    tokenizer = Tokenizer.from_pretrained(folder)
    check_languages(args.source_lang, tokenizer)
    model = MBart.from_pretrained(model_folder(name))
    model.to(args.device or default_device())
    texts = Texts(
        spec=data,
        stage=stage,
        languages=args.source_lang,
        tokenizer=tokenizer,
        tagged=not trained.get("tagless"),  # as it was trained; the probe leaves tags out
        max_length=longest_input(trained, model.config.max_position_embeddings),
        skip_bad_lines=args.skip_bad_lines,
    )
    report = measure_layers(model, texts, measures)
    print(f"{name}, {stage}, {data}: {' '.join(args.source_lang)}\n")
    print(table(report, args.source_lang, measures))
    if args.json:
        found = {"model": str(name), "languages": args.source_lang, "layers": report}
        write_json(args.json, found | {"origin": origin_of(folder)})


def parse_args(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--model", metavar="FOLDER", help=f"{MODEL_HELP} (default: the latest run in runs/)")
    add(
        "--source-lang",
        nargs="+",
        default=list(BASE_LANGUAGES),
        metavar="LANG",
        help=f"languages to tell apart (default: {' '.join(BASE_LANGUAGES)})",
    )
    add("--data", metavar="SPEC", help="as train.py's (default: the run's)")
    add("--skip-bad-lines", action="store_true", help="leave out lines that cannot be read")
    add(
        "--stage",
        choices=TASKS,
        help="the task (default: what the model was trained for, else translate)",
    )
    add(
        "--measures",
        nargs="+",
        choices=MEASURES,
        default=list(MEASURES),
        metavar="MEASURE",
        help=f"the table's columns (default: {' '.join(MEASURES)})",
    )
    add("--json", metavar="FILE", help="also write every number to this file")
    add("--device", type=device_name, help="cpu, cuda ... (default: a GPU if there is one)")
    args = parser.parse_args(argv)
    # What was typed twice counts once: a language is no other than itself.
    args.source_lang = list(dict.fromkeys(args.source_lang))
    args.measures = list(dict.fromkeys(args.measures))
    return args


def possible(measures, data, stage):
    """Those of the measures that this data set allows in a stage; UserError if none is left."""
    if kind_of(data) in ("builtin", "parallel"):
        return measures
    if is_help(data) and stage == "translate":  # its paragraphs, which are aligned
        return measures
    advice = "use parallel:DIR"
    if is_help(data):
        advice = "use --stage translate, which reads its paragraphs"
    reason = (
        f"SVCCA and retrieval need the same texts in every language; {data} has not in stage "
        f"{stage}: {advice}"
    )
    left = [measure for measure in measures if measure == "probe"]
    if not left:
        raise UserError(reason)
    if len(left) < len(measures):
        note(reason)
    return left


def check_languages(languages, tokenizer):
    tokenizer.check_languages(languages)
    if len(languages) < 2:
        raise UserError("this compares languages: name at least two with --source-lang")


if __name__ == "__main__":
    run(main)
