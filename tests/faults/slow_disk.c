/* A disk on which every sync takes as long as IGQ_SYNC_MS says: preloaded into a process. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_disk(void)
{
    const char *milliseconds = getenv("IGQ_SYNC_MS");
    if (milliseconds)
        usleep(1000 * (useconds_t)atoi(milliseconds));
}

int fsync(int file)
{
    wait_for_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(file);
}

int fdatasync(int file)
{
    wait_for_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(file);
}
