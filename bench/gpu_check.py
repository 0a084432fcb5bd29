"""Does everything work on this GPU, and how fast is it? One command, ten minutes at most.

    python -m bench.gpu_check                      all checks
    python -m bench.gpu_check gradients decoding   some of them, and the machine
    python -m bench.gpu_check --out FOLDER         into another folder than results/gpu

The tests run on a pretended GPU, which computes on the CPU. What that cannot prove is looked at
here, in this order:

    machine        versions, rates of products and of copies
    calls          what torch computes by other code on a GPU
    losses         the loss and its gradients at V = 250,027, against float64
    loss-time      how long it takes, beside plain torch and torch's own loss in chunks
    gradients      base/ against the CPU
    outputs        40 texts in both precisions against the CPU's
    waits          how often a batch waits for the GPU: once
    training       train.py in nine ways, a few updates each
    two-processes  train.py in two on this card, by gloo, against one process
    compiled       --compile without reaching a limit, and learning the same
    real-size      mBART-large: time, memory and kernels of an update of one batch and of three
    decoding       64 documents in small and in large batches
    decoding-step  what of a step of it are kernels

Not here: NCCL, which wants a card for each process (tests/test_train.py and tests/test_machines.py
have several processes on CPU cores, by gloo); the peers, which `python -m bench.speed
train-large-qk train-large-full decode-large` measures.

Each check is a process of its own with a limit of its own: one that fails or hangs is a row, and
the next begins. Every row is printed as it comes, what was expected beside what was found, and
kept: gpu_check.json, gpu_check.md (its table, which `python -m bench.speed --write` puts into
BENCHMARKS.md once every check was run). Checks that are not run now stay as they were found before.
The exit code is 1 if a row is wrong. Without a card all run on the CPU with tiny shapes, as a test
of themselves, and the columns that need a card say "no card".
"""
import json
import shutil
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import torch

from bench.on_card import CHECKS, WAYS, Place, begin, finish, patience
from plumbing.card import table_row
from plumbing.files import (
    UserError,
    last_line,
    make_folder,
    note,
    parser_of,
    read_json,
    run,
    write_json,
    write_text,
)
from plumbing.options import COUNT
from plumbing.progress import progress_line, say

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "gpu"
KEPT = "gpu_check.json"
SCRATCH = "gpu_check"  # a folder of its own: --out may name one that has a run called "training"
SECONDS = 600
VERDICTS = {True: "yes", False: "**no**", None: "–"}


def checked(name, device, folder, seconds):
    """The rows of one check, which gets so many seconds; what went wrong is its last row."""
    scratch = folder / SCRATCH / name
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
    return table_row([name, row["what"], row["expected"], row["found"], VERDICTS[row["right"]]])


def page(results):
    """The table, as lines of markdown; none where nothing was checked on a card."""
    if not results or not results["has_card"]:
        return []
    heading = "## The checks of a card"
    name = card_of(results["checks"].get("machine", []))
    if name:
        heading += f": {name}"
    return ["", heading, "", *table(results)]


def table(results):
    lines = [
        *origin(results),
        "",
        "| check | what | expected | found | right |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, rows in results["checks"].items():
        lines += [line(name, row) for row in rows]
    return lines


def origin(results):
    """Lines that say when the checks were run, and what today's have besides."""
    command = "`python -m bench.gpu_check`"
    by_day = names_by_text(results["measured"])
    if len(by_day) == 1:
        (day,) = by_day
        lines = [f"{command}, {day}."]
    else:
        lines = [f"{command}:", ""]
        lines += [f"- {names}: {day}" for day, names in by_day.items()]
    lines += ["", "A time is the mean of 2 to 10 calls in a row, whose spread is not kept."]
    missing = lacking(results)
    if missing:
        shown = in_backticks(missing)
        lines += ["", f"Not run there, though today's command has them: {shown}."]
    return lines


def names_by_text(texts):
    """{text: the names of which it is said, in a line} of {name: text}."""
    found = {}
    for name, said in texts.items():
        found.setdefault(said, []).append(name)
    return {said: in_backticks(names) for said, names in found.items()}


def in_backticks(names):
    return ", ".join(f"`{name}`" for name in names)


def lacking(results):
    """The names of today's checks, and of train.py's ways, that these results do not have."""
    checks = results["checks"]
    names = [name for name in CHECKS if name not in checks]
    if "training" in checks:
        told = {row["what"] for row in checks["training"]}
        ways = [f"train.py, {way}" for way in WAYS]
        names += [way for way in ways if way not in told]
    return names


def read_results(folder):
    """{"has_card": whether on a card, "checks": {name: rows}, "measured": {name: when}}, or None
    where nothing is kept."""
    results = read_json(folder / KEPT)
    if results and "measured" not in results:  # as it was written before checks were added up
        results["measured"] = dict.fromkeys(results["checks"], results.pop("date"))
    return results


def kept():
    """The results here, once every check was run on the card, else those of the repository."""
    here = read_results(RESULTS)
    if here and here["has_card"]:
        missing = [name for name in CHECKS if name not in here["checks"]]
        if not missing:
            return here
        note(
            f"BENCHMARKS.md keeps the repository's checks of a card: {RESULTS} has not all yet; "
            f"`python -m bench.gpu_check {' '.join(missing)}` adds the others"
        )
    return read_results(HERE)


def earlier(folder, has_card):
    """The results to which this run's are added. UserError for those of a card where there is
    none."""
    results = read_results(folder)
    if results and results["has_card"] and not has_card:
        raise UserError(
            f"{folder / KEPT} is of a card, and here is none; name another folder with --out"
        )
    if not results or results["has_card"] != has_card:  # without a card they were a try
        return {"has_card": has_card, "checks": {}, "measured": {}}
    return results


def refuse_another_card(results, rows, folder):
    """UserError if earlier results are of another card than these rows of "machine"."""
    before = card_of(results["checks"].get("machine", []))
    now = card_of(rows)
    if before and now and before != now:
        raise UserError(
            f"{folder / KEPT} is of another card, {before}, and this is {now}; name another folder "
            "with --out"
        )


def card_of(rows):
    """The card's name in the rows of "machine"; "" where they do not say it."""
    for row in rows:
        if row["what"] == "GPU":
            return row["found"]
    return ""


def check_all(names, has_card, folder, seconds):
    """Runs these checks within so many seconds; prints their rows as they come, and keeps them
    beside those of other checks. Returns the rows of all these checks."""
    device = torch.device("cuda" if has_card else "cpu")
    ends = time.monotonic() + seconds * patience(has_card)
    results = earlier(folder, has_card)
    found = []
    with progress_line(title="checks", total=len(names), unit="check") as bar:
        for name in names:
            bar.set_postfix_str(name)
            limit = min(CHECKS[name].limit * patience(has_card), ends - time.monotonic())
            rows = checked(name, device, folder, limit)
            found += rows
            for row in rows:
                say(line(name, row))
            if name == "machine":
                refuse_another_card(results, rows, folder)
            if limit > 0:  # of one that was not begun stays what an earlier run found
                results["checks"][name] = rows
                results["measured"][name] = date.today().isoformat()
            write_json(folder / KEPT, results)
            write_text(folder / "gpu_check.md", "\n".join(table(results)) + "\n")
            bar.update()
    return found


def is_card_there():
    """Asked in a process of its own: one that has used CUDA cannot fork others that do."""
    asks = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"torch cannot say whether a card is there: {last_line(done.stderr, 300)}")
    return done.stdout.strip() == "True"


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
    has_card = is_card_there()
    if not has_card:
        say("no card: every check runs on the CPU with a tiny shape, as a test of itself")
        torch.optim.AdamW([torch.zeros(1)])  # imports 800 files when it is first called: once
    make_folder(args.out)
    names = list(CHECKS)
    if args.checks:  # the machine first: results of two cards are not to be mixed
        names = [name for name in CHECKS if name == "machine" or name in args.checks]
    rows = check_all(names, has_card, args.out, args.seconds)
    wrong = sum(row["right"] is False for row in rows)
    say(f"{wrong} rows are wrong; all are in {args.out / 'gpu_check.md'}")
    if wrong:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
