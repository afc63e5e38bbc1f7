//! HEALTHCHECK.

use super::Reader;
use super::flags::{self, Flags, Takes};
use crate::dockerfile::duration;
use crate::dockerfile::instruction::Healthcheck;
use crate::dockerfile::shape::Args;
use crate::dockerfile::source::Diagnostic;

const CHECK: [(&str, Takes); 5] = [
    ("interval", Takes::Text),
    ("timeout", Takes::Text),
    ("start-period", Takes::Text),
    ("start-interval", Takes::Text),
    ("retries", Takes::Text),
];

/// The runtime refuses less; 0 is allowed and means "inherit".
const LEAST_NS: i64 = 1_000_000;

impl Reader<'_, '_> {
    pub(super) fn healthcheck(&self) -> Result<Healthcheck, Diagnostic> {
        let Args::Check(kind, command) = &self.shape.args else {
            return Err(self.wrong("HEALTHCHECK requires at least one argument: NONE or CMD"));
        };
        let command: &Args<'_> = command;
        if kind.text.eq_ignore_ascii_case("NONE") {
            return match command {
                Args::Line(_) => Err(self.no_arguments()),
                Args::Json(words, _) if !words.is_empty() => Err(self.no_arguments()),
                _ => Ok(Healthcheck {
                    test: vec!["NONE".to_owned()],
                    interval_ns: 0,
                    timeout_ns: 0,
                    start_period_ns: 0,
                    start_interval_ns: 0,
                    retries: 0,
                }),
            };
        }
        let flags = flags::read(self.source, &self.shape.flags, &CHECK)?;
        if !kind.text.eq_ignore_ascii_case("CMD") {
            let message = format!("unknown type `{}` in HEALTHCHECK: must be CMD or NONE", kind.text);
            return Err(Diagnostic::error(self.source, kind.span(), message).hint("write `HEALTHCHECK CMD command`, or `HEALTHCHECK NONE`"));
        }
        let test = match command {
            Args::Line(text) => vec!["CMD-SHELL".to_owned(), text.text.to_owned()],
            Args::Json(words, _) if !words.is_empty() => std::iter::once("CMD".to_owned()).chain(super::values(words)).collect(),
            _ => return Err(self.wrong("missing command after HEALTHCHECK CMD")),
        };
        Ok(Healthcheck {
            test,
            interval_ns: self.interval(&flags, "interval")?,
            timeout_ns: self.interval(&flags, "timeout")?,
            start_period_ns: self.interval(&flags, "start-period")?,
            start_interval_ns: self.interval(&flags, "start-interval")?,
            retries: self.retries(&flags)?,
        })
    }

    fn no_arguments(&self) -> Diagnostic {
        self.wrong("HEALTHCHECK NONE takes no arguments").hint("write `HEALTHCHECK NONE`, or `HEALTHCHECK CMD ...`")
    }

    fn interval(&self, flags: &Flags<'_>, name: &str) -> Result<i64, Diagnostic> {
        let Some(word) = flags.text(name) else { return Ok(0) };
        let wrong = |message: String| Err(Diagnostic::error(self.source, word.span, message).hint("write it as 30s, 1m30s or 500ms"));
        match duration::parse_ns(&word.value) {
            None => wrong(format!("invalid duration `{}` for --{name}", word.value)),
            Some(0) => Ok(0),
            Some(short) if short < LEAST_NS => wrong(format!("--{name} cannot be less than 1ms: `{}`", word.value)),
            Some(ns) => Ok(ns),
        }
    }

    fn retries(&self, flags: &Flags<'_>) -> Result<i64, Diagnostic> {
        let Some(word) = flags.text("retries") else { return Ok(0) };
        let wrong = |message: String| Err(Diagnostic::error(self.source, word.span, message).hint("write --retries=3"));
        match word.value.parse::<i32>() {
            Err(_) => wrong(format!("--retries must be a number, not `{}`", word.value)),
            Ok(negative) if negative < 0 => wrong(format!("--retries cannot be negative: {negative}")),
            Ok(retries) => Ok(retries.into()),
        }
    }
}
