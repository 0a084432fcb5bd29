"""Does everything work on this GPU, and how fast is it? One command, ten minutes at most.

    python -m bench.gpu_check                      all checks
    python -m bench.gpu_check gradients decoding   some of them
    python -m bench.gpu_check --out FOLDER         into another folder than results/gpu

The tests stand a pretended GPU in the place of a card, whose numbers are a CPU's. Here is looked at
what that one cannot prove, in this order:

    machine      versions, rates of products and of copies
    calls        what torch computes by other code on a GPU
    losses       the loss and its gradients at V = 250,027, against float64
    loss-time    how long it takes, beside plain torch
    gradients    base/ against the CPU
    outputs      40 texts in both precisions against the CPU's
    waits        how often a batch waits for the GPU: once
    training     train.py in nine ways, a few updates each
    compiled     --compile without reaching a limit, and learning the same
    real-size    mBART-large: time, memory and kernels of an update of one batch and of three
    decoding     64 documents in small and in large batches

Not here: several processes, for which NCCL wants as many cards (tests/test_train.py and
tests/test_machines.py have them on CPU cores); the peers, which `python -m bench.speed
train-large-qk train-large-full decode-large` measures.

Each check is a process of its own with a limit of its own: one that fails or hangs is a row, and
the next begins. Every row is printed as it comes, what was expected beside what was found, and
kept: gpu_check.json, gpu_check.md (its table, which `python -m bench.speed --write` puts into
BENCHMARKS.md). The exit code is 1 if a row is wrong. Without a card all run on the CPU with tiny
shapes, as a test of themselves, and the columns that need a card say "no card".
"""
import json
import os
import shutil
import sys
import time
from datetime import date
from pathlib import Path

import torch

from bench.on_card import CHECKS, Place, begin, finish
from plumbing.files import UserError, make_folder, parser_of, read_json, run, write_json, write_text
from plumbing.options import COUNT
from plumbing.progress import progress_line, say

RESULTS = Path(__file__).resolve().parent.parent / "results" / "gpu"
SECONDS = 600
VERDICTS = {True: "yes", False: "**no**", None: "–"}


def checked(name, device, folder, seconds):
    """The rows of one check, which gets so many seconds; what went wrong is its last row."""
    scratch = folder / name
    shutil.rmtree(scratch, ignore_errors=True)
    make_folder(scratch)
    place = Place(device, scratch, scratch / "rows.jsonl")
    log = scratch / "log.txt"
    trouble = "no time was left"
    if seconds > 0:
        child = begin(CHECKS[name].function, (place,), log, leads=True)
        trouble = finish(child, seconds, log, leads=True)
    rows = []
    if place.rows.exists():
        for line in place.rows.read_text(encoding="utf-8").splitlines():
            rows.append(json.loads(line))
    if trouble:
        rows.append({"what": name, "expected": "an end", "found": trouble, "right": False})
    return rows


def line(name, row):
    """A row of the table."""
    cells = (name, row["what"], row["expected"], row["found"], VERDICTS[row["right"]])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def page(results):
    """The table, as lines of markdown; none where nothing was checked on a card."""
    if not results or not results["has_card"]:
        return []
    return ["", "## The checks of a card", "", *table(results)]


def table(results):
    lines = [
        f"`python -m bench.gpu_check`, {results['date']}.",
        "",
        "| check | what | expected | found | right |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rows in results["checks"].items():
        lines += [line(name, row) for row in rows]
    return lines


def kept():
    """The results of the last run here on a card, else those that the repository has."""
    here = read_json(RESULTS / "gpu_check.json")
    if here and here["has_card"]:
        return here
    return read_json(Path(__file__).resolve().parent / "gpu_check.json")


def check_all(names, has_card, folder, seconds):
    """Runs these checks within so many seconds; prints and keeps their rows as they come."""
    device = torch.device("cuda" if has_card else "cpu")
    ends = time.monotonic() + seconds
    results = {"date": date.today().isoformat(), "has_card": has_card, "checks": {}}
    with progress_line(title="checks", total=len(names), unit="check") as bar:
        for name in names:
            bar.set_postfix_str(name)
            limit = min(CHECKS[name].limit, ends - time.monotonic())
            rows = checked(name, device, folder, limit)
            results["checks"][name] = rows
            for row in rows:
                say(line(name, row))
            write_json(folder / "gpu_check.json", results)
            write_text(folder / "gpu_check.md", "\n".join(table(results)) + "\n")
            bar.update()
    return results


def parse_args(argv):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("checks", nargs="*", metavar="CHECK", help=f"some of: {' '.join(CHECKS)} (default: all)")
    add("--out", type=Path, default=RESULTS, metavar="FOLDER", help="default: results/gpu")
    add("--seconds", type=COUNT, default=SECONDS, help=f"for all checks (default {SECONDS})")
    args = parser.parse_args(argv)
    for name in args.checks:
        if name not in CHECKS:
            raise UserError(f"there is no check {name!r}; there are: {' '.join(CHECKS)}")
    return args


def main(argv=None):
    args = parse_args(argv)
    # Asked of the driver: a process that has used CUDA itself cannot fork others that do.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    has_card = torch.cuda.is_available()
    if not has_card:
        say("no card: every check runs on the CPU with a tiny shape, as a test of itself")
        torch.optim.AdamW([torch.zeros(1)])  # imports 800 files when it is first called: once
    make_folder(args.out)
    results = check_all(args.checks or list(CHECKS), has_card, args.out, args.seconds)
    wrong = 0
    for rows in results["checks"].values():
        wrong += sum(row["right"] is False for row in rows)
    say(f"{wrong} rows are wrong; all are in {args.out / 'gpu_check.md'}")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
