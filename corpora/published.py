"""Two published data sets of summaries, as their authors distribute them: how their files and
languages are called.

    XL-Sum (Hasan et al. 2021): english_train.jsonl, english_val.jsonl, english_test.jsonl, ...; an
    article and its summary in the same language
    WikiLingua (Ladhak et al. 2020), as GEM exports it: train.jsonl, validation.jsonl, test.jsonl; a
    how-to article in one language and its summary in another
"""
from corpora.lines import Fields, JsonLines
from plumbing.files import UserError, beside_python, note_once, quoted

XLSUM_FIELDS = Fields("text", "summary", None, None)
XLSUM_SPLITS = {"train": "train", "valid": "val", "test": "test"}
XLSUM_NAMES = {
    "ar_AR": "arabic",
    "az_AZ": "azerbaijani",
    "bn_IN": "bengali",
    "en_XX": "english",
    "es_XX": "spanish",
    "fa_IR": "persian",
    "fr_XX": "french",
    "gu_IN": "gujarati",
    "hi_IN": "hindi",
    "id_ID": "indonesian",
    "ja_XX": "japanese",
    "ko_KR": "korean",
    "mr_IN": "marathi",
    "my_MM": "burmese",
    "ne_NP": "nepali",
    "ps_AF": "pashto",
    "pt_XX": "portuguese",
    "ru_RU": "russian",
    "si_LK": "sinhala",
    "sw_KE": "swahili",
    "ta_IN": "tamil",
    "te_IN": "telugu",
    "th_TH": "thai",
    "tr_TR": "turkish",
    "uk_UA": "ukrainian",
    "ur_PK": "urdu",
    "vi_VN": "vietnamese",
    "zh_CN": "chinese_simplified",
}

WIKILINGUA_FIELDS = Fields("source", "target", "source_language", "target_language")
WIKILINGUA_SPLITS = {  # the first of these files that is there
    "train": ("train.jsonl",),
    "valid": ("validation.jsonl", "sampled_validation.jsonl"),
    "test": ("test.jsonl", "sampled_test.jsonl"),
}
WIKILINGUA_CODES = {
    "ar": "ar_AR",
    "cs": "cs_CZ",
    "de": "de_DE",
    "en": "en_XX",
    "es": "es_XX",
    "fr": "fr_XX",
    "hi": "hi_IN",
    "id": "id_ID",
    "it": "it_IT",
    "ja": "ja_XX",
    "ko": "ko_KR",
    "nl": "nl_XX",
    "pt": "pt_XX",
    "ru": "ru_RU",
    "th": "th_TH",
    "tr": "tr_TR",
    "vi": "vi_VN",
    "zh": "zh_CN",
}


def open_xlsum(folder, split, pairs, languages, **options):
    """XL-Sum, a file a language; pairs of two languages are a UserError. options: JsonLines'."""
    spec = f"xlsum:{folder}"
    paths = {}
    for source, target in pairs:
        if source != target:
            raise UserError(
                f"--data {spec}: XL-Sum has summaries in the document's own language only, not "
                f"{source}-{target}"
            )
        if source not in XLSUM_NAMES:
            known = " ".join(XLSUM_NAMES)
            raise UserError(f"--data {spec}: XL-Sum has no {source}; it has {known}")
        name = f"{XLSUM_NAMES[source]}_{XLSUM_SPLITS[split]}.jsonl"
        if not (folder / name).is_file():
            raise UserError(
                f"{folder / name}: not found; `{beside_python()} -m corpora.fetch xlsum "
                f"{XLSUM_NAMES[source]} --out {quoted(folder)}` fetches it"
            )
        paths[folder / name] = (source, source)
    return JsonLines(paths, pairs, languages, XLSUM_FIELDS, **options)


def open_wikilingua(folder, split, pairs, languages, **options):
    """WikiLingua, one file of all languages. options: JsonLines'."""
    names = WIKILINGUA_SPLITS[split]
    for name in names:
        path = folder / name
        if path.is_file():
            if name != names[0]:  # a part of it
                note_once(f"--data wikilingua:{folder}: {name} stands for {names[0]}")
            return JsonLines(
                {path: None}, pairs, languages, WIKILINGUA_FIELDS, WIKILINGUA_CODES, **options
            )
    raise UserError(
        f"--data wikilingua:{folder}: none of {', '.join(names)} is there; `{beside_python()} -m "
        f"corpora.fetch wikilingua LANGUAGE ... --out {quoted(folder)} --overwrite` fetches all "
        "splits of the languages that it names"
    )
