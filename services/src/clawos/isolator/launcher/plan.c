/* Reads the plan: a header, then records of one shape, all little-endian.
 *
 *   header: magic[8] size:u32 uid:u32 gid:u32 wall_ms:u32 landlock_min:u32 host_uid:u32 root_bytes:u64
 *   record: kind:u32 flags:u32 number:u64 a_size:u32 b_size:u32 a[a_size] b[b_size]
 *
 * Strings carry their NUL and no other. Whatever is not exactly so is refused: the plan comes from our own service,
 * but a fence that trusts its maker is half a fence.
 */
#include "launch.h"

struct header {
    char magic[8];
    uint32_t size, uid, gid, wall_ms, landlock_min, host_uid;
    uint64_t root_bytes;
};

struct record {
    uint32_t kind, flags;
    uint64_t number;
    uint32_t a_size, b_size;
};

_Static_assert(sizeof(struct header) == 40, "the header has no padding");
_Static_assert(sizeof(struct record) == 24, "a record has no padding");

enum form { NOTHING, BYTES, STRING, PATH };

static const struct {
    enum form a, b;
    uint32_t flags; /* those allowed */
    int number;     /* is there one? */
} SHAPES[] = {
    [KIND_ARG] = {STRING, NOTHING, 0, 0},
    [KIND_ENV] = {STRING, NOTHING, 0, 0},
    [KIND_GROUP] = {NOTHING, NOTHING, 0, 1},
    [KIND_RLIMIT] = {NOTHING, NOTHING, 15, 1},
    [KIND_SECCOMP] = {BYTES, NOTHING, 0, 0},
    [KIND_HOSTNAME] = {STRING, NOTHING, 0, 0},
    [KIND_CWD] = {PATH, NOTHING, 0, 0},
    [KIND_DIR] = {PATH, NOTHING, 07777, 0},
    [KIND_FILE] = {PATH, BYTES, 07777, 0},
    [KIND_LINK] = {PATH, STRING, 0, 0},
    [KIND_BIND] = {PATH, PATH, MOUNT_WRITE | MOUNT_EXEC | MOUNT_DEV, 0},
    [KIND_TMPFS] = {PATH, NOTHING, MOUNT_WRITE | MOUNT_EXEC, 1},
    [KIND_PROC] = {PATH, NOTHING, 0, 0},
    [KIND_ALLOW] = {PATH, NOTHING, ALLOW_ALL, 0},
    [KIND_CONNECT] = {NOTHING, NOTHING, 0, 1},
};

/* Absolute, and made of plain names: no empty part, no "." and no "..". "/" alone is allowed. */
static int is_clean(const char *path, size_t size) {
    if (path[0] != '/' || size > 4096)
        return 0;
    for (const char *part = path + 1; path[1]; part++) {
        size_t length = strcspn(part, "/");
        if (length == 0 || length > 255 || (part[0] == '.' && (length == 1 || (length == 2 && part[1] == '.'))))
            return 0;
        part += length;
        if (*part == 0)
            break;
    }
    return 1;
}

static int fits(enum form form, const uint8_t *bytes, size_t size) {
    if (form == NOTHING || form == BYTES)
        return form == BYTES || size == 0;
    if (size == 0 || memchr(bytes, 0, size) != bytes + size - 1)
        return 0;
    return form == STRING || is_clean((const char *)bytes, size);
}

static int read_operation(struct plan *plan, const struct operation *operation) {
    if (plan->operation_count == OPERATIONS_MAX)
        return -1;
    /* A root is made ahead, what is fresh for each call comes later: nothing of the one can lie in the other. */
    for (size_t i = 0; i < plan->operation_count && operation->kind != KIND_ALLOW; i++) {
        const struct operation *above = &plan->operations[i];
        size_t length = strlen(above->path);
        if ((above->kind == KIND_TMPFS || above->kind == KIND_PROC) && !strncmp(operation->path, above->path, length) &&
            (operation->path[length] == '/' || operation->path[length] == 0))
            return -1;
    }
    plan->operations[plan->operation_count++] = *operation;
    return 0;
}

static int read_record(struct plan *plan, const struct record *record, uint8_t *a, uint8_t *b) {
    if (record->kind < KIND_ARG || record->kind > KIND_CONNECT || record->flags & ~SHAPES[record->kind].flags ||
        (record->number && !SHAPES[record->kind].number) || !fits(SHAPES[record->kind].a, a, record->a_size) ||
        !fits(SHAPES[record->kind].b, b, record->b_size))
        return -1;
    switch (record->kind) {
    case KIND_ARG:
        return plan->argc == ARGS_MAX ? -1 : (plan->argv[plan->argc++] = (char *)a, 0);
    case KIND_ENV:
        return plan->envc == ARGS_MAX ? -1 : (plan->envp[plan->envc++] = (char *)a, 0);
    case KIND_GROUP:
        if (plan->group_count == GROUPS_MAX || record->number == 0 || record->number >= UINT32_MAX)
            return -1;
        plan->groups[plan->group_count++] = (gid_t)record->number;
        return 0;
    case KIND_RLIMIT:
        if (plan->limit_count == RLIMITS_MAX)
            return -1;
        plan->limits[plan->limit_count++] = (struct limit){(int)record->flags, record->number};
        return 0;
    case KIND_SECCOMP:
        if (plan->filter || !record->a_size || record->a_size % 8 || record->a_size > FILTER_MAX * 8)
            return -1;
        plan->filter = a;
        plan->filter_size = record->a_size;
        return 0;
    case KIND_HOSTNAME:
        return plan->hostname || record->a_size > 65 ? -1 : (plan->hostname = (char *)a, 0);
    case KIND_CWD:
        return plan->cwd ? -1 : (plan->cwd = (char *)a, 0);
    case KIND_CONNECT:
        if (plan->connect_port || record->number == 0 || record->number > UINT16_MAX)
            return -1;
        plan->connect_port = (uint16_t)record->number;
        return 0;
    default:
        return read_operation(plan, &(struct operation){record->kind, record->flags, record->number, (char *)a,
                                                        (char *)b, record->b_size});
    }
}

#define IS_ID(id) ((id) != 0 && (id) != UINT32_MAX) /* 0 is never the id of a sandbox */

int plan_parse(struct plan *plan, uint8_t *bytes, size_t size) {
    struct header header;
    if (size < sizeof header || size > PLAN_BYTES_MAX)
        return -1;
    memcpy(&header, bytes, sizeof header);
    if (memcmp(header.magic, PLAN_MAGIC, 8) || header.size != size || !IS_ID(header.uid) || !IS_ID(header.gid) ||
        !IS_ID(header.host_uid) || !header.wall_ms || header.wall_ms > INT32_MAX || !header.root_bytes)
        return -1;
    *plan = (struct plan){
        .bytes = bytes,
        .size = size,
        .uid = header.uid,
        .host_uid = header.host_uid,
        .gid = header.gid,
        .wall_ms = header.wall_ms,
        .landlock_min = header.landlock_min,
        .root_bytes = header.root_bytes,
    };
    for (size_t at = sizeof header; at < size;) {
        struct record record;
        if (size - at < sizeof record)
            return -1;
        memcpy(&record, bytes + at, sizeof record);
        at += sizeof record;
        if (record.a_size > size - at || record.b_size > size - at - record.a_size)
            return -1;
        if (read_record(plan, &record, bytes + at, bytes + at + record.a_size))
            return -1;
        at += record.a_size + record.b_size;
    }
    return plan->argc && plan->filter && plan->hostname && plan->cwd && plan->argv[0][0] == '/' ? 0 : -1;
}
