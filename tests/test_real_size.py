"""mBART-large at its real size by tensors without numbers: the operations and the memory of an
update on a GPU, as the README's section says them."""
import re
import weakref

import pytest
import torch
from conftest import ROOT
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

import model as model_file
import train
from model import Config, MBart
from qk_finetune import FrozenInHalf, add_lora, apply_recipe

pytestmark = pytest.mark.slow
GIB = 2**30
SOURCE, TARGET = 520, 40  # tokens of an example; 5 of them are 2,800


class Held(TorchDispatchMode):
    """Counts the bytes that tensors made inside hold, and the most that they held at a time."""

    def __init__(self):
        super().__init__()
        self.sizes = {}
        self.now = 0
        self.peak = 0

    def hold(self, x):
        if not isinstance(x, torch.Tensor):
            return
        storage = x.untyped_storage()
        key = storage._cdata
        if key not in self.sizes:
            self.sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.free, key)

    def free(self, key):
        self.now -= self.sizes.pop(key)

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        tree_map(self.hold, result)
        return result


def update(recipe, rows, target_length=TARGET):
    """(TFLOP of its products, GiB at most) of an update with so many examples, in bf16, as
    train.py makes it: the frozen matrices are in half precision.

    It is the second: AdamW's moments are there from the first on. Attention's own products, 0.25
    TFLOP for 2,800 tokens, are not counted."""
    # Attention without dropout: a CPU's other one keeps what the GPU's fused kernel never has.
    config = Config(attention_dropout=0.0)
    with FakeTensorMode(allow_non_fake_inputs=True), Held() as held:
        model = MBart(config)
        if recipe == "lora":
            add_lora(model)
        apply_recipe(model.train(), recipe)
        weights = [p for p in model.parameters() if p.requires_grad]
        FrozenInHalf(model, torch.bfloat16)
        optimizer = torch.optim.AdamW(weights, 1e-5, fused=True)
        source = torch.zeros(rows, SOURCE, dtype=torch.int64)
        target = torch.zeros(rows, target_length, dtype=torch.int64)
        for _ in range(2):
            with FlopCounterMode(display=False) as counter:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = model.loss(source, target, target)
                loss.backward(torch.tensor(1.0))
            optimizer.step()
            optimizer.zero_grad()
    return counter.get_total_flops() / 1e12, held.peak / GIB


@pytest.fixture
def counting(monkeypatch):
    """What a GPU does otherwise than a CPU; and without numbers nobody can count labels."""
    monkeypatch.setitem(model_file.LOGITS_BUDGET, "cpu", model_file.LOGITS_BUDGET["cuda"])
    monkeypatch.setattr(model_file, "counts", lambda label, token: (label.numel(), token.numel()))


@pytest.mark.parametrize("recipe, operations", [("qk", 2.36), ("full", 3.16), ("lora", 2.20)])
def test_an_update_of_2800_tokens_takes_what_the_readme_says(counting, recipe, operations):
    found, peak = update(recipe, rows=5)
    assert found == pytest.approx(operations, rel=0.01)
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    told = re.search(rf"Calculated \(.*?`{recipe}` (?:peaks )?at (\d+\.\d)", page, re.DOTALL)
    assert peak == pytest.approx(float(told[1]), abs=0.06)


@pytest.mark.parametrize("recipe", ["qk", "lora", "full", "full+embeddings"])
@pytest.mark.parametrize(
    "stage, rows, target_length", [("summarize", 15, TARGET), ("translate", 16, SOURCE)]
)
def test_an_update_of_8400_tokens_has_the_room_that_it_asks_for(
    counting, recipe, stage, rows, target_length
):
    """With a gigabyte or more for torch itself and what lies waste."""
    _, peak = update(recipe, rows, target_length)
    room = train.ROOM_FOR_ONE_BATCH.get(recipe, train.ROOM_AT_MOST)
    assert 1.5 < room[train.ONE_BATCH_STAGES[stage]] - peak < 4
