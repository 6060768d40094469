/* inject LOG_FD PROCESS CALL NTH FAULT PROGRAM [ARGUMENT...]
 *
 * Runs a program and what it starts under ptrace, and makes one system call fail: the NTH (from 1) of number CALL
 * that PROCESS makes. Processes are counted from 0 in the order of their making. The call is not carried out and
 * returns the errno FAULT; with FAULT 0 the process is killed there instead. CALL -1: nothing fails.
 *
 * strace can inject too, but counts in each process anew: the second process's first openat cannot be named there.
 *
 * LOG_FD gets a line for each call: "PROCESS CALL RESULT", with "injected" as the result where it was. The second
 * execve of a process is the sandbox's program: it goes on untraced. Ends when all that is traced has; the exit
 * status is the program's.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/ptrace.h>

#ifndef __x86_64__
#error "the registers of this architecture are not known here"
#endif

#define PROCESSES_MAX 32
#define CALLS_MAX 512

struct process {
    pid_t pid;
    long call;
    int inject;
    unsigned made[CALLS_MAX];
};

static struct process processes[PROCESSES_MAX];
static unsigned process_count, alive;
static FILE *log_file;

_Noreturn static void die(const char *what) {
    perror(what);
    exit(125);
}

static struct process *find(pid_t pid) {
    for (unsigned i = 0; i < process_count; i++)
        if (processes[i].pid == pid)
            return &processes[i];
    if (process_count == PROCESSES_MAX) {
        fputs("inject: too many processes\n", stderr);
        exit(125);
    }
    processes[process_count].pid = pid;
    alive++;
    return &processes[process_count++];
}

static void set_register(pid_t pid, size_t offset, long value) {
    if (ptrace(PTRACE_POKEUSER, pid, offset, value) && errno != ESRCH)
        die("inject: PTRACE_POKEUSER");
}

/* At the entry of a call or behind it. Returns 0 when the process needs tracing no longer. */
static int at_call(struct process *process, long wanted_process, long wanted_call, unsigned nth, int fault) {
    struct ptrace_syscall_info info;
    if (ptrace(PTRACE_GET_SYSCALL_INFO, process->pid, sizeof info, &info) < 0)
        return 1; /* killed meanwhile: its end comes next */
    long number = process - processes;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        process->call = (long)info.entry.nr;
        if (process->call < 0 || process->call >= CALLS_MAX)
            return 1;
        unsigned made = ++process->made[process->call];
        process->inject = number == wanted_process && process->call == wanted_call && made == nth;
        if (process->inject && !fault) {
            fprintf(log_file, "%ld %ld injected\n", number, process->call);
            kill(process->pid, SIGKILL);
        } else if (process->inject) {
            /* Another one in its place, for the sandbox's filter kills whoever makes number -1. */
            set_register(process->pid, offsetof(struct user_regs_struct, orig_rax), SYS_getpid);
        }
    } else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
        if (process->inject) {
            set_register(process->pid, offsetof(struct user_regs_struct, rax), -fault);
            fprintf(log_file, "%ld %ld injected\n", number, process->call);
        } else {
            fprintf(log_file, "%ld %ld %ld\n", number, process->call, (long)info.exit.rval);
        }
        process->inject = 0;
        int is_program = number > 0 && process->call == SYS_execve && info.exit.rval == 0;
        return !is_program;
    }
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 7) {
        fputs("usage: inject LOG_FD PROCESS CALL NTH FAULT PROGRAM [ARGUMENT...]\n", stderr);
        return 125;
    }
    log_file = fdopen(atoi(argv[1]), "w");
    if (!log_file)
        die("inject: LOG_FD");
    setlinebuf(log_file); /* to be read even if we are killed */
    long wanted_process = atol(argv[2]), wanted_call = atol(argv[3]);
    unsigned nth = (unsigned)atoi(argv[4]);
    int fault = atoi(argv[5]), status, exit_status = 125;
    pid_t first = fork();
    if (first < 0)
        die("inject: fork");
    if (first == 0) {
        raise(SIGSTOP); /* until we hold it */
        execv(argv[6], argv + 6);
        die("inject: execv");
    }
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE |
                         PTRACE_O_EXITKILL;
    if (waitpid(first, &status, WUNTRACED) != first || ptrace(PTRACE_SEIZE, first, 0, options))
        die("inject: PTRACE_SEIZE");
    kill(first, SIGCONT);
    find(first);
    while (alive) {
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0)
            die("inject: waitpid");
        struct process *process = find(pid);
        if (!WIFSTOPPED(status)) {
            alive--;
            if (pid == first)
                exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        int number = WSTOPSIG(status), event = status >> 16, deliver = 0;
        if (number == (SIGTRAP | 0x80)) {
            if (!at_call(process, wanted_process, wanted_call, nth, fault)) {
                ptrace(PTRACE_DETACH, pid, 0, 0);
                alive--;
                continue;
            }
        } else if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
            unsigned long child;
            if (!ptrace(PTRACE_GETEVENTMSG, pid, 0, &child))
                find((pid_t)child);
        } else if (!event) {
            deliver = number;
        }
        ptrace(PTRACE_SYSCALL, pid, 0, deliver);
    }
    fflush(log_file);
    return exit_status;
}
