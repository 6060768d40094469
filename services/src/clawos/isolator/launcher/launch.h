/* claw-launch: sandboxes from plans that the isolator writes. Shared declarations.
 *
 * launcher          outside: makes the user namespace that all sandboxes' are made in, then only waits
 * └ spawner         pid 1 of all sandboxes: starts them, enforces the wall clock
 *   ├ filler        makes network namespaces ahead
 *   ├ builder       makes one root; short-lived
 *   └ init          pid 1 of one sandbox: mounts what is its own, reaps
 *     └ worker      confined, becomes the program
 *
 * claw-python is the same inside a Python that has read its standard library: all of these are copies of it.
 */
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define PLAN_MAGIC "CLAWPLN1"
#define PLAN_BYTES_MAX (4u << 20)
#define OPERATIONS_MAX 512
#define ARGS_MAX 1024
#define GROUPS_MAX 16
#define RLIMITS_MAX 16
#define FILTER_MAX 4096 /* instructions; the kernel's own limit */

/* The numbers are the wire format; wire.py has the same list and a test compares the two. */
enum kind {
    KIND_ARG = 1, KIND_ENV = 2, KIND_GROUP = 3, KIND_RLIMIT = 4, KIND_SECCOMP = 5, KIND_HOSTNAME = 6, KIND_CWD = 7,
    KIND_DIR = 8, KIND_FILE = 9, KIND_LINK = 10, KIND_BIND = 11, KIND_TMPFS = 12, KIND_PROC = 13, KIND_ALLOW = 14,
    KIND_CONNECT = 15,
};
enum mount_flag { MOUNT_WRITE = 1, MOUNT_EXEC = 2, MOUNT_DEV = 4 };
#define ALLOW_ALL 0xffff /* Landlock's own bits, up to ABI 5 */

/* One step of building the root (dir … proc) or one Landlock rule (allow). */
struct operation {
    enum kind kind;
    uint32_t flags;
    uint64_t number;
    const char *path; /* inside the sandbox, absolute */
    const char *text; /* link: its target; bind: its source outside; file: its content, without a NUL */
    size_t text_size;
};

struct limit {
    int resource;
    uint64_t value;
};

struct plan {
    uid_t uid, host_uid; /* inside, and what it is outside */
    gid_t gid;           /* the same inside and outside */
    uint32_t wall_ms, landlock_min;
    uint16_t connect_port; /* the only one, by TCP; 0: none */
    uint64_t root_bytes;
    const char *hostname, *cwd;
    char *argv[ARGS_MAX + 1], *envp[ARGS_MAX + 1];
    gid_t groups[GROUPS_MAX];
    uint8_t *bytes; /* where all of it lies */
    size_t size, argc, envc, group_count, limit_count, operation_count, filter_size;
    struct limit limits[RLIMITS_MAX];
    const uint8_t *filter;
    struct operation operations[OPERATIONS_MAX];
};

#define report(...) dprintf(report_fd, __VA_ARGS__) /* where nobody listens, the spawner sees it too */

/* claw-launch.c. report_fd: a process speaks of one call at a time. */
int launch(int argc, char **argv);
void forget_calls(void);
extern int report_fd;
extern volatile int has_refused;
_Noreturn void refuse(const char *step); /* report "refused STEP ERRNO" and end this process */
long clone_process(uint64_t flags, int *pidfd, int cgroup);
int write_at(int directory, const char *path, const char *text);
int send_descriptors(int socket, const int *descriptors, size_t count);

/* plan.c: looks at nothing but these bytes; 0, or -1 for what is not a plan */
int plan_parse(struct plan *plan, uint8_t *bytes, size_t size);

/* root.c: in the spawner, in a builder, in a sandbox's init */
int root_open(void); /* the /proc of all sandboxes */
_Noreturn void root_build(const struct plan *plan, int proc);
void root_finish(const struct plan *plan);

/* inside.c */
_Noreturn void run_init(const struct plan *plan, const int *streams, int go, uid_t init_uid);

/* exec.c, python.c: what the two differ in */
extern const int is_python; /* the worker is a copy of init, for the program is in its memory already */
pid_t copy_worker(void);
int is_copy_confined(pid_t worker); /* waits until it is, or has ended */
_Noreturn void become(const struct plan *plan);

/* confine.c: all but the first two only in the worker, in this order */
void keep_capabilities(uint32_t these);
void drop_bounding_set(void);
void confine_limits(const struct plan *plan);
void confine_privileges(void);
void confine_landlock(const struct plan *plan);
void confine_seccomp(const struct plan *plan);
unsigned landlock_abi(void);
