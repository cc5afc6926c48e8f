#!/bin/bash
# What Linux's tools send when they write.
. "${0%/*}/prelude"
serve
echo log info >/tmp/line
for k in L X 2; do
	m=/n/$k
	c=$m/ctr/write$k
	ok "$k: mkdir" mkdir $c
	refused "$k: mkdir of what is there" 'File exists' mkdir $c
	log() { holds "$k: $1" $m/ctl "*log $2*"; }
	put $m/ctl log warn; log '> ctl' warn
	add $m/ctl log info; log '>> ctl' info
	echo log warn | tee $m/ctl >/dev/null; log tee warn
	echo log info | tee -a $m/ctl >/dev/null; log 'tee -a' info
	printf 'log warn\nlog error\n' >$m/ctl; log 'printf, two lines' error
	env printf 'log info\nlog warn\n' >$m/ctl; log 'two lines in one write' warn
	echo log info | dd of=$m/ctl conv=notrunc status=none; log 'dd conv=notrunc' info
	echo log warn | dd of=$m/ctl conv=fsync status=none; log 'dd conv=fsync' warn
	cp /tmp/line $m/ctl; log cp info
	echo LOG warn >$m/ctl; log 'a verb in capitals' warn
	put $c/hostname direct; holds "$k: a text file" $c/hostname direct

	ok "$k: touch" touch $c/ctl
	ok "$k: truncate" truncate -s 0 $c/ctl
	ok "$k: sync" sync $c/ctl
	ok "$k: df" df $c
	ok "$k: ls -l" ls -l $c
	flock -n $c/ctl true 2>/dev/null # any answer
	ok "$k: after flock" cat $m/version
	refused "$k: chmod" 'not permitted|denied' chmod 777 $c/ctl
	[ $k = 2 ] || refused "$k: chown" 'not permitted|denied' chown 1 $c/ctl # the old dialect has no words for it
	refused "$k: sed -i" 'denied|not permitted' sed -i s/a/b/ $c/hostname
	refused "$k: mv of a file" 'denied|not permitted|not supported|cross-device' mv -n -T $c/ctl $c/other
	refused "$k: ln -s" 'denied|not permitted|not supported' ln -s x $c/link
	refused "$k: a new file" 'denied|not permitted' put $c/nosuchfile x
	refused "$k: rm of a file" 'denied|not permitted' rm $c/ctl

	put $c/args /bin/echo a; holds "$k: args" $c/args '/bin/echo a'
	printf 'A=1\nB=2\n' >$c/env; holds "$k: lines are added" $c/env $'A=1\nB=2'
	add $c/env C=3; holds "$k: >> adds" $c/env $'A=1\nB=2\nC=3'
	put $c/env D=4; holds "$k: > empties" $c/env D=4

	refused "$k: a verb that there is not" 'Invalid argument|Input/output error|526' put $c/ctl frob
	why "$k: /error says why" 'unknown control message: "frob"'
	put $m/ctl log info; log 'a write after the one that failed' info
	refused "$k: too many arguments" . put $c/ctl start now please
	ok "$k: rmdir" rmdir $c
	ok "$k: it is gone" test ! -e $c
done
