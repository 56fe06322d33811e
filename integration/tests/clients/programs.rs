//! The programs of `integration/clients`: each answers as the engine alone would, fails with the
//! worker's words where the input is wrong, and is short enough to copy.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use inferq_integration::digits;
use libtest_mimic::Trial;

use crate::{Shared, clients, needing, trial};

const LANGUAGES: [&str; 3] = ["python", "javascript", "go"];
const PROGRAMS: [&str; 6] = [
    "rpc_json",
    "rpc_cbor",
    "reply_json",
    "reply_cbor",
    "later_json",
    "later_cbor",
];
/// In one language alone: what it shows beside the others is a subscription, which all of them have.
const FOLLOWS: (&str, &str) = ("python", "follow_json");
/// Lines of one program, or of its `main` in Go, whose imports and error handling are long.
const MOST_LINES: usize = 20;

pub(crate) fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    let mut trials = Vec::new();
    for language in LANGUAGES {
        for program in PROGRAMS {
            let shared = Arc::clone(shared);
            let name = format!("{language}::{program}_is_answered_as_the_engine_alone_would");
            trials.push(needing(language, name, move || {
                answers(&shared, language, program)
            }));
        }
        let shared = Arc::clone(shared);
        let name = format!("{language}::a_wrong_row_ends_a_request_with_the_words_of_the_worker");
        trials.push(needing(language, name, move || refusal(&shared, language)));
    }
    let (language, program) = FOLLOWS;
    let name = format!("{language}::{program}_hears_that_its_job_runs_and_how_it_ends");
    let following = Arc::clone(shared);
    trials.push(needing(language, name, move || {
        answers(&following, language, program)
    }));
    let name = "every_program_has_at_most_twenty_lines".to_owned();
    trials.push(trial(name, all_are_short));
    trials
}

fn answers(shared: &Shared, language: &str, program: &str) -> Result<()> {
    let images = &digits::held_out()?[..3];
    for (image, expected) in images.iter().zip(digits::expected(images)?) {
        let best = digits::best(&expected).context("ten probabilities")?;
        let expected = match program.split_once('_') {
            Some(("later", _)) => format!("ok {best}"),
            Some(("follow", _)) => format!("running\nok {best}"),
            _ => best.to_string(),
        };
        let output = run(shared, language, program, &serde_json::json!(image.pixels))?;
        let told = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && told.trim() == expected,
            "expected {expected}, got {output:?}"
        );
    }
    Ok(())
}

fn refusal(shared: &Shared, language: &str) -> Result<()> {
    let output = run(shared, language, "rpc_json", &serde_json::json!([1, 2, 3]))?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it ended well: {output:?}");
    let words = "instances[0]: 3 values, the model's input `input` takes 64";
    ensure!(told.contains(words), "{told}");
    Ok(())
}

fn run(shared: &Shared, language: &str, program: &str, row: &serde_json::Value) -> Result<Output> {
    let mut command = match language {
        "python" => {
            let mut command = Command::new(clients().join("python/.venv/bin/python"));
            command.arg(source(language, program));
            command
        }
        "javascript" => {
            let mut command = Command::new("node");
            command.arg(source(language, program));
            command
        }
        _ => Command::new(clients().join("go/bin").join(program)),
    };
    command
        .arg(row.to_string())
        .env("NATS_URL", shared.nats_url()?);
    inferq_integration::finish(command)
}

fn source(language: &str, program: &str) -> PathBuf {
    let file = match language {
        "python" => format!("{program}.py"),
        "javascript" => format!("{program}.js"),
        _ => format!("{program}/main.go"),
    };
    clients().join(language).join(file)
}

fn all_are_short() -> Result<()> {
    let in_all = LANGUAGES.map(|language| PROGRAMS.map(|program| (language, program)));
    for (language, program) in in_all.into_iter().flatten().chain([FOLLOWS]) {
        let file = source(language, program);
        let lines = lines(&file, language)?;
        ensure!(lines <= MOST_LINES, "{} has {lines} lines", file.display());
    }
    Ok(())
}

fn lines(file: &Path, language: &str) -> Result<usize> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    if language != "go" {
        return Ok(text.lines().count());
    }
    let body = text
        .lines()
        .skip_while(|line| !line.starts_with("func main"));
    Ok(body.skip(1).take_while(|line| *line != "}").count())
}
