"""Which tensors train: the recipes of zero-shot finetuning (Solovyev et al. 2024, section 3).

Attention computes softmax(Q K^T / sqrt(d)) V with Q = x W_q, K = y W_k, V = y W_v. Q and K decide WHERE a position
looks, V and everything behind it decide WHAT is written. Finetuning only Q and K on English summaries therefore
teaches a model which parts of a document matter without touching the path on which the words of every other
language travel: that is the `qk` recipe, and the reason why Q, K and V are separate tensors in model.py.

A recipe is one regular expression over parameter names (transformers' own names). Embeddings (token, position and
the layer norm on top of them) stay frozen in all but `full+embeddings` and the recipes of a new language.

NEW LANGUAGES (Gheini, Ren and May 2021): a trained translation model gets a new source (`src…`) or target (`tgt…`)
language with a vocabulary and embeddings of its own; what else may move is the recipe.

LORA (Hu et al. 2021; Liu and Niehues 2025, section 4): W x + b becomes W x + b + (alpha / r) B A dropout(x) with A
(r, in) and B (out, r), B zero at first; only A and B train, and W + (alpha / r) B A is what is saved as the model.

Run it alone to see the table of a model:  python qk_finetune.py base qk
"""
import math
import re
import sys

import torch
import torch.nn.functional as F
from torch import nn

from model import MBart
from plumbing.files import UserError, run

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
    "lora": r".*\.lora_[ab]$",
}
# A new language on one side: its embeddings (token, position, layer norm), and what else learns to use them.
SIDES = {"src": r"model\.encoder\.(embed_\w+|layernorm_embedding)\.",
         "tgt": r"model\.(shared|decoder\.embed_positions|decoder\.layernorm_embedding)\."}
CROSS = r"model\.decoder\.layers\.\d+\.encoder_attn(_layer_norm)?\."
for side, embeddings in SIDES.items():
    RECIPES |= {side: embeddings, f"{side}+body": f"{embeddings}|{RECIPES['full']}",
                f"{side}+xattn": f"{embeddings}|{CROSS}", f"{side}+randxattn": f"{embeddings}|{CROSS}"}
RECIPES["scratch"] = r".*"  # a new model
# The same for a multilingual model that keeps its vocabulary, shared by both sides ("body" is full+embeddings then).
OWN = r"model\.(shared|(encoder|decoder)\.(embed_positions|layernorm_embedding))\."
RECIPES |= {"emb": OWN, "emb+xattn": f"{OWN}|{CROSS}", "emb+randxattn": f"{OWN}|{CROSS}"}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


def apply_recipe(model, recipe):
    """Sets requires_grad on every parameter of `model`; returns the names that train, in the model's order.

    `lora` needs add_lora() first, the recipes of a new language new_language(). UserError for an unknown recipe."""
    if recipe not in RECIPES:
        raise UserError(f"unknown recipe {recipe!r}; there are: {', '.join(RECIPES)}")
    if recipe.split("+")[0] in SIDES and model.config.source_vocab_size is None:
        raise UserError(f"--recipe {recipe} trains the embeddings of a new language; name it with --new-source or "
                        "--new-target")
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
    if "lora" in name:
        return f"{side} LoRA"
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


# ---------------------------------------------------------------------------------------------- LoRA

class LoRALinear(nn.Linear):
    """A linear layer with a low-rank addition; its weight and bias keep their names."""

    def adapt(self, rank, alpha, dropout):
        self.scale, self.dropout = alpha / rank, dropout
        self.lora_a = nn.Parameter(torch.empty(rank, self.in_features, device=self.weight.device))
        self.lora_b = nn.Parameter(torch.zeros(self.out_features, rank, device=self.weight.device))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, x):
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a)  # (..., r)
        return super().forward(x) + F.linear(self.scale * low, self.lora_b)


def add_lora(model, rank=8, alpha=16, dropout=0.1, projections=PROJECTIONS, seed=0):
    """Turns the named projections of every layer into LoRALinear, in place; their outputs are unchanged at first."""
    if unknown := [name for name in projections if name not in PROJECTIONS]:
        raise UserError(f"LoRA cannot adapt {unknown[0]!r}; the projections are: {' '.join(PROJECTIONS)}")
    if rank < 1:
        raise UserError(f"a LoRA rank must be at least 1, not {rank}")
    torch.manual_seed(seed)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.split(".")[-1] in projections:
            module.__class__ = LoRALinear  # the same object: nothing that refers to it needs to change
            module.adapt(rank, alpha, dropout)


def merged_state(model):
    """The model's state_dict with every low-rank addition put into its weight: plain mBART names and shapes."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            state[f"{name}.weight"] = module.weight + module.scale * module.lora_b @ module.lora_a
            del state[f"{name}.lora_a"], state[f"{name}.lora_b"]
    return state


def needed_by(name, layer):
    """Do the states of encoder layer `layer` (from 1) depend on the parameter of this name?"""
    number = re.match(r"model\.encoder\.layers\.(\d+)\.", name)
    return int(number[1]) < layer if number else not re.match(r"model\.(decoder\.|encoder\.layer_norm\.)", name)


def freeze_beyond(model, layer):
    """Freezes all that encoder layer `layer` (from 1) does not need, whatever the recipe was; returns what trains."""
    for name, parameter in model.named_parameters():
        if not needed_by(name, layer):
            parameter.requires_grad_(False)
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


# ---------------------------------------------------------------------------------------------- a new language

@torch.no_grad()
def random_cross_attention(model, seed=0):
    """Draws the decoder's cross-attention anew: the control that shows what its pretrained values are worth."""
    torch.manual_seed(seed)
    fresh = MBart(model.config).state_dict()
    for name, parameter in model.named_parameters():
        if re.match(CROSS, name):
            parameter.copy_(fresh[name])


@torch.no_grad()
def new_language(model, side, vocab_size, recipe, seed=0):
    """Gives one side of `model` fresh token, position and norm parameters for a vocabulary of `vocab_size`, untied from
    the other side's (Gheini et al. 2021, section 3); returns the model that has them, everything else as it was.

    side: "src" or "tgt". The decoder's input and output stay tied. `…+randxattn` draws new cross-attention, `scratch`
    everything."""
    torch.manual_seed(seed)
    old, config = model.state_dict(), type(model.config)(**vars(model.config))
    if side == "src":
        config.source_vocab_size = vocab_size
    else:
        config.source_vocab_size, config.vocab_size = model.source_table().size(0), vocab_size
    fresh = MBart(config)  # initialized
    state = fresh.state_dict()
    if recipe == "scratch":
        return fresh
    keep = {name: tensor for name, tensor in old.items() if not re.match(SIDES[side], name)}
    if side == "tgt":
        keep["model.encoder.embed_tokens.weight"] = model.source_table().detach()
        keep.pop("final_logits_bias")
    if recipe.endswith("+randxattn"):
        keep = {name: tensor for name, tensor in keep.items() if not re.match(CROSS, name)}  # the control
    fresh.load_state_dict(state | {name: tensor.clone() for name, tensor in keep.items()})
    return fresh


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    if len(argv) != 2:
        raise UserError(f"usage: python qk_finetune.py FOLDER RECIPE   (one of {', '.join(RECIPES)})")
    model = MBart.from_pretrained(argv[0])
    apply_recipe(model, argv[1])
    print(describe(model))


if __name__ == "__main__":
    run(main)
