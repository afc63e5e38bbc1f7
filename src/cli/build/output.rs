//! `-o`: what a build writes, in docker's comma-separated form.
//!
//! `-o DIR` is `type=local,dest=DIR`, `-o -` is `type=tar,dest=-`. Attributes that name what Plywood does
//! anyway are taken silently; those that would change the result are refused rather than ignored.

use std::path::PathBuf;

use crate::cli::packing::PackingAttributes;
use crate::cli::values::{ValueError, boolean, fields, nearest};
use crate::engine::request::{ArchiveOutput, Destination, Output, PlatformSplit, PushAs, PushOutput};

/// Every attribute that docker's exporters have, for did-you-mean.
const ATTRIBUTES: [&str; 22] = [
    "type",
    "dest",
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "tar",
    "push",
    "push-by-digest",
    "oci-mediatypes",
    "oci-artifact",
    "rewrite-timestamp",
    "unpack",
    "store",
    "name-canonical",
    "dangling-name-prefix",
    "registry.insecure",
    "platform-split",
    "attestation-inline",
    "attestation-prefix",
    "prefer-nondist-layers",
    "mode",
];

/// The attributes of one `-o`, before the type is known.
#[derive(Default)]
struct Attributes {
    kind: Option<String>,
    dest: Option<String>,
    names: Vec<String>,
    packing: PackingAttributes,
    directory: bool,
    split: PlatformSplit,
    push: bool,
    named: PushAs,
}

/// Reads one `-o`.
pub fn parse(text: &str) -> Result<Output, ValueError> {
    let fields = fields(text)?;
    if let [(_, None)] = fields.as_slice() {
        return match text {
            "" => Err(ValueError::form("DIR, `-` or type=TYPE,dest=PATH", text)),
            "-" => Ok(Output::Tar(Destination::Stdout, PlatformSplit::WhenSeveral)),
            dir => Ok(Output::Local(PathBuf::from(dir), PlatformSplit::WhenSeveral)),
        };
    }
    let mut attributes = Attributes::default();
    for (key, value) in fields {
        let Some(value) = value else { return Err(ValueError::form("KEY=VALUE fields", &key)) };
        attributes.set(&key, value)?;
    }
    attributes.finish(text)
}

impl Attributes {
    fn set(&mut self, key: &str, value: String) -> Result<(), ValueError> {
        let off = |what: &'static str| match boolean(&value) {
            Ok(false) => Ok(()),
            Ok(true) => Err(ValueError::Unsupported(format!("`{key}=true`"), what)),
            Err(e) => Err(e),
        };
        if self.packing.set(key, &value)? {
            return Ok(());
        }
        match key {
            "type" => self.kind = Some(value.to_lowercase()),
            "dest" => self.dest = Some(value),
            "name" => self.names.extend(value.split(',').filter(|n| !n.is_empty()).map(str::to_owned)),
            "tar" => self.directory = !boolean(&value)?,
            "push" => self.push = boolean(&value)?,
            "push-by-digest" => self.named = if boolean(&value)? { PushAs::Digest } else { PushAs::Tag },
            "attestation-inline" | "prefer-nondist-layers" | "oci-artifact" => off("")?,
            // What Plywood does in any case, or what has no meaning for its store.
            "rewrite-timestamp" | "unpack" | "store" | "registry.insecure" | "name-canonical" => {
                boolean(&value)?;
            }
            "platform-split" => self.split = if boolean(&value)? { PlatformSplit::Always } else { PlatformSplit::Never },
            "dangling-name-prefix" | "attestation-prefix" => {}
            "mode" if value == "copy" => {}
            _ if ATTRIBUTES.contains(&key) || key.starts_with("annotation") => {
                return Err(ValueError::Unsupported(format!("`{key}={value}`"), ""));
            }
            _ => return Err(ValueError::Field { key: key.into(), nearest: nearest(key, &ATTRIBUTES) }),
        }
        Ok(())
    }

    fn finish(self, text: &str) -> Result<Output, ValueError> {
        let kind = self.kind.as_deref().unwrap_or_default();
        if self.directory && kind != "oci" {
            return Err(ValueError::form("`tar=false` with type=oci only", text));
        }
        let pushed = kind == "registry" || (self.push && kind == "image");
        if self.push && !pushed {
            return Err(ValueError::form("`push=true` with type=image or type=registry only", text));
        }
        if let Some(asked) = self.packing.asked().filter(|_| matches!(kind, "tar" | "local" | "none" | "cacheonly")) {
            let what = format!("`{asked}=` with `type={kind}`");
            return Err(ValueError::Unsupported(what, ": only type=oci, docker, image and registry have layers"));
        }
        let packing = self.packing.packing()?;
        let dest = self.dest.as_deref().filter(|d| !d.is_empty());
        let stream = match dest {
            None | Some("-") => Destination::Stdout,
            Some(path) => Destination::Path(PathBuf::from(path)),
        };
        match kind {
            "oci" if self.directory && stream == Destination::Stdout => Err(ValueError::form("dest=DIR with `tar=false`", text)),
            // `--load` of docker: the image goes where `run` finds it.
            "docker" if dest.is_none() => Ok(Output::Image(PushOutput { names: self.names, packing, named: self.named })),
            "oci" | "docker" => {
                let archive = ArchiveOutput { dest: stream, names: self.names, packing, directory: self.directory };
                Ok(if kind == "oci" { Output::Oci(archive) } else { Output::Docker(archive) })
            }
            "tar" => Ok(Output::Tar(stream, self.split)),
            "local" => match dest {
                Some(dir) if dir != "-" => Ok(Output::Local(PathBuf::from(dir), self.split)),
                _ => Err(ValueError::form("dest=DIR with type=local", text)),
            },
            "image" | "registry" => {
                let output = PushOutput { names: self.names, packing, named: self.named };
                Ok(if pushed { Output::Registry(output) } else { Output::Image(output) })
            }
            "none" | "cacheonly" => Ok(Output::None),
            _ => Err(ValueError::form("type=oci, docker, tar, local, image, registry or none", text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::{Came, Compression, MediaTypes, Packing};

    fn image(names: &[&str], packing: impl Into<Packing>) -> PushOutput {
        PushOutput { names: names.iter().map(|n| (*n).into()).collect(), packing: packing.into(), named: PushAs::Tag }
    }

    fn archive(dest: &str, names: &[&str], packing: impl Into<Packing>, directory: bool) -> ArchiveOutput {
        let dest = if dest == "-" { Destination::Stdout } else { Destination::Path(dest.into()) };
        ArchiveOutput { dest, names: names.iter().map(|n| (*n).into()).collect(), packing: packing.into(), directory }
    }

    #[test]
    fn outputs_are_read_as_docker_reads_them() {
        use Compression::{Gzip, Uncompressed, Zstd};
        use PlatformSplit::{Always, Never, WhenSeveral};
        const GZIP: Compression = Compression::GZIP;
        const ZSTD: Compression = Compression::ZSTD;
        let cases = [
            ("-", Output::Tar(Destination::Stdout, WhenSeveral)),
            ("out", Output::Local("out".into(), WhenSeveral)),
            ("type=tar,platform-split=true", Output::Tar(Destination::Stdout, Always)),
            ("type=tar,dest=a.tar", Output::Tar(Destination::Path("a.tar".into()), WhenSeveral)),
            ("type=local,dest=a,platform-split=false", Output::Local("a".into(), Never)),
            ("type=oci,dest=/x/image.tar", Output::Oci(archive("/x/image.tar", &[], GZIP, false))),
            ("type=oci", Output::Oci(archive("-", &[], GZIP, false))),
            ("TYPE=OCI,dest=d,tar=false,compression=zstd", Output::Oci(archive("d", &[], ZSTD, true))),
            (
                r#"type=docker,dest=f,"name=a,b:1",compression=uncompressed"#,
                Output::Docker(archive("f", &["a", "b:1"], Uncompressed, false)),
            ),
            (
                "type=oci,dest=a,compression-level=9,compression=gzip,oci-mediatypes=false",
                Output::Oci(archive("a", &[], Packing { types: MediaTypes::Docker, ..Gzip(9).into() }, false)),
            ),
            (
                "type=docker,dest=a,compression=zstd,force-compression=true",
                Output::Docker(archive("a", &[], Packing { came: Came::OtherKinds, ..ZSTD.into() }, false)),
            ),
            ("type=docker", Output::Image(image(&[], GZIP))),
            ("type=image,name=a,push=false", Output::Image(image(&["a"], GZIP))),
            ("type=image,compression=zstd,compression-level=7", Output::Image(image(&[], Zstd(7)))),
            ("type=tar,oci-mediatypes=true", Output::Tar(Destination::Stdout, WhenSeveral)),
            ("type=cacheonly", Output::None),
            ("type=registry", Output::Registry(image(&[], GZIP))),
            (
                "type=image,push=true,push-by-digest=true,compression=zstd,name=h/a",
                Output::Registry(PushOutput { named: PushAs::Digest, ..image(&["h/a"], ZSTD) }),
            ),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_would_change_the_result_is_refused() {
        let cases = [
            ("", "expected DIR, `-` or type=TYPE,dest=PATH, got ``"),
            ("type=oci,dset=x", "`dset` is not a field of this flag"),
            ("type=oci,des=x", "`des` is not a field of this flag: did you mean `dest`?"),
            ("type=oci,dest", "expected KEY=VALUE fields, got `dest`"),
            ("dest=x", "expected type=oci, docker, tar, local, image, registry or none, got `dest=x`"),
            ("type=local", "expected dest=DIR with type=local, got `type=local`"),
            ("type=oci,push=true", "expected `push=true` with type=image or type=registry only, got `type=oci,push=true`"),
            (
                "type=local,dest=a,compression=zstd",
                "`compression=` with `type=local` is not supported: only type=oci, docker, image and registry have layers",
            ),
            (
                "type=tar,compression-level=3",
                "`compression-level=` with `type=tar` is not supported: only type=oci, docker, image and registry have layers",
            ),
            ("type=oci,compression=lzma", "expected uncompressed, gzip or zstd, got `lzma`"),
            ("type=registry,compression-level=19", "expected a level from 0 to 9 with gzip, got `19`"),
            ("type=oci,annotation.a=b", "`annotation.a=b` is not supported"),
            ("type=tar,tar=false", "expected `tar=false` with type=oci only, got `type=tar,tar=false`"),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(want.to_owned()), "{text}");
        }
    }
}
