"""train.py's updates and validation beside the same computed by hand from model(), and the options
that must change what is trained."""
import copy

import pytest
import torch
import torch.nn.functional as F
from test_train import losses

import train
from adversarial import Adversary
from align import alignment_loss
from corpora.builtin import Builtin
from data import Examples, held_out
from model import MBart
from plumbing.runs import Progress, read_state
from qk_finetune import apply_recipe
from tokenizer import PAD, Tokenizer

LANGS = ("en_XX", "es_XX")
COMMON = (
    "--langs", *LANGS, "--tokens", 300, "--valid-examples", 4, "--no-eval", "--device", "cpu",
    "--dropout", 0, "--keep", "last",
)
TRANSLATE = ("train.py", "--stage", "translate", *COMMON)


@pytest.fixture
def train_run(run, small, tmp_path):
    """train_run(name, words...) -> (folder, what it printed) of a finished run."""

    def trained(name, *words):
        out = tmp_path / name
        done = run(*words, "--init", small, "--out", out)
        assert done.returncode == 0, done.stderr
        return out, done.stdout

    return trained


@pytest.fixture
def seen(monkeypatch):
    """What a run computes: {"batches": those it trains on, "gradients": at each update}."""
    found = {"batches": [], "gradients": []}
    compute = train.task_loss
    step = train.update

    def computed(model, batch, *rest, **options):
        if model.training:
            found["batches"].append(batch)
        return compute(model, batch, *rest, **options)

    def stepped(model, *rest):
        gradients = {}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                gradients[name] = parameter.grad.clone()
        found["gradients"].append(gradients)
        return step(model, *rest)

    monkeypatch.setattr(train, "task_loss", computed)
    monkeypatch.setattr(train, "update", stepped)
    return found


def model_of(folder):
    model = MBart.from_pretrained(folder).train()
    model.config.dropout = model.config.attention_dropout = 0.0
    return model


def summed_loss(model, batch, label_smoothing=0.0):
    """Of a batch's label tokens, by torch's own cross-entropy of all logits."""
    logits = model(batch.source, batch.decoder_input)
    return F.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD, reduction="sum",
        label_smoothing=label_smoothing,
    )


def test_two_updates_are_those_of_torchs_own_loss_clipping_and_adamw(train_run, seen, small):
    """Gradients are clipped to the size of AdamW's eps: there a step grows with its gradient, so
    that clipping shows, and rounding hardly does."""
    clip, decay, smoothing = 1e-6, 0.5, 0.1
    out, _ = train_run(
        "run", *TRANSLATE, "--recipe", "full", "--steps", 2, "--accumulate", 2, "--lr", 1e-2,
        "--warmup", 4, "--clip", clip, "--weight-decay", decay, "--label-smoothing", smoothing,
    )
    model = model_of(small)
    apply_recipe(model, "full", None)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.999), eps=1e-8, weight_decay=decay)
    batches = seen["batches"]
    assert len(batches) == 4
    for step, rate in enumerate((2.5e-3, 5e-3)):  # a quarter and a half of the way up
        of_update = batches[2 * step:2 * step + 2]
        tokens = sum(int((batch.labels != PAD).sum()) for batch in of_update)
        for batch in of_update:
            (summed_loss(model, batch, smoothing) / tokens).backward()
        torch.nn.utils.clip_grad_norm_(trained, clip)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        model.zero_grad()
    start = MBart.from_pretrained(small).state_dict()
    found = MBart.from_pretrained(out).state_dict()
    farthest = 0.0
    for name, tensor in model.state_dict().items():
        assert (found[name] - tensor).abs().max() < 2e-6, name
        farthest = max(farthest, (tensor - start[name]).abs().max().item())
    assert farthest > 1e-4  # fifty times as far as the two may be apart


def test_the_validation_loss_is_the_mean_over_label_tokens_without_smoothing(train_run, small):
    _, said = train_run(
        "run", *TRANSLATE, "--steps", 1, "--label-smoothing", 0.1, "--seed", 3
    )
    model = model_of(small).eval()
    pairs = [(source, target) for source in LANGS for target in LANGS]
    examples = Examples(
        Builtin("translate", "valid", pairs, seed=3), Tokenizer.from_pretrained(small), "translate",
        max_length=256, seed=3,
    )
    batches = held_out(examples, 4, 600)
    tokens = sum(batch.target_tokens for batch in batches)
    with torch.no_grad():
        expected = sum(summed_loss(model, batch) for batch in batches) / tokens
    printed = said.split("before training: validation loss ")[1].split()[0]
    assert float(printed) == pytest.approx(expected.item(), abs=1e-4)


def test_a_validation_loss_that_is_no_number_is_never_the_best():
    progress = Progress()
    assert progress.validated(2.0, 1) and not progress.validated(float("nan"), 1)
    assert progress.best == 2.0 and progress.bad == 1
    assert progress.validated(1.0, 1) and progress.best == 1.0


def test_an_adversarial_update_is_the_task_and_fooling_over_the_same_tokens(
    train_run, seen, small, monkeypatch
):
    learn = Adversary.update
    fooled = []

    def learned(self, *rest):
        learn(self, *rest)
        fooled.append(copy.deepcopy(self))

    monkeypatch.setattr(Adversary, "update", learned)
    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)  # the classifier's
    train_run(
        "run", "train.py", "--stage", "summarize", *COMMON, "--adversarial", "balanced",
        "--recipe", "full", "--clip", 0, "--steps", 1, "--accumulate", 2,
    )
    (adversary,) = fooled
    model = model_of(small)
    tokens = sum(batch.target_tokens for batch in seen["batches"])
    parts = [0.0, 0.0]
    for batch in seen["batches"]:
        parts[0] = parts[0] + summed_loss(model, batch) / tokens
        states = model.token_states(batch.source)
        parts[1] = parts[1] + adversary.loss(states, batch) / tokens
    name = "model.encoder.layers.0.fc1.weight"
    task, fooling = (torch.autograd.grad(part, model.get_parameter(name))[0] for part in parts)
    assert fooling.norm() > 0.01 * task.norm()
    torch.testing.assert_close(
        seen["gradients"][0][name], task + fooling, rtol=1e-3, atol=1e-6
    )


def test_each_batch_of_stage_align_weighs_as_many_as_its_translations_have_tokens(
    train_run, seen, small
):
    train_run(
        "run", "train.py", "--stage", "align", *COMMON, "--align-layer", 1, "--recipe", "full",
        "--clip", 0, "--steps", 1, "--accumulate", 2,
    )
    model = model_of(small)
    tokenizer = Tokenizer.from_pretrained(small)
    counts = [int((batch.translation != PAD).sum()) for batch in seen["batches"]]
    assert len(set(counts)) == 2  # or a plain mean would do
    for batch, count in zip(seen["batches"], counts, strict=True):
        (alignment_loss(model, batch, 1, tokenizer) * count / sum(counts)).backward()
    name = "model.encoder.layers.0.fc1.weight"
    expected = model.get_parameter(name).grad
    torch.testing.assert_close(seen["gradients"][0][name], expected, rtol=1e-3, atol=1e-7)


# ------------------------------------------------------------------- options that must do something

@pytest.mark.parametrize("options, same", [
    (("--seed", 3), True),
    (("--seed", 4), False),
    (("--seed", 3, "--dropout", 0.3), False),
    (("--seed", 3, "--weight-decay", 0.5), False),
    (("--seed", 3, "--label-smoothing", 0.2), False),
    (("--seed", 3, "--warmup", 9), False),
    (("--seed", 3, "--final-lr", 1e-2), False),
    (("--seed", 3, "--temperature", 1.1), True),  # the built-in corpus's pairs are of one size
])
def test_a_run_is_its_seed_and_options(train_run, options, same):
    common = (*TRANSLATE, "--recipe", "full", "--lr", 1e-2, "--warmup", 0, "--steps", 3)
    plain, _ = train_run("plain", *common, "--seed", 3)
    other, _ = train_run("other", *common, *options)
    assert (losses(plain) == losses(other)) == same


def test_lora_takes_its_rank_projections_seed_and_dropout(train_run):
    common = (*TRANSLATE, "--recipe", "lora", "--lora-projections", "fc1", "--steps", 3)
    common += ("--lr", 1e-2, "--warmup", 0)
    rows = {}
    first = {}
    for name, options in (
        ("three", ("--lora-rank", 3, "--seed", 3)),
        ("four", ("--lora-rank", 3, "--seed", 4)),
        ("dropped", ("--lora-rank", 3, "--seed", 3, "--lora-dropout", 0.5)),
    ):
        out, _ = train_run(name, *common, "--lora-dropout", 0, *options)
        rows[name] = losses(out)
        weights = read_state(out / "state.pt")["weights"]
        assert all("fc1" in tensor for tensor in weights)
        shapes = {tuple(tensor.shape) for tensor in weights.values()}
        assert shapes == {(3, 32), (64, 3)}
        first[name] = next(tensor for key, tensor in weights.items() if key.endswith("lora_a"))
    assert not torch.equal(first["three"], first["four"])
    assert rows["three"] != rows["dropped"]


def test_the_classifier_takes_its_rate_and_as_many_steps_as_asked(train_run):
    out, _ = train_run(
        "run", "train.py", "--stage", "summarize", *COMMON, "--adversarial", "standard",
        "--steps", 2, "--classifier-updates", 3, "--classifier-lr", 0.007,
    )
    optimizer = read_state(out / "state.pt")["adversary"]["optimizer"]
    assert optimizer["param_groups"][0]["lr"] == 0.007
    assert {int(state["step"]) for state in optimizer["state"].values()} == {6}


def test_gradients_of_fp16_are_clipped_at_their_own_size(train_run, monkeypatch):
    """Of a loss that was scaled for half precision they are 65,536 times as large."""
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def measured(weights, limit):
        norms.append(clip(weights, limit).item())

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", measured)
    for precision in ("fp32", "fp16"):
        words = ("--recipe", "full", "--steps", 1, "--precision", precision)
        train_run(precision, *TRANSLATE, *words)
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
