/* Prints the plan on its standard input as the launcher understands it, a line each; exit status 1: refused.
 * Texts and contents are in hexadecimal. services/tests/isolator/test_wire.py compares it with what was meant. */
#include "parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_bytes(const void *bytes, size_t size) {
    putchar(' ');
    for (size_t i = 0; i < size; i++)
        printf("%02x", ((const uint8_t *)bytes)[i]);
}

static void print_text(const char *name, const char *text) {
    fputs(name, stdout);
    print_bytes(text, strlen(text));
    putchar('\n');
}

static void print_operation(const struct operation *operation) {
    printf("operation %d %u %llu", (int)operation->kind, operation->flags, (unsigned long long)operation->number);
    print_bytes(operation->path, strlen(operation->path));
    int has_text = operation->kind == KIND_LINK || operation->kind == KIND_BIND;
    print_bytes(operation->text, has_text ? strlen(operation->text) : 0);
    print_bytes(operation->text, operation->kind == KIND_FILE ? operation->text_size : 0);
    putchar('\n');
}

int main(void) {
    static uint8_t bytes[PLAN_BYTES_MAX + 1];
    static struct plan plan;
    size_t size = fread(bytes, 1, sizeof bytes, stdin);
    if (parse(bytes, size, &plan))
        return 1;
    printf("header %u %u %u %u %u %llu\n", plan.uid, plan.host_uid, plan.gid, plan.wall_ms, plan.landlock_min,
           (unsigned long long)plan.root_bytes);
    for (size_t i = 0; i < plan.argc; i++)
        print_text("arg", plan.argv[i]);
    for (size_t i = 0; i < plan.envc; i++)
        print_text("env", plan.envp[i]);
    for (size_t i = 0; i < plan.group_count; i++)
        printf("group %u\n", plan.groups[i]);
    for (size_t i = 0; i < plan.limit_count; i++)
        printf("limit %d %llu\n", plan.limits[i].resource, (unsigned long long)plan.limits[i].value);
    fputs("filter", stdout);
    print_bytes(plan.filter, plan.filter_size);
    putchar('\n');
    print_text("hostname", plan.hostname);
    print_text("cwd", plan.cwd);
    printf("connect %u\n", plan.connect_port);
    for (size_t i = 0; i < plan.operation_count; i++)
        print_operation(&plan.operations[i]);
    return fflush(stdout) ? 2 : 0;
}
