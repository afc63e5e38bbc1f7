//! A container as asked for: plain values, made once in `cli`, and the parsers of docker's flag values. Pure.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::sandbox::{Network, Rlimit, defaults};

/// Everything that `ply run` was told, the image excepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRequest {
    /// What follows the image.
    pub args: Vec<OsString>,
    /// `--entrypoint`; empty: none, also not the image's.
    pub entrypoint: Option<String>,
    /// `--env-file` and `-e` in this order; names without value were taken from the environment, or left out.
    pub env: Vec<(String, String)>,
    /// `-u`.
    pub user: Option<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--network`.
    pub network: Network,
    /// `-i`: standard input is connected.
    pub interactive: bool,
    /// `-t`: a terminal.
    pub tty: bool,
    /// `--read-only`.
    pub read_only: bool,
    /// `--privileged`: all capabilities, no filter, nothing masked.
    pub privileged: bool,
    /// `--security-opt no-new-privileges`.
    pub no_new_privileges: bool,
    /// `-v`, `--mount`, `--tmpfs`, in order.
    pub volumes: Vec<Volume>,
    /// `--add-host`: name and address.
    pub add_hosts: Vec<(String, String)>,
    /// `--name`.
    pub name: Option<String>,
    /// `--rm`.
    pub remove: bool,
    /// `--shm-size`.
    pub shm_size_bytes: u64,
    /// `--ulimit`.
    pub rlimits: Vec<Rlimit>,
}

impl Default for RunRequest {
    fn default() -> Self {
        Self {
            args: Vec::new(),
            entrypoint: None,
            env: Vec::new(),
            user: None,
            workdir: None,
            hostname: None,
            network: Network::Host,
            interactive: false,
            tty: false,
            read_only: false,
            privileged: false,
            no_new_privileges: false,
            volumes: Vec::new(),
            add_hosts: Vec::new(),
            name: None,
            remove: false,
            shm_size_bytes: defaults::SHM_SIZE_BYTES,
            rlimits: Vec::new(),
        }
    }
}

/// Something of the host, or memory, in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What.
    pub source: VolumeSource,
    /// Where, absolute and clean.
    pub target: String,
    /// Cannot be written.
    pub readonly: bool,
}

/// What a volume shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A file or directory of the host.
    Bind {
        /// Absolute, or relative to the working directory.
        path: PathBuf,
        /// Made as a directory when missing, as `-v` does and `--mount` doesn't.
        create: bool,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Its size; none: the kernel's default.
        size_bytes: Option<u64>,
        /// Its mode.
        mode: u32,
    },
}

/// A flag's value that docker refuses, or that is not supported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ValueError {
    #[error("`{0}` is no volume: expected HOST-PATH:PATH[:ro]")]
    Volume(String),
    #[error("named and anonymous volumes are not supported (`{0}`): give a path of the host, starting with `/` or `.`")]
    NamedVolume(String),
    #[error("mount target `{0}` is not an absolute path, or is the root")]
    Target(String),
    #[error("unknown volume option `{0}`")]
    VolumeOption(String),
    #[error("`{key}` in mount `{text}`: {problem}")]
    Mount { text: String, key: String, problem: &'static str },
    #[error("line {line} of the environment file: `{text}` is no variable")]
    EnvFile { line: usize, text: String },
}

const TMPFS_MODE: u32 = 0o1777;

/// Parses `-v HOST-PATH:PATH[:OPTIONS]`.
pub fn parse_volume(text: &str) -> Result<Volume, ValueError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        [only] if only.starts_with('/') => return Err(ValueError::NamedVolume(only.into())),
        _ => return Err(ValueError::Volume(text.into())),
    };
    if source.is_empty() {
        return Err(ValueError::Volume(text.into()));
    }
    if !source.starts_with(['/', '.']) {
        return Err(ValueError::NamedVolume(source.into()));
    }
    let mut readonly = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "readonly" => readonly = true,
            // Labels of SELinux, and propagation: mounts are private here, which is docker's default.
            "rw" | "z" | "Z" | "rprivate" | "private" | "cached" | "delegated" | "consistent" => {}
            other => return Err(ValueError::VolumeOption(other.into())),
        }
    }
    Ok(Volume { source: VolumeSource::Bind { path: source.into(), create: true }, target: checked_target(target)?, readonly })
}

/// Parses `--tmpfs PATH[:OPTIONS]`.
pub fn parse_tmpfs(text: &str) -> Result<Volume, ValueError> {
    let (target, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut size_bytes, mut mode, mut readonly) = (None, TMPFS_MODE, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let unknown = || ValueError::VolumeOption(option.into());
        match option.split_once('=') {
            Some(("size", value)) => size_bytes = Some(parse_bytes(value).ok_or_else(unknown)?),
            Some(("mode", value)) => mode = u32::from_str_radix(value, 8).map_err(|_| unknown())?,
            None if option == "ro" => readonly = true,
            None if matches!(option, "rw" | "nosuid" | "nodev" | "noexec" | "exec") => {}
            _ => return Err(unknown()),
        }
    }
    Ok(Volume { source: VolumeSource::Tmpfs { size_bytes, mode }, target: checked_target(target)?, readonly })
}

/// Parses `--mount type=bind|tmpfs,…`.
pub fn parse_mount(text: &str) -> Result<Volume, ValueError> {
    let wrong = |key: &str, problem| ValueError::Mount { text: text.into(), key: key.into(), problem };
    let (mut kind, mut source, mut target, mut readonly) = ("volume", None, None, false);
    let (mut size_bytes, mut mode, mut create) = (None, TMPFS_MODE, false);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        let needed = value.filter(|value| !value.is_empty()).ok_or_else(|| wrong(key, "a value is needed"));
        match key {
            "type" => kind = needed?,
            "source" | "src" => source = Some(needed?),
            "target" | "destination" | "dst" => target = Some(needed?),
            "readonly" | "ro" => readonly = flag(value).ok_or_else(|| wrong(key, "true or false"))?,
            "bind-create-src" => create = flag(value).ok_or_else(|| wrong(key, "true or false"))?,
            "tmpfs-size" => size_bytes = Some(parse_bytes(needed?).ok_or_else(|| wrong(key, "no size"))?),
            "tmpfs-mode" => mode = u32::from_str_radix(needed?, 8).map_err(|_| wrong(key, "no octal mode"))?,
            "bind-propagation" if matches!(value, Some("private" | "rprivate")) => {}
            "consistency" => {}
            _ => return Err(wrong(key, "unknown, or not supported")),
        }
    }
    let target = checked_target(target.ok_or_else(|| wrong("target", "missing"))?)?;
    let source = match (kind, source) {
        ("bind", Some(path)) => VolumeSource::Bind { path: path.into(), create },
        ("bind", None) => return Err(wrong("source", "missing")),
        ("tmpfs", None) => VolumeSource::Tmpfs { size_bytes, mode },
        ("tmpfs", Some(_)) => return Err(wrong("source", "a tmpfs has none")),
        _ => return Err(wrong("type", "only bind and tmpfs are supported")),
    };
    Ok(Volume { source, target, readonly })
}

fn flag(value: Option<&str>) -> Option<bool> {
    match value {
        None | Some("true" | "1") => Some(true),
        Some("false" | "0") => Some(false),
        Some(_) => None,
    }
}

fn checked_target(target: &str) -> Result<String, ValueError> {
    let clean = Some(target).filter(|target| !target.is_empty()).and_then(super::process::clean);
    clean.filter(|target| target != "/").ok_or_else(|| ValueError::Target(target.into()))
}

/// Parses docker's sizes: a number, and `b`, `k`, `m`, `g` or `t` (of 1024), with or without `b` or `ib` behind.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Parses an environment file: a variable a line, `#` lines and empty ones left out. A name without `=` takes its
/// value from `outside`, or is left out.
pub fn parse_env_file(text: &str, outside: impl Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, ValueError> {
    let mut variables = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value.to_string())));
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(ValueError::EnvFile { line: number + 1, text: line.into() });
        }
        if let Some(value) = value.or_else(|| outside(name)) {
            variables.push((name.into(), value));
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &str, create: bool, target: &str, readonly: bool) -> Volume {
        Volume { source: VolumeSource::Bind { path: path.into(), create }, target: target.into(), readonly }
    }

    #[test]
    fn volumes_are_paths_of_the_host() {
        let named = |text: &str| Err(ValueError::NamedVolume(text.into()));
        for (text, want) in [
            ("/a:/b", Ok(bind("/a", true, "/b", false))),
            ("./a:/b/../c/:ro,z", Ok(bind("./a", true, "/c", true))),
            ("data:/b", named("data")),
            ("/b", named("/b")),
            ("b", Err(ValueError::Volume("b".into()))),
            (":/b", Err(ValueError::Volume(":/b".into()))),
            ("/a:b", Err(ValueError::Target("b".into()))),
            ("/a:/", Err(ValueError::Target("/".into()))),
            ("/a:/b:rshared", Err(ValueError::VolumeOption("rshared".into()))),
        ] {
            assert_eq!(parse_volume(text), want, "{text}");
        }
    }

    #[test]
    fn mounts_are_fields() {
        let tmpfs = |size_bytes, mode| Volume { source: VolumeSource::Tmpfs { size_bytes, mode }, target: "/t".into(), readonly: false };
        for (text, want) in [
            ("type=bind,src=/a,dst=/b,ro", bind("/a", false, "/b", true)),
            ("type=bind,source=a,target=/b,readonly=false", bind("a", false, "/b", false)),
            ("type=tmpfs,destination=/t", tmpfs(None, 0o1777)),
            ("type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=700", tmpfs(Some(2 << 20), 0o700)),
        ] {
            assert_eq!(parse_mount(text), Ok(want), "{text}");
        }
        assert_eq!(parse_tmpfs("/t:size=2m,mode=700"), Ok(tmpfs(Some(2 << 20), 0o700)));
        for (text, key, problem) in [
            ("type=bind,dst=/b", "source", "missing"),
            ("type=bind,src=/a", "target", "missing"),
            ("src=x,dst=/b", "type", "only bind and tmpfs are supported"),
            ("type=bind,src=/a,dst=/b,bind-propagation=shared", "bind-propagation", "unknown, or not supported"),
            ("type=bind,src=,dst=/b", "src", "a value is needed"),
        ] {
            let want = ValueError::Mount { text: text.into(), key: key.into(), problem };
            assert_eq!(parse_mount(text), Err(want), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, want) in [
            ("64", Some(64)),
            ("64b", Some(64)),
            ("1k", Some(1024)),
            ("2Mb", Some(2 << 20)),
            ("1GiB", Some(1 << 30)),
            ("", None),
            ("m", None),
            ("1x", None),
            ("99999999t", None),
        ] {
            assert_eq!(parse_bytes(text), want, "{text}");
        }
    }

    #[test]
    fn environment_files_are_lines() {
        let outside = |name: &str| (name == "HERE").then(|| "yes".to_string());
        let text = "# c\n\nA=1\n  B = 2\nHERE\nNOT_HERE\nQ=\"x y\"\n";
        assert_eq!(parse_env_file(text, outside), Err(ValueError::EnvFile { line: 4, text: "B = 2".into() }));
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
        let text = text.replace("B = 2", "B= 2");
        assert_eq!(parse_env_file(&text, outside), Ok(pairs(&[("A", "1"), ("B", " 2"), ("HERE", "yes"), ("Q", "\"x y\"")])));
    }
}
