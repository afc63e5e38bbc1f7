//! RUN: its arguments, its environment, its mounts.
//!
//! What a newcomer would get wrong: nothing of the command is expanded here, heredocs included; the shell sees the text.
//! A heredoc that stands alone becomes the script itself, so that shells without heredocs can run it.

use crate::dockerfile::expand::{Env, Expander};
use crate::dockerfile::instruction::{CommandLine, Heredoc, Instruction, MountFlag, Run, Word};
use crate::dockerfile::source::{Diagnostic, Span};
use crate::graph::mounts::{self, MountText, MountType};
use crate::graph::{Entitlement, FileTree, Mount, MountKind, NetworkMode, Op, RunOp, Sharing};

use super::copy::without_tabs;
use super::scope::{Masked, Nothing};
use super::stage::{Work, command_args, first_line, shell, with_shell};
use super::{Lowering, paths};
use crate::dockerfile::ignore::clean;

/// Where scripts of heredocs with `#!` are shown.
const PIPES: &str = "/dev/pipes/";
const DEFAULT_HOSTNAME: &str = "buildkitsandbox";
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// What a RUN's command line became.
struct Command {
    argv: Vec<String>,
    scripts: Vec<(String, Vec<u8>)>,
    /// What titles show after the instruction: the first line of a script.
    summary: String,
}

impl Lowering<'_> {
    pub(super) fn run_step(&mut self, work: &mut Work<'_>, instruction: &Instruction, run: &Run) -> Result<(), Diagnostic> {
        let mounts = self.mounts(work, instruction, run)?;
        let place = self.place;
        self.outline.mounts(work.index, instruction, |span| place.unwrap_or(span), &mounts);
        let command = command(work, run);
        if command.argv.is_empty() {
            return Err(self.error(instruction.span, "RUN has nothing to run: arguments are required").hint("for example: RUN make"));
        }
        if let Some(device) = run.devices.first() {
            let error = self.error(device.span, format!("RUN --device=`{}`: devices are not supported", device.value));
            return Err(error.hint("steps see /dev/null, zero, full, random, urandom and tty only; run what needs a device in a container"));
        }
        let network = self.network(run.network.as_ref())?;
        let insecure = self.insecure(run.security.as_ref())?;
        let mut env = work.done.scope.environment();
        if let Some(socket) = mounts.iter().find(|m| matches!(m.kind, MountKind::Ssh { .. }))
            && work.done.scope.value("SSH_AUTH_SOCK").is_none()
        {
            env = env.with("SSH_AUTH_SOCK", &socket.target);
        }
        let created_by = format!("RUN {}{} # buildkit", work.done.arguments.shown(&work.done.scope), command.argv.join(" "));
        let title = self.run_title(work, instruction, &mounts, &command.summary);
        let workdir = work.workdir();
        let op = RunOp {
            argv: command.argv,
            env,
            proxy_env: self.proxy_env(),
            cwd: if workdir.is_empty() { "/".into() } else { clean(workdir) },
            user: work.done.config.config.user.clone(),
            mounts,
            network,
            insecure,
            hostname: self.facts.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned().unwrap_or_else(|| DEFAULT_HOSTNAME.into()),
            scripts: command.scripts,
            shell: shell(work),
        };
        let node = self.step(work, instruction, Op::Run(Box::new(op)), &title);
        work.history(created_by, Some(node));
        Ok(())
    }

    fn network(&self, flag: Option<&Word>) -> Result<NetworkMode, Diagnostic> {
        let mode = match flag.map(|f| f.value.as_str()) {
            Some("none") => NetworkMode::None,
            Some("host") => NetworkMode::Host,
            _ => self.facts.network,
        };
        match flag {
            Some(flag) if flag.value == "host" => self.allowed(Entitlement::NetworkHost, "network.host", flag.span)?,
            _ => {}
        }
        Ok(mode)
    }

    fn insecure(&self, flag: Option<&Word>) -> Result<bool, Diagnostic> {
        let Some(flag) = flag.filter(|f| f.value == "insecure") else { return Ok(false) };
        self.allowed(Entitlement::SecurityInsecure, "security.insecure", flag.span)?;
        Ok(true)
    }

    fn allowed(&self, entitlement: Entitlement, name: &str, span: Span) -> Result<(), Diagnostic> {
        if self.facts.allow.contains(&entitlement) {
            return Ok(());
        }
        Err(self.error(span, format!("the entitlement {name} is not allowed")).hint(format!("`--allow {name}` allows it")))
    }

    /// Returns the proxy variables that were given as build arguments, in both spellings.
    fn proxy_env(&self) -> Vec<(String, String)> {
        let mut out = Vec::new();
        for name in PROXIES {
            let given = self.facts.build_args.iter().rfind(|(key, _)| key.eq_ignore_ascii_case(name));
            if let Some((_, value)) = given {
                out.push((name.to_string(), value.clone()));
                out.push((name.to_lowercase(), value.clone()));
            }
        }
        out
    }

    fn run_title(&self, work: &Work<'_>, instruction: &Instruction, mounts: &[Mount], summary: &str) -> String {
        let secrets = mounts.iter().filter_map(|mount| match &mount.kind {
            MountKind::Secret { env, .. } => env.as_deref(),
            _ => None,
        });
        let scope = Masked { scope: &work.done.scope, secrets: secrets.collect() };
        let line = format!("{}{summary}", first_line(instruction));
        self.expander.for_display().word(&line, &scope).map_or(line, |e| e.text)
    }

    fn mounts(&mut self, work: &Work<'_>, instruction: &Instruction, run: &Run) -> Result<Vec<Mount>, Diagnostic> {
        let mut texts = Vec::new();
        for flag in &run.mounts {
            texts.push((self.mount_text(work, instruction, flag)?, self.at(flag.span)));
        }
        let mut out = Vec::new();
        let mut sockets = 0;
        for (text, span) in texts {
            let mount = self.mount(work, text, span, sockets)?;
            sockets += usize::from(matches!(mount.kind, MountKind::Ssh { .. }));
            out.push(mount);
        }
        Ok(out)
    }

    fn mount_text(&mut self, work: &Work<'_>, instruction: &Instruction, flag: &MountFlag) -> Result<MountText, Diagnostic> {
        let mut fields = flag.fields.clone();
        for (_, value) in &mut fields {
            if let Some(value) = value {
                *value = self.expand(work, instruction, &Word::new(value.clone(), flag.span))?;
            }
        }
        mounts::read(&fields).map_err(|e| {
            let span = e.field.and_then(|field| self.field_span(flag.span, field)).unwrap_or(flag.span);
            self.error(span, e.message).hint("a mount is type=bind|cache|tmpfs|secret|ssh and target=PATH, with further keys by type")
        })
    }

    /// Returns where the field number `field` of a flag stands; none where quotes or joined lines hide it.
    fn field_span(&self, flag: Span, field: usize) -> Option<Span> {
        let text = self.file.source.text().get(flag.start as usize..flag.end as usize)?;
        if text.contains(['"', '\'', '\n', '\\']) {
            return None;
        }
        let start = flag.start as usize + text.split(',').take(field).map(|f| f.len() + 1).sum::<usize>();
        let length = text.split(',').nth(field)?.len();
        Some(Span::new(start, start + length))
    }

    fn mount(&mut self, work: &Work<'_>, text: MountText, span: Span, sockets: usize) -> Result<Mount, Diagnostic> {
        let readonly = text.readonly;
        let mount = |target, kind| Mount { target, kind, readonly, span };
        match text.kind {
            MountType::Secret => Ok(secret(text, work.workdir(), span)),
            MountType::Ssh => {
                let target = match text.target.as_str() {
                    "" => format!("/run/buildkit/ssh_agent.{sockets}"),
                    target => paths::join("/", target),
                };
                let id = if text.id.is_empty() { "default".to_string() } else { text.id };
                let (mode, uid, gid) = (text.mode.unwrap_or(0o600), text.uid.unwrap_or(0), text.gid.unwrap_or(0));
                Ok(mount(target, MountKind::Ssh { id, required: text.required, mode, uid, gid }))
            }
            MountType::Bind | MountType::Cache | MountType::Tmpfs => {
                let target = paths::join(work.workdir(), &text.target);
                if target == "/" {
                    let error = self.error(span, "invalid mount target `/`: the root itself can't be a mount point");
                    return Err(error.hint("name a directory with target=; --mount=from=STAGE,target=/src shows a whole stage there"));
                }
                let kind = self.mount_files(work, text, span)?;
                Ok(mount(target, kind))
            }
        }
    }

    fn mount_files(&mut self, work: &Work<'_>, text: MountText, span: Span) -> Result<MountKind, Diagnostic> {
        let from = match &text.from {
            None => None,
            Some(name) => {
                let origin = self.named_origin(name, span)?;
                Some(self.tree(work, &origin, span).map_err(|_| {
                    let target = &text.target;
                    let message =
                        format!("cannot mount from stage `{name}` to `{target}`, stage needs to be defined before current command");
                    self.error(span, message).hint(format!("move the stage `{name}` above this one"))
                })?)
            }
        };
        let source = paths::join("/", &text.source);
        Ok(match text.kind {
            MountType::Tmpfs => MountKind::Tmpfs { size_bytes: text.size_bytes },
            MountType::Cache => MountKind::Cache {
                id: self.cache_id(&text),
                sharing: text.sharing.unwrap_or(Sharing::Shared),
                from: from.filter(|_| text.from.as_deref() != Some("scratch")),
                source,
                mode: text.mode.unwrap_or(0o755),
                uid: text.uid.unwrap_or(0),
                gid: text.gid.unwrap_or(0),
            },
            _ => MountKind::Bind { from: from.unwrap_or(FileTree::Context(None)), source },
        })
    }

    fn cache_id(&self, text: &MountText) -> String {
        let namespace = self.facts.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map(String::as_str).unwrap_or_default();
        let id = if text.id.is_empty() { clean(&text.target) } else { text.id.clone() };
        format!("{namespace}/{id}")
    }
}

/// A secret as a file, as a variable, or as both.
fn secret(text: MountText, workdir: &str, span: Span) -> Mount {
    let id = [text.source.as_str(), text.id.as_str(), paths::base(&text.target)].into_iter().find(|t| !t.is_empty()).unwrap_or_default();
    let env = text.env.filter(|name| !name.is_empty());
    let target = match (text.target.as_str(), &env) {
        ("", Some(_)) => String::new(),
        ("", None) => format!("/run/secrets/{}", paths::base(id)),
        (target, _) => paths::join(workdir, target),
    };
    let kind = MountKind::Secret {
        id: id.to_string(),
        required: text.required,
        env,
        mode: text.mode.unwrap_or(0o400),
        uid: text.uid.unwrap_or(0),
        gid: text.gid.unwrap_or(0),
    };
    Mount { target, kind, readonly: text.readonly, span }
}

fn command(work: &Work<'_>, run: &Run) -> Command {
    let plain = |argv| Command { argv, scripts: Vec::new(), summary: String::new() };
    let line = match (&run.command, run.heredocs.first()) {
        (CommandLine::Shell(line), Some(first)) => {
            if is_lone_heredoc(&line.value) {
                return lone_heredoc(work, first);
            }
            line
        }
        (command, _) => return plain(command_args(work, command)),
    };
    let mut script = line.value.clone();
    for heredoc in &run.heredocs {
        script.push_str(&format!("\n{}{}", heredoc.body, heredoc.name));
    }
    plain(with_shell(work, script))
}

/// The heredoc is the whole command: its body is the script.
fn lone_heredoc(work: &Work<'_>, heredoc: &Heredoc) -> Command {
    let body = if heredoc.chomp { without_tabs(&heredoc.body) } else { heredoc.body.clone() };
    let summary = format!(" ({})", summarised(&heredoc.body));
    if body.starts_with("#!") && work.done.config.os != "windows" {
        let argv = with_shell(work, paths::join(PIPES, &heredoc.name));
        return Command { argv, scripts: vec![(heredoc.name.clone(), body.into_bytes())], summary };
    }
    Command { argv: with_shell(work, body), scripts: Vec::new(), summary }
}

fn is_lone_heredoc(line: &str) -> bool {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let Some(rest) = rest.strip_prefix("<<") else { return false };
    let rest = rest.strip_prefix('-').unwrap_or(rest).trim_start();
    !rest.contains('<') && Expander::new('\\').words(rest, &Nothing).is_ok_and(|words| words.len() == 1)
}

/// Returns a script's first line.
fn summarised(body: &str) -> String {
    let body = body.trim();
    match body.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => body.to_string(),
    }
}
