//! Compares two steps' inputs, field by field.
//!
//! Each structure is taken apart with all its fields named: a new field doesn't compile before its difference has a name.

use std::collections::BTreeSet;

use super::super::files::{FileChange, Name};
use super::super::key::{CopyInputs, KeyInputs, MatchInputs, MountInputs, MountSource, Network, RunInputs, SourceKind, StepInputs};
use super::super::record::Slot;
use super::words::source_word;
use super::{Difference, KEY_FORMAT, Lists, PLATFORM, Parent};
use crate::digest::ContentDigest;
use crate::dockerfile::ignore::IgnoreRules;

/// How many files of one source are named.
const NAMED_FILES: usize = 10;

/// Returns every input that differs; none exactly when the keys are equal.
pub fn differences(new: &Slot, old: &Slot, parent: &Parent, lists: Lists<'_>) -> Vec<Difference> {
    let KeyInputs { platform, parent: state, step } = &new.inputs;
    let mut found = Found { differences: Vec::new(), lists, sources: &new.sources, left_out: None };
    found.value(KEY_FORMAT, &old.format.to_string(), &new.format.to_string());
    found.value(PLATFORM, &old.inputs.platform.to_string(), &platform.to_string());
    match (step, &old.inputs.step) {
        (StepInputs::Run(new), StepInputs::Run(old)) => found.run(new, old),
        (StepInputs::Copy(new), StepInputs::Copy(old)) => found.copy(new, old),
        (StepInputs::Workdir(new), StepInputs::Workdir(old)) => {
            found.value("directory", &old.path, &new.path);
            found.value("user", &old.user, &new.user);
        }
        (new, old) => found.instruction(instruction(old), instruction(new)),
    }
    // A linked copy stands on nothing.
    let link = |s: &StepInputs| matches!(s, StepInputs::Copy(copy) if copy.link);
    if *state != old.inputs.parent && link(step) == link(&old.inputs.step) {
        found.differences.push(match parent {
            Parent::Base(name, digest) => Difference::Base { name: name.clone(), old: None, new: *digest },
            Parent::Step(name) => Difference::Below(name.clone()),
        });
    }
    found.differences
}

fn instruction(step: &StepInputs) -> &'static str {
    match step {
        StepInputs::Run(_) => "RUN",
        StepInputs::Copy(copy) if copy.add.is_some() => "ADD",
        StepInputs::Copy(_) => "COPY",
        StepInputs::Workdir(_) => "WORKDIR",
    }
}

struct Found<'a> {
    differences: Vec<Difference>,
    lists: Lists<'a>,
    sources: &'a [String],
    /// What `--exclude` left out before and leaves out now, when that differs.
    left_out: Option<(IgnoreRules, IgnoreRules)>,
}

impl Found<'_> {
    fn value(&mut self, what: &str, old: &str, new: &str) {
        self.option(what, Some(old), Some(new));
    }

    fn option(&mut self, what: &str, old: Option<&str>, new: Option<&str>) {
        if old != new {
            let (old, new) = (old.map(Into::into), new.map(Into::into));
            self.differences.push(Difference::Value { what: what.into(), old, new });
        }
    }

    fn instruction(&mut self, old: &str, new: &str) {
        self.differences.push(Difference::Instruction { old: old.into(), new: new.into() });
    }

    /// A flag that is on or off.
    fn flag(&mut self, what: &str, old: bool, new: bool) {
        self.option(what, old.then_some("on"), new.then_some("on"));
    }

    fn run(&mut self, new: &RunInputs, old: &RunInputs) {
        let RunInputs { argv, env, cwd, user, hostname, network, insecure, mounts, scripts, shm_size_bytes, ulimits, extra_hosts } = new;
        if *argv != old.argv {
            self.differences.push(Difference::Command { old: old.argv.clone(), new: argv.clone() });
        }
        self.scripts(scripts, &old.scripts);
        self.env(env, &old.env);
        self.value("working directory", &old.cwd, cwd);
        self.value("user", &old.user, user);
        self.mounts(mounts, &old.mounts);
        self.value("network", network_name(old.network), network_name(*network));
        self.flag("--security=insecure", old.insecure, *insecure);
        self.value("hostname", &old.hostname, hostname);
        let number = |n: &Option<u64>| n.map(|n| n.to_string());
        self.option("--shm-size", number(&old.shm_size_bytes).as_deref(), number(shm_size_bytes).as_deref());
        let limits = |l: &[(String, u64, u64)]| joined(l.iter().map(|(n, soft, hard)| format!("{n}={soft}:{hard}")));
        self.option("--ulimit", limits(&old.ulimits).as_deref(), limits(ulimits).as_deref());
        let hosts = |l: &[String]| joined(l.iter().cloned());
        self.option("--add-host", hosts(&old.extra_hosts).as_deref(), hosts(extra_hosts).as_deref());
    }

    fn env(&mut self, new: &[(String, String)], old: &[(String, String)]) {
        fn last<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
            env.iter().rfind(|(k, _)| k == name).map(|(_, v)| v.as_str())
        }
        let before = self.differences.len();
        let mut seen = BTreeSet::new();
        for (name, _) in new.iter().chain(old) {
            let (old, new) = (last(old, name), last(new, name));
            if seen.insert(name) && old != new {
                let (old, new) = (old.map(Into::into), new.map(Into::into));
                self.differences.push(Difference::Variable { name: name.clone(), old, new });
            }
        }
        if new != old && self.differences.len() == before {
            self.differences.push(Difference::EnvOrder);
        }
    }

    fn scripts(&mut self, new: &[(String, ContentDigest)], old: &[(String, ContentDigest)]) {
        let names = |l: &[(String, ContentDigest)]| joined(l.iter().map(|(n, _)| n.clone()));
        if names(new) != names(old) {
            return self.option("heredocs", names(old).as_deref(), names(new).as_deref());
        }
        for ((name, new), (_, old)) in new.iter().zip(old) {
            if new != old {
                self.differences.push(Difference::Source { source: name.clone(), kind: SourceKind::Inline });
            }
        }
    }

    fn mounts(&mut self, new: &[MountInputs], old: &[MountInputs]) {
        let place = |m: &MountInputs| (mount_kind(&m.source), m.target.clone());
        let places = |l: &[MountInputs]| l.iter().map(place).collect::<Vec<_>>();
        if places(new) != places(old) {
            return self.other_mounts(new, old);
        }
        let mut binds = 0;
        for (new, old) in new.iter().zip(old) {
            let MountInputs { target, readonly, source } = new;
            let what = match (source, target.as_str()) {
                (MountSource::Secret { id, .. }, "") => format!("mount secret {id}"),
                (_, target) => format!("mount {target}"),
            };
            self.flag(&format!("{what} readonly"), old.readonly, *readonly);
            match (source, &old.source) {
                (MountSource::Bind { content: new }, MountSource::Bind { content: old }) => {
                    let shown = self.sources.get(binds).cloned().unwrap_or_else(|| target.clone());
                    binds += 1;
                    self.content(&shown, SourceKind::Path, new, old);
                }
                (MountSource::Cache { seed: Some(new), .. }, MountSource::Cache { seed: Some(old), .. }) if new != old => {
                    self.content(target, SourceKind::Path, new, old);
                }
                _ => {}
            }
            for ((field, new), (_, old)) in mount_fields(source).into_iter().zip(mount_fields(&old.source)) {
                self.option(&format!("{what} {field}"), old.as_deref(), new.as_deref());
            }
        }
    }

    /// Mounts that came, went, or changed their kind or order.
    fn other_mounts(&mut self, new: &[MountInputs], old: &[MountInputs]) {
        let kinds = |l: &[MountInputs]| l.iter().map(|m| mount_kind(&m.source)).collect::<Vec<_>>();
        if kinds(new) == kinds(old) && old.iter().filter(|m| new.iter().any(|n| n.target == m.target)).count() + 1 == old.len() {
            let moved = new.iter().zip(old).find(|(new, old)| new.target != old.target);
            return moved.into_iter().for_each(|(new, old)| self.value("mount target", &old.target, &new.target));
        }
        let kind = |l: &[MountInputs], target: &str| l.iter().find(|m| m.target == target).map(|m| mount_kind(&m.source));
        let before = self.differences.len();
        let targets: BTreeSet<&String> = old.iter().chain(new).map(|m| &m.target).collect();
        for target in targets {
            let shown = if target.is_empty() { "mount as variable".to_string() } else { format!("mount {target}") };
            self.option(&shown, kind(old, target), kind(new, target));
        }
        if self.differences.len() == before {
            let all = |l: &[MountInputs]| joined(l.iter().map(|m| format!("{}:{}", mount_kind(&m.source), m.target)));
            self.option("mount order", all(old).as_deref(), all(new).as_deref());
        }
    }

    fn copy(&mut self, new: &CopyInputs, old: &CopyInputs) {
        let CopyInputs { sources, dest, chown, chmod, link, parents, exclude, add } = new;
        match (add, &old.add) {
            (Some(new), Some(old)) => {
                self.flag("--keep-git-dir", old.keep_git_dir, new.keep_git_dir);
                let word = |on: Option<bool>| on.map(|on| if on { "true" } else { "false" });
                self.option("--unpack", word(old.unpack), word(new.unpack));
            }
            (None, None) => {}
            (Some(_), None) => self.instruction("COPY", "ADD"),
            (None, Some(_)) => self.instruction("ADD", "COPY"),
        }
        self.value("destination", &old.dest, dest);
        self.option("--chown", old.chown.as_deref(), chown.as_deref());
        self.option("--chmod", old.chmod.as_deref(), chmod.as_deref());
        self.flag("--link", old.link, *link);
        self.flag("--parents", old.parents, *parents);
        let list = |l: &[String]| joined(l.iter().cloned());
        self.option("--exclude", list(&old.exclude).as_deref(), list(exclude).as_deref());
        if *exclude != old.exclude {
            let rules = |l: &[String]| IgnoreRules::from_patterns(l).unwrap_or_default();
            self.left_out = Some((rules(&old.exclude), rules(exclude)));
        }
        if *parents != old.parents {
            // Every file has another name then.
            return;
        }
        let named = |c: &CopyInputs| joined(c.sources.iter().map(|s| format!("{}{}", source_word(s.kind), s.pattern)));
        if named(new) != named(old) {
            return self.option("sources", named(old).as_deref(), named(new).as_deref());
        }
        for (n, (new, old)) in sources.iter().zip(&old.sources).enumerate() {
            let shown = self.sources.get(n).cloned().unwrap_or_else(|| new.pattern.clone());
            self.matches(&shown, new.kind, &new.matches, &old.matches);
        }
    }

    /// What one source matched, before and now.
    fn matches(&mut self, shown: &str, kind: SourceKind, new: &[MatchInputs], old: &[MatchInputs]) {
        if new == old {
            return;
        }
        let wild = shown.contains(['*', '?', '[']);
        let path = |name: &Name| match (wild, shown.rsplit_once('/')) {
            (false, _) => shown.to_string(),
            // A directory has no name in the result: only what it holds is copied.
            (true, _) if name.0.is_empty() => shown.to_string(),
            (true, Some((dir, _))) => format!("{dir}/{name}"),
            (true, None) => name.to_string(),
        };
        // Directories that a pattern matched have no names: of equal names the first goes with the first.
        let partner = |of: &[MatchInputs], at: usize, list: &[MatchInputs]| {
            let before = of[..at].iter().filter(|m| m.name == of[at].name).count();
            list.iter().filter(|m| m.name == of[at].name).nth(before).cloned()
        };
        let gone = (0..old.len()).filter(|at| partner(old, *at, new).is_none());
        let mut changes: Vec<(String, FileChange)> = gone.map(|at| (path(&old[at].name), FileChange::Removed)).collect();
        let added = (0..new.len()).filter(|at| partner(new, *at, old).is_none());
        changes.extend(added.map(|at| (path(&new[at].name), FileChange::Added)));
        let mut found = !changes.is_empty();
        self.files(changes);
        for (at, m) in new.iter().enumerate() {
            if let Some(old) = partner(new, at, old).filter(|o| o.content != m.content) {
                self.content(&path(&m.name), kind, &m.content, &old.content);
                found = true;
            }
        }
        if !found {
            self.differences.push(Difference::Source { source: shown.into(), kind });
        }
    }

    /// A tree's content: named by its files where both lists are kept.
    fn content(&mut self, shown: &str, kind: SourceKind, new: &ContentDigest, old: &ContentDigest) {
        if new == old {
            return;
        }
        let lists = if kind == SourceKind::Path { (self.lists)(new).zip((self.lists)(old)) } else { None };
        let changes = lists.map(|(new, old)| new.changes_since(&old)).unwrap_or_default();
        if changes.is_empty() {
            self.differences.push(Difference::Source { source: shown.into(), kind });
            return;
        }
        let dir = shown.trim_end_matches("/.").trim_end_matches('/');
        let path = |name: &Name| match (dir, name.0.is_empty()) {
            ("" | ".", false) => name.to_string(),
            ("", true) => "/".to_string(),
            (dir, true) => dir.to_string(),
            (dir, false) => format!("{dir}/{name}"),
        };
        self.files(changes.into_iter().map(|(name, change)| (path(&name), change)).collect());
    }

    /// The files of one source that differ, but those that came or went by another `--exclude`, which is named already.
    fn files(&mut self, mut changes: Vec<(String, FileChange)>) {
        if let Some((old, new)) = &self.left_out {
            let left_out = |rules: &IgnoreRules, path: &str| {
                let below = path.match_indices('/').map(|(at, _)| &path[at + 1..]);
                std::iter::once(path).chain(below).any(|p| rules.matches_or_parent_matches(p))
            };
            changes.retain(|(path, change)| match change {
                FileChange::Added => !left_out(old, path),
                FileChange::Removed => !left_out(new, path),
                FileChange::Implied => false,
                _ => true,
            });
        }
        let all = changes.len();
        for (n, (path, change)) in changes.into_iter().take(NAMED_FILES).enumerate() {
            let more = if n == 0 { all - 1 } else { 0 };
            self.differences.push(Difference::File { path, change, more, rule: None });
        }
    }
}

fn joined(items: impl Iterator<Item = String>) -> Option<String> {
    let items: Vec<_> = items.collect();
    (!items.is_empty()).then(|| items.join(" "))
}

fn network_name(network: Network) -> &'static str {
    match network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    }
}

fn mount_kind(source: &MountSource) -> &'static str {
    match source {
        MountSource::Bind { .. } => "bind",
        MountSource::Cache { .. } => "cache",
        MountSource::Tmpfs { .. } => "tmpfs",
        MountSource::Secret { .. } => "secret",
        MountSource::Ssh { .. } => "ssh",
    }
}

/// What of a mount, besides its target and its files, decides the result; equally many for mounts of one kind.
fn mount_fields(source: &MountSource) -> Vec<(&'static str, Option<String>)> {
    let on = |on: bool| on.then(|| "on".to_string());
    let owned = |mode: u32, uid: u32, gid: u32| {
        vec![("mode", Some(format!("{mode:04o}"))), ("uid", Some(uid.to_string())), ("gid", Some(gid.to_string()))]
    };
    match source {
        MountSource::Bind { .. } => Vec::new(),
        MountSource::Cache { seed, mode, uid, gid } => {
            let mut fields = owned(*mode, *uid, *gid);
            // Two seeds that differ are compared by their files.
            fields.push(("seed", seed.map(|_| "files".to_string())));
            fields
        }
        MountSource::Tmpfs { size_bytes } => vec![("size", size_bytes.map(|n| n.to_string()))],
        MountSource::Secret { id, required, env, mode, uid, gid } => {
            let mut fields = owned(*mode, *uid, *gid);
            fields.extend([("id", Some(id.clone())), ("required", on(*required)), ("env", env.clone())]);
            fields
        }
        MountSource::Ssh { id, required, mode, uid, gid } => {
            let mut fields = owned(*mode, *uid, *gid);
            fields.extend([("id", Some(id.clone())), ("required", on(*required))]);
            fields
        }
    }
}
