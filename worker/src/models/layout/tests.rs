//! What is found in a folder, what is refused, and what a digest depends on.

use super::*;

fn all() -> ServeFilter {
    ServeFilter::new(&[]).expect("no globs")
}

fn write(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("inside the root")).expect("writable");
    fs::write(path, content).expect("writable");
}

fn folder(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    for file in files {
        write(root.path(), file, file);
    }
    root
}

fn ids(listing: &Listing) -> Vec<String> {
    listing
        .versions
        .keys()
        .map(|(name, number)| format!("{name}/{number}"))
        .collect()
}

#[test]
fn versions_are_found_and_what_lies_beside_them_is_left_alone() {
    let root = folder(&[
        "digits/1/model.onnx",
        "digits/12/model.onnx",
        "digits/make.py",
        "digits/held_out.csv",
        "digits/model.toml",
        "digits/data/raw.csv",
        "wine/3/model.onnx",
        ".git/1/model.onnx",
        "README.md",
    ]);
    let listing = list(root.path(), &all()).expect("readable");
    assert_eq!(ids(&listing), ["digits/1", "digits/12", "wine/3"]);
    assert_eq!(listing.oddities, Vec::<String>::new());
}

#[test]
fn what_does_not_fit_is_told_with_what_to_do() {
    let root = folder(&[
        "My Model/1/model.onnx",
        "a/v1/model.onnx",
        "b/01/model.onnx",
        "c/1/c.onnx",
        "d/model.onnx",
    ]);
    let listing = list(root.path(), &all()).expect("readable");
    assert_eq!(ids(&listing), Vec::<String>::new());
    assert_eq!(listing.oddities.len(), 5, "{:?}", listing.oddities);
    let all = listing.oddities.join("\n");
    for part in [
        "a-z 0-9 _ -",
        "without leading zeros",
        "it has no model.onnx",
        "d/1/model.onnx",
    ] {
        assert!(all.contains(part), "{part} is missing in:\n{all}");
    }
}

#[test]
fn models_that_are_not_to_be_served_are_not_looked_at() {
    let root = folder(&["digits/1/model.onnx", "wine/1/model.onnx"]);
    let only = ServeFilter::new(&["d*".to_owned()]).expect("a glob");
    assert_eq!(
        ids(&list(root.path(), &only).expect("readable")),
        ["digits/1"]
    );
}

#[test]
fn the_digest_depends_on_every_name_and_byte_and_on_nothing_else() {
    let files = [
        "m/1/model.onnx",
        "m/1/vocabulary/words.txt",
        "m/model.toml",
        "m/2/model.onnx",
    ];
    let digest = |root: &Path| {
        Files::of(&root.join("m/1"))
            .and_then(|files| files.digest())
            .expect("readable")
    };
    let (one, two) = (folder(&files), folder(&files));
    let before = digest(one.path());
    assert_eq!(before, digest(two.path()));
    write(one.path(), "m/2/model.onnx", "another version");
    write(one.path(), "m/1/.hidden", "not part of it");
    assert_eq!(before, digest(one.path()));
    for changed in [
        "m/1/model.onnx",
        "m/1/vocabulary/words.txt",
        "m/model.toml",
        "m/1/new.txt",
    ] {
        write(two.path(), changed, "changed");
        let after = digest(two.path());
        assert_ne!(before, after, "{changed}");
    }
}

#[test]
fn a_file_that_is_written_to_changes_the_stamps() {
    let root = folder(&["m/1/model.onnx"]);
    let stamps = || Files::of(&root.path().join("m/1")).expect("readable");
    let before = stamps();
    assert_eq!(before, stamps());
    write(root.path(), "m/1/model.onnx", "longer than it was before");
    assert_ne!(before, stamps());
}

#[test]
fn a_version_number_has_one_spelling() {
    assert_eq!(version_number("12"), Some(12));
    for other in ["0", "01", "+1", "1.0", "v1", "", "99999999999999999999"] {
        assert_eq!(version_number(other), None, "{other}");
    }
}
