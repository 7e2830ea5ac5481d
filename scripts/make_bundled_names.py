"""Make data/bundled_names.txt from the given names in the Faker package.

    pip install faker==40.54.0
    python scripts/make_bundled_names.py            # writes the file
    python scripts/make_bundled_names.py --check    # only compares: exit status 1 if it differs

Faker is needed to make the file, not to use it, so it is no dependency of the project. Another release of
Faker may hold other names; the file belongs to the release above.
"""

import argparse
import hashlib
import importlib
import os
import pkgutil
import sys
from pathlib import Path

FAKER_VERSION = "40.54.0"
TARGET = Path(__file__).resolve().parent.parent / "data" / "bundled_names.txt"


def english_given_names():
    """Every given name of Faker's English-language locales, as Faker spells it."""
    from faker.providers import person

    names = set()
    for module in pkgutil.iter_modules(person.__path__):
        if module.name.split("_")[0] != "en":
            continue
        provider = importlib.import_module(f"{person.__name__}.{module.name}").Provider
        for attribute in dir(provider):
            values = getattr(provider, attribute)
            # In some releases such an attribute is a property, which has no names without an instance.
            if attribute.startswith("first_names") and isinstance(values, (tuple, list, dict)):
                names.update(values)  # of a dict, the keys: its values are frequencies
    return names


def file_content(names):
    """The file's bytes: names of plain ASCII letters only, lower-cased, sorted, unique, one a line."""
    words = sorted({name.lower() for name in names if name.isascii() and name.isalpha()})
    return "".join(f"{word}\n" for word in words).encode("ascii")


def main():
    parser = argparse.ArgumentParser(description="Make data/bundled_names.txt from the Faker package.")
    parser.add_argument("--check", action="store_true", help="compare with the file instead of writing it")
    arguments = parser.parse_args()
    try:
        import faker
    except ImportError:
        sys.exit(f"Faker is not installed. Install it with: pip install faker=={FAKER_VERSION}")
    if faker.VERSION != FAKER_VERSION:
        print(f"note: this is Faker {faker.VERSION}; the file was made from {FAKER_VERSION}", file=sys.stderr)

    content = file_content(english_given_names())
    made = f"{len(content.splitlines()):,} names from Faker {faker.VERSION}"
    if arguments.check:
        if not TARGET.is_file():
            sys.exit(f"{TARGET} is missing. Make it: run this script without --check.")
        committed = TARGET.read_bytes()
        if content != committed:
            differing = set(content.split()) ^ set(committed.split())
            sys.exit(f"{TARGET} differs from the {made}, in {len(differing):,} names. Run without --check.")
        print(f"{TARGET} holds the {made}, byte for byte.")
        return

    part = TARGET.with_name(f"{TARGET.name}.{os.getpid()}.tmp")
    try:
        part.write_bytes(content)
        os.replace(part, TARGET)  # so that nobody ever reads half a file
    finally:
        part.unlink(missing_ok=True)
    print(f"{TARGET}: {made}")
    print(f"BUNDLED_SHA256 in helpers/data.py must be {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
