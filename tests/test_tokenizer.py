"""tokenizer.py: SentencePiece's own ids, transformers' layouts, and errors that name the file."""
import io
import json
import shutil

import pytest
import sentencepiece
import torch
from conftest import ROOT

from plumbing.files import UserError
from tokenizer import (
    MBART25,
    MBART50,
    MODEL_FILE,
    SOURCE_FILE,
    Tokenizer,
    load_pieces,
    train_sentencepiece,
)

TEXTS = [
    "The teacher found a red map in the park.",
    "El pintor perdió un reloj.",
    "Учитель нашёл красную карту.",
    "Öğretmen parkta kırmızı bir harita buldu.",
    "શિક્ષકે બગીચામાં એક નકશો શોધ્યો.",
    "Le boulanger a vendu un vélo.",
    "Der Bäcker verkaufte am Montag ein Fahrrad.",
    "x",
    "42 people, 3.5 %",
    "  two   spaces ",
    "猫と犬 🙂 мир",
    "",
]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """{layout: folder}: the base's SentencePiece file alone, or with a config.json that makes it
    mBART-50."""
    model_file = ROOT / "base" / "sentencepiece.bpe.model"
    size = sentencepiece.SentencePieceProcessor(model_file=str(model_file)).get_piece_size()
    folders = {}
    for layout in ("mbart25", "mbart50"):
        folders[layout] = tmp_path_factory.mktemp(layout)
        shutil.copy(model_file, folders[layout])
    config = json.dumps({"vocab_size": size + 52 + 2})
    (folders["mbart50"] / "config.json").write_text(config)
    return folders


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_sentencepieces_own_moved_by_one(bare, text):
    tokenizer = Tokenizer.from_pretrained(bare["mbart25"])
    model_file = str(bare["mbart25"] / "sentencepiece.bpe.model")
    own = sentencepiece.SentencePieceProcessor(model_file=model_file)
    assert tokenizer.piece_ids(text) == [3 if i == 0 else i + 1 for i in own.encode(text)]


def test_the_two_layouts_put_the_tag_where_the_published_models_have_it(bare):
    t25, t50 = (Tokenizer.from_pretrained(bare[layout]) for layout in ("mbart25", "mbart50"))
    x = t25.piece_ids(TEXTS[0])
    en25, en50 = t25.lang_id("en_XX"), t50.lang_id("en_XX")
    assert t25.encode(TEXTS[0], "en_XX") == [*x, 2, en25]
    assert t25.target(TEXTS[0], "en_XX") == ([en25, *x, 2], [*x, 2, en25])
    assert t50.encode(TEXTS[0], "en_XX") == [en50, *x, 2]
    assert t50.target(TEXTS[0], "en_XX") == ([2, en50, *x], [en50, *x, 2])
    assert t25.encode(TEXTS[0], None) == t50.encode(TEXTS[0], None) == [*x, 2]


@pytest.mark.parametrize("layout, tags, mask, size", [
    ("mbart25", {"en_XX": 250004, "ro_RO": 250020}, 250026, 250027),
    ("mbart50", {"en_XX": 250004, "ar_AR": 250001, "sl_SI": 250052}, 250053, 250054),
])
def test_the_ids_of_the_published_vocabularies_come_out_for_250000_pieces(
    monkeypatch, layout, tags, mask, size
):
    pieces = load_pieces(ROOT / "base" / MODEL_FILE)
    monkeypatch.setattr(type(pieces), "get_piece_size", lambda self: 250_000)
    published = Tokenizer(ROOT / "base" / MODEL_FILE, layout)
    assert {code: published.tag[code] for code in tags} == tags
    assert (published.mask_id, published.vocab_size) == (mask, size)
    assert len(MBART25) == 25 and len(MBART50) == 52


@pytest.mark.parametrize("layout", ["mbart25", "mbart50"])
def test_the_saved_folder_opens_in_transformers_with_equal_ids(bare, layout, tmp_path):
    from transformers import AutoTokenizer, MBart50Tokenizer, MBartTokenizer
    ours = Tokenizer.from_pretrained(bare[layout])
    ours.save_pretrained(tmp_path)
    kind = MBartTokenizer if layout == "mbart25" else MBart50Tokenizer
    langs = ("en_XX", "es_XX", "ru_RU", "tr_TR", "gu_IN", "fr_XX", "de_DE")
    for theirs in (kind.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert isinstance(theirs, kind)
        for lang, text in zip(langs, TEXTS):
            theirs.src_lang = theirs.tgt_lang = lang
            ids = ours.encode(text, lang)
            assert theirs(text)["input_ids"] == ids
            assert theirs(text_target=text)["input_ids"] == ours.target(text, lang)[1]
            assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids)
        assert theirs.convert_tokens_to_ids(list(ours.tag)) == list(ours.tag.values())
        assert theirs.mask_token_id == ours.mask_id and len(theirs) == ours.vocab_size


def test_mbart50_opens_in_transformers_with_sentencepieces_normal_forms(bare, tmp_path):
    from transformers import AutoTokenizer
    ours = Tokenizer.from_pretrained(bare["mbart50"])
    ours.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, src_lang="en_XX")
    for text in ("ﬁrefighter", "a\u00a0map", "the 1.º map… and ½", "ＡＢＣ", "a\tmap\nin"):
        assert theirs(text)["input_ids"] == ours.encode(text, "en_XX"), text
    for text, plain in (("ﬁrefighter", "firefighter"), ("ＡＢＣ", "ABC")):
        assert ours.encode(text, "en_XX") == ours.encode(plain, "en_XX")


def test_where_transformers_drops_the_normalization_ours_stays_with_sentencepiece(bare, tmp_path):
    """The published models were trained on SentencePiece's NFKC-normalized pieces; MBartTokenizer
    5.x skips that."""
    ours = Tokenizer.from_pretrained(bare["mbart25"])
    ours.save_pretrained(tmp_path)
    ligature = "ﬁrefighter"
    assert ours.encode(ligature, "en_XX") == ours.encode("firefighter", "en_XX")


@pytest.mark.parametrize("text", TEXTS[:7])
def test_decode_undoes_encode_and_leaves_special_tokens_out(bare, text):
    tokenizer = Tokenizer.from_pretrained(bare["mbart25"])
    ids = [tokenizer.lang_id("es_XX"), *tokenizer.encode(text, "en_XX"), tokenizer.mask_id, 1, 1]
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("layout", ["mbart25", "mbart50"])
def test_is_text_is_true_of_pieces_alone(bare, layout):
    tokenizer = Tokenizer.from_pretrained(bare[layout])
    last = tokenizer.pieces.get_piece_size()  # SentencePiece's last number, moved by one
    tags = list(tokenizer.tag.values())
    ids = torch.tensor([[0, 1, 2, 3, 4, last], [last + 1, *tags[-2:], tokenizer.mask_id, 1, 1]])
    expected = [[False] * 4 + [True] * 2, [False] * 6]
    assert tokenizer.is_text(ids).tolist() == expected


def test_every_letter_of_french_and_german_has_a_piece_although_the_base_never_saw_them():
    tokenizer = Tokenizer.from_pretrained(ROOT / "base")
    assert 3 not in tokenizer.piece_ids("Größe Übung weiß œuvre garçon élève naïf l'été août")


def test_an_unknown_language_is_an_error_with_a_suggestion(bare):
    tokenizer = Tokenizer.from_pretrained(bare["mbart25"])
    with pytest.raises(UserError, match="did you mean tr_TR"):
        tokenizer.encode("x", "tr")
    with pytest.raises(UserError, match="unknown language 'sw_KE'"):
        tokenizer.lang_id("sw_KE")
    with pytest.raises(UserError, match=r"unknown language '\?\?\?'\. This model has: ar_AR"):
        tokenizer.lang_id("???")
    assert Tokenizer.from_pretrained(bare["mbart50"]).lang_id("sw_KE")


@pytest.mark.parametrize(
    "code, meant",
    [
        ("pt_BR", "pt_XX"),
        ("pt-br", "pt_XX"),
        ("ZH_TW", "zh_CN"),
        ("sw", "sw_KE"),
        ("esXX", "es_XX"),
        ("cz_CZ", "cs_CZ"),
        ("ua", "uk_UA"),
        ("in_IN", None),  # a country of many languages
        ("yo_NG", None),
        ("", None),
        ("_", None),
        ("sw_XX_long", "sw_KE"),
    ],
)
def test_a_code_suggests_the_same_language_alone(bare, code, meant):
    tokenizer = Tokenizer.from_pretrained(bare["mbart50"])
    with pytest.raises(UserError) as caught:
        tokenizer.lang_id(code)
    hint = f"unknown language {code!r}; did you mean {meant}? This model has: ar_AR"
    if meant is None:
        hint = f"unknown language {code!r}. This model has: ar_AR"
    assert str(caught.value).startswith(hint)


def test_a_language_that_mbart25_lacks_gets_no_suggestion(bare):
    tokenizer = Tokenizer.from_pretrained(bare["mbart25"])
    for code in ("pt_BR", "sw_XX", "uk_UA", "th_TH", "id_ID"):
        with pytest.raises(UserError, match=f"unknown language '{code}'\\. This model has"):
            tokenizer.lang_id(code)


def test_half_a_character_is_an_error_and_no_traceback(run):
    done = run("tokenizer.py", "base", "en_XX", "ab\udce9")
    assert done.returncode == 2
    assert done.stderr == "error: character 3 of a text is half of one (a lone surrogate); mend " \
        "the text\n"


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_length_that_leaves_no_room_for_text_leaves_none(bare, length):
    tokenizer = Tokenizer.from_pretrained(bare["mbart25"])
    ids = tokenizer.piece_ids(TEXTS[0])[:length - 2 if length > 2 else 0]
    assert tokenizer.encode(TEXTS[0], "en_XX", length) == [*ids, 2, tokenizer.lang_id("en_XX")]


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def test_a_git_lfs_pointer_says_what_to_run(bare, tmp_path):
    for name in ("sentencepiece.bpe.model", SOURCE_FILE):
        shutil.copy(bare["mbart25"] / "sentencepiece.bpe.model", tmp_path)
        (tmp_path / name).write_text(POINTER)
        with pytest.raises(UserError, match=f"{name}: only a Git LFS pointer.*git lfs pull"):
            Tokenizer.from_pretrained(tmp_path)


def test_tokenizer_json_alone_says_which_file_to_copy(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="model: not found; tokenizer.json alone is not read here"):
        Tokenizer.from_pretrained(tmp_path)


def test_json_files_that_hold_lists_do_not_stop_the_vocabulary(bare, tmp_path):
    shutil.copy(bare["mbart25"] / "sentencepiece.bpe.model", tmp_path)
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text('["vocab_size"]')
        assert Tokenizer.from_pretrained(tmp_path).layout == "mbart25"


def test_missing_damaged_and_unfitting_files_are_errors_that_name_them(bare, tmp_path):
    with pytest.raises(UserError, match="sentencepiece.bpe.model: not found"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"not a model")
    with pytest.raises(UserError, match="not a SentencePiece model"):
        Tokenizer.from_pretrained(tmp_path)
    learned = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a map of a town", "the town has a map"]), model_writer=learned,
        vocab_size=20, hard_vocab_limit=False, pad_id=0, unk_id=1, bos_id=2, eos_id=3,
    )  # fmt: skip
    (tmp_path / "sentencepiece.bpe.model").write_bytes(learned.getvalue())
    with pytest.raises(UserError, match="its <unk> is piece 1"):
        Tokenizer.from_pretrained(tmp_path)
    shutil.copy(bare["mbart25"] / "sentencepiece.bpe.model", tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 77}')
    with pytest.raises(UserError, match="vocab_size 77 does not fit"):
        Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json: not valid JSON"):
        Tokenizer.from_pretrained(tmp_path)


def test_the_same_sentences_and_seed_learn_the_same_vocabulary(tmp_path):
    sentences = ["the cat sat on the mat", "a dog ran to the cat"] * 50
    for name in "ab":
        train_sentencepiece(sentences, tmp_path / name, 60, "äß", 3)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_damaged_vocabulary_of_the_encoder_is_an_error_that_names_it(bare, tmp_path):
    shutil.copy(bare["mbart25"] / "sentencepiece.bpe.model", tmp_path)
    (tmp_path / SOURCE_FILE).write_bytes(b"not a model")
    with pytest.raises(UserError, match=f"{SOURCE_FILE}: not a SentencePiece model"):
        Tokenizer.from_pretrained(tmp_path)


def test_the_command_prints_the_pieces_of_the_encoders_own_vocabulary(run, bare, tmp_path):
    shutil.copy(bare["mbart25"] / "sentencepiece.bpe.model", tmp_path)
    train_sentencepiece(["the map"] * 50, tmp_path / SOURCE_FILE, 15)
    tokenizer = Tokenizer.from_pretrained(tmp_path)
    pieces = tokenizer.source.pieces.encode("the map", out_type=str)
    assert pieces != tokenizer.pieces.encode("the map", out_type=str)
    done = run("tokenizer.py", tmp_path, "en_XX", "the map")
    assert done.returncode == 0 and f"source pieces: {' '.join(pieces)}\n" in done.stdout


def test_the_command_prints_a_texts_ids_and_pieces(run):
    done = run("tokenizer.py", "base", "en_XX", "The teacher found a map.")
    assert done.returncode == 0 and "source pieces: ▁The ▁teacher" in done.stdout
    done = run("tokenizer.py", "base", "en", "The teacher found a map.")
    assert done.returncode == 2 and "did you mean en_XX" in done.stderr


def test_a_text_fills_the_length_that_it_may_have_with_a_tag_and_without():
    tokenizer = Tokenizer.from_pretrained(ROOT / "base")
    text = "The teacher found a map in the park."
    for lang in ("en_XX", None):
        whole = tokenizer.encode(text, lang)
        assert tokenizer.encode(text, lang, len(whole)) == whole
        assert len(tokenizer.encode(text, lang, len(whole) - 1)) == len(whole) - 1


def test_an_encoders_own_vocabulary_must_be_the_one_that_the_config_says(run, small, tmp_path):
    child = tmp_path / "child"
    done = run("-m", "tools.new_language", "graft", small, small, "src", child)
    assert done.returncode == 0, done.stderr
    assert Tokenizer.from_pretrained(child).source.vocab_size > 1000
    config = json.loads((child / "config.json").read_text(encoding="utf-8"))
    (child / "config.json").write_text(json.dumps(config | {"source_vocab_size": 77}))
    with pytest.raises(UserError, match="source_vocab_size 77 does not fit"):
        Tokenizer.from_pretrained(child)
    (child / "config.json").write_text(json.dumps(config))
    (child / "source.sentencepiece.bpe.model").unlink()
    with pytest.raises(UserError, match="not there"):
        Tokenizer.from_pretrained(child)
