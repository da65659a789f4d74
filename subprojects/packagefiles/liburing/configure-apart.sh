#!/bin/sh
# Runs liburing's `configure` away from its sources, where it would write otherwise.
#   configure-apart.sh SOURCE-DIRECTORY BUILD-DIRECTORY MAKE COMPILER [ARGUMENT...]
set -eu
source=$1 build=$2 make=$3
shift 3
mkdir -p "$build/src/include/liburing" "$build/bin"
cp "$source/configure" "$source/Makefile.common" "$source"/*.spec "$build/"
ln -sf "$make" "$build/bin/make"
cd "$build"
PATH=$build/bin:$PATH sh ./configure --use-libc --cc="$*" --cxx=false
