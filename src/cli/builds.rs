//! What the commands about the log of builds share: which builds are meant, and how a Dockerfile is shown.

use std::path::Path;

use crate::cache::log::{self, Build};
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::store::{BuildFilter, Store};

/// Which builds a command looks at.
#[derive(Debug, Clone, Default)]
pub struct Chosen {
    /// Only of this Dockerfile.
    pub dockerfile: Option<String>,
    /// Only those that began at this moment (unix seconds) or later.
    pub since_secs: Option<i64>,
}

/// Chooses the builds of the Dockerfiles that `filter` is part of the name of; all without one.
pub fn chosen(store: &Store, filter: Option<&str>, chosen: &Chosen) -> Result<Vec<Build>, Failure> {
    let of = BuildFilter { dockerfile: chosen.dockerfile.as_deref(), since_secs: chosen.since_secs, ..BuildFilter::default() };
    let mut builds = log::builds(store, &of).map_err(|e| Failure::of(&e))?;
    builds.retain(|b| filter.is_none_or(|f| shown(&b.dockerfile).contains(f)));
    Ok(builds)
}

/// The builds that a person means in a directory: those whose context it is, if there are any; else all.
pub fn of_directory(builds: Vec<Build>, session: &Session) -> Vec<Build> {
    let here = session.env.directory.canonicalize().unwrap_or_else(|_| session.env.directory.clone());
    let is_here = |b: &Build| Path::new(place(&b.dockerfile).0) == here;
    if builds.iter().any(is_here) { builds.into_iter().filter(is_here).collect() } else { builds }
}

/// Returns the build that a person names among these, newest first: by number, or `-1` for the one before the newest.
pub fn named(builds: &[Build], name: Option<i64>) -> Result<&Build, Failure> {
    let found = match name.unwrap_or(0) {
        back if back <= 0 => usize::try_from(back.unsigned_abs()).ok().and_then(|n| builds.get(n)),
        id => builds.iter().find(|b| b.id == id),
    };
    found.ok_or_else(|| {
        let what = name.map_or_else(|| "no build was recorded yet".to_string(), |name| format!("there is no build `{name}` in the log"));
        Failure::message(what).hint("`ply history` lists the builds; old ones are forgotten")
    })
}

/// Splits what Dockerfiles are told apart by into the context's place and the file.
pub fn place(dockerfile: &str) -> (&str, &str) {
    dockerfile.split_once('\n').unwrap_or((dockerfile, ""))
}

/// Returns a Dockerfile as people know it: `/home/me/app (Dockerfile)`.
pub fn shown(dockerfile: &str) -> String {
    let (context, file) = place(dockerfile);
    if file.is_empty() { context.to_string() } else { format!("{context} ({file})") }
}

/// Returns seconds as people read them.
pub fn secs(secs: f64) -> String {
    if secs < 100.0 { format!("{secs:.1}s") } else { format!("{secs:.0}s") }
}

/// Parses a moment: so long ago (`90s`, `30m`, `24h`, `7d`), or a date.
pub fn since(text: &str, now_secs: i64) -> Result<i64, Failure> {
    let wrong = || Failure::usage(format!("--since: `{text}` is no time: write 30m, 24h, 7d, or 2025-01-31"));
    let unit = |c| match c {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(3600),
        'd' => Some(86_400),
        _ => None,
    };
    let length = text.char_indices().last().and_then(|(at, c)| Some((text[..at].parse::<i64>().ok()?, unit(c)?)));
    if let Some((n, unit)) = length {
        return n.checked_mul(unit).filter(|n| *n >= 0).map(|n| now_secs.saturating_sub(n)).ok_or_else(wrong);
    }
    let moment = text.parse::<jiff::Timestamp>().or_else(|_| format!("{text}T00:00:00Z").parse());
    moment.map(jiff::Timestamp::as_second).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_so_long_ago_or_a_date() {
        for (text, want) in [
            ("90s", Some(910)),
            ("1m", Some(940)),
            ("0d", Some(1000)),
            ("1970-01-01", Some(0)),
            ("1970-01-02T00:00:00Z", Some(86_400)),
            ("-1h", None),
            ("x", None),
            ("", None),
            ("9999999999999999999d", None),
            ("9223372036854775807d", None),
            ("1é", None),
        ] {
            assert_eq!(since(text, 1000).ok(), want, "{text}");
        }
    }

    #[test]
    fn dockerfiles_and_times_are_shown_as_people_know_them() {
        assert_eq!((shown("/a\nDockerfile").as_str(), shown("-").as_str()), ("/a (Dockerfile)", "-"));
        assert_eq!([0.04, 99.96, 100.4].map(secs), ["0.0s", "100.0s", "100s"]);
    }
}
