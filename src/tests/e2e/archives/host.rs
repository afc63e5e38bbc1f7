//! Where archives are brought in: each configuration (who, which driver) with a store, a canary and a mount namespace of its own.
//!
//! The copying driver is what a store on overlayfs gets. A shell in the namespace waits before and after its work, so that the
//! canary is made and looked at from outside, through `/proc/PID/root`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::super::users::Account;
use super::super::{Done, World, is_root, skipped};

/// The longest that one archive may take.
const DEADLINE_SECS: u32 = 120;

/// Who brings archives in, and how root file systems are put together.
pub struct Configuration {
    pub name: String,
    user: Option<Account>,
    pub copying: bool,
    /// Nothing is mounted: we are who we are.
    plain: bool,
}

/// Makes all configurations that this host allows: six, or for an ordinary user the one that he is.
pub fn configurations(tag: &str) -> Vec<Configuration> {
    if !is_root() {
        skipped("needs root for other users and for the copying driver");
        return vec![Configuration { name: "self".into(), user: None, copying: false, plain: true }];
    }
    let mut out = Vec::new();
    for copying in [false, true] {
        let driver = if copying { "copy" } else { "overlay" };
        out.push(Configuration { name: format!("root-{driver}"), user: None, copying, plain: false });
        for (who, ranges) in [("single", false), ("ranges", true)] {
            let letters = format!("{tag}{}{}", &who[..1], &driver[..1]);
            if let Some(account) = Account::new(&letters, ranges) {
                out.push(Configuration { name: format!("{who}-{driver}"), user: Some(account), copying, plain: false });
            }
        }
    }
    out
}

/// One command of `ply`.
#[derive(Clone)]
pub struct Step {
    pub name: String,
    pub args: Vec<String>,
    pub stdin: Option<PathBuf>,
    /// Whether it is left out when the one before it failed.
    pub depends: bool,
}

/// What came of a configuration.
pub struct Outcome {
    pub steps: BTreeMap<String, Done>,
    /// What changed outside the store.
    pub escapes: Vec<String>,
}

/// The files that all configurations share: the program, the inputs, and what comes out.
pub struct Host {
    pub w: World,
    ply: PathBuf,
}

impl Host {
    pub fn new() -> Self {
        let w = World::new();
        std::fs::set_permissions(w.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let ply = w.own_ply();
        for name in ["m", "t", "in"] {
            std::fs::create_dir(w.path(name)).unwrap();
        }
        Self { w, ply }
    }

    /// The canary's path, the same for all.
    pub fn canary(&self) -> String {
        self.w.path("m/canary").display().to_string()
    }

    /// Where a configuration's output goes.
    pub fn out(&self, c: &Configuration) -> PathBuf {
        self.w.path(&format!("out-{}", c.name))
    }

    /// Runs all steps one after the other, then `fsck`; of those that were left out there is nothing.
    pub fn run(&self, c: &Configuration, steps: &[Step]) -> Outcome {
        let out = self.out(c);
        std::fs::create_dir_all(out.join("home")).unwrap();
        let ids = c.user.as_ref().map(|a| ids(a.name()));
        if let Some((uid, gid)) = ids {
            lchown(&out, Some(uid), Some(gid)).unwrap();
            lchown(out.join("home"), Some(uid), Some(gid)).unwrap();
        }
        std::fs::write(out.join("steps.sh"), self.script(&out, steps)).unwrap();
        let inherited = if c.plain { "exec sh" } else { "exec unshare -m --propagation private sh" };
        let set_up = self.w.path(&format!("set-up-{}.sh", c.name));
        std::fs::write(&set_up, self.set_up(c, &out)).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", &format!("{inherited} {}", set_up.display())])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
        let mut go = shell.stdin.take().unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "ready", "{}", c.name);
        let inside = if c.plain { PathBuf::from("/") } else { PathBuf::from(format!("/proc/{}/root", shell.id())) };
        let own = inside.join(self.w.path("m").strip_prefix("/").unwrap());
        canary(&own.join("canary"), ids);
        let before = state(&own.join("canary"));
        assert!(before.len() > 8, "{before:#?}");
        let around = self.surroundings(&inside);
        writeln!(go, "go").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "done", "{}", c.name);
        let mut escapes: Vec<String> = differences(&before, &state(&own.join("canary")));
        escapes.extend(differences(&around, &self.surroundings(&inside)));
        writeln!(go, "go").unwrap();
        assert!(shell.wait().unwrap().success());
        let read = |file: &str, ending: &str| std::fs::read(out.join(format!("{file}.{ending}"))).unwrap_or_default();
        let text = |file: &str, ending: &str| String::from_utf8_lossy(&read(file, ending)).into_owned();
        let ran = |name: &&str| out.join(format!("{name}.rc")).exists();
        let done = |name: &str| Done { code: text(name, "rc").trim().parse().ok(), stdout: text(name, "out"), stderr: text(name, "err") };
        let names = steps.iter().map(|s| s.name.as_str()).chain(["doctor", "fsck"]);
        Outcome { steps: names.filter(ran).map(|n| (n.to_string(), done(n))).collect(), escapes }
    }

    /// Names in the places that an archive may aim at, but for what others do there.
    fn surroundings(&self, inside: &Path) -> Vec<String> {
        let mut out = Vec::new();
        for place in ["/", "/etc", "/usr", "/tmp", "/home", "/root", "/dev/shm", "/proc/self/cwd"] {
            let names = std::fs::read_dir(place).into_iter().flatten().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
            out.extend(names.filter(|n| n.contains("pwn") || n.contains("smuggled")).map(|n| format!("{place}/{n}")));
        }
        let list = |path: PathBuf| {
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path().display().to_string()).collect::<Vec<_>>()
        };
        out.extend(list(inside.join(self.w.path("m").strip_prefix("/").unwrap())));
        out.extend(list(self.w.path("in")));
        out.extend(list(self.w.dir.path().to_path_buf()).into_iter().filter(|n| n.contains("pwn")));
        out.sort();
        out
    }

    fn set_up(&self, c: &Configuration, out: &Path) -> String {
        let (m, t) = (self.w.path("m").display().to_string(), self.w.path("t").display().to_string());
        let mount = match (c.plain, c.copying) {
            (true, _) => String::new(),
            (false, false) => format!("mount -t tmpfs -o size=400m t {m}"),
            (false, true) => {
                format!(
                    "mount -t tmpfs -o size=400m t {t}; mkdir {t}/l {t}/u {t}/w; mount -t overlay o -o lowerdir={t}/l,upperdir={t}/u,workdir={t}/w {m}"
                )
            }
        };
        let (chown, user) = match &c.user {
            None => (String::new(), String::new()),
            Some(a) => (format!("chown {} {m} {m}/store", a.name()), format!("runuser -u {} -- ", a.name())),
        };
        format!(
            "set -e\n{mount}\nmkdir -p {m}/store\n{chown}\necho ready\nread go\n{user}sh {out}/steps.sh\necho done\nread go\n",
            out = out.display()
        )
    }

    fn script(&self, out: &Path, steps: &[Step]) -> String {
        let quoted = |s: &str| format!("'{}'", s.replace('\'', "'\\''"));
        let mut script = format!(
            "cd {out}; export HOME={out}/home PLY_STORE={m}/store; ulimit -v 4000000\n\
             t() {{ n=$1; i=$2; shift 2; timeout -s KILL {DEADLINE_SECS} {ply} \"$@\" <\"$i\" >$n.out 2>$n.err; r=$?; echo $r >$n.rc; }}\n\
             t doctor /dev/null doctor\n",
            out = out.display(),
            m = self.w.path("m").display(),
            ply = self.ply.display(),
        );
        for step in steps {
            let args: Vec<String> = step.args.iter().map(|a| quoted(a)).collect();
            let stdin = step.stdin.as_ref().map_or("/dev/null".into(), |p| p.display().to_string());
            let unless = if step.depends { "[ $r != 0 ] || " } else { "" };
            script.push_str(&format!("{unless}t {} {} {}\n", step.name, quoted(&stdin), args.join(" ")));
        }
        script.push_str("t fsck /dev/null fsck\n");
        script
    }
}

fn ids(user: &str) -> (u32, u32) {
    let id =
        |flag: &str| String::from_utf8(Command::new("id").args([flag, user]).output().unwrap().stdout).unwrap().trim().parse().unwrap();
    (id("-u"), id("-g"))
}

/// Makes the canary: all of it can be changed by who brings archives in.
fn canary(at: &Path, ids: Option<(u32, u32)>) {
    let at = |name: &str| at.join(name);
    std::fs::create_dir_all(at("sub/deep")).unwrap();
    for (name, mode) in [("secret", 0o640), ("sub/x", 0o600), ("open", 0o666), ("passwd", 0o644), ("sub/deep/y", 0o755)] {
        std::fs::write(at(name), format!("canary-2718281 {name}")).unwrap();
        std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    std::fs::hard_link(at("secret"), at("twin")).unwrap();
    symlink("secret", at("link")).unwrap();
    let dir = std::fs::File::open(at("")).unwrap();
    plywood::path::set_xattr_at(&dir, b"open", b"user.canary", b"alive").unwrap();
    for name in ["", "secret", "sub", "sub/x", "sub/deep", "sub/deep/y", "open", "passwd", "link"] {
        if let Some((uid, gid)) = ids {
            lchown(at(name), Some(uid), Some(gid)).unwrap();
        }
    }
}

/// Everything about a tree that anybody could change.
fn state(at: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![at.to_path_buf()];
    while let Some(path) = todo.pop() {
        let Ok(m) = path.symlink_metadata() else {
            lines.push(format!("{} is gone", path.display()));
            continue;
        };
        let parent = std::fs::File::open(path.parent().unwrap()).unwrap();
        let xattrs = plywood::path::xattrs_at(&parent, path.file_name().unwrap().as_encoded_bytes()).unwrap();
        let content = if m.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        let target = std::fs::read_link(&path).unwrap_or_default();
        let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
        let name = path.strip_prefix(at).unwrap().display();
        lines.push(format!(
            "/{name} {:o} {}:{} {} {times:?} {xattrs:?} {target:?} {}",
            m.mode(),
            m.uid(),
            m.gid(),
            m.nlink(),
            content.escape_ascii()
        ));
        if m.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    lines.sort();
    lines
}

fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|l| !after.contains(l)).map(|l| format!("was: {l}"));
    gone.chain(after.iter().filter(|l| !before.contains(l)).map(|l| format!("is: {l}"))).collect()
}
