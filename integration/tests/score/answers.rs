//! Every row gets the answer that the engine gives it, in its place.

use std::path::Path;

use anyhow::{Context, Result};
use inferq::score::{Score, ScoreOptions};
use inferq_integration::digits::{self, Digit};
use inferq_integration::stack;

use super::{rows, score, succeed, table};

/// Holds a scored CSV against what the engine says of the same rows.
fn check(path: &Path, images: &[Digit]) -> Result<()> {
    let (names, rows) = rows(path)?;
    assert_eq!(names[0], "id");
    assert_eq!(rows.len(), images.len());
    let first = names.iter().position(|name| name == "probabilities_0");
    let first = first.with_context(|| format!("no probabilities in {names:?}"))?;
    let label = names.iter().position(|name| name == "label");
    let label = label.with_context(|| format!("no label in {names:?}"))?;
    for (number, (row, expected)) in rows.iter().zip(digits::expected(images)?).enumerate() {
        assert_eq!(row[0], number.to_string());
        let found = row[first..first + expected.len()].iter();
        let found: Vec<f32> = found.map(|cell| cell.parse()).collect::<Result<_, _>>()?;
        assert_eq!(found, expected, "row {number}, bit by bit");
        let best = digits::best(&expected).context("ten of them")?;
        assert_eq!(row[label], best.to_string(), "row {number}");
    }
    Ok(())
}

#[tokio::test]
async fn rows_come_back_in_order_with_the_answers_of_the_engine() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    let images = table(&input, 2)?;
    let stack = stack(2).await?;
    let more = ["--keep", "id", "--chunk-rows", "64"];
    succeed(score(&stack, &input, &output, &more)?).await?;
    check(&output, &images)?;
    assert!(!super::beside(&output, ".run").exists());
    assert!(!super::beside(&output, ".errors.jsonl").exists());
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn every_format_goes_in_and_comes_out_with_the_same_answers() -> Result<()> {
    let home = tempfile::tempdir()?;
    let path = |name: &str| home.path().join(name);
    let images = table(&path("rows.csv"), 1)?;
    let stack = stack(1).await?;
    let formats = ["jsonl.gz", "parquet", "arrow", "csv.zst"];
    // The rows with all their columns, written by the command itself: each output is the next input.
    let mut input = path("rows.csv");
    let columns: Vec<String> = (0..digits::PIXELS)
        .map(|pixel| format!("pixel_{pixel}:float64"))
        .collect();
    let keep = format!("id,{}", columns.join(","));
    for format in formats {
        let output = path(&format!("copy.{format}"));
        let more = ["--keep", &keep, "--outputs", "label"];
        succeed(score(&stack, &input, &output, &more)?).await?;
        let scored = path("scored.csv");
        let more = ["--keep", "id", "--force"];
        succeed(score(&stack, &output, &scored, &more)?).await?;
        check(&scored, &images).with_context(|| format!("from {format}"))?;
        input = output;
    }
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn the_library_scores_without_any_command() -> Result<()> {
    let home = tempfile::tempdir()?;
    let input = home.path().join("rows.csv");
    let output = home.path().join("out.csv");
    let images = table(&input, 1)?;
    let stack = stack(1).await?;
    let options = ScoreOptions {
        keep: vec!["id".parse()?],
        ..ScoreOptions::new(
            "digits".parse()?,
            [input.display().to_string()],
            output.clone(),
        )
    };
    let score = Score::new(options);
    let progress = score.progress();
    let summary = score.run(stack.client()).await?;
    assert_eq!((summary.rows, summary.errors), (images.len() as u64, 0));
    assert_eq!(progress.borrow().rows, summary.rows);
    assert_eq!(summary.device, "cpu");
    check(&output, &images)?;
    Ok(stack.stop().await?)
}

#[tokio::test]
async fn rows_may_come_as_they_are_ready_and_none_is_missing() -> Result<()> {
    let home = tempfile::tempdir()?;
    let (input, output) = (home.path().join("rows.csv"), home.path().join("out.csv"));
    let images = table(&input, 2)?;
    let stack = stack(2).await?;
    let more = ["--keep", "id:int64", "--unordered", "--chunk-rows", "16"];
    succeed(score(&stack, &input, &output, &more)?).await?;
    let mut ids: Vec<usize> = Vec::new();
    for row in rows(&output)?.1 {
        ids.push(row[0].parse()?);
    }
    ids.sort_unstable();
    assert_eq!(ids, (0..images.len()).collect::<Vec<_>>());
    Ok(stack.stop().await?)
}
