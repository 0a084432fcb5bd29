"""How alike are the states of different languages? SVCCA between mean-pooled states of parallel documents.

SVCCA (Raghu et al. 2017): each language's states, one row a document, are reduced to the singular directions that hold
99% of the variance; canonical correlation analysis then finds the pairs of directions, one on each side, that correlate
most, and their mean correlation is the similarity: 1 if one language's states are a linear map of the other's. (The
similarity that Solovyev et al. 2024, section 7, leave open.)
"""
import torch

from adversarial import layer_states, words_only


def pooled_states(model, tokenizer, batches, side="encoder"):
    """Mean over each text's tokens of every layer's states: L + 1 tensors (N, D), in the batches' order."""
    layers = []
    for batch in batches:
        batch = batch.to(next(model.parameters()).device)
        ids, vocabulary = (batch.source, tokenizer.source) if side == "encoder" else (batch.decoder_input, tokenizer)
        keep = words_only(ids, vocabulary)[..., None]
        layers.append([((x * keep).sum(1) / keep.sum(1).clamp(min=1)).cpu() for x in layer_states(model, batch, side)])
    return [torch.cat(rows) for rows in zip(*layers)]


def svcca(x, y, keep=0.99):
    """Mean canonical correlation between x (N, D) and y (N, E) after each keeps its `keep` largest share of variance.

    N should be several times D, or chance alone correlates."""
    bases = []
    for states in (x, y):
        u, s, _ = torch.linalg.svd((states - states.mean(0)).double(), full_matrices=False)
        share = (s**2).cumsum(0) / (s**2).sum()
        bases.append(u[:, :int((share < keep).sum()) + 1])  # orthonormal: whitened already
    return torch.linalg.svdvals(bases[0].T @ bases[1]).clamp(max=1).mean().item()
