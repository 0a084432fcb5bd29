"""Files of the Hugging Face hub, by their repository's name: OWNER/NAME, or OWNER/NAME@REVISION.

huggingface_hub does the work, with its cache (HF_HOME), its token (`hf auth login` or HF_TOKEN),
its offline mode (HF_HUB_OFFLINE) and its bars of progress. Here its many errors become one line
each that says what to do. It is imported late: most commands need none of it.
"""
import re
from dataclasses import dataclass
from pathlib import Path

from plumbing.files import UserError, beside_python, first_line
from plumbing.progress import is_shown

NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
COMMIT = re.compile("[0-9a-f]{40}")
SECONDS = 20  # until a hub that does not answer is held to be out of reach


class OutOfReach(UserError):
    """There is no network, the offline mode is on, or the hub does not answer."""


class Unknown(UserError):
    """The hub shows no repository of a name."""


class Absent(UserError):
    """A repository has no file of a name."""


@dataclass
class Repository:
    """A repository of the hub at a revision: a branch, a tag or a commit."""
    name: str
    revision: str = "main"
    kind: str = "model"  # or "dataset"

    @classmethod
    def named(cls, text):
        """The repository that a text names; None where it cannot be the name of one."""
        found = NAME.fullmatch(text)
        if found is None:
            return None
        return cls(found["name"], found["revision"] or "main")

    @property
    def page(self):
        """Where a person can look at it."""
        place = "datasets/" if self.kind == "dataset" else ""
        return f"https://huggingface.co/{place}{self.name}"

    def is_pinned(self):
        """Is the revision a commit, which never changes?"""
        return COMMIT.fullmatch(self.revision) is not None

    def ask(self):
        """(commit, names of its files) as the hub has them now.

        OutOfReach, Unknown, or another UserError for one that is closed or lacks the revision."""
        from huggingface_hub import HfApi

        try:
            found = HfApi().repo_info(
                self.name, repo_type=self.kind, revision=self.revision, timeout=SECONDS
            )
        except Exception as error:  # httpx's too, which has another name in every large version
            raise self.in_words(error) from None
        return found.sha, [file.rfilename for file in found.siblings]

    def cached(self, file):
        """The path of a file in the cache, as it was when this revision was last fetched; None if
        it is not there."""
        path = self.look_up(file)
        return Path(path) if isinstance(path, str) else None  # it may be known to be missing

    def look_up(self, file):
        """What huggingface_hub knows of a file without asking: its path in the cache, a mark that
        there is none, or None."""
        from huggingface_hub import errors, try_to_load_from_cache

        try:
            return try_to_load_from_cache(
                self.name, file, revision=self.revision, repo_type=self.kind
            )
        except errors.HFValidationError as error:  # no name of the hub's
            raise self.in_words(error) from None

    def is_known_absent(self, file):
        """Does the cache know that this revision has no such file?"""
        from huggingface_hub import _CACHED_NO_EXIST

        return self.look_up(file) is _CACHED_NO_EXIST

    def note_absent(self, file):
        """Has the cache know that this revision has no such file; asks the hub for it once, for
        huggingface_hub notes what it was denied."""
        if self.is_known_absent(file):
            return
        try:
            self.fetch(file)
        except Absent:
            pass

    def fetch(self, file):
        """The path of a file in the cache, to which it is downloaded where it is not there yet.

        Its folder is named after the commit."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import disable_progress_bars

        if not is_shown():
            disable_progress_bars()
        try:
            path = hf_hub_download(
                self.name, file, repo_type=self.kind, revision=self.revision
            )
        except Exception as error:
            raise self.in_words(error, file) from None
        return Path(path)

    def in_words(self, error, file=None):
        """The UserError that says what an error of huggingface_hub means, and what to do."""
        from huggingface_hub import errors

        login = f"`{beside_python('hf')} auth login`"
        if isinstance(error, errors.GatedRepoError):  # a kind of the next one: before it
            return UserError(
                f"{self.name} is gated on the Hugging Face hub: agree to its terms on {self.page}, "
                f"then log in with {login} or set HF_TOKEN"
            )
        if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
            return Unknown(
                f"the Hugging Face hub shows no {self.kind} {self.name}; mend the name, or log in "
                f"with {login} if it is a private one"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return UserError(
                f"{self.name} has no revision {self.revision} on the Hugging Face hub; "
                f"{self.page}/commits lists them"
            )
        if isinstance(error, errors.DisabledRepoError):
            return UserError(f"{self.name} is disabled on the Hugging Face hub; name another")
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return Absent(f"{self.name} has no {file} at revision {self.revision}")
        if isinstance(error, errors.OfflineModeIsEnabled):
            return OutOfReach("HF_HUB_OFFLINE is set, so the Hugging Face hub is not asked")
        reason = error.__cause__ or error  # "no such file" may wrap an answer
        response = getattr(reason, "response", None)
        if getattr(response, "status_code", None) in (401, 403):
            return UserError(
                f"the Hugging Face hub refuses {self.name} to the token that it was sent; log in "
                f"again with {login}, or mend HF_TOKEN"
            )
        return self.broken(error, reason, file)

    def broken(self, error, reason, file):
        """The UserError for a fetch that failed on the way: by the disk, or by the network."""
        if isinstance(error, OSError) and error.errno is not None:
            return UserError(
                f"{self.name}: {file or 'it'} could not be written to the cache "
                f"({error.strerror}); make room, or name another place with HF_HOME"
            )
        said = re.sub(r"\s+", " ", str(reason)).strip() or type(reason).__name__
        return OutOfReach(f"the Hugging Face hub cannot be reached ({first_line(said, 100)})")
