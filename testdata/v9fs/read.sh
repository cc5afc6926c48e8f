#!/bin/bash
# What Linux's tools see when they read.
. "${0%/*}/prelude"
serve
blocking='wait|stopped|events|stdout|stderr|data|console|clone|stdin'
sleep 1000 &
p=$!
for k in $kinds T; do
	m=/n/$k
	[ $k = T ] || mkdir $m/ctr/read
	get $m/help; help=$REPLY
	is "$k: help" "$help" '*?'
	get $m/version; version=$REPLY
	is "$k: version" "$version" '*?'
	same "$k: by bytes" "$(dd if=$m/version bs=1 status=none)" "$version"
	same "$k: cat" "$(cat $m/version)" "$version"
	same "$k: wc" "$(wc -l <$m/version)" "$(wc -l <<<"$version")"
	same "$k: tail" "$(tail -n1 $m/version)" "${version##*$'\n'}"
	cp $m/version /tmp/copy
	holds "$k: cp" /tmp/copy "$version"
	ok "$k: grep" grep -q . $m/version
	same "$k: what does not exist" "$(ls $m/nosuch 2>&1)" "ls: cannot access '$m/nosuch': No such file or directory"
	ok "$k: ls .." ls $m/ctr/..

	hung=
	for f in $(find $m/proc/$p $m/ctr -type f | grep -vE "/($blocking)\$") $m/error $m/stats $m/ctl; do
		timeout -k 1 5 cat $f >/dev/null 2>&1
		[ $? -lt 124 ] || hung+=" $f"
	done
	is "$k: every file answers" "$hung" ''
	is "$k: sizes" "$(find $m/proc/$p $m/ctr -type f -not -size 0 2>&1)" ''
	is "$k: links" "$(find $m/proc/$p $m/ctr -links 0 2>&1)" ''
	is "$k: inodes are unique" "$(find $m/proc/$p $m/ctr -printf '%i\n' 2>&1 | sort | uniq -d)" ''
	find $m -maxdepth 3 -type d >/tmp/dirs
	for d in ctr proc proc/$p; do ok "$k: find -type d sees $d" grep -qx $m/$d /tmp/dirs; done
	[ $k = T ] || rmdir $m/ctr/read
done

m=/n/L
holds 'args of a process' $m/proc/$p/args 'sleep 1000'
holds 'status of a process' $m/proc/$p/status "*pid $p*"
is 'user of a process' "$(stat -c %u $m/proc/$p/args)" 0
mkdir $m/ctr/again
i=$(stat -c %i $m/ctr/again)
rmdir $m/ctr/again
mkdir $m/ctr/again
ok 'a new container has a new inode' test "$i" != "$(stat -c %i $m/ctr/again)"
(
	cd $m/ctr/again
	rmdir $m/ctr/again
	mkdir $m/ctr/again
	timeout 10 ls $m/ctr/again/ctl
) >/dev/null 2>&1
umount $m && attach L $m
ok 'a container made anew' cat $m/ctr/again/status
rmdir $m/ctr/again

# ls while others come and go: who stays is seen each time, nobody twice.
for i in 1 2 3 4 5 6 7 8; do mkdir $m/ctr/stay$i; done
for i in {1..50}; do mkdir $m/ctr/go$i; rmdir $m/ctr/go$i; done &
churn=$!
bad= rounds=0
while [ -e /proc/$churn ]; do
	ls -1 $m/ctr >/tmp/ls
	[ "$(grep -c '^stay' /tmp/ls)" = 8 ] && [ -z "$(sort /tmp/ls | uniq -d)" ] || bad=$(cat /tmp/ls)
	rounds=$((rounds + 1))
done
wait $churn
is "ls while containers come and go ($rounds times)" "$bad" ''
rmdir $m/ctr/stay*

for o in msize=4096 msize=1048576 cache=mmap; do
	attach L /n/o $o
	same "$o" "$(cat /n/o/help)" "$help"
	umount /n/o
done
