"""How fast, and how much memory? Side by side with transformers and CTranslate2.

    python -m bench.speed               every row for this machine, a line each as it is measured
    python -m bench.speed train-A-qk    one of them; --rounds 10 for a narrower spread
    python -m bench.speed --write       all, and BENCHMARKS.md from them (an hour on one thread)

Both sides have the same random checkpoint, written by transformers, the same inputs and the same
options; first it is checked that they compute the same: equal loss and gradients, equal output ids
(a GPU decodes in float32 for that, and in bf16 for the clock).
Then they take turns, round by round, and the ratio of each round is formed: this machine's speed
may swing, the ratio hardly does. The peer runs its best settings: SDPA attention and fused AdamW
(its default AdamW is shown too), examples grouped by length; on a GPU bf16 autocast on both sides.

A share of the machine's limit: the time that the same matrix products would take at the rate of a
large product, measured with the row, divided by the side's own time. Of an update all count,
attention's too. Of decoding only those with the decoder's and the output's matrices at every
position (or reading these once a position at the rate of a copy, if that is longer): not the
encoder and cross-attention's keys and values, which are computed once a sentence, nor attention
itself.
"""
from functools import partial

import torch

from bench.documents import bench_documents
from bench.peers import RECIPE_OF, bench_decode, bench_train, both_models, in_turns
from bench.results import add_options, add_scratch, measure, write_page
from bench.step import peak_of_a_step
from plumbing.files import parser_of, run

MEASURED_ON = {"cpu": ("A", "B"), "cuda": ("A", "B", "large")}  # shapes


# ---------------------------------------------------------------------------------- the rows


def measures(device, rounds=None, scratch=None):
    """{row: a function that measures it} on this machine; rounds: None for each row's own."""
    found = {}
    for name in MEASURED_ON[device.type]:
        small = name == "B"
        training = rounds or (5 if small else 3)
        decoding = rounds or (15 if small else 5)
        for recipe in RECIPE_OF:
            row = f"train-{name}-{recipe}"
            found[row] = partial(bench_train, name, recipe, training, device, scratch)
        found[f"decode-{name}"] = partial(bench_decode, name, decoding, device, scratch)
    if device.type == "cpu":
        found["documents-base"] = partial(bench_documents, rounds or 5, device, scratch)
        for recipe in RECIPE_OF:
            row = f"memory-A-{recipe}"
            found[row] = partial(bench_memory, recipe, rounds or 2, scratch)
    return found


def bench_memory(recipe, rounds, scratch):
    """A memory row, of shape A: the peak of each side in bytes. It hardly swings."""
    folder = scratch / "A"
    both_models("A", folder, torch.device("cpu"))
    sides = {}
    threads = torch.get_num_threads()
    for side in ("ours", "transformers"):
        sides[side] = partial(peak_of_a_step, folder, RECIPE_OF[recipe], side, threads=threads)
    return {"bytes": in_turns(sides, rounds, f"memory A, {recipe}")}


# ---------------------------------------------------------------------------------- the program


def parse_args(argv, device):
    parser = parser_of(__doc__)
    rounds = "training 3 (B: 5), decoding 5 (B: 15), documents 5, memory 2"
    add_options(parser, measures(device), rounds)
    add_scratch(parser, "the random checkpoints, 4 GB")
    return parser.parse_args(argv)


def main(argv=None):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    args = parse_args(argv, device)
    torch.set_num_threads(args.threads)
    libraries = ["transformers"]
    if device.type == "cpu":
        libraries.append("ctranslate2")
    rows = measures(device, args.rounds, args.scratch)
    results = measure(rows, args.rows, device, libraries)
    if args.write:
        write_page(results)


if __name__ == "__main__":
    run(main)
