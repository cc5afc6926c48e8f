# For mk of plan9port or of Debian's 9base (/usr/lib/plan9/bin/mk).
DESTDIR=
PREFIX=/usr/local

all:VQ:
	CGO_ENABLED=0 go build -trimpath -o ctrfs ./cmd/ctrfs

vet:VQ:
	go vet ./...

test:VQ:
	go test ./...

race:VQ:
	go test -race -skip '^TestGuest$' ./...

# Some minutes: 200 servers killed among programs, and as many among 100 containers.
kills:VQ:
	CTRFS_KILLS=200 go test -v -run '^TestServerKilled.*AtRandom$' ./cmd/ctrfs

fuzz:VQ:
	go list ./... | while read p; do go test -list '^Fuzz' $p | grep '^Fuzz' | while read t; do go test -run '^$' -fuzz "^$t\$" -fuzztime 10s $p || exit; done || exit; done

bench:VQ:
	go test -run '^$' -bench . ./...

man:VQ:
	for f in cmd/ctrfs/*.[1-9]; do man -l $f; done

install:VQ: all
	install -D ctrfs $DESTDIR$PREFIX/bin/ctrfs
	for f in cmd/ctrfs/*.[1-9]; do install -D -m 644 $f $DESTDIR$PREFIX/share/man/man${f##*.}/${f##*/}; done
