//! Flags and variables as a user mistypes them.

use super::*;
use clap::{CommandFactory, Parser};

fn config(flags: &[&str]) -> Config {
    let models = std::env::temp_dir();
    let models = models
        .to_str()
        .expect("the temporary folder's name is text");
    Config::parse_from(["inferq-worker", "--models", models].iter().chain(flags))
}

#[test]
fn the_defaults_are_valid_and_every_flag_has_a_variable_and_a_help_line() {
    let checked = config(&[]).validate().expect("the defaults are valid");
    assert_eq!(checked.subjects.prefix(), "infer");
    assert!(
        checked
            .serve
            .serves(&ModelName::new("digits").expect("fits"))
    );
    for flag in Config::command()
        .get_arguments()
        .filter(|flag| !["help", "version"].contains(&flag.get_id().as_str()))
    {
        let variable = flag
            .get_env()
            .unwrap_or_else(|| panic!("{} has no variable", flag.get_id()));
        assert!(
            variable.to_string_lossy().starts_with("INFERQ_"),
            "{variable:?}"
        );
        assert!(flag.get_help().is_some(), "{} has no help", flag.get_id());
    }
    Config::command().debug_assert();
}

#[test]
fn all_mistakes_are_told_in_one_message() {
    let wrong = config(&[
        "--nats",
        "http://x",
        "--redis",
        "http://user:hunter2@y",
        "--prefix",
        "a b",
        "--id",
        "a.b",
        "--serve",
        "a[",
        "--rpc-timeout",
        "2m",
        "--max-inflight-bytes",
        "1KiB",
        "--otlp-endpoint",
        "localhost:4317",
        "--batch-wait",
        "2s",
    ]);
    let message = wrong.validate().expect_err("nine mistakes").to_string();
    for flag in [
        "--nats",
        "--redis",
        "--prefix",
        "--id",
        "--serve",
        "--rpc-timeout",
        "--max-inflight-bytes",
        "--otlp-endpoint",
        "--batch-wait",
    ] {
        assert!(
            message.contains(&format!("{flag}: ")),
            "{flag} is missing in:\n{message}"
        );
    }
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn a_missing_models_folder_is_a_mistake_that_says_what_belongs_there() {
    let mut config = config(&[]);
    config.models.models = "/nowhere/at/all".into();
    let message = config.validate().expect_err("no such folder").to_string();
    assert!(message.contains("<name>/<version>/model.onnx"), "{message}");
}

#[test]
fn the_serve_filter_keeps_what_matches_any_glob() {
    let checked = config(&["--serve", "digits,res*"])
        .validate()
        .expect("valid");
    let serves = |name: &str| checked.serve.serves(&ModelName::new(name).expect("fits"));
    assert!(serves("digits") && serves("resnet50") && !serves("bert"));
}

#[test]
fn an_invented_worker_name_fits_and_differs_each_time() {
    let (one, two) = (
        worker_id(None).expect("fits"),
        worker_id(None).expect("fits"),
    );
    assert_ne!(one, two);
    assert_eq!(worker_id(Some(&one)), Ok(one.clone()));
    assert!(worker_id(Some("sweeper")).is_err());
}

#[test]
fn check_is_a_subcommand_that_needs_no_models_folder() {
    let config = Config::parse_from(["inferq-worker", "check", "a.onnx", "--json"]);
    assert!(matches!(
        config.command,
        Some(Command::Check(CheckArgs { json: true, .. }))
    ));
}
