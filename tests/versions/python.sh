#!/usr/bin/env bash
# Print the path of a Python of this machine: `python.sh 3.13`. Looks on PATH, then among those of pyenv and uv.
set -euo pipefail
version=$1

for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version"*/bin/python "$(uv python find "$version" 2>/dev/null || true)"; do
    found=$("$candidate" -c 'import sys; print(sys.executable, "%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    [ "${found#* }" = "$version" ] && echo "${found% *}" && exit
done
echo "no Python $version here: 'uv python install $version' or your system's packages bring one, PATH shall lead to it" >&2
exit 1
