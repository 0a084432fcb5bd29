"""corpora.facts: parallel, complete, deterministic, and no facts shared between splits."""
import random
import unicodedata
from dataclasses import replace

import pytest

from corpora.facts import BASE_LANGUAGES, LANGUAGES, SPLITS, Corpus
from corpora.language import LEXICON, SECTIONS, Language, read_lexicon, spaced
from plumbing.files import UserError


@pytest.fixture(scope="module")
def corpus():
    return Corpus()


def events(document):
    return [s for s in (*document.sentences, document.headline) if s.who and s.what]


def test_the_same_arguments_give_the_same_document_and_others_give_others(corpus):
    assert corpus.document(5, "train", 1) == Corpus(["en_XX"]).document(5, "train", 1)
    texts = set()
    for seed in (0, 1):
        for i in range(500):
            texts.add(corpus.text(corpus.document(i, "train", seed), "en_XX"))
    assert len(texts) == 1000


def test_no_combination_of_facts_is_shared_between_splits(corpus):
    facts = {split: set() for split in SPLITS}
    for split in SPLITS:
        for i in range(1000):
            for s in events(corpus.document(i, split)):
                facts[split].add((s.who, corpus.pair_of(s.did), s.what, s.where))
    assert all(len(combinations) > 1000 for combinations in facts.values())
    assert not facts["train"] & facts["test"] and not facts["train"] & facts["valid"]
    assert not facts["valid"] & facts["test"]


def test_the_headline_tells_an_event_of_the_document_by_the_documented_odds(corpus):
    documents = [corpus.document(i) for i in range(4000)]
    several = [d for d in documents if sum(1 for s in d.sentences if s.what) > 1]
    for document in documents:
        headline = document.headline
        told = [s for s in document.sentences if (s.who, s.what) == (headline.who, headline.what)]
        assert len(told) == 1 and told[0].where == headline.where
        assert document.sentences[0].what, "the lead is an event"
    lead = sum(d.headline.who == d.sentences[0].who for d in several) / len(several)
    replaced = 0
    for d in documents:
        verbs = {s.did for s in d.sentences if s.who == d.headline.who}
        replaced += d.headline.did not in verbs
    partner = replaced / len(documents)
    placed = sum("where" in d.facts() for d in documents) / len(documents)
    assert abs(lead - 0.6) < 0.04 and abs(partner - 0.7) < 0.03 and abs(placed - 0.5) < 0.03


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_reference_headline_recovers_all_its_facts_and_another_document_does_not(corpus, lang):
    documents = [corpus.document(i, "test") for i in range(200)]
    for document in documents:
        assert all(corpus.facts_recovered(document, corpus.headline(document, lang), lang).values())
    crossed = []
    for document, other in zip(documents, documents[1:]):
        found = corpus.facts_recovered(document, corpus.headline(other, lang), lang)
        crossed += found.values()
    assert sum(crossed) / len(crossed) < 0.1


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_sentence_fills_its_slots_is_normalized_and_begins_and_ends_as_one(corpus, lang):
    for i in range(300):
        document = corpus.document(i)
        for sentence in corpus.sentences(document, lang):
            assert not set(sentence) & set("{}|=") and "  " not in sentence
            assert sentence.endswith(".") and sentence[0] == sentence[0].upper()
            assert sentence == unicodedata.normalize("NFC", sentence)
        assert not corpus.headline(document, lang).endswith(".")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_entry_is_used_by_some_document(corpus, lang):
    text = spaced(" ".join(corpus.text(corpus.document(i), lang) for i in range(3000)))
    for section in ("people", "things", "places", "asides"):
        for name, forms in corpus.languages[lang].entries[section].items():
            form = forms[1] if section in ("people", "things") else forms[0]
            assert spaced(form) in text or spaced(forms[-1]) in text, (section, name)


def test_the_lexicon_has_several_hundred_entries_and_sentence_patterns(corpus):
    assert sum(len(corpus.names[s]) for s in SECTIONS[2:]) > 300
    assert len(corpus.names["patterns"]) >= 10


def test_russian_and_gujarati_use_no_latin_letters_and_each_language_differs_from_others(corpus):
    for i in range(100):
        document = corpus.document(i)
        texts = [corpus.text(document, lang) for lang in LANGUAGES]
        assert len(set(texts)) == len(texts)
        for lang in ("ru_RU", "gu_IN"):
            assert not any("a" <= c.lower() <= "z" for c in corpus.text(document, lang))


def test_agreement_follows_the_subject_in_russian_and_the_object_in_gujarati(corpus):
    event = next(s for i in range(50) for s in corpus.document(i).sentences if s.pattern == "plain")
    russian, gujarati = corpus.languages["ru_RU"], corpus.languages["gu_IN"]
    man, woman = (replace(event, who=who) for who in ("painter", "nurse"))
    assert russian.slot("did", man) != russian.slot("did", woman)
    by_class = {gujarati.entries["things"][name][0]: name for name in corpus.names["things"]}
    assert len({gujarati.slot("did", replace(event, what=name)) for name in by_class.values()}) == 3
    assert gujarati.slot("did", man) == gujarati.slot("did", woman)


def test_code_mixed_text_takes_about_the_asked_share_of_slots_from_other_languages(corpus):
    rng = random.Random(0)
    changed = 0
    total = 0
    for i in range(200):
        document = corpus.document(i)
        plain = [corpus.headline(document, "en_XX"), *corpus.sentences(document, "en_XX")]
        mixed = corpus.mixed(document, "en_XX", rng, 0.3)
        changed += sum(a != b for a, b in zip(plain, mixed))
        total += len(plain)
        assert corpus.mixed(document, "en_XX", rng, 0.0) == plain
    assert 0.5 < changed / total < 0.95  # one slot of three to five is enough to change a sentence
    assert len(BASE_LANGUAGES) == 5


@pytest.mark.parametrize("edit, words", [
    (lambda text: text.replace("teacher =", "teacher ", 1), "expected `name = form"),
    (lambda text: text.replace("teacher =", "teecher =", 1), "teacher"),
    (lambda text: text.replace("[places]", "[spaces]"), "[places]"),
    (lambda text: text.replace("en el autobús", "en el tren"), "could not"),
    (lambda text: text.replace("boat = f |", "boat = q |"), "class"),
    (lambda text: text + "\nfirst = twice\nfirst = twice\n", "stands twice"),
])
def test_a_damaged_lexicon_file_is_reported_with_its_name(tmp_path, edit, words):
    for path in LEXICON.iterdir():
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    file = tmp_path / "es_XX.txt"
    before = file.read_text(encoding="utf-8")
    file.write_text(edit(before), encoding="utf-8")
    assert edit(before) != before
    with pytest.raises(UserError, match="es_XX.txt") as caught:
        Corpus(["en_XX", "es_XX"], tmp_path)
    assert words in str(caught.value)


def test_a_lexicon_that_is_not_utf8_or_does_not_exist_is_reported(tmp_path):
    (tmp_path / "xx.txt").write_bytes(b"[grammar]\nclasses = \xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_lexicon(tmp_path / "xx.txt")
    with pytest.raises(UserError, match="no such lexicon"):
        Language("it_IT")


def test_the_command_prints_a_sample_in_every_language(run):
    done = run("-m", "corpora.facts", "--count", "1")
    assert done.returncode == 0 and all(lang in done.stdout for lang in LANGUAGES)
    assert run("-m", "corpora.facts", "--check").returncode == 0
    done = run("-m", "corpora.facts", "--langs", "xx_XX")
    assert done.returncode == 2 and "xx_XX" in done.stderr and "Traceback" not in done.stderr


def test_a_lexicon_with_a_byte_order_mark_is_the_same(tmp_path):
    path = tmp_path / "en_XX.txt"
    path.write_bytes(b"\xef\xbb\xbf" + (LEXICON / "en_XX.txt").read_bytes())
    assert read_lexicon(path) == read_lexicon(LEXICON / "en_XX.txt")
    path.write_bytes(b"\xef\xbb\xbf[nouns]\na = b\n")
    assert list(read_lexicon(path)) == ["nouns"]
