//! Any text as headers: `name: value` lines, read as those of a job and of an outcome.
#![no_main]

use inferq_schemas::{JobHeaders, JobId, OutcomeHeaders, ReplyPrefixes, Subjects};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let pairs = || text.lines().filter_map(|line| line.split_once(':'));
    let replies = ReplyPrefixes::default();
    let parsed = JobHeaders::parse(pairs(), JobId::derived("INFER_JOBS", 1), &replies);
    let sent = parsed.headers.pairs();
    let sent = sent.iter().map(|(name, value)| (*name, value.as_str()));
    let again = JobHeaders::parse(sent, JobId::derived("INFER_JOBS", 2), &replies);
    assert_eq!(again.problems, []);
    assert_eq!(again.headers, parsed.headers);
    if let Ok(outcome) = OutcomeHeaders::parse(pairs()) {
        let _ = outcome.pairs();
    }
    let _ = Subjects::default().parse_job(text);
});
