#!/bin/bash
# readme.sh DIR: the README's ten examples as they stand there, typed one after the other by somebody who has ctrfs mounted
# on DIR, with $PID, a process of his, and $ROOT, a root directory. Says what is not as beside it in readme.out.
set -eu
here=$(dirname "$(readlink -f "$0")")
ROOT=$(mktemp -d)
mkdir "$ROOT"/{bin,proc,sys,dev}
cp "$(command -v busybox)" "$ROOT/bin/busybox"
ln -s busybox "$ROOT/bin/sleep"
ln -s busybox "$ROOT/bin/hostname"
sleep 1000 &
PID=$!
trap 'kill $PID 2>/dev/null || :; rm -r "$ROOT"' EXIT

n=0 on= script=
while IFS= read -r line; do
	case $line in
	'## Ten examples') on=1 ;;
	[0-9]*.' '*) [ -z "$on" ] || script+=$'echo "#"'$((++n))$'\n' ;;
	'       '*)
		[ "$on" ] || continue
		line=${line#       } line=${line//"/n/ctrfs"/$1}
		[ $n != 10 ] || line=${line/%ctl/ctl || :} # what it is to show is a failure
		script+=$line$'\n'
		;;
	esac
done <"$here/../README.md"
[ $n = 10 ] || { echo "$n examples"; exit 1; }

export ROOT PID
got=$(bash -ec "$script" 2>"$ROOT/stderr") || { echo "status $?"; cat "$ROOT/stderr"; }
want=$(cat "$here/readme.out")
# Where the kernel tells by no pidfd and no connector how a process ended, only who looked before its parent knows.
case $UID:$(<"$1/version") in
0:*'using pidfd-info'* | 0:*'using proc-connector'*) ;;
*) want=${want//"'signal: TERM'"/"@('signal: TERM'|unknown)"} ;;
esac
[[ $got == $want ]] || { printf '%s\n' 'got:' "$got" 'want:' "$want"; exit 1; }
