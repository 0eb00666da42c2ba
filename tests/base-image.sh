#!/bin/sh
# A small image with Debian's own Python 3.11, like python:3.11-slim, from packages alone: unpacked, none of their
# scripts run. usage: base-image.sh out.tar, as root.
set -e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --mode=root --variant=extract --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --include=base-files,base-passwd,dash,coreutils,libc-bin,libstdc++6,python3,netbase,tzdata \
  --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  bookworm "$work/root" >&2
cd "$work/root"
for folder in doc man locale lintian info; do rm -rf "usr/share/$folder"; done
rm -rf var/cache/apt var/lib/apt var/lib/dpkg etc/apt etc/dpkg
cp usr/share/base-passwd/passwd.master etc/passwd
cp usr/share/base-passwd/group.master etc/group
ln -sf dash usr/bin/sh
mkdir -p root tmp proc sys dev usr/local/bin
chmod 1777 tmp
ln -sf /usr/bin/python3 usr/local/bin/python3
chroot . /sbin/ldconfig
chroot . /usr/bin/python3 -m compileall -q /usr/lib/python3.11 >/dev/null 2>&1 || true
tar -C "$work/root" -cf "$1" --numeric-owner .
