# Sourced by the other scripts, in the root of the repository: makes .venv with the first Python that is new enough.

needed='import sys; sys.exit(sys.version_info < (3, 11))'

if [ ! -x .venv/bin/python ]; then
    for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
        if command -v "$python" >/dev/null && "$python" -c "$needed"; then
            "$python" -m venv .venv
            break
        fi
    done
fi
if [ ! -x .venv/bin/python ]; then
    echo "perfnb needs Python 3.11 or newer: install it, or name it as in PYTHON=python3.12 bash $0" >&2
    exit 1
fi
