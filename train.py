"""The stages and the one training loop.

    python train.py --stage translate     sentences, every pair of languages, from base/
    python train.py --stage summarize     documents -> headlines within each language, from base/
    python train.py --stage summarize --init runs/translate --recipe qk     the second of two steps
    python train.py --stage summarize --langs en_XX es_XX --adversarial balanced
    python train.py --stage summarize --langs en_XX es_XX --mix 1     translations among summaries
    python train.py --stage align --align-layer 2        translations meet in a middle layer
    python train.py --stage summarize --init facebook/mbart-large-cc25 --data jsonl:mydata
    python -m tools.start runs/start      a vocabulary and a small random model, and then:
    python train.py --stage pretrain --init runs/start   denoising, from nothing
    torchrun --standalone --nproc-per-node 4 train.py --stage translate     four processes or GPUs
    torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:PORT train.py …  on both machines
    python train.py --resume runs/translate              goes on where a run stopped

A stage is its data and its loss; the loop is the same for all. One update minimizes

    L = sum_k  w_k / N_k  sum_b (cross_entropy_b + fooling_b)  +  alignment

    k              a stream of batches b: "task", and with --mix also "mix", translations
    N_k            the label tokens of stream k in this update
    w_k            its share of the update's batches, of --accumulate A and --mix M:
                   A / (A + M) for "task", M / (A + M) for "mix"
    cross_entropy  -sum_t log p(y_t | y_<t, x), label-smoothed where asked
    fooling        with --adversarial: the loss by which the model fools a classifier of the source
                   language, which learns first, on as many batches of its own (adversarial.py)
    alignment      with --align-layer: the mean loss of A more batches, of translations that are to
                   meet in that layer (align.py)

w_k counts batches, not tokens: headlines are short, and in one sum over all label tokens the
summaries of --mix 1 would weigh a fifth. Stage align has the alignment loss alone, and there each
batch is weighted by its translations' tokens. The optimizer is AdamW, with a learning rate that
warms up and then falls linearly, and gradients are clipped by norm.

A run starts from a folder with a model and its vocabulary, and leaves one: the best model by
validation loss (or the last: --keep), its card README.md, args.json, log.csv and state.pt. Ctrl-C,
SIGTERM or the end of the terminal (not under nohup) saves and exits; --resume goes on exactly
there, on a GPU up to rounding. For that, dropout is seeded by the batch's number, and the stream of
batches by its position: nothing that is trained depends on how often a run was interrupted.

In this file: the loop, the losses, how model and data are made, what is shown afterwards; and in
its second half the settings `s`, every option with its default and what it may be.
"""
import argparse
import math
import os
import sys
import textwrap
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch

from adversarial import KINDS, Adversary, check_sources
from align import alignment_loss, has_negatives
from corpora.facts import BASE_LANGUAGES
from corpora.sets import (
    can_copy,
    check_spec,
    data_option,
    has_small_base,
    has_translations,
    is_builtin,
    kind_of,
    open_data,
    preset_option,
    says_no_languages,
)
from data import (
    Batches,
    Examples,
    Fingerprint,
    ParallelBatch,
    alignment_pairs,
    collate,
    held_out,
    language_pairs,
    languages_of,
    mixing_pairs,
    split_pairs,
)
from generate import longest_output
from model import Config, MBart
from plumbing.card import keep_scores, write_card
from plumbing.files import (
    UserError,
    beside_python,
    note,
    quoted,
    read_json,
    run,
    same_place,
    size_and_checksum,
)
from plumbing.models import (
    is_folder,
    model_folder,
    parts_of,
    pinned,
    same_model,
    weights_file,
)
from plumbing.options import (
    COUNT,
    DECODING,
    POSITIVE,
    SEED,
    SHARE,
    TASKS,
    check_saved,
    decoding_of,
    default_device,
    default_precision,
    device_name,
    number,
    option,
    option_name,
    read_options,
)
from plumbing.runs import (
    PATHS,
    RUN_FORMAT,
    Run,
    Settled,
    add_up,
    device_of_process,
    file_in_the_way,
    first_signal,
    gather,
    is_still,
    learned_in,
    longest_input,
    only_run_in,
    processes,
    rank_and_world,
    read_settings,
    share_gradients,
    signals,
    tell_untrained,
)
from plumbing.weights import checksum
from qk_finetune import (
    LAYERS_HELP,
    PROJECTIONS,
    RECIPE_HELP,
    FrozenInHalf,
    add_lora,
    apply_recipe,
    check_fresh,
    check_lora,
    check_lora_rank,
    check_model_fits,
    check_recipe,
    describe,
    moves_encoder,
    recipe_in_words,
)
from tokenizer import PAD, Tokenizer

STAGES = ("pretrain", "translate", "summarize", "align")
BASE = Path(__file__).resolve().parent / "base"


# ------------------------------------------------------------------------------------- the loop

SAVE_EVERY = 900  # seconds at most between two checkpoints


def train(s, rank, world, device, command=None):
    """Runs one stage from its start or its checkpoint to its end, as one of `world` processes.

    s: the Settings. command: the words that began it, for the model's card."""
    this_run = Run(s, rank == 0, command)
    share_batches(s, world, this_run.say)

    # The model and the data.
    recipe = recipe_in_words(s.recipe, s.recipe_layers)
    this_run.say(f"{s.stage}: language pairs: {len(s.pairs)}, recipe {recipe}, on {device}")
    model, tokenizer = prepare_model(s)
    this_run.say(describe(model))
    if s.stage == "align":
        this_run.say(f"of these only what encoder layer {s.align_layer} depends on gets a gradient")
    this_run.say(f"reading the data ({s.data})")
    max_length = longest_input(vars(s), model.config.max_position_embeddings)
    data = read_data(s, tokenizer, max_length, this_run.say)
    if rank == 0:  # who scores
        check_scores_can_be_had(s, tokenizer)

    # What trains it.
    model.to(device).train()
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = adamw(weights, s)
    scaler = torch.amp.GradScaler(device.type, enabled=s.precision == "fp16")
    adversary = make_adversary(s, model.config.d_model, data.sources, device)
    if s.compile:
        model.compile_layers()
    parts = {"data": data.fingerprint, "settled": Settled(settled_options(s), model, s.out)}
    parts |= {"optimizer": optimizer, "scaler": scaler, **data.streams}
    if adversary:
        parts["adversary"] = adversary

    # Where it stands.
    if s.resume:
        this_run.restore(model, parts)
        check_stop(s, this_run.progress.step)
        this_run.say(f"going on at update {this_run.progress.step} of {s.steps}")
    check_same_start(s, model, data.fingerprint.files, this_run.progress.step, world)
    frozen = FrozenInHalf(model, HALVES.get(s.precision))
    learned_tasks = learned(s, {"-".join(pair) for pair in data.pairs})
    if not s.resume:
        loss = validation_loss(model, data.valid_batches, s, tokenizer, rank, world)
        this_run.say(f"before training: validation loss {loss:.4f}")
        this_run.progress.start = loss
        scores = score_watched_pairs(model, tokenizer, s, rank, learned_tasks)
        this_run.begin(model, tokenizer, frozen.state_to_save, world, learned_tasks)
        this_run.tell(this_run.log_scores(scores))

    progress = this_run.progress
    tokens_since = 0  # tokens, source and target, since `clock`
    clock = time.perf_counter()
    with signals() as received, this_run.bar() as bar:
        while not is_over(s, progress):
            # Every process walks the whole streams and computes its own share of an update.
            rate = learning_rate(progress.step, s)
            set_learning_rate(optimizer, rate)
            classifier_batches = []
            if adversary:  # the classifier learns, on batches of its own; then it is fooled
                classifier_batches = data.draw_update(s)
                mine = [batch.to(device) for batch in classifier_batches[rank::world]]
                with autocast(device, s.precision):
                    seed_classifier = partial(seed_dropout, s.seed, for_classifier=True)
                    adversary.update(model, mine, world, seed_classifier)
            batches = data.draw_update(s)
            parallel = data.draw("alignment", s.accumulate)  # translations meet, in the same update
            mean_loss, whole_loss = add_gradients(
                s,
                model,
                batches,
                parallel,
                adversary=adversary,
                scaler=scaler,
                tokenizer=tokenizer,
                rank=rank,
                world=world,
            )
            if not math.isfinite(whole_loss):
                rows = readable(classifier_batches + batches + parallel, tokenizer)
                this_run.end_with_bad_batch(whole_loss, rows)
            is_skipped = update(model, weights, optimizer, scaler, s.clip, world)
            tokens = sum(batch.target_tokens for batch in batches)
            progress.updated(mean_loss, tokens, is_skipped)
            tokens_since += tokens + sum(batch.source_tokens for batch in batches)
            bar.update()
            bar.set_postfix_str(f"loss {mean_loss:.3f}", refresh=False)

            # Validate, log, save.
            if this_run.is_validation_due():
                seconds = time.perf_counter() - clock
                valid_loss = validation_loss(model, data.valid_batches, s, tokenizer, rank, world)
                accuracy = adversary.accuracy(world) if adversary else None
                better = progress.validated(valid_loss, seconds)
                is_sound = not progress.diverged  # else the last checkpoint is better
                if is_sound and (better or s.keep == "last"):
                    this_run.save_model(model, frozen.state_to_save)
                lines = this_run.report(valid_loss, tokens_since / seconds, rate, accuracy)
                if is_sound:
                    this_run.save(model, parts)
                # Scored after saving: an error in the texts must not lose what was validated.
                scores = score_watched_pairs(model, tokenizer, s, rank, learned_tasks)
                lines += this_run.log_scores(scores)
                this_run.tell(lines)
                tokens_since = 0
                clock = time.perf_counter()
            signal = first_signal(received, world)
            is_planned_stop = progress.step == s.stop_at and not is_over(s, progress)
            must_stop = signal != 0 or is_planned_stop
            seconds = time.perf_counter() - clock
            if must_stop or seconds > SAVE_EVERY:  # validations may be hours apart
                progress.seconds += seconds
                is_sound = not progress.diverged and are_numbers(weights)
                if is_sound:  # else the last one is better
                    this_run.save(model, parts)
                tokens_since = 0
                clock = time.perf_counter()
                if must_stop:
                    bar.close()
                    this_run.stop(signal, is_sound)
    this_run.done()


def set_learning_rate(optimizer, rate):
    for group in optimizer.param_groups:
        group["lr"] = rate


def are_numbers(weights):
    """Are all trained weights numbers? A gradient that overflows turns them into NaN, one update
    before the loss tells. (aminmax() needs no memory, and NaN passes through it.)"""
    for weight in weights:
        lowest, highest = weight.detach().aminmax()
        if not (lowest.isfinite() and highest.isfinite()):
            return False
    return True


def update(model, weights, optimizer, scaler, clip, world):
    """One step of the optimizer by the gradients of all processes.

    Returns whether it was left out, as fp16 does where a gradient overflows."""
    share_gradients(weights, world)
    scaler.unscale_(optimizer)
    if clip:
        torch.nn.utils.clip_grad_norm_(weights, clip)
    scale = scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()
    model.zero_grad()
    return scaler.get_scale() < scale  # lowered just where the step was left out


def readable(batches, tokenizer):
    """The examples of some batches, as ids and as text."""
    rows = []
    for batch in batches:
        for place, source in enumerate(batch.source.tolist()):
            row = {"stream": batch.stream, "batch": batch.number, "source ids": source}
            row["source"] = tokenizer.source.decode(source)
            if isinstance(batch, ParallelBatch):
                row["translation ids"] = batch.translation[place].tolist()
                row["translation"] = tokenizer.source.decode(row["translation ids"])
            else:
                row["source language"] = batch.source_langs[place]
                row["label ids"] = batch.labels[place].tolist()
                row["labels"] = tokenizer.decode(row["label ids"])
            rows.append(row)
    return rows


# -------------------------------------------------------------------------------------- losses

def divisors(batches):
    """{stream k: N_k / w_k} of an update, as in the head of this file: a loss that is summed over
    the tokens of one of its batches is divided by this."""
    counts = Counter()
    tokens = Counter()
    for batch in batches:
        counts[batch.stream] += 1
        tokens[batch.stream] += batch.target_tokens
    found = {}
    for stream, count in counts.items():
        share = count / len(batches)  # w_k
        found[stream] = tokens[stream] / share
    return found


def task_loss(
    model, batch, divisor, label_smoothing=0.0, layer=0, tokenizer=None, with_states=False
):
    """(loss, states) of a batch. The loss, in nats, is the sum over its label tokens, divided by
    `divisor` (divisors() has an update's; in validation it is 1); the states (N, D) are the
    encoder's of its source tokens, None without with_states.

    For a ParallelBatch: its mean alignment loss in encoder layer `layer`, times the number of its
    translations' tokens, divided alike; None for states."""
    if isinstance(batch, ParallelBatch):
        loss = alignment_loss(model, batch, layer, tokenizer)
        tokens = (batch.translation != PAD).sum()  # a tensor: the CPU need not wait for a GPU
        return loss * tokens / divisor, None
    sequences = (batch.source, batch.decoder_input, batch.labels)
    if with_states:
        return model.loss(*sequences, label_smoothing, reduction=divisor, with_states=True)
    return model.loss(*sequences, label_smoothing, reduction=divisor), None


def add_gradients(s, model, batches, parallel, *, adversary, scaler, tokenizer, rank, world):
    """Adds to the model's gradients those of this process's share of an update: its batches of the
    task (and of --mix), and of the translations `parallel` that are to meet.

    Returns two numbers, over the batches of all processes: the task's loss (label-smoothed where
    asked, as validation's is not), and the whole that is minimized, with fooling and alignment."""
    device = next(model.parameters()).device
    divisor_of = divisors(batches)
    loss_sum = torch.zeros((), device=device)
    whole_sum = torch.zeros((), device=device)
    for batch in batches[rank::world]:
        batch = batch.to(device)
        divisor = divisor_of[batch.stream]
        seed_dropout(s.seed, batch)  # a resumed run drops the same numbers
        with autocast(device, s.precision):
            loss, states = task_loss(
                model,
                batch,
                divisor,
                s.label_smoothing,
                s.align_layer,
                tokenizer,
                with_states=adversary is not None,
            )
            whole = loss
            if adversary is not None:
                whole = loss + adversary.loss(states, batch) / divisor
        loss_sum += loss.detach()
        whole_sum += whole.detach()
        scaler.scale(whole).backward()
    for batch in parallel[rank::world]:
        batch = batch.to(device)
        seed_dropout(s.seed, batch)
        with autocast(device, s.precision):
            loss = alignment_loss(model, batch, s.align_layer, tokenizer) / len(parallel)
        whole_sum += loss.detach()
        scaler.scale(loss).backward()
    return add_up(torch.stack((loss_sum, whole_sum)), world)


@torch.no_grad()
def validation_loss(model, batches, s, tokenizer, rank=0, world=1):
    """Mean task loss per label token over the held-out batches: every process takes its share of
    them, and all return the same number."""
    device = next(model.parameters()).device
    total = 0.0
    tokens = 0
    model.eval()
    for batch in batches[rank::world]:
        tokens += batch.target_tokens
        batch = batch.to(device)
        with autocast(device, s.precision):
            loss, _ = task_loss(model, batch, 1, layer=s.align_layer, tokenizer=tokenizer)
        total += loss.item()
    model.train()
    sums = torch.tensor([total, tokens], dtype=torch.float64, device=device)
    total, tokens = add_up(sums, world)
    return total / tokens


def score_watched_pairs(model, tokenizer, s, rank, learned_tasks):
    """The scores of --watch, of the model as it is: a row for every pair, as watch.csv has them
    after the update's number. Only the first process decodes. learned_tasks: learned()'s."""
    if not s.watch or rank != 0:
        return []
    import eval as evaluation  # late: its metrics take seconds to import

    limit = longest_input(vars(s), model.config.max_position_embeddings)
    longest = min(DECODING["max_new_tokens"], longest_output(model.config))
    options = decoding_of(s.stage) | {"beam": 1, "max_new_tokens": longest}

    def decoder(texts, source, target):
        tag = None if s.tagless else source
        sources = [tokenizer.encode(text, tag, limit) for text in texts]
        title = f"watching {source} -> {target}"
        with autocast(next(model.parameters()).device, s.precision):
            return evaluation.decode(model, tokenizer, sources, target, title=title, **options)

    rows, _ = evaluation.evaluate(
        decoder,
        s.stage,
        s.data,
        split_pairs(s.watch),
        s.valid_examples,
        tokenizer.languages,
        trained=evaluation.pairs_ever_trained(vars(s) | {"learned": learned_tasks}),
        skip=s.skip_bad_lines,
        split="valid",
        seed=s.seed,
    )
    column = "chrF" if s.stage == "translate" else "R1"
    scores = []
    for row in rows:
        off_target = row.scores["off-target"]
        wrong = None
        if off_target is not None:
            wrong = off_target.value
        scores.append((row.source, row.target, column, row.scores[column].value, wrong))
    return scores


HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device, precision):
    """Half precision, where it was asked for, in the arithmetic within."""
    dtype = HALVES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


# One for each stream, and one for what the classifier reads: batches of the same number, but of
# different uses, draw different dropout.
SALTS = {"task": (), "alignment": (2,), "mix": (3,)}
CLASSIFIER_SALT = (1,)


def seed_dropout(seed, batch, for_classifier=False, classifier_step=0):
    """Seeds dropout by the run's seed, the batch's number and its use, so that it is the same
    whichever process has the batch, and after a resume. classifier_step: which of the classifier's
    steps reads the batch's states, from 1; 0: the model reads the batch."""
    salt = SALTS[batch.stream]
    if for_classifier:
        salt += CLASSIFIER_SALT
    numbers = (seed, batch.number, *salt, classifier_step)
    torch.manual_seed(hash(numbers) % 2**63)  # whole numbers hash alike in every process


def adamw(weights, s):
    return torch.optim.AdamW(
        weights,
        lr=s.lr,
        betas=(0.9, 0.999),
        eps=1e-8,
        weight_decay=s.weight_decay,
        fused=True,
    )


def learning_rate(step, s):
    """Linear warm-up to lr over `warmup` updates, then linear decay that would reach final_lr one
    update after the last."""
    if step < s.warmup:
        return s.lr * (step + 1) / s.warmup
    left = (s.steps - step) / max(1, s.steps - s.warmup)
    return s.final_lr + (s.lr - s.final_lr) * left


def is_over(s, progress):
    """Are all updates done, or have --patience validations in a row brought no improvement?"""
    if s.patience and progress.bad >= s.patience:
        return True
    return progress.step >= s.steps


# ----------------------------------------------------------------------------- model and data

def prepare_model(s):
    """(model, tokenizer) as a run starts or goes on; which of its tensors train is marked."""
    folder = s.init
    # LoRA restarts from --init: the run folder has W + BA merged, and B and A come from state.pt.
    if s.resume and s.recipe != "lora":
        folder = s.out
    try:
        place = model_folder(folder, weights=False)
    except UserError as error:
        if not s.resume:
            raise
        raise UserError(
            f"{error} (this run began from it: if it has moved, say with --init where it is)"
        ) from None
    tokenizer = Tokenizer.from_pretrained(place)
    # What is mistyped, before the weights are fetched.
    pairs = split_pairs(s.pairs + pairs_beside_task(s) + (s.watch or []))
    tokenizer.check_languages(languages_of(pairs))
    if is_builtin(s.data):  # for its errors alone; what files have is known when they are read
        open_data(s.data, s.stage, "train", pairs, tokenizer.languages)
    check_layers(s, Config.read(place / "config.json"))
    model = MBart.from_pretrained(model_folder(folder))
    model.config.dropout = s.dropout
    model.config.attention_dropout = s.dropout
    if s.residual_drop:
        model.drop_residual(s.residual_drop)
    if s.recipe == "lora":
        add_lora(
            model,
            rank=s.lora_rank,
            dropout=s.lora_dropout,
            projections=s.lora_projections,
            seed=s.seed,
            layers=s.recipe_layers,
        )
    names = apply_recipe(model, s.recipe, s.recipe_layers)
    check_alignment(s, model.config, names)
    check_adversary(s, model.config, names)
    return model, tokenizer


def pairs_beside_task(s):
    """The language pairs of translations that a run reads beside its task's own: --align-layer's
    and --mix's."""
    pairs = []
    if s.align_layer:
        pairs += s.align_pairs or []
    if s.mix:
        pairs += s.mix_pairs
    return pairs


def check_layers(s, config):
    """UserError if a model of this Config lacks layers or the encoder vocabulary that the settings
    name, or if it already goes without the residual of another layer than --residual-drop."""
    check_model_fits(s.recipe, s.recipe_layers, config)
    if s.recipe == "lora":
        check_lora_rank(s.lora_rank, config)
    for name, layer in (("align-layer", s.align_layer), ("residual-drop", s.residual_drop)):
        if layer > config.encoder_layers:
            raise UserError(
                f"--{name} {layer}: the encoder has layers 1 to {config.encoder_layers}"
            )
    dropped = config.residual_drop_layer
    if s.residual_drop and dropped not in (0, s.residual_drop):
        raise UserError(
            f"--residual-drop {s.residual_drop}: {s.init} was trained without the residual of "
            f"layer {dropped}, and only one layer can go without; leave the option out to keep it "
            "so, or name another model with --init"
        )


def check_alignment(s, config, names):
    """UserError if `names`, which train, cannot move the states of that layer."""
    if s.align_layer and not moves_encoder(names, config, s.align_layer):
        raise UserError(
            f"--recipe {recipe_in_words(s.recipe, s.recipe_layers)} trains nothing that the states "
            f"of encoder layer {s.align_layer} depend on: alignment has nothing to move"
        )


def check_adversary(s, config, names):
    """UserError if `names`, which train, cannot move the encoder's states."""
    if s.adversarial != "none" and not moves_encoder(names, config):
        raise UserError(
            f"--recipe {recipe_in_words(s.recipe, s.recipe_layers)} trains nothing that the "
            f"encoder's states depend on: it cannot fool --adversarial {s.adversarial}; leave "
            "--recipe out to train all layers"
        )


def open_split(s, stage, pairs, split, tokenizer, max_length):
    """The training or validation examples that a stage makes of a run's data, as ids."""
    limit = None
    minimum = (0, 0)
    if split == "train":
        limit = s.train_examples
        minimum = s.min_words
    texts = open_data(
        s.data,
        stage,
        split,
        split_pairs(pairs),
        tokenizer.languages,
        seed=s.seed,
        skip=s.skip_bad_lines,
        minimum=minimum,
    )
    tagged = not s.tagless
    return Examples(texts, tokenizer, stage, tagged, max_length, seed=s.seed, limit=limit)


@dataclass
class RunData:
    """What a run reads."""
    streams: dict              # {name: Batches} to train on; streams_of
    valid_batches: list        # to validate on
    fingerprint: Fingerprint   # of the files that the run depends on

    @property
    def pairs(self):
        """{(source, target)} of the language pairs that have examples to learn to write from."""
        found = set()
        for name in ("task", "mix"):
            if name in self.streams:
                found.update(self.streams[name].pairs)
        return found

    @property
    def sources(self):
        """The source languages of these pairs."""
        return sorted({source for source, _ in self.pairs})

    def draw(self, name, count):
        """The next `count` batches of a stream; none where the run has no such stream."""
        if name not in self.streams:
            return []
        return [next(self.streams[name]) for _ in range(count)]

    def draw_update(self, s):
        """The batches whose label tokens an update learns to write: the task's, and the mix's."""
        return self.draw("task", s.accumulate) + self.draw("mix", s.mix)


def streams_of(s, tokenizer, max_length):
    """{name: Batches} that a run trains on: those of its "task"; where asked, translations that are
    to be written in the same loss ("mix"), and others that are to meet in a layer ("alignment")."""
    sources = {"task": (s.stage, s.pairs)}
    if s.mix:
        sources["mix"] = ("translate", s.mix_pairs)
    if s.align_layer and s.stage != "align":
        sources["alignment"] = ("align", s.align_pairs)
    streams = {}
    for name, (stage, pairs) in sources.items():
        examples = open_split(s, stage, pairs, "train", tokenizer, max_length)
        streams[name] = Batches(examples, s.tokens, s.seed, s.temperature, name=name)
    return streams


def read_data(s, tokenizer, max_length, say):
    """The RunData of a run; says at its start what the model will not see of the texts."""
    if s.max_length and s.max_length > max_length:
        say(f"--max-length {s.max_length}: the model has positions for {max_length} alone")
    streams = streams_of(s, tokenizer, max_length)
    valid = open_split(s, s.stage, s.pairs, "valid", tokenizer, max_length)
    # No gradients are kept, so twice the tokens fit.
    valid_batches = held_out(valid, s.valid_examples, s.tokens * 2)

    read = {}  # {a split's or a stream's name: Examples}
    for name, stream in streams.items():
        shown = "train" if name == "task" else name
        read[shown] = stream.examples
    read["valid"] = valid

    if not s.resume:
        for stream in streams.values():
            stream.fill()  # a sample of all pairs, of which the checks and notes below speak
        if s.align_layer:
            check_contrast(s, streams, valid_batches)
        for name, examples in read.items():
            for line in examples.unread.warnings():
                say(f"{name}: {line}")

    fingerprint = Fingerprint()
    for examples in read.values():
        fingerprint.files |= examples.data.fingerprint
    if s.recipe == "lora":  # whose matrices mean nothing beside other weights
        for path in parts_of(weights_file(model_folder(s.init))):
            fingerprint.files[str(Path(s.init) / path.name)] = size_and_checksum(path)
    return RunData(streams, valid_batches, fingerprint)


def check_contrast(s, streams, valid_batches):
    """UserError where alignment has no text to tell another from: its loss would be 0 for ever."""
    name = "alignment"
    if s.stage == "align":
        name = "task"
    drawn = [collate(rows) for rows in streams[name].batches]  # a sample: the first pool
    if not any(map(has_negatives, drawn)):
        raise UserError(
            "alignment tells a text's translation from others in its batch, and none of the first "
            f"{len(drawn)} batches has another text: raise --tokens, or give more data"
        )
    if s.stage == "align" and not any(map(has_negatives, valid_batches)):
        raise UserError(
            "alignment tells a text's translation from others in its batch, and no batch of "
            "validation has another text: raise --valid-examples (or --tokens), or give more data "
            "to validate on"
        )


def make_adversary(s, d_model, sources, device):
    """The adversary of these source languages; None where not asked."""
    if s.adversarial == "none":
        return None
    return Adversary(
        s.adversarial, d_model, sources, s.classifier_lr, s.classifier_updates, device, s.seed
    )


def check_scores_can_be_had(s, tokenizer):
    """Says before the training what scoring would lack (a package, a split of the data, a language
    pair), as a UserError or a note. Scoring: --watch, and the table at the end."""
    at_the_end = s.stage in TASKS and not s.no_eval
    if not at_the_end and not s.watch:
        return
    try:
        import eval as evaluation  # noqa: F401    late: its metrics take seconds to import
    except ImportError as error:
        requirements = quoted(BASE.parent / "requirements.txt")
        pip = f"{beside_python('pip')} install -r {requirements}"
        raise UserError(
            f"scores need a package that cannot be imported ({error}): `{pip}` brings it; or train "
            "without scores by --no-eval, and without --watch"
        ) from None
    if s.watch:
        check_split(s, "valid", s.watch, tokenizer, "or leave out --watch")
    if at_the_end:
        pairs = scored_pairs(s)
        check_split(s, "test", pairs, tokenizer, "or train without scores by --no-eval")


def check_split(s, split, pairs, tokenizer, advice):
    """UserError with this advice where a split cannot be read or has none of these pairs; a note
    of those that it lacks."""
    languages = tokenizer.languages
    try:
        open_data(s.data, s.stage, split, split_pairs(pairs), languages, skip=s.skip_bad_lines)
    except UserError as error:
        raise UserError(f"{error}; {advice}") from None


def check_stop(s, step):
    """UserError if a run that goes on at update `step` is to stop there or earlier."""
    if s.stop_at is not None and s.stop_at <= step:
        raise UserError(
            f"--stop-at {s.stop_at}: the run in {s.out} is at update {step} already; name a later "
            "one, or leave the option out"
        )


def settled_options(s):
    """{name: value} of the settings that must be the same in every process, and when a run goes on.
    """
    options = asdict(s)
    for name in (*PATHS, *MAY_DIFFER, "overwrite"):
        options.pop(name)
    # A folder may have moved; Fingerprint knows its files.
    options["data"] = s.data if is_builtin(s.data) else kind_of(s.data)
    return options


def check_same_start(s, model, files, step, world):
    """UserError unless all processes, which may stand on several machines, begin with the same.

    files: {name: [bytes, CRC-32]} of the data; the names may be another machine's."""
    if world == 1:
        return
    options = settled_options(s) | {"stop_at": s.stop_at}
    mine = {"options": options, "update": step, "init": s.init, "data": sorted(files.values())}
    mine["weights"] = checksum(model.state_dict())
    everyone = gather(mine)

    def differ(name):
        return any(other[name] != everyone[0][name] for other in everyone)

    for name in options:
        values = [other["options"][name] for other in everyone]
        if any(value != values[0] for value in values):
            raise UserError(f"{option_name(name)} is not the same in all processes: {values}")
    if s.resume and (differ("update") or differ("weights")):
        steps = ", ".join(str(other["update"]) for other in everyone)
        raise UserError(
            f"the processes go on from different checkpoints, of updates {steps}: copy {s.out} "
            "from the machine of the first process to the others"
        )
    if differ("weights"):  # each asked the hub by itself, which may have had a new commit meanwhile
        names = ", ".join(dict.fromkeys(str(other["init"]) for other in everyone))
        raise UserError(
            f"the processes begin with different models: {names}; name one commit of it, --init "
            "NAME@COMMIT, or copy the folder to all machines"
        )
    if differ("data"):
        raise UserError(f"--data {s.data}: its files are not the same in all processes")


# ------------------------------------------------------------------------------------ afterwards

def show_result(s):
    """What eval.py prints of the model, which its card keeps, and what to run next."""
    if s.stage in TASKS:
        import eval as evaluation  # late: its metrics take seconds to import

        keep_scores(s.out, evaluation.main(evaluation_arguments(s)))
        write_card(s.out, picture=False)  # that of the log is there
    print(f"next: {beside_python()} {next_command(s)}")


def next_command(s):
    """What to run after this run, without the interpreter."""
    out = quoted(s.out)
    if s.stage == "summarize":
        lang = zero_shot_language(s)
        return f"eval.py --model {out} --lang {lang}    (from every source language)"
    if s.stage == "pretrain":
        return f"train.py --stage translate --init {out}{translation_options(s)}"
    command = f"train.py --stage summarize --init {out}{summary_options(s)}"
    if s.stage == "translate":
        command += "    (the second step: QK finetuning on summaries)"
    return command


def translation_options(s):
    """The options of a next run in stage translate, where its defaults are not this run's."""
    options = data_option(s.data, s.skip_bad_lines)
    if not has_translations(s.data) or kind_of(s.data) == "jsonl":  # this run's were single texts
        options = " --data parallel:DIR"
    options += preset_option(s.data, s.preset == "small")
    languages = f" --langs {' '.join(s.langs)}"
    if len(s.langs) == 1:  # which translates into none
        return f"{options}{languages} ..."
    if set(s.langs) != set(BASE_LANGUAGES):
        options += languages
    return options


def summary_options(s):
    """The options of a next run in stage summarize, where its defaults are not this run's."""
    options = data_option(s.data, s.skip_bad_lines)
    if kind_of(s.data) in ("parallel", "jsonl"):  # here translations, and no summaries
        options = " --data jsonl:DIR"
    options += preset_option(s.data, s.preset == "small")
    if has_two_vocabularies(s.out):
        return f"{options} --pairs {' '.join(s.pairs)}"
    if "en_XX" not in s.langs:
        options += f" --langs {' '.join(s.langs)}"
    return options


def zero_shot_language(s):
    """The language that the suggested eval.py asks for: tr_TR, which most runs are not trained on;
    with data of a user's own, or two vocabularies, the target of the run's first pair."""
    if has_small_base(s.data) and not has_two_vocabularies(s.out):
        return "tr_TR"
    _, target = split_pairs(s.pairs)[0]
    return target


def has_two_vocabularies(folder):
    """Does a folder's model have a vocabulary for its encoder alone?"""
    config = read_json(Path(folder) / "config.json")
    return isinstance(config, dict) and config.get("source_vocab_size") is not None


def scored_pairs(s):
    """The pairs, as en_XX-es_XX, that show what a run has learned: those that it was trained on,
    and with the built-in corpus summaries within the other languages, which are zero-shot."""
    if s.stage == "translate":
        across = [pair for pair in s.pairs if not is_within(pair)]
        return across or s.pairs  # a run that learns copying alone is scored on that
    if is_builtin(s.data) and not has_two_vocabularies(s.out):
        within = [f"{lang}-{lang}" for lang in BASE_LANGUAGES]
        return within + [pair for pair in s.pairs if pair not in within]
    return s.pairs


def evaluation_arguments(s):
    """eval.py's command line for a finished run."""
    count = 50 if s.stage == "translate" else 100
    words = ["--model", s.out, "--data", s.data, "--examples", str(count)]
    words += ["--pairs", *scored_pairs(s)]
    if s.skip_bad_lines:
        words.append("--skip-bad-lines")
    if s.device:
        words += ["--device", s.device]
    if s.precision == "fp32" and device_of(s).type != "cpu":
        words += ["--precision", "fp32"]
    return words


# ------------------------------------------------------------------------------------ settings

@dataclass(kw_only=True)
class Settings:
    """Every option. One without a default here has it from the preset, SMALL or LARGE."""

    # What is trained, from what and into which folder.
    stage: str = option("what to train (required unless --resume)", None, choices=STAGES)
    recipe: str = option(f"which of the model's tensors train: {RECIPE_HELP}", metavar="RECIPE")
    recipe_layers: str = option(LAYERS_HELP, None, metavar="FIRST-LAST")
    init: str = option(
        "an mBART folder to start from, or the name of one on the Hugging Face hub, OWNER/NAME or "
        "OWNER/NAME@REVISION (default: base/; pretrain has none)", None, metavar="FOLDER"
    )
    out: str = option("the run folder (default: runs/STAGE)", None, metavar="FOLDER")
    overwrite: bool = option("replace a run folder that has a model already", False)
    resume: str = option(
        "go on with the stopped run in FOLDER, with the options it was begun with; --stop-at, "
        "--device and --no-eval may differ, --data and --init where these folders have moved",
        None, metavar="FOLDER"
    )
    seed: int = option(
        "seed of the data's order, dropout and new weights, and of what texts the built-in corpus "
        "has to train on and to validate on", 0, type=SEED
    )
    preset: str = option(
        "a set of defaults: small for the built-in corpus on CPU cores, large for mBART-large "
        "(default: small with builtin and help: data and a model smaller than mBART-large, else "
        "large)",
        None, choices=("small", "large")
    )

    # The data.
    data: str = option(
        "the data set: builtin, jsonl:DIR, parallel:DIR, xlsum:DIR, wikilingua:DIR or help:[DIR] "
        "(see corpora/sets.py); builtin:SHARE: in pretraining this share, 0 to 1, of the "
        "code-mixed documents has a target in one language",
        "builtin", metavar="SPEC"
    )
    langs: list = option(
        "languages to train on, e.g. en_XX es_XX (default: en_XX es_XX ru_RU tr_TR gu_IN; for "
        "summarize en_XX alone)",
        None, nargs="+", metavar="LANG"
    )
    pairs: list = option(
        "language pairs to train on, e.g. en_XX-es_XX (default: for translate all pairs of "
        "--langs, and copying where the data have it: builtin, parallel:DIR, help:; for align "
        "those of --align-pairs; for the other stages within each language)",
        None, nargs="+", metavar="SRC-TGT"
    )
    skip_bad_lines: bool = option("leave out and count lines of data that cannot be read", False)
    min_words: list = option(
        "leave out and count training examples whose source or target has fewer words (as "
        "published for XL-Sum: 21 11)",
        (0, 0), type=number(int, 0), nargs=2, metavar=("SOURCE", "TARGET")
    )
    max_length: int = option(
        "longest source or target in tokens; the rest is cut (default: the model's)",
        None, type=number(int, 4)
    )
    train_examples: int = option(
        "only the first N training examples of each pair (few-shot)", None, type=COUNT, metavar="N"
    )
    temperature: float = option(
        "T of language sampling: a pair with n examples is drawn in proportion to n^(1/T); 1: by "
        "size; larger: small pairs more often (10 in the large preset with an adversary)",
        1.5, type=number(float, 0.01)
    )

    # The optimization.
    steps: int = option("updates of the model, all in all", type=COUNT)
    tokens: int = option(
        "tokens in a batch, padding included; lower it when memory runs out (the large preset: "
        "2800, and 8400 in one batch on a GPU with room)", type=COUNT
    )
    accumulate: int = option(
        "batches in an update; raise it as you lower --tokens (the large preset: 3, or 1 on a GPU "
        "with room for all in one batch)", type=COUNT
    )
    mix: int = option(
        "batches of translations in an update beside its --accumulate batches of summaries; the "
        "two kinds are weighted by their numbers of batches, in log.csv's loss too; validation "
        "uses summaries alone; 0: none",
        0, type=number(int, 0), metavar="N"
    )
    mix_pairs: list = option(
        "language pairs of --mix (default: all pairs of --langs, or of en_XX es_XX ru_RU tr_TR "
        "gu_IN, with the built-in corpus copying too); where data are files, their examples of "
        "these pairs, be they translations or summaries",
        None, nargs="+", metavar="SRC-TGT"
    )
    lr: float = option("highest learning rate", type=POSITIVE)
    warmup: int = option("updates until --lr is reached; 0: none", type=number(int, 0))
    final_lr: float = option(
        "what the learning rate falls to; it would be reached one update after the last",
        type=number(float, 0.0)
    )
    clip: float = option(
        "gradients of a larger norm are scaled down to this one; 0: never",
        type=number(float, 0.0)
    )
    weight_decay: float = option("weight decay of AdamW; 0: none", type=number(float, 0.0))
    label_smoothing: float = option(
        "share of every label's probability that is spread over the vocabulary; 0: none",
        type=SHARE
    )
    dropout: float = option("dropout of states and of attention; 0: none", type=SHARE)

    # Validation: what is kept, and when to stop.
    eval_every: int = option(
        "updates between validations, each with a checkpoint (which is written every quarter of an "
        "hour too)", type=COUNT
    )
    valid_examples: int = option(
        "validation examples for each language pair, spread over all that there are", type=COUNT
    )
    patience: int = option(
        "stop after so many validations in a row without improvement; 0: never",
        type=number(int, 0)
    )
    keep: str = option(
        "which model the folder keeps: that of the lowest validation loss, or the last (default: "
        "best; last for adversarial runs, for which the task's loss alone would choose a model "
        "whose states still tell the language)",
        None, choices=("best", "last")
    )
    watch: list = option(
        "language pairs to score at every validation too, zero-shot ones as a rule, by greedy "
        "decoding of the first --valid-examples of a pair: watch.csv, and curves in log.svg where "
        "matplotlib is installed (default: none)", None, nargs="+", metavar="SRC-TGT"
    )
    stop_at: int = option(
        "save and stop after this update, as if interrupted (for job queues)",
        None, type=COUNT, metavar="UPDATE"
    )

    # The methods of the papers.
    adversarial: str = option(
        "train against a classifier of the source language on the encoder's states, which this "
        "loss fools; the source tag is then left out, and --recipe is full if not typed", "none",
        choices=KINDS
    )
    classifier_lr: float = option("learning rate of the adversary's classifier", type=POSITIVE)
    classifier_updates: int = option(
        "updates of the adversary's classifier on its batches, for each update of the model",
        type=COUNT
    )
    tagless: bool = option(
        "leave the source tag out of the encoder's input (set by itself where the model of --init "
        "was trained so)", False
    )
    residual_drop: int = option(
        "no residual around the self-attention of this encoder layer, counted from 1 (the "
        "paper's: 7 of 12); 0: all stay", 0, type=number(int, 0), metavar="LAYER"
    )
    align_layer: int = option(
        "pull translations together in the states of encoder layer N, counted from 1: beside a "
        "task in the same updates, on as many batches; 0: do not (--stage align needs a layer)",
        0, type=number(int, 0), metavar="N"
    )
    align_pairs: list = option(
        "translation pairs of --align-layer, the anchor's language first (default: each other "
        "language of --langs, or of es_XX ru_RU tr_TR gu_IN, with en_XX)",
        None, nargs="+", metavar="SRC-TGT"
    )
    lora_rank: int = option(
        "rank of LoRA's matrices (--recipe lora; alpha is twice the rank)", 8, type=COUNT
    )
    lora_dropout: float = option(
        "dropout on the input of LoRA's matrices; 0: none", 0.1, type=SHARE
    )
    lora_projections: list = option(
        "which projections of the layers LoRA adapts", PROJECTIONS, nargs="+", metavar="NAME"
    )

    # The machine.
    device: str = option(
        "where to compute: cpu, cuda, cuda:1 ... (default: a GPU if there is one)",
        None, type=device_name
    )
    precision: str = option(
        "precision of the arithmetic (default: bf16 on a GPU that has it, fp16 on another, fp32 on "
        "a CPU)",
        None, choices=("fp32", "bf16", "fp16")
    )
    compile: bool = option(
        "torch.compile the layers and the loss, for a GPU (under qk on an H200 an update of 2,800 "
        "tokens takes two thirds of the time, one of 8,400 in one batch no less)", False
    )
    no_eval: bool = option("do not score the model at the end", False)


SMALL = {  # the built-in corpus on two CPU cores
    "every stage": {
        "tokens": 1600, "accumulate": 1, "warmup": 100, "final_lr": 0.0, "clip": 1.0,
        "weight_decay": 0.01, "label_smoothing": 0.0, "dropout": 0.0, "valid_examples": 32,
        "patience": 0, "classifier_lr": 2e-3, "classifier_updates": 10,
    },
    "pretrain": {"recipe": "full+embeddings", "lr": 2e-3, "steps": 8_000, "eval_every": 1000,
                 "accumulate": 2, "warmup": 300},
    "translate": {"recipe": "full", "lr": 2e-3, "steps": 1250, "eval_every": 250},
    "summarize": {"recipe": "qk", "lr": 4e-3, "steps": 400, "eval_every": 100},
    "align": {"recipe": "lora", "lr": 1e-3, "steps": 300, "eval_every": 100},
    # A task with an adversary: queries and keys cannot fool it, whole layers want half their rate.
    "adversarial": {"recipe": "full", "lr": 2e-3},
}
LARGE = {  # mBART-large, Solovyev et al. 2024, appendix A
    "every stage": {
        "tokens": 2800, "accumulate": 3, "warmup": 0, "final_lr": 5e-9, "clip": 0.1,
        "weight_decay": 0.01, "label_smoothing": 0.0, "dropout": 0.1, "valid_examples": 500,
        "patience": 1, "classifier_lr": 2e-5, "classifier_updates": 1,
        "lr": 2e-5, "steps": 120_000, "eval_every": 5000,
    },
    "pretrain": {"recipe": "full+embeddings"},
    "translate": {"recipe": "full"},
    "summarize": {"recipe": "qk"},
    "align": {"recipe": "lora"},
    "adversarial": {  # from the finetuned model, --init; fooling raises the task's loss: no stop
        "recipe": "full", "final_lr": 2e-5, "steps": 50_000, "patience": 0, "temperature": 10.0,
    },
}
MAY_DIFFER = ("resume", "stop_at", "device", "no_eval")  # when a run goes on


def parse_args(argv=None):
    """argv (default: the program's own) -> Settings: typed, else the preset's, else decided."""
    typed = read_options(Settings, argv, f"{__doc__}\n{presets_in_words()}\n")
    if "resume" in typed:
        return resumed(typed)
    if "stage" not in typed:
        raise UserError(f"--stage is required: one of {', '.join(STAGES)}")
    if typed.get("init", "").strip():
        typed["init"] = pinned(typed["init"])  # so that --resume finds what this run began with
        tell_untrained(typed["init"], model_folder(typed["init"], weights=False))
    if "preset" not in typed:
        typed["preset"] = default_preset(typed)
    options = defaults_of(typed) | typed
    settings = Settings(**options)
    check_pairs_are_named(typed)
    check_codes(settings.langs)
    # These read what was typed, so they come before decide(), which fills in the rest.
    remarks = unused(typed, settings) + doubts(settings)
    decide(settings)
    check(settings)
    remarks += never_reached(typed, settings) + summaries_as_translations(settings)
    if "tokens" not in typed and "accumulate" not in typed:
        remarks += join_batches(settings)
    for remark in remarks:
        note(remark)
    return settings


def presets_in_words():
    """The values of both presets, for --help."""
    lines = ["What the presets have, where nothing is typed:"]
    for preset, stages in (("small", SMALL), ("large", LARGE)):
        for stage, values in stages.items():
            options = ", ".join(f"{option_name(name)} {value}" for name, value in values.items())
            lines += textwrap.wrap(
                f"{preset}, {stage}: {options}",
                80,
                initial_indent="    ",
                subsequent_indent="        ",
                break_on_hyphens=False,
            )
    return "\n".join(lines)


def summaries_as_translations(s):
    """A list with one remark, or none: on a pair that is aligned and summarized too. Alignment
    takes each of its lines for a translation, a summary in another language as well."""
    if s.stage != "summarize" or not s.align_layer or kind_of(s.data) != "jsonl":
        return []
    both = [pair for pair in s.align_pairs if pair in s.pairs]
    if not both:
        return []
    return [
        f"--align-pairs has {both[0]}, which is summarized too: its lines are aligned as if each "
        "target were a translation of its source"
    ]


def check_pairs_are_named(typed):
    """UserError where a vocabulary that tools.new_language has made would be trained on the default
    languages, for the first time or again."""
    init = typed.get("init", "").strip()
    names = ["pairs", "langs"]
    if typed["stage"] == "align":
        names.append("align_pairs")
    if not init or any(typed.get(name) for name in names):
        return
    folder = model_folder(init, weights=False)
    if read_settings(folder).get("fresh") or has_two_vocabularies(folder):
        raise UserError(
            f"--init {init} has a vocabulary that was made for some pairs, and nothing says which "
            "to train it on; name them with --pairs, as when it was made"
        )


def default_preset(typed):
    """The preset of a command line that names none: small for the data sets that have a small
    base of their own, unless --init names a model as wide as mBART-large."""
    data = typed.get("data", "builtin")
    if not has_small_base(data):
        return "large"
    init = typed.get("init", "").strip()
    if not init:
        return "small"
    config = Config.read(model_folder(init, weights=False) / "config.json")
    if config.is_small:
        return "small"
    return "large"


def defaults_of(typed):
    """The preset's defaults for a command line: those of every stage, then of its own, then of an
    adversary. A later one overrides an earlier one."""
    preset = SMALL if typed["preset"] == "small" else LARGE
    defaults = preset["every stage"] | preset[typed["stage"]]
    if typed.get("adversarial", "none") != "none":
        defaults |= preset["adversarial"]
        if preset is LARGE and "lr" in typed:
            defaults["final_lr"] = typed["lr"]  # its rate is constant, whatever it is
    return defaults


def unused(typed, s):
    """A line for every option that was typed and that this run makes no use of."""
    reasons = {}
    if s.recipe != "lora":
        for name in ("lora_rank", "lora_dropout", "lora_projections"):
            reasons[name] = "without --recipe lora"
    if s.adversarial == "none":
        for name in ("classifier_lr", "classifier_updates"):
            reasons[name] = "without --adversarial"
    if not s.align_layer:
        reasons["align_pairs"] = "without --align-layer"
    if not s.mix:
        reasons["mix_pairs"] = "without --mix"
    # Beside --pairs, --langs may still say what --align-layer and --mix read.
    aligns_langs = s.align_layer and not s.align_pairs and s.stage != "align"
    mixes_langs = s.mix and not s.mix_pairs
    if s.pairs and not aligns_langs and not mixes_langs:
        reasons["langs"] = "beside --pairs"
    if s.stage == "align":
        reasons["label_smoothing"] = "in stage align"
        if s.align_pairs:
            reasons["langs"] = "beside --align-pairs"
    if is_builtin(s.data):
        reasons["temperature"] = "with the built-in corpus"  # its pairs are all of one size
        reasons["min_words"] = "with the built-in corpus"
        reasons["skip_bad_lines"] = "with the built-in corpus"
    lines = []
    for name, reason in reasons.items():
        if name in typed:
            lines.append(f"{option_name(name)} has no effect {reason}")
    if is_builtin(s.data) and s.data != "builtin" and s.stage != "pretrain":
        lines.append(f"the share of --data {s.data} has no effect but in stage pretrain")
    return lines


def never_reached(typed, s):
    """Lines as unused() has them, on options whose effect depends on what decide() filled in."""
    lines = []
    if "temperature" in typed and not is_builtin(s.data):  # of which unused() speaks
        has_more_streams = s.mix or (s.align_layer and s.stage != "align")
        if len(s.pairs) == 1 and not has_more_streams:
            lines.append("--temperature has no effect with one language pair")
    validations = math.ceil(s.steps / s.eval_every)
    # The first one is bad only where its loss is no number; after the last one the run is over.
    if "patience" in typed and s.patience > max(0, validations - 2):
        lines.append(
            f"--patience {s.patience} has no effect: --steps {s.steps} have {validations} "
            f"validations, one every {s.eval_every} updates (--eval-every)"
        )
    return lines


def doubts(s):
    """A line for every setting that is likely to disappoint."""
    lines = []
    if s.adversarial != "none" and s.recipe in ("qk", "q"):
        lines.append(
            f"--recipe {s.recipe} moves too little of the encoder to fool an adversary (as "
            "published under qk, es_XX-en_XX: ROUGE-1 2.3, 99.9% in the wrong language; under "
            "full: 33.1, 1.7%)"
        )
    if s.warmup > s.steps:
        lines.append(
            f"--warmup {s.warmup} is not over within --steps {s.steps}: the learning rate "
            f"ends at {s.steps / s.warmup:.0%} of --lr"
        )
    if s.stop_at is not None and s.stop_at >= s.steps:
        lines.append(
            f"--stop-at {s.stop_at} has no effect: the run is over after --steps {s.steps}"
        )
    starts_from_base = s.init is None or same_place(s.init, BASE)
    if starts_from_base and s.stage != "pretrain" and not is_builtin(s.data):
        lines.append(
            "base/ knows the words of the built-in corpus alone; for other texts name a model with "
            "--init"
        )
    if s.stage == "translate" and not s.pairs and len(set(s.langs or [])) == 1:
        lines.append(
            f"--langs names {s.langs[0]} alone, which trains nothing but copying; name more "
            "languages for translations"
        )
    return lines


# GiB of free memory with which a GPU does an update of the large preset in one batch of 8,400
# tokens, by recipe: for short targets, and for targets as long as their sources. About two GiB of
# each are for torch itself and for gaps between tensors; the rest is counted by bench/peak.py.
# "others" is full+embeddings, which needs the most of the remaining recipes.
SHORT_TARGETS = {"qk": 10, "lora": 14, "full": 15, "others": 18}
LONG_TARGETS = {"qk": 15, "lora": 24, "full": 21, "others": 25}
ROOM_FOR_ONE_BATCH = {
    "summarize": SHORT_TARGETS, "translate": LONG_TARGETS, "pretrain": LONG_TARGETS
}


def join_batches(s):
    """Joins the three batches of the large preset's update into one, on a GPU with room for it: it
    then takes the time of one of the three. Returns the lines that say so, [] if it does not.

    It does not with --mix, --align-layer or an adversary, whose losses depend on how an update is
    cut into batches; nor in fp32; nor with several processes, which share the batches out."""
    device = device_of(s)
    _, world = rank_and_world()
    depends_on_batches = s.mix or s.align_layer or s.adversarial != "none"
    if depends_on_batches or s.precision == "fp32":
        return []
    if s.preset != "large" or s.stage not in ROOM_FOR_ONE_BATCH:
        return []
    if device.type != "cuda" or world > 1:
        return []
    free, _ = torch.cuda.mem_get_info(device)
    room = ROOM_FOR_ONE_BATCH[s.stage]
    if free < room.get(s.recipe, room["others"]) * 2**30:
        return []
    s.tokens *= s.accumulate
    s.accumulate = 1
    return [f"this GPU has room for an update in one batch: --tokens {s.tokens} --accumulate 1"]


def resumed(typed):
    """The settings of an interrupted run, but for the few that may differ this time."""
    folder = typed["resume"]
    saved = read_settings(folder)
    if not saved:
        mend = "name the folder of an interrupted run"
        rank, _ = rank_and_world()
        if rank > 0:
            mend += ", or copy it here from the machine of the first process"
        raise UserError(f"--resume {folder}: no args.json there; {mend}")
    if saved.get("run_format") != RUN_FORMAT:
        raise UserError(
            f"--resume {folder}: begun by another version of this project, which made other "
            f"updates; start a run from its model instead, with --init {folder}"
        )
    where = Path(folder) / "args.json"
    world = saved.get("world_size", 1)
    if not isinstance(world, int) or world < 1:
        raise UserError(f"{where}: world_size is {world!r}, which is no number of processes")
    check_saved(Settings, saved, where)
    known = {each.name for each in fields(Settings)}
    saved = {name: value for name, value in saved.items() if name in known}
    try:
        own = Settings(**(saved | {"stop_at": None, "out": folder}))
    except TypeError as error:
        raise UserError(f"{where}: not a run's settings ({error})") from None
    check_decided(own, where)
    others = []
    for name in typed:
        if name not in MAY_DIFFER and differs(name, typed, own, world):
            others.append(option_name(name))
    if others:
        named = ", ".join(others)
        raise UserError(
            f"--resume goes on with the run's own options, and these differ: leave out {named}"
        )
    changed = {}
    for name in (*MAY_DIFFER, "data"):
        if name in typed:
            changed[name] = typed[name]
    s = replace(own, **changed)
    if "init" in typed and not same_model(typed["init"], own.init):
        s.init = typed["init"]  # where it is by now
    check_device(s, where)
    return s


def check_decided(s, where):
    """UserError for saved settings without one of those that every run has decided on."""
    names = ["stage", "init", "langs", "pairs", "keep", "precision"]
    if s.mix:
        names.append("mix_pairs")
    if s.align_layer and s.stage != "align":
        names.append("align_pairs")
    for name in names:
        if not getattr(s, name):
            raise UserError(
                f"{where}: {name} is {getattr(s, name)}, which no run has; put back what stood "
                f"there, or start a run from its model with --init {s.out}"
            )


def check_device(s, where):
    """UserError for the device of another machine."""
    if s.device is None:
        return
    try:
        device_name(s.device)
    except argparse.ArgumentTypeError as error:
        raise UserError(
            f"{where}: device is {s.device} ({error}); name one of this machine with --device"
        ) from None


def differs(name, typed, own, world):
    """Does a typed value differ from the run's own? `world`: how many processes it had."""
    value = typed[name]
    saved = getattr(own, name)
    if name == "init":
        if same_model(value, saved):
            return False
        return not has_moved(saved, value, own.out)
    if name == "out":  # a folder has many names
        return not same_place(value, saved)
    if name == "data" and not is_builtin(value):  # the folder may have moved; Fingerprint checks it
        return kind_of(value) != kind_of(saved)
    if name in ("accumulate", "mix"):
        return shared_equally(value, world) != saved
    if isinstance(value, list):  # what is typed twice counts once
        return list(dict.fromkeys(value)) != list(dict.fromkeys(saved or []))
    return value != saved


def has_moved(init, folder, run_folder):
    """Is `folder` the new place of the model `init`, from which the run in run_folder began?

    Only if nothing is left at the old place, and `folder` has the same weights (for a run of an
    earlier version, which did not note them: a model of the same base)."""
    if is_folder(init) or not is_folder(folder):
        return False
    settings = read_settings(run_folder)
    return settings.get("origin") is not None and is_still(folder, settings)


def shared_equally(batches, world):
    """The batches of an update, or a few more, so that every process takes as many."""
    return math.ceil(batches / world) * world


def share_batches(s, world, say):
    """Makes --accumulate and --mix numbers that every process can take an equal share of, and says
    so.

    UserError where a run that goes on would then make other updates than before."""
    for name in ("accumulate", "mix"):
        asked = getattr(s, name)
        batches = shared_equally(asked, world)
        if batches == asked:
            continue
        if s.resume:
            raise UserError(
                f"--resume {s.resume}: its updates are of {asked} batches, which {world} processes "
                "cannot share equally; start another number of processes"
            )
        say(
            f"--{name} {asked} becomes {batches}: {world} processes share the batches of an update "
            "equally"
        )
        setattr(s, name, batches)


def decide(s):
    """Fills in the settings that follow from others; a run's args.json holds them all.

    UserError for pairs of a wrong form, and for --pairs beside --align-pairs in stage align."""
    if s.init is None and s.stage != "pretrain":
        s.init = str(BASE)
    if s.out is None:
        s.out = f"runs/{s.stage}"
    if s.keep is None:
        s.keep = "best" if s.adversarial == "none" else "last"
    if s.adversarial != "none":
        s.tagless = True
    if started_from(s).get("tagless"):
        s.tagless = True
    if s.align_layer and s.stage != "align":
        s.align_pairs = ["-".join(pair) for pair in alignment_pairs(s.langs, s.align_pairs)]
    if s.mix:
        copying = is_builtin(s.data)
        s.mix_pairs = ["-".join(pair) for pair in mixing_pairs(s.langs, s.mix_pairs, copying)]
    if s.stage == "align" and s.pairs and s.align_pairs:
        raise UserError(
            "--stage align takes its pairs from --pairs or --align-pairs: leave one of the two out"
        )
    pairs = language_pairs(s.stage, s.langs, s.pairs, s.align_pairs, can_copy(s.data))
    s.pairs = ["-".join(pair) for pair in pairs]
    if s.langs is None:  # typed ones stay: --resume takes them again
        s.langs = languages_of(pairs)
    if s.precision is None:
        s.precision = default_precision(device_of(s))


def started_from(s):
    """The settings of the run that made the model of --init; {} where no run of ours did."""
    if s.init is None or not s.init.strip():
        return {}
    if s.init == str(BASE) and not is_folder(BASE):  # check() says how it is made
        return {}
    return read_settings(model_folder(s.init, weights=False))


def learned(s, available):
    """["STAGE SRC-TGT"], what the model will have learned to write, in this run and in our runs
    before it. eval.py calls all other pairs zero-shot. available: {"SRC-TGT"} of the pairs that
    have examples to train on."""
    before = read_settings(s.out) if s.resume else started_from(s)
    # --mix trains the task "translate" where the data have translations (can_copy). Other data have
    # summaries between languages too, which count for the run's own stage.
    mixed_stage = s.stage
    if can_copy(s.data):
        mixed_stage = "translate"
    found = []
    for stage in STAGES:
        pairs = learned_in(before, stage)
        if stage == s.stage:
            pairs += [pair for pair in s.pairs if pair in available]
        if s.mix and stage == mixed_stage:
            pairs += [pair for pair in s.mix_pairs if pair in available]
        found.extend(f"{stage} {pair}" for pair in pairs)
    return list(dict.fromkeys(found))


def check(s):
    """UserError for settings that do not fit each other or what is on the disk."""
    if s.init is None:
        raise UserError(
            f"--stage pretrain needs --init FOLDER: `{beside_python()} -m tools.start runs/start` "
            "makes one with a vocabulary and a small random model"
        )
    if not s.init.strip():
        raise UserError("--init is empty; name a folder, or leave it out")
    if s.init == str(BASE) and not (BASE / "config.json").exists():
        raise UserError(
            f"base/ is missing; make it with `{beside_python()} -m tools.start runs/start` and "
            f"then `{beside_python()} train.py --stage pretrain --init runs/start --out base`, or "
            "name a model with --init FOLDER"
        )
    check_pairs(s)
    check_recipe(s.recipe, s.recipe_layers)
    if s.recipe == "lora":
        check_lora(s.lora_rank, s.lora_projections)
    fresh = started_from(s).get("fresh")  # embeddings that tools.new_language has drawn
    if fresh:
        check_fresh(s.recipe, fresh, s.recipe_layers)
    if s.stage == "align" and not s.align_layer:
        raise UserError(
            "--stage align needs --align-layer N, the encoder layer whose states are to meet"
        )
    if s.adversarial != "none" and s.stage not in TASKS:
        raise UserError(
            f"--adversarial belongs to a task, {' or '.join(TASKS)}; --stage {s.stage} has none"
        )
    if s.final_lr > s.lr:
        raise UserError(f"--final-lr {s.final_lr:g} is above --lr {s.lr:g}, from which it falls")
    if s.mix and s.stage != "summarize":
        raise UserError(
            f"--mix puts translations beside summaries; --stage {s.stage} has none of these (stage "
            "translate takes more pairs by --langs or --pairs)"
        )
    if s.watch and s.stage not in TASKS:
        raise UserError(f"--watch scores a task's outputs; --stage {s.stage} has none")
    for name in ("watch", "mix_pairs", "align_pairs"):
        split_pairs(getattr(s, name) or [], option_name(name))
    if not s.out.strip():
        raise UserError("--out is empty; name a folder, or leave it out")
    if os.path.exists(Path(s.out) / "config.json") and not s.overwrite:
        goes_on = ""
        if os.path.exists(Path(s.out) / "state.pt"):
            goes_on = f"--resume {s.out} goes on with it, "
        raise UserError(
            f"{s.out} has a model already; {goes_on}--overwrite replaces it, --out names another "
            "folder"
        )
    in_the_way = None
    if not s.overwrite:
        in_the_way = file_in_the_way(s.out)
    if in_the_way:
        raise UserError(
            f"{s.out} is no run of train.py and has a file {in_the_way}, which a run would "
            "replace: --out names another folder, --overwrite replaces it"
        )
    if same_place(s.out, s.init):
        raise UserError(
            f"{s.out} is the model that training starts from, which a run would overwrite: --out "
            "names another folder"
        )


def check_pairs(s):
    """UserError for language pairs of which the stage or the data can make nothing sensible."""
    across = [pair for pair in s.pairs if not is_within(pair)]
    within = [pair for pair in s.pairs if is_within(pair)]
    kind = kind_of(s.data)
    if not has_translations(s.data) and (s.stage == "translate" or s.align_layer):
        raise UserError(
            f"--data {s.data} has summaries and no translations, which --stage translate and "
            "--align-layer want: use --stage summarize without it, or other data"
        )
    if not s.pairs:
        raise UserError(
            f"--stage translate needs two languages, and --langs names {s.langs[0]} alone; name "
            f"more, or what is to be learned within it with --pairs {s.langs[0]}-{s.langs[0]}"
        )
    if s.stage == "summarize" and kind == "parallel" and within:
        raise UserError(
            f"--data {s.data} has translations and no summaries: {within[0]} would learn to copy; "
            "use --stage translate, or other data"
        )
    if s.stage == "pretrain" and across:
        # builtin:SHARE too: what it does not mix would be rebuilt as it is, under the other's tag.
        raise UserError(
            f"--stage pretrain rebuilds a text in its own language, and {across[0]} has two; name "
            "languages with --langs, or pairs as en_XX-en_XX"
        )
    if s.adversarial != "none":
        pairs = list(s.pairs)
        if s.mix:
            pairs += s.mix_pairs
        sources = {source for source, _ in split_pairs(pairs)}
        check_sources(s.adversarial, sorted(sources))


def check_one_pair(s):
    """UserError where a run would read lines that say no languages as those of several pairs."""
    read = {*s.pairs, *pairs_beside_task(s), *(s.watch or [])}
    if len(read) == 1:
        return
    if any(says_no_languages(s.data, split) for split in ("train", "valid")):
        raise UserError(
            f"--data {s.data}: no column says the languages, and this run would read every line as "
            f"each of {', '.join(sorted(read))}; add source_lang and target_lang to every line, or "
            "name one pair alone"
        )


def check_codes(langs):
    """UserError for a language that pairs, as en_XX-es_XX, cannot name."""
    for lang in langs or ():
        if "-" in lang:
            raise UserError(
                f"--langs {lang}: a language has no hyphen in its code; mBART's are written as "
                "en_XX"
            )


def is_within(pair):
    """Is a pair, as "en_XX-es_XX", within one language?"""
    source, target = pair.split("-")
    return source == target


def device_of(s):
    return torch.device(s.device or default_device())


def main(argv=None):
    if argv is None:
        argv = sys.argv[1:]
    command = [str(word) for word in argv]
    with processes() as (rank, world):
        s = parse_args(argv)
        check_spec(s.data)  # before the model is fetched
        check_one_pair(s)
        lock = only_run_in(s.out) if rank == 0 else nullcontext()
        with lock:
            train(s, rank, world, device_of_process(device_of(s), world), command)
    if rank == 0:
        write_card(s.out)
    if rank == 0 and not s.no_eval:
        show_result(s)


if __name__ == "__main__":
    run(main)
