/* A preload shim between a process and the files of one folder ($FAULTS_FOLDER), which
 *
 *   records what is done to them, in order, in $FAULTS_LOG (read by shim.py), and
 *   fails the k-th operation of a kind, once or from then on: faults_arm, faults_disarm.
 *
 * Memory maps are not seen: of SQLite's files only the -shm is mapped, and that need not survive.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { OPEN = 1, READ = 2, WRITE = 4, TRUNCATE = 8, SYNC = 16, UNLINK = 32, LOCK = 64, MAP = 128 };

#define FILES 65536
static char *names[FILES]; /* the name in the folder behind a descriptor; "" is the folder itself */
static char folder[PATH_MAX];
static size_t folder_length;
static int log_file = -1;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

#define KINDS 8
static struct {
    int armed;
    unsigned kinds;
    long at, seen[KINDS];
    int error, forever;
} fault;

#define REAL(result, name, ...) \
    static result (*real_##name)(__VA_ARGS__); \
    static void find_##name(void) { if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name); }

REAL(int, open64, const char *, int, ...)
REAL(int, close, int)
REAL(ssize_t, read, int, void *, size_t)
REAL(ssize_t, pread64, int, void *, size_t, off64_t)
REAL(ssize_t, write, int, const void *, size_t)
REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t)
REAL(int, ftruncate64, int, off64_t)
REAL(int, fsync, int)
REAL(int, fdatasync, int)
REAL(int, unlink, const char *)
REAL(int, fcntl64, int, int, ...)
REAL(int, usleep, useconds_t)
REAL(void *, mmap64, void *, size_t, int, int, int, off64_t)

__attribute__((constructor)) static void begin(void)
{
    find_open64(), find_close(), find_read(), find_pread64(), find_write(), find_pwrite64(), find_ftruncate64();
    find_fsync(), find_fdatasync(), find_unlink(), find_fcntl64(), find_mmap64(), find_usleep();
    const char *path = getenv("FAULTS_FOLDER"), *log = getenv("FAULTS_LOG");
    if (path && strlen(path) < sizeof folder)
        folder_length = strlen(strcpy(folder, path));
    if (log)
        log_file = real_open64(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static const char *name_in_folder(const char *path)
{
    if (!folder_length || strncmp(path, folder, folder_length))
        return NULL;
    path += folder_length;
    return *path == '/' ? path + 1 : *path ? NULL : path;
}

static const char *name_of(int fd)
{
    return fd >= 0 && fd < FILES ? names[fd] : NULL;
}

/* One record: its kind, the length of the name and of the data, an offset; then the name and the data. */
static void record(enum kind kind, const char *name, int64_t offset, const void *data, size_t length)
{
    struct { uint32_t kind, name, data, unused; int64_t offset; } head = { kind, strlen(name), length, 0, offset };
    struct iovec parts[] = { { &head, sizeof head }, { (void *)name, head.name }, { (void *)data, length } };
    int before = errno;
    if (log_file >= 0 && writev(log_file, parts, 3) != (ssize_t)(sizeof head + head.name + length))
        abort();
    errno = before;
}

static int fails(enum kind kind)
{
    int failing = 0;
    pthread_mutex_lock(&mutex);
    if (fault.armed) {
        long seen = ++fault.seen[__builtin_ctz(kind)];
        failing = fault.kinds & kind && (seen == fault.at || (fault.forever && seen > fault.at));
    }
    pthread_mutex_unlock(&mutex);
    if (failing)
        errno = fault.error;
    return failing;
}

/* From now on the at-th operation of each of these kinds fails with the error; forever: each one from it on. */
void faults_arm(unsigned kinds, long at, int error, int forever)
{
    pthread_mutex_lock(&mutex);
    fault.armed = 1, fault.kinds = kinds, fault.at = at, fault.error = error, fault.forever = forever;
    memset(fault.seen, 0, sizeof fault.seen);
    pthread_mutex_unlock(&mutex);
}

/* Everything works again. Gives how many operations of each kind there were, in the order of the kinds. */
const long *faults_disarm(void)
{
    pthread_mutex_lock(&mutex);
    fault.armed = 0;
    pthread_mutex_unlock(&mutex);
    return fault.seen;
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    find_open64();
    const char *name = name_in_folder(path);
    if (!name)
        return real_open64(path, flags, mode);
    if (fails(OPEN))
        return -1;
    int is_new = (flags & O_CREAT) && access(path, F_OK);
    int fd = real_open64(path, flags, mode);
    if (fd >= 0 && fd < FILES) {
        names[fd] = strdup(name);
        if (is_new)
            record(OPEN, name, 0, NULL, 0);
    }
    return fd;
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open64(path, flags, mode);
}

int close(int fd)
{
    find_close();
    if (name_of(fd)) {
        free(names[fd]);
        names[fd] = NULL;
    }
    return real_close(fd);
}

ssize_t read(int fd, void *buffer, size_t length)
{
    find_read();
    return name_of(fd) && fails(READ) ? -1 : real_read(fd, buffer, length);
}

ssize_t pread64(int fd, void *buffer, size_t length, off64_t offset)
{
    return name_of(fd) && fails(READ) ? -1 : real_pread64(fd, buffer, length, offset);
}

ssize_t write(int fd, const void *data, size_t length)
{
    find_write();
    const char *name = name_of(fd);
    if (!name)
        return real_write(fd, data, length);
    if (fails(WRITE))
        return -1;
    off64_t offset = lseek64(fd, 0, real_fcntl64(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t written = real_write(fd, data, length);
    if (written > 0)
        record(WRITE, name, offset, data, written);
    return written;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    const char *name = name_of(fd);
    if (!name)
        return real_pwrite64(fd, data, length, offset);
    if (fails(WRITE)) {
        /* A disk that fails, or is full, may have taken a part. */
        int error = errno;
        if (length > 1 && real_pwrite64(fd, data, length / 2, offset) > 0)
            record(WRITE, name, offset, data, length / 2);
        errno = error;
        return -1;
    }
    ssize_t written = real_pwrite64(fd, data, length, offset);
    if (written > 0)
        record(WRITE, name, offset, data, written);
    return written;
}

int ftruncate64(int fd, off64_t length)
{
    const char *name = name_of(fd);
    if (name && fails(TRUNCATE))
        return -1;
    int failed = real_ftruncate64(fd, length);
    if (name && !failed)
        record(TRUNCATE, name, length, NULL, 0);
    return failed;
}

static int synced(int fd, int (*sync)(int))
{
    const char *name = name_of(fd);
    if (name && fails(SYNC))
        return -1;
    int failed = sync(fd);
    if (name && !failed)
        record(SYNC, name, 0, NULL, 0);
    return failed;
}

int fsync(int fd) { return synced(fd, real_fsync); }
int fdatasync(int fd) { return synced(fd, real_fdatasync); }

int unlink(const char *path)
{
    find_unlink();
    const char *name = name_in_folder(path);
    if (name && fails(UNLINK))
        return -1;
    int failed = real_unlink(path);
    if (name && !failed)
        record(UNLINK, name, 0, NULL, 0);
    return failed;
}

int fcntl64(int fd, int command, ...)
{
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    find_fcntl64();
    if (command == F_SETLK && name_of(fd) && ((struct flock *)argument)->l_type != F_UNLCK && fails(LOCK))
        return -1;
    return real_fcntl64(fd, command, argument);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
    find_mmap64();
    if (name_of(fd) && fails(MAP))
        return MAP_FAILED;
    return real_mmap64(address, length, protection, flags, fd, offset);
}

/* SQLite sleeps before it asks for a lock again, ten seconds in all; a lock that fails here is not worth it. */
int usleep(useconds_t duration)
{
    return fault.armed ? 0 : real_usleep(duration);
}
