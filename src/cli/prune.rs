//! `ply prune`: gives back the room of what nothing needs any more, and of the cache what is worth least.
//!
//! `docker buildx prune`'s flags. A newcomer from docker would expect the whole cache to go without any: here that is `--all`,
//! so that the same command can stand for `docker image prune`.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cache::worth;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::values;
use crate::cli::{collection, format, interrupt, stored};
use crate::store::{CacheUnit, Filter, FilterError, Limits, PruneOptions, PruneReport, Space, UnitKind};
use crate::ui::table::{Align, Table};
use crate::ui::{human, out};

const AFTER_HELP: &str = "\
With --all, a limit, --keep-duration or --filter the cache may go too: results of steps, downloads, git repositories, cache \
mounts, and pulled bases without a name of their own. What saves the fewest seconds a byte and was of no use for long goes \
first; with a limit, no more than needed. What a running build uses, an image with a name needs or a container holds \
always stays, and is not counted.

Filters, all of which must hold: until=24h; id, parents, description and type (regular, exec.cachemount, source.git.checkout) \
with =, != or ~= (a regular expression); inuse, mutable, immutable, shared, private.";

/// Remove what nothing needs: images without a name, layers and cache records out of reach
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = AFTER_HELP)]
pub struct PruneArgs {
    /// The whole cache may go
    #[arg(short, long)]
    pub all: bool,
    /// What was of use within this time stays
    #[arg(long, value_name = "DURATION", value_parser = values::duration)]
    pub keep_duration: Option<Duration>,
    /// Only what this holds of; may be given several times
    #[arg(long, value_name = "FILTER")]
    pub filter: Vec<String>,
    /// The cache may take so much: 10GB, or 10% of the disk
    #[arg(long, value_name = "SIZE", value_parser = collection::space)]
    pub max_used_space: Option<Space>,
    /// So much of the disk shall be free
    #[arg(long, value_name = "SIZE", value_parser = collection::space)]
    pub min_free_space: Option<Space>,
    /// So much the cache may have in any case
    #[arg(long, alias = "keep-storage", value_name = "SIZE", value_parser = collection::space)]
    pub reserved_space: Option<Space>,
    /// Only the cache mounts that no step uses: --filter type=exec.cachemount
    #[arg(long)]
    pub cache_mounts: bool,
    /// Only tell what would go
    #[arg(long)]
    pub dry_run: bool,
    /// Tell each thing that goes
    #[arg(short, long)]
    pub verbose: bool,
    /// Docker's; nothing is asked here
    #[arg(short, long, hide = true)]
    pub force: bool,
    /// json, or a template such as '{{.FreedBytes}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Removes, and prints what.
pub fn run(args: &PruneArgs, session: &Session) -> Result<(), Failure> {
    let now_secs = session.env.now_secs;
    let options = options(args, now_secs)?;
    let store = stored::open(session)?;
    let cancel = interrupt::install()?;
    store.end_when(cancel.cell());
    // Of killed processes. On a full disk that may have to wait until there is room.
    let reclaim = || stored::containers(&store)?.reclaim().map_err(|e| Failure::of(&e));
    let reclaimed = args.dry_run || reclaim().is_ok();
    let uses = worth::uses(&store).map_err(|e| Failure::of(&e))?;
    let report = store.prune(&options, &|records| worth::appraise(records, &uses)).map_err(|e| Failure::of(&e))?;
    if !reclaimed {
        reclaim()?;
    }
    if let Some(status) = interrupt::status(&cancel) {
        return Err(Failure::message("interrupted; what is left goes with the next collection").status(status));
    }
    Ok(out::result(&match &args.format {
        None if args.verbose => table(&report.units, now_secs) + &told(&report, args.dry_run),
        None => told(&report, args.dry_run),
        Some(format) => format::one(format, &value(&report, args.dry_run))?,
    })?)
}

fn options(args: &PruneArgs, now_secs: i64) -> Result<PruneOptions, Failure> {
    let (mut age, mut filters) = (args.keep_duration, Vec::new());
    for text in &args.filter {
        match text.split_once('=') {
            Some(("until" | "unused-for", value)) => {
                if age.is_some() {
                    return Err(Failure::usage("--filter until is given twice, or beside --keep-duration"));
                }
                age = Some(values::duration(value).map_err(|e| Failure::usage(format!("--filter until: {e}")))?);
            }
            _ => filters.push(Filter::parse(text).map_err(|e| refused(text, &e))?),
        }
    }
    let limits = Limits { max_used: args.max_used_space, min_free: args.min_free_space, reserved: args.reserved_space };
    if args.cache_mounts && !args.all && limits.are_none() && filters.is_empty() {
        filters.push(Filter::of_type(UnitKind::CacheMount));
    }
    let unused_since_secs = age.map(|d| now_secs.saturating_sub(i64::try_from(d.as_secs()).unwrap_or(i64::MAX)));
    Ok(PruneOptions { all: args.all, unused_since_secs, filters, limits, now_secs, dry_run: args.dry_run })
}

fn refused(text: &str, error: &FilterError) -> Failure {
    let failure = Failure::usage(format!("--filter {text}: {error}"));
    let nearest = match error {
        FilterError::Key(key) => values::nearest(key, &crate::store::FILTER_KEYS),
        FilterError::Type(name) => values::nearest(name, &crate::store::FILTER_TYPES),
        FilterError::Form(_) | FilterError::Expression(_) => None,
    };
    match nearest {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None => failure,
    }
}

fn told(report: &PruneReport, dry_run: bool) -> String {
    let (removed, freed) = if dry_run { ("would remove", "would free") } else { ("removed", "freed") };
    format!(
        "{removed} {} images, {} cache records, {} layers, {} blobs{}; {freed} {} and {} files\n",
        report.images,
        report.records,
        report.layers,
        report.blobs,
        beside(&report.units),
        human::size(report.freed.bytes),
        report.freed.inodes
    )
}

/// Names what is no image, layer or blob.
fn beside(units: &[CacheUnit]) -> String {
    let count = |kind| units.iter().filter(|u| u.kind == kind).count();
    let named = [(count(UnitKind::CacheMount), "cache mounts"), (count(UnitKind::GitCheckout), "git repositories")];
    named.iter().filter(|(n, _)| *n > 0).map(|(n, name)| format!(", {n} {name}")).collect()
}

fn value(report: &PruneReport, dry_run: bool) -> Value {
    json!({
        "Images": report.images, "Records": report.records, "Layers": report.layers, "Blobs": report.blobs,
        "FreedBytes": report.freed.bytes, "FreedInodes": report.freed.inodes, "LeftBytes": report.left_bytes, "DryRun": dry_run,
        "Units": report.units.iter().map(unit).collect::<Vec<_>>(),
    })
}

/// Returns a unit as JSON; docker's names where docker has them.
pub(super) fn unit(unit: &CacheUnit) -> Value {
    json!({
        "ID": unit.id, "Type": unit.kind.name(), "Description": unit.description, "Parents": unit.parents,
        "Bytes": unit.usage.bytes, "Inodes": unit.usage.inodes, "PrivateBytes": unit.private.bytes, "Size": unit.usage.bytes.to_string(),
        "Mutable": unit.kind.is_mutable(), "InUse": unit.in_use, "Shared": unit.shared, "Reclaimable": !unit.in_use && unit.private.bytes > 0,
        "CreatedSecs": unit.created_secs, "LastUsedSecs": unit.last_used_secs, "UsageCount": unit.uses,
        "CostSecs": unit.secs, "SecsAMegabyte": unit.worth * 1e6,
    })
}

/// Returns the table of units: what they are, what they take and save.
pub(super) fn table(units: &[CacheUnit], now_secs: i64) -> String {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("TYPE", Align::Left),
        ("SIZE", Align::Right),
        ("FREES", Align::Right),
        ("FILES", Align::Right),
        ("LAST USED", Align::Left),
        ("HITS", Align::Right),
        ("COST", Align::Right),
        ("WORTH", Align::Right),
        ("WHAT", Align::Left),
    ]);
    for unit in units {
        let used = match unit.last_used_secs {
            _ if unit.in_use => "in use".into(),
            Some(then) => human::ago(then, now_secs),
            None => String::new(),
        };
        let id = unit.id.trim_start_matches("content-").trim_start_matches("sha256:");
        table.row([
            id.chars().take(12).collect(),
            unit.kind.name().to_owned(),
            human::size(unit.usage.bytes),
            human::size(unit.private.bytes),
            unit.usage.inodes.to_string(),
            used,
            unit.uses.to_string(),
            human::duration(Duration::from_secs_f64(unit.secs.clamp(0.0, 1e9))),
            worth_shown(unit.worth),
            unit.description.clone(),
        ]);
    }
    table.render()
}

/// Returns seconds a megabyte, with two digits that count.
fn worth_shown(worth: f64) -> String {
    let per_mega = worth * 1e6;
    match per_mega {
        0.0 => "0".into(),
        n if n >= 10.0 => format!("{n:.0}"),
        n if n >= 0.1 => format!("{n:.1}"),
        n => format!("{n:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::USAGE;

    #[test]
    fn ages_are_counted_back_from_now() {
        let limit = Some(Space::Bytes(5));
        let args = PruneArgs { keep_duration: Some(Duration::from_secs(3600)), max_used_space: limit, ..Default::default() };
        let want = PruneOptions {
            unused_since_secs: Some(6400),
            limits: Limits { max_used: limit, ..Limits::default() },
            now_secs: 10_000,
            ..PruneOptions::default()
        };
        assert_eq!(options(&args, 10_000).unwrap(), want);
        let filtered = |filters: &[&str]| {
            let args = PruneArgs { filter: filters.iter().map(|f| (*f).to_owned()).collect(), ..Default::default() };
            options(&args, 100_000)
        };
        let want = PruneOptions {
            unused_since_secs: Some(13_600),
            filters: vec![Filter::parse("type=regular").unwrap()],
            now_secs: 100_000,
            ..PruneOptions::default()
        };
        assert_eq!(filtered(&["until=24h", "type=regular"]).unwrap(), want);
        for (filters, hint) in [
            (&["until=24h", "until=2h"][..], None),
            (&["type=mount"], None),
            (&["typ=regular"], Some("did you mean `type`?")),
            (&["24h"], None),
        ] {
            let failure = filtered(filters).unwrap_err();
            assert_eq!((failure.status, failure.diagnostics[0].hint.as_deref()), (USAGE, hint), "{filters:?}");
        }
    }

    #[test]
    fn cache_mounts_alone_are_a_filter() {
        let args = |all| PruneArgs { cache_mounts: true, all, ..Default::default() };
        assert_eq!(options(&args(false), 0).unwrap().filters, [Filter::of_type(UnitKind::CacheMount)]);
        assert_eq!(options(&args(true), 0).unwrap().filters, []);
    }

    #[test]
    fn worth_has_two_digits() {
        for (worth, want) in [(0.0, "0"), (2.5e-4, "250"), (1.23e-6, "1.2"), (4e-9, "4.0e-3")] {
            assert_eq!(worth_shown(worth), want);
        }
    }
}
