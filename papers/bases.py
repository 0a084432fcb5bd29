"""What a base can do before it is finetuned: a table for each folder.

    python -m papers.bases base
    python -m papers.bases base runs/pretrain --json bases.json

On documents of the built-in corpus's validation split, for a base is chosen by what this prints
and nothing is chosen on a test set; none of them code-mixed, so that bases compare that were
pretrained on different mixtures:

COPYING: the document, unmasked and with its own language's tag, by beam search: ROUGE-1 and the
share that comes back to the letter. It is given sentence by sentence, for in pretraining </s> ends
a sentence and not a document: a base stops there.

DENOISING: the loss per label token of masked documents, as `--stage pretrain` masks them.

RETRIEVAL: how often is the nearest neighbour of a document's mean state in an encoder layer, among
those of another language, its own translation? `python -m tools.layers` measures it, here of 200
validation documents.

TRANSLATION BY TAG: the document with another language's tag before the output: how many outputs are
not found to be in that language, and how many of the headline's facts are told in it. Where
pretraining mixed languages in source and target alike a base copies and tells none; with
`--data builtin:SHARE` it learns to translate, and this tells how far.
"""
import subprocess
import sys
from pathlib import Path

import torch

import eval as evaluation
import metrics
from corpora.builtin import Builtin
from corpora.facts import BASE_LANGUAGES, CORPUS_LANGUAGES
from data import Examples, held_out, languages_of, split_pairs
from papers.pipeline import by_sentence
from plumbing.files import (
    UserError,
    check_file_out,
    last_line,
    parser_of,
    read_json,
    run,
    temporary_folder,
    write_json,
    write_text,
)
from plumbing.models import MODEL_HELP, model_folder
from plumbing.options import COUNT, decoding_of, default_device, device_name

ROOT = Path(__file__).resolve().parent.parent
SPLIT = "valid"
RETRIEVED = 200  # documents a language, as tools.layers compares
TOKENS = 4000  # padded tokens in a batch
OPTIONS = decoding_of("translate")  # a copy repeats what its document repeats


class Documents:
    """A data set of the corpus's validation documents as one language says them: source and
    target alike."""

    def __init__(self, lang):
        self.lang = lang
        self.news = Builtin("summarize", SPLIT, [(lang, lang)])
        self.sizes = self.news.sizes

    def sentences(self, index):
        document = self.news.document((self.lang, self.lang), index)
        return self.news.corpus.sentences(document, self.lang)

    def text(self, pair, index):
        text = "\n".join(self.sentences(index))
        return text, text


# ----------------------------------------------------------------------------------- measures

def copying(decoder, lang, count):
    """{"R1": mean ROUGE-1 in percent, "exact": percent} of `count` documents."""
    documents = Documents(lang)
    given = [documents.sentences(index) for index in range(count)]
    wanted = [" ".join(sentences) for sentences in given]
    outputs = by_sentence(decoder, given, lang, lang)
    exact = sum(output == text for output, text in zip(outputs, wanted))
    return {
        "R1": float(metrics.rouge(outputs, wanted, lang)["R1"].mean()),
        "exact": 100 * exact / count,
    }


@torch.no_grad()
def denoising_loss(model, tokenizer, lang, count, tagged=True):
    """Mean loss per label token (nats) of `count` masked documents."""
    model.eval()
    longest = model.config.max_position_embeddings
    examples = Examples(Documents(lang), tokenizer, "pretrain", tagged, longest)
    total = 0.0
    tokens = 0
    for batch in held_out(examples, count, TOKENS):
        batch = batch.to(next(model.parameters()).device)
        loss = model.loss(batch.source, batch.decoder_input, batch.labels, reduction="sum")
        total += loss.item()
        tokens += batch.target_tokens
    return total / tokens


def translation(decoder, pair, count):
    """{"off-target": percent, None where the identifier does not know the target; "facts":
    percent} of `count` documents."""
    source, target = pair
    data = Builtin("summarize", SPLIT, [pair])
    given = []
    for index in range(count):
        given.append(data.corpus.sentences(data.document(pair, index), source))
    outputs = by_sentence(decoder, given, source, target)
    identify = metrics.LanguageIdentifier(CORPUS_LANGUAGES)
    off_target = evaluation.off_target(outputs, target, identify)["off-target"]
    facts = evaluation.facts_told(data, pair, outputs)
    found = {"off-target": None, "facts": sum(facts) / count}
    if off_target:
        found["off-target"] = sum(off_target) / count
    return found


def write_parallel(folder, languages):
    """Writes what tools.layers compares as line-aligned files, a document a line. It reads the
    split "test" alone, so that is what the files are called."""
    for lang in languages:
        documents = Documents(lang)
        lines = [" ".join(documents.sentences(index)) for index in range(RETRIEVED)]
        write_text(Path(folder) / f"test.{lang}", "\n".join(lines) + "\n")


def retrieval(folder, languages, device):
    """Of every encoder layer, the embedding first: percent, the mean over pairs of languages.

    A process of its own: papers/ and tools/ do not import each other."""
    if len(languages) < 2:
        return []
    with temporary_folder() as temporary:
        write_parallel(temporary, languages)
        file = Path(temporary) / "layers.json"
        words = ["--model", str(Path(folder).absolute()), "--measures", "retrieval"]
        words += ["--data", f"parallel:{temporary}", "--stage", "summarize"]
        words += ["--source-lang", *languages]
        words += ["--device", str(device), "--json", str(file)]
        command = [sys.executable, "-m", "tools.layers", *words]
        done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
        if done.returncode:
            last = last_line(done.stderr, 120) or "it says nothing"
            raise UserError(f"tools.layers on {folder}: {last}")
        layers = read_json(file)["layers"]["encoder"]
    percents = []
    for layer in layers:
        values = layer["retrieval"].values()
        percents.append(100 * sum(values) / len(values))
    return percents


def measure(folder, args):
    """All that the table of a folder shows, for JSON."""
    where = args.device or default_device()
    decoder = evaluation.Decoder(folder, where, **OPTIONS)
    pairs = split_pairs(args.pairs)
    decoder.tokenizer.check_languages([*args.langs, *languages_of(pairs)])
    report = {"model": str(folder), "languages": {}, "translation": {}}
    for lang in args.langs:
        found = copying(decoder, lang, args.copied)
        found["loss"] = denoising_loss(
            decoder.model, decoder.tokenizer, lang, args.denoised, decoder.tagged
        )
        report["languages"][lang] = found
    report["retrieval"] = retrieval(folder, args.langs, where)
    for pair in pairs:
        report["translation"]["-".join(pair)] = translation(decoder, pair, args.translated)
    return report


# ----------------------------------------------------------------------------------- the table

def table(report, args):
    """A report as text."""
    lines = [f"{report['model']}: what it can do before finetuning", ""]
    lines.append(f"{'language':<10}{'copied, R1':>12}{'exact %':>10}{'denoising loss':>17}")
    for lang, found in report["languages"].items():
        cells = f"{found['R1']:>12.1f}{found['exact']:>10.1f}{found['loss']:>17.3f}"
        lines.append(f"{lang:<10}{cells}")
    if report["retrieval"]:
        layers = range(len(report["retrieval"]))
        lines.append("")
        lines.append("encoder layer" + "".join(f"{layer:>7}" for layer in layers))
        lines.append("retrieval %  " + "".join(f"{value:>7.1f}" for value in report["retrieval"]))
    lines.append("")
    lines.append(f"{'by tag':<20}{'off-target %':>14}{'facts %':>10}")
    for pair, found in report["translation"].items():
        off_target = "–"
        if found["off-target"] is not None:
            off_target = f"{found['off-target']:.1f}"
        lines.append(f"{pair:<20}{off_target:>14}{found['facts']:>10.1f}")
    lines.append("")
    lines.append(
        f"validation documents: {args.copied} a language copied, {args.denoised} masked, "
        f"{args.translated} a pair translated; layer 0 is the embedding's output"
    )
    return "\n".join(lines)


# -------------------------------------------------------------------------------- command line

def parse_args(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help=f"{MODEL_HELP}, pretrained")
    add(
        "--langs",
        nargs="+",
        default=list(BASE_LANGUAGES),
        metavar="LANG",
        help=f"languages copied, masked and retrieved (default: {' '.join(BASE_LANGUAGES)})",
    )
    add(
        "--pairs",
        nargs="+",
        default=["es_XX-en_XX"],
        metavar="SRC-TGT",
        help="to translate by tag (default: es_XX-en_XX)",
    )
    add("--copied", type=COUNT, default=40, help="documents a language (default 40)")
    add("--denoised", type=COUNT, default=100, help="documents a language (default 100)")
    add("--translated", type=COUNT, default=20, help="documents a pair (default 20)")
    add("--json", metavar="FILE", help="also write every number to this file")
    add("--device", type=device_name, help="cpu, cuda ... (default: a GPU if there is one)")
    args = parser.parse_args(argv)
    args.langs = list(dict.fromkeys(args.langs))
    return args


def main(argv=None):
    args = parse_args(argv)
    if args.json:
        check_file_out(args.json, read=args.folders)
    folders = [model_folder(name) for name in args.folders]
    reports = []
    for folder in folders:
        report = measure(folder, args)
        reports.append(report)
        print(table(report, args) + "\n", flush=True)
        if args.json:
            write_json(args.json, reports)


if __name__ == "__main__":
    run(main)
