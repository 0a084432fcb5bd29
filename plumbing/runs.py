"""What a training run needs around its loop: its folder's files, its signals and its processes.

A run folder has, beside the model, args.json (its settings), log.csv (a line a validation),
watch.csv (scores at validations, if asked), state.pt (what a resume needs), state.json (paths of
this machine), .lock (locked while it trains), bad_batch.json (after a loss that is no number); and
in the end what describes its model: README.md, log.svg, card.json (plumbing/card.py).
"""
import csv
import json
import math
import os
import re
import signal
import sys
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path, PurePath

import torch
import torch.distributed as dist

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None

from plumbing.files import (
    UserError,
    beside_python,
    first_line,
    is_full_memory,
    make_folder,
    note,
    quoted,
    read_json,
    saving,
    size_and_checksum,
    unreadable,
    write_json,
)
from plumbing.layout import TOKENIZER_FILES
from plumbing.models import model_folder, parts_of, weights_file
from plumbing.progress import progress_line, say, say_on_the_way
from plumbing.weights import checksum

RUN_FORMAT = 9  # of args.json, state.pt, an update and what validates; only its own is resumed
PATHS = ("init", "out", "data")  # the settings that may name this machine's folders
SIGN = "<!-- Written by qkbart; without this line the file stays as you edit it. -->"
LOG_COLUMNS = {
    "log.csv": ("step", "loss", "validation loss", "tokens/s", "learning rate"),
    "watch.csv": ("step", "source", "target", "column", "score", "off-target"),
}
# Settings that would mislead in another form; a folder may lack any. A list's entries are texts.
KIND_OF_SETTING = {
    "stage": str,
    "init": str,
    "out": str,
    "data": str,
    "recipe": str,
    "steps": int,
    "max_length": int,
    "tagless": bool,
    "langs": list,
    "pairs": list,
    "align_pairs": list,
    "mix_pairs": list,
    "learned": list,
    "fresh": list | str,
    "sources": list,
    "world_size": int,
    "command": list,
}
# The files beside the model that tell of the run which made it.
OF_A_RUN = ("state.pt", "state.json", "args.json", "bad_batch.json", *LOG_COLUMNS)
DESCRIPTIONS = ("card.json", "log.svg")  # of a model, beside its card README.md
BUCKET = 2**23  # numbers that are added up over the processes in one call: 32 MiB in float32


# --------------------------------------------------------------------------------------- files

def read_public_settings(folder):
    """args.json of a run folder; {} where there is none, as in a folder of published weights."""
    path = Path(folder) / "args.json"
    settings = read_json(path)
    if settings is None and not path.is_file():
        return {}
    if not isinstance(settings, dict):
        raise UserError(f"{path}: not the settings of a run; mend or remove it")
    check_kinds(path, settings)
    return settings


def check_kinds(path, settings):
    """UserError where a file of settings has one in a form that no run writes."""
    for name, kind in KIND_OF_SETTING.items():
        value = settings.get(name)
        fits = value is None or isinstance(value, kind)
        if isinstance(value, bool) and kind is not bool:  # which Python takes for a whole number
            fits = False
        if fits and isinstance(value, list):
            fits = all(isinstance(word, str) for word in value)
        if fits and value and name in ("pairs", "align_pairs", "mix_pairs"):
            fits = all(pair.count("-") == 1 for pair in value)
        if not fits:
            raise UserError(f"{path}: {name} is {value!r}, which no run writes; mend or remove it")


def read_settings(folder):
    """The settings of a run folder, with this machine's own paths; {} where there are none."""
    settings = read_public_settings(folder)
    path = Path(folder) / "state.json"
    paths = read_json(path) or {}
    if not isinstance(paths, dict):
        raise UserError(f"{path}: not the paths of a run; remove it")
    check_kinds(path, paths)
    return settings | paths


def write_settings(folder, settings):
    """Writes args.json, which may be handed on; the paths that may not go to state.json."""
    folder = Path(folder)
    public = dict(settings)
    paths = {}
    for name in PATHS:
        if name in settings:
            public[name] = shareable(settings[name])
        if public.get(name) != settings.get(name):
            paths[name] = settings[name]
    if paths:
        write_json(folder / "state.json", paths)
    write_json(folder / "args.json", public)
    if not paths:  # not before: on a full disk the paths would be gone, and args.json as it was
        (folder / "state.json").unlink(missing_ok=True)


def origin_of(folder, weights=None):
    """Which base a model was finetuned from: [bytes, CRC-32] of each file of that base's weights;
    a base's own origin is itself. None: a run of an earlier version, which does not say.

    args.json has it of what train.py and the tools made; pretraining alone makes a new base.
    weights: weights_of(folder), where they were read already."""
    settings = read_settings(folder)
    if "origin" in settings:
        return settings["origin"]
    if settings.get("stage", "pretrain") != "pretrain":
        return None
    return weights or weights_of(folder)


def weights_of(folder):
    """[bytes, CRC-32] of each file of a folder's weights."""
    return [size_and_checksum(path) for path in parts_of(weights_file(folder))]


def is_still(folder, settings):
    """Has a folder the model that the run of these settings began from? Runs of earlier versions
    say of which base that was alone, the oldest not even that: then it may have."""
    if "init_weights" in settings:
        return settings["init_weights"] == weights_of(folder)
    origin = settings.get("origin")
    return origin is None or origin == origin_of(folder)


def learned_in(settings, stage):
    """The pairs, as en_XX-es_XX, that a model has learned in a stage, by its own run and by the
    runs of ours before it. Of an earlier version's run, whose args.json does not say, its own."""
    found = settings.get("learned")
    pairs = []
    if found is not None:
        prefix = f"{stage} "
        for entry in found:
            if entry.startswith(prefix):
                pairs.append(entry.removeprefix(prefix))
    elif settings.get("stage") == stage:
        pairs = settings.get("pairs") or []
    return [pair for pair in pairs if pair.count("-") == 1]


def has_new_source(settings):
    """Has the encoder a vocabulary of those languages alone that it was trained on? tools and runs
    say so; of earlier versions' runs their recipe tells."""
    if "new_source" in settings:
        return settings["new_source"] is True
    return str(settings.get("recipe")).startswith(("src", "both"))


def seen_in(settings, stage):
    """The pairs, as en_XX-es_XX, that are not zero-shot for a model. None if that is not known: of
    published weights, of a summarizer that is to translate, and of an old run without its pairs."""
    own = settings.get("stage")
    if own is None:
        return None
    if own == "summarize" and stage != own:
        return None
    if own == stage and "learned" not in settings and not settings.get("pairs"):
        return None
    return learned_in(settings, stage)


def longest_input(settings, positions):
    """The longest text, in tokens, that a model reads: no longer than those that it was trained on
    (--max-length), and than it has positions for."""
    longest = settings.get("max_length")
    if longest is not None and longest > 0:
        return min(positions, longest)
    return positions


def shareable(value):
    """A path, KIND:PATH or a list of words of a command line as others may read it.

    Of a path that begins at the root, leads upwards or names the user, only the last part stays."""
    if value is None:
        return None
    if isinstance(value, list):
        return [shareable(word) for word in value]
    # --option= and KIND: stay as they are; what follows them may be a path. (c: is a drive.)
    pattern = r"((?:--[\w-]+=)?(?:[a-z]{2,}:)?)(.*)"
    prefix, path = re.fullmatch(pattern, str(value), re.DOTALL).groups()
    users = {os.environ.get("USER"), os.environ.get("LOGNAME")}
    try:
        users.add(Path.home().name)
    except RuntimeError:  # a user of a container may have no home
        pass
    parts = PurePath(path).parts
    is_private = PurePath(path).is_absolute() or ".." in parts or users & set(parts)
    if not is_private:
        return str(value)
    name = PurePath(path).name
    if name in users or name in ("", ".."):
        name = "FOLDER"
    return prefix + name


def is_ours(path):
    """May the card `path` be replaced? Not if somebody else wrote or edited it."""
    return not path.exists() or SIGN in path.read_text(encoding="utf-8", errors="replace")


def file_in_the_way(folder):
    """The name of a file that a new run in this folder, which has no model, would remove or
    replace; None if there is none, or all is of a run of ours that ended before it had a model."""
    of_a_model = ("model.safetensors", "generation_config.json", *TOKENIZER_FILES)
    names = (*OF_A_RUN, *DESCRIPTIONS, *of_a_model)
    there = [name for name in names if os.path.exists(Path(folder) / name)]
    if not there or "run_format" in read_settings(folder):
        return None
    return there[0]


def remove_descriptions(folder):
    """Removes what describes a model that is about to be replaced."""
    folder = Path(folder)
    names = list(DESCRIPTIONS)
    if is_ours(folder / "README.md"):
        names.append("README.md")
    for name in names:
        (folder / name).unlink(missing_ok=True)


def latest_run(stages):
    """The folder of the newest run in runs/ of one of these stages that has a model; one whose
    embeddings tools.new_language has drawn is no run yet."""
    folders = []
    for path in Path("runs").glob("*/args.json"):
        settings = read_settings(path.parent)
        trained = settings.get("stage") in stages and not settings.get("fresh")
        if trained and (path.parent / "config.json").exists():
            folders.append(path.parent)
    if not folders:
        raise UserError(
            f"there is no run in runs/ yet; run `{beside_python()} train.py --stage translate` "
            "first (some minutes on two CPU cores), or name a model with --model FOLDER"
        )
    return max(folders, key=time_of_last_save)


def time_of_last_save(folder):
    """When a run was last saved. Not by args.json, which tools.card writes anew."""
    saved = [folder / "config.json", folder / "state.pt"]
    return max(path.stat().st_mtime for path in saved if path.exists())


def is_untrained(folder):
    """Has no validation of a run had a loss that is a number? Its model is still the one that the
    run began with then; its updates, if there were any, wait in state.pt."""
    folder = Path(folder)
    if not (folder / "args.json").is_file():  # no run of ours, whatever its files are called
        return False
    log = folder / "log.csv"
    if not log.is_file():  # a base; or a run of an earlier version, which had no heading at first
        return (folder / "state.pt").is_file()
    return not any(math.isfinite(row["validation loss"]) for row in read_log(log))


def tell_untrained(name, folder):
    """A note where is_untrained(folder): it still trains, or ended too early.

    name: what the note calls the model."""
    if not is_untrained(folder):
        return
    if is_training(folder):
        note(
            f"{name} is training, and its model is still the one that it began with: no validation "
            "yet, or none whose loss is a number"
        )
        return
    mend = f"`{beside_python()} train.py --resume {quoted(name)}` goes on"
    if not (Path(folder) / "state.pt").is_file():
        mend = "nothing of it was saved, so start it anew"
    note(
        f"{name} ended before its first validation, or its loss was no number, and its model is "
        f"the one that it began with: {mend}"
    )


@contextmanager
def only_run_in(folder):
    """Holds a folder for one training run; the system lets go however the process ends.

    On Windows nothing is locked: there the user must see to it that no two runs share a folder."""
    if fcntl is None:
        yield
        return
    folder = Path(folder)
    is_new = not os.path.isdir(folder)
    make_folder(folder)
    with open_lock(folder / ".lock") as file:
        try:
            if not take_lock(file):
                raise UserError(
                    f"{folder}: another run is training into this folder; wait for it, or name "
                    "another with --out"
                )
        except OSError as error:  # as Lustre is often mounted
            note(
                f"{folder}: its disk holds no locks ({error.strerror}): see to it that no other "
                "run trains into this folder"
            )
        try:
            yield
        finally:
            # A run that did not begin leaves nothing. What the system refuses here must not hide
            # why it did not.
            with suppress(OSError):
                names = [path.name for path in folder.iterdir()]
                if names == [".lock"]:
                    os.remove(folder / ".lock")
                    if is_new:
                        os.rmdir(folder)


def is_training(folder):
    """Does a training run hold this folder now?"""
    lock = Path(folder) / ".lock"
    if fcntl is None or not lock.exists():
        return False
    try:
        with open(lock) as file:
            return not take_lock(file)
    except OSError:  # somebody else's folder, or a disk that holds no locks
        return False


def take_lock(file):
    """Locks an open file until it is closed; False if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def open_lock(path):
    try:
        return open(path, "w")
    except OSError as error:
        raise UserError(
            f"{path.parent}: nothing can be written there ({error.strerror}); mend the "
            "permissions, or begin a run in another folder with --out"
        ) from None


class Log:
    """log.csv, watch.csv: lines for every validation; a resumed run drops those after its
    checkpoint."""

    def __init__(self, path, step=0):
        self.path = path
        self.rows = []
        if not step:
            return
        for row in read_log(path):
            if row["step"] <= step:
                self.rows.append(list(row.values()))

    def write(self, *row):
        self.rows.append(row)
        self.write_rows()

    def write_rows(self):
        with saving(self.path) as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([LOG_COLUMNS[self.path.name], *self.rows])


def read_log(path):
    """The lines of log.csv or watch.csv: [{column: number, or text}]; [] if there is none. An
    off-target that is not known is None.

    UserError that names the first line that no run would write; empty ones are passed over."""
    if not path.is_file():
        return []
    columns = LOG_COLUMNS[path.name]
    rows = []
    # A spreadsheet that saved it may have put a mark in front, or letters of another encoding in.
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            if not set(columns) <= set(reader.fieldnames or []):
                raise ValueError("a column is missing")
            for line in reader:
                if None in line or None in line.values():
                    raise ValueError("a cell too many, or too few")
                rows.append({name: logged(name, line[name]) for name in columns})
        except (csv.Error, ValueError):
            raise UserError(
                f"{path}:{max(1, reader.line_num)}: not the log of a run, with the columns "
                f"{','.join(columns)}; mend this line, or remove the file"
            ) from None
    return rows


def logged(name, text):
    """A cell's value; ValueError if it is no number where there should be one."""
    if name in ("source", "target", "column"):
        return text
    if name == "off-target" and not text:  # of a language that the identifier does not know
        return None
    number = float(text)
    if name != "step":
        return number
    if not number.is_integer():
        raise ValueError("a step that is no whole number")
    return int(number)


def write_state(state, path):
    """Everything that a resume needs beside the folder's model, as one file."""
    with saving(path) as temporary:
        torch.save(state, temporary)


def read_state(path):
    """What write_state wrote, its tensors in main memory; UserError if it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            changed = archive.testzip()
        if changed is not None:  # torch reads on over a flipped bit; the archive's checksums do not
            raise ValueError(f"checksum of {changed}")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(
            f"{path}: not found; if the run was stopped before its first checkpoint, start it "
            f"again with --overwrite; if a tool made {path.parent}, train from it with --init"
        ) from None
    except PermissionError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # a damaged archive raises many kinds
        if is_full_memory(error):
            raise
        raise UserError(
            f"{path}: damaged ({first_line(error, 100)}); the last best model in {path.parent} is "
            "whole: use it with --init"
        ) from None


# -------------------------------------------------------------------------------- a run's state

@dataclass
class Progress:
    """How far a run is."""
    step: int = 0           # updates done
    start: float = math.inf  # validation loss before training
    best: float = math.inf  # lowest validation loss
    bad: int = 0            # validations in a row that were no lower
    seconds: float = 0.0    # of training
    loss: float = 0.0       # summed over the label tokens since the last line of the log
    tokens: int = 0         # how many these were
    overflows: int = 0      # steps left out because fp16 overflowed
    diverged: bool = False  # was the last validation's loss no number?

    def updated(self, mean_loss, tokens, is_skipped):
        """Takes in an update: the mean loss of so many label tokens; was the step left out?"""
        self.step += 1
        self.loss += mean_loss * tokens
        self.tokens += tokens
        if is_skipped:
            self.overflows += 1

    def validated(self, loss, seconds):
        """Takes in a validation's loss after so many seconds of training; is it the lowest?"""
        better = loss < self.best
        self.diverged = not math.isfinite(loss)
        if better:
            self.best = loss
            self.bad = 0
        else:
            self.bad += 1
        self.seconds += seconds
        return better

    def take_mean_loss(self):
        """The mean loss of the updates since this was last called, for a line of the log."""
        mean_loss = self.loss / self.tokens
        self.loss = 0.0
        self.tokens = 0
        return mean_loss


class Settled:
    """What stays as it was when a run began: its options, and the weights that do not train. Part
    of a run's state: loading a state that had others is a UserError, for then args.json, state.pt
    and model.safetensors are not of one run."""

    def __init__(self, options, model, folder):
        """options: {name: value}; folder: the run's."""
        self.options = json.loads(json.dumps(options))  # as args.json gives them back
        self.folder = Path(folder)
        frozen = model.state_dict()
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                del frozen[name]
        self.frozen = checksum(frozen)

    def state_dict(self):
        return {"options": self.options, "frozen": self.frozen}

    def load_state_dict(self, state):
        mend = f"put it back as it was, or start another run from this model: --init {self.folder}"
        for name, value in self.options.items():
            before = state["options"].get(name, value)  # an option of a later version
            if before != value:
                raise UserError(
                    f"{self.folder / 'args.json'}: {name} is {value}, but state.pt was saved with "
                    f"{before}: one of the two files is another run's, or was edited; {mend}"
                )
        if state["frozen"] != self.frozen:
            raise UserError(
                f"{self.folder / 'model.safetensors'}: weights that this run does not train are "
                "others than when state.pt was saved: one of the two files is another run's, or "
                f"was edited; {mend}"
            )


class Run:
    """A training run's folder, its progress and what it says.

    Of several processes the first writes and speaks; the others take the same steps in silence."""

    def __init__(self, settings, main_process=True, command=None):
        """settings: train.py's Settings, of which data, eval_every, init, keep, out, pairs, stage
        and steps are read. command: the words that began the run."""
        self.settings = settings
        self.command = command
        self.main_process = main_process
        self.folder = Path(settings.out)
        self.progress = Progress()
        self.log = Log(self.folder / "log.csv")
        self.watch_log = Log(self.folder / "watch.csv")

    def say(self, text):
        if self.main_process:
            say(text)

    def begin(self, model, tokenizer, merged_state, world, learned):
        """Writes the folder of a new run: the model as it starts, and the settings.

        merged_state: see save_model(). learned: "STAGE SRC-TGT" for all that the model will have
        been trained on (learned_in)."""
        if not self.main_process:
            return
        # However this run ends, no file of an old run may pass for its own. The model is written
        # last: until then this is no model folder.
        for name in ("config.json", *OF_A_RUN):
            (self.folder / name).unlink(missing_ok=True)
        remove_descriptions(self.folder)
        machine = {"run_format": RUN_FORMAT, "torch": torch.__version__, "world_size": world}
        begun = {"command": shareable(self.command), "learned": learned}
        if self.settings.stage != "pretrain":
            begun |= self.of_the_base()
        write_settings(self.folder, asdict(self.settings) | machine | begun)
        self.log.write_rows()  # the heading: without a line below it the model is untrained
        tokenizer.save_pretrained(self.folder)
        model.save_pretrained(self.folder, merged_state())

    def of_the_base(self):
        """What args.json says of the model that the run begins from."""
        folder = model_folder(self.settings.init)
        weights = weights_of(folder)
        found = {"init_weights": weights, "origin": origin_of(folder, weights)}
        before = read_settings(folder)
        # A False is handed on too: without it this run's own recipe would be asked.
        if "new_source" in before or has_new_source(before):
            found["new_source"] = has_new_source(before)
        if before.get("sources"):
            own = [pair.split("-")[0] for pair in self.settings.pairs]
            found["sources"] = sorted({*before["sources"], *own})
        return found

    def bar(self):
        """The bar of progress, to be updated at every step."""
        return progress_line(
            title=self.settings.stage,
            total=self.settings.steps,
            initial=self.progress.step,
            unit="step",
            mininterval=1.0,
            shown=self.main_process,
        )

    def report(self, valid_loss, speed, rate, accuracy=None):
        """Writes a line of log.csv, of the updates since the last one; returns those for the
        screen. tell() prints them after save(), so that a closed pipe loses no update.

        accuracy: of the adversary's classifier, None without one."""
        progress = self.progress
        loss = progress.take_mean_loss()
        if not self.main_process:
            return []
        self.log.write(progress.step, loss, valid_loss, speed, rate)
        line = (
            f"update {progress.step}: loss {loss:.4f}, validation {valid_loss:.4f}, "
            f"{speed:,.0f} tokens/s, learning rate {rate:.2e}"
        )
        if progress.overflows:
            line += f", {progress.overflows} updates skipped by overflow so far"
        if accuracy is not None:
            line += f", classifier {accuracy:.1%} right"
        return [line]

    def log_scores(self, scores):
        """Writes lines of watch.csv, (source, target, column, score, off-target); returns those for
        the screen."""
        lines = []
        for source, target, column, score, off_target in scores:
            self.watch_log.write(self.progress.step, source, target, column, score, off_target)
            line = f"  {source} -> {target}: {column} {score:.1f}"
            if off_target is not None:
                line += f", off-target {off_target:.1f}"
            lines.append(line)
        return lines

    def tell(self, lines):
        """Shows what report() and log_scores() found."""
        for line in lines:
            say_on_the_way(line)

    def save_model(self, model, merged_state):
        """Writes the model, of whose tensors merged_state() has the values.

        Before report(): log.csv never names the loss of a model that is not there."""
        if not self.main_process:
            return
        remove_descriptions(self.folder)
        # Not kept: on a GPU these tensors are a second copy of the model.
        model.save_pretrained(self.folder, merged_state())

    def save(self, model, parts):
        """Writes state.pt, what a resume goes on from.

        parts: {name: object with a state_dict()}, all that changes in training but the model. Of
        that state.pt has its own copy: a crash between the two files mixes no moments."""
        if not self.main_process:
            return
        weights = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                weights[name] = parameter.detach().cpu()
        state = {"weights": weights, "progress": asdict(self.progress)}
        for name, part in parts.items():
            state[name] = part.state_dict()
        write_state(state, self.folder / "state.pt")

    @torch.no_grad()
    def restore(self, model, parts):
        """Puts model, parts and progress back to where save() was last called."""
        path = self.folder / "state.pt"
        state = read_state(path)
        # The data first, then the settings: others explain what else differs, or is not there.
        for name in (*parts, "weights", "progress"):
            if name not in state:
                raise UserError(
                    f"{path}: damaged (it lacks {name!r}); the last best model in {self.folder} is "
                    "whole: use it with --init"
                )
            if name in parts:
                parts[name].load_state_dict(state[name])
        for name, parameter in model.named_parameters():
            if name in state["weights"]:
                parameter.copy_(state["weights"][name])
        self.progress = Progress(**state["progress"])
        self.log = Log(self.folder / "log.csv", self.progress.step)
        self.watch_log = Log(self.folder / "watch.csv", self.progress.step)
        if self.main_process:  # the data may have moved, and the model of --init
            moved = {"data": self.settings.data, "init": self.settings.init}
            write_settings(self.folder, read_settings(self.folder) | moved)

    def done(self):
        """Says that the training is over, and whether it was worth it."""
        progress = self.progress
        kept = ""
        if self.settings.keep == "last":
            kept = ", but the model is that of the last validation"
            if progress.diverged:
                kept += " whose loss was a number"
        self.say(
            f"done: {progress.step} updates in {progress.seconds:.0f} s, best validation loss "
            f"{progress.best:.4f}{kept}; model in {self.folder}"
        )
        if progress.best == math.inf:
            note("no validation loss was a number: the model is as it was before training")
        elif self.settings.keep == "best" and progress.best > progress.start:
            note(
                f"the model that is kept is worse than before training (validation loss "
                f"{progress.start:.4f}): lower --lr, or validate sooner with --eval-every"
            )

    def last_checkpoint(self):
        """For messages: what a run can go on from."""
        if (self.folder / "state.pt").is_file():
            return f"the last good checkpoint is in {self.folder}"
        return f"nothing was saved before that, but the model it began with, in {self.folder}"

    def stop(self, number, is_saved=True):
        """Ends the program, after save(). number: the signal's; 0: as was planned. is_saved=False:
        there was nothing worth saving, which is a UserError."""
        if not is_saved:
            raise UserError(
                f"stopped at update {self.progress.step}, and not saved: the validation loss or "
                f"the weights were no numbers; {self.last_checkpoint()}"
            )
        self.say(
            f"\nstopped at update {self.progress.step}; go on with: "
            f"{program_of_processes()} train.py --resume {quoted(self.folder)}"
        )
        if self.settings.keep == "last" and not self.is_validation_due():
            if self.progress.step < self.settings.eval_every:
                self.say("the folder's model is still the one that the run began with")
            else:
                self.say("the folder's model is still that of the last validation")
        if number:
            sys.exit(128 + number)
        sys.exit(0)

    def is_validation_due(self):
        """Is this update, the last that was made, one after which a run validates?"""
        step = self.progress.step
        return step % self.settings.eval_every == 0 or step == self.settings.steps

    def end_with_bad_batch(self, loss, rows):
        """Ends a run whose loss is no number; rows: its last examples, saved for a look at them."""
        path = self.folder / "bad_batch.json"
        if self.main_process:
            write_json(path, rows)
        raise UserError(
            f"the loss is {loss} at update {self.progress.step + 1}; its batches are in {path}; "
            f"{self.last_checkpoint()}. Begin again with --overwrite and a lower --lr, or with "
            "--precision bf16 in place of fp16"
        )


# ------------------------------------------------------------------------------------- signals

@contextmanager
def signals():
    """Inside, Ctrl-C, SIGTERM and the end of the terminal end nothing: they are put into the list
    that this yields."""
    received = []

    def remember(number, frame):
        received.append(number)

    before = {}
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):  # Windows has none
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup asks for
            numbers.append(signal.SIGHUP)
    for number in numbers:
        before[number] = signal.signal(number, remember)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def first_signal(received, world):
    """A signal's number that any of the processes received, the same in all of them; 0: none."""
    number = received[0] if received else 0
    if world > 1:
        number = torch.tensor(number)  # on the CPU: no GPU is waited for
        all_reduce(number, dist.ReduceOp.MAX)
        number = number.item()
    return number


# ----------------------------------------------------------------------------------- processes

# How long a process that does not come is waited for, at the start and at every exchange. Meanwhile
# the first one may be decoding for --watch, which the others do not.
PATIENCE = timedelta(minutes=30)


@contextmanager
def processes():
    """Joins the processes that torchrun started, on one machine or on several: yields this one's
    rank and their number. Without torchrun there is one.

    It is the first thing that a program does: one that ends later, by whatever mistake, ends the
    others with it (all_reduce); one that never joined would be waited for."""
    rank, world = rank_and_world()
    if world == 1:
        yield rank, world
        return
    check_torchrun(world)
    with nobody_gone():
        dist.init_process_group(backends(), timeout=PATIENCE)
    try:
        yield rank, world
    finally:
        dist.destroy_process_group()


def rank_and_world():
    """The number of this process and how many there are, as torchrun tells them in the environment;
    (0, 1) where it started none, whatever number RANK is. UserError for what is no whole number
    from 0 on."""
    numbers = {"RANK": 0, "WORLD_SIZE": 1}
    for name in numbers:
        told = os.environ.get(name)
        if told is None:
            continue
        if not told.isdecimal():
            raise UserError(
                f"{name} is {told!r} in the environment, which is no whole number from 0 on: start "
                "the processes with torchrun, or unset it for one process"
            )
        numbers[name] = int(told)
    if numbers["WORLD_SIZE"] <= 1:
        return 0, 1
    return numbers["RANK"], numbers["WORLD_SIZE"]


def program_of_processes():
    """What starts as many processes as these: this Python, or torchrun, which on several machines
    wants its other options once more."""
    if not dist.is_initialized():
        return beside_python()
    world = dist.get_world_size()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    several = "" if here == world else " ..."
    return f"{beside_python('torchrun')}{several} --nproc-per-node {here}"


def check_torchrun(world):
    """UserError where something else asks for several processes: a cluster's own starter, say."""
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = [name for name in needed if not os.environ.get(name)]
    if missing:
        raise UserError(
            f"WORLD_SIZE is {world} in the environment, but {', '.join(missing)} not set: start "
            "the processes with torchrun, or unset WORLD_SIZE for one process"
        )


def backends():
    """By what processes talk, for each kind of device: which they compute on is not known yet."""
    if torch.cuda.is_available():
        return "cpu:gloo,cuda:nccl"
    return "gloo"


def device_of_process(device, world):
    """The device of this process: of several on GPUs, process n of a machine takes GPU n. UserError
    if there is none, or if --device names an index."""
    if world == 1 or device.type != "cuda":
        return device
    if device.index is not None:
        raise UserError(
            f"--device {device}: of several processes each takes the GPU of its own number; leave "
            "out the index (--device cuda), and choose some GPUs with CUDA_VISIBLE_DEVICES"
        )
    number = int(os.environ["LOCAL_RANK"])
    count = torch.cuda.device_count()
    if number >= count:
        raise UserError(
            f"process {number + 1} on this machine has no GPU, for here are {count}: start no more "
            f"processes than that, torchrun --nproc-per-node {count}"
        )
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def all_reduce(tensor, operation=dist.ReduceOp.SUM):
    """dist.all_reduce, in place; UserError where another process is gone."""
    with nobody_gone():
        dist.all_reduce(tensor, op=operation)


def gather(value):
    """The values that all processes give, in the order of their ranks; UserError as above."""
    found = [None] * dist.get_world_size()
    with nobody_gone():
        dist.all_gather_object(found, value)
    return found


@contextmanager
def nobody_gone():
    """Inside, a failed exchange with another process becomes a UserError."""
    try:
        yield
    except RuntimeError as error:
        reason = first_line(error, 300)
        reason = re.sub(r"^\[.*?\] ", "", reason)  # without the line of the library's source
        reason = reason.split(". ")[0]
        raise UserError(
            f"another process of this run has ended or cannot be reached ({reason}); what it said "
            "last tells why. Start all of them again, with --resume if there is a checkpoint"
        ) from None


def add_up(values, world):
    """A tensor of numbers -> the same as Python numbers, summed over the processes."""
    if world > 1:
        all_reduce(values)
    return values.tolist()


def share_gradients(weights, world):
    """Every weight's gradient becomes the sum of all processes' gradients.

    Weights without a gradient are passed over: which these are must be the same everywhere."""
    if world == 1:
        return
    bucket = []
    for weight in weights:
        if weight.grad is None:
            continue
        if bucket and sum(map(torch.numel, bucket)) + weight.numel() > BUCKET:
            all_reduce_flat(bucket)
            bucket = []
        bucket.append(weight.grad)
    if bucket:
        all_reduce_flat(bucket)


def all_reduce_flat(tensors):
    """Sums tensors over the processes in one call, in place."""
    if len(tensors) == 1:  # a large one, such as the embedding table's: no copy
        all_reduce(tensors[0])
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts):
        tensor.copy_(part.view_as(tensor))
