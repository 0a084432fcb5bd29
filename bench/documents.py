"""A test set decoded as a user has it: eval.py's own batches beside CTranslate2's.

bench/speed.py is the program; this file is its row "documents-base": DOCUMENTS English test
documents of the built-in corpus, of different lengths, through base/, which copies them. Outputs
end where the models end them, finished texts leave a batch. The sides search alike: CTranslate2
knows only the search that ends with the fifth hypothesis (--early-stopping); ours without it, of
more steps, is measured beside them. Repeats are allowed, for what is copied has some.
"""
from functools import partial

from bench.peers import convert, equal_outputs, piece_name, ratio, take_turns, translator_of
from corpora.facts import BASE_LANGUAGES
from corpora.sets import open_data
from eval import decode, first_examples
from model import MBart
from plumbing.files import UserError
from plumbing.options import DECODING
from tokenizer import Tokenizer
from train import BASE

DOCUMENTS = 500
LANG = "en_XX"
BATCH_SIZES = (250, 500, 1000, 2000, 4000, 8000)  # tokens, of which CTranslate2 gets the best


def bench_documents(rounds, device, scratch):
    """Seconds for all documents on each side, and ratios."""
    if device.type != "cpu":
        raise UserError("documents-base is measured on a CPU alone")
    tokenizer = Tokenizer.from_pretrained(BASE)
    model = MBart.from_pretrained(BASE).eval()
    pair = (LANG, LANG)
    data = open_data("builtin", "summarize", "test", [pair], list(BASE_LANGUAGES))
    texts, _ = first_examples(data, pair, DOCUMENTS)
    sources = [tokenizer.encode(text, LANG) for text in texts]

    pieces = [[piece_name(token) for token in source] for source in sources]
    token_of = {piece_name(token): token for token in range(tokenizer.vocab_size)}
    converted = scratch / "base-ctranslate2"
    convert(BASE, converted, model.config.vocab_size)
    translator = translator_of(converted, "float32")
    by_peer = partial(by_ctranslate2, translator, tokenizer, pieces, token_of)
    size = best_size(by_peer)
    by_us = partial(decode, model, tokenizer, sources, LANG)
    sides = {
        "ours": partial(by_us, early_stopping=True),
        "ours, without early stopping": by_us,
        "CTranslate2 float32": partial(by_peer, size),
    }
    same = equal_outputs(sides)
    seconds = take_turns(sides, rounds, "decoding documents")
    parts = [f"{side} {count} of {DOCUMENTS} outputs" for side, count in same.items()]
    parts.append(f"CTranslate2 in batches of {size} tokens")
    return {
        "documents": DOCUMENTS,
        "seconds": seconds,
        "ratio": {side: ratio(seconds, side) for side in same},
        "limit": {},
        "same": ", ".join(parts),
    }


def by_ctranslate2(translator, tokenizer, sources, token_of, size):
    """sources: lists of pieces; token_of: {piece: its id}; size: tokens in a batch."""
    tag = piece_name(tokenizer.lang_id(LANG))
    found = translator.translate_batch(
        sources,
        target_prefix=[[tag]] * len(sources),
        beam_size=DECODING["beam"],
        max_decoding_length=DECODING["max_new_tokens"],
        max_input_length=0,
        max_batch_size=size,
        batch_type="tokens",
    )
    outputs = []
    for sentence in found:
        ids = [token_of[piece] for piece in sentence.hypotheses[0]]
        outputs.append(tokenizer.decode(ids))
    return outputs


def best_size(by_peer):
    """The batch size with which CTranslate2 is the quickest here, by the best of three turns."""
    by_peer(BATCH_SIZES[0])  # or the first size would pay for what only a first call does
    sizes = {size: partial(by_peer, size) for size in BATCH_SIZES}
    seconds = take_turns(sizes, 3, "CTranslate2's batch sizes")
    return min(BATCH_SIZES, key=lambda size: min(seconds[size]))
