//! `ply du`: what the store takes of the disk, as the disk counts it.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use crate::cache::worth;
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{format, prune, stored};
use crate::store::{CacheUnit, Usage, UsageKind, UsageRow};
use crate::ui::table::{Align, Table};
use crate::ui::{human, out};

/// Show what the store takes of the disk
#[derive(Debug, Clone, Args)]
#[command(after_help = "Sizes are what the disk counts: blocks, a file with several names once, directories too; together they are what \
    `du -s` says of the store. WORTH is what keeping a thing saves: seconds a megabyte, less the longer it was of no use.")]
pub struct DuArgs {
    /// The cache thing by thing, what is worth least first; and a line for everything else
    #[arg(short, long)]
    pub verbose: bool,
    /// json, or a template such as '{{.Name}} {{.Bytes}}'; a line for each thing, with --verbose for each thing of the cache
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Prints the sizes.
pub fn run(args: &DuArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let now_secs = session.env.now_secs;
    let units = || {
        let uses = worth::uses(&store)?;
        store.cache_units(&|records| worth::appraise(records, &uses), now_secs)
    };
    let units = || units().map_err(|e| Failure::of(&e));
    if let (Some(format), true) = (&args.format, args.verbose) {
        return Ok(out::result(&format::each(format, &units()?.iter().map(prune::unit).collect::<Vec<_>>())?)?);
    }
    let rows = store.du().map_err(|e| Failure::of(&e))?;
    Ok(out::result(&match &args.format {
        Some(format) => format::each(format, &rows.iter().map(value).collect::<Vec<_>>())?,
        None if args.verbose => {
            let units = units()?;
            [prune::table(&units, now_secs), each(&rows, now_secs), sums(&rows), reclaimable(&units)].join("\n")
        }
        None => sums(&rows),
    })?)
}

fn kind(kind: UsageKind) -> &'static str {
    match kind {
        UsageKind::Blob => "blobs",
        UsageKind::Layer => "layers",
        UsageKind::CacheMount => "cache mounts",
        UsageKind::Repository => "git repositories",
        UsageKind::Container => "containers",
        UsageKind::Staging => "unfinished work",
        UsageKind::Index => "index",
    }
}

fn value(row: &UsageRow) -> Value {
    json!({
        "Kind": kind(row.kind), "Name": row.name, "Bytes": row.usage.bytes, "Inodes": row.usage.inodes,
        "LastUsed": row.last_used_secs, "InUse": row.held,
    })
}

fn each(rows: &[UsageRow], now_secs: i64) -> String {
    let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("FILES", Align::Right), ("LAST USED", Align::Left)]);
    for row in rows {
        let used = match row.last_used_secs {
            _ if row.held => "in use".into(),
            Some(then) => human::ago(then, now_secs),
            None => String::new(),
        };
        table.row([row.name.clone(), human::size(row.usage.bytes), row.usage.inodes.to_string(), used]);
    }
    table.render()
}

/// Says what of the cache can go.
fn reclaimable(units: &[CacheUnit]) -> String {
    // What several units share is in none of these sums.
    let free: u64 = units.iter().filter(|u| !u.in_use).map(|u| u.private.bytes).sum();
    format!("`ply prune --all` would free about {}\n", human::size(free))
}

fn sums(rows: &[UsageRow]) -> String {
    let (mut kinds, mut all) = (BTreeMap::<UsageKind, (u64, Usage)>::new(), Usage::default());
    for row in rows {
        let sum = kinds.entry(row.kind).or_default();
        sum.0 += 1;
        sum.1 += row.usage;
        all += row.usage;
    }
    let mut table = Table::new(&[("KIND", Align::Left), ("COUNT", Align::Right), ("SIZE", Align::Right), ("FILES", Align::Right)]);
    for (k, (count, usage)) in kinds {
        table.row([kind(k).to_owned(), count.to_string(), human::size(usage.bytes), usage.inodes.to_string()]);
    }
    table.row(["all".to_owned(), rows.len().to_string(), human::size(all.bytes), all.inodes.to_string()]);
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_summed() {
        let row = |kind, name: &str, bytes, last, held| UsageRow {
            kind,
            name: name.into(),
            usage: Usage { bytes, inodes: 2 },
            last_used_secs: last,
            held,
        };
        let rows = [
            row(UsageKind::Layer, "a", 1000, Some(40), false),
            row(UsageKind::Layer, "b", 500, None, true),
            row(UsageKind::Blob, "c", 0, None, false),
        ];
        let want = "\
KIND     COUNT    SIZE   FILES
blobs        1      0B       2
layers       2   1.5kB       4
all          3   1.5kB       6
";
        assert_eq!(sums(&rows), want);
        let want = "\
NAME   SIZE   FILES   LAST USED
a       1kB       2   20 seconds ago
b      500B       2   in use
c        0B       2
";
        assert_eq!(each(&rows, 60), want);
    }
}
