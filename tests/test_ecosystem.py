"""Round trips: transformers opens what we train, we open what transformers trained, CTranslate2
converts our folder."""
import pytest
import torch
from conftest import run_here

from data import pad
from generate import generate
from model import MBart
from tokenizer import Tokenizer

pytestmark = pytest.mark.slow  # the other libraries take their time to import
transformers = pytest.importorskip("transformers")
TEXTS = [
    "The teacher found a red map in the park.",
    "The doctor sent a doll in the mountains.",
    "Nobody was hurt.",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A short run of train.py from base/."""
    out = tmp_path_factory.mktemp("trained") / "run"
    done = run_here(
        "train.py",
        "--stage", "translate",
        "--pairs", "en_XX-es_XX",
        "--steps", 30,
        "--tokens", 400,
        "--eval-every", 30,
        "--valid-examples", 4,
        "--no-eval",
        "--device", "cpu",
        "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def ours(folder, texts, lang, **options):
    model = MBart.from_pretrained(folder)
    tokenizer = Tokenizer.from_pretrained(folder)
    source = pad([tokenizer.encode(text, "en_XX") for text in texts])
    return generate(model, source, tokenizer.lang_id(lang), **options)


def theirs(folder, texts, lang, **options):
    model = transformers.MBartForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, src_lang="en_XX")
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    tag = tokenizer.convert_tokens_to_ids(lang)
    with torch.no_grad():
        rows = model.generate(
            **batch,
            decoder_start_token_id=tag,
            forced_eos_token_id=None,
            early_stopping=False,
            **options,
        )
    left_out = (model.config.eos_token_id, model.config.pad_token_id)
    return [[i for i in row[1:] if i not in left_out] for row in rows.tolist()]


def test_what_we_train_gives_the_same_ids_from_transformers_generate(trained):
    beam = ours(trained, TEXTS, "es_XX", beam=4, max_new_tokens=30)
    assert beam == theirs(trained, TEXTS, "es_XX", num_beams=4, max_new_tokens=30)
    greedy = ours(trained, TEXTS, "es_XX", beam=1, max_new_tokens=30, no_repeat_ngram=3)
    assert greedy == theirs(
        trained, TEXTS, "es_XX", num_beams=1, max_new_tokens=30, no_repeat_ngram_size=3
    )


def test_what_transformers_finetuned_opens_here_and_says_the_same(trained, tmp_path):
    model = transformers.MBartForConditionalGeneration.from_pretrained(trained)
    words = transformers.AutoTokenizer.from_pretrained(trained, src_lang="en_XX")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    batch = words(TEXTS, return_tensors="pt", padding=True)
    for _ in range(3):
        model(**batch, labels=batch["input_ids"]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    vocabulary = tmp_path / "sentencepiece.bpe.model"
    if not vocabulary.exists():  # transformers 5 writes tokenizer.json alone
        vocabulary.write_bytes((trained / vocabulary.name).read_bytes())
    here = MBart.from_pretrained(tmp_path).eval()
    start = batch["input_ids"][:, :5]
    with torch.no_grad():
        there = model.eval()(**batch, decoder_input_ids=start).logits
        assert torch.allclose(here(batch["input_ids"], start), there, atol=1e-4)
    beam = ours(tmp_path, TEXTS, "es_XX", beam=3, max_new_tokens=20)
    assert beam == theirs(tmp_path, TEXTS, "es_XX", num_beams=3, max_new_tokens=20)


def test_a_ctranslate2_conversion_of_our_folder_translates_alike(trained, tmp_path):
    ctranslate2 = pytest.importorskip("ctranslate2")
    ctranslate2.converters.TransformersConverter(str(trained)).convert(str(tmp_path / "ct2"))
    translator = ctranslate2.Translator(
        str(tmp_path / "ct2"), device="cpu", compute_type="float32", intra_threads=1
    )
    tokenizer = Tokenizer.from_pretrained(trained)
    pieces = [[*tokenizer.pieces.encode(text, out_type=str), "</s>", "en_XX"] for text in TEXTS]
    results = translator.translate_batch(
        pieces,
        target_prefix=[["es_XX"]] * len(TEXTS),
        beam_size=1,  # greedy: its beam search stops by another rule
        max_decoding_length=30,
    )
    outputs = ours(trained, TEXTS, "es_XX", beam=1, max_new_tokens=30)
    expected = [tokenizer.decode(ids) for ids in outputs]
    assert [tokenizer.pieces.decode(result.hypotheses[0]) for result in results] == expected
