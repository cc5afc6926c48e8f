#!/bin/bash
# `>` to every file while somebody is blocked in each other one. Linux since 6.8 holds a file's
# lock while a read of it waits; what hangs then cannot be killed.
. "${0%/*}/prelude"
serve
empty() { : >"$1"; }
declare -A reader
for k in $kinds; do
	m=/n/$k c=/n/$k/ctr/lock
	mkdir $c
	put $c/args sleep 1000
	put $c/ctl start
	exec 3<>$m/proc/clone
	read -r p <&3
	echo exec sleep 1000 >&3
	exec 3>&-
	files=$(ls -d $m/* $m/proc/"$p"/* $c/* $c/proc/1/* | while read -r f; do [ ! -f "$f" ] || echo "$f"; done)
	block=$(grep -E '/(wait|stopped|events|stdout|stderr|data|console)$' <<<"$files")
	n=0
	for f in $block; do cat "$f" >/dev/null 2>&1 & reader[$f]=$!; n=$((n + 1)); done
	# Two that read the same output share nothing; a file that refuses to be read blocks nobody.
	ok "$k: readers wait" try waiting 5 cat
	each empty $(grep -vxF "$block" <<<"$files")
	same "$k: > to $(wc -w <<<"$files") files, $n of them read" "$REPLY" ''
	for f in $block; do
		kill -KILL "${reader[$f]}" 2>/dev/null
		wait "${reader[$f]}" 2>/dev/null
		each empty $f
		same "$k: > to ${f#$m/}" "$REPLY" ''
		cat "$f" >/dev/null 2>&1 &
		reader[$f]=$!
	done
	kill -KILL "${reader[@]}" 2>/dev/null
	wait "${reader[@]}" 2>/dev/null
	reader=()
	ok "$k: readers end" try nonestuck
	put $c/ctl kill
	put $m/proc/"$p"/ctl kill
	get $c/wait
	rmdir $c
done
