//! What a Dockerfile offers to those who build it: the arguments, secrets and sockets of a target, and the targets.
//!
//! BuildKit's `outline` and `targets` requests. What a newcomer would get wrong: the outline is of what the target needs, so
//! a stage that nobody reads is not in it; a global ARG is listed when a FROM or a stage uses it; and where stages have an
//! argument of one name, the target's own counts, then its base's, then those of the stages that it copies from.

use std::sync::Arc;

use crate::dockerfile::instruction::{File, Instruction, Kind};
use crate::dockerfile::source::{Source, Span};

/// What the target takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The target stage's name.
    pub name: Option<String>,
    /// What the comment above the stage says of it.
    pub description: Option<String>,
    /// The build arguments in the order of the text, those of one instruction by name.
    pub args: Vec<Argument>,
    /// The secrets, in the order of the text.
    pub secrets: Vec<Offer>,
    /// The ssh sockets, in the order of the text.
    pub ssh: Vec<Offer>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What the comment above says of it.
    pub description: Option<String>,
    /// Its value in this build; none: it has none.
    pub value: Option<String>,
    /// The instruction that declares it, from its first to its last line.
    pub span: Span,
}

/// Something that the caller of a build may hand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The id.
    pub name: String,
    /// The build fails without it.
    pub required: bool,
    /// The RUN that asks for it, from its first to its last line.
    pub span: Span,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: Option<String>,
    /// It is built where no target is named.
    pub is_default: bool,
    /// What the comment above says of it.
    pub description: Option<String>,
    /// The base as written.
    pub base: String,
    /// `--platform` as written.
    pub platform: Option<String>,
    /// The FROM.
    pub span: Span,
}

/// The stages of a file and the text that they stand in.
#[derive(Debug, Clone)]
pub struct Targets {
    /// In the order of the text.
    pub stages: Vec<Target>,
    /// The text that spans point into.
    pub source: Arc<Source>,
}

impl Targets {
    /// Lists the stages of a file; nothing of it is expanded.
    pub fn of(file: &File) -> Self {
        let target = |(index, stage): (usize, &crate::dockerfile::instruction::Stage)| Target {
            name: stage.name.clone(),
            is_default: index + 1 == file.stages.len(),
            description: stage.name.as_deref().and_then(|name| description(&stage.instruction, name)),
            base: stage.from.image.value.clone(),
            platform: stage.from.platform.as_ref().map(|platform| platform.value.clone()),
            span: stage.instruction.span,
        };
        Self { stages: file.stages.iter().enumerate().map(target).collect(), source: file.source.clone() }
    }
}

/// Returns what the comments above an instruction say of a name: `# NAME text`.
pub fn description(instruction: &Instruction, name: &str) -> Option<String> {
    let text = |comment: &String| comment.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    instruction.comments.iter().find_map(text)
}

/// Returns an instruction's place with its heredocs.
pub(super) fn place(instruction: &Instruction) -> Span {
    match &instruction.kind {
        // The terminator's line is the last one; it begins where the body ends.
        Kind::Run(run) => {
            run.heredocs.last().map_or(instruction.span, |heredoc| Span { end: heredoc.body_span.end + 1, ..instruction.span })
        }
        _ => instruction.span,
    }
}
