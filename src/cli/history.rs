//! `ply history`: the instructions that made an image, newest first, with what each added.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{format, stored};
use crate::store::{Image, Store};
use crate::ui::table::{Align, Table};
use crate::ui::{human, out, text};

/// Columns of an instruction that is not shown whole, as docker's.
const CREATED_BY_COLUMNS: usize = 45;

/// Show the instructions that made an image
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// Name or id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// json, table, or a template such as '{{.CreatedBy}}'
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
    let image = stored::find(&store, &args.image)?;
    let values = values(args, &store, &image, session.env.now_secs)?;
    let text = match args.format.as_deref() {
        _ if args.quiet => values.iter().filter_map(|v| v["ID"].as_str()).map(|id| format!("{id}\n")).collect(),
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
        let args = HistoryArgs { image: String::new(), format: None, no_trunc: false, quiet: false };
        let text = table(&values(&args, &store, &image, 1_700_000_000).unwrap());
        let want =
            format!("IMAGE          CREATED       CREATED BY   SIZE   COMMENT\n{}   2 hours ago   CMD [\"a\"]    0B\n", &id.hex()[..12]);
        assert_eq!(text, want);
    }
}
