"""ONNX's own test cases: what has passed once passes, and nothing is ever wrong."""

import re

import pytest
from conformance import GOOD, Outcome, allowed, cases, lost, main, run

ALLOWED = allowed()


def test_the_list_is_sorted_and_long():
    assert sorted(set(ALLOWED)) == ALLOWED
    assert len(ALLOWED) > 1250


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", ALLOWED)
def test_a_case_still_passes(name):
    suite, _, case = name.partition("/")
    outcome = run(cases(suite)[case])
    assert outcome.verdict in GOOD, outcome.reason


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
    outcome = run(type(case)(case.suite, case.name, case.model, data))
    assert outcome.verdict == "failed"
    assert "Not equal" in outcome.reason


def test_another_element_type_is_a_failure():
    case = cases("node")["test_argmax_no_keepdims_example"]
    (given, (wanted,)), *_ = case.data
    data = [(given, [wanted.astype("int32")])]
    outcome = run(type(case)(case.suite, case.name, case.model, data))
    assert (outcome.verdict, outcome.reason) == (
        "failed",
        "result: int64, wanted int32",
    )


def test_the_command_prints_a_table(capsys):
    assert main(["--suite", "node", "--only", "^test_(relu|softmax_axis_0)$"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"  in all +2 +0 +0 +0 +0", lines[-1])
