//! Golden Dockerfiles: each folder of `testdata/dockerfile` holds a `Dockerfile` and, in `expect.txt`, what it
//! parses to: its instructions and warnings, or its error with the place.
//!
//! A word is printed with its value; where the source at its place reads otherwise (joined lines, quotes taken
//! away) that text follows after `@`, so that spans are tested by every word. A new case is a new folder;
//! `PLY_BLESS=1 cargo test --test dockerfile_golden` writes `expect.txt` anew, to be read before it is committed.

#![allow(clippy::unwrap_used)] // A test may panic: that is how it fails.

mod golden;

use std::fmt::Write as _;
use std::sync::Arc;

use golden::diagnostic;
use plywood::dockerfile;
use plywood::dockerfile::instruction::{CommandLine, CopyArg, CopyArgs, File, Heredoc, Instruction, Kind, Pair, Word};
use plywood::dockerfile::source::{Source, Span};

fn main() {
    golden::run("dockerfile", |case| {
        let bytes = std::fs::read(case.join("Dockerfile"))?;
        let source = Source::new("Dockerfile", String::from_utf8_lossy(&bytes));
        Ok(match dockerfile::parse(&source) {
            Ok(file) => Printer { source: source.clone() }.file(&file),
            Err(error) if error.hint.is_none() => return Err(format!("the error has no hint: {error}").into()),
            Err(error) => diagnostic(&error),
        })
    });
}

struct Printer {
    source: Arc<Source>,
}

impl Printer {
    fn file(&self, file: &File) -> String {
        let mut text = String::new();
        let directives = &file.directives;
        if directives.escape != '\\' {
            let _ = writeln!(text, "escape {}", directives.escape);
        }
        if let Some(syntax) = &directives.syntax {
            let _ = writeln!(text, "syntax {}", self.word(syntax));
        }
        if directives.check != Default::default() {
            let _ = writeln!(text, "{:?}", directives.check);
        }
        for instruction in &file.global_args {
            self.instruction(&mut text, instruction);
        }
        for (index, stage) in file.stages.iter().enumerate() {
            let _ = writeln!(text, "stage {index} {:?}", stage.name.as_deref().unwrap_or_default());
            self.instruction(&mut text, &stage.instruction);
            for instruction in &stage.instructions {
                self.instruction(&mut text, instruction);
            }
        }
        for warning in &file.warnings {
            text += &diagnostic(warning);
        }
        text
    }

    fn at(&self, span: Span) -> &str {
        &self.source.text()[span.start as usize..span.end as usize]
    }

    fn spanned(&self, value: &str, span: Span) -> String {
        let written = self.at(span);
        if written == value { format!("{value:?}") } else { format!("{value:?}@{written:?}") }
    }

    fn word(&self, word: &Word) -> String {
        self.spanned(&word.value, word.span)
    }

    fn words<'w>(&self, words: impl IntoIterator<Item = &'w Word>) -> String {
        words.into_iter().map(|word| self.word(word)).collect::<Vec<_>>().join(" ")
    }

    fn instruction(&self, text: &mut String, instruction: &Instruction) {
        for comment in &instruction.comments {
            let _ = writeln!(text, "  # {comment}");
        }
        let (line, column) = self.source.line_column(instruction.span.start);
        let _ = writeln!(text, "{line}:{column} {} {}", self.word(&instruction.name), self.kind(&instruction.kind));
        if !instruction.skip_checks.is_empty() {
            let _ = writeln!(text, "  skip {:?}", instruction.skip_checks);
        }
        let heredocs: Vec<&Heredoc> = match &instruction.kind {
            Kind::Run(run) => run.heredocs.iter().collect(),
            Kind::Copy(copy) | Kind::Add(copy) => copy
                .sources
                .iter()
                .filter_map(|source| match source {
                    CopyArg::Heredoc(heredoc) => Some(heredoc),
                    CopyArg::Path(_) => None,
                })
                .collect(),
            _ => Vec::new(),
        };
        for heredoc in heredocs {
            let Heredoc { name, expand, chomp, fd, body, span, body_span } = heredoc;
            let _ = writeln!(
                text,
                "  heredoc {} expand={expand} chomp={chomp} fd={fd} {}",
                self.spanned(name, *span),
                self.spanned(body, *body_span)
            );
        }
    }

    fn kind(&self, kind: &Kind) -> String {
        match kind {
            Kind::From(from) => {
                let alias = from.as_keyword.iter().chain(&from.alias);
                self.options(&[("platform", &from.platform)]) + &self.words(std::iter::once(&from.image).chain(alias))
            }
            Kind::Run(run) => {
                let mut text = self.options(&[("network", &run.network), ("security", &run.security)]);
                for mount in &run.mounts {
                    let _ = write!(text, "mount={:?} ", mount.fields);
                }
                for device in &run.devices {
                    let _ = write!(text, "device={} ", self.word(device));
                }
                text + &self.command(&run.command)
            }
            Kind::Cmd(command) | Kind::Entrypoint(command) => self.command(command),
            Kind::Shell(words) => format!("{words:?}"),
            Kind::Env(pairs) | Kind::Label(pairs) => self.pairs(pairs),
            Kind::Arg(list) => {
                let one = |name: &Word, default: &Option<Word>| match default {
                    Some(default) => format!("{}={}", self.word(name), self.word(default)),
                    None => self.word(name),
                };
                list.iter().map(|argument| one(&argument.name, &argument.default)).collect::<Vec<_>>().join(" ")
            }
            Kind::Copy(copy) | Kind::Add(copy) => self.copy(copy),
            Kind::Workdir(word) | Kind::User(word) | Kind::StopSignal(word) | Kind::Maintainer(word) => self.word(word),
            Kind::Volume(words) | Kind::Expose(words) => self.words(words),
            Kind::Healthcheck(check) => format!("{check:?}"),
            Kind::Onbuild(onbuild) => {
                let trigger = onbuild
                    .trigger
                    .as_ref()
                    .map_or("invalid".to_owned(), |trigger| format!("{} {}", self.word(&trigger.name), self.kind(&trigger.kind)));
                format!("{:?}: {trigger}", onbuild.text)
            }
        }
    }

    fn options(&self, options: &[(&str, &Option<Word>)]) -> String {
        options.iter().filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={} ", self.word(value)))).collect()
    }

    fn command(&self, command: &CommandLine) -> String {
        match command {
            CommandLine::Shell(text) => format!("shell {}", self.word(text)),
            CommandLine::Exec(words) => format!("exec {:?}@{:?}", words.value, self.at(words.span)),
        }
    }

    fn pairs(&self, pairs: &[Pair]) -> String {
        let one = |pair: &Pair| format!("{}{}{}", self.word(&pair.key), if pair.legacy { " " } else { "=" }, self.word(&pair.value));
        pairs.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    fn copy(&self, copy: &CopyArgs) -> String {
        let mut text = self.options(&[("from", &copy.from), ("chown", &copy.chown), ("chmod", &copy.chmod), ("checksum", &copy.checksum)]);
        for (name, set) in [("link", copy.link), ("parents", copy.parents), ("json", copy.json)] {
            if set {
                let _ = write!(text, "{name} ");
            }
        }
        for (name, set) in [("keep-git-dir", copy.keep_git_dir), ("unpack", copy.unpack)] {
            if let Some(set) = set {
                let _ = write!(text, "{name}={set} ");
            }
        }
        for pattern in &copy.exclude {
            let _ = write!(text, "exclude={} ", self.word(pattern));
        }
        for source in &copy.sources {
            match source {
                CopyArg::Path(word) => text += &self.word(word),
                CopyArg::Heredoc(heredoc) => text += &format!("<<{}", heredoc.name),
            }
            text.push(' ');
        }
        text + "-> " + &copy.dest.as_ref().map_or("nothing".to_owned(), |dest| self.word(dest))
    }
}
