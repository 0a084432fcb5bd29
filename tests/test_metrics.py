"""metrics.py: every script scores, intervals are intervals, languages are told apart."""
import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer

import metrics
from corpora.facts import LANGUAGES, Corpus
from metrics import LanguageIdentifier, Words, bleu_chrf, bootstrap, rouge

TEXTS = [
    "The cat sat.",
    "кошка сидела тихо",
    "બિલાડી ચૂપચાપ બેઠી",
    "kedi sessizce oturdu",
    "猫は静かに座った",
    "แมวนั่งเงียบ",
    "القطة جلست بهدوء",
]


@pytest.mark.parametrize("text", TEXTS)
def test_identical_text_scores_100_in_every_script_and_other_text_0(text):
    assert rouge([text], [text])["R1"][0] == pytest.approx(100)
    assert rouge([text], ["xyzzy 42"])["RL"][0] == 0


def test_gujarati_vowel_signs_stay_with_their_word():
    assert Words().tokenize("શિક્ષકે સાયકલ ખરીદી.") == ["શિક્ષકે", "સાયકલ", "ખરીદી"]


def test_english_agrees_with_the_librarys_own_tokenizer():
    output = "The doctor, 40, found a red map!"
    reference = "the map: a doctor found it in 40 days"
    library = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, output)
    ours = rouge([output], [reference])
    for short, name in (("R1", "rouge1"), ("R2", "rouge2"), ("RL", "rougeL")):
        assert ours[short][0] == pytest.approx(100 * library[name].fmeasure)


def test_rouge_by_hand():
    # unigrams: 3 of 4 and 3 of 3; no bigram in common; the longest subsequence: "a b" or "a c"
    scores = rouge(["a b c d"], ["a c b"])
    assert scores["R1"][0] == pytest.approx(100 * 2 * 0.75 / 1.75)
    assert scores["R2"][0] == 0
    assert scores["RL"][0] == pytest.approx(100 * 2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))


def test_bleu_and_chrf_are_sacrebleus_and_signed():
    texts = ["the cat sat on the mat"] * 3
    scores, signatures = bleu_chrf(texts, texts)
    assert scores["BLEU"][0] == pytest.approx(100) and scores["chrF"][0] == pytest.approx(100)
    assert "version" in signatures[0] and signatures[1].startswith("chrF")


def test_bootstrap_intervals_hold_the_mean_and_shrink_with_more_examples():
    values = np.random.default_rng(0).random(1000) * 100
    mean, low, high = bootstrap(values)
    assert low < mean < high and mean == pytest.approx(values.mean())
    _, low_few, high_few = bootstrap(values[:50])
    assert high - low < (high_few - low_few) / 2
    covered = 0
    # of samples whose true mean is 50, about 95% of the intervals must hold it
    for seed in range(100):
        _, low, high = bootstrap(np.random.default_rng(seed).random(100) * 100, seed=seed)
        covered += low <= 50 <= high
    assert 85 <= covered <= 100


def test_language_identification_is_at_least_99_percent_right_on_held_out_headlines():
    corpus = Corpus()
    identify = LanguageIdentifier(LANGUAGES)
    for lang in LANGUAGES:
        headlines = [corpus.headline(corpus.document(i, "test"), lang) for i in range(300)]
        right = sum(identify(headline) == lang for headline in headlines)
        assert right >= 297, lang
    assert identify("") is None and identify("... !") is None


def test_a_language_is_one_of_those_in_question_or_english():
    turkish = LanguageIdentifier(["tr_TR"])
    assert turkish("Bugün hava çok güzel") == "tr_TR"
    assert turkish("The weather is beautiful today") == "en_XX"
    assert turkish("Das Wetter ist heute sehr schön") in ("tr_TR", "en_XX")
    assert turkish("猫") is None  # not a byte of it tells


def test_a_language_that_the_library_lacks_is_said_to_be_unknown(monkeypatch):
    assert LanguageIdentifier(["tr_TR"]).knows("tr_TR")
    assert not LanguageIdentifier(["tr_TR"]).knows("ru_RU")
    monkeypatch.setattr(metrics, "known_languages", lambda: {"en", "tr"})
    identify = LanguageIdentifier(["tr_TR", "my_MM"])
    assert identify.knows("tr_TR") and identify.knows("en_XX") and not identify.knows("my_MM")
