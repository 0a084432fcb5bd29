"""The built-in corpus as a data set."""
import random
from functools import cached_property

from corpora.facts import BASE_LANGUAGES, Corpus
from corpora.facts import LANGUAGES as CORPUS_LANGUAGES
from plumbing.files import UserError

MIXED_SHARE, MIXING_RATE = 0.7, 0.5  # of the pretraining documents; of the slots in such a document
HEADLINE_ALONE, HEADLINE_FIRST = 0.2, 0.3  # of the pretraining documents


class Builtin:
    """The built-in corpus as the data set of a stage; documents of different pairs are different in training and
    the same in validation and test, where languages are compared."""

    def __init__(self, stage, split, pairs, seed=0):
        self.stage, self.split, self.seed, self.pairs = stage, split, seed, list(pairs)
        for code in {code for pair in pairs for code in pair}:
            if code not in CORPUS_LANGUAGES:
                raise UserError(f"the built-in corpus has no {code!r}; it has {' '.join(CORPUS_LANGUAGES)}")
        self.sizes = {pair: None for pair in pairs}

    @cached_property
    def corpus(self):
        langs = {code for pair in self.pairs for code in pair}
        return Corpus([c for c in CORPUS_LANGUAGES if c in langs or (self.stage == "pretrain" and c in BASE_LANGUAGES)])

    def document(self, pair, index):
        if self.split == "train":
            index = index * len(self.pairs) + self.pairs.index(pair)
        return self.corpus.document(index, self.split, self.seed)

    def text(self, pair, index):
        """pretrain: the document twice (every second one code-mixed); translate: a headline or one to three
        sentences, in both languages; summarize: the document and its headline."""
        source, target = pair
        document = self.document(pair, index)
        if self.stage == "summarize":
            return self.corpus.text(document, source), self.corpus.headline(document, target)
        rng = random.Random(f"{self.seed} {self.split} {index} {source} {target}")
        if self.stage == "pretrain":
            rate = MIXING_RATE if rng.random() < MIXED_SHARE else 0.0
            headline, *sentences = self.corpus.mixed(document, source, rng, rate)
            kind = rng.random()  # as in news text: a headline alone, a headline and its text, or the text alone
            if kind < HEADLINE_ALONE:
                sentences = [headline]
            elif kind < HEADLINE_ALONE + HEADLINE_FIRST:
                sentences = [headline, *sentences]
            return "\n".join(sentences), "\n".join(sentences)
        length = rng.choice((0, 1, 1, 2, 3))  # of sentences; 0 is the headline
        if not length:
            return self.corpus.headline(document, source), self.corpus.headline(document, target)
        start = rng.randrange(max(1, len(document.sentences) - length + 1))
        span = slice(start, start + length)
        return (" ".join(self.corpus.languages[source].say(s) for s in document.sentences[span]),
                " ".join(self.corpus.languages[target].say(s) for s in document.sentences[span]))
