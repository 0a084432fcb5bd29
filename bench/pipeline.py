"""Training on a CPU as a user has it: train.py beside transformers' Seq2SeqTrainer, on real text.

    python -m bench.pipeline                     every row, a line for each side as it is measured
    python -m bench.pipeline pipeline-B-qk       one of them; --rounds 10 for a narrower spread
    python -m bench.pipeline --write             all, and BENCHMARKS.md (hours on one thread)

Both sides start from one folder, a random model with a real vocabulary, and go once through the
same English examples of `--data help:` (`python -m corpora.help` makes it), each by its own program
in a process of its own: `train.py --stage summarize`, and bench/seq2seq.py, which is what users of
transformers write. They take turns, round by round.

ROWS  pipeline-SHAPE-RECIPE. Shapes: A = d 1024, 2+2 layers, vocabulary 250,027; B = d 256, 4+4
      layers, vocabulary 8,000: base-help's own, filled up with pieces that no text uses. full:
      everything trains, embeddings too, as in transformers unless told otherwise (--recipe
      full+embeddings); qk: the same queries and keys on both sides, by requires_grad on theirs. The
      row qk has `train.py --recipe full`, all layers under frozen embeddings, as a third side.
PASS  train.py draws its examples in pools of 32 batches' worth and cuts each by a budget of tokens.
      The data set is such a pool, so chosen that it makes as many batches as the peer's of a fixed
      number of sequences: both sides see every example once, in as many updates.
TIME  From the first update's start to the last one's end; both sides have their examples as ids by
      then. (train.py makes those of its next pool meanwhile, in a thread; that is counted.) Tokens
      are those of the text, source and target, padding not counted. The rest of a process is told
      apart: start-up, a validation before and after, saving.
SAME  The validation examples are the first batch's worth of training examples: before the pass both
      sides' losses of them must be equal to within one in the fourth digit, the last that train.py
      prints. Both clip gradients by norm 1, have no dropout and no weight decay, and lower the same
      learning rate linearly. Texts whose ids differ between the tokenizers are left out:
      transformers' leaves out SentencePiece's normalization.
"""
import json
import random
import re
import shutil
import struct
from dataclasses import dataclass
from functools import partial

import torch

from bench.peers import RECIPE_OF, SHAPES, in_turns, peer, ratio, write_checkpoint
from bench.process import ROOT, run_alone
from bench.results import add_options, add_scratch, measure, write_page
from corpora.sets import KINDS, check_spec, is_builtin, open_data
from data import Batches, Examples
from plumbing.files import UserError, make_folder, parser_of, run, write_bytes
from plumbing.options import number
from plumbing.progress import progress_line
from plumbing.runs import read_log
from qk_finetune import RECIPES
from tokenizer import MBART25, MODEL_FILE, Tokenizer, load_pieces

LANG = "en_XX"
PAIR = (LANG, LANG)
VOCABULARY = ROOT / "base-help" / MODEL_FILE
RATE = 1e-4
LONGEST = 1024  # tokens that the models take
LARGEST_POOL = 48  # batches: a pool of 32 batches' worth makes a few more, for none is quite full
SMALLEST_POOL = 30


# ---------------------------------------------------------------------------------- the model


def write_model(name, folder):
    """A random model of a shape with a real vocabulary, as both sides open it; its Tokenizer."""
    write_checkpoint(name, folder)
    pieces = SHAPES[name].vocabulary - len(MBART25) - 2  # the ids move by one, and <mask>
    path = folder / MODEL_FILE
    write_bytes(path, filled_up(VOCABULARY, pieces))
    tokenizer = Tokenizer(path, "mbart25")
    tokenizer.save_pretrained(folder)
    return tokenizer


def filled_up(path, count):
    """The bytes of a SentencePiece model with pieces that no text uses behind its own, `count` in
    all. The file is a protobuf message: what is put behind it adds to its list of pieces."""
    known = load_pieces(path)
    own = known.get_piece_size()
    lowest = min(known.get_score(piece) for piece in range(own))
    more = [entry(f"\ue000{number}", lowest) for number in range(own, count)]
    return path.read_bytes() + b"".join(more)


def entry(piece, score):
    """A piece as SentencePiece's file has it: field 1, a message of the piece (field 1) and its
    score (field 2)."""
    text = piece.encode("utf-8")
    message = b"\x0a" + bytes([len(text)]) + text + b"\x15" + struct.pack("<f", score)
    return b"\x0a" + bytes([len(message)]) + message


# ---------------------------------------------------------------------------------- the data


@dataclass(frozen=True)
class Pass:
    """One data set, and how both sides go through it once."""

    texts: list   # (source, target)
    tokens: int   # of source and target, padding not counted
    updates: int
    size: int     # of the peer's batches, in examples
    budget: int   # of ours, in padded tokens


class Ids:
    """Examples of one pair as ids, for Batches to draw."""

    def __init__(self, rows):
        self.rows = rows
        self.sizes = {PAIR: len(rows)}

    def __call__(self, pair, index):
        return self.rows[index]


def check_data(spec):
    """UserError for --data of which no pass can be made: said before anything long."""
    if is_builtin(spec):
        kinds = ", ".join(f"{kind}:DIR" for kind in KINDS)
        raise UserError(
            f"--data {spec}: the built-in corpus has no end, and a pass goes through its examples "
            f"once; name one of {kinds}"
        )
    check_spec(spec)


def some_texts(data, count, folder, tokenizer):
    """`count` (source, target) texts of a data set, from all over it, which both tokenizers read
    alike. UserError if there are fewer."""
    theirs = peer("transformers").AutoTokenizer.from_pretrained(folder)
    theirs.src_lang = LANG
    theirs.tgt_lang = LANG
    order = list(range(data.sizes[PAIR]))
    random.Random(0).shuffle(order)
    texts = []
    with progress_line(title="choosing examples", total=count, unit="text") as bar:
        for index in order:
            source, target = data.text(PAIR, index)
            read = theirs(source, text_target=target)
            same = read["input_ids"] == tokenizer.encode(source, LANG)
            same = same and read["labels"] == tokenizer.target(target, LANG)[1]
            if same and len(read["input_ids"]) <= LONGEST:
                texts.append((source, target))
                bar.update()
            if len(texts) == count:
                return texts
    raise UserError(
        f"{data.paths[0]}: only {len(texts)} English examples that both tokenizers read alike, of "
        f"{count} that the benchmark needs; name a larger data set with --data"
    )


def plan(texts, size, tokenizer):
    """The Pass over the first of some texts that takes as many updates on both sides."""
    rows = as_ids(texts, tokenizer)
    pool_size = Batches(Ids(rows), tokens=1).pool_size  # in batches, as train.py has it
    for updates in range(SMALLEST_POOL, len(rows) // size + 1):
        some = rows[:updates * size]
        # Batches draws until it has pool_size * budget tokens: here until it has all rows.
        budget = sum(row.length for row in some) // pool_size
        if is_one_pool(some, budget, updates):
            return Pass(
                texts=texts[:len(some)],
                tokens=sum(len(row.source) + len(row.labels) for row in some),
                updates=updates,
                size=size,
                budget=budget,
            )
    raise UserError(f"no number of examples makes as many batches on both sides, {size} in each")


def as_ids(texts, tokenizer):
    """Texts as train.py makes examples of them."""

    class Texts:
        sizes = {PAIR: len(texts)}

        def text(self, pair, index):
            return texts[index]

    examples = Examples(Texts(), tokenizer, "summarize", max_length=LONGEST)
    return [examples(PAIR, index) for index in range(len(texts))]


def is_one_pool(rows, budget, updates):
    """Does train.py draw each of the rows once in its first pool, and make so many batches?"""
    stream = Batches(Ids(rows), budget)
    stream.fill()
    drawn = sum(len(batch) for batch in stream.batches)
    return drawn == len(rows) and len(stream.batches) == updates


def write_data(the_pass, folder):
    """train.jsonl, and valid.jsonl: the first batch's worth of the same examples."""
    make_folder(folder)
    lines = []
    for source, target in the_pass.texts:
        row = {"source": source, "target": target, "source_lang": LANG, "target_lang": LANG}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_bytes(folder / "train.jsonl", "".join(lines).encode("utf-8"))
    write_bytes(folder / "valid.jsonl", "".join(lines[:the_pass.size]).encode("utf-8"))


# ---------------------------------------------------------------------------------- the sides


@dataclass(frozen=True)
class Trained:
    """One side's pass, in a process of its own."""

    seconds: float  # from the first update to the last
    around: float   # the process's other seconds
    peak: int       # bytes
    before: float   # loss of the validation examples before the pass
    after: float    # and after it


def our_command(recipe, the_pass, work):
    """The command line of train.py, which writes work/ours."""
    command = ["train.py", "--stage", "summarize", "--init", work, "--out", work / "ours"]
    command += ["--data", f"jsonl:{work / 'data'}", "--langs", LANG, "--recipe", recipe]
    command += ["--preset", "small", "--steps", the_pass.updates, "--tokens", the_pass.budget]
    command += ["--lr", RATE, "--warmup", 0, "--weight-decay", 0, "--dropout", 0]
    command += ["--eval-every", the_pass.updates, "--valid-examples", the_pass.size]
    return [*command, "--device", "cpu", "--no-eval", "--overwrite"]


def by_us(recipe, the_pass, work, threads):
    """train.py from its start to its end: Trained."""
    done = run_alone(our_command(recipe, the_pass, work), threads)
    last = read_log(work / "ours" / "log.csv")[-1]  # the one line: it validates at the end
    shutil.rmtree(work / "ours")
    check_updates("train.py", last["step"], the_pass)
    seconds = the_pass.tokens / last["tokens/s"]
    return Trained(
        seconds=seconds,
        around=done.seconds - seconds,
        peak=done.peak,
        before=float(re.search(r"before training: validation loss (\S+)", done.printed)[1]),
        after=last["validation loss"],
    )


def their_command(recipe, workers, the_pass, work):
    """The command line of bench/seq2seq.py, which writes work/theirs."""
    command = ["bench/seq2seq.py", work, work / "data", work / "theirs"]
    command += ["--trains", RECIPES[recipe], "--batch", the_pass.size]
    return [*command, "--workers", workers, "--lr", RATE]


def by_transformers(recipe, workers, the_pass, work, threads):
    """bench/seq2seq.py from its start to its end: Trained."""
    done = run_alone(their_command(recipe, workers, the_pass, work), threads)
    found = json.loads(done.printed.splitlines()[-1])
    shutil.rmtree(work / "theirs")
    check_updates("Seq2SeqTrainer", found["updates"], the_pass)
    if found["tokens"] != the_pass.tokens or found["passes"] != 1:
        raise UserError(
            f"Seq2SeqTrainer read {found['tokens']} tokens in {found['passes']} passes, not "
            f"{the_pass.tokens} in 1"
        )
    return Trained(
        seconds=found["seconds"],
        around=done.seconds - found["seconds"],
        peak=done.peak,
        before=found["before"],
        after=found["after"],
    )


def check_updates(who, updates, the_pass):
    if updates != the_pass.updates:
        raise UserError(f"{who} took {updates} updates, not {the_pass.updates}")


def check_same(runs):
    """UserError unless all sides began with the same loss, to the digits that train.py prints."""
    wanted = runs["ours"][0].before
    for side, rounds in runs.items():
        for trained in rounds:
            if not abs(trained.before - wanted) <= 1.01e-4:  # one in the last digit; nor NaN
                raise UserError(
                    f"the sides do not compute the same: the loss before the pass is {wanted:.4f} "
                    f"of ours and {trained.before:.4f} of {side}"
                )


# ---------------------------------------------------------------------------------- the rows


def bench_pipeline(name, recipe, args):
    """A row: {side: seconds, peak bytes ... of each round}, ratios, tokens."""
    data = open_data(args.data, "summarize", "train", [PAIR], MBART25)
    work = args.scratch / f"pipeline-{name}"
    tokenizer = write_model(name, work)
    size = SHAPES[name].batch
    texts = some_texts(data, LARGEST_POOL * size, work, tokenizer)
    the_pass = plan(texts, size, tokenizer)
    write_data(the_pass, work / "data")
    print(
        f"pipeline-{name}-{recipe}: {len(the_pass.texts)} examples, {the_pass.tokens:,} tokens, "
        f"{the_pass.updates} updates of {size} examples or at most {the_pass.budget} padded tokens",
        flush=True,
    )
    rule = RECIPE_OF[recipe]
    sides = {"ours": partial(by_us, rule, the_pass, work, args.threads)}
    for workers in args.workers:
        side = f"transformers, {workers} workers"
        sides[side] = partial(by_transformers, rule, workers, the_pass, work, args.threads)
    if recipe == "qk":
        sides["ours, --recipe full"] = partial(by_us, "full", the_pass, work, args.threads)
    runs = in_turns(sides, args.rounds or rounds_of(name), f"training {name}, {recipe}")
    check_same(runs)
    return row_of(runs, the_pass)


def rounds_of(name):
    if name == "A":
        return 3
    return 5


def row_of(runs, the_pass):
    """The figures of a row, of {side: its Trained of each round}."""
    seconds = {side: [trained.seconds for trained in rounds] for side, rounds in runs.items()}
    losses = {}
    for side, rounds in runs.items():
        losses[side] = f"{rounds[0].before:.4f}, {rounds[0].after:.4f}"
    return {
        "examples": len(the_pass.texts),
        "tokens": the_pass.tokens,
        "updates": the_pass.updates,
        "seconds": seconds,
        "ratio": {side: ratio(seconds, side) for side in runs if side != "ours"},
        "bytes": {side: [trained.peak for trained in rounds] for side, rounds in runs.items()},
        "around": {side: [trained.around for trained in rounds] for side, rounds in runs.items()},
        "loss": losses,
    }


# ---------------------------------------------------------------------------------- the program


def parse_args(argv, rows):
    parser = parser_of(__doc__)
    add_options(parser, rows, "A 3, B 5")
    parser.add_argument(
        "--data",
        default="help:",
        metavar="SPEC",
        help="English summaries to train on, as train.py's --data but builtin (default: help:)",
    )
    parser.add_argument(
        "--workers",
        type=number(int, 0),
        nargs="+",
        default=[0, 2],
        metavar="N",
        help="of the peer's data loader; each is a side of its own (default: 0 2)",
    )
    add_scratch(parser, "models and runs, 8 GB")
    return parser.parse_args(argv)


def names_of_rows():
    """{row: its shape's name and its recipe's}"""
    names = {}
    for name in ("A", "B"):
        for recipe in RECIPE_OF:
            names[f"pipeline-{name}-{recipe}"] = (name, recipe)
    return names


def main(argv=None):
    names = names_of_rows()
    args = parse_args(argv, names)
    check_data(args.data)
    torch.set_num_threads(args.threads)
    rows = {row: partial(bench_pipeline, *names[row], args) for row in names}
    libraries = ("transformers", "accelerate")
    results = measure(rows, args.rows, torch.device("cpu"), libraries)
    if args.write:
        write_page(results)


if __name__ == "__main__":
    run(main)
