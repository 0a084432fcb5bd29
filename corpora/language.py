"""One language of the built-in corpus: its file in `lexicon/`, which puts facts into words.

A line `name = form | form` gives an entry its forms; what the forms of each section mean stands at
the head of `lexicon/en_XX.txt`. A malformed file is an error that names the line.
"""
import re
import string
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from plumbing.files import UserError, read_utf8

LEXICON = Path(__file__).resolve().parent / "lexicon"
SECTIONS = (
    "grammar",
    "patterns",
    "people",
    "things",
    "categories",
    "adjectives",
    "verbs",
    "actions",
    "places",
    "areas",
    "times",
    "manners",
    "asides",
    "remarks",
)
GRAMMAR = ("classes", "verb agrees with", "article", "what", "what described")
SECTION_OF_SLOT = {"where": "places", "when": "times", "how": "manners", "aside": "asides"}
NOUNS = ("things", "categories")  # sections of `class | noun`
GENDERS = ("m", "f")
AGREEMENTS = ("nothing", "who", "what")  # what a verb's ending can depend on
ONE_FORM = ("patterns", "places", "areas", "times", "manners", "asides", "remarks")  # sections
THING_SLOTS = {  # of [grammar]; {article} may stand there too
    "what": ["thing"],
    "what described": ["adjective", "thing"],
}
EVENT_SLOTS = ("who", "subject", "did", "what", "where", "when", "how", "aside", "count")
ACTION_SLOTS = ("who", "subject", "acted", "where", "when", "aside")
REMARK_SLOTS = ("where", "when", "count")
PATTERN_SLOTS = {  # of [patterns]; all others are events
    "acted": ACTION_SLOTS,
    "acted dated": ACTION_SLOTS,
    "acted aside": ACTION_SLOTS,
    "headline": ("who", "subject", "did", "what"),
    "headline placed": ("who", "subject", "did", "what", "where"),
}
PUNCTUATION = re.compile("[" + re.escape(string.punctuation + "«»“”„‘’…–—¿¡") + "]")


# ---------------------------------------------------------------------------------- the files

@dataclass
class Entry:
    """A line of a lexicon file."""
    line: int    # its number, from 1
    forms: list  # of str


def read_lexicon(path):
    """Returns {section: {name: Entry}}; a malformed line is a UserError that names it."""
    sections = {}
    entries = None
    for number, line in enumerate(lexicon_text(path).splitlines(), 1):
        line = unicodedata.normalize("NFC", line).strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            entries = sections.setdefault(line[1:-1], {})
            continue
        name, equals, forms = line.partition("=")
        name = name.strip()
        if not equals or entries is None:
            raise UserError(
                f"{path}:{number}: expected `name = form | form` below a [section], found {line!r}"
            )
        if name in entries:
            raise UserError(
                f"{path}:{number}: {name!r} stands twice; remove one (the first is at line "
                f"{entries[name].line})"
            )
        entries[name] = Entry(number, [form.strip() for form in forms.split("|")])
    return sections


def lexicon_text(path):
    if not Path(path).exists():
        have = ", ".join(sorted(file.stem for file in LEXICON.glob("*_*.txt")))
        raise UserError(f"{path}: no such lexicon; languages that have one: {have}")
    return read_utf8(path)


# -------------------------------------------------------------------------------- the language

class Language:
    """One language's words and patterns: turns facts into text."""

    def __init__(self, code, folder=LEXICON):
        self.code = code
        self.path = Path(folder) / f"{code}.txt"
        self.lines = {}    # {section: {name: number of its line}}
        self.entries = {}  # {section: {name: its forms}}
        sections = read_lexicon(self.path)
        for section in SECTIONS:
            if section not in sections:
                raise UserError(f"{self.path}: section [{section}] is missing")
            entries = sections[section]
            self.lines[section] = {name: entry.line for name, entry in entries.items()}
            self.entries[section] = {name: entry.forms for name, entry in entries.items()}

        grammar = self.entries["grammar"]
        for name in GRAMMAR:
            if name not in grammar:
                raise UserError(f"{self.path}: [grammar] lacks {name!r}; see en_XX.txt")
        self.classes = grammar["classes"][0].split()  # of things: genders, for example
        self.agreement = grammar["verb agrees with"][0]
        self.articles = self.spread("grammar", "article", len(self.classes))
        self.plain = grammar["what"][0]
        self.described = grammar["what described"][0]

    def error(self, section, name, message):
        """A UserError that names an entry's line."""
        line = self.lines[section].get(name, 1)
        return UserError(f"{self.path}:{line}: [{section}] {name}: {message}")

    def spread(self, section, name, count):
        """The forms of an entry, one form standing for all where only one is written."""
        forms = self.entries[section][name]
        if len(forms) == count:
            return forms
        if len(forms) == 1:
            return forms * count
        raise self.error(section, name, f"{len(forms)} forms where 1 or {count} are expected")

    def slots(self, section, name):
        """The slots of an entry that is a pattern; UserError for braces that are none."""
        try:
            return slots_of(self.entries[section][name][0])
        except UserError as error:
            raise self.error(section, name, error) from None

    def inflections(self, section):
        """How many forms an adjective, a verb or an action has: one for each class of thing that it
        can agree with, or one for each gender of who does it."""
        by_class = section == "adjectives" or (section == "verbs" and self.agreement == "what")
        return len(self.classes) if by_class else len(GENDERS)

    def inflected(self, section, name, which):
        return self.spread(section, name, self.inflections(section))[which]

    # the words of a slot

    def person(self, name, doer=True):
        """A person as the doer of an action with an object, or else as a mere subject."""
        forms = self.entries["people"][name]  # gender, subject, the doer's form where it differs
        if doer and len(forms) > 2:
            return forms[2]
        return forms[1]

    def gender(self, name):
        """The place of a person's gender in GENDERS."""
        return GENDERS.index(self.entries["people"][name][0])

    def noun(self, sentence):
        """The noun of a sentence's thing, or of its category where that is said: the place of its
        class in this language's classes, and the noun."""
        if sentence.category:
            of_class, noun = self.entries["categories"][sentence.category]
        else:
            of_class, noun = self.entries["things"][sentence.what]
        return self.classes.index(of_class), noun

    def thing(self, sentence):
        index, noun = self.noun(sentence)
        article = self.articles[index]
        if not sentence.adjective:
            return self.plain.format(article=article, thing=noun).strip()
        adjective = self.inflected("adjectives", sentence.adjective, index)
        return self.described.format(article=article, thing=noun, adjective=adjective).strip()

    def verb(self, sentence):
        if self.agreement == "what":
            index, _ = self.noun(sentence)
            return self.inflected("verbs", sentence.did, index)
        return self.inflected("verbs", sentence.did, self.gender(sentence.who))

    def slot(self, name, sentence):
        """The words of this language for one slot of a sentence's pattern."""
        if name == "who":
            return self.person(sentence.who)
        if name == "subject":
            return self.person(sentence.who, doer=False)
        if name == "did":
            return self.verb(sentence)
        if name == "acted":
            return self.inflected("actions", sentence.did, self.gender(sentence.who))
        if name == "what":
            return self.thing(sentence)
        if name == "count":
            return str(sentence.count)
        if name == "where" and sentence.area:
            return self.entries["areas"][sentence.area][0]
        section = SECTION_OF_SLOT[name]
        return self.entries[section][getattr(sentence, name)][0]

    def say(self, sentence, other=None):
        """The sentence as text. `other(name)` may give another Language for a slot (or for a whole
        remark, by the name "remark"): code-mixed text."""
        speaker = self
        if sentence.pattern == "remark":
            if other:
                speaker = other("remark")
            pattern = speaker.entries["remarks"][sentence.remark][0]
        else:
            pattern = self.entries["patterns"][sentence.pattern][0]

        words = {}
        for name in slots_of(pattern):
            language = other(name) if other else self
            words[name] = language.slot(name, sentence)
        return speaker.capitalized(pattern.format(**words))

    def capitalized(self, text):
        if self.code == "tr_TR" and text[0] == "i":
            return "İ" + text[1:]
        return text[0].upper() + text[1:]


@cache
def slots_of(pattern):
    """The names of the slots in a pattern, in order; UserError for braces that are none."""
    found = []
    try:
        for _, name, form, conversion in string.Formatter().parse(pattern):
            if name is None:  # text behind the last slot
                continue
            if form or conversion or not name.isidentifier():
                raise ValueError(f"{name!r} between braces")
            found.append(name)
    except ValueError as error:
        raise UserError(f"{error}; a slot is a name between braces, as {{who}}") from None
    return tuple(found)


def spaced(text):
    """Lower-case words with one space around each and no punctuation: whole words are then found
    by `in`."""
    folded = text.casefold().replace("\u0307", "")  # the dot that casefold() splits off İ
    words = PUNCTUATION.sub(" ", folded).split()
    return f" {' '.join(words)} "


# ----------------------------------------------------------------------------------- the check

def check(language, reference):
    """Raises a UserError for the first entry that is missing, unknown, wrongly formed or said
    twice. reference: the Language whose names all others have."""
    if language.agreement not in AGREEMENTS:
        raise language.error("grammar", "verb agrees with", "must be nothing, who or what")
    for section in SECTIONS:
        check_complete(language, reference, section)
        for name in language.entries[section]:
            check_entry(language, reference, section, name)
        if section not in ("grammar", "patterns"):
            check_distinct(language, section)


def check_complete(language, reference, section):
    for name in reference.entries[section]:
        if name not in language.entries[section]:
            raise UserError(
                f"{language.path}: [{section}] lacks {name!r}, which {reference.path.name} has"
            )


def check_entry(language, reference, section, name):
    """Is the entry known, and has it the forms that its section asks for?"""
    if name not in reference.entries[section]:
        message = f"unknown name; {reference.path.name} does not have it"
        raise language.error(section, name, message)
    if section == "grammar":
        check_grammar(language, name)
        return
    forms = language.entries[section][name]
    if not all(forms):
        raise language.error(section, name, "an empty form")
    if section in ONE_FORM:
        check_one_form(language, section, name)
    if section in ("patterns", "remarks"):
        check_slots(language, reference, section, name)
    elif section == "people":
        if forms[0] not in GENDERS or len(forms) not in (2, 3):
            message = "expected `m or f | form` (or a third field, the doer's form)"
            raise language.error(section, name, message)
    elif section in NOUNS:
        if forms[0] not in language.classes or len(forms) != 2:
            message = f"expected `class | noun`, class one of {language.classes}"
            raise language.error(section, name, message)
    elif section in ("adjectives", "verbs", "actions"):
        language.spread(section, name, language.inflections(section))


def check_grammar(language, name):
    """Has an entry of [grammar] one form, and a thing's pattern its slots? The articles were
    counted when the language was read."""
    if name == "article":
        return
    check_one_form(language, "grammar", name)
    if name in THING_SLOTS:
        expected = THING_SLOTS[name]
        found = [slot for slot in language.slots("grammar", name) if slot != "article"]
        if sorted(found) != expected:
            needed = " and ".join(f"{{{slot}}}" for slot in expected)
            pattern = language.entries["grammar"][name][0]
            message = f"expected {needed} once, with or without {{article}}, found {pattern!r}"
            raise language.error("grammar", name, message)


def check_one_form(language, section, name):
    forms = len(language.entries[section][name])
    if forms != 1:
        raise language.error(section, name, f"{forms} forms, of which one is read; keep one")


def check_slots(language, reference, section, name):
    """A pattern has slots that such a sentence fills, and those of the reference, in any order."""
    known = REMARK_SLOTS
    if section == "patterns":
        known = PATTERN_SLOTS.get(name, EVENT_SLOTS)
    found = language.slots(section, name)
    for slot in found:
        if slot not in known:
            message = f"no slot of such a sentence is {slot!r}; it has {', '.join(known)}"
            raise language.error(section, name, message)
    expected = reference.slots(section, name)
    if sorted(found) != sorted(expected):
        message = f"slots {found} differ from {reference.path.name}'s"
        raise language.error(section, name, message)


def said_by(section, forms):
    """What an entry with these forms says, in its first form."""
    if section == "people" or section in NOUNS:
        return forms[1]
    return forms[0]


def check_distinct(language, section):
    """No two entries of a section say the same words."""
    said = {}
    for name, forms in language.entries[section].items():
        text = said_by(section, forms)
        if text in said:
            message = (
                f"says {text!r}, as {said[text]!r} does: readers could not tell the two facts apart"
            )
            raise language.error(section, name, message)
        said[text] = name
