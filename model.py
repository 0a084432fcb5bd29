"""mBART, the transformer, and the converter to and from the Hugging Face layout.

    encoder   x_0 = LN(s E[source] + P[positions])                       (B, S, D)    s = sqrt(D) if scale_embedding
              x   = x + SelfAttention(LN(x));   x = x + FFN(LN(x))       for every layer (pre-norm)
    decoder   the same with causal self-attention and, between the two, y = y + CrossAttention(LN(y), LN(x_L))
    logits    LN(y_L) E^T + final_logits_bias                            (B, T, V)    E is tied to the input embedding
    attention softmax(Q K^T / sqrt(d)) V  with  Q = x W_q + b_q,  K = y W_k + b_k,  V = y W_v + b_v
    FFN       gelu(x W_1 + b_1) W_2 + b_2

as in Vaswani et al. 2017 with the changes of BART and mBART: learned positions (their table starts with two unused
rows), layer norm after the embedding, a last layer norm on each stack. Parameter names are those of the Hugging Face
checkpoints, so that loading renames nothing. Q, K and V are three projections, each of which can be frozen by itself.

Run it alone to see a folder's shape and that it loads:  python model.py base
"""
import json
import math
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from plumbing.files import UserError, read_json, run, write_text
from plumbing.memory import Memory
from plumbing.weights import check_shapes, check_types, read_tensors, write_tensors

TIED = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
ACTIVATIONS = ("gelu", "relu")
KINDS_OF_LAYER = 32  # graphs to compile at most: of both sides, in training or not, behind frozen weights or not, for
# one text or more; with torch's limit of 8 the last of them would silently not be compiled
LOGITS_BUDGET = 256 * 2**20  # bytes of logits held at a time; each chunk passes over the whole of E three times


@dataclass
class Config:
    """The keys of config.json that the model reads. The defaults are mbart-large-cc25's published values."""
    vocab_size: int = 250027
    d_model: int = 1024
    encoder_layers: int = 12
    decoder_layers: int = 12
    encoder_attention_heads: int = 16
    decoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_ffn_dim: int = 4096
    max_position_embeddings: int = 1024
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = True
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2
    decoder_start_token_id: int | None = None  # mBART-50: </s>; mBART-25: none (starts with LANG)
    source_vocab_size: int | None = None  # ours: an untied embedding of this many rows for the encoder's input
    residual_drop_layer: int = 0  # ours: this encoder layer (from 1) has no self-attention residual; 0: none
    extra: dict = field(default_factory=dict)  # all other keys of config.json, kept as they are

    # What transformers' MBartConfig assumes for keys that a config.json leaves out, where it is not the value above.
    ABSENT = {"vocab_size": 50265, "scale_embedding": False, "attention_dropout": 0.0}
    WRITTEN = {"model_type": "mbart", "architectures": ["MBartForConditionalGeneration"], "is_encoder_decoder": True,
               "tie_word_embeddings": True, "normalize_before": True, "normalize_embedding": True,
               "add_final_layer_norm": True}

    @classmethod
    def read(cls, path):
        """config.json -> Config; UserError if it is missing, not JSON or not an mBART's."""
        values = read_json(path)
        if values is None:
            raise UserError(f"{path}: not found; a model folder holds config.json and its weights")
        if not isinstance(values, dict) or values.get("model_type", "mbart") != "mbart":
            raise UserError(f"{path}: model_type is not mbart; only mBART folders can be read")
        own = {f.name: f.type for f in fields(cls) if f.name != "extra"}
        read = cls.ABSENT | {k: v for k, v in values.items() if k in own}
        read = {name: read.get(name, getattr(cls, name)) for name in own}
        check_types(read, own, path)
        config = cls(**read, extra={k: v for k, v in values.items() if k not in own})
        config.check(path)
        return config

    def check(self, where="config"):
        if self.activation_function not in ACTIVATIONS:
            raise UserError(f"{where}: activation_function {self.activation_function!r} is not one of "
                            f"{', '.join(ACTIVATIONS)}")
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if not heads or self.d_model % heads:
                raise UserError(f"{where}: d_model {self.d_model} is not a multiple of {side}_attention_heads {heads}")

    def write(self, path):
        values = {k: v for k, v in asdict(self).items() if k != "extra"}
        if self.source_vocab_size is None:
            del values["source_vocab_size"]
        if not self.residual_drop_layer:
            del values["residual_drop_layer"]
        write_text(path, json.dumps(self.extra | self.WRITTEN | values, indent=2) + "\n")


def read_fitting(folder, expected):
    """{name: tensor} of a model folder with the names and shapes of `expected`. Tied names that the file repeats, and a
    bias that it lacks, are put right; UserError names the file and the first tensor that does not fit."""
    tensors, where = read_tensors(folder)
    shared = tensors.get("model.shared.weight")
    if shared is None:  # some checkpoints carry only one of the tied names
        shared = next((tensors[name] for name in TIED if name in tensors), None)
        tensors |= {} if shared is None else {"model.shared.weight": shared}
    for name in TIED:
        if name in tensors and name not in expected:
            tied = tensors.pop(name)
            if tied is not shared and not (tied.shape == shared.shape and torch.equal(tied, shared)):
                raise UserError(f"{where}: {name} differs from model.shared.weight, but mBART ties them; the file is "
                                "not a plain mBART checkpoint")
    tensors.setdefault("final_logits_bias", torch.zeros(expected["final_logits_bias"].shape))
    check_shapes(tensors, expected, where)
    return tensors


class Attention(nn.Module):
    def __init__(self, config, heads):
        super().__init__()
        d_model = config.d_model
        self.heads, self.config = heads, config  # the config itself: a run may change its dropout
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def split(self, x):
        return x.view(x.size(0), x.size(1), self.heads, -1).transpose(1, 2)  # (B, T, D) -> (B, H, T, d)

    def attend(self, q, k, v, mask=None, causal=False):
        """q (B, H, T, d), k and v (B, H, S, d) -> (B, T, D); mask (B, 1, 1, S) is true where to look."""
        dropout = self.config.attention_dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal)  # (B, H, T, d)
        return out.transpose(1, 2).flatten(2)  # (B, T, D)

    def forward(self, x, y, mask=None, causal=False):
        """Queries from x (B, T, D), keys and values from y (B, S, D); mask as above."""
        q, k, v = self.q_proj(x), self.k_proj(y), self.v_proj(y)
        return self.out_proj(self.attend(self.split(q), self.split(k), self.split(v), mask, causal))


class Layer(nn.Module):
    """One pre-norm layer; the decoder's has cross-attention in its middle."""

    def __init__(self, config, decoder=False, residual=True):
        super().__init__()
        side = "decoder" if decoder else "encoder"
        heads, ffn = getattr(config, f"{side}_attention_heads"), getattr(config, f"{side}_ffn_dim")
        self.decoder, self.residual, self.config = decoder, residual, config
        self.self_attn = Attention(config, heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        if decoder:
            self.encoder_attn = Attention(config, heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, ffn)
        self.fc2 = nn.Linear(ffn, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def drop(self, x):
        return F.dropout(x, self.config.dropout, self.training)

    def ffn(self, x):
        hidden = getattr(F, self.config.activation_function)(self.fc1(self.final_layer_norm(x)))  # (B, T, F)
        return x + self.drop(self.fc2(F.dropout(hidden, self.config.activation_dropout, self.training)))

    def forward(self, x, mask, states=None, cross_mask=None):
        normed = self.self_attn_layer_norm(x)
        attended = self.drop(self.self_attn(normed, normed, mask, causal=self.decoder))
        x = x + attended if self.residual else attended  # without: position-bound identity cannot flow straight on
        if self.decoder:
            x = x + self.drop(self.encoder_attn(self.encoder_attn_layer_norm(x), states, cross_mask))
        return self.ffn(x)


class Stack(nn.Module):
    """Encoder or decoder: embedding, layers, last norm. Token embeddings are passed in, for they are shared."""

    def __init__(self, config, decoder=False):
        super().__init__()
        self.config = config
        if not decoder and config.source_vocab_size is not None:
            self.embed_tokens = nn.Embedding(config.source_vocab_size, config.d_model)
        self.embed_positions = nn.Embedding(config.max_position_embeddings + 2, config.d_model)  # two unused rows first
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.layers = nn.ModuleList(
            Layer(config, decoder, residual=decoder or i + 1 != config.residual_drop_layer)
            for i in range(config.decoder_layers if decoder else config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)

    def embed(self, ids, table, start=0):
        """ids (B, T), the first of them at position `start` -> (B, T, D)."""
        positions = torch.arange(start, start + ids.size(1), device=ids.device)
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        x = Lookup.apply(ids, table) * scale + self.embed_positions(positions + 2)
        return F.dropout(self.layernorm_embedding(x), self.config.dropout, self.training)

    def forward(self, x, mask, states=None, cross_mask=None, upto=None, all_states=False):
        """Embedded x (B, T, D) through the layers; masks as Attention has them."""
        kept = [x]
        for layer in self.layers[:upto]:
            x = layer(x, mask, states, cross_mask)
            kept.append(x)
        if all_states:
            return [*kept[:-1], self.layer_norm(x)]
        return x if upto is not None else self.layer_norm(x)


class MBart(nn.Module):
    """The whole model. model(source, decoder_input) -> logits; .loss for training; generate.py decodes."""

    def __init__(self, config):
        super().__init__()
        config.check()
        self.config = config
        self.memory = Memory()
        self.head = F.linear  # of project(); pack_for_decoding() puts a quicker one here
        self.model = nn.Module()  # the checkpoints' names begin with "model."
        self.model.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.model.encoder = Stack(config)
        self.model.decoder = Stack(config, decoder=True)
        self.register_buffer("final_logits_bias", torch.zeros(1, config.vocab_size))
        if self.final_logits_bias.device.type != "meta":
            self.initialize()

    @torch.no_grad()
    def initialize(self):
        """N(0, init_std) weights, zero biases. Positions start as sinusoids (Vaswani et al. 2017, section 3.5) of the
        size of the scaled token embeddings: from random positions a small base learns to copy much later."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, self.config.init_std)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        for stack in (self.model.encoder, self.model.decoder):
            rows, d = stack.embed_positions.weight.shape
            angles = torch.arange(rows)[:, None] * torch.exp(torch.arange(0, d, 2) * (-math.log(1e4) / d))
            waves = torch.cat([angles.sin(), angles.cos()[:, :d // 2]], 1)  # mean square 1/2
            stack.embed_positions.weight.copy_(waves * math.sqrt(2) * self.config.init_std * scale)
        self.model.shared.weight[self.config.pad_token_id] = 0

    def drop_residual(self, layer):
        """Takes away the residual around the self-attention of one encoder layer, counted from 1 (Solovyev et al. 2024,
        section 3.4); config.json records it."""
        if not 1 <= layer <= self.config.encoder_layers:
            raise UserError(f"there is no encoder layer {layer} to drop a residual in; the model has layers 1 to "
                            f"{self.config.encoder_layers}")
        self.config.residual_drop_layer = layer
        for i, module in enumerate(self.model.encoder.layers):
            module.residual = i + 1 != layer

    # --- training

    def zero_grad(self, set_to_none=True):
        """Drops the gradients, but keeps the memory of the table's for the next update."""
        if set_to_none and self.model.shared.weight.grad is not None:
            self.memory["gradient"] = self.model.shared.weight.grad
        super().zero_grad(set_to_none)

    def compile_layers(self):
        """torch.compile for every layer: one graph for each kind of layer serves them all; pays on a GPU."""
        for stack in (self.model.encoder, self.model.decoder):
            for layer in stack.layers:
                layer.compile(dynamic=True, recompile_limit=KINDS_OF_LAYER)

    def source_table(self):
        """The encoder's token embeddings: its own if untied, else the shared ones."""
        return getattr(self.model.encoder, "embed_tokens", self.model.shared).weight

    def mask(self, source):
        return (source != self.config.pad_token_id)[:, None, None, :]  # (B, 1, 1, S), true where there is a token

    def check_length(self, ids, name):
        if ids.size(1) > self.config.max_position_embeddings:
            raise UserError(f"{name} of {ids.size(1)} tokens, but the model has {self.config.max_position_embeddings} "
                            "positions; cut it")

    def encode(self, source, upto=None, all_states=False):
        """source (B, S) -> states (B, S, D) after the last layer norm.

        upto=N stops after layer N and returns its output as it is: no later layer runs.
        all_states=True: a list of L + 1, the embedding's output, that of layers 1 to L - 1, and the normed last."""
        self.check_length(source, "source")
        x = self.model.encoder.embed(source, self.source_table())
        return self.model.encoder(x, self.mask(source), upto=upto, all_states=all_states)

    def decode(self, decoder_input, states, source, all_states=False):
        """decoder_input (B, T), encoder states (B, S, D), source (B, S; for its padding) -> (B, T, D), or the list of
        every layer's as in encode()."""
        self.check_length(decoder_input, "decoder input")
        x = self.model.decoder.embed(decoder_input, self.model.shared.weight)
        return self.model.decoder(x, None, states, self.mask(source), all_states=all_states)

    def project(self, hidden):
        """(..., D) -> logits (..., V)."""
        return self.head(hidden, self.model.shared.weight, self.final_logits_bias[0].to(hidden.dtype))

    def forward(self, source, decoder_input):
        """(B, S), (B, T) int64 -> logits (B, T, V)."""
        return self.project(self.decode(decoder_input, self.encode(source), source))

    def token_states(self, source):
        """source (B, S) -> the encoder's states (N, D) of its N tokens that are not padding, row after row."""
        return self.encode(source)[source != self.config.pad_token_id]

    def loss(self, source, decoder_input, labels, label_smoothing=0.0, reduction="mean", with_states=False):
        """Cross-entropy over the labels that are not padding: their "mean", "sum", or the sum divided by a number.

        Only these positions are projected, a chunk at a time: the logits of all of them are never stored together.
        with_states: returns (loss, token_states(source)). ValueError if padding is not on the right."""
        real, shared = labels != self.config.pad_token_id, self.model.shared.weight
        if bool((real[:, 1:] & ~real[:, :-1]).any()):
            raise ValueError("labels must be padded on the right: a label stands behind padding")
        padded = self.encode(source)
        states = padded[source != self.config.pad_token_id]
        hidden = self.decode(decoder_input, padded, source)[real]
        scale = 1 / {"mean": len(hidden), "sum": 1}.get(reduction, reduction)
        total = ChunkedCrossEntropy.apply(hidden, shared, self.final_logits_bias[0], labels[real], label_smoothing,
                                          scale, self.memory)
        return (total, states) if with_states else total

    # --- files

    @classmethod
    def from_pretrained(cls, folder, dtype=torch.float32):
        """Reads config.json and model.safetensors or pytorch_model.bin, whole or sharded, in mBART's own names.

        Every key and shape is checked before anything is used. The tensors read become the parameters themselves:
        the weights are in memory once. UserError names the file and the key that does not fit."""
        config = Config.read(Path(folder) / "config.json")
        with torch.device("meta"):
            model = cls(config)
        tensors = read_fitting(Path(folder), model.state_dict())
        for name in list(tensors):  # one at a time: a half-precision file is converted without a second copy
            tensors[name] = tensors[name].to(dtype)
        model.load_state_dict(tensors, assign=True)
        return model

    def save_pretrained(self, folder, state=None):
        """Writes config.json, generation_config.json and model.safetensors; transformers opens the folder as it is.
        state: the tensors, if they are not the state_dict's own."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(state or self.state_dict(), folder / "model.safetensors")
        self.config.write(folder / "config.json")
        ids = {name: getattr(self.config, name) for name in ("bos_token_id", "pad_token_id", "eos_token_id",
                                                             "decoder_start_token_id")}
        write_text(folder / "generation_config.json", json.dumps(
            {name: value for name, value in ids.items() if value is not None}, indent=2) + "\n")


# ---------------------------------------------------------------------------------------------- the loss

# The training loss over a large vocabulary, without ever holding the logits of a whole batch. E is most of a small
# model's weights, and up to a gigabyte of gradient. Its three gradients (the output head's and two of lookups) are
# therefore written into one piece of memory, which the next update uses again: on a CPU fresh memory costs more than
# the arithmetic done in it (half of a training step at V = 250,027).

class Lookup(torch.autograd.Function):
    """E[ids], whose gradient is added to E.grad in place: only the rows used, no other table of zeros."""

    @staticmethod
    def forward(ctx, ids, table):
        ctx.ids, ctx.table = ids, table
        return F.embedding(ids, table)

    @staticmethod
    def backward(ctx, grad):
        if ctx.table.grad is None:
            ctx.table.grad = torch.zeros_like(ctx.table)
        ctx.table.grad.index_add_(0, ctx.ids.flatten(), grad.flatten(0, -2).to(ctx.table.dtype))
        return None, None


class ChunkedCrossEntropy(torch.autograd.Function):
    """scale * sum_n -log softmax(h_n E^T + b)[y_n], label-smoothed: (1 - a) of it plus a / V of the sum over all words.

    With p the softmax, the gradient by the logits is  p - (1 - a) onehot(y) - a / V, so it is computed right away, in
    the logits' own memory, and taken to h and (only if it trains) E before the next chunk's logits overwrite it. E's is
    put into E.grad directly."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, smoothing, scale, memory):
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        n, vocab, device = hidden.size(0), weight.size(0), hidden.device.type
        chunks = max(1, math.ceil(n * 4 * vocab / LOGITS_BUDGET))  # of equal size
        rows = math.ceil(n / chunks)
        head = weight.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else weight
        total = hidden.new_zeros((), dtype=torch.promote_types(weight.dtype, torch.float32))
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = memory.take("gradient", weight.shape, head) if need_weight else None
        whole = memory.take("logits", (rows, vocab), head)
        with torch.autocast(device, enabled=False):
            for start in range(0, n, rows):
                h, y = hidden[start:start + rows].to(head.dtype), labels[start:start + rows, None]
                logits = torch.mm(h, head.T, out=whole[:len(h)]).to(total.dtype).add_(bias)  # half precision ends here
                true, mean, top = logits.gather(1, y), logits.mean(1) if smoothing else 0, logits.amax(1)
                p = torch.softmax(logits, 1, out=logits)
                log_sum = top - p.amax(1).log()  # p's largest never underflows, unlike the label's
                total += (log_sum - (1 - smoothing) * true[:, 0] - smoothing * mean).sum()
                if need_hidden or need_weight:
                    grad = p.scatter_add_(1, y, torch.full_like(true, smoothing - 1))
                    grad = (grad.sub_(smoothing / vocab) if smoothing else grad).to(head.dtype)
                    if need_hidden:
                        grad_hidden[start:start + rows] = (grad @ head).mul_(scale)
                    if need_weight:  # beta 0: what the memory held before is not read
                        grad_weight.addmm_(grad.T, h * scale, beta=float(start > 0))
        memory["logits"] = whole
        ctx.gradients, ctx.weight = (grad_hidden, grad_weight), weight
        return total * scale

    @staticmethod
    def backward(ctx, grad):
        (grad_hidden, grad_weight), ctx.gradients = ctx.gradients, (None, None)
        for tensor in (grad_hidden, grad_weight):
            if tensor is not None and (grad.is_cuda or grad != 1):
                tensor.mul_(grad.to(tensor.dtype))
        if grad_weight is not None:
            grad_weight = grad_weight.to(ctx.weight.dtype)
            if ctx.weight.grad is None:
                ctx.weight.grad = grad_weight
            else:
                ctx.weight.grad += grad_weight
        return grad_hidden, *[None] * 6


def main():
    model = MBart.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "base")
    print(model.config)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")


if __name__ == "__main__":
    run(main)
