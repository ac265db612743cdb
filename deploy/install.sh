#!/bin/bash
# Installs Orch on Debian 12, Debian 13 or Ubuntu 24.04; as root, and again at any time: what is there already is left.
#
#   install.sh                    installs this release, or upgrades to it
#   install.sh rollback           returns to the release before
#   install.sh status             which releases there are
#   install.sh uninstall          takes everything away again; refuses while the machine belongs to a cluster, unless
#     --with-data                 what the machine has of the cluster is to be deleted, its tasks are to be killed
#
# From a folder that deploy/bundle.sh has made it needs no network; from a checkout it fetches what constraints.txt pins.
#
#   /opt/orch/releases/NAME   a virtual environment, units and settings; `current` and `previous` point at two of them
#   /etc/orch                 the configuration, written by `orchctl cluster init` and `orchctl node join`
#   /var/lib/orch             the state: certificates, the store, images and tasks
#   /usr/local/bin            orchctl, orch-agent, orch-controlplane, orch-etcd
#   /usr/local/lib/systemd/system, /etc/sysctl.d/60-orch.conf, /etc/modules-load.d/orch.conf, and a user called orch
#
# A release is complete or not there: its last file says so, and `current` moves in one step. Nothing is started here but
# what ran before; a machine's role comes with its configuration.
set -euo pipefail

TOP=/opt/orch
CONFIGURATION=/etc/orch
STATE=/var/lib/orch
COMMANDS=/usr/local/bin
UNITS=/usr/local/lib/systemd/system
SYSCTL=/etc/sysctl.d/60-orch.conf
MODULES=/etc/modules-load.d/orch.conf
MASKED=/etc/systemd/system/etcd.service
POLICY=/usr/sbin/policy-rc.d
OWNERS_POLICY=$TOP/policy-rc.d
PACKAGES=$TOP/packages
OWNER=orch
LOCK=/run/orch-install.lock
POLICY_SIGN="Orch's installation: while Debian's packages come, their daemons are not started."
PROGRAMS=(orchctl orch-agent orch-controlplane orch-etcd)
SERVICES=(orch-agent orch-controlplane orch-etcd orch-tasks) # in the order in which they end
SUPPORTED="Debian 12, Debian 13 and Ubuntu 24.04"

fail() {
  printf 'install: %s\n' "$1" >&2
  shift
  [ $# = 0 ] || printf '         %s\n' "$@" >&2
  exit 1
}

say() { printf 'install: %s\n' "$*"; }

is_there() { [ -e "$1" ] || [ -L "$1" ]; }

has_systemd() { [ -d /run/systemd/system ]; }

# Whether this may be done here ------------------------------------------------------------------------------------

check_machine() {
  [ "$(id -u)" = 0 ] || fail "only root can install" "run it with sudo"
  system=$(. /etc/os-release 2>/dev/null && printf '%s %s' "${ID-unknown}" "${VERSION_ID-}") || system=unknown
  case $system in
  "debian 12" | "debian 13" | "ubuntu 24.04") ;;
  *) fail "this system is $system, and Orch installs on $SUPPORTED" \
    "elsewhere docs/operations.md tells what a machine needs; nothing was changed" ;;
  esac
}

check_bundle() {
  (cd "$from" && sha256sum --check --quiet --strict SHA256SUMS) >"$work/log" 2>&1 ||
    fail "$from is damaged: $(head -n 1 "$work/log")" "copy it again; nothing was changed"
  [ "$(cat "$from/architecture")" = "$(dpkg --print-architecture)" ] ||
    fail "this bundle is for $(cat "$from/architecture"), and the machine is $(dpkg --print-architecture)" \
      "make one on a machine like this: make bundle; nothing was changed"
  # Packages of another release may install, and take the place of this one's.
  [ "$(cat "$from/distribution")" = "$system" ] ||
    fail "this bundle is for $(cat "$from/distribution"), and the machine is $system" \
      "make one on a machine like this: make bundle; nothing was changed"
}

# Python is known only when Debian's packages are there.
check_python() {
  local version
  version=$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  [ "$(cat "$from/python")" = "$version" ] ||
    fail "this bundle is for Python $(cat "$from/python"), and the machine has $version" \
      "make one on a machine with the same release of Debian: make bundle"
}

# What a machine needs ---------------------------------------------------------------------------------------------

missing() { [ "$(dpkg-query --show --showformat='${db:Status-Abbrev}' "$1" 2>/dev/null)" != "ii " ]; }

apt() {
  apt-get --quiet=2 --assume-yes --option=Dpkg::Use-Pty=0 --no-install-recommends \
    --option=Acquire::Retries=3 --option=DPkg::Lock::Timeout=300 "$@" >"$work/log" 2>&1
}

install_packages() {
  [ "$(dpkg-query --show --showformat='${db:Status-Abbrev}${Version}' orch-dependencies 2>/dev/null)" != \
    "ii $(dpkg-deb --field "$from/packages/orch-dependencies.deb" Version)" ] || return 0
  say "installing Debian packages"
  if missing etcd-server; then mask_etcd; fi
  local options=()
  if [ -e "$from/packages/Packages" ]; then
    use_repository
  else
    apt update || stop_at_log "apt-get update failed; is there a network?"
  fi
  cp "$from/packages/orch-dependencies.deb" "$work/"
  add_packages "${options[@]}" install "$work/orch-dependencies.deb"
}

add_packages() {
  note_packages "${repair[@]}" "$@"
  forbid_services
  apt "${repair[@]}" "$@" || stop_at_log "apt-get could not install Debian packages"
  allow_services
}

# What will come is written down before it does: it goes in the end, when nothing else needs it by then.
note_packages() {
  mkdir -p $TOP
  apt --simulate "$@" || stop_at_log "apt-get could not install Debian packages"
  { noted_packages; sed -n 's/^Inst \([^ ]*\) (.*/\1/p' "$work/log"; } | sort --unique >$PACKAGES.new
  mv $PACKAGES.new $PACKAGES
}

noted_packages() { { printf 'orch-dependencies\n'; [ ! -e $PACKAGES ] || cat $PACKAGES; } | sort --unique; }

# apt looks into the bundle, and nowhere else.
use_repository() {
  mkdir -p "$work/apt/partial"
  printf 'deb [trusted=yes] file:%s ./\n' "$from/packages" >"$work/bundle.list"
  options=(--option=Dir::Etc::SourceList="$work/bundle.list" --option=Dir::Etc::SourceParts=/dev/null
    --option=Dir::State::Lists="$work/apt" --option=APT::Sandbox::User=root)
  apt "${options[@]}" update || stop_at_log "apt-get cannot read $from/packages"
}

stop_at_log() {
  grep --invert-match '^Ign:\|^Get:' "$work/log" | tail -n 20 >&2
  fail "$1" "the lines above say why; correct it and try again"
}

# Debian's own etcd would take the ports of ours.
mask_etcd() {
  mkdir -p "$(dirname $MASKED)"
  is_there $MASKED || ln -s /dev/null $MASKED
}

# Packages start their daemons while they are installed, unless a file says no. The owner of the machine may have one: it
# waits where every later run finds it, and ours is known by its second line, whatever becomes of this run.
forbid_services() {
  mkdir -p $TOP
  if is_there $POLICY && ! is_policy_ours; then
    cp --archive $POLICY $OWNERS_POLICY.new
    mv --no-target-directory $OWNERS_POLICY.new $OWNERS_POLICY
  fi
  printf '#!/bin/sh\n# %s\nexit 101\n' "$POLICY_SIGN" >$POLICY.orch
  chmod 755 $POLICY.orch
  trap 'allow_services; rm -rf "$work"' EXIT
  # Not even a power cut finds the owner's replaced and nowhere else.
  sync --file-system $TOP "$(dirname $POLICY)"
  mv --no-target-directory $POLICY.orch $POLICY
}

is_policy_ours() { grep --quiet --line-regexp --fixed-strings "# $POLICY_SIGN" $POLICY 2>/dev/null; }

# What the owner has put there meanwhile stays.
allow_services() {
  rm -f $POLICY.orch
  if is_there $OWNERS_POLICY && { is_policy_ours || ! is_there $POLICY; }; then
    cp --archive $OWNERS_POLICY $POLICY.orch
    sync --file-system "$(dirname $POLICY)"
    mv --no-target-directory $POLICY.orch $POLICY
  elif is_policy_ours; then
    rm $POLICY
  fi
  rm -f $OWNERS_POLICY
  trap 'rm -rf "$work"' EXIT
}

# What a run has left that was killed among Debian's packages, or lost its power: our policy, packages that are half there,
# and an apt that does nothing before dpkg has gone on.
mend_broken_off() {
  is_policy_ours || is_there $POLICY.orch || [ -n "$(noted_in '.[^inc]\|..R')" ] || return 0
  say "an installation broke off among Debian's packages; going on from there"
  forbid_services
  local half
  for half in $(noted_in '..R'); do
    unpack_or_remove "$half" >"$work/log" 2>&1 || stop_at_log "dpkg could not go on with $half"
  done
  # Some have to wait for others: apt brings those next, or takes all of them away.
  dpkg --configure -a >"$work/log" 2>&1 || true
  repair=(--fix-broken)
  allow_services
}

# Only its archive tells dpkg which files of a package are there that was unpacked in part; so without one some stay.
unpack_or_remove() {
  local archive
  archive=$(find "$from/packages" /var/cache/apt/archives -name "$1_*.deb" -print -quit 2>/dev/null || true)
  if [ -n "$archive" ]; then
    dpkg --force-depends --unpack "$archive"
  else
    dpkg --force-depends --force-remove-reinstreq --remove "$1"
  fi
}

# Those of the noted packages that are in one of these states, as dpkg abbreviates them.
noted_in() {
  dpkg-query --show --showformat='${db:Status-Abbrev} ${Package}\n' | sed -n "s/^\($1\).* //p" | sort --unique |
    comm -12 - <(noted_packages)
}

make_user() {
  getent passwd $OWNER >/dev/null || useradd --system --user-group --home-dir $STATE --no-create-home \
    --shell /usr/sbin/nologin --comment "Orch's control plane and store" $OWNER
  install --directory --mode=755 $CONFIGURATION $STATE
}

# A release --------------------------------------------------------------------------------------------------------

# Where its scripts will look for their interpreter, so it cannot be made elsewhere and moved. What is not complete is
# made anew.
make_release() {
  [ ! -e "$release/complete" ] || return 0
  say "installing $(cat "$from/release")"
  rm -rf "$release"
  mkdir -p "$release"
  /usr/bin/python3 -m venv --without-pip "$release" >"$work/log" 2>&1 || stop_at_log "no virtual environment could be made"
  # pip runs out of its own wheel, and installs what is there, and nothing else from anywhere.
  local pip=("$from"/wheels/pip-*.whl) wheels
  mapfile -t wheels < <(find "$from/wheels" -name '*.whl' -not -name 'pip-*')
  "$release/bin/python3" "${pip[0]}/pip" --isolated --quiet --disable-pip-version-check --no-cache-dir install --no-index \
    --no-deps --no-compile --root-user-action=ignore "${wheels[@]}" >"$work/log" 2>&1 || stop_at_log "pip could not install"
  # Compiled where the bundle was made: here, the user of the control plane could not write it.
  tar --extract --no-same-owner --file="$from/compiled.tar" --directory="$release/lib/python$(cat "$from/python")/site-packages"
  cp -r "$from/system" "$from/docs" "$release/"
  install --mode=755 "$from/install.sh" "$release/install.sh"
  chmod -R u=rwX,go=rX "$release"
  cp "$from/release" "$release/complete"
}

# `current` is the one that is given, `previous` the one that was.
point_at() {
  local before=
  [ ! -L $TOP/current ] || before=$(readlink $TOP/current)
  [ "$before" != "releases/$1" ] || return 0
  ln --symbolic --force --no-dereference "releases/$1" $TOP/current.new
  mv --no-target-directory $TOP/current.new $TOP/current
  [ -z "$before" ] || ln --symbolic --force --no-dereference "$before" $TOP/previous
}

# What is outside of the release: links, units, settings. The same at every run.
install_around() {
  local name
  for name in "${PROGRAMS[@]}"; do ln --symbolic --force --no-dereference "$TOP/current/bin/$name" "$COMMANDS/$name"; done
  ln --symbolic --force --no-dereference $TOP/current/install.sh $TOP/install.sh
  install --directory $UNITS "$(dirname $SYSCTL)" "$(dirname $MODULES)"
  for name in $TOP/current/system/*.service; do install_changed "$name" "$UNITS/$(basename "$name")"; done
  install_changed $TOP/current/system/orch-modules.conf $MODULES
  remember_parameters
  install_changed $TOP/current/system/60-orch.conf $SYSCTL
}

install_changed() { cmp --silent "$1" "$2" || install --mode=644 "$1" "$2"; }

# What they were before the first installation, for the day of the last.
remember_parameters() {
  [ ! -e $TOP/parameters ] || return 0
  local name
  sed -n 's/^\([a-z].*[^ ]\) *= *[^ ]*$/\1/p' $TOP/current/system/60-orch.conf | while read -r name; do
    [ ! -r "/proc/sys/${name//.//}" ] || printf '%s = %s\n' "$name" "$(tr '\t' ' ' <"/proc/sys/${name//.//}")"
  done >$TOP/parameters.new
  mv $TOP/parameters.new $TOP/parameters
}

# Modules and parameters now; both come again with each boot.
tell_kernel() {
  local module
  sed -n 's/^\([a-z].*\)/\1/p' $MODULES | while read -r module; do
    modprobe --quiet "$module" || grep --quiet "/$module\.ko" "/lib/modules/$(uname -r)/modules.builtin" 2>/dev/null ||
      [ ! -d "/lib/modules/$(uname -r)" ] || say "the kernel has no module $module; orchctl node doctor tells whether it is missed"
  done
  # One that is not there is of no use here: a container's network has fewer.
  sysctl --quiet --ignore --load=$SYSCTL >"$work/log" 2>&1 || say "kernel parameters were not all set: $(head -n 1 "$work/log")"
}

# What ran goes on with the release that is current now. Containers do not notice.
restart() {
  has_systemd || return 0
  systemctl daemon-reload
  local unit
  for unit in orch-controlplane orch-agent; do
    systemctl --quiet is-active $unit || continue
    say "restarting $unit"
    systemctl restart $unit || fail "$unit does not become ready: journalctl -u $unit tells why" \
      "$TOP/install.sh rollback returns to the release before"
  done
}

# Old releases go, but for the one before, and those that processes still run from: what watches over a container is of
# the release that the container was started with.
remove_old() {
  local folder name
  for folder in $TOP/releases/*; do
    name=$(basename "$folder")
    case releases/$name in "$(readlink $TOP/current)" | "$(readlink $TOP/previous 2>/dev/null)") continue ;; esac
    ! cat /proc/[0-9]*/cmdline 2>/dev/null | grep --quiet --text --fixed-strings "$folder/" || continue
    rm -rf "$folder"
  done
}

# Verbs ------------------------------------------------------------------------------------------------------------

install_release() {
  mend_broken_off
  if [ ! -e "$from/release" ]; then from_checkout; fi
  check_bundle
  install_packages
  check_python
  make_user
  name=$(cat "$from/release")
  release=$TOP/releases/$name
  make_release
  switch_to "$name"
  say "$name is installed; next: orchctl cluster init, or orchctl node join"
}

# A checkout becomes a bundle first, with wheels from the network.
from_checkout() {
  [ -e "$from/bundle.sh" ] || fail "$from is neither a bundle nor a checkout" "run the install.sh of one of them"
  local checkout=$from
  if ! /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; then
    say "installing python3-venv, to build with"
    apt update || stop_at_log "apt-get update failed; is there a network?"
    add_packages install python3-venv
    apt-mark auto python3-venv >/dev/null
  fi
  /usr/bin/python3 -m venv "$work/venv"
  from=$work/bundle
  PYTHON=$work/venv/bin/python "$checkout/bundle.sh" --wheels "$from"
}

switch_to() {
  point_at "$1"
  install_around
  tell_kernel
  restart
  remove_old
}

rollback() {
  mend_broken_off
  [ -L $TOP/previous ] || fail "there is no release before this one" "install another with its own install.sh"
  local name
  name=$(basename "$(readlink $TOP/previous)")
  [ -e "$TOP/releases/$name/complete" ] || fail "$TOP/releases/$name is not complete" "install it with its own install.sh"
  switch_to "$name"
  say "$name is current again"
}

status() {
  [ -L $TOP/current ] || { say "nothing is installed"; return 0; }
  say "current: $(cat $TOP/current/complete)"
  [ ! -L $TOP/previous ] || say "previous: $(cat $TOP/previous/complete)"
}

uninstall() {
  local data
  data=$(find $STATE -mindepth 2 -print -quit 2>/dev/null || true)
  if [ -n "$data" ] && [ "${1-}" != --with-data ]; then
    fail "this machine belongs to a cluster: $data is there" \
      "have its node drained and deleted first, and keep a backup if it holds the store; then:" \
      "$TOP/install.sh uninstall --with-data"
  fi
  mend_broken_off
  stop_services orch-agent orch-controlplane orch-etcd
  check_nothing_runs
  # Containers are killed, and then the unit that they were below has nobody to wait for.
  leave_node
  stop_services orch-tasks
  forget_cluster
  put_back_parameters
  rm -f $SYSCTL $MODULES
  local name
  for name in "${PROGRAMS[@]}"; do rm -f "$COMMANDS/$name"; done
  for name in "${SERVICES[@]}"; do rm -f "$UNITS/$name.service"; done
  rmdir $UNITS "$(dirname $UNITS)" "$(dirname $MODULES)" 2>/dev/null || true
  ! has_systemd || { systemctl daemon-reload; systemctl reset-failed 'orch-*' 2>/dev/null || true; }
  rm -rf $CONFIGURATION /run/orch
  # A file system of its own may be mounted there, which is somebody else's to take away.
  find $STATE -xdev -mindepth 1 -delete 2>/dev/null || true
  rmdir $STATE 2>/dev/null || true
  ! getent passwd $OWNER >/dev/null || userdel $OWNER
  remove_packages
  rm -rf $TOP $LOCK
  say "Orch is gone"
}

stop_services() {
  local name
  for name in "$@"; do
    if has_systemd; then systemctl --quiet disable --now "$name" 2>/dev/null || true; fi
    rm -f "/etc/systemd/system/multi-user.target.wants/$name.service"
    # The second is where `systemctl set-property` stores.
    rm -rf "/etc/systemd/system/$name.service.d" "/etc/systemd/system.control/$name.service.d"
  done
  rmdir /etc/systemd/system.control 2>/dev/null || true
}

# Without systemd whoever started them ends them.
check_nothing_runs() {
  local running
  running=$(getent passwd $OWNER >/dev/null && ps -u $OWNER -o pid=,args= | head -n 3 | cut -c 1-100 || true)
  [ -z "$running" ] || fail "the control plane or the store runs" "$running" "end it, and try again; nothing was removed"
}

# Containers, links, rules, mounts and control groups.
leave_node() {
  [ -d $STATE/agent ] && [ -x $TOP/current/bin/python3 ] || return 0
  [ -n "$(ls -A $STATE/agent)" ] || return 0
  $TOP/current/bin/python3 -m agent.leave --state $STATE/agent --run-dir /run/orch --stop-agent --kill-tasks \
    --cgroup-parent "$(agents_groups)" || fail "the node could not be taken off this machine" "the line above says why"
}

# What whoever calls is known by to a cluster that ends with this machine.
forget_cluster() {
  local said
  [ -e $STATE/trust/identity.pem ] && [ -x $TOP/current/bin/python3 ] || return 0
  said=$($TOP/current/bin/python3 -m deploy.host forget 2>&1) ||
    { say "what you are known by to the cluster stays: $said"; return 0; }
  [ -z "$said" ] || say "$said"
}

agents_groups() {
  sed -n 's/^cgroup-parent: *"\{0,1\}\([^"]*\)"\{0,1\} *$/\1/p' $CONFIGURATION/agent.yaml 2>/dev/null | grep . || printf '/orch\n'
}

put_back_parameters() { [ ! -e $TOP/parameters ] || sysctl --quiet --load=$TOP/parameters 2>/dev/null || true; }

# Those that came with us, and that nothing else needs now. What is only suggested was not there before.
remove_packages() {
  local unneeded
  # Without a repository: what is there in part is not completed, but goes.
  mkdir -p "$work/none/partial"
  unneeded=$(apt-get --simulate --fix-broken --option=APT::AutoRemove::SuggestsImportant=false \
    --option=Dir::State::Lists="$work/none" autoremove $(noted_in '.[^n]' | grep --line-regexp orch-dependencies) 2>"$work/log" |
    sed -n 's/^Remv \([^ ]*\) .*/\1/p' | sort | comm -12 - <(noted_packages)) ||
    stop_at_log "apt-get could not tell which packages nothing needs"
  [ -z "$unneeded" ] || apt purge $unneeded || stop_at_log "apt-get could not remove packages"
  [ "$(readlink $MASKED 2>/dev/null)" != /dev/null ] || ! missing etcd-server || rm -f $MASKED
}

from=$(cd "$(dirname "$(readlink --canonicalize "$0")")" && pwd)
check_machine
umask 022
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
work=$(mktemp -d)
repair=() # options for apt after a run that broke off
trap 'rm -rf "$work"' EXIT
exec 9>$LOCK
flock --nonblock 9 || fail "another installation is under way" "wait until it has ended"
case "${1-install}" in
install) install_release ;;
rollback) rollback ;;
status) status ;;
uninstall) uninstall "${2-}" ;;
*) fail "unknown verb: $1" "install.sh [install|rollback|status|uninstall [--with-data]]" ;;
esac
