#!/bin/sh
# Builds the library of c-ares in the directory that configure-apart.sh has prepared.
#   build-library.sh MAKE BUILD-DIRECTORY LIBCARES
set -eu
unset MAKEFLAGS MAKELEVEL
"$1" -s -C "$2/src/lib" -j "$(getconf _NPROCESSORS_ONLN)" libcares.la
cp "$2/src/lib/.libs/libcares.a" "$3"
