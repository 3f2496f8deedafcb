#!/bin/sh
# Makes the virtual environment $1 from the lock $2. PYTHONS: commands to try, in order.
set -eu
venv=$1 lock=$2

runs() {
    "$1" -c 'import ensurepip, ssl, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}

if [ ! -x "$venv/bin/python" ] || ! runs "$venv/bin/python"; then
    python=""
    for candidate in $PYTHONS; do
        if runs "$candidate"; then python=$candidate && break; fi
    done
    if [ -z "$python" ]; then
        echo "no usable Python 3.11 to 3.13 among: $PYTHONS; name one with make PYTHON=/path/to/python" >&2
        exit 1
    fi
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

echo "installing into $venv with $("$venv/bin/python" -V)"
sed -n '/^uv==/,/[^\\]$/p' "$lock" >"$venv/uv.txt"
"$venv/bin/python" -m pip install --quiet --require-hashes -r "$venv/uv.txt"

# uv takes seconds where pip takes minutes, but does not read pip's configuration: tell it of a mirror.
export VIRTUAL_ENV="$PWD/$venv"
index=${PIP_INDEX_URL:-$("$venv/bin/python" -m pip config get global.index-url 2>/dev/null || true)}
if [ -n "$index" ] && [ -z "${UV_DEFAULT_INDEX:-}" ]; then export UV_DEFAULT_INDEX="$index"; fi
if ! "$venv/bin/uv" pip sync --quiet --require-hashes "$lock"; then
    echo "uv found no way to the package index; pip, which may, takes longer"
    # The lock is complete; without --no-deps pip stumbles over extras that it names only as packages.
    "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes -r "$lock"
fi
"$venv/bin/uv" pip install --quiet --offline --no-deps --no-build-isolation -e .
