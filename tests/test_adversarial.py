"""adversarial.py: the two fooling losses, and who moves in which update."""
import copy
import math
import re

import pytest
import torch

import train
from adversarial import Adversary, Classifier, balanced_loss, source_classes, standard_loss
from corpora.builtin import Builtin
from data import Batches, Examples
from model import MBart
from plumbing.files import UserError
from plumbing.runs import read_settings, read_state
from tokenizer import Tokenizer
from train import task_loss

LANGS = ["en_XX", "es_XX", "ru_RU"]


def gradient(loss, probabilities, true=0):
    """The loss at p and its gradient on the logits."""
    logits = torch.tensor(probabilities, dtype=torch.float64).log()[None].requires_grad_()
    value = loss(logits, torch.tensor([true]))
    return value.item(), torch.autograd.grad(value.sum(), logits)[0][0]


def test_the_balanced_loss_is_zero_exactly_where_the_prediction_is_uniform():
    for n in (2, 3, 5):
        value, slope = gradient(balanced_loss, [1 / n] * n)
        assert abs(value) < 1e-12 and slope.abs().max() < 1e-12
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        p = torch.rand(4, generator=generator).add(0.01)
        p = (p / p.sum()).tolist()
        expected = sum(0.25 * math.log(0.25 / q) for q in p)  # KL(uniform || p), written out
        assert gradient(balanced_loss, p)[0] == pytest.approx(expected, abs=1e-7) and expected > 0


@pytest.mark.parametrize("p_true", [0.02, 0.2, 0.32, 0.35, 0.6, 0.99])
def test_the_balanced_gradient_pushes_toward_uniform_from_either_side(p_true):
    slope = gradient(balanced_loss, [p_true, (1 - p_true) / 2, (1 - p_true) / 2])[1]
    assert (slope[0] > 0) == (p_true > 1 / 3)  # descent moves against the gradient


def test_the_standard_loss_does_not_rest_at_uniform_but_goes_on_to_another_language():
    """Why the paper balances: below 1/n the standard loss still pushes p_true down, and is content
    with certainty of a wrong language, which gives the source away as well as the right one."""
    for p_true in (0.6, 1 / 3, 0.1, 0.01):
        assert gradient(standard_loss, [p_true, (1 - p_true) / 2, (1 - p_true) / 2])[1][0] > 0
    wrong = [1e-6, 1 - 2e-6, 1e-6]
    uniform = [1 / 3] * 3
    assert gradient(standard_loss, wrong)[0] < 1e-5 < gradient(standard_loss, uniform)[0]
    assert gradient(balanced_loss, wrong)[0] > 1 > gradient(balanced_loss, uniform)[0]


def test_the_losses_are_finite_where_the_classifier_is_certain():
    logits = torch.tensor([[60.0, 0.0, -60.0]], requires_grad=True)
    for loss in (standard_loss, balanced_loss):
        value = loss(logits, torch.tensor([0]))
        value.sum().backward()
        assert value.isfinite().all() and logits.grad.isfinite().all()
    assert standard_loss(logits, torch.tensor([0])).item() == pytest.approx(60, abs=1e-3)


def test_the_classifier_is_the_published_one():
    """Solovyev et al. 2024, appendix A: one hidden layer of 256, ReLU, dropout."""
    torch.manual_seed(0)
    classifier = Classifier(8, 3)
    named = dict(classifier.named_parameters())
    (first, first_bias), (second, second_bias) = (
        [value for value in named.values() if value.size(0) == size] for size in (256, 3)
    )
    assert first.shape == (256, 8) and second.shape == (3, 256)
    states = torch.randn(2000, 8)
    hidden = (states @ first.T + first_bias).clamp(min=0)
    wanted = hidden @ second.T + second_bias
    assert torch.allclose(classifier.eval()(states), wanted, atol=1e-5)
    classifier.train()
    second.data.fill_(1.0)
    second_bias.data.zero_()
    kept = []
    classifier.layers[-1].register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    classifier(states)
    alive = hidden > 0
    assert (kept[0][alive] == 0).float().mean().item() == pytest.approx(0.1, abs=0.005)


@pytest.fixture
def setting(small):
    model, tokenizer = MBart.from_pretrained(small).train(), Tokenizer.from_pretrained(small)
    model.config.dropout = model.config.attention_dropout = 0.0
    data = Builtin("summarize", "train", [(lang, lang) for lang in LANGS])
    batches = Batches(Examples(data, tokenizer, "summarize", tagged=False, max_length=256), 600)
    return model, [next(batches) for _ in range(4)]


def moved(module, before):
    """The names of the tensors that are not what they were."""
    after = module.state_dict()
    return {name for name in after if not torch.equal(after[name], before[name])}


@pytest.mark.parametrize("kind", ["standard", "balanced"])
def test_the_classifiers_step_moves_nothing_else_and_the_task_step_no_classifier_weight(
    setting, kind
):
    model, batches = setting
    adversary = Adversary(kind, model.config.d_model, LANGS, lr=1e-2, updates=2, device="cpu")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model_before = copy.deepcopy(model.state_dict())
    classifier_before = copy.deepcopy(adversary.classifier.state_dict())
    adversary.update(model, batches)
    assert not moved(model, model_before) and all(p.grad is None for p in model.parameters())
    assert moved(adversary.classifier, classifier_before) == set(classifier_before)
    classifier_before = copy.deepcopy(adversary.classifier.state_dict())
    task, states = task_loss(model, batches[0], 1, with_states=True)
    loss = task + adversary.loss(states, batches[0])
    assert loss > task
    loss.backward()
    optimizer.step()
    assert not moved(adversary.classifier, classifier_before)
    assert all(p.grad is None for p in adversary.classifier.parameters())
    assert "model.encoder.layers.0.self_attn.q_proj.weight" in moved(model, model_before)


@pytest.mark.slow
def test_the_classifier_learns_the_language_and_the_fooling_loss_takes_it_away(setting):
    """On a model that is free to move: accuracy rises to near 1, and the fooling loss lowers it."""
    model, batches = setting
    adversary = Adversary("balanced", model.config.d_model, LANGS, 1e-2, updates=10, device="cpu")
    for _ in range(15):
        adversary.update(model, batches)
    adversary.accuracy()
    adversary.updates = 1
    adversary.update(model, batches)
    before = adversary.accuracy()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(20):
        for batch in batches:
            loss = adversary.loss(model.token_states(batch.source), batch)
            (loss / 1000).backward()
        optimizer.step()
        optimizer.zero_grad()
    adversary.update(model, batches)
    assert before > 0.9 and adversary.accuracy() < before - 0.2


def test_of_several_processes_the_first_goes_on_with_what_it_counted(monkeypatch):
    """It wrote the checkpoint; in all, its tokens would count as often as there are processes."""
    adversary = Adversary("balanced", 32, LANGS, 1e-2, updates=1, device="cpu")
    adversary.right, adversary.seen = 3, 4
    state = adversary.state_dict()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, wanted in (("0", 0.75), ("1", 0.0)):
        monkeypatch.setenv("RANK", rank)
        other = Adversary("balanced", 32, LANGS, 1e-2, updates=1, device="cpu")
        other.load_state_dict(state)
        assert other.accuracy() == wanted


class Encoder:
    """Stands for a model whose states are given."""

    def __init__(self, states):
        self.states = states

    def token_states(self, source):
        return self.states


def test_the_classifier_computes_in_full_precision_where_autocast_is_on(setting):
    batch = setting[1][0]
    count = int((batch.source != 1).sum())
    states = torch.randn(count, 32, generator=torch.Generator().manual_seed(0))
    found = []
    for half in (False, True):
        adversary = Adversary("balanced", 32, LANGS, 1e-2, updates=3, device="cpu", dropout=0.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            adversary.update(Encoder(states), [batch])
            loss = adversary.loss(states, batch)
        found.append((loss.item(), adversary.classifier.state_dict()))
    assert found[0][0] == found[1][0]
    assert not moved(adversary.classifier, found[0][1])


@pytest.mark.parametrize("options, read", [
    (("--accumulate", 1), ["task 0"]),
    (("--accumulate", 2), ["task 0", "task 1"]),
    (("--accumulate", 1, "--mix", 2), ["task 0", "mix 0", "mix 1"]),
])
def test_classifier_and_task_read_batches_in_turn_each_its_own(
    run, small, tmp_path, monkeypatch, options, read
):
    readers = []
    learn = Adversary.update
    compute = train.task_loss

    def learned(self, model, batches, *rest):
        for batch in batches:
            readers.append(("classifier", batch.stream, batch.number))
        learn(self, model, batches, *rest)

    def computed(model, batch, *rest, **options):
        if model.training:
            readers.append(("model", batch.stream, batch.number))
        return compute(model, batch, *rest, **options)

    monkeypatch.setattr(Adversary, "update", learned)
    monkeypatch.setattr(train, "task_loss", computed)
    done = run(
        "train.py", "--stage", "summarize", "--langs", *LANGS, "--init", small, "--adversarial",
        "balanced", "--tokens", 300, "--steps", 2, "--valid-examples", 2, "--no-eval", "--device",
        "cpu", "--classifier-updates", 3, *options, "--out", tmp_path / "run",
    )
    assert done.returncode == 0, done.stderr
    counts = [sum(name.startswith(stream) for name in read) for stream in ("task", "mix")]
    expected = []
    for turn, reader in enumerate(("classifier", "model", "classifier", "model")):
        for stream, count in zip(("task", "mix"), counts):
            for number in range(count):
                expected.append((reader, stream, turn * count + number))
    assert readers == expected
    assert [f"{stream} {number}" for _, stream, number in readers[:len(read)]] == read


def test_the_classifier_tells_the_languages_of_a_mix_too(run, small, tmp_path):
    out = tmp_path / "run"
    done = run(
        "train.py", "--stage", "summarize", "--langs", "en_XX", "--mix", 1, "--mix-pairs",
        "ru_RU-en_XX", "en_XX-ru_RU", "--init", small, "--adversarial", "balanced", "--tokens", 300,
        "--steps", 1, "--valid-examples", 2, "--no-eval", "--device", "cpu", "--out", out,
    )
    assert done.returncode == 0, done.stderr
    classifier = read_state(out / "state.pt")["adversary"]["classifier"]
    assert classifier["layers.3.bias"].shape == (2,)
    settings = read_settings(out)
    assert settings["tagless"] and settings["pairs"] == ["en_XX-en_XX"]


@pytest.mark.parametrize("recipe, refused", [
    ("adv_tuned", True), ("qk", False), ("frozen_decoder", False), ("lora", False),
])
def test_a_recipe_that_moves_nothing_of_the_encoder_cannot_fool(
    run, small, tmp_path, recipe, refused
):
    out = tmp_path / "run"
    done = run(
        "train.py", "--stage", "summarize", "--langs", *LANGS, "--init", small, "--adversarial",
        "standard", "--recipe", recipe, "--tokens", 300, "--steps", 1, "--valid-examples", 2,
        "--no-eval", "--device", "cpu", "--out", out,
    )
    assert (done.returncode == 2) == refused, done.stderr
    assert ("trains nothing that the encoder's states depend on" in done.stderr) == refused
    assert ("moves too little of the encoder" in done.stderr) == (recipe == "qk")
    assert out.exists() != refused


def test_padding_is_not_classified(setting):
    model, batches = setting
    batch = max(batches, key=lambda b: (b.source == 1).sum())
    states = model.token_states(batch.source)
    langs = source_classes(batch, batch.source != 1, LANGS)
    assert len(states) == len(langs) == (batch.source != 1).sum() < batch.source.numel()
    expected = []
    for lang, row in zip(batch.source_langs, batch.source):
        expected += [LANGS.index(lang)] * int((row != 1).sum())
    assert langs.tolist() == expected


def test_one_language_cannot_be_told_apart():
    with pytest.raises(UserError, match="at least two"):
        Adversary("balanced", 8, ["en_XX"], 1e-3, 1, "cpu")
    assert Classifier(8, 3)(torch.zeros(5, 8)).shape == (5, 3)


@pytest.mark.slow
def test_an_adversarial_run_leaves_the_tag_out_resumes_bit_exactly_and_its_followers_stay_tagless(
    run, small, tmp_path
):
    options = (
        "--stage", "summarize", "--langs", *LANGS, "--valid-examples", 2, "--no-eval",
        "--device", "cpu",
    )
    fooling = (
        *options, "--init", small, "--adversarial", "balanced", "--tokens", 400, "--steps", 6,
        "--eval-every", 2, "--dropout", 0.1, "--recipe", "full", "--residual-drop", 2,
        "--accumulate", 2,
    )
    unbroken = run("train.py", *fooling, "--out", tmp_path / "whole")
    assert unbroken.returncode == 0, unbroken.stderr
    assert run("train.py", *fooling, "--out", tmp_path / "cut", "--stop-at", 3).returncode == 0
    done = run("train.py", "--resume", tmp_path / "cut")
    assert done.returncode == 0, done.stderr
    whole, cut = (MBart.from_pretrained(tmp_path / name) for name in ("whole", "cut"))
    assert whole.config.residual_drop_layer == 2 and not whole.model.encoder.layers[1].has_residual
    assert not moved(cut, whole.state_dict())
    shares = re.findall(r"update ([46]): .* classifier ([\d.]+)% right", unbroken.stdout)
    assert re.findall(r"update (\d): .* classifier ([\d.]+)% right", done.stdout) == shares
    assert len(shares) == 2
    done = run(
        "train.py", *options, "--init", tmp_path / "whole", "--recipe", "adv_tuned", "--steps", 2,
        "--out", tmp_path / "tuned",
    )
    assert done.returncode == 0, done.stderr
    assert read_settings(tmp_path / "tuned")["tagless"]
    tuned = MBart.from_pretrained(tmp_path / "tuned")
    assert {name.split(".")[1] for name in moved(tuned, whole.state_dict())} == {"decoder"}
