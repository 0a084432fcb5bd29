"""The built-in corpus: short news documents with headlines, exactly parallel in seven languages.

A document is first drawn as FACTS, in no language: one to three events (who did what where, and how
it is told) and one or two sentences more, each a remark (60%) or an action, what somebody did
without a thing (40%). Each language's file in `lexicon/` then says how its words and sentence
patterns put these facts, so that the same document comes out in every language, grammatical in
each.

What makes the headlines hard to learn is what real summaries have (papers/LOG.md tells what happens
without it):
  lead first   the main event is the document's first sentence, in every language: a cue that needs
               no word;
  compression  asides, time, manner and adjectives are dropped, the place is kept in one half of the
               headlines;
  entropy      where a document has several events, the headline tells the lead with probability
               0.6, else another (of all headlines 70% tell the lead);
  abstraction  70% of the headlines say, of a verb and its partner (`lexicon/partners.txt`), the
               one that goes with this kind of thing (`lexicon/collocations.txt`), 30% the
               document's own; one half say a thing's category in place of the thing, and of those
               that keep the place one half its area (`lexicon/categories.txt`): the headline's
               words must be produced, not copied, and no table of words alone gives them.

Every combination of facts belongs to one split by its hash, so train, validation and test never
share one.

Run it alone to read samples, or to check the lexicon files (are they complete and consistent?):
    python -m corpora.facts            all seven languages
    python -m corpora.facts --langs en_XX tr_TR --count 5 --split test
    python -m corpora.facts --check
"""
import random
from dataclasses import dataclass
from zlib import crc32

from corpora.language import LEXICON, SECTIONS, Language, check, spaced
from corpora.wording import CATEGORIES, COLLOCATIONS, PARTNERS, Wording, check_told_apart
from plumbing.files import UserError, parser_of, run

CORPUS_LANGUAGES = ("en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN", "fr_XX", "de_DE")
BASE_LANGUAGES = CORPUS_LANGUAGES[:5]  # the base model reads these; fr_XX and de_DE stay new to it

LEAD_PATTERNS = ("plain", "dated", "attributed", "manner", "placed", "watched")
OTHER_PATTERNS = LEAD_PATTERNS + ("later",)
ACTION_PATTERNS = ("acted", "acted dated", "acted aside")

EVENTS = {1: 0.25, 2: 0.45, 3: 0.30}  # how many events a document tells, with probabilities
LEAD_TOLD = 0.6      # probability that the headline tells the lead, where there are other events
COLLOCATION = 0.7    # that it says the verb that goes with the thing, else the document's own
CATEGORY_TOLD = 0.5  # that it says the thing's category in place of the thing
PLACE_KEPT = 0.5     # that the headline keeps the place
AREA_TOLD = 0.5      # that it then says the place's area in place of the place
DESCRIBED = 0.5      # that an event's thing has an adjective
REMARK = 0.6         # that a further sentence is a remark, not an action

SPLITS = {  # percent of all combinations of facts
    "test": range(0, 5),
    "valid": range(5, 10),
    "train": range(10, 100),
}


@dataclass(frozen=True)
class Sentence:
    """One sentence as facts: names of lexicon entries, the same in every language."""
    pattern: str         # a name of [patterns], or "remark"
    who: str = ""
    did: str = ""        # of [verbs], or of [actions] where the pattern is one of ACTION_PATTERNS
    what: str = ""
    adjective: str = ""  # "": none
    where: str = ""
    when: str = ""
    how: str = ""
    aside: str = ""
    count: int = 0       # of people
    remark: str = ""
    category: str = ""   # said in place of `what`; "": `what` itself is said
    area: str = ""       # said in place of `where`


@dataclass(frozen=True)
class Document:
    sentences: tuple  # of Sentence, the lead first
    headline: Sentence

    def facts(self):
        """What the headline tells, as names of entries; "where" only if it keeps the place."""
        told = {"who": self.headline.who, "did": self.headline.did, "what": self.headline.what}
        if self.headline.pattern == "headline placed":
            told["where"] = self.headline.where
        return told


class Corpus:
    """Documents without end: `corpus.document(i, split, seed)` is a pure function of its
    arguments."""

    def __init__(self, langs=CORPUS_LANGUAGES, folder=LEXICON):
        self.languages = {code: Language(code, folder) for code in langs}
        reference = self.languages.get("en_XX") or Language("en_XX", folder)
        self.names = {section: list(reference.entries[section]) for section in SECTIONS}
        self.wording = Wording(folder, self.names)
        for language in self.languages.values():
            check(language, reference)
            check_told_apart(language, self.wording)

    def pair_of(self, verb):
        """One name for a verb and its partner: the fact that both tell."""
        return min(verb, self.wording.partner[verb])

    def split_of(self, sentence):
        """The split that owns this combination of facts."""
        did = sentence.did
        if sentence.what:  # a verb, not an action
            did = self.pair_of(did)
        facts = f"{sentence.who}|{did}|{sentence.what}|{sentence.where}"
        percent = crc32(facts.encode()) % 100
        for split, owned in SPLITS.items():
            if percent in owned:
                return split

    def document(self, index, split="train", seed=0):
        """The index-th Document of a split: 2 to 5 sentences and a headline."""
        rng = random.Random(f"{seed} {split} {index}")
        draw = Draw(self, split, rng)
        number = rng.choices(list(EVENTS), list(EVENTS.values()))[0]
        lead = draw.owned(draw.event, LEAD_PATTERNS)
        others = [draw.owned(draw.event, OTHER_PATTERNS) for _ in range(number - 1)]
        rest = list(others)
        for _ in range(rng.choice((1, 2))):
            if rng.random() < REMARK:
                rest.append(draw.remark())
            else:
                rest.append(draw.owned(draw.action))
        rng.shuffle(rest)

        told = lead
        if others and rng.random() >= LEAD_TOLD:
            told = rng.choice(others)
        return Document((lead, *rest), draw.headline(told))

    # a document's text

    def sentences(self, document, lang):
        language = self.languages[lang]
        return [language.say(sentence) for sentence in document.sentences]

    def text(self, document, lang):
        return " ".join(self.sentences(document, lang))

    def headline(self, document, lang):
        return self.languages[lang].say(document.headline)

    def mixed(self, document, lang, rng, rate):
        """The headline and the document's sentences, code-mixed: each slot is said in another of
        the base's languages with probability `rate`.

        Such text is where a denoising model, which is never taught to translate, gets a meaning
        space that its languages share; real corpora have it in names, numbers, cognates and
        quotations."""
        own = self.languages[lang]
        others = []
        for code in BASE_LANGUAGES:
            if code != lang and code in self.languages:
                others.append(self.languages[code])

        def speaker(name):
            if rng.random() < rate:
                return rng.choice(others or [own])
            return own

        return [own.say(sentence, speaker) for sentence in (document.headline, *document.sentences)]

    # what a text tells

    def facts_recovered(self, document, text, lang):
        """{fact: bool} for the facts that the reference headline tells: is each said in `text`, in
        `lang`, as the reference says it or more exactly?

        Where the reference says the category, the thing itself tells the fact too, and a place
        tells its area; where the reference says the thing, its category is too little."""
        said = spaced(text)
        found = {}
        for fact in document.facts():
            forms = self.forms(fact, document.headline, lang)
            found[fact] = any(spaced(form) in said for form in forms)
        return found

    def forms(self, fact, headline, lang):
        """The forms that tell a headline's fact: a verb's or its partner's, a thing without article
        and adjective."""
        entries = self.languages[lang].entries
        if fact == "who":
            return entries["people"][headline.who][1:]
        if fact == "did":
            partner = self.wording.partner[headline.did]
            return entries["verbs"][headline.did] + entries["verbs"][partner]
        if fact == "what":
            forms = entries["things"][headline.what][1:]
            if headline.category:
                forms = forms + entries["categories"][headline.category][1:]
            return forms
        forms = entries["places"][headline.where]
        if headline.area:
            forms = forms + entries["areas"][headline.area]
        return forms


class Draw:
    """The random draws of one document. No two of its sentences share a person, a thing or a place.

    The order of the draws is part of the corpus: another order would give other documents."""

    def __init__(self, corpus, split, rng):
        self.corpus = corpus
        self.split = split
        self.rng = rng
        self.used = set()

    def any(self, section):
        names = self.corpus.names[section]
        # Not rng.choice(), which draws otherwise: every document would be another.
        return names[int(self.rng.random() * len(names))]

    def fresh(self, section):
        """A name that no sentence of the document has yet."""
        name = self.any(section)
        while name in self.used:
            name = self.any(section)
        self.used.add(name)
        return name

    def owned(self, draw, *arguments):
        """Draws until the facts belong to this split; the names of rejected draws become free
        again."""
        while True:
            before = set(self.used)
            sentence = draw(*arguments)
            if self.corpus.split_of(sentence) == self.split:
                return sentence
            self.used = before

    def event(self, patterns):
        return Sentence(
            pattern=self.rng.choice(patterns),
            who=self.fresh("people"),
            did=self.any("verbs"),
            what=self.fresh("things"),
            adjective=self.adjective(),
            where=self.fresh("places"),
            when=self.any("times"),
            how=self.any("manners"),
            aside=self.any("asides"),
            count=self.count(),
        )

    def adjective(self):
        if self.rng.random() < DESCRIBED:
            return self.any("adjectives")
        return ""

    def count(self):
        return self.rng.randrange(10, 100, 5)

    def action(self):
        return Sentence(
            pattern=self.rng.choice(ACTION_PATTERNS),
            who=self.fresh("people"),
            did=self.any("actions"),
            where=self.fresh("places"),
            when=self.any("times"),
            aside=self.any("asides"),
        )

    def remark(self):
        return Sentence(
            pattern="remark",
            remark=self.fresh("remarks"),
            where=self.fresh("places"),
            when=self.any("times"),
            count=self.count(),
        )

    def headline(self, told):
        """The headline that tells an event: a function of the event and four draws."""
        wording = self.corpus.wording
        category = wording.category[told.what]
        pattern = "headline"
        if self.rng.random() < PLACE_KEPT:
            pattern = "headline placed"
        did = told.did
        if self.rng.random() < COLLOCATION:
            did = wording.idiomatic(told.did, category)
        if self.rng.random() >= CATEGORY_TOLD:
            category = ""
        area = ""
        if self.rng.random() < AREA_TOLD and pattern == "headline placed":
            area = wording.area[told.where]
        return Sentence(
            pattern=pattern,
            who=told.who,
            did=did,
            what=told.what,
            where=told.where,
            category=category,
            area=area,
        )


# --------------------------------------------------------------------------------- the command

def check_lexicons(langs):
    wording = Corpus(["en_XX"]).wording
    print(f"{PARTNERS}: {len(wording.partner) // 2} pairs, in order")
    print(f"{COLLOCATIONS}: {len(wording.collocations)} pairs, in order")
    print(f"{CATEGORIES}: {len(wording.category) + len(wording.area)} entries, in order")
    for code in langs:
        language = Corpus([code]).languages[code]
        entries = sum(len(section) for section in language.entries.values())
        print(f"{language.path.name}: {entries} entries, in order")


def print_samples(langs, count, split, seed):
    corpus = Corpus(langs)
    for index in range(count):
        document = corpus.document(index, split, seed)
        for code in langs:
            print(f"{code}  {corpus.text(document, code)}")
            print(f"       => {corpus.headline(document, code)}")
        print()


def main(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("--langs", nargs="+", default=CORPUS_LANGUAGES, metavar="LANG", help="default: all seven")
    add("--count", type=int, default=2, help="documents to print (default 2)")
    add("--split", choices=SPLITS, default="train", help="that they are of (default train)")
    add("--seed", type=int, default=0, help="another one gives other documents (default 0)")
    add("--check", nargs="*", metavar="LANG", help="only check these lexicons (default: all)")
    args = parser.parse_args(argv)
    if args.count < 1:
        raise UserError(f"--count must be at least 1, not {args.count}")
    if args.check is not None:
        for name in ("langs", "count", "split", "seed"):
            if getattr(args, name) != parser.get_default(name):
                raise UserError(f"--check prints no documents: leave --{name} out")
        check_lexicons(args.check or CORPUS_LANGUAGES)
    else:
        print_samples(args.langs, args.count, args.split, args.seed)


if __name__ == "__main__":
    run(main)
