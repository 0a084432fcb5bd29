"""Which of the two published layouts a model folder has, and the languages of each; tokenizer and
decoding both ask here.

mBART-25 and mBART-50 put the language tag in different places (tokenizer.py shows them). A folder
says which it is by the number of its tags: config.json's vocab_size less the vocabulary's pieces.
"""
import re
from pathlib import Path

import sentencepiece

from plumbing.files import UserError, first_line, read_json, refuse_pointer

MBART25 = (
    "ar_AR cs_CZ de_DE en_XX es_XX et_EE fi_FI fr_XX gu_IN hi_IN it_IT ja_XX kk_KZ ko_KR lt_LT "
    "lv_LV my_MM ne_NP nl_XX ro_RO ru_RU si_LK tr_TR vi_VN zh_CN"
).split()
MBART50 = MBART25 + (
    "af_ZA az_AZ bn_IN fa_IR he_IL hr_HR id_ID ka_GE km_KH mk_MK ml_IN mn_MN mr_IN pl_PL ps_AF "
    "pt_XX sv_SE sw_KE ta_IN te_IN th_TH tl_XX uk_UA ur_PK xh_ZA gl_ES sl_SI"
).split()

MODEL_FILE = "sentencepiece.bpe.model"
SOURCE_FILE = "source.sentencepiece.bpe.model"  # ours: the encoder's, where it has its own
TOKENIZER_FILES = (
    MODEL_FILE,
    SOURCE_FILE,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)


WORDS_FOR = {  # by mBART's two letters: what files and people call a language
    "af": "afrikaans afr", "ar": "arabic ara", "az": "azerbaijani aze", "bn": "bengali ben",
    "cs": "czech ces cze", "de": "german deu ger", "en": "english eng", "es": "spanish spa",
    "et": "estonian est", "fa": "persian farsi fas per", "fi": "finnish fin",
    "fr": "french fra fre", "gl": "galician glg", "gu": "gujarati guj", "he": "hebrew heb",
    "hi": "hindi hin", "hr": "croatian hrv", "id": "indonesian ind", "it": "italian ita",
    "ja": "japanese jpn", "ka": "georgian kat geo", "kk": "kazakh kaz", "km": "khmer khm",
    "ko": "korean kor", "lt": "lithuanian lit", "lv": "latvian lav", "mk": "macedonian mkd mac",
    "ml": "malayalam mal", "mn": "mongolian mon", "mr": "marathi mar", "my": "burmese mya bur",
    "ne": "nepali nep npi", "nl": "dutch nld dut", "pl": "polish pol", "ps": "pashto pus",
    "pt": "portuguese por", "ro": "romanian ron rum", "ru": "russian rus", "si": "sinhala sin",
    "sl": "slovenian slovene slv", "sv": "swedish swe", "sw": "swahili swa", "ta": "tamil tam",
    "te": "telugu tel", "th": "thai tha", "tl": "tagalog tgl", "tr": "turkish tur",
    "uk": "ukrainian ukr", "ur": "urdu urd", "vi": "vietnamese vie", "xh": "xhosa xho",
    "zh": "chinese zho chi cmn",
}  # fmt: skip
LETTERS_OF = {word: letters for letters, words in WORDS_FOR.items() for word in words.split()}


def close_language(code, languages):
    """The one of `languages` that is meant by a code of the same language ("pt_BR", "tr", "enXX",
    "spa_Latn"), by its English name, or by a country's code in its place ("cz", "cz_CZ"); None
    where there is none."""
    parts = re.split("[-_]", code.strip().lower())
    language = LETTERS_OF.get(parts[0], parts[0])
    for known in languages:
        if known[:2] == language or known.replace("_", "").lower() == language:
            return known
    places = [known for known in languages if known[3:].lower() == language]
    is_country = parts in ([language], [language, language])
    if is_country and len(places) == 1:
        return places[0]
    return None


def load_pieces(path):
    """The SentencePiece model in a file; UserError if it is none."""
    refuse_pointer(path)
    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        reason = first_line(error, 80)
        raise UserError(f"{path}: not a SentencePiece model ({reason}); copy it again") from None
    if pieces.unk_id() != 0:
        raise UserError(
            f"{path}: its <unk> is piece {pieces.unk_id()}, and mBART's, by which all ids are "
            "counted, is piece 0; this is another model's vocabulary"
        )
    return pieces


def layout_of(folder):
    """"mbart25" or "mbart50"; None where the folder has no vocabulary that could tell.

    A damaged one, or one that does not fit, is refused by who reads the tokenizer."""
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        return None
    try:
        return read_layout(folder, load_pieces(path).get_piece_size())
    except UserError:
        return None


def read_layout(folder, piece_count):
    """The layout of a folder whose SentencePiece model has piece_count pieces.

    It follows from config.json's vocab_size; without one from the class that tokenizer_config.json
    names; and is mBART-25 for the bare file."""
    path = Path(folder) / "config.json"
    config = read_json(path)
    if isinstance(config, dict) and "vocab_size" in config:
        vocab_size = config["vocab_size"]
        size25 = piece_count + len(MBART25) + 2  # the ids move by one, and <mask>
        size50 = piece_count + len(MBART50) + 2
        if vocab_size == size25:
            return "mbart25"
        if vocab_size == size50:
            return "mbart50"
        raise UserError(
            f"{path}: vocab_size {vocab_size} does not fit {MODEL_FILE}: {piece_count} pieces "
            f"make {size25} (mBART-25) or {size50} (mBART-50)"
        )
    config = read_json(Path(folder) / "tokenizer_config.json")
    if isinstance(config, dict) and "50" in str(config.get("tokenizer_class")):
        return "mbart50"
    return "mbart25"
