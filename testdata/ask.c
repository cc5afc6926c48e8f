// Makes a system call that a container's words decide about, and says what came of it: ask CALL [ARG...]
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

static int said(const char *what, long r)
{
	if (r < 0)
		printf("%s: %s\n", what, strerror(errno));
	else
		printf("%s: %ld\n", what, r);
	return r < 0;
}

static void wide(int sig)
{
	struct utsname u;
	(void)sig;
	uname(&u);
	puts(u.release);
	_exit(0);
}

// narrow is uname(2) as a 32-bit program calls it, where the kernel runs such.
static int narrow(void)
{
#ifdef __x86_64__
	struct utsname *u = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	long r;
	signal(SIGSEGV, wide);
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(122), "b"(u) : "memory");
	if (r == 0)
		return puts(u->release) < 0;
	errno = -r;
	return said("uname", -1);
#endif
	wide(0);
	return 1;
}

int main(int argc, char **argv)
{
	const char *call = argc > 1 ? argv[1] : "";
	long n = argc > 2 ? strtol(argv[2], 0, 0) : 0;
	struct rlimit l;
	struct sysinfo i;
	char b[100];

	setvbuf(stdout, 0, _IOLBF, 0);
	if (!strcmp(call, "narrow"))
		return narrow();
	if (!strcmp(call, "wrong")) // where nothing can be written
		return said("uname", syscall(SYS_uname, argv[0] - (long)argv[0] + 8));
	if (!strcmp(call, "sethostname"))
		return said(call, sethostname(argv[2], strlen(argv[2])));
	if (!strcmp(call, "setdomainname"))
		return said(call, setdomainname(argv[2], strlen(argv[2])));
	if (!strcmp(call, "syslog"))
		return said(call, klogctl(3, b, sizeof b));
	if (!strcmp(call, "rlimit")) {
		if (getrlimit(RLIMIT_CORE, &l))
			return said("getrlimit", -1);
		l.rlim_cur = l.rlim_max = n;
		return said(call, setrlimit(RLIMIT_CORE, &l));
	}
	if (!strcmp(call, "nice")) {
		said(call, setpriority(PRIO_PROCESS, 0, n));
		errno = 0;
		return said("is", getpriority(PRIO_PROCESS, 0) + 100);
	}
	if (!strcmp(call, "reboot"))
		return said(call, reboot(n));
	if (!strcmp(call, "mount"))
		return said(call, mount(argv[2], argv[3], argv[4], strtoul(argv[5], 0, 0), argc > 6 ? argv[6] : 0));
	if (!strcmp(call, "umount"))
		return said(call, umount2(argv[2], 0));
	if (!strcmp(call, "quota"))
		return said(call, syscall(443, 0, 0x80000100, 0, 0)); // quotactl_fd: sync
	if (!strcmp(call, "listmount")) {
		struct { unsigned size, spare; unsigned long long id, param; } req = {24, 0, ~0ULL, 0};
		unsigned long long ids[8];
		return said(call, syscall(458, &req, ids, 8, 0));
	}
	if (!strcmp(call, "unshare"))
		return said(call, unshare(n));
	if (!strcmp(call, "ping"))
		return said(call, socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP) < 0 ? -1 : 0);
	if (!strcmp(call, "raw"))
		return said(call, socket(AF_INET, SOCK_RAW, IPPROTO_ICMP) < 0 ? -1 : 0);
	if (!strcmp(call, "sysinfo")) {
		if (sysinfo(&i))
			return said(call, -1);
		return printf("%lu kB of %lu kB\n", i.freeram * i.mem_unit / 1024, i.totalram * i.mem_unit / 1024) < 0;
	}
	if (!strcmp(call, "fill")) { // takes memory, then tries to make a process until it cannot, or has tried for ever
		volatile char *m = malloc(n);
		for (long k = 0; k < n; k += 4096)
			m[k] = 1;
		puts("full");
		for (;;) {
			pid_t p = fork();
			if (p < 0)
				return said("fork", -1);
			if (p == 0)
				_exit(0);
			waitpid(p, 0, 0);
		}
	}
	return 9;
}
