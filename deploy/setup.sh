#!/bin/bash
# Makes a Debian machine ready for Orch: its Debian packages, and a virtual environment with pinned dependencies.
#
#   deploy/setup.sh          what the product, the demo and `make check` need
#   deploy/setup.sh test     also the peers that the tests and benchmarks compare with
#
# It may be run again at any time: what is there already is left alone, and a run that finds everything in place takes
# no time, no network and no rights. apt and pip follow this machine's own configuration.
set -euo pipefail
cd "$(dirname "$0")/.."

RUN_PACKAGES=(
  busybox-static  # the demo's image
  ca-certificates # pip
  curl            # the demo's questions
  etcd-server     # the store
  iproute2        # the local cluster's network
  libseccomp2     # the containers' system call filters
  nftables        # published ports
  procps          # ps, for people
  python3         # everything
  python3-venv
)
TEST_PACKAGES=(
  buildah   # a peer of the builder of images
  crun      # a peer of the runtime
  debootstrap # machines with systemd, in the laboratory and in namespaces
  dnsmasq-base # a peer of the name server
  docker.io # a peer in the benchmarks; its client writes image archives
  docker-registry # a registry to pull from and push to
  iptables  # docker's daemon will not start without it
  lighttpd  # the server that the network's benchmark asks
  openssh-client # a way into the laboratory's machines
  openssl   # certificates and signed tokens for the registries of tests
  prometheus # promtool, the judge of our metrics
  podman    # a peer of the image store
  qemu-system-x86 # machines with control groups of version 2 alone, and with systemd
  qemu-user-static # executes what is made for other processors
  skopeo    # writes and reads image archives
  umoci     # writes and reads OCI layouts
  wrk       # asks it
  zstd      # a peer of the image store
)
# From Debian 13 on, Docker's client is a package of its own.
[ "$(. /etc/os-release 2>/dev/null && printf '%s' "${ID-}${VERSION_ID-}")" != debian13 ] || TEST_PACKAGES+=(docker-cli)
VENV=.venv
STAMP=$VENV/.made-from
KERNEL=.cache/vm-kernel
SYSTEMD=.cache/vm-systemd
INPUTS=(pyproject.toml constraints.txt deploy/setup.sh)

fail() {
  printf 'setup: %s\n' "$1" >&2
  shift
  printf '       %s\n' "$@" >&2
  exit 1
}

say() { printf 'setup: %s\n' "$*"; }

# Prints those of its arguments that dpkg does not call installed.
missing_packages() {
  local installed
  # dpkg-query fails when it has never heard of one of them, and prints the others all the same
  installed=$({ dpkg-query --show --showformat='${db:Status-Abbrev} ${Package}\n' "$@" 2>/dev/null || true; } | sed -n 's/^ii  *//p')
  printf '%s\n' "$@" | grep -vxF -f <(printf '%s\n' "$installed") || true
}

install_packages() {
  command -v dpkg-query >/dev/null || fail "this machine is not a Debian: dpkg is missing" \
    "install by hand what deploy/setup.sh lists at its head, and make $VENV with Python 3.11 or later"
  local missing
  mapfile -t missing < <(missing_packages "$@")
  [ ${#missing[@]} -gt 0 ] || return 0
  [ "$(id -u)" = 0 ] || fail "Debian packages are missing: ${missing[*]}" "run it as root once: sudo make setup"
  say "installing Debian packages: ${missing[*]}"
  forbid_services
  apt_get update || fail "apt-get update failed" "is there a network, and are the sources in /etc/apt right?"
  apt_get install --no-install-recommends "${missing[@]}" ||
    fail "apt-get could not install: ${missing[*]}" "the lines above say why"
  allow_services
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --assume-yes --option=Dpkg::Use-Pty=0 \
    --option=Acquire::Retries=3 --option=DPkg::Lock::Timeout=300 "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; return 1; }
}

# A package must not start its daemon: the local cluster has an etcd of its own, in a network of its own.
forbid_services() {
  policy=/usr/sbin/policy-rc.d
  had_policy=$work/policy-rc.d
  [ ! -e $policy ] || mv $policy "$had_policy"
  trap 'allow_services; rm -rf "$work"' EXIT
  printf '#!/bin/sh\nexit 101\n' >$policy
  chmod 755 $policy
}

allow_services() {
  rm -f $policy
  [ ! -e "$had_policy" ] || mv "$had_policy" $policy
  trap 'rm -rf "$work"' EXIT
}

wanted_stamp() { sha256sum "${INPUTS[@]}" | sha256sum; }

make_venv() {
  [ -x $VENV/bin/python ] && [ "$(cat $STAMP 2>/dev/null)" = "$(wanted_stamp)" ] && return 0
  /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python 3.11 or later is needed; /usr/bin/python3 is $(/usr/bin/python3 --version 2>&1)" "Debian 12 has it"
  $VENV/bin/python -c '' 2>/dev/null || { say "making $VENV"; /usr/bin/python3 -m venv --clear $VENV; }
  say "installing Python packages, as constraints.txt pins them"
  # setuptools first: Debian's is too old to build, and a build without isolation uses the one that is there.
  pip_install setuptools
  # The compat mode is a plain .pth file; the newer one adds 10 ms to every start of Python.
  pip_install --no-build-isolation --config-settings editable_mode=compat --editable '.[dev]'
  wanted_stamp >$STAMP
}

pip_install() {
  $VENV/bin/python -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --constraint constraints.txt "$@" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "pip could not install $*" "is there a network, and is pip's configuration right?"
  }
}

# The kernel of the virtual machine.
fetch_kernel() {
  [ "$(uname -m)" = x86_64 ] && [ ! -e $KERNEL ] || return 0
  say "fetching a kernel for the virtual machine"
  know_packages linux-image-cloud-amd64
  unpack $KERNEL "$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')"
}

# systemd for the virtual machine, with those of its libraries that this machine does not have.
fetch_systemd() {
  [ "$(uname -m)" = x86_64 ] && [ ! -e $SYSTEMD ] || return 0
  say "fetching systemd for the virtual machine"
  know_packages systemd
  local libraries
  # What is of another architecture has a colon in its name.
  mapfile -t libraries < <(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
    --no-replaces --no-enhances systemd | grep -x 'lib[^:]*' | grep -vxF libsystemd-shared)
  mapfile -t libraries < <(missing_packages "${libraries[@]}")
  # This one goes with its systemd to the letter, which may be newer than the one that is installed.
  unpack $SYSTEMD systemd libsystemd-shared "${libraries[@]}"
}

know_packages() {
  apt-cache show "$@" >/dev/null 2>&1 || apt_get update ||
    fail "apt-get update failed" "is there a network, and are the sources in /etc/apt right?"
}

# Unpacks packages below a folder: they are not installed, so that this machine's boot loader and its own systemd hear
# nothing of them.
unpack() {
  local target=$1 packages=$work/packages package
  shift
  rm -rf "$packages"
  mkdir -p "$packages" "$(dirname "$target")"
  (cd "$packages" && apt-get --quiet=2 download "$@" >"$log" 2>&1) ||
    fail "apt-get could not download: $*" "$(tail -n 3 "$log")"
  for package in "$packages"/*.deb; do dpkg-deb --extract "$package" "$packages/unpacked"; done
  mv "$packages/unpacked" "$target"
}

case ${1-run} in
run | test) ;;
*) fail "unknown stage: $1" "usage: deploy/setup.sh [run|test]" ;;
esac

work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT
if [ -w . ]; then
  exec 9>.setup.lock # two `make` at once: the second waits and finds everything done
  flock --timeout 900 9 || fail "another setup has been running for 15 minutes" "end it, then try again"
fi
install_packages "${RUN_PACKAGES[@]}"
[ "${1-run}" != test ] || { install_packages "${TEST_PACKAGES[@]}"; fetch_kernel; fetch_systemd; }
make_venv
