"""What the benchmarks found: a line of it printed, measured.json and the page BENCHMARKS.md.

Three programs measure: bench.speed, bench.pipeline and bench.cost. Each keeps its rows beside those
of the others and of other machines, in the repository; their option --write makes the page of all
that is kept.
"""
import platform
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from bench import gpu_check, memory, peak, travel
from bench.peers import (
    BEAM,
    NEW_TOKENS,
    SENTENCES,
    SHAPES,
    UPDATES,
    peer,
    spread,
)
from bench.process import GIB
from plumbing.card import table_row
from plumbing.files import UserError, check_file_out, read_json, write_json, write_text
from plumbing.options import COUNT
from plumbing.plots import plotter, save_figure

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "measured.json"
COST = "cost-"  # begins the names of the cost curve's rows
PICTURE = "cost.svg"
COLORS = {"full": "tab:red", "qk": "tab:blue"}

PAGE = f"""\
# Benchmarks

Written by `python -m bench.speed --write`, `python -m bench.pipeline --write` and
`python -m bench.cost --write`, never by hand; each `--help` says how it measures. A table answers
one question on one machine; the command above it measures it anew. Times, speeds and ratios are
medians of some rounds [lowest–highest]. The sides of a row take turns, and a ratio is formed round
by round, the peer's time divided by ours: above 1 we are faster.

Shapes: A = d {SHAPES["A"].width}, 2+2 layers, vocabulary {SHAPES["A"].vocabulary:,}; B = d
{SHAPES["B"].width}, 4+4 layers, vocabulary {SHAPES["B"].vocabulary:,}; large = mBART-large. CPU:
float32; GPU: bf16. No dropout. `full` trains everything, embeddings too (`--recipe
full+embeddings`, what transformers does unless told otherwise). The machine's limit, a floor of
time, is what the same matrix products would take at the rate of a large product, measured with the
row. Of an update all count, attention's too. Of decoding only those with the decoder's and the
output's matrices at every position (or reading these once a position at the rate of a copy, if that
is longer): not the encoder and cross-attention's keys and values, which are computed once a
sentence, nor attention itself.
"""


# ---------------------------------------------------------------------------------- the tables


@dataclass(frozen=True)
class Table:
    """A question of the page. `lines` makes the table's lines of a row's name and its figures."""

    prefix: str  # of its rows' names
    question: str
    text: str
    command: str
    head: tuple
    lines: Callable
    on_cpu: tuple  # the rows that a CPU should have
    on_card: tuple = ()


NOTHING = "–"


def gibibytes(peaks):
    return spread([peak / GIB for peak in peaks], ".2f")


def speed_lines(name, found):
    """A row of training or decoding. Its first side is ours; another name than that is said."""
    first = next(iter(found["seconds"]))
    ours = f"{spread(found['seconds'][first], '.2f')} s"
    if first != "ours":
        ours = f"{first}: {ours}"
    ratios = []
    for side, value in found["ratio"].items():
        ratios.append(f"{side}: {spread(found['seconds'][side], '.2f')} s, {value}")
    limits = [f"{side} {spread(shares, '.0%')}" for side, shares in found["limit"].items()]
    row = [f"`{name}`", ours, "<br>".join(ratios), "<br>".join(limits), found["same"]]
    return [table_row(row)]


def documents_lines(name, found):
    """A row of decoding a test set: a line for each side."""
    lines = []
    for side, seconds in found["seconds"].items():
        speeds = [found["documents"] / value for value in seconds]
        row = ""
        same = ""
        if side == "ours":
            row = f"`{name}`"
            same = found["same"]
        by_ours = found["ratio"].get(side, NOTHING)
        lines.append(table_row([row, side, spread(speeds, ".0f"), by_ours, same]))
    return lines


def memory_lines(name, found):
    peaks = found["bytes"]
    ratios = [ours / theirs for ours, theirs in zip(peaks["ours"], peaks["transformers"])]
    ours = f"{gibibytes(peaks['ours'])} GiB"
    theirs = f"{gibibytes(peaks['transformers'])} GiB"
    return [table_row([f"`{name}`", ours, theirs, spread(ratios, ".2f")])]


def pipeline_lines(name, found):
    """A row of training as a user has it: a line for each side."""
    lines = []
    passed = (
        f"`{name}`: {found['examples']} examples, {found['tokens']:,} tokens, {found['updates']} "
        "updates"
    )
    for side, seconds in found["seconds"].items():
        speeds = [found["tokens"] / value for value in seconds]
        row = [
            passed if side == "ours" else "",
            side,
            f"{spread(speeds, ',.0f')} tokens/s",
            found["ratio"].get(side, NOTHING),
            f"{gibibytes(found['bytes'][side])} GiB",
            f"{spread(found['around'][side], '.0f')} s",
            found["loss"][side],
        ]
        lines.append(table_row(row))
    return lines


def cost_lines(name, found):
    """A row of the cost curve: a line for each of its points."""
    lines = []
    for point in found["points"]:
        row_cells = [f"`{name}`", f"{point['value']:,}"]
        for recipe in ("full", "qk"):
            seconds = spread(point["seconds"][recipe], ".3f")
            row_cells += [f"{seconds} s", f"{point['limit'][recipe]:.3f} s"]
        ratios = []
        for full, qk in zip(point["seconds"]["full"], point["seconds"]["qk"]):
            ratios.append(full / qk)
        lines.append(table_row([*row_cells, spread(ratios, ".2f")]))
    return lines


SPEED_HEAD = (
    "row",
    "ours",
    "peer: time, ratio",
    "share of the machine's limit",
    "computes the same",
)
TABLES = (
    Table(
        prefix="train-",
        question="How fast is an update, the same arithmetic on both sides?",
        text=f"""\
The time for one data set of {UPDATES} times {SHAPES["A"].batch} random examples (B: {UPDATES} times
{SHAPES["B"].batch}, large: {UPDATES} times {SHAPES["large"].batch}), sources of 60 to 240 tokens
and targets of 15 to 60, in {UPDATES} updates on each side: ours in batches cut by a budget of
padded tokens, transformers' grouped by length. Equal loss and gradients are checked on one batch of
the examples as they come. On a GPU ours is as train.py has it, frozen matrices in half precision,
and once more with `--compile`; transformers is not compiled.""",
        command="python -m bench.speed",
        head=SPEED_HEAD,
        lines=speed_lines,
        on_cpu=("train-A-full", "train-A-qk", "train-B-full", "train-B-qk"),
        on_card=(
            "train-A-full",
            "train-A-qk",
            "train-B-full",
            "train-B-qk",
            "train-large-full",
            "train-large-qk",
        ),
    ),
    Table(
        prefix="pipeline-",
        question="How fast does a user train on real text?",
        text="""\
One pass over the same English examples of `data/help` (the help's sections, descriptions of
packages) by each side's own program in a process of its own: `train.py`, and transformers'
`Seq2SeqTrainer` (`bench/seq2seq.py`) with SDPA, fused AdamW, examples grouped by length and 0 or 2
workers (shape A: `--rounds 2 --workers 0`, for a pass takes minutes). As many updates on both
sides, the same tensors train. Tokens are those of the text, source
and target, padding not counted, by the seconds from the first update to the last. Memory is the
peak of the process, without its workers. "Around" is its time before and after the updates:
start-up, reading, a validation before and after, saving. The loss is of the first examples, before
the pass (equal to within one in the fourth digit, which is checked) and after it.""",
        command="python -m bench.pipeline",
        head=(
            "row",
            "side",
            "speed",
            "its time by ours",
            "peak memory",
            "around",
            "loss before, after",
        ),
        lines=pipeline_lines,
        on_cpu=("pipeline-A-full", "pipeline-A-qk", "pipeline-B-full", "pipeline-B-qk"),
    ),
    Table(
        prefix=COST,
        question="What does an update cost?",
        text="""\
Seconds of one of our updates against the tokens in it, the layers of each stack and the vocabulary,
one varied at a time around shape B; the floor is the machine's limit; "full by qk" is full's time
divided by qk's.""",
        command="python -m bench.cost",
        head=("row", "value", "full", "its floor", "qk", "its floor", "full by qk"),
        lines=cost_lines,
        on_cpu=("cost-layers", "cost-tokens", "cost-vocabulary"),
    ),
    Table(
        prefix="decode-",
        question="How fast does it decode?",
        text=f"""\
{SENTENCES} sentences of 60 to 240 tokens, beam {BEAM}, {NEW_TOKENS} new tokens. On a GPU
transformers is the only peer: CTranslate2, which runs there too, is not measured.""",
        command="python -m bench.speed",
        head=SPEED_HEAD,
        lines=speed_lines,
        on_cpu=("decode-A", "decode-B"),
        on_card=("decode-A", "decode-B", "decode-large"),
    ),
    Table(
        prefix="documents-",
        question="How fast is a test set decoded?",
        text="""\
500 English test documents of the built-in corpus through `base/`, which copies them, in `eval.py`'s
own batches and in CTranslate2's best ones, beam 5, at most 100 new tokens; outputs end where the
models end them, and words may repeat, as they do in what is copied. Ours with `--early-stopping`,
the search that CTranslate2 has, and without.""",
        command="python -m bench.speed",
        head=("row", "side", "documents a second", "its time by ours", "the same outputs"),
        lines=documents_lines,
        on_cpu=("documents-base",),
    ),
    Table(
        prefix="memory-",
        question="How much memory does an update take?",
        text="""\
The peak of a process that takes three steps, on the same batches for both sides.""",
        command="python -m bench.speed",
        head=("row", "ours", "transformers", "ours by theirs"),
        lines=memory_lines,
        on_cpu=("memory-A-full", "memory-A-qk"),
    ),
)


def table_of(row):
    """The Table in which a row of this name stands."""
    for table in TABLES:
        if row.startswith(table.prefix):
            return table
    raise ValueError(f"no table for {row}")


# ---------------------------------------------------------------------------------- the page


def page(results):
    """BENCHMARKS.md; results: {machine: {row: its figures}}."""
    lines = [PAGE.rstrip()]
    for table in TABLES:
        machines = rows_of(table.prefix, results)
        lines += ["", f"## {table.question}", "", table.text]
        if not machines:
            lines += ["", f"Not measured yet: `{table.command}`."]
            continue
        if table.prefix == COST:
            lines += ["", f"![{CAPTION}]({PICTURE})"]
        for name, rows in machines.items():
            lines += section(table, name, rows)
        others = [name for name in results if name not in machines]
        lines += not_measured_on(others, table)
    if all(is_cpu(name) for name in results):
        lines += [
            "",
            "## On a GPU",
            "",
            "Not measured yet: none was at hand. `python -m bench.speed --write` on a machine with "
            "one adds its tables.",
        ]
    lines += gpu_check.page(gpu_check.kept())
    for part in (travel, memory, peak):
        lines += ["", *part.page()]
    return "\n".join(lines) + "\n"


def rows_of(prefix, results):
    """{machine: {row: figures}} of the rows whose names begin so; without machines that have
    none."""
    found = {}
    for name, rows in results.items():
        some = {row: rows[row] for row in sorted(rows) if row.startswith(prefix)}
        if some:
            found[name] = some
    return found


def section(table, name, rows):
    """A table of one machine: the command that measures it, its rows, what they were measured
    with."""
    command = f"{table.command} {' '.join(rows)}"
    threads = next(iter(rows.values()))["threads"]
    if threads > 1:
        command += f" --threads {threads}"
    lines = ["", f"### {name}", "", "```", command, "```", ""]
    lines += [table_row(table.head), table_row(["---"] * len(table.head))]
    for row, found in rows.items():
        lines += table.lines(row, found)
    lines += ["", *measured_with(rows)]
    missing = [row for row in wanted(table, name) if row not in rows]
    if missing:
        lines += ["", f"Not measured here: {gpu_check.in_backticks(missing)}."]
    return lines


def not_measured_on(names, table):
    """Lines that say which rows of a table these machines lack, of which none has any."""
    missing = {}
    for name in names:
        rows = wanted(table, name)
        if rows:
            missing[name] = gpu_check.in_backticks(rows)
    lines = []
    for rows, machines in gpu_check.names_by_text(missing).items():
        lines += ["", f"Not measured on {machines}: {rows}."]
    return lines


def wanted(table, name):
    """The names of the rows of a table that this kind of machine should have."""
    if is_cpu(name):
        return table.on_cpu
    return table.on_card


def measured_with(rows):
    """Lines that say with what the rows were measured and when, each of which is said once."""
    by_origin = gpu_check.names_by_text({row: origin(found) for row, found in rows.items()})
    if len(by_origin) == 1:
        (measured,) = by_origin
        return [f"Measured with {measured}."]
    return [f"- {names}: {measured}" for measured, names in by_origin.items()]


def origin(found):
    """With what a row was measured, in words, and the rates behind its shares of the limit."""
    if "rates" not in found:
        return found["measured"]
    products = found["rates"]["products"] / 1e9
    copies = found["rates"]["copies"] / 1e9
    rates = f"products at {products:,.0f} GFLOP/s, copies at {copies:,.0f} GB/s"
    return f"{found['measured']}; the limit by {rates}"


# ---------------------------------------------------------------------------------- the picture

CAPTION = (
    "Seconds per update under full and qk against tokens, layers and vocabulary, with the floor "
    "of each"
)


def draw(results, path):
    """Writes the cost curve as an SVG: a row of panels for each machine."""
    plt = plotter()
    machines = rows_of(COST, results)
    columns = max(len(rows) for rows in machines.values())
    size = (3.2 * columns, 3 * len(machines))
    figure, axes = plt.subplots(len(machines), columns, figsize=size, squeeze=False)
    for line, (name, rows) in zip(axes, machines.items()):
        line[0].set_title(name, loc="left", fontsize=8)
        line[0].set_ylabel("seconds per update")
        for panel, (row, found) in zip(line, rows.items()):
            draw_panel(panel, found["points"])
            panel.set_xlabel(row.removeprefix(COST))
        for panel in line[len(rows):]:
            panel.set_axis_off()
    axes[0][0].legend(frameon=False)
    figure.tight_layout()
    save_figure(figure, path)
    plt.close(figure)


def draw_panel(panel, points):
    """Both recipes over one of the three: the median, a bar from the lowest to the highest round,
    and the floor as a dotted line."""
    values = [point["value"] for point in points]
    for recipe, color in COLORS.items():
        rounds = [point["seconds"][recipe] for point in points]
        middle = [statistics.median(seconds) for seconds in rounds]
        below = [median - min(seconds) for median, seconds in zip(middle, rounds)]
        above = [max(seconds) - median for median, seconds in zip(middle, rounds)]
        panel.errorbar(values, middle, [below, above], color=color, label=recipe, marker=".")
        limits = [point["limit"][recipe] for point in points]
        panel.plot(values, limits, color=color, linestyle=":", label=f"{recipe}: floor")
    panel.set_xlim(left=0)
    panel.set_ylim(bottom=0)
    panel.locator_params(axis="x", nbins=4)  # numbers of six digits stand side by side
    panel.xaxis.set_major_formatter("{x:,.0f}")


# ---------------------------------------------------------------------------------- what is kept


def machine(device):
    """The name of this machine, under which its rows stand. A processor's alone does not tell its
    instructions: there are machines of one name with AVX-512 and with AVX2 alone."""
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    parts = [processor(), torch.backends.cpu.get_cpu_capability()]
    parts.append(f"{threads} thread{'s' if threads > 1 else ''}")
    return ", ".join(parts)


def is_cpu(name):
    """Is the machine of this name a CPU? Only there threads are counted."""
    return name.endswith((" thread", " threads"))


def processor(file=Path("/proc/cpuinfo")):
    if file.exists():
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()  # Linux on ARM has no name there


def measured_today(libraries=()):
    """With what a row is measured, in words: versions, the date."""
    parts = [f"torch {torch.__version__}"]
    parts += [f"{library} {peer(library).__version__}" for library in libraries]
    return ", ".join([*parts, date.today().isoformat()])


def measure(known, names, device, libraries=()):
    """Measures the rows `names`, all without any; prints and keeps each as it comes. Returns all
    results, those of earlier runs and of other machines too.

    known: {row: a function that measures it and returns its figures}."""
    functions = chosen(known, names)
    check_file_out(RESULTS)
    read_json(RESULTS)  # a damaged file is told before the hours, not behind them
    here = machine(device)
    today = measured_today(libraries)
    for name, function in functions.items():
        found = function()
        found |= {"measured": today, "threads": torch.get_num_threads()}
        print_row(name, found)
        results = read_json(RESULTS) or {}  # now: another program may have kept rows meanwhile
        results.setdefault(here, {})[name] = found
        write_json(RESULTS, results)
    return results


def chosen(known, names):
    """Those of {row: function} that are named, all where none is; UserError for another name."""
    for name in names:
        if name not in known:
            raise UserError(f"there is no row {name!r} here; there are: {' '.join(known)}")
    return {name: known[name] for name in names or known}


def print_row(name, found):
    print("\n".join(table_of(name).lines(name, found)), flush=True)


def write_page(results):
    """Writes BENCHMARKS.md and its picture."""
    if rows_of(COST, results):
        draw(results, HERE / PICTURE)
    write_text(HERE / "BENCHMARKS.md", page(results))


# ---------------------------------------------------------------------------------- the options


def add_options(parser, rows, rounds):
    """What the three programs have in common; rounds: their default, in words."""
    add = parser.add_argument
    add("rows", nargs="*", metavar="ROW", help=f"some of: {' '.join(rows)}")
    add("--rounds", type=COUNT, help=f"default: {rounds}")
    add("--threads", type=COUNT, default=1, help="of the CPU (default 1)")
    add("--write", action="store_true", help="write BENCHMARKS.md; rows measured before stay in it")


def add_scratch(parser, what):
    parser.add_argument(
        "--scratch",
        default=Path(tempfile.gettempdir()) / "qkbart-bench",
        type=Path,
        metavar="FOLDER",
        help=f"for {what} (default: %(default)s)",
    )
