"""papers/dictionary.py: dictionary induction."""
import json

import torch
from conftest import ROOT

from papers.dictionary import dictionary_induction, lexicon_words
from tokenizer import Tokenizer


def test_dictionary_induction_finds_a_dictionary_that_was_put_there():
    """Child vectors that are the parent's of their translation give 100%; random ones no more than
    chance."""
    base = Tokenizer.from_pretrained(ROOT / "base")
    pieces = base.pieces
    english = lexicon_words("en_XX")
    generator = torch.Generator().manual_seed(0)
    parent = torch.randn(base.vocab_size, 64, generator=generator)
    parent = torch.nn.functional.normalize(parent, dim=1)
    child = torch.randn(base.vocab_size, 64, generator=generator)
    random = dictionary_induction(child, pieces, "es_XX", parent, pieces, "en_XX")
    for entry, words in lexicon_words("es_XX").items():
        found = [pieces.piece_to_id(f"▁{word}") for word in sorted(english.get(entry, ()))]
        found = [piece + 1 for piece in found if piece != pieces.unk_id()]
        if not found:
            continue
        for word in words:
            child[pieces.piece_to_id(f"▁{word}") + 1] = parent[found[0]]
    exact = dictionary_induction(child, pieces, "es_XX", parent, pieces, "en_XX")
    assert exact.accuracy > 0.97 and exact.words > 100
    assert random.accuracy < 0.05 and random.chance < 0.02


def test_the_program_prints_and_writes_the_share_of_words_that_lie_at_a_translation(run, tmp_path):
    file = tmp_path / "dictionary.json"
    done = run("-m", "papers.dictionary", "base", "en_XX", "base", "en_XX", "src", "--json", file)
    assert done.returncode == 0, done.stderr
    report = json.loads(file.read_text())
    assert report["model"] == "base"
    assert list(report["dictionary"]) == ["accuracy", "words", "chance"]
    assert report["dictionary"]["accuracy"] > 0.9  # a word is its own translation
    assert f"of {report['dictionary']['words']} words of en_XX" in done.stdout


def test_a_folder_that_is_no_child_of_the_other_is_an_error(run, small):
    done = run("-m", "papers.dictionary", small, "es_XX", "base", "en_XX", "tgt")
    assert done.returncode == 2 and "a model and its parent" in done.stderr, done.stderr
