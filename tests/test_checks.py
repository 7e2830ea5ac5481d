"""The engine on toy checks and on all checks: what is right, wrong, not attempted; and that nothing is left behind."""

import ast
import importlib
import io
import math
import random
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import class_answers
import first_answers
import later_answers
import odd_answers
from helpers import checks
from helpers.checks import CheckResult
from helpers.checks.engine import Look, is_a_function
from helpers.checks.kinds import check, choice, choices, conditions
from helpers.checks.readings import as_array, as_parts, same
from helpers.checks.sandbox import attempt

ROOM = Path(checks.__file__).parent
CHECKS = {name: getattr(checks, name) for name in dir(checks) if name.startswith("check_")}
FUNCTIONS = [check for check in CHECKS.values() if check.refuse is is_a_function]
CLASSES = [checks.check_batch_norm, checks.check_linear]
LISTED = [pytest.param(c, id=name) for name, c in CHECKS.items()]
# Answers in many styles, and wrong ones that no check lists.
TABLES = first_answers, later_answers, class_answers
RIGHT = {check: answers for table in TABLES for check, answers in table.RIGHT.items()}
WRONG = {check: faults for table in TABLES for check, faults in table.WRONG.items()}


def right_answer(check):
    return RIGHT[check][0] if check.right is None else check.right


# ---- every check, and its one list of wrong answers


def test_every_check_of_the_room_can_be_imported_from_it():
    files = [importlib.import_module(f"helpers.checks.{path.stem}") for path in ROOM.glob("[!_]*.py")]
    assert {name for file in files for name in vars(file) if name.startswith("check_")} == CHECKS.keys()


def audit(check):
    """Pairs of answers that look the same on all inputs: a known mistake and the right one, or two known mistakes."""
    known, looks = [("the right answer", check._wanted), *check._traces], [look for look, _ in check._trials]
    return [
        (one, other)
        for (one, a), (other, b) in combinations(known, 2)
        if one != other and all(same(x, y, look.tolerance) for look, x, y in zip(looks, a, b, strict=True))
    ]


@pytest.mark.parametrize("check", LISTED)
def test_every_mistake_on_the_list_is_rejected_with_its_own_sentence_and_the_right_answer_is_not(check):
    assert check.mistakes or check in WRONG
    assert check.right is None or audit(check) == []
    result = check(right_answer(check))
    assert result, result
    assert result.status == "right" and not result.note
    for sentence, wrong in check.wrong_answers():
        result = check(wrong)
        assert result.status == "wrong"
        assert result.misconception == sentence
        assert result.tried and result.difference
        assert "https://youtu.be/P6sfmUTpUmc?t=" in result.look
    assert check(right_answer(check))  # its inputs are still whole


@pytest.mark.parametrize(("check", "answer"), [(check, answer) for check, some in RIGHT.items() for answer in some])
def test_right_answers_are_accepted_in_any_style(check, answer):
    result = check(answer)
    assert result, result
    assert result.status == "right" and not result.note


@pytest.mark.parametrize("check", WRONG)
def test_wrong_answers_are_refused_and_each_fault_has_a_remedy_of_its_own(check):
    remedies = {}
    for fault, answers in WRONG[check].items():
        for result in map(check, answers):
            assert result.status == "wrong", (fault, result)
            assert result.tried and result.misconception and "https://youtu.be/P6sfmUTpUmc?t=" in result.look
            remedies.setdefault(fault, set()).add(result.misconception)
    remedies.pop("", None)  # of these no more is known than that they are wrong
    assert all(len(told) == 1 for told in remedies.values()), remedies
    assert len(set().union(*remedies.values())) == len(remedies), remedies


def test_every_check_is_handed_on_with_a_docstring_and_the_room_imports_nothing_else_of_helpers():
    made = set()
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not node.level and node.names[0].name != "*"
                assert node.module.split(".")[0] != "helpers" or node.module.startswith("helpers.checks")
            made |= {getattr(node, "name", "")} if isinstance(node, ast.FunctionDef) else set()
            made |= {t.id for t in node.targets if isinstance(t, ast.Name)} if isinstance(node, ast.Assign) else set()
    assert {name for name in made if name.startswith("check_")} == set(CHECKS)
    assert len(CHECKS) >= 21 and all(check.__doc__ for check in CHECKS.values())


# ---- the kinds of checks, on toys


@check("toy chapter", 60, [(4.0, 2), (9.0, 5), (1.0, 1)])
def check_toy(area, count):
    """f(area, count) -> count squares' side."""
    return count * math.sqrt(area)


check_toy.mistakes = {"No root: area is the side squared.": lambda a, n: n * a}


def say(result):
    return f"{result.difference} {result.misconception}"


SEEN = {  # what can be seen of a wrong answer, and a name that the hint has to give
    lambda a, n: n * a: "", lambda a, n: -n * a**0.5: "", lambda a, n: 100 * n * a**0.5: "", lambda a, n: 0.3 * n * a**0.5: "0.3",
    lambda a, n: n * a**0.5 + 1: "1", lambda a, n: (n * a**0.5) ** 2: "", lambda a, n: 1 / (n * a**0.5): "",
    lambda a, n: a**0.5: "count", lambda a, n: n * 2.0: "area", lambda a, n: 7: "area or count", lambda n, a: n * a**0.5: "area and count",
    lambda a, n: math.nan if a == 4 else n * a**0.5: "NaN", lambda a, n: n * a**0.5 if n < 5 else -math.inf: "infinity",
    lambda a, n: n * a**0.5 > 3: "", lambda a, n: [n * a**0.5, 0]: "", lambda a, n: n * a**0.5 if n < 5 else 0.0: "",
}  # fmt: skip


def test_what_can_be_seen_of_a_wrong_answer_is_said_and_else_the_input_is_shown():
    results = {answer: check_toy(answer) for answer in SEEN}
    assert len({result.misconception for result in results.values()}) == len(SEEN)
    for answer, result in results.items():
        assert result.status == "wrong" and result.tried.startswith("f(") and SEEN[answer] in result.misconception


def test_an_answer_that_two_sentences_fit_is_told_neither():
    @check("toy chapter", 60, [(1.0,), (4.0,), (-1.0,)])
    def check_root(area):
        return math.sqrt(abs(area))

    check_root.mistakes = {"one": lambda a: a + 7 if a > 0 else a, "other": lambda a: a + 7 if a > 0 else 2 * a}
    assert audit(check_root) == []
    stops = check_root(lambda a: a + 7 if a > 0 else 1 / 0)
    assert stops.misconception not in ("one", "other")
    assert check_root(lambda a: a + 7 if a > 0 else a).misconception == "one"


def test_the_audit_finds_a_mistake_that_survives_and_two_that_look_the_same():
    @check("toy chapter", 60, [(1.0,)])
    def check_identity(x):
        return x

    check_identity.mistakes = {"squared": lambda x: x * x, "added": lambda x: x + 1, "doubled": lambda x: 2 * x}
    assert len(audit(check_identity)) == 2


def test_the_smallest_input_that_differs_is_shown():
    @check("toy chapter", 60, [(torch.ones(5, 5),), (torch.tensor([[1.0, 2], [3, 4]]),)], read=as_array)
    def check_double(x):
        return 2 * x

    assert check_double(lambda x: x).tried == "f([[1.0, 2.0], [3.0, 4.0]])"
    large = check_double(lambda x: 2 * x + (x.shape[0] == 5))
    assert large.tried == "f(x), x of shape (5, 5)"


check_layer = choice("the layer at fault", "toy", 60, "layer 2", {"layer 1": "its mean is 0", "layer 3": "healthy"})
check_pair = choice("the pair", "toy", 60, "non-linear and own rate", {"x": "no", "optimizer: data": "as it was typed"})
check_two = choices("two", "toy", 60, {"a": (1, {0: "no: it grows"}), "b": ("up", {"down": "turn it"})})
check_apart = choices("the three", "toy", 60, {
    "a": ("dead", "look again"), "b": ("alive", "it moves"), "c": (10.0, {100.0: "that is its square"}),
})  # fmt: skip


@pytest.mark.parametrize(
    ("check", "answer", "status", "said"),
    [
        (check_layer, "layer 2", "right", ""),
        (check_layer, " Layer 2", "right", ""),
        (check_layer, "layer 1", "wrong", "its mean is 0"),
        (check_layer, "layer 4", "wrong", "not one of the options"),
        (check_layer, 2, "wrong", "it is 2"),
        (check_layer, ["layer 2"], "wrong", "it is of type list"),
        (check_layer, "'layer-2.'", "right", ""),
        (check_pair, "Non-linear and own-rate", "right", ""),
        (check_pair, '"own_rate  and non linear."', "right", ""),
        (check_pair, "Optimiser: Data", "wrong", "'Optimiser: Data', which is not right as it was typed"),
        (check_layer, ..., "not attempted", ""),
        (check_two, {"a": torch.tensor(1), "b": "UP"}, "right", ""),
        (check_two, {"a": 1.004, "b": " Up"}, "right", ""),
        (check_two, {"a": -0.01, "b": "up"}, "wrong", "it grows"),
        (check_two, {"a": 0, "b": "down"}, "wrong", "it grows"),
        (check_two, {"a": 1, "b": "down"}, "wrong", "turn it"),
        (check_two, {"a": 5, "b": "up"}, "wrong", "'a' is 5"),
        (check_two, {"a": True, "b": "up"}, "wrong", "number"),
        (check_two, {"a": 1}, "wrong", "'b' is missing"),
        *((check_two, stub, "not attempted", "") for stub in ({}, dict.fromkeys("ab"), {"a": 1, "b": ...})),
        (check_two, {"a": 1.1, "b": "up"}, "wrong", "try it"),
        (check_apart, {"a": "the Dead", "b": "ali-ve", "c": 10.4}, "right", ""),
        (check_apart, {"a": "alive", "b": "dead", "c": 10}, "wrong", "look again"),
        (check_apart, {"a": "dead", "b": "dead", "c": 10}, "wrong", "it moves"),
        (check_apart, {"a": "dead", "b": "alive", "c": 104}, "wrong", "square"),
        (check_apart, {"a": "dead", "b": "alive", "c": 10.6}, "wrong", ""),
        (check_apart, {"a": "un-dead", "b": "alive", "c": 10}, "wrong", "Choose one"),
        (check_two, [1, "up"], "wrong", "dict"),
    ],
)
def test_a_choice_is_judged_by_its_option_and_no_result_gives_the_right_one_away(check, answer, status, said):
    result = check(answer)
    assert result.status == status
    assert said in say(result)
    if status == "wrong" and "Choose one" not in result.misconception:
        assert "layer 2" not in repr(result) and "expected" not in repr(result)


@conditions("the network that you mended", "toy chapter", 60)
def check_network(model):
    """A model whose two layers are both registered, and whose output has std 1."""
    names = [name for name, _ in model.named_parameters()]
    yield (
        len(names) == 4,
        f"named_parameters() has {len(names)} entries",
        "A plain list hides its layers: nn.ModuleList.",
    )
    out = model(torch.randn(64, 8))
    model.touched = True
    yield 0.5 < out.std() < 1.5, f"the output has std {out.std():.2f}", "Scale the weights."


class Mended(nn.Module):
    def __init__(self, container=nn.ModuleList, gain=1.0):
        super().__init__()
        self.layers = container([nn.Linear(8, 100), nn.Linear(100, 8)])
        for layer in self.layers:
            nn.init.normal_(layer.weight, 0, gain / layer.in_features**0.5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_thing_to_mend_is_looked_at_condition_by_condition():
    network = Mended()
    assert check_network(network)
    assert not hasattr(network, "touched")  # a copy was looked at
    assert "ModuleList" in check_network(Mended(list)).misconception
    assert "std" in check_network(Mended(gain=2)).difference
    assert check_network(3).status == "wrong"
    for stub in (..., [1, ...], {"a": [0, {...}]}):
        assert check_network(stub).status == "not attempted"
    odd = attempt(3, Look(len), printed=io.StringIO())  # no code of the learner's ran
    assert "type int will not do" in odd.difference and "your code" not in odd.difference


# ---- stubs, broken code, odd values: a verdict, never a traceback


@pytest.mark.parametrize("check", [check_toy, *FUNCTIONS])
def test_a_stub_is_not_an_attempt(check):
    for stub in odd_answers.STUBS:
        result = check(stub)
        assert result.status == "not attempted", stub
        assert "Not attempted" in repr(result) and not result


@pytest.mark.parametrize("stub", class_answers.STUBS)
def test_a_stub_of_a_class_is_not_an_attempt(stub):
    for each in CLASSES:
        assert each(stub).status == "not attempted"


@pytest.mark.parametrize(
    ("check", "stub"),
    [
        *((checks.check_what_trains, stub) for stub in (None, ..., {...}, [...], (..., ...))),
        (checks.check_mystery, later_answers.DIAGNOSES | {3: (..., 4)}),
        (checks.check_xor, [[[..., 2], [2, 2]], [2, -2], [[1], [-1]], [-1]]),
        (checks.check_module, class_answers.HALF_WRITTEN),
    ],
)
def test_what_is_left_to_fill_in_is_not_an_attempt(check, stub):
    assert check(stub).status == "not attempted"


def test_the_parts_of_an_answer_may_be_given_one_by_one_and_too_many_are_told():
    assert checks.check_xor(*RIGHT[checks.check_xor][0]) and checks.check_three_faults(
        *RIGHT[checks.check_three_faults][0]
    )
    ratio = checks.check_adam_ratio
    assert ratio(ratio.right, 3).status == checks.check_faulty_layer(5, "biases too large").status == "wrong"


@pytest.mark.parametrize(("answer", "said"), odd_answers.BROKEN)
def test_code_that_stops_is_told(answer, said):
    for each in (check_toy, checks.check_fold, checks.check_collapse):
        result = each(answer)
        assert result.status == "wrong"
        assert said in say(result)


@pytest.mark.parametrize("i", range(len(odd_answers.ODD_VALUES)))
def test_whatever_an_answer_returns_is_judged(i):
    value = odd_answers.ODD_VALUES[i]
    for each in FUNCTIONS:
        result = each(lambda *args: value)
        assert result.status == "wrong" and repr(result)
    for each in (checks.check_what_trains, checks.check_gain_powers, *CLASSES, check_layer, check_network):
        assert each(value).status in ("wrong", "not attempted")


@pytest.mark.parametrize("check", [check_toy, *FUNCTIONS, *CLASSES])
def test_what_cannot_be_called_is_refused(check):
    for answer in odd_answers.NOT_CALLABLE:
        result = check(answer)
        assert result.status == "wrong" and not result.difference.startswith("it returned")


def test_a_keyboard_interrupt_goes_through_and_all_is_put_back():
    before = odd_answers.states()
    with pytest.raises(KeyboardInterrupt):
        check_toy(lambda a, n: (odd_answers.meddles(), odd_answers.raising(KeyboardInterrupt())()))
    assert odd_answers.states() == before


def test_evil_classes_end_in_a_verdict():
    class Evil(nn.Module):
        def __init__(self, *args, **how):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(2))

        def __getattr__(self, name):
            raise SystemExit(name)

        def forward(self, x):
            return odd_answers.Unnamed()

    for each in CLASSES:
        assert each(Evil).status == "wrong"
        assert each(type("Slotted", (), {"__call__": lambda self, x: x})).status == "wrong"
        assert each(odd_answers.raising(odd_answers.Silent())).status == "wrong"


def test_only_the_learners_own_raise_is_not_an_attempt():
    def helper():
        raise NotImplementedError

    assert check_toy(lambda a, n: helper()).status == "not attempted"
    assert check_toy(odd_answers.asks_torch_for_what_it_has_not).status == "wrong"
    halves = "mm_" + "half"
    assert check_toy(lambda a, n: odd_answers.raising(RuntimeError(f"'{halves}' not implemented"))()).status == "wrong"


def test_an_exception_is_shown_with_the_learners_own_line():
    def f(area, count):
        return math.log(-area)

    result = check_toy(f)
    assert "ValueError" in result.difference
    assert f"in line {f.__code__.co_firstlineno + 1}: `return math.log(-area)`" in result.difference
    source = {}
    exec("def g(area, count):\n    return undefined", source)  # noqa: S102 - as typed where no source can be found
    assert check_toy(source["g"]).difference.endswith("name 'undefined' is not defined, in line 2")
    odd = check_toy(odd_answers.raising(ValueError(f"odd thing: {object()}")))
    assert "0x..." in odd.difference


def test_an_exception_on_another_input_does_not_hide_an_earlier_difference_nor_its_name():
    result = check_toy(lambda a, n: n * a if a == 4 else 1 / 0)
    assert "expected 4, yours is 8" in result.difference
    assert "No root" in result.misconception
    late = check_toy(lambda a, n: n * math.sqrt(a) if a == 4 else 1 / 0)
    assert late.tried == "f(9, 5)" and "ZeroDivisionError" in late.difference


@pytest.mark.parametrize(
    ("check", "answer"),
    [
        (checks.check_dead_units, lambda f, x: (x.tanh_().abs() > 0.99).all(0)),
        (checks.check_sigmoid_slope, lambda s: s.square_().neg_().add_(1)),
        (checks.check_collapse, lambda w, b: (w[0].mul_(2), b[0])),
    ],
)
def test_changing_the_input_in_place_is_refused_and_harms_nobody(check, answer):
    for _ in range(2):  # the second time shows whether the check's own inputs are still whole
        assert "in place" in check(answer).difference
    assert check(check.right)


# ---- nothing is left behind


@pytest.mark.parametrize("check", LISTED)
def test_every_setting_stays_as_it_was(check):
    random.seed(42), np.random.seed(42), torch.manual_seed(42)  # in no state that an earlier check has left
    before = odd_answers.states()
    for answer in (odd_answers.meddles, right_answer(check)):
        check(answer)
        assert odd_answers.states() == before


def test_a_setting_of_the_notebook_survives_a_check():
    try:
        torch.set_printoptions(precision=3), np.seterr(over="raise"), torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        before = odd_answers.states()
        check_toy(odd_answers.meddles)
        assert odd_answers.states() == before
    finally:
        torch.set_printoptions(profile="default"), np.seterr(over="warn"), torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("check", LISTED)
def test_right_answers_are_right_whatever_the_notebook_has_switched(check):
    with torch.inference_mode():
        assert check(right_answer(check))
    try:
        torch.set_default_dtype(torch.float64)
        if check is checks.check_sigmoid_slope:
            one = torch.ones(1, 1)  # a matrix of the notebook: float64, as the input then has to be
            assert check(lambda s: s * (1 - (s.reshape(-1, 1) @ one).reshape(s.shape)))
            assert not check(lambda s: 1 - (s.reshape(-1, 1) @ one).reshape(s.shape))
        assert check(right_answer(check))
        assert not any(check(wrong) for _, wrong in [*check.wrong_answers()][:1])
    finally:
        torch.set_default_dtype(torch.float32)


def test_random_answers_get_the_same_verdict_every_time():
    def f(area, count):
        return torch.randn(100).mean() + random.random() + np.random.rand()

    torch.manual_seed(1), random.seed(1), np.random.seed(1)
    first = repr(check_toy(f))
    torch.manual_seed(2), random.seed(2), np.random.seed(2)
    assert repr(check_toy(f)) == first


# ---- how a result looks


def test_a_result_says_what_was_tried_where_it_differs_why_and_where_to_look():
    def my_std(first_loss, classes):
        return 2 * (first_loss - math.log(classes))

    assert repr(checks.check_logit_std(my_std)) == (
        "Wrong: my_std(14.6, 50257)\n"
        "  Difference: result: expected 2.748, yours is 7.55\n"
        "  Likely: Yours is the square of the expected result: is a root missing?\n"
        "  Look at: chapter 02, exercise 2.1; the lecture at 4:19, https://youtu.be/P6sfmUTpUmc?t=259"
    )
    assert "1:32:07, https" in checks.check_collapse(lambda w, b: (w[0], b[0])).look
    assert (
        "1099942772"
        in checks.check_fold(lambda *a: tuple(t.float().double() for t in checks.check_fold.right(*a))).difference
    )
    late = checks.check_logit_std(lambda loss, n: math.sqrt(2 * (loss - math.log(n))) + 2e-4 * (n == 50257))
    assert "expected 2.74" in late.difference and late.difference.count("2.7477") == 1


def test_what_the_code_prints_is_told_not_printed(capsys):
    def f(area, count):
        print("count", count)
        return count * math.sqrt(area)

    result = check_toy(f)
    assert result and "count 2" in result.note
    assert capsys.readouterr() == ("", "")


def test_html_escapes_the_learners_text_and_links_the_lecture():
    html = checks.check_logit_std(odd_answers.raising(ValueError("<script>")))._repr_html_()
    assert "&lt;script&gt;" in html and "<script>" not in html
    assert "<b>&lt;b&gt;wrong:</b>" in CheckResult("<b>wrong", "f")._repr_html_().replace("Wrong", "wrong")
    assert '<a href="https://youtu.be/P6sfmUTpUmc?t=259">' in html


def test_a_result_is_truthy_only_when_right():
    assert [bool(CheckResult(status, "f")) for status in ("wrong", "not attempted", "right")] == [False, False, True]


@pytest.mark.parametrize(
    "value", [[1.0, 2.0], (1.0, 2.0), np.array([1, 2]), [torch.tensor(1.0), np.float32(2)], torch.tensor([1, 2])]
)
def test_numbers_are_read_from_whatever_holds_them(value):
    assert as_array(value)["result"].tolist() == [1.0, 2.0]
    rows = as_parts("W", "b")([[torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])], value])  # a list of row tensors
    assert rows["W"].tolist() == [[1, 2], [3, 4]]
