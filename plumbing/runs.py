"""The files of a run folder beside its model: the lock, log.csv, state.pt and args.json."""
import csv
import os
import zipfile
from contextlib import contextmanager
from pathlib import Path

import torch

from plumbing.files import UserError, first_line, read_json, saving


def read_settings(folder):
    """args.json of a run folder; {} where there is none, as in a folder of published weights."""
    return read_json(Path(folder) / "args.json") or {}


def latest_run(stages, folder="runs"):
    """The newest folder in runs/ that holds a model of one of these stages."""
    found = []
    for path in Path(folder).glob("*/args.json"):
        if not (path.parent / "config.json").exists():
            continue
        if read_settings(path.parent).get("stage") in stages:
            found.append(path)
    if not found:
        raise UserError(
            "there is no run in runs/ yet; run `python train.py --stage translate` first (some minutes "
            "on two CPU cores), or name a model with --model FOLDER"
        )
    return max(found, key=lambda path: path.stat().st_mtime).parent


@contextmanager
def only_run_in(folder):
    """Holds a folder for one training run; the system lets go when the process ends, however it ends."""
    import fcntl
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: another run is training into this folder; wait for it, or name another with "
                            "--out") from None
        try:
            yield
        finally:
            if [path.name for path in Path(folder).iterdir()] == [".lock"]:  # a run that did not begin leaves nothing
                os.remove(Path(folder) / ".lock")
                os.rmdir(folder)


class Log:
    """log.csv of a run: one line a validation; a resumed run drops the lines after its checkpoint."""

    FIELDS = ("step", "loss", "validation loss", "tokens/s", "learning rate")

    def __init__(self, path, step=0):
        self.path, self.rows = path, []
        if step and path.exists():
            with open(path, newline="") as file:
                self.rows = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]

    def write(self, *row):
        self.rows.append(row)
        with saving(self.path) as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([self.FIELDS, *self.rows])


def write_state(state, path):
    """Everything that a resume needs beside the folder's model, as one file."""
    with saving(path) as temporary:
        torch.save(state, temporary)


def read_state(path, device):
    try:
        with zipfile.ZipFile(path) as archive:  # torch reads on over a flipped bit; the archive's checksums do not
            if (changed := archive.testzip()) is not None:
                raise ValueError(f"checksum of {changed}")
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; the run was stopped before its first checkpoint: start it again with "
                        "--overwrite") from None
    except Exception as error:  # a damaged archive raises many kinds
        raise UserError(f"{path}: damaged ({first_line(error, 100)}); the last best model in {path.parent} "
                        "is whole: use it with --init") from None
