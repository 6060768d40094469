/* claw-confine's own declarations; the plan and the fences are claw-launch's. */
#pragma once

/* Where `outside` puts the home, and bubblewrap.py has bubblewrap take it from: there on every machine, and covered
 * only in the mount namespace that nobody else sees. */
#define STAGE "/mnt"

/* set_id.c */
void confine_set_id(void);
