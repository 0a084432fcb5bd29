"""Deltas: a finetuned model stored as only what trained, put back on its base, merged and weighed.

    python -m tools.delta save runs/summarize base qk.delta      what the run changed, as one file
    python -m tools.delta apply base qk.delta runs/again         the base with it, a model folder
    python -m tools.delta merge base runs/both a.delta=0.5 b.delta=0.5
        W = W_base + sum_i weight_i (W_i - W_base)               (Liu and Niehues 2025, section 5)
    python -m tools.delta sizes base                             bytes of every recipe's delta

A delta is a safetensors file. It names the base it belongs to by a fingerprint of all its tensors
and is refused on any other. A new language's vocabulary, a dropped residual and the run's settings
are in it too.
"""
import argparse
import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from model import Config, MBart
from plumbing.files import (
    UserError,
    beside_python,
    check_file_out,
    parser_of,
    run,
    temporary_folder,
    write_bytes,
)
from plumbing.models import MODEL_HELP, model_folder
from plumbing.runs import check_kinds, read_public_settings
from plumbing.weights import check_numbers, read_safetensors, write_tensors
from qk_finetune import PROJECTIONS, RECIPES, count_parameters
from tokenizer import MODEL_FILE, SOURCE_FILE, Tokenizer
from tools.folders import add_overwrite, check_out, write_like

VOCABULARIES = (MODEL_FILE, SOURCE_FILE)
MAY_DIFFER = {  # in config.json, between a run and its base; all else belongs to both
    "vocab_size", "source_vocab_size", "residual_drop_layer", "dropout", "attention_dropout",
    "activation_dropout", "init_std", "extra",
}
FILE = "file: "  # begins the name of a tensor that holds a vocabulary's bytes
# What a run of lora is saved with: A and B are within these weights (qk_finetune.merged_state).
MERGED = rf"\.({'|'.join(PROJECTIONS)})\.weight$"


@dataclass
class Delta:
    """What a run changed in its base."""
    tensors: dict                            # {name: tensor}
    files: dict = field(default_factory=dict)  # {name of a vocabulary file: bytes}
    residual_drop_layer: int = 0
    settings: dict | None = None             # args.json, {} if the run had none; None: unknown


# --------------------------------------------------------------------------------------- files

def fingerprint(tensors):
    """A short digest of every tensor's name, shape and bytes ({name: tensor})."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tuple(tensors[name].shape)} ".encode())
        content = tensors[name].detach().cpu().contiguous().view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()[:16]


def save_delta(tensors, base, path, **metadata):
    """Writes those of `tensors` that `base` ({name: tensor}, both) has otherwise or lacks.

    metadata: texts to go with them. Returns what was written; UserError if that is nothing."""
    changed = {}
    for name, tensor in tensors.items():
        if name not in base or differ(base[name], tensor):
            changed[name] = tensor
    if not changed:
        raise UserError(f"{path}: not written, for the model is the base, tensor for tensor")
    write_tensors(changed, path, base=fingerprint(base), **metadata)
    return changed


def differ(a, b):
    return a.shape != b.shape or not torch.equal(a, b)


def read_delta(path, base):
    """The Delta in a file; UserError if it is damaged or was made from another base.

    base: that base's fingerprint()."""
    tensors, metadata = read_safetensors(path)
    check_base(path, metadata.get("base"), base)
    layer = metadata.get("residual_drop_layer", "0")
    if not layer.isdecimal():
        raise UserError(f"{path}: damaged (residual_drop_layer is {layer!r}); make it again")
    delta = Delta(
        tensors={},
        residual_drop_layer=int(layer),
        settings=read_run_settings(path, metadata.get("args")),
    )
    for name, tensor in tensors.items():
        if name.startswith(FILE):
            delta.files[name.removeprefix(FILE)] = tensor.numpy().tobytes()
        else:
            delta.tensors[name] = tensor
    check_numbers(delta.tensors, path)
    return delta


def read_run_settings(path, text):
    """The settings of a delta's run, from its copy of args.json. None where it has no copy; {}
    where the run had none itself (older deltas have "")."""
    if text is None:
        return None
    if not text:
        return {}
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise UserError(f"{path}: its copy of args.json is damaged; make it again")
    check_kinds(path, settings)
    return settings


def check_base(path, made_from, own):
    if made_from is None:
        raise UserError(
            f"{path}: is a safetensors file but no delta; `{beside_python()} -m tools.delta save` "
            "writes one"
        )
    if made_from != own:
        raise UserError(
            f"{path}: was made from another base (its fingerprint is {made_from}, this one's {own})"
        )


def merge_deltas(base, deltas, weights):
    """base + the weighted sum of what each delta changes in it, all {name: tensor}.

    A tensor that only some deltas have moves by theirs alone. UserError if one has another shape
    than the base's, as a new vocabulary has."""
    merged = {name: tensor.clone() for name, tensor in base.items()}
    for delta, weight in zip(deltas, weights, strict=True):
        for name, tensor in delta.items():
            if name not in base or base[name].shape != tensor.shape:
                raise UserError(
                    f"{name} has another shape than the base's: new vocabularies cannot be merged"
                )
            merged[name] += weight * (tensor - base[name])
    return merged


# ------------------------------------------------------------------------------------ commands

def save(model, base, file, overwrite=False):
    """Writes the delta of folder `model` from folder `base`."""
    check_file_out(file, overwrite)
    refuse_other_files(file)
    model = model_folder(model)
    base = model_folder(base)
    settings = read_public_settings(model)
    tuned = MBart.from_pretrained(model)
    started = MBart.from_pretrained(base)
    check_same_shape(model, tuned.config, base, started.config)
    tensors = tuned.state_dict()
    whole = sum(tensor.nbytes for tensor in tensors.values())
    for name, content in new_vocabularies(model, base).items():
        tensors[FILE + name] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    changed = save_delta(
        tensors,
        started.state_dict(),
        file,
        residual_drop_layer=str(tuned.config.residual_drop_layer),
        args=json.dumps(settings, ensure_ascii=False),
    )
    size = Path(file).stat().st_size
    print(f"{file}: {len(changed)} tensors, {size:,} bytes ({size / whole:.1%} of the model)")


def refuse_other_files(file):
    """UserError if `file` is there and is no delta: it may be a model's weights."""
    if Path(file).exists():
        try:
            _, metadata = read_safetensors(file)
        except UserError as error:
            raise UserError(
                f"{error}; it may have been something else than a delta, so it is not replaced: "
                "remove it, or name another file"
            ) from None
        if "base" not in metadata:
            raise UserError(f"{file} is no delta and is not replaced; name another file")


def check_same_shape(model, tuned, base, started):
    """UserError if the Configs of a run and its base differ in what a delta does not hold."""
    before = asdict(started)
    may_differ = MAY_DIFFER
    if MODEL_FILE in new_vocabularies(model, base):  # a tag has another id; apply() moves it too
        may_differ = MAY_DIFFER | {"decoder_start_token_id"}
    for name, value in asdict(tuned).items():
        if name not in may_differ and value != before[name]:
            raise UserError(
                f"{model} did not start from {base}: {name} is {value} in the one and "
                f"{before[name]} in the other"
            )
    if started.source_vocab_size is not None and tuned.source_vocab_size is None:
        raise UserError(f"{model} did not start from {base}, whose encoder has a vocabulary")


def new_vocabularies(model, base):
    """{name: bytes} of the vocabulary files that the base has not."""
    new = {}
    for name in VOCABULARIES:
        path = Path(model) / name
        if not path.exists():
            continue
        content = path.read_bytes()
        old = Path(base) / name
        if not old.exists() or old.read_bytes() != content:
            new[name] = content
    return new


def apply(base, file, out, overwrite=False):
    """Writes folder `out`: folder `base` with what the delta changes."""
    check_out(out, overwrite, [base])
    base = model_folder(base)
    tensors = MBart.from_pretrained(base).state_dict()
    delta = read_delta(file, fingerprint(tensors))
    with temporary_folder() as folder:
        tokenizer = None
        if delta.files:
            tokenizer = with_vocabularies(Tokenizer.from_pretrained(base), delta.files, folder)
        write_like(
            base,
            out,
            tensors | delta.tensors,
            tokenizer,
            residual_drop_layer=delta.residual_drop_layer,
            settings=delta.settings,
        )


def with_vocabularies(tokenizer, files, folder):
    """A tokenizer with a delta's vocabulary files, {name: bytes}, in place of its own.

    folder: where they are written; the tokenizer reads them there as long as it is used."""
    for name in VOCABULARIES:
        if name in files:
            write_bytes(Path(folder) / name, files[name])
    layout = tokenizer.layout
    source = tokenizer.own_source
    if SOURCE_FILE in files:
        source = Tokenizer(Path(folder) / SOURCE_FILE, layout)
    model_file = tokenizer.model_file
    if MODEL_FILE in files:
        model_file = Path(folder) / MODEL_FILE
    return Tokenizer(model_file, layout, source)


def merge(base, out, files, weights, overwrite=False):
    """Writes folder `out`: folder `base` with the weighted sum of what the deltas change."""
    check_out(out, overwrite, [base])
    base = model_folder(base)
    tensors = MBart.from_pretrained(base).state_dict()
    made_from = fingerprint(tensors)  # gigabytes are read for it
    deltas = [read_delta(file, made_from) for file in files]
    for file, delta in zip(files, deltas):
        if delta.files:
            raise UserError(f"{file} has a vocabulary of its own, which cannot be merged")
    merged = merge_deltas(tensors, [delta.tensors for delta in deltas], weights)
    write_like(
        base,
        out,
        merged,
        residual_drop_layer=common_residual_drop(deltas),
        settings=common_settings(deltas),
    )


def common_residual_drop(deltas):
    layers = {delta.residual_drop_layer for delta in deltas}
    if len(layers) > 1:
        raise UserError(
            "merge: the deltas were trained with different residuals dropped (encoder layer "
            f"{' and '.join(map(str, sorted(layers)))}; 0: none), so no one model has them all"
        )
    return layers.pop()


def common_settings(deltas):
    """args.json of a merged model: what those of the tasks say alike (of alignment runs, where
    there is nothing else). None if no delta has any. UserError if some were trained with a source
    tag and some without, for one model is read in one way."""
    known = [delta.settings for delta in deltas if delta.settings]
    if not known:
        return deltas[0].settings
    if len({bool((delta.settings or {}).get("tagless")) for delta in deltas}) > 1:
        raise UserError(
            "merge: some of the deltas were trained with the source's language tag and some "
            "without (--tagless), so no one model reads both"
        )
    tasks = [settings for settings in known if settings.get("stage") != "align"] or known
    common = {}
    for name, value in tasks[0].items():
        if all(name in settings and settings[name] == value for settings in tasks):
            common[name] = value
    if all(settings.get("learned") is not None for settings in tasks):
        common["learned"] = entries_of(tasks, "learned")
    if "stage" in common and all(settings.get("pairs") for settings in tasks):
        common["pairs"] = entries_of(tasks, "pairs")
    return common


def entries_of(tasks, name):
    """What the tasks' lists of this name hold, each entry once."""
    found = []
    for settings in tasks:
        found += settings[name]
    return list(dict.fromkeys(found))


def print_sizes(base):
    """Prints the bytes of every recipe's delta in float32, here and for mBART-large."""
    here = Config.read(model_folder(base, weights=False) / "config.json")
    large = Config()
    print(f"{'recipe':<18}{base:>16}{'mbart-large':>18}")
    for recipe in RECIPES:
        print(f"{recipe:<18}{delta_bytes(here, recipe):>16,}{delta_bytes(large, recipe):>18,}")


def delta_bytes(config, recipe):
    """The bytes of all numbers in a recipe's delta, in float32, for a model of this Config."""
    changes = recipe
    if recipe == "lora":
        changes = MERGED
    return 4 * count_parameters(config, changes).training_parameters


# -------------------------------------------------------------------------------- command line

@dataclass
class WeightedFile:
    file: str
    weight: float


def weighted_file(text):
    """A converter for argparse: FILE=WEIGHT."""
    file, _, weight = text.rpartition("=")
    try:
        number = float(weight)
    except ValueError:
        number = math.nan
    if not file or not math.isfinite(number):
        message = f"{text}: write each delta with its weight, a number, as {file or text}=0.5"
        raise argparse.ArgumentTypeError(message)
    return WeightedFile(file, number)


def main(argv=None):
    parser = parser_of(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    command = add_command(commands, "save", "store what a run changed in its base")
    command.add_argument("model", metavar="MODEL", help="the folder of the run")
    command.add_argument("base", metavar="BASE", help="the folder that it started from")
    command.add_argument("file", metavar="FILE", help="the delta to write")
    add_overwrite(command, "delta")

    command = add_command(commands, "apply", "put a delta back on its base")
    command.add_argument("base", metavar="BASE", help="the folder that it was made from")
    command.add_argument("file", metavar="FILE", help="the delta")
    command.add_argument("out", metavar="OUT", help="the folder to write")
    add_overwrite(command)

    command = add_command(commands, "merge", "put a weighted sum of deltas on their base")
    command.add_argument("base", metavar="BASE", help="the folder that they were made from")
    command.add_argument("out", metavar="OUT", help="the folder to write")
    command.add_argument(
        "deltas",
        nargs="+",
        type=weighted_file,
        metavar="FILE=WEIGHT",
        help="a delta and its share, as a.delta=0.5",
    )
    add_overwrite(command)

    command = add_command(commands, "sizes", "print how large every recipe's delta is")
    command.add_argument("base", metavar="BASE", help=MODEL_HELP)

    args = parser.parse_args(argv)
    if args.command == "save":
        save(args.model, args.base, args.file, args.overwrite)
    elif args.command == "apply":
        apply(args.base, args.file, args.out, args.overwrite)
    elif args.command == "merge":
        files = [delta.file for delta in args.deltas]
        weights = [delta.weight for delta in args.deltas]
        merge(args.base, args.out, files, weights, args.overwrite)
    else:
        print_sizes(args.base)


def add_command(commands, name, meaning):
    return commands.add_parser(name, help=meaning, description=meaning)


if __name__ == "__main__":
    run(main)
