#!/bin/bash
# The README's examples: through v9fs, and as an ordinary user of his own server through FUSE.
. "${0%/*}/prelude"
serve
top=${0%/*/*}
ok 'as root, by v9fs' "$top/readme.sh" /n/L

# What he runs must lie where he may read it.
home=/tmp/user
mkdir -p $home/testdata
cp "$CTRFS" $home/ctrfs
cp "$top/../README.md" $home
cp "$top"/readme.{sh,out} $home/testdata
chown -R 1000:1000 $home
/bin/busybox rmmod 9p 2>/dev/null
setpriv --reuid=1000 --regid=1000 --clear-groups env -C / HOME=$home $home/ctrfs -a unix!$home/sock -m $home/n &
theirs=$!
ok 'an ordinary user mounts' try eval "grep -q ' $home/n fuse' /proc/mounts"
ok 'an ordinary user, by FUSE' as 1000 env -C / HOME=$home TMPDIR=$home $home/testdata/readme.sh $home/n
kill -TERM $theirs
wait $theirs
ok 'unmounted' eval "! grep -q ' $home/n ' /proc/mounts"
