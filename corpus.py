"""The built-in corpus: short news documents and their headlines, exactly parallel in seven languages.

A document is first drawn as FACTS, in no language: one to three events (who did what where, and how it is told)
and one or two remarks. Each language's file in `lexicon/` then says how its words and sentence patterns put these
facts, so that the same document comes out in every language, grammatical in each.

What makes the headlines hard to learn is what real summaries have (LOG.md tells what happens without it):
  lead first   the main event is the document's first sentence, in every language: a cue that needs no word;
  compression  asides, time, manner and adjectives are dropped, the place is kept in one half of the headlines;
  entropy      the headline tells the lead with probability 0.6, else another event of the document;
  abstraction  70% of the headlines replace the verb by its partner (`lexicon/partners.txt`), so that the headline's
               words must be produced, not copied.

Every combination of facts belongs to one split by its hash, so train, validation and test never share one.

Run it alone to read samples:  python corpus.py            (all seven languages)
                               python corpus.py --langs en_XX tr_TR --count 5 --split test
                               python corpus.py --check    (are the lexicon files complete and consistent?)
"""
import argparse
import random
import re
import string
import sys
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from zlib import crc32

from model import UserError

LEXICON = Path(__file__).resolve().parent / "lexicon"
LANGUAGES = ("en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN", "fr_XX", "de_DE")
BASE_LANGUAGES = LANGUAGES[:5]  # the base model reads these; fr_XX and de_DE stay new to it
SECTIONS = ("grammar", "patterns", "people", "things", "adjectives", "verbs", "actions", "places", "times",
            "manners", "asides", "remarks")
GENDERS = ("m", "f")

LEAD_PATTERNS = ("plain", "dated", "attributed", "manner", "placed", "watched")
OTHER_PATTERNS = LEAD_PATTERNS + ("later",)
ACTION_PATTERNS = ("acted", "acted dated", "acted aside")
EVENTS = ((1, 0.25), (2, 0.45), (3, 0.30))  # how many events a document tells, with probabilities
LEAD_TOLD, PARTNER_VERB, PLACE_KEPT, DESCRIBED = 0.6, 0.7, 0.5, 0.5  # probabilities of the choices named above
PUNCTUATION = re.compile("[" + re.escape(string.punctuation + "«»“”„‘’…–—¿¡") + "]")
SPLITS = {"test": range(0, 5), "valid": range(5, 10), "train": range(10, 100)}  # percent of all fact combinations


@dataclass(frozen=True)
class Sentence:
    """One sentence as facts: names of lexicon entries, the same in every language."""
    pattern: str  # a name of [patterns], or "remark"
    who: str = ""
    did: str = ""  # of [verbs], or of [actions] where the pattern is one of ACTION_PATTERNS
    what: str = ""
    adjective: str = ""
    where: str = ""
    when: str = ""
    how: str = ""
    aside: str = ""
    count: int = 0
    remark: str = ""


@dataclass(frozen=True)
class Document:
    sentences: tuple  # of Sentence, the lead first
    headline: Sentence

    def facts(self):
        """What the headline tells, as names of entries; "where" only if the headline keeps the place."""
        told = {"who": self.headline.who, "did": self.headline.did, "what": self.headline.what}
        return told | ({"where": self.headline.where} if self.headline.pattern == "headline placed" else {})


def read_lexicon(path):
    """Returns {section: {name: (line number, [forms])}}; a malformed line is a UserError that names it."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        have = ", ".join(sorted(p.stem for p in LEXICON.glob("*_*.txt")))
        raise UserError(f"{path}: no such lexicon; languages that have one: {have}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    sections, entries = {}, None
    for number, line in enumerate(lines, 1):
        line = unicodedata.normalize("NFC", line).strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            entries = sections.setdefault(line[1:-1], {})
            continue
        name, equals, forms = line.partition("=")
        name = name.strip()
        if not equals or entries is None:
            raise UserError(f"{path}:{number}: expected `name = form | form` below a [section], found {line!r}")
        if name in entries:
            raise UserError(f"{path}:{number}: {name!r} stands twice; remove one (the first is at line "
                            f"{entries[name][0]})")
        entries[name] = (number, [form.strip() for form in forms.split("|")])
    return sections


class Language:
    """One language's words and patterns: turns facts into text."""

    def __init__(self, code, folder=LEXICON):
        self.code, self.path = code, Path(folder) / f"{code}.txt"
        sections = read_lexicon(self.path)
        missing = [name for name in SECTIONS if name not in sections]
        if missing:
            raise UserError(f"{self.path}: section [{missing[0]}] is missing")
        self.lines = {name: {key: line for key, (line, _) in sections[name].items()} for name in SECTIONS}
        self.entries = {name: {key: forms for key, (_, forms) in sections[name].items()} for name in SECTIONS}
        grammar = {key: forms for key, forms in self.entries["grammar"].items()}
        try:
            self.classes = grammar["classes"][0].split()
            self.agreement = grammar["verb agrees with"][0]
            self.articles = dict(zip(self.classes, self.spread("grammar", "article", len(self.classes))))
            self.plain, self.described = grammar["what"][0], grammar["what described"][0]
        except KeyError as error:
            raise UserError(f"{self.path}: [grammar] lacks {error}; see en_XX.txt") from None

    def error(self, section, name, message):
        return UserError(f"{self.path}:{self.lines[section].get(name, 1)}: [{section}] {name}: {message}")

    def spread(self, section, name, count):
        """The forms of an entry, one form standing for all where only one is written."""
        forms = self.entries[section][name]
        if len(forms) not in (1, count):
            raise self.error(section, name, f"{len(forms)} forms where 1 or {count} are expected")
        return forms * count if len(forms) == 1 else forms

    def person(self, name, doer=True):
        forms = self.entries["people"][name]
        return forms[2] if doer and len(forms) > 2 else forms[1]

    def gender(self, name):
        return GENDERS.index(self.entries["people"][name][0])

    def noun_class(self, name):
        return self.classes.index(self.entries["things"][name][0])

    def thing(self, name, adjective=""):
        index = self.noun_class(name)
        parts = {"article": self.articles[self.classes[index]], "thing": self.entries["things"][name][1]}
        if not adjective:
            return self.plain.format(**parts).strip()
        return self.described.format(adjective=self.spread("adjectives", adjective, len(self.classes))[index],
                                     **parts).strip()

    def verb(self, name, who, what):
        if self.agreement == "what":
            return self.spread("verbs", name, len(self.classes))[self.noun_class(what)]
        return self.spread("verbs", name, 2)[self.gender(who)]

    def slot(self, name, s):
        """The words of this language for one slot of a sentence's pattern."""
        if name == "who":
            return self.person(s.who)
        if name == "subject":
            return self.person(s.who, doer=False)
        if name == "did":
            return self.verb(s.did, s.who, s.what)
        if name == "acted":
            return self.spread("actions", s.did, 2)[self.gender(s.who)]
        if name == "what":
            return self.thing(s.what, s.adjective)
        if name == "count":
            return str(s.count)
        section = {"where": "places", "when": "times", "how": "manners", "aside": "asides"}[name]
        return self.entries[section][getattr(s, name)][0]

    def say(self, s, other=None):
        """The sentence as text. `other(name)` may give another Language for a slot: code-mixed text."""
        speaker = self
        if s.pattern == "remark":
            speaker = other("remark") if other else self
            pattern = speaker.entries["remarks"][s.remark][0]
        else:
            pattern = self.entries["patterns"][s.pattern][0]
        words = {name: (other(name) if other else speaker).slot(name, s) for name in slots(pattern)}
        text = pattern.format(**words)
        first = "İ" if speaker.code == "tr_TR" and text[0] == "i" else text[0].upper()
        return first + text[1:]


@cache
def slots(pattern):
    return tuple(name for _, name, _, _ in string.Formatter().parse(pattern) if name)


def spaced(text):
    """Lower-case words with one space around each and no punctuation: whole words are then found by `in`."""
    folded = text.casefold().replace("\u0307", "")  # the dot that casefold() splits off the Turkish capital İ
    return f" {' '.join(PUNCTUATION.sub(' ', folded).split())} "


class Corpus:
    """Documents without end: `corpus.document(i, split, seed)` is a pure function of its arguments."""

    def __init__(self, langs=LANGUAGES, folder=LEXICON):
        self.languages = {code: Language(code, folder) for code in langs}
        pairs = read_lexicon(Path(folder) / "partners.txt").get("partners", {})
        self.partner = {a: forms[0] for a, (_, forms) in pairs.items()} | {f[0]: a for a, (_, f) in pairs.items()}
        reference = self.languages.get("en_XX") or Language("en_XX", folder)
        self.names = {section: list(reference.entries[section]) for section in SECTIONS}
        for verb in self.names["verbs"]:
            if verb not in self.partner:
                raise UserError(f"{Path(folder) / 'partners.txt'}: the verb {verb!r} has no partner; add its line")
        for language in self.languages.values():
            check(language, reference)

    def pair_of(self, verb):
        """One name for a verb and its partner: the fact that both tell."""
        return min(verb, self.partner[verb])

    def split_of(self, s):
        """The split that owns this combination of facts (a verb and its partner are one fact)."""
        did = self.pair_of(s.did) if s.what else s.did
        percent = crc32(f"{s.who}|{did}|{s.what}|{s.where}".encode()) % 100
        return next(split for split, owned in SPLITS.items() if percent in owned)

    def document(self, index, split="train", seed=0):
        """The index-th Document of a split: 2 to 5 sentences and a headline."""
        rng = random.Random(f"{seed} {split} {index}")
        pick = {section: (lambda names=names: names[int(rng.random() * len(names))])
                for section, names in self.names.items()}
        used = set()

        def fresh(section):  # no two sentences of a document share a person, a thing or a place
            while (name := pick[section]()) in used:
                pass
            used.add(name)
            return name

        def combination(draw):
            """Draws until the facts belong to this split; the names of rejected draws become free again."""
            while True:
                before = set(used)
                s = draw()
                if self.split_of(s) == split:
                    return s
                used.clear()
                used.update(before)

        def event(patterns):
            return Sentence(
                pattern=rng.choice(patterns), who=fresh("people"), did=pick["verbs"](), what=fresh("things"),
                adjective=pick["adjectives"]() if rng.random() < DESCRIBED else "", where=fresh("places"),
                when=pick["times"](), how=pick["manners"](), aside=pick["asides"](), count=rng.randrange(10, 100, 5))

        def action():
            return Sentence(pattern=rng.choice(ACTION_PATTERNS), who=fresh("people"), did=pick["actions"](),
                            where=fresh("places"), when=pick["times"](), aside=pick["asides"]())

        def remark():
            return Sentence(pattern="remark", remark=fresh("remarks"), where=fresh("places"), when=pick["times"](),
                            count=rng.randrange(10, 100, 5))

        number = rng.choices([n for n, _ in EVENTS], [p for _, p in EVENTS])[0]
        events = [combination(lambda: event(LEAD_PATTERNS))]
        events += [combination(lambda: event(OTHER_PATTERNS)) for _ in range(number - 1)]
        rest = events[1:]
        for _ in range(rng.choice((1, 2))):
            rest.append(remark() if rng.random() < 0.6 else combination(action))
        rng.shuffle(rest)
        told = events[0] if number == 1 or rng.random() < LEAD_TOLD else rng.choice(events[1:])
        headline = Sentence(
            pattern="headline placed" if rng.random() < PLACE_KEPT else "headline", who=told.who, what=told.what,
            did=self.partner[told.did] if rng.random() < PARTNER_VERB else told.did, where=told.where)
        return Document((events[0], *rest), headline)

    def sentences(self, document, lang):
        return [self.languages[lang].say(s) for s in document.sentences]

    def text(self, document, lang):
        return " ".join(self.sentences(document, lang))

    def headline(self, document, lang):
        return self.languages[lang].say(document.headline)

    def mixed(self, document, lang, rng, rate=0.3):
        """The headline and the document's sentences; each slot is said in another of the base's languages with
        probability `rate`.

        Such code-mixed text is where a denoising model, which is never taught to translate, gets a meaning space
        that its languages share; real corpora have it in names, numbers, cognates and quotations.
        """
        own = self.languages[lang]
        others = [self.languages[code] for code in BASE_LANGUAGES if code != lang and code in self.languages] or [own]
        return [own.say(s, lambda name: rng.choice(others) if rng.random() < rate else own)
                for s in (document.headline, *document.sentences)]

    def facts_recovered(self, document, text, lang):
        """{fact: bool} for the facts that the reference headline tells: is each said in `text`, in `lang`?

        A verb counts if it or its partner is there, in any form; the thing counts without article and adjective.
        """
        language, found, said = self.languages[lang], {}, spaced(text)
        for fact, name in document.facts().items():
            if fact == "who":
                forms = language.entries["people"][name][1:]
            elif fact == "did":
                forms = language.entries["verbs"][name] + language.entries["verbs"][self.partner[name]]
            elif fact == "what":
                forms = language.entries["things"][name][1:]
            else:
                forms = language.entries["places"][name]
            found[fact] = any(spaced(form) in said for form in forms)
        return found


def check(language, reference):
    """Raises a UserError for the first entry that is missing, unknown, wrongly formed or said twice."""
    if language.agreement not in ("nothing", "who", "what"):
        raise language.error("grammar", "verb agrees with", "must be nothing, who or what")
    for section in SECTIONS:
        for name in reference.entries[section]:
            if name not in language.entries[section]:
                raise UserError(f"{language.path}: [{section}] lacks {name!r}, which {reference.path.name} has")
        said = {}
        for name, forms in language.entries[section].items():
            if name not in reference.entries[section]:
                raise language.error(section, name, f"unknown name; {reference.path.name} does not have it")
            if section != "grammar" and not all(forms):
                raise language.error(section, name, "an empty form")
            if section in ("patterns", "remarks") and sorted(slots(forms[0])) != sorted(
                    slots(reference.entries[section][name][0])):
                raise language.error(section, name, f"slots {slots(forms[0])} differ from {reference.path.name}'s")
            if section == "people" and (forms[0] not in GENDERS or len(forms) not in (2, 3)):
                raise language.error(section, name, "expected `m or f | form` (or a third field, the doer's form)")
            if section == "things" and (forms[0] not in language.classes or len(forms) != 2):
                raise language.error(section, name, f"expected `class | noun`, class one of {language.classes}")
            if section in ("adjectives", "verbs", "actions"):
                language.spread(section, name, len(language.classes) if section == "adjectives" or (
                    section == "verbs" and language.agreement == "what") else 2)
            if section not in ("grammar", "patterns"):
                text = forms[1] if section in ("people", "things") else forms[0]
                if text in said:
                    raise language.error(section, name, f"says {text!r}, as {said[text]!r} does: readers could not "
                                                        "tell the two facts apart")
                said[text] = name


def main():
    parser = argparse.ArgumentParser(description="Print samples of the built-in corpus, or check its lexicon files.")
    parser.add_argument("--langs", nargs="+", default=LANGUAGES, metavar="LANG", help="default: all seven")
    parser.add_argument("--count", type=int, default=2, help="documents to print (default 2)")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", nargs="*", metavar="LANG", help="only check these lexicon files (default: all)")
    args = parser.parse_args()
    try:
        if args.check is not None:
            for code in args.check or LANGUAGES:
                language = Corpus([code]).languages[code]
                print(f"{language.path.name}: {sum(map(len, language.entries.values()))} entries, in order")
            return
        corpus = Corpus(args.langs)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    for index in range(args.count):
        document = corpus.document(index, args.split, args.seed)
        for code in args.langs:
            print(f"{code}  {corpus.text(document, code)}\n       => {corpus.headline(document, code)}")
        print()


if __name__ == "__main__":
    main()
