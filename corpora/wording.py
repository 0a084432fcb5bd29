"""In which other words a headline of the built-in corpus tells what its document says.

Three files in `lexicon/`, the same for every language:
    partners.txt       the verbs in pairs that tell the same event
    categories.txt     each thing's category, each place's area
    collocations.txt   for each pair of verbs the categories of things that take the second one
A mistake in one of them is an error that names its line.
"""
from pathlib import Path

from corpora.language import read_lexicon, said_by, spaced
from plumbing.files import UserError

PARTNERS = "partners.txt"
CATEGORIES = "categories.txt"
COLLOCATIONS = "collocations.txt"


class Wording:
    """What stands for what in a headline.

    partner: {verb: the other of its pair}; category: {thing: its category}; area: {place: its
    area}; collocations: {second verb of a pair: the categories that take it}."""

    def __init__(self, folder, names):
        """names: {section: names of its entries}, as every language has them."""
        folder = Path(folder)
        self.partner = read_partners(folder / PARTNERS, names["verbs"])
        path = folder / CATEGORIES
        self.category = read_kinds(path, "things", names["things"], names["categories"])
        self.area = read_kinds(path, "places", names["places"], names["areas"])
        self.collocations = read_collocations(
            folder / COLLOCATIONS, self.partner, names["categories"]
        )

    def idiomatic(self, verb, category):
        """Of a verb and its partner the one that goes with this category of thing."""
        second = verb
        if verb not in self.collocations:
            second = self.partner[verb]
        if category in self.collocations[second]:
            return second
        return self.partner[second]


def read_section(path, section):
    """{name: Entry} of one section; UserError if the file has none of this name."""
    sections = read_lexicon(path)
    if section not in sections:
        raise UserError(f"{path}: section [{section}] is missing")
    return sections[section]


def read_partners(path, verbs):
    """{verb: its partner}, in both directions; UserError for a verb that has none, or two."""
    partner = {}
    for verb, entry in read_section(path, "partners").items():
        where = f"{path}:{entry.line}"
        if len(entry.forms) != 1:
            raise UserError(f"{where}: {verb!r} has {len(entry.forms)} partners; keep one")
        other = entry.forms[0]
        for name in (verb, other):
            if name not in verbs:
                raise UserError(f"{where}: no language has the verb {name!r}")
            if name in partner:
                raise UserError(f"{where}: {name!r} has two partners; keep one line")
        if verb == other:
            raise UserError(f"{where}: {verb!r} cannot be its own partner; name another verb")
        partner[verb] = other
        partner[other] = verb
    for verb in verbs:
        if verb not in partner:
            raise UserError(f"{path}: the verb {verb!r} has no partner; add its line")
    return partner


def read_kinds(path, section, names, kinds):
    """{name: its kind} of all names (things or places), each kind one of `kinds`."""
    found = {}
    for name, entry in read_section(path, section).items():
        kind = entry.forms[0]
        if name not in names:
            raise UserError(f"{path}:{entry.line}: [{section}] no language has {name!r}")
        if kind not in kinds or len(entry.forms) != 1:
            known = ", ".join(kinds)
            raise UserError(
                f"{path}:{entry.line}: [{section}] {name}: expected one of {known}"
            )
        found[name] = kind
    for name in names:
        if name not in found:
            raise UserError(f"{path}: [{section}] lacks {name!r}; add its line")
    return found


def read_collocations(path, partner, categories):
    """{verb: the categories that take it and not its partner}, of each pair one verb."""
    found = {}
    for verb, entry in read_section(path, "collocations").items():
        where = f"{path}:{entry.line}: {verb}"
        if verb not in partner:
            raise UserError(f"{where}: no language has this verb")
        if partner[verb] in found:
            raise UserError(f"{where}: its partner {partner[verb]!r} has a line; keep one of them")
        for category in entry.forms:
            if category not in categories:
                raise UserError(f"{where}: {category!r} is no category of {CATEGORIES}")
        if len(set(entry.forms)) != len(entry.forms):
            raise UserError(f"{where}: a category stands twice; remove one")
        if len(entry.forms) == len(categories):
            raise UserError(f"{where}: takes every category; leave some to {partner[verb]!r}")
        found[verb] = entry.forms
    for verb in partner:
        if verb not in found and partner[verb] not in found:
            raise UserError(f"{path}: the pair of {verb!r} has no line; add it")
    return found


# ----------------------------------------------------------------------------------- the check

def check_told_apart(language, wording):
    """Can a reader, and facts_recovered(), tell from a language's words which kind is meant?

    A category's words may be those of a thing of its own (a toy is a toy); otherwise no category
    stands within another's words or a thing's, nor a thing within a category's. Areas and places
    alike. UserError for the first that does."""
    check_kinds(language, "categories", "things", wording.category)
    check_kinds(language, "areas", "places", wording.area)


def check_kinds(language, section, members, kind_of):
    """kind_of: {entry of `members`: entry of `section`}."""
    kinds = words(language, section)
    for kind, said in kinds.items():
        for other, said_there in kinds.items():
            if other != kind and said in said_there:
                raise language.error(section, kind, f"stands within the words of {other!r}")
        for member, said_there in words(language, members).items():
            own = kind_of[member] == kind
            if said in said_there and not own:
                message = f"stands within the words of {member!r}, which is none"
                raise language.error(section, kind, message)
            if said_there in said and said != said_there:
                raise language.error(section, kind, f"{member!r} stands within its words")


def words(language, section):
    """{entry: its words with spaces around them}"""
    found = {}
    for name, forms in language.entries[section].items():
        found[name] = spaced(said_by(section, forms))
    return found
