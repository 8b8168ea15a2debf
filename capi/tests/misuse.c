/* Every function with NULL, wrong values and wrong order; exits 0 if each is told. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "secure_socket.h"

static int wrong;

static void check(const char *what, ss_status found, ss_status expected) {
  char text[256] = "";
  ss_last_error(text, sizeof text);
  if (found != expected) {
    printf("%s: %d, expected %d: %s\n", what, (int)found, (int)expected, text);
    wrong = 1;
  }
}

static void hold(const char *what, int is) {
  if (!is) {
    printf("%s\n", what);
    wrong = 1;
  }
}

static int connect_to(const char *path) {
  struct sockaddr_un address;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  hold("connect", connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
  return fd;
}

int main(int argc, char **argv) {
  if (argc != 2) {
    return 64;
  }
  ss_policy *policy = NULL;
  ss_listener *listener = NULL;
  ss_peer peer;
  char byte, small[4];
  int fd = 7;

  check("new NULL", ss_policy_new(NULL), SS_NULL_POINTER);
  check("allow NULL", ss_policy_allow(NULL, "uid:0"), SS_NULL_POINTER);
  check("bind NULL", ss_listener_bind(argv[1], NULL, &listener), SS_NULL_POINTER);
  hold("nothing was bound", listener == NULL);
  check("accept NULL", ss_listener_accept(NULL, 0, &peer, &fd), SS_NULL_POINTER);
  hold("no descriptor", fd == -1);
  hold("fd of NULL", ss_listener_fd(NULL) == -1);
  check("log NULL", ss_log(SS_LOG_INFO, NULL, 1, "main", "text"), SS_NULL_POINTER);
  check("log severity", SS_LOG(11, "text"), SS_VALUE);
  check("log severity", SS_LOG(-1, "text"), SS_VALUE);
  check("no log", ss_log_stop(), SS_NO_LOG);
  hold("nobody logs", !ss_log_enabled(SS_LOG_FATAL));
  ss_policy_free(NULL);
  ss_listener_free(NULL);

  check("new", ss_policy_new(&policy), SS_OK);
  check("rule NULL", ss_policy_allow(policy, NULL), SS_NULL_POINTER);
  check("rule", ss_policy_allow(policy, "uid:x"), SS_RULE);
  hold("its length", ss_last_error(NULL, 0) > 10);
  hold("cut", ss_last_error(small, sizeof small) > 10 && strlen(small) == 3);
  check("utf8", ss_policy_allow(policy, "user:\xff"), SS_NOT_UTF8);
  check("deny", ss_policy_deny(policy, "uid:65533"), SS_OK);
  check("relative", ss_listener_bind("a.sock", policy, &listener), SS_BIND);
  check("place NULL", ss_listener_bind(argv[1], policy, NULL), SS_NULL_POINTER);
  check("bind", ss_listener_bind(argv[1], policy, &listener), SS_OK);
  ss_policy_free(policy);
  hold("a listener", listener != NULL && ss_listener_fd(listener) > 2);

  check("fd NULL", ss_listener_accept(listener, 0, &peer, NULL), SS_NULL_POINTER);
  check("timeout", ss_listener_accept(listener, -2, &peer, &fd), SS_VALUE);
  check("nobody", ss_listener_accept(listener, 0, &peer, &fd), SS_TIMEOUT);
  check("nobody", ss_listener_accept(listener, 20, &peer, &fd), SS_TIMEOUT);
  int client = connect_to(argv[1]);
  check("accept", ss_listener_accept(listener, 5000, &peer, &fd), SS_OK);
  hold("who", peer.uid == geteuid() && peer.pid == getpid() && peer.rule == 1);
  hold("cloexec", (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  hold("blocking", (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
  hold("sent", write(client, "x", 1) == 1);
  hold("received", read(fd, &byte, 1) == 1 && byte == 'x');
  close(client);
  hold("the end", read(fd, &byte, 1) == 0);
  close(fd);
  client = connect_to(argv[1]);
  check("peer NULL", ss_listener_accept(listener, 5000, NULL, &fd), SS_OK);
  close(client);
  close(fd);

  struct stat before;
  hold("there", stat(argv[1], &before) == 0 && (before.st_mode & 0777) == 0600);
  ss_listener_free(listener);
  hold("unlinked", stat(argv[1], &before) == -1);

  check("log", ss_log_start("/nonexistent/a/log", 11), SS_VALUE);
  check("log", ss_log_start(NULL, SS_LOG_WARNING), SS_OK);
  check("twice", ss_log_start(NULL, SS_LOG_WARNING), SS_NO_LOG);
  for (int i = 0; i < 100; i++) {
    check("line", SS_LOG(SS_LOG_WARNING, "one\nline \x1b[31m"), SS_OK);
  }
  int asked = 0;
  check("quiet", SS_LOG(SS_LOG_INFO, (asked++, "not seen")), SS_OK);
  hold("not evaluated", asked == 0);
  check("loud", SS_LOG(SS_LOG_WARNING, (asked++, "seen")), SS_OK);
  hold("evaluated once", asked == 1);
  hold("levels", ss_log_enabled(SS_LOG_WARNING) == 1 && ss_log_enabled(SS_LOG_NOTICE) == 0);
  hold("no levels, to be told", ss_log_enabled(-1) == 1 && ss_log_enabled(11) == 1);
  /* What a peer chose is logged, whatever it is, and as one line. */
  check("not UTF-8", SS_LOG(SS_LOG_WARNING, "eve \xff"), SS_OK);
  check("forged", ss_log(SS_LOG_WARNING, "a.c\nforged", 1, "f\nforged\xff", "g\nforged"), SS_OK);
  check("one", ss_log(SS_LOG_WARNING, "wrapper.c", 7, "one", "by one"), SS_OK);
  check("two", ss_log(SS_LOG_WARNING, "wrapper.c", 7, "two", "by two"), SS_OK);
  for (uint32_t line = 1; line <= 5000; line++) {
    check("many", ss_log(SS_LOG_WARNING, "many.c", line, "main", "of many"), SS_OK);
  }
  check("stop", ss_log_stop(), SS_OK);
  check("stopped", ss_log_stop(), SS_NO_LOG);
  for (int status = -1; status < 12; status++) {
    hold("a text", strlen(ss_status_text(status)) > 3);
  }
  return wrong;
}
