"""plumbing/options.py: what a run has saved is what its command line gives."""
import json
from dataclasses import dataclass

import pytest

from plumbing.files import UserError
from plumbing.options import SHARE, check_saved, number, option, read_options


@dataclass(kw_only=True)
class Settings:
    shares: tuple = option("", (0.1, 0.2), type=SHARE, nargs="+")
    words: tuple = option("", (0, 0), type=number(int, 0), nargs=2)
    names: tuple = option("", ("a",), nargs="*", choices=("a", "b", "1"))


@pytest.mark.parametrize("words", [
    ("--shares", "0.1", "0.25", "0"),
    ("--words", "3", "1"),
    ("--names", "b", "1"),
    ("--names",),
])
def test_a_list_that_was_typed_is_read_back(words):
    typed = read_options(Settings, words)
    check_saved(Settings, json.loads(json.dumps(typed)), "args.json")


@pytest.mark.parametrize("saved", [
    {"shares": [0.1, 1.5]}, {"shares": ["0.1"]}, {"shares": [True]}, {"shares": 0.1},
    {"words": [1]}, {"words": [1, 2.5]}, {"words": [1, -2]}, {"words": [1, "2"]},
    {"names": [1]}, {"names": ["c"]}, {"names": [["a"]]}, {"names": [None]},
])
def test_a_list_that_could_not_be_typed_is_refused(saved):
    with pytest.raises(UserError, match="args.json: .* does not offer"):
        check_saved(Settings, saved, "args.json")
