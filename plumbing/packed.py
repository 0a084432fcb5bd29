"""Linear layers for a few rows at a time, as decoding has them: the same product from a copy of the
weights in an order that a CPU likes.

    y = x W^T + b      x (R, in) of 1 to some 500 rows, W (out, in) as training has it

Reading W is the cost, and row by row it is read badly. How many times as fast as F.linear on one
thread, with 40 rows (5 rows; 500 rows are 100 texts with 5 beams):

                                               Intel Xeon          AMD EPYC, AVX2
    W 256 x 256          W^T stored as such    1.4 (1.8)           1.05 (1.1), 500 rows 1.2
    W 2771 x 128         W^T stored as such                        1.3 (1.3), 500 rows 1.1
                         blocked by oneDNN                         1.2 (1.5), 500 rows 1.7
    W 4096 x 1024        blocked by oneDNN     1.4 (1.9)           1.2 (2.4)
    W 250027 x 1024      blocked by oneDNN     1.2 (2.0)           not measured

Small weights are therefore transposed (on the EPYC 256 x 256 takes 1.2 to 2 times as long when
blocked) and large ones blocked.

INT8, if asked for, rounds W to 8 bits, one scale s_o for each output, and x to 8 bits with one
scale and zero point for all of it:  y_o = s_o s_x (x_8 - z) W_8[o]^T + b_o, summed in 32 bits. A
quarter of the bytes are read, and the head is three to four times as fast again; a product is off
by about 1% of its size, so outputs differ from float32's here and there. A processor without VNNI
adds pairs of products in 16 bits, where 2 * 255 * 127 does not fit: x is rounded to 7 bits there
(2 * 127 * 127 fits). On such a one (oneDNN held to AVX2) the head is 1.5 (5 rows) to 1.8 times (40)
as fast as in float32.
"""
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from plumbing.files import UserError

BLOCKED = 2**18  # weights with more numbers than this are stored in oneDNN's blocks
ROUNDED = 2**18  # weights with at least this many are rounded for int8; else rounding x costs more
HAS_VNNI = torch.cpu._is_vnni_supported()  # products of 8 bits, summed in 32
LEVELS = 255 if HAS_VNNI else 127  # of a rounded x: 8 bits, or 7


def pack_for_decoding(model, int8=False):
    """Puts packed products in place of the decoder's linear layers and of the output head.

    The parameters stay the same objects under the same names, and training goes on as before.
    Called again, it switches between float32 and int8. LoRA's layers, which add to their product,
    are left alone. UserError if int8 cannot be had: else it would be float32 under another name."""
    if int8:
        check_int8(model)
    decoder = model.model.decoder
    for parent in list(decoder.layers.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, PackedLinear(child))
    if not is_packed(model):
        model.head = PackedProduct()
    model.head.use(int8)
    for module in decoder.modules():
        if isinstance(module, PackedLinear):
            module.product.use(int8)


def check_int8(model):
    table = model.model.shared.weight
    if not torch.backends.mkldnn.is_available():
        raise UserError("int8 decoding needs a torch with oneDNN, which this one lacks")
    if table.device.type != "cpu" or table.dtype != torch.float32:
        kind = str(table.dtype).removeprefix("torch.")
        raise UserError(
            f"int8 decoding is for float32 on a CPU, where it is faster; this model is {kind} on "
            f"{table.device.type}: leave int8 out"
        )


def is_packed(model):
    return isinstance(model.head, PackedProduct)


class PackedLinear(nn.Linear):
    """The same linear layer, which multiplies a decoding step's rows with a copy of its weight."""

    def __init__(self, linear):
        nn.Module.__init__(self)  # nn.Linear's own would draw weights that nobody needs
        self.in_features = linear.in_features
        self.out_features = linear.out_features
        self.weight = linear.weight
        self.bias = linear.bias
        self.product = PackedProduct()
        self.train(linear.training)

    def forward(self, x):
        return self.product(x, self.weight, self.bias)


class PackedProduct:
    """product(x, weight, bias) = x W^T + b, as torch's F.linear.

    Rows x (R, in) in float32 on a CPU, without autograd, are multiplied with a copy of the weight,
    made at first use and anew when the weight has changed. Whole sequences (B, T, in), training,
    other types and GPUs get F.linear itself."""

    def __init__(self, int8=False):
        self.int8 = int8
        self.forget()

    def use(self, int8):
        if int8 != self.int8:
            self.int8 = int8
            self.forget()

    def forget(self):
        self.copy = None
        self.weight = None  # what the copy was made from; held, or another could come to lie there
        self.version = None

    def __call__(self, x, weight, bias):
        if not can_use_copy(x, weight):
            return F.linear(x, weight, bias)
        if not self.is_current(weight):
            self.forget()  # first: a copy may be a gigabyte
            self.copy = copy_of(weight.detach(), self.int8)
            self.weight = weight.detach()
            self.version = version_of(weight)
        return self.copy(x, bias)

    def is_current(self, weight):
        if self.copy is None or self.weight.data_ptr() != weight.data_ptr():
            return False
        return self.version == version_of(weight)

    def __reduce__(self):  # what deepcopy and pickle take along: the copy's owner makes its own
        return PackedProduct, (self.int8,)


def can_use_copy(x, weight):
    """Rows in float32 on a CPU, without autograd: what the copy is for."""
    if torch.is_grad_enabled() or x.dim() != 2:
        return False
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32


# ---------------------------------------------------------------------- has a weight changed?

optimizer_steps = 0


def count_step(*_):
    global optimizer_steps
    optimizer_steps += 1


# Fused optimizers change a weight, but not its version.
register_optimizer_step_post_hook(count_step)


def version_of(weight):
    """Another one when the weight's numbers have changed; only .data hides such a change."""
    return weight._version, optimizer_steps


# ---------------------------------------------------------------------- the copies

def copy_of(weight, int8):
    """The quickest copy of a weight (out, in): a function of x (R, in) and the bias (out,)."""
    if int8 and weight.numel() >= ROUNDED:
        return Rounded(weight)
    if weight.numel() > BLOCKED and torch.backends.mkldnn.is_available():
        return Blocked(weight)
    return Transposed(weight)


class Transposed:
    def __init__(self, weight):
        self.weight = weight.T.contiguous()

    def __call__(self, x, bias):
        return torch.addmm(bias, x, self.weight)


class Blocked:
    def __init__(self, weight):
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, 40)  # for about 40 rows

    def __call__(self, x, bias):
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, bias, "none", [], "")


class Rounded:
    """8-bit integers, one scale for each output."""

    def __init__(self, weight):
        self.scales = weight.abs().amax(1).clamp_(min=1e-12) / 127  # (out,)
        rounded = (weight / self.scales[:, None]).round_().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self.zeros = torch.zeros(len(self.scales), dtype=torch.int64)  # the weights' zero points

    def __call__(self, x, bias):
        low, high = x.aminmax()
        scale = ((high - low) / LEVELS).clamp_(min=1e-12)
        zero = int((-low / scale).round())
        rounded = (x / scale).round_().add_(zero).clamp_(0, LEVELS).to(torch.uint8)
        return torch.ops.onednn.qlinear_pointwise(
            rounded, float(scale), zero,
            self.weight, self.scales, self.zeros, bias,
            1.0, 0, torch.float32,  # the outputs' scale, zero point and type
            "none", [], "",  # nothing comes after the product
        )
