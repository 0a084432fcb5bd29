"""Middle-layer alignment: translations are pulled together in one layer of the encoder.

    a_i, b_i   text i and its translation: each the mean of layer N's states over its text tokens
    loss       -1/B sum_i log softmax_j(cos(a_i, b_j) / 0.1)_i
               the other texts of the batch are the negatives

(Liu and Niehues 2025, section 3.) Task updates and alignment updates alternate; an alignment update
runs no layer beyond N. Trained alone (stage align) or beside a task:

    python train.py --stage align --align-layer 2
    python train.py --stage summarize --recipe lora --align-layer 2
    python -m tools.layers --measures retrieval       how near each layer of a run brings them
"""
import torch
import torch.nn.functional as F

TEMPERATURE = 0.1  # as published


def mean_pool(states, ids, tokenizer):
    """states (B, T, D) of ids (B, T) -> (B, D): the mean over the tokens that are text."""
    keep = tokenizer.is_text(ids)[..., None]  # (B, T, 1)
    return (states * keep).sum(1) / keep.sum(1).clamp(min=1)


def contrastive_loss(a, b, temperature=TEMPERATURE):
    """a, b (B, D) in float32, row i of one translates row i of the other -> the mean loss."""
    with torch.autocast(a.device.type, enabled=False):  # bf16 has but 3 digits
        a = F.normalize(a, dim=1)
        b = F.normalize(b, dim=1)
        similarity = a @ b.T / temperature  # (B, B)
        return F.cross_entropy(similarity, torch.arange(len(a), device=a.device))


def alignment_loss(model, batch, layer, tokenizer):
    """The contrastive loss of a ParallelBatch in encoder layer `layer`, counted from 1."""
    pooled = []
    for ids in (batch.source, batch.translation):
        states = model.encode(ids, upto=layer).float()  # (B, T, D)
        pooled.append(mean_pool(states, ids, tokenizer.source))
    return contrastive_loss(*pooled)
