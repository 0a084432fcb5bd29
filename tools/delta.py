"""Deltas: a finetuned model stored as only what trained, put back on its base, merged with others, and weighed.

    python -m tools.delta save runs/summarize base qk.delta          what the run changed, as one safetensors file
    python -m tools.delta apply base qk.delta runs/again             the base with it, a model folder again
    python -m tools.delta merge base runs/both a.delta=0.5 b.delta=0.5
                                W = W_base + sum_i weight_i (W_i - W_base)    (Liu and Niehues 2025, section 5)
    python -m tools.delta graft BODY DONOR src OUT                   BODY with DONOR's embeddings and vocabulary on one side
                                (src or tgt): the parent's own put back in a child, or two children stitched together
    python -m tools.delta sizes base                                 bytes on disk for every recipe, here and at mBART-large's

A delta names the base it belongs to by a fingerprint of all its tensors and is refused on any other.
"""
import argparse
import hashlib
import re
import shutil
from pathlib import Path

import torch

from model import Config, MBart
from plumbing.files import UserError, run, saving, write_text
from plumbing.weights import read_safetensors, write_tensors
from qk_finetune import RECIPES, SIDES, add_lora, apply_recipe, new_language
from tokenizer import SOURCE_FILE, Tokenizer

VOCABULARIES, FILE = ("sentencepiece.bpe.model", SOURCE_FILE), "file: "  # their bytes as a tensor of this name


def fingerprint(state):
    """A short digest of every tensor's name, shape and bytes ({name: tensor}, contiguous on the CPU)."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)} ".encode())
        digest.update(state[name].detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def save_delta(state, base, path, **metadata):
    """Writes the tensors of `state` that `base` ({name: tensor}, both) has with another value or shape, or lacks;
    metadata: texts to go with them."""
    changed = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()
               if name not in base or base[name].shape != tensor.shape or not torch.equal(base[name], tensor)}
    if not changed:
        raise UserError(f"{path}: not written, for the model is the base, tensor for tensor")
    write_tensors(changed, path, base=fingerprint(base), **metadata)
    return changed


def load_delta(path, base):
    """{name: tensor} of a delta; UserError if it is damaged or was made from another base."""
    return read_delta(path, base)[0]


def read_delta(path, base):
    """load_delta()'s tensors, and the texts that save_delta() put with them."""
    tensors, metadata = read_safetensors(path)
    made_from, own = metadata.get("base"), fingerprint(base)
    if made_from is None:
        raise UserError(f"{path}: is a safetensors file but no delta; `python -m tools.delta save` writes one")
    if made_from != own:
        raise UserError(f"{path}: was made from another base (its fingerprint is {made_from}, this one's {own})")
    return tensors, metadata


def merge_deltas(base, deltas, weights):
    """base + the weighted sum of what each delta changes in it; a float tensor that only some deltas have moves by
    theirs alone. Deltas whose tensors have other shapes than the base's (a new vocabulary) cannot be merged."""
    merged = {name: tensor.clone() for name, tensor in base.items()}
    for delta, weight in zip(deltas, weights):
        for name, tensor in delta.items():
            if name not in base or base[name].shape != tensor.shape:
                raise UserError(f"{name} has another shape than the base's: new vocabularies cannot be merged")
            merged[name] += weight * (tensor - base[name])
    return merged


def write_model(base_folder, tensors, out, residual_drop_layer=None):
    """A model folder: the base's files with these tensors in place of its own."""
    config = Config.read(Path(base_folder) / "config.json")
    config.vocab_size = tensors["model.shared.weight"].size(0)  # trimmed, or a new language's
    if "model.encoder.embed_tokens.weight" in tensors:  # a new language: one side has a vocabulary of its own
        config.source_vocab_size = tensors["model.encoder.embed_tokens.weight"].size(0)
    config.residual_drop_layer = residual_drop_layer or config.residual_drop_layer
    with torch.device("meta"):
        model = MBart(config)
    model.load_state_dict(tensors, assign=True)
    model.save_pretrained(out)
    for file in Path(base_folder).glob("*"):
        if file.name.startswith(("sentencepiece", "source.", "tokenizer", "special_tokens")):
            shutil.copyfile(file, Path(out) / file.name)


def graft(body, donor, side):
    """A model with `body`'s layers and, on one side ("src" or "tgt"), `donor`'s token, position and norm parameters
    (Gheini et al. 2021, sections 5.2 and 5.4: forgetting, and zero-shot by stitching)."""
    if body.config.d_model != donor.config.d_model:
        raise UserError(f"graft: the models differ in width, {body.config.d_model} and {donor.config.d_model}")
    tokens = donor.source_table() if side == "src" else donor.model.shared.weight
    grafted = new_language(body, side, tokens.size(0), side)
    state, given = grafted.state_dict(), donor.state_dict()
    for name in state:
        if re.match(SIDES[side], name):
            state[name] = tokens if name.endswith(("shared.weight", "embed_tokens.weight")) else given[name]
    grafted.load_state_dict(state)
    return grafted


def parameters_by_recipe(config, rank=8):
    """{recipe: (all, those that train)} in numbers of parameters, for a model of this shape; the recipes of a new
    language count a vocabulary of the same size, lora the adapters."""
    found = {}
    for recipe in RECIPES:
        with torch.device("meta"):
            model = MBart(config)
            if recipe == "lora":
                add_lora(model, rank)
            if recipe.split("+")[0] in SIDES or recipe == "scratch":
                model = new_language(model, recipe[:3] if recipe != "scratch" else "src", config.vocab_size, recipe)
        apply_recipe(model, recipe)
        counts = [(p.numel(), p.numel() * p.requires_grad) for p in model.parameters()]
        found[recipe] = tuple(map(sum, zip(*counts)))
    return found


def sizes(config):
    """{recipe: bytes on disk of its delta in float32} for a model of this shape."""
    return {recipe: 4 * trains for recipe, (_, trains) in parameters_by_recipe(config).items()}


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=__doc__.split("\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (("save", "MODEL BASE FILE"), ("apply", "BASE FILE OUT"), ("merge", "BASE OUT FILE=WEIGHT ..."),
                        ("graft", "BODY DONOR src|tgt OUT"), ("sizes", "BASE")):
        commands.add_parser(name, help=words).add_argument("paths", nargs="+", metavar=words)
    args = parser.parse_args(argv)
    counts = {"save": (3,), "apply": (3,), "merge": range(3, 100), "graft": (4,), "sizes": (1,)}[args.command]
    if len(args.paths) not in counts:
        parser.error(f"{args.command}: wrong number of arguments")
    globals()[f"run_{args.command}"](*args.paths)


def run_save(model, base, path):
    tuned, trained = MBart.from_pretrained(model), Path(model) / "args.json"
    state = tuned.state_dict()
    for name in VOCABULARIES:  # a new language's vocabulary belongs to what the run changed
        new, old = Path(model) / name, Path(base) / name
        if new.exists() and not (old.exists() and new.read_bytes() == old.read_bytes()):
            state[FILE + name] = torch.frombuffer(bytearray(new.read_bytes()), dtype=torch.uint8)
    changed = save_delta(state, MBart.from_pretrained(base).state_dict(), path,
                         residual_drop_layer=str(tuned.config.residual_drop_layer or 0),
                         args=trained.read_text(encoding="utf-8") if trained.exists() else "")
    whole, size = sum(tensor.nbytes for tensor in tuned.state_dict().values()), Path(path).stat().st_size
    print(f"{path}: {len(changed)} tensors, {size:,} bytes ({size / whole:.1%} of the model)")


def run_apply(base, path, out):
    state = MBart.from_pretrained(base).state_dict()
    delta, told = read_delta(path, state)
    files = {name: delta.pop(FILE + name) for name in VOCABULARIES if FILE + name in delta}
    write_model(base, state | delta, out, int(told.get("residual_drop_layer", 0)))
    if told.get("args"):  # how it was trained: tagless or not, on which pairs
        write_text(Path(out) / "args.json", told["args"])
    for name, content in files.items():
        with saving(Path(out) / name) as temporary:
            Path(temporary).write_bytes(content.numpy().tobytes())
    if files:
        Tokenizer.from_pretrained(out).save_pretrained(out)


def run_merge(base, out, *files):
    state = MBart.from_pretrained(base).state_dict()
    paths, weights = zip(*(file.rpartition("=")[::2] for file in files))
    try:
        weights = [float(weight) for weight in weights]
    except ValueError:
        raise UserError(f"merge: write each delta with its weight, as {files[0].split('=')[0]}=0.5") from None
    write_model(base, merge_deltas(state, [load_delta(path, state) for path in paths], weights), out)


def run_graft(body, donor, side, out):
    if side not in SIDES:
        raise UserError(f"graft: the side is src or tgt, not {side!r}")
    graft(MBart.from_pretrained(body), MBart.from_pretrained(donor), side).save_pretrained(out)
    own, other = Tokenizer.from_pretrained(body), Tokenizer.from_pretrained(donor)
    source, target = (other.source, own) if side == "src" else (own.source, other)
    Tokenizer(target.model_file, own.layout, source).save_pretrained(out)
    if (Path(body) / "args.json").exists():
        shutil.copyfile(Path(body) / "args.json", Path(out) / "args.json")


def run_sizes(base):
    here, large = sizes(Config.read(Path(base) / "config.json")), sizes(Config())
    print(f"{'recipe':<18}{base:>16}{'mbart-large':>18}")
    for recipe in here:
        print(f"{recipe:<18}{here[recipe]:>16,}{large[recipe]:>18,}")


if __name__ == "__main__":
    run(main)
