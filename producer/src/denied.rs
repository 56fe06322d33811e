//! What the server does not allow: told beside the call that caused it, brought back to that call.
//!
//! NATS answers a publish that a user may not make with an error on the connection, and leaves the
//! call itself to time out. Here each call also listens for that error.

use tokio::sync::broadcast;

/// Denials that a slow listener may fall behind before it misses one, which then times out.
const REMEMBERED: usize = 64;

/// Hands the denied subjects of a connection to the calls in flight.
#[derive(Debug, Clone)]
pub(crate) struct Denials(broadcast::Sender<String>);

impl Denials {
    pub(crate) fn new() -> Self {
        Self(broadcast::channel(REMEMBERED).0)
    }

    /// Takes in what the server reports, which is a denial or anything else.
    pub(crate) fn report(&self, message: &str) {
        if let Some(subject) = denied_publish(message) {
            // Nobody may be waiting.
            self.0.send(subject.to_owned()).ok();
        }
    }

    /// `work`, unless the server says meanwhile that `subject` may not be published to.
    pub(crate) async fn watch<T>(
        &self,
        subject: &str,
        work: impl Future<Output = T>,
    ) -> Result<T, DeniedSubject> {
        let denied = self.0.subscribe();
        tokio::select! {
            biased;
            done = work => Ok(done),
            () = heard(denied, subject) => Err(DeniedSubject(subject.to_owned())),
        }
    }
}

/// The server does not allow this user to publish to a subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server does not allow this user to publish to {0}; ask its administrator for the permission"
)]
pub struct DeniedSubject(pub String);

async fn heard(mut denied: broadcast::Receiver<String>, subject: &str) {
    loop {
        match denied.recv().await {
            Ok(denied) if denied == subject => return,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            // The connection is gone, and so is whoever could tell.
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The subject of `Permissions Violation for Publish to "infer.jobs.digits.normal"`.
fn denied_publish(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("Permissions Violation for Publish to \"")?;
    rest.split_once('"').map(|(subject, _)| subject)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const REPORT: &str = "Permissions Violation for Publish to \"infer.jobs.Digits.normal\"";

    #[test]
    fn only_a_denied_publish_is_one() {
        assert_eq!(denied_publish(REPORT), Some("infer.jobs.Digits.normal"));
        let other = "Permissions Violation for Subscription to \"infer.results.a\"";
        assert_eq!(denied_publish(other), None);
        assert_eq!(denied_publish("Maximum Payload Violation"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_call_that_is_denied_ends_and_others_go_on() {
        let denials = Denials::new();
        let call = |subject: &'static str| {
            let denials = denials.clone();
            async move {
                let work = tokio::time::sleep(Duration::from_secs(5));
                denials.watch(subject, work).await
            }
        };
        let report = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            denials.report(REPORT);
        };
        let (denied, other, ()) = tokio::join!(
            call("infer.jobs.Digits.normal"),
            call("infer.jobs.digits.normal"),
            report
        );
        let error = denied.expect_err("it was denied");
        assert!(error.to_string().contains("infer.jobs.Digits.normal"));
        assert_eq!(other, Ok(()));
    }
}
