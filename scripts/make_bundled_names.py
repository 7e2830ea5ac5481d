"""Makes data/bundled_names.txt: the English given names of the Faker package, plain letters only.

pip install faker==40.54.0              # needed for this alone, so it is no dependency of the course
python scripts/make_bundled_names.py    # writes the file anew: git status then shows no change
"""

import hashlib
import importlib
import pkgutil

from common import ROOT, write_atomically


def bundled_names():
    """The file's bytes: lower-cased, sorted, unique, one on each line."""
    from faker.providers import person

    names = set()
    for locale in (module.name for module in pkgutil.iter_modules(person.__path__) if module.name.startswith("en")):
        provider = importlib.import_module(f"{person.__name__}.{locale}").Provider
        for attribute in (name for name in dir(provider) if name.startswith("first_names")):
            values = getattr(provider, attribute)
            if isinstance(values, (tuple, list, dict)):  # some are properties, with no names but an instance's
                names.update(values)  # of a dict, the keys: its values are frequencies
    words = sorted({name.lower() for name in names if name.isascii() and name.isalpha()})
    return "".join(f"{word}\n" for word in words).encode()


if __name__ == "__main__":
    content = bundled_names()
    write_atomically(ROOT / "data" / "bundled_names.txt", content)
    print(f"{len(content.splitlines()):,} names; BUNDLED_SHA256 in helpers/data.py is to be")
    print(hashlib.sha256(content).hexdigest())
