"""bench.gpu_check without a card: every check runs on the CPU, and one that fails or hangs is a
row."""
import json
import math
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from conftest import PATIENCE, run_there
from torch.autograd import DeviceType

from bench import gpu_check, on_card
from bench.on_card import NO_CARD, Check

CPU = torch.device("cpu")
NEEDS_A_CARD = (
    "machine", "calls", "loss-time", "outputs", "waits", "compiled", "real-size", "decoding",
    "decoding-step",
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
    *ended, same = results["checks"]["two-processes"]
    assert len(ended) == 3 and all(row["right"] for row in ended)
    assert same["what"] == "losses of two processes against one" and same["right"]
    sides = [row["what"].rsplit(", ")[-1] for row in results["checks"]["loss-time"]]
    assert "torch's linear_cross_entropy" in sides
    table = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == 2 + sum(map(len, results["checks"].values()))
    assert gpu_check.page(results) == []  # BENCHMARKS.md has no table of tiny shapes
    assert "## The checks of a card: no card" in gpu_check.page(results | {"has_card": True})


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


def test_one_of_two_processes_that_fails_is_a_row_and_no_losses_are_compared(tmp_path, monkeypatch):
    def started(words):
        if os.environ.get("RANK") == "1":
            raise ValueError("the card is full")

    monkeypatch.setattr(on_card.train, "main", started)
    rows = gpu_check.checked("two-processes", CPU, tmp_path, 60)
    assert [row["right"] for row in rows] == [True, True, False]
    assert rows[2]["found"] == "exit code 1: ValueError: the card is full"


def test_a_kernel_is_counted_once_though_the_call_that_launched_it_has_its_time_too(
    tmp_path, monkeypatch
):
    class Events(list):
        def table(self, **_):
            return "a table"

    def event(kind, **others):
        figures = {"self_device_time_total": 1000.0, "count": 3, "is_user_annotation": False}
        return SimpleNamespace(device_type=kind, **figures | others)

    events = Events([
        event(DeviceType.CPU), event(DeviceType.CUDA),
        event(DeviceType.CUDA, is_user_annotation=True),
    ])  # fmt: skip
    profile = MagicMock()
    profile.return_value.__enter__.return_value.key_averages.return_value = events
    monkeypatch.setattr(torch.profiler, "profile", profile)
    found = on_card.kernels_of(lambda: None, tmp_path / "profile.txt")
    assert (found.milliseconds, found.count) == (1.0, 3)
    assert (tmp_path / "profile.txt").read_text(encoding="utf-8") == "a table"


def test_logs_of_unlike_length_are_no_distance_apart():
    assert on_card.away_from([(1.0, 2.0)], [(1.0, 2.5)]) == pytest.approx(0.2)
    assert math.isnan(on_card.away_from([(1.0, 2.0)], []))


def hangs(place):
    """A check that starts a process, says which, and never ends."""
    child = on_card.begin(time.sleep, (3600,), place.scratch / "child.txt")
    place.tell("child", "", str(child.pid))
    time.sleep(3600)


def hanging(folder):
    """(that check's process, the number of the process that it has started)."""
    place = on_card.Place(CPU, folder, folder / "rows.jsonl")
    check = on_card.begin(hangs, (place,), folder / "log.txt", leads=True)
    limit = time.monotonic() + PATIENCE
    while not place.rows.exists() or not place.rows.read_text():
        assert time.monotonic() < limit
        time.sleep(0.01)
    return check, json.loads(place.rows.read_text())["found"]


def test_a_check_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    check, started = hanging(tmp_path)
    said = on_card.finish(check, 0, tmp_path / "log.txt", leads=True)
    assert said == "ended at its limit of 0 s" and ends(started)
    monkeypatch.setitem(on_card.CHECKS, "calls", Check(hangs, 1))
    rows = gpu_check.checked("calls", CPU, tmp_path, 1)
    assert rows[-1]["found"] == "ended at its limit of 1 s" and rows[-1]["right"] is False


def test_ctrl_c_ends_a_check_with_all_that_it_started(tmp_path, monkeypatch):
    child, started = hanging(tmp_path)
    join = child.join

    def interrupted(seconds=None):
        if seconds is not None:  # waiting for the check, not for its end
            raise KeyboardInterrupt
        join()

    monkeypatch.setattr(child, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        on_card.finish(child, 3600, tmp_path / "log.txt", leads=True)
    assert child.exitcode == -signal.SIGKILL and ends(started)


def test_without_time_nothing_begins(tmp_path):
    (row,) = gpu_check.checked("calls", CPU, tmp_path, 0)
    assert row["found"] == "no time was left"


def checks_in(folder):
    return json.loads((folder / "gpu_check.json").read_text(encoding="utf-8"))["checks"]


def test_a_run_folder_that_is_called_like_a_check_stays_whole(tmp_path, run):
    for name in ("machine", "calls"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").touch()
    assert run("-m", "bench.gpu_check", "calls", "--out", tmp_path).returncode == 0
    for name in ("machine", "calls"):
        assert (tmp_path / name / "model.safetensors").exists()


def test_checks_are_added_to_those_that_were_run_before(tmp_path, run):
    assert run("-m", "bench.gpu_check", "losses", "--out", tmp_path).returncode == 0
    before = checks_in(tmp_path)
    before["losses"][0]["right"] = False  # an earlier run's: no fault of the next one
    kept = {"has_card": False, "checks": before, "date": "2026-01-01"}  # as it once was written
    (tmp_path / "gpu_check.json").write_text(json.dumps(kept))
    done = run("-m", "bench.gpu_check", "calls", "--out", tmp_path)
    assert done.returncode == 0 and "0 rows are wrong" in done.stdout
    assert list(checks_in(tmp_path)) == ["machine", "losses", "calls"]
    assert checks_in(tmp_path)["losses"] == before["losses"]
    table = (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
    assert "- `losses`: 2026-01-01\n" in table and "`loss-time`, `gradients`" in table


@pytest.fixture
def card(monkeypatch, tmp_path):
    """A card, as far as bench.gpu_check looks in its own process; the results of it, in part."""
    def machine(place):
        place.tell("GPU", "any", "NVIDIA H100")

    monkeypatch.setitem(on_card.CHECKS, "machine", Check(machine, 60))
    monkeypatch.setitem(on_card.CHECKS, "calls", Check(lambda place: None, 60))
    monkeypatch.setattr(gpu_check, "is_card_there", lambda: True)
    monkeypatch.setattr(gpu_check, "RESULTS", tmp_path)
    return tmp_path


def test_some_checks_of_a_card_do_not_replace_the_table_of_all(card, run, capsys):
    assert run("-m", "bench.gpu_check", "calls", "--out", card).returncode == 0
    assert set(checks_in(card)) == {"machine", "calls"}
    assert gpu_check.kept() == gpu_check.read_results(gpu_check.HERE)
    assert "bench.gpu_check losses loss-time" in capsys.readouterr().err
    whole = gpu_check.read_results(card)
    whole["checks"] |= {name: [] for name in on_card.CHECKS}
    (card / "gpu_check.json").write_text(json.dumps(whole))
    assert gpu_check.kept() == whole


def test_results_of_two_machines_are_not_mixed(card, run, monkeypatch):
    rows = [{"what": "GPU", "expected": "any", "found": "NVIDIA H200", "right": None}]
    kept = {"has_card": True, "checks": {"machine": rows, "losses": []}, "date": "2026-01-01"}
    (card / "gpu_check.json").write_text(json.dumps(kept))
    done = run("-m", "bench.gpu_check", "calls", "--out", card)
    assert done.returncode == 2 and "NVIDIA H200, and this is NVIDIA H100" in done.stderr
    monkeypatch.setattr(gpu_check, "is_card_there", lambda: False)
    done = run("-m", "bench.gpu_check", "calls", "--out", card)
    assert done.returncode == 2 and "is of a card" in done.stderr
    assert checks_in(card) == kept["checks"]


def test_the_page_says_of_which_version_its_checks_are_and_what_todays_have_besides():
    kept = gpu_check.read_results(gpu_check.HERE)
    kept["measured"]["training"] = "2026-01-01, with an earlier version"
    del kept["checks"]["decoding-step"]
    rows = kept["checks"]["training"]
    kept["checks"]["training"] = [row for row in rows if "new source" not in row["what"]]
    page = "\n".join(gpu_check.page(kept))
    assert "- `training`: 2026-01-01, with an earlier version" in page
    assert "`decoding-step`, `train.py, a new source`" in page
    assert "## The checks of a card: NVIDIA H200" in page and "spread is not kept" in page


def test_a_check_that_does_not_exist_is_named(run):
    done = run("-m", "bench.gpu_check", "speed")
    assert done.returncode == 2
    assert "no check 'speed'" in done.stderr and "real-size" in done.stderr
