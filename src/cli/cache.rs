//! `ply cache mounts`: what `RUN --mount=type=cache` keeps, listed and removed by id.
//!
//! Not the layer cache: that is `ply du` and `ply prune`. A newcomer would expect one line an id; owner, mode and seed are
//! part of what a cache mount is, so an id may have several.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::values::nearest;
use crate::cli::{format, stored};
use crate::store::{CacheMountId, CacheMountRow, Store};
use crate::ui::table::{Align, Table};
use crate::ui::{human, out};

/// Show and remove what RUN --mount=type=cache keeps
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// What to do with which cache.
    #[command(subcommand)]
    pub command: CacheCommands,
}

/// The commands of `ply cache`.
#[derive(Debug, Clone, Subcommand)]
#[allow(missing_docs)]
pub enum CacheCommands {
    Mounts(MountsArgs),
}

/// List cache mounts, or remove them with `rm`
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true, after_help = "`ply prune --cache-mounts` removes all that no step uses.")]
pub struct MountsArgs {
    /// json, or a template such as '{{.ID}} {{.Bytes}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only the ids
    #[arg(short, long)]
    pub quiet: bool,
    /// What to do instead of listing.
    #[command(subcommand)]
    pub command: Option<MountsCommands>,
}

/// The commands of `ply cache mounts`.
#[derive(Debug, Clone, Subcommand)]
#[allow(missing_docs)]
pub enum MountsCommands {
    /// List them (as without a command)
    #[command(hide = true, alias = "list")]
    Ls(ListArgs),
    Rm(RemoveArgs),
}

/// `ply cache mounts ls`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// json, or a template such as '{{.ID}} {{.Bytes}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only the ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// Remove cache mounts; those that a step uses stay, and are an error
#[derive(Debug, Clone, Args)]
#[command(alias = "remove")]
pub struct RemoveArgs {
    /// Their ids, in whatever namespace
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

/// Lists, or removes and prints each id.
pub fn run(args: &CacheArgs, session: &Session) -> Result<(), Failure> {
    let CacheCommands::Mounts(mounts) = &args.command;
    let store = stored::open(session)?;
    match &mounts.command {
        None => Ok(out::result(&listing(&rows(&store)?, mounts.format.as_deref(), mounts.quiet, session.env.now_secs)?)?),
        Some(MountsCommands::Ls(list)) => {
            Ok(out::result(&listing(&rows(&store)?, list.format.as_deref(), list.quiet, session.env.now_secs)?)?)
        }
        Some(MountsCommands::Rm(remove)) => remove.ids.iter().try_for_each(|id| remove_one(&store, id)),
    }
}

fn rows(store: &Store) -> Result<Vec<CacheMountRow>, Failure> {
    store.cache_mounts().map_err(|e| Failure::of(&e))
}

fn remove_one(store: &Store, wanted: &str) -> Result<(), Failure> {
    let rows = rows(store)?;
    let chosen: Vec<&CacheMountId> = rows.iter().map(|row| &row.id).filter(|id| id.id == wanted).collect();
    if chosen.is_empty() {
        let known: Vec<&str> = rows.iter().map(|row| row.id.id.as_str()).collect();
        let failure = Failure::message(format!("no cache mount has the id `{wanted}`"));
        return Err(match nearest(wanted, &known) {
            Some(near) => failure.hint(format!("did you mean `{near}`?")),
            None => failure.hint("`ply cache mounts` lists them"),
        });
    }
    for id in chosen {
        if !store.remove_cache_mount(id).map_err(|e| Failure::of(&e))? {
            return Err(Failure::message(format!("cache mount `{wanted}` is in use by a step")).hint("try again when the build has ended"));
        }
    }
    Ok(out::line(wanted)?)
}

fn listing(rows: &[CacheMountRow], format: Option<&str>, quiet: bool, now_secs: i64) -> Result<String, Failure> {
    match format {
        _ if quiet => {
            let mut ids: Vec<&str> = rows.iter().map(|row| row.id.id.as_str()).collect();
            ids.dedup();
            Ok(ids.iter().map(|id| format!("{id}\n")).collect())
        }
        Some(format) if format != "table" => format::each(format, &rows.iter().map(value).collect::<Vec<_>>()),
        _ => Ok(table(rows, now_secs)),
    }
}

fn value(row: &CacheMountRow) -> Value {
    let owner = row.id.owner.map(|(mode, uid, gid)| json!({"Mode": format!("{mode:04o}"), "Uid": uid, "Gid": gid}));
    json!({
        "ID": row.id.id, "Namespace": row.id.namespace, "Owner": owner, "Seed": row.id.seed, "Directories": row.directories,
        "Bytes": row.usage.bytes, "Size": human::size(row.usage.bytes), "Files": row.usage.inodes,
        "LastUsedSecs": row.last_used_secs, "InUse": row.in_use,
    })
}

fn table(rows: &[CacheMountRow], now_secs: i64) -> String {
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("NAMESPACE", Align::Left),
        ("SIZE", Align::Right),
        ("FILES", Align::Right),
        ("LAST USED", Align::Left),
        ("KIND", Align::Left),
    ]);
    for row in rows {
        let used = if row.in_use { "in use".into() } else { human::ago(row.last_used_secs, now_secs) };
        let size = human::size(row.usage.bytes);
        table.row([row.id.id.clone(), row.id.namespace.clone(), size, row.usage.inodes.to_string(), used, kind(row)]);
    }
    table.render()
}

/// Says what is special about a cache mount.
fn kind(row: &CacheMountRow) -> String {
    let owner = row.id.owner.map(|(mode, uid, gid)| format!("mode {mode:04o}, owner {uid}:{gid}"));
    let seed = row.id.seed.as_ref().map(|_| "seeded".to_owned());
    let several = (row.directories > 1).then(|| format!("{} private copies", row.directories));
    [owner, seed, several].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::FAILED;
    use crate::store::{MountSharing, StoreError, Usage};

    fn row(id: &str, owner: Option<(u32, u32, u32)>, directories: u64, in_use: bool) -> CacheMountRow {
        let id = CacheMountId { owner, ..CacheMountId::plain(id) };
        CacheMountRow { id, directories, usage: Usage { bytes: 2_000_000, inodes: 7 }, last_used_secs: 40, in_use }
    }

    #[test]
    fn what_is_special_is_said() {
        let rows = [row("/root/.cache", None, 1, false), row("npm", Some((0o700, 1, 2)), 2, true)];
        let want = "\
ID             NAMESPACE   SIZE   FILES   LAST USED        KIND
/root/.cache                2MB       7   20 seconds ago
npm                         2MB       7   in use           mode 0700, owner 1:2; 2 private copies
";
        let shown = listing(&rows, None, false, 60).unwrap();
        assert_eq!(shown.lines().map(str::trim_end).collect::<Vec<_>>(), want.lines().collect::<Vec<_>>());
        assert_eq!(listing(&rows, Some("{{.ID}} {{.Bytes}}"), false, 60).unwrap(), "/root/.cache 2000000\nnpm 2000000\n");
        assert_eq!(listing(&rows, None, true, 60).unwrap(), "/root/.cache\nnpm\n");
    }

    #[test]
    fn unknown_and_used_ones_are_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let keep = |_: &std::path::Path| Ok::<(), StoreError>(());
        let npm = CacheMountId::plain("npm");
        let used = store.open_cache_mount(&npm, MountSharing::Shared, keep).unwrap();
        for (id, want) in [("nmp", "no cache mount has the id `nmp`"), ("npm", "cache mount `npm` is in use by a step")] {
            let failure = remove_one(&store, id).unwrap_err();
            assert_eq!((failure.status, failure.diagnostics[0].message.as_str()), (FAILED, want));
        }
        drop(used);
        assert!(remove_one(&store, "npm").is_ok());
        assert_eq!(rows(&store).unwrap(), []);
    }
}
