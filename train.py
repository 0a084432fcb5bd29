"""The stages and the one training loop.

    python train.py --stage pretrain     a small base model from nothing: denoising the built-in corpus -> runs/pretrain
    python train.py --stage translate    sentences, every pair of languages, from base/ -> runs/translate
    python train.py --stage summarize    documents -> headlines within each language (zero-shot across), from base/
    python train.py --stage summarize --init runs/translate --recipe qk        the two steps of Solovyev et al. 2024
    python train.py --stage summarize --init mbart-large-cc25 --data jsonl:mydata --preset large       the real thing
    torchrun --nproc-per-node 4 train.py --stage translate ...                 several processes or GPUs

A stage is its data and its loss; the loop is the same for all. One update minimizes, over the N label tokens of the
global batch,      L = -1/N sum_t log p(y_t | y_<t, x)      (label-smoothed where asked),
with AdamW, a learning rate that warms up and then falls linearly, and gradients clipped by norm.

A run folder holds the best model by validation loss (Hugging Face layout), args.json, log.csv and state.pt. Ctrl-C or
SIGTERM saves and exits; `--resume` goes on exactly where it stopped: dropout is seeded by the batch's number and the
data stream by its position, so nothing depends on how often a run was interrupted or on how many processes it has.
"""
import argparse
import csv
import math
import os
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm

from corpus import BASE_LANGUAGES, Corpus
from data import Batches, Examples, held_out, open_data
from model import Config, MBart, UserError
from qk_finetune import RECIPES, apply_recipe, describe
from tokenizer import Tokenizer, read_json, train_sentencepiece, write_json

STAGES = ("pretrain", "translate", "summarize")
BASE = Path(__file__).resolve().parent / "base"
# The settings of an option that was not given. tiny: the built-in corpus on two CPU cores. large: METHODS of
# Solovyev et al. 2024 (appendix A) for mBART-large.
PRESETS = {
    "tiny": {"tokens": 1600, "accumulate": 1, "warmup": 100, "final_lr": 0.0, "clip": 1.0, "weight_decay": 0.01,
             "label_smoothing": 0.0, "dropout": 0.0, "valid_examples": 32, "patience": 0,
             "pretrain": {"lr": 2e-3, "steps": 8_000, "accumulate": 2, "warmup": 300, "eval_every": 1000,
                      "recipe": "full+embeddings"},
             "translate": {"lr": 2e-3, "steps": 1000, "eval_every": 250, "recipe": "full"},
             "summarize": {"lr": 2e-3, "steps": 400, "eval_every": 100, "recipe": "qk"}},
    "large": {"tokens": 2800, "accumulate": 3, "warmup": 0, "final_lr": 5e-9, "clip": 0.1, "weight_decay": 0.01,
              "label_smoothing": 0.0, "dropout": 0.1, "valid_examples": 500, "patience": 1,
              "lr": 2e-5, "steps": 120_000, "eval_every": 5000,
              "pretrain": {"recipe": "full+embeddings"}, "translate": {"recipe": "full"},
              "summarize": {"recipe": "qk"}},
}
TINY_MODEL = {"d_model": 128, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
              "decoder_attention_heads": 4, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512,
              "max_position_embeddings": 256}
TINY_PIECES = 3000
ROMANCE_GERMAN_LETTERS = "äöüßÄÖÜàâçèéêëîïôùûœæÀÂÇÈÉÊËÎÏÔÙÛŒ'"  # fr and de come later: their letters get pieces now


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=__doc__.split("\n", 2)[2],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--stage", choices=STAGES, help="what to train (required unless --resume)")
    add("--data", default="builtin", metavar="SPEC", help="builtin (default), jsonl:DIR or parallel:DIR")
    add("--init", metavar="FOLDER", help="the model to start from, an mBART folder (default: base/)")
    add("--recipe", choices=RECIPES, help="which tensors train (default: summarize qk, translate full)")
    add("--langs", nargs="+", metavar="LANG", help="languages (default: en es ru tr gu; summarize: en_XX alone)")
    add("--pairs", nargs="+", metavar="SRC-TGT", help="language pairs, e.g. en_XX-es_XX (default: all pairs of --langs "
        "and copying for translate, within each language for summarize)")
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
            ("patience", int, "stop after so many validations without improvement; 0: never")):
        add(f"--{name}", type=kind, help=f"{text} (default: the preset's)")
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
        return argparse.Namespace(**given | {k: v for k, v in {"device": args.device}.items() if v})
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
    for name in ("steps", "tokens", "accumulate", "eval_every", "valid_examples"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    return args


def language_pairs(args):
    """The (source, target) pairs that a run trains on, from --langs and --pairs."""
    if args.pairs:
        pairs = [tuple(pair.split("-")) for pair in args.pairs]
        if bad := [p for p in pairs if len(p) != 2]:
            raise UserError(f"--pairs {'-'.join(bad[0])}: write pairs as en_XX-es_XX")
        return pairs
    langs = args.langs or (["en_XX"] if args.stage == "summarize" else list(BASE_LANGUAGES))
    if args.stage == "translate":
        return [(a, b) for a in langs for b in langs]
    return [(lang, lang) for lang in langs]


def initial_model(args, world):
    """(model, tokenizer) that the run starts from; a missing default base is trained first."""
    if args.init:
        if Path(args.init) == BASE and not (BASE / "config.json").exists():
            if world > 1:
                raise UserError("base/ is missing; train it first: python train.py --stage pretrain --out base")
            print("base/ is missing: training it first (python train.py --stage pretrain --out base)", flush=True)
            train(parse_args(["--stage", "pretrain", "--out", str(BASE), "--no-eval"]))
        return MBart.from_pretrained(args.init), Tokenizer.from_pretrained(args.init)
    path = Path(args.out) / "sentencepiece.bpe.model"
    if world == 1 or dist.get_rank() == 0:
        print(f"learning a vocabulary of up to {TINY_PIECES} pieces", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        corpus = Corpus(BASE_LANGUAGES)
        train_sentencepiece((sentence for index in range(4000) for lang in BASE_LANGUAGES
                             for sentence in corpus.sentences(corpus.document(index, "train", args.seed), lang)),
                            path, TINY_PIECES, ROMANCE_GERMAN_LETTERS, args.seed)
    if world > 1:
        dist.barrier()
    tokenizer = Tokenizer(path, "mbart25")
    torch.manual_seed(args.seed)
    model = MBart(Config(vocab_size=tokenizer.vocab_size, **TINY_MODEL))
    with torch.no_grad():  # tags that start nearly alike do not push the languages' states apart from the first step
        tags = list(tokenizer.tag.values())
        shared = model.model.shared.weight
        shared[tags] = shared[tags[0]] + 0.1 * shared[tags]
    return model, tokenizer


def learning_rate(step, args):
    """Linear warm-up to lr over `warmup` updates, then linear decay to final_lr at the last."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    return args.final_lr + (args.lr - args.final_lr) * (args.steps - step) / max(1, args.steps - args.warmup)


@torch.no_grad()
def validation_loss(model, batches, device, autocast):
    """Mean loss per label token over the held-out batches."""
    model.eval()
    total = count = 0
    for batch in batches:
        batch = batch.to(device)
        with autocast():
            total += model.loss(batch.source, batch.decoder_input, batch.labels, reduction="sum").item()
        count += (batch.labels != model.config.pad_token_id).sum().item()
    model.train()
    return total / count


def train(args):
    """Runs one stage from start or checkpoint to end; returns the run folder."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    main_process = rank == 0
    say = print if main_process else (lambda *_, **__: None)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if world > 1:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if args.accumulate % world:
        args.accumulate = math.ceil(args.accumulate / world) * world  # every process takes an equal share of an update
    out = Path(args.out)
    if (out / "config.json").exists() and not (args.resume or args.overwrite):
        raise UserError(f"{out} has a model already; --resume {out} goes on with it, --overwrite replaces it, "
                        "--out names another folder")

    # Model, data, optimizer.
    pairs = language_pairs(args)
    model, tokenizer = initial_model(args, world) if not args.resume else (
        MBart.from_pretrained(out), Tokenizer.from_pretrained(out))
    for code in {code for pair in pairs for code in pair}:
        tokenizer.lang_id(code)
    model.config.dropout = model.config.attention_dropout = args.dropout
    max_length = min(args.max_length or 10**9, model.config.max_position_embeddings)
    data = {split: Examples(open_data(args.data, args.stage, split, pairs, tokenizer.languages, args.seed), tokenizer,
                            args.stage, max_length=max_length, seed=args.seed) for split in ("train", "valid")}
    batches = Batches(data["train"], args.tokens, args.seed, args.temperature)
    valid = held_out(data["valid"], args.valid_examples, args.tokens * 2)
    names = apply_recipe(model, args.recipe)
    say(f"{args.stage}: {len(pairs)} language pairs, recipe {args.recipe}, on {device}\n{describe(model)}", flush=True)
    model.to(device).train()
    precision = args.precision or ("bf16" if device.type == "cuda" else "fp32")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def autocast():
        return torch.autocast(device.type, dtype) if dtype else nullcontext()

    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, args.lr, (0.9, 0.999), 1e-8, args.weight_decay, fused=True)
    if args.compile:
        model.model.encoder.compile(dynamic=True)
        model.model.decoder.compile(dynamic=True)
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if world > 1 else model
    progress = {"step": 0, "best": math.inf, "bad": 0, "seconds": 0.0, "loss": 0.0, "labels": 0}  # since last log
    if args.resume:
        load_state(out, model, names, optimizer, scaler, batches, progress, device)
        say(f"resuming at update {progress['step']} of {args.steps}", flush=True)
    elif main_process:
        out.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        write_json(out / "args.json", vars(args) | {"torch": torch.__version__, "world_size": world})
    log = Log(out / "log.csv", progress["step"]) if main_process else None

    stopped = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: stopped.append(number))
    bar = tqdm(total=args.steps, initial=progress["step"], unit="step", disable=not main_process, mininterval=1.0,
               dynamic_ncols=True, desc=args.stage)

    def checkpoint(best=False):
        if main_process:
            if best:
                model.save_pretrained(out)
            save_state(out, model, names, optimizer, scaler, batches, progress)

    tokens, clock = 0, time.perf_counter()
    while progress["step"] < args.steps and not (args.patience and progress["bad"] >= args.patience):
        # One update: every process walks the whole stream and computes its own share of these batches.
        step = progress["step"]
        update = [next(batches) for _ in range(args.accumulate)]
        labels = sum((batch.labels != model.config.pad_token_id).sum().item() for batch in update)
        rate = learning_rate(step, args)
        for group in optimizer.param_groups:
            group["lr"] = rate
        own, total = update[rank::world], torch.zeros((), device=device)
        for i, batch in enumerate(own):
            torch.manual_seed(hash((args.seed, batch.number)) % 2**63)  # dropout depends on the batch alone
            batch = batch.to(device)
            last = i == len(own) - 1
            with autocast(), nullcontext() if last or world == 1 else wrapped.no_sync():
                loss = wrapped(batch.source, batch.decoder_input, batch.labels, label_smoothing=args.label_smoothing,
                               reduction="sum")
                scaler.scale(loss * (world / labels)).backward()  # DDP averages over processes: undo it
            total += loss.detach()
        if world > 1:
            dist.all_reduce(total)
        value = total.item() / labels
        if not math.isfinite(value):
            bar.close()
            checkpoint()
            raise UserError(f"the loss is {value} at update {step + 1} (batches {update[0].number} to "
                            f"{update[-1].number}); lower --lr, or use --precision bf16 instead of fp16")
        scaler.unscale_(optimizer)
        if args.clip:
            torch.nn.utils.clip_grad_norm_(parameters, args.clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        progress["step"] = step = step + 1
        progress |= {"loss": progress["loss"] + value * labels, "labels": progress["labels"] + labels}
        tokens += labels + sum((batch.source != model.config.pad_token_id).sum().item() for batch in update)
        bar.update()
        bar.set_postfix_str(f"loss {value:.3f}", refresh=False)

        # Validate, save, log.
        if step % args.eval_every == 0 or step == args.steps:
            progress["seconds"] += time.perf_counter() - clock
            speed = tokens / (time.perf_counter() - clock)
            held = validation_loss(model, valid, device, autocast)
            better, loss = held < progress["best"], progress["loss"] / progress["labels"]
            progress |= {"best": min(held, progress["best"]), "bad": 0 if better else progress["bad"] + 1,
                         "loss": 0.0, "labels": 0}
            if main_process:
                log.write(step, loss, held, speed, rate)
                bar.write(f"update {step}: loss {loss:.4f}, validation {held:.4f}, "
                          f"{speed:,.0f} tokens/s, learning rate {rate:.2e}")
            checkpoint(best=better)
            tokens, clock = 0, time.perf_counter()
        if world > 1:  # a signal may reach one process first: all must leave at the same update
            flag = torch.tensor(stopped[0] if stopped else 0, device=device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            stopped[:] = [int(flag)] if flag else []
        if stopped:
            bar.close()
            checkpoint()
            say(f"\nstopped at update {step}; go on with: python train.py --resume {out}", flush=True)
            sys.exit(128 + stopped[0])
    bar.close()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    say(f"done: {progress['step']} updates in {progress['seconds']:.0f} s, best validation loss "
        f"{progress['best']:.4f}; model in {out}", flush=True)
    if world > 1:
        dist.destroy_process_group()
    return out


class Log:
    """log.csv: one line a validation; a resumed run drops the lines after its checkpoint."""

    FIELDS = ("step", "loss", "validation loss", "tokens/s", "learning rate")

    def __init__(self, path, step):
        self.path, self.rows = path, []
        if step and path.exists():
            with open(path, newline="") as file:
                self.rows = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]

    def write(self, *row):
        self.rows.append(row)
        with open(f"{self.path}.tmp", "w", newline="") as file:
            csv.writer(file).writerows([self.FIELDS, *self.rows])
        os.replace(f"{self.path}.tmp", self.path)


def save_state(out, model, names, optimizer, scaler, batches, progress):
    """state.pt: all that a resume needs beside the folder's model. It carries its own copy of what trains, so that
    a crash between the two files cannot mix two moments."""
    own = dict(model.named_parameters())
    torch.save({"weights": {name: own[name].detach().cpu() for name in names}, "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(), "batches": batches.state_dict(), "progress": dict(progress)},
               out / "state.pt.tmp")
    os.replace(out / "state.pt.tmp", out / "state.pt")


def load_state(out, model, names, optimizer, scaler, batches, progress, device):
    try:
        state = torch.load(out / "state.pt", map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{out / 'state.pt'}: not found; the run was stopped before its first checkpoint: start it "
                        "again with --overwrite") from None
    except Exception as error:  # a damaged archive raises many kinds
        raise UserError(f"{out / 'state.pt'}: damaged ({str(error).splitlines()[0][:100]}); the last best model in "
                        f"{out} is whole: use it with --init") from None
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name in names:
            own[name].copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    batches.load_state_dict(state["batches"])
    progress.update(state["progress"])


def main():
    try:
        args = parse_args()
        out = train(args)
        if int(os.environ.get("RANK", 0)) == 0 and not args.no_eval:
            import eval as evaluation  # late: its metrics are not needed while training
            evaluation.after_training(out, args, language_pairs(args))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("interrupted")


if __name__ == "__main__":
    main()
