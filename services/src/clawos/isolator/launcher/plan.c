/* Reads the plan: a header, then records of one shape, all little-endian.
 *
 *   header: magic[8] size:u32 uid:u32 gid:u32 wall_ms:u32 landlock_min:u32 zero:u32 root_bytes:u64
 *   record: kind:u32 flags:u32 number:u64 a_size:u32 b_size:u32 a[a_size] b[b_size]
 *
 * Strings carry their NUL and no other. Whatever is not exactly so is refused: the plan comes from our own
 * service, but a fence that trusts its maker is half a fence.
 */
#include "launch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct header {
    char magic[8];
    uint32_t size, uid, gid, wall_ms, landlock_min, zero;
    uint64_t root_bytes;
};

struct record {
    uint32_t kind, flags;
    uint64_t number;
    uint32_t a_size, b_size;
};

_Static_assert(sizeof(struct header) == 40, "the header has no padding");
_Static_assert(sizeof(struct record) == 24, "a record has no padding");

_Noreturn static void malformed(void) {
    errno = EBADMSG;
    refuse("plan");
}

static char *string(uint8_t *bytes, size_t size) {
    if (size == 0 || memchr(bytes, 0, size) != bytes + size - 1)
        malformed();
    return (char *)bytes;
}

/* Absolute, and made of plain names: no empty part, no "." and no "..". "/" alone is allowed. */
static const char *clean_path(uint8_t *bytes, size_t size) {
    const char *path = string(bytes, size);
    if (path[0] != '/' || size > 4096)
        malformed();
    if (path[1] == 0)
        return path;
    for (const char *part = path + 1;; part++) {
        size_t length = strcspn(part, "/");
        if (length == 0 || length > 255 || (length == 1 && part[0] == '.') ||
            (length == 2 && part[0] == '.' && part[1] == '.'))
            malformed();
        part += length;
        if (*part == 0)
            return path;
    }
}

static void read_operation(struct plan *plan, const struct record *record, uint8_t *a, uint8_t *b) {
    if (plan->operation_count == OPERATIONS_MAX)
        malformed();
    struct operation *operation = &plan->operations[plan->operation_count++];
    operation->kind = record->kind;
    operation->flags = record->flags;
    operation->number = record->number;
    operation->source = -1;
    operation->path = clean_path(a, record->a_size);
    uint32_t allowed = 0;
    switch (record->kind) {
    case KIND_DIR:
        allowed = 07777;
        break;
    case KIND_FILE:
        allowed = 07777;
        operation->data = b;
        operation->data_size = record->b_size;
        break;
    case KIND_LINK:
        operation->text = string(b, record->b_size);
        break;
    case KIND_BIND:
        allowed = MOUNT_WRITE | MOUNT_EXEC | MOUNT_DEV;
        operation->text = clean_path(b, record->b_size);
        break;
    case KIND_TMPFS:
        allowed = MOUNT_WRITE | MOUNT_EXEC;
        break;
    case KIND_ALLOW:
        allowed = ALLOW_READ | ALLOW_WRITE | ALLOW_EXEC | ALLOW_IOCTL | ALLOW_LIST;
        break;
    default:
        break;
    }
    if (record->flags & ~allowed || (record->number && record->kind != KIND_TMPFS))
        malformed();
    int has_b = record->kind == KIND_FILE || record->kind == KIND_LINK || record->kind == KIND_BIND;
    if (!has_b && record->b_size)
        malformed();
}

static void read_record(struct plan *plan, const struct record *record, uint8_t *a, uint8_t *b) {
    if (record->kind >= KIND_DIR && record->kind <= KIND_ALLOW) {
        read_operation(plan, record, a, b);
        return;
    }
    int has_a = record->kind != KIND_GROUP && record->kind != KIND_RLIMIT;
    if (record->b_size || (record->a_size == 0) == has_a || (record->flags && record->kind != KIND_RLIMIT))
        malformed();
    switch (record->kind) {
    case KIND_ARG:
        if (plan->argc == ARGS_MAX)
            malformed();
        plan->argv[plan->argc++] = string(a, record->a_size);
        break;
    case KIND_ENV:
        if (plan->envc == ARGS_MAX)
            malformed();
        plan->envp[plan->envc++] = string(a, record->a_size);
        break;
    case KIND_GROUP:
        if (plan->group_count == GROUPS_MAX || record->number == 0 || record->number >= UINT32_MAX)
            malformed();
        plan->groups[plan->group_count++] = (gid_t)record->number;
        break;
    case KIND_RLIMIT:
        if (plan->limit_count == RLIMITS_MAX || record->flags > 15)
            malformed();
        plan->limits[plan->limit_count++] = (struct limit){(int)record->flags, record->number};
        break;
    case KIND_SECCOMP:
        if (plan->filter || record->a_size % 8 || record->a_size > FILTER_MAX * 8)
            malformed();
        plan->filter = a;
        plan->filter_size = record->a_size;
        break;
    case KIND_HOSTNAME:
        if (plan->hostname || record->a_size > 65)
            malformed();
        plan->hostname = string(a, record->a_size);
        break;
    case KIND_CWD:
        if (plan->cwd)
            malformed();
        plan->cwd = clean_path(a, record->a_size);
        break;
    default:
        malformed();
    }
}

void plan_read(struct plan *plan, int fd) {
    struct stat status;
    if (fstat(fd, &status))
        refuse("plan");
    if (status.st_size < (off_t)sizeof(struct header) || status.st_size > PLAN_BYTES_MAX)
        malformed();
    size_t size = (size_t)status.st_size;
    uint8_t *bytes = malloc(size);
    if (!bytes)
        refuse("plan");
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(fd, bytes + done, size - done, (off_t)done);
        if (got < 0)
            refuse("plan");
        if (got == 0)
            malformed();
        done += (size_t)got;
    }
    struct header header;
    memcpy(&header, bytes, sizeof header);
    /* uid and gid 0 are never the ids of a sandbox. */
    if (memcmp(header.magic, PLAN_MAGIC, 8) || header.size != size || header.zero || !header.uid ||
        !header.gid || header.uid == UINT32_MAX || header.gid == UINT32_MAX || !header.wall_ms ||
        header.wall_ms > INT32_MAX || !header.root_bytes)
        malformed();
    plan->uid = header.uid;
    plan->gid = header.gid;
    plan->wall_ms = header.wall_ms;
    plan->landlock_min = header.landlock_min;
    plan->root_bytes = header.root_bytes;
    for (size_t at = sizeof header; at < size;) {
        struct record record;
        if (size - at < sizeof record)
            malformed();
        memcpy(&record, bytes + at, sizeof record);
        at += sizeof record;
        if (record.a_size > size - at || record.b_size > size - at - record.a_size)
            malformed();
        read_record(plan, &record, bytes + at, bytes + at + record.a_size);
        at += record.a_size + record.b_size;
    }
    if (!plan->argc || !plan->filter || !plan->hostname || !plan->cwd || plan->argv[0][0] != '/')
        malformed();
}
