#!/bin/bash
# Processes are made and ended with cat and echo.
. "${0%/*}/prelude"
serve
for k in $kinds; do
	m=/n/$k
	cd $m/proc || exit
	printf 'label j\nexec /bin/sh -c %s\n' "'echo out; echo err >&2; exit 3'" >clone
	holds "$k: wait by label" j/wait "+([0-9]) +([0-9]) +([0-9]) +([0-9]) 'exit: 3'*"
	holds "$k: stdout" j/stdout out
	holds "$k: stderr" j/stderr err
	cd /

	exec 3<>$m/proc/clone
	read -r p <&3
	is "$k: clone gives a pid" "$p" '+([0-9])'
	p=$m/proc/$p
	holds "$k: it is parked" $p/status '*state parked*'
	printf '%s\n' 'dir /usr' 'env A=b' 'umask 027' "exec sh -c 'pwd; echo \$A; umask; cat; exit 4'" >&3
	cat $p/stdout >/tmp/out &
	printf 'in\n' >$p/stdin
	wait $!
	is "$k: dir, env, umask, stdin" "$(cat /tmp/out)" $'/usr\nb\n0027\nin'
	get $p/wait
	holds "$k: exitstatus" $p/exitstatus 4
	exec 3>&-

	exec 3<>$m/proc/clone
	read -r p <&3
	refused "$k: exec of what there is not" . eval 'echo exec /no/such >&3'
	why "$k: and why" '/no/such*@(file does not exist|no such file)'
	echo exec sleep 1000 >&3
	p=$m/proc/$p
	echo stop >&3
	get $p/stopped 2>/dev/null # where the kernel has tracefs
	ok "$k: stop" try says $p/status '*state stopped*'
	echo start >&3
	holds "$k: start" $p/status '*state @(sleeping|running)*'
	put $p/note TERM
	holds "$k: note" $p/wait "*signal: TERM*"
	exec 3>&-

	exec 3<>$m/proc/clone
	read -r p <&3
	printf 'killonclose\nexec sleep 1000\n' >&3
	cat $m/proc/$p/wait >/tmp/wait 3>&- &
	exec 3>&-
	wait $!
	holds "$k: killonclose" /tmp/wait "*'signal: KILL'*"
	exec 3<>$m/proc/clone
	read -r p <&3
	exec 3>&-
	ok "$k: closed before exec it is gone" try gone "$p"
	refused "$k: also in the tree" 'No such file' ls $m/proc/"$p"
done
