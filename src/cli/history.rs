//! `ply history`: the instructions that made an image, newest first, with what each added; without an image, the builds.

use clap::Args;
use serde_json::{Value, json};

use crate::cache::log::{Build, Head};
use crate::cli::builds::{self, Chosen};
use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{explain, format, stored};
use crate::store::{Image, Store};
use crate::ui::table::{Align, Table};
use crate::ui::{human, out, text};

/// Columns of an instruction that is not shown whole, as docker's.
const CREATED_BY_COLUMNS: usize = 45;

/// Show the instructions that made an image; without one, the builds that were recorded
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// Name or id [default: list the builds]
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,
    /// Builds only: so many at the most; 0 is all
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, conflicts_with = "image")]
    pub limit: usize,
    /// Builds only: of Dockerfiles with this in their place or name
    #[arg(short = 'f', long, visible_alias = "file", value_name = "TEXT", conflicts_with = "image")]
    pub dockerfile: Option<String>,
    /// json, table, or a template such as '{{.CreatedBy}}', of builds '{{.ID}} {{.Duration}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show whole instructions and ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Show only ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// Prints the history.
pub fn run(args: &HistoryArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let values = match &args.image {
        Some(name) => values(args, &store, &stored::find(&store, name)?, session.env.now_secs)?,
        None => build_values(args, &store, session.env.now_secs)?,
    };
    let text = match args.format.as_deref() {
        _ if args.quiet => values.iter().map(|v| v["ID"].as_str().map_or_else(|| v["ID"].to_string(), Into::into) + "\n").collect(),
        None | Some("table" | "") if args.image.is_none() => build_table(&values),
        None | Some("table" | "") => table(&values),
        Some(format) => format::each(format, &values)?,
    };
    Ok(out::result(&text)?)
}

/// Returns an entry's fields under docker's names, newest first.
fn values(args: &HistoryArgs, store: &Store, image: &Image, now_secs: i64) -> Result<Vec<Value>, Failure> {
    let config = stored::config(store, image)?;
    let mut layers = image.layers.iter();
    let mut values = Vec::new();
    for (n, entry) in config.history.iter().enumerate() {
        let layer = if entry.empty_layer { None } else { layers.next() };
        let size = layer.map_or(Ok(0), |l| stored::layer_size(store, l))?;
        let newest = n + 1 == config.history.len();
        let id = if newest { stored::shown_id(&image.id, args.no_trunc) } else { "<missing>".to_owned() };
        let by = text::one_line(&entry.created_by);
        values.push(json!({
            "ID": id,
            "CreatedAt": entry.created.clone().unwrap_or_default(),
            "CreatedSince": human::created(entry.created.as_deref(), now_secs),
            "CreatedBy": if args.no_trunc { by } else { text::cut(&by, CREATED_BY_COLUMNS) },
            "Size": human::size(size),
            "Comment": entry.comment.clone().unwrap_or_default(),
        }));
    }
    values.reverse();
    Ok(values)
}

/// Returns the builds' fields, newest first.
fn build_values(args: &HistoryArgs, store: &Store, now_secs: i64) -> Result<Vec<Value>, Failure> {
    let mut chosen = builds::chosen(store, args.dockerfile.as_deref(), &Chosen::default())?;
    if args.limit > 0 {
        chosen.truncate(args.limit);
    }
    Ok(chosen.iter().map(|build| build_value(build, args.no_trunc, now_secs)).collect())
}

fn build_value(build: &Build, whole: bool, now_secs: i64) -> Value {
    let Head { target, secs, ending, error, image, steps, hits } = &build.head;
    let (context, file) = builds::place(&build.dockerfile);
    let created = jiff::Timestamp::from_second(build.started_secs).map(|t| t.to_string()).unwrap_or_default();
    json!({
        "ID": build.id,
        "CreatedAt": created,
        "CreatedSince": human::ago(build.started_secs, now_secs),
        "Context": context,
        "Dockerfile": file,
        "Target": target.clone().unwrap_or_default(),
        "Duration": builds::secs(*secs),
        "Seconds": secs,
        "Steps": steps,
        "Cached": hits,
        "Status": explain::ending(*ending),
        "Error": error.clone().unwrap_or_default(),
        "Image": image.map(|i| stored::shown_id(&i, whole)).unwrap_or_default(),
    })
}

fn build_table(values: &[Value]) -> String {
    let columns = ["BUILD", "CREATED", "CONTEXT", "DOCKERFILE", "TARGET", "DURATION", "CACHED", "STATUS", "IMAGE"];
    let mut table = Table::new(&columns.map(|head| (head, Align::Left)));
    for value in values {
        let text = |field: &str| value[field].as_str().map_or_else(|| value[field].to_string(), Into::into);
        let cached = format!("{}/{}", value["Cached"], value["Steps"]);
        let fields = ["ID", "CreatedSince", "Context", "Dockerfile", "Target", "Duration"].map(text);
        table.row(fields.into_iter().chain([cached, text("Status"), text("Image")]));
    }
    table.render()
}

fn table(values: &[Value]) -> String {
    let columns = [("IMAGE", "ID"), ("CREATED", "CreatedSince"), ("CREATED BY", "CreatedBy"), ("SIZE", "Size"), ("COMMENT", "Comment")];
    let mut table = Table::new(&columns.map(|(head, _)| (head, Align::Left)));
    for value in values {
        table.row(columns.map(|(_, field)| value[field].as_str().unwrap_or_default()));
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stored::tests::{put, store};

    #[test]
    fn the_newest_instruction_comes_first_and_has_the_id() {
        let (store, _dir) = store();
        let id = put(&store, "a", &[]);
        let image = store.image(&id).unwrap().unwrap();
        let args = HistoryArgs { image: None, limit: 0, dockerfile: None, format: None, no_trunc: false, quiet: false };
        let text = table(&values(&args, &store, &image, 1_700_000_000).unwrap());
        let want =
            format!("IMAGE          CREATED       CREATED BY   SIZE   COMMENT\n{}   2 hours ago   CMD [\"a\"]    0B\n", &id.hex()[..12]);
        assert_eq!(text, want);
    }
}
