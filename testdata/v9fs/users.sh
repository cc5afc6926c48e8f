#!/bin/bash
# Who may: two users of one mount, and those whom nobody knows.
. "${0%/*}/prelude"
serve
m=/n/L
sleep 1000 &
root=$!
setpriv --reuid=1000 --regid=1000 --clear-groups sleep 1000 &
user=$!
try eval '[ "$(stat -c %u /proc/$user)" = 1000 ]'

is 'a user reads what all may' "$(as 1000 cat $m/proc/$root/args)" 'sleep 1000'
ok 'a user reads his own' as 1000 cat $m/proc/$user/env
refused 'a user reads what is root'"'"'s' denied as 1000 cat $m/proc/$root/env
refused 'another user reads what is his' denied as 1001 cat $m/proc/$user/env
ok 'root reads what is his' cat $m/proc/$user/env
refused 'a user writes /ctl' denied as 1000 sh -c "echo log info >$m/ctl"
refused 'a user makes a container' denied as 1000 mkdir $m/ctr/users
refused 'a user kills root'"'"'s' denied as 1000 sh -c "echo kill >$m/proc/$root/ctl"
ok 'which lives' kill -0 $root
refused 'another user kills his' denied as 1001 sh -c "echo kill >$m/proc/$user/ctl"
ok 'which lives, too' kill -0 $user
as 1000 sh -c "echo frob >$m/proc/$user/ctl" 2>/dev/null
is 'a user sees his errors' "$(as 1000 cat $m/error)" '*frob*'
ok 'another user does not' eval '! as 1001 cat $m/error | grep -q frob'
ok 'nor does root' eval '! grep -q frob $m/error'
is 'what a user starts is his' "$(as 1000 bash -c "exec 3<>$m/proc/clone; read -r p <&3; grep ^user $m/proc/\$p/status; stat -c %u $m/proc/\$p/ctl")" $'user *\n1000'
ok 'a user kills his own' as 1000 sh -c "echo kill >$m/proc/$user/ctl"
wait $user
is 'which died of it' $? 137

attach L /n/any access=any
ok 'access=any reads' as 1000 cat /n/any/version
for o in uname=nobody uname=nosuchuser; do
	mkdir -p /n/none
	mount -t 9p -o trans=unix,version=9p2000,cache=none,$o $sock /n/none
	ok "$o reads" cat /n/none/version
	refused "$o writes" denied put /n/none/ctl log info
	refused "$o clones" denied cat /n/none/proc/clone
	umount /n/none
done

ok 'TCP reads' cat /n/T/version
refused 'TCP does not read args' denied cat /n/T/proc/$root/args
refused 'TCP does not clone' denied cat /n/T/proc/clone
refused 'TCP makes no container' denied mkdir /n/T/ctr/tcp
for f in /n/T/ctl /n/T/proc/$root/ctl; do
	refused "TCP does not write ${f#/n/T/}" denied put "$f" log info
	refused "TCP does not append to ${f#/n/T/}" denied add "$f" log info
done
ok 'which killed nobody' kill -0 $root
