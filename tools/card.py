"""The model card of a run folder: README.md as the Hugging Face hub reads it, and log.svg.

    python -m tools.card runs/summarize
    python -m tools.card runs/summarize --licence mit --base-model facebook/mbart-large-cc25
    python eval.py --model runs/summarize --lang tr_TR --json tr.json
    python -m tools.card runs/summarize --scores tr.json        with these scores in the table

train.py writes both when it ends, log.svg where matplotlib is installed; this is for folders that
have none, for other scores, and for what only you know. The paths of this machine that args.json
has are moved to state.json, which is not for others. The card itself says how to upload the folder.
"""
import re
from pathlib import Path

from eval import validation_loss_of
from plumbing.card import BROKEN, HUB_ID, keep_scores, write_card
from plumbing.files import UserError, parser_of, read_json, run, same_place
from plumbing.runs import is_ours, read_settings, write_settings

LICENCE = re.compile(r"[\w.-]+", re.ASCII)


def parse_args(argv=None):
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("folder", metavar="RUN", help="a model folder")
    add("--scores", metavar="FILE", help="what `eval.py --json FILE` wrote of this model")
    add("--licence", metavar="ID", help="the base's, as the hub has it: mit, apache-2.0, other ...")
    add("--base-model", metavar="OWNER/NAME", help="the model of the hub that it was made from")
    add("--overwrite", action="store_true", help="replace a README.md that is not ours, or edited")
    args = parser.parse_args(argv)
    if args.licence and not LICENCE.fullmatch(args.licence):
        raise UserError(f"--licence {args.licence!r}: name it as the hub does, e.g. mit")
    if args.base_model and not HUB_ID.fullmatch(args.base_model):
        raise UserError(f"--base-model {args.base_model!r}: write OWNER/NAME, as on the hub")
    return args


def take_scores(file, folder):
    """Gives a folder the scores of a file; UserError if they are another model's, or none."""
    report = read_json(file)
    if report is None:
        raise UserError(f"--scores {file}: not found")
    try:
        model = str(report["model"])
        if not same_place(model, folder):
            raise UserError(f"--scores {file}: is of {model}, not of {folder}")
        # None of published weights, and of a run before its first validation.
        loss = "validation loss"
        if loss in report and report[loss] != validation_loss_of(folder):
            raise UserError(
                f"--scores {file}: is of a model that was in {folder} before it was trained anew; "
                "run eval.py --json again"
            )
        keep_scores(folder, report)
    except UserError:
        raise  # which is a ValueError
    except BROKEN:
        raise UserError(
            f"--scores {file}: no scores of a test set; `eval.py --json` writes them"
        ) from None


def main(argv=None):
    args = parse_args(argv)
    folder = Path(args.folder)
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json there; name a model folder")
    card = folder / "README.md"
    if not is_ours(card) and not args.overwrite:
        raise UserError(f"{card} was written or edited by somebody; --overwrite replaces it")
    if args.scores:
        take_scores(args.scores, folder)
    settings = read_settings(folder)
    if (folder / "args.json").is_file():
        write_settings(folder, settings)
    written = write_card(folder, args.licence, args.base_model, args.overwrite)
    print(f"{folder}: wrote {' and '.join(written)}")


if __name__ == "__main__":
    run(main)
