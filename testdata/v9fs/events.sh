#!/bin/bash
# Logs: a line is seen when it is there, and none is lost.
. "${0%/*}/prelude"
serve
for k in $kinds; do
	m=/n/$k
	mkdir $m/ctr/out
	put $m/ctr/out/args seq 100000
	put $m/ctr/out/ctl create
	cat $m/ctr/out/stdout | md5sum >/tmp/sum &
	put $m/ctr/out/ctl start
	wait $!
	is "$k: cat stdout" "$(cat /tmp/sum)" "$(seq 100000 | md5sum)"
	get $m/ctr/out/wait
	put $m/ctr/out/args sh -c "'seq -f %0100g 99; echo end'"
	put $m/ctr/out/ctl start
	while read -r l && [ "$l" != end ]; do echo "$l"; done <$m/ctr/out/stdout | md5sum >/tmp/sum
	is "$k: while read of stdout" "$(cat /tmp/sum)" "$(seq -f %0100g 99 | md5sum)"
	get $m/ctr/out/wait
	holds "$k: it is kept" $m/ctr/out/stdout '*end'
	rmdir $m/ctr/out
done

# Who follows the old dialect gets what fills his buffer, for there 0 bytes are the end.
for k in L X; do
	m=/n/$k
	# The line is there at once; cat learns from the next one that nobody reads any more.
	cat $m/events | head -n1 >/tmp/first &
	ok "$k: cat events | head -n1" try says /tmp/first '20*Z +([0-9]) @(present|ready)*'
	mkdir $m/ctr/first && put $m/ctr/first/ctl create && put $m/ctr/first/ctl delete
	ok "$k: which ends" try nonestuck

	is "$k: head -n1 events" "$(head -n1 $m/events)" '20*Z +([0-9]) @(present|ready)*'

	# The loop is ready when it has told so; the events after that are all to come.
	mkfifo /tmp/ready
	while read -r time seq topic rest; do
		case $topic in
		ready) : >/tmp/ready ;;
		create) echo "$rest" >>/tmp/created ;;
		delete) echo "$rest" >>/tmp/deleted; [[ $rest != ctr=last* ]] || break ;;
		esac
	done <$m/events &
	loop=$!
	: </tmp/ready
	for i in {1..4} last; do mkdir $m/ctr/$i && put $m/ctr/$i/ctl create && put $m/ctr/$i/ctl delete; done
	wait $loop
	is "$k: while read, every create" "$(cut -d' ' -f1 /tmp/created)" "$(printf 'ctr=%s\n' {1..4} last)"
	is "$k: while read, every delete" "$(cut -d' ' -f1 /tmp/deleted)" "$(printf 'ctr=%s\n' {1..4} last)"
	rm /tmp/first /tmp/ready /tmp/created /tmp/deleted
done
