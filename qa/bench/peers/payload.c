/* What every arm of the sandbox benchmark runs; static, so that the loader's work is in no arm's time.
 *
 *   payload           nothing: exit 0
 *   payload say       one byte on standard output
 *   payload probe     what confines this process, a line each: NAME WORDS
 *   payload fill MIB  touch that much memory, then say so
 *
 * Every call of the kernel is made where `probe` can say what came of it; nothing is taken from a promise.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void print_file(const char *name, const char *path) {
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    text[length > 0 ? length : 0] = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        printf("%s %s\n", name, line);
    if (fd >= 0)
        close(fd);
}

static void print_namespaces(void) {
    static const char *const names[] = {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64], target[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        ssize_t length = readlink(path, target, sizeof target - 1);
        target[length > 0 ? length : 0] = 0;
        printf("namespace %s %s\n", names[i], target);
    }
}

/* What Landlock alone denies, while our own filter denies the calls that would ask it: to open what one holds already,
 * here a file outside that everybody may write. */
static void print_reopen(void) {
    int fd = open("/proc/self/fd/1", O_WRONLY | O_CLOEXEC);
    printf("reopen %s\n", fd >= 0 ? "ok" : errno == EACCES ? "EACCES" : "other");
}

static int fill(const char *text) {
    size_t bytes = (size_t)atoi(text) << 20;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return 1;
    for (size_t at = 0; at < bytes; at += 4096)
        memory[at] = 1;
    return puts("filled") < 0;
}

int main(int argc, char **argv) {
    if (argc == 1)
        return 0;
    if (strcmp(argv[1], "say") == 0)
        return write(1, "x", 1) != 1;
    if (argc == 3 && strcmp(argv[1], "fill") == 0)
        return fill(argv[2]);
    print_namespaces();
    print_file("uid_map", "/proc/self/uid_map");
    print_file("status", "/proc/self/status");
    print_reopen();
    return 0;
}
