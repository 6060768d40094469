/* libFuzzer's way into the plan parser. Beyond what the sanitizers see: a plan that is accepted must be one that
 * the rest of the launcher may trust, and nothing of its bytes may have been passed over. */
#define _GNU_SOURCE
#include "parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_SIZE 40
#define RECORD_SIZE 24

#define HOLDS(condition)                                                                                    \
    do {                                                                                                    \
        if (!(condition)) {                                                                                 \
            fprintf(stderr, "an accepted plan breaks: %s\n", #condition);                                    \
            abort();                                                                                        \
        }                                                                                                   \
    } while (0)

/* As root.c walks it: no link can hide in a name that is empty, "." or "..", and each fits its buffer. */
static void check_path(const char *path) {
    HOLDS(path && path[0] == '/' && strlen(path) < 4096);
    if (path[1] == 0)
        return;
    char slashed[4097];
    snprintf(slashed, sizeof slashed, "%s/", path);
    HOLDS(!strstr(slashed, "//") && !strstr(slashed, "/./") && !strstr(slashed, "/../"));
    for (const char *at = slashed; at[1]; at = strchr(at + 1, '/'))
        HOLDS(strchr(at + 1, '/') - at - 1 <= 255);
}

static size_t strings_size(char *const *strings, size_t count) {
    size_t size = 0;
    for (size_t i = 0; i < count; i++)
        size += RECORD_SIZE + strlen(strings[i]) + 1;
    HOLDS(!strings[count]);
    return size;
}

static size_t operation_size(const struct operation *operation) {
    check_path(operation->path);
    HOLDS(operation->kind >= KIND_DIR && operation->kind <= KIND_ALLOW);
    size_t size = RECORD_SIZE + strlen(operation->path) + 1;
    if (operation->kind == KIND_BIND)
        check_path(operation->text);
    if (operation->kind == KIND_BIND || operation->kind == KIND_LINK)
        return size + strlen(operation->text) + 1;
    if (operation->kind != KIND_FILE)
        return size;
    for (size_t i = 0; i < operation->text_size; i++) { /* readable to its end */
        volatile uint8_t byte = (uint8_t)operation->text[i];
        (void)byte;
    }
    return size + operation->text_size;
}

static void check_plan(const struct plan *plan, size_t size) {
    HOLDS(plan->uid && plan->gid && plan->uid != UINT32_MAX && plan->gid != UINT32_MAX);
    HOLDS(plan->host_uid && plan->host_uid != UINT32_MAX);
    HOLDS(plan->wall_ms && plan->wall_ms <= INT32_MAX && plan->root_bytes);
    HOLDS(plan->argc >= 1 && plan->argc <= ARGS_MAX && plan->envc <= ARGS_MAX && plan->argv[0][0] == '/');
    HOLDS(plan->group_count <= GROUPS_MAX && plan->limit_count <= RLIMITS_MAX);
    HOLDS(plan->operation_count <= OPERATIONS_MAX);
    HOLDS(plan->hostname && strlen(plan->hostname) <= 64);
    HOLDS(plan->filter && plan->filter_size && plan->filter_size % 8 == 0 && plan->filter_size <= FILTER_MAX * 8);
    check_path(plan->cwd);
    size_t seen = HEADER_SIZE + strings_size(plan->argv, plan->argc) + strings_size(plan->envp, plan->envc);
    seen += RECORD_SIZE * (plan->group_count + plan->limit_count) + RECORD_SIZE + plan->filter_size;
    seen += RECORD_SIZE * (plan->connect_port != 0);
    seen += 2 * RECORD_SIZE + strlen(plan->hostname) + strlen(plan->cwd) + 2;
    for (size_t i = 0; i < plan->group_count; i++)
        HOLDS(plan->groups[i]);
    for (size_t i = 0; i < plan->operation_count; i++)
        seen += operation_size(&plan->operations[i]);
    HOLDS(seen == size);
#ifdef CONTROL /* built so, the harness must be caught: the sanitizers and the corpus are at work */
    volatile uint8_t past_the_end = parsed_bytes()[size];
    (void)past_the_end;
#endif
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static struct plan plan;
    if (parse(bytes, size, &plan) == 0)
        check_plan(&plan, size);
    return 0;
}
