"""papers/: verdicts and tables from made-up scores, and a reproduce.sh whose commands all parse."""
import json
import math
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import PATIENCE, ROOT, check_command

import train
from model import MBart
from papers import claims, findings, pictures, report, scores, tables
from papers.claims import Comparison, Difference, by_intervals, every_seed
from papers.scores import ACROSS, BUILT_IN, HELP, WITHIN, Interval, Row
from plumbing.files import UserError, size_and_checksum
from plumbing.runs import write_state

EXAMPLES = 6  # in every made-up row
REMEMBERED = (scores.results, scores.rates, scores.of_other_data, claims.told_numbers)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty project to write results into, and nothing remembered of another test's."""
    monkeypatch.chdir(tmp_path)
    for remembered in REMEMBERED:
        remembered.cache_clear()
    yield tmp_path
    for remembered in REMEMBERED:
        remembered.cache_clear()


def write_scores(
    name, seed, pairs, rouge=50.0, off_target=0.0, bleu=20.0, facts=True, loss=1.0, **marks
):
    """A score file as eval.py writes it and papers.keep keeps it; outputs lie a few points around
    the figures given. marks: what else it says."""
    rows = []
    for pair in pairs:
        source, target = pair.split("-")
        around = np.random.default_rng([seed, len(rows)]).normal(0, 1, EXAMPLES)
        each = {
            "R1": (rouge + around).tolist(),
            "off-target": [off_target] * EXAMPLES,
            "off-target-p": [off_target + 0.4] * EXAMPLES,
            "facts": (rouge - 10 + around).tolist() if facts else None,
            "novel": [rouge / 5] * (EXAMPLES - 1) if source == target else None,
        }
        means = {}
        for metric, numbers in each.items():
            if numbers is not None:
                means[metric] = [float(np.mean(numbers)), 0, 100]
        each["R1-stem"] = None  # as eval.py has it where a language has no stemmer
        if target != "gu_IN":
            each["R1-stem"] = [rouge + 3] * EXAMPLES
        means |= {"BLEU": [bleu, 0, 100], "chrF": [bleu + 10, 0, 100]}
        floor = {
            "R1": [5.0, 0, 10],
            "off-target": [100.0, 0, 100],
            "off-target-p": [99.8, 0, 100],
        }
        floor["R1-stem"] = None if target == "gu_IN" else [5.0, 0, 10]
        floor["facts"] = [2.0, 0, 4] if facts else None
        references = {"off-target": [2.0, 0, 4], "off-target-p": [2.5, 0, 4]}
        rows.append(
            {
                "source": source,
                "target": target,
                "n": EXAMPLES,
                "scores": means,
                "each": each,
                "floors": {"random": floor, "lead": floor},
                "references": references,
                "examples": [],
            }
        )
    content = {"stage": "summarize", "validation loss": loss, "rows": rows}
    return write_result(name, seed, content | marks)


def write_layers(name, seed, probabilities, retrieved=0.5):
    """The two files of tools.layers for a model whose layers' probes find these probabilities."""
    probed = []
    found = []
    for probability in probabilities:
        layer = {
            "probe": {
                "accuracy": 0.99,  # for all: no order may come of it
                "probability": probability,
                "rescaled": 0.98,
                "confusion": [[1.0]],
            },
            "svcca": {"en_XX es_XX": 0.5, "en_XX ru_RU": 0.7},
            "svcca floor": {"en_XX es_XX": 0.3, "en_XX ru_RU": 0.34},
        }
        probed.append(layer)
        pairs = {
            "en_XX es_XX": retrieved,
            "en_XX ru_RU": retrieved,
            "es_XX ru_RU": retrieved,
            "en_XX tr_TR": retrieved / 2,
        }
        found.append({"retrieval": pairs})
    write_result(f"{name}+probe", seed, {"layers": {"encoder": probed, "decoder": probed}})
    write_result(f"{name}+retrieval", seed, {"layers": {"encoder": found, "decoder": found}})


def watched_at(*steps):
    """Lines of watch.csv."""
    lines = []
    for step in steps:
        for pair in HELP.within:
            source, target = pair.split("-")
            line = {"step": str(step), "source": source, "target": target, "column": "R1"}
            lines.append(line | {"score": "12.5", "off-target": "1.5"})
    return lines


def write_result(name, seed, content):
    path = Path(f"papers/scores/{name}-s{seed}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_rate(name, loss):
    """A score file that has a validation loss and no scores."""
    stem, _, seed = name.rpartition("-s")
    return write_result(stem, seed, {"validation loss": loss, "rows": []})


# ---------------------------------------------------------------------------------- statistics


def test_an_interval_holds_the_mean_and_is_narrow_where_seeds_agree():
    around = np.random.default_rng(0).normal(0, 1, 100)
    agreeing = scores.interval(np.array([around, around]))
    assert agreeing.low < agreeing.mean < agreeing.high
    assert agreeing.mean == pytest.approx(around.mean())
    differing = scores.interval(np.array([around - 5, around + 5]))
    assert differing.high - differing.low > 5 * (agreeing.high - agreeing.low)


def test_an_interval_of_three_seeds_that_differ_holds_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        sample = rng.normal(0, 6, (3, 1)) + rng.normal(0, 20, 100) + rng.normal(0, 22, (3, 100))
        found = scores.interval(sample)
        held += found.low <= 0 <= found.high
    assert held >= 376  # a bootstrap of the seeds as they are: some 340
    assert scores.interval(sample[:1]).seeds == 1


@pytest.mark.parametrize("seeds", [2, 3, 4, 5])
def test_seeds_are_widened_by_students_t(seeds):
    """The t that is undone here has 97.5% of Student's distribution below it, by the closed forms
    for 1 to 4 degrees of freedom."""
    t = scores.widening(seeds) * 1.96 / math.sqrt(seeds / (seeds - 1))
    below = {
        2: 1 / 2 + math.atan(t) / math.pi,
        3: 1 / 2 + t / (2 * math.sqrt(2 + t**2)),
        4: 1 / 2 + (t / math.sqrt(3) / (1 + t**2 / 3) + math.atan(t / math.sqrt(3))) / math.pi,
        5: 1 / 2 + 3 / 8 * t / math.sqrt(1 + t**2 / 4) * (1 - t**2 / (12 + 3 * t**2)),
    }
    assert below[seeds] == pytest.approx(0.975, abs=2e-4)
    assert scores.widening(1) == 1


def test_intervals_of_scores_end_where_scores_do():
    found = scores.score_interval(np.array([np.zeros(50), np.full(50, 3.0), np.zeros(50)]))
    assert (found.low, found.seeds) == (0, 3) and found.high > 3


def test_a_difference_is_taken_between_the_same_seeds_and_examples(folder):
    for seed, rouge in ((0, 10.0), (1, 60.0)):
        write_scores("first", seed, ACROSS, rouge)
    for seed, rouge in ((1, 50.0), (2, 90.0)):
        write_scores("second", seed, ACROSS, rouge)
    found = scores.difference("first", "second", ACROSS[0], "R1")
    assert found.low == pytest.approx(10) and found.high == pytest.approx(10)  # of seed 1 alone
    write_scores("third", 7, ACROSS)
    assert scores.difference("first", "third", ACROSS[0], "R1") is None
    assert scores.difference("first", "nowhere", ACROSS[0], "R1") is None


def test_the_best_rate_has_the_lowest_validation_loss_on_the_seeds_that_all_rates_have(folder):
    paths = [
        write_rate("rate-qk-1e-3-s0", 2.0),
        write_rate("rate-qk-2e-3-s0", 1.9),
        write_rate("rate-qk-4e-3-s0", 2.1),
        write_rate("rate-qk-4e-3-s1", 0.5),  # the others have no such seed: it must not count
    ]
    found = scores.best_rate([*paths, folder / "rate-qk-8e-3-s0.json"])
    assert found.best == "2e-3"
    assert found.losses == {"1e-3": 2.0, "2e-3": 1.9, "4e-3": 2.1}


def test_rates_without_a_run_or_a_common_seed_are_refused(folder):
    with pytest.raises(UserError, match="no score file"):
        scores.best_rate([folder / "rate-qk-1e-3-s0.json"])
    apart = [write_rate("rate-qk-1e-3-s0", 1.0), write_rate("rate-qk-2e-3-s1", 1.0)]
    with pytest.raises(UserError, match="no seed was run at every learning rate"):
        scores.best_rate(apart)


# ---------------------------------------------------------------------------------- verdicts

ABOVE = Difference("R1 a", Interval(2.0, 1.0, 3.0, 3))
BELOW = Difference("R1 b", Interval(-2.0, -3.0, -1.0, 3))
OPEN = Difference("R1 c", Interval(0.5, -1.0, 2.0, 3))
ALONE = Difference("R1 d", Interval(2.0, 1.0, 3.0, 1))
UNKNOWN = Difference("R1 d", None)


@pytest.mark.parametrize(
    "differences, word",
    [
        ([ABOVE, ABOVE], "supported"),
        ([ABOVE, UNKNOWN], "not measured"),  # a claim is of all its pairs
        ([ABOVE, ALONE], "one seed: 2 of 2 for it, 0 against"),
        ([BELOW, BELOW], "contradicted"),
        ([ABOVE, BELOW, OPEN], "mixed: 1 of 3 for it, 1 against"),
        ([OPEN, OPEN], "open"),
        ([BELOW, OPEN], "leans against: 1 of 2"),
        ([ABOVE, OPEN, OPEN], "leans for: 1 of 3"),
        ([UNKNOWN], "not measured"),
        ([], "not measured"),
    ],
)
def test_a_verdict_follows_from_the_intervals(differences, word):
    claim = by_intervals("a", "a claim", differences)
    assert claim.verdict.startswith(word)
    assert claim.evidence.count("R1") == (0 if word == "not measured" else len(differences))


def test_the_evidence_shows_mean_and_interval():
    assert by_intervals("a", "a claim", [ABOVE]).evidence == (
        "seeds: 3; R1 a +2.0 [+1.0, +3.0]"
    )


@pytest.mark.parametrize(
    "pairs, word",
    [
        ([([2, 3], [1, 1])], "supported (2 of 2 seeds)"),
        ([([1, 1], [2, 3])], "contradicted (2 of 2 seeds)"),
        ([([2, 3], [1, 1]), ([1, 1], [2, 3])], "mixed: 1 of 2 for it, 1 against"),
        ([([2, 1], [1, 2])], "open"),
        ([([2], [1])], "one seed: 1 of 1 for it, 0 against"),
        ([([2, 3], [1, 1]), ([], [2, 3])], "not measured"),
    ],
)
def test_a_claim_on_numbers_by_seed_must_hold_in_every_seed(pairs, word):
    comparisons = []
    for above, below in pairs:
        by_seed = [{str(seed): x for seed, x in enumerate(numbers)} for numbers in (above, below)]
        comparisons.append(Comparison("BLEU", *by_seed))
    assert every_seed("g", "a claim", comparisons).verdict.startswith(word)


def test_a_seed_is_compared_with_itself_alone():
    """Where a run of seed 0 is missing on one side."""
    claim = every_seed("g", "x", [Comparison("BLEU", {"0": 9, "1": 2}, {"1": 1, "2": 5})])
    assert claim.verdict.startswith("one seed") and claim.evidence == "BLEU: 2.0 against 1.0"
    claim = every_seed("g", "x", [Comparison("BLEU", {"0": 9}, {"1": 1})])
    assert claim.verdict == "not measured"


def test_the_probes_probabilities_must_be_in_order_and_apart_in_every_seed(folder):
    names = ("joint-full", "joint-standard", "joint-balanced", "joint-balanced-drop")
    names += ("joint-qk-balanced",)
    for name, last in zip(names, (0.9, 0.8, 0.7, 0.6, 0.5)):
        for seed in (0, 1):
            write_layers(name, seed, [0.5, last + 0.01 * seed])
            write_scores(name, seed, ACROSS, rouge=100 - 100 * last)
    order, correlation = claims.probing_claims(BUILT_IN)
    assert order.verdict == "supported (2 of 2 seeds)"
    assert "joint-full > joint-standard, %: 90.0 91.0 against 80.0 81.0" in order.evidence
    assert correlation.verdict == "supported" and "over 5 settings;" in correlation.evidence

    scores.results.cache_clear()
    write_layers("joint-standard", 1, [0.5, 0.95])  # above full's
    order, _ = claims.probing_claims(BUILT_IN)
    assert order.verdict == "leans for: 2 of 3"


def test_a_correlation_pairs_each_run_with_its_own_seed(folder):
    for seed in range(5):
        write_layers("joint-full", seed, [0.5, 0.5 + 0.1 * seed])
    for seed in range(1, 6):  # seed 0 was not scored, seed 5 not probed
        write_scores("joint-full", seed, ACROSS, rouge=90 - 10 * seed)
    points = claims.probed_and_scored("joint-full")
    assert len(points) == 4
    probability, rouge = np.mean(points, 0)
    assert probability == pytest.approx(75) and rouge == pytest.approx(65, abs=1)
    assert claims.probed_and_scored("joint-qk") == []


def test_a_correlation_is_of_settings_and_must_hold_among_those_with_an_adversary(folder):
    """Seeds of a setting are no runs of their own, and two clusters correlate by themselves."""
    settings = {
        "joint-full": (0.98, 3),
        "joint-qk": (0.99, 1),
        "joint-tagless": (0.97, 3),
        "joint-standard": (0.64, 31),
        "joint-balanced": (0.56, 30),
        "joint-balanced-drop": (0.42, 28),
        "joint-qk-balanced": (0.5, 29),
    }
    for name, (probability, rouge) in settings.items():
        for seed in range(3):
            write_layers(name, seed, [0.5, probability])
            write_scores(name, seed, ACROSS, rouge)
    claim = claims.probing_correlation(BUILT_IN)
    assert claim.verdict == "mixed: 1 of 2 for it, 1 against"
    everywhere, with_one, of_full = claim.evidence.split("; ")
    assert everywhere.startswith("Pearson r = -0.9") and everywhere.endswith("over 7 settings")
    assert with_one.startswith("Pearson r = +") and "4 settings with an adversary" in with_one
    assert "over the 3 of these under `full`, without an interval" in of_full


def test_one_base_gives_no_verdict_on_where_retrieval_peaks(folder):
    layers = [{"retrieval": {f"en_XX {lang}": share for lang in ("es_XX", "ru_RU", "tr_TR")}}
              for share in (0.1, 0.1, 0.2, 0.9, 0.2, 0.1, 0.8)]
    assert claims.retrieval_peak().verdict == "not measured"
    write_result("base+retrieval", 0, {"layers": {"encoder": layers, "decoder": layers}})
    scores.results.cache_clear()
    claim = claims.retrieval_peak()
    assert claim.verdict == "one seed: 2 of 2 for it, 0 against"
    assert "% of layer 3 above last layer +10.0 [+10.0, +10.0]" in claim.evidence
    assert claim.evidence.endswith("embedding to last layer: 10.0 10.0 20.0 90.0 20.0 10.0 80.0")


def test_a_smaller_recipe_is_compared_with_full_at_both_rates(folder):
    """On the built-in corpus `full` collapses at the rate of qk: that alone would say too much."""
    for recipe, rate, rouge, loss in (
        ("full", "1e-3", 50.0, 1.0), ("full", "4e-3", 5.0, 2.0), ("qk", "4e-3", 48.0, 1.0)
    ):
        for seed in (0, 1):
            write_scores(f"rate-{recipe}-{rate}", seed, WITHIN, rouge, loss=loss)
            write_scores("frozen_decoder", seed, WITHIN, rouge=45.0)
    words = {claim.text: claim.verdict for claim in claims.recipe_claims(BUILT_IN)}
    text = "`frozen_decoder` lies above `full` at {} zero-shot"
    assert words[text.format("`qk`'s rate")] == "supported"
    assert words[text.format("its own best rate")] == "contradicted"
    texts = {claim.text for claim in claims.recipe_claims(HELP)}
    assert text.format("its own best rate") in texts and text.format("`qk`'s rate") not in texts


def test_the_summary_counts_the_verdicts_of_each_group():
    words = ["open", "leans for: 1 of 3", "open", "one seed: 1 of 1 for it"]
    words += ["supported", "supported (3 of 3 seeds)"]
    assert tables.counted(words) == "2 supported, 1 leans for, 2 open, 1 one seed"
    found = {"one": [claims.Claim("b", "a claim", "open")], "two": []}
    lines = tables.summary_table(found).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| b | its price on English (A) | 1 open | – |")
    assert list(tables.GROUPS) == list("abcdefghi")


def test_r_is_supported_where_its_interval_lies_below_zero():
    r, low, high = claims.correlation(np.array([[0, 1, 2, 3, 4], [4, 3, 2.2, 1, 0]]))
    assert r < -0.99 and low < r < high < 0
    r, low, high = claims.correlation(np.array([[0, 1, 2, 3], [1, 0, 2, 0]]))
    assert low < 0 < high


def test_within_two_points_lies_between_one_less_and_three_less(folder):
    for name, rouge in (("one", 49.0), ("three", 47.0), ("qk", 50.0)):
        write_scores(name, 0, WITHIN[:1], rouge)
    (near,) = claims.within_two("one", "qk", WITHIN[:1])
    (far,) = claims.within_two("three", "qk", WITHIN[:1])
    assert near.interval.mean == pytest.approx(1) and near.interval.low > 0
    assert far.interval.mean == pytest.approx(-1) and far.interval.high < 0
    (unknown,) = claims.within_two("one", "nowhere", WITHIN[:1])
    assert unknown.interval is None


def test_a_mean_difference_is_over_pairs_and_needs_them_all(folder):
    write_scores("first", 0, ACROSS[:2], rouge=50.0)
    write_scores("second", 0, ACROSS[:1], rouge=40.0)
    assert scores.mean_difference("first", "second", ACROSS[:2], "R1") is None
    scores.results.cache_clear()
    write_scores("second", 0, ACROSS[:2], rouge=40.0)
    found = scores.mean_difference("first", "second", ACROSS[:2], "R1")
    assert found.low == pytest.approx(10) and found.high == pytest.approx(10)


def test_each_attempt_at_an_unseen_target_has_its_own_verdict(folder):
    write_rate("rate-full-1e-3-s0", 1.0)
    write_rate("rate-qk-1e-3-s0", 1.0)
    for seed in (0, 1):
        write_scores("joint-balanced-again", seed, ACROSS, off_target=50.0)
        write_scores("joint-balanced-mix-tr", seed, ACROSS, off_target=5.0)
        write_scores("joint-balanced-aligned", seed, ACROSS, off_target=80.0)
    words = {claim.text: claim.verdict for claim in claims.unseen_target_claims()}
    assert len(words) == 5
    assert [word for text, word in words.items() if "en, es, ru, tr" in text] == ["supported"]
    assert [word for text, word in words.items() if "alignment" in text] == ["contradicted"]


def test_what_was_not_measured_is_no_verdict(folder):
    write_rate("rate-full-1e-3-s0", 1.0)
    write_rate("rate-qk-1e-3-s0", 1.0)
    found = claims.claims()
    assert {claim.letter for claim in found["built-in corpus"]} == set("abcdefghi")
    assert {claim.letter for claim in found["real text"]} == set("abcdef")
    for of_corpus in found.values():
        assert {claim.verdict for claim in of_corpus} == {"not measured"}


def test_a_conclusion_stands_beside_the_verdict_that_it_was_written_for(folder, monkeypatch):
    text = "`qk` lies above `vqk` zero-shot (published: es −0.3, ru +0.2, gu +0.8)"
    written = {("built-in corpus", text): ("contradicted", "Leave values in.")}
    monkeypatch.setattr(claims, "CONCLUSIONS", written)
    for rouge, conclusion in ((60.0, "Leave values in."), (40.0, "")):
        scores.results.cache_clear()
        for seed in (0, 1):
            write_scores("qk", seed, WITHIN, rouge=50.0)
            write_scores("vqk", seed, WITHIN, rouge=rouge)
        found = {claim.text: claim for claim in claims.claims()["built-in corpus"]}
        assert found[text].conclusion == conclusion


def test_a_conclusion_tells_the_scores_that_are_kept(folder):
    for rate, loss in (("1e-3", 2.0), ("2e-3", 1.0)):
        for recipe in ("full", "qk"):
            write_scores(f"help-rate-{recipe}-{rate}", 0, HELP.within, off_target=30.0, loss=loss)
    assert claims.told_numbers()["es_3000"] == "30 to 30"
    assert "{loss_8000}" in "{loss_8000}".format_map(claims.told_numbers())
    claims.told_numbers.cache_clear()
    scores.results.cache_clear()
    scores.rates.cache_clear()
    write_scores("help-rate-full-2e-3", 1, HELP.within, off_target=50.0, loss=1.0)
    write_scores("help-long-full-2e-3", 0, HELP.within, off_target=60.0, loss=0.5)
    write_scores("help-long-full-2e-3", 1, HELP.within, off_target=70.0, loss=0.7)
    sentence = "{loss_3000} to {loss_8000}, {es_8000}% in place of {ru_3000}%"
    told = sentence.format_map(claims.told_numbers())
    assert told == "1.00 to 0.60, 60 to 70% in place of 30 to 50%"
    assert claims.told_numbers()["more_es"].startswith("25 points more [")


def test_every_claim_that_is_not_plainly_supported_has_a_conclusion(folder, monkeypatch):
    """In the scores that the repository keeps: papers/words.py."""
    monkeypatch.chdir(ROOT)
    found = claims.claims()
    lacking = []
    for title, of_corpus in found.items():
        for claim in of_corpus:
            if not claim.verdict.startswith(("supported", "not measured")) and not claim.conclusion:
                lacking.append(f"{title}: {claim.text}: {claim.verdict}")
            if "{" in claim.conclusion:
                lacking.append(f"{title}: {claim.text}: a number")
    assert not lacking
    texts = {(title, claim.text) for title, of_corpus in found.items() for claim in of_corpus}
    assert set(claims.CONCLUSIONS) <= texts


@pytest.mark.slow
def test_the_pages_are_those_that_the_kept_scores_give(folder, monkeypatch):
    """Else somebody wrote by hand, or changed papers/ or papers/scores/ without papers.report."""
    monkeypatch.chdir(ROOT)
    found = claims.claims()
    drawn = [name for name in pictures.DRAWN if (ROOT / f"papers/pictures/{name}.svg").is_file()]
    shown = {name: pictures.markdown_of(name) for name in drawn}
    again = "run .venv-dev/bin/python -m papers.report"
    for page, text in (
        ("RESULTS.md", report.results_page(found, shown)),
        ("CLAIMS.md", report.claims_page(found)),
    ):
        kept = (ROOT / "papers" / page).read_text(encoding="utf-8").splitlines()
        differing = [line for line in text.splitlines() if line not in kept]
        assert not differing, f"papers/{page}: {again}; it has not: {differing[0]}"
        assert kept == text.splitlines(), f"papers/{page}: {again}"


# Rows of the README's tables of scores, by how they begin: the rows of score files they are of.
README_ROWS = {
    "every layer trained": (BUILT_IN, "rate-full-4e-3"),
    "the same at its own best rate": (BUILT_IN, "rate-full-1e-3"),
    "queries and keys alone": (BUILT_IN, "rate-qk-4e-3"),
    "`base/` as it is": (BUILT_IN, "base"),
    "no model: the document's first": (BUILT_IN, "lead"),
    "`full` at 1e-3 |": (HELP, "help-rate-full-1e-3"),
    "`full` at 2e-3, its best": (HELP, "help-rate-full-2e-3"),
    "`full` at 4e-3,": (HELP, "help-rate-full-4e-3"),
    "`qk` at 2e-3 |": (HELP, "help-rate-qk-2e-3"),
    "`qk` at 4e-3, its best": (HELP, "help-rate-qk-4e-3"),
    "`full+embeddings` at": (HELP, "help-full+embeddings"),
    "`frozen_decoder` at": (HELP, "help-frozen_decoder"),
    "`attn_ln` at": (HELP, "help-attn_ln"),
    "`vqk` at": (HELP, "help-vqk"),
    "`q` at": (HELP, "help-q"),
    "`full` at 2e-3, `--steps": (HELP, "help-long-full-2e-3"),
    "`qk` at 2e-3, `--steps": (HELP, "help-long-qk-2e-3"),
    "`base-help/` as it is": (HELP, "help-base"),
    "no model: the section's first": (HELP, "lead"),
    "no model: another section's": (HELP, "random"),
}


@pytest.mark.parametrize("begin", README_ROWS)
def test_the_readme_shows_the_scores_that_are_kept(folder, monkeypatch, begin):
    monkeypatch.chdir(ROOT)
    corpus, name = README_ROWS[begin]
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {begin}")]
    cells = [cell.strip() for cell in line.strip("|").split("|")][1:]
    has_model = name not in ("lead", "random")
    if corpus is HELP:
        seeds = str(len(scores.results(name))) if has_model else tables.NOTHING
        assert cells.pop(0) == seeds
    for pair, cell in zip(corpus.within, cells, strict=True):
        if has_model:
            rouge = scores.values(name, pair, "R1").mean()
            off_target = scores.values(name, pair, "off-target").mean()
            assert cell == f"{rouge:.1f} / {off_target:.0f}%", pair
        else:
            assert cell == f"{scores.floors_of(corpus, pair)[name]['R1'][0]:.1f}", pair


# ---------------------------------------------------------------------------------- tables


def test_layers_are_read_by_side_and_retrieval_by_what_alignment_saw(folder):
    write_layers("base", 0, [0.25, 0.75], retrieved=0.5)
    assert scores.probe_of("base").tolist() == [[0.25, 0.75]]
    assert scores.probe_of("base", "decoder", "accuracy").tolist() == [[0.99, 0.99]]
    assert scores.probe_of("base", "decoder", "rescaled").tolist() == [[0.98, 0.98]]
    assert scores.svcca_of("base").tolist() == [[0.6, 0.6]]
    assert scores.svcca_of("base", key="svcca floor") == pytest.approx(np.full((1, 2), 0.32))
    assert scores.retrieval_of("base").tolist() == [[43.75, 43.75]]
    assert scores.retrieval_of("base", unseen=False).tolist() == [[50, 50]]
    assert scores.retrieval_of("base", unseen=True).tolist() == [[25, 25]]
    mixed = ("en_XX es_XX", "en_XX tr_TR")
    assert scores.retrieval_of("base", only=mixed).tolist() == [[37.5, 37.5]]
    without = scores.retrieval_of("base", except_for=mixed[1:])
    assert without.tolist() == [[50, 50]]
    assert scores.probe_of("nowhere") is None and scores.retrieval_of("nowhere") is None


@pytest.mark.parametrize("missing", ["layers", "probability", "svcca floor"])
def test_layers_in_an_earlier_form_are_refused_by_name(folder, missing):
    write_layers("base", 0, [0.5])
    write_layers("base", 1, [0.5])
    path = Path("papers/scores/base+probe-s1.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    if missing == "layers":
        content = {"probe": content.pop("layers")}
    else:
        for layers in content["layers"].values():
            layers[0].pop(missing, None)
            layers[0]["probe"].pop(missing, None)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"scores/base\+probe-s1\.json.*remove it"):
        scores.probe_of("base")


def test_a_row_takes_its_own_files_alone(folder):
    write_scores("child-src", 0, ["de_DE-en_XX"], bleu=10.0)
    write_scores("child-src+body", 0, ["de_DE-en_XX"], bleu=20.0)
    write_scores("child-src-scratch", 0, ["de_DE-en_XX"], bleu=30.0)
    assert list(scores.scores_of("child-src", "BLEU").values()) == [10.0]
    assert list(scores.scores_of("child-src-scratch", "BLEU").values()) == [30.0]


def test_scores_and_losses_of_another_base_are_left_out_and_told(folder, capsys, monkeypatch):
    monkeypatch.setattr(report, "pictures", dict)
    for recipe in ("full", "qk"):
        write_rate(f"rate-{recipe}-1e-3-s0", 1.0)
    write_scores("rate-qk-2e-3", 0, WITHIN, loss=0.5, origin=[[1, 2]])
    write_scores("few-qk-10", 0, WITHIN[1:2], rouge=20.0, origin=[[1, 2]])
    write_scores("few-qk-10", 1, WITHIN[1:2], rouge=30.0, origin=scores.own_origins()[0])
    write_scores("few-qk-10", 2, WITHIN[1:2], rouge=40.0)  # as written before there was a mark
    report.write(folder / "RESULTS.md")
    page = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "- `qk`: 1e-3: 1.0000; best: 1e-3" in page
    assert "| `qk`, then 10 Spanish examples | 2 | 35." in page
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "few-qk-10-s0.json and 1 more in papers/scores/ left out, of another base" in told[0]
    assert "few-qk-10-s2.json and 2 more in papers/scores/ taken as of today's" in told[1]


def test_scores_in_an_earlier_form_are_refused_by_name(folder):
    write_scores("row", 0, WITHIN)
    path = Path("papers/scores/row-s0.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    for row in content["rows"]:
        del row["each"]["off-target-p"]
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(UserError, match=r"scores/row-s0\.json.*remove it"):
        tables.score_cell(Row("a row", "row"), WITHIN[0])


def test_scores_can_be_of_one_pair(folder):
    write_scores("both", 0, ["en_XX-es_XX"], bleu=20.0)
    write_scores("both", 1, ["en_XX-es_XX", "es_XX-en_XX"], bleu=30.0)
    assert scores.scores_of("both", "BLEU") == {"0": 20.0, "1": 30.0}
    assert scores.scores_of("both", "BLEU", "es_XX-en_XX") == {"1": 30.0}


def test_like_stands_beside_like_in_a_cell(folder):
    write_scores("row", 0, WITHIN, rouge=50.0, off_target=10.0)
    figures = {"es_XX-es_XX": "30.0 / 0.1%", "gu_IN-gu_IN": "19.6 / 0.0%"}
    row = Row("a row", "row", figures)
    spanish = tables.score_cell(row, "es_XX-es_XX")
    assert "<br>10% (10.4%) · " in spanish
    assert spanish.endswith("<br><sub>stemmed 53.0; published 30.0 / 0.1%</sub>")
    gujarati = tables.score_cell(row, "gu_IN-gu_IN")
    assert gujarati.endswith("<br><sub>ours unstemmed; published 19.6 / 0.0%</sub>")
    assert "sub" not in tables.score_cell(row, "tr_TR-tr_TR")


def test_a_missing_score_is_a_dash_and_published_figures_stay_beside_it(folder):
    write_scores("there", 0, WITHIN[:1], rouge=50.0, off_target=100.0)
    rows = [
        Row("there", "there", {WITHIN[1]: "30.0 / 0.1%"}),
        Row("only published", "nowhere", {WITHIN[0]: "40.1"}),
        Row("neither", "nowhere"),
    ]
    table = tables.score_table(rows, WITHIN[:2], BUILT_IN).splitlines()
    assert table[0] == "| trained | seeds | en→en | es→es |"
    assert table[2].startswith("| baseline: another text's headline | – | – |")
    assert table[4] == "| the references themselves | – | – | – |"
    assert table[5].startswith("| there | 1 | ") and "<br>100% (100.4%) · " in table[5]
    assert table[5].endswith("| –<br><sub>published 30.0 / 0.1%</sub> |")
    assert table[6] == "| only published | 0 | –<br><sub>published 40.1</sub> | – |"
    assert table[7:] == ["| neither | 0 | – | – |"]


def test_a_report_without_scores_names_the_script(folder):
    with pytest.raises(UserError, match="reproduce.sh"):
        report.write(folder / "RESULTS.md")


def test_the_best_rate_is_printed_for_the_script(folder, run):
    write_rate("rate-qk-1e-3-s0", 2.0)
    write_rate("rate-qk-4e-3-s0", 1.0)
    paths = sorted(Path("papers/scores").iterdir())
    done = run("-m", "papers.report", "--best-rate", *paths, cwd=folder)
    assert (done.returncode, done.stdout) == (0, "4e-3\n")


def test_a_report_of_one_half_has_no_tables_of_the_other(folder, monkeypatch):
    monkeypatch.setattr(report, "pictures", dict)
    for recipe, rouge in (("full", 10.0), ("qk", 12.0)):
        write_scores(f"help-rate-{recipe}-1e-3", 0, HELP.within, rouge, facts=False)
    write_scores("help-base", 0, HELP.within, facts=False)
    report.write(folder / "RESULTS.md")
    page = (folder / "RESULTS.md").read_text(encoding="utf-8")
    assert "| `qk` at 1e-3, its best | 1 | 12." in page
    assert "**English alone, on the real text: " in page
    assert "alone, on the built-in corpus" not in page and "## Open questions" not in page


def test_the_baselines_are_told_before_the_untuned_base_was_run(folder):
    """Every score file has them."""
    for recipe, rouge in (("full", 10.0), ("qk", 4.0)):
        write_scores(f"help-rate-{recipe}-1e-3", 0, HELP.within, rouge, facts=False)
    table = tables.score_table(scores.english_only(HELP), HELP.within, HELP).splitlines()
    other, lead, references = table[2:5]
    assert other.count("| 5.0<br>100% (99.8%) ") == lead.count("| 5.0<br>100%") == 4
    assert references == "| the references themselves | – |" + " –<br>2% (2.5%) |" * 4
    assert tables.off_target_references(HELP) == "en 2.0%, es 2.0%, ru 2.0%, tr 2.0%"
    assert scores.english_only(HELP)[0].label == "`full` at 1e-3, the best of both"
    told = " ".join(findings.of_forgetting(HELP).split())
    assert "first sentence has 5.0, another text's heading 5.0." in told
    assert tables.NOTHING not in told


def test_what_a_lower_rate_keeps_is_told_and_how_far_seeds_differ(folder):
    of_rates = [("1e-3", 0, [2.5]), ("2e-3", 4, [2.25, 2.0]), ("4e-3", 40, [3.0, 4.0])]
    for rate, off_target, losses in of_rates:
        for seed, loss in enumerate(losses):
            name = f"help-rate-full-{rate}"
            write_scores(
                name, seed, HELP.within, 20.0, off_target=off_target, facts=False, loss=loss
            )
    write_scores("help-rate-qk-4e-3", 0, HELP.within, 15.0, facts=False, loss=2.75)
    told = " ".join(findings.of_forgetting(HELP).split())
    assert "`full` loses 0% at 1e-3 (one seed), 4% at 2e-3 and 40% at 4e-3, `qk` " in told
    assert "at 2e-3 and 4e-3 `full` has a loss of 2.12 and 3.50; " in told
    assert "the seeds at 2e-3 have 2.00 to 2.25." in told


def test_rows_beside_which_a_finding_is_read_are_told_where_they_were_run(folder):
    pairs = [*scores.SEEN_TARGET, "tr_TR-tr_TR", "en_XX-tr_TR"]
    for name in ("joint-full", "joint-qk", "joint-balanced", "two-step-qk", "two-step-full"):
        write_scores(name, 0, pairs, 10.0)
    write_scores("two-step-full-best", 0, pairs, 33.0, off_target=7)
    write_scores("joint-balanced-drop", 0, pairs, 28.0)
    told = findings.of_languages(BUILT_IN)
    told = " ".join(told.split())
    assert "with `full` (7% at its best rate on English)." in told
    assert "(`balanced` with residual drop) has " in told


@pytest.mark.slow
def test_a_report_is_written_with_its_pictures_from_what_is_there(folder, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(report.INTERPRETATIONS, "freezing", "Little is enough.")
    for recipe, rouge in (("full", 10.0), ("qk", 50.0)):
        for rate, loss in (("1e-3", 2.0), ("4e-3", 1.0)):
            name = f"rate-{recipe}-{rate}"
            write_scores(name, 0, WITHIN, rouge, off_target=60 - rouge, loss=loss)
            watched = watched_at(0, 500)
            write_scores(
                f"help-{name}", 0, HELP.within, rouge, facts=False, loss=loss, watched=watched
            )
        write_scores(f"curve-{recipe}@50", 0, WITHIN, rouge)
        write_scores(f"curve-{recipe}@100", 0, WITHIN, rouge)
    write_scores("rate-lora-2e-3", 0, WITHIN, rouge=40.0, loss=1.5)
    write_scores("dec_qk", 0, WITHIN, rouge=49.0)
    write_scores("supervised", 0, WITHIN, rouge=60.0)
    names = ["base", "joint-full", "joint-standard", "joint-balanced", "two-step-qk"]
    names += ["joint-qk", "two-step-full"]
    for name in [*names, "joint-align", "joint-align-es"]:
        write_scores(name, 0, [*WITHIN, *ACROSS[:-1]])
        write_layers(name, 0, [0.5, 0.9, 0.8, 0.7])
    write_scores("help-base", 0, [*HELP.within, *ACROSS[:-1]], facts=False)
    write_scores("help-joint-full", 0, ACROSS, rouge=31.0, facts=False)
    for name in ("joint-balanced", "joint-qk", "two-step-qk", "two-step-full"):
        write_scores(f"help-{name}", 0, ACROSS, facts=False)
    write_scores("translator-qk", 0, scores.TRANSLATED, off_target=40.0, bleu=33.0)
    for name in ("translator", "translator-full", "translator-full-slow"):
        write_scores(name, 0, scores.TRANSLATED, bleu=30.0)
    for recipe in scores.LOW_RESOURCE:
        for seed, bleu in ((0, 10.0), (1, 14.0)):
            write_scores(f"low-{recipe}@300", seed, ["de_DE-en_XX"], bleu=bleu)
    for side in ("child-src", "child-tgt"):
        for what in ("", "+xattn", "+body"):
            write_scores(f"{side}{what}", 0, ["de_DE-en_XX"], bleu=20.0)
            write_scores(f"{side}{what}+parent", 0, ["fr_XX-en_XX"], bleu=90.0)
    write_scores("child-src-scratch", 0, ["de_DE-en_XX"], bleu=1.0)
    write_result("child-src+dictionary", 0, {"dictionary": {"accuracy": 0.5}})
    Path("papers/scores/sizes.txt").write_text("recipe  base\nqk  792,576\n", encoding="utf-8")

    report.write(Path("RESULTS.md"))
    page = Path("RESULTS.md").read_text(encoding="utf-8")
    evidence = Path("CLAIMS.md").read_text(encoding="utf-8")
    assert "| a | full finetuning on English loses the other languages" in evidence
    lower = next(line for line in evidence.splitlines() if line.startswith("| a | and the lower"))
    assert lower.endswith(
        "| one seed: 4 of 4 for it, 0 against | one seed: 3 of 3 for it, 0 against |"
    )
    verdict = "**one seed: 4 of 4 for it, 0 against** |  | seeds: 1; R1 es→es +40."
    assert f"| a | and the lower zero-shot ROUGE-1 | {verdict}" in evidence
    flat = " ".join(page.split())
    lost = "50% at 1e-3 (one seed) and 50% at 4e-3 (one seed)"
    assert f"`full` loses {lost}, `qk` 10% at most (2 rates)." in flat
    assert "At these `full` has 50% of the outputs in unseen languages off-target" in flat
    assert "| `qk` at 4e-3, its best | 10.0 [10.0, 10.0] |" in page  # words of its own
    assert "| `full`, tagged | 1 | 31." in page
    assert "- `qk`: 1e-3: 2.0000 (10%), 4e-3: 1.0000 (10%); best: 4e-3" in page
    layers = "0.50 0.90 0.80 0.70 | 0.50 0.90 0.80 0.70"
    floors = " ".join(["0.60 (0.32)"] * 4)
    assert f"| `full`, tagged | 0.700 | 0.989 | 0.990 | 0.980 | {layers} | {floors} |" in page
    four = "{0:.1f} {0:.1f} {0:.1f} {0:.1f}".format
    assert "| de→en `src` | 1 | 20.0 | 30.0 | 50.0 | 90.0 |" in page
    assert f"| `full`, aligned | {four(50)} | {four(25)} | {four(43.8)} |" in page
    base = MBart.from_pretrained(ROOT / "base")
    trained = base.config.decoder_layers * 2 * (128 * 128 + 128)  # q and k of every layer
    share = 100 * trained / sum(tensor.numel() for tensor in base.parameters())
    assert f"| `qk` in the cross-attention alone | 1 | {share:.1f} | 49." in page
    assert "Little is enough." in page
    assert "- `lora`: 2e-3: 1.5000 (0%); best: 2e-3" in page
    assert "| LoRA of rank 12 at 2e-3 | 1 | 40." in page
    assert "| translation model, then `qk` | 1 | 33.0<br>40% | 33.0<br>40% |" in page
    assert "| layer 3, en-es alone | 1 | 50.0 | 50.0 | 25.0 | " in page
    assert "| `src+xattn` | – | 12.0 [10.0, 14.0] | – | – | – |" in page
    assert "qk  792,576" in page
    for name in pictures.DRAWN:
        assert f"pictures/{name}.svg" in page
        assert "<svg" in Path(f"papers/pictures/{name}.svg").read_text(encoding="utf-8")


def test_a_row_that_was_measured_in_part_leaves_its_part_in_every_picture(folder):
    """Two rows with retrieval and no scores of all pairs."""
    pytest.importorskip("matplotlib")
    for recipe in ("full", "qk"):
        write_rate(f"rate-{recipe}-1e-3-s0", 1.0)
    for name in ("joint-full", "joint-align"):
        write_layers(name, 0, [0.5, 0.9, 0.8, 0.7])
    write_scores("joint-align", 0, ACROSS[:1])
    shown = pictures.pictures()
    assert {"alignment", "probing", "retrieval"} <= set(shown)


# ---------------------------------------------------------------------------------- reproduce.sh

# For Python: it writes down what it is asked to run, and leaves the files that stop a second run
# and the models that others start from.
STAND_IN = """#!/usr/bin/env bash
model() { mkdir -p "$1" && touch "$1/config.json"; }
printf '%s\\n' "$*" >> "$COMMANDS"
[ "$2 $3" = "tools.new_language fresh" ] && model "$5"
[ "$2 $3" = "tools.delta merge" ] && model "$5"
for word in "$@"; do
    [ "${before:-}" = --json ] && touch "$word"
    [ "${before:-}" = --out ] && model "$word"
    if [ "${before:-}" = --best-rate ]; then
        case $word in *long-full-*) echo 1e-3 ;; *rate-full-*) echo 2e-3 ;; *) echo 4e-3 ;; esac
    fi
    before=$word
done
exit 0
"""


def reproduce(folder, *options):
    """The commands that reproduce.sh runs, as lists of words; nothing is computed."""
    done, commands = run_script(folder, *options)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return commands


def run_script(folder, *options, has_help=True, stand_in=STAND_IN):
    """The ended process of reproduce.sh, and the commands that it ran."""
    if has_help:
        (folder / "data/help").mkdir(parents=True, exist_ok=True)
    environment = prepared(folder, stand_in)
    done = subprocess.run(
        ["bash", folder / "papers/reproduce.sh", *options],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    lines = environment["COMMANDS"].read_text().splitlines()
    return done, [line.split() for line in lines]


def prepared(folder, stand_in):
    """The environment of a copy of the scripts in `folder` that has `stand_in` for Python; what
    that notes down goes to the file COMMANDS."""
    (folder / "papers").mkdir(exist_ok=True)
    for script in ROOT.glob("papers/*.sh"):
        shutil.copy(script, folder / "papers")
    python = folder / "python"
    python.write_text(stand_in)
    python.chmod(0o755)
    commands = folder / "commands"
    commands.write_text("")
    return {"PATH": "/usr/bin:/bin", "PYTHON": python, "COMMANDS": commands}


@pytest.mark.slow
def test_every_command_of_reproduce_sh_parses(tmp_path, monkeypatch):
    commands = reproduce(tmp_path, "--seeds", "0 1", "--jobs", "4")
    programs = {words[1] if words[0] == "-m" else words[0] for words in commands}
    assert programs == {
        "train.py",
        "eval.py",
        "tools.delta",
        "tools.layers",
        "tools.new_language",
        "papers.dictionary",
        "papers.keep",
        "papers.pipeline",
        "papers.report",
    }
    monkeypatch.chdir(tmp_path)
    for words in commands:
        try:
            check_command(words, monkeypatch)
        except (SystemExit, UserError) as error:
            pytest.fail(f"{' '.join(words)}: {error}")


def test_every_run_of_reproduce_sh_has_the_preset_that_results_tells_of(tmp_path, monkeypatch):
    """Batches, dropout, clipping and how often the classifier learns: of the small preset."""
    trainings = [words[1:] for words in reproduce(tmp_path, "--seeds", "0") if "train.py" in words]
    for looks_at_folders in ("pinned", "decide", "check"):
        monkeypatch.setattr(train, looks_at_folders, lambda given: given)
    monkeypatch.setattr(train, "model_folder", lambda name, weights: ROOT / "base")
    for words in trainings:
        if "--resume" not in words:
            settings = train.parse_args(words)
            assert settings.preset == "small", words
            assert (settings.tokens, settings.accumulate, settings.dropout) == (1600, 1, 0), words
    assert len(trainings) > 100


def test_reproduce_sh_trains_every_row_of_the_tables(tmp_path):
    """A row that a table shows and no command makes would stay empty for ever."""
    reproduce(tmp_path, "--seeds", "0", "--jobs", "4")
    made = {path.stem.removesuffix("-s0") for path in (tmp_path / "results").glob("*-s0.*")}
    for table in (
        scores.OTHER_RECIPES,
        scores.FINER,
        scores.FEW_SHOT,
        scores.JOINT,
        scores.QK_AND_ADVERSARY,
        scores.UNSEEN_TARGET,
        scores.JOINT_ALIGNED,
        scores.TRANSLATORS,
        scores.CHILDREN,
        scores.BOTH_SIDES,
    ):
        assert {row.name for row in table} <= made
    assert {f"{row.name}+probe" for row in scores.PROBED} <= made
    assert {f"{row.name}+retrieval" for row in scores.RETRIEVED} <= made
    aligned = [scores.UNALIGNED, *scores.ALIGNED_LAYERS, *scores.ALIGNED_LANGUAGES]
    for row in aligned:
        assert {row.name, f"{row.name}+retrieval"} <= made
    for recipe in scores.LOW_RESOURCE:
        for sentences in scores.SENTENCES:
            assert scores.low_resource(recipe, sentences) in made
    assert "rate-lora-4e-3" in made
    for row in ("full-1e-3", "full-2e-3", "qk-2e-3", "qk-4e-3"):
        assert f"help-long-{row}" in made
    for row in scores.OTHER_RECIPES:
        if row.recipe:
            assert {f"help-try-{row.name}-{rate}" for rate in ("1e-3", "2e-3", "4e-3")} <= made
            assert {f"own-{row.name}-{rate}" for rate in ("5e-4", "1e-3", "8e-3")} <= made
            assert f"help-{row.name}" in made
    assert {f"help-{row.name}+retrieval" for row in scores.HELP_RETRIEVED} <= made
    assert {"help-base", "help-rate-full-2e-3", "help-rate-qk-4e-3"} <= made
    assert scores.EMBEDDINGS_LOWER.name in made
    assert {"help-joint-balanced+probe", "help-rate-qk-4e-3+descriptions"} <= made


def test_longer_runs_take_the_best_of_their_own_rates(tmp_path):
    made = set()
    for words in reproduce(tmp_path, "--parts", "14", "--seeds", "0 1"):
        if words[0] == "train.py":
            made.add(Path(option(words, "--out")).name)
    assert {name for name in made if "long" in name} == {
        "help-long-full-1e-3-s0",
        "help-long-full-2e-3-s0",
        "help-long-qk-2e-3-s0",
        "help-long-qk-4e-3-s0",
        "help-long-full-1e-3-s1",
        "help-long-qk-4e-3-s1",
    }


@pytest.mark.parametrize("words, seeds", [([], "0"), (["--seeds", "all"], "01234")])
def test_every_row_is_run_once_or_as_the_kept_scores_were_made(tmp_path, words, seeds):
    made = set()
    for command in reproduce(tmp_path, "--parts", "1", *words):
        if command[0] == "train.py":
            made.add(Path(option(command, "--out")).name)
    for name in ("rate-full-2e-3", "rate-qk-4e-3"):
        assert {f"{name}-s{seed}" for seed in seeds} == {
            run for run in made if run.startswith(f"{name}-s")
        }


def test_the_shares_in_the_tables_are_of_the_recipes_that_are_run(tmp_path):
    trained = {}
    for words in reproduce(tmp_path, "--seeds", "0"):
        if words[0] == "train.py" and "--recipe" in words and "base-help" not in words:
            name = Path(option(words, "--out")).name.removesuffix("-s0")
            trained[name] = (option(words, "--recipe"), option(words, "--recipe-layers"))
    shown = [row for row in [*scores.OTHER_RECIPES, *scores.FINER] if row.recipe]
    assert len(shown) == 15
    for row in shown:
        assert trained[row.name] == (row.recipe, row.layers)


def option(words, name):
    """The value of an option on a command line; None if it is not there."""
    return words[words.index(name) + 1] if name in words else None


def test_parts_run_one_by_one_and_name_the_part_that_makes_what_is_missing(tmp_path):
    done, commands = run_script(tmp_path, "--parts", "1")
    assert done.returncode == 0 and not done.stderr
    recipes = {option(words, "--recipe") for words in commands if words[0] == "train.py"}
    assert recipes == {"full", "qk"}

    done, commands = run_script(tmp_path, "--parts", "10 13", "--seeds", "all")
    assert done.returncode == 1 and "rows are not there" in done.stderr
    assert "MISSING runs/paper/translate, for results/translator-qk-s2.json: run --parts 3 first" \
        in done.stderr
    assert "MISSING runs/paper/parent-s0, for results/both-start-s0.done: run --parts 7" \
        in done.stderr

    inits = {option(words, "--init") for words in commands if words[0] == "train.py"}
    assert inits == {None}  # the base alone

    run_script(tmp_path, "--parts", "3 10", "--seeds", "all")
    assert len(list(tmp_path.glob("results/translator-*.json"))) == 10

    shutil.rmtree(tmp_path / "runs/paper/translate")  # part 3 has its row, and would not run it
    (tmp_path / "results/translator-qk-s0.json").unlink()
    done, _ = run_script(tmp_path, "--parts", "10")
    assert done.returncode == 1
    assert "for results/translator-qk-s0.json: remove results/translate.json, and run --parts 3" \
        in done.stderr


def test_scores_of_two_versions_of_the_data_are_not_put_together(folder, run):
    """As where data/help was prepared anew between two rows."""
    write_scores("rate-full-1e-3", 0, WITHIN)
    newer = write_scores("rate-full-2e-3", 0, WITHIN)
    tried = [str(path) for path in sorted(Path("papers/scores").glob("rate-*.json"))]
    scores.check_test_sets(tried)
    whole = json.loads(newer.read_text(encoding="utf-8"))
    for part, value in (("n", EXAMPLES + 1), ("floors", {"lead": {"R1": [5.1, 0, 10]}})):
        rows = [*whole["rows"][:-1], whole["rows"][-1] | {part: value}]
        newer.write_text(json.dumps(whole | {"rows": rows}), encoding="utf-8")
        for words in (["--best-rate", *tried], []):
            done = run("-m", "papers.report", *words, cwd=folder)
            assert done.returncode == 2 and "Traceback" not in done.stderr
            assert "rate-full-2e-3-s0.json has" in done.stderr
            assert "two versions of the data" in done.stderr


def test_a_row_is_not_called_the_best_rates_after_another_rate_was_tried(folder):
    write_scores("help-try-q-4e-3", 0, WITHIN[:1], loss=3.0)
    for seed, mark in enumerate([{}, {"learning rate": 0.004}]):  # older files do not say it
        write_scores("help-q", seed, WITHIN, **mark)
    row = scores.Row("`q`", "q")
    assert scores.of_corpus(row, HELP).label == "`q` at 4e-3"
    write_scores("help-try-q-8e-3", 0, WITHIN[:1], loss=2.9)
    scores.rates.cache_clear()
    with pytest.raises(UserError, match=r"help-q-s1.json.* of 0\.004, and 8e-3 is the best now"):
        scores.of_corpus(row, HELP)


def test_runs_on_two_versions_of_a_training_file_are_not_put_together(folder):
    """The test files may be the same all the same."""
    sections = {"data/help/sections/train.jsonl": [10, 1]}
    descriptions = {"data/help/descriptions/train.jsonl": [20, 2]}
    paths = [
        write_scores("help-base", 0, WITHIN),  # of no run
        write_scores("help-one", 0, WITHIN, **{"data fingerprint": sections}),
        write_scores("help-other", 0, WITHIN, **{"data fingerprint": sections | descriptions}),
    ]
    scores.check_test_sets(paths)
    changed = {"data/help/sections/train.jsonl": [10, 3]}
    paths.append(write_scores("help-third", 0, WITHIN, **{"data fingerprint": changed}))
    with pytest.raises(UserError, match=r"help-third.*sections/train\.jsonl.*two versions"):
        scores.check_test_sets(paths)


def test_of_two_versions_of_the_data_the_one_that_is_here_counts_and_the_other_is_told(folder):
    """As where a reader prepares the help anew and runs the first seed of what is kept."""
    file = Path("data/help/sections/train.jsonl")
    file.parent.mkdir(parents=True)
    file.write_text("{}\n")
    new = {"data fingerprint": {str(file): size_and_checksum(file)}}
    old = {"data fingerprint": {str(file): [1, 2]}}
    for seed, version in enumerate((new, old, old)):
        write_scores("help-rate-full-1e-3", seed, HELP.within, rouge=10.0 * seed, **version)
        write_scores("help-rate-full-1e-3+descriptions", seed, HELP.within[:1])
    write_scores("help-rate-full-2e-3", 1, HELP.within, loss=0.5, **old)
    scores.check_test_sets(Path("papers/scores").glob("*.json"))
    assert list(scores.results("help-rate-full-1e-3")) == ["0"]
    assert list(scores.results("help-rate-full-1e-3+descriptions")) == ["0"]
    assert scores.rates("help-")["full"].losses == {"1e-3": 1.0}
    (told,) = [line for line in scores.doubtful_files() if "version of the data" in line]
    assert "help-rate-full-1e-3+descriptions-s1.json and 4 more" in told
    file.write_text("[]\n")  # neither version
    scores.of_other_data.cache_clear()
    with pytest.raises(UserError, match="two versions of the data"):
        scores.check_test_sets(Path("papers/scores").glob("*.json"))


def test_a_row_is_compared_with_runs_of_its_own_machine(tmp_path):
    """Part 11's rows with the adversary's, which part 5 may have run elsewhere."""
    results = tmp_path / "results"
    results.mkdir()
    for elsewhere in (True, False):
        reproduce(tmp_path, "--parts", "3 5", "--seeds", "0")
        seconds = (results / "seconds.csv").read_text()
        assert re.search(r"^5,joint-balanced-s0\.json,\d+,.+,2$", seconds, re.MULTILINE)
        if elsewhere:
            seconds = re.sub(r"(joint-balanced-s0\.json,\d+),.*,", r"\1,Another,", seconds)
            (results / "seconds.csv").write_text(seconds)
        (results / "joint-balanced-s0.json").write_text("scored")
        _, commands = run_script(tmp_path, "--parts", "11", "--seeds", "0")
        again = results / "joint-balanced-again-s0.json"
        assert (again.read_text() == "scored") == (not elsewhere)
        outs = [option(words, "--out") for words in commands if words[0] == "train.py"]
        assert ("runs/paper/joint-balanced-again-s0" in outs) == elsewhere
        shutil.rmtree(results)


def test_rates_that_were_not_tried_are_told_with_their_part(tmp_path):
    fails = "#!/usr/bin/env bash\nexit 2\n"
    done, _ = run_script(tmp_path, "--parts", "2", has_help=False, stand_in=fails)
    assert done.returncode == 2 and "run --parts 1 first" in done.stderr


# For Python: it waits to be told to end, as train.py is, for ten minutes at most.
WAITING = """#!/usr/bin/env bash
trap 'echo ended >> "$COMMANDS"; exit 1' TERM
echo begun >> "$COMMANDS"
for _ in {1..6000}; do sleep 0.1; done
"""


def test_ctrl_c_ends_the_rows_too(tmp_path):
    """A shell's background jobs do not hear it by themselves."""
    environment = prepared(tmp_path, WAITING)
    commands = environment["COMMANDS"]
    script = subprocess.Popen(
        ["bash", tmp_path / "papers/reproduce.sh", "--parts", "1", "--jobs", "2"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # Where the tests run in the background it is ignored, and no shell can change that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    )
    end = time.monotonic() + PATIENCE
    while commands.read_text().split() != ["begun", "begun"]:
        assert script.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    script.send_signal(signal.SIGINT)
    assert script.wait(PATIENCE) == 130
    assert commands.read_text().split() == ["begun", "begun", "ended", "ended"]


def test_a_row_that_two_tables_want_is_run_once(tmp_path):
    """Also while it still runs, as where full and qk have the same best rate."""
    same = STAND_IN.replace("*rate-full-*) echo 2e-3", "*rate-full-*) echo 4e-3")
    same = same.replace("exit 0", "sleep 0.1\nexit 0")
    _, commands = run_script(tmp_path, "--parts", "1 14 15", "--jobs", "4", stand_in=same)
    outs = [option(words, "--out") for words in commands if words[0] == "train.py"]
    assert len(outs) > 30 and len(outs) == len(set(outs))


def test_finished_rows_are_not_run_again(tmp_path):
    first = reproduce(tmp_path, "--seeds", "0")
    again = reproduce(tmp_path, "--seeds", "0")
    assert len(first) > 250
    assert {" ".join(words[:3]) for words in again} == {
        "-m papers.report --best-rate",
        "-m tools.delta sizes",
        "-m papers.keep",
        "-m papers.report",
    }


def test_a_part_says_how_long_its_rows_took_last_time(tmp_path):
    done, _ = run_script(tmp_path, "--parts", "1", "--jobs", "2")
    assert "part 1: full and qk on English" in done.stdout
    assert "last time: not known)" in done.stdout

    kept = tmp_path / "papers/scores"
    kept.mkdir()
    (kept / "seconds.csv").write_text(
        "1,rate-qk-1e-3-s0.json,7200,A machine\n2,q-s0.json,7200,A machine\n"
    )
    (tmp_path / "results/seconds.csv").write_text(
        "1,rate-qk-1e-3-s0.json,600,Another\n1,rate-qk-2e-3-s0.json,600,Another\n"
    )
    done, _ = run_script(tmp_path, "--parts", "1", "--jobs", "2")
    assert "last time: 2 rows took 10 minutes on Another)" in done.stdout

    (kept / "seconds.csv").write_text("1,rate-qk-4e-3-s0.json,1200,A machine\n")
    done, _ = run_script(tmp_path, "--parts", "1", "--jobs", "2")
    assert "last time: 3 rows took 20 minutes on A machine and Another)" in done.stdout


@pytest.mark.parametrize(
    "half, first, last", [("built-in", 1, 8), ("open", 9, 13), ("real", 14, 17)]
)
def test_the_halves_have_names(tmp_path, half, first, last):
    (tmp_path / "results").mkdir()
    done, _ = run_script(tmp_path, "--parts", half, "--seeds", "0")
    lacks_models = half == "open"  # those of parts 3 and 7
    assert done.returncode == (1 if lacks_models else 0)
    told = [line.split()[2] for line in done.stdout.splitlines() if " part " in line]
    assert told == [f"{number}:" for number in range(first, last + 1)]


def test_the_half_on_real_text_says_what_makes_its_data(tmp_path):
    for parts in ("14", "built-in real"):  # before anything is run
        done, commands = run_script(tmp_path, "--parts", parts, has_help=False)
        assert done.returncode == 2 and "python -m corpora.help" in done.stderr
        assert commands == []


def test_parts_and_halves_can_be_named_together(tmp_path):
    (tmp_path / "results").mkdir()
    done, _ = run_script(tmp_path, "--parts", "3 open", "--seeds", "0", has_help=False)
    told = [line.split()[2] for line in done.stdout.splitlines() if " part " in line]
    assert told == ["3:", "9:", "10:", "11:", "12:", "13:"]


def test_what_is_kept_of_a_score_file(folder, run):
    results = Path("results")
    results.mkdir()
    path = write_scores("qk", 0, WITHIN[:1])
    content = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    (row,) = content["rows"]
    row["each"]["R1"] = [33.333, 50.0, 0.0, 1.25, 2.0, 3.0]
    row["each"]["R2"] = [1.0] * EXAMPLES
    row["each"]["off-target"] = [0.0, 100.0, 0.0, 0.0, 100.0, 0.0]
    row["examples"] = []
    for number in range(EXAMPLES):
        text = {"source": "long", "reference": f"title {number}", "output": f"said {number}"}
        row["examples"].append(text)
    row["examples"][0] |= {"reference": "Long", "output": "long"}  # no word of its own
    row["examples"][2] |= {"reference": "a LONG title", "output": "A title"}  # both
    row["each"]["novel"] = None
    (results / "qk-s0.json").write_text(json.dumps(content), encoding="utf-8")
    (results / "seconds.csv").write_text("1,qk-s0.json,70,A machine\n")
    kept = Path("papers/scores")
    (kept / "seconds.csv").write_text("1,qk-s0.json,90,Slow\n1,full-s0.json,80,Slow\n")

    trained = Path("runs/paper/qk-s0")
    trained.mkdir(parents=True)
    (trained / "args.json").write_text('{"data": "help:", "lr": 0.004}')
    files = {"data/help/sections/train.jsonl": [7, 8], "runs/two/model.safetensors": [9, 10]}
    write_state({"data": {"files": files}}, trained / "state.pt")

    for _ in range(2):  # the second time from what was kept, as one does who goes on elsewhere
        done = run("-m", "papers.keep", cwd=folder)
        assert done.returncode == 0, done.stderr
        found = json.loads((kept / "qk-s0.json").read_text(encoding="utf-8"))
        assert found["validation loss"] == 1.0
        assert found["data fingerprint"] == {"data/help/sections/train.jsonl": [7, 8]}
        assert found["learning rate"] == 0.004
        assert found["rows"][0]["each"]["R1"] == [33.3, 50, 0, 1.2, 2, 3]
        assert found["rows"][0]["each"]["novel"] == [50, 100, 50, 50, 50]
        assert "R2" not in found["rows"][0]["each"]
        assert found["rows"][0]["examples"] == [
            {"reference": "title 1", "output": "said 1"},
            {"reference": "title 4", "output": "said 4"},
        ]
        shutil.copy(kept / "qk-s0.json", results)
        shutil.rmtree(trained, ignore_errors=True)
    assert (kept / "seconds.csv").read_text().splitlines() == [
        "1,full-s0.json,80,Slow",
        "1,qk-s0.json,70,A machine",
    ]


def test_reproduce_sh_explains_itself_and_refuses_what_it_does_not_know(tmp_path):
    script = ROOT / "papers/reproduce.sh"
    settings = {"capture_output": True, "text": True, "timeout": PATIENCE}
    helped = subprocess.run(["bash", script, "--help"], **settings)
    assert helped.returncode == 0 and helped.stdout.startswith("The tables of three papers")
    assert "--jobs" in helped.stdout and "set -" not in helped.stdout
    for words in ("--sedes 0", "--jobs 0", "--seeds x", "--seeds 0,1", "--parts reel"):
        options = words.split()
        done = subprocess.run(["bash", script, *options], **settings)
        assert done.returncode == 2 and options[0] in done.stderr
    done = subprocess.run(["bash", script, "--parts", "1 18"], **settings)
    assert done.returncode == 2 and "--parts" in done.stderr
