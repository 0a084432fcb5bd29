"""RESULTS.md out of the scores that reproduce.sh leaves in results/:  python report.py

A claim is "supported" if the intervals of all its differences lie on the claimed side of zero, "contradicted" if all
lie on the other side, else "mixed", with the count.

    python report.py --best-rate runs/paper/rate-qk-*      the learning rate with the lowest validation loss
"""
import argparse
import json
import sys
from pathlib import Path

import numpy as np

from model import UserError
from pictures import pictures
from scores import (
    ACROSS,
    FEW_SHOT,
    JOINT,
    PROBED,
    RESULTS,
    SEEN_TARGET,
    WITHIN,
    ZERO_SHOT,
    best_rate,
    difference,
    english_only,
    interval,
    probe_of,
    rates,
    results,
    values,
)


def cell(name, pair, note=""):
    score = values(name, pair, "R1")
    if score is None:
        return f"–<br><sub>{note}</sub>" if note else "–"
    r1 = interval(score)
    off, facts = (values(name, pair, metric).mean() for metric in ("off-target", "facts"))
    text = f"{r1.mean:.1f} [{r1.low:.1f}, {r1.high:.1f}]<br>{off:.0f}% · {facts:.0f}%"
    return f"{text}<br><sub>{note}</sub>" if note else text


def floors(pairs):
    """The rows of outputs that need no model."""
    found = {f"{row['source']}-{row['target']}": row["floors"] for path in sorted(RESULTS.glob("*.json"))
             for row in json.loads(path.read_text(encoding="utf-8")).get("rows", ()) if row.get("floors")}
    lines = []
    for kind, label in (("random", "floor: another text's headline"), ("lead", "floor: the source's first sentence")):
        cells = [f"{found[p][kind]['R1'][0]:.1f}<br>{found[p][kind]['off-target'][0]:.0f}% · "
                 f"{found[p][kind]['facts'][0]:.0f}%" if p in found else "–" for p in pairs]
        lines.append(f"| {label} | – | " + " | ".join(cells) + " |")
    return lines


def arrow(pair):
    source, target = (code[:2] for code in pair.split("-"))
    return f"{source}→{target}"


def table(rows, pairs, with_floors=True):
    lines = ["| trained | seeds | " + " | ".join(map(arrow, pairs)) + " |", "| --- | --- |" + " --- |" * len(pairs)]
    lines += floors(pairs) if with_floors else []
    for row in rows:
        if results(row.name) or row.published:
            cells = [cell(row.name, pair, row.published.get(pair) and f"published {row.published[pair]}")
                     for pair in pairs]
            lines.append(f"| {row.label} | {len(results(row.name))} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def probe_table():
    lines = ["| model | encoder, last layer | encoder layers, embedding first | decoder layers | published | "
             "SVCCA, encoder | SVCCA, decoder |", "| --- |" + " --- |" * 6]
    for row in PROBED:
        accuracy, alike = probe_of(row.name)
        if accuracy is None:
            continue
        decoder, decoder_alike = probe_of(row.name, "decoder")
        spread = f" ({accuracy[:, -1].min():.3f} to {accuracy[:, -1].max():.3f})" if len(accuracy) > 1 else ""
        lines.append(f"| {row.label} | {accuracy[:, -1].mean():.3f}{spread} | " + " | ".join(
            " ".join(f"{x:.2f}" for x in sample.mean(0)) if sample is not None else row.published.get("", "–")
            for sample in (accuracy, decoder, None, alike, decoder_alike)) + " |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- claims

def verdict(differences):
    """[(what, Interval or None)] -> "supported", "contradicted", "mixed" or "not measured", with the evidence."""
    known = [(what, d) for what, d in differences if d is not None]
    if not known:
        return "not measured", ""
    above, below = sum(d.low > 0 for _, d in known), sum(d.high < 0 for _, d in known)
    word = ("supported" if above == len(known) else "contradicted" if below == len(known) else
            f"mixed: {above} of {len(known)} differences on the claimed side, {below} on the other, the rest open")
    return word, "; ".join(f"{what} {d.mean:+.1f} [{d.low:+.1f}, {d.high:+.1f}]" for what, d in known)


def compare(a, b, pairs, metric, label=None):
    """a minus b on every pair, as verdict() wants it."""
    return [(f"{label or metric} {arrow(pair)}", difference(a, b, pair, metric)) for pair in pairs]


def against_floor(name, pairs):
    """Facts of a row minus those of another document's headline."""
    out = []
    for pair in pairs:
        facts = values(name, pair, "facts")
        floor = [row["floors"]["random"]["facts"][0] for result in results(name) for row in result["rows"]
                 if f"{row['source']}-{row['target']}" == pair]
        out.append((f"facts above floor {arrow(pair)}", None if facts is None else interval(facts - floor[0])))
    return out


def copies(name, pairs):
    """How far the share of outputs in another language lies above one half."""
    return [(f"off-target − 50 {arrow(pair)}", None if values(name, pair, "off-target") is None
             else interval(values(name, pair, "off-target") - 50)) for pair in pairs]


def claims():
    """[(letter, claim, verdict, evidence)]"""
    cross = SEEN_TARGET
    qk = f"rate-qk-{rates()['qk'][1]}"
    full, best_full = f"rate-full-{rates()['qk'][1]}", f"rate-full-{rates()['full'][1]}"
    said = [
        ("a", "full finetuning on English loses the other languages, at `qk`'s rate: more off-target outputs than `qk`",
         compare(full, qk, ZERO_SHOT, "off-target")),
        ("a", "and the lower zero-shot ROUGE-1", compare(qk, full, ZERO_SHOT, "R1")),
        ("a", "each at its own best rate: `full` has more off-target outputs than `qk`",
         compare(best_full, qk, ZERO_SHOT, "off-target")),
        ("a", "each at its own best rate: `full` has the lower zero-shot ROUGE-1",
         compare(qk, best_full, ZERO_SHOT, "R1")),
        ("b", "`qk` pays on the seen language, each at its best rate", compare(best_full, qk, WITHIN[:1], "R1")),
        ("c", "`frozen_decoder` lies above `full` zero-shot (same rate)",
         compare("frozen_decoder", full, ZERO_SHOT, "R1")),
        ("c", "`attn_ln` lies above `full` zero-shot", compare("attn_ln", full, ZERO_SHOT, "R1")),
        ("c", "`qk` lies above `frozen_decoder` zero-shot", compare(qk, "frozen_decoder", ZERO_SHOT, "R1")),
        ("c", "`qk` lies above `attn_ln` zero-shot", compare(qk, "attn_ln", ZERO_SHOT, "R1")),
        ("c", "`qk` lies above `vqk` zero-shot (no published figure)", compare(qk, "vqk", ZERO_SHOT, "R1")),
        ("c", "`qk` lies above `q` zero-shot (no published figure)", compare(qk, "q", ZERO_SHOT, "R1")),
        ("d", "joint intralingual finetuning copies the source across languages (`full`)", copies("joint-full", cross)),
        ("d", "and so does `qk`", copies("joint-qk", cross)),
        ("d", "two steps mend the language: fewer off-target outputs than `full`",
         compare("joint-full", "two-step-qk", ACROSS[:5], "off-target")),
        ("d", "and the content: more facts than another document's headline", against_floor("two-step-qk", ACROSS)),
        ("d", "two steps with `qk` beat two steps with `full`", compare("two-step-qk", "two-step-full", ACROSS, "R1")),
        ("d", "the balanced adversary mends the language: fewer off-target outputs than `full`",
         compare("joint-full", "joint-balanced", cross, "off-target")),
        ("d", "and the content: more facts than another document's headline", against_floor("joint-balanced", cross)),
        ("d", "it is the adversary, not the missing tag: fewer off-target outputs than the tagless control",
         compare("joint-tagless", "joint-balanced", cross, "off-target")),
        ("e", "balanced beats standard: higher ROUGE-1", compare("joint-balanced", "joint-standard", cross, "R1")),
        ("e", "balanced beats standard: fewer off-target outputs",
         compare("joint-standard", "joint-balanced", cross, "off-target")),
        ("e", "the balanced adversary hurts an unseen target language: more off-target outputs there than `full`",
         compare("joint-balanced", "joint-full", ["tr_TR-tr_TR"], "off-target")),
    ]
    rows = [(letter, claim, *verdict(differences)) for letter, claim, differences in said]
    return rows + probing_claims()


def probing_claims():
    names = ["joint-full", "joint-standard", "joint-balanced", "joint-balanced-drop"]
    accuracies = [probe_of(name)[0] for name in names]
    if any(a is None for a in accuracies):
        return [("f", "probing accuracy falls full > standard > balanced > + residual drop", "not measured", "")]
    last = [a[:, -1] for a in accuracies]
    ordered = [x.min() > y.max() for x, y in zip(last, last[1:])]
    word = "supported" if all(ordered) else ("mixed: in order and apart in every seed for "
                                             f"{sum(ordered)} of {len(ordered)} neighbours")
    evidence = "; ".join(f"{name} {x.mean():.3f} ({x.min():.3f} to {x.max():.3f})" for name, x in zip(names, last))
    points = []
    for row in PROBED[1:]:
        accuracy, _ = probe_of(row.name)
        scores = [values(row.name, pair, "R1") for pair in SEEN_TARGET]
        if accuracy is not None and all(s is not None for s in scores) and "two-step" not in row.name:
            points += [(accuracy[i, -1], np.mean([s[i].mean() for s in scores]))
                       for i in range(min(len(accuracy), len(scores[0])))]
    r = np.corrcoef(np.array(points).T)[0, 1] if len(points) > 2 else float("nan")
    return [("f", "probing accuracy falls full > standard > balanced > + residual drop", word, evidence),
            ("f", "and correlates with zero-shot cross-lingual ROUGE-1 (negatively; one-step runs)",
             "supported" if r < -0.5 else "not supported", f"Pearson r = {r:.2f} over {len(points)} runs")]


# ---------------------------------------------------------------------------------------------- the file

def write(path):
    if not list(RESULTS.glob("*.json")):
        raise UserError(f"{RESULTS}/ has no scores yet; run ./reproduce.sh first")
    shown = pictures()
    rate_lines = [f"- `{recipe}`: " + ", ".join(f"{rate}: {losses[rate]:.4f}" for rate in sorted(losses, key=float))
                  + f"; best: {best}" for recipe, (losses, best) in rates().items()]
    claim_lines = [f"| {letter} | {claim} | **{word}** | {evidence} |" for letter, claim, word, evidence in claims()]
    path.write_text("\n".join([
        "# Results", "",
        "Written by `./reproduce.sh` (`report.py`), never by hand; the corpus, the base model and every run are this",
        "repository's own. A cell: ROUGE-1 [95% interval], below it the share of outputs in another language · the",
        "share of facts (who, did, what, where) recovered; then the published ROUGE-1 / off-target share on real data",
        "with mBART-large, which can be compared in sign and order only. 100 test documents a pair, beam 5.", "",
        "## Claims", "", "| | claim | verdict | differences, mean [95% interval] |", "| --- | --- | --- | --- |",
        *claim_lines, "",
        "## Trained on English alone, asked within each language", "",
        "400 updates. Validation loss on English by learning rate, mean over seeds:", "", *rate_lines, "",
        table(english_only(), WITHIN), "", *shown[:3], "",
        "### A few Spanish examples on top", "", table(FEW_SHOT, WITHIN[1:2], with_floors=False), "",
        "## Trained within English, Spanish and Russian, asked across languages (Turkish is unseen)", "",
        table(JOINT, ACROSS), "",
        "## What the layers know of the source language", "",
        "Accuracy of a fresh classifier over en, es, ru, tr (chance 0.25); SVCCA: mean similarity of language pairs.",
        "",
        probe_table(), "", *shown[3:], ""]), encoding="utf-8")
    print(f"{path} is written: {sum('supported' in line and 'not supported' not in line for line in claim_lines)} of "
          f"{len(claim_lines)} claims supported")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--best-rate", nargs="+", metavar="RUN", help="print the best learning rate of these runs")
    parser.add_argument("--out", default="RESULTS.md", type=Path)
    args = parser.parse_args()
    try:
        if args.best_rate:
            print(best_rate(args.best_rate)[1])
        else:
            write(args.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
