"""Translate, summarize, translate: a pipeline to compare with (Solovyev et al. 2024, section 4.4).

    python -m papers.pipeline runs/summarize runs/translate --pairs es_XX-es_XX ru_RU-en_XX

A translation model stands around one that summarizes in the pivot language alone: for a document in
the source language s, the pivot p and the target language t,

    summary = translate(summarize(translate(document, s -> p), p -> p), p -> t)

where translate() leaves a text alone whose language is right already. The table and the JSON file
are eval.py's.
"""
from itertools import islice

import eval as evaluation
from corpora.sets import check_spec, folder_of
from data import SENTENCE_END, languages_of, split_pairs
from plumbing.files import check_file_out, parser_of, run
from plumbing.models import model_folder
from plumbing.options import COUNT, decoding_of, default_device, device_name
from plumbing.runs import read_settings


class Pipeline:
    """Two decoding functions as one: pipeline(texts, source, target) -> summaries.

    summarize, translate: called as eval.Decoder is."""

    def __init__(self, summarize, translate, pivot="en_XX"):
        self.summarize = summarize
        self.translate = translate
        self.pivot = pivot

    def __call__(self, texts, source, target):
        texts = self.translated(texts, source, self.pivot)
        summaries = self.summarize(texts, self.pivot, self.pivot)
        return self.translated(summaries, self.pivot, target)

    def translated(self, texts, source, target):
        """Sentence by sentence, as a model that has seen only sentences needs."""
        if source == target:
            return texts
        documents = []
        for text in texts:
            documents.append([part for part in SENTENCE_END.split(text) if part.strip()])
        return by_sentence(self.translate, documents, source, target)


def by_sentence(decoder, documents, source, target):
    """Documents (lists of sentences) -> a text for each: what `decoder` makes of its sentences."""
    sentences = []
    for document in documents:
        sentences.extend(document)
    outputs = iter(decoder(sentences, source, target))
    return [" ".join(islice(outputs, len(document))) for document in documents]


def parse_args(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("summarizer", help="the folder of a model that summarizes in the pivot language")
    add("translator", help="the folder of a model that translates to and from it")
    add("--pairs", nargs="+", required=True, metavar="SRC-TGT", help="rows, e.g. es_XX-es_XX")
    add("--pivot", default="en_XX", help="the language of the summarizer (default en_XX)")
    add("--data", metavar="SPEC", help="as train.py's (default: the summarizer's)")
    add("--examples", type=COUNT, default=200, help="test examples per pair (default 200)")
    add("--json", metavar="FILE", help="also write scores and outputs to this file")
    add("--device", type=device_name, help="cpu, cuda ... (default: a GPU if there is one)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    settings = read_settings(model_folder(args.summarizer, weights=False))
    data_spec = args.data or settings.get("data") or "builtin"
    check_spec(data_spec)
    if args.json:
        read = [args.summarizer, args.translator, folder_of(data_spec)]
        check_file_out(args.json, read=read)
    where = args.device or default_device()
    options = decoding_of("summarize")
    summarizer = evaluation.Decoder(model_folder(args.summarizer), where, **options)
    translator = evaluation.Decoder(model_folder(args.translator), where)
    pairs = split_pairs(args.pairs)
    asked = [args.pivot, *languages_of(pairs)]
    summarizer.tokenizer.check_languages(asked)
    translator.tokenizer.check_languages(asked)

    trained = evaluation.pairs_ever_trained(settings)
    print(
        f"{args.translator} around {args.summarizer}, to {args.pivot} and back, {data_spec}: "
        "score [95% bootstrap interval]"
    )
    pipeline = Pipeline(summarizer, translator, args.pivot)
    languages = summarizer.tokenizer.languages
    rows, signatures = evaluation.evaluate(
        pipeline,
        "summarize",
        data_spec,
        pairs,
        args.examples,
        languages,
        trained,
        asked=pairs,
        stem=True,
        tell_references=summarizer.tell_references,
    )
    print(evaluation.table(rows, evaluation.seen_pairs(settings, "summarize")))
    print("\n".join(signatures))
    print("\n" + evaluation.samples(rows))
    if args.json:
        report = evaluation.report_of(
            args.summarizer, summarizer, "summarize", data_spec, options, signatures, rows
        )
        report["translator"] = str(args.translator)  # so that no card takes it for one model's
        evaluation.write_report(args.json, report)


if __name__ == "__main__":
    run(main)
