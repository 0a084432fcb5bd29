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

Run it alone to read samples:  python -m corpora.facts            (all seven languages)
                               python -m corpora.facts --langs en_XX tr_TR --count 5 --split test
                               python -m corpora.facts --check    (are the lexicon files complete and consistent?)
"""
import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from corpora.language import LEXICON, SECTIONS, Language, check, read_lexicon, spaced
from plumbing.files import UserError, run

LANGUAGES = ("en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN", "fr_XX", "de_DE")
BASE_LANGUAGES = LANGUAGES[:5]  # the base model reads these; fr_XX and de_DE stay new to it

LEAD_PATTERNS = ("plain", "dated", "attributed", "manner", "placed", "watched")
OTHER_PATTERNS = LEAD_PATTERNS + ("later",)
ACTION_PATTERNS = ("acted", "acted dated", "acted aside")
EVENTS = ((1, 0.25), (2, 0.45), (3, 0.30))  # how many events a document tells, with probabilities
LEAD_TOLD, PARTNER_VERB, PLACE_KEPT, DESCRIBED = 0.6, 0.7, 0.5, 0.5  # probabilities of the choices named above
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


def main(argv=None):
    parser = argparse.ArgumentParser(description="Print samples of the built-in corpus, or check its lexicon files.")
    parser.add_argument("--langs", nargs="+", default=LANGUAGES, metavar="LANG", help="default: all seven")
    parser.add_argument("--count", type=int, default=2, help="documents to print (default 2)")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--check", nargs="*", metavar="LANG", help="only check these lexicon files (default: all)")
    args = parser.parse_args(argv)
    if args.check is not None:
        for code in args.check or LANGUAGES:
            language = Corpus([code]).languages[code]
            print(f"{language.path.name}: {sum(map(len, language.entries.values()))} entries, in order")
        return
    corpus = Corpus(args.langs)
    for index in range(args.count):
        document = corpus.document(index, args.split, args.seed)
        for code in args.langs:
            print(f"{code}  {corpus.text(document, code)}\n       => {corpus.headline(document, code)}")
        print()


if __name__ == "__main__":
    run(main)
