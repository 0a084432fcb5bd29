"""What does an update cost? Seconds per update against tokens, layers and vocabulary.

    python -m bench.cost                the three curves, a line for each point as it is measured
    python -m bench.cost cost-layers    one of them; --rounds 10 for a narrower spread
    python -m bench.cost --write        all, and BENCHMARKS.md with the picture cost.svg
    python -m bench.cost --quick        a try within seconds on a tiny model; nothing is kept

One of the three is varied at a time around shape B (d 256, 4+4 layers, vocabulary 8,000) and 16
random examples an update: sources of 60 to 240 tokens and targets of 15 to 60. `full` trains
everything, embeddings too, `qk` the queries and keys that read the source; they take turns, round
by round. No dropout, float32, fused AdamW.

The floor is the time that the matrix products of the same update, attention's among them, would
take at the rate of a large product, the highest measured beside the curve's points. What stands
above it is what is no product (norms, softmax, AdamW, memory) and products too small for that rate.
"""
from dataclasses import asdict, dataclass, replace
from functools import partial
from operator import attrgetter

import torch

from bench.peers import (
    RECIPE_OF,
    SHAPES,
    Shape,
    Training,
    our_batches,
    our_loss,
    random_examples,
    rates,
    sizes_of,
    take_turns,
)
from bench.results import add_options, chosen, measure, print_row, write_page
from model import Config, MBart
from plumbing.files import UserError, parser_of, run
from qk_finetune import apply_recipe

UPDATES = 3  # in a turn
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Curves:
    """The shape in the middle, and the values of what is varied."""

    shape: Shape
    batch: tuple   # examples in an update
    layers: tuple  # of each stack
    vocabulary: tuple


FULL = Curves(
    shape=SHAPES["B"],
    batch=(2, 4, 8, 16, 32, 64),
    layers=(1, 2, 4, 8, 12),
    vocabulary=(2_000, 8_000, 32_000, 64_000, 128_000, 250_027),
)
QUICK = Curves(
    shape=Shape(vocabulary=300, width=32, layers=1, heads=2, ffn=64, batch=2),
    batch=(1, 2),
    layers=(1, 2),
    vocabulary=(300, 600),
)


# ---------------------------------------------------------------------------------- a point


def drawn_model(shape):
    """A random model of ours, without dropout; the same at every call."""
    torch.manual_seed(0)
    return MBart(Config(**sizes_of(shape)))


def point(shape, rounds, label):
    """{"tokens": of an update, "seconds": {recipe: of an update in each round}, "flops": {recipe:
    of an update's matrix products}} of one shape."""
    examples = random_examples(shape.vocabulary, UPDATES * shape.batch)
    batches = our_batches(examples, UPDATES)
    tokens = sum(batch.source_tokens + batch.target_tokens for batch in batches)
    sides = {}
    for recipe, rule in RECIPE_OF.items():
        model = drawn_model(shape).train()
        apply_recipe(model, rule)
        sides[recipe] = Training(model, our_loss, batches, CPU, fused=True)
    flops = {recipe: side.flops() / len(batches) for recipe, side in sides.items()}
    for side in sides.values():
        side.warm_up()
    passes = {recipe: side.whole_pass for recipe, side in sides.items()}
    seconds = {}
    for recipe, taken in take_turns(passes, rounds, label).items():
        seconds[recipe] = [value / len(batches) for value in taken]
    return {"tokens": round(tokens / len(batches)), "seconds": seconds, "flops": flops}


# ---------------------------------------------------------------------------------- the rows


def bench_cost(varied, curves, rounds):
    """A row: the points of one curve, each with its floor ("limit") in seconds; varied: "batch"
    (told in tokens), "layers" or "vocabulary"."""
    points = []
    measured = []
    for value in getattr(curves, varied):
        shape = replace(curves.shape, **{varied: value})
        found = point(shape, rounds, f"{varied} {value:,}")
        measured.append(rates(CPU))
        if varied == "batch":
            value = found["tokens"]
        points.append(found | {"value": value})
    # A machine that swings has one floor.
    fastest = max(measured, key=attrgetter("products"))
    for found in points:
        found["limit"] = {}
        for recipe, flops in found["flops"].items():
            found["limit"][recipe] = flops / fastest.products
    return {"points": points, "rates": asdict(fastest)}


def measures(curves, rounds):
    return {
        "cost-tokens": partial(bench_cost, "batch", curves, rounds),
        "cost-layers": partial(bench_cost, "layers", curves, rounds),
        "cost-vocabulary": partial(bench_cost, "vocabulary", curves, rounds),
    }


# ---------------------------------------------------------------------------------- the program


def parse_args(argv):
    parser = parser_of(__doc__)
    add_options(parser, measures(FULL, rounds=3), "3")
    parser.add_argument("--quick", action="store_true", help="a tiny model; nothing is kept")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.quick:
        if args.write:
            raise UserError("--quick measures a tiny model that is not of the page: no --write")
        for name, function in chosen(measures(QUICK, args.rounds or 1), args.rows).items():
            print_row(name, function())
        return
    results = measure(measures(FULL, args.rounds or 3), args.rows, CPU)
    if args.write:
        write_page(results)


if __name__ == "__main__":
    run(main)
