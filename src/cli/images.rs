//! `ply images`: what the store has, newest first, a line a name.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::values::ValueError;
use crate::cli::{format, stored};
use crate::image::reference::Reference;
use crate::store::{Image, Store};
use crate::ui::table::{Align, Table};
use crate::ui::{human, out};

/// List the images in the store
#[derive(Debug, Clone, Default, Args)]
pub struct ImagesArgs {
    /// Only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Also images without a name (always done)
    #[arg(short, long, hide = true)]
    pub all: bool,
    /// Show the manifests' digests
    #[arg(long)]
    pub digests: bool,
    /// Only some images: dangling=true|false, reference=NAME
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    pub filter: Vec<Filter>,
    /// json, table, or a template such as '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Show whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Show only ids
    #[arg(short, long)]
    pub quiet: bool,
}

/// `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Images without (or with) a name.
    Dangling(bool),
    /// Images of this name.
    Name(String),
}

fn filter(text: &str) -> Result<Filter, ValueError> {
    match text.split_once('=') {
        Some(("dangling", value)) => crate::cli::values::boolean(value).map(Filter::Dangling),
        Some(("reference", name)) => Ok(Filter::Name(name.into())),
        _ => Err(ValueError::form("dangling=true|false or reference=NAME", text)),
    }
}

/// One line: an image under one of its names.
struct Line {
    image: Image,
    name: Option<Reference>,
}

/// Prints the list.
pub fn run(args: &ImagesArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    Ok(out::result(&listing(args, &store, session.env.now_secs)?)?)
}

fn listing(args: &ImagesArgs, store: &Store, now_secs: i64) -> Result<String, Failure> {
    let lines: Vec<Line> = store.list().map_err(|e| Failure::of(&e))?.into_iter().flat_map(lines).filter(|l| wanted(args, l)).collect();
    if args.quiet {
        let mut ids: Vec<String> = lines.iter().map(|l| stored::shown_id(&l.image.id, args.no_trunc)).collect();
        ids.dedup();
        return Ok(ids.iter().map(|id| format!("{id}\n")).collect());
    }
    let values = lines.iter().map(|l| value(l, args, store, now_secs)).collect::<Result<Vec<_>, _>>()?;
    match args.format.as_deref() {
        None | Some("table" | "") => Ok(table(&values, args.digests)),
        Some(format) => format::each(format, &values),
    }
}

fn lines(image: Image) -> Vec<Line> {
    if image.names.is_empty() {
        return vec![Line { image, name: None }];
    }
    image.names.iter().map(|n| Line { image: image.clone(), name: Reference::parse(n).ok() }).collect()
}

fn wanted(args: &ImagesArgs, line: &Line) -> bool {
    let named = |text: &str| {
        let Ok(wanted) = Reference::parse(text) else { return false };
        line.name.as_ref().is_some_and(|n| n.name() == wanted.name() && (wanted.tag().is_none() || wanted.tag() == n.tag()))
    };
    args.name.as_deref().is_none_or(named)
        && args.filter.iter().all(|f| match f {
            Filter::Dangling(dangling) => line.name.is_none() == *dangling,
            Filter::Name(name) => named(name),
        })
}

/// Returns a line's fields under docker's names.
fn value(line: &Line, args: &ImagesArgs, store: &Store, now_secs: i64) -> Result<Value, Failure> {
    let config = stored::config(store, &line.image)?;
    let none = || "<none>".to_owned();
    let tag = line.name.as_ref().and_then(|n| n.tag()).map_or_else(none, str::to_owned);
    let repository = line.name.as_ref().map_or_else(none, |n| {
        let familiar = n.familiar();
        familiar.strip_suffix(&format!(":{tag}")).unwrap_or(&familiar).to_owned()
    });
    Ok(json!({
        "Repository": repository,
        "Tag": tag,
        "ID": stored::shown_id(&line.image.id, args.no_trunc),
        "Digest": line.image.manifest.map_or_else(none, |d| d.to_string()),
        "CreatedAt": config.created.clone().unwrap_or_default(),
        "CreatedSince": human::created(config.created.as_deref(), now_secs),
        "Size": human::size(stored::size(store, &line.image)?),
        "Platform": line.image.platform.to_string(),
    }))
}

fn table(values: &[Value], digests: bool) -> String {
    let mut columns = vec![("REPOSITORY", "Repository"), ("TAG", "Tag"), ("IMAGE ID", "ID"), ("CREATED", "CreatedSince"), ("SIZE", "Size")];
    if digests {
        columns.insert(2, ("DIGEST", "Digest"));
    }
    let mut table = Table::new(&columns.iter().map(|(head, _)| (*head, Align::Left)).collect::<Vec<_>>());
    for value in values {
        table.row(columns.iter().map(|(_, field)| value[field].as_str().unwrap_or_default()));
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stored::tests::{put, store};

    #[test]
    fn images_are_listed_a_line_a_name() {
        let (store, _dir) = store();
        let a = put(&store, "a", &["docker.io/library/alpine:3", "ghcr.io/x/y:latest"]);
        let b = put(&store, "b", &[]);
        let now = 1_700_000_000; // 2023-11-14T22:13:20Z
        let list = |args: ImagesArgs| listing(&args, &store, now).unwrap();
        let (a, b) = (&a.hex()[..12], &b.hex()[..12]);
        let rows = [format!("alpine        3        {a}   2 hours ago   0B"), format!("ghcr.io/x/y   latest   {a}   2 hours ago   0B")];
        let text = list(ImagesArgs::default());
        assert_eq!(text.lines().next(), Some("REPOSITORY    TAG      IMAGE ID       CREATED       SIZE"));
        for row in rows.iter().chain([&format!("<none>        <none>   {b}   2 hours ago   0B")]) {
            assert!(text.lines().any(|l| l == row), "{row}\n{text}");
        }
        let only = |name: &str| list(ImagesArgs { name: Some(name.into()), quiet: true, ..Default::default() });
        assert_eq!((only("alpine"), only("alpine:3"), only("alpine:4")), (format!("{a}\n"), format!("{a}\n"), String::new()));
        let dangling = ImagesArgs { filter: vec![Filter::Dangling(true)], format: Some("{{.ID}} {{.Tag}}".into()), ..Default::default() };
        assert_eq!(list(dangling), format!("{b} <none>\n"));
    }
}
