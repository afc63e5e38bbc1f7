/* What a RUN step can reach that it should not: tries each thing, and prints the names of those that worked.
 *
 * Built by src/tests/e2e/sandbox_battery.rs with the host's compiler, statically, and run as a step. The first two
 * are controls: they must work, or the others prove nothing. Numbers are written out, for old headers. x86_64 only
 * where it says so. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static void worked(const char *name, long result)
{
    if (result >= 0)
        printf("%s\n", name);
}

static struct sockaddr_un address(const char *name, socklen_t *length)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path + 1, name, sizeof a.sun_path - 2);
    *length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    return a;
}

static int reach(const char *name)
{
    socklen_t length;
    struct sockaddr_un a = address(name, &length);
    return connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, length);
}

static int reach_own(void)
{
    // Abstract names belong to the network namespace, which is the host's: batteries side by side must not share one.
    struct stat ns;
    char name[64];
    if (stat("/proc/self/ns/mnt", &ns) < 0)
        return -1;
    snprintf(name, sizeof name, "ply-own-%lu", (unsigned long)ns.st_ino);
    socklen_t length;
    struct sockaddr_un a = address(name, &length);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(s, (void *)&a, length) < 0 || listen(s, 1) < 0)
        return -1;
    int pid = fork();
    if (pid == 0)
        _exit(reach(name) < 0);
    int status;
    waitpid(pid, &status, 0);
    return status == 0 ? 0 : -1;
}

static int device(const char *path, int type, int major, int minor)
{
    unlink(path);
    if (mknod(path, type | 0666, makedev(major, minor)) < 0)
        return -1;
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    unlink(path);
    return fd;
}

static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    return fd < 0 ? -1 : (int)write(fd, text, strlen(text));
}

static int shows(const char *path)
{
    char byte;
    int fd = open(path, O_RDONLY);
    return fd >= 0 && read(fd, &byte, 1) == 1 ? 0 : -1;
}

/* A directory whose parent is another one leads out. */
static int above(const char *path)
{
    struct stat here, up;
    if (stat("/", &here) < 0 || stat(path, &up) < 0)
        return -1;
    return here.st_dev == up.st_dev && here.st_ino == up.st_ino ? -1 : 0;
}

#ifdef __x86_64__
static long int80(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result < 0 && result > -4096 ? -1 : result;
}
#endif

int main(int count, char **arguments)
{
    for (int fd = 3; fd < 64; fd++)
        worked("descriptor above 2", fcntl(fd, F_GETFD));

    worked("control: chroot", chroot("/"));
    worked("control: own abstract socket", reach_own());

    worked("above the root", above("/.."));
    worked("above the root, by /proc", above("/proc/1/root/.."));
    worked("abstract socket of the host", count > 1 ? reach(arguments[1]) : -1);
    worked("process of the host", count > 2 ? kill(atoi(arguments[2]), 0) : -1);
    worked("disk 8:0", device("/tmp/d", S_IFBLK, 8, 0));
    worked("disk 254:0", device("/tmp/d", S_IFBLK, 254, 0));
    worked("disk 254:0 in /dev", device("/dev/d", S_IFBLK, 254, 0));
    worked("disk 254:0 in /dev/shm", device("/dev/shm/d", S_IFBLK, 254, 0));
    worked("memory 1:1", device("/tmp/d", S_IFCHR, 1, 1));
    worked("memory 1:1 in /dev", device("/dev/d", S_IFCHR, 1, 1));
    worked("mount", mount("none", "/tmp", "tmpfs", 0, 0));
    worked("remount", mount(0, "/sys", 0, MS_REMOUNT | MS_BIND, 0));
    worked("unmask", umount2("/proc/interrupts", MNT_DETACH));
    worked("unshare user", unshare(CLONE_NEWUSER));
    worked("unshare mounts", unshare(CLONE_NEWNS));
    worked("unshare cgroup", unshare(0x02000000));
    worked("clone3", syscall(435, 0, 0));
    worked("setns", setns(0, 0));
    worked("pivot_root", syscall(SYS_pivot_root, ".", "."));
    worked("open_tree", syscall(428, -100, "/", 1));
    worked("fsopen", syscall(430, "proc", 0));
    worked("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    worked("add_key", syscall(SYS_add_key, "user", "a", "b", 1, -3));
    worked("io_uring", syscall(425, 1, 0));
    worked("bpf", syscall(SYS_bpf, 0, 0, 0));
    worked("userfaultfd", syscall(SYS_userfaultfd, 0));
    worked("perf", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    worked("AF_ALG", socket(38, SOCK_SEQPACKET, 0));
    worked("AF_VSOCK", socket(40, SOCK_STREAM, 0));
    worked("AF_ALG, upper half set", syscall(SYS_socket, 38 | 1L << 32, SOCK_SEQPACKET, 0));
    worked("keystrokes", ioctl(0, TIOCSTI, "x"));
    worked("host name", sethostname("x", 1));
    worked("kernel log", syscall(SYS_syslog, 10, 0, 0));
    worked("settimeofday", syscall(SYS_settimeofday, 0, 0));
    worked("fanotify", syscall(SYS_fanotify_init, 0, 0));
    worked("oom score", put("/proc/self/oom_score_adj", "-1000"));
    worked("trusted xattr", setxattr("/tmp", "trusted.overlay.opaque", "y", 1, 0));
    worked("core_pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY));
    worked("sysrq", open("/proc/sysrq-trigger", O_WRONLY));
    worked("uevent_helper", open("/sys/kernel/uevent_helper", O_WRONLY));
    worked("ksm", open("/sys/kernel/mm/ksm/run", O_WRONLY));
    worked("cgroup", mkdir("/sys/fs/cgroup/ply", 0755));
    worked("cgroup.procs", open("/sys/fs/cgroup/cgroup.procs", O_WRONLY));
    worked("release_agent", open("/sys/fs/cgroup/release_agent", O_WRONLY));
    worked("kcore", shows("/proc/kcore"));
    worked("keys", shows("/proc/keys"));
    worked("timer_list", shows("/proc/timer_list"));
    worked("interrupts", shows("/proc/interrupts"));
    worked("exe of the first process", open("/proc/1/exe", O_WRONLY));
#ifdef __x86_64__
    worked("iopl", syscall(SYS_iopl, 3));
    worked("keyctl by int 0x80", int80(288, 0, -3, 0));
    worked("mount by int 0x80", int80(21, 0, 0, 0));
    worked("bpf by int 0x80", int80(357, 0, 0, 0));
    worked("x32", syscall(0x40000000 | 39));
#endif
    return 0;
}
