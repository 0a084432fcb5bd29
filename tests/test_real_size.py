"""mBART-large at its real size by tensors without numbers: the operations and the memory of an
update on a GPU, as the README's section says them."""

import pytest
from conftest import ROOT
from torch.utils.flop_counter import FlopCounterMode

import train
from bench.on_card import SOURCE, TARGET
from bench.peak import peak_of_an_update
from bench.process import GIB

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("recipe, operations", [("qk", 2.36), ("full", 3.16), ("lora", 2.20)])
def test_an_update_of_2800_tokens_takes_what_the_readme_says(recipe, operations):
    """Attention's own products, 0.25 TFLOP for 2,800 tokens, are not counted."""
    with FlopCounterMode(display=False) as counter:
        peak = peak_of_an_update(recipe, rows=5)
    assert counter.get_total_flops() / 1e12 == pytest.approx(operations, rel=0.01)
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    table = page[page.index("| memory of an update of summaries in bf16, GiB |"):].splitlines()
    head, _, small_batches = (line.strip("| ").split(" | ") for line in table[:3])
    told = small_batches[head.index(f"`{recipe}`")]
    assert peak / GIB == pytest.approx(float(told), abs=0.06)


@pytest.mark.parametrize("recipe", ["qk", "lora", "full", "full+embeddings"])
@pytest.mark.parametrize(
    "stage, rows, target_length", [("summarize", 15, TARGET), ("translate", 16, SOURCE)]
)
def test_an_update_of_8400_tokens_has_the_room_that_it_asks_for(recipe, stage, rows, target_length):
    """With a gigabyte or more for torch itself and what lies waste."""
    peak = peak_of_an_update(recipe, rows, target_length)
    room = train.ROOM_FOR_ONE_BATCH[stage]
    assert 1.5 < room.get(recipe, room["others"]) - peak / GIB < 4
