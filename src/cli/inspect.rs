//! `ply inspect`: all that is known of an image, as JSON with docker's field names.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::cli::session::Session;
use crate::cli::{format, stored};
use crate::store::{Image, Store};
use crate::ui::out;

/// Show all that is known of an image
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// json, or a template such as '{{.Config.Env}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// What to look for
    #[arg(long = "type", value_enum, hide = true)]
    pub kind: Option<Kind>,
}

/// What can be inspected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Kind {
    Image,
}

/// Prints what is known; images that are missing are told after the others.
pub fn run(args: &InspectArgs, session: &Session) -> Result<(), Failure> {
    let store = stored::open(session)?;
    let (mut values, mut failures) = (Vec::new(), Vec::new());
    for text in &args.images {
        match stored::find(&store, text).and_then(|image| value(&store, &image)) {
            Ok(value) => values.push(value),
            Err(failure) => failures.extend(failure.diagnostics),
        }
    }
    match &args.format {
        Some(format) if format.contains("{{") => {
            values.iter_mut().for_each(name_absent_fields);
            out::result(&format::each(format, &values)?)?;
        }
        Some(format) => out::result(&format::each(format, &values)?)?,
        None => out::line(&serde_json::to_string_pretty(&values).map_err(|e| Failure::of(&e))?)?,
    }
    if failures.is_empty() { Ok(()) } else { Err(Failure { status: crate::cli::failure::FAILED, diagnostics: failures }) }
}

fn value(store: &Store, image: &Image) -> Result<Value, Failure> {
    let config = stored::config(store, image)?;
    let layers: Vec<String> = config.rootfs.diff_ids.iter().map(ToString::to_string).collect();
    let comment = config.history.last().and_then(|h| h.comment.clone()).unwrap_or_default();
    let mut value = json!({
        "Id": image.id.to_string(),
        "RepoTags": image.names.iter().map(|n| stored::familiar(n)).collect::<Vec<_>>(),
        "RepoDigests": image.repo_digests.iter().map(|n| stored::familiar(n)).collect::<Vec<_>>(),
        "Comment": comment,
        "Created": config.created.clone().unwrap_or_default(),
        "Author": config.author.clone().unwrap_or_default(),
        "Config": config.config,
        "Architecture": config.architecture,
        "Os": config.os,
        "Size": stored::size(store, image)?,
        "RootFS": {"Type": config.rootfs.kind, "Layers": layers},
    });
    if let Some(variant) = config.variant {
        value["Variant"] = variant.into();
    }
    if let Some(manifest) = image.manifest {
        value["Descriptor"] = json!({"digest": manifest.to_string()});
    }
    Ok(value)
}

/// Puts in what JSON leaves out when it is empty: a template may ask for `.Config.User` of any image.
fn name_absent_fields(image: &mut Value) {
    let absent = json!({
        "User": "", "WorkingDir": "", "StopSignal": "", "ArgsEscaped": false, "Healthcheck": null,
        "Env": [], "Entrypoint": [], "Cmd": [], "OnBuild": [], "Shell": [], "ExposedPorts": {}, "Volumes": {}, "Labels": {},
    });
    let (Value::Object(absent), Some(config)) = (absent, image["Config"].as_object_mut()) else { return };
    for (field, value) in absent {
        config.entry(field).or_insert(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::stored::tests::{put, store};

    #[test]
    fn fields_have_docker_s_names() {
        let (store, _dir) = store();
        let id = put(&store, "a", &["docker.io/library/alpine:3"]);
        let value = value(&store, &store.image(&id).unwrap().unwrap()).unwrap();
        let want = json!({
            "Id": id.to_string(), "RepoTags": ["alpine:3"], "RepoDigests": [], "Comment": "", "Created": "2023-11-14T20:00:00Z", "Author": "",
            "Config": {"Cmd": ["a"], "Env": ["A=1"]}, "Architecture": "amd64", "Os": "linux", "Size": 0, "RootFS": {"Type": "layers", "Layers": []},
        });
        assert_eq!(value, want);
    }
    #[test]
    fn a_template_finds_fields_that_the_image_has_not_set() {
        let mut image = json!({"Id": "sha256:1", "Config": {"User": "nobody", "Env": ["A=1"]}});
        name_absent_fields(&mut image);
        let form = r#"{{.Config.User}} [{{.Config.StopSignal}}] {{.Config.Volumes}} {{json .Config.Healthcheck}} {{.Config.Env}} [{{index .Config.Labels "a"}}]"#;
        assert_eq!(format::each(form, &[image]).unwrap().trim_end(), "nobody [] map[] null [A=1] []");
    }
}
