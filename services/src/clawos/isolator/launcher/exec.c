/* What claw-launch alone does: its worker becomes another program. */
#include "launch.h"

const int is_python = 0;

int main(int argc, char **argv) {
    return launch(argc, argv);
}

pid_t copy_worker(void) {
    return -1;
}

int is_copy_confined(pid_t worker) {
    return worker < 0;
}

_Noreturn void become(const struct plan *plan) {
    execve(plan->argv[0], plan->argv, plan->envp);
    refuse("exec");
}
