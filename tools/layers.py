"""Layer by layer: what do a trained model's states know of their language? The tables of `eval.py --probe`,
`--retrieval` and `--dictionary`.

Every number is computed on test documents that no training saw, from a model that stays as it is.
"""
from collections import Counter

import torch
from tqdm import tqdm

from adversarial import probe, token_states
from align import pooled_states, retrieval, svcca
from corpora.language import Language
from corpora.sets import open_data
from data import Examples, collate, held_out
from plumbing.files import UserError


def parallel_batches(model, tokenizer, stage, data_spec, langs, tagged, count, seed=0):
    """{language: batches of the same `count` test documents}."""
    found = {}
    for lang in langs:
        data = open_data(data_spec, stage, "test", [(lang, lang)], tokenizer.languages, seed)
        examples = Examples(data, tokenizer, stage, tagged, model.config.max_position_embeddings)
        number = min(count, examples.sizes[lang, lang] or count)
        found[lang] = [collate([examples((lang, lang), i) for i in range(start, min(number, start + 50))])
                       for start in range(0, number, 50)]
    return found


def parallel_states(model, tokenizer, batches, side):
    """{language: every layer's mean-pooled states of parallel_batches(), L + 1 tensors (N, D)}."""
    return {lang: pooled_states(model, tokenizer, own, side) for lang, own in batches.items()}


def is_parallel(data_spec):
    return data_spec == "builtin" or data_spec.startswith("parallel:")


def probe_layers(model, tokenizer, stage, data_spec, langs, tagged, seed=0):
    """What each layer tells of the source language, as {"encoder": [...], "decoder": [...]}, an entry a layer (the
    embedding first): {"accuracy", "confusion", "svcca": {"a b": similarity}}; SVCCA where the data set is parallel.

    The encoder reads documents within each language; the decoder reads the reference in every target language, so that
    its own language says nothing of the source's."""
    def batches(split, pairs, count):
        data = open_data(data_spec, stage, split, pairs, tokenizer.languages, seed)
        limit = model.config.max_position_embeddings
        return held_out(Examples(data, tokenizer, stage, tagged, limit), count, 4000)

    model.eval()
    report, parallel = {}, {}
    if is_parallel(data_spec):
        parallel = parallel_batches(model, tokenizer, stage, data_spec, langs, tagged, 600, seed)
    for side in ("encoder", "decoder"):
        pairs = [(a, b) for a in langs for b in langs if side == "decoder" or a == b]
        count = 160 if side == "encoder" else 60
        states, true = token_states(model, tokenizer, batches("train", pairs, count), langs, side)
        held, held_true = token_states(model, tokenizer, batches("test", pairs, count // 2), langs, side)
        pooled = parallel_states(model, tokenizer, parallel, side)
        report[side] = []
        for layer in tqdm(range(len(states)), desc=f"probing the {side}", leave=False):
            confusion, rescaled = (probe(states[layer], true, held[layer], held_true, len(langs), scale, seed=seed)
                                   for scale in (False, True))
            alike = {f"{a} {b}": svcca(pooled[a][layer], pooled[b][layer])
                     for i, a in enumerate(langs) for b in langs[i + 1:] if pooled}
            report[side].append({"accuracy": confusion.diagonal().mean().item(), "confusion": confusion.tolist(),
                                 "rescaled": rescaled.diagonal().mean().item(), "svcca": alike})
    return report


def probe_table(report, langs):
    lines = ["layer   probe encoder  decoder   of rescaled states  decoder     SVCCA encoder  decoder"]
    cell = "{:>8.3f}".format
    for layer in range(max(map(len, report.values()))):
        entries = [report[side][layer] if layer < len(report[side]) else None for side in ("encoder", "decoder")]
        similar = [sum(e["svcca"].values()) / len(e["svcca"]) if e and e["svcca"] else None for e in entries]
        cells = [cell(e[key]) if e else "" for key in ("accuracy", "rescaled") for e in entries]
        cells += [cell(s) if s else "" for s in similar]
        lines.append("{:>5} {:>15} {:>8} {:>20} {:>8} {:>17} {:>8}".format(layer, *cells))
    lines.append("\nthe encoder's last layer: row = source language, column = what the classifier says, %")
    lines.append(" " * 8 + "".join(f"{lang:>8}" for lang in langs))
    lines += [f"{lang:>8}" + "".join(f"{100 * share:>8.1f}" for share in row)
              for lang, row in zip(langs, report["encoder"][-1]["confusion"])]
    return "\n".join(lines)


def retrieve_layers(model, tokenizer, stage, data_spec, langs, tagged, count=200, seed=0):
    """How often a text's nearest neighbour in another language is its translation (Liu and Niehues 2025, section 2):
    {"encoder": [{"a b": accuracy} for each layer], "decoder": [...]}, on `count` parallel test documents (headlines in
    the decoder). UserError if the data set is not parallel."""
    if not is_parallel(data_spec):
        raise UserError(f"--retrieval needs the same texts in every language; {data_spec} has not: use parallel:DIR")
    model.eval()
    report, parallel = {}, parallel_batches(model, tokenizer, stage, data_spec, langs, tagged, count, seed)
    for side in ("encoder", "decoder"):
        pooled = parallel_states(model, tokenizer, parallel, side)
        report[side] = [{f"{a} {b}": retrieval(pooled[a][layer], pooled[b][layer])
                         for i, a in enumerate(langs) for b in langs[i + 1:]} for layer in range(len(pooled[langs[0]]))]
    return report


def retrieval_table(report):
    pairs = list(report["encoder"][0])
    lines = ["translation retrieval, % right (mean of both directions); layer 0 is the embedding",
             "layer          " + "".join(f"{pair:>13}" for pair in pairs) + f"{'mean':>8}"]
    for side, layers in report.items():
        for number, row in enumerate(layers):
            mean = sum(row.values()) / len(row)
            lines.append(f"{side} {number:<6}" + "".join(f"{100 * row[pair]:>13.1f}" for pair in pairs)
                         + f"{100 * mean:>8.1f}")
    return "\n".join(lines)


def lexicon_words(lang):
    """{entry: its words in `lang`}, of people, things, adjectives, verbs and places; words that many entries share
    (articles, prepositions) are left out."""
    language, words = Language(lang), {}
    for section in ("people", "things", "adjectives", "verbs", "places"):
        for name, forms in language.entries[section].items():
            words[section, name] = {word for form in forms for word in form.split() if len(word) > 1}
    common = {word for word, count in Counter(word for row in words.values() for word in row).items() if count > 3}
    return {entry: row - common for entry, row in words.items()}


@torch.no_grad()
def dictionary_induction(child, child_pieces, child_lang, parent, parent_pieces, parent_lang):
    """Are a new language's embeddings aligned with the parent's (Gheini et al. 2021, section 5.1)? For every word of
    `child_lang` that is one piece: is the parent's piece with the largest dot product one of its translations?

    child, parent: embedding tables (V, D) with their SentencePiece models; gold: the built-in lexicon. Returns
    (accuracy, words tried, chance: the accuracy of a random choice)."""
    def whole(pieces, lang):  # {entry: ids of the pieces that are whole words of it}; ids are moved by one
        return {entry: [pieces.piece_to_id(f"▁{word}") + 1 for word in sorted(row)
                        if pieces.piece_to_id(f"▁{word}") != pieces.unk_id()]
                for entry, row in lexicon_words(lang).items()}

    ours, theirs = whole(child_pieces, child_lang), whole(parent_pieces, parent_lang)
    candidates = sorted({i for ids in theirs.values() for i in ids})
    tried = [(i, set(theirs[entry])) for entry in ours if entry in theirs and theirs[entry] for i in ours[entry]]
    if not tried:
        return float("nan"), 0, float("nan")
    similarity = child[[i for i, _ in tried]] @ parent[candidates].T
    nearest = [candidates[j] for j in similarity.argmax(1).tolist()]
    right = sum(best in gold for best, (_, gold) in zip(nearest, tried))
    chance = sum(len(gold) for _, gold in tried) / len(tried) / len(candidates)
    return right / len(tried), len(tried), chance
