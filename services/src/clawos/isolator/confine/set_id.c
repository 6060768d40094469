/* No set-user-id or set-group-id file by open, creat or mkdir.
 *
 * The unit's RestrictSUIDSGID= says so to every process of the service, and blocks openat2 with it, whose mode no
 * filter can see. Bubblewrap cannot do without openat2, so where it is chosen that setting is off, and the programs in
 * sandboxes get the same from here. By chmod the profiles in policies/seccomp/ refuse it. */
#define _GNU_SOURCE
#include "../launcher/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine.h"

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#define SET_ID (S_ISUID | S_ISGID)
#define MAKES (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))
#define DATA(field) ((unsigned)offsetof(struct seccomp_data, field))
/* The low half, which is all that the kernel reads of a mode or of flags. */
#define LOAD_ARGUMENT(n) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(args[n]))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define REFUSE ANSWER(SECCOMP_RET_ERRNO | EPERM)
#define PASS ANSWER(SECCOMP_RET_ALLOW)

#define IF_CALL(number, length) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, (length))
/* A call whose argument `mode` is always one. */
#define RULE_MODE(number, mode) \
    IF_CALL(number, 4), LOAD_ARGUMENT(mode), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, SET_ID, 0, 1), REFUSE, PASS
/* A call whose argument `mode` counts only where `flags` make a file; otherwise it may be anything. */
#define RULE_FLAGS(number, flags, mode)                                                                      \
    IF_CALL(number, 6), LOAD_ARGUMENT(flags), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, MAKES, 0, 3),              \
        LOAD_ARGUMENT(mode), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, SET_ID, 0, 1), REFUSE, PASS

void confine_set_id(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0),
        PASS, /* another architecture: the profile kills it */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, DATA(nr)),
        IF_CALL(SYS_openat2, 1),
        ANSWER(SECCOMP_RET_ERRNO | ENOSYS),
        RULE_FLAGS(SYS_openat, 2, 3),
        RULE_MODE(SYS_mkdirat, 2),
#ifdef SYS_open
        RULE_FLAGS(SYS_open, 1, 2),
        RULE_MODE(SYS_creat, 1),
        RULE_MODE(SYS_mkdir, 1),
#endif
        PASS,
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program))
        refuse("seccomp");
}
