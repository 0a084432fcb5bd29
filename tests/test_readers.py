"""corpora.sets: what `--data SPEC` opens, and what a bad line or file is told as."""
import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest

from corpora.builtin import SOURCE_ALONE
from corpora.lines import count_words
from corpora.sets import is_builtin, open_data, texts_of
from plumbing.files import UserError, read_json, size_and_checksum
from tokenizer import MBART25

PAIR = ("en_XX", "es_XX")
ROW = {
    "source": "one two three",
    "target": "four five",
    "source_lang": "en_XX",
    "target_lang": "es_XX",
}


def row(**changes):
    return json.dumps(ROW | changes, ensure_ascii=False) + "\n"


def opened(spec, split="train", pairs=(PAIR,), **options):
    return open_data(spec, "translate", split, pairs, MBART25, **options)


def without(name):
    return json.dumps({key: value for key, value in ROW.items() if key != name})


@pytest.mark.parametrize("line, message", [
    ("{broken", "not JSON"),
    ('["list"]', "expected a JSON object, found list"),
    (without("target_lang"), "'target_lang' must be text, found nothing"),
    (row(source=5), "found int"),
    (row(source=" "), "'source' is empty"),
    (row(source_lang="en"), "did you mean en_XX"),
    (b"\xff\xfe", "not UTF-8"),
    (row().encode("utf-16-le"), "has NUL characters"),
    (row().replace('"target"', '"source"', 1), "'source' stands there twice"),
    (row().replace('"four', '{"a": 1, "a": 2}, "x": "four'), "'a' stands there twice"),
    (row(source="\u200b\u2060"), "'source' is empty"),  # no shape, and no piece
    (row(target="\\x00").replace("\\\\x", "\\u00"), "'target' is empty"),
    (row().replace("four", "\\ud83d"), "'target' has half a character"),
])
def test_a_bad_line_is_reported_as_file_and_line(tmp_path, line, message):
    if isinstance(line, str):
        line = line.encode()
    (tmp_path / "train.jsonl").write_bytes(row().encode() * 330 + line)
    with pytest.raises(UserError, match="train.jsonl:331: .*" + message):
        opened(f"jsonl:{tmp_path}")


def test_a_file_gives_the_text_of_each_pair_by_number(tmp_path):
    lines = [row(source=f"map {i}", target=f"mapa {i}") for i in range(3)]
    lines.insert(1, row(source="карта", target="map", source_lang="ru_RU", target_lang="en_XX"))
    (tmp_path / "train.jsonl").write_text("".join(lines), encoding="utf-8")
    russian = ("ru_RU", "en_XX")
    data = opened(f"jsonl:{tmp_path}", pairs=[PAIR, russian])
    assert data.sizes == {PAIR: 3, russian: 1}
    assert data.text(PAIR, 2) == ("map 2", "mapa 2")
    assert data.text(russian, 0) == ("карта", "map")
    assert opened(f"jsonl:{tmp_path}").sizes == {PAIR: 3}


def test_parallel_files_are_read_by_line_and_unequal_ones_refused(tmp_path):
    for lang in PAIR:
        text = "".join(f"{lang} línea {i}\n" for i in range(5))
        (tmp_path / f"train.{lang}").write_text(text, encoding="utf-8")
    spec = f"parallel:{tmp_path}"
    pairs = [PAIR, PAIR[::-1]]
    data = opened(spec, pairs=pairs)
    assert data.sizes == dict.fromkeys(pairs, 5)
    assert data.text(("es_XX", "en_XX"), 3) == ("es_XX línea 3", "en_XX línea 3")
    with open(tmp_path / "train.es_XX", "a", encoding="utf-8") as file:
        file.write("una más\n")
    with pytest.raises(UserError, match="train.en_XX has 5 lines and train.es_XX has 6"):
        opened(spec, pairs=pairs)
    (tmp_path / "train.es_XX").write_text("a\nb\n\nd\ne\n")
    with pytest.raises(UserError, match="train.es_XX:3: an empty line"):
        opened(spec, pairs=pairs)


def test_parallel_files_that_are_one_line_to_us_alone_are_refused(tmp_path):
    """Carriage returns end the lines: as one example each, no count would tell three from two."""
    (tmp_path / "train.en_XX").write_bytes(b"a one\rb two\rc three")
    (tmp_path / "train.es_XX").write_bytes(b"x\ry\r")
    with pytest.raises(UserError, match="train.en_XX: its lines end with a carriage return alone"):
        opened(f"parallel:{tmp_path}")
    for lang in PAIR:  # the line ends of Windows are none of these
        (tmp_path / f"train.{lang}").write_bytes(b"a one\r\n")
    assert opened(f"parallel:{tmp_path}").text(PAIR, 0) == ("a one", "a one")


@pytest.mark.parametrize("spec, message", [
    ("xml:here", "expected builtin"),
    ("jsonl:/nowhere", "no folder"),
    ("jsonl:", "expected builtin"),
    ("builtin:", "share from 0 to 1"),
    ("builtin:half", "share from 0 to 1"),
    ("builtin:1.5", "share from 0 to 1"),
    ("builtin:nan", "share from 0 to 1"),
])
def test_a_wrong_data_spec_is_an_error_that_says_what_is_expected(spec, message):
    with pytest.raises(UserError, match=message):
        opened(spec)


def test_the_built_in_corpus_may_be_asked_for_with_a_share():
    assert opened("builtin").source_alone == SOURCE_ALONE == 0.0
    assert opened("builtin:0.25").source_alone == 0.25
    assert is_builtin("builtin") and is_builtin("builtin:0.25")
    assert not is_builtin("jsonl:builtin") and not is_builtin("builtins")


def test_the_built_in_corpus_names_its_languages_when_asked_for_another():
    with pytest.raises(UserError, match="has no 'it_IT'; it has en_XX es_XX"):
        opened("builtin", pairs=[("en_XX", "it_IT")])


def test_empty_and_missing_files_are_errors(tmp_path):
    with pytest.raises(UserError, match="train.jsonl: not found"):
        opened(f"jsonl:{tmp_path}")
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(UserError, match="train.jsonl: the file is empty"):
        opened(f"jsonl:{tmp_path}")
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "train.jsonl").mkdir()  # as Spark writes one
    with pytest.raises(UserError, match="train.jsonl: is a folder; join what it holds"):
        opened(f"jsonl:{tmp_path}")
    (tmp_path / "train.en_XX.gz").write_bytes(b"")
    with pytest.raises(UserError, match="train.en_XX: not found, only train.en_XX.gz: unpack it"):
        opened(f"parallel:{tmp_path}")


def test_bad_lines_are_skipped_and_counted_when_asked(tmp_path, capsys):
    lines = row() + "{broken\n" + row(target=7) + row(source_lang="xx") + row(source="b")
    (tmp_path / "train.jsonl").write_bytes(lines.encode() + b"\xff\n")
    with pytest.raises(UserError, match=r"train.jsonl:2: .*--skip-bad-lines"):
        opened(f"jsonl:{tmp_path}")
    data = opened(f"jsonl:{tmp_path}", skip=True, minimum=(2, 1))
    assert (data.skipped, data.short, data.sizes) == (4, 1, {PAIR: 1})
    assert "4 bad lines and 1 examples" in capsys.readouterr().err
    assert data.text(PAIR, 0) == ("one two three", "four five")
    with pytest.raises(UserError, match="no example in .* or mend the 6 that were left out"):
        opened(f"jsonl:{tmp_path}", skip=True, minimum=(50, 1))

    (tmp_path / "train.en_XX").write_text("a b\n\nc d\n")
    (tmp_path / "train.es_XX").write_text("e f\ng\nh\n")
    data = opened(f"parallel:{tmp_path}", skip=True, minimum=(2, 2))
    assert (data.skipped, data.short, data.sizes) == (1, 1, {PAIR: 1})
    assert data.text(PAIR, 0) == ("a b", "e f")


def test_xlsum_is_read_as_published(tmp_path):
    for name, word in (("english", "news"), ("turkish", "haber")):
        for split in ("train", "val", "test"):
            line = {
                "id": "1",
                "url": "u",
                "title": "t",
                "summary": f"{word} summary",
                "text": f"{word} {split} text",
            }
            (tmp_path / f"{name}_{split}.jsonl").write_text(json.dumps(line) + "\n")
    spec = f"xlsum:{tmp_path}"
    english = ("en_XX", "en_XX")
    turkish = ("tr_TR", "tr_TR")
    for split, published in (("train", "train"), ("valid", "val"), ("test", "test")):
        data = opened(spec, split, [english, turkish])
        assert data.text(turkish, 0) == (f"haber {published} text", "haber summary")
        assert data.text(english, 0) == (f"news {published} text", "news summary")
    with pytest.raises(UserError, match="own language only"):
        opened(spec, "test", [("en_XX", "tr_TR")])
    with pytest.raises(UserError, match="spanish_test.jsonl: not found"):
        opened(spec, "test", [("es_XX", "es_XX")])
    with pytest.raises(UserError, match="has no de_DE"):
        opened(spec, "test", [("de_DE", "de_DE")])


@pytest.mark.parametrize("valid", ["validation", "sampled_validation"])
def test_wikilingua_is_read_as_gem_exports_it(tmp_path, capsys, valid):
    spec = f"wikilingua:{tmp_path}"
    with pytest.raises(UserError, match="none of validation.jsonl, sampled_validation.jsonl"):
        opened(spec, "valid")
    for name in ("train", valid, "test"):
        line = {
            "gem_id": "x",
            "source": f"{name} document",
            "target": "short",
            "source_language": "es",
            "target_language": "en",
        }
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
    data = opened(spec, "valid", [("es_XX", "en_XX")])
    assert data.text(("es_XX", "en_XX"), 0) == (f"{valid} document", "short")
    is_part = valid.startswith("sampled")
    assert (f"{valid}.jsonl stands for validation.jsonl" in capsys.readouterr().err) == is_part
    with pytest.raises(UserError, match="no example in the languages asked for"):
        opened(spec, "valid", [("en_XX", "es_XX")])


def test_texts_of_gives_every_text_of_the_three_splits(tmp_path):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.jsonl").write_text(row(source=split) + row(target="x"))
    texts = list(texts_of(f"jsonl:{tmp_path}", "translate", [PAIR], MBART25))
    assert texts == [text for split in ("train", "valid", "test")
                     for text in (split, "four five", "one two three", "x")]
    pairs = [("en_XX", "en_XX"), ("es_XX", "es_XX")]
    endless = list(texts_of("builtin", "summarize", pairs, MBART25, stream=20))
    assert len(endless) == 2 * 2 * (20 + 2 + 2)  # sides x pairs x examples of each split


def test_a_byte_order_mark_is_read_over_at_the_start_of_any_line(tmp_path):
    mark = b"\xef\xbb\xbf"
    lines = [row(source=f"map {i}").encode() for i in range(3)]
    (tmp_path / "train.jsonl").write_bytes(mark + lines[0] + lines[1] + mark + lines[2])
    data = opened(f"jsonl:{tmp_path}")
    assert [data.text(PAIR, i)[0] for i in range(3)] == ["map 0", "map 1", "map 2"]
    for lang in PAIR:
        (tmp_path / f"train.{lang}").write_bytes(mark + b"one\r\n" + mark + b"two\r\n")
    data = opened(f"parallel:{tmp_path}")
    assert [data.text(PAIR, i) for i in range(2)] == [("one", "one"), ("two", "two")]
    (tmp_path / "train.en_XX").write_bytes(mark)
    with pytest.raises(UserError, match="train.en_XX:1: an empty line"):
        opened(f"parallel:{tmp_path}")


@pytest.mark.parametrize("kind, name", [("jsonl", "train.jsonl"), ("parallel", "train.en_XX")])
def test_a_git_lfs_pointer_is_called_one(tmp_path, kind, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match=f"{name}: only a Git LFS pointer.*git lfs pull"):
        opened(f"{kind}:{tmp_path}", skip=True)


@pytest.mark.parametrize("text, words", [
    ("one two - three", 4),
    ("今天天气很好。", 6),
    ("กินข้าว", 5),
    ("ກິນ", 2),
    ("မြန်မာ", 3),
    ("日本語、とEnglish text", 6),
    ("안녕 하세요", 2),
    ("три слова — тут", 4),
])
def test_a_word_of_a_script_without_spaces_is_a_character(text, words):
    assert count_words(text) == words


def test_word_limits_keep_long_chinese_text(tmp_path):
    chinese = row(source="今天天气很好。" * 5, target="好天气", target_lang="zh_CN")
    (tmp_path / "train.jsonl").write_text(chinese, encoding="utf-8")
    pair = ("en_XX", "zh_CN")
    data = opened(f"jsonl:{tmp_path}", pairs=[pair], minimum=(30, 3))
    assert (data.short, data.sizes) == (0, {pair: 1})


def test_languages_and_pairs_without_an_example_are_named(tmp_path, capsys, monkeypatch):
    (tmp_path / "train.jsonl").write_text(row() * 2)
    pairs = [PAIR, PAIR[::-1], ("fr_XX", "en_XX"), ("fr_XX", "fr_XX")]
    opened(f"jsonl:{tmp_path}", pairs=pairs)
    where = f"jsonl:{tmp_path}, train"
    assert capsys.readouterr().err.splitlines() == [
        f"note: {where}: fr_XX: no example", f"note: {where}: no example of es_XX-en_XX"
    ]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")  # another process of several
    opened(f"jsonl:{tmp_path}", pairs=pairs)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("kind", ["jsonl", "parallel"])
def test_a_file_that_changes_while_it_is_open_is_named(tmp_path, kind):
    def write(lines):
        for lang in PAIR:
            (tmp_path / f"train.{lang}").write_text("".join(f"{lang} {i}\n" for i in lines))
        (tmp_path / "train.jsonl").write_text("".join(row(source=f"map {i}") for i in lines))
        for path in tmp_path.iterdir():  # some file systems' clocks tick slower than this writes
            os.utime(path, (lines[0], lines[0]))

    def refused():
        with pytest.raises(UserError, match="changed after it was opened .*; start again") as told:
            data.text(PAIR, 1)
        assert str(told.value).startswith(str(tmp_path / "train."))
        return str(told.value)

    write(range(10, 20))
    data = opened(f"{kind}:{tmp_path}")
    assert data.text(PAIR, 1)[0].endswith(" 11")
    for path in tmp_path.iterdir():  # touched alone
        os.utime(path, (99, 99))
    assert data.text(PAIR, 1)[0].endswith(" 11")
    write(range(9, 20))
    assert "another size" in refused()
    write(range(10, 20))
    for path in tmp_path.iterdir():  # the same lines, three bytes further on
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "another size" in refused()
    write(range(20, 30))  # whole lines at the same places
    assert "its lines are others" in refused()
    assert "its lines are others" in refused()  # nor is it taken the next time
    for path in tmp_path.iterdir():
        path.unlink()
    assert "No such file" in refused()


def test_lines_of_a_language_that_the_model_lacks_are_passed_over(tmp_path):
    portuguese = row(source="mapa", source_lang="pt_XX")
    (tmp_path / "train.jsonl").write_text(row() + portuguese + row())
    assert opened(f"jsonl:{tmp_path}").sizes == {PAIR: 2}
    for wrong, hint in (("pt_BR", "; did you mean pt_XX?"), ("xx_XX", "")):
        (tmp_path / "train.jsonl").write_text(row() + row(source_lang=wrong))
        with pytest.raises(UserError) as told:
            opened(f"jsonl:{tmp_path}")
        assert f"train.jsonl:2: unknown language {wrong!r}{hint}; mend or" in str(told.value)


@contextmanager
def permissions_hold():
    """Within, files without permissions cannot be read, whoever runs the tests."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("read, name", [
    (lambda: opened("jsonl:data"), "train.jsonl"),
    (lambda: opened("parallel:data"), "train.en_XX"),
    (lambda: read_json("data/config.json"), "config.json"),
    (lambda: size_and_checksum("data/model"), "model"),
])
def test_a_file_that_may_not_be_read_is_named(tmp_path, read, name):
    tmp_path.chmod(0o755)
    path = Path("data") / name  # from here: the folders above are closed to others
    path.parent.mkdir()
    path.parent.chmod(0o755)  # whatever the umask
    path.write_text(row())
    path.chmod(0)
    with permissions_hold():
        with pytest.raises(UserError, match=f"data/{name}: cannot be read .Permission denied.; "):
            read()


def test_a_folder_that_may_not_be_searched_is_named(tmp_path):
    tmp_path.chmod(0o755)
    Path("data").mkdir()
    Path("data").chmod(0)
    with permissions_hold():
        with pytest.raises(UserError, match="data: cannot be read .Permission denied"):
            opened("jsonl:data")
