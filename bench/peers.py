"""The two sides of a benchmark: our model and its peers on one random checkpoint, one batch, one option set.

bench/speed.py is the program; this file is what it measures.
"""
import copy
import re
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from generate import generate
from model import Config, MBart
from plumbing.files import UserError
from plumbing.packed import pack_for_decoding
from qk_finetune import add_lora, apply_recipe

WIDTH = {"A": (250_027, 1024, 2, 16, 4096), "B": (8_000, 256, 4, 4, 1024), "large": (250_027, 1024, 12, 16, 4096)}
ROWS = {"A": 8, "B": 16, "large": 32}  # sequences in a training batch
SENTENCES, BEAM, NEW = 8, 5, 64  # in a decoding batch


def shape(name):
    vocab, d, layers, heads, ffn = WIDTH[name]
    both = {f"{side}_{key}": value for side in ("encoder", "decoder")
            for key, value in (("layers", layers), ("attention_heads", heads), ("ffn_dim", ffn))}
    return {"vocab_size": vocab, "d_model": d, "scale_embedding": True, **both}


def pair(name, folder, device, sharp=False):
    """(ours, transformers' model) from one random checkpoint, without dropout. sharp: larger weights, to decode: a
    freshly drawn model only repeats its last token."""
    from transformers import MBartConfig, MBartForConditionalGeneration
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        peer = MBartForConditionalGeneration(MBartConfig(
            **shape(name), max_position_embeddings=1024, dropout=0.0, attention_dropout=0.0, normalize_before=True))
        with torch.no_grad():
            for key, weight in peer.named_parameters() if sharp else ():
                if "layers" in key and weight.dim() == 2:
                    weight *= (3 if name == "B" else 2) * (3 if re.search("[qk]_proj", key) else 1)
                if "embed_positions" in key:
                    weight *= 30
        peer.save_pretrained(folder)
    peer = MBartForConditionalGeneration.from_pretrained(folder, attn_implementation="sdpa")
    return MBart.from_pretrained(folder).to(device), peer.to(device)


def texts(vocab, lengths, generator):
    """(rows, longest) random ids of these lengths, padded right."""
    ids = torch.randint(4, vocab - 100, (len(lengths), int(lengths.max())), generator=generator)
    return ids.masked_fill(torch.arange(ids.size(1)) >= lengths[:, None], 1)


def training_batches(name, count, device):
    """(source, decoder input, labels): sources of 60 to 240 tokens, targets of 15 to 60, as they come."""
    generator, vocab, found = torch.Generator().manual_seed(1), WIDTH[name][0], []
    for _ in range(count):
        source, labels = (texts(vocab, torch.randint(low, high + 1, (ROWS[name],), generator=generator), generator)
                          for low, high in ((60, 240), (15, 60)))
        start = labels.gather(1, (labels != 1).sum(1, keepdim=True) - 1)
        shifted = torch.cat([start, labels[:, :-1]], 1).masked_fill(labels == 1, 1)
        found.append(tuple(x.to(device) for x in (source, shifted, labels)))
    return found


def our_loss(model, batch):
    return model.loss(*batch)


def peer_loss(model, batch):
    source, decoder_input, labels = batch
    return model(input_ids=source, attention_mask=(source != 1).long(), decoder_input_ids=decoder_input,
                 labels=labels.masked_fill(labels == 1, -100)).loss


def autocast(device):
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def stepper(model, loss, batches, device, **adamw):
    """One call is one training step on the next batch."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-5, **adamw)
    state = {"i": 0}

    def step():
        with autocast(device):
            value = loss(model, batches[state["i"] % len(batches)])
        value.backward()
        optimizer.step()
        (model if isinstance(model, MBart) else optimizer).zero_grad()
        state["i"] += 1
        if device.type == "cuda":
            torch.cuda.synchronize()
    return step


def same_gradients(ours, peer, batch):
    """Relative difference of the losses and the largest of any gradient; the keys' biases have none but noise."""
    a, b = our_loss(ours, batch), peer_loss(peer, batch)
    a.backward()
    b.backward()
    wanted = dict(peer.named_parameters())
    worst = max(((p.grad - wanted[key].grad).norm() / wanted[key].grad.norm()).item()
                for key, p in ours.named_parameters() if p.grad is not None and not key.endswith("k_proj.bias"))
    ours.zero_grad()
    peer.zero_grad()
    return abs(a.item() / b.item() - 1), worst


def take_turns(sides, rounds, label):
    """{name: seconds of each round}; every side runs once unmeasured, and the order turns round by round."""
    times = {name: [] for name in sides}
    for call in sides.values():
        call()
    names = list(sides)
    for i in tqdm(range(rounds), desc=label, leave=False):
        for name in names[i % len(names):] + names[:i % len(names)]:
            start = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - start)
    return times


def ratio(times, slow, fast="ours"):
    rounds = [a / b for a, b in zip(times[slow], times[fast])]
    return f"{statistics.median(rounds):.2f} [{min(rounds):.2f}–{max(rounds):.2f}]"


def rates(device):
    """(floating-point operations, bytes) a second: a product of 2048 x 2048 (GPU: 8192, bf16), a copy of 256 MiB."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32)
    b, c = torch.empty(2, 2**26, device=device)
    best = []
    for call in (lambda: a @ a, lambda: b.copy_(c)):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            torch.cuda.synchronize() if device.type == "cuda" else None
            times.append(time.perf_counter() - start)
        best.append(min(times))
    return 2 * n**3 / best[0], 2 * b.numel() * 4 / best[1]


def bench_train(name, recipe, rounds, device, scratch):
    ours, peer = pair(name, scratch / name, device)
    for model in (ours, peer):  # their parameters have the same names
        apply_recipe(model.train(), "full+embeddings" if recipe == "full" else recipe)
    batches = training_batches(name, 6, device)
    loss, gradient = same_gradients(ours, peer, batches[0])
    if loss > 1e-5 or gradient > 1e-3:
        raise UserError(f"the two sides do not compute the same: loss differs by {loss:.1e}, a gradient {gradient:.1e}")
    if device.type == "cuda":
        ours.compile_layers()
    sides = {"ours": stepper(ours, our_loss, batches, device, fused=True),
             "transformers": stepper(peer, peer_loss, batches, device, fused=True),
             "transformers, default AdamW": stepper(peer, peer_loss, batches, device)}
    with FlopCounterMode(display=False) as counter:
        sides["ours"]()
    times = take_turns(sides, rounds, f"training step {name}, {recipe}")
    limit = counter.get_total_flops() / rates(device)[0]
    middle = {side: statistics.median(seconds) for side, seconds in times.items()}
    tokens = statistics.mean((b[0] != 1).sum().item() + (b[2] != 1).sum().item() for b in batches)
    return {"seconds": middle, "ratio": {side: ratio(times, side) for side in list(times)[1:]},
            "limit": {side: limit / middle[side] for side in list(middle)[:2]}, "tokens/s": tokens / middle["ours"],
            "same": f"loss to {loss:.0e}, gradients to {gradient:.0e}"}


def convert(folder, out, vocab):
    """A CTranslate2 model of our checkpoint, whose pieces are named by their ids."""
    from ctranslate2.converters import transformers as converters

    class Pieces:
        bos_token, eos_token, unk_token, pad_token, unk_token_id, additional_special_tokens = (
            "<s>", "</s>", "<unk>", "<pad>", 3, [])

        def get_vocab(self):
            return {["<s>", "<pad>", "</s>", "<unk>"][i] if i < 4 else f"w{i}": i for i in range(vocab)}

    class Converter(converters.TransformersConverter):
        def load_tokenizer(self, *_, **__):
            return Pieces()

    if not (out / "model.bin").exists():
        Converter(str(folder)).convert(str(out), force=True)


def bench_decode(name, rounds, device, scratch):
    ours, peer = pair(name, scratch / f"{name}-sharp", device, sharp=True)
    ours.eval()
    peer.eval()
    if device.type == "cuda":
        ours.bfloat16()
        peer.bfloat16()
    vocab, lang = WIDTH[name][0], WIDTH[name][0] - 20
    lengths = torch.linspace(60, 240, SENTENCES).long()
    source = texts(vocab, lengths, torch.Generator().manual_seed(2)).to(device)

    rounded = copy.deepcopy(ours)
    pack_for_decoding(rounded, int8=True)

    def by_us(model=ours):
        return generate(model, source, lang, beam=BEAM, max_new_tokens=NEW, min_new_tokens=NEW)

    def by_transformers():
        with torch.inference_mode():
            rows = peer.generate(source, attention_mask=(source != 1).long(), num_beams=BEAM, max_new_tokens=NEW,
                                 min_new_tokens=NEW, decoder_start_token_id=lang, forced_eos_token_id=None,
                                 length_penalty=1.0, early_stopping=False)
        return [row[1:].tolist() for row in rows]

    def by_us_int8():
        return by_us(rounded)

    sides = {"ours": by_us, "transformers": by_transformers}
    if device.type == "cpu":
        import ctranslate2
        convert(scratch / f"{name}-sharp", scratch / f"{name}-ctranslate2", vocab)
        words = [[f"w{i}" for i in row if i != 1] for row in source.tolist()]

        def by_ctranslate2(kind):
            translator = ctranslate2.Translator(str(scratch / f"{name}-ctranslate2"), compute_type=kind,
                                                intra_threads=torch.get_num_threads(), inter_threads=1)
            return lambda: [[int(word[1:]) for word in found.hypotheses[0]] for found in translator.translate_batch(
                words, target_prefix=[[f"w{lang}"]] * len(words), beam_size=BEAM, max_decoding_length=NEW,
                min_decoding_length=NEW, max_input_length=0, max_batch_size=SENTENCES)]
        sides |= {"CTranslate2 float32": by_ctranslate2("float32"), "ours int8": by_us_int8,
                  "CTranslate2 int8": by_ctranslate2("int8")}
    expected = by_us()
    same = {side: sum(a == b for a, b in zip(expected, call())) for side, call in list(sides.items())[1:]}
    if device.type == "cpu" and same["transformers"] < SENTENCES:
        raise UserError(f"only {same['transformers']} of {SENTENCES} outputs equal transformers'")
    times = take_turns(sides, rounds, f"decoding {name}")
    middle = {side: statistics.median(seconds) for side, seconds in times.items()}
    weights = WIDTH[name][0] * WIDTH[name][1] + sum(p.numel() for p in ours.model.decoder.layers.parameters())
    flops, bandwidth = rates(device)
    limit = NEW * max(2 * weights * SENTENCES * BEAM / flops,
                      next(ours.parameters()).itemsize * weights / bandwidth)
    ratios = {side: ratio(times, side) for side in ("transformers", "CTranslate2 float32") if side in times}
    if "ours int8" in times:
        middle["transformers against our int8"] = middle["transformers"]
        ratios["CTranslate2 int8"] = f"{ratio(times, 'CTranslate2 int8', 'ours int8')} of our int8"
        ratios["transformers against our int8"] = ratio(times, "transformers", "ours int8")
    return {"seconds": middle, "ratio": ratios,
            "limit": {side: limit / seconds for side, seconds in middle.items() if "int8" not in side},
            "same": ", ".join(f"{side} {count} of {SENTENCES} outputs" for side, count in same.items())}


def one_step(where, recipe, who):
    """Some training steps of one side in this process; returns its peak memory in bytes. where: a checkpoint's folder,
    or the config.json of a model that is drawn here (then `who` is a number of sequences of 128 + 32 tokens)."""
    torch.set_num_threads(1)
    loss = our_loss
    if who.isdecimal():
        model = MBart(Config.read(where) if where else Config())
        source, target = (torch.randint(4, model.config.vocab_size, (int(who), length)) for length in (128, 32))
        batches = [(source, target, target)]
    elif who == "ours":
        model = MBart.from_pretrained(where)
    else:
        from transformers import MBartForConditionalGeneration
        model, loss = MBartForConditionalGeneration.from_pretrained(where, attn_implementation="sdpa"), peer_loss
    if not who.isdecimal():
        batches = training_batches("A", 6, torch.device("cpu"))
    if recipe == "lora":
        add_lora(model)
    apply_recipe(model, recipe)
    step = stepper(model.train(), loss, batches, torch.device("cpu"), fused=True)
    for _ in range(3):
        step()
    # Not getrusage's figure: that starts at the size of the process that started this one.
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def bench_memory(name, recipe, scratch):
    pair(name, scratch / name, torch.device("cpu"))
    peaks = {}
    for who in ("ours", "transformers"):
        peaks[who] = peak_of_a_step(scratch / name, "full+embeddings" if recipe == "full" else recipe, who)
    return {"bytes": peaks}


def peak_of_a_step(where, recipe, who):
    """one_step() in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bench.peers", where, recipe, who], cwd=Path(__file__).resolve().parent.parent,
                          capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"the step in its own process failed: {done.stderr[-500:]}")
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    print(one_step(*sys.argv[1:]))
