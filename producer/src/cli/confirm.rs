//! Asking before something is done to many, or cannot be undone.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, bail};

/// What happens where there is nobody to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unasked {
    /// It is done: the command itself says clearly enough what is wanted.
    Do,
    /// It is refused, with `--yes` as the way.
    Refuse,
}

/// Whether to go on: `yes` was given, or the person at the terminal says so.
pub(super) fn confirmed(question: &str, yes: bool, unasked: Unasked) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    let (input, mut asked) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() || !asked.is_terminal() {
        return match unasked {
            Unasked::Do => Ok(true),
            Unasked::Refuse => bail!("{question} There is nobody to ask here; say --yes"),
        };
    }
    write!(asked, "{question} [y/N] ").context("the terminal cannot be written to")?;
    asked.flush().context("the terminal cannot be written to")?;
    let mut answer = String::new();
    input
        .lock()
        .read_line(&mut answer)
        .context("the answer cannot be read")?;
    Ok(is_yes(&answer))
}

fn is_yes(answer: &str) -> bool {
    let answer = answer.trim();
    ["y", "yes"]
        .iter()
        .any(|yes| answer.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (answer, yes) in [
            ("y\n", true),
            (" YES ", true),
            ("\n", false),
            ("", false),
            ("no", false),
            ("yesterday", false),
        ] {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }

    #[test]
    fn yes_on_the_command_line_is_not_asked_again() {
        assert!(confirmed("Empty it?", true, Unasked::Refuse).expect("no terminal is needed"));
    }
}
