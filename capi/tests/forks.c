/* Children of fork(2) log while threads of their parent do; exits 0 if each ends. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "secure_socket.h"

enum { THREADS = 2, CHILDREN = 100, PATIENCE_S = 10 };

static atomic_int over;

/* A new place for each line, as long as places are remembered. */
static void *log_on(void *name) {
  for (uint32_t line = 1; !over; line++) {
    ss_log(SS_LOG_WARNING, name, line, "log_on", "busy");
  }
  return NULL;
}

/* One that hangs is killed by its alarm. */
static int log_in_child(uint32_t number) {
  pid_t child = fork();
  if (child == 0) {
    alarm(PATIENCE_S);
    ss_log(SS_LOG_WARNING, "child.c", number, "log_in_child", "in a child");
    _exit(0);
  }
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

int main(int argc, char **argv) {
  static char names[THREADS][4] = {"1.c", "2.c"};
  pthread_t threads[THREADS];
  if (argc != 2 || ss_log_start(argv[1], SS_LOG_WARNING) != SS_OK) {
    return 64;
  }
  for (int i = 0; i < THREADS; i++) {
    if (pthread_create(&threads[i], NULL, log_on, names[i]) != 0) {
      return 71;
    }
  }
  int ended = 0;
  for (uint32_t number = 0; number < CHILDREN && (int)number == ended; number++) {
    ended += log_in_child(number);
  }
  over = 1;
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
  }
  printf("%d of %d children have logged\n", ended, CHILDREN);
  return ended == CHILDREN ? 0 : 1;
}
