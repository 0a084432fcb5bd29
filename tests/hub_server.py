"""A small Hugging Face hub on the loopback address: the few paths that huggingface_hub asks for.

    GET  /api/models/NAME/revision/REV        the commit, and the names of the files
    HEAD /NAME/resolve/REV/FILE               size and checksum
    GET  /NAME/resolve/REV/FILE               the bytes, from any of them on (Range)

and the same with /api/datasets/ and /datasets/NAME. Errors are told as the hub tells them, by
X-Error-Code.
"""
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?")
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """Revisions and their files."""
    commits: dict = field(default_factory=dict)    # {commit: {file: bytes}}
    revisions: dict = field(default_factory=dict)  # {branch or tag: commit}
    refusal: tuple | None = None  # (status, X-Error-Code) of every file

    def put(self, folder, revision="main"):
        """A commit with the files of a folder, and of those below it; a revision points to it."""
        files = {}
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                files[str(path.relative_to(folder))] = path.read_bytes()
        commit = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[commit] = files
        self.revisions[revision] = commit
        return commit


class Hub(ThreadingHTTPServer):
    """A hub; it serves from its start until close()."""
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.repositories = {}  # {name: Repository}; of a data set "datasets/" and its name
        self.asked = []         # (method, path) of every request
        self.ranges = []        # what was asked for in part
        self.closed = False
        self.cuts = {}          # {file: how often it ends in the middle; less than 0: at once}
        self.deaf = set()       # files of which nobody is told anything: 503
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name, folder=None, **settings):
        self.repositories[name] = Repository(**settings)
        if folder is not None:
            self.repositories[name].put(folder)
        return self.repositories[name]

    def fetched(self):
        """The files that were sent, in their order."""
        found = [RESOLVE.fullmatch(path) for method, path in self.asked if method == "GET"]
        return [match[4] for match in found if match]

    def close(self):
        """Stops, for those too who hold a connection."""
        if self.closed:
            return
        self.closed = True
        self.shutdown()
        self.server_close()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):  # noqa: N802
        self.answer()

    def do_GET(self):  # noqa: N802
        self.answer()

    def answer(self):
        if self.server.closed:
            self.close_connection = True
            return
        path = unquote(urlsplit(self.path).path.replace("%2F", "%252F"))
        self.server.asked.append((self.command, path))
        asked = API.fullmatch(path)
        if asked:
            kind = "datasets/" if asked[1] == "datasets" else ""
            return self.tell(kind + asked[2], unquote(asked[3] or "main"))
        asked = RESOLVE.fullmatch(path)
        if asked:
            return self.give((asked[1] or "") + asked[2], unquote(asked[3]), asked[4])
        return self.refuse(404, "EntryNotFound")

    def commit_of(self, name, revision):
        """The commit of a revision; None if that was refused."""
        repository = self.server.repositories.get(name)
        if repository is None:
            self.refuse(401, "RepoNotFound")
            return None
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            self.refuse(404, "RevisionNotFound")
            return None
        return commit

    def tell(self, name, revision):
        commit = self.commit_of(name, revision)
        if commit is None:
            return
        files = self.server.repositories[name].commits[commit]
        plain = name.removeprefix("datasets/")
        found = {
            "_id": "0", "id": plain, "modelId": plain, "sha": commit, "private": False,
            "author": plain.split("/")[0], "tags": [], "downloads": 0, "likes": 0,
            "siblings": [{"rfilename": file} for file in files],
        }  # fmt: skip
        self.send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def give(self, name, revision, file):
        commit = self.commit_of(name, revision)
        if commit is None:
            return
        repository = self.server.repositories[name]
        if repository.refusal:
            self.refuse(*repository.refusal)
            return
        if file in self.server.deaf:
            self.refuse(503, "Unavailable")
            return
        content = repository.commits[commit].get(file)
        about = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if content is None:
            self.refuse(404, "EntryNotFound", about)
            return
        about["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        asked = self.headers.get("Range")
        if self.command == "HEAD" or not asked:
            self.send(200, content, about, file)
            return
        self.server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").split("-")[0])
        about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206, content[start:], about, file)

    def refuse(self, status, code, headers=()):
        self.send(status, b"", dict(headers) | {"X-Error-Code": code, "X-Error-Message": code})

    def send(self, status, content, headers, file=None):
        left = self.server.cuts.get(file, 0)
        cut = self.command == "GET" and left
        if cut and left < 0:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut:
            self.server.cuts[file] -= 1
            self.close_connection = True
            content = content[:len(content) // 2]
        self.wfile.write(content)
