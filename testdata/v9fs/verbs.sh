#!/bin/bash
# Every verb of a process's ctl, said to one that is parked and to one that runs. Each change of a running one is a program to be
# started, which costs a guest a second: the old dialect hears only some of those.
. "${0%/*}/prelude"
serve
# new: a parked process, its number in n, its directory in p. on MESSAGE...: they are taken. not MESSAGE...: they are refused.
# may MESSAGE: it is taken, or the kernel lacks what it needs.
new() { exec 3<>$m/proc/clone; read -r n <&3; p=$m/proc/$n state=parked; }
on() { local v; for v; do ok "$k: $state: $v" put $p/ctl "$v"; done; }
not() { local v; for v; do refused "$k: $state: not $v" . put $p/ctl "$v"; done; }
may() { if put $p/ctl "$1" 2>/dev/null; then pass "$k: $state: $1"; else why "$k: $state: $1, or why not" 'needs '; fi; }
for k in $kinds; do
	m=/n/$k
	new
	on 'label v' 'dir /usr' 'env A=b' forkenv 'umask 027' 'cap ~sys_time' 'oom 500' 'limit nofile 100 200' 'nice 3' 'pri 7' 'wired 0' \
		'ipc socket' 'ipc pipe' 'newpgrp newfd 2 1 0' 'forkfd 1' 'unshare uts ipc net' forkns 'rfork s' 'close 2' 'signal CONT' stop start
	may 'exceptions propagate'
	not private 'close 3'
	holds "$k: parked: its limit" $p/limits $'*\nnofile 100 200\n*'
	on killonclose "exec sh -c 'echo \$A \$PWD; umask; while read x; do echo \$x; done'"
	exec 4>$p/stdin
	state=running
	not 'label w' 'dir /' 'env A=c' newenv forkenv 'umask 0' 'cap kill' 'oom 0' 'ipc none' tty 'user 1' nowait exec
	on 'signal CONT' 'limit nofile 50' 'nice 4' 'pri 6' 'wired 0' killonclose 'newfd 0 1 9 newpgrp' stop start
	holds "$k: its limit" $p/limits $'*\nnofile 50 200\n*'
	holds "$k: its descriptors" $p/fd $'/usr\n0 r *\n1 w *'
	if [ $k = L ]; then
		not 'close 9'
		on 'forkns forkfd 7' 'rfork f' 'unshare uts' 'join 1 net' nodevs private
	fi
	on newns
	holds "$k: its name space" $p/ns $'@(mount|bind) *\ncd /'
	echo on >&4
	exec 4>&-
	holds "$k: it has worked on" $p/stdout $'b /usr\n0027\non'
	holds "$k: its end" $p/wait "$n * ''"

	new
	on newenv 'join 1 uts' nodevs 'user 1:1,2' nowait 'env PATH=/bin' 'tty 90 20' 'exec sleep 1000'
	exec 4<$p/wait
	holds "$k: its terminal" $p/winsize '90 20'
	state=running
	on closeio 'close 2' closefiles killgrp
	read -r l <&4
	is "$k: its end" "$l" "$n * 'signal: KILL'"
	exec 4<&-
	new
	on closeio closefiles 'dir /bin' newns killgrp
	holds "$k: parked: its end" $p/wait "$n * 'signal: KILL'"
	new
	on kill
	new
	on 'exec sleep 1000'
	state=running
	may 'exceptions notifyleader'
	on 'kill TERM'
	holds "$k: running: its end" $p/wait "$n * 'signal: TERM'"
	exec 3>&-
done
