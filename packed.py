"""Linear layers for a few rows at a time, as decoding has them: the same product from a copy of the weights in an order
that a CPU likes.

    y = x W^T + b      x (R, in) of 1 to some 50 rows, W (out, in) as training has it

Reading W is the cost, and row by row it is read badly. Measured on one thread, 40 rows (5 rows):
    W 256 x 256          W^T stored as such, 1.4 (1.8) times as fast
    W 4096 x 1024        blocked by oneDNN, 1.4 (1.9) times
    W 250027 x 1024      blocked by oneDNN, 1.2 (2.0) times
A copy is made at a weight's first use and again when the weight has changed.
"""
import torch
from torch import nn

BLOCKED = 2**20  # numbers in a weight from which on oneDNN's blocks beat a plain transpose


class PackedWeights(dict):
    """packed(x, module, ...): the outputs of linear layers side by side for x (R, in). One for each model; it holds the
    copies. Several layers that read the same x (as q, k and v do) are multiplied as one."""

    def __call__(self, x, *modules):
        if not self.suits(x, *modules):
            return torch.cat([module(x) for module in modules], 1)
        return self.linear(x, *([getattr(module, name) for module in modules] for name in ("weight", "bias")))

    def suits(self, x, *modules):
        return x.device.type == "cpu" and x.dtype == torch.float32 and all(type(m) is nn.Linear for m in modules)

    def linear(self, x, weights, biases):
        """x [W_1; W_2; ...]^T + [b_1; b_2; ...]"""
        now = [(tensor.data_ptr(), tensor._version, tensor.shape) for tensor in (*weights, *biases)]
        version, weight, bias = self.get(id(weights[0]), (None, None, None))
        if version != now:
            weight, bias = torch.cat([w.detach() for w in weights]), torch.cat([b.detach() for b in biases])
            if weight.numel() < BLOCKED or not torch.backends.mkldnn.is_available():
                weight = weight.T.contiguous()
            else:
                weight = torch.ops.mkldnn._reorder_linear_weight(weight, 40)
            self[id(weights[0])] = now, weight, bias
        if weight.is_mkldnn:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return torch.addmm(bias, x, weight)

    def __deepcopy__(self, memo):  # a copy of the model makes its own
        return PackedWeights()
