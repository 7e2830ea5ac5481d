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
from pathlib import Path

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import data
from helpers.data import ALPHABET, Names, build_dataset, fetch_names, load_names, load_splits
from notebook_cells import definitions

ROOT = Path(__file__).resolve().parent.parent
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


def read_aloud(path):
    """The words of a file and the text of the one warning that reading it gave."""
    with pytest.warns(UserWarning) as caught:
        words = load_names(path).words
    assert len(caught) == 1
    return words, str(caught[0].message)


# --- Which file is read ---


def test_the_bundled_names_are_8602_sorted_plain_ones():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = load_names(data.BUNDLED_FILE)
    assert names.source == "bundled"
    assert len(names.words) == 8602
    assert names.words == sorted(set(names.words))
    assert names.sha256 == hashlib.sha256(data.BUNDLED_FILE.read_bytes()).hexdigest() == data.BUNDLED_SHA256


def test_the_bundled_file_is_what_its_script_makes():
    faker = pytest.importorskip("faker")
    if faker.VERSION != "40.54.0":
        pytest.skip(f"made from Faker 40.54.0, this is {faker.VERSION}")
    script = ROOT / "scripts" / "make_bundled_names.py"
    run = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "8,602" in run.stdout


def test_argument_then_setting_then_fetched_then_bundled(tmp_path, monkeypatch):
    files = {}
    for word in ("argument", "setting", "fetched", "bundled"):
        files[word] = tmp_path / word
        files[word].write_text(f"{word}\nother\n")
    monkeypatch.setattr(data, "NAMES_FILE", files["fetched"])
    monkeypatch.setattr(data, "BUNDLED_FILE", files["bundled"])
    monkeypatch.setenv("MAKEMORE_NAMES", str(files["setting"]))

    assert load_names(files["argument"]).words[0] == load_names(str(files["argument"])).words[0] == "argument"
    assert load_names().words[0] == "setting"
    for empty in ("", "  "):
        monkeypatch.setenv("MAKEMORE_NAMES", empty)
        assert load_names().words[0] == "fetched"
    files["fetched"].unlink()
    assert load_names().words[0] == "bundled"
    assert load_names().source == str(files["bundled"])  # its bytes are not the bundled file's


def test_a_tilde_is_the_home_directory(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("ada\ngrace\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    names = load_names("~/mine.txt")
    assert names.words == ["ada", "grace"]
    assert names.source == str(tmp_path / "mine.txt")


def test_the_source_goes_by_the_bytes_wherever_the_file_lies(write):
    content = data.BUNDLED_FILE.read_bytes()
    assert load_names(write(content)).source == "bundled"
    other = write(content + b"zzyzx\n")
    assert load_names(other).source == str(other)
    assert load_names(other).sha256 == hashlib.sha256(content + b"zzyzx\n").hexdigest()


# --- A learner's own file: mended aloud ---


@pytest.mark.parametrize(
    "content, words, said",
    [
        ("Emma\nava\nMIA\n", ["emma", "ava", "mia"], ["lower-cased (2)"]),
        ("zoë\nJosé\nava\n", ["zoe", "jose", "ava"], ["accents", "(2)", "lower-cased (1)"]),
        ("Strauß\nÆsa\nŁukasz\nIşıl\nÞór", ["strauss", "aesa", "lukasz", "isil", "thor"], ["letters", "(5)"]),
        ("zoe\u0308\nava\n", ["zoe", "ava"], ["accents", "(1)"]),
        ("\ufb01nn\n\uff21va\n", ["finn", "ava"], ["accents", "(2)"]),  # a ligature, a full-width letter
        ("\nemma\n\n  \nava\n\n", ["emma", "ava"], ["blank lines dropped (4)"]),
        (" emma\nava\t\n\u00a0mia", ["emma", "ava", "mia"], ["surrounding spaces removed (3)"]),
        ("\ufeffemma\nava\n", ["emma", "ava"], ["byte order mark removed (1)"]),
        ("emma\r\nava\r\n", ["emma", "ava"], ["line ends made plain (2)"]),
        ("emma\rava\r", ["emma", "ava"], ["line ends made plain (2)"]),
    ],
)
def test_what_can_be_mended_is_mended_with_one_warning(write, content, words, said):
    path = write(content)
    read, warning = read_aloud(path)
    assert read == words
    for part in [str(path), *said]:
        assert part in warning
    assert path.read_bytes() == content.encode()


def test_a_warning_names_only_what_was_mended(write):
    _, warning = read_aloud(write("Emma\n  \nava\n"))
    assert "reading: blank lines dropped (1), names lower-cased (1). The file is unchanged" in warning


@pytest.mark.parametrize("content", ["emma\nava\nemma\n", "emma\nava\nemma"])
def test_a_plain_file_is_read_silently_and_keeps_its_duplicates(write, content):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_names(write(content)).words == ["emma", "ava", "emma"]


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(
            plain_words,
            plain_words.map(str.title),
            plain_words.map(lambda word: f" {word}\t"),
            st.text("éÉçñüÅßøæœłđıİﬁ", min_size=1, max_size=6),
            st.just(""),
        ),
        min_size=2,
        max_size=12,
    )
    .map(lambda lines: [*lines, "ada", "eve"])
    .flatmap(lambda lines: st.sampled_from(["\n", "\r\n"]).map(lambda end: (lines, end))),
    st.booleans(),
)
def test_mending_is_idempotent_and_keeps_one_plain_word_a_line(tmp_path_factory, lines_and_end, mark):
    lines, end = lines_and_end
    path = tmp_path_factory.mktemp("mended") / "names.txt"
    path.write_bytes((("\ufeff" if mark else "") + end.join(lines)).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = load_names(path).words
    assert len(words) == sum(bool(line.strip()) for line in lines)
    assert all(set(word) <= set(ALPHABET[1:]) for word in words)
    path.write_bytes("\n".join(words).encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
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
            words = load_names(path).words
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert all(word and set(word) <= set(ALPHABET[1:]) for word in words)


# --- A learner's own file: refused with file, line and remedy ---


@pytest.mark.parametrize(
    "content, line, said",
    [
        ("ava\nanna2\n", 2, "'anna2' holds '2' (U+0032)"),
        ("ava\n\nmary-ann\n", 3, "'mary-ann' holds '-'"),
        ("o'neill\nava\n", 1, 'holds "\'"'),
        ("ava\nmary ann\n", 2, "'mary ann' holds ' '"),
        ("emma,F,20799\nava,F,1\n", 1, "holds ','"),
        ("ava\nst.john\n", 2, "holds '.'"),
        ("ava\nИван\n", 2, "'Иван' holds 'И' (U+0418)"),
        ("ava\nem\u200bma\n", 2, "U+200B"),
        ("ava\n½\n", 2, "'½'"),
        ("ava\ne\x00mma\n", 2, "U+0000"),
        ("ava\n\u0301\n", 2, "has 0 letters"),
        ("ava\r\nmia\r\nx y\r\n", 3, "'x y'"),
        ("ava\nmia\rx y\n", 3, "'x y'"),
        ("ava\n" + "a" * 101 + "\n", 2, "has 101 letters"),
        ("a" * 300_000, 1, "has 300,000 letters"),
        ("emma " * 50_000, 1, "holds ' '"),
        ("ava\nzoë\nmía\n".encode("latin-1"), 2, "not UTF-8"),
        ("ava\nmia\n".encode("utf-16"), 1, "not UTF-8"),
    ],
)
def test_what_cannot_be_mended_is_refused_by_file_and_line(write, content, line, said):
    path = write(content)
    with pytest.raises(ValueError) as refused:
        load_names(path)
    message = str(refused.value)
    assert message.startswith(f"{path}, line {line}: ")
    assert said in message
    assert "Mend or remove that line" in message or "Save the file as UTF-8" in message
    assert len(message) < len(str(path)) + 250


def test_a_name_of_100_letters_is_still_read(write):
    assert load_names(write("a" * 100 + "\nava\n")).words == ["a" * 100, "ava"]


@pytest.mark.parametrize(
    "content, found", [("", "no names"), ("\n \n", "no names"), ("\ufeff", "no names"), ("emma\n", "one name only")]
)
def test_a_file_without_names_is_refused(write, content, found):
    path = write(content)
    with pytest.raises(ValueError, match=f"{found}.*one on each line") as refused:
        load_names(path)
    assert str(path) in str(refused.value)


def test_a_file_that_cannot_be_read_names_path_and_remedy(tmp_path, monkeypatch):
    missing = tmp_path / "missing.txt"
    with pytest.raises(FileNotFoundError, match="Give the path of a text file") as refused:
        load_names(missing)
    assert str(missing) in str(refused.value)
    with pytest.raises(OSError, match="Give the path") as refused:  # PermissionError on Windows
        load_names(tmp_path)
    assert str(tmp_path) in str(refused.value)
    monkeypatch.setenv("MAKEMORE_NAMES", str(missing))
    with pytest.raises(FileNotFoundError, match="MAKEMORE_NAMES points there"):
        load_names()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MAKEMORE_NAMES", "beside_me.txt")
    with pytest.raises(FileNotFoundError) as refused:  # a relative path is shown in full
        load_names()
    assert str(tmp_path / "beside_me.txt") in str(refused.value)


def test_a_file_without_permission_names_path_and_remedy(write):
    path = write("emma\nava\n")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user (root?) may read everything")
    with pytest.raises(PermissionError, match="Give the path") as refused:
        load_names(path)
    assert str(path) in str(refused.value)


def test_the_default_encoding_does_not_matter(write):
    path = write("Zoë\nJosé\n")
    code = "import sys, helpers.data as d; print(d.load_names(sys.argv[1]).words)"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = subprocess.run(
        [sys.executable, "-c", code, path],
        env={**os.environ, **plain},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "['zoe', 'jose']"
    assert "accents" in run.stderr


# --- Windows ---


@pytest.fixture(scope="module", params=["helpers.data", "chapter 01"])
def windows(request):
    """build_dataset as the helpers have it, and as chapter 01 writes it."""
    return build_dataset if request.param == "helpers.data" else definitions("01_starter_code")["build_dataset"]


def test_the_windows_of_one_name(windows):
    X, Y = windows(["emma"], STOI)
    assert X.tolist() == [[0, 0, 0], [0, 0, 5], [0, 5, 13], [5, 13, 13], [13, 13, 1]]
    assert Y.tolist() == [5, 13, 13, 1, 0]


@settings(deadline=None)
@given(words=st.lists(plain_words, min_size=1, max_size=8), block_size=st.integers(1, 15))
def test_windows_reconstruct_the_words(windows, words, block_size):
    X, Y = windows(words, STOI, block_size)
    count = sum(len(word) + 1 for word in words)
    assert X.shape == (count, block_size) and Y.shape == (count,)
    assert X.dtype == Y.dtype == torch.int64
    text = "".join(ALPHABET[y] for y in Y.tolist())
    assert text == "".join(word + "." for word in words)
    row = 0
    for word in words:  # each row is what stands before its character, within its own name
        padded = "." * block_size + word
        for position in range(len(word) + 1):
            assert "".join(ALPHABET[x] for x in X[row].tolist()) == padded[position : position + block_size]
            row += 1


def test_no_names_have_a_shape_too():
    X, Y = build_dataset([], STOI, 4)
    assert X.shape == (0, 4) and Y.shape == (0,) and X.dtype == Y.dtype == torch.int64


def test_windows_follow_the_given_stoi():
    X, Y = build_dataset(["ba"], {".": 2, "a": 1, "b": 0}, block_size=2)
    assert X.tolist() == [[2, 2], [2, 0], [0, 1]]
    assert Y.tolist() == [0, 1, 2]


@pytest.mark.parametrize("block_size", [0, -1])
def test_a_window_of_no_characters_is_refused(block_size):
    with pytest.raises(ValueError, match=f"block_size is {block_size}"):
        build_dataset(["emma"], STOI, block_size)


def test_an_unknown_character_is_refused_with_its_word():
    with pytest.raises(ValueError, match="'anna2' holds '2'"):
        build_dataset(["emma", "anna2"], STOI)


# --- Splits ---


def lecture_cells(words):
    """The lecture's own cells: windows and shuffle, on the global random state."""
    stoi = {s: i + 1 for i, s in enumerate("abcdefghijklmnopqrstuvwxyz")}
    stoi["."] = 0
    block_size = 3

    def build(words):
        X, Y = [], []
        for w in words:
            context = [0] * block_size
            for ch in w + ".":
                ix = stoi[ch]
                X.append(context)
                Y.append(ix)
                context = context[1:] + [ix]
        return torch.tensor(X), torch.tensor(Y)

    random.seed(42)
    random.shuffle(words)
    n1 = int(0.8 * len(words))
    n2 = int(0.9 * len(words))
    return build(words[:n1]), build(words[n1:n2]), build(words[n2:])


def test_the_splits_are_the_lectures():
    names = load_names()
    splits = load_splits()
    for ours, theirs in zip((splits.train, splits.val, splits.test), lecture_cells(list(names.words)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert splits.names == names
    assert splits.stoi == STOI and splits.stoi["."] == 0 and splits.stoi["z"] == 26
    assert splits.itos == {index: char for char, index in STOI.items()}


def test_the_lectures_file_gives_the_lectures_shapes_silently():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = load_names()
        if names.source != "lecture":
            pytest.skip("the lecture's names are not here: run `make data`, or set MAKEMORE_NAMES")
        splits = load_splits(names)
    assert len(names.words) == 32033 and len(set(names.words)) == 32033 - 2539
    assert names.words[:3] == ["emma", "olivia", "ava"]
    shapes = [tuple(X.shape) for X, _ in (splits.train, splits.val, splits.test)]
    assert shapes == [(182625, 3), (22655, 3), (22866, 3)]
    training = set(splits.words["train"])
    assert len(splits.words["val"]) == 3203
    assert sum(word in training for word in splits.words["val"]) == 424


@settings(deadline=None)
@given(st.lists(plain_words, min_size=6, max_size=60), st.integers(0, 2**32), st.integers(1, 5))
def test_every_split_is_filled_and_together_they_are_the_whole(words, seed, block_size):
    numbered = [f"{word}{ALPHABET[1 + i % 26]}{ALPHABET[1 + i // 26]}" for i, word in enumerate(words)]  # told apart
    splits = load_splits(Names(numbered, "mine", ""), block_size=block_size, seed=seed)
    parts = [splits.words[part] for part in ("train", "val", "test")]
    n = len(words)
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


def test_splits_take_what_load_names_takes(write):
    path = write("\n".join("abcdefgh"))
    assert load_splits(path).names.source == str(path)
    assert load_splits(str(path)).words == load_splits(load_names(path)).words


@pytest.mark.parametrize("count", [2, 5])
def test_too_few_names_to_split_are_refused(write, count):
    path = write("\n".join("abcdef"[:count]))
    with pytest.raises(ValueError, match=f"{count} names are too few.*six or more") as refused:
        load_splits(path)
    assert str(path) in str(refused.value)


def test_names_are_frozen():
    with pytest.raises(AttributeError):
        Names(["a"], "mine", "").words = []


# --- Fetching ---

CONTENT = b"emma\nolivia\nava\n" * 1000  # stands for the lecture's file, which the tests may not need


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request, client_address):
        pass  # a client that has given up is what is tested here


@contextmanager
def server(answer):
    """A web server on this machine whose every GET is handled by `answer(handler)`; yields its list of requests."""
    requests, over = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            answer(self, over)

        def log_message(self, *args):
            pass

    with Server(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}/names.txt", requests
        finally:
            over.set()
            httpd.shutdown()


def send(handler, body, *, status=200, length=None, kind="text/plain"):
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    handler.wfile.write(body)


def good(handler, over):
    send(handler, CONTENT)


def short(handler, over):
    send(handler, CONTENT[:-100])


def cut_off(handler, over):
    send(handler, CONTENT[:5000], length=len(CONTENT))


def empty(handler, over):
    send(handler, b"")


def wrong(handler, over):
    send(handler, CONTENT.replace(b"emma", b"anna", 1))


def longer(handler, over):
    send(handler, CONTENT + b"zoe\n")


def not_found(handler, over):
    send(handler, b"404: Not Found", status=404)


def log_in_page(handler, over):
    if handler.path == "/login":
        return send(handler, b"<html>Welcome to our network!</html>", kind="text/html")
    handler.send_response(302)
    handler.send_header("Location", "/login")
    handler.end_headers()


def not_http(handler, over):
    handler.wfile.write(b"what?\r\n\r\n")


def hanging(handler, over):
    over.wait()


def hanging_in_the_body(handler, over):
    send(handler, CONTENT[:5000], length=len(CONTENT))
    handler.wfile.flush()
    over.wait()


def dribbling_headers(handler, over):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
    while not over.wait(0.02):
        handler.wfile.write(b"x")


def dribbling_body(handler, over):
    send(handler, b"", length=len(CONTENT))
    for byte in CONTENT:
        if over.wait(0.02):
            return
        handler.wfile.write(bytes([byte]))


@pytest.fixture
def target(tmp_path, monkeypatch):
    """An empty data folder where names.txt goes, and no proxy before the server."""
    folder = tmp_path / "data"
    folder.mkdir()
    monkeypatch.setattr(data, "NAMES_FILE", folder / "names.txt")
    monkeypatch.setattr(data, "LECTURE_SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(data, "LECTURE_BYTES", len(CONTENT))
    monkeypatch.setattr(data, "FETCH_SECONDS", 30.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("MAKEMORE_NAMES", raising=False)
    return folder / "names.txt"


def folder_of(target):
    return sorted(path.name for path in target.parent.iterdir())


def test_a_good_download_is_kept_and_not_asked_for_again(target, monkeypatch):
    with server(good) as (url, requests):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        assert fetch_names() == target
        assert target.read_bytes() == CONTENT
        assert folder_of(target) == ["names.txt"]
        written = target.stat().st_mtime_ns
        assert fetch_names() == target
        assert len(requests) == 1
        assert target.stat().st_mtime_ns == written
    assert load_names().source == "lecture"
    # Readable by everyone whom the umask allows, which a file from tempfile is not.
    (target.parent / "other").touch()
    assert target.stat().st_mode == (target.parent / "other").stat().st_mode


@pytest.mark.parametrize(
    "answer", [short, cut_off, empty, wrong, longer, not_found, log_in_page, not_http], ids=lambda f: f.__name__
)
def test_a_bad_download_leaves_nothing_behind(target, monkeypatch, answer):
    with server(answer) as (url, _):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        with pytest.raises(ConnectionError, match="by hand and let MAKEMORE_NAMES") as failed:
            fetch_names()
        assert url in str(failed.value)
        assert "\n" not in str(failed.value)
    assert folder_of(target) == []


@pytest.mark.parametrize(
    "answer", [hanging, hanging_in_the_body, dribbling_headers, dribbling_body], ids=lambda f: f.__name__
)
def test_a_slow_download_ends_at_the_deadline(target, monkeypatch, answer):
    monkeypatch.setattr(data, "FETCH_SECONDS", 0.3)
    with server(answer) as (url, _):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        started = time.monotonic()
        # The socket's own timeout may be the first to strike.
        with pytest.raises((TimeoutError, ConnectionError), match="by hand and let MAKEMORE_NAMES"):
            fetch_names()
        assert 0.2 < time.monotonic() - started < 60  # the servers would never end
    assert folder_of(target) == []


def test_the_deadline_is_ten_seconds():
    assert data.FETCH_SECONDS <= 10


def test_a_slow_name_look_up_ends_at_the_deadline(target, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(data, "FETCH_SECONDS", 0.2)
    monkeypatch.setattr(data, "LECTURE_URL", "http://names.invalid/names.txt")
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **kwargs: over.wait() and [])
    try:
        with pytest.raises(TimeoutError, match="0.2 seconds"):
            fetch_names()
    finally:
        over.set()
    assert folder_of(target) == []


def test_a_refused_connection_leaves_nothing_behind(target, monkeypatch):
    with server(good) as (url, _):
        pass  # nobody listens there any more
    monkeypatch.setattr(data, "LECTURE_URL", url)
    with pytest.raises(ConnectionError, match="by hand and let MAKEMORE_NAMES"):
        fetch_names()
    assert folder_of(target) == []


def test_no_more_is_read_than_the_files_length(target, monkeypatch):
    def endless(handler, over):
        handler.send_response(200)
        handler.end_headers()
        while not over.is_set():
            handler.wfile.write(b"x" * 65536)

    with server(endless) as (url, _):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        with pytest.raises(ConnectionError, match=rf"\({len(CONTENT) + 1:,} bytes\)"):
            fetch_names()
    assert folder_of(target) == []


def test_an_own_names_file_is_never_overwritten(target, monkeypatch):
    target.write_text("ada\ngrace\n")
    with server(good) as (url, requests):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        with pytest.raises(FileExistsError, match="Move it away"):
            fetch_names()
        assert requests == []
    assert target.read_text() == "ada\ngrace\n"
    assert folder_of(target) == ["names.txt"]


def test_two_fetches_at_once_leave_one_good_file(target, monkeypatch):
    together, paths = threading.Barrier(4), []

    def at_once(handler, over):
        together.wait(timeout=20)
        send(handler, CONTENT)

    with server(at_once) as (url, requests):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        threads = [threading.Thread(target=lambda: paths.append(fetch_names())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(requests) == 4
    assert paths == [target] * 4
    assert target.read_bytes() == CONTENT
    assert folder_of(target) == ["names.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows notices Ctrl-C only at the deadline")
def test_ctrl_c_ends_a_hanging_download_at_once_and_leaves_nothing_behind(target):
    code = (
        "import pathlib, sys, helpers.data as data\n"
        "data.LECTURE_URL, data.NAMES_FILE = sys.argv[1], pathlib.Path(sys.argv[2])\n"
        "data.FETCH_SECONDS = 600.0\n"  # so that it can't be the deadline that ends it
        "data.fetch_names()"
    )
    asked = threading.Event()

    def hanging_aloud(handler, over):
        asked.set()
        over.wait()

    with server(hanging_aloud) as (url, _):
        command = [sys.executable, "-c", code, url, target]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
    assert folder_of(target) == []


def test_an_interrupted_write_leaves_nothing_behind(target, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(data.os, "replace", interrupted)
    with server(good) as (url, _):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        with pytest.raises(KeyboardInterrupt):
            fetch_names()
    assert folder_of(target) == []


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")],
    ids=["full", "read_only"],
)
def test_a_file_that_cannot_be_written_leaves_nothing_behind(target, monkeypatch, error):
    def stopped(path, content):
        path.touch()
        raise error

    monkeypatch.setattr(Path, "write_bytes", stopped)
    with server(good) as (url, _):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        with pytest.raises(type(error), match=f"cannot be written: {error.strerror}.*MAKEMORE_NAMES") as failed:
            fetch_names()
        assert str(target) in str(failed.value)
    assert folder_of(target) == []


def test_a_read_only_folder_is_named(target, monkeypatch):
    target.parent.chmod(0o555)
    try:
        if os.access(target.parent, os.W_OK):
            pytest.skip("this user (root?) may write everywhere")
        with server(good) as (url, _):
            monkeypatch.setattr(data, "LECTURE_URL", url)
            with pytest.raises(PermissionError, match="cannot be written") as failed:
                fetch_names()
            assert str(target) in str(failed.value)
        assert folder_of(target) == []
    finally:
        target.parent.chmod(0o755)


# --- python -m helpers.data ---


def run_main(monkeypatch, capsys, *arguments):
    """What main prints, line by line, and its exit status (its message counts as 1, as for the interpreter)."""
    monkeypatch.setattr(sys, "argv", ["helpers.data", *arguments])
    try:
        data.main()
    except SystemExit as exit:
        return str(exit.code).splitlines(), 1
    return capsys.readouterr().out.splitlines(), 0


def test_main_says_fetched_then_already_there(target, monkeypatch, capsys):
    with server(good) as (url, _):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        assert run_main(monkeypatch, capsys) == ([f"The lecture's names were fetched to {target}."], 0)
    assert run_main(monkeypatch, capsys) == ([f"The lecture's names are already in {target}."], 0)


def test_main_fails_without_network_unless_told_to_go_on(target, monkeypatch, capsys):
    with server(good) as (url, _):
        pass
    monkeypatch.setattr(data, "LECTURE_URL", url)
    (line,), status = run_main(monkeypatch, capsys)
    assert status == 1 and "The download failed" in line
    (line,), status = run_main(monkeypatch, capsys, "--or-bundled")
    assert status == 0 and line.startswith("Going on with 8,602 names (bundled). The download failed")
    target.write_text("ada\ngrace\n")
    (line,), status = run_main(monkeypatch, capsys, "--or-bundled")
    assert status == 0 and line.startswith(f"Going on with 2 names ({target}). ")
    target.write_text("ada\ngrace hopper\n")
    (line,), status = run_main(monkeypatch, capsys, "--or-bundled")
    assert status == 1 and line.startswith(f"{target}, line 2")


def test_main_does_not_fetch_when_a_file_is_set(target, write, monkeypatch, capsys):
    path = write("ada\ngrace\neve\n")
    monkeypatch.setenv("MAKEMORE_NAMES", str(path))
    with server(good) as (url, requests):
        monkeypatch.setattr(data, "LECTURE_URL", url)
        (line,), status = run_main(monkeypatch, capsys)
        assert status == 0 and line == f"MAKEMORE_NAMES is set: 3 names are in use ({path})."
        monkeypatch.setenv("MAKEMORE_NAMES", str(path) + "x")
        (line,), status = run_main(monkeypatch, capsys, "--or-bundled")
        assert status == 1 and "MAKEMORE_NAMES points there" in line
        assert requests == []


def test_the_module_runs_as_a_command(write):
    run = subprocess.run(
        [sys.executable, "-m", "helpers.data"],
        env={**os.environ, "MAKEMORE_NAMES": str(write("ada\ngrace\n"))},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("MAKEMORE_NAMES is set: 2 names")
