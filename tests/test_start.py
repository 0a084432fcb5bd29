"""tools/start.py: the folder that pretraining starts from."""
import pytest
import torch

from model import MBart
from tokenizer import Tokenizer

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
    assert 3 not in Tokenizer.from_pretrained(tmp_path / "start").piece_ids("Öğretmen bir map")
    done = run("train.py", "--stage", "pretrain", "--init", tmp_path / "start", *data, "--steps", 2,
               "--tokens", 200, "--no-eval", "--device", "cpu", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
