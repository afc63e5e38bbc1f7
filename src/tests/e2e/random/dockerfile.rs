//! Dockerfiles at random, and edits of them.

use std::fmt::Write as _;

use super::{Random, TEXTS};

/// Few enough that steps of different Dockerfiles often make the same layer, and one undoes what another did.
const PATHS: [&str; 6] = ["/w/a", "/w/b", "/w/a/x", "/w/b/x", "/top", "/w/a/x/deep"];
const MODES: [&str; 6] = ["700", "755", "711", "1777", "644", "4755"];
const SOURCES: [&str; 11] = ["f", "d", "d/a", "d/sub", "*.c", "d/*", ".", "link", "f d/a", "[xy].c", "d/l"];
const DESTS: [&str; 7] = ["/w/", "/w/a/", "/w/b/", "/e/", "/w/c/", "/top/", "/e/deep/er/"];

/// What a Dockerfile is made of: stages of lines below FROM, and what each stage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    stages: Vec<Vec<String>>,
    bases: Vec<usize>,
    /// Whether files can have owners and processes other users.
    owners: bool,
}

fn command(r: &mut Random) -> String {
    let (p, q) = (r.pick(&PATHS), r.pick(&PATHS));
    match r.below(14) {
        0 => format!("mkdir -p {p}"),
        1 => format!("rm -rf {p}"),
        2 | 3 => format!("echo {} > {p}", r.pick(&TEXTS)),
        4 => format!("ln -sf {q} {p}"),
        5 => format!("ln -f {p} {q}"),
        6 => format!("chmod {} {p}", r.pick(&MODES)),
        7 => format!("mv {p} {q}"),
        8 => format!("rm -rf {p} && mkdir -p {p} && echo {} > {p}/n", r.pick(&TEXTS)),
        9..=11 => format!("chmod {} {}", r.pick(&["700", "755", "711"]), r.pick(&["/", "/", "/w"])),
        12 => format!("id -u > {p}"),
        _ => format!("echo $V >> {p}"),
    }
}

/// One that fails says nothing and harms nothing.
fn tried(r: &mut Random) -> String {
    format!("({}) 2>/dev/null", command(r))
}

fn run(r: &mut Random) -> String {
    let commands: Vec<String> = (0..=r.below(5) / 3).map(|_| tried(r)).collect();
    match r.below(8) {
        0 => format!("RUN <<E\n{}\ntrue\nE", commands.join("\n")),
        1 => format!("RUN <<E\n#!/bin/sh\n{}\ntrue\nE", commands.join("\n")),
        2 => format!("RUN --mount=type=cache,target=/c (echo x >> /c/x) 2>/dev/null; {}; true", commands.join("; ")),
        3 => format!("RUN --mount=type=tmpfs,target=/w/a {}; true", commands.join("; ")),
        4 => format!("RUN --network=none {}; true", commands.join("; ")),
        _ => format!("RUN {}; true", commands.join("; ")),
    }
}

impl Text {
    pub fn new(r: &mut Random, owners: bool) -> Self {
        let mut text = Self { stages: Vec::new(), bases: (0..3).map(|_| r.below(100)).collect(), owners };
        for stage in 0..=r.below(3) {
            let lines = (0..2 + r.below(5)).map(|_| text.instruction(r, stage)).collect();
            text.stages.push(lines);
        }
        text
    }

    fn instruction(&self, r: &mut Random, stage: usize) -> String {
        match r.below(if stage == 0 { 13 } else { 17 }) {
            0..=4 => run(r),
            5..=7 => {
                let owner = if self.owners { r.pick(&["", "", "--chown=7:8 "]) } else { "" };
                let options = r.pick(&["", "", "", "--link ", "--chmod=700 ", "--exclude=b ", "--exclude=**/c ", "--parents "]);
                format!("COPY {owner}{options}{} {}", r.pick(&SOURCES), r.pick(&DESTS))
            }
            8 => format!("ADD {} {}", r.pick(&["f", "d", "x.c"]), r.pick(&DESTS)),
            9 => format!("{} V={}", r.pick(&["ENV", "ARG"]), r.pick(&TEXTS)),
            10 => match r.below(3) {
                0 => format!("WORKDIR {}", r.pick(&["/w/wd", "/w/a", "/fresh/dir", "rel"])),
                1 if self.owners => format!("USER {}", r.pick(&["0", "7", "7:8"])),
                _ => "ARG V".to_owned(),
            },
            11 => match r.below(3) {
                0 => format!("COPY <<E {}\n{}$V\nE", r.pick(&["/w/h", "/e/h", "/top"]), r.pick(&TEXTS)),
                1 => format!("COPY <<E f {}\n{}\nE", r.pick(&DESTS), r.pick(&TEXTS)),
                _ => format!("COPY <<\"E\" <<F {}\n$V\nE\n{}\nF", r.pick(&DESTS), r.pick(&TEXTS)),
            },
            12 => {
                let (more, source) = (r.pick(&["", ",rw"]), r.pick(&["d", "d/sub", "d"]));
                format!("RUN --mount=target=/m,source={source}{more} (ls /m > {}; cat /m/a > /top) 2>/dev/null; true", r.pick(&PATHS))
            }
            13 => format!("RUN --mount=target=/m,from=s{},source=/w (ls /m > {}) 2>/dev/null; true", r.below(stage), r.pick(&PATHS)),
            14 => format!(
                "RUN --mount=type=cache,target=/c,from=s{},source=/w (ls /w > {}) 2>/dev/null; true",
                r.below(stage),
                r.pick(&PATHS)
            ),
            _ => format!(
                "COPY {}--from=s{} {} {}",
                r.pick(&["", "", "--link ", "--chmod=755 ", "--parents "]),
                r.below(stage),
                r.pick(&["/w", "/w/*", "/w/a*", "/to[p]", "/w/a/../b"]),
                r.pick(&["/got", "/got/", "/w/", "/w/b/"])
            ),
        }
    }

    /// Returns the Dockerfile. A later stage stands on the base, or on an earlier one: by its number, so that edits don't
    /// change it.
    pub fn dockerfile(&self) -> String {
        let mut out = String::new();
        for (n, stage) in self.stages.iter().enumerate() {
            let base = match self.bases[n] % (n + 2) {
                0 | 1 => "base".to_string(),
                earlier => format!("s{}", earlier - 2),
            };
            // As root, whoever the stage below ended as.
            let user = if self.owners { "USER 0\n" } else { "" };
            let _ = write!(out, "FROM {base} AS s{n}\n{user}RUN mkdir -p /w/a\n{}\n", stage.join("\n"));
        }
        out
    }

    /// Changes something; says what.
    pub fn edit(&mut self, r: &mut Random) -> String {
        let at = r.below(self.stages.len());
        let line = r.below(self.stages[at].len());
        match r.below(5) {
            0 => {
                self.stages[at][line] = self.instruction(r, at);
                format!("line {line} of stage {at} is another")
            }
            1 => {
                let new = self.instruction(r, at);
                self.stages[at].insert(line, new);
                format!("a new line {line} in stage {at}")
            }
            2 if self.stages[at].len() > 1 => format!("without {:?}", self.stages[at].remove(line)),
            3 => {
                self.stages[at].insert(line, "# a comment\nLABEL a=b".to_owned());
                "a comment and a label".to_owned()
            }
            _ => {
                self.stages[at].rotate_left(line);
                format!("stage {at} turned by {line}")
            }
        }
    }
}
