"""How many bytes of an update does each process give to the others? What qk saves beside memory.

    python -m bench.travel              mBART-large
    python -m bench.travel base         the model of a folder (config.json is enough)

Counted are the bytes of the tensors that train.py adds up over the processes, by its own function
and with tensors that have no numbers. Two processes send each other as much; of N each sends and
receives 2 (N - 1) / N times as much, where they stand in a ring.
"""
from contextlib import contextmanager

import torch

from bench.peers import TABLE_RECIPES, trained_by
from model import Config, MBart
from plumbing import runs
from plumbing.files import parser_of, run
from plumbing.models import model_folder

MIB = 2**20


@contextmanager
def recorded():
    """Inside, all_reduce() adds up nothing: the bytes of each call are put into this list."""
    calls = []
    before = runs.all_reduce
    runs.all_reduce = lambda tensor, *_: calls.append(tensor.nbytes)
    try:
        yield calls
    finally:
        runs.all_reduce = before


def bytes_of_an_update(config, recipe):
    """(bytes, calls) of the gradients that a recipe shares in an update."""
    with torch.device("meta"):
        weights = trained_by(MBart(config), recipe)
    for weight in weights:
        weight.grad = torch.empty_like(weight)
    with recorded() as calls:
        runs.share_gradients(weights, world=2)
    return sum(calls), len(calls)


def table(config):
    """What travels, as lines of markdown."""
    lines = ["| recipe | an update, MiB | share of `full` | calls |", "| --- | --- | --- | --- |"]
    whole, _ = bytes_of_an_update(config, "full")
    for recipe in TABLE_RECIPES:
        size, calls = bytes_of_an_update(config, recipe)
        lines.append(f"| `{recipe}` | {size / MIB:,.0f} | {size / whole:.1%} | {calls} |")
    return lines


def page():
    """The part of BENCHMARKS.md that this program writes, as lines: mBART-large's table."""
    return [
        "## What travels between processes",
        "",
        "Bytes of float32 gradients that `train.py` adds up over the processes in an update of",
        "mBART-large, however many batches it has (counted: `python -m bench.travel`). Two",
        "processes send each other as much; beside it travel 16 bytes, of two losses and a signal.",
        "",
        *table(Config()),
    ]


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="default: mBART-large's shape")
    args = parser.parse_args(argv)
    config = Config()
    if args.folder:
        config = Config.read(model_folder(args.folder, weights=False) / "config.json")
    print("\n".join(table(config)))


if __name__ == "__main__":
    run(main)
