"""bench.gpu_check without a card: every check runs on the CPU, and one that fails or hangs is a
row."""
import json
import math
import os
import time
from pathlib import Path

import pytest
import torch
from conftest import run_there

from bench import gpu_check, on_card
from bench.on_card import NO_CARD, Check

CPU = torch.device("cpu")
NEEDS_A_CARD = (
    "machine", "calls", "loss-time", "outputs", "waits", "compiled", "real-size", "decoding"
)


def is_running(number):
    """Does a process still run? One that ended and that nobody has asked for does not."""
    try:
        status = Path(f"/proc/{number}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rsplit(")", 1)[1].split()[0] != "Z"


def ends(number, seconds=60):
    """Does a process end within so long? One that was killed takes a moment to be gone."""
    limit = time.monotonic() + seconds
    while is_running(number) and time.monotonic() < limit:
        time.sleep(0.02)
    return not is_running(number)


@pytest.mark.slow
def test_all_checks_run_on_a_cpu_and_say_what_needs_a_card(tmp_path):
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = run_there("-m", "bench.gpu_check", "--quiet", "--out", tmp_path, env=hidden)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert list(results["checks"]) == list(on_card.CHECKS) and not results["has_card"]
    for name, rows in results["checks"].items():
        without = [row for row in rows if row["found"] == NO_CARD]
        assert bool(without) == (name in NEEDS_A_CARD), name
        assert all(row["right"] is not False for row in rows)
    ways = {row["what"] for row in results["checks"]["training"]}
    assert {f"train.py, {name}" for name in on_card.WAYS} < ways
    table = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == 2 + sum(map(len, results["checks"].values()))
    assert gpu_check.page(results) == []  # BENCHMARKS.md has no table of tiny shapes
    assert "## The checks of a card" in gpu_check.page(results | {"has_card": True})


def test_a_check_that_fails_keeps_the_rows_that_it_had(tmp_path, monkeypatch):
    def fails(place):
        place.tell("first", "1", "1", True)
        raise ValueError("the card is on fire")

    monkeypatch.setitem(on_card.CHECKS, "calls", Check(fails, 60))
    first, second = gpu_check.checked("calls", CPU, tmp_path, 60)
    assert first["right"] is True
    assert second["found"] == "exit code 1: ValueError: the card is on fire"
    assert gpu_check.line("calls", second).endswith("| **no** |")


def test_a_gradient_that_is_no_number_is_wrong(tmp_path, monkeypatch):
    found = {"first": torch.ones(2), "last": torch.full((2,), math.nan)}
    monkeypatch.setattr(on_card, "gradients_of", lambda *_: (torch.ones(()), found))
    rows = gpu_check.checked("gradients", CPU, tmp_path, 60)
    wrong = [row["what"] for row in rows if row["right"] is False]
    assert len(wrong) == 8 and all(what.startswith("gradients of") for what in wrong)


def test_a_check_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    def hangs(place):
        child = on_card.begin(time.sleep, (3600,), place.scratch / "child.txt")
        place.tell("child", "", str(child.pid))
        time.sleep(3600)

    monkeypatch.setitem(on_card.CHECKS, "calls", Check(hangs, 1))
    rows = gpu_check.checked("calls", CPU, tmp_path, 5)
    assert rows[-1]["found"] == "ended at its limit of 5 s" and rows[-1]["right"] is False
    assert ends(rows[0]["found"])


def test_without_time_nothing_begins(tmp_path):
    (row,) = gpu_check.checked("calls", CPU, tmp_path, 0)
    assert row["found"] == "no time was left"


def test_a_check_that_does_not_exist_is_named(run):
    done = run("-m", "bench.gpu_check", "speed")
    assert done.returncode == 2
    assert "no check 'speed'" in done.stderr and "real-size" in done.stderr
