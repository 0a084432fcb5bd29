"""Text to ids and back: mBART's vocabulary, with both published places of the language tag.

The vocabulary is SentencePiece's, moved by one, with four specials before it and the language tags behind:
    0 <s>  1 <pad>  2 </s>  3 <unk>  |  SentencePiece id i >= 3 -> i + 1  |  tags in fixed order  |  <mask>
The two published layouts put the tag in different places (X = the text's pieces):
                     encoder input      labels             decoder input
    mBART-25         X </s> LANG        X </s> LANG        LANG X </s>      (Liu et al. 2020, section 2.1)
    mBART-50         LANG X </s>        LANG X </s>        </s> LANG X      (Tang et al. 2020)
Which one a folder has is read off its files, never chosen by the user; in both, the decoder input is the labels
moved right by one with the last label in front.

Run it alone to see a text's ids and pieces:  python tokenizer.py base en_XX "The teacher found a map."
"""
import difflib
import shutil
import sys
from pathlib import Path

import sentencepiece

from plumbing.files import UserError, read_json, run, saving, write_json

MBART25 = ("ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT lv_LV my_MM "
           "ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN").split()
MBART50 = MBART25 + ("af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF "
                     "pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI").split()
BOS, PAD, EOS, UNK = range(4)
SOURCE_FILE = "source.sentencepiece.bpe.model"  # ours: the encoder's vocabulary where it is not the decoder's


class Tokenizer:
    """Pieces and language tags of one mBART folder. `layout` is "mbart25" or "mbart50".

    `source` is the tokenizer of the encoder's input: this one, or that of a new language's own vocabulary."""

    def __init__(self, model_file, layout, source=None):
        self.model_file, self.layout, self.source = Path(model_file), layout, source or self
        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
        self.languages = MBART25 if layout == "mbart25" else MBART50
        first = self.pieces.get_piece_size() + 1
        self.tag = {code: first + i for i, code in enumerate(self.languages)}
        self.mask_id = first + len(self.languages)
        self.vocab_size = self.mask_id + 1

    @classmethod
    def from_pretrained(cls, folder):
        """Reads sentencepiece.bpe.model; the layout comes from config.json's vocab_size or tokenizer_config.json,
        and is mBART-25 for the bare file. UserError if the files are missing, damaged or do not fit each other."""
        path = Path(folder) / "sentencepiece.bpe.model"
        if not path.is_file():
            raise UserError(f"{path}: not found; an mBART folder holds its tokenizer under this name")
        try:
            size = sentencepiece.SentencePieceProcessor(model_file=str(path)).get_piece_size()
        except (RuntimeError, OSError) as error:
            raise UserError(f"{path}: not a SentencePiece model ({str(error).splitlines()[0][:80]}); "
                            "copy it again") from None
        layout = None
        if (config := read_json(Path(folder) / "config.json")) and "vocab_size" in config:
            layout = {size + 27: "mbart25", size + 54: "mbart50"}.get(config["vocab_size"])
            if layout is None:
                raise UserError(f"{Path(folder) / 'config.json'}: vocab_size {config['vocab_size']} does not fit "
                                f"{path.name}: {size} pieces make {size + 27} (mBART-25) or {size + 54} (mBART-50)")
        elif "50" in str((read_json(Path(folder) / "tokenizer_config.json") or {}).get("tokenizer_class")):
            layout = "mbart50"
        layout, new = layout or "mbart25", Path(folder) / SOURCE_FILE
        return cls(path, layout, cls(new, layout) if new.is_file() else None)

    def lang_id(self, code):
        """The id of a language tag; an unknown language is a UserError that lists the folder's languages."""
        if code not in self.tag:
            close = difflib.get_close_matches(str(code), self.languages, 1, 0.4)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"unknown language {code!r}{hint} This model has: {' '.join(self.languages)}")
        return self.tag[code]

    def piece_ids(self, text):
        """The ids of the text alone, without any special token."""
        return [i + 1 if i else UNK for i in self.pieces.encode(text)]

    def tagged(self, ids, lang):
        """Pieces -> a sequence in this folder's layout; lang None leaves the tag out (adversarial runs)."""
        if lang is None:
            return [*ids, EOS]
        tag = self.lang_id(lang)
        return [*ids, EOS, tag] if self.layout == "mbart25" else [tag, *ids, EOS]

    def encode(self, text, lang, max_length=None):
        """Text -> ids of the encoder's input, special tokens in place, at most max_length of them."""
        ids = self.source.piece_ids(text)
        return self.source.tagged(ids[:max_length - 2] if max_length else ids, lang)

    def target(self, text, lang, max_length=None):
        """Text -> (decoder input, labels): the labels moved right by one, the last in front."""
        ids = self.piece_ids(text)
        labels = self.tagged(ids[:max_length - 2] if max_length else ids, lang)
        return [labels[-1], *labels[:-1]], labels

    def decode(self, ids):
        """Ids -> text; special tokens and language tags are left out."""
        return self.pieces.decode([int(i) - 1 for i in ids if UNK < int(i) < self.pieces.get_piece_size() + 1])

    def is_text(self, ids):
        """True where an id is a piece of text: not <s> <pad> </s> <unk>, no language tag, no <mask>. ids: a tensor."""
        return (ids > UNK) & (ids < self.tag[self.languages[0]])

    def save_pretrained(self, folder):
        """Copies the SentencePiece model and writes tokenizer.json and tokenizer_config.json, without which
        transformers 5 cannot open a folder unless protobuf is installed."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = {"sentencepiece.bpe.model": self} | ({} if self.source is self else {SOURCE_FILE: self.source})
        for name, tokenizer in files.items():
            if tokenizer.model_file.resolve() != (folder / name).resolve():
                with saving(folder / name) as temporary:
                    shutil.copyfile(tokenizer.model_file, temporary)
        specials = ["<s>", "<pad>", "</s>", "<unk>"]
        vocab = [[s, 0.0] for s in specials]
        pieces = self.pieces
        vocab += [[pieces.id_to_piece(i), pieces.get_score(i)] for i in range(3, pieces.get_piece_size())]
        vocab += [[code, 0.0] for code in self.languages] + [["<mask>", 0.0]]
        special = {i: piece for i, (piece, _) in enumerate(vocab) if i <= UNK or i >= self.tag[self.languages[0]]}
        space = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
        write_json(folder / "tokenizer.json", {
            "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
            "added_tokens": [{"id": i, "content": piece, "single_word": False, "lstrip": piece == "<mask>",
                              "rstrip": False, "normalized": False, "special": True} for i, piece in special.items()],
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, space]},
            "decoder": space, "model": {"type": "Unigram", "unk_id": UNK, "vocab": vocab, "byte_fallback": False}})
        write_json(folder / "tokenizer_config.json", {
            "tokenizer_class": "MBartTokenizer" if self.layout == "mbart25" else "MBart50Tokenizer",
            "bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>",
            "unk_token": "<unk>", "mask_token": "<mask>", "src_lang": "en_XX", "tgt_lang": None,
            "additional_special_tokens": self.languages})


def train_sentencepiece(sentences, path, vocab_size, required_chars="", seed=0):
    """Learns a unigram vocabulary (the kind that mBART's own is) from an iterator of sentences.

    vocab_size counts mBART ids without the 26 tags and <mask>; required_chars are letters that must have a piece
    even if the text lacks them. Writes `path`; the same sentences and seed give the same file."""
    sentencepiece.set_random_generator_seed(seed)
    with saving(path) as temporary, open(temporary, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=file, vocab_size=vocab_size, model_type="unigram",
            character_coverage=1.0, required_chars=required_chars, hard_vocab_limit=False, num_threads=1, minloglevel=2)


def main():
    if len(sys.argv) != 4:
        raise UserError('usage: python tokenizer.py FOLDER LANG "TEXT"')
    folder, lang, text = sys.argv[1:]
    tokenizer = Tokenizer.from_pretrained(folder)
    decoder_input, labels = tokenizer.target(text, lang)
    print("encoder input:", tokenizer.encode(text, lang))
    print("decoder input:", decoder_input)
    print("labels:", labels)
    print("pieces:", " ".join(tokenizer.pieces.encode(text, out_type=str)))


if __name__ == "__main__":
    run(main)
