"""The options of train.py, their presets and what they mean for languages."""
import argparse
import math
from pathlib import Path

import torch

import data
from adversarial import KINDS
from plumbing.files import UserError, read_json
from qk_finetune import PROJECTIONS, RECIPES, check_fresh

STAGES = ("pretrain", "translate", "summarize", "align")
BASE = Path(__file__).resolve().parent / "base"
# The settings of an option that was not given. tiny: the built-in corpus on two CPU cores. large: METHODS of
# Solovyev et al. 2024 (appendix A) for mBART-large.
PRESETS = {
    "tiny": {"tokens": 1600, "accumulate": 1, "warmup": 100, "final_lr": 0.0, "clip": 1.0, "weight_decay": 0.01,
             "label_smoothing": 0.0, "dropout": 0.0, "valid_examples": 32, "patience": 0,
             "classifier_lr": 2e-3, "classifier_updates": 10,
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


def number(kind, low, below=math.inf):
    """A converter for argparse: whole numbers or fractions from `low` on and under `below`."""
    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a {'whole ' * (kind is int)}number") from None
        if not low <= value < below:
            limits = f"at least {low}" + (f" and less than {below}" if below < math.inf else "")
            raise argparse.ArgumentTypeError(f"must be {limits}, not {text}")
        return value
    return convert


def device(text):
    """A converter for argparse: a device that this machine has."""
    try:
        found = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; say cpu, cuda or cuda:1") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"this machine has {torch.cuda.device_count()} GPUs, so no {text}")
    if found.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is not supported; say cpu, cuda or cuda:1")
    return text


COUNT, SHARE, POSITIVE = number(int, 1), number(float, 0.0, 1.0), number(float, 1e-15)


def parse_args(doc, argv=None):
    """argv (default: the command line's) -> all settings, the preset's where none was given. doc: for --help."""
    title, _, rest = doc.partition("\n\n")
    parser = argparse.ArgumentParser(description=title, epilog=rest,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage", choices=STAGES, help="what to train (required unless --resume)")
    add("--data", default="builtin", metavar="SPEC", help="builtin (default), jsonl:DIR, parallel:DIR, xlsum:DIR or "
        "wikilingua:DIR (corpora says what each holds)")
    add("--skip-bad-lines", action="store_true", help="leave out and count the lines that cannot be read")
    add("--min-words", nargs=2, type=number(int, 0), default=[0, 0], metavar=("SOURCE", "TARGET"),
        help="leave out and count "
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
    add("--residual-drop", type=number(int, 0), default=0, metavar="LAYER",
        help="no residual around the self-attention of this "
        "encoder layer, from 1 (the paper's: 7 of 12); 0: none")
    add("--new-source", metavar="LANG", help="give the encoder a vocabulary and embeddings of its own for "
        "this language, learned from the data (recipes src, src+xattn ...)")
    add("--new-target", metavar="LANG", help="the same for the decoder (recipes tgt, tgt+xattn ...)")
    add("--new-pieces", type=number(int, 100), default=2000, help="size of a new vocabulary (default 2000)")
    add("--trim-vocab", action="store_true", help="start from --init with only the pieces that the data need "
        "(tools.trim): less memory, the same numbers")
    add("--align-layer", type=number(int, 0), default=0, metavar="N",
        help="after each update, one that pulls translations "
        "together in the states of encoder layer N, from 1; 0: none (default)")
    add("--align-pairs", nargs="+", metavar="SRC-TGT", help="translation pairs for it (default: en_XX with each other "
        "language of the data)")
    add("--align-data", metavar="SPEC", help="where they are (default: --data)")
    add("--align-weight", type=POSITIVE, default=1.0, help="of the alignment loss (default 1)")
    add("--lora-rank", type=COUNT, default=8, help="of --recipe lora (default 8)")
    add("--lora-alpha", type=POSITIVE, default=16, help="its scale is alpha / rank (default 16)")
    add("--lora-dropout", type=SHARE, default=0.1, help="on its input; 0: none (default 0.1)")
    add("--lora-projections", nargs="+", default=list(PROJECTIONS), metavar="NAME", help="which layers' projections it "
        f"adapts (default: all, {' '.join(PROJECTIONS)})")
    add("--train-examples", type=COUNT, metavar="N", help="only the first N training examples of each pair (few-shot)")
    add("--preset", choices=PRESETS, help="settings of all that follows (default: tiny for builtin data, else large)")
    add("--out", metavar="FOLDER", help="the run folder (default: runs/STAGE)")
    add("--resume", metavar="FOLDER", help="go on with an interrupted run, with its own options")
    add("--overwrite", action="store_true", help="replace a run folder that has a model already")
    add("--seed", type=number(int, 0), default=0)
    for name, kind, text in (
            ("steps", COUNT, "updates"), ("lr", POSITIVE, "peak learning rate"),
            ("warmup", number(int, 0), "updates of it; 0: none"),
            ("final-lr", number(float, 0.0), "the learning rate at the last update"),
            ("tokens", COUNT, "padded tokens in a batch; lower it when memory runs out"),
            ("accumulate", COUNT, "batches in an update; raise it as --tokens falls"),
            ("clip", number(float, 0.0), "gradient norm; 0: no clipping"),
            ("weight-decay", number(float, 0.0), "AdamW's; 0: none"), ("label-smoothing", SHARE, "0: none"),
            ("dropout", SHARE, "of states and attention; 0: none"),
            ("eval-every", COUNT, "updates between validations and checkpoints"),
            ("valid-examples", COUNT, "validation examples per pair"),
            ("patience", number(int, 0), "stop after so many validations without improvement; 0: never"),
            ("classifier-lr", POSITIVE, "learning rate of the adversary's classifier"),
            ("classifier-updates", COUNT, "of the classifier for each update of the model")):
        add(f"--{name}", type=kind, help=f"{text} (default: the preset's)")
    add("--keep", choices=("best", "last"), help="the model of the lowest validation loss, or the last one (default: "
        "best; last for adversarial runs, where the task's loss alone would choose the one least fooled)")
    add("--stop-at", type=COUNT, metavar="UPDATE", help="save and stop there, as if interrupted (for job queues)")
    add("--temperature", type=number(float, 0.01), default=1.5,
        help="of language sampling; 1: by size (default 1.5)")
    add("--max-length", type=number(int, 4),
        help="longest source or target in tokens; the rest is cut (default: the model's)")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 on a GPU, fp32 on a CPU")
    add("--compile", action="store_true", help="torch.compile the encoder and the decoder (pays on a GPU)")
    add("--device", type=device, help="cpu, cuda, cuda:1 ... (default: a GPU if there is one)")
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
    side = "src" if args.new_source else "tgt" if args.new_target else fresh_side(args.init)
    if side:
        check_fresh(args.recipe, side)
    if args.trim_vocab and args.recipe == "lora":
        raise UserError("--trim-vocab with --recipe lora could not be resumed: run tools.trim first and give its folder "
                        "to --init")
    args.keep = args.keep or ("best" if args.adversarial == "none" else "last")
    inherited = read_json(Path(args.init or "") / "args.json") or {}
    args.tagless = args.tagless or args.adversarial != "none" or bool(inherited.get("tagless"))
    return args


def fresh_side(folder):
    """The side of a model folder whose embeddings tools.new_language has drawn, to be trained; None for others."""
    return (read_json(Path(folder or "") / "args.json") or {}).get("fresh")


def alignment_pairs(args):
    return data.alignment_pairs(args.langs, args.align_pairs)


def language_pairs(args):
    return data.language_pairs(args.stage, args.langs, args.pairs, args.align_pairs)
