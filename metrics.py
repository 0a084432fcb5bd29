"""How good is an output: ROUGE in every script, BLEU and chrF, the language it is in, and intervals.

ROUGE-n is the F1 of matching n-grams, ROUGE-L of the longest common subsequence (Lin 2004); the rouge-score library
computes them, but its own tokenizer keeps only a-z and 0-9 and scores Russian or Gujarati 0, so ours is given to it.
BLEU and chrF are sacrebleu's, with its signature. Intervals are 95% bootstrap intervals over the test examples.
"""
import math
import unicodedata
from collections import Counter

import numpy as np
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "MYANMAR", "KHMER")  # scripts without spaces between words


class Words:
    """Splits text into words: runs of letters, marks and digits of any script, folded in case; scripts that are
    written without spaces count by character. No stemming."""

    def tokenize(self, text):
        words, open_word = [], False
        folded = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")  # Turkish İ begins as i does
        for char in folded:
            kind = unicodedata.category(char)[0]
            if kind not in "LMN":
                open_word = False
            elif kind == "L" and unicodedata.name(char, "").startswith(UNSPACED):
                words.append(char)
                open_word = False
            elif open_word or (kind == "M" and words):
                words[-1] += char
            else:
                words.append(char)
                open_word = True
        return words


SCORER = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Words())
ROUGE_SIGNATURE = "rouge-score F1, words of every script, casefolded, no stemming"


def rouge(hypotheses, references):
    """{"R1": array, "R2": array, "RL": array}: F1 in percent for every example."""
    scores = [SCORER.score(reference, hypothesis) for hypothesis, reference in zip(hypotheses, references)]
    return {short: np.array([100 * s[name].fmeasure for s in scores])
            for short, name in (("R1", "rouge1"), ("R2", "rouge2"), ("RL", "rougeL"))}


def bleu_chrf(hypotheses, references, resamples=1000):
    """{"BLEU": (score, low, high), "chrF": (score, low, high)}, and sacrebleu's signatures."""
    rows, signatures = {}, []
    for name, metric in (("BLEU", BLEU()), ("chrF", CHRF())):
        result = metric.corpus_score(hypotheses, [references], n_bootstrap=resamples if len(hypotheses) > 1 else 1)
        score, half = float(result.score), float(getattr(result, "_ci", 0.0))
        half = half if math.isfinite(half) else 0.0
        rows[name] = (score, max(0.0, score - half), min(100.0, score + half))
        signatures.append(f"{name}: {metric.get_signature()}")
    return rows, signatures


def bootstrap(values, resamples=1000, seed=0):
    """(mean, low, high): the mean of per-example values and its 95% bootstrap interval."""
    values = np.asarray(values, float)
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.percentile(values[draws].mean(1), (2.5, 97.5))
    return float(values.mean()), float(low), float(high)


class LanguageIdentifier:
    """Naive Bayes over character n-grams (n = 1 to 4, words padded with spaces), learned from text of each language:

        language(x) = argmax_l  sum over n-grams g of x of log p(g | l),   p(g | l) = (count + 1/2) / (total + V/2)

    Small and exact enough for whole sentences (tests/test_metrics.py measures it); ties and empty text give None."""

    ORDERS = (1, 2, 3, 4)

    def __init__(self, texts):
        """texts: {language: iterable of str}."""
        counts = {lang: Counter(g for text in rows for g in self.ngrams(text)) for lang, rows in texts.items()}
        size = len(set().union(*counts.values()))
        self.scores, self.unseen = {}, {}
        for lang, count in counts.items():
            total = math.log(sum(count.values()) + size / 2)
            self.scores[lang] = {g: math.log(n + 0.5) - total for g, n in count.items()}
            self.unseen[lang] = math.log(0.5) - total

    def ngrams(self, text):
        text = f" {' '.join(Words().tokenize(text))} "
        return [text[i:i + n] for n in self.ORDERS for i in range(len(text) - n + 1)] if text.strip() else []

    def __call__(self, text):
        grams = self.ngrams(text)
        if not grams:
            return None
        return max(self.scores, key=lambda lang: sum(self.scores[lang].get(g, self.unseen[lang]) for g in grams))
