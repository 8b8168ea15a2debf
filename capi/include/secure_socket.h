/*
 * secure_socket for C programs: bind a locked-down socket, accept only the peers
 * that a policy admits, and log.
 *
 * Made by cbindgen from capi/src; do not edit. Link with -lsecure_socket_c.
 *
 * Every function may be called from any thread, unless it says otherwise. Each
 * that can fail gives an ss_status; SS_OK is 0. ss_status_text() says what a
 * status means, ss_last_error() what went wrong last in the calling thread.
 *
 * Ownership: what ss_policy_new() and ss_listener_bind() make belongs to the
 * caller, who gives it back once, with the _free function of that kind, when no
 * other thread uses it any more. Strings that are passed in are copied. Nothing
 * here unwinds into C: a defect in the library shows as SS_PANIC.
 *
 * No sandbox is put up: a program in C brings its own (seccomp, Landlock,
 * privileges), once the socket is bound. File names and rules are UTF-8.
 */

#ifndef SECURE_SOCKET_H
#define SECURE_SOCKET_H

#include <stddef.h>
#include <stdint.h>

/* Logs a line at a severity (SS_LOG_FATAL to SS_LOG_WIRE), with its place. The severity
 * is evaluated twice; the message not at all where the line would not be written. */
#define SS_LOG(severity, message)                                            \
  (ss_log_enabled(severity)                                                  \
       ? ss_log((severity), __FILE__, __LINE__, __func__, (message))         \
       : SS_OK)

#define SS_LOG_FATAL 0
#define SS_LOG_ALERT 1
#define SS_LOG_CRITICAL 2
#define SS_LOG_ERROR 3
#define SS_LOG_WARNING 4
#define SS_LOG_NOTICE 5
#define SS_LOG_INFO 6
#define SS_LOG_DEBUG 7
#define SS_LOG_VERBOSE 8
#define SS_LOG_TRACE 9
#define SS_LOG_WIRE 10


// What a call ended with.
typedef enum ss_status {
  // Done.
  SS_OK = 0,
  // A pointer that must not be NULL is.
  SS_NULL_POINTER = 1,
  // A text is not UTF-8.
  SS_NOT_UTF8 = 2,
  // A number is out of its bounds.
  SS_VALUE = 3,
  // A rule of the policy is wrong.
  SS_RULE = 4,
  // The socket can't be bound, or the policy can't be evaluated here.
  SS_BIND = 5,
  // Nobody who is admitted came in time.
  SS_TIMEOUT = 6,
  // A system call failed.
  SS_SYSTEM = 7,
  // The log can't be opened, or there is one already.
  SS_NO_LOG = 8,
  // A defect in the library; the call has done nothing, or part of its work.
  SS_PANIC = 9,
} ss_status;

// A socket that listens. May be used by several threads at once.
typedef struct ss_listener ss_listener;

// Who may connect: rules that admit and rules that refuse. Used by one thread at a
// time.
typedef struct ss_policy ss_policy;

// Who connected, as the kernel recorded it at connect(2).
typedef struct ss_peer {
  // The number of the connection, from 1, as in the log.
  uint64_t connection;
  // The process; 0 if it is not visible from this PID namespace.
  int32_t pid;
  // The effective user; 4294967295 if it has no mapping in this user namespace.
  uint32_t uid;
  // The effective group, alike.
  uint32_t gid;
  // The number of the rule that admitted it, from 1.
  uint32_t rule;
} ss_peer;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// What a status means, in English. The text is static, and never NULL.
const char *ss_status_text(int status);

// Copies what went wrong last in the calling thread to `buffer`, with its final NUL
// and cut to `length` bytes. Gives how many bytes the whole takes without the NUL.
//
// `buffer` may be NULL, to ask for the length alone.
//
// # Safety
// `buffer` is NULL, or valid for writes of `length` bytes.
size_t ss_last_error(char *buffer, size_t length);

// Begins a policy without rules, which admits the user that runs this program and
// nobody else. To be given back with ss_policy_free().
//
// # Safety
// `policy` is valid for a write of a pointer.
enum ss_status ss_policy_new(struct ss_policy **policy);

// Adds a rule that admits, such as `user:www-data` or
// `group:ops,exe:/usr/bin/deploy`. Any one of them admits.
//
// # Safety
// `policy` came from ss_policy_new() and no other thread uses it; `rule` ends in a NUL.
enum ss_status ss_policy_allow(struct ss_policy *policy, const char *rule);

// Adds a rule that refuses. It wins over every rule that admits.
//
// # Safety
// As ss_policy_allow().
enum ss_status ss_policy_deny(struct ss_policy *policy, const char *rule);

// Gives a policy back. NULL is nothing. Listeners that were bound for it keep it.
//
// # Safety
// `policy` is NULL, or came from ss_policy_new() and is not used any more.
void ss_policy_free(struct ss_policy *policy);

// Binds a Unix-domain socket at an absolute path (or `@name`) and listens. Its
// directory is made for it; mode and group follow from the policy: 0600 for the own
// user alone, else 0660 with the group that the rules name.
//
// Opens descriptors with O_CLOEXEC; starts threads only where a rule names an
// executable or other facts below /proc. To be given back with ss_listener_free().
//
// # Safety
// `path` ends in a NUL; `policy` came from ss_policy_new(); `listener` is valid for a
// write of a pointer.
enum ss_status ss_listener_bind(const char *path,
                                const struct ss_policy *policy,
                                struct ss_listener **listener);

// Waits for the next peer that the policy admits, at most `timeout_ms` milliseconds
// (-1: as long as it takes, 0: not at all). Those that are denied meanwhile are closed
// unread and logged. SS_TIMEOUT when nobody came.
//
// `fd` gets a blocking descriptor with O_CLOEXEC, which the caller closes. `peer` may
// be NULL.
//
// Nothing ends the descriptor when the process exits that a rule by pid, executable,
// digest, name or arguments admitted: a child may hold it and be served on. Who minds
// gets a pidfd by getsockopt(2), SO_PEERPIDFD, and polls it.
//
// # Safety
// `listener` came from ss_listener_bind(); `fd` is valid for a write; `peer` is NULL or
// valid for a write.
enum ss_status ss_listener_accept(const struct ss_listener *listener,
                                  int timeout_ms,
                                  struct ss_peer *peer,
                                  int *fd);

// The descriptor to wait on together with others (poll(2), readable); -1 for NULL. It
// belongs to the listener.
//
// # Safety
// `listener` is NULL, or came from ss_listener_bind().
int ss_listener_fd(const struct ss_listener *listener);

// Stops listening, unlinks the socket if it still is the one that was bound, and gives
// the listener back. NULL is nothing. Connections that were accepted stay open.
//
// # Safety
// `listener` is NULL, or came from ss_listener_bind() and is not used any more.
void ss_listener_free(struct ss_listener *listener);

// Starts the log, to a file (created 0600, rolled at 10 MiB and compressed) or, for
// NULL, to stderr. Severities up to `verbosity`, 0 to 10, are written. Once for a
// process. Its threads inherit the caller's signal mask.
//
// # Safety
// `file` is NULL, or ends in a NUL.
enum ss_status ss_log_start(const char *file, int verbosity);

// Whether ss_log() has anything to do at this severity: 1 or 0. For a number that is no
// severity 1 as well, so that ss_log() tells. It costs a load and a branch; SS_LOG()
// asks before it evaluates its text.
int ss_log_enabled(int severity);

// Logs one line. Newlines and control characters in it are escaped, and bytes that are
// not UTF-8 written as \xNN, in `file` and `function` as well. It never waits for a
// disk, except at severities 0 and 1. Without a log it does nothing.
//
// # Safety
// `file`, `function` and `message` end in a NUL.
enum ss_status ss_log(int severity,
                      const char *file,
                      uint32_t line,
                      const char *function,
                      const char *message);

// Writes what was logged and ends the log's threads. What is logged later goes to
// stderr. SS_NO_LOG if there is no log, or not all could be written.
enum ss_status ss_log_stop(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SECURE_SOCKET_H */
