//! Dead letters as people and programs see them.

use inferq::dead::{DeadEntry, DeadLetter};
use serde_json::{Value, json};

use crate::cli::output::{Output, age, unix_ms};

pub(super) const HEADINGS: [&str; 9] = [
    "job", "model", "lane", "status", "code", "attempts", "age", "bytes", "reason",
];

/// A row under [`HEADINGS`].
pub(super) fn row(entry: &DeadEntry) -> Vec<String> {
    let reason = &entry.reason;
    let known = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        entry.job.to_string(),
        entry.model.to_string(),
        entry.lane.to_string(),
        known(reason.status.map(|status| status.to_string())),
        known(
            reason
                .failure
                .as_ref()
                .map(|failure| failure.code.to_string()),
        ),
        known(reason.attempts.map(|attempts| attempts.to_string())),
        age(entry.stored),
        entry.bytes.to_string(),
        printable(entry.message()),
    ]
}

/// A letter without its body, as a JSON line.
pub(super) fn line(entry: &DeadEntry) -> Value {
    let reason = &entry.reason;
    json!({
        "job": entry.job,
        "model": entry.model,
        "lane": entry.lane,
        "status": reason.status,
        "code": reason.failure.as_ref().map(|failure| failure.code.as_u16()),
        "reason": reason.failure.as_ref().map(|failure| &failure.message),
        "attempts": reason.attempts,
        "worker": reason.worker,
        "stored_unix_ms": unix_ms(entry.stored),
        "bytes": entry.bytes,
        "letter": entry.sequence,
        "outcome": reason.outcome,
        "without_body": reason.without_body,
        "without_headers": reason.without_headers,
    })
}

/// A whole letter, as a JSON line: its body as a value if it is a request, else as text if it is any.
pub(super) fn whole_line(letter: &DeadLetter) -> Value {
    let mut line = line(&letter.entry);
    let body = letter.json();
    let text = match &body {
        Some(_) => None,
        None => std::str::from_utf8(&letter.body).ok(),
    };
    let more = json!({
        "headers": letter.entry.headers,
        "content_type": letter.content_type().mime(),
        "digest": letter.digest().to_string(),
        "text": text,
        "body": body,
    });
    if let (Value::Object(line), Value::Object(more)) = (&mut line, more) {
        line.extend(more);
    }
    line
}

/// A whole letter for people; the body comes last, as it is.
pub(super) fn whole(letter: &DeadLetter, output: &Output) -> String {
    let entry = &letter.entry;
    let reason = &entry.reason;
    let mut lines = Vec::new();
    let mut put = |label: &str, text: String| {
        lines.push(format!("{} {text}", output.heading(&format!("{label:<9}"))));
    };
    put("job", entry.job.to_string());
    put("model", format!("{}, lane {}", entry.model, entry.lane));
    if let (Some(status), Some(failure)) = (reason.status, &reason.failure) {
        put("status", format!("{status} {}", failure.code));
    }
    put("reason", printable(entry.message()));
    if let (Some(attempts), Some(worker)) = (reason.attempts, &reason.worker) {
        put("attempts", format!("{attempts}, the last by {worker}"));
    }
    let when = humantime::format_rfc3339_seconds(entry.stored);
    put("died", format!("{when}, {} ago", age(entry.stored)));
    let outcome = match reason.outcome {
        Some(outcome) => format!(", of outcome {outcome}"),
        None => String::new(),
    };
    put("letter", format!("{}{outcome}", entry.sequence));
    let lost = [
        ("headers", reason.without_headers),
        ("body", reason.without_body),
    ];
    for (part, _) in lost.into_iter().filter(|(_, lost)| *lost) {
        put("lost", format!("the {part} of the job, which did not fit"));
    }
    for (name, value) in &entry.headers {
        put("header", printable(&format!("{name}: {value}")));
    }
    put(
        "body",
        format!("{} bytes, {}", letter.body.len(), letter.content_type()),
    );
    lines.push(printable(&letter.text()));
    lines.join("\n")
}

/// What anybody may have sent, with nothing in it that a terminal would obey.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() && !matches!(letter, '\n' | '\t') {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_and_not_done() {
        let sent = "{\"a\":\u{1b}[2J\r\n\t\"ü\"}";
        assert_eq!(printable(sent), "{\"a\":\\u{1b}[2J\\r\n\t\"ü\"}");
    }
}
