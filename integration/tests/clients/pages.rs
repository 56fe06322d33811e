//! The programs that a page shows are those that are run.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;

use crate::{project, trial};

const PAGE: &str = "schemas/README.md";

pub(crate) fn trials() -> Vec<Trial> {
    let name = "every_program_that_the_page_shows_is_the_one_that_is_run".to_owned();
    vec![trial(name, programs_are_those_that_are_run)]
}

/// A line `<!-- FILE -->` stands before each block that shows a file.
fn programs_are_those_that_are_run() -> Result<()> {
    let page = std::fs::read_to_string(project().join(PAGE))?;
    let mut shown = 0;
    for part in page.split("<!-- integration/").skip(1) {
        let (file, rest) = part.split_once(" -->").context("a comment that ends")?;
        let block = rest
            .trim_start()
            .strip_prefix("```")
            .and_then(|block| block.split_once('\n'))
            .and_then(|(_, block)| block.split_once("```"))
            .with_context(|| format!("no block after the comment of {file}"))?;
        let program = std::fs::read_to_string(project().join("integration").join(file))
            .with_context(|| file.to_owned())?;
        ensure!(block.0 == program, "{PAGE} shows another {file}");
        shown += 1;
    }
    ensure!(shown > 0, "{PAGE} shows no program");
    Ok(())
}
