//! Flags and surroundings → [`BuildRequest`].
//!
//! What needs the caller's environment is settled here (`--build-arg NAME`, `--secret env=`, `--ssh default`), so
//! that the engine never reads it. No file is read yet, but for a look whether a secret's file is there.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::address::{self, GitAddress};
use crate::cli::build::{BuildArgs, cache};
use crate::cli::collection;
use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::values::{self, ValueError};
use crate::engine::request::{
    ArchiveOutput, BuildRequest, ContextSource, Destination, DockerfileSource, Intent, Output, PushOutput, Secret, SecretSource, Verify,
};
use crate::image::platform::Platform;

/// The name of the clock that clamps times, as variable and as build argument.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Makes the request, and the notices about what has no effect.
pub fn make(args: &BuildArgs, env: &Environment) -> Result<(BuildRequest, Vec<String>), Failure> {
    let notices = args.foreign.judge()?;
    let build_args = build_args(args, env)?;
    let (context, dockerfile) = sources(args, env)?;
    let request = BuildRequest {
        context,
        dockerfile,
        tags: args.tag.clone(),
        build_args,
        build_contexts: pairs("--build-context", &args.build_context)?,
        // As with docker, the last one counts.
        target: args.target.last().cloned().filter(|t| !t.is_empty()),
        more_targets: Vec::new(),
        platforms: platforms(args)?,
        labels: labels(args)?,
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter.clone(),
        pull: args.pull,
        cache_from: cache::all_from(args, env)?,
        cache_to: cache::all_to(args, env)?,
        cache_mounts: cache::mounts(args)?,
        outputs: outputs(args, env)?,
        iidfile: args.iidfile.clone(),
        metadata_file: args.metadata_file.clone(),
        network: args.network,
        allow: args.allow.clone(),
        secrets: args.secret.iter().map(|s| secret(s, env)).collect::<Result<_, _>>()?,
        ssh: agents(args, env)?,
        known_hosts: env.home().map(|h| h.join(".ssh/known_hosts")).filter(|p| p.is_file()),
        add_hosts: args.add_host.clone(),
        shm_size_bytes: args.shm_size,
        ulimits: args.ulimit.clone(),
        require_full_isolation: args.require_isolation.is_some(),
        purpose: args.call().purpose(),
        intent: Intent::Build,
        jobs: args.jobs.map(usize::from),
        verify: args.verify_cache.map(|v| Verify { sample: v.sample, seed: v.seed.unwrap_or(env.now_secs.unsigned_abs()) }),
        collection: collection::chosen(args.gc.as_ref().map(|g| &g.0), env)?,
    };
    Ok((request, notices))
}

pub(super) fn flag_error(flag: &str, error: &ValueError) -> Failure {
    Failure::usage(format!("{flag}: {error}"))
}

fn sources(args: &BuildArgs, env: &Environment) -> Result<(ContextSource, DockerfileSource), Failure> {
    let context = match args.context.as_str() {
        "-" => ContextSource::Stdin,
        "" => return Err(Failure::usage("the context is empty").hint("name a directory, such as `.`")),
        // As with buildx: a directory of that name comes first.
        url if is_url(url) && !env.directory.join(url).is_dir() => ContextSource::Url(url.into()),
        dir => ContextSource::Directory(dir.into()),
    };
    let dockerfile = match args.file.as_deref() {
        None | Some("") => DockerfileSource::Default,
        Some("-") => DockerfileSource::Stdin,
        Some(url) if address::is_http(url) => DockerfileSource::Url(url.into()),
        Some(path) => DockerfileSource::Path(path.into()),
    };
    if context == ContextSource::Stdin && dockerfile == DockerfileSource::Stdin {
        return Err(Failure::usage("standard input can't be both the context and the Dockerfile"));
    }
    Ok((context, dockerfile))
}

/// Returns whether docker would fetch this context: http(s), git, or the short forms of a git host.
fn is_url(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"].iter().any(|p| text.starts_with(p)) || is_scp(text)
}

/// `--build-arg`: the last one of a name counts; a name alone takes the caller's variable, or is left out. The
/// caller's `SOURCE_DATE_EPOCH` counts as given, as with buildx.
fn build_args(args: &BuildArgs, env: &Environment) -> Result<BTreeMap<String, String>, Failure> {
    let mut out = BTreeMap::new();
    for text in &args.build_arg {
        let (name, value) = values::assignment(text).map_err(|e| flag_error("--build-arg", &e))?;
        if let Some(value) = value.or_else(|| env.text(&name).map(str::to_owned)) {
            out.insert(name, value);
        }
    }
    if !out.contains_key(EPOCH)
        && let Some(epoch) = env.text(EPOCH).filter(|e| !e.is_empty())
    {
        out.insert(EPOCH.into(), epoch.into());
    }
    Ok(out)
}

fn labels(args: &BuildArgs) -> Result<Vec<(String, String)>, Failure> {
    let one = |text: &String| values::assignment(text).map(|(k, v)| (k, v.unwrap_or_default()));
    args.label.iter().map(|t| one(t).map_err(|e| flag_error("--label", &e))).collect()
}

fn pairs(flag: &str, given: &[String]) -> Result<Vec<(String, String)>, Failure> {
    given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.into(), value.into())),
            _ => Err(flag_error(flag, &ValueError::form("NAME=VALUE", text))),
        })
        .collect()
}

/// `--platform`: each one once, in order.
fn platforms(args: &BuildArgs) -> Result<Vec<Platform>, Failure> {
    let mut platforms: Vec<Platform> = Vec::new();
    for platform in &args.platform {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    if platforms.len() > 1 && args.output.iter().any(|o| matches!(o, Output::Docker(_))) {
        return Err(Failure::usage("type=docker holds an image for one platform only").hint("write type=oci, or name one platform"));
    }
    Ok(platforms)
}

fn outputs(args: &BuildArgs, env: &Environment) -> Result<Vec<Output>, Failure> {
    let mut outputs = args.output.clone();
    if args.load && !outputs.iter().any(|o| matches!(o, Output::Image(_))) {
        outputs.push(Output::Image(PushOutput::default()));
    }
    if args.push && !outputs.iter().any(|o| matches!(o, Output::Registry(_))) {
        // As with buildx: an image output is what is pushed, in its form.
        let image = outputs.iter().find_map(|o| if let Output::Image(image) = o { Some(image.clone()) } else { None });
        outputs.push(Output::Registry(image.unwrap_or_default()));
    }
    let streams = outputs.iter().filter(|o| to_stdout(o)).count();
    if streams > 1 {
        return Err(Failure::usage("only one output can go to standard output").hint("add dest=FILE to the others"));
    }
    if streams == 1 && env.terminals.stdout {
        return Err(Failure::usage("an archive is not written to a terminal").hint("add dest=FILE, or redirect standard output"));
    }
    Ok(outputs)
}

/// Returns whether an output's bytes go to standard output, so that nothing else may.
pub fn to_stdout(output: &Output) -> bool {
    matches!(
        output,
        Output::Tar(Destination::Stdout, _)
            | Output::Oci(ArchiveOutput { dest: Destination::Stdout, .. })
            | Output::Docker(ArchiveOutput { dest: Destination::Stdout, .. })
    )
}

/// Reads `--secret`: without `src` and `env`, a variable of the secret's name, else a file of that name.
fn secret(text: &str, env: &Environment) -> Result<Secret, Failure> {
    let bad = |e: ValueError| flag_error("--secret", &e);
    let (mut id, mut kind, mut file, mut variable) = (String::new(), None, None, None);
    for (key, value) in values::fields(text).map_err(bad)? {
        let value = value.ok_or_else(|| bad(ValueError::form("KEY=VALUE fields", text)))?;
        match key.as_str() {
            "id" => id = value,
            "type" if value == "file" || value == "env" => kind = Some(value),
            "type" => return Err(bad(ValueError::form("type=file or type=env", &value))),
            "src" | "source" => file = Some(value),
            "env" => variable = Some(value),
            _ => return Err(bad(ValueError::Field { nearest: values::nearest(&key, &["id", "type", "src", "source", "env"]), key })),
        }
    }
    if id.is_empty() {
        return Err(bad(ValueError::form("id=ID[,src=FILE|,env=NAME]", text)));
    }
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = file.take();
    }
    if variable.is_none() && file.is_none() && kind.as_deref() != Some("file") && env.variable(&id).is_some() {
        variable = Some(id.clone());
    }
    if let Some(name) = variable {
        // An unset variable gives an empty secret, as with buildx.
        let value = env.variable(&name).map(|v| v.as_bytes().to_vec()).unwrap_or_default();
        return Ok(Secret { id, source: SecretSource::Value(value) });
    }
    let path = PathBuf::from(file.unwrap_or_else(|| id.clone()));
    if let Err(error) = std::fs::metadata(env.directory.join(&path)) {
        return Err(Failure::message(format!("--secret {id}: opening `{}`: {error}", path.display())));
    }
    Ok(Secret { id, source: SecretSource::File(path) })
}

/// Reads all `--ssh`; an id counts once. The caller's agent comes besides, where a context is a repository reached by ssh
/// (as with buildx).
fn agents(args: &BuildArgs, env: &Environment) -> Result<Vec<(String, Vec<PathBuf>)>, Failure> {
    let mut agents: Vec<(String, Vec<PathBuf>)> = Vec::new();
    for text in &args.ssh {
        let (id, paths) = ssh(text, env)?;
        if agents.iter().any(|(known, _)| *known == id) {
            return Err(Failure::usage(format!("--ssh {id} is given twice")).hint("several keys of one id go into one flag: ID=KEY,KEY"));
        }
        agents.push((id, paths));
    }
    let named = args.build_context.iter().filter_map(|c| c.split_once('=')).map(|(_, value)| value);
    let by_ssh = std::iter::once(args.context.as_str()).chain(named).any(|c| c.starts_with("ssh://") || is_scp(c));
    if by_ssh && !agents.iter().any(|(id, _)| id == "default") && env.variable("SSH_AUTH_SOCK").is_some() {
        agents.push(ssh("default", env)?);
    }
    Ok(agents)
}

/// Tells whether a text is `user@host:path`.
fn is_scp(text: &str) -> bool {
    !text.contains("://") && matches!(GitAddress::parse(text), Ok(Some(_)))
}

/// Reads `--ssh ID[=PATH[,PATH]]`: one agent's socket, or private keys; without a path, the caller's agent.
fn ssh(text: &str, env: &Environment) -> Result<(String, Vec<PathBuf>), Failure> {
    use std::os::unix::fs::FileTypeExt as _;
    let (id, paths) = text.split_once('=').unwrap_or((text, ""));
    let id = if id.is_empty() { "default" } else { id };
    let mut paths: Vec<PathBuf> = paths.split(',').filter(|p| !p.is_empty()).map(PathBuf::from).collect();
    if paths.is_empty() {
        let agent = env.variable("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).ok_or_else(|| {
            Failure::usage(format!("--ssh {id}: no agent to forward, SSH_AUTH_SOCK is not set"))
                .hint("start one with ssh-agent, or name a key: --ssh default=PATH")
        })?;
        paths.push(agent.into());
    }
    if let Some(option) = paths.iter().find(|path| path.to_str().is_some_and(|p| p.starts_with("raw="))) {
        return Err(Failure::usage(format!("--ssh {id}: `{}` is not supported: only agents are offered to steps", option.display())));
    }
    let mut sockets = 0;
    for path in &paths {
        let meta = std::fs::metadata(env.directory.join(path))
            .map_err(|e| Failure::message(format!("--ssh {id}: opening `{}`: {e}", path.display())))?;
        sockets += usize::from(meta.file_type().is_socket());
    }
    if sockets > 0 && paths.len() > 1 {
        return Err(Failure::usage(format!("--ssh {id}: an agent's socket stands alone")).hint("give either one socket, or keys"));
    }
    Ok((id.into(), paths))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::environment::tests::with;
    use crate::engine::request::PlatformSplit;
    use crate::engine::request::Purpose;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        build: BuildArgs,
    }

    fn request(line: &[&str], vars: &[(&str, &str)]) -> Result<BuildRequest, String> {
        let parsed = Line::try_parse_from([&["build"], line].concat()).map_err(|e| e.to_string())?;
        make(&parsed.build, &with(vars)).map(|(r, _)| r).map_err(|f| f.diagnostics[0].message.clone())
    }

    #[test]
    fn build_args_take_the_last_value_or_the_callers_variable() {
        let line = ["--build-arg", "A=1", "--build-arg", "A=2", "--build-arg", "B", "--build-arg", "C", "--build-arg", "D=", "."];
        let got = request(&line, &[("B", "from env"), ("SOURCE_DATE_EPOCH", "5")]).unwrap();
        let want = [("A", "2"), ("B", "from env"), ("D", ""), ("SOURCE_DATE_EPOCH", "5")];
        assert_eq!(got.build_args, want.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(got.build_args.get(EPOCH).map(String::as_str), Some("5"));
        let got = request(&["--build-arg", "SOURCE_DATE_EPOCH=7", "."], &[("SOURCE_DATE_EPOCH", "5")]).unwrap();
        assert_eq!(got.build_args.get(EPOCH).map(String::as_str), Some("7"));
    }

    #[test]
    fn the_context_and_dockerfile_are_told_apart() {
        use ContextSource as C;
        use DockerfileSource as D;
        let cases: [(&[&str], C, D); 6] = [
            (&["."], C::Directory(".".into()), D::Default),
            (&["-"], C::Stdin, D::Default),
            (&["-f", "-", "ctx"], C::Directory("ctx".into()), D::Stdin),
            (&["-f", "a/Dockerfile", "."], C::Directory(".".into()), D::Path("a/Dockerfile".into())),
            (&["https://x.example/a.git#main:sub"], C::Url("https://x.example/a.git#main:sub".into()), D::Default),
            (&["git@x.example:a/b"], C::Url("git@x.example:a/b".into()), D::Default),
        ];
        for (line, context, dockerfile) in cases {
            let got = request(line, &[]).unwrap();
            assert_eq!((got.context, got.dockerfile), (context, dockerfile), "{line:?}");
        }
        assert!(request(&["-f", "-", "-"], &[]).unwrap_err().contains("both the context and the Dockerfile"));
    }

    #[test]
    fn secrets_come_from_variables_or_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        let with_src = format!("id=a,src={path}");
        let value = |v: &str| SecretSource::Value(v.as_bytes().to_vec());
        let cases: [(&str, SecretSource); 5] = [
            ("id=a,env=TOK", value("t0")),
            ("id=a,type=env,src=TOK", value("t0")),
            ("id=TOK", value("t0")),
            ("id=a,env=UNSET", value("")),
            (&with_src, SecretSource::File(path.into())),
        ];
        for (spec, source) in cases {
            let got = request(&["--secret", spec, "."], &[("TOK", "t0")]).unwrap();
            assert_eq!(got.secrets[0].source, source, "{spec}");
        }
        for (bad, want) in
            [("src=x", "expected id=ID"), ("id=a,sorce=x", "did you mean `source`"), ("id=nope", "opening `nope`"), ("id", "KEY=VALUE")]
        {
            let got = request(&["--secret", bad, "."], &[]).unwrap_err();
            assert!(got.contains(want), "{bad}: {got}");
        }
    }

    #[test]
    fn an_ssh_id_stands_for_one_agent_or_for_keys() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let text = |name: &str| path(name).to_str().unwrap().to_owned();
        let _agent = std::os::unix::net::UnixListener::bind(path("agent")).unwrap();
        for key in ["a", "b"] {
            std::fs::write(path(key), "").unwrap();
        }
        let got = request(&["--ssh", "default", "."], &[("SSH_AUTH_SOCK", &text("agent"))]).unwrap();
        assert_eq!(got.ssh, [("default".to_owned(), vec![path("agent")])]);
        let got = request(&["--ssh", &format!("k={},{}", text("a"), text("b")), "."], &[]).unwrap();
        assert_eq!(got.ssh, [("k".to_owned(), vec![path("a"), path("b")])]);
        let agent = text("agent");
        for (given, want) in [
            (vec!["default".to_owned()], "SSH_AUTH_SOCK is not set"),
            (vec![format!("k={}", text("none"))], "opening `"),
            (vec![format!("k={agent},{}", text("a"))], "stands alone"),
            (vec![format!("k={agent},raw=true")], "`raw=true` is not supported"),
            (vec![format!("k={agent}"), format!("k={}", text("a"))], "--ssh k is given twice"),
        ] {
            let line: Vec<&str> = given.iter().flat_map(|g| ["--ssh", g]).chain(["."]).collect();
            let error = request(&line, &[]).unwrap_err();
            assert!(error.contains(want), "{given:?}: {error}");
        }
    }

    #[test]
    fn load_adds_the_store_to_the_outputs() {
        let got = request(&["--load", "-o", "type=tar,dest=x", "."], &[]).unwrap();
        assert_eq!(
            got.outputs,
            [Output::Tar(Destination::Path("x".into()), PlatformSplit::WhenSeveral), Output::Image(PushOutput::default())]
        );
        assert_eq!(request(&["."], &[]).unwrap().outputs, []);
        assert!(request(&["-o", "-", "-o", "type=oci", "."], &[]).unwrap_err().contains("only one output"));
    }

    #[test]
    fn platforms_are_taken_once_and_in_order() {
        let got = request(&["--platform", "linux/arm64,linux/amd64", "--platform", "linux/x86_64", "."], &[]).unwrap();
        assert_eq!(got.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(), ["linux/arm64", "linux/amd64"]);
        let line = ["--platform", "linux/arm64,linux/amd64", "-o", "type=docker,dest=x", "."];
        assert_eq!(request(&line, &[]).unwrap_err(), "type=docker holds an image for one platform only");
    }

    #[test]
    fn unknown_flags_name_the_nearest() {
        let got = request(&["--no-cahce", "."], &[]).unwrap_err();
        assert!(got.contains("--no-cache"), "{got}");
    }

    #[test]
    fn every_flag_of_the_help_is_read() {
        let line = [
            "-t",
            "a:1",
            "-t",
            "b",
            "-f",
            "x.Dockerfile",
            "--build-context",
            "base=host:sh,ls",
            "--target",
            "t",
            "--platform",
            "linux/arm64",
            "--label",
            "k=v",
            "--no-cache",
            "--no-cache-filter",
            "a,b",
            "--pull",
            "--iidfile",
            "i",
            "--metadata-file",
            "m",
            "--network",
            "none",
            "--allow",
            "network.host",
            "--add-host",
            "h=1.2.3.4",
            "--shm-size",
            "32m",
            "--ulimit",
            "nofile=5:6",
            "--progress",
            "plain",
            "-q",
            "--check",
            "--require-isolation=full",
            "-j",
            "2",
            "--provenance=false",
            "--rm",
            ".",
        ];
        let got = request(&line, &[]).unwrap();
        assert_eq!(got.tags, ["a:1", "b"]);
        assert_eq!(got.build_contexts, [("base".to_owned(), "host:sh,ls".to_owned())]);
        assert_eq!(got.no_cache_filter, ["a", "b"]);
        assert_eq!((got.no_cache, got.pull, got.require_full_isolation, got.jobs), (true, true, true, Some(2)));
        assert_eq!(got.purpose, Purpose::Check);
        assert_eq!((got.shm_size_bytes, got.ulimits), (Some(32 << 20), vec![("nofile".to_owned(), 5, 6)]));
        assert_eq!(got.labels, [("k".to_owned(), "v".to_owned())]);
    }
}
