//! A root for tests that run sandboxes: static busybox, links for its programs, two users.

use std::path::Path;

const APPLETS: [&str; 24] = [
    "sh", "ls", "cat", "env", "true", "sleep", "id", "grep", "mount", "stat", "hostname", "ip", "tty", "stty", "chown", "mknod", "ps",
    "tr", "wc", "mkdir", "umount", "touch", "setsid", "ln",
];

pub(crate) fn skip() -> bool {
    let root = rustix::process::geteuid().is_root() && Path::new("/bin/busybox").exists();
    if !root {
        eprintln_skip();
    }
    !root
}

#[allow(clippy::print_stderr)]
pub(crate) fn eprintln_skip() {
    eprintln!("skipped: needs root and a static /bin/busybox");
}

pub(crate) fn busybox_root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        std::fs::create_dir(root.path().join(directory)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    for name in APPLETS {
        std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name)).unwrap();
    }
    std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n").unwrap();
    root
}

/// The names in a directory as `ls` prints them.
pub(crate) fn listing(directory: &Path) -> String {
    let mut names: Vec<String> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap() + "\n").collect();
    names.sort();
    names.concat()
}
