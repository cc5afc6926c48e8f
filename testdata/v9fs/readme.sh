#!/bin/bash
# The README's examples: through v9fs, and as an ordinary user of his own server through FUSE.
. "${0%/*}/prelude"
serve
examples=${0%/*/*}/readme.sh
ok 'as root, by v9fs' "$examples" /n/L

mkdir -p /tmp/user
chown 1000:1000 /tmp/user
/bin/busybox rmmod 9p 2>/dev/null
setpriv --reuid=1000 --regid=1000 --clear-groups env -C / HOME=/tmp/user "$CTRFS" -a unix!/tmp/user/sock -m /tmp/user/n &
theirs=$!
ok 'an ordinary user mounts' try eval 'grep -q " /tmp/user/n fuse" /proc/mounts'
ok 'an ordinary user, by FUSE' as 1000 env HOME=/tmp/user TMPDIR=/tmp/user "$examples" /tmp/user/n
kill -TERM $theirs
wait $theirs
ok 'unmounted' eval '! grep -q " /tmp/user/n " /proc/mounts'
