#!/bin/sh
# Configures c-ares in a directory of its own. Once: when the same is asked for again, there is
# nothing to do.
#   configure-apart.sh SOURCE-DIRECTORY BUILD-DIRECTORY [OPTION...]
set -eu
source=$1 build=$2
shift 2
mkdir -p "$build"
cd "$build"
[ "$(cat configured-with 2>/dev/null)" != "$source $*" ] || exit 0
rm -f configured-with
sh "$source/configure" "$@"
echo "$source $*" >configured-with
