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

# Without v9fs it is FUSE.
# ends PID: it does; if not, where it is.
ends() { try gone $1 || { cat /proc/$1/{status,wchan,syscall,stack}; false; }; }
fuse() { grep -q ' /n/m fuse' /proc/mounts; }
/bin/busybox rmmod 9p
set -m
"$CTRFS" -a "unix!$sock" -m /n/m &
server=$!
sleep 1000 &
p=$!
ok 'FUSE: mounts' try fuse
ok 'FUSE: can be read' cat /n/m/version
holds 'FUSE: args' /n/m/proc/$p/args 'sleep 1000'
ok 'FUSE: a container' mkdir /n/m/ctr/fuse
put /n/m/ctr/fuse/ctl exec sh -c "'echo hello; exit 3'"
holds 'FUSE: its output' /n/m/ctr/fuse/stdout hello
holds 'FUSE: its end' /n/m/ctr/fuse/wait "*exit: 3*"
ok 'FUSE: rmdir' rmdir /n/m/ctr/fuse
for s in INT KILL; do
	cat /n/m/proc/$p/wait &
	c=$!
	ok 'FUSE: cat' try says /proc/$c/comm cat
	kill -$s -- -$c
	ok "FUSE: $s ends a blocked cat" ends $c
done
set +m
refused 'FUSE: a word that there is not' 'Invalid argument' put /n/m/ctl frob
kill -TERM $server
wait $server
ok 'FUSE: unmounted' eval '! fuse'
kill $p
/bin/busybox insmod "$(grep '/9p\.ko' "$guest/modules")"
serve
