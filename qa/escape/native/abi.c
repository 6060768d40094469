/* System calls by the two other doors of an x86-64 kernel: abi int80 | x32. Prints "ok", "answered" or "absent".
 *
 * int80: i386's socketcall(SYS_SOCKET, {AF_UNIX, SOCK_STREAM, 0}), the way round a filter that looks at socket().
 * x32: getpid with the x32 bit; a kernel without that ABI answers ENOSYS, and a filter must have ended us before.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

static unsigned arguments[3] = {1, 1, 0}; /* below 4 GiB: the program is linked so */

int main(int argc, char **argv) {
    long result;
    if (argc == 2 && !strcmp(argv[1], "int80"))
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(102L), "b"(1L), "c"(arguments) : "memory", "r8", "r9", "r10", "r11");
    else if (argc == 2 && !strcmp(argv[1], "x32"))
        __asm__ volatile("syscall" : "=a"(result) : "a"(0x40000000L | 39) : "memory", "rcx", "r11");
    else
        return 2;
    puts((int)result >= 0 ? "ok" : (int)result == -ENOSYS ? "absent" : "answered");
    return 0;
}
