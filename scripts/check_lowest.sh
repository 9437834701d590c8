#!/usr/bin/env bash
# Run the tests with the lowest versions that pyproject.toml allows, in a new environment that is deleted at the end.
#
#   scripts/check_lowest.sh [PYTEST OPTION …]       e.g. tests/heads
#
# Needs a network, about 6 GB of disk and, for all tests, some twenty minutes. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

"${PYTHON:-python3}" -m venv "$folder/environment"
bin="$folder/environment/bin"
"$bin/python" scripts/try_release.py --lowest >"$folder/lowest.txt"
cat "$folder/lowest.txt"
"$bin/pip" install --quiet --constraint "$folder/lowest.txt" --editable '.[dev]'
PYTHONPATH="$PWD" OMP_NUM_THREADS=1 "$bin/python" -m pytest "$@"
