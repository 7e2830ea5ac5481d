"""The names: read, cut into windows and split; and the lecture's own file fetched (`make data`)."""

import argparse
import hashlib
import http.client
import os
import queue
import random
import re
import secrets
import sys
import threading
import unicodedata
import urllib.request
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

LECTURE_URL = (
    "https://raw.githubusercontent.com/karpathy/makemore/988aa59e4d8fefa526d06f3b453ad116258398d4/names.txt"
)
LECTURE_SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
LECTURE_BYTES = 228_145
BUNDLED_SHA256 = "d3444fef9b708379fa45ed02d227c643d0f8a95619aa95010bfa0339006d4fbf"

DATA = Path(__file__).resolve().parent.parent / "data"
NAMES_FILE = DATA / "names.txt"  # the lecture's names, once fetched
BUNDLED_FILE = DATA / "bundled_names.txt"
FETCH_SECONDS = 10.0  # for the whole download, however slowly its bytes trickle in

ALPHABET = ".abcdefghijklmnopqrstuvwxyz"  # "." stands before and after every name
LONGEST_NAME = 100  # letters; a longer line is no name, but a file whose names are not one a line
UNDECOMPOSED = str.maketrans(
    {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
)


@dataclass(frozen=True)
class Names:
    """A list of names and where it is from."""

    words: list[str]  # in the file's order, duplicates kept
    source: str  # "lecture", "bundled", or the path of another file
    sha256: str  # of the file's bytes


@dataclass(frozen=True, eq=False)
class Splits:
    """The training, validation and test split, each (X, Y) as build_dataset returns them."""

    train: tuple[torch.Tensor, torch.Tensor]
    val: tuple[torch.Tensor, torch.Tensor]
    test: tuple[torch.Tensor, torch.Tensor]
    stoi: dict[str, int]
    itos: dict[int, str]
    names: Names
    words: dict[str, list[str]]  # the names that went into "train", "val" and "test"


def load_names(path=None):
    """Read a file of names, one a line, and return Names.

    The file is `path`, else the one that MAKEMORE_NAMES names, else data/names.txt (the lecture's, once
    fetched), else data/bundled_names.txt. Upper case, accents, blank lines, surrounding spaces, a byte order
    mark and Windows line ends are mended, with one UserWarning that counts them. A line that still holds
    anything but a to z is a ValueError that names the file, the line and the remedy, and so is a file of
    fewer than two names; a file that cannot be read is an OSError.
    """
    remedy = "Give the path of a text file with one name a line."
    if path is None and (path := os.environ.get("MAKEMORE_NAMES", "").strip()):
        remedy = "MAKEMORE_NAMES points at it: correct that setting, or unset it to use the course's names."
    path = Path(path or (NAMES_FILE if NAMES_FILE.exists() else BUNDLED_FILE)).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{path.absolute()} is a directory, not a file of names. {remedy}")
    if not path.is_file():  # a pipe or a device would be waited for without end
        raise FileNotFoundError(f"There is no file {path.absolute()}. {remedy}")
    try:
        content = path.read_bytes()
    except PermissionError as error:
        raise PermissionError(f"{path.absolute()} may not be read. Make it readable. {remedy}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    source = {LECTURE_SHA256: "lecture", BUNDLED_SHA256: "bundled"}.get(sha256, str(path))
    words, mended = _words_of(content, path)
    if mended:
        counts = ", ".join(f"{what} ({count:,})" for what, count in mended.items())
        warnings.warn(f"{path}: read with these mends: {counts}. The file is unchanged.", stacklevel=2)
    return Names(words, source, sha256)


def _words_of(content, path):
    """The names in a file's bytes, and a Counter of what had to be mended."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text. Save the file as UTF-8.") from error

    words, mended = [], Counter()
    if text.startswith("\ufeff"):
        text = text[1:]
        mended["byte order mark removed"] += 1
    if "\r" in text:
        mended["line ends made plain"] += text.count("\r")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        stripped = line.strip()
        word = _plain(stripped)
        if stripped and not re.fullmatch("[a-z]+", word):
            odd = next((char for char in stripped if not re.fullmatch("[a-z]*", _plain(char))), stripped[0])
            raise ValueError(
                f"{path}, line {number}: {_shortened(stripped)} holds {odd!r} (U+{ord(odd):04X}). "
                "A name is made of the letters a to z alone: mend or remove that line."
            )
        if len(word) > LONGEST_NAME:
            raise ValueError(
                f"{path}, line {number}: {_shortened(stripped)} has {len(word):,} letters, more than a name's "
                f"{LONGEST_NAME}. Put one name on each line."
            )
        mended["blank lines dropped"] += not stripped
        mended["surrounding spaces removed"] += bool(stripped) and stripped != line
        mended["accents and special letters made plain"] += stripped.lower() != word
        mended["names lower-cased"] += stripped != stripped.lower()
        if word:
            words.append(word)
    if len(words) < 2:
        # Refused here rather than in load_splits: such a file is nearly always not the one that was meant.
        raise ValueError(f"{path} holds {len(words)} names, after {number} lines. Put one name on each line.")
    return words, +mended  # the plus drops what was counted zero times


def _plain(text):
    """Lower case, accents off: `É` is e, `ß` is ss; what has no plain letters stays as it is."""
    letters = (char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return "".join(letters).lower().translate(UNDECOMPOSED)


def _shortened(text):
    return repr(text if len(text) <= 40 else text[:37] + "...")


def build_dataset(words, stoi, block_size=3):
    """Slide a window over each name: the block_size characters before each character, and that character.

    Returns X (N, block_size) int64 and Y (N,) int64; N counts every letter and one final "." a name, and is 0
    for no names. An unknown character or a block_size under 1 is a ValueError. Lecture, 00:01:22.
    """
    if block_size < 1:
        raise ValueError(f"block_size is {block_size}, but a window needs at least 1 character.")
    X, Y = [], []
    for word in words:
        context = [stoi["."]] * block_size
        for char in word + ".":
            if char not in stoi:
                raise ValueError(
                    f"{word!r} holds {char!r}, which is not in stoi. Lower-case a to z is known."
                )
            X.append(context)
            Y.append(stoi[char])
            context = context[1:] + [stoi[char]]
    X = torch.tensor(X, dtype=torch.int64).view(len(Y), block_size)  # the view gives no names a shape, too
    return X, torch.tensor(Y, dtype=torch.int64)


def load_splits(names=None, *, block_size=3, seed=42):
    """Shuffle the names, split them 80/10/10 and build each part's windows; returns Splits.

    `names` is what load_names returns, or anything that it takes. Too few names for three parts (under six)
    are a ValueError. The shuffle is the lecture's (00:01:22), from a generator of its own.
    """
    names = names if isinstance(names, Names) else load_names(names)
    words = list(names.words)
    random.Random(seed).shuffle(words)
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    parts = {"train": words[:n1], "val": words[n1:n2], "test": words[n2:]}
    if not all(parts.values()):
        raise ValueError(
            f"{names.source} holds {len(words)} names, too few for a training, a validation and a test split. "
            "Six are the least, some thousands are useful."
        )
    stoi = {char: index for index, char in enumerate(ALPHABET)}
    itos = {index: char for char, index in stoi.items()}
    datasets = {part: build_dataset(chosen, stoi, block_size) for part, chosen in parts.items()}
    return Splits(**datasets, stoi=stoi, itos=itos, names=names, words=parts)


def _is_lecture(content):
    return hashlib.sha256(content).hexdigest() == LECTURE_SHA256


def fetch_names():
    """Download the lecture's names to data/names.txt, unless they are there; returns that path.

    Takes FETCH_SECONDS at most. Every failure is an OSError that names the remedy and leaves nothing behind;
    a data/names.txt of your own is refused, never overwritten.
    """
    if NAMES_FILE.exists():
        if _is_lecture(NAMES_FILE.read_bytes()):
            return NAMES_FILE
        raise FileExistsError(
            f"{NAMES_FILE} is not the lecture's file, and was left alone. Move it away first."
        )
    by_hand = f"Download {LECTURE_URL} by hand and let MAKEMORE_NAMES point at the file."
    answer = queue.SimpleQueue()
    # In a thread, because a socket's timeout starts afresh with each byte and does not cover the name look-up.
    threading.Thread(target=_download, args=(answer,), daemon=True).start()
    try:
        content = answer.get(timeout=FETCH_SECONDS)
    except queue.Empty:
        raise TimeoutError(f"No complete answer within {FETCH_SECONDS:g} seconds. {by_hand}") from None
    if isinstance(content, Exception):
        raise ConnectionError(f"The download failed ({content}). {by_hand}") from content
    if not _is_lecture(content):
        raise ConnectionError(f"The download was not the lecture's file (wrong SHA-256). {by_hand}")
    part = NAMES_FILE.with_name(f"{NAMES_FILE.name}.{secrets.token_hex(4)}.part")
    try:
        part.write_bytes(content)
        os.replace(part, NAMES_FILE)  # so that nobody ever reads half a file
    finally:
        part.unlink(missing_ok=True)
    return NAMES_FILE


def _download(answer):
    """Put the bytes at LECTURE_URL, or the exception that stood in the way, into the queue."""
    try:
        with urllib.request.urlopen(LECTURE_URL, timeout=FETCH_SECONDS) as response:
            answer.put(response.read(LECTURE_BYTES + 1))  # one more, so that a longer file is not cut to fit
    except (OSError, ValueError, http.client.HTTPException) as error:
        answer.put(error)


def main(arguments=None):
    """`python -m helpers.data`: fetch the lecture's names and say in one line which names are in use."""
    parser = argparse.ArgumentParser(prog="python -m helpers.data", description="Fetch the lecture's names.")
    parser.add_argument("--or-bundled", action="store_true", help="go on without them when that fails")
    or_bundled = parser.parse_args(arguments).or_bundled
    try:
        if own := os.environ.get("MAKEMORE_NAMES", "").strip():
            print(f"MAKEMORE_NAMES is set: using the {len(load_names().words):,} names in {own}.")
            return
        there = NAMES_FILE.exists()
        path = fetch_names()
        print(f"The lecture's names are {'already there' if there else 'fetched'}: {path}")
    except (OSError, ValueError) as error:
        if own or not or_bundled:
            sys.exit(str(error))
        names = load_names()
        print(f"{error} Going on with the {len(names.words):,} names of {names.source}.")


if __name__ == "__main__":
    main()
