/* What a process in the sandbox can reach: asks some 300 questions, and prints a line for each, `yes` or `no` and its name.
 *
 * Built by src/tests/e2e/sandbox_battery.rs with the host's compiler, statically, and run as a step and as a container;
 * docker.tsv beside it has docker's answers. Arguments: the name of an abstract socket that listens on the host, the id of a
 * process of the host, a port on which 127.0.0.1 of the host listens.
 *
 * Three kinds of questions. A call by its number has harmless arguments that the kernel itself would refuse otherwise: it is
 * reached unless the answer is EPERM, EACCES, ENOSYS or a signal. What is tried is reached when it works. What is shown is
 * reached when there is something to see. Numbers are written out, for old headers. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

extern char **environ;

static void answer(int yes, const char *name) { printf("%s\t%s\n", name, yes ? "yes" : "no"); }
/* What is tried: reached when it works. */
static void works(const char *name, long result) { answer(result >= 0, name); }

/* Runs a question in a child, so that what it changes, or what kills it, is the child's. */
static int in_child(int (*question)(void *), void *data)
{
    fflush(stdout);
    int pid = fork();
    if (pid == 0)
        _exit(question(data) ? 0 : 1);
    int status = 1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- capabilities ---- */

static const char *const CAPABILITIES[] = {"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid",
    "setuid", "setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource",
    "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin",
    "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore"};

static unsigned long long status_mask(const char *field)
{
    char line[256];
    unsigned long long value = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, field, strlen(field)) == 0)
            value = strtoull(line + strlen(field), 0, 16);
    if (f)
        fclose(f);
    return value;
}

static void capabilities(void)
{
    char name[64];
    unsigned long long effective = status_mask("CapEff:\t");
    for (unsigned n = 0; n < sizeof CAPABILITIES / sizeof *CAPABILITIES; n++) {
        snprintf(name, sizeof name, "capability %s", CAPABILITIES[n]);
        answer(effective >> n & 1, name);
    }
    answer(effective >> (sizeof CAPABILITIES / sizeof *CAPABILITIES) != 0, "capability that is newer");
    answer(status_mask("CapInh:\t") != 0, "inheritable capability");
    answer(status_mask("CapAmb:\t") != 0, "ambient capability");
    answer((status_mask("CapBnd:\t") & ~effective) != 0, "bounding capability beyond the effective ones");
    answer((status_mask("CapPrm:\t") & ~effective) != 0, "permitted capability beyond the effective ones");
}

/* ---- system calls by number ---- */

struct call {
    const char *name;
    long number, a[6];
};

static int reaches(void *data)
{
    const struct call *c = data;
    errno = 0;
    long result = syscall(c->number, c->a[0], c->a[1], c->a[2], c->a[3], c->a[4], c->a[5]);
    return result >= 0 || (errno != EPERM && errno != EACCES && errno != ENOSYS);
}

static const struct call CALLS[] = {
    {"call acct", SYS_acct, {1}},
    {"call add_key", SYS_add_key, {0}},
    {"call adjtimex", SYS_adjtimex, {0}},
    {"call bpf", SYS_bpf, {-1}},
    {"call clock_adjtime", SYS_clock_adjtime, {99}},
    {"call clock_settime", SYS_clock_settime, {99}},
    {"call clone3", 435, {0}},
    {"call delete_module", SYS_delete_module, {1, 0x800}},
    {"call fanotify_init", SYS_fanotify_init, {-1}},
    {"call finit_module", SYS_finit_module, {-1}},
    {"call fsconfig", 431, {-1, 99}},
    {"call fsmount", 432, {-1, 99}},
    {"call fsopen", 430, {1, 99}},
    {"call fspick", 433, {-1, 1, -1}},
    {"call get_mempolicy", SYS_get_mempolicy, {1}},
    {"call init_module", SYS_init_module, {1, 1}},
    {"call io_uring_enter", 426, {-1}},
    {"call io_uring_register", 427, {-1}},
    {"call io_uring_setup", 425, {0}},
    {"call ioprio_set, real time", SYS_ioprio_set, {1, 0, 1 << 13 | 4}},
    {"call kcmp", SYS_kcmp, {1, 1, 99}},
    {"call kexec_load", SYS_kexec_load, {0, 99, 0, -1}},
    {"call keyctl", SYS_keyctl, {-1}},
    {"call landlock_create_ruleset", 444, {0, 0, 1}},
    {"call listmount", 458, {1}},
    {"call lookup_dcookie", SYS_lookup_dcookie, {0}},
    {"call lsm_list_modules", 461, {1}},
    {"call mbind", SYS_mbind, {0, 0, -1}},
    {"call memfd_secret", 447, {-1}},
    {"call migrate_pages", SYS_migrate_pages, {-1}},
    {"call mount", SYS_mount, {1, 1, 1}},
    {"call mount_setattr", 442, {-1, 1, -1}},
    {"call move_mount", 429, {-1, 1, -1, 1, -1}},
    {"call move_pages", SYS_move_pages, {-1, 0, 0, 0, 0, -1}},
    {"call name_to_handle_at", SYS_name_to_handle_at, {-1, 1}},
    {"call nfsservctl", SYS_nfsservctl, {0}},
    {"call open_by_handle_at", SYS_open_by_handle_at, {-1, 1}},
    {"call open_tree", 428, {-1, 1, -1}},
    {"call openat2", 437, {-1, 1, 1, 0}},
    {"call perf_event_open", SYS_perf_event_open, {1, -1, -1, -1}},
    {"call personality, no randomisation", SYS_personality, {0x40000}},
    {"call personality, read implies exec", SYS_personality, {0x400000}},
    {"call pidfd_getfd", 438, {-1}},
    {"call pidfd_open", 434, {-1}},
    {"call pivot_root", SYS_pivot_root, {1, 1}},
    {"call process_madvise", 440, {-1}},
    {"call process_vm_readv", SYS_process_vm_readv, {-1, 0, -1}},
    {"call quotactl", SYS_quotactl, {-1}},
    {"call quotactl_fd", 443, {-1}},
    {"call reboot", SYS_reboot, {1, 1}},
    {"call request_key", SYS_request_key, {0}},
    {"call seccomp", SYS_seccomp, {-1}},
    {"call set_mempolicy", SYS_set_mempolicy, {-1}},
    {"call set_mempolicy_home_node", 450, {0, 0, -1}},
    {"call setdomainname", SYS_setdomainname, {1, -1}},
    {"call sethostname", SYS_sethostname, {1, -1}},
    {"call setns", SYS_setns, {-1}},
    {"call settimeofday", SYS_settimeofday, {1}},
    {"call statmount", 457, {1}},
    {"call swapoff", SYS_swapoff, {1}},
    {"call swapon", SYS_swapon, {1}},
    {"call syslog", SYS_syslog, {-1}},
    {"call umount2", SYS_umount2, {1, -1}},
    {"call unshare, cgroups", SYS_unshare, {0x02000000}},
    {"call unshare, ipc", SYS_unshare, {CLONE_NEWIPC}},
    {"call unshare, mounts", SYS_unshare, {CLONE_NEWNS}},
    {"call unshare, network", SYS_unshare, {CLONE_NEWNET}},
    {"call unshare, processes", SYS_unshare, {CLONE_NEWPID}},
    {"call unshare, time", SYS_unshare, {0x80}},
    {"call unshare, user", SYS_unshare, {CLONE_NEWUSER}},
    {"call unshare, uts", SYS_unshare, {CLONE_NEWUTS}},
    {"call userfaultfd", SYS_userfaultfd, {-1}},
    {"call vmsplice", SYS_vmsplice, {-1}},
    {"call with a number that is not known", 1999, {0}},
#ifdef __x86_64__
    {"call create_module", SYS_create_module, {0}},
    {"call get_kernel_syms", SYS_get_kernel_syms, {0}},
    {"call ioperm", SYS_ioperm, {-1, 1, 1}},
    {"call iopl", SYS_iopl, {99}},
    {"call iopl, to the ports", SYS_iopl, {3}},
    {"call kexec_file_load", SYS_kexec_file_load, {-1, -1, 0, 0, -1}},
    {"call modify_ldt", SYS_modify_ldt, {99}},
    {"call query_module", SYS_query_module, {0}},
    {"call sysfs", SYS_sysfs, {99}},
    {"call _sysctl", SYS__sysctl, {0}},
    {"call uselib", SYS_uselib, {1}},
    {"call ustat", SYS_ustat, {-1}},
    {"x32 call getpid", 0x40000000L | SYS_getpid, {0}},
    {"x32 call keyctl", 0x40000000L | SYS_keyctl, {-1}},
    {"x32 call mount", 0x40000000L | SYS_mount, {1, 1, 1}},
    {"x32 call ptrace", 0x40000000L | 521, {-1}},
#endif
    {0, 0, {0}},
};

#ifdef __x86_64__
static int reaches_by_int80(void *data)
{
    const struct call *c = data;
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(c->number), "b"(c->a[0]), "c"(c->a[1]), "d"(c->a[2]) : "memory", "r8", "r9", "r10", "r11");
    return result >= 0 || result < -4095 || (result != -EPERM && result != -EACCES && result != -ENOSYS);
}

/* Numbers of arch/x86/entry/syscalls/syscall_32.tbl. */
static const struct call CALLS_32[] = {
    {"int 0x80 getpid", 20, {0}},
    {"int 0x80 bpf", 357, {-1}},
    {"int 0x80 clock_settime64", 404, {99}},
    {"int 0x80 finit_module", 350, {-1}},
    {"int 0x80 init_module", 128, {1, 1}},
    {"int 0x80 io_uring_setup", 425, {0}},
    {"int 0x80 iopl", 110, {99}},
    {"int 0x80 kexec_load", 283, {0, 99}},
    {"int 0x80 keyctl", 288, {-1}},
    {"int 0x80 mount", 21, {1, 1, 1}},
    {"int 0x80 open_by_handle_at", 342, {-1, 1}},
    {"int 0x80 perf_event_open", 336, {1, -1, -1}},
    {"int 0x80 pivot_root", 217, {1, 1}},
    {"int 0x80 reboot", 88, {1, 1}},
    {"int 0x80 setns", 346, {-1}},
    {"int 0x80 stime", 25, {1}},
    {"int 0x80 swapon", 87, {1}},
    {"int 0x80 umount2", 52, {1, -1}},
    {"int 0x80 unshare, user", 310, {CLONE_NEWUSER}},
    {"int 0x80 userfaultfd", 374, {-1}},
    {"int 0x80 vm86", 166, {-1}},
    {0, 0, {0}},
};

static int alg_by_int80(void *data)
{
    (void)data;
    struct call c = {"", 359, {38, SOCK_SEQPACKET, 0}}; /* socket */
    return reaches_by_int80(&c);
}

static int alg_by_socketcall(void *data)
{
    (void)data;
    /* Its arguments are 32 bits wide and have to lie low. */
    uint32_t *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    if (low == MAP_FAILED)
        return 0;
    low[0] = 38, low[1] = SOCK_SEQPACKET, low[2] = 0;
    struct call c = {"", 102, {1, (long)low, 0}};
    return reaches_by_int80(&c);
}
#endif

static int clones(void *data)
{
    long flags = *(long *)data;
    long pid = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(0);
    return pid > 0;
}

static int traces(void *data)
{
    (void)data;
    int pid = fork();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    long result = ptrace(PTRACE_ATTACH, pid, 0, 0);
    kill(pid, SIGKILL);
    return result == 0;
}

static void calls(void)
{
    for (const struct call *c = CALLS; c->name; c++)
        answer(in_child(reaches, (void *)c), c->name);
#ifdef __x86_64__
    for (const struct call *c = CALLS_32; c->name; c++)
        answer(in_child(reaches_by_int80, (void *)c), c->name);
    answer(in_child(alg_by_int80, 0), "int 0x80 socket AF_ALG");
    answer(in_child(alg_by_socketcall, 0), "int 0x80 socketcall AF_ALG");
#endif
    static const struct { const char *name; long flags; } NAMESPACES[] = {{"clone, no namespace", 0}, {"clone, cgroups", 0x02000000},
        {"clone, ipc", CLONE_NEWIPC}, {"clone, mounts", CLONE_NEWNS}, {"clone, network", CLONE_NEWNET}, {"clone, processes", CLONE_NEWPID},
        {"clone, user", CLONE_NEWUSER}, {"clone, uts", CLONE_NEWUTS}};
    for (unsigned n = 0; n < sizeof NAMESPACES / sizeof *NAMESPACES; n++)
        answer(in_child(clones, (void *)&NAMESPACES[n].flags), NAMESPACES[n].name);
    answer(in_child(traces, 0), "trace a child");
}

/* ---- sockets ---- */

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
    /* Abstract names belong to the network namespace, which may be the host's: batteries side by side must not share one. */
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

static int reach_port(int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&a, sizeof a);
}

static int brings_down_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo"};
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCSIFFLAGS, &request);
}

static void sockets(const char *abstract, int port)
{
    works("socket AF_ALG", socket(38, SOCK_SEQPACKET, 0));
    works("socket AF_ALG, upper half set", syscall(SYS_socket, 38 | 1L << 32, SOCK_SEQPACKET, 0));
    works("socket AF_BLUETOOTH", socket(31, SOCK_RAW, 0));
    works("socket AF_CAN", socket(29, SOCK_RAW, 0));
    works("socket AF_KEY", socket(15, SOCK_RAW, 2));
    works("socket AF_NETLINK, audit", socket(16, SOCK_RAW, 9));
    works("socket AF_NETLINK, routes", socket(16, SOCK_RAW, 0));
    works("socket AF_PACKET", socket(17, SOCK_RAW, htons(3)));
    works("socket AF_VSOCK", socket(40, SOCK_STREAM, 0));
    works("socket AF_XDP", socket(44, SOCK_RAW, 0));
    works("socket raw, ICMP", socket(AF_INET, SOCK_RAW, 1));
    works("socket raw, TCP", socket(AF_INET, SOCK_RAW, 6));
    works("abstract socket of its own", reach_own());
    works("abstract socket of the host", reach(abstract));
    works("port of the host's loopback", reach_port(port));
    works("change of the loopback interface", brings_down_loopback());
}

/* ---- the root, devices, mounts ---- */

/* A directory whose parent is another one leads out. */
static int above(const char *path)
{
    struct stat here, up;
    if (stat("/", &here) < 0 || stat(path, &up) < 0)
        return -1;
    return here.st_dev == up.st_dev && here.st_ino == up.st_ino ? -1 : 0;
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
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    return fd >= 0 && read(fd, &byte, 1) == 1 ? 0 : -1;
}

static int lists(const char *path)
{
    DIR *d = opendir(path);
    int found = -1;
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            found = 0;
    if (d)
        closedir(d);
    return found;
}

static int is_known_device(const char *name)
{
    static const char *const KNOWN[] = {".", "..", "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr",
        "stdin", "stdout", "tty", "urandom", "zero"};
    for (unsigned n = 0; n < sizeof KNOWN / sizeof *KNOWN; n++)
        if (strcmp(name, KNOWN[n]) == 0)
            return 1;
    return 0;
}

static int other_devices(void)
{
    DIR *d = opendir("/dev");
    int found = -1;
    for (struct dirent *e; d && (e = readdir(d));)
        if (!is_known_device(e->d_name))
            found = 0;
    if (d)
        closedir(d);
    return found;
}

static int kernel_addresses(void)
{
    char line[128] = "";
    FILE *f = fopen("/proc/kallsyms", "r");
    int found = f && fgets(line, sizeof line, f) && strtoull(line, 0, 16) != 0;
    if (f)
        fclose(f);
    return found ? 0 : -1;
}

/* Whether a mount has one of the types that show a host's files or settings. */
static int mounts_of_type(const char *wanted)
{
    char line[4096];
    int found = -1;
    FILE *f = fopen("/proc/self/mountinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        char *type = strstr(line, " - ");
        if (type && strncmp(type + 3, wanted, strlen(wanted)) == 0)
            found = 0;
    }
    if (f)
        fclose(f);
    return found;
}

static void files(void)
{
    static const struct { const char *name; int type, major, minor; } NODES[] = {{"disk 8:0", S_IFBLK, 8, 0}, {"disk 254:0", S_IFBLK, 254, 0},
        {"loop 7:0", S_IFBLK, 7, 0}, {"memory 1:1", S_IFCHR, 1, 1}, {"port 1:4", S_IFCHR, 1, 4}, {"kmsg 1:11", S_IFCHR, 1, 11},
        {"tun 10:200", S_IFCHR, 10, 200}, {"fuse 10:229", S_IFCHR, 10, 229}, {"loop control 10:237", S_IFCHR, 10, 237}, {"vhost 10:238", S_IFCHR, 10, 238}};
    static const char *const PLACES[] = {"/tmp", "/dev", "/dev/shm"};
    char path[64], name[64];
    for (unsigned n = 0; n < sizeof NODES / sizeof *NODES; n++)
        for (unsigned p = 0; p < sizeof PLACES / sizeof *PLACES; p++) {
            snprintf(path, sizeof path, "%s/node", PLACES[p]);
            snprintf(name, sizeof name, "open device %s in %s", NODES[n].name, PLACES[p]);
            works(name, device(path, NODES[n].type, NODES[n].major, NODES[n].minor));
        }
    unlink("/tmp/fifo");
    works("make a fifo", mkfifo("/tmp/fifo", 0600));
    works("device in /dev beside docker's", other_devices());
    works("chroot", chroot("/"));
    works("above the root", above("/.."));
    works("above the root, by /proc", above("/proc/1/root/.."));
    works("exe of the first process, writing", open("/proc/1/exe", O_WRONLY));

    static const char *const SHOWN[] = {"/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/timer_list",
        "/proc/timer_stats", "/proc/kmsg", "/proc/kpagecount", "/proc/kpageflags", "/proc/slabinfo", "/proc/vmallocinfo", "/proc/pagetypeinfo",
        "/proc/1/environ", "/dev/mem", "/dev/kmsg", "/dev/port"};
    for (unsigned n = 0; n < sizeof SHOWN / sizeof *SHOWN; n++) {
        snprintf(name, sizeof name, "shows %s", SHOWN[n]);
        works(name, shows(SHOWN[n]));
    }
    works("shows addresses in /proc/kallsyms", kernel_addresses());
    static const char *const LISTED[] = {"/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap", "/sys/kernel/debug",
        "/sys/kernel/tracing", "/sys/kernel/security", "/sys/fs/bpf", "/sys/fs/pstore"};
    for (unsigned n = 0; n < sizeof LISTED / sizeof *LISTED; n++) {
        snprintf(name, sizeof name, "lists %s", LISTED[n]);
        works(name, lists(LISTED[n]));
    }
    static const char *const WRITTEN[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/kernel/modprobe", "/proc/sys/kernel/shmmax",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/overcommit_memory", "/proc/sys/fs/binfmt_misc/register", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity",
        "/proc/bus/pci/devices", "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run", "/sys/power/state", "/sys/module/kernel/parameters/panic",
        "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/memory/release_agent"};
    for (unsigned n = 0; n < sizeof WRITTEN / sizeof *WRITTEN; n++) {
        snprintf(name, sizeof name, "opens %s for writing", WRITTEN[n]);
        works(name, open(WRITTEN[n], O_WRONLY));
    }
    works("make a cgroup", mkdir("/sys/fs/cgroup/ply", 0755));
    works("make a cgroup of memory", mkdir("/sys/fs/cgroup/memory/ply", 0755));
    works("lower oom_score_adj", put("/proc/self/oom_score_adj", "-1000"));
    static const char *const UNMASKED[] = {"/proc/interrupts", "/proc/kcore", "/proc/sys", "/proc/sysrq-trigger", "/sys/firmware"};
    for (unsigned n = 0; n < sizeof UNMASKED / sizeof *UNMASKED; n++) {
        snprintf(name, sizeof name, "unmounts what covers %s", UNMASKED[n]);
        works(name, umount2(UNMASKED[n], MNT_DETACH));
    }
    works("mount of memory", mount("none", "/tmp", "tmpfs", 0, 0));
    works("mount of /proc", mount("proc", "/tmp", "proc", 0, 0));
    works("bind mount", mount("/", "/tmp", 0, MS_BIND, 0));
    works("remount of /sys for writing", mount(0, "/sys", 0, MS_REMOUNT | MS_BIND, 0));
    static const char *const TYPES[] = {"devtmpfs", "debugfs", "tracefs", "securityfs", "bpf", "fusectl", "binfmt_misc", "configfs", "efivarfs"};
    for (unsigned n = 0; n < sizeof TYPES / sizeof *TYPES; n++) {
        snprintf(name, sizeof name, "mount of type %s", TYPES[n]);
        works(name, mounts_of_type(TYPES[n]));
    }
    works("xattr trusted.overlay.opaque", setxattr("/tmp", "trusted.overlay.opaque", "y", 1, 0));
    works("xattr security.ima", setxattr("/tmp", "security.ima", "y", 1, 0));
}

/* ---- processes, identities, what is inherited ---- */

static int other_processes(void)
{
    /* Own ones: this, the shell that began it, and whatever is the first. */
    DIR *d = opendir("/proc");
    int count = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        count += e->d_name[0] >= '1' && e->d_name[0] <= '9';
    if (d)
        closedir(d);
    return count > 4 ? 0 : -1;
}

static int in_environment(const char *path)
{
    /* The mark that the tests put into the environment of the builder. */
    char text[65536];
    int fd = open(path, O_RDONLY);
    long size = fd < 0 ? 0 : read(fd, text, sizeof text);
    return size > 0 && memmem(text, size, "HOST_CANARY", 11) ? 0 : -1;
}

static int becomes(void *data)
{
    int id = *(int *)data;
    return setgroups(0, 0) == 0 && setgid(id) == 0 && setuid(id) == 0;
}

static int setuid_root(void *data)
{
    /* A set-user-ID program of root, begun by somebody else: this program asks for its user. */
    (void)data;
    if (setgid(1) < 0 || setuid(1) < 0)
        return 0;
    char *arguments[] = {"/tmp/setuid", "who", 0}, *none[] = {0};
    int pid = fork();
    if (pid == 0) {
        execve(arguments[0], arguments, none);
        _exit(1);
    }
    int status = 1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int copy_self(const char *path)
{
    char buffer[65536];
    int in = open("/proc/self/exe", O_RDONLY), out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    for (long n; in >= 0 && out >= 0 && (n = read(in, buffer, sizeof buffer)) > 0;)
        if (write(out, buffer, n) != n)
            return -1;
    close(in);
    close(out);
    return out < 0 ? -1 : chmod(path, 04755);
}

static int raises(int what, rlim_t to)
{
    struct rlimit limit = {to, to};
    return setrlimit(what, &limit);
}

/* Asked first: what other questions open stays open. */
static void inherited(void)
{
    int open_ones = 0;
    for (int fd = 3; fd < 1024; fd++)
        open_ones += fcntl(fd, F_GETFD) >= 0;
    answer(open_ones > 0, "descriptor above 2");
}

static void processes(int host)
{
    works("process of the host", kill(host, 0));
    works("processes of others", other_processes());
    works("environment of the builder", in_environment("/proc/self/environ"));
    works("environment of the builder, in the first process", in_environment("/proc/1/environ"));
    static int ids[] = {1, 33, 1000, 65534};
    for (unsigned n = 0; n < sizeof ids / sizeof *ids; n++) {
        char name[32];
        snprintf(name, sizeof name, "become user %d", ids[n]);
        answer(in_child(becomes, &ids[n]), name);
    }
    answer(copy_self("/tmp/setuid") == 0 && in_child(setuid_root, 0), "set-user-ID program of root works for others");
    answer(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1, "no_new_privs is set");
    answer(prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 0, "there is no filter of system calls");
    works("file capability", setxattr("/tmp/setuid", "security.capability", "\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20, 0));
    works("lower the nice value", setpriority(PRIO_PROCESS, 0, -5));
    struct sched_param real_time = {.sched_priority = 1};
    works("real time priority", sched_setscheduler(0, SCHED_FIFO, &real_time));
    struct rlimit files;
    works("raise a hard limit", getrlimit(RLIMIT_NOFILE, &files) < 0 || files.rlim_max == RLIM_INFINITY ? -1 : raises(RLIMIT_NOFILE, files.rlim_max + 1));
    works("keystrokes into the terminal", ioctl(0, TIOCSTI, "x"));
    works("selection of the console", ioctl(0, TIOCLINUX, "\2"));
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "who") == 0)
        return geteuid() == 0 ? 0 : 1;
    mkdir("/tmp", 01777);
    inherited();
    capabilities();
    calls();
    sockets(count > 1 ? arguments[1] : "none", count > 3 ? atoi(arguments[3]) : 1);
    files();
    processes(count > 2 ? atoi(arguments[2]) : -1);
    return 0;
}
