#!/usr/bin/env bash
# The tutorial from nothing: makes .venv, installs perfnb and JupyterLab into it, opens the tutorial on a copy to work on.
# bash scripts/tutorial.sh --execute [-o FILE]   runs it without a browser and writes an HTML page (tutorial.html)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/venv.sh
.venv/bin/python -m pip install --quiet --editable '.[lab]'
exec .venv/bin/python -m perfnb tutorial "$@"
