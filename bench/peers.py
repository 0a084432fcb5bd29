"""The two sides of a benchmark: our model and its peers on one random checkpoint and one data set.

bench/speed.py is the program; this file is what it measures. bench/pipeline.py and bench/cost.py
measure with parts of it.

TRAINING  Both sides train on the same examples, each through its own pipeline. Ours sorts them by
          length and cuts batches by a budget of padded tokens (data.batches_of_like_length);
          transformers' sorts them by length too (group_by_length) and takes a fixed number of
          sequences, padded to the longest. Both take the same number of updates; compared is the
          time for all the examples.
DECODING  Both sides decode the same sentences with the same options.
"""
import importlib
import math
import os
import re
import statistics
import tempfile
import time
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from data import Example, batches_of_like_length, collate, pad
from generate import generate
from model import MBart
from plumbing.files import UserError, make_folder
from plumbing.packed import pack_for_decoding
from plumbing.progress import progress_line
from qk_finetune import FrozenInHalf, add_lora, apply_recipe
from tokenizer import PAD, SPECIALS, UNK, shifted


@dataclass(frozen=True)
class Shape:
    """A model's size, and how many sequences the peer trains on at a time."""

    vocabulary: int
    width: int
    layers: int  # of the encoder, and of the decoder
    heads: int
    ffn: int
    batch: int


SHAPES = {
    "A": Shape(vocabulary=250_027, width=1024, layers=2, heads=16, ffn=4096, batch=8),
    "B": Shape(vocabulary=8_000, width=256, layers=4, heads=4, ffn=1024, batch=16),
    "large": Shape(vocabulary=250_027, width=1024, layers=12, heads=16, ffn=4096, batch=32),
}
RECIPE_OF = {"full": "full+embeddings", "qk": "qk"}  # {a row's name for it: the recipe that trains}
UPDATES = 6  # in a pass over the training examples
SOURCE_LENGTHS = (60, 240)
TARGET_LENGTHS = (15, 60)
SENTENCES = 8  # in a decoding batch
BEAM = 5
NEW_TOKENS = 64
TABLE_RECIPES = ("full+embeddings", "full", "qk", "lora")  # recipes of tables that time nothing
FIRST_TOKEN = len(SPECIALS)  # ids below are <s>, <pad>, </s> and <unk>
TAGS = 100  # ids at the end, for language tags


def peer(module):
    """A library to compare with."""
    try:
        return importlib.import_module(module)
    except ImportError:
        library = module.split(".")[0]
        raise UserError(
            f"{library} is not installed, and the benchmark compares with it: run the README's "
            "test command, which installs it, and start the benchmark with .venv-dev/bin/python"
        ) from None


# ---------------------------------------------------------------------------------- both sides


def both_models(name, folder, device, sharp=False):
    """(ours, transformers' model) from one random checkpoint, without dropout.

    sharp: larger weights, to decode: a freshly drawn model only repeats its last token."""
    transformers = peer("transformers")
    write_checkpoint(name, folder, sharp)
    ours = MBart.from_pretrained(folder)
    theirs = transformers.MBartForConditionalGeneration.from_pretrained(
        folder, attn_implementation="sdpa"
    )
    return ours.to(device), theirs.to(device)


def trained_by(model, recipe):
    """Marks what a recipe trains, LoRA's matrices added; returns these weights."""
    if recipe == "lora":
        add_lora(model)
    apply_recipe(model, recipe)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def sizes_of(shape):
    """A shape as the configs of both sides have it, without dropout."""
    return {
        "vocab_size": shape.vocabulary,
        "d_model": shape.width,
        "encoder_layers": shape.layers,
        "decoder_layers": shape.layers,
        "encoder_attention_heads": shape.heads,
        "decoder_attention_heads": shape.heads,
        "encoder_ffn_dim": shape.ffn,
        "decoder_ffn_dim": shape.ffn,
        "dropout": 0.0,
        "attention_dropout": 0.0,
    }


@contextmanager
def filling(folder):
    """A temporary folder to write into; its files get to `folder` once all of them are whole."""
    make_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        yield Path(temporary)
        for path in Path(temporary).iterdir():
            os.replace(path, folder / path.name)


def write_checkpoint(name, folder, sharp=False):
    """Writes a random checkpoint of a shape, unless it is there."""
    if all((folder / file).exists() for file in ("config.json", "model.safetensors")):
        return
    transformers = peer("transformers")
    shape = SHAPES[name]
    config = transformers.MBartConfig(
        **sizes_of(shape),
        max_position_embeddings=1024,
        scale_embedding=True,
        normalize_before=True,
    )
    torch.manual_seed(0)
    model = transformers.MBartForConditionalGeneration(config)
    if sharp:
        sharpen(model, 3 if name == "B" else 2)
    with filling(folder) as temporary:
        model.save_pretrained(temporary)


@torch.no_grad()
def sharpen(model, factor):
    for name, weight in model.named_parameters():
        if "layers" in name and weight.dim() == 2:
            weight *= factor
            if re.search("[qk]_proj", name):
                weight *= 3
        if "embed_positions" in name:
            weight *= 30


def random_ids(vocabulary, length, generator):
    """A list of random tokens."""
    ids = torch.randint(FIRST_TOKEN, vocabulary - TAGS, (length,), generator=generator)
    return ids.tolist()


def in_turns(sides, rounds, label):
    """{name: what its call returned in each round}; sides: {name: what to call}. Their order turns
    each round."""
    returned = {name: [] for name in sides}
    names = list(sides)
    with progress_line(title=label, total=rounds * len(names), unit="turn") as bar:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                returned[name].append(sides[name]())
                bar.update()
    return returned


def take_turns(sides, rounds, label):
    """{name: seconds of each round}; sides: {name: what to time}."""
    return in_turns({name: partial(seconds_of, sides[name]) for name in sides}, rounds, label)


def seconds_of(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def ratio(seconds, slow, fast="ours"):
    """One side's time divided by another's, round by round, in words."""
    return spread([a / b for a, b in zip(seconds[slow], seconds[fast])], ".2f")


def spread(values, form):
    """Median [lowest–highest] of some rounds, or the one value that there is; form: of a number, as
    format() takes it."""
    if len(values) == 1:
        return f"{values[0]:{form}}"
    return f"{statistics.median(values):{form}} [{min(values):{form}}–{max(values):{form}}]"


def largest(values):
    """The largest of some numbers; NaN if any of them is, which max() may pass over."""
    values = list(values)
    if any(math.isnan(value) for value in values):
        return math.nan
    return max(values)


def shares(limit, seconds):
    """The share of each round's time that `limit`, in seconds, is."""
    return [limit / value for value in seconds]


@dataclass(frozen=True)
class Rates:
    """What a machine does in a second: floating-point operations of a product, bytes copied."""

    products: float
    copies: float


def rates(device):
    """Rates: of a product of 2048 x 2048 (GPU: 8192, bf16), of a copy of 256 MiB; best of five."""
    size = 2048
    dtype = torch.float32
    if device.type == "cuda":
        size = 8192
        dtype = torch.bfloat16
    matrix = torch.randn(size, size, device=device, dtype=dtype)
    source, target = torch.empty(2, 2**26, device=device)

    def product():
        return matrix @ matrix

    def copy():
        return target.copy_(source)

    return Rates(
        products=2 * size**3 / shortest(product, device),
        copies=2 * source.nbytes / shortest(copy, device),
    )


def shortest(call, device):
    """Seconds of the fastest of five calls."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        call()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------- training


def training_examples(name):
    """Random examples as they come, UPDATES times the peer's batch of them."""
    shape = SHAPES[name]
    return random_examples(shape.vocabulary, UPDATES * shape.batch)


def random_examples(vocabulary, count):
    generator = torch.Generator().manual_seed(1)
    examples = []
    for _ in range(count):
        source = random_ids(vocabulary, random_length(SOURCE_LENGTHS, generator), generator)
        labels = random_ids(vocabulary, random_length(TARGET_LENGTHS, generator), generator)
        examples.append(example_of(source, labels))
    return examples


def example_of(source, labels):
    """An Example of ids."""
    return Example(source, shifted(labels), labels, source_lang="")


def random_length(limits, generator):
    low, high = limits
    return int(torch.randint(low, high + 1, (), generator=generator))


def our_batches(examples, updates):
    """As train.py cuts them, with the smallest budget of padded tokens that makes no more batches
    than `updates`: both sides then take as many steps of the optimizer."""
    budget = sum(example.length for example in examples) // updates
    while len(batches_of_like_length(examples, budget)) > updates:
        budget += 1
    return [collate(rows) for rows in batches_of_like_length(examples, budget)]


def peer_batches(examples, size):
    """As transformers' Trainer groups them by length. It sorts at most 50 batches at a time, here
    all of them: as much as it can do."""
    trainer = peer("transformers.trainer_pt_utils")
    order = trainer.get_length_grouped_indices(
        [len(example.source) for example in examples],
        size,
        mega_batch_mult=-(-len(examples) // size),
        generator=torch.Generator().manual_seed(0),
    )
    batches = []
    for start in range(0, len(order), size):
        batches.append(collate([examples[index] for index in order[start:start + size]]))
    return batches


def our_loss(model, batch):
    return model.loss(batch.source, batch.decoder_input, batch.labels)


def peer_loss(model, batch):
    outputs = model(
        input_ids=batch.source,
        attention_mask=(batch.source != PAD).long(),
        decoder_input_ids=batch.decoder_input,
        labels=batch.labels.masked_fill(batch.labels == PAD, -100),
    )
    return outputs.loss


def autocast(device):
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return nullcontext()


def addmm_flops(total, a, b, *_, out_shape=None, **__):
    """Of the shapes of addmm's tensors. Torch's own formula knows neither the type of the output,
    which the loss gives on a GPU, nor addmm in place, which it takes on a CPU."""
    rows, inner = a
    return 2 * rows * inner * b[1]


def attention_flops(query, key, value, *_, out_shape=None, **__):
    """Of the shapes of attention's tensors: scores, and values by their weights. Torch knows a
    GPU's kernels alone: without this a floor on a CPU would leave attention out."""
    return sdpa_flop_count(query, key, value)


def attention_backward_flops(out_gradient, query, key, value, *_, out_shape=None, **__):
    """The same of its gradients: five products, for the scores are computed once more."""
    return sdpa_backward_flop_count(out_gradient, query, key, value)


FLOPS_OF = {  # where torch's own formula is missing or stops
    torch.ops.aten.addmm: addmm_flops,
    torch.ops.aten.addmm_: addmm_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


class Training:
    """One side of a training row: a model that is trained on its batches, pass after pass."""

    def __init__(self, model, loss, batches, device, **adamw):
        self.model = model
        self.loss = loss
        self.batches = [batch.to(device) for batch in batches]
        self.device = device
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, 1e-5, **adamw)

    def gradients(self, batch):
        with autocast(self.device):
            loss = self.loss(self.model, batch)
        loss.backward()

    def update(self, batch):
        self.gradients(batch)
        self.optimizer.step()
        self.model.zero_grad()

    def whole_pass(self):
        for batch in self.batches:
            self.update(batch)
        synchronize(self.device)

    def flops(self):
        """Floating-point operations of the matrix products in a pass, attention's among them. To be
        counted before the layers are compiled: torch never compiles again what first ran under its
        counter."""
        with FlopCounterMode(display=False, custom_mapping=FLOPS_OF) as counter:
            for batch in self.batches:
                self.gradients(batch)
                self.model.zero_grad()
        return counter.get_total_flops()

    def warm_up(self):
        """What only a first update does: AdamW's moments, and on a GPU kernels for every shape."""
        self.update(self.batches[0])
        if self.device.type == "cuda":
            self.whole_pass()


def compiles(device):
    """Is ours measured with --compile too? On a CPU it does not pay."""
    return device.type == "cuda"


def bench_train(name, recipe, rounds, device, scratch):
    """A training row: seconds of a pass over the examples, ratios, shares of the limit."""
    ours, theirs = both_models(name, scratch / name, device)
    for model in (ours, theirs):  # their parameters have the same names
        apply_recipe(model.train(), RECIPE_OF[recipe])
    size = SHAPES[name].batch
    examples = training_examples(name)
    same = compare_gradients(ours, theirs, collate(examples[:size]).to(device))

    if device.type == "cuda":
        FrozenInHalf(ours, torch.bfloat16)  # as train.py does
    grouped = peer_batches(examples, size)
    cut_by_tokens = our_batches(examples, len(grouped))
    sides = {
        "ours": Training(ours, our_loss, cut_by_tokens, device, fused=True),
        "transformers": Training(theirs, peer_loss, grouped, device, fused=True),
        "transformers, default AdamW": Training(theirs, peer_loss, grouped, device),
    }
    flops = sides["ours"].flops()
    if compiles(device):
        ours = deepcopy(ours)
        ours.compile_layers()
        sides["ours, compiled"] = Training(ours, our_loss, cut_by_tokens, device, fused=True)
    for training in sides.values():
        training.warm_up()
    passes = {side: training.whole_pass for side, training in sides.items()}
    seconds = take_turns(passes, rounds, f"training {name}, {recipe}")

    measured = rates(device)
    limit = flops / measured.products
    return {
        "seconds": seconds,
        "ratio": {side: ratio(seconds, side) for side in sides if side != "ours"},
        "limit": {side: shares(limit, seconds[side]) for side in ("ours", "transformers")},
        "rates": asdict(measured),
        "same": same,
    }


def compare_gradients(ours, theirs, batch):
    """How equal the sides are on one batch, in words; UserError if they do not compute the same."""
    our_value = our_loss(ours, batch)
    peer_value = peer_loss(theirs, batch)
    our_value.backward()
    peer_value.backward()
    loss_distance = abs(our_value.item() / peer_value.item() - 1)
    wanted = dict(theirs.named_parameters())
    distances = []
    for name, parameter in ours.named_parameters():
        if parameter.grad is None or name.endswith("k_proj.bias"):  # whose gradient is only noise
            continue
        expected = wanted[name].grad
        away = (parameter.grad - expected).norm() / expected.norm()
        distances.append(away.item())
    gradient_distance = largest(distances)
    ours.zero_grad()
    theirs.zero_grad()
    if not (loss_distance <= 1e-5 and gradient_distance <= 1e-3):  # so, NaN is refused too
        raise UserError(
            f"the two sides do not compute the same: loss differs by {loss_distance:.1e}, a "
            f"gradient {gradient_distance:.1e}"
        )
    return f"loss to {loss_distance:.0e}, gradients to {gradient_distance:.0e}"


# ---------------------------------------------------------------------------------- decoding


def by_us(model, source, lang):
    """Our beam search: source (N, S) -> N lists of ids."""
    return generate(
        model,
        source,
        lang,
        beam=BEAM,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
    )


@torch.inference_mode()
def by_transformers(model, source, lang):
    rows = model.generate(
        source,
        attention_mask=(source != PAD).long(),
        num_beams=BEAM,
        max_new_tokens=NEW_TOKENS,
        min_new_tokens=NEW_TOKENS,
        decoder_start_token_id=lang,
        forced_eos_token_id=None,
        length_penalty=1.0,
        early_stopping=False,
    )
    return [row[1:].tolist() for row in rows]


def by_ctranslate2(translator, source, lang):
    pieces = []
    for row in source.tolist():
        pieces.append([piece_name(token) for token in row if token != PAD])
    found = translator.translate_batch(
        pieces,
        target_prefix=[[piece_name(lang)]] * len(pieces),
        beam_size=BEAM,
        max_decoding_length=NEW_TOKENS,
        min_decoding_length=NEW_TOKENS,
        max_input_length=0,
        max_batch_size=SENTENCES,
    )
    return [[int(word[1:]) for word in sentence.hypotheses[0]] for sentence in found]


def translator_of(folder, kind):
    """CTranslate2's model in float32 or int8."""
    return peer("ctranslate2").Translator(
        str(folder),
        compute_type=kind,
        intra_threads=torch.get_num_threads(),
        inter_threads=1,
    )


def piece_name(token):
    """CTranslate2 wants pieces: ours are named by their ids."""
    if token < len(SPECIALS):
        return SPECIALS[token]
    return f"w{token}"


def convert(folder, out, vocabulary):
    """Writes a CTranslate2 model of our checkpoint."""
    converters = peer("ctranslate2.converters.transformers")

    class Pieces:
        """What the converter asks of a tokenizer."""

        bos_token = "<s>"
        pad_token = "<pad>"
        eos_token = "</s>"
        unk_token = "<unk>"
        unk_token_id = UNK
        additional_special_tokens = []

        def get_vocab(self):
            return {piece_name(token): token for token in range(vocabulary)}

    class Converter(converters.TransformersConverter):
        def load_tokenizer(self, *_, **__):
            return Pieces()

    if not (out / "model.bin").exists():
        with filling(out) as temporary:
            Converter(str(folder)).convert(str(temporary), force=True)


def int8_twin(model):
    """A model on the same weights that decodes with its large ones rounded to 8 bits."""
    with torch.device("meta"):
        twin = MBart(model.config)
    twin.load_state_dict(model.state_dict(), assign=True)
    pack_for_decoding(twin, int8=True)
    return twin.eval()


def decoding_source(vocabulary):
    """(SENTENCES, longest) random sentences from the shortest to the longest."""
    generator = torch.Generator().manual_seed(2)
    lengths = torch.linspace(*SOURCE_LENGTHS, SENTENCES).long().tolist()
    return pad([random_ids(vocabulary, length, generator) for length in lengths])


def bench_decode(name, rounds, device, scratch):
    """A decoding row: seconds for all sentences, ratios, shares of the limit."""
    folder = scratch / f"{name}-sharp"
    ours, theirs = both_models(name, folder, device, sharp=True)
    for model in (ours, theirs):
        model.eval()
    vocabulary = SHAPES[name].vocabulary
    lang = vocabulary - 20
    source = decoding_source(vocabulary).to(device)

    sides = {
        "ours": partial(by_us, ours, source, lang),
        "transformers": partial(by_transformers, theirs, source, lang),
    }
    if device.type == "cpu":
        converted = scratch / f"{name}-ctranslate2"
        convert(folder, converted, vocabulary)
        in_float32 = translator_of(converted, "float32")
        in_int8 = translator_of(converted, "int8")
        sides["CTranslate2 float32"] = partial(by_ctranslate2, in_float32, source, lang)
        sides["ours int8"] = partial(by_us, int8_twin(ours), source, lang)
        sides["CTranslate2 int8"] = partial(by_ctranslate2, in_int8, source, lang)

    same = equal_outputs(sides)  # every side has then run once, unmeasured
    if device.type == "cuda":  # which decodes in bf16, and would round nearly equal tokens
        ours.bfloat16()
        theirs.bfloat16()
        equal_outputs(sides)
    elif same["transformers"] < SENTENCES:
        raise UserError(
            f"only {same['transformers']} of {SENTENCES} outputs equal transformers'"
        )
    seconds = take_turns(sides, rounds, f"decoding {name}")
    parts = [f"{side} {count} of {SENTENCES} outputs" for side, count in same.items()]
    measured = rates(device)
    found = decoding_row(seconds, decoding_limit(ours, measured))
    return found | {"rates": asdict(measured), "same": ", ".join(parts)}


def equal_outputs(sides):
    """{side: how many of its outputs equal ours}"""
    expected = sides["ours"]()
    same = {}
    for side, decode in sides.items():
        if side != "ours":
            same[side] = sum(a == b for a, b in zip(expected, decode()))
    return same


def decoding_limit(model, machine):
    """Seconds for NEW_TOKENS positions: of the products with the matrices that every position uses,
    at the rate of a large product, or of reading these once a position, whichever is longer.

    Left out are the encoder and cross-attention's keys and values, which are computed once a
    sentence, and attention itself."""
    weights = model.model.shared.weight.numel()
    for name, parameter in model.model.decoder.layers.named_parameters():
        is_once = re.search(r"encoder_attn\.[kv]_proj", name)
        if parameter.dim() == 2 and not is_once:
            weights += parameter.numel()
    bytes_each = model.model.shared.weight.itemsize
    products = 2 * weights * SENTENCES * BEAM / machine.products
    reading = weights * bytes_each / machine.copies
    return NEW_TOKENS * max(products, reading)


def decoding_row(seconds, limit):
    """Int8 is compared with int8; transformers, which has none, also with our int8."""
    ratios = {"transformers": ratio(seconds, "transformers")}
    limits = {}
    for side, rounds in seconds.items():
        if "int8" not in side:
            limits[side] = shares(limit, rounds)
    if "ours int8" in seconds:
        ratios["CTranslate2 float32"] = ratio(seconds, "CTranslate2 float32")
        against = ratio(seconds, "CTranslate2 int8", "ours int8")
        ratios["CTranslate2 int8"] = f"{against} of our int8"
        seconds = seconds | {"transformers against our int8": seconds["transformers"]}
        ratios["transformers against our int8"] = ratio(seconds, "transformers", "ours int8")
    return {"seconds": seconds, "ratio": ratios, "limit": limits}
