#!/usr/bin/env bash
# Brings the libtorch of a container image: links it at .libtorch for the build, and leaves what the
# program needs when it runs in /opt/libtorch.
#
#   container-torch.sh cpu|cuda
set -euo pipefail
cd "$(dirname "$0")/.."
case ${1:-} in
    cpu)
        DOCRE_CACHE=/opt/docre-cache cluster/setup.sh
        ;;
    cuda)
        # setup.sh knows the version.
        version=$(sed -n 's/^version=//p' cluster/setup.sh)
        python3 -m pip install --quiet --break-system-packages --no-cache-dir "torch==$version"
        DOCRE_PYTHON=$(command -v python3) cluster/setup.sh
        ;;
    *)
        echo "usage: $0 cpu|cuda" >&2
        exit 2
        ;;
esac
mkdir -p /opt/libtorch/torch
cp -rL .libtorch/torch/lib /opt/libtorch/torch/
cp -rL .libtorch/nvidia /opt/libtorch/
