#!/usr/bin/env bash
# Makes an empty Python environment with pip in a folder, anew if there is one. Debian's Python keeps
# what that takes in a package of its own.
#
#   new-venv.sh DIR
set -euo pipefail
if ! python3 -c 'import ensurepip' 2>/dev/null; then
    sudo=; [ "$(id -u)" -eq 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
fi
rm -rf "$1"
mkdir -p "$(dirname "$1")"
python3 -m venv "$1"
