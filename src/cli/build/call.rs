//! `--call` and `--check`: what to do with the Dockerfile, and the reports: checks, outline, targets.
//!
//! A report is a result, so it goes to standard output; in a build the checks' findings are warnings on standard error.

use clap::ValueEnum as _;

use crate::cli::failure::{FAILED, Failure};
use crate::cli::session::Session;
use crate::cli::values::{ValueError, boolean, fields, nearest};
use crate::dockerfile::source::Diagnostic;
use crate::engine::Answer;
use crate::engine::request::Purpose;
use crate::ui::{checks, out, outline};

/// `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    Build,
    Check(CheckCall),
    Outline(ReportFormat),
    Targets(ReportFormat),
    /// Which of these there are.
    Describe(ReportFormat),
}

impl Call {
    /// Returns what the engine has to do for it.
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Build => Purpose::Build,
            Self::Check(_) => Purpose::Check,
            Self::Outline(_) => Purpose::Outline,
            Self::Targets(_) | Self::Describe(_) => Purpose::Targets,
        }
    }
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
    const METHODS: &str = "build, check, outline or targets";
    let mut call: Option<Call> = None;
    let mut check = CheckCall::PLAIN;
    for (key, value) in fields(text)? {
        match (key.as_str(), value) {
            (_, None) if call.is_some() => return Err(ValueError::form(METHODS, text)),
            ("build", None) => call = Some(Call::Build),
            ("check" | "lint", None) => call = Some(Call::Check(check)),
            ("outline", None) => call = Some(Call::Outline(check.format)),
            ("targets", None) => call = Some(Call::Targets(check.format)),
            ("subrequests.describe", None) => call = Some(Call::Describe(check.format)),
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
        Some(Call::Build) => Err(ValueError::form("`format` and `ignorestatus` of a report, not of a build", text)),
        Some(Call::Outline(_)) => Ok(Call::Outline(check.format)),
        Some(Call::Targets(_)) => Ok(Call::Targets(check.format)),
        Some(Call::Describe(_)) => Ok(Call::Describe(check.format)),
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

/// Prints what a Dockerfile says of itself.
pub fn answer(format: ReportFormat, answer: &Answer) -> Result<(), Failure> {
    Ok(out::result(&match (answer, format) {
        (Answer::Outline(found, _), ReportFormat::Text) => outline::text(found),
        (Answer::Outline(found, source), ReportFormat::Json) => outline::json(found, source),
        (Answer::Targets(found), ReportFormat::Text) => outline::targets_text(found),
        (Answer::Targets(found), ReportFormat::Json) => outline::targets_json(found),
    })?)
}

/// Prints which reports on a Dockerfile there are.
pub fn describe(format: ReportFormat) -> Result<(), Failure> {
    Ok(out::result(&match format {
        ReportFormat::Text => outline::requests_text(),
        ReportFormat::Json => outline::requests_json(),
    })?)
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
            ("outline", Ok(Call::Outline(ReportFormat::Text))),
            ("format=json,targets", Ok(Call::Targets(ReportFormat::Json))),
            ("subrequests.describe", Ok(Call::Describe(ReportFormat::Text))),
            ("chekc", Err("expected build, check, outline or targets, got `chekc`")),
            ("outline,targets", Err("expected build, check, outline or targets, got `outline,targets`")),
            ("", Err("expected build, check, outline or targets, got ``")),
            ("check,fromat=json", Err("`fromat` is not a field of this flag: did you mean `format`?")),
            ("check,format=xml", Err("expected format=text or format=json, got `check,format=xml`")),
            ("build,format=json", Err("expected `format` and `ignorestatus` of a report, not of a build, got `build,format=json`")),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).map_err(|e| e.to_string()), want.map_err(str::to_owned), "{text}");
        }
    }
}
