/*     client SOCKET publish SUBJECT TEXT
 *     client SOCKET subscribe PATTERN COUNT
 *     client SOCKET request SUBJECT TEXT
 *     client SOCKET serve PATTERN COUNT      answers with what was asked
 */
#define _GNU_SOURCE
#include <endian.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { SUBSCRIBE = 1, PUBLISH = 3, REQUEST, SERVE, REPLY, PROOF = 10, MESSAGE = 17, DELIVER,
       ANSWER, OK, ERROR, GAP, GOAWAY, CHALLENGE };
enum { LIMIT = 1 << 20, STAMP = 32 };
struct frame { uint32_t length; uint8_t kind, flags; uint16_t subject_length; uint64_t id; };

static int fd;
static char payload[LIMIT + STAMP + 1];

static void write_all(const void *data, size_t left)
{
    for (const char *at = data; left > 0;) {
        ssize_t sent = send(fd, at, left, MSG_NOSIGNAL);
        if (sent < 0) err(1, "send");
        at += sent, left -= (size_t)sent;
    }
}

static void read_all(void *data, size_t left)
{
    for (char *at = data; left > 0;) {
        ssize_t got = recv(fd, at, left, 0);
        if (got <= 0) errx(1, "closed");
        at += got, left -= (size_t)got;
    }
}

static void send_frame(uint8_t kind, uint64_t id, const char *subject, const void *body, size_t size)
{
    size_t subject_length = strlen(subject);
    struct frame head = { htobe32((uint32_t)(subject_length + size)), kind, 0,
                          htobe16((uint16_t)subject_length), htobe64(id) };
    write_all(&head, sizeof head);
    write_all(subject, subject_length);
    write_all(body, size);
}

/* The next frame, its payload in `payload`, with a NUL behind it. */
static struct frame receive(void)
{
    struct frame head;
    for (;;) {
        read_all(&head, sizeof head);
        head.length = be32toh(head.length);
        head.subject_length = be16toh(head.subject_length);
        head.id = be64toh(head.id);
        if (head.length >= sizeof payload) errx(1, "a frame of %u bytes", head.length);
        read_all(payload, head.length);
        payload[head.length] = 0;
        if (head.kind == ERROR) errx(1, "error %d: %s", payload[1], payload + 2);
        if (head.kind != CHALLENGE) return head;
        send_frame(PROOF, 0, "", payload, 16);
    }
}

int main(int count, char **arguments)
{
    if (count != 5) errx(64, "expected SOCKET COMMAND SUBJECT ARGUMENT");
    const char *command = arguments[2], *subject = arguments[3], *argument = arguments[4];
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    strncpy(address.sun_path, arguments[1], sizeof address.sun_path - 1);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (void *)&address, sizeof address)) err(1, "connect");
    struct ucred server; /* Who listens: verified before a byte is sent. */
    socklen_t size = sizeof server;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &server, &size)) err(1, "SO_PEERCRED");
    if (server.uid != 0 && server.uid != geteuid()) errx(77, "the server is uid %u", server.uid);
    write_all("SSB1\0\1\0\0\0\x10\0\0\0\0\0\0", 16);
    read_all(payload, 16);
    if (memcmp(payload, "SSB1\0\1\0\0", 8)) errx(1, "not a broker of this version");
    int asks = !strcmp(command, "request"), serves = !strcmp(command, "serve"),
        publishes = !strcmp(command, "publish");
    send_frame(asks ? REQUEST : serves ? SERVE : publishes ? PUBLISH : SUBSCRIBE, 1, subject,
               argument, asks || publishes ? strlen(argument) : 0);
    for (int left = asks || publishes ? 1 : atoi(argument); left > 0;) {
        struct frame got = receive();
        char *body = payload + got.subject_length + STAMP;
        if (got.kind == OK && publishes) return 0;
        if (got.kind == OK) puts("ready"), fflush(stdout);
        if (got.kind == ANSWER) puts(body), left--;
        if (got.kind == MESSAGE || got.kind == DELIVER) puts(body), fflush(stdout), left--;
        if (got.kind == DELIVER) send_frame(REPLY, got.id, "", body, strlen(body));
    }
}
