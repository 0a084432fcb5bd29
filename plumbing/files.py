"""Files that are never half written, JSON that names its own faults, the one handler of mistakes.

A mistake that a person can mend (a word typed wrong, a damaged file) is a UserError: run(main)
prints its message as one line, without a traceback, and ends with exit code 2.
"""
import argparse
import errno
import json
import os
import re
import signal
import sys
import tempfile
import time
import zlib
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from shlex import quote

from plumbing.progress import Quiet, bytes_bar, speaks

INT32 = 2**31  # whole numbers of this size and more are refused by libraries, each in its own way
SURROGATE = re.compile("[\ud800-\udfff]")  # half a character: no text can be made of it
EMPTY_OPTION = re.compile(r"--[\w-]+=")
POINTER = b"version https://git-lfs.github.com/spec/"  # what stands where a large file should


# What is no fault of a program: a closed folder, a name that is too long, links in a circle, a disk
# that is only read, a folder where a file should be or the other way round.
REFUSED = (
    errno.EACCES,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EROFS,
    errno.EISDIR,
    errno.ENOTDIR,
)


class UserError(ValueError):
    """A mistake that the user can mend: the message says what is wrong, where, and what to do."""


def run(main):
    """Runs a program's main().

    A UserError ends it with one line on standard error and exit code 2, and so do a path that the
    system refuses (REFUSED), wherever it was asked for, a full memory and a full disk; Ctrl-C ends
    it with 130, a reader of its output that has left (`| head`) with 141."""
    # Closed from the beginning (`>&-`), they are None, and nothing could be printed.
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = sys.stderr or open(os.devnull, "w")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            if os.name == "nt" and not stream.isatty():  # a file: in UTF-8 as all others
                stream.reconfigure(encoding="utf-8")
            # Letters that a terminal lacks must not end a program.
            stream.reconfigure(errors="backslashreplace")
    try:
        check_words(sys.argv[1:])
        main()
        sys.stdout.flush()  # here a broken pipe is caught, at the exit of Python it is not
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        drop_output()
        sys.exit(141)  # 128 + SIGPIPE, which Windows has not
    except Exception as error:
        if is_full_memory(error):
            line = (
                f"the memory is full ({first_line(error)}); train.py: a run with fewer --tokens "
                "and as much more --accumulate (not --resume, which keeps its own); eval.py: "
                "--precision bf16, or a smaller --beam"
            )
        elif isinstance(error, OSError) and error.filename and error.errno in REFUSED:
            line = f"{error.filename}: {error.strerror}; mend that, or name another place"
        elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
            line = f"{error.filename or 'the output'}: {error.strerror}; make room"
            if not error.filename:
                drop_output()
        else:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


def drop_output():
    """Leaves what standard output still has to write, which would fail once more when Python
    ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_full_memory(error):
    """Did a GPU, one of its libraries or the CPU have no more memory? torch has several errors and
    texts for that; this file does without torch."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    texts = (
        "out of memory",
        "ALLOC_FAILED",
        "can't allocate memory",
        "Cannot allocate memory",
        "not enough memory",
    )
    is_torchs_own = type(error).__name__ == "OutOfMemoryError"
    return is_torchs_own or any(text in str(error) for text in texts)


def beside_python(program=None):
    """The path of `program` in the folder of this Python, as that was typed (.venv/bin/pip for
    .venv/bin/python); without a name, this Python. For commands in messages: a command copied from
    the screen must run, so it is quoted where a shell asks for it."""
    python = Path(sys.orig_argv[0])
    return quoted(python.with_name(program) if program else python)


def quoted(word):
    """A word of a command that a message names, as a shell must have it."""
    word = str(word)
    if os.name != "nt":
        return quote(word)
    # To Windows' shells a backslash is a letter like others, and a single quote no quote.
    return word if re.fullmatch(r"[\w.:\\/=+-]+", word) else f'"{word}"'


def temporary_folder():
    """A temporary folder to use in a `with`; UserError where there can be none."""
    try:
        return tempfile.TemporaryDirectory()
    except OSError as error:
        raise UserError(
            f"there is no room for a temporary folder ({first_line(error)}); make some, or name a "
            "folder in the variable TMPDIR"
        ) from None


def own_name():
    """How this program was called: train.py, or -m tools.layers."""
    spec = sys.modules["__main__"].__spec__
    if spec is None:
        return quoted(sys.argv[0])
    return f"-m {spec.name}"


def note(text):
    """A remark on what a user may not expect, on standard error; of several processes the first
    speaks."""
    if speaks():
        print(f"note: {text}", file=sys.stderr)


@cache
def note_once(text):
    """note(), but however often it is called, of the three files of a folder say, once."""
    note(text)


class Parser(argparse.ArgumentParser):
    """A parser with --quiet, whose errors are one line.

    It refuses an empty argument: --model "$RUN" gives one where RUN is not set, and no program may
    then choose a model by itself. Subcommands get parsers of this class too, so that --quiet may
    follow a command."""

    def __init__(self, **keywords):
        keywords.setdefault("prog", f"{beside_python()} {own_name()}")
        super().__init__(**keywords)
        self.add_argument("--quiet", action=Quiet)

    def parse_known_args(self, args=None, namespace=None):
        words = sys.argv[1:] if args is None else list(args)
        self.tell_lists(words)
        before = self.prog
        for word in words:
            if EMPTY_OPTION.fullmatch(word):
                self.error(f"{word} is empty; give it a value, or leave it out")
            if not word:
                self.error(f"what stands behind {before} is empty; give a value, or leave it out")
            before = word
        return super().parse_known_args(words, namespace)

    def tell_lists(self, words):
        """A note where an option that takes a list is typed twice: the last list counts, as with
        every option, and who meant both would not notice."""
        typed = [word.partition("=")[0] for word in words]
        for action in self._actions:
            if action.nargs in ("+", "*"):
                count = sum(typed.count(name) for name in action.option_strings)
                if count > 1:
                    name = action.option_strings[-1]
                    note(f"{name} stands there {count} times, and the last one counts")

    def error(self, message):
        self.exit(2, f"error: {message}; `{self.prog} --help` explains every option\n")


def parser_of(doc, **keywords):
    """The ArgumentParser of a program whose docstring is `doc`: its --help is the docstring, the
    options below the first paragraph. keywords: more for the parser."""
    title, _, rest = doc.partition("\n\n")
    return Parser(
        description=title,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **keywords,
    )


def check_words(words):
    """UserError for words of a command line that are not text: bytes that are not UTF-8 arrive as
    halves of characters, which no file and no vocabulary takes."""
    for word in words:
        if SURROGATE.search(word):
            raise UserError(
                f"the command line has a word that is not UTF-8: {ascii(word)}; type or name it in "
                "UTF-8"
            )


def first_line(error, length=120):
    """The beginning of an error's message: libraries append whole stack traces to theirs."""
    lines = str(error).splitlines()
    return lines[0][:length] if lines else type(error).__name__


def last_line(text, length):
    """The end of what another program said, in which it tells why it ended; "" if it said nothing.
    """
    lines = text.strip().splitlines()
    return lines[-1][:length] if lines else ""


@contextmanager
def saving(path):
    """The temporary name to write to; renamed to `path` if all went well.

    Its folder is made where there is none. A full disk or a missing permission is a UserError, and
    what stood at `path` stays whole; the temporary file goes, after Ctrl-C too."""
    temporary = f"{path}.tmp"
    make_folder(Path(path).parent)
    try:
        yield temporary
        flush_to_disk(temporary)  # or a power cut could leave a new name without its bytes
        put_in_place(temporary, path)
    except BaseException as error:
        try:
            os.remove(temporary)
        except OSError:
            pass
        if not is_from_system(error) or is_of_a_device(error):
            raise
        raise UserError(
            f"{path}: could not be written ({first_line(error)}); make room or mend the "
            "permissions. What was saved there before is whole"
        ) from None


def flush_to_disk(path):
    """Waits until all bytes of the file `path` are on the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


WAITS = (0.1, 0.5, 1, 2) if os.name == "nt" else ()  # seconds


def put_in_place(temporary, path):
    """os.replace(). Windows refuses it while another program has the old file open, such as a virus
    scanner for a moment: there it is tried again."""
    for seconds in WAITS:
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            time.sleep(seconds)
    os.replace(temporary, path)


def is_from_system(error):
    """Did the system refuse to write? torch and safetensors wrap its error in one of their own."""
    return isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError"


def is_of_a_device(error):
    """Did a GPU fail, or memory end, while what is written was fetched from it?"""
    # The system's own errors name a path, which may say anything.
    of_cuda = "CUDA" in str(error) and not isinstance(error, OSError)
    return of_cuda or is_full_memory(error)


def write_text(path, text):
    with saving(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def write_bytes(path, content):
    with saving(path) as temporary:
        Path(temporary).write_bytes(content)


def make_folder(folder):
    """Makes a folder and those above it; UserError where there can be none."""
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{folder}: no folder can be made there ({reason}); name another"
        ) from None


def check_file_out(path, overwrite=True, read=()):
    """UserError unless the file `path` can be written.

    read: the files and folders that the program reads, None for one that it was not given. None of
    them is replaced, nor a file that such a folder has, unless it is an earlier report."""
    path = Path(path)
    for name in read:
        if name is not None and would_be_lost(path, name):
            raise UserError(f"{path} is what is read here and would be lost; name another file")
    check_place(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file to write")
    if path.exists() and not path.is_file():  # a pipe, or /dev/null: saving() would replace it
        raise UserError(f"{path} is no ordinary file; name one")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists; --overwrite replaces it, or name another file")


def would_be_lost(path, name):
    """Is the file `path` there, and is it `name`, or in the folder `name` and no report?"""
    place = real_path(path)
    if not place.is_file():
        return False
    if same_place(place, name):
        return True
    is_within = any(same_place(folder, name) for folder in place.parents)
    return is_within and not is_report(place)


def same_place(path, other):
    """Do two paths name one file or folder? Links lead to it, and so do small and capital letters
    on a disk that does not tell them apart."""
    try:
        return os.path.samefile(path, other)
    except OSError:  # one of them is not there yet
        return real_path(path) == real_path(other)


def real_path(path):
    """The Path without links; of links in a circle as far as they lead."""
    return Path(os.path.realpath(path))


def is_report(path):
    """Did a program write this file that scores or measures a model? It says so in JSON, and of
    which base the model is."""
    try:
        found = read_json(path)
    except UserError:
        return False
    return isinstance(found, dict) and {"model", "origin"} <= set(found)


def check_place(path):
    """UserError if something above `path` is no folder, or may not be written in."""
    above = Path(path).absolute().parent
    while not os.path.lexists(above) and above != above.parent:  # a drive may be missing itself
        above = above.parent
    if not above.is_dir():
        raise UserError(f"{path}: cannot be written, for {above} is no folder")
    if not os.access(above, os.W_OK):
        raise UserError(f"{path}: cannot be written, for you may not write in {above}")


def unreadable(path, error):
    """The UserError for a file that the system does not let us read; error: its OSError."""
    reason = error.strerror or first_line(error)
    return UserError(f"{path}: cannot be read ({reason}); mend its permissions, or copy it again")


def read_utf8(path, mend="save it as UTF-8"):
    """The text of a file, less a byte order mark. UserError if it cannot be read, or is not UTF-8:
    then it says how to `mend` that."""
    try:
        return utf8_text(Path(path).read_bytes(), path, mend)
    except OSError as error:
        raise unreadable(path, error) from None


def utf8_text(content, name, mend="save it as UTF-8"):
    """The text of bytes, as read_utf8() has it; name: where they are from."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"{error.reason} at byte {error.start}"
        raise UserError(f"{name}: not UTF-8 ({where}); {mend}") from None


def check_searchable(folder):
    """UserError if the files in a folder may not be reached."""
    try:
        os.stat(os.path.join(folder, "."))
    except OSError as error:
        raise unreadable(folder, error) from None


def refuse_pointer(path):
    """UserError if a file cannot be read, or only says where Git LFS keeps what should stand there.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(POINTER))
    except FileNotFoundError:  # said better by who reads it
        return
    except OSError as error:
        raise unreadable(path, error) from None
    if start == POINTER:
        raise UserError(f"{path}: only a Git LFS pointer to the file; run `git lfs pull`")


def size_and_checksum(path):
    """[bytes, CRC-32] of a file: two numbers that tell whether it has changed. UserError if it
    cannot be read."""
    size = 0
    value = 0
    try:
        whole = os.path.getsize(path)
        with open(path, "rb") as file, bytes_bar(whole, f"checking {Path(path).name}") as bar:
            while part := file.read(2**20):
                size += len(part)
                value = zlib.crc32(part, value)
                bar.update(len(part))
    except OSError as error:
        raise unreadable(path, error) from None
    return [size, value]


def read_json(path):
    """The parsed file, None if there is none; UserError if it cannot be read or is not JSON."""
    if not os.path.isfile(path):
        return None
    refuse_pointer(path)
    text = read_utf8(path, "mend or remove it")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); mend or remove it") from None


def write_json(path, value):
    write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def of_their_kinds(values, kinds, where):
    """{name: value}, each of its kind, {name: a type, or a union of them}: a whole number becomes a
    float where one is meant.

    UserError for a value of another kind, and for a whole number below 0 or not below INT32."""
    found = {}
    for name, kind in kinds.items():
        value = values[name]
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if is_whole and not 0 <= value < INT32:
            raise UserError(
                f"{where}: {name} is {str(value)[:40]}, expected at least 0 and less than {INT32}"
            )
        if is_whole and kind is float:
            value = float(value)
        is_bool_for_int = isinstance(value, bool) and kind is int
        if is_bool_for_int or not isinstance(value, kind):
            raise UserError(
                f"{where}: {name} is {value!r}, expected {getattr(kind, '__name__', kind)}"
            )
        found[name] = value
    return found
