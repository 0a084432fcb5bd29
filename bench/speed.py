"""How fast, and how much memory? Side by side with transformers and CTranslate2, in one process.

    python -m bench.speed                     every comparison for this machine, a line each as it is measured
    python -m bench.speed train-A-qk          one of them; --rounds 10 for a narrower spread
    python -m bench.speed --write             all, and BENCHMARKS.md from them (about 30 minutes on one CPU thread)
    python -m bench.speed memory [FOLDER] --measure qk full     what a recipe needs: weights, gradients, AdamW; measured peak

Both sides have the same random checkpoint, written by transformers, the same inputs and the same options; first it is
checked that they compute the same: equal loss and gradients, equal output ids. Then they take turns, round by round,
and the ratio of each round is formed: this machine's speed may swing, the ratio hardly does. The peer runs its best
settings: SDPA attention and fused AdamW (its default AdamW is shown too); on a GPU bf16 autocast on both sides.

A share of the machine's limit is the time that the same matrix products would take at the rate of a large product
(decoding: or reading all weights once a position at the rate of a copy, if that is longer), measured in the same run.
"""
import argparse
import json
import platform
import tempfile
from datetime import date
from pathlib import Path

import torch

from bench.peers import BEAM, NEW, SENTENCES, bench_decode, bench_memory, bench_train, peak_of_a_step, rates
from model import Config
from plumbing.files import UserError, run
from qk_finetune import RECIPES, SIDES, parameters_by_recipe

GIB, HERE = 2**30, Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "bench.json"
PAGE = f"""# Benchmarks

Written by `python -m bench.speed --write`, never by hand; `python -m bench.speed ROW --write` measures one row anew. A ratio is the
peer's time divided by ours, round by round: median [lowest–highest]; above 1 we are faster. Shapes: A = d 1024, 2+2
layers, vocabulary 250,027; B = d 256, 4+4 layers, vocabulary 8,000; large = mBART-large. Training: batches of 8 (B: 16,
large: 32) sources of 60 to 240 tokens and targets of 15 to 60, as they come, no dropout; `full` trains everything,
embeddings too. Decoding: {SENTENCES} sentences of 60 to 240 tokens, beam {BEAM}, {NEW} new tokens. CPU: float32;
GPU: bf16. Memory: the peak of a process that takes three steps. What the limit is, `python -m bench.speed --help` says.
"""


def needs(config):
    """{recipe: (weights, gradients, AdamW's moments) in bytes} of a model of this shape in float32; without those of a
    new language, which need as much as full+embeddings or less."""
    return {recipe: (4 * total, 4 * trains, 8 * trains)
            for recipe, (total, trains) in parameters_by_recipe(config).items()
            if recipe.split("+")[0] not in SIDES}


def memory_table(folder, measure, rows):
    """Prints what every recipe needs; `measure`d ones take real steps of this shape in processes of their own."""
    file = str(Path(folder) / "config.json") if folder else ""
    print(f"{'recipe, GiB':<18}{'weights':>9}{'gradients':>11}{'AdamW':>8}{'sum':>8}   measured peak of a step with "
          f"{rows} x (128 + 32) tokens")
    for recipe, parts in needs(Config.read(file) if file else Config()).items():
        measured = ""
        if recipe in measure:
            measured = f"{peak_of_a_step(file, recipe, str(rows)) / GIB:>8.1f}"
        print(f"{recipe:<18}{parts[0] / GIB:>9.2f}{parts[1] / GIB:>11.2f}{parts[2] / GIB:>8.2f}"
              f"{sum(parts) / GIB:>8.2f}{measured}", flush=True)


# ---------------------------------------------------------------------------------------------- the page

def versions(device):
    import transformers
    words = [f"torch {torch.__version__}", f"transformers {transformers.__version__}"]
    if device.type == "cpu":
        import ctranslate2
        words.append(f"CTranslate2 {ctranslate2.__version__}")
    return ", ".join(words)


def machine(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    flops, bandwidth = rates(device)
    return (f"{name}, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}; products at "
            f"{flops / 1e9:.0f} GFLOP/s, copies at {bandwidth / 1e9:.0f} GB/s")


def line(name, found):
    """One result as a row of the page."""
    if "bytes" in found:
        ours, theirs = (found["bytes"][who] / GIB for who in ("ours", "transformers"))
        return f"| `{name}` | {ours:.2f} GiB | {theirs:.2f} GiB, ratio {ours / theirs:.2f} | – | – |"
    shares = ", ".join(f"{side} {share:.0%}" for side, share in found["limit"].items())
    ratios = "<br>".join(f"{side}: {found['seconds'][side]:.2f} s, {value}" for side, value in found["ratio"].items())
    return f"| `{name}` | {found['seconds']['ours']:.2f} s | {ratios} | {shares} | {found['same']} |"


def page(results):
    words = [PAGE.rstrip()]
    for name, place in results.items():
        words += ["", f"## {name}", "", f"{place['versions']}, {place['date']}.", "",
                  "| row | ours | peer: time, ratio | share of the machine's limit | computes the same |",
                  "| --- | --- | --- | --- | --- |"]
        words += [line(*row) for row in sorted(place["rows"].items())]
    if not any("NVIDIA" in name for name in results):
        words += ["", "## GPU", "", "Not measured yet: none was at hand. `python -m bench.speed --write` on a machine with "
                  "one adds its table."]
    return "\n".join(words) + "\n"


def rows(device):
    """{row: a function of (rounds, scratch) that measures it} for this machine."""
    found = {}
    for name in ("A", "B") if device.type == "cpu" else ("A", "B", "large"):
        for recipe in ("full", "qk"):
            found[f"train-{name}-{recipe}"] = lambda rounds, scratch, name=name, recipe=recipe: bench_train(
                name, recipe, rounds, device, scratch)
        found[f"decode-{name}"] = lambda rounds, scratch, name=name: bench_decode(name, rounds, device, scratch)
        if device.type == "cpu" and name == "A":
            for recipe in ("full", "qk"):
                found[f"memory-{name}-{recipe}"] = lambda _, scratch, name=name, recipe=recipe: bench_memory(
                    name, recipe, scratch)
    return found


def main(argv=None):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog=__doc__.split("\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="ROW", help=f"memory [FOLDER], or some of: {' '.join(rows(device))}")
    parser.add_argument("--rounds", type=int, default=0, help="default: 5 for A and large, 15 for B")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default 1)")
    parser.add_argument("--write", action="store_true", help="write BENCHMARKS.md; rows measured before stay in it")
    parser.add_argument("--scratch", default=Path(tempfile.gettempdir()) / "qkbart-bench", type=Path,
                        help="folder for the random checkpoints, 4 GB (default: %(default)s)")
    parser.add_argument("--measure", nargs="*", default=[], choices=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--rows", type=int, default=8, help="memory: sequences in the measured batch, each of 128 "
                        "source and 32 target tokens (default 8)")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.what[:1] == ["memory"]:
        return memory_table(args.what[1] if len(args.what) > 1 else None, args.measure, args.rows)
    if unknown := [name for name in args.what if name not in rows(device)]:
        raise UserError(f"there is no row {unknown[0]!r} here; there are: memory {' '.join(rows(device))}")
    where, _, speed = machine(device).partition("; ")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    place = {"versions": f"{versions(device)}; {speed}", "date": date.today().isoformat(),
             "rows": results.get(where, {"rows": {}})["rows"]}
    for name, measure in rows(device).items():
        if not args.what or name in args.what:
            place["rows"][name] = measure(args.rounds or (15 if "-B" in name else 5), args.scratch)
            print(line(name, place["rows"][name]), flush=True)
            results[where] = place
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1))
    if args.write:
        (HERE / "BENCHMARKS.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    run(main)
