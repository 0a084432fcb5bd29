"""The programs on a GPU, where there is none: tests/pretended_gpu.py stands for it, and every
number must be the CPU's."""
import fcntl
import json
import os
import shutil
import subprocess

import pytest
import torch
from conftest import PATIENCE, ROOT, run_there

pytestmark = pytest.mark.slow
HERE = ROOT / "tests"


@pytest.fixture(scope="session")
def found(small, tmp_path_factory):
    """{check: what tests/on_gpu.py found}, computed once for all workers of a test run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "gpu"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "found.json").exists():
            compute(small, folder)
        return json.loads((folder / "found.json").read_text(encoding="utf-8"))


def compute(model, folder):
    """Has tests/on_gpu.py write found.json, in a process that takes a library for the driver."""
    compiler = shutil.which("c++") or pytest.skip("no C++ compiler, of which the GPU is made here")
    include = os.path.join(os.path.dirname(torch.__file__), "include")
    library = folder / "pretended_gpu.so"
    words = ["-std=c++20", "-shared", "-fPIC", f"-I{include}", str(HERE / "pretended_gpu.cpp")]
    done = subprocess.run(
        [compiler, *words, "-o", library], text=True, capture_output=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    environment = os.environ | {"PRETENDED_GPU": str(library)}
    done = run_there(HERE / "on_gpu.py", model, folder, env=environment)
    assert done.returncode == 0, done.stderr


def of(found, check):
    """What a check found; its traceback fails the test."""
    assert not isinstance(found[check], str), found[check]
    return found[check]


def test_tensors_of_both_devices_are_refused(found):
    assert found["mixing"] == "add mixes devices: cuda (3,), cpu (3,)"


CEILINGS = {  # launches, forward and backward, of a model of 2 + 2 layers
    "full+embeddings": (303, 518),  # in float32, in bf16 under autocast
    "full": (288, 503),
    "qk": (218, 305),
    "lora": (518, 739),
}


@pytest.mark.parametrize("recipe", CEILINGS)
def test_loss_and_gradients_are_the_cpus_with_one_wait_a_batch_and_few_launches(found, recipe):
    for name, tolerance, ceiling in zip(("fp32", "bf16"), (1e-5, 2e-2), CEILINGS[recipe]):
        row = of(found, "loss")[f"{recipe} {name}"]
        assert row["losses"][1] == pytest.approx(row["losses"][0], rel=tolerance / 10)
        assert row["gradients"] < tolerance
        assert sum(row["waits"].values()) <= 1, row["waits"]
        assert row["launches"] <= ceiling


def test_the_adversary_learns_and_is_fooled_as_on_the_cpu(found):
    row = of(found, "adversary")
    assert row["losses"][1] == pytest.approx(row["losses"][0], rel=1e-6)
    assert row["gradients"] < 1e-5 and row["classifier"] < 1e-6
    assert row["accuracy"][0] == pytest.approx(row["accuracy"][1], abs=0.02)
    assert sum(row["waits"].values()) <= 1, row["waits"]


def test_alignment_is_the_cpus_and_waits_for_nothing(found):
    row = of(found, "alignment")
    assert row["losses"][1] == pytest.approx(row["losses"][0], rel=1e-6)
    assert row["gradients"] < 1e-5 and not row["waits"]


def test_beam_search_writes_what_it_writes_on_the_cpu_also_under_autocast(found):
    rows = of(found, "generation")
    assert len(rows) == 3
    for name, row in rows.items():
        assert row["outputs"][0] == row["outputs"][1], name
        assert row["waits a step"] < (3 if "bf16" in name else 2), row["waits"]
        assert row["launches a step"] < (130 if "bf16" in name else 70)  # under autocast no graph


def test_most_steps_of_decoding_are_a_graph_while_texts_end_and_slots_are_swept(found):
    for layout, row in of(found, "leaving").items():
        there, here = row["outputs"]
        assert there == here and len({len(text) for text in here}) > 1, layout
        replayed = row["launches"]["graph"]
        others = row["launches"]["gelu"] // 4 - 1  # of 4 decoder layers; the encoder's come first
        assert replayed > 2 * others > 0, layout
        assert sum(row["waits"].values()) < 2 * (replayed + others), layout


def test_a_graph_of_bf16_and_lora_computes_what_its_launches_do_and_refuses_to_wait(found):
    row = of(found, "graphed")
    by_graphs, by_launches = row["outputs"]
    assert row["graphs"] > 5 and by_graphs == by_launches and any(by_graphs)
    said, results = row["refused"]
    assert said == "_local_scalar_dense within a graph: a card refuses to wait there"
    assert results == [[0, 0], [2, 2], [4, 4], [0, 0], [2, 2]]  # the last without memory to record


def test_a_test_set_is_decoded_in_large_batches_and_in_half_precision(found):
    row = of(found, "test_set")
    assert row["outputs"][0] == row["outputs"][1] and all(row["outputs"][0])
    assert len(row["in bf16"]) == 7 and all(row["in bf16"])
    assert row["logits"][0] == "torch.float32" and row["logits"][1] < 1e-5
    tokens, rows = row["batch sizes"]
    assert tokens == 48_000 and rows > 100  # of a small model, in a gigabyte


def test_three_updates_of_every_kind_are_the_cpus(found):
    for name, (there, here) in of(found, "training").items():
        tolerance = 1e-4 if name in ("fp16", "qk in bf16") else 1e-6
        assert len(there) == len(here) == 3
        for one, two in zip(there, here):
            assert two == pytest.approx(one, rel=tolerance), name


def test_an_update_waits_once_a_batch_and_once_for_its_loss(found):
    for stage, waits in of(found, "update").items():
        batches = {"translate": 2, "align": 0}[stage]  # alignment itself waits for nothing
        assert 0 < sum(waits.values()) <= batches + 1, (stage, waits)


def test_a_run_on_a_gpu_goes_on_where_it_stopped(found):
    whole, cut = of(found, "resumed")
    assert whole == cut
