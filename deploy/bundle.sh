#!/bin/bash
# Makes a folder from which deploy/install.sh installs without a network, for machines with this one's release of Debian,
# architecture and Python.
#
#   deploy/bundle.sh FOLDER              everything, and FOLDER.tar beside it
#   deploy/bundle.sh --wheels FOLDER     without Debian packages and without the tar file
#
# FOLDER/release     what it is called       FOLDER/wheels      Python packages, as constraints.txt pins them
# FOLDER/python      for which Python        FOLDER/packages    a Debian repository of everything that they need
# FOLDER/system      units and settings      FOLDER/compiled.tar  the Python packages, as Python compiles them
# FOLDER/architecture, FOLDER/distribution   for which machines, such as amd64 and "debian 12"
# FOLDER/SHA256SUMS  of all of it; install.sh compares
#
# PYTHON is the interpreter with pip and setuptools that builds; .venv/bin/python unless said otherwise.
set -euo pipefail
called_from=$PWD
cd "$(dirname "$0")/.."

SOURCES=(pyproject.toml constraints.txt README.md LICENSE)
# What a machine has to have. Nobody else's version of etcd will do: 3.5.0 to 3.5.2 lose data.
DEPENDS="python3 (>= 3.11), etcd-server (>= 3.4.20), nftables, libseccomp2, kmod, procps, ca-certificates"

fail() {
  printf 'bundle: %s\n' "$1" >&2
  shift
  [ $# = 0 ] || printf '        %s\n' "$@" >&2
  exit 1
}

say() { printf 'bundle: %s\n' "$*"; }

# A copy of what is built, with the packages that pyproject.toml names: a build in the checkout would leave its products
# there, and take along those of the last one.
copy_sources() {
  local packages
  mapfile -t packages < <("$PYTHON" -c '
import tomllib
found = tomllib.load(open("pyproject.toml", "rb"))["tool"]["setuptools"]["packages"]["find"]["include"]
print(*(name.removesuffix("*") for name in found), sep="\n")')
  mkdir -p "$work/source"
  tar --create --exclude=__pycache__ --exclude='*.pyc' "${packages[@]}" "${SOURCES[@]}" | tar --extract --directory="$work/source"
}

# 0.2.0-3f9a1c22b0: the version, and a digest of what is built. The same sources are the same release.
name_release() {
  local version digest
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
  digest=$(cd "$work/source" && find . -type f -print0 | LC_ALL=C sort --zero-terminated | xargs --null sha256sum | sha256sum)
  printf '%s-%s\n' "$version" "${digest:0:10}" >"$target/release"
}

pip() { PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$PYTHON" -m pip --quiet "$@" >"$work/log" 2>&1 || {
  tail -n 20 "$work/log" >&2
  fail "pip could not make the wheels" "is there a network, and is pip's configuration right?"
}; }

make_wheels() {
  say "making wheels for Python $(cat "$target/python")"
  "$PYTHON" -c 'import setuptools, sys; sys.exit(int(setuptools.__version__.split(".")[0]) < 77)' 2>/dev/null ||
    pip install --constraint constraints.txt setuptools
  SOURCE_DATE_EPOCH=315532800 pip wheel --no-deps --no-build-isolation --wheel-dir "$target/wheels" "$work/source"
  local dependencies
  mapfile -t dependencies < <("$PYTHON" -c '
import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")')
  # pip itself, which installs the others and does not stay.
  pip wheel --constraint constraints.txt --wheel-dir "$target/wheels" "${dependencies[@]}" pip
}

# What Python would compile on every machine, which takes longer there than all the rest, and is the same everywhere.
# Nobody edits an installed release, so Python need not look whether its files are newer than what was compiled.
compile_wheels() {
  local site python tree=$work/tree
  python=$(cat "$target/python")
  site=/opt/orch/releases/$(cat "$target/release")/lib/python$python/site-packages
  local wheels
  mapfile -t wheels < <(find "$target/wheels" -name '*.whl' -not -name 'pip-*')
  pip install --no-index --no-deps --no-compile --target "$tree" "${wheels[@]}"
  "$PYTHON" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$tree" -p "$site" "$tree" >"$work/log" 2>&1 ||
    fail "Python could not compile: $(head -n 1 "$work/log")"
  (cd "$tree" && find . -name '*.pyc' -print0 | LC_ALL=C sort --zero-terminated) |
    tar --create --file="$target/compiled.tar" --directory="$tree" --owner=0 --group=0 --mtime=@0 --null --files-from=-
}

# A package without files: what it depends on is there for Orch, and goes with it when nothing else wants it.
make_dependencies() {
  local folder=$work/dependencies
  mkdir -p "$folder/DEBIAN" "$target/packages"
  cat >"$folder/DEBIAN/control" <<CONTROL
Package: orch-dependencies
Version: $(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
Architecture: all
Maintainer: Orch
Depends: $DEPENDS
Description: what Orch needs from Debian
 Made by Orch's installation, and removed with it.
CONTROL
  dpkg-deb --root-owner-group --build "$folder" "$target/packages/orch-dependencies.deb" >/dev/null
}

# With an empty list of what is installed, apt fetches the whole closure: the machine may be a bare one.
fetch_packages() {
  say "fetching Debian packages for $(. /etc/os-release && printf '%s' "$PRETTY_NAME"), $(dpkg --print-architecture)"
  local lists=$work/apt
  mkdir -p "$lists/partial" "$target/packages/partial"
  : >"$lists/status"
  apt-get --quiet=2 --assume-yes --download-only --no-install-recommends --option=Dir::State::Status="$lists/status" \
    --option=Dir::Cache::Archives="$target/packages" --option=Debug::NoLocking=1 --option=APT::Sandbox::User=root \
    install $(sed 's/ ([^)]*)//g; s/,//g' <<<"$DEPENDS") >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    fail "apt-get could not fetch the packages" "run apt-get update once; is there a network?"
  }
  rm -rf "$target/packages/partial" "$target/packages/lock"
}

# What apt wants to know of a folder of packages.
index_packages() {
  local package
  (
    cd "$target/packages"
    for package in *.deb; do
      dpkg-deb --field "$package"
      printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$package" "$(stat --format=%s "$package")" \
        "$(sha256sum "$package" | cut -d' ' -f1)"
    done >Packages
  )
}

add_the_rest() {
  cp -r deploy/system deploy/install.sh "$target/"
  mkdir -p "$target/docs"
  cp docs/operations.md docs/trust.md "$target/docs/"
}

wheels_only=
[ "${1-}" != --wheels ] || { wheels_only=yes; shift; }
[ $# = 1 ] || fail "usage: deploy/bundle.sh [--wheels] FOLDER"
target=$(realpath --canonicalize-missing "$called_from/$1")
[[ $1 != /* ]] || target=$(realpath --canonicalize-missing "$1")
PYTHON=${PYTHON:-.venv/bin/python}
[ -x "$PYTHON" ] || fail "there is no $PYTHON to build with" "run make setup, or name another with PYTHON="
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$target.new"
mkdir -p "$target.new"
final=$target target=$target.new
copy_sources
name_release
"$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' >"$target/python"
dpkg --print-architecture >"$target/architecture"
(. /etc/os-release && printf '%s %s\n' "${ID-unknown}" "${VERSION_ID-}") >"$target/distribution"
make_wheels
compile_wheels
make_dependencies
[ -n "$wheels_only" ] || { fetch_packages; index_packages; }
add_the_rest
(cd "$target" && find . -type f -printf '%P\0' | LC_ALL=C sort --zero-terminated | xargs --null sha256sum >"$work/sums")
mv "$work/sums" "$target/SHA256SUMS"
rm -rf "$final"
mv "$target" "$final"
[ -n "$wheels_only" ] || tar --create --file="$final.tar" --directory="$(dirname "$final")" --owner=0 --group=0 "$(basename "$final")"
say "$final holds $(cat "$final/release"), $(du --summarize --human-readable "$final" | cut -f1)"
