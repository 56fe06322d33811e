//! How commands speak: tables and colours for people, JSON lines for programs.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use comfy_table::{ContentArrangement, Table, presets::UTF8_NO_BORDERS};
use inferq::Outcome;
use owo_colors::{OwoColorize, Style};
use serde::Serialize;
use serde_json::json;

use super::Ended;

/// Standard output, and standard error for what is said beside the result.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    json: bool,
    out_coloured: bool,
    err_coloured: bool,
}

/// A line of JSON as numbers longer than this are hard to read on a terminal.
const WIDE: usize = 100;

impl Output {
    pub(super) fn new(json: bool) -> Self {
        let wished = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            json,
            out_coloured: wished && !json && std::io::stdout().is_terminal(),
            err_coloured: wished && std::io::stderr().is_terminal(),
        }
    }

    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// One JSON line.
    pub(super) fn line(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.print(&serde_json::to_string(value)?);
        Ok(())
    }

    /// Text on standard output. A reader that has left, as `head` does, is no error.
    pub(super) fn print(&self, text: &str) {
        writeln!(std::io::stdout().lock(), "{text}").ok();
    }

    /// Something said beside the result; not part of what a program reads.
    pub(super) fn note(&self, text: &str) {
        if !self.json {
            let styled = self.paint(text, Style::new().dimmed(), self.err_coloured);
            writeln!(std::io::stderr().lock(), "{styled}").ok();
        }
    }

    /// The error, with its causes in one line.
    pub(super) fn error(&self, error: &anyhow::Error) {
        let text = chain(error);
        if self.json {
            self.print(&json!({ "error": text }).to_string());
        } else {
            let label = self.paint("error:", Style::new().red().bold(), self.err_coloured);
            writeln!(std::io::stderr().lock(), "{label} {text}").ok();
        }
    }

    pub(super) fn heading(&self, text: &str) -> String {
        self.paint(text, Style::new().bold(), self.out_coloured)
    }

    pub(super) fn good(&self, text: &str) -> String {
        self.paint(text, Style::new().green(), self.out_coloured)
    }

    pub(super) fn bad(&self, text: &str) -> String {
        self.paint(text, Style::new().red(), self.out_coloured)
    }

    /// Rows under headings. Not fitted to a width when it goes into a file or a pipe.
    pub(super) fn table(&self, headings: &[&str], rows: Vec<Vec<String>>) {
        let mut table = Table::new();
        table.load_style(UTF8_NO_BORDERS);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(
            headings
                .iter()
                .map(|heading| self.heading(heading))
                .collect::<Vec<_>>(),
        );
        table.add_rows(rows);
        self.print(&table.trim_fmt());
    }

    /// An outcome: the answer on standard output, what else is known beside it.
    pub(super) fn outcome(&self, outcome: &Outcome) -> anyhow::Result<Ended> {
        if self.json {
            self.line(&outcome_line(outcome))?;
        } else {
            match outcome.failure() {
                None => self.print(&self.readable(outcome)),
                Some(failure) => self.error(&anyhow::anyhow!("{failure}")),
            }
            self.note(&about(outcome));
        }
        Ok(if outcome.is_ok() {
            Ended::Well
        } else {
            Ended::ShowingFailure
        })
    }

    fn readable(&self, outcome: &Outcome) -> String {
        let text = outcome.text();
        let spread = text.len() > WIDE && std::io::stdout().is_terminal();
        match outcome.json().filter(|_| spread) {
            Some(json) => spread_out(&json),
            None => text.into_owned(),
        }
    }

    fn paint(&self, text: &str, style: Style, coloured: bool) -> String {
        if coloured {
            text.style(style).to_string()
        } else {
            text.to_owned()
        }
    }
}

/// One line per field of the outermost object; numbers stay side by side.
fn spread_out(json: &serde_json::Value) -> String {
    let Some(fields) = json.as_object() else {
        return json.to_string();
    };
    let lines: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("  {}: {value}", serde_json::Value::from(name.as_str())))
        .collect();
    format!("{{\n{}\n}}", lines.join(",\n"))
}

fn outcome_line(outcome: &Outcome) -> serde_json::Value {
    let failure = outcome.failure();
    json!({
        "job": outcome.headers.job_id.as_str(),
        "status": outcome.status().as_str(),
        "code": failure.as_ref().map(|failure| failure.code.as_u16()),
        "error": failure.map(|failure| failure.message),
        "worker": outcome.headers.worker,
        "model_version": outcome.headers.model_version,
        "attempt": outcome.headers.attempt,
        "response": outcome.is_ok().then(|| outcome.json()).flatten(),
    })
}

fn about(outcome: &Outcome) -> String {
    let headers = &outcome.headers;
    let version = match headers.model_version {
        Some(version) => format!(", version {version}"),
        None => String::new(),
    };
    let again = match headers.attempt {
        0 | 1 => String::new(),
        attempt => format!(", attempt {attempt}"),
    };
    format!(
        "{} {} by {}{version}{again}",
        headers.job_id, headers.status, headers.worker
    )
}

/// A duration in whole seconds, such as `1m 5s`.
pub(super) fn seconds(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

/// How long something took: in whole seconds from a minute on, below that with milliseconds, such as `4s 520ms`.
pub(super) fn took(duration: Duration) -> String {
    const LONG: Duration = Duration::from_secs(60);
    if duration >= LONG {
        return seconds(duration);
    }
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

/// How long ago that was, in whole seconds; nothing if it lies ahead by this clock.
pub(super) fn age(time: SystemTime) -> String {
    seconds(SystemTime::now().duration_since(time).unwrap_or_default())
}

/// Milliseconds since 1970.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// About how many bytes, such as `1.2 MiB`.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KiB", "MiB", "GiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for larger in units {
        if value < 1024.0 {
            break;
        }
        (value, unit) = (value / 1024.0, larger);
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// All causes in one line, without those that an earlier one has quoted.
pub(super) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_have_milliseconds() {
        assert_eq!(took(Duration::from_micros(226_900)), "226ms");
        assert_eq!(took(Duration::from_millis(4_520)), "4s 520ms");
        assert_eq!(took(Duration::from_millis(65_999)), "1m 5s");
    }

    #[test]
    fn causes_are_told_once() {
        let inner = anyhow::anyhow!("disk full");
        assert_eq!(
            chain(&inner.context("cannot write")),
            "cannot write: disk full"
        );
        let quoting = anyhow::anyhow!("disk full").context("cannot write: disk full");
        assert_eq!(chain(&quoting), "cannot write: disk full");
    }

    #[test]
    fn sizes_are_told_in_the_largest_unit_that_fits() {
        let told = [0, 1_023, 1_024, 1_258_291, 5 << 40].map(size);
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.2 MiB", "5120.0 GiB"]);
    }

    #[test]
    fn a_wide_answer_has_a_line_per_field() {
        let json = json!({"model_name": "digits", "predictions": [[1, 2]]});
        assert_eq!(
            spread_out(&json),
            "{\n  \"model_name\": \"digits\",\n  \"predictions\": [[1,2]]\n}"
        );
    }
}
