"""Decode a data set's test split and score it: the rows of eval.py's tables."""
from pathlib import Path

import torch.distributed as dist
from tqdm import tqdm

import metrics
from corpora.facts import LANGUAGES as CORPUS_LANGUAGES
from corpora.facts import Corpus
from corpora.sets import open_data
from data import SENTENCE_END, pad
from generate import generate
from model import MBart
from plumbing.files import UserError, read_json
from tokenizer import Tokenizer


def decode(model, tokenizer, sources, lang, tokens=6000, slots=50_000, progress=None, **options):
    """Texts -> outputs in `lang` (code), in the order given.

    sources: lists of ids of the encoder's input. options: generate's. Batches hold sentences of like length, at most
    `tokens` of them and `slots` of the decoder's cache (100 KB each in mBART-large). Under torchrun every process
    decodes its share, and all get all outputs."""
    device = next(model.parameters()).device
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))[rank::world]
    outputs, start = [None] * len(sources), 0
    most = max(1, slots // (options.get("beam", 5) * options.get("max_new_tokens", 100)))
    while start < len(order):
        stop = start + 1
        while stop < len(order) and stop - start < most and len(sources[order[stop]]) * (stop + 1 - start) <= tokens:
            stop += 1
        rows = order[start:stop]
        ids = generate(model, pad([sources[i] for i in rows]).to(device), tokenizer.lang_id(lang), **options)
        for i, row in zip(rows, ids):
            outputs[i] = tokenizer.decode(row)
        start = stop
        if progress is not None:
            progress.update(len(rows) * world)
    if world > 1:
        shares = [None] * world
        dist.all_gather_object(shares, outputs)
        outputs = [next(output for output in each if output is not None) for each in zip(*shares)]
    return outputs


def identifier(data_spec, stage, pairs, languages, skip=False):
    """A language identifier: of all seven languages of the built-in corpus, or of the languages of `pairs` (those asked
    for and those trained on) in the data set's training split, the test split where there is no other."""
    texts = {}
    if data_spec == "builtin":
        corpus = Corpus()
        for lang in CORPUS_LANGUAGES:
            documents = [corpus.document(i, "train", 1) for i in range(400)]
            texts[lang] = [corpus.text(d, lang) for d in documents] + [corpus.headline(d, lang) for d in documents]
        return metrics.LanguageIdentifier(texts)
    for pair in dict.fromkeys(pairs):
        for split in ("train", "test"):
            try:
                data = open_data(data_spec, stage, split, [pair], languages, skip=skip)
            except UserError:
                continue
            for i in range(min(data.sizes[pair], 1000)):
                for lang, text in zip(pair, data.text(pair, i)):
                    texts.setdefault(lang, []).append(text)
            break
    return metrics.LanguageIdentifier(texts)


class Pipeline:
    """Translate -> summarize -> translate (Solovyev et al. 2024, section 4.4): a translation model around one that
    summarizes in the pivot language alone."""

    def __init__(self, folder, device, pivot="en_XX"):
        self.model, self.tokenizer = MBart.from_pretrained(folder).to(device), Tokenizer.from_pretrained(folder)
        self.tagged, self.pivot = not (read_json(Path(folder) / "args.json") or {}).get("tagless"), pivot

    def translate(self, texts, source, target):
        """Each text sentence by sentence, as a sentence-level translation model wants it."""
        if source == target:
            return texts
        limit = self.model.config.max_position_embeddings
        split = [[s for s in SENTENCE_END.split(text) if s.strip()] for text in texts]
        ids = [self.tokenizer.encode(s, source if self.tagged else None, limit) for row in split for s in row]
        done = iter(decode(self.model, self.tokenizer, ids, target, max_new_tokens=min(100, limit - 2)))
        return [" ".join(next(done) for _ in row) for row in split]


def score(outputs, stage, references, lang, identify, facts=None):
    """What outputs that should be in `lang` are worth: ({name: (value, low, high)}, {name: value of each output},
    signatures). BLEU and chrF are the corpus's, all else means over outputs. facts(outputs) -> percents."""
    scores, each, signatures = {}, {}, [metrics.ROUGE_SIGNATURE]
    if stage == "translate":
        scores, signatures = metrics.bleu_chrf(outputs, references)
    else:
        each = metrics.rouge(outputs, references)
    each["off-target"] = [100.0 * (identify(output) != lang) for output in outputs]
    if facts:
        each["facts"] = facts(outputs)
    scores |= {name: metrics.bootstrap(values) for name, values in each.items()}
    return scores, {name: [round(float(value), 2) for value in values] for name, values in each.items()}, signatures


def evaluate(model, tokenizer, stage, data_spec, pairs, count, tagged=True, seed=0, show_progress=True, pipeline=None,
             trained=(), skip=False, **options):
    """Scores a model on the first `count` test examples of every (source, target) pair. trained: the pairs it was
    trained on, whose languages it may fall back into; skip: leave out bad lines.

    Returns (rows, signatures); a row is {"source", "target", "n", "scores": {name: (value, low, high)}, "each": {name:
    a value per output}, "examples"}, for summaries also "floors": the scores of outputs that need no model."""
    data = open_data(data_spec, stage, "test", pairs, tokenizer.languages, seed, skip)
    corpus = None
    if data_spec == "builtin":
        corpus = Corpus({lang for pair in pairs for lang in pair} | {"en_XX"})
    identify = identifier(data_spec, stage, [*pairs, *trained], tokenizer.languages, skip)
    sizes = {pair: count if size is None else min(size, count) for pair, size in data.sizes.items()}
    rank = dist.get_rank() if dist.is_initialized() else 0
    progress = tqdm(total=sum(sizes.values()), unit="text", desc="decoding", leave=False, dynamic_ncols=True,
                    disable=not show_progress or rank > 0)
    limit, rows, signatures = model.config.max_position_embeddings, [], []
    options["max_new_tokens"] = min(options.get("max_new_tokens", 100), limit - 2)
    for pair in pairs:
        if pair not in sizes:
            continue
        source, target = pair
        texts = [data.text(pair, i) for i in range(sizes[pair])]
        inputs, references = [text for text, _ in texts], [reference for _, reference in texts]
        read, write = source, target  # the languages that the model itself sees
        if pipeline:
            inputs, read, write = pipeline.translate(inputs, source, pipeline.pivot), pipeline.pivot, pipeline.pivot
        sources = [tokenizer.encode(text, read if tagged else None, limit) for text in inputs]
        outputs = decode(model, tokenizer, sources, write, progress=progress, **options)
        if pipeline:
            outputs = pipeline.translate(outputs, pipeline.pivot, target)

        def facts(outputs, pair=pair):
            told = [corpus.facts_recovered(data.document(pair, i), output, pair[1]) for i, output in enumerate(outputs)]
            return [100.0 * sum(found.values()) / len(found) for found in told]

        asked = (stage, references, target, identify, facts if corpus and stage == "summarize" else None)
        floors = {}
        if stage == "summarize":
            floors = {"random": score(references[1:] + references[:1], *asked)[0],
                      "lead": score([SENTENCE_END.split(text.strip())[0] for text, _ in texts], *asked)[0]}
        scores, each, signatures = score(outputs, *asked)
        rows.append({"source": source, "target": target, "n": len(outputs), "scores": scores, "each": each,
                     "floors": floors, "examples": [{"source": text, "reference": reference, "output": output}
                                  for (text, reference), output in zip(texts, outputs)]})
    progress.close()
    return rows, signatures


def table(rows, notes=None):
    """Rows of evaluate() as text: score [95% interval] per column."""
    names = list(rows[0]["scores"])
    lines = [f"{'source':>8} -> {'target':<8}" + "".join(f"{name:>22}" for name in names) + f"{'n':>6}"]
    for row in rows:
        cells = "".join(f"{value:>8.1f} [{low:5.1f},{high:6.1f}]" for value, low, high in row["scores"].values())
        note = (notes or {}).get((row["source"], row["target"]), "")
        if row["floors"]:
            random, lead = (row["floors"][name]["R1"][0] for name in ("random", "lead"))
            note = f"R1 floors: random {random:.1f}, lead {lead:.1f}  {note}"
        lines.append(f"{row['source']:>8} -> {row['target']:<8}{cells}{row['n']:>6}  {note}".rstrip())
    return "\n".join(lines)


def samples(rows, count):
    """The first outputs of each row, with source and reference."""
    lines = []
    for row in rows:
        for example in row["examples"][:count]:
            lines += [f"{row['source']} source     {example['source']}", f"{row['target']} reference  "
                      f"{example['reference']}", f"{row['target']} output     {example['output']}", ""]
    return "\n".join(lines)
