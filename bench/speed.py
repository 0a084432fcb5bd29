"""How fast, and how much memory? Side by side with transformers and CTranslate2, in one process.

    python -m bench.speed               every row for this machine, a line each as it is measured
    python -m bench.speed train-A-qk    one of them; --rounds 10 for a narrower spread
    python -m bench.speed --write       all, and BENCHMARKS.md from them (40 minutes on one thread)

Both sides have the same random checkpoint, written by transformers, the same inputs and the same
options; first it is checked that they compute the same: equal loss and gradients, equal output ids.
Then they take turns, round by round, and the ratio of each round is formed: this machine's speed
may swing, the ratio hardly does. The peer runs its best settings: SDPA attention and fused AdamW
(its default AdamW is shown too), examples grouped by length; on a GPU bf16 autocast on both sides.

A share of the machine's limit is the time that the same matrix products would take at the rate of a
large product (decoding: or reading all weights once a position at the rate of a copy, if that is
longer), measured in the same run.
"""
import platform
import tempfile
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path

import torch

from bench import gpu_check, travel
from bench.peers import (
    BEAM,
    NEW_TOKENS,
    RECIPE_OF,
    SENTENCES,
    SHAPES,
    UPDATES,
    bench_decode,
    bench_train,
    pair,
    peer,
    rates,
)
from bench.step import STEPS, peak_of_a_step
from plumbing.files import UserError, parser_of, read_json, run, write_json, write_text
from plumbing.options import COUNT

GIB = 2**30
HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "bench.json"
MEASURED_ON = {"cpu": ("A", "B"), "cuda": ("A", "B", "large")}  # shapes

PAGE = f"""\
# Benchmarks

Written by `python -m bench.speed --write`, never by hand; `python -m bench.speed ROW --write`
measures one row anew. A ratio is the peer's time divided by ours, round by round: median
[lowest–highest]; above 1 we are faster. Shapes: A = d 1024, 2+2 layers, vocabulary 250,027; B =
d 256, 4+4 layers, vocabulary 8,000; large = mBART-large. CPU: float32; GPU: bf16. What the limit
is, `python -m bench.speed --help` says.

Training: the time for one data set of {UPDATES} x {SHAPES["A"].batch} examples (B: {UPDATES} x
{SHAPES["B"].batch}, large: {UPDATES} x {SHAPES["large"].batch}), sources of 60 to 240 tokens and
targets of 15 to 60. Each side trains on it through its own pipeline: ours cuts batches by a budget
of padded tokens, transformers' groups the examples by length and takes {SHAPES["A"].batch} of them
at a time (B: {SHAPES["B"].batch}, large: {SHAPES["large"].batch}). Both take {UPDATES} updates. No
dropout; `full` trains everything, embeddings too. That both compute the same is checked on one
batch of the examples as they come.

Decoding: {SENTENCES} sentences of 60 to 240 tokens, beam {BEAM}, {NEW_TOKENS} new tokens. Memory:
the peak of a process that takes {STEPS} steps, on the same batches for both sides.
"""


# ---------------------------------------------------------------------------------- the rows


@dataclass(frozen=True)
class Measure:
    """How a row is measured: a function of (rounds, scratch), and its usual number of rounds."""

    function: partial
    rounds: int


def measures(device):
    """{row: Measure} for this machine."""
    found = {}
    for name in MEASURED_ON[device.type]:
        small = name == "B"
        for recipe in RECIPE_OF:
            train = partial(bench_train, name, recipe, device=device)
            found[f"train-{name}-{recipe}"] = Measure(train, rounds=5 if small else 3)
        decode = partial(bench_decode, name, device=device)
        found[f"decode-{name}"] = Measure(decode, rounds=15 if small else 5)
    if device.type == "cpu":
        for recipe in RECIPE_OF:
            found[f"memory-A-{recipe}"] = Measure(partial(bench_memory, "A", recipe), rounds=1)
    return found


def bench_memory(name, recipe, rounds, scratch):
    """A memory row: the peak of each side in bytes. It does not swing: one round is enough."""
    pair(name, scratch / name, torch.device("cpu"))
    peaks = {}
    for side in ("ours", "transformers"):
        peaks[side] = peak_of_a_step(scratch / name, RECIPE_OF[recipe], side)
    return {"bytes": peaks}


# ---------------------------------------------------------------------------------- the page


def versions(device):
    words = [f"torch {torch.__version__}", f"transformers {peer('transformers').__version__}"]
    if device.type == "cpu":
        words.append(f"CTranslate2 {peer('ctranslate2').__version__}")
    return ", ".join(words)


def machine(device):
    """The name of this machine, under which its rows stand."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}"


def processor():
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor()


def speed_of(device):
    """What its rows are to be compared with, in words; "" for a GPU."""
    if device.type == "cuda":
        return ""
    measured = rates(device)
    return (
        f"products at {measured.products / 1e9:.0f} GFLOP/s, copies at "
        f"{measured.copies / 1e9:.0f} GB/s"
    )


def line(name, found):
    """One result as a row of the page."""
    if "bytes" in found:
        ours = found["bytes"]["ours"] / GIB
        theirs = found["bytes"]["transformers"] / GIB
        peak = f"{theirs:.2f} GiB, ratio {ours / theirs:.2f}"
        return f"| `{name}` | {ours:.2f} GiB | {peak} | – | – |"
    ratios = []
    for side, value in found["ratio"].items():
        ratios.append(f"{side}: {found['seconds'][side]:.2f} s, {value}")
    shares = [f"{side} {share:.0%}" for side, share in found["limit"].items()]
    cells = [
        f"`{name}`",
        f"{found['seconds']['ours']:.2f} s",
        "<br>".join(ratios),
        ", ".join(shares),
        found["same"],
    ]
    return "| " + " | ".join(cells) + " |"


def page(results):
    """BENCHMARKS.md; results: {machine: {"versions", "date", "rows": {row: its figures}}}."""
    words = [PAGE.rstrip()]
    for name, place in results.items():
        words += [
            "",
            f"## {name}",
            "",
            f"{place['versions']}, {place['date']}.",
            "",
            "| row | ours | peer: time, ratio | share of the machine's limit | computes the same |",
            "| --- | --- | --- | --- | --- |",
        ]
        for row, found in sorted(place["rows"].items()):
            words.append(line(row, found))
    if not any("NVIDIA" in name for name in results):
        words += [
            "",
            "## GPU",
            "",
            "Not measured yet: none was at hand. `python -m bench.speed --write` on a machine with "
            "one adds its table.",
        ]
    words += gpu_check.page(gpu_check.kept())
    words += ["", *travel.page()]
    return "\n".join(words) + "\n"


# ---------------------------------------------------------------------------------- the program


def measure(names, device, rounds, scratch):
    """Measures these rows, all without any; prints and keeps each as it comes. Returns all results,
    those of earlier runs and of other machines too."""
    known = measures(device)
    for name in names:
        if name not in known:
            raise UserError(f"there is no row {name!r} here; there are: {' '.join(known)}")
    here = machine(device)
    results = read_json(RESULTS) or {}
    place = {
        "versions": "; ".join(filter(None, (versions(device), speed_of(device)))),
        "date": date.today().isoformat(),
        "rows": results.get(here, {}).get("rows", {}),
    }
    results[here] = place
    RESULTS.parent.mkdir(exist_ok=True)
    for name in names or known:
        row = known[name]
        place["rows"][name] = row.function(rounds=rounds or row.rounds, scratch=scratch)
        print(line(name, place["rows"][name]), flush=True)
        write_json(RESULTS, results)
    return results


def parse_args(argv, device):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("rows", nargs="*", metavar="ROW", help=f"some of: {' '.join(measures(device))}")
    add("--rounds", type=COUNT, help="default: training 3 (B: 5), decoding 5 (B: 15)")
    add("--threads", type=COUNT, default=1, help="of the CPU (default 1)")
    add("--write", action="store_true", help="write BENCHMARKS.md; rows measured before stay in it")
    add(
        "--scratch",
        default=Path(tempfile.gettempdir()) / "qkbart-bench",
        type=Path,
        metavar="FOLDER",
        help="for the random checkpoints, 4 GB (default: %(default)s)",
    )
    return parser.parse_args(argv)


def main(argv=None):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args = parse_args(argv, device)
    torch.set_num_threads(args.threads)
    results = measure(args.rows, device, args.rounds, args.scratch)
    if args.write:
        write_text(HERE / "BENCHMARKS.md", page(results))


if __name__ == "__main__":
    run(main)
