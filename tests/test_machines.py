"""Several machines: torchrun --nnodes 2 with train.py as it is. Here both stand on the loopback
address, each with an agent of torchrun and one process of its own."""
import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import PATIENCE, ROOT
from test_train import assert_near

import train
from bench.process import free_port
from plumbing import runs

pytestmark = pytest.mark.slow


def two_machines(*words, files):
    """Starts train.py on two machines, with the output of each in a file: their two agents."""
    port = free_port()
    torchrun = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}",
    ]  # fmt: skip
    agents = []
    for file in files:
        with open(file, "w") as opened:
            agents.append(subprocess.Popen(
                [*torchrun, "train.py", *map(str, words)], cwd=ROOT,
                stdout=opened, stderr=subprocess.STDOUT, start_new_session=True,
            ))  # fmt: skip
    return agents


def process_of(agent):
    """The id of the process that an agent has started."""
    children = open(f"/proc/{agent.pid}/task/{agent.pid}/children").read()
    return int(children.split()[0])


def wait_for(path, agents):
    """Until a file is there; fails if an agent ends before."""
    limit = time.monotonic() + PATIENCE
    while not path.exists():
        assert all(agent.poll() is None for agent in agents) and time.monotonic() < limit
        time.sleep(0.05)


def ended(agents):
    """The exit codes of the agents, which end by themselves."""
    return [agent.wait(timeout=PATIENCE) for agent in agents]


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="children are asked of /proc")
def test_two_machines_train_as_one_process_and_one_that_dies_ends_the_other(run, small, tmp_path):
    words = (
        "--stage", "translate", "--langs", "en_XX", "es_XX", "--tokens", 200, "--valid-examples", 2,
        "--no-eval", "--device", "cpu", "--init", small, "--steps", 100_000, "--eval-every", 2,
        "--accumulate", 2, "--recipe", "qk", "--dropout", 0.1,
    )
    out = tmp_path / "two"
    files = [tmp_path / "one.txt", tmp_path / "other.txt"]
    agents = two_machines(*words, "--out", out, files=files)
    try:
        wait_for(out / "state.pt", agents)
        os.kill(process_of(agents[1]), signal.SIGKILL)
        assert all(ended(agents))
        assert "SIGKILL" in files[1].read_text()
        said = files[0].read_text()
        assert "error: another process of this run has ended or cannot be reached" in said

        with open(out / "log.csv") as file:
            last = int(list(csv.reader(file))[-1][0])
        resumed = ("--resume", out, "--stop-at", last + 4)
        agents = two_machines(*resumed, files=files)
        assert ended(agents) == [0, 0], files[0].read_text() + files[1].read_text()
    finally:
        for agent in agents:
            if agent.poll() is None:
                os.killpg(agent.pid, signal.SIGKILL)
    one = tmp_path / "one"
    done = run("train.py", *words, "--out", one, "--stop-at", last + 4)
    assert done.returncode == 0, done.stderr
    assert_near(one, out, rel=1e-4)


# ------------------------------------------------------------------- what two machines must share


@pytest.fixture
def others(monkeypatch):
    """others(change): every gather() has a second process, whose value is changed so."""
    def have(change):
        monkeypatch.setattr(train, "gather", lambda mine: [mine, change(mine)])

    return have


def refused(tmp_path, resume=None):
    """The message with which a start is refused where two processes differ."""
    s = train.parse_args(["--stage", "translate", "--out", str(tmp_path / "run")])
    s.resume = resume
    with pytest.raises(train.UserError) as error:
        train.check_same_start(s, torch.nn.Linear(2, 3), {"train.jsonl": [3, 5]}, 6, world=2)
    return str(error.value)


@pytest.mark.parametrize("changed, message", [
    ({"weights": 1}, "begin with different models"),
    ({"data": []}, "--data builtin: its files are not the same"),
    ({"init": "another machine's path", "weights": 1}, "base, another machine's path; name one"),
])
def test_processes_that_begin_with_something_else_are_refused(others, tmp_path, changed, message):
    others(lambda mine: mine | changed)
    assert message in refused(tmp_path)


def test_an_option_that_differs_is_named_and_so_is_another_checkpoint(others, tmp_path):
    others(lambda mine: mine | {"options": mine["options"] | {"lr": 1.0}})
    assert "--lr is not the same in all processes: [0.002, 1.0]" in refused(tmp_path)
    others(lambda mine: mine | {"update": 9})
    message = refused(tmp_path, resume=str(tmp_path / "run"))
    assert "different checkpoints, of updates 6, 9: copy" in message


def test_equal_processes_may_keep_their_files_in_different_places(others, tmp_path):
    others(lambda mine: mine | {"init": "elsewhere/base"})
    s = train.parse_args(["--stage", "translate", "--out", str(tmp_path / "run")])
    train.check_same_start(s, torch.nn.Linear(2, 3), {"train.jsonl": [3, 5]}, 0, world=2)


def test_each_process_has_the_gpu_of_its_number_and_one_without_is_told(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    gpu = torch.device("cuda")
    assert runs.device_of_process(gpu, world=3) == torch.device("cuda:1") == chosen[0]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(train.UserError, match="process 3 .* are 2: .* --nproc-per-node 2"):
        runs.device_of_process(gpu, world=3)
    assert runs.device_of_process(torch.device("cpu"), world=3) == torch.device("cpu")
    assert len(chosen) == 1


def test_a_gpu_that_is_asked_for_is_not_replaced_by_another(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setenv("LOCAL_RANK", "0")
    second = torch.device("cuda:1")
    with pytest.raises(train.UserError, match="--device cuda:1: .* leave out the index"):
        runs.device_of_process(second, world=2)
    assert runs.device_of_process(second, world=1) == second


def test_several_processes_that_torchrun_did_not_start_are_told_what_is_missing(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for name in ("LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    message = "WORLD_SIZE is 2 .* LOCAL_RANK, MASTER_PORT not set: start .* torchrun"
    with pytest.raises(train.UserError, match=message), runs.processes():
        pass


@pytest.mark.parametrize("world", [None, "1"])
def test_a_rank_that_nobody_meant_leaves_the_one_process_whole(monkeypatch, world):
    """Of one process of rank 1 nothing would be saved."""
    monkeypatch.setenv("RANK", "1")
    if world:
        monkeypatch.setenv("WORLD_SIZE", world)
    with runs.processes() as (rank, count):
        assert (rank, count) == (0, 1)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
def test_what_is_no_number_of_processes_is_told(monkeypatch, name):
    monkeypatch.setenv(name, "first")
    with pytest.raises(train.UserError, match=f"{name} is 'first'"), runs.processes():
        pass


def test_a_process_that_is_gone_is_said_in_one_line():
    with pytest.raises(train.UserError, match=r"be reached \(Connection closed by peer\); what"):
        with runs.nobody_gone():
            raise RuntimeError("[/pair.cc:553] Connection closed by peer. This is typical.\nmore")
