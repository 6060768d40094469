/* claw-launch as the isolator uses it: one of them, started at the first call, and a request for each. */
#pragma once

/* words: PROGRAM UID_MAP GID_MAP INIT_UID PLAN_FILE. Runs the plan to its end, with standard output to `output` and
 * in the cgroup `leaf` (-1: without one); answers the program's wait status, -1 where there is none. */
int request(char **words, int leaf, const char *output, long long *cpu_us);
