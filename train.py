"""The stages and the one training loop.

    python train.py --stage pretrain     a small base model from nothing: denoising the built-in corpus -> runs/pretrain
    python train.py --stage translate    sentences, every pair of languages, from base/ -> runs/translate
    python train.py --stage summarize    documents -> headlines within each language (zero-shot across), from base/
    python train.py --stage summarize --init runs/translate --recipe qk        the two steps of Solovyev et al. 2024
    python train.py --stage summarize --init mbart-large-cc25 --data jsonl:mydata --preset large       the real thing
    python train.py --stage summarize --langs en_XX es_XX ru_RU --adversarial balanced      instead of the first step
    python train.py --stage align --align-layer 2        translations meet in a middle layer
    torchrun --nproc-per-node 4 train.py --stage translate ...                 several processes or GPUs

A stage is its data and its loss; the loop is the same for all. One update minimizes, over the N label tokens of the
global batch,      L = -1/N sum_t log p(y_t | y_<t, x)      (label-smoothed where asked; plus the fooling loss, if any)
with AdamW, a learning rate that warms up and then falls linearly, and gradients clipped by norm.

A run folder holds the best model by validation loss (or the last: --keep; Hugging Face layout), args.json, log.csv and
state.pt. Ctrl-C or SIGTERM saves and exits; `--resume` goes on exactly where it stopped: dropout is seeded by the
batch's number and the data stream by its position, so nothing depends on how often a run was interrupted or on how many
processes it has.
"""
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

from adversarial import Adversary
from align import alignment_loss
from data import Batches, Examples, held_out, open_data
from initial import initial_model
from model import MBart
from options import BASE, alignment_pairs, language_pairs, parse_args
from plumbing.files import UserError, run, write_json
from plumbing.runs import Log, only_run_in, read_state, write_state
from qk_finetune import add_lora, apply_recipe, describe, merged_state, needed_by
from tokenizer import Tokenizer


def learning_rate(step, args):
    """Linear warm-up to lr over `warmup` updates, then linear decay to final_lr at the last."""
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    return args.final_lr + (args.lr - args.final_lr) * (args.steps - step) / max(1, args.steps - args.warmup)


class Objective(torch.nn.Module):
    """What a batch costs; one module, so that DDP sees all of an update."""

    def __init__(self, model, adversary, label_smoothing, align=None):
        """align: (layer, tokenizer) where the batches are translation pairs (stage align)."""
        super().__init__()
        self.align = align
        self.model, self.label_smoothing = model, label_smoothing
        self.adversary = adversary  # no module: its classifier has an update of its own

    def forward(self, batch, count=1):
        """Batch -> (task loss plus fooling loss, task loss), sums over tokens divided by `count`."""
        if self.align:
            tokens = batch.target_tokens
            loss = alignment_loss(self.model, batch, *self.align) * (tokens / count)
            return loss, loss.detach()
        task, states = self.model.loss(batch.source, batch.decoder_input, batch.labels, self.label_smoothing, count,
                                       with_states=True)
        if self.adversary is None:
            return task, task.detach()
        true = self.adversary.classes(batch, self.model.config.pad_token_id)
        return task + self.adversary.loss(states, true) / count, task.detach()


@torch.no_grad()
def validation_loss(objective, batches, device, autocast):
    """Mean task loss per label token over the held-out batches."""
    model = objective.model
    model.eval()
    total = count = 0
    for batch in batches:
        batch = batch.to(device)
        with autocast():
            total += objective(batch)[1].item()
        count += batch.target_tokens
    model.train()
    return total / count


def alignment_batches(args, tokenizer, max_length):
    """Batches of translation pairs, for alignment updates between a task's."""
    data = open_data(args.align_data or args.data, "align", "train", alignment_pairs(args), tokenizer.languages,
                     args.seed, args.skip_bad_lines)
    return Batches(Examples(data, tokenizer, "align", not args.tagless, max_length), args.tokens, args.seed)


def seed_of(*numbers):
    return hash(numbers) % 2**63  # of whole numbers: the same in every process


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
    lora = args.recipe == "lora"  # a run folder has the merged weights: a resume needs the base and the adapters apart
    model, tokenizer = initial_model(args, world) if lora or not args.resume else (
        MBart.from_pretrained(out), Tokenizer.from_pretrained(out))
    for code in {code for pair in pairs for code in pair}:
        tokenizer.lang_id(code)
    if not 0 <= args.align_layer <= model.config.encoder_layers:
        raise UserError(f"--align-layer {args.align_layer}: the encoder has layers 1 to {model.config.encoder_layers}")
    model.config.dropout = model.config.attention_dropout = args.dropout
    if args.residual_drop:
        model.drop_residual(args.residual_drop)
    max_length = min(args.max_length or 10**9, model.config.max_position_embeddings)
    texts = {split: open_data(args.data, args.stage, split, pairs, tokenizer.languages, args.seed, args.skip_bad_lines,
                              args.min_words) for split in ("train", "valid")}
    data = {split: Examples(texts[split], tokenizer, args.stage, not args.tagless, max_length, seed=args.seed,
                            limit=args.train_examples if split == "train" else None) for split in texts}
    batches = Batches(data["train"], args.tokens, args.seed, args.temperature)
    valid = held_out(data["valid"], args.valid_examples, args.tokens * 2)
    if lora:
        add_lora(model, args.lora_rank, args.lora_dropout, args.lora_projections, args.seed)
    names = apply_recipe(model, args.recipe)
    if args.stage == "align":  # what stands behind the layer gets no gradient: frozen, DDP does not wait for it
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and needed_by(name, args.align_layer))
        names = [name for name in names if needed_by(name, args.align_layer)]
    if args.align_layer and not any(needed_by(name, args.align_layer) for name in names):
        raise UserError(f"--recipe {args.recipe} trains nothing that the states of encoder layer {args.align_layer} "
                        "depend on: alignment has nothing to move")
    say(f"{args.stage}: {len(pairs)} language pairs, recipe {args.recipe}, on {device}\n{describe(model)}", flush=True)
    model.to(device).train()
    precision = args.precision or ("bf16" if device.type == "cuda" else "fp32")
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def autocast():
        return torch.autocast(device.type, dtype) if dtype else nullcontext()

    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, args.lr, (0.9, 0.999), 1e-8, args.weight_decay, fused=True)
    adversary = None
    if args.adversarial != "none":
        adversary = Adversary(args.adversarial, model.config.d_model, sorted({source for source, _ in pairs}),
                              args.classifier_lr, args.classifier_updates, device, args.seed)
    aligned = None
    if args.align_layer and args.stage != "align":
        aligned = alignment_batches(args, tokenizer, max_length)
    if args.compile:
        model.compile_layers()
    objective = Objective(model, adversary, args.label_smoothing,
                          (args.align_layer, tokenizer) if args.stage == "align" else None)
    held_objective = Objective(model, None, 0.0, objective.align)
    if world > 1:
        objective = torch.nn.parallel.DistributedDataParallel(objective)
    stateful = {"optimizer": optimizer, "scaler": scaler, "batches": batches}  # what a resume restores
    stateful |= {name: part for name, part in (("adversary", adversary), ("aligned", aligned)) if part is not None}
    progress = {"step": 0, "best": math.inf, "bad": 0, "seconds": 0.0, "loss": 0.0, "labels": 0,  # since last log
                "overflows": 0}
    if args.resume:
        state = read_state(out / "state.pt", device)
        with torch.no_grad():  # its own copy of what trains: a crash between the two files cannot mix two moments
            for name, parameter in model.named_parameters():
                if name in state["weights"]:
                    parameter.copy_(state["weights"][name])
        for name, part in stateful.items():
            part.load_state_dict(state[name])
        progress.update(state["progress"])
        say(f"resuming at update {progress['step']} of {args.steps}", flush=True)
    elif main_process:
        out.mkdir(parents=True, exist_ok=True)
        (out / "state.pt").unlink(missing_ok=True)  # of a run that stood here: a crash must not bring it back
        model.save_pretrained(out, merged_state(model))
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
                model.save_pretrained(out, merged_state(model))
            weights = {name: p.detach().cpu() for name, p in model.named_parameters() if name in names}
            write_state({"weights": weights, "progress": dict(progress)}
                        | {name: part.state_dict() for name, part in stateful.items()}, out / "state.pt")

    def step_optimizer():
        scaler.unscale_(optimizer)
        if args.clip:
            torch.nn.utils.clip_grad_norm_(parameters, args.clip)
        scale = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        progress["overflows"] += scaler.get_scale() < scale  # fp16: this update was skipped
        model.zero_grad()

    tokens, clock = 0, time.perf_counter()
    while progress["step"] < args.steps and not (args.patience and progress["bad"] >= args.patience):
        # One update: every process walks the whole stream and computes its own share of these batches.
        step = progress["step"]
        update = [next(batches) for _ in range(args.accumulate)]
        labels = sum(batch.target_tokens for batch in update)
        rate = learning_rate(step, args)
        for group in optimizer.param_groups:
            group["lr"] = rate
        own, total = [batch.to(device) for batch in update[rank::world]], torch.zeros((), device=device)
        if adversary is not None:
            torch.manual_seed(seed_of(args.seed, own[0].number, 1))
            with autocast():
                adversary.update(model, own, world)
        for i, batch in enumerate(own):
            torch.manual_seed(seed_of(args.seed, batch.number))  # dropout depends on the batch alone
            with autocast(), nullcontext() if i == len(own) - 1 or world == 1 else objective.no_sync():
                loss, task = objective(batch, labels / world)  # DDP averages over processes: undo it
                scaler.scale(loss).backward()
            total += task
        if world > 1:
            dist.all_reduce(total)
        value = total.item() / world
        if not math.isfinite(value):
            bar.close()
            if main_process:
                write_json(out / "bad_batch.json", [
                    {"batch": b.number, "source language": lang, "source ids": s, "label ids": y,
                     "source": tokenizer.source.decode(s), "labels": tokenizer.decode(y)}
                    for b in update for lang, s, y in zip(b.source_langs, b.source.tolist(), b.labels.tolist())])
            raise UserError(f"the loss is {value} at update {step + 1}; its batches are in {out / 'bad_batch.json'}, "
                            f"the last good checkpoint in {out}. Lower --lr, or use --precision bf16 in place of fp16")
        step_optimizer()
        if aligned is not None:  # outside DDP, which expects every parameter to take part
            batch = [next(aligned) for _ in range(world)][rank].to(device)
            torch.manual_seed(seed_of(args.seed, batch.number, 2))
            with autocast():
                close = alignment_loss(model, batch, args.align_layer, tokenizer) * args.align_weight / world
            scaler.scale(close).backward()
            for parameter in parameters if world > 1 else ():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
            step_optimizer()
        progress["step"] = step = step + 1
        progress |= {"loss": progress["loss"] + value * labels, "labels": progress["labels"] + labels}
        tokens += labels + sum(batch.source_tokens for batch in update)
        bar.update()
        bar.set_postfix_str(f"loss {value:.3f}", refresh=False)

        # Validate, save, log.
        if step % args.eval_every == 0 or step == args.steps:
            progress["seconds"] += time.perf_counter() - clock
            speed = tokens / (time.perf_counter() - clock)
            held = validation_loss(held_objective, valid, device, autocast)
            better, loss = held < progress["best"], progress["loss"] / progress["labels"]
            progress |= {"best": min(held, progress["best"]), "bad": 0 if better else progress["bad"] + 1,
                         "loss": 0.0, "labels": 0}
            if main_process:
                log.write(step, loss, held, speed, rate)
                bar.write(f"update {step}: loss {loss:.4f}, validation {held:.4f}, "
                          f"{speed:,.0f} tokens/s, learning rate {rate:.2e}"
                          + (f", {progress['overflows']} updates skipped by overflow" if progress["overflows"] else "")
                          + (f", classifier {adversary.accuracy():.1%} right" if adversary else ""))
            checkpoint(best=better or args.keep == "last")
            tokens, clock = 0, time.perf_counter()
        if world > 1:  # a signal may reach one process first: all must leave at the same update
            flag = torch.tensor(stopped[0] if stopped else 0, device=device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            stopped[:] = [int(flag)] if flag else []
        if stopped or step == args.stop_at:
            bar.close()
            checkpoint()
            say(f"\nstopped at update {step}; go on with: python train.py --resume {out}", flush=True)
            sys.exit(128 + stopped[0] if stopped else 0)
    bar.close()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
    say(f"done: {progress['step']} updates in {progress['seconds']:.0f} s, best validation loss "
        f"{progress['best']:.4f}; model in {out}", flush=True)
    if world > 1:
        dist.destroy_process_group()
    return out


def main(argv=None):
    args = parse_args(__doc__, argv)
    if args.init == str(BASE) and not (BASE / "config.json").exists():
        if "RANK" in os.environ:
            raise UserError("base/ is missing; train it first: python train.py --stage pretrain --out base")
        print("base/ is missing: training it first (python train.py --stage pretrain --out base)", flush=True)
        train(parse_args(__doc__, ["--stage", "pretrain", "--out", str(BASE), "--no-eval"]))
    if int(os.environ.get("RANK", 0)) == 0:
        with only_run_in(args.out):
            out = train(args)
    else:
        out = train(args)
    if int(os.environ.get("RANK", 0)) == 0 and not args.no_eval:
        import eval as evaluation  # late: its metrics are not needed while training
        evaluation.after_training(out, args, language_pairs(args))


if __name__ == "__main__":
    run(main)
