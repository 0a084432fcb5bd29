"""How much memory does a recipe need? Weights, gradients and AdamW's moments, in GiB of float32.

    python -m bench.memory                           mBART-large
    python -m bench.memory base                      the model of a folder (config.json is enough)
    python -m bench.memory base --measure qk full    and the peak of real steps with these recipes

What activations take on top depends on the batch: --measure takes three steps, in a process of its
own, on --rows sequences of 128 source and 32 target tokens.
"""
from dataclasses import dataclass

from bench.process import GIB
from bench.step import LARGE, SOURCE_LENGTH, TARGET_LENGTH, peak_of_a_step
from model import Config
from plumbing.files import note, parser_of, run
from plumbing.models import model_folder
from plumbing.options import COUNT
from qk_finetune import RECIPES, count_parameters, sides_of

FLOAT = 4  # bytes
# A new language needs as much as full+embeddings, or less.
COUNTED = [recipe for recipe in RECIPES if not sides_of(recipe)]


@dataclass(frozen=True)
class Need:
    """Bytes that a recipe keeps from one step to the next."""

    weights: int
    gradients: int
    adamw: int

    @property
    def total(self):
        return self.weights + self.gradients + self.adamw


def needs(config):
    """{recipe: Need} of a model of this shape."""
    found = {}
    for recipe in COUNTED:
        counted = count_parameters(config, recipe)
        trains = counted.training_parameters
        found[recipe] = Need(FLOAT * counted.parameters, FLOAT * trains, 2 * FLOAT * trains)
    return found


def memory_table(folder, measure, rows):
    """Prints what every recipe needs; those of `measure` take real steps of this shape."""
    where = LARGE
    config = Config()
    if folder:
        where = model_folder(folder, weights=False) / "config.json"
        config = Config.read(where)
    heads = f"{'recipe, GiB':<18}{'weights':>9}{'gradients':>11}{'AdamW':>8}{'sum':>8}"
    if measure:
        heads += (
            f"   measured peak of a step with {rows} x ({SOURCE_LENGTH} + {TARGET_LENGTH}) tokens"
        )
    print(heads)
    for recipe, need in needs(config).items():
        line = f"{recipe:<18}{need.weights / GIB:>9.2f}{need.gradients / GIB:>11.2f}"
        line += f"{need.adamw / GIB:>8.2f}{need.total / GIB:>8.2f}"
        if recipe in measure:
            line += f"{peak_of_a_step(where, recipe, rows) / GIB:>8.1f}"
        print(line, flush=True)


def page():
    """The part of BENCHMARKS.md that this program writes, as lines: mBART-large's table."""
    lines = [
        "## How much memory does a recipe of mBART-large keep?",
        "",
        "GiB of float32 from one update to the next, activations on top (counted:",
        "`python -m bench.memory`).",
        "",
        "| recipe | weights | gradients | AdamW | sum |",
        "| --- | --- | --- | --- | --- |",
    ]
    for recipe, need in needs(Config()).items():
        sizes = (need.weights, need.gradients, need.adamw, need.total)
        sizes_shown = " | ".join(f"{size / GIB:.2f}" for size in sizes)
        lines.append(f"| `{recipe}` | {sizes_shown} |")
    return lines


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="default: mBART-large's shape")
    parser.add_argument(
        "--measure",
        nargs="+",
        default=[],
        choices=COUNTED,
        metavar="RECIPE",
        help="take real steps with these recipes",
    )
    parser.add_argument(
        "--rows", type=COUNT, default=8, help="sequences in the measured batch (default 8)"
    )
    args = parser.parse_args(argv)
    if not args.measure and args.rows != parser.get_default("rows"):
        note("--rows has no effect without --measure")
    memory_table(args.folder, args.measure, args.rows)


if __name__ == "__main__":
    run(main)
