#!/usr/bin/env bash
# Every check from nothing: makes .venv, installs torch's CPU build first, then perfnb with its tools, then runs all checks.
# bash scripts/test.sh NAME...   runs only the checks whose name starts so
# PERFNB_WITHOUT_TORCH=1         leaves torch out: tests that need it are skipped and say so
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/venv.sh

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q GPU; }

refuse_cuda() {
    cat >&2 <<'TEXT'
torch would be a CUDA build of several GB, and there is no GPU here. Either
  - point pip at PyTorch's CPU builds: the PyTorch start page names their index under "CPU"; put it into PIP_EXTRA_INDEX_URL; or
  - test without torch: PERFNB_WITHOUT_TORCH=1 bash scripts/test.sh
TEXT
    exit 1
}

# torch goes in before all else and pinned: an open range resolves to the newest CUDA build (environment.md, "The torch trap").
if [ -z "${PERFNB_WITHOUT_TORCH:-}" ]; then
    if ! has_gpu; then
        plan=$(.venv/bin/python -m pip install --quiet --dry-run --report - --requirement constraints-cpu.txt)
        if grep -Eq '"name": "(nvidia|cuda)-' <<<"$plan"; then refuse_cuda; fi
    fi
    .venv/bin/python -m pip install --quiet --requirement constraints-cpu.txt
    if ! has_gpu; then
        .venv/bin/python -W ignore -c 'import sys, torch; sys.exit(torch.version.cuda is not None)' || refuse_cuda
    fi
fi
# the trainers bring torch with them, and so a CUDA build where none is there yet
extras=lab,test,browser
if [ -z "${PERFNB_WITHOUT_TORCH:-}" ]; then extras+=,trainers; fi
.venv/bin/python -m pip install --quiet --editable ".[$extras]" --constraint constraints-cpu.txt
exec .venv/bin/python scripts/check.py "$@"
