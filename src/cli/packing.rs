//! How layers are compressed on their way out: `compression=` and its companions in `-o` and `--cache-to`, and the flags of
//! `push` and `save`.
//!
//! What a newcomer would get wrong: a level means nothing before the kind is known, and attributes come in any order. So they
//! are collected, and judged at the end.

use clap::Args;

use crate::cli::failure::Failure;
use crate::cli::values::{ValueError, boolean};
use crate::engine::request::{Came, Compression, MediaTypes, Packing};

/// A kind of compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Uncompressed,
    Gzip,
    Zstd,
}

/// The attributes of one `-o` or `--cache-to`, as far as they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackingAttributes {
    kind: Option<Kind>,
    level: Option<i64>,
    force: Option<bool>,
    types: Option<MediaTypes>,
}

/// The flags of commands that send or write images of the store.
#[derive(Debug, Clone, Args)]
pub struct PackingArgs {
    /// How layers are compressed that did not come so
    #[arg(long, alias = "compression-format", value_name = "gzip|zstd|uncompressed", value_parser = kind)]
    pub compression: Option<Kind>,
    /// How much: 0 to 9 with gzip [default: 6], 1 to 19 with zstd [default: 3; up to 22 counts as 19]
    #[arg(long, value_name = "N", value_parser = level, allow_negative_numbers = true)]
    pub compression_level: Option<i64>,
    /// Compress layers so that came otherwise
    #[arg(long)]
    pub force_compression: bool,
}

impl PackingArgs {
    /// Judges the flags.
    pub fn packing(&self) -> Result<Packing, Failure> {
        let Self { compression: kind, compression_level: level, force_compression } = *self;
        let given = PackingAttributes { kind, level, force: Some(force_compression), types: None };
        given.packing().map_err(|e| Failure::usage(format!("--compression-level: {e}")))
    }
}

impl PackingAttributes {
    /// Takes an attribute; no: it is none of these.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, ValueError> {
        match key {
            "compression" => self.kind = Some(kind(value)?),
            "compression-level" => self.level = Some(level(value)?),
            // Without a value it is meant, as with BuildKit.
            "force-compression" => self.force = Some(value.is_empty() || boolean(value)?),
            "oci-mediatypes" => {
                self.types = Some(if value.is_empty() || boolean(value)? { MediaTypes::Oci } else { MediaTypes::Docker });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns the first attribute that names a compression.
    pub fn asked(&self) -> Option<&'static str> {
        let level = self.level.map(|_| "compression-level");
        self.kind.map(|_| "compression").or(level)
    }

    /// Puts them together.
    pub fn packing(&self) -> Result<Packing, ValueError> {
        let compression = match self.kind.unwrap_or(Kind::Gzip) {
            Kind::Uncompressed => Compression::Uncompressed,
            Kind::Gzip => gzip(self.level)?,
            Kind::Zstd => zstd(self.level)?,
        };
        let came = match (self.force.unwrap_or(false), self.level) {
            (false, _) => Came::Stay,
            (true, None) => Came::OtherKinds,
            (true, Some(_)) => Came::Anew,
        };
        Ok(Packing { compression, came, types: self.types.unwrap_or_default() })
    }
}

/// -1 is the default, as in zlib and Go.
fn gzip(level: Option<i64>) -> Result<Compression, ValueError> {
    match level {
        None | Some(-1) => Ok(Compression::GZIP),
        Some(n) => match u32::try_from(n) {
            Ok(n) if n <= 9 => Ok(Compression::Gzip(n)),
            _ => Err(ValueError::form("a level from 0 to 9 with gzip", &n.to_string())),
        },
    }
}

/// 0 is the fastest, as with BuildKit. Above 19 zstd takes gigabytes, here and at whoever pulls: 19 is the most that is done.
fn zstd(level: Option<i64>) -> Result<Compression, ValueError> {
    match level {
        None => Ok(Compression::ZSTD),
        Some(n) => match i32::try_from(n) {
            Ok(n) if (0..=22).contains(&n) => Ok(Compression::Zstd(n.clamp(1, 19))),
            _ => Err(ValueError::form("a level from 1 to 22 with zstd", &n.to_string())),
        },
    }
}

/// Reads a kind.
pub fn kind(text: &str) -> Result<Kind, ValueError> {
    match text {
        "uncompressed" => Ok(Kind::Uncompressed),
        "gzip" => Ok(Kind::Gzip),
        "zstd" => Ok(Kind::Zstd),
        "estargz" | "zstd:chunked" => {
            Err(ValueError::Unsupported(format!("`compression={text}`"), ": zstd or gzip are read by whoever reads it"))
        }
        _ => Err(ValueError::form("uncompressed, gzip or zstd", text)),
    }
}

fn level(text: &str) -> Result<i64, ValueError> {
    text.parse().map_err(|_| ValueError::form("a number as the compression's level", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(fields: &str) -> Result<Packing, String> {
        let mut given = PackingAttributes::default();
        for (key, value) in fields.split(',').filter(|f| !f.is_empty()).map(|f| f.split_once('=').unwrap()) {
            assert!(given.set(key, value).map_err(|e| e.to_string())?, "{key}");
        }
        given.packing().map_err(|e| e.to_string())
    }

    #[test]
    fn attributes_mean_what_buildkit_means() {
        use Came::{Anew, OtherKinds, Stay};
        use Compression::{Gzip, Uncompressed, Zstd};
        const GZIP: Compression = Compression::GZIP;
        const ZSTD: Compression = Compression::ZSTD;
        use MediaTypes::{Docker, Oci};
        for (text, compression, came, types) in [
            ("", GZIP, Stay, Oci),
            ("compression=gzip", Gzip(6), Stay, Oci),
            ("compression=gzip,compression-level=-1", GZIP, Stay, Oci),
            ("compression-level=0", Gzip(0), Stay, Oci),
            ("compression-level=9,compression=gzip", Gzip(9), Stay, Oci),
            ("compression=zstd", Zstd(3), Stay, Oci),
            ("compression=zstd,compression-level=0", Zstd(1), Stay, Oci),
            ("compression-level=19,compression=zstd", Zstd(19), Stay, Oci),
            ("compression=zstd,compression-level=22", Zstd(19), Stay, Oci),
            ("compression=uncompressed,compression-level=7", Uncompressed, Stay, Oci),
            ("compression=zstd,force-compression=true", ZSTD, OtherKinds, Oci),
            ("compression=zstd,force-compression=", ZSTD, OtherKinds, Oci),
            ("compression=zstd,force-compression=0", ZSTD, Stay, Oci),
            ("force-compression=1,compression-level=1", Gzip(1), Anew, Oci),
            ("oci-mediatypes=false", GZIP, Stay, Docker),
            ("oci-mediatypes=true", GZIP, Stay, Oci),
            ("oci-mediatypes=", GZIP, Stay, Oci),
        ] {
            assert_eq!(parsed(text), Ok(Packing { compression, came, types }), "{text}");
        }
    }

    #[test]
    fn what_can_not_be_done_is_refused() {
        for (text, want) in [
            ("compression=lzma", "expected uncompressed, gzip or zstd, got `lzma`"),
            ("compression=estargz", "`compression=estargz` is not supported: zstd or gzip are read by whoever reads it"),
            ("compression=zstd:chunked", "`compression=zstd:chunked` is not supported: zstd or gzip are read by whoever reads it"),
            ("compression-level=10", "expected a level from 0 to 9 with gzip, got `10`"),
            ("compression-level=-2", "expected a level from 0 to 9 with gzip, got `-2`"),
            ("compression-level=23,compression=zstd", "expected a level from 1 to 22 with zstd, got `23`"),
            ("compression=zstd,compression-level=-1", "expected a level from 1 to 22 with zstd, got `-1`"),
            ("compression-level=high", "expected a number as the compression's level, got `high`"),
            ("force-compression=yes", "expected true or false, got `yes`"),
            ("oci-mediatypes=no", "expected true or false, got `no`"),
        ] {
            assert_eq!(parsed(text), Err(want.to_owned()), "{text}");
        }
    }
}
