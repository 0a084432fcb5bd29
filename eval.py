"""Decode a test set and print the table; or summarize or translate a text given by hand.

    python eval.py --lang tr_TR                          a row for every source, by the latest run
    python eval.py --lang tr_TR --source-lang es_XX      one row
    python eval.py --pairs en_XX-en_XX es_XX-en_XX       any rows
    python eval.py --lang tr_TR --model base --stage translate        another model
    python eval.py --lang es_XX --model runs/translate --source-lang en_XX --text "Nobody was hurt."
    python eval.py --lang tr_TR --model runs/summarize --file article.txt     - is standard input

Decoding is beam search with 5 beams and the target language's tag in front (Solovyev et al. 2024,
section 4). Columns: BLEU and chrF for translation, of which chrF compares languages;
ROUGE-1/2/L for summarization, with --stem also of stemmed words, as figures for XL-Sum are
published; off-target, the share of outputs that are not found to be in the target language, and
off-target-p, 100 - the mean posterior of the target language (the measure of Solovyev et al. 2024);
on the built-in corpus, facts: the share of the headline's facts (who, did what, where) that the
output tells. Beside ROUGE-1 stand its floors, which need no model: another example's headline, and
the source's first sentence; then how far off target the references seem to be, which is the
identifier's own error. Of a single example there are no intervals.
"""
import math
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

import metrics
from corpora.facts import BASE_LANGUAGES, CORPUS_LANGUAGES
from corpora.sets import (
    check_spec,
    folder_of,
    has_translations,
    is_builtin,
    kind_of,
    open_data,
    pairs_within,
    says_no_languages,
)
from data import (
    SENTENCE_END,
    UNREADABLE,
    LanguageCount,
    at_most,
    batches_of_like_length,
    language_pairs,
    languages_of,
    pad,
    split_pairs,
)
from generate import LENGTH_PENALTIES, check_beam_and_lengths, generate, longest_output
from model import Config, MBart
from plumbing.files import (
    UserError,
    beside_python,
    check_file_out,
    note,
    parser_of,
    quoted,
    run,
    utf8_text,
    write_json,
)
from plumbing.graphs import release
from plumbing.models import MODEL_HELP, model_folder, pinned, weights_file
from plumbing.options import (
    COUNT,
    DECODING,
    TASKS,
    decoding_of,
    default_device,
    default_precision,
    device_name,
    number,
    option_name,
    stage_of,
)
from plumbing.packed import HAS_VNNI, pack_for_decoding
from plumbing.progress import progress_line
from plumbing.runs import (
    has_new_source,
    latest_run,
    learned_in,
    longest_input,
    origin_of,
    read_log,
    read_settings,
    seen_in,
    tell_untrained,
)
from tokenizer import Tokenizer

PENALTY = number(float, *LENGTH_PENALTIES)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
PRETRAINED = "a model that was only pretrained copies its input"
# --source-lang is doubted where a text of so many characters gives another language this posterior.
LONG_ENOUGH = 50
SURE = 0.99


# --------------------------------------------------------------------------------------- decoding


def decode(model, tokenizer, sources, lang, title="decoding", **options):
    """Sources -> texts in `lang` (a code), in the order given.

    sources: lists of ids of the encoder's input. options: generate's. A batch holds sources of like
    length, as many as batch_sizes() has it. title: of the progress bar."""
    device = next(model.parameters()).device
    beams = options.get("beam", DECODING["beam"])
    length = options.get("max_new_tokens", DECODING["max_new_tokens"])
    tokens, rows = batch_sizes(model, beams, length)
    outputs = [None] * len(sources)
    several = len(sources) > 1  # one text needs no bar
    with progress_line(title=title, total=len(sources), unit="text", shown=several) as bar:
        numbers = range(len(sources))
        batches = batches_of_like_length(numbers, tokens, rows, lambda i: len(sources[i]))
        for batch in batches:
            padded = pad([sources[i] for i in batch]).to(device)
            decoded = generate(model, padded, tokenizer.lang_id(lang), **options)
            for i, ids in zip(batch, decoded):
                outputs[i] = tokenizer.decode(ids)
            bar.update(len(batch))
    release()  # training may want the memory
    return outputs


# At most so many at once: tokens of sources, tokens of all beams, texts.
CPU_TOKENS = 6000
CPU_BEAM_TOKENS = 50_000
GPU_TOKENS = 48_000
GPU_ROWS = 1000


def batch_sizes(model, beams, length):
    """How many source tokens, padding included, and how many texts to decode at once at most.

    On a CPU what its caches bear. On a GPU, where one large batch takes half the time of four small
    ones, as much as fits into half of its free memory: a quarter for the encoder, one for the
    beams."""
    table = model.model.shared.weight
    if table.device.type == "cpu":
        return CPU_TOKENS, max(1, CPU_BEAM_TOKENS // (beams * length))
    config = model.config
    # Of a position: its keys and values in all decoder layers.
    position_bytes = 2 * config.decoder_layers * config.d_model * table.itemsize
    # Of a position in the encoder: its widest activation, of which a few are there at once.
    widest_bytes = max(config.encoder_ffn_dim, 4 * config.d_model) * table.itemsize
    # Of an output, in float32: its logits, those of a recorded step, and as much again for what the
    # search makes of them.
    logits_bytes = 3 * 4 * config.vocab_size
    free, _ = torch.cuda.mem_get_info(table.device)
    # What torch has taken and does not use is free too.
    free += torch.cuda.memory_reserved(table.device) - torch.cuda.memory_allocated(table.device)
    if table.itemsize == 2:  # decoding then has a copy of the table
        free = max(0, free - table.nbytes)
    quarter = free // 4
    tokens = quarter // (position_bytes + 4 * widest_bytes)
    rows = quarter // (beams * (length * position_bytes + logits_bytes))
    return max(1, min(GPU_TOKENS, tokens)), max(1, min(GPU_ROWS, rows))


class Decoder:
    """A folder's model as a decoding function: decoder(texts, source, target) -> outputs."""

    def __init__(self, folder, device="cpu", int8=False, precision="fp32", **options):
        """options: generate's. int8: round large weights, which decodes faster on a CPU; precision:
        fp32 or bf16, which is faster on a GPU."""
        # Of this model, not of the better one that a run may write while this decodes.
        self.validation_loss = validation_loss_of(folder)
        written = weights_file(folder).stat().st_mtime_ns
        self.model = MBart.from_pretrained(folder).to(device, PRECISIONS[precision])
        is_same = weights_file(folder).stat().st_mtime_ns == written
        if not is_same or validation_loss_of(folder) != self.validation_loss:
            raise UserError(
                f"{folder}: a training run wrote another model while this one was read; start again"
            )
        if int8:
            pack_for_decoding(self.model, int8=True)
        self.tokenizer = Tokenizer.from_pretrained(folder)
        settings = read_settings(folder)
        self.tagged = not settings.get("tagless")  # as it was trained
        self.limit = longest_input(settings, self.model.config.max_position_embeddings)
        asked = options.get("max_new_tokens", DECODING["max_new_tokens"])
        longest = min(asked, longest_output(self.model.config))
        self.options = options | {"max_new_tokens": longest}

    def __call__(self, texts, source, target):
        self.tell(texts, source)
        sources = [self.encode(text, source, self.limit) for text in texts]
        title = f"{source} -> {target}"
        return decode(self.model, self.tokenizer, sources, target, title=title, **self.options)

    def encode(self, text, source, limit=None):
        """Text -> ids, the first `limit` tokens of them."""
        tag = None
        if self.tagged:
            tag = source
        return self.tokenizer.encode(text, tag, limit)

    def tell(self, texts, source):
        """Says on standard error what of the sources the model does not see."""
        tokenizer = self.tokenizer.source
        tell_unreadable(f"the {source} sources", texts, tokenizer)
        lengths = [len(self.encode(text, source)) for text in texts]
        left = sum(max(0, length - self.limit) for length in lengths)
        if not left:
            return
        if len(texts) == 1:
            note(
                f"the text has {lengths[0]} tokens and the model reads {self.limit}: the first "
                f"{self.limit / lengths[0]:.0%} of it was used, the rest left out"
            )
            return
        too_long = sum(length > self.limit for length in lengths)
        note(
            f"{too_long} of {len(texts)} {source} sources have more than the {self.limit} tokens "
            f"that the model reads: {left / sum(lengths):.1%} of all tokens were left out"
        )

    def tell_references(self, texts, target):
        """Notes how much of the references no output can contain: characters that have no piece,
        and tokens beyond max_new_tokens."""
        tell_unreadable(f"the {target} references", texts, self.tokenizer)
        limit = self.options["max_new_tokens"]
        specials = 1  # </s> is a new token
        if self.tokenizer.layout == "mbart50":
            specials = 2  # and so is the tag
        lengths = [len(self.tokenizer.piece_ids(text)) + specials for text in texts]
        too_long = sum(length > limit for length in lengths)
        left = sum(max(0, length - limit) for length in lengths)
        if too_long:
            note(
                f"{too_long} of {len(texts)} {target} references have more than the {limit} tokens "
                f"of the longest output (--max-new-tokens): {left / sum(lengths):.1%} of all "
                "tokens are beyond its end; scores are of whole references"
            )


def tell_unreadable(name, texts, tokenizer):
    """Says on standard error how much of texts a vocabulary has no pieces for."""
    counted = LanguageCount()
    for text in texts:
        counted.add(text, tokenizer.piece_ids(text), tokenizer)
    if counted.empty:
        note(
            f"{counted.empty} of {name} ({len(texts)}) have nothing that the vocabulary takes for "
            "text"
        )
    share = counted.unknown_share
    if share >= UNREADABLE:
        note(f"the vocabulary has no pieces for {share:.0%} of the characters of {name}: <unk>")


# ---------------------------------------------------------------------------------------- scoring


@dataclass
class Scored:
    """What the outputs for one pair of languages are worth, column by column."""

    scores: dict  # {column: Interval, or None where nothing can be said}
    each: dict  # {column: a value for every output}; BLEU and chrF, the corpus's, are not here
    signatures: list  # how the scores were computed


@dataclass
class Row:
    """A row of the table: one pair of languages. Its fields are those of the JSON file."""

    source: str
    target: str
    n: int  # examples
    scores: dict = field(default_factory=dict)  # as in Scored
    each: dict = field(default_factory=dict)  # as in Scored
    # Of summaries: the scores of outputs that need no model, {"random": another example's headline
    # (where there is another), "lead": the source's first sentence}.
    floors: dict = field(default_factory=dict)
    examples: list = field(default_factory=list)  # {"source", "reference", "output"}
    # How far off target the references seem to be, {"off-target", "off-target-p"}: the
    # identifier's own error.
    references: dict = field(default_factory=dict)


def evaluate(
    decoder,
    stage,
    data_spec,
    pairs,
    count,
    languages,
    trained=(),
    skip=False,
    asked=(),
    stem=False,
    tell_references=None,
    split="test",
    seed=0,
):
    """Scores a decoding function on the first `count` examples of every (source, target) pair; 0:
    on all.

    decoder(texts, source, target) -> outputs, as a Decoder does. languages: those that the data may
    name, the tokenizer's. trained: the pairs that the model was trained on, into whose languages it
    may fall back. skip: leave out bad lines. asked: pairs that the user named: a note says which of
    them have no example. stem: see score. tell_references: Decoder's; --watch leaves it out. seed:
    of the built-in corpus's texts.

    Returns a list of Rows, one for every pair of which there is an example, and the signatures."""
    data = open_data(
        data_spec, stage, split, pairs, languages, seed=seed, skip=skip, name_missing=False
    )
    available = [pair for pair in pairs if pair in data.sizes]
    for source, target in asked:
        if (source, target) not in available:
            note(f"{source}-{target}: no example")
    identify = metrics.LanguageIdentifier(languages_in_question(data_spec, available, trained))
    rows = []
    targets_of = {}  # {signature: the target languages that it is true of}
    for source, target in progress_line(available, "all", unit="pair", shown=len(available) > 1):
        texts, references = first_examples(data, (source, target), count)
        if tell_references:
            tell_references(references, target)
        outputs = decoder(texts, source, target)
        facts = None
        if is_builtin(data_spec) and stage == "summarize":
            facts = partial(facts_told, data, (source, target))
        score_outputs = partial(
            score,
            references=references,
            stage=stage,
            target=target,
            identify=identify,
            facts=facts,
            stem=stem,
        )
        scored = score_outputs(outputs)
        row = Row(source, target, len(outputs), scored.scores, scored.each)
        if stage == "summarize":
            row.floors = floors(score_outputs, texts, references)
        for text, reference, output in zip(texts, references, outputs, strict=True):
            row.examples.append({"source": text, "reference": reference, "output": output})
        row.references = means(off_target(references, target, identify))
        if tell_references:
            warn_of_wrong_references(row)
        rows.append(row)
        for signature in scored.signatures:
            targets_of.setdefault(signature, []).append(target)
    signatures = signature_lines(targets_of, {row.target for row in rows})
    signatures.append(identify.signature())
    return rows, signatures


def warn_of_wrong_references(row):
    """A note on a pair whose references are in another language than its target's code says, as
    where a language without a tag borrows one."""
    share = row.references["off-target"]
    if share is not None and share.value > 50:
        note(
            f"{row.source}-{row.target}: {share.value:.0f}% of the references are not in "
            f"{row.target}, so off-target says nothing of this pair"
        )


def floors(score_outputs, texts, references):
    """The scores of outputs that need no model (see Row)."""
    found = {}
    if len(references) > 1:  # a single example's neighbour would be itself
        found["random"] = score_outputs(references[1:] + references[:1]).scores
    found["lead"] = score_outputs([first_sentence(text) for text in texts]).scores
    return found


def signature_lines(targets_of, targets):
    """Signatures as lines; one that is not true of all target languages names its own."""
    lines = []
    for signature, own in targets_of.items():
        own = list(dict.fromkeys(own))
        if set(own) < targets:
            signature += f" (for {' '.join(own)})"
        lines.append(signature)
    return lines


def first_examples(data, pair, count):
    """The first `count` examples of a language pair, 0: all; a list of texts, one of references."""
    size = data.sizes[pair]
    if count:
        size = at_most(count, size)
    texts = []
    references = []
    for i in range(size):
        text, reference = data.text(pair, i)
        texts.append(text)
        references.append(reference)
    return texts, references


def languages_in_question(data_spec, pairs, trained):
    """The languages that an output may be in: all of the built-in corpus; elsewhere those asked for
    and those trained on (LanguageIdentifier adds English)."""
    if is_builtin(data_spec):
        return CORPUS_LANGUAGES
    return languages_of([*pairs, *trained])


def score(outputs, references, stage, target, identify, facts=None, stem=False):
    """What outputs are worth that should be in `target`.

    BLEU and chrF are those of all outputs at once, other scores are means over outputs. identify: a
    LanguageIdentifier. facts: facts(outputs) -> percents, one an output; None: no such column.
    stem: ROUGE of stemmed words too, nothing where the language has no stemmer."""
    if stage == "translate":
        each = {}
        scores, signatures = metrics.bleu_chrf(outputs, references, target)
    else:
        each = metrics.rouge(outputs, references, target)
        scores = {}
        signatures = [metrics.rouge_signature(target)]
    if stem:
        stemmed = dict.fromkeys(metrics.ROUGE)
        if metrics.has_stemmer(target):
            stemmed = metrics.rouge(outputs, references, target, stem=True)
            signatures.append(f"-stem: {metrics.rouge_signature(target, stem=True)}")
        each |= {f"{column}-stem": values for column, values in stemmed.items()}
    each |= off_target(outputs, target, identify)
    if facts:
        each["facts"] = facts(outputs)
    scores |= means(each)
    rounded = dict.fromkeys(each)
    for column, values in each.items():
        if values is not None:
            rounded[column] = [round(float(value), 2) for value in values]
    return Scored(scores, rounded, signatures)


def means(each):
    """{column: values, or None} -> {column: Interval, or None}."""
    found = dict.fromkeys(each)
    for column, values in each.items():
        if values is not None:
            found[column] = metrics.bootstrap(values)
    return found


def off_target(texts, target, identify):
    """How far texts seem to be from the target language, in percent, one a text: "off-target", 100
    where it is not the likeliest (an empty text too), else 0; "off-target-p", 100 - its posterior.

    None where that cannot be told (LanguageIdentifier.knows)."""
    if not identify.knows(target):
        return {"off-target": None, "off-target-p": None}
    wrong = []
    missing = []  # from a posterior of 100
    for text in texts:
        found = identify.posteriors(text)
        is_wrong = metrics.likeliest(found) != target
        wrong.append(100.0 * is_wrong)
        missing.append(100.0 * (1 - found.get(target, 0.0)))
    return {"off-target": wrong, "off-target-p": missing}


def facts_told(data, pair, outputs):
    """The percentage of the reference headline's facts that each output tells (built-in corpus)."""
    percents = []
    for i, output in enumerate(outputs):
        found = data.corpus.facts_recovered(data.document(pair, i), output, pair[1])
        percents.append(100.0 * sum(found.values()) / len(found))
    return percents


def first_sentence(text):
    return SENTENCE_END.split(text.strip())[0]


# -------------------------------------------------------------------------------------- the table


def table(rows, seen=None):
    """Rows as text: score [95% interval] for every column, and notes: the floors of ROUGE-1, the
    language identifier's error, and zero-shot for a pair that is not among seen_pairs()."""
    header = f"{'source':>8} -> {'target':<8}"
    for column in rows[0].scores:
        header += f"{column:>23}"
    lines = [header + f"{'n':>6}"]
    for row in rows:
        line = f"{row.source:>8} -> {row.target:<8}"
        for interval in row.scores.values():
            line += cell(interval, row.n)
        line += f"{row.n:>6}  "
        if row.floors:
            found = [f"{name} {scores['R1'].value:.1f}" for name, scores in row.floors.items()]
            line += f"R1 floors: {', '.join(found)}  "
        if row.references.get("off-target"):
            share = row.references["off-target"].value
            mean = row.references["off-target-p"].value
            line += f"references off-target {share:.1f}, -p {mean:.1f}  "
        is_zero_shot = seen is not None and (row.source, row.target) not in seen
        if is_zero_shot:
            line += "zero-shot"
        lines.append(line.rstrip())
    return "\n".join(lines)


def legend(rows):
    """What the numbers mean that no signature explains."""
    lines = [
        "off-target: % of outputs that py3langid does not find to be in the target language, empty "
        "ones too; off-target-p, -p: 100 minus its mean probability of that language; references: "
        "the same of the references, which is py3langid's own error"
    ]
    if "facts" in rows[0].scores:
        lines.append("facts: % of what the reference headline tells (who, did what, where)")
    if rows[0].floors:
        lines.append(
            "R1 floors: ROUGE-1 without a model, by another example's headline (random) and by the "
            "document's first sentence (lead)"
        )
    return lines


def cell(interval, count):
    """A score of `count` examples, 23 characters."""
    if interval is None:
        return f"{'–':>8}" + " " * 15
    if count == 1:
        return f"{interval.value:>8.1f}" + " " * 15
    return f"{interval.value:>8.1f} [{interval.low:5.1f},{interval.high:6.1f}]"


def samples(rows, count=3):
    """`count` sample outputs for each target language, with source and reference, from as many
    source languages as there are."""
    chosen = {row.target: [] for row in rows}
    most = max((len(row.examples) for row in rows), default=0)
    for i in range(min(count, most)):
        for row in rows:
            if i < len(row.examples) and len(chosen[row.target]) < count:
                chosen[row.target].append((row.source, row.examples[i]))
    lines = []
    for target in sorted(chosen):
        for source, example in chosen[target]:
            lines.append(f"{source} source     {example['source']}")
            lines.append(f"{target} reference  {example['reference']}")
            lines.append(f"{target} output     {example['output']}")
            lines.append("")
    return "\n".join(lines)


def write_report(path, report, said_on=None):
    """Scores and outputs as JSON, and of which base the model is; papers/scores.py reads it.
    report: report_of()'s. said_on: the stream that names the file (default: standard output)."""
    write_json(path, report | {"origin": origin_of(model_folder(report["model"]))})
    print(f"scores and outputs are in {path}", file=said_on)


def report_of(name, decoder, stage, data_spec, options, signatures, rows):
    """What write_report() writes, but for the origin. name: the model's; decoder: the Decoder that
    has read it; data_spec: None for one's own text."""
    return {
        "model": str(name),
        "validation loss": decoder.validation_loss,
        "stage": stage,
        "data": data_spec,
        "options": options,
        "signatures": signatures,
        "rows": [vars(row) for row in rows],
    }


def validation_loss_of(folder):
    """The validation loss, by log.csv, of the model that a run's folder keeps: the lowest, or with
    --keep last the last. None where the folder is no run of train.py."""
    settings = read_settings(folder)
    if not settings:  # a log.csv there is no run's
        return None
    rows = read_log(Path(folder) / "log.csv")
    losses = [row["validation loss"] for row in rows if math.isfinite(row["validation loss"])]
    if not losses:
        return None
    if settings.get("keep") == "last":
        return losses[-1]
    return min(losses)


# ------------------------------------------------------------------------------- the command line


def parse_args(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--lang", help="target language, e.g. tr_TR (this or --pairs is needed)")
    add("--source-lang", nargs="+", metavar="LANG", help="source languages (default: the data's)")
    add("--pairs", nargs="+", metavar="SRC-TGT", help="instead of --lang, e.g. es_XX-en_XX")
    add("--model", metavar="FOLDER", help=f"{MODEL_HELP} (default: the latest run in runs/)")
    add(
        "--stage",
        choices=TASKS,
        help="the task (default: what the model was trained for, else translate)",
    )
    add("--data", metavar="SPEC", help="as train.py's (default: the run's, else builtin)")
    add("--skip-bad-lines", action="store_true", help="leave out and count unreadable lines")
    add(
        "--text",
        help="translate or summarize this text instead of a test set (it is in --source-lang; a "
        "summary's, unless named, in --lang)",
    )
    add("--file", metavar="FILE", help="the same for a text file; - reads standard input")
    add(
        "--examples",
        type=number(int, 0),
        default=200,
        help="the first N test examples of each pair; 0: all (default 200)",
        metavar="N",
    )
    add(
        "--samples",
        type=number(int, 0),
        default=3,
        help="sample outputs to print per target language; 0: none (default 3)",
    )
    add("--beam", type=COUNT, help="beams; 1: greedy (default %(default)s)")
    add(
        "--max-new-tokens",
        type=COUNT,
        help="most tokens of an output, </s> among them, in mBART-50 its tag too (default "
        "%(default)s)",
    )
    add(
        "--min-new-tokens",
        type=number(int, 0),
        help="fewest tokens before an output's </s>, in mBART-50 its tag among them (default "
        "%(default)s)",
    )
    add(
        "--length-penalty",
        type=PENALTY,
        metavar="P",
        help="hypotheses compete by their log-probability / length^P; 0: by that alone (default "
        "%(default)s)",
    )
    add(
        "--no-repeat-ngram",
        type=number(int, 0),
        metavar="N",
        help="no output has the same N tokens in a row twice; 0: it may (default: 3 for "
        "summaries, else 0)",
    )
    add(
        "--early-stopping",
        action="store_true",
        help="end an output's search when as many hypotheses as beams are finished, even if "
        "another could still win: up to a quarter faster where outputs end early",
    )
    add(
        "--int8",
        action="store_true",
        help="round large weights to 8 bits: faster on a CPU with AVX-512 VNNI, elsewhere hardly; "
        "outputs differ a little",
    )
    add(
        "--stem",
        action="store_true",
        help="summaries: also ROUGE of stemmed words, where the language has a Snowball stemmer",
    )
    add("--json", metavar="FILE", help="also write scores and outputs to this file")
    add("--device", type=device_name, help="cpu, cuda ... (default: a GPU if there is one)")
    add(
        "--precision",
        choices=PRECISIONS,
        help="of the weights and the arithmetic (default: bf16 on a GPU that has it, else fp32)",
    )
    parser.set_defaults(**DECODING)
    args = parser.parse_args(argv)
    if is_own_text(args) and args.lang is None and args.pairs is None:
        raise UserError("name the language of the output: --lang tr_TR")
    if (args.lang is None) == (args.pairs is None):
        raise UserError(
            "say what to evaluate: --lang tr_TR (every source language), or --pairs es_XX-en_XX"
        )
    if args.pairs and args.source_lang:
        raise UserError("--source-lang goes with --lang; --pairs names its own source languages")
    if args.text is not None and args.file is not None:
        raise UserError("--text and --file: give one text at a time")
    if args.source_lang:
        args.source_lang = list(dict.fromkeys(args.source_lang))  # what was typed twice counts once
    if is_own_text(args):
        for name in ("pairs", "data", "skip_bad_lines", "examples", "samples", "stem"):
            if getattr(args, name) != parser.get_default(name):
                raise UserError(f"{option_name(name)} is for a test set, not for one's own text")
    return args


def is_own_text(args):
    """Is it about a text of the user's, not about a test set?"""
    return args.text is not None or args.file is not None


def trained_pairs(settings):
    """The (source, target) pairs of a run, from its args.json; [] for published weights."""
    if "stage" not in settings:
        return []
    return language_pairs(
        settings["stage"],
        langs=settings.get("langs"),
        pairs=settings.get("pairs"),
        align_pairs=settings.get("align_pairs"),
    )


def pairs_ever_trained(settings):
    """trained_pairs(), and all that the model has learned in other ways: by --mix, and by the runs
    of ours before its own."""
    pairs = trained_pairs(settings)
    if settings.get("mix"):  # an earlier version's run does not have it in "learned"
        pairs = pairs + split_pairs(settings.get("mix_pairs") or [])
    for stage in TASKS:
        pairs = pairs + split_pairs(learned_in(settings, stage))
    return pairs


def sources_of(settings):
    """The languages that a model can read whose encoder has a vocabulary of its own: those that it
    was trained to read, or by tools.new_language graft those of the vocabulary's donor."""
    found = settings.get("sources")
    return found or sorted({source for source, _ in pairs_ever_trained(settings)})


def seen_pairs(settings, stage):
    """The (source, target) pairs that are not zero-shot for a model in `stage`: its own run, or one
    of ours before it, was trained on them.

    None if that is not known: published weights, and a summarizer that is to translate (the model
    that it started from may have learned that)."""
    seen = seen_in(settings, stage)
    if seen is not None:
        return split_pairs(seen)
    if settings.get("stage") == stage:  # an old run, which has --langs alone
        return trained_pairs(settings)
    return None


def check_languages(args, tokenizer):
    """UserError for a language on the command line that the model does not have."""
    named = list(args.source_lang or [])
    if args.lang is not None:
        named.append(args.lang)
    named += languages_of(split_pairs(args.pairs or []))
    tokenizer.check_languages(named)


def pairs_to_score(args, settings, stage, data_spec, languages):
    """The (source, target) pairs that --pairs names, or --lang with every source language; of a
    parallel data set only those that have test files, and of lines that say no languages the one
    that the run was trained on. A model whose encoder has a vocabulary of its own is asked about
    the languages that it was trained to read.

    settings: the run's. languages: the tokenizer's."""
    if args.pairs:
        pairs = split_pairs(args.pairs)
    else:
        pairs = pairs_into_lang(args, settings, stage, data_spec, languages)
    check_task(stage, data_spec, pairs)
    if not pairs:
        raise UserError(f"--stage {stage} needs here a source language other than the target")
    if len(pairs) > 1 and says_no_languages(data_spec, "test"):
        return the_trained_pair(args, data_spec, pairs, trained_pairs(settings))
    if kind_of(data_spec) == "parallel":  # evaluate() names the typed ones that are left out
        available = [pair for pair in pairs if has_test_files(folder_of(data_spec), pair)]
        return available or pairs  # where there is none, open_data says so
    return pairs


def pairs_into_lang(args, settings, stage, data_spec, languages):
    """The pairs that --lang asks for: from --source-lang, or from every language that the model
    reads and the data can have."""
    sources = args.source_lang
    if not sources and has_new_source(settings):
        sources = sources_of(settings)
    if sources:
        pairs = [(source, args.lang) for source in sources]
    else:
        sources = languages
        if is_builtin(data_spec):
            sources = BASE_LANGUAGES
        possible = pairs_within(data_spec, languages)
        pairs = [(source, args.lang) for source in sources if (source, args.lang) in possible]
    # A summary's target is never the text itself, as within a language of parallel data.
    only_copies = kind_of(data_spec) == "parallel" and not args.source_lang
    if stage == "translate" or only_copies:
        pairs = [pair for pair in pairs if pair[0] != pair[1]]
    return pairs


def check_task(stage, data_spec, pairs):
    """UserError where data have nothing of a task, as train.py's check_pairs() has it."""
    if stage == "translate" and not has_translations(data_spec):
        raise UserError(
            f"--data {data_spec} has summaries and no translations: use --stage summarize, or "
            "other data"
        )
    within = [source for source, target in pairs if source == target]
    if kind_of(data_spec) == "parallel" and stage == "summarize" and within:
        raise UserError(
            f"--data {data_spec} has translations and no summaries: from {within[0]} to "
            f"{within[0]} a copy would count as the best; use --stage translate, another "
            "--source-lang, or other data"
        )


def the_trained_pair(args, data_spec, pairs, trained):
    """The one of the pairs that the run was trained on, as a list; UserError if there is not one,
    or if others were typed."""
    found = [pair for pair in pairs if pair in trained]
    if args.pairs or args.source_lang or len(found) != 1:
        raise UserError(
            f"--data {data_spec}: no column says the languages; name the one pair that it has, "
            "--pairs en_XX-es_XX"
        )
    return found


def has_test_files(folder, pair):
    return all((Path(folder) / f"test.{lang}").exists() for lang in pair)


def own_text(args):
    """The text of --text, --file or standard input, on one line."""
    if args.text is not None:
        name = "--text"
        text = args.text
    else:
        name = args.file
        if args.file == "-":
            name = "standard input"
        text = read_text(args.file, name)
    if not text.strip():
        raise UserError(f"{name} is empty; give a text of at least a word")
    if "\0" in text:  # every second byte of English in UTF-16
        raise UserError(f"{name} has NUL characters: save UTF-16 as UTF-8, or remove them")
    return " ".join(text.split())


def read_text(file, name):
    if file == "-" and sys.stdin is None:
        raise UserError("standard input is closed; give it a text, or name a text file")
    try:
        if file == "-":
            raw = sys.stdin.buffer.read()
        else:
            raw = Path(file).read_bytes()
    except OSError as error:
        raise UserError(
            f"--file {file}: {error.strerror}; name a text file, or - for standard input"
        ) from None
    return utf8_text(raw, name)


def language_of_own_text(args, stage):
    """The language that one's own text is in: the one named, else a summary's."""
    sources = args.source_lang or []
    if stage == "summarize" and not sources:
        sources = [args.lang]
    if not sources:
        raise UserError(
            "a translation needs the text's language too: --source-lang en_XX (or is it to be "
            f"summarized in {args.lang}? --stage summarize)"
        )
    if len(sources) > 1:
        raise UserError("one's own text is in one language: --source-lang en_XX")
    return sources[0]


def tell_language(text, source, languages):
    """Says on standard error that a text seems to be in another language than `source`.

    languages: the tokenizer's. Of a text of few letters the identifier's guess is worth little."""
    identify = metrics.LanguageIdentifier([*languages, source])
    if len(text) < LONG_ENOUGH or not identify.knows(source):
        return
    found = identify.posteriors(text)
    best = metrics.likeliest(found)
    if best not in (None, source) and found[best] > SURE:
        note(f"the text seems to be in {best}, but is read as {source}: --source-lang {best}?")


def write_own_text(text, source, target, decoder, was_finetuned):
    """Prints the summary or translation of one's own text, and nothing else on standard output.

    was_finetuned: does anything say so of the model? Returns the text's Row, which has no reference
    and no score."""
    if not decoder.tokenizer.source.piece_ids(text):
        raise UserError("the text has nothing that the model's vocabulary takes for text")
    tell_language(text, source, decoder.tokenizer.languages)
    output = decoder([text], source, target)[0]
    print(output)
    if output and output in text and not was_finetuned:
        note(f"the output is a piece of the text, word for word; {PRETRAINED}")
    example = {"source": text, "reference": None, "output": output}
    return Row(source=source, target=target, n=1, examples=[example])


def typed_pairs(args, stage):
    """The (source, target) pairs that the command line names one by one."""
    if args.pairs:
        return split_pairs(args.pairs)
    pairs = [(source, args.lang) for source in args.source_lang or []]
    if stage == "translate":
        return [(source, target) for source, target in pairs if source != target]
    return pairs


def paths_read(args, folder, data_spec):
    """The files and folders that must not be written to, as check_file_out() takes them."""
    if is_own_text(args):
        return [folder, args.file]
    return [folder, folder_of(data_spec)]


def generation_options(args, stage, config):
    """generate's options, as the command line has them and the model of this Config can meet them;
    UserError where it cannot."""
    options = decoding_of(stage)
    for name in options:
        value = getattr(args, name)
        if value is not None:  # None: not typed, the stage has a default of its own
            options[name] = value
    longest = longest_output(config)
    if options["max_new_tokens"] > longest:
        note(
            f"the model has positions for {longest} new tokens, not for "
            f"{options['max_new_tokens']}: outputs have at most {longest}"
        )
        options["max_new_tokens"] = longest
    check_beam_and_lengths(
        config, options["beam"], options["max_new_tokens"], options["min_new_tokens"]
    )
    if options["beam"] == 1:  # one hypothesis is compared with no other, and ends the search
        for name in ("length_penalty", "early_stopping"):
            if options[name] != DECODING[name]:
                note(f"{option_name(name)} has no effect with --beam 1")
    return options


def check_int8(device, precision):
    """UserError for --int8 where there are no such products; a note where they may not pay."""
    if precision != "fp32" or torch.device(device).type != "cpu":
        raise UserError(
            f"--int8 is for fp32 on a CPU, where it is faster, not for {precision} on {device}: "
            "leave --int8 out"
        )
    if not HAS_VNNI:
        note(
            "this processor has no AVX-512 VNNI, whose 8-bit products --int8 is for: it rounds to "
            "7 bits here and gains next to nothing (4% on AMD EPYC), while outputs differ"
        )


def decoding_precision(device):
    """The type of weights and arithmetic where nobody named one; not fp16, which may overflow."""
    precision = default_precision(device)
    return precision if precision in PRECISIONS else "fp32"


def tell_training(name, folder, settings, asked):
    """Notes on a model that was not finetuned, or whose training has hardly begun. asked: the
    --stage that was typed."""
    tell_untrained(name, folder)
    if settings.get("fresh"):
        note(
            f"{name} has embeddings as they were drawn: train it with `{beside_python()} train.py "
            f"--stage translate --init {quoted(name)} --pairs ... --recipe ...`"
        )
    own = settings.get("stage")
    # Published weights have no args.json: whoever names --stage for them vouches for the task.
    user_vouches = asked and not own
    if own not in TASKS and not user_vouches:
        taken = ""
        if not asked:
            taken = f" (taken for --stage {stage_of(settings)})"
        note(f"nothing says that {name} was finetuned{taken}; {PRETRAINED}")


def main(argv=None):
    """Returns the scores, as report_of() has them; None for one's own text."""
    args = parse_args(argv)
    name = pinned(args.model) if args.model else latest_run(TASKS)
    folder = model_folder(name, weights=False)  # what was mistyped is said before they are fetched
    settings = read_settings(folder)
    stage = stage_of(settings, args.stage)
    data_spec = args.data or settings.get("data") or "builtin"
    if args.json:
        check_file_out(args.json, read=paths_read(args, folder, data_spec))
    check_languages(args, Tokenizer.from_pretrained(folder))
    if is_own_text(args):
        source = language_of_own_text(args, stage)
        text = own_text(args)
    else:
        check_spec(data_spec, args.skip_bad_lines)
        if is_builtin(data_spec) and not args.examples:
            raise UserError("the built-in corpus has no end: --examples says how many, not 0")
    if args.stem and stage != "summarize":
        raise UserError("--stem is of ROUGE, which scores summaries: --stage summarize")
    options = generation_options(args, stage, Config.read(folder / "config.json"))
    device = args.device or default_device()
    precision = args.precision or decoding_precision(device)
    if args.int8:
        check_int8(device, precision)
    tell_training(name, folder, settings, args.stage)
    decoder = Decoder(model_folder(name), device, args.int8, precision, **options)
    if precision != "fp32":  # from here on the options are what is reported
        options["precision"] = precision
    if args.int8:
        options["int8"] = True
    languages = decoder.tokenizer.languages
    if is_own_text(args):
        if not args.model:
            note(f"by the latest run, {name} (--model names another)")
        was_finetuned = settings.get("stage") in TASKS
        row = write_own_text(text, source, args.lang, decoder, was_finetuned)
        if args.json:
            report = report_of(name, decoder, stage, None, options, [], [row])
            write_report(args.json, report, sys.stderr)
        return

    pairs = pairs_to_score(args, settings, stage, data_spec, languages)
    print(f"{name}, {stage}, {data_spec}, beam {args.beam}: score [95% bootstrap interval]")
    rows, signatures = evaluate(
        decoder,
        stage,
        data_spec,
        pairs,
        args.examples,
        languages,
        pairs_ever_trained(settings),
        args.skip_bad_lines,
        asked=typed_pairs(args, stage),
        stem=args.stem,
        tell_references=decoder.tell_references,
    )
    print(table(rows, seen_pairs(settings, stage)))
    print("\n".join(signatures + legend(rows)))
    if args.samples:
        print("\n" + samples(rows, args.samples))
    report = report_of(name, decoder, stage, data_spec, options, signatures, rows)
    if args.json:
        write_report(args.json, report)
    return report


if __name__ == "__main__":
    run(main)
