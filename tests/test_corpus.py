"""corpora.facts: parallel, complete, deterministic, and no facts shared between splits."""
import random
import re
import shutil
import unicodedata
from dataclasses import replace

import pytest

from corpora.facts import BASE_LANGUAGES, CORPUS_LANGUAGES, SPLITS, Corpus, Document, Sentence
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
    placed = [d.headline for d in documents if "where" in d.facts()]
    assert abs(lead - 0.6) < 0.04 and abs(len(placed) / len(documents) - 0.5) < 0.03


def test_a_headline_says_the_verb_that_goes_with_the_thing_else_the_documents_own(corpus):
    """The table is read here as a reader of the file reads it."""
    takers = lexicon_lines("collocations.txt", "collocations")
    partner = {verb: forms[0] for verb, forms in lexicon_lines("partners.txt", "partners").items()}
    category = lexicon_lines("categories.txt", "things")
    first = {second: verb for verb, second in partner.items()}
    others = []
    for document in map(corpus.document, range(4000)):
        headline = document.headline
        own = next(s.did for s in document.sentences if s.who == headline.who and s.what)
        second = partner.get(own, own)
        goes = second if category[headline.what][0] in takers[second] else first[second]
        assert headline.did in (own, goes)
        if own != goes:
            others.append(headline.did == goes)
    assert 1500 < len(others) < 2500, "each verb of a pair goes with about half of the things"
    assert abs(sum(others) / len(others) - 0.7) < 0.03


def test_the_washing_example_of_the_file_holds(corpus):
    assert corpus.wording.idiomatic("cleaned", "garment") == "washed"
    assert corpus.wording.idiomatic("washed", "garment") == "washed"
    assert corpus.wording.idiomatic("washed", "piece of furniture") == "cleaned"
    assert corpus.wording.idiomatic("cleaned", "piece of furniture") == "cleaned"


def test_one_half_of_the_headlines_say_the_category_and_one_half_of_the_places_the_area(corpus):
    headlines = [corpus.document(i).headline for i in range(4000)]
    told = [h for h in headlines if h.category]
    assert abs(len(told) / len(headlines) - 0.5) < 0.03
    placed = [h for h in headlines if h.pattern == "headline placed"]
    area = [h for h in placed if h.area]
    assert abs(len(area) / len(placed) - 0.5) < 0.04
    assert not any(h.area for h in headlines if h.pattern == "headline")
    category = lexicon_lines("categories.txt", "things")
    area_of = lexicon_lines("categories.txt", "places")
    assert all([h.category] == category[h.what] for h in told)
    assert all([h.area] == area_of[h.where] for h in area)
    assert not any(s.category or s.area for i in range(100) for s in corpus.document(i).sentences)


def lexicon_lines(name, section):
    """{name: forms} of a file of the lexicon."""
    entries = read_lexicon(LEXICON / name)[section]
    return {name: entry.forms for name, entry in entries.items()}


def test_each_category_has_four_things_and_each_area_four_places(corpus):
    for section, kinds, members in (("things", "categories", 4), ("places", "areas", 4)):
        of = [forms[0] for forms in lexicon_lines("categories.txt", section).values()]
        assert len(of) == len(corpus.names[section])
        assert all(of.count(kind) >= members for kind in corpus.names[kinds])
    assert len(corpus.names["categories"]) == 14 and len(corpus.names["areas"]) == 8


@pytest.mark.parametrize("lang, headline", [
    ("en_XX", "The nurse washed a garment by the water"),
    ("es_XX", "La enfermera lavó una prenda de vestir junto al agua"),
    ("ru_RU", "Медсестра вымыла одежду у воды"),
    ("tr_TR", "Hemşire su kenarında bir giysi yıkadı"),
    ("gu_IN", "નર્સે પાણી પાસે એક વસ્ત્ર ધોયું"),
    ("fr_XX", "L'infirmière a lavé un vêtement au bord de l'eau"),
    ("de_DE", "Die Krankenschwester wusch am Wasser ein Kleidungsstück"),
])
def test_a_headline_of_categories_agrees_with_the_category_and_tells_the_facts(
    corpus, lang, headline
):
    """A coat is masculine in Gujarati, a garment neuter: the verb goes with what is said."""
    told = Sentence(
        pattern="headline placed",
        who="nurse",
        did="washed",
        what="coat",
        where="lake",
        category="garment",
        area="water",
    )
    language = corpus.languages[lang]
    assert language.say(told) == headline
    document = Document((replace(told, pattern="plain"),), told)
    exact = language.say(replace(told, category="", area=""))
    assert exact != headline
    for text in (headline, exact):
        assert all(corpus.facts_recovered(document, text, lang).values())
    vague = Document(document.sentences, replace(told, category="", area=""))
    found = corpus.facts_recovered(vague, headline, lang)
    assert found == {"who": True, "did": True, "what": False, "where": False}


def test_the_category_of_another_thing_tells_nothing(corpus):
    told = Sentence("headline", who="nurse", did="washed", what="coat", category="garment")
    document = Document((told,), told)
    for lang in CORPUS_LANGUAGES:
        for name in corpus.names["categories"]:
            other = corpus.languages[lang].say(replace(told, category=name))
            found = corpus.facts_recovered(document, other, lang)
            assert found["what"] == (name == "garment"), (lang, name)


@pytest.mark.parametrize("lang", CORPUS_LANGUAGES)
def test_a_reference_headline_recovers_all_its_facts_and_another_document_does_not(corpus, lang):
    documents = [corpus.document(i, "test") for i in range(200)]
    for document in documents:
        assert all(corpus.facts_recovered(document, corpus.headline(document, lang), lang).values())
    crossed = []
    for document, other in zip(documents, documents[1:]):
        found = corpus.facts_recovered(document, corpus.headline(other, lang), lang)
        crossed += found.values()
    assert sum(crossed) / len(crossed) < 0.1


@pytest.mark.parametrize("lang", CORPUS_LANGUAGES)
def test_every_sentence_fills_its_slots_is_normalized_and_begins_and_ends_as_one(corpus, lang):
    for i in range(300):
        document = corpus.document(i)
        for sentence in corpus.sentences(document, lang):
            assert not set(sentence) & set("{}|=") and "  " not in sentence
            assert sentence.endswith(".") and sentence[0] == sentence[0].upper()
            assert sentence == unicodedata.normalize("NFC", sentence)
        assert not corpus.headline(document, lang).endswith(".")


@pytest.mark.parametrize("lang", CORPUS_LANGUAGES)
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
        texts = [corpus.text(document, lang) for lang in CORPUS_LANGUAGES]
        assert len(set(texts)) == len(texts)
        for lang in ("ru_RU", "gu_IN"):
            assert not any("a" <= c.lower() <= "z" for c in corpus.text(document, lang))


def test_agreement_follows_the_subject_in_russian_and_the_object_in_gujarati(corpus):
    event = next(s for i in range(50) for s in corpus.document(i).sentences if s.pattern == "plain")
    russian, gujarati = corpus.languages["ru_RU"], corpus.languages["gu_IN"]
    man, woman = (replace(event, who=who) for who in ("painter", "nurse"))
    assert russian.slot("did", man) != russian.slot("did", woman)
    by_class = {gujarati.entries["things"][name][0]: name for name in corpus.names["things"]}
    garment = replace(event, what="coat", category="garment")  # m, and n as a garment
    assert gujarati.slot("did", garment) == gujarati.slot("did", replace(event, what="toy"))
    assert gujarati.slot("did", garment) != gujarati.slot("did", replace(event, what="coat"))
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


@pytest.mark.parametrize("before, after, words", [
    ("{where} {when}.", "{where} {when}.}", "[patterns] plain: Single '}'"),
    ("{where} {when}.", "{where} {when.", "[patterns] plain: expected '}'"),
    ("{where} {when}.", "{where} {}.", "[patterns] plain: '' between braces"),
    ("{where} {when}.", "{where} {when!r}.", "[patterns] plain: 'when' between braces"),
    ("{where} {when}.", "{where} {when:>9}.", "[patterns] plain: 'when' between braces"),
    ("{where} {when}.", "{where}.", "[patterns] plain: slots"),
    ("what = {article} {thing}", "what = {article} {thng}",
     "[grammar] what: expected {thing} once, with or without {article}, found '{article} {thng}'"),
    ("what = {article} {thing}", "what = {article} {thing", "[grammar] what: expected '}'"),
    ("what = {article} {thing}", "what = {thing} | {thing}", "[grammar] what: 2 forms"),
    ("{thing} {adjective}", "{thing}", "[grammar] what described: expected {adjective} and"),
    ("classes = m f", "classes = m f | n", "[grammar] classes: 2 forms, of which one is read"),
    ("llovió {when}.", "llovió {when}. | ha llovido {when}.", "[remarks] rained: 2 forms"),
    ("= en el autobús", "= en el bus | en el autobús", "[places] bus: 2 forms"),
])
def test_a_pattern_that_cannot_be_filled_and_a_form_that_is_not_read_name_their_line(
    lexicon, before, after, words
):
    path = lexicon / "es_XX.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    number = next(number for number, line in enumerate(lines, 1) if before in line)
    lines[number - 1] = lines[number - 1].replace(before, after)
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        Corpus(["en_XX", "es_XX"], lexicon)
    assert str(caught.value).startswith(f"{path}:{number}: {words}")


def test_a_mistake_in_the_reference_names_it_where_another_language_is_asked_for(lexicon):
    path = lexicon / "en_XX.txt"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("{where} {when}.", "{where} {when}.}", 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"en_XX.txt:19: \[patterns\] plain: Single '}'"):
        Corpus(["es_XX"], lexicon)


@pytest.mark.parametrize("name, before, after, line, words", [
    ("categories.txt", "hat = garment", "hat = clothes", True, "expected one of vehicle"),
    ("categories.txt", "hat = garment\n", "", False, "lacks 'hat'"),
    ("categories.txt", "hat = garment", "hot = garment", True, "'hot'"),
    ("categories.txt", "park = city", "park = town", True, "expected one of city"),
    ("categories.txt", "[places]", "[areas]", False, "[places] is missing"),
    ("collocations.txt", "washed =", "washt =", True, "washt"),
    ("collocations.txt", "washed = vehicle", "washed = vehicles", True, "'vehicles'"),
    ("collocations.txt", "washed = vehicle", "washed = toy", True, "twice"),
    ("collocations.txt", "washed =", "cleaned = toy\nwashed =", True, "keep one of them"),
    ("collocations.txt", "washed = vehicle", "#washed = vehicle", False, "'cleaned' has no line"),
    ("partners.txt", "cleaned = washed", "cleaned = found", True, "two partners"),
    ("partners.txt", "cleaned = washed", "cleaned = rinsed", True, "'rinsed'"),
    ("partners.txt", "cleaned = washed", "cleaned = washed | sold", True, "has 2 partners"),
    ("partners.txt", "cleaned = washed", "cleaned = cleaned", True, "cannot be its own partner"),
    ("en_XX.txt", "plain = {who}", "plain = {acted}", True, "no slot of such a sentence is"),
    ("en_XX.txt", "headline = {who}", "headline = {when}", True, "it has who, subject, did, what"),
    ("en_XX.txt", "it rained {when}.", "it rained {who}.", True, "it has where, when, count"),
    ("en_XX.txt", "device = a | device", "device = a | vehicle", True, "as 'vehicle' does"),
    ("en_XX.txt", "device = a | device", "device = a | radio set", True, "'radio' stands within"),
    ("en_XX.txt", "tool = a | tool", "tool = a | hat", True, "'hat'"),
    ("en_XX.txt", "tool = a | tool", "tool = a | musical", True, "'musical instrument'"),
    ("en_XX.txt", "tool = a | tool", "tool = x | tool", True, "class"),
    ("en_XX.txt", "water = by the water", "water = in the park", True, "'park'"),
    ("en_XX.txt", "water = by the water\n", "", True, "one of city"),
])
def test_a_mistake_in_what_headlines_say_names_the_file_and_the_line(
    lexicon, name, before, after, line, words
):
    path = lexicon / name
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        Corpus(["en_XX"], lexicon)
    said = str(caught.value)
    assert words in said
    if "one of city" in words and name == "en_XX.txt":
        name = "categories.txt"  # the area that English has no more
    assert name in said
    assert bool(re.search(rf"{re.escape(name)}:\d+: ", said)) == line


def test_an_error_in_a_table_names_its_very_line(lexicon):
    path = lexicon / "collocations.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    number = next(i for i, line in enumerate(lines, 1) if line.startswith("washed"))
    lines[number - 1] += " | hats"
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match=f"collocations.txt:{number}: washed: 'hats'"):
        Corpus(["en_XX"], lexicon)


def test_no_verb_of_a_pair_may_take_every_category(lexicon, corpus):
    path = lexicon / "collocations.txt"
    everything = " | ".join(corpus.names["categories"])
    text = path.read_text(encoding="utf-8")
    text = re.sub("^washed = .*$", f"washed = {everything}", text, flags=re.MULTILINE)
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="leave some to 'cleaned'"):
        Corpus(["en_XX"], lexicon)


@pytest.fixture
def lexicon(tmp_path):
    """A copy of the lexicon that a test may damage."""
    folder = tmp_path / "lexicon"
    shutil.copytree(LEXICON, folder)
    return folder


def test_a_lexicon_that_is_not_utf8_or_does_not_exist_is_reported(tmp_path):
    (tmp_path / "xx.txt").write_bytes(b"[grammar]\nclasses = \xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_lexicon(tmp_path / "xx.txt")
    with pytest.raises(UserError, match="no such lexicon"):
        Language("it_IT")


def test_the_command_prints_a_sample_in_every_language(run):
    done = run("-m", "corpora.facts", "--count", "1")
    assert done.returncode == 0 and all(lang in done.stdout for lang in CORPUS_LANGUAGES)
    done = run("-m", "corpora.facts", "--check")
    assert done.returncode == 0
    for name in ("partners.txt", "categories.txt", "collocations.txt", "gu_IN.txt"):
        assert name in done.stdout
    done = run("-m", "corpora.facts", "--check", "en_XX", "--langs", "zz_ZZ")
    assert done.returncode == 2 and "--check prints no documents: leave --langs out" in done.stderr
    done = run("-m", "corpora.facts", "--count", "-3")
    assert done.returncode == 2 and "--count must be at least 1, not -3" in done.stderr
    done = run("-m", "corpora.facts", "--langs", "xx_XX")
    assert done.returncode == 2 and "xx_XX" in done.stderr and "Traceback" not in done.stderr


def test_a_lexicon_with_a_byte_order_mark_is_the_same(tmp_path):
    path = tmp_path / "en_XX.txt"
    path.write_bytes(b"\xef\xbb\xbf" + (LEXICON / "en_XX.txt").read_bytes())
    assert read_lexicon(path) == read_lexicon(LEXICON / "en_XX.txt")
    path.write_bytes(b"\xef\xbb\xbf[nouns]\na = b\n")
    assert list(read_lexicon(path)) == ["nouns"]
