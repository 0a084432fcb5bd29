"""Beam search with a key/value cache: the K best partial outputs of every sentence grow by one token a step.

    score(y_1..t) = sum_t log p(y_t | y_<t, x)         a finished hypothesis counts score / t^length_penalty

Each step extends the K beams of a sentence by every word, and keeps the best 2K continuations: at most K of them can
end in </s>, so K remain to go on with. Those among the best K that end become finished hypotheses. A sentence is done
when its best running beam could no longer beat the worst of K finished ones (by score / length so far: early_stopping
False of the transformers library, whose outputs these equal), or at max_new_tokens; it then leaves the batch.

The target language is forced as the first token: mBART-25 starts the decoder with its tag, mBART-50 with </s> and the
tag, which there counts as a new token.

Run it alone to see a text pass through a model:  python generate.py base en_XX es_XX "The teacher found a map."
"""
import sys

import torch

from model import MBart
from plumbing.files import UserError, run

NEVER = -1e9  # the score of what must not be chosen; finite, so that sums of it stay numbers


@torch.inference_mode()
def generate(model, source, lang, beam=5, max_new_tokens=100, min_new_tokens=0, length_penalty=1.0, no_repeat_ngram=0):
    """Decodes source (B, S) int64, padded right, into the target language(s).

    lang: the target language's id, or one for every row. beam=1 is greedy search. no_repeat_ngram=n forbids any n-gram
    to appear twice (0: off). Returns B lists of ids, without the language tag, </s> and padding. UserError if an
    argument cannot be met."""
    config, device = model.config, source.device
    langs = torch.as_tensor(lang, device=device).expand(source.size(0))  # (B,)
    check(config, source, langs, beam, max_new_tokens, min_new_tokens)
    layout50 = config.decoder_start_token_id == config.eos_token_id
    prompt = torch.stack([torch.full_like(langs, config.eos_token_id), langs], 1) if layout50 else langs[:, None]
    length = 1 + max_new_tokens  # the decoder's start token is not a new one
    outputs = [None] * source.size(0)
    was_training = model.training
    model.eval()

    rows = torch.arange(source.size(0), device=device)  # (N,) the sentences still being decoded
    tokens = prompt[:, None].repeat(1, beam, 1)  # (N, K, t)
    scores = torch.full((len(rows), beam), NEVER, device=device)  # (N, K)
    scores[:, 0] = 0.0  # all beams start alike: only one may count, or they would stay alike
    finished = torch.full((len(rows), beam, length), config.pad_token_id, device=device)  # (N, K, length)
    finished_scores = torch.full((len(rows), beam), NEVER, device=device)
    cache = model.start(source, beam, length)
    for position in range(tokens.size(2) - 1):
        model.step(tokens[:, :, position].flatten(), cache, position)

    for t in range(tokens.size(2), length):  # t tokens stand, one is added
        logits = model.step(tokens[:, :, -1].flatten(), cache, t - 1).float()  # (N*K, V)
        log_sum = log_sum_exp(logits, cache)
        if no_repeat_ngram:
            ban_repeats(logits.view(len(rows), beam, -1), tokens, no_repeat_ngram)
        if t - 1 < min_new_tokens:
            logits[:, config.eos_token_id] = -torch.inf
        words, index = top_words(logits, 2 * beam)  # the 2K best of each beam: (N*K, 2K)
        words = (words - log_sum).view(len(rows), beam, -1) + scores[..., None]
        best, place = words.flatten(1).topk(2 * beam)  # and of each sentence: (N, 2K)
        parents, new = place // (2 * beam), index.view(len(rows), -1).gather(1, place)
        grown = torch.cat([tokens.gather(1, parents[..., None].expand(-1, -1, t)), new[..., None]], 2)  # (N, 2K, t+1)
        ends = (new == config.eos_token_id) if t + 1 < length else torch.ones_like(new, dtype=torch.bool)

        # Finished: the ends among the best K continuations compete with the hypotheses finished before.
        ended_scores = torch.where(ends[:, :beam], best[:, :beam] / t**length_penalty, NEVER)
        ended = torch.nn.functional.pad(grown[:, :beam], (0, length - t - 1), value=config.pad_token_id)
        finished_scores, kept = torch.cat([finished_scores, ended_scores], 1).topk(beam)
        finished = torch.cat([finished, ended], 1).gather(1, kept[..., None].expand(-1, -1, length))

        # Running: the best K that do not end.
        scores, kept = torch.where(ends, best + NEVER, best).topk(beam)
        tokens = grown.gather(1, kept[..., None].expand(-1, -1, t + 1))
        parents = parents.gather(1, kept)

        done = scores[:, 0] / t**length_penalty <= finished_scores[:, -1]  # fewer than K finished: the last is NEVER
        if beam == 1:
            done = finished_scores[:, 0] > NEVER / 2  # greedy search stops at the first </s>
        if t + 1 == length:
            done = torch.ones_like(done)
        for i in done.nonzero()[:, 0].tolist():
            outputs[rows[i]] = strip(finished[i, 0].tolist(), prompt.size(1), config)
        if done.all():
            break
        going = (~done).nonzero()[:, 0]
        look = cache["look"][..., :cache["filled"]]
        look.copy_(look.gather(1, parents[..., None].expand_as(look)))
        if len(going) < len(rows):
            keep(cache, going)
            rows, tokens, scores = rows[going], tokens[going], scores[going]
            finished, finished_scores = finished[going], finished_scores[going]
        sweep(cache)
    model.train(was_training)
    return outputs


def ban_repeats(words, tokens, n):
    """Sets to -inf every word of words (N, K, V) that would complete an n-gram which tokens (N, K, t) already has."""
    t = tokens.size(2)
    if t < n:
        return
    grams = tokens.unfold(2, n, 1)  # (N, K, t-n+1, n)
    same = (grams[..., :-1] == tokens[:, :, None, t - n + 1:]).all(-1)  # its first n-1 words are the last n-1
    banned = torch.where(same, grams[..., -1], grams.new_full((), words.size(2)))  # the rest goes to an extra column
    extra = torch.zeros(*words.shape[:2], words.size(2) + 1, dtype=torch.bool, device=words.device)
    words.masked_fill_(extra.scatter_(2, banned, True)[..., :-1], -torch.inf)


def log_sum_exp(logits, cache):
    """log sum_v exp(logits[r, v]), (R, 1), from one pass of softmax: twice as fast as torch.logsumexp."""
    if "softmax" not in cache:  # of as many rows as there will ever be
        cache["softmax"] = torch.empty_like(logits)
    p = torch.softmax(logits, 1, out=cache["softmax"][:len(logits)])
    return logits.amax(1, keepdim=True) - p.amax(1, keepdim=True).log()


def top_words(logits, k, block=256):
    """The k largest of each row of logits (R, V) and their places, both (R, k): first the k blocks with the largest
    maxima, which hold them all, then the k words in these. Sorting all V words for k takes several times as long."""
    cut = logits.size(1) // block * block
    blocks = logits[:, :cut].view(len(logits), -1, block)  # (R, V / block, block)
    if blocks.size(1) <= k:
        return logits.topk(k)
    chosen = blocks.amax(2).topk(k).indices  # (R, k)
    places = chosen[..., None] * block + torch.arange(block, device=logits.device)  # (R, k, block)
    rest = torch.arange(cut, logits.size(1), device=logits.device).expand(len(logits), -1)
    places = torch.cat([places.flatten(1), rest], 1)
    values, found = logits.gather(1, places).topk(k)
    return values, places.gather(1, found)


def keep(cache, going):
    """Leaves only the sentences `going` in the cache: the others are finished."""
    for name in ("look", "mask"):
        cache[name] = cache[name][going]
    for tensors in cache["layers"]:
        for name in tensors:
            tensors[name] = tensors[name][going]


def sweep(cache):
    """Once no running beam descends from half of the slots of self-attention, the others move together: beams that
    share their beginning then read it once."""
    look = cache["look"][..., :cache["filled"]]  # (N, K, slots)
    live = (look == 0).any(1)
    most = int(live.sum(1).max())
    if most > cache["filled"] // 2:
        return
    order = live.int().argsort(descending=True, stable=True)[:, :most]  # (N, most)
    cache["filled"] = most
    kept = look.gather(2, order[:, None].expand(-1, look.size(1), -1))
    cache["look"][..., :most], cache["look"][..., most:] = kept, -torch.inf
    for tensors in cache["layers"]:
        for name in "kv":
            slots = tensors[name]  # (N, H, L*K, d)
            places = order[:, None, :, None].expand(-1, slots.size(1), -1, slots.size(3))
            slots[:, :, :most] = slots.gather(2, places)


def strip(ids, start, config):
    """The words of a decoded row: what stands between the prompt and </s> or padding."""
    ids = ids[start:]
    while ids and ids[-1] == config.pad_token_id:
        ids.pop()
    return ids[:-1] if ids and ids[-1] == config.eos_token_id else ids


def check(config, source, langs, beam, max_new_tokens, min_new_tokens):
    if beam < 1 or max_new_tokens < 1 or min_new_tokens < 0:
        raise UserError(f"beam {beam} and max_new_tokens {max_new_tokens} must be at least 1, min_new_tokens "
                        f"{min_new_tokens} at least 0")
    if max_new_tokens + 1 > config.max_position_embeddings:
        raise UserError(f"max_new_tokens {max_new_tokens} is more than the {config.max_position_embeddings - 1} that "
                        "the model has positions for")
    real = source != config.pad_token_id
    if bool((real[:, 1:] & ~real[:, :-1]).any()):
        raise UserError("source must be padded on the right")
    if langs.numel() and not 0 <= int(langs.min()) <= int(langs.max()) < config.vocab_size:
        raise UserError(f"language ids must be between 0 and {config.vocab_size - 1}; tokenizer.lang_id() gives them")
    if 2 * beam > config.vocab_size:
        raise UserError(f"beam {beam} is too wide for a vocabulary of {config.vocab_size}")


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    from tokenizer import Tokenizer
    if len(argv) != 4:
        raise UserError('usage: python generate.py FOLDER SOURCE_LANG TARGET_LANG "TEXT"')
    loaded, words = MBart.from_pretrained(argv[0]), Tokenizer.from_pretrained(argv[0])
    ids = torch.tensor([words.encode(argv[3], argv[1], loaded.config.max_position_embeddings)])
    print(words.decode(generate(loaded, ids, words.lang_id(argv[2]), max_new_tokens=60)[0]))


if __name__ == "__main__":
    run(main)
