/* What claw-python alone does. It is a module of Python, loaded by python/__main__.py in a process that has imported the
 * standard library: its launcher, and so each worker, is a copy of that process. Once all fences are up the worker runs
 * the tool's file, as a new `python3 -IS FILE` would. From the copy to the last fence no line of Python runs.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "launch.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { STATUS = 3, FENCES = 4 }; /* in the worker */
enum { PYTHON, OPTIONS, FILE_NAME };
#define WORDS_MAX 6
#define HEAD_BYTES 4096
#define ONE_THREAD 3 /* links of /proc/self/task */

const int is_python = 1;

/* Of python/__main__.py: begin(arguments, environment) makes this process a new Python and answers __main__'s names;
 * leave(status, exit) ends what the tool began and answers the exit code; take_apart() ends what it left. */
static struct {
    PyObject *begin, *leave, *take_apart;
} steps;
static char *title;
static size_t title_size;
static int fences[2];

pid_t copy_worker(void) {
    if (pipe2(fences, O_CLOEXEC))
        return -1;
    pid_t worker = fork();
    close(fences[worker == 0 ? 0 : 1]);
    return worker;
}

int is_copy_confined(pid_t worker) {
    char byte;
    int status;
    if (read(fences[0], &byte, 1) == 1)
        return 1;
    has_refused = waitpid(worker, &status, 0) == worker && WIFEXITED(status); /* and has told why */
    return 0;
}

static int is_single_threaded(void) {
    struct stat tasks;
    return stat("/proc/self/task", &tasks) == 0 && tasks.st_nlink == ONE_THREAD;
}

/* Nothing but 0, 1 and 2 stays open. The filter is up already, and could forbid it: then this is no sandbox. */
static void close_descriptors(void) {
    if (dup2(fences[1], FENCES) < 0 || syscall(SYS_close_range, FENCES + 1U, ~0U, 0))
        refuse("close-range");
    if (write(FENCES, "", 1) != 1 || syscall(SYS_close_range, (unsigned)STATUS, (unsigned)FENCES, 0))
        _exit(1);
    report_fd = -1;
}

/* What others see of this process: the call's words, as far as there is room for them, and the file's name. */
static void set_title(char *const *words) {
    const char *name = strrchr(words[FILE_NAME], '/');
    size_t used = 0;
    memset(title, 0, title_size);
    for (; *words && used + 1 < title_size; words++)
        used += (size_t)snprintf(title + used, title_size - used, "%s", *words) + 1;
    prctl(PR_SET_NAME, name ? name + 1 : "python3", 0, 0, 0);
}

static PyObject *listed(char *const *words) {
    PyObject *list = PyList_New(0), *word = NULL;
    for (; list && *words; words++) {
        if (!(word = PyUnicode_DecodeFSDefault(*words)) || PyList_Append(list, word))
            return NULL;
        Py_DECREF(word);
    }
    return list;
}

/* The C library's, and what Python is to have. */
static PyObject *set_environment(char *const *words) {
    PyObject *names = PyDict_New(), *name, *value;
    if (!names || clearenv())
        return NULL;
    for (; *words; words++) {
        size_t length = strcspn(*words, "=");
        char *kept = strdup(*words);
        if (!kept || putenv(kept) || !(name = PyBytes_FromStringAndSize(kept, (Py_ssize_t)length)) ||
            !(value = PyBytes_FromString(kept + length + 1)) || PyDict_SetItem(names, name, value))
            return NULL;
        Py_DECREF(name);
        Py_DECREF(value);
    }
    return names;
}

static int flush(const char *name) {
    PyObject *file = PySys_GetObject(name), *flushed = NULL, *is_closed = NULL;
    if (!file || file == Py_None)
        return 0;
    if ((is_closed = PyObject_GetAttrString(file, "closed")) && PyObject_IsTrue(is_closed) != 0) {
        Py_DECREF(is_closed);
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(is_closed);
    PyErr_Clear();
    if (!(flushed = PyObject_CallMethod(file, "flush", NULL)))
        PyErr_Clear();
    Py_XDECREF(flushed);
    return flushed ? 0 : -1;
}

/* As python3 ends, but that memory is left to the kernel: to take apart what is shared would copy all of it. */
_Noreturn static void end(PyObject *result) {
    int is_interrupted = !result && PyErr_Occurred() == PyExc_KeyboardInterrupt, status = result ? 0 : 1;
    PyObject *exit = !result && PyErr_ExceptionMatches(PyExc_SystemExit) ? PyErr_GetRaisedException() : Py_None;
    if (!result && exit == Py_None)
        PyErr_Print();
    PyEval_SetTrace(NULL, NULL);
    PyEval_SetProfile(NULL, NULL);
    PyObject *told = PyObject_CallFunction(steps.leave, "iO", status, exit);
    if (told)
        status = (int)PyLong_AsLong(told);
    else
        PyErr_Print();
    /* What is not quite ordinary Python ends itself: it stops daemon threads first, and complains in its own words. */
    int failed = !is_single_threaded() || flush("stdout") || flush("stderr");
    if (!failed) {
        if (!PyObject_CallNoArgs(steps.take_apart))
            PyErr_Print();
        failed = flush("__stdout__") || flush("__stderr__");
    }
    if (failed)
        failed = Py_FinalizeEx();
    if (is_interrupted) {
        signal(SIGINT, SIG_DFL);
        kill(getpid(), SIGINT);
    }
    fflush(NULL);
    _exit(failed ? 120 : status);
}

/* Archives and compiled files begin otherwise: they go the long way, and so does what cannot be read. */
static FILE *open_text(const char *path) {
    char head[HEAD_BYTES];
    FILE *file = fopen(path, "rb");
    if (file && memchr(head, 0, fread(head, 1, sizeof head, file))) {
        fclose(file);
        return NULL;
    }
    if (file)
        rewind(file);
    return file;
}

_Noreturn void become(const struct plan *plan) {
    errno = EINVAL;
    if (plan->argc <= FILE_NAME)
        refuse("argv");
    close_descriptors();
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* as after an exec: what /proc says of it is its own */
    signal(SIGPIPE, SIG_IGN);           /* as Python has it */
    signal(SIGXFSZ, SIG_IGN);
    FILE *file = open_text(plan->argv[FILE_NAME]);
    if (!file) {
        execve(plan->argv[PYTHON], plan->argv, plan->envp);
        _exit(127);
    }
    PyOS_AfterFork_Child();
    /* Below the tool's file is no frame of ours. */
    PyThreadState *state = PyThreadState_Get();
    state->current_frame = NULL;
    state->py_recursion_remaining = state->py_recursion_limit;
    PyObject *words = listed(plan->argv), *variables = set_environment(plan->envp), *names = NULL;
    long zone = timezone;
    tzset(); /* the machine may have moved meanwhile; Python has to be told of that */
    char *name = strdup(plan->argv[FILE_NAME]);
    set_title(plan->argv);
    /* Of this call no more than it would know elsewhere, and of others nothing. */
    munmap(plan->bytes, plan->size);
    memset((void *)(uintptr_t)plan, 0, sizeof *plan);
    forget_calls();
    if (words && variables && name)
        names = PyObject_CallFunction(steps.begin, "OOi", words, variables, zone != timezone);
    if (!names)
        end(NULL);
    Py_DECREF(words);
    Py_DECREF(variables);
    PyObject *result = PyRun_FileExFlags(file, name, Py_file_input, names, names, 1, NULL);
    Py_DECREF(names);
    end(result);
}

static PyObject *serve(PyObject *module, PyObject *given) {
    (void)module;
    char *argv[WORDS_MAX + 2] = {"claw-python"};
    PyObject *words;
    if (!PyArg_ParseTuple(given, "O!OOO", &PyList_Type, &words, &steps.begin, &steps.leave, &steps.take_apart))
        return NULL;
    Py_ssize_t count = PyList_Size(words);
    if (count > WORDS_MAX)
        return PyErr_Format(PyExc_ValueError, "too many words");
    for (Py_ssize_t i = 0; i < count; i++)
        if (!(argv[i + 1] = (char *)(uintptr_t)PyUnicode_AsUTF8(PyList_GetItem(words, i))))
            return NULL;
    /* A copy has only the thread that made it: what another held would stay locked. */
    if (!is_single_threaded())
        return PyErr_Format(PyExc_RuntimeError, "there is more than one thread");
    prctl(PR_SET_NAME, argv[0], 0, 0, 0);
    PyOS_BeforeFork();
    _exit(launch((int)count + 1, argv));
}

static PyMethodDef methods[] = {{"serve", serve, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "claw_python", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit_claw_python(void) {
    char words[HEAD_BYTES];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = read(fd, words, sizeof words);
    close(fd);
    title = program_invocation_name; /* argv[0], which the rest follows */
    title_size = size > 0 ? (size_t)size : 0;
    return PyModule_Create(&definition);
}
