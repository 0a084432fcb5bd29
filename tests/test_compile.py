"""--compile: what torch.compile makes of the layers, by a backend that only traces them."""
import csv

import pytest
import torch
from conftest import ROOT
from torch._dynamo.utils import counters

from bench import peers
from model import Config, MBart
from qk_finetune import FrozenInHalf, apply_recipe

pytestmark = pytest.mark.slow
SHAPES = [(3, 11, 7), (4, 8, 8), (1, 12, 5)]  # B, S, T
CPU = torch.device("cpu")


@pytest.fixture
def compiled():
    """compiled(model): the same with its layers compiled, by a backend that only traces them."""
    torch._dynamo.reset()
    counters.clear()

    def compile_it(model):
        model.compile_layers(backend="aot_eager")
        return model

    yield compile_it
    torch._dynamo.reset()


def drawn(recipe):
    torch.manual_seed(0)
    config = Config(
        vocab_size=90,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=40,
        dropout=0.0,
        attention_dropout=0.0,
    )
    model = MBart(config)
    apply_recipe(model.train(), recipe)
    return model


def batch_of(rows, source, target):
    """Random ids, the last row of several with padding."""
    generator = torch.Generator().manual_seed(rows * source)
    x = torch.randint(4, 80, (rows, source), generator=generator)
    y = torch.randint(4, 80, (rows, target), generator=generator)
    if rows > 1:
        x[-1, source // 2:] = 1
        y[-1, target // 2:] = 1
    return x, y, y


def additive_mask(model, source):
    """MBart.mask() as it is on a GPU: 0 at tokens and -inf at padding."""
    is_token = (source != model.config.pad_token_id)[:, None, None, :]
    mask = torch.zeros_like(is_token, dtype=torch.bfloat16)
    return mask.masked_fill_(~is_token, -torch.inf)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_run_makes_a_few_whole_graphs_and_each_computes_the_same(
    compiled, precision, monkeypatch
):
    """bf16 as on a GPU: autocast, its mask, and what is frozen in half precision by itself."""
    half = precision == "bf16"
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=half)
    tolerance = {"rtol": 2e-2, "atol": 2e-3} if half else {"rtol": 1e-3, "atol": 1e-6}
    if half:
        monkeypatch.setattr(MBart, "mask", additive_mask)
    models = (drawn("qk"), compiled(drawn("qk")))
    for model in models:
        FrozenInHalf(model, torch.bfloat16 if half else None)
    for shape in SHAPES:
        losses = []
        gradients = []
        for each in models:
            each.zero_grad()
            with autocast:
                loss = each.loss(*batch_of(*shape))
            loss.backward()
            losses.append(loss.item())
            gradients.append([p.grad for p in each.parameters() if p.grad is not None])
        assert losses[1] == pytest.approx(losses[0], rel=2e-3 if half else 1e-5)
        for one, two in zip(*gradients, strict=True):
            torch.testing.assert_close(two, one, **tolerance)
    _, model = models
    model.eval()
    for shape in SHAPES:
        x, y, _ = batch_of(*shape)
        with torch.no_grad(), autocast:
            model.loss(x, y, y)
            model.token_states(x)
            model.encode(x, upto=1)
    assert not counters["graph_break"], dict(counters["graph_break"])
    frames = counters["frames"]
    assert 0 < frames["ok"] == frames["total"], frames
    assert counters["stats"]["unique_graphs"] <= 13  # of 64


def test_a_compiled_benchmark_is_one(compiled, tmp_path, monkeypatch):
    """torch never compiles what first ran under its counter of operations."""
    tiny = peers.Shape(vocabulary=300, width=32, layers=2, heads=4, ffn=64, batch=3)
    monkeypatch.setattr(peers, "SHAPES", {"B": tiny})
    monkeypatch.setattr(peers, "rates", lambda device: peers.Rates(products=1e11, copies=1e10))
    monkeypatch.setattr(peers, "compiles", lambda device: True)
    compile_layers = MBart.compile_layers
    monkeypatch.setattr(MBart, "compile_layers", lambda model: compile_layers(model, "aot_eager"))
    row = peers.bench_train("B", "qk", 1, CPU, tmp_path)
    assert row["seconds"]["ours"]
    assert counters["frames"]["ok"] > 0


# train.py with a backend that only traces, which the option --compile does not offer.
TRACING = """
import sys
sys.path.insert(0, {root!r})
import train
from model import MBart
compile_layers = MBart.compile_layers
MBart.compile_layers = lambda model: compile_layers(model, "aot_eager")
train.main()
from torch._dynamo.utils import counters
assert counters["frames"]["ok"] > 0 and not counters["graph_break"], counters
"""


def test_two_processes_train_compiled_as_one_does_eagerly(run_process, run, small, tmp_path):
    script = tmp_path / "tracing.py"
    script.write_text(TRACING.format(root=str(ROOT)))
    words = ["--stage", "translate", "--langs", "en_XX", "es_XX", "--tokens", 300, "--init", small]
    words += ["--steps", 4, "--accumulate", 2, "--eval-every", 2, "--valid-examples", 4]
    words += ["--no-eval", "--device", "cpu"]
    two = run_process(
        "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, script, *words,
        "--compile", "--out", tmp_path / "two",
    )
    assert two.returncode == 0, two.stderr
    assert run("train.py", *words, "--out", tmp_path / "one").returncode == 0
    logs = []
    for name in ("one", "two"):
        with open(tmp_path / name / "log.csv") as file:
            logs.append([float(row["validation loss"]) for row in csv.DictReader(file)])
    assert len(logs[0]) == 2 and logs[1] == pytest.approx(logs[0], rel=1e-4)
