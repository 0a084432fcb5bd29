"""What tools.look shows of a model, as numbers: how far it moved, and what it does with one text.

MOVED: ||W - W_0|| / ||W_0|| for every tensor W of a model and W_0 of its base.

ATTENTION WEIGHTS are the model's own: softmax(q k^T / sqrt(d)) v is softmax(q k^T / sqrt(d)) itself
where v is the identity matrix. So attend() is called once more with that, and there is no second
implementation of attention.

AN OUTPUT is written as eval.py writes it (beam search, no repeated trigram in summaries); then the
model reads it once, and the numbers are of that pass: what the model itself expects, before the
beam's rules. A piece is a LANGUAGE'S if it is at least twice as common in that language's texts of
the data set as in those of any other; else it is shared, as is every piece without a letter.
"""
import unicodedata
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from corpora.sets import is_builtin, open_data, pairs_within
from data import at_most
from generate import first_tokens, generate
from model import Attention
from plumbing.files import UserError
from plumbing.runs import read_settings
from tokenizer import EOS, SPECIALS
from tools.layers import STEPS, Texts, confusion_matrix, diagonal_mean, fitted_probe, token_states

BEST = 5            # candidates at every place
COUNTED = 400       # texts a language, from which its pieces are known
PROBED = 60         # documents a language, from which a probe learns; half as many test it
TIMES = 2           # as common as in any other language: a language's own piece
OTHERS = ("shared", "end", "unseen")  # where probability goes that is no language's
LEVELS = 255        # attention weights are whole numbers from 0 to this


# ------------------------------------------------------------------------------ how far it moved

def movement(base, tensors):
    """||W - W_0|| / ||W_0|| of every tensor, both {name: tensor} of the same names and shapes.

    {name: number}: exactly 0 where no number changed, None where the base's are all 0."""
    found = {}
    for name, tensor in tensors.items():
        change = norm(tensor - base[name])
        size = norm(base[name])
        if change == 0:
            found[name] = 0.0
        elif size == 0:
            found[name] = None
        else:
            found[name] = change / size
    return found


def norm(tensor):
    return torch.linalg.vector_norm(tensor, dtype=torch.float64).item()


def check_same_tensors(base, tensors, base_folder, folder):
    """UserError unless two models have tensors of the same names and shapes."""
    for name in sorted(base.keys() | tensors.keys()):
        mine = tensors.get(name)
        its = base.get(name)
        if mine is None or its is None or mine.shape != its.shape:
            raise UserError(
                f"{folder} and {base_folder} have different shapes ({name}); the page compares "
                "models that began from one base: name it with --base"
            )


# -------------------------------------------------------------------------------------- attention

@contextmanager
def recorded_attention(model):
    """Within, every pass of the model leaves its attention weights in the dict that this yields:
    {name of an Attention: (B, H, T, S)}.

    The model must be in eval mode: dropout would be in the weights."""
    weights = {}
    watched = []
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            module.attend = recorder(module.attend, name, weights)  # hides the class's own
            watched.append(module)
    try:
        yield weights
    finally:
        for module in watched:
            del module.attend


def recorder(attend, name, weights):
    """Attention.attend of one module, which puts its weights into weights[name]."""

    def attend_and_record(q, k, v, mask=None, causal=False):
        batch, heads, keys, _ = k.shape
        identity = torch.eye(keys, dtype=v.dtype, device=v.device)
        identity = identity.expand(batch, heads, keys, keys)
        found = attend(q, k, identity, mask, causal)  # (B, T, H * S): every head's, side by side
        weights[name] = found.unflatten(2, (heads, keys)).transpose(1, 2)
        return attend(q, k, v, mask, causal)

    return attend_and_record


def layers_of(weights, stack, part):
    """The weights of all layers' attention `part` of a text: (L, H, T, S)."""
    layers = []
    for name, of_layer in weights.items():  # in the order in which the layers ran
        if name.startswith(f"model.{stack}.layers.") and name.endswith(f".{part}"):
            layers.append(of_layer[0])  # of the one text
    return torch.stack(layers)


def rounded_levels(weights):
    """(L, H, T, S) -> (L, 1 + H, T, S), whole numbers to LEVELS: the mean of the heads, then each.
    """
    planes = torch.cat([weights.mean(1, keepdim=True), weights], 1)
    return (planes * LEVELS).round().to(torch.uint8).cpu()


# ------------------------------------------------------------------------- whose piece is it?

@dataclass
class Pieces:
    """Which language every token of a vocabulary belongs to."""
    languages: list         # codes
    texts: dict             # {code: how many texts were counted}
    category: torch.Tensor  # (V,) places in `names`

    @property
    def names(self):
        return [*self.languages, *OTHERS]


def count_pieces(texts, tokenizer, languages):
    """How often each piece stands in a language's texts: counts (L, V), {code: texts counted}.

    texts: an iterable of (code, text), of which the first COUNTED of each language are read."""
    counts = torch.zeros(len(languages), tokenizer.vocab_size)
    read = dict.fromkeys(languages, 0)
    for lang, text in texts:
        if lang not in read or read[lang] == COUNTED:
            continue
        read[lang] += 1
        ids = torch.tensor(tokenizer.piece_ids(text), dtype=torch.int64)
        counts[languages.index(lang)] += torch.bincount(ids, minlength=tokenizer.vocab_size)
    return counts, read


def whose(counts, tokenizer):
    """counts (L, V) -> the category (V,) of every token, as places in [*languages, *OTHERS]."""
    language_count = len(counts)
    shared, end, unseen = range(language_count, language_count + len(OTHERS))
    frequency = counts / counts.sum(1, keepdim=True).clamp(min=1)
    # A row of zeros: topk(2) needs two, and there may be one language.
    frequency = torch.cat([frequency, torch.zeros(1, counts.size(1))])
    best, second = frequency.topk(2, 0).values  # (V,), (V,)
    category = frequency.argmax(0)
    category[best < TIMES * second] = shared
    category[best == 0] = unseen
    for number in range(counts.size(1)):
        if not tokenizer.is_text(number):
            category[number] = unseen
        elif not has_letter(piece_of(tokenizer, number)):
            category[number] = shared
    category[EOS] = end
    return category


def has_letter(piece):
    """Is there a letter, or a mark that stands on one (the vowels of Gujarati)?"""
    return any(unicodedata.category(character)[0] in "LM" for character in piece)


def texts_with_languages(task, languages, tokenizer):
    """Yields (code, text) of the data set's training examples, sources and targets."""
    pairs = pairs_within(task.data, languages)
    if is_builtin(task.data):  # every pair would have the same texts
        pairs = [(lang, lang) for lang in languages]
    if task.data_pair:
        pairs = [task.data_pair]
    data = open_data(
        task.data,
        task.stage,
        "train",
        pairs,
        tokenizer.languages,
        skip=task.skip_bad_lines,
        name_missing=False,
    )
    for pair, size in data.sizes.items():
        for index in range(at_most(COUNTED, size)):
            source, target = data.text(pair, index)
            yield pair[0], source
            # Within a language a translation is the text itself: counted once.
            if pair[0] != pair[1] or target != source:
                yield pair[1], target


def piece_of(tokenizer, number):
    """The text of an id: a piece as SentencePiece writes it, or a special token's name."""
    if tokenizer.is_text(number):
        return tokenizer.pieces.id_to_piece(number - 1)
    if number < len(SPECIALS):
        return SPECIALS[number]
    if number == tokenizer.mask_id:
        return "<mask>"
    return tokenizer.languages[number - tokenizer.tag[tokenizer.languages[0]]]


# ---------------------------------------------------------------------------- one model, one text

@dataclass
class Task:
    """What every model is asked to do."""
    text: str
    source_lang: str
    lang: str       # of the output
    stage: str      # "summarize" or "translate"
    data: str       # --data, from which pieces are counted and probes learn
    options: dict   # generate's
    probe: bool = False
    skip_bad_lines: bool = False
    data_pair: tuple | None = None  # (source, target) of all lines, where no column says it

    def texts_for(self, decoder, languages):
        """The data set as a Decoder's model reads it."""
        return Texts(
            spec=self.data,
            stage=self.stage,
            languages=languages,
            tokenizer=decoder.tokenizer,
            tagged=decoder.tagged,
            max_length=decoder.limit,
            skip_bad_lines=self.skip_bad_lines,
        )


@torch.no_grad()
def read_through(decoder, task):
    """A Decoder's model writes its output for the task's text, and then reads it once.

    Returns (source ids, output ids, log-probabilities (T, V) at each place of the output,
    {name: attention weights}). The output ends in </s>, unless it was cut off; row i of attention
    in the model's decoder is of the step that chose token i."""
    model = decoder.model.eval()
    device = next(model.parameters()).device
    ids = decoder.encode(task.text, task.source_lang, decoder.limit)
    source = torch.tensor([ids], device=device)
    lang_id = decoder.tokenizer.lang_id(task.lang)
    output = generate(model, source, lang_id, **decoder.options)[0]
    prompt = first_tokens(model.config, torch.tensor([lang_id], device=device))[0].tolist()
    if len(prompt) + len(output) < 1 + decoder.options["max_new_tokens"]:
        output = [*output, EOS]
    decoder_input = torch.tensor([[*prompt, *output[:-1]]], device=device)
    first = len(prompt) - 1  # the place that chose the first token
    with recorded_attention(model) as weights:
        logits = model(source, decoder_input)[0, first:]
    for name in weights:
        if ".decoder." in name:
            weights[name] = weights[name][:, :, first:]
    return ids, output, logits.float().log_softmax(1).cpu(), weights


def token_numbers(output, log_probs, tokenizer, pieces):
    """What the page says of every token of an output: a list of dicts.

    output: T ids; log_probs (T, V)."""
    probs = log_probs.exp()
    shares = torch.zeros(len(output), len(pieces.names))
    shares.index_add_(1, pieces.category, probs)
    best = probs.topk(BEST)
    found = []
    for place, number in enumerate(output):
        own = probs[place, number]
        candidates = []
        for value, candidate in zip(best.values[place], best.indices[place].tolist()):
            candidates.append({
                "piece": piece_of(tokenizer, candidate),
                "p": short(value.item()),
                "language": pieces.names[pieces.category[candidate]],
            })
        found.append({
            "piece": piece_of(tokenizer, number),
            "p": short(own.item()),
            "rank": 1 + int((probs[place] > own).sum()),
            "language": pieces.names[pieces.category[number]],
            "best": candidates,
            "shares": [short(share) for share in shares[place].tolist()],
        })
    return found


def source_numbers(ids, tokenizer):
    """Every token of the encoder's input: its piece, and whether it is text."""
    tokens = []
    for number in ids:
        is_text = bool(tokenizer.is_text(number))
        tokens.append({"piece": piece_of(tokenizer, number), "text": is_text})
    return tokens


def short(value):
    """A number with four digits that count: what is not 0 does not become 0. None stays None."""
    if value is None:
        return None
    return float(f"{value:.4g}")


def look(decoder, name, folder, task, pieces, base=None):
    """Everything that the page says of a Decoder's model, which stands in `folder`; name: what it
    is called, its folder or its name on the hub.

    base: {name: tensor} and what it is called; None: this is the base. The attention weights are
    tensors still (rounded_levels): pack() makes them part of a page."""
    settings = read_settings(folder)
    decoder.tell([task.text], task.source_lang)
    moved = None
    if base is not None:
        moved = how_far(decoder.model, name, *base)
    ids, output, log_probs, weights = read_through(decoder, task)
    probe = None
    if task.probe:
        probe = probe_verdicts(decoder, ids, task.texts_for(decoder, pieces.languages))
    return {
        "name": name_of(name),
        "stage": settings.get("stage"),
        "recipe": settings.get("recipe"),
        "output": decoder.tokenizer.decode(output),
        "moved": moved,
        "source": source_numbers(ids, decoder.tokenizer.source),
        "tokens": token_numbers(output, log_probs, decoder.tokenizer, pieces),
        "cross": rounded_levels(layers_of(weights, "decoder", "encoder_attn")),
        "own": rounded_levels(layers_of(weights, "encoder", "self_attn")),
        "probe": probe,
    }


def name_of(name):
    """A folder as people call it: from here, if it is below; a name on the hub as it is."""
    path = Path(name).absolute()
    if path.is_relative_to(Path.cwd()):
        return str(path.relative_to(Path.cwd()))
    return str(name)


def how_far(model, name, base, base_name):
    """movement() of a model from its base {name: tensor}, rounded. A UserError calls the two by
    `name` and `base_name`."""
    tensors = tensors_of(model)
    check_same_tensors(base, tensors, base_name, name)
    return {tensor: short(value) for tensor, value in movement(base, tensors).items()}


def tensors_of(model):
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


# --------------------------------------------------------------------------------------- the probe

def probe_verdicts(decoder, ids, texts):
    """What a fresh classifier of the source language says to every state that the model's decoder
    reads. A source has its tag here if the model was trained with one (that of tools.layers never
    has).

    texts: tools.layers.Texts, from which it learns. {"languages", "accuracy": on held-out
    documents, "verdicts": one list of probabilities for every token of `ids`}"""
    pairs = [(lang, lang) for lang in texts.languages]

    def last_states(split, count):
        """The last layer's states of so many documents, and their languages' numbers."""
        batches = texts.probed(split, pairs, count)
        states, classes = token_states(
            decoder.model, texts.tokenizer, batches, texts.languages, "encoder"
        )
        return states[-1], classes

    states, classes = last_states("train", PROBED)
    held, held_classes = last_states("test", PROBED // 2)
    classifier = fitted_probe(states, classes, len(texts.languages), STEPS)
    device = next(decoder.model.parameters()).device
    with torch.no_grad():
        own = decoder.model.encode(torch.tensor([ids], device=device))[0].cpu()  # (S, D)
        verdicts = classifier(own).softmax(1)
        confusion = confusion_matrix(classifier(held).softmax(1), held_classes)
    return {
        "languages": texts.languages,
        "accuracy": short(diagonal_mean(confusion)),
        "verdicts": [[short(p) for p in row] for row in verdicts.tolist()],
    }
