"""Which tensors train: the recipes of zero-shot finetuning (Solovyev et al. 2024, section 3).

Attention computes softmax(Q K^T / sqrt(d)) V with Q = x W_q, K = y W_k, V = y W_v. Q and K decide WHERE a position
looks, V and everything behind it decide WHAT is written. Finetuning only Q and K on English summaries therefore
teaches a model which parts of a document matter without touching the path on which the words of every other
language travel: that is the `qk` recipe, and the reason why Q, K and V are separate tensors in model.py.

A recipe is one regular expression over parameter names (transformers' own names). Embeddings (token, position and
the layer norm on top of them) stay frozen in all but `full+embeddings`.

Run it alone to see the table of a model:  python qk_finetune.py base qk
"""
import re
import sys

from model import MBart, UserError

ATTENTION = r"model\.(encoder\.layers\.\d+\.self_attn|decoder\.layers\.\d+\.encoder_attn)\."  # encoder self, cross
RECIPES = {
    "full": r"model\.(encoder|decoder)\.(layers|layer_norm)\.",
    "full+embeddings": r".*",
    "frozen_decoder": r"model\.encoder\.(layers|layer_norm)\.",
    "attn_ln": ATTENTION + r"|model\.(encoder|decoder)\.(layers\.\d+\.\w+_layer_norm|layer_norm)\.",
    "vqk": ATTENTION + r"[vqk]_proj\.",
    "qk": ATTENTION + r"[qk]_proj\.",
    "q": ATTENTION + r"q_proj\.",
    "adv_tuned": r"model\.decoder\.(layers|layer_norm)\.",  # after adversarial training: the decoder alone
}


def apply_recipe(model, recipe):
    """Sets requires_grad on every parameter of `model`; returns the names that train, in the model's order.

    Raises UserError for an unknown recipe."""
    if recipe not in RECIPES:
        raise UserError(f"unknown recipe {recipe!r}; there are: {', '.join(RECIPES)}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(re.match(RECIPES[recipe], name) is not None)
        parameter.grad = None
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def part_of(name):
    """The part of the model, in a reader's words, that a parameter belongs to."""
    side = "encoder" if ".encoder." in name else "decoder" if ".decoder." in name else ""
    if "layers." not in name:
        return f"{side} final layer norm" if ".layer_norm." in name else "embeddings"
    module = name.split(".")[4]
    attention = {"self_attn": f"{side} self-attention", "encoder_attn": "cross-attention"}.get(module)
    if attention:
        return f"{attention} {name.split('.')[5].removesuffix('_proj')}"
    return f"{side} layer norms" if "norm" in module else f"{side} feed-forward"


def describe(model):
    """The table of what trains and what is frozen: tensors, parameters and share for each part of the model."""
    parts, total = {}, sum(p.numel() for p in model.parameters())
    for name, parameter in model.named_parameters():
        row = parts.setdefault(part_of(name), [0, 0, 0, 0])
        row[0] += parameter.requires_grad
        row[1] += 1
        row[2] += parameter.numel() * parameter.requires_grad
        row[3] += parameter.numel()
    lines = [f"{'part':<28} {'tensors that train':>18} {'parameters':>14} {'share of model':>15}"]
    for part, (tensors, of, numel, _) in parts.items():
        lines.append(f"{part:<28} {f'{tensors} of {of}' if tensors else 'frozen':>18} "
                     f"{f'{numel:,}' if tensors else '':>14} {f'{numel / total:.1%}' if tensors else '':>15}")
    tensors, of, numel = (sum(row[i] for row in parts.values()) for i in (0, 1, 2))
    lines.append(f"{'total':<28} {f'{tensors} of {of}':>18} {f'{numel:,}':>14} {numel / total:>15.1%}")
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: python qk_finetune.py FOLDER RECIPE   (one of {', '.join(RECIPES)})")
    try:
        model = MBart.from_pretrained(sys.argv[1])
        apply_recipe(model, sys.argv[2])
        print(describe(model))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
