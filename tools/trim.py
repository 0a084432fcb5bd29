"""Vocabulary trimming: a model folder with only the pieces that its data and languages need.

    python -m tools.trim mbart-large-cc25 mbart-trimmed --data jsonl:DIR --langs en_XX es_XX ru_RU

Of mBART-large's 610 million parameters 256 million are the embeddings of 250,027 tokens; one task in a few languages
uses a fraction of them. Kept are all pieces that the data's texts use, every piece of one letter (so that no letter
becomes <unk>), all specials, all language tags and <mask>. Rows of the embedding and of final_logits_bias move
together. The folder opens here and in transformers, tokenizer included; a text of the data gets the same pieces, and
the logits of kept pieces are the same numbers.
"""
import argparse
from pathlib import Path

import torch

from corpora.sets import texts_of
from model import MBart
from plumbing.files import UserError, run, saving
from tokenizer import UNK, Tokenizer


def varint(data, at):
    """(value, next position) of a protocol buffer's variable-length number."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def keep_pieces(data, kept):
    """A SentencePiece model file's bytes with only the pieces whose numbers are in `kept`. The file is one protocol
    buffer; its field 1, once for each piece in order, is the vocabulary."""
    out, at, number = bytearray(), 0, 0
    while at < len(data):
        start = at
        key, at = varint(data, at)
        if key & 7 != 2:
            raise UserError("the SentencePiece file has a field of an unknown kind; it is damaged")
        length, at = varint(data, at)
        at += length
        if key >> 3 != 1:
            out += data[start:at]
            continue
        if number in kept:
            out += data[start:at]
        number += 1
    return bytes(out)


def trim(model, tokenizer, texts, out):
    """Writes the trimmed tokenizer to folder `out`; returns (trimmed model, trimmed tokenizer, old ids of its rows).

    texts: an iterable of str, all that the trimmed model should read and write as before."""
    pieces = tokenizer.pieces
    used = {i for text in texts for i in pieces.encode(text)}
    kept = sorted(used | {i for i in range(pieces.get_piece_size())
                          if i < 3 or len(pieces.id_to_piece(i).lstrip("▁")) <= 1})
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with saving(out / "sentencepiece.bpe.model") as temporary:
        Path(temporary).write_bytes(keep_pieces(tokenizer.model_file.read_bytes(), set(kept)))
    smaller = Tokenizer(out / "sentencepiece.bpe.model", tokenizer.layout)
    old = list(range(UNK + 1)) + [i + 1 for i in kept if i >= 3] + list(tokenizer.tag.values()) + [tokenizer.mask_id]
    rows = torch.tensor(old)
    config = type(model.config)(**vars(model.config) | {"vocab_size": len(old)})
    with torch.device("meta"):
        trimmed = MBart(config)
    state = model.state_dict()
    state["model.shared.weight"] = state["model.shared.weight"][rows]
    state["final_logits_bias"] = state["final_logits_bias"][:, rows]
    trimmed.load_state_dict(state, assign=True)
    return trimmed, smaller, old


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=__doc__.split("\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("out")
    parser.add_argument("--data", default="builtin", metavar="SPEC", help="as train.py's (default builtin)")
    parser.add_argument("--langs", nargs="+", required=True, metavar="LANG")
    args = parser.parse_args(argv)
    if (Path(args.out) / "config.json").exists():
        raise UserError(f"{args.out} has a model already; name another folder")
    model, tokenizer = MBart.from_pretrained(args.folder), Tokenizer.from_pretrained(args.folder)
    within = args.data.startswith("xlsum:")  # has no other pairs
    pairs = [(a, b) for a in args.langs for b in args.langs if a == b or not within]
    for lang in args.langs:
        tokenizer.lang_id(lang)
    trimmed, smaller, old = trim(model, tokenizer, texts_of(args.data, "summarize", pairs, tokenizer.languages),
                                 args.out)
    smaller.save_pretrained(args.out)
    trimmed.save_pretrained(args.out)
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, trimmed))
    print(f"{args.out}: {len(old):,} of {tokenizer.vocab_size:,} tokens, {after:,} of {before:,} parameters")


if __name__ == "__main__":
    run(main)
