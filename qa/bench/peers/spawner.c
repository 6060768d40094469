/* spawner ARMS_FILE: the least that can start a process and wait for it, so that an arm's time is the arm's own.
 *
 * ARMS_FILE: words that end in NUL; the word @end ends an arm. Some words ask for something new in each call:
 *   @open:PATH    a descriptor of the file, opened for this call
 *   @sealed:PATH  a sealed memfd with the file's content
 *   @env:NAME=VALUE  this arm's environment, beside our own
 *   @status       a pipe's write end; the call is over when it is closed everywhere
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
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

static int sealed(const char *path) {
    int from = open(path, O_RDONLY | O_CLOEXEC), fd = memfd_create("plan", MFD_ALLOW_SEALING);
    if (from < 0 || fd < 0 || sendfile(fd, from, NULL, 1 << 24) <= 0)
        fail(path);
    close(from);
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL))
        fail(path);
    return fd;
}

static void run(char **words) {
    char *argv[WORDS_MAX], *envp[ENV_MAX + 1], numbers[16][32], leaf[PATH_LENGTH] = "";
    const char *output = "/dev/null";
    int envc = 0;
    for (char **variable = environ; *variable && envc < ENV_MAX / 2; variable++)
        envp[envc++] = *variable;
    int opened[16], argc = 0, used = 0, status_end = -1, pipe_ends[2];
    long long cpu = cpu_us(), start = now_ns();
    for (char **word = words; *word; word++) {
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
        else if ((rest = after(*word, "@sealed:")))
            fd = sealed(rest);
        else if (after(*word, "@status")) {
            if (pipe2(pipe_ends, O_CLOEXEC) || fcntl(pipe_ends[1], F_SETFD, 0))
                fail("pipe");
            status_end = pipe_ends[0];
            fd = pipe_ends[1];
        } else if ((rest = after(*word, "@leaf:"))) {
            snprintf(leaf, sizeof leaf, "%s/bench-%d-%lu", rest, (int)getpid(), calls);
            if (mkdir(leaf, 0755))
                fail(leaf);
            fd = open(leaf, O_RDONLY | O_DIRECTORY);
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
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t pid;
    errno = posix_spawn(&pid, argv[0], &actions, NULL, argv, envp);
    if (errno)
        fail(argv[0]);
    posix_spawn_file_actions_destroy(&actions);
    while (used)
        if (opened[--used] >= 0)
            close(opened[used]);
    char report[4096];
    while (status_end >= 0 && read(status_end, report, sizeof report) > 0)
        ;
    if (status_end >= 0)
        close(status_end);
    int status;
    if (waitpid(pid, &status, 0) != pid)
        fail("wait");
    while (leaf[0] && rmdir(leaf)) {
        if (errno != EBUSY)
            fail(leaf);
        usleep(100); /* what was in it is still dying */
    }
    long long taken = now_ns() - start;
    while (waitpid(-1, NULL, 0) > 0) /* bwrap leaves its init behind: its work counts, and disturbs nobody after it */
        ;
    printf("%lld %lld %d\n", taken, cpu_us() - cpu, status);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: spawner ARMS_FILE\n", stderr);
        return 2;
    }
    read_arms(argv[1]);
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
