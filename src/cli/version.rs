//! `ply version`.

use clap::Args;
use serde_json::json;

use crate::cli::failure::Failure;
use crate::cli::format;
use crate::image::platform::Platform;
use crate::ui::out;

/// Show the version
#[derive(Debug, Clone, Args)]
pub struct VersionArgs {
    /// json, or a template such as '{{.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Prints the version.
pub fn run(args: &VersionArgs) -> Result<(), Failure> {
    let (version, platform) = (env!("CARGO_PKG_VERSION"), Platform::host().to_string());
    match &args.format {
        None => out::line(&format!("ply {version} ({platform})"))?,
        Some(format) => out::result(&format::one(format, &json!({"Version": version, "Platform": platform}))?)?,
    }
    Ok(())
}
