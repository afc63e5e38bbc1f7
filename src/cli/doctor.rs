//! `ply doctor`: what this host allows, what a build therefore gets, and what to change for more.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::failure::{FAILED, Failure, chain};
use crate::cli::format;
use crate::cli::session::Session;
use crate::sandbox::HostFacts;
use crate::sandbox::probe::{self, Isolation, Report};
use crate::sandbox::userns::Identity;
use crate::store::Store;
use crate::ui::doctor::{Finding, Health, render};
use crate::ui::out;

/// Show what this host allows, and what to change for more
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// json, or a template
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Prints the report; a host that can't build is a failure.
pub fn run(args: &DoctorArgs, session: &Session) -> Result<(), Failure> {
    let findings = findings(session)?;
    out::result(&match &args.format {
        Some(format) => format::one(format, &value(&findings))?,
        None => render(&findings, session.stdout),
    })?;
    if findings.iter().any(|f| f.health == Health::Bad) { Err(Failure::silent(FAILED)) } else { Ok(()) }
}

/// Tries everything, in the order in which one thing needs the other.
fn findings(session: &Session) -> Result<Vec<Finding>, Failure> {
    let identity = match session.enter() {
        Ok(identity) => identity,
        Err(failure) => {
            let found = failure.diagnostics.first().map(|d| d.message.clone()).unwrap_or_default();
            return Ok(vec![finding("identity", Health::Bad, found, None)]);
        }
    };
    let root = session.store()?;
    if let Err(error) = Store::open(&root) {
        let advice = "name another directory with --store or PLY_STORE".to_owned();
        return Ok(vec![identity_finding(&identity), finding("store", Health::Bad, chain(&error), Some(advice))]);
    }
    let failed = |e: std::io::Error| Failure::message(format!("asking the kernel: {e}"));
    let host = HostFacts::gather().map_err(failed)?;
    let report = probe::gather(identity, &host, &root).map_err(failed)?;
    Ok(from_report(&report, &root.display().to_string()))
}

fn finding(subject: &str, health: Health, found: impl Into<String>, advice: Option<String>) -> Finding {
    Finding { subject: subject.into(), health, found: found.into(), advice }
}

fn identity_finding(identity: &Identity) -> Finding {
    match identity {
        Identity::Root => finding("identity", Health::Good, "root of this host", None),
        Identity::Ranges { count } => finding("identity", Health::Good, format!("root of a user namespace with {count} ids"), None),
        Identity::Single { reason } => {
            let found = "root of a user namespace with one id: files have one owner, changes of owner are only recorded as done";
            finding("identity", Health::Reduced, found, Some(reason.clone()))
        }
    }
}

fn from_report(report: &Report, store: &str) -> Vec<Finding> {
    let mut findings = vec![finding("kernel", Health::Good, report.kernel.clone(), None), identity_finding(&report.identity)];
    findings.push(match &report.isolation {
        Isolation::Full => finding("isolation", Health::Good, "full: namespaces, capabilities, system call filter", None),
        Isolation::Reduced(gaps) => finding("isolation", Health::Reduced, "reduced", Some(gaps.join("\n"))),
    });
    findings.push(finding("store", Health::Good, format!("{store}, on {}", report.store_file_system), None));
    findings.push(match &report.overlay {
        Ok(()) => finding("snapshots", Health::Good, "overlay: a step's root is mounted, not copied", None),
        Err(error) => {
            let advice = "put the store on ext4, xfs, btrfs or tmpfs: PLY_STORE=DIR (in a container: a volume)".to_owned();
            let found = format!("copies: each step's root is copied, for overlay is refused on {} ({error})", report.store_file_system);
            finding("snapshots", Health::Reduced, found, Some(advice))
        }
    });
    findings
}

fn value(findings: &[Finding]) -> Value {
    let health = |h| match h {
        Health::Good => "ok",
        Health::Reduced => "reduced",
        Health::Bad => "missing",
    };
    let one = |f: &Finding| (f.subject.clone(), json!({"health": health(f.health), "found": f.found, "advice": f.advice}));
    Value::Object(findings.iter().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::probe::Cgroups;

    #[test]
    fn each_gap_comes_with_what_to_do() {
        let mut report = Report {
            kernel: "6.1".into(),
            identity: Identity::Ranges { count: 65536 },
            own_proc: true,
            seccomp: true,
            cgroups: Cgroups::V2,
            overlay: Ok(()),
            store_file_system: "ext4".into(),
            network_helper: None,
            isolation: Isolation::Full,
        };
        assert!(from_report(&report, "/s").iter().all(|f| f.health == Health::Good && f.advice.is_none()));
        report.overlay = Err("Invalid argument".into());
        report.identity = Identity::Single { reason: "newuidmap is missing".into() };
        report.isolation = Isolation::Reduced(vec!["a".into(), "b".into()]);
        let reduced: Vec<(String, Option<String>)> =
            from_report(&report, "/s").into_iter().filter(|f| f.health == Health::Reduced).map(|f| (f.subject, f.advice)).collect();
        let advice = |n: usize| reduced[n].1.clone().unwrap();
        assert_eq!(reduced.iter().map(|r| r.0.as_str()).collect::<Vec<_>>(), ["identity", "isolation", "snapshots"]);
        assert_eq!((advice(0).as_str(), advice(1).as_str()), ("newuidmap is missing", "a\nb"));
        assert!(advice(2).contains("PLY_STORE"));
    }
}
