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

	# What is not mounted has no files to be found.
	find $m/proc/$p $m/ctr -path $m/ctr/read/root -prune -o -printf '%y %s %n %i %p\n' >/tmp/find 2>&1
	files=() odd=
	declare -A inodes=()
	while read -r type size links inode name; do
		[ $type = d ] || [ "$size" = 0 ] || odd+=" $name: size $size"
		[ "$links" -gt 0 ] || odd+=" $name: no links"
		[ -z "${inodes[$inode]-}" ] || odd+=" $name: inode of ${inodes[$inode]}"
		inodes[$inode]=$name
		[ $type = d ] || [[ $name =~ /($blocking)$ ]] || files+=($name)
	done </tmp/find
	same "$k: sizes, links and inodes" "$odd" ''
	ok "$k: find has found much" test ${#files[@]} -gt 15
	each get "${files[@]}" $m/error $m/stats $m/ctl
	same "$k: every file answers" "$REPLY" ''
	find $m -maxdepth 2 -type d >/tmp/dirs
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
mkdir $m/ctr/stay{1..8}
for i in {1..5}; do mkdir $m/ctr/go{1..20}; rmdir $m/ctr/go{1..20}; done &
churn=$!
bad= rounds=0
while kill -0 $churn 2>/dev/null; do
	ls -1 $m/ctr >/tmp/ls
	declare -A seen=()
	n=0
	while read -r f; do
		[ -z "${seen[$f]-}" ] || bad+=" $f twice"
		seen[$f]=1
		[[ $f != stay* ]] || n=$((n + 1))
	done </tmp/ls
	[ $n = 8 ] || bad+=" $n stay"
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
