#!/usr/bin/env bash
# Run a command with the Slurm of another Debian: `debian.sh SUITE FOLDER PYTHON COMMAND...`, as root.
#
# The first call makes a tree of that Debian in FOLDER, of this machine's own packages' source: 100 MB to load, 0.8 GB,
# 3 minutes. The command sees the tree as /, with this repository and PYTHON, an interpreter of this machine, where they
# are here; /tmp is its own. Its processes end with it. To make a tree anew, delete FOLDER.
# `debian.sh --permitted` says why this machine lets nobody enter such a tree, as some containers do, and fails then.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

PACKAGES=slurm-wlm,slurmdbd,munge,mariadb-server,python3,git,procps  # python3 for the libraries of this machine's own

refuse() {
    echo "tests/versions/debian.sh: $*" >&2
    exit 1
}

# Where this machine loads its own Debian from.
mirror() {
    local suite
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016  # apt's own variables
    apt-get indextargets --format '$(REPO_URI)' "Release: $suite" 'Component: main' 'Created-By: Packages' | head -n 1
}

make_tree() {
    command -v debootstrap >/dev/null || refuse "debootstrap is missing; as root: apt-get install debootstrap"
    local from=${MIRROR:-$(mirror)} started=$SECONDS
    [ -n "$from" ] || refuse "no Debian in /etc/apt to load from; name one with MIRROR=..."
    echo "making Debian $suite in $tree: about three minutes" >&2
    rm -rf "$tree" "$tree.new"
    mkdir -p "$tree.new"
    # In namespaces of its own, so that nothing a package starts or mounts outlives it.
    unshare --mount --pid --fork --kill-child debootstrap --variant=minbase --include="$PACKAGES" \
        "$suite" "$tree.new" "$from" >"$tree.log" 2>&1 ||
        refuse "debootstrap could not make Debian $suite: $(tail -n 1 "$tree.log"); all it said is in $tree.log"
    rm -f "$tree.new"/var/cache/apt/archives/*.deb
    mv "$tree.new" "$tree"
    echo "made Debian $suite in $((SECONDS - started)) s" >&2
}

# Show a folder or file of this machine in the tree, at the same path.
show() {
    if [ -d "$1" ]; then mkdir -p "$tree$1"; else mkdir -p "$tree${1%/*}" && touch "$tree$1"; fi
    mount --rbind "$1" "$tree$1"
}

# What a command on this machine's interpreter needs to see, one path a line.
places() {
    "$1" - <<'PYTHON'
import os, sys, sysconfig

interpreter = [sys.base_prefix]
if sys.base_prefix == "/usr":  # whose other files are the tree's own
    # By both its names: an environment leads to /usr/bin/python3, which in the tree is another version.
    program, usual = os.path.realpath(sys.executable), "/usr/bin/python3"
    interpreter = [program, *[usual] * (os.path.realpath(usual) == program), sysconfig.get_path("stdlib")]
print(*dict.fromkeys([*map(os.path.realpath, (os.getcwd(), sys.prefix)), *interpreter]), sep="\n")
PYTHON
}

enter() {
    local python=$1 place
    shift
    mount --bind "$tree" "$tree"  # so that / is a mount there, without which no command can have mounts of its own
    mount -t proc proc "$tree/proc"
    mount -t tmpfs tmpfs "$tree/tmp"
    places "$python" | while read -r place; do [ "$place" = /usr ] || show "$place"; done
    show /dev
    show /sys
    show /etc/hosts  # this machine's name: without it Slurm's commands wait for the network's
    # This shell stays, as the namespace's process 1, and waits for what loses its parent.
    chroot "$tree" /usr/bin/env --chdir="$PWD" CI=1 "$@" && exit
    exit $?
}

if [ "${1:-}" = --permitted ]; then
    exec unshare --mount --pid --fork --kill-child sh -c 'mount -t tmpfs tmpfs /tmp && exec chroot / true'
fi

if [ "${1:-}" = --inside ]; then
    tree=$2
    shift 2
    enter "$@"
fi

[ $# -ge 4 ] || refuse "call it with SUITE FOLDER PYTHON COMMAND..."
case $1 in *[!a-z]*|"") refuse "'$1' is no name of a Debian, as bookworm, trixie or sid are" ;; esac
[ "$(id -u)" -eq 0 ] || refuse "a tree of another Debian needs root: mount, chroot"
suite=$1 python=$3
mkdir -p "$2"
tree=$(realpath "$2")/$suite
shift 3
exec 9>"$tree.lock"
flock 9
[ -d "$tree" ] || make_tree
exec 9>&-
echo "$(chroot "$tree" slurmctld -V) of Debian $suite" >&2
exec unshare --mount --pid --fork --kill-child "$0" --inside "$tree" "$python" "$@"
