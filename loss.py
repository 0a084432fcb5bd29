"""The training loss over a large vocabulary, without ever holding the logits of a whole batch, and the tied table.

In mBART one table E (V, D) is the output head and both sides' token embedding: most of a small model's weights, and up
to a gigabyte of gradient. Its three gradients are therefore written into one piece of memory, which the next update
uses again: on a CPU fresh memory costs more than the arithmetic done in it (half of a training step at V = 250,027).
"""
import math

import torch
import torch.nn.functional as F

LOGITS_BUDGET = 256 * 2**20  # bytes of logits held at a time; each chunk passes over the whole of E three times


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
