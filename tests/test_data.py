"""Names are read, mended aloud or refused by name; windows and splits are the lecture's; a download is whole or nothing."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common import ROOT
from helpers import data
from helpers.data import ALPHABET, Names, build_dataset, course_file, fetch_names, load_names, load_splits
from make_bundled_names import bundled_names
from notebook_cells import definitions

STOI = {char: index for index, char in enumerate(ALPHABET)}
plain_words = st.text(ALPHABET[1:], min_size=1, max_size=12)


@pytest.fixture
def write(tmp_path):
    """A function that writes bytes or text to a file of its own and returns the path."""

    def write(content):
        path = tmp_path / "my_names.txt"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@contextmanager
def silence():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def with_module(code, *arguments, **environment):
    """The command for Python and helpers.data in a process without torch, which takes seconds and is not needed."""
    code = f"import sys, types; sys.modules['torch'] = types.SimpleNamespace(Tensor=None)\n{code}"
    return dict(
        args=[sys.executable, "-c", code, *map(str, arguments)], env=os.environ | environment, cwd=ROOT, text=True
    )


# Which file is read


def test_the_bundled_names_are_8602_sorted_plain_ones():
    with silence():
        names = load_names(data.BUNDLED_FILE)
    assert names.source == "bundled" and len(names.words) == 8602 and names.words == sorted(set(names.words))
    assert names.sha256 == hashlib.sha256(data.BUNDLED_FILE.read_bytes()).hexdigest() == data.BUNDLED_SHA256


def test_the_bundled_file_is_what_its_script_makes():
    if pytest.importorskip("faker").VERSION != "40.54.0":
        pytest.skip("made from Faker 40.54.0")
    assert bundled_names() == data.BUNDLED_FILE.read_bytes()


def test_argument_then_setting_then_fetched_then_bundled(tmp_path, monkeypatch):
    files = {word: tmp_path / word for word in ("argument", "setting", "fetched", "cached", "bundled")}
    for word, path in files.items():
        path.write_text(f"{word}\nother\n", encoding="utf-8")
    monkeypatch.setattr(data, "NAMES_FILE", files["fetched"])
    monkeypatch.setattr(data, "OWN_NAMES_FILE", files["cached"])
    monkeypatch.setattr(data, "BUNDLED_FILE", files["bundled"])
    monkeypatch.setenv("MAKEMORE_NAMES", str(files["setting"]))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for argument in files["argument"], str(files["argument"]), "~/argument":
        assert load_names(argument).words[0] == "argument"
        assert load_names(argument).source == str(files["argument"])
    assert load_names().words[0] == "setting"
    for empty in ("", "  "):
        monkeypatch.setenv("MAKEMORE_NAMES", empty)
        assert load_names().words[0] == "fetched"
    files["fetched"].unlink()
    assert load_names().words[0] == "cached"
    files["cached"].unlink()
    assert load_names().words[0] == "bundled"
    assert load_names().source == str(files["bundled"])  # its bytes are not the bundled file's


def test_the_source_goes_by_the_bytes_wherever_the_file_lies(write):
    content = data.BUNDLED_FILE.read_bytes()
    assert load_names(write(content)).source == "bundled"
    other = write(content + b"zzyzx\n")
    assert load_names(other).source == str(other)


def test_the_courses_files_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert course_file("data/bundled_names.txt").read_bytes() == data.BUNDLED_FILE.read_bytes()
    assert course_file("notebooks").is_dir()
    with pytest.raises(FileNotFoundError, match="no_such_file.*git"):
        course_file("data/no_such_file")


# A learner's own file is mended aloud


@pytest.mark.parametrize(
    "content, words, said",
    [
        ("Emma\nava\nMIA\n", ["emma", "ava", "mia"], ["lower-cased (2)"]),
        ("zoë\nJosé\nava\n", ["zoe", "jose", "ava"], ["accents", "(2)", "lower-cased (1)"]),
        ("strauß\næsa\nłukasz\nişıl\nþór", ["strauss", "aesa", "lukasz", "isil", "thor"], ["letters", "(5)"]),
        ("Łucja\nIşıl\n", ["lucja", "isil"], ["letters", "(2)", "lower-cased (2)"]),
        ("zoe\u0308\nava\n", ["zoe", "ava"], ["accents", "(1)"]),
        ("\ufb01nn\n\uff41va\n", ["finn", "ava"], ["accents", "(2)"]),  # a ligature, a full-width letter
        ("\nemma\n\n  \nava\n\n", ["emma", "ava"], ["blank", "(4)"]),
        (" emma\nava\t\n\u00a0mia", ["emma", "ava", "mia"], ["spaces", "(3)"]),
        ("\ufeffemma\nava\n", ["emma", "ava"], ["byte order mark", "(1)"]),
        ("emma\r\nava\r\n", ["emma", "ava"], ["line ends", "(2)"]),
        ("emma\rava\r", ["emma", "ava"], ["line ends", "(2)"]),
    ],
)
def test_what_can_be_mended_is_mended_with_one_warning(write, content, words, said):
    path = write(content)
    with pytest.warns(UserWarning) as caught:
        assert load_names(path).words == words
    (warning,) = (str(warning.message) for warning in caught)
    assert all(part in warning for part in [str(path), *said])
    assert warning.count("(") == sum(part.count("(") for part in said)  # nothing else was mended
    assert path.read_bytes() == content.encode()


def test_a_plain_file_is_read_silently_and_keeps_its_duplicates(write):
    for content in "emma\nava\nemma\n", "emma\nava\nemma", "a" * 100 + "\nava\n":
        with silence():
            assert load_names(write(content)).words == content.split()


lines_of_all_kinds = st.one_of(
    plain_words,
    plain_words.map(str.title),
    plain_words.map(lambda word: f" {word}\t"),
    st.text("éÉçñüÅßøæœłđıİﬁ", min_size=1, max_size=6),
    st.just(""),
)


@settings(deadline=None)
@given(st.lists(lines_of_all_kinds, min_size=2, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_mending_is_idempotent_and_keeps_one_plain_word_a_line(tmp_path_factory, lines, end, mark):
    lines = [*lines, "ada", "eve"]
    path = tmp_path_factory.mktemp("mended") / "names.txt"
    path.write_bytes((("\ufeff" if mark else "") + end.join(lines)).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = load_names(path).words
    assert len(words) == sum(bool(line.strip()) for line in lines)
    assert all(set(word) <= set(ALPHABET[1:]) for word in words)
    path.write_bytes("\n".join(words).encode())
    with silence():
        assert load_names(path).words == words


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b"\xff\xfee\x00m\x00m\x00a\x00\n\x00")
@example("a\u0301\n\u0301\nb\n".encode())
def test_any_bytes_at_all_give_plain_words_or_a_value_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "names.txt"
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert all(word and set(word) <= set(ALPHABET[1:]) for word in load_names(path).words)
        except ValueError as error:
            assert str(path) in str(error)


# What can't be mended is refused, with file, line and remedy


@pytest.mark.parametrize(
    "content, line, said",
    [
        ("ava\nanna2\n", 2, "'anna2' holds '2'"),
        ("ava\n\nmary-ann\n", 3, "'mary-ann' holds '-'"),
        ("ava\nИван\n", 2, "'Иван' holds 'и'"),
        ("ava\nem\u200bma\n", 2, "holds '\\u200b'"),
        ("ava\ne\x00mma\n", 2, "holds '\\x00'"),
        ("ava\n\u0301\n", 2, "0 letters"),
        ("ava\r\nmia\r\nx y\r\n", 3, "'x y'"),
        ("ava\nmia\rx y\n", 3, "'x y'"),
        ("ava\n" + "a" * 101 + "\n", 2, "101 letters"),
        ("a" * 300_000, 1, "300,000 letters"),
        ("ava\nzoë\nmía\n".encode("latin-1"), 2, "UTF-8"),
        ("ava\nmia\n".encode("utf-16"), 1, "UTF-8"),
    ],
)
def test_what_cannot_be_mended_is_refused_by_file_and_line(write, content, line, said):
    path = write(content)
    with pytest.raises(ValueError, match="Mend or remove|Save") as refused:
        load_names(path)
    message = str(refused.value)
    assert message.startswith(f"{path}, line {line}: ") and said in message and len(message) < len(str(path)) + 250


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff", "emma\n"])
def test_a_file_without_names_is_refused(write, content):
    path = write(content)
    with pytest.raises(ValueError, match="one on each line") as refused:
        load_names(path)
    assert str(path) in str(refused.value)


def test_a_file_that_cannot_be_read_names_path_and_remedy(tmp_path, monkeypatch):
    def refused(*arguments):
        with pytest.raises(OSError) as error:
            load_names(*arguments)
        return str(error.value)

    missing, locked = tmp_path / "missing.txt", tmp_path / "locked.txt"
    locked.touch(0)
    for path in missing, tmp_path, *([] if os.access(locked, os.R_OK) else [locked]):  # root may read everything
        assert str(path) in refused(path) and "Give the path" in refused(path)
    monkeypatch.setenv("MAKEMORE_NAMES", str(missing))
    assert "MAKEMORE_NAMES points there" in refused()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAKEMORE_NAMES", "beside_me.txt")
    assert str(tmp_path / "beside_me.txt") in refused()  # a relative path is shown in full
    monkeypatch.delenv("MAKEMORE_NAMES")
    monkeypatch.setattr(data, "NAMES_FILE", missing)
    monkeypatch.setattr(data, "BUNDLED_FILE", missing)  # as when helpers is installed without the course
    assert str(missing) in refused() and "MAKEMORE_NAMES" in refused()


# Windows


@pytest.fixture(scope="module", params=["helpers.data", "chapter 01"])
def windows(request):
    """build_dataset as the helpers have it, and as chapter 01 writes it."""
    return build_dataset if request.param == "helpers.data" else definitions("01_starter_code")["build_dataset"]


@settings(deadline=None)
@given(words=st.lists(plain_words, min_size=1, max_size=8), block_size=st.integers(1, 15))
def test_windows_reconstruct_the_words(windows, words, block_size):
    X, Y = windows(words, STOI, block_size)
    assert X.shape == (sum(len(word) + 1 for word in words), block_size) and Y.shape == X.shape[:1]
    assert X.dtype == Y.dtype == torch.int64
    assert "".join(ALPHABET[y] for y in Y.tolist()) == "".join(word + "." for word in words)
    rows = iter(X.tolist())
    for word in words:  # each row is what stands before its character, within its own name
        padded = "." * block_size + word
        for position in range(len(word) + 1):
            assert "".join(ALPHABET[x] for x in next(rows)) == padded[position : position + block_size]


def test_windows_follow_the_given_stoi_and_refuse_what_they_cannot_cut():
    X, Y = build_dataset(["ba"], {".": 2, "a": 1, "b": 0}, block_size=2)
    assert X.tolist() == [[2, 2], [2, 0], [0, 1]] and Y.tolist() == [0, 1, 2]
    X, Y = build_dataset([], STOI, 4)  # no names have a shape, too
    assert X.shape == (0, 4) and Y.shape == (0,) and X.dtype == Y.dtype == torch.int64
    for block_size in 0, -1:
        with pytest.raises(ValueError, match=f"block_size is {block_size}"):
            build_dataset(["emma"], STOI, block_size)
    with pytest.raises(KeyError, match="2"):
        build_dataset(["emma", "anna2"], STOI)


# Splits


def test_the_splits_are_the_lectures(splits):
    names = load_names()
    words = list(names.words)
    random.seed(42)
    random.shuffle(words)  # as the lecture's cell does, on the global random state
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    parts = words[:n1], words[n1:n2], words[n2:]
    for ours, part in zip((splits.train, splits.val, splits.test), parts, strict=True):
        assert all(map(torch.equal, ours, build_dataset(part, STOI)))
    assert splits.names == names and splits.itos == {index: char for char, index in STOI.items()}
    assert splits.stoi == STOI and splits.stoi["."] == 0 and splits.stoi["z"] == 26


def test_the_lectures_file_gives_the_lectures_shapes_silently(lecture_splits):
    with silence():
        names = load_names()
    assert len(names.words) == 32033 and len(set(names.words)) == 32033 - 2539
    assert names.words[:3] == ["emma", "olivia", "ava"]
    shapes = [tuple(X.shape) for X, _ in (lecture_splits.train, lecture_splits.val, lecture_splits.test)]
    assert shapes == [(182625, 3), (22655, 3), (22866, 3)]
    training, val = set(lecture_splits.words["train"]), lecture_splits.words["val"]
    assert len(val) == 3203 and sum(word in training for word in val) == 424


@settings(deadline=None)
@given(st.lists(plain_words, min_size=6, max_size=60), st.integers(0, 2**32), st.integers(1, 5))
def test_every_split_is_filled_and_together_they_are_the_whole(words, seed, block_size):
    numbered = [f"{word}{ALPHABET[1 + i % 26]}{ALPHABET[1 + i // 26]}" for i, word in enumerate(words)]  # told apart
    splits = load_splits(Names(numbered, "mine", ""), block_size=block_size, seed=seed)
    parts, n = [splits.words[part] for part in ("train", "val", "test")], len(words)
    assert [len(part) for part in parts] == [int(0.8 * n), int(0.9 * n) - int(0.8 * n), n - int(0.9 * n)]
    assert sorted(word for part in parts for word in part) == sorted(numbered)
    for part, (X, Y) in zip(parts, (splits.train, splits.val, splits.test), strict=True):
        assert "".join(splits.itos[y] for y in Y.tolist()) == "".join(word + "." for word in part)
        assert X.shape == (len(Y), block_size)


def test_splits_leave_names_and_the_global_random_state_alone():
    names = Names([*"abcdefgh"], "mine", "")
    random.seed(1)
    state, torch_state = random.getstate(), torch.get_rng_state()
    first, again, other = load_splits(names), load_splits(names), load_splits(names, seed=43)
    assert random.getstate() == state and torch.equal(torch.get_rng_state(), torch_state)
    assert names.words == [*"abcdefgh"]
    assert first.words == again.words != other.words
    with pytest.raises(AttributeError):
        names.words = []


def test_splits_take_what_load_names_takes_and_refuse_too_few(write):
    path = write("\n".join("abcdefgh"))
    assert load_splits(path).names.source == str(path)
    assert load_splits(str(path)).words == load_splits(load_names(path)).words
    for count in 2, 5:
        path = write("\n".join("abcdef"[:count]))
        with pytest.raises(ValueError, match=f"{count} names.*six or more") as refused:
            load_splits(path)
        assert str(path) in str(refused.value)


# Fetching

CONTENT = b"emma\nolivia\nava\n" * 1000  # stands for the lecture's file, which the tests may not need


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        pass  # a client that has given up is what is tested here


@contextmanager
def server(answer):
    """A web server on this machine: every GET is handled by `answer(handler, over)`; yields its list of requests."""
    requests, over = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            answer(self, over)

        def log_message(self, *args):
            pass

    with Server(("127.0.0.1", 0), Handler) as httpd, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        patch.setattr(data, "LECTURE_URL", f"http://127.0.0.1:{httpd.server_port}/names.txt")
        try:
            yield requests
        finally:
            over.set()
            httpd.shutdown()


def send(handler, body, *, status=200, length=None):
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def good(handler, over):
    send(handler, CONTENT)


def endless(handler, over):
    send(handler, b"", length=10**12)
    for _ in range(100):  # as much as no buffer takes; who wants all of it waits for the rest
        handler.wfile.write(b"x" * 10**6)
    over.wait()


def trickle(handler, over, content):
    for byte in content:
        if not over.wait(0.02):
            handler.wfile.write(bytes([byte]))


BAD = {
    "cut off": lambda handler, over: send(handler, CONTENT[:5000], length=len(CONTENT)),
    "empty": lambda handler, over: send(handler, b""),
    "wrong": lambda handler, over: send(handler, CONTENT.replace(b"emma", b"anna", 1)),
    "not found": lambda handler, over: send(handler, b"404: Not Found", status=404),
    "not http": lambda handler, over: handler.wfile.write(b"what?\r\n\r\n"),
    "endless": endless,  # no more is read than the file's length, and the deadline is far
}
SLOW = {
    "dribbling headers": lambda handler, over: trickle(handler, over, b"HTTP/1.0 200 OK\r\nX-Slow: " + b"x" * 10**6),
    "dribbling body": lambda handler, over: (send(handler, b"", length=len(CONTENT)), trickle(handler, over, CONTENT)),
}


@pytest.fixture
def target(tmp_path, monkeypatch):
    """An empty data folder where names.txt goes, and no proxy before the server."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(data, "NAMES_FILE", folder / "names.txt")
    monkeypatch.setattr(data, "OWN_NAMES_FILE", tmp_path / "cache" / "names.txt")
    monkeypatch.setattr(data, "LECTURE_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(data, "LECTURE_BYTES", len(CONTENT))
    assert data.FETCH_SECONDS <= 10
    monkeypatch.setattr(data, "FETCH_SECONDS", 30.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("MAKEMORE_NAMES", raising=False)
    return folder / "names.txt"


def beside(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_good_download_is_kept_and_not_asked_for_again(target):
    with server(good) as requests:
        assert fetch_names() == target and target.read_bytes() == CONTENT
        written = target.stat().st_mtime_ns
        assert fetch_names() == target and target.stat().st_mtime_ns == written
    assert len(requests) == 1 and beside(target) == ["names.txt"]
    assert load_names().source == "lecture"
    # Readable by everyone whom the umask allows, which a file from tempfile is not.
    (target.parent / "other").touch()
    assert target.stat().st_mode == (target.parent / "other").stat().st_mode


@pytest.mark.parametrize("answer", BAD)
def test_a_bad_download_leaves_nothing_behind(target, answer):
    with server(BAD[answer]):
        with pytest.raises(OSError, match="by hand and let MAKEMORE_NAMES") as failed:
            fetch_names()
        assert data.LECTURE_URL in str(failed.value) and "\n" not in str(failed.value)
    assert beside(target) == []


@pytest.mark.parametrize("answer", SLOW)
def test_a_slow_download_ends_at_the_deadline(target, monkeypatch, answer):
    monkeypatch.setattr(data, "FETCH_SECONDS", 0.3)
    with server(SLOW[answer]):
        started = time.monotonic()
        with pytest.raises(OSError, match="by hand and let MAKEMORE_NAMES"):
            fetch_names()
        assert 0.2 < time.monotonic() - started < 60  # the servers would never end
    assert beside(target) == []


def test_a_slow_name_look_up_ends_at_the_deadline(target, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(data, "FETCH_SECONDS", 0.2)
    monkeypatch.setattr(data, "LECTURE_URL", "http://names.invalid/names.txt")
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: over.wait() and [])
    try:
        with pytest.raises(OSError, match="0.2 seconds.*by hand"):
            fetch_names()
    finally:
        over.set()
    assert beside(target) == []


def test_an_own_names_file_is_never_overwritten(target):
    target.write_text("ada\ngrace\n", encoding="utf-8")
    with server(good) as requests, pytest.raises(FileExistsError, match="Move it away"):
        fetch_names()
    assert requests == [] and target.read_text(encoding="utf-8") == "ada\ngrace\n" and beside(target) == ["names.txt"]


@pytest.mark.parametrize("course", ["is not there", "may not be written"])
def test_where_the_course_cannot_be_written_the_names_go_to_the_users_cache(target, monkeypatch, course):
    if course == "is not there":
        target.parent.rmdir()
    else:
        access = os.access  # root may write everywhere
        monkeypatch.setattr(os, "access", lambda path, mode: path != target.parent and access(path, mode))
    with server(good) as requests:
        assert fetch_names() == fetch_names() == data.OWN_NAMES_FILE
    assert len(requests) == 1 and not target.exists() and load_names().source == "lecture"
    data.OWN_NAMES_FILE.write_text("ada\ngrace\n", encoding="utf-8")
    with pytest.raises(FileExistsError, match="cache.*Move it away"):
        fetch_names()


@pytest.mark.skipif(os.name == "nt", reason="Windows notices Ctrl-C only at the deadline")
def test_ctrl_c_ends_a_hanging_download_at_once_and_leaves_nothing_behind(target):
    code = (
        "import pathlib\nimport helpers.data as data\n"
        "data.LECTURE_URL, data.NAMES_FILE = sys.argv[1], pathlib.Path(sys.argv[2])\n"
        "data.FETCH_SECONDS = 600.0\n"  # so that it can't be the deadline that ends it
        "data.fetch_names()"
    )
    asked = threading.Event()
    with server(lambda handler, over: (asked.set(), over.wait())):
        process = subprocess.Popen(**with_module(code, data.LECTURE_URL, target), stderr=subprocess.PIPE)
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert beside(target) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()], ids=repr)
def test_a_write_that_fails_leaves_nothing_behind(target, monkeypatch, error):
    def stopped(path, content):
        path.touch()
        raise error

    monkeypatch.setattr("pathlib.Path.write_bytes", stopped)
    with server(good), pytest.raises(type(error)) as failed:
        fetch_names()
    if isinstance(error, OSError):
        assert all(part in str(failed.value) for part in [str(target), error.strerror, "MAKEMORE_NAMES"])
    assert beside(target) == []


# python -m helpers.data


@pytest.fixture
def main(monkeypatch, capsys):
    """A function that returns the one line that main prints, and its exit status (1 for a message, as in a shell)."""

    def main(*arguments):
        try:
            data.main(or_bundled="--or-bundled" in arguments)
        except SystemExit as exit:
            return str(exit.code), 1
        (line,) = capsys.readouterr().out.splitlines()
        return line, 0

    return main


def test_main_says_fetched_then_already_there_or_fails_unless_told_to_go_on(target, monkeypatch, main):
    monkeypatch.setattr(data, "LECTURE_URL", "http://127.0.0.1:9/names.txt")  # where nobody listens
    line, status = main()
    assert status == 1 and "by hand" in line and beside(target) == []
    line, status = main("--or-bundled")
    assert status == 0 and "8,602 names are in use (bundled)" in line and "by hand" in line
    with server(good):
        for word in "fetched", "already":
            line, status = main()
            assert status == 0 and word in line and str(target) in line
    target.write_text("ada\ngrace\n", encoding="utf-8")
    line, status = main("--or-bundled")
    assert status == 0 and f"2 names are in use ({target})" in line
    target.write_text("ada\ngrace hopper\n", encoding="utf-8")
    line, status = main("--or-bundled")
    assert status == 1 and line.startswith(f"{target}, line 2")


def test_main_does_not_fetch_when_a_file_is_set(target, write, monkeypatch, main):
    path = write("ada\ngrace\neve\n")
    monkeypatch.setenv("MAKEMORE_NAMES", str(path))
    with server(good) as requests:
        line, status = main()
        assert status == 0 and f"3 names are in use ({path})" in line
        monkeypatch.setenv("MAKEMORE_NAMES", str(path) + "x")
        line, status = main("--or-bundled")
        assert status == 1 and "MAKEMORE_NAMES points there" in line
    assert requests == []


def test_the_module_runs_as_a_command_and_the_default_encoding_does_not_matter(write):
    plain = dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    code = "import runpy; runpy.run_module('helpers.data', run_name='__main__')"  # as python -m does
    command = with_module(code, MAKEMORE_NAMES=str(write("zoë\njosé\n")), **plain)
    ran = subprocess.run(**command, capture_output=True, check=False)
    assert ran.returncode == 0 and "2 names" in ran.stdout and "accents" in ran.stderr and "(2)" in ran.stderr
