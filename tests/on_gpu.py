"""What tests/test_gpu.py has computed on the pretended GPU, in a process of its own:

    python tests/on_gpu.py MODEL FOLDER     writes FOLDER/found.json

Every check computes once on the CPU and once on the GPU, and returns how far apart they are and
what was counted; the tests say what that must be. A check that raises leaves its traceback.
"""
# ruff: noqa: E402 (the GPU must be there before torch is)
import copy
import csv
import json
import sys
import traceback
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
import pretended_gpu as gpu  # before torch

gpu.plug_in()

import torch

import eval as evaluation
import train
from adversarial import Adversary
from align import alignment_loss
from data import Example, ParallelExample, collate
from eval import Decoder, batch_sizes, decode
from generate import generate, projection_of
from model import MBart
from plumbing import graphs
from qk_finetune import FrozenInHalf, add_lora, apply_recipe
from tokenizer import Tokenizer

LANGS = ["en_XX", "es_XX"]
LENGTHS = (29, 21, 30, 11, 17)  # of a batch's sources; its targets are a third as long


def rows(vocabulary, seed=0):
    """Pairs of lists of ids, a source and a target."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for length in LENGTHS:
        ids = torch.randint(4, vocabulary - 30, (length + length // 3,), generator=generator)
        found.append((ids[:length].tolist(), ids[length:].tolist()))
    return found


def batch_of(model):
    examples = []
    for number, (source, labels) in enumerate(rows(model.config.vocab_size)):
        lang = LANGS[number % len(LANGS)]
        examples.append(Example(source, [labels[-1], *labels[:-1]], labels, lang))
    return collate(examples)


def distance(one, two):
    """The largest relative distance of two models' gradients, tensor by tensor."""
    others = dict(two.named_parameters())
    largest = 0.0
    for name, parameter in one.named_parameters():
        there = others[name].grad
        assert (parameter.grad is None) == (there is None), name
        if parameter.grad is None or name.endswith("k_proj.bias"):  # whose gradient is noise
            continue
        there = gpu.value_of(there)
        away = (parameter.grad - there).norm() / parameter.grad.norm().clamp(min=1e-30)
        largest = max(largest, away.item())
    return largest


def compared(model, loss_of, dtype=None):
    """loss_of(model, device) with its gradients, on the CPU and on the GPU in arithmetic of dtype
    (None: float32): both losses, how far apart the gradients are, what was counted."""
    there = copy.deepcopy(model).to("cuda")
    losses = []
    for each, device in ((model, "cpu"), (there, "cuda")):
        with gpu.counted(), torch.autocast(device, dtype, enabled=dtype is not None):
            loss = loss_of(each, torch.device(device))
            loss.backward()
            counts = {"waits": dict(gpu.waits), "launches": sum(gpu.launches.values())}
        losses.append(loss.item())
    return {"losses": losses, "gradients": distance(model, there)} | counts


def start(folder, recipe="full+embeddings"):
    torch.manual_seed(0)
    model = MBart.from_pretrained(folder)
    model.config.dropout = 0.0
    model.config.attention_dropout = 0.0
    if recipe == "lora":
        add_lora(model, dropout=0.0)
        for name, parameter in model.named_parameters():
            if "lora_b" in name:
                parameter.data.normal_(std=0.01)
    apply_recipe(model.train(), recipe)
    return model


# -------------------------------------------------------------------------------- the checks

def loss(folder, scratch):
    """{recipe and type: what compared() finds} of the task's loss."""
    found = {}
    for recipe in ("full+embeddings", "full", "qk", "lora"):
        for dtype in (None, torch.bfloat16):
            model = start(folder, recipe)
            FrozenInHalf(model, dtype)
            batch = batch_of(model)

            def loss_of(each, device, batch=batch):
                value, _ = train.task_loss(each, batch.to(device), batch.target_tokens)
                return value

            name = "fp32" if dtype is None else "bf16"
            found[f"{recipe} {name}"] = compared(model, loss_of, dtype)
    return found


def adversary(folder, scratch):
    """A classifier's update, and the fooling loss with its gradients."""
    model = start(folder)
    batch = batch_of(model)
    classifiers = []

    def loss_of(each, device):
        classifier = Adversary("balanced", each.config.d_model, LANGS, 1e-3, 2, device, dropout=0.0)
        classifiers.append(classifier)
        classifier.update(each, [batch.to(device)])
        gpu.waits.clear()
        moved = batch.to(device)
        value, states = train.task_loss(each, moved, 1, with_states=True)
        return value + classifier.loss(states, moved)

    found = compared(model, loss_of)
    weights = [each.classifier.layers[0].weight.detach() for each in classifiers]
    found["classifier"] = (weights[0] - gpu.value_of(weights[1])).abs().max().item()
    found["accuracy"] = [each.accuracy() for each in classifiers]
    return found


def alignment(folder, scratch):
    model = start(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    examples = [ParallelExample(*sides) for sides in rows(model.config.vocab_size)]
    batch = collate(examples)

    def loss_of(each, device):
        return alignment_loss(each, batch.to(device), 2, tokenizer)

    return compared(model, loss_of)


def project_as_a_gpu(model, dtype):
    """Logits in float32 of states and a table in `dtype`. Rounded, as a CPU has them, those of
    close tokens are equal, and which of them a search takes is nobody's promise."""
    table = model.model.shared.weight.to(dtype).float()

    def project(states):
        with torch.autocast("cpu", enabled=False):
            return states.to(dtype).float() @ table.T

    model.project = project


def generation(folder, scratch):
    """Outputs of beam search on both devices, and what a step costs."""
    model = start(folder).eval()
    there = copy.deepcopy(model).to("cuda")
    source = batch_of(model).source
    langs = torch.arange(len(source)) + model.config.vocab_size - 20
    steps = 12
    found = {}
    for beam, dtype in ((1, None), (4, None), (4, torch.bfloat16)):
        options = {"beam": beam, "max_new_tokens": steps, "no_repeat_ngram": 2}
        options["min_new_tokens"] = steps
        if dtype is not None:
            project_as_a_gpu(model, dtype)
        outputs = []
        for each, device in ((model, "cpu"), (there, "cuda")):
            with gpu.counted(), torch.autocast(device, dtype, enabled=dtype is not None):
                ids = generate(each, source.to(device), langs.to(device), **options)
            outputs.append(ids)
        found[f"beam {beam}, {'fp32' if dtype is None else 'bf16'}"] = {
            "outputs": outputs,
            "launches a step": sum(gpu.launches.values()) / steps,
            "waits a step": sum(gpu.waits.values()) / steps,
            "waits": dict(gpu.waits),
        }
    return found


def leaving(folder, scratch):
    """What base/ writes of texts that end one after the other (it copies them), in both layouts,
    and what was counted meanwhile."""
    texts = [" ".join(["The teacher found a map."] * number) for number in range(1, 9)]
    found = {}
    for layout in ("mbart25", "mbart50"):
        outputs = []
        for device in ("cpu", "cuda"):
            decoder = Decoder(train.BASE, device, beam=3, max_new_tokens=60)
            decoder.model.config.learn_layout(layout)
            with gpu.counted():
                outputs.append(decoder(texts, "en_XX", "en_XX"))
        counts = {"launches": dict(gpu.launches), "waits": dict(gpu.waits)}
        found[layout] = {"outputs": outputs, **counts}
    assert graphs.latest == {}  # no memory is held
    return found


def graphed(folder, scratch):
    """What a LoRA in bf16 writes by graphs, and with every step launched by itself."""
    model = start(folder)
    add_lora(model)
    model = model.to("cuda", torch.bfloat16).eval()
    source = batch_of(model).source.to("cuda")

    def written():
        return generate(model, source, model.config.vocab_size - 20, beam=3, max_new_tokens=20)

    found = []
    with gpu.counted():
        found.append(written())
    count = gpu.launches["graph"]
    call = graphs.Recording.__call__
    graphs.Recording.__call__ = lambda self, function, x: function(x)
    found.append(written())
    graphs.Recording.__call__ = call
    return {"outputs": found, "graphs": count, "refused": refused()}


def refused():
    """What a recording says to a function that waits; then one that does not is recorded."""
    recording = graphs.Recording()
    x = torch.ones(2, device="cuda")
    said = ""
    recording(lambda x: x.sum().item(), x)
    try:
        recording(lambda x: x.sum().item(), x)
    except RuntimeError as error:
        said = str(error)
    twice = [recording(lambda x: x + x, x * number).tolist() for number in range(3)]

    def full(function, x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    record = graphs.recorded
    graphs.recorded = full
    recording.forget()
    twice += [recording(lambda x: x + x, x * number).tolist() for number in range(2)]
    graphs.recorded = record
    return [said, twice]


def test_set(folder, scratch):
    """eval.py's decoding of texts in batches."""
    tokenizer = Tokenizer.from_pretrained(folder)
    sources = [source for source, _ in rows(tokenizer.vocab_size, seed=1)]
    outputs = []
    for device in ("cpu", "cuda"):
        model = MBart.from_pretrained(folder).to(device)
        with mock.patch.multiple(evaluation, CPU_TOKENS=60, GPU_TOKENS=60):  # several batches
            outputs.append(decode(model, tokenizer, sources, "es_XX", beam=3, max_new_tokens=8))
    halved = Decoder(folder, "cuda", precision="bf16", beam=3, max_new_tokens=8)
    model = halved.model
    table = model.model.shared.weight
    states = torch.randn(6, table.size(1)).bfloat16()
    logits = projection_of(model)(states.to("cuda"))
    assert logits[:, len(table):].eq(-torch.inf).all()
    logits = logits[:, :len(table)]
    expected = states.float() @ table.cpu().float().T
    return {
        "outputs": outputs,
        "in bf16": halved([f"text {number}" for number in range(7)], "en_XX", "es_XX"),
        "logits": [str(logits.dtype), (logits.cpu() - expected).abs().max().item()],
        "batch sizes": batch_sizes(model, 5, 100),
    }


RUNS = {  # what is trained: train.py's options
    "full+embeddings": ("--stage", "translate", "--recipe", "full+embeddings"),
    "qk in bf16": ("--stage", "summarize", "--recipe", "qk", "--precision", "bf16", "--mix", 1),
    "fp16": ("--stage", "translate", "--recipe", "full+embeddings", "--precision", "fp16"),
    "adversary": ("--stage", "summarize", "--adversarial", "balanced", "--classifier-updates", 2),
    "alignment": ("--stage", "summarize", "--recipe", "lora", "--align-layer", 1),
}


def training(folder, scratch):
    """Three updates of train.py on both devices: {run: the lines of their logs}."""
    found = {}
    for name, words in RUNS.items():
        logs = []
        for device in ("cpu", "cuda"):
            out = scratch / f"{name} {device}"
            train_here(folder, out, device, words)
            logs.append(log_of(out))
        found[name] = logs
    return found


def update(folder, scratch):
    """How often train.py waits for the GPU in an update of two batches, from drawing them to the
    optimizer's step: the waits of six updates less those of three, by stage."""
    found = {}
    for stage, options in (("translate", ("--recipe", "qk")), ("align", ("--align-layer", 1))):
        counts = []
        for steps in (3, 6):
            with gpu.counted():
                words = ("--stage", stage, *options, "--steps", steps, "--eval-every", steps)
                train_here(folder, scratch / f"{stage} {steps}", "cuda", words)
            counts.append(dict(gpu.waits))
        three, six = counts
        found[stage] = {name: (six[name] - three.get(name, 0)) / 3 for name in six}
    return found


def resumed(folder, scratch):
    """The logs of a whole run, training()'s, and of one that was stopped and went on."""
    words = RUNS["full+embeddings"]
    try:
        train_here(folder, scratch / "cut", "cuda", (*words, "--stop-at", 2))
    except SystemExit:
        pass
    train.main(["--resume", str(scratch / "cut")])
    return [log_of(scratch / "full+embeddings cuda"), log_of(scratch / "cut")]


def train_here(folder, out, device, words):
    # Both devices are to make the same batches: a GPU would else put an update into one.
    common = (
        "--init", folder, "--out", out, "--device", device, "--langs", *LANGS, "--steps", 3,
        "--eval-every", 1, "--tokens", 200, "--accumulate", 2, "--valid-examples", 2, "--no-eval",
        "--dropout", 0, "--lora-dropout", 0, "--lr", 1e-2, "--warmup", 0,
    )
    precision = () if "--precision" in words else ("--precision", "fp32")
    train.main([str(word) for word in (*common, *words, *precision)])


def log_of(folder):
    """The losses of a run, and of its validations."""
    with open(folder / "log.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [[float(line["loss"]), float(line["validation loss"])] for line in lines]


def mixing(folder, scratch):
    """What the pretended GPU says to tensors of both devices."""
    try:
        torch.ones(3, device="cuda") + torch.ones(3)
    except RuntimeError as error:
        return str(error)


CHECKS = (
    loss, adversary, alignment, generation, leaving, graphed, test_set, training, update, resumed,
    mixing,
)


def main(folder, scratch):
    found = {}
    for check in CHECKS:
        try:
            found[check.__name__] = check(folder, scratch)
        except Exception:
            found[check.__name__] = traceback.format_exc()
    (scratch / "found.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
