/* bare N PROGRAM [GROUP]: N times clone(2) with the namespaces of a container, execve, wait; prints ns each. With GROUP, a
   directory of cgroup version 2, that group is made each time, the process is born in it, and it is removed. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int n = atoi(argv[1]);
	long flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP;
	const char *group = argc > 3 ? argv[3] : NULL;
	char *arg[] = {argv[2], NULL}, *env[] = {NULL};
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < n; i++) {
		struct clone_args how = { .flags = flags, .exit_signal = SIGCHLD };
		if (group) {
			int fd = mkdir(group, 0755) < 0 ? -1 : open(group, O_DIRECTORY | O_CLOEXEC);
			if (fd < 0) {
				perror(group);
				return 1;
			}
			how.flags |= CLONE_INTO_CGROUP;
			how.cgroup = fd;
		}
		long pid = syscall(SYS_clone3, &how, sizeof how);
		if (pid < 0) {
			perror("clone");
			return 1;
		}
		if (pid == 0) {
			execve(argv[2], arg, env);
			_exit(127);
		}
		int status;
		if (waitpid(pid, &status, 0) < 0 || status != 0) {
			fprintf(stderr, "status %#x\n", status);
			return 1;
		}
		if (group && (close(how.cgroup) < 0 || rmdir(group) < 0)) {
			perror(group);
			return 1;
		}
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%lld\n", ((b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec) / n);
	return 0;
}
