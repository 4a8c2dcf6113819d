#!/bin/sh
# Starts the server within the chroot image of FIRE. fire.ini names this file as chroot_command.
# The first argument is a log file, for example in /tmp/share, which is a folder of the scanner's host.
# PYTHON names another interpreter, and FIRE_PORT another port.
set -eu
PYTHON="${PYTHON:-/usr/local/bin/python}"
PORT="${FIRE_PORT:-9002}"
LOG="${1:-/tmp/share/log/gadgetron-networks.log}"

mkdir -p "$(dirname "$LOG")"
# Temporary files belong on the host: the chroot image is small.
if [ -d /tmp/share ]; then
    export TMPDIR=/tmp/share
fi
"$PYTHON" -m gadgets serve --host 0.0.0.0 --port "$PORT" --default-chain reconstruct --log-file "$LOG" >/dev/null 2>&1 &
echo "gadgetron-networks runs as process $!"
