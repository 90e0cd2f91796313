"""ONNX's own test cases: what has passed once passes, and nothing is ever wrong."""

import re
from collections import Counter

import pytest
from conformance.__main__ import allowed, lost, main
from conformance.cases import Case, cases
from conformance.verdict import GOOD, Outcome, run

ALLOWED = [name for name in allowed() if not name.startswith("light/")]


def test_the_list_is_sorted_and_long():
    assert sorted(set(allowed())) == allowed()
    assert len(ALLOWED) > 1250


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ALLOWED)
def test_a_case_still_passes(name):
    suite, _, case = name.partition("/")
    outcome = run(cases(suite)[case])
    assert outcome.verdict in GOOD, outcome.reason


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet"])
def test_an_architecture_with_random_weights_answers_as_onnx_runtime(name):
    case = cases("light")[name]
    outcome = run(case)
    assert outcome.verdict == "passed", outcome.reason
    (_, (wanted,)), *_ = case.data
    assert len(set(wanted.reshape(-1).tolist())) > 300


def test_every_tier_passes_as_far_as_it_must():
    known = set(ALLOWED)
    counts = Counter()
    for name, case in cases("node").items():
        if case.plain:
            counts[case.tier, f"node/{name}" in known] += 1
    assert (counts[1, True], counts[1, False]) == (347, 0)
    assert counts[2, True] >= 270
    assert sum(counts[2, good] for good in (True, False)) == 287


def test_a_pass_that_is_lost_and_a_failure_are_errors():
    suite, _, name = ALLOWED[0].partition("/")
    good = Outcome(suite, name, "Abs", "passed")
    gone = Outcome(suite, name, "Abs", "refused", "no such operator here")
    new = Outcome(suite, "test_never_seen", "Abs", "refused", "no such operator here")
    wrong = Outcome(suite, "test_never_seen", "Abs", "failed", "other values")
    assert lost([good, gone, new, wrong]) == [gone, wrong]


def test_wrong_numbers_are_a_failure():
    case = cases("node")["test_relu"]
    (given, (wanted,)), *_ = case.data
    data = [(given, [wanted + 1])]
    outcome = run(Case(case.suite, case.name, lambda: (case.model, data)))
    assert outcome.verdict == "failed"
    assert "Not equal" in outcome.reason


def test_another_element_type_is_a_failure():
    case = cases("node")["test_argmax_no_keepdims_example"]
    (given, (wanted,)), *_ = case.data
    data = [(given, [wanted.astype("int32")])]
    outcome = run(Case(case.suite, case.name, lambda: (case.model, data)))
    assert (outcome.verdict, outcome.reason) == (
        "failed",
        "result: int64, wanted int32",
    )


def test_the_command_prints_a_table(capsys):
    assert main(["--suite", "node", "--only", "^test_(relu|softmax_axis_0)$"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"  in all +2 +0 +0 +0 +0", lines[3])
    assert lines[4] == ("  tier 1: 2 of 2 cases in plain element types, 2 of 2 in all")
