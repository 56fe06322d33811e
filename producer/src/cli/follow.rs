//! A job on its way, a line for each thing that happens to it.

use std::time::Duration;

use futures::StreamExt;
use inferq::{Event, Events, JobEvent, JobId, Outcome};
use serde::Serialize;

use super::output::{Output, seconds};

/// An event as a JSON line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    job: &'a str,
    #[serde(flatten)]
    event: JobEvent,
}

/// Tells what happens to a job, for people beside the result; returns its outcome, which is not told.
pub(super) async fn follow(
    id: &JobId,
    mut events: Events,
    output: &Output,
) -> anyhow::Result<Outcome> {
    while let Some(event) = events.next().await {
        match event? {
            Event::Done(outcome) => return Ok(*outcome),
            event if output.is_json() => {
                let (job, event) = (id.as_str(), event.document());
                output.line(&Line { job, event })?;
            }
            event => output.note(&sentence(&event)),
        }
    }
    anyhow::bail!("nothing more is told of job {id}; `inferq result {id} --wait` shows its outcome")
}

fn sentence(event: &Event) -> String {
    match event {
        Event::Queued {
            position,
            estimated_wait,
        } => {
            let in_front = match position {
                0 => "queued, next".to_owned(),
                1 => "queued, 1 job in front".to_owned(),
                more => format!("queued, {more} jobs in front"),
            };
            match estimated_wait.filter(|_| *position > 0) {
                Some(wait) => format!("{in_front}, about {}", seconds(whole(wait))),
                None => in_front,
            }
        }
        Event::Running {
            worker,
            attempt,
            model_version,
        } => {
            let again = match attempt {
                0 | 1 => String::new(),
                attempt => format!(", attempt {attempt}"),
            };
            format!("running on {worker}, version {model_version}{again}")
        }
        Event::Retrying {
            attempt,
            delay,
            reason,
            ..
        } => format!(
            "attempt {attempt} failed, again in {}: {reason}",
            seconds(whole(*delay))
        ),
        Event::Done(outcome) => format!("done: {}", outcome.status()),
    }
}

/// Seconds, rounded up.
fn whole(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_a_line_that_people_understand() {
        let queued = |position, millis: Option<u64>| {
            let estimated_wait = millis.map(Duration::from_millis);
            sentence(&Event::Queued {
                position,
                estimated_wait,
            })
        };
        assert_eq!(queued(12, None), "queued, 12 jobs in front");
        assert_eq!(
            queued(12, Some(64_200)),
            "queued, 12 jobs in front, about 1m 5s"
        );
        assert_eq!(queued(1, Some(20)), "queued, 1 job in front, about 1s");
        assert_eq!(queued(0, Some(0)), "queued, next");
        let worker = "w-1".to_owned();
        let running = |attempt| {
            sentence(&Event::Running {
                worker: worker.clone(),
                attempt,
                model_version: 3,
            })
        };
        assert_eq!(running(1), "running on w-1, version 3");
        assert_eq!(running(2), "running on w-1, version 3, attempt 2");
        let retrying = Event::Retrying {
            worker: worker.clone(),
            attempt: 1,
            delay: Duration::from_millis(600),
            reason: "the worker is stopping".to_owned(),
        };
        assert_eq!(
            sentence(&retrying),
            "attempt 1 failed, again in 1s: the worker is stopping"
        );
    }
}
