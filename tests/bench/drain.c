/*
 * drain: a server on the socket that it inherits (descriptor 3), one request at a time. TERM lets
 * it answer what it has accepted, and go.
 *
 *   drain               a request, an answer, the end of the connection
 *   drain ask PORT      the other side: asks until TERM, and counts what becomes of it; prints
 *                       answered, refused, reset, closed without an answer, none after 30 s, and
 *                       the longest wait in ms
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t over;

static void note(int sig)
{
	(void)sig;
	over = 1;
}

/* Reads up to `end`; what came before the other side closed, or -1. */
static ssize_t until(int fd, const char *end)
{
	char text[4096];
	ssize_t length = 0, more;

	text[0] = 0;
	do {
		more = read(fd, text + length, sizeof text - 1 - length);
		if (more <= 0)
			return more < 0 ? -1 : length;
		length += more;
		text[length] = 0;
	} while (!end || !strstr(text, end));
	return length;
}

static void serve(void)
{
	struct pollfd held = { 3, POLLIN, 0 };
	sigset_t none;
	char answer[128];
	int fd;

	sigemptyset(&none);
	/* Others wait on it too, and only one of them gets what comes. */
	fcntl(3, F_SETFL, O_NONBLOCK);
	while (!over) {
		/* TERM comes while it waits, and never between accept and answer. */
		if (ppoll(&held, 1, NULL, &none) < 1)
			continue;
		fd = accept4(3, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			continue;
		if (until(fd, "\r\n\r\n") > 0) {
			snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nConnection: close\r\n"
				"Content-Length: 9\r\n\r\n%08d\n", getpid());
			if (write(fd, answer, strlen(answer)) < 0)
				perror("drain: write");
		}
		close(fd);
	}
}

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void ask(int port)
{
	static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct timeval patience = { .tv_sec = 30 };
	sigset_t come;
	long answered = 0, refused = 0, reset = 0, empty = 0, late = 0, longest = 0, began;
	ssize_t length;
	int fd;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	while (!sigpending(&come) && !sigismember(&come, SIGTERM)) {
		began = now_ms();
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
		length = -1;
		if (!connect(fd, (struct sockaddr *)&to, sizeof to)
		    && write(fd, request, sizeof request - 1) > 0)
			length = until(fd, NULL);
		if (length > 0)
			answered++;
		else if (length == 0)
			empty++;
		else if (errno == ECONNREFUSED)
			refused++;
		else if (errno == EAGAIN || errno == EINPROGRESS || errno == ETIMEDOUT)
			late++;
		else
			reset++;
		close(fd);
		began = now_ms() - began;
		longest = began > longest ? began : longest;
	}
	printf("%ld %ld %ld %ld %ld %ld\n", answered, refused, reset, empty, late, longest);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = note };
	sigset_t term;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	sigaction(SIGTERM, &action, NULL);
	signal(SIGPIPE, SIG_IGN);
	if (argc > 2 && !strcmp(argv[1], "ask"))
		ask(atoi(argv[2]));
	else
		serve();
	return 0;
}
