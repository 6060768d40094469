#include "parse.h"

#include <stdlib.h>

static uint8_t *copy;

const uint8_t *parsed_bytes(void) {
    return copy;
}

int parse(const uint8_t *bytes, size_t size, struct plan *plan) {
    free(copy);
    copy = malloc(size);
    if (!copy)
        abort();
    memcpy(copy, bytes, size);
    return plan_parse(plan, copy, size);
}
