//! Many jobs through one connection: publishes overlap, within a window of bytes.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream::FuturesOrdered};
use rand::RngExt;
use tokio::sync::Semaphore;
use tracing::Instrument;

use super::{Prepared, Submitted};
use crate::{client::Client, error::SubmitError, job::Job};

/// Permits count in this unit, so that a window of gigabytes fits a semaphore.
const UNIT: usize = 1024;
/// First and longest pause when a queue is full.
const FULL_FIRST: Duration = Duration::from_millis(20);
const FULL_LAST: Duration = Duration::from_secs(2);

/// How much [`Client::submit_many`] keeps in flight.
///
/// Overlap is worth 5 to 12 times the throughput for small bodies and nothing for large ones, so
/// the window is in bytes; the count only bounds memory for tiny ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Bytes of bodies without confirmation; a larger single body goes alone.
    pub bytes: usize,
    /// Jobs without confirmation.
    pub jobs: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            bytes: 8 << 20,
            jobs: 1_024,
        }
    }
}

impl Client {
    /// Submits jobs as fast as the server confirms them; answers come in the order of the jobs.
    ///
    /// A full queue is not an error here: the job waits, with jitter, until there is room. Nothing
    /// happens until the returned stream is polled, and dropping it stops after what is in flight.
    ///
    /// ```no_run
    /// # async fn example(client: inferq::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use futures::{StreamExt, stream};
    /// use inferq::Job;
    ///
    /// let digits: inferq::ModelName = "digits".parse()?;
    /// let jobs = stream::iter((0..1000).map(move |n| Job::new(digits.clone(), format!(r#"{{"instances": [[{n}]]}}"#))));
    /// let mut submitted = std::pin::pin!(client.submit_many(jobs));
    /// while let Some(answer) = submitted.next().await {
    ///     println!("{}", answer?.id);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn submit_many(
        &self,
        jobs: impl Stream<Item = Job> + Send,
    ) -> impl Stream<Item = Result<Submitted, SubmitError>> + Send {
        let window = self.inner.settings.window;
        let room = Arc::new(Room::new(window));
        let client = self.clone();
        let sends = jobs.map(move |job| {
            let (client, room) = (client.clone(), Arc::clone(&room));
            let span =
                tracing::debug_span!("publish", model = %job.model(), otel.kind = "producer");
            async move { client.submit_with_patience(&job, Some(&room)).await }.instrument(span)
        });
        in_order(sends, window.jobs.max(1))
    }

    /// Submits once the queue has room, and the window if there is one.
    pub(crate) async fn submit_with_patience(
        &self,
        job: &Job,
        room: Option<&Room>,
    ) -> Result<Submitted, SubmitError> {
        let prepared = self.prepare(job, self.submit_until()).await?;
        let submitted = self.publish_with_patience(&prepared, room).await;
        self.tidy(&prepared, &submitted);
        submitted
    }

    /// Publishes once the queue has room, and the window if there is one.
    pub(crate) async fn publish_with_patience(
        &self,
        prepared: &Prepared,
        room: Option<&Room>,
    ) -> Result<Submitted, SubmitError> {
        let mut pause = FULL_FIRST;
        loop {
            let answer = {
                let _held = match room {
                    Some(room) => room.take(prepared.body.len()).await,
                    None => None,
                };
                self.publish(prepared, self.submit_until()).await
            };
            match answer {
                Err(SubmitError::Overloaded { reason }) => {
                    if prepared
                        .deadline
                        .is_some_and(|deadline| deadline <= std::time::SystemTime::now())
                    {
                        return Err(SubmitError::Overloaded { reason });
                    }
                    tracing::debug!(reason, "the queue is full; waiting");
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(FULL_LAST);
                }
                answer => return answer,
            }
        }
    }
}

/// So that many waiting producers do not return together.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..1.5))
}

/// The window in bytes. First come, first served, so a large body is not overtaken for ever.
#[derive(Debug)]
pub(crate) struct Room {
    permits: Semaphore,
    all: u32,
}

impl Room {
    fn new(window: Window) -> Self {
        let all = u32::try_from((window.bytes / UNIT).max(1)).unwrap_or(u32::MAX);
        Self {
            permits: Semaphore::new(all as usize),
            all,
        }
    }

    async fn take(&self, bytes: usize) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let wanted = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        self.permits.acquire_many(wanted.min(self.all)).await.ok()
    }
}

/// Runs up to `most` futures at once and yields their outputs in order.
pub(crate) fn in_order<F: Future + Send>(
    futures: impl Stream<Item = F> + Send,
    most: usize,
) -> impl Stream<Item = F::Output> + Send
where
    F::Output: Send,
{
    let state = (Box::pin(futures.fuse()), FuturesOrdered::new());
    futures::stream::unfold(state, move |(mut futures, mut running)| async move {
        loop {
            tokio::select! {
                biased;
                next = futures.next(), if running.len() < most && !futures.is_done() => {
                    if let Some(future) = next {
                        running.push_back(future);
                    }
                }
                output = running.next(), if !running.is_empty() => {
                    return output.map(|output| (output, (futures, running)));
                }
                else => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test(start_paused = true)]
    async fn answers_keep_the_order_of_the_jobs_while_work_overlaps() {
        let running = Arc::new(AtomicUsize::new(0));
        let peak = Arc::new(AtomicUsize::new(0));
        let work = stream::iter((0..20_u64).rev()).map(|n| {
            let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
            async move {
                peak.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(n)).await;
                running.fetch_sub(1, Ordering::SeqCst);
                n
            }
        });
        let outputs: Vec<u64> = in_order(work, 5).collect().await;
        assert_eq!(outputs, (0..20).rev().collect::<Vec<u64>>());
        assert_eq!(peak.load(Ordering::SeqCst), 5);
    }

    #[tokio::test]
    async fn the_window_counts_bytes_and_lets_one_giant_through() {
        let room = Room::new(Window {
            bytes: 10 * UNIT,
            jobs: 8,
        });
        let first = room.take(6 * UNIT).await.expect("the window is open");
        let second = room.take(5 * UNIT);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), second)
                .await
                .is_err()
        );
        drop(first);
        assert!(
            room.take(1_000 * UNIT).await.is_some(),
            "larger than the window goes alone"
        );
    }
}
