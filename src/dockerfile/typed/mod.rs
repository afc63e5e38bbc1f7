//! From a shape to a typed instruction: how many arguments, which flags, what their values mean.
//!
//! Words stay unexpanded: what depends on variables, a base image or other stages is checked when the graph
//! is lowered. Flags of ARG, STOPSIGNAL and HEALTHCHECK NONE are ignored, since BuildKit ignores them.

mod copy;
mod flags;
mod healthcheck;
mod run;

use std::sync::Arc;

use super::directive;
use super::heredoc;
use super::instruction::{ArgDecl, CommandLine, From, Heredoc, Instruction, Kind, Onbuild, Pair, Word};
use super::lines::{Comment, Text};
use super::shape::{Args, COMMANDS, Command, Shape};
use super::source::{Diagnostic, Source, Spanned};
use super::suggest;

/// Makes the instruction. `heredocs` are the bodies that followed its line.
///
/// Errors name what is wrong and stand where it is.
pub(super) fn read(
    source: &Arc<Source>,
    shape: &Shape<'_>,
    heredocs: Vec<Heredoc>,
    comments: &[Comment],
) -> Result<Instruction, Diagnostic> {
    let mut text = shape.line.text.to_owned();
    heredoc::append(&mut text, &heredocs);
    Ok(Instruction {
        kind: Reader { source, shape }.kind(heredocs)?,
        span: shape.line.span(),
        name: shape.name.word(),
        text,
        comments: comments.iter().map(|comment| comment.text.clone()).collect(),
        skip_checks: skipped(comments),
    })
}

/// Returns the rules that a `# check=skip=…` among the comments names.
fn skipped(comments: &[Comment]) -> Vec<String> {
    let check = comments.iter().filter_map(|comment| directive::split(&comment.text)).find(|(name, _)| name == "check");
    let Some((_, value)) = check else { return Vec::new() };
    let Ok(config) = directive::parse_check(value.split(' ').next().unwrap_or_default()) else { return Vec::new() };
    if config.skip_all { vec!["all".to_owned()] } else { config.skip }
}

/// A shape on its way to an instruction.
struct Reader<'r, 'l> {
    source: &'r Arc<Source>,
    shape: &'r Shape<'l>,
}

impl Reader<'_, '_> {
    fn kind(&self, heredocs: Vec<Heredoc>) -> Result<Kind, Diagnostic> {
        let Some(command) = self.shape.command else { return Err(self.unknown()) };
        match command {
            Command::Add => Ok(Kind::Add(self.add(heredocs)?)),
            Command::Arg => Ok(Kind::Arg(self.declarations()?)),
            Command::Cmd => Ok(Kind::Cmd(self.command_line()?)),
            Command::Copy => Ok(Kind::Copy(self.copy(heredocs)?)),
            Command::Entrypoint => Ok(Kind::Entrypoint(self.command_line()?)),
            Command::Env => Ok(Kind::Env(self.pairs("ENV")?)),
            Command::Expose => self.no_flags().and(Ok(Kind::Expose(self.at_least_one("EXPOSE")?))),
            Command::From => Ok(Kind::From(self.from()?)),
            Command::Healthcheck => Ok(Kind::Healthcheck(self.healthcheck()?)),
            Command::Label => Ok(Kind::Label(self.pairs("LABEL")?)),
            Command::Maintainer => self.no_flags().and(Ok(Kind::Maintainer(self.exactly_one("MAINTAINER")?))),
            Command::Onbuild => Ok(Kind::Onbuild(self.onbuild(heredocs)?)),
            Command::Run => Ok(Kind::Run(self.run(heredocs)?)),
            Command::Shell => Ok(Kind::Shell(self.shell()?)),
            Command::StopSignal => Ok(Kind::StopSignal(self.exactly_one("STOPSIGNAL")?)),
            Command::User => self.no_flags().and(Ok(Kind::User(self.exactly_one("USER")?))),
            Command::Volume => Ok(Kind::Volume(self.volumes()?)),
            Command::Workdir => self.no_flags().and(Ok(Kind::Workdir(self.exactly_one("WORKDIR")?))),
        }
    }

    /// An error about the whole instruction; the hint shows a right one.
    fn wrong(&self, message: impl Into<String>) -> Diagnostic {
        let error = Diagnostic::error(self.source, self.shape.line.span(), message);
        match self.shape.command {
            Some(command) => error.hint(format!("for example: {}", example(command))),
            None => error,
        }
    }

    fn unknown(&self) -> Diagnostic {
        let name = self.shape.name.text;
        let error = Diagnostic::error(self.source, self.shape.name.span(), format!("unknown instruction `{}`", self.shape.name.brief()));
        let names = COMMANDS.map(|(known, _)| known);
        match suggest::nearest_ignoring_case(name, &names) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None if name.starts_with(|c: char| c.is_ascii_lowercase()) || name.starts_with("&&") => {
                error.hint("does the line before lack a continuation mark at its end?")
            }
            None => error.hint(format!("the instructions are {}", names.join(", "))),
        }
    }

    fn no_flags(&self) -> Result<(), Diagnostic> {
        flags::read(self.source, &self.shape.flags, &[]).map(|_| ())
    }

    fn exactly_one(&self, name: &str) -> Result<Word, Diagnostic> {
        match &self.shape.args {
            Args::Line(text) => Ok(text.word()),
            _ => Err(self.wrong(format!("{name} requires exactly one argument"))),
        }
    }

    fn at_least_one(&self, name: &str) -> Result<Vec<Word>, Diagnostic> {
        match self.words() {
            words if words.is_empty() => Err(self.wrong(format!("{name} requires at least one argument"))),
            words => Ok(words),
        }
    }

    /// The arguments as words, whether they were JSON or not.
    fn words(&self) -> Vec<Word> {
        match &self.shape.args {
            Args::Words(words) => words.iter().map(|word| word.word()).collect(),
            Args::Json(words, _) => words.clone(),
            _ => Vec::new(),
        }
    }

    fn command_line(&self) -> Result<CommandLine, Diagnostic> {
        self.no_flags()?;
        Ok(self.command())
    }

    /// The arguments as a command; nothing at all is an empty shell command.
    fn command(&self) -> CommandLine {
        match &self.shape.args {
            Args::Json(words, span) => CommandLine::Exec(Spanned::new(values(words), *span)),
            Args::Line(text) => CommandLine::Shell(text.word()),
            _ => CommandLine::Shell(self.shape.line.from(self.shape.line.text.len()).word()),
        }
    }

    fn pairs(&self, name: &str) -> Result<Vec<Pair>, Diagnostic> {
        self.no_flags()?;
        let pair = |(key, value): (Text<'_>, Text<'_>), legacy| Pair { key: key.word(), value: value.word(), legacy };
        let pairs: Vec<Pair> = match &self.shape.args {
            Args::Legacy(key, value) => vec![pair((*key, *value), true)],
            Args::Pairs(words) => words.iter().filter_map(|word| split(*word)).map(|parts| pair(parts, false)).collect(),
            _ => return Err(self.wrong(format!("{name} requires at least one argument"))),
        };
        match pairs.iter().find(|pair| pair.key.value.is_empty()) {
            Some(blank) => {
                let error = Diagnostic::error(self.source, blank.key.span.to(blank.value.span), format!("{name} names can not be blank"));
                Err(error.hint(format!("write `{name} NAME=value`, no space before `=`")))
            }
            None => Ok(pairs),
        }
    }

    fn declarations(&self) -> Result<Vec<ArgDecl>, Diagnostic> {
        let words = match &self.shape.args {
            Args::Words(words) if !words.is_empty() => words,
            _ => return Err(self.wrong("ARG requires at least one argument")),
        };
        let declared = words.iter().map(|word| match split(*word) {
            Some((name, _)) if name.text.is_empty() => {
                let error = Diagnostic::error(self.source, word.span(), "ARG names can not be blank");
                Err(error.hint("write `ARG NAME=default`, no space before `=`"))
            }
            Some((name, default)) => Ok(ArgDecl { name: name.word(), default: Some(default.word()) }),
            None => Ok(ArgDecl { name: word.word(), default: None }),
        });
        declared.collect()
    }

    fn from(&self) -> Result<From, Diagnostic> {
        let words = self.words();
        let (image, alias) = match words.as_slice() {
            [image] => (image.clone(), None),
            [image, keyword, name] if keyword.value.eq_ignore_ascii_case("as") => (image.clone(), Some((keyword.clone(), name.clone()))),
            _ => return Err(self.wrong_from(&words)),
        };
        if let Some((_, name)) = &alias
            && !is_stage_name(&name.value.to_lowercase())
        {
            let message = format!("invalid stage name `{}`", name.value);
            let hint = "a stage name starts with a letter and holds letters, digits, `-`, `_` and `.` only";
            return Err(Diagnostic::error(self.source, name.span, message).hint(hint));
        }
        let flags = flags::read(self.source, &self.shape.flags, &[("platform", flags::Takes::Text)])?;
        let (as_keyword, alias) = alias.unzip();
        Ok(From { image, platform: flags.text("platform"), alias, as_keyword })
    }

    fn wrong_from(&self, words: &[Word]) -> Diagnostic {
        let error = self.wrong("FROM requires either one or three arguments: FROM image [AS name]");
        match words {
            [_, second, ..] if second.value.starts_with('#') => error.hint("a comment must stand on a line of its own"),
            [_, second] if second.value.eq_ignore_ascii_case("as") => error.hint("give the stage a name after AS"),
            [_, name] => error.hint(format!("did you mean `AS {}`?", name.value)),
            _ => error,
        }
    }

    fn volumes(&self) -> Result<Vec<Word>, Diagnostic> {
        let words = self.at_least_one("VOLUME")?;
        self.no_flags()?;
        if let Some(blank) = words.iter().find(|word| word.value.trim().is_empty()) {
            let error = Diagnostic::error(self.source, blank.span, "VOLUME can not be an empty string");
            return Err(error.hint("name a directory, such as /data, or remove the instruction"));
        }
        Ok(words.into_iter().map(|word| Word::new(word.value.trim().to_owned(), word.span)).collect())
    }

    fn shell(&self) -> Result<Vec<String>, Diagnostic> {
        self.no_flags()?;
        match &self.shape.args {
            Args::Json(words, _) if !words.is_empty() => Ok(values(words)),
            Args::Line(text) => {
                let error = Diagnostic::error(self.source, text.span(), "SHELL requires its arguments in JSON form");
                Err(error.hint("for example: SHELL [\"/bin/sh\", \"-c\"]"))
            }
            _ => Err(self.wrong("SHELL requires at least one argument")),
        }
    }

    fn onbuild(&self, heredocs: Vec<Heredoc>) -> Result<Onbuild, Diagnostic> {
        let Args::Trigger(trigger) = &self.shape.args else {
            return Err(self.wrong("ONBUILD requires at least one argument, the instruction to run"));
        };
        self.no_flags()?;
        let forbidden = |message: &str| {
            let hint = "a trigger is any instruction but ONBUILD, FROM and MAINTAINER (ONBUILD LABEL says who maintains)";
            Err(Diagnostic::error(self.source, trigger.name.span(), message).hint(hint))
        };
        match trigger.command {
            Some(Command::Onbuild) => return forbidden("ONBUILD ONBUILD isn't allowed"),
            Some(Command::From) => return forbidden("FROM isn't allowed as an ONBUILD trigger"),
            Some(Command::Maintainer) => return forbidden("MAINTAINER isn't allowed as an ONBUILD trigger"),
            _ => {}
        }
        let stored = self.trigger_text();
        let mut text = stored.to_owned();
        heredoc::append(&mut text, &heredocs);
        // After `ONBUILD --` BuildKit stores the `--` too, which is no instruction when it fires.
        let trigger = if stored.trim() == trigger.line.text { read(self.source, trigger, heredocs, &[]).ok().map(Box::new) } else { None };
        Ok(Onbuild { text, trigger })
    }
}

impl Reader<'_, '_> {
    /// What follows ONBUILD, to the end of the line: the image stores trailing blanks too.
    fn trigger_text(&self) -> &str {
        let written = self.shape.written.text.trim_start();
        written[self.shape.name.text.len().min(written.len())..].trim_start_matches([' ', '\t', '\n', '\u{C}', '\r'])
    }
}

/// Returns a right use of an instruction.
fn example(command: Command) -> &'static str {
    match command {
        Command::Add => "ADD archive.tar.gz /srv/",
        Command::Arg => "ARG VERSION=1.0",
        Command::Cmd => "CMD [\"serve\", \"--port=80\"]",
        Command::Copy => "COPY src/ /srv/app/",
        Command::Entrypoint => "ENTRYPOINT [\"serve\"]",
        Command::Env => "ENV LANG=C.UTF-8",
        Command::Expose => "EXPOSE 8080/tcp",
        Command::From => "FROM debian:stable AS build",
        Command::Healthcheck => "HEALTHCHECK --interval=30s CMD check-it, or HEALTHCHECK NONE",
        Command::Label => "LABEL version=\"1.0\"",
        Command::Maintainer => "LABEL org.opencontainers.image.authors=\"name@example.org\"",
        Command::Onbuild => "ONBUILD RUN make",
        Command::Run => "RUN make",
        Command::Shell => "SHELL [\"/bin/sh\", \"-c\"]",
        Command::StopSignal => "STOPSIGNAL SIGTERM",
        Command::User => "USER 1000",
        Command::Volume => "VOLUME /data",
        Command::Workdir => "WORKDIR /srv/app",
    }
}

fn values(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.value.clone()).collect()
}

/// Splits a word at its first `=`.
fn split(word: Text<'_>) -> Option<(Text<'_>, Text<'_>)> {
    let at = word.text.find('=')?;
    Some((word.slice(0..at), word.from(at + 1)))
}

/// Tells whether a lower-cased name can be a stage's.
fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
}
