/* The launcher's plan parser on a copy of exactly the plan's size, so that the sanitizers see a step beyond it. */
#pragma once

#include "launch.h"

/* 0 and a plan, or -1 for a plan that is refused. The plan lives until the next call. */
int parse(const uint8_t *bytes, size_t size, struct plan *plan);
/* The bytes that the plan's strings lie in. */
const uint8_t *parsed_bytes(void);
