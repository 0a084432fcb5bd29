"""How good is an output: ROUGE in every script, BLEU, chrF, the language it is in, intervals.

ROUGE-n is the F1 of matching n-grams, ROUGE-L of the longest common subsequence (Lin 2004); the
rouge-score library computes them, but its own tokenizer keeps only a-z and 0-9 and scores Russian
or Gujarati 0, so ours is given to it. BLEU and chrF are sacrebleu's, with its signature. The
language of a text is py3langid's best guess among the languages in question. Intervals are 95%
bootstrap intervals over the test examples.
"""
import math
import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import py3langid
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

# Scripts without spaces between words, as Unicode's names of their letters begin.
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "MYANMAR", "KHMER")


class Interval(NamedTuple):
    """A score with the ends of its 95% interval."""

    value: float
    low: float
    high: float


class Words:
    """Splits text into words: runs of letters, marks and digits of any script, folded in case.

    Scripts that are written without spaces count by character. No stemming."""

    def tokenize(self, text):
        folded = unicodedata.normalize("NFKC", text).casefold()
        # casefold makes İ an i with a dot above; drop the dot.
        folded = folded.replace("i\u0307", "i")
        words = []
        inside = False  # does the next character go on with the last word?
        for char in folded:
            kind = unicodedata.category(char)[0]  # L: letter, M: mark, N: number, and others
            if kind not in "LMN":
                inside = False
            elif kind == "L" and unicodedata.name(char, "").startswith(UNSPACED):
                words.append(char)
                inside = False
            elif inside or (kind == "M" and words):
                words[-1] += char  # a vowel sign or accent belongs to the letter before it
            else:
                words.append(char)
                inside = True
        return words


ROUGE = {"R1": "rouge1", "R2": "rouge2", "RL": "rougeL"}  # our columns, and the library's names
SCORER = RougeScorer(list(ROUGE.values()), tokenizer=Words())
ROUGE_SIGNATURE = "rouge-score F1, words of every script, casefolded, no stemming"


def rouge(hypotheses, references):
    """{"R1": array, "R2": array, "RL": array}: F1 in percent for every example."""
    columns = {column: [] for column in ROUGE}
    for hypothesis, reference in zip(hypotheses, references):
        scores = SCORER.score(reference, hypothesis)
        for column, name in ROUGE.items():
            columns[column].append(100 * scores[name].fmeasure)
    return {column: np.array(values) for column, values in columns.items()}


def bleu_chrf(hypotheses, references, resamples=1000):
    """{"BLEU": Interval, "chrF": Interval} of the whole corpus, and sacrebleu's signatures.

    BLEU splits words as sacrebleu's 13a does, at spaces and punctuation: it says little for
    languages that are written without spaces. Read chrF there."""
    if len(hypotheses) == 1:
        resamples = 1  # one example has no interval
    scores = {}
    signatures = []
    for name, metric in (("BLEU", BLEU()), ("chrF", CHRF())):
        result = metric.corpus_score(hypotheses, [references], n_bootstrap=resamples)
        value = float(result.score)
        # Half the interval's width; sacrebleu has no public name for it.
        half = float(getattr(result, "_ci", 0.0))
        if not math.isfinite(half):
            half = 0.0
        scores[name] = Interval(value, max(0.0, value - half), min(100.0, value + half))
        signatures.append(f"{name}: {metric.get_signature()}")
    return scores, signatures


def bootstrap(values, resamples=1000, seed=0):
    """Per-example values -> Interval: their mean and its 95% bootstrap interval."""
    values = np.asarray(values, float)
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[draws].mean(1), (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high))


@cache
def known_languages():
    """The ISO 639-1 codes that py3langid tells apart; its model is loaded at the first call."""
    return {language for language, _ in py3langid.rank("")}


class LanguageIdentifier:
    """In which of a few languages is a text? identify = LanguageIdentifier(["tr_TR", "ru_RU"])

    languages: mBART codes. English is always among them, for models fall back into it. The library
    scores all its languages; the best one in question counts."""

    def __init__(self, languages):
        self.codes = {}  # {ISO 639-1 code: mBART code}
        for code in ["en_XX", *languages]:
            language = code.split("_")[0]
            if language in known_languages():
                self.codes[language] = code

    def knows(self, code):
        """Does the library know this language? If not, no text can be said to be in it."""
        return code in self.codes.values()

    def __call__(self, text):
        """The mBART code of the text's language; None if nothing in the text tells."""
        if not any(char.isalpha() for char in text):
            return None
        ranked = py3langid.rank(text)  # [(language, score)], the best first
        if ranked[0][1] == ranked[-1][1]:
            return None  # nothing that the library has ever seen
        for language, _ in ranked:
            if language in self.codes:
                return self.codes[language]
