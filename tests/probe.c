/* Writes what this process can see of itself to REPORTS/PID, and exits 0.
 *
 * One "name value" a line, the value in hex where it is bytes of any kind. Compiled by conftest.py.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#define MOST_DESCRIPTORS 1100

extern char **environ;
static FILE *report;

static void bytes(const char *name, const char *value, size_t size)
{
    fprintf(report, "%s ", name);
    for (size_t i = 0; i < size; i++)
        fprintf(report, "%02x", (unsigned char)value[i]);
    fputc('\n', report);
}

static void strings(const char *name, char **list)
{
    fprintf(report, "%s ", name);
    for (; *list; list++) {
        for (const char *c = *list; *c; c++)
            fprintf(report, "%02x", (unsigned char)*c);
        fputc(',', report);
    }
    fputc('\n', report);
}

static void link_target(const char *name, const char *path)
{
    char target[4096];
    ssize_t size = readlink(path, target, sizeof target);
    bytes(name, target, size < 0 ? 0 : (size_t)size);
}

static void file(const char *name, const char *path)
{
    static char text[1 << 16];
    int fd = open(path, O_RDONLY);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof text);
    close(fd);
    bytes(name, text, size < 0 ? 0 : (size_t)size);
}

static void descriptors(void)
{
    for (int fd = 0; fd < MOST_DESCRIPTORS; fd++) {
        struct stat about;
        char name[32], path[64], target[4096];
        int flags = fcntl(fd, F_GETFD);
        if (flags < 0 || fstat(fd, &about) < 0)
            continue;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t size = readlink(path, target, sizeof target - 1);
        target[size < 0 ? 0 : size] = 0;
        snprintf(name, sizeof name, "fd.%d", fd);
        fprintf(report, "%s close-on-exec=%d flags=%o offset=%ld device=%lx inode=%lu %s\n", name, flags,
                fcntl(fd, F_GETFL), (long)lseek(fd, 0, SEEK_CUR), (long)about.st_dev,
                (unsigned long)about.st_ino, target);
    }
}

static void signals(void)
{
    sigset_t blocked, pending;
    sigprocmask(SIG_BLOCK, NULL, &blocked);
    sigpending(&pending);
    for (int number = 1; number < NSIG; number++) {
        struct sigaction action;
        if (sigaction(number, NULL, &action) < 0)
            continue;
        fprintf(report, "signal.%d %s%s%s flags=%x\n", number,
                action.sa_handler == SIG_DFL   ? "default"
                : action.sa_handler == SIG_IGN ? "ignored"
                                               : "caught",
                sigismember(&blocked, number) ? " blocked" : "",
                sigismember(&pending, number) ? " pending" : "", (unsigned)action.sa_flags);
    }
}

int main(int argc, char **argv)
{
    char *text, path[4096], cwd[4096];
    size_t size;
    struct itimerval timer;
    int death_signal = 0;
    mode_t mask = umask(0);

    report = open_memstream(&text, &size);
    descriptors();
    signals();
    fprintf(report, "argc %d\n", argc);
    strings("argv", argv);
    strings("environ", environ);
    const char *execfn = (const char *)getauxval(AT_EXECFN);
    bytes("execfn", execfn, strlen(execfn));
    link_target("exe", "/proc/self/exe");
    fprintf(report, "pid %d\nppid %d\npgid %d\nsid %d\n", getpid(), getppid(), getpgrp(), getsid(0));
    fprintf(report, "umask %o\nnice %d\n", mask, getpriority(PRIO_PROCESS, 0));
    link_target("cwd", "/proc/self/cwd");
    const char *answer = getcwd(cwd, sizeof cwd);
    fprintf(report, "getcwd %s\n", answer ? answer : strerror(errno));
    for (int resource = 0; resource < RLIM_NLIMITS; resource++) {
        struct rlimit limit;
        if (getrlimit(resource, &limit) == 0)
            fprintf(report, "rlimit.%d %lx %lx\n", resource, (long)limit.rlim_cur, (long)limit.rlim_max);
    }
    prctl(PR_GET_PDEATHSIG, &death_signal);
    fprintf(report, "death-signal %d\nno-new-privileges %d\n", death_signal,
            prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    getitimer(ITIMER_REAL, &timer);
    fprintf(report, "alarm %d\n", timer.it_value.tv_sec > 0);
    file("status", "/proc/self/status");
    file("timer-slack", "/proc/self/timerslack_ns");
    file("oom", "/proc/self/oom_score_adj");
    file("personality", "/proc/self/personality");
    file("core-filter", "/proc/self/coredump_filter");
    file("cgroup", "/proc/self/cgroup");
    fclose(report);

    snprintf(path, sizeof path, REPORTS "/%d", getpid());
    int out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0 || write(out, text, size) != (ssize_t)size)
        return 99;
    return 0;
}
