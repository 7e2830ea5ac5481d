#!/bin/sh
# Makes .venv, if there is none that fits, and installs the pinned packages: sh scripts/install.sh PYTHON ORIGIN
# ORIGIN is "file" when nobody asked for a particular Python: any .venv of a supported one is then kept, and where
# PYTHON is another version, one that fits is looked for beside it.
# With a third word it does nothing, but says by its exit status whether the .venv that is there fits.
set -eu
python=$1
origin=${2:-file}
supported="3.13 3.12 3.11"
remedy="The course needs 3.11, 3.12 or 3.13. Install one (python.org has them), or name yours: make lab PYTHON=python3.12"
unfinished="The packages are not all installed; what stands above says why. Mostly the network, a proxy or an index in pip's own \
settings is not reached, or the disk is full (1.6 GB are needed). Put that right, then run the same command again."

refuse() { echo "$1" >&2; exit 1; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
is_supported() { case " $supported " in *" $1 "*) test -n "$1" ;; *) false ;; esac; }

# Packages of which nothing is left but pip's note that they are installed: a deleted folder, a disk that was repaired.
gone() {
    .venv/bin/python -c 'import sys; from importlib.util import find_spec as find
gone = [m for m in sys.argv[1:] if not (find(m) and find(m).origin)]; print(*gone); sys.exit(bool(gone))' \
        torch numpy scipy matplotlib jupyterlab ipykernel ipywidgets pooch requests tqdm pytest nbval ruff
}

# What there is, and what is wanted. A virtual environment holds absolute paths, so it breaks when its folder is moved;
# pip's first line has the path.
look() {
    found=
    if grep -qsF "$(pwd -P)/.venv/bin/python" .venv/bin/pip; then found=$(version_of .venv/bin/python); fi
    wanted=$found
    if [ "$origin" != file ] || ! is_supported "$found"; then wanted=$(version_of "$python"); fi
}
fits() { is_supported "$found" && [ "$found" = "$wanted" ]; }
is_whole() { fits && { [ ! -e .venv/.installed ] || gone >/dev/null; }; }

look
if [ $# -gt 2 ]; then is_whole; exit; fi
[ -w . ] && { [ ! -e .venv ] || [ -w .venv ]; } ||
    refuse "$(pwd -P) is not yours to install into, and its .venv does not run for you as it is. Ask its owner to run \`make lab\` once with a Python that everybody may run, or clone the course for yourself."

# Two at once would delete each other's .venv. The lock is a link, which is made at once with its content: who holds it.
installs() { # whether this process lives and is such a one: after a restart its number may be another's
    [ "$1" != $$ ] && kill -0 "$1" 2>/dev/null &&
        { ! command -v ps >/dev/null || ps -p "$1" -o args= | grep -q 'install\.sh'; }
}
waited=
unread=
while ! ln -s $$ .installing 2>/dev/null; do
    if ! holder=$(readlink .installing); then # it has just ended; the second time, this disk has no links
        [ -z "$unread" ] || break
        unread=yes
        continue
    fi
    if ! installs "$holder"; then rm -f .installing; continue; fi # it was killed
    [ -n "$waited" ] || echo "Another command installs here (process $holder): waiting for it …"
    waited=yes
    sleep 1
done
trap 'rm -f .installing' EXIT
trap 'exit 130' INT # bash would go on with the next command after a pip that was interrupted
trap 'exit 143' TERM HUP
look
if [ -n "$waited" ] && [ -e .venv/.installed ] && is_whole; then exit; fi

if fits && ! .venv/bin/python -m pip --version >/dev/null; then # nothing can be installed with it
    found=
    wanted=$(version_of "$python")
fi
if ! fits; then
    for other in $supported; do
        if [ "$origin" = file ] && ! is_supported "$wanted" && [ -n "$(version_of "python$other")" ]; then
            python=python$other
            wanted=$other
        fi
    done
    [ -n "$wanted" ] || refuse "Python not found: '$python' does not run. $remedy"
    is_supported "$wanted" || refuse "Python $wanted ('$python') does not fit. $remedy"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        refuse "'$python' cannot make virtual environments; on Debian and Ubuntu: sudo apt install python$wanted-venv"
    rm -rf .venv
    echo "Making .venv with Python $wanted …"
    errors=$("$python" -m venv .venv 2>&1) || refuse "$(echo "$errors" | tail -n 1)
$unfinished"
fi

if ! missing=$(gone) && [ -n "$missing" ] && [ -e .venv/.installed ]; then
    echo "Gone from .venv: $missing"
    # shellcheck disable=SC2086  # they are words
    .venv/bin/python -m pip uninstall --quiet --yes $missing
fi
if [ -e .venv/.installed ]; then
    unfinished="$unfinished Or go on with the packages as they were: .venv/bin/python scripts/lab.py"
    rm .venv/.installed
fi
export PIP_USER=0 # as a setting of pip's may be for the packages outside of virtual environments
echo "Installing the pinned packages (some minutes the first time) …"
# On Linux the ordinary torch brings several GB of CUDA, which these small networks have no use for. Where the
# index of CPU builds is not reached, or has no such build, the ordinary install below settles it.
if [ "$(uname -s)" = Linux ]; then
    .venv/bin/python -m pip install --disable-pip-version-check --no-deps --retries 0 --timeout 15 \
        --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)" 2>/dev/null || true
fi
.venv/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]' ||
    refuse "$unfinished"
touch .venv/.installed
