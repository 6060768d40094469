/* claw-launch: one sandbox, from a plan that the isolator wrote. Shared declarations.
 *
 * Processes: launcher (outside, writes the id maps, waits, enforces the wall clock)
 *            └ init (pid 1 of the sandbox: builds the root, reaps)
 *              └ worker (confined, becomes the program)
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PLAN_MAGIC "CLAWPLN1"
#define PLAN_BYTES_MAX (4u << 20)
#define OPERATIONS_MAX 512
#define ARGS_MAX 1024
#define GROUPS_MAX 16
#define RLIMITS_MAX 16
#define FILTER_MAX 4096 /* instructions; the kernel's own limit */

/* The numbers are the wire format; wire.py has the same list and a test compares the two. */
enum kind {
    KIND_ARG = 1,
    KIND_ENV = 2,
    KIND_GROUP = 3,
    KIND_RLIMIT = 4,
    KIND_SECCOMP = 5,
    KIND_HOSTNAME = 6,
    KIND_CWD = 7,
    KIND_DIR = 8,
    KIND_FILE = 9,
    KIND_LINK = 10,
    KIND_BIND = 11,
    KIND_TMPFS = 12,
    KIND_PROC = 13,
    KIND_ALLOW = 14,
};

enum mount_flag { MOUNT_WRITE = 1, MOUNT_EXEC = 2, MOUNT_DEV = 4 };
enum allow_flag { ALLOW_READ = 1, ALLOW_WRITE = 2, ALLOW_EXEC = 4, ALLOW_IOCTL = 8, ALLOW_LIST = 16 };

/* One step of building the root (dir … proc) or one Landlock rule (allow). */
struct operation {
    enum kind kind;
    uint32_t flags;
    uint64_t number;
    const char *path;   /* inside the sandbox, absolute */
    const char *text;   /* link: its target; bind: its source outside */
    const uint8_t *data; /* file: its content */
    size_t data_size;
    int source; /* bind: the pinned source, opened before anything is mounted */
};

struct limit {
    int resource;
    uint64_t value;
};

struct plan {
    uid_t uid;
    gid_t gid;
    uint32_t wall_ms;
    uint32_t landlock_min;
    uint64_t root_bytes;
    const char *hostname, *cwd;
    char *argv[ARGS_MAX + 1], *envp[ARGS_MAX + 1];
    gid_t groups[GROUPS_MAX];
    size_t argc, envc, group_count, limit_count, operation_count;
    struct limit limits[RLIMITS_MAX];
    const uint8_t *filter;
    size_t filter_size;
    struct operation operations[OPERATIONS_MAX];
};

/* Where refuse() reports; the one global, for every process of the launcher has exactly one. */
extern int report_fd;

/* Report "refused STEP ERRNO" and end this process. */
_Noreturn void refuse(const char *step);
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* plan.c */
void plan_read(struct plan *plan, int fd);

/* root.c: in the sandbox's init, in this order. */
void root_pin_sources(struct plan *plan);
void root_build(struct plan *plan);

/* confine.c: in the worker, in this order. */
void confine_limits(const struct plan *plan);
void confine_capabilities(void);
unsigned confine_landlock(const struct plan *plan);
void confine_seccomp(const struct plan *plan);
unsigned landlock_abi(void);
void drop_capabilities(void);
