"""What the tools share: a model folder that means what another one means, with other tensors.

Beside its weights a folder has its vocabulary (SentencePiece files and what transformers reads in
their place), the settings of the run that made it (args.json: for which task, with a source tag or
without), and what config.json says of the model's shape, a dropped residual among it.
"""
from pathlib import Path

import torch

from model import Config, MBart
from plumbing.files import UserError, check_place, make_folder, same_place
from plumbing.layout import TOKENIZER_FILES
from plumbing.runs import (
    is_training,
    origin_of,
    read_settings,
    remove_descriptions,
    tell_untrained,
    write_settings,
)
from plumbing.weights import check_numbers
from qk_finetune import TABLES
from tokenizer import MODEL_FILE, SOURCE_FILE, Tokenizer, copy_file

SOURCE_TABLE = TABLES["src"]  # of a source side with a vocabulary of its own


def check_out(out, overwrite=False, read=()):
    """UserError unless the folder `out` can be written without losing anything.

    read: the folders that the new one is made from, which are never touched, and neither is a
    training run; what else stands there is replaced if `overwrite` says so."""
    out = Path(out)
    check_place(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder to write")
    for folder in read:
        if same_place(out, folder):
            raise UserError(f"{out} is what the new folder is made from; name another folder")
    if (out / "log.csv").exists() or (out / "state.pt").exists() or is_training(out):
        raise UserError(f"{out} is a training run; name another folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        what = "is a folder with other files"
        if (out / "config.json").exists():
            what = "has a model already"
        raise UserError(f"{out} {what}; --overwrite replaces what it has, or name another folder")


def add_overwrite(parser, what="folder"):
    """The option that check_out() and check_file_out() speak of."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace a {what} of this name (never a training run, never what is read)",
    )


def begin(out):
    """Makes the folder; it is no model folder until its config.json is written, last of all."""
    out = Path(out)
    make_folder(out)
    try:
        (out / "config.json").unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None
    return out


def write_like(folder, out, tensors, tokenizer=None, residual_drop_layer=None, settings=None):
    """Writes folder `out`: all that `folder` means, with {name: tensor} in place of its weights.

    tokenizer: the new one, where the vocabulary is not the folder's; residual_drop_layer: the one
    that the tensors were trained with (0: none), where it may be another than the folder's;
    settings: the same for args.json ({}: none). The model is written last: a folder that was not
    finished has no config.json."""
    check_numbers(tensors, out)
    tell_untrained(folder, folder)
    config = fitting_config(folder, tensors, residual_drop_layer)
    if tokenizer is not None:
        move_tags(config, folder, tokenizer)
    with torch.device("meta"):
        model = MBart(config)
    model.load_state_dict(tensors, assign=True)
    out = begin(out)
    remove_stale(out, tokenizer, folder)
    if settings is None:
        settings = read_settings(folder)
    if settings and "origin" not in settings:
        settings = settings | {"origin": origin_of(folder)}
    if settings:
        write_settings(out, settings)
    if tokenizer is None:
        for name in tokenizer_files(folder):
            copy_file(Path(folder) / name, out / name)
    else:
        tokenizer.save_pretrained(out)
    model.save_pretrained(out)


def fitting_config(folder, tensors, residual_drop_layer):
    """The folder's Config with the vocabularies of these tensors; residual_drop_layer: as in
    write_like()."""
    config = Config.read(Path(folder) / "config.json")
    config.vocab_size = len(tensors["model.shared.weight"])
    if SOURCE_TABLE in tensors:
        config.source_vocab_size = len(tensors[SOURCE_TABLE])
    if residual_drop_layer is not None:
        config.residual_drop_layer = residual_drop_layer
    return config


def move_tags(config, folder, tokenizer):
    """The languages' tags that the folder's config.json names get their ids in a new vocabulary."""
    codes = {tag: code for code, tag in Tokenizer.from_pretrained(folder).tag.items()}
    start = codes.get(config.decoder_start_token_id)
    if start in tokenizer.tag:
        config.decoder_start_token_id = tokenizer.tag[start]
    name = "forced_bos_token_id"
    forced = config.extra.get(name)
    if isinstance(forced, int) and codes.get(forced) in tokenizer.tag:
        config.extra[name] = tokenizer.tag[codes[forced]]


def remove_stale(out, tokenizer=None, folder=None):
    """Removes the descriptions, settings and vocabulary files that `out` has of an earlier folder,
    but for the vocabulary files that will be written anew: `tokenizer`'s, or else `folder`'s."""
    if tokenizer is None:
        kept = tokenizer_files(folder)
    elif tokenizer.own_source:
        kept = [MODEL_FILE, SOURCE_FILE]
    else:
        kept = [MODEL_FILE]
    remove_descriptions(out)
    for name in ("args.json", "state.json", *TOKENIZER_FILES):
        if name not in kept:
            (out / name).unlink(missing_ok=True)


def tokenizer_files(folder):
    """The names of the vocabulary's files that a folder has."""
    return [name for name in TOKENIZER_FILES if (Path(folder) / name).is_file()]
