"""XL-Sum and WikiLingua."""

OUR_FIELDS = ("source", "target", "source_lang", "target_lang")
GEM_FIELDS = ("source", "target", "source_language", "target_language")
SPLITS = {"xlsum": {"train": ("train",), "valid": ("val",), "test": ("test",)},  # as published
          "wikilingua": {"train": ("train",), "valid": ("validation", "sampled_validation"),
                         "test": ("test", "sampled_test")}}
# How XL-Sum (file names) and WikiLingua (fields) call mBART's languages.
XLSUM = {"english": "en_XX", "spanish": "es_XX", "russian": "ru_RU", "turkish": "tr_TR", "gujarati": "gu_IN",
         "french": "fr_XX", "arabic": "ar_AR", "azerbaijani": "az_AZ", "bengali": "bn_IN", "burmese": "my_MM",
         "chinese_simplified": "zh_CN", "hindi": "hi_IN", "indonesian": "id_ID", "japanese": "ja_XX", "korean": "ko_KR",
         "marathi": "mr_IN", "nepali": "ne_NP", "pashto": "ps_AF", "persian": "fa_IR", "portuguese": "pt_XX",
         "sinhala": "si_LK", "swahili": "sw_KE", "tamil": "ta_IN", "telugu": "te_IN", "thai": "th_TH",
         "ukrainian": "uk_UA", "urdu": "ur_PK", "vietnamese": "vi_VN"}
WIKILINGUA = {"en": "en_XX", "es": "es_XX", "ru": "ru_RU", "tr": "tr_TR", "fr": "fr_XX", "de": "de_DE", "ar": "ar_AR",
              "cs": "cs_CZ", "hi": "hi_IN", "id": "id_ID", "it": "it_IT", "ja": "ja_XX", "ko": "ko_KR", "nl": "nl_XX",
              "pt": "pt_XX", "th": "th_TH", "vi": "vi_VN", "zh": "zh_CN"}
