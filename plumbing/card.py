"""What a run folder says of its model: README.md, which the Hugging Face hub shows as its card, and
log.svg, a picture of its training.

The head of the card is YAML with the keys of the hub's documentation (hub/model-cards). The rest
says from what, on what and how the model was trained, what it scores, and shows the lines that use
it. What is not known is called unknown or left out; paths of this machine are shortened.

Scores are those of card.json: what `eval.py --json` writes, without texts and outputs, which may
be somebody's.
"""
import re
import shlex
from pathlib import Path

from plumbing.files import UserError, read_json, write_json, write_text
from plumbing.hub import Repository
from plumbing.layout import layout_of
from plumbing.options import decoding_of, option_name
from plumbing.plots import save_figure
from plumbing.runs import (
    SIGN,
    is_ours,
    is_untrained,
    longest_input,
    read_log,
    read_settings,
    seen_in,
    shareable,
)

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
SIMPLE = re.compile(r"[\w.:/-]+")  # values that YAML reads as they are
PIPELINE_TAGS = {"translate": "translation", "summarize": "summarization"}  # the hub's
DOES = {
    "pretrain": "pretrained by denoising, and to be finetuned",
    "align": "trained to let translations meet in a middle layer, and to be finetuned",
    "translate": "finetuned to translate",
    "summarize": "finetuned to summarize",
}
HUB_DATA = {"xlsum": "csebuetnlp/xlsum", "wikilingua": "GEM/wiki_lingua"}
DATA = {
    "builtin": "the built-in corpus of qkbart, texts of a small grammar: its scores can be "
               "compared only with each other",
    "xlsum": "XL-Sum (Hasan et al. 2021), CC BY-NC-SA 4.0",
    "wikilingua": "WikiLingua (Ladhak et al. 2020), CC BY-NC-SA 3.0",
    "help": "LibreOffice's help, MPL 2.0, and descriptions of packages, under their own licences",
}
# The errors that come of reading scores out of something else.
BROKEN = (KeyError, TypeError, ValueError, AttributeError, IndexError)


def write_card(folder, licence=None, base_model=None, overwrite=False, picture=True):
    """Writes log.svg and README.md of a model folder.

    licence, base_model: the hub's identifiers, where the folder of the base does not tell. A
    README.md that somebody else wrote or edited stays, unless overwrite says otherwise. picture:
    draw log.svg too; else it stays as it is. Returns the names of what was written."""
    folder = Path(folder)
    written = []
    if picture and draw_log(folder):
        written.append("log.svg")
    if overwrite or is_ours(folder / "README.md"):
        text = card(folder, licence, base_model)
        write_text(folder / "README.md", text)
        written.append("README.md")
    return written


def card(folder, licence=None, base_model=None):
    """The text of a model folder's card."""
    settings = read_settings(folder)
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise UserError(f"{folder}: no config.json there; name a model folder")
    scores = read_scores(folder / "card.json")
    earlier = head_of(folder / "README.md")  # to which somebody may have added by hand
    base = head_of_base(settings.get("init"))
    base_model = base_model or earlier.get("base_model") or base.get("base_model")
    for source in (earlier, base):
        if licence is None and source.get("license", "unknown") != "unknown":
            licence = source["license"]
    parts = [
        head(settings, config, scores, licence, base_model),
        SIGN + "\n",
        f"# {shareable(folder.resolve())}\n",
        summary(settings),
        made_from(folder, settings, licence, base_model),
        usage(folder, settings, config, scores),
        results(settings, scores),
        training(folder, settings),
    ]
    return "\n".join(part for part in parts if part)


# -------------------------------------------------------------------------------------- the head

def head(settings, config, scores, licence, base_model):
    """The YAML part."""
    keys = {
        "language": sorted({code.split("_")[0] for code in languages(settings, scores)}),
        "license": licence or "unknown",
        "base_model": base_model,
        "library_name": "transformers" if is_mbart(config) else "qkbart",
        "pipeline_tag": PIPELINE_TAGS.get(settings.get("stage")),
        "tags": ["mbart", "qkbart"],
    }
    kind = str(settings.get("data")).partition(":")[0]
    if kind in HUB_DATA:
        keys["datasets"] = [HUB_DATA[kind]]
    lines = ["---"]
    for key, value in keys.items():
        if not value:
            continue
        if isinstance(value, list):
            lines.append(f"{key}:")
            lines += [f"- {each}" for each in value]
        else:
            lines.append(f"{key}: {value}")
    return "\n".join(lines + ["---\n"])


def head_of(path):
    """{key: value} of the keys in the head of a card that have one plain value, alone or as a list
    of one; {}: no card. A base_model that is no name on the hub is left out."""
    if path is None or not path.is_file():
        return {}
    import yaml  # late: most programs read no card; huggingface_hub brings it

    text = path.read_text(encoding="utf-8-sig", errors="replace")
    start, _, rest = text.partition("---\n")
    if start.strip() or "\n---" not in rest:
        return {}
    try:
        values = yaml.safe_load(rest.partition("\n---")[0])
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a date that there is not
        return {}
    if not isinstance(values, dict):
        return {}
    found = {}
    for key, value in values.items():
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, str) and SIMPLE.fullmatch(value):
            found[key] = value
    if not HUB_ID.fullmatch(found.get("base_model", "")):
        found.pop("base_model", None)
    return found


def head_of_base(init):
    """What the card of a run's base says of licence and origin, as head_of(); a base on the hub is
    itself the base_model."""
    if init is None:
        return {}
    if Path(init).is_dir():
        return head_of(Path(init) / "README.md")
    repository = Repository.named(init)
    if repository is None or not repository.is_pinned():  # a folder that is not here
        return {}
    return head_of(repository.cached("README.md")) | {"base_model": repository.name}


def languages(settings, scores):
    """The codes of the languages that a model was trained on and scored in."""
    codes = {}
    for pair in trained_on(settings):
        codes |= dict.fromkeys(pair.split("-"))
    for row in scores.get("rows", []):
        codes |= dict.fromkeys((row["source"], row["target"]))
    return list(codes)


def is_mbart(config):
    """Does transformers' mBART compute what this model does?"""
    return not config.get("residual_drop_layer") and config.get("source_vocab_size") is None


# -------------------------------------------------------------------------------------- its parts

def summary(settings):
    does = DOES.get(settings.get("stage"))
    if does is None:
        return "An mBART. How it was trained is unknown.\n"
    return (
        f"An mBART, {does} with qkbart, an implementation of *Zero-shot cross-lingual "
        "summarization* by finetuning queries and keys (Solovyev et al. 2024, arXiv 2404.05720).\n"
    )


def made_from(folder, settings, licence, base_model):
    """A table of how the model was made."""
    init = settings.get("init")
    base = "unknown"
    if settings.get("stage") == "pretrain":
        base = "none: it began with random weights"
    if init:
        base = f"`{shareable(init)}`"
        if base_model and not init.startswith(base_model):
            base += f", which was made from `{base_model}`"
    elif base_model:
        base = f"`{base_model}`"
    rows = {
        "base model": base,
        "licence of the base": licence or "unknown: see the base model",
        "trained on": pairs_in_words(trained_on(settings)),
        "recipe": recipe(settings),
        "data": data_in_words(settings.get("data")),
        "training": amount(folder, settings),
    }
    lines = ["| | |", "| --- | --- |"]
    for name, value in rows.items():
        if value:
            lines.append(table_row([name, value]))
    return "\n".join(lines) + "\n"


def table_row(cells):
    """A line of a Markdown table: a | within a cell, as a recipe may have it, ends no cell."""
    escaped = [str(text).replace("|", "\\|") for text in cells]
    return f"| {' | '.join(escaped)} |"


def trained_on(settings):
    """The pairs of a run, as en_XX-es_XX, that had examples."""
    pairs = settings.get("pairs") or []
    learned = settings.get("learned")
    if not learned:  # an earlier version's run, or a model that a tool has given new embeddings
        return pairs
    return [pair for pair in pairs if f"{settings.get('stage')} {pair}" in learned]


def pairs_in_words(pairs):
    if len(pairs) <= 6:
        return " ".join(pairs)
    codes = dict.fromkeys(code for pair in pairs for code in pair.split("-"))
    return f"{len(pairs)} pairs of {' '.join(codes)}"


def recipe(settings):
    """Which tensors train and the methods beside the task's loss; None if nothing tells."""
    if "recipe" not in settings:
        return None
    words = f"`{settings['recipe']}`"
    if settings.get("recipe_layers"):
        words += f" in layers {settings['recipe_layers']}"
    if settings.get("adversarial", "none") != "none":
        words += f", {settings['adversarial']} adversary of the encoder's states"
    if settings.get("tagless"):
        words += ", sources without a language tag"
    if settings.get("residual_drop"):
        words += f", no residual in encoder layer {settings['residual_drop']}"
    if settings.get("align_layer"):
        words += f", translations aligned in encoder layer {settings['align_layer']}"
    if settings.get("mix"):
        words += ", translations mixed into the summaries"
    return words


def data_in_words(spec):
    if not spec:
        return "unknown"
    kind = spec.partition(":")[0]
    known = DATA.get(kind, "own files, their licence unknown")
    return f"`{shareable(spec)}`: {known}"


def amount(folder, settings):
    """How long, how fast and in what precision; None if nothing tells."""
    if "steps" not in settings:
        return None
    if is_untrained(folder):
        return "none that was validated: the weights are those that the run began with"
    steps = settings["steps"]
    rows = read_log(folder / "log.csv")
    if rows:
        steps = rows[-1]["step"]
    batches = settings.get("accumulate", 1)
    return (
        f"{steps:,} updates of {batches} x {settings.get('tokens')} tokens at most, learning rate "
        f"{settings.get('lr')}, {settings.get('precision') or 'unknown precision'}, seed "
        f"{settings.get('seed')}; `args.json` has every setting"
    )


def usage(folder, settings, config, scores):
    """The lines that use the model; none for one that has no task yet."""
    stage = settings.get("stage")
    if stage not in PIPELINE_TAGS:
        return ""
    source, target = example_pair(settings, scores)
    options = decoding_of(stage) | scores.get("options", {})
    if is_mbart(config):
        words = "With transformers, in this folder (or with the model's name on the hub for `.`):"
        lines = with_transformers(folder, settings, config, options, source, target)
        language = "python"
    else:
        words = (
            "**This model is no plain mBART**: its encoder has a vocabulary of its own or lacks a "
            "residual. transformers would compute something else; use qkbart, in its folder:"
        )
        lines = with_this_project(folder, stage, options, source, target)
        language = "bash"
    return f"## Use\n\n{words}\n\n{fenced(language, lines)}\n"


def fenced(language, text):
    """A block of code in Markdown, whatever backticks the text has."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def example_pair(settings, scores):
    """(source, target) for the lines: the first pair scored or trained on, of translation one that
    is no copying."""
    pairs = [(row["source"], row["target"]) for row in scores.get("rows", [])]
    pairs += [tuple(pair.split("-")) for pair in trained_on(settings)]
    for source, target in pairs:
        if settings["stage"] == "summarize" or source != target:
            return source, target
    return pairs[0] if pairs else ("en_XX", "es_XX")


def with_transformers(folder, settings, config, options, source, target):
    """Python lines that give what eval.py gives with these options for article.txt."""
    positions = config["max_position_embeddings"]
    limit = longest_input(settings, positions)
    words = []
    if layout_of(folder) == "mbart50":
        words.append("forced_bos_token_id=tag")
    else:
        words.append("decoder_start_token_id=tag")
    words.append(f"num_beams={options['beam']}")
    words.append(f"max_new_tokens={min(options['max_new_tokens'], positions - 1)}")
    if options.get("min_new_tokens"):
        words.append(f"min_new_tokens={options['min_new_tokens']}")
    if options.get("length_penalty", 1.0) != 1.0:
        words.append(f"length_penalty={options['length_penalty']}")
    if options.get("early_stopping"):
        words.append("early_stopping=True")
    if options["no_repeat_ngram"]:
        words.append(f"no_repeat_ngram_size={options['no_repeat_ngram']}")
    imports = []
    reading = [
        f'source = tokenizer(text, truncation=True, max_length={limit}, return_tensors="pt")'
    ]
    if settings.get("tagless"):  # it was trained without the language tag that the tokenizer adds
        imports = ["import torch"]
        reading = [
            "pieces = tokenizer(text, add_special_tokens=False, truncation=True, "
            f"max_length={limit - 1})",
            'ids = torch.tensor([pieces["input_ids"] + [tokenizer.eos_token_id]])',
            'source = {"input_ids": ids}',
        ]
    lines = [
        *imports,
        "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained(".", src_lang="{source}")',
        'model = AutoModelForSeq2SeqLM.from_pretrained(".")',
        # On one line, as eval.py reads it.
        'text = " ".join(open("article.txt", encoding="utf-8").read().split())',
        *reading,
        f'tag = tokenizer.convert_tokens_to_ids("{target}")',
        f"output = model.generate(**source, {', '.join(words)})",
        "print(tokenizer.decode(output[0], skip_special_tokens=True))",
    ]
    return "\n".join(lines)


def with_this_project(folder, stage, options, source, target):
    """The command of eval.py."""
    words = [
        "python", "eval.py", "--model", str(shareable(folder.resolve())), "--stage", stage,
        "--source-lang", source, "--lang", target, "--file", "article.txt",
    ]
    for name, value in options.items():
        if not isinstance(value, bool):
            words += [option_name(name), str(value)]
        elif value:
            words.append(option_name(name))
    return shlex.join(words)


def results(settings, scores):
    """The table that eval.py printed."""
    if not scores:
        return "## Scores\n\nNot measured.\n"
    rows = scores["rows"]
    columns = list(rows[0]["scores"])
    lines = [
        "| source | target | " + " | ".join(columns) + " | n | |",
        "| --- | --- " + "| --- " * (len(columns) + 2) + "|",
    ]
    seen = seen_in(settings, scores["stage"])
    for row in rows:
        cells = [row["source"], row["target"]]
        cells += [cell(row["scores"][column], row["n"]) for column in columns]
        cells += [str(row["n"]), ", ".join(notes(row, seen))]
        lines.append(table_row(cells))
    table = "\n".join(lines)
    where = scores["data"]
    options = ", ".join(f"{name} {value}" for name, value in scores["options"].items())
    signatures = "\n".join(f"- {signature}" for signature in scores["signatures"])
    return (
        f"## Scores\n\nOf `eval.py` on the test examples of `{where}`, {options}; percent with "
        f"95% bootstrap intervals.\n\n{table}\n\n{signatures}\n"
    )


def cell(interval, count):
    if interval is None:
        return "–"
    value, low, high = interval
    if count == 1:
        return f"{value:.1f}"
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def notes(row, seen):
    """What the table says behind a row's numbers. seen: the pairs that are not zero-shot, as
    en_XX-es_XX; None: that is not known."""
    words = []
    for name, scores in row["floors"].items():
        words.append(f"R1 floor ({name}) {scores['R1'][0]:.1f}")
    if row["references"].get("off-target"):
        words.append(f"references off-target {row['references']['off-target'][0]:.1f}")
    if seen is not None and f"{row['source']}-{row['target']}" not in seen:
        words.append("zero-shot")
    return words


def training(folder, settings):
    """The command, the picture, and which files are to be handed on."""
    lines = ["## Training\n"]
    if not (folder / "log.csv").is_file() and not is_untrained(folder):
        lines.append(
            "This folder has no log.csv of its own: a tool may have made its weights from those of "
            "the run that is described here.\n"
        )
    command = settings.get("command")
    if command:
        program = ["python"]
        world = settings.get("world_size", 1)
        if world > 1:
            program = ["torchrun", "--standalone", "--nproc-per-node", str(world)]
        lines.append(fenced("bash", shlex.join([*program, "train.py", *command])) + "\n")
    if (folder / "log.svg").is_file():
        lines.append("![Losses, learning rate and watched scores over the updates](log.svg)\n")
    lines.append(
        "`state.pt` and `state.json` are for going on with the training on the machine where it "
        "began, `bad_batch.json` holds examples of the data: hand the folder on without them, "
        '`hf upload OWNER/NAME . --exclude "state.*" --exclude .lock --exclude bad_batch.json '
        '--exclude "*.tmp"`.\n'
    )
    return "\n".join(lines)


# ------------------------------------------------------------------------------------- the scores

def keep_scores(folder, report):
    """Writes card.json of a folder. report: eval.py's, as its --json writes it; KeyError, TypeError
    or another of BROKEN if it is something else."""
    if report["data"] is None:
        raise ValueError("a report of somebody's own text, which has no scores")
    if "translator" in report:
        raise ValueError("a report of papers.pipeline, which is of two models")
    kept = {
        "stage": report["stage"],
        "data": shareable(report["data"]),
        "options": report["options"],
        "signatures": report["signatures"],
        "rows": [],
    }
    for row in report["rows"]:
        names = ("source", "target", "n", "scores", "floors", "references")
        kept["rows"].append({name: row[name] for name in names})
    results({}, kept)  # raises one of BROKEN if anything is missing
    write_json(Path(folder) / "card.json", kept)


def read_scores(path):
    """card.json of a folder; {} where the model was not scored."""
    scores = read_json(path)
    if scores is None:
        return {}
    if not isinstance(scores, dict):
        raise UserError(f"{path}: not the scores of a model; remove it")
    try:
        results({}, scores)  # which reads all of it
    except BROKEN:
        raise UserError(f"{path}: not scores of eval.py; remove it") from None
    return scores


# ------------------------------------------------------------------------------------ the picture

def draw_log(folder):
    """Draws log.svg from log.csv and watch.csv. Returns whether it did: without a log or without
    matplotlib it cannot."""
    rows = read_log(folder / "log.csv")
    watched = read_log(folder / "watch.csv")
    if not rows:
        return False
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return False

    with matplotlib.rc_context({"svg.hashsalt": "qkbart", "font.size": 9}):
        height = 2 if watched else 1
        figure = Figure(figsize=(8, 3 * height), layout="constrained")
        axes = figure.subplots(height, 2).flatten()
        for name, label in (("loss", "training"), ("validation loss", "validation")):
            curve(axes[0], rows, name, label)
        axes[0].set_ylabel("loss per token")
        curve(axes[1], rows, "learning rate", "learning rate")
        axes[1].set_ylabel("learning rate")
        if watched:
            for pair in dict.fromkeys((row["source"], row["target"]) for row in watched):
                own = [row for row in watched if (row["source"], row["target"]) == pair]
                curve(axes[2], own, "score", "-".join(pair))
                curve(axes[3], own, "off-target", "-".join(pair))
            axes[2].set_ylabel(watched[0]["column"])
            axes[3].set_ylabel("off-target, %")
        for axis in axes:
            axis.set_xlabel("updates")
            axis.spines[["top", "right"]].set_visible(False)
        for axis in axes[::2]:
            axis.legend(frameon=False)
        save_figure(figure, folder / "log.svg")
    return True


def curve(axis, rows, name, label):
    """Draws a column of a log's rows over the updates."""
    axis.plot([row["step"] for row in rows], [row[name] for row in rows], "o-", ms=3, label=label)
