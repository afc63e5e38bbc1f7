//! `RUN --mount`: its keys, which belong to which type, and their values.
//!
//! Only the flag's own text is judged here; what `from` names and where a relative target lies is the caller's to find.
//! What a newcomer would get wrong: keys are read in order, so `required` counts only after `type=secret`.

use crate::dockerfile::suggest;

use super::Sharing;

/// `type=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MountType {
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

impl MountType {
    pub(super) fn name(self) -> &'static str {
        TYPES[self as usize]
    }
}

/// A mount as written, its values expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountText {
    pub kind: MountType,
    pub from: Option<String>,
    pub source: String,
    pub target: String,
    pub readonly: bool,
    pub size_bytes: Option<u64>,
    pub id: String,
    pub sharing: Option<Sharing>,
    pub required: bool,
    pub env: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Returns what the `from` of a flag says; it is never expanded, so it is known before all else.
pub(super) fn from_of(fields: &[(String, Option<String>)]) -> Option<&str> {
    let from = fields.iter().rfind(|(key, _)| key.eq_ignore_ascii_case("from"))?;
    from.1.as_deref().filter(|name| !name.is_empty())
}

/// A flag that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountError {
    /// Names the key or value that is wrong.
    pub message: String,
    /// The field that is wrong; none: what they say together.
    pub field: Option<usize>,
}

/// Reads a flag's fields, whose values were expanded (but `from`).
pub(super) fn read(fields: &[(String, Option<String>)]) -> Result<MountText, MountError> {
    let mut mount = MountText {
        kind: MountType::Bind,
        from: None,
        source: String::new(),
        target: String::new(),
        readonly: false,
        size_bytes: None,
        id: String::new(),
        sharing: None,
        required: false,
        env: None,
        mode: None,
        uid: None,
        gid: None,
    };
    let mut readonly = None;
    for (field, (key, value)) in fields.iter().enumerate() {
        let key = key.to_lowercase();
        let set = match value {
            Some(value) => mount.set(&key, value, &mut readonly),
            None => mount.set_bare(&key, &mut readonly),
        };
        set.map_err(|message| MountError { message, field: Some(field) })?;
    }
    mount.readonly = readonly.unwrap_or(!matches!(mount.kind, MountType::Cache | MountType::Tmpfs));
    let of = |key: &str| fields.iter().rposition(|(known, _)| known.eq_ignore_ascii_case(key));
    mount.check().map_err(|(message, key)| MountError { message, field: key.and_then(of) })?;
    Ok(mount)
}

impl MountText {
    fn set_bare(&mut self, key: &str, readonly: &mut Option<bool>) -> Result<(), String> {
        match key {
            "readonly" | "ro" => *readonly = Some(true),
            "readwrite" | "rw" => *readonly = Some(false),
            "required" => self.require("true")?,
            _ => return Err(format!("invalid mount field `{key}`: it must be a key=value pair{}", suggested(key, &KEYS))),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str, readonly: &mut Option<bool>) -> Result<(), String> {
        match key {
            "type" => self.kind = mount_type(value)?,
            "from" => self.from = Some(value.to_string()).filter(|f| !f.is_empty()),
            "source" | "src" => self.source = value.to_string(),
            "target" | "dst" | "destination" => self.target = value.to_string(),
            "readonly" | "ro" => *readonly = Some(boolean(key, value)?),
            "readwrite" | "rw" => *readonly = Some(!boolean(key, value)?),
            "required" => self.require(value)?,
            "size" if self.kind == MountType::Tmpfs => {
                let bytes = size_bytes(value).ok_or_else(|| format!("invalid value for mount key size: `{value}`"))?;
                self.size_bytes = Some(bytes).filter(|b| *b > 0);
            }
            "size" => return Err(self.unexpected(key)),
            "id" => self.id = value.to_string(),
            "sharing" => self.sharing = Some(sharing(value)?),
            "mode" => self.mode = Some(u32::from_str_radix(value, 8).map_err(|_| format!("invalid value `{value}` for mount key mode"))?),
            "uid" => self.uid = Some(number(key, value)?),
            "gid" => self.gid = Some(number(key, value)?),
            "env" => self.env = Some(value.to_string()),
            _ => return Err(format!("unexpected mount key `{key}` in `{key}={value}`{}", suggested(key, &KEYS))),
        }
        Ok(())
    }

    fn require(&mut self, value: &str) -> Result<(), String> {
        if !matches!(self.kind, MountType::Secret | MountType::Ssh) {
            return Err(self.unexpected("required"));
        }
        self.required = boolean("required", value)?;
        Ok(())
    }

    fn unexpected(&self, key: &str) -> String {
        format!("unexpected mount key `{key}` for type `{}`", self.kind.name())
    }

    /// Checks what only shows when all keys are known. Errors: a message, and the key that it is about.
    fn check(&self) -> Result<(), (String, Option<&'static str>)> {
        let kind = self.kind;
        if matches!(kind, MountType::Bind | MountType::Tmpfs) {
            for (key, given) in [("mode", self.mode.is_some()), ("uid", self.uid.is_some()), ("gid", self.gid.is_some())] {
                if given {
                    return Err((format!("mount key `{key}` is not allowed for type `{}`", kind.name()), Some(key)));
                }
            }
        }
        let nothing_named = self.source.is_empty() && self.target.is_empty() && self.id.is_empty();
        match kind {
            MountType::Secret if self.from.is_some() => Err(("a secret mount should not have a `from`".into(), Some("from"))),
            MountType::Secret if self.sharing.is_some() => Err(("a secret mount should not define `sharing`".into(), Some("sharing"))),
            MountType::Secret if nothing_named => Err(("invalid secret mount: one of id, source and target is required".into(), None)),
            MountType::Secret if !self.source.is_empty() && !self.id.is_empty() => {
                let message =
                    format!("both source (`{}`) and id (`{}`) of a secret mount are set, which are one thing", self.source, self.id);
                Err((message, Some("id")))
            }
            MountType::Ssh if !self.source.is_empty() => Err(("an ssh mount does not support `source`".into(), Some("source"))),
            MountType::Cache => Ok(()),
            _ if self.sharing.is_some() => {
                Err((format!("invalid mount key `sharing`: only cache mounts have it, this is a {} mount", kind.name()), Some("sharing")))
            }
            _ => Ok(()),
        }
    }
}

fn suggested(word: &str, known: &[&str]) -> String {
    suggest::nearest(word, known.iter().copied()).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}

fn mount_type(value: &str) -> Result<MountType, String> {
    match value.to_lowercase().as_str() {
        "bind" => Ok(MountType::Bind),
        "cache" => Ok(MountType::Cache),
        "tmpfs" => Ok(MountType::Tmpfs),
        "secret" => Ok(MountType::Secret),
        "ssh" => Ok(MountType::Ssh),
        _ => Err(format!("unsupported mount type `{value}`{}", suggested(value, &TYPES))),
    }
}

fn sharing(value: &str) -> Result<Sharing, String> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => Err(format!("unsupported mount sharing `{value}`{}", suggested(value, &SHARINGS))),
    }
}

/// Go's `strconv.ParseBool`.
fn boolean(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("invalid value for mount key {key}: `{value}` is neither true nor false")),
    }
}

fn number(key: &str, value: &str) -> Result<u32, String> {
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    value.parse().ok().filter(|_| digits).ok_or_else(|| format!("invalid value `{value}` for mount key {key}"))
}

/// Reads `64`, `64k`, `1.5 GiB`: units of 1024, as docker/go-units does.
fn size_bytes(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(power);
    // Exact up to 2^53, saturating beyond: nobody has that much memory.
    (bytes.is_finite() && bytes < i64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Vec<(String, Option<String>)> {
        text.split(',')
            .map(|f| match f.split_once('=') {
                Some((k, v)) => (k.to_string(), Some(v.to_string())),
                None => (f.to_string(), None),
            })
            .collect()
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, want) in [
            ("type=tmp", "unsupported mount type `tmp` (did you mean `tmpfs`?)"),
            ("typ=tmpfs", "unexpected mount key `typ` in `typ=tmpfs` (did you mean `type`?)"),
            ("target", "invalid mount field `target`: it must be a key=value pair"),
            ("required,type=secret", "unexpected mount key `required` for type `bind`"),
            ("size=1", "unexpected mount key `size` for type `bind`"),
            ("mode=700", "mount key `mode` is not allowed for type `bind`"),
            ("type=tmpfs,uid=1", "mount key `uid` is not allowed for type `tmpfs`"),
            ("type=cache,mode=9", "invalid value `9` for mount key mode"),
            ("ro=maybe", "invalid value for mount key ro: `maybe` is neither true nor false"),
            ("sharing=shared", "invalid mount key `sharing`: only cache mounts have it, this is a bind mount"),
            ("type=cache,sharing=lock", "unsupported mount sharing `lock` (did you mean `locked`?)"),
            ("type=secret", "invalid secret mount: one of id, source and target is required"),
            ("type=secret,id=a,source=b", "both source (`b`) and id (`a`) of a secret mount are set, which are one thing"),
            ("type=ssh,source=x", "an ssh mount does not support `source`"),
        ] {
            assert_eq!(read(&fields(text)).unwrap_err().message, want, "{text}");
        }
    }

    #[test]
    fn read_only_depends_on_the_type() {
        for (text, want) in [
            ("target=/x", true),
            ("target=/x,rw", false),
            ("type=cache,target=/x", false),
            ("type=cache,target=/x,ro", true),
            ("type=tmpfs,target=/x", false),
            ("target=/x,readwrite=false", true),
        ] {
            assert_eq!(read(&fields(text)).unwrap().readonly, want, "{text}");
        }
    }

    #[test]
    fn the_field_that_is_wrong_is_found() {
        for (text, field) in [
            ("target=/x,typ=tmpfs", Some(1)),
            ("type=tmpfs,target=/x,mode=7", Some(2)),
            ("type=secret,target=/x,sharing=private,id=a", Some(2)),
            ("type=secret", None),
        ] {
            assert_eq!(read(&fields(text)).unwrap_err().field, field, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, want) in
            [("64", Some(64)), ("1k", Some(1024)), ("1.5 MiB", Some(1_572_864)), ("2GB", Some(2 << 30)), ("x", None), ("-1", None)]
        {
            assert_eq!(size_bytes(text), want, "{text}");
        }
    }
}
