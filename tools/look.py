"""A page that shows what finetuning changed inside a model: one HTML file, opened in any browser.

    python -m tools.look runs/summarize --beside runs/full --source-lang es_XX --lang es_XX \\
        --text "…" --out page.html

The page stands the base, the models of --beside and the run next to each other:

MOVED: how far each tensor is from the base's, ||W - W_0|| / ||W_0||. Under the recipe qk two
columns of each stack are lit, and all else is exactly 0.

THE OUTPUT, token by token: the five likeliest tokens at that place with their probabilities, the
share of probability on each language's pieces, and the cross-attention over the source. It is
decoded as eval.py decodes (beam search, no repeated trigram in summaries); then the model reads its
own output once, and the numbers are of that pass: what the model itself expects, before the beam's
rules. A piece is a LANGUAGE'S if it is at least twice as common in that language's texts of the
data set as in those of any other; else it is shared, as is every piece without a letter.

THE SOURCE as the encoder reads it: the self-attention of every source token, and with --probe what
a fresh classifier of the source language (tools.layers) says to each state that the decoder reads.

ATTENTION WEIGHTS are the model's own: softmax(q k^T / sqrt(d)) v is softmax(q k^T / sqrt(d)) itself
where v is the identity matrix, so that attend() is called once more with that.
"""
import argparse
import base64
import json
import unicodedata
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from corpora.facts import BASE_LANGUAGES
from corpora.sets import open_data
from data import at_most, held_out
from eval import STAGES, Writer, generation_options, note, own_text, stage_of, trained_pairs
from eval import parse_args as parse_eval_args
from generate import first_tokens, generate
from model import Attention
from plumbing.files import UserError, run, write_bytes
from plumbing.options import default_device, device
from plumbing.runs import read_settings
from tokenizer import EOS, SPECIALS
from tools.folders import check_file_out
from tools.layers import STEPS, TOKENS, Texts, confusion_matrix, fitted_probe, token_states
from tools.trim import pairs_within

BEST = 5            # candidates shown at every place
COUNTED = 400       # texts a language, from which its pieces are known
PROBED = 60         # documents a language, from which a probe learns; half as many test it
TIMES = 2           # as common as in any other language: a language's own piece
OTHERS = ("shared", "end", "unseen")  # where probability goes that is no language's
LEVELS = 255        # attention weights are written as whole numbers from 0 to this
LARGEST = 1_900_000  # bytes of a page


# ------------------------------------------------------------------------------ how far it moved

def movement(base, tensors):
    """||W - W_0|| / ||W_0|| of every tensor, both {name: tensor} of the same names and shapes.

    {name: number}: exactly 0 where no number changed, None where the base's are all 0."""
    found = {}
    for name, tensor in tensors.items():
        change = norm(tensor - base[name])
        size = norm(base[name])
        if change == 0:
            found[name] = 0.0
        elif size == 0:
            found[name] = None
        else:
            found[name] = change / size
    return found


def norm(tensor):
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).item()


def check_same_tensors(base, tensors, base_folder, folder):
    """UserError unless two models have tensors of the same names and shapes."""
    for name in sorted(base.keys() | tensors.keys()):
        mine = tensors.get(name)
        its = base.get(name)
        if mine is None or its is None or mine.shape != its.shape:
            raise UserError(
                f"{folder} and {base_folder} have different shapes ({name}); the page compares "
                "models that began from one base: name it with --base"
            )


# -------------------------------------------------------------------------------------- attention

@contextmanager
def recorded_attention(model):
    """Within, every pass of the model leaves its attention weights in the dict that this yields:
    {name of an Attention: (B, H, T, S)}.

    The model must be in eval mode: dropout would be in the weights."""
    weights = {}
    watched = []
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            module.attend = recorder(module.attend, name, weights)  # hides the class's own
            watched.append(module)
    try:
        yield weights
    finally:
        for module in watched:
            del module.attend


def recorder(attend, name, weights):
    """Attention.attend of one module, which puts its weights into weights[name]."""

    def attend_and_record(q, k, v, mask=None, causal=False):
        batch, heads, keys, _ = k.shape
        identity = torch.eye(keys, dtype=v.dtype, device=v.device)
        identity = identity.expand(batch, heads, keys, keys)
        found = attend(q, k, identity, mask, causal)  # (B, T, H * S): every head's, side by side
        weights[name] = found.unflatten(2, (heads, keys)).transpose(1, 2)
        return attend(q, k, v, mask, causal)

    return attend_and_record


def layers_of(weights, stack, part):
    """The weights of all layers' attention `part` of a text: (L, H, T, S)."""
    found = []
    while f"model.{stack}.layers.{len(found)}.{part}" in weights:
        found.append(weights[f"model.{stack}.layers.{len(found)}.{part}"][0])
    return torch.stack(found)


def rounded_levels(weights):
    """(L, H, T, S) -> (L, 1 + H, T, S), whole numbers to LEVELS: the mean of the heads, then each.
    """
    planes = torch.cat([weights.mean(1, keepdim=True), weights], 1)
    return (planes * LEVELS).round().to(torch.uint8).cpu()


# ------------------------------------------------------------------------- whose piece is it?

@dataclass
class Pieces:
    """Which language every token of a vocabulary belongs to."""
    languages: list         # codes
    texts: dict             # {code: how many texts were counted}
    category: torch.Tensor  # (V,) places in `names`

    @property
    def names(self):
        return [*self.languages, *OTHERS]


def count_pieces(texts, tokenizer, languages):
    """How often each piece stands in a language's texts: counts (L, V), {code: texts counted}.

    texts: an iterable of (code, text), of which the first COUNTED of each language are read."""
    counts = torch.zeros(len(languages), tokenizer.vocab_size)
    read = dict.fromkeys(languages, 0)
    for lang, text in texts:
        if read.get(lang, COUNTED) < COUNTED:
            read[lang] += 1
            ids = torch.tensor(tokenizer.piece_ids(text), dtype=torch.int64)
            counts[languages.index(lang)] += torch.bincount(ids, minlength=tokenizer.vocab_size)
    return counts, read


def whose(counts, tokenizer):
    """counts (L, V) -> the category (V,) of every token, as places in [*languages, *OTHERS]."""
    languages = len(counts)
    shared, end, unseen = range(languages, languages + len(OTHERS))
    frequency = counts / counts.sum(1, keepdim=True).clamp(min=1)
    frequency = torch.cat([frequency, torch.zeros(1, counts.size(1))])  # one language has a second
    best, second = frequency.topk(2, 0).values  # (V,), (V,)
    category = frequency.argmax(0)
    category[best < TIMES * second] = shared
    for number in range(counts.size(1)):
        if not has_letter(piece_of(tokenizer, number)):
            category[number] = shared
    category[best == 0] = unseen
    category[EOS] = end
    return category


def has_letter(piece):
    """Is there a letter, or a mark that stands on one (the vowels of Gujarati)?"""
    return any(unicodedata.category(character)[0] in "LM" for character in piece)


def texts_with_languages(task, languages, tokenizer):
    """Yields (code, text) of the data set's training examples, sources and targets."""
    pairs = pairs_within(task.data, languages)
    if task.data == "builtin":  # every pair would have the same texts
        pairs = [(lang, lang) for lang in languages]
    data = open_data(
        task.data,
        task.stage,
        "train",
        pairs,
        tokenizer.languages,
        skip=task.skip_bad_lines,
        name_missing=False,
    )
    for pair, size in data.sizes.items():
        for index in range(at_most(COUNTED, size)):
            yield from zip(pair, data.text(pair, index))


def piece_of(tokenizer, number):
    """The text of an id: a piece as SentencePiece writes it, or a special token's name."""
    if tokenizer.is_text(number):
        return tokenizer.pieces.id_to_piece(number - 1)
    if number < len(SPECIALS):
        return SPECIALS[number]
    if number == tokenizer.mask_id:
        return "<mask>"
    return tokenizer.languages[number - tokenizer.tag[tokenizer.languages[0]]]


# ---------------------------------------------------------------------------- one model, one text

@dataclass
class Task:
    """What every model is asked to do."""
    text: str
    source_lang: str
    lang: str       # of the output
    stage: str      # "summarize" or "translate"
    data: str       # --data, from which pieces are counted and probes learn
    options: dict   # generate's
    probe: bool = False
    skip_bad_lines: bool = False

    def texts_for(self, write, languages):
        """The data set as a Writer's model reads it."""
        return Texts(
            spec=self.data,
            stage=self.stage,
            languages=languages,
            tokenizer=write.tokenizer,
            tagged=write.tagged,
            max_length=write.limit,
            skip_bad_lines=self.skip_bad_lines,
        )


@torch.no_grad()
def read_through(write, task):
    """A Writer's model writes its output for the task's text, and then reads it once.

    Returns (source ids, output ids, log-probabilities (T, V) at each place of the output,
    {name: attention weights}). The output ends in </s>, unless it was cut off; row i of the
    decoder's attention is of the step that chose token i."""
    model = write.model.eval()
    place = next(model.parameters()).device
    ids = write.encode(task.text, task.source_lang, write.limit)
    source = torch.tensor([ids], device=place)
    lang_id = write.tokenizer.lang_id(task.lang)
    output = generate(model, source, lang_id, **write.options)[0]
    prompt = first_tokens(model.config, torch.tensor([lang_id], device=place))[0].tolist()
    if len(prompt) + len(output) < 1 + write.options["max_new_tokens"]:
        output = [*output, EOS]
    decoder_input = torch.tensor([[*prompt, *output[:-1]]], device=place)
    first = len(prompt) - 1  # the place that chose the first token
    with recorded_attention(model) as weights:
        logits = model(source, decoder_input)[0, first:]
    for name in weights:
        if ".decoder." in name:
            weights[name] = weights[name][:, :, first:]
    return ids, output, logits.float().log_softmax(1).cpu(), weights


def token_numbers(output, log_probs, tokenizer, pieces):
    """What the page says of every token of an output: a list of dicts.

    output: T ids; log_probs (T, V)."""
    probs = log_probs.exp()
    shares = torch.zeros(len(output), len(pieces.names))
    shares.index_add_(1, pieces.category, probs)
    best = probs.topk(BEST)
    found = []
    for place, number in enumerate(output):
        own = probs[place, number]
        candidates = []
        for value, candidate in zip(best.values[place], best.indices[place].tolist()):
            candidates.append({
                "piece": piece_of(tokenizer, candidate),
                "p": short(value.item()),
                "language": pieces.names[pieces.category[candidate]],
            })
        found.append({
            "piece": piece_of(tokenizer, number),
            "p": short(own.item()),
            "rank": 1 + int((probs[place] > own).sum()),
            "language": pieces.names[pieces.category[number]],
            "best": candidates,
            "shares": [short(share) for share in shares[place].tolist()],
        })
    return found


def source_numbers(ids, tokenizer):
    """Every token of the encoder's input: its piece, and whether it is text."""
    tokens = []
    for number in ids:
        is_text = bool(tokenizer.is_text(number))
        tokens.append({"piece": piece_of(tokenizer, number), "text": is_text})
    return tokens


def digits(value):
    """A number with four digits behind the point."""
    return round(float(value), 4)


def short(value):
    """A number with four digits that count: what is not 0 does not become 0."""
    if value is None:
        return None
    return float(f"{value:.4g}")


def look(write, folder, task, pieces, base=None):
    """Everything that the page says of a Writer's model, which stands in `folder`.

    base: {name: tensor} and its folder; None: this is the base. The attention weights are tensors
    still (rounded_levels): pack() makes them part of a page."""
    settings = read_settings(folder)
    write.tell([task.text], task.source_lang)
    moved = None
    if base is not None:
        moved = how_far(write.model, folder, *base)
    ids, output, log_probs, weights = read_through(write, task)
    probe = None
    if task.probe:
        probe = probe_verdicts(write, ids, task.texts_for(write, pieces.languages))
    return {
        "name": name_of(folder),
        "stage": settings.get("stage"),
        "recipe": settings.get("recipe"),
        "output": write.tokenizer.decode(output),
        "moved": moved,
        "source": source_numbers(ids, write.tokenizer.source),
        "tokens": token_numbers(output, log_probs, write.tokenizer, pieces),
        "cross": rounded_levels(layers_of(weights, "decoder", "encoder_attn")),
        "own": rounded_levels(layers_of(weights, "encoder", "self_attn")),
        "probe": probe,
    }


def name_of(folder):
    """A folder as people call it: from here, if it is below."""
    path = Path(folder).absolute()
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(folder)


def how_far(model, folder, base, base_folder):
    """movement() of a model in `folder`, rounded."""
    tensors = tensors_of(model)
    check_same_tensors(base, tensors, base_folder, folder)
    return {name: short(value) for name, value in movement(base, tensors).items()}


def tensors_of(model):
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


# --------------------------------------------------------------------------------------- the probe

def probe_verdicts(write, ids, texts):
    """What a fresh classifier of the source language says to every state that the decoder reads.

    texts: tools.layers.Texts, from which it learns. {"languages", "accuracy": on held-out
    documents, "verdicts": one list of probabilities for every token of `ids`}"""
    pairs = [(lang, lang) for lang in texts.languages]
    known = []
    for split, count in (("train", PROBED), ("test", PROBED // 2)):
        batches = held_out(texts.examples(split, pairs), count, TOKENS)
        states, classes = token_states(
            write.model, texts.tokenizer, batches, texts.languages, "encoder"
        )
        known.append((states[-1], classes))
    (states, classes), (held, held_classes) = known
    classifier = fitted_probe(states, classes, len(texts.languages), STEPS)
    place = next(write.model.parameters()).device
    with torch.no_grad():
        own = write.model.encode(torch.tensor([ids], device=place))[0].cpu()  # (S, D)
        verdicts = classifier(own).softmax(1)
    confusion = confusion_matrix(classifier, held, held_classes, len(texts.languages))
    return {
        "languages": texts.languages,
        "accuracy": digits(confusion.diagonal().mean()),
        "verdicts": [[digits(p) for p in row] for row in verdicts],
    }


# ---------------------------------------------------------------------------------------- the page

@dataclass
class Kept:
    """How much of the attention weights a page holds; those of all layers' means are the least."""
    cross_heads: bool
    own_heads: bool
    own_layers: str  # "all", "three" (first, middle, last), "last" or "none"

    def left_out(self):
        """What a reader should know is missing: sentences."""
        told = []
        if not self.cross_heads:
            told.append("The heads of the cross-attention are shown as their mean only.")
        if not self.own_heads and self.own_layers != "none":
            told.append("The heads of the encoder's self-attention are shown as their mean only.")
        if self.own_layers == "none":
            told.append("The encoder's self-attention is left out.")
        elif self.own_layers != "all":
            told.append("Not all layers of the encoder's self-attention are here.")
        if told:
            told.append("The text is long, and with more the page would have over 2 MB.")
        return told


LADDER = (  # from all down to what fits into LARGEST bytes
    Kept(True, True, "all"),
    Kept(True, False, "all"),
    Kept(False, False, "all"),
    Kept(False, False, "three"),
    Kept(False, False, "last"),
    Kept(False, False, "none"),
)


def page(report):
    """The report (main() makes it) as one HTML file, bytes, with as much attention as fits."""
    for kept in LADDER:
        numbers = report | {"left_out": kept.left_out(), "models": []}
        for model in report["models"]:
            packed = {
                "cross": pack(model["cross"], kept.cross_heads, "all"),
                "own": pack(model["own"], kept.own_heads, kept.own_layers),
            }
            numbers["models"].append(model | packed)
        content = filled(numbers)
        if len(content) <= LARGEST:
            break
    return content


def pack(levels, heads, layers):
    """rounded_levels (L, 1 + H, T, S) as the page holds them; None for no layers.

    {"layers": their numbers from 1, "planes": 1 + H, or 1 for the mean alone, "rows": T,
    "columns": S, "data": the numbers, a byte each, in that order, by zlib and base64}"""
    count = len(levels)
    chosen = {
        "all": range(count),
        "three": sorted({0, count // 2, count - 1}),
        "last": [count - 1],
        "none": [],
    }[layers]
    if not chosen:
        return None
    levels = levels[list(chosen)]
    if not heads:
        levels = levels[:, :1]
    content = zlib.compress(levels.contiguous().numpy().tobytes(), 9)
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


# ------------------------------------------------------------------------------------ command line

def main(argv=None):
    args = parse_args(argv)
    check_file_out(args.out)
    settings = read_settings(args.model)
    stage = stage_of(settings, args.stage)
    task = Task(
        text=own_text(args),
        source_lang=source_language(args, stage),
        lang=args.lang,
        stage=stage,
        data=args.data or settings.get("data", "builtin"),
        options=generation_options(parse_eval_args(["--lang", args.lang]), stage),
        probe=args.probe,
        skip_bad_lines=args.skip_bad_lines,
    )
    folders = [base_of(args, settings), *args.beside, args.model]
    check_folders(folders)
    place = args.device or default_device()
    first = open_base(folders[0], place, args, task)
    pieces = pieces_of(first.tokenizer, languages_of(args, task, settings), task)
    models = [look(first, folders[0], task, pieces)]
    show(models[-1])
    base = (tensors_of(first.model), folders[0])
    for folder in folders[1:]:
        write = Writer(folder, place, **task.options)
        check_vocabulary(write, folder, first, folders[0])
        models.append(look(write, folder, task, pieces, base))
        show(models[-1])
    content = page(report_of(task, pieces, models))
    write_bytes(args.out, content)
    print(f"{args.out}: {len(content) / 1000:,.0f} KB, to be opened in a browser")


def parse_args(argv=None):
    title, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=title, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", metavar="RUN", help="a run folder, e.g. runs/summarize")
    add(
        "--beside",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="more runs from the same base, e.g. runs/full",
    )
    add("--base", metavar="FOLDER", help="what they began from (default: RUN's --init)")
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
    add("--stage", choices=STAGES, help="the task (default: what RUN was trained for)")
    add(
        "--probe",
        action="store_true",
        help="train a classifier of the source language on each encoder's states (seconds with "
        "the small model) and show what it says of every source token",
    )
    add("--device", type=device, help="cpu, cuda ... (default: a GPU if there is one)")
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


def check_folders(folders):
    """UserError for a folder that is named twice: its columns could not be told apart."""
    seen = set()
    for folder in folders:
        where = Path(folder).resolve()
        if where in seen:
            raise UserError(f"{folder} is named twice (as run, base or --beside); once is enough")
        seen.add(where)


def open_base(folder, place, args, task):
    """The base's Writer; UserError if there is none, or if it cannot read the task's text."""
    try:
        write = Writer(folder, place, **task.options)
    except UserError as error:
        if args.base:
            raise
        raise UserError(
            f"{error} ({args.model}/args.json has it as what the run began from; --base FOLDER "
            "names another)"
        ) from None
    for lang in (task.source_lang, task.lang, *(args.langs or [])):
        write.tokenizer.lang_id(lang)
    if not write.tokenizer.source.piece_ids(task.text):
        raise UserError("the text has nothing that the models' vocabulary takes for text")
    return write


def languages_of(args, task, settings):
    """The languages whose pieces are told apart: the output's first, the text's next."""
    if args.langs:
        more = args.langs
    elif task.data == "builtin":
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


def check_vocabulary(write, folder, first, first_folder):
    """UserError unless two Writers' models read and write the same pieces."""
    if vocabulary_of(write.tokenizer) != vocabulary_of(first.tokenizer):
        raise UserError(
            f"{folder} has another vocabulary than {first_folder}; only models with the same one "
            "can be compared token by token"
        )


def vocabulary_of(tokenizer):
    files = [tokenizer.model_file.read_bytes(), tokenizer.source.model_file.read_bytes()]
    return tokenizer.layout, files


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


def show(model):
    print(f"{model['name']}: {model['output']}")


if __name__ == "__main__":
    run(main)
