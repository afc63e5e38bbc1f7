//! The typed instructions of a Dockerfile: words unexpanded, spans kept.
//!
//! What is checked here is the form (flags known, counts right, JSON well-formed). What needs variables, a
//! base image or other stages is checked when the graph is lowered. `$` in a word is still a `$`.

use super::source::{Span, Spanned};

/// A word with its place; quotes and variables as written.
pub type Word = Spanned<String>;

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub kind: Kind,
    /// From the instruction's name to the end of its last line, heredoc bodies not included.
    pub span: Span,
    /// The instruction's name alone, for checks of its casing.
    pub name: Word,
    /// The logical line as it stands after joining, heredoc bodies appended as `\nBODYNAME` blocks:
    /// what ONBUILD stores and what progress shows.
    pub text: String,
    /// The comment lines above, without `#`, trimmed: those since the last instruction, directive or empty
    /// `#` line. An empty line between does not part them, as in BuildKit.
    pub comments: Vec<String>,
    /// Rules that a `# check=skip=…` comment directly above switches off for this instruction alone.
    pub skip_checks: Vec<String>,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    From(From),
    Run(Run),
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Shell(Vec<String>),
    Env(Vec<Pair>),
    Label(Vec<Pair>),
    Arg(Vec<ArgDecl>),
    Copy(CopyArgs),
    Add(CopyArgs),
    Workdir(Word),
    User(Word),
    Volume(Vec<Word>),
    Expose(Vec<Word>),
    StopSignal(Word),
    Healthcheck(Healthcheck),
    Onbuild(Onbuild),
    Maintainer(Word),
}

/// `FROM [--platform=P] image [AS name]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// The base's name, unexpanded.
    pub image: Word,
    /// `--platform`, unexpanded.
    pub platform: Option<Word>,
    /// The stage's name as written (its case counts for checks only).
    pub alias: Option<Word>,
    /// The `AS` keyword as written, for `FromAsCasing`.
    pub as_keyword: Option<Word>,
}

/// A command in shell form (one string for the shell) or exec form (a JSON array).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CommandLine {
    Shell(Word),
    Exec(Spanned<Vec<String>>),
}

/// A heredoc: its delimiter, flags and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; also the file name in COPY.
    pub name: String,
    /// False when the delimiter was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs were asked to be removed.
    pub chomp: bool,
    /// The descriptor before `<<` (0 when absent).
    pub fd: u32,
    /// The body as written, line ends kept, tabs not yet removed.
    pub body: String,
    /// Where the `<<NAME` word stands.
    pub span: Span,
    /// Where the body stands.
    pub body_span: Span,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command without flags; for heredocs the text of the first line(s) only.
    pub command: CommandLine,
    /// The heredocs, in order.
    pub heredocs: Vec<Heredoc>,
    /// Each `--mount`, split into its CSV fields (unexpanded).
    pub mounts: Vec<MountFlag>,
    /// `--network`.
    pub network: Option<Word>,
    /// `--security`.
    pub security: Option<Word>,
    /// Each `--device`.
    pub devices: Vec<Word>,
}

/// One `--mount=…` flag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountFlag {
    /// `key` or `key=value`, in order, CSV quoting removed, unexpanded.
    pub fields: Vec<(String, Option<String>)>,
    /// Where the flag stands.
    pub span: Span,
}

/// `K=V` of ENV and LABEL; both sides unexpanded, quotes kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Left of `=`.
    pub key: Word,
    /// Right of `=`.
    pub value: Word,
    /// Written in the old form `ENV K V`. The value then is the rest of the line.
    pub legacy: bool,
}

/// One name of an ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDecl {
    /// The name.
    pub name: Word,
    /// The default, unexpanded, quotes kept.
    pub default: Option<Word>,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CopyArgs {
    /// The sources in order: paths, URLs, heredocs.
    pub sources: Vec<CopyArg>,
    /// The destination, unexpanded.
    pub dest: Option<Word>,
    /// The arguments were a JSON array: no further splitting, expansion still happens.
    pub json: bool,
    /// `--from` (COPY).
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link`.
    pub link: bool,
    /// `--parents` (COPY).
    pub parents: bool,
    /// Each `--exclude`.
    pub exclude: Vec<Word>,
    /// `--checksum` (ADD).
    pub checksum: Option<Word>,
    /// `--keep-git-dir` (ADD).
    pub keep_git_dir: Option<bool>,
    /// `--unpack` (ADD).
    pub unpack: Option<bool>,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum CopyArg {
    Path(Word),
    Heredoc(Heredoc),
}

/// HEALTHCHECK, durations in nanoseconds; 0 means "inherit the default".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval_ns: i64,
    /// `--timeout`.
    pub timeout_ns: i64,
    /// `--start-period`.
    pub start_period_ns: i64,
    /// `--start-interval`.
    pub start_interval_ns: i64,
    /// `--retries`.
    pub retries: i64,
}

/// ONBUILD: the trigger as the text that the image stores, and parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// The trigger's text, heredoc bodies appended.
    pub text: String,
    /// The trigger, parsed; none when it is no valid instruction, which is an error only when it fires
    /// (`parse_trigger` on the text says what is wrong).
    pub trigger: Option<Box<Instruction>>,
}

/// A whole file, parsed.
#[derive(Debug, Clone)]
pub struct File {
    /// The text that all spans point into.
    pub source: std::sync::Arc<super::source::Source>,
    /// The parser directives at the top.
    pub directives: Directives,
    /// ARG instructions before the first FROM.
    pub global_args: Vec<Instruction>,
    /// The stages in order; at least one.
    pub stages: Vec<Stage>,
    /// Findings of the build checks that need the text alone, those switched off already left out.
    pub warnings: Vec<super::source::Diagnostic>,
}

/// The parser directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# escape=`: `\` or `` ` ``.
    pub escape: char,
    /// `# syntax=`, its whole value.
    pub syntax: Option<Word>,
    /// `# check=`, parsed.
    pub check: CheckConfig,
}

/// `# check=skip=A,B;error=true;experimental=C`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckConfig {
    /// Rules to leave out.
    pub skip: Vec<String>,
    /// `skip=all`.
    pub skip_all: bool,
    /// Any finding fails the build.
    pub error: bool,
    /// Experimental rules to run.
    pub experimental: Vec<String>,
    /// `experimental=all`.
    pub experimental_all: bool,
}

/// A FROM and what follows it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The FROM instruction itself; its kind is [`Kind::From`].
    pub instruction: Instruction,
    /// Its content.
    pub from: From,
    /// The name, lower-cased.
    pub name: Option<String>,
    /// The instructions after FROM.
    pub instructions: Vec<Instruction>,
}
