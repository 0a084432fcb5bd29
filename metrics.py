"""How good is an output: ROUGE in every script, BLEU, chrF, the language it is in, intervals.

ROUGE-n is the F1 of matching n-grams, ROUGE-L of the longest common subsequence (Lin 2004); the
rouge-score library computes them, but its own tokenizer keeps only a-z and 0-9 and scores Russian
or Gujarati 0, so ours is given to it. BLEU and chrF are sacrebleu's, with its signature. The
language of a text is py3langid's best guess among the languages in question. Intervals are 95%
bootstrap intervals over the test examples.

Scores are for one target language each: how its words are split, folded and stemmed depends on it.
"""
import math
import unicodedata
from functools import cache
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import py3langid
import snowballstemmer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

# Scripts without spaces between words, as Unicode's names of their letters begin.
SPACELESS_SCRIPTS = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "MYANMAR", "KHMER",
)  # fmt: skip
ZERO_WIDTH_SPACE = "\u200b"  # ends a word; other invisible characters stand within one
SPACELESS_LANGUAGES = ("zh", "ja", "th", "lo", "my", "km")  # which these scripts are of
DOTLESS = ("tr", "az")  # languages whose I is the capital of ı, and whose İ is that of i
# How sacrebleu splits a language for BLEU, the best way first; the others: 13a.
BLEU_TOKENIZERS = {
    "zh": ("zh",),
    "ja": ("ja-mecab", "char"),
    "ko": ("ko-mecab", "char"),
    "th": ("char",),
    "lo": ("char",),
    "my": ("char",),
    "km": ("char",),
}
STEMMERS = {  # ISO 639-1 code: Snowball's name of its algorithm
    "ar": "arabic",
    "cs": "czech",
    "de": "german",
    "en": "porter",  # rouge-score has a variant of it, NLTK's
    "es": "spanish",
    "et": "estonian",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "hi": "hindi",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "nl": "dutch",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
RESAMPLES = 1000  # of the examples, behind each interval
SEED = 12345  # of the draws for BLEU and chrF: sacrebleu's own


def iso(code):
    """An mBART code's language, ISO 639-1: tr_TR -> tr."""
    return code.split("_")[0]


class Interval(NamedTuple):
    """A score in percent with the ends of its 95% interval.

    Of one example nothing is known about others: its interval is all of 0 to 100."""

    value: float
    low: float
    high: float


class Words:
    """Splits text into words: runs of letters, marks and digits of any script, folded in case.

    Scripts that are written without spaces count by character. language: an mBART code, for Turkish
    and Azerbaijani have capitals of their own (I of dotless i). stem: cut endings off with the
    language's Snowball stemmer (see has_stemmer), of words longer than three letters, as
    rouge-score does."""

    def __init__(self, language="en_XX", stem=False):
        self.dotless = iso(language) in DOTLESS
        self.stemmer = None
        if stem:
            self.stemmer = snowballstemmer.stemmer(STEMMERS[iso(language)])

    def tokenize(self, text):
        words = self.split(self.fold(text))
        if self.stemmer is None:
            return words
        stems = []
        for word in words:
            if len(word) > 3:
                word = self.stemmer.stemWord(word)
            stems.append(word)
        return stems

    def fold(self, text):
        """Text without the difference of capitals and small letters."""
        text = unicodedata.normalize("NFKC", text)
        if self.dotless:
            text = text.replace("I", "ı")
        # casefold makes İ an i with a dot above; drop the dot.
        return text.casefold().replace("i\u0307", "i")

    @staticmethod
    def split(text):
        words = []
        inside = False  # does the next letter go on with the last word?
        behind_letter = False  # is the last character one that a mark can belong to?
        for char in text:
            category = unicodedata.category(char)
            kind = category[0]  # L: letter, M: mark, N: number, and others
            if category == "Cf" and char != ZERO_WIDTH_SPACE:
                continue  # a joiner of Sinhala or Persian, a soft hyphen: within a word
            if kind == "M":
                # A vowel sign or accent belongs to the letter before it. The others only say how
                # a character is drawn: that of an emoji, a circle around a digit.
                if behind_letter and not is_of_drawing(char):
                    words[-1] += char
                continue
            behind_letter = kind in "LN"
            if not behind_letter:
                inside = False
            elif unicodedata.name(char, "").startswith(SPACELESS_SCRIPTS):
                words.append(char)
                inside = False
            elif inside:
                words[-1] += char
            else:
                words.append(char)
                inside = True
        return words


def is_of_drawing(mark):
    """Does a mark say only how the character before it is drawn (a variation selector, a frame)?"""
    is_frame = unicodedata.category(mark) == "Me"
    return is_frame or "VARIATION SELECTOR" in unicodedata.name(mark, "")


def has_stemmer(language):
    """Can words of this language (an mBART code) be stemmed?"""
    return STEMMERS.get(iso(language)) in snowballstemmer.algorithms()


ROUGE = {"R1": "rouge1", "R2": "rouge2", "RL": "rougeL"}  # our columns, and the library's names


@cache
def scorer(language, stem):
    return RougeScorer(list(ROUGE.values()), tokenizer=Words(language, stem))


def rouge(hypotheses, references, language="en_XX", stem=False):
    """{"R1": array, "R2": array, "RL": array}: F1 in percent for every example.

    language: of the references, an mBART code; stem: see Words."""
    columns = {column: [] for column in ROUGE}
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        scores = scorer(language, stem).score(reference, hypothesis)
        for column, name in ROUGE.items():
            columns[column].append(100 * scores[name].fmeasure)
    return {column: np.array(values) for column, values in columns.items()}


def rouge_signature(language, stem=False):
    """How `rouge` computes, in words."""
    folding = "casefolded"
    if iso(language) in DOTLESS:
        folding = "casefolded with I as the capital of ı"
    ending = "no stemming"
    if stem:
        installed = version("snowballstemmer")
        ending = f"stemmed (Snowball's {STEMMERS[iso(language)]}, version {installed})"
    words = "words of every script"
    if iso(language) in SPACELESS_LANGUAGES:
        words = "each character a word"
    return f"rouge-score F1, {words}, {folding}, {ending}"


@cache
def bleu_tokenizer(language):
    """sacrebleu's name of the tokenizer for a target language (an mBART code).

    Japanese and Korean dictionaries are packages of their own (sacrebleu[ja], sacrebleu[ko]): where
    they are absent, by character."""
    for name in BLEU_TOKENIZERS.get(iso(language), ("13a",)):
        try:
            BLEU(tokenize=name)
        except (ImportError, RuntimeError):
            continue
        return name


def bleu_chrf(hypotheses, references, language="en_XX"):
    """{"BLEU": Interval, "chrF": Interval} of the whole corpus, and sacrebleu's signatures.

    language: of the references, an mBART code. BLEU of languages that are split by different
    tokenizers cannot be compared; chrF can. BLEU is None where no reference has the four words that
    its longest n-gram needs, for then it is 0 whatever the outputs are."""
    scores = {}
    signatures = []
    tokenizer = bleu_tokenizer(language)
    corpus_metrics = {"BLEU": BLEU(tokenize=tokenizer), "chrF": CHRF()}
    for name, metric in corpus_metrics.items():
        scores[name] = corpus_interval(metric, hypotheses, references)
        signatures.append(f"{name}: {metric.get_signature()}")
    perfect = BLEU(tokenize=tokenizer).corpus_score(references, [references])
    if perfect.totals[-1] == 0:
        scores["BLEU"] = None
    return scores, signatures


def corpus_interval(metric, hypotheses, references):
    """A sacrebleu metric's Interval: the score, give or take half the width of the middle 95% of
    the resampled scores.

    The draws are those of the library's own resampling, which fails where one has empty outputs
    alone, and copies the statistics of all draws at once: 4 GB of 50,000 examples for chrF."""
    value = within_0_to_100(metric.corpus_score(hypotheses, [references]).score)
    if len(hypotheses) == 1:
        return Interval(value, 0.0, 100.0)
    stats = np.array(metric._extract_corpus_statistics(hypotheses, [references]), "float32")
    metric.n_bootstrap = RESAMPLES  # for the signature
    metric.seed = str(SEED)
    drawn = []
    for rows in draws(len(stats), SEED):
        drawn.append(float(metric._compute_score_from_stats(stats[rows].sum(0)).score))
    drawn.sort()
    outside = RESAMPLES // 40  # 2.5% of the draws, on each side
    half = (drawn[-1 - outside] - drawn[outside]) / 2
    return Interval(value, within_0_to_100(value - half), within_0_to_100(value + half))


def draws(count, seed):
    """Yields the places of each resample's examples: `count` of `count`, drawn with replacement.

    One resample at a time: a thousand of 50,000 examples would take 400 MB. The places are those
    that the generator gives for all of them at once."""
    generator = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        yield generator.integers(0, count, count)


def within_0_to_100(value):
    """The number, or the nearest of 0 and 100: libraries' sums may lie a rounding error outside."""
    return min(100.0, max(0.0, float(value)))


def bootstrap(values, seed=0):
    """Percentages, one an example -> Interval: their mean and its 95% bootstrap interval."""
    values = np.asarray(values, float)
    if not len(values):
        raise ValueError("no example, no mean")
    mean = within_0_to_100(values.mean())
    if len(values) == 1:
        return Interval(mean, 0.0, 100.0)
    drawn = [values[rows].mean() for rows in draws(len(values), seed)]
    low, high = np.percentile(drawn, (2.5, 97.5))
    # Of equal values the mean of a draw may be a rounding error away.
    low = min(mean, within_0_to_100(low))
    high = max(mean, within_0_to_100(high))
    return Interval(mean, low, high)


@cache
def known_languages():
    """The ISO 639-1 codes that py3langid tells apart; its model is loaded at the first call."""
    return {language for language, _ in py3langid.rank("")}


def likeliest(posteriors):
    """The code of the largest posterior; None where there is none: nothing in the text tells."""
    return max(posteriors, key=posteriors.get, default=None)


class LanguageIdentifier:
    """In which of a few languages is a text? posteriors() tells, and likeliest() of them.

    languages: mBART codes. English is always among them, for models fall back into it. The library
    scores all its languages by the logarithm of their likelihood; those in question count."""

    def __init__(self, languages):
        self.codes = {}  # {ISO 639-1 code: mBART code}
        for code in ["en_XX", *languages]:
            language = iso(code)
            if language in known_languages():
                self.codes[language] = code

    def signature(self):
        """How texts are told apart, in words: the more languages, the more can be mistaken."""
        if len(self.codes) == 1:
            return "off-target: not told: py3langid knows English alone of those in question"
        languages = " ".join(sorted(self.codes.values()))
        return f"off-target: py3langid {version('py3langid')}, which chooses among {languages}"

    def knows(self, code):
        """Can a text be found to be in this language, and not to be? Not where the library does not
        know it, nor where it is the only one in question that it knows: all would be in it."""
        return len(self.codes) > 1 and code in self.codes.values()

    def posteriors(self, text):
        """{mBART code: probability} of the languages in question; {} if nothing in the text tells.

        The library takes a text's parts for independent, so that these are near 0 or 1 but for
        short texts."""
        if not any(char.isalpha() for char in text):
            return {}
        ranked = py3langid.rank(text)  # [(language, score)], the best first
        if ranked[0][1] == ranked[-1][1]:
            return {}  # nothing that the library has ever seen
        scores = {self.codes[name]: score for name, score in ranked if name in self.codes}
        best = max(scores.values())
        weights = {code: math.exp(score - best) for code, score in scores.items()}
        total = sum(weights.values())
        return {code: weight / total for code, weight in weights.items()}
