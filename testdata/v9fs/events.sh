#!/bin/bash
# Logs: a line is seen when it is there, and none is lost.
. "${0%/*}/prelude"
serve
for k in $kinds; do
	m=/n/$k
	is "$k: cat events | head -n1" "$(cat $m/events | head -n1)" '20*Z +([0-9]) @(present|ready)*'
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
	: >/tmp/ready
	for i in {1..9} last; do mkdir $m/ctr/$i && put $m/ctr/$i/ctl create && put $m/ctr/$i/ctl delete; done
	wait $loop
	is "$k: while read, every create" "$(cut -d' ' -f1 /tmp/created)" "$(printf 'ctr=%s\n' {1..9} last)"
	is "$k: while read, every delete" "$(cut -d' ' -f1 /tmp/deleted)" "$(printf 'ctr=%s\n' {1..9} last)"
	rm /tmp/ready /tmp/created /tmp/deleted

	mkdir $m/ctr/out
	put $m/ctr/out/args seq 100000
	cat $m/ctr/out/stdout | md5sum >/tmp/sum &
	put $m/ctr/out/ctl start
	wait $!
	is "$k: cat stdout" "$(cat /tmp/sum)" "$(seq 100000 | md5sum)"
	get $m/ctr/out/wait
	put $m/ctr/out/args sh -c "'seq 1000; echo end'"
	put $m/ctr/out/ctl start
	while read -r l && [ "$l" != end ]; do echo "$l"; done <$m/ctr/out/stdout | md5sum >/tmp/sum
	is "$k: while read of stdout" "$(cat /tmp/sum)" "$(seq 1000 | md5sum)"
	get $m/ctr/out/wait
	holds "$k: it is kept" $m/ctr/out/stdout '*end'
	rmdir $m/ctr/out
done
