"""bench/ on a tiny shape: both sides compute the same on the same examples, and the page says what
was measured. Nothing is timed here."""
import json
import sys

import pytest
import torch
from conftest import ROOT

from bench import peers, speed, step, travel
from model import Config
from plumbing.files import UserError
from qk_finetune import parameters_by_recipe

TINY = peers.Shape(vocabulary=300, width=32, layers=2, heads=4, ffn=64, batch=3)
CPU = torch.device("cpu")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(peers, "SHAPES", {"A": TINY, "B": TINY})
    monkeypatch.setattr(peers, "SENTENCES", 3)
    monkeypatch.setattr(peers, "NEW_TOKENS", 6)
    for module in (peers, speed):  # their own test measures them
        monkeypatch.setattr(module, "rates", lambda device: peers.Rates(products=1e11, copies=1e10))


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    """One folder for all: a checkpoint is written once."""
    return tmp_path_factory.mktemp("bench")


@pytest.mark.parametrize("recipe", ["full", "qk"])
def test_a_training_row_checks_losses_and_gradients_and_has_every_figure(tiny, scratch, recipe):
    row = peers.bench_train("B", recipe, 2, CPU, scratch)
    assert set(row["seconds"]) == {"ours", "transformers", "transformers, default AdamW"}
    assert set(row["limit"]) == {"ours", "transformers"} and row["tokens/s"] > 0
    assert "gradients to" in row["same"] and "train" in speed.line("train-B-full", row)


@pytest.mark.parametrize("name", ["A", "B", "large"])
def test_both_sides_train_on_the_same_examples_in_as_many_updates(name):
    examples = peers.training_examples(name)
    size = peers.SHAPES[name].batch
    theirs = peers.peer_batches(examples, size)
    ours = peers.our_batches(examples, len(theirs))
    assert len(ours) == len(theirs) == peers.UPDATES
    assert {len(batch.source) for batch in theirs} == {size}

    def contents(batches):
        rows = []
        for batch in batches:
            for source, labels in zip(batch.source.tolist(), batch.labels.tolist()):
                words = [[token for token in ids if token != peers.PAD] for ids in (source, labels)]
                rows.append(words)
        return sorted(rows)

    assert contents(ours) == contents(theirs)
    for batches in (ours, theirs):  # both group by length: hardly any padding of the source is left
        padded = sum(batch.source.numel() for batch in batches)
        assert padded < 1.25 * sum(batch.source_tokens for batch in batches)


def test_a_machine_multiplies_and_copies_at_some_rate():
    measured = peers.rates(CPU)
    assert 1e8 < measured.products < 1e14
    assert 1e8 < measured.copies < 1e13


def test_sides_that_differ_are_refused(tiny, scratch, monkeypatch):
    def wrong_loss(model, batch):
        return model.loss(batch.source, batch.decoder_input, batch.labels) * 1.001

    monkeypatch.setattr(peers, "our_loss", wrong_loss)
    with pytest.raises(UserError, match="do not compute the same"):
        peers.bench_train("B", "full", 1, CPU, scratch)


def test_products_are_counted_before_the_layers_are_compiled(tiny, scratch, monkeypatch):
    """torch never compiles what first ran under its counter."""
    happened = []
    counted = peers.Training.flops

    def flops(side):
        happened.append("counted")
        return counted(side)

    monkeypatch.setattr(peers.Training, "flops", flops)
    monkeypatch.setattr(peers.MBart, "compile_layers", lambda model: happened.append("compiled"))
    monkeypatch.setattr(peers, "compiles", lambda device: True)
    peers.bench_train("B", "qk", 1, CPU, scratch)
    assert happened == ["counted", "compiled"]


def test_a_decoding_row_has_our_outputs_equal_to_both_peers(tiny, scratch):
    row = peers.bench_decode("B", 1, CPU, scratch)
    assert row["same"].startswith("transformers 3 of 3 outputs, CTranslate2 float32 3 of 3")
    assert set(row["ratio"]) == {
        "transformers",
        "CTranslate2 float32",
        "CTranslate2 int8",
        "transformers against our int8",
    }


def test_the_int8_twin_shares_its_weights_and_leaves_the_other_model_as_it_was(tiny, scratch):
    ours, _ = peers.pair("B", scratch / "B", CPU)
    twin = peers.int8_twin(ours)
    assert twin.model.shared.weight.data_ptr() == ours.model.shared.weight.data_ptr()
    source = peers.decoding_source(TINY.vocabulary)
    before = peers.by_us(ours, source, 280)
    peers.by_us(twin, source, 280)
    assert peers.by_us(ours, source, 280) == before


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(tiny, scratch):
    peers.pair("B", scratch / "B", CPU)
    ballast = torch.ones(2**28)  # a gigabyte of this process does not count
    peak = step.peak_of_a_step(scratch / "B" / "config.json", "qk", "2")
    assert 2**26 < peak < 2**30 < 4 * ballast.numel() + 1
    with pytest.raises(UserError, match="its own process"):
        step.peak_of_a_step(scratch / "nowhere", "qk", "2")


@pytest.mark.parametrize("who", ["ours", "transformers", "2"])
def test_a_step_prints_its_peak_for_every_side(tiny, scratch, run, who):
    peers.pair("A", scratch / "A", CPU)
    where = scratch / "A" / "config.json" if who == "2" else scratch / "A"
    done = run("-m", "bench.step", where, "lora" if who == "2" else "qk", who)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 2**26


def test_the_table_of_memory_counts_weights_gradients_and_moments(tmp_path, run):
    shape = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 300}
    (tmp_path / "config.json").write_text(json.dumps(shape))  # of a model folder, this is enough
    done = run("-m", "bench.memory", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert {"full", "full+embeddings", "qk", "lora"} <= set(rows)
    assert not any(recipe.startswith(("src", "tgt")) for recipe in rows)


@pytest.mark.slow
def test_the_table_of_memory_is_of_mbart_large_where_no_folder_is_named(run):
    table = run("-m", "bench.memory").stdout
    assert "full+embeddings" in table and "2.28       2.28    4.55    9.10" in table


def test_what_travels_is_every_gradient_once_and_the_page_says_so():
    config = Config(
        vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_position_embeddings=20,
    )
    for recipe, (_, trains) in parameters_by_recipe(config).items():
        if recipe in travel.COUNTED:
            size, calls = travel.bytes_of_an_update(config, recipe)
            assert size == 4 * trains and calls == 1
    page = (ROOT / "bench" / "BENCHMARKS.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(travel.page()) in page
    for recipe in ("qk", "full"):
        size, _ = travel.bytes_of_an_update(Config(), recipe)
        assert f"{size / travel.MIB:,.0f}" in readme


def test_the_page_keeps_rows_measured_before_and_says_what_was_not(tiny, scratch):
    row = peers.bench_train("B", "qk", 1, CPU, scratch)
    places = {"a CPU": {"versions": "torch", "date": "2026-01-01", "rows": {"train-B-qk": row}}}
    page = speed.page(places)
    assert "`train-B-qk`" in page and "Not measured yet" in page
    places = {"NVIDIA": {"versions": "", "date": "", "rows": {}}}
    assert "Not measured yet" not in speed.page(places)


def test_a_row_is_written_beside_those_measured_before(
    tiny, scratch, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(speed, "RESULTS", tmp_path / "results" / "bench.json")
    monkeypatch.setattr(speed, "HERE", tmp_path)
    monkeypatch.setattr(speed, "machine", lambda device: "a CPU")
    before = {"bytes": {"ours": 2**30, "transformers": 2**31}}
    places = {"a CPU": {"versions": "", "date": "", "rows": {"memory-A-qk": before}}}
    speed.RESULTS.parent.mkdir()
    speed.RESULTS.write_text(json.dumps(places))
    speed.main(["train-B-qk", "--rounds", "1", "--scratch", str(scratch), "--write"])
    page = (tmp_path / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert "| `memory-A-qk` | 1.00 GiB | 2.00 GiB, ratio 0.50 |" in page and "`train-B-qk`" in page
    printed = capsys.readouterr().out
    assert "`train-B-qk`" in printed and printed.strip() in page
    kept = json.loads(speed.RESULTS.read_text())["a CPU"]["rows"]
    assert set(kept) == {"memory-A-qk", "train-B-qk"}


def test_a_row_that_does_not_exist_is_named(run):
    done = run("-m", "bench.speed", "train-C-qk")
    assert done.returncode == 2 and "train-C-qk" in done.stderr and "decode-B" in done.stderr


@pytest.mark.parametrize("library", ["transformers", "ctranslate2"])
def test_a_missing_peer_is_named_with_the_command_that_installs_it(monkeypatch, run, library):
    monkeypatch.setitem(sys.modules, library, None)
    done = run("-m", "bench.speed", "decode-B")
    assert done.returncode == 2
    assert library in done.stderr and "README's test command" in done.stderr
