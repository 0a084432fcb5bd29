"""metrics.py: every script scores, intervals are intervals, languages are told apart."""
import tracemalloc

import numpy as np
import py3langid
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF

import metrics
from corpora.facts import CORPUS_LANGUAGES, Corpus
from metrics import LanguageIdentifier, Words, bleu_chrf, bootstrap, likeliest, rouge

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


@pytest.mark.parametrize("text, words", [
    ("Great ❤️ news", ["great", "news"]),  # a heart, and that it is to be drawn in colours
    ("3️⃣ steps", ["3", "steps"]),  # a 3 in a frame
    ("cafe\u0301", ["café"]),
    ("\u0301cafe \u0301", ["cafe"]),  # marks of no letter
    ("नमस्ते", ["नमस्ते"]),
    ("नमस्ते".replace("\u094d", "\u094d\u200d"), ["नमस्ते"]),  # a joiner behind the virama
])
def test_a_mark_belongs_to_the_letter_before_it_or_to_nothing(text, words):
    assert Words().tokenize(text) == words


def test_english_agrees_with_the_librarys_own_tokenizer():
    output = "The doctor, 40, found a red map!"
    reference = "the map: a doctor found it in 40 days"
    library = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, output)
    ours = rouge([output], [reference])
    for short, name in (("R1", "rouge1"), ("R2", "rouge2"), ("RL", "rougeL")):
        assert ours[short][0] == pytest.approx(100 * library[name].fmeasure)


def test_a_missing_output_is_an_error_and_no_score_of_the_rest():
    with pytest.raises(ValueError, match="longer"):
        rouge(["a"], ["a", "b"])


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


@pytest.mark.parametrize(
    "language, name",
    [("zh_CN", "zh"), ("th_TH", "char"), ("my_MM", "char"), ("km_KH", "char"), ("ru_RU", "13a")],
)
def test_bleu_splits_words_as_the_target_language_does(language, name):
    _, signatures = bleu_chrf(["a b c d"], ["a b c d"], language)
    assert f"tok:{name}|" in signatures[0]


def test_bleu_of_chinese_is_that_of_sacrebleus_chinese_tokenizer():
    output = ["今天天气很好,我们去公园散步。"]
    reference = ["今天天气很好,我们去公园玩。"]
    scores, _ = bleu_chrf(output, reference, "zh_CN")
    expected = BLEU(tokenize="zh").corpus_score(output, [reference]).score
    assert scores["BLEU"].value == pytest.approx(expected) and expected > 70


@pytest.mark.parametrize("language", ["ja_XX", "ko_KR"])
def test_bleu_goes_by_character_where_a_dictionary_is_absent(language, monkeypatch):
    def without(tokenize):
        if "mecab" in tokenize:
            raise RuntimeError("requires extra dependencies")

    monkeypatch.setattr(metrics, "BLEU", without)
    assert metrics.bleu_tokenizer.__wrapped__(language) == "char"
    monkeypatch.setattr(metrics, "BLEU", lambda tokenize: None)
    assert metrics.bleu_tokenizer.__wrapped__(language).endswith("-mecab")


def test_bleu_of_references_below_four_words_is_not_known():
    scores, _ = bleu_chrf(["Hava güzel", "Evet"], ["Hava güzel", "Evet"], "tr_TR")
    assert scores["BLEU"] is None and scores["chrF"].value == pytest.approx(100)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("output", ["", "cat", "the cat sat on the mat today"])
def test_every_interval_holds_its_score_within_0_and_100(count, output):
    references = ["the cat sat on the mat today"] * count
    outputs = [output] + references[1:]
    scores, _ = bleu_chrf(outputs, references)
    intervals = list(scores.values())
    for values in rouge(outputs, references).values():
        intervals.append(bootstrap(values))
    for value, low, high in intervals:
        assert 0 <= low <= value <= high <= 100
        assert count > 1 or (low, high) == (0, 100)  # of one example nothing is known


def test_intervals_of_a_corpus_are_sacrebleus_own():
    references = ["the cat sat on the mat", "a dog ran off to the park", "it was cold all day long"]
    outputs = ["the cat sat on a mat", "the dog ran off to a park", "it was cold all day long"]
    for name, metric in (("BLEU", BLEU()), ("chrF", CHRF())):
        result = metric.corpus_score(outputs, [references], n_bootstrap=1000)
        scores, signatures = bleu_chrf(outputs, references)
        assert scores[name].low == pytest.approx(result.score - result._ci)
        assert scores[name].high == pytest.approx(min(100, result.score + result._ci))
        assert f"{name}: {metric.get_signature()}" in signatures


def test_resamples_are_drawn_one_by_one_with_the_numbers_of_all_at_once():
    """All at once, those of 50,000 examples take a gigabyte."""
    generator = np.random.default_rng(3)
    for count in (2, 3, 9, 128, 129, 1000, 3001):
        values = 100 * generator.random(count)
        drawn = np.random.default_rng(0).integers(0, count, (1000, count))
        low, high = np.percentile(values[drawn].mean(1), (2.5, 97.5))
        assert bootstrap(values)[1:] == (low, high)
    outputs = ["the cat sat on a mat", "the dog ran off to a park", ""] * 4000
    references = ["the cat sat on the mat", "a dog ran off to the park", "it was cold"] * 4000
    stats = np.array(BLEU()._extract_corpus_statistics(outputs, [references]))
    whole = 1000 * stats.size * 4  # bytes, in float32
    tracemalloc.start()
    bootstrap([1.0, 0.0] * 6000)
    metrics.corpus_interval(BLEU(), outputs, references)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < whole / 10


def test_bootstrap_of_equal_values_holds_them_to_the_last_digit():
    for count in range(1, 60):
        value, low, high = bootstrap([100 / 3] * count)
        assert low <= value <= high
    with pytest.raises(ValueError, match="no example"):
        bootstrap([])


def test_turkish_capitals_fold_as_turkish_does():
    assert Words("tr_TR").tokenize("KADIN İYİ") == Words("tr_TR").tokenize("kadın iyi")
    assert rouge(["KADIN"], ["kadın"], "tr_TR")["R1"][0] == pytest.approx(100)
    assert rouge(["QADIN"], ["qadın"], "az_AZ")["R1"][0] == pytest.approx(100)
    assert rouge(["BIG İ"], ["big i"], "en_XX")["R1"][0] == pytest.approx(100)
    assert rouge(["ﬁne １２"], ["fine 12"])["R1"][0] == pytest.approx(100)


def test_invisible_characters_do_not_break_words():
    assert Words("fa_IR").tokenize("می\u200cخواهد") == ["میخواهد"]
    assert Words("si_LK").tokenize("ශ්\u200dරී ලංකා") == ["ශ්රී", "ලංකා"]
    assert Words().tokenize("Kran\u00adken\u00adhaus\ufeff") == ["krankenhaus"]
    assert Words().tokenize("two\u200bwords") == ["two", "words"]
    assert Words("ja_XX").tokenize("人々は") == ["人", "々", "は"]


def test_english_stems_agree_with_the_librarys_own():
    output = "The doctors were running quickly to hospitals"
    reference = "A doctor runs to the hospital, quick"
    library = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    expected = library.score(reference, output)
    ours = rouge([output], [reference], "en_XX", stem=True)
    for short, name in (("R1", "rouge1"), ("R2", "rouge2"), ("RL", "rougeL")):
        assert ours[short][0] == pytest.approx(100 * expected[name].fmeasure)
    assert ours["R1"][0] > rouge([output], [reference])["R1"][0]


def test_words_of_three_letters_are_not_stemmed():
    output = "it was his gas"
    reference = "it wa hi ga"  # what Porter's stemmer would make of it
    library = RougeScorer(["rouge1"], use_stemmer=True).score(reference, output)
    ours = rouge([output], [reference], "en_XX", stem=True)["R1"][0]
    assert ours == pytest.approx(100 * library["rouge1"].fmeasure) == pytest.approx(25)


def test_russian_and_turkish_are_stemmed_and_gujarati_is_not():
    for language, output, reference in (
        ("ru_RU", "Новые книги", "новую книгу"),
        ("tr_TR", "KIZLAR", "kızları"),
    ):
        assert rouge([output], [reference], language)["R1"][0] == 0
        assert rouge([output], [reference], language, stem=True)["R1"][0] == pytest.approx(100)
        assert metrics.has_stemmer(language)
        assert "Snowball" in metrics.rouge_signature(language, stem=True)
    assert not metrics.has_stemmer("gu_IN") and not metrics.has_stemmer("my_MM")


@pytest.mark.parametrize("language, one, other", [
    ("es_XX", "canción", "canciones"), ("de_DE", "Haus", "Häuser"),
    ("fr_XX", "continuelle", "continuellement"), ("it_IT", "abbandonata", "abbandonato"),
])
def test_each_language_has_a_stemmer_of_its_own(language, one, other):
    assert rouge([one], [other], language)["R1"][0] == 0
    assert rouge([one], [other], language, stem=True)["R1"][0] == pytest.approx(100)


@pytest.mark.parametrize("language, letters", [
    ("th_TH", "กขคง"), ("lo_LA", "ກຂຄງ"), ("my_MM", "ကခဂဃ"), ("km_KH", "កខគឃ"),
    ("zh_CN", "医生地图"), ("ja_XX", "ちずカメ"),
])
def test_half_of_a_text_without_spaces_is_half_of_its_words(language, letters):
    found = rouge([letters[:2]], [letters], language)["R1"][0]
    assert found == pytest.approx(100 * 2 / 3)  # precision 1, recall 1/2


def test_the_signature_says_where_a_character_is_a_word():
    for language in ("zh_CN", "ja_XX", "th_TH", "my_MM", "km_KH"):
        assert "each character a word" in metrics.rouge_signature(language)
    assert "words of every script" in metrics.rouge_signature("ko_KR")


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
    identify = LanguageIdentifier(CORPUS_LANGUAGES)
    for lang in CORPUS_LANGUAGES:
        headlines = [corpus.headline(corpus.document(i, "test"), lang) for i in range(300)]
        right = sum(likeliest(identify.posteriors(text)) == lang for text in headlines)
        assert right >= 297, lang
    for text in ("", "... !"):
        assert likeliest(identify.posteriors(text)) is None


def test_a_language_is_one_of_those_in_question_or_english():
    turkish = LanguageIdentifier(["tr_TR"])
    for text, expected in (
        ("Bugün hava çok güzel", ["tr_TR"]),
        ("The weather is beautiful today", ["en_XX"]),
        ("Das Wetter ist heute sehr schön", ["tr_TR", "en_XX"]),
        ("猫", [None]),  # not a byte of it tells
    ):
        assert likeliest(turkish.posteriors(text)) in expected


def test_posteriors_are_probabilities_of_the_languages_in_question():
    identify = LanguageIdentifier(["tr_TR", "ru_RU"])
    found = identify.posteriors("Bugün hava çok güzel")
    assert set(found) == {"en_XX", "tr_TR", "ru_RU"}
    assert sum(found.values()) == pytest.approx(1) and found["tr_TR"] > 0.99
    scores = dict(py3langid.rank("Radio"))
    expected = 1 / sum(np.exp(scores[name] - scores["tr"]) for name in ("en", "tr", "ru"))
    assert identify.posteriors("Radio")["tr_TR"] == pytest.approx(expected)
    assert identify.posteriors("... 1") == {}


def test_a_single_language_in_question_is_not_told_from_others():
    """Every text would be in it, whatever it is: 0% off-target."""
    alone = LanguageIdentifier(["en_XX"])
    assert not alone.knows("en_XX") and "not told" in alone.signature()
    assert LanguageIdentifier(["en_XX", "tr_TR"]).knows("en_XX")


def test_a_language_that_the_library_lacks_is_said_to_be_unknown(monkeypatch):
    assert LanguageIdentifier(["tr_TR"]).knows("tr_TR")
    assert not LanguageIdentifier(["tr_TR"]).knows("ru_RU")
    monkeypatch.setattr(metrics, "known_languages", lambda: {"en", "tr"})
    identify = LanguageIdentifier(["tr_TR", "my_MM"])
    assert identify.knows("tr_TR") and identify.knows("en_XX") and not identify.knows("my_MM")
