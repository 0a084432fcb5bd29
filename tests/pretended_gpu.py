"""A GPU that is not there: tensors that say "cuda:0" and hold the numbers of a CPU.

They go through the programs as they would on a card: whatever mixes them with tensors of the CPU
raises, and what would be started on the card (a launch), and where the program would have to wait
for it (a wait), is counted. What they compute must equal the CPU, for the CPU computes it.

What it cannot show: time, a card's own rounding, its memory. An attention is one launch, as the
fused kernels of a card are, and has no dropout here.

torch must not be imported before this file (tests/on_gpu.py is the program that does so): the
library made of pretended_gpu.cpp is taken for torch's own.
"""
# ruff: noqa: E402 (libraries are loaded before torch)
import ctypes
import importlib.util
import os
import sys
from collections import Counter
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import SimpleNamespace

assert "torch" not in sys.modules
LIBRARIES = Path(importlib.util.find_spec("torch").origin).parent / "lib"
for name in (LIBRARIES / "libc10.so", LIBRARIES / "libtorch_cpu.so", os.environ["PRETENDED_GPU"]):
    ctypes.CDLL(str(name), ctypes.RTLD_GLOBAL)

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

THE_GPU = torch.device("cuda", 0)

# Only new names for numbers that are there, or memory without numbers: nothing is started.
NO_LAUNCH = {
    "_has_compatible_shallow_copy_type", "_reshape_alias", "_unsafe_view",
    "alias", "as_strided", "detach", "diagonal", "empty", "empty_like", "empty_strided", "expand",
    "is_same_size", "lift_fresh", "narrow", "new_empty", "new_empty_strided", "permute", "resize_",
    "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unfold",
    "unsqueeze", "view",
}
# What answers with a number or a size that the program needs at once.
WAITS = {
    "_local_scalar_dense", "_unique2", "equal", "is_nonzero", "masked_select", "nonzero",
    "unique_consecutive",
}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}

launches = Counter()  # {operation: how often}
waits = Counter()
recording = None  # the Graph that is being recorded


def wait(name):
    waits[name] += 1
    if recording is not None:
        raise RuntimeError(f"{name} within a graph: a card refuses to wait there")


@contextmanager
def counted():
    """Inside, launches and waits are counted from nothing."""
    launches.clear()
    waits.clear()
    yield


class OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU; `value` is the one on the CPU with its numbers."""

    @staticmethod
    def __new__(cls, value):
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            value.shape,
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device=THE_GPU,
        )
        tensor.value = value
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})

    def __reduce_ex__(self, protocol):  # in a file it is a tensor as any other
        return self.value.__reduce_ex__(protocol)

    def tolist(self):
        wait("tolist")
        return self.value.tolist()

    def __index__(self):
        wait("__index__")
        return self.value.__index__()

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __repr__(self):
        return f"OnGpu({self.value})"


def value_of(x):
    """What of an argument the CPU computes with."""
    return x.value if isinstance(x, OnGpu) else x


def on_gpu(x):
    return OnGpu(x) if isinstance(x, torch.Tensor) else x


def each(change, x):
    """change() of an argument, or of all that a list holds (torch's own tree_map is slow)."""
    if isinstance(x, list | tuple):
        return type(x)([each(change, part) for part in x])
    return change(x)


def compute(operation, args, kwargs):
    """One operation of torch: on the CPU's numbers, counted and checked as on a card."""
    name = operation._schema.name.split("::")[1]
    tensors = []
    each(lambda x: tensors.append(x) if isinstance(x, torch.Tensor) else None, args)
    each(lambda x: tensors.append(x) if isinstance(x, torch.Tensor) else None, (*kwargs.values(),))
    here = [x for x in tensors if isinstance(x, OnGpu)]
    device = kwargs.get("device")
    stays = bool(here) if device is None else torch.device(device).type == "cuda"
    if not here and not stays:
        return operation(*args, **kwargs)
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}

    moves = is_move(name, args, stays, here)
    if moves and recording is not None:
        raise RuntimeError(f"{name} within a graph: a card refuses to carry what is the CPU's")
    if moves:
        launches["copy"] += 1
        if not stays or not (kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2)):
            wait("copy")
    else:
        check_devices(name, tensors, here)
        count_waits(name, args, here)
    before = {id(x.value): x for x in here}
    values = {key: each(value_of, x) for key, x in kwargs.items()}
    arguments = each(value_of, args)
    call = partial(OF_A_CARD.get(str(operation), operation), *arguments, **values)
    result = call()
    if moves and name == "_to_copy" and result is value_of(args[0]):
        result = result.clone()  # the device changes and the type does not: the CPU copied nothing
    if stays and name not in NO_LAUNCH and not moves:
        launches[name] += 1
    if recording is not None:
        recording.add(name, call, result)
    if not stays:
        return result
    return each(lambda x: before[id(x)] if id(x) in before else on_gpu(x), result)


def is_move(name, args, stays, here):
    """Does an operation carry numbers from one device to the other?"""
    if name == "_to_copy":
        return stays != bool(here)
    if name == "copy_":
        return isinstance(args[0], OnGpu) != isinstance(args[1], OnGpu)
    return False


def check_devices(name, tensors, here):
    """RuntimeError where a card could not compute: tensors of both devices. A CPU's may be there if
    they are single numbers, or places for an index (which then wait)."""
    others = [x for x in tensors if not isinstance(x, OnGpu)]
    if not here or not others:
        return
    if name in INDEXING:
        wait(f"{name} with places of the CPU")
    elif any(x.dim() for x in others):
        shapes = [f"{'cuda' if isinstance(x, OnGpu) else 'cpu'} {tuple(x.shape)}" for x in tensors]
        raise RuntimeError(f"{name} mixes devices: {', '.join(shapes)}")


def count_waits(name, args, here):
    if not here:
        return
    if name in WAITS:
        wait(name)
    if name in INDEXING:
        for places in args[1]:
            if places is not None and places.dtype in (torch.bool, torch.uint8):
                wait(f"{name} by bool")  # how many are true must be known


class Creation(TorchDispatchMode):
    """Where this is on, torch.zeros(..., device="cuda") and its like make an OnGpu."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


# ------------------------------------------------------------------------- graphs

class Graph:
    """torch.cuda.CUDAGraph: replay() computes the operations that were recorded anew, from the
    memory that they read then into the memory that they wrote then."""

    def __init__(self):
        self.calls = []

    def pool(self):
        return self

    def capture_begin(self, pool, capture_error_mode):
        global recording
        recording = self

    def capture_end(self):
        global recording
        recording = None
        launches.subtract(self.launches)  # nothing ran yet

    def add(self, name, call, result):
        if name not in NO_LAUNCH:
            self.calls.append((name, call, result))

    @property
    def launches(self):
        return Counter(name for name, _, _ in self.calls)

    def replay(self):
        launches["graph"] += 1
        for _, call, result in self.calls:
            put_into(result, call())


def put_into(old, new):
    if isinstance(old, list | tuple):
        for one, two in zip(old, new):
            put_into(one, two)
    elif isinstance(old, torch.Tensor) and old is not new:
        old.copy_(new)


# ------------------------------------------------------------------------- the fused attention

def probabilities(q, k, bias, causal, scale):
    """softmax(q k^T * scale + bias) in float32, and the scale."""
    scale = q.size(-1) ** -0.5 if scale is None else scale
    scores = q.float() @ k.float().mT * scale
    if bias is not None:
        scores = scores + bias.float()
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        scores = scores.masked_fill(~seen, -torch.inf)
    return scores.softmax(-1), scale


def attention(q, k, v, bias, log_sums, dropout=0.0, causal=False, *, scale=None):
    """aten::_scaled_dot_product_efficient_attention; q, k, v (B, H, T or S, d)."""
    assert not dropout, "the pretended attention has no dropout"
    assert q.dtype == k.dtype == v.dtype, f"q, k, v are {q.dtype}, {k.dtype}, {v.dtype}"
    assert bias is None or bias.dtype == q.dtype
    p, _ = probabilities(q, k, bias, causal, scale)
    out = (p @ v.float()).to(q.dtype)
    out = out.transpose(1, 2).contiguous().transpose(1, 2)  # in memory (B, T, H, d), as a card's
    nothing = torch.zeros((), dtype=torch.int64)
    return out, torch.zeros(q.shape[:3]), nothing, nothing


def attention_backward(
    gradient, q, k, v, bias, out, log_sums, seed, offset, dropout, needs, causal=False, *,
    scale=None
):
    p, scale = probabilities(q, k, bias, causal, scale)
    gradient = gradient.float()
    inner = (gradient * out.float()).sum(-1, keepdim=True)
    scores = p * (gradient @ v.float().mT - inner) * scale
    grad_q = (scores @ k.float()).to(q.dtype)
    grad_k = (scores.mT @ q.float()).to(q.dtype)
    grad_v = (p.mT @ gradient).to(q.dtype)
    return grad_q, grad_k, grad_v, None


def call_attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
    """torch.nn.functional.scaled_dot_product_attention as it is on a card: a boolean mask becomes
    numbers, one whose rows do not start at multiples of 16 is copied to where they do."""
    if q.device.type == "cpu":
        return cpu_attention(q, k, v, attn_mask, dropout_p, is_causal, scale=scale)
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    bias = attn_mask
    with torch.autocast("cuda", enabled=False):
        if bias is not None:
            if bias.dtype == torch.bool:
                bias = q.new_zeros(bias.shape).masked_fill(~bias, -torch.inf)
            bias = bias.to(q.dtype)
            if any(stride % 16 for stride in bias.stride()[:-1]):
                width = bias.size(-1)
                bias = F.pad(bias, (0, -width % 16))[..., :width]
            bias = bias.expand(q.size(0), q.size(1), q.size(2), k.size(2))
        return torch.ops.aten._scaled_dot_product_efficient_attention(
            q, k, v, bias, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
        )[0]


def product_in_float32(total, a, b, out_dtype, *, beta=1, alpha=1, out):
    """aten::addmm.dtype_out, of half-precision a and b."""
    return torch.addmm(total, a.to(out_dtype), b.to(out_dtype), beta=beta, alpha=alpha, out=out)


def mm_in_float32(a, b, out_dtype):
    """aten::mm.dtype, of half-precision a and b."""
    return a.to(out_dtype) @ b.to(out_dtype)


OF_A_CARD = {  # what a CPU has not
    "aten._scaled_dot_product_efficient_attention.default": attention,
    "aten._scaled_dot_product_efficient_attention_backward.default": attention_backward,
    "aten.addmm.dtype_out": product_in_float32,
    "aten.mm.dtype": mm_in_float32,
}


# ---------------------------------------------------------------------- torch with a card in it

cpu_tensor = torch.tensor
cpu_attention = F.scaled_dot_product_attention


def tensor(values, *, device=None, **words):
    """torch.tensor(); its own asks the driver for the card."""
    made = cpu_tensor(values, **words)
    if device is None or torch.device(device).type == "cpu":
        return made
    launches["copy"] += 1
    wait("torch.tensor")
    return OnGpu(made)


def as_tensor(values, device=None, **words):
    if isinstance(values, torch.Tensor):
        return values.to(device=device, **words)
    return tensor(values, device=device, **words)


def plug_in():
    """From here on torch believes in the card."""
    torch.cuda.is_available = lambda: True
    torch.cuda.get_device_properties = lambda *_: SimpleNamespace(major=9)
    torch.cuda.device_count = lambda: 1
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_name = lambda *_: "a pretended GPU"
    torch.cuda._lazy_init = lambda: None
    torch.cuda.manual_seed_all = lambda seed: None
    torch.cuda.synchronize = lambda *_: None
    torch.cuda.CUDAGraph = Graph
    torch.cuda.Stream = lambda *_: SimpleNamespace(wait_stream=lambda _: None)
    torch.cuda.current_stream = lambda *_: None
    torch.cuda.stream = lambda _: nullcontext()
    torch.cuda.mem_get_info = lambda *_: (2**30, 2**30)
    torch.cuda.memory_reserved = lambda *_: 0
    torch.cuda.memory_allocated = lambda *_: 0
    torch.tensor = tensor
    torch.as_tensor = as_tensor
    F.scaled_dot_product_attention = call_attention
    torch.inference_mode = torch.no_grad  # tensors of such a class cannot be made within it
    # A module that moves gets new parameters: the old ones cannot hold an OnGpu.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    Creation().__enter__()
