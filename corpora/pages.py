"""A page of LibreOffice's help: HTML -> its headings and paragraphs in reading order; these ->
sections with their headings, and windows of plain text.

The same page has the same ids in every language: by these its translations are found.
"""
import re
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser

from corpora.lines import count_words
from plumbing.files import read_utf8

LONGEST = 700          # characters of a window, and of a section: mostly fewer than 250 tokens
SHORTEST_SECTION = 20  # words
SENTENCE_END = re.compile(r"(?<=[.!?:;])\s+")
BLOCK = re.compile("h[1-6]|p")
FIRST = "DisplayArea"  # the id of the element around a page's own text
LAST = "SearchFrame"   # the id of what stands behind it
SPACES = re.compile(r"\s+")


def shortened(text):
    """The words of a text that fit into LONGEST characters."""
    if len(text) <= LONGEST:
        return text
    end = text.rfind(" ", 0, LONGEST + 1)
    if end < 0:
        end = LONGEST
    return text[:end]


@dataclass(frozen=True)
class Block:
    """A heading or a paragraph."""
    kind: str  # h1 to h6, or p
    id: str    # once in a page: where the page repeats one, #2, #3 ... stand behind it
    text: str
    translated: bool = True  # False: in another language, but still in English

    @property
    def level(self):
        """1 to 6 of a heading, else None."""
        if self.kind == "p":
            return None
        return int(self.kind[1])


@dataclass
class Span:
    """An open <span>: what was read within it so far."""
    alternative: str | None  # its system or program, where one of several is shown: "MAC", "CALC"
    parts: list
    alternatives: dict  # {system or program: text} of the spans within, of which one is shown


class PageParser(HTMLParser):
    """Collects the `blocks` of a page."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.blocks = []
        self.within = False  # the page's own text
        self.kind = None     # of the open block
        self.id = None
        self.is_code = False
        self.spans = []      # open within the open block; the first stands for the block itself
        self.times = Counter()  # how often each id was met

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("id") == FIRST:
            self.within = True
        if given.get("id") == LAST:
            self.within = False
        if self.within and BLOCK.fullmatch(tag) and given.get("id"):
            self.kind = tag
            self.id = given["id"]
            self.is_code = "code" in (given.get("class") or "")  # lines of a program
            self.spans = [Span(None, [], {})]
        elif self.spans and tag == "span":
            alternative = None
            if "hidden" in given:  # the page's script shows one of these
                alternative = given.get("class") or "default"
            self.spans.append(Span(alternative, [], {}))
        elif self.spans and tag == "br":
            self.spans[-1].parts.append(" ")

    def handle_data(self, data):
        if self.spans:
            self.spans[-1].parts.append(data)

    def handle_endtag(self, tag):
        if tag == "span" and len(self.spans) > 1:
            self.close_span()
        elif self.spans and tag == self.kind:
            self.close_block()

    def close_span(self):
        span = self.spans.pop()
        around = self.spans[-1]
        text = "".join(span.parts) + shown(span.alternatives)
        if span.alternative is None:
            around.parts.append(text)
        else:
            around.alternatives.setdefault(span.alternative, text)

    def close_block(self):
        while len(self.spans) > 1:  # left open by the page
            self.close_span()
        text = SPACES.sub(" ", "".join(self.spans[0].parts)).strip()
        if text and not self.is_code:
            self.times[self.id] += 1
            name = self.id
            if self.times[self.id] > 1:
                name += f"#{self.times[self.id]}"
            self.blocks.append(Block(self.kind, name, text))
        self.spans = []


def shown(alternatives):
    """The text for most readers, of {system or program: text}."""
    if "default" in alternatives:
        return alternatives["default"]
    for name, text in alternatives.items():
        if name != "MAC":
            return text
    return ""


def read_page(path):
    """The Blocks of an HTML file; UserError if it cannot be read as UTF-8."""
    text = read_utf8(path, "unpack its package again")
    parser = PageParser()
    parser.feed(text)
    parser.close()
    return parser.blocks


# -------------------------------------------------------------------------- sections and windows

@dataclass
class Section:
    """A heading and the first paragraphs under it, those under its own sub-headings too."""
    id: str
    heading: str
    paragraphs: list

    def add(self, paragraph):
        """Takes in a paragraph once, as long as there is room, and none that is the heading itself:
        captions of icons often are, and would give the answer away."""
        is_new = paragraph != self.heading and paragraph not in self.paragraphs
        if is_new and len(" ".join(self.paragraphs)) < LONGEST:
            self.paragraphs.append(paragraph)

    @property
    def text(self):
        return shortened(" ".join(self.paragraphs))


def sections_of(blocks, headings):
    """Yields the Sections of a page whose headings have these ids."""
    for place, block in enumerate(blocks):
        if block.id not in headings or not block.translated:
            continue
        section = Section(block.id, block.text, [])
        for below in blocks[place + 1:]:
            if below.level is not None and below.level <= block.level:
                break
            if below.level is None and below.translated:
                section.add(below.text)
        if count_words(" ".join(section.paragraphs)) >= SHORTEST_SECTION:
            yield section


def windows(blocks):
    """Yields a page's Blocks as texts of at most LONGEST characters, a block a line; the end of a
    longer sentence is lost. A heading begins a window unless the one before it would be short."""
    window = []
    for block in blocks:
        for part in parts_of(block.text):
            length = len("\n".join([*window, part]))
            is_new = block.level is not None and length > LONGEST // 2
            if window and (length > LONGEST or is_new):
                yield "\n".join(window)
                window = []
            window.append(part)
    if window:
        yield "\n".join(window)


def parts_of(text):
    """Yields a text whole, or in parts of at most LONGEST characters, cut between sentences. Of a
    sentence that is longer itself only its beginning is kept, as shortened() gives it."""
    part = ""
    for sentence in SENTENCE_END.split(text):
        sentence = shortened(sentence)
        if part and len(part) + 1 + len(sentence) > LONGEST:
            yield part
            part = ""
        part = f"{part} {sentence}".strip()
    yield part
