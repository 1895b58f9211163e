#!/usr/bin/env bash
# Tests the Python package as it is installed: checks its style and types, packs a wheel, installs it
# into a fresh environment, starts the program from there alone and on two ranks, and runs the tests
# of the package.
#
#   test-wheel.sh [BINARY]  pack this program; without it, build and pack that of the wheel
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(cluster/python-env.sh)
"$python" -m ruff check python
"$python" -m ruff format --check python
"$python" -m mypy
wheel=$(cluster/wheel.sh "$@")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }; }
case $wheel in *-py3-none-manylinux_2_*_x86_64.whl) ;; *) echo "$wheel: an unexpected tag" && exit 1 ;; esac

# A fresh environment that sees torch, pandas and the test tools, but nothing of this package. pip
# checks that the torch there is the one that the wheel asks for.
"$python" -m venv "$work/venv"
site=$("$work/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
{ "$python" -c 'import site; print(*site.getsitepackages())' && cat "$(dirname "$python")"/../lib/python3*/site-packages/interop.pth; } >"$site/tests.pth"
quietly "$work/venv/bin/pip" install --no-index --disable-pip-version-check "$wheel"
test -s "$site"/docre_pretrain-*.dist-info/licenses/LICENSE
test -e "$site/docre_pretrain/py.typed"

# The command of the environment, by itself and as ranks of `launch` and torchrun.
command=$work/venv/bin/docre-pretrain
settings=(--set threads=1 --set 'variants=["baseline"]')
"$command" --version
quietly "$command" launch -n 2 run jobs/smoke.toml --run-dir "$work/run" "${settings[@]}"
quietly "$work/venv/bin/python" -m torch.distributed.run --no-python --nproc-per-node 2 --rdzv-backend c10d \
    --rdzv-endpoint localhost:0 "$command" run jobs/smoke.toml --run-dir "$work/torchrun" "${settings[@]}"
quietly "$command" inspect "$work/run" "$work/torchrun"
echo "two ranks of launch, two ranks of torchrun"

# `pip install --target` and `--user`: torch in one place, the package in another.
torch=$(sed -n 2p "$site/tests.pth")
quietly "$python" -m pip install --no-index --no-deps --disable-pip-version-check --target "$work/target" "$wheel"
PYTHONPATH=$work/target:$torch "$work/target/bin/docre-pretrain" --version >/dev/null
system=$("$python" -c 'import sys; print(sys._base_executable)')
PYTHONUSERBASE=$work/user quietly "$system" -m pip install --user --no-index --no-deps --no-warn-script-location \
    --break-system-packages --disable-pip-version-check "$wheel"
PYTHONUSERBASE=$work/user PYTHONPATH=$torch "$work/user/bin/docre-pretrain" --version >/dev/null
echo "--target and --user"

mkdir "$work/example"
ln -s "$(echo "$work"/run/checkpoints/finetune-baseline/step-*)" "$work/example/model"
cp "$work/run/data/world/dev.json" "$work/example/documents.json"
# Nothing is left out: where everything is at hand, no test may be skipped.
DOCRE_TEST_FOLDER=$work/example "$work/venv/bin/python" -m pytest -q | tee "$work/log"
if grep -q '[0-9] skipped' "$work/log"; then exit 1; fi
