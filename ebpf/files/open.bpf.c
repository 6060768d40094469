/* Files opened, and made by it. All that may refuse it has been asked; only the file system itself comes after. */
#include "../scratch.h"
#include "../text.h"

static __always_inline __u32 tell(const struct follow *follow, struct file *file, enum kind kind) {
    struct scratch *scratch = take_scratch(kind, follow);
    if (!scratch)
        return 0;
    struct event *event = (struct event *)scratch->record;
    umode_t mode = file->f_inode->i_mode;
    __u32 fixed;
    if (kind == KIND_OPEN) {
        struct event_open *open = (struct event_open *)event;
        open->flags = file->f_flags;
        open->mode = mode;
        open->write = !!(file->f_mode & FMODE_WRITE);
        open->spare = 0;
        fixed = sizeof(*open);
    } else {
        struct event_create *create = (struct event_create *)event;
        create->mode = mode;
        create->spare = 0;
        fixed = sizeof(*create);
    }
    event->text[0] = path_of(scratch->record + fixed, &file->f_path);
    emit_scratch(scratch, kind, fixed);
    return 0;
}

/* Of the programs on one hook the one that was attached last runs first: the enforcement's come before this. */
SEC("lsm/file_open")
int BPF_PROG(on_open, struct file *file) {
    struct follow *follow = followed();
    if (!follow)
        return 0;
    if (file->f_mode & FMODE_CREATED && records(follow, KIND_CREATE))
        tell(follow, file, KIND_CREATE);
    if (records(follow, KIND_OPEN))
        tell(follow, file, KIND_OPEN);
    return 0;
}
