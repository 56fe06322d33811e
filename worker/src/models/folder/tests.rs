//! A folder that people copy into, break, mend and empty.

use super::*;
use crate::models::load::testing;
use std::fs;

struct Folder {
    root: tempfile::TempDir,
    keeper: Keeper,
}

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary folder");
        let source = FolderSource {
            folder: root.path().to_owned(),
            serve: ServeFilter::new(&[]).expect("no globs"),
            loader: testing::loader(),
            metrics: Metrics::new(),
        };
        let keeper = Keeper {
            source,
            models: Models::new(),
            progress: Progress::default(),
            told: HashSet::new(),
        };
        Self { root, keeper }
    }

    fn write(&self, file: &str, content: &str) {
        let path = self.root.path().join(file);
        fs::create_dir_all(path.parent().expect("inside the root")).expect("writable");
        fs::write(path, content).expect("writable");
    }

    /// Looks until what is there now counts as complete.
    fn settle(&mut self) -> Vec<String> {
        self.keeper.look();
        self.keeper.look();
        self.loaded()
    }

    fn loaded(&self) -> Vec<String> {
        let snapshot = self.keeper.models.snapshot();
        let versions = snapshot
            .iter()
            .flat_map(|(name, versions)| versions.keys().map(move |number| (name, number)));
        versions
            .map(|(name, number)| format!("{name}/{number}"))
            .collect()
    }

    fn digest(&self, model: &str, number: u64) -> Digest {
        let model = ModelName::new(model).expect("fits");
        self.keeper.models.snapshot()[&model][&number].digest
    }

    fn failures(&self) -> usize {
        let text = self.keeper.source.metrics.encode();
        let line = text
            .lines()
            .find(|line| line.starts_with("inferq_model_load_failures_total{"));
        line.and_then(|line| line.rsplit_once(' '))
            .map_or(0, |(_, count)| count.parse().expect("a count"))
    }
}

#[test]
fn a_version_is_loaded_when_two_looks_saw_the_same_files() {
    let mut folder = Folder::new();
    folder.keeper.look();
    folder.write("m/1/model.onnx", "half");
    folder.keeper.look();
    folder.write("m/1/model.onnx", "half and the other half");
    folder.keeper.look();
    assert_eq!(folder.loaded(), Vec::<String>::new());
    folder.keeper.look();
    assert_eq!(folder.loaded(), ["m/1"]);
}

#[test]
fn what_lay_there_long_before_the_start_is_loaded_at_the_first_look() {
    let mut folder = Folder::new();
    folder.write("m/1/model.onnx", "old");
    let file = fs::File::options()
        .write(true)
        .open(folder.root.path().join("m/1/model.onnx"))
        .expect("there");
    file.set_modified(SystemTime::now() - QUIET * 2)
        .expect("a file's time can be set");
    folder.keeper.look();
    assert_eq!(folder.loaded(), ["m/1"]);
}

#[test]
fn changed_content_replaces_a_version_and_a_removed_one_is_unloaded() {
    let mut folder = Folder::new();
    folder.write("m/1/model.onnx", "one");
    folder.write("m/2/model.onnx", "two");
    assert_eq!(folder.settle(), ["m/1", "m/2"]);
    let before = folder.digest("m", 1);
    folder.write("m/1/model.onnx", "one, mended");
    assert_eq!(folder.settle(), ["m/1", "m/2"]);
    assert_ne!(folder.digest("m", 1), before);
    fs::remove_dir_all(folder.root.path().join("m/2")).expect("removable");
    folder.keeper.look();
    assert_eq!(folder.loaded(), ["m/1"]);
    fs::remove_dir_all(folder.root.path().join("m")).expect("removable");
    folder.keeper.look();
    assert_eq!(folder.loaded(), Vec::<String>::new());
}

#[test]
fn new_defaults_replace_every_version_of_their_model() {
    let mut folder = Folder::new();
    folder.write("m/1/model.onnx", "one");
    folder.settle();
    let before = folder.digest("m", 1);
    folder.write("m/model.toml", "[batching]\nenabled = false");
    folder.settle();
    assert_ne!(folder.digest("m", 1), before);
}

#[test]
fn a_version_that_does_not_load_is_tried_once_per_content_and_disturbs_no_other() {
    let mut folder = Folder::new();
    folder.write("bad/1/model.onnx", "broken");
    folder.write("worse/1/model.onnx", "panic");
    folder.write("good/1/model.onnx", "fine");
    assert_eq!(folder.settle(), ["good/1"]);
    for _ in 0..3 {
        folder.keeper.look();
    }
    assert_eq!(folder.failures(), 1);
    folder.write("bad/1/model.onnx", "mended");
    assert_eq!(folder.settle(), ["bad/1", "good/1"]);
}

#[test]
fn a_version_keeps_serving_when_its_new_content_does_not_load() {
    let mut folder = Folder::new();
    folder.write("m/1/model.onnx", "fine");
    folder.settle();
    let before = folder.digest("m", 1);
    folder.write("m/1/model.onnx", "broken");
    assert_eq!(folder.settle(), ["m/1"]);
    assert_eq!(folder.digest("m", 1), before);
}

#[test]
fn a_folder_that_cannot_be_read_takes_no_model_away() {
    let mut folder = Folder::new();
    folder.write("m/1/model.onnx", "fine");
    folder.settle();
    folder.keeper.source.folder = folder.root.path().join("gone");
    assert_eq!(folder.settle(), ["m/1"]);
}

#[test]
fn an_oddity_is_told_at_its_second_look_and_once() {
    let mut folder = Folder::new();
    folder.write("m/1/model.bin", "named otherwise");
    let mut told = Vec::new();
    for _ in 0..4 {
        let listing =
            layout::list(folder.root.path(), &folder.keeper.source.serve).expect("readable");
        told.push(
            folder
                .keeper
                .progress
                .next(listing, SystemTime::now())
                .tell
                .len(),
        );
    }
    assert_eq!(told, [0, 1, 0, 0]);
}
