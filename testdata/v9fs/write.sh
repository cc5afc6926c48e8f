#!/bin/bash
# What Linux's tools send when they write.
. "${0%/*}/prelude"
serve
printf 'hostname copied\n' >/tmp/line
for k in $kinds; do
	m=/n/$k
	c=$m/ctr/write$k
	ok "$k: mkdir" mkdir $c
	refused "$k: mkdir of what is there" 'File exists' mkdir $c
	hostname() { holds "$k: $1" $c/hostname "$2"; }
	put $c/ctl hostname one; hostname '> ctl' one
	add $c/ctl hostname two; hostname '>> ctl' two
	echo hostname three | tee $c/ctl >/dev/null; hostname tee three
	echo hostname four | tee -a $c/ctl >/dev/null; hostname 'tee -a' four
	printf 'hostname five\ndomainname six\n' >$c/ctl; hostname 'printf, two lines' five
	holds "$k: the second line" $c/domainname six
	env printf 'hostname seven\ndomainname eight\n' >$c/ctl; hostname 'two lines in one write' seven
	echo hostname nine | dd of=$c/ctl conv=notrunc status=none; hostname 'dd conv=notrunc' nine
	echo hostname ten | dd of=$c/ctl conv=fsync status=none; hostname 'dd conv=fsync' ten
	cp /tmp/line $c/ctl; hostname cp copied
	put $c/hostname direct; hostname 'a text file' direct
	echo HOSTNAME loud >$c/ctl; hostname 'a verb in capitals' loud

	ok "$k: touch" touch $c/ctl
	ok "$k: truncate" truncate -s 0 $c/ctl
	ok "$k: sync" sync $c/ctl
	ok "$k: df" df $c
	ok "$k: ls -l" ls -l $c
	flock -n $c/ctl true 2>/dev/null # any answer
	ok "$k: after flock" cat $m/version
	refused "$k: chmod" 'not permitted|denied' chmod 777 $c/ctl
	refused "$k: chown" 'not permitted|denied' chown 1 $c/ctl
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
	put $c/ctl hostname after; hostname 'a write after the one that failed' after
	refused "$k: too many arguments" . put $c/ctl start now please
	ok "$k: rmdir" rmdir $c
	ok "$k: it is gone" test ! -e $c
done
