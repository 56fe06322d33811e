//! Events of a job, and a connection that takes no more of them.

use async_nats::ConnectOptions;
use futures::StreamExt;
use inferq_schemas::identity::JobId;
use inferq_schemas::{JobEvent, Status};
use inferq_worker::events::Events;
use inferq_worker::job::Author;
use inferq_worker::ledger::Ledger;
use inferq_worker::metrics::Metrics;

use crate::nats::Nats;

/// Commands that the connection of these tests holds before it takes no more.
const TAKES: usize = 4;

// One thread: what sends for the connection does not run while this test tells events.
#[tokio::test]
async fn an_event_that_the_connection_does_not_take_at_once_is_lost_and_counted() {
    let nats = Nats::start().await;
    let options = ConnectOptions::new().client_capacity(TAKES);
    let client = options.connect(&nats.url).await.expect("it listens");
    let (metrics, author) = (Metrics::new(), "w-1".into());
    let ledger = Ledger::new(client, nats.subjects.clone());
    let events = Events::new(ledger, Author { worker: author }, metrics.clone());
    let job = JobId::new("order-1").expect("a good id");
    let listener = async_nats::connect(&nats.url).await.expect("it listens");
    let mut told = listener
        .subscribe(nats.subjects.events(&job))
        .await
        .expect("subscribed");
    // The server has the subscription once it has answered something that came after it.
    round_trip(&listener).await;
    let teller = events.teller(&job, 2);
    teller.running(3);
    teller.running(3);
    for _ in 0..100 {
        teller.done(Status::Ok);
    }
    let lost = 101 - TAKES;
    let line = format!("inferq_events_lost_total {lost}");
    let shown = metrics.encode();
    assert!(shown.lines().any(|found| found == line), "{shown}");
    let running = JobEvent::Running {
        worker: "w-1".to_owned(),
        attempt: 2,
        model_version: 3,
    };
    let mut expected = vec![running];
    expected.resize(TAKES, JobEvent::Done { status: Status::Ok });
    for event in expected {
        let message = told.next().await.expect("connected");
        assert_eq!(JobEvent::from_body(&message.payload), Some(event));
    }
    teller.done(Status::Expired);
    let message = told.next().await.expect("connected");
    let last = JobEvent::Done {
        status: Status::Expired,
    };
    assert_eq!(JobEvent::from_body(&message.payload), Some(last));
}

async fn round_trip(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.expect("subscribed");
    client
        .publish(inbox, "".into())
        .await
        .expect("the connection is open");
    answers.next().await.expect("it comes back");
}
