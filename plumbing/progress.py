"""The one progress line of long work: what is done, how fast it goes, the time that is left.

It stands on standard error as long as the work runs, and on a terminal alone: a log file and a pipe
get none. Every program's --quiet turns it off.

    for page in progress_line(pages, "reading pages", unit="page"):
        ...
    with bytes_bar(size, "reading train.jsonl") as bar:
        bar.update(2**20)
"""
import argparse
import os
import sys

from tqdm import tqdm

LARGE = 50_000_000  # bytes, which take about a second: a smaller file shows no progress


class Quiet(argparse.Action):
    """The option --quiet of every program: it holds for the whole process, and leaves nothing in
    the parsed arguments."""

    asked = False

    def __init__(self, option_strings, dest, **_):
        super().__init__(
            option_strings,
            dest=argparse.SUPPRESS,
            default=argparse.SUPPRESS,
            nargs=0,
            help="show no progress: results, notes and errors alone",
        )

    def __call__(self, *_):
        Quiet.asked = True


def speaks():
    """Does this process speak to the user? Of several that torchrun started the first does. A RANK
    alone, which a cluster's own starter may leave behind, is no sign of others."""
    alone = os.environ.get("WORLD_SIZE", "1") in ("0", "1")
    return alone or os.environ.get("RANK", "0") == "0"


def is_shown():
    """Does this process show progress lines?"""
    return sys.stderr.isatty() and not Quiet.asked and speaks()


def progress_line(items=None, title="", shown=True, **words):
    """A tqdm bar around `items`, or with total=NUMBER one to be updated.

    shown: False where the work is too short for a line. words: more for tqdm."""
    return tqdm(
        items,
        desc=title,
        disable=not (shown and is_shown()),
        leave=False,
        dynamic_ncols=True,
        **words,
    )


def bytes_bar(size, title):
    """The bar of `size` bytes; none where they are read in a moment."""
    return progress_line(title=title, total=size, unit="B", unit_scale=True, shown=size >= LARGE)


def say(text):
    """Prints a line that stays, above the progress line if there is one."""
    tqdm.write(text)
    sys.stdout.flush()


def say_on_the_way(text):
    """say(), of what tells no more than how far the work is: --quiet leaves it out."""
    if not Quiet.asked:
        say(text)
