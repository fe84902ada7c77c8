/*
 * floor: what supervision costs when nothing but spawning, waiting and spawning again is done.
 * No state, no socket, no logs, no gate: the figure that the others are divided by.
 *
 *   floor run N BEACON FIFO   N services, replaced when they die; SIGTERM stops all, then leaves
 *   floor lap TIMES CMD...    runs CMD so often, output to /dev/null; prints the ns of each
 *   floor connect SOCKET      connects and leaves: what any client of a daemon pays at least
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BUCKETS = 8192 };

struct service {
	pid_t pid;
	int next; /* in its bucket; -1 ends it */
	char index[12];
};

static struct service *services;
static int bucket[BUCKETS];
static sigset_t watched;
static char *beacon, *fifo;

static void spawn(int i)
{
	struct service *s = &services[i];
	char *argv[] = { beacon, fifo, s->index, NULL };

	s->pid = vfork();
	if (s->pid == 0) {
		sigprocmask(SIG_UNBLOCK, &watched, NULL);
		execv(beacon, argv);
		_exit(127);
	}
	if (s->pid < 0) {
		perror("floor: vfork");
		exit(1);
	}
	s->next = bucket[s->pid % BUCKETS];
	bucket[s->pid % BUCKETS] = i;
}

/* Takes the service of this pid out of its bucket: a dead pid may come back as another's. */
static int take(pid_t pid)
{
	int *at = &bucket[pid % BUCKETS], i;

	while (*at >= 0 && services[*at].pid != pid)
		at = &services[*at].next;
	i = *at;
	if (i >= 0)
		*at = services[i].next;
	return i;
}

static int run(int count)
{
	int i, live = count, stopping = 0, status;
	siginfo_t info;
	pid_t pid;

	services = calloc((size_t)count + 1, sizeof *services);
	if (!services)
		return 1;
	memset(bucket, -1, sizeof bucket);
	sigemptyset(&watched);
	sigaddset(&watched, SIGCHLD);
	sigaddset(&watched, SIGTERM);
	sigprocmask(SIG_BLOCK, &watched, NULL);
	for (i = 0; i < count; i++) {
		snprintf(services[i].index, sizeof services[i].index, "%d", i);
		spawn(i);
	}
	while (!stopping || live) {
		if (sigwaitinfo(&watched, &info) == SIGTERM) {
			stopping = 1;
			for (i = 0; i < count; i++)
				kill(services[i].pid, SIGTERM);
		}
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
			i = take(pid);
			if (i >= 0 && stopping)
				live--;
			else if (i >= 0)
				spawn(i);
		}
	}
	return 0;
}

static long long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Apart from lap(), whose variables a vfork child could clobber. */
static int once(char **argv, int null)
{
	int status = -1;
	pid_t pid = vfork();

	if (pid == 0) {
		dup2(null, 1);
		execvp(argv[0], argv);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) < 0 ? -1 : status;
}

static int lap(int times, char **argv)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), status;
	long long start;

	while (times-- > 0) {
		start = now();
		status = once(argv, null);
		printf("%lld\n", now() - start);
		if (status != 0) {
			fprintf(stderr, "floor: %s: wait status %d\n", argv[0], status);
			return 1;
		}
	}
	return 0;
}

static int greet(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof address.sun_path)
		return 1;
	strcpy(address.sun_path, path);
	return connect(fd, (struct sockaddr *)&address, sizeof address) != 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && !strcmp(argv[1], "run")) {
		beacon = argv[3];
		fifo = argv[4];
		return run(atoi(argv[2]));
	}
	if (argc >= 4 && !strcmp(argv[1], "lap"))
		return lap(atoi(argv[2]), argv + 3);
	if (argc == 3 && !strcmp(argv[1], "connect"))
		return greet(argv[2]);
	fprintf(stderr, "usage: floor run N BEACON FIFO | lap TIMES CMD... | connect SOCKET\n");
	return 2;
}
