//! Why a step was not in the cache: a value, found by comparing inputs, worded in one place ([`words`]).
//!
//! Pure. The comparison tells *all* differences, in the order in which a reader wants them: what stands in the
//! Dockerfile before what came from elsewhere, and the state below last, since it changes with everything above.

use serde::{Deserialize, Serialize};

use self::words::source_word;

mod words;

use super::files::{FileChange, FileList, Name};
use super::key::{CopyInputs, KeyInputs, MatchInputs, MountInputs, MountSource, Network, RunInputs, SourceKind, StepInputs};
use super::record::Slot;
use crate::digest::ContentDigest;

/// Why a step has to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Nothing is known of this place.
    FirstBuild,
    /// `--no-cache`, or `--no-cache-filter` for this stage.
    NoCache,
    /// The inputs are those of the last build, but its result is not kept any more.
    ResultGone,
    /// These inputs differ from the last build's; at least one.
    Changed(Vec<Difference>),
}

/// One input that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Another instruction stands here: its old and new name.
    Instruction(String, String),
    /// The process's arguments.
    Command(Vec<String>, Vec<String>),
    /// A value with a name (`env RUSTFLAGS`, `user`, `--chown`); none: not set.
    Value {
        /// Its name.
        what: String,
        /// Before.
        old: Option<String>,
        /// Now.
        new: Option<String>,
    },
    /// The same variables in another order.
    EnvOrder,
    /// A file, by its path as far as it is known.
    File {
        /// Which.
        path: String,
        /// How.
        change: FileChange,
        /// How many more of the same source differ.
        more: usize,
    },
    /// A source as a whole: its files are not listed.
    Source {
        /// Its name as written.
        source: String,
        /// What it is.
        kind: SourceKind,
    },
    /// The step below made something else.
    Step(String),
    /// The base image's layers.
    Base(String),
}

/// What a step stands on, as people call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// A base image (`alpine:3.20`), or `scratch`.
    Base(String),
    /// A step before it (`step 4`).
    Step(String),
}

/// Finds a tree's list of files; none: not kept.
pub type Lists<'a> = &'a dyn Fn(&ContentDigest) -> Option<FileList>;

/// Tells why `new` is not in the cache, by what was last built in its place.
pub fn explain(new: &Slot, old: Option<&Slot>, parent: &Parent, lists: Lists<'_>) -> Reason {
    let Some(old) = old else { return Reason::FirstBuild };
    let differences = differences(new, old, parent, lists);
    if differences.is_empty() { Reason::ResultGone } else { Reason::Changed(differences) }
}

/// Returns every input that differs; none exactly when the keys are equal.
pub fn differences(new: &Slot, old: &Slot, parent: &Parent, lists: Lists<'_>) -> Vec<Difference> {
    let KeyInputs { platform, parent: state, step } = &new.inputs;
    let mut found = Found { differences: Vec::new(), lists, sources: &new.sources };
    found.value("platform", &old.inputs.platform.to_string(), &platform.to_string());
    match (step, &old.inputs.step) {
        (StepInputs::Run(new), StepInputs::Run(old)) => found.run(new, old),
        (StepInputs::Copy(new), StepInputs::Copy(old)) => found.copy(new, old),
        (StepInputs::Workdir(new), StepInputs::Workdir(old)) => {
            found.value("directory", &old.path, &new.path);
            found.value("user", &old.user, &new.user);
        }
        (new, old) => found.differences.push(Difference::Instruction(instruction(old).into(), instruction(new).into())),
    }
    if *state != old.inputs.parent {
        found.differences.push(match parent {
            Parent::Base(name) => Difference::Base(name.clone()),
            Parent::Step(name) => Difference::Step(name.clone()),
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

    /// A flag that is on or off.
    fn flag(&mut self, what: &str, old: bool, new: bool) {
        self.option(what, old.then_some("on"), new.then_some("on"));
    }

    fn run(&mut self, new: &RunInputs, old: &RunInputs) {
        let RunInputs { argv, env, cwd, user, hostname, network, insecure, mounts, scripts, shm_size_bytes, ulimits, extra_hosts } = new;
        if *argv != old.argv {
            self.differences.push(Difference::Command(old.argv.clone(), argv.clone()));
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
        let mut seen = std::collections::BTreeSet::new();
        for (name, _) in new.iter().chain(old) {
            if seen.insert(name) {
                self.option(&format!("env {name}"), last(old, name), last(new, name));
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
        let targets = |l: &[MountInputs]| joined(l.iter().map(|m| format!("{}:{}", mount_kind(&m.source), m.target)));
        if targets(new) != targets(old) {
            return self.option("mounts", targets(old).as_deref(), targets(new).as_deref());
        }
        let mut binds = 0;
        for (new, old) in new.iter().zip(old) {
            let MountInputs { target, readonly, source } = new;
            self.flag(&format!("mount {target} readonly"), old.readonly, *readonly);
            if let (MountSource::Bind { content: new }, MountSource::Bind { content: old }) = (source, &old.source) {
                let shown = self.sources.get(binds).cloned().unwrap_or_else(|| target.clone());
                binds += 1;
                self.content(&shown, SourceKind::Path, new, old);
            } else if *source != old.source {
                let text = |s: &MountSource| serde_json::to_string(s).unwrap_or_default();
                self.value(&format!("mount {target}"), &text(&old.source), &text(source));
            }
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
            (new, _) => {
                let (from, to) = if new.is_some() { ("COPY", "ADD") } else { ("ADD", "COPY") };
                self.differences.push(Difference::Instruction(from.into(), to.into()));
            }
        }
        let named = |c: &CopyInputs| joined(c.sources.iter().map(|s| format!("{}{}", source_word(s.kind), s.pattern)));
        if named(new) == named(old) {
            for (n, (new, old)) in sources.iter().zip(&old.sources).enumerate() {
                let shown = self.sources.get(n).cloned().unwrap_or_else(|| new.pattern.clone());
                self.matches(&shown, new.kind, &new.matches, &old.matches);
            }
        } else {
            self.option("sources", named(old).as_deref(), named(new).as_deref());
        }
        self.value("destination", &old.dest, dest);
        self.option("--chown", old.chown.as_deref(), chown.as_deref());
        self.option("--chmod", old.chmod.as_deref(), chmod.as_deref());
        self.flag("--link", old.link, *link);
        self.flag("--parents", old.parents, *parents);
        let list = |l: &[String]| joined(l.iter().cloned());
        self.option("--exclude", list(&old.exclude).as_deref(), list(exclude).as_deref());
    }

    /// What one source matched, before and now.
    fn matches(&mut self, shown: &str, kind: SourceKind, new: &[MatchInputs], old: &[MatchInputs]) {
        if new == old {
            return;
        }
        let wild = shown.contains(['*', '?', '[']);
        let path = |name: &Name| match (wild, shown.rsplit_once('/')) {
            (false, _) => shown.to_string(),
            (true, Some((dir, _))) => format!("{dir}/{name}"),
            (true, None) => name.to_string(),
        };
        let before = self.differences.len();
        for m in old {
            if !new.iter().any(|n| n.name == m.name) {
                self.file(path(&m.name), FileChange::Removed, 0);
            }
        }
        for m in new {
            match old.iter().find(|o| o.name == m.name) {
                None => self.file(path(&m.name), FileChange::Added, 0),
                Some(o) => self.content(&path(&m.name), kind, &m.content, &o.content),
            }
        }
        if self.differences.len() == before {
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
        match changes.first() {
            Some((name, change)) => {
                let dir = shown.trim_end_matches("/.").trim_end_matches('/');
                let path = match (dir, name.0.is_empty()) {
                    ("" | ".", false) => name.to_string(),
                    ("", true) => "/".to_string(),
                    (dir, true) => dir.to_string(),
                    (dir, false) => format!("{dir}/{name}"),
                };
                self.file(path, *change, changes.len() - 1);
            }
            None => self.differences.push(Difference::Source { source: shown.into(), kind }),
        }
    }

    fn file(&mut self, path: String, change: FileChange, more: usize) {
        self.differences.push(Difference::File { path, change, more });
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

#[cfg(test)]
mod tests;
