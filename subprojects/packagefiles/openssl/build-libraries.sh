#!/bin/sh
# Builds OpenSSL's libraries in the directory that configure-apart.sh has prepared.
#   build-libraries.sh MAKE BUILD-DIRECTORY LIBSSL LIBCRYPTO
set -eu
unset MAKEFLAGS MAKELEVEL
"$1" -s -C "$2" -j "$(getconf _NPROCESSORS_ONLN)" build_libs
cp "$2/libssl.a" "$3"
cp "$2/libcrypto.a" "$4"
