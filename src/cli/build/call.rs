//! `--call` and `--check`: what to do with the Dockerfile, and the build checks' report.
//!
//! The report is a result, so it goes to standard output; in a build the same findings are warnings on standard error.

use clap::ValueEnum as _;

use crate::cli::failure::{FAILED, Failure};
use crate::cli::session::Session;
use crate::cli::values::{ValueError, boolean, fields, nearest};
use crate::dockerfile::source::Diagnostic;
use crate::ui::{checks, out};

/// `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    Build,
    Check(CheckCall),
}

/// `--call=check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckCall {
    /// `format=`.
    pub format: ReportFormat,
    /// `ignorestatus=true`: findings are no failure.
    pub status: FindingsStatus,
}

/// How the findings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum ReportFormat {
    Text,
    Json,
}

/// What findings mean for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FindingsStatus {
    Fail,
    Ignore,
}

impl CheckCall {
    /// What `--check` means.
    pub const PLAIN: Self = Self { format: ReportFormat::Text, status: FindingsStatus::Fail };
}

/// Reads `--call`: `METHOD[,format=text|json][,ignorestatus=BOOL]`.
pub fn parse(text: &str) -> Result<Call, ValueError> {
    const METHODS: &str = "build or check";
    let mut call = None;
    let mut check = CheckCall::PLAIN;
    for (key, value) in fields(text)? {
        match (key.as_str(), value) {
            ("build", None) => call = Some(Call::Build),
            ("check" | "lint", None) => call = Some(Call::Check(check)),
            ("outline" | "targets", None) => return Err(ValueError::Unsupported(format!("`--call={key}`"), ": only build and check are")),
            ("format", Some(format)) => {
                check.format = ReportFormat::from_str(&format, true).map_err(|_| ValueError::form("format=text or format=json", text))?;
            }
            ("ignorestatus", Some(value)) => {
                check.status = if boolean(&value)? { FindingsStatus::Ignore } else { FindingsStatus::Fail };
            }
            (_, Some(_)) => return Err(ValueError::Field { nearest: nearest(&key, &["format", "ignorestatus"]), key }),
            (_, None) => return Err(ValueError::form(METHODS, text)),
        }
    }
    match call {
        Some(Call::Check(_)) => Ok(Call::Check(check)),
        Some(Call::Build) if check == CheckCall::PLAIN => Ok(Call::Build),
        Some(Call::Build) => Err(ValueError::form("`format` and `ignorestatus` with check only", text)),
        None => Err(ValueError::form(METHODS, text)),
    }
}

/// Prints what the checks found; findings of a rule are a failure, but nothing more is said of them.
///
/// What is no rule's finding (an argument that nobody takes) is no part of docker's report: it goes to standard error.
pub fn report(call: CheckCall, findings: &[Diagnostic], session: &Session) -> Result<(), Failure> {
    let (of_rules, others): (Vec<_>, Vec<_>) = findings.iter().cloned().partition(|f| f.rule.is_some());
    for other in &others {
        out::say(&crate::ui::diagnostic::render(other, session.stderr));
    }
    out::result(&match call.format {
        ReportFormat::Text => checks::text(&of_rules, session.stdout),
        ReportFormat::Json => checks::json(&of_rules, None),
    })?;
    if of_rules.is_empty() || call.status == FindingsStatus::Ignore { Ok(()) } else { Err(Failure::silent(FAILED)) }
}

/// Prints a report of a Dockerfile that can't be read, where programs read the report; the failure is still one.
pub fn report_error(call: CheckCall, failure: Failure) -> Failure {
    let error = failure.diagnostics.iter().find(|d| d.source.is_some());
    match (call.format, error) {
        (ReportFormat::Json, Some(error)) => match out::result(&checks::json(&[], Some(error))) {
            Ok(()) => failure,
            Err(unwritten) => unwritten.into(),
        },
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_docker_reads_them() {
        let json = CheckCall { format: ReportFormat::Json, ..CheckCall::PLAIN };
        let cases = [
            ("build", Ok(Call::Build)),
            ("check", Ok(Call::Check(CheckCall::PLAIN))),
            ("lint,format=text", Ok(Call::Check(CheckCall::PLAIN))),
            ("check,format=json", Ok(Call::Check(json))),
            ("format=JSON,check", Ok(Call::Check(json))),
            ("check,ignorestatus=true", Ok(Call::Check(CheckCall { status: FindingsStatus::Ignore, ..CheckCall::PLAIN }))),
            ("outline", Err("`--call=outline` is not supported: only build and check are")),
            ("chekc", Err("expected build or check, got `chekc`")),
            ("", Err("expected build or check, got ``")),
            ("check,fromat=json", Err("`fromat` is not a field of this flag: did you mean `format`?")),
            ("check,format=xml", Err("expected format=text or format=json, got `check,format=xml`")),
            ("build,format=json", Err("expected `format` and `ignorestatus` with check only, got `build,format=json`")),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).map_err(|e| e.to_string()), want.map_err(str::to_owned), "{text}");
        }
    }
}
