"""Which tensors train: the recipes of zero-shot finetuning (Solovyev et al. 2024, section 3).

Attention computes softmax(Q K^T / sqrt(d)) V with Q = x W_q, K = y W_k, V = y W_v. Q and K decide
WHERE a position looks, V and everything behind it decide WHAT is written. Finetuning only Q and K
of the attention that reads the source (not of the decoder's self-attention) on English summaries
therefore teaches a model which parts of a document matter without touching the path on which the
words of every other language travel: that is the `qk` recipe, and the reason why Q, K and V are
separate tensors in model.py.

A recipe is one regular expression over parameter names (transformers' own names). Embeddings
(token, position and the layer norm on top of them) stay frozen in all but `full+embeddings` and
the recipes of a new language.

NEW LANGUAGES (Gheini, Ren and May 2021): a trained translation model gets a new source (`src…`) or
target (`tgt…`) language with a vocabulary and embeddings of its own, as `tools.new_language` makes
them; what else may move is the recipe.

LORA (Hu et al. 2021; Liu and Niehues 2025, section 4): W x + b becomes

    W x + b + (alpha / r) B A dropout(x)        A (r, in), B (out, r), B zero at first

Only A and B train, and W + (alpha / r) B A is what is saved as the model.

Run it alone to see the table of a model:  python qk_finetune.py base qk
"""
import argparse
import math
import re
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from model import MBart
from plumbing.files import UserError, run
from plumbing.models import MODEL_HELP, model_folder

# Parts of a model, as regular expressions that match the beginning of a parameter's name.
LAYERS = r"model\.(encoder|decoder)\.(layers|layer_norm)\."
ENCODER_LAYERS = r"model\.encoder\.(layers|layer_norm)\."
DECODER_LAYERS = r"model\.decoder\.(layers|layer_norm)\."
NORMS = r"model\.(encoder|decoder)\.(layers\.\d+\.\w+_layer_norm|layer_norm)\."
CROSS = r"model\.decoder\.layers\.\d+\.encoder_attn(_layer_norm)?\."
# The attention that reads the source: the encoder's to itself, and the decoder's to the encoder.
ATTENTION = r"model\.(encoder\.layers\.\d+\.self_attn|decoder\.layers\.\d+\.encoder_attn)\."
EMBEDDINGS = r"model\.(shared|(encoder|decoder)\.(embed_positions|layernorm_embedding))\."
SIDES = {  # the embeddings of one side where it has a vocabulary of its own
    "src": r"model\.encoder\.(embed_\w+|layernorm_embedding)\.",
    "tgt": r"model\.(shared|decoder\.embed_positions|decoder\.layernorm_embedding)\.",
}
TABLES = {"src": "model.encoder.embed_tokens.weight", "tgt": "model.shared.weight"}  # of tokens

RECIPES = {
    # Finetuning for a task.
    "full": LAYERS,                          # every layer
    "full+embeddings": r".*",                # everything
    "frozen_decoder": ENCODER_LAYERS,        # the encoder's layers
    "attn_ln": f"{ATTENTION}|{NORMS}",       # the attention that reads the source, and all norms
    "vqk": ATTENTION + r"[vqk]_proj\.",      # values, queries and keys of that attention
    "qk": ATTENTION + r"[qk]_proj\.",        # its queries and keys: where to look
    "q": ATTENTION + r"q_proj\.",            # its queries
    "adv_tuned": DECODER_LAYERS,             # the decoder's layers, after adversarial training
    "lora": r".*\.lora_[ab]$",               # the low-rank additions of add_lora()
    # A new source language with a vocabulary of its own.
    "src": SIDES["src"],                     # its embeddings
    "src+xattn": f"{SIDES['src']}|{CROSS}",  # and the cross-attention
    "src+body": f"{SIDES['src']}|{LAYERS}",  # and every layer
    # A new target language with a vocabulary of its own.
    "tgt": SIDES["tgt"],                     # its embeddings, which are the output layer too
    "tgt+xattn": f"{SIDES['tgt']}|{CROSS}",  # and the cross-attention
    "tgt+body": f"{SIDES['tgt']}|{LAYERS}",  # and every layer
    # A new language of a multilingual model, in the vocabulary that both sides share.
    "emb": EMBEDDINGS,                       # the embeddings
    "emb+xattn": f"{EMBEDDINGS}|{CROSS}",    # and the cross-attention
}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")  # that LoRA can adapt


# ------------------------------------------------------------------------------------- recipes

def apply_recipe(model, recipe):
    """Sets requires_grad on every parameter of `model`; returns the names that train, in order.

    `lora` needs add_lora() first. UserError for an unknown recipe, and for that of a new language
    where the model has none."""
    check_recipe(recipe, model.config)
    names = []
    for name, parameter in model.named_parameters():
        trains = re.match(RECIPES[recipe], name) is not None
        parameter.requires_grad_(trains)
        parameter.grad = None
        if trains:
            names.append(name)
    return names


def check_recipe(recipe, config):
    if recipe not in RECIPES:
        raise UserError(f"unknown recipe {recipe!r}; there are: {', '.join(RECIPES)}")
    if side_of(recipe) and config.source_vocab_size is None:
        raise UserError(
            f"--recipe {recipe} trains a new language's own vocabulary, which this model lacks; "
            "make a folder with one by `python -m tools.new_language fresh` and name it with --init"
        )


def check_fresh(recipe, side):
    """UserError if a recipe would not train the freshly drawn embeddings of `side`.

    side: "src" or "tgt"; tools.new_language writes it into a folder's args.json, as "fresh"."""
    if not re.match(RECIPES[recipe], TABLES[side]):
        raise UserError(
            f"--recipe {recipe} would leave the fresh {side} embeddings frozen; use {side}, "
            f"{side}+xattn, {side}+body or full+embeddings"
        )


def side_of(recipe):
    """The side, src or tgt, whose own vocabulary a recipe trains; None if it trains none."""
    side = recipe.partition("+")[0]
    return side if side in SIDES else None


def needed_by(name, layer, untied=False):
    """Do the states of encoder layer `layer` (from 1) depend on the parameter of this name?

    untied: the encoder has a table of its own (Config.source_vocab_size), and shares none."""
    if untied and name == TABLES["tgt"]:
        return False
    number = re.match(r"model\.encoder\.layers\.(\d+)\.", name)
    if number:
        return int(number[1]) < layer
    return not re.match(r"model\.(decoder\.|encoder\.layer_norm\.)", name)


# ----------------------------------------------------------------------------------- the table

@dataclass
class Share:
    """How much of a part of the model trains."""
    tensors: int = 0
    parameters: int = 0
    training_tensors: int = 0
    training_parameters: int = 0

    def count(self, parameter):
        self.tensors += 1
        self.parameters += parameter.numel()
        if parameter.requires_grad:
            self.training_tensors += 1
            self.training_parameters += parameter.numel()


def describe(model):
    """The table of what trains and what is frozen: tensors, parameters and share of the model."""
    whole = Share()
    parts = {}
    for name, parameter in model.named_parameters():
        part = parts.setdefault(part_of(name), Share())
        part.count(parameter)
        whole.count(parameter)
    lines = [row("part", "tensors that train", "parameters", "share of model")]
    for name, part in parts.items():
        if part.training_tensors:
            lines.append(share_row(name, part, whole))
        else:
            lines.append(row(name, "frozen", "", "").rstrip())
    lines.append(share_row("total", whole, whole))
    return "\n".join(lines)


def share_row(name, part, whole):
    return row(
        name,
        f"{part.training_tensors} of {part.tensors}",
        f"{part.training_parameters:,}",
        f"{part.training_parameters / whole.parameters:.1%}",
    )


def row(name, tensors, parameters, share):
    return f"{name:<28} {tensors:>18} {parameters:>14} {share:>15}"


def part_of(name):
    """The part of the model, in a reader's words, that a parameter belongs to."""
    side = ""
    if ".encoder." in name:
        side = "encoder"
    elif ".decoder." in name:
        side = "decoder"
    if ".layer_norm." in name:
        return f"{side} final layer norm"
    if "layers." not in name:
        return "embeddings"
    if "lora" in name:
        return f"{side} LoRA"
    module, inner = name.split(".")[4:6]  # of model.encoder.layers.0.self_attn.q_proj.weight
    if module == "self_attn":
        return f"{side} self-attention {inner.removesuffix('_proj')}"
    if module == "encoder_attn":
        return f"cross-attention {inner.removesuffix('_proj')}"
    if "norm" in module:
        return f"{side} layer norms"
    return f"{side} feed-forward"


def parameters_by_recipe(config, rank=8):
    """{recipe: (all, those that train)} in numbers of parameters, for a model of this shape.

    Recipes for a new language are counted as if its vocabulary had the model's own size; `lora`
    with its additions. Nothing is allocated."""
    counts = {}
    for recipe in RECIPES:
        shape = config
        if side_of(recipe) and config.source_vocab_size is None:
            shape = replace(config, source_vocab_size=config.vocab_size)
        with torch.device("meta"):
            model = MBart(shape)
            if recipe == "lora":
                add_lora(model, rank)
        apply_recipe(model, recipe)
        whole = Share()
        for parameter in model.parameters():
            whole.count(parameter)
        counts[recipe] = (whole.parameters, whole.training_parameters)
    return counts


# ---------------------------------------------------------------------------------------- LoRA

class LoRALinear(nn.Module):
    """A linear layer with a low-rank addition: x (..., in) -> (..., out).

    Its weight and bias are those of `linear`, and keep their names."""

    def __init__(self, linear, rank, alpha, dropout):
        super().__init__()
        out_features, in_features = linear.weight.shape
        device = linear.weight.device
        self.weight = linear.weight
        self.bias = linear.bias
        self.lora_a = nn.Parameter(torch.empty(rank, in_features, device=device))
        self.lora_b = nn.Parameter(torch.zeros(out_features, rank, device=device))
        self.scale = alpha / rank
        self.dropout = dropout
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.train(linear.training)

    def forward(self, x):
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a)  # (..., r)
        return F.linear(x, self.weight, self.bias) + F.linear(self.scale * low, self.lora_b)

    def merged(self):
        """The weight (out, in) of a plain linear layer with the same outputs."""
        return self.weight + self.scale * self.lora_b @ self.lora_a


def add_lora(model, rank=8, dropout=0.1, projections=PROJECTIONS, seed=0):
    """Puts a LoRALinear in place of the named projections of every layer, alpha twice the rank.

    The model's outputs are unchanged at first."""
    check_lora(rank, projections)
    torch.manual_seed(seed)
    for name, module in list(model.named_modules()):
        parent, _, own_name = name.rpartition(".")
        if isinstance(module, nn.Linear) and own_name in projections:
            adapted = LoRALinear(module, rank, alpha=2 * rank, dropout=dropout)
            setattr(model.get_submodule(parent), own_name, adapted)


def check_lora(rank, projections):
    for name in projections:
        if name not in PROJECTIONS:
            raise UserError(
                f"LoRA cannot adapt {name!r}; the projections are: {' '.join(PROJECTIONS)}"
            )
    if rank < 1:
        raise UserError(f"a LoRA rank must be at least 1, not {rank}")


@torch.no_grad()
def merged_state(model):
    """The model's state_dict with every low-rank addition put into its weight: plain mBART."""
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, LoRALinear):
            state[f"{name}.weight"] = module.merged()
            del state[f"{name}.lora_a"]
            del state[f"{name}.lora_b"]
    return state


def main(argv=None):
    parser = argparse.ArgumentParser(description="Print what a recipe trains in a model.")
    parser.add_argument("folder", help=MODEL_HELP)
    parser.add_argument("recipe", metavar="RECIPE", choices=RECIPES, help=", ".join(RECIPES))
    args = parser.parse_args(argv)
    model = MBart.from_pretrained(model_folder(args.folder))
    if args.recipe == "lora":
        add_lora(model)
    apply_recipe(model, args.recipe)
    print(describe(model))


if __name__ == "__main__":
    run(main)
