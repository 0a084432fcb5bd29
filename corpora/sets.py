"""Data sets of (source, target) texts: the built-in corpus, JSON lines, line-aligned text, XL-Sum and WikiLingua.

`--data SPEC` names one:
    builtin           the built-in corpus
    jsonl:DIR         DIR/{train,valid,test}.jsonl, a JSON object a line: source, target, source_lang, target_lang
    parallel:DIR      DIR/{train,valid,test}.LANG, line i of one file translates line i of the others
    xlsum:DIR         XL-Sum as published (Hasan et al. 2021): english_train.jsonl, english_val.jsonl, ...
    wikilingua:DIR    WikiLingua (Ladhak et al. 2020) as GEM exports it: train.jsonl, validation.jsonl, test.jsonl
Each is an object with `sizes` ({(source language,
target language): number of examples, or None for a stream without end}) and `text(pair, index)`. Files are read once
to check every line; after that only the place of each line is in memory.
"""
import sys
from pathlib import Path

from tqdm import tqdm

from corpora.builtin import Builtin
from corpora.lines import Parallel, Rows
from corpora.published import GEM_FIELDS, OUR_FIELDS, SPLITS, WIKILINGUA, XLSUM
from plumbing.files import UserError


def open_data(spec, stage, split, pairs, languages, seed=0, skip=False, minimum=(0, 0)):
    """`--data SPEC` -> a data set of the (source, target) language pairs. UserError for what cannot be read.

    skip, minimum: see Lines; the built-in corpus has no use for them."""
    kind, _, folder = spec.partition(":")
    if spec == "builtin":
        return Builtin(stage, split, pairs, seed)
    if kind not in ("jsonl", "parallel", "xlsum", "wikilingua") or not folder:
        raise UserError(f"--data {spec!r}: expected builtin, jsonl:DIR, parallel:DIR, xlsum:DIR or wikilingua:DIR")
    folder, options = Path(folder), {"skip": skip, "minimum": minimum}
    if not folder.is_dir():
        raise UserError(f"--data {spec}: there is no folder {folder}")
    if kind == "parallel":
        data = Parallel(folder, split, pairs, **options)
    elif kind == "jsonl":
        data = Rows({folder / f"{split}.jsonl": None}, pairs, OUR_FIELDS, languages, **options)
    elif kind == "wikilingua":
        names = [folder / f"{name}.jsonl" for name in SPLITS[kind][split]]
        found = [path for path in names if path.is_file()]
        if not found:
            raise UserError(f"--data {spec}: none of {', '.join(path.name for path in names)} is there")
        data = Rows({found[0]: None}, pairs, GEM_FIELDS, languages, WIKILINGUA, **options)
    else:
        name_of = {code: name for name, code in XLSUM.items()}
        if across := [pair for pair in pairs if pair[0] != pair[1]]:
            raise UserError(f"--data {spec}: XL-Sum has summaries in the document's own language only, not "
                            f"{'-'.join(across[0])}")
        if unknown := [code for code, _ in pairs if code not in name_of]:
            raise UserError(f"--data {spec}: XL-Sum has no {unknown[0]}; it has {' '.join(sorted(name_of))}")
        paths = {folder / f"{name_of[code]}_{SPLITS[kind][split][0]}.jsonl": code for code, _ in pairs}
        data = Rows(paths, pairs, ("text", "summary", None, None), languages, **options)
    if data.skipped or data.short:
        print(f"{spec}, {split}: left out {data.skipped:,} bad lines and {data.short:,} examples that are too short",
              file=sys.stderr)
    if not data.sizes:
        wanted = " ".join("-".join(pair) for pair in list(pairs)[:6])
        raise UserError(f"{data.paths[0]}: no example in the languages asked for ({wanted} ...)")
    return data


def texts_of(data_spec, stage, pairs, languages, seed=0, stream=20_000, skip=False):
    """Every text of a data set's three splits (of an endless one, the first `stream` training examples)."""
    for split in ("train", "valid", "test"):
        data = open_data(data_spec, stage, split, pairs, languages, seed, skip)
        sizes = {pair: stream // 10 if size is None and split != "train" else size or stream
                 for pair, size in data.sizes.items()}
        for pair, size in tqdm(sizes.items(), desc=f"reading {split}", leave=False):
            for index in range(size):
                yield from data.text(pair, index)
