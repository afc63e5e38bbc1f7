//! Holds the crate's shape: which module may import which, what pure modules may not mention, a header on every
//! file, files of a readable size, one printer, `unsafe` in few places.
//!
//! It reads the sources as text, comments, strings and unit tests taken out; it is no Rust parser. What it sees
//! are paths that begin with `crate::`, the only way that one module of this crate names another.
//!
//! To allow an import, add it to [`IMPORTS`]: the table is the design, so think before.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module and the modules that it may name, upper ones first. A module may name itself.
const IMPORTS: &[(&str, &[&str])] = &[
    // What people see.
    (
        "cli",
        &[
            "ui",
            "engine",
            "runner",
            "replay",
            "history",
            "dockerfile",
            "graph",
            "cache",
            "context",
            "sandbox",
            "snapshot",
            "layer",
            "image",
            "store",
            "registry",
            "address",
            "digest",
            "path",
            "fsio",
            "sys",
        ],
    ),
    ("ui", &["engine", "replay", "dockerfile", "graph", "image", "address", "digest"]),
    // Use cases: neither knows the other.
    (
        "engine",
        &[
            "dockerfile",
            "graph",
            "cache",
            "context",
            "sandbox",
            "snapshot",
            "layer",
            "image",
            "store",
            "remote",
            "registry",
            "address",
            "digest",
            "path",
            "fsio",
            "sys",
        ],
    ),
    ("runner", &["sandbox", "snapshot", "layer", "image", "store", "digest", "path", "fsio", "sys"]),
    ("replay", &["dockerfile", "graph", "cache", "context", "history", "image", "digest", "path"]),
    // What to build, and why.
    ("history", &[]),
    ("cache", &["graph", "dockerfile", "context", "image", "store", "address", "digest", "path", "fsio"]),
    ("graph", &["dockerfile", "image", "address", "digest", "path"]),
    ("dockerfile", &["image", "digest"]),
    ("context", &["dockerfile", "layer", "snapshot", "digest", "path", "fsio", "sys"]),
    // How it is done and kept.
    ("remote", &["registry", "store", "address", "digest", "path", "fsio", "sys"]),
    ("registry", &["store", "image", "address", "digest", "path", "fsio", "sys"]),
    ("store", &["image", "layer", "snapshot", "digest", "path", "fsio", "sys"]),
    ("layer", &["snapshot", "digest", "path", "fsio", "sys"]),
    ("snapshot", &["digest", "path", "fsio", "sys"]),
    ("sandbox", &["image", "path", "fsio", "sys"]),
    ("image", &["digest"]),
    // Primitives.
    ("fsio", &["digest", "path", "sys"]),
    ("path", &["sys"]),
    ("digest", &[]),
    ("address", &[]),
    ("sys", &[]),
];

/// Modules that know no file, clock, environment, network or process: same input, same output.
const PURE: &[&str] = &[
    "address",
    "digest",
    "dockerfile",
    "graph",
    "image",
    "cache/align",
    "cache/derive",
    "cache/key",
    "cache/miss",
    "cache/remote",
    "cache/worth",
    "engine/assemble",
    "replay/account",
    "replay/cost",
    "replay/lanes",
    "replay/simulate",
    "sandbox/compile",
    "sandbox/program",
    "ui/diff",
    "ui/human",
    "ui/outline",
    "ui/prometheus",
    "ui/page",
    "ui/plan",
    "ui/replay",
    "ui/table",
    "ui/template",
    "ui/text",
    "ui/timings",
];

/// What gives an impure module away.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::process",
    "std::net",
    "std::thread",
    "std::os::fd",
    "std::os::unix::fs",
    "std::os::unix::net",
    "std::os::unix::process",
    "SystemTime",
    "Instant::",
    "env::var",
    "env::args",
    "env::current",
    "rustix::",
    "nix::",
];

/// The files that may hold `unsafe`.
const UNSAFE: &[&str] = &["sys", "sandbox/child", "sandbox/spawn"];

/// Lines of one file, unit tests included.
const MAX_LINES: usize = 450;

struct File {
    /// `cli/build/mod.rs`.
    name: String,
    text: String,
    /// The text without comments, strings' contents and unit tests.
    code: String,
}

impl File {
    fn module(&self) -> &str {
        self.name.split(['/', '.']).next().expect("split gives one part at least")
    }
    /// Returns whether this file is one of these modules (`cache/key` is `cache/key.rs` and what lies in `cache/key/`).
    fn is_in(&self, modules: &[&str]) -> bool {
        modules.iter().any(|m| self.name.strip_prefix(m).is_some_and(|rest| rest.starts_with(['/', '.'])))
    }
}

/// Reads every source file of the library and binary; `tests/` has none of it.
fn sources() -> Vec<File> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let mut files: Vec<File> = paths
        .iter()
        .map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let code = production(&blank(&text));
            File { name: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text, code }
        })
        .collect();
    // Unit tests in files of their own are tests too.
    // Unit tests that have a file of their own, and what they share.
    let is_test = |name: &str| ["tests.rs", "testserver.rs", "fixture.rs"].iter().any(|end| name.ends_with(end)) || name.contains("tests/");
    files.retain(|f| !is_test(&f.name));
    assert!(files.len() > 20, "the sources were not found below {}", root.display());
    files
}

/// Replaces comments and the insides of strings by blanks; line ends stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let starts = |i: usize, s: &str| s.chars().enumerate().all(|(n, c)| chars.get(i + n) == Some(&c));
    while i < chars.len() {
        let end = if starts(i, "//") {
            chars[i..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| i + n)
        } else if starts(i, "/*") {
            (i + 2..chars.len()).find(|n| starts(*n, "*/")).map_or(chars.len(), |n| n + 2)
        } else if let Some(hashes) = raw_string(&chars, i) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = i + 2 + hashes;
            (open..chars.len()).find(|n| starts(*n, &close)).map_or(chars.len(), |n| n + close.len())
        } else if chars[i] == '"' {
            quoted(&chars, i, '"')
        } else if chars[i] == '\'' && (chars.get(i + 1) == Some(&'\\') || chars.get(i + 2) == Some(&'\'')) {
            quoted(&chars, i, '\'')
        } else {
            out.push(chars[i]);
            i += 1;
            continue;
        };
        out.extend(chars[i..end.min(chars.len())].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
        i = end;
    }
    out
}

/// Returns the number of `#` of a raw string that begins at `i`.
fn raw_string(chars: &[char], i: usize) -> Option<usize> {
    let before = i.checked_sub(1).map(|n| chars[n]);
    // `br"…"` is met at its `r`; a name that ends in `r` is not.
    if chars[i] != 'r' || before.is_some_and(|c| c != 'b' && (c.is_alphanumeric() || c == '_')) {
        return None;
    }
    let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(i + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// Returns the index after the closing quote.
fn quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Returns the code before the unit tests; they may do as they like.
fn production(code: &str) -> String {
    let mut out = String::new();
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            let next = lines.next().unwrap_or("");
            let indent = next.len() - next.trim_start().len();
            // A test module or function ends at the brace below its opening; `mod tests;` and `use` at once.
            if next.trim_end().ends_with('{') {
                for line in lines.by_ref() {
                    if line.len() - line.trim_start().len() == indent && line.trim_start().starts_with('}') {
                        break;
                    }
                }
            }
            continue;
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

/// Returns the top-level modules that the code names with `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group_heads(group));
        } else {
            found.insert(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    found
}

/// Returns the first names of `a::b, c::{d, e}, f}`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut heads, mut depth, mut head) = (Vec::new(), 0, Some(String::new()));
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.extend(head.replace(String::new()));
            }
            ':' => heads.extend(head.take()),
            c if c.is_alphanumeric() || c == '_' => {
                if let Some(h) = head.as_mut() {
                    h.push(c);
                }
            }
            _ => {}
        }
    }
    heads.extend(head);
    heads.retain(|h| !h.is_empty());
    heads
}

/// Fails with all findings at once.
fn report(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}\n", findings.join("\n  "));
}

#[test]
fn imports_go_down_only() {
    let table: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|f| !["lib", "main"].contains(&f.module())) {
        let Some(allowed) = table.get(file.module()) else {
            wrong.push(format!("src/{}: the module `{}` is not in the table", file.name, file.module()));
            continue;
        };
        for import in imports(&file.code) {
            // Macros and items at the crate's root have no place in the table, and so no right to be.
            if import != file.module() && !allowed.contains(&import.as_str()) {
                wrong.push(format!("src/{} names crate::{import}", file.name));
            }
        }
    }
    report("a module names another that the table in src/tests/architecture.rs does not allow", &wrong);
}

#[test]
fn the_table_has_no_cycles() {
    let mut left: BTreeMap<&str, &[&str]> = IMPORTS.iter().copied().collect();
    // A module whose imports are all gone goes too; what remains is a cycle.
    while let Some(done) = left.iter().find(|(_, i)| i.iter().all(|m| !left.contains_key(m))).map(|(m, _)| *m) {
        left.remove(done);
    }
    assert!(left.is_empty(), "cycle among {:?}", left.keys());
}

#[test]
fn pure_modules_know_nothing_of_the_world() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|f| f.is_in(PURE)) {
        wrong.extend(IMPURE.iter().filter(|w| begins_word(&file.code, w)).map(|w| format!("src/{}: `{w}`", file.name)));
        // libc's constants are numbers; its functions, in lower case, are the world.
        let calls = file.code.match_indices("libc::").any(|(at, w)| file.code[at + w.len()..].starts_with(|c: char| c.is_lowercase()));
        wrong.extend(calls.then(|| format!("src/{}: a function of libc", file.name)));
    }
    report("a pure module mentions the outside world", &wrong);
}

#[test]
fn only_cli_reads_the_environment_and_the_clock() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|f| !["cli", "main"].contains(&f.module())) {
        let clock: &[&str] = if file.module() == "ui" { &[] } else { &["SystemTime::now", "Timestamp::now"] };
        let found = ["env::var", "env::args", "env::current_dir", "env::home_dir"].iter().chain(clock).filter(|w| file.code.contains(**w));
        wrong.extend(found.map(|w| format!("src/{} mentions {w}", file.name)));
    }
    report("the environment is read outside of cli", &wrong);
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|f| f.text.strip_prefix("//! ").is_none_or(|t| t.lines().next().is_none_or(|l| l.trim().len() < 10)))
        .map(|f| format!("src/{}", f.name))
        .collect();
    report("a file has no //! header", &wrong);
}

#[test]
fn no_file_is_too_long_to_read() {
    let wrong: Vec<String> = sources()
        .iter()
        .map(|f| (f.text.lines().count(), &f.name))
        .filter(|(n, _)| *n > MAX_LINES)
        .map(|(n, f)| format!("src/{f}: {n} lines"))
        .collect();
    report(&format!("a file has more than {MAX_LINES} lines"), &wrong);
}

#[test]
fn only_ui_prints() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|f| f.module() != "ui") {
        let found = ["println!", "print!", "eprintln!", "eprint!", "dbg!"].iter().filter(|w| has_word(&file.code, w));
        wrong.extend(found.map(|w| format!("src/{}: {w}", file.name)));
    }
    report("something outside of ui prints", &wrong);
}

#[test]
fn unsafe_stays_where_it_is_watched() {
    let wrong: Vec<String> =
        sources().iter().filter(|f| !f.is_in(UNSAFE) && has_word(&f.code, "unsafe")).map(|f| format!("src/{}", f.name)).collect();
    report("`unsafe` outside of sys and the sandbox's child", &wrong);
}

#[test]
fn every_unsafe_block_says_why_it_holds() {
    let mut wrong = Vec::new();
    for file in sources().iter().filter(|f| f.is_in(UNSAFE)) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (n, code) in blank(&file.text).lines().enumerate() {
            let block = code.trim_start().starts_with("unsafe {") || code.contains(" unsafe {") || code.contains("(unsafe {");
            if block && !lines[n.saturating_sub(6)..=n].iter().any(|l| l.contains("SAFETY:")) {
                wrong.push(format!("src/{}:{}", file.name, n + 1));
            }
        }
    }
    report("an unsafe block has no SAFETY comment within the six lines above it", &wrong);
}

/// Returns whether `path` stands in the code, not as the end of a longer name (`nix::` in `unix::`).
fn begins_word(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_'))
}

/// Returns whether `word` stands in the code, not as the end of a longer word.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let alone = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        alone(code[..at].chars().next_back()) && alone(code[at + word.len()..].chars().next())
    })
}

/// The reader of sources itself is held by cases: a blind test would pass anything.
mod reader {
    use super::*;

    #[test]
    fn comments_and_strings_are_blanked() {
        let cases = [
            ("a // crate::x\nb", "a            \nb"),
            ("a /* b\nc */ d", "a     \n     d"),
            (r#"f("crate::x \" y") g"#, "f(               ) g"),
            (r##"r#"a "b" c"# d"##, "             d"),
            ("'\"' x '\\'' y 'a", "    x      y 'a"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
        ];
        for (text, want) in cases {
            assert_eq!(blank(text), want, "{text}");
        }
    }

    #[test]
    fn imports_are_found_in_every_form() {
        let code = "use crate::a::B;\nuse crate::{c::D, e, f::{g, h}, self_::i};\nfn x() { crate::j::k() }\npub(in crate::l) fn y() {}";
        assert_eq!(imports(code).into_iter().collect::<Vec<_>>(), ["a", "c", "e", "f", "j", "l", "self_"]);
    }

    #[test]
    fn unit_tests_are_left_out() {
        let code = "a\n#[cfg(test)]\nmod tests {\n    b {\n    }\n}\nc\n#[cfg(test)]\nmod other;\nd\n";
        assert_eq!(production(code), "a\nc\nd\n");
    }

    #[test]
    fn words_are_whole() {
        assert!(begins_word("use nix::a", "nix::") && !begins_word("use std::os::unix::ffi", "nix::"));
        assert!(has_word("x; print!(", "print!") && !has_word("eprint!(", "print!") && !has_word("unsafe_op", "unsafe"));
    }
}
