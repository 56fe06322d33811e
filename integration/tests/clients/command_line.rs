//! The command line of NATS, as the pages show it: every block of commands is run, in the order of
//! its page, and must print what the page says.
//!
//! A block is fenced with `console`. A line that begins with `$ ` is a command for the shell, with
//! the lines after it that end the sentence begun by `\`; the others are what is printed. `…`
//! stands for anything within a line, and alone on a line for any number of lines.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;

use crate::{Shared, needing, project};

const PAGES: [&str; 2] = ["README.md", "schemas/README.md"];

pub(crate) fn trials(shared: &Arc<Shared>) -> Vec<Trial> {
    PAGES
        .into_iter()
        .map(|page| {
            let shared = Arc::clone(shared);
            let name = format!("nats::every_command_of_{page}_prints_what_the_page_says");
            needing("nats", name, move || run_page(&shared, page))
        })
        .collect()
}

struct Example {
    command: String,
    prints: Vec<String>,
}

fn run_page(shared: &Shared, page: &str) -> Result<()> {
    let text = std::fs::read_to_string(project().join(page))?;
    let examples = examples(&text);
    ensure!(!examples.is_empty(), "{page} shows no commands");
    // A newcomer types the commands at the root of the project; files they make stay apart.
    let folder = tempfile::tempdir()?;
    symlink(
        env!("CARGO_MANIFEST_DIR"),
        folder.path().join("integration"),
    )?;
    for example in examples {
        let printed = run(shared, folder.path(), &example.command)?;
        let printed: Vec<&str> = printed.lines().map(str::trim_end).collect();
        ensure!(
            matches(&example.prints, &printed),
            "{page} says that\n  $ {}\nprints\n{}\nbut it prints\n{}",
            example.command,
            example.prints.join("\n"),
            printed.join("\n")
        );
    }
    Ok(())
}

fn run(shared: &Shared, folder: &Path, command: &str) -> Result<String> {
    let mut shell = Command::new("bash");
    shell
        .args(["-c", command])
        .current_dir(folder)
        .env("NATS_URL", shared.nats_url()?);
    let output = inferq_integration::finish(shell)?;
    // What the command line of NATS tells about its own doing goes to stderr.
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut inside = false;
    let mut goes_on = false;
    for line in page.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if !inside => {}
            _ => match (line.strip_prefix("$ "), examples.last_mut()) {
                (Some(command), _) => {
                    examples.push(Example {
                        command: command.to_owned(),
                        prints: Vec::new(),
                    });
                    goes_on = line.ends_with('\\');
                }
                (None, Some(example)) if goes_on => {
                    example.command.push('\n');
                    example.command.push_str(line);
                    goes_on = line.ends_with('\\');
                }
                (None, Some(example)) => example.prints.push(line.trim_end().to_owned()),
                (None, None) => {}
            },
        }
    }
    examples
}

/// Whether the lines are as the page says, `…` standing for anything.
fn matches(wanted: &[String], printed: &[&str]) -> bool {
    match (wanted.split_first(), printed.split_first()) {
        (None, None) => true,
        (Some((any, rest)), _) if any == "…" => {
            (0..=printed.len()).any(|skipped| matches(rest, &printed[skipped..]))
        }
        (Some((line, wanted)), Some((first, printed))) => {
            line_matches(line, first) && matches(wanted, printed)
        }
        (Some((line, rest)), None) => line.is_empty() && matches(rest, printed),
        (None, Some(_)) => false,
    }
}

fn line_matches(wanted: &str, printed: &str) -> bool {
    let mut parts = wanted.split('…');
    let Some(mut rest) = parts.next().and_then(|first| printed.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in between {
        let Some(at) = rest.find(part) else {
            return false;
        };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}
