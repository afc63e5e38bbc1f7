//! `ply replay`: hit rates over a git history, without running a step and without a checkout.

mod checkout;
mod execute;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use clap::Args;

use crate::cache::log::{StepCosts, step_costs};
use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::replay::execute::Execution;
use crate::cli::session::Session;
use crate::cli::values::{self, ValueError};
use crate::cli::{stored, transfer};
use crate::engine::sources::parse_build_context;
use crate::graph::NamedContext;
use crate::history::{HistoryError, Parents, Range, Repository};
use crate::image::platform::Platform;
use crate::replay::{self, CostRule, Costs, Place, Replayed, Request, Settings, Suggest};
use crate::ui::{out, replay as ui};

/// Commits that are replayed when nothing is said.
const COMMITS: usize = 200;

/// Measure cache hit rates over a git history, and test what would raise them
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Reads Dockerfile, ignore file and context of each commit from git's objects: nothing is checked out, run or fetched.\n\
    A base image counts as the same while its name is, a URL or repository of ADD while its address is, a submodule\n\
    while its commit is. A RUN that runs again counts as giving something new, so what stands on it misses: such misses\n\
    are marked as assumed. Merges are followed along their first parent."
)]
pub struct ReplayArgs {
    /// The context: a directory of a git repository, or a bare repository [default: .]
    #[arg(value_name = "PATH")]
    pub path: Option<String>,
    /// Which commits, as git writes it: REV, FROM..TO, FROM.. [default: HEAD]
    #[arg(value_name = "RANGE")]
    pub range: Option<String>,
    /// No more than the newest N commits [default: 200, or all of a range]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub number: Option<u32>,
    /// Follow all parents of merges, by date
    #[arg(long)]
    pub all_parents: bool,
    /// The Dockerfile [default: Dockerfile in the context]
    #[arg(short, long, value_name = "PATH")]
    pub file: Option<String>,
    /// The context's directory in the repository's tree, for a bare one [default: where PATH lies]
    #[arg(long, value_name = "DIR")]
    pub context: Option<String>,
    /// Set a build argument; without a value, the variable of that name is taken
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Say what a name stands for, as in `ply build`
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_context: Vec<String>,
    /// Stop at this stage
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Replay for this platform [default: the host's]
    #[arg(long, value_name = "OS/ARCH", value_parser = values::platform)]
    pub platform: Option<Platform>,
    /// What a step costs in seconds, by its beginning; * stands for anything: 'RUN npm ci=42'
    #[arg(long, value_name = "STEP=SECONDS", value_parser = cost)]
    pub cost: Vec<CostRule>,
    /// A file with such lines
    #[arg(long, value_name = "FILE")]
    pub cost_file: Option<PathBuf>,
    /// Look for no suggestions
    #[arg(long)]
    pub no_suggestions: bool,
    /// Build the commits for real, and compare; into a store that is thrown away, or into DIR
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub execute: Option<Option<PathBuf>>,
    /// Write a page with a picture of it all
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// json, or table
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub format: Option<Format>,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[allow(missing_docs)]
pub enum Format {
    #[default]
    Table,
    Json,
}

fn format(text: &str) -> Result<Format, ValueError> {
    match text {
        "table" | "" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        _ => Err(ValueError::form("json or table", text)),
    }
}

fn cost(text: &str) -> Result<CostRule, ValueError> {
    CostRule::parse(text).ok_or_else(|| ValueError::form("STEP=SECONDS, such as 'RUN npm ci=42'", text))
}

/// Replays, and shows what came of it.
pub fn run(args: &ReplayArgs, session: &Session) -> Result<(), Failure> {
    let env = &session.env;
    // Before any thread starts.
    let identity = args.execute.as_ref().map(|_| session.enter()).transpose()?;
    let (path, range) = path_and_range(args, env);
    let log = logged_costs(args, &path, session)?;
    let repository = Repository::find(&path, &transfer::search_path(env)).map_err(|e| failed(&e))?;
    let mut request = request(args, range, &repository, env)?;
    request.costs.log = log;
    let mut replayed = replay::replay(&repository, &request).map_err(|e| failed(&e))?;
    if replayed.commits.is_empty() {
        return Err(Failure::message(format!("there is no commit in {}", replayed.report.range)));
    }
    if let (Some(store), Some(identity)) = (&args.execute, &identity) {
        let store = store.as_ref().map(|dir| env.directory.join(dir));
        let execution = Execution { session, identity, store, build_contexts: pairs(args)? };
        let executed = execute::execute(&execution, &repository, &request, &replayed)?;
        if request.costs.is_empty() {
            request.costs.recorded.clone_from(&executed.costs);
            replayed = replay::replay(&repository, &request).map_err(|e| failed(&e))?;
        }
        replayed.report.executed = Some(executed);
    }
    show(args, &replayed)
}

fn failed(error: &HistoryError) -> Failure {
    let failure = Failure::of(error);
    match error.hint() {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A single argument that is no directory is the range.
fn path_and_range(args: &ReplayArgs, env: &Environment) -> (PathBuf, Option<String>) {
    match (&args.path, &args.range) {
        (Some(only), None) if !env.directory.join(only).is_dir() => (env.directory.clone(), Some(only.clone())),
        (path, range) => (env.directory.join(path.as_deref().unwrap_or(".")), range.clone()),
    }
}

fn request(args: &ReplayArgs, revisions: Option<String>, repository: &Repository, env: &Environment) -> Result<Request, Failure> {
    let context = args.context.as_deref().unwrap_or(&repository.place);
    let context = inside(context).ok_or_else(|| Failure::usage("--context: the directory must lie in the repository's tree"))?;
    let dockerfile = args.file.as_deref().map(|file| dockerfile(file, &context, repository, env)).transpose()?;
    let most = match (args.number, &revisions) {
        (Some(n), _) => Some(n as usize),
        (None, Some(range)) if range.contains("..") => None,
        (None, _) => Some(COMMITS),
    };
    Ok(Request {
        place: Place { context, dockerfile },
        range: Range { revisions, most, parents: if args.all_parents { Parents::All } else { Parents::First } },
        settings: Settings {
            build_args: build_args(args, env)?,
            target: args.target.clone().filter(|t| !t.is_empty()),
            platform: args.platform.clone().unwrap_or_else(Platform::host),
            named_contexts: named_contexts(args)?,
        },
        costs: costs(args, env)?,
        suggest: if args.no_suggestions { Suggest::No } else { Suggest::Yes },
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// Returns a path of a tree in its plain form; none: it leads out of it.
fn inside(path: &str) -> Option<String> {
    let mut names = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(names.join("/"))
}

/// `-f` is seen from the working directory, as in a build, where that lies in the working tree and the file is there; else
/// from the context.
fn dockerfile(file: &str, context: &str, repository: &Repository, env: &Environment) -> Result<String, Failure> {
    let on_disk = env.directory.join(file);
    let from_top = repository.work_tree.as_ref().filter(|_| on_disk.is_file()).and_then(|top| {
        let parent = on_disk.parent()?.canonicalize().ok()?;
        let place = parent.join(on_disk.file_name()?);
        place.strip_prefix(top.canonicalize().ok()?).ok()?.to_str().map(str::to_owned)
    });
    let in_context = |path: &str| match context {
        "" => Some(path.to_owned()),
        context => path.strip_prefix(context).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned),
    };
    match from_top {
        Some(path) => in_context(&path).ok_or_else(|| {
            Failure::usage(format!("-f {file}: the Dockerfile lies outside of the context"))
                .hint("name the repository's top as the context, or a Dockerfile in the context")
        }),
        None => inside(file).ok_or_else(|| Failure::usage(format!("-f {file}: there is no such file in the working tree"))),
    }
}

fn build_args(args: &ReplayArgs, env: &Environment) -> Result<BTreeMap<String, String>, Failure> {
    let mut out = BTreeMap::new();
    for text in &args.build_arg {
        let (name, value) = values::assignment(text).map_err(|e| Failure::usage(format!("--build-arg: {e}")))?;
        if let Some(value) = value.or_else(|| env.text(&name).map(str::to_owned)) {
            out.insert(name, value);
        }
    }
    Ok(out)
}

fn pairs(args: &ReplayArgs) -> Result<Vec<(String, String)>, Failure> {
    let pair = |text: &String| match text.split_once('=').filter(|(n, v)| !n.is_empty() && !v.is_empty()) {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Failure::usage(format!("--build-context: {}", ValueError::form("NAME=VALUE", text)))),
    };
    args.build_context.iter().map(pair).collect()
}

fn named_contexts(args: &ReplayArgs) -> Result<BTreeMap<String, NamedContext>, Failure> {
    let parse = |(name, value): (String, String)| match parse_build_context(&value) {
        Ok(parsed) => Ok((name, parsed.named)),
        Err(e) => Err(Failure::usage(format!("--build-context {name}: {e}"))),
    };
    pairs(args)?.into_iter().map(parse).collect()
}

fn costs(args: &ReplayArgs, env: &Environment) -> Result<Costs, Failure> {
    let mut rules = args.cost.clone();
    if let Some(file) = &args.cost_file {
        let shown = file.display();
        let text = std::fs::read_to_string(env.directory.join(file)).map_err(|e| Failure::message(format!("reading `{shown}`: {e}")))?;
        for (n, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            rules.push(cost(line).map_err(|e| Failure::usage(format!("{shown}:{}: {e}", n + 1)))?);
        }
    }
    Ok(Costs { rules, ..Costs::default() })
}

/// What builds of this Dockerfile cost, as far as the store remembers any; a store isn't made for that.
fn logged_costs(args: &ReplayArgs, context: &Path, session: &Session) -> Result<StepCosts, Failure> {
    let (Ok(dir), Ok(context)) = (session.store(), context.canonicalize()) else { return Ok(StepCosts::default()) };
    if !dir.is_dir() {
        return Ok(StepCosts::default());
    }
    let store = stored::open(session)?;
    // As a build names it.
    let dockerfile = format!("{}\n{}", context.display(), args.file.as_deref().unwrap_or("Dockerfile"));
    step_costs(&store, &dockerfile).map_err(|e| Failure::of(&e))
}

fn show(args: &ReplayArgs, replayed: &Replayed) -> Result<(), Failure> {
    let report = &replayed.report;
    if let Some(file) = &args.html {
        let page = ui::page::page(report);
        std::fs::write(file, page).map_err(|e| Failure::message(format!("writing `{}`: {e}", file.display())))?;
    }
    match args.format.unwrap_or_default() {
        Format::Table => out::result(&ui::table(report))?,
        Format::Json => out::line(&ui::json(report).to_string())?,
    }
    Ok(())
}
