"""Decode a test set and print the tables; or summarize or translate a text given by hand.

    python eval.py --lang tr_TR                          a row for every source language, from the latest run
    python eval.py --lang tr_TR --source-lang es_XX      one row
    python eval.py --lang es_XX --model runs/translate --source-lang en_XX --text "The teacher found a map."

Decoding is beam search with 5 beams and the target language's tag in front (Solovyev et al. 2024, section 4).
Columns: BLEU and chrF for translation; ROUGE-1/2/L for summarization; off-target, the share of outputs that are not
in the target language; on the built-in corpus, facts: the share of who, did, what and where that the output says.
"""
import argparse
import sys
from pathlib import Path

import torch
from tqdm import tqdm

import metrics
from corpus import BASE_LANGUAGES, Corpus
from corpus import LANGUAGES as CORPUS_LANGUAGES
from data import pad
from generate import generate
from model import MBart, UserError
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


def evaluate(model, tokenizer, stage, data_spec, pairs, count, tagged=True, seed=0, show_progress=True, **options):
    """Scores a model on the first `count` test examples of every (source, target) pair.

    Returns (rows, signatures); a row is {"source", "target", "n", scores: {name: (value, low, high)}, "examples"}."""
    if stage == "summarize" and data_spec == "builtin":
        corpus = Corpus({lang for pair in pairs for lang in pair} | {"en_XX"})
    data = open_data(data_spec, stage, "test", pairs, tokenizer.languages, seed)
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
        sources = [tokenizer.encode(text, source if tagged else None, limit) for text, _ in texts]
        outputs = decode(model, tokenizer, sources, target, progress=progress, **options)
        references = [reference for _, reference in texts]
        if stage == "summarize":
            scores = {name: metrics.bootstrap(values) for name, values in metrics.rouge(outputs, references).items()}
            signatures = [metrics.ROUGE_SIGNATURE]
        else:
            scores, signatures = metrics.bleu_chrf(outputs, references)
        scores["off-target"] = metrics.bootstrap([100.0 * (identify(output) != target) for output in outputs])
        if stage == "summarize" and data_spec == "builtin":
            told = [corpus.facts_recovered(data.document(pair, i), output, target) for i, output in enumerate(outputs)]
            scores["facts"] = metrics.bootstrap([100.0 * sum(found.values()) / len(found) for found in told])
        rows.append({"source": source, "target": target, "n": len(outputs), "scores": scores,
                     "examples": [{"source": text, "reference": reference, "output": output}
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
    notes, count = {}, 24
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
    add("--lang", required=True, help="target language, e.g. tr_TR")
    add("--source-lang", nargs="+", metavar="LANG", help="source languages (default: all of the data's)")
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
    return parser.parse_args(argv)


def run(args):
    folder, trained = find_model(args.model)
    stage = args.stage or (trained.get("stage") if trained.get("stage") != "pretrain" else None) or "translate"
    data_spec = args.data or trained.get("data", "builtin")
    tagged = not trained.get("tagless")  # as it was trained
    model, tokenizer = MBart.from_pretrained(folder), Tokenizer.from_pretrained(folder)
    for lang in [args.lang, *(args.source_lang or [])]:
        tokenizer.lang_id(lang)
    model.to(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
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
    pairs = [(source, args.lang) for source in sources if stage == "summarize" or source != args.lang]
    if not pairs:
        raise UserError("translation needs a source language other than the target")
    if data_spec.startswith("parallel:"):
        pairs = [p for p in pairs if all((Path(data_spec[9:]) / f"test.{c}").exists() for c in p)] or pairs
    seen = set(trained.get("langs") or [])
    print(f"{folder}, {stage}, {data_spec}, beam {args.beam}: score [95% bootstrap interval]")
    rows, signatures = evaluate(model, tokenizer, stage, data_spec, pairs, args.examples, tagged, **options)
    if not rows:
        raise UserError(f"--data {data_spec}: no test example with the target language {args.lang}")
    notes = {(r["source"], r["target"]): "zero-shot" for r in rows if seen and not {r["source"], r["target"]} <= seen}
    print(table(rows, notes) + "\n" + "\n".join(signatures))
    if args.samples:
        print("\n" + samples(rows, args.samples))
    if args.json:
        write_json(args.json, {"model": str(folder), "stage": stage, "data": data_spec, "options": options,
                               "signatures": signatures, "rows": rows})
        print(f"scores and outputs are in {args.json}")


def main():
    try:
        run(parse_args())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
