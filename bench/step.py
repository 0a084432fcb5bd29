"""Three training steps of one side; bench.process measures the memory that they take.

    python -m bench.process bench/step.py CHECKPOINT qk ours    or transformers, on the benchmark's
                                                                batches
    python -m bench.process bench/step.py CHECKPOINT/config.json qk 8    a model drawn here, on 8
                                                                         sequences
    python -m bench.process bench/step.py mbart-large qk 8      the same in mBART-large's shape
"""
import argparse

import torch

from bench.peers import (
    SHAPES,
    Training,
    our_loss,
    peer,
    peer_loss,
    trained_by,
    training_examples,
)
from bench.process import run_alone
from data import Batch, collate
from model import Config, MBart
from plumbing.files import parser_of, run

STEPS = 3
SIDES = ("ours", "transformers")
SOURCE_LENGTH = 128  # of the sequences for a model that is drawn here
TARGET_LENGTH = 32
LARGE = "mbart-large"  # in place of a config.json


def peak_of_a_step(where, recipe, side_or_rows, threads=1):
    """This program in a process of its own: the peak in bytes."""
    return run_alone(["bench/step.py", where, recipe, side_or_rows], threads).peak


def drawn_model(where):
    if where == LARGE:
        return MBart(Config(attention_dropout=0.1))  # train.py's setting for a model of this size
    return MBart(Config.read(where))


def long_batches(vocabulary, rows):
    """One batch of full length, for a model that is drawn here."""
    source = torch.randint(4, vocabulary, (rows, SOURCE_LENGTH))
    target = torch.randint(4, vocabulary, (rows, TARGET_LENGTH))
    return [Batch(source, target, target, source_langs=[], number=0, stream="task")]


def common_batches():
    """The benchmark's examples of shape A as they come: the same batches for both sides."""
    size = SHAPES["A"].batch
    examples = training_examples("A")
    return [collate(examples[step * size:(step + 1) * size]) for step in range(STEPS)]


def side(text):
    """A converter for argparse: a side, or a number of sequences."""
    if text in SIDES or (text.isdecimal() and int(text) > 0):
        return text
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither of {' and '.join(SIDES)}, nor a number of sequences, at least 1"
    )


def steps_of(where, recipe, side_or_rows):
    """Takes the steps; where, recipe and side_or_rows as on the command line."""
    loss = our_loss
    if side_or_rows.isdecimal():
        model = drawn_model(where)
        batches = long_batches(model.config.vocab_size, int(side_or_rows)) * STEPS
    elif side_or_rows == "ours":
        model = MBart.from_pretrained(where)
        batches = common_batches()
    else:
        transformers = peer("transformers")
        model = transformers.MBartForConditionalGeneration.from_pretrained(
            where, attn_implementation="sdpa"
        )
        loss = peer_loss
        batches = common_batches()
    trained_by(model, recipe)
    training = Training(model.train(), loss, batches, torch.device("cpu"), fused=True)
    training.whole_pass()


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("where", help=f"a checkpoint, a config.json, or {LARGE}")
    parser.add_argument("recipe")
    words = "ours, transformers, or a number of sequences"
    parser.add_argument("side_or_rows", type=side, help=words)
    args = parser.parse_args(argv)
    steps_of(args.where, args.recipe, args.side_or_rows)


if __name__ == "__main__":
    run(main)
