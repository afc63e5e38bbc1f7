//! The same build as root and as ordinary users: one digest; and what lesser hosts are told.

use std::process::Command;

use super::{Done, World, is_root, program, skipped};

const TEXT: &str = "FROM base\nWORKDIR /w\nCOPY --chown=5:6 --chmod=640 f .\nRUN echo built > out && mkdir -p a/b && ln out a/b/hard\nCMD [\"cat\",\"out\"]\n";

/// An account that exists for one test.
pub(super) struct Account(String);

impl Account {
    pub(super) fn new(tag: &str, ranges: bool) -> Option<Self> {
        let name = format!("ply{tag}{}", std::process::id() % 100_000);
        let flags: &[&str] = if ranges { &[] } else { &["-K", "SUB_UID_COUNT=0", "-K", "SUB_GID_COUNT=0"] };
        let made: Done = Command::new("useradd").args(["-m"]).args(flags).arg(&name).output().ok()?.into();
        if made.code != Some(0) {
            skipped(&format!("useradd: {}", made.stderr));
            return None;
        }
        Some(Self(name))
    }

    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _ = Command::new("userdel").args(["-r", &self.0]).output();
    }
}

/// Builds `TEXT` as `user` (none: as who we are) in fresh directories and returns the archive's digest.
fn digest_as(user: Option<&str>, umask: &str, keep: &mut Vec<World>) -> String {
    let w = World::new();
    w.file("f", "content").file("Dockerfile", TEXT);
    let ply = w.own_ply();
    let script = format!(
        "umask {umask}; cd {dir} && HOME={dir}/home PLY_STORE={dir}/store SOURCE_DATE_EPOCH=1500000000 {ply} build -q --progress=plain \
         --build-context {base} -t t -o type=oci,dest={dir}/out.tar --metadata-file {dir}/meta.json ctx && \
         HOME={dir}/home PLY_STORE={dir}/store {ply} build -q --build-context {base} -t t ctx && HOME={dir}/home PLY_STORE={dir}/store {ply} run --rm t",
        dir = w.dir.path().display(),
        ply = ply.display(),
        base = super::BASE,
    );
    let mut command = Command::new(if user.is_some() { "runuser" } else { "sh" });
    if let Some(user) = user {
        let id = Command::new("chown").args(["-R", user]).arg(w.dir.path()).status().unwrap();
        assert!(id.success());
        command.args(["-u", user, "--", "sh"]);
    }
    let done: Done = command.args(["-c", &script]).output().unwrap().into();
    let done = done.ok();
    assert!(done.stdout.ends_with("built\n"), "{done:#?}");
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(w.path("meta.json")).unwrap()).unwrap();
    keep.push(w);
    meta["containerimage.digest"].as_str().unwrap().to_string()
}

#[test]
fn privileged_root_and_ordinary_users_get_one_digest() {
    if !is_root() {
        return skipped("not root");
    }
    let mut keep = Vec::new();
    let root = digest_as(None, "022", &mut keep);
    assert_eq!(digest_as(None, "077", &mut keep), root);
    for (tag, ranges) in [("r", true), ("s", false)] {
        let Some(account) = Account::new(tag, ranges) else { return };
        assert_eq!(digest_as(Some(&account.0), "027", &mut keep), root, "ranges: {ranges}");
        // What belongs to subordinate ids can be removed by root only.
        keep.clear();
    }
}

#[test]
fn the_reduced_isolation_is_said_and_can_be_refused() {
    let w = World::new();
    w.file("Dockerfile", "FROM base\nRUN true\n");
    let doctor = w.ply(&["doctor"]).ok().stdout;
    assert!(doctor.contains("isolation"), "{doctor}");
    let done = w.build(&["--require-isolation=full"]);
    assert_eq!(done.code == Some(0), !doctor.contains("reduced"), "{doctor} {done:#?}");
}

#[test]
fn privileged_a_store_on_overlayfs_falls_back_to_copying() {
    if !is_root() {
        return skipped("not root");
    }
    let w = World::new();
    w.file("f", "content").file("Dockerfile", TEXT);
    // A mount namespace of its own: nothing of it outlives the shell.
    let script = format!(
        "cd {dir} && mkdir l t && mount -t tmpfs t t && mkdir t/u t/w m && mount -t overlay o -o lowerdir=l,upperdir=t/u,workdir=t/w m && \
         HOME={dir}/home PLY_STORE={dir}/m/store {ply} build --progress=plain --build-context {base} -t t ctx && \
         HOME={dir}/home PLY_STORE={dir}/m/store {ply} run --rm t",
        dir = w.dir.path().display(),
        ply = w.ply.display(),
        base = super::BASE,
    );
    let Some(done) = program("unshare", &["-m", "--propagation", "private", "sh", "-c", &script]) else { return };
    let done = done.ok().says("copy");
    assert!(done.stdout.ends_with("built\n"), "{done:#?}");
}
