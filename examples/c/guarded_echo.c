/*
 * Echo for one user or group, in C.
 *
 *     guarded_echo SOCKET RULE [LOG-FILE]
 *
 * RULE is as for `allow`: uid:1000, group:ops, uid:33,exe:/usr/bin/shop-worker.
 * Ends after SIGTERM, and removes its socket. Peers are served one after the other;
 * one that is silent, or doesn't read, for two seconds loses its turn.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "secure_socket.h"

enum { PATIENCE_S = 2 };

static volatile sig_atomic_t stopping;

static void on_term(int signal) {
  (void)signal;
  stopping = 1;
}

/* Says what went wrong, and gives the exit code. */
static int failed(const char *what, ss_status status) {
  char text[512];
  ss_last_error(text, sizeof text);
  fprintf(stderr, "%s: %s: %s\n", what, ss_status_text(status), text);
  return 1;
}

/* No wait for this peer is longer: the others are waiting for theirs. */
static int bound(int fd) {
  struct timeval patience = {.tv_sec = PATIENCE_S};
  return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
         setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0;
}

/* Returns what comes, until the peer has no more, or this program is to stop. */
static void serve(int fd) {
  char buffer[4096];
  ssize_t length;
  while (!stopping && (length = recv(fd, buffer, sizeof buffer, 0)) > 0) {
    for (ssize_t sent = 0; sent < length;) {
      ssize_t more = send(fd, buffer + sent, (size_t)(length - sent), MSG_NOSIGNAL);
      if (more < 0 && (errno != EINTR || stopping)) {
        return;
      }
      sent += more > 0 ? more : 0;
    }
  }
}

int main(int argc, char **argv) {
  if (argc != 3 && argc != 4) {
    fprintf(stderr, "usage: %s SOCKET RULE [LOG-FILE]\n", argv[0]);
    return 64;
  }
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_term;
  sigaction(SIGTERM, &action, NULL);
  /* The threads of the library inherit the mask, so that TERM comes to this one, and
   * ends its wait. */
  sigset_t term;
  sigemptyset(&term);
  sigaddset(&term, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &term, NULL);

  ss_status status = ss_log_start(argc == 4 ? argv[3] : NULL, SS_LOG_INFO);
  if (status != SS_OK) {
    return failed("log", status);
  }
  ss_policy *policy = NULL;
  ss_listener *listener = NULL;
  status = ss_policy_new(&policy);
  if (status == SS_OK) {
    status = ss_policy_allow(policy, argv[2]);
  }
  if (status == SS_OK) {
    status = ss_listener_bind(argv[1], policy, &listener);
  }
  ss_policy_free(policy);
  if (status != SS_OK) {
    int code = failed(argv[1], status);
    ss_log_stop();
    return code;
  }
  pthread_sigmask(SIG_UNBLOCK, &term, NULL);
  SS_LOG(SS_LOG_NOTICE, "ready");

  while (!stopping) {
    ss_peer peer;
    int fd;
    status = ss_listener_accept(listener, 200, &peer, &fd);
    if (status == SS_TIMEOUT) {
      continue;
    }
    if (status == SS_SYSTEM) {
      /* Out of descriptors, or of memory: that passes. */
      failed("accept", status);
      nanosleep(&(struct timespec){.tv_sec = 1}, NULL);
      continue;
    }
    if (status != SS_OK) {
      failed("accept", status);
      break;
    }
    char line[128];
    snprintf(line, sizeof line, "serving uid %u pid %d by rule %u", peer.uid, peer.pid,
             peer.rule);
    SS_LOG(SS_LOG_INFO, line);
    if (bound(fd)) {
      serve(fd);
    }
    close(fd);
  }
  SS_LOG(SS_LOG_NOTICE, "stopped");
  ss_listener_free(listener);
  return ss_log_stop() == SS_OK && stopping ? 0 : 1;
}
