"""A vocabulary and a small random model: the folder that pretraining starts from.

    python -m tools.start runs/start
    python train.py --stage pretrain --init runs/start --out base

The vocabulary is learned from the training texts, the built-in corpus or --data; the model has
3 + 3 layers of width 128, which a laptop pretrains. The same seed gives the same folder.
"""
import argparse
from itertools import islice

import torch

from corpora.facts import BASE_LANGUAGES, Corpus
from corpora.sets import texts_of
from data import language_pairs
from model import Config, MBart
from plumbing.files import run
from plumbing.options import number
from tokenizer import MBART25, Tokenizer, train_sentencepiece
from tools.folders import add_overwrite, begin, check_out

SHAPE = {
    "d_model": 128,
    "encoder_layers": 3,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 512,
    "decoder_ffn_dim": 512,
    "max_position_embeddings": 256,
}
DOCUMENTS = 4000  # of the built-in corpus, in every language, from which pieces are learned
TEXTS = 20_000    # of any other data set
# French and German come to the base model later: their letters get pieces now.
ROMANCE_GERMAN_LETTERS = "äöüßÄÖÜàâçèéêëîïôùûœæÀÂÇÈÉÊËÎÏÔÙÛŒ'"


def learn_vocabulary(path, data, langs, pieces, seed=0, skip_bad_lines=False):
    """Writes the SentencePiece model `path` of up to `pieces` pieces."""
    if data == "builtin":
        texts = builtin_sentences(langs, seed)
    else:
        pairs = language_pairs("pretrain", langs)
        every = texts_of(data, "pretrain", pairs, MBART25, seed, skip=skip_bad_lines)
        texts = islice(every, TEXTS)
    train_sentencepiece(texts, path, pieces, ROMANCE_GERMAN_LETTERS, seed)


def builtin_sentences(langs, seed):
    """Yields the sentences of the built-in corpus's first documents."""
    corpus = Corpus(langs)
    for index in range(DOCUMENTS):
        document = corpus.document(index, "train", seed)
        for lang in langs:
            yield from corpus.sentences(document, lang)


@torch.no_grad()
def random_model(tokenizer, seed=0):
    """A model of this tokenizer's vocabulary, drawn at random but for its language tags.

    Tags that start nearly alike do not push the languages' states apart from the first update."""
    torch.manual_seed(seed)
    model = MBart(Config(vocab_size=tokenizer.vocab_size, **SHAPE))
    embeddings = model.model.shared.weight  # (V, D)
    tags = list(tokenizer.tag.values())
    embeddings[tags] = embeddings[tags[0]] + 0.1 * embeddings[tags]
    return model


def main(argv=None):
    title, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=title, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
    add("--seed", type=number(int, 0), default=0, metavar="N", help="default: 0")
    add_overwrite(parser)
    args = parser.parse_args(argv)
    check_out(args.out, args.overwrite)

    out = begin(args.out)
    path = out / "sentencepiece.bpe.model"
    print(f"learning a vocabulary of up to {args.pieces} pieces", flush=True)
    learn_vocabulary(path, args.data, args.langs, args.pieces, args.seed, args.skip_bad_lines)
    tokenizer = Tokenizer(path, "mbart25")
    model = random_model(tokenizer, args.seed)
    tokenizer.save_pretrained(out)
    model.save_pretrained(out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{out}: {tokenizer.vocab_size:,} tokens, {parameters:,} parameters")
    print(f"next: python train.py --stage pretrain --init {out}")


if __name__ == "__main__":
    run(main)
