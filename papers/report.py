"""RESULTS.md, and CLAIMS.md with the evidence, out of the scores that reproduce.sh leaves in
papers/scores/:

    python -m papers.report
    python -m papers.report --best-rate results/rate-qk-*.json     the best learning rate
"""
from pathlib import Path

from papers.claims import claims
from papers.findings import findings
from papers.pictures import pictures
from papers.scores import (
    ACROSS,
    BUILT_IN,
    FEW_SHOT,
    HELP,
    JOINT,
    JOINT_ALIGNED,
    SCORES,
    UNSEEN_TARGET,
    WITHIN,
    best_rate,
    check_test_sets,
    doubtful_files,
    english_only,
    of_corpus,
    results,
    same_size,
)
from papers.tables import (
    adversary_table,
    both_sides_table,
    children_table,
    description_table,
    evidence_table,
    few_sentences_table,
    freezing_table,
    help_retrieval_table,
    novel_table,
    off_target_references,
    probe_table,
    rate_lines,
    recipe_sizes,
    retrieval_table,
    robustness_table,
    score_table,
    slip_table,
    summary_table,
    translation_table,
    verdict_table,
)
from papers.words import (
    ABOUT_ALIGNMENT,
    ABOUT_BOTH_SIDES,
    ABOUT_CHILDREN,
    ABOUT_CLAIM_BY_CLAIM,
    ABOUT_CLAIMS,
    ABOUT_DESCRIPTIONS,
    ABOUT_FEW_SENTENCES,
    ABOUT_FEW_SHOT,
    ABOUT_FREEZING,
    ABOUT_HELP,
    ABOUT_HELP_JOINT,
    ABOUT_HELP_RETRIEVAL,
    ABOUT_LORA,
    ABOUT_NOVEL,
    ABOUT_PROBES,
    ABOUT_QK_AND_ADVERSARY,
    ABOUT_ROBUSTNESS,
    ABOUT_SLIPS,
    ABOUT_TABLES,
    ABOUT_TRANSLATION,
    ABOUT_UNSEEN_TARGET,
    ABOUT_VERDICTS,
    DIFFERENCES,
    INTERPRETATIONS,
    INTRODUCTION,
)
from plumbing.files import UserError, note, parser_of, run, write_text


def write(path):
    """Draws the pictures and writes both pages from all that papers/scores/ holds."""
    if not list(SCORES.glob("*.json")):
        raise UserError(f"{SCORES}/ has no scores yet; run papers/reproduce.sh first")
    for line in doubtful_files():
        note(line)
    check_test_sets(SCORES.glob("*.json"))
    found = claims()
    write_text(path, results_page(found, pictures()))
    evidence = path.with_name("CLAIMS.md")
    write_text(evidence, claims_page(found))
    print(f"{path} and {evidence} are written")
    for corpus, claims_of in found.items():
        supported = sum(claim.verdict.startswith("supported") for claim in claims_of)
        print(f"{corpus}: {supported} of {len(claims_of)} claims supported")


def claims_page(found):
    parts = ["# The claims and what they rest on", "## Claim by claim", ABOUT_CLAIM_BY_CLAIM]
    parts += [verdict_table(found), "## How a verdict is reached", ABOUT_CLAIMS]
    for corpus, claims_of in found.items():
        parts += [f"## On the {corpus}", evidence_table(claims_of)]
    return "\n\n".join(parts) + "\n"


def images(shown, *names):
    """The markdown of these pictures, of those that were drawn; shown: {name: markdown}."""
    return "\n".join(shown[name] for name in names if name in shown)


def results_page(found, shown):
    """RESULTS.md as a text, from the claims found and the pictures shown ({name: markdown})."""
    parts = ["# Results", INTRODUCTION, "## What was found"]
    for text, picture in findings():
        parts += [text, images(shown, picture)]
    parts += [
        "## Verdicts on the papers' claims, and on some of ours",
        ABOUT_VERDICTS,
        summary_table(found),
        "# The tables",
        ABOUT_TABLES,
        *built_in(shown),
        *real_text(),
        *open_questions(shown),
        "## Where these runs differ from the papers'",
        DIFFERENCES,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def built_in(shown):
    """The papers' tables on the built-in corpus; nothing before the first of them is there."""
    if not english_only():
        return []
    return [
        "## Trained on English alone, asked within each language",
        "400 updates. Validation loss on English by learning rate (of seed 0), in brackets the "
        "share of zero-shot outputs in another language (of all seeds that ran for this choice; "
        "the five other recipes' rows at 4e-3, below, are of runs of their own):",
        rate_lines(),
        score_table(english_only(), WITHIN, BUILT_IN),
        images(shown, "zero_shot", "steps"),
        "### Words of its own",
        ABOUT_NOVEL,
        novel_table(BUILT_IN),
        "### A few Spanish examples on top",
        ABOUT_FEW_SHOT,
        score_table(FEW_SHOT, WITHIN[1:2]),
        "## Trained within English, Spanish and Russian, asked across languages "
        "(no Turkish summaries)",
        score_table(JOINT, ACROSS, BUILT_IN),
        "## What the layers know of the source language",
        ABOUT_PROBES,
        probe_table(),
        images(shown, "probing"),
        "## New languages: cross-attention transfer",
        ABOUT_CHILDREN,
        children_table(),
        "### What a recipe stores (bytes, float32; `lora` as it is saved, merged)",
        f"```\n{recipe_sizes()}\n```",
        "## Middle-layer alignment",
        ABOUT_ALIGNMENT,
        score_table(JOINT_ALIGNED, ACROSS),
        "Translation retrieval, % right among 200 documents:",
        retrieval_table(),
    ]


def real_text():
    """The first paper's tables on LibreOffice's help; nothing before the first of them is there."""
    if not english_only(HELP):
        return []
    joint = [of_corpus(row, HELP) for row in JOINT]
    joint = [row for row in joint if results(row.name)]
    return [
        "## Real text: trained on English alone",
        ABOUT_HELP,
        rate_lines(HELP),
        score_table(english_only(HELP), HELP.within, HELP),
        "### Words of its own, in headings",
        novel_table(HELP),
        "### Most of what was learned: descriptions of packages",
        ABOUT_DESCRIPTIONS,
        description_table(),
        "### What a forgetting model writes",
        ABOUT_SLIPS.format(of_references=off_target_references(HELP)),
        slip_table({"`full`": HELP.row("full"), "`full+embeddings`": "help-full+embeddings"}),
        "## Real text: trained within English, Spanish and Russian, asked across languages",
        ABOUT_HELP_JOINT,
        score_table(joint, ACROSS, HELP),
        "### What the layers know",
        probe_table(HELP),
        ABOUT_HELP_RETRIEVAL,
        help_retrieval_table(),
    ]


def open_questions(shown):
    """The parts of RESULTS.md that no paper has: a question, its table and what it means. Nothing
    before the papers' own tables are there."""
    if not english_only():
        return []
    meaning = INTERPRETATIONS
    return [
        "## Open questions",
        "### How little may train?",
        ABOUT_FREEZING,
        freezing_table(),
        images(shown, "parameters"),
        meaning["freezing"],
        "### Is it which parameters train, or how many?",
        ABOUT_LORA,
        score_table(same_size(), WITHIN),
        meaning["lora"],
        "### Translation as the task",
        ABOUT_TRANSLATION,
        translation_table(),
        meaning["translation"],
        "### `qk` and the adversary, two by two",
        ABOUT_QK_AND_ADVERSARY,
        adversary_table(),
        meaning["qk and adversary"],
        "### What keeps an unseen target language?",
        ABOUT_UNSEEN_TARGET,
        score_table(UNSEEN_TARGET, ACROSS),
        meaning["unseen target"],
        "### Which layer and which languages to align?",
        ABOUT_ROBUSTNESS,
        robustness_table(),
        images(shown, "alignment"),
        meaning["robustness"],
        "### Both sides new at once",
        ABOUT_BOTH_SIDES,
        both_sides_table(),
        meaning["both sides"],
        "### How few sentences does a new language need?",
        ABOUT_FEW_SENTENCES,
        few_sentences_table(),
        images(shown, "few_sentences"),
        meaning["few sentences"],
    ]


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument(
        "--best-rate",
        nargs="+",
        metavar="FILE",
        help="print the best learning rate of these score files, and write nothing",
    )
    args = parser.parse_args(argv)
    if args.best_rate:
        print(best_rate(args.best_rate).best)
    else:
        write(Path("papers/RESULTS.md"))


if __name__ == "__main__":
    run(main)
