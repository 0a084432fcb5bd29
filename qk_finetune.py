r"""Which tensors train: the recipes of zero-shot finetuning (Solovyev et al. 2024, section 3).

Attention of a to c computes softmax(Q K^T / sqrt(d)) V with Q = a W_q + b_q, K = c W_k + b_k and
V = c W_v + b_v, as in model.py. Q and K decide WHERE a position looks, V and everything behind it
decide WHAT is written. The paper's hypothesis: finetuning only Q and K of the attention that reads
the source (not of the decoder's self-attention) on English summaries teaches a model which parts of
a document matter, and leaves alone the path on which the words of every other language travel. That
is the `qk` recipe, and the reason why Q, K and V are separate tensors in model.py.

A recipe is one regular expression over parameter names (transformers' own names): one of the table
below, or any other that is typed in a name's place, such as `decoder.*encoder_attn\.[qk]_proj`,
the queries and keys of the cross-attention alone. It may be narrowed to a range of layers. Of the
table's recipes all but `full+embeddings` and those of a new language leave the embeddings (token,
position and the layer norm on top of them) frozen.

Nothing smaller than a tensor is chosen. A single head would be a block of rows of W_q and W_k, and
AdamW's weight decay moves all rows of a tensor that trains, those without a gradient too.

NEW LANGUAGES (Gheini, Ren and May 2021): a trained translation model gets a new source (`src…`) or
target (`tgt…`) language, or one of each (`both…`), with a vocabulary and embeddings of its own, as
`tools.new_language` makes them; what else may move is the recipe.

LORA (Hu et al. 2021; Liu and Niehues 2025, section 4): W x + b becomes

    W x + b + (alpha / r) B A dropout(x)        A (r, in), B (out, r), B zero at first

Only A and B train, and W + (alpha / r) B A is what is saved as the model.

Run it alone to see what would train in a model:
    python qk_finetune.py base qk
    python qk_finetune.py base qk --layers 1-2
    python qk_finetune.py base 'encoder.*self_attn'
"""
import difflib
import math
import re
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import nn

from model import MBart
from plumbing.files import UserError, beside_python, parser_of, run
from plumbing.models import MODEL_HELP, model_folder

# Parts of a model, as regular expressions that are searched for in a parameter's name.
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
# The token embeddings of each side.
TABLES = {"src": "model.encoder.embed_tokens.weight", "tgt": "model.shared.weight"}
BOTH = f"{SIDES['src']}|{SIDES['tgt']}"

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
    # A new source and a new target language.
    "both": BOTH,                            # the embeddings of both
    "both+xattn": f"{BOTH}|{CROSS}",         # and the cross-attention
    "both+body": f"{BOTH}|{LAYERS}",         # and every layer: everything
    # A new language of a multilingual model, in the vocabulary that both sides share.
    "emb": EMBEDDINGS,                       # the embeddings
    "emb+xattn": f"{EMBEDDINGS}|{CROSS}",    # and the cross-attention
}
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")  # that LoRA can adapt

RECIPE_HELP = (
    f"a recipe ({', '.join(RECIPES)}) or a regular expression that is found in the names of the "
    r"parameters to train, e.g. 'decoder.*encoder_attn\.[qk]_proj'"
)
LAYERS_HELP = (
    "train only the recipe's part in these layers of encoder and decoder, counted from 1, e.g. 2 "
    "or 1-2; embeddings and final norms are in no layer"
)


# ------------------------------------------------------------------------------------- recipes

def apply_recipe(model, recipe, layers=None):
    """Sets requires_grad on every parameter of `model`; returns the names that train, in order.

    recipe: a name in RECIPES, or a regular expression; layers: "FIRST-LAST" or one number; only
    what stands in these layers trains. `lora` needs add_lora() first. UserError for what is no
    expression, for what would train nothing, for layers that the model lacks, and for a new
    language's recipe where the model has none."""
    check_recipe(recipe, layers)
    check_model_fits(recipe, layers, model.config)
    parameters = dict(model.named_parameters())
    names = [name for name in parameters if trains(name, recipe, layers)]
    if not names:
        check_recipe_exists(recipe, list(parameters))
        raise UserError(f"--recipe {recipe_in_words(recipe, layers)} trains nothing of this model")
    for parameter in parameters.values():
        parameter.requires_grad_(False)
        parameter.grad = None
    for name in names:
        parameters[name].requires_grad_(True)
    return names


def trains(name, recipe, layers=None):
    """Does the parameter of this name train?"""
    expression = RECIPES.get(recipe, recipe)
    return in_layers(name, layers) and re.search(expression, name) is not None


def in_layers(name, layers):
    """Does a parameter or module of this name stand in these layers? layers=None: anywhere."""
    if layers is None:
        return True
    first, last = first_and_last(layers)
    number = layer_of(name)
    return number is not None and first <= number <= last


def layer_of(name):
    """The layer, from 1, that a parameter or module of this name stands in; None: in none."""
    found = re.match(r"model\.(?:encoder|decoder)\.layers\.(\d+)\.", name)
    if found is None:
        return None
    return int(found[1]) + 1  # names count layers from 0


def first_and_last(layers):
    """"2-4" -> (2, 4) and "3" -> (3, 3)."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", layers)
    if found:
        first = int(found[1])
        last = first
        if found[2]:
            last = int(found[2])
        if 1 <= first <= last:
            return first, last
    raise UserError(
        f"--recipe-layers {layers!r}: write one number or FIRST-LAST, as 2 or 1-2; the first layer "
        "is 1"
    )


def recipe_in_words(recipe, layers=None):
    """For messages: "qk", or "qk in layers 1-2"."""
    if layers is None:
        return recipe
    noun = "layers" if "-" in layers else "layer"
    return f"{recipe} in {noun} {layers}"


def check_recipe(recipe, layers=None):
    """UserError for a recipe that no model could have: no expression, or no range of layers."""
    if layers is not None:
        first_and_last(layers)
    if not recipe.strip():
        raise UserError(f"--recipe is empty; the recipes are: {', '.join(RECIPES)}")
    try:
        re.compile(RECIPES.get(recipe, recipe))
    except (re.error, OverflowError) as error:
        raise UserError(
            f"--recipe {recipe!r} is no regular expression ({error}) and no recipe; the recipes "
            f"are: {', '.join(RECIPES)}"
        ) from None


def check_model_fits(recipe, layers, config):
    """UserError if a model of this Config lacks the vocabulary or the layers that are to train."""
    if sides_of(recipe) and config.source_vocab_size is None:
        raise UserError(
            f"--recipe {recipe} trains a new language's own vocabulary, which this model lacks; "
            f"make a folder with one by `{beside_python()} -m tools.new_language fresh` and name "
            "it with --init"
        )
    if recipe in ("emb", "emb+xattn") and config.source_vocab_size is not None:
        raise UserError(
            f"--recipe {recipe} trains embeddings that both sides share, and this model has some "
            "for each side: name a recipe of src, tgt or both"
        )
    if layers is not None:
        count = max(config.encoder_layers, config.decoder_layers)
        _, last = first_and_last(layers)
        if last > count:
            raise UserError(f"--recipe-layers {layers}: the model has layers 1 to {count}")


def check_recipe_exists(recipe, names):
    """UserError if a recipe is neither in the table nor found in any of a model's `names`."""
    if recipe in RECIPES or any(trains(name, recipe) for name in names):
        return
    hint = ""
    close = difflib.get_close_matches(recipe, RECIPES, 1)
    if close:
        hint = f", did you mean {close[0]}?"
    third = len(names) // 3
    examples = [names[0], names[third], names[2 * third]]
    raise UserError(
        f"unknown recipe {recipe!r}{hint} (there are: {', '.join(RECIPES)}), and as a regular "
        f"expression it is found in no parameter's name; three of them: {', '.join(examples)}"
    )


def check_fresh(recipe, fresh, layers=None):
    """UserError if a recipe would not train the freshly drawn embeddings of a side.

    fresh: "src", "tgt" or a list of both; tools.new_language writes it into a folder's args.json,
    as "fresh"."""
    sides = [fresh] if isinstance(fresh, str) else fresh
    group = "both" if len(sides) > 1 else sides[0]
    for side in sides:
        if trains(TABLES[side], recipe, layers):
            continue
        advice = f"use {group}, {group}+xattn, {group}+body or full+embeddings"
        if layers is not None:
            advice += ", and leave out --recipe-layers"
        raise UserError(
            f"--recipe {recipe_in_words(recipe, layers)} would leave the fresh {side} embeddings "
            f"frozen; {advice}"
        )


def sides_of(recipe):
    """The sides, of src and tgt, whose own vocabulary a recipe of the table trains: a list."""
    if recipe not in RECIPES:
        return []
    group = recipe.partition("+")[0]
    if group == "both":
        return list(SIDES)
    if group in SIDES:
        return [group]
    return []


def moves_encoder(names, config, layer=None):
    """Can the encoder's states move if the parameters of these names train?

    layer: the states are those of this layer, from 1, as alignment reads them; None: those behind
    the last layer norm, as an adversary reads them."""
    untied = config.source_vocab_size is not None
    for name in names:
        if layer is None and name.startswith("model.encoder.layer_norm."):
            return True
        if needed_by(name, layer or config.encoder_layers, untied):
            return True
    return False


def needed_by(name, layer, untied=False):
    """Do the states of encoder layer `layer` (from 1) depend on the parameter of this name?

    untied: the encoder has a table of its own (Config.source_vocab_size), and shares none."""
    if untied and name == TABLES["tgt"]:
        return False
    if name.startswith(("model.decoder.", "model.encoder.layer_norm.")):
        return False
    number = layer_of(name)
    return number is None or number <= layer  # None: the embeddings


# ----------------------------------------------------------------------------------- the table

@dataclass
class Counted:
    """How many tensors and parameters a part of the model has, and how many of them train."""
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
    whole = Counted()
    parts = {}
    for name, parameter in model.named_parameters():
        part = parts.setdefault(part_of(name), Counted())
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
        percent(part.training_parameters / whole.parameters),
    )


def percent(share):
    if 0 < share < 0.0005:
        return "<0.1%"  # one layer's biases are not nothing
    return f"{share:.1%}"


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


def trained_share(config, recipe, layers=None):
    """The share of a model's parameters that train, from 0 to 1, as count_parameters() counts."""
    counted = count_parameters(config, recipe, layers)
    return counted.training_parameters / counted.parameters


def count_parameters(config, recipe, layers=None):
    """Counted of a whole model of this shape under a recipe; layers as in apply_recipe().

    Recipes for a new language are counted as if its vocabulary had the model's own size; `lora`
    with its additions, as add_lora() makes them. Nothing is allocated."""
    if sides_of(recipe) and config.source_vocab_size is None:
        config = replace(config, source_vocab_size=config.vocab_size)
    with torch.device("meta"):
        model = MBart(config)
        if recipe == "lora":
            add_lora(model, layers=layers)
    apply_recipe(model, recipe, layers)
    whole = Counted()
    for parameter in model.parameters():
        whole.count(parameter)
    return whole


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
        # Uniform within 1 / sqrt(in), as in the authors' code (the paper says Gaussian).
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.train(linear.training)

    def forward(self, x):
        low = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a)  # (..., r)
        return F.linear(x, self.weight, self.bias) + F.linear(self.scale * low, self.lora_b)

    def merged(self):
        """The weight (out, in) of a plain linear layer with the same outputs."""
        return self.weight + self.scale * self.lora_b @ self.lora_a


def add_lora(model, rank=8, dropout=0.1, projections=PROJECTIONS, seed=0, layers=None):
    """Puts a LoRALinear in place of the named projections of every layer, alpha twice the rank.

    layers: only in those, as apply_recipe() has them. The model's outputs are unchanged at
    first."""
    check_lora(rank, projections)
    check_lora_rank(rank, model.config)
    torch.manual_seed(seed)
    for name, module in list(model.named_modules()):
        parent, _, own_name = name.rpartition(".")
        chosen = own_name in projections and in_layers(name, layers)
        if isinstance(module, nn.Linear) and chosen:
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


def check_lora_rank(rank, config):
    if rank > config.d_model:
        raise UserError(
            f"a LoRA rank of {rank} is above the model's width {config.d_model}: its matrices "
            "would hold more numbers than those that they change"
        )


# ------------------------------------------------------------------------------ half precision

@dataclass
class FrozenTensor:
    """A frozen weight or bias of a linear layer in both precisions."""
    layer: str          # the layer's name in the model
    name: str           # "weight" or "bias"
    full: nn.Parameter  # in float32, on the CPU
    half: nn.Parameter  # in half precision, on the model's device


class FrozenInHalf:
    """Keeps the frozen weights and biases of linear layers in half precision while a model trains.

    Autocast would convert them anew for every batch: under qk a seventh of all kernels that an
    update launches. Their float32 values stay on the CPU."""

    def __init__(self, model, dtype):
        """dtype: torch.bfloat16 or torch.float16; None: all stays as it is."""
        self.model = model
        self.kept = []  # of FrozenTensor
        if dtype is None:
            return
        for layer, module in model.named_modules():
            if not isinstance(module, nn.Linear | LoRALinear):
                continue
            for name in ("weight", "bias"):
                parameter = getattr(module, name)
                if parameter is None or parameter.requires_grad:
                    continue
                half = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
                full = nn.Parameter(parameter.detach().cpu(), requires_grad=False)
                self.kept.append(FrozenTensor(layer, name, full, half))
                setattr(module, name, half)

    def state_to_save(self):
        """merged_state() of the model with its frozen tensors in float32 again."""
        try:
            for frozen in self.kept:
                full = nn.Parameter(frozen.full.to(frozen.half.device), requires_grad=False)
                self.put(frozen, full)
            return merged_state(self.model)
        finally:
            for frozen in self.kept:
                self.put(frozen, frozen.half)

    def put(self, frozen, parameter):
        # By the layer's name: decoding (--watch) puts another layer in its place.
        setattr(self.model.get_submodule(frozen.layer), frozen.name, parameter)


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
    parser = parser_of("Print what a recipe trains in a model.")
    parser.add_argument("folder", help=MODEL_HELP)
    parser.add_argument("recipe", metavar="RECIPE", help=RECIPE_HELP)
    parser.add_argument(
        "--layers", "--recipe-layers", metavar="FIRST-LAST", help=LAYERS_HELP
    )
    args = parser.parse_args(argv)
    check_recipe(args.recipe, args.layers)
    model = MBart.from_pretrained(model_folder(args.folder))
    if args.recipe == "lora":
        add_lora(model, layers=args.layers)
    apply_recipe(model, args.recipe, args.layers)
    print(describe(model))


if __name__ == "__main__":
    run(main)
