"""Linear layers for a few rows at a time, as decoding has them: the same product from a copy of the weights in an order
that a CPU likes.

    y = x W^T + b      x (R, in) of 1 to some 50 rows, W (out, in) as training has it

Reading W is the cost, and row by row it is read badly. Measured on one thread, 40 rows (5 rows):
    W 256 x 256          W^T stored as such, 1.4 (1.8) times as fast
    W 4096 x 1024        blocked by oneDNN, 1.4 (1.9) times
    W 250027 x 1024      blocked by oneDNN, 1.2 (2.0) times
A copy is made at a weight's first use and again when the weight has changed.

INT8, if asked for, rounds W to 8 bits, one scale s_o for each output, and x to 8 bits with one scale and zero point for
all of it:  y_o = s_o s_x (x_8 - z) W_8[o]^T + b_o, summed in 32 bits. A quarter of the bytes are read, and the head is
three to four times as fast again; a product is off by about 1% of its size, so outputs differ from float32's here and
there.
"""
import torch
from torch import nn

from plumbing.files import UserError

BLOCKED = 2**20  # numbers in a weight from which on oneDNN's blocks beat a plain transpose
ROUNDED = 2**18  # and from which on rounding x costs less than 8-bit products save


class PackedWeights(dict):
    """packed(x, module, ...): the outputs of linear layers side by side for x (R, in). One for each model; it holds the
    copies. Several layers that read the same x (as q, k and v do) are multiplied as one. int8 = True rounds them."""
    int8 = False

    def __call__(self, x, *modules):
        if not self.suits(x, *modules):
            return torch.cat([module(x) for module in modules], 1)
        return self.linear(x, *([getattr(module, name) for module in modules] for name in ("weight", "bias")))

    def suits(self, x, *modules):
        return x.device.type == "cpu" and x.dtype == torch.float32 and all(type(m) is nn.Linear for m in modules)

    def linear(self, x, weights, biases):
        """x [W_1; W_2; ...]^T + [b_1; b_2; ...]"""
        now = [self.int8, *((tensor.data_ptr(), tensor._version, tensor.shape) for tensor in (*weights, *biases))]
        version, kind, weight, bias, scales = self.get(id(weights[0]), (None,) * 5)
        if version != now:
            weight, bias = weights[0].detach(), torch.cat([b.detach() for b in biases])
            if len(weights) > 1:  # a single one may be a gigabyte
                weight = torch.cat([w.detach() for w in weights])
            kind, weight, scales = self.copy(weight)
            self[id(weights[0])] = now, kind, weight, bias, scales
        if kind == "int8":
            low, high = x.aminmax()
            scale = ((high - low) / 255).clamp_(min=1e-12)
            zero = int((-low / scale).round())
            rounded = (x / scale).round_().add_(zero).clamp_(0, 255).to(torch.uint8)
            return torch.ops.onednn.qlinear_pointwise(
                rounded, float(scale), zero, weight, scales, torch.zeros(len(scales), dtype=torch.int64), bias, 1.0, 0,
                torch.float32, "none", [], "")
        if kind == "blocked":
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return torch.addmm(bias, x, weight)

    def copy(self, weight):
        """(kind, copy, scales) of a weight (out, in)."""
        if self.int8 and weight.numel() >= ROUNDED:
            if not torch.backends.mkldnn.is_available():
                raise UserError("int8 decoding needs a torch with oneDNN, which this one lacks")
            scales = weight.abs().amax(1).clamp_(min=1e-12) / 127
            rounded = (weight / scales[:, None]).round_().to(torch.int8)
            return "int8", torch.ops.onednn.qlinear_prepack(rounded, None), scales
        if weight.numel() >= BLOCKED and torch.backends.mkldnn.is_available():
            return "blocked", torch.ops.mkldnn._reorder_linear_weight(weight, 40), None
        return "transposed", weight.T.contiguous(), None

    def __deepcopy__(self, memo):  # a copy of the model makes its own
        return PackedWeights()
