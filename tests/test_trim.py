"""tools/trim.py: fewer pieces, the same ids' text and the same logits."""
import json
import shutil

import pytest
import torch
from conftest import ROOT

from model import MBart
from plumbing.runs import origin_of, read_settings
from tokenizer import MODEL_FILE, Tokenizer
from tools.trim import keep_pieces, trim

TEXTS = [
    "The teacher found a red map in the park.",
    "Учитель нашёл красную карту.",
    "El pintor perdió un reloj.",
]
TRIM = ("-m", "tools.trim")


@pytest.fixture
def trimmed(small, tmp_path):
    model, tokenizer = MBart.from_pretrained(small).eval(), Tokenizer.from_pretrained(small)
    with torch.no_grad():
        model.final_logits_bias.normal_()
    found = trim(model, tokenizer, TEXTS, tmp_path / "out")
    less, smaller = found.model.eval(), found.tokenizer
    smaller.save_pretrained(tmp_path / "out")
    less.save_pretrained(tmp_path / "out")
    return model, tokenizer, less, smaller, found.old_ids, tmp_path / "out"


def test_the_kept_pieces_have_identical_logits_and_texts_the_same_pieces(trimmed):
    model, tokenizer, less, smaller, old, _ = trimmed
    assert len(old) < tokenizer.vocab_size / 2
    for text in TEXTS:
        before, after = tokenizer.encode(text, "es_XX"), smaller.encode(text, "es_XX")
        assert [old[i] for i in after] == before
        assert smaller.decode(after) == tokenizer.decode(before)
        start = torch.tensor([[smaller.tag["tr_TR"], 7]])
        start_old = torch.tensor([[tokenizer.tag["tr_TR"], old[7]]])
        whole = model(torch.tensor([before]), start_old)[..., old]
        assert torch.allclose(less(torch.tensor([after]), start), whole, atol=1e-5)


def test_tags_mask_and_every_letter_survive(trimmed):
    _, tokenizer, _, smaller, old, _ = trimmed
    assert all(old[smaller.tag[code]] == tokenizer.tag[code] for code in tokenizer.languages)
    assert old[smaller.mask_id] == tokenizer.mask_id
    strange = "yklus öäü фыва"  # words that no text had: letter by letter, none unknown
    assert 3 not in tokenizer.piece_ids(strange) and 3 not in smaller.piece_ids(strange)


def test_the_folder_opens_here_and_in_transformers(trimmed):
    transformers = pytest.importorskip("transformers")
    _, _, less, smaller, _, folder = trimmed
    again = MBart.from_pretrained(folder)
    both = zip(again.state_dict().values(), less.state_dict().values())
    assert all(torch.equal(x, y) for x, y in both)
    theirs = transformers.MBartForConditionalGeneration.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)
    ids = smaller.encode(TEXTS[0], "en_XX")
    assert words(TEXTS[0])["input_ids"] == ids
    start = torch.tensor([[smaller.tag["es_XX"], 5]])
    wanted = theirs.eval()(torch.tensor([ids]), decoder_input_ids=start).logits
    assert torch.allclose(wanted, less(torch.tensor([ids]), start), atol=1e-4)


def test_all_pieces_kept_is_the_file_as_it_was():
    path = ROOT / "base" / "sentencepiece.bpe.model"
    assert keep_pieces(path, set(range(100_000))) == path.read_bytes()


@pytest.fixture
def data(tmp_path):
    """A data set of four lines a language."""
    for split in ("train", "valid", "test"):
        for lang, text in zip(("en_XX", "ru_RU"), TEXTS):
            (tmp_path / f"{split}.{lang}").write_text(f"{text}\n" * 4, encoding="utf-8")
    return f"parallel:{tmp_path}"


def test_training_can_start_trimmed_and_goes_on_trimmed(run, small, data, tmp_path):
    start, out = tmp_path / "start", tmp_path / "run"
    done = run(*TRIM, small, start, "--data", data, "--langs", "en_XX", "ru_RU")
    assert done.returncode == 0, done.stderr
    done = run("train.py", "--stage", "translate", "--data", data, "--pairs", "en_XX-ru_RU",
               "--init", start, "--steps", 4, "--tokens", 300, "--eval-every", 2, "--no-eval",
               "--device", "cpu", "--out", out, "--stop-at", 2)
    assert done.returncode == 0, done.stderr
    assert run("train.py", "--resume", out).returncode == 0
    size = MBart.from_pretrained(out).config.vocab_size
    assert size == Tokenizer.from_pretrained(out).vocab_size
    assert size < MBart.from_pretrained(small).config.vocab_size / 2


def test_the_command_trims_the_base_and_refuses_to_overwrite(run, data, tmp_path):
    out = tmp_path / "out"
    done = run(*TRIM, "base", out, "--langs", "en_XX", "ru_RU", "--data", data)
    assert done.returncode == 0 and "parameters" in done.stdout, done.stderr
    assert (out / "tokenizer.json").exists()
    # How it was trained is still known, and of which base it is.
    expected = read_settings(ROOT / "base") | {"origin": origin_of(ROOT / "base")}
    assert read_settings(out) == expected
    done = run(*TRIM, "base", out, "--langs", "en_XX", "--data", data)
    assert done.returncode == 2 and "has a model already" in done.stderr


def test_an_encoders_own_vocabulary_stays_as_it_is(run, small, data, tmp_path):
    child, out = tmp_path / "child", tmp_path / "out"
    done = run("-m", "tools.new_language", "graft", small, small, "src", child)
    assert done.returncode == 0, done.stderr
    done = run(*TRIM, child, out, "--langs", "en_XX", "ru_RU", "--data", data)
    assert done.returncode == 0, done.stderr
    before, after = Tokenizer.from_pretrained(child), Tokenizer.from_pretrained(out)
    assert after.vocab_size < before.vocab_size == after.source.vocab_size
    assert after.encode(TEXTS[2], "es_XX") == before.encode(TEXTS[2], "es_XX")
    assert MBart.from_pretrained(out).config.source_vocab_size == before.vocab_size


def test_a_tagless_run_is_still_read_as_one_when_it_is_trimmed(run, small, data, tmp_path):
    from tools.folders import write_like

    model = MBart.from_pretrained(small)
    model.drop_residual(1)
    settings = {"stage": "summarize", "tagless": True}
    write_like(small, tmp_path / "run", model.state_dict(), residual_drop_layer=1,
               settings=settings)
    done = run(*TRIM, tmp_path / "run", tmp_path / "out", "--langs", "en_XX", "--data", data)
    assert done.returncode == 0, done.stderr
    assert read_settings(tmp_path / "out") == settings | {"origin": origin_of(small)}
    assert MBart.from_pretrained(tmp_path / "out").config.residual_drop_layer == 1


def places(tmp_path):
    """Names that nothing can be written to: a file, below a file, below a link to nowhere."""
    (tmp_path / "file").write_text("what stood here", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    return [tmp_path / "file", tmp_path / "file" / "out", tmp_path / "link" / "out"]


@pytest.mark.parametrize("command", [
    ("trim", "SMALL", "OUT", "--langs", "en_XX"),
    ("start", "OUT"),
    ("new_language", "fresh", "SMALL", "OUT", "--source", "de_DE", "--pairs", "de_DE-en_XX"),
    ("new_language", "random-cross-attention", "SMALL", "OUT"),
    ("new_language", "graft", "SMALL", "SMALL", "src", "OUT"),
    ("delta", "apply", "SMALL", "a.delta", "OUT"),
    ("delta", "merge", "SMALL", "OUT", "a.delta=1"),
], ids=lambda words: "-".join(words[:2]))
def test_a_folder_that_cannot_be_is_one_line_in_every_tool(run, small, tmp_path, command):
    for place in places(tmp_path):
        words = [{"SMALL": small, "OUT": place}.get(word, word) for word in command]
        done = run("-m", f"tools.{words[0]}", *words[1:], *["--overwrite"])
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert str(place) in done.stderr
    assert (tmp_path / "file").read_text(encoding="utf-8") == "what stood here"


def test_a_file_that_cannot_be_is_one_line_in_every_tool(run, small, tmp_path):
    for place in [*places(tmp_path)[1:], tmp_path]:
        for words in (("delta", "save", small, small, place),
                      ("layers", "--model", small, "--json", place)):
            done = run("-m", f"tools.{words[0]}", *words[1:])
            assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
            assert str(place) in done.stderr


def test_every_option_that_trim_recommends_is_one_of_its_own(run, small, data, tmp_path):
    with open(tmp_path / "train.ru_RU", "ab") as file:
        file.write(b"\xff\n")
    with open(tmp_path / "train.en_XX", "ab") as file:
        file.write(b"A map.\n")
    words = (*TRIM, small, tmp_path / "out", "--langs", "en_XX", "ru_RU", "--data", data)
    done = run(*words)
    assert done.returncode == 2 and "--skip-bad-lines" in done.stderr
    done = run(*words, "--skip-bad-lines")
    assert done.returncode == 0, done.stderr
    done = run(*words, "--skip-bad-lines")
    assert done.returncode == 2 and "--overwrite" in done.stderr
    done = run(*words, "--skip-bad-lines", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert MBart.from_pretrained(tmp_path / "out").config.vocab_size


def test_tags_that_the_config_names_get_their_new_ids(run, small, data, tmp_path):
    """A checkpoint for one direction names its target's tag, as mbart-large-en-ro does."""
    folder, out = tmp_path / "folder", tmp_path / "out"
    model, tokenizer = MBart.from_pretrained(small), Tokenizer.from_pretrained(small)
    model.config.decoder_start_token_id = tokenizer.tag["ro_RO"]
    model.config.extra["forced_bos_token_id"] = tokenizer.tag["ru_RU"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    done = run(*TRIM, folder, out, "--langs", "en_XX", "ru_RU", "--data", data)
    assert done.returncode == 0, done.stderr
    smaller = Tokenizer.from_pretrained(out)
    for name in ("config.json", "generation_config.json"):
        written = json.loads((out / name).read_text(encoding="utf-8"))
        assert written["decoder_start_token_id"] == smaller.tag["ro_RO"] < smaller.vocab_size
    written = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert written["forced_bos_token_id"] == smaller.tag["ru_RU"]


def test_a_damaged_vocabulary_costs_nothing_that_stood_there(run, small, data, tmp_path):
    out, bad = tmp_path / "out", tmp_path / "bad"
    words = ("--langs", "en_XX", "ru_RU", "--data", data, "--overwrite")
    assert run(*TRIM, small, out, *words).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    shutil.copytree(small, bad)
    with open(bad / MODEL_FILE, "ab") as file:
        file.write(b"\x98\x06\x01")  # field 99, a number: SentencePiece itself reads over it
    done = run(*TRIM, bad, out, *words)
    assert done.returncode == 2 and f"{bad / MODEL_FILE}: has a field" in done.stderr, done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_texts_of_every_task_that_is_asked_for_are_read(run, small, tmp_path):
    """Of LibreOffice's help translations are paragraphs, and summaries are of sections."""
    folder = tmp_path / "help"
    for name in ("paragraphs", "sections", "descriptions"):
        (folder / name).mkdir(parents=True)
    (folder / "README.md").touch()  # the folder is finished
    row = {"source": TEXTS[0], "target": "map", "source_lang": "en_XX", "target_lang": "en_XX"}
    for split in ("train", "valid", "test"):
        (folder / "paragraphs" / f"{split}.en_XX").write_text("the desert\n", encoding="utf-8")
        for name in ("sections", "descriptions"):
            file = folder / name / f"{split}.jsonl"
            file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    tokenizer = Tokenizer.from_pretrained(small)
    translating = tmp_path / "run"
    shutil.copytree(small, translating)
    (translating / "args.json").write_text('{"stage": "translate"}', encoding="utf-8")
    mixed = tmp_path / "mixed"  # summaries, and translations beside them
    shutil.copytree(small, mixed)
    learned = ["summarize en_XX-en_XX", "translate en_XX-en_XX"]
    settings = json.dumps({"stage": "summarize", "learned": learned})
    (mixed / "args.json").write_text(settings, encoding="utf-8")
    cases = [
        (small, (), [False, True]),
        (translating, (), [True, False]),
        (mixed, (), [True, True]),
        (small, ("--stage", "translate"), [True, False]),
        (small, ("--stage", "translate", "summarize"), [True, True]),
    ]
    for number, (model, options, expected) in enumerate(cases):
        out = tmp_path / f"out {number}"
        done = run(*TRIM, model, out, "--langs", "en_XX", "--data", f"help:{folder}", *options)
        assert done.returncode == 0, done.stderr
        smaller = Tokenizer.from_pretrained(out)
        same = []
        for text in ("the desert", TEXTS[0]):
            same.append(pieces_of(smaller, text) == pieces_of(tokenizer, text))
        assert same == expected, options


def pieces_of(tokenizer, text):
    return tokenizer.pieces.encode(text, out_type=str)


@pytest.mark.parametrize("command", [
    ("trim", "OWNER/NAME", "OUT", "--langs", "en_XX"),
    ("start", "OUT", "--body", "OWNER/NAME"),
    ("start", "OUT"),
    ("new_language", "fresh", "OWNER/NAME", "OUT", "--source", "de_DE", "--pairs", "de_DE-en_XX"),
    ("layers", "--model", "OWNER/NAME"),
    ("look", "OWNER/NAME", "--text", "a map", "--lang", "en_XX", "--out", "OUT"),
], ids=lambda words: "-".join(words[:3:2]))
def test_data_that_there_cannot_be_are_refused_before_a_model_is_fetched(
    run, tmp_path, hub, command
):
    words = [{"OUT": tmp_path / "out"}.get(word, word) for word in command]
    for data in ("builtin:nonsense", "jsonl:nowhere", "jsnl:nowhere"):
        done = run("-m", f"tools.{words[0]}", *words[1:], "--data", data, cwd=tmp_path)
        assert done.returncode == 2 and "--data" in done.stderr and data in done.stderr
        assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert not hub.asked
