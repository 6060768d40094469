/* The launcher's plan parser, callable again and again: where it would end the process, it comes back here. */
#pragma once

#include "launch.h"

/* 0 and a plan, or -1 for a plan that is refused. The plan lives until the next call. */
int parse(const uint8_t *bytes, size_t size, struct plan *plan);
/* The bytes that the plan's strings lie in: what the parser allocated, of exactly the plan's size. */
const uint8_t *parsed_bytes(void);
