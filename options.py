"""The options of train.py, their presets and what they mean for languages."""
import argparse
from pathlib import Path

from adversarial import KINDS
from corpus import BASE_LANGUAGES
from model import UserError
from qk_finetune import PROJECTIONS, RECIPES
from tokenizer import read_json

STAGES = ("pretrain", "translate", "summarize", "align")
BASE = Path(__file__).resolve().parent / "base"
# The settings of an option that was not given. tiny: the built-in corpus on two CPU cores. large: METHODS of
# Solovyev et al. 2024 (appendix A) for mBART-large.
PRESETS = {
    "tiny": {"tokens": 1600, "accumulate": 1, "warmup": 100, "final_lr": 0.0, "clip": 1.0, "weight_decay": 0.01,
             "label_smoothing": 0.0, "dropout": 0.0, "valid_examples": 32, "patience": 0,
             "classifier_lr": 2e-3, "classifier_updates": 2,
             "pretrain": {"lr": 2e-3, "steps": 8_000, "accumulate": 2, "warmup": 300, "eval_every": 1000,
                      "recipe": "full+embeddings"},
             "translate": {"lr": 2e-3, "steps": 1250, "eval_every": 250, "recipe": "full"},
             "summarize": {"lr": 4e-3, "steps": 400, "eval_every": 100, "recipe": "qk"},
             "align": {"lr": 1e-3, "steps": 300, "eval_every": 100, "recipe": "lora"}},
    "large": {"tokens": 2800, "accumulate": 3, "warmup": 0, "final_lr": 5e-9, "clip": 0.1, "weight_decay": 0.01,
              "label_smoothing": 0.0, "dropout": 0.1, "valid_examples": 500, "patience": 1,
              "lr": 2e-5, "steps": 120_000, "eval_every": 5000, "classifier_lr": 2e-5, "classifier_updates": 1,
              "pretrain": {"recipe": "full+embeddings"}, "translate": {"recipe": "full"},
              "summarize": {"recipe": "qk"}, "align": {"recipe": "lora"}},
}


def parse_args(doc, argv=None):
    """argv (default: the command line's) -> all settings, the preset's where none was given. doc: for --help."""
    title, _, rest = doc.partition("\n\n")
    parser = argparse.ArgumentParser(description=title, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage", choices=STAGES, help="what to train (required unless --resume)")
    add("--data", default="builtin", metavar="SPEC", help="builtin (default), jsonl:DIR, parallel:DIR, xlsum:DIR or "
        "wikilingua:DIR (readers.py says what each holds)")
    add("--skip-bad-lines", action="store_true", help="leave out and count the lines that cannot be read")
    add("--min-words", nargs=2, type=int, default=[0, 0], metavar=("SOURCE", "TARGET"), help="leave out and count "
        "examples with fewer words (default 0 0)")
    add("--init", metavar="FOLDER", help="the model to start from, an mBART folder (default: base/)")
    add("--recipe", choices=RECIPES, help="which tensors train (default: summarize qk, translate full)")
    add("--langs", nargs="+", metavar="LANG", help="languages (default: en es ru tr gu; summarize: en_XX alone)")
    add("--pairs", nargs="+", metavar="SRC-TGT", help="language pairs, e.g. en_XX-es_XX (default: all pairs of --langs "
        "and copying for translate, within each language for summarize)")
    add("--adversarial", choices=KINDS, default="none", help="fool a classifier of the source language on the "
        "encoder's states (default none); leaves the source tag out")
    add("--tagless", action="store_true", help="leave the source tag out of the encoder's input (as the model of "
        "--init was trained, if it was)")
    add("--residual-drop", type=int, default=0, metavar="LAYER", help="no residual around the self-attention of this "
        "encoder layer, from 1 (the paper's: 7 of 12); 0: none")
    add("--new-source", metavar="LANG", help="give the encoder a vocabulary and embeddings of its own for "
        "this language, learned from the data (recipes src, src+xattn ...)")
    add("--new-target", metavar="LANG", help="the same for the decoder (recipes tgt, tgt+xattn ...)")
    add("--new-pieces", type=int, default=2000, help="size of a new vocabulary (default 2000)")
    add("--align-layer", type=int, default=0, metavar="N", help="after each update, one that pulls translations "
        "together in the states of encoder layer N, from 1; 0: none (default)")
    add("--align-pairs", nargs="+", metavar="SRC-TGT", help="translation pairs for it (default: en_XX with each other "
        "language of the data)")
    add("--align-data", metavar="SPEC", help="where they are (default: --data)")
    add("--align-weight", type=float, default=1.0, help="of the alignment loss (default 1)")
    add("--lora-rank", type=int, default=8, help="of --recipe lora (default 8)")
    add("--lora-alpha", type=float, default=16, help="its scale is alpha / rank (default 16)")
    add("--lora-dropout", type=float, default=0.1, help="on its input; 0: none (default 0.1)")
    add("--lora-projections", nargs="+", default=list(PROJECTIONS), metavar="NAME", help="which layers' projections it "
        f"adapts (default: all, {' '.join(PROJECTIONS)})")
    add("--train-examples", type=int, metavar="N", help="only the first N training examples of each pair (few-shot)")
    add("--preset", choices=PRESETS, help="settings of all that follows (default: tiny for builtin data, else large)")
    add("--out", metavar="FOLDER", help="the run folder (default: runs/STAGE)")
    add("--resume", metavar="FOLDER", help="go on with an interrupted run, with its own options")
    add("--overwrite", action="store_true", help="replace a run folder that has a model already")
    add("--seed", type=int, default=0)
    for name, kind, text in (
            ("steps", int, "updates"), ("lr", float, "peak learning rate"), ("warmup", int, "updates of it; 0: none"),
            ("final-lr", float, "the learning rate at the last update"), ("tokens", int, "padded tokens in a batch; "
             "lower it when memory runs out"), ("accumulate", int, "batches in an update; raise it as --tokens falls"),
            ("clip", float, "gradient norm; 0: no clipping"), ("weight-decay", float, "AdamW's; 0: none"),
            ("label-smoothing", float, "0: none"), ("dropout", float, "of states and attention; 0: none"),
            ("eval-every", int, "updates between validations and checkpoints"),
            ("valid-examples", int, "validation examples per pair"),
            ("patience", int, "stop after so many validations without improvement; 0: never"),
            ("classifier-lr", float, "learning rate of the adversary's classifier"),
            ("classifier-updates", int, "of the classifier for each update of the model")):
        add(f"--{name}", type=kind, help=f"{text} (default: the preset's)")
    add("--stop-at", type=int, metavar="UPDATE", help="save and stop there, as if interrupted (for job queues)")
    add("--temperature", type=float, default=1.5, help="of language sampling; 1: by size (default 1.5)")
    add("--max-length", type=int, help="longest source or target in tokens; the rest is cut (default: the model's)")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 on a GPU, fp32 on a CPU")
    add("--compile", action="store_true", help="torch.compile the encoder and the decoder (pays on a GPU)")
    add("--device", help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
    add("--no-eval", action="store_true", help="skip the table at the end")
    args = parser.parse_args(argv)
    if args.resume:
        saved = read_json(Path(args.resume) / "args.json")
        if saved is None:
            raise UserError(f"--resume {args.resume}: no args.json there; name the folder of an interrupted run")
        given = parser.parse_args([]).__dict__ | saved | {"resume": args.resume, "out": args.resume}
        now = {"stop_at": args.stop_at} | ({"device": args.device} if args.device else {})  # what may differ this time
        return argparse.Namespace(**given | now)
    if not args.stage:
        raise UserError(f"--stage is required: one of {', '.join(STAGES)}")
    args.preset = args.preset or ("tiny" if args.data == "builtin" else "large")
    preset = PRESETS[args.preset] | PRESETS[args.preset][args.stage]
    for name, value in preset.items():
        if name not in STAGES and getattr(args, name) is None:
            setattr(args, name, value)
    args.out = args.out or f"runs/{args.stage}"
    if args.init is None and args.stage != "pretrain":
        args.init = str(BASE)
    if args.stage == "align" and not args.align_layer:
        raise UserError("--stage align needs --align-layer N, the encoder layer whose states are to meet")
    if args.new_source and args.new_target:
        raise UserError("--new-source and --new-target: one side can be new, not both; the other side's embeddings "
                        "anchor it")
    for side, lang in (("src", args.new_source), ("tgt", args.new_target)):
        if lang and not (args.recipe.startswith(side) or args.recipe in ("scratch", "full", "full+embeddings")):
            raise UserError(f"--recipe {args.recipe} would leave the fresh {side} embeddings frozen; use {side}, "
                            f"{side}+xattn, {side}+randxattn, {side}+body or scratch")
    inherited = read_json(Path(args.init or "") / "args.json") or {}
    args.tagless = args.tagless or args.adversarial != "none" or bool(inherited.get("tagless"))
    for name in ("steps", "tokens", "accumulate", "eval_every", "valid_examples", "classifier_updates"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    return args


def split_pairs(texts):
    """["en_XX-es_XX", ...] -> [("en_XX", "es_XX"), ...]."""
    pairs = [tuple(text.split("-")) for text in texts]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise UserError(f"--pairs {'-'.join(bad[0])}: write pairs as en_XX-es_XX")
    return pairs


def alignment_pairs(args):
    """The translation pairs whose states are to meet: --align-pairs, or English with each language of the run."""
    if args.align_pairs:
        return split_pairs(args.align_pairs)
    pairs = [("en_XX", lang) for lang in args.langs or BASE_LANGUAGES if lang != "en_XX"]
    if not pairs:
        raise UserError("alignment needs translation pairs; name them with --align-pairs en_XX-es_XX ...")
    return pairs


def language_pairs(args):
    """The (source, target) pairs that a run trains on, from --langs and --pairs."""
    if args.pairs:
        return split_pairs(args.pairs)
    langs = args.langs or (["en_XX"] if args.stage == "summarize" else list(BASE_LANGUAGES))
    if args.stage == "align":
        return alignment_pairs(args)
    if args.stage == "translate":
        return [(a, b) for a in langs for b in langs]
    return [(lang, lang) for lang in langs]
