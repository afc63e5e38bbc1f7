//! Platforms: `os/arch[/variant]`, with Docker's other spellings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// `os[(osversion)]/architecture[/variant]`, normalised.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// GOOS.
    pub os: String,
    /// GOARCH.
    pub architecture: String,
    /// `v7`, `v8`; empty where the architecture says enough.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// `os.version`; empty on Linux.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected os/arch[/variant], such as linux/amd64 or linux/arm64")]
pub struct PlatformError(pub String);

impl Platform {
    /// Returns the platform that this program runs on.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            other => other,
        };
        Self::new("linux", architecture, "")
    }

    /// Returns the normalised platform of its parts.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = os.to_lowercase();
        let (mut arch, mut variant) = (architecture.to_lowercase(), variant.to_lowercase());
        // containerd's platforms/database.go.
        match arch.as_str() {
            "i386" => (arch, variant) = ("386".into(), String::new()),
            "x86_64" | "x86-64" | "amd64" => {
                arch = "amd64".into();
                if variant == "v1" {
                    variant.clear();
                }
            }
            "aarch64" | "arm64" => {
                arch = "arm64".into();
                if variant == "8" || variant == "v8" {
                    variant.clear();
                }
            }
            "armhf" => (arch, variant) = ("arm".into(), "v7".into()),
            "armel" => (arch, variant) = ("arm".into(), "v6".into()),
            "arm" => match variant.as_str() {
                "" | "7" => variant = "v7".into(),
                "5" | "6" | "8" => variant = format!("v{variant}"),
                _ => {}
            },
            _ => {}
        }
        Self { os, architecture: arch, variant, os_version: String::new() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let bad = || PlatformError(text.to_string());
        let word = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        let (first, rest) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let (os, os_version) = match first.split_once('(') {
            Some((os, v)) => (os, v.strip_suffix(')').ok_or_else(bad)?),
            None => (first, ""),
        };
        if !word(os) {
            return Err(bad());
        }
        let host = Self::host();
        let mut parsed = match rest.map(|r| r.split('/').collect::<Vec<_>>()).as_deref() {
            None => match os.to_lowercase().as_str() {
                known @ ("linux" | "windows" | "darwin" | "freebsd") => Self::new(known, &host.architecture, &host.variant),
                "amd64" | "x86_64" | "x86-64" | "386" | "i386" | "arm" | "armhf" | "armel" | "arm64" | "aarch64" | "ppc64le" | "s390x"
                | "riscv64" | "mips64le" | "loong64" => Self::new("linux", os, ""),
                _ => return Err(bad()),
            },
            Some([arch]) if word(arch) => Self::new(os, arch, ""),
            Some([arch, variant]) if word(arch) && word(variant) => Self::new(os, arch, variant),
            Some(_) => return Err(bad()),
        };
        parsed.os_version = os_version.to_string();
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_normalised() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/ARM64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("arm64", "linux/arm64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), want, "{text}");
        }
        for text in ["", "/", "linux/", "linux/a/b/c", "nonsense", "linux/am d"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
