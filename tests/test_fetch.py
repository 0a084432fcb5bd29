"""corpora.fetch against a small hub on the loopback address, with Parquet files as the hub has."""
import json
import os

import pytest

from corpora.fetch import main as fetch
from corpora.fetch import split_of, xlsum_name
from corpora.sets import open_data
from plumbing.files import UserError
from tokenizer import MBART25

BRANCH = "refs/convert/parquet"
SPLITS = ("train", "validation", "test")


def xlsum_row(word, split):
    return {"id": "1", "url": "u", "title": "t", "summary": f"{word} s", "text": f"{word} {split}"}


def wiki_row(source, target, split):
    return {
        "gem_id": "1", "gem_parent_id": "1", "source_language": source, "target_language": target,
        "source": f"{source} {split}", "target": f"{target} short",
    }  # fmt: skip


def write(path, rows):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture
def xlsum(hub, tmp_path):
    """English as of 2023, its training examples in two parts; Spanish as the hub names them now."""
    root = tmp_path / "hub"
    for split in SPLITS:
        write(root / f"spanish/{split}/0000.parquet", [xlsum_row("spanish", split)])
        if split != "train":
            write(root / f"english/xlsum-{split}.parquet", [xlsum_row("english", split)])
    for part in range(2):
        path = root / f"english/xlsum-train-0000{part}-of-00002.parquet"
        write(path, [xlsum_row("english", f"train {part} {i}") for i in range(300)])
    hub.add("datasets/csebuetnlp/xlsum").put(root, BRANCH)
    return hub


@pytest.fixture
def wikilingua(hub, tmp_path):
    """Languages, and pairs of them in both directions; sampled_* as distractors."""
    root = tmp_path / "hub"
    for split in (*SPLITS, "sampled_validation", "sampled_test"):
        for lang in ("en", "es", "ru"):
            rows = [wiki_row(lang, lang, split)] * 2
            write(root / f"{lang}/wiki_lingua-{split}.parquet", rows)
        mixed = [wiki_row(a, b, split) for a in ("es", "en") for b in ("es", "en")]
        write(root / f"es_en/wiki_lingua-{split}.parquet", mixed)
    hub.add("datasets/GEM/wiki_lingua").put(root, BRANCH)
    return hub


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_xlsum_is_written_as_its_authors_distribute_it_and_read_by_its_name(run, xlsum, tmp_path):
    done = run("-m", "corpora.fetch", "xlsum", "english", "es_XX", "--out", tmp_path / "xlsum")
    assert done.returncode == 0, done.stderr
    assert "CC BY-NC-SA 4.0, https://creativecommons.org" in done.stdout
    licence = (tmp_path / "xlsum" / "LICENCE.txt").read_text()
    commit = xlsum.repositories["datasets/csebuetnlp/xlsum"].revisions[BRANCH]
    assert "CC BY-NC-SA 4.0" in licence and commit in licence
    found = lines(tmp_path / "xlsum" / "english_train.jsonl")
    assert len(found) == 600 and found[0] == xlsum_row("english", "train 0 0")
    assert found[-1] == xlsum_row("english", "train 1 299")
    pairs = [("en_XX", "en_XX"), ("es_XX", "es_XX")]
    for split, published in (("train", "train"), ("valid", "validation"), ("test", "test")):
        data = open_data(f"xlsum:{tmp_path}/xlsum", "summarize", split, pairs, MBART25)
        assert data.text(pairs[1], 0) == (f"spanish {published}", "spanish s")


def test_a_reader_of_the_output_who_leaves_costs_no_file(xlsum, tmp_path, monkeypatch):
    """As `| head -3` does, which the licence fills."""

    def gone(text, *rest, **words):
        if "examples" in text:
            raise BrokenPipeError

    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(BrokenPipeError):
        fetch(["xlsum", "spanish", "--out", str(tmp_path / "xlsum")])
    path = tmp_path / "xlsum" / "spanish_train.jsonl"
    assert lines(path) == [xlsum_row("spanish", "train")]


@pytest.mark.parametrize("kind", ["xlsum", "wikilingua"])
def test_what_is_missing_says_how_to_fetch_it(tmp_path, kind):
    pair = ("es_XX", "es_XX")
    (tmp_path / "empty").mkdir()
    for folder, hint in (
        ("nowhere", "corpora.fetch --help"),
        ("empty", rf"corpora.fetch {kind} .*--out {tmp_path}/empty.*` fetches"),
    ):
        with pytest.raises(UserError, match=hint):
            open_data(f"{kind}:{tmp_path}/{folder}", "summarize", "test", [pair], MBART25)


def test_files_of_xlsum_that_are_there_stay(run, xlsum, tmp_path):
    words = ["-m", "corpora.fetch", "xlsum", "spanish", "--out", tmp_path / "xlsum"]
    assert run(*words).returncode == 0
    path = tmp_path / "xlsum" / "spanish_val.jsonl"
    path.write_text("mine\n")
    assert f"{path} is there already" in run(*words).stdout
    assert path.read_text() == "mine\n"
    assert run(*words, "--overwrite").returncode == 0
    assert lines(path) == [xlsum_row("spanish", "validation")]


def test_wikilingua_is_one_file_of_all_pairs_that_were_named(run, wikilingua, tmp_path):
    out = tmp_path / "wiki"
    words = ["-m", "corpora.fetch", "wikilingua", "en", "es", "ru_RU", "es-en", "--out", out]
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert "CC BY-NC-SA 3.0" in done.stdout and "(en: 2, es: 2, ru: 2, es-en: 1)" in done.stdout
    assert "CC BY-NC-SA 3.0" in (out / "LICENCE.txt").read_text()
    pairs = [("en_XX", "en_XX"), ("es_XX", "es_XX"), ("ru_RU", "ru_RU"), ("es_XX", "en_XX")]
    for split, published in (("train", "train"), ("valid", "validation"), ("test", "test")):
        data = open_data(f"wikilingua:{out}", "summarize", split, pairs, MBART25)
        assert data.sizes == dict(zip(pairs, (2, 2, 2, 1)))
        assert data.text(pairs[3], 0) == (f"es {published}", "en short")
    assert not any("sampled" in file for file in wikilingua.fetched())
    done = run(*words)
    assert done.returncode == 2 and "it holds all languages" in done.stderr
    done = run("-m", "corpora.fetch", "wikilingua", "en-es", "--out", out, "--overwrite")
    assert done.returncode == 0, done.stderr  # a pair is looked for the other way round too
    assert [row["target_language"] for row in lines(out / "train.jsonl")] == ["es"]


def test_what_is_not_there_is_told_in_one_line_and_leaves_no_half_file(run, wikilingua, tmp_path):
    out = tmp_path / "wiki"
    for words, message in (
        (["wikilingua", "tr"], "has no Parquet files of tr, train"),
        (["wikilingua", "ru-en"], "has no Parquet files of en_ru, train"),
        (["wikilingua", "spain"], "unknown language 'spain'. It has ar cs"),
        (["wikilingua", "es-en-ru"], "name a language, es, or a pair, es-en"),
        (["xlsum", "englsh"], "did you mean english?"),
        (["xlsum", "en_US"], "unknown language 'en_US'. It has arabic"),
        (["xlsum", "english"], "shows no dataset csebuetnlp/xlsum"),
    ):
        done = run("-m", "corpora.fetch", *words, "--out", out)
        assert done.returncode == 2 and message in done.stderr, (words, done.stderr)
        assert len(done.stderr.splitlines()) == 1
        assert not list(out.glob("*"))
    wikilingua.close()
    done = run("-m", "corpora.fetch", "wikilingua", "es", "--out", out)
    assert done.returncode == 2 and "the Hugging Face hub cannot be reached" in done.stderr
    assert f"start again with a network and without HF_HUB_OFFLINE, or copy {out}" in done.stderr


def test_a_folder_has_the_licence_of_all_that_was_fetched_into_it(run, xlsum, tmp_path):
    out = tmp_path / "xlsum"
    words = ("-m", "corpora.fetch", "xlsum")
    assert run(*words, "english", "--out", out).returncode == 0
    first = (out / "LICENCE.txt").read_text()
    xlsum.repositories["datasets/csebuetnlp/xlsum"].put(tmp_path / "hub", BRANCH)  # a new commit
    assert run(*words, "english", "spanish", "--out", out).returncode == 0
    both = (out / "LICENCE.txt").read_text()
    assert both.startswith(first) and both.count("licence: CC BY-NC-SA 4.0") == 2
    assert run(*words, "spanish", "--out", out, "--overwrite").returncode == 0
    assert (out / "LICENCE.txt").read_text() == both

    (out / "LICENCE.txt").write_text("mine")
    done = run(*words, "english", "--out", out, "--overwrite")
    assert done.returncode == 2 and "holds one data set; name another folder" in done.stderr
    assert (out / "LICENCE.txt").read_text() == "mine"


@pytest.mark.parametrize("word", ["english", "English", "en_XX", "en"])
def test_a_language_may_be_named_as_one_is_used_to(word):
    assert xlsum_name(word) == "english"


def test_the_splits_of_wikilingua_are_replaced_together_or_not_at_all(run, wikilingua, tmp_path):
    out = tmp_path / "wiki"
    words = ["-m", "corpora.fetch", "wikilingua", "--out", out, "--overwrite"]
    assert run(*words, "en").returncode == 0
    licence = (out / "LICENCE.txt").read_text(encoding="utf-8")
    before = {path.name: path.read_bytes() for path in out.glob("*.jsonl")}
    row = wiki_row("ru", "ru", "new")  # a new commit, of which nothing will be written
    write(tmp_path / "hub" / "ru" / "wiki_lingua-new.parquet", [row])
    wikilingua.repositories["datasets/GEM/wiki_lingua"].put(tmp_path / "hub", BRANCH)
    wikilingua.cuts["es/wiki_lingua-test.parquet"] = -1
    done = run(*words, "es")
    assert done.returncode == 2 and "cannot be reached" in done.stderr
    assert {path.name: path.read_bytes() for path in out.glob("*.jsonl*")} == before
    repository = wikilingua.repositories["datasets/GEM/wiki_lingua"]
    del repository.commits[repository.revisions[BRANCH]]["ru/wiki_lingua-test.parquet"]
    del wikilingua.asked[:]
    done = run(*words, "ru")
    assert done.returncode == 2 and "no Parquet files of ru, test" in done.stderr
    assert {path.name: path.read_bytes() for path in out.glob("*.jsonl*")} == before
    assert wikilingua.fetched() == []
    assert (out / "LICENCE.txt").read_text(encoding="utf-8") == licence


def test_an_end_between_the_renamings_leaves_no_old_split_beside_new_ones(
    run, wikilingua, tmp_path, monkeypatch
):
    out = tmp_path / "wiki"
    words = ["-m", "corpora.fetch", "wikilingua", "--out", out, "--overwrite"]
    assert run(*words, "en").returncode == 0
    before = {path.name: path.read_bytes() for path in out.glob("*.jsonl")}
    renamed = []

    def stopped(temporary, path):
        if str(path).endswith(".jsonl"):
            if renamed:
                raise KeyboardInterrupt
            renamed.append(path)
        os.replace(temporary, path)

    monkeypatch.setattr("plumbing.files.put_in_place", stopped)
    assert run(*words, "es").returncode == 130
    (left,) = out.glob("*.jsonl")
    assert left.read_bytes() != before[left.name]
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"wikilingua LANGUAGE \.\.\. .*--overwrite` fetches all"):
        for split in ("train", "valid", "test"):
            open_data(f"wikilingua:{out}", "summarize", split, [("es_XX", "es_XX")], MBART25)


def test_a_damaged_parquet_file_is_named(run, hub, tmp_path):
    pytest.importorskip("pyarrow")
    for split in SPLITS:
        path = tmp_path / f"hub/spanish/{split}/0000.parquet"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"PAR1 nothing")
    hub.add("datasets/csebuetnlp/xlsum").put(tmp_path / "hub", BRANCH)
    done = run("-m", "corpora.fetch", "xlsum", "spanish", "--out", tmp_path / "out")
    assert done.returncode == 2 and "0000.parquet: damaged" in done.stderr


def test_without_pyarrow_the_error_says_what_to_install(run, hub, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    done = run("-m", "corpora.fetch", "xlsum", "spanish", "--out", tmp_path / "out")
    assert done.returncode == 2 and "pip install pyarrow" in done.stderr and hub.asked == []


@pytest.mark.parametrize("name, split", [
    ("wiki_lingua-train.parquet", "train"),
    ("wiki_lingua-sampled_test.parquet", "sampled_test"),
    ("xlsum-train-00000-of-00002.parquet", "train"),
    ("0000.parquet", "0000"),
])
def test_the_name_of_a_file_tells_its_split(name, split):
    assert split_of(name) == split
