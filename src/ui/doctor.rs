//! The report of `ply doctor`: what this host allows, what a build therefore gets, what to change for more.

use crate::ui::style::Paint;
use crate::ui::text;

/// How well one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Good,
    /// It works, with less isolation or more work.
    Reduced,
    /// Builds can't work without it.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `user namespaces`.
    pub subject: String,
    /// How well it is.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to change for more, where there is something.
    pub advice: Option<String>,
}

/// Returns the report: a line a finding with its advice below, and the sum.
pub fn render(findings: &[Finding], paint: Paint) -> String {
    let width = findings.iter().map(|f| text::width(&f.subject)).max().unwrap_or(0);
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.health {
            Health::Good => paint.good("ok     "),
            Health::Reduced => paint.warn("reduced"),
            Health::Bad => paint.bad("missing"),
        };
        let pad = " ".repeat(width - text::width(&finding.subject));
        out.push_str(&format!("{mark}  {}{pad}  {}\n", paint.bold(&finding.subject), text::one_line(&finding.found)));
        if let Some(advice) = &finding.advice {
            for line in advice.lines() {
                out.push_str(&format!("         {}{} {}\n", " ".repeat(width + 2), paint.hint("->"), text::printable(line)));
            }
        }
    }
    out.push_str(match findings.iter().map(|f| f.health).max_by_key(|h| *h as u8) {
        Some(Health::Bad) => "\nThis host can't build yet.\n",
        Some(Health::Reduced) => "\nThis host builds, with less than it could have.\n",
        Some(Health::Good) | None => "\nThis host builds with full isolation.\n",
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_stands_below_its_finding() {
        let finding = |subject: &str, health, found: &str, advice: Option<&str>| Finding {
            subject: subject.into(),
            health,
            found: found.into(),
            advice: advice.map(str::to_owned),
        };
        let report = [
            finding("user", Health::Good, "root", None),
            finding("snapshots", Health::Reduced, "copying", Some("put the store on ext4: PLY_STORE=/data")),
        ];
        let want = "\
ok       user       root
reduced  snapshots  copying
                    -> put the store on ext4: PLY_STORE=/data

This host builds, with less than it could have.
";
        assert_eq!(render(&report, Paint::Plain), want);
    }
}
