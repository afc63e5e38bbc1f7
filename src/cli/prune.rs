//! `ply prune`: gives back the room of what nothing needs any more.

use std::time::Duration;

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::values::{self, ValueError};
use crate::cli::{format, stored};
use crate::store::{PruneOptions, PruneReport};
use crate::ui::{human, out};

/// Remove what nothing needs: images without a name, layers and cache records out of reach
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = "What a running build uses, an image with a name needs or a container holds always stays.")]
pub struct PruneArgs {
    /// Remove the whole cache, downloads, git repositories, and pulled bases that have no name of their own
    #[arg(short, long)]
    pub all: bool,
    /// Also remove cache records that were of no use for so long
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub keep_duration: Option<Duration>,
    /// Docker's spelling of --keep-duration: until=DURATION
    #[arg(long, hide = true, value_name = "until=DURATION", value_parser = until)]
    pub filter: Option<Duration>,
    /// Also remove the cache records that were of use longest ago, until the store takes no more than this
    #[arg(long, alias = "keep-storage", value_name = "BYTES", value_parser = values::size_bytes)]
    pub max_used_space: Option<u64>,
    /// Also remove the cache mounts that no step uses (with --keep-duration: nor used for so long)
    #[arg(long)]
    pub cache_mounts: bool,
    /// Docker's; nothing is asked here
    #[arg(short, long, hide = true)]
    pub force: bool,
    /// json, or a template such as '{{.FreedBytes}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

fn until(text: &str) -> Result<Duration, ValueError> {
    text.strip_prefix("until=").map_or_else(|| Err(ValueError::form("until=DURATION", text)), values::duration)
}

/// Removes, and prints what.
pub fn run(args: &PruneArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let report = store.prune(&options(args, session.env.now_secs)).map_err(|e| Failure::of(&e))?;
    Ok(out::result(&match &args.format {
        None => told(&report),
        Some(format) => format::one(
            format,
            &serde_json::json!({
                "Images": report.images, "Records": report.records, "Layers": report.layers, "Blobs": report.blobs,
                "FreedBytes": report.freed.bytes, "FreedInodes": report.freed.inodes,
            }),
        )?,
    })?)
}

fn options(args: &PruneArgs, now_secs: i64) -> PruneOptions {
    let age = args.keep_duration.or(args.filter).map(|d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
    PruneOptions {
        all: args.all,
        unused_since_secs: age.map(|secs| now_secs.saturating_sub(secs)),
        max_used_bytes: args.max_used_space,
        cache_mounts: args.cache_mounts,
    }
}

fn told(report: &PruneReport) -> String {
    format!(
        "removed {} images, {} cache records, {} layers, {} blobs; freed {} and {} files\n",
        report.images,
        report.records,
        report.layers,
        report.blobs,
        human::size(report.freed.bytes),
        report.freed.inodes
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_back_from_now() {
        let args = PruneArgs { keep_duration: Some(Duration::from_secs(3600)), max_used_space: Some(5), ..Default::default() };
        let want = PruneOptions { all: false, unused_since_secs: Some(6400), max_used_bytes: Some(5), cache_mounts: false };
        assert_eq!(options(&args, 10_000), want);
        assert_eq!(until("until=24h"), Ok(Duration::from_secs(86_400)));
        assert!(until("24h").is_err());
    }
}
