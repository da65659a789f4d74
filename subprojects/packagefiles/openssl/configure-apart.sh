#!/bin/sh
# Configures OpenSSL in a directory of its own and makes the headers that its tarball lacks. Once:
# when the same is asked for again, there is nothing to do.
#   configure-apart.sh SOURCE-DIRECTORY BUILD-DIRECTORY PERL MAKE [OPTION...]
set -eu
source=$1 build=$2 perl=$3 make=$4
shift 4
unset MAKEFLAGS MAKELEVEL
mkdir -p "$build"
cd "$build"
[ "$(cat configured-with 2>/dev/null)" != "$source $*" ] || exit 0
rm -f configured-with
"$perl" "$source/Configure" "$@"
"$make" build_generated
echo "$source $*" >configured-with
