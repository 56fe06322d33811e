//! `inferq-worker check`: what a worker would make of a model, without a queue.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use inferq_engine::LoadLimits;

use self::report::Report;
use crate::config::{CheckArgs, GpuArgs};
use crate::models::layout::{MODEL_FILE, file_name, subfolders, version_number};
use crate::models::load::onnx_loader;

mod measure;
mod report;

/// Checks what lies at the path and prints a report for each version; fails if one does not load.
pub fn run(args: &CheckArgs, gpu: &GpuArgs) -> ExitCode {
    let gpu = match gpu.open() {
        Ok(gpu) => gpu,
        Err(error) => {
            eprintln!("inferq-worker: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let loader = onnx_loader(LoadLimits {
        gpu,
        ..LoadLimits::default()
    });
    let mut code = ExitCode::SUCCESS;
    let targets = targets(&args.path);
    if targets.is_empty() {
        let path = args.path.display();
        eprintln!(
            "nothing to check at `{path}`: name an ONNX file, or a folder with <name>/<version>/{MODEL_FILE}"
        );
        return ExitCode::FAILURE;
    }
    for target in targets {
        let report = Report::of(&target, &loader);
        if report.error.is_some() {
            code = ExitCode::FAILURE;
        }
        let text = if args.json {
            report.json()
        } else {
            report.text(args.explain)
        };
        // A reader that went away has seen what it wanted to.
        if writeln!(std::io::stdout(), "{text}").is_err() {
            break;
        }
    }
    code
}

/// One thing to check.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    File(PathBuf),
    Version {
        model: String,
        number: u64,
        folder: PathBuf,
    },
}

/// The versions at `path`, whichever of the four kinds of place it is.
fn targets(path: &Path) -> Vec<Target> {
    if path.is_file() {
        return vec![Target::File(path.to_owned())];
    }
    // `.` and `..` have no name of their own.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if let Some(version) = as_version(&path) {
        return vec![version];
    }
    let children = subfolders(&path).unwrap_or_default();
    let versions: Vec<Target> = children
        .iter()
        .filter_map(|child| as_version(child))
        .collect();
    if !versions.is_empty() {
        return versions;
    }
    let models = children
        .iter()
        .flat_map(|model| subfolders(model).unwrap_or_default());
    models.filter_map(|folder| as_version(&folder)).collect()
}

fn as_version(folder: &Path) -> Option<Target> {
    let number = version_number(&file_name(folder))?;
    let model = file_name(folder.parent()?);
    folder.join(MODEL_FILE).is_file().then(|| Target::Version {
        model,
        number,
        folder: folder.to_owned(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    pub(super) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a temporary folder");
        for (file, content) in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("inside the root")).expect("writable");
            fs::write(path, content).expect("writable");
        }
        root
    }

    #[test]
    fn a_file_a_version_a_model_and_a_folder_of_models_can_be_checked() {
        let root = folder(&[
            ("a/1/model.onnx", ""),
            ("a/2/model.onnx", ""),
            ("b/1/model.onnx", ""),
            ("b/notes/x", ""),
        ]);
        let found = |path: &str| targets(&root.path().join(path)).len();
        assert_eq!(
            (
                found("a/1/model.onnx"),
                found("a/1"),
                found("a"),
                found(""),
                found("b/notes")
            ),
            (1, 1, 2, 3, 0)
        );
        assert!(
            matches!(&targets(&root.path().join("a/2"))[..], [Target::Version { model, number: 2, .. }] if model == "a")
        );
    }
}
