//! One log of many processes: each line under the name of its process.

use std::{
    collections::VecDeque,
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use owo_colors::{AnsiColors, OwoColorize};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    sync::mpsc,
};

/// Lines kept of each process, for the error that tells why it ended.
const KEPT_LINES: usize = 40;
/// Wide enough for `worker-99` and `nats`.
const LABEL_WIDTH: usize = 9;
const COLOURS: [AnsiColors; 6] = [
    AnsiColors::Cyan,
    AnsiColors::Green,
    AnsiColors::Yellow,
    AnsiColors::Magenta,
    AnsiColors::Blue,
    AnsiColors::BrightRed,
];

/// Where the lines of all processes go.
#[derive(Debug, Clone, Default)]
pub enum Log {
    /// Nowhere; the last ones are kept for errors.
    #[default]
    Quiet,
    /// To standard error, in colours if that is a terminal.
    Terminal,
    /// To whoever reads the other end. Lines are dropped while it is full.
    Lines(mpsc::Sender<LogLine>),
}

/// One line of one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// The process, such as `worker-1`.
    pub label: String,
    /// What it wrote.
    pub text: String,
}

/// The last lines of one process.
#[derive(Debug, Clone, Default)]
pub(super) struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The kept lines as one text.
    pub(super) fn text(&self) -> String {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .fold(String::new(), |text, line| text + "\n  " + line)
    }
}

impl Log {
    /// Writes one line.
    pub fn line(&self, label: &str, text: &str) {
        match self {
            Self::Quiet => {}
            Self::Lines(lines) => {
                let line = LogLine {
                    label: label.to_owned(),
                    text: text.to_owned(),
                };
                lines.try_send(line).ok();
            }
            Self::Terminal => {
                let mut out = std::io::stderr().lock();
                let coloured = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
                // A closed terminal is no reason to stop working.
                writeln!(out, "{}", format_line(label, text, coloured)).ok();
            }
        }
    }

    /// Copies lines until the process closes its end.
    pub(super) async fn pump(
        self,
        label: String,
        source: impl AsyncRead + Unpin,
        tail: Tail,
        shown: Shown,
    ) {
        let mut lines = BufReader::new(source).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if shown.shows(&line) {
                self.line(&label, &line);
            }
            tail.push(line);
        }
    }
}

/// Which lines of a process are for the merged log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// All of them.
    All,
    /// Warnings and errors of nats-server; it is talkative when it starts.
    NatsProblems,
    /// None: it calls its greeting a warning. What it wrote is kept for the error if it ends.
    Nothing,
}

impl Shown {
    fn shows(self, line: &str) -> bool {
        match self {
            Self::All => true,
            Self::NatsProblems => ["[WRN]", "[ERR]", "[FTL]"]
                .iter()
                .any(|mark| line.contains(mark)),
            Self::Nothing => false,
        }
    }
}

fn format_line(label: &str, text: &str, coloured: bool) -> String {
    let padded = format!("{label:LABEL_WIDTH$} |");
    if coloured {
        format!("{} {text}", padded.color(colour_of(label)))
    } else {
        format!("{padded} {text}")
    }
}

/// Neighbouring numbers get different colours.
fn colour_of(label: &str) -> AnsiColors {
    let sum: usize = label.bytes().map(usize::from).sum();
    COLOURS[sum % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_arrive_under_their_label_and_the_last_ones_are_kept() {
        let (sender, mut lines) = mpsc::channel(100);
        let (tail, text) = (Tail::default(), "line\n".repeat(50) + "last without end");
        let pump =
            Log::Lines(sender).pump("worker-1".into(), text.as_bytes(), tail.clone(), Shown::All);
        pump.await;
        let first = lines.recv().await.expect("lines were sent");
        assert_eq!(
            (first.label.as_str(), first.text.as_str()),
            ("worker-1", "line")
        );
        assert_eq!(
            tail.text().lines().filter(|line| !line.is_empty()).count(),
            KEPT_LINES
        );
        assert!(tail.text().ends_with("last without end"));
    }

    #[test]
    fn labels_line_up_and_have_no_codes_without_a_terminal() {
        assert_eq!(format_line("nats", "ready", false), "nats      | ready");
        assert_eq!(
            format_line("worker-10", "ready", false),
            "worker-10 | ready"
        );
        assert!(format_line("nats", "ready", true).contains("\u{1b}["));
    }

    #[test]
    fn of_nats_server_only_problems_are_shown() {
        let shown = |line| Shown::NatsProblems.shows(line);
        assert!(!shown(
            "[1] 2026/01/01 00:00:00.000000 [INF] Server is ready"
        ));
        assert!(shown("[1] 2026/01/01 00:00:00.000000 [ERR] disk is full"));
    }
}
