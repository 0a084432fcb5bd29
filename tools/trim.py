"""Vocabulary trimming: a model folder with only the pieces that its data and languages need.

    python -m tools.trim facebook/mbart-large-cc25 runs/trimmed --data jsonl:DIR --langs en_XX es_XX

Of mBART-large's 610 million parameters 256 million are the embeddings of 250,027 tokens; one task
in a few languages uses a fraction of them. Kept are all pieces that the data's texts of the task
(--stage) use, every piece of one letter (so that no letter becomes <unk>), all specials, all
language tags and <mask>.
Rows of the embedding and of final_logits_bias move together. The folder opens here and in
transformers, tokenizer included; a text of the data gets the same pieces, and the logits of kept
pieces are the same numbers. An encoder's vocabulary of its own stays whole.
"""
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from corpora.sets import check_spec, has_small_base, pairs_within, texts_of
from model import MBart
from plumbing.files import UserError, parser_of, run, temporary_folder, write_bytes
from plumbing.models import MODEL_HELP, model_folder
from plumbing.options import TASKS, stage_of
from plumbing.protobuf import MESSAGE, fields
from plumbing.runs import learned_in, read_settings
from tokenizer import MODEL_FILE, SPECIAL_PIECES, UNK, Tokenizer
from tools.folders import add_overwrite, check_out, write_like

PIECE_FIELD = 1  # of its file: once for each piece of the vocabulary, in order


# ------------------------------------------------------------------------- the tokenizer's file

def keep_pieces(path, kept):
    """A SentencePiece model file's bytes with only the pieces whose numbers are in `kept`."""
    content = Path(path).read_bytes()
    out = bytearray()
    piece = 0
    for field in fields_of(path, content):
        is_piece = field.number == PIECE_FIELD
        if not is_piece or piece in kept:
            out += content[field.start:field.end]
        if is_piece:
            piece += 1
    return bytes(out)


def fields_of(path, content):
    """The Fields of a SentencePiece file; UserError if it is damaged."""
    try:
        found = list(fields(content))
    except ValueError as error:
        raise UserError(f"{path}: damaged ({error}); copy it again") from None
    if any(field.kind != MESSAGE for field in found):
        raise UserError(
            f"{path}: has a field of a kind that SentencePiece does not write, so it is damaged; "
            "copy it again"
        )
    return found


def needed_pieces(pieces, texts):
    """The numbers, in order, of the pieces that texts use, of single letters and of specials."""
    needed = set(range(SPECIAL_PIECES))
    for text in texts:
        needed.update(pieces.encode(text))
    for number in range(pieces.get_piece_size()):
        letters = pieces.id_to_piece(number).lstrip("▁")
        if len(letters) <= 1:
            needed.add(number)
    return sorted(needed)


# ------------------------------------------------------------------------------------ the model

@dataclass
class Trimmed:
    model: MBart
    tokenizer: Tokenizer
    old_ids: list  # what the id of each token was


def trim(model, tokenizer, texts, folder):
    """Trims to what `texts` (an iterable of str) need, and writes the vocabulary to `folder`, where
    the trimmed tokenizer reads it as long as it is used.

    UserError for a SentencePiece file that is damaged. The trimmed model shares memory with
    `model`."""
    kept = needed_pieces(tokenizer.pieces, texts)
    path = Path(folder) / MODEL_FILE
    write_bytes(path, keep_pieces(tokenizer.model_file, set(kept)))
    smaller = Tokenizer(path, tokenizer.layout, tokenizer.own_source)

    old_ids = list(range(UNK + 1))
    old_ids += [piece + 1 for piece in kept if piece >= SPECIAL_PIECES]  # ids are moved by one
    old_ids += [*tokenizer.tag.values(), tokenizer.mask_id]
    tensors = model.state_dict()
    tensors["model.shared.weight"] = tensors["model.shared.weight"][old_ids]
    tensors["final_logits_bias"] = tensors["final_logits_bias"][:, old_ids]
    with torch.device("meta"):
        trimmed = MBart(replace(model.config, vocab_size=len(old_ids)))
    trimmed.load_state_dict(tensors, assign=True)
    return Trimmed(trimmed, smaller, old_ids)


def main(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("folder", metavar="FOLDER", help=MODEL_HELP)
    add("out", metavar="OUT", help="the folder to write")
    add("--data", default="builtin", metavar="SPEC", help="as train.py's (default: builtin)")
    add("--skip-bad-lines", action="store_true", help="leave out lines that cannot be read")
    add("--langs", nargs="+", required=True, metavar="LANG", help="languages of the texts")
    add(
        "--stage",
        nargs="+",
        choices=TASKS,
        metavar="STAGE",
        help=f"the tasks whose texts are read, of {' '.join(TASKS)} (default: what the model was "
        "trained for, else summarize); only builtin and help: have other texts for each",
    )
    add_overwrite(parser)
    args = parser.parse_args(argv)
    check_out(args.out, args.overwrite, [args.folder])
    check_spec(args.data, args.skip_bad_lines)

    folder = model_folder(args.folder)
    model = MBart.from_pretrained(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    tokenizer.check_languages(args.langs)
    pairs = pairs_within(args.data, args.langs)
    stages = args.stage or stages_learned(read_settings(folder))
    if not has_small_base(args.data):
        stages = stages[:1]  # other data sets have the same texts for every stage
    texts = chain.from_iterable(
        texts_of(args.data, stage, pairs, tokenizer.languages, skip=args.skip_bad_lines)
        for stage in dict.fromkeys(stages)
    )
    # `out` is not touched before everything that can be refused is behind us.
    with temporary_folder() as scratch:
        trimmed = trim(model, tokenizer, texts, scratch)
        write_like(folder, args.out, trimmed.model.state_dict(), trimmed.tokenizer)
    print(
        f"{args.out}: {len(trimmed.old_ids):,} of {tokenizer.vocab_size:,} tokens, "
        f"{trimmed.model.size():,} of {model.size():,} parameters"
    )


def stages_learned(settings):
    """The tasks that a model was trained for, by --mix and before its own run too."""
    own = stage_of(settings, untrained="summarize")
    return [stage for stage in TASKS if stage == own or learned_in(settings, stage)]


if __name__ == "__main__":
    run(main)
