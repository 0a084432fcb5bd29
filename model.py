"""mBART: the transformer, its loss, and reading and writing Hugging Face folders.

    encoder    x_0 = LN(s E[source] + P[positions])                 (B, S, D)
               x   = x + SelfAttention(LN(x))
               x   = x + FFN(LN(x))                                 for every layer (pre-norm)
    decoder    the same with causal self-attention and, between the two,
               y   = y + CrossAttention(LN(y), LN(x_L))             (B, T, D)
    logits     LN(y_L) E^T + final_logits_bias                      (B, T, V)
               x_L, y_L: the last layer's output

    attention  of a to c: concat over heads of softmax(Q K^T / sqrt(d)) V, then W_o and b_o
               with  Q = a W_q + b_q,  K = c W_k + b_k,  V = c W_v + b_v;  d = D / heads
               SelfAttention(x) is of x to x, CrossAttention(y, x) of y to x
    FFN        gelu(x W_1 + b_1) W_2 + b_2
    s          sqrt(D) if scale_embedding, else 1; E is one table for both inputs and the output

Shapes, here and in the other files: B texts of S source and T target tokens, D = d_model, d = D / H
with H heads, V entries of the vocabulary; N tokens (or labels) that are not padding; R rows of a
chunk; L layers of a stack; V' is V rounded up, in half precision (head_in_half(), below).

The architecture is that of Vaswani et al. 2017 with the changes of BART and mBART: learned
positions (their table starts with two unused rows), layer norm after the embedding, a last layer
norm on each stack. Parameter names are those of the Hugging Face checkpoints, so that loading
renames nothing. Q, K and V are three projections, each of which can be frozen by itself.

Run it alone to see a folder's shape and that it loads:  python model.py base
"""
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from plumbing.files import UserError, of_their_kinds, parser_of, read_json, run, write_json
from plumbing.layout import layout_of
from plumbing.memory import Memory
from plumbing.models import MODEL_HELP, model_folder, refuse_adapter, weights_file
from plumbing.weights import check_numbers, check_shapes, read_tensors, write_tensors

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu}
# cuDNN's attention, which torch prefers on some GPUs, builds a plan for every new shape (half a
# second each on a B200, as is reported of torch 2.11), and nearly every batch has a new one.
torch.backends.cuda.enable_cudnn_sdp(False)

# On a GPU masks are padded to a multiple of this width: attention would copy any other mask in
# every layer.
MASK_WIDTH = 16


class Attention(nn.Module):
    """Multi-head attention with W_q, W_k, W_v and W_o by themselves, each (D, D) with a bias."""

    def __init__(self, config, heads):
        super().__init__()
        self.config = config  # the config itself: a run may change its dropout
        self.heads = heads
        self.q_proj = nn.Linear(config.d_model, config.d_model)
        self.k_proj = nn.Linear(config.d_model, config.d_model)
        self.v_proj = nn.Linear(config.d_model, config.d_model)
        self.out_proj = nn.Linear(config.d_model, config.d_model)

    def forward(self, a, c, mask=None, causal=False):
        """Attention of a (B, T, D) to c (B, S, D) -> (B, T, D); mask and causal as in attend()."""
        q = self.split(self.q_proj(a))  # (B, H, T, d)
        k = self.split(self.k_proj(c))  # (B, H, S, d)
        v = self.split(self.v_proj(c))
        return self.out_proj(self.attend(q, k, v, mask, causal))

    def split(self, x):
        """(B, T, D) -> (B, H, T, d)."""
        return x.view(x.size(0), x.size(1), self.heads, -1).transpose(1, 2)

    def attend(self, q, k, v, mask=None, causal=False):
        """softmax(q k^T / sqrt(d)) v of every head, side by side: (B, T, D).

        mask, broadcast to (B, H, T, S): boolean, true where a query may look; or a float, added to
        q k^T / sqrt(d). causal: query t sees keys 0 to t only."""
        dropout = self.config.attention_dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal)
        return out.transpose(1, 2).flatten(2)  # (B, H, T, d) -> (B, T, D)


class Layer(nn.Module):
    """One pre-norm layer; the decoder's has cross-attention in its middle."""

    def __init__(self, config, is_decoder=False, has_residual=True):
        super().__init__()
        if is_decoder:
            heads = config.decoder_attention_heads
            ffn_dim = config.decoder_ffn_dim
        else:
            heads = config.encoder_attention_heads
            ffn_dim = config.encoder_ffn_dim
        self.config = config
        self.is_decoder = is_decoder
        self.has_residual = has_residual
        self.self_attn = Attention(config, heads)
        self.self_attn_layer_norm = nn.LayerNorm(config.d_model)
        if is_decoder:
            self.encoder_attn = Attention(config, heads)
            self.encoder_attn_layer_norm = nn.LayerNorm(config.d_model)
        self.fc1 = nn.Linear(config.d_model, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, config.d_model)
        self.final_layer_norm = nn.LayerNorm(config.d_model)

    def forward(self, x, mask=None, encoder_states=None, encoder_mask=None):
        """x (B, T, D) -> (B, T, D).

        mask: of x's own padding, as Attention.attend() takes it; the decoder's attention is causal
        and has none. encoder_states (B, S, D) and encoder_mask, of their padding (B, 1, 1, S): the
        decoder's alone."""
        normed = self.self_attn_layer_norm(x)
        attended = self.drop(self.self_attn(normed, normed, mask, causal=self.is_decoder))
        if self.has_residual:
            x = x + attended
        else:  # drop_residual(): a position keeps nothing of its own but what attention brings
            x = attended
        if self.is_decoder:
            normed = self.encoder_attn_layer_norm(x)
            x = x + self.drop(self.encoder_attn(normed, encoder_states, encoder_mask))
        return self.ffn(x)

    def ffn(self, x):
        """(..., D) -> the same shape: (B, T, D), while decoding (N*K, D)."""
        activation = ACTIVATIONS[self.config.activation_function]
        hidden = activation(self.fc1(self.final_layer_norm(x)))  # (..., ffn_dim)
        hidden = F.dropout(hidden, self.config.activation_dropout, self.training)
        return x + self.drop(self.fc2(hidden))

    def drop(self, x):
        return F.dropout(x, self.config.dropout, self.training)


class Stack(nn.Module):
    """Encoder or decoder: embedding, layers, last norm.

    embed() is given the token table: the shared one, or embed_tokens where the encoder has a
    vocabulary of its own (Config.source_vocab_size, below)."""

    def __init__(self, config, is_decoder=False):
        super().__init__()
        self.config = config
        if not is_decoder and config.source_vocab_size is not None:
            self.embed_tokens = nn.Embedding(config.source_vocab_size, config.d_model)
        positions = config.max_position_embeddings + 2  # the first two rows are never used
        self.embed_positions = nn.Embedding(positions, config.d_model)
        self.layernorm_embedding = nn.LayerNorm(config.d_model)
        self.layers = nn.ModuleList()
        count = config.decoder_layers if is_decoder else config.encoder_layers
        for number in range(1, count + 1):
            has_residual = is_decoder or number != config.residual_drop_layer
            self.layers.append(Layer(config, is_decoder, has_residual))
        self.layer_norm = nn.LayerNorm(config.d_model)

    def embed(self, token_ids, table, start=0):
        """token_ids (B, T), the first of them at position `start` -> (B, T, D)."""
        positions = torch.arange(start, start + token_ids.size(1), device=token_ids.device)
        # F.embedding, but its gradient goes straight into table.grad (Lookup, below).
        tokens = Lookup.apply(token_ids, table) * embedding_scale(self.config)
        x = self.layernorm_embedding(tokens + self.embed_positions(positions + 2))
        return F.dropout(x, self.config.dropout, self.training)

    def forward(self, x, mask=None, encoder_states=None, encoder_mask=None, upto=None):
        """Embedded x (B, T, D) -> the last layer's output, normed; the masks are Layer.forward()'s.

        upto=n: the output of layer n instead, not normed."""
        for layer in self.layers[:upto]:  # upto=None: all layers
            x = layer(x, mask, encoder_states, encoder_mask)
        if upto is not None:
            return x
        return self.layer_norm(x)

    def all_states(self, x, mask=None, encoder_states=None, encoder_mask=None):
        """As forward(), but every layer's states, L + 1 of (B, T, D) in a list: x, the outputs of
        layers 1 to L - 1, and the last one's, normed."""
        states = [x]
        for layer in self.layers:
            x = layer(x, mask, encoder_states, encoder_mask)
            states.append(x)
        states[-1] = self.layer_norm(x)
        return states


class MBart(nn.Module):
    """The whole: model(source, decoder_input) -> logits. loss() trains it, generate.py decodes."""

    def __init__(self, config):
        super().__init__()
        config.check()
        self.config = config
        self.model = nn.Module()  # the checkpoints' names begin with "model."
        self.model.shared = nn.Embedding(config.vocab_size, config.d_model)  # E
        self.model.encoder = Stack(config)
        self.model.decoder = Stack(config, is_decoder=True)
        self.register_buffer("final_logits_bias", torch.zeros(1, config.vocab_size))
        self.head = F.linear  # the product with E^T; decoding puts a quicker one here
        self.loss_and_gradient = loss_and_gradient  # compile_layers() puts a compiled one here
        # Large tensors that the loss hands from one update to the next: take() removes one,
        # memory[name] = puts it back.
        self.memory = Memory()
        # from_pretrained() builds it on "meta", without memory, and fills it from the file.
        if self.final_logits_bias.device.type != "meta":
            self.initialize()

    def forward(self, source, decoder_input):
        """(B, S), (B, T) int64 -> logits (B, T, V)."""
        encoder_states = self.encode(source)  # (B, S, D)
        hidden = self.decode(decoder_input, encoder_states, source)  # (B, T, D)
        return self.project(hidden)

    def encode(self, source, upto=None, all_states=False):
        """source (B, S) -> states (B, S, D) after the last layer norm.

        upto=n stops after layer n and returns its output as it is: no later layer runs.
        all_states=True: a list of L + 1, the embedding's output, that of layers 1 to L - 1, and
        the normed last."""
        check_length(self.config, source, "source")
        x = self.model.encoder.embed(source, self.source_table())
        if all_states:
            return self.model.encoder.all_states(x, self.mask(source))
        return self.model.encoder(x, self.mask(source), upto=upto)

    def decode(self, decoder_input, encoder_states, source, all_states=False):
        """decoder_input (B, T), encoder_states (B, S, D), source (B, S) -> states (B, T, D).

        source tells which encoder states are padding. all_states as in encode()."""
        check_length(self.config, decoder_input, "decoder input")
        x = self.model.decoder.embed(decoder_input, self.model.shared.weight)
        mask = self.mask(source)
        if all_states:
            return self.model.decoder.all_states(x, None, encoder_states, mask)
        return self.model.decoder(x, None, encoder_states, mask)

    def project(self, hidden):
        """(..., D) -> logits (..., V)."""
        bias = self.final_logits_bias[0].to(hidden.dtype)
        return self.head(hidden, self.model.shared.weight, bias)

    def mask(self, source):
        """source (B, S) -> (B, 1, 1, S), true where there is a token.

        On a GPU it is 0 there and -inf at padding: attention would otherwise convert a boolean one
        in every layer."""
        is_token = (source != self.config.pad_token_id)[:, None, None, :]
        device = source.device.type
        if device == "cpu":
            return is_token
        dtype = self.model.shared.weight.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return float_mask(is_token, dtype)

    def widened(self, source):
        """source (B, S) -> on a GPU padded to a multiple of MASK_WIDTH, but not beyond the model's
        positions; on a CPU as it is."""
        if source.device.type == "cpu":
            return source
        width = math.ceil(source.size(1) / MASK_WIDTH) * MASK_WIDTH
        width = min(width, self.config.max_position_embeddings)
        missing = max(0, width - source.size(1))  # 0 too where it is too long: encode() says so
        return F.pad(source, (0, missing), value=self.config.pad_token_id)

    def source_table(self):
        """The encoder's token embeddings: its own if untied, else the shared ones."""
        if self.config.source_vocab_size is None:
            return self.model.shared.weight
        return self.model.encoder.embed_tokens.weight

    def token_states(self, source):
        """The encoder's states (N, D) of source's N tokens that are not padding, row by row."""
        source = self.widened(source)
        is_token = source != self.config.pad_token_id
        count = is_token.sum().item()
        return select_where(self.encode(source), is_token, count)

    # --- training

    def loss(
        self,
        source,
        decoder_input,
        labels,
        label_smoothing=0.0,
        reduction="mean",
        with_states=False,
    ):
        """Cross-entropy, in nats, of the labels (B, T) that are not padding: a scalar.

        source (B, S), decoder_input (B, T). Only the positions that have a label are projected, a
        chunk at a time, so the logits of all of them never exist at once. reduction: "mean" or
        "sum" over the labels, or a number to divide the sum by. with_states=True returns (loss,
        token_states(source)). ValueError if a label stands after padding, or there is no label."""
        source = self.widened(source)
        is_label = labels != self.config.pad_token_id
        is_token = source != self.config.pad_token_id
        label_count, token_count = count_labels_and_tokens(is_label, is_token)
        encoder_states = self.encode(source)  # (B, S, D)
        if with_states:
            token_states = select_where(encoder_states, is_token, token_count)
        hidden = self.decode(decoder_input, encoder_states, source)  # (B, T, D)
        hidden = select_where(hidden, is_label, label_count)  # (N, D)
        table = self.model.shared.weight
        if not torch.is_grad_enabled():
            table = table.detach()  # ctx.needs_input_grad is true of a parameter even in no_grad()
        loss = ChunkedCrossEntropy.apply(
            hidden,
            table,
            self.final_logits_bias[0],
            select_where(labels, is_label, label_count),
            label_smoothing,
            scale_of(reduction, label_count),
            self.memory,
            self.loss_and_gradient,
        )
        if with_states:
            return loss, token_states
        return loss

    def zero_grad(self, set_to_none=True):
        """Drops the gradients, but on a CPU keeps the memory of the table's for the next update.

        On a GPU, where fresh memory costs nothing, it would be a gigabyte held in vain."""
        gradient = self.model.shared.weight.grad
        if set_to_none and gradient is not None and gradient.device.type == "cpu":
            self.memory["gradient"] = gradient
        super().zero_grad(set_to_none)

    def compile_layers(self, backend="inductor"):
        """torch.compile for every layer, and for what the loss does to the logits; for a GPU.

        One graph serves all layers of a kind. Kinds differ by side, by training or not, by whether
        the input needs a gradient, by the type of the mask, and for a batch of one. If there were
        more of them than the limit (torch's own is 8), the last would silently not be compiled."""
        torch._dynamo.config.recompile_limit = 64
        for stack in (self.model.encoder, self.model.decoder):
            for layer in stack.layers:
                layer.compile(dynamic=True, backend=backend)
        self.loss_and_gradient = torch.compile(loss_and_gradient, dynamic=True, backend=backend)

    def drop_residual(self, number):
        """Takes away the residual around the self-attention of encoder layer `number`, from 1.

        (Solovyev et al. 2024, section 3.4.) config.json records it. UserError if there is no such
        layer."""
        if not 1 <= number <= self.config.encoder_layers:
            raise UserError(
                f"there is no encoder layer {number} to drop a residual in; the model has layers "
                f"1 to {self.config.encoder_layers}"
            )
        self.config.residual_drop_layer = number
        for i, layer in enumerate(self.model.encoder.layers, start=1):
            layer.has_residual = i != number

    @torch.no_grad()
    def initialize(self):
        """N(0, init_std) weights, zero biases.

        Positions start as sinusoids (Vaswani et al. 2017, section 3.5) of the size of the scaled
        token embeddings: from random positions a small base learns to copy much later."""
        std = self.config.init_std
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for stack in (self.model.encoder, self.model.decoder):
            positions = stack.embed_positions.weight
            waves = sinusoids(*positions.shape)  # mean square 1/2
            positions.copy_(waves * math.sqrt(2) * std * embedding_scale(self.config))
        self.model.shared.weight[self.config.pad_token_id] = 0

    def size(self):
        """The number of parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    # --- files

    @classmethod
    def from_pretrained(cls, folder, dtype=torch.float32):
        """Reads config.json and the weights, safetensors or pytorch_model.bin, whole or sharded.

        Every key and shape is checked before anything is used. The tensors read become the
        parameters themselves: the weights are in memory once. UserError names the file and the key
        that does not fit.

        The model is in training mode, as a new module is: model.eval() turns dropout off."""
        config = Config.read(Path(folder) / "config.json")
        with torch.device("meta"):
            model = cls(config)
        tensors = read_fitting(Path(folder), model.state_dict())
        # One tensor at a time: a file in half precision is never whole in memory in both types.
        for name in list(tensors):
            check_numbers({name: tensors[name]}, weights_file(folder))
            tensors[name] = tensors[name].to(dtype)
        model.load_state_dict(tensors, assign=True)
        return model

    def save_pretrained(self, folder, tensors=None):
        """Writes model.safetensors, generation_config.json and, last, config.json: without it a
        folder is no model.

        transformers opens the folder as it is. tensors: {name: tensor}, if they are not the
        state_dict's own."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = tensors or self.state_dict()
        write_tensors(tensors, folder / "model.safetensors")
        write_json(folder / "generation_config.json", self.config.special_tokens())
        self.config.write(folder / "config.json", widest_type(tensors))


def widest_type(tensors):
    """The type that holds every number of {name: tensor}."""
    types = [tensor.dtype for tensor in tensors.values()]
    widest = types[0]
    for other in types[1:]:
        widest = torch.promote_types(widest, other)
    return widest


def float_mask(is_token, dtype):
    """Boolean, true where there is a token -> what attention adds: 0 there, -inf at padding."""
    return torch.zeros_like(is_token, dtype=dtype).masked_fill_(~is_token, -torch.inf)


def embedding_scale(config):
    return math.sqrt(config.d_model) if config.scale_embedding else 1.0


def sinusoids(rows, d_model):
    """(rows, D): sines in the first half of the columns, cosines in the second; waves lengthen."""
    frequencies = torch.exp(torch.arange(0, d_model, 2) * (-math.log(1e4) / d_model))
    angles = torch.arange(rows)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()[:, :d_model // 2]], 1)


def check_length(config, ids, name):
    """UserError if ids (B, T) are longer than the model has positions."""
    if ids.size(1) > config.max_position_embeddings:
        raise UserError(
            f"{name} of {ids.size(1)} tokens, but the model has {config.max_position_embeddings} "
            "positions; cut it"
        )


def count_labels_and_tokens(is_label, is_token):
    """(labels, source tokens) of a batch, two numbers.

    ValueError for a batch without a label, and for padding before a label: the decoder, whose only
    mask is the causal one, would read that padding.

    They are counted in one transfer: here, and nowhere else in loss(), the CPU waits for a GPU."""
    misplaced = (is_label[:, 1:] & ~is_label[:, :-1]).sum()
    answers = torch.stack([misplaced, is_label.sum(), is_token.sum()])
    misplaced, label_count, token_count = answers.tolist()
    if misplaced:
        raise ValueError("labels must be padded on the right: a label stands after padding")
    if not label_count:
        raise ValueError("no loss without labels: all of them are padding")
    return label_count, token_count


def select_where(x, keep, count):
    """x[keep]: x (B, T) or (B, T, D), keep (B, T) bool with `count` = N true -> (N,) or (N, D).

    N is given because x[keep] would make the CPU wait for the GPU to count them."""
    places = torch.nonzero_static(keep.flatten(), size=count)[:, 0]
    return x.flatten(0, 1).index_select(0, places)


# ---------------------------------------------------------------------- the loss

# In mBART one table E (V, D) is the output head and both sides' token embedding: most of a small
# model's weights, and up to a gigabyte of gradient. Its three gradients are therefore written into
# one piece of memory, which the next update uses again: on a CPU fresh memory costs more than the
# arithmetic done in it (half of a training step at V = 250,027). That holds for one batch an
# update: each further batch makes a gradient of its own, which is then added.

# Bytes of float32 logits at a time; every chunk reads E twice and passes over E's gradient once.
LOGITS_BUDGET = {"cpu": 2**28, "cuda": 2**30}
LOGITS_WIDTH = 64  # V' is a multiple of it; 64 logits in half precision fill a cache line
SLAB = 1024  # entries of the vocabulary whose logits a CPU computes at a time


class Lookup(torch.autograd.Function):
    """E[ids]. Its gradient is added to the rows of E.grad in place: no second (V, D) is made."""

    @staticmethod
    def forward(ctx, ids, table):
        ctx.ids = ids
        ctx.table = table
        return F.embedding(ids, table)

    @staticmethod
    def backward(ctx, gradient):
        table = ctx.table
        if table.grad is None:
            table.grad = torch.zeros_like(table)
        rows = gradient.flatten(0, -2).to(table.dtype)  # (B * T, D)
        table.grad.index_add_(0, ctx.ids.flatten(), rows)
        return None, None


class ChunkedCrossEntropy(torch.autograd.Function):
    """scale * sum_n -log softmax(h_n E^T + b)[y_n], never holding the logits of a whole batch.

    With label smoothing a, position n costs

        (1 - a) (-log p_n[y_n]) + a / V sum_v -log p_n[v]        p_n = softmax(h_n E^T + b)

    The gradient with respect to a chunk's logits is known as soon as the logits are. So forward()
    computes the gradients of h and, if E trains, of E as well, before the next chunk's logits
    overwrite these; backward() hands them on. E's gradient goes straight into E.grad.

    Under autocast only the inputs and results of the matrix products are in half precision. The
    results are summed over the chunks, and multiplied by `scale`, in float32: `scale` is often
    below 0.001, and in half precision small gradients times it would underflow to 0."""

    @staticmethod
    def forward(ctx, hidden, table, bias, labels, smoothing, scale, memory, loss_and_gradient):
        """hidden (N, D), table E (V, D), bias (V,), labels (N,) -> a number.

        memory lends the large tensors; loss_and_gradient: the function below, or a compiled one."""
        device = hidden.device.type
        needs_hidden, needs_table = ctx.needs_input_grad[:2]
        vocab = table.size(0)
        logits_bytes = 4 * len(hidden) * vocab  # of the whole batch, in float32
        chunks = math.ceil(logits_bytes / LOGITS_BUDGET[device])
        rows = math.ceil(len(hidden) / chunks)  # of each chunk; the last may have fewer
        weight = table  # E in the type of the arithmetic
        if torch.is_autocast_enabled(device):
            weight, bias = head_in_half(table, bias, torch.get_autocast_dtype(device))  # (V', D)
        # The sum over the chunks: float32, in a model of float64 that.
        total = hidden.new_zeros((), dtype=torch.promote_types(table.dtype, torch.float32))
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_table = memory.take("gradient", table.shape, table) if needs_table else None
        all_logits = memory.take("logits", (rows, len(weight)), weight)

        with torch.autocast(device, enabled=False):
            for start in range(0, len(hidden), rows):
                chunk = slice(start, start + rows)
                h = hidden[chunk].to(weight.dtype)  # (R, D)
                logits = write_logits(all_logits[:len(h)], h, weight)  # (R, V')
                loss, gradient = loss_and_gradient(logits, bias, labels[chunk], smoothing, vocab)
                total += loss
                if needs_hidden:
                    grad_hidden[chunk] = gradient @ weight
                    grad_hidden[chunk].mul_(scale)
                if needs_table:
                    without_padding = gradient[:, :vocab].T  # (V, R)
                    add_product(grad_table, without_padding, h, scale, is_first=(start == 0))

        memory["logits"] = all_logits
        ctx.table = table
        ctx.gradients = grad_hidden, grad_table
        return total * scale

    @staticmethod
    def backward(ctx, gradient):
        table = ctx.table
        grad_hidden, grad_table = ctx.gradients
        if grad_hidden is None and grad_table is None:
            raise RuntimeError("this loss gave its gradients already; compute the loss anew")
        ctx.gradients = None, None
        # Mostly it is 1, and nothing is to be done. A GPU multiplies even then: to see whether it
        # is 1, the CPU would have to wait for it.
        if gradient.is_cuda or gradient != 1:
            for tensor in (grad_hidden, grad_table):
                if tensor is not None:
                    tensor.mul_(gradient.to(tensor.dtype))
        if grad_table is not None:
            if table.grad is None:
                table.grad = grad_table
            else:
                table.grad += grad_table
        return grad_hidden, None, None, None, None, None, None, None


def head_in_half(table, bias, dtype):
    """E (V, D) and the logits' bias (V,) -> E (V', D) in half precision, its bias (V',) in float32.

    E gets rows of zeros, with a bias of -inf, so that V' is a multiple of LOGITS_WIDTH. A GPU has
    quick products only where the rows of a result begin at multiples of 16 bytes (8 numbers). Those
    of mBART's 250,027 do not: on an H200 a product with E took four to eight times as long."""
    vocab, d_model = table.shape
    rows = math.ceil(vocab / LOGITS_WIDTH) * LOGITS_WIDTH
    half = table.new_empty(rows, d_model, dtype=dtype)
    half[:vocab] = table
    half[vocab:] = 0
    return half, F.pad(bias.float(), (0, rows - vocab), value=-torch.inf)


def write_logits(out, h, table):
    """h E^T of h (R, D) and E (V or V', D), written to out (R, V or V').

    On a CPU in float32 a slab of E at a time: MKL writes rows of 2,771 or 250,027 numbers, no
    multiple of a cache line, at half the speed of rows of 1,024 (AMD EPYC). On a GPU it is one
    product; on a CPU in half precision too, which torch leaves to oneDNN."""
    if out.device.type != "cpu" or out.dtype.itemsize == 2:
        return torch.mm(h, table.T, out=out)
    for start in range(0, len(table), SLAB):
        slab = slice(start, start + SLAB)
        out[:, slab] = h @ table[slab].T
    return out


def loss_and_gradient(logits, bias, labels, smoothing, vocab):
    """logits (R, V') without bias, bias (V',), labels (R,) -> the summed loss and its gradient
    (R, V') with respect to the logits.

    The first `vocab` logits count; the bias of others is -inf, their gradient 0. The gradient has
    the type of the logits. Half-precision logits are first converted to float32; float32 logits are
    overwritten by the gradient. With p the softmax and a the smoothing, the gradient is
    p - (1 - a) onehot(y) - a / V."""
    logits_type = logits.dtype
    logits = logits.to(torch.promote_types(logits_type, torch.float32))
    logits.add_(bias)
    labels = labels[:, None]
    label_logits = logits.gather(1, labels)  # (R, 1)
    mean = 0
    if smoothing:
        mean = logits[:, :vocab].mean(1)  # (R,)
    top = logits.amax(1)
    p = torch.softmax(logits, 1, out=logits)  # in place: the logits are gone from here on
    # p_top = exp(top - log_sum), so log_sum = top - log p_top; p_top >= 1 / V cannot underflow.
    log_sum = top - p.amax(1).log()
    loss = (log_sum - (1 - smoothing) * label_logits[:, 0] - smoothing * mean).sum()
    gradient = p.scatter_add_(1, labels, torch.full_like(label_logits, smoothing - 1))
    if smoothing:
        gradient[:, :vocab].sub_(smoothing / vocab)
    return loss, gradient.to(logits_type)


def add_product(total, a, b, scale, is_first):
    """total += scale * (a @ b), in place; with is_first: total = scale * (a @ b).

    total (V, D), a (V, R), b (R, D); total is float32 where a and b are in half precision."""
    beta = 1.0
    if is_first:
        beta = 0.0  # addmm then does not read what the memory held before
    if a.dtype == total.dtype:
        total.addmm_(a, b * scale, beta=beta)
    elif total.is_cuda:
        torch.addmm(total, a, b, out_dtype=total.dtype, beta=beta, alpha=scale, out=total)
    else:
        product = (a @ b).to(total.dtype).mul_(scale)
        if is_first:
            total.copy_(product)
        else:
            total.add_(product)


def scale_of(reduction, count):
    """The factor of a loss that is summed over `count` labels; reduction as in MBart.loss()."""
    if reduction == "mean":
        return 1 / count
    if reduction == "sum":
        return 1.0
    if isinstance(reduction, str):
        raise ValueError(f"reduction {reduction!r}: give mean, sum or a number to divide by")
    return 1 / reduction


# ---------------------------------------------------------------------- files

TIED = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")

# What transformers' MBartConfig assumes for keys that a config.json leaves out, where it is not
# Config's default.
DEFAULTS_OF_TRANSFORMERS = {"vocab_size": 50265, "scale_embedding": False}
# What every config.json of ours says, so that transformers builds an mBART from it.
ALWAYS_WRITTEN = {
    "model_type": "mbart",
    "architectures": ["MBartForConditionalGeneration"],
    "is_encoder_decoder": True,
    "tie_word_embeddings": True,
    "normalize_before": True,
    "normalize_embedding": True,
    "add_final_layer_norm": True,
}


@dataclass
class Config:
    """The keys of config.json that the model reads; the defaults are mbart-large-cc25's."""
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
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = True
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2
    decoder_start_token_id: int | None = None  # mBART-50: </s>; mBART-25: none (starts with LANG)
    extra: dict = field(default_factory=dict)  # all other keys of config.json, kept as they are

    # Two keys of ours, which transformers does not have.
    # Rows of the encoder's own token embedding; None: it shares the decoder's.
    source_vocab_size: int | None = None
    # The encoder layer, from 1, whose self-attention has no residual; 0: none.
    residual_drop_layer: int = 0

    @classmethod
    def read(cls, path):
        """config.json -> Config; UserError if it is missing, not JSON or not an mBART's."""
        written = read_json(path)
        if written is None:
            refuse_adapter(Path(path).parent)
            raise UserError(f"{path}: not found; a model folder holds config.json and its weights")
        if not isinstance(written, dict) or written.get("model_type", "mbart") != "mbart":
            raise UserError(f"{path}: model_type is not mbart; only mBART folders can be read")
        kinds = {own.name: own.type for own in fields(cls) if own.name != "extra"}
        values = {}
        for name in kinds:
            default = DEFAULTS_OF_TRANSFORMERS.get(name, getattr(cls, name))
            values[name] = written.get(name, default)
        values = of_their_kinds(values, kinds, path)
        extra = {name: value for name, value in written.items() if name not in kinds}
        config = cls(**values, extra=extra)
        config.check(path)
        config.learn_layout(layout_of(Path(path).parent))
        return config

    def learn_layout(self, layout):
        """Sets where decoding starts by the folder's layout: with </s> in mBART-50, with the
        language's tag in mBART-25, whatever config.json says. layout None: it stays as config.json
        has it."""
        if layout == "mbart50":
            self.decoder_start_token_id = self.eos_token_id
        elif layout == "mbart25" and self.decoder_start_token_id == self.eos_token_id:
            self.decoder_start_token_id = None

    def check(self, where="config"):
        """UserError for values that no mBART can have; `where` names the file they came from."""
        if self.activation_function not in ACTIVATIONS:
            raise UserError(
                f"{where}: activation_function {self.activation_function!r} is not one of "
                f"{', '.join(ACTIVATIONS)}"
            )
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if not heads or self.d_model % heads:
                raise UserError(
                    f"{where}: d_model {self.d_model} is not a multiple of "
                    f"{side}_attention_heads {heads}"
                )
        if self.max_position_embeddings < 3:  # mBART-50's outputs begin with two given tokens
            raise UserError(
                f"{where}: max_position_embeddings is {self.max_position_embeddings}, and a text "
                "needs at least 3"
            )
        for name in ("dropout", "attention_dropout", "activation_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f"{where}: {name} {getattr(self, name)} is not at least 0 and less than 1"
                )
        if self.residual_drop_layer > self.encoder_layers:
            raise UserError(
                f"{where}: residual_drop_layer {self.residual_drop_layer} is none of the "
                f"{self.encoder_layers} encoder layers"
            )
        ids = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}  # as tokenizer.py has them
        for name, expected in ids.items():
            found = getattr(self, name)
            if found != expected:
                raise UserError(
                    f"{where}: {name} is {found}; every mBART vocabulary has it at {expected}"
                )

    def write(self, path, dtype=torch.float32):
        """Writes config.json. dtype: of the tensors beside it; transformers loads them in this
        type."""
        values = asdict(self)
        del values["extra"]
        if self.source_vocab_size is None:
            del values["source_vocab_size"]
        if not self.residual_drop_layer:
            del values["residual_drop_layer"]
        kind = str(dtype).removeprefix("torch.")
        kinds = {"dtype": kind, "torch_dtype": kind}  # the key's new name and its old one
        write_json(path, self.extra | ALWAYS_WRITTEN | kinds | values)

    @property
    def is_small(self):
        """Is it narrower than mBART-large? Then train.py has a preset of its own for it."""
        return self.d_model < Config.d_model

    def special_tokens(self):
        """The ids of <s>, <pad>, </s> and, in mBART-50, of the decoder's start."""
        ids = {
            "bos_token_id": self.bos_token_id,
            "pad_token_id": self.pad_token_id,
            "eos_token_id": self.eos_token_id,
        }
        if self.decoder_start_token_id is not None:
            ids["decoder_start_token_id"] = self.decoder_start_token_id
        return ids


def read_fitting(folder, expected):
    """{name: tensor} of a model folder with the names and shapes of `expected`.

    Tied names that the file repeats, and a bias that it lacks, are put right; UserError names the
    file and the first tensor that does not fit."""
    tensors, where = read_tensors(folder)
    if "model.shared.weight" not in tensors:  # some checkpoints carry only one of the tied names
        for name in TIED:
            if name in tensors and name not in expected:  # an encoder's own is no shared one
                tensors["model.shared.weight"] = tensors[name]
                break
    shared = tensors.get("model.shared.weight")
    for name in TIED:
        if name not in tensors or name in expected:
            continue
        tied = tensors.pop(name)
        if tied is not shared and not torch.equal(tied, shared):
            check_numbers({name: tied}, where)  # no NaN equals itself
            raise UserError(
                f"{where}: {name} differs from model.shared.weight, but mBART ties them; the file "
                "is not a plain mBART checkpoint"
            )
    if "final_logits_bias" not in tensors:
        tensors["final_logits_bias"] = torch.zeros(expected["final_logits_bias"].shape)
    check_shapes(tensors, expected, where)
    return tensors


def main(argv=None):
    parser = parser_of("Loads a model and prints its shape.")
    parser.add_argument("folder", nargs="?", default="base", help=MODEL_HELP)
    args = parser.parse_args(argv)
    model = MBart.from_pretrained(model_folder(args.folder))
    for name, value in asdict(model.config).items():
        if name != "extra":
            print(f"{name:<24} {value}")
    print(f"{model.size():,} parameters")


if __name__ == "__main__":
    run(main)
