//! The models in a folder: `<name>/<version>/model.onnx`.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use inferq_schemas::{ModelName, ModelRecord};

use super::log::Log;
use crate::assets::AssetAdmin;

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The models of a folder with their versions, ascending. What is not a model is passed over; a
/// folder that cannot be read has none.
pub fn models_in(folder: &Path) -> BTreeMap<ModelName, Vec<u64>> {
    let mut models = BTreeMap::new();
    for (name, path) in folders(folder) {
        let Ok(name) = name.parse::<ModelName>() else {
            continue;
        };
        let versions = folders(&path).filter(|(_, path)| path.join("model.onnx").is_file());
        let mut versions: Vec<u64> = versions.filter_map(|(name, _)| name.parse().ok()).collect();
        versions.sort_unstable();
        if !versions.is_empty() {
            models.insert(name, versions);
        }
    }
    models
}

/// The entry of a model that comes from a folder.
pub(super) fn record(name: ModelName, versions: Vec<u64>) -> ModelRecord {
    ModelRecord {
        name,
        versions,
        source: "folder".to_owned(),
        inputs: None,
        outputs: None,
    }
}

/// Makes every model that appears in the folder, or gets another version, known.
///
/// Models that leave stay known: their jobs wait for a worker that has them.
pub(super) async fn watch(
    folder: Arc<Path>,
    admin: AssetAdmin,
    mut known: BTreeMap<ModelName, Vec<u64>>,
    log: Log,
) {
    let mut complained = false;
    loop {
        tokio::time::sleep(LOOK).await;
        for (name, versions) in models_in(&folder) {
            if known.get(&name) == Some(&versions) {
                continue;
            }
            match admin
                .ensure_record(&record(name.clone(), versions.clone()))
                .await
            {
                Ok(_) => {
                    log.line(
                        "up",
                        &format!("model {name} is known, versions {versions:?}"),
                    );
                    known.insert(name, versions);
                    complained = false;
                }
                // It is tried again each second; saying so once is enough.
                Err(error) if !complained => {
                    log.line("up", &format!("model {name} is not known yet: {error}"));
                    complained = true;
                }
                Err(_) => {}
            }
        }
    }
}

fn folders(folder: &Path) -> impl Iterator<Item = (String, std::path::PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_model_is_a_folder_with_a_numbered_version_that_is_complete() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let put = |path: &str| {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().expect("a folder")).expect("writable");
            fs::write(file, "x").expect("writable");
        };
        put("digits/10/model.onnx");
        put("digits/2/model.onnx");
        put("digits/model.toml");
        put("copying/1/model.onnx.part");
        put("Bad Name/1/model.onnx");
        put("draft/next/model.onnx");
        put("README.md");
        let found = models_in(folder.path());
        let digits: ModelName = "digits".parse().expect("a valid name");
        assert_eq!(found, BTreeMap::from([(digits, vec![2, 10])]));
        assert!(models_in(Path::new("/nowhere")).is_empty());
    }
}
