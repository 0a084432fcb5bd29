"""The command line: converters that refuse what makes no sense, and a dataclass that is a parser.

    @dataclass(kw_only=True)
    class Settings:
        steps: int = option("updates", type=COUNT)       its default is a preset's
        clip: float = option("gradient norm; 0: no clipping", 1.0, type=number(float, 0.0))
        overwrite: bool = option("replace a run folder", False)

    read_options(Settings, ["--steps", "40"])            {"steps": 40}, which alone was typed
"""
import argparse
import math
from dataclasses import MISSING, field, fields

import torch

from plumbing.files import INT32, UserError, parser_of


def number(kind, low, below=math.inf):
    """A converter for argparse: whole numbers or fractions from `low` on and under `below`; whole
    numbers without such a limit are under INT32."""
    limits = f"at least {low}"
    if below < math.inf:
        limits += f" and less than {below}"

    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            name = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {name}") from None
        if kind is int and below == math.inf and value >= INT32:
            raise argparse.ArgumentTypeError(f"must be less than {INT32}, not {text}")
        if not low <= value < below:
            raise argparse.ArgumentTypeError(f"must be {limits}, not {text}")
        return value

    return convert


TASKS = ("translate", "summarize")  # the stages whose outputs can be scored


def stage_of(settings, asked=None, untrained="translate"):
    """A model's task: the one asked for, else its run's by these settings; of a model that was
    trained for none: `untrained`."""
    if asked:
        return asked
    if settings.get("stage") in TASKS:
        return settings["stage"]
    return untrained


# How generate() decodes where nobody says otherwise (Solovyev et al. 2024, section 4).
DECODING = {
    "beam": 5,
    "max_new_tokens": 100,
    "min_new_tokens": 0,
    "length_penalty": 1.0,
    "early_stopping": False,
}
# No output says an n-gram of this length twice (appendix A there); 0: it may.
NO_REPEAT = {"translate": 0, "summarize": 3}

COUNT = number(int, 1)
SEED = number(int, 0, 2**32)  # SentencePiece's has 32 bits, torch's and NumPy's have more
SHARE = number(float, 0.0, 1.0)
POSITIVE = number(float, 1e-15)


def device_name(text):
    """A converter for argparse: a device that this machine has."""
    try:
        found = torch.device(text)
    except RuntimeError:
        message = f"{text!r} is no device; say cpu, cuda or cuda:1"
        raise argparse.ArgumentTypeError(message) from None
    if found.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is not supported; say cpu, cuda or cuda:1")
    count = torch.cuda.device_count()
    if found.type == "cuda" and (found.index or 0) >= count:
        raise argparse.ArgumentTypeError(f"this machine has {count} GPUs, so no {text}")
    return text


def decoding_of(stage):
    """generate's options for a stage's outputs, where nobody says others."""
    return DECODING | {"no_repeat_ngram": NO_REPEAT[stage]}


def default_device():
    """The device where nobody named one: a GPU if there is any."""
    if torch.cuda.is_available():
        return "cuda"
    return "cpu"


AMPERE = 8  # the first of NVIDIA's generations that computes bf16


def default_precision(device):
    """The type of the arithmetic where nobody named one: half precision on a GPU. One that computes
    bf16 in other types (before NVIDIA's Ampere) would be slower with it than with fp32."""
    if torch.device(device).type != "cuda":
        return "fp32"
    if torch.version.hip:  # AMD's GPUs, which are numbered otherwise
        return "bf16"
    # Of this GPU: torch.cuda.is_bf16_supported() asks the current one alone.
    if torch.cuda.get_device_properties(torch.device(device)).major >= AMPERE:
        return "bf16"
    return "fp16"


def option_name(name):
    """lora_rank -> --lora-rank."""
    return "--" + name.replace("_", "-")


def option(meaning, default=MISSING, **keywords):
    """A field of a dataclass of options: what it means, its default and more keywords for argparse.

    Without a default it is one that a preset must give."""
    return field(default=default, metadata={"meaning": meaning, "keywords": keywords})


def read_options(options, argv=None, doc=""):
    """What was typed, {name: value}, on a command line with the options of a dataclass.

    argv: the words, by default the program's; doc: what --help says before and behind them."""
    parser = parser_of(doc, argument_default=argparse.SUPPRESS)
    for option_field in fields(options):
        keywords = dict(option_field.metadata["keywords"])
        if option_field.type is bool:
            keywords["action"] = "store_true"
        keywords["help"] = option_field.metadata["meaning"] + default_in_words(option_field)
        parser.add_argument(option_name(option_field.name), **keywords)
    return vars(parser.parse_args(argv))


def check_saved(options, values, where):
    """UserError if {name: value}, read from the file `where`, has what no command line gives for
    the options of a dataclass."""
    for option_field in fields(options):
        name = option_field.name
        if name in values and not fits_option(option_field, values[name]):
            value = repr(values[name])[:60]
            raise UserError(f"{where}: {name} is {value}, which --help does not offer")


def fits_option(option_field, value):
    """Can a field of a dataclass of options have this value?"""
    keywords = option_field.metadata["keywords"]
    if value is None:
        return option_field.default is None
    if option_field.type is bool:
        return isinstance(value, bool)
    if "nargs" not in keywords:
        return fits_single(option_field.type, value, keywords)
    count = keywords["nargs"]
    if not isinstance(value, list | tuple) or (isinstance(count, int) and len(value) != count):
        return False
    return all(fits_list_item(item, keywords) for item in value)


def fits_single(kind, value, keywords):
    """Is a saved value of this kind, and one that the option's choices and converter allow?"""
    kinds = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, kinds):
        return False
    if "choices" in keywords:
        return value in keywords["choices"]
    if kind is str or "type" not in keywords:  # a device may be another machine's
        return True
    try:
        keywords["type"](str(value))
    except argparse.ArgumentTypeError:
        return False
    return True


def fits_list_item(value, keywords):
    """Is this what the option's converter makes of one item of a list?"""
    convert = keywords.get("type", str)
    try:
        return convert(str(value)) == value and value in keywords.get("choices", [value])
    except (argparse.ArgumentTypeError, TypeError, ValueError):
        return False


def default_in_words(option_field):
    """What --help says behind an option's meaning; the meaning itself explains a None."""
    default = option_field.default
    if default is MISSING:
        return " (default: the preset's)"
    if default is None or option_field.type is bool:
        return ""
    if isinstance(default, tuple):
        return f" (default: {' '.join(map(str, default))})"
    return f" (default: {default})"
