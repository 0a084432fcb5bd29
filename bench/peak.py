"""How much memory does an update of mBART-large take on a GPU? Calculated, so that none is needed.

    python -m bench.peak        GiB by recipe and by tokens of an update

Counted are the bytes of all tensors that are there at a time, of tensors without numbers that go
through the same update as train.py's on a GPU: in bf16, the frozen matrices in half precision,
attention as the fused kernel has it, one batch an update. What torch itself takes, and what lies
waste between tensors, comes on top.
"""
import weakref
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import model as model_file
from bench.on_card import SOURCE, TARGET
from bench.peers import TABLE_RECIPES, trained_by
from bench.process import GIB
from model import Config, MBart
from plumbing.files import parser_of, run
from plumbing.progress import progress_line
from qk_finetune import FrozenInHalf

ROWS = (5, 15)  # examples of an update


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


@contextmanager
def as_on_a_gpu():
    """Inside, the loss is cut into a GPU's chunks, and every place counts as a label: nobody can
    count the labels of tensors without numbers."""
    budgets = model_file.LOGITS_BUDGET
    counting = model_file.count_labels_and_tokens
    model_file.LOGITS_BUDGET = budgets | {"cpu": budgets["cuda"]}
    model_file.count_labels_and_tokens = count_places
    try:
        yield
    finally:
        model_file.LOGITS_BUDGET = budgets
        model_file.count_labels_and_tokens = counting


def count_places(is_label, is_token):
    return is_label.numel(), is_token.numel()


def peak_of_an_update(recipe, rows, target_length=TARGET):
    """Bytes at most, in an update of one batch with so many examples."""
    # Attention has no dropout: a CPU's other one keeps what the GPU's fused kernel never has.
    config = Config()
    with as_on_a_gpu(), FakeTensorMode(allow_non_fake_inputs=True), Held() as held:
        model = MBart(config)
        weights = trained_by(model.train(), recipe)
        FrozenInHalf(model, torch.bfloat16)
        optimizer = torch.optim.AdamW(weights, 1e-5, fused=True)
        for weight in weights:
            weight.grad = torch.empty_like(weight)
        optimizer.step()  # its moments are there from the first update on
        optimizer.zero_grad()

        source = torch.zeros(rows, SOURCE, dtype=torch.int64)
        target = torch.zeros(rows, target_length, dtype=torch.int64)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.loss(source, target, target)
        loss.backward(torch.tensor(1.0))
        optimizer.step()
    return held.peak


def calculated():
    """{recipe: GiB of an update with each number of examples}"""
    found = {}
    with progress_line(title="memory", total=len(TABLE_RECIPES) * len(ROWS), unit="update") as bar:
        for recipe in TABLE_RECIPES:
            found[recipe] = []
            for rows in ROWS:
                found[recipe].append(peak_of_an_update(recipe, rows) / GIB)
                bar.update()
    return found


def table(peaks):
    """What calculated() found, as lines of markdown."""
    heads = [f"{rows * (SOURCE + TARGET):,} tokens" for rows in ROWS]
    lines = [f"| recipe | {' | '.join(heads)} |", f"| --- |{' --- |' * len(heads)}"]
    for recipe, values in peaks.items():
        numbers = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| `{recipe}` | {numbers} |")
    return lines


def page():
    """The part of BENCHMARKS.md that this program writes, as lines."""
    return [
        "## How much memory does an update of mBART-large take on a GPU?",
        "",
        "GiB at most, calculated without one (`python -m bench.peak`): one batch of bf16, examples",
        f"of {SOURCE} source and {TARGET} target tokens. What torch itself takes, and what lies",
        "waste between tensors, comes on top; the checks of a card measure it.",
        "",
        *table(calculated()),
    ]


def main(argv=None):
    parser_of(__doc__).parse_args(argv)
    print("\n".join(table(calculated())))


if __name__ == "__main__":
    run(main)
