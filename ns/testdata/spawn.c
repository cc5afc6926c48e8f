/* spawn N PROGRAM: N times posix_spawn(3) and wait; prints ns of a start, and ns to the end, each. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	int n = atoi(argv[1]), status;
	char *arg[] = {argv[2], NULL}, *env[] = {NULL};
	long long start = 0, whole = 0;

	for (int i = 0; i < n; i++) {
		pid_t pid;
		long long t = now();
		if (posix_spawn(&pid, argv[2], NULL, NULL, arg, env))
			return 1;
		start += now() - t;
		if (waitpid(pid, &status, 0) != pid || status)
			return 1;
		whole += now() - t;
	}
	printf("%lld %lld\n", start / n, whole / n);
	return 0;
}
