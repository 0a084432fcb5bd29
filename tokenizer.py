"""Text to ids and back: mBART's vocabulary, with both published places of the language tag.

The vocabulary is SentencePiece's, shifted by one, four specials before it and the language tags
behind:
    0 <s>  1 <pad>  2 </s>  3 <unk>  |  SentencePiece id i >= 3 -> i + 1  |  tags  |  <mask>

The two published layouts put the tag in different places (X = the text's pieces):
                encoder input    labels         decoder input
    mBART-25    X </s> LANG      X </s> LANG    LANG X </s>      (Liu et al. 2020, section 2.2)
    mBART-50    LANG X </s>      LANG X </s>    </s> LANG X      (Tang et al. 2020)
Which one a folder has is read off its files, never chosen by the user; in both, the decoder input
is the labels moved right by one, with the last label in front.

Run it alone to see a text's ids and pieces:
    python tokenizer.py base en_XX "The teacher found a map."
"""
import base64
import io
import shutil
from pathlib import Path

import sentencepiece

from plumbing.files import (
    UserError,
    first_line,
    parser_of,
    read_json,
    run,
    saving,
    write_bytes,
    write_json,
)
from plumbing.layout import (
    MBART25,
    MBART50,
    MODEL_FILE,
    SOURCE_FILE,
    close_language,
    load_pieces,
    read_layout,
)
from plumbing.models import EXAMPLES, MODEL_HELP, model_folder
from plumbing.protobuf import fields

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
BOS, PAD, EOS, UNK = range(4)
SPECIAL_PIECES = 3  # of a SentencePiece model, the first ones: <unk> <s> </s>

NORMALIZER_FIELD = 3  # of SentencePiece's file: how it normalizes a text, a message
TABLE_FIELD = 2       # of that message: the table of normal forms


class Tokenizer:
    """Pieces and language tags of one mBART folder.

    layout: "mbart25" or "mbart50". `source` is the tokenizer of the encoder's input: this one, or
    that of a new language's own vocabulary."""

    def __init__(self, model_file, layout, source=None):
        self.model_file = Path(model_file)
        self.layout = layout
        self.source = source or self
        self.pieces = load_pieces(self.model_file)
        self.languages = MBART25 if layout == "mbart25" else MBART50
        first_tag = self.pieces.get_piece_size() + 1
        self.tag = {code: first_tag + i for i, code in enumerate(self.languages)}
        self.mask_id = first_tag + len(self.languages)
        self.vocab_size = self.mask_id + 1

    @classmethod
    def from_pretrained(cls, folder):
        """Reads sentencepiece.bpe.model and, where the encoder has its own, SOURCE_FILE.

        UserError if a file is missing, damaged or does not fit the others."""
        path = Path(folder) / MODEL_FILE
        if not path.is_file():
            raise UserError(f"{path}: not found; {what_helps(folder)}")
        layout = read_layout(folder, load_pieces(path).get_piece_size())
        source_path = Path(folder) / SOURCE_FILE
        source = None
        if source_path.is_file():
            source = cls(source_path, layout)
        check_source(folder, source)
        return cls(path, layout, source)

    @property
    def own_source(self):
        """The encoder's own Tokenizer; None where it reads with this one."""
        return None if self.source is self else self.source

    # text to ids

    def piece_ids(self, text):
        """The ids of the text alone, without any special token."""
        try:
            pieces = self.pieces.encode(text)
        except (UnicodeEncodeError, RuntimeError):
            check_whole(text)
            raise
        ids = []
        for piece in pieces:
            if piece == 0:  # SentencePiece's own <unk>
                ids.append(UNK)
            else:
                ids.append(piece + 1)
        return ids

    def with_specials(self, ids, lang):
        """Pieces -> pieces with </s> and the language's tag, in this folder's layout.

        lang None: </s> alone (the source of a model trained with --tagless)."""
        if lang is None:
            return [*ids, EOS]
        tag = self.lang_id(lang)
        if self.layout == "mbart25":
            return [*ids, EOS, tag]
        return [tag, *ids, EOS]

    def encode(self, text, lang, max_length=None):
        """Text -> ids of the encoder's input, special tokens in place, at most max_length."""
        ids = self.source.piece_ids(text)
        return self.source.with_specials(shortened(ids, max_length, lang), lang)

    def target(self, text, lang, max_length=None):
        """Text -> (decoder input, labels): the labels moved right by one, the last in front."""
        ids = self.piece_ids(text)
        labels = self.with_specials(shortened(ids, max_length, lang), lang)
        return shifted(labels), labels

    def check_languages(self, codes):
        """UserError for the first of some languages that is unknown."""
        for code in codes:
            self.lang_id(code)

    def lang_id(self, code):
        """The id of a language's tag; an unknown language is a UserError that lists the known."""
        if code not in self.tag:
            hint = "."
            close = close_language(str(code), self.languages)
            if close:
                hint = f"; did you mean {close}?"
            known = " ".join(self.languages)
            raise UserError(f"unknown language {code!r}{hint} This model has: {known}")
        return self.tag[code]

    # ids to text

    def is_text(self, ids):
        """True where an id is a piece of text: not <s> <pad> </s> <unk>, no tag, no <mask>.

        ids: int64 tensor of any shape (or one number); the answer has the same shape."""
        first_tag = self.tag[self.languages[0]]
        return (ids > UNK) & (ids < first_tag)

    def decode(self, ids):
        """Ids -> text; special tokens and language tags are left out."""
        pieces = []
        for number in map(int, ids):
            if self.is_text(number):
                pieces.append(number - 1)  # SentencePiece's own id
        return self.pieces.decode(pieces)

    # files

    def save_pretrained(self, folder):
        """Copies the SentencePiece model and writes tokenizer.json and tokenizer_config.json,
        without which transformers 5 cannot open a folder unless protobuf is installed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        copy_file(self.model_file, folder / MODEL_FILE)
        if self.own_source:
            copy_file(self.source.model_file, folder / SOURCE_FILE)
        else:  # an earlier model of this folder may have had one
            (folder / SOURCE_FILE).unlink(missing_ok=True)
        write_json(folder / "tokenizer.json", self.as_tokenizer_json())
        write_json(folder / "tokenizer_config.json", self.as_tokenizer_config())

    def as_tokenizer_json(self):
        """What the tokenizers library reads: the pieces with their scores, how a text is cut into
        words before they are looked up, and how pieces become text again."""
        vocab = [[special, 0.0] for special in SPECIALS]
        for i in range(SPECIAL_PIECES, self.pieces.get_piece_size()):
            vocab.append([self.pieces.id_to_piece(i), self.pieces.get_score(i)])
        vocab += [[code, 0.0] for code in self.languages]
        vocab.append(["<mask>", 0.0])

        added = [added_token(i, special) for i, special in enumerate(SPECIALS)]
        added += [added_token(i, code) for code, i in self.tag.items()]
        added.append(added_token(self.mask_id, "<mask>"))

        space = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": "always",
            "split": True,
        }
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "normalizer": self.as_normalizer(),
            "post_processor": None,
            "added_tokens": added,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "WhitespaceSplit"}, space],
            },
            "decoder": space,
            "model": {
                "type": "Unigram",
                "unk_id": UNK,
                "vocab": vocab,
                "byte_fallback": False,
            },
        }

    def as_normalizer(self):
        """How SentencePiece normalizes a text before it looks pieces up (NFKC, in mBART's file).
        MBart50Tokenizer does the same; MBartTokenizer of transformers 5 has no normalization."""
        if self.layout == "mbart25":
            return None
        table = normal_forms(self.model_file)
        if not table:
            return None
        encoded = base64.b64encode(table).decode("ascii")
        return {"type": "Precompiled", "precompiled_charsmap": encoded}

    def as_tokenizer_config(self):
        """What tells transformers which of its classes opens the folder."""
        kind = "MBartTokenizer" if self.layout == "mbart25" else "MBart50Tokenizer"
        return {
            "tokenizer_class": kind,
            "bos_token": "<s>",
            "cls_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "pad_token": "<pad>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
            "src_lang": "en_XX",
            "tgt_lang": None,
            "additional_special_tokens": self.languages,
        }


def check_whole(text):
    """UserError for half a character, e.g. from bytes of a command line that were not UTF-8."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        where = f"character {error.start + 1} of a text"
        raise UserError(f"{where} is half of one (a lone surrogate); mend the text") from None


def what_helps(folder):
    """What to do about a folder without MODEL_FILE."""
    if (Path(folder) / "tokenizer.json").is_file():
        return (
            "tokenizer.json alone is not read here (transformers 5 saves no other): copy the file "
            f"of the model that this one was trained from, such as {EXAMPLES}"
        )
    return "an mBART folder holds its tokenizer under this name"


def check_source(folder, source):
    """UserError unless config.json's source_vocab_size is that of `source`, the Tokenizer of the
    encoder's own vocabulary (None: it has none)."""
    path = Path(folder) / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        return
    expected = config.get("source_vocab_size")
    found = source.vocab_size if source else None
    if found != expected:
        raise UserError(
            f"{path}: source_vocab_size {expected} does not fit the encoder's own vocabulary, "
            f"{SOURCE_FILE}: {found or 'not there'}; copy the folder again"
        )


def shifted(labels):
    """Labels -> the decoder's input: moved right by one, the last of them in front."""
    return [labels[-1], *labels[:-1]]


def shortened(ids, max_length, lang):
    """Pieces cut so that with </s>, and a tag if there is a language, they have max_length ids."""
    if not max_length:
        return ids
    specials = 1 if lang is None else 2
    return ids[:max(0, max_length - specials)]


def added_token(number, text):
    """A special token's entry in tokenizer.json."""
    return {
        "id": number,
        "content": text,
        "single_word": False,
        "lstrip": text == "<mask>",
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def copy_file(source, target):
    if source.resolve() != target.resolve():
        with saving(target) as temporary:
            shutil.copyfile(source, temporary)


def normal_forms(path):
    """The table of normal forms in a SentencePiece file, as bytes; b"" if it has none."""
    normalizer = content_of(Path(path).read_bytes(), NORMALIZER_FIELD)
    return content_of(normalizer, TABLE_FIELD)


def content_of(message, number):
    """What the first field of this number in a message holds, as bytes; b"" if there is none."""
    for field in fields(message):
        if field.number == number:
            return message[field.content_start:field.end]
    return b""


def train_sentencepiece(
    sentences, path, vocab_size, required_chars="", seed=0, character_coverage=1.0
):
    """Learns a unigram vocabulary (the kind that mBART's own is) from an iterator of sentences.

    vocab_size: SentencePiece pieces at most; mBART adds <pad>, the tags and <mask>.
    required_chars: letters that must have a piece even if the text lacks them.
    character_coverage: the share of the text whose letters get one, 0.98 to 1. Writes `path`; the
    same sentences and seed give the same file. UserError if the pieces are too few for the
    letters, or if there is no text."""
    try:
        learn_pieces(sentences, path, vocab_size, required_chars, seed, character_coverage)
    except RuntimeError as error:
        reason = str(error)
        if "required_chars_" in reason or "vocab_size" in reason.lower():
            reason = f"{vocab_size} pieces are too few for the letters of these texts"
        elif "sentences_.empty" in reason:
            reason = "there is no text to learn it from"
        raise UserError(f"no vocabulary could be learned: {first_line(reason)}") from None


def learn_pieces(sentences, path, vocab_size, required_chars, seed, character_coverage):
    sentencepiece.set_random_generator_seed(seed)
    learned = io.BytesIO()  # in memory first: what fails on the disk is then reported as such
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=learned,
        vocab_size=vocab_size,
        model_type="unigram",
        character_coverage=character_coverage,
        required_chars=required_chars,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
    )
    write_bytes(path, learned.getvalue())


def main(argv=None):
    parser = parser_of("A text's ids and pieces.")
    parser.add_argument("folder", help=MODEL_HELP)
    parser.add_argument("lang", help="the text's language, e.g. en_XX")
    parser.add_argument("text")
    args = parser.parse_args(argv)

    tokenizer = Tokenizer.from_pretrained(model_folder(args.folder, weights=False))
    decoder_input, labels = tokenizer.target(args.text, args.lang)
    print("encoder input:", tokenizer.encode(args.text, args.lang))
    print("decoder input:", decoder_input)
    print("labels:", labels)
    pieces = tokenizer.source.pieces.encode(args.text, out_type=str)
    print("source pieces:", " ".join(pieces))


if __name__ == "__main__":
    run(main)
