//! Flags of docker build that Plywood has no use for, and what happens to each.
//!
//! Scripts pass them, so they must parse. One that would change the image is refused; one that only tunes
//! docker's own machinery is noted and left out. None is ignored silently.

use clap::Args;

use crate::cli::failure::Failure;

/// Docker's flags without a meaning here; hidden from the help.
#[derive(Debug, Clone, Default, Args)]
#[allow(missing_docs)]
pub struct ForeignFlags {
    #[arg(long, hide = true)]
    pub squash: bool,
    #[arg(long, hide = true)]
    pub annotation: Vec<String>,
    #[arg(long, hide = true)]
    pub attest: Vec<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub sbom: Option<String>,
    #[arg(long, hide = true)]
    pub policy: Vec<String>,
    #[arg(long, hide = true)]
    pub device: Vec<String>,
    #[arg(long, hide = true)]
    pub security_opt: Vec<String>,
    #[arg(long, hide = true)]
    pub isolation: Option<String>,
    #[arg(long, short = 'm', hide = true)]
    pub memory: Option<String>,
    #[arg(long, hide = true, allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    #[arg(long, short = 'c', hide = true)]
    pub cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    pub cpu_period: Option<String>,
    #[arg(long, hide = true)]
    pub cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    pub cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    pub cpuset_mems: Option<String>,
    #[arg(long, hide = true)]
    pub cgroup_parent: Option<String>,
    #[arg(long, hide = true)]
    pub resource: Vec<String>,
    #[arg(long, hide = true)]
    pub builder: Option<String>,
    #[arg(long, hide = true)]
    pub compress: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub rm: Option<String>,
    #[arg(long, hide = true)]
    pub force_rm: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub disable_content_trust: Option<String>,
}

impl ForeignFlags {
    /// Returns a notice for each flag that is left out.
    ///
    /// # Errors
    /// A flag that would change what is built.
    pub fn judge(&self) -> Result<Vec<String>, Failure> {
        let on = |v: &Option<String>| v.as_deref().is_some_and(|v| !matches!(v, "false" | "0" | "disabled=true"));
        // A limit that is not kept is a refusal too: a build that was meant to be bounded must not run unbounded.
        let refused: [(&str, bool, &str); 16] = [
            ("--squash", self.squash, "copy the result into a last stage `FROM scratch`"),
            ("--annotation", !self.annotation.is_empty(), "use `--label`, or annotate the written layout"),
            ("--attest", !self.attest.is_empty(), "attestations are not made"),
            ("--provenance", on(&self.provenance), "attestations are not made; `--provenance=false` is taken"),
            ("--sbom", on(&self.sbom), "attestations are not made; `--sbom=false` is taken"),
            ("--policy", !self.policy.is_empty(), "source policies are not evaluated"),
            ("--device", !self.device.is_empty(), "steps see no devices of the host"),
            ("--security-opt", !self.security_opt.is_empty(), "use `RUN --security=insecure` with `--allow security.insecure`"),
            ("--memory", self.memory.is_some(), LIMIT),
            ("--memory-swap", self.memory_swap.is_some(), LIMIT),
            ("--cpu-quota", self.cpu_quota.is_some(), LIMIT),
            ("--cpu-period", self.cpu_period.is_some(), LIMIT),
            ("--cpuset-cpus", self.cpuset_cpus.is_some(), LIMIT),
            ("--cpuset-mems", self.cpuset_mems.is_some(), LIMIT),
            ("--cgroup-parent", self.cgroup_parent.is_some(), LIMIT),
            ("--resource", !self.resource.is_empty(), LIMIT),
        ];
        if let Some((flag, _, hint)) = refused.iter().find(|(_, given, _)| *given) {
            return Err(Failure::usage(format!("{flag} is not supported")).hint(*hint));
        }
        let noted: [(&str, bool, &str); 2] = [
            ("--isolation", self.isolation.is_some(), "see `ply doctor` for what isolates a step here"),
            ("--cpu-shares", self.cpu_shares.is_some(), "steps share the processors evenly"),
        ];
        // --builder, --compress, --rm, --force-rm, --disable-content-trust: there is no builder to choose, no
        // upload, no container left behind, no trust server. Nothing is lost, so nothing is said.
        Ok(noted.iter().filter(|(_, given, _)| *given).map(|(flag, _, why)| format!("{flag} has no effect: {why}")).collect())
    }
}

const LIMIT: &str = "start ply itself under the limit: `systemd-run --user --scope -p MemoryMax=2G ply build ...`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_the_image_is_refused_and_the_rest_is_noted() {
        let quiet = ForeignFlags { provenance: Some("false".into()), rm: Some("true".into()), ..Default::default() };
        assert_eq!(quiet.judge().unwrap(), Vec::<String>::new());
        let noted = ForeignFlags { cpu_shares: Some("2".into()), ..Default::default() };
        assert_eq!(noted.judge().unwrap(), ["--cpu-shares has no effect: steps share the processors evenly"]);
        let refused = ForeignFlags { sbom: Some("true".into()), ..Default::default() };
        let failure = refused.judge().unwrap_err();
        assert_eq!((failure.status, failure.diagnostics[0].message.as_str()), (2, "--sbom is not supported"));
    }
}
