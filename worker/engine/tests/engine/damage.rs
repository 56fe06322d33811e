//! Files that are no models, or none that may be loaded.

use std::path::Path;

use inferq_engine::{LoadError, LoadLimits, Stage, load_bytes, load_file};

use crate::cases::path;

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(&format!("{name}.onnx"))).expect("the file is there")
}

fn load(bytes: &[u8]) -> Result<(), LoadError> {
    load_bytes(bytes, &LoadLimits::default()).map(drop)
}

#[test]
fn a_file_cut_off_anywhere_is_an_error_and_never_a_panic() {
    for name in ["mlp", "tokens", "image"] {
        let whole = bytes(name);
        load(&whole).expect("the whole file loads");
        for end in 0..whole.len() {
            // The operator sets come last in the file, so a cut right before them still decodes.
            assert!(load(&whole[..end]).is_err(), "{name} cut at {end}");
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    // Many flips hit a weight or a name and leave a good model; what counts is that each returns.
    for name in ["two_inputs", "tokens"] {
        let whole = bytes(name);
        let mut refused = 0;
        for at in 0..whole.len() {
            for bit in [0, 3, 7] {
                let mut damaged = whole.clone();
                damaged[at] ^= 1 << bit;
                refused += usize::from(load(&damaged).is_err());
            }
        }
        assert!(refused > 0, "{name}: no damage was noticed");
    }
}

#[test]
fn bytes_that_are_no_onnx_at_all_are_malformed() {
    for bytes in [
        &b""[..],
        b"PK\x03\x04",
        b"<html>not found</html>",
        &[0xff; 64],
    ] {
        let error = load(bytes).expect_err("no model");
        assert!(matches!(error, LoadError::Malformed { .. }), "{error}");
    }
}

#[test]
fn an_unknown_operator_is_named_with_its_node() {
    let error = load(&bytes("unknown_operator")).expect_err("nobody has this operator");
    assert_eq!(
        error.to_string(),
        "node `party` uses operator `Celebrate`, which this engine does not have"
    );
}

#[test]
fn shapes_that_clash_name_the_node() {
    let error = load(&bytes("clash")).expect_err("5 columns for 6 rows");
    assert!(
        matches!(&error, LoadError::Graph { stage: Stage::Typing, reason } if reason.contains("product")),
        "{error}"
    );
}

#[test]
fn limits_are_kept() {
    let model = bytes("mlp");
    let refuse = |limits: LoadLimits| {
        load_bytes(&model, &limits)
            .map(drop)
            .expect_err("over a limit")
    };
    let error = refuse(LoadLimits {
        max_bytes: 100,
        ..LoadLimits::default()
    });
    assert_eq!(
        error.to_string(),
        format!("the model takes {} bytes, the limit is 100", model.len())
    );
    let error = refuse(LoadLimits {
        max_nodes: 4,
        ..LoadLimits::default()
    });
    assert_eq!(error.to_string(), "the graph has 5 nodes, the limit is 4");
    let error = refuse(LoadLimits {
        opsets: 18..=20,
        ..LoadLimits::default()
    });
    assert!(
        matches!(
            error,
            LoadError::Opset {
                version: 17,
                oldest: 18,
                newest: 20
            }
        ),
        "{error}"
    );

    // The model alone would fit.
    let alone = bytes("weights_outside").len() as u64;
    let small = LoadLimits {
        max_bytes: alone + 15,
        ..LoadLimits::default()
    };
    let error = load_file(&path("weights_outside.onnx"), &small)
        .map(drop)
        .expect_err("the weights take 16");
    assert!(
        matches!(
            error,
            LoadError::TooLarge { bytes, .. } if bytes == alone + 16
        ),
        "{error}"
    );
}

#[test]
fn a_missing_file_is_a_read_error() {
    let error = load_file(Path::new("no/such/model.onnx"), &LoadLimits::default());
    assert!(matches!(error, Err(LoadError::Read { .. })));
}

/// The model with its weights' file name replaced by another of the same length.
fn with_location(location: &str) -> Vec<u8> {
    let (mut model, old) = (bytes("weights_outside"), b"weights_outside.bin");
    assert_eq!(location.len(), old.len());
    let at = model
        .windows(old.len())
        .position(|window| window == old)
        .expect("the location");
    model[at..at + old.len()].copy_from_slice(location.as_bytes());
    model
}

fn external_error(folder: &Path, model: &[u8]) -> String {
    let file = folder.join("model.onnx");
    std::fs::write(&file, model).expect("a temporary folder takes files");
    let error = load_file(&file, &LoadLimits::default())
        .map(drop)
        .expect_err("must be refused");
    match error {
        LoadError::ExternalData { tensor, reason, .. } => {
            assert_eq!(tensor, "b");
            reason
        }
        other => panic!("{other}"),
    }
}

#[test]
fn weights_outside_the_folder_are_refused() {
    let outer = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(outer.path().join("outside_data.bin"), [0; 16]).expect("a file");
    let folder = outer.path().join("model");
    std::fs::create_dir(&folder).expect("a folder");
    for location in [
        "../outside_data.bin",
        "/tmp/outside/da.bin",
        "a/../../outside.bin",
        ".\\..\\outside___.bin",
    ] {
        let reason = external_error(&folder, &with_location(location));
        let wanted = "only plain relative names inside the model's folder are read";
        assert_eq!(reason, wanted, "{location}");
    }
}

#[cfg(unix)]
#[test]
fn weights_behind_a_link_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (inside, link) = (
        folder.path().join("data.bin"),
        folder.path().join("weights_outside.bin"),
    );
    std::fs::write(&inside, [0; 16]).expect("a file");
    std::os::unix::fs::symlink(&inside, &link).expect("a link");
    let reason = external_error(folder.path(), &bytes("weights_outside"));
    assert_eq!(reason, "links are not followed");
}

#[test]
fn weights_that_are_missing_or_too_short_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let reason = external_error(folder.path(), &bytes("weights_outside"));
    assert!(reason.starts_with("the file cannot be read"), "{reason}");
    std::fs::write(folder.path().join("weights_outside.bin"), [0; 15]).expect("a file");
    let reason = external_error(folder.path(), &bytes("weights_outside"));
    assert_eq!(reason, "16 bytes from 0 on are wanted, the file has 15");
}

#[test]
fn weights_outside_bytes_are_refused() {
    let error = load(&bytes("weights_outside")).expect_err("bytes have no folder");
    assert!(
        error
            .to_string()
            .ends_with("a model loaded from bytes has no folder"),
        "{error}"
    );
}
