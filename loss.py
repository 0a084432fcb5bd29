"""The training loss over a large vocabulary, without ever holding the logits of a whole batch."""
import torch
import torch.nn.functional as F

LOGITS_BUDGET = 64 * 2**20  # bytes of logits held at a time: more is no faster on a CPU, only larger


class ChunkedCrossEntropy(torch.autograd.Function):
    """sum_n -log softmax(h_n E^T + b)[y_n], label-smoothed: (1 - a) of it plus a / V of the sum over all words.

    With p the softmax, the gradient by the logits is  p - (1 - a) onehot(y) - a / V, so it is computed right away, in
    the chunk's own memory, and taken to h and (only if it trains) E before the next chunk's logits overwrite it."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, labels, smoothing):
        need_hidden, need_weight = ctx.needs_input_grad[:2]
        n, vocab = hidden.size(0), weight.size(0)
        rows = max(1, LOGITS_BUDGET // (4 * vocab))
        total = hidden.new_zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32))
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight) if need_weight else None
        for start in range(0, n, rows):
            h, y = hidden[start:start + rows], labels[start:start + rows, None]
            logits = F.linear(h, weight).to(total.dtype) + bias  # (rows, V); half precision ends here
            log_sum = logits.logsumexp(1, keepdim=True)
            nll = log_sum - logits.gather(1, y)
            total += (1 - smoothing) * nll.sum()
            if smoothing:
                total += smoothing * (log_sum - logits.mean(1, keepdim=True)).sum()
            if need_hidden or need_weight:
                grad = logits.sub_(log_sum).exp_()
                grad.scatter_add_(1, y, torch.full_like(nll, smoothing - 1))
                if smoothing:
                    grad -= smoothing / vocab
                grad = grad.to(torch.get_autocast_dtype(h.device.type) if torch.is_autocast_enabled(h.device.type)
                               else weight.dtype)
                if need_hidden:
                    grad_hidden[start:start + rows] = grad @ weight.to(grad.dtype)
                if need_weight:
                    grad_weight += grad.T @ h.to(grad.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        return total

    @staticmethod
    def backward(ctx, grad):
        return *(None if g is None else g * grad.to(g.dtype) for g in ctx.saved_tensors), None, None, None
