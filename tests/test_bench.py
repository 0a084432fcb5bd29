"""bench/ on a tiny shape: both sides compute the same on the same examples, and the page says what
was measured. Nothing is timed here."""
import json
import math
import random
import re
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from conftest import ROOT
from torch.utils.flop_counter import FlopCounterMode

import data
from bench import (
    cost,
    documents,
    gpu_check,
    memory,
    on_card,
    peak,
    peers,
    pipeline,
    process,
    results,
    seq2seq,
    speed,
    step,
    travel,
)
from model import Config
from plumbing.files import UserError
from plumbing.runs import read_state
from qk_finetune import count_parameters
from tokenizer import Tokenizer

TINY = peers.Shape(vocabulary=300, width=32, layers=2, heads=4, ffn=64, batch=3)
CPU = torch.device("cpu")
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "bench" / "BENCHMARKS.md").read_text(encoding="utf-8")
MEMORY = "## How much memory does a recipe of mBART-large keep?"
PEAK = "## How much memory does an update of mBART-large take on a GPU?"


COMPUTED = {"memory": memory.page, "peak": peak.page}


def section_of(page, heading):
    return page[page.index(heading):].split("\n\n## ")[0].rstrip("\n")


def lines_of(heading):
    """A section of BENCHMARKS.md, as lines."""
    return section_of(PAGE, heading).split("\n")


@pytest.fixture(autouse=True)
def counted_before(monkeypatch):
    """Two parts of the page take a minute: here they are as they stand on it. Tests of their own
    compute them."""
    for module, heading in ((memory, MEMORY), (peak, PEAK)):
        monkeypatch.setattr(module, "page", lambda heading=heading: lines_of(heading))


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(peers, "SHAPES", {"A": TINY, "B": TINY})
    monkeypatch.setattr(peers, "SENTENCES", 3)
    monkeypatch.setattr(peers, "NEW_TOKENS", 6)
    for module in (peers, cost):  # their own test measures them
        monkeypatch.setattr(module, "rates", lambda device: peers.Rates(products=1e11, copies=1e10))


@pytest.fixture(scope="session")
def scratch(tmp_path_factory):
    """One folder for all: a checkpoint is written once."""
    return tmp_path_factory.mktemp("bench")


@pytest.mark.parametrize("recipe", ["full", "qk"])
def test_a_training_row_checks_losses_and_gradients_and_has_every_figure(tiny, scratch, recipe):
    row = peers.bench_train("B", recipe, 2, CPU, scratch)
    assert set(row["seconds"]) == {"ours", "transformers", "transformers, default AdamW"}
    assert set(row["limit"]) == {"ours", "transformers"}
    assert all(len(rounds) == 2 for rounds in row["seconds"].values())
    [line] = results.speed_lines("train-B-full", row)
    assert "gradients to" in row["same"] and "`train-B-full`" in line


@pytest.mark.slow
def test_both_sides_decode_the_same_documents_into_the_same_texts(scratch, monkeypatch):
    monkeypatch.setattr(documents, "DOCUMENTS", 12)
    monkeypatch.setattr(documents, "BATCH_SIZES", (200, 400))
    row = documents.bench_documents(1, CPU, scratch)
    assert "CTranslate2 float32 12 of 12 outputs" in row["same"]
    [line] = results.speed_lines("documents-base", row)
    assert "ours, without early stopping" in line and "CTranslate2 in batches of" in line


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


def test_a_machines_rates_are_operations_and_bytes_by_seconds(monkeypatch):
    monkeypatch.setattr(peers, "shortest", lambda call, device: 2.0)
    measured = peers.rates(CPU)
    assert measured.products == 2048**3  # each with its addition: 2 x 2048^3 in 2 seconds
    assert measured.copies == 256 * 2**20  # read and written


def test_sides_that_differ_are_refused(tiny, scratch, monkeypatch):
    def wrong_loss(model, batch):
        return model.loss(batch.source, batch.decoder_input, batch.labels) * 1.001

    monkeypatch.setattr(peers, "our_loss", wrong_loss)
    with pytest.raises(UserError, match="do not compute the same"):
        peers.bench_train("B", "full", 1, CPU, scratch)


@pytest.mark.parametrize("where", ["loss", "a gradient"])
def test_sides_that_compute_no_number_are_refused(tiny, scratch, monkeypatch, where):
    right = peers.our_loss

    def spoilt(model, batch):
        loss = right(model, batch)
        if where == "loss":
            return loss * math.nan
        root = torch.sqrt(0 * model.model.decoder.layers[0].fc1.weight)  # 0, of no slope
        return loss + root.sum()

    monkeypatch.setattr(peers, "our_loss", spoilt)
    with pytest.raises(UserError, match="do not compute the same.*nan"):
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


def test_products_into_float32_are_counted_as_the_others_are():
    """As the loss of a GPU has them; torch's own formula stops there with a TypeError."""
    total = torch.zeros(3, 5, device="meta")
    a = torch.zeros(3, 4, device="meta", dtype=torch.bfloat16)
    b = torch.zeros(4, 5, device="meta", dtype=torch.bfloat16)
    with FlopCounterMode(display=False, custom_mapping=peers.FLOPS_OF) as counter:
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
        torch.addmm(total, total.T.new_zeros(3, 3), total)
    assert counter.get_total_flops() == 2 * 3 * 4 * 5 + 2 * 3 * 3 * 5


@pytest.mark.parametrize("recipe", ["full", "qk"])
def test_all_products_of_an_update_are_counted_attentions_on_a_cpu_too(recipe):
    """By hand: behind a product forward come two of its size, the gradients of what is multiplied.
    Attention has two products forward and five behind them: it computes its scores once more."""
    [batch] = peers.our_batches(peers.random_examples(TINY.vocabulary, TINY.batch), 1)
    model = cost.drawn_model(TINY).train()
    peers.apply_recipe(model, peers.RECIPE_OF[recipe])
    found = peers.Training(model, peers.our_loss, [batch], CPU).flops()

    rows, source = batch.source.shape
    target = batch.labels.size(1)
    size = 2 * rows * TINY.width
    attention = TINY.layers * size * (source**2 + target**2 + target * source)
    head = 2 * batch.target_tokens * TINY.width * TINY.vocabulary
    square = size * TINY.width  # of a projection of one position
    trained = TINY.layers * square * (3 * source + target)  # q and k that read the source
    others = TINY.layers * square * (3 * source + 5 * target)
    others += TINY.layers * size * 2 * TINY.ffn * (source + target)
    if recipe == "full":
        assert found == 7 * attention + 3 * (trained + others + head)
    else:  # no gradient goes below the first queries and keys that train
        spared = square * (3 * source + 5 * target) + 5 * size * target**2
        assert found == 7 * attention + 3 * trained + 2 * (others + head) - spared


def test_a_decoding_row_has_our_outputs_equal_to_both_peers(tiny, scratch):
    row = peers.bench_decode("B", 1, CPU, scratch)
    assert row["same"].startswith("transformers 3 of 3 outputs, CTranslate2 float32 3 of 3")
    assert set(row["ratio"]) == {
        "transformers",
        "CTranslate2 float32",
        "CTranslate2 int8",
        "transformers against our int8",
    }


def test_a_ratio_is_the_peers_time_by_ours_and_int8_stands_against_int8():
    seconds = {
        "ours": [1.0, 1.0],
        "transformers": [2.0, 4.0],
        "CTranslate2 float32": [1.5, 1.5],
        "ours int8": [0.5, 0.5],
        "CTranslate2 int8": [0.8, 0.8],
    }
    row = peers.decoding_row(seconds, 0.25)
    assert row["ratio"] == {
        "transformers": "3.00 [2.00–4.00]",
        "CTranslate2 float32": "1.50 [1.50–1.50]",
        "CTranslate2 int8": "1.60 [1.60–1.60] of our int8",
        "transformers against our int8": "6.00 [4.00–8.00]",
    }
    assert row["limit"] == {
        "ours": [0.25, 0.25],
        "transformers": [0.125, 0.0625],
        "CTranslate2 float32": pytest.approx([1 / 6, 1 / 6]),
    }


def test_the_limit_of_training_is_its_products_at_the_machines_rate(tiny, scratch, monkeypatch):
    monkeypatch.setattr(peers.Training, "flops", lambda side: 3e11)
    row = peers.bench_train("B", "qk", 1, CPU, scratch)
    for side in ("ours", "transformers"):
        [share], [seconds] = row["limit"][side], row["seconds"][side]
        assert share * seconds == pytest.approx(3)  # the machine of these tests does 1e11 a second


def test_the_floor_of_decoding_is_of_what_every_position_computes(tiny, scratch):
    row = peers.bench_decode("B", 1, CPU, scratch)
    layer = 6 * TINY.width**2 + 2 * TINY.width * TINY.ffn  # cross-attention's k and v: once
    weights = TINY.vocabulary * TINY.width + TINY.layers * layer
    products = 2 * weights * peers.SENTENCES * peers.BEAM / 1e11
    reading = 4 * weights / 1e10
    floor = peers.NEW_TOKENS * max(products, reading)
    [share] = row["limit"]["ours"]
    [seconds] = row["seconds"]["ours"]
    assert share * seconds == pytest.approx(floor)
    page = results.page({"a CPU, 1 thread": {"decode-B": row_with(**row)}})
    assert "2026-01-01; the limit by products at 100 GFLOP/s, copies at 10 GB/s." in page


def test_a_checkpoint_that_was_half_written_is_written_anew(tiny, tmp_path):
    (tmp_path / "B").mkdir()
    (tmp_path / "B" / "config.json").write_text("{}")
    ours, _ = peers.both_models("B", tmp_path / "B", CPU)
    assert ours.config.vocab_size == TINY.vocabulary
    assert "model.safetensors" in {path.name for path in (tmp_path / "B").iterdir()}
    assert not [path for path in (tmp_path / "B").iterdir() if path.is_dir()]


def test_ctranslate2_gets_the_size_that_is_quickest_when_warm(monkeypatch):
    """A first call is slow, whatever its size; of the others one takes 1 s, the rest 2 s."""
    now = 0.0
    calls = []

    def by_peer(size):
        nonlocal now
        calls.append(size)
        now += 60 if len(calls) == 1 else 1 if size == documents.BATCH_SIZES[0] else 2

    monkeypatch.setattr(peers.time, "perf_counter", lambda: now)
    assert documents.best_size(by_peer) == documents.BATCH_SIZES[0]


def test_the_int8_twin_shares_its_weights_and_leaves_the_other_model_as_it_was(tiny, scratch):
    ours, _ = peers.both_models("B", scratch / "B", CPU)
    twin = peers.int8_twin(ours)
    assert twin.model.shared.weight.data_ptr() == ours.model.shared.weight.data_ptr()
    source = peers.decoding_source(TINY.vocabulary)
    before = peers.by_us(ours, source, 280)
    peers.by_us(twin, source, 280)
    assert peers.by_us(ours, source, 280) == before


@pytest.mark.parametrize("who", ["ours", "transformers", "2"])
def test_a_step_prints_its_peak_for_every_side(tiny, scratch, run, who, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench.process"])
    peers.both_models("A", scratch / "A", CPU)
    where = scratch / "A" / "config.json" if who == "2" else scratch / "A"
    recipe = "lora" if who == "2" else "qk"
    done = run("-m", "bench.process", "bench/step.py", where, recipe, who)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 2**26


@pytest.mark.parametrize("who", ["our", "0", "-1", "8.5"])
def test_a_step_of_no_side_is_refused(tiny, scratch, run, who):
    peers.both_models("A", scratch / "A", CPU)
    done = run("-m", "bench.step", scratch / "A", "qk", who)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert who == "-1" or f"{who!r} is neither of ours and transformers" in done.stderr


def test_the_table_of_memory_counts_weights_gradients_and_moments(tmp_path, run):
    shape = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 300}
    (tmp_path / "config.json").write_text(json.dumps(shape))  # of a model folder, this is enough
    done = run("-m", "bench.memory", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert "--rows has no effect" in run("-m", "bench.memory", tmp_path, "--rows", 5).stderr
    rows = [line.split()[0] for line in done.stdout.splitlines()[1:]]
    assert {"full", "full+embeddings", "qk", "lora"} <= set(rows)
    assert not any(recipe.startswith(("src", "tgt")) for recipe in rows)


@pytest.mark.slow
def test_the_table_of_memory_is_of_mbart_large_where_no_folder_is_named(run):
    table = run("-m", "bench.memory").stdout
    assert "full+embeddings" in table and "2.28       2.28    4.55    9.10" in table


def test_steps_of_mbart_large_are_measured_where_no_folder_is_named(run, monkeypatch):
    monkeypatch.setattr(memory, "needs", lambda config: {"qk": memory.Need(0, 0, 0)})
    begun = []

    def begin(command, **options):
        begun.append(command)
        return SimpleNamespace(returncode=0, stdout=f"{3 * 2**30}\n", stderr="")

    monkeypatch.setattr(process.subprocess, "run", begin)
    done = run("-m", "bench.memory", "--measure", "qk")
    assert done.returncode == 0 and "3.0" in done.stdout, done.stderr
    (command,) = begun
    assert all(command)  # an empty word would be refused
    with torch.device("meta"):
        assert step.drawn_model(command[-3]).config.d_model == 1024


def test_what_travels_is_every_gradient_once_and_the_readme_says_so():
    config = Config(
        vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32,
        decoder_ffn_dim=32, max_position_embeddings=20,
    )
    for recipe in travel.TABLE_RECIPES:
        size, calls = travel.bytes_of_an_update(config, recipe)
        assert size == 4 * count_parameters(config, recipe).training_parameters and calls == 1
    for recipe in ("qk", "full"):
        size, _ = travel.bytes_of_an_update(Config(), recipe)
        assert f"{size / travel.MIB:,.0f}" in README


def test_the_memory_that_the_readme_tells_stands_on_the_page():
    section = README[README.index("## mBART on a GPU"):]
    section = section[:section.index("\n## ")]
    table = section[section.index("| recipe | weights"):].split("\n\n")[0].split("\n")
    assert len(table) == 7 and set(table) <= set(lines_of(MEMORY))
    calculated = re.findall(r"^\| .*\(calculated.*\) \| (\S+) \| (\S+) \| (\S+) \|$", section, re.M)
    assert len(calculated) == 2  # of small batches, and of one
    for recipe, *told in zip(("qk", "lora", "full"), *calculated):
        assert f"| `{recipe}` | {' | '.join(told)} |" in lines_of(PEAK)


def test_what_a_card_may_take_at_most_stands_on_the_page():
    heads = [f"{rows * 560:,} tokens" for rows in peak.ROWS]
    assert f"| recipe | {' | '.join(heads)} |" in lines_of(PEAK)
    for recipe in ("qk", "full"):
        limits = [on_card.CALCULATED[recipe, rows] for rows in peak.ROWS]
        assert f"| `{recipe}` | {limits[0]} | {limits[1]} |" in lines_of(PEAK)


@pytest.mark.slow
def test_the_page_has_what_every_recipe_keeps():
    assert COMPUTED["memory"]() == lines_of(MEMORY)


@pytest.mark.slow
def test_the_page_has_what_an_update_takes_at_most(monkeypatch):
    """Two of its eight figures; tests/test_real_size.py has others."""
    counts = peak.model_file.count_labels_and_tokens
    monkeypatch.setattr(peak, "TABLE_RECIPES", ("qk", "lora"))
    monkeypatch.setattr(peak, "ROWS", (5,))
    for line in COMPUTED["peak"]()[-2:]:
        assert any(told.startswith(line) for told in lines_of(PEAK)), line
    assert peak.model_file.count_labels_and_tokens is counts


# ---------------------------------------------------------------------------------- the page


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Where results are kept and the page is written: not in the project."""
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results" / "bench.json")
    monkeypatch.setattr(results, "HERE", tmp_path)
    monkeypatch.setattr(results, "machine", lambda device: "a CPU, 1 thread")
    return tmp_path


def row_with(**figures):
    return figures | {"measured": "torch 2, 2026-01-01", "threads": 1}


def test_the_page_keeps_rows_measured_before_and_says_what_was_not(tiny, scratch):
    row = row_with(**peers.bench_train("B", "qk", 1, CPU, scratch))
    page = results.page({"a CPU, 1 thread": {"train-B-qk": row}})
    assert "`train-B-qk`" in page and "Not measured yet" in page
    assert "python -m bench.speed train-B-qk\n" in page
    assert "Not measured yet: `python -m bench.pipeline`." in page
    assert page.count("Not measured yet: `python -m bench.speed`.") == 3  # all but training
    assert "none was at hand" in page
    assert "none was at hand" not in results.page({"NVIDIA": {}})


def test_the_page_is_what_its_programs_write_of_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_check, "RESULTS", tmp_path)  # what a card here has found is not kept
    rows = json.loads((ROOT / "bench" / "measured.json").read_text(encoding="utf-8"))
    assert results.page(rows) == PAGE


def test_every_row_that_a_program_measures_has_its_place_on_the_page():
    on_cpu = [*speed.measures(CPU), *cost.measures(cost.FULL, 1), *pipeline.names_of_rows()]
    on_card = list(speed.measures(torch.device("cuda")))
    assert sorted(on_cpu) == sorted(row for table in results.TABLES for row in table.on_cpu)
    assert sorted(on_card) == sorted(row for table in results.TABLES for row in table.on_card)


def test_the_page_says_what_each_machine_lacks():
    row = row_with(
        seconds={"ours": [1.0], "transformers": [2.0]}, ratio={"transformers": "2.00"}, limit={},
        same="",
    )
    page = results.page({
        "NVIDIA": {"train-large-qk": row},
        "this CPU, AVX2, 1 thread": {"decode-B": row},
        "that CPU, AVX512, 2 threads": {},
    })
    training = section_of(page, "## How fast is an update")
    decoding = section_of(page, "## How fast does it decode?") + "\n"
    assert "Not measured here: `train-A-full`, `train-A-qk`, `train-B-full`" in training
    assert "`train-large-full`.\n" in training
    cpus = "`this CPU, AVX2, 1 thread`, `that CPU, AVX512, 2 threads`"
    assert f"Not measured on {cpus}: `train-A-full`, `train-A-qk`, `train-B-full`" in training
    assert "Not measured here: `decode-A`.\n" in decoding
    assert "Not measured on `that CPU, AVX512, 2 threads`: `decode-A`, `decode-B`." in decoding
    assert "Not measured on `NVIDIA`: `decode-A`, `decode-B`, `decode-large`." in decoding
    assert "Not measured on `NVIDIA`: `memory" not in page


def test_machines_of_one_name_with_other_instructions_are_two_machines(monkeypatch):
    monkeypatch.setattr(results, "processor", lambda: "AMD EPYC")
    names = set()
    for instructions in ("AVX2", "AVX512"):
        capability = Mock(return_value=instructions)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", capability)
        names.add(results.machine(CPU))
    assert names == {"AMD EPYC, AVX2, 1 thread", "AMD EPYC, AVX512, 1 thread"}
    assert all(map(results.is_cpu, names)) and not results.is_cpu("NVIDIA H200")


def test_a_processor_without_a_name_is_told_by_its_kind(monkeypatch, tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    monkeypatch.setattr(results.platform, "processor", lambda: "")
    monkeypatch.setattr(results.platform, "machine", lambda: "aarch64")
    assert results.processor(file) == "aarch64"
    file.write_text("model name\t: AMD EPYC\n")
    assert results.processor(file) == "AMD EPYC"


def test_a_row_of_ours_compiled_alone_is_not_called_ours():
    row = row_with(
        seconds={"ours, compiled": [1.0], "transformers": [2.0]},
        ratio={"transformers": "2.00"}, limit={"ours, compiled": [0.5]}, same="",
    )
    page = results.page({"NVIDIA": {"train-large-qk": row}})
    assert "| `train-large-qk` | ours, compiled: 1.00 s | transformers: 2.00 s, 2.00 |" in page


def test_a_table_says_with_what_each_of_its_rows_was_measured():
    rows = {"memory-A-qk": row_with(), "memory-A-full": row_with()}
    assert results.measured_with(rows) == ["Measured with torch 2, 2026-01-01."]
    rows["memory-A-full"]["measured"] = "torch 3"
    assert results.measured_with(rows)[1] == "- `memory-A-full`: torch 3"


def test_a_row_is_written_beside_those_measured_before(tiny, scratch, kept, capsys):
    before = {"bytes": {"ours": [2**30], "transformers": [2**31, 2**31]}}
    results.RESULTS.parent.mkdir()
    results.RESULTS.write_text(json.dumps({"a CPU, 1 thread": {"memory-A-qk": row_with(**before)}}))
    speed.main(["train-B-qk", "--rounds", "1", "--scratch", str(scratch), "--write"])
    page = (kept / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert "| `memory-A-qk` | 1.00 GiB | 2.00 [2.00–2.00] GiB | 0.50 |" in page
    printed = capsys.readouterr().out
    assert "`train-B-qk`" in printed and printed.strip() in page
    rows = json.loads(results.RESULTS.read_text())["a CPU, 1 thread"]
    assert set(rows) == {"memory-A-qk", "train-B-qk"}


def test_rows_that_another_program_keeps_meanwhile_stay(kept, monkeypatch, capsys):
    def memory(*_):
        other = json.loads(results.RESULTS.read_text()) if results.RESULTS.exists() else {}
        other["another machine"] = {"memory-A-full": row_with(**figures)}
        results.RESULTS.parent.mkdir(exist_ok=True)
        results.RESULTS.write_text(json.dumps(other))
        return dict(figures)

    figures = {"bytes": {"ours": [2**30], "transformers": [2**31]}}
    monkeypatch.setattr(speed, "bench_memory", memory)
    speed.main(["memory-A-qk", "--write"])
    rows = json.loads(results.RESULTS.read_text())
    assert set(rows["another machine"]) == {"memory-A-full"}
    assert set(rows["a CPU, 1 thread"]) == {"memory-A-qk"}
    assert "another machine" in (kept / "BENCHMARKS.md").read_text(encoding="utf-8")


def test_a_row_that_does_not_exist_is_named(run):
    done = run("-m", "bench.speed", "train-C-qk")
    assert done.returncode == 2 and "train-C-qk" in done.stderr and "decode-B" in done.stderr


@pytest.mark.parametrize("library", ["transformers", "ctranslate2"])
def test_a_missing_peer_is_named_with_the_command_that_installs_it(monkeypatch, run, library):
    monkeypatch.setitem(sys.modules, library, None)
    done = run("-m", "bench.speed", "decode-B")
    assert done.returncode == 2
    assert library in done.stderr and "README's test command" in done.stderr


# ---------------------------------------------------------------------------------- pipeline

WORDS = "file open the window text of a cell with format style print page and menu list".split()
BATCH = 4


@pytest.fixture
def real(kept, monkeypatch, tmp_path):
    """A tiny shape with a real vocabulary, and a data set to train on: the words for both."""
    shape = peers.Shape(vocabulary=6_100, width=32, layers=1, heads=2, ffn=64, batch=BATCH)
    for module in (peers, pipeline):
        monkeypatch.setattr(module, "SHAPES", {"A": shape, "B": shape})
    rng = random.Random(0)
    lines = []
    for number in range(pipeline.LARGEST_POOL * BATCH + 1):
        source = f"{number} " + " ".join(rng.choices(WORDS, k=rng.randint(5, 30)))
        lines.append({"source": source, "target": f"{number} {rng.choice(WORDS)}"})
    lines[0]["source"] = "№ " + lines[0]["source"]  # which the tokenizers read differently
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return ("--rounds", "1", "--data", f"jsonl:{folder}", "--scratch", tmp_path / "scratch")


def test_a_vocabulary_is_filled_up_with_pieces_that_no_text_uses(real, tmp_path):
    tokenizer = pipeline.write_model("B", tmp_path / "model")
    assert tokenizer.vocab_size == 6_100
    own = Tokenizer.from_pretrained(ROOT / "base-help")
    for text in ("The file was not found.", "Dosya bulunamadı", "\ue000 7 … №"):
        assert tokenizer.piece_ids(text) == own.piece_ids(text)
    assert Tokenizer.from_pretrained(tmp_path / "model").tag["en_XX"] > own.tag["en_XX"]


@pytest.mark.slow
def test_both_programs_train_on_the_same_examples_in_as_many_updates(
    real, run, monkeypatch, kept, tmp_path
):
    """Here in one process, so that every batch of both can be looked at."""
    transformers = peers.peer("transformers")
    read = {}  # {program's words: its batches, as (source, labels) without padding}
    states = []

    def in_this_process(words, threads):
        batches = read.setdefault(" ".join(map(str, words)), [])
        ours, theirs = data.Batches.__next__, transformers.DataCollatorForSeq2Seq.__call__

        def our_next(stream):
            batch = ours(stream)
            batches.append(rows_of(batch.source, batch.labels))
            return batch

        def their_call(collator, features, *rest):
            batch = theirs(collator, features, *rest)
            batches.append(rows_of(batch["input_ids"], batch["labels"]))
            return batch

        with monkeypatch.context() as patch:
            patch.setattr(data.Batches, "__next__", our_next)
            patch.setattr(transformers.DataCollatorForSeq2Seq, "__call__", their_call)
            done = run("-m", words[0].removesuffix(".py").replace("/", "."), *words[1:])
        assert done.returncode == 0, done.stderr
        if words[0] == "train.py":
            states.append(read_state(tmp_path / "scratch" / "pipeline-B" / "ours" / "state.pt"))
        return process.Done(done.stdout.rstrip(), peak=2**30, seconds=1000.0)

    monkeypatch.setattr(pipeline, "run_alone", in_this_process)
    done = run("-m", "bench.pipeline", "pipeline-B-qk", "--workers", 0, "--write", *real)
    assert done.returncode == 0, done.stderr

    [row] = json.loads(results.RESULTS.read_text())["a CPU, 1 thread"].values()
    assert set(row["seconds"]) == {"ours", "transformers, 0 workers", "ours, --recipe full"}
    passes = []
    for words, batches in read.items():
        if words.startswith("bench/seq2seq.py"):
            batches = batches[1:-1]  # the first and the last are validation's
        assert len(batches) == row["updates"] > 30, words
        passes.append(sorted(sum(batches, [])))
    assert len(passes) == 3 and passes[0] == passes[1] == passes[2]
    assert len(passes[0]) == row["examples"] == row["updates"] * BATCH
    assert len(set(map(str, passes[0]))) == row["examples"]  # each once
    assert sum(len(source) + len(labels) for source, labels in passes[0]) == row["tokens"]
    for state in states:
        assert state["progress"]["step"] == row["updates"]
        assert state["task"]["pool"] == 1 and state["task"]["batch"] == 0
    assert [len(state["weights"]) for state in states] == [8, 46]  # of qk, of full
    page = (kept / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert "python -m bench.pipeline pipeline-B-qk" in page and "1.00 GiB" in page


def rows_of(source, labels):
    rows = []
    for ids, wanted in zip(source.tolist(), labels.tolist()):
        rows.append(
            [[token for token in row if token not in (peers.PAD, -100)] for row in (ids, wanted)]
        )
    return rows


@pytest.mark.slow
def test_each_program_runs_in_a_process_of_its_own_whose_memory_is_told(real, run):
    ballast = torch.ones(2**28)  # a gigabyte of this process does not count
    done = run("-m", "bench.pipeline", "pipeline-B-full", "--workers", 0, *real)
    assert done.returncode == 0, done.stderr
    [row] = json.loads(results.RESULTS.read_text())["a CPU, 1 thread"].values()
    for side in ("ours", "transformers, 0 workers"):
        assert 2**27 < row["bytes"][side][0] < 2**30 < 4 * ballast.numel() + 1
        assert row["seconds"][side][0] > 0 and row["around"][side][0] > 0
        before, after = map(float, row["loss"][side].split(", "))
        assert after < before
    assert re.search(r"pipeline-B-full: \d+ examples, [\d,]+ tokens, \d+ updates", done.stdout)


def test_other_losses_or_updates_than_ours_are_refused():
    ours = pipeline.Trained(seconds=1, around=1, peak=1, before=9.1234, after=8)
    theirs = pipeline.Trained(seconds=1, around=1, peak=1, before=9.1236, after=8)
    with pytest.raises(UserError, match="do not compute the same"):
        pipeline.check_same({"ours": [ours], "transformers": [theirs]})
    nowhere = pipeline.Trained(seconds=1, around=1, peak=1, before=math.nan, after=8)
    with pytest.raises(UserError, match="do not compute the same.* nan of"):
        pipeline.check_same({"ours": [ours], "transformers": [nowhere]})
    the_pass = pipeline.Pass(texts=[], tokens=1, updates=33, size=1, budget=1)
    with pytest.raises(UserError, match="34 updates, not 33"):
        pipeline.check_updates("train.py", 34, the_pass)


def test_where_the_help_is_missing_the_command_that_makes_it_is_said(real, run, tmp_path):
    words = ("-m", "bench.pipeline", "--data", f"help:{tmp_path}/none", "--scratch", tmp_path)
    done = run(*words)
    assert done.returncode == 2 and "-m corpora.help" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_data_without_an_end_are_refused_before_anything_long(real, run, tmp_path):
    words = ("-m", "bench.pipeline", "--scratch", tmp_path / "scratch", "--data")
    for spec in ("builtin", "builtin:0.2"):
        done = run(*words, spec)
        assert done.returncode == 2 and "has no end" in done.stderr and "jsonl:DIR" in done.stderr
    assert "no folder" in run(*words, "jsonl:nowhere").stderr
    assert not (tmp_path / "scratch").exists()


LINE = {"source": "a", "target": "b", "source_lang": "en_XX", "target_lang": "en_XX"}


@pytest.mark.parametrize(
    "line, trains, said",
    [
        (None, ".", "train.jsonl: not found"),
        ("{", ".", "train.jsonl:1: "),
        ('{"source": "a"}', ".", "train.jsonl:1: field 'target' must be text"),
        (json.dumps(LINE), "(", "--trains '(' is no regular expression"),
        (json.dumps(LINE), "nothing", "--trains 'nothing' is found in no parameter's name"),
    ],
)
def test_mistakes_of_the_peers_program_are_one_line(
    small, run, tmp_path, monkeypatch, line, trains, said
):
    transformers = peers.peer("transformers")
    for name in ("train.jsonl", "valid.jsonl"):
        if line is not None:
            (tmp_path / name).write_text(line)
    monkeypatch.setattr(seq2seq, "peer", lambda library: transformers)  # it needs no other here
    words = ("-m", "bench.seq2seq", small, tmp_path, tmp_path / "out", "--trains", trains)
    done = run(*words)
    assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr
    done = run("-m", "bench.seq2seq", tmp_path, tmp_path, tmp_path / "out")
    assert done.returncode == 2 and "no weights" in done.stderr


def test_the_peers_program_explains_itself_where_the_peer_is_missing(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "bench.seq2seq", raising=False)
    done = run("-m", "bench.seq2seq", "--help")
    assert done.returncode == 0 and "--trains" in done.stdout
    done = run("-m", "bench.seq2seq", "a", "b", "c")
    assert done.returncode == 2 and "transformers is not installed" in done.stderr


def test_too_few_texts_are_told(real, run, tmp_path):
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"source": "a file", "target": "file"}\n')
    words = ("-m", "bench.pipeline", *real[:-4], "--data", f"jsonl:{folder}", *real[-2:])
    done = run(*words)
    assert done.returncode == 2 and "only 1 English examples" in done.stderr


def test_a_program_that_fails_in_its_process_is_named():
    with pytest.raises(UserError, match="(?s)nowhere.py failed in its own process.*No such file"):
        process.run_alone(["nowhere.py"])


# ---------------------------------------------------------------------------------- cost


def test_the_cost_curve_has_every_point_with_its_floor_and_a_picture(
    tiny, kept, monkeypatch, run
):
    monkeypatch.setattr(cost, "FULL", cost.QUICK)
    done = run("-m", "bench.cost", "--rounds", "2", "--write")
    assert done.returncode == 0, done.stderr
    rows = json.loads(results.RESULTS.read_text())["a CPU, 1 thread"]
    assert list(rows) == ["cost-tokens", "cost-layers", "cost-vocabulary"]
    for row in rows.values():
        assert len(row["points"]) == 2
        small, large = row["points"]
        for recipe in ("full", "qk"):
            assert len(small["seconds"][recipe]) == 2
            assert 0 < small["limit"][recipe] < large["limit"][recipe]
        assert large["limit"]["qk"] < large["limit"]["full"]  # fewer products
    values = [point["value"] for point in rows["cost-tokens"]["points"]]
    assert values == [point["tokens"] for point in rows["cost-tokens"]["points"]]
    page = (kept / "BENCHMARKS.md").read_text(encoding="utf-8")
    assert "](cost.svg)" in page and "python -m bench.cost cost-layers" in page
    assert "<svg" in (kept / "cost.svg").read_text(encoding="utf-8")


def test_an_update_of_the_curve_holds_the_examples_it_is_said_to(tiny):
    shape = cost.QUICK.shape
    found = cost.point(shape, 1, "")
    examples = peers.random_examples(shape.vocabulary, cost.UPDATES * shape.batch)
    tokens = sum(len(row.source) + len(row.labels) for row in examples)
    assert found["tokens"] == round(tokens / cost.UPDATES)


def test_a_quick_try_of_the_curve_keeps_nothing(tiny, kept, run):
    done = run("-m", "bench.cost", "cost-layers", "--quick")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("`cost-layers`") == 2 and "cost-tokens" not in done.stdout
    assert not results.RESULTS.exists()
    assert "no --write" in run("-m", "bench.cost", "--quick", "--write").stderr
