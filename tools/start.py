"""A vocabulary and a random model: the folder that pretraining starts from.

    python -m tools.start runs/start
    python train.py --stage pretrain --init runs/start --out runs/base

The vocabulary is learned from training texts, of the built-in corpus or of --data (some of every
language, from all over the data). The model has 6 + 3 layers of width 128, which a laptop
pretrains, or what --shape, --layers ... say; with --body it has another model's layers under
fresh embeddings. The same seed gives the same folder.
"""
import argparse
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from corpora.facts import BASE_LANGUAGES, Corpus
from corpora.sets import check_spec, data_option, is_builtin, open_data, preset_option
from data import language_pairs
from model import Config, MBart
from plumbing.files import (
    UserError,
    beside_python,
    note,
    parser_of,
    quoted,
    run,
    temporary_folder,
)
from plumbing.models import model_folder
from plumbing.options import COUNT, SEED, number, option_name
from tokenizer import (
    MBART25,
    MBART50,
    MODEL_FILE,
    Tokenizer,
    load_pieces,
    train_sentencepiece,
)
from tools.folders import SOURCE_TABLE, add_overwrite, begin, check_out, move_tags, remove_stale
from tools.texts import lines, shares, some_of

SMALL = {
    "d_model": 128,
    "encoder_layers": 6,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 512,
    "decoder_ffn_dim": 512,
    "max_position_embeddings": 256,
}
SHAPES = {"small": SMALL, "mbart-large": {}}  # Config's defaults are mbart-large's
DOCUMENTS = 4000  # of the built-in corpus, in every language, from which pieces are learned
TEXTS = 20_000    # of any other data set
TEMPERATURE = 3.3
COVERAGE = 0.9995  # of its letters: the rest is stray signs of other scripts
OF_A_VOCABULARY = ("model.shared.weight", "final_logits_bias", SOURCE_TABLE)
# French and German come to the base model later: their letters get pieces now.
ROMANCE_GERMAN_LETTERS = "äöüßÄÖÜàâçèéêëîïôùûœæÀÂÇÈÉÊËÎÏÔÙÛŒ'"


@dataclass
class Learning:
    """How a vocabulary is learned."""
    data: str
    langs: list
    pieces: int
    seed: int
    skip_bad_lines: bool
    temperature: float
    character_coverage: float | None  # None: 1 for the built-in corpus, else COVERAGE


def learn_vocabulary(path, how, languages):
    """Writes the SentencePiece model `path`, and tells which letters have no piece.

    languages: all codes that the folder's layout has."""
    coverage = how.character_coverage
    letters = Counter()
    if is_builtin(how.data):
        texts = builtin_sentences(how.langs, how.seed)
        coverage = coverage or 1.0
    else:
        texts = sampled_texts(how, languages)
        coverage = coverage or COVERAGE
    texts = counted(texts, letters)
    train_sentencepiece(texts, path, how.pieces, ROMANCE_GERMAN_LETTERS, how.seed, coverage)
    tell_missing(letters, load_pieces(path))


def sampled_texts(how, languages):
    """An iterator over TEXTS texts of a data set's training split, some of every language."""
    for lang in how.langs:
        if lang not in languages:
            known = " ".join(languages)
            raise UserError(f"unknown language {lang!r}. A model of this kind has: {known}")
    pairs = language_pairs("pretrain", how.langs)
    data = open_data(
        how.data, "pretrain", "train", pairs, languages, how.seed, how.skip_bad_lines
    )
    number = shares(data.sizes, TEXTS, how.temperature)
    for pair in pairs:
        if not number.get(pair):
            note(f"{how.data} has no training text in {pair[0]}")
            continue
        print(f"{pair[0]}: {number[pair]:,} of {data.sizes[pair]:,} texts", flush=True)
    return texts_within(data, number, how.seed)


def texts_within(data, number, seed):
    """Yields the texts of so many examples of each pair."""
    for pair in sorted(number):
        for index in some_of(data.sizes[pair], number[pair], seed):
            source, target = data.text(pair, index)
            yield from lines(source)
            if target != source:
                yield from lines(target)


def counted(texts, letters):
    """Yields the texts, and counts their letters in the Counter."""
    for text in texts:
        letters.update(text)
        yield text


def tell_missing(letters, pieces):
    """Says how much of the text has no piece: what the model will read as <unk>."""
    missing = Counter()
    for letter, count in letters.items():
        if pieces.unk_id() in pieces.encode(letter):
            missing[letter] = count
    if missing:
        share = missing.total() / letters.total()
        most = " ".join(letter for letter, _ in missing.most_common(10))
        note(
            f"{len(missing):,} of {len(letters):,} letters have no piece, {share:.3%} of the text "
            f"(the most frequent: {most}); --character-coverage 1 gives each one its own"
        )


def builtin_sentences(langs, seed):
    """Yields the sentences and the headlines of the built-in corpus's first documents."""
    corpus = Corpus(langs)
    for index in range(DOCUMENTS):
        document = corpus.document(index, "train", seed)
        for lang in langs:
            yield from corpus.sentences(document, lang)
            yield corpus.headline(document, lang)


@torch.no_grad()
def random_model(tokenizer, seed=0, shape=SMALL):
    """A model of this tokenizer's vocabulary, drawn at random but for its language tags."""
    torch.manual_seed(seed)
    model = MBart(Config(vocab_size=tokenizer.vocab_size, **shape))
    draw_tags_together(model, tokenizer)
    return model


@torch.no_grad()
def on_the_layers_of(body, tokenizer, seed=0):
    """A model with all of the MBart `body` but its token embeddings, which are drawn at random."""
    torch.manual_seed(seed)
    config = replace(body.config, vocab_size=tokenizer.vocab_size, source_vocab_size=None)
    model = MBart(config)
    tensors = model.state_dict()
    for name, tensor in body.state_dict().items():
        if name not in OF_A_VOCABULARY:
            tensors[name] = tensor
    model.load_state_dict(tensors)
    draw_tags_together(model, tokenizer)
    return model


def draw_tags_together(model, tokenizer):
    """Tags that start nearly alike do not push the languages' states apart from the first
    update."""
    embeddings = model.model.shared.weight  # (V, D)
    tags = list(tokenizer.tag.values())
    embeddings[tags] = embeddings[tags[0]] + 0.1 * embeddings[tags]


# -------------------------------------------------------------------------------- command line

def shape_of(args):
    """The named shape, with what was typed beside it; UserError if no model can have it."""
    shape = dict(SHAPES[args.shape or "small"])
    typed = {
        "d_model": args.d_model,
        "encoder_attention_heads": args.heads,
        "decoder_attention_heads": args.heads,
        "encoder_ffn_dim": args.ffn,
        "decoder_ffn_dim": args.ffn,
        "max_position_embeddings": args.positions,
    }
    if args.layers:
        typed["encoder_layers"], typed["decoder_layers"] = args.layers
    shape |= {name: value for name, value in typed.items() if value is not None}
    Config(**shape).check("the shape asked for")
    return shape


def coverage_share(text):
    """A converter for argparse: what SentencePiece takes."""
    value = number(float, 0.0)(text)
    if not 0.98 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0.98 to 1, not {text}")
    return value


def make_parser():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("out", metavar="OUT", help="the folder to write")
    add("--data", default="builtin", metavar="SPEC", help="as train.py's (default: builtin)")
    add("--skip-bad-lines", action="store_true", help="leave out lines that cannot be read")
    add(
        "--langs",
        nargs="+",
        default=BASE_LANGUAGES,
        metavar="LANG",
        help=f"languages of the texts (default: {' '.join(BASE_LANGUAGES)})",
    )
    add(
        "--pieces",
        type=number(int, 100),
        default=3000,
        metavar="N",
        help="size of the vocabulary (default: 3000)",
    )
    add(
        "--temperature",
        type=number(float, 1.0),
        default=TEMPERATURE,
        metavar="T",
        help="languages of --data are read as their sizes to the power of 1/T (default: "
        f"{TEMPERATURE})",
    )
    add(
        "--character-coverage",
        type=coverage_share,
        metavar="SHARE",
        help="of the text, whose letters get pieces (default: 1 for builtin, else 0.9995)",
    )
    add(
        "--shape",
        choices=sorted(SHAPES),
        help="the model's: small (the default, 6 + 3 layers of width 128) or mbart-large",
    )
    add("--d-model", type=COUNT, metavar="N", help="width, instead of the shape's")
    add("--layers", type=COUNT, nargs=2, metavar=("ENC", "DEC"), help="of encoder and decoder")
    add("--heads", type=COUNT, metavar="N", help="attention heads of each layer")
    add("--ffn", type=COUNT, metavar="N", help="width within a feed-forward block")
    add("--positions", type=number(int, 8, 2**20), metavar="N", help="tokens of the longest text")
    add(
        "--body",
        metavar="FOLDER",
        help="take the layers (and so the shape) of this model, under fresh embeddings",
    )
    add("--seed", type=SEED, default=0, metavar="N", help="default: 0")
    add_overwrite(parser)
    return parser


def check_body(args):
    """UserError if a shape is asked for beside the model whose shape it will be."""
    for name in ("shape", "d_model", "layers", "heads", "ffn", "positions"):
        if args.body and getattr(args, name) is not None:
            raise UserError(
                f"--body {args.body} has a shape of its own, so no {option_name(name)} with it"
            )


def main(argv=None):
    args = make_parser().parse_args(argv)
    args.langs = list(dict.fromkeys(args.langs))
    check_body(args)
    body = None
    layout = "mbart25"
    read = []
    if args.body:
        read.append(args.body)
    check_out(args.out, args.overwrite, read)
    check_spec(args.data, args.skip_bad_lines)
    if is_builtin(args.data) and args.temperature != TEMPERATURE:
        note("--temperature has no effect with the built-in corpus")
    if args.body:
        folder = model_folder(args.body)
        body = MBart.from_pretrained(folder)
        layout = Tokenizer.from_pretrained(folder).layout
    shape = shape_of(args)

    print(f"learning a vocabulary of up to {args.pieces} pieces", flush=True)
    how = Learning(
        data=args.data,
        langs=args.langs,
        pieces=args.pieces,
        seed=args.seed,
        skip_bad_lines=args.skip_bad_lines,
        temperature=args.temperature,
        character_coverage=args.character_coverage,
    )
    # `out` is not touched before everything that can be refused is behind us.
    with temporary_folder() as scratch:
        path = Path(scratch) / MODEL_FILE
        learn_vocabulary(path, how, MBART25 if layout == "mbart25" else MBART50)
        tokenizer = Tokenizer(path, layout)
        if body is None:
            model = random_model(tokenizer, args.seed, shape)
        else:
            model = on_the_layers_of(body, tokenizer, args.seed)
            move_tags(model.config, folder, tokenizer)
        out = begin(args.out)
        remove_stale(out, tokenizer)
        tokenizer.save_pretrained(out)
        model.save_pretrained(out)
    print(f"{out}: {tokenizer.vocab_size:,} tokens, {model.size():,} parameters")
    of_text = data_option(args.data, args.skip_bad_lines)  # as the vocabulary's
    of_text += preset_option(args.data, model.config.is_small)
    if args.langs != BASE_LANGUAGES:
        of_text += f" --langs {' '.join(args.langs)}"
    print(f"next: {beside_python()} train.py --stage pretrain --init {quoted(out)}{of_text}")


if __name__ == "__main__":
    run(main)
