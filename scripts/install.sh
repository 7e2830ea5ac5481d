#!/bin/sh
# Makes .venv, if there is none that fits, and installs the pinned packages: sh scripts/install.sh PYTHON ORIGIN
# ORIGIN is "file" when nobody asked for a particular Python: any .venv of a supported one is then kept.
# With a third word it does nothing, but says by its exit status whether the .venv that is there fits.
set -eu
python=$1
origin=${2:-file}
supported="3.11 3.12 3.13"
remedy="The course needs 3.11, 3.12 or 3.13; name one, for example: make lab PYTHON=python3.12"

refuse() { echo "$1" >&2; exit 1; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
is_supported() { case " $supported " in *" $1 "*) test -n "$1" ;; *) false ;; esac; }

# A virtual environment holds absolute paths, so it breaks when its folder is moved; pip's first line has the path.
found=
if grep -qsF "$(pwd -P)/.venv/bin/python" .venv/bin/pip; then found=$(version_of .venv/bin/python); fi

# Packages of which nothing is left but pip's note that they are installed: a deleted folder, a disk that was repaired.
gone() {
    .venv/bin/python -c 'import sys; from importlib.util import find_spec as find
gone = [m for m in sys.argv[1:] if not (find(m) and find(m).origin)]; print(*gone); sys.exit(bool(gone))' \
        torch numpy scipy matplotlib jupyterlab ipykernel ipywidgets pooch requests tqdm pytest nbval ruff
}

wanted=$found
if [ "$origin" != file ] || ! is_supported "$found"; then wanted=$(version_of "$python"); fi
fits() { is_supported "$found" && [ "$found" = "$wanted" ]; }

if [ $# -gt 2 ]; then fits && { [ ! -e .venv/.installed ] || gone >/dev/null; }; exit; fi
[ -w . ] && { [ ! -e .venv ] || [ -w .venv ]; } ||
    refuse "$(pwd -P) is not yours to install into, and its .venv does not run for you as it is. Ask its owner to run \`make lab\` once with a Python that everybody may run, or clone the course for yourself."
if fits && ! .venv/bin/python -m pip --version >/dev/null; then found=; fi # nothing can be installed with it
if ! fits; then
    [ -n "$wanted" ] || refuse "Python not found: '$python' does not run. $remedy"
    is_supported "$wanted" || refuse "Python $wanted ('$python') does not fit. $remedy"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        refuse "'$python' cannot make virtual environments; on Debian and Ubuntu: sudo apt install python$wanted-venv"
    rm -rf .venv
    echo "Making .venv with Python $wanted …"
    "$python" -m venv .venv
fi

if ! missing=$(gone) && [ -n "$missing" ] && [ -e .venv/.installed ]; then
    echo "Gone from .venv: $missing"
    # shellcheck disable=SC2086  # they are words
    .venv/bin/python -m pip uninstall --quiet --yes $missing
fi
echo "Installing the pinned packages (some minutes the first time) …"
# On Linux the ordinary torch brings several GB of CUDA, which these small networks have no use for. Where the
# index of CPU builds is not reached, or has no such build, the ordinary install below settles it.
if [ "$(uname -s)" = Linux ]; then
    .venv/bin/python -m pip install --disable-pip-version-check --no-deps --retries 0 --timeout 15 \
        --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)" 2>/dev/null || true
fi
.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
