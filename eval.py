"""Decode a test set and print the tables; or summarize or translate a text given by hand.

    python eval.py --lang tr_TR                          a row for every source language, from the latest run
    python eval.py --lang tr_TR --source-lang es_XX      one row
    python eval.py --pairs en_XX-en_XX es_XX-en_XX       any rows
    python eval.py --lang es_XX --model runs/translate --source-lang en_XX --text "The teacher found a map."
    python eval.py --lang tr_TR --model runs/summarize --pipeline runs/translate     translate, summarize, translate
    python eval.py --probe --model runs/summarize        how much each layer tells of the source language
    python eval.py --dictionary --model runs/child       do a new language's embeddings lie at the parent's?
    python eval.py --retrieval --model runs/summarize    how near each layer brings translations

Decoding is beam search with 5 beams and the target language's tag in front (Solovyev et al. 2024, section 4).
Columns: BLEU and chrF for translation; ROUGE-1/2/L for summarization; off-target, the share of outputs that are not
in the target language; on the built-in corpus, facts: the share of who, did, what and where that the output says.
Beside ROUGE-1 stand its floors, which need no model: another example's headline, and the source's first sentence.
"""
import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

import metrics
from analysis import dictionary_induction, probe_layers, probe_table, retrieval_table, retrieve_layers
from corpus import BASE_LANGUAGES, Corpus
from corpus import LANGUAGES as CORPUS_LANGUAGES
from data import SENTENCE_END, pad
from generate import generate
from model import MBart, UserError
from options import split_pairs
from readers import open_data
from tokenizer import Tokenizer, read_json, write_json

SHORT = {"translate": {"no_repeat_ngram": 0}, "summarize": {"no_repeat_ngram": 3}}  # METHODS: no repeated 3-grams


def decode(model, tokenizer, sources, lang, tokens=6000, progress=None, **options):
    """Texts -> outputs in `lang` (code), in the order given.

    sources: lists of ids of the encoder's input. options: generate's. Batches hold sentences of like length."""
    device = next(model.parameters()).device
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    outputs, start = [None] * len(sources), 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and len(sources[order[stop]]) * (stop + 1 - start) <= tokens:
            stop += 1
        rows = order[start:stop]
        ids = generate(model, pad([sources[i] for i in rows]).to(device), tokenizer.lang_id(lang), **options)
        for i, row in zip(rows, ids):
            outputs[i] = tokenizer.decode(row)
        start = stop
        if progress is not None:
            progress.update(len(rows))
    return outputs


def identifier(data_spec, stage, pairs, languages):
    """A language identifier learned from the training split: of all seven languages of the built-in corpus, or of the
    data set's own languages."""
    texts = {}
    if data_spec == "builtin":
        corpus = Corpus()
        for lang in CORPUS_LANGUAGES:
            documents = [corpus.document(i, "train", 1) for i in range(400)]
            texts[lang] = [corpus.text(d, lang) for d in documents] + [corpus.headline(d, lang) for d in documents]
    else:
        data = open_data(data_spec, stage, "train", pairs, languages)
        for pair, size in data.sizes.items():
            for i in range(min(size, 2000)):
                for lang, text in zip(pair, data.text(pair, i)):
                    texts.setdefault(lang, []).append(text)
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
             **options):
    """Scores a model on the first `count` test examples of every (source, target) pair.

    Returns (rows, signatures); a row is {"source", "target", "n", "scores": {name: (value, low, high)}, "each": {name:
    a value per output}, "examples"}, for summaries also "floors": the scores of outputs that need no model."""
    data = open_data(data_spec, stage, "test", pairs, tokenizer.languages, seed)
    corpus = None
    if data_spec == "builtin":
        corpus = Corpus({lang for pair in pairs for lang in pair} | {"en_XX"})
    identify = identifier(data_spec, stage, pairs, tokenizer.languages)
    sizes = {pair: count if size is None else min(size, count) for pair, size in data.sizes.items()}
    progress = tqdm(total=sum(sizes.values()), unit="text", desc="decoding", disable=not show_progress, leave=False,
                    dynamic_ncols=True)
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


def after_training(out, args, pairs):
    """The table and samples at the end of a training run, and what to run next."""
    if args.stage == "pretrain":
        print(f"next: python train.py --stage translate --init {out}")
        return
    model, tokenizer = MBart.from_pretrained(out), Tokenizer.from_pretrained(out)
    model.to(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    notes, count = {}, 50
    if args.stage == "translate":
        shown = [pair for pair in pairs if pair[0] != pair[1]] or pairs
    else:
        count = 100
        shown = sorted(pairs) if args.data != "builtin" else [(lang, lang) for lang in BASE_LANGUAGES]
        notes = {pair: "" if pair in pairs else "zero-shot" for pair in shown}
    print(f"\ntest set, {args.stage}: score [95% bootstrap interval]; off-target: % of outputs in another language")
    rows, signatures = evaluate(model, tokenizer, args.stage, args.data, shown, count, not args.tagless, args.seed,
                                **SHORT[args.stage])
    print(table(rows, notes) + "\n" + "\n".join(signatures))
    print("\nsamples\n" + samples_by_target(rows))
    if args.stage == "translate":
        print(f"next: python train.py --stage summarize --init {out}    (the second step: QK finetuning on summaries)")
    else:
        print(f"next: python eval.py --model {out} --lang tr_TR    (every source language, zero-shot)")


def samples_by_target(rows, count=3):
    """Three outputs for each target language, each from another source language where there are enough."""
    lines, seen = [], {}
    for number in range(count):
        for row in rows:
            if seen.get(row["target"], 0) < count and len(row["examples"]) > number:
                seen[row["target"]] = seen.get(row["target"], 0) + 1
                lines.append((row["target"], row | {"examples": [row["examples"][number]]}))
    return samples([row for _, row in sorted(lines, key=lambda line: line[0])], 1)


def find_model(folder):
    """The model to evaluate and its stage: --model, else the latest run in runs/."""
    if not folder:
        runs = [path for path in Path("runs").glob("*/args.json")
                if read_json(path).get("stage") != "pretrain" and (path.parent / "config.json").exists()]
        if not runs:
            raise UserError("there is no run in runs/ yet; run `python train.py --stage translate` first (some minutes "
                            "on two CPU cores), or name a model with --model FOLDER")
        folder = max(runs, key=lambda path: path.stat().st_mtime).parent
    return Path(folder), (read_json(Path(folder) / "args.json") or {})


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=__doc__.split("\n", 2)[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--lang", help="target language, e.g. tr_TR")
    add("--source-lang", nargs="+", metavar="LANG", help="source languages (default: all of the data's)")
    add("--pairs", nargs="+", metavar="SRC-TGT", help="rows of any pairs, instead of --lang, e.g. es_XX-en_XX")
    add("--probe", action="store_true", help="train a classifier of the source language on every layer's states, and "
        "compare languages by SVCCA (--source-lang: which; default en es ru tr)")
    add("--retrieval", action="store_true", help="how often a document's nearest neighbour in another language is its "
        "translation, by layer (--source-lang: which languages; default the base's five)")
    add("--dictionary", action="store_true", help="for a run with --new-source or --new-target: how often the nearest "
        "of the parent's embeddings is a translation")
    add("--pipeline", metavar="FOLDER", help="a translation model: translate to --pivot, summarize, translate back")
    add("--pivot", default="en_XX", help="the language in which the pipeline summarizes (default en_XX)")
    add("--model", metavar="FOLDER", help="an mBART folder (default: the latest run in runs/)")
    add("--stage", choices=("translate", "summarize"), help="the task (default: what the model was trained for)")
    add("--data", metavar="SPEC", help="builtin, jsonl:DIR or parallel:DIR (default: the run's)")
    add("--text", help="translate or summarize this text instead of a test set (needs one --source-lang)")
    add("--examples", type=int, default=200, help="test examples per pair (default 200)")
    add("--samples", type=int, default=2, help="sample outputs to print per row; 0: none (default 2)")
    add("--beam", type=int, default=5, help="beams; 1: greedy (default 5)")
    add("--max-new-tokens", type=int, default=100, help="longest output (default 100)")
    add("--min-new-tokens", type=int, default=0, help="shortest output; 0: no minimum")
    add("--length-penalty", type=float, default=1.0, help="score / length^penalty; 0: off (default 1.0)")
    add("--no-repeat-ngram", type=int, help="forbid repeated n-grams; 0: allow (default: 3 for summaries, else 0)")
    add("--json", metavar="FILE", help="also write scores and outputs to this file")
    add("--device", help="cpu, cuda ... (default: a GPU if there is one)")
    args = parser.parse_args(argv)
    if sum((args.lang is not None, args.pairs is not None, args.probe, args.retrieval, args.dictionary)) != 1:
        raise UserError("say what to evaluate, one of: --lang tr_TR (every source language), --pairs es_XX-en_XX, "
                        "--probe, --retrieval, --dictionary")
    return args


def run(args):
    folder, trained = find_model(args.model)
    stage = args.stage or (trained.get("stage") if trained.get("stage") != "pretrain" else None) or "translate"
    data_spec = args.data or trained.get("data", "builtin")
    tagged = not trained.get("tagless")  # as it was trained
    model, tokenizer = MBart.from_pretrained(folder), Tokenizer.from_pretrained(folder)
    asked = split_pairs(args.pairs or [])
    for lang in [args.lang or "en_XX", *(args.source_lang or []), *sum(asked, ())]:
        tokenizer.lang_id(lang)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    if args.dictionary:
        dictionary(folder, trained, model, tokenizer, args.json)
        return
    if args.retrieval:
        langs = args.source_lang or list(BASE_LANGUAGES)
        if len(langs) < 2:
            raise UserError("--retrieval compares languages: name at least two with --source-lang")
        report = retrieve_layers(model, tokenizer, stage, data_spec, langs, tagged)
        print(f"{folder}: {retrieval_table(report)}")
        if args.json:
            write_json(args.json, {"model": str(folder), "languages": langs, "retrieval": report})
        return
    if args.probe:
        langs = args.source_lang or ["en_XX", "es_XX", "ru_RU", "tr_TR"]
        report = probe_layers(model, tokenizer, stage, data_spec, langs, tagged)
        print(f"{folder}: a fresh classifier of the source language on each layer's states; chance is "
              f"{1 / len(langs):.3f}\n" + probe_table(report, langs))
        if args.json:
            write_json(args.json, {"model": str(folder), "languages": langs, "probe": report})
        return
    if trained.get("stage") in (None, "pretrain") and not args.stage:
        print(f"note: nothing says that {folder} was finetuned; a model that was only pretrained copies its input")
    ngram = SHORT[stage]["no_repeat_ngram"] if args.no_repeat_ngram is None else args.no_repeat_ngram
    options = {"beam": args.beam, "max_new_tokens": args.max_new_tokens, "min_new_tokens": args.min_new_tokens,
               "length_penalty": args.length_penalty, "no_repeat_ngram": ngram}
    if args.text is not None:
        if not args.source_lang or len(args.source_lang) != 1:
            raise UserError("--text needs its language: one --source-lang, e.g. --source-lang en_XX")
        if not args.text.strip():
            raise UserError("--text is empty")
        limit = model.config.max_position_embeddings
        ids, full = (tokenizer.encode(args.text, args.source_lang[0] if tagged else None, n) for n in (limit, None))
        if len(full) > len(ids):
            print(f"note: the text has {len(full)} tokens and the model reads {limit}; the rest was left out",
                  file=sys.stderr)
        options["max_new_tokens"] = min(options["max_new_tokens"], limit - 2)
        print(decode(model, tokenizer, [ids], args.lang, **options)[0])
        return
    sources = args.source_lang or (list(BASE_LANGUAGES) if data_spec == "builtin" else tokenizer.languages)
    pairs = asked or [(source, args.lang) for source in sources if stage == "summarize" or source != args.lang]
    if not pairs:
        raise UserError("translation needs a source language other than the target")
    if data_spec.startswith("parallel:"):
        pairs = [p for p in pairs if all((Path(data_spec[9:]) / f"test.{c}").exists() for c in p)] or pairs
    seen = set(trained.get("langs") or [])
    print(f"{folder}, {stage}, {data_spec}, beam {args.beam}: score [95% bootstrap interval]")
    pipeline = Pipeline(args.pipeline, device, args.pivot) if args.pipeline else None
    rows, signatures = evaluate(model, tokenizer, stage, data_spec, pairs, args.examples, tagged, pipeline=pipeline,
                                **options)
    if not rows:
        raise UserError(f"--data {data_spec}: no test example of " + " ".join("-".join(pair) for pair in pairs[:6]))
    notes = {(r["source"], r["target"]): "zero-shot" for r in rows if seen and not {r["source"], r["target"]} <= seen}
    print(table(rows, notes) + "\n" + "\n".join(signatures))
    if args.samples:
        print("\n" + samples(rows, args.samples))
    if args.json:
        write_json(args.json, {"model": str(folder), "stage": stage, "data": data_spec, "options": options,
                               "signatures": signatures, "rows": rows})
        print(f"scores and outputs are in {args.json}")


def dictionary(folder, trained, model, tokenizer, json_file):
    """Prints the dictionary induction accuracy of a child run's new embeddings against its parent's."""
    side = 0 if trained.get("new_source") else 1
    if not (trained.get("new_source") or trained.get("new_target")):
        raise UserError(f"{folder} has no new language; train it with --new-source or --new-target")
    parent, old = MBart.from_pretrained(trained["init"]), Tokenizer.from_pretrained(trained["init"])
    before = read_json(Path(trained["init"]) / "args.json") or {}
    new, known = trained["pairs"][0].split("-")[side], (before.get("pairs") or [""])[0].split("-")
    if len(known) != 2:
        raise UserError(f"{trained['init']} is no translation run with --pairs: its language is not known")
    tables = [(m.source_table(), t.source.pieces) if side == 0 else (m.model.shared.weight, t.pieces)
              for m, t in ((model, tokenizer), (parent, old))]
    right, tried, chance = dictionary_induction(*tables[0], new, *tables[1], known[side])
    print(f"{folder}: {100 * right:.1f}% of {tried} words of {new} have a translation as the nearest embedding of "
          f"{known[side]} (chance {100 * chance:.1f}%)")
    if json_file:
        found = {"accuracy": right, "words": tried, "chance": chance}
        write_json(json_file, {"model": str(folder), "dictionary": found})


def main():
    try:
        run(parse_args())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
