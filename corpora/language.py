"""One language of the built-in corpus: its file in `lexicon/`, which puts facts into words.

A line `name = form | form` gives an entry its forms; what the forms of each section mean stands at the head of
`lexicon/en_XX.txt`. A malformed file is an error that names the line.
"""
import re
import string
import unicodedata
from functools import cache
from pathlib import Path

from plumbing.files import UserError

LEXICON = Path(__file__).resolve().parent / "lexicon"
SECTIONS = ("grammar", "patterns", "people", "things", "adjectives", "verbs", "actions", "places", "times",
            "manners", "asides", "remarks")
GENDERS = ("m", "f")
PUNCTUATION = re.compile("[" + re.escape(string.punctuation + "«»“”„‘’…–—¿¡") + "]")


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
