// pingpong measures a unix socket between two processes: 23 bytes there, 100 bytes back, as a small Tread and its
// Rread. usage: pingpong ROUNDS WINDOW; it prints the ns of a round trip. With a window of more than one, that many
// requests are under way, and both ends take and give as many at once as there are.
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REQ = 23, REP = 100, MAX = 64 };
static char buf[MAX * REP];

static void give(int fd, long n) {
	for (char *p = buf; n > 0;) {
		long m = write(fd, p, n);
		if (m <= 0)
			exit(1);
		p += m;
		n -= m;
	}
}

// take reads whole units and says how many.
static long take(int fd, long unit) {
	static long have; // bytes of a unit begun
	long n = read(fd, buf, sizeof buf - have);
	if (n <= 0)
		exit(n < 0);
	have += n;
	n = have / unit;
	have %= unit;
	return n;
}

int main(int argc, char **argv) {
	long rounds = argc > 2 ? atol(argv[1]) : 0, window = argc > 2 ? atol(argv[2]) : 0;
	int s[2];
	struct timespec a, b;
	if (rounds < 1 || window < 1 || window > MAX || socketpair(AF_UNIX, SOCK_STREAM, 0, s) < 0)
		return 2;
	if (fork() == 0) {
		close(s[0]);
		for (;;)
			give(s[1], take(s[1], REQ) * REP);
	}
	close(s[1]);
	clock_gettime(CLOCK_MONOTONIC, &a);
	give(s[0], window * REQ);
	for (long sent = window, got = 0; got < rounds;) {
		long n = take(s[0], REP), more = n;
		got += n;
		if (more > rounds - sent)
			more = rounds - sent;
		give(s[0], more * REQ);
		sent += more;
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.1f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / rounds);
	return 0;
}
