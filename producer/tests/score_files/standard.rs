//! Standard input and output, which a program needs to itself: `examples/convert.rs`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::made;

/// The example, which cargo builds beside the tests.
fn convert() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let target = test.parent().and_then(Path::parent).expect("target/debug");
    let program = target.join("examples/convert");
    assert!(
        program.exists(),
        "{} is missing; build it with `cargo build --workspace --examples`",
        program.display()
    );
    program
}

/// The file through standard input and output, as JSON lines.
fn copied(file: &Path, format: &str) -> String {
    let mut child = Command::new(convert())
        .args([&format!("-:{format}"), "-:jsonl"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let bytes = std::fs::read(file).expect("made");
    let mut input = child.stdin.take().expect("a pipe");
    // The files are smaller than a pipe holds, so this does not wait for the reader.
    input.write_all(&bytes).expect("taken");
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", file.display());
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn standard_input_is_read_in_every_format() {
    for (name, format, rows, fifth) in [
        ("pandas.csv", "csv", 7, r#""n":"5","x":"3e+300","word":"ä""#),
        (
            "members.csv.gz",
            "csv",
            7,
            r#""n":"5","x":"3e+300","word":"ä""#,
        ),
        (
            "frames.csv.zst",
            "csv",
            7,
            r#""n":"5","x":"3e+300","word":"ä""#,
        ),
        ("tabs.tsv", "tsv", 7, r#""n":"5","x":"3e+300","word":"ä""#),
        ("pandas.jsonl", "jsonl", 7, r#""n":"5","x":"3e+300","#),
        (
            "pandas.parquet",
            "parquet",
            7,
            r#""n":5,"x":3e+300,"word":"ä""#,
        ),
        ("lz4.feather", "arrow", 7, r#""n":5,"x":3e+300,"word":"ä""#),
        ("stream.arrow", "arrow", 7, r#""n":5,"x":3e+300,"word":"ä""#),
        ("f4.npy", "npy", 4, r#"{"data":100.0}"#),
        ("stored.npz", "npz", 7, r#"{"x":[6.0,6.5,7.0],"label":4}"#),
    ] {
        let text = copied(&made(name), format);
        assert_eq!(text.lines().count(), rows, "{name}: {text}");
        assert!(text.contains(fifth), "{name}: {text}");
    }
}

#[test]
fn what_is_written_to_standard_output_is_what_is_written_to_a_file() {
    let folder = tempfile::tempdir().expect("a folder");
    for format in ["csv", "tsv", "jsonl", "parquet", "arrow", "npz"] {
        let path = folder.path().join(format!("t.{format}"));
        let input = made("stored.npz");
        let file = Command::new(convert()).args([&input, &path]).status();
        assert!(file.expect("it starts").success(), "{format}");
        let stream = Command::new(convert())
            .arg(&input)
            .arg(format!("-:{format}"))
            .output();
        let stream = stream.expect("it starts").stdout;
        assert!(stream == std::fs::read(&path).expect("written"), "{format}");
    }
}
