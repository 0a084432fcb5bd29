"""Decode a test set and print the tables; or summarize or translate a text given by hand.

    python eval.py --lang tr_TR                          a row for every source language, from the latest run
    python eval.py --lang tr_TR --source-lang es_XX      one row
    python eval.py --pairs en_XX-en_XX es_XX-en_XX       any rows
    python eval.py --lang es_XX --model runs/translate --source-lang en_XX --text "The teacher found a map."
    python eval.py --lang tr_TR --model runs/summarize --pipeline runs/translate     translate, summarize, translate

Decoding is beam search with 5 beams and the target language's tag in front (Solovyev et al. 2024, section 4).
Columns: BLEU and chrF for translation; ROUGE-1/2/L for summarization; off-target, the share of outputs that are not
in the target language; on the built-in corpus, facts: the share of who, did, what and where that the output says.
Beside ROUGE-1 stand its floors, which need no model: another example's headline, and the source's first sentence.
"""
import argparse
import contextlib
import io
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from corpora.facts import BASE_LANGUAGES
from data import split_pairs
from model import MBart
from options import COUNT, device, language_pairs, number
from plumbing.files import UserError, read_json, run, write_json
from scoring import Pipeline, decode, evaluate, samples, table
from tokenizer import Tokenizer

SHORT = {"translate": {"no_repeat_ngram": 0}, "summarize": {"no_repeat_ngram": 3}}  # METHODS: no repeated 3-grams


def after_training(out, args, pairs):
    """The table and samples at the end of a training run, and what to run next."""
    if args.stage not in SHORT:  # pretrain, align: no task to score yet
        print(f"next: python train.py --stage {'translate' if args.stage == 'pretrain' else 'summarize'} --init {out}")
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
                                trained=pairs, skip=args.skip_bad_lines, **SHORT[args.stage])
    print(table(rows, notes) + "\n" + "\n".join(signatures))
    print("\nsamples\n" + samples_by_target(rows))
    if args.stage == "translate":
        print(f"next: python train.py --stage summarize --init {out}    (the second step: QK finetuning on summaries)")
    else:
        print(f"next: python eval.py --model {out} --lang tr_TR    (every source language, zero-shot)")


def samples_by_target(rows, count=3):
    """Three outputs for each target language, each from another source language where there are enough."""
    lines, seen = [], {}
    for turn in range(count):
        for row in rows:
            if seen.get(row["target"], 0) < count and len(row["examples"]) > turn:
                seen[row["target"]] = seen.get(row["target"], 0) + 1
                lines.append((row["target"], row | {"examples": [row["examples"][turn]]}))
    return samples([row for _, row in sorted(lines, key=lambda line: line[0])], 1)


def find_model(folder):
    """The model to evaluate and its stage: --model, else the latest run in runs/."""
    if not folder:
        runs = [path for path in Path("runs").glob("*/args.json")
                if read_json(path).get("stage") in SHORT and (path.parent / "config.json").exists()]
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
    add("--pipeline", metavar="FOLDER", help="a translation model: translate to --pivot, summarize, translate back")
    add("--pivot", default="en_XX", help="the language in which the pipeline summarizes (default en_XX)")
    add("--model", metavar="FOLDER", help="an mBART folder (default: the latest run in runs/)")
    add("--stage", choices=("translate", "summarize"), help="the task (default: what the model was trained for)")
    add("--data", metavar="SPEC", help="as train.py's (default: the run's)")
    add("--skip-bad-lines", action="store_true", help="leave out and count the lines that cannot be read")
    add("--text", help="translate or summarize this text instead of a test set (needs one --source-lang, unless it is "
        "in --lang)")
    add("--file", metavar="FILE", help="the same for a text file; - reads standard input")
    add("--examples", type=COUNT, default=200, help="test examples per pair (default 200)")
    add("--samples", type=number(int, 0), default=2, help="sample outputs to print per row; 0: none (default 2)")
    add("--beam", type=COUNT, default=5, help="beams; 1: greedy (default 5)")
    add("--max-new-tokens", type=COUNT, default=100, help="longest output (default 100)")
    add("--min-new-tokens", type=number(int, 0), default=0, help="shortest output; 0: no minimum")
    add("--length-penalty", type=float, default=1.0, help="score / length^penalty; 0: off (default 1.0)")
    add("--no-repeat-ngram", type=number(int, 0),
        help="forbid repeated n-grams; 0: allow (default: 3 for summaries, else 0)")
    add("--int8", action="store_true", help="round large weights to 8 bits to decode on a CPU: faster, and outputs "
        "differ a little")
    add("--json", metavar="FILE", help="also write scores and outputs to this file")
    add("--device", type=device, help="cpu, cuda ... (default: a GPU if there is one)")
    args = parser.parse_args(argv)
    if sum((args.lang is not None, args.pairs is not None)) != 1:
        raise UserError("say what to evaluate, one of: --lang tr_TR (every source language), --pairs es_XX-en_XX")
    return args


def own_text(args):
    """The text of --text, --file or standard input, on one line."""
    if args.text is not None:
        text, name = args.text, "--text"
    else:
        name = "standard input" if args.file == "-" else args.file
        try:
            raw = sys.stdin.buffer.read() if args.file == "-" else Path(args.file).read_bytes()
            text = raw.decode("utf-8")
        except OSError as error:
            raise UserError(f"--file {args.file}: {error.strerror}") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{name}: not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    if not text.strip():
        raise UserError(f"{name} is empty")
    return " ".join(text.split())


def trained_pairs(trained):
    """The language pairs of a run, from its args.json."""
    if not trained.get("stage"):
        return []
    return language_pairs(argparse.Namespace(**{"pairs": None, "langs": None, "align_pairs": None} | trained))


def work(args):
    folder, trained = find_model(args.model)
    stage = args.stage or (trained.get("stage") if trained.get("stage") in SHORT else "translate")
    data_spec = args.data or trained.get("data", "builtin")
    tagged = not trained.get("tagless")  # as it was trained
    model, tokenizer = MBart.from_pretrained(folder), Tokenizer.from_pretrained(folder)
    asked = split_pairs(args.pairs or [])
    for lang in [args.lang or "en_XX", *(args.source_lang or []), *sum(asked, ())]:
        tokenizer.lang_id(lang)
    where = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(where)
    model.packed.int8 = args.int8
    if trained.get("stage") not in SHORT and not args.stage:
        print(f"note: nothing says that {folder} was finetuned; a model that was only pretrained copies its input")
    ngram = SHORT[stage]["no_repeat_ngram"] if args.no_repeat_ngram is None else args.no_repeat_ngram
    options = {"beam": args.beam, "max_new_tokens": args.max_new_tokens, "min_new_tokens": args.min_new_tokens,
               "length_penalty": args.length_penalty, "no_repeat_ngram": ngram}
    if args.text is not None or args.file is not None:
        source = args.source_lang or ([args.lang] if stage == "summarize" else [])
        if not args.lang or len(source) != 1:
            raise UserError("one's own text needs its language: --lang es_XX and one --source-lang, e.g. --source-lang "
                            "en_XX")
        text = own_text(args)
        limit = model.config.max_position_embeddings
        ids, full = (tokenizer.encode(text, source[0] if tagged else None, n) for n in (limit, None))
        if len(full) > len(ids):
            print(f"note: the text has {len(full)} tokens and the model reads {limit}: the first "
                  f"{len(ids) / len(full):.0%} of it was used, the rest left out", file=sys.stderr)
        options["max_new_tokens"] = min(options["max_new_tokens"], limit - 2)
        print(decode(model, tokenizer, [ids], args.lang, **options)[0])
        return
    sources = args.source_lang or (list(BASE_LANGUAGES) if data_spec == "builtin" else tokenizer.languages)
    pairs = asked or [(source, args.lang) for source in sources if stage == "summarize" or source != args.lang]
    if not pairs:
        raise UserError("translation needs a source language other than the target")
    if data_spec.startswith("parallel:"):
        pairs = [p for p in pairs if all((Path(data_spec[9:]) / f"test.{c}").exists() for c in p)] or pairs
    known = trained_pairs(trained)
    print(f"{folder}, {stage}, {data_spec}, beam {args.beam}: score [95% bootstrap interval]")
    pipeline = Pipeline(args.pipeline, where, args.pivot) if args.pipeline else None
    rows, signatures = evaluate(model, tokenizer, stage, data_spec, pairs, args.examples, tagged, pipeline=pipeline,
                                trained=known, skip=args.skip_bad_lines, **options)
    if not rows:
        raise UserError(f"--data {data_spec}: no test example of " + " ".join("-".join(pair) for pair in pairs[:6]))
    notes = {pair: "zero-shot" for pair in ((r["source"], r["target"]) for r in rows) if known and pair not in known}
    print(table(rows, notes) + "\n" + "\n".join(signatures))
    if args.samples:
        print("\n" + samples(rows, args.samples))
    if args.json:
        write_json(args.json, {"model": str(folder), "stage": stage, "data": data_spec, "options": options,
                               "signatures": signatures, "rows": rows})
        print(f"scores and outputs are in {args.json}")


def main(argv=None):
    rank, several = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)) > 1
    args = parse_args(argv)
    if several:  # each process decodes a share; the first speaks and writes
        args.device = args.device or (f"cuda:{os.environ['LOCAL_RANK']}" if torch.cuda.is_available() else "cpu")
        dist.init_process_group("gloo")  # only texts are exchanged
        args.json = args.json if rank == 0 else None
    with contextlib.redirect_stdout(sys.stdout if rank == 0 else io.StringIO()):
        work(args)
    if several:
        dist.destroy_process_group()


if __name__ == "__main__":
    run(main)
