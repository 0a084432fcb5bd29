"""What bench/gpu_check.py checks on a GPU: a function for each check.

A check is given a Place and tells it rows: what was looked at, what was expected and what was
found. On a CPU each runs on tiny shapes, as a test of itself; what a CPU cannot tell is NO_CARD.
"""
import json
import math
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.autograd import DeviceType

import train
from bench.peers import example_of, largest, random_ids, rates, trained_by
from bench.process import GIB, ROOT, free_port
from corpora.sets import open_data
from data import collate, pad
from eval import Decoder, first_examples
from generate import generate
from model import ChunkedCrossEntropy, Config, MBart, add_product, loss_and_gradient
from plumbing import runs
from plumbing.files import first_line, last_line
from plumbing.memory import Memory
from plumbing.runs import read_log
from qk_finetune import FrozenInHalf, apply_recipe

NO_CARD = "no card"
TYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def patience(has_card):
    """By how much a limit of time is longer: without a card the checks test themselves, on machines
    that may be busy."""
    return 1 if has_card else 10


@dataclass(frozen=True)
class Place:
    """Where a check computes, and where it writes."""

    device: torch.device
    scratch: Path  # a folder of its own
    rows: Path  # its file: a row a line, as JSON

    @property
    def has_card(self):
        return self.device.type == "cuda"

    @property
    def patience(self):
        return patience(self.has_card)

    def tell(self, what, expected, found, right=None):
        """One row, kept at once: what comes later may hang. right: None where nobody can say."""
        row = {"what": what, "expected": expected, "found": found, "right": right}
        with open(self.rows, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def tell_below(self, what, found, limit):
        self.tell(what, f"below {limit:.0e}", f"{found:.1e}", found < limit)


# ----------------------------------------------------------------------- processes of their own

def begin(function, arguments, log, leads=False):
    """Starts function(*arguments) in a process of its own; the file `log` gets what it prints.

    It is forked, so that no import is repeated: the process that calls this must not have used the
    GPU. leads: it is ended together with all processes that it starts."""
    forking = multiprocessing.get_context("fork")
    child = forking.Process(target=inside, args=(function, arguments, log, leads))
    child.start()
    return child


def inside(function, arguments, log, leads):
    if leads:
        os.setsid()
    file = open(log, "w", encoding="utf-8")
    os.dup2(file.fileno(), 1)  # what libraries write there too
    os.dup2(file.fileno(), 2)
    sys.stdout = file
    sys.stderr = file
    function(*arguments)
    file.flush()


def finish(child, seconds, log, leads=False):
    """Waits for a process; "" if it ended well, else what happened, in words."""
    try:
        child.join(max(0.0, seconds))
    except BaseException:  # Ctrl-C, which reaches no group of processes but this one's own
        end(child, leads)
        raise
    if child.is_alive():
        end(child, leads)
        return f"ended at its limit of {seconds:.0f} s"
    if child.exitcode == 0:
        return ""
    said = last_line(log.read_text(encoding="utf-8", errors="replace"), 200) or "it said nothing"
    return f"exit code {child.exitcode}: {said}"


def end(child, leads):
    """Kills a process; of one that leads, all that it has started too."""
    if leads:
        with suppress(ProcessLookupError):  # it does not lead yet
            os.killpg(child.pid, signal.SIGKILL)
    child.kill()
    child.join()


# ----------------------------------------------------------------------- small computations

def distance(found, wanted):
    """|found - wanted| / |wanted|, in float64 on the CPU."""
    found = found.detach().double().cpu()
    wanted = wanted.detach().double().cpu()
    return ((found - wanted).norm() / wanted.norm().clamp(min=1e-30)).item()


def machine(place):
    """What it is, and how fast: the rest is to be read beside these."""
    place.tell("torch", "2.11 or newer", torch.__version__)
    if not place.has_card:
        for what in ("GPU", "products of 8192 x 8192 in bf16", "copies"):
            place.tell(what, "an H100: 790 TFLOP/s, 3 TB/s", NO_CARD)
        return
    measured = rates(place.device)
    products = measured.products / 1e12
    copies = measured.copies / 1e12
    place.tell("GPU", "any", torch.cuda.get_device_name())
    place.tell("products of 8192 x 8192 in bf16", "an H100: 790 TFLOP/s", f"{products:.0f} TFLOP/s")
    place.tell("copies", "an H100: 3 TB/s", f"{copies:.2f} TB/s")


def calls(place):
    """Calls of torch that are another piece of code on a GPU."""
    generator = torch.Generator().manual_seed(0)
    keep = torch.rand(7, 9, generator=generator) < 0.5
    places = torch.nonzero_static(keep.to(place.device).flatten(), size=int(keep.sum()))[:, 0]
    right = torch.equal(places.cpu(), torch.nonzero(keep.flatten())[:, 0])
    place.tell("nonzero_static", "the places of nonzero", "they" if right else "others", right)
    if not place.has_card:
        for call in ("addmm(out_dtype=float32, out=...)", "mm(out_dtype=float32)"):
            place.tell(call, "below 1e-05", NO_CARD)
        return
    a = torch.randn(640, 64, generator=generator).to(place.device, torch.bfloat16)
    b = torch.randn(64, 128, generator=generator).to(place.device, torch.bfloat16)
    total = torch.full((640, 128), math.nan, device=place.device)  # must not be read at first
    add_product(total, a, b, 1e-3, is_first=True)
    add_product(total, a, b, 1e-3, is_first=False)
    wanted = 2e-3 * (a.double() @ b.double())
    place.tell_below("addmm(out_dtype=float32, out=...)", distance(total, wanted), 1e-5)
    product = torch.mm(a, b, out_dtype=torch.float32)  # of decoding in half precision
    place.tell_below("mm(out_dtype=float32)", distance(product, wanted / 2e-3), 1e-5)


def drawn_head(place, labels):
    """Random h (N, D), table (V, D), bias (V,) and y (N,): a loss of N labels over mBART's whole
    vocabulary; without a card of 20 labels over a small one."""
    vocabulary = 250_027
    width = 1024
    if not place.has_card:
        labels = 20
        vocabulary = 300
        width = 16
    torch.manual_seed(0)
    h = torch.randn(labels, width, device=place.device)
    table = torch.randn(vocabulary, width, device=place.device) * 0.05
    bias = torch.zeros(vocabulary, device=place.device)
    y = torch.randint(vocabulary, (labels,), device=place.device)
    return h, table, bias, y


def losses(place):
    """The loss over the whole vocabulary, and its gradients, against float64."""
    h, table, bias, y = drawn_head(place, labels=300)
    exact = [h.double().requires_grad_(), table.double().requires_grad_()]
    wanted = F.cross_entropy(exact[0] @ exact[1].T, y)
    wanted.backward()
    for name, dtype in TYPES.items():
        mine = [h.clone().requires_grad_(), table.clone().requires_grad_()]
        with torch.autocast(place.device.type, dtype, enabled=dtype is not None):
            loss = ChunkedCrossEntropy.apply(
                *mine, bias, y, 0.0, 1 / len(y), Memory(), loss_and_gradient
            )
        loss.backward()
        limits = (1e-5, 1e-4) if dtype is None else (5e-3, 2e-2)
        what = f"{name}, V = {len(table):,}"
        place.tell_below(f"loss in {what}", distance(loss, wanted), limits[0])
        for part, own, other in zip(("states", "table"), mine, exact):
            away = distance(own.grad, other.grad)
            place.tell_below(f"gradient by the {part} in {what}", away, limits[1])


def loss_time(place):
    """The loss of a batch of translations and its gradient by the states, the table frozen: ours,
    ours compiled, plain torch, and torch's own loss in chunks, which came with torch 2.13.

    Liger's and cut-cross-entropy's are not here: programs in Triton, which torch does not bring."""
    h, table, bias, y = drawn_head(place, labels=2800)
    h.requires_grad_()
    half = table.bfloat16()
    memory = Memory()

    def ours(function=loss_and_gradient):
        with torch.autocast(place.device.type, torch.bfloat16):
            loss = ChunkedCrossEntropy.apply(h, table, bias, y, 0.0, 1 / len(y), memory, function)
        loss.backward()

    def plain():
        F.cross_entropy((h.bfloat16() @ half.T).float(), y).backward()

    def in_chunks():
        options = torch.nn.LinearCrossEntropyOptions()
        F.linear_cross_entropy(h.bfloat16(), half, y, options=options).backward()

    sides = {"ours": ours, "plain torch": plain}
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        sides["torch's linear_cross_entropy"] = in_chunks
    if place.has_card:
        quick = torch.compile(loss_and_gradient, dynamic=True)
        sides["ours, compiled"] = lambda: ours(quick)
    for name, side in sides.items():
        what = f"loss of {len(y):,} labels and its gradient, {name}"
        side()
        if not place.has_card:
            place.tell(what, "ms, GiB", NO_CARD)
            continue
        side()
        torch.cuda.reset_peak_memory_stats()
        seconds = mean_seconds(side, 10)
        peak = torch.cuda.max_memory_allocated() / GIB
        place.tell(what, "ms, GiB", f"{1000 * seconds:.1f} ms, {peak:.1f} GiB")


def batch_of(vocabulary, lengths, targets, seed=0):
    """Random tokens: sources of these lengths, their targets so long."""
    generator = torch.Generator().manual_seed(seed)
    examples = []
    for length in lengths:
        source = random_ids(vocabulary, length, generator)
        labels = random_ids(vocabulary, targets, generator)
        examples.append(example_of(source, labels))
    return collate(examples)


def gradients_of(recipe, batch, device, dtype):
    """(loss, {name: gradient}) of base/ on a device."""
    model = MBart.from_pretrained(train.BASE).to(device)
    apply_recipe(model.train(), recipe)
    FrozenInHalf(model, dtype)  # as train.py does
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        loss, _ = train.task_loss(model, batch.to(device), batch.target_tokens)
    loss.backward()
    found = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not name.endswith("k_proj.bias"):  # which is noise
            found[name] = parameter.grad
    return loss, found


def gradients(place):
    """base/ on this device against the CPU: widths of 48 and of 47, which is widened there."""
    for recipe in ("full+embeddings", "qk"):
        for longest in (48, 47):
            batch = batch_of(2000, (longest, 30, 21, 40), 16)
            loss, wanted = gradients_of(recipe, batch, torch.device("cpu"), None)
            for name in ("fp32", "bf16"):
                other, found = gradients_of(recipe, batch, place.device, TYPES[name])
                away = largest(distance(found[each], wanted[each]) for each in wanted)
                limits = (1e-5, 1e-4) if name == "fp32" else (1e-2, 5e-2)
                what = f"{recipe}, {name}, S = {longest}"
                place.tell_below(f"loss of {what}", distance(other, loss), limits[0])
                place.tell_below(f"gradients of {what}", away, limits[1])


def outputs(place):
    """What base/ writes on this device, in both precisions of eval.py, and on the CPU."""
    count = 40 if place.has_card else 3
    pair = ("en_XX", "en_XX")
    data = open_data("builtin", "summarize", "test", [pair], list(train.BASE_LANGUAGES))
    texts, _ = first_examples(data, pair, count)
    options = {"beam": 4, "max_new_tokens": 40 if place.has_card else 8}
    wanted = Decoder(train.BASE, **options)(texts, *pair)
    # Rounded to half precision, of two tokens that are nearly as likely the other is taken now and
    # then.
    for precision, least in (("fp32", count - count // 40), ("bf16", count * 3 // 4)):
        what = f"outputs in {precision} equal to the CPU's in fp32"
        if precision == "bf16" and not place.has_card:
            place.tell(what, f"{least} of {count}", NO_CARD)
            continue
        found = Decoder(train.BASE, place.device, precision=precision, **options)(texts, *pair)
        same = sum(one == two for one, two in zip(found, wanted))
        place.tell(what, f"{least} of {count}", f"{same}", same >= least)


def waits(place):
    """How often a batch's loss and its gradients make the program wait for the GPU."""
    for recipe in ("full+embeddings", "qk"):
        what = f"waits of a batch, {recipe}"
        if not place.has_card:
            place.tell(what, "1", NO_CARD)
            continue
        model = MBart.from_pretrained(train.BASE).to(place.device)
        apply_recipe(model.train(), recipe)
        FrozenInHalf(model, torch.bfloat16)
        batch = batch_of(2000, (48, 30), 16).to(place.device)
        for _ in range(2):  # the first makes what is made once
            torch.cuda.synchronize()
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                with torch.autocast("cuda", torch.bfloat16):
                    loss, _ = train.task_loss(model, batch, 16)
                loss.backward()
                torch.cuda.set_sync_debug_mode("default")
            count = sum("synchroniz" in str(warning.message) for warning in found)
        place.tell(what, "1", str(count), count <= 1)


# ----------------------------------------------------------------------- train.py

WAYS = {
    "bf16": ("--stage", "summarize", "--precision", "bf16"),
    "fp32": ("--stage", "translate", "--precision", "fp32"),
    "fp16, every table": (
        "--stage", "translate", "--recipe", "full+embeddings", "--precision", "fp16"
    ),
    "lora": ("--stage", "summarize", "--recipe", "lora"),
    "adversary": ("--stage", "summarize", "--adversarial", "balanced", "--classifier-updates", "2"),
    "alignment": ("--stage", "align", "--recipe", "full", "--align-layer", "4"),
    "translations mixed in": ("--stage", "summarize", "--mix", "1"),
    "a new source": ("--stage", "translate", "--recipe", "src+xattn", "--pairs", "fr_XX-en_XX"),
    "stopped and resumed": ("--stage", "translate", "--precision", "fp32"),
}  # fmt: skip


def command_of(place, name, steps, folder=None):
    """train.py's arguments for one of the WAYS; folder: the run's name, by default the way's."""
    tokens = "1600" if place.has_card else "150"
    command = [
        *WAYS[name], "--out", str(place.scratch / (folder or name)), "--device", place.device.type,
        "--steps", str(steps), "--eval-every", str(steps // 2), "--tokens", tokens,
        "--valid-examples", "8" if place.has_card else "2", "--warmup", "0", "--lr", "1e-3",
        "--no-eval",
    ]  # fmt: skip
    if name == "a new source":
        return [*command, "--init", str(place.scratch / "start")]
    return [*command, "--langs", "en_XX", "es_XX"]


def run_of(place, name, steps):
    """One of the WAYS of train.py, in this process."""
    command = command_of(place, name, steps)
    if name == "a new source":  # the base with a French vocabulary of its own
        start = str(place.scratch / "start")
        fresh = ["fresh", train.BASE, start, "--source", "fr_XX", "--pairs", "fr_XX-en_XX"]
        subprocess.run([sys.executable, "-m", "tools.new_language", *fresh], cwd=ROOT, check=True)
    if name == "stopped and resumed":
        with suppress(SystemExit):
            train.main([*command, "--stop-at", str(steps // 2)])
        command = ["--resume", str(place.scratch / name)]
    train.main(command)


def log_of(folder):
    """(loss, validation loss) of every line of a run's log."""
    return [(row["loss"], row["validation loss"]) for row in read_log(folder / "log.csv")]


def training(place):
    """train.py in nine ways, four at a time."""
    steps = 40 if place.has_card else 2
    seconds = 140 * place.patience
    names = list(WAYS)
    ends = time.monotonic() + seconds
    for first in range(0, len(names), 4):
        running = {}
        for name in names[first:first + 4]:
            log = place.scratch / f"{name}.txt"
            running[name] = begin(run_of, (place, name, steps), log)
        for name, child in running.items():
            log = place.scratch / f"{name}.txt"
            trouble = finish(child, ends - time.monotonic(), log)
            tell_run(place, name, trouble, log.read_text(encoding="utf-8", errors="replace"))
    try:
        whole = log_of(place.scratch / "fp32")[-1]
        cut = log_of(place.scratch / "stopped and resumed")[-1]
    except (OSError, IndexError):  # told above
        return
    place.tell_below("train.py, resumed against whole", away_from([cut], [whole]), 1e-3)


def tell_run(place, name, trouble, printed):
    """Rows of one run of train.py, of which `printed` is what it said."""
    what = f"train.py, {name}"
    expected = "a lower validation loss"
    if trouble:
        place.tell(what, expected, trouble, False)
        return
    before = re.search(r"before training: validation loss (\S+)", printed)
    losses = [float(before[1])] + [held for _, held in log_of(place.scratch / name)]
    found = " → ".join(f"{loss:.3f}" for loss in losses)
    right = None
    if place.has_card:  # the few tiny updates of a CPU need not help
        right = losses[-1] < losses[0]
    place.tell(what, expected, found, right)
    if name.startswith("fp16"):
        skipped = re.findall(r"(\d+) updates skipped", printed)
        count = skipped[-1] if skipped else "0"
        place.tell(f"{what}: updates skipped", "0", count, count == "0")


def two_processes(place):
    """train.py in two processes on this one device, against one process with the same batches."""
    steps = 20 if place.has_card else 2
    commands = {}
    for name in ("one", "two"):
        commands[name] = command_of(place, "fp32", steps, name) + ["--accumulate", "2"]
    port = free_port()
    starts = {
        "one process": (train.main, (commands["one"],)),
        "process 1 of two": (run_of_two, (0, port, commands["two"])),
        "process 2 of two": (run_of_two, (1, port, commands["two"])),
    }
    running = {}
    for name, (function, arguments) in starts.items():
        running[name] = begin(function, arguments, place.scratch / f"{name}.txt")
    ends = time.monotonic() + 140 * place.patience
    troubles = []
    for name, child in running.items():
        trouble = finish(child, ends - time.monotonic(), place.scratch / f"{name}.txt")
        place.tell(f"train.py, {name}", "an end", trouble or "an end", not trouble)
        troubles.append(trouble)
    if not any(troubles):
        away = away_from(log_of(place.scratch / "one"), log_of(place.scratch / "two"))
        place.tell_below("losses of two processes against one", away, 1e-3)


def run_of_two(rank, port, command):
    """One of two processes of a run, as torchrun would start it, but both on the first card."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runs.backends = lambda: "gloo"  # NCCL wants a card for each
    train.main(command)


def away_from(one, two):
    """The largest relative distance between the losses of two logs; NaN if they are not as long."""
    if len(one) != len(two):
        return math.nan
    distances = []
    for row, other in zip(one, two):
        distances += [abs(a / b - 1) for a, b in zip(row, other)]
    return largest(distances)


def compiled(place):
    """train.py --compile: are all variants of a layer compiled, or is the limit reached? And does
    it learn what the same run without it learns?"""
    what = "train.py --compile, 60 updates"
    expected = "no warning of a limit"
    same = f"{what}: losses against the same run without it"
    if not place.has_card:
        place.tell(what, expected, NO_CARD)
        place.tell(same, "below 1e-02", NO_CARD)
        return
    command = command_of(place, "bf16", 60)
    train.main([*command, "--compile"])
    sys.stdout.flush()
    printed = (place.scratch / "log.txt").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in printed.splitlines() if "_limit" in line]
    place.tell(what, expected, lines[0][:150] if lines else "none", not lines)
    found = log_of(place.scratch / "bf16")
    train.main([*command, "--overwrite"])
    place.tell_below(same, away_from(found, log_of(place.scratch / "bf16")), 1e-2)


# ----------------------------------------------------------------------- the real size

TINY = {
    "vocab_size": 300, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32, "max_position_embeddings": 600,
}  # fmt: skip
SOURCE, TARGET = 520, 40  # tokens of an example
CALCULATED = {  # GiB at most, of tensors without numbers (bench/peak.py)
    ("qk", 5): 4.3, ("qk", 15): 7.5, ("full", 5): 8.1, ("full", 15): 12.3,
}
GRADIENTS = {"qk": 0.2, "full": 1.3}  # GiB; with several batches they are there from the first on
TORCHS_OWN = 0.4  # GiB: what its products work in, and what lies waste between tensors


def drawn(place):
    """mBART-large with random weights, on its device; a tiny model on a CPU."""
    config = Config(**TINY)
    if place.has_card:
        config = Config(attention_dropout=0.1)  # train.py's setting for a model of this size
    with place.device:
        return MBart(config)


def real_size(place):
    """mBART-large: milliseconds, tokens in a second and the peak of memory of an update."""
    for recipe in ("qk", "full"):
        for compiles in (False, True):
            how = "compiled" if compiles else "eager"
            log = place.scratch / f"{recipe}-{how}.txt"
            child = begin(updates_of, (place, recipe, compiles), log)
            trouble = finish(child, 90 * place.patience, log)
            if trouble:
                place.tell(f"update under {recipe}, {how}", "milliseconds", trouble, False)


def updates_of(place, recipe, compiles):
    if compiles and not place.has_card:
        place.tell(f"update under {recipe}, compiled", "faster than eager", NO_CARD)
        return
    model = drawn(place)
    weights = trained_by(model.train(), recipe)
    optimizer = torch.optim.AdamW(weights, 1e-5, fused=True)
    scaler = torch.amp.GradScaler(place.device.type, enabled=False)
    FrozenInHalf(model, torch.bfloat16)
    if compiles:
        model.compile_layers()
    how = "compiled" if compiles else "eager"
    # (rows of a batch, batches of an update), the largest first: it makes what is made once.
    sizes = ((1, 2),)
    if place.has_card:
        sizes = ((15, 1), (5, 3), (5, 1))
    for rows, batches in sizes:
        batch = batch_of(model.config.vocab_size, [SOURCE] * rows, TARGET)
        labels = batches * batch.target_tokens  # counted before it is on the card
        batch = batch.to(place.device)

        step = partial(
            update_in_batches, model, weights, optimizer, scaler, batch, labels, batches
        )
        tokens = batches * rows * (SOURCE + TARGET)
        what = f"update of {tokens:,} tokens in {batches} under {recipe}, {how}"
        trouble = ""
        try:
            step()
        except torch.OutOfMemoryError as error:
            trouble = first_line(error, 100)
        # Behind the except, within which the error holds the update's tensors. The next is smaller.
        if trouble:
            optimizer.zero_grad()
            torch.cuda.empty_cache()
            right = None
            if (rows, batches) == (5, 1):  # the smallest has to fit
                right = False
            place.tell(what, "memory for it", trouble, right)
            continue
        if not place.has_card:
            place.tell(what, "ms, tokens/s, GiB at most", NO_CARD)
            continue
        for _ in range(4):
            step()
        torch.cuda.reset_peak_memory_stats()
        seconds = mean_seconds(step, 10)
        peak = torch.cuda.max_memory_allocated() / GIB
        most = CALCULATED[recipe, rows] + TORCHS_OWN
        if batches > 1:
            most += GRADIENTS[recipe]
        found = f"{1000 * seconds:.1f} ms, {tokens / seconds:,.0f} tokens/s, {peak:.1f} GiB"
        place.tell(what, f"at most {most:.1f} GiB", found, peak < most)
        kernels = kernels_of(step, place.scratch / f"profile of an {what}.txt")
        found = f"{kernels.milliseconds:.1f} ms"
        place.tell(f"{what}: its kernels", "nearly as long", found)


def update_in_batches(model, weights, optimizer, scaler, batch, labels, batches):
    """An update of this batch, so many times; labels: of all of them together."""
    for _ in range(batches):
        with torch.autocast(batch.source.device.type, torch.bfloat16):
            loss, _ = train.task_loss(model, batch, labels)
        loss.backward()
    train.update(model, weights, optimizer, scaler, 0.1, 1)


@dataclass(frozen=True)
class Kernels:
    """What a call had the GPU do: for how long, and how many kernels and copies."""

    milliseconds: float
    count: int


def kernels_of(call, file):
    """The Kernels of a call; the file gets a table of those that took the longest."""
    with torch.profiler.profile() as profile:
        call()
    events = profile.key_averages()
    table = events.table(sort_by="self_device_time_total", row_limit=30)
    file.write_text(table, encoding="utf-8")
    # Their time stands a second time in the rows of the calls that launched them.
    on_gpu = [
        event for event in events
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]  # fmt: skip
    return Kernels(
        milliseconds=sum(event.self_device_time_total for event in on_gpu) / 1e3,
        count=sum(event.count for event in on_gpu),
    )


def mean_seconds(call, times):
    """The mean time of a call on the GPU."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / times


def decoding(place):
    """64 documents of 500 tokens into 64 new ones each, beam 5, in small and in large batches."""
    new = 64 if place.has_card else 4
    model = drawn(place).eval()
    source = drawn_documents(place, model)
    documents, length = source.shape
    for name in ("fp32", "bf16"):
        if name == "bf16":
            model.bfloat16()
        in_small = None  # seconds
        for rows in (documents // 4, documents):
            decode = partial(search_in_batches, model, source, rows, new, place.device)
            what = (
                f"{documents} documents of {length} tokens, {new} new ones each, in {name}, "
                f"{rows} at a time"
            )
            decode()
            if not place.has_card:
                place.tell(what, "large batches are faster", NO_CARD)
                continue
            seconds = mean_seconds(decode, 2)
            found = f"{seconds:.2f} s, {documents / seconds:.1f} documents/s"
            if rows < documents:
                place.tell(what, "", found)
                in_small = seconds
            else:
                place.tell(what, "faster than in small batches", found, seconds < in_small)


def drawn_documents(place, model):
    """Random tokens, 64 documents of 500, without a card 4 of 20: (documents, tokens)."""
    documents = 4
    length = 20
    if place.has_card:
        documents = 64
        length = 500
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.config.vocab_size
    return pad([random_ids(vocabulary, length, generator) for _ in range(documents)])


def search(model, source, new):
    """Beam search of so many new tokens, no fewer."""
    generate(model, source, model.config.vocab_size - 20, max_new_tokens=new, min_new_tokens=new)


def search_in_batches(model, source, rows, new, device):
    """search() of all documents, so many at a time."""
    for start in range(0, len(source), rows):
        search(model, source[start:start + rows].to(device), new)


def decoding_step(place):
    """A step of beam search with 64 documents of 500 tokens in one batch of bf16, and what of it
    are kernels: how much longer 32 new tokens take than 16, by the number of steps."""
    new = 32 if place.has_card else 4
    model = drawn(place).eval().bfloat16()
    source = drawn_documents(place, model).to(place.device)
    documents, length = source.shape
    found = []
    for count in (new // 2, new):
        decode = partial(search, model, source, count)
        decode()  # makes what is made once
        kernels = kernels_of(decode, place.scratch / f"profile of {count} steps.txt")
        seconds = mean_seconds(decode, 3) if place.has_card else math.nan
        found.append((1000 * seconds, kernels.milliseconds, kernels.count))
    what = f"a step of decoding {documents} documents of {length} tokens in bf16: its kernels"
    if not place.has_card:
        place.tell(what, "nearly as long", NO_CARD)
        return
    steps = new - new // 2
    whole, busy, count = [(long - short) / steps for short, long in zip(*found)]
    place.tell(what, "nearly as long", f"{busy:.2f} of {whole:.2f} ms, {count:.0f} kernels")


@dataclass(frozen=True)
class Check:
    """A check, and the seconds after which it is ended."""

    function: object
    limit: float


CHECKS = {
    "machine": Check(machine, 40),
    "calls": Check(calls, 30),
    "losses": Check(losses, 40),
    "loss-time": Check(loss_time, 60),
    "gradients": Check(gradients, 60),
    "outputs": Check(outputs, 90),
    "waits": Check(waits, 40),
    "training": Check(training, 150),
    "two-processes": Check(two_processes, 150),
    "compiled": Check(compiled, 150),
    "real-size": Check(real_size, 200),
    "decoding": Check(decoding, 90),
    "decoding-step": Check(decoding_step, 60),
}
