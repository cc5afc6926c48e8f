// A program at work, to be changed by pctl: work KIND. It says "ready" and from then on answers each line that it reads with
// "right" if all that it does has gone on since the last one and has come out right. Descriptor 9 is there to be closed.
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static volatile uint64_t done[4]; // how often each has come around
static const char *volatile wrong;

static void say(const char *s) { if (write(1, s, strlen(s)) < 0) _exit(9); }

// count counts in registers, sum over memory.
static void count(void)
{
	uint64_t a = 1, b = 2, c = 3, d = 5, e = 7, f = 11;
	for (uint64_t i = 0; i < 1000; i++) {
		a += b ^ i; b = (b << 7 | b >> 57) + c; c ^= d * 31; d += e; e = e * 2862933555777941757ULL + f; f ^= a >> 3;
	}
	static uint64_t first;
	uint64_t x = a ^ b ^ c ^ d ^ e ^ f;
	if (!first) first = x;
	if (x != first) wrong = "count";
	done[0]++;
}

static unsigned char memory[4096];

static void sum(void)
{
	static unsigned first;
	unsigned s = 1;
	double x = 0;
	for (unsigned i = 0; i < sizeof memory; i++) { s = s * 31 + memory[i]; x += memory[i] * 0.5; }
	s ^= (unsigned)x;
	if (!first) first = s;
	if (s != first) wrong = "sum";
	done[1]++;
}

static void nap(void)
{
	struct timespec a, b, ms = {0, 1000000};
	clock_gettime(CLOCK_MONOTONIC, &a);
	if (nanosleep(&ms, 0)) wrong = "sleep";
	clock_gettime(CLOCK_MONOTONIC, &b);
	if ((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec < 1000000) wrong = "clock";
	done[2]++;
}

// An echo service at the abstract address work-PID.
static struct pollfd fds[8] = {{-1, POLLIN}, {-1, POLLIN}};
static int nfds = 2;

static void listen_(void)
{
	struct sockaddr_un a = {AF_UNIX};
	int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "work-%d", getpid());
	int s = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(s, (void *)&a, offsetof(struct sockaddr_un, sun_path) + 1 + n) || listen(s, 5)) _exit(8);
	fds[1].fd = s;
}

static void serve(int timeout)
{
	char b[64];
	if (poll(fds, nfds, timeout) < 0) wrong = "poll";
	if (fds[1].revents && nfds < 8) fds[nfds++] = (struct pollfd){accept(fds[1].fd, 0, 0), POLLIN};
	for (int i = 2; i < nfds; i++)
		if (fds[i].revents) {
			ssize_t n = read(fds[i].fd, b, sizeof b);
			if (n > 0 && write(fds[i].fd, b, n) != n) wrong = "echo";
			if (n <= 0) { close(fds[i].fd); fds[i] = fds[--nfds]; break; }
		}
	done[3]++;
}

static void *forever(void *what)
{
	for (;;)
		switch ((long)what) {
		case 0: count(); break;
		case 1: sum(); break;
		case 2: nap(); break;
		case 3: serve(1); break;
		}
	return 0;
}

static int filter(void)
{
	static const int calls[] = {SYS_read, SYS_write, SYS_exit, SYS_exit_group, SYS_restart_syscall, SYS_rt_sigreturn};
	struct sock_filter f[14] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
	int n = 1;
	for (int i = 0; i < 6; i++) {
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	struct sock_fprog p = {n, f};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p);
}

// answer says how it is going, once all that is wanted has come around again.
static void answer(unsigned want)
{
	uint64_t before[4];
	memcpy(before, (void *)done, sizeof before);
	for (int i = 0; i < 4; i++)
		while (want & 1 << i && done[i] == before[i])
			sched_yield();
	say(wrong ? "WRONG\n" : "right\n");
}

// mover goes to /tmp when it gets SIGUSR1, and ends with its parent.
static int mover(void *sigs)
{
	int sig;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		if (sigwait(sigs, &sig) || chdir("/tmp"))
			_exit(1);
		say("moved\n");
	}
}

int main(int argc, char **argv)
{
	const char *kind = argv[1];
	char b[64];
	ssize_t n;
	long only = !strcmp(kind, "count") ? 0 : !strcmp(kind, "sum") ? 1 : !strcmp(kind, "sleep") ? 2 : !strcmp(kind, "serve") ? 3 : -1;

	for (unsigned i = 0; i < sizeof memory; i++)
		memory[i] = i * 7;
	dup2(0, 9);
	if (only == 3 || !strcmp(kind, "threads"))
		listen_();
	if (!strcmp(kind, "threads")) {
		pthread_t t;
		for (long i = 0; i < 4; i++)
			if (pthread_create(&t, 0, forever, (void *)i)) return 7;
	} else if (!strcmp(kind, "share")) { // another process has the same descriptors and the same directory
		static sigset_t usr1;
		sigaddset(&usr1, SIGUSR1);
		sigprocmask(SIG_BLOCK, &usr1, 0);
		snprintf(b, sizeof b, "%d\n", clone(mover, malloc(65536) + 65536, CLONE_FILES | CLONE_FS | SIGCHLD, &usr1));
		say(b);
	}
	say("ready\n");
	if (!strcmp(kind, "filter") && filter())
		return 6;
	if (only >= 0) { // all by one thread
		fds[0].fd = 0;
		for (;;) {
			if (only == 3) {
				serve(-1);
				if (!fds[0].revents) continue;
			} else {
				if (only == 0) count(); else if (only == 1) sum(); else nap();
				if (poll(fds, 1, 0) <= 0) continue;
			}
			if ((n = read(0, b, sizeof b)) <= 0) return n < 0;
			say(wrong ? "WRONG\n" : "right\n");
		}
	}
	if (!strcmp(kind, "vfork")) { // answers when its child has ended
		if (!vfork()) { if (read(0, b, 1) < 0) _exit(1); _exit(0); }
		say("right\n");
	}
	while ((n = read(0, b, sizeof b)) > 0)
		answer(!strcmp(kind, "threads") ? 15 : 0);
	if (n < 0)
		return 5;
	syscall(SYS_exit_group, 0);
}
