"""Do a new language's words lie where their translations lie (Gheini et al. 2021, section 5.1)?

    python -m papers.dictionary runs/child de_DE runs/parent fr_XX src

Dictionary induction. For every word w of the child's language that is one piece of its vocabulary:
is the parent's nearest embedding, among the words of the parent's language that are one piece,

    argmax_v  e_child(w) . e_parent(v)

one of its translations? These are looked up in the built-in lexicon. src compares the embeddings of
the encoders, tgt those of the decoders.
"""
from collections import Counter
from dataclasses import asdict, dataclass

import torch

from corpora.language import Language
from model import MBart
from plumbing.files import UserError, check_file_out, parser_of, run, write_json
from plumbing.models import model_folder
from plumbing.runs import origin_of
from tokenizer import Tokenizer

SECTIONS = ("people", "things", "adjectives", "verbs", "places")  # of the lexicon
SHARED = 3  # a word of more entries than these is an article or a preposition


@dataclass
class Induction:
    """How often the nearest embedding is a translation. NaN where no word could be tried."""

    accuracy: float
    words: int  # tried
    chance: float  # the accuracy of a random choice


def lexicon_words(lang):
    """{entry: its words in `lang`}, of people, things, adjectives, verbs and places.

    Words that many entries share (articles, prepositions) are left out."""
    language = Language(lang)
    words = {}
    entries_with = Counter()
    for section in SECTIONS:
        for name, forms in language.entries[section].items():
            found = set(" ".join(forms).split())
            words[section, name] = {word for word in found if len(word) > 1}
            entries_with.update(words[section, name])
    common = {word for word, count in entries_with.items() if count > SHARED}
    return {entry: found - common for entry, found in words.items()}


def whole_words(pieces, lang):
    """{entry: the ids of its words in `lang` that are one piece}."""
    unknown = pieces.unk_id()
    ids = {}
    for entry, words in lexicon_words(lang).items():
        found = [pieces.piece_to_id(f"▁{word}") for word in sorted(words)]
        ids[entry] = [piece + 1 for piece in found if piece != unknown]  # mBART's ids are one more
    return ids


@torch.no_grad()
def dictionary_induction(child, child_pieces, child_lang, parent, parent_pieces, parent_lang):
    """child, parent: embedding tables (V, D), with their SentencePiece models -> Induction."""
    ours = whole_words(child_pieces, child_lang)
    theirs = whole_words(parent_pieces, parent_lang)
    tried = []  # ids of words that have a translation
    translations = []  # the ids of each one's translations
    for entry, ids in ours.items():
        if theirs.get(entry):
            tried.extend(ids)
            translations.extend([set(theirs[entry])] * len(ids))
    if not tried:
        return Induction(float("nan"), 0, float("nan"))
    candidates = sorted(set().union(*theirs.values()))
    similarity = child[tried] @ parent[candidates].T  # (words, candidates)
    nearest = similarity.argmax(1).tolist()
    right = 0
    for place, gold in zip(nearest, translations):
        right += candidates[place] in gold
    chance = sum(map(len, translations)) / len(tried) / len(candidates)
    return Induction(right / len(tried), len(tried), chance)


def embeddings_of(folder, side):
    """The embedding table (V, D) of a folder's encoder (src) or decoder (tgt), and its pieces."""
    folder = model_folder(folder)
    model = MBart.from_pretrained(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    if side == "src":
        return model.source_table(), tokenizer.source.pieces
    return model.model.shared.weight, tokenizer.pieces


def main(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("child", metavar="CHILD", help="the folder of a model with a new language")
    add("child_lang", metavar="LANG", help="that language, e.g. de_DE")
    add("parent", metavar="PARENT", help="the folder of the model that it was made from")
    add("parent_lang", metavar="LANG", help="the parent's language on that side, e.g. fr_XX")
    add("side", choices=("src", "tgt"), help="whose embeddings: the encoder's or the decoder's")
    add("--json", metavar="FILE", help="also write the numbers to this file")
    args = parser.parse_args(argv)
    if args.json:
        check_file_out(args.json, read=[args.child, args.parent])
    child, child_pieces = embeddings_of(args.child, args.side)
    parent, parent_pieces = embeddings_of(args.parent, args.side)
    if child.size(1) != parent.size(1):
        raise UserError(
            f"{args.child} has embeddings of {child.size(1)} numbers and {args.parent} of "
            f"{parent.size(1)}: only those of a model and its parent compare"
        )
    found = dictionary_induction(
        child, child_pieces, args.child_lang, parent, parent_pieces, args.parent_lang
    )
    if not found.words:
        raise UserError(
            f"{args.child}: no word of {args.child_lang} is one piece and has a translation into "
            f"{args.parent_lang} that is one; name the languages of that side"
        )
    print(
        f"{args.child}: {100 * found.accuracy:.1f}% of {found.words} words of {args.child_lang} "
        f"have a translation as the nearest embedding of {args.parent_lang} "
        f"(chance {100 * found.chance:.1f}%)"
    )
    if args.json:
        origin = origin_of(model_folder(args.child))
        write_json(
            args.json, {"model": args.child, "dictionary": asdict(found), "origin": origin}
        )


if __name__ == "__main__":
    run(main)
