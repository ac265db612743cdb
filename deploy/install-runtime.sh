#!/bin/bash
# Installs the OCI command line below a prefix, for the machine's own Python, or takes it away again.
#
#   deploy/install-runtime.sh PREFIX             PREFIX/bin/orchrun and PREFIX/lib/orchrun
#   deploy/install-runtime.sh --remove PREFIX
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=/usr/bin/python3

remove=
[ "${1-}" != --remove ] || { remove=yes; shift; }
[ $# = 1 ] && [[ $1 == /* ]] || { printf 'usage: %s [--remove] PREFIX (an absolute path)\n' "$0" >&2; exit 1; }
library=$1/lib/orchrun
command=$1/bin/orchrun

if [ -n "$remove" ]; then
  rm -rf "$library" "$command"
  exit 0
fi

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  printf 'install-runtime: Python 3.11 or later is needed, and %s is older\n' "$PYTHON" >&2
  exit 1
}
# Beside the old one, then in its place: a container that is being started finds the one or the other.
new=$library.new
rm -rf "$new"
mkdir -p "$new" "$1/bin"
find runtime -name '*.py' -print0 | tar --create --null --files-from=- | tar --extract --directory="$new"
# Nobody edits these files, so the interpreter need not look whether they are newer than what was compiled.
"$PYTHON" -m compileall -q --invalidation-mode unchecked-hash -s "$new" -p "$library" "$new"
chmod -R u=rwX,go=rX "$new"
rm -rf "$library"
mv "$new" "$library"

# -I and -S: neither the caller's environment nor the machine's packages have a say, and it starts sooner.
cat >"$command.new" <<SCRIPT
#!$PYTHON -IS
import sys

sys.path.insert(0, "$library")
import runtime.cli.__main__
SCRIPT
chmod 755 "$command.new"
mv "$command.new" "$command"
