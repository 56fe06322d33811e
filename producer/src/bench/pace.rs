//! The clock of an open loop.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::End;

/// The number of each request with the moment it is due, sent when that moment comes.
///
/// A thread of its own sleeps to a tenth of a millisecond; the runtime's timer has whole ones, which
/// would be added to every latency. Ends with `end`, or when the receiver is gone.
pub(super) fn ticks(rate: f64, end: End) -> mpsc::UnboundedReceiver<(u64, Instant)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    let gap = 1.0 / rate.max(f64::MIN_POSITIVE);
    let thread = std::thread::Builder::new().name("inferq-pace".to_owned());
    let started = thread.spawn(move || {
        let start = Instant::now();
        for index in 0_u64.. {
            let Ok(after) = Duration::try_from_secs_f64(index as f64 * gap) else {
                return;
            };
            let over = match end {
                End::Count(count) => index >= count,
                End::After(limit) => after >= limit,
            };
            let due = start + after;
            if over {
                return;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send((index, due)).is_err() {
                return;
            }
        }
    });
    if let Err(error) = started {
        tracing::error!(%error, "the thread that paces the load could not be started");
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_due_at_even_distances_however_late_they_are_read() {
        let mut due = ticks(1_000.0, End::After(Duration::from_millis(50)));
        tokio::time::sleep(Duration::from_millis(80)).await;
        let mut moments = Vec::new();
        while let Some((index, at)) = due.recv().await {
            assert_eq!(index, moments.len() as u64);
            moments.push(at);
        }
        assert_eq!(moments.len(), 50);
        for pair in moments.windows(2) {
            let gap = (pair[1] - pair[0]).as_secs_f64();
            assert!((gap - 0.001).abs() < 1e-6, "{gap}");
        }
    }
}
