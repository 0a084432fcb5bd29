"""A model by its name: the folder itself, or one that the Hugging Face hub has.

    model_folder("runs/translate")               that folder
    model_folder("facebook/mbart-large-cc25")    a folder in the hub's cache, fetched if need be
    pinned("facebook/mbart-large-cc25")          facebook/mbart-large-cc25@ and the newest commit

A folder of the name wins. Programs call model_folder() where they are told a name, so that all the
rest handles folders alone. Of a repository only the files are fetched that are read here;
config.json comes first and the weights last, so that what is no mBART costs no gigabytes.
"""
import difflib
import errno
from dataclasses import replace
from pathlib import Path

from plumbing.files import (
    UserError,
    beside_python,
    note,
    read_json,
    refuse_pointer,
    same_place,
)
from plumbing.hub import OutOfReach, Repository, Unknown
from plumbing.layout import MODEL_FILE, TOKENIZER_FILES

CONFIG = "config.json"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ADAPTER = "adapter_config.json"  # of PEFT
SMALL_FILES = (  # each of them if it is there
    "generation_config.json",
    "args.json",
    *TOKENIZER_FILES,
    "README.md",  # its card names the licence, which a run's own card repeats
)
MODEL_HELP = "an mBART folder, or the name of one on the Hugging Face hub"
EXAMPLES = "facebook/mbart-large-cc25 or facebook/mbart-large-50"


def model_folder(name, weights=True):
    """The folder of a model that is named by its folder or by its repository on the hub.

    weights: are they needed? UserError, one line, for a name that leads nowhere."""
    if is_folder(name):
        return Path(name)
    repository = repository_named(name)
    if repository.is_pinned():  # what is in the cache is what it was
        config = repository.cached(CONFIG)
        if config and can_be_read(config.parent, weights):
            if not files_in_doubt(repository, config.parent):
                check_is_mbart(repository, config)
                return config.parent
    try:
        return downloaded(repository, weights)
    except Unknown as error:
        raise UserError(f"{no_folder_message(name)}, and {error}") from None
    except OutOfReach as error:
        return from_cache(name, repository, weights, error)


def pinned(name):
    """A repository's name with its commit, by which the same files are found for ever; the name of
    a folder as it is."""
    if is_folder(name) or repository_named(name).is_pinned():
        return str(name)
    folder = model_folder(name, weights=False)
    return f"{repository_named(name).name}@{folder.name}"


def same_model(name, other):
    """Do two names mean the same model? A repository's name without a revision, or with the start
    of the commit, means whatever commit the other names."""
    first = Repository.named(str(name))
    second = Repository.named(str(other))
    if is_folder(name) or not first or not second or first.name != second.name:
        return same_place(name, other)
    return "@" not in str(name) or second.revision.startswith(first.revision)


# -------------------------------------------------------------------------- a folder's weights

def weights_file(folder):
    """The path of a folder's weights: the first of WEIGHT_FILES that is there. UserError if none
    is."""
    for name in WEIGHT_FILES:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    refuse_adapter(folder)
    raise UserError(
        f"{folder}: no weights; expected model.safetensors or pytorch_model.bin "
        "(or their .index.json)"
    )


def refuse_adapter(folder):
    """UserError if a folder holds what PEFT has trained, and not the model that it adds to."""
    path = Path(folder) / ADAPTER
    if not path.is_file():
        return
    settings = read_json(path)
    base = None
    if isinstance(settings, dict):
        base = settings.get("base_model_name_or_path")
    raise UserError(
        f"{folder}: a PEFT adapter, not a whole model; load it with PEFT on its base "
        f"({base or 'not named'}), call merge_and_unload() and save_pretrained(), and name that "
        "folder"
    )


def parts_of(path):
    """The files that hold the tensors: the path itself, or the shards that an index names.

    UserError for a shard outside the index's own folder, which no honest index names."""
    if path.suffix != ".json":
        refuse_pointer(path)
        return [path]
    index = read_json(path)
    try:
        shards = index["weight_map"].values()
        shards = [Path(shard) for shard in sorted(set(shards))]
    except (KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path}: not a shard index ({error})") from None
    for shard in shards:
        if shard.is_absolute() or ".." in shard.parts:
            raise UserError(
                f"{path}: names a shard outside its folder, {shard}; mend the index, or take the "
                "model from elsewhere"
            )
    return [path.parent / shard for shard in shards]


# ------------------------------------------------------------------------------ where there is none

def repository_named(name):
    """The Repository that a name means which is no folder's; UserError where it can mean none."""
    repository = Repository.named(str(name))
    if repository is None or is_there(name):
        hint = f"; name a folder, or a model of the Hugging Face hub such as {EXAMPLES}"
        raise UserError(f"{no_folder_message(name)}{hint}")
    return repository


def is_folder(name):
    """Is there a folder of this name? There is none of a name too long for the system."""
    return is_there(name) and Path(name).is_dir()


def is_there(name):
    """Is there a file or a folder of this name?"""
    try:
        return Path(name).exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise  # a closed folder: nobody knows


def no_folder_message(name):
    """Says that there is no such folder, and which neighbour may have been meant."""
    path = Path(name)
    if is_there(path):
        return f"{name} is a file and no model folder"
    neighbours = []
    if is_folder(path.parent):
        neighbours = [other.name for other in path.parent.iterdir() if other.is_dir()]
    close = difflib.get_close_matches(path.name, neighbours, 1)
    if not close:
        return f"there is no folder {name}"
    return f"there is no folder {name} (did you mean {path.parent / close[0]}?)"


# ------------------------------------------------------------------------------------- fetching it

def downloaded(repository, weights):
    """The folder of a repository's files, with all that are read here."""
    commit, files = repository.ask()
    if CONFIG not in files and ADAPTER in files:
        raise UserError(
            f"{repository.name}: a PEFT adapter, not a whole model; merge it into its base with "
            "PEFT's merge_and_unload() and save_pretrained(), and name that folder"
        )
    # By the name of the revision: the cache then knows, without a network, which commit it meant.
    config = repository.fetch(CONFIG)
    if config.parent.name != commit:  # of a file it cannot ask about, the cache gives an old one
        raise OutOfReach(
            f"the Hugging Face hub names commit {commit} of {repository.name} and does not give it"
        )
    check_is_mbart(repository, config)
    if MODEL_FILE not in files:
        raise UserError(
            f"{repository.name} has no {MODEL_FILE}, without which no text becomes tokens "
            "(transformers 5 saves none); fetch it into a folder with "
            f"`{beside_python('hf')} download {repository.name} --local-dir FOLDER`, add that file "
            f"of the model that it was trained from ({EXAMPLES}), and name the folder"
        )
    at_commit = replace(repository, revision=commit)
    for file in SMALL_FILES:
        if file in files:
            at_commit.fetch(file)
        else:
            at_commit.note_absent(file)
    if weights:
        fetch_weights(at_commit, files)
    return config.parent


def check_is_mbart(repository, config):
    """UserError unless the config.json at this path is an mBART's."""
    try:
        found = read_json(config)
    except UserError:  # its own says to remove a link, behind which the damaged file would stay
        raise UserError(
            f"{repository.name}: its {CONFIG} is not valid JSON; remove {config.resolve()}, and it "
            "is fetched again"
        ) from None
    kind = found.get("model_type") if isinstance(found, dict) else None
    if kind != "mbart":
        raise UserError(
            f"{repository.name} is no mBART (its model_type is {kind}), and only mBART is read "
            f"here; name one, such as {EXAMPLES}"
        )


def fetch_weights(repository, files):
    """Fetches the first of WEIGHT_FILES that a repository has, and the shards that it names."""
    there = [name for name in WEIGHT_FILES if name in files]
    if not there:
        raise UserError(
            f"{repository.name} has neither model.safetensors nor pytorch_model.bin; name a "
            "repository with PyTorch weights"
        )
    path = repository.fetch(there[0])
    if path.suffix != ".json":
        return
    for part in parts_of(path):
        shard = part.relative_to(path.parent).as_posix()
        if shard not in files:
            raise UserError(f"{repository.name}: {path.name} names {shard}, which is not there")
        repository.fetch(shard)


def files_in_doubt(repository, folder):
    """The files that a repository may have at its folder's commit, and the cache has not.

    Other programs fetch fewer files: without its args.json, say, a model without tags would be
    read as one with tags."""
    at_commit = replace(repository, revision=folder.name)
    found = []
    for file in SMALL_FILES:
        if not at_commit.cached(file) and not at_commit.is_known_absent(file):
            found.append(file)
    return found


def can_be_read(folder, weights):
    """Has a folder in the cache what no model can do without?"""
    if not (folder / MODEL_FILE).is_file():
        return False
    if not weights:
        return True
    try:
        return all(part.is_file() for part in parts_of(weights_file(folder)))
    except UserError:
        return False


def from_cache(name, repository, weights, error):
    """The folder that was downloaded before, where the hub is out of reach; `error` says why."""
    config = repository.cached(CONFIG)
    if config is None:
        raise UserError(
            f"{no_folder_message(name)}, {error}, and nothing of that name was downloaded before; "
            "connect to the network, or copy a folder from a machine that has it"
        )
    check_is_mbart(repository, config)
    folder = config.parent
    if not can_be_read(folder, weights):
        raise UserError(
            f"{error}, and {repository.name} was downloaded in part only; start again with a "
            "network, and the rest comes"
        )
    if not repository.is_pinned():
        note(f"{error}; {name} as it was downloaded before: {folder.name}")
    missing = files_in_doubt(repository, folder)
    if missing:
        note(
            f"{name}: {', '.join(missing)} were not downloaded; if it has them, start once with a "
            "network"
        )
    return folder
