"""bench.py on a tiny shape: both sides compute the same, and the page says what was measured. Nothing is timed here."""
import pytest
import torch

from bench import peers
from bench import speed as bench

TINY = (300, 32, 2, 4, 64)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(peers, "WIDTH", {"B": TINY})
    monkeypatch.setattr(peers, "ROWS", {"B": 3, "A": 3})
    monkeypatch.setattr(peers, "SENTENCES", 3)
    monkeypatch.setattr(peers, "NEW", 6)


@pytest.mark.parametrize("recipe", ["full", "qk"])
def test_a_training_row_checks_losses_and_gradients_and_has_every_figure(tiny, tmp_path, recipe):
    row = peers.bench_train("B", recipe, 2, torch.device("cpu"), tmp_path)
    assert set(row["seconds"]) == {"ours", "transformers", "transformers, default AdamW"}
    assert set(row["limit"]) == {"ours", "transformers"} and row["tokens/s"] > 0
    assert "gradients to" in row["same"] and "train" in bench.line("train-B-full", row)


def test_sides_that_differ_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "our_loss", lambda model, batch: model.loss(*batch) * 1.001)
    with pytest.raises(bench.UserError, match="do not compute the same"):
        peers.bench_train("B", "full", 1, torch.device("cpu"), tmp_path)


def test_a_decoding_row_has_our_outputs_equal_to_both_peers(tiny, tmp_path):
    row = peers.bench_decode("B", 1, torch.device("cpu"), tmp_path)
    assert row["same"].startswith("transformers 3 of 3 outputs, CTranslate2 float32 3 of 3")
    assert set(row["ratio"]) == {"transformers", "CTranslate2 float32", "CTranslate2 int8",
                                 "transformers against our int8"}


def test_memory_is_measured_in_a_process_of_its_own(tiny, tmp_path):
    peers.pair("B", tmp_path / "B", torch.device("cpu"))
    ballast = torch.ones(2**27)  # half a gigabyte of this process does not count
    assert 2**26 < peers.peak_of_a_step(tmp_path / "B" / "config.json", "qk", "2") < 2**29 < 4 * ballast.numel() + 1
    with pytest.raises(bench.UserError, match="its own process"):
        peers.peak_of_a_step(tmp_path / "nowhere", "qk", "2")


def test_the_page_keeps_rows_measured_before_and_says_what_was_not(tiny, tmp_path):
    row = peers.bench_train("B", "qk", 1, torch.device("cpu"), tmp_path)
    page = bench.page({"a CPU": {"versions": "torch", "date": "2026-01-01", "rows": {"train-B-qk": row}}})
    assert "`train-B-qk`" in page and "Not measured yet" in page
    assert "Not measured yet" not in bench.page({"NVIDIA": {"versions": "", "date": "", "rows": {}}})


def test_a_row_that_does_not_exist_is_named(run):
    done = run("-m", "bench.speed", "train-C-qk")
    assert done.returncode == 2 and "train-C-qk" in done.stderr and "decode-B" in done.stderr
