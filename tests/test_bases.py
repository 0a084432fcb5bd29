"""papers/bases.py: what a base can do before it is finetuned."""
import json

import pytest
import torch
import torch.nn.functional as F

from corpora.builtin import Builtin
from corpora.facts import Corpus
from data import Examples
from model import MBart
from papers import bases
from tokenizer import Tokenizer
from tools.layers import Texts, measure_layers

LANGUAGES = ["en_XX", "es_XX"]


@pytest.fixture(scope="module")
def corpus():
    return Corpus(LANGUAGES)


def translator(corpus, told=1000):
    """A decoding function that knows the translation of every sentence of the first validation
    documents, and loses the end of a sentence of more than `told` words."""
    known = {}
    for index in range(20):
        document = corpus.document(index, "valid")
        for source in LANGUAGES:
            for target in LANGUAGES:
                sentences = corpus.sentences(document, source)
                known[source, target] = known.get((source, target), {})
                known[source, target].update(zip(sentences, corpus.sentences(document, target)))

    def write(texts, source, target):
        outputs = [known[source, target][text] for text in texts]
        return [" ".join(output.split()[:told]) for output in outputs]

    return write


def test_a_model_that_copies_every_sentence_copies_every_document(corpus):
    assert bases.copying(translator(corpus), "es_XX", 8) == {"R1": 100, "exact": 100}


def test_a_document_of_which_one_sentence_loses_its_end_is_not_copied(corpus):
    """Worked out here: of n words k are left, so the precision is 1 and the recall k / n."""
    write = translator(corpus, told=11)
    exact = 0
    scores = []
    for index in range(8):
        sentences = corpus.sentences(corpus.document(index, "valid"), "en_XX")
        lengths = [len(sentence.split()) for sentence in sentences]
        left = sum(min(11, length) for length in lengths)
        exact += left == sum(lengths)
        scores.append(200 * left / (left + sum(lengths)))
    assert 0 < exact < 8
    found = bases.copying(write, "en_XX", 8)
    assert found["exact"] == 100 * exact / 8
    assert found["R1"] == pytest.approx(sum(scores) / 8, abs=0.5)  # a word may have a hyphen


def test_a_translator_tells_all_facts_on_target_and_a_copier_none(corpus):
    pair = ("es_XX", "en_XX")
    found = bases.translation(translator(corpus), pair, 12)
    assert found == {"off-target": 0, "facts": 100}
    found = bases.translation(lambda texts, source, target: texts, pair, 12)
    assert found["off-target"] == 100 and found["facts"] < 5


def test_the_denoising_loss_is_the_mean_over_label_tokens_of_one_languages_documents(small):
    model = MBart.from_pretrained(small).eval()
    tokenizer = Tokenizer.from_pretrained(small)

    class Turkish:
        """The data set as it should be: whole documents, nothing mixed in."""

        sizes = {("tr_TR", "tr_TR"): None}

        def text(self, pair, index):
            corpus = Corpus(["tr_TR"])
            text = "\n".join(corpus.sentences(corpus.document(index, "valid"), "tr_TR"))
            return text, text

    examples = Examples(Turkish(), tokenizer, "pretrain", max_length=256)
    total = 0.0
    tokens = 0
    for index in range(5):
        example = examples(("tr_TR", "tr_TR"), index)
        source = torch.tensor([example.source])
        with torch.no_grad():
            states = model.decode(
                torch.tensor([example.decoder_input]), model.encode(source), source
            )
            logits = states @ model.model.shared.weight.T + model.final_logits_bias
        labels = torch.tensor(example.labels)
        total += F.cross_entropy(logits[0], labels, reduction="sum").item()
        tokens += len(labels)
    found = bases.denoising_loss(model, tokenizer, "tr_TR", 5)
    assert found == pytest.approx(total / tokens, rel=1e-4)
    assert found != pytest.approx(bases.denoising_loss(model, tokenizer, "en_XX", 5), rel=1e-4)


class ValidationTexts(Texts):
    """What tools.layers measures, of the built-in corpus's validation split."""

    def examples(self, split, pairs):
        assert split == "test"
        return super().examples("valid", pairs)


@pytest.mark.slow
def test_retrieval_is_the_mean_over_pairs_of_what_tools_layers_finds(small):
    languages = ["en_XX", "es_XX", "tr_TR"]
    model = MBart.from_pretrained(small)
    tokenizer = Tokenizer.from_pretrained(small)
    texts = ValidationTexts("builtin", "summarize", languages, tokenizer, True, 256)
    layers = measure_layers(model, texts, ["retrieval"])["encoder"]
    found = bases.retrieval(small, languages, "cpu")
    wanted = [100 * sum(layer["retrieval"].values()) / 3 for layer in layers]
    assert found == pytest.approx(wanted) and len(found) == 3  # the embedding and two layers


def test_the_command_writes_a_table_and_the_same_numbers_for_each_folder(run, small, tmp_path):
    file = tmp_path / "bases.json"
    few = ("--copied", 2, "--denoised", 3, "--translated", 2, "--langs", "en_XX")
    done = run("-m", "papers.bases", small, small, *few, "--json", file)
    assert done.returncode == 0, done.stderr
    reports = json.loads(file.read_text())
    assert len(reports) == 2 and reports[0] == reports[1]
    assert reports[0]["model"] == str(small)
    assert reports[0]["retrieval"] == []  # of one language there is none
    english = reports[0]["languages"]["en_XX"]
    assert f"{english['loss']:.3f}" in done.stdout
    assert english["exact"] == 0 and english["R1"] < 20  # its weights are random
    assert set(reports[0]["translation"]) == {"es_XX-en_XX"}
    assert done.stdout.count("what it can do before finetuning") == 2
    assert "validation documents: 2 a language copied, 3 masked, 2 a pair translated" in done.stdout


@pytest.mark.parametrize("words, said", [
    (("--langs", "it_XX"), "it_XX"),
    (("--langs", "it_IT"), "has no 'it_IT'"),
    (("--pairs", "es_XX"), "en_XX-es_XX"),
    (("--pairs", "es_XX-xx_XX"), "xx_XX"),
])
def test_a_language_that_is_not_there_is_a_mistake_that_is_named(run, small, words, said):
    done = run("-m", "papers.bases", small, *words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_base_is_measured_on_the_documents_that_headlines_are_validated_on(
    small, tmp_path, monkeypatch
):
    """By every measure: who chooses a base by them has seen nothing of the test set."""
    own = ("en_XX", "en_XX")
    news = Builtin("summarize", "valid", [own])
    text, _ = bases.Documents("en_XX").text(own, 3)
    assert text.replace("\n", " ") == news.text(own, 3)[0]

    splits = set()
    whole = Corpus.document

    def document(corpus, index, split, *seed):
        splits.add(split)
        return whole(corpus, index, split, *seed)

    monkeypatch.setattr(Corpus, "document", document)
    model = MBart.from_pretrained(small)
    bases.copying(lambda texts, source, target: texts, "en_XX", 2)
    bases.denoising_loss(model, Tokenizer.from_pretrained(small), "en_XX", 2)
    bases.translation(lambda texts, source, target: texts, ("es_XX", "en_XX"), 2)
    bases.write_parallel(tmp_path, LANGUAGES)
    assert splits == {"valid"}
