"""What the tools share: a model folder that means what another one means, with other tensors.

Beside its weights a folder has its vocabulary (SentencePiece files and what transformers reads in
their place), the settings of the run that made it (args.json: for which task, with a source tag or
without), and what config.json says of the model's shape, a dropped residual among it.
"""
import shutil
from pathlib import Path

import torch

from model import Config, MBart
from plumbing.files import UserError
from plumbing.weights import check_numbers
from tokenizer import SOURCE_FILE

TOKENIZER_FILES = ("sentencepiece*", SOURCE_FILE, "tokenizer*", "special_tokens*")
SOURCE_TABLE = "model.encoder.embed_tokens.weight"  # of a source side with a vocabulary of its own


def refuse_to_overwrite(out):
    """UserError if the folder `out` has a model."""
    if (Path(out) / "config.json").exists():
        raise UserError(f"{out} has a model already; name another folder")


def refuse_to_overwrite_run(out, *read):
    """UserError if the folder `out` is a training run, or one of the folders that were read.

    What a tool has made can be made again, and is replaced."""
    out = Path(out)
    if (out / "log.csv").exists():
        raise UserError(f"{out} is a training run; name another folder")
    for folder in read:
        if out.resolve() == Path(folder).resolve():
            raise UserError(f"{out} is what the new folder is made from; name another folder")


def write_like(folder, out, tensors, tokenizer=None, residual_drop_layer=0):
    """Writes folder `out`: all that `folder` means, with {name: tensor} in place of its weights.

    tokenizer: the new one, where the vocabulary is not the folder's; residual_drop_layer: where
    the tensors were trained without a residual that the folder's model has. The model is written
    last: a folder that was not finished has no config.json."""
    check_numbers(tensors, out)
    with torch.device("meta"):
        model = MBart(fitting_config(folder, tensors, residual_drop_layer))
    model.load_state_dict(tensors, assign=True)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    remove_stale(folder, out, model.config)
    copy_files(folder, out, "args.json")
    if tokenizer is None:
        copy_files(folder, out, *TOKENIZER_FILES)
    else:
        tokenizer.save_pretrained(out)
    model.save_pretrained(out)


def fitting_config(folder, tensors, residual_drop_layer=0):
    """The folder's Config with the vocabularies of these tensors."""
    config = Config.read(Path(folder) / "config.json")
    config.vocab_size = len(tensors["model.shared.weight"])
    if SOURCE_TABLE in tensors:
        config.source_vocab_size = len(tensors[SOURCE_TABLE])
    if residual_drop_layer:
        config.residual_drop_layer = residual_drop_layer
    return config


def remove_stale(folder, out, config):
    """Removes what an earlier folder of this name had and this one will not have."""
    if not (Path(folder) / "args.json").exists():
        (out / "args.json").unlink(missing_ok=True)
    if config.source_vocab_size is None:
        (out / SOURCE_FILE).unlink(missing_ok=True)


def copy_files(folder, out, *patterns):
    for pattern in patterns:
        for file in sorted(Path(folder).glob(pattern)):
            shutil.copyfile(file, out / file.name)
