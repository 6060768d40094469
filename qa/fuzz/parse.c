#define _GNU_SOURCE
#include "parse.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int report_fd = -1;
static jmp_buf refused;
static void *allocated;

_Noreturn void refuse(const char *step) {
    (void)step;
    longjmp(refused, 1);
}

/* plan.c is compiled with malloc named so: the launcher lives for one plan and frees nothing, we do. */
void *plan_malloc(size_t size);
void *plan_malloc(size_t size) {
    free(allocated);
    return allocated = malloc(size);
}

const uint8_t *parsed_bytes(void) {
    return allocated;
}

int parse(const uint8_t *bytes, size_t size, struct plan *plan) {
    static int fd = -1;
    if (fd < 0)
        fd = memfd_create("plan", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, bytes, size, 0) != (ssize_t)size) {
        perror("memfd");
        abort();
    }
    memset(plan, 0, sizeof *plan);
    if (setjmp(refused))
        return -1;
    plan_read(plan, fd);
    return 0;
}
