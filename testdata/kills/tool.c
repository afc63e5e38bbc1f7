// What the tests of kills and power cuts need of the kernel and no Rust crate gives without `unsafe`.
//
//   tool cut DIR               the file system of DIR forgets what it has not written: a power cut
//   tool trace LOG K UID COMMAND...
//                              runs COMMAND as UID (and GID the same) and kills it at its Kth call that changes something,
//                              before the call is made; K = 0: only counts. LOG: a line a call, `NUMBER NAME WHERE`.
//   tool fail LOG K UID ERRNO COMMAND...
//                              the same, but the Kth call is not made and returns ERRNO (a number). Counted are the calls of
//                              COMMAND's own program only, in whatever process: not those of the programs that it starts.
//
// Calls are counted over all threads and children, so that every K is another moment, which strace's counters (one a thread)
// are not. The kernel stops only at these calls (a seccomp filter that traces), so it costs little. Only the command itself is
// killed: what it started has to end by itself. Exit: 137 killed, else the command's; 2 a failure of this program's own; 3 what
// the command started was still there ten seconds after it.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

// linux/fs.h has it since 6.16; ext4, xfs and f2fs know it. 2: the journal is not flushed.
#define SHUTDOWN 0x8004587d

static int failed(const char *doing) {
    fprintf(stderr, "%s: %s\n", doing, strerror(errno));
    return 2;
}

static int cut(const char *dir) {
    unsigned how = 2;
    int fd = open(dir, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return failed(dir);
    return ioctl(fd, SHUTDOWN, &how) < 0 ? failed("shutting down") : 0;
}

// What decides whether a call is one that changes something.
enum kind { ALWAYS, OPEN2, OPEN3, HOW, FILE0, CLONE_DATA, PROCESS, LIFE };
struct call {
    const char *name;
    int nr;
    enum kind kind;
    int path; // the argument that is a path; -1, -2: the descriptor in the first, the third argument; -3: none
};
#define CALL(name, kind, path) { #name, SYS_##name, kind, path }
static const struct call calls[] = {
#ifdef SYS_open
    CALL(open, OPEN2, 0), CALL(creat, ALWAYS, 0), CALL(rename, ALWAYS, 1), CALL(link, ALWAYS, 1), CALL(symlink, ALWAYS, 1),
    CALL(mkdir, ALWAYS, 0), CALL(rmdir, ALWAYS, 0), CALL(unlink, ALWAYS, 0), CALL(mknod, ALWAYS, 0), CALL(chmod, ALWAYS, 0),
    CALL(chown, ALWAYS, 0), CALL(lchown, ALWAYS, 0), CALL(utime, ALWAYS, 0), CALL(utimes, ALWAYS, 0), CALL(renameat, ALWAYS, 3),
#endif
    CALL(openat, OPEN3, 1), CALL(openat2, HOW, 1), CALL(renameat2, ALWAYS, 3), CALL(linkat, ALWAYS, 3), CALL(symlinkat, ALWAYS, 2),
    CALL(mkdirat, ALWAYS, 1), CALL(unlinkat, ALWAYS, 1), CALL(mknodat, ALWAYS, 1), CALL(fchmod, ALWAYS, -1), CALL(fchmodat, ALWAYS, 1),
    CALL(fchown, ALWAYS, -1), CALL(fchownat, ALWAYS, 1), CALL(utimensat, ALWAYS, 1), CALL(setxattr, ALWAYS, 0),
    CALL(lsetxattr, ALWAYS, 0), CALL(fsetxattr, ALWAYS, -1), CALL(removexattr, ALWAYS, 0), CALL(lremovexattr, ALWAYS, 0),
    CALL(fremovexattr, ALWAYS, -1), CALL(truncate, ALWAYS, 0), CALL(ftruncate, ALWAYS, -1), CALL(fallocate, ALWAYS, -1),
    CALL(write, FILE0, -1), CALL(writev, FILE0, -1), CALL(pwrite64, FILE0, -1), CALL(pwritev, FILE0, -1), CALL(pwritev2, FILE0, -1),
    CALL(fsync, ALWAYS, -1), CALL(fdatasync, ALWAYS, -1), CALL(syncfs, ALWAYS, -1), CALL(sync_file_range, ALWAYS, -1),
    CALL(copy_file_range, ALWAYS, -2), CALL(sendfile, FILE0, -1), CALL(splice, ALWAYS, -2), CALL(ioctl, CLONE_DATA, -1),
    CALL(mount, ALWAYS, 1), CALL(umount2, ALWAYS, 0), CALL(pivot_root, ALWAYS, 0), CALL(open_tree, ALWAYS, 1),
    CALL(move_mount, ALWAYS, 3), CALL(fsmount, ALWAYS, -1), CALL(mount_setattr, ALWAYS, 1), CALL(unshare, ALWAYS, -3),
    // Processes: who starts, who dies with whom. They write nothing, so they are not failed.
    CALL(clone, PROCESS, -3), CALL(clone3, PROCESS, -3), CALL(execve, PROCESS, 0), CALL(prctl, LIFE, -3),
#ifdef SYS_fchmodat2
    CALL(fchmodat2, ALWAYS, 1),
#endif
};
#define COUNT (sizeof calls / sizeof *calls)

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RET(what) BPF_STMT(BPF_RET | BPF_K, what)

// Each call of the list stops, and of the other architecture none.
static int install(void) {
    static struct sock_filter code[4 + 2 * COUNT + 1];
    int n = 0;
    code[n++] = (struct sock_filter)LOAD(nr);
    for (unsigned i = 0; i < COUNT; i++) {
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i].nr, 0, 1);
        code[n++] = (struct sock_filter)RET(SECCOMP_RET_TRACE);
    }
    code[n++] = (struct sock_filter)RET(SECCOMP_RET_ALLOW);
    struct sock_fprog program = { n, code };
    // Without privileges, setuid programs give none either: with a range of ids it has to be root who traces.
    if (geteuid() != 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -1;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static int peek(pid_t pid, unsigned long address, void *to, size_t size) {
    struct iovec local = { to, size }, remote = { (void *)address, size };
    return process_vm_readv(pid, &local, 1, &remote, 1, 0) > 0;
}

static void descriptor(pid_t pid, int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/%d/fd/%d", pid, fd);
    ssize_t n = readlink(link, path, size - 1);
    path[n < 0 ? 0 : n] = 0;
}

// Whether the call changes something; where.
static int changes(pid_t pid, const struct call *call, const uint64_t *args, int failing, char *path, size_t size) {
    if (failing && (call->kind == PROCESS || call->kind == LIFE)) return 0;
    const unsigned makes = O_CREAT | O_TRUNC;
    struct open_how { uint64_t flags, mode, resolve; } how;
    path[0] = 0;
    switch (call->kind) {
    case OPEN2: if (!(args[1] & makes)) return 0; break;
    case OPEN3: if (!(args[2] & makes) && (args[2] & O_TMPFILE) != O_TMPFILE) return 0; break;
    case HOW: if (!peek(pid, args[2], &how, sizeof how) || !(how.flags & makes)) return 0; break;
    case FILE0: descriptor(pid, args[0], path, size); if (path[0] != '/' || !strncmp(path, "/dev/", 5)) return 0; break;
    case CLONE_DATA: if ((unsigned)args[1] != FICLONE && (unsigned)args[1] != FICLONERANGE) return 0; break;
    case LIFE: if (args[0] != PR_SET_PDEATHSIG) return 0; break;
    case ALWAYS: case PROCESS: break;
    }
    if (call->path == -1) descriptor(pid, args[0], path, size);
    else if (call->path == -2) descriptor(pid, args[2], path, size);
    else if (call->path >= 0) {
        // As far as memory goes; a path ends before.
        for (size_t end = size - 1; end > 0 && !peek(pid, args[call->path], path, end); end /= 2) {}
        path[size - 1] = 0;
    }
    for (char *c = path; *c; c++) if (*c == '\n') *c = '?';
    return 1;
}

static volatile sig_atomic_t late;
static void on_alarm(int signal) { (void)signal; late = 1; }

// The call that the process is about to make is not made, and gives an error.
static int refuse(pid_t pid, int error) {
#if defined(__x86_64__)
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, pid, 0, &regs) < 0) return -1;
    regs.orig_rax = -1;
    regs.rax = -(long)error;
    return ptrace(PTRACE_SETREGS, pid, 0, &regs);
#elif defined(__aarch64__)
    struct user_regs_struct regs;
    int none = -1;
    struct iovec all = { &regs, sizeof regs }, number = { &none, sizeof none };
    if (ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &all) < 0) return -1;
    regs.regs[0] = -(long)error;
    if (ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &all) < 0) return -1;
    return ptrace(PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &number);
#else
    errno = ENOSYS;
    return -1;
#endif
}

// Whether a process runs the program.
static int runs(pid_t pid, const struct stat *program) {
    char path[64];
    struct stat found;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    return stat(path, &found) == 0 && found.st_dev == program->st_dev && found.st_ino == program->st_ino;
}

// error 0: kills.
static int trace(const char *log_path, long k, int uid, int error, int own_only, char **command) {
    int ready[2];
    struct stat program;
    if (own_only && stat(command[0], &program) < 0) return failed(command[0]);
    FILE *log = fopen(log_path, "we");
    if (!log || pipe2(ready, O_CLOEXEC) < 0) return failed(log_path);
    pid_t child = fork();
    if (child < 0) return failed("fork");
    if (child == 0) {
        char byte;
        close(ready[1]);
        if (read(ready[0], &byte, 1) != 1) _exit(2);
        if (install() < 0) _exit(failed("seccomp"));
        if (geteuid() == 0 && uid != 0 && (setgroups(0, NULL) < 0 || setgid(uid) < 0 || setuid(uid) < 0)) _exit(failed("setuid"));
        execvp(command[0], command);
        _exit(failed(command[0]));
    }
    long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
    if (ptrace(PTRACE_SEIZE, child, 0, options) < 0) return failed("ptrace");
    if (write(ready[1], "x", 1) != 1) return failed("write");
    struct sigaction action = { .sa_handler = on_alarm };
    sigaction(SIGALRM, &action, NULL);
    long count = 0;
    int code = -1;
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, __WALL);
        if (pid < 0 && errno == EINTR && !late) continue;
        if (pid < 0) break;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (pid == child) {
                code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
                alarm(10);
            }
            continue;
        }
        int event = status >> 16, signal = WSTOPSIG(status), pass = 0;
        if (event == PTRACE_EVENT_SECCOMP) {
            struct __ptrace_syscall_info info;
            char path[4096];
            memset(&info, 0, sizeof info);
            ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof info, &info);
            for (unsigned i = 0; i < COUNT; i++) {
                if (info.op != PTRACE_SYSCALL_INFO_SECCOMP || (int)info.seccomp.nr != calls[i].nr) continue;
                if (own_only && !runs(pid, &program)) break;
                if (!changes(pid, &calls[i], info.seccomp.args, own_only, path, sizeof path)) break;
                fprintf(log, "%ld %s %s\n", ++count, calls[i].name, path);
                if (count != k) break;
                // Once it has ended, its number may be anybody's.
                if (error == 0 && code == -1) kill(child, SIGKILL);
                else if (error == 0) break;
                else if (refuse(pid, error) < 0) return failed("refusing");
                break;
            }
        } else if (event == PTRACE_EVENT_STOP) {
            // Stopped as a whole, by a signal that does so: it stays so. Else it is new.
            if (signal != SIGTRAP) {
                ptrace(PTRACE_LISTEN, pid, 0, 0);
                continue;
            }
        } else if (event == 0) {
            pass = signal;
        }
        ptrace(PTRACE_CONT, pid, 0, pass);
    }
    fclose(log);
    return late ? 3 : code;
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "cut")) return cut(argv[2]);
    if (argc >= 6 && !strcmp(argv[1], "trace")) return trace(argv[2], atol(argv[3]), atoi(argv[4]), 0, 0, argv + 5);
    if (argc >= 7 && !strcmp(argv[1], "fail")) return trace(argv[2], atol(argv[3]), atoi(argv[4]), atoi(argv[5]), 1, argv + 6);
    fprintf(stderr, "usage: tool cut DIR | tool trace LOG K UID COMMAND... | tool fail LOG K UID ERRNO COMMAND...\n");
    return 2;
}
