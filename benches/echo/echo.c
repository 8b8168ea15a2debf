/* The least that an echo server with a credential check can be, in four shapes:
 *
 *   thread   one thread accepts and starts a thread for each connection
 *   pool     so many threads, all in accept, one connection each at a time
 *   handoff  one thread accepts and hands connections to so many others
 *   epoll    so many threads, each with many connections
 *
 *   echo SHAPE SOCKET THREADS
 *
 * It admits its own user, by SO_PEERCRED of the accepted socket. It bounds
 * nothing, times nothing, reports nothing and stands behind no wall: what it
 * does faster than the daemon is the price of those. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BUFFER = 4096, EVENTS = 256, WAITING = 4096, STACK = 256 << 10 };

static int listener;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int is_own_user(int fd)
{
	struct ucred peer;
	socklen_t size = sizeof peer;
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
	       peer.uid == geteuid();
}

static void serve(int fd)
{
	char buffer[BUFFER];
	ssize_t n;
	if (is_own_user(fd))
		while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0)
			for (ssize_t sent = 0, m; sent < n; sent += m)
				if ((m = send(fd, buffer + sent, n - sent, MSG_NOSIGNAL)) <= 0)
					goto end;
end:
	close(fd);
}

static void start(void *(*body)(void *), void *argument)
{
	pthread_t thread;
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, STACK);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&thread, &attributes, body, argument))
		die("pthread_create");
	pthread_attr_destroy(&attributes);
}

static int accept_one(void)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (errno != EINTR && errno != ECONNABORTED)
			die("accept4");
	}
}

static void *one_connection(void *fd)
{
	serve((int)(long)fd);
	return NULL;
}

static void *worker(void *unused)
{
	for (;;)
		serve(accept_one());
	return unused;
}

static struct {
	pthread_mutex_t lock;
	pthread_cond_t came, left;
	int fds[WAITING], first, count;
} queue = { .lock = PTHREAD_MUTEX_INITIALIZER,
	    .came = PTHREAD_COND_INITIALIZER,
	    .left = PTHREAD_COND_INITIALIZER };

static void *taker(void *unused)
{
	for (;;) {
		pthread_mutex_lock(&queue.lock);
		while (queue.count == 0)
			pthread_cond_wait(&queue.came, &queue.lock);
		int fd = queue.fds[queue.first];
		queue.first = (queue.first + 1) % WAITING;
		queue.count--;
		pthread_cond_signal(&queue.left);
		pthread_mutex_unlock(&queue.lock);
		serve(fd);
	}
	return unused;
}

static void hand_over(int fd)
{
	pthread_mutex_lock(&queue.lock);
	while (queue.count == WAITING)
		pthread_cond_wait(&queue.left, &queue.lock);
	queue.fds[(queue.first + queue.count++) % WAITING] = fd;
	pthread_cond_signal(&queue.came);
	pthread_mutex_unlock(&queue.lock);
}

/* A peer that does not take its answer is closed: no queue, no second wait. */
static void on_ready(int fd, char *buffer)
{
	ssize_t n = recv(fd, buffer, BUFFER, MSG_DONTWAIT);
	if (n > 0 && send(fd, buffer, n, MSG_NOSIGNAL | MSG_DONTWAIT) == n)
		return;
	if (n < 0 && errno == EAGAIN)
		return;
	close(fd);
}

static void on_newcomer(int epoll)
{
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	if (!is_own_user(fd) || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		close(fd);
}

static void *loop(void *unused)
{
	static __thread char buffer[BUFFER];
	struct epoll_event events[EVENTS];
	struct epoll_event own = { .events = EPOLLIN | EPOLLEXCLUSIVE, .data.fd = listener };
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &own))
		die("epoll");
	for (;;) {
		int count = epoll_wait(epoll, events, EVENTS, -1);
		for (int i = 0; i < count; i++) {
			if (events[i].data.fd == listener)
				on_newcomer(epoll);
			else
				on_ready(events[i].data.fd, buffer);
		}
	}
	return unused;
}

static void bind_to(const char *path, int flags)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	if (strlen(path) >= sizeof address.sun_path) {
		fprintf(stderr, "path too long\n");
		exit(1);
	}
	strcpy(address.sun_path, path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
	if (listener < 0 || bind(listener, (void *)&address, sizeof address) ||
	    listen(listener, 4096))
		die(path);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 64;
	int count = atoi(argv[3]), looping = !strcmp(argv[1], "epoll");
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	signal(SIGPIPE, SIG_IGN);
	bind_to(argv[2], looping ? SOCK_NONBLOCK : 0);
	if (!strcmp(argv[1], "thread"))
		for (;;)
			start(one_connection, (void *)(long)accept_one());
	void *(*body)(void *) = looping ? loop : !strcmp(argv[1], "pool") ? worker : taker;
	for (int i = 0; i < count; i++)
		start(body, NULL);
	if (body == taker)
		for (;;)
			hand_over(accept_one());
	for (;;)
		pause();
}
