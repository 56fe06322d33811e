//! A row that cannot be scored costs itself, and is told.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use inferq::stack::{Stack, StackOptions};
use inferq_integration::{fixtures, stack, start};
use serde_json::Value;

use super::{beside, finish, program, rows, score, succeed, table};

fn errors(output: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(beside(output, ".errors.jsonl"))?;
    Ok(text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?)
}

#[tokio::test]
async fn a_cell_that_is_no_number_leaves_its_row_empty_and_is_told_with_its_column() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    let images = table(&input, 1)?;
    let text = fs::read_to_string(&input)?;
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    // The heading is line 0, so that row 6 is line 7.
    lines[7] = lines[7].replacen(",0,", ",zero,", 1);
    fs::write(&input, lines.join("\n"))?;
    let stack = stack(1).await?;
    let more = ["--keep", "id", "--chunk-rows", "32"];
    succeed(score(&stack, &input, &output, &more)?).await?;
    let (_, rows) = rows(&output)?;
    assert_eq!(rows.len(), images.len());
    let empty = |row: &[String]| row[1..].iter().all(String::is_empty);
    for (number, row) in rows.iter().enumerate() {
        assert_eq!(row[0], number.to_string());
        assert_eq!(empty(row), number == 6, "row {number}: {row:?}");
    }
    let errors = errors(&output)?;
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(
        (&errors[0]["row"], &errors[0]["code"]),
        (&6.into(), &400.into())
    );
    let message = errors[0]["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("pixel_") && message.contains("zero"),
        "{message}"
    );
    assert_eq!(errors[0]["record"]["id"], "6");
    Ok(stack.stop().await?)
}

/// Scores ids with a model that gives the row of a table of three: an id of 3 or more has none.
fn lookup(stack: &Stack, input: &Path, output: &Path, more: &[&str]) -> Result<Command> {
    let mut command = program()?;
    command.args(["score", "--model", "lookup", "--nats", stack.nats_url()]);
    command.arg("--in").arg(input).arg("--out").arg(output);
    command.args(more);
    Ok(command)
}

#[tokio::test]
async fn a_short_table_with_too_many_bad_rows_is_told_how_many_may_fail() -> Result<()> {
    let home = tempfile::tempdir()?;
    let models = home.path().join("models");
    fixtures::add_model(&models, "lookup", "lookup.onnx")?;
    let stack = start(StackOptions::new(&models)).await?;
    let (input, output) = (home.path().join("ids.jsonl"), home.path().join("out.jsonl"));
    // Every tenth of 200 is a bad one.
    let line = |row: u64| format!("{{\"ids\": {}}}\n", if row % 10 == 9 { 3 } else { 0 });
    fs::write(&input, (0..200).map(line).collect::<String>())?;
    let run = |more: &[&str]| lookup(&stack, &input, &output, more);
    // The default is 1 %, of 1 000 rows at least.
    for more in [[].as_slice(), &["--resume"]] {
        let (code, said) = finish(run(more)?).await?;
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("of 200 rows failed, more than --max-errors 1% allows; the last: "),
            "{said}"
        );
    }
    succeed(run(&["--resume", "--max-errors", "2%"])?).await?;
    assert_eq!(errors(&output)?.len(), 20);
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn a_row_that_the_model_cannot_run_fails_alone_and_a_run_that_had_too_many_goes_on_when_more_may_fail()
-> Result<()> {
    let home = tempfile::tempdir()?;
    let models = home.path().join("models");
    fixtures::add_model(&models, "lookup", "lookup.onnx")?;
    let stack = start(StackOptions::new(&models)).await?;
    let (input, output) = (home.path().join("ids.jsonl"), home.path().join("out.jsonl"));
    let bad = [17_u64, 18, 300];
    let line = |row: u64| {
        let id = if bad.contains(&row) { 9 } else { row % 3 };
        format!("{{\"ids\": {id}}}\n")
    };
    fs::write(&input, (0..400).map(line).collect::<String>())?;
    let run = |more: &[&str]| {
        let more = [&["--chunk-rows", "100"], more].concat();
        lookup(&stack, &input, &output, &more)
    };
    // Two failures too many: the run stops, and keeps what it has.
    let (code, said) = finish(run(&["--max-errors", "1"])?).await?;
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("--max-errors 1") && said.contains("--resume"),
        "{said}"
    );
    succeed(run(&["--resume", "--max-errors", "3"])?).await?;
    let errors = errors(&output)?;
    let failed: Vec<&Value> = errors.iter().map(|error| &error["row"]).collect();
    assert_eq!(failed, [&17.into(), &18.into(), &300.into()] as [&Value; 3]);
    assert_eq!(errors[0]["record"]["ids"], 9);
    let answers = fs::read_to_string(&output)?;
    let answers: Vec<Value> = answers
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    assert_eq!(answers.len(), 400);
    for (row, answer) in (0..).zip(&answers) {
        let expected = if bad.contains(&row) {
            &Value::Null
        } else {
            &answers[usize::try_from(row % 3)?]["y"]
        };
        assert_eq!(&answer["y"], expected, "row {row}");
    }
    Ok(stack.stop().await?)
}
