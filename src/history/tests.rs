//! A repository made by hand for tests, and what the reader makes of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;

/// A repository in a temporary directory; removed at the end.
pub(crate) struct Made {
    pub dir: tempfile::TempDir,
}

/// Returns where programs are.
pub(crate) fn programs() -> Vec<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect()
}

impl Made {
    pub fn new() -> Self {
        let made = Self { dir: tempfile::Builder::new().prefix("ply-history-").tempdir().unwrap() };
        made.git(&["init", "-q", "-b", "main"]);
        made
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Runs git as a user would; its output.
    pub fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(args).current_dir(self.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.path());
        for (name, value) in [
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@b"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@b"),
            ("GIT_AUTHOR_DATE", "1700000000 +0000"),
            ("GIT_COMMITTER_DATE", "1700000000 +0000"),
        ] {
            command.env(name, value);
        }
        let out = command.output().unwrap();
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Writes a file.
    pub fn write(&self, name: impl AsRef<[u8]>, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path().join(OsStr::from_bytes(name.as_ref()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Commits all that lies there.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn open(&self) -> Repository {
        Repository::find(self.path(), &programs()).unwrap()
    }
}

/// All commits along first parents.
pub(crate) fn all() -> Range {
    Range { revisions: None, most: None, parents: Parents::First }
}

#[test]
fn commits_come_oldest_first_and_along_the_parents_that_are_wanted() {
    let made = Made::new();
    made.write("a", "1").commit("one");
    made.git(&["checkout", "-q", "-b", "side"]);
    made.write("b", "1").commit("side\ttab");
    made.git(&["checkout", "-q", "main"]);
    made.write("c", "1").commit("two");
    made.git(&["merge", "-q", "--no-ff", "-m", "merge", "side"]);
    let subjects = |range: &Range| made.open().commits(range).unwrap().into_iter().map(|c| c.subject).collect::<Vec<_>>();
    assert_eq!(subjects(&all()), ["one", "two", "merge"]);
    assert_eq!(subjects(&Range { most: Some(2), ..all() }), ["two", "merge"]);
    assert_eq!(subjects(&Range { revisions: Some("side".into()), ..all() }), ["one", "side\ttab"]);
    assert_eq!(subjects(&Range { revisions: Some("HEAD..HEAD".into()), ..all() }), [""; 0]);
    let mut every = subjects(&Range { parents: Parents::All, ..all() });
    assert_eq!(every.pop().as_deref(), Some("merge"));
    every.sort();
    assert_eq!(every, ["one", "side\ttab", "two"]);
    let merge = made.open().commits(&all()).unwrap().pop().unwrap();
    assert_eq!((merge.parents.len(), merge.time_secs), (2, 1_700_000_000));
}

#[test]
fn a_repository_is_found_from_below_bare_and_by_its_git_directory() {
    let made = Made::new();
    made.write("a/b/f", "1").commit("one");
    let of = |path: &Path| Repository::find(path, &programs()).map(|r| (r.place.clone(), r.work_tree.is_some()));
    assert_eq!(of(&made.path().join("a/b")).unwrap(), ("a/b".into(), true));
    assert_eq!(of(&made.path().join(".git")).unwrap(), (String::new(), false));
    made.git(&["clone", "-q", "--bare", ".", "bare.git"]);
    let bare = made.path().join("bare.git");
    assert_eq!(of(&bare).unwrap(), (String::new(), false));
    assert_eq!(Repository::find(&bare, &programs()).unwrap().commits(&all()).unwrap().len(), 1);
    let elsewhere = tempfile::tempdir().unwrap();
    for none in [elsewhere.path().to_owned(), elsewhere.path().join("gone")] {
        assert!(matches!(of(&none), Err(HistoryError::NoRepository { .. })), "{}", none.display());
    }
    assert!(matches!(Repository::find(made.path(), &[]), Err(HistoryError::NoGit)));
}

#[test]
fn a_range_that_is_none_is_told_and_can_be_no_option() {
    let made = Made::new();
    made.write("a", "1").commit("one");
    for bad in ["gone..main", "--output=x", "--all", "main..;rm"] {
        let range = Range { revisions: Some(bad.into()), ..all() };
        assert!(matches!(made.open().commits(&range), Err(HistoryError::Refused { .. })), "{bad}");
    }
    assert!(!made.path().join("x").exists());
}

#[test]
fn objects_are_read_whole_or_not_at_all_and_the_pipe_goes_on() {
    let made = Made::new();
    made.write("big", vec![7; 300_000]).write("small", "s");
    std::os::unix::fs::symlink("small", made.path().join("link")).unwrap();
    made.commit("one");
    let repository = made.open();
    let commit = repository.commits(&all()).unwrap().pop().unwrap();
    let mut objects = repository.objects().unwrap();
    let tree = objects.tree(commit.tree).unwrap();
    let names: Vec<_> = tree.items.iter().map(|i| (String::from_utf8_lossy(&i.name).into_owned(), i.kind)).collect();
    let file = Kind::File { executable: false };
    assert_eq!(names, [("big".into(), file), ("link".into(), Kind::Link), ("small".into(), file)]);
    let id = |name: &str| tree.find(name.as_bytes()).unwrap().id;
    assert!(matches!(objects.blob(id("big"), 1000), Err(HistoryError::TooLarge { size: 300_000, .. })));
    assert_eq!(objects.blob(id("small"), 1000).unwrap(), b"s");
    assert_eq!(objects.blob(id("link"), 1000).unwrap(), b"small");
    assert!(matches!(objects.tree(id("big")), Err(HistoryError::Broken { .. })));
    assert!(matches!(objects.blob(commit.tree, 1000), Err(HistoryError::Broken { .. })));
    let none = Oid::from_hex(&[b'1'; 40]).unwrap();
    assert!(matches!(objects.tree(none), Err(HistoryError::Missing { .. })));
    let mut copied = Vec::new();
    assert_eq!(objects.copy_blob(id("big"), &mut copied).unwrap(), 300_000);
    assert_eq!(copied, vec![7; 300_000]);
}

#[test]
fn trees_that_nobody_may_have_are_broken() {
    let id = [0x11; 20];
    let entry = |mode: &str, name: &str| [format!("{mode} {name}\0").as_bytes(), &id].concat();
    let of = |bytes: &[u8]| Tree::parse(Oid::from_hex(&[b'0'; 40]).unwrap(), bytes).map(|t| t.items.len());
    assert_eq!(of(&[entry("40000", "b"), entry("100644", "b.c")].concat()).unwrap(), 2);
    assert_eq!(of(&entry("100664", "old")).unwrap(), 1);
    let twice = [entry("40000", "b"), entry("100644", "b")].concat();
    for bad in [
        entry("40000", ".."),
        entry("40000", "."),
        entry("100644", ""),
        entry("100644", "a/b"),
        entry("10", "x"),
        twice,
        b"40000 x".to_vec(),
    ] {
        assert!(matches!(of(&bad), Err(HistoryError::Broken { .. })), "{}", bad.escape_ascii());
    }
}

#[test]
fn ids_are_read_and_written_as_hex() {
    for hex in ["4b825dc642cb6eb9a060e54bf8d69288fbee4904".to_owned(), "ab".repeat(32)] {
        assert_eq!(Oid::from_hex(hex.as_bytes()).unwrap().to_string(), hex);
    }
    for bad in ["", "4b825d", &"g".repeat(40), &"a".repeat(41)] {
        assert_eq!(Oid::from_hex(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn a_clone_cut_short_says_so() {
    let made = Made::new();
    made.write("a", "1").commit("one");
    made.write("a", "2").commit("two");
    made.git(&["clone", "-q", "--depth=1", &format!("file://{}", made.path().display()), "cut"]);
    let cut = Repository::find(&made.path().join("cut"), &programs()).unwrap();
    assert!(cut.shallow && !made.open().shallow);
    assert_eq!(cut.commits(&all()).unwrap().len(), 1);
}

/// Whatever a repository's own configuration names, nothing of it is started, and nothing is fetched.
#[test]
fn a_repository_starts_no_program() {
    let made = Made::new();
    made.write("Dockerfile", "FROM scratch\n").write(".gitattributes", "* filter=evil diff=evil\n").commit("one");
    let mark = made.path().join("started");
    let evil = made.path().join(".git/evil");
    std::fs::write(&evil, format!("#!/bin/sh\necho $0 $@ >> {}\n", mark.display())).unwrap();
    std::fs::set_permissions(&evil, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = evil.to_str().unwrap();
    for (key, value) in [
        ("core.fsmonitor", program),
        ("core.pager", program),
        ("core.sshCommand", program),
        ("core.editor", program),
        ("core.hooksPath", made.path().join(".git").to_str().unwrap()),
        ("core.alternateRefsCommand", program),
        ("log.showSignature", "true"),
        ("gpg.program", program),
        ("gpg.ssh.program", program),
        ("credential.helper", program),
        ("filter.evil.smudge", program),
        ("filter.evil.process", program),
        ("diff.evil.textconv", program),
        ("diff.external", program),
        ("uploadpack.packObjectsHook", program),
        ("alias.rev-list", &format!("!{program}")),
        ("alias.cat-file", &format!("!{program}")),
        ("extensions.partialClone", "origin"),
        ("remote.origin.promisor", "true"),
        ("remote.origin.url", &format!("ext::{program} %S")),
        ("remote.origin.uploadpack", program),
        ("remote.origin.vcs", "evil"),
        ("protocol.allow", "always"),
        ("protocol.ext.allow", "always"),
    ] {
        made.git(&["config", key, value]);
    }
    let repository = made.open();
    let commit = repository.commits(&all()).unwrap().pop().unwrap();
    let mut objects = repository.objects().unwrap();
    objects.tree(commit.tree).unwrap();
    // A promised object that is missing is where git would fetch.
    assert!(matches!(objects.tree(Oid::from_hex(&[b'1'; 40]).unwrap()), Err(HistoryError::Missing { .. })));
    assert!(!mark.exists(), "{}", std::fs::read_to_string(&mark).unwrap());
}
