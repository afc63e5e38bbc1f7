//! From a logical line to its shape: name, flags, and the arguments in the form that the instruction takes.
//!
//! This is what BuildKit calls syntax. The number of arguments, which flags exist and what values mean is
//! `typed`'s question. An unknown instruction has a shape too: an ONBUILD trigger that is one is an error
//! only when it fires.

use std::sync::Arc;

use pest::iterators::Pair;

use super::grammar::{Rule, matching};
use super::instruction::Word;
use super::lines::Text;
use super::plain;
use super::source::{Diagnostic, Source, Span};

/// A line taken apart.
#[derive(Debug)]
pub(super) struct Shape<'l> {
    /// The line with the white space that stands around it.
    pub written: Text<'l>,
    /// From the name to the end.
    pub line: Text<'l>,
    pub name: Text<'l>,
    pub command: Option<Command>,
    pub flags: Vec<Flag>,
    pub args: Args<'l>,
}

/// `--name=value`, without quotes and escapes.
#[derive(Debug)]
pub(super) struct Flag {
    pub name: String,
    pub value: Option<Word>,
    pub span: Span,
}

/// Arguments in their form.
#[derive(Debug)]
pub(super) enum Args<'l> {
    Nothing,
    Line(Text<'l>),
    Words(Vec<Text<'l>>),
    Json(Vec<Word>, Span),
    /// ENV and LABEL: each word holds a `=`.
    Pairs(Vec<Text<'l>>),
    /// ENV and LABEL in the old form.
    Legacy(Text<'l>, Text<'l>),
    /// HEALTHCHECK's type, and what follows.
    Check(Text<'l>, Box<Args<'l>>),
    /// ONBUILD's instruction.
    Trigger(Box<Shape<'l>>),
}

/// The instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
}

/// All instructions by name.
pub(super) const COMMANDS: [(&str, Command); 18] = [
    ("ADD", Command::Add),
    ("ARG", Command::Arg),
    ("CMD", Command::Cmd),
    ("COPY", Command::Copy),
    ("ENTRYPOINT", Command::Entrypoint),
    ("ENV", Command::Env),
    ("EXPOSE", Command::Expose),
    ("FROM", Command::From),
    ("HEALTHCHECK", Command::Healthcheck),
    ("LABEL", Command::Label),
    ("MAINTAINER", Command::Maintainer),
    ("ONBUILD", Command::Onbuild),
    ("RUN", Command::Run),
    ("SHELL", Command::Shell),
    ("STOPSIGNAL", Command::StopSignal),
    ("USER", Command::User),
    ("VOLUME", Command::Volume),
    ("WORKDIR", Command::Workdir),
];

/// ONBUILD may not be nested, but a hostile line may try, thousands of times.
const MAX_NESTING: usize = 8;

/// What a whole file has in common.
#[derive(Clone, Copy)]
pub(super) struct Context<'s> {
    pub source: &'s Arc<Source>,
    pub escape: char,
}

impl Shape<'_> {
    /// Tells whether `<<NAME` words of this line are followed by bodies.
    pub fn takes_heredocs(&self) -> bool {
        match &self.args {
            Args::Trigger(trigger) => trigger.takes_heredocs(),
            Args::Json(..) => false,
            _ => matches!(self.command, Some(Command::Add | Command::Copy | Command::Run)),
        }
    }
}

/// Takes a line apart.
pub(super) fn read<'l>(context: Context<'_>, line: Text<'l>) -> Result<Shape<'l>, Diagnostic> {
    nested(context, line, 0)
}

fn nested<'l>(context: Context<'_>, line: Text<'l>, depth: usize) -> Result<Shape<'l>, Diagnostic> {
    let written = line;
    let line = line.trim();
    let Head { name, flags, rest } = head(context, line);
    let command = COMMANDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.text)).map(|(_, command)| *command);
    let args = arguments(context, command, rest.trim(), depth)?;
    Ok(Shape { written, line, name, command, flags, args })
}

/// What a line begins with, and what follows.
struct Head<'l> {
    name: Text<'l>,
    flags: Vec<Flag>,
    rest: Text<'l>,
}

fn head<'l>(context: Context<'_>, line: Text<'l>) -> Head<'l> {
    if let Some(plain::Head { name, flags, rest }) = plain::head(line.text, context.escape) {
        let flags = flags.into_iter().map(|(start, end)| plain_flag(line, start, end)).collect();
        return Head { name: line.slice(0..name.len()), flags, rest: line.from(rest) };
    }
    let rule = if context.escape == '`' { Rule::head_bt } else { Rule::head_bs };
    let (mut name, mut flags, mut rest) = (line.slice(0..0), Vec::new(), line.text.len());
    if let Some(head) = matching(rule, line.text) {
        rest = head.as_span().end();
        for part in head.into_inner() {
            match part.as_rule() {
                Rule::name => name = line.slice(part.as_span().start()..part.as_span().end()),
                Rule::flag_bs | Rule::flag_bt => flags.push(flag(line, part)),
                _ => {}
            }
        }
    }
    Head { name, flags, rest: line.from(rest) }
}

/// Splits a flag without quotes and escapes at its first `=`.
fn plain_flag(line: Text<'_>, start: usize, end: usize) -> Flag {
    let flag = line.slice(start..end);
    let name_at = "--".len();
    match flag.text.find('=') {
        Some(at) => Flag { name: flag.text[name_at..at].to_owned(), value: Some(flag.from(at + 1).word()), span: flag.span() },
        None => Flag { name: flag.text[name_at..].to_owned(), value: None, span: flag.span() },
    }
}

/// Takes quotes and escapes away from a flag and splits it at its first `=`.
fn flag(line: Text<'_>, pair: Pair<'_, Rule>) -> Flag {
    let (start, end) = (pair.as_span().start(), pair.as_span().end());
    let mut text = String::from("--");
    let mut value_at = None;
    let mut add = |piece: &str, at: usize| {
        if let (None, Some(equals)) = (value_at, piece.find('=')) {
            value_at = Some((text.len() + equals + 1, at + equals + 1));
        }
        text.push_str(piece);
    };
    for piece in pair.into_inner().flat_map(|piece| match piece.as_rule() {
        Rule::flag_single_bs | Rule::flag_single_bt | Rule::flag_double_bs | Rule::flag_double_bt => piece.into_inner().collect::<Vec<_>>(),
        _ => vec![piece],
    }) {
        let at = piece.as_span().start();
        match piece.as_rule() {
            Rule::EOI => {}
            Rule::flag_escaped_bs | Rule::flag_escaped_bt => add(&piece.as_str()[1..], at + 1),
            _ => add(piece.as_str(), at),
        }
    }
    let span = line.slice(start..end).span();
    let value = value_at.map(|(cut, at)| Word::new(text[cut..].to_owned(), line.slice(at..end).span()));
    let name = text["--".len()..value_at.map_or(text.len(), |(cut, _)| cut - 1)].to_owned();
    Flag { name, value, span }
}

fn arguments<'l>(context: Context<'_>, command: Option<Command>, rest: Text<'l>, depth: usize) -> Result<Args<'l>, Diagnostic> {
    let Some(command) = command.filter(|_| !rest.text.is_empty()) else { return Ok(Args::Nothing) };
    match command {
        Command::Add | Command::Copy | Command::Volume => Ok(json(context, rest)?.unwrap_or_else(|| Args::Words(words(rest)))),
        Command::Cmd | Command::Entrypoint | Command::Run | Command::Shell => Ok(json(context, rest)?.unwrap_or(Args::Line(rest))),
        Command::Expose | Command::From => Ok(Args::Words(words(rest))),
        Command::Maintainer | Command::StopSignal | Command::User | Command::Workdir => Ok(Args::Line(rest)),
        Command::Arg => Ok(Args::Words(quoted_words(context, rest))),
        Command::Env => pairs(context, rest, "ENV"),
        Command::Label => pairs(context, rest, "LABEL"),
        Command::Healthcheck => healthcheck(context, rest),
        Command::Onbuild if depth >= MAX_NESTING => Ok(Args::Line(rest)),
        Command::Onbuild => Ok(Args::Trigger(Box::new(nested(context, rest, depth + 1)?))),
    }
}

/// Returns a JSON array of strings; none when the text is not JSON, which makes it the shell form.
///
/// Errors: JSON, but not of strings only.
fn json<'l>(context: Context<'_>, rest: Text<'l>) -> Result<Option<Args<'l>>, Diagnostic> {
    if !rest.text.starts_with('[') {
        return Ok(None);
    }
    if let Some(array) = matching(Rule::json_array, rest.text) {
        let strings = array.into_inner().filter(|pair| pair.as_rule() == Rule::json_string).map(|pair| {
            let span = rest.slice(pair.as_span().start()..pair.as_span().end()).span();
            Word::new(unescape(pair), span)
        });
        return Ok(Some(Args::Json(strings.collect(), rest.span())));
    }
    match serde_json::from_str::<Vec<serde::de::IgnoredAny>>(rest.text) {
        Ok(_) => {
            let message = "a JSON array of arguments must hold strings only";
            Err(Diagnostic::error(context.source, rest.span(), message).hint("write numbers and other values in double quotes"))
        }
        Err(_) => Ok(None),
    }
}

fn unescape(string: Pair<'_, Rule>) -> String {
    let mut text = String::new();
    let mut units: Vec<u16> = Vec::new();
    for part in string.into_inner() {
        let piece = part.as_str();
        if part.as_rule() == Rule::json_unicode {
            units.push(u16::from_str_radix(&piece[2..], 16).unwrap_or(0xFFFD));
            continue;
        }
        text.push_str(&String::from_utf16_lossy(&std::mem::take(&mut units)));
        match (part.as_rule(), piece.get(1..).unwrap_or_default()) {
            (Rule::json_escape, "b") => text.push('\u{8}'),
            (Rule::json_escape, "f") => text.push('\u{C}'),
            (Rule::json_escape, "n") => text.push('\n'),
            (Rule::json_escape, "r") => text.push('\r'),
            (Rule::json_escape, "t") => text.push('\t'),
            (Rule::json_escape, other) => text.push_str(other),
            _ => text.push_str(piece),
        }
    }
    text.push_str(&String::from_utf16_lossy(&units));
    text
}

/// Splits at blanks; quotes mean nothing.
fn words(rest: Text<'_>) -> Vec<Text<'_>> {
    if let Some(words) = plain::words(rest) {
        return words;
    }
    let pairs = matching(Rule::words, rest.text).into_iter().flat_map(Pair::into_inner).filter(|pair| pair.as_rule() == Rule::word);
    pairs.map(|pair| rest.slice(pair.as_span().start()..pair.as_span().end())).collect()
}

/// Splits at white space that is neither quoted nor escaped; quotes and escapes stay.
fn quoted_words<'l>(context: Context<'_>, rest: Text<'l>) -> Vec<Text<'l>> {
    if let Some(words) = plain::words(rest) {
        return words;
    }
    let rule = if context.escape == '`' { Rule::quoted_words_bt } else { Rule::quoted_words_bs };
    let pairs = matching(rule, rest.text).into_iter().flat_map(Pair::into_inner).filter(|pair| pair.as_rule() != Rule::EOI);
    let words = pairs.map(|pair| {
        let (start, end) = (pair.as_span().start(), pair.as_span().end());
        let dangling = pair.into_inner().any(|part| matches!(part.as_rule(), Rule::dangling_bs | Rule::dangling_bt));
        rest.slice(start..end - usize::from(dangling))
    });
    words.filter(|word| !word.text.is_empty()).collect()
}

/// Reads `K=V K=V` or, where the first word has no `=`, `K rest of the line`.
fn pairs<'l>(context: Context<'_>, rest: Text<'l>, name: &str) -> Result<Args<'l>, Diagnostic> {
    let words = quoted_words(context, rest);
    let Some(first) = words.first() else { return Ok(Args::Nothing) };
    if !first.text.contains('=') {
        let Some(head) = matching(Rule::legacy_key, rest.text) else {
            let message = format!("{name} must have two arguments, a name and a value: `{}` has no value", first.brief());
            return Err(Diagnostic::error(context.source, first.span(), message).hint(format!("write `{name} {}=value`", first.brief())));
        };
        let end = head.as_span().end();
        let key = head.into_inner().next().map_or(0, |word| word.as_span().end());
        return Ok(Args::Legacy(rest.slice(0..key), rest.from(end)));
    }
    match words.iter().find(|word| !word.text.contains('=')) {
        None => Ok(Args::Pairs(words)),
        Some(word) => {
            let message = format!("no `=` in `{}`: {name} takes name=value", word.brief());
            Err(Diagnostic::error(context.source, word.span(), message).hint("put quotes around a value that holds white space"))
        }
    }
}

fn healthcheck<'l>(context: Context<'_>, rest: Text<'l>) -> Result<Args<'l>, Diagnostic> {
    let Some(head) = matching(Rule::healthcheck_type, rest.text) else { return Ok(Args::Nothing) };
    let end = head.as_span().end();
    let kind = head.into_inner().next().map_or(0, |word| word.as_span().end());
    let command = rest.from(end);
    let command = match json(context, command)? {
        Some(args) => args,
        None if command.text.is_empty() => Args::Nothing,
        None => Args::Line(command),
    };
    Ok(Args::Check(rest.slice(0..kind), Box::new(command)))
}
