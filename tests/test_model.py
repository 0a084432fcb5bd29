"""model.py: parity with transformers, its files, and errors that name what does not fit."""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import PATIENCE, ROOT
from transformers import MBartConfig, MBartForConditionalGeneration

import model as model_file
from generate import Cache
from model import ChunkedCrossEntropy, Config, MBart, loss_and_gradient
from plumbing.files import UserError
from plumbing.memory import Memory
from plumbing.weights import read_safetensors, write_tensors
from tokenizer import PAD

SHAPES = [  # unequal depths, heads and feed-forward sizes, embedding scale on and off, relu
    {"encoder_layers": 2, "decoder_layers": 2},
    {
        "encoder_layers": 1,
        "decoder_layers": 3,
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 2,
    },
    {"encoder_layers": 3, "decoder_layers": 1, "scale_embedding": False, "encoder_ffn_dim": 20},
    {
        "encoder_layers": 2,
        "decoder_layers": 1,
        "decoder_ffn_dim": 100,
        "d_model": 48,
        "activation_function": "relu",
    },
    {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "vocab_size": 301,
        "max_position_embeddings": 17,
        "d_model": 8,
        "encoder_attention_heads": 1,
        "decoder_attention_heads": 4,
    },
]


TINY = dict(
    vocab_size=90,
    d_model=8,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=1,
    decoder_attention_heads=1,
    encoder_ffn_dim=8,
    decoder_ffn_dim=8,
    max_position_embeddings=40,
)


def theirs(seed=0, dtype=torch.float64, **shape):
    torch.manual_seed(seed)
    model = (
        MBartForConditionalGeneration(
            MBartConfig(
                **{
                    "vocab_size": 90,
                    "d_model": 32,
                    "encoder_attention_heads": 4,
                    "decoder_attention_heads": 4,
                    "encoder_ffn_dim": 64,
                    "decoder_ffn_dim": 64,
                    "max_position_embeddings": 64,
                    "scale_embedding": True,
                    "init_std": 0.2,
                }
                | shape
            )
        )
        .to(dtype)
        .eval()
    )
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms away from 0 and 1
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
        model.final_logits_bias.normal_()
    return model


def batch(vocab, seed=0, rows=5, source=13, target=11):
    torch.manual_seed(seed)
    x, y = torch.randint(4, vocab, (rows, source)), torch.randint(4, vocab, (rows, target + 1))
    for row in range(1, rows):
        x[row, source - 2 * row :] = 1
        y[row, target + 1 - row :] = 1
    decoder_input, labels = y[:, :-1].clone(), y[:, 1:].clone()
    decoder_input[labels == 1] = 1
    return x, decoder_input, labels


@pytest.fixture(params=range(len(SHAPES)))
def pair(request, tmp_path):
    """(transformers' model, ours of the same folder), float64."""
    other = theirs(request.param, **SHAPES[request.param])
    other.save_pretrained(tmp_path)
    return other, MBart.from_pretrained(tmp_path, dtype=torch.float64).eval()


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_logits_equal_transformers(pair, dtype, tolerance):
    other, ours = (model.to(dtype) for model in pair)
    x, decoder_input, labels = batch(ours.config.vocab_size)
    with torch.no_grad():
        expected = other(
            input_ids=x, attention_mask=(x != 1).long(), decoder_input_ids=decoder_input
        ).logits
        difference = (ours(x, decoder_input) - expected)[labels != 1].abs().max()
    assert difference < tolerance


def test_loss_and_every_gradient_equal_transformers(pair):
    other, ours = pair
    x, decoder_input, labels = batch(ours.config.vocab_size, 1)
    expected = F.cross_entropy(
        other(
            input_ids=x, attention_mask=(x != 1).long(), decoder_input_ids=decoder_input
        ).logits.flatten(0, 1),
        labels.flatten(),
        ignore_index=1,
    )
    expected.backward()
    value = ours.loss(x, decoder_input, labels)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-10)
    grads = {name: p.grad for name, p in other.named_parameters()}
    assert set(dict(ours.named_parameters())) == set(grads)
    for name, parameter in ours.named_parameters():
        if name.endswith(
            "k_proj.bias"
        ):  # zero in truth: softmax does not change when all its inputs move together
            assert parameter.grad.abs().max() < 1e-12
            continue
        assert (parameter.grad - grads[name]).norm() <= 1e-5 * grads[name].norm(), name


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_chunked_loss_is_cross_entropy_whatever_the_chunk(
    pair, monkeypatch, smoothing, reduction
):
    _, ours = pair
    x, decoder_input, labels = batch(ours.config.vocab_size)
    expected = F.cross_entropy(
        ours(x, decoder_input).flatten(0, 1),
        labels.flatten(),
        ignore_index=1,
        label_smoothing=smoothing,
        reduction=reduction,
    )
    expected.backward()
    wanted = {name: p.grad.clone() for name, p in ours.named_parameters()}
    for rows, slab in ((1, 1), (3, 7), (3, ours.config.vocab_size - 1), (1000, 1000)):
        monkeypatch.setitem(model_file.LOGITS_BUDGET, "cpu", 4 * ours.config.vocab_size * rows)
        monkeypatch.setattr(model_file, "SLAB", slab)
        ours.zero_grad()
        value = ours.loss(x, decoder_input, labels, label_smoothing=smoothing, reduction=reduction)
        value.backward()
        assert value.item() == pytest.approx(expected.item(), rel=1e-12)
        for name, parameter in ours.named_parameters():
            assert torch.allclose(parameter.grad, wanted[name], rtol=1e-9, atol=1e-12), name
    with torch.no_grad():
        assert ours.loss(x, decoder_input, labels, smoothing, reduction).item() == pytest.approx(
            expected.item()
        )


def test_the_loss_never_stores_the_whole_logits(monkeypatch):
    """Every tensor that the loss makes is watched: none is as large as tokens x vocabulary."""
    from torch.utils._python_dispatch import TorchDispatchMode

    model = MBart(
        Config(
            vocab_size=5000,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
        )
    )
    monkeypatch.setitem(model_file.LOGITS_BUDGET, "cpu", 4 * 5000 * 7)
    largest = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            largest.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    x, decoder_input, labels = batch(5000, rows=5, source=20, target=40)
    with Watch():
        model.loss(x, decoder_input, labels).backward()
    assert max(largest) < (labels != 1).sum() * 5000 / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_loss_under_autocast_is_close_and_its_gradients_point_the_same_way(dtype):
    torch.manual_seed(0)
    model = MBart(
        Config(
            vocab_size=500,
            d_model=64,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )
    grads = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=enabled):
            value = model.loss(*batch(500))
        value.backward()
        grads.append((value.item(), torch.cat([p.grad.flatten() for p in model.parameters()])))
    assert grads[1][0] == pytest.approx(grads[0][0], rel=0.01)
    assert F.cosine_similarity(grads[0][1], grads[1][1], dim=0) > 0.99


def half_precision_loss(dtype, scale, rows, smoothing):
    """(a loss, its gradients: hidden's, the table's) over 256 labels of a vocabulary of 500, which
    half precision widens to 512, divided by 300, under autocast to dtype; the gradients times a
    loss scale that is divided out again; `rows` positions a chunk."""
    torch.manual_seed(0)
    table = torch.randn(500, 16, requires_grad=True)
    hidden = torch.randn(256, 16, requires_grad=True)
    bias = torch.randn(500)
    labels = torch.randint(0, 500, (256,))
    if dtype == torch.float64:
        logits = hidden.double() @ table.double().T + bias
        loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing) / 300
        return loss, torch.autograd.grad(loss, [hidden, table])
    with (
        pytest.MonkeyPatch.context() as patch,
        torch.autocast("cpu", dtype),
    ):
        patch.setitem(model_file.LOGITS_BUDGET, "cpu", 4 * 500 * rows)
        value = ChunkedCrossEntropy.apply(
            hidden, table, bias, labels, smoothing, 1 / 300, Memory(), loss_and_gradient
        )
    (value * scale).backward()
    return value, (hidden.grad / scale, table.grad / scale)


def away(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 1e-3), (torch.bfloat16, 1e-2)])
def test_half_precision_gradients_bear_every_loss_scale_and_chunks_cost_no_digits(
    dtype, tolerance, smoothing
):
    """A scale of 65,536 is infinite in float16, and a loss divided by its tokens almost zero."""
    wanted_loss, wanted = half_precision_loss(torch.float64, 1, 256, smoothing)
    for scale in (1, 32768, 65536):
        loss, in_one = half_precision_loss(dtype, scale, 256, smoothing)
        _, in_chunks = half_precision_loss(dtype, scale, 8, smoothing)
        assert loss.item() == pytest.approx(wanted_loss.item(), rel=tolerance)
        for whole, chunked, exact in zip(in_one, in_chunks, wanted):
            assert whole.isfinite().all() and chunked.isfinite().all()
            assert away(whole, exact) < tolerance
            assert away(chunked, exact) < 1.1 * away(whole, exact)
            assert (chunked == 0).sum() == (exact == 0).sum()


def test_without_gradients_the_loss_makes_none_of_the_table_and_leaves_the_kept_memory(pair):
    _, ours = pair
    data = batch(ours.config.vocab_size)
    ours.loss(*data).backward()
    gradient = ours.model.shared.weight.grad
    ours.zero_grad()
    with torch.no_grad():
        ours.loss(*data)
    assert ours.memory["gradient"] is gradient and ours.model.shared.weight.grad is None


def test_frozen_embeddings_get_no_gradient_and_the_rest_the_same(pair):
    _, ours = pair
    data = batch(ours.config.vocab_size)
    ours.loss(*data).backward()
    wanted = ours.model.decoder.layers[0].fc1.weight.grad.clone()
    ours.zero_grad()
    ours.model.shared.weight.requires_grad_(False)
    ours.loss(*data).backward()
    assert ours.model.shared.weight.grad is None
    assert torch.allclose(
        ours.model.decoder.layers[0].fc1.weight.grad, wanted, rtol=1e-9, atol=1e-12
    )


def test_a_loss_gives_its_gradients_once_and_says_so(pair):
    _, ours = pair
    loss = ours.loss(*batch(ours.config.vocab_size))
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="compute the loss anew"):
        loss.backward()


def test_labels_padded_on_the_left_and_texts_beyond_the_positions_are_refused(pair):
    _, ours = pair
    x, decoder_input, labels = batch(ours.config.vocab_size)
    with pytest.raises(ValueError, match="padded on the right"):
        ours.loss(x, decoder_input.flip(1), labels.flip(1))
    with pytest.raises(ValueError, match="all of them are padding"):
        ours.loss(x, decoder_input, torch.full_like(labels, ours.config.pad_token_id))
    with pytest.raises(ValueError, match="reduction 'none': give mean, sum or a number"):
        ours.loss(x, decoder_input, labels, reduction="none")
    with pytest.raises(UserError, match="positions"):
        ours(torch.full((1, ours.config.max_position_embeddings + 1), 5), decoder_input[:1])


def test_padding_changes_nothing(pair):
    _, ours = pair
    x, decoder_input, labels = batch(ours.config.vocab_size)
    whole = ours(x, decoder_input)
    for row in range(len(x)):
        real_x, real_y = x[row][x[row] != 1][None], decoder_input[row][labels[row] != 1][None]
        assert torch.allclose(ours(real_x, real_y)[0], whole[row, : real_y.size(1)], atol=1e-12)


def test_decoding_step_by_step_equals_decoding_at_once(pair):
    _, ours = pair
    x, decoder_input, _ = batch(ours.config.vocab_size)
    whole = ours(x, decoder_input.clamp(min=4))
    cache = Cache(ours, x, 1, 20)
    for t in range(decoder_input.size(1)):
        assert torch.allclose(cache.step(decoder_input.clamp(min=4)[:, t]), whole[:, t], atol=1e-12)


def test_every_layers_states_are_transformers_and_upto_runs_no_later_layer(pair):
    other, ours = pair
    x, decoder_input, _ = batch(ours.config.vocab_size)
    expected = other(
        input_ids=x,
        attention_mask=(x != 1).long(),
        decoder_input_ids=decoder_input,
        output_hidden_states=True,
    )
    states = ours.encode(x, all_states=True)
    for a, b in zip(states, expected.encoder_hidden_states, strict=True):
        assert torch.allclose(a[x != 1], b[x != 1], atol=1e-9)
    for a, b in zip(
        ours.decode(decoder_input, states[-1], x, all_states=True),
        expected.decoder_hidden_states,
        strict=True,
    ):
        assert torch.allclose(a, b, atol=1e-9)
    calls = []
    for i, layer in enumerate(ours.model.encoder.layers):
        layer.register_forward_hook(lambda *_, i=i: calls.append(i))
    part = ours.encode(x, upto=1)
    assert calls == [0]
    if len(ours.model.encoder.layers) > 1:
        assert torch.equal(part, states[1])


def test_residual_drop_leaves_out_the_residual_around_self_attention_of_that_layer_alone():
    torch.manual_seed(0)
    shape = {
        "vocab_size": 50,
        "d_model": 16,
        "encoder_layers": 3,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "init_std": 0.3,
    }
    plain, dropped = (
        MBart(Config(**shape)).eval(),
        MBart(Config(**shape, residual_drop_layer=2)).eval(),
    )
    dropped.load_state_dict(plain.state_dict())
    x = torch.randint(4, 50, (2, 7))
    a, b = plain.encode(x, all_states=True), dropped.encode(x, all_states=True)
    assert torch.equal(a[1], b[1]) and not torch.allclose(a[2], b[2])
    layer = plain.model.encoder.layers[1]
    normed = layer.self_attn_layer_norm(a[1])
    assert torch.allclose(b[2], layer.ffn(layer.self_attn(normed, normed)), atol=1e-6)


def test_untied_source_embeddings_are_used_by_the_encoder_alone_and_survive_saving(tmp_path):
    torch.manual_seed(0)
    model = MBart(
        Config(
            vocab_size=50,
            d_model=16,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            source_vocab_size=70,
        )
    ).eval()
    x, y = torch.randint(50, 70, (2, 5)), torch.randint(4, 50, (2, 4))
    before = model(x, y)
    model.save_pretrained(tmp_path)
    again = MBart.from_pretrained(tmp_path).eval()
    assert torch.equal(again(x, y), before)
    with torch.no_grad():
        states = again.encode(x)
        again.model.shared.weight += 1
        assert torch.equal(again.encode(x), states) and not torch.equal(again(x, y), before)


def test_an_encoders_own_embeddings_are_not_taken_for_missing_shared_ones(tmp_path):
    tiny(source_vocab_size=50).save_pretrained(tmp_path)  # as many pieces as the other
    path = tmp_path / "model.safetensors"
    tensors, _ = read_safetensors(path)
    shared = tensors.pop("model.shared.weight")
    write_tensors(tensors, path)
    with pytest.raises(UserError, match="model.shared.weight"):
        MBart.from_pretrained(tmp_path)
    write_tensors(tensors | {"lm_head.weight": shared}, path)
    assert torch.equal(MBart.from_pretrained(tmp_path).model.shared.weight, shared)


# --- files


@pytest.mark.parametrize("layout", ["safetensors", "sharded", "bin", "sharded bin", "old"])
def test_every_published_file_layout_loads_to_the_same_logits(tmp_path, layout):
    other = theirs(encoder_layers=2, decoder_layers=2)
    other.save_pretrained(tmp_path, max_shard_size="30KB" if "sharded" in layout else "5GB")
    if layout == "sharded":
        assert (tmp_path / "model.safetensors.index.json").exists()
    if "bin" in layout or layout == "old":
        from safetensors.torch import load_file

        parts = sorted(tmp_path.glob("*.safetensors"))
        for i, part in enumerate(parts):
            state = load_file(part)
            if layout == "old":  # the tied names too, and no final_logits_bias
                for name in ("lm_head", "model.encoder.embed_tokens", "model.decoder.embed_tokens"):
                    state[f"{name}.weight"] = state["model.shared.weight"]
                del state["final_logits_bias"]
                other.final_logits_bias.zero_()
            torch.save(
                state,
                tmp_path / ("pytorch_model.bin" if len(parts) == 1 else f"part{i}.bin"),
                _use_new_zipfile_serialization=layout != "old",
            )
            part.unlink()
        if len(parts) > 1:
            index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
            names = {part.name: f"part{i}.bin" for i, part in enumerate(parts)}
            index["weight_map"] = {name: names[part] for name, part in index["weight_map"].items()}
            (tmp_path / "model.safetensors.index.json").unlink()
            (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    ours = MBart.from_pretrained(tmp_path, dtype=torch.float64).eval()
    x, decoder_input, labels = batch(90)
    expected = other(
        input_ids=x, attention_mask=(x != 1).long(), decoder_input_ids=decoder_input
    ).logits
    assert (ours(x, decoder_input) - expected)[labels != 1].abs().max() < 1e-9


def test_the_checkpoints_own_config_values_are_read_and_absent_ones_are_transformers_defaults(
    tmp_path,
):
    theirs(scale_embedding=False, encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("scale_embedding", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert (
        MBart.from_pretrained(tmp_path).config.scale_embedding
        is MBartConfig().scale_embedding
        is False
    )
    assert Config().scale_embedding and Config().vocab_size == 250027


def test_what_we_save_opens_in_transformers_with_no_missing_or_unexpected_key_and_equal_logits(
    pair, tmp_path
):
    _, ours = pair
    folder = tmp_path / "saved"
    ours.save_pretrained(folder)
    other, info = MBartForConditionalGeneration.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float64
    )
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    x, decoder_input, labels = batch(ours.config.vocab_size)
    expected = other.eval()(
        input_ids=x, attention_mask=(x != 1).long(), decoder_input_ids=decoder_input
    ).logits
    assert (ours(x, decoder_input) - expected)[labels != 1].abs().max() < 1e-9
    assert not list(folder.glob("*.tmp"))
    assert (folder / "model.safetensors").stat().st_mode & 0o444 == 0o444, "readable by others"


def test_loaded_parameters_train_and_keys_of_the_config_that_we_do_not_use_are_kept(tmp_path):
    theirs(encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"task_specific_params": {"a": 1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = MBart.from_pretrained(tmp_path)
    assert all(
        p.requires_grad and p.dtype == torch.float32 and p.device.type == "cpu"
        for p in model.parameters()
    )
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["task_specific_params"] == {
        "a": 1
    }


def edit(name, change):
    def damage(folder):
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config[name] = change
        path.write_text(json.dumps(config))

    return damage


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def retie(folder):
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["model.shared.weight"] + 1
    save_file(state, folder / "model.safetensors")


def retie_with_nan(folder):
    """As a run that diverged leaves both of the tied names; no NaN equals itself."""
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state["model.shared.weight"][0, 0] = torch.nan
    state["lm_head.weight"] = state["model.shared.weight"].clone()
    save_file(state, folder / "model.safetensors")


def rename(old, new):
    def damage(folder):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        tensor = state.pop(old)
        if new:
            state[new] = tensor
        save_file(state, folder / "model.safetensors")

    return damage


def spoil(value):
    """One number of one tensor, or the type of all."""

    def damage(folder):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        name = "model.decoder.layers.0.fc1.bias"
        if isinstance(value, torch.dtype):
            state[name] = state[name].to(value)
        else:
            state[name][3] = value
        save_file(state, folder / "model.safetensors")

    return damage


def pickled(change):
    """All in pytorch_model.bin, one tensor changed."""

    def damage(folder):
        from safetensors.torch import load_file

        state = load_file(folder / "model.safetensors")
        name = "model.decoder.layers.0.fc1.bias"
        torch.save(state | {name: change(state[name])}, folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()

    return damage


def pointer(name):
    def damage(folder):
        (folder / "model.safetensors").unlink()
        (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")

    return damage


def adapter(missing):
    def damage(folder):
        (folder / missing).unlink()
        settings = {"base_model_name_or_path": "facebook/mbart-large-cc25"}
        (folder / "adapter_config.json").write_text(json.dumps(settings))

    return damage


def checkpoint(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"model": {"a": torch.ones(1)}, "step": 3}, folder / "pytorch_model.bin")


WAS_HERE = Path(tempfile.gettempdir()) / f"qkbart was here {os.getpid()}"


class Hostile:
    def __reduce__(self):
        return exec, (f"import pathlib; pathlib.Path({str(WAS_HERE)!r}).write_text('x')",)


def hostile(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"model.shared.weight": Hostile()}))


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda f: (f / "config.json").unlink(), "config.json: not found"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "not mbart"),
        (edit("model_type", "bart"), "model_type is not mbart"),
        (edit("d_model", "many"), "d_model is 'many'"),
        (edit("d_model", 64), "model.shared.weight has shape (90, 32)"),
        (edit("encoder_layers", 3), "lacks model.encoder"),
        (edit("max_position_embeddings", 10**30), "max_position_embeddings is 1000"),
        (edit("max_position_embeddings", 0), "max_position_embeddings is 0, and a text needs"),
        (edit("encoder_ffn_dim", 10**25), "expected at least 0 and less than 2147483648"),
        (edit("dropout", 10**400), "expected at least 0 and less than 2147483648"),
        (edit("d_model", True), "d_model is True, expected int"),
        (edit("decoder_ffn_dim", -1), "decoder_ffn_dim is -1, expected at least 0"),
        (pickled(torch.Tensor.to_sparse), "fc1.bias is a sparse tensor, or one without its"),
        (pickled(lambda bias: bias.to("meta")), "fc1.bias is a sparse tensor, or one without its"),
        (edit("encoder_attention_heads", 5), "multiple"),
        (edit("decoder_layers", 0), "other tensors that an mBART of this"),
        (edit("activation_function", "swish"), "activation_function 'swish'"),
        (edit("pad_token_id", 0), "pad_token_id is 0"),
        (edit("eos_token_id", 5), "eos_token_id is 5"),
        (edit("dropout", 1.5), "dropout 1.5 is not at least 0 and less than 1"),
        (edit("attention_dropout", float("nan")), "attention_dropout nan"),
        (edit("residual_drop_layer", 2), "residual_drop_layer 2 is none of the 1 encoder layers"),
        (edit("bos_token_id", 2), "bos_token_id is 2"),
        (spoil(float("nan")), "fc1.bias holds NaN or infinite numbers"),
        (spoil(float("inf")), "fc1.bias holds NaN or infinite numbers"),
        (spoil(float("-inf")), "fc1.bias holds NaN or infinite numbers"),
        (spoil(torch.int8), "fc1.bias is int8, as in quantized checkpoints"),
        (pointer("model.safetensors"), "model.safetensors: only a Git LFS pointer"),
        (pointer("pytorch_model.bin"), "pytorch_model.bin: only a Git LFS pointer"),
        (pointer("model.safetensors.index.json"), "index.json: only a Git LFS pointer"),
        (pointer("config.json"), "config.json: only a Git LFS pointer"),
        (adapter("config.json"), "a PEFT adapter, not a whole model; load it with PEFT"),
        (adapter("model.safetensors"), "(facebook/mbart-large-cc25), call merge_and_unload()"),
        (checkpoint, "pytorch_model.bin: not a table of tensors by name"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (cut, "model.safetensors: damaged or cut short"),
        (retie, "lm_head.weight differs"),
        (retie_with_nan, "lm_head.weight holds NaN or infinite numbers"),
        (rename("model.encoder.layers.0.fc1.bias", None), "fc1.bias"),
        (rename("model.encoder.layers.0.fc1.bias", "model.encoder.layers.0.fc3.bias"), "fc1.bias"),
        (hostile, "pytorch_model.bin: cannot be read safely"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_with_its_name_and_nothing_is_executed(
    tmp_path, damage, words
):
    theirs(encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError) as caught:
        MBart.from_pretrained(tmp_path)
    assert (
        words in str(caught.value)
        and str(tmp_path) in str(caught.value)
        and "\n" not in str(caught.value)
    )
    assert not WAS_HERE.exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("old", [{}, {"dtype": "bfloat16"}, {"torch_dtype": "float16"}])
def test_a_saved_folder_says_the_type_of_what_is_in_it(tmp_path, old, dtype):
    """Whatever the base's config.json said; transformers opens it without rounding."""
    theirs(encoder_layers=1, decoder_layers=1, vocab_size=90).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        config.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config | old))
    ours = MBart.from_pretrained(tmp_path)
    with torch.no_grad():
        ours.model.shared.weight.add_(1e-5)  # what training in float32 changes
    ours = ours.to(getattr(torch, dtype))
    ours.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert written["dtype"] == written["torch_dtype"] == dtype
    other = MBartForConditionalGeneration.from_pretrained(tmp_path / "again", dtype="auto")
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, ours.get_parameter(name)), name
        assert parameter.dtype == getattr(torch, dtype)


def test_tensors_of_several_types_are_said_to_have_the_widest(tmp_path):
    model = MBart(Config(**TINY)).bfloat16()
    tensors = model.state_dict()
    tensors["final_logits_bias"] = tensors["final_logits_bias"].float()
    model.save_pretrained(tmp_path, tensors)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"


def test_a_shard_that_is_a_pointer_is_named(tmp_path):
    theirs(encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path, max_shard_size="30KB")
    shard = next(tmp_path.glob("model-00002*"))
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    with pytest.raises(UserError, match="model-00002.*only a Git LFS pointer"):
        MBart.from_pretrained(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    theirs(encoder_layers=1, decoder_layers=1).save_pretrained(tmp_path, max_shard_size="30KB")
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(UserError, match="model-00002.*copy the missing shard"):
        MBart.from_pretrained(tmp_path)


LOADING = """
import re, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from model import MBart

def peak():  # not getrusage's, which starts at the size of the process that started this one
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

MBart.from_pretrained(Path(sys.argv[1]) / "base")  # what torch imports along the way is not counted
before = peak()
model = MBart.from_pretrained(sys.argv[2])
total = sum(p.sum().item() for p in model.parameters())  # touch every page
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux")
@pytest.mark.parametrize("file_dtype", ["float32", "float16"])
def test_a_large_checkpoint_is_not_held_twice_while_it_loads(tmp_path, file_dtype):
    """Peak memory of loading 110 MB, in a process of its own, stays well under two copies.

    A file in half precision is half a copy, for as long as it is read."""
    config = Config(
        vocab_size=40_000,
        d_model=512,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=2048,
        decoder_ffn_dim=2048,
    )
    model = MBart(config)
    size = sum(p.numel() for p in model.parameters()) * 4
    model.to(getattr(torch, file_dtype)).save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", LOADING, str(ROOT), str(tmp_path)], capture_output=True, text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert 0.9 * size < int(done.stdout) < 1.6 * size, f"{int(done.stdout) / size:.2f} copies"


def test_run_alone_it_shows_a_folders_shape_one_thing_a_line(run, small):
    done = run("model.py", small)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["d_model", "32"] in lines and ["encoder_layers", "2"] in lines
    assert lines[-1][-1] == "parameters" and all(len(line) == 2 for line in lines)


def test_the_same_weights_make_the_same_file(tmp_path):
    """Whatever the metadata: a base is known by its file's size and CRC-32."""
    tensors = {"b": torch.ones(3), "a": torch.zeros(2, 2, dtype=torch.bfloat16)}
    texts = {"z": "1", "args": '{"name": "é\u0001\n"}', "base": "x", "layer": "0"}
    written = set()
    for number in range(20):
        path = tmp_path / f"{number}.safetensors"
        write_tensors(tensors, path, **texts)
        written.add(path.read_bytes())
    assert len(written) == 1
    read, metadata = read_safetensors(path)
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert texts.items() <= metadata.items()


def test_where_a_mapped_file_cannot_be_replaced_its_tensors_are_copies(tmp_path, monkeypatch):
    """As on Windows: nothing is left of the file once it is read."""
    monkeypatch.setattr("plumbing.weights.MAPPED_FILES_CAN_BE_REPLACED", False)
    path = tmp_path / "model.safetensors"
    write_tensors({"a": torch.ones(1000)}, path)
    read, _ = read_safetensors(path)
    with open(path, "r+b") as file:  # the same file, where another one is put in its place
        file.write(bytes(path.stat().st_size))
    assert torch.equal(read["a"], torch.ones(1000))


def test_the_bases_weights_written_again_are_the_same_file(tmp_path):
    base = ROOT / "base" / "model.safetensors"
    tensors, _ = read_safetensors(base)
    write_tensors(tensors, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == base.read_bytes()


def tiny(**changes):
    """A model of one layer a side."""
    shape = {
        "vocab_size": 50, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 1, "decoder_attention_heads": 1, "encoder_ffn_dim": 8,
        "decoder_ffn_dim": 8, "max_position_embeddings": 40,
    }
    return MBart(Config(**shape | changes))


def test_an_embedded_text_is_dropped_in_training_and_never_otherwise():
    """As transformers has it (Lewis 2019): dropout follows the embeddings' norm."""
    model = tiny(d_model=64, dropout=0.3)
    ids = torch.randint(4, 50, (4, 30))
    for stack in (model.model.encoder, model.model.decoder):
        model.train()
        torch.manual_seed(0)
        dropped = (stack.embed(ids, model.model.shared.weight) == 0).float().mean().item()
        assert dropped == pytest.approx(0.3, abs=0.03)
        model.eval()
        assert (stack.embed(ids, model.model.shared.weight) != 0).all()


@pytest.mark.parametrize("side, part", [
    ("encoder", "self_attn.out_proj"), ("encoder", "fc2"), ("decoder", "self_attn.out_proj"),
    ("decoder", "encoder_attn.out_proj"), ("decoder", "fc2"),
])
def test_what_a_part_of_a_layer_adds_is_dropped_in_training(side, part):
    """The part adds ones, the others nothing."""
    model = tiny(d_model=64, dropout=0.3)
    stack = getattr(model.model, side)
    for name, parameter in stack.layers[0].named_parameters():
        if name.startswith(("self_attn.out_proj", "encoder_attn.out_proj", "fc2")):
            torch.nn.init.constant_(parameter, float(name == f"{part}.bias"))
    x = torch.randn(4, 30, 64)
    added = stack.train()(x, encoder_states=torch.randn(4, 5, 64), upto=1) - x
    assert (added.abs() < 1e-4).float().mean().item() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(added[added > 0.5], torch.full_like(added[added > 0.5], 1 / 0.7))
    added = stack.eval()(x, encoder_states=torch.randn(4, 5, 64), upto=1) - x
    torch.testing.assert_close(added, torch.ones_like(added))


def test_a_source_is_padded_for_a_gpu_within_the_models_positions():
    model = tiny()
    for length, width in ((1, 16), (16, 16), (17, 32), (33, 40), (40, 40)):
        ids = torch.ones(2, length, dtype=torch.long, device="meta")
        assert model.widened(ids).shape == (2, width)


def test_a_target_that_is_too_long_is_one_error():
    model = tiny(max_position_embeddings=10)
    short = torch.full((1, 10), 7)
    model.loss(short, short, short)
    long = torch.full((1, 11), 7)
    with pytest.raises(UserError, match="decoder input of 11 tokens, but the model has 10 pos"):
        model.loss(short, long, long)


@pytest.mark.parametrize("scaled, size", [(True, 0.4), (False, 0.05)])
def test_a_new_models_positions_are_as_large_as_its_scaled_tokens(scaled, size):
    model = tiny(d_model=64, init_std=0.05, scale_embedding=scaled)
    for stack in (model.model.encoder, model.model.decoder):
        found = stack.embed_positions.weight.square().mean().sqrt().item()
        assert found == pytest.approx(size, rel=1e-4)
    weight = model.model.encoder.layers[0].self_attn.q_proj.weight
    assert weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert not model.model.shared.weight[PAD].any()


def test_activation_dropout_drops_in_training_alone():
    model = tiny(d_model=64, dropout=0.0, activation_dropout=0.5)
    ids = torch.randint(4, 50, (2, 9))
    model.train()
    assert not torch.equal(model(ids, ids), model(ids, ids))
    model.eval()
    assert torch.equal(model(ids, ids), model(ids, ids))
