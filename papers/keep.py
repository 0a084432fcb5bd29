"""What the repository keeps of results/: every row's scores, example by example, without its texts.

    python -m papers.keep

papers/scores/ has a file for each file of results/, of the same name, and from these papers.report
writes RESULTS.md: so that every interval on that page can be computed anew without a model. Numbers
of single examples are rounded to one decimal. Of outputs in another language than the one that was
asked for, the first few stay. One measure more is taken of the texts before they go: novel_recall.
Of a run on data in files their fingerprint stays, so that no table mixes two versions of them; and
its learning rate, so that no table calls it the best one after another has been tried.
"""
import csv
import json
from pathlib import Path

from corpora.sets import folder_of
from metrics import Words
from plumbing.files import UserError, make_folder, parser_of, read_json, run, write_text
from plumbing.progress import progress_line
from plumbing.runs import read_state

RESULTS = Path("results")
KEPT = Path("papers/scores")
RUNS = Path("runs/paper")
METRICS = ("R1", "R1-stem", "off-target", "off-target-p", "facts", "novel")  # RESULTS.md shows
EXAMPLES = 5  # outputs that stay, of each pair of languages


def keep(path):
    """Writes what stays of a score file."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a score file, as eval.py --json and its like write them")
    for row in content.get("rows", ()):
        if content.get("stage") == "summarize" and row["source"] == row["target"] and is_whole(row):
            row["each"]["novel"] = novel_recall(row["examples"], row["target"])
        row["examples"] = slips(row)
        row["each"] = {metric: rounded(row["each"].get(metric), 1) for metric in METRICS}
        for scores in (row["scores"], row["references"], *row["floors"].values()):
            for metric in scores:
                scores[metric] = rounded(scores[metric], 2)
    if "layers" in content:
        content["layers"] = rounded(content["layers"], 4)
    watched = watched_scores(path)
    if watched:
        content["watched"] = watched
    fingerprint = data_fingerprint(path)
    if fingerprint:
        content["data fingerprint"] = fingerprint
    rate = learning_rate(path)
    if rate is not None:
        content["learning rate"] = rate
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    write_text(KEPT / path.name, text.replace('{"source"', '\n{"source"') + "\n")


def watched_scores(path):
    """The rows of the watch.csv of a score file's run: where the run is gone, of the kept file."""
    watched = RUNS / path.stem / "watch.csv"
    if watched.is_file():
        with open(watched, encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return kept_before(path).get("watched")


def kept_before(path):
    """What an earlier call kept of a score file; {} if none did."""
    return read_json(KEPT / path.name) or {}


def learning_rate(path):
    """Of a score file's run; where the run is gone, of the kept file. None where neither tells."""
    settings = read_json(RUNS / path.stem / "args.json")
    if settings:
        return settings["lr"]
    return kept_before(path).get("learning rate")


def data_fingerprint(path):
    """{file: [bytes, CRC-32]} of what a score file's run was trained on; where the run is gone, of
    the kept file. {} on the built-in corpus, and where the data lay elsewhere than in the project.

    A run's fingerprint has other files too, the weights that LoRA started from: those may differ
    between machines, and stay out."""
    run_folder = RUNS / path.stem
    settings = read_json(run_folder / "args.json")
    if not settings or not (run_folder / "state.pt").is_file():
        return kept_before(path).get("data fingerprint", {})
    data = folder_of(settings["data"])
    if data is None or data.is_absolute():
        return {}
    files = read_state(run_folder / "state.pt").get("data", {}).get("files", {})
    return {name: value for name, value in files.items() if Path(name).is_relative_to(data)}


def is_whole(row):
    """Has a row the texts of all its examples? In a file that was kept before they are gone."""
    return len(row["examples"]) == row["n"]


def novel_recall(examples, language):
    """How much of its own a summary says: of the words of the reference that the source has not,
    the share in percent that the output has; a number for every example whose reference has such
    words. 0 for whatever was copied, and for what is in another language."""
    words = Words(language)
    found = []
    for example in examples:
        source = set(words.tokenize(example["source"]))
        reference = set(words.tokenize(example["reference"]))
        output = set(words.tokenize(example["output"]))
        novel = reference - source
        if novel:
            found.append(100 * len(novel & output) / len(novel))
    return found


def slips(row):
    """The first outputs of a row that are in another language, without their sources."""
    off_targets = row["each"].get("off-target") or []
    if not is_whole(row):
        return row["examples"]
    found = []
    for example, off_target in zip(row["examples"], off_targets):
        if off_target and len(found) < EXAMPLES:
            found.append({"reference": example["reference"], "output": example["output"]})
    return found


def rounded(value, digits):
    """The numbers within lists and dictionaries, rounded; whole ones without a point."""
    if isinstance(value, dict):
        return {name: rounded(part, digits) for name, part in value.items()}
    if isinstance(value, list):
        return [rounded(part, digits) for part in value]
    if isinstance(value, float):
        value = round(value, digits)
        return int(value) if value.is_integer() else value
    return value


def keep_seconds():
    """How long the rows took: of those that were run here the latest time, of others the kept."""
    lines = {}
    for folder in (KEPT, RESULTS):
        path = folder / "seconds.csv"
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                part, row, _ = line.split(",", 2)
                lines[int(part), row] = line
    write_text(KEPT / "seconds.csv", "".join(f"{lines[key]}\n" for key in sorted(lines)))


def main(argv=None):
    parser_of(__doc__).parse_args(argv)
    make_folder(KEPT)
    for path in progress_line(sorted(RESULTS.glob("*.json")), "keeping scores"):
        keep(path)
    sizes = RESULTS / "sizes.txt"
    if sizes.is_file():
        write_text(KEPT / "sizes.txt", sizes.read_text(encoding="utf-8"))
    keep_seconds()


if __name__ == "__main__":
    run(main)
