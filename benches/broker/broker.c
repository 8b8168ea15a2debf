/* A minimal broker, as the limit of what one thread can do: it passes on what it
 * reads, without subjects, stamps, rights or bounds.
 *
 *     broker PATH
 *
 * The first byte of a connection says what it is: S subscribes, P publishes, A asks,
 * R responds; it is sent back once it counts. Messages are a length (u32, host order)
 * and so many bytes. All whole messages of one read go to each subscriber in one
 * write; what a socket doesn't take waits in memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MOST 4096
#define INPUT (64 << 10)

struct peer {
    int fd;
    char role;
    char *wait; /* bytes that had no room, from `from` to `to` */
    size_t from, to, room;
    size_t held; /* bytes of a message that isn't whole yet */
    char input[INPUT];
};

static int epoll;
static struct peer *peers[MOST];
static int count;

static void watch(struct peer *peer, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = peer};
    epoll_ctl(epoll, operation, peer->fd, &event);
}

static void keep(struct peer *peer, const char *bytes, size_t length) {
    if (peer->from == peer->to) {
        peer->from = peer->to = 0;
        watch(peer, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    if (peer->to + length > peer->room) {
        peer->room = 2 * (peer->to + length);
        peer->wait = realloc(peer->wait, peer->room);
        if (!peer->wait) abort();
    }
    memcpy(peer->wait + peer->to, bytes, length);
    peer->to += length;
}

static void pass_on(struct peer *peer, const char *bytes, size_t length) {
    if (peer->from == peer->to) {
        ssize_t sent = send(peer->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) sent = errno == EAGAIN ? 0 : (ssize_t)length;
        bytes += sent;
        length -= (size_t)sent;
    }
    if (length) keep(peer, bytes, length);
}

static void drain(struct peer *peer) {
    ssize_t sent = send(peer->fd, peer->wait + peer->from, peer->to - peer->from,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent > 0) peer->from += (size_t)sent;
    if (peer->from == peer->to) watch(peer, EPOLL_CTL_MOD, EPOLLIN);
}

static void leave(struct peer *peer) {
    for (int i = 0; i < count; i++)
        if (peers[i] == peer) peers[i] = peers[--count];
    close(peer->fd);
    free(peer->wait);
    free(peer);
}

static char opposite(char role) {
    return role == 'P' ? 'S' : role == 'A' ? 'R' : role == 'R' ? 'A' : 0;
}

static void take(struct peer *peer) {
    ssize_t got = recv(peer->fd, peer->input + peer->held, INPUT - peer->held, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return leave(peer);
    size_t length = peer->held + (size_t)got, whole = 0;
    if (!peer->role) {
        peer->role = peer->input[0];
        pass_on(peer, &peer->role, 1);
        whole = 1;
    }
    size_t first = whole;
    while (length - whole >= 4) {
        uint32_t next;
        memcpy(&next, peer->input + whole, 4);
        if (next > INPUT - 4) return leave(peer);
        if (length - whole < 4 + (size_t)next) break;
        whole += 4 + next;
    }
    char to = opposite(peer->role);
    if (whole > first)
        for (int i = 0; i < count; i++)
            if (peers[i]->role == to) pass_on(peers[i], peer->input + first, whole - first);
    peer->held = length - whole;
    memmove(peer->input, peer->input + whole, peer->held);
}

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (argc != 2 || strlen(argv[1]) >= sizeof address.sun_path) return 64;
    strcpy(address.sun_path, argv[1]);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 256)) {
        perror(argv[1]);
        return 73;
    }
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event accepting = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &accepting);
    for (;;) {
        struct epoll_event events[64];
        int ready = epoll_wait(epoll, events, 64, -1);
        for (int i = 0; i < ready; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!peer) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0 || count == MOST || !(peer = calloc(1, sizeof *peer))) abort();
                peer->fd = fd;
                peers[count++] = peer;
                watch(peer, EPOLL_CTL_ADD, EPOLLIN);
                continue;
            }
            if (events[i].events & EPOLLOUT) drain(peer);
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) take(peer);
        }
    }
}
