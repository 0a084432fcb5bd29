"""A program in a process of its own, which ends by printing the process's peak memory in bytes.

    python -m bench.process train.py --stage summarize ...    the program's own arguments behind it

A peak is known of a whole process alone: a row that has one starts every side so.
"""
import argparse
import os
import random
import re
import runpy
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from plumbing.files import UserError, last_line, parser_of, run

ROOT = Path(__file__).resolve().parent.parent
GIB = 2**30  # bytes
STATUS = Path("/proc/self/status")


def free_port():
    """A port that nobody listens at now, and that no connection is given before it is used: those
    that a system gives by itself begin at 32,768 (Linux) or above, unless it is set otherwise."""
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:  # somebody listens there
                continue
            return port
    raise UserError("of a hundred ports from 20,000 to 30,000 none is free; end what holds them")


@dataclass(frozen=True)
class Done:
    """A program that ran to its end."""

    printed: str
    peak: int       # bytes of its process
    seconds: float  # from its process's start to its end


def run_alone(command, threads=1):
    """Runs a program by its command line, which begins with its file; returns its Done. UserError
    if it fails."""
    if not STATUS.exists():
        raise UserError(f"a process's peak memory is read from {STATUS}, which Linux alone has")
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "bench.process", *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = last_line(done.stderr, 500) or "it said nothing"
        raise UserError(f"{command[0]} failed in its own process: {last}")
    printed, _, peak = done.stdout.rstrip().rpartition("\n")
    return Done(printed, int(peak), time.perf_counter() - start)


def peak_memory():
    """Of this process, in bytes. Not getrusage's figure: that one starts at the size of the process
    that started this one."""
    status = STATUS.read_text(encoding="utf-8")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("program", help="the file of a program in this project")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what is typed behind it")
    args = parser.parse_args(argv)
    sys.argv = [args.program, *args.arguments]
    runpy.run_path(str(ROOT / args.program), run_name="__main__")
    print(peak_memory())


if __name__ == "__main__":
    run(main)
