#!/bin/bash
# ctrfs -m: the server mounts itself, and takes away the mount of one that was killed.
. "${0%/*}/prelude"
mounted() { grep -q ' /n/m 9p ' /proc/mounts; }
mkdir -p /run/ctrfs
for end in KILL TERM INT; do
	set -m
	"$CTRFS" -a "unix!$sock" -m /n/m &
	set +m
	server=$!
	ok "mounts" try mounted
	ok "can be read" try cat /n/m/version
	is "once" "$(grep -c ' /n/m ' /proc/mounts)" 1
	if [ $end = KILL ]; then kill -KILL -$server; else kill -$end $server; fi
	wait $server
	[ $end = KILL ] || ok "$end: unmounted" try eval '! mounted'
done
serve
