/* enter N PROGRAM PID CGROUP.PROCS: N times fork, enter the group and all name spaces of a process, fork, execve, wait;
 * prints ns each. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int n = atoi(argv[1]), status;
	char *arg[] = {argv[2], NULL}, *env[] = {NULL};
	int first = syscall(SYS_pidfd_open, atoi(argv[3]), 0), group = open(argv[4], O_WRONLY | O_CLOEXEC);
	struct timespec a, b;

	if (first < 0 || group < 0) {
		perror("open");
		return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < n; i++) {
		pid_t pid = fork();
		if (pid == 0) {
			if (write(group, "0", 1) != 1 || setns(first, CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP))
				_exit(1);
			pid = fork();
			if (pid == 0) {
				execve(argv[2], arg, env);
				_exit(127);
			}
			_exit(pid < 0 || waitpid(pid, &status, 0) != pid || status != 0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
			fprintf(stderr, "status %#x\n", status);
			return 1;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%lld\n", ((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec) / n);
	return 0;
}
