//! Tells whether two files mean the same, wherever their words stand.
//!
//! Compared is all that is typed: directives, instructions with every value, comments (they describe stages and switch
//! checks off). Not compared: places, the case of instruction names and of `AS`, and [`Instruction::text`], which only
//! progress shows; what an image keeps of a text, ONBUILD's trigger, has a field of its own.

use crate::dockerfile::instruction::{CommandLine, CopyArg, File, From, Heredoc, Instruction, Kind, Word};
use crate::dockerfile::source::{Span, Spanned};

/// Tells whether both files mean the same: see the header of this module.
pub fn is_same(one: &File, other: &File) -> bool {
    let plain = |file: &File| {
        let stages = file.stages.iter().map(|stage| {
            let instructions: Vec<Instruction> = stage.instructions.iter().map(bare).collect();
            (bare(&stage.instruction), stage.name.clone(), instructions)
        });
        let directives = (file.directives.escape, file.directives.syntax.as_ref().map(|word| word.value.clone()));
        (directives, file.directives.check.clone(), file.global_args.iter().map(bare).collect::<Vec<_>>(), stages.collect::<Vec<_>>())
    };
    plain(one) == plain(other)
}

/// Returns an instruction without places and without what has no meaning.
fn bare(instruction: &Instruction) -> Instruction {
    let mut bare = instruction.clone();
    bare.span = Span::default();
    bare.name = Word::new(bare.name.value.to_ascii_uppercase(), Span::default());
    bare.text.clear();
    match &mut bare.kind {
        Kind::From(From { image, platform, alias, as_keyword }) => {
            std::iter::once(image).chain(platform).chain(alias).for_each(forget);
            *as_keyword = as_keyword.take().map(|_| Word::new("AS".into(), Span::default()));
        }
        Kind::Run(run) => {
            command(&mut run.command);
            run.heredocs.iter_mut().for_each(heredoc);
            run.mounts.iter_mut().for_each(|mount| mount.span = Span::default());
            run.network.iter_mut().chain(&mut run.security).chain(&mut run.devices).for_each(forget);
        }
        Kind::Cmd(line) | Kind::Entrypoint(line) => command(line),
        Kind::Shell(_) | Kind::Healthcheck(_) => {}
        Kind::Env(pairs) | Kind::Label(pairs) => pairs.iter_mut().flat_map(|pair| [&mut pair.key, &mut pair.value]).for_each(forget),
        Kind::Arg(names) => names.iter_mut().flat_map(|arg| std::iter::once(&mut arg.name).chain(&mut arg.default)).for_each(forget),
        Kind::Copy(copy) | Kind::Add(copy) => {
            for source in &mut copy.sources {
                match source {
                    CopyArg::Path(word) => forget(word),
                    CopyArg::Heredoc(body) => heredoc(body),
                }
            }
            let flags = [&mut copy.dest, &mut copy.from, &mut copy.chown, &mut copy.chmod, &mut copy.checksum];
            flags.into_iter().flatten().chain(&mut copy.exclude).for_each(forget);
        }
        Kind::Workdir(word) | Kind::User(word) | Kind::StopSignal(word) | Kind::Maintainer(word) => forget(word),
        Kind::Volume(words) | Kind::Expose(words) => words.iter_mut().for_each(forget),
        // The text says it all; the parsed trigger has places in a source of its own.
        Kind::Onbuild(onbuild) => onbuild.trigger = None,
    }
    bare
}

fn forget<T>(word: &mut Spanned<T>) {
    word.span = Span::default();
}

fn command(line: &mut CommandLine) {
    match line {
        CommandLine::Shell(text) => forget(text),
        CommandLine::Exec(words) => forget(words),
    }
}

fn heredoc(heredoc: &mut Heredoc) {
    (heredoc.span, heredoc.body_span) = (Span::default(), Span::default());
}
