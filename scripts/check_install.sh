#!/usr/bin/env bash
# Check that the wheel works by itself: build it, install it into a new environment, and use it outside the checkout.
#
#   scripts/check_install.sh [PIP OPTION …]       e.g. --constraint constraints.txt, or gdown>=6.3 for an extra
#
# Needs a network, about 6 GB of disk and a few minutes; everything is deleted at the end. PYTHON chooses the interpreter.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
[[ "$*" == *constraints.txt* ]] && cp "$repository/constraints.txt" "$folder"
cd "$folder"

"${PYTHON:-python3}" -m venv environment
bin="$folder/environment/bin"
"$bin/pip" wheel --quiet --no-deps --wheel-dir wheel "$repository"
"$bin/python" -m zipfile --list wheel/*.whl >files.txt
for file in py.typed __init__.pyi configs/finetune/images.yaml checkpoints/records checkpoints/resnet18_isqrt.digits.safetensors; do
  grep -q "^gcpzoo/$file" files.txt || { echo "the wheel lacks gcpzoo/$file" >&2; exit 1; }
done
"$bin/pip" install --quiet "$@" wheel/*.whl

mkdir elsewhere && cd elsewhere
unset PYTHONPATH
"$bin/python" - <<'PYTHON'
from pathlib import Path

import gcpzoo
from PIL import Image

assert "site-packages" in gcpzoo.__file__, gcpzoo.__file__
model = gcpzoo.load("resnet18_isqrt.digits")
image = Image.new("RGB", (32, 32), "gray")
image.save("image.png")
print(gcpzoo.__version__, model(model.transform(image)[None]).argmax().item(), Path(gcpzoo.__file__).parent)
PYTHON
"$bin/gcpzoo" list '*.digits'
"$bin/gcpzoo" list --heads >/dev/null
"$bin/gcpzoo" predict --model resnet18_isqrt.digits image.png
"$bin/gcpzoo" fit --config pretrain/digits.yaml --trainer.fast_dev_run true --trainer.accelerator cpu
"$bin/gcpzoo" info resnet18_isqrt.digits >/dev/null
echo "the installed package works"
