"""What the course keeps of its sweeps is whole, and is what the scripts make today; a short run of each trains."""

import json
from functools import partial

import pytest

import adam_sgd
import gain_depth
import learning_rates
import normalisations
import residual_depth
from common import RESULTS
from helpers.data import Names, load_names, load_splits

SCRIPTS = [adam_sgd, gain_depth, learning_rates, normalisations, residual_depth]


def kept(file):
    return json.loads((RESULTS / f"{file}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def few():
    """The scripts train on a few of the names, and look at their networks there."""
    splits = load_splits(Names(load_names().words[::20], "few", ""))
    with pytest.MonkeyPatch.context() as patch:
        for script in SCRIPTS:
            patch.setattr(script, "load_splits", lambda: splits)
        yield


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_the_kept_settings_and_runs_are_those_of_the_script(monkeypatch, script):
    swept = []
    monkeypatch.setattr(script, "need_lecture_names", lambda: "lecture")
    monkeypatch.setattr(script, "sweep", lambda path, log, work, names, **how: swept.append((path, log, names)) or log)
    script.main()
    for path, log, names in swept:
        found = kept(path.stem)
        assert list(found.pop("runs")) == names
        settings = {key: value for key, value in json.loads(json.dumps(log)).items() if key != "runs"}
        for entropy in (found, settings):  # of the letters of whatever names are in use
            entropy.pop("letter_entropy", None)
        assert found == settings


def form(result):
    """The result with each number left out, as text."""

    def blank(part):
        if isinstance(part, dict):
            return {str(key): blank(value) for key, value in part.items()}
        return [blank(value) for value in part] if isinstance(part, list | tuple) else None

    return json.dumps(blank(result))


SHORT = {  # a short run, and the names of one run of each form
    "adam_sgd": (partial(adam_sgd.run, steps=2, examples=64), [f"{kind}, Adam, 0.1" for kind in adam_sgd.KINDS]),
    "gain_depth": (partial(gain_depth.run, steps=2, last=1, n_hidden=5), ["0.1, 2"]),
    "learning_rates": (learning_rates.run_rate, ["0.1"]),
    "normalisations": (
        partial(normalisations.run, steps=10),
        ["batch of 2, BatchNorm", "tanh, 6, none", "names per batch, 1", "report, A"],
    ),
    "residual_depth": (partial(residual_depth.run, steps=2, last=1), ["plain, 6", "relu ReZero, 6"]),
    "residual_lesions": (partial(residual_depth.lesions, steps=0, examples=64, pairs=20), ["plain", "pre-norm"]),
}


@pytest.mark.parametrize("file", SHORT)
def test_every_kept_run_has_the_form_of_one_that_is_made_now(monkeypatch, file):
    runs, (run, names) = kept(file)["runs"], SHORT[file]
    if file == "learning_rates":  # as many numbers after 40 and 80 steps as after 1,000 and 10,000
        monkeypatch.setattr(learning_rates, "HORIZONS", (40, 80))
        runs = json.loads(json.dumps(runs).replace('"1000"', '"40"').replace('"10000"', '"80"'))
    assert {form(run(name)) for name in names} == {form(result) for result in runs.values()}


def test_runs_with_adam_and_with_batch_norm_train():
    before, after = (adam_sgd.run("batchnorm, Adam, 0.003", steps=steps, examples=200) for steps in (0, 30))
    assert all(b > a + 0.2 for b, a in zip(*before["train"], *after["train"], strict=True))
    assert all(0.009 < std < 0.011 for std in before["last_std"][0]) and before["rare_target"] != before["val"]


@pytest.mark.parametrize("name", ["batch of 4, BatchNorm", "relu, 6, after, RMSNorm", "tanh, 6, WeightNorm"])
def test_runs_with_each_way_to_normalise_train(name):
    found = normalisations.run(name, steps=15)
    assert all(2.4 < loss < 3.4 for rows in found.values() for loss in rows[1])


@pytest.mark.parametrize("kind", residual_depth.KINDS)
def test_runs_with_each_kind_of_residual_connection_begin_near_ln_27(kind):
    short = residual_depth.run(f"{kind}, 6", steps=2, last=1)
    assert all(3 < loss < 4 for row in short[:5] for loss in row)


def test_a_hundred_times_the_rate_moves_the_weights_that_much_more_and_learns_more(monkeypatch):
    monkeypatch.setattr(learning_rates, "HORIZONS", (40,))
    slow, fast = (learning_rates.run_rate(rate) for rate in ("0.001", "0.1"))
    for one, other in zip(slow["ratio"]["40"], fast["ratio"]["40"], strict=True):
        assert 100 < other / one < 1_000  # the gradients are larger in the faster run
    assert all(a > b for a, b in zip(slow["held"]["40"], fast["held"]["40"], strict=True))


def test_a_warm_up_climbs_to_the_rate_and_the_end_is_lowered():
    with_it, without = ([adam_sgd.rate_at(k, 0.01, 100, warm) for k in range(100)] for warm in (True, False))
    assert with_it[:10] == pytest.approx([0.001 * k for k in range(1, 11)]) and with_it[10:] == without[10:]
    assert without == pytest.approx([0.01] * 80 + [0.001] * 20)
