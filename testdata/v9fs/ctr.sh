#!/bin/bash
# Containers: a newcomer's session, and what it leaves behind.
. "${0%/*}/prelude"
serve
count() {
	local l n=0
	for l in /proc/[0-9]*/stat; do
		read -r l <"$l" || continue
		[[ ${l##*) } == ?' '[02]' '* ]] || n=$((n + 1)) # the kernel has threads as it likes
	done 2>/dev/null
	echo "$(wc -l </proc/mounts) mounts, $(find /sys/fs/cgroup -type d | wc -l) cgroups, $n processes, $(ls /proc/$server/fd | wc -l) descriptors"
}
echo secret | tee /etc/ctrfs-test.key >/root/ctrfs-test
chmod 600 /etc/ctrfs-test.key
for k in $kinds; do
	m=/n/$k c=/n/$k/ctr/web
	run() { # WHAT WANT COMMAND...: its output
		put $c/args "${@:3}"
		put $c/ctl start
		holds "$k: $1" $c/stdout "$2"
		get $c/wait
	}
	mkdir $c
	holds "$k: new" $c/status 'new*'
	put $c/ctl exec sh -c "'echo hello; exit 3'"
	holds "$k: stdout" $c/stdout hello
	holds "$k: wait" $c/wait "*exit: 3*"
	holds "$k: wait again" $c/wait "*exit: 3*"
	holds "$k: exitstatus" $c/exitstatus 3
	holds "$k: stopped" $c/status 'stopped*'
	run 'pid 1' 1 sh -c "'echo \$\$'"
	run hostname web uname -n
	run interfaces '*( )lo' sh -c "'tail -n +3 /proc/net/dev | cut -d: -f1'"
	run 'keys of the host' '' sh -c "'cat /etc/ctrfs-test.key /root/ctrfs-test /run/ctrfs/* 2>/dev/null'"

	put $c/args sleep 1000
	put $c/ctl start
	holds "$k: running" $c/status 'running*'
	ok "$k: pid" eval 'get $c/pid && [ -e /proc/$REPLY ]'
	refused "$k: start of what runs" . put $c/ctl start
	why "$k: and why" 'cannot start a running container'
	exec 3<>$c/proc/clone
	read -r p <&3
	printf '%s\n' "exec sh -c 'uname -n; exit 5'" >&3
	holds "$k: a process in it" $c/proc/"$p"/stdout web
	holds "$k: its end" $c/proc/"$p"/wait "*exit: 5*"
	exec 3>&-
	refused "$k: rmdir of what runs" . rmdir $c
	cat $c/wait >/tmp/wait &
	put $c/ctl kill
	wait $!
	holds "$k: kill" /tmp/wait "*'signal: KILL'*"
	holds "$k: exitstatus of a kill" $c/exitstatus 137
	put $c/ctl start
	cat $c/wait >/tmp/wait &
	put $c/ctl stop 1
	wait $!
	holds "$k: stop" /tmp/wait "*'signal: @(TERM|KILL)'*"
	ok "$k: rmdir" rmdir $c
	[ -n "${before-}" ] || before=$(count) # the first run may leave what every one needs
	try eval '[ "$(count)" = "$before" ]'
	is "$k: nothing is left behind" "$(count)" "$before"
done
