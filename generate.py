"""Beam search with a key/value cache: every sentence's K best partial outputs grow token by token.

    score(y_1..y_t) = sum_{i<=t} log p(y_i | y_<i, x)      when finished: score / t^length_penalty

Each step extends the K beams of a sentence by every token of the vocabulary, and keeps the best 2K
continuations: at most K of them can end in </s>, so K remain to go on with. Those among the best K
that end become finished hypotheses. A sentence is done when its best running beam, were it finished
now, would not beat the worst of K finished ones (growing longer it still might), or at
max_new_tokens; with K = 1, at its first </s>. It then leaves the batch (on a GPU, some time later:
Cache tells why). With early_stopping it is done as soon as K hypotheses are finished, as in fairseq
and CTranslate2: fewer steps, and now and then a worse output. Either way outputs equal those of the
transformers library (early_stopping is its option too), where its forced_eos_token_id is None: else
it ends with </s> what max_new_tokens cuts off.

The target language is forced as the first token: mBART-25 starts the decoder with its tag, mBART-50
with </s> and the tag, which there counts as a new token. t counts all new tokens, so </s> too, and
in mBART-50 the tag. Shapes are model.py's, but N is the texts in the batch; each has K beams.

Run it alone to see a text pass through a model, here the one that the README's first command makes
(a base copies its input, whatever language is asked for):
    python generate.py runs/translate en_XX es_XX "The teacher found a map."
"""
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from model import MASK_WIDTH, MBart, float_mask, head_in_half
from plumbing.files import UserError, note, parser_of, run
from plumbing.graphs import Recording
from plumbing.models import MODEL_HELP, model_folder
from plumbing.options import DECODING
from plumbing.packed import is_packed, pack_for_decoding
from plumbing.runs import longest_input, read_settings

# Added to the scores of ended beams among the running, and the score of empty places among the
# finished; finite, so that sums of it stay numbers.
NEVER = -1e9
# Allowed: -1 <= length_penalty < 10. With t up to 4,096 (mBART has 1,024 positions), t^10 and a
# score divided by it are float32 still; and score * t, at -1, is far above NEVER. With a penalty
# below -1 a score could fall under NEVER, and its output be lost.
LENGTH_PENALTIES = (-1, 10)


@torch.inference_mode()
def generate(
    model,
    source,
    lang,
    beam=5,
    max_new_tokens=100,
    min_new_tokens=0,
    length_penalty=1.0,
    no_repeat_ngram=0,
    early_stopping=False,
):
    """Decodes source (B, S) int64, padded right, into the target language(s).

    lang: the target language's id, or one for every row. beam: hypotheses a row; 1 is greedy
    search. max_new_tokens: the most of an output, </s> among them; min_new_tokens: the fewest
    before its </s>; in mBART-50 the tag counts in both. no_repeat_ngram=n lets no n-gram appear
    twice (0: off). length_penalty, early_stopping: see the head of this file.

    Returns B lists of ids, without the language tag, </s> and padding. UserError if an argument
    cannot be met."""
    language_ids = one_for_every_row(lang, source)
    check_beam_and_lengths(model.config, beam, max_new_tokens, min_new_tokens)
    check_inputs(model.config, source, language_ids)
    check_penalties(length_penalty, no_repeat_ngram)
    if not len(source):
        return []
    was_training = model.training
    model.eval()
    try:
        return beam_search(
            model,
            source,
            language_ids,
            beam=beam,
            max_new_tokens=max_new_tokens,
            min_new_tokens=min_new_tokens,
            length_penalty=length_penalty,
            no_repeat_ngram=no_repeat_ngram,
            early_stopping=early_stopping,
        )
    finally:
        model.train(was_training)


def beam_search(
    model,
    source,
    language_ids,
    *,
    beam,
    max_new_tokens,
    min_new_tokens,
    length_penalty,
    no_repeat_ngram,
    early_stopping,
):
    """generate() of a model in eval mode, with a language's id for every row: (B,)."""
    config = model.config
    device = source.device
    length = 1 + max_new_tokens  # the decoder's start token is not a new one
    # Empty outputs stay if max_new_tokens is 1 in mBART-50: the tag takes that one token.
    outputs = [[] for _ in range(len(source))]

    # The N sentences of the batch, the longest first: all of them at first; then those that are not
    # done, and on a GPU some that are done and have not left yet.
    order = (source != config.pad_token_id).sum(1).argsort(descending=True, stable=True)  # (B,)
    source_rows = order.tolist()  # of each, its row of source; None once its output is stored
    prompt = first_tokens(config, language_ids[order])  # (N, 1) or (N, 2)
    # What the running beams have written. As long as that is the prompt, one row stands for all K,
    # for K equal beams would choose K equal continuations.
    tokens = prompt[:, None]  # (N, 1, t), later (N, K, t)
    finished_scores = torch.full((len(source_rows), beam), NEVER, device=device)  # (N, K)
    finished = torch.full((len(source_rows), beam, length), config.pad_token_id, device=device)
    scores = torch.zeros(len(source_rows), 1, device=device)  # of each beam in tokens

    cache = Cache(model, source[order], beam, length)
    # All of the prompt but its last token, which the search begins with. The logits are not needed.
    for position in range(prompt.size(1) - 1):
        cache.step(tokens[:, :, position].flatten())

    for t in range(prompt.size(1), length):  # the token that is chosen now is the t-th new one
        is_last = t + 1 == length
        logits = cache.step(tokens[:, :, -1].flatten()).float()  # (N*K, V), at first (N, V)
        # In place, as the sums below: on a CPU fresh memory for (N*K, V) costs more than their
        # arithmetic.
        torch.log_softmax(logits, 1, out=logits)
        log_probs = logits.unflatten(0, tokens.shape[:2])  # (N, K, V)
        # Only now are tokens forbidden: their probability is not given to the others (nor is it in
        # transformers).
        if no_repeat_ngram:
            forbid_repeats(log_probs, tokens, no_repeat_ngram)
        if t <= min_new_tokens:  # which does not count </s>
            log_probs[..., config.eos_token_id] = -torch.inf

        # The best 2K continuations of each sentence, of all its beams by all tokens.
        sums = log_probs.add_(scores[..., None])  # (N, K, V)
        best, places = top_values(sums.flatten(1), 2 * beam)  # (N, 2K)
        parents = places // sums.size(2)  # (N, 2K), the beams that they continue
        next_tokens = places % sums.size(2)  # (N, 2K)
        grown = torch.cat([select(tokens, parents), next_tokens[..., None]], 2)  # (N, 2K, t + 1)
        ends = next_tokens == config.eos_token_id
        if is_last:
            ends = torch.ones_like(ends)

        # Finished: ends among the best K compete with the hypotheses that were finished before.
        ended_scores = best[:, :beam] / t**length_penalty
        ended_scores = torch.where(ends[:, :beam], ended_scores, NEVER)
        padding = (0, length - grown.size(2))
        ended = F.pad(grown[:, :beam], padding, value=config.pad_token_id)  # (N, K, length)
        finished_scores, kept = torch.cat([finished_scores, ended_scores], 1).topk(beam)
        finished = select(torch.cat([finished, ended], 1), kept)

        # Running: the best K that do not end. NEVER is added to an end's score,
        # not put in its place (transformers does the same).
        scores, running = torch.where(ends, best + NEVER, best).topk(beam)
        tokens = select(grown, running)
        running_parents = parents.gather(1, running)  # (N, K)

        worst_finished = finished_scores[:, -1]  # (N,); NEVER, if fewer than K have finished
        if is_last:
            is_done = torch.ones_like(worst_finished, dtype=torch.bool)
        elif beam == 1 or early_stopping:  # greedy search stops at the first </s>
            is_done = worst_finished > NEVER / 2
        else:  # the best running beam, as it is, does not beat the worst of the finished
            is_done = scores[:, 0] / t**length_penalty <= worst_finished
        newly_done = []
        for i, row_is_done in enumerate(is_done.tolist()):  # here the CPU waits for a GPU
            if row_is_done and source_rows[i] is not None:
                newly_done.append(i)
        if newly_done:
            best_finished = finished[:, 0].tolist()
            for i in newly_done:
                ids = output_tokens(best_finished[i], prompt.size(1), config)
                outputs[source_rows[i]] = ids
                source_rows[i] = None  # what is still computed of it is not looked at
        going = [i for i, source_row in enumerate(source_rows) if source_row is not None]
        if not going:
            break

        cache.reorder(running_parents)
        done_count = len(source_rows) - len(going)
        if done_count > cache.share_that_may_stay * len(source_rows):
            source_rows = [source_rows[i] for i in going]
            remaining = torch.tensor(going).to(device, non_blocking=True)
            cache.keep(remaining)
            tokens = tokens[remaining]
            scores = scores[remaining]
            finished = finished[remaining]
            finished_scores = finished_scores[remaining]
        cache.sweep()
    return outputs


def one_for_every_row(lang, source):
    """A language's id, or one for every row of source (B, S), as a tensor (B,)."""
    if isinstance(lang, str):
        raise UserError(f"lang {lang!r} is a code; give its id, tokenizer.lang_id({lang!r})")
    language_ids = torch.as_tensor(lang, device=source.device)
    if language_ids.shape not in ((), (1,), (len(source),)):
        raise UserError(
            f"language ids of shape {tuple(language_ids.shape)} for {len(source)} sources: give "
            "one id, or one for every source"
        )
    return language_ids.expand(len(source))


def first_tokens(config, language_ids):
    """language_ids (B,) -> what the decoder must start with: (B, 1), in mBART-50 (B, 2)."""
    # In mBART-25 decoder_start_token_id is None, or a language's id in some finetuned checkpoints;
    # a folder's layout has the last word when its config is read (Config.learn_layout).
    if config.decoder_start_token_id != config.eos_token_id:
        return language_ids[:, None]
    ends = torch.full_like(language_ids, config.eos_token_id)
    return torch.stack([ends, language_ids], 1)


def select(beams, chosen):
    """beams (N, K, W) of any width W, chosen (N, M) of the K -> (N, M, W)."""
    return beams.gather(1, chosen[..., None].expand(-1, -1, beams.size(2)))


def output_tokens(ids, start, config):
    """The tokens of a decoded row: what stands between the prompt and </s> or padding."""
    ids = ids[start:]
    while ids and ids[-1] == config.pad_token_id:
        ids.pop()
    if ids and ids[-1] == config.eos_token_id:
        ids.pop()
    return ids


# ---------------------------------------------------------------------- tokens

def projection_of(model):
    """The function states (R, D) -> logits (R, V): model.project, or a product with float32 results
    where a GPU has the weights in half precision.

    Rounded to half precision, the logits of close tokens would tie (on a CPU, which has no such
    product, they do). The float32 ones are (R, V'), for the table gets more rows
    (model.head_in_half); their logits are -inf."""
    table = model.model.shared.weight
    dtype = table.dtype
    if table.is_cuda and torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    if not table.is_cuda or dtype.itemsize != 2:
        return model.project
    half, bias = head_in_half(table, model.final_logits_bias[0], dtype)  # (V', D), (V',)

    def logits_of(states):
        return torch.mm(states.to(dtype), half.T, out_dtype=torch.float32).add_(bias)

    return logits_of


LARGE = 4096  # numbers in a row; from this size on, two searches are faster than one
BLOCK = 64  # numbers in a block; the first search compares only the blocks' largest


def top_values(rows, k):
    """The k largest of each row (N, W) and their places, both (N, k).

    First the k blocks with the largest maxima, which contain the k largest, then the k largest of
    these: in a long row looking for k among all takes several times as long."""
    width = rows.size(1)
    if width < LARGE or width // BLOCK <= k:
        return rows.topk(k)
    cut = width // BLOCK * BLOCK  # the rest, less than a block, is always looked at
    blocks = rows[:, :cut].unflatten(1, (-1, BLOCK))  # (N, W / BLOCK, BLOCK)
    chosen = blocks.amax(2).topk(k).indices  # (N, k)
    places = chosen[..., None] * BLOCK + torch.arange(BLOCK, device=rows.device)  # (N, k, BLOCK)
    rest = torch.arange(cut, width, device=rows.device).expand(len(rows), -1)
    places = torch.cat([places.flatten(1), rest], 1)
    values, found = rows.gather(1, places).topk(k)
    return values, places.gather(1, found)


def forbid_repeats(log_probs, tokens, n):
    """Sets to -inf, in place, those of the log probabilities (N, K, V) whose token would write an
    n-gram a second time.

    tokens (N, K, t): what the beams have written so far, the prompt included."""
    t = tokens.size(2)
    if t < n:
        return
    grams = tokens.unfold(2, n, 1)  # (N, K, t - n + 1, n)
    last = tokens[:, :, None, t - n + 1:]  # (N, K, 1, n - 1)
    begins_alike = (grams[..., :-1] == last).all(-1)  # (N, K, t - n + 1)
    # A token may end several n-grams, of which one begins alike: added, its -inf stays, where the 0
    # of another could overwrite it. A mask of all V would take longer than the search.
    added = log_probs.new_zeros(begins_alike.shape).masked_fill_(begins_alike, -torch.inf)
    log_probs.scatter_add_(2, grams[..., -1], added)


# ---------------------------------------------------------------------- the cache

ENCODED_TOKENS = 2000  # encoded at a time on a CPU, padding included


@dataclass
class CrossAttentionCache:
    """What cross-attention reads of n sentences: keys and values of each decoder layer."""
    keys: list  # of (n, H, S, d)
    values: list
    mask: torch.Tensor  # (n, 1, 1, S): 0 at tokens, -inf at padding

    def keep(self, remaining):
        self.keys = [keys.index_select(0, remaining) for keys in self.keys]
        self.values = [values.index_select(0, remaining) for values in self.values]
        self.mask = self.mask.index_select(0, remaining)


def encode_source(model, source):
    """source (n, S) -> its CrossAttentionCache."""
    source = model.widened(source)
    states = encode_in_chunks(model, source)  # (n, S, D)
    keys = []
    values = []
    for layer in model.model.decoder.layers:
        attention = layer.encoder_attn
        keys.append(attention.split(attention.k_proj(states)))
        values.append(attention.split(attention.v_proj(states)))
    is_token = (source != model.config.pad_token_id)[:, None, None, :]
    mask = float_mask(is_token, keys[0].dtype)  # the type that attention has, under autocast too
    return CrossAttentionCache(keys, values, mask)


def encode_in_chunks(model, source):
    """model.encode(source), on a CPU a few texts at a time: the hidden states of many texts would
    not stay in the processor's cache from one operation to the next."""
    if source.device.type != "cpu":
        return model.encode(source)
    chunks = math.ceil(source.numel() / ENCODED_TOKENS)
    return torch.cat([model.encode(texts) for texts in source.chunk(chunks)])


LIKE_LENGTH = 0.8  # of the length of a group's first sentence: shorter ones begin the next group


def groups_of(source, pad_token_id):
    """source (N, S) -> groups of sentences that follow each other, each (n, S') as wide as its
    longest.

    A sentence that is shorter than LIKE_LENGTH of its group's first one begins the next group, so
    there are few groups where the longest come first. On a GPU, where one product over padding
    costs less than several small ones, a single group."""
    if source.device.type != "cpu":
        return [source]
    lengths = (source != pad_token_id).sum(1).tolist()
    groups = []
    first = 0
    for end in range(1, len(lengths) + 1):  # does a group end before the sentence `end`?
        if end == len(lengths) or lengths[end] < LIKE_LENGTH * lengths[first]:
            width = max(1, max(lengths[first:end]))  # a source may be nothing but padding
            groups.append(source[first:end, :width])
            first = end
    return groups


FIRST_SLOTS = 64  # of self-attention's cache, which grows as it is filled
MAY_STAY = 0.25  # the share of a GPU's batch that finished sentences may be


class Cache:
    """The keys and values that N sentences with K beams each attend to: those of their sources, and
    of what the beams have decoded so far.

    The beams of a sentence are K queries over the same keys. Those of its source are stored once,
    in groups of sentences of like length. Those of self-attention lie in slots, the third dimension
    of (N, H, slots, d), and are not moved when beams are reordered. A step fills K slots, one for
    each beam (before the first choice one slot, for all of them), and every beam that later goes on
    from that beam reads its slot. `ancestors` (N, K, slots) is 0 at the slots that a beam reads and
    -inf elsewhere: it is attention's mask, and all that is reordered.

    On a GPU, unless autocast is on, a step's layers are a CUDA graph (plumbing/graphs.py): kernels
    that were recorded once run again, on the same tensors, so with the same shapes. When a shape
    has changed, they must be recorded anew. So there every step reads all slots, in use or not, and
    finished sentences stay until they are more than MAY_STAY of the batch."""

    def __init__(self, model, source, beams, length):
        """Encodes source (N, S), which should have the longest sentence first; `length` positions
        will be decoded at most.

        The model must be in eval mode; its decoder's linear layers become packed ones
        (plumbing/packed.py), which still train."""
        if not is_packed(model):
            pack_for_decoding(model)
        self.model = model
        self.logits_of = projection_of(model)
        self.position = 0  # of the next step's tokens
        self.filled = 0  # slots in use
        self.groups = []  # a CrossAttentionCache each
        for group in groups_of(source, model.config.pad_token_id):
            self.groups.append(encode_source(model, group))
        self.max_slots = beams * length  # the most that are ever in use
        self.keys = []  # of each layer's self-attention: (N, H, slots, d)
        self.values = []
        for like in self.groups[0].keys:
            _, heads, _, d = like.shape
            self.keys.append(like.new_empty(len(source), heads, 0, d))
            self.values.append(like.new_empty(len(source), heads, 0, d))
        self.ancestors = self.keys[0].new_empty(len(source), beams, 0)
        self.beam_numbers = torch.arange(beams, device=source.device)  # 0 to K - 1
        # The numbers of the slots that a step fills. A graph reads them from this very tensor:
        # every step overwrites it, and nothing replaces it.
        self.new_slots = torch.empty_like(self.beam_numbers)
        # Under autocast, train.py's on a GPU, a graph would hold a cast copy of every weight.
        self.is_graphed = source.is_cuda and not torch.is_autocast_enabled("cuda")
        self.recording = Recording()
        self.share_that_may_stay = MAY_STAY if self.is_graphed else 0
        self.make_room(min(self.max_slots, FIRST_SLOTS))

    def step(self, tokens):
        """tokens (N*K,) of one position -> logits (N*K, V or V') of the next.

        Or (N,) -> (N, V): before the first choice a sentence has one row, which all of its beams
        will descend from."""
        table = self.model.model.shared.weight
        beams = len(tokens) // len(self.ancestors)  # K; before the first choice 1
        # Not part of the graph: it would repeat the numbers `filled` and `position` as they were
        # when it was recorded.
        self.add_slots(beams)
        x = self.model.model.decoder.embed(tokens[:, None], table, self.position)[:, 0]  # (N*K, D)
        self.position += 1
        # With fewer than all beams it is one of the prompt's steps: not worth a recording.
        if self.is_graphed and beams == len(self.beam_numbers):
            return self.recording(self.through_layers, x)
        return self.through_layers(x)

    def through_layers(self, x):
        """A step's tokens, embedded x (N*K, D) -> logits (N*K, V or V') of the next position."""
        decoder = self.model.model.decoder
        for number, layer in enumerate(decoder.layers):
            normed = layer.self_attn_layer_norm(x)
            x = x + self.attend_to_ancestors(layer.self_attn, normed, number)
            normed = layer.encoder_attn_layer_norm(x)
            x = x + self.attend_to_source(layer.encoder_attn, normed, number)
            x = layer.ffn(x)
        return self.logits_of(decoder.layer_norm(x))

    def add_slots(self, count):
        """Takes `count` more slots into use: K, each seen only by its own beam, or one that every
        beam sees."""
        if self.filled + count > self.ancestors.size(2):
            self.make_room(min(self.max_slots, 2 * (self.filled + count)))
        torch.add(self.beam_numbers, self.filled, out=self.new_slots)
        new = self.ancestors[..., self.filled:self.filled + count]  # (N, K, count)
        if count == 1:
            new.zero_()
        else:
            new.diagonal(dim1=1, dim2=2).zero_()
        self.filled += count

    def make_room(self, slots):
        """Grows the cache to at least `slots` slots, rounded up to a multiple of MASK_WIDTH.

        It has not room for the longest output from the start: the few slots in use would lie far
        apart in memory, sentence by sentence and head by head."""
        slots = math.ceil(slots / MASK_WIDTH) * MASK_WIDTH
        missing = slots - self.ancestors.size(2)
        self.ancestors = F.pad(self.ancestors, (0, missing), value=-torch.inf)
        self.change_slots(lambda tensor: F.pad(tensor, (0, 0, 0, missing)))

    def change_slots(self, change):
        """Replaces all keys and values by change(tensor), one tensor at a time: old and new of all
        layers together would need twice the memory."""
        for tensors in (self.keys, self.values):
            for number, tensor in enumerate(tensors):  # (N, H, slots, d)
                tensors[number] = change(tensor)
        self.recording.forget()  # which reads and writes those that were there

    def attend_to_ancestors(self, attention, x, number):
        """Self-attention of layer `number`, from 0: x (N*K, D), before the first choice (N, D) ->
        the same shape."""
        q = self.split(attention, attention.q_proj(x))  # (N, H, K, d)
        self.put(self.keys[number], self.split(attention, attention.k_proj(x)))
        self.put(self.values[number], self.split(attention, attention.v_proj(x)))
        count = self.slots_to_read()
        k = self.keys[number][:, :, :count]  # (N, H, slots, d)
        v = self.values[number][:, :, :count]
        mask = self.ancestors[:, None, :q.size(2), :count]  # (N, 1, K, slots)
        out = attention.attend(q, k, v, mask)  # (N, K, D)
        return attention.out_proj(out.view(x.shape))

    def slots_to_read(self):
        """How many slots attention reads: those in use. For a graph, whose shapes must not change,
        all; the mask forbids those that are not in use."""
        if self.is_graphed:
            return self.ancestors.size(2)
        return self.filled

    def put(self, slots, new):
        """Writes keys or values, new (N, H, K, d), into the slots that were added last.

        A graph must read the slots' numbers from a tensor, new_slots: the bounds of a slice would
        stay what they were in the step that was recorded."""
        count = new.size(2)
        if self.is_graphed:
            slots.index_copy_(2, self.new_slots[:count], new)
        else:
            slots[:, :, self.filled - count:self.filled] = new

    def attend_to_source(self, attention, x, number):
        """Cross-attention of layer `number`, from 0: x (N*K, D) -> (N*K, D)."""
        q = self.split(attention, attention.q_proj(x))  # (N, H, K, d)
        outs = []
        first = 0
        for group in self.groups:
            end = first + len(group.mask)
            k = group.keys[number]  # (n, H, S, d)
            outs.append(attention.attend(q[first:end], k, group.values[number], group.mask))
            first = end
        out = outs[0] if len(outs) == 1 else torch.cat(outs)  # (N, K, D)
        return attention.out_proj(out.view(x.shape))

    def split(self, attention, x):
        """(N*K, D) -> (N, H, K, d)."""
        return attention.split(x.unflatten(0, (len(self.ancestors), -1)))

    def reorder(self, parents):
        """parents (N, K): beam j of a sentence goes on from what beam parents[:, j] has written.

        Changed in place, for a graph reads this very tensor."""
        ancestors = self.ancestors[..., :self.filled]
        ancestors.copy_(select(ancestors, parents))

    def keep(self, remaining):
        """Keeps the sentences with the numbers `remaining`, which rise; the others are finished."""
        self.ancestors = self.ancestors.index_select(0, remaining)
        self.change_slots(lambda tensor: tensor.index_select(0, remaining))
        groups = []
        first = 0
        for group in self.groups:
            end = first + len(group.mask)
            own = remaining
            if len(self.groups) > 1:  # on a CPU; a GPU has one group, and would be waited for
                own = remaining[(remaining >= first) & (remaining < end)] - first
            if len(own):
                group.keep(own)
                groups.append(group)
            first = end
        self.groups = groups

    def sweep(self):
        """Moves the slots that some running beam reads to the front and frees the others, if at
        least half of those in use are freed. A sentence that reads fewer slots than another keeps
        some that nobody reads.

        To count them the CPU would have to wait for a GPU: there it is done only where the next
        step would not find room. All is written in place, so a recorded graph stays right."""
        if self.is_graphed and self.filled + len(self.beam_numbers) <= self.ancestors.size(2):
            return
        ancestors = self.ancestors[..., :self.filled]  # (N, K, slots)
        is_live = (ancestors == 0).any(1)  # (N, slots)
        live = int(is_live.sum(1).max())  # of the sentence that has most
        if live > self.filled // 2:
            return
        order = is_live.int().argsort(descending=True, stable=True)[:, :live]  # live ones first
        swept = ancestors.gather(2, order[:, None].expand(-1, ancestors.size(1), -1))
        self.ancestors[..., :live] = swept
        self.ancestors[..., live:] = -torch.inf
        self.filled = live
        for tensor in self.keys + self.values:  # (N, H, slots, d)
            places = order[:, None, :, None].expand(-1, tensor.size(1), -1, tensor.size(3))
            tensor[:, :, :live] = tensor.gather(2, places)


# ---------------------------------------------------------------------- arguments, command line

def longest_output(config):
    """The most new tokens that a model can write: the decoder's start token has a position too."""
    return config.max_position_embeddings - 1


def check_beam_and_lengths(config, beam, max_new_tokens, min_new_tokens):
    """UserError for lengths of outputs, or a width of the search, that a model cannot have."""
    if beam < 1 or max_new_tokens < 1 or min_new_tokens < 0:
        raise UserError(
            f"beam {beam} and max_new_tokens {max_new_tokens} must be at least 1, "
            f"min_new_tokens {min_new_tokens} at least 0"
        )
    if min_new_tokens > max_new_tokens:
        raise UserError(
            f"min_new_tokens {min_new_tokens} is more than max_new_tokens {max_new_tokens}"
        )
    if max_new_tokens > longest_output(config):
        raise UserError(
            f"max_new_tokens {max_new_tokens} is more than the {longest_output(config)} that the "
            "model has positions for"
        )
    if 2 * beam > config.vocab_size:
        raise UserError(f"beam {beam} is too wide for a vocabulary of {config.vocab_size}")


def check_inputs(config, source, language_ids):
    """UserError for sources or languages that a model cannot read."""
    is_token = source != config.pad_token_id
    if bool((is_token[:, 1:] & ~is_token[:, :-1]).any()):
        raise UserError("source must be padded on the right")
    if ((language_ids < 0) | (language_ids >= config.vocab_size)).any():
        raise UserError(
            f"language ids must be between 0 and {config.vocab_size - 1}; tokenizer.lang_id() "
            "gives them"
        )


def check_penalties(length_penalty, no_repeat_ngram):
    low, below = LENGTH_PENALTIES
    if not low <= length_penalty < below or no_repeat_ngram < 0:
        raise UserError(
            f"length_penalty {length_penalty} must be at least {low} and less than {below}, "
            f"no_repeat_ngram {no_repeat_ngram} at least 0"
        )


def encoded(tokenizer, text, lang, positions):
    """A text's ids, at most `positions`; says on standard error what had to be left out."""
    count = len(tokenizer.source.piece_ids(text))
    if not count:
        raise UserError("the text has nothing that the vocabulary can read; give another")
    ids = tokenizer.encode(text, lang, positions)
    cut = len(tokenizer.encode(text, lang)) - len(ids)
    if cut:
        note(
            f"the text has {count} pieces, the model reads the first {count - cut}; "
            f"{cut / count:.0%} is left out"
        )
    return ids


def main(argv=None):
    from tokenizer import Tokenizer  # late: decoding itself needs no text

    parser = parser_of("Decodes one text with beam search.")
    parser.add_argument("folder", help=MODEL_HELP)
    parser.add_argument("source_lang", help="the text's language, e.g. en_XX")
    parser.add_argument("target_lang", help="the output's language")
    parser.add_argument("text")
    args = parser.parse_args(argv)
    folder = model_folder(args.folder, weights=False)
    tokenizer = Tokenizer.from_pretrained(folder)
    # Mistyped ones are told before the weights are fetched.
    tokenizer.check_languages([args.source_lang, args.target_lang])
    model = MBart.from_pretrained(model_folder(args.folder))
    source_lang = args.source_lang
    settings = read_settings(folder)
    if settings.get("tagless"):
        source_lang = None  # as the model was trained
    limit = longest_input(settings, model.config.max_position_embeddings)
    ids = encoded(tokenizer, args.text, source_lang, limit)
    lang = tokenizer.lang_id(args.target_lang)
    longest = min(DECODING["max_new_tokens"], longest_output(model.config))
    outputs = generate(model, torch.tensor([ids]), lang, max_new_tokens=longest)
    print(tokenizer.decode(outputs[0]))


if __name__ == "__main__":
    run(main)
