"""Large tensors that one training step leaves to the next.

On a CPU fresh memory costs more than the arithmetic done in it: a gradient of the embedding table
or a block of logits is up to a gigabyte, and half of a training step at mBART's vocabulary went
into asking the system for it.
"""
import torch


class Memory(dict):
    """{name: tensor}. take() lends a piece; it is put back by memory[name] = it."""

    def take(self, name, shape, like):
        """A tensor (rows, columns) with any content, of the type and device of `like`.

        No other step has it until it is put back."""
        rows, columns = shape
        kept = self.pop(name, None)
        if kept is None or not fits(kept, rows * columns, like):
            kept = like.new_empty(rows * columns)
        # The beginning of what is kept, which may be larger.
        return kept.as_strided((rows, columns), (columns, 1), 0)

    def __deepcopy__(self, memo):
        return Memory()  # a copy of the model starts with none


def fits(kept, count, like):
    if (kept.dtype, kept.device) != (like.dtype, like.device):
        return False
    if kept.is_inference() and not torch.is_inference_mode_enabled():
        return False  # torch lets nothing else write to it
    held = kept.untyped_storage().nbytes()  # a view may show less than there is
    return held >= count * kept.itemsize
