"""A model folder for one more language, to be trained with --init (Gheini, Ren and May 2021).

    python -m tools.new_language fresh runs/parent runs/start --source de_DE --pairs de_DE-en_XX
        the parent with a German vocabulary for its encoder, learned from the pairs' training texts,
        and fresh embeddings for it; then  python train.py --init runs/start --recipe src+xattn ...
        --target gives the decoder a language instead: recipes tgt, tgt+xattn, tgt+body
        --cross-attention random   draws the cross-attention anew: the control that shows what its
                                   pretrained values are worth
        --scratch                  draws everything anew: a model that learns from nothing
    python -m tools.new_language fresh runs/start runs/both --target es_XX --pairs de_DE-es_XX
        once more, on a folder with a fresh side that has not been trained: both sides are new at
        once, and keep their vocabularies; recipes both, both+xattn, both+body
    python -m tools.new_language random-cross-attention base runs/start
        the same control for a model that keeps its vocabulary; then --recipe emb+xattn
    python -m tools.new_language graft runs/child runs/parent src runs/again
        the first folder's layers with the second one's embeddings and vocabulary on one side (src
        or tgt): a parent's own put back in its child, or two children stitched together

The new side has token, position and norm parameters of its own (section 3), untied from the other
side's, which stay the parent's; the decoder's input and output stay tied. Its positions are drawn
as large as its token embeddings are where the two are added: the authors draw both from
N(0, 1/d_model) and do not scale the tokens (--no-scale-embedding in their scripts). Sinusoids, with
which a small base begins (MBart.initialize), would hand much of the base's own positions on to what
is to be new. What a folder means beside its weights travels: its settings, its other vocabulary, a
residual that was dropped. args.json says which sides are "fresh", so that no recipe leaves them as
they were drawn.
"""
import re
from dataclasses import replace
from pathlib import Path

import torch

from corpora.sets import check_spec, data_option, is_builtin, open_data, preset_option
from data import languages_of, split_pairs
from model import MBart, embedding_scale
from plumbing.files import UserError, beside_python, parser_of, quoted, run, temporary_folder
from plumbing.models import MODEL_HELP, model_folder
from plumbing.options import SEED, number
from plumbing.runs import has_new_source, read_settings, tell_untrained
from qk_finetune import CROSS, SIDES
from tokenizer import MODEL_FILE, Tokenizer, train_sentencepiece
from tools.folders import SOURCE_TABLE, add_overwrite, check_out, write_like
from tools.start import COVERAGE
from tools.texts import lines, some_of

NAMES = {"src": "source", "tgt": "target"}
PLACES = {"src": 0, "tgt": 1}  # in a pair
EXAMPLES = 20_000  # of each pair, from which a vocabulary is learned


# -------------------------------------------------------------------------------------- models

@torch.no_grad()
def draw_positions(model):
    """Draws the positions of both sides, in place, in the size of the scaled token embeddings."""
    std = model.config.init_std * embedding_scale(model.config)
    for stack in (model.model.encoder, model.model.decoder):
        positions = stack.embed_positions.weight
        torch.nn.init.normal_(positions, 0.0, std)


@torch.no_grad()
def new_language(parent, side, vocab_size, cross_attention="kept", scratch=False, seed=0):
    """The parent with fresh embeddings on one side ("src" or "tgt") for a vocabulary of this size.

    cross_attention: "kept", or "random" to draw it anew; scratch: draw everything anew."""
    # With one seed for both sides, these are not to begin alike.
    torch.manual_seed(hash((seed, PLACES[side])) % 2**63)
    child = MBart(config_of(parent, side, vocab_size))
    draw_positions(child)
    if scratch:
        return child
    tensors = child.state_dict()
    for name, tensor in other_side(parent, side).items():
        if cross_attention == "kept" or not re.match(CROSS, name):
            tensors[name] = tensor
    child.load_state_dict(tensors)
    return child


@torch.no_grad()
def random_cross_attention(model, seed=0):
    """Draws the decoder's cross-attention anew, in place."""
    torch.manual_seed(seed)
    drawn = MBart(model.config).state_dict()
    for name, parameter in model.named_parameters():
        if re.match(CROSS, name):
            parameter.copy_(drawn[name])


def graft(body, donor, side):
    """`body` with the token, position and norm parameters of `donor` on one side ("src" or "tgt").

    Gheini et al. 2021, sections 5.2 and 5.4: forgetting, and zero-shot by stitching."""
    check_graft(body.config, donor.config)
    tensors = donor.state_dict()
    tensors[SOURCE_TABLE] = donor.source_table().detach()
    vocab_size = len(tensors["model.shared.weight"])
    if side == "src":
        vocab_size = len(tensors[SOURCE_TABLE])
    tensors |= other_side(body, side)
    with torch.device("meta"):
        grafted = MBart(config_of(body, side, vocab_size))
    names = grafted.state_dict()  # without those of a donor's other layers
    grafted.load_state_dict({name: tensors[name] for name in names}, assign=True)
    return grafted


def check_graft(body, donor):
    alike = {
        "d_model": "width",
        "max_position_embeddings": "positions",
        "scale_embedding": "scale_embedding",
    }
    for name, meaning in alike.items():
        ours = getattr(body, name)
        theirs = getattr(donor, name)
        if ours != theirs:
            raise UserError(f"graft: the models differ in {meaning}, {ours} and {theirs}")


def config_of(parent, side, vocab_size):
    """The parent's Config with a vocabulary of this size on one side, of its own."""
    if side == "src":
        return replace(parent.config, source_vocab_size=vocab_size)
    return replace(
        parent.config, source_vocab_size=len(parent.source_table()), vocab_size=vocab_size
    )


def other_side(model, side):
    """{name: tensor} of all that a new vocabulary on one side leaves as it is."""
    tensors = model.state_dict()
    tensors[SOURCE_TABLE] = model.source_table().detach()
    names = [name for name in tensors if re.match(SIDES[side], name)]
    if side == "tgt":
        names.append("final_logits_bias")  # a number for every token of the decoder's
    for name in names:
        del tensors[name]
    return tensors


# ------------------------------------------------------------------------------------- folders

def make_fresh(
    parent,
    out,
    side,
    lang,
    pairs,
    *,
    data,
    pieces,
    cross_attention,
    scratch,
    seed,
    skip_bad_lines,
    overwrite,
):
    """Writes folder `out`: the folder `parent` with a language of its own on one side.

    pairs: [(source, target)]; the vocabulary is learned from those that have `lang` on its side."""
    check_out(out, overwrite, [parent])
    check_spec(data, skip_bad_lines)
    parent = model_folder(parent)
    model = MBart.from_pretrained(parent)
    old = Tokenizer.from_pretrained(parent)
    own = pairs_of(lang, side, pairs)
    for code in languages_of(own):
        try:
            old.lang_id(code)
        except UserError as error:
            raise UserError(
                f"{error}. A language that mBART has no tag for may borrow the tag of one that you "
                "do not use: name it, and the data's files or lines, by that"
            ) from None
    examples = open_data(data, "translate", "train", own, old.languages, seed, skip_bad_lines)

    print(f"learning a vocabulary of up to {pieces} pieces for {lang}", flush=True)
    settings = settings_of_child(parent, side, scratch)
    # `out` is not touched before everything that can be refused is behind us.
    with temporary_folder() as folder:
        path = Path(folder) / MODEL_FILE
        coverage = 1.0 if is_builtin(data) else COVERAGE
        texts = texts_of_side(examples, side, seed)
        train_sentencepiece(texts, path, pieces, seed=seed, character_coverage=coverage)
        if side == "src":
            new = Tokenizer(path, old.layout)
            tokenizer = Tokenizer(old.model_file, old.layout, source=new)
        else:
            new = Tokenizer(path, old.layout, source=old.source)
            tokenizer = new
        child = new_language(model, side, new.vocab_size, cross_attention, scratch, seed)
        write_like(parent, out, child.state_dict(), tokenizer, settings=settings)
    recipe = f"{side}+xattn"
    if len(settings["fresh"]) == 2:
        recipe = "both+xattn"
    if scratch:
        recipe = "full+embeddings"
    of_data = data_option(data, skip_bad_lines) + preset_option(data, child.config.is_small)
    print(
        f"next: {beside_python()} train.py --stage translate --init {quoted(out)} "
        f"--recipe {recipe} --pairs {' '.join('-'.join(pair) for pair in own)}{of_data}"
    )


def settings_of_child(parent, side, scratch):
    """The parent's settings, with the sides that are fresh; no pair with a new side is learned."""
    # train.py refuses a recipe that would leave these embeddings as they were drawn.
    fresh = {side, *fresh_sides(parent)}
    if scratch:
        fresh = set(SIDES)
    settings = read_settings(parent) | {"fresh": sorted(fresh), "learned": []}
    settings["new_source"] = side == "src" or has_new_source(settings)
    if side == "src" or scratch:  # another vocabulary, or nothing that was learned
        settings.pop("sources", None)
    return settings


def fresh_sides(folder):
    """The sides of a folder's model that are as they were drawn, [] if none are.

    args.json has them as "fresh": a list, in older folders the name of the one."""
    named = read_settings(folder).get("fresh") or []
    if isinstance(named, str):
        return [named]
    return named


def pairs_of(lang, side, pairs):
    """Those of the pairs that have this language on this side."""
    own = [pair for pair in pairs if pair[PLACES[side]] == lang]
    if not own:
        raise UserError(
            f"no training pair has {lang} as its {NAMES[side]}; name one with --pairs"
        )
    return own


def texts_of_side(examples, side, seed=0):
    """Yields the texts of one side of a data set, at most EXAMPLES of each pair."""
    for pair, size in examples.sizes.items():
        chosen = range(EXAMPLES)
        if size is not None:
            chosen = some_of(size, EXAMPLES, seed)
        for index in chosen:
            yield from lines(examples.text(pair, index)[PLACES[side]])


def make_random_cross_attention(folder, out, seed, overwrite):
    """Writes folder `out`: `folder` with its cross-attention drawn anew."""
    check_out(out, overwrite, [folder])
    folder = model_folder(folder)
    model = MBart.from_pretrained(folder)
    random_cross_attention(model, seed)
    settings = read_settings(folder)
    if settings:  # what it had learned is gone: it is no run of any stage before it is trained
        settings["learned"] = []
        settings.pop("stage", None)
    write_like(folder, out, model.state_dict(), settings=settings)
    print(
        f"next: {beside_python()} train.py --stage translate --init {quoted(out)} "
        "--recipe emb+xattn --pairs ..."
    )


def make_graft(body, donor, side, out, overwrite):
    """Writes folder `out`: `body` with the embeddings and vocabulary of `donor` on one side."""
    check_out(out, overwrite, [body, donor])
    body = model_folder(body)
    donor = model_folder(donor)
    grafted = graft(MBart.from_pretrained(body), MBart.from_pretrained(donor), side)
    own = Tokenizer.from_pretrained(body)
    other = Tokenizer.from_pretrained(donor)
    if own.layout != other.layout:
        raise UserError(
            f"graft: {body} is an {own.layout} and {donor} an {other.layout}, whose language tags "
            "stand in different places"
        )
    if side == "src":
        tokenizer = Tokenizer(own.model_file, own.layout, source=other.source)
    else:
        tokenizer = Tokenizer(other.model_file, own.layout, source=own.source)
    tell_untrained(donor, donor)
    settings = settings_of_graft(body, donor, side)
    write_like(body, out, grafted.state_dict(), tokenizer, settings=settings)


def settings_of_graft(body, donor, side):
    """The body's settings, but with what the donor's say of the side that is taken from it."""
    settings = read_settings(body)
    encoder_from = settings  # whose vocabulary the encoder has
    if side == "src":
        encoder_from = read_settings(donor)
        settings.pop("sources", None)
        if has_new_source(encoder_from):
            from eval import sources_of  # late: its metrics take seconds to import

            settings["sources"] = sources_of(encoder_from)
    if has_new_source(settings) or has_new_source(encoder_from):
        settings["new_source"] = has_new_source(encoder_from)
    fresh = set(fresh_sides(body)) - {side}  # those embeddings are left behind
    if side in fresh_sides(donor):
        fresh.add(side)
    settings.pop("fresh", None)
    if fresh:
        settings["fresh"] = sorted(fresh)
    return settings


# -------------------------------------------------------------------------------- command line

def main(argv=None):
    parser = parser_of(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    add_fresh(commands)
    add_random_cross_attention(commands)
    add_graft(commands)
    args = parser.parse_args(argv)
    if args.command == "fresh":
        side = "tgt"
        if args.source:
            side = "src"
        make_fresh(
            args.parent,
            args.out,
            side,
            args.source or args.target,
            split_pairs(args.pairs),
            data=args.data,
            pieces=args.pieces,
            cross_attention=args.cross_attention,
            scratch=args.scratch,
            seed=args.seed,
            skip_bad_lines=args.skip_bad_lines,
            overwrite=args.overwrite,
        )
    elif args.command == "random-cross-attention":
        make_random_cross_attention(args.folder, args.out, args.seed, args.overwrite)
    else:
        make_graft(args.body, args.donor, args.side, args.out, args.overwrite)


def add_fresh(commands):
    title = "fresh embeddings and a vocabulary of its own for one side"
    parser = commands.add_parser("fresh", help=title, description=title)
    add = parser.add_argument
    add("parent", metavar="PARENT", help=MODEL_HELP)
    add("out", metavar="OUT", help="the folder to write")
    side = parser.add_mutually_exclusive_group(required=True)
    side.add_argument("--source", metavar="LANG", help="the language that the encoder is to read")
    side.add_argument("--target", metavar="LANG", help="the one that the decoder is to write")
    add("--pairs", nargs="+", required=True, metavar="SRC-TGT", help="it will be trained on these")
    add("--data", default="builtin", metavar="SPEC", help="as train.py's (default: builtin)")
    add("--skip-bad-lines", action="store_true", help="leave out lines that cannot be read")
    add(
        "--pieces",
        type=number(int, 100),
        default=2000,
        metavar="N",
        help="size of the new vocabulary (default: 2000)",
    )
    add(
        "--cross-attention",
        choices=("kept", "random"),
        default="kept",
        help="the parent's, or drawn anew (default: kept)",
    )
    add("--scratch", action="store_true", help="draw the whole model anew")
    add("--seed", type=SEED, default=0, metavar="N", help="default: 0")
    add_overwrite(parser)


def add_random_cross_attention(commands):
    title = "the same model, its cross-attention drawn anew"
    parser = commands.add_parser("random-cross-attention", help=title, description=title)
    parser.add_argument("folder", metavar="FOLDER", help=MODEL_HELP)
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    parser.add_argument("--seed", type=SEED, default=0, metavar="N", help="default: 0")
    add_overwrite(parser)


def add_graft(commands):
    title = "one model's layers, another one's embeddings on one side"
    parser = commands.add_parser("graft", help=title, description=title)
    parser.add_argument("body", metavar="BODY", help="the folder that gives the layers")
    parser.add_argument("donor", metavar="DONOR", help="the folder that gives the embeddings")
    parser.add_argument("side", metavar="src|tgt", choices=SIDES, help="of which side")
    parser.add_argument("out", metavar="OUT", help="the folder to write")
    add_overwrite(parser)


if __name__ == "__main__":
    run(main)
