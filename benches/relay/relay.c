/* The least that a relay can be: accept, connect, one thread for each
 * connection, poll. With -s bulk goes through a pipe, once a read was full.
 * It checks nobody, bounds nothing and reports nothing: what it does faster
 * than the daemon is the price of those. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BUFFER = 65536, BULK = 1 << 20 };

static const char *upstream;
static int splices;

struct flow {
	int from, to, ended, bulk, pipe[2];
};

static int write_all(int fd, const char *data, ssize_t left)
{
	while (left > 0) {
		ssize_t n = write(fd, data, left);
		if (n < 0 && errno != EINTR)
			return -1;
		if (n > 0) {
			data += n;
			left -= n;
		}
	}
	return 0;
}

static ssize_t copy(struct flow *flow, char *buffer)
{
	ssize_t n = read(flow->from, buffer, BUFFER);
	if (n > 0 && write_all(flow->to, buffer, n))
		return -1;
	if (splices && n == BUFFER && pipe2(flow->pipe, O_CLOEXEC) == 0) {
		int size = BULK;
		fcntl(flow->pipe[1], F_SETPIPE_SZ, BULK);
		setsockopt(flow->to, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
		flow->bulk = 1;
	}
	return n;
}

static ssize_t move(struct flow *flow)
{
	ssize_t n = splice(flow->from, NULL, flow->pipe[1], NULL, BULK, SPLICE_F_MOVE);
	for (ssize_t left = n; left > 0;) {
		ssize_t m = splice(flow->pipe[0], NULL, flow->to, NULL, left, SPLICE_F_MOVE);
		if (m <= 0)
			return -1;
		left -= m;
	}
	return n;
}

static void *serve(void *argument)
{
	int client = (int)(long)argument;
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char *buffer = malloc(BUFFER);
	struct flow flows[2] = { { .from = client, .to = server },
				 { .from = server, .to = client } };

	strncpy(address.sun_path, upstream, sizeof address.sun_path - 1);
	if (connect(server, (struct sockaddr *)&address, sizeof address) || !buffer)
		goto out;
	while (!flows[0].ended || !flows[1].ended) {
		struct pollfd fds[2] = { { flows[0].ended ? -1 : client, POLLIN, 0 },
					 { flows[1].ended ? -1 : server, POLLIN, 0 } };
		if (poll(fds, 2, -1) < 0)
			continue;
		for (int i = 0; i < 2; i++) {
			ssize_t n;
			if (!fds[i].revents)
				continue;
			n = flows[i].bulk ? move(&flows[i]) : copy(&flows[i], buffer);
			if (n < 0)
				goto out;
			if (n == 0) {
				flows[i].ended = 1;
				shutdown(flows[i].to, SHUT_WR);
			}
		}
	}
out:
	for (int i = 0; i < 2; i++)
		if (flows[i].bulk) {
			close(flows[i].pipe[0]);
			close(flows[i].pipe[1]);
		}
	free(buffer);
	close(server);
	close(client);
	return NULL;
}

int main(int count, char **arguments)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	pthread_attr_t attributes;

	if (count < 3)
		return 64;
	splices = count > 3 && strcmp(arguments[3], "-s") == 0;
	upstream = arguments[2];
	strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
	signal(SIGPIPE, SIG_IGN);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 65536);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
		return 71;
	for (;;) {
		pthread_t thread;
		int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (client >= 0 &&
		    pthread_create(&thread, &attributes, serve, (void *)(long)client))
			close(client);
	}
}
