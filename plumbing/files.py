"""Files that are never half written, JSON that names its own faults, the one handler of mistakes.

A mistake that a person can mend (a word typed wrong, a damaged file) is a UserError: run(main)
prints its message as one line, without a traceback, and ends with exit code 2.
"""
import json
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """A mistake that the user can mend: the message says what is wrong, where, and what to do."""


def run(main):
    """Runs a program's main().

    A UserError ends it with one line on standard error and exit code 2, Ctrl-C with 130."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)


def first_line(error, length=120):
    """The beginning of an error's message: libraries append whole stack traces to theirs."""
    lines = str(error).splitlines()
    return lines[0][:length] if lines else type(error).__name__


@contextmanager
def saving(path):
    """The temporary name to write to; renamed to `path` if all went well.

    A full disk or a missing permission is a UserError, and what stood at `path` stays whole."""
    temporary = f"{path}.tmp"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # or a power cut could leave a new name without its bytes
        os.replace(temporary, path)
    except Exception as error:
        try:
            os.remove(temporary)
        except OSError:
            pass
        if not is_systems(error):
            raise
        raise UserError(
            f"{path}: could not be written ({first_line(error)}); make room or mend the "
            "permissions. What was saved there before is whole"
        ) from None


def is_systems(error):
    """Did the system refuse to write? torch and safetensors wrap its error in one of their own."""
    return isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError"


def write_text(path, text):
    with saving(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def write_bytes(path, content):
    with saving(path) as temporary:
        Path(temporary).write_bytes(content)


def read_json(path):
    """The parsed file, None if there is none; UserError if it is not JSON."""
    if not Path(path).is_file():
        return None
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); mend or remove it") from None


def write_json(path, value):
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")
