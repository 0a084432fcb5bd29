"""How much memory does a recipe need?  python bench.py memory [FOLDER] [--measure qk full]

A training step holds, in float32: the weights (4 bytes each), a gradient for each that trains (4), and AdamW's two
moments for each that trains (8); activations come on top and grow with --tokens. Frozen tensors cost their weights
alone: that is why `qk` fits where `full` does not. --measure runs real steps of the model's shape with random values,
each recipe in a process of its own, and shows that process's peak.
"""
import argparse
import subprocess
import sys
from pathlib import Path

import torch

from model import Config, MBart, UserError
from qk_finetune import RECIPES, SIDES, add_lora, apply_recipe

GIB = 2**30
STEP = """
import resource, torch
from model import Config, MBart
from qk_finetune import add_lora, apply_recipe
torch.manual_seed(0)
model = MBart(Config.read({config!r}) if {config!r} else Config())
if {recipe!r} == "lora":
    add_lora(model)
apply_recipe(model, {recipe!r})
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-5, fused=True)
source, target = torch.randint(4, 1000, ({rows}, 128)), torch.randint(4, 1000, ({rows}, 32))
model.train()
for _ in range(2):
    model.loss(source, target, target).backward()
    optimizer.step()
    optimizer.zero_grad()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def memory(config):
    """{recipe: (weights, gradients, AdamW's moments) in bytes} of a model of this shape."""
    found = {}
    for recipe in RECIPES:
        if recipe.split("+")[0] in SIDES or recipe == "scratch":
            continue  # as full+embeddings or less, with a vocabulary of another size
        with torch.device("meta"):
            model = MBart(config)
            if recipe == "lora":
                add_lora(model)
        names = set(apply_recipe(model, recipe))
        total = sum(p.numel() for p in model.parameters())
        trains = sum(p.numel() for name, p in model.named_parameters() if name in names)
        found[recipe] = 4 * total, 4 * trains, 8 * trains
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=__doc__.split("\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory"])
    parser.add_argument("folder", nargs="?", help="whose config.json gives the shape (default: mbart-large's)")
    parser.add_argument("--measure", nargs="*", default=[], choices=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--rows", type=int, default=8, help="sequences in the measured batch, of 128 source and 32 "
                        "target tokens each (default 8)")
    args = parser.parse_args()
    try:
        config = Config.read(Path(args.folder) / "config.json") if args.folder else Config()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{'recipe, GiB':<18}{'weights':>9}{'gradients':>11}{'AdamW':>8}{'sum':>8}   measured peak of a step with "
          f"{args.rows} x (128 + 32) tokens")
    for recipe, parts in memory(config).items():
        measured = ""
        if recipe in args.measure:
            code = STEP.format(config=str(Path(args.folder) / "config.json") if args.folder else "", recipe=recipe,
                               rows=args.rows)
            done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True,
                                  text=True)
            measured = f"{int(done.stdout) / GIB:>8.1f}" if done.returncode == 0 else f"   failed: {done.stderr[-80:]}"
        print(f"{recipe:<18}{parts[0] / GIB:>9.2f}{parts[1] / GIB:>11.2f}{parts[2] / GIB:>8.2f}"
              f"{sum(parts) / GIB:>8.2f}{measured}", flush=True)


if __name__ == "__main__":
    main()
