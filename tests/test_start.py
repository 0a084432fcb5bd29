"""tools/start.py: the folder that pretraining starts from."""
import json

import pytest
import torch
from conftest import ROOT

from model import MBart
from tokenizer import Tokenizer
from tools.start import DOCUMENTS
from tools.texts import lines, shares, some_of

START = ("-m", "tools.start")


@pytest.fixture(autouse=True)
def few_documents(monkeypatch):
    """A vocabulary of a few hundred pieces needs no more."""
    monkeypatch.setattr("tools.start.DOCUMENTS", 40)


def test_the_same_seed_gives_the_same_folder_and_another_seed_another(run, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        done = run(*START, tmp_path / name, "--pieces", 600, "--seed", seed)
        assert done.returncode == 0 and "--stage pretrain --init" in done.stdout, done.stderr
    a, b, c = (MBart.from_pretrained(tmp_path / name) for name in "abc")
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))
    name = "model.encoder.layers.0.fc1.weight"
    assert not torch.equal(a.get_parameter(name), c.get_parameter(name))
    files = [(tmp_path / name / "sentencepiece.bpe.model").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]
    assert Tokenizer.from_pretrained(tmp_path / "a").vocab_size == a.config.vocab_size <= 600 + 27
    done = run(*START, tmp_path / "a")
    assert done.returncode == 2 and "has a model already" in done.stderr


def test_what_is_begun_without_options_has_the_shape_of_base(run, tmp_path):
    done = run(*START, tmp_path / "start")
    assert done.returncode == 0, done.stderr
    begun = json.loads((tmp_path / "start" / "config.json").read_text())
    committed = json.loads((ROOT / "base" / "config.json").read_text())
    for name in ("vocab_size", "dropout", "attention_dropout"):  # which training sets
        begun.pop(name)
        committed.pop(name)
    assert begun == committed


def test_tags_start_nearly_alike_and_letters_of_later_languages_have_pieces(run, tmp_path):
    assert run(*START, tmp_path / "start", "--pieces", 600).returncode == 0
    model = MBart.from_pretrained(tmp_path / "start")
    tokenizer = Tokenizer.from_pretrained(tmp_path / "start")
    tags = model.model.shared.weight[list(tokenizer.tag.values())]
    others = model.model.shared.weight[100:126]
    alike = torch.nn.functional.cosine_similarity
    assert alike(tags[1:], tags[:1]).min() > 0.9 > alike(others[1:], others[:1]).max()
    assert 3 not in tokenizer.piece_ids("Äpfel für François")


def test_pretraining_starts_from_it_with_a_vocabulary_of_ones_own_texts(run, tmp_path):
    texts = {"en_XX": "The teacher found a map. ", "tr_TR": "Öğretmen bir harita buldu. "}
    for split in ("train", "valid"):
        for lang, text in texts.items():
            (tmp_path / f"{split}.{lang}").write_text(f"{text}\n" * 20, encoding="utf-8")
    (tmp_path / "test.en_XX").write_text("A map.\n", encoding="utf-8")
    (tmp_path / "test.tr_TR").write_text("Bir harita.\n", encoding="utf-8")
    data = ("--data", f"parallel:{tmp_path}", "--langs", "en_XX", "tr_TR")
    done = run(*START, tmp_path / "start", *data, "--pieces", 200)
    assert done.returncode == 0, done.stderr
    told = f"--data parallel:{tmp_path} --preset small --langs en_XX tr_TR"
    assert done.stdout.splitlines()[-1].endswith(told)
    assert 3 not in Tokenizer.from_pretrained(tmp_path / "start").piece_ids("Öğretmen bir map")
    done = run("train.py", "--stage", "pretrain", "--init", tmp_path / "start", *data, "--steps", 2,
               "--tokens", 200, "--no-eval", "--device", "cpu", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr


def test_what_has_no_effect_is_said_and_what_is_typed_twice_counts_once(run, tmp_path):
    done = run(*START, tmp_path / "start", "--pieces", 600, "--temperature", 9, "--skip-bad-lines",
               "--langs", "en_XX", "en_XX")
    assert done.returncode == 0, done.stderr
    for name in ("--temperature", "--skip-bad-lines"):
        assert f"{name} has no effect with the built-in corpus" in done.stderr
    assert done.stdout.splitlines()[-1].endswith(" --langs en_XX")
    done = run(*START, tmp_path / "more", "--pieces", 10**13)
    assert done.returncode == 2 and "--pieces: must be less than 2147483648" in done.stderr


WORDS = {
    "en_XX": "teacher map park",
    "es_XX": "pintor reloj señal",
    "tr_TR": "öğretmen harita ışık",
    "ru_RU": "учитель карта ёлка",
}


def sorted_data(folder, counts):
    """A data set that has one language after the other, `counts` texts of each."""
    for split in ("train", "valid", "test"):
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as file:
            for lang, count in counts.items():
                for number in range(count):
                    text = f"{WORDS[lang]} {number} {WORDS[lang]}."
                    row = {"source": text, "target": WORDS[lang], "source_lang": lang,
                           "target_lang": lang}
                    file.write(json.dumps(row) + "\n")
    return f"jsonl:{folder}"


def test_every_language_of_sorted_data_gets_pieces_however_small_it_is(
    run, tmp_path, monkeypatch
):
    monkeypatch.setattr("tools.start.TEXTS", 400)
    data = sorted_data(tmp_path, {"en_XX": 1500, "es_XX": 300, "tr_TR": 60, "ru_RU": 20})
    done = run(*START, tmp_path / "start", "--data", data, "--langs", *WORDS, "fr_XX",
               "--pieces", 300)
    assert done.returncode == 0, done.stderr
    assert "ru_RU: 20 of 20 texts" in done.stdout
    assert "no training text in fr_XX" in done.stderr
    tokenizer = Tokenizer.from_pretrained(tmp_path / "start")
    for text in WORDS.values():
        assert 3 not in tokenizer.piece_ids(text), text


def test_shares_follow_the_temperature_and_what_a_language_lacks_others_get():
    sizes = {"a": 10_000, "b": 100, "c": 0}
    assert shares(sizes, 101, 1.0) == {"a": 100, "b": 1}
    assert shares(sizes, 110, 2.0) == {"a": 100, "b": 10}
    assert shares(sizes, 1000, 1e9) == {"a": 900, "b": 100}
    assert shares(sizes, 10**6, 3.0) == {"a": 10_000, "b": 100}
    chosen = some_of(10_000, 100, 0)
    assert len(set(chosen)) == 100 and chosen == sorted(chosen)
    assert chosen[0] < 1000 and chosen[-1] >= 9000  # from all over the data


def test_long_texts_are_read_too(run, tmp_path):
    text = "Öğretmen harita buldu. " * 400
    assert "".join(lines(text.strip())).replace(" ", "") == text.replace(" ", "")
    assert max(len(line.encode()) for line in lines("漢字" * 3000)) < 4192
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.tr_TR").write_text(f"{text}\n" * 3, encoding="utf-8")
    done = run(*START, tmp_path / "start", "--data", f"parallel:{tmp_path}", "--langs", "tr_TR",
               "--pieces", 150)
    assert done.returncode == 0, done.stderr
    assert 3 not in Tokenizer.from_pretrained(tmp_path / "start").piece_ids("Öğretmen harita")


def test_letters_without_a_piece_are_told(run, tmp_path):
    for split in ("train", "valid", "test"):
        text = "The teacher found a map in the park.\n" * 300 + "The ☃ teacher.\n"
        (tmp_path / f"{split}.en_XX").write_text(text, encoding="utf-8")
    words = ("--data", f"parallel:{tmp_path}", "--langs", "en_XX", "--pieces", 150)
    done = run(*START, tmp_path / "start", *words)
    assert done.returncode == 0 and "have no piece" in done.stderr and "☃" in done.stderr
    done = run(*START, tmp_path / "all", *words, "--character-coverage", 1)
    assert done.returncode == 0 and "have no piece" not in done.stderr
    assert 3 not in Tokenizer.from_pretrained(tmp_path / "all").piece_ids("☃")
    done = run(*START, tmp_path / "none", *words, "--character-coverage", 0.5)
    assert done.returncode == 2 and "0.98 to 1" in done.stderr


def test_too_few_pieces_for_the_letters_is_said_in_one_line(run, tmp_path):
    text = "".join(chr(0x4E00 + number) for number in range(900))
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.zh_CN").write_text(f"{text}\n", encoding="utf-8")
    done = run(*START, tmp_path / "start", "--data", f"parallel:{tmp_path}", "--langs", "zh_CN",
               "--pieces", 200)
    assert done.returncode == 2 and "200 pieces are too few" in done.stderr
    assert not (tmp_path / "start").exists()
    assert run(*START, tmp_path / "start", "--pieces", 600).returncode == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "start").iterdir()}
    done = run(*START, tmp_path / "start", "--data", f"parallel:{tmp_path}", "--langs", "zh_CN",
               "--pieces", 200, "--overwrite")
    assert done.returncode == 2 and "200 pieces are too few" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "start").iterdir()} == before


def test_the_shape_is_the_one_asked_for(run, tmp_path):
    words = ("--pieces", 600, "--d-model", 48, "--layers", 2, 1, "--heads", 3, "--ffn", 80,
             "--positions", 64)
    done = run(*START, tmp_path / "start", *words)
    assert done.returncode == 0, done.stderr
    config = MBart.from_pretrained(tmp_path / "start").config
    assert (config.d_model, config.encoder_layers, config.decoder_layers) == (48, 2, 1)
    assert config.encoder_attention_heads == config.decoder_attention_heads == 3
    assert config.encoder_ffn_dim == config.decoder_ffn_dim == 80
    assert config.max_position_embeddings == 64
    done = run(*START, tmp_path / "no", "--d-model", 50, "--heads", 4)
    assert done.returncode == 2 and "not a multiple" in done.stderr
    assert not (tmp_path / "no").exists()


def test_mbart_large_is_a_shape_with_a_name():
    from tools.start import make_parser, shape_of

    args = make_parser().parse_args(["out", "--shape", "mbart-large"])
    large = json.loads(json.dumps(shape_of(args)))
    assert large == {}  # Config's own
    args = make_parser().parse_args(["out", "--shape", "mbart-large", "--layers", "6", "3"])
    shape = shape_of(args)
    assert shape == {"encoder_layers": 6, "decoder_layers": 3}


def test_a_body_keeps_all_but_its_vocabulary(run, small, tmp_path):
    model = MBart.from_pretrained(small)
    model.drop_residual(1)
    with torch.no_grad():
        model.final_logits_bias.add_(1.0)
    model.save_pretrained(tmp_path / "body")
    Tokenizer.from_pretrained(small).save_pretrained(tmp_path / "body")
    done = run(*START, tmp_path / "start", "--body", tmp_path / "body", "--pieces", 600)
    assert done.returncode == 0, done.stderr
    found, body = (MBart.from_pretrained(tmp_path / name) for name in ("start", "body"))
    tokenizer = Tokenizer.from_pretrained(tmp_path / "start")
    assert found.config.vocab_size == tokenizer.vocab_size <= 627
    assert found.config.residual_drop_layer == 1
    new = {"model.shared.weight", "final_logits_bias"}
    state = found.state_dict()
    for name, tensor in body.state_dict().items():
        assert name in new or torch.equal(state[name], tensor), name
    assert not state["final_logits_bias"].any()
    for option in (("--d-model", 64), ("--shape", "small"), ("--layers", 1, 1)):
        done = run(*START, tmp_path / "no", "--body", small, *option)
        assert done.returncode == 2 and "a shape of its own" in done.stderr
    done = run(*START, tmp_path / "body", "--body", tmp_path / "body", "--overwrite")
    assert done.returncode == 2 and "made from" in done.stderr


def test_tags_that_a_bodys_config_names_get_their_new_ids(run, small, tmp_path):
    model, old = MBart.from_pretrained(small), Tokenizer.from_pretrained(small)
    model.config.decoder_start_token_id = old.tag["ro_RO"]
    model.config.extra["forced_bos_token_id"] = old.tag["ru_RU"]
    model.save_pretrained(tmp_path / "body")
    old.save_pretrained(tmp_path / "body")
    done = run(*START, tmp_path / "start", "--body", tmp_path / "body", "--pieces", 600)
    assert done.returncode == 0, done.stderr
    tokenizer = Tokenizer.from_pretrained(tmp_path / "start")
    written = json.loads((tmp_path / "start" / "config.json").read_text(encoding="utf-8"))
    assert written["decoder_start_token_id"] == tokenizer.tag["ro_RO"] < written["vocab_size"]
    assert written["forced_bos_token_id"] == tokenizer.tag["ru_RU"] < old.tag["ru_RU"]


@pytest.mark.slow
def test_the_folder_of_the_built_in_corpus_is_the_one_that_the_base_began_with(
    run, tmp_path, monkeypatch
):
    """Piece by piece: another version of SentencePiece may write the same ones in other bytes."""
    monkeypatch.setattr("tools.start.DOCUMENTS", DOCUMENTS)
    assert run(*START, tmp_path / "start").returncode == 0
    ours, theirs = (
        Tokenizer.from_pretrained(folder).pieces for folder in (ROOT / "base", tmp_path / "start")
    )
    ids = range(ours.get_piece_size())
    assert [ours.id_to_piece(i) for i in ids] == [theirs.id_to_piece(i) for i in ids]
    scores = [theirs.get_score(i) for i in ids]
    assert scores == pytest.approx([ours.get_score(i) for i in ids], abs=1e-3)


def test_files_of_ones_own_stay_in_a_folder_that_is_written_anew(run, tmp_path):
    out = tmp_path / "start"
    (out / "tokenizer").mkdir(parents=True)
    for name in ("tokenizer.py", "tokenizer_notes.md", "sentencepiece.txt"):
        (out / name).write_text("mine")
    (out / "tokenizer.json").write_text("{}")
    done = run(*START, out, "--pieces", 600, "--overwrite")
    assert done.returncode == 0, done.stderr
    for name in ("tokenizer.py", "tokenizer_notes.md", "sentencepiece.txt"):
        assert (out / name).read_text() == "mine"
    assert (out / "tokenizer").is_dir()


def test_data_that_cannot_be_read_cost_nothing_that_stood_there(run, tmp_path):
    start = tmp_path / "start"
    assert run(*START, start, "--pieces", 600).returncode == 0
    data = sorted_data(tmp_path, {"en_XX": 3})
    for words in (("--data", data, "--langs", "xx_YY"), ("--data", data, "--langs", "fr_XX"),
                  ("--data", "jsonl:nowhere")):
        done = run(*START, start, "--overwrite", *words)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert MBart.from_pretrained(start) and Tokenizer.from_pretrained(start)
