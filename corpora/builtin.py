"""The built-in corpus as the data set of a stage: which of its texts are source and target."""
import random
from functools import cached_property

from corpora.facts import BASE_LANGUAGES, CORPUS_LANGUAGES, Corpus
from corpora.language import LEXICON
from plumbing.files import UserError, size_and_checksum

MIXED_SHARE = 0.7      # of the pretraining documents are code-mixed
MIXING_RATE = 0.5      # of a code-mixed document's slots are said in another language
SOURCE_ALONE = 0.0     # of the code-mixed documents have a target in one language alone
HEADLINE_ALONE = 0.2   # of the pretraining documents are a headline without its text
HEADLINE_FIRST = 0.3   # of them begin with their headline, as news text does; the rest have none
LENGTHS = (0, 1, 1, 2, 3)  # of a text to translate, in sentences, drawn alike; 0: the headline


class Builtin:
    """Texts of the built-in corpus, without end: `sizes` and `text(pair, index)`.

    Documents of different pairs are different in training and the same in validation and test,
    where languages are compared.

    source_alone: the share (0 to 1) of the code-mixed pretraining documents whose target is all in
    the target's language: the model learns to translate what is mixed in, by the target's tag.
    Where source and target are mixed alike it learns to copy the mixture."""

    def __init__(self, stage, split, pairs, seed=0, source_alone=SOURCE_ALONE):
        self.stage = stage
        self.split = split
        self.pairs = list(pairs)
        self.seed = seed
        self.source_alone = source_alone
        self.codes = set().union(*pairs)
        for code in sorted(self.codes):
            if code not in CORPUS_LANGUAGES:
                have = " ".join(CORPUS_LANGUAGES)
                raise UserError(f"the built-in corpus has no {code!r}; it has {have}")
        self.sizes = dict.fromkeys(pairs)  # {pair: None}: without end

    @property
    def fingerprint(self):
        """What tells whether the lexicon has changed: {file: [bytes, CRC-32]}."""
        found = {}
        for path in sorted(LEXICON.glob("*.txt")):
            found[f"lexicon/{path.name}"] = size_and_checksum(path)
        return found

    @cached_property
    def corpus(self):
        """The corpus in the languages asked for; pretraining mixes in all of the base's."""
        needed = set(self.codes)
        if self.stage == "pretrain":
            needed |= set(BASE_LANGUAGES)
        return Corpus([code for code in CORPUS_LANGUAGES if code in needed])

    def document(self, pair, index):
        if self.split == "train":
            index = index * len(self.pairs) + self.pairs.index(pair)
        return self.corpus.document(index, self.split, self.seed)

    def text(self, pair, index):
        """(source, target) of the index-th example of a pair."""
        source, target = pair
        document = self.document(pair, index)
        if self.stage == "summarize":
            return self.corpus.text(document, source), self.corpus.headline(document, target)
        rng = random.Random(f"{self.seed} {self.split} {index} {source} {target}")
        if self.stage == "pretrain":
            return self.news(document, source, target, rng)
        return self.translation(document, source, target, rng)

    def news(self, document, source, target, rng):
        """pretrain: a headline, or a text with or without one, a sentence a line, often code-mixed:
        (what is noised, what is to be rebuilt)."""
        rate = 0.0
        if rng.random() < MIXED_SHARE:
            rate = MIXING_RATE
        mixed = self.corpus.mixed(document, source, rng, rate)
        drawn = rng.random()
        text = with_headline(drawn, *mixed)
        if not rate or rng.random() >= self.source_alone:
            return text, text
        return text, with_headline(drawn, *self.corpus.mixed(document, target, rng, 0.0))

    def translation(self, document, source, target, rng):
        """translate, align: a headline or one to three sentences, in both languages."""
        length = rng.choice(LENGTHS)
        if length == 0:
            told = [document.headline]
        else:
            start = rng.randrange(max(1, len(document.sentences) - length + 1))
            told = document.sentences[start:start + length]
        return self.said(told, source), self.said(told, target)

    def said(self, sentences, lang):
        language = self.corpus.languages[lang]
        return " ".join(language.say(sentence) for sentence in sentences)


def with_headline(drawn, headline, *sentences):
    """drawn: a number from 0 to 1, which decides whether the headline or the sentences are left
    out."""
    if drawn < HEADLINE_ALONE:
        sentences = [headline]
    elif drawn < HEADLINE_ALONE + HEADLINE_FIRST:
        sentences = [headline, *sentences]
    return "\n".join(sentences)
