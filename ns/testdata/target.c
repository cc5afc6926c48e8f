// A process for pctl to change: target MODE. It says "ready", does what the mode says, and says "done" with its result
// and a sum over memory and registers that must not have changed.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
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
#include <sys/epoll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static unsigned char memory[65536];
static volatile sig_atomic_t caught;

static void on(int sig) { caught++; }

// mix needs many registers and is wrong if any of them is lost.
static uint64_t mix(uint64_t n)
{
	uint64_t a = 1, b = 2, c = 3, d = 5, e = 7, f = 11;
	double x = 1.5, y = 0.25;
	for (uint64_t i = 0; i < n; i++) {
		a += b ^ i; b = (b << 7 | b >> 57) + c; c ^= d * 31; d += e; e = e * 2862933555777941757ULL + f; f ^= a >> 3;
		x = x * 0.9999 + y; y = y * 1.0001;
		if (y > 10) y = 0.25;
	}
	return a ^ b ^ c ^ d ^ e ^ f ^ (uint64_t)(x * 1000) ^ (uint64_t)(y * 1000);
}

static void say(const char *s) { if (write(1, s, strlen(s)) < 0) _exit(9); }

static long work(const char *mode)
{
	char c = 0;
	long r = -1;
	int sv[2];
	uint32_t *word = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct timespec ts = {3, 0}; // longer than a verb takes on a busy machine, with the race detector

	if (!strcmp(mode, "read")) {
		say("ready\n");
		r = read(0, &c, 1);
	} else if (!strcmp(mode, "poll")) {
		struct pollfd p = {0, POLLIN};
		say("ready\n");
		r = poll(&p, 1, 60000);
	} else if (!strcmp(mode, "select")) {
		fd_set s;
		struct timeval tv = {60, 0};
		FD_ZERO(&s); FD_SET(0, &s);
		say("ready\n");
		r = select(1, &s, 0, 0, &tv);
	} else if (!strcmp(mode, "epoll")) {
		struct epoll_event ev = {EPOLLIN};
		int e = epoll_create1(0);
		epoll_ctl(e, EPOLL_CTL_ADD, 0, &ev);
		say("ready\n");
		r = epoll_wait(e, &ev, 1, 60000);
	} else if (!strcmp(mode, "sleep")) {
		struct timespec a, b;
		clock_gettime(CLOCK_MONOTONIC, &a);
		say("ready\n");
		r = nanosleep(&ts, 0);
		clock_gettime(CLOCK_MONOTONIC, &b);
		if ((b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000 < 2999)
			r = -2;
		else
			r++;
	} else if (!strcmp(mode, "sigtimedwait")) {
		sigset_t s;
		struct timespec long_ = {60, 0};
		sigemptyset(&s); sigaddset(&s, SIGUSR1);
		sigprocmask(SIG_BLOCK, &s, 0);
		if (!fork()) { if (read(0, &c, 1) == 1) kill(getppid(), SIGUSR1); _exit(0); }
		say("ready\n");
		r = sigtimedwait(&s, 0, &long_) == SIGUSR1;
	} else if (!strcmp(mode, "pause")) {
		signal(SIGUSR1, on);
		if (!fork()) { if (read(0, &c, 1) == 1) kill(getppid(), SIGUSR1); _exit(0); }
		say("ready\n");
		r = pause() == -1 && errno == EINTR && caught == 1;
	} else if (!strcmp(mode, "wait")) {
		int st;
		if (!fork()) { if (read(0, &c, 1) < 0) _exit(1); _exit(7); }
		say("ready\n");
		r = wait(&st) > 0 && WEXITSTATUS(st) == 7;
	} else if (!strcmp(mode, "futex")) {
		if (!fork()) { if (read(0, &c, 1) == 1) { *word = 1; syscall(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0); } _exit(0); }
		struct timespec long_ = {60, 0};
		say("ready\n");
		r = syscall(SYS_futex, word, FUTEX_WAIT, 0, &long_, 0, 0) == 0 || errno == EAGAIN; // woken before it waited again
	} else if (!strcmp(mode, "recv")) {
		struct timeval tv = {60, 0};
		socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
		setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
		if (!fork()) { if (read(0, &c, 1) == 1) r = write(sv[1], "x", 1); _exit(0); }
		say("ready\n");
		r = recv(sv[0], &c, 1, 0);
	} else if (!strcmp(mode, "semop")) {
		int id = semget(IPC_PRIVATE, 1, 0600);
		struct sembuf down = {0, -1, 0}, up = {0, 1, 0};
		if (!fork()) { if (read(0, &c, 1) == 1) semop(id, &up, 1); _exit(0); }
		say("ready\n");
		r = semop(id, &down, 1) + 1;
		semctl(id, 0, IPC_RMID);
	} else if (!strcmp(mode, "accept")) {
		struct sockaddr_un a = {AF_UNIX};
		socklen_t n = sizeof a;
		int l = socket(AF_UNIX, SOCK_STREAM, 0);
		bind(l, (void *)&a, sizeof(sa_family_t)); // to a name that the kernel chooses
		listen(l, 1);
		getsockname(l, (void *)&a, &n);
		if (!fork()) { if (read(0, &c, 1) == 1) connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, n); _exit(0); }
		say("ready\n");
		r = accept(l, 0, 0) >= 0;
	} else if (!strcmp(mode, "tty")) {
		int m = posix_openpt(O_RDWR | O_NOCTTY);
		grantpt(m); unlockpt(m);
		int s = open(ptsname(m), O_RDWR | O_NOCTTY);
		if (!fork()) { if (read(0, &c, 1) == 1 && write(m, "x\n", 2) != 2) _exit(1); _exit(0); }
		say("ready\n");
		r = read(s, &c, 1);
	} else if (!strcmp(mode, "spin")) {
		uint64_t want = mix(1000);
		fcntl(0, F_SETFL, O_NONBLOCK);
		say("ready\n");
		r = 1;
		while (read(0, &c, 1) != 1)
			if (mix(1000) != want)
				r = -3;
	} else if (!strcmp(mode, "vfork")) {
		pid_t p;
		say("ready\n");
		if (!(p = vfork())) { if (read(0, &c, 1) < 0) _exit(1); _exit(0); }
		r = p > 0;
	}
	return r;
}

static volatile uint64_t counts[16];
static pthread_barrier_t started;
static volatile int stopping;

static void *thread(void *a)
{
	long n = (long)a;
	pthread_barrier_wait(&started);
	while (!stopping) {
		counts[n]++;
		if (n % 2) { struct timespec t = {0, 1000000}; nanosleep(&t, 0); } else mix(10000);
	}
	return 0;
}

static int filter(uint32_t otherwise)
{
	static const int calls[] = {SYS_read, SYS_write, SYS_exit, SYS_exit_group, SYS_restart_syscall, SYS_rt_sigreturn};
	struct sock_filter f[3 + 2 * 6 + 1];
	int n = 0;
	f[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int i = 0; i < 6; i++) {
		f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
		f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	f[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, otherwise);
	struct sock_fprog p = {n, f};
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p);
}

int main(int argc, char **argv)
{
	const char *mode = argv[1];
	char buf[128], c;
	long r;

	for (unsigned i = 0; i < sizeof memory; i++)
		memory[i] = i * 7;
	dup2(0, 9); // for newfd to close
	if (!strcmp(mode, "threads") || !strcmp(mode, "leaderless")) {
		pthread_t t[10];
		pthread_barrier_init(&started, 0, 11);
		for (long i = 0; i < 10; i++)
			pthread_create(&t[i], 0, thread, (void *)i);
		pthread_barrier_wait(&started);
		say("ready\n");
		if (!strcmp(mode, "leaderless"))
			pthread_exit(0);
		r = read(0, &c, 1);
		uint64_t before[10];
		for (int i = 0; i < 10; i++)
			before[i] = counts[i];
		for (int i = 0; i < 10; i++)
			while (counts[i] == before[i])
				sched_yield();
		stopping = 1;
		for (int i = 0; i < 10; i++)
			pthread_join(t[i], 0);
	} else if (!strcmp(mode, "spawning")) { // threads come and go
		pthread_attr_t a;
		pthread_attr_init(&a);
		pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
		pthread_barrier_init(&started, 0, 1);
		stopping = 1;
		fcntl(0, F_SETFL, O_NONBLOCK);
		say("ready\n");
		while (read(0, &c, 1) != 1) {
			pthread_t t;
			pthread_create(&t, &a, thread, 0);
		}
		r = 1;
	} else if (!strcmp(mode, "shared")) { // another process has the same descriptors
		char *stack = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		int (*f)(void *) = (int (*)(void *))pause;
		clone(f, stack + 65536, CLONE_FILES | SIGCHLD, 0);
		say("ready\n");
		r = read(0, &c, 1);
	} else if (!strcmp(mode, "strict")) {
		say("ready\n");
		if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT))
			return 8;
		r = read(0, &c, 1);
	} else if (!strcmp(mode, "kill") || !strcmp(mode, "errno") || !strcmp(mode, "trap")) {
		say("ready\n");
		if (filter(*mode == 'k' ? SECCOMP_RET_KILL_PROCESS : *mode == 'e' ? SECCOMP_RET_ERRNO | EPERM : SECCOMP_RET_TRAP))
			return 8;
		r = read(0, &c, 1);
	} else if (!strcmp(mode, "echo")) { // answers each byte with a sum, and counts real time signals
		uint64_t want = mix(1000);
		signal(SIGRTMIN, on);
		say("ready\n");
		for (;;) {
			while ((r = read(0, &c, 1)) == 1) {
				unsigned sum = 0;
				for (unsigned i = 0; i < sizeof memory; i++)
					sum = sum * 31 + memory[i];
				int n = snprintf(buf, sizeof buf, "%s %u %d\n", mix(1000) == want ? "right" : "WRONG", sum, (int)caught);
				if (write(1, buf, n) != n)
					return 1;
			}
			if (r == 0)
				return 0;
			say("odd read\n");
		}
	} else {
		r = work(mode);
	}
	unsigned sum = 0;
	for (unsigned i = 0; i < sizeof memory; i++)
		sum = sum * 31 + memory[i];
	int e = errno;
	// Without libc's buffers: strict mode knows four calls.
	char *p = buf + sizeof buf;
	*--p = '\n';
	for (unsigned s = sum; s; s /= 10)
		*--p = '0' + s % 10;
	*--p = ' ';
	if (r == 1)
		*--p = '1';
	else
		for (unsigned u = r < 0 ? e : 900 + r; u; u /= 10)
			*--p = '0' + u % 10;
	memcpy(p -= 5, "done ", 5);
	if (write(1, p, buf + sizeof buf - p) < 0)
		return 1;
	syscall(SYS_exit, 0);
}
