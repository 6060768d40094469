/* spawner ARMS_FILE: the least that can start a process and wait for it, so that an arm's time is the arm's own.
 *
 * ARMS_FILE: words that end in NUL; the word @end ends an arm. Some words ask for something new in each call:
 *   @open:PATH    a descriptor of the file, opened for this call
 *   @request      not a program, but claw-launch and its arguments; see request.h. Not beside other arms.
 *   @env:NAME=VALUE  this arm's environment, beside our own
 *   @leaf:DIR     a cgroup made in DIR, with the limits that @limit:FILE=VALUE words say; removed when it is over
 *   @id           a name that no other call has
 *   @output:PATH  where standard output goes, /dev/null otherwise
 * On standard input "ARM COUNT\n"; answers a line each call: nanoseconds, CPU microseconds of all its processes,
 * wait status. The time counts from the first of the words above to the end of the program that was started.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "request.h"

#define ARMS_MAX 64
#define WORDS_MAX 512
#define ENV_MAX 32
#define PATH_LENGTH 512

extern char **environ;

static char *arms[ARMS_MAX][WORDS_MAX];
static unsigned long calls;

_Noreturn static void fail(const char *what) {
    fprintf(stderr, "spawner: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_arms(const char *path) {
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &status))
        fail(path);
    char *text = malloc((size_t)status.st_size);
    if (!text || read(fd, text, (size_t)status.st_size) != status.st_size)
        fail(path);
    close(fd);
    int arm = 0, word = 0;
    for (char *at = text; at < text + status.st_size; at += strlen(at) + 1) {
        if (strcmp(at, "@end") == 0)
            arm++, word = 0;
        else if (word < WORDS_MAX - 1 && arm < ARMS_MAX)
            arms[arm][word++] = at;
        else {
            errno = E2BIG;
            fail(path);
        }
    }
}

static long long now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long cpu_us(void) {
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

static const char *after(const char *word, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(word, prefix, length) ? NULL : word + length;
}

static void set_limit(const char *leaf, const char *limit) {
    char path[PATH_LENGTH];
    const char *value = strchr(limit, '=') + 1;
    snprintf(path, sizeof path, "%s/%.*s", leaf, (int)(value - limit - 1), limit);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, value, strlen(value)) < 0)
        fail(path);
    close(fd);
}

static int spawn(char **argv, char **envp, const char *output) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, output ? output : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0666);
    pid_t pid;
    int status;
    errno = posix_spawn(&pid, argv[0], &actions, NULL, argv, envp);
    if (errno)
        fail(argv[0]);
    posix_spawn_file_actions_destroy(&actions);
    if (waitpid(pid, &status, 0) != pid)
        fail("wait");
    return status;
}

static void run(char **words) {
    char *argv[WORDS_MAX], *envp[ENV_MAX + 1], numbers[16][32], leaf[PATH_LENGTH] = "";
    const char *output = NULL;
    int envc = 0;
    for (char **variable = environ; *variable && envc < ENV_MAX / 2; variable++)
        envp[envc++] = *variable;
    int opened[16], argc = 0, used = 0, status, leaf_fd = -1, is_request = !strcmp(*words, "@request");
    long long cpu = cpu_us(), start = now_ns(), cpu_elsewhere = 0;
    for (char **word = words + is_request; *word; word++) {
        const char *rest;
        int fd = -1;
        if ((rest = after(*word, "@limit:"))) {
            set_limit(leaf, rest);
            continue;
        }
        if ((rest = after(*word, "@output:"))) {
            output = rest;
            continue;
        }
        if ((rest = after(*word, "@env:"))) {
            envp[envc++] = (char *)rest;
            continue;
        }
        if ((rest = after(*word, "@open:")))
            fd = open(rest, O_RDONLY);
        else if ((rest = after(*word, "@leaf:"))) {
            snprintf(leaf, sizeof leaf, "%s/bench-%d-%lu", rest, (int)getpid(), calls);
            if (mkdir(leaf, 0755))
                fail(leaf);
            leaf_fd = open(leaf, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (leaf_fd < 0)
                fail(leaf);
            continue;
        } else if (after(*word, "@id")) {
            snprintf(numbers[used], sizeof *numbers, "bench-%d-%lu", (int)getpid(), calls);
            opened[used] = -1;
            argv[argc++] = numbers[used++];
            continue;
        } else {
            argv[argc++] = *word;
            continue;
        }
        if (fd < 0)
            fail(*word);
        snprintf(numbers[used], sizeof *numbers, "%d", fd);
        opened[used] = fd;
        argv[argc++] = numbers[used++];
    }
    argv[argc] = envp[envc] = NULL;
    calls++;
    status = is_request ? request(argv, leaf_fd, output, &cpu_elsewhere) : spawn(argv, envp, output);
    while (used)
        if (opened[--used] >= 0)
            close(opened[used]);
    if (leaf_fd >= 0)
        close(leaf_fd);
    while (leaf[0] && rmdir(leaf)) {
        if (errno != EBUSY)
            fail(leaf);
        usleep(100); /* what was in it is still dying */
    }
    long long taken = now_ns() - start;
    /* bwrap leaves its init behind: its work counts, and disturbs nobody after it. The launcher is there to stay. */
    while (!is_request && waitpid(-1, NULL, 0) > 0)
        ;
    printf("%lld %lld %d\n", taken, cpu_us() - cpu + cpu_elsewhere, status);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: spawner ARMS_FILE\n", stderr);
        return 2;
    }
    read_arms(argv[1]);
    umask(0); /* a program of any user may write to its output once more, unless it is kept from it */
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
        fail("subreaper");
    unsigned arm, count;
    while (scanf("%u %u", &arm, &count) == 2) {
        if (arm >= ARMS_MAX || !arms[arm][0])
            return 2;
        while (count--)
            run(arms[arm]);
        fflush(stdout);
    }
    return 0;
}
