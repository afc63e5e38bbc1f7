//! `--cache-from` and `--cache-to`, in docker's comma-separated form.
//!
//! `user/app:cache` alone is `type=registry,ref=user/app:cache`. What docker's caches have and ours have not (`gha`, `s3`,
//! `azblob`, digests of a local cache) is refused rather than left out: a CI that believes in its cache should know.

use std::path::{Path, PathBuf};

use crate::cli::build::BuildArgs;
use crate::cli::build::request::flag_error;
use crate::cli::environment::Environment;
use crate::cli::failure::Failure;
use crate::cli::packing::PackingAttributes;
use crate::cli::values::{ValueError, boolean, fields, nearest};
use crate::engine::request::{CacheLocation, CacheMode, CacheTo, MediaTypes, Packing};
use crate::image::reference::Reference;

const FROM: [&str; 6] = ["type", "ref", "src", "tag", "digest", "registry.insecure"];
const TO: [&str; 13] = [
    "type",
    "ref",
    "dest",
    "mode",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "image-manifest",
    "ignore-error",
    "registry.insecure",
    "tag",
    "name",
];
const NOT_OURS: &str = ": a registry or a directory serves in its place (type=registry, type=local)";

/// Reads all `--cache-from`.
pub fn all_from(args: &BuildArgs, env: &Environment) -> Result<Vec<CacheLocation>, Failure> {
    let given = args.cache_from.iter().filter(|t| !t.is_empty());
    given.map(|t| from(t, &env.directory).map_err(|e| flag_error("--cache-from", &e))).collect()
}

/// Reads all `--cache-to`; `BUILDKIT_INLINE_CACHE` as a build argument is docker's older word for `type=inline`.
pub fn all_to(args: &BuildArgs, env: &Environment) -> Result<Vec<CacheTo>, Failure> {
    let old = args.build_arg.iter().rev().find_map(|a| a.strip_prefix("BUILDKIT_INLINE_CACHE="));
    let old = old.filter(|v| boolean(v).unwrap_or(false)).map(|_| "inline");
    let given = args.cache_to.iter().map(String::as_str).filter(|t| !t.is_empty()).chain(old);
    given.map(|t| to(t, &env.directory).map_err(|e| flag_error("--cache-to", &e))).collect()
}

/// Reads `--cache-mounts`: without ids all.
pub fn mounts(args: &BuildArgs) -> Result<Option<Vec<String>>, Failure> {
    if args.cache_mounts.is_some() && args.cache_to.is_empty() && args.cache_from.is_empty() {
        return Err(Failure::usage("--cache-mounts says what goes through --cache-to and --cache-from, and there is neither"));
    }
    Ok(args.cache_mounts.as_ref().map(|ids| ids.iter().filter(|id| !id.is_empty()).cloned().collect()))
}

/// Reads one `--cache-from`; `here` is the working directory.
fn from(text: &str, here: &Path) -> Result<CacheLocation, ValueError> {
    let fields = fields(text)?;
    if let [(_, None)] = fields.as_slice() {
        return reference(text);
    }
    refuse_foreign(&fields)?;
    let (mut kind, mut name, mut src) = (None, None, None);
    for (key, value) in fields {
        let Some(value) = value else { return Err(ValueError::form("KEY=VALUE fields", &key)) };
        match key.as_str() {
            "type" => kind = Some(value.to_lowercase()),
            "ref" => name = Some(value),
            "src" => src = Some(value),
            "registry.insecure" => drop(boolean(&value)?),
            _ if FROM.contains(&key.as_str()) => return Err(ValueError::Unsupported(format!("`{key}={value}`"), "")),
            _ => return Err(ValueError::Field { nearest: nearest(&key, &FROM), key }),
        }
    }
    match (kind.as_deref(), name, src) {
        (Some("registry"), Some(name), None) => reference(&name),
        (Some("registry"), ..) => Err(ValueError::form("ref=NAME with type=registry", text)),
        (Some("local"), None, Some(dir)) if !dir.is_empty() => Ok(CacheLocation::Directory(directory(&dir, here))),
        (Some("local"), ..) => Err(ValueError::form("src=DIR with type=local", text)),
        _ => Err(ValueError::form("type=registry or type=local", text)),
    }
}

/// Reads one `--cache-to`.
fn to(text: &str, here: &Path) -> Result<CacheTo, ValueError> {
    let fields = fields(text)?;
    let plain = |location| CacheTo { location, mode: CacheMode::Min, packing: Packing::default(), ignore_error: false };
    if let [(word, None)] = fields.as_slice() {
        return if word == "inline" { Ok(plain(None)) } else { Ok(plain(Some(reference(text)?))) };
    }
    refuse_foreign(&fields)?;
    let (mut kind, mut name, mut dest) = (None, None, None);
    let mut out = plain(None);
    let (mut mode, mut packing) = (None, PackingAttributes::default());
    for (key, value) in fields {
        let Some(value) = value else { return Err(ValueError::form("KEY=VALUE fields", &key)) };
        if packing.set(&key, &value)? {
            continue;
        }
        match key.as_str() {
            "type" => kind = Some(value.to_lowercase()),
            "ref" => name = Some(value),
            "dest" => dest = Some(value),
            "mode" => mode = Some(cache_mode(&value)?),
            "ignore-error" => out.ignore_error = boolean(&value)?,
            // What Plywood does in any case.
            "image-manifest" | "registry.insecure" => drop(boolean(&value)?),
            _ if TO.contains(&key.as_str()) => return Err(ValueError::Unsupported(format!("`{key}={value}`"), "")),
            _ => return Err(ValueError::Field { nearest: nearest(&key, &TO), key }),
        }
    }
    out.location = match (kind.as_deref(), name, dest) {
        (Some("registry"), Some(name), None) => Some(reference(&name)?),
        (Some("registry"), ..) => return Err(ValueError::form("ref=NAME with type=registry", text)),
        (Some("local"), None, Some(dir)) if !dir.is_empty() => Some(CacheLocation::Directory(directory(&dir, here))),
        (Some("local"), ..) => return Err(ValueError::form("dest=DIR with type=local", text)),
        (Some("inline"), None, None) if mode != Some(CacheMode::Max) => None,
        (Some("inline"), ..) => return Err(ValueError::form("type=inline alone: an image carries the records of its own layers", text)),
        _ => return Err(ValueError::form("type=registry, type=local or type=inline", text)),
    };
    out.mode = mode.unwrap_or_default();
    // A cache has documents of its own.
    out.packing = Packing { types: MediaTypes::Oci, ..packing.packing()? };
    Ok(out)
}

fn cache_mode(text: &str) -> Result<CacheMode, ValueError> {
    match text {
        "min" => Ok(CacheMode::Min),
        "max" => Ok(CacheMode::Max),
        _ => Err(ValueError::form("mode=min or mode=max", text)),
    }
}

/// Names a kind of docker's that is not ours, before its attributes are looked at.
fn refuse_foreign(fields: &[(String, Option<String>)]) -> Result<(), ValueError> {
    let foreign = |(key, value): &(String, Option<String>)| match value.as_deref() {
        Some(kind @ ("gha" | "s3" | "azblob")) if key == "type" => Some(kind.to_owned()),
        _ => None,
    };
    match fields.iter().find_map(foreign) {
        Some(kind) => Err(ValueError::Unsupported(format!("`type={kind}`"), NOT_OURS)),
        None => Ok(()),
    }
}

fn reference(text: &str) -> Result<CacheLocation, ValueError> {
    // Refused here, where it can be named, rather than when it is needed.
    match Reference::parse(text) {
        Ok(_) => Ok(CacheLocation::Registry(text.into())),
        Err(_) => Err(ValueError::form("a repository such as registry.example/app:cache", text)),
    }
}

fn directory(text: &str, here: &Path) -> PathBuf {
    here.join(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::{Came, Compression};

    fn registry(name: &str) -> CacheLocation {
        CacheLocation::Registry(name.into())
    }

    fn parsed_from(text: &str) -> Result<CacheLocation, String> {
        from(text, Path::new("/w")).map_err(|e| e.to_string())
    }

    fn parsed_to(text: &str) -> Result<CacheTo, String> {
        to(text, Path::new("/w")).map_err(|e| e.to_string())
    }

    #[test]
    fn caches_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("user/app:cache", registry("user/app:cache")),
            ("type=registry,ref=h:5000/a", registry("h:5000/a")),
            ("TYPE=registry,ref=a,registry.insecure=true", registry("a")),
            ("type=local,src=c", CacheLocation::Directory("/w/c".into())),
            ("type=local,src=/c", CacheLocation::Directory("/c".into())),
        ] {
            assert_eq!(parsed_from(text), Ok(want), "{text}");
        }
        let plain = CacheTo { location: None, mode: CacheMode::Min, packing: Packing::default(), ignore_error: false };
        for (text, want) in [
            ("user/app:cache", CacheTo { location: Some(registry("user/app:cache")), ..plain.clone() }),
            ("inline", plain.clone()),
            ("type=inline,mode=min", plain.clone()),
            (
                "type=registry,ref=a,mode=max,compression=zstd,ignore-error=true,oci-mediatypes=true,image-manifest=true,force-compression=true",
                CacheTo {
                    location: Some(registry("a")),
                    mode: CacheMode::Max,
                    packing: Packing { came: Came::OtherKinds, ..Compression::ZSTD.into() },
                    ignore_error: true,
                },
            ),
            (
                "type=inline,compression=zstd,compression-level=11,oci-mediatypes=false",
                CacheTo { packing: Compression::Zstd(11).into(), ..plain.clone() },
            ),
            ("type=local,dest=c", CacheTo { location: Some(CacheLocation::Directory("/w/c".into())), ..plain }),
        ] {
            assert_eq!(parsed_to(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_kept_is_refused() {
        for (text, want) in [
            ("type=gha", "`type=gha` is not supported: a registry or a directory serves in its place (type=registry, type=local)"),
            ("type=registry", "expected ref=NAME with type=registry, got `type=registry`"),
            ("type=local,ref=a", "expected src=DIR with type=local, got `type=local,ref=a`"),
            ("type=local,src=a,digest=sha256:0", "`digest=sha256:0` is not supported"),
            ("type=inline", "expected type=registry or type=local, got `type=inline`"),
            ("type=registry,rf=a", "`rf` is not a field of this flag: did you mean `ref`?"),
            ("A b", "expected a repository such as registry.example/app:cache, got `A b`"),
        ] {
            assert_eq!(parsed_from(text), Err(want.to_owned()), "{text}");
        }
        for (text, want) in [
            ("type=s3,bucket=b", "`type=s3` is not supported: a registry or a directory serves in its place (type=registry, type=local)"),
            (
                "type=inline,mode=max",
                "expected type=inline alone: an image carries the records of its own layers, got `type=inline,mode=max`",
            ),
            ("type=registry,ref=a,compression-level=12", "expected a level from 0 to 9 with gzip, got `12`"),
            ("type=registry,ref=a,mode=all", "expected mode=min or mode=max, got `all`"),
            ("ref=a", "expected type=registry, type=local or type=inline, got `ref=a`"),
        ] {
            assert_eq!(parsed_to(text), Err(want.to_owned()), "{text}");
        }
    }
}
