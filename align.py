"""Middle-layer alignment: translations are pulled together in one layer of the encoder.

    a_i, b_i   text i and its translation: each the mean of layer n's states over its text tokens
    s_ij       cos(a_i, b_j) / 0.1
    loss       -1/B sum_i log( exp s_ii / (exp s_ii + sum_{j in N_i} exp s_ij) )
    N_i        the negatives of i: the rows j of the batch with another text and another translation
               than row i; otherwise a sentence that is there twice would be pushed from itself

(Liu and Niehues 2025, section 3.) One direction: the anchor a_i looks for its translation among all
b_j. By default the anchor is the text that is not English and all candidates are English
(es_XX-en_XX, ru_RU-en_XX, ...), as in the authors' code; pairs that are typed keep their direction,
SRC-TGT with SRC as the anchor. Ours pools over text tokens alone, theirs over tags and </s> too.

Beside a task both losses make ONE step of the optimizer: L = task loss per token + alignment loss,
the latter a mean over as many batches of translations as the task has of its own (--accumulate).
Batches of translations run no layer beyond n. Trained alone (stage align) or beside a task:

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


def contrastive_loss(a, b, excluded=None):
    """a, b (B, D) in float32, row i of one translates row i of the other -> the mean loss.

    excluded (B, B) bool: where it is true, row j of b is no negative of row i of a."""
    with torch.autocast(a.device.type, enabled=False):  # bf16 keeps only 3 digits
        a = F.normalize(a, dim=1)
        b = F.normalize(b, dim=1)
        similarity = a @ b.T / TEMPERATURE  # (B, B)
        if excluded is not None:
            similarity = similarity.masked_fill(excluded, -torch.inf)
        return F.cross_entropy(similarity, torch.arange(len(a), device=a.device))


def twins(batch):
    """Which other rows of a ParallelBatch have row i's text or row i's translation: (B, B) bool.

    Their translations are as right for text i as its own: no negatives."""
    same = same_rows(batch.source) | same_rows(batch.translation)
    return same.fill_diagonal_(False)


def has_negatives(batch):
    """Does any row of a ParallelBatch have a negative? Without one its loss is 0, whatever the
    states."""
    negatives = ~twins(batch)
    negatives.fill_diagonal_(False)  # a row's own translation is none
    return negatives.any().item()


def same_rows(ids):
    """ids (B, T) -> (B, B) bool: are row i and row j the same?"""
    return (ids[:, None] == ids[None]).all(2)


def alignment_loss(model, batch, layer, tokenizer):
    """The contrastive loss of a ParallelBatch in encoder layer `layer`, counted from 1."""
    anchors = text_vectors(model, batch.source, layer, tokenizer)
    translations = text_vectors(model, batch.translation, layer, tokenizer)
    return contrastive_loss(anchors, translations, twins(batch))


def text_vectors(model, ids, layer, tokenizer):
    """ids (B, T) of texts -> the mean state of each in encoder layer `layer`: (B, D)."""
    ids = model.widened(ids)
    states = model.encode(ids, upto=layer).float()  # (B, T, D)
    return mean_pool(states, ids, tokenizer.source)
