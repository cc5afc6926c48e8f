#!/bin/bash
# Containers below a pure cgroup version 2: what holds them, stops them and counts what they use. By one mount: the old dialect
# gives no line of an output before there is as much as was asked for.
. "${0%/*}/prelude"
serve
get /sys/fs/cgroup/cgroup.controllers
controllers=" $REPLY "
k=L
m=/n/$k c=/n/$k/ctr/web
mkdir $c
put $c/labels tier "'front end'"
holds "$k: labels" $c/labels "tier 'front end'"
put $c/args sh -c "'trap \"echo usr1\" USR1; echo up; while :; do sleep 1000 & wait; done'"
if [[ $controllers == *' pids '* ]]; then
	put $c/limits pids.max 20
	holds "$k: a limit, new" $c/limits '*pids.max 20*'
	refused "$k: one that the kernel does not take" . put $c/limits pids.max much
	why "$k: and why" 'pids.max: bad value: "much"'
fi
put $c/ctl start
exec 3<$c/stdout
read -r -u 3
is "$k: it runs" "$REPLY" up
put $c/ctl pause
holds "$k: paused" $c/status 'paused*'
holds "$k: stat of what is paused" $c/stat '*nr_onhold [12]*'
refused "$k: pause of what is paused" . put $c/ctl pause
why "$k: and why" 'cannot pause a paused container'
refused "$k: a process in it" . eval ': <>$c/proc/clone'
why "$k: and why" 'cannot clone in a paused container'
put $c/ctl kill USR1
holds "$k: a signal waits" $c/status 'paused*'
put $c/ctl resume
read -r -u 3
is "$k: until it goes on" "$REPLY" usr1
exec 3<&-
holds "$k: stats" $c/stats 'processes [23]*cpu.usage_usec *net.lo.rx_bytes 0*'
[[ $controllers != *' pids '* ]] || holds "$k: what the controller counts" $c/stats '*pids.current [23]*'
put $c/ctl pause
put $c/ctl kill
holds "$k: its end" $c/wait "*'signal: KILL'*"
# That memory is full is not tried here: the kernel's word on it looks like a fault of its own.
if [[ $controllers == *' memory '* ]]; then
	put $c/limits memory.max 24M
	put $c/ctl start
	holds "$k: the next run has the new limit" $c/limits '*memory.max 25165824*pids.max 20*'
	holds "$k: and its memory is counted" $c/stats '*memory.current [1-9]*memory.anon *'
	put $c/ctl kill
	holds "$k: its end too" $c/wait "*'signal: KILL'*"
fi
ok "$k: rmdir" rmdir $c
