"""A page that shows what finetuning changed inside a model: one HTML file, opened in any browser.

    python -m tools.look runs/summarize --beside runs/full --source-lang es_XX --lang es_XX \\
        --text "…" --out page.html

It shows the base, the models of --beside and the run side by side:

HOW FAR each weight matrix moved from the base's. Under the recipe qk two columns of each stack are
lit, and all else is exactly 0.

THE OUTPUT, token by token: the five likeliest tokens at that place with their probabilities, the
share of probability on each language's pieces, and the cross-attention over the source.

THE SOURCE as the encoder reads it: the self-attention of every word, and with --probe what a fresh
classifier of the source language (tools.layers) says to each state that the decoder reads.

tools/inside.py measures, and says what the numbers mean; look.html, look.css and look.js beside
this file show them. The page needs nothing but itself and has less than 2 MB.
"""
import base64
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from corpora.facts import BASE_LANGUAGES
from corpora.sets import check_spec, folder_of, is_builtin, says_no_languages
from eval import Decoder, own_text, trained_pairs
from plumbing.files import UserError, check_file_out, note, parser_of, run, write_bytes
from plumbing.models import MODEL_HELP, model_folder
from plumbing.options import TASKS, decoding_of, default_device, device_name, stage_of
from plumbing.runs import is_still, read_settings, tell_untrained
from tokenizer import Tokenizer
from tools.inside import (
    LEVELS,
    TIMES,
    Pieces,
    Task,
    count_pieces,
    look,
    tensors_of,
    texts_with_languages,
    whose,
)

LARGEST = 1_900_000  # bytes of a page
DOCTYPE = b"<!doctype html>"  # how look.html begins


# ---------------------------------------------------------------------------------------- the page

@dataclass
class Kept:
    """How much of the attention weights a page holds; the cross-attention's mean over heads always.
    """
    cross_heads: bool
    own_heads: bool
    own_layers: int  # at most; fewer than there are: evenly spaced, the last among them

    def left_out(self):
        """What a reader should know is missing: sentences."""
        told = []
        if not self.cross_heads:
            told.append("The heads of the cross-attention are shown as their mean only.")
        if self.own_layers == 0:
            told.append("The encoder's self-attention is left out.")
        elif not self.own_heads:
            told.append("The heads of the encoder's self-attention are shown as their mean only.")
        if 0 < self.own_layers < ALL:
            told.append(f"Of the encoder's layers {self.own_layers} are shown.")
        if told:
            told.append("The text is long, and with more the page would have over 2 MB.")
        return told


ALL = 10_000  # layers: more than any model has
LADDER = (  # from all down to what fits into LARGEST bytes
    Kept(True, True, ALL),
    Kept(True, False, ALL),
    Kept(False, False, ALL),
    Kept(False, False, 6),
    Kept(False, False, 3),
    Kept(False, False, 1),
    Kept(False, False, 0),
)


def page(report):
    """The report (report_of) as one HTML file, bytes, with as much attention as fits; UserError if
    it is too large with the least."""
    for kept in LADDER:
        models = packed_models(report["models"], kept)
        content = filled(report | {"left_out": kept.left_out(), "models": models})
        if len(content) <= LARGEST:
            return content
    raise UserError(
        f"the page would have {len(content) / 1e6:.1f} MB, and at most {LARGEST / 1e6:.1f} MB can "
        "be opened with ease: give a shorter text, or fewer models with --beside"
    )


def packed_models(models, kept):
    """What look() says of the models, with their attention packed; but not all of the models, if
    the first are too much for a page already and less can be kept."""
    packed = []
    size = 0
    for model in models:
        cross = pack(model["cross"], kept.cross_heads, ALL)
        own = pack(model["own"], kept.own_heads, kept.own_layers)
        packed.append(model | {"cross": cross, "own": own})
        size += len(cross["data"])
        if own:
            size += len(own["data"])
        if size > LARGEST and kept is not LADDER[-1]:
            break
    return packed


def pack(levels, heads, most):
    """rounded_levels (L, 1 + H, T, S) as the page holds them, of `most` layers; of 0: None.

    {"layers": their numbers from 1, "planes": 1 + H, or 1 for the mean alone, "rows": T,
    "columns": S, "data": the numbers, a byte each, in that order, by zlib and base64}"""
    count = min(most, len(levels))
    if not count:
        return None
    chosen = [len(levels) * number // count - 1 for number in range(1, count + 1)]
    levels = levels[chosen]
    if not heads:
        levels = levels[:, :1]
    content = zlib.compress(levels.contiguous().numpy().tobytes())
    return {
        "layers": [layer + 1 for layer in chosen],
        "planes": levels.size(1),
        "rows": levels.size(2),
        "columns": levels.size(3),
        "data": base64.b64encode(content).decode("ascii"),
    }


def filled(numbers):
    """look.html with its style, its script and the numbers in place: bytes."""
    text = json.dumps(numbers, ensure_ascii=False, separators=(",", ":"))
    # Within <script>, "</script>" and "<!--" would end or hide what follows; in JSON, "<" stands
    # in strings alone, where it may be written so.
    text = text.replace("<", "\\u003c")
    here = Path(__file__).with_suffix("")
    html = here.with_suffix(".html").read_text(encoding="utf-8")
    html = html.replace("/* look.css */", here.with_suffix(".css").read_text(encoding="utf-8"))
    html = html.replace("/* look.js */", here.with_suffix(".js").read_text(encoding="utf-8"))
    return html.replace("/* numbers */", text).encode("utf-8")  # last: a text may say anything


def is_page(path):
    """Is there a page, as an earlier call may have left it?"""
    if not Path(path).is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(DOCTYPE)) == DOCTYPE


# ------------------------------------------------------------------------------------ command line

def main(argv=None):
    args = parse_args(argv)
    check_file_out(args.out, read=[args.file])
    if args.data:
        check_spec(args.data)
    run_folder = model_folder(args.model)
    settings = read_settings(run_folder)
    tell_untrained(args.model, run_folder)
    names = [base_of(args, settings), *args.beside, args.model]  # as the page calls them
    folders = [base_folder(names[0], args, settings), *map(model_folder, args.beside), run_folder]
    data = args.data or settings.get("data") or "builtin"
    if is_builtin(data):  # files may be gone, and not be needed
        check_spec(data, args.skip_bad_lines)
    read = folders
    if not is_page(args.out):
        read = [*folders, folder_of(data)]
    check_file_out(args.out, read=read)
    check_folders(names, folders)
    tokenizer = shared_tokenizer(names, folders)
    stage = stage_of(settings, args.stage)
    task = Task(
        text=own_text(args),
        source_lang=source_language(args, stage),
        lang=args.lang,
        stage=stage,
        data=data,
        options=decoding_of(stage),
        probe=args.probe,
        skip_bad_lines=args.skip_bad_lines,
    )
    task.data_pair = pair_of_data(task, settings)
    check_task(task, args.langs or [], tokenizer)
    pieces = pieces_of(tokenizer, languages_of(task, args.langs, settings), task)

    models = []
    base = None
    for name, folder in zip(names, folders):
        decoder = Decoder(folder, args.device or default_device(), **task.options)
        models.append(look(decoder, name, folder, task, pieces, base))
        print(f"{models[-1]['name']}: {models[-1]['output']}", flush=True)
        if base is None:
            base = (tensors_of(decoder.model), name)
    content = page(report_of(task, pieces, models))
    write_bytes(args.out, content)
    print(f"{args.out}: {len(content) / 1000:,.0f} KB, to be opened in a browser")


def parse_args(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("model", metavar="RUN", help=f"a run, e.g. runs/summarize: {MODEL_HELP}")
    add(
        "--beside",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="more runs from the same base, e.g. runs/full, as RUN",
    )
    add("--base", metavar="FOLDER", help="what they began from, as RUN (default: RUN's --init)")
    text = parser.add_mutually_exclusive_group(required=True)
    text.add_argument("--text", help="the text that the models read")
    text.add_argument("--file", metavar="FILE", help="the same from a file; - reads standard input")
    add("--lang", required=True, help="language of the output, e.g. es_XX")
    add("--source-lang", metavar="LANG", help="language of the text (summaries: as --lang)")
    add("--out", required=True, metavar="FILE", help="the page to write, e.g. page.html")
    add(
        "--langs",
        nargs="+",
        metavar="LANG",
        help="languages whose pieces are told apart (default: the built-in corpus's five, or "
        "those of the run and of the text)",
    )
    add("--data", metavar="SPEC", help="where their texts are, as train.py's (default: the run's)")
    add("--skip-bad-lines", action="store_true", help="leave out lines that cannot be read")
    add(
        "--stage",
        choices=TASKS,
        help="the task (default: what RUN was trained for, else translate)",
    )
    add(
        "--probe",
        action="store_true",
        help="train a classifier of the source language on each encoder's states (seconds with "
        "the small model) and show what it says of every source token",
    )
    add("--device", type=device_name, help="cpu, cuda ... (default: a GPU if there is one)")
    return parser.parse_args(argv)


def source_language(args, stage):
    """The text's language: as typed, or of a summary its own."""
    if args.source_lang:
        return args.source_lang
    if stage == "summarize":
        return args.lang
    raise UserError("translation needs the text's language: --source-lang en_XX")


def base_of(args, settings):
    """The folder that a run began from."""
    if args.base:
        return args.base
    if settings.get("init"):
        return settings["init"]
    raise UserError(
        f"{args.model}: nothing says what it was trained from (a run's args.json does); name it "
        "with --base FOLDER"
    )


def base_folder(name, args, settings):
    """Where the model of base_of() is. UserError, if args.json named it, for one that is not there
    or that was made anew since the run."""
    if args.base:
        return model_folder(name)
    try:
        folder = model_folder(name)
    except UserError as error:
        raise UserError(
            f"{error} ({args.model}/args.json has it as what the run began from; --base FOLDER "
            "names another)"
        ) from None
    if not is_still(folder, settings):
        raise UserError(
            f"{name} is not the model any more that {args.model} began from: its weights, or the "
            "file that holds them, are others; name the right one with --base FOLDER"
        )
    return folder


def check_folders(names, folders):
    """UserError for a folder that is named twice: its columns could not be told apart."""
    seen = set()
    for name, folder in zip(names, folders):
        where = Path(folder).resolve()
        if where in seen:
            raise UserError(f"{name} is named twice (as run, base or --beside); once is enough")
        seen.add(where)


def shared_tokenizer(names, folders):
    """The tokenizer of all folders, the base's first; UserError where they have not the same."""
    first = Tokenizer.from_pretrained(folders[0])
    for name, folder in zip(names[1:], folders[1:]):
        if vocabulary_of(Tokenizer.from_pretrained(folder)) != vocabulary_of(first):
            raise UserError(
                f"{name} has another vocabulary than {names[0]}; only models with the same one "
                "can be compared token by token"
            )
    return first


def vocabulary_of(tokenizer):
    """What two tokenizers that read and write the same ids have in common."""
    files = [tokenizer.model_file.read_bytes(), tokenizer.source.model_file.read_bytes()]
    return tokenizer.layout, files


def pair_of_data(task, settings):
    """The languages of data whose lines say none: the run's, if it was trained on one pair. None:
    the data say them."""
    if not says_no_languages(task.data, "train"):
        return None
    trained = trained_pairs(settings)
    if task.probe or len(trained) != 1:
        reason = "--probe tells languages apart" if task.probe else "the run has not one pair alone"
        raise UserError(
            f"--data {task.data}: no column says the languages, and {reason}; name other data, "
            "such as --data builtin"
        )
    return trained[0]


def check_task(task, languages, tokenizer):
    """UserError for languages that the models do not have, or a text that they cannot read."""
    tokenizer.check_languages([task.source_lang, task.lang, *languages])
    if not tokenizer.source.piece_ids(task.text):
        raise UserError("the text has nothing that the models' vocabulary takes for text")


def languages_of(task, asked, settings):
    """The languages whose pieces are told apart: the output's first, the text's next.

    asked: those of --langs, None: the built-in corpus's, or those of the run."""
    if asked:
        more = asked
    elif is_builtin(task.data):
        more = BASE_LANGUAGES
    else:
        more = []
        for pair in trained_pairs(settings):
            more.extend(pair)
    languages = list(dict.fromkeys([task.lang, task.source_lang, *more]))
    if task.probe and len(languages) < 2:
        raise UserError("--probe tells languages apart: name at least two with --langs")
    return languages


def pieces_of(tokenizer, languages, task):
    """Pieces, counted on the training texts of the task's data set."""
    texts = texts_with_languages(task, languages, tokenizer)
    counts, read = count_pieces(texts, tokenizer, languages)
    for lang, number in read.items():
        if not number:
            note(f"{task.data} has no training text in {lang}: no piece is known as its own")
    return Pieces(languages, read, whose(counts, tokenizer))


def report_of(task, pieces, models):
    """All that a page is made from."""
    return {
        "text": task.text,
        "source_lang": task.source_lang,
        "lang": task.lang,
        "stage": task.stage,
        "data": task.data,
        "options": task.options,
        "languages": pieces.languages,
        "texts": pieces.texts,
        "times": TIMES,
        "levels": LEVELS,
        "models": models,
    }


if __name__ == "__main__":
    run(main)
