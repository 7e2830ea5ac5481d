"""Read the names, cut them into windows and split them; fetch the lecture's own list (`make data`)."""

import hashlib
import os
import random
import re
import sys
import threading
import unicodedata
import warnings
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_cache_path

LECTURE_URL = "https://raw.githubusercontent.com/karpathy/makemore/988aa59e4d8fefa526d06f3b453ad116258398d4/names.txt"
LECTURE_SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
LECTURE_BYTES = 228_145
BUNDLED_SHA256 = "d3444fef9b708379fa45ed02d227c643d0f8a95619aa95010bfa0339006d4fbf"

COURSE = Path(__file__).resolve().parent.parent
INSTALLED = Path(__file__).resolve().parent / "course"  # a copy of data/, if helpers was installed as a package
DATA = INSTALLED if INSTALLED.exists() else COURSE / "data"
NAMES_FILE = COURSE / "data" / "names.txt"  # the lecture's names, once fetched
BUNDLED_FILE = DATA / "bundled_names.txt"
OWN_NAMES_FILE = user_cache_path("makemore-activations") / "names.txt"  # the same, where the course can't be written
FETCH_SECONDS = 10.0  # for the whole download, however slowly its bytes trickle in

ALPHABET = ".abcdefghijklmnopqrstuvwxyz"  # "." stands before and after every name
LONGEST_NAME = 100  # letters; a longer line is probably a file with several names on each line
# Letters that Unicode does not split into a plain letter and an accent.
SPECIAL = str.maketrans("øłđðı", "olddi") | str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "þ": "th"})


@dataclass(frozen=True)
class Names:
    """A list of names and where it is from."""

    words: list[str]  # in the file's order, duplicates kept
    source: str  # "lecture" or "bundled", wherever that file lies, else the file's path
    sha256: str  # of the file's bytes


@dataclass(frozen=True, eq=False)
class Splits:
    """The three splits, each (X, Y) as build_dataset returns them, and what they were made from."""

    train: tuple[torch.Tensor, torch.Tensor]
    val: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]
    stoi: dict[str, int]
    itos: dict[int, str]
    names: Names
    words: dict[str, list[str]]  # the names that went into "train", "val" and "test"


def course_file(name):
    """The path of one of the course's own files, such as "data/results/loss_log.json", wherever the notebook lies.

    Where helpers was installed as a package, only data/ is there. Raises FileNotFoundError for anything else.
    """
    path = DATA / name.removeprefix("data/") if name.startswith("data/") else COURSE / name
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: use helpers from the course's folder, and restore it with git.")
    return path


def load_names(path=None):
    """Read a file of names, one on each line, and return Names.

    The file is `path`, else the one that MAKEMORE_NAMES names, else the lecture's once it was fetched (data/names.txt,
    or the user's cache), else data/bundled_names.txt. Upper case, accents, blank lines, surrounding spaces, a byte
    order mark and the line ends of other systems are mended; one UserWarning counts them. Raises ValueError with file,
    line and remedy where anything but a to z is left, or for fewer than two names; OSError for an unreadable file.
    """
    remedy = "Give the path of a text file with one name on each line."
    if path is None and (path := _setting()):
        remedy = "MAKEMORE_NAMES points there: correct it, or unset it to use the course's names."
    elif path is None:
        path, remedy = _fetched() or BUNDLED_FILE, "Restore it with git, or let MAKEMORE_NAMES name a file."
    path = Path(os.path.expanduser(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise type(error)(f"{path.absolute()} cannot be read: {error.strerror}. {remedy}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    source = {LECTURE_SHA256: "lecture", BUNDLED_SHA256: "bundled"}.get(sha256, str(path))
    return Names(_read_words(content, path), source, sha256)


def _setting():
    return os.environ.get("MAKEMORE_NAMES", "").strip() or None


def _fetched():
    """Where the lecture's names are; None before they are fetched."""
    return next((place for place in (NAMES_FILE, OWN_NAMES_FILE) if place.exists()), None)


def _read_words(content, path):
    """The names in a file's bytes; a warning counts what had to be mended."""
    text = content.decode("utf-8", errors="replace")  # bytes that are not UTF-8 become U+FFFD, which is refused below
    words, mended = [], Counter()
    mended["byte order mark removed"] += text.startswith("\ufeff")
    mended["line ends made plain"] += text.count("\r")
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    for number, line in enumerate(text.split("\n"), start=1):
        name = line.strip()
        word = _plain(name)
        odd = re.sub("[a-z]", "", word)
        if name and (odd or not 1 <= len(word) <= LONGEST_NAME):
            fault = f"holds {odd[0]!r}" if odd else f"has {len(word):,} letters"
            remedy = f"Mend or remove that line: on each a name of 1 to {LONGEST_NAME} letters a to z, saved as UTF-8."
            raise ValueError(f"{path}, line {number}: {name[:40]!r} {fault}. {remedy}")
        mended["blank lines dropped"] += not name
        mended["surrounding spaces removed"] += bool(name) and name != line
        mended["names lower-cased"] += name != name.lower()
        mended["accents and special letters made plain"] += name.lower() != word
        words += [word] if name else []
    if len(words) < 2:  # probably another file was meant
        raise ValueError(f"{path} holds {len(words)} name(s). Put many names into it, one on each line.")
    if counts := ", ".join(f"{what} ({count:,})" for what, count in mended.items() if count):
        warnings.warn(f"{path} was mended while reading: {counts}. The file is unchanged.", stacklevel=3)
    return words


def _plain(text):
    """Lower case without accents: É is e, ß is ss. A character without a plain letter stays."""
    letters = (char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return "".join(letters).lower().translate(SPECIAL)


def build_dataset(words, stoi, block_size=3):
    """Slide a window over each name: the block_size characters before each character, and that character.

    Returns X (N, block_size) and Y (N,), int64; N counts every letter and one final "." per name. Raises KeyError for
    a character that stoi does not know, ValueError for a block_size under 1. Lecture, 00:01:22.
    """
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}, but a window needs at least 1 character.")
    X, Y = [], []
    for word in words:
        context = [stoi["."]] * block_size
        for char in word + ".":
            X += context  # one long list, cut into windows below: a list per window takes four times as long
            Y.append(stoi[char])
            context = context[1:] + [stoi[char]]
    X = torch.tensor(X, dtype=torch.int64).view(len(Y), block_size)
    return X, torch.tensor(Y, dtype=torch.int64)


def load_splits(names=None, *, block_size=3, seed=42):
    """Shuffle the names, split them 80/10/10 and build each part's windows; returns Splits.

    names: what load_names returns, or anything that it takes. Raises ValueError for under six, too few for three
    parts. The shuffle is the lecture's (00:01:22). Python's own random state is left alone.
    """
    names = names if isinstance(names, Names) else load_names(names)
    words = list(names.words)
    random.Random(seed).shuffle(words)
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    parts = {"train": words[:n1], "val": words[n1:n2], "test": words[n2:]}
    if not all(parts.values()):
        raise ValueError(f"{names.source}: {len(words)} names are too few for three splits. Give six or more.")
    itos = dict(enumerate(ALPHABET))
    stoi = {char: index for index, char in itos.items()}
    datasets = {part: build_dataset(chosen, stoi, block_size) for part, chosen in parts.items()}
    return Splits(**datasets, stoi=stoi, itos=itos, names=names, words=parts)


def fetch_names():
    """Download the lecture's names to data/names.txt, unless they are there; returns that path.

    Where the course can't be written, they go to the user's cache. Takes FETCH_SECONDS at most. Every failure is an
    OSError that names the remedy and leaves nothing behind; a data/names.txt of your own is never overwritten.
    """
    import pooch  # needed here alone

    path = NAMES_FILE if NAMES_FILE.exists() or os.access(NAMES_FILE.parent, os.W_OK) else OWN_NAMES_FILE
    if path.exists() and pooch.file_hash(path) != LECTURE_SHA256:
        raise FileExistsError(f"{path} is not the lecture's file: left alone. Move it away first.")
    pooch.get_logger().setLevel("ERROR")
    try:
        # pooch writes to a temporary file in that folder, compares the hash, and only then moves it into place.
        pooch.retrieve(LECTURE_URL, f"sha256:{LECTURE_SHA256}", path.name, path.parent, downloader=_download)
    except (OSError, ValueError) as error:  # ValueError is pooch's word for another hash
        reason = "it is not the lecture's file" if isinstance(error, ValueError) else " ".join(str(error).split())
        remedy = f"Download {LECTURE_URL} by hand and let MAKEMORE_NAMES point at the file."
        raise OSError(f"The download to {path} failed: {reason}. {remedy}") from error
    return path


def _download(url, path, _):
    """A downloader for pooch that ends after FETCH_SECONDS; path is pooch's temporary file."""
    import requests  # needed here alone

    answer = Future()

    def get():
        try:
            with requests.get(url, timeout=FETCH_SECONDS, stream=True) as response:
                response.raise_for_status()
                # One byte more than the file has, so that a longer file shows.
                answer.set_result(next(response.iter_content(LECTURE_BYTES + 1), b""))
        except Exception as error:  # noqa: BLE001  whatever it is, the waiting thread raises it
            answer.set_exception(error)

    # In a thread, because a socket's timeout starts afresh with each byte and does not cover the name look-up.
    threading.Thread(target=get, daemon=True).start()
    try:
        content = answer.result(timeout=FETCH_SECONDS)
    except TimeoutError:
        raise TimeoutError(f"it took more than {FETCH_SECONDS:g} seconds") from None
    os.unlink(path)  # a temporary file may be read by its owner only; the new one may be read by everybody
    Path(path).write_bytes(content)


def main(or_bundled=False):
    """`python -m helpers.data [--or-bundled]`: fetch the lecture's names; say in one line which are in use."""
    what = "MAKEMORE_NAMES is set."
    try:
        if not _setting():
            verb = "are already in" if _fetched() else "were fetched to"
            what = f"The lecture's names {verb} {fetch_names()}."
    except OSError as error:
        if not or_bundled:
            sys.exit(str(error))
        what = error
    try:
        names = load_names()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(f"{len(names.words):,} names are in use ({names.source}). {what}")


if __name__ == "__main__":
    main(or_bundled="--or-bundled" in sys.argv[1:])
