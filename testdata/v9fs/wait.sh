#!/bin/bash
# Blocked reads: any number, and a signal ends each.
. "${0%/*}/prelude"
set -m # so that jobs have a process group and take SIGINT, as those of a terminal
serve
sleep 1000 &
p=$!

# cats N: so many `cat wait` at once, one job. left N: so many are left.
cats() {
	printf "$w\n%.0s" $(seq "$1") >/tmp/list
	/bin/busybox xargs -P "$1" -n 1 /bin/busybox cat </tmp/list >/dev/null 2>&1 &
}
left() { stuck busybox; [ "$REPLY" = "$1" ]; }

# ^C for one half while the other waits, and KILL for that.
for k in $kinds; do
	m=/n/$k w=$m/proc/$p/wait
	n=500
	[ $k = L ] || n=20
	cats $n
	first=$!
	cats $n
	second=$! left=$n
	ok "$k: $((2 * n)) cats wait" try waiting $((2 * n)) busybox
	for s in INT KILL; do
		holds "$k: others read" $m/proc/$p/args 'sleep 1000'
		ok "$k: others list" ls $m/ctr
		ok "$k: others write" put $m/ctl log info
		ok "$k: stat of the file" stat $w
		refused "$k: append to it" . add $w
		[ $s = INT ] && job=$first || job=$second
		kill -$s -- -$job # all of it, as ^C does
		ok "$k: $s ends all of those" try left $left
		holds "$k: the mount goes on" $m/proc/$p/args 'sleep 1000'
		left=0
	done
done

m=/n/L w=$m/proc/$p/wait
cat $w &
c=$!
ok 'one waits' try waiting 1 cat
refused 'umount while one waits' busy umount $m
kill $c
wait $c
ok 'umount after it' try umount $m
attach L $m
cat $w >/dev/null 2>&1 &
c=$!
try waiting 1 cat
umount -f $m 2>/dev/null
kill $c
wait $c
ok 'umount -f, then umount' try eval 'umount $m; ! grep -q " $m " /proc/mounts'
attach L $m
cat $w >/dev/null 2>&1 &
c=$!
try waiting 1 cat
umount -l $m
kill -KILL $c
ok 'umount -l, then kill' try nonestuck
attach L $m

# A wait that ends by itself.
: >/tmp/wait # scripts before this one have used it
cat $w >>/tmp/wait &
a=$!
cat /n/X/proc/$p/wait >>/tmp/wait &
b=$!
cat $m/proc/$p/wait >>/tmp/wait &
c=$!
try waiting 3 cat
kill -TERM $p
wait $a $b $c
holds 'the record' /tmp/wait "$p +([0-9-]) +([0-9-]) +([0-9-]) @('signal: TERM'|unknown)*"
is 'every reader gets it' "$(uniq -c /tmp/wait)" '*( )3 *'
